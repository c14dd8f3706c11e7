//! The head document of a feed: `feed.json`, the only mutable object. Pure: reading and swapping it is
//! [`crate::store`]'s and [`crate::head`]'s business.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::day::{Day, Window};
use crate::layout::Key;
use crate::manifest::{DocumentError, Manifest, State, Taken, Versioned, parse_versioned};

pub mod full_dump;

pub use full_dump::{DumpMoment, DumpRecord, FullDump, Standing};

/// The format version that this program writes, and the highest that it reads.
pub const FORMAT: u32 = 1;
/// The largest feed.json that is read, in bytes.
pub const MAX_BYTES: u64 = 64 << 20;
/// How long a head speaks for the feed.
const VALID_HOURS: i64 = 36;

/// The head of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Feed {
    /// Format version; a reader refuses a higher one than it knows.
    pub format: u32,
    /// Random, made once: what a replica's ledger is about.
    pub feed_id: String,
    /// The dataset's name.
    pub dataset: String,
    /// Grows by one with every change.
    pub sequence: u64,
    /// The writer of this very version: resolves a lost answer to a swap.
    pub attempt_id: String,
    /// When this version was published. The heartbeat: a run that found nothing to do moves it too.
    pub published_at: DateTime<Utc>,
    /// After this instant the feed is stale.
    pub valid_until: DateTime<Utc>,
    /// The zone that defines the days.
    pub timezone: String,
    /// The cluster that the newest export read; absent before the first.
    pub source: Option<SourceIdentity>,
    /// The oldest published day.
    pub oldest: Option<Day>,
    /// The newest published day.
    pub newest: Option<Day>,
    /// The published days, ascending.
    pub days: Vec<DayEntry>,
    /// Revisions that the feed let go of: kept for a grace, then deleted. The last one of a pruned day stays as its
    /// tombstone, with `deleted_at`.
    pub retired: Vec<Retired>,
    /// The full dumps beside the days, in the order in which they were recorded.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub full_dumps: Vec<FullDump>,
}

/// Whether a change is a sign of life from the exporter. Pruning is none: a feed that is only pruned goes stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// It is, at this instant.
    Beat(DateTime<Utc>),
    /// It is none: the feed stays as old as it was.
    None,
}

/// Which cluster a day was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceIdentity {
    /// The cluster's system identifier, a decimal number.
    pub system_identifier: String,
    /// Its timeline.
    pub timeline: u32,
}

/// Where a manifest lies and what it must hash to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ManifestRef {
    /// Its name below the feed's prefix.
    pub key: Key,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
}

/// A published day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DayEntry {
    /// The day.
    pub day: Day,
    /// 1, 2, …
    pub revision: u32,
    /// Provisional or final.
    pub state: State,
    /// The day's window in UTC.
    pub window: Window,
    /// Rows of all tables.
    pub rows: u64,
    /// Stored bytes of all tables.
    pub bytes: u64,
    /// Per `schema.table`.
    pub tables: BTreeMap<String, TableEntry>,
    /// One digest over the rows of all tables, to tell two revisions apart.
    pub digest: String,
    /// The day's record.
    pub manifest: ManifestRef,
    /// The last moment at which the day was read and found to be so: the one of its manifest, or a later one. Tells which
    /// full dumps contain the day. Absent where a version wrote the entry that knew no full dumps.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken: Option<Taken>,
}

/// What a day costs per table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableEntry {
    /// Rows.
    pub rows: u64,
    /// Stored bytes.
    pub bytes: u64,
}

/// Why a revision left the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetiredReason {
    /// A newer revision (or the final form of a provisional one) took its place.
    Superseded,
    /// Its day left the retention.
    Pruned,
}

/// A revision that the feed let go of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retired {
    /// The day.
    pub day: Day,
    /// The revision.
    pub revision: u32,
    /// Its record.
    pub manifest: ManifestRef,
    /// The digest over its rows.
    pub digest: String,
    /// The last moment at which it was read and found to be so. Tells which full dumps contain it. Absent where an older
    /// version let go of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken: Option<Taken>,
    /// When the feed let go.
    pub retired_at: DateTime<Utc>,
    /// Why.
    pub reason: RetiredReason,
    /// When its objects were deleted; absent while they are there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deleted_at: Option<DateTime<Utc>>,
}

impl Versioned for Feed {
    fn format(&self) -> u32 {
        self.format
    }
}

impl Feed {
    /// A feed without days.
    pub fn empty(feed_id: String, dataset: String, timezone: String, attempt_id: String, now: DateTime<Utc>) -> Feed {
        Feed {
            format: FORMAT,
            feed_id,
            dataset,
            sequence: 1,
            attempt_id,
            published_at: now,
            valid_until: now + TimeDelta::hours(VALID_HOURS),
            timezone,
            source: None,
            oldest: None,
            newest: None,
            days: Vec::new(),
            retired: Vec::new(),
            full_dumps: Vec::new(),
        }
    }

    /// Reads a head and checks that it does not contradict itself.
    ///
    /// # Errors
    /// A newer format, a malformed document, or one that contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Feed, DocumentError> {
        let feed: Feed = parse_versioned(bytes, FORMAT)?;
        feed.check().map_err(DocumentError::Contradiction)?;
        Ok(feed)
    }

    /// The document's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a feed has only string keys");
        bytes.push(b'\n');
        bytes
    }

    /// The entry of `day`.
    pub fn day(&self, day: Day) -> Option<&DayEntry> {
        self.days.binary_search_by_key(&day, |entry| entry.day).ok().map(|index| &self.days[index])
    }

    /// The newest final day: what retention counts back from.
    pub fn newest_final(&self) -> Option<Day> {
        self.days.iter().rev().find(|entry| entry.state == State::Final).map(|entry| entry.day)
    }

    /// The holes between the oldest and the newest day.
    pub fn missing(&self) -> Vec<Day> {
        self.days.windows(2).flat_map(|pair| holes(pair[0].day, pair[1].day)).collect()
    }

    /// The highest revision of `day` that was ever published, as far as the feed remembers; 0 for none.
    pub fn last_revision(&self, day: Day) -> u32 {
        let retired = self.retired.iter().filter(|entry| entry.day == day).map(|entry| entry.revision);
        self.day(day).map(|entry| entry.revision).into_iter().chain(retired).max().unwrap_or(0)
    }

    /// This head with `entry` in the place of its day's present one, which is retired.
    #[must_use]
    pub fn with_day(&self, entry: DayEntry, source: SourceIdentity, now: DateTime<Utc>) -> Feed {
        let mut feed = self.clone();
        feed.source = Some(source);
        match feed.days.binary_search_by_key(&entry.day, |present| present.day) {
            Ok(index) => {
                let old = std::mem::replace(&mut feed.days[index], entry);
                feed.retired.push(old.retire(RetiredReason::Superseded, now));
            }
            Err(index) => {
                // The day is back: its tombstone has nothing more to say than its revision, which `entry` exceeds.
                feed.retired.retain(|retired| retired.day != entry.day || retired.deleted_at.is_none());
                feed.days.insert(index, entry);
            }
        }
        feed
    }

    /// This head when published days were read again and found unchanged: `seen` has the entries as they were published,
    /// with the new reading. An entry that was replaced meanwhile, or read later, stays as it is.
    #[must_use]
    pub fn with_days_seen(&self, seen: &[DayEntry]) -> Feed {
        let mut feed = self.clone();
        for entry in seen {
            let Ok(index) = feed.days.binary_search_by_key(&entry.day, |present| present.day) else { continue };
            let present = &mut feed.days[index];
            let is_later = match (&present.taken, &entry.taken) {
                (Some(present), Some(seen)) => present.order(seen).is_lt(),
                (None, Some(_)) => true,
                (_, None) => false,
            };
            if present.manifest == entry.manifest && is_later {
                present.taken.clone_from(&entry.taken);
                // A server that was promoted, or that the dataset moved to, is known from the first day seen there.
                if let Some(taken) = &entry.taken {
                    let (system_identifier, timeline) = (taken.system_identifier.clone(), taken.timeline);
                    let is_left_behind = feed
                        .source
                        .as_ref()
                        .is_some_and(|known| known.system_identifier == system_identifier && known.timeline > timeline);
                    if !is_left_behind {
                        feed.source = Some(SourceIdentity { system_identifier, timeline });
                    }
                }
            }
        }
        feed
    }

    /// This head as the next version: a new sequence and writer, and a new time if it is a sign of life.
    #[must_use]
    pub fn next_version(mut self, attempt_id: String, pulse: Pulse) -> Feed {
        self.sequence += 1;
        self.attempt_id = attempt_id;
        if let Pulse::Beat(now) = pulse {
            self.published_at = now;
            self.valid_until = now + TimeDelta::hours(VALID_HOURS);
        }
        self.oldest = self.days.first().map(|entry| entry.day);
        self.newest = self.days.last().map(|entry| entry.day);
        self
    }

    fn check(&self) -> Result<(), String> {
        for pair in self.days.windows(2) {
            let (earlier, later) = (&pair[0], &pair[1]);
            if earlier.day >= later.day {
                return Err(format!("{} and {} are out of order", earlier.day, later.day));
            }
            if earlier.window.end > later.window.start {
                return Err(format!("the windows of {} and {} overlap", earlier.day, later.day));
            }
        }
        full_dump::check(&self.full_dumps)?;
        match self.days.iter().find(|entry| {
            !entry.window.is_of(entry.day) || entry.revision == 0 || i32::try_from(entry.revision).is_err()
        }) {
            Some(entry) => Err(format!("the entry of {} is not a published day", entry.day)),
            None => Ok(()),
        }
    }
}

fn holes(earlier: Day, later: Day) -> impl Iterator<Item = Day> {
    crate::day::DayRange { from: earlier.next(), to: later.previous() }.days()
}

impl DayEntry {
    /// The entry that publishes `manifest`.
    pub fn of(manifest: &Manifest, reference: ManifestRef) -> DayEntry {
        DayEntry {
            day: manifest.day,
            revision: manifest.revision,
            state: manifest.state,
            window: manifest.window,
            rows: manifest.rows(),
            bytes: manifest.stored_bytes(),
            tables: manifest
                .slices
                .iter()
                .map(|slice| (slice.qualified_name(), TableEntry { rows: slice.rows, bytes: slice.stored_bytes }))
                .collect(),
            digest: manifest.day_digest(),
            manifest: reference,
            taken: Some(manifest.taken.clone()),
        }
    }

    /// The record that the feed let go of this entry.
    pub fn retire(self, reason: RetiredReason, now: DateTime<Utc>) -> Retired {
        Retired {
            day: self.day,
            revision: self.revision,
            manifest: self.manifest,
            digest: self.digest,
            taken: self.taken,
            retired_at: now,
            reason,
            deleted_at: None,
        }
    }
}

#[cfg(test)]
mod tests;
