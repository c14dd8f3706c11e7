//! `pgslice verify` on real databases: what it finds at each level, and what it says that it did not look at.

use serde_json::Value;

use crate::pair::{NOTES_TABLE, Pair};
use crate::scene::Ran;

/// Three published days that the replica holds.
fn caught_up() -> Pair {
    let pair = Pair::of_notes(3);
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    pair
}

fn verify(pair: &Pair, arguments: &[&str]) -> Ran {
    pair.scene.pgslice(&[&["verify"], arguments].concat())
}

#[track_caller]
fn report(pair: &Pair, arguments: &[&str], code: i32) -> Value {
    let ran = verify(pair, &[&["--json"], arguments].concat()).exits(code);
    serde_json::from_str(&ran.stdout).expect("one JSON document")
}

/// The only difference of the only level that has one: level, day, table, what.
#[track_caller]
fn difference(report: &Value) -> (String, String, String, String) {
    let levels = report["levels"].as_array().expect("levels");
    let found: Vec<(&Value, &Value)> = levels
        .iter()
        .flat_map(|level| level["differences"].as_array().expect("a list").iter().map(move |found| (level, found)))
        .collect();
    let [(level, found)] = found[..] else { panic!("one difference expected: {report:#}") };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&level["level"]), text(&found["day"]), text(&found["table"]), text(&found["what"]))
}

#[test]
fn what_is_as_published_is_said_at_every_level_and_nothing_is_changed() {
    let pair = caught_up();
    let (store, replica) = (pair.place().contents(), pair.replica_state());
    let said = report(&pair, &["--read-data", "--source", "--replica"], 0);
    assert_eq!(said["days"], 3);
    let levels: Vec<(&str, u64, u64)> = said["levels"]
        .as_array()
        .expect("levels")
        .iter()
        .map(|level| {
            let number = |name: &str| level[name].as_u64().expect("a number");
            (level["level"].as_str().expect("a word"), number("slices"), number("rows"))
        })
        .collect();
    assert_eq!(levels, [("store", 3, 15), ("data", 3, 15), ("source", 3, 15), ("replica", 3, 15)]);
    assert_eq!(pair.place().contents(), store);
    assert_eq!(pair.replica_state(), replica);

    let told = verify(&pair, &[]).exits(0);
    assert!(told.stdout.contains("store: as published (9 objects, "), "{told}");
    assert!(told.stdout.contains("  never checked here: what parts hold"), "{told}");
    assert!(told.stdout.ends_with("not asked for: --read-data, --source, --replica\n"), "{told}");
}

#[test]
fn only_the_days_that_are_asked_for_are_looked_at() {
    let pair = caught_up();
    assert_eq!(report(&pair, &["--from", "2024-05-02"], 0)["days"], 2);
    assert_eq!(report(&pair, &["--from", "2024-05-02", "--to", "2024-05-02"], 0)["days"], 1);
    assert_eq!(report(&pair, &["--to", "2024-04-30"], 0)["days"], 0);
    verify(&pair, &["--from", "2024-05-03", "--to", "2024-05-02"]).exits(2);
    verify(&pair, &["--read-data=0%"]).exits(2);
}

#[test]
fn a_part_that_is_gone_or_short_is_found_by_its_size_alone() {
    let pair = caught_up();
    let key = pair.part_key("2024-05-02", "notes");
    let content = pair.place().content(&key);
    pair.place().write(&key, &content[..content.len() - 1]);
    let (level, day, table, what) = difference(&report(&pair, &[], 4));
    assert_eq!((level.as_str(), day.as_str(), table.as_str()), ("store", "2024-05-02", "public.notes"));
    assert!(what.contains("are published"), "{what}");
    pair.place().remove(&key);
    let (_, _, _, what) = difference(&report(&pair, &[], 4));
    assert!(what.contains("is not in the store"), "{what}");
}

#[test]
fn a_flipped_byte_is_found_by_reading_and_only_by_reading() {
    let pair = caught_up();
    let key = pair.part_key("2024-05-02", "notes");
    let mut content = pair.place().content(&key);
    let middle = content.len() / 2;
    content[middle] ^= 1;
    pair.place().write(&key, &content);
    report(&pair, &[], 0);
    for share in ["--read-data", "--read-data=1%"] {
        let (level, day, table, _) = difference(&report(&pair, &[share], 4));
        assert_eq!((level.as_str(), day.as_str(), table.as_str()), ("data", "2024-05-02", "public.notes"), "{share}");
    }
}

#[test]
fn checksums_that_mislead_downloaders_are_found() {
    let pair = caught_up();
    let key = pair.manifest_key("2024-05-01").replace("manifest.json", "SHA256SUMS");
    pair.place().write(&key, b"");
    let (level, day, _, what) = difference(&report(&pair, &[], 4));
    assert_eq!((level.as_str(), day.as_str()), ("store", "2024-05-01"));
    assert!(what.contains("other checksums than the manifest"), "{what}");
}

#[test]
fn a_damaged_manifest_hides_its_day_and_no_other() {
    let pair = caught_up();
    let key = pair.manifest_key("2024-05-01");
    pair.place().write(&key, b"{}");
    let said = report(&pair, &["--read-data"], 4);
    assert_eq!(difference(&said).1, "2024-05-01");
    assert_eq!(said["levels"][1]["rows"], 10, "the other two days were read");
}

#[test]
fn what_is_never_carried_is_found_by_comparing_with_the_source() {
    let pair = caught_up();
    // Older than any lookback: no export looks at these days again by itself.
    pair.source.psql(
        "UPDATE notes SET body = 'edited' WHERE id = 101; DELETE FROM notes WHERE id = 203;
         INSERT INTO notes VALUES (309, '2024-05-03 05:00+00', 'back-dated')",
    );
    report(&pair, &["--read-data", "--replica"], 0);
    let said = report(&pair, &["--source"], 4);
    let found = said["levels"][1]["differences"].as_array().expect("a list");
    let told: Vec<(&str, u64)> = found
        .iter()
        .map(|one| (one["day"].as_str().expect("a day"), one["found"]["rows"].as_u64().expect("rows")))
        .collect();
    assert_eq!(told, [("2024-05-01", 5), ("2024-05-02", 4), ("2024-05-03", 6)]);
    assert!(found[0]["what"].as_str().expect("text").contains("as many rows (5), but not the same"), "{found:?}");
    // And healed by naming the days.
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    report(&pair, &["--read-data", "--source", "--replica"], 0);
    pair.assert_equal("notes");
}

#[test]
fn a_replica_that_was_changed_by_hand_is_found() {
    let pair = caught_up();
    pair.replica.psql("UPDATE notes SET body = 'by hand' WHERE id = 201");
    let (level, day, table, what) = difference(&report(&pair, &["--replica"], 4));
    assert_eq!((level.as_str(), day.as_str(), table.as_str()), ("replica", "2024-05-02", "public.notes"));
    assert!(what.contains("but not the same"), "{what}");
    let told = verify(&pair, &["--replica"]).exits(4);
    assert!(told.stdout.contains("replica: 1 DIFFERENCE (3 slices, 15 rows compared)"), "{told}");
    // And mended as docs/operating.md says; rows of the replica's own in other days stay.
    pair.replica.psql("INSERT INTO notes VALUES (999, '2024-05-01 12:00+00', 'own')");
    pair.replica.psql("DELETE FROM pgslice.ledger WHERE day = '2024-05-02'");
    pair.catchup(&["--force", "--from", "2024-05-02", "--to", "2024-05-02"]).exits(0);
    assert_eq!(pair.replica.psql("DELETE FROM notes WHERE id = 999 RETURNING body"), "own");
    verify(&pair, &["--replica"]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn what_cannot_be_compared_is_said_and_is_no_difference() {
    let pair = caught_up();
    pair.source.psql("INSERT INTO notes VALUES (109, '2024-05-01 05:00+00')");
    pair.export("2024-05-01");
    let why = |said: &Value| {
        let list = said["levels"][1]["not_compared"].as_array().expect("a list").clone();
        list.into_iter().map(|one| one["why"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(why(&report(&pair, &["--replica"], 0)), ["revision 1 is applied, 2 is published"]);
    pair.source.psql("ALTER TABLE notes ADD COLUMN newer text");
    let said = report(&pair, &["--source"], 0);
    assert_eq!(said["levels"][1]["rows"], 16, "the columns that are published were compared");
    assert!(why(&said)[0].contains("without its column \"newer\""), "{said:#}");
    // Nothing at all compared is no all-clear.
    pair.source.psql("ALTER TABLE notes DROP COLUMN body");
    let said = report(&pair, &["--source"], 1);
    assert_eq!(why(&said).len(), 3, "{said:#}");
    assert!(why(&said)[0].contains("no longer has its column \"body\""), "{said:#}");
    let told = verify(&pair, &["--source"]).exits(1);
    assert!(told.stdout.contains("source: NOTHING WAS COMPARED"), "{told}");
}

#[test]
fn a_table_that_is_gone_or_was_made_anew_on_the_replica_is_a_difference() {
    let pair = caught_up();
    pair.replica.psql("DROP TABLE notes; CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, body text)");
    let said = report(&pair, &["--replica"], 4);
    assert!(said["levels"][1]["differences"][0]["what"].as_str().expect("text").contains("made anew"), "{said:#}");
    pair.replica.psql("DROP TABLE notes");
    let said = report(&pair, &["--replica"], 4);
    assert!(said["levels"][1]["differences"][0]["what"].as_str().expect("text").contains("no such table"), "{said:#}");
}

#[test]
fn rows_that_are_lost_are_found_also_where_the_replica_may_have_others() {
    // Rows of the replica's own, met by the first catchup, stay.
    let pair = Pair::of_notes(1);
    pair.export("2024-05-01");
    pair.replica.psql("INSERT INTO notes VALUES (999, '2024-05-01 12:00+00', 'own')");
    pair.catchup(&[]).exits(0);
    let said = report(&pair, &["--replica"], 1);
    assert!(said["levels"][1]["not_compared"][0]["why"].as_str().expect("text").contains("own"), "{said:#}");
    pair.replica.psql("DELETE FROM notes WHERE id < 999");
    assert_eq!(difference(&report(&pair, &["--replica"], 4)).0, "replica");

    let mut filtered = Pair::of_notes(1);
    filtered.configure(&format!("{NOTES_TABLE}where = \"id < 105\"\n"));
    filtered.export("2024-05-01");
    filtered.catchup(&[]).exits(0);
    report(&filtered, &["--replica", "--source"], 0);
    filtered.replica.psql("DELETE FROM notes WHERE id = 102");
    assert_eq!(difference(&report(&filtered, &["--replica"], 4)).0, "replica");
}

#[test]
fn an_error_at_one_level_does_not_hide_what_another_found() {
    let pair = caught_up();
    pair.place().remove(&pair.part_key("2024-05-01", "notes"));
    pair.source.psql("DROP TABLE notes");
    let said = report(&pair, &["--source"], 4);
    assert_eq!(difference(&said).0, "store");
    let errors = said["levels"][1]["errors"].as_array().expect("a list");
    assert_eq!((errors.len(), &errors[0]["exit_code"]), (1, &Value::from(2)), "{said:#}");
}

#[test]
fn a_day_that_is_not_published_is_told_by_the_exit_code() {
    let pair = Pair::of_notes(3);
    pair.export("2024-05-01");
    pair.export("2024-05-03");
    assert_eq!(report(&pair, &["--read-data"], 10)["missing"], serde_json::json!(["2024-05-02"]));
    report(&pair, &["--from", "2024-05-03"], 0);
    report(&pair, &["--from", "2024-05-04", "--to", "2024-05-04"], 10);
}

#[test]
fn reference_rows_that_changed_since_are_told_apart() {
    let schema = "CREATE TABLE people (id int PRIMARY KEY, name text);
        CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, person int REFERENCES people)";
    let tables = format!(
        "{NOTES_TABLE}[[table]]\nname = \"people\"\nrows = \"referenced\"\nreferenced-by = [\"notes.person\"]\nkey = [\"id\"]\n"
    );
    let pair = Pair::new(schema, &tables);
    pair.source.psql(
        "INSERT INTO people VALUES (1, 'a'), (2, 'b');
         INSERT INTO notes VALUES (1, '2024-05-01 05:00+00', 1), (2, '2024-05-02 05:00+00', 2)",
    );
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.source.psql("UPDATE people SET name = 'renamed' WHERE id = 1");
    let said = report(&pair, &["--source", "--replica"], 0);
    assert_eq!(
        said["levels"][1]["changed_since"],
        serde_json::json!([{ "day": "2024-05-01", "table": "public.people" }])
    );
    assert_eq!(said["levels"][1]["slices"], 4);
    let told = verify(&pair, &["--source"]).exits(0);
    assert!(told.stdout.contains("reference table public.people have changed since 2024-05-01"), "{told}");
}

#[test]
fn a_full_dump_that_is_gone_or_altered_is_found_and_no_day_is_let_go_of() {
    let mut pair = caught_up();
    pair.configure(&format!("[retention]\nmin-complete = 1\n{NOTES_TABLE}"));
    let now = chrono::Utc::now().to_rfc3339();
    pair.scene.pgslice(&["put", "full/x.dump", "--full", "--taken-at", &now, "--", "/bin/echo", "rows"]).exits(0);
    report(&pair, &["--read-data"], 0);
    pair.place().write("full/x.dump", b"ROWS\n");
    report(&pair, &[], 0);
    assert!(difference(&report(&pair, &["--read-data"], 4)).3.contains("full/x.dump has sha256"));
    pair.place().remove("full/x.dump");
    assert!(difference(&report(&pair, &[], 4)).3.contains("full/x.dump is not in the store"));
    let head = pair.head();
    let refused = pair.scene.pgslice(&["prune", "--keep", "1d"]).exits(4);
    assert!(refused.stderr.contains("the newest full dump, full/x.dump, is not in the store"), "{refused}");
    assert_eq!(pair.head(), head);
}

#[test]
fn a_damaged_manifest_is_mended_as_told() {
    let pair = caught_up();
    pair.place().write(&pair.manifest_key("2024-05-02"), b"{}");
    pair.scene.pgslice(&["verify"]).exits(4);
    pair.scene.pgslice(&["export", "--date", "2024-05-02"]).exits(4);
    pair.scene.pgslice(&["export", "--date", "2024-05-02", "--force"]).exits(0);
    pair.scene.pgslice(&["verify", "--read-data", "--source"]).exits(0);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_replica_without_a_ledger_is_refused() {
    let pair = Pair::of_notes(1);
    pair.export("2024-05-01");
    let refused = verify(&pair, &["--replica"]).exits(2);
    assert!(refused.stderr.contains("has no ledger"), "{refused}");
    pair.catchup(&[]).exits(0);
    verify(&pair, &["--replica"]).exits(0);
}
