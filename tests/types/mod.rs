//! Every type of value through every slice format into another cluster, with PostgreSQL as the judge.
//!
//! The types are those that the server's own `pg_type` lists, so that a version with a new one is noticed here.

mod exceptions;
mod in_binary;
mod random;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use pgslice::pg::{quote_identifier, quote_literal};

use crate::cluster::{self, Database};
use crate::scene::Scene;
use random::Dice;

const DAY: &str = "2024-05-01";
const SCHEMA: &str = include_str!("schema.sql");
/// What psql looks at values under, whatever the defaults are.
const PINS: &str = include_str!("../../sql/session.sql");
const FORMATS: [&str; 3] = ["text", "csv", "binary"];
/// Extensions with types of their own; those that both sides can have are tried.
const EXTENSIONS: [&str; 9] = ["citext", "cube", "earthdistance", "hstore", "intarray", "isn", "lo", "ltree", "seg"];
/// Defaults that change what values look like, or how they are read. Odd ones are the role's, the others the database's.
const HOSTILE: [(&str, &str); 16] = [
    ("datestyle", "SQL, DMY"),
    ("intervalstyle", "sql_standard"),
    ("timezone", "America/New_York"),
    ("extra_float_digits", "-15"),
    ("bytea_output", "escape"),
    ("lc_monetary", "C.UTF-8"),
    ("xmloption", "document"),
    ("client_encoding", "LATIN1"),
    ("array_nulls", "off"),
    ("standard_conforming_strings", "off"),
    ("transform_null_equals", "on"),
    ("quote_all_identifiers", "on"),
    ("search_path", "hostile"),
    ("row_security", "on"),
    ("default_transaction_isolation", "serializable"),
    // Short enough for a COPY to be ended by it, and long enough for a busy machine to set it right.
    ("statement_timeout", "200ms"),
];

/// A column, and the values that its rows have, as SQL.
struct Column {
    name: String,
    /// The type as SQL writes it.
    sql: String,
    values: Vec<String>,
    /// The function that shows its values in binary; `None` where that is not to be compared.
    send: Option<String>,
    /// Whether the binary format carries it.
    binary: Binary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binary {
    Carried,
    Refused,
}

/// How many columns and values arrived, by format.
type Counts = BTreeMap<&'static str, (usize, usize)>;

/// A type as one side has it.
struct TypeRow {
    name: String,
    schema: String,
    /// The name of the element where it is an array.
    element: Option<String>,
    /// The function that sends its values; `None` also where that takes no such value (refcursor has text's).
    send: Option<String>,
}

fn types(database: &Database, condition: &str) -> Vec<TypeRow> {
    let listed = database.psql(&format!(
        "SELECT t.typname, n.nspname, e.typname,
                CASE WHEN p.oid IS NOT NULL AND (e.oid IS NULL OR e.typsend <> 0) AND t.typname <> 'refcursor' THEN format('%I.%I', s.nspname, p.proname) END
         FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
         LEFT JOIN pg_proc p ON p.oid = t.typsend LEFT JOIN pg_namespace s ON s.oid = p.pronamespace
         LEFT JOIN pg_type e ON e.typarray = t.oid
         LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = coalesce(e.oid, t.oid) AND d.deptype = 'e'
         LEFT JOIN pg_extension x ON d.refclassid = 'pg_extension'::regclass AND x.oid = d.refobjid
         WHERE t.typisdefined AND t.typtype IN ('b', 'd', 'e', 'r', 'm')
             AND coalesce(e.typtype, 'b') IN ('b', 'd', 'e', 'r', 'm') AND {condition}
         ORDER BY 1, 2"
    ));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let [name, schema, element, send] = fields[..] else { panic!("{line}") };
        TypeRow { name: name.into(), schema: schema.into(), element: some(element), send: some(send) }
    };
    listed.lines().map(row).collect()
}

fn version(database: &Database) -> u32 {
    database.psql("SELECT current_setting('server_version_num')::int / 10000").parse().expect("a number")
}

fn cast(value: &str, sql: &str) -> String {
    format!("CAST({} AS {sql})", quote_literal(value))
}

/// What an array can look like, of elements in SQL.
fn arrays(elements: &[String], array: &str) -> Vec<String> {
    let (first, last) = (&elements[0], &elements[elements.len() - 1]);
    vec![
        format!("CAST('{{}}' AS {array})"),
        format!("CAST(ARRAY[{}] AS {array})", elements.join(", ")),
        format!("CAST(ARRAY[NULL] AS {array})"),
        format!("CAST(ARRAY[[{first}, NULL], [NULL, {last}]] AS {array})"),
        format!("CAST(array_fill({last}, ARRAY[2, 1], ARRAY[-3, 7]) AS {array})"),
    ]
}

/// The columns for a list of types; panics about types that the list of values does not know.
fn columns(types: &[TypeRow], version: u32, binary: impl Fn(&TypeRow) -> Binary) -> Vec<Column> {
    let mut unknown = Vec::new();
    let mut columns = Vec::new();
    for row in types {
        let base = row.element.as_deref().unwrap_or(&row.name);
        if values::exception(base).is_some() {
            continue;
        }
        let Some(texts) = values::values(base, version) else {
            unknown.push(row.name.clone());
            continue;
        };
        let sql = |name: &str| format!("{}.{}", quote_identifier(&row.schema), quote_identifier(name));
        let elements: Vec<String> = texts.iter().map(|text| cast(text, &sql(base))).collect();
        let own = sql(&row.name);
        let values = match &row.element {
            None => elements,
            // A vector is an array to ARRAY[…], which would join vectors into a matrix.
            Some(element) if element.ends_with("vector") && element != "tsvector" => {
                ["{}", "{\"1 2\",NULL,\"3\"}", "[-1:0]={\"\",\"7\"}"].map(|text| cast(text, &own)).to_vec()
            }
            Some(_) => arrays(&elements, &own),
        };
        columns.push(Column {
            name: format!("{} of {}", row.name, row.schema),
            sql: own,
            values,
            // A number of the source's own is another one on the replica.
            send: row.send.clone().filter(|_| binary(row) == Binary::Carried),
            binary: binary(row),
        });
    }
    assert!(unknown.is_empty(), "no values and no exception for {unknown:?}: add them to tests/types/values.rs");
    columns
}

/// A role of the database's own, and defaults of role and database that change what values look like.
fn hostile(database: &Database, cluster: &'static cluster::Cluster) -> String {
    // From elsewhere: the database itself is no place to work in any more.
    let elsewhere = cluster.create_database("elsewhere");
    let role = format!("hostile_{}", database.name);
    elsewhere.psql(&format!("CREATE ROLE \"{role}\" LOGIN SUPERUSER"));
    for (index, (name, value)) in HOSTILE.iter().enumerate() {
        let whose = if index % 2 == 1 { format!("ROLE \"{role}\"") } else { format!("DATABASE \"{}\"", database.name) };
        elsewhere.psql(&format!("ALTER {whose} SET {name} = '{value}'"));
    }
    database.url.replace("user=postgres", &format!("user={role}"))
}

/// What psql shows of all values: column, row, text and binary form, both in hex, so that nothing can hide.
fn shown(database: &Database, columns: &[&Column]) -> BTreeSet<String> {
    let queries: Vec<String> = columns
        .iter()
        .map(|column| {
            let name = quote_identifier(&column.name);
            let send = match &column.send {
                Some(send) => format!("encode({send}({name}), 'hex')"),
                None => "''".to_owned(),
            };
            format!(
                "SELECT {} || ' ' || id || ' ' || CASE WHEN num_nulls({name}) = 1 THEN 'NULL'
                     ELSE encode(convert_to(format('%s', {name}), 'UTF8'), 'hex') || ' ' || {send} END FROM public.everything;",
                quote_literal(&column.name)
            )
        })
        .collect();
    database.psql(&format!("{PINS}{}", queries.concat())).lines().map(str::to_owned).collect()
}

/// Publishes the columns in every format and tops off a replica of another cluster with each, by COPY, by adoption and
/// by merge; panics where a value is not what it was.
fn round_trip(hint: &str, schema: &str, columns: &[Column]) -> Counts {
    let source = cluster::source().create_database(hint);
    let listed: String =
        columns.iter().map(|column| format!(", {} {}", quote_identifier(&column.name), column.sql)).collect();
    let schema = format!(
        "{schema}; CREATE TABLE everything (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT '{DAY} 10:00Z'{listed});"
    );
    let rows = columns.iter().map(|column| column.values.len()).max().unwrap_or_default();
    let names: Vec<String> = columns.iter().map(|column| quote_identifier(&column.name)).collect();
    let inserts: String = (0..=rows)
        .map(|row| {
            let value = |column: &Column| column.values.get(row).map_or("NULL", String::as_str).to_owned();
            let values: Vec<String> = columns.iter().map(value).collect();
            format!("INSERT INTO everything (id, {}) VALUES ({row}, {});\n", names.join(", "), values.join(", "))
        })
        .collect();
    source.psql(&format!("{schema}\n{inserts}"));
    let source_url = hostile(&source, cluster::source());

    let mut counts = Counts::new();
    for format in FORMATS {
        let carried: Vec<&Column> =
            columns.iter().filter(|column| format != "binary" || column.binary == Binary::Carried).collect();
        let replica = cluster::replica().create_database(hint);
        replica.psql(&schema);
        let replica_url = hostile(&replica, cluster::replica());
        let table = |columns: &str| {
            format!(
                "[source]\nurl = \"{source_url}\"\n[replica]\nurl = \"{replica_url}\"\n
                 [[table]]\nname = \"everything\"\ntime-column = \"at\"\nformat = \"{format}\"\n{columns}"
            )
        };
        let mut scene = Scene::new(&table(""));
        if carried.len() < columns.len() {
            let refused = scene.pgslice(&["export", "--date", DAY]).exits(2);
            for column in columns {
                let named = refused.stderr.contains(&format!("column {:?} of type", column.name));
                assert_eq!(named, column.binary == Binary::Refused, "{} {}\n{refused}", column.name, column.sql);
            }
            let list: Vec<String> =
                carried.iter().map(|column| format!("'{}'", quote_identifier(&column.name))).collect();
            scene.configure(&table(&format!("columns = [\"id\", \"at\", {}]", list.join(", "))));
        }
        let expected = shown(&source, &carried);
        let compare = |how: &str| {
            let found = shown(&replica, &carried);
            let lost: Vec<&String> = expected.difference(&found).take(5).collect();
            let other: Vec<&String> = found.difference(&expected).take(5).collect();
            assert!(lost.is_empty() && other.is_empty(), "{format} {how}\nlost: {lost:#?}\ninstead: {other:#?}");
        };
        let origin = || replica.psql("SELECT origin FROM pgslice.ledger");

        scene.pgslice(&["export", "--date", DAY, "--force"]).exits(0);
        scene.pgslice(&["catchup"]).exits(0);
        assert_eq!(origin(), "loaded");
        compare("by COPY");
        // The replica's own rows have the digest of the source's.
        replica.psql("DROP SCHEMA pgslice CASCADE");
        scene.pgslice(&["catchup"]).exits(0);
        assert_eq!(origin(), "adopted", "{format}");
        // A revision in which every row is another one, and the values are the same.
        source.psql("UPDATE public.everything SET at = at + interval '1 s'");
        scene.pgslice(&["export", "--date", DAY]).exits(0);
        scene.pgslice(&["catchup"]).exits(0);
        assert_eq!(origin(), "merged");
        compare("by merge");
        counts.insert(format, (carried.len(), carried.iter().map(|column| column.values.len() + 1).sum()));
    }
    counts
}

#[expect(clippy::print_stdout, reason = "what was tried goes to docs/postgres.md")]
fn say(line: &str) {
    println!("{line}");
}

fn print(what: &str, counts: &Counts) {
    for (format, (types, values)) in counts {
        say(&format!("{what}: {types} types with {values} values in {format} format"));
    }
}

/// Types whose binary form is a number of the source's own, or is not received, or that have none.
fn refused_in_binary(name: &str) -> bool {
    let name = name.trim_start_matches('_');
    name == "aclitem" || name.starts_with("reg") || matches!(name, "int2vector" | "oidvector" | "tsquery")
}

#[test]
fn every_type_of_the_catalog_arrives_in_every_format() {
    let (source, replica) =
        (cluster::source().create_database("catalog"), cluster::replica().create_database("catalog"));
    let known = types(&replica, "n.nspname = 'pg_catalog'");
    let version = version(&source).min(self::version(&replica));
    let mut types = types(&source, "n.nspname = 'pg_catalog'");
    let exceptions: Vec<&str> =
        types.iter().filter(|row| values::exception(&row.name).is_some()).map(|row| &*row.name).collect();
    say(&format!("no values: {}", exceptions.join(", ")));
    // Everything is known, also what the other side lacks.
    let everything = columns(&types, version, |_| Binary::Carried);
    types.retain(|row| known.iter().any(|other| other.name == row.name));
    let binary = |row: &TypeRow| if refused_in_binary(&row.name) { Binary::Refused } else { Binary::Carried };
    let columns = columns(&types, version, binary);
    assert!(columns.len() > 120 && everything.len() >= columns.len(), "{}", columns.len());
    print("pg_catalog", &round_trip("catalog", SCHEMA, &columns));
}

#[test]
fn every_type_of_contrib_arrives_in_every_format() {
    let (source, replica) =
        (cluster::source().create_database("contrib"), cluster::replica().create_database("contrib"));
    let available = |database: &Database, name: &str| {
        database.psql(&format!("SELECT count(*) FROM pg_available_extensions WHERE name = '{name}'")) == "1"
    };
    let (there, missing): (Vec<&str>, Vec<&str>) =
        EXTENSIONS.iter().copied().partition(|name| available(&source, name) && available(&replica, name));
    say(&format!("contrib: {} (not to be had: {})", there.join(", "), missing.join(", ")));
    if there.is_empty() {
        return;
    }
    let schema: String = there.iter().map(|name| format!("CREATE EXTENSION {name};")).collect();
    source.psql(&schema);
    let types = types(&source, "x.extname IS NOT NULL");
    // What has no functions to send and receive, and arrays, which hold the numbers of their elements' types.
    let binary = |row: &TypeRow| {
        let refused = row.element.is_some() || row.send.is_none();
        if refused { Binary::Refused } else { Binary::Carried }
    };
    let columns = columns(&types, version(&source), binary);
    print("contrib", &round_trip("contrib", &schema, &columns));
}

#[test]
fn types_of_a_users_own_arrive_in_every_format() {
    let column = |sql: &str, binary: Binary, values: &[&str]| Column {
        name: format!("own {sql}"),
        sql: format!("public.{sql}"),
        values: values.iter().map(|value| cast(value, &format!("public.{sql}"))).collect(),
        send: None,
        binary,
    };
    let moods = ["sad", " ", "a,b", "q\"uo'te", "back\\slash", "new\nline", "NULL", "ä", "\\.", "\\N"];
    let columns = [
        column("mood", Binary::Carried, &moods),
        column(
            "mood[]",
            Binary::Refused,
            &["{}", "{sad,NULL,\"NULL\",\" \"}", "[0:0]={\"new\nline\"}", "{{\"\\\\.\"},{\"\\\\N\"}}"],
        ),
        column(
            "pair",
            Binary::Carried,
            &["(,)", "(1,)", "(,\"\")", "(1,\"a,b\")", "(2,\"\"\"\")", "(3,\"\\\\.\")", "(4,\"\n\")", "(5,NULL)"],
        ),
        column("pair[]", Binary::Refused, &["{}", "{NULL}", "{\"(,)\",\"(1,\\\"a\\\\\\\\b\\\")\"}"]),
        column("one", Binary::Carried, &["()", "(\"\")", "(\\\\.)", "(\"\\\\N\")", "(\",\")"]),
        column(
            "nested",
            Binary::Refused,
            &[
                "(,,,,)",
                "(\"(1,\"\"x\"\"\"\"y\"\")\",sad,\"{a,NULL,\"\"\\\\\\\\\"\"}\",1.10,\"2024-01-01 00:00:00+00\")",
                "(\"(,)\",\"new\nline\",{},NaN,infinity)",
            ],
        ),
        column("positive", Binary::Carried, &["1", "2147483647"]),
        column("more_positive", Binary::Carried, &["11"]),
        column("positive[]", Binary::Refused, &["{}", "{1,NULL}", "[-1:0]={2,3}"]),
        column("words", Binary::Carried, &["{}", "{NULL,\"NULL\",\"\",\"\\\\.\",\"\n\"}", "[5:5]={x}"]),
        column("sane_pair", Binary::Carried, &["(,)", "(12,\"x \"\"y\"\"\")"]),
        column("float_range", Binary::Carried, &["empty", "(,)", "[-0,NaN]", "[-Infinity,0.1)", "(1e-300,1e300]"]),
        column("float_range[]", Binary::Refused, &["{}", "{empty,\"[1,2)\",NULL}"]),
        column("mood_range", Binary::Carried, &["empty", "(,)", "[sad,\"a,b\"]", "(\"new\nline\",\"\\\\N\"]"]),
        column("\"Odd, \"\"table\"\"\"", Binary::Carried, &["(,,)", "(1,\"a\nb\",\"\\\\x00ff\")", "(2,\"\",)"]),
    ];
    let counts = round_trip("own", SCHEMA, &columns);
    print("a user's own", &counts);
}

#[test]
fn random_values_arrive_in_every_format() {
    let seed = match std::env::var("PGSLICE_TEST_SEED") {
        Ok(seed) => seed.parse().expect("PGSLICE_TEST_SEED is a number"),
        Err(_) => u64::from(std::process::id()) ^ chrono::Utc::now().timestamp_micros().unsigned_abs(),
    };
    say(&format!("random values: PGSLICE_TEST_SEED={seed}"));
    let mut dice = Dice(seed);
    let columns: Vec<Column> = random::TYPES
        .iter()
        .map(|name| {
            let send = match *name {
                array if array.ends_with("[]") => "array_send",
                "int4range" | "numrange" => "range_send",
                "date" | "time" | "timestamp" | "timestamptz" | "interval" | "uuid" | "json" | "jsonb" | "point"
                | "numeric" => &format!("{name}_send"),
                "varbit" | "inet" | "macaddr" => &format!("{name}_send"),
                other => &format!("{other}send"),
            };
            let values =
                (0..60).map(|_| cast(&random::value(name, &mut dice), &format!("pg_catalog.{name}"))).collect();
            Column {
                name: (*name).to_owned(),
                sql: format!("pg_catalog.{name}"),
                values,
                send: Some(format!("pg_catalog.{send}")),
                binary: Binary::Carried,
            }
        })
        .collect();
    print(&format!("random (seed {seed})"), &round_trip("random", "", &columns));
}
