//! Schemas that change under a feed: what a replica takes, and what it is told when it does not.

use crate::pair::{NOTES, NOTES_TABLE, Pair, rows};
use crate::scene::Ran;

/// Days with a note each, published before a change of the source and after it.
fn published(change: &str, insert_after: &str) -> Pair {
    let pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00+00', 'one'), (2, '2024-05-02 12:00+00', 'two')");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.source.psql(change);
    pair.source.psql(insert_after);
    pair.export("2024-05-03");
    pair
}

/// The statements behind words of a refusal, as somebody would copy them.
fn statements(refused: &Ran, words: &str) -> Vec<String> {
    let lines = refused.stderr.lines().filter_map(|line| line.split_once(words));
    lines.map(|(_, statement)| statement.to_owned()).collect()
}

/// A refusal that moved nothing; running what it says makes the next run pass.
#[track_caller]
fn mended_as_told(pair: &Pair) {
    let before = pair.replica_rows();
    let refused = pair.catchup(&[]).exits(9);
    assert_eq!(pair.replica_rows(), before, "{refused}");
    let told = statements(&refused, "; mend it: ");
    assert!(!told.is_empty(), "{refused}");
    for statement in told {
        pair.replica.psql(&statement);
    }
    pair.catchup(&[]).exits(0);
}

#[test]
fn days_from_before_and_after_a_column_was_added_load_in_one_catchup() {
    let pair = published(
        "ALTER TABLE notes ADD tag text NOT NULL DEFAULT 'none'",
        "INSERT INTO notes VALUES (3, '2024-05-03 12:00+00', 'three', 'new')",
    );
    pair.catchup(&["--create"]).exits(0);
    assert_eq!(pair.replica.psql("SELECT id, body, tag FROM notes ORDER BY id"), "1|one|\n2|two|\n3|three|new");
    assert!(pair.catchup(&[]).exits(0).stdout.contains("nothing new"));
}

#[test]
fn a_replica_without_the_new_column_is_told_how_to_add_it() {
    let pair = published(
        "ALTER TABLE notes ADD \"The Tag\" varchar(20) NOT NULL DEFAULT 'none'",
        "INSERT INTO notes VALUES (3, '2024-05-03 12:00+00', 'three', 'new')",
    );
    pair.replica.psql(NOTES);
    let refused = pair.catchup(&[]).exits(9);
    for words in [
        "2024-05-03 does not fit the replica",
        "alter table \"public\".\"notes\" add column \"The Tag\" character varying(20)",
        "NOT NULL on the source",
    ] {
        assert!(refused.stderr.contains(words), "{words} in\n{refused}");
    }
    mended_as_told(&pair);
    assert_eq!(rows(&pair.replica, "notes").lines().count(), 3);
}

#[test]
fn new_columns_are_added_where_the_configuration_says_so() {
    let mut pair = published(
        "CREATE TYPE mood AS ENUM ('up', 'down');
         ALTER TABLE notes ADD tag varchar(20) NOT NULL DEFAULT 'none', ADD mood mood",
        "INSERT INTO notes VALUES (3, '2024-05-03 12:00+00', 'three', 'new', 'up')",
    );
    pair.replica.psql(NOTES);
    pair.configure(NOTES_TABLE);
    pair.scene.edit_configuration("[replica]\n", "[replica]\nnew-columns = \"add\"\n");
    // It is the replica's owner who makes types.
    let before = pair.replica_rows();
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("\"mood\" (public.mood), a type that the replica does not have"), "{refused}");
    assert_eq!(pair.replica_rows(), before);
    pair.replica.psql("CREATE TYPE mood AS ENUM ('up', 'down')");
    let planned = pair.report(&["--dry-run"], 0);
    assert_eq!(planned["added"], serde_json::json!(["public.notes.tag", "public.notes.mood"]));
    assert_eq!(pair.replica.psql("SELECT count(*) FROM pg_attribute WHERE attname = 'tag'"), "0");
    let ran = pair.catchup(&[]).exits(0);
    assert!(ran.stdout.contains("added public.notes.tag, public.notes.mood"), "{ran}");
    assert_eq!(pair.replica.psql("SELECT id, tag, mood FROM notes ORDER BY id"), "1||\n2||\n3|new|up");
    let columns = "SELECT format_type(atttypid, atttypmod), attnotnull FROM pg_attribute WHERE attname = 'tag'";
    assert_eq!(pair.replica.psql(columns), "character varying(20)|f");
}

#[test]
fn check_says_what_catchup_says_of_a_new_column() {
    let mut pair = published(
        "ALTER TABLE notes ADD tag text",
        "INSERT INTO notes VALUES (3, '2024-05-03 12:00+00', 'three', 'new')",
    );
    pair.replica.psql(NOTES);
    let statement = "alter table \"public\".\"notes\" add column \"tag\" text";
    assert!(pair.scene.pgslice(&["check"]).exits(9).stdout.contains(statement));
    pair.configure(NOTES_TABLE);
    pair.scene.edit_configuration("[replica]\n", "[replica]\nnew-columns = \"add\"\n");
    let ran = pair.scene.pgslice(&["check"]).exits(0);
    assert!(ran.stdout.contains("has no column \"tag\", which the next catchup adds"), "{ran}");
}

#[test]
fn days_from_before_and_after_a_rename_load_in_one_catchup() {
    for renamed_on_the_replica in [true, false] {
        let mut pair = published(
            "ALTER TABLE notes RENAME body TO words",
            "INSERT INTO notes VALUES (3, '2024-05-03 12:00+00', 'three')",
        );
        let (own, rename) =
            if renamed_on_the_replica { ("words", "body = \"words\"") } else { ("body", "words = \"body\"") };
        pair.replica.psql(&NOTES.replace("body", own));
        pair.configure(&format!("{NOTES_TABLE}rename = {{ {rename} }}\n"));
        pair.catchup(&[]).exits(0);
        assert_eq!(
            pair.replica.psql(&format!("SELECT string_agg({own}, ' ' ORDER BY id) FROM notes")),
            "one two three"
        );
        assert_eq!(pair.ledger("origin"), "loaded\nloaded\nloaded");
    }
}

#[test]
fn rows_under_a_new_name_are_the_same_rows() {
    let renamed =
        "[[table]]\nname = \"notes\"\ntime-column = \"written\"\nrename = { body = \"words\", at = \"written\" }\n";
    let mut pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00+00', 'one'), (2, '2024-05-02 12:00+00', 'two')");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.source.psql(
        "ALTER TABLE notes RENAME body TO words; ALTER TABLE notes RENAME at TO written;
         INSERT INTO notes VALUES (3, '2024-05-03 12:00+00', 'three')",
    );
    pair.configure(renamed);
    pair.export("2024-05-03");
    // A restored copy is adopted unread, whichever of the names its days carry.
    pair.replica.psql(&NOTES.replace("body", "words").replace(" at ", " written "));
    pair.replica.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00+00', 'one'), (2, '2024-05-02 12:00+00', 'two')");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.ledger("origin"), "adopted\nadopted\nloaded");
    // A day that is published again under the new names has the rows that are here.
    pair.export("2024-05-01");
    let before = pair.replica.psql("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM notes");
    let report = pair.report(&[], 0);
    assert_eq!(report["days"][0]["tables"]["public.notes"]["origin"], "unchanged", "{report}");
    assert_eq!(pair.replica.psql("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM notes"), before);
}

#[test]
fn a_rename_that_nobody_was_told_of_is_refused_with_how_to_say_it() {
    let mut pair = Pair::of_notes(1);
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source
        .psql("ALTER TABLE notes RENAME body TO words; INSERT INTO notes VALUES (201, '2024-05-02 12:00Z', 'x')");
    pair.export("2024-05-02");
    let before = pair.replica_state();
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("rename = { \"body\" = \"words\" }"), "{refused}");
    assert!(refused.stderr.contains("rename column \"body\" to \"words\""), "{refused}");
    assert_eq!(pair.replica_state(), before);
    pair.replica.psql("ALTER TABLE notes RENAME COLUMN body TO words");
    pair.configure(&format!("{NOTES_TABLE}rename = {{ \"body\" = \"words\" }}\n"));
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_dropped_column_is_refused_where_it_was_carried_and_both_ways_out_work() {
    for way in ["drop column", "rename column"] {
        let pair = Pair::of_notes(1);
        pair.export("2024-05-01");
        pair.catchup(&[]).exits(0);
        pair.source.psql("ALTER TABLE notes DROP body; INSERT INTO notes VALUES (201, '2024-05-02 12:00Z')");
        pair.export("2024-05-02");
        let before = pair.replica_state();
        let refused = pair.catchup(&[]).exits(9);
        assert!(refused.stderr.contains("no longer carries column \"body\""), "{refused}");
        assert_eq!(pair.replica_state(), before);
        let (_, told) = refused.stderr.split_once(&format!("alter table \"public\".\"notes\" {way}")).expect("told");
        let rest = told.split([';', '\n']).next().expect("a statement");
        pair.replica.psql(&format!("alter table \"public\".\"notes\" {way}{rest}"));
        pair.catchup(&[]).exits(0);
        assert_eq!(pair.replica.psql("SELECT count(*) FROM notes"), "6");
        if way == "rename column" {
            assert_eq!(pair.replica.psql("SELECT count(old_body) FROM notes"), "5", "the old values are kept");
        }
        // From now on it is no column of the feed's.
        pair.source.psql("INSERT INTO notes VALUES (301, '2024-05-03 12:00Z')");
        pair.export("2024-05-03");
        pair.catchup(&[]).exits(0);
    }
}

#[test]
fn days_from_before_and_after_a_column_was_dropped_load_in_one_catchup() {
    for format in ["text", "csv", "binary"] {
        for with_the_column in [false, true] {
            let table = format!("{NOTES_TABLE}format = \"{format}\"\n");
            let pair = Pair::with_empty_replica("", &table);
            pair.source.psql("CREATE TABLE notes (id int PRIMARY KEY, gone jsonb, at timestamptz NOT NULL, body text)");
            pair.source.psql(
                "INSERT INTO notes VALUES (1, '{\"a\": [1, \"x\\ty\"]}', '2024-05-01 12:00+00', 'one'),
                     (2, NULL, '2024-05-02 12:00+00', E'two\\nlines')",
            );
            pair.export_range("2024-05-01", "2024-05-02");
            pair.source
                .psql("ALTER TABLE notes DROP gone; INSERT INTO notes VALUES (3, '2024-05-03 12:00+00', 'three')");
            pair.export("2024-05-03");
            if with_the_column {
                // As restored from an old dump.
                pair.replica
                    .psql("CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, body text, gone jsonb)");
            }
            let ran = pair.catchup(&["--create"]).exits(0);
            assert_eq!(ran.stdout.contains("left out public.notes.gone"), !with_the_column, "{ran}");
            let carried = "(SELECT id, at, body FROM notes)";
            assert_eq!(rows(&pair.replica, carried), rows(&pair.source, carried), "{format}");
            if with_the_column {
                assert_eq!(pair.replica.psql("SELECT count(gone) FROM notes"), "1");
            }
            assert!(pair.catchup(&[]).exits(0).stdout.contains("nothing new"));
            // Revised days of both kinds are merged in one transaction.
            pair.source.psql("UPDATE notes SET body = body || '!' WHERE id IN (2, 3)");
            pair.export_range("2024-05-02", "2024-05-03");
            pair.catchup(&[]).exits(0);
            assert_eq!(rows(&pair.replica, carried), rows(&pair.source, carried), "{format}");
        }
    }
}

#[test]
fn a_new_column_is_not_left_out_where_only_an_older_day_was_read_again() {
    let pair = Pair::of_notes(3);
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.source.psql("ALTER TABLE notes ADD tag text; UPDATE notes SET tag = 'new' WHERE at < '2024-05-02 00:00Z'");
    pair.export("2024-05-01");
    mended_as_told(&pair);
    pair.assert_equal("notes");
}

#[test]
fn a_table_is_made_of_the_day_that_was_read_last() {
    let pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00+00', 'one'), (2, '2024-05-02 12:00+00', 'two')");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.source.psql("ALTER TABLE notes ADD tag text; UPDATE notes SET tag = 'new' WHERE id = 1");
    pair.export("2024-05-01");
    let ran = pair.catchup(&["--create"]).exits(0);
    assert!(!ran.stdout.contains("left out"), "{ran}");
    pair.assert_equal("notes");
}

#[test]
fn days_with_a_column_that_was_left_out_are_loaded_again_once_the_replica_has_it() {
    let mut pair = published("ALTER TABLE notes DROP body", "INSERT INTO notes VALUES (3, '2024-05-03 12:00+00')");
    let ran = pair.catchup(&["--create"]).exits(0);
    assert!(ran.stdout.contains("left out public.notes.body"), "{ran}");
    pair.replica.psql("ALTER TABLE notes ADD words text");
    assert!(pair.catchup(&[]).exits(0).stdout.contains("nothing new"));
    pair.configure(&format!("{NOTES_TABLE}rename = {{ body = \"words\" }}\n"));
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT id, words FROM notes ORDER BY id"), "1|one\n2|two\n3|");
    assert!(pair.catchup(&[]).exits(0).stdout.contains("nothing new"));
}

#[test]
fn a_dropped_column_that_was_not_null_is_kept_as_told() {
    let pair = Pair::new(&NOTES.replace("body text", "body text NOT NULL"), NOTES_TABLE);
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00+00', 'one')");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source.psql("ALTER TABLE notes DROP body; INSERT INTO notes VALUES (2, '2024-05-02 12:00Z')");
    pair.export("2024-05-02");
    let refused = pair.catchup(&[]).exits(9);
    pair.replica.psql(&statements(&refused, "under another name: ")[0]);
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT id, old_body FROM notes ORDER BY id"), "1|one\n2|");
}

#[test]
fn a_day_with_a_column_that_is_left_out_must_still_be_what_was_published() {
    let pair = published("ALTER TABLE notes DROP body", "INSERT INTO notes VALUES (3, '2024-05-03 12:00+00')");
    pair.forge("2024-05-01", |manifest| {
        manifest["slices"][0]["parts"][0]["sha256"] = "0".repeat(64).into();
    });
    pair.catchup(&["--create"]).exits(4);
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes"), "0");
}

#[test]
fn days_with_and_without_a_column_that_are_revised_together_keep_its_values() {
    let pair = Pair::new(NOTES, NOTES_TABLE);
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00+00', 'one'), (2, '2024-05-02 12:00+00', 'two')");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    // Day one is published again without the new column, day two with it; both are pending together.
    pair.source.psql("UPDATE notes SET body = 'uno' WHERE id = 1");
    pair.export("2024-05-01");
    pair.source.psql("ALTER TABLE notes ADD tag text; UPDATE notes SET tag = 'new', body = 'dos' WHERE id = 2");
    pair.export("2024-05-02");
    pair.replica.psql("ALTER TABLE notes ADD tag text; UPDATE notes SET tag = 'own' WHERE id = 1");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT id, body, tag FROM notes ORDER BY id"), "1|uno|own\n2|dos|new");
}

#[test]
fn days_from_before_and_after_a_column_was_widened_load_in_one_catchup() {
    let source = "CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, size smallint, word varchar(5))";
    for replica in [None, Some(source)] {
        let pair = Pair::with_empty_replica(source, NOTES_TABLE);
        pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00+00', 7, 'short')");
        pair.export("2024-05-01");
        pair.source.psql(
            "ALTER TABLE notes ALTER id TYPE bigint, ALTER size TYPE int, ALTER word TYPE text;
             INSERT INTO notes VALUES (9000000000, '2024-05-02 12:00+00', 70000, 'much longer')",
        );
        pair.export("2024-05-02");
        match replica {
            None => drop(pair.catchup(&["--create"]).exits(0)),
            Some(schema) => {
                pair.replica.psql(schema);
                mended_as_told(&pair);
            }
        }
        pair.assert_equal("notes");
        // The rows of the narrow day are still the feed's: nothing is written again for it.
        pair.replica.psql("DELETE FROM pgslice.ledger");
        pair.catchup(&[]).exits(0);
        assert_eq!(pair.ledger("origin"), "adopted\nadopted");
    }
}

#[test]
fn days_of_types_that_have_nothing_in_common_load_as_text() {
    let pair = published(
        "ALTER TABLE notes ALTER body TYPE int USING length(body)",
        "INSERT INTO notes VALUES (3, '2024-05-03 12:00+00', 33)",
    );
    pair.replica.psql("CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, body int)");
    mended_as_told(&pair);
    assert_eq!(pair.replica.psql("SELECT string_agg(body, ' ' ORDER BY id) FROM notes"), "one two 33");
}

#[test]
fn a_retyped_column_is_mended_as_told() {
    let pair = Pair::new(NOTES, NOTES_TABLE);
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source.psql(
        "ALTER TABLE notes ALTER body TYPE int USING 1, ALTER id TYPE numeric(12,2);
         INSERT INTO notes VALUES (7, '2024-05-02 12:00Z', 5)",
    );
    pair.export("2024-05-02");
    mended_as_told(&pair);
    pair.assert_equal("notes");
}

#[test]
fn a_retyped_column_with_a_default_is_mended_as_told() {
    let pair = Pair::new(&NOTES.replace("body text", "body text DEFAULT 'none'"), NOTES_TABLE);
    pair.source.psql(
        "ALTER TABLE notes ALTER body DROP DEFAULT, ALTER body TYPE int USING 1;
         INSERT INTO notes VALUES (1, '2024-05-01 12:00Z', 5)",
    );
    pair.export("2024-05-01");
    mended_as_told(&pair);
    pair.assert_equal("notes");
}

#[test]
fn a_key_that_foreign_keys_point_at_is_mended_as_told() {
    let pair = Pair::new(NOTES, NOTES_TABLE);
    pair.replica.psql("CREATE TABLE \"The Stars\" (of int REFERENCES notes)");
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00Z', 'one')");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source.psql(
        "ALTER TABLE notes DROP CONSTRAINT notes_pkey, ADD PRIMARY KEY (id, at);
         INSERT INTO notes VALUES (1, '2024-05-02 12:00Z', 'the other one')",
    );
    pair.export("2024-05-02");
    mended_as_told(&pair);
    pair.assert_equal("notes");
}

#[test]
fn a_key_that_tells_more_rows_apart_is_refused_and_mended_as_told() {
    let pair = Pair::new(NOTES, NOTES_TABLE);
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00Z', 'one')");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source.psql(
        "ALTER TABLE notes DROP CONSTRAINT notes_pkey, ADD PRIMARY KEY (id, at);
         INSERT INTO notes VALUES (1, '2024-05-02 12:00Z', 'the other one')",
    );
    pair.export("2024-05-02");
    mended_as_told(&pair);
    pair.assert_equal("notes");
}

#[test]
fn labels_that_the_replica_lacks_are_told_before_any_row_moves_and_added_as_told() {
    let schema = "CREATE TYPE mood AS ENUM ('low', 'high'); CREATE DOMAIN feeling AS mood;
         CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, mood mood, moods mood[], feeling feeling)";
    let pair = Pair::new(schema, NOTES_TABLE);
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00Z', 'low', '{high}', 'low')");
    pair.export("2024-05-01");
    pair.source.psql("ALTER TYPE mood ADD VALUE 'it''s fine' AFTER 'low'");
    pair.source.psql("ALTER TYPE mood ADD VALUE 'none' BEFORE 'low'");
    // A label more makes no day another one.
    let ran = pair.scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    assert!(ran.stdout.contains("1 unchanged"), "{ran}");
    pair.source.psql("INSERT INTO notes VALUES (2, '2024-05-02 12:00Z', 'none', '{it''s fine}', 'it''s fine')");
    pair.export("2024-05-02");
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("add value 'none' before 'low'"), "{refused}");
    assert!(refused.stderr.contains("add value 'it''s fine' after 'low'"), "{refused}");
    mended_as_told(&pair);
    pair.assert_equal("notes");
    assert_eq!(
        pair.replica.psql("SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum"),
        "none,low,it's fine,high"
    );
}

#[test]
fn a_label_under_a_new_name_is_told_with_the_statement_that_renames_it() {
    let schema = "CREATE TYPE mood AS ENUM ('low', 'high');
         CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, mood mood)";
    let pair = Pair::new(schema, NOTES_TABLE);
    pair.source.psql("ALTER TYPE mood RENAME VALUE 'low' TO 'lower'");
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00Z', 'lower')");
    pair.export("2024-05-01");
    let refused = pair.catchup(&[]).exits(9);
    let told = statements(&refused, "run instead: ");
    pair.replica.psql(told[0].split("; mend it").next().expect("a statement"));
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn attributes_that_the_replica_lacks_are_told_before_any_row_moves_and_added_as_told() {
    let schema = "CREATE TYPE place AS (x int, y int);
         CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, place place, places place[])";
    let pair = Pair::new(schema, NOTES_TABLE);
    pair.source.psql("ALTER TYPE place ADD ATTRIBUTE \"the name\" varchar(9)");
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00Z', '(1,2,a)', '{\"(1,2,b)\"}')");
    pair.export("2024-05-01");
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("add attribute \"the name\" character varying(9)"), "{refused}");
    mended_as_told(&pair);
    pair.assert_equal("notes");
}

#[test]
fn a_domain_over_another_type_is_told_before_any_row_moves_and_mended_as_told() {
    let schema = |base: &str| {
        format!(
            "CREATE DOMAIN score AS {base}; CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, score score)"
        )
    };
    let pair = Pair::with_empty_replica(&schema("bigint"), NOTES_TABLE);
    pair.replica.psql(&schema("int"));
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 12:00Z', 9000000000)");
    pair.export("2024-05-01");
    mended_as_told(&pair);
    pair.assert_equal("notes");
}

#[test]
fn everything_that_differs_is_told_at_once_and_nothing_twice() {
    let schema = format!("{NOTES}; CREATE TABLE marks (id int PRIMARY KEY, at timestamptz NOT NULL, note text)");
    let tables = format!("{NOTES_TABLE}[[table]]\nname = \"marks\"\ntime-column = \"at\"\n");
    let pair = Pair::with_empty_replica(&schema, &tables);
    pair.source.psql(
        "INSERT INTO notes SELECT i, '2024-05-01 12:00Z'::timestamptz + i * interval '1 day', 'x' FROM generate_series(0, 2) i",
    );
    pair.export_range("2024-05-01", "2024-05-03");
    pair.replica.psql(
        "CREATE TABLE notes (id smallint PRIMARY KEY, at timestamptz NOT NULL);
         CREATE TABLE marks (id int PRIMARY KEY, at timestamptz NOT NULL)",
    );
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("3 days, 2024-05-01 to 2024-05-03, do not fit the replica"), "{refused}");
    assert_eq!(refused.stderr.matches("mend it: ").count(), 3, "{refused}");
    mended_as_told(&pair);
    pair.assert_equal("notes");
}

#[test]
fn the_publisher_hears_of_changed_columns_once_and_check_says_so_before() {
    let mut pair = Pair::of_notes(1);
    pair.export("2024-05-01");
    pair.source.psql("ALTER TABLE notes ADD x int, ALTER body TYPE varchar(99)");
    let new = "public.notes has a new column \"x\"";
    let checked = pair.scene.pgslice(&["check"]);
    assert!(checked.stdout.contains(new), "{checked}");
    let ran = pair.scene.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
    assert!(ran.stdout.contains(&format!("{new} (published from 2024-05-02 on)")), "{ran}");
    assert!(ran.stdout.contains("publishes column \"body\" with another type"), "{ran}");
    let again = pair.scene.pgslice(&["export", "--date", "2024-05-03"]).exits(0);
    assert!(!again.stdout.contains("column"), "{again}");

    pair.source.psql("ALTER TABLE notes ADD y int");
    pair.configure(&format!("{NOTES_TABLE}columns = [\"id\", \"at\", \"x\"]\n"));
    let ran = pair.scene.pgslice(&["export", "--date", "2024-05-04", "--json"]).exits(0);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let expected = serde_json::json!([
        { "table": "public.notes", "column": "y", "news": "not_published", "from": "2024-05-04" },
        { "table": "public.notes", "column": "body", "news": "gone", "from": "2024-05-04" },
    ]);
    assert_eq!(report["columns"], expected);
}
