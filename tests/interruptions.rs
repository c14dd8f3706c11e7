//! A catchup that dies: the replica has whole days or nothing of them, and the next run goes on.

use std::thread;
use std::time::{Duration, Instant};

use crate::pair::{Pair, rows};

/// Waits for something that another process brings about.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "still not so: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sessions that a trigger holds inside their transaction.
const SLEEPING: &str = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

#[track_caller]
pub(crate) fn it_waits_in_the_trigger(pair: &Pair) {
    eventually("it waits in the trigger", || pair.replica.psql(&format!("SELECT count(*) {SLEEPING}")) == "1");
}

/// Three published days, and a replica on which a catchup does not get beyond the last row of the second one, until
/// the trigger `wait` is dropped.
fn waiting_in_the_second_day() -> Pair {
    let pair = Pair::of_notes(3);
    pair.export_range("2024-05-01", "2024-05-03");
    pair.replica.psql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.id = 205 THEN PERFORM
             pg_sleep(60); END IF; RETURN new; END $$;
         CREATE TRIGGER wait BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION wait()",
    );
    pair
}

/// Every day that the ledger has is whole, and no row is there that no held day has.
#[track_caller]
fn assert_whole_days(pair: &Pair) {
    let held = pair.ledger("day");
    let days: Vec<String> = held.lines().map(|day| format!("'{day}'")).collect();
    let held_rows = match days.is_empty() {
        true => String::new(),
        false => rows(
            &pair.source,
            &format!("(SELECT * FROM notes WHERE (at AT TIME ZONE 'UTC')::date IN ({}))", days.join(",")),
        ),
    };
    assert_eq!(rows(&pair.replica, "notes"), held_rows, "held: {held}");
}

#[test]
fn killed_at_any_moment_it_leaves_whole_days_and_the_next_run_goes_on() {
    let pair = Pair::of_notes(8);
    pair.export_range("2024-05-01", "2024-05-08");
    let timed = || {
        let started = Instant::now();
        pair.catchup(&[]).exits(0);
        started.elapsed()
    };
    let mut whole_run = timed();
    let mut cut_short = 0;
    for (tried, step) in (0..20).cycle().take(100).enumerate() {
        if tried >= 20 && cut_short >= 10 {
            break;
        }
        pair.replica.psql("TRUNCATE notes; DELETE FROM pgslice.ledger; DELETE FROM pgslice.feed");
        let running = pair.scene.spawn(&["catchup"]);
        thread::sleep(whole_run * step / 20);
        let killed = running.kill();
        cut_short += usize::from(killed.code == 137);
        settled(&pair);
        assert_whole_days(&pair);
        // A machine that is shared is slower at times.
        whole_run = whole_run.min(timed());
        pair.assert_equal("notes");
        assert_eq!(pair.ledger("day").lines().count(), 8);
    }
    assert!(cut_short >= 10, "only {cut_short} of 100 runs were killed before their end");
}

#[test]
fn killed_within_a_batch_of_revisions_it_leaves_all_or_none() {
    let pair = Pair::of_notes(6);
    pair.export_range("2024-05-01", "2024-05-06");
    pair.catchup(&[]).exits(0);
    pair.source.psql("UPDATE notes SET at = at + interval '1 day' WHERE id % 100 = 3");
    pair.export_range("2024-05-01", "2024-05-06");
    let before = pair.replica_rows();
    let ledger = pair.ledger("*");
    // Held inside its transaction, after some of its statements.
    pair.replica.psql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
         CREATE TRIGGER wait AFTER UPDATE ON notes FOR EACH STATEMENT EXECUTE FUNCTION wait()",
    );
    let running = pair.scene.spawn(&["catchup"]);
    it_waits_in_the_trigger(&pair);
    assert_eq!(running.kill().code, 137);
    pair.replica.psql(&format!("SELECT pg_terminate_backend(pid) {SLEEPING}"));
    settled(&pair);
    assert_eq!((pair.replica_rows(), pair.ledger("*")), (before, ledger));
    pair.replica.psql("DROP TRIGGER wait ON notes");
    pair.catchup(&[]).exits(0);
    assert_eq!(
        rows(&pair.replica, "notes"),
        rows(&pair.source, "(SELECT * FROM notes WHERE at < '2024-05-07 00:00+00')"),
        "the row that moved to the 7th is in no published day"
    );
}

/// Waits until the server has noticed that its client is gone.
fn settled(pair: &Pair) {
    eventually("the session has ended", || {
        pair.replica.psql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                 AND backend_type = 'client backend'",
        ) == "0"
    });
}

#[test]
fn a_lost_connection_is_worth_another_try() {
    let pair = waiting_in_the_second_day();
    let running = pair.scene.spawn(&["catchup"]);
    it_waits_in_the_trigger(&pair);
    pair.replica.psql(&format!("SELECT pg_terminate_backend(pid) {SLEEPING}"));
    let lost = running.wait().exits(5);
    assert!(lost.stderr.contains("cannot apply 2024-05-02"), "{lost}");
    assert_eq!(pair.ledger("day"), "2024-05-01");
    assert_whole_days(&pair);
    pair.replica.psql("DROP TRIGGER wait ON notes");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn terminated_it_says_so_and_leaves_whole_days() {
    let pair = waiting_in_the_second_day();
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let running = pair.scene.spawn(&["catchup"]);
        it_waits_in_the_trigger(&pair);
        let sent = std::process::Command::new("kill").args([format!("-{signal}"), running.id().to_string()]).status();
        assert!(sent.expect("run kill").success());
        running.wait().exits(code);
        settled(&pair);
        assert_eq!(pair.ledger("day"), "2024-05-01");
        assert_whole_days(&pair);
    }
}
