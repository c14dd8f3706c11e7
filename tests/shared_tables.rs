//! Large tables, which several connections read together, span of time by span of time.

use std::collections::BTreeSet;

use pgslice::manifest::Slice;

use crate::cluster::{self, Database};
use crate::proxy::{Fate, Proxy};
use crate::published::Published;
use crate::scene::Scene;

const DAY: &str = "2024-05-01";
const TABLE: &str = "public.event";

/// 96 MB of rows: most of them crowd into one hour, some lie on what a day may be cut at, and just before it, and others
/// on the days around.
fn database(hint: &str, more: &str) -> Database {
    let database = cluster::source().create_database(hint);
    database.psql(&format!(
        "CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL, body text NOT NULL);
         ALTER TABLE event ALTER body SET STORAGE PLAIN;
         INSERT INTO event SELECT n, '2024-05-01 13:00Z'::timestamptz + n * interval '40 ms', repeat(md5(n::text), 32)
             FROM generate_series(1, 90000) n;
         INSERT INTO event SELECT 100000 + n, '2024-05-01 00:00Z'::timestamptz + n / 2 * interval '5 min'
             - n % 2 * interval '1 us', 'a bound' FROM generate_series(0, 577) n;
         CREATE INDEX event_at ON event (at); {more}; VACUUM ANALYZE event"
    ));
    database
}

fn scene(database: &Database, jobs: u32, more: &str) -> Scene {
    let sections = format!("[export]\njobs = {jobs}\n[[table]]\nname = \"event\"\ntime-column = \"at\"\n{more}");
    Scene::new(&sections).source(database)
}

/// The day as so many connections publish it.
#[track_caller]
fn published_by(database: &Database, jobs: u32, more: &str) -> (Scene, Published, Slice) {
    let scene = scene(database, jobs, more);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let published = Published::by(&scene);
    published.is_whole();
    assert_eq!(published.staged(), 0);
    let slice = published.slice(DAY, TABLE);
    (scene, published, slice)
}

#[test]
fn connections_that_share_a_table_publish_what_one_of_them_does() {
    for format in ["text", "csv", "binary"] {
        let database = database("shared", "");
        let format = format!("format = {format:?}\n");
        let (_one, _, alone) = published_by(&database, 1, &format);
        let (_three, published, shared) = published_by(&database, 3, &format);
        assert_eq!(alone.parts.len(), 1);
        assert!((2..=3).contains(&shared.parts.len()), "{}", shared.parts.len());
        let described = |slice: &Slice| Slice { parts: Vec::new(), stored_bytes: 0, ..slice.clone() };
        assert_eq!(described(&shared), described(&alone));
        assert_eq!(shared.rows, 90_576, "those of the day before and after are none of its");
        let names: BTreeSet<&str> = shared.parts.iter().map(|part| part.key.as_str()).collect();
        assert_eq!(names.len(), shared.parts.len());
        assert!(shared.parts.iter().skip(1).all(|part| part.key.as_str().contains("-p000")), "{names:?}");
        assert_eq!(published.files(DAY, TABLE).len(), shared.parts.len(), "each part is a file of its own");
    }
}

#[test]
fn what_connections_shared_comes_back_as_it_was() {
    let source = database("shared", "");
    let replica = cluster::replica().create_database("shared");
    replica.psql("CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL, body text NOT NULL)");
    let scene = scene(&source, 3, "").replica(&replica);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    scene.pgslice(&["catchup", "--replica"]).exits(0);
    let rows = "SELECT count(*), sum(hashtextextended(event::text, 0)) FROM event
        WHERE at >= '2024-05-01 00:00Z' AND at < '2024-05-02 00:00Z'";
    assert_eq!(replica.psql(rows), source.psql(rows));
    scene.pgslice(&["verify", "--source", "--replica"]).exits(0);
}

#[test]
fn a_table_without_an_index_on_its_time_and_what_one_connection_reads_are_read_once() {
    let spans = |database: &Database, jobs| {
        let ran = scene(database, jobs, "").pgslice(&["export", "--date", DAY, "-vv"]).exits(0);
        ran.stderr.matches("spans of time").count()
    };
    let indexed = database("indexed", "");
    assert_eq!([spans(&indexed, 3), spans(&indexed, 1)], [1, 0]);
    let plain = database("plain", "DROP INDEX event_at");
    assert_eq!(spans(&plain, 3), 0);
}

#[test]
fn a_span_that_fails_leaves_nothing_of_the_others() {
    let database = database("failing", "UPDATE event SET id = 0 WHERE id = 90000");
    let scene = scene(&database, 3, "where = \"1000 / id < 2000\"\n");
    let ran = scene.pgslice(&["export", "--date", DAY]).exits(1);
    assert!(ran.stderr.contains("public.event") && ran.stderr.contains("division by zero"), "{ran}");
    let published = Published::by(&scene);
    assert!(published.days().is_empty());
    assert!(published.objects().is_empty(), "{:?}", published.objects());
    assert_eq!(published.staged(), 0);
}

#[test]
fn a_partition_that_is_attached_while_connections_share_its_table_is_read_by_none_of_them() {
    let database = cluster::source().create_database("attached");
    database.psql(
        "CREATE TABLE event (id int, kind text NOT NULL, at timestamptz NOT NULL, body text NOT NULL)
             PARTITION BY LIST (kind);
         CREATE INDEX ON event (at);
         CREATE TABLE event_a PARTITION OF event FOR VALUES IN ('a');
         ALTER TABLE event_a ALTER body SET STORAGE PLAIN;
         INSERT INTO event SELECT n, 'a', '2024-05-01 00:00Z'::timestamptz + n * interval '900 ms', repeat(md5(n::text), 32)
             FROM generate_series(1, 90000) n;
         CREATE TABLE event_b (LIKE event);
         INSERT INTO event_b SELECT n, 'b', '2024-05-01 00:00Z'::timestamptz + n * interval '1 min', 'of another kind'
             FROM generate_series(1, 1400) n;
         VACUUM ANALYZE",
    );
    let proxy = Proxy::start(&database, |message| if message.is_row() { Fate::Hold } else { Fate::Pass });
    let sections = format!(
        "[source]\nurl = \"{}\"\n[export]\njobs = 2\n[[table]]\nname = \"event\"\ntime-column = \"at\"\n",
        proxy.url()
    );
    let scene = Scene::new(&sections);
    let run = scene.spawn(&["export", "--date", DAY, "-vv"]);
    // Two of many spans are being read, and the others not planned yet.
    proxy.holds_so_many(2);
    database.psql("ALTER TABLE event ATTACH PARTITION event_b FOR VALUES IN ('b')");
    proxy.release();
    let ran = run.wait().exits(0);
    assert!(ran.stderr.contains("spans of time"), "{ran}");
    let published = Published::by(&scene);
    published.is_whole();
    assert_eq!(published.slice(DAY, TABLE).rows, 90_000);
    // The next run finds all of them.
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    assert_eq!(published.slice(DAY, TABLE).rows, 91_400);
}
