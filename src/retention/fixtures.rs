//! Feeds and manifests for tests: three tables, one part each, any of which may be carried from another revision.

use chrono::{DateTime, TimeDelta, Utc};

use crate::codec::RowsDigest;
use crate::config::RetentionConfig;
use crate::day::{Day, Zone};
use crate::feed::{DayEntry, DumpMoment, Feed, FullDump, ManifestRef, Pulse, SourceIdentity};
use crate::layout::{AttemptDirectory, Key, Layout};
use crate::manifest::{Column, Frame, Manifest, Part, Slice, SliceFormat, SliceKind, State, Taken};
use sha2::{Digest, Sha256};

/// The tables of every day.
pub(crate) const TABLES: [&str; 3] = ["messages", "users", "packages"];
/// The stored size of every part.
pub(crate) const PART_BYTES: u64 = 40;
/// The rows of every slice.
pub(crate) const SLICE_ROWS: u64 = 10;

pub(crate) fn day(text: &str) -> Day {
    text.parse().expect("a day")
}

pub(crate) fn instant(text: &str) -> DateTime<Utc> {
    text.parse().expect("an instant")
}

pub(crate) fn rules(keep_days: u64, min_complete: usize, grace_hours: i64) -> RetentionConfig {
    RetentionConfig { keep_days, min_complete, grace: TimeDelta::hours(grace_hours) }
}

pub(crate) fn empty_feed() -> Feed {
    let now = instant("2024-05-01T00:00:00Z");
    Feed::empty("f00d".into(), "datanommer".into(), "UTC".into(), "a".into(), now)
}

pub(crate) fn source() -> SourceIdentity {
    SourceIdentity { system_identifier: "7".into(), timeline: 1 }
}

/// A full dump of which only the time is known.
pub(crate) fn full_dump(key: &str, taken_at: &str) -> FullDump {
    FullDump {
        key: Key::stream(key).expect("a stream"),
        bytes: 1_000,
        sha256: "0".repeat(64),
        published_at: instant(taken_at),
        moment: DumpMoment::at(instant(taken_at)),
        tables: Vec::new(),
    }
}

/// A manifest in a directory of its own; the slice of each table of `carried` keeps its parts from there.
pub(crate) fn manifest(
    day: Day,
    revision: u32,
    state: State,
    attempt: &str,
    carried: [Option<&Manifest>; 3],
) -> (ManifestRef, Manifest) {
    let directory = AttemptDirectory::new(Layout::Flat, day, revision, attempt);
    let taken = Taken {
        exported_at: Zone::UTC.window(day).end,
        snapshot: "1:1:".into(),
        lsn: "0/1".into(),
        system_identifier: "7".into(),
        timeline: 1,
    };
    let slices = TABLES
        .iter()
        .zip(carried)
        .enumerate()
        .map(|(index, (table, carried))| match carried {
            Some(manifest) => Slice { taken: Some(taken.clone()), ..manifest.slices[index].clone() },
            None => slice(&directory, table),
        })
        .collect();
    let manifest = Manifest {
        format: 1,
        feed_id: "f00d".into(),
        dataset: "datanommer".into(),
        day,
        window: Zone::UTC.window(day),
        timezone: "UTC".into(),
        revision,
        state,
        taken,
        server_version: "17".into(),
        pgslice_version: "0".into(),
        slices,
    };
    let sha256 = hex::encode(Sha256::digest(manifest.to_bytes()));
    (ManifestRef { key: directory.manifest(), sha256 }, manifest)
}

fn slice(directory: &AttemptDirectory, table: &str) -> Slice {
    let frame = Frame { offset: 0, stored_bytes: PART_BYTES, raw_bytes: 100, rows: SLICE_ROWS };
    Slice {
        schema: "public".into(),
        table: table.into(),
        kind: SliceKind::All,
        columns: vec![Column {
            name: "id".into(),
            type_schema: "pg_catalog".into(),
            type_name: "int4".into(),
            typmod: -1,
            nullable: false,
            made_of: crate::manifest::MadeOf::default(),
        }],
        omitted_columns: Vec::new(),
        key: vec!["id".into()],
        time: None,
        filtered: false,
        excluded_rows: 0,
        format: SliceFormat::Text,
        rows: SLICE_ROWS,
        raw_bytes: 100,
        stored_bytes: PART_BYTES,
        min_time: None,
        max_time: None,
        rows_digest: RowsDigest::default(),
        detect: None,
        taken: None,
        parts: vec![Part {
            key: directory.parts("public", table, SliceFormat::Text).key(1),
            stored_bytes: PART_BYTES,
            sha256: "0".repeat(64),
            frames: vec![frame],
        }],
    }
}

/// A feed with these days, each at revision 1.
pub(crate) fn feed_of(days: &[(&str, State)]) -> Feed {
    days.iter().fold(empty_feed(), |feed, (text, state)| {
        let (reference, manifest) = manifest(day(text), 1, *state, "00000001", [None; 3]);
        let next = feed.with_day(DayEntry::of(&manifest, reference), source(), manifest.taken.exported_at);
        next.next_version("a".into(), Pulse::Beat(manifest.taken.exported_at))
    })
}
