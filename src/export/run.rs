//! The story of `pgslice export`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::announce::{self, ColumnNews};
use super::day::{Change, Exporter, NewSource, Published};
use super::plan::{self, Candidate, Request, Rules};
use super::settle::{self, SourceFacts};
use super::standby;
use super::wait::Patience;
use crate::config::{Config, Detect};
use crate::day::{Day, Window};
use crate::error::{Class, Failure, class_of, describe};
use crate::feed::{DayEntry, Feed, Pulse};
use crate::figures::{after_requests, human_bytes, human_count, human_span};
use crate::head;
use crate::manifest::State;
use crate::pg::{Endpoint, PgError, pooler, version};
use crate::progress::Progress;
use crate::retention::PruneReport;
use crate::store::{SharedStore, Store};

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which days.
    pub request: Request,
    /// How decisions may be overruled.
    pub rules: Rules,
    /// Whether another source is accepted.
    pub new_source: NewSource,
    /// How long the run waits for days to settle, whatever the configuration says.
    pub wait: Option<Duration>,
}

/// What became of a run.
#[derive(Debug, Clone, Serialize)]
pub struct ExportReport {
    /// The version of this report.
    pub format: u32,
    /// The dataset.
    pub dataset: String,
    /// The feed; absent when a dry run found none.
    pub feed_id: Option<String>,
    /// The sequence of the newest head that the run saw.
    pub sequence: Option<u64>,
    /// Nothing was written: the days say what would be looked at.
    pub dry_run: bool,
    /// How many seconds the source's clock is ahead of this machine's; negative where it is behind.
    pub clock_skew_seconds: i64,
    /// The days that were looked at, ascending.
    pub days: Vec<DayReport>,
    /// Columns of the source that are not what they were on the newest day that was published before.
    pub columns: Vec<ColumnNews>,
    /// What `--prune` did afterwards.
    pub pruned: Option<PruneReport>,
    /// Requests that the store was sent; absent for a folder.
    pub requests: Option<u64>,
}

/// What became of a day.
#[derive(Debug, Clone, Serialize)]
pub struct DayReport {
    /// The day.
    pub day: Day,
    /// Why it was looked at.
    pub why: &'static str,
    /// Its window.
    pub window: Window,
    /// What became of it.
    pub outcome: Outcome,
    /// The revision that stands.
    pub revision: Option<u32>,
    /// Its state.
    pub state: Option<State>,
    /// Its rows.
    pub rows: Option<u64>,
    /// Its stored bytes.
    pub bytes: Option<u64>,
    /// Why it is provisional.
    pub unsettled: Vec<String>,
    /// What went wrong, with the exit code of its class.
    pub error: Option<DayError>,
}

/// A day that failed.
#[derive(Debug, Clone, Serialize)]
pub struct DayError {
    /// The exit code of its class.
    pub exit_code: u8,
    /// What a person reads.
    pub message: String,
    #[serde(skip)]
    class: Class,
}

/// What became of a day, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A dry run: it would be looked at.
    Planned,
    /// A new revision stands.
    Published,
    /// The provisional revision is final now.
    Settled,
    /// The provisional revision stays so, and says when its rows were counted again.
    Recounted,
    /// The published revision says the same.
    Unchanged,
    /// It failed; what was published before still stands.
    Failed,
}

/// Exports the days that were asked for, one after the other. A day that fails does not stop the others; a run that
/// is cancelled starts no more.
///
/// # Errors
/// What concerns the whole run: source or store out of reach, a feed of another dataset. A day's own failure is in
/// the report: see [`ExportReport::failure`].
pub async fn run(
    config: Arc<Config>,
    source: Endpoint,
    store: SharedStore,
    options: Options,
    cancel: CancellationToken,
    progress: Progress,
) -> anyhow::Result<ExportReport> {
    let patience = Patience::of(options.wait, config.export.unsettled);
    let (facts, clock_skew_seconds) = cancel
        .run_until_cancelled(Box::pin(standby::patiently(async || source_facts(&source).await)))
        .await
        .unwrap_or(Err(PgError::Cancelled.into()))?;
    tell_of_clock(clock_skew_seconds);
    let feed = head::create(&*store, &new_feed(&config, Utc::now())).await?;
    check_dataset(&feed, &config, &*store)?;
    let candidates = candidates(&config, Some(&feed), options.request, facts.now);
    let exporter = Exporter {
        config: Arc::clone(&config),
        source,
        store: Arc::clone(&store),
        rules: options.rules,
        new_source: options.new_source,
        patience,
        cancel: cancel.clone(),
        progress: progress.clone(),
    };
    let mut report = ExportReport {
        format: 1,
        dataset: config.dataset.clone(),
        feed_id: Some(feed.feed_id.clone()),
        sequence: Some(feed.sequence),
        dry_run: false,
        clock_skew_seconds,
        days: Vec::new(),
        columns: Vec::new(),
        pruned: None,
        requests: None,
    };
    let news = announce::read(&exporter.source, &*store, &feed, &config.tables).await.unwrap_or_else(|error| {
        tracing::debug!("what changed since the newest day is not known: {error:#}");
        Vec::new()
    });
    let mut seen = Vec::new();
    for candidate in candidates {
        if cancel.is_cancelled() {
            break;
        }
        progress.begin(&format!("export {}", candidate.day));
        let outcome = exporter.publish(candidate).await;
        if let Ok(published) = &outcome {
            report.sequence = Some(published.sequence);
            if published.change == Change::Unchanged {
                seen.push(published.entry.clone());
            }
        }
        let day = day_report(&config, candidate, outcome);
        progress.suspend(|| log_day(&day));
        report.days.push(day);
    }
    progress.end();
    report.columns = announce::since(news, &report.days);
    if !cancel.is_cancelled() {
        report.sequence = publish_seen(&*store, &report, &seen).await?.or(report.sequence);
    }
    report.requests = store.requests();
    Ok(report)
}

/// Publishes that days are still as they were, and when that was found: a full dump from before may hold them as they
/// were in between. Returns the head's sequence if there was anything to say.
///
/// # Errors
/// The store's, when that is all there is to publish.
async fn publish_seen(store: &dyn Store, report: &ExportReport, seen: &[DayEntry]) -> anyhow::Result<Option<u64>> {
    // The heartbeat: readers can tell a quiet feed from a dead exporter, and from one that fails each night.
    let is_all = report.days.iter().all(|day| day.outcome == Outcome::Unchanged);
    if !is_all && seen.is_empty() {
        return Ok(None);
    }
    let pulse = if is_all { Pulse::Beat(Utc::now()) } else { Pulse::None };
    match head::change(store, pulse, |feed| Ok(feed.with_days_seen(seen)), |_| false).await {
        Ok(feed) => Ok(Some(feed.sequence)),
        Err(error) if is_all => Err(error),
        Err(error) => {
            tracing::warn!("feed.json does not say that days were found unchanged ({error:#}); the next run says it");
            Ok(None)
        }
    }
}

/// What [`run`] would look at; writes nothing, not even an empty feed. Without a store all of it is to be made.
///
/// # Errors
/// As [`run`].
pub async fn plan(
    config: &Config,
    source: &Endpoint,
    store: Option<&dyn Store>,
    request: Request,
) -> anyhow::Result<ExportReport> {
    let (facts, clock_skew_seconds) = standby::patiently(async || source_facts(source).await).await?;
    tell_of_clock(clock_skew_seconds);
    let mut feed = None;
    if let Some(store) = store {
        feed = head::read(store).await?.map(|(feed, _)| feed);
        if let Some(feed) = &feed {
            check_dataset(feed, config, store)?;
        }
    }
    let candidates = candidates(config, feed.as_ref(), request, facts.now);
    let day = |candidate: &Candidate| {
        let window = config.timezone.window(candidate.day);
        let mut day = DayReport::of(*candidate, window, Outcome::Planned);
        if window.end > facts.now {
            let failure =
                Failure::new(Class::NotSettled, format!("{} has not ended by the source's clock", candidate.day));
            day.fail(&failure.into());
        }
        day
    };
    Ok(ExportReport {
        format: 1,
        dataset: config.dataset.clone(),
        feed_id: feed.as_ref().map(|feed| feed.feed_id.clone()),
        sequence: feed.as_ref().map(|feed| feed.sequence),
        dry_run: true,
        clock_skew_seconds,
        days: candidates.iter().map(day).collect(),
        columns: Vec::new(),
        pruned: None,
        requests: None,
    })
}

/// What the source says about itself, and how far its clock is ahead of this machine's, in seconds.
async fn source_facts(source: &Endpoint) -> anyhow::Result<(SourceFacts, i64)> {
    pooler::refuse_shared_sessions(source, "source").await?;
    let client = source.client().await.context("cannot connect to the source")?;
    let before = Utc::now();
    let facts = settle::source_facts(&client).await?;
    let clock_skew = settle::clock_skew_secs(facts.now, before, Utc::now());
    version::check("source", &facts.server_version, facts.server_version_num)?;
    Ok((facts, clock_skew))
}

fn tell_of_clock(skew_secs: i64) {
    if skew_secs.abs() > settle::CLOCK_TOLERANCE_SECS {
        let side = if skew_secs > 0 { "behind" } else { "ahead of" };
        tracing::warn!(
            "this machine's clock is {} {side} the source's: days end by the source's clock, and a feed's age is told \
             by this one",
            human_span(TimeDelta::seconds(skew_secs.saturating_abs()))
        );
    }
}

fn candidates(config: &Config, feed: Option<&Feed>, request: Request, now: DateTime<Utc>) -> Vec<Candidate> {
    let today = config.timezone.day_of(now);
    let way = |detect: Option<Detect>| detect.unwrap_or(config.export.detect);
    let nothing_to_see = config.tables.iter().all(|table| way(table.detect) == Detect::Off);
    let lookback_days = if nothing_to_see { 0 } else { config.export.lookback_days };
    plan::candidates(feed, request, today, config.retention.keep_days, lookback_days)
}

pub(crate) fn new_feed(config: &Config, now: DateTime<Utc>) -> Feed {
    Feed::empty(
        head::random_feed_id(),
        config.dataset.clone(),
        config.timezone.name().to_owned(),
        head::random_feed_id(),
        now,
    )
}

pub(crate) fn check_dataset(feed: &Feed, config: &Config, store: &dyn Store) -> anyhow::Result<()> {
    if feed.dataset == config.dataset {
        return Ok(());
    }
    Err(Failure::new(
        Class::Usage,
        format!("{} holds the feed of dataset {:?}, not of {:?}", store.url(), feed.dataset, config.dataset),
    )
    .meaning("nothing was exported; one store url holds one dataset")
    .next("check dataset and store.url in the configuration")
    .into())
}

impl DayReport {
    fn of(candidate: Candidate, window: Window, outcome: Outcome) -> DayReport {
        DayReport {
            day: candidate.day,
            why: candidate.why.words(),
            window,
            outcome,
            revision: None,
            state: None,
            rows: None,
            bytes: None,
            unsettled: Vec::new(),
            error: None,
        }
    }

    fn fail(&mut self, error: &anyhow::Error) {
        let class = class_of(error);
        self.outcome = Outcome::Failed;
        self.error = Some(DayError { exit_code: class.exit_code(), message: describe(error), class });
    }
}

fn day_report(config: &Config, candidate: Candidate, outcome: anyhow::Result<Published>) -> DayReport {
    let mut report = DayReport::of(candidate, config.timezone.window(candidate.day), Outcome::Unchanged);
    match outcome {
        Err(error) => report.fail(&error),
        Ok(Published { entry, change, unsettled, .. }) => {
            report.outcome = match change {
                Change::Published => Outcome::Published,
                Change::Settled => Outcome::Settled,
                Change::Recounted => Outcome::Recounted,
                Change::Unchanged => Outcome::Unchanged,
            };
            report.revision = Some(entry.revision);
            report.state = Some(entry.state);
            report.rows = Some(entry.rows);
            report.bytes = Some(entry.bytes);
            report.unsettled = unsettled;
        }
    }
    report
}

fn log_day(day: &DayReport) {
    match &day.error {
        Some(error) => tracing::error!("{} failed: {}", day.day, error.message),
        None => {
            tracing::info!("{}", day.line());
            for reason in &day.unsettled {
                tracing::warn!("{} is provisional: {reason}", day.day);
            }
        }
    }
}

impl DayReport {
    /// The day in one line, for people.
    pub fn line(&self) -> String {
        if let Some(error) = &self.error {
            return format!("{} failed: {}", self.day, error.message);
        }
        let figures = match (self.revision, self.state, self.rows, self.bytes) {
            (Some(revision), Some(state), Some(rows), Some(bytes)) => {
                format!("r{revision} {}, {} rows, {}", state.word(), human_count(rows), human_bytes(bytes))
            }
            _ => self.why.to_owned(),
        };
        let outcome = match self.outcome {
            Outcome::Planned => "would be exported",
            Outcome::Published => "published",
            Outcome::Settled => "published as final",
            Outcome::Recounted => "counted again",
            Outcome::Unchanged => "unchanged",
            Outcome::Failed => "failed",
        };
        format!("{} {outcome}: {figures}", self.day)
    }
}

impl ExportReport {
    /// How the run failed, if it did: a run over one named day with that day's own class, any other run with
    /// [`Class::DaysFailed`].
    pub fn failure(&self, request: Request) -> Option<Class> {
        let class = self.days.iter().find_map(|day| day.error.as_ref())?.class;
        Some(if matches!(request, Request::Day(_)) { class } else { Class::DaysFailed })
    }

    /// The run for people: a line for days that failed or changed, and a summary.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = if self.dry_run { self.planned_lines() } else { vec![self.summary()] };
        lines.extend(self.columns.iter().map(ColumnNews::line));
        lines.extend(self.pruned.iter().flat_map(PruneReport::lines));
        lines
    }

    fn planned_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.days.iter().map(DayReport::line).collect();
        if lines.is_empty() {
            lines.push("nothing is due".to_owned());
        }
        lines
    }

    fn summary(&self) -> String {
        let count = |outcomes: &[Outcome]| self.days.iter().filter(|day| outcomes.contains(&day.outcome)).count();
        let published = count(&[Outcome::Published, Outcome::Settled]);
        let (unchanged, failed) = (count(&[Outcome::Unchanged, Outcome::Recounted]), count(&[Outcome::Failed]));
        let mut parts = Vec::new();
        if published > 0 {
            parts.push(format!("{published} published"));
        }
        if unchanged > 0 {
            parts.push(format!("{unchanged} unchanged"));
        }
        if failed > 0 {
            parts.push(format!("{failed} failed"));
        }
        let summary = if parts.is_empty() { "nothing is due".to_owned() } else { parts.join(", ") };
        format!("{}: {summary}{}", self.dataset, after_requests(self.requests))
    }
}
