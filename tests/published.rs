//! What a store holds, read as a stranger reads it: plain objects, followed from `feed.json`, decoded by `zstd -dc`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, Write};
use std::process::Command;
use std::sync::Arc;

use pgslice::feed::{DayEntry, Feed};
use pgslice::manifest::{Manifest, Part, Slice};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::place::Place;
use crate::scene::Scene;

/// A published feed.
#[derive(Debug)]
pub(crate) struct Published {
    place: Arc<dyn Place>,
}

impl Published {
    /// What `scene` publishes, as it is whenever it is asked for.
    pub(crate) fn by(scene: &Scene) -> Published {
        Published { place: Arc::clone(scene.place()) }
    }

    /// The head, or `None` before the first export.
    pub(crate) fn feed_if_any(&self) -> Option<Feed> {
        let bytes = self.place.read("feed.json")?;
        Some(Feed::parse(&bytes).expect("a readable feed.json"))
    }

    /// The head.
    pub(crate) fn feed(&self) -> Feed {
        self.feed_if_any().expect("feed.json is there")
    }

    /// The days in a line each: `2024-05-01 r1 final 3` for three rows.
    pub(crate) fn days(&self) -> Vec<String> {
        let line =
            |entry: &DayEntry| format!("{} r{} {} {}", entry.day, entry.revision, entry.state.word(), entry.rows);
        self.feed_if_any().map(|feed| feed.days.iter().map(line).collect()).unwrap_or_default()
    }

    /// The entry of a published day.
    pub(crate) fn entry(&self, day: &str) -> DayEntry {
        let feed = self.feed();
        let entry = feed.days.iter().find(|entry| entry.day.to_string() == day);
        entry.unwrap_or_else(|| panic!("{day} is not published: {:?}", self.days())).clone()
    }

    /// The manifest that stands for a day.
    pub(crate) fn manifest(&self, day: &str) -> Manifest {
        self.manifest_of(&self.entry(day))
    }

    fn manifest_of(&self, entry: &DayEntry) -> Manifest {
        let bytes = self.place.content(entry.manifest.key.as_str());
        assert_eq!(sha256(&bytes), entry.manifest.sha256, "the manifest of {} is another one", entry.day);
        Manifest::parse(&bytes).expect("a readable manifest")
    }

    /// The directory of the attempt that stands for a day.
    pub(crate) fn directory(&self, day: &str) -> String {
        let entry = self.entry(day);
        entry.manifest.key.as_str().rsplit_once('/').expect("a manifest is in a directory").0.to_owned()
    }

    /// The slice of `table` (`schema.name`) on a day.
    pub(crate) fn slice(&self, day: &str, table: &str) -> Slice {
        let manifest = self.manifest(day);
        let slice = manifest.slices.iter().find(|slice| slice.qualified_name() == table);
        slice.unwrap_or_else(|| panic!("{day} has no slice of {table}")).clone()
    }

    /// The rows of a slice in text format as COPY's lines, sorted.
    pub(crate) fn rows(&self, day: &str, table: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for file in self.files(day, table) {
            let text = String::from_utf8(file).expect("PostgreSQL writes UTF-8");
            assert!(text.is_empty() || text.ends_with('\n'), "a part of {table} ends within a row");
            // Not `lines`, which takes a carriage return for a part of the line's end.
            rows.extend(text.split_terminator('\n').map(str::to_owned));
        }
        rows.sort();
        rows
    }

    /// What `zstd -dc` makes of each part of a slice.
    pub(crate) fn files(&self, day: &str, table: &str) -> Vec<Vec<u8>> {
        let slice = self.slice(day, table);
        let decoded = |part: &Part| {
            let mut stored = tempfile::tempfile().expect("create a temporary file");
            stored.write_all(&self.place.content(part.key.as_str())).expect("write a temporary file");
            stored.rewind().expect("go back to its beginning");
            let output = Command::new("zstd")
                .args(["-q", "-dc"])
                .stdin(stored)
                .output()
                .expect("run zstd, which scripts/install-debian installs");
            assert!(output.status.success(), "{}: {}", part.key, String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        slice.parts.iter().map(decoded).collect()
    }

    /// The first column of a slice's rows, sorted as text.
    pub(crate) fn ids(&self, day: &str, table: &str) -> Vec<String> {
        let mut ids: Vec<String> =
            self.rows(day, table).iter().map(|row| row.split('\t').next().unwrap_or_default().to_owned()).collect();
        ids.sort();
        ids
    }

    /// Every object but the head and its page, by name. What is staged is no object.
    pub(crate) fn objects(&self) -> BTreeSet<String> {
        let mut objects = self.place.list();
        objects.retain(|name| name != "feed.json" && name != "index.html");
        objects
    }

    /// How many objects are begun that are neither visible nor given up.
    pub(crate) fn staged(&self) -> usize {
        self.place.staged()
    }

    /// Holds everything that the head names, and everything that is named there, against what is in the store.
    #[track_caller]
    pub(crate) fn is_whole(&self) {
        let Some(feed) = self.feed_if_any() else { return };
        for entry in &feed.days {
            let manifest = self.manifest_of(entry);
            assert_eq!((manifest.revision, manifest.rows()), (entry.revision, entry.rows), "{}", entry.day);
            for part in manifest.slices.iter().flat_map(|slice| &slice.parts) {
                let bytes = self.place.content(part.key.as_str());
                assert_eq!(bytes.len() as u64, part.stored_bytes, "{}", part.key);
                assert_eq!(sha256(&bytes), part.sha256, "{}", part.key);
            }
        }
        for retired in feed.retired.iter().filter(|retired| retired.deleted_at.is_none()) {
            assert!(self.place.is_there(retired.manifest.key.as_str()), "{} is gone", retired.manifest.key);
        }
    }

    /// Runs `sha256sum -c SHA256SUMS` in a copy of a day's directory; the names that it found right.
    pub(crate) fn checked_sums(&self, day: &str) -> Vec<String> {
        let directory = self.directory(day);
        let (of_the_day, _revision) = directory.rsplit_once('/').expect("attempts are below their day");
        let copy = self.downloaded(&format!("{of_the_day}/"));
        let output = Command::new("sha256sum")
            .args(["-c", "--strict", "SHA256SUMS"])
            .current_dir(copy.path().join(directory))
            .output()
            .expect("run sha256sum");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text.lines().map(|line| line.strip_suffix(": OK").expect("found right").to_owned()).collect()
    }

    /// A folder with the objects whose keys begin with `prefix`.
    fn downloaded(&self, prefix: &str) -> TempDir {
        let folder = TempDir::with_prefix("pgslice-downloaded-").expect("create a temporary folder");
        for key in self.place.list().iter().filter(|key| key.starts_with(prefix)) {
            let path = folder.path().join(key);
            fs::create_dir_all(path.parent().expect("a key is below the folder")).expect("make a directory");
            fs::write(path, self.place.content(key)).expect("write a copy");
        }
        folder
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
