//! The verdict on pending days before any row moves: every slice against its table, all differences at once.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use tokio_postgres::Client;

use super::apply::PendingDay;
use super::ledger::{self, Ledger, Names};
use super::matching::{self, Addition, Drift, Misfit, Span, Target, Terms};
use super::run::{self, Mode};
use super::spelling::{self, Spelling};
use super::widening;
use crate::config::{Config, TableConfig};
use crate::day::Day;
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed};
use crate::head;
use crate::manifest::{self, Column, MadeOf, Manifest, Slice, SliceFormat, Taken};
use crate::pg::PgError;
use crate::pg::catalog::{CatalogColumn, Relation};
use crate::store::Store;

/// A pending day that was read and not yet judged.
#[derive(Debug, Clone)]
pub(crate) struct ReadDay {
    /// Its entry in the head.
    pub(crate) entry: DayEntry,
    /// Its record.
    pub(crate) manifest: Manifest,
}

impl ReadDay {
    /// When the day was as it is: it may have been read again since it was published, and found unchanged.
    fn taken(&self) -> &Taken {
        self.entry.taken.as_ref().unwrap_or(&self.manifest.taken)
    }
}

/// What days are judged by, beside the replica's tables and ledger.
#[derive(Clone, Copy)]
pub(crate) struct Bench<'a> {
    /// Asks the replica.
    pub(crate) client: &'a Client,
    /// The feed's objects.
    pub(crate) store: &'a dyn Store,
    /// The head.
    pub(crate) feed: &'a Feed,
    /// What the replica's owner wants.
    pub(crate) config: &'a Config,
}

/// A verdict that refuses nothing.
pub(crate) enum Verdict {
    /// Everything fits.
    Fits(Vec<PendingDay>),
    /// Everything fits once these columns are there. The days come back unjudged.
    Lacks(Vec<Addition>, Vec<ReadDay>),
}

/// The tables and the record of a replica.
#[derive(Clone, Copy)]
struct Held<'a> {
    relations: &'a [Relation],
    ledger: &'a Ledger,
}

/// Reads the manifests of pending days.
///
/// # Errors
/// The store's; class Integrity where a manifest is not the one that is named.
pub(crate) async fn read(store: &dyn Store, feed: &Feed, entries: Vec<&DayEntry>) -> anyhow::Result<Vec<ReadDay>> {
    let mut days = Vec::with_capacity(entries.len());
    for entry in entries {
        let manifest = head::day_manifest(store, feed, entry).await?;
        days.push(ReadDay { entry: entry.clone(), manifest });
    }
    Ok(days)
}

/// Judges days, and adds the columns that the config lets catchup add, in a transaction of their own: whatever comes
/// after, they may stay, as they may be NULL. Answers with the days and the names of the columns. A dry run only takes
/// them for added.
///
/// # Errors
/// Those of [`judge`].
pub(crate) async fn judge_and_add(
    days: Vec<ReadDay>,
    bench: Bench<'_>,
    relations: &mut Vec<Relation>,
    ledger: &Ledger,
    mode: Mode,
) -> anyhow::Result<(Vec<PendingDay>, Vec<String>)> {
    let (additions, days) = match judge(days, bench, relations, ledger).await? {
        Verdict::Fits(pending) => return Ok((pending, Vec::new())),
        Verdict::Lacks(additions, days) => (additions, days),
    };
    if mode == Mode::Apply {
        let statements: Vec<&str> = additions.iter().map(|addition| addition.statement.as_str()).collect();
        let sql = format!("begin;\n{};\ncommit;", statements.join(";\n"));
        bench.client.batch_execute(&sql).await.map_err(PgError::from).context("cannot add columns")?;
        *relations = run::relations(bench.client, bench.config).await?;
    } else {
        for addition in &additions {
            let table = relations.iter_mut().find(|relation| relation.oid == addition.oid);
            table.into_iter().for_each(|table| table.columns.push(as_column(addition)));
        }
    }
    let names = additions.iter().map(|addition| format!("{}.{}", addition.table, addition.column.name)).collect();
    Ok((judge_again(days, bench, relations, ledger).await?, names))
}

/// Judges days on a replica that lacks no column of theirs, unless somebody changes it meanwhile.
///
/// # Errors
/// Those of [`judge`].
pub(crate) async fn judge_again(
    days: Vec<ReadDay>,
    bench: Bench<'_>,
    relations: &[Relation],
    ledger: &Ledger,
) -> anyhow::Result<Vec<PendingDay>> {
    match judge(days, bench, relations, ledger).await? {
        Verdict::Fits(pending) => Ok(pending),
        Verdict::Lacks(additions, _) => {
            let drift = |addition: &Addition| Drift {
                mend: vec![addition.statement.clone()],
                ..Drift::new(&addition.table, format!("the replica has no column {:?}", addition.column.name))
            };
            Err(drifted(&additions.iter().map(drift).collect::<Vec<_>>()))
        }
    }
}

/// The columns of pending days that are left out, as `schema.table.column`.
pub(crate) fn left_out(pending: &[PendingDay]) -> Vec<String> {
    let targets = pending.iter().flat_map(|day| &day.targets).map(|(_, target)| target);
    let names = targets.flat_map(|target| target.left_out.iter().map(|left| format!("{}.{}", target.name, left.name)));
    names.collect::<BTreeSet<String>>().into_iter().collect()
}

/// Judges days.
///
/// # Errors
/// Class Drift with every difference that somebody has to mend; the server's; the store's.
pub(crate) async fn judge(
    days: Vec<ReadDay>,
    bench: Bench<'_>,
    relations: &[Relation],
    ledger: &Ledger,
) -> anyhow::Result<Verdict> {
    let held = Held { relations, ledger };
    let newest = newest_days(&days, bench, relations).await?;
    let read: Vec<&Manifest> = days.iter().chain(&newest).map(|day| &day.manifest).collect();
    let spelling = spelling::read(bench.client, read.iter().flat_map(|manifest| &manifest.slices)).await?;
    let spans = spans(&in_order_read(days.iter().chain(&newest)), &bench.config.tables);
    let (mut pending, mut differences) = (Vec::new(), Vec::new());
    let mut additions: Vec<Addition> = Vec::new();
    for day in &days {
        let mut targets = Vec::new();
        for (index, slice) in day.manifest.slices.iter().enumerate() {
            match match_slice(slice, &day.manifest, bench.config, held, (&spelling, &spans)) {
                None => {}
                Some(Ok(target)) => targets.push((index, target)),
                Some(Err(misfit)) => {
                    differences.extend(misfit.drifts.into_iter().map(|drift| (day.entry.day, drift)));
                    let is_known = |new: &Addition| additions.iter().any(|known| known.statement == new.statement);
                    let new: Vec<Addition> = misfit.additions.into_iter().filter(|new| !is_known(new)).collect();
                    additions.extend(new);
                }
            }
        }
        pending.push(targets);
    }
    if !differences.is_empty() {
        return Err(refused(differences));
    }
    if !additions.is_empty() {
        return Ok(Verdict::Lacks(additions, days));
    }
    let pending_day = |(day, targets): (ReadDay, Vec<(usize, Target)>)| {
        let ReadDay { entry, manifest } = day;
        let revises = revises(&entry, &manifest, &targets, ledger);
        PendingDay { entry, manifest, targets, revises, partitions: Vec::new() }
    };
    Ok(Verdict::Fits(days.into_iter().zip(pending).map(pending_day).collect()))
}

/// The column as the replica's table would have it after `addition`.
fn as_column(addition: &Addition) -> CatalogColumn {
    CatalogColumn {
        column: Column { nullable: true, ..addition.column.clone() },
        type_text: addition.type_text.clone(),
        ground: None,
        generated: false,
        identity_always: false,
        has_default: false,
    }
}

/// The manifests of days by when they were read; of those that were read together the newest day is last.
fn in_order_read<'a>(days: impl Iterator<Item = &'a ReadDay>) -> Vec<&'a Manifest> {
    let mut days: Vec<&ReadDay> = days.collect();
    days.sort_by_key(|day| day.entry.day);
    manifest::in_order_read(days, |day| day.taken()).into_iter().map(|day| &day.manifest).collect()
}

/// What the slices of one table in several manifests, the one that was read last at the end, say of its columns.
pub(super) fn span(manifests: &[&Manifest], table: &TableConfig) -> Span {
    let name = format!("{}.{}", table.schema, table.name);
    let mut latest: Vec<String> = Vec::new();
    let mut columns: BTreeMap<String, Vec<(Column, SliceFormat)>> = BTreeMap::new();
    for manifest in manifests {
        let Some(slice) = manifest.slices.iter().find(|slice| slice.qualified_name() == name) else { continue };
        // Two columns of one name are told of where the slice is judged.
        let Ok(slice) = matching::renamed(slice, &table.rename) else { continue };
        for column in &slice.columns {
            columns.entry(column.name.clone()).or_default().push((column.clone(), slice.format));
        }
        latest = slice.columns.into_iter().map(|column| column.name).collect();
    }
    let widest = |all: Vec<(Column, SliceFormat)>| {
        let takes_all = |wide: &Column| all.iter().all(|(column, format)| widening::takes(wide, column, *format));
        all.iter().map(|(column, _)| column).find(|column| takes_all(column)).cloned()
    };
    Span { latest, widest: columns.into_iter().map(|(name, all)| (name, widest(all))).collect() }
}

fn spans(manifests: &[&Manifest], tables: &[TableConfig]) -> BTreeMap<String, Span> {
    tables.iter().map(|table| (format!("{}.{}", table.schema, table.name), span(manifests, table))).collect()
}

/// The days that were read last of tables of which a pending slice has a column that the replica lacks: only they tell
/// whether it is new, or gone since. The newest day may not be one of them. Without those that are pending themselves.
async fn newest_days(days: &[ReadDay], bench: Bench<'_>, relations: &[Relation]) -> anyhow::Result<Vec<ReadDay>> {
    let mut newest: Vec<ReadDay> = Vec::new();
    for table in &bench.config.tables {
        let name = format!("{}.{}", table.schema, table.name);
        let Some(relation) = relations.iter().find(|relation| relation.qualified_name() == name) else { continue };
        let lacks = |column: &Column| {
            let own = table.rename.get(&column.name).unwrap_or(&column.name);
            relation.column(own).is_none()
        };
        let slices = days.iter().flat_map(|day| &day.manifest.slices).filter(|slice| slice.qualified_name() == name);
        if !slices.flat_map(|slice| &slice.columns).any(lacks) {
            continue;
        }
        let Some(entry) = read_last(bench.feed, &name) else { continue };
        if !days.iter().chain(&newest).any(|day| day.entry.day == entry.day) {
            newest.extend(read(bench.store, bench.feed, vec![entry]).await?);
        }
    }
    Ok(newest)
}

/// The day with the table that was read last. Entries of older versions do not say when, and were read before others.
pub(crate) fn read_last<'a>(feed: &'a Feed, table: &str) -> Option<&'a DayEntry> {
    let with_table: Vec<&DayEntry> = feed.days.iter().filter(|entry| entry.tables.contains_key(table)).collect();
    let dated = with_table.iter().filter_map(|entry| Some((entry.taken.as_ref()?, *entry))).collect();
    let dated = manifest::in_order_read(dated, |(taken, _)| taken);
    dated.last().map(|(_, entry)| *entry).or(with_table.last().copied())
}

/// Holds a slice against its table; `None` for a table that the replica does not accept.
fn match_slice(
    slice: &Slice,
    manifest: &Manifest,
    config: &Config,
    held: Held<'_>,
    (spelling, spans): (&Spelling, &BTreeMap<String, Span>),
) -> Option<Result<Target, Misfit>> {
    let name = slice.qualified_name();
    let relation = held.relations.iter().find(|relation| relation.qualified_name() == name)?;
    let table = config.tables.iter().find(|table| format!("{}.{}", table.schema, table.name) == name)?;
    let terms = Terms {
        rename: &table.rename,
        natural_key: &table.natural_key,
        new_columns: config.replica.new_columns,
        spelling,
        span: spans.get(&name)?,
        held: held_names(&name, manifest, held.ledger, &table.rename),
    };
    Some(matching::target(slice, relation, manifest, &terms))
}

/// The columns and the key of the newest slice of a table that is held, if that is older than this day's.
fn held_names(table: &str, manifest: &Manifest, ledger: &Ledger, rename: &BTreeMap<String, String>) -> Names {
    let held = ledger.iter().filter(|((_, of), _)| of == table).map(|(_, held)| held);
    let newest = held.max_by(|a, b| a.taken.order(&b.taken));
    let older = newest.filter(|held| held.taken.order(&manifest.taken).is_lt());
    let Names { columns, key, .. } = older.map(|held| ledger::names_of(&held.columns)).unwrap_or_default();
    let renamed =
        |names: Vec<String>| names.into_iter().map(|name| rename.get(&name).cloned().unwrap_or(name)).collect();
    Names { columns: renamed(columns), key: renamed(key), left_out: Vec::new() }
}

/// Lets no manifest match held days with a column that was left out, where the replica has that by now: they are pending
/// again.
pub(crate) fn miss_left_out(ledger: &mut Ledger, relations: &[Relation], tables: &[TableConfig]) {
    for ((_, name), held) in ledger.iter_mut() {
        let left_out = ledger::names_of(&held.columns).left_out;
        let Some(relation) = relations.iter().find(|relation| relation.qualified_name() == *name) else { continue };
        let Some(table) = tables.iter().find(|table| table.schema == relation.schema && table.name == relation.name)
        else {
            continue;
        };
        if left_out.iter().any(|feeds| relation.column(table.rename.get(feeds).unwrap_or(feeds)).is_some()) {
            held.manifest_sha256.clear();
        }
    }
}

/// Does a day take the place of rows that the replica holds of it, or settle among several which of them are newest?
fn revises(entry: &DayEntry, manifest: &Manifest, targets: &[(usize, Target)], ledger: &Ledger) -> bool {
    let taken = entry.taken.as_ref().unwrap_or(&manifest.taken);
    targets.iter().any(|(index, target)| {
        let slice = &manifest.slices[*index];
        let held = ledger.get(&(entry.day, target.name.clone()));
        // Reference rows of several days that are all older than what is held settle among themselves which is newest.
        let is_late = target.time.is_none()
            && ledger.iter().any(|((_, table), held)| *table == target.name && held.taken.order(taken).is_gt());
        is_late || held.is_some_and(|held| (held.rows, held.rows_digest) != (slice.rows, slice.rows_digest))
    })
}

/// All differences, each once, with the day that it was found in first.
fn refused(differences: Vec<(Day, Drift)>) -> anyhow::Error {
    let days: BTreeSet<Day> = differences.iter().map(|(day, _)| *day).collect();
    let mut drifts: Vec<Drift> = Vec::new();
    for (_, drift) in differences {
        let is_told = |told: &Drift| {
            told.table == drift.table
                && if drift.mend.is_empty() { told.problem == drift.problem } else { told.mend == drift.mend }
        };
        if !drifts.iter().any(is_told) {
            drifts.push(drift);
        }
    }
    let told = match (days.first(), days.last()) {
        (Some(first), Some(last)) if first != last => {
            format!("{} days, {first} to {last}, do not fit the replica", days.len())
        }
        (Some(day), _) => format!("{day} does not fit the replica"),
        (None, _) => "the feed does not fit the replica".to_owned(),
    };
    drifted(&drifts).context(told)
}

/// Differences as a failure.
pub(crate) fn drifted(drifts: &[Drift]) -> anyhow::Error {
    let lines: Vec<String> = drifts.iter().map(ToString::to_string).collect();
    Failure::new(Class::Drift, lines.join("\n"))
        .meaning("no row was moved")
        .next("change the replica's tables to fit the feed, then run again")
        .into()
}

/// The slice that a missing table is made of: the newest one under the replica's names, with types that take the values
/// of all days, and NOT NULL only where no day lacks a value.
pub(crate) fn to_create(newest: &Slice, days: &[ReadDay], table: &TableConfig) -> Result<Slice, Drift> {
    let mut made = matching::renamed(newest, &table.rename)?;
    let name = newest.qualified_name();
    let manifests = in_order_read(days.iter());
    let slices = manifests.iter().flat_map(|manifest| &manifest.slices).filter(|slice| slice.qualified_name() == name);
    let slices: Vec<Slice> = slices.filter_map(|slice| matching::renamed(slice, &table.rename).ok()).collect();
    let span = span(&manifests, table);
    let time_column = made.time.as_ref().map(|time| time.column.clone());
    for column in &mut made.columns {
        let found = |slice: &Slice| slice.columns.iter().find(|other| other.name == column.name).cloned();
        column.nullable |= slices.iter().any(|slice| found(slice).is_none_or(|other| other.nullable));
        match span.widest.get(&column.name) {
            Some(Some(widest)) => *column = Column { nullable: column.nullable, ..widest.clone() },
            Some(None)
                if time_column.as_ref() != Some(&column.name)
                    && slices.iter().all(|slice| slice.format != SliceFormat::Binary) =>
            {
                let (type_schema, type_name) = ("pg_catalog".to_owned(), "text".to_owned());
                let (name, nullable) = (column.name.clone(), column.nullable);
                *column = Column { name, type_schema, type_name, typmod: -1, nullable, made_of: MadeOf::default() };
            }
            _ => {}
        }
    }
    Ok(made)
}
