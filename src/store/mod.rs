//! Where a feed is published to. The contract that every store keeps, and that the conformance suite in
//! `tests/store/mod.rs` argues from:
//!
//! * Objects appear whole or not at all: a reader never sees a part of a write.
//! * [`Upload::finish`] and [`Store::create`] never replace an object.
//! * [`Store::swap`] replaces exactly the version it was shown, or nothing: of two racing writers one loses.
//! * After `Ok` the change survives a crash of the machine that holds the store.
//! * After an error nothing is known: the write may have happened, or may be happening still. Callers read back.
//! * Names are [`Key`]s below the store's prefix; nothing outside it is read, followed, written or deleted.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Class, Failure};
use crate::layout::Key;

pub mod fs;
mod verified;

pub use verified::{create_verified, finish_verified};

/// The identity of an object's content as the store tells it; equal versions mean equal content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// What became of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Swap {
    /// The new content stands.
    Done,
    /// The object is not what the caller saw: nothing was written.
    Conflict,
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{0} is not in the store")]
    NotFound(Key),
    /// There is such an object already, and objects are never replaced.
    #[error("{0} exists already and is never replaced")]
    Exists(Key),
    /// An object is not as large as it should be, or larger than is read.
    #[error("{key}: {problem}")]
    Size {
        /// The object.
        key: Key,
        /// What is wrong with its size.
        problem: String,
    },
    /// The store refuses this user.
    #[error("{what}: permission denied")]
    Denied {
        /// What was attempted.
        what: String,
        /// The store's words.
        #[source]
        source: anyhow::Error,
    },
    /// No answer, or one that asks to come back later. The write may have happened.
    #[error("{what}")]
    Transient {
        /// What was attempted.
        what: String,
        /// The store's words.
        #[source]
        source: anyhow::Error,
    },
    /// Anything else. The write may have happened.
    #[error("{what}")]
    Other {
        /// What was attempted.
        what: String,
        /// The store's words.
        #[source]
        source: anyhow::Error,
    },
}

impl StoreError {
    /// The failure class, for the exit code.
    pub fn class(&self) -> Class {
        match self {
            StoreError::NotFound(_) | StoreError::Size { .. } => Class::Integrity,
            StoreError::Denied { .. } => Class::Permission,
            StoreError::Transient { .. } => Class::Transient,
            StoreError::Exists(_) | StoreError::Other { .. } => Class::Other,
        }
    }

    /// May the same call succeed later?
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Transient { .. })
    }
}

/// A place that a feed is published to and read from.
#[async_trait]
pub trait Store: Send + Sync {
    /// Where it is, for people: a URL without credentials.
    fn url(&self) -> String;

    /// The public address of an object: what `pgslice ls --urls` prints.
    fn object_url(&self, key: &Key) -> String {
        format!("{}/{key}", self.url().trim_end_matches('/'))
    }

    /// A whole small object and its version; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Size`] when it is larger than `max_bytes`: it was not read.
    async fn read(&self, key: &Key, max_bytes: u64) -> Result<Option<(Bytes, Version)>, StoreError>;

    /// Exactly `length` bytes from `offset` on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Size`] when the object ends before.
    async fn read_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes, StoreError>;

    /// Creates a small object; never replaces one.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is one, whoever wrote it: a lost answer and a retry look the same.
    async fn create(&self, key: &Key, content: Bytes) -> Result<(), StoreError>;

    /// Replaces the content of `key` if its version is still `seen` (`None`: if there is no such object).
    async fn swap(&self, key: &Key, seen: Option<&Version>, content: Bytes) -> Result<Swap, StoreError>;

    /// Writes a generated page, whatever is there. Not for anything that a promise rests on.
    async fn replace(&self, key: &Key, content: Bytes) -> Result<(), StoreError>;

    /// Starts an object of unknown length. Nothing is visible under `key` before [`Upload::finish`].
    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, StoreError>;

    /// Deletes objects by their exact names; those that are not there are no error. Never a prefix.
    async fn delete(&self, keys: &[Key]) -> Result<(), StoreError>;
}

/// An object being written. Dropped without [`Upload::finish`] it is aborted as well as a drop can.
#[async_trait]
pub trait Upload: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes the object visible, whole and durable.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when an object of that name is there; anything else leaves it unknown whether the
    /// object is.
    async fn finish(self: Box<Self>) -> Result<(), StoreError>;

    /// Gives up: nothing becomes visible, and what was written so far is removed.
    async fn abort(self: Box<Self>) -> Result<(), StoreError>;
}

/// A store shared by the tasks of a run.
pub type SharedStore = Arc<dyn Store>;

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To publish. A folder that is missing is created, the folder above it is not.
    ReadWrite,
    /// To read: nothing is created, and every write is [`StoreError::Denied`].
    ReadOnly,
}

/// Can the store at `url` be read already? A folder that the first export will create cannot.
pub fn is_there(url: &str) -> bool {
    fs::path_of(url).map_or(true, |path| path.exists())
}

/// Opens the store at `url`: `file:///absolute/path`, percent-encoded.
///
/// # Errors
/// Class Usage for a URL that names no folder, and for a folder that is missing (see [`Access`]); else the class of
/// the system's error. No text of a URL that may hold credentials is repeated.
pub fn open(url: &str, access: Access) -> Result<SharedStore, Failure> {
    let example = "write it as file:///srv/feed, with an absolute path";
    let Some((scheme, _)) = url.split_once(':').filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
    else {
        return Err(Failure::new(Class::Usage, "store.url is not a URL").next(example));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "file" => {
            let path = fs::path_of(url)
                .map_err(|problem| Failure::new(Class::Usage, format!("store.url {url:?} {problem}")).next(example))?;
            Ok(Arc::new(fs::FolderStore::open(&path, access)?))
        }
        "s3" | "http" | "https" => Err(Failure::new(
            Class::Usage,
            format!("store.url is an {scheme}:// address, but this version reads and writes folders only"),
        )
        .next("use a file:/// folder, and any tool that copies or serves folders to carry it further")),
        _ => Err(Failure::new(Class::Usage, "store.url has an unknown scheme").next(example)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> Failure {
        match open(url, Access::ReadWrite) {
            Ok(store) => panic!("{url} was opened as {}", store.url()),
            Err(refusal) => refusal,
        }
    }

    #[test]
    fn buckets_and_web_servers_are_refused_without_repeating_credentials() {
        for url in ["s3://user:secret@bucket/x", "https://user:secret@host/x", "HTTP://user:secret@host/"] {
            let refusal = refusal(url);
            assert_eq!(refusal.class, Class::Usage);
            assert!(refusal.what.contains("folders only"), "{}", refusal.what);
            assert!(refusal.next.is_some() && !format!("{refusal:?}").contains("secret"), "{refusal:?}");
        }
    }

    #[test]
    fn what_is_not_the_url_of_a_folder_is_refused_with_an_example() {
        for url in
            ["", "/srv/feed", "srv/feed", "./a:b", "file:feed", "file://feed", "file:///a%zz", "ftp://host/", ":x"]
        {
            let refusal = refusal(url);
            assert_eq!(refusal.class, Class::Usage, "{url}");
            assert!(refusal.next.is_some_and(|next| next.contains("file:///srv/feed")), "{url}");
        }
    }
}
