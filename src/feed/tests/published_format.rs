//! The documents as others read them: what was once published stays readable, and the schemas say what the types do.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde_json::Value;

use super::*;

fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn value(path: &str) -> Value {
    serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Holds a committed schema against the type; writes it instead when `PGSLICE_UPDATE_SCHEMAS=1`.
fn is_schema_of<T: JsonSchema>(path: &str) {
    let schema = schemars::schema_for!(T);
    let generated = format!("{}\n", serde_json::to_string_pretty(&schema).expect("a schema"));
    if std::env::var_os("PGSLICE_UPDATE_SCHEMAS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(file("docs/schema")).expect("a folder for the schemas");
        std::fs::write(file(path), &generated).expect("write the schema");
    }
    let committed = std::fs::read_to_string(file(path)).unwrap_or_default();
    assert!(
        committed == generated,
        "{path} is not what the types say: run `PGSLICE_UPDATE_SCHEMAS=1 cargo test --lib schemas`, then look at the diff"
    );
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    is_schema_of::<Feed>("docs/schema/feed.schema.json");
    is_schema_of::<Manifest>("docs/schema/manifest.schema.json");
}

#[track_caller]
fn validates(schema: &str, document: &Value) -> bool {
    let validator = jsonschema::validator_for(&value(schema)).expect("a schema");
    validator.is_valid(document)
}

#[test]
fn the_fixtures_are_valid_by_the_schemas() {
    for name in ["feed", "manifest"] {
        let document = value(&format!("tests/fixtures/format-1/{name}.json"));
        let schema = format!("docs/schema/{name}.schema.json");
        assert!(validates(&schema, &document), "{name}");
        let mut broken = document.clone();
        broken.as_object_mut().expect("an object").remove("timezone");
        assert!(!validates(&schema, &broken), "a {name} without its timezone");
    }
}

#[test]
fn a_schema_refuses_keys_that_leave_the_prefix() {
    let mut feed = value("tests/fixtures/format-1/feed.json");
    feed["days"][0]["manifest"]["key"] = "../feed.json".into();
    assert!(!validates("docs/schema/feed.schema.json", &feed));
}

/// The fixtures are kept as they are: a change of the types that cannot read them breaks everybody's feeds.
#[test]
fn what_was_published_as_format_1_is_read_and_written_again_without_loss() {
    let feed = Feed::parse(text("tests/fixtures/format-1/feed.json").as_bytes()).expect("a feed");
    assert_eq!(serde_json::to_value(&feed).expect("a document"), value("tests/fixtures/format-1/feed.json"));
    let manifest = Manifest::parse(text("tests/fixtures/format-1/manifest.json").as_bytes()).expect("a manifest");
    assert_eq!(serde_json::to_value(&manifest).expect("a document"), value("tests/fixtures/format-1/manifest.json"));

    assert_eq!(feed.days.len(), 2);
    assert_eq!(feed.retired.len(), 2);
    let entry = feed.day(manifest.day).expect("the manifest's day");
    assert_eq!((entry.revision, entry.state, entry.window), (manifest.revision, manifest.state, manifest.window));
    assert_eq!((entry.rows, entry.bytes), (manifest.rows(), manifest.stored_bytes()));
    assert_eq!(entry.digest, manifest.day_digest());
    let digest = {
        use sha2::{Digest, Sha256};
        hex::encode(Sha256::digest(text("tests/fixtures/format-1/manifest.json").as_bytes()))
    };
    assert_eq!(entry.manifest.sha256, digest, "the feed's fixture names the manifest's");
}

/// Every field that the types know occurs in the fixtures, so that the test above says something about each of them.
#[test]
fn the_fixtures_use_every_field_that_the_schemas_know() {
    for name in ["feed", "manifest"] {
        let schema = value(&format!("docs/schema/{name}.schema.json"));
        let mut known = Vec::new();
        properties(&schema, &mut known);
        let mut used = Vec::new();
        fields(&value(&format!("tests/fixtures/format-1/{name}.json")), &mut used);
        for field in known {
            assert!(used.contains(&field), "no {field} with a value in {name}.json");
        }
    }
}

fn properties(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                into.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| properties(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| properties(value, into)),
        _ => {}
    }
}

fn fields(document: &Value, into: &mut Vec<String>) {
    match document {
        Value::Object(object) => {
            for (name, value) in object {
                if !value.is_null() {
                    into.push(name.clone());
                }
                fields(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, into)),
        _ => {}
    }
}
