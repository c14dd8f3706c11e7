//! A feed in a bucket of S3 or a server like it.
//!
//! | promise of the store | how it is kept here |
//! |---|---|
//! | whole or not at all | one PUT, or a multipart upload that is completed |
//! | never replaced | `If-None-Match: *` on PUT and on the completion |
//! | of two swaps one loses | `If-Match` with the ETag that was read |
//! | lost answers | the SDK repeats a request and meets its own write; uploads carry a token that tells |
//!
//! Conditional writes are proved at each opening for writing, by four requests, since some servers ignore them in
//! silence. A store without them is refused, unless the configuration says that writers are kept apart
//! ([`SingleWriter`]); then conditions are judged by reading first.
//!
//! Memory: each upload under way fills one part, [`SLOTS`] more are being sent, and [`BUDGET_BYTES`] hold objects that
//! are sealed and wait for their finish. With the default parts of 16 MiB and two jobs: 160 MiB at most, and a day of
//! small tables far less.

mod connect;
mod failure;
mod requests;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;
use async_trait::async_trait;
use aws_sdk_s3::config::SharedCredentialsProvider;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStreamError;
use aws_sdk_s3::types::StorageClass;
use bytes::{Bytes, BytesMut};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::requests::{Condition, Conditions, GetRefusal, Inner, KEYS_PER_REQUEST, Undeleted};
use self::upload::S3Upload;
use super::{Access, Reading, Store, StoreError, Swap, Upload, Validator, Version};
use crate::config::{S3Config, SingleWriter, StoreConfig};
use crate::error::{Class, Failure};
use crate::layout::Key;

/// Parts that are sent at the same time, by all uploads of a run together.
const SLOTS: usize = 4;
/// Bytes of sealed objects that wait for their finish in memory; more are sent before.
const BUDGET_BYTES: usize = 64 << 20;
/// Deletions under way at the same time, where each object is deleted by a request of its own:
const DELETIONS: usize = 8;
/// fewer than these, which saves nothing by one request for all, and all where the server knows no other way.
const FEW_KEYS: usize = 3;
/// What is allocated for a range at once.
const ROOM_BYTES: usize = 4 << 20;
/// How often a body that was cut is asked for again without a byte gained.
const CUTS: u32 = 4;
/// How often an object's own ETag is tried before it is believed that it does not match.
const PROOFS: u32 = 3;
/// What the object behind [`Key::write_test`] holds.
const WRITE_TEST: &str = "pgslice writes this object to find out whether the store honours conditional writes.\n";

/// A prefix of a bucket.
pub struct S3Store(Arc<Inner>);

/// The bucket and the prefix of `s3://bucket/prefix`, the prefix without slashes at its ends.
///
/// # Errors
/// In words that follow the url: it names no bucket, or a prefix that no key could follow.
pub fn bucket_and_prefix(url: &str) -> Result<(&str, &str), &'static str> {
    let rest = url.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("s3://")).map_or("", |_| &url[5..]);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err("names no bucket");
    }
    let prefix = prefix.trim_end_matches('/');
    let plain = |segment: &str| !["", ".", ".."].contains(&segment) && !segment.contains(char::is_control);
    if !prefix.is_empty() && !prefix.split('/').all(plain) {
        return Err("has an empty segment, \".\" or \"..\" in its prefix");
    }
    Ok((bucket, prefix))
}

impl S3Store {
    /// Opens the store. For writing it proves first that the server honours conditional writes.
    ///
    /// # Errors
    /// Class Usage for what the configuration lacks, and for a store without conditional writes unless
    /// `single-writer` accepts it; else the class of the server's refusal.
    pub async fn open(url: &str, config: &StoreConfig, access: Access) -> anyhow::Result<S3Store> {
        Self::open_as(None, url, config, access).await
    }

    /// [`S3Store::open`] with given credentials instead of those that the environment provides.
    ///
    /// # Errors
    /// As [`S3Store::open`].
    pub async fn open_as(
        credentials: Option<SharedCredentialsProvider>,
        url: &str,
        config: &StoreConfig,
        access: Access,
    ) -> anyhow::Result<S3Store> {
        let (bucket, prefix) = bucket_and_prefix(url).map_err(|problem| {
            Failure::new(Class::Usage, format!("store.url {problem}"))
                .meaning("nothing was attempted")
                .next("write it as s3://bucket/prefix; credentials come from the environment or a profile")
        })?;
        let (client, requests) = connect::connect(config, credentials).await?;
        let S3Config { storage_class, encryption, tags, checksum, part_bytes, max_parts, .. } = &config.s3;
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let tags: Vec<String> =
            tags.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let store = S3Store(Arc::new(Inner {
            client,
            requests,
            bucket: bucket.to_owned(),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            conditions: match config.single_writer {
                SingleWriter::No => Conditions::Server,
                SingleWriter::Yes => Conditions::Reading,
            },
            bare_etags: AtomicBool::new(false),
            deletes_singly: AtomicBool::new(false),
            access,
            part_bytes: usize::try_from(*part_bytes)?,
            max_parts: *max_parts,
            checksum: *checksum,
            storage_class: storage_class.as_deref().map(StorageClass::from),
            encryption: encryption.clone(),
            tags: (!tags.is_empty()).then(|| tags.join("&")),
            slots: Arc::new(Semaphore::new(SLOTS)),
            budget: Arc::new(Semaphore::new(BUDGET_BYTES)),
        }));
        if access == Access::ReadWrite && store.0.conditions == Conditions::Server {
            store.prove_conditions().await?;
        }
        Ok(store)
    }

    /// Writes an object of fixed content under conditions that do not hold, and under one that does. A server that obeys
    /// writes nothing, and then the same bytes again; so does one that ignores them.
    async fn prove_conditions(&self) -> anyhow::Result<()> {
        let nobody = Version("\"00000000000000000000000000000000\"".to_owned());
        let proof = async {
            // The object stays, so that from the second run on one request of the kind is enough.
            if self.write_test(Condition::Absent).await? == Swap::Done
                && self.write_test(Condition::Absent).await? == Swap::Done
            {
                return Ok(Some("ignores If-None-Match"));
            }
            if self.write_test(Condition::Is(&nobody)).await? == Swap::Done {
                return Ok(Some("ignores If-Match"));
            }
            for attempt in 1..=PROOFS {
                let Some(head) = self.0.head(&Key::write_test()).await? else { continue };
                let own = Version(head.version);
                if self.write_test(Condition::Is(&own)).await? == Swap::Done {
                    return Ok(None);
                }
                // Another run's proof may have come between. Or the server wants ETags without their quotes.
                if attempt == PROOFS {
                    self.0.bare_etags.store(true, Ordering::Relaxed);
                    let obeys = self.write_test(Condition::Is(&own)).await? == Swap::Done
                        && self.write_test(Condition::Is(&nobody)).await? == Swap::Conflict;
                    return Ok((!obeys).then_some("refuses If-Match with an object's own ETag"));
                }
                tokio::time::sleep(connect::pause(0)).await;
            }
            Ok(Some("loses objects"))
        };
        let problem = match proof.await {
            // Perhaps it is the condition that is refused, perhaps writing as such.
            Err(StoreError::Other { .. }) if self.write_test(Condition::None).await.is_ok() => {
                Some("refuses conditions")
            }
            other => other?,
        };
        match problem {
            None => Ok(()),
            Some(problem) => Err(Failure::new(
                Class::Usage,
                format!("{} has no conditional writes (it {problem}): two writers would not notice each other", self.url()),
            )
            .meaning("nothing was published; with two writers published days could be lost from feed.json")
            .next("if only one machine ever exports and prunes, say single-writer = true in [store]; see docs/operating.md")
            .into()),
        }
    }

    async fn write_test(&self, condition: Condition<'_>) -> Result<Swap, StoreError> {
        self.put(&Key::write_test(), WRITE_TEST.into(), condition).await
    }

    /// A small object, in the standard class.
    async fn put(&self, key: &Key, content: Bytes, condition: Condition<'_>) -> Result<Swap, StoreError> {
        let store = &*self.0;
        store.may_write(key)?;
        if matches!(condition, Condition::Is(version) if version.0.is_empty()) {
            return Err(StoreError::Other {
                what: store.at("cannot write", key),
                source: anyhow!("the server gives its objects no ETag to tell their versions by"),
            });
        }
        if !store.holds(key, condition).await? {
            return Ok(Swap::Conflict);
        }
        match store.put_object(key, content, condition, None).await {
            Ok(()) => Ok(Swap::Done),
            Err(refusal) if refusal.is_unmet_condition() => Ok(Swap::Conflict),
            // Somebody else's write was under way; or the object that If-Match speaks of is gone.
            Err(refusal) if !matches!(condition, Condition::None) && refusal.is_conflict() => Ok(Swap::Conflict),
            Err(refusal) if matches!(condition, Condition::Is(_)) && refusal.is_missing() => Ok(Swap::Conflict),
            Err(refusal) => Err(refusal.into_error(store.at("cannot write", key))),
        }
    }
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> String {
        format!("s3://{}/{}", self.0.bucket, self.0.prefix.trim_end_matches('/'))
    }

    fn max_object_bytes(&self) -> u64 {
        // 5 TiB: AWS's limit of any object, <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
        (self.0.part_bytes as u64 * u64::from(self.0.max_parts)).min(5 << 40)
    }

    fn requests(&self) -> Option<u64> {
        Some(self.0.requests.load(Ordering::Relaxed))
    }

    async fn read(&self, key: &Key, max_bytes: u64) -> Result<Option<(Bytes, Version)>, StoreError> {
        Ok(match self.read_unless(key, max_bytes, None).await? {
            Whole::Content(content, e_tag) => Some((content, Version(e_tag))),
            Whole::Absent | Whole::Unchanged => None,
        })
    }

    async fn read_if_changed(
        &self,
        key: &Key,
        max_bytes: u64,
        seen: Option<&Validator>,
    ) -> Result<Reading, StoreError> {
        Ok(match self.read_unless(key, max_bytes, seen).await? {
            Whole::Content(content, e_tag) => {
                Reading::Content(content, (!e_tag.is_empty()).then_some(Validator(e_tag)))
            }
            Whole::Absent => Reading::Absent,
            Whole::Unchanged => Reading::Unchanged,
        })
    }

    async fn read_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let missing = || StoreError::NotFound(key.clone());
        if length == 0 {
            let head = self.0.head(key).await?.ok_or_else(missing)?;
            return if offset <= head.bytes { Ok(Bytes::new()) } else { Err(self.too_short(key)) };
        }
        // No object is as long as a number of 63 bits, and servers refuse longer ones.
        let end = offset.checked_add(length).ok_or_else(|| self.too_short(key))?.min(u64::MAX >> 1);
        // More than that only as it arrives: the length is a feed's word.
        let mut content = BytesMut::with_capacity(usize::try_from(length).unwrap_or(usize::MAX).min(ROOM_BYTES));
        let mut cuts = 0;
        loop {
            let have = content.len() as u64;
            let range = format!("bytes={}-{}", offset + have, end - 1);
            let output = match self.0.get(key, Some(range)).await {
                Ok(Some(output)) => output,
                Ok(None) => return Err(missing()),
                Err(GetRefusal::Store(error)) => return Err(error),
                Err(GetRefusal::NoSuchRange | GetRefusal::NotModified) => return Err(self.too_short(key)),
            };
            // What lies beyond the object's end is left out of the answer.
            if length_of(&output) != length - have {
                return Err(self.too_short(key));
            }
            match append(output, &mut content, length - have).await {
                Ok(()) => return Ok(content.freeze()),
                // What has arrived is kept, and counts as progress.
                Err(_) if content.len() as u64 > have => cuts = 0,
                Err(cut) if cuts == CUTS => return Err(self.cut_off(key, cut)),
                Err(_) => cuts += 1,
            }
            tokio::time::sleep(connect::pause(cuts)).await;
        }
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        Ok(self.0.head(key).await?.map(|head| head.bytes))
    }

    async fn list(&self) -> Result<Vec<Key>, StoreError> {
        self.0.list().await
    }

    async fn create(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        match self.put(key, content, Condition::Absent).await? {
            Swap::Done => Ok(()),
            Swap::Conflict => Err(StoreError::Exists(key.clone())),
        }
    }

    async fn swap(&self, key: &Key, seen: Option<&Version>, content: Bytes) -> Result<Swap, StoreError> {
        self.put(key, content, seen.map_or(Condition::Absent, Condition::Is)).await
    }

    async fn replace(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        // Without a condition there is no conflict.
        self.put(key, content, Condition::None).await.map(|_| ())
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, StoreError> {
        self.0.may_write(key)?;
        Ok(Box::new(S3Upload::new(Arc::clone(&self.0), key)))
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), StoreError> {
        for keys in keys.chunks(KEYS_PER_REQUEST) {
            keys.iter().try_for_each(|key| self.0.may_write(key))?;
            if keys.len() < FEW_KEYS || self.0.deletes_singly.load(Ordering::Relaxed) {
                self.delete_singly(keys).await?;
                continue;
            }
            match self.0.delete_objects(keys).await {
                Ok(()) => {}
                Err(Undeleted::Refused) => {
                    self.0.deletes_singly.store(true, Ordering::Relaxed);
                    self.delete_singly(keys).await?;
                }
                Err(Undeleted::Store(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

impl S3Store {
    /// By a request for each.
    async fn delete_singly(&self, keys: &[Key]) -> Result<(), StoreError> {
        let mut waiting = keys.iter().cloned();
        let mut deleting = JoinSet::new();
        let mut outcome = Ok(());
        loop {
            while deleting.len() < DELETIONS
                && outcome.is_ok()
                && let Some(key) = waiting.next()
            {
                let store = Arc::clone(&self.0);
                deleting.spawn(async move { store.delete_object(&key).await });
            }
            let Some(deleted) = deleting.join_next().await else { return outcome };
            let deleted = deleted.unwrap_or_else(|panic| {
                Err(StoreError::Other { what: "cannot delete".to_owned(), source: anyhow::Error::new(panic) })
            });
            outcome = outcome.and(deleted);
        }
    }
}

/// What an object was found to be.
enum Whole {
    /// Its content and its ETag, which is empty where the server tells none.
    Content(Bytes, String),
    Absent,
    Unchanged,
}

impl S3Store {
    async fn read_unless(&self, key: &Key, max_bytes: u64, seen: Option<&Validator>) -> Result<Whole, StoreError> {
        let mut cuts = 0;
        loop {
            let output = match self.0.get_unless(key, None, seen).await {
                Ok(Some(output)) => output,
                Ok(None) => return Ok(Whole::Absent),
                Err(GetRefusal::NotModified) => return Ok(Whole::Unchanged),
                Err(GetRefusal::Store(error)) => return Err(error),
                Err(GetRefusal::NoSuchRange) => return Err(self.too_short(key)),
            };
            let length = length_of(&output);
            if length > max_bytes {
                return Err(StoreError::Size {
                    key: key.clone(),
                    problem: format!("has {length} bytes, more than the {max_bytes} that are read"),
                });
            }
            let e_tag = output.e_tag.clone().unwrap_or_default();
            let mut content = BytesMut::new();
            match append(output, &mut content, length).await {
                Ok(()) => return Ok(Whole::Content(content.freeze(), e_tag)),
                Err(cut) if cuts == CUTS => return Err(self.cut_off(key, cut)),
                Err(_) => cuts += 1,
            }
            tokio::time::sleep(connect::pause(cuts)).await;
        }
    }

    fn too_short(&self, key: &Key) -> StoreError {
        StoreError::Size { key: key.clone(), problem: "ends before the bytes that were asked for".to_owned() }
    }

    fn cut_off(&self, key: &Key, cut: Cut) -> StoreError {
        let source = match cut {
            Cut::Line(error) => anyhow::Error::new(error),
            Cut::Length => anyhow!("the answer is not as long as it says"),
        };
        StoreError::Transient { what: self.0.at("the line was cut again and again: cannot read", key), source }
    }
}

/// Why a body ended early.
enum Cut {
    Line(ByteStreamError),
    Length,
}

fn length_of(output: &GetObjectOutput) -> u64 {
    output.content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
}

/// Appends the body, which must have `length` bytes; what arrives before a cut is appended too.
async fn append(mut output: GetObjectOutput, content: &mut BytesMut, length: u64) -> Result<(), Cut> {
    let mut left = length;
    while let Some(piece) = output.body.next().await {
        let piece = piece.map_err(Cut::Line)?;
        left = left.checked_sub(piece.len() as u64).ok_or(Cut::Length)?;
        content.extend_from_slice(&piece);
    }
    if left == 0 { Ok(()) } else { Err(Cut::Length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_bucket_and_a_prefix() {
        for (url, bucket, prefix) in [
            ("s3://dumps/datanommer", "dumps", "datanommer"),
            ("S3://dumps/a/b/", "dumps", "a/b"),
            ("s3://my.dumps", "my.dumps", ""),
            ("s3://dumps/", "dumps", ""),
        ] {
            assert_eq!(bucket_and_prefix(url), Ok((bucket, prefix)), "{url}");
        }
    }

    #[test]
    fn a_url_without_a_bucket_or_with_an_odd_prefix_is_refused() {
        for url in [
            "s3://",
            "s3:///a",
            "s3:dumps",
            "s3://user:secret@dumps/x",
            "s3://dumps//a",
            "s3://dumps/../a",
            "s3://d/a\n",
        ] {
            assert!(bucket_and_prefix(url).is_err(), "{url}");
        }
    }
}
