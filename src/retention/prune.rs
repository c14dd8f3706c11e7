//! `pgslice prune`: the plan carried out on a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::ahead::Ahead;
use crate::config::RetentionConfig;
use crate::day::Day;
use crate::error::{Class, Failure, class_of};
use crate::feed::{Feed, ManifestRef, Pulse, Retired, RetiredReason};
use crate::figures::{counted, human_bytes, human_count, human_days, human_instant};
use crate::head;
use crate::layout::Key;
use crate::manifest::{Manifest, State};
use crate::retention::plan::{
    Deletion, KeepReason, Kept, ObjectKind, Plan, ReleaseReason, Released, deletable, deletable_after, forget, let_go,
    objects_of, plan,
};
use crate::store::{SharedStore, Store, StoreError};

/// Days whose manifests are read at the same time.
const DAYS_AHEAD: usize = 8;
/// Objects of one kind that are deleted together, unless one day has more: as many as S3 takes in a request.
const BATCH_OBJECTS: usize = 1_000;

/// Whether a run does what it reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing is written or deleted.
    DryRun,
    /// The head is changed and objects are deleted.
    Apply,
}

/// What a run did, or in [`Mode::DryRun`] what the next real one does to the same head at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// Whether it was done.
    pub mode: Mode,
    /// The dataset's name.
    pub dataset: String,
    /// The day that retention counts back from; `None` when no day is settled, and so none is let go.
    pub newest_settled: Option<Day>,
    /// The days that the feed let go of, ascending.
    pub released: Vec<ReleasedDay>,
    /// The days that stay, ascending.
    pub kept: Vec<Kept>,
    /// Revisions retired by earlier runs that are still within their grace.
    pub waiting: Vec<WaitingRevision>,
    /// Revisions past their grace whose objects were deleted.
    pub deleted: Vec<DeletedRevision>,
    /// Days of whose retired revisions nothing was deleted, because the store did not hold what the feed says.
    pub problems: Vec<Problem>,
    /// All objects deleted.
    pub deleted_objects: u64,
    /// The stored bytes of the parts among them.
    pub deleted_bytes: u64,
}

/// A day that the feed let go of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReleasedDay {
    /// The day.
    pub day: Day,
    /// Its revision.
    pub revision: u32,
    /// Its state.
    pub state: State,
    /// Rows of all tables.
    pub rows: u64,
    /// Stored bytes of all tables.
    pub bytes: u64,
    /// Why it went.
    pub reason: ReleaseReason,
    /// When a later run may delete its objects; `None` for never.
    pub deleted_after: Option<DateTime<Utc>>,
}

/// A retired revision within its grace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaitingRevision {
    /// The day.
    pub day: Day,
    /// The revision.
    pub revision: u32,
    /// Why it was retired.
    pub reason: RetiredReason,
    /// When a later run may delete its objects; `None` for never.
    pub deleted_after: Option<DateTime<Utc>>,
}

/// A retired revision past its grace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeletedRevision {
    /// The day.
    pub day: Day,
    /// The revision.
    pub revision: u32,
    /// Why it was retired.
    pub reason: RetiredReason,
    /// When it was retired.
    pub retired_at: DateTime<Utc>,
    /// Objects deleted; none when an earlier run deleted them and died before it could say so.
    pub objects: u64,
    /// The stored bytes of the parts among them.
    pub bytes: u64,
    /// Objects that it names and that stay, because another revision names them too.
    pub shared_objects: u64,
}

/// Why nothing was deleted of a day's retired revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The day.
    pub day: Day,
    /// What is wrong.
    pub what: String,
}

/// Lets days go that have left the retention, and deletes what retired revisions past their grace left in the store.
///
/// Deletes by exact name, decided on the head that stands after days were let go: nothing that this run let go of,
/// and nothing that a published revision or one within its grace names. Safe to interrupt and to repeat: parts go
/// first and manifests last, so the next run finds what is left; a revision whose manifest is gone counts as deleted.
/// The rest of a day is left alone where a manifest is missing, damaged or foreign; such days are in
/// [`PruneReport::problems`] and the others go on. With nothing to do, nothing is written.
///
/// # Errors
/// No feed (class Usage), and failures of the store. After one the days that were let go stay so, and the next run
/// deletes what is left.
pub async fn prune(
    store: &SharedStore,
    rules: &RetentionConfig,
    now: DateTime<Utc>,
    mode: Mode,
) -> anyhow::Result<PruneReport> {
    let shared = store;
    let store = store.as_ref();
    let seen = head::read_existing(store).await?;
    let mut planned = plan(&seen, rules, now);
    if !planned.released.is_empty() {
        check_newest_dump(store, &seen).await?;
    }
    let stands = match mode {
        _ if planned.released.is_empty() => seen,
        Mode::DryRun => let_go(&seen, &planned.released, now),
        Mode::Apply => {
            let edit = |feed: &Feed| {
                planned = plan(feed, rules, now);
                Ok(let_go(feed, &planned.released, now))
            };
            let landed = |feed: &Feed| plan(feed, rules, now).released.is_empty();
            head::change(store, Pulse::None, edit, landed).await.context("cannot let days go")?
        }
    };
    let mut report = PruneReport::of(&stands, planned, rules, now, mode);
    let expired = plan(&stands, rules, now).expired;
    let forgotten = delete_expired(shared, stands, expired, &mut report).await?;
    if mode == Mode::Apply && !forgotten.is_empty() {
        let edit = |feed: &Feed| Ok(forget(feed, &forgotten, now));
        let landed = |feed: &Feed| forget(feed, &forgotten, now) == *feed;
        head::change(store, Pulse::None, edit, landed)
            .await
            .context("objects were deleted, but cannot record that in feed.json")?;
    }
    Ok(report)
}

/// Days leave the feed because the newest full dump has them: it must be there.
///
/// # Errors
/// Class Integrity when it is not; the store's.
async fn check_newest_dump(store: &dyn Store, feed: &Feed) -> anyhow::Result<()> {
    let Some(dump) = feed.newest_full_dump() else { return Ok(()) };
    let found = store.size(&dump.key).await.context("cannot look at the newest full dump")?;
    if found == Some(dump.bytes) {
        return Ok(());
    }
    let problem =
        found.map_or("is not in the store".to_owned(), |bytes| format!("has {bytes} bytes instead of {}", dump.bytes));
    Err(Failure::new(Class::Integrity, format!("the newest full dump, {}, {problem}", dump.key))
        .meaning("no day was let go of: replicas would have nothing to begin with")
        .next("put a new full dump, then prune again")
        .into())
}

/// Deletes (in [`Mode::Apply`]), reports it, and returns the manifests of the revisions that are gone.
///
/// What a day's manifests name is judged day by day; they are read some ahead. The objects of many days are deleted
/// together. Memory: [`DAYS_AHEAD`] days' manifests, and the names of a batch.
async fn delete_expired(
    store: &SharedStore,
    feed: Feed,
    expired: Vec<Retired>,
    report: &mut PruneReport,
) -> anyhow::Result<BTreeSet<Key>> {
    let mut by_day: BTreeMap<Day, Revisions> = BTreeMap::new();
    for retired in expired {
        by_day.entry(retired.day).or_default().expired.push(retired);
    }
    let is_expired: BTreeSet<Key> =
        by_day.values().flat_map(|of_day| &of_day.expired).map(|retired| retired.manifest.key.clone()).collect();
    for retired in &feed.retired {
        if retired.deleted_at.is_none()
            && !is_expired.contains(&retired.manifest.key)
            && let Some(of_day) = by_day.get_mut(&retired.day)
        {
            of_day.within_grace.push((retired.revision, retired.manifest.clone()));
        }
    }
    let feed = Arc::new(feed);
    let judging = by_day.into_iter().map(|(day, revisions)| {
        let (store, feed) = (Arc::clone(store), Arc::clone(&feed));
        async move {
            let manifests: Vec<Key> = revisions.expired.iter().map(|retired| retired.manifest.key.clone()).collect();
            (day, manifests, judge(&*store, &feed, day, revisions).await)
        }
    });
    let mut judged_ahead = Ahead::new(judging, DAYS_AHEAD);
    let mut batch = Batch { mode: report.mode, days: Vec::new(), deletions: Vec::new() };
    let mut gone = BTreeSet::new();
    while let Some(judged) = judged_ahead.next().await {
        let (day, manifests, judged) = judged?;
        match judged {
            Ok(judged) => {
                batch.add(store.as_ref(), day, judged.deletions).await?;
                report.deleted.extend(judged.revisions);
                gone.extend(manifests);
            }
            Err(error) if class_of(&error) == Class::Integrity => {
                report.problems.push(Problem { day, what: format!("{error:#}") });
            }
            Err(error) => {
                // What was judged before goes as it would have gone alone.
                batch.delete(store.as_ref()).await?;
                return Err(error.context(format!("cannot read what to delete of {day}")));
            }
        }
    }
    batch.delete(store.as_ref()).await?;
    report.deleted_objects = report.deleted.iter().map(|revision| revision.objects).sum();
    report.deleted_bytes = report.deleted.iter().map(|revision| revision.bytes).sum();
    Ok(gone)
}

/// The revisions of a day that are not deleted and not published.
#[derive(Default)]
struct Revisions {
    expired: Vec<Retired>,
    /// Revision and record.
    within_grace: Vec<(u32, ManifestRef)>,
}

/// Days that were judged and whose objects are not deleted yet.
struct Batch {
    mode: Mode,
    days: Vec<Day>,
    deletions: Vec<Deletion>,
}

impl Batch {
    /// Adds a day; what is complete is deleted first.
    async fn add(&mut self, store: &dyn Store, day: Day, deletions: Vec<Deletion>) -> anyhow::Result<()> {
        let parts = |deletions: &[Deletion]| {
            deletions.iter().filter(|deletion| deletion.object.kind == ObjectKind::Part).count()
        };
        if parts(&self.deletions) + parts(&deletions) > BATCH_OBJECTS {
            self.delete(store).await?;
        }
        self.days.push(day);
        self.deletions.extend(deletions);
        Ok(())
    }

    /// Parts, then checksums, then manifests; each kind is gone before the next is touched.
    async fn delete(&mut self, store: &dyn Store) -> anyhow::Result<()> {
        let (days, deletions) = (std::mem::take(&mut self.days), std::mem::take(&mut self.deletions));
        if self.mode == Mode::DryRun {
            return Ok(());
        }
        delete_in_order(store, &deletions).await.with_context(|| {
            let days = human_days(&days);
            format!("cannot delete all retired objects of {days}; the next prune goes on")
        })
    }
}

/// What is to be deleted of one day.
struct Judged {
    deletions: Vec<Deletion>,
    revisions: Vec<DeletedRevision>,
}

/// Reads every manifest of `day` that is not deleted, and concludes what may be deleted of the `expired` ones.
///
/// # Errors
/// Class Integrity when any of them is not what the feed says: what it names is unknown then, and another revision of
/// the day may carry the same parts. An expired one that is missing is no error: it was deleted before.
async fn judge(store: &dyn Store, feed: &Feed, day: Day, revisions: Revisions) -> anyhow::Result<Judged> {
    let Revisions { expired, within_grace } = revisions;
    let published = feed.day(day).map(|entry| (entry.revision, &entry.manifest));
    let within_grace = within_grace.iter().map(|(revision, reference)| (*revision, reference));
    let mut still_named = BTreeSet::new();
    for (revision, reference) in published.into_iter().chain(within_grace) {
        let manifest = head::manifest(store, feed, reference).await?;
        still_named.extend(objects_of(day, revision, reference, &manifest)?.into_iter().map(|object| object.key));
    }

    let mut there: Vec<(Retired, Manifest)> = Vec::new();
    for retired in &expired {
        if let Some(manifest) = manifest_if_there(store, feed, &retired.manifest).await? {
            there.push((retired.clone(), manifest));
        }
    }
    let deletions = deletable(&there, &still_named)?;
    let revisions = expired
        .iter()
        .map(|retired| {
            let manifest = there.iter().find(|(other, _)| other.manifest.key == retired.manifest.key);
            deleted_revision(retired, manifest.map(|(_, manifest)| manifest), &deletions, &still_named)
        })
        .collect();
    Ok(Judged { deletions, revisions })
}

async fn manifest_if_there(
    store: &dyn Store,
    feed: &Feed,
    reference: &ManifestRef,
) -> anyhow::Result<Option<Manifest>> {
    match head::manifest(store, feed, reference).await {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) => match error.downcast_ref::<StoreError>() {
            Some(StoreError::NotFound(_)) => Ok(None),
            _ => Err(error),
        },
    }
}

fn deleted_revision(
    retired: &Retired,
    manifest: Option<&Manifest>,
    deletions: &[Deletion],
    still_named: &BTreeSet<Key>,
) -> DeletedRevision {
    let own = || deletions.iter().filter(|deletion| deletion.because == retired.manifest.key);
    DeletedRevision {
        day: retired.day,
        revision: retired.revision,
        reason: retired.reason,
        retired_at: retired.retired_at,
        objects: own().count() as u64,
        bytes: own().filter_map(|deletion| deletion.object.stored_bytes).sum(),
        shared_objects: manifest
            .map_or(0, |manifest| manifest.part_keys().filter(|key| still_named.contains(key)).count() as u64),
    }
}

/// Parts, then checksums, then manifests; each kind is gone before the next is touched.
async fn delete_in_order(store: &dyn Store, deletions: &[Deletion]) -> Result<(), StoreError> {
    for kind in [ObjectKind::Part, ObjectKind::Sums, ObjectKind::Manifest] {
        let keys: Vec<Key> = deletions
            .iter()
            .filter(|deletion| deletion.object.kind == kind)
            .map(|deletion| deletion.object.key.clone())
            .collect();
        if !keys.is_empty() {
            store.delete(&keys).await?;
        }
    }
    Ok(())
}

impl PruneReport {
    fn of(stands: &Feed, planned: Plan, rules: &RetentionConfig, now: DateTime<Utc>, mode: Mode) -> PruneReport {
        let after = plan(stands, rules, now);
        let released_manifests: BTreeSet<&Key> =
            planned.released.iter().map(|released| &released.entry.manifest.key).collect();
        let waiting = after
            .waiting
            .iter()
            .filter(|retired| !released_manifests.contains(&retired.manifest.key))
            .map(|retired| WaitingRevision {
                day: retired.day,
                revision: retired.revision,
                reason: retired.reason,
                deleted_after: deletable_after(retired.retired_at, rules),
            })
            .collect();
        PruneReport {
            mode,
            dataset: stands.dataset.clone(),
            newest_settled: after.newest_settled,
            waiting,
            released: planned.released.into_iter().map(|released| ReleasedDay::of(released, rules, now)).collect(),
            kept: after.kept,
            deleted: Vec::new(),
            problems: Vec::new(),
            deleted_objects: 0,
            deleted_bytes: 0,
        }
    }

    /// What makes the run a failure although it went on to its end.
    pub fn failure(&self) -> Option<Failure> {
        let first = self.problems.first()?;
        let days = counted(self.problems.len(), "day");
        Some(
            Failure::new(
                Class::Integrity,
                format!("retired objects of {days} were kept: {}: {}", first.day, first.what),
            )
            .meaning("nothing was deleted of these days; the published days are untouched")
            .next("compare the store with its backup or remove the day's directory by hand; each prune tries again"),
        )
    }

    /// The report for people: a line per day and revision with its reason, then the sums.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.released.iter().map(|released| released.line(self)).collect();
        lines.extend(self.deleted.iter().map(|deleted| deleted.line(self.mode)));
        lines.extend(self.waiting.iter().map(WaitingRevision::line));
        lines.extend(self.problems.iter().map(|problem| format!("kept {}: {}", problem.day, problem.what)));
        lines.push(self.released_in_all());
        if !self.deleted.is_empty() {
            let revisions = counted(self.deleted.len(), "retired revision");
            let objects = counted(usize::try_from(self.deleted_objects).unwrap_or(usize::MAX), "object");
            let bytes = human_bytes(self.deleted_bytes);
            lines.push(format!("{} {objects} of {revisions}, {bytes}", self.mode.verb("deleted", "would delete")));
        }
        lines
    }

    fn released_in_all(&self) -> String {
        let kept = counted(self.kept.len(), "published day");
        match (self.released.first(), self.newest_settled) {
            (Some(first), _) => {
                let verb = self.mode.verb("released", "would release");
                format!("{verb} {}; {}", counted(self.released.len(), "day"), deleted_after(first.deleted_after))
            }
            (None, Some(_)) if self.kept.iter().any(|kept| kept.reason == KeepReason::SinceFullDump) => {
                format!("nothing to release: {kept}, within retention or not in the newest full dump")
            }
            (None, Some(_)) => format!("nothing to release: {kept}, all within retention"),
            (None, None) => format!("nothing to release: {kept}, none of them final and ended"),
        }
    }
}

impl ReleasedDay {
    fn of(released: Released, rules: &RetentionConfig, now: DateTime<Utc>) -> ReleasedDay {
        let Released { entry, reason } = released;
        ReleasedDay {
            day: entry.day,
            revision: entry.revision,
            state: entry.state,
            rows: entry.rows,
            bytes: entry.bytes,
            reason,
            deleted_after: deletable_after(now, rules),
        }
    }

    fn line(&self, report: &PruneReport) -> String {
        let verb = report.mode.verb("released", "would release");
        let never_final = match self.reason {
            ReleaseReason::OlderThanKeep => "",
            ReleaseReason::NeverFinal => ", and never became final",
        };
        let kept = match (report.kept.first(), report.newest_settled) {
            (Some(oldest), Some(newest)) => format!("older than the days kept, {} to {newest}", oldest.day),
            _ => "older than the days kept".to_owned(),
        };
        let (rows, bytes) = (human_count(self.rows), human_bytes(self.bytes));
        format!("{verb} {} r{} ({rows} rows, {bytes}): {kept}{never_final}", self.day, self.revision)
    }
}

impl DeletedRevision {
    fn line(&self, mode: Mode) -> String {
        let why = format!("{} {}, its grace is over", word(self.reason), human_instant(self.retired_at));
        let shared = match self.shared_objects {
            0 => String::new(),
            shared => format!("; {} of it stay, another revision names them", human_count(shared)),
        };
        let (verb, objects) =
            (mode.verb("deleted", "would delete"), usize::try_from(self.objects).unwrap_or(usize::MAX));
        let (day, revision, bytes) = (self.day, self.revision, human_bytes(self.bytes));
        format!("{verb} {day} r{revision} ({}, {bytes}): {why}{shared}", counted(objects, "object"))
    }
}

impl WaitingRevision {
    fn line(&self) -> String {
        format!("waiting {} r{}: {}, {}", self.day, self.revision, word(self.reason), deleted_after(self.deleted_after))
    }
}

impl Mode {
    fn verb(self, done: &'static str, would: &'static str) -> &'static str {
        match self {
            Mode::Apply => done,
            Mode::DryRun => would,
        }
    }
}

fn word(reason: RetiredReason) -> &'static str {
    match reason {
        RetiredReason::Superseded => "superseded",
        RetiredReason::Pruned => "pruned",
    }
}

fn deleted_after(instant: Option<DateTime<Utc>>) -> String {
    instant.map_or("never deleted".to_owned(), |instant| format!("deleted after {}", human_instant(instant)))
}
