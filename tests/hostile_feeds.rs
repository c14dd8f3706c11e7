//! A feed is untrusted: whatever is done to it, the replica stays as it was.

use serde_json::{Value, json};

use crate::pair::{NOTES, NOTES_TABLE, Pair, entry_of, notes, rows};
use crate::place::Kind;
use crate::scene::Ran;

/// Two days on the replica, a third and a revision of the second pending.
fn pending() -> Pair {
    pending_on(Kind::of_this_run())
}

fn pending_on(kind: Kind) -> Pair {
    let pair = Pair::of_notes_on(kind, 2);
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.source.psql(
        "INSERT INTO notes VALUES (301, '2024-05-03 01:00+00', 'three'); UPDATE notes SET body = 'x' WHERE id = 201",
    );
    pair.export_range("2024-05-02", "2024-05-03");
    pair
}

#[track_caller]
fn refuses(pair: &Pair, code: i32, words: &[&str]) -> Ran {
    let before = pair.replica.psql("SELECT md5(schema_to_xml('public', true, true, '')::text)");
    let refused = pair.catchup(&["--force"]).exits(code);
    for word in words {
        assert!(refused.stderr.contains(word), "{word} in\n{refused}");
    }
    assert_eq!(pair.replica.psql("SELECT md5(schema_to_xml('public', true, true, '')::text)"), before, "{refused}");
    assert_eq!(pair.ledger("day, revision"), "2024-05-01|1\n2024-05-02|1");
    refused
}

/// A manifest of the revised day that was forged with all its hashes right. The feed is mended afterwards.
#[track_caller]
fn forged(pair: &Pair, edit: impl FnOnce(&mut Value), code: i32, words: &[&str]) {
    let documents = [pair.manifest_key("2024-05-02"), "feed.json".to_owned()];
    let before = documents.each_ref().map(|key| pair.place().content(key));
    pair.forge("2024-05-02", edit);
    refuses(pair, code, words);
    for (key, content) in documents.iter().zip(before) {
        pair.place().write(key, &content);
    }
}

#[test]
fn a_manifest_that_was_changed_in_place() {
    let pair = pending();
    let key = pair.manifest_key("2024-05-02");
    let text = String::from_utf8(pair.place().content(&key)).expect("UTF-8");
    assert!(text.contains("note"));
    pair.place().write(&key, text.replace("note", "nota").as_bytes());
    refuses(&pair, 4, &["is not the manifest that feed.json names"]);
}

#[test]
fn a_manifest_that_is_gone() {
    let pair = pending();
    pair.place().remove(&pair.manifest_key("2024-05-02"));
    refuses(&pair, 4, &["manifest.json"]);
}

#[test]
fn a_part_that_was_cut_or_grown_or_is_gone() {
    let pair = pending();
    let key = pair.part_key("2024-05-02", "notes");
    let bytes = pair.place().content(&key);
    for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        pair.place().write(&key, &bytes[..length]);
        refuses(&pair, 4, &["2024-05-02"]);
    }
    pair.place().remove(&key);
    refuses(&pair, 4, &["2024-05-02"]);
}

#[test]
fn a_part_with_one_flipped_bit() {
    let pair = pending();
    let key = pair.part_key("2024-05-02", "notes");
    let bytes = pair.place().content(&key);
    for place in (0..bytes.len()).step_by(bytes.len() / 6) {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1;
        pair.place().write(&key, &flipped);
        refuses(&pair, 4, &["2024-05-02"]);
    }
}

/// Puts the rows of the third day in the place of the second day's.
fn replace_by_another_part(pair: &Pair) {
    let other = pair.place().content(&pair.part_key("2024-05-03", "notes"));
    pair.place().write(&pair.part_key("2024-05-02", "notes"), &other);
}

#[test]
fn a_part_that_was_swapped_with_another_one() {
    let pair = pending();
    replace_by_another_part(&pair);
    refuses(&pair, 4, &["2024-05-02"]);
}

#[test]
fn a_part_of_other_rows_under_its_own_right_hashes() {
    // The slice's digest is what the ledger and the day's digest are made of.
    let pair = pending();
    let other = pair.manifest("2024-05-03")["slices"][0].clone();
    replace_by_another_part(&pair);
    pair.forge("2024-05-02", |manifest| {
        let slice = &mut manifest["slices"][0];
        for field in ["rows", "raw_bytes", "stored_bytes"] {
            slice[field] = other[field].clone();
        }
        for field in ["stored_bytes", "sha256", "frames"] {
            slice["parts"][0][field] = other["parts"][0][field].clone();
        }
    });
    refuses(&pair, 4, &[]);
}

#[test]
fn keys_that_leave_the_feed_or_their_day() {
    let pair = pending();
    for key in
        ["../secret", "/etc/passwd", "2024-05-02/../../x/y", "2024-05-03/r1-00000000/x", "feed.json", "a\u{0}b/c/d"]
    {
        forged(&pair, |manifest| manifest["slices"][0]["parts"][0]["key"] = key.into(), 4, &["2024-05-02"]);
    }
}

#[test]
fn a_key_that_is_a_link_out_of_a_folder() {
    let pair = pending_on(Kind::Folder);
    let path = pair.scene.folder().join("store").join(pair.part_key("2024-05-02", "notes"));
    let outside = pair.scene.folder().join("outside");
    std::fs::rename(&path, &outside).expect("move the part out");
    std::os::unix::fs::symlink(&outside, &path).expect("link to it");
    let before = pair.replica_rows();
    let refused = pair.catchup(&[]);
    assert_ne!(refused.code, 0, "{refused}");
    assert_eq!(pair.replica_rows(), before);
}

#[test]
fn sizes_that_no_slice_has() {
    let pair = pending();
    let raw =
        |bytes: Value| move |manifest: &mut Value| manifest["slices"][0]["parts"][0]["frames"][0]["raw_bytes"] = bytes;
    forged(&pair, raw(json!(u64::MAX)), 4, &[]);
    forged(&pair, raw(json!(1_u64 << 40)), 4, &[]);
    forged(
        &pair,
        |manifest| {
            manifest["slices"][0]["parts"][0]["frames"][0]["raw_bytes"] = json!(8_000_000);
            manifest["slices"][0]["raw_bytes"] = json!(8_000_000);
        },
        4,
        &[],
    );
    forged(
        &pair,
        |manifest| {
            manifest["slices"][0]["parts"][0]["frames"][0]["stored_bytes"] = json!(1_u64 << 50);
            manifest["slices"][0]["stored_bytes"] = json!(1_u64 << 50);
        },
        4,
        &[],
    );
}

#[test]
fn a_row_more_than_the_frames_hold() {
    let pair = pending();
    forged(
        &pair,
        |manifest| {
            manifest["slices"][0]["parts"][0]["frames"][0]["rows"] = json!(6);
            manifest["slices"][0]["rows"] = json!(6);
        },
        4,
        &[],
    );
    forged(&pair, |manifest| manifest["slices"][0]["rows"] = json!(6), 4, &["do not add up"]);
}

#[test]
fn a_digest_that_is_not_the_rows() {
    let pair = pending();
    pair.forge("2024-05-02", |manifest| manifest["slices"][0]["rows_digest"] = "0".repeat(32).into());
    refuses(&pair, 4, &["is not the manifest of 2024-05-02"]);
}

#[test]
fn a_newer_format_names_the_version_that_is_needed() {
    let pair = pending();
    forged(
        &pair,
        |manifest| manifest["format"] = json!(2),
        4,
        &["format 2 is newer than this pgslice reads (1)", "upgrade"],
    );
    let pair = pending();
    pair.edit_head(|head| head["format"] = json!(7));
    refuses(&pair, 4, &["format 7 is newer than this pgslice reads (1)", "upgrade"]);
}

#[test]
fn bounds_that_reach_beyond_the_day() {
    let pair = pending();
    let bounds = |from: &'static str, to: &'static str| {
        move |manifest: &mut Value| {
            manifest["slices"][0]["time"]["from"] = from.into();
            manifest["slices"][0]["time"]["to"] = to.into();
        }
    };
    let (from, to) = ("2024-05-02 00:00:00+00", "2024-05-03 00:00:00+00");
    forged(&pair, bounds("-infinity", to), 9, &["not those of the window of 2024-05-02"]);
    forged(&pair, bounds(from, "infinity"), 9, &["not those of the window of 2024-05-02"]);
    forged(&pair, bounds("2024-05-01 00:00:00+00", to), 9, &["not those of the window of 2024-05-02"]);
    forged(
        &pair,
        bounds("2024-05-02 00:00:00+00' or true or at < '2024-05-02 00:00:00+00", to),
        9,
        &["not those of the window"],
    );
    forged(&pair, |manifest| manifest["slices"][0]["time"]["kind"] = "timestamp".into(), 9, &[]);
}

#[test]
fn a_window_that_reaches_beyond_the_day() {
    let pair = Pair::of_notes(2);
    pair.export("2024-05-02");
    pair.catchup(&["--from", "2024-05-02"]).exits(0);
    pair.replica.psql(&notes(1));
    pair.source.psql("UPDATE notes SET body = 'x' WHERE id = 201");
    pair.export("2024-05-02");
    let window = json!({"start": "1970-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z"});
    pair.forge("2024-05-02", |manifest| {
        manifest["window"] = window.clone();
        manifest["slices"][0]["time"]["from"] = "1970-01-01 00:00:00+00".into();
        manifest["slices"][0]["time"]["to"] = "2100-01-01 00:00:00+00".into();
    });
    pair.edit_head(|head| entry_of(head, "2024-05-02")["window"] = window);
    let before = rows(&pair.replica, "notes");
    pair.catchup(&[]).exits(4);
    assert_eq!(rows(&pair.replica, "notes"), before);
}

#[test]
fn names_that_are_sql() {
    let pair = pending();
    for name in ["body\"; DROP TABLE notes; --", "body) FROM stdin; DROP TABLE notes; --", "'", "\u{0}"] {
        forged(
            &pair,
            |manifest| manifest["slices"][0]["columns"][2]["name"] = name.into(),
            9,
            &["carries column \"body\""],
        );
        forged(
            &pair,
            |manifest| manifest["slices"][0]["columns"][2]["type_name"] = name.into(),
            9,
            &["\"body\" is text"],
        );
        forged(&pair, |manifest| manifest["slices"][0]["time"]["column"] = name.into(), 9, &["time column"]);
        // A table of that name is in no configuration.
        forged(
            &pair,
            |manifest| manifest["slices"][0]["table"] = name.into(),
            4,
            &["is not the manifest of 2024-05-02"],
        );
    }
}

#[test]
fn create_executes_no_text_of_a_manifest() {
    for (field, text) in [
        ("name", "a int); DROP TABLE bystander; --"),
        ("type_name", "text); DROP TABLE bystander; --"),
        ("type_schema", "pg_catalog\"; DROP TABLE bystander; --"),
    ] {
        let pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
        pair.source.psql(&notes(1));
        pair.replica.psql("CREATE TABLE bystander ()");
        pair.export("2024-05-01");
        pair.forge("2024-05-01", |manifest| manifest["slices"][0]["columns"][2][field] = text.into());
        let ran = pair.catchup(&["--create"]);
        assert_eq!(pair.replica.psql("SELECT to_regclass('bystander') IS NOT NULL"), "t", "{ran}");
        match field {
            "name" => {
                // An odd name is a name: the column is called like that.
                ran.exits(0);
                assert_eq!(
                    pair.replica.psql("SELECT count(*) FROM pg_attribute WHERE attname LIKE 'a int); DROP%'"),
                    "1"
                );
            }
            _ => assert!(ran.exits(9).stderr.contains("the replica has no type")),
        }
    }
}

#[test]
fn a_table_that_the_replicas_configuration_does_not_list_is_left_alone() {
    let schema = format!("{NOTES}; CREATE TABLE secrets (id int PRIMARY KEY, at timestamptz NOT NULL)");
    let mut pair = Pair::new(&schema, &format!("{NOTES_TABLE}[[table]]\nname = \"secrets\"\ntime-column = \"at\"\n"));
    pair.source.psql(&format!("{} INSERT INTO secrets VALUES (1, '2024-05-01 01:00+00')", notes(1)));
    pair.export("2024-05-01");
    pair.configure(NOTES_TABLE);
    pair.replica.psql("INSERT INTO secrets VALUES (7, '2024-05-01 02:00+00')");
    pair.catchup(&["--force"]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(pair.replica.psql("SELECT id FROM secrets"), "7");
    assert_eq!(pair.ledger("table_name"), "public.notes");
}

#[test]
fn a_head_that_is_no_feed() {
    let pair = pending();
    let good = pair.place().content("feed.json");
    for bad in [&b""[..], b"{}", b"[]", b"<html>not found</html>", &good[..good.len() / 2], b"\xff\xfe", b"null"] {
        pair.place().write("feed.json", bad);
        refuses(&pair, 4, &["feed.json"]);
    }
}

#[test]
fn days_out_of_order_or_overlapping() {
    let pair = pending();
    pair.edit_head(|head| head["days"].as_array_mut().expect("days").reverse());
    refuses(&pair, 4, &["out of order"]);
    let pair = pending();
    pair.edit_head(|head| entry_of(head, "2024-05-02")["window"]["start"] = "2024-05-01T12:00:00Z".into());
    refuses(&pair, 4, &["overlap"]);
}
