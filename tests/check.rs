//! `pgslice check` of sources and replicas: what it finds, with its fix, and that the fix mends it.

use serde_json::Value;

use crate::cluster::Database;
use crate::pair::{NOTES, NOTES_TABLE, Pair};
use crate::scene::{Ran, Scene};

/// Two days that are published, and a store that nothing is wrong with.
fn published() -> Pair {
    let pair = Pair::of_notes(2);
    pair.source.psql("CREATE INDEX ON notes (at)");
    pair.export_range("2024-05-01", "2024-05-02");
    pair
}

/// Findings about `about` that are not good, as `verdict what → next`.
fn findings(ran: &Ran, about: &str) -> Vec<String> {
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}\n{ran}"));
    let findings = report["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|finding| finding["about"] == about), "{ran}");
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    findings
        .iter()
        .filter(|finding| finding["about"] == about && finding["verdict"] != "good")
        .map(|finding| format!("{} {} → {}", word(finding, "verdict"), word(finding, "what"), word(finding, "next")))
        .collect()
}

/// Runs a check that must exit with `code`, and says what is not good.
#[track_caller]
fn checked(scene: &Scene, code: i32, about: &str) -> Vec<String> {
    findings(&scene.pgslice(&["check", "--json"]).exits(code), about)
}

#[track_caller]
fn has(found: &[String], words: &[&str]) {
    assert!(found.iter().any(|finding| words.iter().all(|word| finding.contains(word))), "{words:?} in\n{found:#?}");
}

/// The statement of a fix: what follows `on the source:` or `on the replica:`.
#[track_caller]
fn fix(found: &[String], words: &str) -> String {
    let finding =
        found.iter().find(|finding| finding.contains(words)).unwrap_or_else(|| panic!("{words} in {found:?}"));
    let fix = finding.rsplit_once("on the source: ").or(finding.rsplit_once("on the replica: "));
    fix.expect("a statement").1.to_owned()
}

/// A role that may log in, in the URL of a database. It is dropped with what it was given.
struct Role<'a> {
    database: &'a Database,
    name: String,
}

impl<'a> Role<'a> {
    fn of(database: &'a Database) -> Role<'a> {
        let name = format!("checker_{}", database.name);
        database.psql(&format!("CREATE ROLE {name} LOGIN"));
        Role { database, name }
    }

    fn url(&self) -> String {
        self.database.url.replace("user=postgres", &format!("user={}", self.name))
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        self.database.psql(&format!("DROP OWNED BY {0} CASCADE; DROP ROLE {0}", self.name));
    }
}

#[test]
fn a_source_and_a_replica_that_will_work_are_good() {
    let pair = published();
    for _ in 0..2 {
        let ran = pair.scene.pgslice(&["check"]).exits(0);
        for line in ["source: 1 table can be published", "replica: 1 table fit the feed's newest day, 2024-05-02"] {
            assert!(ran.stdout.contains(line), "{line}\n{ran}");
        }
        assert!(!ran.stdout.contains("WARN") && !ran.stdout.contains("FAIL"), "{ran}");
        pair.catchup(&[]).exits(0);
    }
}

#[test]
fn nothing_is_written_to_either_database() {
    let pair = published();
    let before = pair.replica_state();
    pair.scene.pgslice(&["check"]).exits(0);
    assert_eq!(pair.replica_state(), before);
    assert_eq!(pair.replica.psql("SELECT to_regnamespace('pgslice') IS NULL"), "t");
}

#[test]
fn a_configuration_with_a_replica_only_is_checked_as_such() {
    let pair = published();
    let replica = Scene::new(NOTES_TABLE).replica(&pair.replica).reading(&pair.scene);
    let ran = replica.pgslice(&["check"]).exits(0);
    assert!(!ran.stdout.contains("source:") && ran.stdout.contains("good  replica:"), "{ran}");
}

#[test]
fn a_server_that_cannot_be_reached_is_named() {
    let pair = published();
    let url = "postgres://nobody@127.0.0.1:1/none";
    pair.scene.edit_configuration(&pair.source.url, url);
    has(&checked(&pair.scene, 5, "source"), &["bad", "127.0.0.1:1"]);
    pair.scene.edit_configuration(&pair.replica.url, url);
    has(&checked(&pair.scene, 5, "replica"), &["bad", "127.0.0.1:1"]);
}

#[test]
fn tables_that_an_export_would_refuse_are_bad_each_for_itself() {
    let pair = published();
    pair.scene.edit_configuration(
        NOTES_TABLE,
        &format!("{NOTES_TABLE}[[table]]\nname = \"absent\"\ntime-column = \"at\"\n[[table]]\nname = \"other\"\nrows = \"all\"\n"),
    );
    let found = checked(&pair.scene, 2, "source");
    has(&found, &["bad table public.absent: is not in the source database"]);
    has(&found, &["bad table public.other: is not in the source database"]);
}

#[test]
fn privileges_on_the_source_that_are_missing_come_with_their_grants() {
    let pair = published();
    pair.source.psql("CREATE SCHEMA app; ALTER TABLE notes SET SCHEMA app; REVOKE ALL ON SCHEMA app FROM public");
    let role = Role::of(&pair.source);
    pair.scene.edit_configuration("name = \"notes\"", "name = \"app.notes\"");
    pair.scene.edit_configuration(&pair.source.url, &role.url());
    for words in ["permission denied for schema app", "permission denied for table app.notes"] {
        let found = checked(&pair.scene, 6, "source");
        has(&found, &["bad", words]);
        pair.source.psql(&fix(&found, words));
    }
    pair.source.psql("ALTER TABLE app.notes ENABLE ROW LEVEL SECURITY");
    let found = checked(&pair.scene, 6, "source");
    has(&found, &["bad row-level security of app.notes"]);
    let statement = fix(&found, "row-level security").replace(", or export as the table's owner", "");
    pair.source.psql(&statement);
    let ran = pair.scene.pgslice(&["check", "--json"]);
    let found = findings(&ran, "source");
    has(&found, &["warning does not show this user other sessions"]);
    pair.source.psql(&fix(&found, "other sessions"));
    assert_eq!(findings(&pair.scene.pgslice(&["check", "--json"]), "source"), [""; 0]);
}

#[test]
fn what_makes_a_source_slow_or_incomplete_is_a_warning() {
    let mut pair = published();
    pair.source.psql(
        "CREATE UNLOGGED TABLE odd (at timestamptz NOT NULL, content oid);
         CREATE TABLE parted (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
    );
    let tables =
        "[[table]]\nname = \"odd\"\ntime-column = \"at\"\n[[table]]\nname = \"parted\"\ntime-column = \"at\"\n";
    pair.configure(tables);
    let found = findings(&pair.scene.pgslice(&["check", "--json"]), "source");
    for words in [
        "public.odd is unlogged",
        "public.odd has no index that starts with \"at\"",
        "public.odd has no key",
        "large objects",
    ] {
        has(&found, &["warning", words]);
    }
    assert_eq!(found.len(), 4, "{found:#?}");
    pair.source.psql(&fix(&found, "unlogged"));
    pair.source.psql(&fix(&found, "no index"));
    assert_eq!(findings(&pair.scene.pgslice(&["check", "--json"]), "source").len(), 2);
}

#[test]
fn a_replica_without_its_tables_is_told_of_create_and_of_types_that_are_missing() {
    let pair = Pair::with_empty_replica(
        "CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, m mood)",
        NOTES_TABLE,
    );
    has(&checked(&pair.scene, 0, "replica"), &["warning", "not held against the feed"]);
    pair.export("2024-05-01");
    let found = checked(&pair.scene, 9, "replica");
    has(&found, &["bad its missing tables cannot be made", "the replica has no type public.mood"]);
    has(&found, &["bad has no table public.notes", "--create"]);
    pair.replica.psql("CREATE TYPE mood AS ENUM ('ok')");
    assert_eq!(checked(&pair.scene, 9, "replica").len(), 1);
    pair.catchup(&["--create"]).exits(0);
    assert_eq!(checked(&pair.scene, 0, "replica"), [""; 0]);
}

#[test]
fn a_replica_that_does_not_take_the_feed_is_told_as_catchup_tells_it() {
    let pair = published();
    pair.replica.psql("ALTER TABLE notes DROP body");
    has(&checked(&pair.scene, 9, "replica"), &["bad", "2024-05-02 does not fit the replica", "no column \"body\""]);
    pair.replica.psql("DROP TABLE notes");
    pair.replica.psql(&format!("{NOTES} PARTITION BY RANGE (at)").replace(" PRIMARY KEY", ""));
    has(
        &checked(&pair.scene, 9, "replica"),
        &["bad public.notes: 2024-05-02", "CREATE TABLE \"public\".\"notes_2024_05_02\""],
    );
    pair.scene.edit_configuration("[replica]\n", "[replica]\ncreate-partitions = true\n");
    assert_eq!(checked(&pair.scene, 0, "replica"), [""; 0]);
}

#[test]
fn privileges_on_the_replica_that_are_missing_come_with_their_grants() {
    let pair = published();
    pair.replica.psql("ALTER TABLE notes ADD n serial");
    pair.replica.psql(&format!("REVOKE TEMPORARY ON DATABASE \"{}\" FROM public", pair.replica.name));
    let role = Role::of(&pair.replica);
    pair.scene.edit_configuration(&pair.replica.url, &role.url());
    let found = checked(&pair.scene, 6, "replica");
    for words in [
        "temporary tables",
        "may not make its ledger",
        "lacks select, insert, update, delete on public.notes",
        "sequence",
    ] {
        has(&found, &["bad", words]);
        let statements = fix(&found, words);
        pair.replica.psql(statements.split("; or: ").next().expect("a statement"));
    }
    assert_eq!(checked(&pair.scene, 0, "replica"), [""; 0]);
    pair.catchup(&[]).exits(0);

    pair.replica
        .psql(&format!("REVOKE ALL ON pgslice.feed FROM {0}; ALTER TABLE pgslice.feed OWNER TO postgres", role.name));
    let found = checked(&pair.scene, 6, "replica");
    pair.replica.psql(&fix(&found, "may not write its ledger"));
    assert_eq!(checked(&pair.scene, 0, "replica"), [""; 0]);
}

#[test]
fn what_stands_in_the_way_on_the_replica_is_found() {
    let pair = published();
    pair.replica.psql(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER watch BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE notes SET UNLOGGED",
    );
    let found = checked(&pair.scene, 0, "replica");
    has(&found, &["warning triggers of public.notes will fire: watch"]);
    has(&found, &["warning public.notes is unlogged"]);
    pair.replica.psql("CREATE RULE r AS ON DELETE TO notes DO INSTEAD NOTHING");
    has(&checked(&pair.scene, 9, "replica"), &["bad rule \"r\" of public.notes"]);
    pair.replica.psql(&format!(
        "DROP RULE r ON notes; ALTER DATABASE \"{}\" SET default_transaction_read_only = on",
        pair.replica.name
    ));
    has(&checked(&pair.scene, 6, "replica"), &["bad its transactions are read-only by default"]);
}

#[test]
fn a_feed_that_is_not_this_configurations_is_found() {
    let pair = published();
    pair.edit_head(|head| head["dataset"] = "other".into());
    has(&checked(&pair.scene, 2, "replica"), &["bad", "\"other\""]);
    pair.edit_head(|head| head["dataset"] = "scene".into());
    pair.edit_head(|head| head["source"]["system_identifier"] = "1".into());
    let found = findings(&pair.scene.pgslice(&["check", "--json"]).exits(4), "source");
    has(&found, &["bad"]);
}
