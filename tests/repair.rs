//! `pgslice repair`: a feed.json that is lost or damaged comes back from the manifests, and replicas go on with it.

use serde_json::Value;

use crate::pair::Pair;

/// Three days, the second of them in two revisions; the replica holds all of it.
fn published() -> Pair {
    let pair = Pair::of_notes(3);
    pair.export_range("2024-05-01", "2024-05-03");
    pair.source.psql("UPDATE notes SET body = 'changed' WHERE id = 201");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair
}

#[track_caller]
fn repair(pair: &Pair, arguments: &[&str], code: i32) -> Value {
    let ran = pair.scene.pgslice(&[&["repair", "--json"], arguments].concat()).exits(code);
    serde_json::from_str(&ran.stdout).expect("one JSON document")
}

/// Day, revision and manifest of each entry.
fn days(head: &Value) -> Vec<Value> {
    let list = head["days"].as_array().expect("days");
    list.iter()
        .map(|entry| serde_json::json!([entry["day"], entry["revision"], entry["manifest"], entry["digest"]]))
        .collect()
}

#[test]
fn a_lost_or_damaged_head_names_the_same_days_again() {
    let pair = published();
    let (whole, before) = (pair.place().content("feed.json"), pair.head());
    let damages: [(&str, Option<Vec<u8>>); 4] = [
        ("lost", None),
        ("empty", Some(Vec::new())),
        ("cut", Some(whole[..whole.len() / 2].to_vec())),
        ("overwritten", Some(vec![0; 4_096])),
    ];
    for (name, damage) in damages {
        let objects = pair.place().list();
        match damage {
            None => pair.place().remove("feed.json"),
            Some(bytes) => pair.place().write("feed.json", &bytes),
        }
        pair.scene.pgslice(&["repair", "--dry-run"]).exits(0);
        let said = repair(&pair, &[], 0);
        assert_eq!(said["outcome"], "rebuilt", "{name}");
        let after = pair.head();
        assert_eq!(days(&after), days(&before), "{name}");
        assert_eq!(after["feed_id"], before["feed_id"], "{name}");
        assert_eq!(after["source"], before["source"], "{name}");
        assert!(after["sequence"].as_u64() > before["sequence"].as_u64(), "{name}");
        assert_eq!(after["retired"].as_array().map(Vec::len), Some(1), "{name}: revision 1 of the second day");
        assert_eq!(pair.place().list(), objects, "{name}: nothing else was written or deleted");
        // A replica that saw the head of before goes on, and has nothing to do.
        let report = pair.report(&[], 0);
        assert_eq!(report["days"], serde_json::json!([]), "{name}");
        pair.scene.pgslice(&["verify", "--read-data", "--replica"]).exits(0);
    }
    pair.source.psql("INSERT INTO notes VALUES (401, '2024-05-04 01:00+00')");
    pair.export("2024-05-04");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_sound_head_stays_as_it_is() {
    let pair = published();
    let before = pair.place().contents();
    let said = repair(&pair, &[], 0);
    assert_eq!((&said["outcome"], said["days"].as_array().map(Vec::len)), (&"sound".into(), Some(3)));
    assert_eq!(said["unnamed"], serde_json::json!([]));
    assert_eq!(pair.place().contents(), before);
    pair.edit_head(|head| head["format"] = 99.into());
    let newer = pair.scene.pgslice(&["repair"]).exits(2);
    assert!(newer.stderr.contains("upgrade pgslice"), "{newer}");
}

#[test]
fn a_head_that_was_set_back_is_told_and_made_again_by_force() {
    let pair = published();
    let old = pair.head();
    pair.source.psql("UPDATE notes SET body = 'newer' WHERE id = 301");
    pair.export("2024-05-03");
    pair.catchup(&[]).exits(0);
    let right = pair.head();
    pair.edit_head(|head| *head = old);
    pair.catchup(&[]).exits(12);
    let said = repair(&pair, &[], 0);
    assert_eq!(said["unnamed"].as_array().map(Vec::len), Some(1), "{said:#}");
    let said = repair(&pair, &["--force"], 0);
    assert_eq!(said["outcome"], "rebuilt");
    assert_eq!(days(&pair.head()), days(&right));
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_feed_that_an_export_began_anew_beside_the_old_one_gives_way_to_it() {
    let pair = published();
    let lost = pair.head();
    let feed_id = lost["feed_id"].as_str().expect("an id").to_owned();
    pair.place().remove("feed.json");
    pair.export("2024-05-03");
    pair.catchup(&[]).exits(4);
    let refused = pair.scene.pgslice(&["repair", "--force"]).exits(2);
    assert!(refused.stderr.contains(&feed_id) && refused.stderr.contains("--feed-id"), "{refused}");
    repair(&pair, &["--force", "--feed-id", &feed_id], 0);
    assert_eq!(days(&pair.head()), days(&lost));
    pair.catchup(&[]).exits(0);
    pair.scene.pgslice(&["verify", "--read-data", "--source", "--replica"]).exits(0);
}

#[test]
fn a_day_whose_newest_revision_is_damaged_is_left_out_and_no_older_one_takes_its_place() {
    for damage in ["part", "manifest"] {
        let pair = published();
        let key = match damage {
            "part" => pair.part_key("2024-05-02", "notes"),
            _ => pair.manifest_key("2024-05-02"),
        };
        let whole = pair.place().content(&key);
        let mut content = whole.clone();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        pair.place().write(&key, &content);
        pair.place().remove("feed.json");
        let said = repair(&pair, &[], 4);
        assert_eq!(said["outcome"], "refused", "{damage}");
        assert!(!pair.place().is_there("feed.json"), "{damage}: nothing was written");
        let left_out = said["left_out"].as_array().expect("a list");
        assert_eq!(left_out.len(), 1, "{damage}");
        assert!(left_out[0]["manifest"].as_str().expect("a key").starts_with("2024-05-02/r2-"), "{said:#}");

        repair(&pair, &["--leave-out"], 4);
        let head = pair.head();
        let named: Vec<&str> =
            head["days"].as_array().expect("days").iter().filter_map(|day| day["day"].as_str()).collect();
        assert_eq!(named, ["2024-05-01", "2024-05-03"], "{damage}");
        // The day is published again under a number of its own; prune leaves what was left out alone.
        pair.export("2024-05-02");
        let entry = pair.head()["days"][1].clone();
        assert_eq!((&entry["day"], &entry["revision"]), (&"2024-05-02".into(), &3.into()), "{damage}");
        pair.scene.pgslice(&["verify", "--read-data", "--source"]).exits(0);
        // Lost once more, the newer revision is found, whatever is wrong with the older one.
        pair.place().remove("feed.json");
        repair(&pair, &[], 0);
        assert_eq!(pair.head()["days"][1]["revision"], 3, "{damage}");
    }
}

#[test]
fn a_repaired_feed_is_as_old_as_what_is_in_it() {
    let pair = published();
    let before = pair.head();
    pair.place().remove("feed.json");
    repair(&pair, &[], 0);
    let read_at = pair.manifest("2024-05-02")["exported_at"].clone();
    assert_eq!(pair.head()["published_at"], read_at, "a repair is no sign of life; it was {before:#}");
}

#[test]
fn a_revision_that_the_page_does_not_name_is_told() {
    let pair = published();
    let page = pair.place().content("index.html");
    pair.source.psql("UPDATE notes SET body = 'killed before its swap' WHERE id = 101");
    pair.export("2024-05-01");
    pair.place().write("index.html", &page);
    pair.place().remove("feed.json");
    assert_eq!(repair(&pair, &["--dry-run"], 0)["doubtful"], serde_json::json!(["2024-05-01"]));
}

#[test]
fn by_sizes_alone_a_part_that_is_short_is_still_found() {
    let pair = published();
    let key = pair.part_key("2024-05-03", "notes");
    let content = pair.place().content(&key);
    pair.place().write(&key, &content[1..]);
    pair.place().remove("feed.json");
    let said = repair(&pair, &["--sizes-only", "--dry-run"], 4);
    assert_eq!((&said["outcome"], &said["depth"]), (&"planned".into(), &"sizes".into()));
    assert_eq!(said["days"].as_array().map(Vec::len), Some(2));
    assert!(!pair.place().is_there("feed.json"), "a dry run writes nothing");
}

#[test]
fn a_store_without_days_of_the_dataset_is_no_feed() {
    let pair = Pair::of_notes(1);
    pair.place().make();
    let refused = pair.scene.pgslice(&["repair"]).exits(4);
    assert!(refused.stderr.contains("holds no manifest of dataset"), "{refused}");
    assert!(refused.stderr.contains("check dataset and store.url"), "{refused}");
    assert!(!pair.place().is_there("feed.json"));
}

#[test]
fn full_dumps_are_named_again_as_they_were() {
    let pair = published();
    for name in ["full/a.dump", "full/b.dump"] {
        let command = ["put", name, "--full", "--taken-at", "2024-06-01T00:00:00Z", "--", "/bin/echo", name];
        pair.scene.pgslice(&command).exits(0);
    }
    let before = pair.head()["full_dumps"].clone();
    assert_eq!(before.as_array().map(Vec::len), Some(2));
    pair.place().remove("feed.json");
    let said = repair(&pair, &[], 0);
    assert_eq!(said["full_dumps"], serde_json::json!(["full/a.dump", "full/b.dump"]));
    assert_eq!(pair.head()["full_dumps"], before);
    pair.place().remove("full/a.dump");
    pair.place().remove("feed.json");
    assert_eq!(repair(&pair, &[], 0)["dumps_left_out"], serde_json::json!(["full/a.dump"]));
    assert_eq!(pair.head()["full_dumps"].as_array().map(Vec::len), Some(1));
}
