use std::collections::BTreeMap;

use super::*;
use crate::manifest::{Attribute, MadeOf, State, TimeKind, TypeName};
use crate::pg::catalog::{self, CatalogColumn, IndexRole, KeyColumn, UniqueIndex};
use crate::retention::fixtures;

fn column(name: &str, type_name: &str) -> Column {
    Column {
        name: name.into(),
        type_schema: "pg_catalog".into(),
        type_name: type_name.into(),
        typmod: -1,
        nullable: true,
        made_of: MadeOf::default(),
    }
}

fn own(name: &str, type_name: &str) -> CatalogColumn {
    CatalogColumn {
        column: column(name, type_name),
        type_text: spelled(type_name).into(),
        ground: None,
        generated: false,
        identity_always: false,
        has_default: false,
    }
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
        unique_indexes: vec![UniqueIndex {
            name: "messages_pkey".into(),
            role: IndexRole::Primary,
            columns: key(&["id"]),
            foreign_keys: Vec::new(),
        }],
        own_equality: BTreeMap::new(),
    };
    (manifest, relation)
}

/// A type as PostgreSQL writes it.
fn spelled(type_name: &str) -> &str {
    match type_name {
        "int2" => "smallint",
        "int4" => "integer",
        "int8" => "bigint",
        "varchar" => "character varying",
        other => other,
    }
}

/// What is judged by: all that there is to know of the types of `slices`, of which the last is the newest.
struct Judgement {
    rename: BTreeMap<String, String>,
    natural_key: Vec<String>,
    new_columns: NewColumns,
    held: Names,
    other_slices: Vec<Slice>,
}

const BY_DEFAULT: Judgement = Judgement {
    rename: BTreeMap::new(),
    natural_key: Vec::new(),
    new_columns: NewColumns::Refuse,
    held: Names { columns: Vec::new(), key: Vec::new(), left_out: Vec::new() },
    other_slices: Vec::new(),
};

impl Judgement {
    fn target(&self, manifest: &Manifest, relation: &Relation) -> Result<Target, Misfit> {
        let mut slices = vec![manifest.slices[0].clone()];
        slices.extend(self.other_slices.clone());
        let of_type = |name: TypeName| {
            let modifier = if name.typmod == -1 { String::new() } else { format!("({})", name.typmod - 4) };
            let text = format!("{}{modifier}", spelled(&name.type_name));
            (name, text)
        };
        let made_of = slices.iter().flat_map(|slice| &slice.columns).flat_map(|column| {
            let attributes = column.made_of.attributes.iter().map(|attribute| attribute.of.clone());
            attributes.chain(column.made_of.base.clone()).chain([column.type_of()])
        });
        let spelling = Spelling(made_of.filter(|name| name.type_schema != "mine").map(of_type).collect());
        let manifests: Vec<Manifest> =
            slices.into_iter().map(|slice| Manifest { slices: vec![slice], ..manifest.clone() }).collect();
        let table = crate::config::TableConfig { rename: self.rename.clone(), ..table_config() };
        let span = crate::catchup::judge::span(&manifests.iter().collect::<Vec<_>>(), &table);
        let terms = Terms {
            rename: &self.rename,
            natural_key: &self.natural_key,
            new_columns: self.new_columns,
            spelling: &spelling,
            span: &span,
            held: self.held.clone(),
        };
        target(&manifest.slices[0], relation, manifest, &terms)
    }
}

fn table_config() -> crate::config::TableConfig {
    let (slice, text) = (fitting().0.slices.remove(0), "dataset = \"d\"\n[[table]]\nname = \"messages\"\n");
    let mut config = crate::config::parse(text, std::path::Path::new("t.toml")).expect("a configuration");
    assert_eq!(slice.qualified_name(), "public.messages");
    config.tables.remove(0)
}

fn told(misfit: &Misfit) -> Vec<String> {
    misfit.drifts.iter().map(ToString::to_string).collect()
}

fn matched(manifest: &Manifest, relation: &Relation) -> Target {
    BY_DEFAULT.target(manifest, relation).unwrap_or_else(|misfit| panic!("{misfit:?}"))
}

/// Asserts that what fitted is refused, in these words, once `harm` was done to it.
#[track_caller]
fn refused(words: &str, harm: impl FnOnce(&mut Slice, &mut Relation)) {
    let (mut manifest, mut relation) = fitting();
    harm(&mut manifest.slices[0], &mut relation);
    let told = told(&BY_DEFAULT.target(&manifest, &relation).expect_err("drift"));
    assert!(told.iter().all(|drift| drift.starts_with("public.messages: ")), "{told:#?}");
    assert!(told.iter().any(|drift| drift.contains(words)), "{told:#?}");
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
        "the replica has no column \"name\" (character varying(20)); \
         mend it: alter table \"public\".\"messages\" add column \"name\" character varying(20)",
        |slice, relation| {
            slice.columns[2].typmod = 24;
            relation.columns.truncate(2);
        },
    );
    refused("the replica has no column \"name\"", |_, relation| relation.columns[2].column.name = "Name".into());
    refused("NOT NULL on the source: it may be NULL here", |slice, relation| {
        slice.columns[2].nullable = false;
        relation.columns.truncate(2);
    });
    refused(
        "the replica has no column \"name\" (mine.odd), a type that the replica does not have",
        |slice, relation| {
            let column = &mut slice.columns[2];
            (column.type_schema, column.type_name) = ("mine".into(), "odd".into());
            relation.columns.truncate(2);
        },
    );
}

#[test]
fn all_differences_of_a_table_are_told() {
    let (manifest, mut relation) = fitting();
    relation.columns.remove(0);
    relation.columns[1] = own("name", "date");
    relation.keys.clear();
    let misfit = BY_DEFAULT.target(&manifest, &relation).expect_err("drift");
    assert_eq!(misfit.drifts.len(), 2, "{misfit:#?}");
}

#[test]
fn another_type_is_refused_with_both_named_and_the_statement_that_mends_it() {
    refused(
        "column \"id\" is smallint on the replica and integer in the feed; \
         mend it: alter table \"public\".\"messages\" alter column \"id\" type integer",
        |_, relation| relation.columns[0] = own("id", "int2"),
    );
    refused("alter column \"id\" type integer using \"id\"::text::integer", |_, relation| {
        relation.columns[0] = own("id", "uuid");
    });
    refused("column \"name\" is mine.varchar on the replica and character varying in the feed", |_, relation| {
        relation.columns[2].column.type_schema = "mine".into();
        relation.columns[2].type_text = "mine.varchar".into();
    });
}

#[test]
fn a_wider_column_takes_narrower_values() {
    let (manifest, mut relation) = fitting();
    relation.columns[0] = own("id", "int8");
    relation.columns[2] = own("name", "text");
    matched(&manifest, &relation);
}

#[test]
fn another_modifier_is_refused_unless_the_replica_has_room() {
    let limited = |length: i32| {
        let mut limited = own("name", "varchar");
        limited.column.typmod = length + 4;
        limited.type_text = format!("character varying({length})");
        limited
    };
    refused(
        "is character varying(10) on the replica and character varying(20) in the feed; \
         mend it: alter table \"public\".\"messages\" alter column \"name\" type character varying(20)",
        |slice, relation| {
            slice.columns[2].typmod = 24;
            relation.columns[2] = limited(10);
        },
    );
    refused("is character varying(10) on the replica and character varying in the feed", |_, relation| {
        relation.columns[2] = limited(10);
    });
    for wide in [own("name", "varchar"), limited(30)] {
        let (mut manifest, mut relation) = fitting();
        manifest.slices[0].columns[2].typmod = 24;
        relation.columns[2] = wide;
        matched(&manifest, &relation);
    }
}

#[test]
fn days_that_carry_a_column_in_several_types_ask_for_the_one_that_takes_all() {
    let (manifest, mut relation) = fitting();
    let as_type = |type_name: &str| {
        let mut slice = manifest.slices[0].clone();
        slice.columns[0].type_name = type_name.into();
        slice
    };
    relation.columns[0] = own("id", "int2");
    let asked = |others: &[&str], relation: &Relation| {
        let other_slices = others.iter().map(|type_name| as_type(type_name)).collect();
        Judgement { other_slices, ..BY_DEFAULT }.target(&manifest, relation).map_err(|misfit| told(&misfit).remove(0))
    };
    let refused = asked(&["int8"], &relation).expect_err("a narrow column");
    assert!(refused.ends_with("alter column \"id\" type bigint"), "{refused}");
    let refused = asked(&["uuid"], &relation).expect_err("no common type");
    assert!(refused.ends_with("alter column \"id\" type text"), "{refused}");
    relation.columns[0] = own("id", "text");
    asked(&["uuid"], &relation).expect("text takes all");
    asked(&[], &relation).expect_err("days of one type ask for that type");
}

#[test]
fn a_column_that_no_newer_day_carries_is_left_out_and_any_other_is_not() {
    let (manifest, mut relation) = fitting();
    relation.columns.remove(2);
    let mut newest = manifest.slices[0].clone();
    newest.columns.remove(2);
    let target = Judgement { other_slices: vec![newest], ..BY_DEFAULT }.target(&manifest, &relation).expect("it fits");
    assert_eq!(target.columns, ["id", "at"]);
    assert_eq!(target.left_out, [LeftOut { place: 2, name: "name".into() }]);
    BY_DEFAULT.target(&manifest, &relation).expect_err("the newest day carries it");
}

#[test]
fn a_column_that_the_feed_lets_go_of_is_refused_with_both_ways_out() {
    let (mut manifest, relation) = fitting();
    manifest.slices[0].columns.truncate(2);
    let held =
        |names: &[&str]| Judgement { held: Names { columns: self::names(names), ..Names::default() }, ..BY_DEFAULT };
    let refused = told(&held(&["id", "at", "name"]).target(&manifest, &relation).expect_err("it was carried"));
    for words in ["drop column \"name\"", "rename column \"name\" to \"old_name\""] {
        assert!(refused[0].contains(words), "{refused:?}");
    }
    held(&["id", "at"]).target(&manifest, &relation).expect("it is the replica's own");
}

#[test]
fn a_column_under_a_new_name_is_told_with_how_to_say_so() {
    let (mut manifest, relation) = fitting();
    manifest.slices[0].columns[2].name = "title".into();
    // At first contact nothing is known of what was carried.
    for held in [names(&["id", "at", "name"]), Vec::new()] {
        let held = Judgement { held: Names { columns: held, ..Names::default() }, ..BY_DEFAULT };
        let refused = told(&held.target(&manifest, &relation).expect_err("a new name"));
        assert!(refused[0].contains("rename = { \"name\" = \"title\" }"), "{refused:?}");
    }
}

#[test]
fn renamed_columns_are_matched_under_the_replicas_names() {
    let (mut manifest, relation) = fitting();
    let slice = &mut manifest.slices[0];
    for (column, name) in slice.columns.iter_mut().zip(["number", "day", "title"]) {
        column.name = name.into();
    }
    slice.key = names(&["number"]);
    slice.time.as_mut().expect("a time slice").column = "day".into();
    let pairs = [("number", "id"), ("day", "at"), ("title", "name")];
    let rename = pairs.iter().map(|(feeds, own)| ((*feeds).to_owned(), (*own).to_owned())).collect();
    let judgement = Judgement { rename, ..BY_DEFAULT };
    let target = judgement.target(&manifest, &relation).expect("it fits");
    assert_eq!(target.columns, ["id", "at", "name"]);
    assert_eq!(catalog::names(&target.key), ["id"]);
    assert_eq!(target.time.expect("a time slice").column, "at");
    assert_eq!(target.other_names_of_time, ["day"]);
    judgement.target(&fitting().0, &relation).expect("days from before carry the replica's names");
    manifest.slices[0].columns.push(column("id", "int4"));
    let refused = told(&judgement.target(&manifest, &relation).expect_err("two columns of one name"));
    assert!(refused[0].contains("both \"number\" and \"id\""), "{refused:?}");
}

#[test]
fn columns_are_added_where_that_is_wanted_and_the_replica_has_the_type() {
    let (mut manifest, mut relation) = fitting();
    relation.columns.truncate(2);
    manifest.slices[0].columns[2].nullable = false;
    let adding = Judgement { new_columns: NewColumns::Add, ..BY_DEFAULT };
    let misfit = adding.target(&manifest, &relation).expect_err("it lacks a column");
    assert_eq!(misfit.drifts, []);
    assert_eq!(
        misfit.additions[0].statement,
        "alter table \"public\".\"messages\" add column \"name\" character varying"
    );
    manifest.slices[0].columns[2].type_schema = "mine".into();
    let misfit = adding.target(&manifest, &relation).expect_err("it lacks the type, too");
    assert!(misfit.additions.is_empty() && misfit.drifts.len() == 1, "{misfit:?}");
}

/// A slice and a table with a column of a type of their own, made of these.
fn made_of(own_made: MadeOf, feeds: MadeOf) -> (Manifest, Relation) {
    let (mut manifest, mut relation) = fitting();
    for column in [&mut manifest.slices[0].columns[2], &mut relation.columns[2].column] {
        (column.type_schema, column.type_name) = ("public".into(), "kind".into());
    }
    relation.columns[2].ground = Some("\"public\".\"kind\"".into());
    (relation.columns[2].column.made_of, manifest.slices[0].columns[2].made_of) = (own_made, feeds);
    (manifest, relation)
}

#[test]
fn labels_that_the_replica_lacks_are_told_in_their_place_and_others_do_not_matter() {
    let labels = |labels: &[&str]| MadeOf { labels: names(labels), ..MadeOf::default() };
    let (manifest, relation) = made_of(labels(&["b", "d", "own"]), labels(&["a", "b", "it's", "d"]));
    let refused = told(&BY_DEFAULT.target(&manifest, &relation).expect_err("labels are missing"));
    assert!(refused[0].contains("lacks the labels \"a\", \"it's\""), "{refused:?}");
    assert!(refused[0].contains("alter type \"public\".\"kind\" add value 'a' before 'b'; "), "{refused:?}");
    assert!(refused[0].ends_with("alter type \"public\".\"kind\" add value 'it''s' after 'b'"), "{refused:?}");
    for feeds in [labels(&["d", "b"]), MadeOf::default()] {
        let (manifest, relation) = made_of(labels(&["b", "d", "own"]), feeds);
        matched(&manifest, &relation);
    }
}

#[test]
fn attributes_that_differ_are_told_with_what_makes_them_equal() {
    let attributes = |list: &[(&str, &str)]| {
        let of = |type_name: &str| column("x", type_name).type_of();
        let attribute = |(name, kind): &(&str, &str)| Attribute { name: (*name).into(), of: of(kind) };
        MadeOf { attributes: list.iter().map(attribute).collect(), ..MadeOf::default() }
    };
    let feeds = [("a", "int4"), ("b", "text")];
    for (own, statement) in [
        (&[("a", "int4")][..], "alter type \"public\".\"kind\" add attribute \"b\" text"),
        (&[("a", "int4"), ("b", "text"), ("c", "text")], "alter type \"public\".\"kind\" drop attribute \"c\""),
    ] {
        let (manifest, relation) = made_of(attributes(own), attributes(&feeds));
        let refused = told(&BY_DEFAULT.target(&manifest, &relation).expect_err("attributes differ"));
        assert!(refused[0].ends_with(&format!("mend it: {statement}")), "{refused:?}");
    }
    // PostgreSQL refuses that while a column is of the type.
    let (manifest, relation) = made_of(attributes(&[("a", "int2"), ("b", "text")]), attributes(&feeds));
    let refused = told(&BY_DEFAULT.target(&manifest, &relation).expect_err("another type"));
    assert!(refused[0].contains("create it anew") && !refused[0].contains("mend it"), "{refused:?}");
    let (manifest, relation) = made_of(attributes(&[("b", "text"), ("a", "int4")]), attributes(&feeds));
    let refused = told(&BY_DEFAULT.target(&manifest, &relation).expect_err("their order counts"));
    assert!(!refused[0].contains("mend it"), "no statement orders them anew: {refused:?}");
    let (manifest, relation) = made_of(attributes(&feeds), attributes(&feeds));
    matched(&manifest, &relation);
}

#[test]
fn a_domain_over_another_type_asks_for_what_the_feeds_is_over() {
    let base = |type_name: &str| {
        let name = column("x", type_name).type_of();
        MadeOf { base: Some(name), ..MadeOf::default() }
    };
    let (manifest, mut relation) = made_of(base("int4"), base("int8"));
    relation.columns[2].type_text = "kind".into();
    let refused = told(&BY_DEFAULT.target(&manifest, &relation).expect_err("another base"));
    assert!(refused[0].contains("over bigint in the feed"), "{refused:?}");
    assert!(refused[0].ends_with("alter column \"name\" type bigint"), "{refused:?}");
    relation.columns[2] = own("name", "int8");
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
fn the_key_is_the_feeds_if_the_replica_has_it_else_one_of_the_replicas_that_tells_rows_apart_as_well() {
    let with_held = |held: &[&str], feeds: &[&str], keys: &[&[&str]]| {
        let (mut manifest, mut relation) = fitting();
        manifest.slices[0].key = names(feeds);
        relation.keys = keys.iter().map(|columns| self::key(columns)).collect();
        let judgement = Judgement { held: Names { key: names(held), ..Names::default() }, ..BY_DEFAULT };
        let target = judgement.target(&manifest, &relation);
        target.map(|target| catalog::names(&target.key)).map_err(|misfit| told(&misfit).remove(0))
    };
    let key = |feeds: &[&str], keys: &[&[&str]]| with_held(&[], feeds, keys);
    assert_eq!(
        key(&["id", "at"], &[&["name"], &["at", "id"]]).expect("its own"),
        ["at", "id"],
        "in the replica's order"
    );
    assert_eq!(key(&["id"], &[&["extra"], &["name"], &["at", "id"]]).expect("a finer one"), ["at", "id"]);
    assert_eq!(key(&[], &[&["extra"], &["name"], &["id"]]).expect("any"), ["name"]);
    assert!(key(&["id"], &[&["extra"], &["id", "extra"]]).expect("none that is carried").is_empty());
    assert!(key(&["id"], &[]).expect("the feed's word makes no key").is_empty());
    assert_eq!(key(&["id", "at"], &[&["id"]]).expect("the source may be partitioned"), ["id"]);
    assert_eq!(with_held(&["at", "id"], &["id", "at"], &[&["id"]]).expect("it was so before"), ["id"]);
    key(&["id"], &[&["name"]]).expect_err("a key over other columns");
    let refused = with_held(&["id"], &["id", "at"], &[&["id"]]).expect_err("one row where the feed has two");
    assert!(
        refused.ends_with(
            "mend it: alter table \"public\".\"messages\" drop constraint \"messages_pkey\", \
             add primary key (\"id\", \"at\")"
        ),
        "{refused}"
    );
}

#[test]
fn a_natural_key_needs_a_unique_index_of_the_replica() {
    let by_name = Judgement { natural_key: names(&["name"]), ..BY_DEFAULT };
    let (mut manifest, mut relation) = fitting();
    let refused = told(&by_name.target(&manifest, &relation).expect_err("no index"));
    assert!(refused[0].ends_with("create unique index on \"public\".\"messages\" (\"name\")"), "{refused:?}");
    let (name, role) = ("messages_name".to_owned(), IndexRole::Other);
    relation.unique_indexes.push(UniqueIndex { name, role, columns: key(&["name"]), foreign_keys: Vec::new() });
    assert_eq!(catalog::names(&by_name.target(&manifest, &relation).expect("it fits").natural), ["name"]);
    manifest.slices[0].columns.truncate(2);
    let target = by_name.target(&manifest, &relation).expect("a day without the column");
    assert!(target.natural.is_empty());
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
    let (mut manifest, mut relation) = fitting();
    relation.columns[0].identity_always = true;
    assert!(matched(&manifest, &relation).fixed.is_empty());
    manifest.slices[0].key = names(&["name"]);
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

#[test]
fn names_that_a_terminal_would_obey_are_escaped_and_in_no_statement() {
    let (mut manifest, mut relation) = fitting();
    manifest.slices[0].columns[2].name = "a\u{1b}[2J".into();
    relation.columns.truncate(2);
    let refused = told(&BY_DEFAULT.target(&manifest, &relation).expect_err("a new column")).join("\n");
    assert!(refused.contains("a\\u{1b}[2J") && !refused.contains('\u{1b}'), "{refused:?}");
    assert!(!refused.contains("add column"), "{refused}");
}
