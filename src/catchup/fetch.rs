//! Verified rows from the store: ranges ahead of the consumer, decoded on a thread of their own.
//!
//! | hand | where | hands on |
//! |---|---|---|
//! | fetcher | tasks | ranges of whole frames, up to 4 MiB stored unless one frame is larger, four at a time in order |
//! | decoder | blocking thread | the rows of one frame, held against the manifest, when they are asked for |
//! | consumer | the caller's thread | |
//!
//! Memory: 12 MiB of ranges, unless one range is larger, and 2 frames of rows. Every frame is checked before its rows are handed on; the part's SHA-256
//! and the slice's totals are checked at its end, so a consumer must not commit before [`Rows::pull`] said `None`. A
//! queue that ends without that word is an error.
//!
//! A [`Supply`] begins with the next slice while the rows of one are consumed, and whatever is done between them: 4 MiB
//! of ranges and a frame of rows are there when the next one is wanted. What goes wrong with them is told then, and not
//! before.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Context;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc as tasks};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::codec::{Decoder, RowFormat, Tally};
use crate::error::{Class, Failure};
use crate::manifest::{FRAME_RAW_BYTES, Frame, Part, Slice};
use crate::store::{SharedStore, StoreError};

/// Stored bytes per read, unless one frame is larger.
const RANGE_BYTES: u64 = 4 << 20;
/// Ranges that are being read, or are read and wait for the decoder.
const AHEAD: usize = 4;
/// Their bytes together; a range that is larger passes alone.
const AHEAD_BYTES: u32 = 12 << 20;
/// The same as long as the slice is not wanted yet; its first range passes alone.
const EARLY_BYTES: u32 = 4 << 20;

/// The rows of one slice, frame by frame.
pub struct Rows {
    received: Receiver<Event>,
    ended: bool,
    room: Arc<Semaphore>,
    /// Stops everything behind it.
    _running: DropGuard,
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
        let rows = Rows::early(&Arc::new(slice.clone()), store, runtime);
        rows.hurry();
        rows
    }

    /// As [`Rows::of`], and no further than the first rows before [`Rows::hurry`].
    fn early(slice: &Arc<Slice>, store: &SharedStore, runtime: &Handle) -> Rows {
        // One range is in the decoder's hand.
        let (ranges_in, ranges_out) = tasks::channel(AHEAD - 1);
        let (events_in, events_out) = sync_channel(0);
        let (room, stopped) = (Arc::new(Semaphore::new(EARLY_BYTES as usize)), CancellationToken::new());
        let running = stopped.clone().drop_guard();
        let (store, fetched, room_of_ranges) = (Arc::clone(store), Arc::clone(slice), Arc::clone(&room));
        let fetching = stopped.clone();
        runtime.spawn(async move {
            // The decoder sees the end of its ranges.
            fetching.run_until_cancelled(fetch(store, &fetched.parts, &ranges_in, room_of_ranges)).await;
        });
        let (slice, handle) = (Arc::clone(slice), runtime.clone());
        runtime.spawn_blocking(move || {
            let source = Source { ranges: ranges_out, runtime: handle, stopped };
            let last = match decode(&slice, source, &events_in) {
                Ok(()) => Event::Complete,
                Err(error) => Event::Failed(error),
            };
            // The consumer may be gone; then nobody waits for the verdict.
            let _ = events_in.send(last);
        });
        Rows { received: events_out, ended: false, room, _running: running }
    }

    /// The slice is wanted now.
    fn hurry(&self) {
        self.room.add_permits((AHEAD_BYTES - EARLY_BYTES) as usize);
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

/// The rows of slices that are loaded one after the other.
pub struct Supply {
    store: SharedStore,
    runtime: Handle,
    early: Option<(Arc<Slice>, Rows)>,
}

impl Supply {
    /// From a store, by tasks of a runtime.
    pub fn new(store: SharedStore, runtime: Handle) -> Supply {
        Supply { store, runtime, early: None }
    }

    /// The rows of a slice that is wanted now, whether it was begun with or not.
    pub fn take(&mut self, slice: &Slice) -> Rows {
        match self.early.take_if(|(of, _)| **of == *slice) {
            Some((_, rows)) => {
                rows.hurry();
                rows
            }
            None => Rows::of(slice, &self.store, &self.runtime),
        }
    }

    /// Begins with a slice that will be wanted next, unless its first row is a huge one: there may be one in memory
    /// already. Of another slice that was begun with nothing is left.
    pub fn begin(&mut self, slice: &Slice) {
        let mut frames = slice.parts.iter().flat_map(|part| &part.frames);
        let is_small = frames.find(|frame| frame.rows > 0).is_none_or(|frame| frame.raw_bytes <= FRAME_RAW_BYTES);
        if is_small && self.early.as_ref().is_none_or(|(of, _)| **of != *slice) {
            let slice = Arc::new(slice.clone());
            let rows = Rows::early(&slice, &self.store, &self.runtime);
            self.early = Some((slice, rows));
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

async fn fetch(store: SharedStore, parts: &[Part], ranges_in: &tasks::Sender<Range>, room: Arc<Semaphore>) {
    let mut most = EARLY_BYTES;
    for (index, part) in parts.iter().enumerate() {
        for frames in ranges(part) {
            let offset = part.frames.get(frames.start).map_or(0, |frame| frame.offset);
            let length = part.frames[frames.clone()].iter().map(|frame| frame.stored_bytes).sum();
            let share = u32::try_from(length).unwrap_or(u32::MAX).min(most);
            most = AHEAD_BYTES;
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

/// Where a decoder gets its ranges from.
struct Source {
    ranges: tasks::Receiver<Range>,
    runtime: Handle,
    stopped: CancellationToken,
}

impl Source {
    /// The next range and its bytes.
    fn next(&mut self, part: &Part) -> anyhow::Result<(Range, Bytes)> {
        let mut range = self.ranges.blocking_recv().with_context(|| format!("the fetcher of {} stopped", part.key))?;
        let read = self.runtime.block_on(self.stopped.run_until_cancelled(&mut range.reading));
        let bytes = read.context("nobody waits for the slice any more")??.map_err(|error| unreadable(part, error))?;
        Ok((range, bytes))
    }
}

fn decode(slice: &Slice, mut source: Source, events: &SyncSender<Event>) -> anyhow::Result<()> {
    let mut decoder = Decoder::new(RowFormat::new(slice.format, &slice.columns))?;
    let mut tally = Tally::default();
    let mut hasher = Sha256::new();
    for (index, part) in slice.parts.iter().enumerate() {
        let mut next = 0;
        while next < part.frames.len() {
            let (range, bytes) = source.next(part)?;
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

#[cfg(test)]
mod tests;
