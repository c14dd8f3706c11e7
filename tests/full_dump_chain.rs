//! The chain from the newest full dump to today: pruning leaves it whole, and a replica that is behind is told to load it.

use serde_json::Value;

use crate::full_dumps::{notes_between, published, put_full, restore};
use crate::pair::{NOTES, NOTES_TABLE, Pair};

const ONE_DAY: &str = "[export]\nmax-shrink = \"100%\"\n[retention]\nkeep = \"1d\"\nmin-complete = 1\ngrace = \"0s\"\n";

fn days(pair: &Pair) -> Vec<String> {
    let head = pair.head();
    head["days"].as_array().expect("days").iter().map(|day| day["day"].as_str().expect("a day").to_owned()).collect()
}

fn prune(pair: &Pair) -> Value {
    let ran = pair.scene.pgslice(&["prune", "--json"]).exits(0);
    serde_json::from_str(&ran.stdout).expect("one JSON document")
}

/// Two days in a full dump, three more after it; everything but the last day is too old to keep.
fn chain() -> Pair {
    let mut pair = published(2);
    pair.configure(&format!("{ONE_DAY}{NOTES_TABLE}"));
    put_full(&pair, "full/a.dump");
    pair.source.psql(&notes_between(3, 5));
    pair.export_range("2024-05-03", "2024-05-05");
    pair
}

#[test]
fn days_since_the_newest_full_dump_stay_until_there_is_another() {
    let pair = chain();
    let report = prune(&pair);
    assert_eq!(days(&pair), ["2024-05-03", "2024-05-04", "2024-05-05"]);
    let reasons: Vec<&str> =
        report["kept"].as_array().expect("days").iter().filter_map(|kept| kept["reason"].as_str()).collect();
    assert_eq!(reasons, ["since_full_dump", "since_full_dump", "within_keep"]);
    put_full(&pair, "full/b.dump");
    for _ in 0..2 {
        prune(&pair);
    }
    assert_eq!(days(&pair), ["2024-05-05"]);
    for key in ["full/a.dump", "full/b.dump"] {
        assert!(pair.place().is_there(key), "{key} is not for prune to delete");
    }
}

#[test]
fn a_pruned_feed_and_its_newest_full_dump_are_the_source() {
    let pair = chain();
    for _ in 0..2 {
        prune(&pair);
    }
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_dump_that_is_recorded_after_a_day_of_it_was_read_again_and_left_the_feed_is_refused() {
    let mut pair = published(2);
    let begun = pair.source.psql("SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.USTZH:TZM')");
    let archive = pair.scene.folder().join("elsewhere.dump");
    pair.source.pg_dump(&archive, &[]);
    pair.source.psql("INSERT INTO notes VALUES (-1, '2024-05-01 05:00Z', 'late')");
    pair.export("2024-05-01");
    pair.configure(&format!("{ONE_DAY}{NOTES_TABLE}"));
    for _ in 0..2 {
        prune(&pair);
    }
    assert_eq!(days(&pair), ["2024-05-02"]);
    let arguments = ["put", "full/late.dump", "--full", "--taken-at", &begun];
    let ran = pair.scene.pgslice_between(&arguments, Some(&archive), None).exits(0);
    assert!(ran.stderr.contains("full/late.dump may lack rows of 2024-05-01"), "{ran}");
    pair.replica.pg_restore(&archive);
    // 2024-05-02, the oldest published day, is in the dump; the late row is in neither.
    let ran = pair.catchup(&["--restored-from", "full/late.dump"]).exits(11);
    assert!(ran.stderr.contains("nothing was applied"), "{ran}");
    pair.catchup(&["--restored-from", "full/late.dump", "--allow-gap"]).exits(0);
}

#[test]
fn a_replica_behind_retention_is_told_which_full_dump_to_load() {
    let pair = chain();
    pair.replica.psql(NOTES);
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    for _ in 0..2 {
        prune(&pair);
    }
    let ran = pair.catchup(&[]).exits(11);
    let advice = "load full/a.dump (pgslice get full/a.dump), then run `pgslice catchup --restored-from full/a.dump`";
    assert!(ran.stderr.contains(advice), "{ran}");
    pair.replica.psql("DROP TABLE notes");
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_replica_that_was_filled_some_other_way_is_told_too() {
    let pair = chain();
    for _ in 0..2 {
        prune(&pair);
    }
    pair.replica.psql(&format!("{NOTES}; INSERT INTO notes VALUES (101, '2024-05-01 03:00Z', 'old')"));
    let ran = pair.catchup(&[]).exits(11);
    assert!(ran.stderr.contains("load full/a.dump (pgslice get full/a.dump)"), "{ran}");
    let ran = pair.catchup(&["--from", "2024-05-01"]).exits(11);
    assert!(ran.stderr.contains("load full/a.dump (pgslice get full/a.dump)"), "{ran}");
}

#[test]
fn a_full_dump_that_is_too_old_for_the_feed_leaves_a_hole_and_says_so() {
    let pair = chain();
    put_full(&pair, "full/b.dump");
    for _ in 0..2 {
        prune(&pair);
    }
    assert_eq!(days(&pair), ["2024-05-05"]);
    restore(&pair, "full/a.dump");
    let ran = pair.catchup(&["--restored-from", "full/a.dump"]).exits(11);
    assert!(ran.stderr.contains("public.notes was restored from full/a.dump"), "{ran}");
    assert!(ran.stderr.contains("load full/b.dump (pgslice get full/b.dump)"), "{ran}");
    assert_eq!(pair.ledger("day"), "");
    pair.catchup(&["--restored-from", "full/a.dump", "--allow-gap"]).exits(0);
    pair.replica.psql("DROP TABLE notes");
    restore(&pair, "full/b.dump");
    pair.catchup(&["--restored-from", "full/b.dump"]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_day_that_is_revised_after_the_dump_stays_with_all_that_follow() {
    let mut pair = published(4);
    put_full(&pair, "full/a.dump");
    pair.source.psql("UPDATE notes SET body = 'corrected' WHERE id = 202");
    pair.export("2024-05-02");
    pair.configure(&format!("{ONE_DAY}{NOTES_TABLE}"));
    prune(&pair);
    assert_eq!(days(&pair), ["2024-05-02", "2024-05-03", "2024-05-04"]);
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    pair.assert_equal("notes");
}
