//! The immutable record of one revision of one day: everything needed to verify, load and delete it.
//!
//! A manifest that was read is untrusted input. [`Manifest::parse`] refuses one whose parts do not add up;
//! sizes are capped; its texts are compared with the replica's catalogs and never executed.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::codec::{RowFormat, RowsDigest};
use crate::day::{Day, Window};
use crate::layout::Key;

/// The format version that this program writes, and the highest that it reads.
pub const FORMAT: u32 = 1;
/// The largest manifest that is read, in bytes.
pub const MAX_BYTES: u64 = 256 << 20;
/// The largest raw size of a frame that holds more than one row.
pub const FRAME_RAW_BYTES: u64 = 8 << 20;
/// The largest raw size of any frame: PostgreSQL builds a row of a COPY in one buffer, which is smaller than this.
const MAX_FRAME_RAW_BYTES: u64 = 1 << 30;

/// Whether anything open could still add rows to the day when it was exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Published before the day was settled; a later revision may follow soon.
    Provisional,
    /// No transaction that could add rows was open.
    Final,
}

impl State {
    /// The word that is published.
    pub fn word(self) -> &'static str {
        match self {
            State::Provisional => "provisional",
            State::Final => "final",
        }
    }
}

/// The moment that rows were read, comparable within one system identifier and timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// When, by the source's clock.
    pub exported_at: DateTime<Utc>,
    /// `pg_current_snapshot()`: `xmin:xmax:xip,…`.
    pub snapshot: String,
    /// The position in the write-ahead log.
    pub lsn: String,
    /// The source cluster's system identifier.
    pub system_identifier: String,
    /// The source's timeline.
    pub timeline: u32,
}

impl Taken {
    /// Orders two reads: by snapshot within one system identifier and timeline, otherwise by time.
    pub fn order(&self, other: &Taken) -> std::cmp::Ordering {
        let comparable = self.system_identifier == other.system_identifier && self.timeline == other.timeline;
        if comparable && let (Some(own), Some(others)) = (horizon(self), horizon(other)) {
            return own.cmp(&others).then(self.exported_at.cmp(&other.exported_at));
        }
        self.exported_at.cmp(&other.exported_at)
    }
}

impl Taken {
    /// The oldest transaction that was running, if any was; the next one if none was. All before it had ended.
    pub fn oldest_running(&self) -> Option<u64> {
        horizon(self).map(|(_, xmin, ..)| xmin)
    }

    /// The first transaction that had not begun.
    pub fn next_transaction(&self) -> Option<u64> {
        horizon(self).map(|(xmax, ..)| xmax)
    }

    /// Had fewer transactions ended when this was read than when `other` was? Never across systems or timelines. The
    /// newest transaction does not tell alone, as an older one may have ended last; the position in the log does. The
    /// list of those still running is not looked at: a standby has none.
    pub fn saw_less_than(&self, other: &Taken) -> bool {
        let comparable = self.system_identifier == other.system_identifier && self.timeline == other.timeline;
        let less = |own: Option<u64>, others: Option<u64>| own.zip(others).is_some_and(|(own, others)| own < others);
        let ended = |taken: &Taken| horizon(taken).map(|(xmax, ..)| xmax);
        comparable && (less(ended(self), ended(other)) || less(log_position(&self.lsn), log_position(&other.lsn)))
    }
}

/// Sorts by [`Taken::order`], which is no total order once clocks and snapshots disagree across systems: reads of one
/// system and timeline keep the order of their snapshots, and merge with those of another by the latest time so far.
/// Stable.
pub fn in_order_read<T>(mut items: Vec<T>, taken: impl Fn(&T) -> &Taken) -> Vec<T> {
    let line = |taken: &Taken| (taken.system_identifier.clone(), taken.timeline, horizon(taken).is_some());
    items.sort_by_cached_key(|item| {
        let taken = taken(item);
        (line(taken), horizon(taken), taken.exported_at)
    });
    let mut latest = None;
    let mut placed: Vec<(DateTime<Utc>, T)> = Vec::with_capacity(items.len());
    for item in items {
        let (own, time) = (line(taken(&item)), taken(&item).exported_at);
        let time = match latest.take() {
            Some((before, latest)) if before == own => time.max(latest),
            _ => time,
        };
        latest = Some((own, time));
        placed.push((time, item));
    }
    placed.sort_by_key(|(time, _)| *time);
    placed.into_iter().map(|(_, item)| item).collect()
}

/// xmax, xmin, the position in the log, how many were still running.
type Horizon = (u64, u64, Option<u64>, std::cmp::Reverse<usize>);

/// What grows from snapshot to snapshot: xmax, then xmin, then the log, then the shrinking set of those still running,
/// which is empty on a standby and comes last for that.
fn horizon(taken: &Taken) -> Option<Horizon> {
    let mut fields = taken.snapshot.splitn(3, ':');
    let xmin = fields.next()?.parse().ok()?;
    let xmax = fields.next()?.parse().ok()?;
    let running = fields.next().unwrap_or("").split(',').filter(|xid| !xid.is_empty()).count();
    Some((xmax, xmin, log_position(&taken.lsn), std::cmp::Reverse(running)))
}

/// A position in the write-ahead log, two halves in hexadecimal, as its number of bytes; `None` for what is none.
///
/// Where a record ended with its page, a primary tells the place behind the next page's header, a standby that page's
/// beginning. Both mean the same, and count as the beginning. Sizes are those that PostgreSQL is built with by default.
fn log_position(lsn: &str) -> Option<u64> {
    const PAGE_BYTES: u64 = 8 << 10;
    const SEGMENT_BYTES: u64 = 16 << 20;
    let half = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u64::from);
    let (high, low) = lsn.split_once('/')?;
    let place = (half(high)? << 32) | half(low)?;
    let header_bytes = if place % SEGMENT_BYTES < PAGE_BYTES { 40 } else { 24 };
    let within_page = place % PAGE_BYTES;
    Some(if within_page == header_bytes { place - within_page } else { place })
}

/// One revision of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Format version; a reader refuses a higher one than it knows.
    pub format: u32,
    /// The feed's random identity.
    pub feed_id: String,
    /// The dataset's name.
    pub dataset: String,
    /// The day.
    pub day: Day,
    /// Its window in UTC.
    pub window: Window,
    /// The zone that defines the day.
    pub timezone: String,
    /// 1, 2, …
    pub revision: u32,
    /// Provisional or final.
    pub state: State,
    /// The moment the day was read (a carried slice has its own).
    #[serde(flatten)]
    pub taken: Taken,
    /// The source's `server_version`.
    pub server_version: String,
    /// The version of pgslice that wrote this.
    pub pgslice_version: String,
    /// The tables' slices, in the order of the config.
    pub slices: Vec<Slice>,
}

/// How a table's rows were chosen for the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SliceKind {
    /// The rows whose time lies in the window.
    Time,
    /// A reference table's rows that the day's other slices point to.
    Referenced,
    /// A reference table as a whole.
    All,
}

/// The encoding of a slice's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SliceFormat {
    /// COPY's text format: one line is one row.
    Text,
    /// COPY's csv format: fields with line feeds are quoted. Each part begins with a line of the columns' names.
    Csv,
    /// COPY's binary format. Each part begins with its header and ends with its trailer.
    Binary,
}

impl SliceFormat {
    /// The word that is published and configured.
    pub fn word(self) -> &'static str {
        match self {
            SliceFormat::Text => "text",
            SliceFormat::Csv => "csv",
            SliceFormat::Binary => "binary",
        }
    }

    /// What follows STDIN or STDOUT in a COPY statement.
    pub fn copy_options(self) -> &'static str {
        match self {
            SliceFormat::Text => "",
            SliceFormat::Csv => " (format csv)",
            SliceFormat::Binary => " (format binary)",
        }
    }
}

/// One table's rows for the day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slice {
    /// The table's schema on the source.
    pub schema: String,
    /// The table's name on the source.
    pub table: String,
    /// How the rows were chosen.
    pub kind: SliceKind,
    /// The columns, in the order of the data.
    pub columns: Vec<Column>,
    /// Columns of the table that the slice does not carry (generated ones, and those left out by config).
    pub omitted_columns: Vec<String>,
    /// The columns of the table's key, empty if it has none.
    pub key: Vec<String>,
    /// The time column and its bounds; absent for reference tables.
    pub time: Option<TimeBounds>,
    /// Rows of the window are missing on purpose (`where`): the slice is no proof of absence.
    pub filtered: bool,
    /// Rows of the whole table left out because their time is NULL or infinite.
    pub excluded_rows: u64,
    /// The encoding.
    pub format: SliceFormat,
    /// Rows.
    pub rows: u64,
    /// Bytes of its rows as COPY delivered them, without the headers and trailers of its parts.
    pub raw_bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// The smallest time, as PostgreSQL's text; absent without rows and for reference tables.
    pub min_time: Option<String>,
    /// The largest time.
    pub max_time: Option<String>,
    /// The order-free digest of the rows.
    pub rows_digest: RowsDigest,
    /// By what a later export finds out, without reading them, that the rows are still the same. Says nothing to
    /// readers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detect: Option<Detected>,
    /// The moment the slice was read, where it was carried over from an earlier revision.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taken: Option<Taken>,
    /// The objects, in order; at least one, even for no rows.
    pub parts: Vec<Part>,
}

/// What the source's server said about a slice's rows in the snapshot that they were read in. Comparable only within one
/// system identifier and timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Detected {
    /// Rows.
    pub rows: u64,
    /// SHA-256 of the SELECT that gives them and of the numbers that the catalog has for the table and its columns, 64
    /// hex digits.
    pub statement: String,
    /// The sum, in decimal digits, of a hash of each row's `tableoid`, `ctid` and `xmin`. Absent where the relation has
    /// none, or where it was not asked for: then it can be told by the snapshot whether rows were written since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub versions: Option<String>,
}

/// A column as the source's catalog has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The schema of its type.
    pub type_schema: String,
    /// The name of its type in `pg_type` (`int4`, `_text`).
    pub type_name: String,
    /// The type's modifier, -1 for none.
    pub typmod: i32,
    /// May it be NULL?
    pub nullable: bool,
    /// What its values are made of, where its type is not the same in every database.
    #[serde(flatten)]
    pub made_of: MadeOf,
}

/// What the values of a type are made of that somebody made. All of it is empty for types of PostgreSQL's own, and in
/// documents of earlier versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MadeOf {
    /// The labels of an enumeration in their order, also where the column is an array of it or a domain over it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub labels: Vec<String>,
    /// The attributes of a composite type in their order, also where the column is an array of it or a domain over it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub attributes: Vec<Attribute>,
    /// What a domain is over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<TypeName>,
}

/// A type as the source's catalog has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct TypeName {
    /// Its schema.
    pub type_schema: String,
    /// Its name in `pg_type`.
    pub type_name: String,
    /// Its modifier, -1 for none.
    pub typmod: i32,
}

/// An attribute of a composite type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(flatten)]
    pub of: TypeName,
}

impl Column {
    /// Its type.
    pub fn type_of(&self) -> TypeName {
        let Column { type_schema, type_name, typmod, .. } = self.clone();
        TypeName { type_schema, type_name, typmod }
    }

    /// Are rows of this column written as rows of that one are? A label or an attribute more makes no other rows.
    pub fn writes_as(&self, other: &Column) -> bool {
        let own = Column { made_of: other.made_of.clone(), ..self.clone() };
        own == *other
    }

    /// Is a value that was there when the column was `older` still written as it was, though its row was not touched? A
    /// label of another name, or an attribute more, writes it otherwise.
    pub fn still_writes_as(&self, older: &Column) -> bool {
        let labels = older.made_of.labels.iter().all(|label| self.made_of.labels.contains(label));
        let types = |column: &Column| column.made_of.attributes.iter().map(|one| one.of.clone()).collect::<Vec<_>>();
        let untold = older.made_of.attributes.is_empty();
        self.writes_as(older) && labels && (untold || types(self) == types(older))
    }
}

/// What kind of value places a row in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeKind {
    /// `timestamptz`.
    Timestamptz,
    /// `timestamp`, read in `zone`.
    Timestamp,
    /// `date`, compared with the day itself.
    Date,
    /// Whole seconds since 1970-01-01 00:00 UTC.
    EpochSeconds,
    /// Whole milliseconds.
    EpochMilliseconds,
    /// Whole microseconds.
    EpochMicroseconds,
}

/// A time column and the bounds that were applied to it: `from <= column < to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeBounds {
    /// The column.
    pub column: String,
    /// Its kind.
    pub kind: TimeKind,
    /// The zone that a `timestamp` column is read in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<String>,
    /// The lower bound as the column's own value.
    pub from: String,
    /// The upper bound, not included.
    pub to: String,
}

/// One object of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// Its name below the feed's prefix.
    pub key: Key,
    /// Its size.
    pub stored_bytes: u64,
    /// SHA-256 of the stored bytes, 64 hex digits.
    pub sha256: String,
    /// Its frames, in order and without gaps. What a format puts before and after rows is a frame of no rows.
    pub frames: Vec<Frame>,
}

/// One independent zstd frame, ending on a row boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Where it starts in its part.
    pub offset: u64,
    /// Its size in the store.
    pub stored_bytes: u64,
    /// The size of what it holds: rows as COPY delivered them, or a header or trailer.
    pub raw_bytes: u64,
    /// Its rows; none in a header or trailer, and in the only frame of a part in text format that has none.
    pub rows: u64,
}

/// Why a document was refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It was written by a newer program.
    #[error("format {found} is newer than this pgslice reads ({known}): upgrade pgslice")]
    Newer {
        /// Its version.
        found: u32,
        /// The highest known.
        known: u32,
    },
    /// It is not such a document.
    #[error("not a readable document: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It contradicts itself.
    #[error("{0}")]
    Contradiction(String),
}

/// A document that says which version of its format it is.
pub(crate) trait Versioned: serde::de::DeserializeOwned {
    /// That version.
    fn format(&self) -> u32;
}

impl Versioned for Manifest {
    fn format(&self) -> u32 {
        self.format
    }
}

/// Parses a versioned JSON document. A newer one is refused as such, whether or not it could be read.
pub(crate) fn parse_versioned<T: Versioned>(bytes: &[u8], known: u32) -> Result<T, DocumentError> {
    #[derive(Deserialize)]
    struct OnlyFormat {
        format: u32,
    }
    // Once in all: heads of many years have megabytes.
    let (found, parsed) = match serde_json::from_slice::<T>(bytes) {
        Ok(document) => (document.format(), Ok(document)),
        Err(unreadable) => (serde_json::from_slice::<OnlyFormat>(bytes)?.format, Err(unreadable)),
    };
    if found > known {
        return Err(DocumentError::Newer { found, known });
    }
    Ok(parsed?)
}

impl Manifest {
    /// Reads a manifest and checks that it adds up.
    ///
    /// # Errors
    /// A newer format, a malformed document, or one that contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, DocumentError> {
        let manifest: Manifest = parse_versioned(bytes, FORMAT)?;
        manifest.check().map_err(DocumentError::Contradiction)?;
        Ok(manifest)
    }

    /// The document's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest has only string keys");
        bytes.push(b'\n');
        bytes
    }

    /// Rows of all slices.
    pub fn rows(&self) -> u64 {
        self.slices.iter().map(|slice| slice.rows).sum()
    }

    /// Stored bytes of all slices.
    pub fn stored_bytes(&self) -> u64 {
        self.slices.iter().map(|slice| slice.stored_bytes).sum()
    }

    /// The keys of all parts, carried ones too.
    pub fn part_keys(&self) -> impl Iterator<Item = &Key> {
        self.slices.iter().flat_map(|slice| slice.parts.iter().map(|part| &part.key))
    }

    /// The moment that `slice` was read.
    pub fn taken_of<'a>(&'a self, slice: &'a Slice) -> &'a Taken {
        slice.taken.as_ref().unwrap_or(&self.taken)
    }

    /// One digest over all slices: SHA-256 of `table rows rows_digest` lines, sorted.
    pub fn day_digest(&self) -> String {
        let mut lines: Vec<String> = self
            .slices
            .iter()
            .map(|slice| format!("{} {} {}\n", slice.qualified_name(), slice.rows, slice.rows_digest))
            .collect();
        lines.sort_unstable();
        hex::encode(Sha256::digest(lines.concat().as_bytes()))
    }

    /// The content of SHA256SUMS beside the manifest at `manifest_key`.
    pub fn sums(&self, manifest_key: &Key) -> String {
        self.slices
            .iter()
            .flat_map(|slice| &slice.parts)
            .map(|part| format!("{}  {}\n", part.sha256, part.key.relative_to(manifest_key)))
            .collect()
    }

    fn check(&self) -> Result<(), String> {
        // A replica's ledger holds it as an integer.
        if self.revision == 0 || i32::try_from(self.revision).is_err() {
            return Err(format!("{} is no revision", self.revision));
        }
        if !self.window.is_of(self.day) {
            return Err(format!("its window is not one of {}", self.day));
        }
        if let Some(stray) = self.part_keys().find(|key| !key.lies_in(self.day)) {
            return Err(format!("{stray} is not an object of {}", self.day));
        }
        for (index, slice) in self.slices.iter().enumerate() {
            slice.check().map_err(|problem| format!("slice of {}: {problem}", slice.qualified_name()))?;
            if self.slices[..index].iter().any(|other| other.schema == slice.schema && other.table == slice.table) {
                return Err(format!("two slices of {}", slice.qualified_name()));
            }
        }
        Ok(())
    }
}

impl Slice {
    /// Are the rows of both written in the same columns?
    pub fn has_columns_of(&self, other: &Slice) -> bool {
        self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(|(own, others)| own.writes_as(others))
    }

    /// Are untouched rows written as they were in `older`?
    pub fn still_writes_as(&self, older: &Slice) -> bool {
        self.columns.len() == older.columns.len()
            && self.columns.iter().zip(&older.columns).all(|(own, old)| own.still_writes_as(old))
    }

    /// `schema.table`, for people and as the key of maps; not quoted.
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    fn check(&self) -> Result<(), String> {
        if self.columns.is_empty() || self.columns.len() > 1_664 {
            return Err(format!("{} columns", self.columns.len()));
        }
        let known = |name: &String| self.columns.iter().any(|column| column.name == *name);
        if let Some(stray) = self.key.iter().find(|name| !known(name)) {
            return Err(format!("key column {stray:?} is not among its columns"));
        }
        if (self.kind == SliceKind::Time) != self.time.is_some() {
            return Err("a time slice has bounds, any other has none".into());
        }
        if self.parts.is_empty() {
            return Err("no parts".into());
        }
        let rows = RowFormat::new(self.format, &self.columns);
        for part in &self.parts {
            if !part.key.is_part_in(self.format) {
                return Err(format!("{} is not named as a part in {} format is", part.key, self.format.word()));
            }
            part.check(&rows).map_err(|problem| format!("{}: {problem}", part.key))?;
        }
        let total = |of: fn(&Frame) -> u64| -> Option<u64> {
            self.parts.iter().flat_map(|part| &part.frames).map(of).try_fold(0_u64, u64::checked_add)
        };
        if total(|frame| frame.rows) != Some(self.rows) {
            return Err("the rows of its frames do not add up".into());
        }
        let row_bytes = |frame: &Frame| if frame.rows > 0 { frame.raw_bytes } else { 0 };
        if total(row_bytes) != Some(self.raw_bytes) || total(|frame| frame.stored_bytes) != Some(self.stored_bytes) {
            return Err("the bytes of its frames do not add up".into());
        }
        Ok(())
    }
}

impl Part {
    fn check(&self, rows: &RowFormat) -> Result<(), String> {
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("sha256 is not 64 hex digits".into());
        }
        let mut offset = 0_u64;
        for frame in &self.frames {
            if frame.offset != offset || frame.stored_bytes == 0 {
                return Err(format!("a gap between its frames at byte {offset}"));
            }
            if frame.raw_bytes > MAX_FRAME_RAW_BYTES || (frame.raw_bytes > FRAME_RAW_BYTES && frame.rows != 1) {
                return Err(format!("the frame at byte {offset} is larger than a frame may be"));
            }
            if frame.rows > frame.raw_bytes {
                return Err(format!("the frame at byte {offset} has more rows than bytes"));
            }
            // A frame that compresses to more than its rows and some framing is not one that COPY rows give.
            if frame.stored_bytes > frame.raw_bytes + (frame.raw_bytes >> 7) + 1_024 {
                return Err(format!("the frame at byte {offset} is stored larger than its rows"));
            }
            offset = offset.checked_add(frame.stored_bytes).ok_or("its size overflows")?;
        }
        self.check_around(rows)?;
        if offset != self.stored_bytes {
            return Err("its frames do not add up to its size".into());
        }
        Ok(())
    }

    /// Frames without rows are the header at the beginning and the trailer at the end, where the format has them.
    fn check_around(&self, rows: &RowFormat) -> Result<(), String> {
        let (head, tail) = (rows.part_head().len() as u64, rows.part_tail().len() as u64);
        let mut frames = &self.frames[..];
        if head > 0 {
            frames = match frames.split_first() {
                Some((first, rest)) if first.rows == 0 && first.raw_bytes == head => rest,
                _ => return Err("does not begin with the header of its format".into()),
            };
        }
        if tail > 0 {
            frames = match frames.split_last() {
                Some((last, rest)) if last.rows == 0 && last.raw_bytes == tail => rest,
                _ => return Err("does not end with the trailer of its format".into()),
            };
        }
        let empty = |frame: &&Frame| frame.rows == 0 && (frame.raw_bytes > 0 || head > 0);
        match frames.iter().find(empty) {
            Some(frame) => Err(format!("the frame at byte {} has no rows", frame.offset)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
