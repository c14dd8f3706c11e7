use super::super::matching::{Absence, OtherColumns};
use super::*;

fn target(columns: &[&str], key: &[&str]) -> Target {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Target {
        table: "\"public\".\"t\"".into(),
        name: "public.t".into(),
        oid: 5,
        columns: names(columns),
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
    let stage = Stage::new(&target, 3, Ranks::Several);
    assert_eq!(
        stage.create(),
        "create temporary table \"pgslice_stage_3\" on commit drop as \
         select \"id\", \"at\", 0::integer as \"pgslice~rank\" from \"public\".\"t\" with no data"
    );
    assert_eq!(
        stage.rank(2).as_deref(),
        Some("alter table pg_temp.\"pgslice_stage_3\" alter column \"pgslice~rank\" set default 2")
    );
    assert_eq!(stage.copy(SliceFormat::Text), "copy pg_temp.\"pgslice_stage_3\" (\"id\", \"at\") from stdin");
    assert_eq!(stage.drop(), "drop table pg_temp.\"pgslice_stage_3\"");
}

#[test]
fn of_rows_with_one_key_the_one_with_the_highest_rank_stays() {
    let target = target(&["a", "b", "c"], &["b", "a"]);
    assert_eq!(
        Stage::new(&target, 0, Ranks::Several).settle(),
        "delete from pg_temp.\"pgslice_stage_0\" as older using pg_temp.\"pgslice_stage_0\" as newer \
         where older.\"b\" = newer.\"b\" and older.\"a\" = newer.\"a\" \
         and older.\"pgslice~rank\" < newer.\"pgslice~rank\"; analyze pg_temp.\"pgslice_stage_0\""
    );
}

#[test]
fn only_rows_within_the_windows_are_deleted_for_being_absent() {
    let target = target(&["id", "at"], &["id"]);
    assert_eq!(
        Stage::new(&target, 0, Ranks::Several).delete_absent(&windows(&["present.x or present.y", "present.z"])),
        "delete from \"public\".\"t\" as present where ((present.x or present.y) or (present.z)) \
         and not exists (select from pg_temp.\"pgslice_stage_0\" as staged where present.\"id\" = staged.\"id\")"
    );
}

#[test]
fn an_update_writes_what_differs_and_nothing_else() {
    let target = target(&["id", "a", "b"], &["id"]);
    let stage = Stage::new(&target, 0, Ranks::Several);
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
    assert_eq!(stage.update_changed(None), Some(counted(differ)));
    assert_eq!(stage.update_changed(Some("w")), Some(counted(&format!("{differ} and (w)"))));
}

#[test]
fn a_table_that_is_all_key_is_never_updated() {
    let target = target(&["a", "b"], &["b", "a"]);
    assert_eq!(Stage::new(&target, 0, Ranks::Several).update_changed(None), None);
}

#[test]
fn columns_that_an_update_cannot_change_are_not_in_it() {
    let mut target = target(&["name", "number", "note"], &["name"]);
    target.fixed = vec!["number".into()];
    let update = Stage::new(&target, 0, Ranks::Several).update_changed(None).expect("the note can change");
    assert!(update.contains("set \"note\" = staged.\"note\" from"), "{update}");
    assert!(!update.contains("number"), "{update}");
    target.fixed.push("note".into());
    assert_eq!(Stage::new(&target, 0, Ranks::Several).update_changed(None), None);
}

#[test]
fn new_rows_bring_their_identities_with_them() {
    let target = target(&["id", "at"], &["id"]);
    assert_eq!(
        Stage::new(&target, 0, Ranks::Several).insert_new(),
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
    let stage = Stage::new(&target, 0, Ranks::Several);
    let quoted = "\"x\"\"; drop table users; --\"";
    for sql in [
        stage.create(),
        stage.copy(SliceFormat::Text),
        stage.insert_new(),
        stage.update_changed(None).expect("a value"),
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
    let stage = Stage::new(&target, 0, Ranks::Several);
    let update = stage.update_changed(None).expect("a name and a note can change");
    for part in [
        "set \"name\" = staged.\"name\", \"note\" = staged.\"note\" from",
        "where present.\"name\" collate \"public\".\"ci\" operator(\"ext\".=) staged.\"name\" and present.\"id\" = staged.\"id\" and row(",
        "row(present.\"name\", present.\"note\")::",
    ] {
        assert!(update.contains(part), "{part} in {update}");
    }
    assert!(
        stage.insert_new().contains("present.\"name\" collate \"public\".\"ci\" operator(\"ext\".=) staged.\"name\"")
    );
}

#[test]
fn the_stage_of_one_slice_has_no_column_of_its_own() {
    let target = target(&["id", "at"], &["id"]);
    let stage = Stage::new(&target, 0, Ranks::One);
    assert_eq!(stage.rank(0), None);
    assert_eq!(stage.settle(), "analyze pg_temp.\"pgslice_stage_0\"");
    assert_eq!(stage.within_or_from(&windows(&["w"]), 1), "false or ((w))");
    for sql in [stage.create(), stage.count(0)] {
        assert!(!sql.contains("rank"), "{sql}");
    }
}
