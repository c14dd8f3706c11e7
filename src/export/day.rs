//! One day into the feed: lock, settle, snapshot, slices, manifest, swap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use chrono::Utc;
use sha2::{Digest, Sha256};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Candidate, Comparison, Decision, Force, Rules, Why};
use super::settle::{self, Settlement};
use super::slice::{self, Hands, Reading, Staged, StagedPart};
use super::snapshot::{self, Invitation, SliceFacts, Snapshot};
use super::{access, lock, standby};
use crate::codec::RowFormat;
use crate::config::{Config, Unsettled};
use crate::day::{Day, Window};
use crate::error::{Class, Failure, class_of};
use crate::feed::{DayEntry, Feed, ManifestRef, Pulse};
use crate::head;
use crate::layout::{AttemptDirectory, Key, sums_beside};
use crate::manifest::{self, Manifest, Slice, State, Taken};
use crate::pg::{Endpoint, PgError, Session};
use crate::progress::Progress;
use crate::store::{SharedStore, StoreError, create_verified, finish_verified};
use crate::table::SourceTable;

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
    /// The entry that stands in the feed now.
    pub entry: DayEntry,
    /// Whether this run made it.
    pub change: Change,
    /// Why it is not final, in words.
    pub unsettled: Vec<String>,
}

/// Whether a run changed a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new revision.
    Published,
    /// A provisional revision became final over the same parts.
    Settled,
    /// Nothing.
    Unchanged,
}

/// What came of one try to publish a day.
enum Attempted {
    Done(Box<Published>),
    /// A standby cancelled what was being read, and nothing of it is published: worth another try.
    Cancelled(anyhow::Error),
}

/// A slice that was read, and what is to be done to make it real.
struct ReadSlice {
    slice: Slice,
    staged: Staged,
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
        let ready = self.unless_cancelled(self.make_ready(&client, day, window)).await;
        let Ready { facts, feed, published, settlement, snapshot } = match ready {
            Err(error) if standby::cancelled_for_replay(&error, false) => return Ok(Attempted::Cancelled(error)),
            ready => ready?,
        };
        let attempt = Attempt {
            exporter: self,
            day,
            window,
            attempt_id: head::random_attempt(),
            feed: &feed,
            published: published.as_ref(),
            taken: snapshot.taken.clone(),
            facts: &facts,
        };
        let outcome = attempt.read_and_publish(&snapshot, settlement.state, candidate.why).await;
        let released = self.unless_cancelled(async { Ok(snapshot.release().await?) }).await;
        let (entry, change) = match outcome {
            Err(error) if facts.standby.is_some() && standby::cancelled_for_replay(&error, client.is_closed()) => {
                return Ok(Attempted::Cancelled(error));
            }
            outcome => outcome?,
        };
        if let Err(error) = released {
            tracing::debug!(%error, "the snapshot's transaction had ended before it was released");
        }
        let unsettled = if entry.state == State::Provisional { settlement.reasons } else { Vec::new() };
        Ok(Attempted::Done(Box::new(Published { entry, change, unsettled })))
    }

    /// Locks the day, checks that it may be exported, and takes its snapshot. Writes nothing.
    async fn make_ready<'c>(&self, client: &'c Client, day: Day, window: Window) -> anyhow::Result<Ready<'c>> {
        lock::day(client, &self.config.dataset, day).await?;

        let facts = settle::source_facts(client).await?;
        if window.end > facts.now {
            return Err(not_ended(day, window, &self.config).into());
        }
        let feed = head::read_existing(&*self.store).await?;
        plan::check_neighbours(&feed, self.config.timezone.name(), day, window)?;
        if self.new_source == NewSource::Refused {
            plan::check_source(&feed, &facts.identity)?;
        }
        snapshot::check_zones(client, self.config.timezone, day, window, &self.config.tables).await?;
        let published = match feed.day(day) {
            Some(entry) => Some(head::day_manifest(&*self.store, &feed, entry).await?),
            None => None,
        };

        let settlement = settle::settlement(client, window, self.config.export.settle).await?;
        if settlement.state == State::Provisional && self.config.export.unsettled == Unsettled::Refuse {
            return Err(Failure::new(
                Class::NotSettled,
                format!("{day} is not settled: {}", settlement.reasons.join("; ")),
            )
            .meaning("rows could still be added to it; it was not exported")
            .next("run again later, or set unsettled = \"provisional\"")
            .into());
        }
        let snapshot = Snapshot::take(client, &self.config.tables, &facts).await?;
        if let (Some(published), Some(standby)) = (&published, &facts.standby) {
            standby::check_not_behind(published, &snapshot.taken, standby)?;
        }
        Ok(Ready { facts, feed, published, settlement, snapshot })
    }

    /// What `work` comes to, unless the run is ended first: the driver waits for a silent server as long as that is
    /// silent. For work that may be dropped at any point.
    async fn unless_cancelled<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(PgError::Cancelled.into()))
    }
}

/// A day that is locked, may be exported, and has its snapshot.
struct Ready<'c> {
    facts: settle::SourceFacts,
    /// The head as it is now.
    feed: Feed,
    /// The day's published revision.
    published: Option<Manifest>,
    settlement: Settlement,
    snapshot: Snapshot<'c>,
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
}

impl Attempt<'_> {
    async fn read_and_publish(
        &self,
        snapshot: &Snapshot<'_>,
        state: State,
        why: Why,
    ) -> anyhow::Result<(DayEntry, Change)> {
        let read = self.read_slices(snapshot).await?;
        let slices: Vec<Slice> = read.iter().map(|read| read.slice.clone()).collect();
        let last_revision = self.feed.last_revision(self.day);
        let decision = plan::decide(self.published, last_revision, &slices, state, why, self.exporter.rules);
        let mut created = Vec::new();
        let (written, change) = match (decision, self.published) {
            (Ok(Decision::Publish { revision }), _) => {
                let slices = self.publish_parts(read, &mut created).await;
                (self.publish_manifest(slices, revision, state, &mut created).await, Change::Published)
            }
            (Ok(Decision::Settle { revision }), Some(published)) => {
                only_room(discard(read).await);
                let carried = published.slices.iter().map(|slice| carry(slice, slice, published)).collect();
                (self.publish_manifest(Ok(carried), revision, state, &mut created).await, Change::Settled)
            }
            (Ok(Decision::Unchanged | Decision::Settle { .. }), _) => {
                only_room(discard(read).await);
                let entry = self.feed.day(self.day).ok_or_else(|| anyhow!("{} is not published", self.day))?;
                return Ok((entry.clone(), Change::Unchanged));
            }
            (Err(refusal), _) => return Err(after_discarding(read, refusal.into()).await),
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
        self.swap(&entry).await?;
        Ok((entry, change))
    }

    /// Reads every slice through `jobs` connections that share the snapshot. The first failure ends the others.
    async fn read_slices(&self, snapshot: &Snapshot<'_>) -> anyhow::Result<Vec<ReadSlice>> {
        let tables = Arc::new(snapshot.tables.clone());
        let queue: Arc<Mutex<VecDeque<usize>>> = Arc::new(Mutex::new((0..tables.len()).collect()));
        let cancel = self.exporter.cancel.child_token();
        let mut workers = JoinSet::new();
        for _ in 0..self.exporter.config.export.jobs.min(tables.len()) {
            let worker = Worker {
                exporter: self.exporter.clone(),
                tables: Arc::clone(&tables),
                queue: Arc::clone(&queue),
                cancel: cancel.clone(),
                invitation: snapshot.invitation(),
                day: self.day,
                window: self.window,
                directory: self.directory(self.feed.last_revision(self.day) + 1),
            };
            workers.spawn(worker.run());
        }
        let (mut read, mut failure): (Vec<(usize, ReadSlice)>, Option<anyhow::Error>) = (Vec::new(), None);
        while let Some(joined) = workers.join_next().await {
            let (done, outcome) = match joined {
                Ok(outcome) => outcome,
                Err(panic) => (Vec::new(), Err(anyhow::Error::new(panic))),
            };
            read.extend(done);
            if let Err(error) = outcome {
                cancel.cancel();
                // What was cancelled because of another failure is not worth telling, though it may be heard first.
                if failure.as_ref().is_none_or(|told| class_of(told) == Class::Interrupted) {
                    failure = Some(error);
                }
            }
        }
        read.sort_by_key(|(index, _)| *index);
        let read: Vec<ReadSlice> = read.into_iter().map(|(_, slice)| slice).collect();
        match failure {
            Some(error) => Err(after_discarding(read, error).await),
            None => Ok(read),
        }
    }

    /// Makes the parts visible, or carries published ones that hold the same rows. `created` lists what may be in the
    /// store already, whatever the outcome.
    async fn publish_parts(&self, read: Vec<ReadSlice>, created: &mut Vec<Key>) -> anyhow::Result<Vec<Slice>> {
        let mut slices = Vec::new();
        let mut waiting = VecDeque::from(read);
        while let Some(ReadSlice { slice, staged }) = waiting.pop_front() {
            match self.publish_slice(slice, staged, created).await {
                Ok(slice) => slices.push(slice),
                Err(error) => return Err(after_discarding(waiting, error).await),
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

    /// Publishes `entry`, unless the day's entry is no longer the one this attempt started from.
    async fn swap(&self, entry: &DayEntry) -> anyhow::Result<()> {
        let seen = self.feed;
        let before = seen.day(self.day).map(|entry| &entry.manifest);
        let facts = self.facts;
        let timezone = self.exporter.config.timezone.name();
        let now = Utc::now();
        head::change(
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
        Ok(())
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

/// Gives up what was staged; the first error is returned when all was tried.
async fn discard(read: impl IntoIterator<Item = ReadSlice>) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    for ReadSlice { staged, .. } in read {
        let aborted = staged.abort().await;
        outcome = outcome.and(aborted);
    }
    outcome
}

/// What was staged and is not needed costs only room where it cannot be removed.
fn only_room(removed: Result<(), StoreError>) {
    if let Err(left) = removed {
        tracing::warn!("what was read again and is not needed is left in the store, invisible: {left}");
    }
}

async fn after_discarding(read: impl IntoIterator<Item = ReadSlice>, error: anyhow::Error) -> anyhow::Error {
    let discarded = discard(read).await;
    slice::not_removed(error, discarded)
}

/// One of the connections that read slices.
struct Worker {
    exporter: Exporter,
    tables: Arc<Vec<SourceTable>>,
    queue: Arc<Mutex<VecDeque<usize>>>,
    cancel: CancellationToken,
    invitation: Invitation,
    day: Day,
    window: Window,
    directory: AttemptDirectory,
}

impl Worker {
    /// Reads slices until none is left or one fails; those that were read come back in either case.
    async fn run(self) -> (Vec<(usize, ReadSlice)>, anyhow::Result<()>) {
        let mut done = Vec::new();
        let outcome = self.read_into(&mut done).await;
        if outcome.is_err() {
            self.cancel.cancel();
        }
        (done, outcome)
    }

    async fn read_into(&self, done: &mut Vec<(usize, ReadSlice)>) -> anyhow::Result<()> {
        let (source, cancel) = (self.exporter.source.clone(), self.cancel.clone());
        let invitation = self.invitation.clone();
        let mut session = spawn_blocking(move || -> anyhow::Result<Session> {
            let mut session = source.session(&cancel)?;
            invitation.accept(&mut session)?;
            Ok(session)
        })
        .await?
        .context("cannot read the day's snapshot")?;
        while let Some(index) = self.next() {
            let table = &self.tables[index];
            let named = || format!("{} {}", self.day, table.relation.qualified_name());
            let (returned, read) = self.read(session, index).await;
            done.push((index, read.with_context(named).map_err(access::explain)?));
            session = returned.ok_or_else(|| anyhow!("the session of a worker is lost"))?;
        }
        Ok(())
    }

    fn next(&self) -> Option<usize> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    async fn read(&self, mut session: Session, index: usize) -> (Option<Session>, anyhow::Result<ReadSlice>) {
        let config = &self.exporter.config;
        let (tables, day, window, zone) = (Arc::clone(&self.tables), self.day, self.window, config.timezone);
        let asked = spawn_blocking(move || {
            let facts = snapshot::slice_facts(&mut session, &tables[index], &tables, zone, day, window);
            (session, facts)
        })
        .await;
        let (session, facts) = match asked {
            Ok((session, Ok(facts))) => (session, facts),
            Ok((session, Err(error))) => return (Some(session), Err(error)),
            Err(panic) => return (None, Err(panic.into())),
        };
        let table = &self.tables[index];
        let (select, format) = (table.select(&self.tables, zone, day, window), table.config.format);
        let reading = Reading {
            copy: format!("copy ({select}) to stdout{}", format.copy_options()),
            format: RowFormat::new(format, &table.columns),
            names: self.directory.parts(&table.relation.schema, &table.relation.name, format),
            level: table.config.compression_level.unwrap_or(config.export.compression_level),
        };
        let hands = Hands { progress: &self.exporter.progress, cancel: &self.cancel };
        let (session, staged) = slice::stage(session, reading, &*self.exporter.store, hands).await;
        (session, staged.map(|staged| ReadSlice { slice: self.describe(table, facts, &staged), staged }))
    }

    fn describe(&self, table: &SourceTable, facts: SliceFacts, staged: &Staged) -> Slice {
        Slice {
            schema: table.relation.schema.clone(),
            table: table.relation.name.clone(),
            kind: table.kind(),
            columns: table.columns.clone(),
            omitted_columns: table.omitted.clone(),
            key: table.key.clone(),
            time: table.bounds(self.exporter.config.timezone, self.day, self.window),
            filtered: table.is_filtered(),
            excluded_rows: facts.outside_time,
            format: table.config.format,
            rows: staged.tally.rows,
            raw_bytes: staged.tally.raw_bytes,
            stored_bytes: staged.parts.iter().map(|part| part.encoded.stored_bytes).sum(),
            min_time: facts.min_time,
            max_time: facts.max_time,
            rows_digest: staged.tally.digest,
            taken: None,
            parts: staged.parts.iter().map(StagedPart::describe).collect(),
        }
    }
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
