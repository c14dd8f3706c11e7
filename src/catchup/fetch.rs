//! Verified rows from the store: ranges ahead of the consumer, decoded on a thread of their own.
//!
//! | hand | where | hands on |
//! |---|---|---|
//! | fetcher | tasks | ranges of whole frames, up to 4 MiB stored unless one frame is larger, four at a time in order |
//! | decoder | blocking thread | the rows of one frame, held against the manifest; queue of 1 |
//! | consumer | the caller's thread | |
//!
//! Memory: 16 MiB of ranges, unless one range is larger, and 3 frames of rows. Every frame is checked before its rows are handed on; the part's SHA-256
//! and the slice's totals are checked at its end, so a consumer must not commit before [`Rows::pull`] said `None`. A
//! queue that ends without that word is an error.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc as tasks};
use tokio_util::task::AbortOnDropHandle;

use crate::codec::{Decoder, RowFormat, Tally};
use crate::error::{Class, Failure};
use crate::manifest::{Frame, Part, Slice};
use crate::store::{SharedStore, StoreError};

/// Stored bytes per read, unless one frame is larger.
const RANGE_BYTES: u64 = 4 << 20;
/// Ranges that are being read, or are read and wait for the decoder.
const AHEAD: usize = 4;
/// Their bytes together; a range that is larger passes alone.
const AHEAD_BYTES: u32 = 16 << 20;

/// The rows of one slice, frame by frame.
pub struct Rows {
    received: Receiver<Event>,
    ended: bool,
}

enum Event {
    Rows(Vec<u8>),
    /// Everything was handed on, and all of it was right.
    Complete,
    Failed(anyhow::Error),
}

impl Rows {
    /// Starts fetching. Dropping the result stops it.
    pub fn of(slice: &Slice, store: &SharedStore, runtime: &Handle) -> Rows {
        // One range is in the decoder's hand.
        let (ranges_in, ranges_out) = tasks::channel(AHEAD - 1);
        let (events_in, events_out) = sync_channel(1);
        let (store, slice) = (Arc::clone(store), Arc::new(slice.clone()));
        let fetched = Arc::clone(&slice);
        runtime.spawn(async move { fetch(store, &fetched.parts, &ranges_in).await });
        let handle = runtime.clone();
        runtime.spawn_blocking(move || {
            let last = match decode(&slice, ranges_out, &handle, &events_in) {
                Ok(()) => Event::Complete,
                Err(error) => Event::Failed(error),
            };
            // The consumer may be gone; then nobody waits for the verdict.
            let _ = events_in.send(last);
        });
        Rows { received: events_out, ended: false }
    }

    /// The next rows, whole ones and nothing around them; `None` when the slice is complete and verified.
    ///
    /// # Errors
    /// The store's; class Integrity when anything differs from the manifest.
    pub fn pull(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        match self.received.recv() {
            Ok(Event::Rows(rows)) => Ok(Some(rows)),
            Ok(Event::Complete) => {
                self.ended = true;
                Ok(None)
            }
            Ok(Event::Failed(error)) => Err(error),
            Err(_) => Err(anyhow::anyhow!("the decoder of a slice stopped without a verdict")),
        }
    }
}

/// A run of whole frames of one part, on its way.
struct Range {
    part: usize,
    frames: std::ops::Range<usize>,
    reading: AbortOnDropHandle<Result<Bytes, StoreError>>,
    _room: Option<OwnedSemaphorePermit>,
}

fn ranges(part: &Part) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, frame) in part.frames.iter().enumerate() {
        if index > start && bytes + frame.stored_bytes > RANGE_BYTES {
            ranges.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += frame.stored_bytes;
    }
    ranges.push(start..part.frames.len());
    ranges
}

async fn fetch(store: SharedStore, parts: &[Part], ranges_in: &tasks::Sender<Range>) {
    let room = Arc::new(Semaphore::new(AHEAD_BYTES as usize));
    for (index, part) in parts.iter().enumerate() {
        for frames in ranges(part) {
            let offset = part.frames.get(frames.start).map_or(0, |frame| frame.offset);
            let length = part.frames[frames.clone()].iter().map(|frame| frame.stored_bytes).sum();
            let share = u32::try_from(length).unwrap_or(u32::MAX).min(AHEAD_BYTES);
            // Never closed.
            let room = Arc::clone(&room).acquire_many_owned(share).await.ok();
            // The decoder stops at the first failure; nothing is asked for after that.
            let Ok(slot) = ranges_in.reserve().await else { return };
            let (store, key) = (Arc::clone(&store), part.key.clone());
            let reading = tokio::spawn(async move { store.read_range(&key, offset, length).await });
            slot.send(Range { part: index, frames, reading: AbortOnDropHandle::new(reading), _room: room });
        }
    }
}

fn decode(
    slice: &Slice,
    mut ranges: tasks::Receiver<Range>,
    runtime: &Handle,
    events: &SyncSender<Event>,
) -> anyhow::Result<()> {
    let mut decoder = Decoder::new(RowFormat::new(slice.format, &slice.columns))?;
    let mut tally = Tally::default();
    let mut hasher = Sha256::new();
    for (index, part) in slice.parts.iter().enumerate() {
        let mut next = 0;
        while next < part.frames.len() {
            let range = ranges.blocking_recv().ok_or_else(|| anyhow::anyhow!("the fetcher of {} stopped", part.key))?;
            let bytes = runtime.block_on(range.reading)?.map_err(|error| unreadable(part, error))?;
            anyhow::ensure!(range.part == index && range.frames.start == next, "ranges of {} out of order", part.key);
            hasher.update(&bytes);
            let base = part.frames[next].offset;
            for frame in &part.frames[range.frames.clone()] {
                let mut rows = Vec::new();
                let stored = cut(&bytes, base, frame).ok_or_else(|| damaged(part, "is shorter than its frames"))?;
                let decoded =
                    decoder.frame(stored, frame, &mut rows).map_err(|error| damaged(part, &error.to_string()))?;
                tally = tally.union(decoded);
                if !rows.is_empty() && events.send(Event::Rows(rows)).is_err() {
                    return Ok(());
                }
            }
            next = range.frames.end;
        }
        let sha256 = hex::encode(hasher.finalize_reset());
        if sha256 != part.sha256 {
            return Err(damaged(part, &format!("has sha256 {sha256}, the manifest says {}", part.sha256)));
        }
    }
    let expected = Tally { rows: slice.rows, raw_bytes: slice.raw_bytes, digest: slice.rows_digest };
    if tally != expected {
        let problem = format!(
            "{} rows with digest {}, the manifest says {} with {}",
            tally.rows, tally.digest, expected.rows, expected.digest
        );
        return Err(Failure::new(Class::Integrity, format!("{}: {problem}", slice.qualified_name()))
            .meaning("nothing of the day was kept on the replica")
            .next("the publisher should run `pgslice export --date … --force`")
            .into());
    }
    Ok(())
}

fn cut<'a>(bytes: &'a Bytes, base: u64, frame: &Frame) -> Option<&'a [u8]> {
    let start = usize::try_from(frame.offset - base).ok()?;
    let end = start.checked_add(usize::try_from(frame.stored_bytes).ok()?)?;
    bytes.get(start..end)
}

fn unreadable(part: &Part, error: StoreError) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("cannot read {}", part.key))
}

fn damaged(part: &Part, problem: &str) -> anyhow::Error {
    Failure::new(Class::Integrity, format!("{} {problem}", part.key))
        .meaning("nothing of the day was kept on the replica")
        .next("run again; if it repeats, the object is damaged and the publisher should run `pgslice export --date … --force`")
        .into()
}
