//! What parts hold: everything, against the manifest's digests; or a share of the frames, each against its own record.

use std::str::FromStr;
use std::sync::Arc;

use rand::RngExt;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::LevelReport;
use crate::catchup::fetch::Rows;
use crate::codec::{Decoder, RowFormat};
use crate::error::{Class, Failure};
use crate::feed::FullDump;
use crate::layout::Key;
use crate::manifest::{Frame, Manifest, Slice};
use crate::pg::PgError;
use crate::progress::Progress;
use crate::store::SharedStore;

/// How much of a full dump is read at once.
const DUMP_READ_BYTES: u64 = 8 << 20;
/// Frames of a sample that are read at the same time,
const READ: usize = 4;
/// unless they come to more bytes than that, stored and raw together; a frame that is larger is read alone.
const READ_BYTES: u32 = 64 << 20;

/// Which share of the frames is read, above 0 and at most 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl Share {
    /// Everything.
    pub const ALL: Share = Share(1.0);
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
        match percent {
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(Share(percent / 100.0)),
            _ => Err("a share is more than 0% and at most 100%, such as 5%".into()),
        }
    }
}

/// Reads a day's parts. The whole of a slice is held against its digest and its parts against their checksums; of a
/// share, frames chosen at random are decoded, which finds damage in them, and at least one of each slice.
///
/// # Errors
/// The store's, unless they say that an object is not as published.
pub(super) async fn check(
    store: &SharedStore,
    manifest: &Manifest,
    share: Share,
    report: &mut LevelReport,
    progress: &Progress,
) -> anyhow::Result<()> {
    for slice in &manifest.slices {
        let read = if share == Share::ALL {
            read_whole(store, slice, progress)
                .await
                .map(|()| (slice.parts.len() as u64, slice.stored_bytes, slice.rows))
        } else {
            read_frames(store, slice, share, progress).await
        };
        match read {
            Ok((objects, bytes, rows)) => {
                report.slices += 1;
                report.objects += objects;
                report.bytes += bytes;
                report.rows += rows;
            }
            Err(error) => report.take(manifest.day, Some(slice), error)?,
        }
    }
    Ok(())
}

/// Reads a full dump, as large as it was published, and holds it against its checksum.
///
/// # Errors
/// Class Integrity when it is another; the store's.
pub(super) async fn check_dump(
    store: &SharedStore,
    dump: &FullDump,
    report: &mut LevelReport,
    progress: &Progress,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let (mut offset, mut hasher) = (0, Sha256::new());
    while offset < dump.bytes {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled.into());
        }
        let length = DUMP_READ_BYTES.min(dump.bytes - offset);
        let bytes = store.read_range(&dump.key, offset, length).await?;
        hasher = spawn_blocking(move || {
            hasher.update(&bytes);
            hasher
        })
        .await?;
        progress.add_bytes(length);
        offset += length;
    }
    report.objects += 1;
    report.bytes += dump.bytes;
    let sha256 = hex::encode(hasher.finalize());
    if sha256 == dump.sha256 {
        return Ok(());
    }
    let what = format!("{} has sha256 {sha256}, feed.json says {}", dump.key, dump.sha256);
    Err(Failure::new(Class::Integrity, what).into())
}

async fn read_whole(store: &SharedStore, slice: &Slice, progress: &Progress) -> anyhow::Result<()> {
    let mut rows = Rows::of(slice, store, &Handle::current());
    let progress = progress.clone();
    spawn_blocking(move || {
        while let Some(frame) = rows.pull()? {
            progress.add_bytes(frame.len() as u64);
        }
        Ok(())
    })
    .await?
}

/// Objects, bytes and rows that were read.
async fn read_frames(
    store: &SharedStore,
    slice: &Slice,
    share: Share,
    progress: &Progress,
) -> anyhow::Result<(u64, u64, u64)> {
    let frames: Vec<(Key, Frame)> =
        slice.parts.iter().flat_map(|part| part.frames.iter().map(|frame| (part.key.clone(), *frame))).collect();
    let chosen = choose(frames, share);
    let (mut objects, mut bytes, mut rows) = (Vec::new(), 0, 0);
    let format = RowFormat::new(slice.format, &slice.columns);
    let (mut waiting, mut reading) = (chosen.into_iter(), JoinSet::new());
    let room = Arc::new(Semaphore::new(READ_BYTES as usize));
    loop {
        while reading.len() < READ
            && let Some((key, frame)) = waiting.next()
        {
            let (store, format, room) = (Arc::clone(store), format.clone(), Arc::clone(&room));
            let share = u32::try_from(frame.stored_bytes.saturating_add(frame.raw_bytes)).unwrap_or(u32::MAX);
            reading.spawn(async move {
                // Never closed.
                let _room = room.acquire_many(share.min(READ_BYTES)).await;
                read_frame(&store, format, key, frame).await
            });
        }
        let Some(read) = reading.join_next().await else { break };
        let (key, frame) = read??;
        progress.add_bytes(frame.raw_bytes);
        bytes += frame.stored_bytes;
        rows += frame.rows;
        if !objects.contains(&key) {
            objects.push(key);
        }
    }
    Ok((objects.len() as u64, bytes, rows))
}

async fn read_frame(store: &SharedStore, format: RowFormat, key: Key, frame: Frame) -> anyhow::Result<(Key, Frame)> {
    let stored = store.read_range(&key, frame.offset, frame.stored_bytes).await?;
    let named = key.clone();
    spawn_blocking(move || {
        let decoded = Decoder::new(format)?.frame(&stored, &frame, &mut Vec::new());
        decoded.map_err(|problem| Failure::new(Class::Integrity, format!("{named} {problem}")))?;
        Ok((named, frame))
    })
    .await?
}

/// Each frame with the probability of `share`; one of them if that chose none.
fn choose<T>(mut frames: Vec<T>, share: Share) -> Vec<T> {
    let mut random = rand::rng();
    let mut chosen: Vec<bool> = frames.iter().map(|_| random.random_bool(share.0)).collect();
    if !chosen.contains(&true) && !chosen.is_empty() {
        let one = random.random_range(0..chosen.len());
        chosen[one] = true;
    }
    let mut chosen = chosen.into_iter();
    frames.retain(|_| chosen.next() == Some(true));
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_above_nothing_and_up_to_all() {
        assert_eq!("100%".parse(), Ok(Share::ALL));
        assert_eq!("0.5%".parse(), Ok(Share(0.005)));
        for text in ["", "5", "0%", "-1%", "101%", "NaN%", "%", "five%", "1e400%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_sample_has_about_its_share_of_the_frames_and_never_none() {
        let chosen = choose((0..10_000).collect(), Share(0.05));
        assert!((300..700).contains(&chosen.len()), "{}", chosen.len());
        assert!(chosen.is_sorted());
        assert_eq!(choose(vec![1, 2, 3], Share(1e-9)).len(), 1);
        assert_eq!(choose(Vec::<u8>::new(), Share(0.5)).len(), 0);
    }
}
