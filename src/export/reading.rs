//! The connections that look at slices and read them, through one snapshot.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::access;
use super::day::Exporter;
use super::facts::{Detector, Look, Question, SliceFacts};
use super::slice::{self, Hands, Reading, Staged, StagedPart};
use super::snapshot::{Invitation, Snapshot};
use crate::codec::RowFormat;
use crate::config::Detect;
use crate::day::{Day, Window};
use crate::error::{Class, class_of};
use crate::layout::AttemptDirectory;
use crate::manifest::{Manifest, Slice};
use crate::pg::Session;
use crate::store::StoreError;
use crate::table::SourceTable;

/// A slice that was read, and what is to be done to make it real.
pub struct ReadSlice {
    /// Its record.
    pub slice: Slice,
    /// Its parts.
    pub staged: Staged,
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

/// Places of tables, in the order of the configuration, that wait for a connection.
type Queue = Arc<Mutex<VecDeque<usize>>>;

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
        let asked = (0..self.tables()).filter(|index| {
            let relation = &self.tables[*index].relation;
            let of_the_table = |old: &&Slice| old.schema == relation.schema && old.table == relation.name;
            let comparable = published.slices.iter().find(of_the_table).is_some_and(|old| old.detect.is_some());
            comparable && matches!(self.way(*index), Detect::Rows | Detect::Count)
        });
        let queue: Queue = Arc::new(Mutex::new(asked.collect()));
        let mut workers = JoinSet::new();
        for _ in 0..self.connections(&queue) {
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
        while let Some(index) = next(queue) {
            let look = self.question(index).look(&mut session).with_context(|| self.named(index));
            looks.push((index, look.map_err(access::explain)?));
        }
        Ok(())
    }

    /// Reads the slices of some tables, in their order; `looks` is what was seen of all of them before, if they were
    /// looked at. The first failure ends the others, and what was staged is given up.
    ///
    /// # Errors
    /// The server's, the store's; the refusals of [`Question::facts`] and [`slice::stage`].
    pub async fn read(&self, tables: &[usize], looks: Option<Vec<Look>>) -> anyhow::Result<Vec<(usize, ReadSlice)>> {
        let queue: Queue = Arc::new(Mutex::new(tables.iter().copied().collect()));
        let looks = Arc::new(looks);
        let mut workers = JoinSet::new();
        for _ in 0..self.connections(&queue) {
            let (readers, queue, looks) = (self.clone(), Arc::clone(&queue), Arc::clone(&looks));
            workers.spawn(async move {
                let mut done = Vec::new();
                let outcome = readers.read_into(&queue, &looks, &mut done).await;
                (done, outcome)
            });
        }
        let (mut read, failure) = self.joined(workers).await;
        read.sort_by_key(|(index, _)| *index);
        match failure {
            Some(error) => Err(after_discarding(read.into_iter().map(|(_, slice)| slice), error).await),
            None => Ok(read),
        }
    }

    async fn read_into(
        &self,
        queue: &Queue,
        looks: &Option<Vec<Look>>,
        done: &mut Vec<(usize, ReadSlice)>,
    ) -> anyhow::Result<()> {
        let readers = self.clone();
        let mut session = spawn_blocking(move || readers.session()).await??;
        while let Some(index) = next(queue) {
            // A look at a slice that only reading tells about saw nothing.
            let look = looks.as_ref().map(|looks| looks[index].clone()).filter(|look| look.detected.is_some());
            let (returned, read) = self.read_one(session, index, look).await;
            done.push((index, read.with_context(|| self.named(index)).map_err(access::explain)?));
            session = returned.ok_or_else(|| anyhow!("the session of a worker is lost"))?;
        }
        Ok(())
    }

    async fn read_one(
        &self,
        mut session: Session,
        index: usize,
        look: Option<Look>,
    ) -> (Option<Session>, anyhow::Result<ReadSlice>) {
        let config = &self.exporter.config;
        let readers = self.clone();
        let asked = spawn_blocking(move || {
            let facts = readers.question(index).facts(&mut session, look);
            (session, facts)
        })
        .await;
        let (session, facts) = match asked {
            Ok((session, Ok(facts))) => (session, facts),
            Ok((session, Err(error))) => return (Some(session), Err(error)),
            Err(panic) => return (None, Err(panic.into())),
        };
        let table = &self.tables[index];
        let select = table.select(&self.tables, config.timezone, self.day, self.window);
        let format = table.config.format;
        let reading = Reading {
            copy: format!("copy ({select}) to stdout{}", format.copy_options()),
            format: RowFormat::new(format, &table.columns),
            names: self.directory.parts(&table.relation.schema, &table.relation.name, format),
            level: table.config.compression_level.unwrap_or(config.export.compression_level),
        };
        let hands = Hands { progress: &self.exporter.progress, cancel: &self.cancel };
        let (session, staged) = slice::stage(session, reading, &*self.exporter.store, hands).await;
        (session, staged.map(|staged| ReadSlice { slice: self.describe(index, facts, &staged), staged }))
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

    fn connections(&self, queue: &Queue) -> usize {
        let waiting = queue.lock().unwrap_or_else(PoisonError::into_inner).len();
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

fn next(queue: &Queue) -> Option<usize> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// Gives up what was staged; the first error is returned when all was tried.
pub async fn discard(read: impl IntoIterator<Item = ReadSlice>) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    for ReadSlice { staged, .. } in read {
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
