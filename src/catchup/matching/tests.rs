use std::collections::BTreeMap;

use super::*;
use crate::manifest::{State, TimeKind};
use crate::pg::catalog::{self, CatalogColumn};
use crate::retention::fixtures;

fn column(name: &str, type_name: &str) -> Column {
    Column {
        name: name.into(),
        type_schema: "pg_catalog".into(),
        type_name: type_name.into(),
        typmod: -1,
        nullable: true,
    }
}

fn own(name: &str, type_name: &str) -> CatalogColumn {
    CatalogColumn { column: column(name, type_name), generated: false, identity_always: false, has_default: false }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn key(columns: &[&str]) -> UniqueKey {
    columns.iter().map(|name| KeyColumn::plain(name)).collect()
}

/// A day with a time slice of (id int4, at date, name varchar), and a replica's table that fits it.
fn fitting() -> (Manifest, Relation) {
    let (_, mut manifest) = fixtures::manifest(fixtures::day("2024-05-01"), 1, State::Final, "00000001", [None; 3]);
    let slice = &mut manifest.slices[0];
    slice.kind = SliceKind::Time;
    slice.columns = vec![column("id", "int4"), column("at", "date"), column("name", "varchar")];
    slice.key = names(&["id"]);
    slice.time = Some(TimeBounds {
        column: "at".into(),
        kind: TimeKind::Date,
        zone: None,
        from: "2024-05-01".into(),
        to: "2024-05-02".into(),
    });
    let relation = Relation {
        oid: 42,
        schema: "public".into(),
        name: "messages".into(),
        kind: RelKind::Table,
        children: Vec::new(),
        child_schemas: Vec::new(),
        columns: vec![own("id", "int4"), own("at", "date"), own("name", "varchar")],
        keys: vec![key(&["id"])],
        own_equality: BTreeMap::new(),
    };
    (manifest, relation)
}

fn matched(manifest: &Manifest, relation: &Relation) -> Target {
    target(&manifest.slices[0], relation, manifest).unwrap_or_else(|drift| panic!("{drift}"))
}

/// Asserts that what fitted is refused, in these words, once `harm` was done to it.
#[track_caller]
fn refused(words: &str, harm: impl FnOnce(&mut Slice, &mut Relation)) {
    let (mut manifest, mut relation) = fitting();
    harm(&mut manifest.slices[0], &mut relation);
    let drift = target(&manifest.slices[0], &relation, &manifest).expect_err("drift");
    assert!(drift.to_string().starts_with("public.messages: "), "{drift}");
    assert!(drift.problem.contains(words), "{drift}");
}

#[test]
fn columns_are_written_in_the_order_of_the_data_whatever_the_order_of_the_table() {
    let (manifest, mut relation) = fitting();
    relation.columns.reverse();
    let target = matched(&manifest, &relation);
    assert_eq!(target.columns, ["id", "at", "name"]);
    assert_eq!(
        (target.table.as_str(), target.name.as_str(), target.oid),
        ("\"public\".\"messages\"", "public.messages", 42)
    );
    assert_eq!((target.absence, target.other_columns), (Absence::Proven, OtherColumns::None));
}

#[test]
fn tables_that_inherit_are_refused_unless_they_are_chunks_of_a_hypertable() {
    refused("tables inherit from it on the replica (public.heir)", |_, relation| {
        relation.children = vec!["public.heir".into()];
        relation.child_schemas = vec!["public".into()];
    });
    let (manifest, mut relation) = fitting();
    relation.child_schemas = vec![HYPERTABLE_CHUNKS.into()];
    matched(&manifest, &relation);
}

#[test]
fn a_missing_column_is_refused_with_the_statement_that_adds_it() {
    refused(
        "the replica has no column \"name\" (varchar); add it: alter table \"public\".\"messages\" add column \"name\" …",
        |_, relation| relation.columns.truncate(2),
    );
    refused("the replica has no column \"name\"", |_, relation| relation.columns[2].column.name = "Name".into());
}

#[test]
fn another_type_is_refused_with_both_named() {
    refused(
        "column \"id\" is int8 on the replica and int4 in the feed; mend it: \
         alter table \"public\".\"messages\" alter column \"id\" type …",
        |_, relation| relation.columns[0].column.type_name = "int8".into(),
    );
    refused("column \"name\" is mine.varchar on the replica and varchar in the feed", |_, relation| {
        relation.columns[2].column.type_schema = "mine".into();
    });
}

#[test]
fn another_modifier_is_refused_unless_the_replica_has_none() {
    refused("is varchar (modifier 14) on the replica and varchar (modifier 24) in the feed", |slice, relation| {
        slice.columns[2].typmod = 24;
        relation.columns[2].column.typmod = 14;
    });
    refused("is varchar (modifier 14) on the replica and varchar in the feed", |_, relation| {
        relation.columns[2].column.typmod = 14;
    });
    let (mut manifest, relation) = fitting();
    manifest.slices[0].columns[2].typmod = 24;
    matched(&manifest, &relation);
}

#[test]
fn a_column_that_the_replica_generates_is_refused() {
    refused("column \"name\" is generated on the replica, but published by the feed", |_, relation| {
        relation.columns[2].generated = true;
    });
}

#[test]
fn extra_columns_of_the_replica_must_be_able_to_fill_themselves() {
    let extra = |nullable: bool, has_default: bool, generated: bool| {
        let mut extra = own("extra", "text");
        (extra.column.nullable, extra.has_default, extra.generated) = (nullable, has_default, generated);
        extra
    };
    refused(
        "column \"extra\" is NOT NULL on the replica, has no default, and the feed does not carry it; \
         mend it: alter table \"public\".\"messages\" alter column \"extra\" drop not null",
        |_, relation| relation.columns.push(extra(false, false, false)),
    );
    for (column, others) in [
        (extra(true, false, false), OtherColumns::Some),
        (extra(false, true, false), OtherColumns::Some),
        (extra(false, false, true), OtherColumns::Generated),
    ] {
        let (manifest, mut relation) = fitting();
        relation.columns.push(column);
        assert_eq!(matched(&manifest, &relation).other_columns, others);
    }
}

#[test]
fn bounds_of_another_day_or_of_no_day_are_refused() {
    for (from, to) in [
        ("2024-04-30", "2024-05-02"),
        ("2024-05-01", "2024-05-03"),
        ("-infinity", "infinity"),
        ("2024-05-01", "' or true --"),
    ] {
        refused("the bounds of \"at\" are not those of the window of 2024-05-01", |slice, _| {
            let time = slice.time.as_mut().expect("a time slice");
            (time.from, time.to) = (from.into(), to.into());
        });
    }
}

#[test]
fn a_time_column_that_is_not_carried_is_refused() {
    refused("the feed does not carry its time column \"ghost\"", |slice, _| {
        slice.time.as_mut().expect("a time slice").column = "ghost".into();
    });
}

#[test]
fn views_and_foreign_tables_of_the_replica_are_refused() {
    for kind in [RelKind::View, RelKind::MaterializedView, RelKind::ForeignTable] {
        refused("is not a table on the replica", |_, relation| relation.kind = kind);
    }
    let (manifest, mut relation) = fitting();
    relation.kind = RelKind::Partitioned;
    matched(&manifest, &relation);
}

#[test]
fn the_key_is_the_feeds_if_the_replica_has_it_else_the_replicas_first_that_is_carried() {
    let key = |keys: &[&[&str]]| {
        let (mut manifest, mut relation) = fitting();
        manifest.slices[0].key = names(&["id", "at"]);
        relation.keys = keys.iter().map(|columns| self::key(columns)).collect();
        catalog::names(&matched(&manifest, &relation).key)
    };
    assert_eq!(key(&[&["name"], &["at", "id"]]), ["at", "id"], "in the replica's order");
    assert_eq!(key(&[&["extra"], &["name"], &["id"]]), ["name"]);
    assert!(key(&[&["extra"], &["id", "extra"]]).is_empty());
    assert!(key(&[]).is_empty(), "the feed's word makes no key");
}

#[test]
fn a_reference_table_without_a_key_is_refused_and_a_time_table_is_not() {
    for kind in [SliceKind::All, SliceKind::Referenced] {
        refused("a reference table needs a primary key or a unique index", |slice, relation| {
            (slice.kind, slice.time) = (kind, None);
            relation.keys.clear();
        });
    }
    let (manifest, mut relation) = fitting();
    relation.keys.clear();
    assert!(matched(&manifest, &relation).key.is_empty());
}

#[test]
fn absence_proves_nothing_for_filtered_slices_and_reference_tables() {
    let (mut manifest, relation) = fitting();
    manifest.slices[0].filtered = true;
    assert_eq!(matched(&manifest, &relation).absence, Absence::Unknown);
    for kind in [SliceKind::All, SliceKind::Referenced] {
        let (mut manifest, relation) = fitting();
        (manifest.slices[0].kind, manifest.slices[0].time) = (kind, None);
        assert_eq!(matched(&manifest, &relation).absence, Absence::Unknown, "{kind:?}");
    }
}

#[test]
fn identities_that_an_update_cannot_change_are_known_unless_they_are_the_key() {
    let (manifest, mut relation) = fitting();
    relation.columns[0].identity_always = true;
    assert!(matched(&manifest, &relation).fixed.is_empty());
    relation.keys = vec![key(&["name"])];
    assert_eq!(matched(&manifest, &relation).fixed, ["id"]);
}

#[test]
fn nullability_is_the_replicas_own_business() {
    let (mut manifest, mut relation) = fitting();
    manifest.slices[0].columns[2].nullable = false;
    relation.columns[0].column.nullable = false;
    matched(&manifest, &relation);
}
