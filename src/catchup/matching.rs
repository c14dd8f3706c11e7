//! Slices against the replica's tables: columns by name, types by the catalogs. Pure.
//!
//! The replica's own config is the list of tables that are touched; identifiers that end up in statements come from
//! its own catalogs. What mends a table is told, never done; but for columns that the config lets catchup add.

mod columns;
mod ground;
mod keys;

pub(super) use columns::can_be_a_name;

use std::collections::BTreeMap;

use super::binary::Form;
use super::ledger::Names;
use super::printable::{is_printable, printable};
use super::spelling::Spelling;
use crate::config::NewColumns;
use crate::manifest::{Column, Manifest, Slice, SliceKind, TimeBounds};
use crate::pg::catalog::{RelKind, Relation, UniqueKey};
use crate::pg::{quote_identifier, quote_qualified};
use crate::table::HYPERTABLE_CHUNKS;

/// A slice and the table that it goes to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The table, quoted.
    pub table: String,
    /// `schema.table`, for people and as the ledger's key.
    pub name: String,
    /// Its oid.
    pub oid: u32,
    /// The columns to write, in the order of the data.
    pub columns: Vec<String>,
    /// How their values are written in binary, by their types on the replica; `None` where one is not known.
    pub forms: Option<Vec<Form>>,
    /// Columns of the data that are not written, as the table has them no more, and no newer day carries them; by their
    /// place in the data, ascending.
    pub left_out: Vec<LeftOut>,
    /// All columns of the table that hold values of their own: those that are not generated.
    pub stored: Vec<String>,
    /// The key to merge by: a complete unique index of the replica over columns of the slice; empty for none.
    pub key: UniqueKey,
    /// The columns by which a row is the same though its key is another; empty for none.
    pub natural: UniqueKey,
    /// Columns of the slice that an UPDATE cannot change (`GENERATED ALWAYS AS IDENTITY`).
    pub fixed: Vec<String>,
    /// The time column, as the replica calls it, and bounds.
    pub time: Option<TimeBounds>,
    /// What else the feed may call that column.
    pub other_names_of_time: Vec<String>,
    /// Whether rows that the slice does not have may be deleted from its window.
    pub absence: Absence,
    /// Whether the replica's table has columns that the slice does not carry.
    pub other_columns: OtherColumns,
}

/// A column of the data that is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its place in the data, from 0.
    pub place: usize,
    /// Its name in the feed.
    pub name: String,
}

/// What it means that a slice does not have a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// The source does not have it either.
    Proven,
    /// Nothing: the slice is filtered, or a reference table's.
    Unknown,
}

/// Columns of the replica's table beside the slice's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherColumns {
    /// None.
    None,
    /// Some, all of them generated: the replica computes them.
    Generated,
    /// Some: their values would be lost with a row that is deleted and loaded.
    Some,
}

/// Why a slice does not fit the replica's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// `schema.table`
    pub table: String,
    /// What differs.
    pub problem: String,
    /// The statements that mend it, in their order; alternatives are told in the problem.
    pub mend: Vec<String>,
}

impl Drift {
    /// What no single statement mends.
    pub fn new(table: impl Into<String>, problem: impl Into<String>) -> Drift {
        Drift { table: table.into(), problem: problem.into(), mend: Vec::new() }
    }
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", printable(&self.table), printable(&self.problem))?;
        let mend = self.mend.join("; ");
        if !is_printable(&mend) {
            // Somebody would copy it.
            write!(f, "; the statement that mends it has characters that cannot be shown, so it is not told")
        } else if !mend.is_empty() {
            write!(f, "; mend it: {mend}")
        } else {
            Ok(())
        }
    }
}

impl std::error::Error for Drift {}

/// A column that the replica's table lacks, and may be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// The table's oid.
    pub oid: u32,
    /// `schema.table`, for people.
    pub table: String,
    /// The column as the feed has it, under the replica's name.
    pub column: Column,
    /// Its type in DDL.
    pub type_text: String,
    /// The statement that adds it.
    pub statement: String,
}

/// Everything that keeps a slice from its table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Misfit {
    /// What has to be mended by somebody.
    pub drifts: Vec<Drift>,
    /// What catchup may add by itself; where nothing else is in the way the slice fits afterwards.
    pub additions: Vec<Addition>,
}

/// What a slice is judged by, beside its table.
#[derive(Debug, Clone)]
pub struct Terms<'a> {
    /// The feed's names of columns with the replica's.
    pub rename: &'a BTreeMap<String, String>,
    /// The columns by which a row is the same though its key is another; empty for none.
    pub natural_key: &'a [String],
    /// Whether columns may be added.
    pub new_columns: NewColumns,
    /// How the replica writes types.
    pub spelling: &'a Spelling,
    /// What the pending days and the newest published one say of the table's columns, under the replica's names.
    pub span: &'a Span,
    /// The columns and the key, under the replica's names, of the slice of this table that was read last of those that
    /// the replica holds, if that was before this one; else none.
    pub held: Names,
}

/// What several slices of one table say of its columns, under the replica's names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    /// The columns of the newest day.
    pub latest: Vec<String>,
    /// Of each column the type that takes what all slices carry; `None` where only text does.
    pub widest: BTreeMap<String, Option<Column>>,
}

/// The slice under the replica's names of its columns.
///
/// # Errors
/// [`Drift`] when two columns would have one name.
pub fn renamed(slice: &Slice, rename: &BTreeMap<String, String>) -> Result<Slice, Drift> {
    let mut renamed = slice.clone();
    let name = |name: &mut String| {
        if let Some(replicas) = rename.get(name) {
            name.clone_from(replicas);
        }
    };
    renamed.columns.iter_mut().for_each(|column| name(&mut column.name));
    renamed.key.iter_mut().for_each(name);
    renamed.time.iter_mut().for_each(|time| name(&mut time.column));
    for (index, column) in renamed.columns.iter().enumerate() {
        if let Some(first) = renamed.columns[..index].iter().position(|earlier| earlier.name == column.name) {
            let (first, second) = (&slice.columns[first].name, &slice.columns[index].name);
            return Err(Drift::new(
                slice.qualified_name(),
                format!(
                    "the feed carries both {first:?} and {second:?}, which rename makes one column, {:?}: mend rename in \
                     the configuration",
                    column.name
                ),
            ));
        }
    }
    Ok(renamed)
}

/// Matches a slice with the replica's table of the same name.
///
/// # Errors
/// All differences that matter.
pub fn target(slice: &Slice, relation: &Relation, manifest: &Manifest, terms: &Terms<'_>) -> Result<Target, Misfit> {
    let alone = |drift: Drift| Misfit { drifts: vec![drift], additions: Vec::new() };
    let drift = |problem: String| Drift::new(relation.qualified_name(), problem);
    if !matches!(relation.kind, RelKind::Table | RelKind::Partitioned) {
        return Err(alone(drift("is not a table on the replica".into())));
    }
    if relation.child_schemas.iter().any(|schema| schema != HYPERTABLE_CHUNKS) {
        return Err(alone(drift(format!(
            "tables inherit from it on the replica ({}), whose rows cannot be told from its own; \
             partition it instead, or end the inheritance: alter table … no inherit …",
            relation.children.join(", ")
        ))));
    }
    let slice = &renamed(slice, terms.rename).map_err(alone)?;
    let table = quote_qualified(&relation.schema, &relation.name);
    let columns::Fit { columns, left_out, fixed, mut misfit } = columns::fit(slice, relation, terms);
    let (generated, others): (Vec<_>, Vec<_>) = relation
        .columns
        .iter()
        .filter(|own| !slice.columns.iter().any(|column| column.name == own.column.name))
        .partition(|own| own.generated);
    for own in &others {
        if terms.held.columns.contains(&own.column.name) {
            misfit.drifts.push(columns::dropped(own, relation));
        } else if !own.column.nullable && !own.has_default {
            let name = quote_identifier(&own.column.name);
            misfit.drifts.push(Drift {
                mend: vec![format!("alter table {table} alter column {name} drop not null")],
                ..drift(format!(
                    "column {:?} is NOT NULL on the replica, has no default, and the feed does not carry it",
                    own.column.name
                ))
            });
        }
    }
    if let Some(time) = &slice.time
        && let Some(problem) = time_problem(time, slice, manifest, terms.spelling)
    {
        misfit.drifts.push(drift(problem));
    }
    let is_time = slice.kind == SliceKind::Time && slice.time.is_some();
    let key = keys::key(slice, relation, &left_out, &terms.held.key);
    if !is_time && key.as_ref().is_ok_and(Vec::is_empty) {
        misfit.drifts.push(drift(format!(
            "a reference table needs a primary key or a unique index over NOT NULL columns on the replica; \
             add it: alter table {table} add primary key (…)"
        )));
    }
    let natural = keys::natural(&columns, relation, terms.natural_key);
    let key = key.map_err(|drift| misfit.drifts.push(drift)).unwrap_or_default();
    let natural = natural.map_err(|drift| misfit.drifts.push(drift)).unwrap_or_default();
    if misfit != Misfit::default() {
        return Err(misfit);
    }
    let names_of_time = |time: &TimeBounds| {
        let same = terms.rename.iter().filter(|(_, replicas)| **replicas == time.column);
        same.map(|(feeds, _)| feeds.clone()).collect()
    };
    let form = |name: &String| relation.column(name).and_then(|own| Form::of(&own.column));
    Ok(Target {
        table,
        forms: columns.iter().map(form).collect(),
        name: slice.qualified_name(),
        oid: relation.oid,
        columns,
        stored: relation.columns.iter().filter(|own| !own.generated).map(|own| own.column.name.clone()).collect(),
        left_out,
        fixed: fixed.into_iter().filter(|name| !key.iter().any(|part| part.name == *name)).collect(),
        key,
        natural,
        other_names_of_time: slice.time.as_ref().map(names_of_time).unwrap_or_default(),
        time: slice.time.clone(),
        absence: if is_time && !slice.filtered { Absence::Proven } else { Absence::Unknown },
        other_columns: match (others.is_empty(), generated.is_empty()) {
            (true, true) => OtherColumns::None,
            (true, false) => OtherColumns::Generated,
            (false, _) => OtherColumns::Some,
        },
    })
}

/// What is wrong with the time column and bounds of a slice.
fn time_problem(time: &TimeBounds, slice: &Slice, manifest: &Manifest, spelling: &Spelling) -> Option<String> {
    let Some(column) = slice.columns.iter().find(|column| column.name == time.column) else {
        return Some(format!("the feed does not carry its time column {:?}", time.column));
    };
    if !time.kind.is_of(column) {
        return Some(format!(
            "the feed reads its time column {:?}, which is {}, as {}",
            time.column,
            spelling.words(column),
            time.kind.word()
        ));
    }
    (!time.fit(manifest.day, manifest.window))
        .then(|| format!("the bounds of {:?} are not those of the window of {}", time.column, manifest.day))
}

#[cfg(test)]
mod tests;
