use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::codec::{CodecError, Encoder, Gatherer, Piece};
use crate::layout::Key;
use crate::manifest::{SliceFormat, SliceKind};
use crate::store::{Store, Swap, Upload, Version};

/// A store with one object, which notes what is read of it.
struct Shelf {
    object: Bytes,
    read_bytes: Mutex<Vec<u64>>,
    answers: Answers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Always,
    Never,
}

#[async_trait]
impl Store for Shelf {
    fn url(&self) -> String {
        "shelf:".into()
    }

    async fn read_range(&self, _: &Key, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.read_bytes.lock().expect("no test panics while it holds the lock").push(length);
        if self.answers == Answers::Never {
            std::future::pending::<()>().await;
        }
        let place = |byte: u64| usize::try_from(byte).expect("a small object");
        Ok(self.object.slice(place(offset)..place(offset + length)))
    }

    async fn read(&self, key: &Key, _: u64) -> Result<Option<(Bytes, Version)>, StoreError> {
        Err(StoreError::NotFound(key.clone()))
    }

    async fn create(&self, key: &Key, _: Bytes) -> Result<(), StoreError> {
        Err(StoreError::Exists(key.clone()))
    }

    async fn swap(&self, key: &Key, _: Option<&Version>, _: Bytes) -> Result<Swap, StoreError> {
        Err(StoreError::Exists(key.clone()))
    }

    async fn replace(&self, key: &Key, _: Bytes) -> Result<(), StoreError> {
        Err(StoreError::Exists(key.clone()))
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, StoreError> {
        Err(StoreError::Exists(key.clone()))
    }

    async fn delete(&self, _: &[Key]) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Lines that do not compress much, and their slice.
fn slice(lines: u64, key: &str) -> (Slice, Bytes) {
    let format = RowFormat::new(SliceFormat::Text, &[]);
    let (mut parts, mut stored) = (Vec::new(), Vec::new());
    let mut emit = |piece: Piece| -> Result<(), CodecError> {
        match piece {
            Piece::Block(block) => stored.extend_from_slice(&block),
            Piece::End(part) => parts.push(part),
        }
        Ok(())
    };
    let mut gatherer = Gatherer::new(format.clone());
    let mut encoder = Encoder::new(format, 1, u64::MAX).expect("an encoder");
    let mut state = 1_u64;
    for _ in 0..lines {
        let mut line = String::new();
        for _ in 0..64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            line += &format!("{:016x}", state ^ (state >> 29));
        }
        if let Some(chunk) = gatherer.message(format!("{line}\n").as_bytes()).expect("a row") {
            encoder.chunk(&chunk, &mut emit).expect("encoded");
        }
    }
    gatherer.end_copy().expect("an end");
    let (rest, tally) = gatherer.finish();
    if let Some(chunk) = rest {
        encoder.chunk(&chunk, &mut emit).expect("encoded");
    }
    encoder.finish(&mut emit).expect("finished");
    let part = parts.remove(0);
    let slice = Slice {
        schema: "public".into(),
        table: "t".into(),
        kind: SliceKind::Time,
        columns: Vec::new(),
        omitted_columns: Vec::new(),
        key: Vec::new(),
        time: None,
        filtered: false,
        excluded_rows: 0,
        format: SliceFormat::Text,
        rows: tally.rows,
        raw_bytes: tally.raw_bytes,
        stored_bytes: part.stored_bytes,
        min_time: None,
        max_time: None,
        rows_digest: tally.digest,
        detect: None,
        taken: None,
        parts: vec![Part {
            key: key.parse().expect("a key"),
            stored_bytes: part.stored_bytes,
            sha256: part.sha256,
            frames: part.frames,
        }],
    };
    (slice, stored.into())
}

const KEY: &str = "2024-05-01/r1-7f3a9c/public.t-2024-05-01.copy.zst";

fn shelf(object: Bytes, answers: Answers) -> (Arc<Shelf>, Supply) {
    let shelf = Arc::new(Shelf { object, read_bytes: Mutex::default(), answers });
    let store: SharedStore = Arc::clone(&shelf) as SharedStore;
    (shelf, Supply::new(store, Handle::current()))
}

/// How many bytes come out, if all is right.
async fn drained(mut rows: Rows) -> anyhow::Result<u64> {
    tokio::task::spawn_blocking(move || {
        let mut bytes = 0;
        while let Some(block) = rows.pull()? {
            bytes += block.len() as u64;
        }
        Ok(bytes)
    })
    .await?
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_slice_that_is_wanted_next_the_beginning_is_read_and_the_rest_when_it_is_wanted() {
    let (slice, object) = slice(40_000, KEY);
    let (shelf, mut supply) = shelf(object, Answers::Always);
    let read = || shelf.read_bytes.lock().expect("no test panics while it holds the lock").clone();
    assert!(ranges(&slice.parts[0]).len() > 3, "there is more than what is read early");
    supply.begin(&slice);
    supply.begin(&slice);
    while read().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The range in the decoder's hand, and what fits beside it.
    let early: u64 = read().iter().sum();
    assert!(early <= 2 * u64::from(EARLY_BYTES) && early < slice.stored_bytes / 2, "{early} bytes");
    assert_eq!(drained(supply.take(&slice)).await.expect("verified rows"), slice.raw_bytes);
    assert_eq!(read().iter().sum::<u64>(), slice.stored_bytes, "nothing was read twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_guess_does_not_matter() {
    let (wanted, object) = slice(100, KEY);
    let (_shelf, mut supply) = shelf(object, Answers::Always);
    let mut other = wanted.clone();
    other.parts[0].sha256 = "0".repeat(64);
    supply.begin(&other);
    assert_eq!(drained(supply.take(&wanted)).await.expect("verified rows"), wanted.raw_bytes);
    let damage = drained(supply.take(&other)).await.expect_err("what is wrong is told in its turn");
    assert!(format!("{damage:#}").contains("sha256"), "{damage:#}");
}

#[test]
fn nobody_waits_for_a_store_when_the_rows_are_not_wanted_any_more() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (slice, object) = slice(100, KEY);
    let (shelf, mut supply) = runtime.block_on(async { shelf(object, Answers::Never) });
    supply.begin(&slice);
    while shelf.read_bytes.lock().expect("no test panics while it holds the lock").is_empty() {
        std::thread::yield_now();
    }
    drop(supply);
    let (ended, end) = channel();
    // Waits for the decoder's thread.
    std::thread::spawn(move || {
        drop(runtime);
        ended.send(())
    });
    end.recv_timeout(Duration::from_secs(60)).expect("the decoder's thread has ended");
}
