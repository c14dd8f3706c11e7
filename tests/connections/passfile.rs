//! Passwords from a passfile: whose line matches, what is escaped, and who else may read it.

use super::caller::Caller;
use super::server::server;

/// A connection string without a password.
fn url() -> String {
    format!("postgres://alice@localhost:{}/alice", server().port())
}

fn with_passfile(content: &str) -> Caller {
    Caller::of(url()).holding(".pgpass", 0o600, content)
}

#[test]
fn a_line_matches_by_host_port_database_and_user() {
    let port = server().port();
    for line in [
        format!("localhost:{port}:alice:alice:alice-secret"),
        format!("localhost:{port}:*:alice:alice-secret\n"),
        "*:*:*:*:alice-secret\n".to_owned(),
        "# a comment\n\n*:*:*:alice:alice-secret\n".to_owned(),
        format!("other:{port}:alice:alice:wrong\nlocalhost:{port}:alice:alice:alice-secret\n"),
        format!("localhost:1:alice:alice:wrong\n*:{port}:alice:alice:alice-secret\n*:*:*:*:wrong"),
        "*:*:bob:alice:wrong\n*:*:*:bob:wrong\n*:*:*:*:alice-secret:and more\n".to_owned(),
        "*:*:*:*:alice\\-secret\n".to_owned(),
        "*:*:*:*:alice-secret\r\n".to_owned(),
        "local\\host:*:al\\ice:\\alice:alice-secret\n".to_owned(),
    ] {
        with_passfile(&line).gets_in_as("alice", "alice", server());
    }
    for line in [
        "",
        "# *:*:*:*:alice-secret\n",
        "*:*:*:alice-secret\n",
        "*:*:*:*:\n",
        "*:*:*:*:wrong\n*:*:*:*:alice-secret\n",
        "127.0.0.1:*:*:*:alice-secret\n",
        "LOCALHOST:*:*:*:alice-secret\n",
        "local*:*:*:*:alice-secret\n",
        " *:*:*:*:alice-secret\n",
        "*:*:*:*:alice-secret \n",
        "*:*:postgres:alice:alice-secret\n",
        "\\*:*:*:*:alice-secret\n",
    ] {
        with_passfile(line).stays_out(6, server());
    }
}

#[test]
fn a_host_is_matched_as_it_was_named() {
    let port = server().port();
    let try_it = |options: &str, host: &str| {
        let url = format!("user=alice dbname=alice port={port} {options}");
        Caller::of(url).holding(".pgpass", 0o600, format!("{host}:*:*:*:alice-secret\n")).agrees(server()).is_ok()
    };
    assert!(try_it("host=127.0.0.1", "127.0.0.1"));
    assert!(!try_it("host=127.0.0.1", "localhost"));
    assert!(try_it("hostaddr=127.0.0.1", "127.0.0.1"));
    assert!(!try_it("hostaddr=127.0.0.1", "localhost"));
    assert!(try_it("host=db.example.test hostaddr=127.0.0.1", "db.example.test"));
    assert!(!try_it("host=db.example.test hostaddr=127.0.0.1", "127.0.0.1"));
    // "localhost" stands for the default folder of sockets, not for others.
    let folder = server().socket_dir().display().to_string();
    assert!(try_it(&format!("host={folder}"), &folder));
    assert!(!try_it(&format!("host={folder}"), "localhost"));
}

#[test]
fn what_is_special_is_escaped() {
    let secret = "a:b\\c d#e";
    let cluster = super::server::start("right", "");
    cluster
        .psql(
            "postgres",
            &format!(
                "SET standard_conforming_strings = on; CREATE USER \"co:lon\" PASSWORD '{secret}';
                 CREATE DATABASE \"back\\slash\""
            ),
        )
        .expect("create a user");
    let url = format!("postgres://co%3Alon@localhost:{}/back%5Cslash", cluster.port());
    let line = "localhost:*:back\\\\slash:co\\:lon:a\\:b\\\\c d#e\n";
    Caller::of(&*url).holding(".pgpass", 0o600, line).gets_in_as("co:lon", "back\\slash", cluster);
    Caller::of(&*url).holding(".pgpass", 0o600, "*:*:*:*:a:b\\c d#e\n").stays_out(6, cluster);
}

#[test]
fn a_file_that_others_can_read_is_passed_over_with_a_warning() {
    let line = "*:*:*:*:alice-secret\n";
    for mode in [0o600, 0o400] {
        Caller::of(url()).holding(".pgpass", mode, line).gets_in_as("alice", "alice", server());
    }
    for mode in [0o640, 0o604, 0o660, 0o644, 0o620] {
        let refusal = Caller::of(url()).holding(".pgpass", mode, line).stays_out(6, server());
        assert!(refusal.psql.contains("WARNING: password file"), "{}", refusal.psql);
        let told = &refusal.pgslice.stderr;
        assert_eq!(told.matches(".pgpass").count(), 1, "one warning names the file\n{}", refusal.pgslice);
    }
    let mut somewhere_else = Caller::of(url()).holding("elsewhere", 0o644, line).with("PGPASSWORD", "alice-secret");
    let path = somewhere_else.home().join("elsewhere").display().to_string();
    somewhere_else = somewhere_else.with("PGPASSFILE", path);
    somewhere_else.gets_in_as("alice", "alice", server());
    // A folder, and what is no regular file.
    Caller::of(url()).holding(".pgpass/file", 0o600, line).stays_out(6, server());
    Caller::of(url()).with("PGPASSFILE", "/dev/null").stays_out(6, server());
}

#[test]
fn a_file_is_named_by_the_string_or_the_environment_or_lies_in_the_home() {
    let right = "*:*:*:*:alice-secret\n";
    let wrong = "*:*:*:*:wrong\n";
    let caller = Caller::of(url()).holding(".pgpass", 0o600, wrong).holding("named", 0o600, right);
    let named = caller.home().join("named").display().to_string();
    caller.with("PGPASSFILE", named).gets_in_as("alice", "alice", server());

    let home = Caller::of("").holding("named", 0o600, right);
    let named = home.home().join("named").display().to_string();
    Caller::of(format!("{}?passfile={named}", url()))
        .with("PGPASSFILE", "/nonexistent")
        .holding(".pgpass", 0o600, wrong)
        .gets_in_as("alice", "alice", server());
    // A file that is named and missing is no reason to look elsewhere.
    with_passfile(right).with("PGPASSFILE", "/nonexistent").stays_out(6, server());
    // Whatever else gives a password comes first.
    with_passfile(wrong).with("PGPASSWORD", "alice-secret").gets_in_as("alice", "alice", server());
    with_passfile(right).with("PGPASSWORD", "wrong").stays_out(6, server());
    let with_password = url().replace("alice@", "alice:alice-secret@");
    Caller::of(with_password).holding(".pgpass", 0o600, wrong).gets_in_as("alice", "alice", server());
}

#[test]
fn each_host_has_its_own_line() {
    let port = server().port();
    let url = format!("postgres://alice@localhost:1,127.0.0.1:{port}/alice");
    let line = format!("localhost:1:*:*:wrong\n127.0.0.1:{port}:*:*:alice-secret\n");
    Caller::of(url).holding(".pgpass", 0o600, line).gets_in_as("alice", "alice", server());
}
