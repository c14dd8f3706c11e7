use super::super::matching::{Absence, LeftOut, OtherColumns};
use super::*;

fn target(columns: &[&str], key: &[&str]) -> Target {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Target {
        table: "\"public\".\"t\"".into(),
        name: "public.t".into(),
        oid: 5,
        columns: names(columns),
        left_out: Vec::new(),
        forms: None,
        stored: names(columns),
        natural: Vec::new(),
        other_names_of_time: Vec::new(),
        key: key.iter().map(|name| KeyColumn::plain(name)).collect(),
        fixed: Vec::new(),
        time: None,
        absence: Absence::Proven,
        other_columns: OtherColumns::None,
    }
}

fn windows(windows: &[&str]) -> Vec<String> {
    windows.iter().map(|window| (*window).to_owned()).collect()
}

#[test]
fn a_stage_has_the_targets_columns_and_a_rank_and_goes_with_its_transaction() {
    let target = target(&["id", "at"], &["id"]);
    let stage = Stage::new(vec![&target, &target, &target], 3);
    assert_eq!(
        stage.create(),
        "create temporary table \"pgslice_stage_3\" on commit drop as \
         select \"id\", \"at\", 0::integer as \"pgslice~rank\" from \"public\".\"t\" with no data"
    );
    assert_eq!(
        stage.rank(2).as_deref(),
        Some("alter table pg_temp.\"pgslice_stage_3\" alter column \"pgslice~rank\" set default 2")
    );
    assert_eq!(stage.copy(0, SliceFormat::Text), "copy pg_temp.\"pgslice_stage_3\" (\"id\", \"at\") from stdin");
    assert_eq!(stage.drop(), "drop table pg_temp.\"pgslice_stage_3\"");
}

#[test]
fn of_rows_with_one_key_the_one_with_the_highest_rank_stays() {
    let target = target(&["a", "b", "c"], &["b", "a"]);
    assert_eq!(
        Stage::new(vec![&target, &target], 0).settle(),
        "delete from pg_temp.\"pgslice_stage_0\" as older using pg_temp.\"pgslice_stage_0\" as newer \
         where older.\"b\" = newer.\"b\" and older.\"a\" = newer.\"a\" \
         and older.\"pgslice~rank\" < newer.\"pgslice~rank\"; analyze pg_temp.\"pgslice_stage_0\""
    );
}

#[test]
fn only_rows_within_the_windows_are_deleted_for_being_absent() {
    let target = target(&["id", "at"], &["id"]);
    assert_eq!(
        Stage::new(vec![&target, &target], 0).delete_absent(&windows(&["present.x or present.y", "present.z"])),
        "delete from \"public\".\"t\" as present where ((present.x or present.y) or (present.z)) \
         and not exists (select from pg_temp.\"pgslice_stage_0\" as staged where present.\"id\" = staged.\"id\")"
    );
}

#[test]
fn an_update_writes_what_differs_and_nothing_else() {
    let target = target(&["id", "a", "b"], &["id"]);
    let stage = Stage::new(vec![&target, &target], 0);
    let differ = "present.\"id\" = staged.\"id\" \
                  and row(present.\"a\", present.\"b\")::pg_catalog.record operator(pg_catalog.*<>) \
                  row(staged.\"a\", staged.\"b\")::pg_catalog.record";
    let counted = |differ: &str| {
        format!(
            "with changed as (update \"public\".\"t\" as present set \"a\" = staged.\"a\", \"b\" = staged.\"b\" \
             from pg_temp.\"pgslice_stage_0\" as staged where {differ} returning 1) \
             select (select pg_catalog.count(*) from changed)::text, (select pg_catalog.count(*) \
             from \"public\".\"t\" as present, pg_temp.\"pgslice_stage_0\" as staged where {differ})::text"
        )
    };
    assert_eq!(stage.update_changed(None), [counted(differ)]);
    assert_eq!(stage.update_changed(Some("w")), [counted(&format!("{differ} and (w)"))]);
}

#[test]
fn a_table_that_is_all_key_is_never_updated() {
    let target = target(&["a", "b"], &["b", "a"]);
    assert_eq!(Stage::new(vec![&target, &target], 0).update_changed(None), Vec::<String>::new());
}

#[test]
fn columns_that_an_update_cannot_change_are_not_in_it() {
    let mut target = target(&["name", "number", "note"], &["name"]);
    target.fixed = vec!["number".into()];
    let update = Stage::new(vec![&target, &target], 0).update_changed(None).remove(0);
    assert!(update.contains("set \"note\" = staged.\"note\" from"), "{update}");
    assert!(!update.contains("number"), "{update}");
    target.fixed.push("note".into());
    assert_eq!(Stage::new(vec![&target, &target], 0).update_changed(None), Vec::<String>::new());
}

#[test]
fn new_rows_bring_their_identities_with_them() {
    let target = target(&["id", "at"], &["id"]);
    assert_eq!(
        Stage::new(vec![&target, &target], 0).insert_new().concat(),
        "insert into \"public\".\"t\" (\"id\", \"at\") overriding system value \
         select staged.\"id\", staged.\"at\" from pg_temp.\"pgslice_stage_0\" as staged \
         where not exists (select from \"public\".\"t\" as present where present.\"id\" = staged.\"id\")"
    );
}

#[test]
fn a_window_is_loaded_read_counted_and_emptied_by_name_of_its_columns() {
    let target = target(&["id", "at"], &["id"]);
    let into = "copy \"public\".\"t\" (\"id\", \"at\") from stdin";
    let window = "copy (select \"id\", \"at\" from \"public\".\"t\" as present where w) to stdout";
    for (format, options) in
        [(SliceFormat::Text, ""), (SliceFormat::Csv, " (format csv)"), (SliceFormat::Binary, " (format binary)")]
    {
        assert_eq!(copy_into(&target, format), format!("{into}{options}"));
        assert_eq!(copy_window(&target, "w", format), format!("{window}{options}"));
    }
    assert_eq!(count_window(&target, "w"), "select pg_catalog.count(*)::text from \"public\".\"t\" as present where w");
    assert_eq!(delete_window(&target, "w"), "delete from \"public\".\"t\" as present where w");
}

#[test]
fn a_sequence_is_moved_past_the_loaded_values_in_its_own_direction_only() {
    let target = target(&["id"], &["id"]);
    let sequence = "\"public\".\"it's_seq\"";
    assert_eq!(
        advance_sequence(&target, "id", sequence, false, Some("w")),
        "select pg_catalog.setval('\"public\".\"it''s_seq\"'::pg_catalog.regclass, loaded.farthest) \
         from (select pg_catalog.max(\"id\")::pg_catalog.int8 as farthest from \"public\".\"t\" as present where w) as loaded, \
         \"public\".\"it's_seq\" as sequence \
         where loaded.farthest > sequence.last_value \
         or (loaded.farthest = sequence.last_value and not sequence.is_called)"
    );
    let down = advance_sequence(&target, "id", sequence, true, None);
    assert!(down.contains("pg_catalog.min(\"id\")") && down.contains("farthest < sequence.last_value"), "{down}");
    assert!(!down.contains(" where w"), "{down}");
}

#[test]
fn hostile_column_names_stay_names() {
    let target = target(&["id", "x\"; drop table users; --"], &["id"]);
    let stage = Stage::new(vec![&target, &target], 0);
    let quoted = "\"x\"\"; drop table users; --\"";
    for sql in [
        stage.create(),
        stage.copy(0, SliceFormat::Text),
        stage.insert_new().concat(),
        stage.update_changed(None).concat(),
        copy_into(&target, SliceFormat::Csv),
    ] {
        assert!(sql.contains(quoted), "{sql}");
        assert!(!sql.replace(quoted, "").contains("drop table"), "{sql}");
    }
}

#[test]
fn a_key_is_compared_as_its_index_does_and_written_where_equal_values_can_differ() {
    let mut target = target(&["name", "id", "note"], &["name", "id"]);
    target.key[0].equals = "operator(\"ext\".=)".into();
    target.key[0].collation = Some("\"public\".\"ci\"".into());
    target.key[0].equality = Equality::Loose;
    let stage = Stage::new(vec![&target, &target], 0);
    let update = stage.update_changed(None).remove(0);
    for part in [
        "set \"name\" = staged.\"name\", \"note\" = staged.\"note\" from",
        "where present.\"name\" collate \"public\".\"ci\" operator(\"ext\".=) staged.\"name\" and present.\"id\" = staged.\"id\" and row(",
        "row(present.\"name\", present.\"note\")::",
    ] {
        assert!(update.contains(part), "{part} in {update}");
    }
    assert!(
        stage.insert_new()[0]
            .contains("present.\"name\" collate \"public\".\"ci\" operator(\"ext\".=) staged.\"name\"")
    );
}

#[test]
fn the_stage_of_one_slice_has_no_column_of_its_own() {
    let target = target(&["id", "at"], &["id"]);
    let stage = Stage::new(vec![&target], 0);
    assert_eq!(stage.rank(0), None);
    assert_eq!(stage.settle(), "analyze pg_temp.\"pgslice_stage_0\"");
    assert_eq!(stage.within_or_from(&windows(&["w"]), 1), "false or ((w))");
    for sql in [stage.create(), stage.count(0)] {
        assert!(!sql.contains("rank"), "{sql}");
    }
}

#[test]
fn slices_that_write_other_columns_write_those_only() {
    let (narrow, wide) = (target(&["id", "a"], &["id"]), target(&["id", "a", "b"], &["id"]));
    let stage = Stage::new(vec![&narrow, &wide, &narrow], 0);
    assert!(stage.create().contains("select \"id\", \"a\", \"b\", 0::integer as \"pgslice~rank\" from"));
    assert!(stage.copy(0, SliceFormat::Text).contains("(\"id\", \"a\") from"));
    assert!(stage.copy(1, SliceFormat::Text).contains("(\"id\", \"a\", \"b\") from"));
    let (updates, inserts) = (stage.update_changed(None), stage.insert_new());
    assert!(updates[0].contains("set \"a\" = staged.\"a\" from"), "{updates:?}");
    assert!(updates[0].contains(" and staged.\"pgslice~rank\" in (0, 2) returning"), "{updates:?}");
    assert!(updates[1].contains("set \"a\" = staged.\"a\", \"b\" = staged.\"b\" from"), "{updates:?}");
    assert!(updates[1].contains(" and staged.\"pgslice~rank\" in (1) returning"), "{updates:?}");
    assert!(inserts[0].ends_with(" and staged.\"pgslice~rank\" in (0, 2)"), "{inserts:?}");
    assert!(inserts[1].ends_with(" and staged.\"pgslice~rank\" in (1)"), "{inserts:?}");
}

#[test]
fn a_column_that_the_table_lacks_is_received_and_goes_no_further() {
    let mut target = target(&["id", "at"], &["id"]);
    target.left_out = vec![LeftOut { place: 1, name: "gone\"".into() }];
    let stage = Stage::new(vec![&target], 0);
    assert!(stage.create().contains(", null::pg_catalog.text as \"pgslice~left_out_text_0\""), "{}", stage.create());
    for (format, kind) in [(SliceFormat::Text, "text"), (SliceFormat::Csv, "text"), (SliceFormat::Binary, "bytes")] {
        let names = format!("(\"id\", \"pgslice~left_out_{kind}_0\", \"at\") from");
        assert!(stage.copy(0, format).contains(&names), "{}", stage.copy(0, format));
    }
    assert!(!stage.insert_all().contains("left_out") && !stage.update_changed(None).concat().contains("left_out"));
    assert_eq!(stage.width(), 4);
}

#[test]
fn rows_give_way_in_one_statement_and_keep_what_the_slices_do_not_carry() {
    let mut target = target(&["id", "name"], &["id"]);
    target.natural = vec![KeyColumn::plain("name")];
    target.stored = vec!["id".into(), "name".into(), "own".into()];
    let stage = Stage::new(vec![&target], 7);
    let rivals = "present.\"name\" = staged.\"name\" and not (present.\"id\" = staged.\"id\")";
    assert!(stage.create_leaving().ends_with(&format!("where {rivals})")), "{}", stage.create_leaving());
    assert_eq!(
        stage.replace_leaving(),
        "with gone as (delete from \"public\".\"t\" as present using pg_temp.\"pgslice_leaving_7\" as leaving \
         where present.\"id\" = leaving.\"id\" returning 1), \
         back_0 as (insert into \"public\".\"t\" (\"id\", \"name\", \"own\") overriding system value \
         select staged.\"id\", staged.\"name\", leaving.\"own\" from pg_temp.\"pgslice_stage_7\" as staged \
         join pg_temp.\"pgslice_leaving_7\" as leaving on staged.\"id\" = leaving.\"id\" \
         where (select pg_catalog.count(*) from gone) >= 0 returning 1) \
         select (select pg_catalog.count(*) from gone)::text"
    );
}

#[test]
fn of_slices_with_a_natural_key_in_common_the_newest_has_it() {
    let mut target = target(&["id", "name"], &["id"]);
    target.natural = vec![KeyColumn::plain("name")];
    let settle = Stage::new(vec![&target, &target], 0).settle();
    assert!(settle.contains("older.\"name\" = newer.\"name\" and not (older.\"id\" = newer.\"id\")"), "{settle}");
    let without = Target { natural: Vec::new(), ..target.clone() };
    let stage = Stage::new(vec![&target, &without], 0);
    assert!(stage.natural().is_empty(), "a slice without the columns cannot tell");
}

#[test]
fn of_a_slice_that_is_staged_by_its_differences_only_unmatched_rows_of_the_window_are_deleted() {
    let target = target(&["id", "at"], &["id"]);
    let mut stage = Stage::new(vec![&target], 3);
    stage.leave_out(7);
    assert_eq!(stage.left_out(), Some(7));
    assert_eq!(
        stage.delete_absent(&windows(&["present.x"])),
        "delete from \"public\".\"t\" as present using pg_temp.\"pgslice_unmatched_3\" as unmatched \
         where present.ctid = unmatched.place and present.tableoid = unmatched.relation and ((present.x)) \
         and not exists (select from pg_temp.\"pgslice_stage_3\" as staged where present.\"id\" = staged.\"id\")"
    );
    assert_eq!(stage.settle(), "analyze pg_temp.\"pgslice_stage_3\", pg_temp.\"pgslice_unmatched_3\"");
    assert_eq!(stage.drop(), "drop table pg_temp.\"pgslice_stage_3\", pg_temp.\"pgslice_unmatched_3\"");
    assert_eq!(
        copy_places(&target, "present.x"),
        "copy (select present.tableoid, present.ctid, \"id\", \"at\" from \"public\".\"t\" as present where present.x) to stdout"
    );
}

#[test]
fn a_stage_compresses_the_columns_that_it_has() {
    let target = target(&["id", "at"], &["id"]);
    let stage = Stage::new(vec![&target], 3);
    assert_eq!(
        stage.compress("at", "lz4").as_deref(),
        Some("alter table pg_temp.\"pgslice_stage_3\" alter column \"at\" set compression lz4")
    );
    assert_eq!(stage.compress("own", "lz4"), None);
}
