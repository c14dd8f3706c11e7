//! Promise 3 around a midnight that comes while people write: the source's clock is moved to shortly before one, writers
//! commit across it in every way that makes rows appear late, and exports and catchups run all the time.
//!
//! `MIDNIGHT_SECS` says for how long is written (40), `MIDNIGHT_WRITERS` by how many (8): `make test-midnight`.

mod order;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pgslice::day::Day;
use pgslice::feed::DayEntry;
use pgslice::manifest::State;

use crate::cluster::{self, Cluster, Database};
use crate::in_process::day;
use crate::pair;
use crate::published::Published;
use crate::scene::Scene;
use crate::shifted_clock::ShiftedClock;

use writers::{Journal, Plan, Relation, Writer};

/// The clock of the source goes from this day into the next.
const DAY: &str = "2024-05-01";
const MIDNIGHT: &str = "2024-05-02T00:00:00Z";
const SETTLE: TimeDelta = TimeDelta::seconds(5);

/// Associations have no key: rows that came twice would be there twice.
const SCHEMA: &str = "
    CREATE TABLE message (id bigint PRIMARY KEY, ts timestamptz NOT NULL, body text NOT NULL);
    CREATE TABLE association (message_id bigint NOT NULL REFERENCES message, ts timestamptz NOT NULL, tag text NOT NULL);
    CREATE INDEX ON message (ts); CREATE INDEX ON association (ts);";
const SECTIONS: &str = r#"
[export]
settle = "5s"
lookback = "3d"

[[table]]
name = "message"
time-column = "ts"

[[table]]
name = "association"
time-column = "ts"
"#;
/// A message and an association of the day before, which is final when the writers begin.
const YESTERDAY: &str = "
    INSERT INTO message VALUES (0, '2024-04-30 12:00Z', 'of yesterday');
    INSERT INTO association VALUES (0, '2024-04-30 12:00Z', 'tag');";

fn midnight() -> DateTime<Utc> {
    MIDNIGHT.parse().expect("a time")
}

fn from_environment(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// A source under a clock that nears midnight, a replica, and what lies between them.
struct Stage {
    clock: ShiftedClock,
    source: Database,
    replica: Database,
    /// In a folder: an S3 server refuses requests that are signed by another clock than its own.
    scene: Arc<Scene>,
}

impl Stage {
    /// One where about `before` is left until midnight.
    fn set_up(before: TimeDelta) -> Stage {
        let replica = cluster::replica().create_database("midnight");
        replica.psql(SCHEMA);
        let (clock, cluster) = before_midnight(before);
        let source = cluster.create_database("midnight");
        source.psql(SCHEMA);
        source.psql(YESTERDAY);
        let scene = Scene::in_folder(SECTIONS).source(&source).replica(&replica).under(clock);
        Stage { clock, source, replica, scene: Arc::new(scene) }
    }
}

/// A cluster under a clock by which at least `before` is left until midnight.
fn before_midnight(before: TimeDelta) -> (ShiftedClock, &'static Cluster) {
    for seconds_to_start in [4, 12, 36] {
        let clock = ShiftedClock::showing(midnight() - before - TimeDelta::seconds(seconds_to_start));
        let cluster = Cluster::start_under(clock);
        if midnight() - clock.now() >= before {
            return (clock, cluster);
        }
    }
    panic!("no server starts within half a minute");
}

/// What was seen of the feed from export to export.
#[derive(Default)]
struct Watch {
    exports: u32,
    /// Entries that were final when they were first seen so, when that was, and how often they were looked at since.
    finals: BTreeMap<Day, (DayEntry, DateTime<Utc>, u32)>,
    /// Revisions and digests that were seen provisional, by day.
    provisional: BTreeSet<(Day, u32, String)>,
    /// What became of entries that had been final, in words.
    broken: Vec<String>,
}

impl Watch {
    fn look(&mut self, published: &Published, now: DateTime<Utc>) {
        let mut feed = published.feed();
        // When it was last found as it is may change.
        feed.days.iter_mut().for_each(|entry| entry.taken = None);
        for entry in &feed.days {
            if entry.state == State::Final {
                self.finals.entry(entry.day).or_insert_with(|| (entry.clone(), now, 0)).2 += 1;
            } else {
                self.provisional.insert((entry.day, entry.revision, entry.digest.clone()));
            }
        }
        for (day, (first, ..)) in &self.finals {
            let stands = feed.day(*day);
            if stands != Some(first) {
                self.broken.push(format!("{now}: {day} was final as\n  {first:?}\nand now there is\n  {stands:?}"));
            }
        }
    }
}

/// Exports and tops off, again and again, until it is told that it is over.
fn publish(stage: &Stage, pause: Duration, over: &AtomicBool) -> Watch {
    let published = Published::by(&stage.scene);
    let mut watch = Watch::default();
    while !over.load(Ordering::Relaxed) {
        publish_once(stage, &published, &mut watch);
        std::thread::sleep(pause);
    }
    publish_once(stage, &published, &mut watch);
    watch
}

fn publish_once(stage: &Stage, published: &Published, watch: &mut Watch) {
    stage.scene.pgslice(&["export"]).exits(0);
    watch.exports += 1;
    watch.look(published, stage.clock.now());
    stage.scene.pgslice(&["catchup"]).exits(0);
}

/// Rows that only one of two sorted lists has, or one has more often: a few of them.
fn difference(left: &[String], right: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    left.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    right.iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    counts.retain(|_, count| *count != 0);
    let more = |count: i64| if count > 0 { "more often in the first" } else { "more often in the second" };
    counts.iter().take(20).map(|(row, count)| format!("{row}: {} times {}", count.abs(), more(*count))).collect()
}

#[track_caller]
fn assert_same(what: &str, mut left: Vec<String>, mut right: Vec<String>) {
    left.sort();
    right.sort();
    assert!(left == right, "{what}: {} and {} rows, {:#?}", left.len(), right.len(), difference(&left, &right));
}

fn lines(rows: &str) -> Vec<String> {
    rows.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "what was written, and when the day was final, belongs to the result")]
async fn nothing_that_is_committed_around_midnight_is_lost_and_what_is_final_stays() {
    let (secs, number) = (from_environment("MIDNIGHT_SECS", 40), from_environment("MIDNIGHT_WRITERS", 8));
    assert!(secs >= 40 && (5..=50).contains(&number), "a midnight takes 40 seconds and 5 to 50 writers");
    let stage = Arc::new(Stage::set_up(TimeDelta::seconds(i64::from(secs) * 3 / 8)));
    let plan = Plan {
        midnight: midnight(),
        settle: SETTLE,
        end: midnight() + TimeDelta::seconds(i64::from(secs) * 5 / 8),
        longest: TimeDelta::seconds(i64::from(secs) / 8).min(TimeDelta::seconds(75)),
    };

    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..number {
        tasks.spawn(Writer::connect(number, &stage.source, stage.clock, plan).await.write());
    }
    let over = Arc::new(AtomicBool::new(false));
    let publisher = {
        let (stage, over) = (Arc::clone(&stage), Arc::clone(&over));
        tokio::task::spawn_blocking(move || publish(&stage, Duration::from_millis(u64::from(secs) * 5), &over))
    };
    let journal = tasks.join_all().await.into_iter().fold(Journal::default(), Journal::and);
    // The last export begins when everything has settled.
    stage.clock.shows(midnight() + SETTLE).await;
    over.store(true, Ordering::Relaxed);
    let watch = publisher.await.expect("the publisher found nothing wrong");

    let of_the_day = day(DAY);
    let provisional = watch.provisional.iter().filter(|(day, ..)| *day == of_the_day).count();
    let at = watch.finals.get(&of_the_day).map(|(_, at, _)| *at - midnight());
    let looks = watch.finals.get(&of_the_day).map_or(0, |(.., looks)| *looks);
    println!(
        "{number} writers, {secs} s: {journal}\n{} exports and catchups, {provisional} provisional revisions of {DAY}, \
         final when looked at {} s after midnight, the first of {looks} times",
        watch.exports,
        at.map_or("never".to_owned(), |at| format!("{:.1}", at.as_seconds_f64())),
    );

    for relation in [Relation::Message, Relation::Association] {
        let name = relation.name();
        let yesterday = lines(&stage.source.psql(&format!("SELECT t::text FROM {name} t WHERE ts < '{DAY}'")));
        assert_eq!(yesterday.len(), 1);
        let written = |closed: bool| {
            let ended = move |row: &&writers::Row| !closed || row.ts < midnight();
            let rows = journal.rows.iter().filter(|row| row.relation == relation).filter(ended);
            rows.map(|row| row.text.clone()).chain(yesterday.clone()).collect::<Vec<_>>()
        };
        let (source, replica) = (pair::rows(&stage.source, name), pair::rows(&stage.replica, name));
        assert_same(&format!("{name}: what the writers committed, and the source"), written(false), lines(&source));
        assert_same(&format!("{name}: what they committed, and the replica"), written(true), lines(&replica));
    }
    Published::by(&stage.scene).is_whole();
    assert!(at.is_some_and(|at| at >= SETTLE), "the day is final once it has settled: {at:?}");
    assert!(
        watch.broken.is_empty() || journal.excuses > 0,
        "what was final has changed, {} times; first {}",
        watch.broken.len(),
        watch.broken[0]
    );
    // Otherwise there was nothing to lose.
    assert!(journal.is_a_challenge() && provisional > 1, "{journal:#?}");
}
