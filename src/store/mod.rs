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

use crate::config::StoreConfig;
use crate::error::{Class, Failure};
use crate::layout::Key;

pub mod fs;
pub mod http;
mod run;
pub mod s3;
mod verified;

pub use run::for_run;
pub use verified::{create_verified, finish_verified};

/// The identity of an object's content as the store tells it; equal versions mean equal content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// What a store is shown the next time, so that it can say whether an object still has the content that was read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validator(pub String);

/// What [`Store::read_if_changed`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// The content that was seen, still.
    Unchanged,
    /// There is no such object.
    Absent,
    /// A content, and what to show the next time: `None` where nothing that the store tells can be relied on.
    Content(Bytes, Option<Validator>),
}

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
    /// The object is there, in an archive that must give it out first.
    #[error("cannot read {key}")]
    Archived {
        /// The object.
        key: Key,
        /// Where it is, and how to get it out.
        #[source]
        source: anyhow::Error,
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
            StoreError::Transient { .. } | StoreError::Archived { .. } => Class::Transient,
            StoreError::Exists(_) => Class::Other,
            StoreError::Other { source, .. } => {
                source.downcast_ref::<Failure>().map_or(Class::Other, |failure| failure.class)
            }
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

    /// The most bytes that an object can have.
    fn max_object_bytes(&self) -> u64 {
        u64::MAX
    }

    /// How many requests it was sent so far, repeated ones included; `None` for a store that takes none.
    fn requests(&self) -> Option<u64> {
        None
    }

    /// A whole small object and its version; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Size`] when it is larger than `max_bytes`: it was not read.
    async fn read(&self, key: &Key, max_bytes: u64) -> Result<Option<(Bytes, Version)>, StoreError>;

    /// A whole small object, unless it still is the one that was `seen`. Stores that can tell it without sending the
    /// content do. One that is not sure sends it, and hands out no validator that another content might share.
    ///
    /// # Errors
    /// As [`Store::read`].
    async fn read_if_changed(
        &self,
        key: &Key,
        max_bytes: u64,
        seen: Option<&Validator>,
    ) -> Result<Reading, StoreError> {
        let Some((content, Version(version))) = self.read(key, max_bytes).await? else { return Ok(Reading::Absent) };
        if version.is_empty() {
            return Ok(Reading::Content(content, None));
        }
        let validator = Validator(version);
        Ok(if seen == Some(&validator) { Reading::Unchanged } else { Reading::Content(content, Some(validator)) })
    }

    /// Exactly `length` bytes from `offset` on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Size`] when the object ends before.
    async fn read_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes, StoreError>;

    /// The size of an object in bytes; `None` if there is none. Stores that can tell it without reading do.
    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        Ok(self.read(key, u64::MAX).await?.map(|(content, _)| content.len() as u64))
    }

    /// The objects below the store's prefix that have the name of a [`Key`], ascending. What a crash left unfinished is
    /// none. The cost grows with the archive: for putting a feed in order, never on the way of a day.
    async fn list(&self) -> Result<Vec<Key>, StoreError> {
        Err(StoreError::Other {
            what: format!("cannot list {}", self.url()),
            source: Failure::new(Class::Usage, "this kind of store tells no names")
                .next("let store.url name the bucket or folder itself")
                .into(),
        })
    }

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

/// An object being written. Dropped without [`Upload::finish`] it is aborted as well as a drop can; a call of
/// [`Upload::write`] or [`Upload::seal`] may be dropped half-way if [`Upload::abort`] follows.
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

    /// Says that everything is written, and sees to it that the finish is short, however large the object. It may be
    /// far off: until then the upload holds little memory.
    async fn seal(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

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

/// Opens the store that `config` names: `file:///absolute/path`, percent-encoded,
/// `s3://bucket/prefix`, or `https://host/path` to read.
///
/// # Errors
/// Class Usage for a URL that names no store, for a folder that is missing (see [`Access`]), and for a store that
/// cannot keep the contract; else the class of the store's error. No text of a URL that may hold credentials is
/// repeated.
pub async fn open(config: &StoreConfig, access: Access) -> anyhow::Result<SharedStore> {
    let url = config.url.as_deref().unwrap_or_default();
    let example = "write it as file:///srv/feed, with an absolute path, or as s3://bucket/prefix";
    let Some((scheme, _)) = url.split_once(':').filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
    else {
        return Err(Failure::new(Class::Usage, "store.url is not a URL").next(example).into());
    };
    Ok(match scheme.to_ascii_lowercase().as_str() {
        "file" => {
            let path = fs::path_of(url)
                .map_err(|problem| Failure::new(Class::Usage, format!("store.url {url:?} {problem}")).next(example))?;
            Arc::new(fs::FolderStore::open(&path, access)?)
        }
        "s3" => Arc::new(s3::S3Store::open(url, config, access).await?),
        "http" | "https" => match access {
            Access::ReadOnly => Arc::new(http::HttpStore::open(url, config)?),
            Access::ReadWrite => {
                return Err(Failure::new(
                    Class::Usage,
                    format!("store.url is an {scheme}:// address, and such a feed is read only"),
                )
                .meaning("nothing was attempted")
                .next("publish to s3://bucket/prefix, or to a folder that a web server shows")
                .into());
            }
        },
        _ => return Err(Failure::new(Class::Usage, "store.url has an unknown scheme").next(example).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(url: &str) -> Failure {
        match open(&StoreConfig::at(url), Access::ReadWrite).await {
            Ok(store) => panic!("{url} was opened as {}", store.url()),
            Err(refusal) => refusal.downcast().expect("a classified failure"),
        }
    }

    #[tokio::test]
    async fn what_is_not_the_url_of_a_store_is_refused_with_an_example_and_without_repeating_credentials() {
        for url in [
            "",
            "/srv/feed",
            "srv/feed",
            "./a:b",
            "file:feed",
            "file://feed",
            "file:///a%zz",
            "ftp://u:secret@host/",
            ":x",
            "s3://",
            "s3://user:secret@bucket/x",
        ] {
            let refusal = refusal(url).await;
            assert_eq!(refusal.class, Class::Usage, "{url}");
            let told = format!("{refusal:?}");
            assert!(told.contains("://") && refusal.next.is_some() && !told.contains("secret"), "{told}");
        }
    }
}
