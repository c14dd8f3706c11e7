//! TOML into a checked [`Config`]: unknown keys are refused with a suggestion, all problems are reported at once,
//! each with its line.

mod names;
mod parse;
mod reader;
mod size;
mod span;
mod store;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::TimeDelta;

use crate::day::Zone;
use crate::manifest::SliceFormat;

pub use parse::{ConfigError, Problem, find, load, parse};
pub use span::{parse_days, parse_span};
pub use store::{AllowHttp, Checksum, Encryption, S3Config, SingleWriter, StoreConfig};

/// One dataset, as configured. Which sections a command needs is that command's business.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// The dataset's name.
    pub dataset: String,
    /// The zone that defines its days.
    pub timezone: Zone,
    /// `source.url`.
    pub source_url: Option<String>,
    /// `source.password-file`: absolute, or relative to the configuration's folder.
    pub source_password_file: Option<PathBuf>,
    /// `[store]`.
    pub store: StoreConfig,
    /// `[export]`.
    pub export: ExportConfig,
    /// `[retention]`.
    pub retention: RetentionConfig,
    /// `[[table]]`, in order; names are unique.
    pub tables: Vec<TableConfig>,
    /// `[replica]`.
    pub replica: ReplicaConfig,
}

/// `[export]`
#[derive(Debug, Clone, PartialEq)]
pub struct ExportConfig {
    /// Connections that read slices at the same time, 1 to 64.
    pub jobs: usize,
    /// zstd's level, 1 to 19.
    pub compression_level: i32,
    /// How many of the newest closed days each run examines again; 0 for none.
    pub lookback_days: u64,
    /// How long after a window's end a day can be final at the earliest.
    pub settle: TimeDelta,
    /// What happens to a closed day that is not settled.
    pub unsettled: Unsettled,
    /// `application_name`s whose open transactions keep no day from being final.
    pub ignore_applications: Vec<String>,
    /// The share of its rows, 0 to 1, that a revision of a slice may lose without being asked.
    pub max_shrink: f64,
    /// How it is found out whether a day that is published already has changed.
    pub detect: Detect,
    /// What happens to a day with fewer rows than a table's `min-rows` or `min-fraction` expects.
    pub expect: Expect,
}

/// `export.unsettled`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsettled {
    /// Publish the day as provisional.
    Provisional,
    /// Wait for it, by default 30 minutes, then refuse it.
    Wait,
    /// Refuse it, exit 8.
    Refuse,
}

/// `export.detect`, `table.detect`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detect {
    /// By the number of rows and the versions of rows; by reading where a relation does not show them.
    Rows,
    /// By reading all rows.
    Digest,
    /// By the number of rows.
    Count,
    /// Not at all, unless the day is provisional: then by reading.
    Off,
}

/// `export.expect`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A day with too few rows is published as provisional.
    Lenient,
    /// It fails.
    Strict,
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Days kept, counted back from the newest final one, itself included; at least 1.
    pub keep_days: u64,
    /// Final days that are always kept.
    pub min_complete: usize,
    /// How long retired revisions stay readable.
    pub grace: TimeDelta,
}

/// `[[table]]`
#[derive(Debug, Clone, PartialEq)]
pub struct TableConfig {
    /// The table's schema.
    pub schema: String,
    /// The table's name, as the catalog spells it.
    pub name: String,
    /// Which rows belong to a day; `None` where only a replica is configured.
    pub rows: Option<RowsRule>,
    /// The columns to publish; `None` for all.
    pub columns: Option<Vec<String>>,
    /// A SQL condition that rows must meet; the operator's own text.
    pub filter: Option<String>,
    /// The key columns, if stated.
    pub key: Vec<String>,
    /// zstd's level for this table.
    pub compression_level: Option<i32>,
    /// How its rows are written.
    pub format: SliceFormat,
    /// The kind of relation that the operator means.
    pub relation: RelationKind,
    /// What to do with tables that inherit from this one (not partitions).
    pub inheritance: Inheritance,
    /// How its changes are found; `None` for `[export]`'s way.
    pub detect: Option<Detect>,
    /// What a day without fewer rows looks like.
    pub expectation: Expectation,
    /// Columns of the feed that are called otherwise on the replica: the feed's names, and the replica's.
    pub rename: BTreeMap<String, String>,
    /// The columns of the replica by which a row is the same though its key is another; empty for none.
    pub natural_key: Vec<String>,
}

/// `min-rows` and `min-fraction`
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Expectation {
    /// The fewest rows that a day is expected to have.
    pub min_rows: Option<u64>,
    /// The smallest share, above 0 and up to 1, of the rows that recent days have.
    pub min_fraction: Option<f64>,
}

/// `time-column`, or `rows` with `referenced-by`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowsRule {
    /// The rows whose time lies in the window.
    Time {
        /// The time column.
        column: String,
        /// The zone of a `timestamp` column.
        zone: Option<Zone>,
        /// The unit of an integer column.
        epoch_unit: Option<EpochUnit>,
        /// What to do with rows that have no place in time.
        null_time: NullTime,
    },
    /// All rows, each day.
    All,
    /// The rows that these columns point to.
    Referenced(Vec<Reference>),
}

/// Columns of another table of the dataset that hold this table's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// The columns, in the order of the key.
    pub columns: Vec<String>,
}

/// `epoch-unit`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochUnit {
    /// `"s"`
    Seconds,
    /// `"ms"`
    Milliseconds,
    /// `"us"`
    Microseconds,
}

/// `null-time`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullTime {
    /// A row whose time is NULL or infinite fails the day.
    Refuse,
    /// Such rows are left out and counted.
    Exclude,
}

/// `relation`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// A table, partitioned or not.
    Table,
    /// A view: its rows have no identity that could be locked.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    ForeignTable,
}

/// `inheritance`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inheritance {
    /// Not stated: a table with children is refused.
    Unstated,
    /// The table's own rows only.
    Only,
    /// The children's rows too.
    Include,
}

/// `[replica]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// The database to top off.
    pub url: Option<String>,
    /// A file with its password: absolute, or relative to the configuration's folder.
    pub password_file: Option<PathBuf>,
    /// A feed published longer ago is reported as stale; `None` leaves it to the feed's own `valid_until`.
    pub max_age: Option<TimeDelta>,
    /// Whether catchup makes the partitions that a day needs.
    pub create_partitions: CreatePartitions,
    /// What to do about columns that the feed has and a table of the replica lacks.
    pub new_columns: NewColumns,
}

/// `replica.new-columns`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewColumns {
    /// The day is refused with the statement that adds them.
    Refuse,
    /// They are added, if the replica has their type.
    Add,
}

/// `replica.create-partitions`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatePartitions {
    /// A day whose rows find no partition is refused.
    No,
    /// One is made for the day.
    Yes,
}
