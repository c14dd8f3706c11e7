//! `pgslice status` and `pgslice ls` on real feeds.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::pair::{NOTES, NOTES_TABLE, Pair, notes};
use crate::scene::Scene;

fn json_of(scene: &Scene, arguments: &[&str]) -> Value {
    let ran = scene.pgslice(&[arguments, &["--json"]].concat()).exits(0);
    serde_json::from_str(&ran.stdout).expect("one JSON document")
}

/// Days 1, 2 and 5 of two tables; the first of them twice, and known to the replica in its first revision.
fn published() -> Pair {
    let schema = format!("{NOTES}; CREATE TABLE \"Marks\" (id int PRIMARY KEY, at timestamptz NOT NULL)");
    let pair = Pair::new(&schema, &format!("{NOTES_TABLE}[[table]]\nname = \"Marks\"\ntime-column = \"at\"\n"));
    pair.source.psql(&format!("{} INSERT INTO \"Marks\" SELECT id, at FROM notes WHERE id % 2 = 0", notes(5)));
    pair.export("2024-05-01");
    pair
}

#[test]
fn status_json_has_exactly_the_documented_fields() {
    let pair = published();
    let before = json_of(&pair.scene, &["status"]);
    assert_eq!(before["days"][0]["applied_revision"], Value::Null, "a replica without a ledger");
    pair.catchup(&[]).exits(0);
    pair.source.psql("UPDATE notes SET body = 'x' WHERE id = 101");
    for day in ["2024-05-01", "2024-05-02", "2024-05-05"] {
        pair.export(day);
    }
    let status = json_of(&pair.scene, &["status"]);
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<String>>();
    let named = |names: &str| names.split(' ').map(str::to_owned).collect::<BTreeSet<String>>();
    assert_eq!(
        keys(&status),
        named("format feed_id dataset timezone sequence published_at oldest newest lag_days missing days full_dumps")
    );
    for day in status["days"].as_array().expect("days") {
        assert_eq!(keys(day), named("day revision state rows bytes tables applied_revision"));
    }
    let head = pair.head();
    for field in ["format", "feed_id", "dataset", "timezone", "sequence", "published_at", "oldest", "newest"] {
        assert_eq!(status[field], head[field], "{field}");
    }
    assert_eq!((&status["oldest"], &status["newest"]), (&json!("2024-05-01"), &json!("2024-05-05")));
    assert_eq!(status["missing"], json!(["2024-05-03", "2024-05-04"]));
    assert!(status["lag_days"].as_i64().is_some_and(|lag| lag > 900), "{status}");
    assert!(status["format"].is_u64() && status["sequence"].is_u64() && status["feed_id"].is_string());
    let published_at = status["published_at"].as_str().expect("text");
    assert!(published_at.ends_with('Z') && published_at.contains('T'), "{published_at}");

    let days = status["days"].as_array().expect("days");
    let summary: Vec<String> = days
        .iter()
        .map(|day| format!("{} {} {} {}", day["day"], day["revision"], day["state"], day["applied_revision"]))
        .collect();
    assert_eq!(
        summary,
        ["\"2024-05-01\" 2 \"final\" 1", "\"2024-05-02\" 1 \"final\" null", "\"2024-05-05\" 1 \"final\" null"]
    );
    let size = |day: &str, table| pair.place().content(&pair.part_key(day, table)).len();
    let (of_notes, of_marks) = (size("2024-05-02", "notes"), size("2024-05-02", "Marks"));
    assert_eq!(
        days[1]["tables"],
        json!({"public.notes": {"rows": 5, "bytes": of_notes}, "public.Marks": {"rows": 2, "bytes": of_marks}})
    );
    assert_eq!((&days[1]["rows"], &days[1]["bytes"]), (&json!(7), &json!(of_notes + of_marks)));

    pair.catchup(&["--allow-gap"]).exits(0);
    let applied = json_of(&pair.scene, &["status"]);
    let revisions: Vec<&Value> =
        applied["days"].as_array().expect("days").iter().map(|day| &day["applied_revision"]).collect();
    assert_eq!(revisions, [&json!(2), &json!(1), &json!(1)]);
}

#[test]
fn status_tells_people_about_gaps_and_the_replica() {
    let pair = published();
    pair.export("2024-05-04");
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    let status = pair.scene.pgslice(&["status"]).exits(0);
    for word in [
        "scene: 2 days, 2024-05-01 to 2024-05-04 (UTC)",
        "missing: 2024-05-02",
        "holds 1 of 2 published days",
        "pending: 2024-05-04",
    ] {
        assert!(status.stdout.contains(word), "{word} in\n{status}");
    }
}

#[test]
fn status_needs_no_replica_and_no_source() {
    let pair = published();
    let stranger = Scene::new(NOTES_TABLE).reading(&pair.scene);
    assert_eq!(json_of(&stranger, &["status"])["days"][0]["applied_revision"], Value::Null);
    let said = stranger.pgslice(&["status"]).exits(0);
    assert!(!said.stdout.contains("replica"), "{said}");
}

#[test]
fn an_empty_feed_and_no_feed_are_two_things() {
    let pair = Pair::new(NOTES, NOTES_TABLE);
    pair.place().make();
    let refused = pair.scene.pgslice(&["status"]).exits(2);
    assert!(refused.stderr.contains("holds no feed.json"), "{refused}");
    // A day that fails leaves an empty feed behind.
    pair.source.psql("INSERT INTO notes VALUES (1, 'infinity')");
    pair.scene.pgslice(&["export", "--date", "2024-05-01"]);
    let status = json_of(&pair.scene, &["status"]);
    for field in ["oldest", "newest", "lag_days"] {
        assert_eq!(status[field], Value::Null, "{field}");
    }
    assert_eq!((&status["days"], &status["missing"]), (&json!([]), &json!([])));
    pair.catchup(&[]).exits(0);
}

#[test]
fn ls_lists_exactly_the_objects_of_the_published_days() {
    let pair = published();
    pair.source.psql("UPDATE notes SET body = 'x' WHERE id = 101");
    pair.export("2024-05-01");
    pair.export("2024-05-02");
    let listing = json_of(&pair.scene, &["ls"]);
    let keys: Vec<&str> = listing["objects"]
        .as_array()
        .expect("objects")
        .iter()
        .map(|object| object["key"].as_str().expect("a key"))
        .collect();
    let listed: BTreeSet<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(listed.len(), keys.len(), "nothing twice");
    // What the store has besides: the page for people, and the retired first revision, but for the part that the second
    // one carries.
    let first = pair.head()["retired"][0]["manifest"]["key"].as_str().expect("a key").replace("/manifest.json", "");
    let carried = pair.part_key("2024-05-01", "Marks");
    assert!(carried.starts_with(&first), "the marks were not carried: {carried}");
    let stored = pair.place().list();
    let besides: BTreeSet<String> = stored
        .difference(&listed)
        .filter(|key| *key != "index.html")
        .map(|key| key.replace(&format!("{first}/"), ""))
        .collect();
    assert_eq!(
        besides.into_iter().collect::<Vec<_>>(),
        ["SHA256SUMS", "manifest.json", "public.notes-2024-05-01.copy.zst"]
    );
    assert!(listed.is_subset(&stored), "{listed:?}");

    for object in listing["objects"].as_array().expect("objects") {
        let bytes = pair.place().content(object["key"].as_str().expect("a key"));
        if let Some(size) = object["bytes"].as_u64() {
            assert_eq!(size, bytes.len() as u64, "{object}");
        }
        if let Some(sha256) = object["sha256"].as_str() {
            use sha2::{Digest, Sha256};
            assert_eq!(sha256, hex::encode(Sha256::digest(&bytes)), "{object}");
        }
    }
    let urls = pair.scene.pgslice(&["ls", "--urls"]).exits(0);
    let expected: Vec<String> = keys.iter().map(|key| format!("{}/{key}", pair.place().url())).collect();
    assert_eq!(urls.stdout.lines().collect::<Vec<_>>(), expected);
    let told = pair.scene.pgslice(&["ls"]).exits(0);
    assert_eq!(told.stdout.lines().count(), keys.len());
    assert!(keys.iter().all(|key| told.stdout.contains(key)), "{told}");
}
