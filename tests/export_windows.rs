//! Days of 23 and 25 hours, without a midnight and with two, for every kind of time column: each row lands in exactly
//! one day, the one that PostgreSQL says.

use std::collections::BTreeMap;

use crate::cluster::{self, Database};
use crate::published::Published;
use crate::scene::Scene;

/// A zone, the days around a change of its clocks, and how many hours each of them has.
struct Case {
    zone: &'static str,
    days: [(&'static str, i64); 3],
}

const CASES: [Case; 5] = [
    Case { zone: "Europe/Paris", days: [("2024-03-30", 24), ("2024-03-31", 23), ("2024-04-01", 24)] },
    Case { zone: "Europe/Paris", days: [("2024-10-26", 24), ("2024-10-27", 25), ("2024-10-28", 24)] },
    // Clocks spring from 00:00 to 01:00: the 26th has no midnight.
    Case { zone: "Africa/Cairo", days: [("2024-04-25", 24), ("2024-04-26", 23), ("2024-04-27", 24)] },
    // Clocks fall from 01:00 back to 00:00: the 3rd has two midnights, and starts at the second.
    Case { zone: "America/Havana", days: [("2024-11-02", 25), ("2024-11-03", 24), ("2024-11-04", 24)] },
    // Half an hour, and far from UTC.
    Case { zone: "Australia/Lord_Howe", days: [("2024-04-06", 24), ("2024-04-07", 24), ("2024-04-08", 24)] },
];

/// Tables with the same instants in each kind of column, from two days before to two days after a date, every ten
/// minutes, and a microsecond before and after each hour. `twin` is in another zone than the dataset.
fn fill(database: &Database, zone: &str, twin: &str, middle: &str) {
    database.psql(&format!(
        "CREATE TABLE instant AS
         SELECT row_number() OVER ()::int AS id, at FROM (
             SELECT g + us * interval '1 microsecond' AS at
             FROM generate_series('{middle}'::timestamptz - interval '2 days',
                                  '{middle}'::timestamptz + interval '3 days', interval '10 minutes') g,
                  unnest(CASE WHEN extract(minute FROM g) = 0 THEN '{{-1, 0, 1}}'::int[] ELSE '{{0}}' END) us
         ) s;
         CREATE TABLE tz AS SELECT id, at FROM instant;
         CREATE TABLE own AS SELECT id, at AT TIME ZONE '{zone}' AS at FROM instant;
         CREATE TABLE twin AS SELECT id, at AT TIME ZONE '{twin}' AS at FROM instant;
         CREATE TABLE dates AS SELECT id, (at AT TIME ZONE '{zone}')::date AS at FROM instant;
         CREATE TABLE secs AS SELECT id, floor(extract(epoch FROM at))::int AS at FROM instant;
         CREATE TABLE millis AS SELECT id, floor(extract(epoch FROM at) * 1000)::bigint AS at FROM instant;
         CREATE TABLE micros AS SELECT id, (extract(epoch FROM at) * 1000000)::bigint AS at FROM instant"
    ));
}

fn tables(zone: &str, twin: &str) -> String {
    [
        ("tz", String::new()),
        ("own", format!("column-timezone = \"{zone}\"\n")),
        ("twin", format!("column-timezone = \"{twin}\"\n")),
        ("dates", String::new()),
        ("secs", "epoch-unit = \"s\"\n".to_owned()),
        ("millis", "epoch-unit = \"ms\"\n".to_owned()),
        ("micros", "epoch-unit = \"us\"\n".to_owned()),
    ]
    .map(|(name, more)| format!("[[table]]\nname = \"{name}\"\ntime-column = \"at\"\n{more}"))
    .concat()
}

/// What PostgreSQL says which ids belong to a day, per table.
fn oracle(database: &Database, zone: &str, twin: &str, day: &str) -> BTreeMap<&'static str, Vec<String>> {
    let (start, end) = (
        format!("('{day}'::timestamp AT TIME ZONE '{zone}')"),
        format!("(('{day}'::timestamp + interval '1 day') AT TIME ZONE '{zone}')"),
    );
    let epoch = |scale: i64| {
        format!("at >= extract(epoch FROM {start}) * {scale} AND at < extract(epoch FROM {end}) * {scale}")
    };
    let conditions = [
        ("tz", format!("at >= {start} AND at < {end}")),
        ("own", format!("at::date = '{day}'")),
        ("twin", format!("at >= {start} AT TIME ZONE '{twin}' AND at < {end} AT TIME ZONE '{twin}'")),
        ("dates", format!("at = '{day}'")),
        ("secs", epoch(1)),
        ("millis", epoch(1000)),
        ("micros", epoch(1_000_000)),
    ];
    let ids = |table: &str, condition: &str| -> Vec<String> {
        let ids = database.psql(&format!("SELECT id FROM {table} WHERE {condition} ORDER BY id::text COLLATE \"C\""));
        ids.lines().map(str::to_owned).collect()
    };
    conditions.iter().map(|(table, condition)| (*table, ids(table, condition))).collect()
}

#[test]
fn each_row_lands_in_the_day_that_postgresql_says_also_when_clocks_change() {
    for Case { zone, days } in CASES {
        let twin = if zone == "Europe/Paris" { "America/New_York" } else { "Europe/Paris" };
        let database = cluster::source().create_database("windows");
        fill(&database, zone, twin, days[1].0);
        let scene = Scene::new(&tables(zone, twin)).source(&database).timezone(zone);
        scene.pgslice(&["export", "--from", days[0].0, "--to", days[2].0]).exits(0);
        let published = Published::by(&scene);
        for (day, hours) in days {
            let window = published.entry(day).window;
            assert_eq!((window.end - window.start).num_hours(), hours, "{zone} {day}");
            for (table, expected) in oracle(&database, zone, twin, day) {
                assert!(!expected.is_empty());
                assert_eq!(published.ids(day, &format!("public.{table}")), expected, "{zone} {day} {table}");
            }
        }
        for pair in published.feed().days.windows(2) {
            assert_eq!(pair[0].window.end, pair[1].window.start, "{zone}");
        }
    }
}

#[test]
fn the_days_of_a_table_are_the_whole_table_and_none_twice() {
    let database = cluster::source().create_database("sum");
    fill(&database, "Europe/Paris", "America/New_York", "2024-10-27");
    let scene = Scene::new(&tables("Europe/Paris", "America/New_York")).source(&database).timezone("Europe/Paris");
    scene.pgslice(&["export", "--from", "2024-10-24", "--to", "2024-10-31"]).exits(0);
    let published = Published::by(&scene);
    let days: Vec<String> = published.feed().days.iter().map(|entry| entry.day.to_string()).collect();
    for table in ["tz", "own", "twin", "dates", "secs", "millis", "micros"] {
        let name = format!("public.{table}");
        let mut ids: Vec<String> = days.iter().flat_map(|day| published.ids(day, &name)).collect();
        ids.sort();
        let all = database.psql(&format!("SELECT id FROM {table} ORDER BY id::text COLLATE \"C\""));
        assert_eq!(ids.join("\n"), all, "{table}");
    }
}

#[test]
fn every_slice_is_read_through_an_index_on_its_time() {
    let database = cluster::source().create_database("sargable");
    fill(&database, "Europe/Paris", "America/New_York", "2024-10-27");
    let names = ["tz", "own", "twin", "dates", "secs", "millis", "micros"];
    for name in names {
        // The server's log is shared: nobody else has tables of these names.
        database.psql(&format!("ALTER TABLE {name} RENAME TO sargable_{name}; CREATE INDEX ON sargable_{name} (at)"));
    }
    database.psql(&format!("ALTER DATABASE {} SET log_statement = 'all'", database.name));
    let tables = tables("Europe/Paris", "America/New_York").replace("name = \"", "name = \"sargable_");
    let scene = Scene::new(&tables).source(&database).timezone("Europe/Paris");
    scene.pgslice(&["export", "--date", "2024-10-27"]).exits(0);

    let log = cluster::source().log();
    for name in names {
        let reads: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&format!("from only \"public\".\"sargable_{name}\" where")))
            .filter_map(|line| line.find("select ").map(|start| line[start..].trim_end_matches(") to stdout")))
            .collect();
        assert_eq!(
            reads.len(),
            4,
            "its rows, twice, as they are planned first; its extent; rows outside of time: {reads:?}"
        );
        for read in reads {
            // Not what the planner likes best for a small table, but whether the condition can be looked up at all.
            let plan = database.psql(&format!("SET enable_seqscan = off; EXPLAIN {read}"));
            assert!(plan.contains("Index Cond: (") && !plan.contains("Filter: "), "{read}\n{plan}");
        }
    }
}

#[test]
fn a_zone_that_the_source_cuts_otherwise_is_refused() {
    // PostgreSQL takes its rules from the system. Here they are bent by an hour at the one place that pgslice asks.
    let database = cluster::source().create_database("bent");
    database.psql(
        "CREATE TABLE event (id int, at timestamptz NOT NULL);
         SET allow_system_table_mods = on;
         UPDATE pg_proc SET proname = 'straight' WHERE oid = 'timezone(text, timestamp)'::regprocedure;
         CREATE FUNCTION pg_catalog.timezone(text, timestamp) RETURNS timestamptz
         IMMUTABLE STRICT LANGUAGE sql AS $$ SELECT ($2 AT TIME ZONE INTERVAL '0') + interval '1 hour' $$",
    );
    let scene = Scene::new("[[table]]\nname = \"event\"\ntime-column = \"at\"\n").source(&database);
    let ran = scene.pgslice(&["export", "--date", "2024-05-01"]).exits(4);
    assert!(ran.stderr.contains("time zone data for UTC differ on 2024-05-01"), "{ran}");
    assert!(Published::by(&scene).objects().is_empty());
}
