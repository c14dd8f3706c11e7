//! `pgslice catchup` into an empty replica, and again.

use crate::pair::{NOTES, NOTES_TABLE, Pair, notes, rows};

/// A column of each kind of type that a table could have.
const KINDS: &str = "
    CREATE EXTENSION IF NOT EXISTS hstore;
    CREATE TYPE mood AS ENUM ('fine', 'so-so');
    CREATE DOMAIN percentage AS int CHECK (value BETWEEN 0 AND 100);";
const KINDS_TABLE: &str = r#"
    CREATE TABLE kinds (
        id bigint, part smallint, "At" timestamp(3) NOT NULL, code varchar(7), letter char(3), amount numeric(12, 4),
        anything numeric, flag boolean NOT NULL, ratio double precision, small real, doc jsonb, raw bytea, ids int[],
        words text[], took interval, mood mood NOT NULL, share percentage, tags hstore, net inet, uuid uuid,
        span int4range, bits bit varying(9), "weird ""name""" text,
        PRIMARY KEY (part, id)
    )"#;
const KINDS_CONFIG: &str = "[[table]]\nname = \"kinds\"\ntime-column = \"At\"\ncolumn-timezone = \"UTC\"\n";
const KINDS_ROWS: &str = r#"
    INSERT INTO kinds SELECT i, 1, '2024-05-01'::timestamp + i * interval '7 hours', 'c' || i, 'ab', i / 7.0,
        1e30 / (i + 1),
        i % 2 = 0, 1.0 / 3, 1.0 / 3, '{"a": "\\u00e9\\n"}', '\x00ff0a5c', ARRAY[i, NULL], ARRAY['a,b', E'\t\\', NULL],
        '-1 mon +2 days', 'so-so', 40, 'a=>1, b=>NULL', '10.0.0.0/8', '11111111-2222-3333-4444-555555555555', '[1,5)',
                 B'101',
        E'back\\slash\ttab\nline\r'
    FROM generate_series(0, 9) i;
    INSERT INTO kinds VALUES (99, 2, '2024-05-02 23:59:59.999', NULL, NULL, 'NaN', 'NaN', false, 'NaN', '-Infinity',
        NULL, NULL,
        NULL, NULL, NULL, 'fine', NULL, NULL, NULL, NULL, 'empty', NULL, NULL);"#;

#[test]
fn an_empty_replica_gets_tables_of_every_type_with_key_and_index() {
    let pair = Pair::with_empty_replica(&format!("{KINDS}{KINDS_TABLE}"), KINDS_CONFIG);
    pair.source.psql(KINDS_ROWS);
    pair.export_range("2024-05-01", "2024-05-04");
    pair.replica.psql(KINDS);
    pair.catchup(&["--create"]).exits(0);
    pair.assert_equal("kinds");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM kinds"), "11");

    let columns = "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
                   WHERE attrelid = 'kinds'::regclass AND attnum > 0 ORDER BY attnum";
    assert_eq!(pair.replica.psql(columns), pair.source.psql(columns));
    let indexes = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'kinds'::regclass ORDER BY 1";
    let indexes = pair.replica.psql(indexes);
    assert!(indexes.contains("UNIQUE INDEX kinds_pkey ON public.kinds USING btree (part, id)"), "{indexes}");
    assert!(indexes.contains("btree (\"At\")"), "{indexes}");
}

#[test]
fn a_type_that_the_replica_lacks_is_named_before_anything_is_made() {
    let pair = Pair::with_empty_replica(&format!("{KINDS}{KINDS_TABLE}"), KINDS_CONFIG);
    pair.export("2024-05-01");
    let refused = pair.catchup(&["--create"]).exits(9);
    for word in ["public.mood", "\"mood\"", "create the type"] {
        assert!(refused.stderr.contains(word), "{word} in\n{refused}");
    }
    assert_eq!(pair.replica.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    assert_eq!(pair.ledger("*"), "");
}

#[test]
fn someone_without_room_takes_only_the_last_three_days() {
    let pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
    pair.source.psql(&notes(6));
    pair.export_range("2024-05-01", "2024-05-06");
    pair.catchup(&["--create", "--from", "2024-05-04"]).exits(0);
    assert_eq!(rows(&pair.replica, "notes"), rows(&pair.source, "(SELECT * FROM notes WHERE id > 400)"));
    assert_eq!(pair.ledger("day, origin, rows"), "2024-05-04|loaded|5\n2024-05-05|loaded|5\n2024-05-06|loaded|5");
}

#[test]
fn a_dry_run_with_create_says_what_would_be_made_and_applied_and_writes_nothing() {
    let pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
    pair.source.psql(&notes(2));
    pair.export_range("2024-05-01", "2024-05-02");
    let planned = pair.catchup(&["--create", "--dry-run"]).exits(0);
    for word in ["would create public.notes", "2024-05-01 r1 would be applied", "2 days would be applied"] {
        assert!(planned.stdout.contains(word), "{word} in\n{planned}");
    }
    assert_eq!(pair.replica.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgslice'"), "0");
    assert_eq!(pair.replica.psql("SELECT to_regclass('notes') IS NULL"), "t");
}

#[test]
fn a_dry_run_names_the_days_that_the_next_run_applies() {
    let pair = Pair::of_notes(3);
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    let before = pair.replica_state();
    let planned = pair.report(&["--dry-run"], 0);
    assert_eq!(pair.replica_state(), before);
    let applied = pair.report(&[], 0);
    let days = |report: &serde_json::Value| -> Vec<String> {
        report["days"].as_array().expect("days").iter().map(|day| format!("{} {}", day["day"], day["rows"])).collect()
    };
    assert_eq!(days(&planned), ["\"2024-05-02\" 5", "\"2024-05-03\" 5"]);
    assert_eq!(days(&planned), days(&applied));
    assert_eq!((&planned["dry_run"], &applied["dry_run"]), (&true.into(), &false.into()));
}

#[test]
fn a_second_catchup_says_nothing_new_and_writes_nothing() {
    let pair = Pair::of_notes(3);
    pair.export_range("2024-05-01", "2024-05-03");
    let first = pair.catchup(&[]).exits(0);
    assert!(first.stdout.contains("3 days applied, 15 rows (newest day 2024-05-03)"), "{first}");
    pair.assert_equal("notes");
    let before = pair.replica_state();
    for arguments in [&[][..], &["--from", "2024-05-02"], &["--force"], &["--allow-gap"]] {
        let again = pair.catchup(arguments).exits(0);
        assert!(again.stdout.contains("nothing new (newest day 2024-05-03)"), "{again}");
        assert_eq!(pair.replica_state(), before, "{arguments:?}");
    }
}

#[test]
fn only_the_days_that_came_since_are_applied() {
    let pair = Pair::of_notes(3);
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    let earlier = pair.replica.psql("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM notes");
    pair.export("2024-05-03");
    let report = pair.report(&[], 0);
    assert_eq!(report["days"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["days"][0]["tables"]["public.notes"]["origin"], "loaded");
    pair.assert_equal("notes");
    let kept = pair.replica.psql("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM notes WHERE id < 300");
    assert_eq!(kept, earlier);
}

#[test]
fn days_without_rows_and_tables_without_rows_are_held_too() {
    let pair = Pair::of_notes(1);
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.ledger("day, rows"), "2024-05-01|5\n2024-05-02|0\n2024-05-03|0");
    let again = pair.catchup(&[]).exits(0);
    assert!(again.stdout.contains("nothing new"), "{again}");
}

#[test]
fn every_kind_of_time_column_keeps_its_rows_in_their_day() {
    let schema = "
        CREATE TABLE stamps (id int PRIMARY KEY, at timestamptz NOT NULL);
        CREATE TABLE clocks (id int PRIMARY KEY, at timestamp NOT NULL);
        CREATE TABLE dates (id int PRIMARY KEY, at date NOT NULL);
        CREATE TABLE seconds (id int PRIMARY KEY, at int NOT NULL);
        CREATE TABLE micros (id int PRIMARY KEY, at bigint NOT NULL);";
    let tables = "
        [[table]]\nname = \"stamps\"\ntime-column = \"at\"
        [[table]]\nname = \"clocks\"\ntime-column = \"at\"\ncolumn-timezone = \"America/New_York\"
        [[table]]\nname = \"dates\"\ntime-column = \"at\"
        [[table]]\nname = \"seconds\"\ntime-column = \"at\"\nepoch-unit = \"s\"
        [[table]]\nname = \"micros\"\ntime-column = \"at\"\nepoch-unit = \"us\"";
    let Pair { source, replica, scene } = Pair::new(schema, tables);
    let pair = Pair { scene: scene.timezone("Europe/Berlin"), source, replica };
    // The hours around the night in which Berlin's clocks sprang forward.
    pair.source.psql(
        "INSERT INTO stamps SELECT i, '2024-03-29 22:30+00'::timestamptz + i * interval '30 minutes'
             FROM generate_series(1, 150) i;
         INSERT INTO clocks SELECT id, at AT TIME ZONE 'America/New_York' FROM stamps;
         INSERT INTO dates SELECT id, (at AT TIME ZONE 'Europe/Berlin')::date FROM stamps;
         INSERT INTO seconds SELECT id, extract(epoch FROM at)::int FROM stamps;
         INSERT INTO micros SELECT id, (extract(epoch FROM at) * 1000000)::bigint FROM stamps;",
    );
    pair.export_range("2024-03-30", "2024-03-31");
    pair.catchup(&[]).exits(0);
    let days = "SELECT count(*), min(id), max(id) FROM";
    for table in ["stamps", "clocks", "dates", "seconds", "micros"] {
        let (held, expected) = (
            pair.replica.psql(&format!("{days} {table}")),
            pair.source.psql(&format!(
                "{days} stamps WHERE (at AT TIME ZONE 'Europe/Berlin')::date BETWEEN '2024-03-30' AND '2024-03-31'"
            )),
        );
        assert_eq!(held, expected, "{table}");
    }
    assert_eq!(pair.ledger("day, rows").lines().last(), Some("2024-03-31|46"), "a day of 23 hours");
    // A change of each of them is a merge within those bounds.
    pair.source.psql(
        "DELETE FROM stamps WHERE id % 10 = 0; DELETE FROM clocks WHERE id % 10 = 0;
         DELETE FROM dates WHERE id % 10 = 0;
                      DELETE FROM seconds WHERE id % 10 = 0; DELETE FROM micros WHERE id % 10 = 0;",
    );
    pair.export("2024-03-31");
    pair.catchup(&[]).exits(0);
    for table in ["stamps", "clocks", "dates", "seconds", "micros"] {
        let left = pair.replica.psql(&format!("SELECT string_agg(id::text, ',') FROM {table} WHERE id % 10 = 0"));
        assert_eq!(left, "10,20,30,40", "{table}: only the second day lost its rows");
    }
}

#[test]
fn partitioned_quoted_and_foreign_schema_tables_are_topped_off() {
    let schema = r#"
        CREATE SCHEMA "Odd Schema";
        CREATE TABLE "Odd Schema"."Select" ("Order" int, "at time" timestamptz NOT NULL, "from" text,
            PRIMARY KEY ("Order", "at time"))
            PARTITION BY RANGE ("at time");
        CREATE TABLE "Odd Schema"."p""1" PARTITION OF "Odd Schema"."Select" FOR VALUES
            FROM ('2024-05-01 00:00+00') TO ('2024-05-02 00:00+00');
        CREATE TABLE "Odd Schema".rest PARTITION OF "Odd Schema"."Select" DEFAULT;"#;
    let tables = "[[table]]\nname = \"Odd Schema.Select\"\ntime-column = \"at time\"\n";
    let pair = Pair::new(schema, tables);
    pair.source.psql(
        r#"INSERT INTO "Odd Schema"."Select" SELECT i, '2024-05-01 00:00+00'::timestamptz + i * interval '5 hours',
                 'x' FROM generate_series(0, 8) i"#,
    );
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal(r#""Odd Schema"."Select""#);
    pair.source.psql(
        r#"UPDATE "Odd Schema"."Select" SET "from" = 'y' WHERE "Order" = 3;
         DELETE FROM "Odd Schema"."Select" WHERE "Order" = 8"#,
    );
    pair.export_range("2024-05-01", "2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal(r#""Odd Schema"."Select""#);
}

#[test]
fn columns_are_matched_by_name_whatever_their_order() {
    let pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
    pair.source.psql(&notes(1));
    pair.replica.psql(
        "CREATE TABLE notes (body text, gone int, at timestamptz NOT NULL, id int PRIMARY KEY);
         ALTER TABLE notes DROP COLUMN gone",
    );
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    assert_eq!(rows(&pair.replica, "(SELECT id, at, body FROM notes)"), rows(&pair.source, "notes"));
}
