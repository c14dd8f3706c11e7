//! The settings of `sql/session.sql` stand above the defaults of roles and databases.

use super::{copy, endpoint, session};
use crate::cluster::{Database, source};

/// Setting, a hostile default, and what a session has.
const PINS: [(&str, &str, &str); 24] = [
    ("statement_timeout", "50ms", "0"),
    ("idle_in_transaction_session_timeout", "1ms", "0"),
    ("idle_session_timeout", "2s", "0"),
    ("lock_timeout", "1ms", "10s"),
    ("client_encoding", "LATIN1", "UTF8"),
    ("timezone", "America/New_York", "UTC"),
    ("datestyle", "SQL, DMY", "ISO, MDY"),
    ("intervalstyle", "sql_standard", "postgres"),
    ("extra_float_digits", "-15", "3"),
    ("bytea_output", "escape", "hex"),
    ("lc_monetary", "C.UTF-8", "C"),
    ("xmloption", "document", "content"),
    ("quote_all_identifiers", "on", "off"),
    ("standard_conforming_strings", "off", "on"),
    ("array_nulls", "off", "on"),
    ("transform_null_equals", "on", "off"),
    ("search_path", "hostile", "\"\""),
    ("row_security", "on", "off"),
    ("synchronize_seqscans", "on", "off"),
    ("jit", "on", "off"),
    ("default_transaction_isolation", "serializable", "read committed"),
    ("default_transaction_deferrable", "on", "off"),
    ("client_min_messages", "debug1", "error"),
    ("exit_on_error", "on", "off"),
];

/// A role of the database's own whose every default is wrong; the URL to log in with it.
fn hostile(database: &Database) -> String {
    // From elsewhere: the database itself is no place to work in any more.
    let elsewhere = source().create_database("elsewhere");
    let role = format!("hostile_{}", database.name);
    elsewhere.psql(&format!("CREATE ROLE \"{role}\" LOGIN SUPERUSER"));
    for (index, (name, value, _)) in PINS.iter().enumerate() {
        let whose = if index % 2 == 0 { format!("ROLE \"{role}\"") } else { format!("DATABASE \"{}\"", database.name) };
        elsewhere.psql(&format!("ALTER {whose} SET {name} = '{value}'"));
    }
    database.url.replace("user=postgres", &format!("user={role}"))
}

#[test]
fn every_pin_of_the_file_is_tested() {
    let file = include_str!("../../sql/session.sql").to_lowercase();
    let set = file.lines().filter_map(|line| line.strip_prefix("set ")?.split_once(" = ").map(|(name, _)| name));
    for name in set {
        assert!(PINS.iter().any(|pin| pin.0 == name), "{name}");
    }
}

#[test]
fn a_session_has_its_settings_whatever_the_defaults_of_role_and_database_are() {
    let database = source().create_database("pins");
    let url = hostile(&database);
    let mut session = session(&url);
    for (name, _, expected) in PINS {
        let rows = session.query(&format!("SHOW {name}"), &[]).expect(name);
        assert_eq!(rows[0].get(0), Some(expected), "{name}");
    }
}

#[tokio::test]
async fn a_client_has_the_same_settings() {
    let database = source().create_database("client_pins");
    let client = endpoint(&hostile(&database)).client().await.expect("a client");
    for (name, _, expected) in PINS {
        let row = client.query_one(&format!("SHOW {name}"), &[]).await.expect(name);
        assert_eq!(row.get::<_, &str>(0), expected, "{name}");
    }
}

#[test]
fn values_look_the_same_under_hostile_defaults() {
    let plain = source().create_database("plain");
    let database = source().create_database("values");
    let url = hostile(&database);
    let sql = r"COPY (SELECT timestamptz '2024-05-01 00:30+00', date '2024-05-02', interval '1 mon -2 days 03:00',
                     0.1::float8 + 0.2::float8, '\x00ff'::bytea, 12.5::numeric::money, 'ä') TO STDOUT";
    let hostile = copy(&mut session(&url), sql).expect("a COPY");
    assert_eq!(hostile, copy(&mut session(&plain.url), sql).expect("a COPY"));
    assert_eq!(
        String::from_utf8(hostile.0.concat()).expect("UTF-8"),
        "2024-05-01 00:30:00+00\t2024-05-02\t1 mon -2 days +03:00:00\t0.30000000000000004\t\\\\x00ff\t$12.50\tä\n"
    );
}
