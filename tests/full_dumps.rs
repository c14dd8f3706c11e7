//! Full dumps beside the days: put by the producer, got and restored on a replica, which then takes the days since.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::cluster::Database;
use crate::datanommer;
use crate::pair::{NOTES, NOTES_TABLE, Pair, notes};
use crate::scene::Ran;
use crate::{cluster, place::Kind, scene::Scene};

/// Lets the days of a test go, whatever it does to them.
const ANY_SHRINK: &str = "[export]\nmax-shrink = \"100%\"\n";

/// The command that dumps `source` in the snapshot of `put --full`.
pub(crate) fn pg_dump(source: &Database) -> Vec<String> {
    let program = source.cluster().bin("pg_dump").to_str().expect("UTF-8").to_owned();
    [&program, "--format=custom", "--compress=1", "--snapshot={snapshot}", "--dbname", &source.url]
        .map(str::to_owned)
        .to_vec()
}

/// Runs `put KEY OPTIONS -- COMMAND`.
pub(crate) fn put(scene: &Scene, key: &str, options: &[&str], command: &[String]) -> Ran {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    scene.pgslice(&[&["put", key][..], options, &["--"], &command].concat())
}

/// Puts a full dump of the source.
#[track_caller]
pub(crate) fn put_full(pair: &Pair, key: &str) -> Ran {
    put(&pair.scene, key, &["--full"], &pg_dump(&pair.source)).exits(0)
}

/// Gets an object into a file of the scene's folder, and says how that ended.
pub(crate) fn get(scene: &Scene, key: &str) -> (PathBuf, Ran) {
    let path = scene.folder().join("got");
    let ran = scene.pgslice_between(&["get", key], None, Some(&path));
    (path, ran)
}

/// Restores a full dump of the feed into the replica, which has no tables.
#[track_caller]
pub(crate) fn restore(pair: &Pair, key: &str) {
    let (archive, ran) = get(&pair.scene, key);
    ran.exits(0);
    pair.replica.pg_restore(&archive);
}

/// A source with that many days of notes, all published, and a replica without tables.
pub(crate) fn published(days: u32) -> Pair {
    let pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
    pair.source.psql(&notes(days));
    pair.export_range("2024-05-01", &format!("2024-05-{days:02}"));
    pair
}

/// Statements that write five notes on each of the days from `from` to `to` of May.
pub(crate) fn notes_between(from: u32, to: u32) -> String {
    notes(to).replacen("generate_series(1,", &format!("generate_series({from},"), 1)
}

fn origins(pair: &Pair) -> String {
    pair.ledger("day, origin, keeps_extra_rows").replace('\n', " ")
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}\n{ran}"))
}

#[test]
fn the_dump_and_the_days_since_are_the_source() {
    let pair = published(3);
    let report = json(&put(&pair.scene, "full/a.dump", &["--full", "--json"], &pg_dump(&pair.source)).exits(0));
    let content = pair.place().content("full/a.dump");
    assert_eq!((&report["key"], &report["bytes"]), (&"full/a.dump".into(), &content.len().into()));
    assert_eq!((&report["full"], &report["contains_through"]), (&true.into(), &"2024-05-03".into()));
    let recorded = &pair.head()["full_dumps"][0];
    assert_eq!((&recorded["sha256"], &recorded["bytes"]), (&report["sha256"], &report["bytes"]));
    assert_eq!(recorded["taken"]["snapshot"], report["snapshot"]);
    assert_eq!(recorded["tables"], serde_json::json!(["public.notes"]));
    let beside: Value = serde_json::from_slice(&pair.place().content("full/a.dump.json")).expect("JSON");
    assert_eq!((&beside["full_dump"], &beside["feed_id"]), (recorded, &pair.head()["feed_id"]));
    assert_eq!((&beside["format"], &beside["dataset"]), (&1.into(), &pair.head()["dataset"]));
    assert_eq!((&recorded["taken_at"], &recorded["from_standby"]), (&report["taken_at"], &false.into()));

    // Since then: a late row, a deleted one, a moved one, and a new day.
    pair.source.psql(&format!(
        "DELETE FROM notes WHERE id = 201; INSERT INTO notes VALUES (-1, '2024-05-02 05:00Z', 'late');
         UPDATE notes SET at = '2024-05-03 01:00Z' WHERE id = 202; DELETE FROM notes WHERE id > 300;{}",
        notes_between(3, 4)
    ));
    pair.export_range("2024-05-02", "2024-05-04");
    restore(&pair, "full/a.dump");
    // The only day that the dump contains as it is now is not read.
    pair.place().remove(&pair.part_key("2024-05-01", "notes"));
    let report = pair.report(&["--restored-from", "full/a.dump"], 0);
    assert_eq!(report["restored_from"]["key"], "full/a.dump");
    assert_eq!(report["restored_from"]["tables"], serde_json::json!(["public.notes"]));
    pair.assert_equal("notes");
    assert_eq!(origins(&pair), "2024-05-01|adopted|f 2024-05-02|merged|f 2024-05-03|merged|f 2024-05-04|merged|f");
    assert_eq!(pair.report(&[], 0)["days"], serde_json::json!([]), "another catchup has nothing to do");
}

#[test]
fn days_that_are_published_after_the_first_catchup_are_revisions_of_the_dumps_rows_too() {
    let pair = published(1);
    pair.source.psql(&notes_between(2, 3));
    put_full(&pair, "full/a.dump");
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    pair.source.psql("DELETE FROM notes WHERE id IN (201, 305)");
    pair.export_range("2024-05-02", "2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(origins(&pair), "2024-05-01|adopted|f 2024-05-02|merged|f 2024-05-03|merged|f");
}

#[test]
fn what_was_changed_and_changed_back_around_the_dump_is_found_when_the_day_is_read_again() {
    let pair = published(2);
    pair.source.psql("INSERT INTO notes VALUES (-1, '2024-05-01 05:00Z', 'soon gone')");
    put_full(&pair, "full/a.dump");
    pair.source.psql("DELETE FROM notes WHERE id = -1");
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes WHERE id = -1"), "1", "as the dump had it");
    let exported = pair.scene.pgslice(&["export", "--from", "2024-05-01", "--to", "2024-05-02"]).exits(0);
    assert!(exported.stdout.contains("2 unchanged"), "{exported}");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(origins(&pair), "2024-05-01|merged|f 2024-05-02|adopted|f");
    assert_eq!(pair.report(&[], 0)["days"], serde_json::json!([]), "they are looked at once");
}

#[test]
fn rows_of_the_replicas_own_in_later_windows_are_kept_as_ever() {
    let pair = published(1);
    put_full(&pair, "full/a.dump");
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    pair.replica.psql("INSERT INTO notes SELECT -1, now() + interval '9 days', 'mine'");
    assert_eq!(pair.report(&[], 0)["days"], serde_json::json!([]));
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes WHERE id = -1"), "1");
}

#[test]
fn tables_that_follow_the_feed_already_are_not_restored_from_anything() {
    let pair = published(2);
    put_full(&pair, "full/a.dump");
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    let before = pair.replica_rows();
    for told in [["--restored-from", "full/a.dump"], ["--taken-at", "2024-05-01T00:00:00Z"]] {
        let ran = pair.catchup(&told).exits(2);
        assert!(ran.stderr.contains("these tables already follow the feed: public.notes"), "{ran}");
    }
    assert_eq!(pair.replica_rows(), before);
    // Restored once more, into new tables: another first contact.
    pair.replica.psql("DROP TABLE notes");
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_dump_that_the_feed_does_not_record_and_tables_that_nobody_filled_are_refused() {
    let pair = published(2);
    put_full(&pair, "full/a.dump");
    pair.replica.psql(NOTES);
    let ran = pair.catchup(&["--restored-from", "full/b.dump"]).exits(2);
    assert!(ran.stderr.contains("full/b.dump is not among the feed's full dumps"), "{ran}");
    assert!(ran.stderr.contains("the feed records full/a.dump"), "{ran}");
    let ran = pair.catchup(&["--restored-from", "full/a.dump"]).exits(2);
    assert!(ran.stderr.contains("public.notes is empty on the replica"), "{ran}");
    let ran = pair.catchup(&["--restored-from", "full/a.dump", "--taken-at", "2024-05-01T00:00:00Z"]).exits(2);
    assert!(ran.stderr.contains("cannot be used with"), "{ran}");
    pair.catchup(&["--taken-at", "2124-05-01T00:00:00Z"]).exits(2);
    pair.catchup(&["--taken-at", "2024-05-01T00:00:00"]).exits(2);
    assert_eq!(pair.ledger("day"), "");
    assert_eq!(pair.replica.psql("SELECT to_regclass('pgslice.restored') IS NULL"), "t");
}

#[test]
fn a_dry_run_adopts_and_remembers_nothing() {
    let pair = published(2);
    put_full(&pair, "full/a.dump");
    restore(&pair, "full/a.dump");
    let report = pair.report(&["--restored-from", "full/a.dump", "--dry-run"], 0);
    assert_eq!(report["restored_from"]["key"], "full/a.dump");
    assert_eq!(pair.replica.psql("SELECT to_regnamespace('pgslice') IS NULL"), "t");
}

#[test]
fn a_catchup_that_is_killed_at_once_still_knows_what_was_restored() {
    let pair = published(2);
    put_full(&pair, "full/a.dump");
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    // As if the run had ended before its first day.
    pair.replica.psql("DELETE FROM pgslice.ledger");
    pair.place().remove(&pair.part_key("2024-05-01", "notes"));
    pair.replica.psql("INSERT INTO notes VALUES (-1, '2024-05-02 05:00Z', 'as in the dump')");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(
        origins(&pair),
        "2024-05-01|adopted|f 2024-05-02|merged|f",
        "revised, and not kept as the replica's own"
    );
}

/// The remedy of docs/operating.md for a replica that was written to by somebody else.
#[test]
fn a_restored_replica_that_lost_rows_is_healed_as_any_other() {
    let pair = published(3);
    put_full(&pair, "full/a.dump");
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    pair.replica.psql(
        "DELETE FROM notes WHERE id = 201; UPDATE notes SET body = 'other' WHERE id = 202;
         INSERT INTO notes VALUES (-1, '2024-05-02 05:00Z', 'mine');
         DELETE FROM pgslice.ledger WHERE day = '2024-05-02'",
    );
    pair.catchup(&["--force", "--from", "2024-05-02", "--to", "2024-05-02"]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(origins(&pair), "2024-05-01|adopted|f 2024-05-02|merged|f 2024-05-03|adopted|f");

    pair.replica.psql("TRUNCATE notes; DELETE FROM pgslice.ledger");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(origins(&pair), "2024-05-01|loaded|f 2024-05-02|loaded|f 2024-05-03|loaded|f");
}

#[test]
fn an_existing_ledger_learns_what_was_restored() {
    let pair = published(2);
    pair.replica.psql(NOTES);
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT to_regclass('pgslice.restored') IS NULL"), "t");
    put_full(&pair, "full/a.dump");
    pair.replica.psql("DROP TABLE notes");
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    assert_eq!(origins(&pair), "2024-05-01|adopted|f 2024-05-02|adopted|f");
    assert_eq!(pair.replica.psql("SELECT table_name, dump_key FROM pgslice.restored"), "public.notes|full/a.dump");
}

#[test]
fn all_tables_of_a_dump_are_adopted_reference_tables_too() {
    let source = datanommer::create(cluster::source(), "dumped");
    for (day, messages) in [("2024-05-01", 40), ("2024-05-02", 30)] {
        datanommer::fill(&source, day, messages);
    }
    let replica = cluster::replica().create_database("restored");
    let scene = Scene::new(&format!("{ANY_SHRINK}{}", datanommer::tables())).source(&source).replica(&replica);
    let pair = Pair { source, replica, scene };
    pair.export_range("2024-05-01", "2024-05-02");
    put_full(&pair, "full/a.dump");
    restore(&pair, "full/a.dump");
    for key in pair.place().list().into_iter().filter(|key| key.ends_with(".copy.zst")) {
        pair.place().remove(&key);
    }
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    assert_eq!(pair.replica.psql("SELECT DISTINCT origin, keeps_extra_rows FROM pgslice.ledger"), "adopted|f");
    datanommer::fill(&pair.source, "2024-05-03", 30);
    pair.export("2024-05-03");
    pair.catchup(&[]).exits(0);
    for table in ["messages", "users", "packages", "users_messages", "packages_messages"] {
        pair.assert_equal(table);
    }
}

#[test]
fn a_table_that_was_not_locked_for_the_dump_is_looked_at() {
    let mut pair = published(1);
    put_full(&pair, "full/a.dump");
    pair.source.psql("CREATE TABLE more (LIKE notes INCLUDING ALL); INSERT INTO more SELECT * FROM notes");
    pair.configure(&format!("{ANY_SHRINK}{NOTES_TABLE}[[table]]\nname = \"more\"\ntime-column = \"at\"\n"));
    pair.export("2024-05-01");
    restore(&pair, "full/a.dump");
    pair.replica.psql("CREATE TABLE more (LIKE notes INCLUDING ALL)");
    let ran = pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    assert!(ran.stderr.contains("public.more was not locked for the dump"), "{ran}");
    pair.assert_equal("more");
    pair.assert_equal("notes");
}

#[test]
fn a_dump_from_elsewhere_counts_by_the_time_at_which_it_was_begun() {
    for recorded in [true, false] {
        let pair = published(2);
        let begun = pair.source.psql("SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.USTZH:TZM')");
        let archive = pair.scene.folder().join("elsewhere.dump");
        pair.source.pg_dump(&archive, &[]);
        pair.source.psql(&notes_between(3, 3));
        pair.source.psql("DELETE FROM notes WHERE id = 202");
        pair.export_range("2024-05-02", "2024-05-03");
        pair.replica.pg_restore(&archive);
        if recorded {
            let arguments = ["put", "full/elsewhere.dump", "--full", "--taken-at", &begun];
            let ran = pair.scene.pgslice_between(&arguments, Some(&archive), None).exits(0);
            assert!(ran.stdout.contains("contains the published days up to 2024-05-01"), "{ran}");
            assert_eq!(pair.place().content("full/elsewhere.dump"), fs::read(&archive).expect("the archive"));
            assert_eq!(pair.head()["full_dumps"][0]["taken"], Value::Null);
            pair.catchup(&["--restored-from", "full/elsewhere.dump"]).exits(0);
        } else {
            pair.catchup(&["--taken-at", &begun]).exits(0);
        }
        pair.assert_equal("notes");
        assert_eq!(origins(&pair), "2024-05-01|adopted|f 2024-05-02|merged|f 2024-05-03|merged|f");
    }
}

#[test]
fn full_dumps_are_told_by_status_ls_and_the_page() {
    let pair = published(2);
    put_full(&pair, "full/a.dump");
    let status = json(&pair.scene.pgslice(&["status", "--json"]).exits(0));
    assert_eq!(status["full_dumps"][0]["key"], "full/a.dump");
    assert_eq!(status["full_dumps"][0]["contains_through"], "2024-05-02");
    let listing = json(&pair.scene.pgslice(&["ls", "--json"]).exits(0));
    let last = listing["objects"].as_array().expect("objects").last().expect("some").clone();
    assert_eq!((&last["key"], &last["sha256"]), (&"full/a.dump".into(), &status["full_dumps"][0]["sha256"]));
    let page = String::from_utf8(pair.place().content("index.html")).expect("UTF-8");
    assert!(page.contains("<a href=\"full/a.dump\">full/a.dump</a>"), "{page}");
}

#[test]
fn a_full_dump_can_be_the_first_of_a_feed() {
    let pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
    pair.source.psql(&notes(2));
    let ran = put_full(&pair, "full/a.dump");
    assert!(ran.stdout.contains("contains no published day yet"), "{ran}");
    let before = pair.head()["published_at"].clone();
    put_full(&pair, "full/b.dump");
    assert_eq!(pair.head()["published_at"], before, "a dump is no sign of life of the exporter");
    pair.export_range("2024-05-01", "2024-05-02");
    restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(origins(&pair), "2024-05-01|adopted|f 2024-05-02|adopted|f");
}

#[test]
fn any_stream_comes_back_as_it_went() {
    for kind in [Kind::Folder, Kind::Bucket] {
        let scene = Scene::on(kind, NOTES_TABLE);
        let content: Vec<u8> = (0..9_000_000_u32).map(|number| number.to_le_bytes()[1] ^ 0x5a).collect();
        let input = scene.folder().join("input");
        fs::write(&input, &content).expect("write the input");
        let path = input.to_str().expect("UTF-8").to_owned();
        put(&scene, "full/more/of.tar", &[], &["cat".to_owned(), path]).exits(0);
        scene.pgslice_between(&["put", "full/stdin"], Some(&input), None).exits(0);
        put(&scene, "full/empty", &[], &["true".to_owned()]).exits(0);
        for (key, expected) in [("full/more/of.tar", &content[..]), ("full/stdin", &content[..]), ("full/empty", b"")] {
            let (got, ran) = get(&scene, key);
            assert!(ran.exits(0).stderr.contains("which feed.json does not record"));
            assert!(fs::read(&got).expect("what was got") == expected, "{key}");
        }
        assert!(!scene.place().is_there("feed.json"), "streams need no feed");
        assert_eq!(scene.place().staged(), 0);
    }
}

/// What of the arguments of `put` and `get` is refused before anything is asked of anybody.
#[test]
fn what_names_no_stream_is_refused() {
    let scene = Scene::in_folder(NOTES_TABLE);
    let strange = [
        "feed.json",
        "full",
        "full/",
        "full/../feed.json",
        "/full/a",
        "fuller/a",
        "full/.a",
        "full//a",
        "full/a b",
        "2024-05-01/r1-00000000/manifest.json",
        "index.html",
        "../full/a",
    ];
    for key in strange {
        scene.pgslice(&["put", key, "--", "echo", "x"]).exits(2);
        scene.pgslice(&["get", key]).exits(2);
    }
    assert!(scene.place().is_untouched());
}
