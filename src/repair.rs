//! `pgslice repair`: a feed.json that is lost, damaged or another one's, made again from the manifests in the store.
//!
//! The one command that lists a store. Nothing is deleted, and nothing is written but the head and its page.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use bytes::Bytes;
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
use crate::feed::{self, DayEntry, DumpRecord, Feed, FullDump, ManifestRef};
use crate::figures::{counted, human_days};
use crate::head;
use crate::layout::Key;
use crate::manifest::{self, DocumentError, Manifest};
use crate::page;
use crate::pg::PgError;
use crate::progress::Progress;
use crate::store::{SharedStore, Store, StoreError, Swap, Version};

mod plan;

use plan::{Chosen, Found, Fragments, Wanted};

/// How a repair goes about it.
#[derive(Debug, Clone)]
pub struct Options {
    /// What parts are held against.
    pub depth: Depth,
    /// What to do with a head that can be read.
    pub sound_head: SoundHead,
    /// What to do when a day cannot be named again.
    pub incomplete: Incomplete,
    /// Which feed, where the store holds days of several.
    pub feed_id: Option<String>,
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

/// What to do with a head that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundHead {
    /// It stays as it is.
    Keep,
    /// It is made again: `--force`.
    Replace,
}

/// What to do when a day cannot be named again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incomplete {
    /// Nothing is written.
    Refuse,
    /// The head goes without it: `--leave-out`.
    LeaveOut,
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
    /// The days that the head names now, or would name, ascending.
    pub days: Vec<RepairedDay>,
    /// Revisions that other ones superseded: they are retired, and `prune` deletes them after their grace.
    pub superseded: Vec<Key>,
    /// Days of which what is left of the old head and its page names another revision than the newest.
    pub doubtful: Vec<Day>,
    /// Days whose newest revision is not whole. Their objects stay; the days are missing.
    pub left_out: Vec<LeftOut>,
    /// Days before all others of which no part is left: they were pruned.
    pub pruned: Vec<Day>,
    /// The full dumps that the head names now, or would name.
    pub full_dumps: Vec<Key>,
    /// Full dumps that were recorded, and are not there as they were.
    pub dumps_left_out: Vec<Key>,
    /// Directories of attempts without a manifest: of runs that were killed.
    pub unfinished: Vec<String>,
    /// Newer manifests that a sound head does not name.
    pub unnamed: Vec<Key>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The head can be read: nothing was done.
    Sound,
    /// The head was made again.
    Rebuilt,
    /// A dry run: it would be made again.
    Planned,
    /// Days would be left out: nothing was done.
    Refused,
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

/// A day that the head cannot name again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The day.
    pub day: Day,
    /// Its newest revision, by the name of its directory.
    pub revision: u32,
    /// The manifest of that.
    pub manifest: Key,
    /// What is wrong with it.
    pub why: String,
}

/// Makes the head again.
///
/// Of each day the newest revision counts: the highest number, final before provisional, then the latest reading. If it
/// is not whole the day is left out; an older one never takes its place, which would bring back rows that were taken
/// away. The sequence is at least the number of seconds since 1970, which is above that of any head that came before; the
/// head is as old as the newest reading in it.
///
/// # Errors
/// Class Integrity for a store without days that could be named; class Usage for one with those of several feeds, and
/// for documents of a newer format; class Locked when the head changed meanwhile; otherwise the store's.
pub async fn run(
    config: &Config,
    store: &SharedStore,
    options: &Options,
    now: DateTime<Utc>,
    cancel: &CancellationToken,
    progress: &Progress,
) -> anyhow::Result<RepairReport> {
    progress.begin("list the store");
    let head = Present::read(&**store).await?;
    let keys = store.list().await?;
    if let Some(feed) = head.sound.as_ref().filter(|_| options.sound_head == SoundHead::Keep) {
        crate::catchup::run::check_dataset(feed, config)?;
        return Ok(RepairReport::sound(feed, options.depth, &keys));
    }
    let mut report = RepairReport::empty(config, options, &keys);
    let (found, unreadable) = read_manifests(&**store, &head, &keys, cancel).await?;
    let wanted = match &options.feed_id {
        Some(id) => Wanted::Named(id),
        // A head that is to be replaced although it can be read may be another feed's.
        None => Wanted::Hinted(head.fragments.feed_id.as_deref().filter(|_| head.sound.is_none())),
    };
    let Chosen { feed_id, newest, older, mut left_out } = plan::choose(found, unreadable, &config.dataset, wanted)?;
    report.feed_id.clone_from(&feed_id);
    report.doubtful = plan::doubtful(&newest, &older, &head.remains(&**store).await);
    let mut whole = Vec::new();
    for found in newest {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled.into());
        }
        progress.begin(&format!("check {}", found.entry.day));
        match check_parts(store, &found, options.depth, progress).await {
            Ok(()) => whole.push(found),
            Err(error) if class_of(&error) == Class::Integrity => left_out.push(LeftOut::of(&found, &error)),
            Err(error) => return Err(error),
        }
    }
    progress.end();
    let Some(oldest) = whole.first().map(|found| found.entry.day) else {
        let told: Vec<String> = left_out.iter().map(|one| format!("{}: {}", one.manifest, one.why)).collect();
        return Err(Failure::new(Class::Integrity, format!("no day in the store is whole: {}", told.join("; ")))
            .meaning("nothing was written")
            .next("restore the objects from a backup or the bucket's versions, then run again")
            .into());
    };
    // Pruning deletes the parts of the oldest days first and their manifests last.
    let was_pruned = |left_out: &LeftOut| left_out.day < oldest && left_out.why == IS_GONE;
    let (pruned, mut left_out): (Vec<LeftOut>, Vec<LeftOut>) = left_out.into_iter().partition(was_pruned);
    left_out.sort_by_key(|left_out| left_out.day);
    report.pruned = pruned.iter().map(|left_out| left_out.day).collect();
    let base = head.base(feed_id, config, plan::last_reading(&whole).unwrap_or(now));
    let base = Feed { sequence: plan::next_sequence(head.fragments.sequence, now), ..base };
    let mut feed = plan::rebuild(base, whole, &older, &left_out, now);
    let (dumps, dumps_left_out) = recorded_dumps(&**store, &feed.feed_id, &keys).await?;
    report.dumps_left_out = dumps_left_out;
    dumps.into_iter().for_each(|dump| {
        if feed.full_dump(&dump.key).is_none() {
            feed.full_dumps.push(dump);
        }
    });
    report.describe(&feed, &older, left_out);
    // What it says must be what a reader takes: windows of two zones, for example, it does not.
    if let Err(problem) = Feed::parse(&feed.to_bytes()) {
        return Err(Failure::new(Class::Integrity, format!("the manifests contradict each other: {problem}"))
            .meaning("nothing was written")
            .next("move the directories of the days that do not belong here out of the store, then run again")
            .into());
    }
    if options.mode == Mode::DryRun {
        return Ok(report);
    }
    if !report.left_out.is_empty() && options.incomplete == Incomplete::Refuse {
        report.outcome = Outcome::Refused;
        return Ok(report);
    }
    publish(&**store, &feed, head.version.as_ref()).await?;
    report.outcome = Outcome::Rebuilt;
    Ok(report)
}

/// The head as it is.
struct Present {
    bytes: Bytes,
    version: Option<Version>,
    sound: Option<Feed>,
    fragments: Fragments,
}

impl Present {
    async fn read(store: &dyn Store) -> anyhow::Result<Present> {
        let read = store.read(&Key::feed(), feed::MAX_BYTES).await.map_err(|error| {
            let class = error.class();
            let failure = Failure::new(class, format!("cannot read feed.json: {:#}", anyhow::Error::new(error)));
            failure.next("if it is damaged, move it out of the way, then run `pgslice repair` again")
        })?;
        let (bytes, version) = read.map_or((Bytes::new(), None), |(bytes, version)| (bytes, Some(version)));
        let sound = match Feed::parse(&bytes) {
            Ok(feed) => Some(feed),
            Err(newer @ DocumentError::Newer { .. }) => return Err(newer_than_known("feed.json", &newer).into()),
            Err(_) => None,
        };
        let fragments = Fragments::of(&bytes);
        Ok(Present { bytes, version, sound, fragments })
    }

    /// What tells which manifests were published: what is left of the head, and the page that was made of it.
    async fn remains(&self, store: &dyn Store) -> String {
        let page = store.read(&Key::index(), feed::MAX_BYTES).await.ok().flatten();
        let page = page.map(|(page, _)| page).unwrap_or_default();
        format!("{}{}", String::from_utf8_lossy(&self.bytes), String::from_utf8_lossy(&page))
    }

    /// A head without days; what a sound one of the same feed let go of stays so.
    fn base(&self, feed_id: String, config: &Config, published_at: DateTime<Utc>) -> Feed {
        let attempt_id = head::random_feed_id();
        match self.sound.as_ref().filter(|sound| sound.feed_id == feed_id) {
            Some(sound) => Feed { attempt_id, ..sound.clone() },
            None => {
                let zone = config.timezone.name().to_owned();
                Feed::empty(feed_id, config.dataset.clone(), zone, attempt_id, published_at)
            }
        }
    }

    /// Manifests that the head let go of, and whose objects wait to be deleted.
    fn waits_for_deletion(&self, key: &Key) -> bool {
        let retired = self.sound.iter().flat_map(|feed| &feed.retired);
        retired.filter(|retired| retired.deleted_at.is_none()).any(|retired| retired.manifest.key == *key)
    }
}

fn newer_than_known(what: &str, newer: &DocumentError) -> Failure {
    Failure::new(Class::Usage, format!("{what}: {newer}")).meaning("nothing was written")
}

/// What the manifests among `keys` say, and which of them cannot be read.
///
/// # Errors
/// The store's; class Usage for a manifest of a newer format: what it says counts, and is not known.
async fn read_manifests(
    store: &dyn Store,
    head: &Present,
    keys: &[Key],
    cancel: &CancellationToken,
) -> anyhow::Result<(Vec<Found>, Vec<LeftOut>)> {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for key in keys.iter().filter(|key| key.is_manifest() && !head.waits_for_deletion(key)) {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled.into());
        }
        let Some((_, day, revision)) = key.attempt() else { continue };
        match read_manifest(store, key, day, revision).await {
            Ok((manifest, reference)) => found.push(Found::of(&manifest, reference)),
            Err(error) if class_of(&error) == Class::Integrity => {
                unreadable.push(LeftOut { day, revision, manifest: key.clone(), why: format!("{error:#}") });
            }
            Err(error) => return Err(error),
        }
    }
    Ok((found, unreadable))
}

async fn read_manifest(
    store: &dyn Store,
    key: &Key,
    day: Day,
    revision: u32,
) -> anyhow::Result<(Manifest, ManifestRef)> {
    let read = store.read(key, manifest::MAX_BYTES).await.context("cannot read a manifest")?;
    let (bytes, _) = read.ok_or_else(|| StoreError::NotFound(key.clone()))?;
    let manifest = Manifest::parse(&bytes).map_err(|error| match error {
        newer @ DocumentError::Newer { .. } => newer_than_known(key.as_str(), &newer),
        error => Failure::new(Class::Integrity, error.to_string()),
    })?;
    if (manifest.day, manifest.revision) != (day, revision) {
        let what = format!("is the manifest of {} r{}", manifest.day, manifest.revision);
        return Err(Failure::new(Class::Integrity, what).into());
    }
    let sha256 = hex::encode(Sha256::digest(&bytes));
    Ok((manifest, ManifestRef { key: key.clone(), sha256 }))
}

/// No record of a dump is larger.
const RECORD_BYTES: u64 = 1 << 20;

/// The reason when no object of a part is there.
const IS_GONE: &str = "no part of it is in the store";

/// # Errors
/// Class Integrity when a part is missing or is not what the manifest says.
async fn check_parts(store: &SharedStore, found: &Found, depth: Depth, progress: &Progress) -> anyhow::Result<()> {
    let DayEntry { day, revision, .. } = found.entry;
    let (manifest, reference) = read_manifest(&**store, found.key(), day, revision).await?;
    if reference != found.entry.manifest {
        return Err(Failure::new(Class::Integrity, format!("{} changed while it was looked at", reference.key)).into());
    }
    // Sizes first: what is not there is told at once.
    let mut missing = None;
    let mut present = 0;
    for part in manifest.slices.iter().flat_map(|slice| &slice.parts) {
        match store.size(&part.key).await? {
            None => missing = missing.or(Some(part.key.clone())),
            Some(bytes) if bytes == part.stored_bytes => present += 1,
            Some(bytes) => {
                let problem = format!("has {bytes} bytes, the manifest says {}", part.stored_bytes);
                return Err(StoreError::Size { key: part.key.clone(), problem }.into());
            }
        }
    }
    match missing {
        Some(_) if present == 0 => {
            return Err(Failure::new(Class::Integrity, IS_GONE).into());
        }
        Some(key) => return Err(Failure::new(Class::Integrity, format!("its part {key} is missing")).into()),
        None => {}
    }
    if depth == Depth::Digests {
        for slice in &manifest.slices {
            let mut rows = Rows::of(slice, store, &Handle::current());
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
    Ok(())
}

/// The full dumps of a feed that are recorded beside themselves, and there in their size; and those that are not.
///
/// # Errors
/// The store's; class Usage for a record of a newer format.
async fn recorded_dumps(store: &dyn Store, feed_id: &str, keys: &[Key]) -> anyhow::Result<(Vec<FullDump>, Vec<Key>)> {
    let (mut dumps, mut left_out) = (Vec::new(), Vec::new());
    for key in keys.iter().filter(|key| key.is_dump_record()) {
        let Some((bytes, _)) = store.read(key, RECORD_BYTES).await.context("cannot read a dump's record")? else {
            continue;
        };
        let dump = match DumpRecord::parse(&bytes) {
            Ok(record) if record.feed_id != feed_id => continue,
            Ok(record) if record.full_dump.key.dump_record() == *key => record.full_dump,
            Err(newer @ DocumentError::Newer { .. }) => return Err(newer_than_known(key.as_str(), &newer).into()),
            _ => {
                left_out.push(key.clone());
                continue;
            }
        };
        match store.size(&dump.key).await? == Some(dump.bytes) {
            true => dumps.push(dump),
            false => left_out.push(dump.key),
        }
    }
    dumps.sort_by_key(|dump| dump.published_at);
    Ok((dumps, left_out))
}

async fn publish(store: &dyn Store, feed: &Feed, seen: Option<&Version>) -> anyhow::Result<()> {
    let landed = match store.swap(&Key::feed(), seen, feed.to_bytes().into()).await {
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
            .meaning("this run wrote nothing, or its answer was lost")
            .next("see that no export or prune runs, then run `pgslice repair` again")
            .into());
    }
    if let Err(error) = store.replace(&Key::index(), page::index_html(feed).into()).await {
        tracing::warn!("index.html was not updated ({error}); the feed itself is published");
    }
    Ok(())
}

impl LeftOut {
    fn of(found: &Found, error: &anyhow::Error) -> LeftOut {
        let DayEntry { day, revision, .. } = found.entry;
        LeftOut { day, revision, manifest: found.key().clone(), why: format!("{error:#}") }
    }
}

impl RepairedDay {
    fn of(entry: &DayEntry) -> RepairedDay {
        RepairedDay { day: entry.day, revision: entry.revision, manifest: entry.manifest.key.clone() }
    }
}

/// Directories of attempts that have objects, but no manifest.
fn unfinished(keys: &[Key]) -> Vec<String> {
    let mut attempts: BTreeMap<&str, bool> = BTreeMap::new();
    for key in keys {
        if let Some((directory, _, _)) = key.attempt() {
            *attempts.entry(directory).or_default() |= key.is_manifest();
        }
    }
    attempts.into_iter().filter(|(_, has_manifest)| !has_manifest).map(|(directory, _)| directory.to_owned()).collect()
}

impl RepairReport {
    fn empty(config: &Config, options: &Options, keys: &[Key]) -> RepairReport {
        RepairReport {
            format: 1,
            dataset: config.dataset.clone(),
            feed_id: String::new(),
            outcome: Outcome::Planned,
            sequence: 0,
            depth: options.depth,
            days: Vec::new(),
            superseded: Vec::new(),
            doubtful: Vec::new(),
            left_out: Vec::new(),
            pruned: Vec::new(),
            full_dumps: Vec::new(),
            dumps_left_out: Vec::new(),
            unfinished: unfinished(keys),
            unnamed: Vec::new(),
        }
    }

    fn describe(&mut self, feed: &Feed, older: &[Found], left_out: Vec<LeftOut>) {
        let retired: BTreeSet<&Key> = feed.retired.iter().map(|retired| &retired.manifest.key).collect();
        self.sequence = feed.sequence;
        self.days = feed.days.iter().map(RepairedDay::of).collect();
        self.full_dumps = feed.full_dumps.iter().map(|dump| dump.key.clone()).collect();
        self.superseded = older.iter().map(Found::key).filter(|key| retired.contains(key)).cloned().collect();
        self.left_out = left_out;
    }

    /// Nothing is done with a sound head, but newer manifests that it does not name are told.
    fn sound(feed: &Feed, depth: Depth, keys: &[Key]) -> RepairReport {
        let is_newer = |key: &&Key| key.attempt().is_some_and(|(_, day, revision)| revision > feed.last_revision(day));
        RepairReport {
            format: 1,
            dataset: feed.dataset.clone(),
            feed_id: feed.feed_id.clone(),
            outcome: Outcome::Sound,
            sequence: feed.sequence,
            depth,
            days: feed.days.iter().map(RepairedDay::of).collect(),
            superseded: Vec::new(),
            doubtful: Vec::new(),
            left_out: Vec::new(),
            pruned: Vec::new(),
            full_dumps: feed.full_dumps.iter().map(|dump| dump.key.clone()).collect(),
            dumps_left_out: Vec::new(),
            unfinished: unfinished(keys),
            unnamed: keys.iter().filter(|key| key.is_manifest()).filter(is_newer).cloned().collect(),
        }
    }

    /// [`Class::Integrity`] when a day that lies in the store could not be named again.
    pub fn failure(&self) -> Option<Class> {
        (!self.left_out.is_empty()).then_some(Class::Integrity)
    }

    /// The report for people.
    pub fn lines(&self) -> Vec<String> {
        let days: Vec<Day> = self.days.iter().map(|day| day.day).collect();
        let named = format!("{}, {}", counted(days.len(), "day"), human_days(&days));
        let dataset = &self.dataset;
        let mut lines = match self.outcome {
            Outcome::Sound => return self.sound_lines(),
            Outcome::Rebuilt => {
                vec![format!("{dataset}: feed.json was made again, version {}: {named}", self.sequence)]
            }
            Outcome::Planned => vec![format!("{dataset}: feed.json would be made again: {named}")],
            Outcome::Refused => {
                vec![format!("{dataset}: nothing was written; feed.json would name {named}, and miss some")]
            }
        };
        lines.push(match self.depth {
            Depth::Digests => "  every part of these days was read, and is what its manifest says".to_owned(),
            Depth::Sizes => "  the sizes of their parts were compared, none was read".to_owned(),
        });
        if !self.superseded.is_empty() {
            let count = counted(self.superseded.len(), "older revision");
            lines.push(format!("  {count} beside them, retired: prune deletes them after their grace"));
        }
        let names = |keys: &[Key]| keys.iter().map(Key::as_str).collect::<Vec<_>>().join(", ");
        if !self.full_dumps.is_empty() {
            lines.push(format!("  with the full dumps {}", names(&self.full_dumps)));
        }
        if !self.dumps_left_out.is_empty() {
            lines.push(format!("  without full dumps that are not as they were: {}", names(&self.dumps_left_out)));
        }
        if !self.pruned.is_empty() {
            lines.push(format!("  not named: {}, of which only manifests are left (pruned)", human_days(&self.pruned)));
        }
        if !self.unfinished.is_empty() {
            lines.push(format!("  without a manifest, of runs that were killed: {}", self.unfinished.join(", ")));
        }
        for LeftOut { manifest, why, .. } in &self.left_out {
            lines.push(format!("  left out {manifest}: {why}"));
        }
        if !self.doubtful.is_empty() {
            let days = human_days(&self.doubtful);
            lines.push(format!("  {days}: what is left of the old feed.json and index.html names another revision"));
        }
        lines.push(match self.outcome {
            Outcome::Refused => {
                "  next: bring back what is missing, or say --leave-out; then publish those days again \
                                 with `pgslice export --date …`"
                    .to_owned()
            }
            _ => "  next: `pgslice verify --source`: whether a revision was ever published cannot be told for certain"
                .to_owned(),
        });
        lines
    }

    fn sound_lines(&self) -> Vec<String> {
        let count = counted(self.days.len(), "day");
        let mut lines = vec![format!("{}: feed.json can be read ({count}): it stays as it is", self.dataset)];
        if !self.unnamed.is_empty() {
            let keys: Vec<&str> = self.unnamed.iter().map(Key::as_str).collect();
            lines.push(format!("  newer than what it names: {}", keys.join(", ")));
            lines.push("  next: if feed.json was set back or made anew, run `pgslice repair --force`".to_owned());
        }
        lines
    }
}
