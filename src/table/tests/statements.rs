//! The statements that read a slice.

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
    assert_eq!(table.extent_expressions(), None);
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
    let extent = table.extent_expressions().expect("a time table");
    assert_eq!(
        table.select_expressions(&extent, &[], Zone::UTC, day("2024-05-01"), window),
        "select min(\"at\")::text, max(\"at\")::text from only \"public\".\"messages\" \
         where \"at\" >= '2024-05-01 00:00:00+00'::pg_catalog.timestamptz \
         and \"at\" < '2024-05-02 00:00:00+00'::pg_catalog.timestamptz"
    );
}

#[test]
fn names_are_quoted_whatever_they_are() {
    for name in ["select", "MixedCase", "a b", "x\"; drop table users; --", "\"", "it's", "naïve", "\\", "$1", "%s"] {
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
