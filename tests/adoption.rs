//! First contact: what a replica that was restored from a dump holds already.

use tempfile::TempDir;

use crate::cluster;
use crate::pair::{NOTES, NOTES_TABLE, Pair, notes, rows};
use crate::scene::Scene;

/// A replica restored from a dump of the middle of day three; since then the source went on to the end of day four.
fn restored() -> Pair {
    let source = cluster::source().create_database("published");
    source.psql(&format!("{NOTES};{}", notes(3)));
    source.psql("DELETE FROM notes WHERE id > 302");
    let folder = TempDir::new().expect("create a temporary folder");
    let archive = folder.path().join("full.dump");
    source.pg_dump(&archive, &[]);
    let replica = cluster::replica().create_database("restored");
    replica.pg_restore(&archive);
    source.psql(&format!("DELETE FROM notes; {}", notes(4)));
    let scene =
        Scene::new(&format!("[export]\nmax-shrink = \"100%\"\n{NOTES_TABLE}")).source(&source).replica(&replica);
    let pair = Pair { source, replica, scene };
    pair.export_range("2024-05-01", "2024-05-04");
    pair
}

#[test]
fn whole_days_of_a_restored_dump_are_adopted_and_the_broken_day_is_merged() {
    let pair = restored();
    let restored_rows = "SELECT string_agg(xmin::text || ctid::text, ',' ORDER BY id) FROM notes WHERE id < 303";
    let before = pair.replica.psql(restored_rows);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(
        pair.ledger("day, origin, keeps_extra_rows"),
        "2024-05-01|adopted|f\n2024-05-02|adopted|f\n2024-05-03|merged|f\n2024-05-04|loaded|f"
    );
    assert_eq!(pair.replica.psql(restored_rows), before, "rows that were there already were not written again");
}

#[test]
fn an_adopted_day_is_not_read_from_the_store() {
    let pair = restored();
    for day in ["2024-05-01", "2024-05-02"] {
        pair.place().remove(&pair.part_key(day, "notes"));
    }
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_day_with_as_many_rows_but_another_value_is_not_adopted() {
    let pair = restored();
    pair.replica.psql("UPDATE notes SET body = 'note 9' WHERE id = 104");
    let report = pair.report(&[], 0);
    assert_eq!(report["days"][0]["tables"]["public.notes"]["origin"], "merged");
    pair.assert_equal("notes");
}

#[test]
fn rows_of_the_replicas_own_are_kept_until_force_deletes_them() {
    let pair = restored();
    pair.replica
        .psql("INSERT INTO notes VALUES (-1, '2024-05-02 05:00+00', 'mine'), (-2, '2024-05-04 05:00+00', 'mine too')");
    let first = pair.catchup(&[]).exits(0);
    assert!(
        first.stderr.contains("2024-05-02 r1 merged: 5 rows (rows that the feed does not know were kept)"),
        "{first}"
    );
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes WHERE id < 0"), "2");
    assert_eq!(rows(&pair.replica, "(SELECT * FROM notes WHERE id > 0)"), rows(&pair.source, "notes"));
    assert_eq!(pair.ledger("keeps_extra_rows"), "f\nt\nf\nt");

    // A later revision of such a day changes and adds, but deletes nothing.
    pair.source.psql(
        "DELETE FROM notes WHERE id = 201; UPDATE notes SET body = 'new' WHERE id = 202;
         INSERT INTO notes VALUES (206, '2024-05-02 20:00+00', 'late')",
    );
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    assert_eq!(
        pair.replica
            .psql("SELECT id, body FROM notes WHERE at::date = '2024-05-02' AND id IN (-1, 201, 202, 206) ORDER BY id"),
        "-1|mine\n201|note 1\n202|new\n206|late"
    );
    assert_eq!(pair.ledger("keeps_extra_rows"), "f\nt\nf\nt");

    // Asked for, it is all of them, whether their day was published again or not.
    pair.source.psql("DELETE FROM notes WHERE id = 203");
    pair.export("2024-05-02");
    pair.catchup(&["--force", "--to", "2024-05-03"]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes WHERE id IN (-1, 201, 203)"), "0");
    assert_eq!(pair.ledger("keeps_extra_rows"), "f\nf\nf\nt");
    pair.catchup(&["--force"]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(pair.ledger("keeps_extra_rows"), "f\nf\nf\nf");
}

#[test]
fn force_at_first_contact_leaves_exactly_the_feeds_rows() {
    let pair = restored();
    pair.replica.psql(
        "INSERT INTO notes VALUES (-1, '2024-05-02 05:00+00', 'mine'), (-2, '2024-05-05 05:00+00',
             'later than the feed')",
    );
    pair.catchup(&["--force"]).exits(0);
    assert_eq!(pair.replica.psql("SELECT id FROM notes WHERE id < 0"), "-2", "no window of the feed holds it");
    assert_eq!(rows(&pair.replica, "(SELECT * FROM notes WHERE id > 0)"), rows(&pair.source, "notes"));
    assert_eq!(pair.ledger("keeps_extra_rows"), "f\nf\nf\nf");
}

#[test]
fn one_row_dated_2031_hides_no_gap() {
    let pair = restored();
    pair.replica.psql("INSERT INTO notes VALUES (-1, '2031-01-01 00:00+00', 'a clock was wrong')");
    pair.catchup(&[]).exits(0);
    assert_eq!(rows(&pair.replica, "(SELECT * FROM notes WHERE id > 0)"), rows(&pair.source, "notes"));
}

#[test]
fn a_restored_or_recreated_table_is_met_anew() {
    let pair = restored();
    pair.catchup(&[]).exits(0);
    pair.replica.psql(&format!("DROP TABLE notes; {NOTES}"));
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(
        pair.ledger("origin, table_oid = 'notes'::regclass").replace('\n', " "),
        "loaded|t loaded|t loaded|t loaded|t"
    );

    // Restored by a dump that has the first two days only.
    pair.replica.psql(
        "ALTER TABLE notes RENAME TO old; CREATE TABLE notes (LIKE old INCLUDING ALL);
         INSERT INTO notes SELECT * FROM old WHERE id < 300; DROP TABLE old",
    );
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(pair.ledger("origin").replace('\n', " "), "adopted adopted loaded loaded");
}

#[test]
fn a_recreated_table_is_filled_again_day_by_day() {
    let pair = restored();
    pair.catchup(&[]).exits(0);
    pair.replica.psql(&format!("DROP TABLE notes; {NOTES}"));
    pair.catchup(&[]).exits(0);
    assert_eq!(
        pair.replica.psql("SELECT count(DISTINCT applied_at) FROM pgslice.ledger"),
        "4",
        "each day is a transaction of its own, as at the first contact"
    );
}

#[test]
fn a_table_recreated_from_an_old_dump_does_not_bridge_what_was_pruned() {
    let pair = restored();
    pair.catchup(&[]).exits(0);
    pair.scene.pgslice(&["prune", "--keep", "2d"]).exits(0);
    // min-complete keeps three days: the 2nd is the oldest now.
    assert_eq!(pair.head()["oldest"], "2024-05-02");
    pair.replica.psql(&format!(
        "DROP TABLE notes; {NOTES}; INSERT INTO notes VALUES (-1, '2024-04-01 00:00+00', 'from an old dump')"
    ));
    let before = pair.replica_rows();
    let refused = pair.catchup(&[]).exits(11);
    assert!(refused.stderr.contains("public.notes has rows from before 2024-05-02"), "{refused}");
    assert_eq!(pair.replica_rows(), before);
}

#[test]
fn a_table_that_is_accepted_later_is_met_on_its_own() {
    let schema = format!("{NOTES}; CREATE TABLE marks (id int PRIMARY KEY, at timestamptz NOT NULL)");
    let marks = "[[table]]\nname = \"marks\"\ntime-column = \"at\"\n";
    let mut pair = Pair::new(&schema, &format!("{NOTES_TABLE}{marks}"));
    pair.source.psql(&format!("{} INSERT INTO marks SELECT id, at FROM notes", notes(3)));
    pair.export_range("2024-05-01", "2024-05-03");
    pair.configure(NOTES_TABLE);
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*) FROM marks"), "0", "not in the replica's configuration");
    let held = pair.replica.psql("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM notes");
    pair.configure(&format!("{NOTES_TABLE}{marks}"));
    pair.catchup(&[]).exits(0);
    pair.assert_equal("marks");
    assert_eq!(pair.replica.psql("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM notes"), held);
}
