//! Slices in csv and binary format: what lies in their parts, and that replicas end up with the same rows.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use pgslice::manifest::SliceFormat;

use crate::bucket_faults::Crossing;
use crate::cluster::{self, Database};
use crate::pair::{NOTES, Pair, notes, rows};
use crate::published::Published;
use crate::scene::Scene;

const DAY: &str = "2024-05-01";
const FORMATS: [&str; 3] = ["text", "csv", "binary"];

/// Rows that look like something else in one format or another.
pub(crate) const HOSTILE: &str = r#"
    CREATE TABLE event (
        id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT '2024-05-01 10:00Z', t text, j json, a text[], b bytea
    );
"#;
/// 440 of them.
pub(crate) const HOSTILE_ROWS: &str = r#"
    INSERT INTO event (id, t) VALUES
        (1, NULL), (2, ''), (3, '\N'), (4, '\.'), (5, E'\\.\n\\.'), (6, E'a\tb'), (7, E'a\nb'), (8, E'a\r\nb\r'),
        (9, E'\b\f\v'), (10, '\'), (11, '\\'), (12, '\n'), (13, 'ä€😀'), (14, E'\u2028'), (15, E'\x01\x7f'),
        (16, ' '), (17, E'\\\t\\\n'), (18, '"'','), (19, repeat(E'\\', 1000)), (20, E'\u00a0\ufeff'), (21, '"'),
        (22, '""'), (23, E'\n'), (24, E'"\n"'), (25, E'\n\\.\n'), (26, E'x\n\\.'), (27, E'\\.\nx'), (28, ','),
        (29, E'PGCOPY\n'), (30, E'\r'), (31, 'NULL'), (32, '  x  ');
    INSERT INTO event (id, j, a) VALUES
        (40, '{"a\n": "\u0000 \\t"}', ARRAY['a,b', '{', NULL, 'NULL', E'\\', E'\n', '"', '']);
    INSERT INTO event (id, b) SELECT 50 + n, decode(string_agg(lpad(to_hex((b + n) % 256), 2, '0'), ''), 'hex')
        FROM generate_series(0, 255) b, generate_series(0, 3) n GROUP BY n;
    INSERT INTO event (id, b) VALUES (60, ''), (61, '\xffff'), (62, '\x5047434f50590aff0d0a00');
    INSERT INTO event (id, t) SELECT 100 + n, chr(n) FROM generate_series(1, 400) n;
"#;

fn table(name: &str, format: &str, more: &str) -> String {
    format!("[[table]]\nname = {name:?}\nformat = \"{format}\"\n{more}\n")
}

fn timed(name: &str, format: &str) -> String {
    table(name, format, "time-column = \"at\"")
}

/// Hostile rows on the source; the table, empty, on the replica.
fn hostile(format: &str) -> Pair {
    let pair = Pair::new(HOSTILE, &timed("event", format));
    pair.source.psql(HOSTILE_ROWS);
    pair
}

#[test]
fn a_csv_part_is_what_copy_writes_with_a_header_and_the_header_is_a_frame_of_its_own() {
    let pair = hostile("csv");
    pair.export(DAY);
    let published = Published::by(&pair.scene);
    published.is_whole();
    let file = String::from_utf8(published.files(DAY, "public.event").concat()).expect("UTF-8");
    let by_psql = pair.source.psql("COPY (SELECT * FROM event) TO STDOUT (FORMAT csv, HEADER)");
    assert_eq!(file, format!("{by_psql}\n"));
    let slice = published.slice(DAY, "public.event");
    assert_eq!((slice.format, slice.rows), (SliceFormat::Csv, 440));
    assert!(slice.parts[0].key.as_str().ends_with("/public.event-2024-05-01.csv.zst"), "{}", slice.parts[0].key);
    let frames: Vec<(u64, u64)> = slice.parts[0].frames.iter().map(|frame| (frame.rows, frame.raw_bytes)).collect();
    assert_eq!(frames, [(0, 14), (440, file.len() as u64 - 14)]);
    assert_eq!(slice.raw_bytes, file.len() as u64 - 14);
}

#[test]
fn the_header_of_a_csv_part_is_the_servers_whatever_the_columns_are_called() {
    let database = cluster::source().create_database("names");
    database.psql(
        r##"CREATE TABLE t (at timestamptz, "a,b" int, "c""d" int, " e " int, "\." int, "f
g" int, "Ä" int, "\N" int, "#" int);
           CREATE TABLE "one" ("\." timestamptz); INSERT INTO "one" VALUES ('2024-05-01 10:00Z'), ('2024-05-01 11:00Z')"##,
    );
    let tables = format!("{}{}", timed("t", "csv"), table("one", "csv", "time-column = '\"\\.\"'"));
    let scene = Scene::new(&tables).source(&database);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let published = Published::by(&scene);
    for (name, order) in [("t", "1"), ("one", "1")] {
        let file = String::from_utf8(published.files(DAY, &format!("public.{name}")).concat()).expect("UTF-8");
        let query = format!("COPY (SELECT * FROM \"{name}\" ORDER BY {order}) TO STDOUT (FORMAT csv, HEADER)");
        assert_eq!(file, format!("{}\n", database.psql(&query)));
    }
}

#[test]
fn hostile_rows_arrive_in_every_format_by_copy_by_merge_and_by_adoption() {
    for format in FORMATS {
        let pair = hostile(format);
        pair.export(DAY);
        let origins = || pair.ledger("origin, rows, format");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("event");
        assert_eq!(origins(), format!("loaded|440|{format}"));

        // A replica that has the rows by other means finds them equal, without reading a part.
        pair.replica.psql("DROP SCHEMA pgslice CASCADE");
        let part = pair.part_key(DAY, "event");
        let kept = pair.place().content(&part);
        pair.place().remove(&part);
        pair.catchup(&[]).exits(0);
        assert_eq!(origins(), format!("adopted|440|{format}"));
        pair.place().write(&part, &kept);

        pair.source.psql(
            r"UPDATE event SET t = E'\\.\n' || coalesce(t, 'was NULL') WHERE id < 30; DELETE FROM event WHERE id = 40;
              INSERT INTO event (id, t) VALUES (1000, E'new\n')",
        );
        pair.export(DAY);
        pair.catchup(&[]).exits(0);
        pair.assert_equal("event");
        assert_eq!(origins(), format!("merged|440|{format}"));
    }
}

#[test]
fn days_without_rows_and_tables_without_a_key_go_in_every_format() {
    for format in FORMATS {
        let schema = "CREATE TABLE log (at timestamptz NOT NULL, t text); CREATE INDEX ON log (at);
                      CREATE TABLE none (id int PRIMARY KEY, at timestamptz NOT NULL)";
        let pair = Pair::new(schema, &format!("{}{}", timed("log", format), timed("none", format)));
        pair.source.psql(
            r"INSERT INTO log VALUES ('2024-05-01 10:00Z', E'\\.'), ('2024-05-01 10:00Z', E'\\.'),
              ('2024-05-01 11:00Z', NULL)",
        );
        pair.export_range(DAY, "2024-05-02");
        let published = Published::by(&pair.scene);
        published.is_whole();
        let empty = published.files(DAY, "public.none");
        let expected: &[u8] = match format {
            "text" => b"",
            "csv" => b"id,at\n",
            _ => b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff",
        };
        assert_eq!(empty, [expected]);
        pair.catchup(&[]).exits(0);
        pair.assert_equal("log");
        assert_eq!(pair.ledger("table_name, origin, rows").lines().next(), Some("public.log|loaded|3"));
        pair.source.psql("UPDATE log SET t = '' WHERE t IS NULL");
        pair.export(DAY);
        pair.catchup(&[]).exits(0);
        pair.assert_equal("log");
    }
}

#[test]
fn reference_tables_go_in_formats_of_their_own() {
    let schema = "CREATE TABLE person (id int PRIMARY KEY, name text);
                  CREATE TABLE country (code text PRIMARY KEY, flag bytea);
                  CREATE TABLE post (id int PRIMARY KEY, at timestamptz NOT NULL, author int REFERENCES person)";
    let referenced = "rows = \"referenced\"\nreferenced-by = [\"post.author\"]\nkey = [\"id\"]";
    let tables = [
        timed("post", "text"),
        table("person", "csv", referenced),
        table("country", "binary", "rows = \"all\"\nkey = [\"code\"]"),
    ];
    let pair = Pair::new(schema, &tables.concat());
    pair.source.psql(
        r#"INSERT INTO person SELECT n, E'"\n' || n FROM generate_series(1, 9) n;
           INSERT INTO country VALUES ('de', '\x00ff'), ('fr', NULL);
           INSERT INTO post SELECT n, '2024-05-01 10:00Z'::timestamptz + n * interval '5 h', n FROM generate_series(1, 5) n"#,
    );
    pair.export_range(DAY, "2024-05-02");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*) FROM person"), "5");
    for table in ["post", "country"] {
        pair.assert_equal(table);
    }
    assert_eq!(rows(&pair.replica, "person"), rows(&pair.source, "(SELECT * FROM person WHERE id <= 5)"));
    pair.source.psql("UPDATE person SET name = 'x' WHERE id = 1; UPDATE country SET flag = '' WHERE code = 'fr'");
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("country");
    assert_eq!(pair.replica.psql("SELECT name FROM person WHERE id = 1"), "x");
}

/// A file that the server may read.
fn readable(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new()
        .prefix("pgslice-part-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in("/tmp")
        .expect("create a file");
    file.write_all(content).expect("write a file");
    file
}

/// Loads parts as a stranger does, without pgslice.
fn load(database: &Database, files: &[Vec<u8>], options: &str) {
    for content in files {
        let file = readable(content);
        database.psql(&format!("COPY event FROM '{}' ({options})", file.path().display()));
    }
}

#[test]
fn a_stranger_loads_the_parts_with_copy() {
    for (format, options) in [("csv", "FORMAT csv, HEADER"), ("binary", "FORMAT binary")] {
        let pair = hostile(format);
        pair.export(DAY);
        load(&pair.replica, &Published::by(&pair.scene).files(DAY, "public.event"), options);
        pair.assert_equal("event");
    }
}

#[test]
fn each_of_several_parts_is_a_file_of_its_own() {
    for (format, options) in [("csv", "FORMAT csv, HEADER"), ("binary", "FORMAT binary")] {
        let crossing = Crossing::new();
        let pair = &crossing.pair;
        pair.scene.edit_configuration("path-style = true", "path-style = true\nmax-parts = 2");
        pair.scene.edit_configuration("time-column = \"at\"", &format!("time-column = \"at\"\nformat = \"{format}\""));
        pair.export(DAY);
        let published = Published::by(&pair.scene);
        let slice = published.slice(DAY, "public.blobs");
        assert!(slice.parts.len() > 1, "{}", slice.parts.len());
        assert!(slice.parts.iter().all(|part| part.frames[0].rows == 0 && part.stored_bytes <= 10 << 20));
        let files = published.files(DAY, "public.blobs");
        let raw: usize = files.iter().map(Vec::len).sum();
        assert!(raw as u64 > slice.raw_bytes, "headers are no bytes of rows");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("blobs");
        pair.replica.psql("ALTER TABLE blobs RENAME TO event; TRUNCATE event");
        load(&pair.replica, &files, options);
        assert_eq!(rows(&pair.replica, "event"), rows(&pair.source, "blobs"));
    }
}

#[test]
fn another_format_in_the_configuration_makes_no_day_be_read_again_and_no_replica_write_again() {
    let day_before = |format: &str| format!("[export]\nlookback = \"0d\"\n{}", timed("notes", format));
    let mut pair = Pair::new(NOTES, "");
    pair.configure(&day_before("text"));
    pair.source.psql(&notes(2));
    pair.export_range(DAY, "2024-05-02");
    pair.catchup(&[]).exits(0);
    let written = "SELECT string_agg(xmin::text || ctid::text, ',' ORDER BY id) FROM notes";
    let before = pair.replica.psql(written);

    pair.configure(&day_before("csv"));
    let published = Published::by(&pair.scene);
    let range = ["export", "--from", "2024-05-02", "--to", "2024-05-03"];
    pair.scene.pgslice(&range).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r1 final 5", "2024-05-02 r2 final 5", "2024-05-03 r1 final 0"]);
    let formats = |day: &str| published.slice(day, "public.notes").format;
    assert_eq!([DAY, "2024-05-02"].map(formats), [SliceFormat::Text, SliceFormat::Csv]);
    pair.scene.pgslice(&range).exits(0);
    assert_eq!(published.days()[1], "2024-05-02 r2 final 5", "read again in the same format it is the same");

    pair.catchup(&[]).exits(0);
    assert_eq!(pair.ledger("day, revision, format"), "2024-05-01|1|text\n2024-05-02|2|csv\n2024-05-03|1|csv");
    assert_eq!(pair.replica.psql(written), before, "equal rows are not written again");
    pair.assert_equal("notes");
}

#[test]
fn equal_bytes_in_two_formats_are_not_taken_for_equal_rows() {
    // In text format `\N` is NULL, in csv it is two characters; `""` is two characters, in csv it is empty.
    let schema = "CREATE TABLE word (word text PRIMARY KEY)";
    let whole = |format: &str| table("word", format, "rows = \"all\"\nkey = [\"word\"]");
    let mut pair = Pair::new(schema, &whole("text"));
    pair.source.psql(r#"INSERT INTO word VALUES ('""')"#);
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    pair.source.psql("UPDATE word SET word = ''");
    pair.configure(&whole("csv"));
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*) FROM word WHERE word = ''"), "1");
}

#[test]
fn a_ledger_of_a_version_that_knew_no_formats_goes_on() {
    let mut pair = Pair::of_notes(2);
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    pair.replica.psql("ALTER TABLE pgslice.ledger DROP COLUMN format");
    let status = pair.scene.pgslice(&["status", "--json"]).exits(0);
    assert!(status.stdout.contains("\"applied_revision\": 1"), "{status}");
    pair.configure(&timed("notes", "binary"));
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.ledger("day, format"), "2024-05-01|text\n2024-05-02|binary");
    pair.assert_equal("notes");
}

#[test]
fn binary_rows_go_into_tables_with_columns_that_cannot_be_received() {
    // aclitem has no binary form, and COPY looks at every column of the table that it loads.
    let source = "CREATE TABLE keyed (id int PRIMARY KEY, at timestamptz NOT NULL, body bytea);
                  CREATE TABLE keyless (at timestamptz NOT NULL, body bytea)";
    let replica = "CREATE TABLE keyed (acl aclitem DEFAULT 'postgres=r/postgres', id int PRIMARY KEY,
                       at timestamptz NOT NULL, body bytea, double int GENERATED ALWAYS AS (id * 2) STORED);
                   CREATE FUNCTION nobody(timestamptz) RETURNS aclitem IMMUTABLE LANGUAGE sql AS 'SELECT NULL::aclitem';
                   CREATE TABLE keyless (at timestamptz NOT NULL, body bytea, acl aclitem GENERATED ALWAYS AS (nobody(at)) STORED)";
    let tables = format!("{}{}", timed("keyed", "binary"), timed("keyless", "binary"));
    let pair = Pair::with_empty_replica(source, &tables);
    pair.replica.psql(replica);
    pair.source.psql(
        r"INSERT INTO keyed SELECT n, '2024-05-01 10:00Z', '\x00' FROM generate_series(1, 5) n;
          INSERT INTO keyless SELECT at, body FROM keyed",
    );
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    let columns = "(SELECT id, at, body FROM keyed)";
    assert_eq!(rows(&pair.replica, columns), rows(&pair.source, columns));
    assert_eq!(pair.replica.psql("SELECT count(*) FROM keyed WHERE acl IS NOT NULL AND double = id * 2"), "5");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM keyless"), "5");
    assert_eq!(pair.ledger("table_name, origin, rows"), "public.keyed|loaded|5\npublic.keyless|loaded|5");

    // A row that comes from another day, and a window without a key that is replaced.
    pair.source.psql(
        r"UPDATE keyed SET at = '2024-05-02 10:00Z' WHERE id = 1; INSERT INTO keyed VALUES (6, '2024-05-02 11:00Z', '');
          UPDATE keyless SET body = '\x01'",
    );
    pair.export_range(DAY, "2024-05-02");
    pair.catchup(&[]).exits(0);
    assert_eq!(rows(&pair.replica, columns), rows(&pair.source, columns));
    assert_eq!(pair.replica.psql("SELECT DISTINCT body FROM keyless"), "\\x01");
}
