//! A store in memory for tests: it can fail, lose answers and change behind a run's back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::feed::{Feed, ManifestRef};
use crate::layout::{Key, sums_beside};
use crate::manifest::Manifest;
use crate::store::{Store, StoreError, Swap, Upload, Version};

#[derive(Default)]
pub(crate) struct MemoryStore(Mutex<Memory>);

#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) objects: BTreeMap<Key, Bytes>,
    pub(crate) deleted: Vec<Key>,
    /// How many more objects can be deleted before the store gives up; `None`: no limit.
    pub(crate) deletions_left: Option<usize>,
    /// The next swap stands, but its answer is lost.
    pub(crate) lose_next_answer: bool,
    /// Stands in the store just before the next swap: another writer was faster.
    pub(crate) intruder: Option<Feed>,
}

impl MemoryStore {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    /// Puts a head, its page, and everything that these revisions name into the store.
    pub(crate) fn hold(&self, feed: &Feed, revisions: &[(ManifestRef, Manifest)]) {
        let objects = &mut self.memory().objects;
        for (reference, manifest) in revisions {
            objects.extend(manifest.part_keys().map(|key| (key.clone(), Bytes::from_static(b"rows"))));
            objects.insert(sums_beside(&reference.key), manifest.sums(&reference.key).into());
            objects.insert(reference.key.clone(), manifest.to_bytes().into());
        }
        objects.insert(Key::feed(), feed.to_bytes().into());
        objects.insert(Key::index(), Bytes::new());
    }
}

fn gave_up(what: &str) -> StoreError {
    StoreError::Transient { what: what.into(), source: anyhow::anyhow!("scripted") }
}

fn version(content: &[u8]) -> Version {
    Version(hex::encode(Sha256::digest(content)))
}

#[async_trait]
impl Store for MemoryStore {
    fn url(&self) -> String {
        "memory:".into()
    }

    async fn read(&self, key: &Key, _max_bytes: u64) -> Result<Option<(Bytes, Version)>, StoreError> {
        Ok(self.memory().objects.get(key).map(|content| (content.clone(), version(content))))
    }

    async fn read_range(&self, key: &Key, _offset: u64, _length: u64) -> Result<Bytes, StoreError> {
        Err(StoreError::NotFound(key.clone()))
    }

    async fn create(&self, key: &Key, _content: Bytes) -> Result<(), StoreError> {
        Err(StoreError::Exists(key.clone()))
    }

    async fn swap(&self, key: &Key, seen: Option<&Version>, content: Bytes) -> Result<Swap, StoreError> {
        let mut memory = self.memory();
        if let Some(intruder) = memory.intruder.take() {
            memory.objects.insert(key.clone(), intruder.to_bytes().into());
        }
        if memory.objects.get(key).map(|content| version(content)).as_ref() != seen {
            return Ok(Swap::Conflict);
        }
        memory.objects.insert(key.clone(), content);
        if std::mem::take(&mut memory.lose_next_answer) { Err(gave_up("swap")) } else { Ok(Swap::Done) }
    }

    async fn replace(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        self.memory().objects.insert(key.clone(), content);
        Ok(())
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, StoreError> {
        Err(StoreError::Exists(key.clone()))
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), StoreError> {
        let mut memory = self.memory();
        for key in keys {
            if memory.deletions_left == Some(0) {
                return Err(gave_up("delete"));
            }
            memory.deletions_left = memory.deletions_left.map(|left| left - 1);
            if memory.objects.remove(key).is_some() {
                memory.deleted.push(key.clone());
            }
        }
        Ok(())
    }
}
