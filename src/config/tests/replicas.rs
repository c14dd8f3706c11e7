//! What only a replica's configuration says.

use super::*;

#[test]
fn renamed_columns_have_two_names_and_none_is_given_twice() {
    let rename = |text: &str| with_table(&format!("rename = {text}"));
    let accepted = parsed(&rename("{ username = \"agent_name\", a = \"b\", b = \"c\" }"));
    let pairs: Vec<(&str, &str)> =
        accepted.tables[0].rename.iter().map(|(feeds, replicas)| (feeds.as_str(), replicas.as_str())).collect();
    assert_eq!(pairs, [("a", "b"), ("b", "c"), ("username", "agent_name")]);
    for (text, words) in [
        ("{ a = \"a\" }", "its own name"),
        ("{ a = \"c\", b = \"c\" }", "gives two columns the name \"c\""),
        ("{ a = \"\" }", "name"),
        ("{ a = \"b.c\" }", "one column's name"),
        ("{ a = 1 }", "the feed's, then the replica's"),
        ("[\"a\"]", "the feed's, then the replica's"),
    ] {
        refused(&rename(text), 4, "table.rename", words);
    }
}

#[test]
fn a_natural_key_is_a_list_of_columns() {
    let accepted = parsed(&with_table("natural-key = [\"name\", \"host\"]"));
    assert_eq!(accepted.tables[0].natural_key, ["name", "host"]);
    refused(&with_table("natural-key = \"name\""), 4, "table.natural-key", "must be a list");
    refused(&with_table("natural-key = [\"name\", \"name\"]"), 4, "table.natural-key", "twice");
}

#[test]
fn new_columns_are_refused_unless_they_are_to_be_added() {
    assert_eq!(parsed(&with_table("")).replica.new_columns, NewColumns::Refuse);
    assert_eq!(parsed(&with_setting("replica", "new-columns = \"add\"")).replica.new_columns, NewColumns::Add);
    refused(&with_setting("replica", "new-columns = true"), 3, "replica.new-columns", "\"refuse\" or \"add\"");
}
