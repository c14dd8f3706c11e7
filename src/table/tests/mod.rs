//! Tests of resolved tables, a file per rule; the tables that they share.

mod bounds;
mod columns;
mod exceptions;
mod references;
mod resolution;
mod spans;
mod statements;
mod time_columns;

use std::collections::BTreeMap;

use super::*;
use crate::config::Expectation;
use crate::manifest::SliceFormat;
use crate::pg::catalog::KeyColumn;
use crate::retention::fixtures::{day, instant};
use proptest::prelude::*;

fn column(name: &str, type_name: &str) -> CatalogColumn {
    CatalogColumn {
        column: Column {
            name: name.into(),
            type_schema: "pg_catalog".into(),
            type_name: type_name.into(),
            typmod: -1,
            nullable: false,
            made_of: crate::manifest::MadeOf::default(),
        },
        generated: false,
        type_text: type_name.to_owned(),
        ground: None,
        identity_always: false,
        has_default: false,
    }
}

fn key(columns: &[&str]) -> Vec<KeyColumn> {
    columns.iter().map(|name| KeyColumn::plain(name)).collect()
}

fn relation(name: &str, columns: Vec<CatalogColumn>, keys: &[&[&str]]) -> Relation {
    Relation {
        oid: 1,
        schema: "public".into(),
        name: name.into(),
        kind: RelKind::Table,
        children: Vec::new(),
        child_schemas: Vec::new(),
        columns,
        keys: keys.iter().map(|columns| key(columns)).collect(),
        unique_indexes: Vec::new(),
        own_equality: BTreeMap::new(),
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn config(name: &str, rows: RowsRule) -> TableConfig {
    TableConfig {
        schema: "public".into(),
        name: name.into(),
        rows: Some(rows),
        columns: None,
        filter: None,
        key: Vec::new(),
        compression_level: None,
        format: SliceFormat::Text,
        relation: RelationKind::Table,
        inheritance: Inheritance::Unstated,
        detect: None,
        expectation: Expectation::default(),
        rename: BTreeMap::new(),
        natural_key: Vec::new(),
    }
}

fn time(column: &str) -> RowsRule {
    RowsRule::Time { column: column.into(), zone: None, epoch_unit: None, null_time: NullTime::Refuse }
}

fn reference(table: &str, columns: &[&str]) -> Reference {
    Reference { schema: "public".into(), table: table.into(), columns: names(columns) }
}

/// A table of messages with a timestamptz.
fn messages() -> (TableConfig, Relation) {
    let columns = vec![column("id", "int4"), column("at", "timestamptz"), column("body", "text")];
    (config("messages", time("at")), relation("messages", columns, &[&["id"]]))
}

fn resolved((config, relation): (TableConfig, Relation)) -> SourceTable {
    match resolve(&[config], &[relation]) {
        Ok(mut tables) => tables.remove(0),
        Err(problems) => panic!("{problems:?}"),
    }
}

#[track_caller]
fn refused((config, relation): (TableConfig, Relation), problem: &str) {
    let problems = resolve(&[config], &[relation]).expect_err("a problem");
    assert_eq!(problems.iter().map(|problem| problem.problem.as_str()).collect::<Vec<_>>(), [problem]);
}

fn select(table: &SourceTable, all: &[SourceTable]) -> String {
    table.select(all, Zone::UTC, day("2024-05-01"), Zone::UTC.window(day("2024-05-01")))
}
