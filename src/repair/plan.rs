//! Which of the manifests in a store a head should name, and the head that names them. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed, ManifestRef, RetiredReason, SourceIdentity};
use crate::manifest::{Manifest, State};

/// A manifest that lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where, and what it hashes to.
    pub reference: ManifestRef,
    /// What it says.
    pub manifest: Manifest,
}

/// The manifests of one feed.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) feed_id: String,
    /// The newest revision of each day, ascending.
    pub(super) newest: Vec<Found>,
    /// The others.
    pub(super) older: Vec<Found>,
}

/// Sorts the manifests of `dataset` by day and revision. `feed_id` is that of the head, if it could be read.
///
/// # Errors
/// Class Integrity when there are none, or when they are of several feeds and no head says which one it is.
pub(super) fn choose(found: Vec<Found>, dataset: &str, feed_id: Option<&str>) -> Result<Chosen, Failure> {
    let mut feeds: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for found in found {
        let manifest = &found.manifest;
        if manifest.dataset == dataset && feed_id.is_none_or(|known| manifest.feed_id == known) {
            feeds.entry(manifest.feed_id.clone()).or_default().push(found);
        }
    }
    if feeds.len() > 1 {
        let ids: Vec<&str> = feeds.keys().map(String::as_str).collect();
        return Err(Failure::new(
            Class::Integrity,
            format!("the store holds days of several feeds: {}", ids.join(", ")),
        )
        .meaning("nothing was written")
        .next("move the directories of the feed that does not belong here out of the store, then run again"));
    }
    let Some((feed_id, mut found)) = feeds.pop_first() else {
        return Err(Failure::new(Class::Integrity, format!("the store holds no manifest of dataset {dataset:?}"))
            .meaning("nothing was written")
            .next("check dataset and store.url; if the days are lost, the next `pgslice export` begins a new feed"));
    };
    found.sort_by_key(|found| {
        let manifest = &found.manifest;
        let settled = manifest.state == State::Final;
        (manifest.day, Reverse((manifest.revision, settled, manifest.taken.exported_at)), found.reference.key.clone())
    });
    let (mut newest, mut older): (Vec<Found>, Vec<Found>) = (Vec::new(), Vec::new());
    for found in found {
        match newest.last() {
            Some(newer) if newer.manifest.day == found.manifest.day => older.push(found),
            _ => newest.push(found),
        }
    }
    Ok(Chosen { feed_id, newest, older })
}

/// `empty` with `days` published. The `older` revisions are retired now; those of days that are left out are not named at
/// all, so that nothing deletes them.
pub(super) fn rebuild(empty: Feed, days: Vec<Found>, older: Vec<Found>, now: DateTime<Utc>) -> Feed {
    let mut feed = empty;
    if let Some(newest) = days.iter().max_by_key(|found| found.manifest.taken.exported_at) {
        let Manifest { taken, timezone, .. } = &newest.manifest;
        feed.timezone.clone_from(timezone);
        feed.source =
            Some(SourceIdentity { system_identifier: taken.system_identifier.clone(), timeline: taken.timeline });
    }
    feed.days = days.into_iter().map(|found| DayEntry::of(&found.manifest, found.reference)).collect();
    feed.retired = older
        .into_iter()
        .filter(|found| feed.day(found.manifest.day).is_some())
        .map(|found| DayEntry::of(&found.manifest, found.reference).retire(RetiredReason::Superseded, now))
        .collect();
    feed.oldest = feed.days.first().map(|entry| entry.day);
    feed.newest = feed.days.last().map(|entry| entry.day);
    feed
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
mod tests {
    use super::*;
    use crate::day::Day;
    use crate::retention::fixtures::{self, day, instant};

    const NOW: &str = "2024-06-01T00:00:00Z";

    fn found(date: &str, revision: u32, state: State, attempt: &str) -> Found {
        let (reference, manifest) = fixtures::manifest(day(date), revision, state, attempt, [None; 3]);
        Found { reference, manifest }
    }

    fn attempts(found: &[Found]) -> Vec<&str> {
        found.iter().map(|found| found.reference.key.as_str().split('/').nth(1).expect("an attempt")).collect()
    }

    #[test]
    fn of_a_day_the_highest_revision_counts_then_the_final_one() {
        let chosen = choose(
            vec![
                found("2024-05-02", 2, State::Provisional, "00000004"),
                found("2024-05-01", 1, State::Final, "00000001"),
                found("2024-05-02", 1, State::Final, "00000003"),
                found("2024-05-02", 2, State::Final, "00000002"),
            ],
            "datanommer",
            None,
        )
        .expect("one feed");
        assert_eq!(attempts(&chosen.newest), ["r1-00000001", "r2-00000002"]);
        assert_eq!(attempts(&chosen.older), ["r2-00000004", "r1-00000003"]);
    }

    #[test]
    fn manifests_of_two_feeds_are_refused_unless_the_head_says_which_is_meant() {
        let own = found("2024-05-01", 1, State::Final, "00000001");
        let mut foreign = found("2024-05-02", 1, State::Final, "00000002");
        foreign.manifest.feed_id = "0ther".into();
        let both = || vec![own.clone(), foreign.clone()];
        assert_eq!(choose(both(), "datanommer", None).expect_err("two feeds").class, Class::Integrity);
        assert_eq!(attempts(&choose(both(), "datanommer", Some("f00d")).expect("told").newest), ["r1-00000001"]);
        assert!(choose(both(), "another", None).is_err(), "none is of that dataset");
    }

    #[test]
    fn older_revisions_are_retired_only_where_a_newer_one_is_published() {
        let days = vec![found("2024-05-01", 2, State::Final, "00000002")];
        let older =
            vec![found("2024-05-01", 1, State::Final, "00000001"), found("2024-05-02", 1, State::Final, "00000003")];
        let feed = rebuild(Feed { sequence: 9, ..fixtures::empty_feed() }, days, older, instant(NOW));
        let retired: Vec<Day> = feed.retired.iter().map(|retired| retired.day).collect();
        assert_eq!(retired, [day("2024-05-01")], "what is left of a day that is left out stays");
        assert_eq!((feed.sequence, feed.oldest, feed.newest), (9, Some(day("2024-05-01")), Some(day("2024-05-01"))));
        Feed::parse(&feed.to_bytes()).expect("a head that readers take");
    }

    #[test]
    fn the_sequence_is_above_whatever_came_before() {
        let now = instant(NOW);
        let seconds = u64::try_from(now.timestamp()).expect("after 1970");
        assert_eq!(next_sequence(None, now), seconds);
        assert_eq!(next_sequence(Some(41), now), seconds);
        assert_eq!(next_sequence(Some(seconds + 7), now), seconds + 8, "repaired twice within a second");
        assert_eq!(next_sequence(Some(u64::MAX), now), seconds, "damage is no number");
    }

    #[test]
    fn a_damaged_head_still_shows_who_it_was() {
        let id = "0123456789abcdef0123456789abcdef";
        let head = format!("{{\"format\": 1,\n  \"feed_id\": \"{id}\",\n  \"sequence\" : 41, \"da");
        let told = Fragments { feed_id: Some(id.into()), sequence: Some(41) };
        assert_eq!(Fragments::of(head.as_bytes()), told);
        for damage in ["", "{\"format\": 1,", "\"sequence\": x \"feed_id\": \"short\"", "\u{0}\u{0}"] {
            assert_eq!(Fragments::of(damage.as_bytes()), Fragments::default(), "{damage}");
        }
    }
}
