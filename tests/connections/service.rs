//! Connections described in a service file.

use super::caller::Caller;
use super::certificates::certificates;
use super::server::server;

/// A section of that name that gets alice in.
fn section(name: &str) -> String {
    format!("[{name}]\nhost=localhost\nport={}\nuser=alice\npassword=alice-secret\ndbname=alice\n", server().port())
}

fn with_file(url: &str, content: &str) -> Caller {
    Caller::of(url).holding(".pg_service.conf", 0o644, content)
}

#[test]
fn a_service_is_named_by_the_string_or_the_environment() {
    let file = format!("# services\n[other]\nhost=/nonexistent\n\n  {}", section("mine"));
    for url in ["service=mine", "postgres://?service=mine", "postgresql:///?service=mine"] {
        with_file(url, &file).gets_in_as("alice", "alice", server());
        with_file(url, &file).with("PGSERVICE", "other").gets_in_as("alice", "alice", server());
    }
    with_file("postgres://", &file).with("PGSERVICE", "mine").gets_in_as("alice", "alice", server());
}

#[test]
fn the_string_comes_before_the_service_and_that_before_the_environment() {
    let file = section("mine");
    with_file("service=mine dbname=bob", &file).gets_in_as("alice", "bob", server());
    with_file("service=mine user=bob password=bob-secret", &file).gets_in_as("bob", "alice", server());
    with_file("service=mine", &file)
        .with("PGHOST", "/nonexistent")
        .with("PGPORT", "1")
        .with("PGUSER", "bob")
        .with("PGPASSWORD", "wrong")
        .with("PGDATABASE", "bob")
        .gets_in_as("alice", "alice", server());
    // What the service leaves out is left to the environment, and the password to the passfile.
    let without = file.replace("password=alice-secret\n", "").replace("dbname=alice\n", "");
    with_file("service=mine", &without).with("PGPASSWORD", "alice-secret").with("PGDATABASE", "bob").gets_in_as(
        "alice",
        "bob",
        server(),
    );
    with_file("service=mine", &without).holding(".pgpass", 0o600, "*:*:*:*:alice-secret\n").gets_in_as(
        "alice",
        "alice",
        server(),
    );
}

#[test]
fn a_service_says_how_to_encrypt_too() {
    let root = certificates().path("authority.pem");
    let file = format!("{}sslmode=verify-full\nsslrootcert={}\n", section("mine"), root.display());
    let login = with_file("service=mine", &file).gets_in_as("alice", "alice", server());
    assert_eq!(login.protocol.as_deref(), Some("TLSv1.3"));
    let file = format!("{}sslmode=disable\n", section("mine"));
    let login = with_file("service=mine", &file).with("PGSSLMODE", "require").gets_in_as("alice", "alice", server());
    assert_eq!(login.protocol, None);
}

#[test]
fn a_file_is_named_by_the_environment_or_lies_in_the_home_or_with_the_system() {
    let wrong = section("mine").replace("alice-secret", "wrong");
    let caller = with_file("service=mine", &wrong).holding("named", 0o644, section("mine"));
    let named = caller.home().join("named").display().to_string();
    caller.with("PGSERVICEFILE", named).gets_in_as("alice", "alice", server());

    let system = |caller: Caller| {
        let caller = caller.holding("system/pg_service.conf", 0o644, section("mine"));
        let folder = caller.home().join("system").display().to_string();
        caller.with("PGSYSCONFDIR", folder)
    };
    system(Caller::of("service=mine")).gets_in_as("alice", "alice", server());
    system(with_file("service=mine", "[other]\nhost=/nonexistent\n")).gets_in_as("alice", "alice", server());
    system(with_file("service=mine", &wrong)).stays_out(6, server());
    system(Caller::of("service=mine").with("PGSERVICEFILE", "/nonexistent")).agrees(server()).expect_err("no file");
}

#[test]
fn a_service_that_cannot_be_read_is_refused_by_both() {
    let mine = section("mine");
    for content in [
        String::new(),
        "[other]\nhost=localhost\n".to_owned(),
        mine.replace("user=alice", "no_such_option=1"),
        mine.replace("user=alice", "user"),
        mine.replace("user=alice", "service=other"),
        mine.replace("user=alice", "user = alice"),
        mine.replace("[mine]", "[Mine]"),
        mine.replace("[mine]", "[mine"),
    ] {
        let outcome = with_file("service=mine", &content).agrees(server());
        if let Err(refusal) = outcome {
            assert_eq!(refusal.pgslice.code, 2, "{content}\n{}", refusal.pgslice);
            assert!(!refusal.pgslice.to_string().contains("alice-secret"), "{}", refusal.pgslice);
        }
    }
    Caller::of("service=mine").stays_out(2, server());
    // A service that nobody asks for does not matter.
    let url = format!("postgres://alice:alice-secret@localhost:{}/alice", server().port());
    with_file(&url, "nonsense").gets_in_as("alice", "alice", server());
}

#[test]
fn only_the_first_section_of_a_name_counts_and_so_does_the_first_value_of_a_key() {
    let file = format!("{}user=bob\n[mine]\ndbname=bob\n", section("mine"));
    let login = with_file("service=mine", &file).agrees(server()).expect("a login");
    assert_eq!((&*login.user, &*login.database), ("alice", "alice"));
    let file = format!("[mine]\r\n{}", section("mine").replace("[mine]\n", "").replace('\n', "\r\n"));
    let _ = with_file("service=mine", &file).agrees(server());
    let file = section("mine").replace("user=alice", "  user=alice  \n;comment");
    let _ = with_file("service=mine", &file).agrees(server());
}
