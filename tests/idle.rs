//! Catchup with nothing to do: what it costs, and that it never hides that there is something to do after all.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::harness::eventually;
use crate::pair::{NOTES, NOTES_TABLE, Pair, entry_of};
use crate::place::Kind;
use crate::proxy::{Fate, Proxy};
use crate::s3_server::StrictS3;
use crate::scene::{Ran, Scene};
use crate::web::Web;

/// Three published days in a bucket, all of which the replica holds.
fn caught_up() -> Pair {
    let pair = Pair::of_notes_on(Kind::Bucket, 3);
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    pair
}

/// The requests that a run makes: operation and status, and what comes of it.
fn requests(pair: &Pair, run: impl FnOnce() -> Ran) -> (Vec<String>, Ran) {
    let url = pair.place().url();
    let prefix = url.strip_prefix(&StrictS3::shared().url("")).expect("it is in the shared bucket");
    let recorded = || StrictS3::shared().recorded_of(prefix);
    let before = recorded().len();
    let ran = run();
    let asked = recorded().split_off(before);
    (asked.iter().map(|line| line.replace(&format!("{prefix}/"), "")).collect(), ran)
}

/// One conditional request, which is answered with nothing but that.
const IDLE: [&str; 1] = ["GetObject feed.json 304"];

/// A plain run that exits with `code` and asks for nothing but whether the head has changed.
#[track_caller]
fn is_idle(pair: &Pair, code: i32) -> Ran {
    // A server lets go of the lock of a session that ended in its own time, and a run that finds it held looks.
    let locks = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
        WHERE locktype = 'advisory' AND datname = current_database()";
    eventually("the lock of the run before is free", || pair.replica.psql(locks) == "0");
    let (asked, ran) = requests(pair, || pair.catchup(&["--json"]));
    assert_eq!(asked, IDLE, "{ran}");
    ran.exits(code)
}

/// A run that exits with `code` and reads the head whole.
#[track_caller]
fn looks(pair: &Pair, arguments: &[&str], code: i32) -> Ran {
    let (asked, ran) = requests(pair, || pair.catchup(arguments));
    assert_eq!(asked.first().map(String::as_str), Some("GetObject feed.json 200"), "{arguments:?}: {ran}");
    ran.exits(code)
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).expect("one JSON document")
}

#[test]
fn a_catchup_with_nothing_to_do_makes_one_conditional_request_and_four_sql_round_trips() {
    let mut pair = Pair::of_notes_on(Kind::Bucket, 3);
    pair.export_range("2024-05-01", "2024-05-03");
    let (logins, ready) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (counted_logins, counted_ready) = (Arc::clone(&logins), Arc::clone(&ready));
    let proxy = Proxy::start(&pair.replica, move |message| {
        match (message.kind, message.body) {
            // AuthenticationOk, and ReadyForQuery: once after a login, and at the end of each answer.
            (b'R', [0, 0, 0, 0]) => counted_logins.fetch_add(1, Ordering::Relaxed),
            (b'Z', _) => counted_ready.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        Fate::Pass
    });
    pair.scene.top_off(proxy.url());
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    let counts = || (logins.swap(0, Ordering::Relaxed), ready.swap(0, Ordering::Relaxed));
    counts();
    is_idle(&pair, 0);
    let (logins, ready) = counts();
    assert_eq!((logins, ready - logins), (1, 4), "connections and round trips");
}

#[test]
fn its_report_is_that_of_a_run_that_looks() {
    let pair = caught_up();
    let looked = json_of(&looks(&pair, &["--allow-gap", "--json"], 0));
    assert_eq!(looked["newest"], "2024-05-03");
    let (before, caught_up_at) = (pair.replica_state(), "SELECT caught_up_at FROM pgslice.feed");
    let earlier = pair.replica.psql(caught_up_at);
    assert_eq!(json_of(&is_idle(&pair, 0)), looked);
    assert_eq!(pair.replica_state(), before);
    assert_ne!(pair.replica.psql(caught_up_at), earlier, "that it ran is noted");
    let said = pair.catchup(&[]).exits(0).stdout;
    assert_eq!(said, "scene: nothing new (newest day 2024-05-03) (1 request)\n");
}

#[test]
fn a_head_that_was_published_again_is_read_and_then_known() {
    let pair = caught_up();
    is_idle(&pair, 0);
    pair.source.psql("UPDATE notes SET body = 'other' WHERE id = 101");
    pair.export("2024-05-01");
    looks(&pair, &[], 0);
    pair.assert_equal("notes");
    is_idle(&pair, 0);
}

#[test]
fn a_table_that_was_restored_or_made_anew_is_met_for_the_first_time() {
    let pair = caught_up();
    is_idle(&pair, 0);
    pair.replica.psql(&format!("DROP TABLE notes; {NOTES}"));
    looks(&pair, &[], 0);
    pair.assert_equal("notes");
    is_idle(&pair, 0);
    pair.replica.psql("DROP TABLE notes");
    looks(&pair, &[], 9);
    looks(&pair, &["--create"], 0);
    pair.assert_equal("notes");
    is_idle(&pair, 0);
}

#[test]
fn days_that_are_struck_from_the_ledger_are_applied_again() {
    let pair = caught_up();
    for change in [
        "DELETE FROM pgslice.ledger WHERE day = '2024-05-02'",
        "UPDATE pgslice.ledger SET manifest_sha256 = '', rows_digest = repeat('f', 32) WHERE day = '2024-05-02'",
        "DELETE FROM pgslice.ledger",
    ] {
        is_idle(&pair, 0);
        pair.replica.psql(&format!("DELETE FROM notes WHERE id = 203; {change}"));
        looks(&pair, &[], 0);
        pair.assert_equal("notes");
    }
}

#[test]
fn any_change_of_a_table_is_looked_at() {
    let pair = caught_up();
    for change in [
        "ALTER TABLE notes ADD own int",
        "ALTER TABLE notes RENAME own TO mine",
        "ALTER TABLE notes DROP mine",
        "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    ] {
        is_idle(&pair, 0);
        pair.replica.psql(change);
        looks(&pair, &[], 0);
    }
    is_idle(&pair, 0);
    pair.replica.psql("CREATE RULE keep AS ON DELETE TO notes DO INSTEAD NOTHING; ALTER TABLE notes DISABLE RULE keep");
    looks(&pair, &[], 0);
    is_idle(&pair, 0);
    pair.replica.psql("ALTER TABLE notes ENABLE RULE keep");
    looks(&pair, &[], 9);
    looks(&pair, &[], 9);
}

#[test]
fn what_vacuum_and_statistics_do_is_no_change() {
    let pair = caught_up();
    is_idle(&pair, 0);
    pair.replica.psql("VACUUM FREEZE notes");
    pair.replica.psql("VACUUM FREEZE pgslice.ledger");
    pair.replica.psql("VACUUM FREEZE pg_class");
    pair.replica.psql("ANALYZE");
    pair.replica.psql("CREATE INDEX ON notes (at)");
    is_idle(&pair, 0);
}

#[test]
fn a_run_with_options_looks() {
    let pair = caught_up();
    for arguments in [
        &["--from", "2024-05-01"][..],
        &["--to", "2024-05-02"],
        &["--allow-gap"],
        &["--force"],
        &["--create"],
        &["--dry-run"],
    ] {
        is_idle(&pair, 0);
        looks(&pair, arguments, 0);
    }
    looks(&pair, &["--to", "2024-05-04"], 8);
    looks(&pair, &["--from", "2024-04-30"], 11);
    looks(&pair, &["--taken-at", "2024-05-02T00:00:00Z"], 2);
    is_idle(&pair, 0);
}

#[test]
fn another_configuration_looks() {
    let mut pair = caught_up();
    is_idle(&pair, 0);
    pair.configure(&format!("{NOTES_TABLE}[[table]]\nname = \"marks\"\ntime-column = \"at\"\n"));
    looks(&pair, &[], 9);
    pair.configure(&format!("{NOTES_TABLE}natural-key = [\"body\"]\n"));
    looks(&pair, &[], 0);
    is_idle(&pair, 0);
}

#[test]
fn a_stale_head_is_told_again_and_again() {
    let pair = Pair::of_notes_on(Kind::Bucket, 1);
    pair.export("2024-05-01");
    pair.edit_head(|head| head["valid_until"] = "2024-06-01T00:00:00Z".into());
    let first = pair.catchup(&[]).exits(12);
    pair.assert_equal("notes");
    let second = is_idle(&pair, 12);
    assert_eq!(json_of(&second)["stopped"]["exit_code"], 12);
    let told = |ran: &Ran| ran.stderr.lines().filter(|line| line.contains("last published to at")).count();
    assert!(told(&first) > 0 && told(&first) == told(&second), "{first}\n{second}");
    assert_eq!(json_of(&looks(&pair, &["--json", "--allow-gap"], 12)), json_of(&is_idle(&pair, 12)));
}

#[test]
fn a_head_grows_stale_while_nothing_changes() {
    let pair = caught_up();
    is_idle(&pair, 0);
    pair.scene.edit_configuration("[replica]\n", "[replica]\nmax-age = \"1s\"\n");
    std::thread::sleep(Duration::from_secs(2));
    is_idle(&pair, 12);
}

#[test]
fn a_gap_is_told_again_and_again() {
    let pair = Pair::of_notes_on(Kind::Bucket, 4);
    pair.export_range("2024-05-01", "2024-05-04");
    pair.edit_head(|head| {
        head["days"].as_array_mut().expect("days are a list").retain(|day| day["day"] != "2024-05-03")
    });
    looks(&pair, &[], 10);
    looks(&pair, &[], 10);
    looks(&pair, &["--allow-gap"], 0);
    // The hole was accepted: days behind it are held.
    is_idle(&pair, 0);
}

#[test]
fn what_waits_for_a_part_of_the_feed_is_not_forgotten() {
    let pair = Pair::of_notes_on(Kind::Bucket, 3);
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&["--to", "2024-05-02"]).exits(0);
    looks(&pair, &[], 0);
    pair.assert_equal("notes");
    is_idle(&pair, 0);
    // One that cannot be applied stays pending.
    pair.edit_head(|head| entry_of(head, "2024-05-03")["manifest"]["sha256"] = "0".repeat(64).into());
    looks(&pair, &[], 4);
    looks(&pair, &[], 4);
}

#[test]
fn a_replica_that_takes_no_writes_any_more_is_refused() {
    let pair = caught_up();
    is_idle(&pair, 0);
    pair.replica.psql(&format!("ALTER DATABASE \"{}\" SET default_transaction_read_only = on", pair.replica.name));
    looks(&pair, &[], 6);
}

#[test]
fn another_run_on_the_replica_is_noticed() {
    let pair = caught_up();
    is_idle(&pair, 0);
    let feed_id = pair.replica.psql("SELECT feed_id FROM pgslice.feed");
    std::thread::scope(|scope| {
        let hold =
            format!("SELECT pg_advisory_lock(hashtextextended('pgslice catchup {feed_id}', 0)); SELECT pg_sleep(30)");
        let holder = scope.spawn({
            let replica = &pair.replica;
            move || replica.try_psql(&hold)
        });
        let held = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND database =
            (SELECT oid FROM pg_database WHERE datname = current_database())";
        eventually("the lock is held", || pair.replica.psql(held) == "t");
        looks(&pair, &[], 7);
        let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()";
        pair.replica.psql(ended);
        let _ = holder.join().expect("it ended");
    });
    is_idle(&pair, 0);
}

#[test]
fn a_web_server_is_asked_by_the_tag_of_a_head_that_has_been_there_for_a_while() {
    let pair = Pair::of_notes_on(Kind::Folder, 2);
    pair.export_range("2024-05-01", "2024-05-02");
    let root = pair.scene.folder().join("store");
    let web = Web::serving(&root);
    let stranger = stranger(&pair, &web.url);
    let seen = AtomicU32::new(0);
    let asked = || {
        stranger.pgslice(&["catchup"]).exits(0);
        let before = usize::try_from(seen.load(Ordering::Relaxed)).expect("a small number");
        eventually("the request is in the log", || web.answered().len() > before);
        let mut answered = web.answered();
        seen.store(u32::try_from(answered.len()).expect("a small number"), Ordering::Relaxed);
        answered.split_off(before)
    };
    let (whole, unchanged) = (["GET /feed.json HTTP/1.1 200"], ["GET /feed.json HTTP/1.1 304"]);
    assert_eq!(asked()[..1], whole);
    pair.assert_equal("notes");
    // Two heads of one second and size have one tag: it is not relied on while that second may not be over.
    assert_eq!(asked(), whole);
    let feed = File::options().append(true).open(root.join("feed.json")).expect("open feed.json");
    feed.set_modified(SystemTime::now() - Duration::from_secs(300)).expect("set its time");
    assert_eq!(asked(), whole);
    assert_eq!(asked(), unchanged);
    assert_eq!(asked(), unchanged);
    pair.source.psql("UPDATE notes SET body = 'other' WHERE id = 101");
    pair.export("2024-05-01");
    assert_eq!(asked()[..1], whole);
    pair.assert_equal("notes");
}

/// Somebody who has the pair's replica and knows the address of its feed.
fn stranger(pair: &Pair, url: &str) -> Scene {
    let scene = Scene::in_folder(NOTES_TABLE).replica(&pair.replica);
    let toml = fs::read_to_string(scene.configuration()).expect("read pgslice.toml");
    let store = scene.place().section();
    assert!(toml.contains(&store), "{toml}");
    scene.edit_configuration(&store, &format!("[store]\nurl = {url:?}\nallow-http = true\n"));
    scene
}
