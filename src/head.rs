//! Reading and swapping the head of a feed, and reading the manifests that it names.

use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use sha2::{Digest, Sha256};

use crate::error::{Class, Failure};
use crate::feed::{self, DayEntry, Feed, ManifestRef, Pulse};
use crate::layout::Key;
use crate::manifest::{self, DocumentError, Manifest};
use crate::page;
use crate::store::{Reading, Store, StoreError, Swap, Validator, Version};

/// How often a change is tried against a head that others keep changing, or a store that loses answers.
const ATTEMPTS: u32 = 12;

/// Eight random lower-case hex digits: names attempts so that no object name is ever used twice.
pub fn random_attempt() -> String {
    format!("{:08x}", rand::rng().random::<u32>())
}

/// Thirty-two random lower-case hex digits: the identity of a new feed.
pub fn random_feed_id() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

/// The head as it is now; `None` when the store has no feed.
///
/// # Errors
/// The store's, and a head that cannot be read (class Integrity).
pub async fn read(store: &dyn Store) -> anyhow::Result<Option<(Feed, Version)>> {
    let Some((bytes, version)) =
        store.read(&Key::feed(), feed::MAX_BYTES).await.context("cannot read the feed's head")?
    else {
        return Ok(None);
    };
    let feed = Feed::parse(&bytes).map_err(|error| unreadable(&store.object_url(&Key::feed()), &error))?;
    Ok(Some((feed, version)))
}

/// The head, which must be there.
///
/// # Errors
/// As [`read`]; a store without a feed is class Usage.
pub async fn read_existing(store: &dyn Store) -> anyhow::Result<Feed> {
    read(store).await?.map(|(feed, _)| feed).ok_or_else(|| no_feed(store))
}

/// The head, which must be there, and what to ask by the next time; `None` when it still is the one that was `seen`.
///
/// # Errors
/// As [`read_existing`].
pub async fn read_if_changed(
    store: &dyn Store,
    seen: Option<&Validator>,
) -> anyhow::Result<Option<(Feed, Option<Validator>)>> {
    let key = Key::feed();
    match store.read_if_changed(&key, feed::MAX_BYTES, seen).await.context("cannot read the feed's head")? {
        Reading::Unchanged => Ok(None),
        Reading::Absent => Err(no_feed(store)),
        Reading::Content(bytes, validator) => {
            let feed = Feed::parse(&bytes).map_err(|error| unreadable(&store.object_url(&key), &error))?;
            Ok(Some((feed, validator)))
        }
    }
}

fn no_feed(store: &dyn Store) -> anyhow::Error {
    Failure::new(Class::Usage, format!("{} holds no feed.json", store.url()))
        .meaning("nothing is published there yet, or the url is not the feed's")
        .next("check store.url; the first `pgslice export` creates the feed")
        .into()
}

/// Creates the feed if there is none, and returns the head that stands.
///
/// # Errors
/// The store's.
pub async fn create(store: &dyn Store, new: &Feed) -> anyhow::Result<Feed> {
    for _ in 0..ATTEMPTS {
        match read(store).await {
            Ok(Some((feed, _))) => return Ok(feed),
            Ok(None) => {}
            Err(error) if is_transient(&error) => {
                pause(1).await;
                continue;
            }
            Err(error) => return Err(error),
        }
        match store.swap(&Key::feed(), None, new.to_bytes().into()).await {
            Ok(Swap::Done) => return Ok(new.clone()),
            // Another writer was first, or the answer was lost: whoever's it is, the next read tells.
            Ok(Swap::Conflict) => {}
            Err(error) if error.is_transient() => pause(1).await,
            Err(error) => return Err(error).context("cannot create the feed's head"),
        }
    }
    Err(contended(store))
}

/// Reads the head, edits it and swaps it until the edit stands; returns the head that holds it.
///
/// `edit` is pure and runs once per attempt, on the head as it is then. `landed` tells from a head that was read
/// back whether this very change is in it: that resolves an answer that was lost, also when somebody else has
/// published since. The generated page follows; its failure is only reported.
///
/// # Errors
/// Those of `edit` and of the store. After a store's error the change may or may not stand.
pub async fn change(
    store: &dyn Store,
    pulse: Pulse,
    mut edit: impl FnMut(&Feed) -> anyhow::Result<Feed>,
    landed: impl Fn(&Feed) -> bool,
) -> anyhow::Result<Feed> {
    let writer = random_feed_id();
    let mut answer_lost = false;
    for attempt in 0..ATTEMPTS {
        let (feed, version) = match read(store).await {
            Ok(Some(head)) => head,
            Ok(None) => return Err(vanished(store)),
            Err(error) if is_transient(&error) && attempt + 1 < ATTEMPTS => {
                pause(attempt).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if answer_lost && (feed.attempt_id == writer || landed(&feed)) {
            publish_page(store, &feed).await;
            return Ok(feed);
        }
        let next = edit(&feed)?.next_version(writer.clone(), pulse);
        match store.swap(&Key::feed(), Some(&version), next.to_bytes().into()).await {
            Ok(Swap::Done) => {
                publish_page(store, &next).await;
                return Ok(next);
            }
            // A store that repeats a request by itself gets a conflict with its own write.
            Ok(Swap::Conflict) => answer_lost = true,
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, "no answer to the swap of feed.json: reading it back");
                answer_lost = true;
                pause(attempt).await;
            }
            Err(error) => return Err(error).context("cannot publish feed.json"),
        }
    }
    Err(contended(store))
}

/// The manifest that `reference` names, held against its hash and against the feed.
///
/// # Errors
/// The store's; class Integrity when it is missing, not the one that was named, or contradicts itself.
pub async fn manifest(store: &dyn Store, feed: &Feed, reference: &ManifestRef) -> anyhow::Result<Manifest> {
    let key = &reference.key;
    let Some((bytes, _)) = store.read(key, manifest::MAX_BYTES).await.context("cannot read a manifest")? else {
        return Err(StoreError::NotFound(key.clone()).into());
    };
    let sha256 = hex::encode(Sha256::digest(&bytes));
    if sha256 != reference.sha256 {
        return Err(Failure::new(
            Class::Integrity,
            format!("{} is not the manifest that feed.json names (sha256 {sha256})", store.object_url(key)),
        )
        .meaning("the store holds a damaged or foreign object; its day is neither loaded nor deleted")
        .next("publish the day again with `pgslice export --date … --force`")
        .into());
    }
    let manifest = Manifest::parse(&bytes).map_err(|error| unreadable(&store.object_url(key), &error))?;
    if manifest.feed_id != feed.feed_id || manifest.dataset != feed.dataset {
        return Err(Failure::new(Class::Integrity, format!("{} belongs to another feed", store.object_url(key))).into());
    }
    Ok(manifest)
}

/// The manifest of a published day, held against its entry as well.
///
/// # Errors
/// As [`manifest`].
pub async fn day_manifest(store: &dyn Store, feed: &Feed, entry: &DayEntry) -> anyhow::Result<Manifest> {
    let manifest = self::manifest(store, feed, &entry.manifest).await?;
    let (of_manifest, of_entry) = (
        (manifest.day, manifest.window, manifest.revision, manifest.state, manifest.day_digest()),
        (entry.day, entry.window, entry.revision, entry.state, entry.digest.clone()),
    );
    if of_manifest != of_entry {
        return Err(Failure::new(
            Class::Integrity,
            format!("{} is not the manifest of {} r{}", entry.manifest.key, entry.day, entry.revision),
        )
        .meaning("nothing of the day was read or changed")
        .next("publish the day again with `pgslice export --date … --force`")
        .into());
    }
    Ok(manifest)
}

fn is_transient(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_transient))
}

fn unreadable(url: &str, error: &DocumentError) -> anyhow::Error {
    Failure::new(Class::Integrity, format!("{url}: {error}")).meaning("nothing of the feed was read or changed").into()
}

fn vanished(store: &dyn Store) -> anyhow::Error {
    Failure::new(Class::Integrity, format!("{}: feed.json is gone", store.url()))
        .meaning("the published days are still in the store, but nothing points to them")
        .into()
}

fn contended(store: &dyn Store) -> anyhow::Error {
    Failure::new(Class::Transient, format!("{}: feed.json could not be changed in {ATTEMPTS} attempts", store.url()))
        .meaning("other writers were faster, or the store's answers were lost; nothing half-done is visible")
        .next("run the same command again")
        .into()
}

async fn publish_page(store: &dyn Store, feed: &Feed) {
    if let Err(error) = store.replace(&Key::index(), page::index_html(feed).into()).await {
        tracing::warn!("index.html was not updated ({error}); the feed itself is published");
    }
}

/// Waits a random while that grows with the attempt, up to about a second.
async fn pause(attempt: u32) {
    let most = 20_u64 << attempt.min(6);
    let millis = rand::rng().random_range(most / 2..=most);
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[cfg(test)]
mod tests;
