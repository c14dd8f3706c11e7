//! Which rows and columns of which relations an export carries.

use pgslice::manifest::SliceKind;

use crate::cluster::{self, Database};
use crate::published::Published;
use crate::scene::{Ran, Scene};

const DAY: &str = "2024-05-01";

/// A database that a script fills.
fn database(hint: &str, script: &str) -> Database {
    let database = cluster::source().create_database(hint);
    database.psql(script);
    database
}

/// Publishes [`DAY`] of these tables.
#[track_caller]
fn publish(database: &Database, sections: &str) -> (Scene, Published) {
    let scene = Scene::new(sections).source(database);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let published = Published::by(&scene);
    published.is_whole();
    (scene, published)
}

/// Is refused as a mistake of the configuration.
#[track_caller]
fn refused(database: &Database, sections: &str) -> Ran {
    let scene = Scene::new(sections).source(database);
    let ran = scene.pgslice(&["export", "--date", DAY]).exits(2);
    assert!(Published::by(&scene).objects().is_empty());
    ran
}

fn time(name: &str, more: &str) -> String {
    format!("[[table]]\nname = {name:?}\ntime-column = \"at\"\n{more}\n")
}

fn referenced(name: &str, by: &[&str], key: &[&str]) -> String {
    format!("[[table]]\nname = {name:?}\nrows = \"referenced\"\nreferenced-by = {by:?}\nkey = {key:?}\n")
}

fn columns(published: &Published, table: &str) -> Vec<String> {
    published.slice(DAY, table).columns.into_iter().map(|column| column.name).collect()
}

#[test]
fn a_whole_table_goes_with_each_day() {
    let database = database(
        "whole",
        "CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL);
         CREATE TABLE country (code text PRIMARY KEY);
         INSERT INTO event VALUES (1, '2024-05-01 10:00Z'), (2, '2024-05-02 10:00Z');
         INSERT INTO country VALUES ('de'), ('fr')",
    );
    let (scene, published) =
        publish(&database, &format!("{}[[table]]\nname = \"country\"\nrows = \"all\"\n", time("event", "")));
    assert_eq!(published.rows(DAY, "public.country"), ["de", "fr"]);
    let slice = published.slice(DAY, "public.country");
    assert_eq!((slice.kind, slice.time, slice.min_time), (SliceKind::All, None, None));
    database.psql("INSERT INTO country VALUES ('cz')");
    scene.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
    assert_eq!(published.rows("2024-05-02", "public.country"), ["cz", "de", "fr"]);
    // Asked for by name, the day is published with what the table holds today.
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    assert_eq!(published.days()[0], "2024-05-01 r2 final 4");
}

#[test]
fn referenced_rows_are_those_that_the_days_rows_point_to() {
    let database = database(
        "referenced",
        "CREATE TABLE post (id int PRIMARY KEY, at timestamptz NOT NULL, author int, editor int);
         CREATE TABLE vote (id int PRIMARY KEY, at timestamptz NOT NULL, voter int NOT NULL);
         CREATE TABLE person (id int PRIMARY KEY, city_id int);
         CREATE TABLE city (id int PRIMARY KEY, name text);
         INSERT INTO city SELECT n, 'city ' || n FROM generate_series(1, 9) n;
         INSERT INTO person SELECT n, n % 4 + 1 FROM generate_series(1, 50) n;
         INSERT INTO post VALUES (1, '2024-05-01 10:00Z', 1, 5), (2, '2024-05-01 11:00Z', 1, NULL),
                                 (3, '2024-05-02 10:00Z', 3, 30);
         INSERT INTO vote VALUES (1, '2024-05-01 10:00Z', 9), (2, '2024-04-30 10:00Z', 40)",
    );
    let (_scene, published) = publish(
        &database,
        &[
            time("post", ""),
            time("vote", ""),
            referenced("person", &["post.author", "post.editor", "vote.voter"], &["id"]),
            referenced("city", &["person.city_id"], &["id"]),
        ]
        .concat(),
    );
    assert_eq!(published.ids(DAY, "public.person"), ["1", "5", "9"]);
    // 1 % 4 + 1 = 5 % 4 + 1 = 9 % 4 + 1
    assert_eq!(published.ids(DAY, "public.city"), ["2"]);
    assert_eq!(published.slice(DAY, "public.city").kind, SliceKind::Referenced);
}

#[test]
fn keys_of_several_columns_are_followed_in_their_order() {
    let database = database(
        "composite",
        "CREATE TABLE sale (id int PRIMARY KEY, at timestamptz NOT NULL, shop text, item int);
         CREATE TABLE price (item int, shop text, euros int, PRIMARY KEY (item, shop));
         INSERT INTO price VALUES (1, 'a', 10), (1, 'b', 11), (2, 'a', 20), (2, 'b', 21), (3, 'a', 30);
         INSERT INTO sale VALUES (1, '2024-05-01 10:00Z', 'a', 2), (2, '2024-05-01 10:00Z', 'b', 1),
                                 (3, '2024-05-01 10:00Z', 'a', NULL), (4, '2024-05-02 10:00Z', 'a', 3)",
    );
    let (_scene, published) = publish(
        &database,
        &[time("sale", ""), referenced("price", &["sale.(shop, item)"], &["shop", "item"])].concat(),
    );
    assert_eq!(published.rows(DAY, "public.price"), ["1\tb\t11", "2\ta\t20"]);
}

#[test]
fn a_partitioned_table_is_read_with_all_its_partitions() {
    let database = database(
        "partitioned",
        "CREATE TABLE event (id int, at timestamptz NOT NULL, kind text) PARTITION BY LIST (kind);
         CREATE TABLE event_a PARTITION OF event FOR VALUES IN ('a') PARTITION BY RANGE (at);
         CREATE TABLE event_a_may PARTITION OF event_a FOR VALUES FROM ('2024-05-01') TO ('2024-06-01');
         CREATE TABLE event_a_rest PARTITION OF event_a DEFAULT;
         CREATE TABLE event_rest PARTITION OF event DEFAULT;
         INSERT INTO event VALUES (1, '2024-05-01 10:00Z', 'a'), (2, '2024-04-30 10:00Z', 'a'),
                                  (3, '2024-05-01 10:00Z', 'b'), (4, '2024-05-01 11:00Z', NULL)",
    );
    let (_scene, published) = publish(&database, &time("event", ""));
    assert_eq!(published.ids(DAY, "public.event"), ["1", "3", "4"]);
    // A partition is a table, too.
    let (_scene, published) = publish(&database, &time("event_a_may", ""));
    assert_eq!(published.ids(DAY, "public.event_a_may"), ["1"]);
}

#[test]
fn names_that_need_quotes_are_read_and_published() {
    let database = database(
        "names",
        r#"CREATE SCHEMA "Größe ü";
           CREATE TABLE "Größe ü"."user" (
               "select" int PRIMARY KEY, "At Time" timestamptz NOT NULL, "a""b" text, "日本" text
           );
           INSERT INTO "Größe ü"."user" VALUES (1, '2024-05-01 10:00Z', 'x', 'y');
           CREATE TABLE "MixedCase" ("Id" int PRIMARY KEY, at timestamptz NOT NULL, owner int);
           INSERT INTO "MixedCase" VALUES (7, '2024-05-01 10:00Z', 1);
           CREATE TABLE mixedcase (id int, at timestamptz NOT NULL);
           CREATE SCHEMA "a.b"; CREATE TABLE "a.b"."c""d'e" (id int PRIMARY KEY);
           INSERT INTO "a.b"."c""d'e" VALUES (1), (2)"#,
    );
    let sections = r#"
        [[table]]
        name = '"Größe ü"."user"'
        time-column = "At Time"
        [[table]]
        name = "MixedCase"
        time-column = "at"
        [[table]]
        name = "\"a.b\".\"c\"\"d'e\""
        rows = "referenced"
        referenced-by = ["MixedCase.owner", '"Größe ü"."user"."select"']
        key = ["id"]
    "#;
    let (_scene, published) = publish(&database, sections);
    assert_eq!(published.rows(DAY, "Größe ü.user"), ["1\t2024-05-01 10:00:00+00\tx\ty"]);
    assert_eq!(columns(&published, "Größe ü.user"), ["select", "At Time", "a\"b", "日本"]);
    assert_eq!(published.ids(DAY, "public.MixedCase"), ["7"]);
    assert_eq!(published.ids(DAY, "a.b.c\"d'e"), ["1"]);
    for object in published.objects() {
        assert!(object.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-/".contains(&byte)), "{object}");
    }
    assert_eq!(published.checked_sums(DAY).len(), 3);
}

#[test]
fn generated_columns_are_left_to_the_replica_and_identities_are_carried() {
    let database = database(
        "generated",
        "CREATE TABLE event (
             id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             n serial,
             at timestamptz NOT NULL,
             gone text,
             doubled int GENERATED ALWAYS AS (n * 2) STORED
         );
         INSERT INTO event (at) VALUES ('2024-05-01 10:00Z'), ('2024-05-01 11:00Z');
         ALTER TABLE event DROP COLUMN gone",
    );
    let (_scene, published) = publish(&database, &time("event", ""));
    assert_eq!(columns(&published, "public.event"), ["id", "n", "at"]);
    assert_eq!(published.slice(DAY, "public.event").omitted_columns, ["doubled"]);
    assert_eq!(published.rows(DAY, "public.event"), ["1\t1\t2024-05-01 10:00:00+00", "2\t2\t2024-05-01 11:00:00+00"]);
    assert_eq!(published.slice(DAY, "public.event").key, ["id"]);
    let ran = refused(&database, &time("event", "columns = [\"at\", \"doubled\"]"));
    assert!(ran.stderr.contains("column \"doubled\" is generated"), "{ran}");
}

#[test]
fn tables_that_inherit_are_carried_only_on_purpose() {
    let database = database(
        "heirs",
        "CREATE TABLE event (id int, at timestamptz NOT NULL);
         CREATE TABLE special (extra text) INHERITS (event);
         INSERT INTO event VALUES (1, '2024-05-01 10:00Z');
         INSERT INTO special VALUES (2, '2024-05-01 10:00Z', 'x')",
    );
    let ran = refused(&database, &time("event", ""));
    assert!(ran.stderr.contains("has tables that inherit from it (public.special)"), "{ran}");
    let (_scene, published) = publish(&database, &time("event", "inheritance = \"only\""));
    assert_eq!(published.ids(DAY, "public.event"), ["1"]);
    let (_scene, published) = publish(&database, &time("event", "inheritance = \"include\""));
    assert_eq!(published.rows(DAY, "public.event"), ["1\t2024-05-01 10:00:00+00", "2\t2024-05-01 10:00:00+00"]);
}

#[test]
fn views_are_published_only_when_the_configuration_says_so() {
    let database = database(
        "views",
        "CREATE TABLE event (id int, at timestamptz NOT NULL);
         INSERT INTO event VALUES (1, '2024-05-01 10:00Z'), (2, '2024-05-01 10:00Z');
         CREATE VIEW few AS SELECT * FROM event WHERE id > 1;
         CREATE MATERIALIZED VIEW kept AS SELECT * FROM event;
         INSERT INTO event VALUES (3, '2024-05-01 10:00Z')",
    );
    for (name, word) in [("few", "view"), ("kept", "materialized-view")] {
        let ran = refused(&database, &time(name, ""));
        assert!(ran.stderr.contains(&format!("state relation = \"{word}\"")), "{ran}");
    }
    let ran = refused(&database, &time("event", "relation = \"view\""));
    assert!(ran.stderr.contains("is a table: state relation = \"table\""), "{ran}");
    let sections = [time("few", "relation = \"view\""), time("kept", "relation = \"materialized-view\"")].concat();
    let (_scene, published) = publish(&database, &sections);
    assert_eq!(published.ids(DAY, "public.few"), ["2", "3"]);
    assert_eq!(published.ids(DAY, "public.kept"), ["1", "2"]);
}

#[test]
fn a_foreign_table_is_published_only_when_the_configuration_says_so() {
    let far = database(
        "far",
        "CREATE TABLE event (id int, at timestamptz NOT NULL);
         INSERT INTO event VALUES (1, '2024-05-01 10:00Z'), (2, '2024-05-02 10:00Z')",
    );
    let source = cluster::source();
    let database = database(
        "near",
        &format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
                 OPTIONS (host '{}', port '{}', dbname '{}');
             CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'postgres');
             CREATE FOREIGN TABLE event (id int, at timestamptz NOT NULL) SERVER far",
            source.socket_dir().display(),
            source.port(),
            far.name
        ),
    );
    let ran = refused(&database, &time("event", ""));
    assert!(ran.stderr.contains("is a foreign table: state relation = \"foreign-table\""), "{ran}");
    let (_scene, published) = publish(&database, &time("event", "relation = \"foreign-table\""));
    assert_eq!(published.ids(DAY, "public.event"), ["1"]);
}

#[test]
fn a_filter_and_a_choice_of_columns_are_said_in_the_manifest() {
    let database = database(
        "filter",
        "CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL, kind text, secret text);
         CREATE TABLE kind (name text PRIMARY KEY);
         INSERT INTO kind VALUES ('a'), ('b');
         INSERT INTO event VALUES (1, '2024-05-01 10:00Z', 'a', 's'), (2, '2024-05-01 10:00Z', 'b', 's'),
                                  (3, '2024-05-01 10:00Z', NULL, 's')",
    );
    let more = "columns = [\"id\", \"at\"]\nwhere = \"kind <> 'b' OR false -- a comment\"";
    let (_scene, published) =
        publish(&database, &[time("event", more), referenced("kind", &["event.kind"], &["name"])].concat());
    assert_eq!(published.rows(DAY, "public.event"), ["1\t2024-05-01 10:00:00+00"]);
    let slice = published.slice(DAY, "public.event");
    assert!(slice.filtered);
    assert_eq!(slice.omitted_columns, ["kind", "secret"]);
    // Only what the published rows point to, though by a column that is not published.
    assert_eq!(published.rows(DAY, "public.kind"), ["a"]);
    assert!(!published.slice(DAY, "public.kind").filtered);
}

#[test]
fn a_changed_column_makes_a_new_revision() {
    let database = database(
        "columns",
        "CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL);
         INSERT INTO event VALUES (1, '2024-05-01 10:00Z')",
    );
    let (scene, published) = publish(&database, &time("event", ""));
    database.psql("ALTER TABLE event ALTER id TYPE bigint");
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r2 final 1"]);
    assert_eq!(published.slice(DAY, "public.event").columns[0].type_name, "int8");
    database.psql("ALTER TABLE event ADD more text");
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r3 final 1"]);
    assert_eq!(published.rows(DAY, "public.event"), ["1\t2024-05-01 10:00:00+00\t\\N"]);
}

#[test]
fn settings_of_the_source_do_not_reach_the_text_of_its_values() {
    let database = database(
        "settings",
        "CREATE TABLE event (
             id int PRIMARY KEY, at timestamptz NOT NULL, f float8, i interval, b bytea, m money, d date
         );
         INSERT INTO event VALUES
             (1, '2024-05-01 10:00Z', 0.1::float8 + 0.2, '-1 day 02:03:04', '\\x00ff', 1234.5, '2024-12-31')",
    );
    let (scene, published) = publish(&database, &time("event", ""));
    database.psql(&format!(
        "DO $$ DECLARE setting text; BEGIN
             FOREACH setting IN ARRAY ARRAY['DateStyle = ''SQL, DMY''', 'IntervalStyle = ''sql_standard''',
                 'extra_float_digits = ''-5''', 'bytea_output = ''escape''', 'TimeZone = ''America/New_York''',
                 'statement_timeout = ''1ms''', 'default_transaction_read_only = ''on''',
                 'client_encoding = ''LATIN1''', 'search_path = ''nowhere''',
                 'standard_conforming_strings = ''off''', 'row_security = ''on''']
             LOOP EXECUTE 'ALTER DATABASE {} SET ' || setting; END LOOP;
         END $$",
        database.name
    ));
    let ran = scene.pgslice(&["export", "--date", DAY]).exits(0);
    assert_eq!(ran.summary(), "scene: 1 unchanged", "{ran}");
    assert_eq!(
        published.rows(DAY, "public.event"),
        ["1\t2024-05-01 10:00:00+00\t0.30000000000000004\t-1 days +02:03:04\t\\\\x00ff\t$1,234.50\t2024-12-31"]
    );
}

#[test]
fn days_can_be_named_as_query_engines_like_them() {
    let database = database("hive", "CREATE TABLE event (id int, at timestamptz NOT NULL)");
    let scene = Scene::new(&time("event", "")).source(&database);
    scene.edit_configuration("[store]\n", "[store]\nlayout = \"hive\"\n");
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let objects = Published::by(&scene).objects();
    assert!(objects.len() == 3 && objects.iter().all(|object| object.starts_with("day=2024-05-01/r1-")), "{objects:?}");
}
