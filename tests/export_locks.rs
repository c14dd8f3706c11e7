//! What excludes what while an export reads: other exports, and schema changes on the source.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::cluster::{self, Database};
use crate::harness::eventually;
use crate::proxy::{Fate, Message, Proxy};
use crate::published::Published;
use crate::scene::Scene;

const EVENT: &str = "[[table]]\nname = \"event\"\ntime-column = \"at\"\n";

/// A database with a partitioned table of which 2024-05-01 holds rows 1 to 100 and 2024-05-02 rows 101 to 200.
fn events(hint: &str) -> Database {
    let database = cluster::source().create_database(hint);
    database.psql(
        "CREATE TABLE event (id int NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM ('2024-05-01') TO ('2024-05-02');
         CREATE TABLE event_2 PARTITION OF event FOR VALUES FROM ('2024-05-02') TO ('2024-05-03');
         INSERT INTO event SELECT n, '2024-05-01 12:00Z'::timestamptz + (n - 1) / 100 * interval '1 day'
         FROM generate_series(1, 200) n",
    );
    database
}

/// The scene of an exporter whose first row of the first COPY is held back.
fn stalled(database: &Database) -> (Proxy, Scene) {
    held_at(database, |message| message.is_row())
}

/// The scene of an exporter whose source answers up to the first message that `stop` picks.
fn held_at(database: &Database, stop: impl Fn(&Message<'_>) -> bool + Send + 'static) -> (Proxy, Scene) {
    let held = AtomicBool::new(false);
    let proxy = Proxy::start(database, move |message| {
        if stop(message) && !held.swap(true, Ordering::Relaxed) { Fate::Hold } else { Fate::Pass }
    });
    let scene = Scene::new(&format!("[source]\nurl = \"{}\"\n{EVENT}", proxy.url()));
    (proxy, scene)
}

/// The answer to the statement that exports the snapshot: `00000004-0000002A-1` is its first value.
fn is_snapshot(message: &Message<'_>) -> bool {
    let id = message.body.get(6..25).unwrap_or_default();
    let hex = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    message.kind == b'D' && id.len() == 19 && hex(&id[..8]) && id[8] == b'-' && hex(&id[9..17]) && id[17..] == *b"-1"
}

#[test]
fn two_exporters_of_one_day_exclude_each_other() {
    let database = events("one_day");
    let (proxy, scene) = stalled(&database);
    let first = scene.spawn(&["export", "--date", "2024-05-01"]);
    proxy.holds();
    let second = Scene::new(EVENT).source(&database).reading(&scene);
    let ran = second.pgslice(&["export", "--date", "2024-05-01"]).exits(7);
    assert!(ran.stderr.contains("another run is exporting 2024-05-01 of scene"), "{ran}");
    let published = Published::by(&scene);
    assert!(published.days().is_empty());
    proxy.release();
    first.wait().exits(0);
    assert_eq!(published.days(), ["2024-05-01 r1 final 100"]);
    // The lock went with its holder.
    second.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    published.is_whole();
}

#[test]
fn an_exporter_that_lost_its_lock_does_not_undo_what_another_one_published() {
    let database = events("lost_lock");
    let (proxy, scene) = stalled(&database);
    let first = scene.spawn(&["export", "--date", "2024-05-01"]);
    proxy.holds();
    database.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
         WHERE locktype = 'advisory' AND datname = current_database()",
    );
    database.psql("INSERT INTO event VALUES (500, '2024-05-01 12:00Z')");
    let second = Scene::new(EVENT).source(&database).reading(&scene);
    second.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    let published = Published::by(&scene);
    let entry = published.entry("2024-05-01");
    proxy.release();
    let ran = first.wait().exits(7);
    assert!(ran.stderr.contains("2024-05-01 was published by another run meanwhile"), "{ran}");
    assert_eq!(published.entry("2024-05-01"), entry);
    assert_eq!(published.days(), ["2024-05-01 r1 final 101"]);
    published.is_whole();
}

#[test]
fn another_dataset_of_the_same_source_is_not_kept_waiting() {
    let database = events("two_datasets");
    let (proxy, scene) = stalled(&database);
    let first = scene.spawn(&["export", "--date", "2024-05-01"]);
    proxy.holds();
    let other = Scene::new(EVENT).source(&database);
    other.edit_configuration("dataset = \"scene\"", "dataset = \"other\"");
    other.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    proxy.release();
    first.wait().exits(0);
}

#[test]
fn exporters_of_different_days_never_wait_and_both_days_stand() {
    let database = events("two_days");
    let (proxy, scene) = stalled(&database);
    let first = scene.spawn(&["export", "--date", "2024-05-01"]);
    proxy.holds();
    // It begins and ends while the first one, which read the head before, is still reading rows.
    let second = Scene::new(EVENT).source(&database).reading(&scene);
    second.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
    let published = Published::by(&scene);
    assert_eq!(published.days(), ["2024-05-02 r1 final 100"]);
    proxy.release();
    first.wait().exits(0);
    assert_eq!(published.days(), ["2024-05-01 r1 final 100", "2024-05-02 r1 final 100"]);
    published.is_whole();
}

#[test]
fn many_exporters_at_once_lose_no_update_of_the_head() {
    let database = events("many");
    let proxy = Proxy::start(&database, |message| if message.copied().is_some() { Fate::Hold } else { Fate::Pass });
    let scene = Scene::new(&format!("[source]\nurl = \"{}\"\n{EVENT}", proxy.url()));
    let days: Vec<String> = (1..=6).map(|day| format!("2024-05-0{day}")).collect();
    let running: Vec<_> = days.iter().map(|day| scene.spawn(&["export", "--date", day])).collect();
    // All of them have read their rows, so that they publish at the same time.
    proxy.holds_so_many(days.len());
    proxy.release();
    for run in running {
        run.wait().exits(0);
    }
    let published = Published::by(&scene);
    let feed = published.feed();
    assert_eq!(feed.days.iter().map(|entry| entry.day.to_string()).collect::<Vec<_>>(), days);
    assert_eq!(feed.sequence, 7, "one to create it, one for each day");
    published.is_whole();
}

#[test]
fn truncate_has_to_wait_for_an_export_that_reads() {
    let database = events("truncate");
    let (proxy, scene) = held_at(&database, is_snapshot);
    let run = scene.spawn(&["export", "--date", "2024-05-01"]);
    proxy.holds();
    for change in
        ["TRUNCATE event", "DROP TABLE event_1", "ALTER TABLE event DETACH PARTITION event_1", "VACUUM FULL event_1"]
    {
        let refusal = database.try_psql(&format!("SET lock_timeout = '50ms'; {change}")).expect_err(change);
        assert!(refusal.contains("lock timeout"), "{change}: {refusal}");
    }
    proxy.release();
    run.wait().exits(0);
    assert_eq!(Published::by(&scene).days(), ["2024-05-01 r1 final 100"]);
}

#[test]
fn an_export_does_not_stand_in_line_behind_a_schema_change_that_waits_for_it() {
    let database = events("queued");
    let (proxy, scene) = held_at(&database, is_snapshot);
    let run = scene.spawn(&["export", "--date", "2024-05-01"]);
    proxy.holds();
    thread::scope(|scope| {
        scope.spawn(|| database.psql("TRUNCATE event"));
        let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'event'::regclass AND NOT granted";
        eventually("the change waits for its lock", || database.psql(waits) == "1");
        proxy.release();
        run.wait().exits(5);
    });
    assert_eq!(database.psql("SELECT count(*) FROM event"), "0", "the change had its turn");
    let published = Published::by(&scene);
    assert!(published.days().is_empty() && published.objects().is_empty());
    assert_eq!(published.staged(), 0);
}

#[test]
fn rows_that_came_after_the_snapshot_are_the_next_revisions() {
    let database = events("after");
    let (proxy, scene) = held_at(&database, is_snapshot);
    let run = scene.spawn(&["export", "--date", "2024-05-01"]);
    proxy.holds();
    database.psql("INSERT INTO event VALUES (999, '2024-05-01 12:00Z'); DELETE FROM event WHERE id = 1");
    proxy.release();
    run.wait().exits(0);
    let published = Published::by(&scene);
    let ids = published.ids("2024-05-01", "public.event");
    assert!(ids.contains(&"1".to_owned()) && !ids.contains(&"999".to_owned()), "{ids:?}");
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    let ids = published.ids("2024-05-01", "public.event");
    assert!(!ids.contains(&"1".to_owned()) && ids.contains(&"999".to_owned()), "{ids:?}");
}
