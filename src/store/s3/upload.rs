//! One object of unknown length: a single request if it fits in one part, else a multipart upload.

use std::mem;
use std::sync::Arc;

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinHandle, JoinSet};

use super::failure::Refusal;
use super::requests::{Condition, Inner};
use crate::head::random_feed_id;
use crate::layout::Key;
use crate::store::{StoreError, Upload};

/// An upload. What it holds: the part being filled, and after [`Upload::seal`] nothing that the store's budget does
/// not count.
pub(super) struct S3Upload {
    store: Arc<Inner>,
    key: Key,
    /// Its identity, kept with the object: tells an upload whose answer was lost from another's.
    token: String,
    filling: BytesMut,
    /// What waits for the finish, and its share of the budget.
    sealed: Option<(Bytes, OwnedSemaphorePermit)>,
    /// The beginning of a multipart upload, in a task of its own: a write that is dropped half-way must not lose it.
    beginning: Option<JoinHandle<Result<String, StoreError>>>,
    multipart: Option<Multipart>,
    bytes: u64,
}

struct Multipart {
    upload_id: String,
    parts: u32,
    sending: JoinSet<Result<CompletedPart, StoreError>>,
    sent: Vec<CompletedPart>,
}

impl Multipart {
    fn take(
        &mut self,
        joined: Result<Result<CompletedPart, StoreError>, tokio::task::JoinError>,
    ) -> Result<(), StoreError> {
        let part = joined.map_err(|panic| StoreError::Other {
            what: "cannot send a part".to_owned(),
            source: anyhow::Error::new(panic),
        })??;
        self.sent.push(part);
        Ok(())
    }
}

impl Multipart {
    /// Twice, since a part that was arriving may outlive the first abort:
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html>.
    async fn take_back(mut self, store: &Inner, key: &Key) -> Result<(), StoreError> {
        self.sending.shutdown().await;
        store.abort_multipart(key, &self.upload_id).await?;
        store.abort_multipart(key, &self.upload_id).await
    }
}

impl S3Upload {
    pub(super) fn new(store: Arc<Inner>, key: &Key) -> S3Upload {
        S3Upload {
            store,
            key: key.clone(),
            token: random_feed_id(),
            filling: BytesMut::new(),
            sealed: None,
            beginning: None,
            multipart: None,
            bytes: 0,
        }
    }

    /// Sends the part that was filled, as soon as one of the store's slots is free.
    async fn send(&mut self) -> Result<(), StoreError> {
        let content = mem::take(&mut self.filling).freeze();
        self.send_part(content).await
    }

    async fn send_part(&mut self, content: Bytes) -> Result<(), StoreError> {
        if self.multipart.is_none() {
            let (store, key, token) = (Arc::clone(&self.store), self.key.clone(), self.token.clone());
            self.beginning = Some(tokio::spawn(async move { store.create_multipart(&key, &token).await }));
            self.begun().await?;
        }
        let Some(multipart) = &mut self.multipart else { return Ok(()) };
        if multipart.parts == self.store.max_parts {
            return Err(StoreError::Other {
                what: self.store.at("cannot write", &self.key),
                source: anyhow::anyhow!(
                    "one row needs more than {} parts of {} bytes: raise store.part-size",
                    self.store.max_parts,
                    self.store.part_bytes
                ),
            });
        }
        while let Some(joined) = multipart.sending.try_join_next() {
            multipart.take(joined)?;
        }
        multipart.parts += 1;
        let (store, key, upload_id, number) =
            (Arc::clone(&self.store), self.key.clone(), multipart.upload_id.clone(), multipart.parts);
        let slot = store.slot().await;
        multipart.sending.spawn(async move {
            let part = store.upload_part(&key, &upload_id, number, content).await;
            drop(slot);
            part
        });
        Ok(())
    }

    /// Waits for the beginning of the multipart upload, if it is under way.
    async fn begun(&mut self) -> Result<(), StoreError> {
        let Some(beginning) = &mut self.beginning else { return Ok(()) };
        let begun = beginning.await;
        self.beginning = None;
        let upload_id = begun.map_err(|panic| StoreError::Other {
            what: "cannot begin an upload".to_owned(),
            source: anyhow::Error::new(panic),
        })??;
        self.multipart = Some(Multipart { upload_id, parts: 0, sending: JoinSet::new(), sent: Vec::new() });
        Ok(())
    }

    /// Waits until all parts that were sent are there.
    async fn arrived(&mut self) -> Result<(), StoreError> {
        let Some(multipart) = &mut self.multipart else { return Ok(()) };
        while let Some(joined) = multipart.sending.join_next().await {
            multipart.take(joined)?;
        }
        Ok(())
    }

    async fn put(&mut self, content: Bytes) -> Result<(), StoreError> {
        self.refuse_taken_name().await?;
        match self.store.put_object(&self.key, content, Condition::Absent, Some(&self.token)).await {
            Ok(()) => Ok(()),
            Err(refusal) => self.unless_landed(refusal).await,
        }
    }

    async fn complete(&mut self) -> Result<(), StoreError> {
        let Some(multipart) = &mut self.multipart else { return Ok(()) };
        let mut parts = mem::take(&mut multipart.sent);
        let upload_id = multipart.upload_id.clone();
        self.refuse_taken_name().await?;
        parts.sort_by_key(CompletedPart::part_number);
        let completed = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        match self.store.complete_multipart(&self.key, &upload_id, completed).await {
            Ok(()) => Ok(()),
            Err(refusal) => self.unless_landed(refusal).await,
        }
    }

    async fn refuse_taken_name(&self) -> Result<(), StoreError> {
        match self.store.holds(&self.key, Condition::Absent).await? {
            true => Ok(()),
            false => Err(StoreError::Exists(self.key.clone())),
        }
    }

    /// The answer may have been lost, and what was refused a repetition by the SDK: the object itself tells.
    async fn unless_landed(&self, refusal: Refusal) -> Result<(), StoreError> {
        let unmet = refusal.is_unmet_condition();
        let error = refusal.into_error(self.store.at("cannot finish", &self.key));
        match self.store.head(&self.key).await {
            Ok(Some(head)) if head.token.as_deref() == Some(&self.token) && head.bytes == self.bytes => Ok(()),
            Ok(Some(_)) if unmet => Err(StoreError::Exists(self.key.clone())),
            Ok(_) => Err(error),
            Err(unknown) => {
                tracing::debug!(%unknown, "cannot find out whether {} was written", self.key);
                Err(error)
            }
        }
    }

    /// Takes back what is in the store.
    async fn take_back(&mut self) -> Result<(), StoreError> {
        self.filling = BytesMut::new();
        self.sealed = None;
        // What did not begin needs no abort, and why it did not is told elsewhere.
        let _ = self.begun().await;
        match self.multipart.take() {
            Some(multipart) => multipart.take_back(&self.store, &self.key).await,
            None => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        let part_bytes = self.store.part_bytes;
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            // A full part waits for the byte after it: an object of exactly one part is a single request.
            if self.filling.len() == part_bytes {
                self.send().await?;
            }
            if self.filling.capacity() == 0 {
                self.filling.reserve(part_bytes);
            }
            let fits = bytes.len().min(part_bytes - self.filling.len());
            self.filling.extend_from_slice(&bytes.split_to(fits));
        }
        Ok(())
    }

    async fn seal(&mut self) -> Result<(), StoreError> {
        if self.multipart.is_none()
            && self.sealed.is_none()
            && let Some(share) = self.store.share_of_budget(self.filling.len())
        {
            // Copied, so that the rest of the part's room is free again.
            self.sealed = Some((Bytes::copy_from_slice(&mem::take(&mut self.filling)), share));
            return Ok(());
        }
        if !self.filling.is_empty() {
            self.send().await?;
        }
        self.arrived().await
    }

    async fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        let finished = match self.seal().await {
            Ok(()) => match (self.sealed.take(), &self.multipart) {
                (Some((content, _share)), _) => self.put(content).await,
                (None, Some(_)) => self.complete().await,
                (None, None) => self.put(Bytes::new()).await,
            },
            Err(error) => Err(error),
        };
        match finished {
            Ok(()) => {
                self.multipart = None;
                Ok(())
            }
            Err(error) => {
                if let Err(left) = self.take_back().await {
                    tracing::warn!("an unfinished upload of {} is left in the store: {left}", self.key);
                }
                Err(error)
            }
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<(), StoreError> {
        self.take_back().await
    }
}

impl Drop for S3Upload {
    /// As well as a drop can: the abort goes on in the background.
    fn drop(&mut self) {
        let (beginning, multipart) = (self.beginning.take(), self.multipart.take());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if beginning.is_none() && multipart.is_none() {
            return;
        }
        let (store, key) = (Arc::clone(&self.store), self.key.clone());
        let mut left = S3Upload::new(store, &key);
        (left.beginning, left.multipart) = (beginning, multipart);
        runtime.spawn(async move {
            if let Err(error) = left.take_back().await {
                tracing::warn!("an unfinished upload of {key} is left in the store: {error}");
            }
        });
    }
}
