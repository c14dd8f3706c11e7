//! Partitioned tables on either side, and partitions that catchup makes.

use super::refuses;
use crate::pair::{NOTES, NOTES_TABLE, Pair, notes, rows};

const BY_MONTH: &str = "
    CREATE TABLE notes (id int, at timestamptz NOT NULL, body text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE notes_april PARTITION OF notes FOR VALUES FROM ('2024-04-01 00:00+00') TO ('2024-05-02 00:00+00');
    CREATE TABLE notes_may PARTITION OF notes FOR VALUES FROM ('2024-05-02 00:00+00') TO ('2024-06-01 00:00+00')
        PARTITION BY LIST (id);
    CREATE TABLE notes_may_one PARTITION OF notes_may FOR VALUES IN (201, 202, 301, 302);
    CREATE TABLE notes_may_rest PARTITION OF notes_may DEFAULT;";
/// No partition yet.
const BY_DAY: &str = "
    CREATE TABLE notes (id int, at timestamptz NOT NULL, body text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);";

/// Three days of notes between a source and a replica of these shapes, published.
fn between(source: &str, replica: &str) -> Pair {
    let pair = Pair::with_empty_replica(source, NOTES_TABLE);
    pair.replica.psql(replica);
    pair.source.psql(&notes(3));
    pair.export_range("2024-05-01", "2024-05-03");
    pair
}

fn making(source: &str, replica: &str) -> Pair {
    let pair = between(source, replica);
    make_partitions(&pair);
    pair
}

fn make_partitions(pair: &Pair) {
    pair.scene.edit_configuration("[replica]\n", "[replica]\ncreate-partitions = true\n");
}

fn partitions(pair: &Pair) -> String {
    pair.replica.psql(
        "SELECT c.relname || ' ' || pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i
         JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relispartition AND c.relkind IN ('r', 'p') ORDER BY 1",
    )
}

/// Changes, deletes, adds and moves notes of the first two days, and brings the replica up to that.
#[track_caller]
fn revise(pair: &Pair) {
    pair.source.psql(
        "UPDATE notes SET body = 'changed' WHERE id = 101; DELETE FROM notes WHERE id = 102;
         INSERT INTO notes VALUES (199, '2024-05-01 04:00+00', 'new');
         UPDATE notes SET at = '2024-05-01 09:30+00' WHERE id = 203",
    );
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_partitioned_source_and_a_plain_replica() {
    let pair = between(BY_MONTH, NOTES);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    revise(&pair);
}

#[test]
fn a_plain_source_and_a_partitioned_replica() {
    let pair = between(NOTES, BY_MONTH);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes_may_one"), "4");
    revise(&pair);
}

#[test]
fn partitions_of_different_kinds_on_both_sides() {
    let by_hash = "
        CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, body text) PARTITION BY HASH (id);
        CREATE TABLE notes_0 PARTITION OF notes FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE notes_1 PARTITION OF notes FOR VALUES WITH (MODULUS 2, REMAINDER 1);";
    let pair = between(BY_MONTH, by_hash);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    revise(&pair);
    let pair = between(by_hash, BY_MONTH);
    pair.catchup(&[]).exits(0);
    revise(&pair);
}

#[test]
fn a_partition_can_be_published_as_a_table() {
    let pair = Pair::with_empty_replica(BY_MONTH, "[[table]]\nname = \"notes_april\"\ntime-column = \"at\"\n");
    pair.source.psql(&notes(3));
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&["--create"]).exits(0);
    pair.assert_equal("notes_april");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes_april"), "5");
}

#[test]
fn rows_without_a_partition_are_refused_before_the_first_moves_with_the_statement_that_is_missing() {
    let pair = between(NOTES, BY_DAY);
    let statement = |day: u32| {
        format!(
            "CREATE TABLE \"public\".\"notes_2024_05_0{day}\" PARTITION OF \"public\".\"notes\" \
             FOR VALUES FROM ('2024-05-0{day} 00:00:00+00') TO ('2024-05-0{} 00:00:00+00');",
            day + 1
        )
    };
    let refused = refuses(&pair, 9, &[&statement(1), &statement(2), &statement(3), "no row was moved"]);
    assert!(refused.stderr.contains("create-partitions = true"), "{refused}");
    assert_eq!(pair.ledger("*"), "");
    pair.replica.psql(&[statement(1), statement(2)].concat());
    refuses(&pair, 9, &[&statement(3)]);
    pair.replica.psql(&statement(3));
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_day_without_rows_needs_no_partition() {
    let pair = between(NOTES, BY_DAY);
    pair.source.psql("DELETE FROM notes");
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    assert_eq!(partitions(&pair), "");
}

#[test]
fn partitions_are_made_as_wide_as_their_days() {
    let pair = making(NOTES, BY_DAY);
    pair.replica.psql(
        "ALTER TABLE notes ADD CHECK (id > 0), ALTER body SET DEFAULT 'none', ADD own int GENERATED ALWAYS AS IDENTITY;
         CREATE INDEX ON notes (body)",
    );
    pair.catchup(&[]).exits(0);
    assert_eq!(rows(&pair.replica, "(SELECT id, at, body FROM notes)"), rows(&pair.source, "notes"));
    assert_eq!(
        partitions(&pair),
        "notes_2024_05_01 FOR VALUES FROM ('2024-05-01 00:00:00+00') TO ('2024-05-02 00:00:00+00')\n\
         notes_2024_05_02 FOR VALUES FROM ('2024-05-02 00:00:00+00') TO ('2024-05-03 00:00:00+00')\n\
         notes_2024_05_03 FOR VALUES FROM ('2024-05-03 00:00:00+00') TO ('2024-05-04 00:00:00+00')"
    );
    assert_eq!(pair.replica.psql("SELECT count(*) FROM pg_indexes WHERE tablename = 'notes_2024_05_01'"), "2");
    pair.replica.psql("ALTER TABLE notes DROP own");
    revise(&pair);
    pair.source.psql(&notes(4).replace("INSERT INTO", "DELETE FROM notes; INSERT INTO"));
    pair.export_range("2024-05-01", "2024-05-04");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(partitions(&pair).lines().count(), 4);
}

#[test]
fn a_partition_is_made_in_the_tablespace_of_its_table() {
    let pair = making(NOTES, "");
    let tablespace = format!("Täble \"space {}", pair.replica.name);
    let quoted = format!("\"{}\"", tablespace.replace('"', "\"\""));
    // In the folder of the database, so nothing has to be made outside it.
    pair.replica.psql(&format!("SET allow_in_place_tablespaces = on; CREATE TABLESPACE {quoted} LOCATION ''"));
    pair.replica.psql(&format!("{} TABLESPACE {quoted};", BY_DAY.trim_end().trim_end_matches(';')));
    let ran = pair.catchup(&[]);
    let place = "SELECT DISTINCT coalesce(s.spcname, 'the default') FROM pg_class c
                 LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
                 WHERE c.relname IN ('notes_2024_05_01', 'notes_2024_05_02', 'notes_2024_05_03')";
    let (placed, left, right) = (pair.replica.psql(place), rows(&pair.replica, "notes"), rows(&pair.source, "notes"));
    pair.replica.psql(&format!("DROP TABLE notes; DROP TABLESPACE {quoted}"));
    ran.exits(0);
    assert_eq!(left, right);
    assert_eq!(placed, tablespace);
}

#[test]
fn partitions_of_any_kind_of_time_are_made_where_their_days_are() {
    for (kind, table, value) in [
        ("date", "", "'2024-05-01'::date + i"),
        (
            "timestamp",
            "column-timezone = \"America/New_York\"\n",
            "'2024-05-01 02:00'::timestamp + i * interval '7 hours'",
        ),
        ("bigint", "epoch-unit = \"ms\"\n", "1714521600000 + i * 30000000"),
    ] {
        let plain = format!("CREATE TABLE t (id int, at {kind} NOT NULL, PRIMARY KEY (id, at))");
        let pair = Pair::with_empty_replica(&plain, &format!("[[table]]\nname = \"t\"\ntime-column = \"at\"\n{table}"));
        pair.replica.psql(&format!("{plain} PARTITION BY RANGE (at)"));
        make_partitions(&pair);
        pair.source.psql(&format!("INSERT INTO t SELECT i, {value} FROM generate_series(0, 4) i"));
        pair.export_range("2024-05-01", "2024-05-05");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("t");
        assert!(partitions(&pair).lines().count() >= 2, "{kind}\n{}", partitions(&pair));
    }
}

#[test]
fn a_name_that_is_taken_is_not_taken_again() {
    let pair = making(
        NOTES,
        &format!("{BY_DAY} CREATE TABLE notes_2024_05_01 (i int); CREATE TYPE notes_2024_05_02 AS (i int);"),
    );
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    let made = partitions(&pair);
    let names: Vec<&str> = made.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["notes_2024_05_01_2", "notes_2024_05_02_2", "notes_2024_05_03"]);
}

#[test]
fn names_that_need_quotes_or_are_as_long_as_can_be_get_partitions_too() {
    for name in ["we\"ird Täble.", &"ä".repeat(31), &"x".repeat(63)] {
        let quoted = name.replace('"', "\"\"");
        let plain =
            format!("CREATE SCHEMA \"S c\"; CREATE TABLE \"S c\".\"{quoted}\" (id int, at timestamptz NOT NULL)");
        let tables = format!("[[table]]\nname = '\"S c\".\"{quoted}\"'\ntime-column = \"at\"\n");
        let pair = Pair::with_empty_replica(&plain, &tables);
        pair.replica.psql(&format!("{plain} PARTITION BY RANGE (at)"));
        make_partitions(&pair);
        pair.source.psql(&format!("INSERT INTO \"S c\".\"{quoted}\" VALUES (1, '2024-05-01 01:00+00')"));
        pair.export("2024-05-01");
        pair.catchup(&[]).exits(0);
        pair.assert_equal(&format!("\"S c\".\"{quoted}\""));
        assert_eq!(partitions(&pair).lines().count(), 1);
    }
}

#[test]
fn a_day_that_fails_leaves_no_partition() {
    let pair = making(NOTES, BY_DAY);
    pair.replica.psql("ALTER TABLE notes ADD CONSTRAINT narrow CHECK (id < 300)");
    pair.catchup(&[]).exits(9);
    assert_eq!(partitions(&pair).lines().count(), 2, "those of the days that were applied");
    pair.replica.psql("ALTER TABLE notes DROP CONSTRAINT narrow");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_default_partition_takes_what_no_other_does_unless_partitions_are_to_be_made() {
    let with_default = format!("{BY_DAY} CREATE TABLE rest PARTITION OF notes DEFAULT;");
    let pair = between(NOTES, &with_default);
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*) FROM rest"), "5");
    make_partitions(&pair);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM rest"), "5", "the other days have partitions of their own");
    revise(&pair);
    assert_eq!(partitions(&pair).lines().count(), 3);
}

#[test]
fn rows_in_the_default_partition_stand_in_the_way_of_one_for_their_day() {
    let pair = making(NOTES, &format!("{BY_DAY} CREATE TABLE rest PARTITION OF notes DEFAULT;"));
    pair.replica.psql("INSERT INTO notes VALUES (7, '2024-05-02 07:00+00', 'own')");
    refuses(
        &pair,
        9,
        &["public.notes: 2024-05-02", "default partition \"public\".\"rest\" holds rows", "CREATE TABLE"],
    );
    assert_eq!(partitions(&pair).lines().count(), 1, "nothing was made for the days before, either");
    pair.replica.psql("DELETE FROM rest");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_partition_that_takes_a_part_of_a_day_is_named() {
    let half = format!(
        "{BY_DAY} CREATE TABLE half PARTITION OF notes FOR VALUES FROM (MINVALUE) TO ('2024-05-01 07:00:00.5+00');"
    );
    let pair = making(NOTES, &half);
    let missing = "FOR VALUES FROM ('2024-05-01 07:00:00.500+00') TO ('2024-05-02 00:00:00+00');";
    refuses(&pair, 9, &["\"public\".\"half\" FOR VALUES FROM (MINVALUE)", missing]);
    let created = pair.catchup(&["--dry-run"]).exits(9);
    let statement =
        created.stderr.lines().find_map(|line| line.find("CREATE").map(|at| &line[at..])).expect("a statement");
    pair.replica.psql(statement);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_level_that_is_partitioned_further_is_told_and_not_guessed() {
    let by_month = BY_MONTH.replace("2024-05-02 00:00+00') TO ('2024-06-01", "2024-05-05 00:00+00') TO ('2024-06-01");
    let pair = making(NOTES, &by_month);
    refuses(
        &pair,
        9,
        &["FOR VALUES FROM ('2024-05-02 00:00:00+00') TO ('2024-05-03 00:00:00+00') PARTITION BY LIST (id);"],
    );
    assert_eq!(pair.ledger("*"), "");
}

#[test]
fn an_upper_level_without_any_partition_is_named() {
    let empty = BY_MONTH.split("CREATE TABLE notes_may_one").next().expect("the upper levels");
    let pair = making(NOTES, empty);
    refuses(&pair, 9, &["\"public\".\"notes_may\" is partitioned by LIST (id) and has no partition at all"]);
}

#[test]
fn rows_that_a_list_has_no_place_for_undo_their_day() {
    let some = BY_MONTH.split("CREATE TABLE notes_may_rest").next().expect("all but the default");
    let pair = between(NOTES, some);
    let stopped = pair.catchup(&[]).exits(9);
    assert!(stopped.stderr.contains("no partition of relation \"notes_may\""), "{stopped}");
    assert_eq!(pair.ledger("day"), "2024-05-01");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes"), "5");
    pair.replica.psql("CREATE TABLE notes_may_rest PARTITION OF notes_may DEFAULT");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn readers_of_the_replica_do_not_wait_while_a_day_and_its_partition_are_made() {
    let pair = making(NOTES, BY_DAY);
    pair.replica.psql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END $$;
         CREATE TRIGGER wait AFTER INSERT ON notes FOR EACH STATEMENT EXECUTE FUNCTION wait()",
    );
    let mut running = pair.scene.spawn(&["catchup"]);
    let mut reads = 0;
    while running.is_running() {
        pair.replica.psql("SET lock_timeout = '50ms'; SELECT count(*) FROM notes");
        reads += 1;
    }
    running.wait().exits(0);
    assert!(reads > 3, "it was read {reads} times meanwhile");
    pair.assert_equal("notes");
}

#[test]
fn the_owner_of_a_table_may_make_its_partitions_and_nobody_else() {
    let pair = making(NOTES, &format!("{BY_DAY} CREATE TABLE rest PARTITION OF notes DEFAULT;"));
    let name = format!("owner_{}", pair.replica.name);
    let replica = &pair.replica;
    replica.psql(&format!(
        "CREATE ROLE {name} LOGIN; GRANT ALL ON notes TO {name}; GRANT CREATE ON DATABASE \"{0}\" TO {name};
         GRANT CREATE ON SCHEMA public TO {name}",
        replica.name
    ));
    pair.scene.edit_configuration(&replica.url, &replica.url.replace("user=postgres", &format!("user={name}")));
    let checked = pair.scene.pgslice(&["check"]).exits(6);
    assert!(checked.stdout.contains("this user does not own public.notes"), "{checked}");
    let refused = pair.catchup(&[]).exits(6);
    assert!(refused.stderr.contains("cannot make a partition for 2024-05-01"), "{refused}");
    // ATTACH looks into the default partition.
    replica.psql(&format!("ALTER TABLE notes OWNER TO {name}"));
    let ran = pair.catchup(&[]);
    replica.psql(&format!("REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}; DROP ROLE {name}"));
    ran.exits(0);
    pair.assert_equal("notes");
    assert_eq!(replica.psql("SELECT count(*) FROM rest"), "0");
}
