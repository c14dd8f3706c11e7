//! A feed that has gone on for years, made without the years: entries and manifests, no rows.

use std::sync::Arc;

use bytes::Bytes;
use pgslice::codec::RowsDigest;
use pgslice::day::{Day, Zone};
use pgslice::feed::{DayEntry, Feed, ManifestRef, Pulse};
use pgslice::layout::{AttemptDirectory, Key, Layout};
use pgslice::manifest::{Column, Frame, MadeOf, Manifest, Part, Slice, SliceFormat, SliceKind, State, Taken};
use pgslice::store::{SharedStore, Swap};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

/// The tables of each day.
pub(crate) const TABLES: [&str; 5] = ["messages", "users_messages", "packages_messages", "users", "packages"];
/// Objects that are written at the same time.
const WRITERS: usize = 16;

/// `feed` with `count` days up to `newest`, and their records.
pub(crate) fn history(feed: Feed, newest: Day, count: u64) -> (Feed, Vec<(ManifestRef, Manifest)>) {
    let records: Vec<_> = (0..count).rev().map(|back| record(&feed, newest.minus(back))).collect();
    let entries = records.iter().map(|(reference, manifest)| DayEntry::of(manifest, reference.clone()));
    let now = feed.published_at;
    (Feed { days: entries.collect(), ..feed }.next_version("f".repeat(32), Pulse::Beat(now)), records)
}

fn record(feed: &Feed, day: Day) -> (ManifestRef, Manifest) {
    let directory = AttemptDirectory::new(Layout::Flat, day, 1, "7f3a9c12");
    let window = Zone::UTC.window(day);
    let taken = Taken {
        exported_at: window.end,
        snapshot: "12345678:12345680:".into(),
        lsn: "1A/2B3C4D5E".into(),
        system_identifier: "7123456789012345678".into(),
        timeline: 1,
    };
    let slices = TABLES.iter().map(|table| slice(&directory, table)).collect();
    let manifest = Manifest {
        format: 1,
        feed_id: feed.feed_id.clone(),
        dataset: feed.dataset.clone(),
        day,
        window,
        timezone: "UTC".into(),
        revision: 1,
        state: State::Final,
        taken,
        server_version: "17".into(),
        pgslice_version: "0".into(),
        slices,
    };
    let sha256 = hex::encode(Sha256::digest(manifest.to_bytes()));
    (ManifestRef { key: directory.manifest(), sha256 }, manifest)
}

fn slice(directory: &AttemptDirectory, table: &str) -> Slice {
    let (rows, raw_bytes, stored_bytes) = (200_000, 8_000_000, 700_000);
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
            made_of: MadeOf::default(),
        }],
        omitted_columns: Vec::new(),
        key: vec!["id".into()],
        time: None,
        filtered: false,
        excluded_rows: 0,
        format: SliceFormat::Text,
        rows,
        raw_bytes,
        stored_bytes,
        min_time: None,
        max_time: None,
        rows_digest: RowsDigest::default(),
        detect: None,
        taken: None,
        parts: vec![Part {
            key: directory.parts("public", table, SliceFormat::Text).key(1),
            stored_bytes,
            sha256: "0".repeat(64),
            frames: vec![Frame { offset: 0, stored_bytes, raw_bytes, rows }],
        }],
    }
}

/// The head that a store has.
pub(crate) async fn head(store: &SharedStore) -> Feed {
    let (bytes, _) = store.read(&Key::feed(), 64 << 20).await.expect("read").expect("a feed");
    Feed::parse(&bytes).expect("a head")
}

/// Puts `feed` in the place of the head that is there, if one is.
pub(crate) async fn publish_head(store: &SharedStore, feed: &Feed) {
    let seen = store.read(&Key::feed(), 64 << 20).await.expect("an answer").map(|(_, version)| version);
    let swap = store.swap(&Key::feed(), seen.as_ref(), Bytes::from(feed.to_bytes())).await.expect("swapped");
    assert_eq!(swap, Swap::Done);
}

/// Creates objects, many at a time.
pub(crate) async fn create_all(store: &SharedStore, objects: impl IntoIterator<Item = (Key, Bytes)>) {
    let mut writing = JoinSet::new();
    for (key, content) in objects {
        if writing.len() == WRITERS {
            writing.join_next().await.expect("one is under way").expect("no panic");
        }
        let store = Arc::clone(store);
        writing.spawn(async move { store.create(&key, content).await.expect("created") });
    }
    writing.join_all().await;
}
