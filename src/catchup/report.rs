//! What a catchup tells, to scripts and to people.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::apply::{Applied, GaveWay};
use super::idle::HeadInBrief;
use super::ledger::Origin;
use super::plan;
use super::printable::printable;
use super::restored::Told;
use super::run::Mode;
use crate::config::Config;
use crate::day::Day;
use crate::error::{Class, Failure};
use crate::figures::{after_requests, counted};
use crate::layout::Key;
use crate::manifest::Manifest;

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
    /// What this run was told that tables were restored from; absent without that.
    pub restored_from: Option<RestoredReport>,
    /// Columns that were (or would be) added to tables, as `schema.table.column`.
    pub added: Vec<String>,
    /// Columns of days that were (or would be) left out, as the replica does not have them, and newer days do not carry
    /// them.
    pub left_out: Vec<String>,
    /// Rows of reference tables that gave way to others of the same natural key and did not come back: per transaction
    /// and table. The source may still have them.
    pub gave_way: Vec<GaveWay>,
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

/// The dump that tables were restored from.
#[derive(Debug, Clone, Serialize)]
pub struct RestoredReport {
    /// Its name in the feed; `None` for one that the feed does not know.
    pub key: Option<Key>,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// The tables.
    pub tables: Vec<String>,
}

impl RestoredReport {
    pub(super) fn of(told: &Told) -> Option<RestoredReport> {
        let tables: Vec<String> = told.new.iter().map(|(table, _)| table.clone()).collect();
        let origin = told.restored.origin(tables.first()?)?;
        Some(RestoredReport { key: origin.key.clone(), taken_at: origin.moment.taken_at, tables })
    }
}

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

/// Why a run that applied what it could did not end with everything applied and fresh.
pub(super) fn stop(
    feed: &HeadInBrief,
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

impl GaveWay {
    /// The rows in one line, for people.
    pub(super) fn line(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(|key| printable(key)).collect();
        let more = if u64::try_from(keys.len()).is_ok_and(|told| told < self.rows) { ", …" } else { "" };
        format!(
            "{}: {} gave way to others of the same natural key and left: {}{more}; one that is still on the source comes \
             back with the next day that carries it",
            self.table,
            counted_rows(self.rows),
            keys.join(", ")
        )
    }
}

impl DayReport {
    /// A day of a dry run.
    pub(super) fn planned(manifest: &Manifest) -> DayReport {
        DayReport { day: manifest.day, revision: manifest.revision, rows: manifest.rows(), tables: BTreeMap::new() }
    }

    /// A day of a batch that was committed.
    pub(super) fn applied(manifest: &Manifest, applied: &[Applied]) -> DayReport {
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
        format!("{} r{} {how}: {}{note}", self.day, self.revision, counted_rows(self.rows))
    }
}

impl CatchupReport {
    /// Of a run that has done nothing yet.
    pub(super) fn of(feed: &HeadInBrief, mode: Mode) -> CatchupReport {
        CatchupReport {
            format: 1,
            feed_id: feed.feed_id.clone(),
            dataset: feed.dataset.clone(),
            sequence: feed.sequence,
            published_at: feed.published_at,
            dry_run: mode == Mode::DryRun,
            created: Vec::new(),
            restored_from: None,
            added: Vec::new(),
            left_out: Vec::new(),
            gave_way: Vec::new(),
            days: Vec::new(),
            newest: feed.newest,
            waiting: 0,
            requests: None,
            stopped: None,
        }
    }

    /// Of a run that found nothing to do: the replica has all of the head.
    pub(super) fn up_to_date(
        head: &HeadInBrief,
        config: &Config,
        requests: Option<u64>,
        now: DateTime<Utc>,
    ) -> CatchupReport {
        let stopped = stop(head, config, None, None, 0, now);
        CatchupReport { requests, stopped, ..CatchupReport::of(head, Mode::Apply) }
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
        if !self.added.is_empty() {
            let verb = if self.dry_run { "would add" } else { "added" };
            let note = "they may be NULL here whatever they are on the source";
            lines.push(format!("{verb} {}; {note}", printable(&self.added.join(", "))));
        }
        if !self.left_out.is_empty() {
            let verb = if self.dry_run { "would leave out" } else { "left out" };
            lines.push(format!(
                "{verb} {}: newer days do not carry it, and the replica does not have it; if the source renamed it, say so \
                 with rename; once the replica has the column, those days are loaded again",
                printable(&self.left_out.join(", "))
            ));
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
                format!("{} applied, {} ({newest})", counted(days, "day"), counted_rows(rows))
            }
            (days, true) => format!("{} would be applied ({newest})", counted(days, "day")),
        };
        lines.push(format!("{}: {summary}{}", self.dataset, after_requests(self.requests)));
        lines
    }
}

fn counted_rows(rows: u64) -> String {
    counted(usize::try_from(rows).unwrap_or(usize::MAX), "row")
}
