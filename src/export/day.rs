//! One day into the feed: lock, settle, snapshot, slices, manifest, swap.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use chrono::Utc;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::detect::{self, Verdict};
use super::facts::Later;
use super::guard::{self, TooFew};
use super::plan::{self, Candidate, Comparison, Decision, Force, Rules, Shrink, Why};
use super::reading::{Occasion, ReadSlice, Readers, after_discarding, discard};
use super::settle::{self, Settlement, Standing};
use super::slice::{self, Staged, StagedPart};
use super::snapshot::{self, Snapshot};
use super::wait::{self, Patience, Waited};
use super::{lock, standby};
use crate::config::{Config, Unsettled};
use crate::day::{Day, Window};
use crate::error::{Class, Failure, class_of};
use crate::feed::{DayEntry, Feed, ManifestRef, Pulse};
use crate::head;
use crate::layout::{AttemptDirectory, Key, sums_beside};
use crate::manifest::{self, Manifest, Slice, State, Taken};
use crate::pg::{Endpoint, PgError};
use crate::progress::Progress;
use crate::store::{SharedStore, StoreError, create_verified, finish_verified};

/// What every day of a run shares.
#[derive(Clone)]
pub struct Exporter {
    /// The dataset.
    pub config: Arc<Config>,
    /// The source.
    pub source: Endpoint,
    /// The store.
    pub store: SharedStore,
    /// How decisions may be overruled.
    pub rules: Rules,
    /// Whether another system, or an older timeline, is accepted.
    pub new_source: NewSource,
    /// Until when it waits for days to settle.
    pub patience: Patience,
    /// Ends the run.
    pub cancel: CancellationToken,
    /// What a person sees meanwhile.
    pub progress: Progress,
}

/// `--new-source`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSource {
    /// Another system identifier, or an older timeline of the same, is refused.
    Refused,
    /// It takes the place of the known one.
    Accepted,
}

/// What became of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The entry that stands in the feed now; of an unchanged day with the moment at which that was found.
    pub entry: DayEntry,
    /// Whether this run made it.
    pub change: Change,
    /// Why it is not final, in words.
    pub unsettled: Vec<String>,
    /// The sequence of the head that holds the entry.
    pub sequence: u64,
}

/// Whether a run changed a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new revision.
    Published,
    /// A provisional revision became final over the same parts.
    Settled,
    /// A provisional revision stays so over the same parts, and says when its rows were counted again.
    Recounted,
    /// Nothing.
    Unchanged,
}

/// What came of one try to publish a day.
enum Attempted {
    Done(Box<Published>),
    /// A standby cancelled what was being read, and nothing of it is published: worth another try.
    Cancelled(anyhow::Error),
}

/// A slice of a day that was looked at.
enum Examined {
    /// It was read.
    Read(Box<ReadSlice>),
    /// The published one has its rows.
    Kept(Box<Slice>),
}

impl Examined {
    fn slice(&self) -> &Slice {
        match self {
            Examined::Read(read) => &read.slice,
            Examined::Kept(slice) => slice,
        }
    }

    fn read(self) -> Option<ReadSlice> {
        match self {
            Examined::Read(read) => Some(*read),
            Examined::Kept(_) => None,
        }
    }
}

impl Exporter {
    /// Publishes `candidate`, or finds that there is nothing to publish.
    ///
    /// Complete or invisible: parts, then checksums, then the manifest, then one swap of feed.json. Whatever fails
    /// before the swap leaves the feed as it was; objects of this attempt are removed as far as possible, and nothing
    /// ever names them.
    ///
    /// # Errors
    /// Class Locked when another run exports the day; NotSettled when it has not ended; otherwise the source's, the
    /// store's, and the refusals of [`plan`]. What a standby cancels for its replay is tried again first.
    pub async fn publish(&self, candidate: Candidate) -> anyhow::Result<Published> {
        let mut pauses = standby::PAUSES.into_iter();
        loop {
            let error = match self.try_to_publish(candidate).await? {
                Attempted::Done(published) => return Ok(*published),
                Attempted::Cancelled(error) => error,
            };
            let Some(pause) = pauses.next() else { return Err(standby::given_up(candidate.day, &error).into()) };
            let seconds = pause.as_secs();
            self.progress.suspend(|| {
                let day = candidate.day;
                tracing::warn!(
                    "{day}: the standby cancelled the reading for its replay, next try in {seconds} s: {error:#}"
                );
            });
            self.cancel.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or(PgError::Cancelled)?;
        }
    }

    async fn try_to_publish(&self, candidate: Candidate) -> anyhow::Result<Attempted> {
        let day = candidate.day;
        let window = self.config.timezone.window(day);
        // A connection of its own: it holds the day's lock, and a failure ends this day only.
        let client = match self.unless_cancelled(self.source.own_client()).await.context("cannot connect to the source")
        {
            Err(error) if standby::cancelled_for_replay(&error, false) => return Ok(Attempted::Cancelled(error)),
            client => client?,
        };
        let ready = self.unless_cancelled(self.make_ready(&client, candidate, window)).await;
        let Ready { feed, published, settlement, standing, refusal, snapshot } = match ready {
            Err(error) if standby::cancelled_for_replay(&error, false) => return Ok(Attempted::Cancelled(error)),
            ready => ready?,
        };
        let facts = &settlement.facts;
        let attempt = Attempt {
            exporter: self,
            day,
            window,
            attempt_id: head::random_attempt(),
            feed: &feed,
            published: published.as_ref(),
            taken: snapshot.taken.clone(),
            facts,
            refusal,
        };
        let outcome = attempt.examine_and_publish(&snapshot, standing, candidate.why).await;
        let released = self.unless_cancelled(async { Ok(snapshot.release().await?) }).await;
        let Examination { entry, change, too_few, sequence } = match outcome {
            Err(error) if facts.standby.is_some() && standby::cancelled_for_replay(&error, client.is_closed()) => {
                return Ok(Attempted::Cancelled(error));
            }
            outcome => outcome?,
        };
        if let Err(error) = released {
            tracing::debug!(%error, "the snapshot's transaction had ended before it was released");
        }
        let mut unsettled = Vec::new();
        if entry.state == State::Provisional {
            unsettled = settlement.words();
            unsettled.extend(too_few.iter().map(TooFew::to_string));
        }
        Ok(Attempted::Done(Box::new(Published { entry, change, unsettled, sequence })))
    }

    /// Locks the day, waits for it as long as that is wanted, checks that it may be exported, and takes its snapshot.
    /// Writes nothing.
    async fn make_ready<'c>(
        &self,
        client: &'c Client,
        candidate: Candidate,
        window: Window,
    ) -> anyhow::Result<Ready<'c>> {
        let day = candidate.day;
        lock::day(client, &self.config.dataset, day).await?;

        let facts = self.after_the_end(client, candidate, window).await?;
        if window.end > facts.now {
            return Err(not_ended(day, window, &self.config).into());
        }
        let (mut feed, mut published) = self.published(day, window, &facts).await?;
        snapshot::check_zones(client, self.config.timezone, day, window, &self.config.tables).await?;

        let (settlement, mut standing, waited) = self.settled(client, candidate, window, published.as_ref()).await?;
        if waited == Waited::Yes {
            (feed, published) = self.published(day, window, &settlement.facts).await?;
            standing = settle::standing(&settlement, published.as_ref(), window, self.config.export.settle);
        }
        let refusal = (standing != Standing::Final && self.config.export.unsettled != Unsettled::Provisional)
            .then(|| not_settled(day, &settlement));
        if let Some(refusal) = refusal.clone().filter(|_| !wait::is_final_already(candidate, published.as_ref())) {
            return Err(refusal.into());
        }
        let export = &self.config.export;
        let snapshot = Snapshot::take(client, &self.config.tables, export.detect, &settlement.facts).await?;
        if let (Some(published), Some(standby)) = (&published, &settlement.facts.standby) {
            standby::check_not_behind(published, &snapshot.taken, standby)?;
        }
        Ok(Ready { feed, published, settlement, standing, refusal, snapshot })
    }

    /// The head as it is now, into which the day must fit, and the day's published revision.
    async fn published(
        &self,
        day: Day,
        window: Window,
        facts: &settle::SourceFacts,
    ) -> anyhow::Result<(Feed, Option<Manifest>)> {
        let feed = head::read_existing(&*self.store).await?;
        plan::check_neighbours(&feed, self.config.timezone.name(), day, window)?;
        if self.new_source == NewSource::Refused {
            plan::check_source(&feed, &facts.identity)?;
        }
        let published = match feed.day(day) {
            Some(entry) => self.readable(day, head::day_manifest(&*self.store, &feed, entry).await)?,
            None => None,
        };
        Ok((feed, published))
    }

    /// The published revision; none where its manifest is damaged and `--force` publishes whatever is there.
    fn readable(&self, day: Day, read: anyhow::Result<Manifest>) -> anyhow::Result<Option<Manifest>> {
        match read {
            Err(error) if self.rules.force == Force::Yes && class_of(&error) == Class::Integrity => {
                self.progress.suspend(|| tracing::warn!("{day}: the published revision is given up: {error:#}"));
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// What `work` comes to, unless the run is ended first: the driver waits for a silent server as long as that is
    /// silent. For work that may be dropped at any point.
    async fn unless_cancelled<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(PgError::Cancelled.into()))
    }
}

/// A day that is locked, may be exported, and has its snapshot.
struct Ready<'c> {
    /// The head as it is now.
    feed: Feed,
    /// The day's published revision.
    published: Option<Manifest>,
    settlement: Settlement,
    standing: Standing,
    /// Why a new revision of it may not be published.
    refusal: Option<Failure>,
    snapshot: Snapshot<'c>,
}

/// What an attempt came to.
struct Examination {
    entry: DayEntry,
    change: Change,
    /// Tables with fewer rows than expected, for which the day stays provisional.
    too_few: Vec<TooFew>,
    /// Of the head that holds the entry.
    sequence: u64,
}

/// One attempt to publish a day, under its lock and snapshot.
struct Attempt<'a> {
    exporter: &'a Exporter,
    day: Day,
    window: Window,
    attempt_id: String,
    /// The head that the attempt started from.
    feed: &'a Feed,
    /// The day's published revision.
    published: Option<&'a Manifest>,
    taken: Taken,
    facts: &'a settle::SourceFacts,
    /// Why nothing new may be published of it.
    refusal: Option<Failure>,
}

impl Attempt<'_> {
    async fn examine_and_publish(
        &self,
        snapshot: &Snapshot<'_>,
        standing: Standing,
        why: Why,
    ) -> anyhow::Result<Examination> {
        let examined = self.examine(snapshot, standing, why).await?;
        let slices: Vec<Slice> = examined.iter().map(|examined| examined.slice().clone()).collect();
        let too_few = self.too_few(&slices, why);
        let standing = if too_few.is_empty() { standing } else { Standing::Provisional };
        let state = settle::state(standing, self.published, &slices);
        let decision = self.decide(&slices, standing, state, why).and_then(|decision| {
            let expect = self.exporter.config.export.expect;
            guard::judge(&too_few, expect, self.day, decision, self.published).map(|()| decision)
        });
        let mut created = Vec::new();
        let (written, change) = match (decision, self.published) {
            (Ok(Decision::Publish { revision }), _) => {
                let slices = self.publish_parts(examined, &mut created).await;
                (self.publish_manifest(slices, revision, state, &mut created).await, Change::Published)
            }
            (Ok(decision @ (Decision::Settle { revision } | Decision::Recount { revision })), Some(published)) => {
                only_room(discard(examined.into_iter().filter_map(Examined::read)).await);
                let of_today = |old: &Slice| {
                    slices.iter().find(|slice| (&slice.schema, &slice.table) == (&old.schema, &old.table))
                };
                let carried = published.slices.iter().map(|old| {
                    let detect = of_today(old).and_then(|slice| slice.detect.clone()).or_else(|| old.detect.clone());
                    Slice { detect, ..carry(old, old, published) }
                });
                let carried = carried.collect();
                let settles = matches!(decision, Decision::Settle { .. });
                let change = if settles { Change::Settled } else { Change::Recounted };
                (self.publish_manifest(Ok(carried), revision, state, &mut created).await, change)
            }
            (Ok(Decision::Unchanged | Decision::Settle { .. } | Decision::Recount { .. }), _) => {
                only_room(discard(examined.into_iter().filter_map(Examined::read)).await);
                let entry = self.feed.day(self.day).ok_or_else(|| anyhow!("{} is not published", self.day))?;
                let seen = DayEntry { taken: Some(self.taken.clone()), ..entry.clone() };
                return Ok(Examination {
                    entry: seen,
                    change: Change::Unchanged,
                    too_few,
                    sequence: self.feed.sequence,
                });
            }
            (Err(refusal), _) => {
                let read = examined.into_iter().filter_map(Examined::read);
                return Err(after_discarding(read, refusal.into()).await);
            }
        };
        let entry = match written {
            Ok(_) if self.exporter.cancel.is_cancelled() => {
                self.remove(&created).await;
                return Err(PgError::Cancelled.into());
            }
            Ok(entry) => entry,
            Err(error) => {
                self.remove(&created).await;
                return Err(error);
            }
        };
        // From here on an error leaves it unknown whether the day stands: nothing is removed.
        let sequence = self.swap(&entry).await?;
        Ok(Examination { entry, change, too_few, sequence })
    }

    fn decide(&self, slices: &[Slice], standing: Standing, state: State, why: Why) -> Result<Decision, Failure> {
        let last_revision = self.feed.last_revision(self.day);
        let decision = plan::decide(self.published, last_revision, slices, state, why, self.exporter.rules)?;
        if let (Decision::Publish { .. }, Some(refusal)) = (decision, &self.refusal) {
            return Err(refusal.clone());
        }
        Ok(match (decision, standing, self.published) {
            (Decision::Unchanged, Standing::FirstCount, Some(published)) => {
                Decision::Recount { revision: published.revision }
            }
            (decision, ..) => decision,
        })
    }

    /// Few rows are accepted of days that were named with that in mind, and of final days that lose none.
    fn too_few(&self, slices: &[Slice], why: Why) -> Vec<TooFew> {
        let accepted = why == Why::Named && self.exporter.rules.shrink == Shrink::Accepted;
        let holds = |old: &Slice| {
            slices
                .iter()
                .any(|slice| (&slice.schema, &slice.table) == (&old.schema, &old.table) && slice.rows >= old.rows)
        };
        let grows = |published: &Manifest| published.state == State::Final && published.slices.iter().all(holds);
        if accepted || self.published.is_some_and(grows) {
            return Vec::new();
        }
        guard::too_few(&self.exporter.config.tables, slices, self.feed, self.day)
    }

    /// What the day has now, table by table. A published day is looked at first; what has the same rows is not read.
    async fn examine(&self, snapshot: &Snapshot<'_>, standing: Standing, why: Why) -> anyhow::Result<Vec<Examined>> {
        let directory = self.directory(self.feed.last_revision(self.day) + 1);
        let readers = Readers::of(self.exporter, snapshot, (self.day, self.window), directory);
        let all: Vec<usize> = (0..readers.tables()).collect();
        let later = if standing == Standing::Final { Later::WrittenSince } else { Later::Versions };
        let occasion = |looks| Occasion { feed: self.feed, looks, later };
        let published = match self.published {
            Some(published) if detect::is_looked_at(self.published, why, self.exporter.rules.force) => published,
            _ => {
                let read = readers.read(&all, snapshot, occasion(None)).await?;
                return Ok(read.into_iter().map(|(_, read)| Examined::Read(Box::new(read))).collect());
            }
        };
        let looks = readers.look(published).await?;
        let described: Vec<Slice> = all.iter().map(|index| readers.question(*index).described()).collect();
        let verdict = |index: usize| {
            let look = (readers.way(index), &looks[index]);
            detect::verdict(published, &described[index], look, &self.taken, (why, standing))
        };
        let verdicts: Vec<Verdict> = all.iter().map(|index| verdict(*index)).collect();
        let is_table_of = |slice: &Slice, old: &Slice| slice.schema == old.schema && slice.table == old.table;
        let left = |old: &&Slice| !described.iter().any(|slice| is_table_of(slice, old));
        let wanted = detect::to_read(&verdicts, published.slices.iter().filter(left).count());
        tracing::debug!("{}: {} of {} tables are read again", self.day, wanted.len(), all.len());
        let excluded: Vec<Option<u64>> =
            looks.iter().map(|look| look.detected.as_ref().map(|_| look.outside_time)).collect();
        let mut read = VecDeque::from(readers.read(&wanted, snapshot, occasion(Some(looks))).await?);
        let mut examined = Vec::new();
        for index in all {
            if let Some((_, read)) = read.pop_front_if(|(place, _)| *place == index) {
                examined.push(Examined::Read(Box::new(read)));
            } else if let Some(old) = published.slices.iter().find(|old| is_table_of(&described[index], old)) {
                let excluded_rows = excluded[index].unwrap_or(old.excluded_rows);
                examined.push(Examined::Kept(Box::new(Slice { excluded_rows, ..carry(old, old, published) })));
            }
        }
        Ok(examined)
    }

    /// Makes the parts visible, or carries published ones that hold the same rows. `created` lists what may be in the
    /// store already, whatever the outcome.
    async fn publish_parts(&self, examined: Vec<Examined>, created: &mut Vec<Key>) -> anyhow::Result<Vec<Slice>> {
        let mut slices = Vec::new();
        let mut waiting = VecDeque::from(examined);
        while let Some(examined) = waiting.pop_front() {
            let published = match examined {
                Examined::Kept(slice) => Ok(*slice),
                Examined::Read(read) => self.publish_slice(read.slice, read.staged, created).await,
            };
            match published {
                Ok(slice) => slices.push(slice),
                Err(error) => return Err(after_discarding(waiting.into_iter().filter_map(Examined::read), error).await),
            }
        }
        Ok(slices)
    }

    async fn publish_slice(&self, slice: Slice, staged: Staged, created: &mut Vec<Key>) -> anyhow::Result<Slice> {
        if let Some(carried) = self.carried(&slice) {
            only_room(staged.abort().await);
            return Ok(carried);
        }
        let mut parts = VecDeque::from(staged.parts);
        while let Some(StagedPart { key, encoded, upload }) = parts.pop_front() {
            created.push(key.clone());
            let finished = finish_verified(&*self.exporter.store, &key, encoded.stored_bytes, upload).await;
            if let Err(error) = finished {
                let rest = slice::abort_all(parts.into_iter().map(|part| part.upload).collect()).await;
                return Err(slice::not_removed(error.into(), rest));
            }
        }
        Ok(slice)
    }

    /// Writes SHA256SUMS, then the manifest.
    async fn publish_manifest(
        &self,
        slices: anyhow::Result<Vec<Slice>>,
        revision: u32,
        state: State,
        created: &mut Vec<Key>,
    ) -> anyhow::Result<DayEntry> {
        let manifest = Manifest {
            format: manifest::FORMAT,
            feed_id: self.feed.feed_id.clone(),
            dataset: self.feed.dataset.clone(),
            day: self.day,
            window: self.window,
            timezone: self.exporter.config.timezone.name().to_owned(),
            revision,
            state,
            taken: self.taken.clone(),
            server_version: self.facts.server_version.clone(),
            pgslice_version: env!("CARGO_PKG_VERSION").to_owned(),
            slices: slices?,
        };
        let store = &*self.exporter.store;
        let key = self.directory(revision).manifest();
        let sums = sums_beside(&key);
        created.push(sums.clone());
        create_verified(store, &sums, manifest.sums(&key).into()).await?;
        let bytes = manifest.to_bytes();
        let sha256 = hex::encode(Sha256::digest(&bytes));
        created.push(key.clone());
        create_verified(store, &key, bytes.into()).await?;
        Ok(DayEntry::of(&manifest, ManifestRef { key, sha256 }))
    }

    fn directory(&self, revision: u32) -> AttemptDirectory {
        AttemptDirectory::new(self.exporter.config.store.layout, self.day, revision, &self.attempt_id)
    }

    /// The published slice with the same rows, under the description of today, if its parts can serve again.
    fn carried(&self, slice: &Slice) -> Option<Slice> {
        if self.exporter.rules.force == Force::Yes {
            return None;
        }
        let published = self.published?;
        let old = published.slices.iter().find(|old| old.schema == slice.schema && old.table == slice.table)?;
        (plan::compare(slice, old) != Comparison::Different).then(|| carry(slice, old, published))
    }

    /// Publishes `entry`, unless the day's entry is no longer the one this attempt started from. Returns the sequence of
    /// the head that holds it.
    async fn swap(&self, entry: &DayEntry) -> anyhow::Result<u64> {
        let seen = self.feed;
        let before = seen.day(self.day).map(|entry| &entry.manifest);
        let facts = self.facts;
        let timezone = self.exporter.config.timezone.name();
        let now = Utc::now();
        let changed = head::change(
            &*self.exporter.store,
            Pulse::Beat(now),
            |feed| {
                if feed.feed_id != seen.feed_id || feed.day(self.day).map(|entry| &entry.manifest) != before {
                    return Err(Failure::new(
                        Class::Locked,
                        format!("{} was published by another run meanwhile", self.day),
                    )
                    .meaning("the other run's revision stands")
                    .next("run again if the day should be looked at once more")
                    .into());
                }
                plan::check_neighbours(feed, timezone, self.day, self.window)?;
                if self.exporter.new_source == NewSource::Refused {
                    plan::check_source(feed, &facts.identity)?;
                }
                Ok(Feed { timezone: timezone.to_owned(), ..feed.with_day(entry.clone(), facts.identity.clone(), now) })
            },
            |feed| feed.day(self.day).is_some_and(|present| present.manifest == entry.manifest),
        )
        .await?;
        Ok(changed.sequence)
    }

    /// Removes what this attempt made; nothing names it.
    async fn remove(&self, created: &[Key]) {
        if let Err(error) = self.exporter.store.delete(created).await {
            tracing::warn!("objects of a failed attempt at {} are left behind, invisible: {error}", self.day);
        }
    }
}

/// `slice` over the parts of `old`, which holds the same rows.
fn carry(slice: &Slice, old: &Slice, published: &Manifest) -> Slice {
    Slice {
        stored_bytes: old.stored_bytes,
        taken: Some(published.taken_of(old).clone()),
        parts: old.parts.clone(),
        ..slice.clone()
    }
}

/// What was staged and is not needed costs only room where it cannot be removed.
fn only_room(removed: Result<(), StoreError>) {
    if let Err(left) = removed {
        tracing::warn!("what was read again and is not needed is left in the store, invisible: {left}");
    }
}

fn not_settled(day: Day, settlement: &Settlement) -> Failure {
    Failure::new(Class::NotSettled, format!("{day} is not settled: {}", settlement.words().join("; ")))
        .meaning("rows could still be added to it; it was not exported")
        .next("run again later, with --wait to wait longer, or set unsettled = \"provisional\"")
}

fn not_ended(day: Day, window: Window, config: &Config) -> Failure {
    Failure::new(
        Class::NotSettled,
        format!(
            "{day} ends at {} ({}) by the source's clock",
            window.end.format("%Y-%m-%d %H:%M:%S UTC"),
            config.timezone.name()
        ),
    )
    .meaning("a day is published when it is over; nothing was exported")
    .next("run again after that")
}
