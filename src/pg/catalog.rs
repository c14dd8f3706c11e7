//! What the catalogs say about tables, on either side.

use std::collections::BTreeMap;

use tokio_postgres::GenericClient;

use crate::manifest::{Attribute, Column, MadeOf, TypeName};
use crate::pg::{PgError, quote_identifier, quote_qualified};

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
    /// The complete unique indexes over columns that are never NULL, the primary key first.
    pub keys: Vec<UniqueKey>,
    /// All complete unique indexes, also over columns that may be NULL.
    pub unique_indexes: Vec<UniqueIndex>,
    /// What equality is for columns whose type brings its own from outside `pg_catalog`, as SQL: `operator("public".=)`.
    pub own_equality: BTreeMap<String, String>,
}

/// A complete, plain, valid unique index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueIndex {
    /// Its name, which is that of its constraint if it has one.
    pub name: String,
    /// Is it the primary key's?
    pub role: IndexRole,
    /// Its columns.
    pub columns: UniqueKey,
    /// The foreign keys that point at it, each as what drops it: `public.child drop constraint child_parent_fkey`.
    pub foreign_keys: Vec<String>,
}

/// What a unique index is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexRole {
    /// The primary key.
    Primary,
    /// Anything else.
    Other,
}

/// The columns of a unique index, in its order.
pub type UniqueKey = Vec<KeyColumn>;

/// A column of a key, and when two values of it are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// What stands between two values to ask whether the index takes them for one, as SQL.
    pub equals: String,
    /// The collation to ask under, quoted; `None` for the column's own.
    pub collation: Option<String>,
    /// Whether equal values are the same.
    pub equality: Equality,
}

/// What it means that the values of a key are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equality {
    /// They are the same.
    Strict,
    /// They may differ, as `1.0` and `1.00` do, or letters of another case.
    Loose,
}

impl KeyColumn {
    /// A column that is compared by the plain equality of a type of `pg_catalog`.
    pub fn plain(name: &str) -> KeyColumn {
        KeyColumn { name: name.to_owned(), equals: "=".to_owned(), collation: None, equality: Equality::Strict }
    }

    /// Whether a row called `left` and one called `right` have this value in common, as SQL.
    pub fn equal(&self, left: &str, right: &str) -> String {
        let name = quote_identifier(&self.name);
        let collation = self.collation.as_ref().map(|collation| format!(" collate {collation}")).unwrap_or_default();
        format!("{left}.{name}{collation} {} {right}.{name}", self.equals)
    }
}

/// An operator as SQL. Under the empty search path of every session a plain one is that of `pg_catalog`.
pub(crate) fn operator(schema: &str, name: &str) -> String {
    if schema == "pg_catalog" { name.to_owned() } else { format!("operator({}.{name})", quote_identifier(schema)) }
}

/// The names of a key's columns.
pub fn names(key: &[KeyColumn]) -> Vec<String> {
    key.iter().map(|column| column.name.clone()).collect()
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
    /// Its type as the server writes it in DDL.
    pub type_text: String,
    /// The enumeration or composite type that its values are, or are arrays of, or are in a domain over; quoted.
    pub ground: Option<String>,
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
                made_of: MadeOf { base: base(&row), ..MadeOf::default() },
            },
            type_text: row.get("type_text"),
            ground: None,
            generated: row.get("generated"),
            identity_always: row.get("identity_always"),
            has_default: row.get("has_default"),
        });
    }
    for row in client.query(include_str!("../../sql/grounds.sql"), &[&oids]).await? {
        let name: &str = row.get("column_name");
        let of_relation = columns.get_mut(&row.get("relation")).into_iter().flatten();
        let Some(column) = of_relation.into_iter().find(|column| column.column.name == name) else { continue };
        column.ground = Some(quote_qualified(row.get("schema"), row.get("name")));
        column.column.made_of.labels = row.get("labels");
        column.column.made_of.attributes = attributes(&row);
    }
    let mut keys: BTreeMap<u32, Vec<UniqueKey>> = BTreeMap::new();
    let mut unique_indexes: BTreeMap<u32, Vec<UniqueIndex>> = BTreeMap::new();
    for row in client.query(include_str!("../../sql/keys.sql"), &[&oids]).await? {
        let columns = unique_key(&row);
        if row.get("never_null") {
            keys.entry(row.get("relation")).or_default().push(columns.clone());
        }
        let role = if row.get("is_primary") { IndexRole::Primary } else { IndexRole::Other };
        let index = UniqueIndex { name: row.get("name"), role, columns, foreign_keys: row.get("foreign_keys") };
        unique_indexes.entry(row.get("relation")).or_default().push(index);
    }
    let mut equalities: BTreeMap<u32, BTreeMap<String, String>> = BTreeMap::new();
    for row in client.query(include_str!("../../sql/equality.sql"), &[&oids]).await? {
        let equals = operator(row.get("schema"), row.get("operator"));
        equalities.entry(row.get("relation")).or_default().insert(row.get("name"), equals);
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
            unique_indexes: unique_indexes.remove(&oid).unwrap_or_default(),
            own_equality: equalities.remove(&oid).unwrap_or_default(),
        })
    };
    Ok(rows.iter().filter_map(relation).collect())
}

/// What the domain of a row of `columns.sql` is over.
fn base(row: &tokio_postgres::Row) -> Option<TypeName> {
    let (schema, name): (Option<String>, Option<String>) = (row.get("base_schema"), row.get("base_name"));
    Some(TypeName { type_schema: schema?, type_name: name?, typmod: row.get("base_typmod") })
}

/// The attributes of a row of `grounds.sql`.
fn attributes(row: &tokio_postgres::Row) -> Vec<Attribute> {
    let (names, schemas): (Vec<String>, Vec<String>) = (row.get("attributes"), row.get("attribute_schemas"));
    let (types, modifiers): (Vec<String>, Vec<i32>) = (row.get("attribute_types"), row.get("attribute_modifiers"));
    let types = schemas.into_iter().zip(types).zip(modifiers);
    let types = types.map(|((type_schema, type_name), typmod)| TypeName { type_schema, type_name, typmod });
    names.into_iter().zip(types).map(|(name, of)| Attribute { name, of }).collect()
}

/// A row of `keys.sql`.
fn unique_key(row: &tokio_postgres::Row) -> UniqueKey {
    let (names, schemas): (Vec<String>, Vec<String>) = (row.get("columns"), row.get("schemas"));
    let (operators, loose): (Vec<String>, Vec<bool>) = (row.get("operators"), row.get("loose"));
    let collation_schemas: Vec<Option<String>> = row.get("collation_schemas");
    let collations: Vec<Option<String>> = row.get("collations");
    let equals = schemas.iter().zip(&operators).map(|(schema, name)| operator(schema, name));
    let collations = collation_schemas.iter().zip(&collations).map(|collation| match collation {
        (Some(schema), Some(name)) => Some(quote_qualified(schema, name)),
        _ => None,
    });
    let equalities = loose.iter().map(|loose| if *loose { Equality::Loose } else { Equality::Strict });
    names
        .into_iter()
        .zip(equals)
        .zip(collations)
        .zip(equalities)
        .map(|(((name, equals), collation), equality)| KeyColumn { name, equals, collation, equality })
        .collect()
}

/// A type that the values of a column are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypePart {
    /// Its place in what it is a part of.
    pub role: TypeRole,
    /// Its schema.
    pub schema: String,
    /// Its name in `pg_type`.
    pub name: String,
    /// It is no type of values.
    pub pseudo: bool,
    /// It has functions that send and receive.
    pub has_binary_form: bool,
    /// Its oid is the same in every database of every version.
    pub numbered_everywhere: bool,
}

/// What a type is in another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeRole {
    /// The column's own type.
    Itself,
    /// What a domain is over.
    Base,
    /// What an array is of.
    Element,
    /// A member of a composite type.
    Field,
    /// What a range is between, or a multirange is of.
    Within,
}

/// The types of columns, by relation and name: the column's own first, then what it is made of.
pub type ColumnTypes = BTreeMap<(u32, String), Vec<TypePart>>;

/// The types of the columns of relations.
///
/// # Errors
/// The server's.
pub async fn column_types(client: &impl GenericClient, relations: &[u32]) -> Result<ColumnTypes, PgError> {
    let mut types = ColumnTypes::new();
    for row in client.query(include_str!("../../sql/column_types.sql"), &[&relations]).await? {
        types.entry((row.get("relation"), row.get("column_name"))).or_default().push(TypePart {
            role: match row.get::<_, &str>("role") {
                "itself" => TypeRole::Itself,
                "base" => TypeRole::Base,
                "element" => TypeRole::Element,
                "field" => TypeRole::Field,
                _ => TypeRole::Within,
            },
            schema: row.get("type_schema"),
            name: row.get("type_name"),
            pseudo: row.get("pseudo"),
            has_binary_form: row.get("has_binary_form"),
            numbered_everywhere: row.get("numbered_everywhere"),
        });
    }
    Ok(types)
}
