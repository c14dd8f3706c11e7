//! Rows that are the same thing under another key: deleted and created again, or with exchanged names.

use crate::pair::{NOTES_TABLE, Pair, rows};

const MAIL: &str = "
    CREATE TABLE users (id int PRIMARY KEY, name text UNIQUE);
    CREATE TABLE mails (id int PRIMARY KEY, at timestamptz NOT NULL, sender int NOT NULL);";
const MAIL_TABLES: &str = "
    [[table]]\nname = \"mails\"\ntime-column = \"at\"
    [[table]]\nname = \"users\"\nrows = \"referenced\"\nreferenced-by = [\"mails.sender\"]\nkey = [\"id\"]\n";
const NATURAL: &str = "natural-key = [\"name\"]\n";

/// Two users who each sent a mail, on both sides; `more` is further schema of the replica.
fn mail(more: &str) -> Pair {
    let pair = Pair::new(MAIL, &format!("{MAIL_TABLES}{NATURAL}"));
    pair.replica.psql(more);
    pair.source.psql(
        "INSERT INTO users VALUES (1, 'ann'), (2, 'bob');
         INSERT INTO mails VALUES (11, '2024-05-01 01:00Z', 1), (12, '2024-05-01 02:00Z', 2)",
    );
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair
}

const SWAP: &str = "BEGIN; UPDATE users SET name = 'x' WHERE id = 1; UPDATE users SET name = 'ann' WHERE id = 2;
    UPDATE users SET name = 'bob' WHERE id = 1; COMMIT;
    INSERT INTO mails VALUES (21, '2024-05-02 01:00Z', 1), (22, '2024-05-02 02:00Z', 2)";
const AGAIN: &str =
    "DELETE FROM mails WHERE sender = 1; DELETE FROM users WHERE id = 1; INSERT INTO users VALUES (7, 'ann');
    INSERT INTO mails VALUES (21, '2024-05-02 01:00Z', 7)";

#[test]
fn exchanged_names_arrive_and_rows_keep_what_the_replica_added() {
    let pair = mail("ALTER TABLE users ADD seen int DEFAULT 0");
    pair.replica.psql("UPDATE users SET seen = id * 10");
    pair.source.psql(SWAP);
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT id, name, seen FROM users ORDER BY id"), "1|bob|10\n2|ann|20");
    pair.assert_equal("mails");
}

#[test]
fn a_row_that_was_created_again_takes_its_name_with_it() {
    let pair = mail("");
    pair.source.psql(AGAIN);
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    assert_eq!(rows(&pair.replica, "users"), "(2,bob)\n(7,ann)");
}

#[test]
fn rows_that_exchange_names_in_a_circle_and_with_a_new_one_arrive() {
    let pair = mail("");
    pair.source.psql("INSERT INTO users VALUES (3, 'eve'); INSERT INTO mails VALUES (13, '2024-05-01 03:00Z', 3);");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source.psql(
        "UPDATE users SET name = 'tmp' WHERE id = 1; UPDATE users SET name = 'ann' WHERE id = 2;
         UPDATE users SET name = 'bob' WHERE id = 3; INSERT INTO users VALUES (4, 'eve');
         INSERT INTO mails SELECT 20 + id, '2024-05-02 01:00Z', id FROM users",
    );
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("users");
}

#[test]
fn foreign_keys_without_an_action_find_the_rows_that_are_back() {
    for deferrable in ["", " DEFERRABLE"] {
        let pair = mail(&format!("ALTER TABLE mails ADD FOREIGN KEY (sender) REFERENCES users{deferrable}"));
        pair.source.psql(SWAP);
        pair.export("2024-05-02");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("users");
        pair.assert_equal("mails");
    }
}

#[test]
fn a_row_that_others_point_at_stays_and_both_keys_are_told() {
    for action in ["", " ON DELETE RESTRICT"] {
        let pair = mail(&format!("ALTER TABLE mails ADD FOREIGN KEY (sender) REFERENCES users{action}"));
        pair.source.psql(AGAIN);
        pair.export("2024-05-02");
        let before = pair.replica_state();
        let refused = pair.catchup(&[]).exits(9);
        assert!(
            refused.stderr.contains("(1) to (7)") && refused.stderr.contains("a foreign key keeps them"),
            "{refused}"
        );
        assert!(!refused.stderr.contains("ann)"), "no values but keys: {refused}");
        assert!(refused.stderr.contains("rows that point at them"), "{refused}");
        assert_eq!(pair.replica_state(), before);
    }
}

#[test]
fn child_rows_never_go_along_with_a_row_that_gives_way() {
    for (action, what) in [("CASCADE", SWAP), ("CASCADE", AGAIN), ("SET NULL", SWAP), ("SET DEFAULT", SWAP)] {
        let pair =
            mail(&format!("CREATE TABLE stars (of int DEFAULT NULL REFERENCES users ON DELETE {action}, given text)"));
        pair.replica.psql("INSERT INTO stars VALUES (1, 'mine')");
        pair.source.psql(what);
        pair.export("2024-05-02");
        let before = pair.replica_state();
        let refused = pair.catchup(&[]).exits(9);
        assert!(refused.stderr.contains("rows of \"public\".\"stars\" would go or change with them"), "{refused}");
        assert_eq!(pair.replica_state(), before, "{action}");
        // Nothing hangs on them any more.
        pair.replica.psql("DELETE FROM stars; INSERT INTO stars VALUES (NULL, 'of nobody')");
        pair.catchup(&[]).exits(0);
        assert_eq!(pair.replica.psql("SELECT count(*) FROM stars"), "1");
    }
}

#[test]
fn an_older_day_takes_no_name_back() {
    let pair = Pair::new(MAIL, &format!("{MAIL_TABLES}{NATURAL}"));
    pair.source
        .psql("INSERT INTO users VALUES (1, 'ann'), (2, 'bob'); INSERT INTO mails VALUES (11, '2024-05-01 01:00Z', 1)");
    pair.export("2024-05-01");
    pair.source.psql(
        "DELETE FROM users WHERE id = 1; INSERT INTO users VALUES (7, 'ann');
         INSERT INTO mails VALUES (21, '2024-05-02 01:00Z', 7)",
    );
    pair.export("2024-05-02");
    pair.catchup(&["--from", "2024-05-02"]).exits(0);
    pair.catchup(&["--from", "2024-05-01"]).exits(0);
    assert_eq!(rows(&pair.replica, "users"), "(7,ann)");
    assert_eq!(rows(&pair.replica, "mails").lines().count(), 2);
    assert!(pair.catchup(&[]).exits(0).stdout.contains("nothing new"));
}

#[test]
fn revised_days_that_are_pending_together_leave_the_name_with_the_newest() {
    let pair = mail("");
    pair.source.psql("INSERT INTO mails VALUES (13, '2024-05-01 05:00Z', 1)");
    pair.export("2024-05-01");
    pair.source.psql(AGAIN);
    pair.source
        .psql("UPDATE users SET name = 'robert' WHERE id = 2; INSERT INTO mails VALUES (23, '2024-05-02 05:00Z', 2)");
    pair.export("2024-05-02");
    pair.source.psql("INSERT INTO mails VALUES (14, '2024-05-01 06:00Z', 2)");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("users");
    pair.assert_equal("mails");
}

#[test]
fn without_a_natural_key_the_refusal_names_it() {
    let mut pair = mail("");
    pair.source.psql(AGAIN);
    pair.export("2024-05-02");
    pair.configure(MAIL_TABLES);
    let before = pair.replica_state();
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("natural-key = [\"name\"] in the [[table]] of public.users"), "{refused}");
    assert_eq!(pair.replica_state(), before);
    pair.configure(&format!("{MAIL_TABLES}{NATURAL}"));
    pair.catchup(&[]).exits(0);
    assert_eq!(rows(&pair.replica, "users"), "(2,bob)\n(7,ann)");
}

#[test]
fn a_natural_key_without_a_unique_index_is_refused_with_the_statement_that_makes_one() {
    let pair = Pair::with_empty_replica(MAIL, &format!("{MAIL_TABLES}{NATURAL}"));
    pair.replica.psql(&MAIL.replace(" UNIQUE", ""));
    pair.source.psql("INSERT INTO users VALUES (1, 'ann'); INSERT INTO mails VALUES (11, '2024-05-01 01:00Z', 1)");
    pair.export("2024-05-01");
    let refused = pair.catchup(&[]).exits(9);
    let (_, statement) = refused.stderr.split_once("mend it: ").expect("a statement");
    pair.replica.psql(statement.lines().next().expect("a line"));
    pair.catchup(&[]).exits(0);
}

const SLUGS: &str = "CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, slug text NOT NULL UNIQUE)";

#[test]
fn rows_of_time_tables_exchange_their_values_too() {
    let pair = Pair::new(SLUGS, &format!("{NOTES_TABLE}natural-key = [\"slug\"]\n"));
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 01:00Z', 'a'), (2, '2024-05-01 02:00Z', 'b')");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source.psql(
        "UPDATE notes SET slug = 'x' WHERE id = 1; UPDATE notes SET slug = 'a' WHERE id = 2;
         UPDATE notes SET slug = 'b' WHERE id = 1",
    );
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_row_that_came_again_on_another_day_leaves_the_day_that_had_it_in_doubt() {
    let pair = Pair::new(SLUGS, &format!("{NOTES_TABLE}natural-key = [\"slug\"]\n"));
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 01:00Z', 'a'), (2, '2024-05-01 02:00Z', 'b')");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source.psql("DELETE FROM notes WHERE id = 1; INSERT INTO notes VALUES (7, '2024-05-02 01:00Z', 'a')");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    let doubted = pair.replica.psql("SELECT day FROM pgslice.ledger WHERE manifest_sha256 = ''");
    assert_eq!(doubted, "2024-05-01", "it no longer has all of its rows");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert!(pair.catchup(&[]).exits(0).stdout.contains("nothing new"));
}

#[test]
fn rows_of_the_replicas_own_stay_where_the_feed_is_met_for_the_first_time_unless_forced() {
    for of_day in ["2024-05-01", "2024-06-01"] {
        let pair = Pair::new(SLUGS, &format!("{NOTES_TABLE}natural-key = [\"slug\"]\n"));
        pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 01:00Z', 'a')");
        pair.export("2024-05-01");
        pair.replica.psql(&format!("INSERT INTO notes VALUES (900, '{of_day} 02:00Z', 'a')"));
        let before = rows(&pair.replica, "notes");
        let refused = pair.catchup(&[]).exits(9);
        assert!(refused.stderr.contains("(900) to (1)") && refused.stderr.contains("--force"), "{refused}");
        assert_eq!(rows(&pair.replica, "notes"), before, "{of_day}");
        pair.catchup(&["--force"]).exits(0);
        pair.assert_equal("notes");
    }
}

#[test]
fn rows_in_windows_that_keep_rows_of_the_replicas_own_stay_too() {
    let pair = Pair::new(SLUGS, &format!("{NOTES_TABLE}natural-key = [\"slug\"]\n"));
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 01:00Z', 'a')");
    pair.export("2024-05-01");
    pair.replica.psql("INSERT INTO notes VALUES (900, '2024-05-01 02:00Z', 'mine')");
    pair.catchup(&[]).exits(0);
    pair.source.psql("INSERT INTO notes VALUES (2, '2024-05-02 01:00Z', 'mine')");
    pair.export("2024-05-02");
    let before = pair.replica_state();
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("(900) to (2)"), "{refused}");
    assert_eq!(pair.replica_state(), before);
}

#[test]
fn rows_that_get_another_name_from_a_later_day_leave_nothing_behind_at_first_contact() {
    let pair = Pair::new(SLUGS, &format!("{NOTES_TABLE}natural-key = [\"slug\"]\n"));
    // As copied before the rows exchanged their names.
    pair.replica.psql("INSERT INTO notes VALUES (5, '2024-05-02 01:00Z', 'a')");
    pair.source.psql("INSERT INTO notes VALUES (1, '2024-05-01 01:00Z', 'a'), (5, '2024-05-02 01:00Z', 'b')");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn rows_of_reference_tables_that_left_are_told() {
    let pair = mail("");
    // The other side of the exchange is on no published day.
    pair.source.psql(&SWAP.replace(", (22, '2024-05-02 02:00Z', 2)", ""));
    pair.export("2024-05-02");
    let ran = pair.catchup(&["--json"]).exits(0);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let expected = serde_json::json!([{ "table": "public.users", "rows": 1, "keys": ["(2)"] }]);
    assert_eq!(report["gave_way"], expected);
    assert!(ran.stderr.contains("public.users: 1 row gave way") && ran.stderr.contains("left: (2)"), "{ran}");
}
