//! Whether the source shows every row of a table to its user.

use tokio_postgres::Client;

use crate::error::{Class, Failure};
use crate::pg::{PgError, quote_identifier, quote_qualified};
use crate::table::SourceTable;

/// What a user may see of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The user.
    pub user: String,
    /// How much of it.
    pub sight: Sight,
}

/// How much of a relation a user sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// All rows of all columns.
    All,
    /// Nothing: the user may not use the schema.
    NoSchema,
    /// Nothing, or some columns: the user may not read the table as such, which locking it needs.
    NoSelect,
    /// The rows that policies let through.
    Policies,
}

/// What the user of the connection may see of `tables`, by name.
///
/// # Errors
/// The server's.
pub async fn read(client: &Client, tables: &[SourceTable]) -> Result<Vec<Access>, PgError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.relation.oid).collect();
    let rows = client.query(include_str!("../../sql/access.sql"), &[&oids]).await?;
    let access = |row: &tokio_postgres::Row| Access {
        schema: row.get("schema"),
        name: row.get("name"),
        user: row.get("username"),
        sight: match (row.get("schema_usage"), row.get("select"), row.get("row_security")) {
            (false, _, _) => Sight::NoSchema,
            (_, false, _) => Sight::NoSelect,
            (_, _, true) => Sight::Policies,
            (true, true, false) => Sight::All,
        },
    };
    Ok(rows.iter().map(access).collect())
}

impl Access {
    /// Why the relation cannot be published by this user.
    ///
    /// # Errors
    /// Class Permission: a part of the rows is never published.
    pub fn refuse(&self) -> Result<(), Failure> {
        let (table, user) = (format!("{}.{}", self.schema, self.name), quote_identifier(&self.user));
        let (what, next) = match self.sight {
            Sight::All => return Ok(()),
            Sight::NoSchema => (
                format!("permission denied for schema {} of {table}", self.schema),
                format!("on the source: grant usage on schema {} to {user}", quote_identifier(&self.schema)),
            ),
            Sight::NoSelect => (
                format!("permission denied for table {table}"),
                format!("on the source: grant select on {} to {user}", quote_qualified(&self.schema, &self.name)),
            ),
            Sight::Policies => (
                format!("row-level security of {table} may hide rows from {user}"),
                format!("on the source: alter role {user} bypassrls, or export as the table's owner"),
            ),
        };
        Err(Failure::new(Class::Permission, what)
            .meaning("nothing was exported: a part of the rows is never published as a day")
            .next(next))
    }
}

/// An error of reading, with what to do where it is a privilege that lies deeper than the relation itself: in a table
/// behind a view, in a function of a condition.
pub fn explain(error: anyhow::Error) -> anyhow::Error {
    let denied = |cause: &PgError| cause.code() == Some("42501");
    if !error.chain().any(|cause| cause.downcast_ref::<PgError>().is_some_and(denied)) {
        return error;
    }
    Failure::new(Class::Permission, format!("{error:#}"))
        .meaning("nothing was exported: a part of the rows is never published as a day")
        .next("on the source: grant what is missing; where row-level security is named: alter role … bypassrls")
        .into()
}
