//! Values that catchup writes in binary, though they were published as text.

use pgslice::catchup::binary::{Form, write_rows};
use pgslice::codec::RowFormat;
use pgslice::manifest::{Column as FeedColumn, SliceFormat};
use pgslice::pg::Endpoint;
use tokio_util::sync::CancellationToken;

use super::{Binary, Column, Dice, cast, random, say, shown, values, version};
use crate::cluster;
use crate::scene::Scene;

/// Types with such a form, as SQL writes them; what is beside them in the catalog, and what `values.rs` knows.
const TYPES: [(&str, &str); 21] = [
    ("bool", "bool"),
    ("int2", "int2"),
    ("int4", "int4"),
    ("int8", "int8"),
    ("float4", "float4"),
    ("float8", "float8"),
    ("numeric", "numeric"),
    ("numeric(12,3)", "numeric(12,3)"),
    ("text", "text"),
    ("varchar", "varchar"),
    ("varchar(200)", "varchar(200)"),
    ("bpchar", "bpchar"),
    ("bpchar(9)", "char(9)"),
    ("bytea", "bytea"),
    ("uuid", "uuid"),
    ("json", "json"),
    ("jsonb", "jsonb"),
    ("date", "date"),
    ("timestamp", "timestamp"),
    ("timestamptz", "timestamptz"),
    ("timestamptz(1)", "timestamptz(1)"),
];

fn base(name: &str) -> &str {
    name.split('(').next().unwrap_or(name)
}

/// The known values of each of the types, and random ones.
fn columns(version: u32) -> Vec<Column> {
    let seed = chrono::Utc::now().timestamp_micros().unsigned_abs();
    let seed = std::env::var("PGSLICE_TEST_SEED").map_or(seed, |seed| seed.parse().expect("a number"));
    say(&format!("values in binary: PGSLICE_TEST_SEED={seed}"));
    let mut dice = Dice(seed);
    let column = |(name, sql): (&str, &str)| {
        let base = base(name);
        let mut texts = values::values(base, version).expect("known values");
        let modified = name != base;
        // A modifier makes other values of some, and refuses some.
        if modified {
            texts.clear();
        }
        if random::TYPES.contains(&base) && base != "text" {
            texts.extend((0..200).map(|_| random::value(base, &mut dice)));
        } else if matches!(base, "text" | "varchar" | "bpchar") {
            texts.extend((0..200).map(|_| random::value("text", &mut dice)));
        }
        if base == "numeric" && modified {
            texts = (0..200).map(|_| format!("{}.{}", dice.between(-999_999, 999_999), dice.digits(5))).collect();
        }
        Column {
            name: name.to_owned(),
            sql: sql.to_owned(),
            values: texts.iter().map(|text| cast(text, sql)).collect(),
            send: Some(match base {
                "varchar" | "bpchar" | "text" | "bool" | "bytea" | "int2" | "int4" | "int8" | "float4" | "float8" => {
                    format!("pg_catalog.{base}send")
                }
                _ => format!("pg_catalog.{base}_send"),
            }),
            binary: Binary::Carried,
        }
    };
    TYPES.into_iter().map(column).collect()
}

/// A table of a value in each row, the others being NULL.
fn filled(columns: &[Column]) -> String {
    let listed: Vec<String> = columns.iter().map(|column| format!("\"{}\" {}", column.name, column.sql)).collect();
    let create = format!(
        "CREATE TABLE everything (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT '2024-05-01 10:00Z', {});",
        listed.join(", ")
    );
    let values = columns.iter().flat_map(|column| column.values.iter().map(move |value| (column, value)));
    let inserts = values.enumerate().map(|(id, (column, value))| {
        format!("INSERT INTO everything (id, \"{}\") VALUES ({id}, {value});\n", column.name)
    });
    format!("{create}\n{}INSERT INTO everything (id) VALUES (-1);", inserts.collect::<String>())
}

#[test]
fn what_is_written_is_what_the_server_writes() {
    let database = cluster::source().create_database("in_binary");
    let columns = columns(version(&database));
    database.psql(&filled(&columns));
    let mut session =
        Endpoint::parse(&database.url).expect("a url").session(&CancellationToken::new()).expect("a session");
    let mut copy = |column: &Column, options: &str| {
        let mut rows = Vec::new();
        let sql = format!("copy (select \"{}\" from public.everything order by id) to stdout{options}", column.name);
        session.copy_out(&sql, |row| {
            rows.extend_from_slice(row);
            anyhow::Ok(())
        })?;
        anyhow::Ok(rows)
    };
    let mut compared = 0;
    for column in &columns {
        let (text, binary) = (copy(column, "").expect("text"), copy(column, " (format binary)").expect("binary"));
        let form = Form::of(&of_catalog(base(&column.name))).expect("a form");
        let format = RowFormat::of(SliceFormat::Binary, &["value"]);
        let (mut written, mut rest) = (format.copy_head().to_vec(), &text[..]);
        while !rest.is_empty() {
            let mut piece = Vec::new();
            let taken = write_rows(&[form], rest, &mut piece).unwrap_or_else(|_| {
                let is_unusual = |line: &&[u8]| write_rows(&[form], line, &mut Vec::new()).is_err();
                let line = rest.split_inclusive(|byte| *byte == b'\n').find(is_unusual).unwrap_or_default();
                panic!("{}: {:?}", column.name, String::from_utf8_lossy(line))
            });
            written.extend(piece);
            rest = &rest[taken..];
        }
        written.extend_from_slice(format.copy_tail());
        assert!(written == binary, "{}: {}", column.name, first_difference(&written, &binary));
        compared += column.values.len();
    }
    assert!(compared > 3_000, "{compared}");
    say(&format!("{compared} values in binary are the server's"));
}

fn of_catalog(name: &str) -> FeedColumn {
    serde_json::from_value(serde_json::json!({
        "name": "value", "type_schema": "pg_catalog", "type_name": name, "typmod": -1, "nullable": true
    }))
    .expect("a column")
}

fn first_difference(one: &[u8], other: &[u8]) -> String {
    let place = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| hex::encode(&bytes[place.saturating_sub(16)..bytes.len().min(place + 16)]);
    format!("{} instead of {}", around(one), around(other))
}

/// A catchup that sends one slice in binary, and none as text.
#[track_caller]
fn in_binary(scene: &Scene) {
    let ran = scene.pgslice(&["catchup", "-vv"]).exits(0);
    assert!(ran.stderr.contains("is sent in binary") && !ran.stderr.contains("is sent as text"), "{ran}");
}

#[test]
fn values_arrive_in_binary_and_none_as_text() {
    let source = cluster::source().create_database("in_binary");
    let replica = cluster::replica().create_database("in_binary");
    let columns = columns(version(&source).min(version(&replica)));
    let filling = filled(&columns);
    source.psql(&filling);
    replica.psql(filling.lines().next().expect("the table"));
    let scene =
        Scene::new("[[table]]\nname = \"everything\"\ntime-column = \"at\"\n").source(&source).replica(&replica);
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    in_binary(&scene);
    let columns: Vec<&Column> = columns.iter().collect();
    assert_eq!(shown(&replica, &columns), shown(&source, &columns));
    scene.pgslice(&["verify", "--replica"]).exits(0);
}

#[test]
fn columns_that_are_wider_named_otherwise_and_in_another_order_arrive_in_binary() {
    let source = cluster::source().create_database("in_binary");
    let replica = cluster::replica().create_database("in_binary");
    source.psql(
        "CREATE TABLE item (id int PRIMARY KEY, at timestamptz NOT NULL, size smallint, label varchar(9), padded char(5));
         INSERT INTO item VALUES (1, '2024-05-01 10:00Z', -7, 'one', 'a'), (2, '2024-05-01 11:00Z', NULL, '', NULL)",
    );
    replica.psql(
        "CREATE TABLE item (caption text, size bigint, gone int, padded char(5), id int8 PRIMARY KEY, at timestamptz NOT NULL);
         ALTER TABLE item DROP COLUMN gone",
    );
    let table = "[[table]]\nname = \"item\"\n";
    let publisher = Scene::new(&format!("{table}time-column = \"at\"\n")).source(&source);
    publisher.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    let scene =
        Scene::new(&format!("{table}rename = {{ label = \"caption\" }}\n")).replica(&replica).reading(&publisher);
    in_binary(&scene);
    let rows = replica.psql("SELECT id, size, caption IS NULL, caption, padded FROM item ORDER BY id");
    assert_eq!(rows, "1|-7|f|one|a    \n2||f||");
}

#[test]
fn rows_that_are_large_go_as_text_for_the_sake_of_the_servers_memory() {
    let source = cluster::source().create_database("in_binary");
    let replica = cluster::replica().create_database("in_binary");
    let schema = "CREATE TABLE item (id int PRIMARY KEY, at timestamptz NOT NULL, body text)";
    source.psql(&format!(
        "{schema}; INSERT INTO item SELECT n, '2024-05-01 10:00Z', repeat('x', 20000) FROM generate_series(1, 300) n"
    ));
    replica.psql(schema);
    let scene = Scene::new("[[table]]\nname = \"item\"\ntime-column = \"at\"\n").source(&source).replica(&replica);
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    let ran = scene.pgslice(&["catchup", "-vv"]).exits(0);
    assert!(!ran.stderr.contains("is sent in binary"), "{ran}");
    assert_eq!(replica.psql("SELECT count(*), sum(length(body)) FROM item"), "300|6000000");
}
