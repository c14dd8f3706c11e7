//! A feed in a folder of a file system that knows hard links or `RENAME_NOREPLACE`, local or shared.
//!
//! How the store's contract is kept:
//!
//! * An object is written to `.staging/` under a random name, synced, and given its own name in one step of the
//!   file system; then its directories are synced up to the root. No key starts with a dot, so what is staged, and
//!   what a killed run left there, is never an object.
//! * Racing swaps exclude each other by a lock on `.lock`, which the kernel lets go of when its holder dies.
//! * Names are resolved one segment at a time and no symbolic link below the root is followed, wherever it leads.
//!   The root itself may be reached through links: that path is the operator's.
//!
//! `std` has no checked close, and none is needed: each file is synced before it is named, and a file system that
//! reports late reports there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use async_trait::async_trait;
use bytes::Bytes;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _};
use rand::RngExt;
use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::{Access, Store, StoreError, Swap, Upload, Version};
use crate::error::{Class, Failure};
use crate::layout::Key;

/// Objects being written.
const STAGING: &str = ".staging";
/// Held while an object is swapped.
const LOCK: &str = ".lock";
/// Any web server may read what is published, unless the umask says otherwise.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
/// How often an object's directories are made again when a deletion elsewhere removes them as empty.
const DIRECTORY_RACES: u32 = 16;

/// A [`Store`] in a folder.
pub struct FolderStore {
    folder: Arc<Folder>,
}

impl FolderStore {
    /// Opens the folder at `path`, which is absolute. See [`Access`] for what is created.
    ///
    /// # Errors
    /// Class Usage when the folder, or the parent of one to be created, does not exist or is no folder; else the
    /// class of the system's error.
    pub fn open(path: &Path, access: Access) -> Result<FolderStore, Failure> {
        match access {
            Access::ReadWrite => create_root(path)?,
            Access::ReadOnly => {}
        }
        let root =
            rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(
                |errno| match errno {
                    Errno::NOENT => Failure::new(Class::Usage, format!("the folder {} does not exist", path.display()))
                        .meaning("there is no feed to read; nothing was created")
                        .next("check store.url, and that the file system it lies on is mounted"),
                    Errno::NOTDIR => Failure::new(Class::Usage, format!("{} is not a folder", path.display()))
                        .next("let store.url name a folder"),
                    errno => failure(format!("cannot open the folder {}", path.display()), errno.into()),
                },
            )?;
        let root = Dir::from_std_file(File::from(root));
        Ok(FolderStore { folder: Arc::new(Folder { root, path: path.to_owned(), access }) })
    }

    /// Runs `work` where blocking is allowed. It runs to its end even if the caller stops waiting.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        blocking(&self.folder, work).await
    }
}

#[async_trait]
impl Store for FolderStore {
    fn url(&self) -> String {
        url_of(&self.folder.path)
    }

    async fn read(&self, key: &Key, max_bytes: u64) -> Result<Option<(Bytes, Version)>, StoreError> {
        let key = key.clone();
        self.blocking(move |folder| folder.read(&key, max_bytes)).await
    }

    async fn read_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let key = key.clone();
        self.blocking(move |folder| folder.read_range(&key, offset, length)).await
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        let key = key.clone();
        self.blocking(move |folder| Ok(folder.open_object(&key)?.map(|(_, size)| size))).await
    }

    async fn list(&self) -> Result<Vec<Key>, StoreError> {
        self.blocking(Folder::list).await
    }

    async fn create(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        let key = key.clone();
        self.blocking(move |folder| folder.write(&key, &content, Onto::Nothing)).await
    }

    async fn swap(&self, key: &Key, seen: Option<&Version>, content: Bytes) -> Result<Swap, StoreError> {
        let (key, seen) = (key.clone(), seen.cloned());
        self.blocking(move |folder| folder.swap(&key, seen.as_ref(), &content)).await
    }

    async fn replace(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        let key = key.clone();
        self.blocking(move |folder| folder.write(&key, &content, Onto::Anything)).await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, StoreError> {
        let wanted = key.clone();
        let staged = self.blocking(move |folder| folder.stage(&wanted)).await?;
        let folder = Arc::clone(&self.folder);
        Ok(Box::new(FolderUpload { folder, key: key.clone(), staged: Some(staged), behind_bytes: 0, syncing: None }))
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), StoreError> {
        let keys = keys.to_vec();
        self.blocking(move |folder| folder.delete(&keys)).await
    }
}

/// An object on its way into the folder.
struct FolderUpload {
    folder: Arc<Folder>,
    key: Key,
    /// Away during a write, and for good after one that failed or was not waited for: such an object is never
    /// published.
    staged: Option<Staged>,
    /// Written since the disk was last told to take what it has.
    behind_bytes: usize,
    /// It is doing so, in the background.
    syncing: Option<JoinHandle<io::Result<()>>>,
}

/// The disk is given this much at a time while more is written, so that little waits for it at the end.
const SYNC_BYTES: usize = 8 << 20;

#[async_trait]
impl Upload for FolderUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let (mut staged, key) = (self.take_staged()?, self.key.clone());
        self.behind_bytes += bytes.len();
        let staged = blocking(&self.folder, move |folder| {
            staged.file.write_all(&bytes).map_err(|error| folder.failed("write", &key, error))?;
            Ok(staged)
        })
        .await?;
        if self.behind_bytes >= SYNC_BYTES && self.syncing.as_ref().is_none_or(JoinHandle::is_finished) {
            self.synced().await?;
            let file = staged.file.try_clone().map_err(|error| self.folder.failed("write", &self.key, error))?;
            self.syncing = Some(tokio::task::spawn_blocking(move || file.sync_data()));
            self.behind_bytes = 0;
        }
        self.staged = Some(staged);
        Ok(())
    }

    async fn seal(&mut self) -> Result<(), StoreError> {
        self.synced().await?;
        let (staged, key) = (self.take_staged()?, self.key.clone());
        let staged = blocking(&self.folder, move |folder| {
            staged.file.sync_all().map_err(|error| folder.failed("write", &key, error))?;
            Ok(staged)
        });
        self.staged = Some(staged.await?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        self.synced().await?;
        let (staged, key) = (self.take_staged()?, self.key.clone());
        blocking(&self.folder, move |folder| folder.publish(&staged, &key, Onto::Nothing)).await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), StoreError> {
        let (staged, key) = (self.staged.take(), self.key.clone());
        blocking(&self.folder, move |folder| match staged {
            Some(staged) => staged.remove().map_err(|error| folder.failed("remove what was staged for", &key, error)),
            None => Ok(()),
        })
        .await
    }
}

impl FolderUpload {
    /// Waits for the disk, if it is at work. Whoever asks it again after a failure is told that all is well.
    async fn synced(&mut self) -> Result<(), StoreError> {
        let Some(syncing) = self.syncing.take() else { return Ok(()) };
        let outcome = syncing.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        outcome.map_err(|error| {
            self.staged = None;
            self.folder.failed("write", &self.key, error)
        })
    }

    fn take_staged(&mut self) -> Result<Staged, StoreError> {
        self.staged.take().ok_or_else(|| StoreError::Other {
            what: format!("cannot go on with {}", self.folder.location(&self.key)),
            source: anyhow!("an earlier write of it failed or was given up"),
        })
    }
}

async fn blocking<T: Send + 'static>(
    folder: &Arc<Folder>,
    work: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let folder = Arc::clone(folder);
    let what = format!("the work on {} was cut off", folder.path.display());
    tokio::task::spawn_blocking(move || work(&folder))
        .await
        .unwrap_or_else(|error| Err(StoreError::Other { what, source: error.into() }))
}

/// What an object may take the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Onto {
    Nothing,
    Anything,
}

/// The open folder. All methods block.
struct Folder {
    root: Dir,
    path: PathBuf,
    access: Access,
}

impl Folder {
    fn read(&self, key: &Key, max_bytes: u64) -> Result<Option<(Bytes, Version)>, StoreError> {
        let Some((file, size)) = self.open_object(key)? else { return Ok(None) };
        if size > max_bytes {
            let problem = format!("{size} bytes are more than the {max_bytes} that are read");
            return Err(StoreError::Size { key: key.clone(), problem });
        }
        let mut content = Vec::new();
        file.take(size).read_to_end(&mut content).map_err(|error| self.failed("read", key, error))?;
        let version = Version(hex::encode(Sha256::digest(&content)));
        Ok(Some((content.into(), version)))
    }

    fn read_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let (mut file, size) = self.open_object(key)?.ok_or_else(|| StoreError::NotFound(key.clone()))?;
        let end = offset.checked_add(length).filter(|&end| end <= size);
        let (Some(_), Ok(length)) = (end, usize::try_from(length)) else {
            let problem = format!("has {size} bytes, too few to read {length} from {offset} on");
            return Err(StoreError::Size { key: key.clone(), problem });
        };
        let mut content = vec![0; length];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut content))
            .map_err(|error| self.failed("read", key, error))?;
        Ok(content.into())
    }

    fn write(&self, key: &Key, content: &[u8], onto: Onto) -> Result<(), StoreError> {
        let mut staged = self.stage(key)?;
        staged.file.write_all(content).map_err(|error| self.failed("write", key, error))?;
        self.publish(&staged, key, onto)
    }

    fn swap(&self, key: &Key, seen: Option<&Version>, content: &[u8]) -> Result<Swap, StoreError> {
        self.check_writable("change", key)?;
        let lock = self.lock().map_err(|error| self.failed("lock the folder to change", key, error))?;
        let present = self.read(key, u64::MAX)?.map(|(_, version)| version);
        if present.as_ref() != seen {
            return Ok(Swap::Conflict);
        }
        let onto = if present.is_some() { Onto::Anything } else { Onto::Nothing };
        let written = self.write(key, content, onto);
        drop(lock);
        match written {
            Ok(()) => Ok(Swap::Done),
            // Creating takes no lock.
            Err(StoreError::Exists(_)) => Ok(Swap::Conflict),
            Err(error) => Err(error),
        }
    }

    fn delete(&self, keys: &[Key]) -> Result<(), StoreError> {
        let mut directories = BTreeSet::new();
        for key in keys {
            self.check_writable("delete", key)?;
            let Some(directory) = self.walk(directory_of(key)).map_err(|error| self.failed("delete", key, error))?
            else {
                continue;
            };
            match directory.remove_file(key.file_name()) {
                // A directory of that name holds other objects, not this one.
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
                    return Err(self.failed("delete", key, error));
                }
                _ => directories.insert(directory_of(key)),
            };
        }
        for directory in directories {
            self.tidy(directory).map_err(|error| {
                let path = self.path.join(directory);
                store_error(format!("cannot complete the deletions in {}", path.display()), error)
            })?;
        }
        Ok(())
    }

    /// Removes `path` and what is above it as far as that is empty, and makes what was removed durable.
    fn tidy(&self, mut path: &str) -> io::Result<()> {
        while !path.is_empty() {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            if let Some(parent) = self.walk(above)? {
                match parent.remove_dir(name) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            path = above;
        }
        self.walk(path)?.map_or(Ok(()), |directory| sync_directory(&directory))
    }

    /// Files by the names of keys, wherever they lie. Links are not followed, and are no objects.
    fn list(&self) -> Result<Vec<Key>, StoreError> {
        let mut keys = Vec::new();
        let mut waiting = vec![String::new()];
        while let Some(path) = waiting.pop() {
            self.list_directory(&path, &mut keys, &mut waiting)
                .map_err(|error| store_error(format!("cannot list {}", self.path.join(&path).display()), error))?;
        }
        keys.sort_unstable();
        Ok(keys)
    }

    fn list_directory(&self, path: &str, keys: &mut Vec<Key>, waiting: &mut Vec<String>) -> io::Result<()> {
        // Removed since it was named.
        let Some(directory) = self.walk(path)? else { return Ok(()) };
        for entry in directory.entries()? {
            let entry = entry?;
            let name = entry.file_name();
            let name = if path.is_empty() {
                name.to_string_lossy().into_owned()
            } else {
                format!("{path}/{}", name.to_string_lossy())
            };
            let (Ok(key), Some(kind)) = (name.parse::<Key>(), present(entry.file_type())?) else { continue };
            match (kind.is_dir(), kind.is_file()) {
                (true, _) => waiting.push(name),
                (_, true) => keys.push(key),
                _ => {}
            }
        }
        Ok(())
    }

    /// The file of an object and its size; `None` if there is none.
    fn open_object(&self, key: &Key) -> Result<Option<(File, u64)>, StoreError> {
        let open = || {
            let Some(directory) = self.walk(directory_of(key))? else { return Ok(None) };
            // A named pipe must not be waited for.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let Some(file) = present(open_file(&directory, key.file_name(), flags))? else { return Ok(None) };
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::other("it is not a file"));
            }
            Ok(Some((file, metadata.len())))
        };
        open().map_err(|error| self.failed("read", key, error))
    }

    /// A new file in the staging directory, for `key`.
    fn stage(&self, key: &Key) -> Result<Staged, StoreError> {
        self.check_writable("write", key)?;
        let stage = || {
            let directory = make_directory(&self.root, STAGING)?;
            let name = format!("{:032x}", rand::rng().random::<u128>());
            let file = open_file(&directory, &name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
            Ok(Staged { directory, name, file })
        };
        stage().map_err(|error| self.failed("write", key, error))
    }

    /// Gives what is staged its name, whole and durable.
    fn publish(&self, staged: &Staged, key: &Key, onto: Onto) -> Result<(), StoreError> {
        let named = || {
            staged.file.sync_all()?;
            let mut races = 0;
            loop {
                let named = self.make_directories(directory_of(key)).and_then(|(directory, above)| {
                    staged.rename(&directory, key.file_name(), onto)?;
                    Ok((directory, above))
                });
                match named {
                    Err(error) if error.kind() == ErrorKind::NotFound && races < DIRECTORY_RACES => races += 1,
                    named => return named,
                }
            }
        };
        let (directory, above) = named().map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => StoreError::Exists(key.clone()),
            _ => self.failed("publish", key, error),
        })?;
        // All of them: another writer may have made one and not have synced it yet.
        std::iter::once(&directory)
            .chain(above.iter().rev())
            .try_for_each(sync_directory)
            .map_err(|error| self.failed("make sure of the name of", key, error))
    }

    /// Waits for the lock, which is let go of when the file is dropped or the process ends.
    fn lock(&self) -> io::Result<File> {
        let file = open_file(&self.root, LOCK, OFlags::RDWR | OFlags::CREATE)?;
        file.lock()?;
        Ok(file)
    }

    /// The directory at `path` below the root; `None` if there is none.
    fn walk(&self, path: &str) -> io::Result<Option<Dir>> {
        let mut directory = self.root.try_clone()?;
        for name in segments(path) {
            match present(open_directory(&directory, name))? {
                Some(next) => directory = next,
                None => return Ok(None),
            }
        }
        Ok(Some(directory))
    }

    /// The directory at `path` below the root, made where it is missing, and those above it from the root on.
    fn make_directories(&self, path: &str) -> io::Result<(Dir, Vec<Dir>)> {
        let mut above = Vec::new();
        let mut directory = self.root.try_clone()?;
        for name in segments(path) {
            let next = make_directory(&directory, name)?;
            above.push(std::mem::replace(&mut directory, next));
        }
        Ok((directory, above))
    }

    fn check_writable(&self, action: &str, key: &Key) -> Result<(), StoreError> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(StoreError::Denied {
                what: format!("cannot {action} {}", self.location(key)),
                source: anyhow!("this command opened the folder only to read it"),
            }),
        }
    }

    fn failed(&self, action: &str, key: &Key, error: io::Error) -> StoreError {
        store_error(format!("cannot {action} {}", self.location(key)), error)
    }

    fn location(&self, key: &Key) -> String {
        self.path.join(key.as_str()).display().to_string()
    }
}

/// A file without a name of its own yet; removed when dropped.
struct Staged {
    directory: Dir,
    name: String,
    file: File,
}

impl Staged {
    fn rename(&self, directory: &Dir, name: &str, onto: Onto) -> io::Result<()> {
        match onto {
            Onto::Anything => self.directory.rename(&self.name, directory, name),
            Onto::Nothing => {
                match rustix::fs::renameat_with(&self.directory, &self.name, directory, name, RenameFlags::NOREPLACE) {
                    // NFS, for one, cannot.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.link(directory, name),
                    renamed => Ok(renamed?),
                }
            }
        }
    }

    /// The name becomes a second one, and the staged one goes when this is dropped.
    fn link(&self, directory: &Dir, name: &str) -> io::Result<()> {
        self.directory.hard_link(&self.name, directory, name)
    }

    fn remove(&self) -> io::Result<()> {
        present(self.directory.remove_file(&self.name)).map(drop)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What stays is invisible, and `gc` finds it.
        if let Err(error) = self.remove() {
            tracing::debug!(name = self.name, %error, "a staged file could not be removed");
        }
    }
}

/// The directories of a key, `""` for the root.
fn directory_of(key: &Key) -> &str {
    key.as_str().rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn open_directory(parent: &Dir, name: &str) -> io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => Ok(Dir::from_std_file(File::from(directory))),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(io::Error::new(
            ErrorKind::NotADirectory,
            format!("{name} is not a directory; symbolic links are not followed"),
        )),
        Err(errno) => Err(errno.into()),
    }
}

fn make_directory(parent: &Dir, name: &str) -> io::Result<Dir> {
    let mut builder = DirBuilder::new();
    match parent.create_dir_with(name, builder.mode(DIRECTORY_MODE)) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => open_directory(parent, name),
    }
}

fn open_file(directory: &Dir, name: &str, flags: OFlags) -> io::Result<File> {
    match rustix::fs::openat(directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, FILE_MODE.into()) {
        Ok(file) => Ok(File::from(file)),
        Err(Errno::LOOP) => Err(io::Error::other(format!("{name} is a symbolic link, and those are not followed"))),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the names in a directory durable.
fn sync_directory(directory: &Dir) -> io::Result<()> {
    match rustix::fs::fsync(directory) {
        // Some network file systems cannot sync a directory, and have no need to.
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        synced => Ok(synced?),
    }
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the root unless it is there, but nothing above it: a parent that is missing is more likely a file system
/// that is not mounted than one to be made.
fn create_root(path: &Path) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(path);
    let failed = |error| failure(format!("cannot create the folder {}", path.display()), error);
    match std::fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => File::open(parent).and_then(|parent| sync_directory(&Dir::from_std_file(parent))).map_err(failed),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Failure::new(Class::Usage, format!("the parent folder {} does not exist", parent.display()))
                .meaning("a missing store folder is created, but not its parents; nothing was published")
                .next("check store.url and the mounts, or create the parent folder"))
        }
        Err(error) => Err(failed(error)),
    }
}

fn failure(what: String, error: io::Error) -> Failure {
    let text = format!("{what}: {error}");
    Failure::new(store_error(what, error).class(), text)
}

/// The system's error as the store's.
fn store_error(what: String, error: io::Error) -> StoreError {
    let full = |what: &str, why: &str| {
        format!("{what}: {why}; nothing incomplete is visible: free space and run the same command again")
    };
    match Errno::from_io_error(&error) {
        Some(Errno::NOSPC) => StoreError::Other { what: full(&what, "the disk is full"), source: error.into() },
        Some(Errno::DQUOT) => StoreError::Other { what: full(&what, "the disk quota is used up"), source: error.into() },
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => StoreError::Denied { what, source: error.into() },
        Some(
            Errno::AGAIN | Errno::INTR | Errno::BUSY | Errno::STALE | Errno::TIMEDOUT
            // A shared file system lost its server.
            | Errno::NETDOWN | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::HOSTUNREACH
            | Errno::CONNREFUSED | Errno::CONNRESET | Errno::CONNABORTED | Errno::NOTCONN,
        ) => StoreError::Transient { what, source: error.into() },
        _ => StoreError::Other { what, source: error.into() },
    }
}

/// The absolute path that a `file:` URL names.
///
/// # Errors
/// What is wrong with the URL, to follow its name.
pub(super) fn path_of(url: &str) -> Result<PathBuf, &'static str> {
    let path =
        url.get("file://".len()..).filter(|path| path.starts_with('/')).ok_or("does not name an absolute path")?;
    if path.contains(['?', '#']) {
        return Err("has a query or a fragment; in a path, write ? as %3F and # as %23");
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                rest = tail;
                hex::decode([*high, *low]).ok().and_then(|byte| byte.first().copied()).ok_or(BAD_ESCAPE)?
            }
            (b'%', _) => return Err(BAD_ESCAPE),
            (&byte, _) => byte,
        });
    }
    if bytes.contains(&0) {
        return Err("holds a zero byte, which no path can");
    }
    Ok(OsString::from_vec(bytes).into())
}

const BAD_ESCAPE: &str = "has a % that two hex digits do not follow; in a path, write % as %25";

/// The `file:` URL of an absolute path; [`path_of`] undoes it.
fn url_of(path: &Path) -> String {
    let escaped = path.as_os_str().as_bytes().iter().map(|&byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' | b'=' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    });
    format!("file://{}", escaped.collect::<String>())
}

#[cfg(test)]
mod tests;
