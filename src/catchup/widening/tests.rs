use super::*;
use crate::manifest::{MadeOf, TypeName};

fn column(type_name: &str, typmod: i32) -> Column {
    Column {
        name: "c".into(),
        type_schema: "pg_catalog".into(),
        type_name: type_name.into(),
        typmod,
        nullable: true,
        made_of: MadeOf::default(),
    }
}

fn domain(name: &str, base: &str) -> Column {
    let base = TypeName { type_schema: "pg_catalog".into(), type_name: base.into(), typmod: -1 };
    let made_of = MadeOf { base: Some(base), ..MadeOf::default() };
    Column { type_schema: "public".into(), made_of, ..column(name, -1) }
}

fn text_takes(replica: (&str, i32), feed: (&str, i32)) -> bool {
    takes(&column(replica.0, replica.1), &column(feed.0, feed.1), SliceFormat::Text)
}

#[test]
fn wider_types_take_narrower_ones_and_never_the_reverse() {
    for (narrow, wide) in [
        (("int2", -1), ("int4", -1)),
        (("int2", -1), ("int8", -1)),
        (("int4", -1), ("int8", -1)),
        (("varchar", 14), ("varchar", 24)),
        (("varchar", 14), ("varchar", -1)),
        (("varchar", 14), ("text", -1)),
        (("timestamp", 3), ("timestamp", 6)),
        (("timestamptz", 0), ("timestamptz", -1)),
        (("numeric", (5 << 16) + 2 + 4), ("numeric", (7 << 16) + 2 + 4)),
    ] {
        assert!(text_takes(wide, narrow), "{narrow:?} into {wide:?}");
        assert!(!text_takes(narrow, wide), "{wide:?} into {narrow:?}");
        assert!(text_takes(narrow, narrow), "{narrow:?}");
    }
    assert!(text_takes(("varchar", -1), ("text", -1)) && text_takes(("text", -1), ("varchar", -1)));
}

#[test]
fn what_would_be_written_otherwise_is_not_taken() {
    for (feed, replica) in [
        (("numeric", (5 << 16) + 2 + 4), ("numeric", (7 << 16) + 3 + 4)),
        (("bpchar", 9), ("bpchar", 14)),
        (("float4", -1), ("float8", -1)),
        (("int4", -1), ("text", -1)),
        (("int4", -1), ("numeric", -1)),
        (("timestamp", -1), ("timestamptz", -1)),
        (("text", -1), ("varchar", 14)),
        (("interval", 100), ("interval", 200)),
    ] {
        assert!(!text_takes(replica, feed), "{feed:?} into {replica:?}");
    }
}

#[test]
fn binary_numbers_go_into_their_own_type_only() {
    let takes = |replica: &str, feed: &str| takes(&column(replica, -1), &column(feed, -1), SliceFormat::Binary);
    assert!(takes("int8", "int8") && takes("text", "varchar"));
    assert!(!takes("int8", "int4"));
}

#[test]
fn a_domain_goes_into_what_it_is_over_and_into_one_over_the_same() {
    let feed = domain("score", "int4");
    let takes = |replica: &Column| takes(replica, &feed, SliceFormat::Text);
    assert!(takes(&domain("score", "int4")) && takes(&column("int4", -1)));
    assert!(!takes(&domain("score", "int8")) && !takes(&domain("other", "int4")) && !takes(&column("int8", -1)));
}

#[test]
fn a_cast_is_spelled_out_where_postgresql_has_none_of_its_own() {
    let by_itself = |from: &str, to: &str| is_cast_by_itself(&column(from, -1), &column(to, -1));
    for (from, to) in
        [("int4", "int8"), ("int8", "int4"), ("jsonb", "text"), ("varchar", "varchar"), ("date", "timestamp")]
    {
        assert!(by_itself(from, to), "{from} to {to}");
    }
    for (from, to) in [("text", "int4"), ("text", "jsonb"), ("int4", "bool"), ("int4", "timestamptz")] {
        assert!(!by_itself(from, to), "{from} to {to}");
    }
}
