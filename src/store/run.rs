//! A store as one run uses it: its transfers keep below a rate, and its reads end with the run.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Reading, SharedStore, Store, StoreError, Swap, Upload, Validator, Version};
use crate::layout::Key;

/// `inner` for a run that `cancel` ends. Reads that are under way then fail as transient, however long the store would
/// have taken. With a rate, all transfers together are no faster than that on average: what is written waits before it
/// is handed on, a range before it is asked for; requests that a store repeats by itself are not counted.
pub fn for_run(inner: SharedStore, max_bytes_per_sec: Option<u64>, cancel: CancellationToken) -> SharedStore {
    let free = Mutex::new(Instant::now());
    let pace = max_bytes_per_sec.map(|bytes_per_sec| Arc::new(Pace { bytes_per_sec, free }));
    Arc::new(RunStore { inner, pace, cancel })
}

struct RunStore {
    inner: SharedStore,
    pace: Option<Arc<Pace>>,
    cancel: CancellationToken,
}

impl RunStore {
    async fn let_through(&self, bytes: u64) {
        if let Some(pace) = &self.pace {
            pace.let_through(bytes).await;
        }
    }

    async fn unless_ended<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.cancel.run_until_cancelled(read).await.unwrap_or_else(|| {
            Err(StoreError::Transient { what: "the run was ended".to_owned(), source: anyhow!("nothing was read") })
        })
    }
}

struct Pace {
    bytes_per_sec: u64,
    /// When all that was let through so far has had its time.
    free: Mutex<Instant>,
}

impl Pace {
    async fn let_through(&self, bytes: u64) {
        let begin = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = (*free).max(Instant::now());
            *free = begin + time_of(bytes, self.bytes_per_sec);
            begin
        };
        sleep_until(begin).await;
    }
}

fn time_of(bytes: u64, bytes_per_sec: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_sec);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[async_trait]
impl Store for RunStore {
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
        let found = self.unless_ended(self.inner.read(key, max_bytes)).await?;
        if let Some((content, _)) = &found {
            self.let_through(content.len() as u64).await;
        }
        Ok(found)
    }

    async fn read_if_changed(
        &self,
        key: &Key,
        max_bytes: u64,
        seen: Option<&Validator>,
    ) -> Result<Reading, StoreError> {
        let reading = self.unless_ended(self.inner.read_if_changed(key, max_bytes, seen)).await?;
        if let Reading::Content(content, _) = &reading {
            self.let_through(content.len() as u64).await;
        }
        Ok(reading)
    }

    async fn read_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.unless_ended(async {
            self.let_through(length).await;
            self.inner.read_range(key, offset, length).await
        })
        .await
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        self.unless_ended(self.inner.size(key)).await
    }

    async fn list(&self) -> Result<Vec<Key>, StoreError> {
        self.unless_ended(self.inner.list()).await
    }

    async fn create(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        self.let_through(content.len() as u64).await;
        self.inner.create(key, content).await
    }

    async fn swap(&self, key: &Key, seen: Option<&Version>, content: Bytes) -> Result<Swap, StoreError> {
        self.let_through(content.len() as u64).await;
        self.inner.swap(key, seen, content).await
    }

    async fn replace(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        self.let_through(content.len() as u64).await;
        self.inner.replace(key, content).await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, StoreError> {
        let inner = self.inner.upload(key).await?;
        Ok(match &self.pace {
            Some(pace) => Box::new(PacedUpload { inner, pace: Arc::clone(pace) }),
            None => inner,
        })
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), StoreError> {
        self.inner.delete(keys).await
    }
}

struct PacedUpload {
    inner: Box<dyn Upload>,
    pace: Arc<Pace>,
}

#[async_trait]
impl Upload for PacedUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.pace.let_through(bytes.len() as u64).await;
        self.inner.write(bytes).await
    }

    async fn seal(&mut self) -> Result<(), StoreError> {
        self.inner.seal().await
    }

    async fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.inner.finish().await
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_no_faster_than_the_rate_whoever_sends_them() {
        let pace = Arc::new(Pace { bytes_per_sec: 1_000, free: Mutex::new(Instant::now()) });
        let begin = Instant::now();
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let pace = Arc::clone(&pace);
                tokio::spawn(async move {
                    for _ in 0..5 {
                        pace.let_through(500).await;
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.expect("sent");
        }
        pace.let_through(0).await;
        // The clock is the test's own: 10,000 bytes at 1,000 per second.
        assert_eq!(begin.elapsed().as_secs(), 10);
    }

    #[test]
    fn the_time_of_bytes_is_exact_and_never_overflows() {
        assert_eq!(time_of(1_500, 1_000), Duration::from_millis(1_500));
        assert_eq!(time_of(0, 1), Duration::ZERO);
        assert_eq!(time_of(u64::MAX, 1), Duration::from_nanos(u64::MAX));
    }
}
