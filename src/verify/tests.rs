use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::manifest::State;
use crate::retention::fixtures::{PART_BYTES, SLICE_ROWS, day, empty_feed, manifest, source};
use crate::retention::memory::MemoryStore;

const DAYS: [&str; 2] = ["2024-05-01", "2024-05-02"];

/// Two days whose objects are all there, in full size.
fn published() -> (Arc<MemoryStore>, Vec<Manifest>) {
    let store = Arc::new(MemoryStore::default());
    let revisions = DAYS.map(|date| manifest(day(date), 1, State::Final, "00000001", [None; 3]));
    let mut feed = empty_feed();
    for (reference, manifest) in &revisions {
        feed = feed.with_day(DayEntry::of(manifest, reference.clone()), source(), feed.published_at);
    }
    store.hold(&feed, &revisions);
    let part_bytes = usize::try_from(PART_BYTES).expect("small");
    let manifests = revisions.map(|(_, manifest)| manifest);
    for key in manifests.iter().flat_map(Manifest::part_keys) {
        store.memory().objects.insert(key.clone(), vec![0; part_bytes].into());
    }
    (store, manifests.to_vec())
}

async fn objects_of(store: &Arc<MemoryStore>) -> LevelReport {
    let store: SharedStore = store.clone();
    let feed = head::read_existing(&*store).await.expect("a head");
    let mut report = LevelReport::of(Level::Store);
    for entry in &feed.days {
        match head::day_manifest(&*store, &feed, entry).await {
            Ok(manifest) => objects::check(&store, entry, &manifest, &mut report).await.expect("checked"),
            Err(error) => report.take(entry.day, None, error).expect("a difference"),
        }
    }
    report
}

#[tokio::test]
async fn a_sound_store_is_as_published() {
    let (store, _) = published();
    let report = objects_of(&store).await;
    assert_eq!(report.differences, []);
    assert_eq!((report.slices, report.objects), (6, 10), "two days of three parts, a manifest and checksums");
    assert_eq!((report.rows, report.bytes), (6 * SLICE_ROWS, 6 * PART_BYTES));
}

#[tokio::test]
async fn what_is_missing_short_or_altered_is_named_with_its_day_and_table() {
    let (store, manifests) = published();
    let parts: Vec<_> = manifests.iter().flat_map(Manifest::part_keys).cloned().collect();
    let sums = crate::layout::sums_beside(&parts[3]);
    {
        let objects = &mut store.memory().objects;
        objects.remove(&parts[0]);
        objects.insert(parts[1].clone(), Bytes::from_static(b"short"));
        objects.insert(sums, Bytes::from_static(b"0000  something\n"));
    }
    let report = objects_of(&store).await;
    let told: Vec<(String, Option<&str>)> = report
        .differences
        .iter()
        .map(|found| (found.day.map(|day| day.to_string()).unwrap_or_default(), found.table.as_deref()))
        .collect();
    let first = DAYS[0].to_owned();
    assert_eq!(
        told,
        [(first.clone(), Some("public.messages")), (first, Some("public.users")), (DAYS[1].to_owned(), None)]
    );
    assert!(report.differences[1].what.contains("has 5 bytes, 40 are published"), "{:?}", report.differences);
}

#[tokio::test]
async fn a_damaged_manifest_is_a_difference_and_the_other_days_go_on() {
    let (store, _) = published();
    let key = {
        let memory = store.memory();
        memory.objects.keys().find(|key| key.file_name() == "manifest.json").cloned().expect("a manifest")
    };
    store.memory().objects.insert(key, Bytes::from_static(b"{}"));
    let report = objects_of(&store).await;
    assert_eq!(report.differences.len(), 1);
    assert_eq!(report.slices, 3, "the other day was looked at");
}

#[test]
fn what_was_not_compared_is_told_once_per_table_and_reason() {
    let mut report = LevelReport::of(Level::Source);
    for date in ["2024-05-01", "2024-05-02"] {
        let (_, manifest) = manifest(day(date), 1, State::Final, "00000001", [None; 3]);
        let judged = vec![
            Judgement::Equal,
            Judgement::NotCompared("it changed".into()),
            Judgement::Differs(Figures { rows: 3, rows_digest: RowsDigest::default() }),
        ];
        report.judge(&manifest, Ok(judged)).expect("judged");
    }
    let lines = report.lines();
    assert_eq!(lines[0], "source: 2 DIFFERENCES (4 slices, 40 rows compared)");
    assert_eq!(lines[1], "  2024-05-01 public.packages: source holds 3 rows, 10 are published");
    assert_eq!(lines[3], "  not compared: public.users 2024-05-01 to 2024-05-02: it changed");
    assert!(lines[4].starts_with("  never checked here: "), "{lines:?}");
}

fn verification(level: LevelReport) -> Verification {
    Verification {
        format: 1,
        dataset: "datanommer".into(),
        feed_id: "f00d".into(),
        sequence: 1,
        days: 2,
        missing: Vec::new(),
        levels: vec![level],
        requests: None,
    }
}

#[test]
fn the_exit_tells_a_difference_before_an_error_before_a_hole_before_nothing_to_compare() {
    let (_, sound) = manifest(day("2024-05-01"), 1, State::Final, "00000001", [None; 3]);
    let mut compared = LevelReport::of(Level::Source);
    compared.judge(&sound, Ok(vec![Judgement::Equal; 3])).expect("judged");
    let mut said = verification(compared);
    assert_eq!(said.failure(), None);
    assert_eq!(said.lines().last().map(String::as_str), Some("not asked for: --read-data, --replica"));

    said.levels.push(LevelReport::of(Level::Replica));
    assert_eq!(said.failure(), Some(Class::Other), "a level that compared nothing proves nothing");
    assert!(said.lines().iter().any(|line| line.starts_with("replica: NOTHING WAS COMPARED")), "{:?}", said.lines());
    said.missing.push(day("2024-05-02"));
    assert_eq!(said.failure(), Some(Class::Gap));
    let denied = crate::error::Failure::new(Class::Permission, "permission denied for table users");
    said.levels[1].judge(&sound, Err(denied.into())).expect("taken");
    assert_eq!(said.failure(), Some(Class::Permission));
    said.levels[0].judge(&sound, Ok(vec![Judgement::Gone("no such table".into())])).expect("judged");
    assert_eq!(said.failure(), Some(Class::Integrity));
    let ended = crate::error::Failure::new(Class::Interrupted, "ended");
    assert!(said.levels[1].judge(&sound, Err(ended.into())).is_err());
}

#[test]
fn holes_and_days_that_are_asked_for_and_not_there_are_missing() {
    let publish = |feed: Feed, date: &str| {
        let (reference, manifest) = manifest(day(date), 1, State::Final, "00000001", [None; 3]);
        feed.with_day(DayEntry::of(&manifest, reference), source(), empty_feed().published_at)
    };
    let feed = ["2024-05-01", "2024-05-03"].into_iter().fold(empty_feed(), publish);
    let told = |from: Option<&str>, to: Option<&str>| {
        let days = missing(&feed, from.map(day), to.map(day));
        days.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told(None, None), ["2024-05-02"]);
    assert_eq!(told(Some("2024-05-03"), Some("2024-05-04")), ["2024-05-04"]);
    assert_eq!(told(Some("2024-04-30"), Some("2024-05-01")), ["2024-04-30"]);
    assert_eq!(missing(&empty_feed(), None, None), []);
    assert_eq!(missing(&empty_feed(), Some(day("2024-05-01")), Some(day("2024-05-01"))), [day("2024-05-01")]);
}

#[test]
fn days_that_changed_meanwhile_are_no_difference() {
    let difference = |date: &str| Difference {
        day: Some(day(date)),
        table: None,
        what: "is not in the store".into(),
        published: None,
        found: None,
    };
    let mut report = LevelReport::of(Level::Store);
    report.differences = DAYS.map(difference).to_vec();
    let publish = |feed: Feed, date: &str, revision: u32| {
        let (reference, manifest) = manifest(day(date), revision, State::Final, "00000001", [None; 3]);
        feed.with_day(DayEntry::of(&manifest, reference), source(), empty_feed().published_at)
    };
    let before = DAYS.into_iter().fold(empty_feed(), |feed, date| publish(feed, date, 1));
    let present = publish(before.clone(), DAYS[0], 2);
    report.excuse(&before, &present);
    assert_eq!(report.differences, [difference(DAYS[1])]);
    assert_eq!(report.not_compared.len(), 1);
}
