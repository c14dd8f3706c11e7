//! Keys whose equality is not that of their bytes.

use crate::pair::{Pair, rows};

/// Mails and the people who sent them, whose names are of a type or collation to be filled in.
fn people(prelude: &str, name: &str) -> Pair {
    let schema = format!(
        "{prelude}
         CREATE TABLE people (name {name} PRIMARY KEY, note text);
         CREATE TABLE mails (id int PRIMARY KEY, at timestamptz NOT NULL, sender {name} NOT NULL REFERENCES people);"
    );
    let tables = "
        [[table]]\nname = \"mails\"\ntime-column = \"at\"
        [[table]]\nname = \"people\"\nrows = \"referenced\"\nreferenced-by = [\"mails.sender\"]\nkey = [\"name\"]\n";
    let pair = Pair::new(&schema, tables);
    pair.source.psql(
        "INSERT INTO people VALUES ('Ann', 'one'), ('bob', 'two');
         INSERT INTO mails VALUES (1, '2024-05-01 01:00+00', 'ANN'), (2, '2024-05-01 02:00+00', 'bob'),
             (3, '2024-05-02 02:00+00', 'bOB')",
    );
    pair
}

const CITEXT: &str = "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext;";
const ICU: &str = "CREATE COLLATION public.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";

/// One person is one row, however the name is written, and is written as the source last did.
fn whatever_the_letters(prelude: &str, name: &str) {
    let pair = people(prelude, name);
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("people");
    pair.assert_equal("mails");

    // Mails point at the people: a row that was deleted and inserted again would be refused.
    pair.source.psql(
        "UPDATE people SET name = 'ANN' WHERE note = 'one';
         UPDATE people SET note = 'changed' WHERE note = 'two';
         INSERT INTO mails VALUES (4, '2024-05-01 03:00+00', 'ann'), (5, '2024-05-01 03:00+00', 'BOB')",
    );
    pair.export("2024-05-01");
    let ran = pair.catchup(&[]).exits(0);
    assert_eq!(rows(&pair.source, "people"), "(ANN,one)\n(bob,changed)");
    pair.assert_equal("people");
    pair.assert_equal("mails");
    assert!(ran.stderr.contains("merged"), "{ran}");
}

#[test]
fn letters_of_another_case_are_one_key_under_citext() {
    whatever_the_letters(CITEXT, "ext.citext");
}

#[test]
fn letters_of_another_case_are_one_key_in_a_domain_over_citext() {
    whatever_the_letters(&format!("{CITEXT} CREATE DOMAIN nick AS ext.citext CHECK (value <> '');"), "nick");
}

#[test]
fn letters_of_another_case_are_one_key_in_a_domain_over_a_domain_over_citext() {
    let domains = "CREATE DOMAIN d1 AS ext.citext; CREATE DOMAIN d2 AS d1 CHECK (value <> '');";
    whatever_the_letters(&format!("{CITEXT} {domains}"), "d2");
}

#[test]
fn letters_of_another_case_are_one_key_under_a_nondeterministic_collation() {
    whatever_the_letters(ICU, "text COLLATE public.ci");
}

/// A table whose key is of `kind`, with rows written, revised, moved and deleted in `values`: seven of them.
fn merges(prelude: &str, kind: &str, values: [&str; 4]) {
    let schema =
        format!("{prelude} CREATE TABLE t (k {kind} NOT NULL PRIMARY KEY, at timestamptz NOT NULL, note text);");
    let pair = Pair::new(&schema, "[[table]]\nname = \"t\"\ntime-column = \"at\"\n");
    let [first, second, third, again] = values;
    pair.source.psql(&format!(
        "INSERT INTO t VALUES ('{first}', '2024-05-01 01:00+00', 'a'), ('{second}', '2024-05-01 02:00+00', 'b'),
             ('{third}', '2024-05-02 02:00+00', 'c')"
    ));
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("t");
    // The first is written in another way, the second goes, the third moves.
    pair.source.psql(&format!(
        "UPDATE t SET k = '{again}' WHERE note = 'a'; DELETE FROM t WHERE note = 'b';
         UPDATE t SET at = '2024-05-01 05:00+00', note = 'moved' WHERE note = 'c'"
    ));
    pair.export_range("2024-05-01", "2024-05-02");
    let ran = pair.catchup(&[]).exits(0);
    assert!(ran.stderr.contains("merged"), "{ran}");
    pair.assert_equal("t");
}

#[test]
fn keys_with_an_equality_outside_pg_catalog_merge() {
    merges(
        "CREATE SCHEMA \"e x\"; CREATE EXTENSION ltree SCHEMA \"e x\";",
        "\"e x\".ltree",
        ["a.b", "a.c", "d", "a.b.c"],
    );
    merges("CREATE EXTENSION hstore;", "hstore", ["a=>1", "b=>2", "c=>NULL", "a=>3"]);
    merges(CITEXT, "ext.citext[]", ["{a,b}", "{c}", "{}", "{A,b}"]);
}

#[test]
fn keys_with_several_ways_to_write_a_value_merge() {
    merges("", "numeric", ["1.0", "2", "3", "1.000"]);
    merges("", "interval", ["1 day", "2 days", "3 days", "24 hours"]);
    merges("", "float8", ["0", "1", "NaN", "-0"]);
    merges("", "jsonb", ["{\"a\": 1}", "[]", "null", "{\"a\": 1.0}"]);
    merges("CREATE TYPE mood AS ENUM ('x', 'y', 'z', 'w');", "mood", ["x", "y", "z", "w"]);
    merges("CREATE TYPE pair AS (a int, b text);", "pair", ["(1,x)", "(2,x)", "(1,)", "(9,y)"]);
    merges("", "int4range", ["[1,5)", "[7,9]", "empty", "[2,5)"]);
}

#[test]
fn a_unique_index_of_another_collation_than_its_column_decides_by_its_own() {
    let schema = format!(
        "{ICU} CREATE TABLE t (k text NOT NULL, at timestamptz NOT NULL, note text);
         CREATE UNIQUE INDEX ON t (k COLLATE public.ci);"
    );
    let pair = Pair::new(&schema, "[[table]]\nname = \"t\"\ntime-column = \"at\"\n");
    pair.source.psql("INSERT INTO t VALUES ('a', '2024-05-01 01:00+00', 'x'), ('b', '2024-05-01 01:00+00', 'y')");
    pair.export("2024-05-01");
    // The replica has a row of its own: without --force rows are merged and none is deleted.
    pair.replica.psql("INSERT INTO t VALUES ('A', '2024-05-01 07:00+00', 'own')");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("t");
}

#[test]
fn an_index_with_further_columns_is_a_key_by_its_own_columns_only() {
    let schema = "CREATE TABLE t (k int NOT NULL, at timestamptz NOT NULL, note text);
                  CREATE UNIQUE INDEX ON t (k) INCLUDE (note);";
    let pair = Pair::new(schema, "[[table]]\nname = \"t\"\ntime-column = \"at\"\n");
    pair.source.psql("INSERT INTO t VALUES (1, '2024-05-01 01:00+00', 'x'), (2, '2024-05-01 01:00+00', NULL)");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.source.psql("UPDATE t SET note = 'z' WHERE k = 2");
    pair.export("2024-05-01");
    let ran = pair.catchup(&[]).exits(0);
    assert!(ran.stderr.contains("merged"), "{ran}");
    pair.assert_equal("t");
}
