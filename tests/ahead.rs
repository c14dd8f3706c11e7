//! What is fetched ahead of its turn: nothing that is wrong with it touches what comes before.

use crate::pair::{Pair, notes, rows};

/// Three published days; the part of the one of that number is damaged in its middle.
fn damaged(day: u32) -> (Pair, String, Vec<u8>) {
    let pair = Pair::of_notes(3);
    pair.export_range("2024-05-01", "2024-05-03");
    let key = pair.part_key(&format!("2024-05-0{day}"), "notes");
    let whole = pair.place().content(&key);
    let mut content = whole.clone();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    pair.place().write(&key, &content);
    (pair, key, whole)
}

#[test]
fn a_damaged_part_of_a_later_day_spoils_no_day_before_it() {
    for day in [2, 3] {
        let (pair, key, whole) = damaged(day);
        pair.catchup(&[]).exits(4);
        let held: Vec<String> = (1..day).map(|day| format!("2024-05-0{day}")).collect();
        assert_eq!(pair.ledger("day"), held.join("\n"));
        let before = format!("(SELECT * FROM notes WHERE at < '2024-05-0{day} 00:00+00')");
        assert_eq!(rows(&pair.replica, "notes"), rows(&pair.source, &before));
        pair.place().write(&key, &whole);
        pair.catchup(&[]).exits(0);
        pair.assert_equal("notes");
    }
}

#[test]
fn a_part_of_a_later_day_that_is_missing_spoils_no_day_before_it() {
    let pair = Pair::of_notes(2);
    pair.export_range("2024-05-01", "2024-05-02");
    let key = pair.part_key("2024-05-02", "notes");
    let whole = pair.place().content(&key);
    pair.place().remove(&key);
    pair.catchup(&[]).exits(4);
    assert_eq!(pair.ledger("day"), "2024-05-01");
    pair.place().write(&key, &whole);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn days_that_turn_out_to_belong_together_are_loaded_from_their_beginning() {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, body text UNIQUE)";
    let pair = Pair::new(schema, crate::pair::NOTES_TABLE);
    pair.source.psql(&notes(1));
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source.psql(
        "UPDATE notes SET body = 'moved away' WHERE id = 101;
         INSERT INTO notes VALUES (201, '2024-05-02 12:00+00', 'note 1')",
    );
    pair.export("2024-05-02");
    pair.export("2024-05-01");
    // The second day was read first, and waits for what the first one lets go of: that was begun with by then.
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(pair.replica.psql("SELECT count(DISTINCT applied_at) FROM pgslice.ledger"), "1");
}
