//! What only a folder can get wrong: links, permissions, crashes, locks, and the names around it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgslice::config::StoreConfig;
use pgslice::error::{Class, Failure};
use pgslice::layout::Key;
use pgslice::store::fs::FolderStore;
use pgslice::store::{self, Access, SharedStore, Store, StoreError, Swap};
use tempfile::TempDir;

use super::{CAP, conforms, content, is_there, key, noise, upload};

/// Folders for stores, removed with this value.
pub(crate) struct Folders {
    above: TempDir,
    made: AtomicU32,
}

impl Folders {
    pub(crate) fn new() -> Folders {
        Folders { above: TempDir::new().expect("a temporary folder"), made: AtomicU32::new(0) }
    }

    /// The path of a folder that is not there yet.
    pub(crate) fn path(&self) -> PathBuf {
        self.above.path().join(format!("feed-{}", self.made.fetch_add(1, Ordering::Relaxed)))
    }

    /// A store in a folder of its own.
    pub(crate) fn store(&self) -> SharedStore {
        self.store_at(&self.path())
    }

    /// A store at one of the paths.
    pub(crate) fn store_at(&self, path: &Path) -> SharedStore {
        Arc::new(opened(path))
    }

    /// The folder that all of them lie in.
    pub(crate) fn root(&self) -> &Path {
        self.above.path()
    }
}

fn opened(path: &Path) -> FolderStore {
    FolderStore::open(path, Access::ReadWrite).expect("opened")
}

/// All files and directories below `path`, relative to it, sorted.
fn tree(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("listed") {
            let entry = entry.expect("an entry");
            let name = entry.path().strip_prefix(path).expect("below").to_str().expect("ASCII").to_owned();
            if entry.file_type().expect("a type").is_dir() {
                open.push(entry.path());
                found.push(format!("{name}/"));
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_conforms() {
    let folders = Folders::new();
    conforms(async || folders.store()).await;
}

#[tokio::test]
async fn what_was_given_up_or_published_leaves_no_staged_file() {
    let folders = Folders::new();
    let path = folders.path();
    let store = opened(&path);
    upload(&store, &key("day/part"), b"part").await.expect("uploaded");
    upload(&store, &key("day/part"), b"part").await.expect_err("exists");
    store.create(&key("day/part"), "part".into()).await.expect_err("exists");
    store.replace(&Key::index(), "page".into()).await.expect("replaced");
    store.upload(&key("day/other")).await.expect("started").abort().await.expect("aborted");
    let mut dropped = store.upload(&key("day/other")).await.expect("started");
    dropped.write("bytes".into()).await.expect("written");
    assert_eq!(tree(&path.join(".staging")).len(), 1, "while it is written");
    drop(dropped);
    assert_eq!(tree(&path), [".staging/", "day/", "day/part", "index.html"]);
}

#[tokio::test]
async fn deletion_removes_emptied_directories_but_never_the_root() {
    let folders = Folders::new();
    let path = folders.path();
    let store = opened(&path);
    let keys =
        ["2024-05-01/r1-aa/part", "2024-05-01/r1-aa/manifest.json", "2024-05-01/r2-bb/part", "feed.json"].map(key);
    for key in &keys {
        store.create(key, "content".into()).await.expect("created");
    }
    store.delete(&keys[..1]).await.expect("deleted");
    assert!(tree(&path).contains(&"2024-05-01/r1-aa/".to_owned()), "another object is in it");
    store.delete(&keys[1..2]).await.expect("deleted");
    assert_eq!(tree(&path), [".staging/", "2024-05-01/", "2024-05-01/r2-bb/", "2024-05-01/r2-bb/part", "feed.json"]);
    store.delete(&keys).await.expect("deleted");
    assert_eq!(tree(&path), [".staging/"]);
    std::fs::create_dir_all(path.join("2024-05-02/r1-cc")).expect("what a killed deletion left");
    store.delete(&[key("2024-05-02/r1-cc/part")]).await.expect("deleted again");
    assert_eq!(tree(&path), [".staging/"]);
}

#[tokio::test]
async fn published_files_are_readable_for_a_web_server() {
    let folders = Folders::new();
    let path = folders.path();
    let store = opened(&path);
    upload(&store, &key("day/r1-aa/part"), b"part").await.expect("uploaded");
    assert_eq!(store.swap(&Key::feed(), None, "{}".into()).await.expect("an answer"), Swap::Done);
    // As a fresh file and directory of the same modes are: the umask decides the rest.
    let umask = {
        let probe = path.join("probe");
        std::fs::DirBuilder::new().create(&probe).expect("a probe");
        0o777 & !mode(&probe)
    };
    for file in ["day/r1-aa/part", "feed.json"] {
        assert_eq!(mode(&path.join(file)), 0o644 & !umask, "{file}");
    }
    for directory in ["", "day", "day/r1-aa"] {
        assert_eq!(mode(&path.join(directory)), 0o755 & !umask, "{directory}");
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_linked_directory_is_not_entered() {
    let folders = Folders::new();
    let (path, elsewhere) = (folders.path(), folders.path());
    let store = opened(&path);
    std::fs::create_dir_all(elsewhere.join("r1-aa")).expect("a folder elsewhere");
    std::fs::write(elsewhere.join("r1-aa/part"), "foreign").expect("a file elsewhere");
    std::fs::create_dir(path.join("inside")).expect("a folder inside");
    for (link, target) in
        [("away", elsewhere.as_path()), ("dangling", Path::new("nowhere")), ("beside", Path::new("inside"))]
    {
        symlink(target, path.join(link)).expect("a link");
        let object = key(&format!("{link}/r1-aa/part"));
        assert!(matches!(store.read(&object, CAP).await, Err(StoreError::Other { .. })), "{link}");
        assert!(matches!(store.read_range(&object, 0, 1).await, Err(StoreError::Other { .. })), "{link}");
        assert!(matches!(store.create(&object, "x".into()).await, Err(StoreError::Other { .. })), "{link}");
        assert!(matches!(store.replace(&object, "x".into()).await, Err(StoreError::Other { .. })), "{link}");
        assert!(matches!(store.swap(&object, None, "x".into()).await, Err(StoreError::Other { .. })), "{link}");
        assert!(matches!(upload(&store, &object, b"x").await, Err(StoreError::Other { .. })), "{link}");
        assert!(matches!(store.delete(&[object]).await, Err(StoreError::Other { .. })), "{link}");
    }
    assert_eq!(tree(&elsewhere), ["r1-aa/", "r1-aa/part"]);
    assert_eq!(tree(&path.join("inside")), [""; 0]);
    assert_eq!(std::fs::read(elsewhere.join("r1-aa/part")).expect("still there"), b"foreign");
}

#[tokio::test]
async fn a_linked_file_is_neither_read_nor_written_through() {
    let folders = Folders::new();
    let (path, elsewhere) = (folders.path(), folders.path());
    let store = opened(&path);
    std::fs::write(&elsewhere, "foreign").expect("a file elsewhere");
    std::fs::write(path.join("inside"), "own").expect("a file inside");
    let nowhere = folders.path();
    for (name, target) in [("away", &elsewhere), ("dangling", &nowhere), ("same", &PathBuf::from("inside"))] {
        let link = path.join(name);
        symlink(target, &link).expect("a link");
        let object = key(name);
        let error = store.read(&object, CAP).await.expect_err("not followed");
        assert!(describe(&error).contains("symbolic link"), "{}", describe(&error));
        assert!(matches!(store.read_range(&object, 0, 1).await, Err(StoreError::Other { .. })));
        assert!(matches!(store.create(&object, "x".into()).await, Err(StoreError::Exists(_))));
        assert!(matches!(upload(&store, &object, b"x").await, Err(StoreError::Exists(_))));
        assert!(matches!(store.swap(&object, None, "x".into()).await, Err(StoreError::Other { .. })));
        assert!(link.symlink_metadata().expect("there").is_symlink(), "nothing took its place");
        store.delete(&[object]).await.expect("the link goes, not what it points to");
        assert!(link.symlink_metadata().is_err());
    }
    assert_eq!(std::fs::read(&elsewhere).expect("still there"), b"foreign");
    assert_eq!(std::fs::read(path.join("inside")).expect("still there"), b"own");
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn a_linked_feed_lock_or_staging_directory_is_refused() {
    let folders = Folders::new();
    let (path, elsewhere) = (folders.path(), folders.path());
    let store = opened(&path);
    std::fs::create_dir(&elsewhere).expect("a folder elsewhere");
    std::fs::write(elsewhere.join("feed.json"), "foreign").expect("a file elsewhere");
    symlink(elsewhere.join("feed.json"), path.join("feed.json")).expect("a link");
    let foreign = opened(&elsewhere).read(&Key::feed(), CAP).await.expect("readable").expect("there").1;
    assert!(store.read(&Key::feed(), CAP).await.is_err());
    assert!(store.swap(&Key::feed(), Some(&foreign), "own".into()).await.is_err());
    std::fs::remove_file(path.join("feed.json")).expect("removed");
    std::fs::remove_file(path.join(".lock")).expect("removed");

    symlink(elsewhere.join("lock"), path.join(".lock")).expect("a link");
    assert!(store.swap(&Key::feed(), None, "own".into()).await.is_err());
    std::fs::remove_file(path.join(".lock")).expect("removed");

    std::fs::remove_dir(path.join(".staging")).ok();
    symlink(&elsewhere, path.join(".staging")).expect("a link");
    assert!(store.create(&key("part"), "own".into()).await.is_err());
    assert_eq!(tree(&elsewhere), ["feed.json"]);
    assert_eq!(std::fs::read(elsewhere.join("feed.json")).expect("still there"), b"foreign");
}

#[tokio::test]
async fn what_is_not_a_file_is_an_error_and_is_not_waited_for() {
    let folders = Folders::new();
    let path = folders.path();
    let store = opened(&path);
    std::fs::create_dir_all(path.join("object/below")).expect("a directory");
    let pipe = Command::new("mkfifo").arg(path.join("pipe")).status().expect("mkfifo runs");
    assert!(pipe.success());
    for object in ["object", "pipe"].map(key) {
        let answers = async {
            assert!(matches!(store.read(&object, CAP).await, Err(StoreError::Other { .. })));
            assert!(matches!(store.read_range(&object, 0, 1).await, Err(StoreError::Other { .. })));
            assert!(matches!(store.create(&object, "x".into()).await, Err(StoreError::Exists(_))));
            assert!(matches!(upload(&store, &object, b"x").await, Err(StoreError::Exists(_))));
            assert!(matches!(store.swap(&object, None, "x".into()).await, Err(StoreError::Other { .. })));
        };
        if tokio::time::timeout(Duration::from_secs(20), answers).await.is_err() {
            // The other end, so that whoever waits for it ends too.
            let _end = std::fs::File::options().read(true).write(true).open(path.join("pipe"));
            panic!("{object} was waited for");
        }
    }
    assert!(store.replace(&key("object"), "x".into()).await.is_err());
    store.create(&key("file"), "x".into()).await.expect("created");
    let below = store.create(&key("file/below"), "x".into()).await.expect_err("a file is no directory");
    assert!(describe(&below).contains(&format!("{}/file/below", path.display())), "{}", describe(&below));
    assert_eq!(tree(&path.join("object")), ["below/"]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_a_matter_of_permission() {
    // Nobody creates files there, not even root.
    let store = FolderStore::open(Path::new("/sys"), Access::ReadWrite).expect("opened");
    let error = store.create(&key("part"), "x".into()).await.expect_err("refused");
    assert_eq!(error.class(), Class::Permission, "{}", describe(&error));
    assert!(describe(&error).contains("/sys/part"), "{}", describe(&error));
}

#[tokio::test]
async fn a_store_opened_to_read_reads_and_changes_nothing() {
    let folders = Folders::new();
    let path = folders.path();
    opened(&path).create(&key("day/part"), "part".into()).await.expect("created");
    let before = tree(&path);
    let store = FolderStore::open(&path, Access::ReadOnly).expect("opened");
    assert_eq!(content(&store, &key("day/part")).await, "part");
    let refused = [
        store.create(&key("new"), "x".into()).await.err(),
        store.swap(&Key::feed(), None, "x".into()).await.err(),
        store.replace(&Key::index(), "x".into()).await.err(),
        store.upload(&key("new")).await.err(),
        store.delete(&[key("day/part")]).await.err(),
    ];
    for error in refused {
        assert!(matches!(error, Some(StoreError::Denied { .. })), "{error:?}");
    }
    assert_eq!(tree(&path), before);
}

/// The store at a url, as a command opens it.
fn open(url: &str, access: Access) -> Result<SharedStore, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let opened = runtime.block_on(store::open(&StoreConfig::at(url), access));
    opened.map_err(|error| error.downcast::<Failure>().expect("a classified failure"))
}

#[test]
fn a_missing_folder_is_created_to_publish_and_missed_to_read() {
    let folders = Folders::new();
    let path = folders.path();
    let url = format!("file://{}", path.display());
    let Err(missed) = open(&url, Access::ReadOnly) else { panic!("there is nothing to read") };
    assert_eq!(missed.class, Class::Usage);
    assert!(missed.what.contains(path.to_str().expect("ASCII")) && missed.next.is_some(), "{missed:?}");
    assert!(!path.exists());
    assert_eq!(open(&url, Access::ReadWrite).expect("created").url(), url);
    open(&url, Access::ReadWrite).expect("opened again");
    open(&url, Access::ReadOnly).expect("there now");
}

#[test]
fn the_parents_of_a_missing_folder_are_named_but_not_created() {
    let folders = Folders::new();
    let parent = folders.path();
    let url = format!("file://{}/feed", parent.display());
    let Err(missed) = open(&url, Access::ReadWrite) else { panic!("the parent is missing") };
    assert_eq!(missed.class, Class::Usage);
    assert!(missed.what.contains(parent.to_str().expect("ASCII")), "{}", missed.what);
    assert!(!missed.what.contains(&format!("{}/feed", parent.display())), "the parent: {}", missed.what);
    assert!(!parent.exists());
}

#[test]
fn a_file_is_not_a_folder() {
    let folders = Folders::new();
    let path = folders.path();
    std::fs::write(&path, "a file").expect("written");
    let url = format!("file://{}", path.display());
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let Err(refused) = open(&url, access) else { panic!("it is a file") };
        assert_eq!(refused.class, Class::Usage);
        assert!(refused.what.contains("is not a folder"), "{}", refused.what);
    }
}

#[test]
fn an_odd_path_is_opened_by_its_escaped_url_and_tells_it() {
    let folders = Folders::new();
    let path = folders.path().with_file_name("Tägliche Kopie #1 100%");
    let escaped = "T%C3%A4gliche%20Kopie%20%231%20100%25";
    let url = format!("file://{}/{escaped}", path.parent().expect("a parent").display());
    assert_eq!(open(&url, Access::ReadWrite).expect("opened").url(), url);
    assert!(path.is_dir());
}

/// The folder that a child process of these tests works in.
const CHILD_FOLDER: &str = "PGSLICE_TEST_FOLDER";
const WRITERS: u32 = 4;
const INCREMENTS: u32 = 50;

/// A process that does not outlive the test that started it.
struct ChildProcess(Child);

impl ChildProcess {
    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("waited for");
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts `test`, an ignored test of this module, as a process of its own.
fn child(test: &str, folder: &Path) -> ChildProcess {
    let module = module_path!().split_once("::").expect("a module of a crate").1;
    let child = Command::new(std::env::current_exe().expect("this test binary"))
        .args(["--exact", "--ignored", "--nocapture", &format!("{module}::{test}")])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("a child");
    ChildProcess(child)
}

fn child_folder() -> PathBuf {
    std::env::var_os(CHILD_FOLDER).expect("only the test that needs it runs this one").into()
}

/// Counts up the number in feed.json, by a store of its own.
async fn increment(folder: &Path) {
    let store = opened(folder);
    for _ in 0..INCREMENTS {
        loop {
            let (bytes, seen) = store.read(&Key::feed(), CAP).await.expect("readable").expect("there");
            let count: u32 = std::str::from_utf8(&bytes).expect("a number").parse().expect("a number");
            match store.swap(&Key::feed(), Some(&seen), (count + 1).to_string().into()).await.expect("an answer") {
                Swap::Done => break,
                Swap::Conflict => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_in_threads_and_processes_lose_no_swap_of_one_folder() {
    let folders = Folders::new();
    let path = folders.path();
    opened(&path).create(&Key::feed(), "0".into()).await.expect("created");
    let children: Vec<ChildProcess> = (0..WRITERS / 2).map(|_| child("child_that_increments", &path)).collect();
    let tasks: Vec<_> = (0..WRITERS / 2)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { increment(&path).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("incremented");
    }
    for mut child in children {
        assert!(child.0.wait().expect("waited for").success());
    }
    assert_eq!(content(&opened(&path), &Key::feed()).await, (WRITERS * INCREMENTS).to_string());
}

#[tokio::test]
#[ignore = "run by stores_in_threads_and_processes_lose_no_swap_of_one_folder"]
async fn child_that_increments() {
    increment(&child_folder()).await;
}

#[tokio::test]
async fn a_killed_upload_leaves_nothing_visible_and_its_name_free() {
    let folders = Folders::new();
    let path = folders.path();
    let store = opened(&path);
    let mut child = child("child_that_uploads_for_ever", &path);
    let staged = path.join(".staging");
    let patience = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_dir(&staged).is_ok_and(|mut files| {
        files.any(|file| file.and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.len() >= 3 << 20))
    }) {
        assert!(Instant::now() < patience, "the child writes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill();
    assert!(!is_there(&store, &key("day/part")).await);
    assert_eq!(tree(&path).iter().filter(|name| !name.starts_with(".staging/")).count(), 0);
    assert_eq!(tree(&staged).len(), 1, "its staged file is what gc finds");
    upload(&store, &key("day/part"), b"later").await.expect("uploaded");
    assert_eq!(store.swap(&Key::feed(), None, "{}".into()).await.expect("no lock is left"), Swap::Done);
}

#[tokio::test]
#[ignore = "run by a_killed_upload_leaves_nothing_visible_and_its_name_free"]
async fn child_that_uploads_for_ever() {
    let store = opened(&child_folder());
    let mut upload = store.upload(&key("day/part")).await.expect("started");
    for _ in 0..4 {
        upload.write(Bytes::from(noise(1 << 20, 8))).await.expect("written");
    }
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_killed_swap_is_free_at_once() {
    let folders = Folders::new();
    let path = folders.path();
    let store = opened(&path);
    let mut holder = child("child_that_holds_the_lock_for_ever", &path);
    let patience = Instant::now() + Duration::from_secs(60);
    while !path.join("locked").exists() {
        assert!(Instant::now() < patience, "the child takes the lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let swap = tokio::spawn(async move { store.swap(&Key::feed(), None, "{}".into()).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!swap.is_finished(), "another process holds the lock");
    holder.kill();
    let swap = tokio::time::timeout(Duration::from_secs(20), swap).await.expect("the lock is free");
    assert_eq!(swap.expect("not cancelled").expect("an answer"), Swap::Done);
}

#[tokio::test]
#[ignore = "run by the_lock_of_a_killed_swap_is_free_at_once"]
async fn child_that_holds_the_lock_for_ever() {
    let folder = child_folder();
    let lock = std::fs::File::create(folder.join(".lock")).expect("the lock's file");
    lock.lock().expect("locked");
    std::fs::write(folder.join("locked"), "").expect("told");
    std::future::pending().await
}

fn describe(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
