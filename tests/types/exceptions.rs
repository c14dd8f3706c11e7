//! What a format cannot carry is refused before anything is published, and what a single row makes impossible fails its
//! day and nothing else.

use crate::cluster;
use crate::pair::Pair;
use crate::published::Published;
use crate::scene::Scene;

const DAY: &str = "2024-05-01";

fn table(format: &str, more: &str) -> String {
    format!("[[table]]\nname = \"t\"\ntime-column = \"at\"\nformat = \"{format}\"\n{more}\n")
}

const SCHEMA: &str = "
    CREATE TYPE mood AS ENUM ('sad');
    CREATE TYPE grants AS (who text, what aclitem[]);
    CREATE TYPE feeling AS (what mood);
    CREATE DOMAIN any_grants AS grants;
    CREATE DOMAIN moods AS mood[];
    CREATE TABLE t (
        id int PRIMARY KEY, at timestamptz NOT NULL, acl aclitem, acls aclitem[], deep any_grants, kind regclass,
        kinds regtype[], moods moods, feeling feeling, tree pg_node_tree, fine mood, number oid
    )";

#[test]
fn columns_that_a_format_cannot_carry_are_refused_all_at_once_with_the_next_step() {
    let source = cluster::source().create_database("exceptions");
    source.psql(&format!("{SCHEMA}; INSERT INTO t (id, at) VALUES (1, '{DAY} 10:00Z')"));
    let mut scene = Scene::new(&table("binary", "")).source(&source);
    let refused = scene.pgslice(&["export", "--date", DAY]).exits(2);
    for line in [
        "table public.t: column \"acl\" of type aclitem in binary format: aclitem has no binary form; state format = \"text\" or \"csv\" for this table, or leave the column out with columns",
        "column \"acls\" of type _aclitem in binary format: aclitem has no binary form",
        "column \"deep\" of type public.any_grants in binary format: aclitem has no binary form",
        "column \"kind\" of type regclass in binary format: the binary form of regclass is a number that means something else",
        "column \"kinds\" of type _regtype in binary format: the binary form of regtype is a number",
        "column \"moods\" of type public.moods in binary format: its binary form holds the number of public.mood",
        "column \"feeling\" of type public.feeling in binary format: its binary form holds the number of public.mood",
        "column \"tree\" of type pg_node_tree in binary format: PostgreSQL writes values of pg_node_tree and reads none back",
    ] {
        assert!(refused.stderr.contains(line), "{line}\n{refused}");
    }
    for fine in ["fine", "number", "id", "at"] {
        assert!(!refused.stderr.contains(&format!("column {fine:?}")), "{fine}\n{refused}");
    }
    assert!(Published::by(&scene).objects().is_empty());

    for format in ["text", "csv"] {
        scene.configure(&table(format, ""));
        let refused = scene.pgslice(&["export", "--date", DAY]).exits(2);
        assert_eq!(refused.stderr.matches(" of type ").count(), 1, "{refused}");
        assert!(refused.stderr.contains("column \"tree\" of type pg_node_tree"), "{refused}");
        assert!(refused.stderr.contains("leave the column out with columns"), "{refused}");
    }
    assert!(Published::by(&scene).objects().is_empty());
    scene.configure(&table("binary", "columns = [\"id\", \"at\", \"fine\", \"number\"]"));
    scene.pgslice(&["export", "--date", DAY]).exits(0);
}

#[test]
fn a_pseudo_type_of_a_view_is_refused_in_every_format() {
    let source = cluster::source().create_database("pseudo");
    for format in ["text", "csv", "binary"] {
        let view = format!(
            "[[table]]\nname = \"pg_catalog.pg_stats\"\nrelation = \"view\"\nrows = \"all\"\nkey = [\"tablename\"]\n\
             columns = [\"tablename\", \"most_common_vals\"]\nformat = \"{format}\"\n"
        );
        let scene = Scene::new(&view).source(&source);
        let refused = scene.pgslice(&["export", "--date", DAY]).exits(2);
        assert!(refused.stderr.contains("anyarray is a pseudo-type, and no value of it can be loaded"), "{refused}");
    }
}

#[test]
fn a_name_of_something_that_the_replica_lacks_fails_the_day_there_and_nothing_is_half_loaded() {
    for format in ["text", "csv"] {
        let schema = "CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL, kind regclass)";
        let pair = Pair::new(schema, &table(format, ""));
        pair.source.psql(
            "CREATE TABLE only_here (); INSERT INTO t VALUES (1, '2024-05-01 10:00Z', 't'),
             (2, '2024-05-01 10:00Z', 'only_here')",
        );
        pair.export(DAY);
        let refused = pair.catchup(&[]).exits(9);
        assert!(refused.stderr.contains("2024-05-01 public.t"), "{refused}");
        assert_eq!(pair.replica.psql("SELECT count(*) FROM t"), "0");
        pair.replica.psql("CREATE TABLE only_here ()");
        pair.catchup(&[]).exits(0);
        pair.assert_equal("t");
    }
}

#[test]
fn a_row_that_text_cannot_hold_fails_its_day_with_one_clear_error_and_nothing_is_published() {
    let source = cluster::source().create_database("huge");
    // 600 MB, which are 1.2 GB as text: more than the server's longest message.
    source.psql(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL, b bytea);
         INSERT INTO t SELECT 1, '2024-05-01 10:00Z', convert_to(repeat('x', 600000000), 'UTF8');
         INSERT INTO t VALUES (2, '2024-05-02 10:00Z', 'fine')",
    );
    let scene = Scene::new(&table("text", "")).source(&source);
    let failed = scene.pgslice(&["export", "--date", DAY]).exits(1);
    assert!(failed.stderr.contains("2024-05-01 public.t"), "{failed}");
    assert!(failed.stderr.contains("a row is too long for the server to send in this format"), "{failed}");
    assert_eq!(failed.stderr.matches("ERROR 2024-05-01 failed").count(), 1, "{failed}");
    let published = Published::by(&scene);
    assert!(published.days().is_empty() && published.objects().is_empty());
    assert_eq!(published.staged(), 0);
    scene.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
}

#[test]
fn check_finds_what_an_export_would_refuse_and_what_loads_on_a_condition() {
    let source = cluster::source().create_database("check");
    source.psql("CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL, kind regclass, owner regrole, n oid)");
    let mut scene = Scene::new(&table("binary", "")).source(&source);
    let ran = scene.pgslice(&["check"]).exits(2);
    assert!(
        ran.stdout.contains("FAIL  source: table public.t: column \"kind\" of type regclass in binary format"),
        "{ran}"
    );
    assert!(ran.stdout.contains("column \"owner\" of type regrole in binary format"), "{ran}");
    scene.configure(&table("csv", ""));
    let ran = scene.pgslice(&["check"]).exits(0);
    for line in [
        "WARN  source: table public.t: column \"kind\" of type regclass in csv format: a replica can load it only where it has the same objects of these names",
        "WARN  source: table public.t: column \"owner\" of type regrole in csv format: a replica can load it only where it has the same roles",
    ] {
        assert!(ran.stdout.contains(line), "{line}\n{ran}");
    }
    scene.configure(&table("text", "columns = [\"id\", \"at\", \"n\"]"));
    let ran = scene.pgslice(&["check"]).exits(0);
    assert!(ran.stdout.contains("good  source: 1 table can be published"), "{ran}");
}
