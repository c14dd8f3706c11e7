//! The head, the manifests, the checksum files and the sizes of parts, held together. Nothing of a part is read.

use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinSet;

use super::LevelReport;
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, FullDump};
use crate::layout::{Key, sums_beside};
use crate::manifest::{self, Manifest};
use crate::store::{SharedStore, StoreError};

/// Sizes that are asked for at the same time.
const ASKED: usize = 16;

/// Looks at the objects of a day whose manifest is the one that the head names.
///
/// # Errors
/// The store's, unless they say that an object is not as published.
pub(super) async fn check(
    store: &SharedStore,
    entry: &DayEntry,
    manifest: &Manifest,
    report: &mut LevelReport,
) -> anyhow::Result<()> {
    report.objects += 1;
    if let Err(error) = check_sums(store, entry, manifest).await {
        report.take(entry.day, None, error)?;
    }
    report.objects += 1;
    let parts =
        manifest.slices.iter().enumerate().flat_map(|(index, slice)| {
            slice.parts.iter().map(move |part| (index, part.key.clone(), part.stored_bytes))
        });
    for (index, key, bytes, outcome) in sizes(store, parts).await? {
        report.objects += 1;
        match outcome.map_err(Into::into).and_then(|found| Ok(judge_size(&key, bytes, found)?)) {
            Ok(()) => report.bytes += bytes,
            Err(error) => report.take(entry.day, manifest.slices.get(index), error)?,
        }
    }
    report.slices += manifest.slices.len() as u64;
    report.rows += manifest.rows();
    Ok(())
}

/// Is a full dump there, as large as it was?
///
/// # Errors
/// Class Integrity when it is not; the store's.
pub(super) async fn check_dump(store: &SharedStore, dump: &FullDump, report: &mut LevelReport) -> anyhow::Result<()> {
    report.objects += 1;
    let found = store.size(&dump.key).await?;
    judge_size(&dump.key, dump.bytes, found)?;
    report.bytes += dump.bytes;
    Ok(())
}

/// SHA256SUMS says of the parts what the manifest says: downloaders go by it.
async fn check_sums(store: &SharedStore, entry: &DayEntry, manifest: &Manifest) -> anyhow::Result<()> {
    let key = sums_beside(&entry.manifest.key);
    let found = store.read(&key, manifest::MAX_BYTES).await.context("cannot read the checksums")?;
    let (content, _) = found.ok_or(StoreError::NotFound(key.clone()))?;
    if content == manifest.sums(&entry.manifest.key) {
        return Ok(());
    }
    Err(Failure::new(Class::Integrity, format!("{key} has other checksums than the manifest")).into())
}

/// What became of a question for the size of a slice's part.
type Asked = (usize, Key, u64, Result<Option<u64>, StoreError>);

/// The sizes of parts, in no order; each comes with the index of its slice, its key and its published size.
async fn sizes(store: &SharedStore, parts: impl Iterator<Item = (usize, Key, u64)>) -> anyhow::Result<Vec<Asked>> {
    let (mut waiting, mut asking, mut told) = (parts, JoinSet::new(), Vec::new());
    loop {
        while asking.len() < ASKED
            && let Some((index, key, bytes)) = waiting.next()
        {
            let store = Arc::clone(store);
            asking.spawn(async move {
                let size = store.size(&key).await;
                (index, key, bytes, size)
            });
        }
        match asking.join_next().await {
            Some(asked) => told.push(asked?),
            None => break,
        }
    }
    told.sort_by(|a: &Asked, b: &Asked| a.1.cmp(&b.1));
    Ok(told)
}

fn judge_size(key: &Key, published: u64, found: Option<u64>) -> Result<(), StoreError> {
    match found {
        Some(size) if size == published => Ok(()),
        Some(size) => {
            let problem = format!("has {size} bytes, {published} are published");
            Err(StoreError::Size { key: key.clone(), problem })
        }
        None => Err(StoreError::NotFound(key.clone())),
    }
}
