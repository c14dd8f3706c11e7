//! What a store holds, read as a stranger reads it: plain files, followed from `feed.json`, decoded by `zstd -dc`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgslice::feed::{DayEntry, Feed};
use pgslice::manifest::{Manifest, Slice};
use sha2::{Digest, Sha256};

use crate::scene::Scene;

/// A published feed.
#[derive(Debug)]
pub(crate) struct Published {
    store: PathBuf,
}

impl Published {
    /// What `scene` publishes, as it is whenever it is asked for.
    pub(crate) fn by(scene: &Scene) -> Published {
        Published { store: scene.store().to_owned() }
    }

    /// The head, or `None` before the first export.
    pub(crate) fn feed_if_any(&self) -> Option<Feed> {
        let bytes = fs::read(self.store.join("feed.json")).ok()?;
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
        let bytes = self.read(entry.manifest.key.as_str());
        assert_eq!(sha256(&bytes), entry.manifest.sha256, "the manifest of {} is another one", entry.day);
        Manifest::parse(&bytes).expect("a readable manifest")
    }

    /// The directory of the attempt that stands for a day.
    pub(crate) fn directory(&self, day: &str) -> PathBuf {
        self.path(self.entry(day).manifest.key.as_str()).parent().expect("a key has a directory").to_owned()
    }

    /// The slice of `table` (`schema.name`) on a day.
    pub(crate) fn slice(&self, day: &str, table: &str) -> Slice {
        let manifest = self.manifest(day);
        let slice = manifest.slices.iter().find(|slice| slice.qualified_name() == table);
        slice.unwrap_or_else(|| panic!("{day} has no slice of {table}")).clone()
    }

    /// The rows of a slice as COPY's lines, sorted.
    pub(crate) fn rows(&self, day: &str, table: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for part in &self.slice(day, table).parts {
            let output = Command::new("zstd")
                .args(["-q", "-dc"])
                .arg(self.path(part.key.as_str()))
                .output()
                .expect("run zstd, which scripts/install-debian installs");
            assert!(output.status.success(), "{}: {}", part.key, String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("PostgreSQL writes UTF-8");
            assert!(text.is_empty() || text.ends_with('\n'), "{} ends within a row", part.key);
            // Not `lines`, which takes a carriage return for a part of the line's end.
            rows.extend(text.split_terminator('\n').map(str::to_owned));
        }
        rows.sort();
        rows
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
        let mut objects = BTreeSet::new();
        collect(&self.store, "", &mut objects);
        objects.retain(|name| name != "feed.json" && name != "index.html");
        objects
    }

    /// How many files are staged: the store's folder for what is not visible yet.
    pub(crate) fn staged(&self) -> usize {
        let Ok(staging) = fs::read_dir(self.store.join(".staging")) else { return 0 };
        staging.count()
    }

    /// Holds everything that the head names, and everything that is named there, against what is in the store.
    #[track_caller]
    pub(crate) fn is_whole(&self) {
        let Some(feed) = self.feed_if_any() else { return };
        for entry in &feed.days {
            let manifest = self.manifest_of(entry);
            assert_eq!((manifest.revision, manifest.rows()), (entry.revision, entry.rows), "{}", entry.day);
            for part in manifest.slices.iter().flat_map(|slice| &slice.parts) {
                let bytes = self.read(part.key.as_str());
                assert_eq!(bytes.len() as u64, part.stored_bytes, "{}", part.key);
                assert_eq!(sha256(&bytes), part.sha256, "{}", part.key);
            }
        }
        for retired in feed.retired.iter().filter(|retired| retired.deleted_at.is_none()) {
            assert!(self.path(retired.manifest.key.as_str()).exists(), "{} is gone", retired.manifest.key);
        }
    }

    /// Runs `sha256sum -c SHA256SUMS` in a day's directory; the names that it found right.
    pub(crate) fn checked_sums(&self, day: &str) -> Vec<String> {
        let output = Command::new("sha256sum")
            .args(["-c", "--strict", "SHA256SUMS"])
            .current_dir(self.directory(day))
            .output()
            .expect("run sha256sum");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text.lines().map(|line| line.strip_suffix(": OK").expect("found right").to_owned()).collect()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.store.join(key)
    }

    fn read(&self, key: &str) -> Vec<u8> {
        fs::read(self.path(key)).unwrap_or_else(|error| panic!("{key}: {error}"))
    }
}

fn collect(folder: &Path, prefix: &str, objects: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let entry = entry.expect("list the store");
        let name = entry.file_name().into_string().expect("keys are ASCII");
        if name.starts_with('.') {
            continue;
        }
        if entry.file_type().expect("a file's type").is_dir() {
            collect(&entry.path(), &format!("{prefix}{name}/"), objects);
        } else {
            objects.insert(format!("{prefix}{name}"));
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
