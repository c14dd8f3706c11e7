//! `pgslice verify`: does what is published hold together, can it be read, is it what the source and the replica have?
//!
//! Four levels, each of which says what it cannot see: [`objects`] holds the head, the manifests and the sizes of objects
//! together; [`data`] reads parts; [`source`] and [`replica`] compare rows and digests by day and table. Day by day, so
//! that no more than one manifest is held. Nothing is ever changed.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::codec::{RowsDigest, Tally};
use crate::config::Config;
use crate::day::{Day, DayRange};
use crate::error::{Class, class_of, describe};
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
    /// Days that are not published, between the first and the last that were asked for.
    pub missing: Vec<Day>,
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
            Level::Data => "whether the rows are those of the source, and full dumps where only a share is read",
            Level::Source => "rows in no window of a published day",
            Level::Replica => "rows in no window of a published day, and reference tables",
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
    /// Slices of reference tables whose rows differ from the source as it is now: they are those of the moment that their
    /// day was read.
    pub changed_since: Vec<ChangedSince>,
    /// What kept days from being compared.
    pub errors: Vec<LevelError>,
    /// What this level never checks.
    pub blind_spot: &'static str,
}

/// Something that is not as published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The day; absent for a full dump.
    pub day: Option<Day>,
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

/// A slice of a reference table that differs from the source as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedSince {
    /// The day.
    pub day: Day,
    /// `schema.table`
    pub table: String,
}

/// An error that kept a day from being compared, and at the levels of databases those after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LevelError {
    /// The day.
    pub day: Day,
    /// The exit code of its class.
    pub exit_code: u8,
    /// What a person reads.
    pub message: String,
    #[serde(skip)]
    class: Class,
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
    /// The same rows, as far as they were compared.
    EqualBut(String),
    /// Other rows.
    Differs(Figures),
    /// Other rows than the source has now, in a reference table.
    ChangedSince,
    /// It cannot be said, for this reason.
    NotCompared(String),
    /// The slice is not there at all, for this reason.
    Gone(String),
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
    let wanted = |day: Day| options.from.is_none_or(|from| day >= from) && options.to.is_none_or(|to| day <= to);
    let entries: Vec<&DayEntry> = feed.days.iter().filter(|entry| wanted(entry.day)).collect();
    let missing = missing(&feed, options.from, options.to);
    let mut objects = LevelReport::of(Level::Store);
    let mut data = options.data.map(|share| (share, LevelReport::of(Level::Data)));
    let mut source = match options.source {
        Some(endpoint) => {
            Some((source::Reader::open(config, &feed, endpoint, cancel).await?, LevelReport::of(Level::Source)))
        }
        None => None,
    };
    let mut replica = match options.replica {
        Some(endpoint) => Some((
            replica::Reader::open(config, (&**store, &feed), &endpoint, cancel).await?,
            LevelReport::of(Level::Replica),
        )),
        None => None,
    };
    for dump in &feed.full_dumps {
        progress.begin(&format!("verify {}", dump.key));
        if let Err(error) = objects::check_dump(store, dump, &mut objects).await {
            objects.take_dump(error)?;
        } else if let Some((_, report)) = data.as_mut().filter(|(share, _)| *share == Share::ALL)
            && let Err(error) = data::check_dump(store, dump, report, progress, cancel).await
        {
            report.take_dump(error)?;
        }
    }
    for entry in &entries {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled.into());
        }
        progress.begin(&format!("verify {}", entry.day));
        let manifest = match head::day_manifest(&**store, &feed, entry).await {
            Ok(manifest) => manifest,
            Err(error) => {
                objects.take(entry.day, None, error)?;
                continue;
            }
        };
        if let Err(error) = objects::check(store, entry, &manifest, &mut objects).await {
            objects.take(entry.day, None, error)?;
        }
        if let Some((share, report)) = &mut data {
            data::check(store, &manifest, *share, report, progress).await?;
        }
        if let Some((reader, report)) = source.as_mut().filter(|(_, report)| report.errors.is_empty()) {
            let judged = reader.compare(&manifest, cancel).await;
            report.judge(&manifest, judged)?;
            report.miss_tables(config, &manifest);
        }
        if let Some((reader, report)) = replica.as_mut().filter(|(_, report)| report.errors.is_empty()) {
            let judged = reader.compare(entry, &manifest).await;
            report.judge(&manifest, judged)?;
        }
    }
    progress.end();
    let mut levels = vec![objects];
    levels.extend(data.map(|(_, report)| report));
    levels.extend(source.map(|(_, report)| report));
    levels.extend(replica.map(|(_, report)| report));
    if levels.iter().any(|level| !level.differences.is_empty()) {
        // Only to excuse what changed meanwhile: without it the differences stand.
        if let Ok(present) = head::read_existing(&**store).await {
            levels.iter_mut().for_each(|level| level.excuse(&feed, &present));
        }
    }
    Ok(Verification {
        format: 1,
        dataset: feed.dataset.clone(),
        feed_id: feed.feed_id.clone(),
        sequence: feed.sequence,
        days: entries.len() as u64,
        missing,
        levels,
        requests: store.requests(),
    })
}

/// Days without an entry from `from`, or else the oldest, to `to`, or else the newest.
fn missing(feed: &Feed, from: Option<Day>, to: Option<Day>) -> Vec<Day> {
    let first = from.or(feed.days.first().map(|entry| entry.day));
    let last = to.or(feed.days.last().map(|entry| entry.day));
    let (Some(from), Some(to)) = (first, last) else { return Vec::new() };
    DayRange { from, to }.days().filter(|day| feed.day(*day).is_none()).collect()
}

impl LevelReport {
    fn of(level: Level) -> LevelReport {
        LevelReport {
            level,
            slices: 0,
            objects: 0,
            rows: 0,
            bytes: 0,
            differences: Vec::new(),
            not_compared: Vec::new(),
            changed_since: Vec::new(),
            errors: Vec::new(),
            blind_spot: level.blind_spot(),
        }
    }

    /// Takes an error for a difference if it says that something is not as published, and else as what kept the day from
    /// being compared.
    ///
    /// # Errors
    /// The error itself when the run was ended.
    fn take(&mut self, day: Day, table: Option<&Slice>, error: anyhow::Error) -> anyhow::Result<()> {
        match class_of(&error) {
            Class::Interrupted => return Err(error),
            Class::Integrity => {
                let (day, table, what) = (Some(day), table.map(Slice::qualified_name), format!("{error:#}"));
                self.differences.push(Difference { day, table, what, published: None, found: None });
            }
            class => {
                let message = describe(&error);
                self.errors.push(LevelError { day, exit_code: class.exit_code(), message, class });
            }
        }
        Ok(())
    }

    /// The same for a full dump.
    ///
    /// # Errors
    /// As [`LevelReport::take`], and what kept it from being looked at.
    fn take_dump(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        if class_of(&error) != Class::Integrity {
            return Err(error);
        }
        let what = format!("{error:#}");
        self.differences.push(Difference { day: None, table: None, what, published: None, found: None });
        Ok(())
    }

    /// Takes the judgements of a day's slices, in their order.
    ///
    /// # Errors
    /// As [`LevelReport::take`].
    fn judge(&mut self, manifest: &Manifest, judged: anyhow::Result<Vec<Judgement>>) -> anyhow::Result<()> {
        let judged = match judged {
            Ok(judged) => judged,
            Err(error) => return self.take(manifest.day, None, error),
        };
        for (slice, judgement) in manifest.slices.iter().zip(judged) {
            let (day, table, who) = (manifest.day, slice.qualified_name(), self.level.word());
            if !matches!(judgement, Judgement::NotCompared(_)) {
                self.slices += 1;
                self.rows += slice.rows;
            }
            let (what, found) = match judgement {
                Judgement::Equal => continue,
                Judgement::EqualBut(why) | Judgement::NotCompared(why) => {
                    self.not_compared.push(NotCompared { day, table, why });
                    continue;
                }
                Judgement::ChangedSince => {
                    self.changed_since.push(ChangedSince { day, table });
                    continue;
                }
                Judgement::Gone(what) => (what, None),
                Judgement::Differs(found) if found.rows == slice.rows => {
                    (format!("{who} holds as many rows ({}), but not the same", found.rows), Some(found))
                }
                Judgement::Differs(found) => {
                    (format!("{who} holds {} rows, {} are published", found.rows, slice.rows), Some(found))
                }
            };
            let published = Some(Figures { rows: slice.rows, rows_digest: slice.rows_digest });
            self.differences.push(Difference { day: Some(day), table: Some(table), what, published, found });
        }
        Ok(())
    }

    /// Tables of the configuration that a day does not carry.
    fn miss_tables(&mut self, config: &Config, manifest: &Manifest) {
        for table in &config.tables {
            if !manifest.slices.iter().any(|slice| slice.schema == table.schema && slice.table == table.name) {
                let (day, table) = (manifest.day, format!("{}.{}", table.schema, table.name));
                self.not_compared.push(NotCompared {
                    day,
                    table,
                    why: "the published day does not carry this table".into(),
                });
            }
        }
    }

    /// Was anything held against what is published?
    fn compared_anything(&self) -> bool {
        self.slices > 0 || self.objects > 0
    }

    /// Days that were published again or let go of meanwhile may well differ from what they were: `before` and `present`
    /// are the head at the beginning and at the end.
    fn excuse(&mut self, before: &Feed, present: &Feed) {
        let manifest = |feed: &Feed, day: Day| feed.day(day).map(|entry| entry.manifest.clone());
        for found in std::mem::take(&mut self.differences) {
            match found.day.filter(|day| manifest(before, *day) != manifest(present, *day)) {
                None => self.differences.push(found),
                Some(day) => self.not_compared.push(NotCompared {
                    day,
                    table: found.table.unwrap_or_else(|| "all tables".into()),
                    why: "the day was published again or let go of meanwhile".into(),
                }),
            }
        }
    }

    fn lines(&self) -> Vec<String> {
        let compared = match self.level {
            Level::Store => format!("{} objects, {}", human_count(self.objects), human_bytes(self.bytes)),
            Level::Data => format!("{} objects, {} read", human_count(self.objects), human_bytes(self.bytes)),
            Level::Source | Level::Replica => {
                format!("{} slices, {} rows compared", human_count(self.slices), human_count(self.rows))
            }
        };
        let verdict = match (self.differences.len(), self.errors.is_empty(), self.compared_anything()) {
            (0, true, true) => "as published".to_owned(),
            (0, true, false) => "NOTHING WAS COMPARED".to_owned(),
            (0, false, _) => "NOT ALL OF IT WAS COMPARED".to_owned(),
            (count, _, _) => counted(count, "difference").to_uppercase(),
        };
        let mut lines = vec![format!("{}: {verdict} ({compared})", self.level.word())];
        lines.extend(self.differences.iter().map(|difference| {
            let day = difference.day.map(|day| format!("{day} ")).unwrap_or_default();
            let table = difference.table.as_ref().map(|table| format!("{table}: ")).unwrap_or_default();
            format!("  {day}{table}{}", difference.what)
        }));
        lines.extend(self.errors.iter().map(|error| format!("  {} failed: {}", error.day, error.message)));
        lines.extend(self.not_compared_lines());
        lines.extend(self.changed_since_lines());
        lines.push(format!("  never checked here: {}", self.blind_spot));
        lines
    }

    /// One line for all days of a table that were not compared for the same reason.
    fn not_compared_lines(&self) -> Vec<String> {
        let all = self.not_compared.iter().map(|one| ((one.table.as_str(), one.why.as_str()), one.day));
        let line = |((table, why), days): ((&str, &str), Vec<Day>)| {
            format!("  not compared: {table} {}: {why}", human_days(&days))
        };
        grouped(all).into_iter().map(line).collect()
    }

    fn changed_since_lines(&self) -> Vec<String> {
        let line = |(table, days): (&str, Vec<Day>)| {
            format!("  rows of the reference table {table} have changed since {}", human_days(&days))
        };
        grouped(self.changed_since.iter().map(|one| (one.table.as_str(), one.day))).into_iter().map(line).collect()
    }
}

/// The days of each kind, in the order of its first.
fn grouped<K: PartialEq>(all: impl Iterator<Item = (K, Day)>) -> Vec<(K, Vec<Day>)> {
    let mut groups: Vec<(K, Vec<Day>)> = Vec::new();
    for (kind, day) in all {
        match groups.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, days)) => days.push(day),
            None => groups.push((kind, vec![day])),
        }
    }
    groups
}

impl Verification {
    /// Why the run did not end well: [`Class::Integrity`] when anything differs; else the class of what kept a day from
    /// being compared; [`Class::Gap`] for days that are not published; [`Class::Other`] when a level had nothing to compare.
    pub fn failure(&self) -> Option<Class> {
        let differs = self.levels.iter().any(|level| !level.differences.is_empty());
        let error = self.levels.iter().find_map(|level| level.errors.first());
        let idle = self.days > 0 && self.levels.iter().any(|level| !level.compared_anything());
        match error {
            _ if differs => Some(Class::Integrity),
            Some(error) => Some(error.class),
            None if !self.missing.is_empty() => Some(Class::Gap),
            None => idle.then_some(Class::Other),
        }
    }

    /// The report for people.
    pub fn lines(&self) -> Vec<String> {
        let days = counted(usize::try_from(self.days).unwrap_or(usize::MAX), "day");
        let mut lines = vec![format!("{}: {days}{}", self.dataset, after_requests(self.requests))];
        if !self.missing.is_empty() {
            lines.push(format!("not published: {}", human_days(&self.missing)));
        }
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
