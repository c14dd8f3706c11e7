//! Full dumps beside the days, and what each of them contains. Pure.
//!
//! # Containment
//! A dump contains a day when every transaction that the reading of the day saw is one that the dump saw too. That is
//! decided from `pg_current_snapshot()` of both, `xmin:xmax:running`: what a snapshot sees are the transactions below
//! its xmax that are not running. Subtransactions are in no such list, and need not be: each has a higher number than
//! the transaction that it belongs to, and becomes visible with it.
//!
//! A snapshot of a standby never lists what is running. For a day's reading that only makes it look as if it had seen
//! more; for a dump it would hide what the dump did not see, so of a standby's dump only what is below its xmin counts.
//!
//! Numbers of transactions say something within one system identifier and timeline. Across those, and wherever else
//! containment cannot be proved, it is not assumed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DayEntry, FORMAT, Feed, Retired};
use crate::day::Day;
use crate::layout::Key;
use crate::manifest::{DocumentError, Taken, Versioned, parse_versioned};

/// A dump of the whole database, put beside the days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FullDump {
    /// Its name below the feed's prefix: below `full/`.
    pub key: Key,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
    /// When it was recorded here.
    pub published_at: DateTime<Utc>,
    /// What it contains.
    #[serde(flatten)]
    pub moment: DumpMoment,
    /// The tables, as `schema.table`, that were locked before the snapshot of the dump was taken: none of them can
    /// have lost rows of that snapshot to a TRUNCATE before the dump read them. Empty for a dump that was begun
    /// elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tables: Vec<String>,
}

/// What lies beside a full dump, as [`Key::dump_record`], from before feed.json names it, and for good: with it the dump
/// is found again when feed.json is lost. Alone it makes no object a full dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpRecord {
    /// The format version, that of [`Feed`].
    pub format: u32,
    /// The feed that the dump lies beside.
    pub feed_id: String,
    /// The dataset's name.
    pub dataset: String,
    /// The dump as feed.json names it.
    pub full_dump: FullDump,
}

impl Versioned for DumpRecord {
    fn format(&self) -> u32 {
        self.format
    }
}

impl DumpRecord {
    /// The record of `full_dump` beside `feed`.
    pub fn of(feed: &Feed, full_dump: FullDump) -> DumpRecord {
        DumpRecord { format: FORMAT, feed_id: feed.feed_id.clone(), dataset: feed.dataset.clone(), full_dump }
    }

    /// Reads a record. Whether it lies beside the dump that it names is for the caller to compare.
    ///
    /// # Errors
    /// A newer format, a malformed document, or a dump that no head may name.
    pub fn parse(bytes: &[u8]) -> Result<DumpRecord, DocumentError> {
        let record: DumpRecord = parse_versioned(bytes, FORMAT)?;
        check(std::slice::from_ref(&record.full_dump)).map_err(DocumentError::Contradiction)?;
        Ok(record)
    }

    /// The document's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a record has only string keys");
        bytes.push(b'\n');
        bytes
    }
}

/// The moment that a dump shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DumpMoment {
    /// When it was taken, by the source's clock. Of a dump that was begun elsewhere: when it was begun, as its
    /// publisher says.
    pub taken_at: DateTime<Utc>,
    /// The snapshot that it shows; absent for a dump that was begun elsewhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken: Option<Taken>,
    /// Its source was a standby.
    #[serde(default)]
    pub from_standby: bool,
}

/// How the reading of a day stands to a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The dump has seen every transaction that the reading saw.
    Contained,
    /// The reading is older than the dump as far as their order can be told, but may have seen what the dump did not.
    Before,
    /// The reading is newer.
    After,
}

impl DumpMoment {
    /// Of a dump that was begun elsewhere at `taken_at`: only time is known of it.
    pub fn at(taken_at: DateTime<Utc>) -> DumpMoment {
        DumpMoment { taken_at, taken: None, from_standby: false }
    }

    /// How a day that was read at `day` stands to this dump.
    ///
    /// Of a dump with only a time the snapshot is not older than that time, and a day's `exported_at` is not older than
    /// the day's snapshot; both are of the source's clock.
    pub fn standing_of(&self, day: &Taken) -> Standing {
        let Some(taken) = &self.taken else {
            return if day.exported_at <= self.taken_at { Standing::Contained } else { Standing::After };
        };
        if saw_all_of(taken, self.from_standby, day) {
            Standing::Contained
        } else if day.order(taken).is_le() {
            Standing::Before
        } else {
            Standing::After
        }
    }

    /// May a revision that left the feed have rows that this dump does not know?
    ///
    /// A primary's dump that is newer than the reading shows the source as it went on from there, also where the two
    /// are of different systems or timelines and nothing can be proved. Of a reading that is not known it is known
    /// that it was over when the revision left the feed; a standby's dump may be older than its time.
    fn may_lack(&self, retired: &Retired) -> bool {
        let Some(day) = &retired.taken else { return self.from_standby || self.taken_at < retired.retired_at };
        match self.standing_of(day) {
            Standing::Contained => false,
            Standing::After => true,
            Standing::Before => self
                .taken
                .as_ref()
                .is_none_or(|taken| taken.system_identifier == day.system_identifier && taken.timeline == day.timeline),
        }
    }

    /// How a published day stands to this dump, from its entry alone. An entry without a reading was written by a
    /// version that knew no full dumps, so before any dump that pgslice took itself.
    pub fn standing_of_entry(&self, entry: &DayEntry) -> Standing {
        match (&entry.taken, &self.taken) {
            (Some(day), _) => self.standing_of(day),
            (None, Some(_)) => Standing::Contained,
            (None, None) => Standing::After,
        }
    }
}

/// The transactions that a snapshot speaks of: those below `xmax` that are not `running` are seen.
struct Seen {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl Seen {
    fn of(snapshot: &str) -> Option<Seen> {
        let mut fields = snapshot.split(':');
        let (xmin, xmax, running) = (fields.next()?, fields.next()?, fields.next()?);
        let running: Result<Vec<u64>, _> =
            running.split(',').filter(|xid| !xid.is_empty()).map(str::parse::<u64>).collect();
        let seen = Seen { xmin: xmin.parse().ok()?, xmax: xmax.parse().ok()?, running: running.ok()? };
        let is_sound = fields.next().is_none() && seen.xmin <= seen.xmax;
        is_sound.then_some(seen)
    }

    /// May the transaction be visible, as far as the list of those running tells?
    fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && !self.running.contains(&xid)
    }
}

/// Is every transaction that `day` saw one that `dump` saw too? Only what can be proved.
fn saw_all_of(dump: &Taken, from_standby: bool, day: &Taken) -> bool {
    if dump.system_identifier != day.system_identifier || dump.timeline != day.timeline {
        return false;
    }
    let (Some(dump), Some(day)) = (Seen::of(&dump.snapshot), Seen::of(&day.snapshot)) else { return false };
    if day.xmax <= dump.xmin {
        return true;
    }
    !from_standby && day.xmax <= dump.xmax && !dump.running.iter().any(|xid| day.sees(*xid))
}

/// Holds the dumps that a head names against each other, and their names against the grammar.
pub(super) fn check(dumps: &[FullDump]) -> Result<(), String> {
    let mut keys = std::collections::BTreeSet::new();
    for dump in dumps {
        if !dump.key.is_stream() {
            return Err(format!("the full dump {} does not lie below full/", dump.key));
        }
        if dump.sha256.len() != 64 || !dump.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("the sha256 of the full dump {} is not 64 hex digits", dump.key));
        }
        if !keys.insert(&dump.key) {
            return Err(format!("two full dumps are called {}", dump.key));
        }
    }
    Ok(())
}

impl Feed {
    /// The full dump of that name.
    pub fn full_dump(&self, key: &Key) -> Option<&FullDump> {
        self.full_dumps.iter().find(|dump| dump.key == *key)
    }

    /// The full dump that was taken last.
    pub fn newest_full_dump(&self) -> Option<&FullDump> {
        self.full_dumps.iter().max_by_key(|dump| dump.moment.taken_at)
    }

    /// The last day up to which every published day is contained in a dump; `None` where not even the oldest is.
    pub fn contained_through(&self, moment: &DumpMoment) -> Option<Day> {
        let contained = |entry: &&DayEntry| moment.standing_of_entry(entry) == Standing::Contained;
        self.days.iter().take_while(contained).last().map(|entry| entry.day)
    }

    /// May a day be missing for good between a dump and the oldest published day?
    ///
    /// None is when the dump lacks nothing of the days that are gone ([`Feed::gone_without`]), and either contains the
    /// oldest published day or has rows that reach into that day's window.
    pub fn leaves_hole_behind(&self, moment: &DumpMoment) -> bool {
        let reaches = |oldest: &DayEntry| {
            moment.standing_of_entry(oldest) == Standing::Contained || moment.taken_at >= oldest.window.start
        };
        !self.days.first().is_none_or(reaches) || !self.gone_without(moment).is_empty()
    }

    /// The days from before the oldest published one that left the feed, and whose last revision the dump may lack;
    /// ascending. No day of the feed will bring them.
    pub fn gone_without(&self, moment: &DumpMoment) -> Vec<Day> {
        let mut last: BTreeMap<Day, &Retired> = BTreeMap::new();
        let oldest = self.days.first().map(|entry| entry.day);
        for retired in self.retired.iter().filter(|retired| oldest.is_none_or(|oldest| retired.day < oldest)) {
            let present = last.entry(retired.day).or_insert(retired);
            if present.revision < retired.revision {
                *present = retired;
            }
        }
        last.into_iter().filter(|(_, retired)| moment.may_lack(retired)).map(|(day, _)| day).collect()
    }

    /// What to do for a replica that needs days which are no longer published: the newest dump that will do, if any.
    pub fn load_advice(&self) -> Option<String> {
        let will_do = |dump: &&FullDump| !self.leaves_hole_behind(&dump.moment);
        let key = &self.full_dumps.iter().filter(will_do).max_by_key(|dump| dump.moment.taken_at)?.key;
        Some(format!("load {key} (pgslice get {key}), then run `pgslice catchup --restored-from {key}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::RetiredReason;
    use crate::manifest::State::Final;
    use crate::retention::fixtures::{day, feed_of, full_dump, instant};

    fn taken(snapshot: &str) -> Taken {
        Taken {
            exported_at: instant("2024-05-03T00:20:00Z"),
            snapshot: snapshot.into(),
            lsn: "0/1".into(),
            system_identifier: "7".into(),
            timeline: 1,
        }
    }

    fn dump(snapshot: &str) -> DumpMoment {
        DumpMoment { taken_at: instant("2024-05-03T00:20:00Z"), taken: Some(taken(snapshot)), from_standby: false }
    }

    fn contained(dump: &DumpMoment, day: &str) -> bool {
        dump.standing_of(&taken(day)) == Standing::Contained
    }

    #[test]
    fn a_day_whose_transactions_had_all_ended_is_contained() {
        assert!(contained(&dump("100:100:"), "90:100:95"));
        assert!(contained(&dump("100:100:"), "100:100:"));
        assert!(!contained(&dump("100:100:"), "100:101:"), "the day saw transaction 100");
    }

    #[test]
    fn what_the_dump_did_not_see_must_be_unseen_by_the_day_too() {
        let dump = dump("90:110:90,105");
        assert!(contained(&dump, "90:100:90"), "both were running for the day: 90 as such, 105 not begun");
        assert!(!contained(&dump, "91:100:"), "the day saw 90");
        assert!(contained(&dump, "90:106:90,105"));
        assert!(!contained(&dump, "90:106:90"), "the day saw 105");
        assert!(contained(&dump, "90:110:90,105"), "one snapshot");
        assert!(!contained(&dump, "90:111:90,105"), "the day saw 110, which had not begun for the dump");
    }

    #[test]
    fn of_a_standbys_dump_only_what_is_below_its_xmin_counts() {
        let standby = DumpMoment { from_standby: true, ..dump("90:110:") };
        assert!(contained(&standby, "80:90:"));
        assert!(!contained(&standby, "80:91:"), "transaction 90 was running, in a list that a standby does not have");
        assert!(contained(&dump("90:110:"), "80:91:"), "a primary would have listed it");
    }

    #[test]
    fn snapshots_of_two_systems_or_timelines_contain_nothing_of_each_other() {
        for (system_identifier, timeline) in [("8", 1), ("7", 2), ("7", 0)] {
            let day = Taken { system_identifier: system_identifier.into(), timeline, ..taken("1:1:") };
            assert_ne!(dump("100:100:").standing_of(&day), Standing::Contained, "{system_identifier} {timeline}");
        }
    }

    #[test]
    fn what_is_no_snapshot_contains_nothing_and_is_not_contained() {
        for strange in ["", "100", "100:90:", "a:b:", "100:100:x", "100:100::", "1:-1:", "90:100:90:1"] {
            assert!(!contained(&dump(strange), "1:1:"), "{strange}");
            assert!(!contained(&dump("100:100:"), strange), "{strange}");
        }
    }

    #[test]
    fn a_day_that_cannot_be_proved_to_be_contained_is_before_or_after() {
        let standby = DumpMoment { from_standby: true, ..dump("90:110:") };
        assert_eq!(standby.standing_of(&taken("91:100:")), Standing::Before);
        assert_eq!(standby.standing_of(&taken("91:120:")), Standing::After);
    }

    #[test]
    fn a_dump_from_elsewhere_contains_what_was_read_by_its_time() {
        let moment = DumpMoment::at(instant("2024-05-03T00:20:00Z"));
        assert_eq!(moment.standing_of(&taken("1:1:")), Standing::Contained);
        let later = Taken { exported_at: instant("2024-05-03T00:20:00.000001Z"), ..taken("1:1:") };
        assert_eq!(moment.standing_of(&later), Standing::After);
    }

    /// Published at the end of each day; snapshots are all alike, so dumps of this test have only a time.
    fn feed() -> Feed {
        feed_of(&[("2024-05-02", Final), ("2024-05-03", Final), ("2024-05-04", Final)])
    }

    #[test]
    fn days_are_contained_up_to_the_first_that_is_not() {
        let through = |at: &str| feed().contained_through(&DumpMoment::at(instant(at)));
        assert_eq!(through("2024-05-02T23:59:59Z"), None);
        assert_eq!(through("2024-05-04T00:20:00Z"), Some(day("2024-05-03")));
        assert_eq!(through("2025-01-01T00:00:00Z"), Some(day("2024-05-04")));
    }

    #[test]
    fn an_entry_without_a_reading_is_older_than_every_dump_that_pgslice_took() {
        let mut entry = feed().days[0].clone();
        entry.taken = None;
        assert_eq!(dump("1:1:").standing_of_entry(&entry), Standing::Contained);
        assert_eq!(DumpMoment::at(instant("2030-01-01T00:00:00Z")).standing_of_entry(&entry), Standing::After);
    }

    #[test]
    fn a_dump_that_ends_before_the_oldest_day_leaves_a_hole() {
        let hole = |at: &str| feed().leaves_hole_behind(&DumpMoment::at(instant(at)));
        assert!(hole("2024-05-01T23:59:59Z"));
        assert!(!hole("2024-05-02T00:20:00Z"), "its rows reach into the oldest day");
    }

    /// The feed, whose first day was let go of a day after it had been read.
    fn pruned() -> Feed {
        let mut feed = feed();
        let gone = feed.days.remove(0);
        feed.retired.push(gone.retire(RetiredReason::Pruned, instant("2024-05-04T01:00:00Z")));
        feed
    }

    #[test]
    fn where_days_were_let_go_of_only_a_dump_that_contains_them_reaches_over_them() {
        let mut feed = pruned();
        feed.full_dumps.push(full_dump("full/a.dump", "2024-05-03T00:20:00Z"));
        assert!(!feed.leaves_hole_behind(&feed.full_dumps[0].moment));
        assert_eq!(
            feed.load_advice().expect("it will do"),
            "load full/a.dump (pgslice get full/a.dump), then run `pgslice catchup --restored-from full/a.dump`"
        );
        let hole = |at: &str| feed.leaves_hole_behind(&DumpMoment::at(instant(at)));
        assert!(hole("2024-05-02T23:59:59Z"), "2024-05-02 is not in it, the newest or not");
        assert!(!hole("2024-05-03T00:00:00Z"));
    }

    #[test]
    fn the_newest_dump_will_not_do_where_it_was_recorded_after_a_day_had_gone() {
        let mut feed = pruned();
        feed.full_dumps.push(full_dump("full/late.dump", "2024-05-02T12:00:00Z"));
        assert!(feed.leaves_hole_behind(&feed.full_dumps[0].moment));
        assert_eq!(feed.gone_without(&feed.full_dumps[0].moment), [day("2024-05-02")]);
        assert_eq!(feed.load_advice(), None);
    }

    #[test]
    fn a_dump_that_contains_the_oldest_day_may_lack_the_last_revision_of_one_that_is_gone() {
        let mut feed = pruned();
        let mut last = feed.retired[0].clone();
        last.revision = 2;
        last.taken.as_mut().expect("a reading").exported_at = instant("2024-05-06T00:00:00Z");
        feed.retired.insert(0, last);
        let hole = |at: &str| feed.leaves_hole_behind(&DumpMoment::at(instant(at)));
        assert!(hole("2024-05-05T00:20:00Z"), "2024-05-03 is in it, revision 2 of 2024-05-02 is not");
        assert!(!hole("2024-05-06T00:20:00Z"));
    }

    #[test]
    fn a_reading_that_is_not_known_was_over_when_its_revision_left_the_feed() {
        let mut feed = pruned();
        feed.retired[0].taken = None;
        let lacks = |at: &str| !feed.gone_without(&DumpMoment::at(instant(at))).is_empty();
        assert!(lacks("2024-05-04T00:59:59Z"));
        assert!(!lacks("2024-05-04T01:00:00Z"));
        let standby = DumpMoment { from_standby: true, ..DumpMoment::at(instant("2024-05-04T01:00:00Z")) };
        assert!(!feed.gone_without(&standby).is_empty());
    }

    #[test]
    fn a_dump_that_was_taken_after_a_failover_lacks_nothing_of_the_days_before_it() {
        let mut feed = pruned();
        let hole = |feed: &Feed, timeline: u32| {
            let moment = DumpMoment { taken: Some(Taken { timeline, ..taken("1:2:1") }), ..dump("") };
            feed.leaves_hole_behind(&moment)
        };
        assert!(!hole(&feed, 2));
        feed.retired[0].taken = Some(taken("2:3:"));
        assert!(hole(&feed, 1));
    }

    #[test]
    fn a_record_says_what_the_head_says_of_its_dump() {
        let feed = feed();
        let moment = DumpMoment { from_standby: true, ..dump("90:110:90") };
        let named = FullDump { moment, tables: vec!["public.a".into()], ..full_dump("full/a", "2024-05-03T00:20:00Z") };
        let record = DumpRecord::of(&feed, named);
        assert_eq!(DumpRecord::parse(&record.to_bytes()).expect("a record"), record);
        assert_eq!((record.feed_id.as_str(), record.full_dump.key.dump_record().as_str()), ("f00d", "full/a.json"));
        let newer = DumpRecord { format: FORMAT + 1, ..record.clone() };
        assert!(matches!(DumpRecord::parse(&newer.to_bytes()), Err(DocumentError::Newer { .. })));
        let elsewhere = FullDump { key: Key::feed(), ..record.full_dump.clone() };
        assert!(DumpRecord::parse(&DumpRecord { full_dump: elsewhere, ..record }.to_bytes()).is_err());
        assert!(DumpRecord::parse(b"{\"format\": 1}").is_err());
    }

    #[test]
    fn a_head_whose_dumps_lie_elsewhere_or_have_one_name_is_refused() {
        let named =
            |name: &&str| FullDump { key: name.parse().expect("a key"), ..full_dump("full/x", "2024-05-04T00:20:00Z") };
        let dumps = |names: &[&str]| names.iter().map(named).collect::<Vec<_>>();
        let refused = |feed: &Feed| Feed::parse(&feed.to_bytes()).is_err();
        for names in [&["2024-05-02/r1-00000001/manifest.json"][..], &["feed.json"], &["full/a", "full/a"], &["full"]] {
            assert!(refused(&Feed { full_dumps: dumps(names), ..feed() }), "{names:?}");
        }
        let mut sound = Feed { full_dumps: dumps(&["full/a", "full/b"]), ..feed() };
        assert!(!refused(&sound));
        sound.full_dumps[0].sha256 = "x".repeat(64);
        assert!(refused(&sound));
    }
}
