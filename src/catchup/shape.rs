//! What the replica's catalogs say about the order of tables, and what feeds their columns.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::pg::catalog::{self, Relation};
use crate::pg::{PgError, quote_qualified};

/// What the replica's catalogs say about the order of tables.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Foreign keys between relations: (child, parent). Some are of tables that nobody asked about, which deletes reach.
    pub foreign_keys: Vec<(u32, u32)>,
    /// Those of them that delete or change child rows when a parent row is deleted.
    pub cascades: Vec<(u32, u32)>,
    /// What hangs on rows that leave, by the columns that tell.
    pub cascading: Vec<Cascade>,
    /// The sequences that feed columns.
    pub sequences: Vec<OwnedSequence>,
}

/// A foreign key whose child rows are deleted or changed when a parent row is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cascade {
    /// The parent.
    pub parent: u32,
    /// The child, qualified and quoted.
    pub child: String,
    /// Its columns.
    pub columns: Vec<ColumnPair>,
}

/// A column of a foreign key and the one that it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnPair {
    /// The parent's.
    pub parent: String,
    /// The child's.
    pub child: String,
    /// What stands between both to ask whether they are equal, the parent's on the left, as SQL.
    pub equals: String,
}

/// A sequence that feeds a column.
#[derive(Debug, Clone)]
pub struct OwnedSequence {
    /// The table.
    pub relation: u32,
    /// The column.
    pub column: String,
    /// The sequence's schema.
    pub schema: String,
    /// The sequence's name.
    pub name: String,
    /// Does it count down?
    pub descending: bool,
}

impl Shape {
    /// Places tables so that every parent comes before its children; a circle keeps the order given, and what hangs on
    /// it comes after it.
    pub fn parents_first(&self, mut oids: Vec<u32>) -> Vec<u32> {
        let mut ordered: Vec<u32> = Vec::with_capacity(oids.len());
        while !oids.is_empty() {
            // Whoever is an ancestor of all its ancestors waits for nothing but its own circle.
            let waits = |oid: &u32| {
                self.ancestors(*oid, &oids).iter().any(|ancestor| !self.ancestors(*ancestor, &oids).contains(oid))
            };
            let next = oids.iter().position(|oid| !waits(oid)).unwrap_or(0);
            ordered.push(oids.remove(next));
        }
        ordered
    }

    /// The parents of `oid` among `oids`, their parents, and so on; itself only in a circle.
    fn ancestors(&self, oid: u32, oids: &[u32]) -> BTreeSet<u32> {
        let mut ancestors = BTreeSet::new();
        let mut below = vec![oid];
        while let Some(oid) = below.pop() {
            let parents = self.foreign_keys.iter().filter(|(child, _)| *child == oid).map(|(_, parent)| *parent);
            below.extend(parents.filter(|parent| oids.contains(parent) && ancestors.insert(*parent)));
        }
        ancestors
    }

    /// The tables whose rows may go or change when rows of `parents` are deleted.
    pub(super) fn swept_along(&self, parents: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut swept = BTreeSet::new();
        let mut above: Vec<u32> = parents.iter().copied().collect();
        while let Some(parent) = above.pop() {
            let children = self.cascades.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child);
            above.extend(children.filter(|child| swept.insert(*child)));
        }
        swept
    }

    /// What hangs on the rows of a table.
    pub(super) fn cascades_of(&self, oid: u32) -> Vec<Cascade> {
        self.cascading.iter().filter(|cascade| cascade.parent == oid).cloned().collect()
    }

    /// Does a foreign key point at it?
    pub(super) fn is_referenced(&self, oid: u32) -> bool {
        self.foreign_keys.iter().any(|(_, parent)| *parent == oid)
    }
}

/// Asks the replica.
///
/// # Errors
/// The server's.
pub async fn read(client: &Client, relations: &[Relation]) -> Result<Shape, PgError> {
    let oids: Vec<u32> = relations.iter().map(|relation| relation.oid).collect();
    let (mut foreign_keys, mut cascades) = (Vec::new(), Vec::new());
    for row in client.query(include_str!("../../sql/foreign_keys.sql"), &[&oids]).await? {
        let key = (row.get("child"), row.get("parent"));
        foreign_keys.push(key);
        if row.get("cascades") {
            cascades.push(key);
        }
    }
    let sequences = client
        .query(include_str!("../../sql/owned_sequences.sql"), &[&oids])
        .await?
        .iter()
        .map(|row| OwnedSequence {
            relation: row.get("relation"),
            column: row.get("column_name"),
            schema: row.get("schema"),
            name: row.get("name"),
            descending: row.get("descending"),
        })
        .collect();
    let cascading = client.query(include_str!("../../sql/cascades.sql"), &[&oids]).await?.iter().map(cascade).collect();
    Ok(Shape { foreign_keys, cascades, cascading, sequences })
}

/// A row of `cascades.sql`.
fn cascade(row: &tokio_postgres::Row) -> Cascade {
    let (parents, children): (Vec<String>, Vec<String>) = (row.get("parents"), row.get("children"));
    let (schemas, operators): (Vec<String>, Vec<String>) = (row.get("schemas"), row.get("operators"));
    let equals = schemas.iter().zip(&operators).map(|(schema, name)| catalog::operator(schema, name));
    let pairs = parents.into_iter().zip(children).zip(equals);
    Cascade {
        parent: row.get("parent"),
        child: quote_qualified(row.get("child_schema"), row.get("child_name")),
        columns: pairs.map(|((parent, child), equals)| ColumnPair { parent, child, equals }).collect(),
    }
}

#[cfg(test)]
mod tests;
