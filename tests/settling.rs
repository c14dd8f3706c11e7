//! Days that are not settled: waited for, or counted again until they may be final.

use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::clock::Clock;
use crate::cluster::{self, Database};
use crate::interruptions::eventually;
use crate::published::Published;
use crate::scene::Scene;

const EVENT: &str = "[[table]]\nname = \"event\"\ntime-column = \"at\"\n";
const DAY: [&str; 3] = ["export", "--date", "2024-05-01"];

/// A database with three rows of 2024-05-01 in a table `event (id, at)`.
fn events(hint: &str) -> Database {
    let database = cluster::source().create_database(hint);
    database.psql(
        "CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL); CREATE INDEX ON event (at);
         INSERT INTO event SELECT n, '2024-05-01 10:00Z' FROM generate_series(1, 3) n",
    );
    database
}

fn export_section(settings: &str) -> String {
    format!("[export]\n{settings}\n{EVENT}")
}

/// A session that calls itself `application`, with a transaction that has written `id` into 2024-05-01.
async fn open_transaction(database: &Database, application: &str, id: u32) -> Client {
    let client = session(database, application).await;
    let insert = format!("BEGIN; INSERT INTO event VALUES ({id}, '2024-05-01 11:00Z')");
    client.batch_execute(&insert).await.expect("a transaction");
    client
}

async fn session(database: &Database, application: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.expect("connect");
    tokio::spawn(connection);
    client.batch_execute(&format!("SET application_name = '{application}'")).await.expect("a name");
    client
}

/// Leaves a transaction prepared that has written `id` into 2024-05-01; its name.
fn prepared(database: &Database, id: u32) -> String {
    let name = format!("{}_{id}", database.name);
    database
        .psql(&format!("BEGIN; INSERT INTO event VALUES ({id}, '2024-05-01 11:00Z'); PREPARE TRANSACTION '{name}'"));
    name
}

/// Until pgslice has asked the source so often what is prepared.
fn asked_again(database: &Database) {
    let since = database.psql("SELECT now()");
    let polls = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE '%pg_prepared_xacts p%' AND query_start > '{since}'
             AND state = 'idle' AND pid <> pg_backend_pid()"
    );
    eventually("the source is asked again", || database.psql(&polls) == "1");
}

fn waiting_lines(stderr: &str) -> usize {
    stderr.lines().filter(|line| line.contains(": waiting ")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_waited_for_until_what_is_open_and_what_is_prepared_has_ended() {
    let database = events("waits");
    let clock = Clock::showing(&database, "2024-05-02 00:00:30Z");
    clock.transactions_began("2024-05-01 23:59:59Z");
    let slow = open_transaction(&database, "slowpoke", 5).await;
    let in_two_phases = prepared(&database, 6);
    let scene = Scene::new(&export_section("settle = \"0s\"")).source(&database);

    let mut running = scene.spawn(&["export", "--date", "2024-05-01", "--wait", "1m"]);
    asked_again(&database);
    let in_transaction = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'pgslice' AND xact_start IS NOT NULL
            AND state <> 'active'";
    assert_eq!(database.psql(in_transaction), "0", "nothing is held back meanwhile");
    slow.batch_execute("COMMIT").await.expect("commit");
    asked_again(&database);
    assert!(running.is_running(), "one of the two is still there");
    database.psql(&format!("COMMIT PREPARED '{in_two_phases}'"));
    let ran = running.wait().exits(0);
    let published = Published::by(&scene);
    assert_eq!(published.days(), ["2024-05-01 r1 final 5"], "{ran}");
    assert!(ran.stderr.contains("waiting up to"), "{ran}");
    assert!(ran.stderr.contains(&format!("transaction \"{in_two_phases}\" has been prepared")), "{ran}");
    assert_eq!(waiting_lines(&ran.stderr), 1, "{ran}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_waiting_is_over_unsettled_decides_and_it_counts_for_the_whole_run() {
    let database = events("waited");
    let name = prepared(&database, 4);
    let mut scene = Scene::new(&export_section("unsettled = \"wait\"")).source(&database);
    let ran = scene.pgslice(&[&DAY[..], &["--wait", "1s"]].concat()).exits(8);
    assert!(ran.stderr.contains("waiting up to"), "{ran}");
    assert!(ran.stderr.contains(&format!("is not settled: transaction \"{name}\" has been prepared")), "{ran}");
    let published = Published::by(&scene);
    assert!(published.days().is_empty() && published.objects().is_empty());
    let ran = scene.pgslice(&["export", "--from", "2024-05-01", "--to", "2024-05-03", "--wait", "1s"]).exits(3);
    assert_eq!(waiting_lines(&ran.stderr), 1, "the second and the third day find the time used up\n{ran}");
    assert_eq!(ran.stderr.matches("is not settled").count(), 3, "{ran}");

    scene.configure(&export_section("unsettled = \"provisional\""));
    let ran = scene.pgslice(&DAY).exits(0);
    assert_eq!(waiting_lines(&ran.stderr), 0, "{ran}");
    let ran = scene.pgslice(&[&DAY[..], &["--wait", "1s"]].concat()).exits(0);
    assert_eq!(waiting_lines(&ran.stderr), 1, "{ran}");
    assert_eq!(published.days(), ["2024-05-01 r1 provisional 3"]);
    database.psql(&format!("ROLLBACK PREPARED '{name}'"));
}

#[test]
fn a_final_day_that_is_looked_at_again_is_refused_only_where_it_changed_and_never_waited_for() {
    let database = events("final_already");
    let _clock = Clock::showing(&database, "2024-05-02 08:00Z");
    let scene = Scene::new(&export_section("unsettled = \"wait\"")).source(&database);
    let published = Published::by(&scene);
    scene.pgslice(&DAY).exits(0);
    let name = prepared(&database, 4);
    let ran = scene.pgslice(&["export"]).exits(0);
    assert_eq!((ran.summary(), waiting_lines(&ran.stderr)), ("scene: 1 unchanged", 0), "{ran}");
    database.psql("INSERT INTO event VALUES (5, '2024-05-01 20:00Z')");
    let ran = scene.pgslice(&["export"]).exits(3);
    assert!(ran.stderr.contains("2024-05-01 is not settled"), "{ran}");
    assert_eq!((waiting_lines(&ran.stderr), published.staged()), (0, 0), "{ran}");
    assert_eq!(published.days(), ["2024-05-01 r1 final 3"]);
    database.psql(&format!("COMMIT PREPARED '{name}'"));
    scene.pgslice(&["export"]).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r2 final 5"]);
}

#[test]
fn a_run_that_waits_hears_that_it_shall_end() {
    let database = events("interrupted");
    let name = prepared(&database, 4);
    let _clock = Clock::showing(&database, "2024-05-02 08:00Z");
    let scene = Scene::new(&export_section("unsettled = \"wait\"")).source(&database);
    let running = scene.spawn(&DAY);
    asked_again(&database);
    assert!(std::process::Command::new("kill").arg(running.id().to_string()).status().expect("kill").success());
    running.wait().exits(143);
    assert!(Published::by(&scene).objects().is_empty());
    database.psql(&format!("ROLLBACK PREPARED '{name}'"));
}

#[test]
fn a_named_day_that_ends_within_the_wait_is_waited_for() {
    let database = events("ends");
    let clock = Clock::showing(&database, "2024-05-01 23:00Z");
    let scene = Scene::new(&export_section("settle = \"1s\"")).source(&database);
    let waiting = [&DAY[..], &["--wait", "1m"]].concat();
    let ran = scene.pgslice(&waiting).exits(8);
    assert_eq!(waiting_lines(&ran.stderr), 0, "an hour is too long\n{ran}");
    clock.show("2024-05-01 23:59:58Z");
    scene.pgslice(&DAY).exits(8);
    clock.show("2024-05-01 23:59:58Z");
    let ran = scene.pgslice(&waiting).exits(0);
    assert!(ran.stderr.contains("2024-05-01: waiting for its end"), "{ran}");
    assert_eq!(Published::by(&scene).days(), ["2024-05-01 r1 final 3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_that_are_ignored_keep_no_day_from_being_final_and_others_do() {
    let database = events("ignored");
    let clock = Clock::showing(&database, "2024-05-02 00:20Z");
    clock.transactions_began("2024-05-01 23:00Z");
    let dump = open_transaction(&database, "pg_dump", 4).await;
    let mut scene = Scene::new(&export_section("")).source(&database);
    let ran = scene.pgslice(&DAY).exits(0);
    assert!(
        ran.stderr.contains("(pg_dump) has had a transaction open for 1 h 20 min, since 2024-05-01 23:00"),
        "{ran}"
    );
    let published = Published::by(&scene);
    assert_eq!(published.days(), ["2024-05-01 r1 provisional 3"]);

    let ignored = export_section("ignore-applications = [\"pg_dump\", \"nightly\"]");
    scene.configure(&ignored);
    let other = open_transaction(&database, "pg_dumpall", 5).await;
    let ran = scene.pgslice(&DAY).exits(0);
    assert!(ran.stderr.contains("(pg_dumpall) has had a transaction open"), "{ran}");
    assert!(!ran.stderr.contains("(pg_dump)"), "{ran}");
    other.batch_execute("ROLLBACK").await.expect("rollback");
    let name = prepared(&database, 6);
    let ran = scene.pgslice(&DAY).exits(0);
    assert!(ran.stderr.contains(&name), "nobody's prepared transaction is ignored\n{ran}");
    database.psql(&format!("ROLLBACK PREPARED '{name}'"));
    scene.pgslice(&DAY).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r1 final 3"]);
    drop(dump);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_hidden_sessions_is_final_when_two_readings_after_its_end_found_the_same_rows() {
    let database = events("recounted");
    let reader = format!("reader_of_{}", database.name);
    database.psql(&format!("CREATE ROLE {reader} LOGIN; GRANT SELECT ON event TO {reader}"));
    let clock = Clock::showing(&database, "2024-05-02 00:05Z");
    let url = database.url.replace("user=postgres", &format!("user={reader}"));
    let scene = Scene::new(&format!("[source]\nurl = \"{url}\"\n{EVENT}"));
    let hidden = session(&database, "hidden").await;
    let published = Published::by(&scene);
    let ran = scene.pgslice(&DAY).exits(0);
    assert!(ran.stderr.contains(&format!("(hidden) is hidden from \"{reader}\"")), "{ran}");
    assert!(ran.stderr.contains(&format!("GRANT pg_read_all_stats TO \"{reader}\"")), "{ran}");
    let too_early = published.manifest("2024-05-01");

    // The first reading was made before the end and `settle`: this one is the first that counts.
    clock.show("2024-05-02 00:20Z");
    let ran = scene.pgslice(&[&DAY[..], &["--json"]].concat()).exits(0);
    let report: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    assert_eq!(report["days"][0]["outcome"], "recounted");
    let first = published.manifest("2024-05-01");
    assert!(first.taken.exported_at > too_early.taken.exported_at);
    assert_eq!(first.slices[0].parts, too_early.slices[0].parts);

    clock.show("2024-05-02 00:34Z");
    let ran = scene.pgslice(&DAY).exits(0);
    assert_eq!(ran.summary(), "scene: 1 unchanged", "a quarter of an hour has not passed between the two");
    clock.show("2024-05-02 00:36Z");
    database.psql("INSERT INTO event VALUES (4, '2024-05-01 23:59Z')");
    scene.pgslice(&DAY).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r2 provisional 4"], "the rows are not the same");

    // By the run of the next night, which reads nothing again.
    clock.show("2024-05-03 00:20Z");
    let ran = scene.pgslice(&["export"]).exits(0);
    assert!(ran.stderr.contains("2024-05-01 published as final: r2 final"), "{ran}");
    assert_eq!(published.days(), ["2024-05-01 r2 final 4", "2024-05-02 r1 provisional 0"]);
    published.is_whole();
    drop(hidden);
}

#[test]
fn a_clock_that_differs_from_the_sources_is_told() {
    let database = events("skewed");
    let scene = Scene::new(EVENT).source(&database);
    let skew = |stdout: &str| -> i64 {
        let report: Value = serde_json::from_str(stdout).expect("one JSON document");
        report["clock_skew_seconds"].as_i64().expect("a number")
    };
    let arguments = [&DAY[..], &["--json"]].concat();
    let ran = scene.pgslice(&arguments).exits(0);
    assert!(!ran.stderr.contains("clock"), "{ran}");
    assert_eq!(skew(&ran.stdout), 0);
    let _clock = Clock::showing(&database, "2024-05-02 00:00Z");
    for (moved, word) in [("2 hours", "behind"), ("-2 hours", "ahead of")] {
        database.psql(&format!("UPDATE clock SET ahead = '{moved}'"));
        let ran = scene.pgslice(&arguments).exits(0);
        let warning = format!("this machine's clock is 2 h 0 min {word} the source's");
        let close = format!("this machine's clock is 1 h 59 min {word} the source's");
        assert!(ran.stderr.contains(&warning) || ran.stderr.contains(&close), "{ran}");
        assert_eq!(skew(&ran.stdout) > 7_000, word == "behind", "{ran}");
    }
}
