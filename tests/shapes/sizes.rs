//! Tables that are as wide, as long or as many as PostgreSQL lets them be, and those that are empty.

use crate::cluster::Cluster;
use crate::pair::{NOTES_TABLE, Pair, notes};
use crate::scene::Scene;

#[test]
fn a_table_of_sixteen_hundred_columns() {
    let columns: Vec<String> = (3..=1600).map(|i| format!("c{i} \"char\"")).collect();
    let schema = format!("CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL, {})", columns.join(", "));
    let pair = Pair::new(&schema, "[[table]]\nname = \"t\"\ntime-column = \"at\"\n");
    pair.source.psql(
        "INSERT INTO t (id, at, c3, c1600) SELECT i, '2024-05-01 01:00+00'::timestamptz + i * interval '9 hours', 'a', 'z'
         FROM generate_series(0, 4) i",
    );
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("t");
    // There is no room for a column of the stage's own.
    pair.source.psql("UPDATE t SET c1600 = 'y' WHERE id = 1; DELETE FROM t WHERE id = 0");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("t");
    // Two revised days pass through one stage, unless they are brought one by one.
    pair.source.psql("UPDATE t SET c1600 = 'x'");
    pair.export_range("2024-05-01", "2024-05-02");
    let refused = pair.catchup(&[]).exits(9);
    assert!(refused.stderr.contains("1,600 columns") && refused.stderr.contains("--to"), "{refused}");
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("t");
}

#[test]
fn a_row_of_two_hundred_megabytes() {
    let pair = Pair::new(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL, body text)",
        "[[table]]\nname = \"t\"\ntime-column = \"at\"\ncompression-level = 1\n",
    );
    pair.source.psql(
        "INSERT INTO t SELECT i, '2024-05-01 01:00+00', repeat('0123456789', CASE i WHEN 2 THEN 20 << 20 ELSE i END)
         FROM generate_series(1, 3) i",
    );
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    let digests = "SELECT id, length(body), md5(body) FROM t ORDER BY id";
    assert_eq!(pair.replica.psql(digests), pair.source.psql(digests));
    assert_eq!(pair.replica.psql("SELECT max(length(body)) FROM t"), (200_u32 << 20).to_string());
}

#[test]
fn five_hundred_tables_are_one_day() {
    let tables = 1..=500;
    let schema: String =
        tables.clone().map(|i| format!("CREATE TABLE t{i} (id int PRIMARY KEY, at timestamptz NOT NULL);\n")).collect();
    let configured: String =
        tables.clone().map(|i| format!("[[table]]\nname = \"t{i}\"\ntime-column = \"at\"\n")).collect();
    let pair = Pair::new(&schema, &configured);
    let insert: String = tables.map(|i| format!("INSERT INTO t{i} VALUES ({i}, '2024-05-01 01:00+00');\n")).collect();
    pair.source.psql(&insert);
    pair.export("2024-05-01");
    let ran = pair.catchup(&[]).exits(0);
    assert!(ran.stdout.contains("1 day applied, 500 rows"), "{ran}");
    assert_eq!(pair.replica.psql("SELECT * FROM t1 UNION ALL SELECT * FROM t500").lines().count(), 2);
}

#[test]
fn a_server_without_room_for_locks_is_told_which_setting_to_raise() {
    let cluster = Cluster::start();
    let database = cluster.create_database("locks");
    database.psql("ALTER SYSTEM SET max_locks_per_transaction = 10");
    database.psql("ALTER SYSTEM SET max_connections = 20");
    cluster.restart();
    let partitions = |of: &str, range: std::ops::Range<u32>| -> String {
        range.map(|i| format!("CREATE TABLE {of}_{i} PARTITION OF {of} FOR VALUES IN ({i});\n")).collect()
    };
    let table = "(id int, at timestamptz NOT NULL, body text, part int) PARTITION BY LIST (part)";
    database.psql(&format!("CREATE TABLE notes {table};"));
    for start in (0..2000).step_by(40) {
        database.psql(&format!("BEGIN; {} COMMIT", partitions("notes", start..start + 40)));
    }
    let scene = Scene::new(NOTES_TABLE).source(&database);
    let refused = scene.pgslice(&["export", "--date", "2024-05-01"]).exits(5);
    assert!(refused.stderr.contains("max_locks_per_transaction on the source"), "{refused}");
    let checked = scene.pgslice(&["check"]);
    assert!(checked.stdout.contains("max_locks_per_transaction"), "{checked}");
}

#[test]
fn empty_tables_and_tables_without_a_key_are_days_like_others() {
    let pair = Pair::new(
        "CREATE TABLE empty (at timestamptz); CREATE TABLE notes (id int, at timestamptz NOT NULL, body text)",
        &format!("[[table]]\nname = \"empty\"\ntime-column = \"at\"\n{NOTES_TABLE}"),
    );
    pair.source.psql(&notes(2));
    pair.source.psql(&notes(1));
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    pair.assert_equal("empty");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes"), "15", "equal rows are kept apart");
    pair.source.psql(
        "INSERT INTO empty VALUES ('2024-05-01 01:00+00'), ('2024-05-01 01:00+00'); DELETE FROM notes WHERE id = 101",
    );
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    pair.assert_equal("empty");
}

#[test]
fn a_table_without_columns_cannot_be_published() {
    let pair = Pair::new(
        "CREATE TABLE none (); CREATE TABLE computed (a int GENERATED ALWAYS AS (1) STORED)",
        "[[table]]\nname = \"none\"\nrows = \"all\"\n[[table]]\nname = \"computed\"\nrows = \"all\"\n",
    );
    let refused = pair.scene.pgslice(&["export", "--date", "2024-05-01"]).exits(2);
    for table in ["public.none", "public.computed"] {
        assert!(refused.stderr.contains(&format!("table {table}: has no column that could be published")), "{refused}");
    }
}
