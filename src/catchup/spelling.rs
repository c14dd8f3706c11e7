//! Types of a feed as the replica writes them in DDL.
//!
//! What a statement says of a type comes from the replica's own catalogs: a feed only names it.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use crate::manifest::{Column, Slice, TypeName};
use crate::pg::PgError;

/// How the replica writes types. Those that it does not have are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spelling(pub BTreeMap<TypeName, String>);

impl Spelling {
    /// A type in DDL; `None` where the replica does not have it.
    pub fn of(&self, name: &TypeName) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The type of a column for people.
    pub fn words(&self, column: &Column) -> String {
        let name = column.type_of();
        match (self.of(&name), name) {
            (Some(ddl), _) => ddl.to_owned(),
            (None, TypeName { type_schema, type_name, .. }) if type_schema == "pg_catalog" => type_name,
            (None, TypeName { type_schema, type_name, .. }) => format!("{type_schema}.{type_name}"),
        }
    }
}

/// Asks the replica for the types of columns, of their attributes, and of what domains are over.
///
/// # Errors
/// The server's.
pub async fn read<'a>(client: &Client, slices: impl Iterator<Item = &'a Slice>) -> Result<Spelling, PgError> {
    let mut names = BTreeSet::new();
    for column in slices.flat_map(|slice| &slice.columns) {
        names.insert(column.type_of());
        names.extend(column.made_of.attributes.iter().map(|attribute| attribute.of.clone()));
        names.extend(column.made_of.base.clone());
    }
    // No server takes a NUL, and none has a type with one.
    names.retain(|name| !name.type_schema.contains('\0') && !name.type_name.contains('\0'));
    let names: Vec<TypeName> = names.into_iter().collect();
    let schemas: Vec<&str> = names.iter().map(|name| name.type_schema.as_str()).collect();
    let types: Vec<&str> = names.iter().map(|name| name.type_name.as_str()).collect();
    let modifiers: Vec<i32> = names.iter().map(|name| name.typmod).collect();
    let rows = match client.query(include_str!("../../sql/types.sql"), &[&schemas, &types, &modifiers]).await {
        // A modifier that no server gave a column: then it is told less about the types.
        Err(error) if error.code().is_some_and(|code| matches!(&code.code()[..2], "22" | "XX")) => {
            return Ok(Spelling::default());
        }
        rows => rows?,
    };
    let written: Vec<Option<String>> = rows.iter().map(|row| row.get("ddl")).collect();
    Ok(Spelling(names.into_iter().zip(written).filter_map(|(name, ddl)| Some((name, ddl?))).collect()))
}
