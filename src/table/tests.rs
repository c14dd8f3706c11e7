use super::*;
use crate::retention::fixtures::{day, instant};
use proptest::prelude::*;

fn column(name: &str, type_name: &str) -> CatalogColumn {
    CatalogColumn {
        column: Column {
            name: name.into(),
            type_schema: "pg_catalog".into(),
            type_name: type_name.into(),
            typmod: -1,
            nullable: false,
        },
        generated: false,
        identity_always: false,
        has_default: false,
    }
}

fn relation(name: &str, columns: Vec<CatalogColumn>, keys: &[&[&str]]) -> Relation {
    Relation {
        oid: 1,
        schema: "public".into(),
        name: name.into(),
        kind: RelKind::Table,
        children: Vec::new(),
        child_schemas: Vec::new(),
        columns,
        keys: keys.iter().map(|key| names(key)).collect(),
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn config(name: &str, rows: RowsRule) -> TableConfig {
    TableConfig {
        schema: "public".into(),
        name: name.into(),
        rows: Some(rows),
        columns: None,
        filter: None,
        key: Vec::new(),
        compression_level: None,
        relation: RelationKind::Table,
        inheritance: Inheritance::Unstated,
    }
}

fn time(column: &str) -> RowsRule {
    RowsRule::Time { column: column.into(), zone: None, epoch_unit: None, null_time: NullTime::Refuse }
}

fn reference(table: &str, columns: &[&str]) -> Reference {
    Reference { schema: "public".into(), table: table.into(), columns: names(columns) }
}

/// A table of messages with a timestamptz.
fn messages() -> (TableConfig, Relation) {
    let columns = vec![column("id", "int4"), column("at", "timestamptz"), column("body", "text")];
    (config("messages", time("at")), relation("messages", columns, &[&["id"]]))
}

fn resolved((config, relation): (TableConfig, Relation)) -> SourceTable {
    match resolve(&[config], &[relation]) {
        Ok(mut tables) => tables.remove(0),
        Err(problems) => panic!("{problems:?}"),
    }
}

#[track_caller]
fn refused((config, relation): (TableConfig, Relation), problem: &str) {
    let problems = resolve(&[config], &[relation]).expect_err("a problem");
    assert_eq!(problems.iter().map(|problem| problem.problem.as_str()).collect::<Vec<_>>(), [problem]);
}

fn select(table: &SourceTable, all: &[SourceTable]) -> String {
    table.select(all, Zone::UTC, day("2024-05-01"), Zone::UTC.window(day("2024-05-01")))
}

mod resolution {
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
}

mod columns {
    use super::*;

    #[test]
    fn generated_columns_are_left_to_the_replica_and_identity_columns_are_published() {
        let (config, mut found) = messages();
        found.columns[0].identity_always = true;
        found.columns.insert(1, CatalogColumn { generated: true, ..column("words", "tsvector") });
        let table = resolved((config, found));
        assert_eq!(table.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "at", "body"]);
        assert_eq!(table.omitted, ["words"]);
    }

    #[test]
    fn a_list_of_columns_keeps_the_order_of_the_table() {
        let (config, found) = messages();
        let config = TableConfig { columns: Some(names(&["at", "id"])), ..config };
        let table = resolved((config, found));
        assert_eq!(table.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "at"]);
        assert_eq!(table.omitted, ["body"]);
    }

    #[test]
    fn a_list_that_names_no_column_or_a_generated_one_is_refused() {
        let (config, mut found) = messages();
        found.columns[2].generated = true;
        let listed = |columns: &[&str]| TableConfig { columns: Some(names(columns)), ..config.clone() };
        refused((listed(&["id", "ID"]), found.clone()), "has no column \"ID\"");
        refused(
            (listed(&["id", "body"]), found),
            "column \"body\" is generated: the replica computes it, so it is not published",
        );
    }

    #[test]
    fn a_table_of_generated_columns_only_is_refused() {
        let found = relation("t", vec![CatalogColumn { generated: true, ..column("a", "int4") }], &[]);
        refused((config("t", RowsRule::All), found.clone()), "has no column that could be published");
        let without = Relation { columns: Vec::new(), ..found };
        refused((config("t", RowsRule::All), without), "has no column that could be published");
    }

    #[test]
    fn the_key_is_the_stated_one_or_the_first_that_is_published_whole() {
        let (config, mut found) = messages();
        found.keys = vec![names(&["id", "at"]), names(&["body"])];
        assert_eq!(resolved((config.clone(), found.clone())).key, ["id", "at"]);
        let narrow = TableConfig { columns: Some(names(&["at", "body"])), ..config.clone() };
        assert_eq!(resolved((narrow.clone(), found.clone())).key, ["body"]);
        let stated = TableConfig { key: names(&["body", "id"]), ..config.clone() };
        assert_eq!(resolved((stated, found.clone())).key, ["body", "id"]);
        let outside = TableConfig { key: names(&["id"]), ..narrow };
        refused((outside, found.clone()), "key column \"id\" is not among its published columns");
        found.keys.clear();
        assert!(resolved((config, found)).key.is_empty());
    }
}

mod time_columns {
    use super::*;

    fn rule(zone: Option<&str>, epoch_unit: Option<EpochUnit>) -> RowsRule {
        RowsRule::Time {
            column: "at".into(),
            zone: zone.map(|zone| zone.parse().expect("a zone")),
            epoch_unit,
            null_time: NullTime::Refuse,
        }
    }

    fn table(type_name: &str, rows: RowsRule) -> (TableConfig, Relation) {
        (config("t", rows), relation("t", vec![column("at", type_name)], &[]))
    }

    #[test]
    fn each_kind_is_told_by_its_type_and_what_the_config_says_of_it() {
        use EpochUnit::{Microseconds, Milliseconds, Seconds};
        for (type_name, zone, unit, expected, outside) in [
            ("timestamptz", None, None, TimeKind::Timestamptz, OutsideTime::Infinite),
            ("timestamp", Some("UTC"), None, TimeKind::Timestamp, OutsideTime::Infinite),
            ("date", None, None, TimeKind::Date, OutsideTime::Infinite),
            ("int2", None, Some(Seconds), TimeKind::EpochSeconds, OutsideTime::None),
            ("int4", None, Some(Seconds), TimeKind::EpochSeconds, OutsideTime::None),
            ("int8", None, Some(Milliseconds), TimeKind::EpochMilliseconds, OutsideTime::None),
            ("int8", None, Some(Microseconds), TimeKind::EpochMicroseconds, OutsideTime::None),
        ] {
            let (config, mut found) = table(type_name, rule(zone, unit));
            let SourceRows::Time { kind, outside_time, .. } = resolved((config.clone(), found.clone())).rows else {
                panic!("{type_name} is no time table")
            };
            assert_eq!((kind, outside_time), (expected, outside), "{type_name}");
            found.columns[0].column.nullable = true;
            let SourceRows::Time { outside_time, .. } = resolved((config, found)).rows else { panic!("no time table") };
            let nullable = if kind.is_epoch() { OutsideTime::Null } else { OutsideTime::NullOrInfinite };
            assert_eq!(outside_time, nullable, "{type_name}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_what_would_mend_it() {
        let unit = Some(EpochUnit::Seconds);
        for (type_name, zone, unit, problem) in [
            ("timestamptz", Some("UTC"), None, "is timestamptz: it needs no column-timezone"),
            ("timestamptz", None, unit, "is no integer: it has no epoch-unit"),
            ("timestamp", None, None, "is timestamp without time zone: state column-timezone"),
            ("timestamp", Some("UTC"), unit, "is no integer: it has no epoch-unit"),
            ("date", Some("UTC"), None, "is a date: it needs no column-timezone"),
            ("date", None, unit, "is no integer: it has no epoch-unit"),
            ("int8", None, None, "is an integer: state epoch-unit"),
            ("text", None, None, "is of type pg_catalog.text: it must be timestamptz, timestamp, date or an integer"),
            (
                "numeric",
                None,
                unit,
                "is of type pg_catalog.numeric: it must be timestamptz, timestamp, date or an integer",
            ),
        ] {
            refused(table(type_name, rule(zone, unit)), &format!("time column \"at\" {problem}"));
        }
    }

    #[test]
    fn a_type_of_the_same_name_in_another_schema_is_another_type() {
        let (config, mut found) = table("timestamptz", rule(None, None));
        found.columns[0].column.type_schema = "mine".into();
        refused(
            (config, found),
            "time column \"at\" is of type mine.timestamptz: it must be timestamptz, timestamp, date or an integer",
        );
    }

    #[test]
    fn a_generated_time_column_is_refused() {
        let (config, mut found) = table("timestamptz", rule(None, None));
        found.columns[0].generated = true;
        found.columns.push(column("id", "int4"));
        refused((config, found), "time column \"at\" is generated: the replica could not tell its rows' days apart");
    }
}

mod statements {
    use super::*;

    #[test]
    fn a_time_slice_is_selected_by_two_plain_comparisons() {
        assert_eq!(
            select(&resolved(messages()), &[]),
            "select \"id\", \"at\", \"body\" from only \"public\".\"messages\" \
             where \"at\" >= '2024-05-01 00:00:00+00'::pg_catalog.timestamptz \
             and \"at\" < '2024-05-02 00:00:00+00'::pg_catalog.timestamptz"
        );
    }

    #[test]
    fn a_whole_table_is_selected_whole() {
        let found = relation("users", vec![column("id", "int4")], &[&["id"]]);
        let table = resolved((config("users", RowsRule::All), found));
        assert_eq!(select(&table, &[]), "select \"id\" from only \"public\".\"users\"");
        let window = Zone::UTC.window(day("2024-05-01"));
        assert_eq!(table.bounds(Zone::UTC, day("2024-05-01"), window), None);
        assert_eq!(table.select_extent(&[], Zone::UTC, day("2024-05-01"), window), None);
        assert_eq!(table.select_outside_time(), None);
    }

    #[test]
    fn the_operators_condition_stands_in_parentheses_that_a_comment_cannot_open() {
        let (config, found) = messages();
        let config = TableConfig { filter: Some("id > 7 or id is null -- all but the first".into()), ..config };
        let table = resolved((config, found));
        assert!(
            select(&table, &[]).ends_with("::pg_catalog.timestamptz and (id > 7 or id is null -- all but the first\n)")
        );
        assert!(table.is_filtered());
    }

    #[test]
    fn leaving_rows_without_a_time_out_leaves_every_window_complete() {
        assert!(!resolved(messages()).is_filtered());
        let (mut config, found) = messages();
        config.rows =
            Some(RowsRule::Time { column: "at".into(), zone: None, epoch_unit: None, null_time: NullTime::Exclude });
        assert!(!resolved((config, found)).is_filtered());
    }

    #[test]
    fn rows_outside_time_are_counted_where_there_can_be_any() {
        let (config, mut found) = messages();
        assert_eq!(
            resolved((config.clone(), found.clone())).select_outside_time().as_deref(),
            Some("select count(*)::text from only \"public\".\"messages\" where \"at\" in ('infinity', '-infinity')")
        );
        found.columns[1].column.nullable = true;
        let filtered = TableConfig { filter: Some("true".into()), ..config };
        assert_eq!(
            resolved((filtered, found)).select_outside_time().as_deref(),
            Some(
                "select count(*)::text from only \"public\".\"messages\" \
                 where (\"at\" is null or \"at\" in ('infinity', '-infinity')) and (true\n)"
            )
        );
    }

    #[test]
    fn the_extent_is_taken_over_the_same_rows() {
        let table = resolved(messages());
        let window = Zone::UTC.window(day("2024-05-01"));
        assert_eq!(
            table.select_extent(&[], Zone::UTC, day("2024-05-01"), window).as_deref(),
            Some(
                "select min(\"at\")::text, max(\"at\")::text from only \"public\".\"messages\" \
                 where \"at\" >= '2024-05-01 00:00:00+00'::pg_catalog.timestamptz \
                 and \"at\" < '2024-05-02 00:00:00+00'::pg_catalog.timestamptz"
            )
        );
    }

    #[test]
    fn names_are_quoted_whatever_they_are() {
        for name in ["select", "MixedCase", "a b", "x\"; drop table users; --", "\"", "it's", "naïve", "\\", "$1", "%s"]
        {
            let quoted = format!("\"{}\"", name.replace('"', "\"\""));
            let found = Relation {
                schema: name.into(),
                ..relation(name, vec![column(name, "date"), column("id", "int4")], &[&["id"]])
            };
            let config = TableConfig { schema: name.into(), ..config(name, time(name)) };
            let table = resolved((config, found));
            assert_eq!(
                select(&table, &[]),
                format!(
                    "select {quoted}, \"id\" from only {quoted}.{quoted} \
                     where {quoted} >= '2024-05-01'::pg_catalog.date and {quoted} < '2024-05-02'::pg_catalog.date"
                )
            );
            assert_eq!(table.lockable(), Some(format!("{quoted}.{quoted}")));
        }
    }
}

mod references {
    use super::*;

    fn dataset(tables: &[(TableConfig, Relation)]) -> Result<Vec<SourceTable>, Vec<TableProblem>> {
        let (configs, relations): (Vec<_>, Vec<_>) = tables.iter().cloned().unzip();
        resolve(&configs, &relations)
    }

    fn referenced(name: &str, key: &[&str], by: Vec<Reference>) -> (TableConfig, Relation) {
        let columns = key.iter().chain(&["parent"]).map(|name| column(name, "int4")).collect();
        let config = TableConfig { key: names(key), ..config(name, RowsRule::Referenced(by)) };
        (config, relation(name, columns, &[key]))
    }

    fn links() -> (TableConfig, Relation) {
        let columns = vec![column("user_id", "int4"), column("realm", "int4"), column("at", "date")];
        (config("links", time("at")), relation("links", columns, &[]))
    }

    const LINKS: &str = "from only \"public\".\"links\" \
                         where \"at\" >= '2024-05-01'::pg_catalog.date and \"at\" < '2024-05-02'::pg_catalog.date";

    #[test]
    fn rows_are_those_that_the_days_slices_point_to() {
        let users = referenced("users", &["id"], vec![reference("links", &["user_id"])]);
        let all = dataset(&[links(), users]).expect("no problem");
        assert_eq!(
            select(&all[1], &all),
            format!(
                "select \"id\", \"parent\" from only \"public\".\"users\" where (\"id\") in (select \"user_id\" {LINKS})"
            )
        );
        assert_eq!(all[1].kind(), SliceKind::Referenced);
    }

    #[test]
    fn composite_keys_and_several_references_are_compared_as_rows() {
        let by = vec![reference("links", &["realm", "user_id"]), reference("links", &["user_id", "realm"])];
        let all = dataset(&[links(), referenced("users", &["realm", "id"], by)]).expect("no problem");
        assert!(
            select(&all[1], &all).ends_with(&format!(
                "where (\"realm\", \"id\") in (select \"realm\", \"user_id\" {LINKS} \
                 union all select \"user_id\", \"realm\" {LINKS})"
            )),
            "{}",
            select(&all[1], &all)
        );
    }

    #[test]
    fn a_reference_to_a_reference_selects_through_both_and_keeps_their_conditions() {
        let mut users = referenced("users", &["id"], vec![reference("links", &["user_id"])]);
        users.0.filter = Some("id <> 3".into());
        let groups = referenced("groups", &["id"], vec![reference("users", &["parent"])]);
        // The order of the config does not matter.
        let all = dataset(&[groups, links(), users]).expect("no problem");
        assert_eq!(
            select(&all[0], &all),
            format!(
                "select \"id\", \"parent\" from only \"public\".\"groups\" where (\"id\") in \
                 (select \"parent\" from only \"public\".\"users\" where (\"id\") in (select \"user_id\" {LINKS}) \
                 and (id <> 3\n))"
            )
        );
    }

    #[test]
    fn references_that_do_not_fit_are_refused() {
        let problem = |by: Reference| {
            let problems = dataset(&[links(), referenced("users", &["id"], vec![by])]).expect_err("a problem");
            assert_eq!(problems.len(), 1);
            problems[0].to_string()
        };
        assert_eq!(
            problem(reference("links", &["ghost"])),
            "table public.users: referenced-by: public.links has no column \"ghost\""
        );
        assert_eq!(
            problem(reference("links", &["user_id", "realm"])),
            "table public.users: referenced-by names 2 columns for a key of 1"
        );
    }

    #[test]
    fn a_reference_from_a_table_with_a_problem_of_its_own_adds_no_other() {
        let users = referenced("users", &["id"], vec![reference("links", &["user_id"])]);
        let mut broken = links();
        broken.1.columns.clear();
        let problems = dataset(&[broken, users]).expect_err("one problem");
        assert_eq!(problems.iter().map(|problem| problem.table.as_str()).collect::<Vec<_>>(), ["public.links"]);
    }
}

mod bounds {
    use super::*;

    const KINDS: [TimeKind; 6] = [
        TimeKind::Timestamptz,
        TimeKind::Timestamp,
        TimeKind::Date,
        TimeKind::EpochSeconds,
        TimeKind::EpochMilliseconds,
        TimeKind::EpochMicroseconds,
    ];

    fn zone(name: &str) -> Zone {
        name.parse().expect("a zone")
    }

    fn of(kind: TimeKind, column_zone: Option<&str>, dataset: &str, text: &str) -> (String, String) {
        let (dataset, day) = (zone(dataset), day(text));
        let bounds = TimeBounds::of("at", kind, column_zone.map(zone), dataset, day, dataset.window(day));
        (bounds.from, bounds.to)
    }

    fn pair(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn each_kind_is_bounded_by_its_own_values() {
        let paris = "Europe/Paris";
        for (kind, expected) in [
            (TimeKind::Timestamptz, pair("2024-03-30 23:00:00+00", "2024-03-31 22:00:00+00")),
            (TimeKind::Timestamp, pair("2024-03-31 00:00:00", "2024-04-01 00:00:00")),
            (TimeKind::Date, pair("2024-03-31", "2024-04-01")),
            (TimeKind::EpochSeconds, pair("1711839600", "1711922400")),
            (TimeKind::EpochMilliseconds, pair("1711839600000", "1711922400000")),
            (TimeKind::EpochMicroseconds, pair("1711839600000000", "1711922400000000")),
        ] {
            assert_eq!(of(kind, None, paris, "2024-03-31"), expected, "{kind:?}");
        }
        assert_eq!(of(TimeKind::EpochSeconds, None, "UTC", "1969-12-31"), pair("-86400", "0"));
    }

    #[test]
    fn a_timestamp_in_another_zone_is_bounded_by_that_zones_clocks() {
        let of = |column: &str, text: &str| of(TimeKind::Timestamp, Some(column), "Europe/Paris", text);
        assert_eq!(of("UTC", "2024-03-31"), pair("2024-03-30 23:00:00", "2024-03-31 22:00:00"));
        assert_eq!(of("Asia/Kolkata", "2024-05-01"), pair("2024-05-01 03:30:00", "2024-05-02 03:30:00"));
    }

    #[test]
    fn a_timestamp_in_the_datasets_zone_is_bounded_by_midnights_also_where_clocks_show_none_or_two() {
        let own = |name: &str, text: &str| of(TimeKind::Timestamp, Some(name), name, text);
        assert_eq!(own("Africa/Cairo", "2024-04-26"), pair("2024-04-26 00:00:00", "2024-04-27 00:00:00"));
        assert_eq!(own("America/Havana", "2024-11-03"), pair("2024-11-03 00:00:00", "2024-11-04 00:00:00"));
    }

    #[test]
    fn a_predicate_compares_the_column_itself_so_that_an_index_serves_it() {
        let window = Zone::UTC.window(day("2024-05-01"));
        let bounds = TimeBounds::of("o\"clock", TimeKind::EpochSeconds, None, Zone::UTC, day("2024-05-01"), window);
        assert_eq!(
            bounds.predicate_of("present"),
            "present.\"o\"\"clock\" >= '1714521600'::pg_catalog.int8 \
             and present.\"o\"\"clock\" < '1714608000'::pg_catalog.int8"
        );
        assert_eq!(bounds.before(""), "\"o\"\"clock\" < '1714521600'::pg_catalog.int8");
        assert_eq!(bounds.predicate(), bounds.predicate_of("present").replace("present.", ""));
    }

    #[test]
    fn a_bound_that_tries_to_end_its_literal_stays_a_literal() {
        let bounds = TimeBounds {
            column: "at".into(),
            kind: TimeKind::Timestamptz,
            zone: None,
            from: "'; drop table users; --".into(),
            to: "\\'; drop table users; --".into(),
        };
        assert_eq!(
            bounds.predicate(),
            "\"at\" >= '''; drop table users; --'::pg_catalog.timestamptz \
             and \"at\" < E'\\\\''; drop table users; --'::pg_catalog.timestamptz"
        );
    }

    #[test]
    fn hostile_bounds_do_not_fit() {
        let (of_day, window) = (day("2024-05-01"), Zone::UTC.window(day("2024-05-01")));
        for kind in KINDS {
            let zone = (kind == TimeKind::Timestamp).then_some(Zone::UTC);
            let honest = TimeBounds::of("at", kind, zone, Zone::UTC, of_day, window);
            assert!(honest.fit(of_day, window), "{kind:?}");
            let earlier =
                TimeBounds::of("at", kind, zone, Zone::UTC, of_day.previous(), Zone::UTC.window(of_day.previous()));
            let later = TimeBounds::of("at", kind, zone, Zone::UTC, of_day.next(), Zone::UTC.window(of_day.next()));
            let texts = [
                "",
                "infinity",
                "-infinity",
                "now",
                "epoch",
                "today",
                "0",
                "-9223372036854775808",
                "9223372036854775807",
                "99999999999999999999",
                "2024-05-01 00:00:00 BC",
                "2024-05-01 00:00:00+24",
                "0001-01-01",
                "9999-12-31 00:00:00",
                "' or true --",
                "2024-05-01' or true --",
                &earlier.from,
                &later.to,
                &format!(" {}", honest.from),
                &format!("{} ", honest.to),
                &format!("+{}", honest.from),
            ];
            for text in texts {
                let from = TimeBounds { from: text.to_owned(), ..honest.clone() };
                assert!(!from.fit(of_day, window), "{kind:?} from {text:?}");
                let to = TimeBounds { to: text.to_owned(), ..honest.clone() };
                assert!(!to.fit(of_day, window), "{kind:?} to {text:?}");
            }
            assert!(!earlier.fit(of_day, window) && !later.fit(of_day, window), "{kind:?}");
            assert!(!honest.fit(of_day.next(), Zone::UTC.window(of_day.next())), "{kind:?}");
            let swapped = TimeBounds { from: honest.to.clone(), to: honest.from.clone(), ..honest.clone() };
            assert!(!swapped.fit(of_day, window), "{kind:?}");
        }
    }

    #[test]
    fn texts_that_postgresql_and_a_lenient_reader_could_read_differently_do_not_fit() {
        let (of_day, window) = (day("2024-05-01"), Zone::UTC.window(day("2024-05-01")));
        for (kind, text) in [
            (TimeKind::Timestamp, "2024-5-1 0:0:0"),
            (TimeKind::Timestamp, "2024-05-0100:00:00"),
            (TimeKind::Timestamp, "2024-05-01\n00:00:00"),
            (TimeKind::Timestamptz, "2024-05-01 00:00:00"),
            (TimeKind::Timestamptz, "2024-05-01 02:00:00+02"),
            (TimeKind::Date, "2024-5-1"),
            (TimeKind::EpochSeconds, "01714521600"),
        ] {
            let honest = TimeBounds::of("at", kind, None, Zone::UTC, of_day, window);
            assert!(!TimeBounds { from: text.into(), ..honest }.fit(of_day, window), "{text:?}");
        }
    }

    fn any_zone() -> impl Strategy<Value = Zone> {
        proptest::sample::select(vec![
            "UTC",
            "Europe/Paris",
            "Africa/Cairo",
            "America/Havana",
            "America/Santiago",
            "Asia/Beirut",
            "Asia/Kolkata",
            "Pacific/Apia",
            "Pacific/Chatham",
            "Pacific/Kiritimati",
            "Etc/GMT+12",
        ])
        .prop_map(zone)
    }

    proptest! {
        #[test]
        fn bounds_of_neighbours_abut_and_fit_their_own_day_only(
            dataset in any_zone(),
            column_zone in proptest::option::of(any_zone()),
            kind in proptest::sample::select(KINDS.to_vec()),
            offset in 0..40_000_u64,
        ) {
            let column_zone = column_zone.filter(|_| kind == TimeKind::Timestamp);
            let day = Day::EPOCH.plus(offset);
            let of = |day: Day| TimeBounds::of("at", kind, column_zone, dataset, day, dataset.window(day));
            let (own, next) = (of(day), of(day.next()));
            prop_assert_eq!(&own.to, &next.from);
            prop_assert!(own.fit(day, dataset.window(day)), "{:?}", own);
            if kind != TimeKind::Timestamp {
                let far = day.plus(2);
                prop_assert!(!own.fit(far, dataset.window(far)), "{:?}", own);
            }
        }

        #[test]
        fn no_text_makes_a_predicate_with_more_than_one_literal_per_bound(from in ".*", to in ".*", column in ".*") {
            let bounds = TimeBounds { column, kind: TimeKind::Date, zone: None, from, to };
            let mut rest = bounds.predicate();
            for quoted in [quote_identifier(&bounds.column), quote_literal(&bounds.from), quote_literal(&bounds.to)] {
                let place = rest.find(&quoted);
                prop_assert!(place.is_some(), "{} in {}", quoted, rest);
                rest = rest[place.unwrap_or_default() + quoted.len()..].to_owned();
            }
            let window = Zone::UTC.window(day("2024-05-01"));
            let honest = bounds.from == "2024-05-01" && bounds.to == "2024-05-02";
            prop_assert_eq!(bounds.fit(day("2024-05-01"), window), honest);
        }
    }

    #[test]
    fn the_window_of_a_hostile_manifest_far_from_any_clock_does_not_panic() {
        let far = Window { start: chrono::DateTime::<Utc>::MIN_UTC, end: chrono::DateTime::<Utc>::MAX_UTC };
        for kind in KINDS {
            let honest =
                TimeBounds::of("at", kind, None, Zone::UTC, day("2024-05-01"), Zone::UTC.window(day("2024-05-01")));
            assert!(kind == TimeKind::Date || !honest.fit(day("2024-05-01"), far), "{kind:?}");
        }
        assert!(!is_wall_clock(midnight(day("2024-05-01")), instant("2024-05-03T00:00:00Z")));
    }
}
