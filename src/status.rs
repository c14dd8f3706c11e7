//! `pgslice status` and `pgslice ls`: what a feed holds, how fresh it is, and which objects it is made of.
//!
//! [`Status`] and [`Listing`] serialize as docs/json.md specifies: fields are added, never changed or removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::ahead::Ahead;
use crate::day::{Day, Zone};
use crate::feed::{Feed, ManifestRef, TableEntry};
use crate::figures::{Align, aligned, counted, human_bytes, human_count, human_days, human_instant, human_span};
use crate::head;
use crate::layout::{Key, sums_beside};
use crate::manifest::{Manifest, State};
use crate::store::SharedStore;

/// A feed as a monitor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The feed's format version.
    pub format: u32,
    /// The feed's identity.
    pub feed_id: String,
    /// The dataset's name.
    pub dataset: String,
    /// The zone that defines the days.
    pub timezone: String,
    /// Grows with every change of the feed.
    pub sequence: u64,
    /// When the feed was last published.
    pub published_at: DateTime<Utc>,
    /// The oldest published day.
    pub oldest: Option<Day>,
    /// The newest published day.
    pub newest: Option<Day>,
    /// Yesterday, in the dataset's zone, minus the newest day; `None` without days. Negative when a day is ahead.
    pub lag_days: Option<i64>,
    /// The holes between the oldest and the newest day, ascending.
    pub missing: Vec<Day>,
    /// The published days, ascending.
    pub days: Vec<DayStatus>,
    /// The full dumps beside them, in the order in which they were recorded.
    pub full_dumps: Vec<DumpStatus>,
    /// What only people are told.
    #[serde(skip)]
    told: Told,
}

/// A published day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DayStatus {
    /// The day.
    pub day: Day,
    /// Its revision.
    pub revision: u32,
    /// Its state.
    pub state: State,
    /// Rows of all tables.
    pub rows: u64,
    /// Stored bytes of all tables.
    pub bytes: u64,
    /// Per `schema.table`.
    pub tables: BTreeMap<String, TableEntry>,
    /// The revision that the replica holds; `None` when it holds none, or no ledger was read.
    pub applied_revision: Option<u32>,
}

/// A full dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DumpStatus {
    /// Its name below the feed's prefix.
    pub key: Key,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes in hex.
    pub sha256: String,
    /// When it was recorded.
    pub published_at: DateTime<Utc>,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// The last day up to which all published days are contained in it; `None` where not even the oldest is.
    pub contains_through: Option<Day>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    now: DateTime<Utc>,
    valid_until: DateTime<Utc>,
    replica: Replica,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Replica {
    /// No replica was asked.
    Unknown,
    /// Its ledger, with as many days that the feed no longer has.
    Known { unpublished_days: usize },
}

/// Judges `feed` at `now`. `applied` is the replica's ledger, the revision per day; `None` when there is none.
pub fn status(feed: &Feed, zone: Zone, now: DateTime<Utc>, applied: Option<&BTreeMap<Day, u32>>) -> Status {
    let days: Vec<DayStatus> = feed
        .days
        .iter()
        .map(|entry| DayStatus {
            day: entry.day,
            revision: entry.revision,
            state: entry.state,
            rows: entry.rows,
            bytes: entry.bytes,
            tables: entry.tables.clone(),
            applied_revision: applied.and_then(|applied| applied.get(&entry.day).copied()),
        })
        .collect();
    let newest = days.last().map(|day| day.day);
    let full_dumps = feed
        .full_dumps
        .iter()
        .map(|dump| DumpStatus {
            key: dump.key.clone(),
            bytes: dump.bytes,
            sha256: dump.sha256.clone(),
            published_at: dump.published_at,
            taken_at: dump.moment.taken_at,
            contains_through: feed.contained_through(&dump.moment),
        })
        .collect();
    let replica = match applied {
        None => Replica::Unknown,
        Some(applied) => {
            Replica::Known { unpublished_days: applied.keys().filter(|day| feed.day(**day).is_none()).count() }
        }
    };
    Status {
        format: feed.format,
        feed_id: feed.feed_id.clone(),
        dataset: feed.dataset.clone(),
        timezone: feed.timezone.clone(),
        sequence: feed.sequence,
        published_at: feed.published_at,
        oldest: days.first().map(|day| day.day),
        newest,
        lag_days: newest.map(|newest| zone.day_of(now).previous().days_since(newest)),
        missing: feed.missing(),
        days,
        full_dumps,
        told: Told { now, valid_until: feed.valid_until, replica },
    }
}

impl Status {
    /// The status for people: freshness, lag, gaps, what the replica has, then a table of days and one of tables.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.extent(), self.freshness()];
        lines.extend(self.lag());
        if !self.missing.is_empty() {
            lines.push(format!("missing: {}", human_days(&self.missing)));
        }
        lines.extend(self.replica());
        if !self.days.is_empty() {
            lines.push(String::new());
            lines.extend(self.table_of_days());
            lines.push(String::new());
            lines.extend(self.table_of_tables());
        }
        if !self.full_dumps.is_empty() {
            lines.push(String::new());
            lines.extend(self.table_of_dumps());
        }
        lines
    }

    fn extent(&self) -> String {
        match (self.oldest, self.newest) {
            (Some(oldest), Some(newest)) => {
                format!(
                    "{}: {}, {oldest} to {newest} ({})",
                    self.dataset,
                    counted(self.days.len(), "day"),
                    self.timezone
                )
            }
            _ => format!("{}: no days published yet ({})", self.dataset, self.timezone),
        }
    }

    fn freshness(&self) -> String {
        let Told { now, valid_until, .. } = self.told;
        let age = human_span(now - self.published_at);
        let verdict = if now > valid_until { "STALE since" } else { "fresh until" };
        format!("published {}, {age} ago; {verdict} {}", human_instant(self.published_at), human_instant(valid_until))
    }

    fn lag(&self) -> Option<String> {
        Some(match (self.lag_days?, self.newest?) {
            (..=-1, newest) => format!("newest day {newest} is ahead of yesterday"),
            (0, newest) => format!("newest day {newest} is yesterday: nothing is behind"),
            (1, newest) => format!("newest day {newest} is 1 day behind yesterday"),
            (lag, newest) => format!("newest day {newest} is {lag} days behind yesterday"),
        })
    }

    fn replica(&self) -> Option<String> {
        let Replica::Known { unpublished_days } = self.told.replica else { return None };
        let held = self.days.iter().filter(|day| day.is_applied()).count();
        let pending: Vec<Day> = self.days.iter().filter(|day| !day.is_applied()).map(|day| day.day).collect();
        let mut text = format!("replica: holds {held} of {}", counted(self.days.len(), "published day"));
        if !pending.is_empty() {
            text.push_str(&format!("; pending: {}", human_days(&pending)));
        }
        if unpublished_days > 0 {
            text.push_str(&format!("; and {} that the feed no longer has", counted(unpublished_days, "day")));
        }
        Some(text)
    }

    fn table_of_days(&self) -> Vec<String> {
        let with_replica = matches!(self.told.replica, Replica::Known { .. });
        let replica = |text: String| if with_replica { text } else { String::new() };
        let heading = ["day", "revision", "state", "rows", "size"].map(str::to_owned);
        let mut rows = vec![with_last(heading, replica("replica".into()))];
        for day in &self.days {
            let cells = [
                day.day.to_string(),
                format!("r{}", day.revision),
                day.state.word().to_owned(),
                human_count(day.rows),
                human_bytes(day.bytes),
            ];
            rows.push(with_last(
                cells,
                replica(day.applied_revision.map_or("-".into(), |revision| format!("r{revision}"))),
            ));
        }
        aligned([Align::Left, Align::Left, Align::Left, Align::Right, Align::Right, Align::Left], &rows)
    }

    fn table_of_dumps(&self) -> Vec<String> {
        let mut rows = vec![["full dump", "taken", "days up to", "size"].map(str::to_owned)];
        rows.extend(self.full_dumps.iter().map(|dump| {
            [
                dump.key.to_string(),
                human_instant(dump.taken_at),
                dump.contains_through.map_or("-".into(), |day| day.to_string()),
                human_bytes(dump.bytes),
            ]
        }));
        aligned([Align::Left, Align::Left, Align::Left, Align::Right], &rows)
    }

    fn table_of_tables(&self) -> Vec<String> {
        let mut totals: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (name, table) in self.days.iter().flat_map(|day| &day.tables) {
            add(totals.entry(name).or_default(), table.rows, table.bytes);
        }
        let mut all = (0, 0);
        self.days.iter().for_each(|day| add(&mut all, day.rows, day.bytes));
        let row = |name: &str, (rows, bytes): (u64, u64)| [name.to_owned(), human_count(rows), human_bytes(bytes)];
        let mut rows = vec![["table", "rows", "size"].map(str::to_owned)];
        rows.extend(totals.iter().map(|(name, total)| row(name, *total)));
        rows.push(row("all", all));
        aligned([Align::Left, Align::Right, Align::Right], &rows)
    }
}

impl DayStatus {
    /// Does the replica hold the published revision?
    fn is_applied(&self) -> bool {
        self.applied_revision == Some(self.revision)
    }
}

fn with_last([a, b, c, d, e]: [String; 5], last: String) -> [String; 6] {
    [a, b, c, d, e, last]
}

/// Sums stop at the top: the numbers of a feed are untrusted.
fn add(total: &mut (u64, u64), rows: u64, bytes: u64) {
    *total = (total.0.saturating_add(rows), total.1.saturating_add(bytes));
}

/// The objects of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The feed's identity.
    pub feed_id: String,
    /// The dataset's name.
    pub dataset: String,
    /// The version of the feed that names these objects.
    pub sequence: u64,
    /// feed.json, then per day, ascending: manifest, checksums, parts; then the full dumps.
    pub objects: Vec<Object>,
}

/// An object that the feed publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// Its name below the feed's prefix.
    pub key: Key,
    /// Its size, where the feed records it: for parts and full dumps.
    pub bytes: Option<u64>,
    /// SHA-256 of its bytes in hex, where the feed records it: for parts, manifests and full dumps.
    pub sha256: Option<String>,
    /// Its public address.
    pub url: String,
}

/// How many manifests are read at the same time.
const MANIFESTS_AHEAD: usize = 8;

/// Lists the objects of the published days, and the full dumps. Reads the head and every day's manifest, no part.
///
/// # Errors
/// No feed (class Usage), a manifest that is not the one that the head names (class Integrity), the store's own.
pub async fn list(store: &SharedStore) -> anyhow::Result<Listing> {
    let feed = Arc::new(head::read_existing(&**store).await?);
    let read = |index: usize| {
        let (store, feed) = (Arc::clone(store), Arc::clone(&feed));
        async move {
            let entry = &feed.days[index];
            let manifest = head::day_manifest(&*store, &feed, entry).await;
            let manifest = manifest.with_context(|| format!("cannot list {}", entry.day))?;
            anyhow::Ok(Listed::of(&entry.manifest, &manifest))
        }
    };
    let mut manifests = Vec::with_capacity(feed.days.len());
    let mut reading = Ahead::new((0..feed.days.len()).map(read), MANIFESTS_AHEAD);
    while let Some(listed) = reading.next().await {
        manifests.push(listed??);
    }
    drop(reading);
    let mut objects = objects(manifests, |key| store.object_url(key));
    objects.extend(feed.full_dumps.iter().map(|dump| Object {
        url: store.object_url(&dump.key),
        key: dump.key.clone(),
        bytes: Some(dump.bytes),
        sha256: Some(dump.sha256.clone()),
    }));
    let (feed_id, dataset) = (feed.feed_id.clone(), feed.dataset.clone());
    Ok(Listing { feed_id, dataset, sequence: feed.sequence, objects })
}

/// What a listing needs of a manifest: frames are many, and dropped at once.
struct Listed {
    manifest: ManifestRef,
    parts: Vec<(Key, u64, String)>,
}

impl Listed {
    fn of(reference: &ManifestRef, manifest: &Manifest) -> Listed {
        let parts = manifest.slices.iter().flat_map(|slice| &slice.parts);
        Listed {
            manifest: reference.clone(),
            parts: parts.map(|part| (part.key.clone(), part.stored_bytes, part.sha256.clone())).collect(),
        }
    }
}

fn objects(days: Vec<Listed>, url_of: impl Fn(&Key) -> String) -> Vec<Object> {
    let object = |key: Key, bytes, sha256| Object { url: url_of(&key), key, bytes, sha256 };
    let mut objects = vec![object(Key::feed(), None, None)];
    for Listed { manifest, parts } in days {
        let sums = sums_beside(&manifest.key);
        objects.push(object(manifest.key, None, Some(manifest.sha256)));
        objects.push(object(sums, None, None));
        objects.extend(parts.into_iter().map(|(key, bytes, sha256)| object(key, Some(bytes), Some(sha256))));
    }
    objects
}

impl Listing {
    /// Sizes and names; a dash where the feed records no size.
    pub fn lines(&self) -> Vec<String> {
        let row = |object: &Object| [object.bytes.map_or("-".into(), human_bytes), object.key.to_string()];
        aligned([Align::Right, Align::Left], &self.objects.iter().map(row).collect::<Vec<_>>())
    }

    /// Addresses, one per line: what a downloader reads.
    pub fn urls(&self) -> Vec<String> {
        self.objects.iter().map(|object| object.url.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;
    use crate::error::{Class, class_of};
    use crate::manifest::State::{Final, Provisional};
    use crate::retention::fixtures::{PART_BYTES, TABLES, day, feed_of, full_dump, instant, manifest};
    use crate::retention::memory::MemoryStore;

    /// 2024-05-01, a hole of two days, 2024-05-04; published at the end of the latter.
    fn feed() -> Feed {
        feed_of(&[("2024-05-01", Final), ("2024-05-04", Provisional)])
    }

    fn at(now: &str) -> Status {
        status(&feed(), Zone::UTC, instant(now), None)
    }

    #[test]
    fn the_json_is_the_published_contract() {
        let applied = BTreeMap::from([(day("2024-05-01"), 1)]);
        let mut feed = feed();
        feed.full_dumps.push(full_dump("full/a.dump", "2024-05-02T00:20:00Z"));
        let status = status(&feed, Zone::UTC, instant("2024-05-06T07:00:00Z"), Some(&applied));
        let tables: serde_json::Value = TABLES
            .map(|table| (format!("public.{table}"), json!({"rows": 10, "bytes": PART_BYTES})))
            .into_iter()
            .collect();
        assert_eq!(
            serde_json::to_value(&status).expect("JSON"),
            json!({
                "format": 1, "feed_id": "f00d", "dataset": "datanommer", "timezone": "UTC", "sequence": 3,
                "published_at": "2024-05-05T00:00:00Z", "oldest": "2024-05-01", "newest": "2024-05-04", "lag_days": 1,
                "missing": ["2024-05-02", "2024-05-03"],
                "days": [
                    {"day": "2024-05-01", "revision": 1, "state": "final", "rows": 30, "bytes": 120,
                     "tables": tables, "applied_revision": 1},
                    {"day": "2024-05-04", "revision": 1, "state": "provisional", "rows": 30, "bytes": 120,
                     "tables": tables, "applied_revision": null},
                ],
                "full_dumps": [
                    {"key": "full/a.dump", "bytes": 1_000, "sha256": "0".repeat(64), "contains_through": "2024-05-01",
                     "published_at": "2024-05-02T00:20:00Z", "taken_at": "2024-05-02T00:20:00Z"},
                ],
            })
        );
    }

    #[test]
    fn yesterday_is_the_one_of_the_datasets_zone() {
        let late = instant("2024-05-05T23:00:00Z");
        let lag = |zone: &str| status(&feed(), zone.parse().expect("a zone"), late, None).lag_days;
        assert_eq!(lag("UTC"), Some(0));
        assert_eq!(lag("Europe/Paris"), Some(1), "in Paris it is the 6th");
        assert_eq!(lag("America/New_York"), Some(0));
    }

    #[test]
    fn a_feed_without_days_has_no_lag_and_no_table() {
        let empty = status(&feed_of(&[]), Zone::UTC, instant("2024-05-01T03:12:00Z"), None);
        assert_eq!((empty.lag_days, empty.oldest, empty.newest), (None, None, None));
        assert_eq!(
            empty.lines(),
            [
                "datanommer: no days published yet (UTC)",
                "published 2024-05-01 00:00 UTC, 3 h 12 min ago; fresh until 2024-05-02 12:00 UTC",
            ]
        );
    }

    #[test]
    fn people_see_freshness_lag_and_gaps_before_the_days() {
        let lines = at("2024-05-06T13:00:00Z").lines();
        assert_eq!(
            lines,
            [
                "datanommer: 2 days, 2024-05-01 to 2024-05-04 (UTC)",
                "published 2024-05-05 00:00 UTC, 1 d 13 h ago; STALE since 2024-05-06 12:00 UTC",
                "newest day 2024-05-04 is 1 day behind yesterday",
                "missing: 2024-05-02 to 2024-05-03",
                "",
                "day         revision  state        rows   size",
                "2024-05-01  r1        final          30  120 B",
                "2024-05-04  r1        provisional    30  120 B",
                "",
                "table            rows   size",
                "public.messages    20   80 B",
                "public.packages    20   80 B",
                "public.users       20   80 B",
                "all                60  240 B",
            ]
        );
    }

    #[test]
    fn full_dumps_are_told_with_the_days_that_they_contain() {
        let mut feed = feed();
        feed.full_dumps.push(full_dump("full/a.dump", "2024-05-02T00:20:00Z"));
        feed.full_dumps.push(full_dump("full/early.dump", "2024-04-30T00:20:00Z"));
        let lines = status(&feed, Zone::UTC, instant("2024-05-06T07:00:00Z"), None).lines();
        assert_eq!(
            lines[lines.len() - 3..],
            [
                "full dump        taken                 days up to    size",
                "full/a.dump      2024-05-02 00:20 UTC  2024-05-01  1.0 kB",
                "full/early.dump  2024-04-30 00:20 UTC  -           1.0 kB",
            ]
        );
    }

    #[test]
    fn a_feed_is_stale_after_valid_until_not_at_it() {
        let valid_until = feed().valid_until;
        let verdict = |now| status(&feed(), Zone::UTC, now, None).lines()[1].contains("STALE");
        assert!(!verdict(valid_until));
        assert!(verdict(valid_until + TimeDelta::seconds(1)));
    }

    #[test]
    fn what_the_replica_lacks_is_pending_also_when_it_holds_an_older_revision() {
        let now = instant("2024-05-05T07:00:00Z");
        let told = |applied: &[(&str, u32)]| {
            let applied = applied.iter().map(|(text, revision)| (day(text), *revision)).collect();
            status(&feed(), Zone::UTC, now, Some(&applied)).lines()
        };
        let of_the_replica = |lines: &[String]| lines.iter().find(|line| line.starts_with("replica")).cloned();
        let all = told(&[("2024-05-01", 1), ("2024-05-04", 1)]);
        assert_eq!(of_the_replica(&all).as_deref(), Some("replica: holds 2 of 2 published days"));
        let some = told(&[("2024-04-30", 1), ("2024-05-04", 7)]);
        let expected = "replica: holds 0 of 2 published days; pending: 2024-05-01, 2024-05-04; \
            and 1 day that the feed no longer has";
        assert_eq!(of_the_replica(&some).as_deref(), Some(expected));
        assert!(some.iter().any(|line| line == "2024-05-01  r1        final          30  120 B  -"));
        assert!(some.iter().any(|line| line == "2024-05-04  r1        provisional    30  120 B  r7"));
        assert_eq!(of_the_replica(&at("2024-05-05T07:00:00Z").lines()), None, "no replica was asked");
    }

    #[test]
    fn objects_are_listed_as_they_are_published_and_carried_parts_where_they_lie() {
        let first = manifest(day("2024-05-01"), 1, Final, "00000001", [None; TABLES.len()]);
        let second = manifest(day("2024-05-01"), 2, Final, "00000002", [Some(&first.1), None, None]);
        let objects = objects(vec![Listed::of(&second.0, &second.1)], |key| format!("https://feed.example/{key}"));
        let listing = Listing { feed_id: "f00d".into(), dataset: "d".into(), sequence: 3, objects };
        assert_eq!(
            listing.lines(),
            [
                "   -  feed.json",
                "   -  2024-05-01/r2-00000002/manifest.json",
                "   -  2024-05-01/r2-00000002/SHA256SUMS",
                "40 B  2024-05-01/r1-00000001/public.messages-2024-05-01.copy.zst",
                "40 B  2024-05-01/r2-00000002/public.users-2024-05-01.copy.zst",
                "40 B  2024-05-01/r2-00000002/public.packages-2024-05-01.copy.zst",
            ]
        );
        assert_eq!(listing.urls()[2], "https://feed.example/2024-05-01/r2-00000002/SHA256SUMS");
        assert_eq!(listing.objects[1].sha256, Some(second.0.sha256));
        assert_eq!(listing.objects[3].sha256, Some("0".repeat(64)));
    }

    #[tokio::test]
    async fn a_listing_reads_the_head_and_the_manifests_and_refuses_a_foreign_one() {
        let (reference, manifest) = manifest(day("2024-05-01"), 1, Final, "00000001", [None; TABLES.len()]);
        let memory = Arc::new(MemoryStore::default());
        let store: SharedStore = Arc::<MemoryStore>::clone(&memory);
        assert_eq!(class_of(&list(&store).await.expect_err("no feed")), Class::Usage);
        let mut feed = feed_of(&[("2024-05-01", Final)]);
        feed.full_dumps.push(full_dump("full/a.dump", "2024-05-02T00:20:00Z"));
        memory.hold(&feed, &[(reference.clone(), manifest)]);
        let listing = list(&store).await.expect("listed");
        assert_eq!(listing.objects.len(), 1 + 2 + TABLES.len() + 1);
        assert_eq!(listing.objects.last().map(|object| object.url.as_str()), Some("memory:/full/a.dump"));
        assert_eq!(listing.objects[0].url, "memory:/feed.json");
        assert_eq!(serde_json::to_value(&listing.objects[0]).expect("JSON")["bytes"], json!(null));
        memory.memory().objects.insert(reference.key, "{}".into());
        assert_eq!(class_of(&list(&store).await.expect_err("damaged")), Class::Integrity);
    }
}
