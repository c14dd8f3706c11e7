//! `pgslice prune` on a real feed, with a replica that reads it.

use serde_json::{Value, json};

use crate::pair::{NOTES_TABLE, Pair};

/// Six published days of notes.
fn published(grace: &str) -> Pair {
    let mut pair = Pair::of_notes(6);
    pair.configure(&format!(
        "[export]\nmax-shrink = \"100%\"\n[retention]\nmin-complete = 1\ngrace = \"{grace}\"\n{NOTES_TABLE}"
    ));
    pair.export_range("2024-05-01", "2024-05-06");
    pair
}

fn published_days(pair: &Pair) -> Vec<String> {
    let head = pair.head();
    head["days"].as_array().expect("days").iter().map(|day| day["day"].as_str().expect("a day").to_owned()).collect()
}

/// The objects of a published day's attempt.
fn objects_of(pair: &Pair, day: &str) -> Vec<String> {
    let directory = pair.manifest_key(day).replace("manifest.json", "");
    pair.place().list().into_iter().filter(|key| key.starts_with(&directory)).collect()
}

fn are_all_there(pair: &Pair, keys: &[String]) -> bool {
    keys.iter().all(|key| pair.place().is_there(key))
}

#[test]
fn days_are_let_go_first_and_deleted_by_a_later_run() {
    let pair = published("0s");
    let objects = ["2024-05-01", "2024-05-02", "2024-05-03"].map(|day| objects_of(&pair, day)).concat();
    assert_eq!(objects.len(), 9);
    let first = pair.scene.pgslice(&["prune", "--keep", "3d"]).exits(0);
    assert!(first.stdout.contains("released 3 days; deleted after "), "{first}");
    assert_eq!(published_days(&pair), ["2024-05-04", "2024-05-05", "2024-05-06"]);
    assert!(are_all_there(&pair, &objects), "the run that lets go deletes nothing");

    let second = pair.scene.pgslice(&["prune", "--keep", "3d"]).exits(0);
    assert!(second.stdout.contains("deleted 9 objects of 3 retired revisions"), "{second}");
    assert!(objects.iter().all(|key| !pair.place().is_there(key)), "{objects:?}");
    assert_eq!(published_days(&pair), ["2024-05-04", "2024-05-05", "2024-05-06"]);
    let directories = pair.place().directories();
    assert!(directories.iter().all(|name| name.as_str() >= "2024-05-04"), "{directories:?}");

    let third = pair.scene.pgslice(&["prune", "--keep", "3d"]).exits(0);
    assert!(third.stdout.contains("nothing to release: 3 published days, all within retention"), "{third}");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*), min(id) FROM notes"), "15|401");
}

#[test]
fn within_their_grace_retired_days_stay_readable() {
    let pair = published("48h");
    let head = pair.head();
    let objects = objects_of(&pair, "2024-05-01");
    pair.scene.pgslice(&["prune", "--keep", "3d"]).exits(0);
    let again = pair.scene.pgslice(&["prune", "--keep", "3d"]).exits(0);
    assert!(again.stdout.contains("waiting 2024-05-01 r1: pruned, deleted after "), "{again}");
    assert!(are_all_there(&pair, &objects));
    // A reader that still goes by the head of before can finish.
    pair.edit_head(|now| *now = head);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_replica_that_slept_too_long_is_behind_retention() {
    let pair = published("0s");
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    for _ in 0..2 {
        pair.scene.pgslice(&["prune", "--keep", "3d"]).exits(0);
    }
    let before = pair.replica_rows();
    pair.catchup(&[]).exits(11);
    assert_eq!(pair.replica_rows(), before);
}

#[test]
fn a_dry_run_prints_exactly_what_the_real_run_then_does() {
    let pair = published("0s");
    pair.source.psql("UPDATE notes SET body = 'x' WHERE id = 601");
    pair.export("2024-05-06");
    for _ in 0..3 {
        let before = pair.head();
        let planned: Value = serde_json::from_str(
            &pair.scene.pgslice(&["prune", "--keep", "2d", "--dry-run", "--json"]).exits(0).stdout,
        )
        .expect("JSON");
        assert_eq!(pair.head(), before, "a dry run changes nothing");
        let done: Value =
            serde_json::from_str(&pair.scene.pgslice(&["prune", "--keep", "2d", "--json"]).exits(0).stdout)
                .expect("JSON");
        assert_eq!((&planned["mode"], &done["mode"]), (&json!("dry_run"), &json!("apply")));
        for (field, value) in done.as_object().expect("an object") {
            if field == "mode" {
                continue;
            }
            let without_clock = |value: &Value| {
                // Two runs start at two instants.
                let mut value = value.clone();
                for entry in value.as_array_mut().into_iter().flatten() {
                    if let Some(entry) = entry.as_object_mut() {
                        entry.remove("deleted_after");
                    }
                }
                value
            };
            assert_eq!(without_clock(&planned[field]), without_clock(value), "{field}");
        }
    }
    assert_eq!(published_days(&pair), ["2024-05-05", "2024-05-06"]);
    let directories = pair.place().directories();
    assert_eq!(directories.len(), 2, "{directories:?}");
}

#[test]
fn superseded_revisions_go_but_not_the_parts_that_are_carried() {
    let mut pair = Pair::new(
        "CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, body text);
         CREATE TABLE marks (id int PRIMARY KEY, at timestamptz NOT NULL)",
        NOTES_TABLE,
    );
    pair.configure(&format!(
        "[retention]\ngrace = \"0s\"\n{NOTES_TABLE}[[table]]\nname = \"marks\"\ntime-column = \"at\"\n"
    ));
    pair.source.psql(
        "INSERT INTO notes VALUES (1, '2024-05-01 01:00+00', 'a'); INSERT INTO marks VALUES (1, '2024-05-01 01:00+00')",
    );
    pair.export("2024-05-01");
    let (old_notes, marks) = (pair.part_key("2024-05-01", "notes"), pair.part_key("2024-05-01", "marks"));
    pair.source.psql("UPDATE notes SET body = 'b'");
    pair.export("2024-05-01");
    let pruned = pair.scene.pgslice(&["prune"]).exits(0);
    assert!(pruned.stdout.contains("1 of it stay"), "{pruned}");
    assert!(!pair.place().is_there(&old_notes) && pair.place().is_there(&marks));
    assert_eq!(pair.part_key("2024-05-01", "marks"), marks);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    pair.assert_equal("marks");
}

#[test]
fn what_the_feed_does_not_name_is_never_touched() {
    let pair = published("0s");
    let strangers = [
        "2024-05-01x/r1-00000000/manifest.json",
        "2024-05-01/r1-ffffffff/public.notes-2024-05-01.copy.zst",
        "2024-05-01/notes.txt",
        "2024-04-30/r1-00000000/manifest.json",
        "full/full.dump",
        "foo2/2024-05-01/r1-00000000/manifest.json",
        "manifest.json",
    ];
    for name in strangers {
        pair.place().write(name, name.as_bytes());
    }
    for _ in 0..3 {
        pair.scene.pgslice(&["prune", "--keep", "1d"]).exits(0);
    }
    assert_eq!(published_days(&pair), ["2024-05-06"]);
    for name in strangers {
        assert_eq!(pair.place().content(name), name.as_bytes());
    }
    assert!(!pair.place().directories().contains("2024-05-02"), "an empty folder goes with its objects");
}

#[test]
fn spans_that_cannot_be_meant_are_mistakes_and_delete_nothing() {
    let pair = published("0s");
    let before = pair.head();
    for keep in ["0d", "15", "-1d", "", "99999999999999999999d", "4000000d", "1.5d", "15h", "d", "fifteen days", "0w"] {
        for dry_run in [&[][..], &["--dry-run"]] {
            pair.scene.pgslice(&[&["prune", &format!("--keep={keep}")], dry_run].concat()).exits(2);
            pair.scene.pgslice(&[&["prune", "--keep", keep], dry_run].concat()).exits(2);
        }
    }
    assert_eq!(pair.head(), before);
}

#[test]
fn a_damaged_manifest_of_a_retired_day_keeps_its_objects() {
    let pair = published("0s");
    let (manifest, part) = (pair.manifest_key("2024-05-01"), pair.part_key("2024-05-01", "notes"));
    pair.scene.pgslice(&["prune", "--keep", "5d"]).exits(0);
    let good = pair.place().content(&manifest);
    pair.place().write(&manifest, b"{}");
    let refused = pair.scene.pgslice(&["prune", "--keep", "5d"]).exits(4);
    assert!(refused.stderr.contains("2024-05-01") && pair.place().is_there(&part), "{refused}");
    pair.place().write(&manifest, &good);
    pair.scene.pgslice(&["prune", "--keep", "5d"]).exits(0);
    assert!(!pair.place().is_there(&part));
}

#[test]
fn a_pruned_day_that_comes_back_has_a_higher_revision_and_is_not_loaded_twice() {
    let pair = published("0s");
    pair.catchup(&[]).exits(0);
    for _ in 0..2 {
        pair.scene.pgslice(&["prune", "--keep", "5d"]).exits(0);
    }
    let before = pair.replica.psql("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM notes");
    pair.export("2024-05-01");
    let entry = &pair.head()["days"][0];
    assert_eq!((&entry["day"], &entry["revision"]), (&json!("2024-05-01"), &json!(2)));
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM notes"), before);
}
