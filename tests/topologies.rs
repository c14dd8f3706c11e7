//! Servers as they are really run: hot standbys, failovers, restarts in the middle of a run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::cluster::{self, Cluster, Database};
use crate::harness::eventually;
use crate::interruptions::it_waits_in_the_trigger;
use crate::pair::{NOTES, NOTES_TABLE, Pair, notes, rows};
use crate::place::Kind;
use crate::published::Published;
use crate::scene::{Running, Scene};

const DAY: [&str; 3] = ["export", "--date", "2024-05-01"];
const TWO_DAYS: [&str; 5] = ["export", "--from", "2024-05-01", "--to", "2024-05-02"];
/// Reading a day of [`many_notes`] takes two seconds in the server.
const SLOWLY: &str =
    "[[table]]\nname = \"notes\"\ntime-column = \"at\"\nwhere = \"pg_catalog.pg_sleep(0.01) is not null\"\n";
const A_DAYS_NOTES: u32 = 200;

/// A primary and its standby, which nobody else uses, and a database of both with so many days of notes.
struct Standby {
    primary: &'static Cluster,
    standby: &'static Cluster,
    on_primary: Database,
    on_standby: Database,
}

impl Standby {
    fn of_notes(days: u32) -> Standby {
        let primary = Cluster::start();
        let on_primary = primary.create_database("published");
        on_primary.psql("ALTER SYSTEM SET autovacuum = off");
        on_primary.psql(&format!("SELECT pg_reload_conf(); {NOTES}; {}", notes(days)));
        let standby = primary.start_standby();
        let on_standby = standby.standby_of(&on_primary);
        Standby { primary, standby, on_primary, on_standby }
    }

    /// Waits until the standby has replayed everything.
    fn catches_up(&self) {
        let written = self.on_primary.psql("SELECT pg_current_wal_insert_lsn()");
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        eventually("the standby has caught up", || self.on_standby.psql(&replayed) == "t");
    }

    /// A setting of the standby alone.
    fn set_on_standby(&self, setting: &str) {
        self.on_standby.psql(&format!("ALTER SYSTEM SET {setting}"));
        self.on_standby.psql("SELECT pg_reload_conf()");
    }

    /// Makes the standby's replay want what every reader there still sees.
    fn conflict(&self) {
        self.on_primary.psql("INSERT INTO junk DEFAULT VALUES; DELETE FROM junk; VACUUM junk");
    }
}

fn many_notes(database: &Database, days: u32) {
    database.psql(&format!(
        "{NOTES}; CREATE TABLE junk (i int);
         INSERT INTO notes SELECT day * 1000 + i, '2024-05-01 12:00Z'::timestamptz + (day - 1) * interval '1 day', 'note'
         FROM generate_series(1, {days}) day, generate_series(1, {A_DAYS_NOTES}) i"
    ));
}

/// Starts an export and waits until the server is in the midst of a COPY.
fn copying(scene: &Scene, database: &Database, arguments: &[&str]) -> Running {
    let running = scene.spawn(arguments);
    is_copying(database);
    running
}

fn is_copying(database: &Database) {
    let copying = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND query ILIKE 'copy %' AND wait_event = 'PgSleep'";
    eventually("rows are being read", || database.psql(copying) == "1");
}

/// Nothing of any day is to be seen.
#[track_caller]
fn assert_nothing_visible(published: &Published) {
    assert!(published.days().is_empty(), "{:?}", published.days());
    assert!(published.objects().is_empty(), "{:?}", published.objects());
    assert_eq!(published.staged(), 0);
}

#[test]
fn days_of_a_hot_standby_are_provisional_until_the_primary_settles_them() {
    let servers = Standby::of_notes(2);
    servers.catches_up();
    // A transaction that the primary has open, and the standby cannot see.
    servers
        .on_primary
        .psql("BEGIN; INSERT INTO notes VALUES (1, '2024-05-01 01:00Z', 'late'); PREPARE TRANSACTION 'a'");
    servers.on_primary.psql("INSERT INTO notes VALUES (2, '2024-06-01 00:00Z', 'later')");
    servers.catches_up();
    let from_standby = Scene::in_folder(NOTES_TABLE).source(&servers.on_standby);
    let published = Published::by(&from_standby);
    let ran = from_standby.pgslice(&TWO_DAYS).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r1 provisional 5", "2024-05-02 r1 provisional 5"]);
    let replayed = servers.on_standby.psql("SELECT pg_last_wal_replay_lsn()");
    assert!(ran.stderr.contains("the source is a standby, which does not see the open transactions"), "{ran}");
    assert!(ran.stderr.contains(&format!("replayed it up to {replayed}")), "{ran}");
    assert!(ran.stderr.contains("after the day's end"), "{ran}");
    published.is_whole();
    assert_eq!(from_standby.pgslice(&TWO_DAYS).exits(0).summary(), "scene: 2 unchanged");

    let from_primary = Scene::in_folder(NOTES_TABLE).source(&servers.on_primary).reading(&from_standby);
    servers.on_primary.psql("ROLLBACK PREPARED 'a'");
    from_primary.pgslice(&TWO_DAYS).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r1 final 5", "2024-05-02 r1 final 5"]);
    assert_eq!(published.feed().source.expect("it was read").timeline, 1);
}

#[test]
fn a_day_of_a_standby_is_final_when_two_readings_beyond_its_end_found_the_same_rows() {
    let servers = Standby::of_notes(1);
    let clock = Clock::showing(&servers.on_primary, "2024-05-02 00:20Z");
    let at = |instant| {
        clock.show(instant);
        servers.catches_up();
    };
    servers.catches_up();
    let scene = Scene::in_folder(NOTES_TABLE).source(&servers.on_standby);
    let published = Published::by(&scene);
    scene.pgslice(&DAY).exits(0);
    at("2024-05-02 00:30Z");
    assert_eq!(scene.pgslice(&DAY).exits(0).summary(), "scene: 1 unchanged", "they are not 15 minutes apart");
    assert_eq!(published.days(), ["2024-05-01 r1 provisional 5"]);

    servers.on_primary.psql("INSERT INTO notes VALUES (106, '2024-05-01 23:00Z', 'committed later')");
    at("2024-05-02 00:36Z");
    scene.pgslice(&DAY).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r2 provisional 6"]);
    at("2024-05-02 00:52Z");
    let ran = scene.pgslice(&["export", "--wait", "1m"]).exits(0);
    assert!(!ran.stderr.contains("waiting"), "what a standby never sees is not waited for\n{ran}");
    assert_eq!(published.days(), ["2024-05-01 r2 final 6"]);
    published.is_whole();
}

#[test]
fn a_standby_that_is_behind_says_so_and_never_replaces_newer_rows() {
    let servers = Standby::of_notes(1);
    servers.catches_up();
    // From its next start on it stands still, though it receives what the primary writes.
    servers.set_on_standby("recovery_min_apply_delay = '1h'");
    servers.standby.restart();
    let from_standby = Scene::in_folder(NOTES_TABLE).source(&servers.on_standby);
    let ran = from_standby.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
    assert!(ran.stderr.contains("it has replayed no transaction since it started"), "{ran}");

    servers.on_primary.psql("INSERT INTO notes VALUES (106, '2024-05-01 23:00Z', 'new')");
    let behind = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()";
    eventually("something is received and not replayed", || servers.on_standby.psql(behind) == "t");
    let ran = from_standby.pgslice(&DAY).exits(0);
    assert!(ran.stderr.contains("it is behind, and rows of the day may be missing"), "{ran}");
    let published = Published::by(&from_standby);
    assert_eq!(published.entry("2024-05-01").rows, 5);

    let from_primary = Scene::in_folder(NOTES_TABLE).source(&servers.on_primary).reading(&from_standby);
    from_primary.pgslice(&DAY).exits(0);
    assert_eq!(published.days()[0], "2024-05-01 r2 final 6");
    let ran = from_standby.pgslice(&[&DAY[..], &["--accept-shrink", "--force"]].concat()).exits(5);
    assert!(ran.stderr.contains("the standby has replayed the log up to"), "{ran}");
    assert_eq!(published.days()[0], "2024-05-01 r2 final 6");

    servers.set_on_standby("recovery_min_apply_delay = 0");
    servers.catches_up();
    assert_eq!(from_standby.pgslice(&DAY).exits(0).summary(), "scene: 1 unchanged");
}

#[test]
fn a_standby_that_has_not_replayed_an_older_transactions_late_commit_never_replaces_its_rows() {
    let servers = Standby::of_notes(1);
    servers.on_primary.psql(
        "BEGIN; INSERT INTO notes VALUES (106, '2024-05-01 23:00Z', 'late'); PREPARE TRANSACTION 'old';
         INSERT INTO notes VALUES (201, '2024-05-02 01:00Z', 'of a newer transaction')",
    );
    servers.catches_up();
    // It is looked at before each record that is replayed.
    servers.on_standby.psql("SELECT pg_wal_replay_pause()");
    servers.on_primary.psql("COMMIT PREPARED 'old'");
    let newest = "SELECT pg_snapshot_xmax(pg_current_snapshot())";
    assert_eq!(servers.on_standby.psql(newest), servers.on_primary.psql(newest), "the newest does not tell");

    let from_primary = Scene::in_folder(NOTES_TABLE).source(&servers.on_primary);
    let published = Published::by(&from_primary);
    from_primary.pgslice(&DAY).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r1 final 6"]);
    let from_standby = Scene::in_folder(NOTES_TABLE).source(&servers.on_standby).reading(&from_primary);
    let ran = from_standby.pgslice(&[&DAY[..], &["--accept-shrink", "--force"]].concat()).exits(5);
    assert!(ran.stderr.contains("the standby has replayed the log up to"), "{ran}");
    assert_eq!(published.days(), ["2024-05-01 r1 final 6"]);

    servers.on_standby.psql("SELECT pg_wal_replay_resume()");
    servers.catches_up();
    assert_eq!(from_standby.pgslice(&DAY).exits(0).summary(), "scene: 1 unchanged");
}

#[test]
fn what_a_standby_cancels_for_its_replay_is_read_again() {
    let primary = Cluster::start();
    let on_primary = primary.create_database("cancelled");
    on_primary.psql("ALTER SYSTEM SET autovacuum = off");
    on_primary.psql("SELECT pg_reload_conf()");
    many_notes(&on_primary, 2);
    let standby = primary.start_standby();
    let on_standby = standby.standby_of(&on_primary);
    let servers = Standby { primary, standby, on_primary, on_standby };
    servers.set_on_standby("max_standby_streaming_delay = 0");
    servers.catches_up();

    let scene = Scene::in_folder(SLOWLY).source(&servers.on_standby);
    let published = Published::by(&scene);
    let running = copying(&scene, &servers.on_standby, &DAY);
    servers.conflict();
    let ran = running.wait().exits(0);
    assert!(ran.stderr.contains("the standby cancelled the reading for its replay, next try in 1 s"), "{ran}");
    assert!(ran.stderr.contains("40001"), "{ran}");
    assert_eq!(published.days(), [format!("2024-05-01 r1 provisional {A_DAYS_NOTES}")]);
    published.is_whole();

    for (arguments, code) in
        [(["export", "--date", "2024-05-02"], 5), (["export", "--from=2024-05-02", "--to=2024-05-02"], 3)]
    {
        let ended = AtomicBool::new(false);
        let ran = thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    servers.conflict();
                    thread::sleep(Duration::from_millis(200));
                }
            });
            let ran = scene.spawn(&arguments).wait();
            ended.store(true, Ordering::Relaxed);
            ran.exits(code)
        });
        assert!(ran.stderr.contains("cancelled the reading of 2024-05-02 3 times"), "{ran}");
        assert!(ran.stderr.contains("max_standby_streaming_delay"), "{ran}");
        assert_eq!(published.days().len(), 1);
        assert_eq!(published.staged(), 0);
        published.is_whole();
    }
}

#[test]
fn a_physical_standby_is_refused_as_a_replica() {
    let servers = Standby::of_notes(0);
    let pair = Pair::of_notes_on(Kind::Folder, 1);
    pair.export("2024-05-01");
    let onto_standby = Scene::in_folder(NOTES_TABLE).replica(&servers.on_standby).reading(&pair.scene);
    for arguments in [&["catchup"][..], &["catchup", "--create"], &["catchup", "--dry-run"]] {
        let ran = onto_standby.pgslice(arguments).exits(2);
        assert!(ran.stderr.contains("the replica is a physical standby"), "{ran}");
        assert!(ran.stderr.contains("nothing was applied"), "{ran}");
    }
    // Its primary is none, and what it takes arrives on the standby.
    let onto_primary = Scene::in_folder(NOTES_TABLE).replica(&servers.on_primary).reading(&pair.scene);
    onto_primary.pgslice(&["catchup"]).exits(0);
    servers.catches_up();
    assert_eq!(rows(&servers.on_standby, "notes"), rows(&pair.source, "notes"));
}

#[test]
fn a_source_that_restarts_in_mid_export_costs_the_day_one_more_run() {
    let cluster = Cluster::start();
    let database = cluster.create_database("restarted");
    many_notes(&database, 2);
    let whole = |day: u32| format!("2024-05-0{day} r1 final {A_DAYS_NOTES}");
    for interrupt in [Cluster::restart, Cluster::crash] {
        let scene = Scene::in_folder(SLOWLY).source(&database);
        let published = Published::by(&scene);
        let running = copying(&scene, &database, &DAY);
        interrupt(cluster);
        let ran = running.wait().exits(5);
        assert!(ran.stderr.contains("2024-05-01 failed"), "{ran}");
        assert_nothing_visible(&published);
        scene.pgslice(&DAY).exits(0);
        assert_eq!(published.days(), [whole(1)]);
        published.is_whole();

        let scene = Scene::in_folder(SLOWLY).source(&database);
        let published = Published::by(&scene);
        let running = copying(&scene, &database, &TWO_DAYS);
        interrupt(cluster);
        let ran = running.wait().exits(3);
        assert!(ran.stderr.contains("2024-05-01 failed"), "{ran}");
        assert!(!published.days().contains(&whole(1)), "{ran}");
        published.is_whole();
        scene.pgslice(&TWO_DAYS).exits(0);
        assert_eq!(published.days(), [whole(1), whole(2)]);
        published.is_whole();
    }
}

#[test]
fn a_replica_that_restarts_in_mid_catchup_has_each_day_exactly_once_after_the_next() {
    let cluster = Cluster::start();
    for interrupt in [Cluster::restart, Cluster::crash] {
        let mut pair = Pair::of_notes_on(Kind::Folder, 3);
        pair.replica = cluster.create_database("restarted");
        pair.scene = pair.scene.replica(&pair.replica);
        pair.replica.psql(NOTES);
        pair.replica.psql(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.id = 205 THEN PERFORM
                 pg_sleep(60); END IF; RETURN new; END $$;
             CREATE TRIGGER wait BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION wait()",
        );
        pair.export_range("2024-05-01", "2024-05-03");
        let running = pair.scene.spawn(&["catchup"]);
        it_waits_in_the_trigger(&pair);
        interrupt(cluster);
        let ran = running.wait().exits(5);
        assert!(ran.stderr.contains("cannot apply 2024-05-02"), "{ran}");
        // The first day stands; a crash may have taken it back, rows and ledger together.
        let held = pair.ledger("day");
        let rows_held = pair.replica.psql("SELECT count(*) FROM notes");
        assert!(matches!((held.as_str(), rows_held.as_str()), ("2024-05-01", "5") | ("", "0")), "{held} {rows_held}");
        pair.replica.psql("DROP TRIGGER wait ON notes");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("notes");
        assert_eq!(pair.ledger("day, revision"), "2024-05-01|1\n2024-05-02|1\n2024-05-03|1");
        let before = pair.replica_state();
        pair.catchup(&[]).exits(0);
        assert_eq!(pair.replica_state(), before);
    }
}

#[test]
fn after_a_failover_the_promoted_server_goes_on_and_the_old_one_is_refused() {
    let servers = Standby::of_notes(2);
    let old = Scene::in_folder(NOTES_TABLE).source(&servers.on_primary);
    let published = Published::by(&old);
    old.pgslice(&TWO_DAYS).exits(0);
    let mut pair =
        Pair { source: servers.on_standby, replica: cluster::replica().create_database("followed"), scene: old };
    pair.replica.psql(NOTES);
    pair.scene = pair.scene.replica(&pair.replica);
    pair.catchup(&[]).exits(0);
    let system = published.feed().source.expect("it was read");
    assert_eq!(system.timeline, 1);

    let written = servers.on_primary.psql("SELECT pg_current_wal_insert_lsn()");
    eventually("everything is replayed", || {
        pair.source.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t"
    });
    assert_eq!(pair.source.psql("SELECT pg_promote()"), "t");
    // A row leaves the second day, whose revision of the old timeline still has it.
    pair.source.psql(
        "UPDATE notes SET at = '2024-05-01 23:00Z' WHERE id = 203; UPDATE notes SET body = 'new' WHERE id = 101;
         INSERT INTO notes VALUES (301, '2024-05-03 01:00Z', 'third')",
    );
    pair.scene = pair.scene.source(&pair.source);
    pair.export("2024-05-01");
    pair.export("2024-05-03");
    assert_eq!(published.days(), ["2024-05-01 r2 final 6", "2024-05-02 r1 final 5", "2024-05-03 r1 final 1"]);
    let promoted = published.feed().source.expect("it was read");
    assert_eq!((promoted.system_identifier, promoted.timeline), (system.system_identifier, 2));
    let timelines = ["2024-05-01", "2024-05-02", "2024-05-03"].map(|day| published.manifest(day).taken.timeline);
    assert_eq!(timelines, [2, 1, 2]);

    // Whoever follows, and whoever comes new, applies the later reading of the row last.
    let fresh = Scene::in_folder(NOTES_TABLE).reading(&pair.scene);
    let newcomer = cluster::replica().create_database("newcomer");
    newcomer.psql(NOTES);
    fresh.replica(&newcomer).pgslice(&["catchup"]).exits(0);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(rows(&newcomer, "notes"), rows(&pair.source, "notes"));
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(published.days()[1], "2024-05-02 r2 final 4");

    // The old primary went on: what it wrote is a fork.
    servers.on_primary.psql("INSERT INTO notes VALUES (401, '2024-05-04 01:00Z', 'fork')");
    let old = Scene::in_folder(NOTES_TABLE).source(&servers.on_primary).reading(&pair.scene);
    let before = (published.days(), published.objects());
    for day in ["2024-05-01", "2024-05-04"] {
        let ran = old.pgslice(&["export", "--date", day]).exits(4);
        assert!(ran.stderr.contains("the source is on timeline 1, the feed was read from timeline 2"), "{ran}");
        assert!(ran.stderr.contains("--new-source"), "{ran}");
    }
    old.pgslice(&["export", "--from", "2024-05-01", "--to", "2024-05-04"]).exits(3);
    assert_eq!((published.days(), published.objects()), before);
    assert_eq!(servers.primary.log().matches("PANIC").count(), 0);
    old.pgslice(&["export", "--date", "2024-05-04", "--new-source"]).exits(0);
    assert_eq!(published.feed().source.expect("it was read").timeline, 1);
    // Back to the promoted one, which needs no word for it.
    pair.export("2024-05-03");
    assert_eq!(published.days()[3], "2024-05-04 r1 final 1");
}
