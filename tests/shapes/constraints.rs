//! Foreign keys in circles and to the own table, unique and exclusion constraints across days.

use super::refuses;
use crate::pair::Pair;

/// Teams with a captain, who plays in a team.
fn circle(deferrable: &str) -> Pair {
    let schema = format!(
        "CREATE TABLE teams (id int PRIMARY KEY, at timestamptz NOT NULL, captain int);
         CREATE TABLE players (id int PRIMARY KEY, at timestamptz NOT NULL,
             team int NOT NULL REFERENCES teams {deferrable});
         ALTER TABLE teams ADD CONSTRAINT captain FOREIGN KEY (captain) REFERENCES players {deferrable};"
    );
    let tables =
        "[[table]]\nname = \"players\"\ntime-column = \"at\"\n[[table]]\nname = \"teams\"\ntime-column = \"at\"\n";
    let pair = Pair::new(&schema, tables);
    pair.source.psql(
        "INSERT INTO teams VALUES (1, '2024-05-01 01:00+00', NULL), (2, '2024-05-02 01:00+00', NULL);
         INSERT INTO players VALUES (1, '2024-05-01 02:00+00', 1), (2, '2024-05-02 02:00+00', 2),
             (3, '2024-05-01 03:00+00', 2);
         UPDATE teams SET captain = id",
    );
    pair.export_range("2024-05-01", "2024-05-02");
    pair
}

#[test]
fn tables_that_point_at_each_other_are_loaded_when_their_keys_can_wait() {
    let pair = circle("DEFERRABLE");
    // Player 3 of day one plays in a team of day two: both days are one transaction then.
    pair.catchup(&[]).exits(0);
    pair.assert_equal("teams");
    pair.assert_equal("players");
    pair.source.psql("UPDATE teams SET captain = 3 WHERE id = 2; DELETE FROM players WHERE id = 2");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("teams");
    pair.assert_equal("players");
}

#[test]
fn tables_that_point_at_each_other_at_once_are_refused_with_what_to_do() {
    let pair = circle("");
    refuses(&pair, 9, &["foreign key", "alter constraint … deferrable"]);
    pair.replica.psql(
        "ALTER TABLE teams ALTER CONSTRAINT captain DEFERRABLE;
         ALTER TABLE players ALTER CONSTRAINT players_team_fkey DEFERRABLE",
    );
    pair.catchup(&[]).exits(0);
    pair.assert_equal("teams");
    pair.assert_equal("players");
}

#[test]
fn rows_that_point_at_rows_of_their_own_table_come_in_any_order_and_from_any_day() {
    for deferrable in ["", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"] {
        let schema = format!(
            "CREATE TABLE posts (id int PRIMARY KEY, at timestamptz NOT NULL, reply_to int REFERENCES posts {deferrable})"
        );
        let pair = Pair::new(&schema, "[[table]]\nname = \"posts\"\ntime-column = \"at\"\n");
        pair.source.psql(
            "INSERT INTO posts VALUES (1, '2024-05-02 01:00+00', 3), (2, '2024-05-01 01:00+00', 1),
                 (3, '2024-05-01 02:00+00', NULL), (4, '2024-05-01 03:00+00', 4)",
        );
        pair.export_range("2024-05-01", "2024-05-02");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("posts");
        pair.source.psql(
            "UPDATE posts SET reply_to = 3 WHERE id = 2; DELETE FROM posts WHERE id IN (1, 4);
             INSERT INTO posts VALUES (0, '2024-05-01 04:00+00', 2)",
        );
        pair.export_range("2024-05-01", "2024-05-02");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("posts");
    }
}

#[test]
fn a_unique_value_that_went_from_one_day_to_another_finds_its_row() {
    for constraint in ["UNIQUE (seat)", "EXCLUDE (seat WITH =)", "UNIQUE (seat) DEFERRABLE"] {
        let schema = format!(
            "CREATE TABLE seats (id int PRIMARY KEY, at timestamptz NOT NULL, seat int,
                 CONSTRAINT one_each {constraint})"
        );
        let pair = Pair::new(&schema, "[[table]]\nname = \"seats\"\ntime-column = \"at\"\n");
        pair.source.psql(
            "INSERT INTO seats SELECT i, '2024-05-01 01:00+00'::timestamptz + i * interval '12 hours', i * 10
             FROM generate_series(0, 5) i",
        );
        pair.export_range("2024-05-01", "2024-05-03");
        pair.catchup(&[]).exits(0);
        // The seat of day three's row is free for one of day one, whose revision is read first.
        pair.source.psql("DELETE FROM seats WHERE id = 5; INSERT INTO seats VALUES (9, '2024-05-01 09:00+00', 50)");
        pair.export("2024-05-01");
        pair.export("2024-05-03");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("seats");
    }
}

#[test]
fn exchanged_values_need_a_constraint_that_can_wait() {
    for (constraint, deferrable) in [("UNIQUE (seat)", "UNIQUE"), ("EXCLUDE (seat WITH =)", "EXCLUDE")] {
        let schema = format!(
            "CREATE TABLE seats (id int PRIMARY KEY, at timestamptz NOT NULL, seat int,
                 CONSTRAINT one_each {constraint} DEFERRABLE)"
        );
        let pair = Pair::new(&schema, "[[table]]\nname = \"seats\"\ntime-column = \"at\"\n");
        pair.source.psql("INSERT INTO seats SELECT i, '2024-05-01 01:00+00', i FROM generate_series(1, 3) i");
        pair.export("2024-05-01");
        pair.replica.psql(&format!("ALTER TABLE seats DROP CONSTRAINT one_each, ADD CONSTRAINT one_each {constraint}"));
        pair.catchup(&[]).exits(0);
        pair.source.psql("BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE seats SET seat = seat % 3 + 1; COMMIT");
        pair.export("2024-05-01");
        refuses(&pair, 9, &["one_each", "DEFERRABLE"]);
        pair.replica.psql(&format!(
            "ALTER TABLE seats DROP CONSTRAINT one_each, ADD CONSTRAINT one_each {constraint} DEFERRABLE"
        ));
        pair.catchup(&[]).exits(0);
        pair.assert_equal("seats");
        assert!(!deferrable.is_empty());
    }
}

#[test]
fn a_row_that_goes_when_others_no_longer_point_at_it_goes_last() {
    for action in ["", "ON DELETE RESTRICT", "DEFERRABLE"] {
        let schema = format!(
            "CREATE TABLE rooms (id int PRIMARY KEY, at timestamptz NOT NULL);
             CREATE TABLE talks (id int PRIMARY KEY, at timestamptz NOT NULL, room int NOT NULL REFERENCES rooms {action})"
        );
        let tables =
            "[[table]]\nname = \"talks\"\ntime-column = \"at\"\n[[table]]\nname = \"rooms\"\ntime-column = \"at\"\n";
        let pair = Pair::new(&schema, tables);
        pair.source.psql(
            "INSERT INTO rooms SELECT i, '2024-05-01 01:00+00' FROM generate_series(1, 3) i;
             INSERT INTO talks SELECT i, '2024-05-01 02:00+00', i FROM generate_series(1, 3) i",
        );
        pair.export("2024-05-01");
        pair.catchup(&[]).exits(0);
        pair.source.psql("UPDATE talks SET room = 1 WHERE id = 2; DELETE FROM rooms WHERE id = 2");
        pair.export("2024-05-01");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("rooms");
        pair.assert_equal("talks");
        // A row of the replica's own still points at it: then it must stay, and the day is refused.
        pair.replica.psql("INSERT INTO talks VALUES (7, '2024-06-01 01:00+00', 3)");
        pair.source.psql("DELETE FROM talks WHERE id = 3; DELETE FROM rooms WHERE id = 3");
        pair.export("2024-05-01");
        refuses(&pair, 9, &["talks_room_fkey"]);
    }
}
