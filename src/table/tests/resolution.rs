//! Tables of the config found, or not, in the catalogs.

use super::*;

#[test]
fn a_table_that_is_not_there_is_named_and_so_are_all_other_problems() {
    let (first, found) = messages();
    let second = config("ghost", RowsRule::All);
    let third = TableConfig { rows: Some(time("when")), ..config("messages2", RowsRule::All) };
    let other = relation("messages2", vec![column("id", "int4")], &[]);
    let problems = resolve(&[first, second, third], &[other, found]).expect_err("two problems");
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "table public.ghost: is not in the source database, or its schema is not visible to this user",
            "table public.messages2: has no column \"when\"",
        ]
    );
}

#[test]
fn tables_of_other_schemas_and_other_cases_are_other_tables() {
    for (schema, name) in [("Public", "messages"), ("public", "Messages"), ("archive", "messages")] {
        let (config, mut found) = messages();
        found.schema = schema.into();
        found.name = name.into();
        refused((config, found), "is not in the source database, or its schema is not visible to this user");
    }
}

#[test]
fn tables_come_in_the_order_of_the_config() {
    let table = |name: &str| relation(name, vec![column("id", "int4")], &[]);
    let tables = ["b", "a", "c"].map(|name| config(name, RowsRule::All));
    let resolved = resolve(&tables, &[table("a"), table("b"), table("c")]).expect("no problem");
    assert_eq!(resolved.iter().map(|table| table.relation.name.as_str()).collect::<Vec<_>>(), ["b", "a", "c"]);
}

#[test]
fn a_table_without_a_rule_for_its_rows_is_refused() {
    let (config, found) = messages();
    let config = TableConfig { rows: None, ..config };
    refused((config, found), "needs time-column, or rows = \"all\" or \"referenced\"");
}

#[test]
fn views_and_foreign_tables_are_published_only_when_the_config_says_so() {
    for (kind, relation, problem) in [
        (RelKind::View, RelationKind::View, "is a view: state relation = \"view\" if"),
        (
            RelKind::MaterializedView,
            RelationKind::MaterializedView,
            "is a materialized view: state relation = \"materialized-view\" if",
        ),
        (
            RelKind::ForeignTable,
            RelationKind::ForeignTable,
            "is a foreign table: state relation = \"foreign-table\" if",
        ),
    ] {
        let (config, mut found) = messages();
        found.kind = kind;
        refused((config.clone(), found.clone()), &format!("{problem} that is what you mean to publish"));
        let table = resolved((TableConfig { relation, ..config }, found));
        assert!(select(&table, &[]).contains("from \"public\".\"messages\" where"), "never ONLY");
        assert_eq!(table.lockable().is_some(), kind == RelKind::View, "{kind:?}");
    }
    let (config, found) = messages();
    let config = TableConfig { relation: RelationKind::View, ..config };
    refused((config, found), "is a table: state relation = \"table\" if that is what you mean to publish");
}

#[test]
fn what_is_not_a_table_of_its_own_may_hold_null_times_whatever_it_declares() {
    for (kind, relation) in [
        (RelKind::View, RelationKind::View),
        (RelKind::MaterializedView, RelationKind::MaterializedView),
        (RelKind::ForeignTable, RelationKind::ForeignTable),
    ] {
        let (config, mut found) = messages();
        found.kind = kind;
        let table = resolved((TableConfig { relation, ..config }, found));
        let SourceRows::Time { outside_time, .. } = table.rows else { panic!("{:?}", table.rows) };
        assert_eq!(outside_time, OutsideTime::NullOrInfinite, "{kind:?}");
    }
}

#[test]
fn inheritance_is_refused_unless_stated() {
    let (config, mut found) = messages();
    found.children = names(&["public.a", "public.b"]);
    found.child_schemas = names(&["public"]);
    refused(
        (config.clone(), found.clone()),
        "has tables that inherit from it (public.a, public.b): state inheritance = \"only\" for its own rows, \
         or \"include\" for theirs too",
    );
    for (inheritance, from) in
        [(Inheritance::Only, "from only \"public\"."), (Inheritance::Include, "from \"public\".")]
    {
        let table = resolved((TableConfig { inheritance, ..config.clone() }, found.clone()));
        assert!(select(&table, &[]).contains(from), "{inheritance:?}");
    }
}

#[test]
fn chunks_of_a_hypertable_are_its_own_rows_and_other_children_are_not() {
    let (config, mut found) = messages();
    found.children = names(&["_timescaledb_internal._hyper_1_1_chunk"]);
    found.child_schemas = names(&["_timescaledb_internal"]);
    let table = resolved((config.clone(), found.clone()));
    assert!(select(&table, &[]).contains("from \"public\".\"messages\" where"), "ONLY would read no row");
    found.children.push("public.stray".into());
    found.child_schemas.push("public".into());
    let problems = resolve(&[config], &[found]).expect_err("a stray child");
    assert!(problems[0].problem.contains("public.stray"), "{problems:?}");
}

#[test]
fn partitions_are_read_through_their_parent() {
    let (config, mut found) = messages();
    found.kind = RelKind::Partitioned;
    let table = resolved((config, found));
    assert!(select(&table, &[]).contains("from \"public\".\"messages\" where"));
    assert_eq!(table.lockable().as_deref(), Some("\"public\".\"messages\""));
}
