//! Reference tables, foreign keys, and what the replica adds of its own.

use crate::pair::{NOTES, NOTES_TABLE, Pair, rows};

const MAIL: &str = "
    CREATE TABLE teams (id int PRIMARY KEY, name text);
    CREATE TABLE users (id int PRIMARY KEY, name text, team int REFERENCES teams);
    CREATE TABLE mails (id int PRIMARY KEY, at timestamptz NOT NULL, sender int NOT NULL REFERENCES users);";
const MAIL_TABLES: &str = "
    [[table]]\nname = \"mails\"\ntime-column = \"at\"
    [[table]]\nname = \"users\"\nrows = \"referenced\"\nreferenced-by = [\"mails.sender\"]\nkey = [\"id\"]
    [[table]]\nname = \"teams\"\nrows = \"referenced\"\nreferenced-by = [\"users.team\"]\nkey = [\"id\"]\n";
const MAIL_ROWS: &str = "
    INSERT INTO teams VALUES (1, 'red'), (2, 'blue'), (3, 'nobody');
    INSERT INTO users VALUES (1, 'ann', 1), (2, 'bob', 2), (3, 'silent', 3);
    INSERT INTO mails VALUES (11, '2024-05-01 01:00+00', 1), (21, '2024-05-02 01:00+00', 2), (22,
        '2024-05-02 02:00+00', 1),
        (31, '2024-05-03 01:00+00', 1);";

fn mail() -> Pair {
    let pair = Pair::new(MAIL, MAIL_TABLES);
    pair.source.psql(MAIL_ROWS);
    pair
}

#[test]
fn parents_come_before_children_and_only_those_that_are_pointed_to() {
    let pair = mail();
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("mails");
    assert_eq!(rows(&pair.replica, "users"), "(1,ann,1)\n(2,bob,2)");
    assert_eq!(rows(&pair.replica, "teams"), "(1,red)\n(2,blue)");
}

#[test]
fn a_foreign_key_of_a_partition_alone_makes_its_table_a_child_too() {
    let pair = Pair::with_empty_replica(MAIL, MAIL_TABLES);
    pair.source.psql(MAIL_ROWS);
    pair.replica.psql(
        "CREATE TABLE teams (id int PRIMARY KEY, name text);
         CREATE TABLE users (id int PRIMARY KEY, name text, team int) PARTITION BY RANGE (id);
         CREATE TABLE users_few PARTITION OF users FOR VALUES FROM (0) TO (1000);
         ALTER TABLE users_few ADD FOREIGN KEY (team) REFERENCES teams;
         CREATE TABLE mails (id int, at timestamptz NOT NULL, sender int NOT NULL, PRIMARY KEY (id, at, sender))
             PARTITION BY RANGE (at);
         CREATE TABLE mails_2024 PARTITION OF mails FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')
             PARTITION BY LIST (sender);
         CREATE TABLE mails_2024_all PARTITION OF mails_2024 DEFAULT;
         ALTER TABLE mails_2024_all ADD FOREIGN KEY (sender) REFERENCES users_few;",
    );
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("mails");
    assert_eq!(rows(&pair.replica, "users"), "(1,ann,1)\n(2,bob,2)");
    assert_eq!(rows(&pair.replica, "teams"), "(1,red)\n(2,blue)");
}

#[test]
fn a_changed_reference_row_comes_with_the_next_day_that_points_to_it() {
    let pair = mail();
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.source
        .psql("UPDATE users SET name = 'anna', team = 2 WHERE id = 1; UPDATE teams SET name = 'navy' WHERE id = 2");
    pair.export("2024-05-03");
    pair.catchup(&[]).exits(0);
    assert_eq!(rows(&pair.replica, "users"), "(1,anna,2)\n(2,bob,2)");
    assert_eq!(rows(&pair.replica, "teams"), "(1,red)\n(2,navy)");
}

#[test]
fn an_older_day_never_takes_a_newer_reference_row_back() {
    let pair = mail();
    pair.export_range("2024-05-01", "2024-05-02");
    pair.source.psql("UPDATE users SET name = 'anna' WHERE id = 1");
    pair.export("2024-05-03");
    pair.catchup(&["--from", "2024-05-03"]).exits(0);
    pair.catchup(&["--from", "2024-05-01"]).exits(0);
    pair.assert_equal("mails");
    assert_eq!(rows(&pair.replica, "users"), "(1,anna,1)\n(2,bob,2)");
}

#[test]
fn a_row_that_was_changed_and_changed_back_is_what_the_last_revision_says() {
    let pair = mail();
    pair.export("2024-05-01");
    pair.source.psql("UPDATE users SET name = 'anna' WHERE id = 1");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT name FROM users WHERE id = 1"), "anna");
    // Day one is published again with the same users, which day two has overwritten.
    pair.source.psql(
        "UPDATE users SET name = 'ann' WHERE id = 1;
         INSERT INTO mails VALUES (12, '2024-05-01 02:00+00', 1)",
    );
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT name FROM users WHERE id = 1"), "ann");
}

#[test]
fn a_carried_reference_row_is_as_new_as_its_day() {
    let pair = mail();
    pair.export("2024-05-01");
    pair.source.psql(
        "UPDATE users SET name = 'robert' WHERE id = 2;
         INSERT INTO mails VALUES (13, '2024-05-01 03:00+00', 2)",
    );
    pair.export("2024-05-01");
    pair.export("2024-05-03");
    // The users of day one are carried now: read before day three, but found equal after it.
    pair.source.psql("DELETE FROM mails WHERE id = 11; INSERT INTO mails VALUES (14, '2024-05-01 04:00+00', 1)");
    pair.export("2024-05-01");
    pair.replica.psql("INSERT INTO teams VALUES (2, 'blue'); INSERT INTO users VALUES (2, 'bob', 2)");
    pair.catchup(&["--allow-gap"]).exits(0);
    assert_eq!(pair.replica.psql("SELECT name FROM users WHERE id = 2"), "robert");
}

#[test]
fn of_two_older_days_the_newer_one_decides_about_a_row_that_the_newest_does_not_have() {
    let pair = mail();
    pair.source.psql("INSERT INTO mails VALUES (12, '2024-05-01 05:00+00', 2)");
    pair.export("2024-05-01");
    pair.source.psql("UPDATE users SET name = 'robert' WHERE id = 2");
    pair.export("2024-05-02");
    pair.export("2024-05-03");
    pair.catchup(&["--from", "2024-05-03"]).exits(0);
    pair.catchup(&["--from", "2024-05-01"]).exits(0);
    assert_eq!(rows(&pair.replica, "users"), "(1,ann,1)\n(2,robert,2)");
}

#[test]
fn a_gap_that_is_filled_later_brings_the_newest_of_what_it_has() {
    let pair = mail();
    pair.export("2024-05-01");
    pair.export("2024-05-03");
    pair.catchup(&["--allow-gap"]).exits(0);
    pair.source.psql("UPDATE users SET name = 'anna' WHERE id = 1");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("mails");
    assert_eq!(
        rows(&pair.replica, "users"),
        "(1,anna,1)\n(2,bob,2)",
        "read after day three, although of an earlier day"
    );
}

#[test]
fn a_whole_reference_table_is_carried_with_each_day() {
    let tables = "
        [[table]]\nname = \"mails\"\ntime-column = \"at\"
        [[table]]\nname = \"users\"\nrows = \"all\"
        [[table]]\nname = \"teams\"\nrows = \"all\"\n";
    let pair = Pair::new(MAIL, tables);
    pair.source.psql(MAIL_ROWS);
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("users");
    pair.assert_equal("teams");
    pair.source.psql("UPDATE users SET name = 'ssh' WHERE id = 3; INSERT INTO users VALUES (4, 'new', 1)");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("users");
    pair.source.psql("DELETE FROM users WHERE id = 4");
    pair.export("2024-05-03");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT id FROM users WHERE id = 4"), "4", "reference rows are never deleted");
}

#[test]
fn swapped_natural_keys_of_reference_rows_arrive() {
    let pair = mail();
    pair.replica.psql("ALTER TABLE users ADD UNIQUE (name) DEFERRABLE");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.source.psql(
        "UPDATE users SET name = CASE id WHEN 1 THEN 'bob' ELSE 'ann' END WHERE id < 3;
         INSERT INTO mails VALUES (32, '2024-05-03 02:00+00', 2)",
    );
    pair.export("2024-05-03");
    pair.catchup(&[]).exits(0);
    assert_eq!(rows(&pair.replica, "users"), "(1,bob,1)\n(2,ann,2)");
}

#[test]
fn child_rows_of_the_replicas_own_survive_merges() {
    let pair = Pair::of_notes(2);
    pair.replica.psql("CREATE TABLE stars (note int REFERENCES notes ON DELETE CASCADE)");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.replica.psql("INSERT INTO stars SELECT id FROM notes");
    pair.source.psql(
        "UPDATE notes SET body = 'x', at = at + interval '1 day' WHERE id IN (101, 102);
         DELETE FROM notes WHERE id = 105",
    );
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(
        pair.replica.psql("SELECT string_agg(note::text, ',' ORDER BY note) FROM stars"),
        "101,102,103,104,201,202,203,204,205",
        "only the star of the note that is gone went with it"
    );
}

#[test]
fn a_delete_that_a_foreign_key_of_the_replica_forbids_applies_nothing_and_says_so() {
    let pair = Pair::of_notes(2);
    pair.replica.psql("CREATE TABLE stars (note int REFERENCES notes)");
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.replica.psql("INSERT INTO stars VALUES (105)");
    pair.source.psql("DELETE FROM notes WHERE id = 105");
    pair.export("2024-05-01");
    let before = pair.replica_state();
    let refused = pair.catchup(&[]);
    assert_ne!(refused.code, 0, "{refused}");
    assert!(refused.stderr.contains("stars"), "{refused}");
    assert_eq!(pair.replica_state(), before);
}

#[test]
fn columns_of_the_replicas_own_keep_their_values_and_take_defaults() {
    let pair = Pair::of_notes(2);
    pair.replica.psql(
        "ALTER TABLE notes ADD seen boolean NOT NULL DEFAULT false,
             ADD words int GENERATED ALWAYS AS (length(body)) STORED,
             ADD shout text;
         CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.shout := upper(new.body);
         RETURN new; END $$;
         CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION shout()",
    );
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.replica.psql("UPDATE notes SET seen = true WHERE id IN (101, 102)");
    pair.source.psql(
        "UPDATE notes SET body = 'longer than before' WHERE id = 101;
         INSERT INTO notes VALUES (106, '2024-05-01 22:00+00', 'new')",
    );
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    assert_eq!(
        pair.replica.psql("SELECT id, seen, words, shout FROM notes WHERE id IN (101, 102, 103, 106) ORDER BY id"),
        "101|t|18|LONGER THAN BEFORE\n102|t|6|NOTE 2\n103|f|6|NOTE 3\n106|f|3|NEW"
    );
}

#[test]
fn a_trigger_that_swallows_rows_is_noticed() {
    let pair = Pair::new(NOTES, NOTES_TABLE);
    pair.replica.psql(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.id = 103 THEN RETURN NULL;
         END IF; RETURN new; END $$;
         CREATE TRIGGER swallow BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION swallow()",
    );
    pair.source.psql(&crate::pair::notes(1));
    pair.export("2024-05-01");
    let before = pair.replica.psql("SELECT count(*) FROM notes");
    let refused = pair.catchup(&[]).exits(4);
    assert!(refused.stderr.contains("the replica took 4 rows, the feed has 5"), "{refused}");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes"), before);
    assert_eq!(pair.ledger("*"), "");
}

#[test]
fn circles_of_foreign_keys_load_when_they_are_deferrable() {
    let schema = "
        CREATE TABLE mails (id int PRIMARY KEY, at timestamptz NOT NULL, thread int NOT NULL);
        CREATE TABLE threads (id int PRIMARY KEY, at timestamptz NOT NULL,
            first int NOT NULL REFERENCES mails DEFERRABLE);
        ALTER TABLE mails ADD FOREIGN KEY (thread) REFERENCES threads DEFERRABLE";
    let tables =
        "[[table]]\nname = \"mails\"\ntime-column = \"at\"\n[[table]]\nname = \"threads\"\ntime-column = \"at\"\n";
    let pair = Pair::new(schema, tables);
    pair.source.psql(
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO mails VALUES (1, '2024-05-01 01:00+00', 1);
         INSERT INTO threads VALUES (1, '2024-05-01 01:00+00', 1); COMMIT",
    );
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("mails");
    pair.assert_equal("threads");
}

#[test]
fn child_rows_that_went_with_a_moved_parent_come_back_with_it() {
    let pair = Pair::new(
        "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz NOT NULL);
         CREATE TABLE children (id int PRIMARY KEY, at timestamptz NOT NULL,
             parent int NOT NULL REFERENCES parents ON DELETE CASCADE);",
        "[[table]]\nname = \"parents\"\ntime-column = \"at\"
         [[table]]\nname = \"children\"\ntime-column = \"at\"\n",
    );
    pair.source.psql(
        "INSERT INTO parents VALUES (1, '2024-05-01 01:00+00'), (2, '2024-05-01 02:00+00'), (3, '2024-05-02 01:00+00');
         INSERT INTO children SELECT 10 + id, at, id FROM parents",
    );
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    // The parent is in day two now; only day one is published again, where its child still is.
    pair.source.psql("UPDATE parents SET at = at + interval '1 day' WHERE id = 2");
    pair.export("2024-05-01");
    let waiting = pair.catchup(&[]).exits(0);
    assert!(waiting.stderr.contains("they wait for it"), "{waiting}");
    assert_eq!(pair.replica.psql("SELECT id FROM children ORDER BY id"), "11\n13");
    assert!(pair.head().to_string().contains("\"revision\":2"));
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("parents");
    pair.assert_equal("children");
    assert!(pair.catchup(&[]).exits(0).stdout.contains("nothing new"));
}

#[test]
fn child_rows_that_went_by_way_of_a_table_of_the_replicas_own_come_back_too() {
    let pair = Pair::new(
        "CREATE TABLE parents (id int PRIMARY KEY, at timestamptz NOT NULL);
         CREATE TABLE children (id int PRIMARY KEY, at timestamptz NOT NULL, parent int NOT NULL);",
        "[[table]]\nname = \"parents\"\ntime-column = \"at\"
         [[table]]\nname = \"children\"\ntime-column = \"at\"\n",
    );
    // Every parent has a row of the replica's own, to which its children belong.
    pair.replica.psql(
        "CREATE TABLE places (parent int PRIMARY KEY REFERENCES parents ON DELETE CASCADE);
         CREATE FUNCTION make_place() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO public.places VALUES (new.id) ON CONFLICT DO NOTHING; RETURN NULL; END $$;
         CREATE TRIGGER make_place AFTER INSERT ON parents FOR EACH ROW EXECUTE FUNCTION make_place();
         ALTER TABLE children ADD FOREIGN KEY (parent) REFERENCES places ON DELETE CASCADE",
    );
    pair.source.psql(
        "INSERT INTO parents VALUES (1, '2024-05-01 01:00+00'), (2, '2024-05-01 02:00+00'), (3, '2024-05-02 01:00+00');
         INSERT INTO children SELECT 10 + id, at, id FROM parents",
    );
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.source.psql("UPDATE parents SET at = at + interval '1 day' WHERE id = 2");
    pair.export("2024-05-01");
    let waiting = pair.catchup(&[]).exits(0);
    assert!(waiting.stderr.contains("they wait for it"), "{waiting}");
    assert_eq!(pair.replica.psql("SELECT id FROM children ORDER BY id"), "11\n13");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("parents");
    pair.assert_equal("children");
    assert!(pair.catchup(&[]).exits(0).stdout.contains("nothing new"));
}
