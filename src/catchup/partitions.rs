//! Whether the rows of a day find a partition on the replica, and the partitions that are made for them.
//!
//! Judged are tables that are partitioned by ranges of their slices' time column, and what lies below them. Whatever
//! else a table is partitioned by depends on the rows: a COPY finds out, and the day is not applied.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use tokio_postgres::Client;

use super::apply::PendingDay;
use super::ledger::{Entry, Ledger};
use super::matching::{Drift, Target};
use crate::config::CreatePartitions;
use crate::day::Day;
use crate::manifest::{Slice, TimeBounds, TimeKind};
use crate::pg::catalog::{RelKind, Relation};
use crate::pg::{PgError, quote_identifier, quote_literal, quote_qualified};

/// The longest identifier that PostgreSQL keeps whole, in bytes.
const MAX_IDENTIFIER_BYTES: usize = 63;
/// So many names are tried for a partition before it is given up.
const MAX_NAMES: usize = 20;

/// The partitioned tables of a replica, by oid.
pub type Trees = BTreeMap<u32, Tree>;

/// A partitioned table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// By what it is partitioned.
    pub strategy: Strategy,
    /// The same as PostgreSQL writes it after `PARTITION BY`.
    pub key_definition: String,
    /// The access method that its partitions get, where it names one, which it can from release 17 on.
    pub access_method: Option<String>,
    /// The tablespace that its partitions get, where it is another than the database's.
    pub tablespace: Option<String>,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

/// By what a table is partitioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// By ranges of this column alone.
    RangesOf(String),
    /// By anything else.
    Other,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its oid.
    pub oid: u32,
    /// Its name, qualified and quoted.
    pub name: String,
    /// Is it partitioned itself?
    pub level: Level,
    /// Its bound as PostgreSQL writes it: `FOR VALUES FROM (…) TO (…)` or `DEFAULT`.
    pub bound: String,
}

/// Whether a partition holds rows or further partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Rows.
    Leaf,
    /// Partitions.
    Partitioned,
}

/// What rows of a window would find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// A partition, or nobody can tell before they are there.
    Found,
    /// No partition but the default one, of that name.
    Default(Missing),
    /// None.
    None(Missing),
    /// None, and what is missing cannot be made without being told how; the words say what it is.
    Unclear(String),
}

/// A partition that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The table that lacks it.
    pub parent: u32,
    /// The default partition that stands in for it.
    pub default: Option<String>,
    /// The ranges that no partition takes, as bounds of the column, quoted.
    pub ranges: Vec<(String, String)>,
    /// Whether nothing of the window has a partition: only then one can be made for it.
    pub extent: Extent,
}

/// How much of a window lacks a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// A part; the rest is taken by these partitions.
    Part(Vec<String>),
}

/// Places on the axis of a time column: microseconds, days, or the integers themselves. The ends stand for everything
/// beyond.
type Span = (i64, i64);

/// A bound as [`Span`]s count; `None` for what this does not read.
fn place(kind: TimeKind, text: &str) -> Option<i64> {
    let text = text.trim_matches('\'');
    match text {
        "MINVALUE" | "-infinity" => return Some(i64::MIN),
        "MAXVALUE" | "infinity" => return Some(i64::MAX),
        _ => {}
    }
    let micros = |text: &str| {
        let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok()?;
        Some(time.and_utc().timestamp_micros())
    };
    match kind {
        TimeKind::Timestamptz => micros(text.strip_suffix("+00")?),
        TimeKind::Timestamp => micros(text),
        TimeKind::Date => {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            Some(date.signed_duration_since(NaiveDate::default()).num_days())
        }
        TimeKind::EpochSeconds | TimeKind::EpochMilliseconds | TimeKind::EpochMicroseconds => text.parse().ok(),
    }
}

/// A place within a window as a bound of the column.
fn bound(kind: TimeKind, place: i64) -> String {
    let time = || {
        let time = DateTime::from_timestamp_micros(place).unwrap_or_default();
        time.format("%Y-%m-%d %H:%M:%S%.f").to_string()
    };
    quote_literal(&match kind {
        TimeKind::Timestamptz => format!("{}+00", time()),
        TimeKind::Timestamp => time(),
        TimeKind::Date => {
            let date = NaiveDate::default().checked_add_signed(chrono::TimeDelta::days(place)).unwrap_or_default();
            date.to_string()
        }
        TimeKind::EpochSeconds | TimeKind::EpochMilliseconds | TimeKind::EpochMicroseconds => place.to_string(),
    })
}

/// `FOR VALUES FROM (…) TO (…)`
fn span(kind: TimeKind, bound: &str) -> Option<Span> {
    let (from, to) = bound.strip_prefix("FOR VALUES FROM (")?.strip_suffix(')')?.split_once(") TO (")?;
    Some((place(kind, from)?, place(kind, to)?))
}

/// What of `whole` none of `taken` has, ascending.
fn gaps(whole: Span, taken: &[Span]) -> Vec<Span> {
    let mut taken = taken.to_vec();
    taken.sort_unstable();
    let mut gaps = Vec::new();
    let mut from = whole.0;
    for (start, end) in taken.into_iter().filter(|(start, end)| *start < whole.1 && *end > whole.0) {
        if start > from {
            gaps.push((from, start));
        }
        from = from.max(end);
    }
    if from < whole.1 {
        gaps.push((from, whole.1));
    }
    gaps
}

fn meets(a: Span, b: Span) -> bool {
    a.0 < b.1 && b.0 < a.1
}

/// Finds what rows of a window find in the table `oid`. `extent` are the smallest and largest time of the rows, as the
/// feed says; the partitions for a window count only as far as there are rows.
pub fn home(trees: &Trees, oid: u32, day: Day, time: &TimeBounds, extent: (Option<&str>, Option<&str>)) -> Home {
    let (Some(from), Some(to)) = (place(time.kind, &time.from), place(time.kind, &time.to)) else { return Home::Found };
    let first = extent.0.and_then(|text| place(time.kind, text)).filter(|first| (from..to).contains(first));
    let last = extent.1.and_then(|text| place(time.kind, text)).filter(|last| (from..to).contains(last));
    let rows = (first.unwrap_or(from), last.map_or(to, |last| last + 1));
    below(trees, oid, day, time, (from, to), rows)
}

fn below(trees: &Trees, oid: u32, day: Day, time: &TimeBounds, window: Span, rows: Span) -> Home {
    let Some(tree) = trees.get(&oid) else { return Home::Found };
    let default = tree.partitions.iter().find(|partition| partition.bound == "DEFAULT");
    if tree.partitions.is_empty() && tree.strategy != Strategy::RangesOf(time.column.clone()) {
        return Home::Unclear(format!(
            "{} is partitioned by {} and has no partition at all",
            quote_qualified(&tree.schema, &tree.name),
            tree.key_definition
        ));
    }
    if tree.strategy != Strategy::RangesOf(time.column.clone()) {
        return Home::Found;
    }
    let others = || tree.partitions.iter().filter(|partition| partition.bound != "DEFAULT");
    let spans: Option<Vec<(Span, &Partition)>> =
        others().map(|partition| Some((span(time.kind, &partition.bound)?, partition))).collect();
    // A bound that is not read here is for PostgreSQL to judge.
    let Some(spans) = spans else { return Home::Found };
    let taken: Vec<Span> = spans.iter().map(|(span, _)| *span).collect();
    let missing: Vec<Span> = gaps(window, &taken).into_iter().filter(|gap| meets(*gap, rows)).collect();
    if missing.is_empty() {
        // What is there may be partitioned further.
        let clipped = |(from, to): Span, whole: Span| (from.max(whole.0), to.min(whole.1));
        return spans
            .iter()
            .filter(|(span, _)| meets(*span, rows))
            .map(|(span, partition)| {
                below(trees, partition.oid, day, time, clipped(*span, window), clipped(*span, rows))
            })
            .find(|home| *home != Home::Found)
            .unwrap_or(Home::Found);
    }
    let ranges: Vec<(String, String)> =
        missing.iter().map(|(from, to)| (bound(time.kind, *from), bound(time.kind, *to))).collect();
    let neighbour = others().find(|partition| partition.level == Level::Partitioned);
    if let (Some(neighbour), None) = (neighbour.and_then(|partition| trees.get(&partition.oid)), default) {
        return Home::Unclear(format!(
            "{} has no partition for it, and others of its partitions are partitioned further; make it and what it needs \
             below: {}",
            quote_qualified(&tree.schema, &tree.name),
            statements(tree, &ranges, day, &format!(" PARTITION BY {}", neighbour.key_definition))
        ));
    }
    let touching: Vec<String> = spans
        .iter()
        .filter(|(span, _)| meets(*span, window))
        .map(|(_, partition)| format!("{} {}", partition.name, partition.bound))
        .collect();
    let extent = if touching.is_empty() { Extent::Whole } else { Extent::Part(touching) };
    let missing = Missing { parent: oid, default: default.map(|partition| partition.name.clone()), ranges, extent };
    match default {
        Some(_) => Home::Default(missing),
        None => Home::None(missing),
    }
}

/// The statements that make partitions, for a person: the names are examples.
fn statements(tree: &Tree, ranges: &[(String, String)], day: Day, suffix: &str) -> String {
    let day = underscored(day);
    let statement = |(place, (from, to)): (usize, &(String, String))| {
        format!(
            "CREATE TABLE {} PARTITION OF {} FOR VALUES FROM ({from}) TO ({to}){suffix};",
            quote_qualified(&tree.schema, &derived_name(&tree.name, &day, place)),
            quote_qualified(&tree.schema, &tree.name),
        )
    };
    ranges.iter().enumerate().map(statement).collect::<Vec<_>>().join(" ")
}

fn underscored(day: Day) -> String {
    day.to_string().replace('-', "_")
}

/// `table_2024_05_01`, and `table_2024_05_01_2` for the next one; the table's name is cut to make it fit.
fn derived_name(table: &str, day: &str, taken: usize) -> String {
    let suffix = if taken == 0 { format!("_{day}") } else { format!("_{day}_{}", taken + 1) };
    let mut end = table.len().min(MAX_IDENTIFIER_BYTES - suffix.len());
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &table[..end])
}

/// The partitioned tables among `relations` and below them.
///
/// # Errors
/// The server's.
pub async fn read(client: &Client, relations: &[Relation]) -> Result<Trees, PgError> {
    let partitioned = relations.iter().filter(|relation| relation.kind == RelKind::Partitioned);
    let oids: Vec<u32> = partitioned.map(|relation| relation.oid).collect();
    let mut trees = Trees::new();
    if oids.is_empty() {
        return Ok(trees);
    }
    for row in client.query(include_str!("../../sql/partitions.sql"), &[&oids]).await? {
        let tree = trees.entry(row.get("parent")).or_insert_with(|| Tree {
            schema: row.get("parent_schema"),
            name: row.get("parent_name"),
            strategy: match (row.get::<_, String>("strategy").as_str(), row.get("key_column")) {
                ("r", Some(column)) => Strategy::RangesOf(column),
                _ => Strategy::Other,
            },
            key_definition: row.get("key_definition"),
            access_method: row.get("access_method"),
            tablespace: row.get("tablespace"),
            partitions: Vec::new(),
        });
        if let Some(oid) = row.get("partition") {
            tree.partitions.push(Partition {
                oid,
                name: quote_qualified(row.get("schema"), row.get("name")),
                level: if row.get("is_partitioned") { Level::Partitioned } else { Level::Leaf },
                bound: row.get::<_, Option<String>>("bound").unwrap_or_default(),
            });
        }
    }
    Ok(trees)
}

/// Sees to it that the rows of `days` find a partition: notes the statements that make those that are missing, where
/// the config wants them made. Nothing is written yet.
///
/// # Errors
/// The server's; [`Drift`]s, all at once, for rows that would find none.
pub async fn prepare(
    client: &Client,
    days: &mut [PendingDay],
    relations: &[Relation],
    ledger: &Ledger,
    create: CreatePartitions,
) -> anyhow::Result<Vec<Drift>> {
    let trees = read(client, relations).await?;
    let mut maker = Maker { client, trees, create, names: BTreeSet::new() };
    let mut drifts = Vec::new();
    for pending in days.iter_mut() {
        let day = pending.entry.day;
        for (index, target) in &pending.targets {
            let held = ledger.get(&(day, target.name.clone()));
            match maker.statements_for(day, &pending.manifest.slices[*index], target, held).await? {
                Ok(statements) => pending.partitions.extend(statements),
                Err(problem) => drifts.push(Drift::new(&target.name, format!("{day}: {problem}"))),
            }
        }
    }
    Ok(drifts)
}

/// What plans partitions.
struct Maker<'a> {
    client: &'a Client,
    trees: Trees,
    create: CreatePartitions,
    /// Names that are planned already.
    names: BTreeSet<String>,
}

impl Maker<'_> {
    /// The statements that make the partition of a slice, if one is needed and wanted; or what is missing. `held` is
    /// what the ledger says of the slice.
    async fn statements_for(
        &mut self,
        day: Day,
        slice: &Slice,
        target: &Target,
        held: Option<&Entry>,
    ) -> anyhow::Result<Result<Option<String>, String>> {
        let Some(time) = target.time.as_ref().filter(|_| slice.rows > 0) else { return Ok(Ok(None)) };
        let extent = (slice.min_time.as_deref(), slice.max_time.as_deref());
        let missing = match home(&self.trees, target.oid, day, time, extent) {
            Home::Found => return Ok(Ok(None)),
            Home::Unclear(words) => return Ok(Err(words)),
            // Rows that a default partition took before stay there.
            Home::Default(_) if self.create == CreatePartitions::No || held.is_some() => return Ok(Ok(None)),
            Home::Default(missing) | Home::None(missing) => missing,
        };
        let tree = &self.trees[&missing.parent];
        let by_hand = statements(tree, &missing.ranges, day, "");
        if self.create == CreatePartitions::No {
            return Ok(Err(format!(
                "no partition takes its rows; make it, or set create-partitions = true in [replica]: {by_hand}"
            )));
        }
        if let Extent::Part(touching) = &missing.extent {
            return Ok(Err(format!(
                "a part of it is taken by {}, so no partition is made for the rest; make it: {by_hand}",
                touching.join(" and by ")
            )));
        }
        if let Some(default) = &missing.default {
            // No other partition takes a part of the window: what the whole table has of it lies in the default one.
            let sql = format!(
                "select exists (select from {} as present where {})",
                target.table,
                time.predicate_of("present")
            );
            if self.client.query_one(&sql, &[]).await.map_err(PgError::from)?.get(0) {
                return Ok(Err(format!(
                    "the default partition {default} holds rows of it, so no partition can be made; move those rows \
                     away, make it, and put them back: {by_hand}"
                )));
            }
        }
        let name = free_name(self.client, tree, day, &mut self.names).await?;
        let (from, to) = &missing.ranges[0];
        Ok(Ok(Some(creation(tree, &name, from, to))))
    }
}

/// A name of the schema that nothing has, neither there nor in `names`.
async fn free_name(client: &Client, tree: &Tree, day: Day, names: &mut BTreeSet<String>) -> anyhow::Result<String> {
    let day = underscored(day);
    for taken in 0..MAX_NAMES {
        let name = derived_name(&tree.name, &day, taken);
        let qualified = quote_qualified(&tree.schema, &name);
        let sql = include_str!("../../sql/name_taken.sql");
        let exists: bool = client.query_one(sql, &[&tree.schema, &name]).await.map_err(PgError::from)?.get(0);
        if !exists && names.insert(qualified.clone()) {
            return Ok(qualified);
        }
    }
    anyhow::bail!("{MAX_NAMES} names for a partition of {} are taken", quote_qualified(&tree.schema, &tree.name))
}

/// Makes a table, stored as a partition of the parent would be, and attaches it: unlike `CREATE TABLE … PARTITION OF`
/// that lets others read and write the parent meanwhile, as far as these locks of ATTACH do, which last until the
/// transaction ends: ACCESS EXCLUSIVE on the parent's default partition, SHARE ROW EXCLUSIVE on tables that the parent's
/// foreign keys point at. Indexes, keys, triggers and identities come with attaching.
fn creation(tree: &Tree, name: &str, from: &str, to: &str) -> String {
    let parent = quote_qualified(&tree.schema, &tree.name);
    let stored = |word: &str, name: &Option<String>| {
        name.as_ref().map(|name| format!(" {word} {}", quote_identifier(name))).unwrap_or_default()
    };
    let (using, tablespace) = (stored("using", &tree.access_method), stored("tablespace", &tree.tablespace));
    format!(
        "create table {name} (like {parent} including all excluding identity excluding indexes excluding statistics \
         excluding comments){using}{tablespace}; \
         alter table {parent} attach partition {name} for values from ({from}) to ({to})"
    )
}

#[cfg(test)]
mod tests;
