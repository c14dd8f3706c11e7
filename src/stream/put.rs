//! `pgslice put`: a stream into one object of the store.
//!
//! # Complete or invisible
//! The object becomes visible when the whole input has arrived, its command has ended with status 0, and (of a full
//! dump whose snapshot was taken here) the transaction that held locks and snapshot is still the same. Whatever ends the
//! run before leaves nothing visible. Then a full dump's own record is written beside it ([`DumpRecord`]). The record in
//! feed.json comes last: a dump that is visible and not named there is no full dump, to anybody.
//!
//! # Memory
//! Four pieces of 1 MiB (see [`child::read`]) and what the store's upload holds.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::child::{self, Event, Running, SNAPSHOT};
use crate::config::{Config, Detect, SingleWriter};
use crate::day::Day;
use crate::error::{Class, Failure, class_of};
use crate::export::snapshot::Snapshot;
use crate::export::{self, lock, settle};
use crate::feed::full_dump::DumpRecord;
use crate::feed::{DumpMoment, Feed, FullDump, Pulse, SourceIdentity};
use crate::figures::{after_requests, human_bytes, human_instant};
use crate::head;
use crate::layout::Key;
use crate::pg::{Endpoint, OwnClient, PgError, pooler, version};
use crate::progress::Progress;
use crate::store::{SharedStore, Store, StoreError, Upload, create_verified};

/// How often the command and the snapshot are looked at while nothing arrives.
const LOOK: Duration = Duration::from_millis(100);
/// How often the dataset's lock is tried again while another run holds it.
const LOCK_PAUSE: Duration = Duration::from_secs(5);
/// How long before its snapshot a dump is said to have been begun, where its time takes the snapshot's place.
const BEFORE_SNAPSHOT: TimeDelta = TimeDelta::seconds(60);
/// How far a time that the caller states may be ahead of this machine's clock.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(60);

/// What is to be put where.
#[derive(Debug, Clone)]
pub struct Request {
    /// The object's name, below `full/`.
    pub key: Key,
    /// Where the bytes come from.
    pub input: Input,
    /// What they are.
    pub subject: Subject,
}

/// Where the bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// This program's standard input.
    Own,
    /// The standard output of a command: a program and its arguments.
    Command(Vec<OsString>),
}

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Anything: not recorded.
    Stream,
    /// A full dump of the source, which the command takes in a snapshot that is made for it.
    FullDump,
    /// A full dump that was begun at this time, by the source's clock.
    FullDumpBegunAt(DateTime<Utc>),
}

/// What was put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PutReport {
    /// The version of this report.
    pub format: u32,
    /// The dataset.
    pub dataset: String,
    /// The object's name.
    pub key: Key,
    /// Its address.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes in hex.
    pub sha256: String,
    /// Whether it is recorded as a full dump.
    pub full: bool,
    /// When the dump was taken; absent for other streams.
    pub taken_at: Option<DateTime<Utc>>,
    /// The snapshot that it shows, as `pg_current_snapshot()` has it; absent where only its time is known.
    pub snapshot: Option<String>,
    /// Whether the source was a standby; absent for other streams.
    pub from_standby: Option<bool>,
    /// The last day up to which all published days are contained; absent where there is none.
    pub contains_through: Option<Day>,
    /// The head's sequence that records it; absent for other streams.
    pub sequence: Option<u64>,
    /// Requests that the store was sent; absent for a folder.
    pub requests: Option<u64>,
}

/// Streams `request` into the store. `source` is needed for a dump that takes its snapshot here, and for a store that
/// cannot keep writers apart.
///
/// # Errors
/// Class Usage before anything is started: a name that is taken, a command that does not ask for the snapshot. Class
/// Other when the command fails, prints nothing, or more than an object can hold; class Integrity for a source of
/// another system than the feed's; the source's and the store's. After an error of the record alone the object stands,
/// as the error says.
pub async fn put(
    config: &Config,
    source: Option<&Endpoint>,
    store: &SharedStore,
    request: &Request,
    cancel: &CancellationToken,
    progress: &Progress,
) -> anyhow::Result<PutReport> {
    check_request(request, Utc::now())?;
    refuse_taken_name(&**store, request).await?;
    let writer = (config.store.single_writer == SingleWriter::Yes).then(|| needed(source)).transpose()?;
    let stored = match request.subject {
        Subject::FullDump => {
            let source = needed(source)?;
            let client = unless_cancelled(cancel, source_client(source)).await?;
            let (feed_source, facts) = unless_cancelled(cancel, async {
                let facts = settle::source_facts(&client).await?;
                version::check("source", &facts.server_version, facts.server_version_num)?;
                let feed = head::create(&**store, &export::run::new_feed(config, Utc::now())).await?;
                check_feed(&feed, config, &**store, Some(&facts.identity))?;
                warn_of_size(&client, &**store).await?;
                Ok((facts.identity.clone(), facts))
            })
            .await?;
            let snapshot =
                unless_cancelled(cancel, Snapshot::take(&client, &config.tables, Detect::Off, &facts)).await?;
            let command = match &request.input {
                Input::Command(command) => Input::Command(child::with_snapshot(command, snapshot.id())),
                Input::Own => Input::Own,
            };
            let mut stream = Stream::begin(store, &request.key, &command, cancel).await?;
            let passed = stream.pass(progress, Some(&client)).await;
            let passed = match passed {
                Ok(passed) => unless_cancelled(cancel, snapshot.check_alive()).await.map(|()| passed),
                Err(error) => Err(error),
            };
            let moment = DumpMoment {
                taken_at: snapshot.taken.exported_at,
                taken: Some(snapshot.taken.clone()),
                from_standby: facts.standby.is_some(),
            };
            let tables = snapshot.tables.iter().map(|table| table.relation.qualified_name()).collect();
            if let Err(error) = unless_cancelled(cancel, async { Ok(snapshot.release().await?) }).await {
                tracing::debug!(%error, "the snapshot's transaction had ended before it was released");
            }
            let passed = passed.and_then(|passed| unless_empty(&request.key, passed));
            Stored { stream, passed, record: Some(Record { moment, tables, identity: Some(feed_source) }) }
        }
        Subject::FullDumpBegunAt(taken_at) => {
            let feed = head::create(&**store, &export::run::new_feed(config, Utc::now())).await?;
            check_feed(&feed, config, &**store, None)?;
            let mut stream = Stream::begin(store, &request.key, &request.input, cancel).await?;
            let passed = stream.pass(progress, None).await;
            let passed = passed.and_then(|passed| unless_empty(&request.key, passed));
            let record = Record { moment: DumpMoment::at(taken_at), tables: Vec::new(), identity: None };
            Stored { stream, passed, record: Some(record) }
        }
        Subject::Stream => {
            let mut stream = Stream::begin(store, &request.key, &request.input, cancel).await?;
            let passed = stream.pass(progress, None).await;
            Stored { stream, passed, record: None }
        }
    };
    progress.end();
    stored.publish(config, store, writer, cancel).await
}

/// A stream that has ended, in one way or another, and what is to be recorded of it.
struct Stored {
    stream: Stream,
    passed: anyhow::Result<Passed>,
    record: Option<Record>,
}

/// What a head says of a full dump beside what its bytes say.
struct Record {
    moment: DumpMoment,
    tables: Vec<String>,
    identity: Option<SourceIdentity>,
}

impl Stored {
    async fn publish(
        self,
        config: &Config,
        store: &SharedStore,
        writer: Option<&Endpoint>,
        cancel: &CancellationToken,
    ) -> anyhow::Result<PutReport> {
        let Stored { stream, passed, record } = self;
        let Stream { key, upload, child, .. } = stream;
        let locked = match (passed, writer) {
            (Err(error), _) => Err(error),
            (Ok(passed), None) => Ok((passed, None)),
            (Ok(passed), Some(source)) => {
                only_writer(source, &config.dataset, cancel).await.map(|lock| (passed, Some(lock)))
            }
        };
        let (passed, lock) = match locked {
            Ok((passed, lock)) if !cancel.is_cancelled() => (passed, lock),
            Ok(_) => return Err(give_up(upload, child, PgError::Cancelled.into()).await),
            Err(error) => return Err(give_up(upload, child, error).await),
        };
        let Passed { bytes, sha256 } = passed;
        upload.finish().await.map_err(|error| not_published(&key, error))?;
        let url = store.object_url(&key);
        let mut report = PutReport {
            format: 1,
            dataset: config.dataset.clone(),
            key: key.clone(),
            url,
            bytes,
            sha256: sha256.clone(),
            full: record.is_some(),
            taken_at: None,
            snapshot: None,
            from_standby: None,
            contains_through: None,
            sequence: None,
            requests: None,
        };
        if let Some(Record { moment, tables, identity }) = record {
            let dump =
                FullDump { key: key.clone(), bytes, sha256, published_at: Utc::now(), moment: moment.clone(), tables };
            let feed = recorded(&**store, config, &dump, identity.as_ref())
                .await
                .map_err(|error| not_recorded(&key, &moment, &error))?;
            warn_of_gone(&feed, &dump);
            report.contains_through = feed.contained_through(&moment);
            report.sequence = Some(feed.sequence);
            report.taken_at = Some(moment.taken_at);
            report.from_standby = Some(moment.from_standby);
            report.snapshot = moment.taken.map(|taken| taken.snapshot);
        }
        drop(lock);
        report.requests = store.requests();
        Ok(report)
    }
}

/// Records a full dump that is visible. The exporter's sign of life is not moved: a dump is none.
async fn recorded(
    store: &dyn Store,
    config: &Config,
    dump: &FullDump,
    identity: Option<&SourceIdentity>,
) -> anyhow::Result<Feed> {
    let edit = |feed: &Feed| {
        check_feed(feed, config, store, identity)?;
        refuse_recorded(feed, &dump.key)?;
        let mut next = feed.clone();
        next.full_dumps.push(dump.clone());
        Ok(next)
    };
    let Some((feed, _)) = head::read(store).await? else { return Err(anyhow!("feed.json is not there any more")) };
    let document = DumpRecord::of(&feed, dump.clone()).to_bytes();
    let key = dump.key.dump_record();
    create_verified(store, &key, document.into()).await.with_context(|| format!("cannot write {key}"))?;
    let landed = |feed: &Feed| feed.full_dump(&dump.key).is_some_and(|recorded| recorded == dump);
    head::change(store, Pulse::None, edit, landed).await
}

/// Names are used once, so what is there without being named gets another one.
fn not_recorded(key: &Key, moment: &DumpMoment, error: &anyhow::Error) -> Failure {
    let begun = if moment.taken.is_some() { moment.taken_at - BEFORE_SNAPSHOT } else { moment.taken_at };
    let begun = begun.to_rfc3339_opts(SecondsFormat::Micros, true);
    let next = if moment.from_standby {
        "dump once more, under another name: what a standby's dump contains cannot be said by a time".to_owned()
    } else {
        format!(
            "put it again under another name: pgslice get {key} > FILE && pgslice put {key}.again --full --taken-at \
             {begun} < FILE"
        )
    };
    let what = format!("{key} is in the store, but feed.json does not record it as a full dump: {error:#}");
    Failure::new(class_of(error), what)
        .meaning("it is no full dump to anybody, unless `pgslice status` tells it")
        .next(next)
}

/// No replica can begin with a dump that lacks what no day brings any more.
fn warn_of_gone(feed: &Feed, dump: &FullDump) {
    let gone = feed.gone_without(&dump.moment);
    if let (Some(first), Some(last)) = (gone.first(), gone.last()) {
        let days = if first == last { first.to_string() } else { format!("{first} to {last}") };
        tracing::warn!(
            "{} may lack rows of {days}, which left the feed: replicas that are restored from it are refused; put a \
             newer full dump",
            dump.key
        );
    }
}

/// A stream on its way.
struct Stream {
    key: Key,
    max_bytes: u64,
    events: mpsc::Receiver<Event>,
    child: Option<Running>,
    upload: Box<dyn Upload>,
    cancel: CancellationToken,
}

/// A stream that has passed whole.
struct Passed {
    bytes: u64,
    sha256: String,
}

impl Stream {
    async fn begin(
        store: &SharedStore,
        key: &Key,
        input: &Input,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Stream> {
        let opened = unless_cancelled(cancel, async { Ok(store.upload(key).await?) });
        let upload = opened.await.with_context(|| format!("cannot write {key}"))?;
        let (child, events) = match input {
            Input::Own => (None, child::read(std::io::stdin())),
            Input::Command(command) => match Running::start(command) {
                Ok((child, output)) => (Some(child), child::read(output)),
                Err(error) => return Err(give_up(upload, None, error).await),
            },
        };
        let max_bytes = store.max_object_bytes();
        Ok(Stream { key: key.clone(), max_bytes, events, child, upload, cancel: cancel.clone() })
    }

    /// Passes the input on to its end, and sees how its command ended. `client` is the connection that holds the
    /// snapshot.
    async fn pass(&mut self, progress: &Progress, client: Option<&OwnClient>) -> anyhow::Result<Passed> {
        progress.begin(&format!("put {}", self.key));
        let cancel = self.cancel.clone();
        let mut tick = tokio::time::interval(LOOK);
        let mut arrived = 0_u64;
        let passed = loop {
            tokio::select! {
                () = cancel.cancelled() => return Err(PgError::Cancelled.into()),
                event = self.events.recv() => match event {
                    Some(Event::Piece(piece)) => {
                        arrived += piece.len() as u64;
                        if arrived > self.max_bytes {
                            return Err(self.too_large().into());
                        }
                        progress.add_bytes(piece.len() as u64);
                        let written = cancel.run_until_cancelled(self.upload.write(piece)).await;
                        written.ok_or(PgError::Cancelled)?.with_context(|| format!("cannot write {}", self.key))?;
                    }
                    Some(Event::End { bytes, sha256 }) => break Passed { bytes, sha256 },
                    Some(Event::Failed(error)) => return Err(anyhow!(error).context("cannot read what is to be put")),
                    None => return Err(anyhow!("the reader of the input stopped without a verdict")),
                },
                _ = tick.tick() => {
                    if let Some(child) = &mut self.child
                        && let Some(status) = child.look()?
                    {
                        child.verdict(status)?;
                    }
                    if client.is_some_and(|client| client.is_closed()) {
                        return Err(connection_lost().into());
                    }
                }
            }
        };
        if let Some(child) = &mut self.child {
            let status = cancel.run_until_cancelled(child.wait()).await.ok_or(PgError::Cancelled)??;
            child.verdict(status)?;
        }
        Ok(passed)
    }

    fn too_large(&self) -> Failure {
        let max = human_bytes(self.max_bytes);
        Failure::new(Class::Other, format!("{} is larger than an object of this store can be ({max})", self.key))
            .meaning("nothing was published")
            .next("raise part-size (or max-parts) in [store]: an object has at most part-size × max-parts bytes")
    }
}

/// A full dump is never empty: a failed one that ended well would be taken for the newest.
fn unless_empty(key: &Key, passed: Passed) -> anyhow::Result<Passed> {
    if passed.bytes > 0 {
        return Ok(passed);
    }
    Err(Failure::new(Class::Other, format!("{key} would be empty: nothing was printed"))
        .meaning("nothing was published: an empty full dump would stand for all data")
        .next("see why the command printed nothing; its output must go to standard output, not to a file")
        .into())
}

/// Ends the command and takes back what was written.
async fn give_up(upload: Box<dyn Upload>, child: Option<Running>, error: anyhow::Error) -> anyhow::Error {
    if let Some(mut child) = child {
        child.end().await;
    }
    export::slice::not_removed(error, upload.abort().await)
}

async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    cancel.run_until_cancelled(Box::pin(work)).await.unwrap_or_else(|| Err(PgError::Cancelled.into()))
}

fn needed(source: Option<&Endpoint>) -> anyhow::Result<&Endpoint> {
    source.ok_or_else(|| Failure::new(Class::Usage, "source.url is not set").into())
}

async fn source_client(source: &Endpoint) -> anyhow::Result<OwnClient> {
    pooler::refuse_shared_sessions(source, "source").await?;
    source.own_client().await.context("cannot connect to the source")
}

/// What can be told to be wrong before anything is asked of anybody.
fn check_request(request: &Request, now: DateTime<Utc>) -> Result<(), Failure> {
    let asks = match &request.input {
        Input::Own => false,
        Input::Command(command) => child::wants_snapshot(command),
    };
    let usage = |what: &str, next: &str| Err(Failure::new(Class::Usage, what).next(next));
    let example = "write: pgslice put KEY --full -- pg_dump -Fc --snapshot={snapshot} DATABASE; or say with --taken-at \
                   when a dump that was taken otherwise was begun";
    if request.key.is_dump_record() {
        let what = format!("{}: names that end in .json are those of pgslice's own records of full dumps", request.key);
        return usage(&what, "choose another ending");
    }
    if let (Input::Command(command), false) = (&request.input, request.subject == Subject::Stream)
        && let Some(option) = child::partial_option(command)
    {
        let what = format!("pg_dump {option} leaves rows out, and a full dump stands for the whole database");
        return usage(&what, "dump all of it; a part of it can be put without --full");
    }
    match request.subject {
        Subject::FullDump if !asks => {
            usage(&format!("--full needs a command that takes {SNAPSHOT} among its arguments"), example)
        }
        Subject::FullDumpBegunAt(_) if asks => usage(
            &format!("--taken-at is for dumps that were taken elsewhere, and the command asks for {SNAPSHOT}"),
            "leave --taken-at away",
        ),
        Subject::Stream if asks => {
            usage(&format!("the command asks for {SNAPSHOT}, which only --full makes"), "add --full")
        }
        Subject::FullDumpBegunAt(taken_at) if taken_at > now + CLOCK_SKEW => {
            let what = format!("--taken-at {} has not come yet", human_instant(taken_at));
            usage(&what, "say when the dump was begun, not after that: days that it lacks would count as contained")
        }
        _ => Ok(()),
    }
}

/// Names are never used again, and that is said before hours of dumping. A store that does not say whether the object is
/// there is believed later: the end of the upload never replaces one.
async fn refuse_taken_name(store: &dyn Store, request: &Request) -> anyhow::Result<()> {
    let key = &request.key;
    let record = (request.subject != Subject::Stream).then(|| key.dump_record());
    for key in [key].into_iter().chain(&record) {
        match store.read_range(key, 0, 1).await {
            Err(StoreError::NotFound(_)) => {}
            Err(StoreError::Denied { .. }) => tracing::debug!("the store does not say whether {key} is there"),
            Ok(_) | Err(StoreError::Size { .. } | StoreError::Archived { .. }) => return Err(taken_name(key).into()),
            Err(error) => return Err(anyhow!(error).context(format!("cannot see whether {key} is there"))),
        }
    }
    match head::read(store).await? {
        Some((feed, _)) => Ok(refuse_recorded(&feed, key)?),
        None => Ok(()),
    }
}

fn refuse_recorded(feed: &Feed, key: &Key) -> Result<(), Failure> {
    if feed.full_dump(key).is_some() { Err(taken_name(key)) } else { Ok(()) }
}

fn taken_name(key: &Key) -> Failure {
    Failure::new(Class::Usage, format!("{key} exists already and is never replaced"))
        .meaning("nothing was published")
        .next("choose another name, such as one with the date and the time")
}

fn not_published(key: &Key, error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Exists(_) => taken_name(key).into(),
        error if error.is_transient() => {
            anyhow!(error).context(format!("cannot publish {key}; it is not known whether the object is there"))
        }
        error => anyhow!(error).context(format!("cannot publish {key}")),
    }
}

fn connection_lost() -> Failure {
    Failure::new(Class::Transient, "the connection to the source is lost, and with it the locks and the snapshot")
        .meaning("nothing was published: rows may be missing from what was dumped")
        .next("see the source's log for who ended it, then run again")
}

fn check_feed(
    feed: &Feed,
    config: &Config,
    store: &dyn Store,
    identity: Option<&SourceIdentity>,
) -> anyhow::Result<()> {
    export::run::check_dataset(feed, config, store)?;
    if let Some(identity) = identity {
        export::plan::check_source(feed, identity)?;
    }
    Ok(())
}

/// A dump may come out larger than an object can be; the database's size is no more than a hint.
async fn warn_of_size(client: &OwnClient, store: &dyn Store) -> anyhow::Result<()> {
    let max_bytes = store.max_object_bytes();
    if max_bytes == u64::MAX {
        return Ok(());
    }
    let sql = "select pg_catalog.pg_database_size(pg_catalog.current_database())";
    // Whether it may be asked is not worth a failure.
    let Ok(row) = client.query_one(sql, &[]).await else { return Ok(()) };
    let bytes = u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    if bytes > max_bytes {
        tracing::warn!(
            "the database has {}, an object of this store at most {}: if the dump is larger than that, it fails; raise \
             part-size in [store]",
            human_bytes(bytes),
            human_bytes(max_bytes)
        );
    }
    Ok(())
}

/// The dataset's lock, however long another run holds it: what was dumped is not thrown away for that.
async fn only_writer(source: &Endpoint, dataset: &str, cancel: &CancellationToken) -> anyhow::Result<Arc<OwnClient>> {
    loop {
        match unless_cancelled(cancel, lock::dataset(source, dataset)).await {
            Ok(held) => return Ok(Arc::new(held)),
            Err(error) if class_of(&error) == Class::Locked => {
                tracing::info!("another run is writing to the store: waiting for it");
                cancel.run_until_cancelled(tokio::time::sleep(LOCK_PAUSE)).await.ok_or(PgError::Cancelled)?;
            }
            Err(error) => return Err(error),
        }
    }
}

impl PutReport {
    /// The report for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{}: {}, sha256 {}{}",
            self.key,
            human_bytes(self.bytes),
            self.sha256,
            after_requests(self.requests)
        )];
        if let Some(taken_at) = self.taken_at {
            let through = match self.contains_through {
                Some(day) => format!("contains the published days up to {day}"),
                None => "contains no published day yet".to_owned(),
            };
            lines.push(format!("full dump of {}: {through}", human_instant(taken_at)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::fixtures::instant;

    const NOW: &str = "2024-05-02T00:20:00Z";

    fn checked(subject: Subject, command: &[&str]) -> Result<(), Failure> {
        let input = match command {
            [] => Input::Own,
            words => Input::Command(words.iter().map(OsString::from).collect()),
        };
        let key = Key::stream("full/a.dump").expect("a stream");
        check_request(&Request { key, input, subject }, instant(NOW))
    }

    #[test]
    fn a_full_dump_without_the_snapshot_is_refused_with_the_example() {
        for command in [&["pg_dump", "-Fc"][..], &[], &["{snapshot}"]] {
            let failure = checked(Subject::FullDump, command).expect_err("no snapshot");
            assert_eq!(failure.class, Class::Usage);
            assert!(failure.next.expect("an example").contains("pg_dump -Fc --snapshot={snapshot}"));
        }
        assert!(checked(Subject::FullDump, &["pg_dump", "--snapshot={snapshot}"]).is_ok());
    }

    #[test]
    fn a_pg_dump_that_leaves_rows_out_is_no_full_dump() {
        let snapshot = "--snapshot={snapshot}";
        let partial =
            ["-t", "-tnotes", "-Ont", "-n", "-T", "-N", "-s", "--table=a", "--schema", "--exclude-table-data=a"];
        for option in partial.into_iter().chain(["--schema-only", "--exclude-schema", "--no-data"]) {
            let failure = checked(Subject::FullDump, &["/usr/bin/pg_dump", snapshot, option]).expect_err(option);
            assert!(failure.what.contains("leaves rows out"), "{}", failure.what);
            assert!(checked(Subject::FullDumpBegunAt(instant(NOW)), &["pg_dump", option]).is_err());
            assert!(checked(Subject::Stream, &["pg_dump", option]).is_ok());
            assert!(checked(Subject::FullDump, &["dump", snapshot, option]).is_ok(), "not known what it is");
        }
        for option in ["-Fct", "-Utns", "--strict-names", "--table-name", "-O", "notes", "--no-owner", "-d", "-"] {
            assert!(checked(Subject::FullDump, &["pg_dump", snapshot, option]).is_ok(), "{option}");
        }
    }

    #[test]
    fn a_name_of_a_record_is_refused() {
        let key = Key::stream("full/a.dump").expect("a stream").dump_record();
        let request = Request { key, input: Input::Own, subject: Subject::Stream };
        assert!(check_request(&request, instant(NOW)).expect_err("reserved").what.contains(".json"));
    }

    #[test]
    fn a_dump_that_is_not_recorded_can_be_put_again_by_a_time_before_its_snapshot() {
        let key = Key::stream("full/a.dump").expect("a stream");
        let next = |moment: &DumpMoment| not_recorded(&key, moment, &anyhow!("no answer")).next.expect("a step");
        let at = "2024-05-02T00:20:00.000000Z";
        let begun = DumpMoment::at(instant(NOW));
        assert!(next(&begun).contains(&format!("pgslice put full/a.dump.again --full --taken-at {at} < FILE")));
        let taken =
            crate::retention::fixtures::feed_of(&[("2024-05-01", crate::manifest::State::Final)]).days[0].taken.clone();
        let own = DumpMoment { taken, ..begun };
        assert!(next(&own).contains("--taken-at 2024-05-02T00:19:00.000000Z"));
        assert!(!next(&DumpMoment { from_standby: true, ..own }).contains("--taken-at"));
    }

    #[test]
    fn an_empty_full_dump_is_refused() {
        let key = Key::stream("full/a.dump").expect("a stream");
        let passed = |bytes| Passed { bytes, sha256: String::new() };
        assert!(unless_empty(&key, passed(0)).is_err() && unless_empty(&key, passed(1)).is_ok());
    }

    #[test]
    fn a_snapshot_that_nobody_makes_is_refused() {
        let dump = ["pg_dump", "--snapshot={snapshot}"];
        assert!(checked(Subject::Stream, &dump).is_err());
        assert!(checked(Subject::FullDumpBegunAt(instant(NOW)), &dump).is_err());
        assert!(checked(Subject::Stream, &["tar", "-c", "."]).is_ok() && checked(Subject::Stream, &[]).is_ok());
    }

    #[test]
    fn a_dump_that_was_begun_in_the_future_is_refused() {
        let begun = |at: &str| checked(Subject::FullDumpBegunAt(instant(at)), &["cat", "x.dump"]);
        assert!(begun("2024-05-01T23:00:00Z").is_ok() && begun("2024-05-02T00:20:30Z").is_ok());
        assert_eq!(begun("2024-05-02T00:30:00Z").expect_err("later").class, Class::Usage);
    }
}
