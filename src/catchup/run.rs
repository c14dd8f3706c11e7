//! The story of `pgslice catchup`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::adopt::{self, Found};
use super::apply::{
    Applied, Applier, Extra, OwnedSequence, PendingDay, Shape, is_foreign_key_violation, is_unique_violation,
};
use super::create;
use super::ledger::{self, KnownHead, Ledger, Origin};
use super::matching::{self, Drift, Target};
use super::plan::{self, Accepted, Gaps, Pending, Request};
use crate::codec::RowsDigest;
use crate::config::Config;
use crate::day::Day;
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed};
use crate::figures::{after_requests, counted, human_count};
use crate::head;
use crate::manifest::Manifest;
use crate::pg::catalog::{self, Relation};
use crate::pg::{Endpoint, PgError, Session};
use crate::progress::Progress;
use crate::store::SharedStore;

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which days.
    pub request: Request,
    /// What to do with tables that are missing.
    pub missing_tables: MissingTables,
    /// What to do with rows that the feed does not know.
    pub extra: Extra,
    /// Whether anything is written.
    pub mode: Mode,
}

/// `--create`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingTables {
    /// They are refused.
    Refuse,
    /// They are made.
    Create,
}

/// `--dry-run`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Days are applied.
    Apply,
    /// It is only said which.
    DryRun,
}

/// What became of a run.
#[derive(Debug, Clone, Serialize)]
pub struct CatchupReport {
    /// The version of this report.
    pub format: u32,
    /// The feed.
    pub feed_id: String,
    /// The dataset.
    pub dataset: String,
    /// The head's sequence.
    pub sequence: u64,
    /// When the head was published.
    pub published_at: DateTime<Utc>,
    /// Nothing was written: the days say what would be applied.
    pub dry_run: bool,
    /// Tables that were (or would be) made.
    pub created: Vec<String>,
    /// The days that were (or would be) applied, in that order.
    pub days: Vec<DayReport>,
    /// The newest day of the feed.
    pub newest: Option<Day>,
    /// Pending days that must wait for a missing one.
    pub waiting: usize,
    /// Requests that the store was sent; absent for a folder.
    pub requests: Option<u64>,
    /// Why the run did not end with everything applied and fresh.
    pub stopped: Option<Stop>,
}

/// How often the lock of a replica is tried, and how long to wait in between: two seconds in all.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// No table has this oid: that of one which a dry run would make.
const NOT_THERE_YET: u32 = 0;

/// Why a run did not end with everything applied and fresh.
#[derive(Debug, Clone, Serialize)]
pub struct Stop {
    /// The exit code of its class.
    pub exit_code: u8,
    /// What a person reads.
    pub message: String,
    #[serde(skip)]
    failure: Failure,
}

/// A day that was applied.
#[derive(Debug, Clone, Serialize)]
pub struct DayReport {
    /// The day.
    pub day: Day,
    /// Its revision.
    pub revision: u32,
    /// Rows of all its slices.
    pub rows: u64,
    /// Per `schema.table`; empty in a dry run.
    pub tables: BTreeMap<String, TableReport>,
}

/// What became of a slice.
#[derive(Debug, Clone, Serialize)]
pub struct TableReport {
    /// How the replica came to hold it.
    pub origin: Origin,
    /// Its rows.
    pub rows: u64,
    /// The window holds rows that the feed does not know.
    pub keeps_extra_rows: bool,
}

/// Brings the replica up to the feed.
///
/// Each batch of days is one transaction; whatever ends the run, the batches before it stand and the next run goes on
/// from there.
///
/// # Errors
/// Class Locked when another catchup runs on this replica; Drift before the first row when tables do not fit;
/// BehindRetention before the first row; those of [`Applier::apply`]. A gap, a stale feed and days that are not
/// published yet are in the report: see [`CatchupReport::failure`].
pub async fn run(
    config: &Config,
    replica: Endpoint,
    store: SharedStore,
    options: Options,
    now: DateTime<Utc>,
    cancel: CancellationToken,
    progress: Progress,
) -> anyhow::Result<CatchupReport> {
    let feed = head::read_existing(&*store).await?;
    check_dataset(&feed, config)?;
    let client = replica.client().await.context("cannot connect to the replica")?;
    refuse_standby(&client).await?;
    if options.mode == Mode::Apply {
        ledger::create(&client).await.context("cannot make the ledger (schema pgslice) on the replica")?;
    }
    let mut session = connect(&replica, &cancel).await?;
    lock_replica(&mut session, &feed).await?;
    let mut ledger = match ledger::exists(&client).await? {
        true => {
            check_known_head(&feed, ledger::known_head(&client, &feed.dataset).await?)?;
            ledger::read(&client, &feed.feed_id).await?
        }
        false => Ledger::new(),
    };
    let mut report = CatchupReport::of(&feed, options.mode);

    let mut relations = relations(&client, config).await?;
    let mut accepted = accepted(config, &relations);
    check_published(&feed, &accepted)?;
    // A table that was restored or made anew is met for the first time again.
    ledger.retain(|(_, table), held| accepted.get(table) == Some(&held.table_oid));
    if options.extra == Extra::Delete {
        // No manifest matches: the slice is pending, whatever its revision.
        ledger.values_mut().filter(|held| held.keeps_extra_rows).for_each(|held| held.manifest_sha256.clear());
    }
    let Pending { days, waiting, hole, beyond_newest } = plan::pending(&feed, &ledger, &accepted, options.request)?;
    report.waiting = waiting;
    let missing = missing_tables(config, &relations);
    if !missing.is_empty() {
        let statements = create_statements(&client, &feed, &store, &missing, options).await?;
        let is_published = |name: &String| feed.days.iter().any(|entry| entry.tables.contains_key(name));
        report.created = missing.iter().map(|(schema, name)| format!("{schema}.{name}")).filter(is_published).collect();
        if options.mode == Mode::Apply {
            client
                .batch_execute(&format!("begin;\n{statements}\ncommit;"))
                .await
                .map_err(PgError::from)
                .context("cannot create tables")?;
            relations = self::relations(&client, config).await?;
            accepted = self::accepted(config, &relations);
        }
    }

    let mut pending = Vec::new();
    for entry in days {
        pending.push(match_day(&*store, &feed, entry, &relations, &ledger).await?);
    }
    let shape = shape(&client, &relations).await?;
    let mut applier = Applier {
        session,
        feed: feed.clone(),
        timezone: feed.timezone.parse().unwrap_or(config.timezone),
        store: Arc::clone(&store),
        runtime: Handle::current(),
        ledger,
        shape,
        extra: options.extra,
        progress: progress.clone(),
    };
    applier = check_continuity(applier, &pending, options.request, &report.created).await?;

    let batches = plan::batches(pending);
    if options.mode == Mode::DryRun {
        report.days.extend(batches.iter().flatten().map(|day| DayReport::planned(&day.manifest)));
    } else {
        ledger::saw(&client, &feed).await.context("cannot write to the ledger on the replica")?;
        applier = apply_batches(applier, batches, &cancel, &mut report).await?;
        // Rows that went elsewhere with a batch may find their place now that all of them are applied.
        let Pending { days, .. } = plan::pending(&feed, &applier.ledger, &accepted, options.request)?;
        let mut in_doubt = Vec::new();
        for entry in days {
            in_doubt.push(match_day(&*store, &feed, entry, &relations, &applier.ledger).await?);
        }
        applier = apply_batches(applier, plan::batches(in_doubt), &cancel, &mut report).await?;
        let nothing_pending =
            hole.is_none() && feed.days.iter().all(|entry| plan::is_held(entry, &applier.ledger, &accepted));
        if nothing_pending {
            let feed = feed.clone();
            spawn_blocking(move || ledger::caught_up(&mut applier.session, &feed)).await??;
        }
    }
    progress.end();
    report.requests = store.requests();
    report.stopped = stop(&feed, config, hole, beyond_newest, waiting, now);
    Ok(report)
}

/// Applies batches in their order, each in a transaction of its own; those that get in each other's way share one.
async fn apply_batches(
    mut applier: Applier,
    batches: Vec<Vec<PendingDay>>,
    cancel: &CancellationToken,
    report: &mut CatchupReport,
) -> anyhow::Result<Applier> {
    let mut batches = VecDeque::from(batches);
    while let Some(batch) = batches.pop_front() {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled.into());
        }
        let names: Vec<String> = batch.iter().map(|day| day.entry.day.to_string()).collect();
        let names = names.join(", ");
        applier.progress.begin(&format!("catch up {names}"));
        let (returned, batch, outcome) = spawn_blocking(move || {
            let outcome = applier.apply(&batch);
            (applier, batch, outcome)
        })
        .await?;
        applier = returned;
        let in_the_way = |error: &anyhow::Error| is_unique_violation(error) || is_foreign_key_violation(error);
        if !batches.is_empty() && outcome.as_ref().is_err_and(in_the_way) {
            // A later batch may let go of the value, or bring the row that is pointed to.
            let joined = batch.into_iter().chain(batches.drain(..).flatten()).collect();
            batches.push_front(joined);
            continue;
        }
        let only_doubts = batch.iter().all(|day| applier.is_only_in_doubt(day));
        if only_doubts && outcome.as_ref().is_err_and(is_foreign_key_violation) {
            tracing::warn!("{names}: rows point to rows of a day that is not published as it is now; they wait for it");
            continue;
        }
        let applied = outcome.with_context(|| format!("cannot apply {names}")).map_err(explain_conflict)?;
        for day in batch {
            let day = DayReport::applied(&day.manifest, &applied);
            applier.progress.suspend(|| tracing::info!("{}", day.line()));
            report.days.retain(|earlier| earlier.day != day.day);
            report.days.push(day);
        }
    }
    Ok(applier)
}

/// The tables of the config with their oids; [`NOT_THERE_YET`] for those that a dry run would create.
fn accepted(config: &Config, relations: &[Relation]) -> Accepted {
    let oid = |name: &str| {
        relations
            .iter()
            .find(|relation| relation.qualified_name() == name)
            .map_or(NOT_THERE_YET, |relation| relation.oid)
    };
    config
        .tables
        .iter()
        .map(|table| format!("{}.{}", table.schema, table.name))
        .map(|name| {
            let oid = oid(&name);
            (name, oid)
        })
        .collect()
}

/// A table that no day of the feed has would be waited for in silence.
fn check_published(feed: &Feed, accepted: &Accepted) -> Result<(), Failure> {
    let published = |name: &&String| feed.days.iter().any(|entry| entry.tables.contains_key(*name));
    match accepted.keys().find(|name| !published(name)).filter(|_| !feed.days.is_empty()) {
        None => Ok(()),
        Some(name) => Err(Failure::new(Class::Drift, format!("the feed has no table {name}"))
            .meaning("nothing was applied")
            .next("take it out of the replica's configuration, or check its spelling")),
    }
}

/// Constraints of the replica's own that refuse rows of the feed. A unique index that is no key of the merge is checked
/// row by row, unless its constraint can be deferred.
fn explain_conflict(error: anyhow::Error) -> anyhow::Error {
    if !is_unique_violation(&error) {
        let refused = |cause: &PgError| cause.code().is_some_and(|code| code.starts_with("23"));
        if !error.chain().any(|cause| cause.downcast_ref::<PgError>().is_some_and(refused)) {
            return error;
        }
        return Failure::new(Class::Drift, format!("{error:#}"))
            .meaning("nothing of it was applied: a constraint or partition of the replica refuses rows of the feed")
            .next("change the constraint on the replica to what the source allows, then run again")
            .into();
    }
    Failure::new(Class::Drift, format!("{error:#}"))
        .meaning("nothing of it was applied: a row of the replica's own holds the value, or rows exchanged theirs")
        .next("remove the replica's own row; for exchanged values add the unique constraint again as DEFERRABLE")
        .into()
}

async fn connect(replica: &Endpoint, cancel: &CancellationToken) -> anyhow::Result<Session> {
    let (replica, cancel) = (replica.clone(), cancel.clone());
    spawn_blocking(move || replica.session(&cancel)).await?.context("cannot connect to the replica")
}

fn check_dataset(feed: &Feed, config: &Config) -> Result<(), Failure> {
    if feed.dataset == config.dataset {
        return Ok(());
    }
    Err(Failure::new(
        Class::Usage,
        format!("the feed is of dataset {:?}, the configuration is for {:?}", feed.dataset, config.dataset),
    )
    .meaning("nothing was applied")
    .next("check dataset and store.url in the configuration"))
}

async fn refuse_standby(client: &Client) -> anyhow::Result<()> {
    let row = client.query_one("select pg_catalog.pg_is_in_recovery()", &[]).await.map_err(PgError::from)?;
    if !row.get::<_, bool>(0) {
        return Ok(());
    }
    Err(Failure::new(Class::Usage, "the replica is a physical standby: it takes no writes")
        .meaning("nothing was applied")
        .next("name a database of its own in replica.url")
        .into())
}

/// One catchup per replica and feed at a time; the lock lives as long as the session. The server may take a moment to
/// notice that the session of a run that has just ended is gone.
async fn lock_replica(session: &mut Session, feed: &Feed) -> anyhow::Result<()> {
    let sql = "select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))::text";
    let name = format!("pgslice catchup {}", feed.feed_id);
    for _ in 0..LOCK_ATTEMPTS {
        if session.query(sql, &[Some(&name)])?.first().is_some_and(|row| row.get(0) == Some("true")) {
            return Ok(());
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Err(Failure::new(Class::Locked, "another catchup is running on this replica")
        .meaning("this run changed nothing")
        .next("wait for the other run; its lock ends with its connection")
        .into())
}

fn check_known_head(feed: &Feed, known: Option<KnownHead>) -> Result<(), Failure> {
    let Some(known) = known else { return Ok(()) };
    if known.feed_id != feed.feed_id {
        return Err(Failure::new(
            Class::Integrity,
            format!(
                "this replica follows feed {} of {:?}, but the store holds feed {}",
                known.feed_id, feed.dataset, feed.feed_id
            ),
        )
        .meaning("nothing was applied: the feed was made anew, or store.url is another one's")
        .next(format!(
            "if the new feed is right, run: delete from pgslice.feed where dataset = {}",
            crate::pg::quote_literal(&feed.dataset)
        )));
    }
    if feed.sequence < known.sequence {
        return Err(Failure::new(
            Class::Stale,
            format!(
                "the store answers with version {} of the feed, this replica has seen {}",
                feed.sequence, known.sequence
            ),
        )
        .meaning("nothing was applied; the replica is ahead of what the store shows")
        .next("a cache in between may be old: run again later; if it stays, the feed was set back"));
    }
    Ok(())
}

async fn relations(client: &Client, config: &Config) -> Result<Vec<Relation>, PgError> {
    let names: Vec<(&str, &str)> =
        config.tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).collect();
    catalog::relations(client, &names).await
}

fn missing_tables(config: &Config, relations: &[Relation]) -> Vec<(String, String)> {
    config
        .tables
        .iter()
        .filter(|table| {
            !relations.iter().any(|relation| relation.schema == table.schema && relation.name == table.name)
        })
        .map(|table| (table.schema.clone(), table.name.clone()))
        .collect()
}

/// The statements that make the missing tables, as the newest day that has them describes them.
async fn create_statements(
    client: &Client,
    feed: &Feed,
    store: &SharedStore,
    missing: &[(String, String)],
    options: Options,
) -> anyhow::Result<String> {
    let names: Vec<String> = missing.iter().map(|(schema, name)| format!("{schema}.{name}")).collect();
    if options.missing_tables == MissingTables::Refuse {
        return Err(Failure::new(Class::Drift, format!("the replica has no table {}", names.join(", ")))
            .meaning("nothing was applied")
            .next("restore a full dump first, or let --create make the tables")
            .into());
    }
    let mut statements = String::new();
    for (schema, name) in missing {
        let qualified = format!("{schema}.{name}");
        let Some(entry) = feed.days.iter().rev().find(|entry| entry.tables.contains_key(&qualified)) else {
            continue; // No day has it: that is judged for all tables at once.
        };
        let manifest = head::day_manifest(&**store, feed, entry).await?;
        let slice = manifest
            .slices
            .iter()
            .find(|slice| slice.schema == *schema && slice.table == *name)
            .with_context(|| format!("the manifest of {} has no slice of {qualified}", entry.day))?;
        statements.push_str(&create::statements(client, slice, schema, name).await.map_err(as_failure)?);
        statements.push('\n');
    }
    Ok(statements)
}

fn as_failure(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Drift>() {
        Ok(drift) => drifted(&[drift]),
        Err(other) => other,
    }
}

fn drifted(drifts: &[Drift]) -> anyhow::Error {
    let lines: Vec<String> = drifts.iter().map(ToString::to_string).collect();
    Failure::new(Class::Drift, lines.join("\n"))
        .meaning("no row was moved")
        .next("change the replica's tables to fit the feed, then run again")
        .into()
}

/// Reads a pending day's manifest and matches its slices with the replica's tables; all differences at once.
async fn match_day(
    store: &dyn crate::store::Store,
    feed: &Feed,
    entry: &DayEntry,
    relations: &[Relation],
    ledger: &Ledger,
) -> anyhow::Result<PendingDay> {
    let manifest = head::day_manifest(store, feed, entry).await?;
    let (mut targets, mut drifts): (Vec<(usize, Target)>, Vec<Drift>) = (Vec::new(), Vec::new());
    for (index, slice) in manifest.slices.iter().enumerate() {
        let Some(relation) =
            relations.iter().find(|relation| relation.schema == slice.schema && relation.name == slice.table)
        else {
            continue;
        };
        match matching::target(slice, relation, &manifest) {
            Ok(target) => targets.push((index, target)),
            Err(drift) => drifts.push(drift),
        }
    }
    if !drifts.is_empty() {
        return Err(drifted(&drifts).context(format!("{} does not fit the replica", entry.day)));
    }
    let revises = targets.iter().any(|(index, target)| {
        let slice = &manifest.slices[*index];
        let held = ledger.get(&(entry.day, target.name.clone()));
        // Reference rows of several days that are all older than what is held settle among themselves which is newest.
        let is_late = target.time.is_none()
            && ledger
                .iter()
                .any(|((_, table), held)| *table == target.name && held.taken.order(&manifest.taken).is_gt());
        is_late || held.is_some_and(|held| (held.rows, held.rows_digest) != (slice.rows, slice.rows_digest))
    });
    Ok(PendingDay { entry: entry.clone(), manifest, targets, revises })
}

async fn shape(client: &Client, relations: &[Relation]) -> Result<Shape, PgError> {
    let oids: Vec<u32> = relations.iter().map(|relation| relation.oid).collect();
    let (mut foreign_keys, mut cascades) = (Vec::new(), Vec::new());
    for row in client.query(include_str!("../../sql/foreign_keys.sql"), &[&oids]).await? {
        let key = (row.get("child"), row.get("parent"));
        foreign_keys.push(key);
        if row.get("cascades") {
            cascades.push(key);
        }
    }
    let sequences = client
        .query(include_str!("../../sql/owned_sequences.sql"), &[&oids])
        .await?
        .iter()
        .map(|row| OwnedSequence {
            relation: row.get("relation"),
            column: row.get("column_name"),
            schema: row.get("schema"),
            name: row.get("name"),
            descending: row.get("descending"),
        })
        .collect();
    Ok(Shape { foreign_keys, cascades, sequences })
}

/// Rows from before the feed's oldest day speak of a replica that was filled some other way. If its oldest day is not
/// the feed's, days between may be missing for good.
///
/// # Errors
/// Class BehindRetention, unless `--from` or `--allow-gap` says what is meant.
async fn check_continuity(
    mut applier: Applier,
    pending: &[PendingDay],
    request: Request,
    created: &[String],
) -> anyhow::Result<Applier> {
    if request.from.is_some() || request.gaps == Gaps::Allow {
        return Ok(applier);
    }
    // The first day of each table that has rows: a day without rows proves nothing.
    let mut firsts: BTreeMap<String, (Day, u64, RowsDigest, Target)> = BTreeMap::new();
    for day in pending {
        for (index, target) in &day.targets {
            let slice = &day.manifest.slices[*index];
            let met_before = applier.ledger.keys().any(|(_, table)| *table == target.name);
            if target.time.is_some() && slice.rows > 0 && !met_before && !created.contains(&target.name) {
                let first = (day.entry.day, slice.rows, slice.rows_digest, target.clone());
                firsts.entry(target.name.clone()).or_insert(first);
            }
        }
    }
    let (applier, outcome) = spawn_blocking(move || {
        let mut all = firsts.into_values();
        let outcome = all
            .try_for_each(|(day, rows, digest, target)| holds_first(&mut applier.session, &target, rows, digest, day));
        (applier, outcome)
    })
    .await?;
    outcome.map(|()| applier)
}

fn holds_first(session: &mut Session, target: &Target, rows: u64, digest: RowsDigest, day: Day) -> anyhow::Result<()> {
    let Some(time) = &target.time else { return Ok(()) };
    let sql = format!("select exists (select from {} as present where {})::text", target.table, time.before("present"));
    let has_earlier = session.query(&sql, &[])?.first().is_some_and(|row| row.get(0) == Some("true"));
    if !has_earlier || adopt::look(session, target, rows, digest)? == Found::Equal {
        return Ok(());
    }
    Err(Failure::new(
        Class::BehindRetention,
        format!("{} has rows from before {day}, the first day of it in the feed, but not that day's rows", target.name),
    )
    .meaning("nothing was applied: days between may be missing on this replica for good")
    .next(format!("load a newer full dump; or say what is meant with --from {day} or --allow-gap"))
    .into())
}

fn stop(
    feed: &Feed,
    config: &Config,
    hole: Option<Day>,
    beyond_newest: Option<Day>,
    waiting: usize,
    now: DateTime<Utc>,
) -> Option<Stop> {
    let failure = if let Some(hole) = hole {
        Failure::new(
            Class::Gap,
            format!("{hole} is missing in the feed; {} wait for it", counted(waiting, "later day")),
        )
        .meaning("the days before it were applied")
        .next("ask the publisher to export it, or step over it with --allow-gap")
    } else if let Some(to) = beyond_newest {
        let newest = feed.newest.map_or_else(|| "none yet".to_owned(), |newest| format!("the newest is {newest}"));
        Failure::new(Class::NotSettled, format!("{to} is not published yet ({newest})"))
            .meaning("the days up to the newest were applied")
            .next("run again later")
    } else if plan::is_stale(feed, config.replica.max_age, now) {
        Failure::new(
            Class::Stale,
            format!("the feed was last published to at {}", feed.published_at.format("%Y-%m-%d %H:%M UTC")),
        )
        .meaning("everything that is published was applied, but nothing new has come for too long")
        .next("ask the publisher whether the export still runs")
    } else {
        return None;
    };
    Some(Stop { exit_code: failure.class.exit_code(), message: failure.to_string(), failure })
}

impl DayReport {
    fn planned(manifest: &Manifest) -> DayReport {
        DayReport { day: manifest.day, revision: manifest.revision, rows: manifest.rows(), tables: BTreeMap::new() }
    }

    fn applied(manifest: &Manifest, applied: &[Applied]) -> DayReport {
        let own = applied.iter().filter(|slice| slice.day == manifest.day);
        let tables: BTreeMap<String, TableReport> = own
            .map(|slice| {
                let report =
                    TableReport { origin: slice.origin, rows: slice.rows, keeps_extra_rows: slice.keeps_extra_rows };
                (slice.table.clone(), report)
            })
            .collect();
        let rows = tables.values().map(|table| table.rows).sum();
        DayReport { day: manifest.day, revision: manifest.revision, rows, tables }
    }

    /// The day in one line, for people.
    pub fn line(&self) -> String {
        let mut origins: Vec<&str> = self.tables.values().map(|table| table.origin.word()).collect();
        origins.sort_unstable();
        origins.dedup();
        let how = if origins.is_empty() { "would be applied".to_owned() } else { origins.join(", ") };
        let extra = self.tables.values().any(|table| table.keeps_extra_rows);
        let note = if extra { " (rows that the feed does not know were kept)" } else { "" };
        format!("{} r{} {how}: {} rows{note}", self.day, self.revision, human_count(self.rows))
    }
}

impl CatchupReport {
    fn of(feed: &Feed, mode: Mode) -> CatchupReport {
        CatchupReport {
            format: 1,
            feed_id: feed.feed_id.clone(),
            dataset: feed.dataset.clone(),
            sequence: feed.sequence,
            published_at: feed.published_at,
            dry_run: mode == Mode::DryRun,
            created: Vec::new(),
            days: Vec::new(),
            newest: feed.newest,
            waiting: 0,
            requests: None,
            stopped: None,
        }
    }

    /// Why the run did not end with everything applied and fresh.
    pub fn failure(&self) -> Option<&Failure> {
        self.stopped.as_ref().map(|stop| &stop.failure)
    }

    /// The run for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.created.is_empty() {
            let verb = if self.dry_run { "would create" } else { "created" };
            lines.push(format!("{verb} {}", self.created.join(", ")));
        }
        if self.dry_run {
            lines.extend(self.days.iter().map(DayReport::line));
        }
        let newest = self.newest.map_or_else(|| "no day yet".to_owned(), |newest| format!("newest day {newest}"));
        let summary = match (self.days.len(), self.dry_run) {
            (0, _) if self.waiting == 0 => format!("nothing new ({newest})"),
            (0, _) => format!("nothing applied ({newest})"),
            (days, false) => {
                let rows = self.days.iter().map(|day| day.rows).sum();
                format!("{} applied, {} rows ({newest})", counted(days, "day"), human_count(rows))
            }
            (days, true) => format!("{} would be applied ({newest})", counted(days, "day")),
        };
        lines.push(format!("{}: {summary}{}", self.dataset, after_requests(self.requests)));
        lines
    }
}
