//! The rows of a table that other tables' rows point to.

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
