use super::*;
use crate::pg::catalog::{ColumnTypes, TypePart, TypeRole};

fn part(role: TypeRole, schema: &str, name: &str) -> TypePart {
    TypePart {
        role,
        schema: schema.into(),
        name: name.into(),
        pseudo: false,
        has_binary_form: true,
        numbered_everywhere: schema == "pg_catalog",
    }
}

/// A table in `format` whose `body` is made of these.
fn made_of(format: SliceFormat, parts: Vec<TypePart>) -> (Vec<SourceTable>, ColumnTypes) {
    let (config, relation) = messages();
    let table = resolved((TableConfig { format, ..config }, relation));
    let types = [((table.relation.oid, "body".to_owned()), parts)].into();
    (vec![table], types)
}

fn problems(format: SliceFormat, parts: Vec<TypePart>) -> Vec<String> {
    let (tables, types) = made_of(format, parts);
    exceptions(&tables, &types).into_iter().map(|problem| problem.to_string()).collect()
}

const FORMATS: [SliceFormat; 3] = [SliceFormat::Text, SliceFormat::Csv, SliceFormat::Binary];

#[test]
fn ordinary_types_and_those_made_of_them_are_carried_by_every_format() {
    for format in FORMATS {
        let parts = vec![
            part(TypeRole::Itself, "public", "span"),
            part(TypeRole::Within, "public", "amount"),
            part(TypeRole::Base, "pg_catalog", "numeric"),
        ];
        assert_eq!(problems(format, parts), Vec::<String>::new());
        let array = vec![part(TypeRole::Itself, "pg_catalog", "_text"), part(TypeRole::Element, "pg_catalog", "text")];
        assert_eq!(problems(format, array), Vec::<String>::new());
    }
}

#[test]
fn what_has_no_binary_form_is_refused_in_binary_wherever_it_hides() {
    for role in [TypeRole::Itself, TypeRole::Base, TypeRole::Element, TypeRole::Field, TypeRole::Within] {
        let hidden = TypePart { has_binary_form: false, ..part(role, "pg_catalog", "aclitem") };
        let parts = vec![part(TypeRole::Itself, "public", "deep"), hidden];
        let found = problems(SliceFormat::Binary, parts.clone());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("aclitem has no binary form; state format = \"text\" or \"csv\""), "{found:?}");
        assert_eq!(problems(SliceFormat::Csv, parts), Vec::<String>::new());
    }
}

#[test]
fn numbers_that_mean_something_else_in_another_database_are_refused_in_binary() {
    let member = |role| problems(SliceFormat::Binary, vec![part(role, "public", "mood")]);
    for role in [TypeRole::Element, TypeRole::Field] {
        assert!(member(role)[0].contains("holds the number of public.mood"), "{:?}", member(role));
    }
    for role in [TypeRole::Itself, TypeRole::Base, TypeRole::Within] {
        assert_eq!(member(role), Vec::<String>::new());
    }
    let class = problems(SliceFormat::Binary, vec![part(TypeRole::Itself, "pg_catalog", "regclass")]);
    assert!(class[0].contains("a number that means something else"), "{class:?}");
    let vectors = problems(SliceFormat::Binary, vec![part(TypeRole::Element, "pg_catalog", "oidvector")]);
    assert!(vectors[0].contains("sends empty values of oidvector and refuses to receive them"), "{vectors:?}");
    let own = problems(SliceFormat::Binary, vec![part(TypeRole::Itself, "public", "regclass")]);
    assert_eq!(own, Vec::<String>::new(), "a user's type of that name is another type");
}

#[test]
fn what_nothing_loads_is_refused_in_every_format() {
    for format in FORMATS {
        let pseudo = TypePart { pseudo: true, ..part(TypeRole::Itself, "pg_catalog", "anyarray") };
        assert!(
            problems(format, vec![pseudo])[0].ends_with("; leave the column out with columns")
                || format == SliceFormat::Binary
        );
        let tree = problems(format, vec![part(TypeRole::Base, "pg_catalog", "pg_node_tree")]);
        assert!(tree[0].contains("reads none back"), "{tree:?}");
    }
}

#[test]
fn columns_that_are_not_published_do_not_matter() {
    let (mut tables, types) = made_of(SliceFormat::Binary, vec![part(TypeRole::Itself, "pg_catalog", "regclass")]);
    assert_eq!(exceptions(&tables, &types).len(), 1);
    tables[0].columns.retain(|column| column.name != "body");
    assert!(exceptions(&tables, &types).is_empty());
}

#[test]
fn names_are_told_apart_from_values_where_they_load() {
    let conditions = |format, name| {
        let (tables, types) = made_of(format, vec![part(TypeRole::Itself, "pg_catalog", name)]);
        conditions(&tables, &types).into_iter().map(|problem| problem.problem).collect::<Vec<_>>()
    };
    let class = conditions(SliceFormat::Text, "regclass");
    assert!(class[0].ends_with("a replica can load it only where it has the same objects of these names"), "{class:?}");
    assert!(conditions(SliceFormat::Csv, "regrole")[0].ends_with("the same roles"));
    assert!(conditions(SliceFormat::Text, "oid").is_empty());
    assert!(conditions(SliceFormat::Binary, "regclass").is_empty(), "that is an exception");
}
