//! Whole prunes on a store in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::{Class, class_of};
use crate::feed::{DayEntry, Feed};
use crate::layout::Key;
use crate::manifest::{Manifest, State};
use crate::retention::fixtures::{PART_BYTES, TABLES, day, feed_of, instant, manifest, rules, source};
use crate::retention::memory::MemoryStore;
use crate::retention::{Mode, PruneReport, prune};
use crate::store::SharedStore;

/// Four final days from 2024-05-01 on; the first has been superseded by a revision that carries one slice of three.
struct Published {
    store: Arc<MemoryStore>,
    feed: Feed,
}

const FIRST_RUN: &str = "2024-05-06T02:00:00Z";

impl Published {
    fn new() -> Published {
        let store = Arc::new(MemoryStore::default());
        let days = ["2024-05-01", "2024-05-02", "2024-05-03", "2024-05-04"];
        let mut feed = feed_of(&days.map(|day| (day, State::Final)));
        let mut manifests: Vec<_> =
            days.iter().map(|text| manifest(day(text), 1, State::Final, "00000001", [None; TABLES.len()])).collect();
        let second = manifest(day("2024-05-01"), 2, State::Final, "00000002", [None, Some(&manifests[0].1), None]);
        let superseded_at = instant("2024-05-05T00:00:00Z");
        feed = feed.with_day(DayEntry::of(&second.1, second.0.clone()), source(), superseded_at);
        manifests.push(second);
        store.hold(&feed, &manifests);
        Published { store, feed }
    }

    fn shared(&self) -> SharedStore {
        self.store.clone()
    }

    async fn prune(&self, hours_later: i64, mode: Mode) -> anyhow::Result<PruneReport> {
        prune(&self.shared(), &rules(2, 1, 48), first_run() + TimeDelta::hours(hours_later), mode).await
    }

    fn head(&self) -> Feed {
        Feed::parse(&self.store.memory().objects[&Key::feed()]).expect("a feed")
    }

    fn keys(&self) -> BTreeSet<String> {
        self.store.memory().objects.keys().map(Key::to_string).collect()
    }

    fn damage(&self, manifest: &str) {
        let key: Key = manifest.parse().expect("a key");
        let mut memory = self.store.memory();
        let mut damaged = Manifest::parse(&memory.objects[&key]).expect("a manifest");
        damaged.server_version.push('!');
        assert!(memory.objects.insert(key, damaged.to_bytes().into()).is_some());
    }
}

fn first_run() -> DateTime<Utc> {
    instant(FIRST_RUN)
}

fn days_of(report: &PruneReport) -> Vec<String> {
    report.released.iter().map(|released| released.day.to_string()).collect()
}

#[tokio::test]
async fn a_prune_first_lets_go_and_a_later_one_deletes() {
    let published = Published::new();
    let before = published.keys();

    let report = published.prune(0, Mode::Apply).await.expect("pruned");
    assert_eq!(days_of(&report), ["2024-05-01", "2024-05-02"]);
    assert_eq!(published.head().days.len(), 2);
    assert_eq!(published.keys(), before, "nothing is deleted yet");
    let last = report.lines().pop();
    assert_eq!(last.as_deref(), Some("released 2 days; deleted after 2024-05-08 02:00 UTC"));

    let report = published.prune(49, Mode::Apply).await.expect("pruned");
    assert_eq!(report.deleted.len(), 3);
    assert_eq!((report.deleted_objects, report.deleted_bytes), (14, 8 * PART_BYTES));
    assert!(published.keys().iter().all(|key| !key.starts_with("2024-05-01/") && !key.starts_with("2024-05-02/")));
    assert_eq!(published.keys().len(), 2 + 2 * 5, "the head, the page and two days of five objects");
    let head = published.head();
    let tombstones: Vec<(String, u32, bool)> =
        head.retired.iter().map(|r| (r.day.to_string(), r.revision, r.deleted_at.is_some())).collect();
    assert_eq!(tombstones, [("2024-05-01".into(), 2, true), ("2024-05-02".into(), 1, true)]);

    let report = published.prune(50, Mode::Apply).await.expect("pruned");
    assert_eq!(published.head(), head, "with nothing to do nothing is written");
    assert_eq!(report.lines(), ["nothing to release: 2 published days, all within retention"]);
}

#[tokio::test]
async fn a_superseded_revision_loses_only_what_its_successor_does_not_carry() {
    let published = Published::new();
    // Every day is within keep; only the superseded revision is past its grace, of an hour.
    let report = prune(&published.shared(), &rules(9, 1, 1), first_run(), Mode::Apply).await.expect("pruned");
    assert_eq!(report.deleted.len(), 1);
    assert_eq!((report.deleted[0].objects, report.deleted[0].shared_objects), (4, 1));
    let left: Vec<String> = published.keys().into_iter().filter(|key| key.contains("r1-00000001/")).take(1).collect();
    assert_eq!(left, ["2024-05-01/r1-00000001/public.users-2024-05-01.copy.zst"]);
    assert_eq!(published.head().retired, [], "the day is published: no tombstone");
}

#[tokio::test]
async fn a_pruned_revision_keeps_all_it_names_until_its_own_grace_is_over() {
    let published = Published::new();
    published.prune(0, Mode::Apply).await.expect("pruned");
    let report = published.prune(47, Mode::Apply).await.expect("pruned");
    let deleted: Vec<u32> = report.deleted.iter().map(|revision| revision.revision).collect();
    assert_eq!(deleted, [1], "the superseded revision, retired a day earlier");
    let mut left: Vec<String> = published.keys().into_iter().filter(|key| key.starts_with("2024-05-01/")).collect();
    left.retain(|key| !key.contains("r2-00000002"));
    assert_eq!(left, ["2024-05-01/r1-00000001/public.users-2024-05-01.copy.zst"], "revision 2 carries it");
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_says_what_the_real_run_then_does() {
    let published = Published::new();
    for hours in [0, 47, 49, 50] {
        let before = published.store.memory().objects.clone();
        let predicted = published.prune(hours, Mode::DryRun).await.expect("planned");
        assert_eq!(published.store.memory().objects, before);
        let done = published.prune(hours, Mode::Apply).await.expect("pruned");
        assert_eq!(PruneReport { mode: Mode::Apply, ..predicted.clone() }, done, "after {hours} hours");
        let told: Vec<String> = predicted
            .lines()
            .iter()
            .map(|line| line.replace("would release", "released").replace("would delete", "deleted"))
            .collect();
        assert_eq!(told, done.lines());
        let deleted = u64::try_from(published.store.memory().deleted.drain(..).count()).expect("small");
        assert_eq!(deleted, done.deleted_objects);
    }
}

#[tokio::test]
async fn a_run_cut_short_after_any_deletion_is_finished_by_the_next() {
    let whole = Published::new();
    whole.prune(0, Mode::Apply).await.expect("pruned");
    whole.prune(49, Mode::Apply).await.expect("pruned");
    for deletions in 0..14 {
        let published = Published::new();
        published.prune(0, Mode::Apply).await.expect("pruned");
        published.store.memory().deletions_left = Some(deletions);
        let error = published.prune(49, Mode::Apply).await.expect_err("the store gave up");
        assert_eq!(class_of(&error), Class::Transient);
        published.store.memory().deletions_left = None;
        let report = published.prune(49, Mode::Apply).await.expect("pruned");
        assert_eq!(report.problems, []);
        assert_eq!(published.keys(), whole.keys(), "after {deletions} deletions");
        assert_eq!(published.head().retired, whole.head().retired);
    }
}

#[tokio::test]
async fn a_day_whose_retired_manifest_is_not_the_named_one_keeps_its_objects_and_the_others_go_on() {
    let published = Published::new();
    published.prune(0, Mode::Apply).await.expect("pruned");
    published.damage("2024-05-01/r1-00000001/manifest.json");
    let of_the_day = |keys: BTreeSet<String>| keys.into_iter().filter(|key| key.starts_with("2024-05-01/")).count();
    let before = of_the_day(published.keys());

    let report = published.prune(49, Mode::Apply).await.expect("pruned");
    assert_eq!(of_the_day(published.keys()), before);
    assert_eq!(report.deleted.iter().map(|r| r.day).collect::<Vec<_>>(), [day("2024-05-02")]);
    assert_eq!(report.problems.iter().map(|p| p.day).collect::<Vec<_>>(), [day("2024-05-01")]);
    assert_eq!(report.failure().map(|failure| failure.class), Some(Class::Integrity));
    let undeleted = published.head().retired.iter().filter(|retired| retired.deleted_at.is_none()).count();
    assert_eq!(undeleted, 2, "both revisions of the day are still to be deleted");
}

#[tokio::test]
async fn nothing_of_a_day_is_deleted_while_its_published_manifest_cannot_be_read() {
    let published = Published::new();
    let current: Key = "2024-05-01/r2-00000002/manifest.json".parse().expect("a key");
    published.store.memory().objects.remove(&current);
    let before = published.keys();
    let report = prune(&published.shared(), &rules(9, 1, 1), first_run(), Mode::Apply).await.expect("pruned");
    assert_eq!(published.keys(), before);
    assert_eq!((report.deleted.len(), report.problems.len()), (0, 1));
}

#[tokio::test]
async fn a_lost_answer_to_the_swap_is_read_back() {
    let published = Published::new();
    published.store.memory().lose_next_answer = true;
    let report = published.prune(0, Mode::Apply).await.expect("pruned");
    assert_eq!(days_of(&report), ["2024-05-01", "2024-05-02"]);
    assert_eq!(published.head().sequence, published.feed.sequence + 1, "changed once");
}

#[tokio::test]
async fn the_plan_is_made_again_on_the_head_that_another_writer_left() {
    let published = Published::new();
    let (reference, newer) = manifest(day("2024-05-05"), 1, State::Final, "00000009", [None; TABLES.len()]);
    let intruder = published.feed.with_day(DayEntry::of(&newer, reference), source(), first_run());
    published.store.memory().intruder = Some(intruder);
    let report = published.prune(0, Mode::Apply).await.expect("pruned");
    assert_eq!(days_of(&report), ["2024-05-01", "2024-05-02", "2024-05-03"]);
    assert_eq!(
        published.head().days.iter().map(|entry| entry.day).collect::<Vec<_>>(),
        [day("2024-05-04"), day("2024-05-05")]
    );
}

#[tokio::test]
async fn a_store_without_a_feed_is_refused() {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let error = prune(&store, &rules(2, 1, 48), first_run(), Mode::Apply).await.expect_err("no feed");
    assert_eq!(class_of(&error), Class::Usage);
}

#[test]
fn the_json_of_a_report_is_snake_case_and_names_its_reasons() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(Published::new().prune(0, Mode::DryRun)).expect("planned");
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["mode"], "dry_run");
    assert_eq!(
        json["released"][0],
        serde_json::json!({
            "day": "2024-05-01", "revision": 2, "state": "final", "rows": 30, "bytes": 120,
            "reason": "older_than_keep", "deleted_after": "2024-05-08T02:00:00Z",
        })
    );
    assert_eq!(json["kept"][0], serde_json::json!({ "day": "2024-05-03", "reason": "within_keep" }));
    assert_eq!(json["waiting"][0]["reason"], "superseded");
}
