//! `pgslice verify`: does what is published hold together, can it be read, is it what the source and the replica have?
//!
//! Four levels, each of which says what it cannot see: [`objects`] holds the head, the manifests and the sizes of objects
//! together; [`data`] reads parts; [`source`] and [`replica`] compare rows and digests by day and table. Day by day, so
//! that no more than one manifest is held. Nothing is ever changed.

use anyhow::Context;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::codec::{RowsDigest, Tally};
use crate::config::Config;
use crate::day::Day;
use crate::error::{Class, class_of};
use crate::feed::{DayEntry, Feed};
use crate::figures::{after_requests, counted, human_bytes, human_count, human_days};
use crate::head;
use crate::manifest::{Manifest, Slice};
use crate::pg::{Endpoint, PgError};
use crate::progress::Progress;
use crate::store::SharedStore;

pub mod data;
mod objects;
mod replica;
mod source;

pub use data::Share;

/// What is compared with what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The first day; the feed's oldest without one.
    pub from: Option<Day>,
    /// The last day; the feed's newest without one.
    pub to: Option<Day>,
    /// How much of the parts is read; nothing without it.
    pub data: Option<Share>,
    /// The source, if it is compared.
    pub source: Option<Endpoint>,
    /// The replica, if it is compared.
    pub replica: Option<Endpoint>,
}

/// What was compared, and what differs.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// The version of this report.
    pub format: u32,
    /// The dataset.
    pub dataset: String,
    /// The feed.
    pub feed_id: String,
    /// Its version.
    pub sequence: u64,
    /// How many published days were looked at.
    pub days: u64,
    /// The levels that were asked for, in the order of [`Level`].
    pub levels: Vec<LevelReport>,
    /// Requests that the store was sent; absent for a folder.
    pub requests: Option<u64>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The head, manifests, checksum files, sizes of parts.
    Store,
    /// What parts hold.
    Data,
    /// The source's rows.
    Source,
    /// The replica's rows.
    Replica,
}

impl Level {
    /// The word in reports.
    fn word(self) -> &'static str {
        match self {
            Level::Store => "store",
            Level::Data => "data",
            Level::Source => "source",
            Level::Replica => "replica",
        }
    }

    /// What it cannot see.
    fn blind_spot(self) -> &'static str {
        match self {
            Level::Store => "what parts hold, and revisions that the feed let go of",
            Level::Data => "whether the rows are those of the source",
            Level::Source => "rows in no window of a published day, and reference rows that changed since their day",
            Level::Replica => "days that are not applied, rows in no window of a published day, and reference tables",
        }
    }
}

/// One level.
#[derive(Debug, Clone, Serialize)]
pub struct LevelReport {
    /// Which.
    pub level: Level,
    /// Slices that were compared.
    pub slices: u64,
    /// Objects that were looked at or read.
    pub objects: u64,
    /// Rows that were compared.
    pub rows: u64,
    /// Stored bytes of those objects, as far as they were looked at or read.
    pub bytes: u64,
    /// What is not as published, in the order of days.
    pub differences: Vec<Difference>,
    /// What could not be compared, and why.
    pub not_compared: Vec<NotCompared>,
    /// What this level never checks.
    pub blind_spot: &'static str,
}

/// Something that is not as published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The day.
    pub day: Day,
    /// `schema.table`, where it concerns one.
    pub table: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What the manifest says, where rows were compared.
    pub published: Option<Figures>,
    /// What was found, where rows were compared.
    pub found: Option<Figures>,
}

/// A slice that was not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCompared {
    /// The day.
    pub day: Day,
    /// `schema.table`
    pub table: String,
    /// Why.
    pub why: String,
}

/// Rows and their digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Rows.
    pub rows: u64,
    /// Their order-free digest.
    pub rows_digest: RowsDigest,
}

/// How a slice compares with what a database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judgement {
    /// The same rows.
    Equal,
    /// Other rows.
    Differs(Figures),
    /// It cannot be said, for this reason.
    NotCompared(String),
}

/// Compares what [`Options`] say.
///
/// # Errors
/// What keeps the comparison from being made: a store or database out of reach, another dataset. What differs is in the
/// report: see [`Verification::failure`].
pub async fn run(
    config: &Config,
    store: &SharedStore,
    options: Options,
    cancel: &CancellationToken,
    progress: &Progress,
) -> anyhow::Result<Verification> {
    let feed = head::read_existing(&**store).await?;
    crate::catchup::run::check_dataset(&feed, config)?;
    let wanted = |entry: &&DayEntry| {
        options.from.is_none_or(|from| entry.day >= from) && options.to.is_none_or(|to| entry.day <= to)
    };
    let entries: Vec<&DayEntry> = feed.days.iter().filter(wanted).collect();
    let mut levels = vec![LevelReport::of(Level::Store)];
    let mut data = options.data.map(|share| (share, LevelReport::of(Level::Data)));
    let mut source = options.source.map(|endpoint| (endpoint, LevelReport::of(Level::Source)));
    let mut replica = None;
    if let Some(endpoint) = options.replica {
        let reader = replica::Reader::open(config, &feed, &endpoint, cancel).await?;
        replica = Some((reader, LevelReport::of(Level::Replica)));
    }
    for entry in &entries {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled.into());
        }
        progress.begin(&format!("verify {}", entry.day));
        let manifest = match head::day_manifest(&**store, &feed, entry).await {
            Ok(manifest) => manifest,
            Err(error) => {
                levels[0].differs(entry.day, None, error)?;
                continue;
            }
        };
        objects::check(store, entry, &manifest, &mut levels[0]).await?;
        if let Some((share, report)) = &mut data {
            data::check(store, &manifest, *share, report, progress).await?;
        }
        if let Some((endpoint, report)) = &mut source {
            let judged = source::compare(config, endpoint, &manifest, cancel).await;
            report.judge(&manifest, judged.with_context(|| format!("cannot compare {} with the source", entry.day))?);
        }
        if let Some((reader, report)) = &mut replica {
            let judged = reader.compare(entry, &manifest).await;
            report.judge(&manifest, judged.with_context(|| format!("cannot compare {} with the replica", entry.day))?);
        }
    }
    progress.end();
    levels.extend(data.map(|(_, report)| report));
    levels.extend(source.map(|(_, report)| report));
    levels.extend(replica.map(|(_, report)| report));
    if levels.iter().any(|level| !level.differences.is_empty()) {
        let present = head::read_existing(&**store).await?;
        levels.iter_mut().for_each(|level| level.excuse(&feed, &present));
    }
    Ok(Verification::of(&feed, entries.len(), levels, store.requests()))
}

impl LevelReport {
    fn of(level: Level) -> LevelReport {
        let (differences, not_compared, blind_spot) = (Vec::new(), Vec::new(), level.blind_spot());
        LevelReport { level, slices: 0, objects: 0, rows: 0, bytes: 0, differences, not_compared, blind_spot }
    }

    /// Takes an error for a difference if it says that something is not as published.
    ///
    /// # Errors
    /// The error itself otherwise.
    fn differs(&mut self, day: Day, table: Option<&Slice>, error: anyhow::Error) -> anyhow::Result<()> {
        if class_of(&error) != Class::Integrity {
            return Err(error.context(format!("cannot verify {day}")));
        }
        let table = table.map(Slice::qualified_name);
        self.differences.push(Difference { day, table, what: format!("{error:#}"), published: None, found: None });
        Ok(())
    }

    /// Takes the judgements of a day's slices, in their order.
    fn judge(&mut self, manifest: &Manifest, judged: Vec<Judgement>) {
        for (slice, judgement) in manifest.slices.iter().zip(judged) {
            let (day, table) = (manifest.day, slice.qualified_name());
            if let Judgement::NotCompared(why) = judgement {
                self.not_compared.push(NotCompared { day, table, why });
                continue;
            }
            self.slices += 1;
            self.rows += slice.rows;
            if let Judgement::Differs(found) = judgement {
                let published = Figures { rows: slice.rows, rows_digest: slice.rows_digest };
                let what = match found.rows == published.rows {
                    true => format!("{} holds as many rows ({}), but not the same", self.level.word(), found.rows),
                    false => {
                        format!("{} holds {} rows, {} are published", self.level.word(), found.rows, published.rows)
                    }
                };
                let (table, published, found) = (Some(table), Some(published), Some(found));
                self.differences.push(Difference { day, table, what, published, found });
            }
        }
    }

    /// Days that were published again or let go of meanwhile may well differ from what they were: `before` and `present`
    /// are the head at the beginning and at the end.
    fn excuse(&mut self, before: &Feed, present: &Feed) {
        let manifest = |feed: &Feed, day: Day| feed.day(day).map(|entry| entry.manifest.clone());
        let stands = |found: &Difference| manifest(before, found.day) == manifest(present, found.day);
        let (standing, excused): (Vec<_>, Vec<_>) = std::mem::take(&mut self.differences).into_iter().partition(stands);
        self.differences = standing;
        self.not_compared.extend(excused.into_iter().map(|found| NotCompared {
            day: found.day,
            table: found.table.unwrap_or_else(|| "all tables".into()),
            why: "the day was published again or let go of meanwhile".into(),
        }));
    }

    fn lines(&self) -> Vec<String> {
        let compared = match self.level {
            Level::Store => format!("{} objects, {}", human_count(self.objects), human_bytes(self.bytes)),
            Level::Data => format!("{} objects, {} read", human_count(self.objects), human_bytes(self.bytes)),
            Level::Source | Level::Replica => {
                format!("{} slices, {} rows compared", human_count(self.slices), human_count(self.rows))
            }
        };
        let verdict = match self.differences.len() {
            0 => "as published".to_owned(),
            count => counted(count, "difference").to_uppercase(),
        };
        let mut lines = vec![format!("{}: {verdict} ({compared})", self.level.word())];
        lines.extend(self.differences.iter().map(|difference| {
            let table = difference.table.as_ref().map(|table| format!(" {table}")).unwrap_or_default();
            format!("  {}{table}: {}", difference.day, difference.what)
        }));
        lines.extend(self.not_compared_lines());
        lines.push(format!("  never checked here: {}", self.blind_spot));
        lines
    }

    /// One line for all days of a table that were not compared for the same reason.
    fn not_compared_lines(&self) -> Vec<String> {
        let mut groups: Vec<(&str, &str, Vec<Day>)> = Vec::new();
        for NotCompared { day, table, why } in &self.not_compared {
            match groups.iter_mut().find(|(of, reason, _)| of == table && reason == why) {
                Some((_, _, days)) => days.push(*day),
                None => groups.push((table, why, vec![*day])),
            }
        }
        groups.iter().map(|(table, why, days)| format!("  not compared: {table} {}: {why}", human_days(days))).collect()
    }
}

impl Verification {
    fn of(feed: &Feed, days: usize, levels: Vec<LevelReport>, requests: Option<u64>) -> Verification {
        Verification {
            format: 1,
            dataset: feed.dataset.clone(),
            feed_id: feed.feed_id.clone(),
            sequence: feed.sequence,
            days: days as u64,
            levels,
            requests,
        }
    }

    /// [`Class::Integrity`] when anything differs.
    pub fn failure(&self) -> Option<Class> {
        self.levels.iter().any(|level| !level.differences.is_empty()).then_some(Class::Integrity)
    }

    /// The report for people.
    pub fn lines(&self) -> Vec<String> {
        let days = counted(usize::try_from(self.days).unwrap_or(usize::MAX), "day");
        let mut lines = vec![format!("{}: {days}{}", self.dataset, after_requests(self.requests))];
        lines.extend(self.levels.iter().flat_map(LevelReport::lines));
        let left_out: Vec<&str> =
            [(Level::Data, "--read-data"), (Level::Source, "--source"), (Level::Replica, "--replica")]
                .into_iter()
                .filter(|(level, _)| !self.levels.iter().any(|done| done.level == *level))
                .map(|(_, flag)| flag)
                .collect();
        if !left_out.is_empty() {
            lines.push(format!("not asked for: {}", left_out.join(", ")));
        }
        lines
    }
}

impl From<Tally> for Figures {
    fn from(tally: Tally) -> Figures {
        Figures { rows: tally.rows, rows_digest: tally.digest }
    }
}

/// Are these the rows of the slice?
fn judge(slice: &Slice, found: Tally) -> Judgement {
    let equal = (found.rows, found.digest) == (slice.rows, slice.rows_digest);
    if equal { Judgement::Equal } else { Judgement::Differs(found.into()) }
}

#[cfg(test)]
mod tests;
