//! Names of published objects: the only file that makes or judges one.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::day::Day;
use crate::manifest::SliceFormat;

/// The head of a feed, relative to the store's prefix.
pub const FEED: &str = "feed.json";
/// The page for people beside it.
pub const INDEX: &str = "index.html";
/// The record of a day, in its attempt's directory.
const MANIFEST: &str = "manifest.json";
/// The longest key that is written or followed, in bytes.
const MAX_KEY_BYTES: usize = 900;
/// The longest file name that is written; most file systems stop at 255.
const MAX_NAME_BYTES: usize = 200;
/// The directory of full dumps and other streams.
const STREAMS: &str = "full";
/// How the names of full dumps' records end.
const DUMP_RECORD: &str = ".json";
/// The longest key of a stream, in bytes. Shorter than others: a person chose it.
const MAX_STREAM_KEY_BYTES: usize = 300;

/// The name of an object, relative to the store's prefix.
///
/// Grammar, for keys that are made and for keys that a feed names: segments of `[A-Za-z0-9._~=-]`, joined by `/`,
/// none empty and none starting with a dot; at most 900 bytes. So no key leaves the prefix, and none needs
/// escaping in a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = r"^[A-Za-z0-9_~=-][A-Za-z0-9._~=-]*(/[A-Za-z0-9_~=-][A-Za-z0-9._~=-]*)*$"))]
pub struct Key(String);

/// A text that is not a key.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an object name that pgslice follows")]
pub struct NotAKey(String);

/// A text that does not name a stream.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not a name below full/: write it like full/2024-05-01.dump, with letters, digits and . _ ~ = - between \
     slashes, no part beginning with a dot or longer than {MAX_NAME_BYTES} bytes, {MAX_STREAM_KEY_BYTES} in all"
)]
pub struct NotAStreamKey(String);

impl Key {
    /// The head of the feed.
    pub fn feed() -> Key {
        Key(FEED.to_owned())
    }

    /// The generated page.
    pub fn index() -> Key {
        Key(INDEX.to_owned())
    }

    /// An object that says nothing: whether a store honours conditional writes is tried on it.
    pub fn write_test() -> Key {
        Key("write-test.txt".to_owned())
    }

    /// The name of a stream, as the user of `put` and `get` writes it: see [`Key::is_stream`].
    ///
    /// # Errors
    /// A text that is no key, or a key that is no stream's.
    pub fn stream(text: &str) -> Result<Key, NotAStreamKey> {
        let refusal = || NotAStreamKey(text.chars().take(120).collect());
        let key: Key = text.parse().map_err(|_| refusal())?;
        if key.is_stream() { Ok(key) } else { Err(refusal()) }
    }

    /// Does it name a full dump or another stream: at least one segment below `full/`, none longer than a file's name
    /// may be? Nothing that belongs to a day has such a key, and no day's objects are ever looked for under one.
    pub fn is_stream(&self) -> bool {
        let mut segments = self.0.split('/');
        segments.next() == Some(STREAMS)
            && self.0.len() <= MAX_STREAM_KEY_BYTES
            && self.0.len() > STREAMS.len()
            && segments.all(|segment| segment.len() <= MAX_NAME_BYTES)
    }

    /// Where the record of the full dump of this name lies: see [`DumpRecord`](crate::feed::full_dump::DumpRecord).
    #[must_use]
    pub fn dump_record(&self) -> Key {
        Key(format!("{}{DUMP_RECORD}", self.0))
    }

    /// Is it a name that [`Key::dump_record`] makes? No stream gets such a name.
    pub fn is_dump_record(&self) -> bool {
        self.0.starts_with("full/") && self.0.ends_with(DUMP_RECORD)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Is it an object of an attempt at `day`, in either layout? The day's directory, the attempt's, a file.
    pub fn lies_in(&self, day: Day) -> bool {
        let segments: Vec<&str> = self.0.split('/').collect();
        let [directory, _attempt, _file] = segments[..] else { return false };
        directory.strip_prefix("day=").unwrap_or(directory) == day.to_string()
    }

    /// The directory, day and revision of the attempt that it is an object of, in either layout.
    pub fn attempt(&self) -> Option<(&str, Day, u32)> {
        let (directory, _file) = self.0.rsplit_once('/')?;
        let (day, attempt) = directory.split_once('/')?;
        let (revision, _random) = attempt.strip_prefix('r')?.split_once('-')?;
        let day = day.strip_prefix("day=").unwrap_or(day).parse().ok()?;
        Some((directory, day, revision.parse().ok()?))
    }

    /// Is it the record of an attempt?
    pub fn is_manifest(&self) -> bool {
        self.attempt().is_some() && self.file_name() == MANIFEST
    }

    /// Is it named as the parts of slices in `format` are?
    pub fn is_part_in(&self, format: SliceFormat) -> bool {
        self.0.ends_with(part_suffix(format))
    }

    /// This key as seen from the directory of `other`: the plain file name in the same directory, else a path
    /// that climbs to the prefix of the day.
    pub fn relative_to(&self, other: &Key) -> String {
        let own: Vec<&str> = self.0.split('/').collect();
        let from: Vec<&str> = other.0.split('/').collect();
        let directories = from.len().saturating_sub(1);
        let shared = own.iter().zip(&from[..directories]).take_while(|(a, b)| a == b).count().min(own.len() - 1);
        let mut path = "../".repeat(directories - shared);
        path.push_str(&own[shared..].join("/"));
        path
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let segment = |segment: &str| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~=-".contains(&byte))
        };
        if text.len() <= MAX_KEY_BYTES && text.split('/').all(segment) {
            Ok(Key(text.to_owned()))
        } else {
            Err(NotAKey(text.chars().take(120).collect()))
        }
    }
}

impl TryFrom<String> for Key {
    type Error = NotAKey;

    fn try_from(text: String) -> Result<Self, NotAKey> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.0
    }
}

/// How day directories are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// `2024-05-01/…`
    #[default]
    Flat,
    /// `day=2024-05-01/…`, as query engines partition.
    Hive,
}

/// One attempt to publish one revision of one day: everything it writes lies in a directory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDirectory {
    path: String,
    day: Day,
}

impl AttemptDirectory {
    /// The directory of `attempt` (eight lower-case hex digits, random) at `revision` of `day`.
    pub fn new(layout: Layout, day: Day, revision: u32, attempt: &str) -> Self {
        let prefix = match layout {
            Layout::Flat => "",
            Layout::Hive => "day=",
        };
        AttemptDirectory { path: format!("{prefix}{day}/r{revision}-{attempt}"), day }
    }

    /// The part objects of a table's slice in `format`.
    pub fn parts(&self, schema: &str, table: &str, format: SliceFormat) -> PartNames {
        let stem = format!("{}/{}-{}", self.path, table_stem(schema, table), self.day);
        PartNames { stem, suffix: part_suffix(format) }
    }

    /// The day's record.
    pub fn manifest(&self) -> Key {
        self.key(MANIFEST)
    }

    /// The checksums for `sha256sum -c`.
    pub fn sums(&self) -> Key {
        self.key("SHA256SUMS")
    }

    fn key(&self, name: &str) -> Key {
        Key(format!("{}/{name}", self.path))
    }
}

/// The names of one slice's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartNames {
    stem: String,
    suffix: &'static str,
}

/// What the names of parts end in.
fn part_suffix(format: SliceFormat) -> &'static str {
    match format {
        SliceFormat::Text => ".copy.zst",
        SliceFormat::Csv => ".csv.zst",
        SliceFormat::Binary => ".bin.zst",
    }
}

impl PartNames {
    /// The `number`th part, from 1. A slice is one part unless a store limits the size of objects, so the first has no
    /// number: `….copy.zst`, `…-p0002.copy.zst`, `…-p0003.copy.zst`.
    pub fn key(&self, number: u32) -> Key {
        match number {
            0 | 1 => Key(format!("{}{}", self.stem, self.suffix)),
            _ => Key(format!("{}-p{number:04}{}", self.stem, self.suffix)),
        }
    }
}

/// The checksums object that lies beside `manifest`.
pub fn sums_beside(manifest: &Key) -> Key {
    let directory = manifest.0.rsplit_once('/').map_or("", |(directory, _)| directory);
    if directory.is_empty() { Key("SHA256SUMS".into()) } else { Key(format!("{directory}/SHA256SUMS")) }
}

/// `schema.table` with every byte outside `[A-Za-z0-9_-]` as `~xx`. A stem too long for a file name keeps its
/// beginning and ends in a digest of the whole.
fn table_stem(schema: &str, table: &str) -> String {
    let escape = |name: &str| -> String {
        name.bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
                other => format!("~{other:02x}"),
            })
            .collect()
    };
    let stem = format!("{}.{}", escape(schema), escape(table));
    if stem.len() <= MAX_NAME_BYTES {
        return stem;
    }
    let digest = hex::encode(Sha256::digest(stem.as_bytes()));
    format!("{}~~{}", &stem[..MAX_NAME_BYTES - 18], &digest[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> AttemptDirectory {
        AttemptDirectory::new(Layout::Flat, "2024-05-01".parse().expect("a day"), 1, "7f3a9c00")
    }

    #[test]
    fn parts_are_named_after_table_and_day() {
        assert_eq!(
            directory().parts("public", "messages", SliceFormat::Text).key(1).as_str(),
            "2024-05-01/r1-7f3a9c00/public.messages-2024-05-01.copy.zst"
        );
        assert_eq!(
            directory().parts("public", "messages", SliceFormat::Text).key(2).file_name(),
            "public.messages-2024-05-01-p0002.copy.zst"
        );
    }

    #[test]
    fn the_end_of_a_parts_name_tells_its_format() {
        let formats = [SliceFormat::Text, SliceFormat::Csv, SliceFormat::Binary];
        let names = formats.map(|format| directory().parts("public", "t", format).key(1));
        assert_eq!(
            names.each_ref().map(Key::file_name),
            ["public.t-2024-05-01.copy.zst", "public.t-2024-05-01.csv.zst", "public.t-2024-05-01.bin.zst"]
        );
        for (format, name) in formats.into_iter().zip(&names) {
            assert!(formats.iter().all(|other| name.is_part_in(*other) == (*other == format)), "{name}");
        }
    }

    #[test]
    fn a_manifest_is_told_by_its_name_and_its_place() {
        let is_manifest = |text: &str| text.parse::<Key>().expect("a key").is_manifest();
        assert!(directory().manifest().is_manifest());
        let day = "2024-05-01".parse().expect("a day");
        assert_eq!(directory().sums().attempt(), Some(("2024-05-01/r1-7f3a9c00", day, 1)));
        assert!(is_manifest("day=2024-05-01/r1-7f3a9c00/manifest.json"));
        for other in [
            "manifest.json",
            "2024-05-01/manifest.json",
            "other/r1-7f3a9c00/manifest.json",
            "2024-05-01/r1-7f3a9c00/SHA256SUMS",
        ] {
            assert!(!is_manifest(other), "{other}");
        }
    }

    #[test]
    fn the_hive_layout_names_the_day_as_a_partition() {
        let directory = AttemptDirectory::new(Layout::Hive, "2024-05-01".parse().expect("a day"), 3, "00000001");
        assert_eq!(directory.manifest().as_str(), "day=2024-05-01/r3-00000001/manifest.json");
    }

    #[test]
    fn odd_names_are_escaped_and_every_made_key_is_a_key() {
        for table in ["Möbel.\"x\"/..", "a b", "..", "~", &"ü".repeat(31)] {
            let key = directory().parts("Weird Schema/…", table, SliceFormat::Text).key(1);
            assert_eq!(key.as_str().parse::<Key>().expect("a key"), key);
            assert!(key.file_name().len() <= 255, "{key}");
        }
        let parts = |schema, table| directory().parts(schema, table, SliceFormat::Text);
        assert_ne!(parts("a", "b.c"), parts("a.b", "c"));
    }

    #[test]
    fn keys_that_leave_the_prefix_are_refused() {
        for text in ["", "/etc/passwd", "a//b", "../a", "a/../b", "a/./b", ".hidden", "a\\b", "a b", "a/", "é", "a\0b"]
        {
            assert!(text.parse::<Key>().is_err(), "{text:?}");
        }
        assert!("a".repeat(901).parse::<Key>().is_err());
    }

    #[test]
    fn streams_are_named_below_full_and_nowhere_else() {
        for text in ["full/2024-05-01.dump", "full/a/b/c.tar.zst", &format!("full/{}", "a".repeat(200))] {
            assert_eq!(Key::stream(text).expect("a stream").as_str(), text);
            assert!(!Key::stream(text).expect("a stream").lies_in("2024-05-01".parse().expect("a day")));
        }
        let long = format!("full/{}", vec!["a"; 200].join("/"));
        let strange = [
            "full",
            "full/",
            "/full/a",
            "full//a",
            "full/../feed.json",
            "full/./a",
            "full/.hidden",
            "full/a b",
            "fuller/a",
            "Full/a",
            "feed.json",
            "2024-05-01/r1-7f3a9c00/manifest.json",
            "full/a\0",
            "full/é",
            &long,
            &format!("full/{}", "a".repeat(201)),
        ];
        for text in strange {
            assert!(Key::stream(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_carried_part_is_named_from_the_directory_of_the_manifest() {
        let key = |text: &str| text.parse::<Key>().expect("a key");
        assert_eq!(key("d/r1-a/x").relative_to(&key("d/r2-b/manifest.json")), "../r1-a/x");
        assert_eq!(key("d/r2-b/x").relative_to(&key("d/r2-b/manifest.json")), "x");
    }
}
