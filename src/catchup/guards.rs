//! What on the replica stands between a catchup and the rows of its tables: row security, rules, triggers.

use tokio_postgres::Client;

use crate::error::{Class, Failure};
use crate::pg::catalog::Relation;
use crate::pg::{PgError, quote_identifier, quote_qualified};

/// What guards a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guards {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether the user is subject to its policies.
    pub row_security: RowSecurity,
    /// Rules that rewrite an INSERT, UPDATE or DELETE. COPY goes past them.
    pub rules: Vec<String>,
    /// Its own enabled triggers. COPY fires them, as every other statement does.
    pub triggers: Vec<String>,
}

/// Whether policies hide rows of a table from the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowSecurity {
    /// They do, or might.
    Active,
    /// All rows are seen.
    Inactive,
}

/// The guards of the replica's tables, by name.
///
/// # Errors
/// The server's.
pub async fn read(client: &Client, relations: &[Relation]) -> Result<Vec<Guards>, PgError> {
    let oids: Vec<u32> = relations.iter().map(|relation| relation.oid).collect();
    let rows = client.query(include_str!("../../sql/guards.sql"), &[&oids]).await?;
    let guards = |row: &tokio_postgres::Row| Guards {
        schema: row.get("schema"),
        name: row.get("name"),
        row_security: if row.get("row_security") { RowSecurity::Active } else { RowSecurity::Inactive },
        rules: row.get("rules"),
        triggers: row.get("triggers"),
    };
    Ok(rows.iter().map(guards).collect())
}

impl Guards {
    /// Why nothing may be written to the table.
    ///
    /// # Errors
    /// Class Permission for row security: a merge that sees a part of the rows writes wrong ones. Class Drift for
    /// rules: the same day would have another effect when it is merged than when it is loaded.
    pub fn refuse(&self) -> Result<(), Failure> {
        let table = format!("{}.{}", self.schema, self.name);
        if self.row_security == RowSecurity::Active {
            return Err(Failure::new(
                Class::Permission,
                format!("row-level security of {table} on the replica may hide rows from this user"),
            )
            .meaning("nothing was applied: whoever sees a part of the rows only would write wrong ones")
            .next("catch up as the table's owner (without FORCE ROW LEVEL SECURITY), or: alter role … bypassrls"));
        }
        if let Some(rule) = self.rules.first() {
            let (rule, table_name) = (quote_identifier(rule), quote_qualified(&self.schema, &self.name));
            return Err(Failure::new(
                Class::Drift,
                format!(
                    "rule {rule} of {table} on the replica rewrites what a merge writes, and not what a load writes"
                ),
            )
            .meaning("nothing was applied")
            .next(format!("use a trigger instead, and: alter table {table_name} disable rule {rule}")));
        }
        Ok(())
    }
}
