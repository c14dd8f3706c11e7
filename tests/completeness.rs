//! Days with fewer rows than there should be are not taken for whole.

use serde_json::Value;

use crate::clock::Clock;
use crate::cluster::{self, Database};
use crate::published::Published;
use crate::scene::Scene;

/// A database with a table `event (id, at)`, and so many rows on each day from 2024-05-01 on. It is the morning of
/// 2024-05-06.
fn events(rows: &[u32]) -> Database {
    let database = cluster::source().create_database("complete");
    database.psql("CREATE TABLE event (id serial PRIMARY KEY, at timestamptz NOT NULL)");
    for (day, rows) in (1..).zip(rows) {
        add(&database, day, *rows);
    }
    let _clock = Clock::showing(&database, "2024-05-06 08:00Z");
    database
}

fn add(database: &Database, day: u32, rows: u32) {
    database.psql(&format!("INSERT INTO event (at) SELECT '2024-05-{day:02} 10:00Z' FROM generate_series(1, {rows})"));
}

fn section(export: &str, expectation: &str) -> String {
    format!("[export]\n{export}\n[[table]]\nname = \"event\"\ntime-column = \"at\"\n{expectation}\n")
}

#[test]
fn a_day_with_too_few_rows_is_provisional_until_they_are_there() {
    let database = events(&[10, 10, 3]);
    let scene = Scene::new(&section("lookback = \"0d\"", "min-rows = 5")).source(&database);
    let published = Published::by(&scene);
    let ran = scene.pgslice(&["export", "--from", "2024-05-01", "--to", "2024-05-03"]).exits(0);
    let lines = |third: &str| ["2024-05-01 r1 final 10", "2024-05-02 r1 final 10", third].map(str::to_owned);
    assert_eq!(published.days(), lines("2024-05-03 r1 provisional 3"));
    let warning = "2024-05-03 is provisional: public.event has 3 rows, and min-rows expects 5";
    assert!(ran.stderr.contains(warning), "{ran}");
    let ran = scene.pgslice(&["export", "--date", "2024-05-03", "--json"]).exits(0);
    let report: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    assert_eq!(report["days"][0]["outcome"], "unchanged");
    assert_eq!(report["days"][0]["unsettled"][0], "public.event has 3 rows, and min-rows expects 5");

    add(&database, 3, 1);
    (4..=5).for_each(|day| add(&database, day, 9));
    scene.pgslice(&["export"]).exits(0);
    assert_eq!(published.days()[2], "2024-05-03 r2 provisional 4");
    add(&database, 3, 1);
    scene.pgslice(&["export"]).exits(0);
    assert_eq!(published.days()[2], "2024-05-03 r3 final 5");
}

#[test]
fn a_quiet_day_can_be_made_final_on_purpose_and_stays_so() {
    let database = events(&[10, 10, 3]);
    let mut scene = Scene::new(&section("", "min-rows = 5")).source(&database);
    let published = Published::by(&scene);
    let named = ["export", "--date", "2024-05-03"];
    scene.pgslice(&named).exits(0);
    let first = published.manifest("2024-05-03");
    let ran = scene.pgslice(&[&named[..], &["--accept-shrink"]].concat()).exits(0);
    assert_eq!(published.days(), ["2024-05-03 r1 final 3"]);
    assert!(!ran.stderr.contains("min-rows"), "{ran}");
    assert_eq!(published.manifest("2024-05-03").slices[0].parts, first.slices[0].parts);
    scene.configure(&section("expect = \"strict\"", "min-rows = 5"));
    scene.pgslice(&named).exits(0);
    assert_eq!(published.days(), ["2024-05-03 r1 final 3"]);
}

#[test]
fn a_strict_export_publishes_nothing_of_such_a_day() {
    let database = events(&[10, 3, 10]);
    let scene = Scene::new(&section("expect = \"strict\"", "min-rows = 5")).source(&database);
    let published = Published::by(&scene);
    let ran = scene.pgslice(&["export", "--date", "2024-05-02"]).exits(3);
    assert!(ran.stderr.contains("2024-05-02 has too few rows: public.event has 3 rows"), "{ran}");
    assert!(ran.stderr.contains("--accept-shrink"), "{ran}");
    assert!(published.days().is_empty() && published.objects().is_empty());
    assert_eq!(published.staged(), 0);
    scene.pgslice(&["export", "--from", "2024-05-01", "--to", "2024-05-03"]).exits(3);
    assert_eq!(published.days(), ["2024-05-01 r1 final 10", "2024-05-03 r1 final 10"]);
    scene.pgslice(&["export", "--date", "2024-05-02", "--accept-shrink"]).exits(0);
    assert_eq!(published.days()[1], "2024-05-02 r1 final 3");
    published.is_whole();
}

#[test]
fn a_day_far_below_its_predecessors_is_not_taken_for_whole() {
    let database = events(&[10, 1_000, 12, 3, 2]);
    let scene = Scene::new(&section("", "min-fraction = 0.3")).source(&database);
    let published = Published::by(&scene);
    let ran = scene.pgslice(&["export", "--from", "2024-05-01", "--to", "2024-05-05"]).exits(0);
    let days = published.days();
    // 3.6 are expected, which is 0.3 of 12, also after a day that had too few.
    assert_eq!(days[3..], ["2024-05-04 r1 provisional 3", "2024-05-05 r1 provisional 2"], "{days:?}");
    assert!(
        ran.stderr.contains("2024-05-04 is provisional: public.event has 3 rows, and min-fraction expects 0.3 of 12")
    );
    assert!(ran.stderr.contains("expects 0.3 of 12, the median of its last 3 final days"), "{ran}");
    assert_eq!(days[..3], ["2024-05-01 r1 final 10", "2024-05-02 r1 final 1000", "2024-05-03 r1 final 12"]);
}
