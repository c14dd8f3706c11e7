//! Days that are published again in another shape: renamed columns, another format, another time column. And what a
//! replica does with rows that it does not take as they are.

use crate::pair::{NOTES, NOTES_TABLE, Pair};

const DAY: &str = "2024-05-01";

#[test]
fn a_column_that_was_renamed_on_both_sides_keeps_its_values_and_nothing_is_written_again() {
    let pair = Pair::of_notes(1);
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    let rename = "ALTER TABLE notes RENAME COLUMN body TO text";
    pair.source.psql(rename);
    pair.export(DAY);
    pair.replica.psql(rename);
    let before = pair.replica.psql("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM notes");
    let report = pair.report(&[], 0);
    assert_eq!(report["days"][0]["tables"]["public.notes"]["origin"], "unchanged", "{report}");
    assert_eq!(pair.replica.psql("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM notes"), before);
    pair.assert_equal("notes");
}

#[test]
fn a_column_that_was_renamed_on_the_source_and_added_on_the_replica_gets_its_values() {
    let pair = Pair::of_notes(1);
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    pair.source.psql("ALTER TABLE notes RENAME COLUMN body TO text");
    pair.export(DAY);
    pair.catchup(&[]).exits(9);
    pair.replica.psql("ALTER TABLE notes ADD COLUMN text text");
    // What stands under the old name is no longer the feed's, and it must be said what becomes of it.
    pair.catchup(&[]).exits(9);
    pair.replica.psql("ALTER TABLE notes RENAME COLUMN body TO old_body");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes WHERE text IS NULL OR text <> old_body"), "0");
}

#[test]
fn another_format_writes_nothing_to_a_table_without_a_key() {
    let schema = "CREATE TABLE notes (id int, at timestamptz NOT NULL, body text)";
    let mut pair = Pair::new(schema, NOTES_TABLE);
    pair.source.psql("INSERT INTO notes SELECT i, '2024-05-01 12:00+00', 'note' FROM generate_series(1, 5) i");
    // A column of the replica's own: the window could not be deleted and loaded again.
    pair.replica.psql("ALTER TABLE notes ADD COLUMN seen timestamptz");
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    pair.replica.psql("UPDATE notes SET seen = now()");
    pair.configure(&format!("{NOTES_TABLE}format = \"csv\"\n"));
    pair.scene.pgslice(&["export", "--date", DAY, "--force"]).exits(0);
    let report = pair.report(&[], 0);
    assert_eq!(report["days"][0]["tables"]["public.notes"]["origin"], "unchanged", "{report}");
    assert_eq!(pair.replica.psql("SELECT count(seen) FROM notes"), "5");
}

#[test]
fn a_feed_that_tells_its_days_by_another_column_is_refused_until_that_is_meant() {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, edited timestamptz NOT NULL)";
    let mut pair = Pair::new(schema, NOTES_TABLE);
    pair.source
        .psql("INSERT INTO notes SELECT i, '2024-05-01 12:00+00', '2024-05-01 13:00+00' FROM generate_series(1, 5) i");
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    pair.replica.psql("INSERT INTO notes VALUES (90, '2024-04-01 12:00+00', '2024-05-01 14:00+00')");
    pair.configure("[[table]]\nname = \"notes\"\ntime-column = \"edited\"\n");
    pair.scene.pgslice(&["export", "--date", DAY, "--force"]).exits(0);
    let before = pair.replica_state();
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("\"edited\" timestamptz") && refused.stderr.contains("--force"), "{refused}");
    assert_eq!(pair.replica_state(), before);
    pair.catchup(&["--force"]).exits(0);
}

#[test]
fn a_kind_of_time_that_the_column_is_not_of_is_refused() {
    let pair = Pair::of_notes(1);
    pair.export(DAY);
    pair.forge(DAY, |manifest| {
        let time = &mut manifest["slices"][0]["time"];
        time["column"] = "id".into();
    });
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("reads its time column \"id\""), "{refused}");
}

#[test]
fn a_row_whose_deferrable_key_is_held_in_another_day_finds_its_place() {
    let schema = NOTES.replace("PRIMARY KEY", "PRIMARY KEY DEFERRABLE INITIALLY DEFERRED");
    let pair = Pair::new(&schema, NOTES_TABLE);
    pair.source
        .psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00+00', 'first'), (2, '2024-05-01 12:00+00', 'stays')");
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    pair.source.psql("UPDATE notes SET at = '2024-05-02 12:00+00' WHERE id = 1");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT at FROM notes WHERE id = 1"), "2024-05-02 12:00:00+00");
}

#[test]
fn a_trigger_that_swallows_a_change_or_a_deletion_undoes_the_day() {
    for (operation, change) in
        [("UPDATE", "UPDATE notes SET body = 'changed' WHERE id = 101"), ("DELETE", "DELETE FROM notes WHERE id = 101")]
    {
        for key in ["", " PRIMARY KEY"] {
            let schema = format!("CREATE TABLE notes (id int{key}, at timestamptz NOT NULL, body text)");
            let pair = Pair::new(&schema, NOTES_TABLE);
            pair.source.psql(&crate::pair::notes(1));
            pair.export(DAY);
            pair.catchup(&[]).exits(0);
            pair.replica.psql(&format!(
                "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
                 CREATE TRIGGER swallow BEFORE {operation} ON notes FOR EACH ROW EXECUTE FUNCTION swallow()"
            ));
            pair.source.psql(change);
            pair.export(DAY);
            let (before, is_keyless_update) = (pair.replica_state(), key.is_empty() && operation == "UPDATE");
            // A table without a key is deleted and loaded: nothing is updated there.
            pair.catchup(&[]).exits(if is_keyless_update { 0 } else { 4 });
            assert_eq!(pair.replica_state() == before, !is_keyless_update, "{operation}{key}");
        }
    }
}
