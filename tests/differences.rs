//! Revised days of which only what differs is staged: the table is the same as if all of it was.

use crate::pair::{NOTES, NOTES_TABLE, Pair, rows};

const DAY: &str = "2024-05-01";

/// One day of notes on both sides.
fn caught_up() -> Pair {
    let pair = Pair::of_notes(1);
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    pair
}

#[track_caller]
fn revise(pair: &Pair, change: &str) {
    pair.source.psql(change);
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn values_that_look_alike_are_told_apart() {
    let pair = caught_up();
    revise(
        &pair,
        r"UPDATE notes SET body = NULL WHERE id = 101; UPDATE notes SET body = '' WHERE id = 102;
          UPDATE notes SET body = '\N' WHERE id = 103; UPDATE notes SET body = E'a\tb\\n\n' WHERE id = 104",
    );
    revise(
        &pair,
        r"UPDATE notes SET body = '' WHERE id = 101; UPDATE notes SET body = NULL WHERE id = 102;
          UPDATE notes SET body = 'N' WHERE id = 103; UPDATE notes SET body = E'a\tb\n\n' WHERE id = 104",
    );
    assert_eq!(pair.replica.psql("SELECT id FROM notes WHERE body IS NULL"), "102");
}

#[test]
fn rows_exchange_everything_but_their_keys() {
    let pair = caught_up();
    revise(
        &pair,
        "UPDATE notes AS one SET at = other.at, body = other.body FROM notes AS other
         WHERE (one.id, other.id) IN ((101, 102), (102, 101))",
    );
}

#[test]
fn rows_that_differ_in_nothing_but_their_keys_come_and_go() {
    let pair = caught_up();
    revise(&pair, "UPDATE notes SET at = '2024-05-01 12:00+00', body = NULL");
    revise(
        &pair,
        "DELETE FROM notes WHERE id IN (102, 104); INSERT INTO notes SELECT 110, at FROM notes WHERE id = 101",
    );
    assert_eq!(pair.replica.psql("SELECT string_agg(id::text, ',' ORDER BY id) FROM notes"), "101,103,105,110");
}

#[test]
fn what_the_replica_changed_by_itself_is_made_right() {
    let pair = caught_up();
    pair.replica.psql(
        "UPDATE notes SET body = 'mine' WHERE id = 103; DELETE FROM notes WHERE id = 104;
         INSERT INTO notes VALUES (199, '2024-05-01 23:00+00', 'mine')",
    );
    revise(&pair, "UPDATE notes SET body = 'changed' WHERE id = 101");
}

#[test]
fn rows_at_equal_places_of_several_partitions_are_told_apart() {
    let pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
    pair.source.psql(&crate::pair::notes(1));
    pair.replica.psql(
        "CREATE TABLE notes (id int, at timestamptz NOT NULL, body text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE morning PARTITION OF notes FOR VALUES FROM (MINVALUE) TO ('2024-05-01 07:00+00');
         CREATE TABLE noon PARTITION OF notes FOR VALUES FROM ('2024-05-01 07:00+00') TO ('2024-05-01 13:00+00');
         CREATE TABLE evening PARTITION OF notes FOR VALUES FROM ('2024-05-01 13:00+00') TO (MAXVALUE)",
    );
    pair.export(DAY);
    pair.catchup(&[]).exits(0);
    let untouched = "SELECT string_agg(xmin::text || ctid::text, ',') FROM notes WHERE id IN (101, 102)";
    let before = pair.replica.psql(untouched);
    revise(
        &pair,
        "DELETE FROM notes WHERE id = 105; UPDATE notes SET body = 'changed' WHERE id = 103;
         UPDATE notes SET at = at - interval '6 hours' WHERE id = 104",
    );
    assert_eq!(pair.replica.psql(untouched), before, "what did not change was not written");
}

#[test]
fn a_trigger_that_changes_a_row_which_was_left_out_does_not_have_its_way() {
    let pair = caught_up();
    pair.replica.psql(
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN UPDATE public.notes SET body = 'meddled with' WHERE id = 103; RETURN NULL; END $$;
         CREATE TRIGGER meddle AFTER DELETE ON notes FOR EACH ROW EXECUTE FUNCTION meddle()",
    );
    revise(&pair, "DELETE FROM notes WHERE id = 105");
}

#[test]
fn every_format_ends_with_the_same_rows() {
    let pairs = ["text", "csv", "binary"].map(|format| {
        let schema = "CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, body text, amount numeric)";
        let pair = Pair::new(schema, &format!("{NOTES_TABLE}format = \"{format}\"\n"));
        pair.source.psql(
            "INSERT INTO notes SELECT i, '2024-05-01 00:00+00'::timestamptz + i * interval '1 minute',
                 CASE WHEN i % 5 > 0 THEN repeat(md5(i::text), i % 40) END, i / 8.0 FROM generate_series(1, 1000) i",
        );
        pair.export(DAY);
        pair.catchup(&[]).exits(0);
        for round in 0..3 {
            revise(
                &pair,
                &format!(
                    "UPDATE notes SET body = md5(body || {round}) WHERE id % 50 = {round};
                     UPDATE notes SET amount = amount * 1.0 WHERE id % 60 = {round};
                     DELETE FROM notes WHERE id % 70 = {round};
                     INSERT INTO notes SELECT i, '2024-05-01 01:00+00', i::text
                     FROM generate_series(2000 + {round} * 10, 2009 + {round} * 10) i"
                ),
            );
        }
        pair
    });
    let of = |pair: &Pair| rows(&pair.replica, "notes");
    assert!(of(&pairs[0]) == of(&pairs[1]) && of(&pairs[0]) == of(&pairs[2]));
}

#[test]
fn what_somebody_writes_on_the_replica_meanwhile_is_no_reason_to_miss_a_row() {
    let pair = caught_up();
    pair.source.psql("DELETE FROM notes WHERE id = 101; UPDATE notes SET body = 'changed' WHERE id = 102");
    pair.export(DAY);
    let replica = &pair.replica;
    let ran = std::thread::scope(|scope| {
        // The row that is to be deleted gets another place, while the catchup waits for it, and another row is gone: the
        // number of rows is as if all was well.
        let other = scope.spawn(|| {
            replica.psql(
                "BEGIN; UPDATE notes SET id = 100101 WHERE id = 101; DELETE FROM notes WHERE id = 104;
                 SELECT pg_sleep(3); COMMIT",
            )
        });
        let writes =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(3)%'
            AND wait_event = 'PgSleep'";
        while replica.psql(writes) != "1" {
            assert!(!other.is_finished(), "it is seen while it sleeps");
        }
        let ran = pair.catchup(&[]);
        other.join().expect("the other one commits");
        ran
    });
    ran.exits(0);
    pair.assert_equal("notes");
}
