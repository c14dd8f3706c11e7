//! The connections that look at slices and read them, through one snapshot.

use std::collections::{BTreeMap, VecDeque};
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::access;
use super::day::Exporter;
use super::detect;
use super::facts::{Detector, Evidence, Later, Look, Question, SliceFacts};
use super::shares::{Share, Shares, Table, Turn};
use super::slice::{self, Hands, Numbered, Reading, Staged, StagedPart};
use super::snapshot::{Invitation, Snapshot};
use super::spans;
use crate::codec::RowFormat;
use crate::config::Detect;
use crate::day::{Day, Window};
use crate::error::{Class, class_of};
use crate::feed::Feed;
use crate::layout::AttemptDirectory;
use crate::manifest::{Manifest, Slice, TimeBounds};
use crate::pg::{PgError, Session};
use crate::store::StoreError;
use crate::table::SourceTable;

/// A slice that was read, and what is to be done to make it real.
pub struct ReadSlice {
    /// Its record.
    pub slice: Slice,
    /// Its parts.
    pub staged: Staged,
}

/// What a connection read of a slice.
struct ReadShare {
    index: usize,
    /// Asked by the connection that began the table.
    facts: Option<SliceFacts>,
    staged: Staged,
}

/// What the connections of a day share.
#[derive(Clone)]
pub struct Readers {
    exporter: Exporter,
    tables: Arc<Vec<SourceTable>>,
    detectors: Arc<Vec<Detector>>,
    cancel: CancellationToken,
    invitation: Invitation,
    day: Day,
    window: Window,
    directory: AttemptDirectory,
}

/// Places of tables, in the order of the configuration, that wait to be looked at, and what for.
type Queue = Arc<Mutex<VecDeque<(usize, Evidence)>>>;

/// What is known before slices are read, and what is kept for later.
#[derive(Debug)]
pub struct Occasion<'f> {
    /// The head, which tells how large the table's last slices were.
    pub feed: &'f Feed,
    /// What was seen of all tables, if they were looked at.
    pub looks: Option<Vec<Look>>,
    /// What a later look will be after.
    pub later: Later,
}

impl Readers {
    /// Those of a day, under its snapshot; parts are named as those of `directory`.
    pub fn of(
        exporter: &Exporter,
        snapshot: &Snapshot<'_>,
        (day, window): (Day, Window),
        directory: AttemptDirectory,
    ) -> Readers {
        Readers {
            exporter: exporter.clone(),
            tables: Arc::new(snapshot.tables.clone()),
            detectors: Arc::new(snapshot.detectors.clone()),
            cancel: exporter.cancel.child_token(),
            invitation: snapshot.invitation(),
            day,
            window,
            directory,
        }
    }

    /// The question about the table at a place.
    pub fn question(&self, index: usize) -> Question<'_> {
        Question {
            table: &self.tables[index],
            all: &self.tables,
            detector: &self.detectors[index],
            zone: self.exporter.config.timezone,
            day: self.day,
            window: self.window,
        }
    }

    /// How the table at a place is looked at.
    pub fn way(&self, index: usize) -> Detect {
        self.detectors[index].way
    }

    /// How many tables there are.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// Looks at the slices of a published day without reading them, in the order of the tables. Where that can tell
    /// nothing, nothing is asked. The first failure ends the others.
    ///
    /// # Errors
    /// The server's; the refusals of [`Question::look`].
    pub async fn look(&self, published: &Manifest) -> anyhow::Result<Vec<Look>> {
        let asked = (0..self.tables()).filter_map(|index| {
            let relation = &self.tables[index].relation;
            let of_the_table = |old: &&Slice| old.schema == relation.schema && old.table == relation.name;
            let old = published.slices.iter().find(of_the_table).filter(|old| old.detect.is_some())?;
            let is_asked = matches!(self.way(index), Detect::Rows | Detect::Count);
            is_asked.then(|| (index, detect::evidence(published, old)))
        });
        let queue: Queue = Arc::new(Mutex::new(asked.collect()));
        let mut workers = JoinSet::new();
        for _ in 0..self.connections(queue.lock().unwrap_or_else(PoisonError::into_inner).len()) {
            let (readers, queue) = (self.clone(), Arc::clone(&queue));
            workers.spawn_blocking(move || {
                let mut looks = Vec::new();
                let outcome = readers.look_into(&queue, &mut looks);
                (looks, outcome)
            });
        }
        let mut looks = vec![Look::default(); self.tables()];
        let (seen, failure) = self.joined(workers).await;
        for (index, look) in seen {
            looks[index] = look;
        }
        failure.map_or(Ok(looks), Err)
    }

    fn look_into(&self, queue: &Queue, looks: &mut Vec<(usize, Look)>) -> anyhow::Result<()> {
        let mut session = self.session()?;
        while let Some((index, evidence)) = next(queue) {
            let look = self.question(index).look(&mut session, evidence).with_context(|| self.named(index));
            looks.push((index, look.map_err(access::explain)?));
        }
        Ok(())
    }

    /// Reads the slices of some tables, in their order; large ones over several connections. The first failure ends the
    /// others, and what was staged is given up.
    ///
    /// # Errors
    /// The server's, the store's; the refusals of [`Question::facts`] and [`slice::stage`].
    pub async fn read(
        &self,
        tables: &[usize],
        snapshot: &Snapshot<'_>,
        occasion: Occasion<'_>,
    ) -> anyhow::Result<Vec<(usize, ReadSlice)>> {
        let mut waiting = Vec::new();
        for index in tables {
            let copies = self.copies(*index, snapshot, occasion.feed).await;
            let copies = copies.with_context(|| self.named(*index)).map_err(access::explain)?;
            let table = &self.tables[*index];
            let names = self.directory.parts(&table.relation.schema, &table.relation.name, table.config.format);
            waiting.push(Table { index: *index, copies, names: Numbered::of(names) });
        }
        let shares = Shares::of(waiting);
        let (looks, later) = (Arc::new(occasion.looks), occasion.later);
        let mut workers = JoinSet::new();
        for _ in 0..self.connections(shares.waiting()) {
            let (readers, shares, looks) = (self.clone(), shares.clone(), Arc::clone(&looks));
            workers.spawn(async move {
                let mut done = Vec::new();
                let outcome = readers.read_into(&shares, (&looks, later), &mut done).await;
                (done, outcome)
            });
        }
        let (read, failure) = self.joined(workers).await;
        match failure {
            Some(error) => {
                let staged = read.into_iter().map(|share: ReadShare| share.staged);
                Err(slice::not_removed(error, discard_staged(staged).await))
            }
            None => Ok(self.united(read)),
        }
    }

    /// The statements that read a slice: one, or one for each span of a large table.
    async fn copies(&self, index: usize, snapshot: &Snapshot<'_>, feed: &Feed) -> anyhow::Result<VecDeque<String>> {
        let (table, zone) = (&self.tables[index], self.exporter.config.timezone);
        let copy = |select: String| format!("copy ({select}) to stdout{}", table.config.format.copy_options());
        let spans = match table.bounds(zone, self.day, self.window) {
            Some(bounds) => {
                let connections = self.exporter.config.export.jobs;
                let cut = spans::cut(snapshot.client(), (table, &self.detectors[index]), &bounds, feed, connections);
                self.cancel.run_until_cancelled(cut).await.unwrap_or(Err(PgError::Cancelled))?
            }
            None => Vec::new(),
        };
        if spans.len() < 2 {
            return Ok(VecDeque::from([copy(table.select(&self.tables, zone, self.day, self.window))]));
        }
        let (relation, members) = (table.relation.qualified_name(), self.detectors[index].members.as_deref());
        tracing::debug!("{} {relation} is read in {} spans of time", self.day, spans.len());
        Ok(spans.iter().map(|span: &TimeBounds| copy(table.select_span(span, members))).collect())
    }

    async fn read_into(
        &self,
        shares: &Shares,
        (looks, later): (&Option<Vec<Look>>, Later),
        done: &mut Vec<ReadShare>,
    ) -> anyhow::Result<()> {
        let readers = self.clone();
        let mut session = spawn_blocking(move || readers.session()).await??;
        while let Some(share) = shares.begin() {
            let index = share.index;
            // A look at a slice that only reading tells about saw nothing.
            let look = looks.as_ref().map(|looks| looks[index].clone()).filter(|look| look.detected.is_some());
            let (returned, read) = self.read_share(session, shares, share, (look, later)).await;
            done.push(read.with_context(|| self.named(index)).map_err(access::explain)?);
            session = returned.ok_or_else(|| anyhow!("the session of a worker is lost"))?;
        }
        Ok(())
    }

    async fn read_share(
        &self,
        session: Session,
        shares: &Shares,
        Share { index, turn, first, names }: Share,
        (look, later): (Option<Look>, Later),
    ) -> (Option<Session>, anyhow::Result<ReadShare>) {
        let (session, facts) = match turn {
            Turn::Later => (session, None),
            Turn::First => match self.facts(session, index, (look, later)).await {
                (Some(session), Ok(facts)) => (session, Some(facts)),
                (session, Err(error)) => return (session, Err(error)),
                (None, Ok(_)) => return (None, Err(anyhow!("the session of a worker is lost"))),
            },
        };
        let table = &self.tables[index];
        let shares = shares.clone();
        let reading = Reading {
            copies: Box::new(iter::once(first).chain(iter::from_fn(move || shares.next(index)))),
            format: RowFormat::new(table.config.format, &table.columns),
            names,
            level: table.config.compression_level.unwrap_or(self.exporter.config.export.compression_level),
        };
        let hands = Hands { progress: &self.exporter.progress, cancel: &self.cancel };
        let (session, staged) = slice::stage(session, reading, &*self.exporter.store, hands).await;
        (session, staged.map(|staged| ReadShare { index, facts, staged }))
    }

    async fn facts(
        &self,
        mut session: Session,
        index: usize,
        (look, later): (Option<Look>, Later),
    ) -> (Option<Session>, anyhow::Result<SliceFacts>) {
        let readers = self.clone();
        let asked = spawn_blocking(move || {
            let facts = readers.question(index).facts(&mut session, look, later);
            (session, facts)
        });
        match asked.await {
            Ok((session, facts)) => (Some(session), facts),
            Err(panic) => (None, Err(panic.into())),
        }
    }

    /// The slices that connections shared, in the order of the configuration.
    fn united(&self, read: Vec<ReadShare>) -> Vec<(usize, ReadSlice)> {
        let mut slices: BTreeMap<usize, (SliceFacts, Option<Staged>)> = BTreeMap::new();
        for ReadShare { index, facts, staged } in read {
            let (known, together) = slices.entry(index).or_default();
            if let Some(facts) = facts {
                *known = facts;
            }
            *together = Some(match together.take() {
                Some(others) => others.union(staged),
                None => staged,
            });
        }
        let read = slices.into_iter().filter_map(|(index, (facts, staged))| {
            let staged = staged?;
            Some((index, ReadSlice { slice: self.describe(index, facts, &staged), staged }))
        });
        read.collect()
    }

    fn describe(&self, index: usize, facts: SliceFacts, staged: &Staged) -> Slice {
        let question = self.question(index);
        Slice {
            excluded_rows: facts.outside_time,
            rows: staged.tally.rows,
            raw_bytes: staged.tally.raw_bytes,
            stored_bytes: staged.parts.iter().map(|part| part.encoded.stored_bytes).sum(),
            min_time: facts.min_time,
            max_time: facts.max_time,
            rows_digest: staged.tally.digest,
            detect: question.keep(facts.detected, staged.tally.rows),
            parts: staged.parts.iter().map(StagedPart::describe).collect(),
            ..question.described()
        }
    }

    fn session(&self) -> anyhow::Result<Session> {
        let open = || -> anyhow::Result<Session> {
            let mut session = self.exporter.source.session(&self.cancel)?;
            self.invitation.accept(&mut session)?;
            Ok(session)
        };
        open().context("cannot read the day's snapshot")
    }

    fn connections(&self, waiting: usize) -> usize {
        self.exporter.config.export.jobs.min(waiting)
    }

    fn named(&self, index: usize) -> String {
        format!("{} {}", self.day, self.tables[index].relation.qualified_name())
    }

    /// What all workers did, and the failure that ended them, if there was one.
    async fn joined<T: 'static>(
        &self,
        mut workers: JoinSet<(Vec<T>, anyhow::Result<()>)>,
    ) -> (Vec<T>, Option<anyhow::Error>) {
        let (mut all, mut failure): (Vec<T>, Option<anyhow::Error>) = (Vec::new(), None);
        while let Some(joined) = workers.join_next().await {
            let (done, outcome) = joined.unwrap_or_else(|panic: JoinError| (Vec::new(), Err(panic.into())));
            all.extend(done);
            if let Err(error) = outcome {
                self.cancel.cancel();
                // What was cancelled because of another failure is not worth telling, though it may be heard first.
                if failure.as_ref().is_none_or(|told| class_of(told) == Class::Interrupted) {
                    failure = Some(error);
                }
            }
        }
        (all, failure)
    }
}

fn next(queue: &Queue) -> Option<(usize, Evidence)> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// Gives up what was staged; the first error is returned when all was tried.
pub async fn discard(read: impl IntoIterator<Item = ReadSlice>) -> Result<(), StoreError> {
    discard_staged(read.into_iter().map(|slice| slice.staged)).await
}

async fn discard_staged(all: impl IntoIterator<Item = Staged>) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    for staged in all {
        let aborted = staged.abort().await;
        outcome = outcome.and(aborted);
    }
    outcome
}

/// `error`, after what was staged is given up.
pub async fn after_discarding(read: impl IntoIterator<Item = ReadSlice>, error: anyhow::Error) -> anyhow::Error {
    let discarded = discard(read).await;
    slice::not_removed(error, discarded)
}
