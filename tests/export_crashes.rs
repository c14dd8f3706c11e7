//! An export that is ended in the middle, at any moment and in any way: what is visible is whole, and the next run
//! heals.

use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::cluster::{self, Database};
use crate::harness::eventually;
use crate::proxy::{Fate, Proxy};
use crate::published::Published;
use crate::scene::{Ran, Running, Scene};

const TABLES: &str =
    "[[table]]\nname = \"event\"\ntime-column = \"at\"\n[[table]]\nname = \"other\"\ntime-column = \"at\"\n";
const DAY: [&str; 3] = ["export", "--date", "2024-05-01"];
/// How often an export is killed.
const KILLS: u32 = 30;
/// Rows of 1,600 bytes that hardly compress to half of that.
const LARGE_ROWS: u32 = 10_000;

/// A database with as many rows on 2024-05-01 in `event`, and a tenth of them in `other`.
fn events(hint: &str, rows: u32) -> Database {
    let database = cluster::source().create_database(hint);
    database.psql(&format!(
        "CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL, note text);
         CREATE TABLE other (LIKE event);
         INSERT INTO event
         SELECT n, '2024-05-01 12:00Z', md5(n::text) || md5((-n)::text) FROM generate_series(1, {rows}) n;
         INSERT INTO other SELECT * FROM event WHERE id <= {rows} / 10"
    ));
    database
}

fn signal(running: &Running, name: &str) {
    let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &running.id().to_string()]).status();
    assert!(status.expect("run kill").success());
}

/// Runs an export after one that was killed: its lock goes as soon as the server notices the end of its connection.
fn after_a_kill(scene: &Scene, arguments: &[&str]) -> Ran {
    let mut ran = scene.pgslice(arguments);
    eventually("the killed run's lock is gone", || {
        if ran.code == 7 {
            ran = scene.pgslice(arguments);
        }
        ran.code != 7
    });
    ran
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_day_or_the_new_one_and_nothing_between() {
    let database = events("killed", 60_000);
    let scene = Scene::new(TABLES).source(&database);
    let published = Published::by(&scene);
    let started = Instant::now();
    scene.pgslice(&DAY).exits(0);
    let whole_run = started.elapsed();
    let (mut revision, mut survived, mut in_time) = (1, 0, 0);
    for kill in 1..=KILLS {
        // One row changes each time, so that one slice is new, the other one carried, and --force not needed.
        database.psql(&format!("UPDATE event SET note = 'kill {kill}' WHERE id = {kill}"));
        let before = published.feed();
        let run = scene.spawn(&DAY);
        // Spread evenly over a run and a little beyond.
        thread::sleep(whole_run * kill / KILLS * 11 / 10);
        let ran = run.kill();
        published.is_whole();
        let head = published.feed();
        let [after] = &head.days[..] else { panic!("{:?}", published.days()) };
        assert!((revision..=revision + 1).contains(&after.revision), "{after:?}\n{ran}");
        if after.revision == revision {
            assert_eq!(head, before, "kill {kill} left another head: {ran}");
            survived += 1;
        } else {
            in_time += 1;
        }
        let ran = after_a_kill(&scene, &DAY).exits(0);
        let expected = if after.revision == revision { "scene: 1 published" } else { "scene: 1 unchanged" };
        assert_eq!(ran.summary(), expected, "kill {kill} of a run at r{revision}: {ran}");
        revision += 1;
        assert_eq!(published.days(), [format!("2024-05-01 r{revision} final 66000")]);
        published.is_whole();
    }
    assert!(survived > KILLS / 3, "{survived} of {KILLS} kills came before the day stood, {in_time} after it");
    let rows = published.rows("2024-05-01", "public.event");
    assert_eq!(rows.iter().filter(|row| row.contains("\tkill ")).count(), KILLS as usize);
}

#[test]
fn a_first_export_that_is_killed_leaves_an_empty_feed_at_most() {
    let database = events("killed_first", 20);
    let proxy = Proxy::start(&database, |message| if message.is_row() { Fate::Hold } else { Fate::Pass });
    let through = Scene::new(&format!("[source]\nurl = \"{}\"\n{TABLES}", proxy.url()));
    let run = through.spawn(&DAY);
    proxy.holds();
    assert_eq!(run.kill().code, 137);
    let published = Published::by(&through);
    assert!(published.days().is_empty() && published.objects().is_empty());
    let feed_id = published.feed().feed_id;
    proxy.release();
    after_a_kill(&through, &DAY).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r1 final 22"]);
    assert_eq!(published.feed().feed_id, feed_id);
    published.is_whole();
}

#[test]
fn an_interrupted_export_says_so_and_leaves_nothing_behind() {
    // More than one part of an S3 store, so that what is staged there has to be taken back, too.
    let database = cluster::source().create_database("interrupted");
    database.psql(&format!(
        "CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL, note text);
         CREATE TABLE other (LIKE event);
         INSERT INTO event SELECT n, '2024-05-01 12:00Z', string_agg(md5((n * 1000 + m)::text), '')
         FROM generate_series(1, {LARGE_ROWS}) n, generate_series(1, 50) m GROUP BY n"
    ));
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let mut rows = 0;
        let proxy = Proxy::start(&database, move |message| {
            rows += u32::from(message.is_row());
            if rows == LARGE_ROWS { Fate::Hold } else { Fate::Pass }
        });
        let scene = Scene::new(&format!("[source]\nurl = \"{}\"\n{TABLES}", proxy.url()));
        let run = scene.spawn(&["export", "--from", "2024-05-01", "--to", "2024-05-03"]);
        proxy.holds();
        let published = Published::by(&scene);
        eventually("something is staged", || published.staged() > 0);
        signal(&run, name);
        let ran = run.wait().exits(code);
        assert!(published.days().is_empty(), "{ran}");
        assert!(published.objects().is_empty(), "{ran}");
        assert_eq!(published.staged(), 0, "{ran}");
        assert_eq!(published.feed().sequence, 1, "an interrupted run is no sign of life");
        proxy.release();
        let idle = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'pgslice'";
        eventually("the source is rid of the export", || database.psql(idle) == "0");
    }
}

#[test]
fn an_interrupt_while_waiting_for_a_lock_is_heard() {
    let database = events("interrupted_wait", 20);
    // The answer to the leader's LOCK TABLE never comes.
    let proxy = Proxy::start(&database, |message| {
        if message.kind == b'C' && message.body == b"LOCK TABLE\0" { Fate::Hold } else { Fate::Pass }
    });
    let scene = Scene::new(&format!("[source]\nurl = \"{}\"\n{TABLES}", proxy.url()));
    let run = scene.spawn(&DAY);
    proxy.holds();
    signal(&run, "INT");
    run.wait().exits(130);
}
