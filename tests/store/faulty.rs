//! A store that fails by script: what a run does when the store refuses, forgets to answer, or answers wrongly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::anyhow;
use async_trait::async_trait;
use bytes::Bytes;
use pgslice::layout::Key;
use pgslice::store::{Reading, SharedStore, Store, StoreError, Swap, Upload, Validator, Version};

/// What is asked of a store; the calls of each kind are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Read,
    ReadRange,
    Create,
    Swap,
    Replace,
    /// Starting an upload; the next three are calls on any upload.
    Upload,
    Write,
    Finish,
    Abort,
    Delete,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// [`StoreError::Transient`], and nothing was done.
    FailBefore,
    /// [`StoreError::Transient`], though it was done. An operation that fails by itself keeps its own error.
    LostAnswer,
    /// [`StoreError::Denied`], and nothing was done.
    DeniedBefore,
    /// The last byte of what was read is missing.
    TruncateRead,
    /// One byte of what was read is another.
    FlipRead,
}

/// The calls that a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// This one, counted from 1.
    Nth(u32),
    /// This one, counted from 1, and all later ones: the store does not come back.
    From(u32),
}

/// A store with scripted faults in front of another one; it counts what is asked of it.
pub(crate) struct FaultyStore {
    inner: SharedStore,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    script: Vec<(Operation, Calls, Fault)>,
    requests: BTreeMap<Operation, u32>,
    struck: Vec<(Operation, u32, Fault)>,
    deleted: Vec<Key>,
}

impl FaultyStore {
    /// `inner`, without faults so far.
    pub(crate) fn new(inner: SharedStore) -> Arc<FaultyStore> {
        Arc::new(FaultyStore { inner, state: Arc::default() })
    }

    /// `inner` with one fault.
    pub(crate) fn with(inner: SharedStore, operation: Operation, calls: Calls, fault: Fault) -> Arc<FaultyStore> {
        let store = FaultyStore::new(inner);
        store.fault(operation, calls, fault);
        store
    }

    /// Adds a fault. Calls made so far count; where several faults strike one call, the first that was added does.
    pub(crate) fn fault(&self, operation: Operation, calls: Calls, fault: Fault) {
        let damages_a_read = matches!(fault, Fault::TruncateRead | Fault::FlipRead);
        let reads = matches!(operation, Operation::Read | Operation::ReadRange);
        assert!(reads || !damages_a_read, "{fault:?} cannot strike {operation:?}");
        lock(&self.state).script.push((operation, calls, fault));
    }

    /// How often each operation was called, those that failed included.
    pub(crate) fn requests(&self) -> BTreeMap<Operation, u32> {
        lock(&self.state).requests.clone()
    }

    /// The faults that struck, in order, each with the number of its call: a test that scripts one asserts that it did.
    pub(crate) fn struck(&self) -> Vec<(Operation, u32, Fault)> {
        lock(&self.state).struck.clone()
    }

    /// The keys whose deletion reached the store, in order, whether or not they were there.
    pub(crate) fn deleted(&self) -> Vec<Key> {
        lock(&self.state).deleted.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no holder panics")
}

/// Counts a call, and carries it out as the script has it.
async fn call<T>(
    state: &Mutex<State>,
    operation: Operation,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<(T, Option<Fault>), StoreError> {
    let fault = lock(state).next_fault(operation);
    let what = format!("{operation:?}");
    match fault {
        Some(Fault::FailBefore) => Err(StoreError::Transient { what, source: anyhow!("scripted: nothing was done") }),
        Some(Fault::DeniedBefore) => Err(StoreError::Denied { what, source: anyhow!("scripted: nothing was done") }),
        Some(Fault::LostAnswer) => {
            work.await?;
            Err(StoreError::Transient { what, source: anyhow!("scripted: done, but the answer was lost") })
        }
        None | Some(Fault::TruncateRead | Fault::FlipRead) => Ok((work.await?, fault)),
    }
}

impl State {
    fn next_fault(&mut self, operation: Operation) -> Option<Fault> {
        let count = self.requests.entry(operation).or_default();
        *count += 1;
        let nth = *count;
        let strikes = |calls| match calls {
            Calls::Nth(n) => nth == n,
            Calls::From(n) => nth >= n,
        };
        let (_, _, fault) = *self.script.iter().find(|(at, calls, _)| *at == operation && strikes(*calls))?;
        self.struck.push((operation, nth, fault));
        Some(fault)
    }
}

fn damaged(bytes: Bytes, fault: Option<Fault>) -> Bytes {
    match fault {
        Some(Fault::TruncateRead) => bytes.slice(..bytes.len().saturating_sub(1)),
        Some(Fault::FlipRead) => {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0x10;
            }
            bytes.into()
        }
        _ => bytes,
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn object_url(&self, key: &Key) -> String {
        self.inner.object_url(key)
    }

    fn max_object_bytes(&self) -> u64 {
        self.inner.max_object_bytes()
    }

    fn requests(&self) -> Option<u64> {
        self.inner.requests()
    }

    async fn read(&self, key: &Key, max_bytes: u64) -> Result<Option<(Bytes, Version)>, StoreError> {
        let (found, fault) = call(&self.state, Operation::Read, self.inner.read(key, max_bytes)).await?;
        Ok(found.map(|(bytes, version)| (damaged(bytes, fault), version)))
    }

    /// Counted, and struck, as a read.
    async fn read_if_changed(
        &self,
        key: &Key,
        max_bytes: u64,
        seen: Option<&Validator>,
    ) -> Result<Reading, StoreError> {
        let work = self.inner.read_if_changed(key, max_bytes, seen);
        let (reading, fault) = call(&self.state, Operation::Read, work).await?;
        Ok(match reading {
            Reading::Content(bytes, validator) => Reading::Content(damaged(bytes, fault), validator),
            other => other,
        })
    }

    async fn read_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let work = self.inner.read_range(key, offset, length);
        let (bytes, fault) = call(&self.state, Operation::ReadRange, work).await?;
        Ok(damaged(bytes, fault))
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        self.inner.size(key).await
    }

    async fn list(&self) -> Result<Vec<Key>, StoreError> {
        self.inner.list().await
    }

    async fn create(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        call(&self.state, Operation::Create, self.inner.create(key, content)).await.map(|_| ())
    }

    async fn swap(&self, key: &Key, seen: Option<&Version>, content: Bytes) -> Result<Swap, StoreError> {
        call(&self.state, Operation::Swap, self.inner.swap(key, seen, content)).await.map(|(swap, _)| swap)
    }

    async fn replace(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        call(&self.state, Operation::Replace, self.inner.replace(key, content)).await.map(|_| ())
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, StoreError> {
        let (inner, _) = call(&self.state, Operation::Upload, self.inner.upload(key)).await?;
        Ok(Box::new(FaultyUpload { inner, state: Arc::clone(&self.state) }))
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), StoreError> {
        let work = async {
            lock(&self.state).deleted.extend_from_slice(keys);
            self.inner.delete(keys).await
        };
        call(&self.state, Operation::Delete, work).await.map(|_| ())
    }
}

struct FaultyUpload {
    inner: Box<dyn Upload>,
    state: Arc<Mutex<State>>,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        call(&self.state, Operation::Write, self.inner.write(bytes)).await.map(|_| ())
    }

    async fn seal(&mut self) -> Result<(), StoreError> {
        self.inner.seal().await
    }

    async fn finish(self: Box<Self>) -> Result<(), StoreError> {
        call(&self.state, Operation::Finish, self.inner.finish()).await.map(|_| ())
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        call(&self.state, Operation::Abort, self.inner.abort()).await.map(|_| ())
    }
}

mod tests {
    use super::super::folder::Folders;
    use super::super::{conforms, content, is_there, key, upload, version};
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_script_it_is_a_store_like_any_other() {
        let folders = Folders::new();
        conforms(async || FaultyStore::new(folders.store()) as SharedStore).await;
    }

    #[tokio::test]
    async fn a_failure_before_the_write_strikes_its_call_only_and_writes_nothing() {
        let folders = Folders::new();
        let store = FaultyStore::with(folders.store(), Operation::Create, Calls::Nth(2), Fault::FailBefore);
        store.create(&key("one"), "1".into()).await.expect("the first call is spared");
        let error = store.create(&key("two"), "2".into()).await.expect_err("the second is struck");
        assert!(error.is_transient());
        assert!(!is_there(&*store, &key("two")).await);
        store.create(&key("two"), "2".into()).await.expect("the third is spared");
        assert_eq!(store.struck(), [(Operation::Create, 2, Fault::FailBefore)]);
        assert_eq!(store.requests(), BTreeMap::from([(Operation::Create, 3), (Operation::Read, 1)]));
    }

    #[tokio::test]
    async fn a_store_that_does_not_come_back_fails_from_its_call_on() {
        let folders = Folders::new();
        let store = FaultyStore::with(folders.store(), Operation::Replace, Calls::From(2), Fault::DeniedBefore);
        store.replace(&Key::index(), "1".into()).await.expect("the first call is spared");
        for _ in 0..2 {
            let error = store.replace(&Key::index(), "2".into()).await.expect_err("struck");
            assert!(matches!(error, StoreError::Denied { .. }));
        }
        assert_eq!(content(&*store, &Key::index()).await, "1");
    }

    #[tokio::test]
    async fn a_lost_answer_is_an_error_though_the_change_stands() {
        let folders = Folders::new();
        let store = FaultyStore::with(folders.store(), Operation::Swap, Calls::Nth(1), Fault::LostAnswer);
        store.fault(Operation::Finish, Calls::Nth(1), Fault::LostAnswer);
        store.fault(Operation::Delete, Calls::Nth(1), Fault::LostAnswer);
        assert!(store.swap(&Key::feed(), None, "new".into()).await.expect_err("struck").is_transient());
        assert_eq!(content(&*store, &Key::feed()).await, "new");
        assert!(upload(&*store, &key("part"), b"part").await.expect_err("struck").is_transient());
        assert_eq!(content(&*store, &key("part")).await, "part");
        assert!(store.delete(&[key("part")]).await.expect_err("struck").is_transient());
        assert!(!is_there(&*store, &key("part")).await);
        assert_eq!(store.deleted(), [key("part")]);
    }

    #[tokio::test]
    async fn an_upload_struck_in_any_place_shows_nothing() {
        let folders = Folders::new();
        for operation in [Operation::Upload, Operation::Write, Operation::Finish] {
            let store = FaultyStore::with(folders.store(), operation, Calls::Nth(1), Fault::FailBefore);
            assert!(upload(&*store, &key("part"), b"part").await.expect_err("struck").is_transient(), "{operation:?}");
            assert!(!is_there(&*store, &key("part")).await, "{operation:?}");
        }
        let store = FaultyStore::with(folders.store(), Operation::Abort, Calls::Nth(1), Fault::LostAnswer);
        let given_up = store.upload(&key("part")).await.expect("started");
        assert!(given_up.abort().await.expect_err("struck").is_transient());
        assert!(!is_there(&*store, &key("part")).await);
    }

    #[tokio::test]
    async fn a_deletion_that_fails_before_it_reaches_the_store_is_not_in_the_log() {
        let folders = Folders::new();
        let store = FaultyStore::with(folders.store(), Operation::Delete, Calls::Nth(1), Fault::FailBefore);
        store.create(&key("part"), "part".into()).await.expect("created");
        assert!(store.delete(&[key("part")]).await.expect_err("struck").is_transient());
        assert!(store.deleted().is_empty());
        assert!(is_there(&*store, &key("part")).await);
    }

    #[tokio::test]
    async fn damaged_reads_differ_in_one_byte_or_lack_the_last() {
        let folders = Folders::new();
        let store = FaultyStore::with(folders.store(), Operation::Read, Calls::Nth(1), Fault::FlipRead);
        store.fault(Operation::ReadRange, Calls::Nth(1), Fault::FlipRead);
        store.fault(Operation::ReadRange, Calls::Nth(2), Fault::TruncateRead);
        store.create(&key("part"), "abcde".into()).await.expect("created");
        assert_eq!(content(&*store, &key("part")).await, "absde");
        assert_eq!(store.read_range(&key("part"), 1, 3).await.expect("readable"), "bsd");
        assert_eq!(store.read_range(&key("part"), 1, 3).await.expect("readable"), "bc");
        assert_eq!(store.read_range(&key("part"), 1, 3).await.expect("readable"), "bcd");
        version(&*store, &key("part")).await;
    }

    #[test]
    #[should_panic(expected = "TruncateRead cannot strike Delete")]
    fn a_script_that_makes_no_sense_is_refused() {
        FaultyStore::with(Folders::new().store(), Operation::Delete, Calls::Nth(1), Fault::TruncateRead);
    }
}
