//! Retention as pure functions of what the feed says, the rules, the manifests and `now`.
//!
//! # Days
//! Days are counted back from the newest *settled* day: final, and its window ended at `now` (so a final day dated
//! in the future hides no other). The `keep_days` days up to it stay, and at least so many days that
//! `min_complete` settled ones stay. Whatever is older goes, provisional days too, and whatever is newer stays: the
//! days let go of are always the oldest ones, so pruning never makes a hole. Without a settled day nothing goes.
//!
//! Where the feed has full dumps, the chain from the newest of them to today stays whole: the oldest day that it does
//! not contain ([`DumpMoment::standing_of_entry`](crate::feed::DumpMoment::standing_of_entry)) and all days after it
//! stay, whatever the rules say. Full dumps and other streams are never deleted.
//!
//! # Objects
//! A retired revision is *expired* when more than the grace has passed since `retired_at`. More, not as much: what
//! a run lets go of is never deleted by the same run, even with a grace of zero. Of an expired revision's objects
//! those are deleted that no published and no unexpired revision names. A manifest names parts of its own day only
//! ([`objects_of`] refuses any other), so that is known from the manifests of the same day.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::config::RetentionConfig;
use crate::day::Day;
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed, ManifestRef, Retired, RetiredReason, Standing};
use crate::layout::{Key, sums_beside};
use crate::manifest::{Manifest, State};

/// What the rules say about one head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The day that retention counts back from.
    pub newest_settled: Option<Day>,
    /// The published days that go now, ascending.
    pub released: Vec<Released>,
    /// The published days that stay, ascending.
    pub kept: Vec<Kept>,
    /// Retired revisions past their grace whose objects are still there.
    pub expired: Vec<Retired>,
    /// Retired revisions within their grace.
    pub waiting: Vec<Retired>,
}

/// A published day that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Its entry in the head.
    pub entry: DayEntry,
    /// Why.
    pub reason: ReleaseReason,
}

/// Why a day goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// It is older than the days that are kept.
    OlderThanKeep,
    /// It is older than the days that are kept, and was never published as final.
    NeverFinal,
}

/// A published day that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The day.
    pub day: Day,
    /// Why.
    pub reason: KeepReason,
}

/// Why a day stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepReason {
    /// No day is settled: there is nothing to count back from.
    NothingSettled,
    /// It is newer than the newest settled day.
    NewerThanSettled,
    /// It is one of the `keep_days` days up to the newest settled one.
    WithinKeep,
    /// It is older, but `min_complete` settled days would not stay without it or without an older one.
    MinComplete,
    /// It is older, but the newest full dump does not contain it, or an older one: without it a replica that loads the
    /// dump would miss days.
    SinceFullDump,
}

/// Judges every day and every retired revision of `feed`.
pub fn plan(feed: &Feed, rules: &RetentionConfig, now: DateTime<Utc>) -> Plan {
    let settled: Vec<Day> = feed
        .days
        .iter()
        .rev()
        .filter(|entry| entry.state == State::Final && entry.window.end <= now)
        .map(|entry| entry.day)
        .collect();
    let newest_settled = settled.first().copied();
    let oldest_within_keep = newest_settled.map(|newest| newest.minus(rules.keep_days.saturating_sub(1)));
    // With fewer settled days than the floor, the oldest of them.
    let oldest_of_floor = settled.get(rules.min_complete.saturating_sub(1)).or(settled.last()).copied();
    let oldest_since_dump = feed.newest_full_dump().and_then(|dump| {
        let contained = |entry: &&DayEntry| dump.moment.standing_of_entry(entry) == Standing::Contained;
        feed.days.iter().find(|entry| !contained(entry)).map(|entry| entry.day)
    });

    let (mut released, mut kept) = (Vec::new(), Vec::new());
    for entry in &feed.days {
        let day = entry.day;
        let keep = match (newest_settled, oldest_within_keep, oldest_of_floor) {
            (Some(newest), _, _) if day > newest => Some(KeepReason::NewerThanSettled),
            (_, Some(oldest), _) if day >= oldest => Some(KeepReason::WithinKeep),
            (_, _, Some(oldest)) if day >= oldest => Some(KeepReason::MinComplete),
            (None, _, _) => Some(KeepReason::NothingSettled),
            _ if oldest_since_dump.is_some_and(|oldest| day >= oldest) => Some(KeepReason::SinceFullDump),
            _ => None,
        };
        match (keep, entry.state) {
            (Some(reason), _) => kept.push(Kept { day, reason }),
            (None, State::Final) => {
                released.push(Released { entry: entry.clone(), reason: ReleaseReason::OlderThanKeep })
            }
            (None, State::Provisional) => {
                released.push(Released { entry: entry.clone(), reason: ReleaseReason::NeverFinal });
            }
        }
    }
    let (expired, waiting) = feed
        .retired
        .iter()
        .filter(|retired| retired.deleted_at.is_none())
        .cloned()
        .partition(|retired| deletable_after(retired.retired_at, rules).is_some_and(|instant| now > instant));
    Plan { newest_settled, released, kept, expired, waiting }
}

/// The instant after which what was retired at `retired_at` may be deleted; `None` when no clock will reach it.
pub fn deletable_after(retired_at: DateTime<Utc>, rules: &RetentionConfig) -> Option<DateTime<Utc>> {
    retired_at.checked_add_signed(rules.grace)
}

/// `feed` without the days of `released`, which are retired.
#[must_use]
pub fn let_go(feed: &Feed, released: &[Released], now: DateTime<Utc>) -> Feed {
    let days: BTreeSet<Day> = released.iter().map(|released| released.entry.day).collect();
    let mut next = feed.clone();
    let (gone, stay) = next.days.into_iter().partition(|entry| days.contains(&entry.day));
    next.days = stay;
    let gone: Vec<DayEntry> = gone;
    next.retired.extend(gone.into_iter().map(|entry| entry.retire(RetiredReason::Pruned, now)));
    next
}

/// `feed` after the objects of the revisions with these manifests were deleted: it forgets them, except for the last
/// revision of a day that is no longer published, which stays as the day's tombstone.
#[must_use]
pub fn forget(feed: &Feed, deleted: &BTreeSet<Key>, now: DateTime<Utc>) -> Feed {
    let mut last: BTreeMap<Day, (u32, DateTime<Utc>, Key)> = BTreeMap::new();
    for retired in feed.retired.iter().filter(|retired| feed.day(retired.day).is_none()) {
        let candidate = (retired.revision, retired.retired_at, retired.manifest.key.clone());
        let present = last.entry(retired.day).or_insert_with(|| candidate.clone());
        if (candidate.0, candidate.1) >= (present.0, present.1) {
            *present = candidate;
        }
    }
    let mut next = feed.clone();
    for retired in &mut next.retired {
        if retired.deleted_at.is_none() && deleted.contains(&retired.manifest.key) {
            retired.deleted_at = Some(now);
        }
    }
    next.retired.retain(|retired| {
        let is_last = last.get(&retired.day).is_some_and(|(_, _, key)| *key == retired.manifest.key);
        retired.deleted_at.is_none() || is_last
    });
    next
}

/// An object that a revision names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionObject {
    /// Its name.
    pub key: Key,
    /// What it is.
    pub kind: ObjectKind,
    /// Its size in the store, as far as a manifest records it: for parts.
    pub stored_bytes: Option<u64>,
}

/// What an object is to its revision, in the order of deletion: while the manifest is there, a run that was
/// interrupted is resumed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// Rows.
    Part,
    /// SHA256SUMS.
    Sums,
    /// The manifest itself.
    Manifest,
}

/// An object to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// The object.
    pub object: RevisionObject,
    /// The manifest of the expired revision that names it.
    pub because: Key,
}

/// All objects that the revision published under `reference` names: its manifest, the checksums beside it, its parts.
///
/// # Errors
/// Class Integrity, when the manifest is of another day or revision, or names anything but parts of its own day:
/// then nothing can be concluded from it.
pub fn objects_of(
    day: Day,
    revision: u32,
    reference: &ManifestRef,
    manifest: &Manifest,
) -> Result<Vec<RevisionObject>, Failure> {
    let refused = |problem: String| {
        Failure::new(Class::Integrity, format!("{}: {problem}", reference.key))
            .meaning("what belongs to the revision is unknown, so none of the day's objects was deleted")
    };
    if (manifest.day, manifest.revision) != (day, revision) {
        let (found_day, found) = (manifest.day, manifest.revision);
        return Err(refused(format!("is the manifest of {found_day} r{found}, where the feed has {day} r{revision}")));
    }
    let sums = sums_beside(&reference.key);
    let document = |key: &Key, kind| RevisionObject { key: key.clone(), kind, stored_bytes: None };
    let mut objects = vec![document(&reference.key, ObjectKind::Manifest), document(&sums, ObjectKind::Sums)];
    for part in manifest.slices.iter().flat_map(|slice| &slice.parts) {
        let is_document = part.key.file_name() == sums.file_name() || part.key.file_name() == reference.key.file_name();
        if is_document {
            return Err(refused(format!("names {} as a part", part.key)));
        }
        let stored_bytes = Some(part.stored_bytes);
        objects.push(RevisionObject { key: part.key.clone(), kind: ObjectKind::Part, stored_bytes });
    }
    match objects.iter().find(|object| !object.key.lies_in(day)) {
        Some(stray) => Err(refused(format!("names {}, which is not of {day}", stray.key))),
        None => Ok(objects),
    }
}

/// What is deleted of the `expired` revisions of a day: each object that they name once, except those in
/// `still_named`. In the order of deletion: all parts, then the checksums, then the manifests.
///
/// `still_named` must hold the objects of all other revisions of the same day that are not deleted.
///
/// # Errors
/// Those of [`objects_of`]; then nothing of the day may be deleted.
pub fn deletable(expired: &[(Retired, Manifest)], still_named: &BTreeSet<Key>) -> Result<Vec<Deletion>, Failure> {
    let mut deletions: BTreeMap<Key, Deletion> = BTreeMap::new();
    for (retired, manifest) in expired {
        for object in objects_of(retired.day, retired.revision, &retired.manifest, manifest)? {
            if !still_named.contains(&object.key) {
                let because = retired.manifest.key.clone();
                deletions.entry(object.key.clone()).or_insert(Deletion { object, because });
            }
        }
    }
    let mut deletions: Vec<Deletion> = deletions.into_values().collect();
    deletions.sort_by_key(|deletion| deletion.object.kind);
    Ok(deletions)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::error::class_of;
    use crate::manifest::State::{Final, Provisional};
    use crate::retention::fixtures::{PART_BYTES, TABLES, day, feed_of, full_dump, instant, manifest, rules};

    const LATER: &str = "2024-06-01T00:00:00Z";

    fn released(feed: &Feed, rules: &RetentionConfig) -> Vec<String> {
        plan(feed, rules, instant(LATER)).released.iter().map(|released| released.entry.day.to_string()).collect()
    }

    fn kept(feed: &Feed, rules: &RetentionConfig) -> Vec<(String, KeepReason)> {
        plan(feed, rules, instant(LATER)).kept.iter().map(|kept| (kept.day.to_string(), kept.reason)).collect()
    }

    fn five_final_days() -> Feed {
        let days = ["2024-05-01", "2024-05-02", "2024-05-03", "2024-05-04", "2024-05-05"];
        feed_of(&days.map(|day| (day, Final)))
    }

    #[test]
    fn keep_counts_the_newest_final_day_itself() {
        assert_eq!(released(&five_final_days(), &rules(2, 0, 48)), ["2024-05-01", "2024-05-02", "2024-05-03"]);
        assert_eq!(released(&five_final_days(), &rules(5, 0, 48)), [""; 0]);
        assert_eq!(released(&five_final_days(), &rules(u64::MAX, 0, 48)), [""; 0]);
    }

    #[test]
    fn keep_counts_dates_not_published_days() {
        let feed = feed_of(&[("2024-05-01", Final), ("2024-05-02", Final), ("2024-05-09", Final)]);
        assert_eq!(released(&feed, &rules(8, 0, 48)), ["2024-05-01"]);
    }

    #[test]
    fn without_a_final_day_nothing_goes() {
        let feed = feed_of(&[("2024-05-01", Provisional), ("2024-05-20", Provisional)]);
        assert_eq!(released(&feed, &rules(1, 0, 48)), [""; 0]);
        assert!(kept(&feed, &rules(1, 0, 48)).iter().all(|(_, reason)| *reason == KeepReason::NothingSettled));
    }

    #[test]
    fn provisional_days_do_not_move_the_boundary_and_newer_ones_stay() {
        let feed = feed_of(&[("2024-05-01", Final), ("2024-05-02", Final), ("2024-05-20", Provisional)]);
        assert_eq!(released(&feed, &rules(1, 0, 48)), ["2024-05-01"]);
        let stays = ("2024-05-20".to_owned(), KeepReason::NewerThanSettled);
        assert_eq!(kept(&feed, &rules(1, 0, 48)).last(), Some(&stays));
    }

    #[test]
    fn an_old_day_that_never_became_final_goes_and_says_so() {
        let feed = feed_of(&[("2024-05-01", Provisional), ("2024-05-02", Final), ("2024-05-03", Final)]);
        let planned = plan(&feed, &rules(1, 0, 48), instant(LATER));
        let reasons: Vec<ReleaseReason> = planned.released.iter().map(|released| released.reason).collect();
        assert_eq!(reasons, [ReleaseReason::NeverFinal, ReleaseReason::OlderThanKeep]);
    }

    #[test]
    fn min_complete_final_days_stay_however_old_they_are() {
        let feed = feed_of(&[
            ("2024-01-01", Final),
            ("2024-02-01", Final),
            ("2024-02-02", Provisional),
            ("2024-03-01", Final),
            ("2024-05-05", Final),
        ]);
        assert_eq!(released(&feed, &rules(1, 3, 48)), ["2024-01-01"]);
        assert_eq!(released(&feed, &rules(1, 4, 48)), [""; 0]);
        assert_eq!(released(&feed, &rules(1, 99, 48)), [""; 0], "the floor is above what there is");
        let reasons = kept(&feed, &rules(1, 3, 48)).into_iter().map(|(_, reason)| reason).collect::<Vec<_>>();
        use KeepReason::{MinComplete, WithinKeep};
        assert_eq!(reasons, [MinComplete, MinComplete, MinComplete, WithinKeep], "the day between would be a hole");
    }

    #[test]
    fn a_final_day_dated_in_the_future_hides_no_other() {
        let feed = feed_of(&[("2024-05-01", Final), ("2024-05-02", Final), ("2031-01-01", Final)]);
        assert_eq!(released(&feed, &rules(2, 0, 48)), [""; 0]);
        assert_eq!(plan(&feed, &rules(2, 0, 48), instant(LATER)).newest_settled, Some(day("2024-05-02")));
    }

    fn with_dump(feed: Feed, taken_at: &str) -> Feed {
        let dump = full_dump(&format!("full/{}.dump", feed.full_dumps.len()), taken_at);
        Feed { full_dumps: [feed.full_dumps, vec![dump]].concat(), ..feed }
    }

    /// The days of these fixtures were read when they ended.
    #[test]
    fn days_that_the_newest_full_dump_does_not_contain_stay() {
        let feed = with_dump(five_final_days(), "2024-05-03T00:20:00Z");
        assert_eq!(released(&feed, &rules(1, 0, 48)), ["2024-05-01", "2024-05-02"]);
        let reasons: Vec<_> = kept(&feed, &rules(1, 0, 48)).into_iter().map(|(_, reason)| reason).collect();
        use KeepReason::{SinceFullDump, WithinKeep};
        assert_eq!(reasons, [SinceFullDump, SinceFullDump, WithinKeep]);
    }

    #[test]
    fn the_newest_full_dump_decides_whatever_the_order_in_which_they_were_recorded() {
        let feed = with_dump(with_dump(five_final_days(), "2024-05-05T00:20:00Z"), "2024-05-02T00:20:00Z");
        assert_eq!(released(&feed, &rules(1, 0, 48)), ["2024-05-01", "2024-05-02", "2024-05-03", "2024-05-04"]);
    }

    #[test]
    fn days_after_one_that_the_full_dump_does_not_contain_stay_with_it() {
        let mut feed = with_dump(five_final_days(), "2024-05-05T12:00:00Z");
        // It was published again after the dump.
        feed.days[1].taken.as_mut().expect("a reading").exported_at = instant("2024-05-06T00:00:00Z");
        assert_eq!(released(&feed, &rules(1, 0, 48)), ["2024-05-01"], "a hole would be behind it");
    }

    #[test]
    fn a_full_dump_never_makes_more_days_go() {
        let feed = with_dump(five_final_days(), "2030-01-01T00:00:00Z");
        assert_eq!(released(&feed, &rules(3, 0, 48)), released(&five_final_days(), &rules(3, 0, 48)));
        let provisional = with_dump(feed_of(&[("2024-05-01", Provisional)]), "2030-01-01T00:00:00Z");
        assert_eq!(released(&provisional, &rules(1, 0, 48)), [""; 0]);
    }

    #[test]
    fn a_revision_expires_once_more_than_the_grace_has_passed_since_it_was_retired() {
        let now = instant(LATER);
        let planned = plan(&five_final_days(), &rules(4, 0, 48), now);
        let feed = let_go(&five_final_days(), &planned.released, now);
        let expired = |rules: &RetentionConfig, now| plan(&feed, rules, now).expired.len();
        assert_eq!(expired(&rules(4, 0, 48), now + TimeDelta::hours(48)), 0);
        assert_eq!(expired(&rules(4, 0, 48), now + TimeDelta::hours(48) + TimeDelta::nanoseconds(1)), 1);
        assert_eq!(expired(&rules(4, 0, 0), now), 0, "never by the run that let it go");
        let forever = RetentionConfig { grace: TimeDelta::MAX, ..rules(4, 0, 0) };
        assert_eq!(expired(&forever, DateTime::<Utc>::MAX_UTC), 0);
    }

    #[test]
    fn a_day_let_go_of_is_retired_with_its_digest() {
        let now = instant(LATER);
        let before = five_final_days();
        let after = let_go(&before, &plan(&before, &rules(4, 0, 48), now).released, now);
        assert_eq!(after.days, before.days[1..]);
        assert_eq!(after.retired, [before.days[0].clone().retire(RetiredReason::Pruned, now)]);
    }

    /// Revision 2 of 2024-05-01 carries the first two slices of revision 1.
    fn two_revisions() -> [(ManifestRef, Manifest); 2] {
        let first = manifest(day("2024-05-01"), 1, Final, "00000001", [None; TABLES.len()]);
        let second = manifest(day("2024-05-01"), 2, Final, "00000002", [Some(&first.1), Some(&first.1), None]);
        [first, second]
    }

    fn retired((reference, manifest): &(ManifestRef, Manifest), reason: RetiredReason) -> (Retired, Manifest) {
        let entry = DayEntry::of(manifest, reference.clone());
        (entry.retire(reason, instant(LATER)), manifest.clone())
    }

    fn keys(deletions: &[Deletion]) -> Vec<&str> {
        deletions.iter().map(|deletion| deletion.object.key.as_str()).collect()
    }

    #[test]
    fn carried_parts_outlive_the_revision_that_wrote_them() {
        let [first, second] = two_revisions();
        let named: BTreeSet<Key> =
            objects_of(day("2024-05-01"), 2, &second.0, &second.1).expect("ours").into_iter().map(|o| o.key).collect();
        let deletions = deletable(&[retired(&first, RetiredReason::Superseded)], &named).expect("ours");
        assert_eq!(
            keys(&deletions),
            [
                "2024-05-01/r1-00000001/public.packages-2024-05-01.copy.zst",
                "2024-05-01/r1-00000001/SHA256SUMS",
                "2024-05-01/r1-00000001/manifest.json",
            ]
        );
        assert_eq!(deletions[0].object.stored_bytes, Some(PART_BYTES));
    }

    #[test]
    fn parts_go_first_and_manifests_last_and_each_once() {
        let [first, second] = two_revisions();
        let expired = [retired(&first, RetiredReason::Superseded), retired(&second, RetiredReason::Pruned)];
        let deletions = deletable(&expired, &BTreeSet::new()).expect("ours");
        let kinds: Vec<ObjectKind> = deletions.iter().map(|deletion| deletion.object.kind).collect();
        use ObjectKind::{Manifest, Part, Sums};
        assert_eq!(kinds, [Part, Part, Part, Part, Sums, Sums, Manifest, Manifest]);
        assert_eq!(keys(&deletions).iter().collect::<BTreeSet<_>>().len(), 8);
    }

    #[test]
    fn a_manifest_that_names_anything_but_parts_of_its_day_deletes_nothing() {
        let strange = [
            "2024-05-02/r1-00000001/public.messages-2024-05-02.copy.zst",
            "2024-05-01/public.messages-2024-05-01.copy.zst",
            "2024-05-01/r1-00000001/deeper/public.messages-2024-05-01.copy.zst",
            "2024-05-011/r1-00000001/public.messages-2024-05-01.copy.zst",
            "full/2024-05-01.dump",
            "feed.json",
            "2024-05-01/r2-00000002/manifest.json",
            "2024-05-01/r2-00000002/SHA256SUMS",
        ];
        for key in strange {
            let [mut first, _] = two_revisions();
            first.1.slices[0].parts[0].key = key.parse().expect("a key");
            let refused = deletable(&[retired(&first, RetiredReason::Pruned)], &BTreeSet::new());
            assert_eq!(refused.map_err(|failure| class_of(&failure.into())), Err(Class::Integrity), "{key}");
        }
    }

    #[test]
    fn both_layouts_are_of_their_day() {
        for text in ["2024-05-01/r1-0/x", "day=2024-05-01/r1-0/x"] {
            assert!(text.parse::<Key>().expect("a key").lies_in(day("2024-05-01")));
            assert!(!text.parse::<Key>().expect("a key").lies_in(day("2024-05-10")));
        }
    }

    #[test]
    fn the_manifest_of_another_revision_is_not_taken_for_this_one() {
        let [first, second] = two_revisions();
        assert!(objects_of(day("2024-05-01"), 1, &first.0, &second.1).is_err());
        assert!(objects_of(day("2024-05-02"), 1, &first.0, &first.1).is_err());
        assert!(objects_of(day("2024-05-01"), 1, &first.0, &first.1).is_ok());
    }

    fn forgotten(feed: &Feed, deleted: &[&(ManifestRef, Manifest)]) -> Vec<(u32, bool)> {
        let deleted = deleted.iter().map(|(reference, _)| reference.key.clone()).collect();
        let feed = forget(feed, &deleted, instant(LATER));
        feed.retired.iter().map(|retired| (retired.revision, retired.deleted_at.is_some())).collect()
    }

    #[test]
    fn a_deleted_superseded_revision_is_forgotten() {
        let [first, second] = two_revisions();
        let feed = Feed {
            days: vec![DayEntry::of(&second.1, second.0.clone())],
            retired: vec![retired(&first, RetiredReason::Superseded).0],
            ..five_final_days()
        };
        assert_eq!(forgotten(&feed, &[&first]), []);
        assert_eq!(forgotten(&feed, &[]), [(1, false)]);
    }

    #[test]
    fn the_last_revision_of_a_pruned_day_stays_as_its_tombstone() {
        let [first, second] = two_revisions();
        let feed = Feed {
            days: Vec::new(),
            retired: vec![retired(&first, RetiredReason::Superseded).0, retired(&second, RetiredReason::Pruned).0],
            ..five_final_days()
        };
        assert_eq!(forgotten(&feed, &[&first, &second]), [(2, true)]);
        assert_eq!(forgotten(&feed, &[&first]), [(2, false)]);
        assert_eq!(forgotten(&feed, &[&second]), [(1, false), (2, true)], "the other one is still to be deleted");
    }
}
