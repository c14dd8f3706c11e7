//! Whether a store will work, by doing to it what export, prune and catchup do.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::Findings;
use crate::config::{Checksum, Config, S3Config, SingleWriter, StoreConfig};
use crate::error::Class;
use crate::feed::Feed;
use crate::head;
use crate::layout::Key;
use crate::store::{self, Access, SharedStore, Store, StoreError, Swap};

/// Writers that race for one object: one must win.
const RACERS: usize = 6;
/// The smallest part that stores accept; the last one may be smaller.
const SMALLEST_PART_BYTES: u64 = 5 << 20;
/// The best first.
const CHECKSUMS: [Checksum; 3] = [Checksum::Crc64Nvme, Checksum::Crc32, Checksum::WhenRequired];
/// Bytes of an object that is read back at most.
const MAX_BYTES: u64 = 1 << 20;

/// Tries the store of `config`: with a source as a publisher writes to it, otherwise as a replica reads it. What is
/// written lies under names of its own and is removed again, but for the object that conditional writes are tried on; the
/// feed is only read.
///
/// The store comes back if it can be opened, with its feed if that can be read.
pub(super) async fn check(config: &Config, report: &mut Findings) -> Option<(SharedStore, Option<Feed>)> {
    let access = if config.source_url.is_some() { Access::ReadWrite } else { Access::ReadOnly };
    let store = match store::open(&config.store, access).await {
        Ok(store) => store,
        Err(error) => {
            let refused = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(StoreError::Other { .. })));
            let other = if refused { other_checksum(&config.store, access).await } else { None };
            match other {
                Some(taken) => report.bad(
                    format!("does not take checksum = \"{}\"", word(config.store.s3.checksum)),
                    format!("say checksum = \"{}\" in [store]", word(taken)),
                    Class::Usage,
                ),
                None => report.failed("cannot be opened", &error),
            }
            return None;
        }
    };
    report.good(format!("{} can be opened", store.url()));
    if access == Access::ReadWrite {
        let names = Names::new();
        let mut created = Vec::new();
        if let Err(error) = writes(&store, &config.store, &names, &mut created, report).await {
            report.failed("cannot be written as an export does", &error);
        }
        match store.delete(&created).await {
            Ok(()) => report.good("objects can be deleted, as prune does"),
            Err(error) => report.failed("objects cannot be deleted, as prune does", &error.into()),
        }
        storage_class(config, report);
    }
    let feed = reads(&*store, access, report).await;
    Some((store, feed))
}

/// Names that nothing else uses.
struct Names(String);

impl Names {
    fn new() -> Names {
        Names(format!("check-{}", head::random_attempt()))
    }

    fn key(&self, name: &str, created: &mut Vec<Key>) -> anyhow::Result<Key> {
        let key: Key = format!("{}/{name}", self.0).parse()?;
        created.push(key.clone());
        Ok(key)
    }
}

async fn writes(
    store: &SharedStore,
    config: &StoreConfig,
    names: &Names,
    created: &mut Vec<Key>,
    report: &mut Findings,
) -> anyhow::Result<()> {
    let key = names.key("object.json", created)?;
    let content = Bytes::from_static(b"what was written");
    store.create(&key, content.clone()).await?;
    let read = store.read(&key, MAX_BYTES).await?;
    anyhow::ensure!(read.is_some_and(|(read, _)| read == content), "what was written is not what is read");
    report.good("an object is readable as soon as it is written");

    match config.single_writer {
        SingleWriter::No => races(store, &names.key("raced.json", created)?, report).await?,
        SingleWriter::Yes => lone_writer(config, report).await,
    }

    let part_bytes = config.s3.part_bytes.min(SMALLEST_PART_BYTES);
    for checksum in CHECKSUMS {
        if !store.url().starts_with("s3:") {
            let key = names.key("part.zst", created)?;
            upload(&**store, &key, part_bytes).await?;
            report.good("a large object is written and read back whole");
            break;
        }
        let s3 = S3Config { checksum, part_bytes, ..config.s3.clone() };
        let key = names.key(&format!("part-{}.zst", word(checksum)), created)?;
        let outcome = match store::open(&StoreConfig { s3, ..config.clone() }, Access::ReadWrite).await {
            Ok(variant) => upload(&*variant, &key, part_bytes).await,
            Err(error) => Err(error),
        };
        judge_checksum(checksum, config.s3.checksum, outcome, report);
    }
    Ok(())
}

/// A checksum that a bucket takes which cannot be written with the configured one.
async fn other_checksum(config: &StoreConfig, access: Access) -> Option<Checksum> {
    if access == Access::ReadOnly || !config.url.as_ref().is_some_and(|url| url.to_ascii_lowercase().starts_with("s3:"))
    {
        return None;
    }
    for checksum in CHECKSUMS.into_iter().filter(|checksum| *checksum != config.s3.checksum) {
        let s3 = S3Config { checksum, ..config.s3.clone() };
        if store::open(&StoreConfig { s3, ..config.clone() }, access).await.is_ok() {
            return Some(checksum);
        }
    }
    None
}

/// Writers that create one object, then writers that replace what they saw: of each one may win.
async fn races(store: &SharedStore, key: &Key, report: &mut Findings) -> anyhow::Result<()> {
    let mut seen = None;
    for what in ["create one object", "replace one object"] {
        let mut racers = JoinSet::new();
        for racer in 0..RACERS {
            let (store, key, seen) = (Arc::clone(store), key.clone(), seen.clone());
            let content = Bytes::from(format!("{what}: {racer}"));
            racers.spawn(async move { store.swap(&key, seen.as_ref(), content).await });
        }
        let mut winners = 0;
        while let Some(outcome) = racers.join_next().await {
            winners += match outcome? {
                Ok(swap) => usize::from(swap == Swap::Done),
                // One whose answer was lost, or that is asked to come again, did not win.
                Err(error) if error.is_transient() => 0,
                Err(error) => return Err(error.into()),
            };
        }
        let stands = store.read(key, MAX_BYTES).await?;
        let one_stands = stands.is_some_and(|(content, _)| content.starts_with(what.as_bytes()));
        if winners <= 1 && one_stands {
            report.good(format!("of {RACERS} writers that {what} at the same time one wins"));
        } else {
            report.bad(
                format!(
                    "of {RACERS} writers that {what} at the same time {winners} win: conditional writes do not hold"
                ),
                "if only one machine ever exports and prunes, say single-writer = true in [store]",
                Class::Usage,
            );
        }
        seen = store.read(key, MAX_BYTES).await?.map(|(_, version)| version);
    }
    Ok(())
}

/// Whether a configuration that does without conditional writes needs to.
async fn lone_writer(config: &StoreConfig, report: &mut Findings) {
    let strict = StoreConfig { single_writer: SingleWriter::No, ..config.clone() };
    match store::open(&strict, Access::ReadWrite).await {
        Ok(_) => {
            report.warn("honours conditional writes, and single-writer = true does without", "remove single-writer")
        }
        Err(_) => report.warn(
            "does not honour conditional writes: runs are kept apart by the dataset's lock on the source only",
            "export and prune from the same database of the same source server, and never write by other means",
        ),
    }
}

/// An object of two parts, written as a slice is and read as a catchup does.
async fn upload(store: &dyn Store, key: &Key, part_bytes: u64) -> anyhow::Result<()> {
    let content = Bytes::from(vec![0x5a; usize::try_from(part_bytes)? + 1]);
    let mut upload = store.upload(key).await?;
    let written = async {
        upload.write(content).await?;
        upload.seal().await
    };
    if let Err(error) = written.await {
        upload.abort().await?;
        return Err(error.into());
    }
    upload.finish().await?;
    let end = match store.read_range(key, part_bytes - 1, 2).await {
        // As the storage class says; told with it.
        Err(StoreError::Archived { .. }) => return Ok(()),
        other => other?,
    };
    anyhow::ensure!(end == [0x5a, 0x5a][..], "the parts were not joined as they were sent");
    match store.read_range(key, part_bytes, 2).await {
        Err(StoreError::Size { .. }) => Ok(()),
        other => anyhow::bail!("a range beyond the object's end is not refused: {:?}", other.map(|bytes| bytes.len())),
    }
}

fn word(checksum: Checksum) -> &'static str {
    match checksum {
        Checksum::Crc32 => "crc32",
        Checksum::Crc64Nvme => "crc64nvme",
        Checksum::WhenRequired => "when-required",
    }
}

fn judge_checksum(tried: Checksum, configured: Checksum, outcome: anyhow::Result<()>, report: &mut Findings) {
    let tried_word = word(tried);
    match outcome {
        Ok(()) if tried == configured => {
            report.good(format!("takes objects in parts with checksum = \"{tried_word}\""))
        }
        Ok(()) => report.good(format!("would take checksum = \"{tried_word}\", too")),
        Err(error) if tried == configured => {
            report.failed(&format!("does not take objects in parts with checksum = \"{tried_word}\""), &error);
        }
        Err(_) => report.good(format!("does not take checksum = \"{tried_word}\", which is not configured")),
    }
}

/// What AWS charges at least: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html>.
fn storage_class(config: &Config, report: &mut Findings) {
    let Some(class) = config.store.s3.storage_class.as_deref() else { return };
    let (days, archive) = match class {
        "STANDARD_IA" | "ONEZONE_IA" => (30, false),
        "GLACIER_IR" => (90, false),
        "GLACIER" => (90, true),
        "DEEP_ARCHIVE" => (180, true),
        _ => return,
    };
    let kept = config.retention.keep_days + config.retention.grace.num_days().unsigned_abs();
    if kept < days {
        report.warn(
            format!(
                "{class} bills every object for at least {days} days, and retention deletes them after about {kept}"
            ),
            "use the standard class, or keep days longer",
        );
    }
    if !archive {
        report.warn(
            format!("{class} bills every object as at least 128 kB and every read by its size"),
            "for many small tables, or many replicas, use the standard class",
        );
    } else {
        report.warn(
            format!("{class} is an archive: no replica can read a day before somebody has it restored"),
            "use GLACIER_IR, or the standard class, for days that replicas should follow",
        );
    }
}

/// What a replica needs: the head, and ranges.
async fn reads(store: &dyn Store, access: Access, report: &mut Findings) -> Option<Feed> {
    let feed = match head::read(store).await {
        Ok(Some((feed, _))) => feed,
        Ok(None) if access == Access::ReadWrite => {
            report.good("holds no feed yet: the first export creates it");
            return None;
        }
        Ok(None) => {
            report.bad("holds no feed.json", "check store.url: it names the folder that feed.json is in", Class::Usage);
            return None;
        }
        Err(error) => {
            report.failed("the feed cannot be read", &error);
            return None;
        }
    };
    let days = crate::figures::counted(feed.days.len(), "day");
    report.good(format!("holds the feed of {:?} with {days}, published {}", feed.dataset, feed.published_at));
    match store.read_range(&Key::feed(), 1, 1).await {
        Ok(_) => report.good("gives out ranges of objects"),
        Err(error) => report.failed("does not give out ranges of objects", &error.into()),
    }
    Some(feed)
}
