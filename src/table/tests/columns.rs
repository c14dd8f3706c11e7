//! Which columns are published, and which of them are the key.

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
    found.keys = vec![key(&["id", "at"]), key(&["body"])];
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
