//! `[store]`: where the feed is, and what talking to that kind of store needs.

use std::path::{Path, PathBuf};

use super::parse::beside;
use super::reader::{Document, Field, Section, shortened};
use super::size::{parse_rate, parse_size};
use crate::layout::Layout;

/// AWS's bounds of a part of a multipart upload, the last one excepted.
const PART_BYTES: std::ops::RangeInclusive<u64> = 5 << 20..=5 << 30;
/// AWS's limit of parts of one object; some stores allow fewer.
const MAX_PARTS: u32 = 10_000;
/// The least that an object must be able to hold: a frame of 8 MiB of rows that do not compress, and some more.
const SMALLEST_OBJECT_BYTES: u64 = 10 << 20;
/// AWS's limit of tags of one object.
const MAX_TAGS: usize = 10;

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreConfig {
    /// Where the feed is: `file:///…`, `s3://bucket/prefix`, `https://…`.
    pub url: Option<String>,
    /// How day directories are named.
    pub layout: Layout,
    /// PEM certificates that are trusted beside the system's: absolute, or relative to the configuration's folder.
    pub ca_file: Option<PathBuf>,
    /// Whether a feed may be read over `http://`.
    pub allow_http: AllowHttp,
    /// Whether a store without conditional writes may be written to.
    pub single_writer: SingleWriter,
    /// Bytes per second that all transfers of a run share; `None` for no limit.
    pub max_rate: Option<u64>,
    /// What only an `s3://` store has.
    pub s3: S3Config,
}

impl StoreConfig {
    /// The store at `url`, with the default of everything else.
    pub fn at(url: impl Into<String>) -> StoreConfig {
        StoreConfig { url: Some(url.into()), ..StoreConfig::default() }
    }
}

/// `store.allow-http`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AllowHttp {
    /// `http://` is refused: what is read could be changed on the way.
    #[default]
    No,
    /// It is accepted.
    Yes,
}

/// `store.single-writer`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SingleWriter {
    /// A store must refuse the slower of two racing writers.
    #[default]
    No,
    /// The operator promises that writers are kept apart, and the dataset's lock on the source holds them to it.
    Yes,
}

/// The keys of `[store]` that belong to an `s3://` store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Config {
    /// The server's address; `None` for AWS, or what the environment or profile says.
    pub endpoint: Option<String>,
    /// The region; `None` for what the environment or profile says.
    pub region: Option<String>,
    /// `https://endpoint/bucket` instead of `https://bucket.endpoint`; `None` decides by the endpoint.
    pub path_style: Option<bool>,
    /// The profile of the AWS configuration files.
    pub profile: Option<String>,
    /// The storage class of parts; the head and the manifests are always in the store's standard class.
    pub storage_class: Option<String>,
    /// How the store encrypts what it keeps.
    pub encryption: Option<Encryption>,
    /// Tags of every object, at most 10.
    pub tags: Vec<(String, String)>,
    /// The checksum sent with every object and part.
    pub checksum: Checksum,
    /// Bytes per part of a multipart upload, 5 MiB to 5 GiB.
    pub part_bytes: u64,
    /// Parts per object, 1 to 10,000.
    pub max_parts: u32,
}

impl Default for S3Config {
    fn default() -> Self {
        S3Config {
            endpoint: None,
            region: None,
            path_style: None,
            profile: None,
            storage_class: None,
            encryption: None,
            tags: Vec::new(),
            checksum: Checksum::Crc32,
            part_bytes: 16 << 20,
            max_parts: MAX_PARTS,
        }
    }
}

/// `store.sse` and `store.kms-key-id`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// `"AES256"`: with the store's own keys.
    Store,
    /// `"aws:kms"`: with a key of the key management service, `None` for the account's default.
    Kms(Option<String>),
}

/// `store.checksum`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// `"crc32"`
    Crc32,
    /// `"crc64nvme"`
    Crc64Nvme,
    /// `"when-required"`: none but where the protocol demands one.
    WhenRequired,
}

/// Reads `[store]` of the file at `path`.
pub(super) fn read(document: &Document<'_>, path: &Path) -> StoreConfig {
    let store = document.section("store");
    let url = store.field("url").and_then(|field| field.text());
    let layout =
        store.field("layout").and_then(|field| field.choice(&[("flat", Layout::Flat), ("hive", Layout::Hive)]));
    let scheme = url.and_then(|url| url.split_once(':')).map_or("", |(scheme, _)| scheme);
    let kind = Kind { section: &store, scheme };
    StoreConfig {
        url: url.map(str::to_owned),
        layout: layout.unwrap_or_default(),
        ca_file: kind
            .field("ca-file", &["s3", "https", "http"])
            .and_then(|field| field.text())
            .map(|file| beside(path, file)),
        allow_http: match kind.field("allow-http", &["https", "http"]).and_then(|field| field.boolean()) {
            Some(true) => AllowHttp::Yes,
            _ => AllowHttp::No,
        },
        single_writer: match kind.field("single-writer", &["s3"]).and_then(|field| field.boolean()) {
            Some(true) => SingleWriter::Yes,
            _ => SingleWriter::No,
        },
        max_rate: store.field("max-rate").and_then(|field| field.parsed("a rate such as \"50MB/s\"", parse_rate)),
        s3: s3(&kind),
    }
}

fn s3(kind: &Kind<'_, '_>) -> S3Config {
    let field = |key| kind.field(key, &["s3"]);
    let text = |key| field(key).and_then(|field| field.text()).map(str::to_owned);
    let defaults = S3Config::default();
    let part_bytes = field("part-size").and_then(|field| {
        field.parsed("a size such as \"16MiB\"", |text| match parse_size(text)? {
            size if PART_BYTES.contains(&size) => Ok(size),
            _ => Err("must be from \"5MiB\" to \"5GiB\"".to_owned()),
        })
    });
    let checksum = field("checksum").and_then(|field| {
        field.choice(&[
            ("crc32", Checksum::Crc32),
            ("crc64nvme", Checksum::Crc64Nvme),
            ("when-required", Checksum::WhenRequired),
        ])
    });
    let max_parts = field("max-parts").and_then(|field| {
        let parts = field.integer(1..=MAX_PARTS)?;
        if part_bytes.unwrap_or(defaults.part_bytes) * u64::from(parts) < SMALLEST_OBJECT_BYTES {
            field.refuse("times part-size must be at least 10 MiB, so that every frame of rows fits in an object");
        }
        Some(parts)
    });
    S3Config {
        endpoint: field("endpoint").and_then(|field| field.parsed("an https:// address", endpoint)),
        region: text("region"),
        path_style: field("path-style").and_then(|field| field.boolean()),
        profile: text("profile"),
        storage_class: field("storage-class").and_then(|field| field.parsed("a storage class", storage_class)),
        encryption: encryption(field("sse"), field("kms-key-id")),
        tags: field("tags").and_then(|field| tags(&field)).unwrap_or_default(),
        checksum: checksum.unwrap_or(defaults.checksum),
        part_bytes: part_bytes.unwrap_or(defaults.part_bytes),
        max_parts: max_parts.unwrap_or(defaults.max_parts),
    }
}

/// `[store]` of a url: keys of other kinds of store are refused, since whoever wrote them expects something of them.
struct Kind<'d, 't> {
    section: &'d Section<'d, 't>,
    scheme: &'t str,
}

impl<'d, 't> Kind<'d, 't> {
    fn field(&self, key: &'static str, schemes: &[&str]) -> Option<Field<'d, 't>> {
        let field = self.section.field(key)?;
        // Without a url nothing is opened, and what is wrong with it is told elsewhere.
        if self.scheme.is_empty() || schemes.contains(&self.scheme.to_ascii_lowercase().as_str()) {
            return Some(field);
        }
        let kinds: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
        field.refuse(format!("has no meaning for store.url: it belongs to {}", kinds.join(" and ")));
        None
    }
}

fn encryption(sse: Option<Field<'_, '_>>, kms_key_id: Option<Field<'_, '_>>) -> Option<Encryption> {
    let kms = sse.and_then(|field| field.choice(&[("AES256", false), ("aws:kms", true)]));
    let key = kms_key_id.as_ref().and_then(Field::text).map(str::to_owned);
    match (kms, kms_key_id) {
        (Some(true), _) => Some(Encryption::Kms(key)),
        (other, None) => other.map(|_| Encryption::Store),
        (_, Some(field)) => {
            field.refuse("needs sse = \"aws:kms\"");
            None
        }
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    if text.contains('@') {
        return Err("must not hold a user or password: the environment does".to_owned());
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '?' || c == '#';
    match text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) {
        Some(host) if !host.is_empty() && !host.contains(odd) => Ok(text.to_owned()),
        _ => Err(format!("must be an address such as \"https://s3.example.org\", not {:?}", shortened(text))),
    }
}

/// Other stores have classes of their own, so only the shape is judged.
fn storage_class(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!("must be the name of a class, such as \"STANDARD_IA\", not {:?}", shortened(text)))
    }
}

/// Rules of AWS's tags: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>.
fn tags(field: &Field<'_, '_>) -> Option<Vec<(String, String)>> {
    let pairs = field.pairs("tags such as { team = \"data\" }")?;
    let within = |text: &str, max: usize| {
        text.chars().count() <= max && text.chars().all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c))
    };
    if pairs.len() > MAX_TAGS {
        field.refuse(format!("has {} tags; an object can have {MAX_TAGS}", pairs.len()));
    }
    for (name, value) in &pairs {
        if name.is_empty() || name.starts_with("aws:") || !within(name, 128) || !within(value, 256) {
            field.refuse(format!("has a tag that stores refuse: {:?}", shortened(name)));
        }
    }
    Some(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
