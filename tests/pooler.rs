//! Behind a pool: one that gives each connection a session of its own changes nothing; one that shares sessions is
//! refused before anything was read, written or set.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pgslice::pg::Endpoint;
use pgslice::pg::pooler::{Between, between};
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, Database};
use crate::pair::{NOTES_TABLE, Pair};
use crate::pool::{Lending, Pool};
use crate::proxy::{Fate, Proxy};

/// What a session has from its own server, and what a run of pgslice would leave in it.
const SETTINGS: &str = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings
    WHERE name IN ('search_path', 'statement_timeout', 'row_security', 'lock_timeout', 'client_min_messages')";

fn found(url: &str) -> Between {
    between(&Endpoint::parse(url).expect("a connection string"), &CancellationToken::new()).expect("an answer")
}

/// What psql prints when it logs in by `url`.
fn through(url: &str, sql: &str) -> String {
    let output = cluster::client(cluster::source().bin("psql"))
        .args(["-XAtqw", "-d", url, "-c", sql])
        .stdin(Stdio::null())
        .output()
        .expect("run psql");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("psql writes UTF-8").trim_end().to_owned()
}

fn assert_no_lock(database: &Database) {
    let left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(database.psql(left), "0", "advisory locks are left");
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let database = cluster::source().create_database("direct");
    assert_eq!(found(&database.url), Between::Nothing);
    assert_eq!(found(&database.tcp_url()), Between::Nothing);
    // What passes on every byte is not a pool.
    let proxy = Proxy::start(&database, |_| Fate::Pass);
    assert_eq!(found(proxy.url()), Between::Nothing);
}

#[test]
fn a_pool_is_told_by_how_it_lends() {
    for (lending, settings, expected) in [
        (Lending::Session, &[][..], Between::OwnSessions),
        (Lending::Session, &["server_round_robin = 1"], Between::OwnSessions),
        (Lending::Transaction, &[], Between::SharedSessions),
        (Lending::Transaction, &["server_round_robin = 1", "min_pool_size = 3"], Between::SharedSessions),
        (Lending::Transaction, &["default_pool_size = 1"], Between::SharedSessions),
        (Lending::Statement, &[], Between::SharedSessions),
    ] {
        let database = cluster::source().create_database("lending");
        let pool = Pool::start(cluster::source(), lending, settings);
        for time in 1..=3 {
            assert_eq!(found(&pool.url(&database)), expected, "{lending:?} {settings:?}, time {time}");
        }
    }
}

#[test]
fn a_busy_pool_is_told_too() {
    let database = cluster::source().create_database("busy");
    let pool = Pool::start(cluster::source(), Lending::Transaction, &[]);
    let url = pool.url(&database);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    through(&url, "SELECT count(*) FROM pg_class");
                }
            });
        }
        let all: Vec<Between> = (0..10).map(|_| found(&url)).collect();
        done.store(true, Ordering::Relaxed);
        assert!(all.iter().all(|found| *found == Between::SharedSessions), "{all:?}");
    });
}

/// Both sides through pools that lend in that way.
fn pooled(days: u32, lending: Lending) -> (Pair, [Pool; 2]) {
    let mut pair = Pair::of_notes(days);
    let pools = [cluster::source(), cluster::replica()].map(|cluster| Pool::start(cluster, lending, &[]));
    pair.scene.publish_from(&pools[0].url(&pair.source));
    pair.scene.top_off(&pools[1].url(&pair.replica));
    (pair, pools)
}

#[test]
fn a_pool_in_session_mode_serves_both_sides_and_is_left_as_it_was() {
    let (pair, [source, replica]) = pooled(3, Lending::Session);
    let before = [through(&source.url(&pair.source), SETTINGS), through(&replica.url(&pair.replica), SETTINGS)];
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    pair.scene.pgslice(&["status"]).exits(0);
    assert_eq!(through(&source.url(&pair.source), SETTINGS), before[0]);
    assert_eq!(through(&replica.url(&pair.replica), SETTINGS), before[1]);
}

#[test]
fn an_export_from_a_pool_that_shares_sessions_is_refused_before_anything_is_set_or_written() {
    for lending in [Lending::Transaction, Lending::Statement] {
        let (pair, [source, _]) = pooled(1, lending);
        let before = through(&source.url(&pair.source), SETTINGS);
        for arguments in [&["export"][..], &["export", "--date", "2024-05-01"], &["export", "--dry-run"]] {
            let ran = pair.scene.pgslice(arguments).exits(2);
            for expected in ["the source", "pool in transaction or statement mode", "session mode", "source.url"] {
                assert!(ran.stderr.contains(expected), "{expected} is not told\n{ran}");
            }
        }
        assert!(pair.place().is_untouched(), "{lending:?}");
        assert_eq!(through(&source.url(&pair.source), SETTINGS), before, "{lending:?}");
        assert_no_lock(&pair.source);
    }
}

#[test]
fn a_catchup_into_a_pool_that_shares_sessions_is_refused_before_anything_is_set_or_written() {
    for lending in [Lending::Transaction, Lending::Statement] {
        let (mut pair, [_, replica]) = pooled(1, lending);
        pair.scene.publish_from(&pair.source.url);
        pair.export("2024-05-01");
        let (rows, settings) = (pair.replica_state(), through(&replica.url(&pair.replica), SETTINGS));
        for arguments in [&["catchup"][..], &["catchup", "--dry-run"], &["catchup", "--create"], &["status"]] {
            let ran = pair.scene.pgslice(arguments).exits(2);
            for expected in ["the replica", "pool in transaction or statement mode", "session mode", "replica.url"] {
                assert!(ran.stderr.contains(expected), "{expected} is not told\n{ran}");
            }
        }
        assert_eq!(pair.replica_state(), rows, "{lending:?}");
        assert_eq!(through(&replica.url(&pair.replica), SETTINGS), settings, "{lending:?}");
        assert_no_lock(&pair.replica);
    }
}

#[test]
fn the_datasets_lock_is_not_left_in_a_pool_that_shares_sessions() {
    let (mut pair, [_source, _]) = pooled(1, Lending::Transaction);
    pair.configure(&format!("{NOTES_TABLE}[retention]\nkeep = \"1d\"\n"));
    pair.scene.edit_configuration("[store]\n", "[store]\nsingle-writer = true\n");
    for arguments in [&["export"][..], &["prune"]] {
        pair.scene.pgslice(arguments).exits(2);
    }
    assert_no_lock(&pair.source);
}

#[test]
fn a_pool_without_a_session_left_is_a_failure_that_may_pass() {
    let mut pair = Pair::of_notes(1);
    let pool = Pool::start(cluster::source(), Lending::Session, &["default_pool_size = 1"]);
    pair.scene.publish_from(&format!("{}?connect_timeout=2", pool.url(&pair.source)));
    pair.scene.pgslice(&["export"]).exits(5);
    assert!(pair.place().is_untouched());
}
