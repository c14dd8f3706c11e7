use super::*;
use crate::day::Zone;

const TABLE: u32 = 1;

fn day() -> Day {
    "2024-05-01".parse().expect("a day")
}

fn time(kind: TimeKind) -> TimeBounds {
    TimeBounds::of("at", kind, None, Zone::UTC, day(), Zone::UTC.window(day()))
}

fn partition(oid: u32, bound: &str) -> Partition {
    Partition { oid, name: format!("\"p{oid}\""), level: Level::Leaf, bound: bound.into() }
}

fn tree(strategy: Strategy, bounds: &[&str]) -> Tree {
    let oids = 10..;
    Tree {
        schema: "public".into(),
        name: "notes".into(),
        strategy,
        key_definition: "RANGE (at)".into(),
        access_method: None,
        tablespace: None,
        partitions: oids.zip(bounds).map(|(oid, bound)| partition(oid, bound)).collect(),
    }
}

fn by_time(bounds: &[&str]) -> Trees {
    Trees::from([(TABLE, tree(Strategy::RangesOf("at".into()), bounds))])
}

fn found(trees: &Trees, kind: TimeKind) -> Home {
    home(trees, TABLE, day(), &time(kind), (None, None))
}

const MAY: &str = "FOR VALUES FROM ('2024-05-01 00:00:00+00') TO ('2024-06-01 00:00:00+00')";
const MORNING: &str = "FOR VALUES FROM ('2024-04-30 00:00:00+00') TO ('2024-05-01 12:00:00+00')";
const EVENING: &str = "FOR VALUES FROM ('2024-05-01 12:00:00+00') TO (MAXVALUE)";

#[test]
fn one_partition_or_several_take_a_window() {
    for bounds in [&[MAY][..], &[EVENING, MORNING], &["FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"]] {
        assert_eq!(found(&by_time(bounds), TimeKind::Timestamptz), Home::Found, "{bounds:?}");
    }
}

#[test]
fn a_window_without_a_partition_is_missing_as_a_whole_or_in_part() {
    let Home::None(missing) = found(&by_time(&[]), TimeKind::Timestamptz) else { panic!("it is missing") };
    assert_eq!(missing.extent, Extent::Whole);
    assert_eq!(missing.ranges, [("'2024-05-01 00:00:00+00'".to_owned(), "'2024-05-02 00:00:00+00'".to_owned())]);
    let Home::None(missing) = found(&by_time(&[MORNING]), TimeKind::Timestamptz) else { panic!("a half is missing") };
    assert_eq!(missing.ranges, [("'2024-05-01 12:00:00+00'".to_owned(), "'2024-05-02 00:00:00+00'".to_owned())]);
    assert_eq!(missing.extent, Extent::Part(vec![format!("\"p10\" {MORNING}")]));
}

#[test]
fn a_default_partition_is_told_apart() {
    let Home::Default(missing) = found(&by_time(&["DEFAULT"]), TimeKind::Timestamptz) else { panic!("the default") };
    assert_eq!((missing.default.as_deref(), missing.extent), (Some("\"p10\""), Extent::Whole));
    assert_eq!(found(&by_time(&["DEFAULT", MAY]), TimeKind::Timestamptz), Home::Found);
}

#[test]
fn only_where_there_are_rows_a_partition_is_needed() {
    let trees = by_time(&[MORNING]);
    let extent = |first, last| home(&trees, TABLE, day(), &time(TimeKind::Timestamptz), (Some(first), Some(last)));
    assert_eq!(extent("2024-05-01 00:00:00+00", "2024-05-01 11:59:59.999999+00"), Home::Found);
    assert!(matches!(extent("2024-05-01 00:00:00+00", "2024-05-01 12:00:00+00"), Home::None(_)));
    assert!(matches!(extent("nonsense", "2099-01-01 00:00:00+00"), Home::None(_)), "a lie makes nothing narrower");
}

#[test]
fn every_kind_of_time_has_its_bounds() {
    for (kind, bound) in [
        (TimeKind::Timestamp, "FOR VALUES FROM ('2024-05-01 00:00:00') TO ('2024-05-02 00:00:00')"),
        (TimeKind::Date, "FOR VALUES FROM ('2024-05-01') TO ('2024-05-02')"),
        (TimeKind::EpochSeconds, "FOR VALUES FROM (1714521600) TO (1714608000)"),
        (TimeKind::EpochMilliseconds, "FOR VALUES FROM ('1714521600000') TO ('1714608000000')"),
    ] {
        assert_eq!(found(&by_time(&[bound]), kind), Home::Found, "{kind:?}");
        let Home::None(missing) = found(&by_time(&[]), kind) else { panic!("{kind:?} is missing") };
        let (from, to) = &missing.ranges[0];
        let made = format!("FOR VALUES FROM ({from}) TO ({to})");
        assert_eq!(found(&by_time(&[&made]), kind), Home::Found, "{made}");
    }
}

#[test]
fn what_lies_below_a_partition_is_judged_too() {
    let mut trees = by_time(&[MAY]);
    let half = "FOR VALUES FROM ('2024-05-01 00:00:00+00') TO ('2024-05-01 12:00:00+00')";
    trees.insert(10, Tree { name: "may".into(), ..tree(Strategy::RangesOf("at".into()), &[half]) });
    assert!(matches!(found(&trees, TimeKind::Timestamptz), Home::None(missing) if missing.parent == 10));
    trees.insert(10, Tree { name: "may".into(), key_definition: "LIST (topic)".into(), ..tree(Strategy::Other, &[]) });
    let Home::Unclear(words) = found(&trees, TimeKind::Timestamptz) else { panic!("nothing takes a row") };
    assert_eq!(words, "\"public\".\"may\" is partitioned by LIST (topic) and has no partition at all");
    trees.insert(10, tree(Strategy::Other, &["FOR VALUES IN ('a')"]));
    assert_eq!(found(&trees, TimeKind::Timestamptz), Home::Found, "the rows decide");
}

#[test]
fn a_level_that_is_partitioned_further_is_not_guessed() {
    let mut trees = by_time(&["FOR VALUES FROM ('2024-04-01 00:00:00+00') TO ('2024-05-01 00:00:00+00')"]);
    trees.get_mut(&TABLE).expect("the table").partitions[0].level = Level::Partitioned;
    trees.insert(10, Tree { key_definition: "LIST (topic)".into(), ..tree(Strategy::Other, &["DEFAULT"]) });
    let Home::Unclear(words) = found(&trees, TimeKind::Timestamptz) else { panic!("it is missing") };
    assert!(
        words.ends_with(
            "CREATE TABLE \"public\".\"notes_2024_05_01\" PARTITION OF \"public\".\"notes\" FOR VALUES FROM \
             ('2024-05-01 00:00:00+00') TO ('2024-05-02 00:00:00+00') PARTITION BY LIST (topic);"
        ),
        "{words}"
    );
}

#[test]
fn bounds_that_cannot_be_read_are_left_to_postgresql() {
    let odd = "FOR VALUES FROM ('0044-03-15 00:00:00+00 BC') TO ('2024-06-01 00:00:00+00')";
    assert_eq!(found(&by_time(&[odd]), TimeKind::Timestamptz), Home::Found);
}

#[test]
fn names_are_cut_between_characters_and_counted() {
    assert_eq!(derived_name("notes", "2024_05_01", 0), "notes_2024_05_01");
    assert_eq!(derived_name("notes", "2024_05_01", 1), "notes_2024_05_01_2");
    let long = derived_name(&"ä".repeat(31), "2024_05_01", 0);
    assert_eq!(long, format!("{}_2024_05_01", "ä".repeat(26)));
    assert!(long.len() <= MAX_IDENTIFIER_BYTES);
}

#[test]
fn a_partition_is_stored_as_its_parent_says() {
    let tree = tree(Strategy::RangesOf("at".into()), &[]);
    let statements = |access_method: Option<&str>, tablespace: Option<&str>| {
        let (access_method, tablespace) = (access_method.map(str::to_owned), tablespace.map(str::to_owned));
        creation(&Tree { access_method, tablespace, ..tree.clone() }, "\"public\".\"may\"", "'a'", "'b'")
    };
    assert!(statements(None, None).contains("excluding comments); alter table"), "{}", statements(None, None));
    let stored = statements(Some("columns"), Some("fast \"disk\""));
    assert!(
        stored.contains("excluding comments) using \"columns\" tablespace \"fast \"\"disk\"\"\"; alter"),
        "{stored}"
    );
}
