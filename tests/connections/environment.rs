//! What a connection string leaves out comes from the environment, and what both leave out by rule.

use super::caller::Caller;
use super::certificates::certificates;
use super::server::server;

fn port() -> String {
    server().port().to_string()
}

/// Somebody whose environment says everything; the connection string may say it better.
fn alice_by_environment(url: &str) -> Caller {
    Caller::of(url)
        .with("PGHOST", "localhost")
        .with("PGPORT", port())
        .with("PGUSER", "alice")
        .with("PGDATABASE", "alice")
        .with("PGPASSWORD", "alice-secret")
}

#[test]
fn an_environment_can_say_everything() {
    for url in ["postgres://", "postgresql://", "postgresql:///"] {
        alice_by_environment(url).gets_in_as("alice", "alice", server());
    }
    Caller::of("postgres:///alice?user=alice")
        .with("PGHOSTADDR", "127.0.0.1")
        .with("PGPORT", port())
        .with("PGPASSWORD", "alice-secret")
        .gets_in_as("alice", "alice", server());
    Caller::of("postgres:///alice?user=alice")
        .with("PGHOST", server().socket_dir().display().to_string())
        .with("PGPORT", port())
        .with("PGPASSWORD", "alice-secret")
        .gets_in_as("alice", "alice", server());
}

#[test]
fn a_connection_string_says_it_better() {
    let port = port();
    for url in [
        format!("postgres://alice:alice-secret@localhost:{port}/alice"),
        format!("postgresql://alice:alice-secret@localhost:{port}"),
        format!("postgres://localhost:{port}/alice?user=alice&password=alice-secret"),
        format!("postgres://localhost/bob?dbname=alice&user=alice&password=alice%2Dsecret&port={port}"),
        format!("host=localhost port={port} user=alice password=alice-secret dbname=alice"),
        format!("  host = localhost  port = '{port}' user=bob user='alice' password = 'alice-secret' dbname=alice "),
        format!("host=nowhere.invalid hostaddr=127.0.0.1 port={port} user=alice password=alice-secret dbname=alice"),
    ] {
        Caller::of(url)
            .with("PGHOST", "/nonexistent")
            .with("PGPORT", "1")
            .with("PGUSER", "bob")
            .with("PGPASSWORD", "wrong")
            .with("PGDATABASE", "alice")
            .gets_in_as("alice", "alice", server());
    }
    alice_by_environment("dbname=bob user=bob password=bob-secret").gets_in_as("bob", "bob", server());
    alice_by_environment("postgres:///two%20words").gets_in_as("alice", "two words", server());
    alice_by_environment("dbname='two words'").gets_in_as("alice", "two words", server());
    // A user without a database of the environment's goes to the one of that name.
    Caller::of(format!("host=localhost port={port} user=bob password=bob-secret")).gets_in_as("bob", "bob", server());
}

#[test]
fn the_environment_says_how_to_encrypt() {
    let root = || certificates().path("authority.pem").display().to_string();
    let protocol = |caller: Caller| caller.gets_in_as("alice", "alice", server()).protocol;
    assert_eq!(protocol(alice_by_environment("postgres://").with("PGSSLMODE", "disable")), None);
    let with = |mode: &str| alice_by_environment("postgres://").with("PGSSLMODE", mode);
    assert!(protocol(with("require")).is_some());
    assert!(protocol(with("verify-full").with("PGSSLROOTCERT", root())).is_some());
    with("verify-full").agrees(server()).expect_err("no root");
    let stranger = certificates().path("stranger.pem").display().to_string();
    with("verify-full").with("PGSSLROOTCERT", stranger).agrees(server()).expect_err("another root");
    let older = protocol(with("require").with("PGSSLMAXPROTOCOLVERSION", "TLSv1.2"));
    assert_eq!(older.as_deref(), Some("TLSv1.2"));
    with("require").with("PGSSLMINPROTOCOLVERSION", "nonsense").stays_out(2, server());
    let list = certificates().path("revoked.crl").display().to_string();
    protocol(with("verify-full").with("PGSSLROOTCERT", root()).with("PGSSLCRL", list));
    with("disable").with("PGCHANNELBINDING", "require").agrees(server()).expect_err("nothing to bind to");
    protocol(with("require").with("PGCHANNELBINDING", "require"));
    protocol(with("require").with("PGSSLSNI", "0"));
    let verified = alice_by_environment("postgres://?sslmode=require").with("PGSSLMODE", "verify-full");
    assert!(protocol(verified).is_some(), "the string says it better");
}

#[test]
fn a_value_that_makes_no_sense_is_refused_by_both() {
    for (name, value) in [
        ("PGSSLMODE", "nonsense"),
        ("PGPORT", "0"),
        ("PGPORT", "70000"),
        ("PGPORT", "abc"),
        ("PGCONNECT_TIMEOUT", "abc"),
        ("PGCHANNELBINDING", "nonsense"),
        ("PGTARGETSESSIONATTRS", "nonsense"),
    ] {
        alice_by_environment("postgres://").with(name, value).stays_out(2, server());
    }
    for url in [
        "sslmode=nonsense",
        "channel_binding=nonsense",
        "target_session_attrs=nonsense",
        "port=0",
        "port=70000",
        "port=abc",
        "connect_timeout=abc",
        "keepalives=abc",
        "keepalives_idle=abc",
        "tcp_user_timeout=abc",
        "no_such_option=1",
        "user",
        "user='alice",
        "host=localhost,localhost port=1,2,3",
        "host=a,b hostaddr=127.0.0.1",
        "postgres://localhost/alice?no_such_option=1",
        "postgres://localhost/alice?user",
        "postgres://localhost/alice%",
        "postgres://localhost/alice%zz",
        "postgres://localhost/alice%00",
        "postgres://[::1/alice",
        "postgres://localhost:abc/alice",
    ] {
        alice_by_environment(url).stays_out(2, server());
    }
}

#[test]
fn options_without_an_effect_on_the_outcome_are_taken() {
    for url in [
        "connect_timeout=5",
        "keepalives=0",
        "keepalives=1 keepalives_idle=30 keepalives_interval=5 keepalives_count=3",
        "tcp_user_timeout=5000",
        "fallback_application_name=fallback",
        "application_name='a name with \\'quotes\\''",
        "gssencmode=disable",
        "gssencmode=prefer",
        "krbsrvname=postgres",
        "sslcompression=0",
        "client_encoding=LATIN1",
        "client_encoding=auto",
        "target_session_attrs=any",
        "target_session_attrs=read-write",
        "target_session_attrs=primary",
        "target_session_attrs=prefer-standby",
        "options='-c statement_timeout=1 -c search_path=evil'",
        "options='-c geqo=off' sslmode=require",
        "postgres://?ssl=true",
        "postgres://?options=-c%20geqo%3Doff&connect_timeout=3&keepalives_idle=10",
    ] {
        let caller = alice_by_environment(url);
        if url.contains("application_name='") {
            // That name is what the log tells them apart by.
            assert!(caller.try_psql(server()).is_ok());
            let mut caller = caller;
            let ran = caller.try_pgslice();
            assert_eq!(ran.code, 0, "{ran}");
            continue;
        }
        caller.gets_in_as("alice", "alice", server());
    }
    for (name, value) in [
        ("PGCONNECT_TIMEOUT", "5"),
        ("PGOPTIONS", "-c statement_timeout=1"),
        ("PGCLIENTENCODING", "LATIN1"),
        ("PGTARGETSESSIONATTRS", "read-write"),
        ("PGGSSENCMODE", "disable"),
        ("PGTZ", "America/New_York"),
        ("PGDATESTYLE", "SQL, DMY"),
        ("PGSERVICEFILE", "/nonexistent"),
        ("PGPASSFILE", "/nonexistent"),
    ] {
        alice_by_environment("postgres://").with(name, value).gets_in_as("alice", "alice", server());
    }
}

#[test]
fn what_cannot_be_given_is_refused_and_not_left_out() {
    // There is no ticket, and no Kerberos in pgslice.
    alice_by_environment("gssencmode=require").agrees(server()).expect_err("no ticket");
    // Nobody but the server's owner is believed at its socket.
    let socket = server().socket_dir().display().to_string();
    let by_socket = |owner: &str| alice_by_environment(&format!("host={socket} requirepeer={owner}"));
    by_socket("no_such_user").agrees(server()).expect_err("another owner");
    // pgslice is no standby.
    let ran = alice_by_environment("replication=true").try_pgslice();
    assert_eq!(ran.code, 2, "{ran}");
    // What psql is too old for on some systems that these tests run on.
    for url in ["require_auth=md5", "sslcertmode=require", "no_such_option=1"] {
        let ran = alice_by_environment(url).try_pgslice();
        assert_ne!(ran.code, 0, "{url}\n{ran}");
    }
}

#[test]
fn pgslice_gives_its_name_where_nobody_gives_another() {
    let name = |setting: &str| {
        let url = format!("host=localhost port={} user=alice password=alice-secret dbname=bob {setting}", port());
        let before = server().log().matches("database=bob application_name=pgslice SSL").count();
        let mut scene = crate::scene::Scene::in_folder(crate::pair::NOTES_TABLE);
        scene.publish_from(&url);
        scene.pgslice(&["export", "--dry-run"]).exits(0);
        server().log().matches("database=bob application_name=pgslice SSL").count() > before
    };
    assert!(name(""));
    assert!(name("application_name="));
}
