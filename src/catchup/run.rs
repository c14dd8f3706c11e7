//! The story of `pgslice catchup`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::apply::{Applier, Direct, Extra, PendingDay, Staging, Triggers};
use super::conflict::{
    explain, is_foreign_key_violation, is_late, is_of_the_replica, is_of_unknown_rows, is_unique_violation,
};
use super::fetch::Supply;
use super::idle::{self, Decided, HeadInBrief, Look};
use super::judge::{self, Bench, ReadDay, drifted};
use super::ledger::{self, KnownHead, Ledger};
use super::matching::Drift;
use super::plan::{self, Accepted, Dated, Pending, Request};
use super::report::{CatchupReport, DayReport, RestoredReport, stop};
use super::restored::{self, Restored, RestoredFrom, Told};
use super::{continuity, create, guards, partitions, replica, shape};
use crate::config::{Config, CreatePartitions};
use crate::error::{Class, Failure};
use crate::feed::{Feed, Standing};
use crate::head;
use crate::pg::catalog::{self, RelKind, Relation};
use crate::pg::{Endpoint, PgError, Session, pooler};
use crate::progress::Progress;
use crate::store::SharedStore;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which days.
    pub request: Request,
    /// What the replica was restored from, if that is said.
    pub restored_from: Option<RestoredFrom>,
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

/// How often the lock of a replica is tried, and how long to wait in between: two seconds in all.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// No table has this oid: that of one which a dry run would make.
const NOT_THERE_YET: u32 = 0;

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
    let session = pooler::own_session(&replica, "replica", &cancel).await?;
    let (session, look) = idle::look(session, config, &*store, &options).await?;
    let (feed, validator) = match look {
        Look::Head(feed, validator) => (*feed, validator),
        Look::UpToDate(head) => {
            progress.end();
            return Ok(CatchupReport::up_to_date(&head, config, store.requests(), now));
        }
    };
    check_dataset(&feed, config)?;
    let mut client = replica.client().await.context("cannot connect to the replica")?;
    replica::refuse_standby(&client).await?;
    if options.mode == Mode::Apply {
        replica::refuse_read_only(&client).await?;
        ledger::create(&client).await.context("cannot make the ledger (schema pgslice) on the replica")?;
    }
    let mut session = replica::of_one_server(session, &client).await?;
    lock_replica(&mut session, &feed).await?;
    let (mut session, mut before) = idle::ask(session, config).await?;
    let mut ledger = match ledger::exists(&client).await? {
        true => {
            check_known_head(&feed, ledger::known_head(&client, &feed.dataset).await?)?;
            ledger::read(&client, &feed.feed_id).await?
        }
        false => Ledger::new(),
    };
    let mut report = CatchupReport::of(&HeadInBrief::of(&feed), options.mode);

    let mut relations = relations(&client, config).await?;
    let mut accepted = accepted(config, &relations);
    check_published(&feed, &accepted)?;
    // A table that was restored or made anew is met for the first time again.
    ledger.retain(|(_, table), held| accepted.get(table) == Some(&held.table_oid));
    if options.extra == Extra::Delete {
        // No manifest matches: the slice is pending, whatever its revision.
        ledger.values_mut().filter(|held| held.keeps_extra_rows).for_each(|held| held.manifest_sha256.clear());
    }
    judge::miss_left_out(&mut ledger, &relations, &config.tables);
    let told = told(&client, &feed, &ledger, &accepted, &relations, &options, now).await?;
    report.restored_from = RestoredReport::of(&told);
    restored::find_read_since(&feed, &told.restored, &mut ledger);
    let Pending { days, waiting, hole, beyond_newest } = plan::pending(&feed, &ledger, &accepted, options.request)?;
    report.waiting = waiting;
    let read = judge::read(&*store, &feed, days).await?;
    let missing = missing_tables(config, &relations);
    if !missing.is_empty() {
        let bench = Bench { client: &client, store: &*store, feed: &feed, config };
        let statements = create_statements(bench, &missing, options.missing_tables, &read).await?;
        let is_published = |name: &String| feed.days.iter().any(|entry| entry.tables.contains_key(name));
        report.created = missing.iter().map(|(schema, name)| format!("{schema}.{name}")).filter(is_published).collect();
        if options.mode == Mode::Apply {
            client
                .batch_execute(&format!("begin;\n{statements}\ncommit;"))
                .await
                .map_err(PgError::from)
                .context("cannot create tables")?;
            (session, before) = idle::ask(session, config).await?;
            relations = self::relations(&client, config).await?;
            accepted = self::accepted(config, &relations);
        }
    }

    let mut triggers = Triggers::None;
    for guards in guards::read(&client, &relations).await? {
        guards.refuse()?;
        if !guards.triggers.is_empty() {
            triggers = Triggers::Some;
        }
    }
    // A partition may have triggers of its own.
    if relations.iter().any(|relation| relation.kind == RelKind::Partitioned) {
        triggers = Triggers::Some;
    }
    let bench = Bench { client: &client, store: &*store, feed: &feed, config };
    let (mut pending, added) = judge::judge_and_add(read, bench, &mut relations, &ledger, options.mode).await?;
    report.added = added;
    report.left_out = judge::left_out(&pending);
    pending.iter_mut().for_each(|day| revise_restored(day, &told.restored));
    let create_partitions = config.replica.create_partitions;
    find_partitions(&client, &mut pending, &relations, &ledger, create_partitions).await?;
    let shape = shape::read(&client, &relations).await?;
    let mut applier = Applier {
        session,
        feed: feed.clone(),
        timezone: feed.timezone.parse().unwrap_or(config.timezone),
        supply: Supply::new(Arc::clone(&store), Handle::current()),
        upcoming: VecDeque::new(),
        following: None,
        ledger,
        restored: told.restored.clone(),
        shape,
        extra: options.extra,
        direct: Direct::Allowed,
        staging: Staging::Differences,
        staged: Staging::Whole,
        triggers,
        progress: progress.clone(),
        giving_way: Vec::new(),
    };
    applier = continuity::check(applier, &pending, options.request, &report.created).await?;

    let batches = plan::batches(pending);
    if options.mode == Mode::DryRun {
        report.days.extend(batches.iter().flatten().map(|day| DayReport::planned(&day.manifest)));
    } else {
        ledger::saw(&client, &feed).await.context("cannot write to the ledger on the replica")?;
        restored::keep(&mut client, &feed.feed_id, &told)
            .await
            .context("cannot keep what the replica was restored from")?;
        applier = apply_batches(applier, batches, &relations, &cancel, &mut report).await?;
        // Rows that went elsewhere with a batch may find their place now that all of them are applied.
        let Pending { days, .. } = plan::pending(&feed, &applier.ledger, &accepted, options.request)?;
        let read = judge::read(&*store, &feed, days).await?;
        let bench = Bench { client: &client, store: &*store, feed: &feed, config };
        let mut in_doubt = judge::judge_again(read, bench, &relations, &applier.ledger).await?;
        find_partitions(&client, &mut in_doubt, &relations, &applier.ledger, create_partitions).await?;
        applier = apply_batches(applier, plan::batches(in_doubt), &relations, &cancel, &mut report).await?;
        let nothing_pending =
            hole.is_none() && feed.days.iter().all(|entry| plan::is_held(entry, &applier.ledger, &accepted));
        if nothing_pending {
            let (client, store, restored) = (&client, &*store, &told.restored);
            let (feed, relations, accepted) = (&feed, &relations, &accepted);
            let decided = Decided { client, config, store, feed, validator, before, relations, accepted, restored };
            idle::caught_up(applier, decided).await?;
        }
    }
    progress.end();
    report.requests = store.requests();
    report.stopped = stop(&HeadInBrief::of(&feed), config, hole, beyond_newest, waiting, now);
    Ok(report)
}

/// What is known of the dumps that the replica's tables were restored from, with what this run is told.
async fn told(
    client: &Client,
    feed: &Feed,
    ledger: &Ledger,
    accepted: &Accepted,
    relations: &[Relation],
    options: &Options,
    now: DateTime<Utc>,
) -> anyhow::Result<Told> {
    let known = restored::read(client, &feed.feed_id, accepted).await?;
    restored::tell(client, feed, ledger, relations, known, options.restored_from.as_ref(), now).await
}

/// A day whose window holds rows of a dump is a revision of them: such days are applied together.
fn revise_restored(day: &mut PendingDay, restored: &Restored) {
    day.revises |= day.targets.iter().any(|(_, target)| {
        let standing = restored.standing(&target.name, day.taken());
        standing.is_some_and(|standing| standing != Standing::Contained)
            && restored.reaches_into(&target.name, day.entry.window)
    });
}

/// Applies batches in their order, each in a transaction of its own; those that get in each other's way share one.
async fn apply_batches(
    mut applier: Applier,
    batches: Vec<Vec<PendingDay>>,
    relations: &[Relation],
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
        applier.following = batches.front().and_then(|next| applier.first_of(next));
        let (returned, batch, outcome) = spawn_blocking(move || {
            let outcome = applier.apply(&batch);
            (applier, batch, outcome)
        })
        .await?;
        applier = returned;
        let in_the_way = |error: &anyhow::Error| {
            is_unique_violation(error) || is_foreign_key_violation(error) || is_of_unknown_rows(error)
        };
        if !batches.is_empty() && outcome.as_ref().is_err_and(in_the_way) {
            // A later batch may let go of the value, or bring the row that is pointed to.
            let joined = batch.into_iter().chain(batches.drain(..).flatten()).collect();
            batches.push_front(joined);
            continue;
        }
        let late = |error: &anyhow::Error| is_unique_violation(error) && is_late(error);
        if applier.direct == Direct::Allowed && outcome.as_ref().is_err_and(late) {
            applier.direct = Direct::Avoided;
            batches.push_front(batch);
            continue;
        }
        // What the rows that were left out of a stage have to do with it, a whole one tells.
        if applier.staged == Staging::Differences && outcome.as_ref().is_err_and(is_of_the_replica) {
            applier.staging = Staging::Whole;
            batches.push_front(batch);
            continue;
        }
        applier.direct = Direct::Allowed;
        applier.staging = Staging::Differences;
        let only_doubts = batch.iter().all(|day| applier.is_only_in_doubt(day));
        if only_doubts && outcome.as_ref().is_err_and(is_foreign_key_violation) {
            tracing::warn!("{names}: rows point to rows of a day that is not published as it is now; they wait for it");
            continue;
        }
        let applied =
            outcome.with_context(|| format!("cannot apply {names}")).map_err(|error| explain(error, relations))?;
        for gave_way in applier.giving_way.drain(..) {
            applier.progress.suspend(|| tracing::warn!("{}", gave_way.line()));
            report.gave_way.push(gave_way);
        }
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
pub(crate) fn accepted(config: &Config, relations: &[Relation]) -> Accepted {
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
pub(crate) fn check_published(feed: &Feed, accepted: &Accepted) -> Result<(), Failure> {
    let published = |name: &&String| feed.days.iter().any(|entry| entry.tables.contains_key(*name));
    match accepted.keys().find(|name| !published(name)).filter(|_| !feed.days.is_empty()) {
        None => Ok(()),
        Some(name) => Err(Failure::new(Class::Drift, format!("the feed has no table {name}"))
            .meaning("nothing was applied")
            .next("take it out of the replica's configuration, or check its spelling")),
    }
}

pub(crate) fn check_dataset(feed: &Feed, config: &Config) -> Result<(), Failure> {
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

/// One catchup per replica and feed at a time; the lock lives as long as the session. The server may take a moment to
/// notice that the session of a run that has just ended is gone.
pub(crate) async fn lock_replica(session: &mut Session, feed: &Feed) -> anyhow::Result<()> {
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

pub(crate) fn check_known_head(feed: &Feed, known: Option<KnownHead>) -> Result<(), Failure> {
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

pub(crate) async fn relations(client: &Client, config: &Config) -> Result<Vec<Relation>, PgError> {
    let names: Vec<(&str, &str)> =
        config.tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).collect();
    catalog::relations(client, &names).await
}

pub(crate) fn missing_tables(config: &Config, relations: &[Relation]) -> Vec<(String, String)> {
    config
        .tables
        .iter()
        .filter(|table| {
            !relations.iter().any(|relation| relation.schema == table.schema && relation.name == table.name)
        })
        .map(|table| (table.schema.clone(), table.name.clone()))
        .collect()
}

/// The statements that make the missing tables, as of the days that have them the one that was read last does.
pub(crate) async fn create_statements(
    bench: Bench<'_>,
    missing: &[(String, String)],
    missing_tables: MissingTables,
    days: &[ReadDay],
) -> anyhow::Result<String> {
    let Bench { client, store, feed, config } = bench;
    let names: Vec<String> = missing.iter().map(|(schema, name)| format!("{schema}.{name}")).collect();
    if missing_tables == MissingTables::Refuse {
        return Err(Failure::new(Class::Drift, format!("the replica has no table {}", names.join(", ")))
            .meaning("nothing was applied")
            .next("restore a full dump first, or let --create make the tables")
            .into());
    }
    let mut statements = String::new();
    for (schema, name) in missing {
        let qualified = format!("{schema}.{name}");
        let Some(entry) = judge::read_last(feed, &qualified) else {
            continue; // No day has it: that is judged for all tables at once.
        };
        let manifest = head::day_manifest(store, feed, entry).await?;
        let slice = manifest
            .slices
            .iter()
            .find(|slice| slice.schema == *schema && slice.table == *name)
            .with_context(|| format!("the manifest of {} has no slice of {qualified}", entry.day))?;
        let table = config.tables.iter().find(|table| table.schema == *schema && table.name == *name);
        let slice = match table {
            Some(table) => judge::to_create(slice, days, table).map_err(|drift| drifted(&[drift]))?,
            None => slice.clone(),
        };
        statements.push_str(&create::statements(client, &slice, schema, name).await.map_err(as_failure)?);
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

/// Sees to it that the rows of pending days find a partition, before the first row moves.
async fn find_partitions(
    client: &Client,
    pending: &mut [PendingDay],
    relations: &[Relation],
    ledger: &Ledger,
    create: CreatePartitions,
) -> anyhow::Result<()> {
    let drifts = partitions::prepare(client, pending, relations, ledger, create).await?;
    if drifts.is_empty() { Ok(()) } else { Err(drifted(&drifts)) }
}
