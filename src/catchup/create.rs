//! Tables that the replica's config lists and the replica lacks, made from a manifest's description.
//!
//! Nothing of a manifest is executed: names become quoted identifiers, and types are looked up in the replica's own
//! catalogs and written as it writes them.

use tokio_postgres::Client;

use super::matching::{Drift, can_be_a_name};
use crate::manifest::Slice;
use crate::pg::{PgError, quote_identifier, quote_qualified};

/// The statements that make the table of a slice: columns, key, and an index for its time column.
///
/// # Errors
/// The server's; [`Drift`] when a type is not there, or a name cannot be one.
pub async fn statements(client: &Client, slice: &Slice, schema: &str, name: &str) -> anyhow::Result<String> {
    let drift = |problem: String| Drift::new(format!("{schema}.{name}"), problem);
    let types = column_types(client, slice).await?;
    let mut lines = Vec::new();
    for (column, ddl) in slice.columns.iter().zip(types) {
        if !can_be_a_name(&column.name) {
            return Err(drift(format!("{:?} cannot be the name of a column", column.name)).into());
        }
        let Some(ddl) = ddl else {
            return Err(drift(format!(
                "the replica has no type {}.{} for column {:?}; create the type (or its extension) first",
                column.type_schema, column.type_name, column.name
            ))
            .into());
        };
        let null = if column.nullable { "" } else { " not null" };
        lines.push(format!("{} {ddl}{null}", quote_identifier(&column.name)));
    }
    let list = |names: &[String]| names.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
    if !slice.key.is_empty() {
        lines.push(format!("primary key ({})", list(&slice.key)));
    }
    let table = quote_qualified(schema, name);
    let mut sql = format!(
        "create schema if not exists {};\ncreate table {table} (\n    {}\n);",
        quote_identifier(schema),
        lines.join(",\n    ")
    );
    if let Some(time) = &slice.time
        && slice.key.first() != Some(&time.column)
    {
        sql.push_str(&format!("\ncreate index on {table} ({});", quote_identifier(&time.column)));
    }
    Ok(sql)
}

async fn column_types(client: &Client, slice: &Slice) -> Result<Vec<Option<String>>, PgError> {
    let schemas: Vec<&str> = slice.columns.iter().map(|column| column.type_schema.as_str()).collect();
    let names: Vec<&str> = slice.columns.iter().map(|column| column.type_name.as_str()).collect();
    let modifiers: Vec<i32> = slice.columns.iter().map(|column| column.typmod).collect();
    let rows = client.query(include_str!("../../sql/types.sql"), &[&schemas, &names, &modifiers]).await?;
    Ok(rows.iter().map(|row| row.get("ddl")).collect())
}
