//! How long values are compressed on a replica: by lz4 where nobody chose, else as somebody chose.

use crate::pair::{NOTES, NOTES_TABLE, Pair};

const DAY: &str = "2024-05-01";

/// One published day of notes that are long enough to be compressed.
fn long_notes() -> Pair {
    let pair = Pair::new(NOTES, NOTES_TABLE);
    pair.source.psql(
        "INSERT INTO notes SELECT i, '2024-05-01 12:00+00', repeat('a long note ' || i, 1000) FROM generate_series(1, 5) i",
    );
    pair.export(DAY);
    pair
}

/// How the bodies are compressed.
fn methods(pair: &Pair) -> String {
    pair.replica.psql("SELECT DISTINCT pg_column_compression(body) FROM notes ORDER BY 1")
}

/// Whether the replica's server can do it otherwise than by pglz.
fn knows_lz4(pair: &Pair) -> bool {
    let sql = "SELECT count(*) FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)";
    pair.replica.psql(sql) == "1"
}

#[test]
fn long_values_are_compressed_by_lz4_where_nobody_chose() {
    let pair = long_notes();
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    if knows_lz4(&pair) {
        assert_eq!(methods(&pair), "lz4");
    }
}

#[test]
fn what_an_operator_chose_for_a_database_or_role_stands() {
    for whose in ["DATABASE %I", "ROLE postgres IN DATABASE %I"] {
        let pair = long_notes();
        if !knows_lz4(&pair) {
            continue;
        }
        let set = format!("ALTER {whose} SET default_toast_compression = 'pglz'");
        pair.replica
            .psql(&format!("DO $$ BEGIN EXECUTE format('{}', current_database()); END $$", set.replace('\'', "''")));
        pair.catchup(&[]).exits(0);
        assert_eq!(methods(&pair), "pglz", "{whose}");
    }
}

#[test]
fn what_a_column_was_given_stands_also_for_rows_that_pass_through_a_stage() {
    let pair = long_notes();
    if !knows_lz4(&pair) {
        return;
    }
    pair.replica.psql("ALTER TABLE notes ALTER COLUMN body SET COMPRESSION pglz");
    pair.catchup(&[]).exits(0);
    assert_eq!(methods(&pair), "pglz");
    pair.source.psql(
        "UPDATE notes SET body = body || 'and longer' WHERE id < 3;
         INSERT INTO notes SELECT 6, at, body FROM notes WHERE id = 5",
    );
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(methods(&pair), "pglz");
}
