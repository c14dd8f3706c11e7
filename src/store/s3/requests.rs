//! One function per kind of request, and what each says of the object.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::anyhow;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier,
    ServerSideEncryption, StorageClass,
};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect;
use super::failure::Refusal;
use crate::config::{Checksum, Encryption};
use crate::error::{Class, Failure};
use crate::layout::{FEED, INDEX, Key};
use crate::store::{Access, StoreError, Validator, Version};

/// The entry of an object's own metadata that identifies the upload.
const TOKEN: &str = "pgslice-upload";
/// What DeleteObjects takes at most. Source: S3 API, DeleteObjects.
pub(super) const KEYS_PER_REQUEST: usize = 1_000;
/// What may be kept and shown by anybody for good: names are never used twice.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// What changes: the head and its page.
const SHORT_LIVED: &str = "public, max-age=60";

/// What uploads share with their store.
pub(super) struct Inner {
    pub(super) client: Client,
    pub(super) requests: Arc<AtomicU64>,
    pub(super) bucket: String,
    /// Empty, or ending in a slash.
    pub(super) prefix: String,
    pub(super) conditions: Conditions,
    /// If-Match wants ETags without quotes, against RFC 9110: Ceph, and stores made of it.
    pub(super) bare_etags: AtomicBool,
    /// Several objects cannot be deleted by one request: Google's, and gateways.
    pub(super) deletes_singly: AtomicBool,
    pub(super) access: Access,
    pub(super) part_bytes: usize,
    pub(super) max_parts: u32,
    pub(super) checksum: Checksum,
    pub(super) storage_class: Option<StorageClass>,
    pub(super) encryption: Option<Encryption>,
    /// `name=value&…`, percent-encoded.
    pub(super) tags: Option<String>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) budget: Arc<Semaphore>,
}

/// How a condition is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conditions {
    /// By the server, atomically.
    Server,
    /// By reading before writing: right only while nobody else writes.
    Reading,
}

/// What a write asks of the object that is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Condition<'v> {
    /// Nothing.
    None,
    /// That there is none.
    Absent,
    /// That it is this version.
    Is(&'v Version),
}

/// What every request that makes an object says about it.
macro_rules! described {
    ($store:expr, $request:expr, $key:expr) => {{
        let (store, key): (&Inner, &Key) = ($store, $key);
        let (encryption, kms_key) = match &store.encryption {
            None => (None, None),
            Some(Encryption::Store) => (Some(ServerSideEncryption::Aes256), None),
            Some(Encryption::Kms(key)) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        };
        $request
            .bucket(&store.bucket)
            .key(store.name(key))
            .content_type(content_type(key))
            .cache_control(cache_control(key))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_tagging(store.tags.clone())
    }};
}

/// The condition as headers, where the server judges it.
macro_rules! conditional {
    ($store:expr, $request:expr, $condition:expr) => {{
        let (absent, is) = match ($store.conditions, $condition) {
            (Conditions::Reading, _) | (_, Condition::None) => (None, None),
            (Conditions::Server, Condition::Absent) => (Some("*".to_owned()), None),
            (Conditions::Server, Condition::Is(version)) => (None, Some($store.as_if_match(version))),
        };
        $request.set_if_none_match(absent).set_if_match(is)
    }};
}

impl Inner {
    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    fn as_if_match(&self, Version(e_tag): &Version) -> String {
        if self.bare_etags.load(Ordering::Relaxed) { e_tag.trim_matches('"').to_owned() } else { e_tag.clone() }
    }

    /// What was attempted, and on which object.
    pub(super) fn at(&self, attempted: &str, key: &Key) -> String {
        format!("{attempted} s3://{}/{}{key}", self.bucket, self.prefix)
    }

    pub(super) fn may_write(&self, key: &Key) -> Result<(), StoreError> {
        if self.access == Access::ReadWrite {
            return Ok(());
        }
        Err(StoreError::Denied {
            what: self.at("cannot write", key),
            source: anyhow!("the store was opened for reading only"),
        })
    }

    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    pub(super) fn share_of_budget(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.budget).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }

    fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        match self.checksum {
            Checksum::Crc32 => Some(ChecksumAlgorithm::Crc32),
            Checksum::Crc64Nvme => Some(ChecksumAlgorithm::Crc64Nvme),
            Checksum::WhenRequired => None,
        }
    }

    /// Judges a condition by reading, where the server does not.
    pub(super) async fn holds(&self, key: &Key, condition: Condition<'_>) -> Result<bool, StoreError> {
        let wanted = match (self.conditions, condition) {
            (Conditions::Server, _) | (_, Condition::None) => return Ok(true),
            (Conditions::Reading, Condition::Absent) => None,
            (Conditions::Reading, Condition::Is(version)) => Some(&version.0),
        };
        // By GET: only its 404 names what is missing.
        let present = match self.get(key, None).await {
            Ok(present) => present,
            Err(GetRefusal::Store(error)) => return Err(error),
            Err(GetRefusal::NoSuchRange | GetRefusal::NotModified) => return Ok(false),
        };
        Ok(present.map(|present| present.e_tag.unwrap_or_default()).as_ref() == wanted)
    }

    /// One request for a whole object. With the token of an upload it is a part of a slice.
    pub(super) async fn put_object(
        &self,
        key: &Key,
        content: Bytes,
        condition: Condition<'_>,
        token: Option<&str>,
    ) -> Result<(), Refusal> {
        let request = described!(self, self.client.put_object(), key)
            .set_checksum_algorithm(self.algorithm())
            .set_storage_class(token.and(self.storage_class.clone()))
            .set_metadata(token.map(|token| [(TOKEN.to_owned(), token.to_owned())].into()))
            .body(ByteStream::from(content));
        conditional!(self, request, condition).send().await.map(|_| ()).map_err(|error| Refusal::of(&error))
    }

    /// Begins a multipart upload of an object that nobody else writes. When an answer is lost, what it told of is taken
    /// back before the next attempt: nothing else would ever know of that upload.
    pub(super) async fn create_multipart(&self, key: &Key, token: &str) -> Result<String, StoreError> {
        let mut attempt = 1;
        loop {
            let refusal = match self.try_create_multipart(key, token).await {
                Ok(created) => return Ok(created),
                Err(refusal) => refusal,
            };
            let is_definite = refusal.is_definite();
            let error = refusal.into_error(self.at("cannot begin", key));
            if !is_definite {
                self.abort_unknown(key).await;
            }
            if !error.is_transient() || attempt == connect::ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(connect::pause(attempt)).await;
            attempt += 1;
        }
    }

    async fn try_create_multipart(&self, key: &Key, token: &str) -> Result<String, Refusal> {
        // CRC64NVME is checked over the whole object; of CRC32 the parts' are kept.
        let whole = (self.checksum == Checksum::Crc64Nvme).then_some(ChecksumType::FullObject);
        let once = soon().retry_config(RetryConfig::disabled());
        let created = described!(self, self.client.create_multipart_upload(), key)
            .set_checksum_algorithm(self.algorithm())
            .set_checksum_type(whole)
            .set_storage_class(self.storage_class.clone())
            .metadata(TOKEN, token)
            .customize()
            .config_override(once)
            .send()
            .await
            .map_err(|error| Refusal::of(&error))?;
        created.upload_id.ok_or_else(|| Refusal::of_answer("the server named no upload"))
    }

    /// Aborts every upload of `key`, as far as the server lets it.
    async fn abort_unknown(&self, key: &Key) {
        let name = self.name(key);
        let listed = self
            .client
            .list_multipart_uploads()
            .bucket(&self.bucket)
            .prefix(&name)
            .customize()
            .config_override(soon())
            .send()
            .await;
        match listed.map_err(|error| Refusal::of(&error)) {
            Ok(listed) => {
                let ours = listed.uploads().iter().filter(|upload| upload.key() == Some(&name));
                for upload_id in ours.filter_map(|upload| upload.upload_id()) {
                    if let Err(left) = self.abort_multipart(key, upload_id).await {
                        tracing::warn!("an unfinished upload of {name} is left in the store: {left}");
                    }
                }
            }
            Err(refusal) => {
                tracing::warn!(
                    "an unfinished upload of {name} may be left in the store: cannot look for it: {refusal}"
                );
            }
        }
    }

    pub(super) async fn upload_part(
        &self,
        key: &Key,
        upload_id: &str,
        number: u32,
        content: Bytes,
    ) -> Result<CompletedPart, StoreError> {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let sent = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(self.name(key))
            .upload_id(upload_id)
            .part_number(number)
            .set_checksum_algorithm(self.algorithm())
            .body(ByteStream::from(content))
            .send()
            .await
            .map_err(|error| Refusal::of(&error).into_error(self.at("cannot send a part of", key)))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .set_checksum_crc64_nvme(sent.checksum_crc64_nvme)
            .build())
    }

    pub(super) async fn complete_multipart(
        &self,
        key: &Key,
        upload_id: &str,
        parts: CompletedMultipartUpload,
    ) -> Result<(), Refusal> {
        let whole = (self.checksum == Checksum::Crc64Nvme).then_some(ChecksumType::FullObject);
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(self.name(key))
            .upload_id(upload_id)
            .set_checksum_type(whole)
            .multipart_upload(parts);
        let conditional = conditional!(self, request.clone(), Condition::Absent);
        match conditional.send().await.map_err(|error| Refusal::of(&error)) {
            // A server that knows the condition on PUT only. The name is random and used once.
            Err(refusal) if refusal.is_not_implemented() => {
                request.send().await.map(|_| ()).map_err(|error| Refusal::of(&error))
            }
            other => other.map(|_| ()),
        }
    }

    /// Aborts an upload; one that the server does not know (any more) is no error.
    pub(super) async fn abort_multipart(&self, key: &Key, upload_id: &str) -> Result<(), StoreError> {
        let aborted =
            self.client.abort_multipart_upload().bucket(&self.bucket).key(self.name(key)).upload_id(upload_id);
        match aborted.customize().config_override(soon()).send().await.map_err(|error| Refusal::of(&error)) {
            Err(refusal) if !refusal.is_missing() => Err(refusal.into_error(self.at("cannot abort an upload of", key))),
            _ => Ok(()),
        }
    }

    /// Deletes an object; one that is not there is no error.
    pub(super) async fn delete_object(&self, key: &Key) -> Result<(), StoreError> {
        let deleted = self.client.delete_object().bucket(&self.bucket).key(self.name(key));
        match deleted.customize().config_override(soon()).send().await.map_err(|error| Refusal::of(&error)) {
            Err(refusal) if !refusal.is_missing() => Err(refusal.into_error(self.at("cannot delete", key))),
            _ => Ok(()),
        }
    }

    /// Deletes up to [`KEYS_PER_REQUEST`] objects by one request; those that are not there are no error.
    ///
    /// # Errors
    /// [`Undeleted::Refused`] where the server does not know such requests, or takes this one amiss: nothing was deleted,
    /// and each may be deleted alone.
    pub(super) async fn delete_objects(&self, keys: &[Key]) -> Result<(), Undeleted> {
        let objects: Result<Vec<ObjectIdentifier>, _> =
            keys.iter().map(|key| ObjectIdentifier::builder().key(self.name(key)).build()).collect();
        let named = objects.and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
        let what = || format!("cannot delete objects below s3://{}/{}", self.bucket, self.prefix);
        let named = named.map_err(|error| StoreError::Other { what: what(), source: anyhow::Error::new(error) })?;
        let request =
            self.client.delete_objects().bucket(&self.bucket).delete(named).set_checksum_algorithm(self.algorithm());
        let answer = request.customize().config_override(soon()).send().await.map_err(|error| Refusal::of(&error));
        match answer {
            // Those that stay are asked for once more, each alone: its refusal says why.
            Ok(deleted) => {
                for stays in deleted.errors() {
                    let key = keys.iter().find(|key| stays.key() == Some(self.name(key).as_str()));
                    let unnamed = || StoreError::Other {
                        what: what(),
                        source: anyhow!("the server says that an object stays which was not to be deleted"),
                    };
                    self.delete_object(key.ok_or_else(unnamed)?).await?;
                }
                Ok(())
            }
            Err(refusal) if refusal.is_of_request() => Err(Undeleted::Refused),
            Err(refusal) => Err(refusal.into_error(what()).into()),
        }
    }

    pub(super) async fn head(&self, key: &Key) -> Result<Option<Head>, StoreError> {
        let answer = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(self.name(key))
            .customize()
            .config_override(soon())
            .send()
            .await
            .map_err(|error| Refusal::of(&error));
        match answer {
            Ok(head) => Ok(Some(Head {
                version: head.e_tag.unwrap_or_default(),
                bytes: head.content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
                token: head.metadata.and_then(|mut metadata| metadata.remove(TOKEN)),
            })),
            Err(refusal) if refusal.is_missing() => Ok(None),
            Err(refusal) => Err(refusal.into_error(self.at("cannot look at", key))),
        }
    }

    /// The objects below the prefix, page by page. Other names than those of keys are somebody else's.
    pub(super) async fn list(&self) -> Result<Vec<Key>, StoreError> {
        let mut keys: Vec<Key> = Vec::new();
        let mut next_page = None;
        loop {
            let seen_page: Option<String> = next_page.clone();
            let request = self.client.list_objects_v2().bucket(&self.bucket).set_continuation_token(next_page);
            let request = request.set_prefix((!self.prefix.is_empty()).then(|| self.prefix.clone()));
            let page = request.customize().config_override(soon()).send().await.map_err(|error| {
                Refusal::of(&error).into_error(format!("cannot list s3://{}/{}", self.bucket, self.prefix))
            })?;
            let names = page.contents().iter().filter_map(|object| object.key()?.strip_prefix(&self.prefix));
            keys.extend(names.filter_map(|name| name.parse::<Key>().ok()));
            let is_cut = page.is_truncated.unwrap_or(false);
            match page.next_continuation_token {
                None if !is_cut => {
                    keys.sort_unstable();
                    return Ok(keys);
                }
                // A part of the names must not pass for all of them.
                next if next.is_none() || next == seen_page => {
                    let what = format!("cannot list s3://{}/{}", self.bucket, self.prefix);
                    return Err(StoreError::Other { what, source: anyhow!("the server ends the list before its end") });
                }
                next => next_page = next,
            }
        }
    }

    /// The beginning of an answer; `None` when there is no such object.
    pub(super) async fn get(&self, key: &Key, range: Option<String>) -> Result<Option<GetObjectOutput>, GetRefusal> {
        self.get_unless(key, range, None).await
    }

    /// As [`Inner::get`]; [`GetRefusal::NotModified`] when the object has the ETag that was `seen`.
    pub(super) async fn get_unless(
        &self,
        key: &Key,
        range: Option<String>,
        seen: Option<&Validator>,
    ) -> Result<Option<GetObjectOutput>, GetRefusal> {
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.name(key))
            .set_range(range)
            .set_if_none_match(seen.map(|Validator(e_tag)| e_tag.clone()))
            .customize()
            .config_override(soon())
            .send()
            .await;
        let error = match answer {
            Ok(output) => return Ok(Some(output)),
            Err(error) => error,
        };
        let refusal = Refusal::of(&error);
        match error.as_service_error() {
            Some(GetObjectError::InvalidObjectState(state)) => {
                let class = state.storage_class().map_or("an archive", StorageClass::as_str);
                Err(GetRefusal::Store(self.archived(key, class)))
            }
            _ if refusal.status == Some(304) && seen.is_some() => Err(GetRefusal::NotModified),
            _ if refusal.names_missing_key() => Ok(None),
            _ if refusal.status == Some(416) => Err(GetRefusal::NoSuchRange),
            _ => Err(GetRefusal::Store(refusal.into_error(self.at("cannot read", key)))),
        }
    }

    fn archived(&self, key: &Key, class: &str) -> StoreError {
        let name = self.name(key);
        StoreError::Archived {
            key: key.clone(),
            source: Failure::new(Class::Transient, format!("it is archived in {class}, where nothing can be read"))
                .meaning("days before it are applied; nothing of its own day is")
                .next(format!(
                    "have it restored, and likewise the other parts of the days that are missing (`pgslice ls` names \
                     them): aws s3api restore-object --bucket {} --key '{name}' --restore-request Days=7; when the \
                     store has done so, in minutes to hours, the next run goes on",
                    self.bucket
                ))
                .into(),
        }
    }
}

/// Why several objects were not deleted at once.
pub(super) enum Undeleted {
    /// The server does not delete in this way.
    Refused,
    Store(StoreError),
}

impl From<StoreError> for Undeleted {
    fn from(error: StoreError) -> Undeleted {
        Undeleted::Store(error)
    }
}

/// What HEAD tells.
pub(super) struct Head {
    pub(super) version: String,
    pub(super) bytes: u64,
    pub(super) token: Option<String>,
}

/// Why nothing is read.
pub(super) enum GetRefusal {
    /// The object ends before the range begins.
    NoSuchRange,
    /// It is the one that was seen.
    NotModified,
    Store(StoreError),
}

/// Patience for requests without a body.
fn soon() -> aws_sdk_s3::config::Builder {
    let timeouts = aws_sdk_s3::config::timeout::TimeoutConfig::builder().read_timeout(connect::ANSWER).build();
    aws_sdk_s3::config::Builder::new().timeout_config(timeouts)
}

/// What a browser, a proxy or `curl -O` is told that an object is.
fn content_type(key: &Key) -> &'static str {
    match key.file_name().rsplit_once('.').map(|(_, suffix)| suffix) {
        Some("json") => "application/json",
        Some("html") => "text/html; charset=utf-8",
        Some("zst") => "application/zstd",
        _ => "text/plain; charset=utf-8",
    }
}

/// How long caches on the way may keep an object.
fn cache_control(key: &Key) -> &'static str {
    if [FEED, INDEX].contains(&key.as_str()) { SHORT_LIVED } else { IMMUTABLE }
}
