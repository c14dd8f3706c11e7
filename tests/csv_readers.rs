//! Slices in csv format as analysts load them: DuckDB and pandas read the stored objects as they are.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::bucket_faults::Crossing;
use crate::cluster;
use crate::formats::{HOSTILE, HOSTILE_ROWS};
use crate::published::Published;
use crate::scene::Scene;

const DAY: &str = "2024-05-01";
const TABLE: &str = "[[table]]\nname = \"event\"\ntime-column = \"at\"\nformat = \"csv\"\n";

/// What tests/csv_readers/read.py makes of the objects of a slice, under the names that they have in the store.
fn read(scene: &Scene, published: &Published, table: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = Command::new(root.join("scripts/find-csv-readers")).output().expect("run scripts/find-csv-readers");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let python = String::from_utf8(found.stdout).expect("a path");
    let folder = tempfile::TempDir::with_prefix("pgslice-csv-").expect("create a temporary folder");
    let objects = published.slice(DAY, table).parts.into_iter().map(|part| {
        let path = folder.path().join(part.key.file_name());
        std::fs::write(&path, scene.place().content(part.key.as_str())).expect("write a copy");
        path
    });
    let output = Command::new(python.trim_end())
        .arg(root.join("tests/csv_readers/read.py"))
        .args(objects.collect::<Vec<_>>())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder.path())
        .output()
        .expect("run Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Rows by their first column, in its order.
fn sorted(rows: &Value) -> Vec<Vec<Value>> {
    let mut rows: Vec<Vec<Value>> = serde_json::from_value(rows.clone()).expect("a list of rows");
    rows.sort_by_key(|row| row[0].as_str().and_then(|id| id.parse::<i64>().ok()));
    rows
}

#[test]
fn duckdb_sees_every_value_as_postgresql_has_it_and_tells_null_from_empty() {
    let database = cluster::source().create_database("csv");
    database.psql(&format!("{HOSTILE}{HOSTILE_ROWS}"));
    let scene = Scene::new(TABLE).source(&database);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let seen = read(&scene, &Published::by(&scene), "public.event");

    let expected = database.psql(
        "SET timezone = 'UTC';
         SELECT json_agg(json_build_array(id::text, at::text, t, j::text, a::text, b::text) ORDER BY id) FROM event",
    );
    let expected = sorted(&serde_json::from_str(&expected).expect("JSON"));
    assert_eq!(seen["columns"], json!(["id", "at", "t", "j", "a", "b"]));
    for (seen, expected) in sorted(&seen["duckdb"]).iter().zip(&expected) {
        assert_eq!(seen, expected);
    }
    assert_eq!(seen["duckdb"].as_array().map(Vec::len), Some(expected.len()));
    let empty = |row: &&Vec<Value>| row[2] == "";
    assert_eq!(expected.iter().filter(empty).count(), 1, "NULL and empty are both among the rows");

    // Without being told of the columns it finds the columns, their types and all rows.
    assert_eq!(seen["guessed_rows"], expected.len());
    assert_eq!((&seen["types"]["id"], &seen["types"]["t"]), (&json!("BIGINT"), &json!("VARCHAR")), "{}", seen["types"]);
    assert_eq!(seen["types"]["at"], "TIMESTAMP WITH TIME ZONE", "{}", seen["types"]);

    // pandas has no way to tell NULL from an empty text in csv.
    assert_eq!(seen["pandas_columns"], seen["columns"]);
    for (seen, expected) in sorted(&seen["pandas"]).iter().zip(&expected) {
        let expected: Vec<Value> =
            expected.iter().map(|value| if value.is_null() { json!("") } else { value.clone() }).collect();
        assert_eq!(seen, &expected);
    }
    assert_eq!(seen["pandas"].as_array().map(Vec::len), Some(expected.len()));
}

#[test]
fn a_slice_of_several_parts_and_many_frames_is_loaded_as_one_table() {
    let crossing = Crossing::new();
    let scene = &crossing.pair.scene;
    scene.edit_configuration("path-style = true", "path-style = true\nmax-parts = 2");
    scene.edit_configuration("time-column = \"at\"", "time-column = \"at\"\nformat = \"csv\"");
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let published = Published::by(scene);
    assert!(published.slice(DAY, "public.blobs").parts.len() > 1);
    let seen = read(scene, &published, "public.blobs");
    let expected =
        crossing.pair.source.psql("SELECT json_agg(json_build_array(id::text, body) ORDER BY id) FROM blobs");
    let expected = sorted(&serde_json::from_str(&expected).expect("JSON"));
    for reader in ["duckdb", "pandas"] {
        let rows: Vec<Vec<Value>> =
            sorted(&seen[reader]).into_iter().map(|row| vec![row[0].clone(), row[2].clone()]).collect();
        assert_eq!(rows.len(), 3_000, "{reader}");
        assert!(rows == expected, "{reader}");
    }
    assert_eq!(seen["guessed_rows"], 3_000);
}

#[test]
fn a_slice_without_rows_is_a_table_with_its_columns() {
    let database = cluster::source().create_database("csv");
    database.psql(HOSTILE);
    let scene = Scene::new(TABLE).source(&database);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let seen = read(&scene, &Published::by(&scene), "public.event");
    assert_eq!((&seen["duckdb"], &seen["pandas"], &seen["guessed_rows"]), (&json!([]), &json!([]), &json!(0)));
    assert_eq!(
        (&seen["columns"], &seen["pandas_columns"]),
        (&json!(["id", "at", "t", "j", "a", "b"]), &seen["columns"])
    );
}

#[test]
fn a_null_of_a_slice_of_one_column_is_a_row_although_its_line_is_empty() {
    let database = cluster::source().create_database("csv");
    database.psql("CREATE TABLE tag (name text); INSERT INTO tag VALUES ('a'), (NULL), (''), ('z'), (NULL)");
    let scene = Scene::new("[[table]]\nname = \"tag\"\nrows = \"all\"\nformat = \"csv\"\n").source(&database);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    let seen = read(&scene, &Published::by(&scene), "public.tag");
    let values = |reader: &str| {
        let mut values: Vec<Option<String>> = serde_json::from_value::<Vec<Vec<Option<String>>>>(seen[reader].clone())
            .expect("a list of rows")
            .into_iter()
            .flatten()
            .collect();
        values.sort();
        values
    };
    let text = |value: &str| Some(value.to_owned());
    assert_eq!(values("duckdb"), [None, None, text(""), text("a"), text("z")]);
    assert_eq!(values("pandas"), [text(""), text(""), text(""), text("a"), text("z")]);
    assert_eq!(seen["guessed_rows"], 5);
}
