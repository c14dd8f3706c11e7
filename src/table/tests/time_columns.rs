//! What kind of time column it is, by its type and by the config.

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
        ("numeric", None, unit, "is of type pg_catalog.numeric: it must be timestamptz, timestamp, date or an integer"),
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
