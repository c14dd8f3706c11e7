//! Where a scene publishes to, and everything that tests do to a store behind the program's back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pgslice::config::StoreConfig;
use pgslice::layout::Key;
use pgslice::store::fs::FolderStore;
use pgslice::store::{Access, SharedStore};

use crate::s3_server::StrictS3;
use crate::scene::Scene;
use crate::store::s3::{opened, prefix_of};

/// Names the kind of store that tests publish to: `folder` (also when it is not set), or `s3`.
const VARIABLE: &str = "PGSLICE_TEST_STORE";

/// The kinds of stores that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `file://`
    Folder,
    /// `s3://`, on [`StrictS3::shared`].
    Bucket,
}

impl Kind {
    /// The kind that this run of the tests is about; panics when the variable names none.
    pub(crate) fn of_this_run() -> Kind {
        match std::env::var(VARIABLE).as_deref() {
            Ok("folder") | Err(std::env::VarError::NotPresent) => Kind::Folder,
            Ok("s3") => Kind::Bucket,
            other => panic!("{VARIABLE} must be \"folder\" or \"s3\", not {other:?}"),
        }
    }

    /// A place of this kind where nothing is yet. A folder is a new one in `above`, and is not made; a bucket has a
    /// new prefix.
    pub(crate) fn place(self, above: &Path) -> Arc<dyn Place> {
        match self {
            Kind::Folder => Arc::new(Folder { path: above.join("store") }),
            Kind::Bucket => Arc::new(Bucket::new(StrictS3::shared())),
        }
    }
}

/// A place that a feed is published to, seen by its owner. Keys are names below it, as `feed.json` has them.
#[async_trait]
pub(crate) trait Place: Debug + Send + Sync {
    /// `store.url` of a configuration.
    fn url(&self) -> String;

    /// The `[store]` section of a configuration.
    fn section(&self) -> String {
        format!("[store]\nurl = \"{}\"\n", self.url())
    }

    /// What the program's environment must hold so that it may write here.
    fn environment(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The store, for a command that runs in the test's own process and on its runtime.
    async fn open(&self) -> SharedStore;

    /// Makes the empty store that a reader can be pointed at.
    fn make(&self);

    /// Makes it a place that nothing was ever published to.
    fn clear(&self);

    /// Is there nothing at all, nothing staged and nothing of the store's own either?
    fn is_untouched(&self) -> bool;

    /// The keys of all objects, the head and its page among them, but for the store's own. What is not published yet is
    /// no object.
    fn list(&self) -> BTreeSet<String>;

    /// The first names of all keys that have several: in a folder all directories, even those that are empty.
    fn directories(&self) -> BTreeSet<String>;

    /// The content of an object, if there is one.
    fn read(&self, key: &str) -> Option<Vec<u8>>;

    /// The content of an object, which must be there.
    #[track_caller]
    fn content(&self, key: &str) -> Vec<u8> {
        self.read(key).unwrap_or_else(|| panic!("{key} is not in {}", self.url()))
    }

    /// Is there such an object?
    fn is_there(&self, key: &str) -> bool {
        self.read(key).is_some()
    }

    /// All objects with their contents: equal only when nothing was published in between.
    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        self.list().into_iter().map(|key| (key.clone(), self.content(&key))).collect()
    }

    /// Makes or replaces an object.
    fn write(&self, key: &str, content: &[u8]);

    /// Takes an object away, which must be there.
    fn remove(&self, key: &str);

    /// How many objects are begun that are neither published nor given up.
    fn staged(&self) -> usize;
}

/// A folder.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Adds the keys of the objects below a directory; `prefix` is its own key with a slash, or nothing.
    fn collect(&self, prefix: &str, keys: &mut BTreeSet<String>) {
        let Ok(entries) = fs::read_dir(self.path.join(prefix)) else { return };
        for entry in entries {
            let entry = entry.expect("list the store");
            let name = entry.file_name().into_string().expect("keys are ASCII");
            if prefix.is_empty() && name.starts_with('.') {
                // The store's own: its lock, and what is staged.
                continue;
            }
            if entry.file_type().expect("a file's type").is_dir() {
                self.collect(&format!("{prefix}{name}/"), keys);
            } else {
                keys.insert(format!("{prefix}{name}"));
            }
        }
    }
}

#[async_trait]
impl Place for Folder {
    fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    async fn open(&self) -> SharedStore {
        Arc::new(FolderStore::open(&self.path, Access::ReadWrite).expect("open the store"))
    }

    fn make(&self) {
        fs::create_dir(&self.path).expect("make the store's folder");
    }

    fn clear(&self) {
        fs::remove_dir_all(&self.path).expect("remove the store");
    }

    fn is_untouched(&self) -> bool {
        fs::read_dir(&self.path).map_or(true, |mut entries| entries.next().is_none())
    }

    fn list(&self) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        self.collect("", &mut keys);
        keys
    }

    fn directories(&self) -> BTreeSet<String> {
        fs::read_dir(&self.path)
            .expect("list the store")
            .map(|entry| entry.expect("an entry"))
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().expect("keys are ASCII"))
            .filter(|name| !name.starts_with('.'))
            .collect()
    }

    fn read(&self, key: &str) -> Option<Vec<u8>> {
        use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
        match fs::read(self.path.join(key)) {
            Ok(content) => Some(content),
            // A directory is no object, and neither is what is below an object.
            Err(error) if matches!(error.kind(), NotFound | IsADirectory | NotADirectory) => None,
            Err(error) => panic!("{key}: {error}"),
        }
    }

    fn write(&self, key: &str, content: &[u8]) {
        let path = self.path.join(key);
        fs::create_dir_all(path.parent().expect("a key is below the store")).expect("make a directory");
        fs::write(path, content).unwrap_or_else(|error| panic!("{key}: {error}"));
    }

    fn remove(&self, key: &str) {
        fs::remove_file(self.path.join(key)).unwrap_or_else(|error| panic!("{key}: {error}"));
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.path.join(".staging")).map_or(0, Iterator::count)
    }
}

/// A prefix of the server's bucket.
#[derive(Debug)]
struct Bucket {
    server: &'static StrictS3,
    config: StoreConfig,
    /// With a slash at its end.
    prefix: String,
}

impl Bucket {
    fn new(server: &'static StrictS3) -> Bucket {
        let config = prefix_of(server);
        let url = config.url.as_deref().expect("a url");
        let prefix = url.strip_prefix(&server.url("")).expect("it is in the server's bucket");
        Bucket { server, prefix: format!("{prefix}/"), config }
    }

    fn whole(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

#[async_trait]
impl Place for Bucket {
    fn url(&self) -> String {
        self.config.url.clone().expect("a url")
    }

    fn section(&self) -> String {
        let (endpoint, region) = (self.server.endpoint(), self.server.region());
        format!(
            "[store]\nurl = \"{}\"\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\npath-style = true\n\
             part-size = \"5MiB\"\n",
            self.url()
        )
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        self.server.environment().to_vec()
    }

    async fn open(&self) -> SharedStore {
        opened(self.server, &self.config, Access::ReadWrite).await.expect("open the store")
    }

    fn make(&self) {
        // The bucket is there, and a prefix is nothing that could be made.
    }

    fn clear(&self) {
        self.server.list(&self.prefix).iter().for_each(|key| self.server.remove(key));
    }

    fn is_untouched(&self) -> bool {
        self.server.list(&self.prefix).is_empty() && self.staged() == 0
    }

    fn list(&self) -> BTreeSet<String> {
        let below = |key: &String| key.strip_prefix(&self.prefix).expect("it was listed for the prefix").to_owned();
        let mut keys: BTreeSet<String> = self.server.list(&self.prefix).iter().map(below).collect();
        // The store's own: its conditional writes are tried on it.
        keys.remove(Key::write_test().as_str());
        keys
    }

    fn directories(&self) -> BTreeSet<String> {
        self.list().iter().filter_map(|key| Some(key.split_once('/')?.0.to_owned())).collect()
    }

    fn read(&self, key: &str) -> Option<Vec<u8>> {
        self.server.read(&self.whole(key))
    }

    fn write(&self, key: &str, content: &[u8]) {
        self.server.write(&self.whole(key), content);
    }

    fn remove(&self, key: &str) {
        assert!(self.is_there(key), "{key} is not in {}", self.url());
        self.server.remove(&self.whole(key));
    }

    fn staged(&self) -> usize {
        self.server.open_uploads(&self.prefix)
    }
}

#[test]
fn a_scene_is_on_the_kind_of_store_that_the_run_is_about_or_on_the_one_it_asks_for() {
    let scheme = |scene: Scene| scene.place().url().split_once("://").expect("a url").0.to_owned();
    let named = std::env::var(VARIABLE).unwrap_or_default();
    assert_eq!(scheme(Scene::new("")), if named == "s3" { "s3" } else { "file" });
    assert_eq!(scheme(Scene::in_folder("")), "file");
    assert_eq!(scheme(Scene::on(Kind::Bucket, "")), "s3");
}
