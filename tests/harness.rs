//! The harness itself: what other tests take for granted.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pgslice::layout::Key;
use tempfile::TempDir;

use crate::cluster::{self, Cluster};
use crate::datanommer;
use crate::place::{Kind, Place};
use crate::scene::{self, Scene};

/// Set for a process that [`a_cluster_vanishes_when_its_process_is_killed`] starts: where to say what it started.
const HOLD: &str = "PGSLICE_TEST_HOLD_CLUSTER";

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "still not so: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn postmaster_of(folder: &Path) -> u32 {
    let pid = fs::read_to_string(folder.join("data/postmaster.pid")).expect("read postmaster.pid");
    pid.lines().next().expect("it has lines").parse().expect("the first is a process id")
}

#[test]
fn source_and_replica_are_two_systems_and_stay_the_same_ones() {
    let identity = "SELECT system_identifier FROM pg_control_system()";
    let source = cluster::source().create_database("identity");
    let replica = cluster::replica().create_database("identity");
    assert_ne!(source.psql(identity), replica.psql(identity));
    let again = cluster::source().create_database("identity");
    assert_eq!(source.psql(identity), again.psql(identity));
    assert_ne!(source.name, again.name);
}

#[test]
fn a_cluster_vanishes_when_its_process_is_killed() {
    if let Some(report) = env::var_os(HOLD) {
        let folder = cluster::source().socket_dir().to_str().expect("an ASCII path").to_owned();
        fs::write(PathBuf::from(&report).with_extension("part"), folder).expect("write the report");
        fs::rename(PathBuf::from(&report).with_extension("part"), &report).expect("rename the report");
        thread::sleep(Duration::from_secs(60));
        return;
    }
    let folder = TempDir::new().expect("create a temporary folder");
    let report = folder.path().join("report");
    let mut holder = Command::new(env::current_exe().expect("this program has a path"))
        .args(["--exact", "harness::a_cluster_vanishes_when_its_process_is_killed"])
        .env(HOLD, &report)
        .stdout(Stdio::null())
        .spawn()
        .expect("start another test process");
    eventually("the other process started a cluster", || {
        let ended = holder.try_wait().expect("ask for a child's status");
        assert!(ended.is_none(), "the other process ended: {ended:?}");
        report.exists()
    });
    let cluster = PathBuf::from(fs::read_to_string(&report).expect("read the report"));
    let postmaster = PathBuf::from(format!("/proc/{}", postmaster_of(&cluster)));
    assert!(postmaster.exists());
    holder.kill().expect("kill the other process");
    holder.wait().expect("wait for the other process");
    eventually("the server is gone", || !postmaster.exists());
    eventually("its folder is gone", || !cluster.exists());
}

#[test]
fn a_restarted_or_crashed_cluster_is_back_at_the_same_place() {
    let cluster = Cluster::start();
    let database = cluster.create_database("restarted");
    database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let postmaster = postmaster_of(cluster.socket_dir());
    cluster.restart();
    assert_ne!(postmaster_of(cluster.socket_dir()), postmaster);
    assert_eq!(database.psql("SELECT i FROM t"), "1");
    assert!(!cluster.log().contains("automatic recovery in progress"));
    cluster.crash();
    assert!(cluster.log().contains("automatic recovery in progress"));
    assert_eq!(database.psql("SELECT count(*) FROM pg_database WHERE datname = current_database()"), "1");
}

#[test]
fn psql_stops_at_the_first_error_and_says_where() {
    let database = cluster::source().create_database("stops");
    assert_eq!(database.try_psql("SELECT 1, NULL, 'ä'\\; SELECT 2"), Ok("1||ä\n2".to_owned()));
    let error = database.try_psql("CREATE TABLE t ();\nSELECT 1/0;\nDROP TABLE t;").expect_err("division by zero");
    assert!(error.contains("psql:<stdin>:2: ERROR:  division by zero"), "{error}");
    assert_eq!(database.psql("SELECT count(*) FROM t"), "0");
}

#[test]
fn psql_takes_scripts_and_gives_answers_larger_than_a_pipe() {
    let database = cluster::source().create_database("large");
    let script = "SELECT repeat('x', 100);\n".repeat(20_000);
    assert_eq!(database.psql(&script).len(), 20_000 * 101 - 1);
}

#[test]
fn a_database_goes_with_its_value_whoever_uses_it() {
    let kept = cluster::source().create_database("kept");
    let dropped = cluster::source().create_database("dropped");
    let name = dropped.name.clone();
    let mut session = Command::new(cluster::source().bin("psql"))
        .args(["-X", "-d", &dropped.url])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start psql");
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
    eventually("the session is connected", || kept.psql(&sessions) == "1");
    drop(dropped);
    assert_eq!(kept.psql(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'")), "0");
    drop(session.stdin.take());
    session.wait().expect("wait for psql");
}

#[tokio::test]
async fn the_driver_reaches_a_database_by_socket_and_by_password() {
    let database = cluster::source().create_database("driver");
    let port = cluster::source().port().to_string();
    for url in [&database.url, &database.tcp_url()] {
        assert!(url.contains(&port), "{url}");
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("connect");
        let connection = tokio::spawn(connection);
        let row = client.query_one("SELECT current_database()", &[]).await.expect("query");
        assert_eq!(row.get::<_, String>(0), database.name);
        drop(client);
        connection.await.expect("not cancelled").expect("closed in order");
    }
    let wrong = database.tcp_url().replace('@', "x@");
    assert!(tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.is_err(), "any password would do");
}

#[test]
fn a_template_is_built_once_and_its_copies_are_independent() {
    let build = |database: &cluster::Database| {
        database.psql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    };
    let first = cluster::source().create_from("once", build);
    first.psql("DELETE FROM t");
    let second = cluster::source().create_from("once", |_| panic!("built twice"));
    assert_eq!(first.psql("SELECT count(*) FROM t"), "0");
    assert_eq!(second.psql("SELECT count(*) FROM t"), "1");
}

#[test]
fn a_dump_restores_into_the_other_cluster() {
    let folder = TempDir::new().expect("create a temporary folder");
    let archive = folder.path().join("full.dump");
    let source = datanommer::create(cluster::source(), "dumped");
    datanommer::fill(&source, "2024-05-01", 100);
    source.pg_dump(&archive, &["--no-privileges"]);
    let replica = cluster::replica().create_database("restored");
    replica.pg_restore(&archive);
    let rows = "SELECT md5(string_agg(m::text, '' ORDER BY id)) FROM messages m";
    assert_eq!(source.psql(rows), replica.psql(rows));
}

#[test]
fn a_filled_day_has_its_rows_within_its_hours_and_the_text_that_breaks_things() {
    let database = datanommer::create(cluster::source(), "filled");
    datanommer::fill(&database, "2024-05-01", 2000);
    datanommer::fill(&database, "2024-05-02", 2000);
    assert_eq!(
        database.psql("SELECT \"timestamp\"::date, count(*), count(DISTINCT id) FROM messages GROUP BY 1 ORDER BY 1"),
        "2024-05-01|2000|2000\n2024-05-02|2000|2000"
    );
    let traits = database.psql(
        "SELECT count(msg::json) = 4000, avg(octet_length(msg)) BETWEEN 1200 AND 2000, min(octet_length(msg)) > 100,
                max(octet_length(msg)) < 6000, bool_or(msg LIKE E'%\\n%'), bool_or(msg LIKE E'%\\t%'),
                bool_or(msg LIKE '%\\\\u0000%'), bool_or(msg LIKE '%🚢%'), bool_or(msg LIKE '%\"%')
         FROM messages",
    );
    assert_eq!(traits, "t|t|t|t|t|t|t|t|t");
    let mentions = database.psql(
        "SELECT (SELECT count(*) FROM users_messages) BETWEEN 1800 AND 2200,
                (SELECT count(*) FROM packages_messages) BETWEEN 2400 AND 2880,
                (SELECT count(*) FROM users_messages u JOIN messages m
                    ON m.id = u.msg_id AND m.\"timestamp\" = u.msg_timestamp) = (SELECT count(*) FROM users_messages)",
    );
    assert_eq!(mentions, "t|t|t");
}

#[test]
fn a_day_filled_twice_in_two_databases_is_the_same_day() {
    let rows = "SELECT md5(string_agg(m::text, '' ORDER BY id)) FROM messages m";
    let [one, other] = ["one", "other"].map(|hint| {
        let database = datanommer::create(cluster::source(), hint);
        datanommer::fill(&database, "2024-05-01", 500);
        database.psql(rows)
    });
    assert_eq!(one, other);
}

#[test]
fn a_scene_configures_what_it_was_given_and_runs_the_program_in_its_folder() {
    let database = cluster::source().create_database("scene");
    let mut publisher = Scene::new(datanommer::tables()).source(&database).timezone("Europe/Berlin");
    let written = fs::read_to_string(publisher.configuration()).expect("read pgslice.toml");
    let parsed: toml::Table = written.parse().expect("TOML");
    assert_eq!(parsed["store"]["url"].as_str(), Some(publisher.place().url().as_str()));
    assert_eq!(parsed["timezone"].as_str(), Some("Europe/Berlin"));
    assert_eq!(parsed["source"]["url"].as_str(), Some(database.url.as_str()));
    assert_eq!(parsed["table"].as_array().map(Vec::len), Some(5));
    assert!(!parsed.contains_key("replica"));

    publisher.configure("[export]\njobs = 1\n");
    let stranger = Scene::new("").replica(&database).reading(&publisher);
    assert_eq!(stranger.place().url(), publisher.place().url());
    assert_ne!(stranger.folder(), publisher.folder());

    publisher.pgslice(&["--help"]).exits(0);
    let mut running = publisher.spawn(&["--help"]);
    assert!(running.id() > 1);
    eventually("it ends", || !running.is_running());
    assert_eq!(running.kill().code, scene::pgslice(stranger.folder(), &["--help"]).code);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_a_place_behind_its_back_is_what_the_program_sees() {
    for kind in [Kind::Folder, Kind::Bucket] {
        let scene = Scene::on(kind, "");
        shows_and_changes(&**scene.place()).await;
    }
}

async fn shows_and_changes(place: &dyn Place) {
    assert!(place.is_untouched());
    place.make();
    assert!(place.is_untouched() && place.list().is_empty());
    let store = place.open().await;
    let (feed, part): (Key, Key) = (Key::feed(), "day/r1-aa/part".parse().expect("a key"));
    store.create(&feed, "head".into()).await.expect("created");
    place.write(part.as_str(), b"one");
    place.write(part.as_str(), b"rows");
    assert_eq!(store.read(&part, 100).await.expect("readable").expect("there").0, "rows");
    assert_eq!(place.list().into_iter().collect::<Vec<_>>(), ["day/r1-aa/part", "feed.json"]);
    assert_eq!(place.directories().into_iter().collect::<Vec<_>>(), ["day"]);
    assert_eq!((place.content("feed.json"), place.read("day/r1-aa")), (b"head".to_vec(), None));

    place.remove(part.as_str());
    assert!(!place.is_there(part.as_str()) && store.read(&part, 100).await.expect("readable").is_none());
    let upload = store.upload(&part).await.expect("started");
    assert!(!place.is_untouched() && !place.is_there(part.as_str()));
    upload.abort().await.expect("aborted");
    assert_eq!(place.staged(), 0);
    place.clear();
    assert!(place.is_untouched());
}
