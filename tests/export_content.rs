//! What lies in the parts: rows as COPY writes them, whole frames, and a digest that anyone can compute.

use xxhash_rust::xxh3::xxh3_128;

use crate::cluster::{self, Database};
use crate::datanommer;
use crate::published::Published;
use crate::scene::Scene;

const DAY: &str = "2024-05-01";
const FRAME_BYTES: u64 = 8 << 20;

/// psql's own COPY of a query, its lines sorted.
fn copied(database: &Database, query: &str) -> Vec<String> {
    let text = database.psql(&format!("COPY ({query}) TO STDOUT"));
    let mut lines: Vec<String> =
        if text.is_empty() { Vec::new() } else { text.split('\n').map(str::to_owned).collect() };
    lines.sort();
    lines
}

/// The digest as docs/format.md defines it, computed from lines.
fn digest(lines: &[String]) -> String {
    let sum = lines.iter().fold(0_u128, |sum, line| sum.wrapping_add(xxh3_128(line.as_bytes())));
    format!("{sum:032x}")
}

/// Holds a slice's figures against its rows.
fn adds_up(published: &Published, day: &str, table: &str) {
    let (slice, rows) = (published.slice(day, table), published.rows(day, table));
    assert_eq!(slice.rows, rows.len() as u64, "{table}");
    assert_eq!(slice.raw_bytes, rows.iter().map(|row| row.len() as u64 + 1).sum::<u64>(), "{table}");
    assert_eq!(slice.rows_digest.to_string(), digest(&rows), "{table}");
    let frames: Vec<_> = slice.parts.iter().flat_map(|part| &part.frames).collect();
    assert_eq!(frames.iter().map(|frame| frame.rows).sum::<u64>(), slice.rows, "{table}");
    assert_eq!(frames.iter().map(|frame| frame.stored_bytes).sum::<u64>(), slice.stored_bytes, "{table}");
    assert!(frames.iter().all(|frame| frame.raw_bytes <= FRAME_BYTES || frame.rows == 1), "{table}: {frames:?}");
}

#[test]
fn hostile_values_come_out_as_copy_writes_them() {
    let database = cluster::source().create_database("hostile");
    database.psql(
        r#"CREATE TABLE event (
               id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT '2024-05-01 10:00Z', t text, j json, a text[]
           );
           INSERT INTO event (id, t) VALUES
               (1, NULL), (2, ''), (3, '\N'), (4, '\.'), (5, E'\\.\n\\.'), (6, E'a\tb'), (7, E'a\nb'), (8, E'a\r\nb\r'),
               (9, E'\b\f\v'), (10, '\'), (11, '\\'), (12, '\n'), (13, 'ä€😀'), (14, E'\u2028'), (15, E'\x01\x7f'),
               (16, ' '), (17, E'\\\t\\\n'), (18, '"'','), (19, repeat(E'\\', 1000)), (20, E'\u00a0\ufeff');
           INSERT INTO event (id, j, a) VALUES
               (30, '{"a\n": "\u0000 \\t"}', ARRAY['a,b', '{', NULL, 'NULL', E'\\', E'\n', '"']);
           INSERT INTO event (id, t) SELECT 100 + n, chr(n) FROM generate_series(1, 400) n"#,
    );
    let scene = Scene::new("[[table]]\nname = \"event\"\ntime-column = \"at\"\n").source(&database);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let published = Published::by(&scene);
    let rows = published.rows(DAY, "public.event");
    assert_eq!(rows.len(), 421);
    assert_eq!(rows, copied(&database, "SELECT * FROM event"));
    adds_up(&published, DAY, "public.event");
}

#[test]
fn a_realistic_day_adds_up_in_every_table() {
    let database = datanommer::create(cluster::source(), "realistic");
    for day in ["2024-04-30", DAY, "2024-05-02"] {
        datanommer::fill(&database, day, 1500);
    }
    let scene = Scene::new(datanommer::tables()).source(&database);
    scene.pgslice(&["export", "--from", "2024-04-30", "--to", "2024-05-02"]).exits(0);
    let published = Published::by(&scene);
    for table in ["messages", "users_messages", "packages_messages", "users", "packages"] {
        adds_up(&published, DAY, &format!("public.{table}"));
    }
    let own = format!("SELECT * FROM messages WHERE \"timestamp\"::date = '{DAY}'");
    assert_eq!(published.rows(DAY, "public.messages"), copied(&database, &own));
    let users = format!(
        "SELECT * FROM users WHERE id IN (SELECT user_id FROM users_messages WHERE msg_timestamp::date = '{DAY}')"
    );
    assert_eq!(published.rows(DAY, "public.users"), copied(&database, &users));
    assert!(published.rows(DAY, "public.messages").len() == 1500);
}

#[test]
fn a_row_longer_than_a_frame_is_a_frame_of_its_own() {
    let database = cluster::source().create_database("long_row");
    database.psql(
        "CREATE TABLE event (id int, at timestamptz NOT NULL DEFAULT '2024-05-01 10:00Z', t text);
         INSERT INTO event (id, t) SELECT n, repeat('short', 10) FROM generate_series(1, 100) n;
         INSERT INTO event (id, t) VALUES (101, repeat('long', 2500000));
         INSERT INTO event (id, t) SELECT 101 + n, repeat('short', 10) FROM generate_series(1, 100) n",
    );
    let scene = Scene::new("[[table]]\nname = \"event\"\ntime-column = \"at\"\n").source(&database);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let published = Published::by(&scene);
    let rows: Vec<u64> = published.slice(DAY, "public.event").parts[0].frames.iter().map(|frame| frame.rows).collect();
    assert_eq!(rows, [100, 1, 100]);
    adds_up(&published, DAY, "public.event");
}

#[test]
fn a_long_slice_has_frames_of_eight_mebibytes_at_most() {
    let database = cluster::source().create_database("frames");
    database.psql(
        "CREATE TABLE event (id int, at timestamptz NOT NULL DEFAULT '2024-05-01 10:00Z', t text);
         INSERT INTO event (id, t) SELECT n, repeat(md5(n::text), 64) FROM generate_series(1, 10000) n",
    );
    let scene = Scene::new("[[table]]\nname = \"event\"\ntime-column = \"at\"\n").source(&database);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let published = Published::by(&scene);
    let frames = published.slice(DAY, "public.event").parts[0].frames.clone();
    assert!(frames.len() > 2 && frames.iter().all(|frame| frame.raw_bytes <= FRAME_BYTES), "{frames:?}");
    adds_up(&published, DAY, "public.event");
}
