//! What the catalogs say about tables, on either side.

use std::collections::BTreeMap;

use tokio_postgres::GenericClient;

use crate::manifest::Column;
use crate::pg::PgError;

/// A relation as `pg_class` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its oid: changes when the table is restored or created anew.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Table, view, …
    pub kind: RelKind,
    /// `schema.name` of tables that inherit from it and are not partitions.
    pub children: Vec<String>,
    /// The schemas of those.
    pub child_schemas: Vec<String>,
    /// Its columns, in order.
    pub columns: Vec<CatalogColumn>,
    /// The columns of each complete unique index over columns that are never NULL, the primary key first.
    pub keys: Vec<Vec<String>>,
}

/// `pg_class.relkind`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelKind {
    /// An ordinary table or partition.
    Table,
    /// A partitioned table.
    Partitioned,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    ForeignTable,
}

/// A column as `pg_attribute` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogColumn {
    /// Name, type and nullability, as published.
    pub column: Column,
    /// `GENERATED ALWAYS AS (…) STORED`: COPY does not load it.
    pub generated: bool,
    /// `GENERATED ALWAYS AS IDENTITY`: UPDATE does not change it.
    pub identity_always: bool,
    /// It has a value when none is given.
    pub has_default: bool,
}

impl Relation {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&CatalogColumn> {
        self.columns.iter().find(|column| column.column.name == name)
    }

    /// `schema.name`, for people; not quoted.
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// The relations among `names` (schema, name) that exist and are visible to the catalogs, in no order.
///
/// # Errors
/// The server's.
pub async fn relations(client: &impl GenericClient, names: &[(&str, &str)]) -> Result<Vec<Relation>, PgError> {
    let (schemas, tables): (Vec<&str>, Vec<&str>) = names.iter().copied().unzip();
    let rows = client.query(include_str!("../../sql/relations.sql"), &[&schemas, &tables]).await?;
    let oids: Vec<u32> = rows.iter().map(|row| row.get("oid")).collect();

    let mut columns: BTreeMap<u32, Vec<CatalogColumn>> = BTreeMap::new();
    for row in client.query(include_str!("../../sql/columns.sql"), &[&oids]).await? {
        columns.entry(row.get("relation")).or_default().push(CatalogColumn {
            column: Column {
                name: row.get("name"),
                type_schema: row.get("type_schema"),
                type_name: row.get("type_name"),
                typmod: row.get("typmod"),
                nullable: !row.get::<_, bool>("not_null"),
            },
            generated: row.get("generated"),
            identity_always: row.get("identity_always"),
            has_default: row.get("has_default"),
        });
    }
    let mut keys: BTreeMap<u32, Vec<Vec<String>>> = BTreeMap::new();
    for row in client.query(include_str!("../../sql/keys.sql"), &[&oids]).await? {
        keys.entry(row.get("relation")).or_default().push(row.get("columns"));
    }

    let relation = |row: &tokio_postgres::Row| {
        let oid: u32 = row.get("oid");
        Some(Relation {
            oid,
            schema: row.get("schema"),
            name: row.get("name"),
            kind: match row.get::<_, String>("kind").as_str() {
                "r" => RelKind::Table,
                "p" => RelKind::Partitioned,
                "v" => RelKind::View,
                "m" => RelKind::MaterializedView,
                "f" => RelKind::ForeignTable,
                _ => return None,
            },
            children: row.get("children"),
            child_schemas: row.get("child_schemas"),
            columns: columns.remove(&oid).unwrap_or_default(),
            keys: keys.remove(&oid).unwrap_or_default(),
        })
    };
    Ok(rows.iter().filter_map(relation).collect())
}
