//! Types that a slice format cannot carry: found when the tables are resolved, before a row is read. Pure.

use super::{SourceTable, TableProblem};
use crate::manifest::SliceFormat;
use crate::pg::catalog::{ColumnTypes, TypePart, TypeRole};

/// Types of `pg_catalog` whose input function takes nothing: what only the server itself makes.
const WRITTEN_ONLY: [&str; 7] = [
    "gtsvector",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_ndistinct",
    "pg_node_tree",
];

/// Types of `pg_catalog` that are numbers of things, in text their names.
const NUMBERS_OF_THINGS: [&str; 11] = [
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];

/// Types of `pg_catalog` whose empty values PostgreSQL sends and does not receive.
const EMPTY_UNRECEIVED: [&str; 3] = ["int2vector", "oidvector", "tsquery"];

/// The columns whose type the format of their table cannot carry, each with what would mend it.
pub fn exceptions(tables: &[SourceTable], types: &ColumnTypes) -> Vec<TableProblem> {
    each_column(tables, types, |part, format| {
        let mend = match format {
            SliceFormat::Binary => {
                "state format = \"text\" or \"csv\" for this table, or leave the column out with columns"
            }
            SliceFormat::Text | SliceFormat::Csv => "leave the column out with columns",
        };
        exception(part, format).map(|reason| format!("{reason}; {mend}"))
    })
}

/// The columns whose values load only where the replica has what they name.
pub fn conditions(tables: &[SourceTable], types: &ColumnTypes) -> Vec<TableProblem> {
    each_column(tables, types, |part, format| match (exception(part, format), names_things(part)) {
        (None, Some(things)) => Some(format!("a replica can load it only where it has the same {things}")),
        _ => None,
    })
}

fn each_column(
    tables: &[SourceTable],
    types: &ColumnTypes,
    judge: impl Fn(&TypePart, SliceFormat) -> Option<String>,
) -> Vec<TableProblem> {
    let mut problems = Vec::new();
    for table in tables {
        let format = table.config.format;
        for column in &table.columns {
            let parts = types.get(&(table.relation.oid, column.name.clone())).map(Vec::as_slice).unwrap_or_default();
            if let Some(verdict) = parts.iter().find_map(|part| judge(part, format)) {
                let problem = format!(
                    "column {:?} of type {} in {} format: {verdict}",
                    column.name,
                    shown(&column.type_schema, &column.type_name),
                    format.word()
                );
                problems.push(TableProblem { table: table.relation.qualified_name(), problem });
            }
        }
    }
    problems
}

/// Why values with such a part cannot be carried.
fn exception(part: &TypePart, format: SliceFormat) -> Option<String> {
    let name = shown(&part.schema, &part.name);
    if part.pseudo {
        return Some(format!("{name} is a pseudo-type, and no value of it can be loaded"));
    }
    if is_among(part, &WRITTEN_ONLY) {
        return Some(format!("PostgreSQL writes values of {name} and reads none back"));
    }
    if format != SliceFormat::Binary {
        return None;
    }
    if !part.has_binary_form {
        return Some(format!("{name} has no binary form"));
    }
    if is_among(part, &NUMBERS_OF_THINGS) {
        return Some(format!("the binary form of {name} is a number that means something else in another database"));
    }
    if is_among(part, &EMPTY_UNRECEIVED) {
        return Some(format!("PostgreSQL sends empty values of {name} and refuses to receive them"));
    }
    // Arrays and composite values name the types of their members by number, each value again.
    if matches!(part.role, TypeRole::Element | TypeRole::Field) && !part.numbered_everywhere {
        return Some(format!("its binary form holds the number of {name}, which is another one in another database"));
    }
    None
}

/// What values with such a part are names of.
fn names_things(part: &TypePart) -> Option<&'static str> {
    if is_among(part, &["aclitem", "regrole"]) {
        Some("roles")
    } else if is_among(part, &NUMBERS_OF_THINGS) {
        Some("objects of these names")
    } else {
        None
    }
}

fn is_among(part: &TypePart, names: &[&str]) -> bool {
    part.schema == "pg_catalog" && names.contains(&part.name.as_str())
}

fn shown(schema: &str, name: &str) -> String {
    if schema == "pg_catalog" { name.to_owned() } else { format!("{schema}.{name}") }
}
