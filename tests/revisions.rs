//! Days that were published again: what was added, changed, removed and moved arrives exactly.

use crate::pair::{NOTES, NOTES_TABLE, Pair, rows};

fn caught_up(days: u32) -> Pair {
    let pair = Pair::of_notes(days);
    pair.export_range("2024-05-01", &format!("2024-05-0{days}"));
    pair.catchup(&[]).exits(0);
    pair
}

#[test]
fn a_revision_adds_changes_and_removes_rows() {
    let pair = caught_up(2);
    let untouched = "SELECT string_agg(xmin::text || ctid::text, ',') FROM notes WHERE id IN (103, 104, 201)";
    let before = pair.replica.psql(untouched);
    pair.source.psql(
        "INSERT INTO notes VALUES (106, '2024-05-01 23:59:59.999999+00', 'late');
         UPDATE notes SET body = NULL WHERE id = 102;
         DELETE FROM notes WHERE id IN (101, 105)",
    );
    pair.export("2024-05-01");
    let report = pair.report(&[], 0);
    assert_eq!(report["days"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["days"][0]["revision"], 2);
    assert_eq!(report["days"][0]["tables"]["public.notes"]["origin"], "merged");
    pair.assert_equal("notes");
    assert_eq!(pair.replica.psql(untouched), before, "what did not change was not written");
    assert_eq!(pair.ledger("day, revision"), "2024-05-01|2\n2024-05-02|1");
}

#[test]
fn a_day_that_lost_all_its_rows_is_empty_on_the_replica() {
    let pair = caught_up(2);
    pair.source.psql("DELETE FROM notes WHERE id < 200");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*), min(id) FROM notes"), "5|201");
}

#[test]
fn a_row_that_moved_finds_its_place_whichever_way_it_went() {
    for (moves, from) in [
        ("UPDATE notes SET at = at - interval '1 day' WHERE id = 202", "later to earlier"),
        ("UPDATE notes SET at = at + interval '1 day' WHERE id = 102", "earlier to later"),
        (
            "UPDATE notes SET at = at - interval '1 day' WHERE id = 202;
             UPDATE notes SET at = at + interval '1 day' WHERE id = 102",
            "both ways",
        ),
    ] {
        let pair = caught_up(2);
        pair.source.psql(moves);
        pair.export_range("2024-05-01", "2024-05-02");
        pair.catchup(&[]).exits(0);
        assert_eq!(rows(&pair.replica, "notes"), rows(&pair.source, "notes"), "{from}");
        assert_eq!(pair.replica.psql("SELECT count(DISTINCT applied_at) FROM pgslice.ledger"), "1", "{from}");
    }
}

#[test]
fn a_row_that_moved_into_a_new_day_leaves_its_old_one() {
    let pair = caught_up(1);
    pair.source.psql(
        "UPDATE notes SET at = at + interval '1 day' WHERE id = 102;
         INSERT INTO notes VALUES (201, '2024-05-02 01:00+00')",
    );
    // The new day is published first, and the old one is looked at again later.
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT at::date FROM notes WHERE id = 102"), "2024-05-02");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_row_that_moved_out_and_back_is_not_lost() {
    let pair = caught_up(2);
    pair.source.psql("UPDATE notes SET at = at + interval '1 day' WHERE id = 102");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    // Day one was never published without the row, and now has it again: it is unchanged.
    pair.source.psql("UPDATE notes SET at = at - interval '1 day' WHERE id = 102");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn of_two_days_that_claim_a_row_the_one_that_was_read_last_has_it() {
    let pair = caught_up(2);
    pair.source.psql("INSERT INTO notes VALUES (106, '2024-05-01 20:00+00', 'on its way')");
    pair.export("2024-05-01");
    pair.source.psql("UPDATE notes SET at = at + interval '1 day' WHERE id = 106");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_move_that_was_published_in_halves_ends_where_the_source_has_it() {
    let pair = caught_up(2);
    pair.source.psql("UPDATE notes SET at = at - interval '1 day' WHERE id = 202");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes WHERE id = 202"), "0", "no published day has it now");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn revised_days_pending_together_are_one_transaction() {
    let pair = caught_up(4);
    pair.source.psql("UPDATE notes SET at = at + interval '1 day', body = 'moved' WHERE id IN (101, 201, 301)");
    pair.export_range("2024-05-01", "2024-05-04");
    let before = pair.replica_state();
    // The last of the four is damaged: then none of them is applied.
    let part = pair.part_key("2024-05-04", "notes");
    let bytes = pair.place().content(&part);
    pair.place().write(&part, &bytes[..bytes.len() - 1]);
    pair.catchup(&[]).exits(4);
    assert_eq!(pair.replica_state(), before);
    pair.place().write(&part, &bytes);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(pair.replica.psql("SELECT count(DISTINCT applied_at) FROM pgslice.ledger"), "1");
}

#[test]
fn an_unchanged_slice_of_a_revised_day_is_not_read_again() {
    let schema = format!("{NOTES}; CREATE TABLE marks (id int PRIMARY KEY, at timestamptz NOT NULL)");
    let pair = Pair::new(&schema, &format!("{NOTES_TABLE}[[table]]\nname = \"marks\"\ntime-column = \"at\"\n"));
    pair.source.psql(
        "INSERT INTO notes VALUES (1, '2024-05-01 01:00+00', 'a'); INSERT INTO marks VALUES (1, '2024-05-01 01:00+00')",
    );
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    let marks = pair.replica.psql("SELECT xmin, ctid FROM marks");
    pair.source.psql("UPDATE notes SET body = 'b'");
    pair.export("2024-05-01");
    pair.place().remove(&pair.part_key("2024-05-01", "marks"));
    let report = pair.report(&[], 0);
    assert_eq!(report["days"][0]["tables"]["public.marks"]["origin"], "unchanged");
    assert_eq!(report["days"][0]["tables"]["public.notes"]["origin"], "merged");
    pair.assert_equal("notes");
    assert_eq!(pair.replica.psql("SELECT xmin, ctid FROM marks"), marks);
}

#[test]
fn a_forced_revision_with_equal_rows_changes_only_the_ledger() {
    let pair = caught_up(1);
    let before = pair.replica.psql("SELECT string_agg(xmin::text || ctid::text, ',') FROM notes");
    pair.scene.pgslice(&["export", "--date", "2024-05-01", "--force"]).exits(0);
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.ledger("revision, origin"), "2|unchanged");
    assert_eq!(pair.replica.psql("SELECT string_agg(xmin::text || ctid::text, ',') FROM notes"), before);
}

#[test]
fn a_replica_that_missed_revisions_takes_the_last_one_only() {
    let pair = caught_up(1);
    for body in ["b", "c", "d"] {
        pair.source.psql(&format!("UPDATE notes SET body = '{body}'"));
        pair.export("2024-05-01");
    }
    let report = pair.report(&[], 0);
    assert_eq!(report["days"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["days"][0]["revision"], 4);
    pair.assert_equal("notes");
}

#[test]
fn days_that_were_published_out_of_order_are_applied_in_the_order_they_were_read() {
    let pair = Pair::of_notes(3);
    // Day three is read first; its row then moves to day two, which is read after it.
    pair.export("2024-05-03");
    pair.source.psql("UPDATE notes SET at = at - interval '1 day' WHERE id = 303");
    pair.export("2024-05-02");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT at::date FROM notes WHERE id = 303"), "2024-05-02");
    pair.export("2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_unique_value_that_passed_to_another_row_arrives() {
    let pair =
        Pair::new("CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, slug text UNIQUE)", NOTES_TABLE);
    pair.source.psql(
        "INSERT INTO notes VALUES (1, '2024-05-01 01:00+00', 'a'), (2, '2024-05-01 02:00+00', 'b'), (3,
             '2024-05-02 02:00+00', 'c')",
    );
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    // The slug passes to a new row, within a day and into another one.
    pair.source.psql("DELETE FROM notes WHERE id = 1; INSERT INTO notes VALUES (4, '2024-05-01 03:00+00', 'a')");
    pair.source
        .psql("UPDATE notes SET slug = NULL WHERE id = 2; INSERT INTO notes VALUES (5, '2024-05-02 03:00+00', 'b')");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    // A row of a new day takes the value of a row that is revised along.
    pair.source
        .psql("UPDATE notes SET slug = NULL WHERE id = 3; INSERT INTO notes VALUES (6, '2024-05-03 03:00+00', 'c')");
    pair.export("2024-05-03");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn swapped_unique_values_arrive_where_the_constraint_is_deferrable_and_are_refused_where_not() {
    let pair =
        Pair::new("CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, slug text UNIQUE)", NOTES_TABLE);
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 01:00+00', 'a'), (2, '2024-05-01 02:00+00', 'b')");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source.psql(
        "UPDATE notes SET slug = NULL WHERE id = 1; UPDATE notes SET slug = 'a' WHERE id = 2;
         UPDATE notes SET slug = 'b' WHERE id = 1",
    );
    pair.export("2024-05-01");
    let before = pair.replica_state();
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("notes_slug_key") && refused.stderr.contains("DEFERRABLE"), "{refused}");
    assert_eq!(pair.replica_state(), before);
    pair.replica.psql("ALTER TABLE notes DROP CONSTRAINT notes_slug_key, ADD UNIQUE (slug) DEFERRABLE");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}
