//! Tables that have no key on the replica.

use crate::pair::{NOTES_TABLE, Pair, rows};

const EVENTS: &str = "CREATE TABLE notes (at timestamptz NOT NULL, body text)";
const ROWS: &str = "INSERT INTO notes SELECT '2024-05-01 00:00+00'::timestamptz + i * interval '4 hours',
         'event ' || i % 3 FROM generate_series(0, 11) i";

fn events() -> Pair {
    let pair = Pair::new(EVENTS, NOTES_TABLE);
    pair.source.psql(ROWS);
    pair
}

fn revised() -> Pair {
    let pair = events();
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.source.psql(
        "DELETE FROM notes WHERE at < '2024-05-01 05:00+00';
         INSERT INTO notes VALUES ('2024-05-01 09:00+00', 'late'), ('2024-05-01 09:00+00', 'late')",
    );
    pair.export("2024-05-01");
    pair
}

#[test]
fn a_revised_window_is_replaced() {
    let pair = revised();
    let second_day = "SELECT string_agg(xmin::text || ctid::text, ',') FROM notes WHERE at >= '2024-05-02 00:00+00'";
    let before = pair.replica.psql(second_day);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(pair.replica.psql(second_day), before);
}

#[test]
fn rows_that_moved_between_two_revised_days_are_neither_lost_nor_doubled() {
    let pair = revised();
    pair.source.psql("UPDATE notes SET at = at + interval '1 day' WHERE body = 'late'");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[track_caller]
fn refuses(pair: &Pair, words: &str) {
    let before = pair.replica_state();
    let refused = pair.catchup(&[]).exits(9);
    for word in [words, "no key to merge by", "add a primary key"] {
        assert!(refused.stderr.contains(word), "{word} in\n{refused}");
    }
    assert_eq!(pair.replica_state(), before);
}

#[test]
fn a_window_that_a_foreign_key_points_at_is_not_replaced() {
    let pair = revised();
    // A unique column that may be NULL is no key to merge by, but one to point at.
    pair.replica.psql(
        "ALTER TABLE notes ADD own int UNIQUE; CREATE TABLE stars (note int REFERENCES notes (own) ON DELETE CASCADE)",
    );
    refuses(&pair, "a foreign key points at it");
}

#[test]
fn a_window_of_partitions_of_which_one_is_pointed_at_by_a_foreign_key_is_not_replaced() {
    let pair = Pair::with_empty_replica("CREATE TABLE notes (id int, at timestamptz NOT NULL)", NOTES_TABLE);
    pair.replica.psql(
        "CREATE TABLE notes (id int, at timestamptz NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE notes_may PARTITION OF notes FOR VALUES FROM ('2024-05-01 00:00+00') TO ('2024-06-01 00:00+00');
         ALTER TABLE notes_may ADD UNIQUE (id);
         CREATE TABLE stars (note int REFERENCES notes_may (id) ON DELETE CASCADE)",
    );
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 01:00+00'), (2, '2024-05-01 02:00+00')");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.replica.psql("INSERT INTO stars VALUES (1)");
    pair.source.psql("INSERT INTO notes VALUES (3, '2024-05-01 03:00+00')");
    pair.export("2024-05-01");
    refuses(&pair, "a foreign key points at it");
}

#[test]
fn a_window_with_columns_of_the_replicas_own_is_not_replaced() {
    let pair = revised();
    pair.replica.psql("ALTER TABLE notes ADD seen boolean");
    refuses(&pair, "columns that the feed does not carry");
}

#[test]
fn a_filtered_window_is_not_replaced() {
    let mut pair = events();
    pair.configure(&format!("[export]\nmax-shrink = \"100%\"\n{NOTES_TABLE}where = \"body <> 'event 1'\"\n"));
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.source.psql("DELETE FROM notes WHERE at < '2024-05-01 03:00+00'");
    pair.export("2024-05-01");
    refuses(&pair, "its slice is filtered");
}

#[test]
fn a_window_that_holds_other_rows_at_first_contact_is_replaced_by_force_only() {
    let pair = events();
    pair.replica.psql("INSERT INTO notes VALUES ('2024-05-01 07:00+00', 'mine')");
    pair.export_range("2024-05-01", "2024-05-02");
    let before = pair.replica_rows();
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("no key to merge by") && refused.stderr.contains("--force"), "{refused}");
    assert_eq!(pair.replica_rows(), before);
    pair.catchup(&["--force"]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_restored_window_is_adopted_without_a_key_too() {
    let pair = events();
    pair.replica.psql(ROWS);
    pair.export_range("2024-05-01", "2024-05-02");
    let before = pair.replica.psql("SELECT string_agg(xmin::text, ',') FROM notes");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.ledger("origin"), "adopted\nadopted");
    assert_eq!(pair.replica.psql("SELECT string_agg(xmin::text, ',') FROM notes"), before);
}

#[test]
fn a_reference_table_without_a_key_is_refused() {
    let schema = "CREATE TABLE kinds (id int PRIMARY KEY, name text);
         CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, kind int)";
    let tables = format!("{NOTES_TABLE}[[table]]\nname = \"kinds\"\nrows = \"all\"\n");
    let pair = Pair::new(schema, &tables);
    pair.source.psql("INSERT INTO kinds VALUES (1, 'a'); INSERT INTO notes VALUES (1, '2024-05-01 01:00+00', 1)");
    pair.replica.psql("ALTER TABLE kinds DROP CONSTRAINT kinds_pkey");
    pair.export("2024-05-01");
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("public.kinds: a reference table needs a primary key"), "{refused}");
    assert_eq!((rows(&pair.replica, "notes"), pair.ledger("*")), (String::new(), String::new()));
}

#[test]
fn a_filtered_slice_never_deletes_what_the_feed_does_not_carry() {
    let mut pair = Pair::of_notes(2);
    pair.configure(&format!("[export]\nmax-shrink = \"100%\"\n{NOTES_TABLE}where = \"id % 2 = 0\"\n"));
    pair.replica.psql("INSERT INTO notes VALUES (101, '2024-05-01 03:00+00', 'own')");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.source.psql("DELETE FROM notes WHERE id = 102; UPDATE notes SET body = 'x' WHERE id = 104");
    pair.export("2024-05-01");
    pair.catchup(&["--force"]).exits(0);
    assert_eq!(
        pair.replica.psql("SELECT id, body FROM notes WHERE id < 200 ORDER BY id"),
        "101|own\n102|note 2\n104|x"
    );
}
