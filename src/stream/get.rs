//! `pgslice get`: an object below `full/` to wherever its bytes are written.
//!
//! What feed.json records is held against its size and SHA-256, but only when all of it has been written: a consumer
//! must look at the exit code. Of an object that is not recorded only its end is known.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Class, Failure};
use crate::feed::FullDump;
use crate::figures::human_bytes;
use crate::head;
use crate::layout::Key;
use crate::pg::PgError;
use crate::progress::Progress;
use crate::store::{SharedStore, Store, StoreError};

/// Bytes per read.
const RANGE_BYTES: u64 = 4 << 20;
/// Ranges that are being read, or are read and wait. Memory: so many ranges, and one that is being written.
const AHEAD: usize = 4;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetReport {
    /// The object.
    pub key: Key,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes in hex.
    pub sha256: String,
    /// What it was held against.
    pub proof: Proof,
}

/// What an object was held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Size and SHA-256 of feed.json.
    Recorded,
    /// Nothing: the feed does not record it.
    None,
}

/// Writes the object of that name to `output`.
///
/// # Errors
/// Class Usage when there is no such object and none is recorded; class Integrity when it is not what feed.json
/// records, where all or a part of it may have been written; class Other when the output is closed; the store's.
pub async fn get(
    store: &SharedStore,
    key: &Key,
    output: impl Write + Send + 'static,
    cancel: &CancellationToken,
    progress: &Progress,
) -> anyhow::Result<GetReport> {
    let feed = head::read(&**store).await?.map(|(feed, _)| feed);
    let recorded = feed.as_ref().and_then(|feed| feed.full_dump(key)).cloned();
    progress.begin(&format!("get {key}"));
    let mut sink = Sink { output: Some(output), sha256: Sha256::new(), bytes: 0, progress: progress.clone() };
    let passing = async {
        match &recorded {
            Some(dump) => pass_recorded(store, dump, &mut sink).await,
            None => pass_unrecorded(&**store, key, &mut sink).await.map_err(|error| {
                let known = feed.iter().flat_map(|feed| &feed.full_dumps).map(|dump| dump.key.to_string());
                not_there(key, &known.collect::<Vec<_>>(), error)
            }),
        }
    };
    cancel.run_until_cancelled(Box::pin(passing)).await.unwrap_or_else(|| Err(PgError::Cancelled.into()))?;
    progress.end();
    let (bytes, sha256) = (sink.bytes, hex::encode(sink.sha256.clone().finalize()));
    sink.flush().await?;
    let proof = match recorded {
        Some(dump) if dump.sha256 != sha256 => {
            return Err(damaged(&dump, &format!("has sha256 {sha256}, feed.json says {}", dump.sha256)).into());
        }
        Some(_) => Proof::Recorded,
        None => Proof::None,
    };
    Ok(GetReport { key: key.clone(), bytes, sha256, proof })
}

impl GetReport {
    /// The report in one line, for people.
    pub fn line(&self) -> String {
        let proof = match self.proof {
            Proof::Recorded => "as feed.json records it",
            Proof::None => "which feed.json does not record: it was held against nothing",
        };
        format!("{}: {}, sha256 {}, {proof}", self.key, human_bytes(self.bytes), self.sha256)
    }
}

/// Where the bytes go, and what went there.
struct Sink<W> {
    /// Taken while a piece is being written.
    output: Option<W>,
    sha256: Sha256,
    bytes: u64,
    progress: Progress,
}

impl<W: Write + Send + 'static> Sink<W> {
    async fn write(&mut self, piece: Bytes) -> anyhow::Result<()> {
        self.sha256.update(&piece);
        self.bytes += piece.len() as u64;
        self.progress.add_bytes(piece.len() as u64);
        self.with_output(move |output| output.write_all(&piece)).await
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.with_output(Write::flush).await
    }

    async fn with_output(
        &mut self,
        act: impl FnOnce(&mut W) -> std::io::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut output = self.output.take().context("an earlier write was given up")?;
        let (output, outcome) = spawn_blocking(move || {
            let outcome = act(&mut output);
            (output, outcome)
        })
        .await?;
        self.output = Some(output);
        match outcome {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                Err(Failure::new(Class::Other, "whoever read the output has closed it before the end")
                    .meaning("not all of the object was written")
                    .into())
            }
            outcome => outcome.context("cannot write the output"),
        }
    }
}

async fn pass_recorded<W: Write + Send + 'static>(
    store: &SharedStore,
    dump: &FullDump,
    sink: &mut Sink<W>,
) -> anyhow::Result<()> {
    let refused = |error: StoreError| match error {
        StoreError::Size { problem, .. } => damaged(dump, &format!("is too short: {problem}")).into(),
        StoreError::NotFound(_) => damaged(dump, "is not in the store").into(),
        error => anyhow!(error).context(format!("cannot read {}", dump.key)),
    };
    let mut reading: VecDeque<AbortOnDropHandle<Result<Bytes, StoreError>>> = VecDeque::new();
    let mut next = 0;
    loop {
        while reading.len() < AHEAD && next < dump.bytes {
            let (store, key, offset) = (Arc::clone(store), dump.key.clone(), next);
            let length = RANGE_BYTES.min(dump.bytes - offset);
            next += length;
            let range = tokio::spawn(async move { store.read_range(&key, offset, length).await });
            reading.push_back(AbortOnDropHandle::new(range));
        }
        let Some(range) = reading.pop_front() else { break };
        let piece = range.await?.map_err(refused)?;
        sink.write(piece).await?;
    }
    match store.read_range(&dump.key, dump.bytes, 1).await {
        Err(StoreError::Size { .. }) => Ok(()),
        Ok(_) => Err(damaged(dump, &format!("is longer than the {} bytes that feed.json says", dump.bytes)).into()),
        Err(error) => Err(refused(error)),
    }
}

/// No request tells how long an object is, so ranges are asked for until one reaches beyond the end, and the end is
/// found by halving: some twenty requests more, once.
async fn pass_unrecorded<W: Write + Send + 'static>(
    store: &dyn Store,
    key: &Key,
    sink: &mut Sink<W>,
) -> anyhow::Result<()> {
    let mut offset = 0;
    loop {
        match store.read_range(key, offset, RANGE_BYTES).await {
            Ok(piece) => sink.write(piece).await?,
            Err(StoreError::Size { .. }) => break,
            Err(error) => return Err(error.into()),
        }
        offset += RANGE_BYTES;
    }
    let (mut there, mut beyond) = (0, RANGE_BYTES);
    while beyond - there > 1 {
        let middle = there + (beyond - there) / 2;
        match store.read_range(key, offset + middle - 1, 1).await {
            Ok(_) => there = middle,
            Err(StoreError::Size { .. }) => beyond = middle,
            Err(error) => return Err(error.into()),
        }
    }
    if there > 0 {
        sink.write(store.read_range(key, offset, there).await?).await?;
    }
    Ok(())
}

fn damaged(dump: &FullDump, problem: &str) -> Failure {
    Failure::new(Class::Integrity, format!("{} {problem}", dump.key))
        .meaning("WHAT WAS WRITTEN IS NOT THE DUMP: throw it away, whatever was made of it")
        .next("get another full dump; the publisher should put a new one")
}

fn not_there(key: &Key, recorded: &[String], error: anyhow::Error) -> anyhow::Error {
    if !matches!(error.downcast_ref::<StoreError>(), Some(StoreError::NotFound(_))) {
        return error.context(format!("cannot read {key}"));
    }
    let known = match recorded {
        [] => "the feed records no full dump".to_owned(),
        keys => format!("the feed records {}", keys.join(", ")),
    };
    Failure::new(Class::Usage, format!("{key} is not in the store")).next(known).into()
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::config::StoreConfig;
    use crate::feed::Feed;
    use crate::retention::fixtures::{empty_feed, full_dump};
    use crate::store::{self, Access};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    async fn store_in(folder: &std::path::Path) -> SharedStore {
        let url = format!("file://{}", folder.join("store").display());
        store::open(&StoreConfig::at(&url), Access::ReadWrite).await.expect("a store")
    }

    #[tokio::test]
    async fn what_is_recorded_is_held_against_size_and_digest() {
        let content = Bytes::from(vec![7; usize::try_from(RANGE_BYTES).expect("small") + 9]);
        let sha256 = hex::encode(Sha256::digest(&content));
        let dump = FullDump { bytes: content.len() as u64, sha256, ..full_dump("full/a.dump", "2024-05-01T00:00:00Z") };
        let mut flipped = content.to_vec();
        flipped[3] ^= 1;
        let longer = [&content[..], b"x"].concat();
        let cases: [(Bytes, bool); 4] =
            [(content.clone(), true), (flipped.into(), false), (content.slice(1..), false), (longer.into(), false)];
        for (stored, is_sound) in cases {
            let folder = tempfile::tempdir().expect("a folder");
            let store = store_in(folder.path()).await;
            let feed = Feed { full_dumps: vec![dump.clone()], ..empty_feed() };
            store.create(&Key::feed(), feed.to_bytes().into()).await.expect("a head");
            store.create(&dump.key, stored).await.expect("an object");
            let got = get(&store, &dump.key, Shared::default(), &CancellationToken::new(), &Progress::hidden()).await;
            match got {
                Ok(report) => assert!(is_sound && report.proof == Proof::Recorded),
                Err(error) => assert!(!is_sound && crate::error::class_of(&error) == Class::Integrity, "{error:#}"),
            }
        }
    }

    #[tokio::test]
    async fn the_end_of_an_object_that_nobody_recorded_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = store_in(folder.path()).await;
        let range = usize::try_from(RANGE_BYTES).expect("small");
        for (name, length) in
            [("a", 0), ("b", 1), ("c", range - 1), ("d", range), ("e", range + 1), ("f", 2 * range + 7)]
        {
            let content: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).expect("small")).collect();
            let key = Key::stream(&format!("full/{name}")).expect("a stream");
            store.create(&key, content.clone().into()).await.expect("created");
            let output = Shared::default();
            let got = get(&store, &key, output.clone(), &CancellationToken::new(), &Progress::hidden()).await;
            let got = got.expect("all of it");
            assert_eq!((got.bytes, got.proof), (length as u64, Proof::None), "{name}");
            assert!(*output.0.lock().expect("not poisoned") == content, "{name}");
        }
        let missing = Key::stream("full/missing").expect("a stream");
        let refused = get(&store, &missing, Shared::default(), &CancellationToken::new(), &Progress::hidden()).await;
        assert_eq!(crate::error::class_of(&refused.expect_err("not there")), Class::Usage);
    }
}
