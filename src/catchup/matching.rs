//! Slices against the replica's tables: columns by name, types by the catalogs. Pure.
//!
//! The replica's own config is the list of tables that are touched; identifiers that end up in statements come from
//! its own catalogs.

use crate::manifest::{Column, Manifest, Slice, SliceKind, TimeBounds};
use crate::pg::catalog::{KeyColumn, RelKind, Relation, UniqueKey};
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
    /// The key to merge by: a complete unique index of the replica over columns of the slice; empty for none.
    pub key: UniqueKey,
    /// Columns of the slice that an UPDATE cannot change (`GENERATED ALWAYS AS IDENTITY`).
    pub fixed: Vec<String>,
    /// The time column and bounds.
    pub time: Option<TimeBounds>,
    /// Whether rows that the slice does not have may be deleted from its window.
    pub absence: Absence,
    /// Whether the replica's table has columns that the slice does not carry.
    pub other_columns: OtherColumns,
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{table}: {problem}")]
pub struct Drift {
    /// `schema.table`
    pub table: String,
    /// What differs, and what would mend it.
    pub problem: String,
}

/// Matches a slice with the replica's table of the same name.
///
/// # Errors
/// The first difference that matters.
pub fn target(slice: &Slice, relation: &Relation, manifest: &Manifest) -> Result<Target, Drift> {
    let drift = |problem: String| Drift { table: relation.qualified_name(), problem };
    if !matches!(relation.kind, RelKind::Table | RelKind::Partitioned) {
        return Err(drift("is not a table on the replica".into()));
    }
    if relation.child_schemas.iter().any(|schema| schema != HYPERTABLE_CHUNKS) {
        return Err(drift(format!(
            "tables inherit from it on the replica ({}), whose rows cannot be told from its own; \
             partition it instead, or end the inheritance: alter table … no inherit …",
            relation.children.join(", ")
        )));
    }
    let table = quote_qualified(&relation.schema, &relation.name);
    let mut fixed = Vec::new();
    for column in &slice.columns {
        let Some(found) = relation.column(&column.name) else {
            return Err(drift(format!(
                "the replica has no column {:?} ({}); add it: alter table {table} add column {} …",
                column.name,
                type_words(column),
                quote_identifier(&column.name)
            )));
        };
        if found.generated {
            return Err(drift(format!(
                "column {:?} is generated on the replica, but published by the feed",
                column.name
            )));
        }
        if !accepts(&found.column, column) {
            return Err(drift(format!(
                "column {:?} is {} on the replica and {} in the feed; mend it: alter table {table} alter column {} type …",
                column.name,
                type_words(&found.column),
                type_words(column),
                quote_identifier(&column.name)
            )));
        }
        if found.identity_always {
            fixed.push(column.name.clone());
        }
    }
    let (generated, others): (Vec<_>, Vec<_>) = relation
        .columns
        .iter()
        .filter(|own| !slice.columns.iter().any(|column| column.name == own.column.name))
        .partition(|own| own.generated);
    if let Some(own) = others.iter().find(|own| !own.column.nullable && !own.has_default) {
        return Err(drift(format!(
            "column {:?} is NOT NULL on the replica, has no default, and the feed does not carry it; \
             mend it: alter table {table} alter column {} drop not null",
            own.column.name,
            quote_identifier(&own.column.name)
        )));
    }
    if let Some(time) = &slice.time {
        let Some(column) = slice.columns.iter().find(|column| column.name == time.column) else {
            return Err(drift(format!("the feed does not carry its time column {:?}", time.column)));
        };
        if !time.kind.is_of(column) {
            return Err(drift(format!(
                "the feed reads its time column {:?}, which is {}, as {}",
                time.column,
                type_words(column),
                time.kind.word()
            )));
        }
        if !time.fit(manifest.day, manifest.window) {
            return Err(drift(format!(
                "the bounds of {:?} are not those of the window of {}",
                time.column, manifest.day
            )));
        }
    }
    let carries = |part: &KeyColumn| slice.columns.iter().any(|column| column.name == part.name);
    let carried = |key: &&UniqueKey| key.iter().all(carries);
    let stated = relation.keys.iter().filter(carried).find(|key| same_columns(key, &slice.key));
    let key = stated.or_else(|| relation.keys.iter().find(carried)).cloned().unwrap_or_default();
    let is_time = slice.kind == SliceKind::Time && slice.time.is_some();
    if !is_time && key.is_empty() {
        return Err(drift(format!(
            "a reference table needs a primary key or a unique index over NOT NULL columns on the replica; \
             add it: alter table {table} add primary key (…)"
        )));
    }
    Ok(Target {
        table,
        name: slice.qualified_name(),
        oid: relation.oid,
        columns: slice.columns.iter().map(|column| column.name.clone()).collect(),
        fixed: fixed.into_iter().filter(|name| !key.iter().any(|part| part.name == *name)).collect(),
        key,
        time: slice.time.clone(),
        absence: if is_time && !slice.filtered { Absence::Proven } else { Absence::Unknown },
        other_columns: match (others.is_empty(), generated.is_empty()) {
            (true, true) => OtherColumns::None,
            (true, false) => OtherColumns::Generated,
            (false, _) => OtherColumns::Some,
        },
    })
}

fn same_columns(key: &[KeyColumn], names: &[String]) -> bool {
    key.len() == names.len() && key.iter().all(|column| names.contains(&column.name))
}

/// The same type, and the same modifier unless the replica's has none.
fn accepts(replica: &Column, feed: &Column) -> bool {
    replica.type_schema == feed.type_schema
        && replica.type_name == feed.type_name
        && (replica.typmod == feed.typmod || replica.typmod == -1)
}

fn type_words(column: &Column) -> String {
    let schema = if column.type_schema == "pg_catalog" { String::new() } else { format!("{}.", column.type_schema) };
    let modifier = if column.typmod == -1 { String::new() } else { format!(" (modifier {})", column.typmod) };
    format!("{schema}{}{modifier}", column.type_name)
}

#[cfg(test)]
mod tests;
