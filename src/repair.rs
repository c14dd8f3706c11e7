//! `pgslice repair`: a lost or damaged feed.json, made again from the manifests in the store.
//!
//! The one command that lists a store. Nothing is deleted, and nothing is written but the head and its page.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::catchup::fetch::Rows;
use crate::config::Config;
use crate::day::Day;
use crate::error::{Class, Failure, class_of};
use crate::feed::{self, DayEntry, Feed, ManifestRef};
use crate::figures::{counted, human_days};
use crate::head;
use crate::layout::Key;
use crate::manifest::{self, DocumentError, Manifest};
use crate::page;
use crate::pg::PgError;
use crate::progress::Progress;
use crate::store::{SharedStore, Store, StoreError, Swap, Version};

mod plan;

pub use plan::Found;

/// How a repair goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What parts are held against.
    pub depth: Depth,
    /// Whether anything is written.
    pub mode: Mode,
}

/// What parts are held against before their day is published again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Their checksums, counts and digests: every part is read.
    Digests,
    /// Their sizes.
    Sizes,
}

/// `--dry-run`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The head is written.
    Apply,
    /// It is only said what it would hold.
    DryRun,
}

/// What became of a repair.
#[derive(Debug, Clone, Serialize)]
pub struct RepairReport {
    /// The version of this report.
    pub format: u32,
    /// The dataset.
    pub dataset: String,
    /// The feed.
    pub feed_id: String,
    /// What was done.
    pub outcome: Outcome,
    /// The head's sequence now, or as it would be.
    pub sequence: u64,
    /// What parts were held against.
    pub depth: Depth,
    /// The days that the head names now, ascending.
    pub days: Vec<RepairedDay>,
    /// Revisions that other ones superseded: they are retired, and `prune` deletes them after their grace.
    pub superseded: Vec<Key>,
    /// Days whose newest revision is not whole, and manifests that are none. Their objects stay; the days are missing.
    pub left_out: Vec<LeftOut>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The head can be read, and stays as it is.
    Sound,
    /// The head was made again.
    Rebuilt,
    /// A dry run: it would be made again.
    Planned,
}

/// A day that the head names again.
#[derive(Debug, Clone, Serialize)]
pub struct RepairedDay {
    /// The day.
    pub day: Day,
    /// The revision that was found.
    pub revision: u32,
    /// Its manifest.
    pub manifest: Key,
}

/// Something that the head cannot name again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The manifest.
    pub manifest: Key,
    /// Why.
    pub why: String,
}

/// Makes the head again.
///
/// Of each day the newest revision counts: the highest number, final before provisional, then the latest reading. If it
/// is not whole the day is left out; an older one never takes its place, which would bring back rows that were taken
/// away. The sequence becomes the number of seconds since 1970, which is above that of any head that came before.
///
/// # Errors
/// Class Integrity for a store without manifests of the dataset, or with those of several feeds; class Locked when the
/// head changed meanwhile; otherwise the store's.
pub async fn run(
    config: &Config,
    store: &SharedStore,
    options: Options,
    now: DateTime<Utc>,
    cancel: &CancellationToken,
    progress: &Progress,
) -> anyhow::Result<RepairReport> {
    let (present, version) = match store.read(&Key::feed(), feed::MAX_BYTES).await.context("cannot read feed.json")? {
        Some((bytes, version)) => (Some(bytes), Some(version)),
        None => (None, None),
    };
    let damaged = match present.as_deref().map(|bytes| (bytes, Feed::parse(bytes))) {
        Some((_, Ok(feed))) => return Ok(RepairReport::sound(&feed, options.depth)),
        Some((_, Err(newer @ DocumentError::Newer { .. }))) => {
            return Err(Failure::new(Class::Usage, format!("feed.json: {newer}")).into());
        }
        Some((bytes, Err(_))) => plan::Fragments::of(bytes),
        None => plan::Fragments::default(),
    };
    let mut report = RepairReport::empty(config, options);
    let mut found = Vec::new();
    progress.begin("list the store");
    for key in store.list().await?.into_iter().filter(Key::is_manifest) {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled.into());
        }
        match read_manifest(&**store, &key).await {
            Ok(manifest) => found.push(manifest),
            Err(error) if class_of(&error) == Class::Integrity => {
                report.left_out.push(LeftOut { manifest: key, why: format!("{error:#}") });
            }
            Err(error) => return Err(error),
        }
    }
    let chosen = plan::choose(found, &config.dataset, damaged.feed_id.as_deref())?;
    report.feed_id.clone_from(&chosen.feed_id);
    let mut whole: BTreeMap<Day, Found> = BTreeMap::new();
    for newest in chosen.newest {
        progress.begin(&format!("check {}", newest.manifest.day));
        match check_parts(store, &newest.manifest, options.depth, progress).await {
            Ok(()) => {
                whole.insert(newest.manifest.day, newest);
            }
            Err(error) if class_of(&error) == Class::Integrity => {
                report.left_out.push(LeftOut { manifest: newest.reference.key, why: format!("{error:#}") });
            }
            Err(error) => return Err(error),
        }
    }
    progress.end();
    report.days = whole.values().map(RepairedDay::of).collect();
    let empty = Feed::empty(
        chosen.feed_id,
        config.dataset.clone(),
        config.timezone.name().to_owned(),
        head::random_feed_id(),
        now,
    );
    let empty = Feed { sequence: plan::next_sequence(damaged.sequence, now), ..empty };
    let feed = plan::rebuild(empty, whole.into_values().collect(), chosen.older, now);
    report.superseded = feed.retired.iter().map(|retired| retired.manifest.key.clone()).collect();
    // What it says must be what a reader takes: windows of two zones, for example, it does not.
    let bytes = feed.to_bytes();
    if let Err(problem) = Feed::parse(&bytes) {
        return Err(Failure::new(Class::Integrity, format!("the manifests contradict each other: {problem}"))
            .meaning("nothing was written")
            .next("move the directories of the days that do not belong here out of the store, then run again")
            .into());
    }
    report.sequence = feed.sequence;
    if options.mode == Mode::Apply {
        publish(&**store, &feed, version.as_ref()).await?;
        report.outcome = Outcome::Rebuilt;
    }
    Ok(report)
}

async fn publish(store: &dyn Store, feed: &Feed, seen: Option<&Version>) -> anyhow::Result<()> {
    let swapped = store.swap(&Key::feed(), seen, feed.to_bytes().into()).await;
    let landed = match swapped {
        Ok(Swap::Done) => true,
        // The answer to a write that was done may be lost, and a store that repeats it conflicts with itself.
        Ok(Swap::Conflict) | Err(StoreError::Transient { .. }) => match head::read(store).await {
            Ok(Some((present, _))) => present.attempt_id == feed.attempt_id,
            _ => false,
        },
        Err(error) => return Err(error).context("cannot write feed.json"),
    };
    if !landed {
        return Err(Failure::new(Class::Locked, format!("{}: feed.json was changed meanwhile", store.url()))
            .meaning("this run wrote nothing")
            .next("see that no export or prune runs, then run `pgslice repair` again")
            .into());
    }
    if let Err(error) = store.replace(&Key::index(), page::index_html(feed).into()).await {
        tracing::warn!("index.html was not updated ({error}); the feed itself is published");
    }
    Ok(())
}

async fn read_manifest(store: &dyn Store, key: &Key) -> anyhow::Result<Found> {
    let read = store.read(key, manifest::MAX_BYTES).await.context("cannot read a manifest")?;
    let (bytes, _) = read.ok_or_else(|| StoreError::NotFound(key.clone()))?;
    let manifest = Manifest::parse(&bytes).map_err(|error| Failure::new(Class::Integrity, error.to_string()))?;
    if !key.lies_in(manifest.day) {
        let what = format!("is a manifest of {}, in the directory of another day", manifest.day);
        return Err(Failure::new(Class::Integrity, what).into());
    }
    let sha256 = hex::encode(Sha256::digest(&bytes));
    Ok(Found { reference: ManifestRef { key: key.clone(), sha256 }, manifest })
}

/// # Errors
/// Class Integrity when a part is missing or is not what the manifest says.
async fn check_parts(
    store: &SharedStore,
    manifest: &Manifest,
    depth: Depth,
    progress: &Progress,
) -> anyhow::Result<()> {
    for slice in &manifest.slices {
        match depth {
            Depth::Sizes => {
                for part in &slice.parts {
                    let found = store.size(&part.key).await?.ok_or_else(|| StoreError::NotFound(part.key.clone()))?;
                    if found != part.stored_bytes {
                        let problem = format!("has {found} bytes, the manifest says {}", part.stored_bytes);
                        return Err(StoreError::Size { key: part.key.clone(), problem }.into());
                    }
                }
            }
            Depth::Digests => {
                let mut rows = Rows::of(slice, &Arc::clone(store), &Handle::current());
                let progress = progress.clone();
                spawn_blocking(move || {
                    while let Some(frame) = rows.pull()? {
                        progress.add_bytes(frame.len() as u64);
                    }
                    anyhow::Ok(())
                })
                .await??;
            }
        }
    }
    Ok(())
}

impl RepairedDay {
    fn of(found: &Found) -> RepairedDay {
        let Found { reference, manifest } = found;
        RepairedDay { day: manifest.day, revision: manifest.revision, manifest: reference.key.clone() }
    }
}

impl RepairReport {
    fn empty(config: &Config, options: Options) -> RepairReport {
        RepairReport {
            format: 1,
            dataset: config.dataset.clone(),
            feed_id: String::new(),
            outcome: Outcome::Planned,
            sequence: 0,
            depth: options.depth,
            days: Vec::new(),
            superseded: Vec::new(),
            left_out: Vec::new(),
        }
    }

    fn sound(feed: &Feed, depth: Depth) -> RepairReport {
        let day = |entry: &DayEntry| RepairedDay {
            day: entry.day,
            revision: entry.revision,
            manifest: entry.manifest.key.clone(),
        };
        RepairReport {
            format: 1,
            dataset: feed.dataset.clone(),
            feed_id: feed.feed_id.clone(),
            outcome: Outcome::Sound,
            sequence: feed.sequence,
            depth,
            days: feed.days.iter().map(day).collect(),
            superseded: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// [`Class::Integrity`] when something that lies in the store could not be named again.
    pub fn failure(&self) -> Option<Class> {
        (!self.left_out.is_empty()).then_some(Class::Integrity)
    }

    /// The report for people.
    pub fn lines(&self) -> Vec<String> {
        let count = counted(self.days.len(), "day");
        let (days, sequence): (Vec<Day>, u64) = (self.days.iter().map(|day| day.day).collect(), self.sequence);
        let named = if days.is_empty() { count } else { format!("{count}, {}", human_days(&days)) };
        let checked = match self.depth {
            Depth::Digests => "every part was read and is what its manifest says",
            Depth::Sizes => "sizes were compared, no part was read",
        };
        let mut lines = match self.outcome {
            Outcome::Sound => {
                return vec![format!("{}: feed.json can be read ({named}): nothing to repair", self.dataset)];
            }
            Outcome::Rebuilt => {
                vec![format!("{}: feed.json was made again, version {sequence}: {named}", self.dataset)]
            }
            Outcome::Planned => vec![format!("{}: feed.json would be made again: {named}", self.dataset)],
        };
        lines.push(format!("  {checked}"));
        if !self.superseded.is_empty() {
            lines.push(format!(
                "  {} found beside them, retired: prune deletes them after their grace",
                counted(self.superseded.len(), "older revision")
            ));
        }
        for LeftOut { manifest, why } in &self.left_out {
            lines.push(format!("  left out {manifest}: {why}"));
        }
        if !self.left_out.is_empty() {
            lines.push("  next: publish the days that are missing again with `pgslice export --date …`".into());
        }
        lines
    }
}
