//! A password is in no output, log or error, wherever it came from and whatever goes wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::certificates::certificates;
use super::server::server;
use crate::cluster::{self, unused_port};
use crate::pair::{NOTES_TABLE, Pair};
use crate::scene::{Ran, Scene};

/// Nothing else has these letters in a row, nor any part of them.
const SECRET: &str = "Xq7-Zw9#Kj4";
/// What a URL has of it.
const ENCODED: &str = "Xq7-Zw9%23Kj4";
/// Parts that a parser may split it into, and forms that it may be sent in.
const TRACES: [&str; 4] = ["Xq7", "Zw9", "Kj4", "58712d"];

#[track_caller]
fn assert_silent(ran: &Ran, what: &str) {
    let told = format!("{}{}", ran.stdout, ran.stderr);
    for trace in TRACES {
        assert!(!told.contains(trace), "{what}: {trace} is told\n{ran}");
    }
}

/// Runs that fail or not, told as much about as possible.
fn run_everything(scene: &Scene, what: &str) {
    for arguments in [
        &["export", "--dry-run", "-vv"][..],
        &["export", "--dry-run", "-vv", "--json", "--log-format", "json"],
        &["export", "--date", "2024-05-01", "-v"],
        &["export", "--quiet"],
        &["status", "-vv"],
        &["catchup", "-vv"],
        &["catchup", "--json", "-vv", "--log-format", "json"],
        &["check", "-vv"],
        &["prune", "-vv"],
    ] {
        let ran = scene.pgslice(arguments);
        assert!(ran.code != 101, "{what}\n{ran}");
        assert_silent(&ran, &format!("{what}, {arguments:?}"));
    }
}

/// Both sides by that connection string.
fn scene(url: &str) -> Scene {
    let mut scene = Scene::in_folder(NOTES_TABLE);
    scene.publish_from(url);
    scene.top_off(url);
    scene
}

fn write(path: &Path, mode: u32, content: &str) {
    fs::write(path, content).expect("write a file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set permissions");
}

#[test]
fn a_password_in_a_connection_string_is_not_told() {
    let port = server().port();
    let dead = unused_port();
    let root = certificates().path("authority.pem");
    for url in [
        // It is wrong; the user has none; nobody is there; the database does not exist.
        format!("postgres://alice:{ENCODED}@localhost:{port}/alice"),
        format!("postgres://by_password:{ENCODED}@localhost:{port}/alice"),
        format!("postgres://by_md5:{ENCODED}@localhost:{port}/alice?sslmode=disable"),
        format!("postgres://by_trust:{ENCODED}@localhost:{port}/no_such_database"),
        format!("postgres://alice:{ENCODED}@localhost:{dead}/alice"),
        format!("postgres://alice:{ENCODED}@no-such-host.invalid/alice"),
        format!(
            "host=localhost port={port} user=alice password='{SECRET}' sslmode=verify-full sslrootcert={}",
            root.display()
        ),
        format!("host=localhost port={port} user=alice password='{SECRET}' sslmode=verify-full"),
        format!("host=localhost port={port} user=alice password='{SECRET}' channel_binding=require sslmode=disable"),
        format!("postgres://localhost:{port}/alice?user=alice&password={ENCODED}"),
        // It cannot be read.
        format!("postgres://alice:{SECRET}@localhost:{port}/alice"),
        format!("postgres://alice:Xq7@Zw9@Kj4@localhost:{port}/alice"),
        format!("postgres://alice:Xq7/Zw9@localhost:{port}/alice"),
        format!("postgres://alice:Xq7?Zw9=Kj4@localhost:{port}/alice"),
        format!("postgres://alice:Xq7%Zw9@localhost:{port}/alice"),
        format!("postgres://alice@localhost:{SECRET}/alice"),
        format!("user=alice password={SECRET} Zw9 host=localhost"),
        format!("user=alice password='{SECRET} host=localhost"),
        "user=alice password=Xq7 Zw9=Kj4 host=localhost".to_owned(),
        format!("postgres://alice:{ENCODED}@localhost:{port}/alice?Zw9=Kj4"),
        format!("postgres://alice:{ENCODED}@localhost:{port}/alice?sslmode=Zw9"),
        format!("postgres://alice:{ENCODED}@a,b/alice?port=1,2,3"),
        format!("postgres://alice:{ENCODED}@localhost:{port}/alice?sslcert=/nonexistent&sslmode=require"),
        format!("mysql://alice:{ENCODED}@localhost:{port}/alice"),
        SECRET.to_owned(),
    ] {
        run_everything(&scene(&url), "the string");
        let mut on_the_command_line = scene("postgres://localhost/alice");
        on_the_command_line.set("PGCONNECT_TIMEOUT", "2");
        let ran = on_the_command_line.pgslice(&["catchup", "-vv", &format!("--replica={url}")]);
        assert_silent(&ran, "--replica");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_does_not_tell_the_password_in_it() {
    for line in [
        format!("url = \"postgres://alice:{ENCODED}@localhost/alice"),
        format!("url = postgres://alice:{ENCODED}@localhost/alice"),
        format!("url = [\"postgres://alice:{ENCODED}@localhost/alice\"]"),
        format!("ulr = \"postgres://alice:{ENCODED}@localhost/alice\""),
        format!("password = \"{SECRET}\""),
        format!("url = \"postgres://localhost\" \"{SECRET}\""),
    ] {
        let scene = scene("postgres://localhost/alice");
        scene.edit_configuration("[source]\nurl = \"postgres://localhost/alice\"\n", &format!("[source]\n{line}\n"));
        run_everything(&scene, &line);
    }
}

#[test]
fn a_password_from_elsewhere_is_not_told_either() {
    let port = server().port();
    for user in ["alice", "by_md5", "by_password", "nobody"] {
        let url = format!("postgres://{user}@localhost:{port}/alice");
        let mut by_environment = scene(&url);
        by_environment.set("PGPASSWORD", SECRET);
        run_everything(&by_environment, "PGPASSWORD");

        let by_passfile = scene(&url);
        let passfile = by_passfile.folder().join(".pgpass");
        for (mode, content) in [
            (0o600, format!("*:*:*:*:{SECRET}\n")),
            (0o644, format!("*:*:*:*:{SECRET}\n")),
            (0o600, format!("{SECRET}\n*:*:{SECRET}\n")),
        ] {
            write(&passfile, mode, &content);
            run_everything(&by_passfile, "the passfile");
        }

        for (content, mode) in
            [(format!("{SECRET}\n"), 0o600), (format!("{SECRET}\n"), 0o644), (format!("{SECRET}\n{SECRET}\n"), 0o600)]
        {
            let by_file = scene(&url);
            write(&by_file.folder().join("secret"), mode, &content);
            for section in ["source", "replica"] {
                let from = format!("[{section}]\n");
                by_file.edit_configuration(&from, &format!("{from}password-file = \"secret\"\n"));
            }
            run_everything(&by_file, "the password-file");
        }

        let by_service = scene("service=mine");
        let service = format!("[mine]\nhost=localhost\nport={port}\nuser={user}\ndbname=alice\n");
        for wrong in ["", "nonsense\n", "Zw9=Kj4\n", "sslmode=Zw9\n"] {
            let content = format!("{service}password={SECRET}\n{wrong}");
            write(&by_service.folder().join(".pg_service.conf"), 0o600, &content);
            run_everything(&by_service, "the service file");
        }
    }
}

#[test]
fn nothing_but_the_users_own_words_is_on_the_command_line() {
    let (silent, url) = silent_server();
    let mut scene = scene(&url);
    scene.set("PGPASSWORD", SECRET);
    let running = scene.spawn(&["export", "--dry-run"]);
    let accepted = silent.accept().expect("it connects");
    let line = fs::read_to_string(format!("/proc/{}/cmdline", running.id())).expect("a running process");
    assert!(line.ends_with("\0export\0--dry-run\0"), "{line:?}");
    drop(accepted);
    assert_silent(&running.kill(), "a run that is killed");
}

fn silent_server() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    (listener, format!("postgres://alice@127.0.0.1:{port}/alice?sslmode=disable"))
}

/// Lines of standard error that warn of a password where others can read it.
fn warnings(ran: &Ran) -> Vec<&str> {
    ran.stderr.lines().filter(|line| line.contains("WARN") && line.contains("password")).collect()
}

#[test]
fn a_password_in_the_configuration_or_on_the_command_line_draws_one_warning_that_names_what_is_better() {
    let mut pair = Pair::of_notes(1);
    pair.scene.publish_from(&pair.source.tcp_url());
    let password = [cluster::source().password(), cluster::replica().password()];
    for (arguments, replica_url) in [
        (vec!["export".to_owned()], pair.replica.url.clone()),
        (vec!["catchup".to_owned()], pair.replica.tcp_url()),
        (vec!["catchup".to_owned(), format!("--replica={}", pair.replica.tcp_url())], pair.replica.url.clone()),
        (vec!["status".to_owned()], pair.replica.tcp_url()),
    ] {
        pair.scene.top_off(&replica_url);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ran = pair.scene.pgslice(&arguments).exits(0);
        let [warning] = warnings(&ran)[..] else { panic!("one warning is expected\n{ran}") };
        for better in ["password-file", "PGPASSWORD", "passfile"] {
            assert!(warning.contains(better), "{better} is not named\n{ran}");
        }
        let told = format!("{}{}", ran.stdout, ran.stderr);
        assert!(password.iter().all(|password| !told.contains(password)), "{ran}");
    }
    // Whoever keeps it elsewhere is not warned.
    pair.scene.publish_from(&pair.source.tcp_url().replace(&format!(":{}@", password[0]), "@"));
    pair.scene.set("PGPASSWORD", password[0]);
    let ran = pair.scene.pgslice(&["export"]).exits(0);
    assert!(warnings(&ran).is_empty(), "{ran}");
}

#[test]
fn a_password_file_holds_the_password_and_nothing_else() {
    let mut pair = Pair::of_notes(1);
    let without = |url: String, password: &str| url.replace(&format!(":{password}@"), "@");
    pair.scene.publish_from(&without(pair.source.tcp_url(), cluster::source().password()));
    pair.scene.top_off(&without(pair.replica.tcp_url(), cluster::replica().password()));
    let folder = pair.scene.folder().to_owned();
    write(&folder.join("source.password"), 0o600, &format!("{}\n", cluster::source().password()));
    write(&folder.join("replica.password"), 0o600, cluster::replica().password());
    pair.scene.edit_configuration("[source]\n", "[source]\npassword-file = \"source.password\"\n");
    let absolute = folder.join("replica.password").display().to_string();
    pair.scene.edit_configuration("[replica]\n", &format!("[replica]\npassword-file = \"{absolute}\"\n"));
    // It stands above the environment and the passfile.
    pair.scene.set("PGPASSWORD", "wrong");
    write(&folder.join(".pgpass"), 0o600, "*:*:*:*:wrong\n");
    pair.export("2024-05-01");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    fs::remove_file(folder.join("source.password")).expect("remove a file");
    pair.scene.pgslice(&["export"]).exits(2);
}
