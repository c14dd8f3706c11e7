//! Writes whose lost answers are resolved by reading back.

use bytes::Bytes;

use super::{Store, StoreError, Upload};
use crate::layout::Key;

/// How often a small object is written before its error is believed.
const ATTEMPTS: usize = 4;

/// Creates a small object. An object of that name with this very content is this one: an earlier attempt's answer
/// was lost.
///
/// # Errors
/// The store's; [`StoreError::Exists`] when the name holds something else.
pub async fn create_verified(store: &dyn Store, key: &Key, content: Bytes) -> Result<(), StoreError> {
    let mut attempt = 1;
    loop {
        let error = match store.create(key, content.clone()).await {
            Ok(()) => return Ok(()),
            Err(error @ (StoreError::Exists(_) | StoreError::Transient { .. })) => error,
            Err(error) => return Err(error),
        };
        match store.read(key, content.len() as u64).await {
            Ok(Some((present, _))) if present == content => return Ok(()),
            Ok(None) if attempt < ATTEMPTS => attempt += 1,
            _ => return Err(error),
        }
    }
}

/// Finishes an upload. Objects appear whole or not at all and attempts never share a name, so an object of that name
/// and size is this one, even if the answer was lost.
///
/// # Errors
/// The store's.
pub async fn finish_verified(
    store: &dyn Store,
    key: &Key,
    stored_bytes: u64,
    upload: Box<dyn Upload>,
) -> Result<(), StoreError> {
    let Err(error) = upload.finish().await else { return Ok(()) };
    let whole = error.is_transient()
        && stored_bytes > 0
        && store.read_range(key, stored_bytes - 1, 1).await.is_ok()
        && matches!(store.read_range(key, stored_bytes, 1).await, Err(StoreError::Size { .. }));
    if whole { Ok(()) } else { Err(error) }
}
