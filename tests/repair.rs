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
    assert_eq!(pair.place().contents(), before);
    pair.edit_head(|head| head["format"] = 99.into());
    let newer = pair.scene.pgslice(&["repair"]).exits(2);
    assert!(newer.stderr.contains("upgrade pgslice"), "{newer}");
}

#[test]
fn a_day_that_is_not_whole_is_left_out_and_no_older_revision_takes_its_place() {
    let pair = published();
    let key = pair.part_key("2024-05-02", "notes");
    let mut content = pair.place().content(&key);
    let middle = content.len() / 2;
    content[middle] ^= 1;
    pair.place().write(&key, &content);
    pair.place().remove("feed.json");
    let said = repair(&pair, &[], 4);
    let left_out = said["left_out"].as_array().expect("a list");
    assert_eq!(left_out.len(), 1);
    assert!(left_out[0]["manifest"].as_str().expect("a key").starts_with("2024-05-02/r2-"), "{said:#}");
    let head = pair.head();
    let named: Vec<&str> =
        head["days"].as_array().expect("days").iter().filter_map(|day| day["day"].as_str()).collect();
    assert_eq!(named, ["2024-05-01", "2024-05-03"]);
    assert_eq!(head["retired"], serde_json::json!([]), "what is left of the day is not for prune to delete");
    pair.export("2024-05-02");
    pair.scene.pgslice(&["verify", "--read-data", "--source"]).exits(0);
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
    assert!(!pair.place().is_there("feed.json"));
}
