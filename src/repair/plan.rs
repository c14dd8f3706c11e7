//! Which of the manifests in a store a head should name, and the head that names them. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::LeftOut;
use crate::day::Day;
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed, ManifestRef, Retired, RetiredReason, SourceIdentity};
use crate::layout::Key;
use crate::manifest::{Manifest, State, Taken};

/// What a repair needs of a manifest that lies in the store: frames are many, and dropped at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    feed_id: String,
    dataset: String,
    timezone: String,
    taken: Taken,
    /// The entry that would publish it.
    pub(super) entry: DayEntry,
}

impl Found {
    pub(super) fn of(manifest: &Manifest, reference: ManifestRef) -> Found {
        Found {
            feed_id: manifest.feed_id.clone(),
            dataset: manifest.dataset.clone(),
            timezone: manifest.timezone.clone(),
            taken: manifest.taken.clone(),
            entry: DayEntry::of(manifest, reference),
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.entry.manifest.key
    }

    /// The higher revision, then the final one, then the one that was read later.
    fn order(&self, other: &Found) -> Ordering {
        let rank = |found: &Found| (found.entry.revision, found.entry.state == State::Final);
        rank(self).cmp(&rank(other)).then_with(|| self.taken.order(&other.taken))
    }
}

/// The manifests of one feed.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) feed_id: String,
    /// The newest revision of each day, ascending; without days whose newest cannot be read.
    pub(super) newest: Vec<Found>,
    /// The other revisions.
    pub(super) older: Vec<Found>,
    /// Days whose newest revision cannot be read.
    pub(super) left_out: Vec<LeftOut>,
}

/// Which feed is meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// This one.
    Named(&'a str),
    /// This one, if there is more than one; it may have been read from a damaged head.
    Hinted(Option<&'a str>),
}

/// Sorts the manifests of `dataset` by day and revision; `unreadable` ones count by their names.
///
/// # Errors
/// Class Integrity when there are none; class Usage when they are of several feeds and nothing says which one is meant.
pub(super) fn choose(
    found: Vec<Found>,
    unreadable: Vec<LeftOut>,
    dataset: &str,
    wanted: Wanted<'_>,
) -> Result<Chosen, Failure> {
    let mut feeds: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for found in found.into_iter().filter(|found| found.dataset == dataset) {
        feeds.entry(found.feed_id.clone()).or_default().push(found);
    }
    let feed_id = which_feed(&feeds, dataset, wanted)?;
    let mut days: BTreeMap<Day, Vec<Found>> = BTreeMap::new();
    for found in feeds.remove(&feed_id).unwrap_or_default() {
        days.entry(found.entry.day).or_default().push(found);
    }
    let mut chosen = Chosen { feed_id, newest: Vec::new(), older: Vec::new(), left_out: Vec::new() };
    let mut hidden: BTreeMap<Day, Vec<LeftOut>> = BTreeMap::new();
    for left_out in unreadable {
        hidden.entry(left_out.day).or_default().push(left_out);
    }
    for (day, mut revisions) in days {
        revisions.sort_by(|one, other| other.order(one));
        let newest = revisions.first().map_or(0, |found| found.entry.revision);
        let unreadable = hidden.remove(&day).unwrap_or_default();
        let mut revisions = revisions.into_iter();
        match unreadable.into_iter().find(|left_out| left_out.revision >= newest) {
            // An older revision in its place would bring back rows that were taken away.
            Some(left_out) => chosen.left_out.push(left_out),
            None => chosen.newest.extend(revisions.next()),
        }
        chosen.older.extend(revisions);
    }
    let newest_of = |mut left_out: Vec<LeftOut>| {
        left_out.sort_by_key(|left_out| left_out.revision);
        left_out.pop()
    };
    chosen.left_out.extend(hidden.into_values().filter_map(newest_of));
    Ok(chosen)
}

fn which_feed(feeds: &BTreeMap<String, Vec<Found>>, dataset: &str, wanted: Wanted<'_>) -> Result<String, Failure> {
    let known = |id: &str| feeds.contains_key(id).then(|| id.to_owned());
    let only = (feeds.len() == 1).then(|| feeds.keys().next().cloned()).flatten();
    let feed_id = match wanted {
        Wanted::Named(id) => known(id),
        Wanted::Hinted(hint) => only.or_else(|| hint.and_then(known)),
    };
    let told: Vec<String> = feeds
        .iter()
        .map(|(id, found)| {
            let days: BTreeSet<Day> = found.iter().map(|found| found.entry.day).collect();
            let span = days.first().zip(days.last()).map(|(first, last)| format!(", {first} to {last}"));
            format!("{id} ({} days{})", days.len(), span.unwrap_or_default())
        })
        .collect();
    match (feed_id, told.is_empty()) {
        (Some(feed_id), _) => Ok(feed_id),
        (None, true) => Err(Failure::new(
            Class::Integrity,
            format!("the store holds no manifest of dataset {dataset:?} that can be read"),
        )
        .meaning("nothing was written")
        .next("check dataset and store.url")),
        (None, false) => {
            Err(Failure::new(Class::Usage, format!("the store holds days of these feeds: {}", told.join(", ")))
                .meaning("nothing was written: replicas follow one of them")
                .next("say which one with --feed-id; a replica's is in its table pgslice.feed"))
        }
    }
}

/// Days of which something else than the chosen revision is named by what is left of the head and its page.
pub(super) fn doubtful(newest: &[Found], older: &[Found], remains: &str) -> Vec<Day> {
    let is_named = |found: &Found| remains.contains(found.key().as_str());
    let other_is_named = |day: Day| older.iter().any(|found| found.entry.day == day && is_named(found));
    newest
        .iter()
        .filter(|found| !is_named(found) && other_is_named(found.entry.day))
        .map(|found| found.entry.day)
        .collect()
}

/// `base` with `days` published instead of its own.
///
/// Of the `older` revisions those of published days are retired now; what is left of days that are left out is not named,
/// so that nothing deletes it, but for a tombstone that keeps their revisions counted.
pub(super) fn rebuild(base: Feed, days: Vec<Found>, older: &[Found], left_out: &[LeftOut], now: DateTime<Utc>) -> Feed {
    let mut feed = base;
    if let Some(newest) = days.iter().max_by(|one, other| one.taken.order(&other.taken)) {
        feed.timezone.clone_from(&newest.timezone);
        feed.source = Some(SourceIdentity {
            system_identifier: newest.taken.system_identifier.clone(),
            timeline: newest.taken.timeline,
        });
    }
    feed.days = days.into_iter().map(|found| found.entry).collect();
    let named: BTreeSet<Key> = feed.days.iter().map(|entry| entry.manifest.key.clone()).collect();
    let published: BTreeSet<Day> = feed.days.iter().map(|entry| entry.day).collect();
    feed.retired.retain(|retired| {
        let is_back = retired.deleted_at.is_some() && published.contains(&retired.day);
        !named.contains(&retired.manifest.key) && !is_back
    });
    let mut known: BTreeSet<Key> = feed.retired.iter().map(|retired| retired.manifest.key.clone()).collect();
    let superseded = older.iter().filter(|found| published.contains(&found.entry.day));
    let superseded = superseded.map(|found| found.entry.clone().retire(RetiredReason::Superseded, now));
    let tombstones = left_out.iter().map(|left_out| Retired {
        day: left_out.day,
        revision: left_out.revision,
        manifest: ManifestRef { key: left_out.manifest.clone(), sha256: String::new() },
        digest: String::new(),
        taken: None,
        retired_at: now,
        reason: RetiredReason::Superseded,
        deleted_at: Some(now),
    });
    let new: Vec<Retired> =
        superseded.chain(tombstones).filter(|retired| known.insert(retired.manifest.key.clone())).collect();
    feed.retired.extend(new);
    feed.oldest = feed.days.first().map(|entry| entry.day);
    feed.newest = feed.days.last().map(|entry| entry.day);
    feed
}

/// When the newest of these was read: the last sign of life that the store knows of.
pub(super) fn last_reading(days: &[Found]) -> Option<DateTime<Utc>> {
    days.iter().map(|found| found.taken.exported_at).max()
}

/// What a damaged head still shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fragments {
    pub(super) feed_id: Option<String>,
    pub(super) sequence: Option<u64>,
}

impl Fragments {
    pub(super) fn of(damaged: &[u8]) -> Fragments {
        let text = String::from_utf8_lossy(damaged);
        let behind = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\""))?;
            Some(rest.trim_start().strip_prefix(':')?.trim_start())
        };
        let digits = |text: &str| text.chars().take_while(char::is_ascii_hexdigit).collect::<String>();
        Fragments {
            feed_id: behind("feed_id").and_then(|rest| rest.strip_prefix('"')).map(digits).filter(|id| id.len() == 32),
            sequence: behind("sequence").and_then(|rest| digits(rest).parse().ok()),
        }
    }
}

/// A sequence that no head had before: they grow by one with each change, and less than one change a second is made.
pub(super) fn next_sequence(known: Option<u64>, now: DateTime<Utc>) -> u64 {
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    // A damaged number is believed as far as replicas could have seen it.
    let known = known.filter(|known| *known <= 2 * seconds).unwrap_or_default();
    seconds.max(known + 1)
}

#[cfg(test)]
mod tests;
