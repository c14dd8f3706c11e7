//! TLS: what each `sslmode` makes of each certificate, and what the server wants to see of ours.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::caller::Caller;
use super::certificates::{GOOD, ODD, certificates};
use super::server::{self, server, show};
use crate::cluster::Cluster;

const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// A connection string of alice's with further options.
fn alice(cluster: &Cluster, options: &str) -> String {
    format!("port={} user=alice password=alice-secret dbname=alice {options}", cluster.port())
}

/// Where a trusted authority is named, and which.
#[derive(Debug, Clone, Copy)]
enum Trust {
    /// Nowhere.
    None,
    /// `sslrootcert` names the file of that certificate.
    Named(&'static str),
    /// It lies where libpq looks by default.
    AtHome(&'static str),
    /// `sslrootcert` names a file that is not there.
    Missing,
}

const TRUSTS: [Trust; 6] = [
    Trust::None,
    Trust::Named("authority"),
    Trust::Named("stranger"),
    Trust::Named("self_signed"),
    Trust::AtHome("authority"),
    Trust::Missing,
];

fn caller(cluster: &Cluster, options: &str, trust: Trust) -> Caller {
    let url = alice(cluster, options);
    match trust {
        Trust::None => Caller::of(url),
        Trust::Named(name) => {
            Caller::of(format!("{url} sslrootcert={}", certificates().path(&format!("{name}.pem")).display()))
        }
        Trust::AtHome(name) => {
            Caller::of(url).holding(".postgresql/root.crt", 0o644, certificates().read(&format!("{name}.pem")))
        }
        Trust::Missing => Caller::of(format!("{url} sslrootcert=/nonexistent/root.crt")),
    }
}

/// Tries all of them: those that get in, and how psql and pgslice disagree.
fn tried(cluster: &Cluster, cases: &[(String, Trust)]) -> (Vec<String>, Vec<String>) {
    let (next, got_in, differences) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((options, trust)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match caller(cluster, options, *trust).compared(cluster) {
                        Ok(Ok(_)) => got_in.lock().expect("not poisoned").push(format!("{options} {trust:?}")),
                        Ok(Err(_)) => {}
                        Err(difference) => differences.lock().expect("not poisoned").push(difference),
                    }
                }
            });
        }
    });
    (got_in.into_inner().expect("not poisoned"), differences.into_inner().expect("not poisoned"))
}

/// Hosts that the server is reached by; names that no one resolves come with the address.
const HOSTS: [&str; 8] = [
    "host=127.0.0.1",
    "hostaddr=127.0.0.1",
    "host=LOCALHOST",
    "host=db.example.test hostaddr=127.0.0.1",
    "host=a.db.example.test hostaddr=127.0.0.1",
    "host=example.test hostaddr=127.0.0.1",
    "host=elsewhere.test hostaddr=127.0.0.1",
    "host=localhost hostaddr=127.0.0.1",
];

#[test]
fn each_mode_makes_of_each_certificate_what_psql_makes_of_it() {
    let cluster = server::start("right", "");
    let (mut outcomes, mut disagreements) = (HashSet::new(), String::new());
    for certificate in GOOD.into_iter().chain(ODD) {
        show(cluster, certificate);
        // Whom is trusted matters where the chain is what differs.
        let whole = ["right", "chained", "self_signed", "unknown", "expired"].contains(&certificate);
        let (modes, trusts) = if whole { (&MODES[..], &TRUSTS[..]) } else { (&MODES[3..], &TRUSTS[1..2]) };
        let mut cases: Vec<(String, Trust)> = Vec::new();
        for mode in modes {
            cases.extend(trusts.iter().map(|trust| (format!("host=localhost sslmode={mode}"), *trust)));
        }
        let trust = Trust::Named(if certificate == "self_signed" { "self_signed" } else { "authority" });
        cases.extend(HOSTS.iter().map(|host| (format!("{host} sslmode=verify-full"), trust)));
        let (got_in, differences) = tried(cluster, &cases);
        for difference in differences {
            disagreements.push_str(&format!("{certificate}: {difference}\n"));
        }
        if GOOD.contains(&certificate) {
            let full = format!("host=localhost sslmode=verify-full {:?}", Trust::Named("authority"));
            assert!(got_in.contains(&full), "{certificate} is good");
        }
        outcomes.insert(got_in.len());
    }
    assert!(disagreements.is_empty(), "{disagreements}");
    assert!(outcomes.len() > 5, "certificates make no difference: {outcomes:?}");
}

#[test]
fn a_certificate_of_version_1_encrypts_but_is_no_proof() {
    // OpenSSL checks it, the library that pgslice uses does not read it: the one case in which psql gets in alone.
    let cluster = server::start("version_1", "");
    for (mode, trust, gets_in) in [
        ("prefer", Trust::None, true),
        ("require", Trust::None, true),
        ("verify-ca", Trust::Named("authority"), false),
        ("verify-full", Trust::Named("authority"), false),
    ] {
        let mut caller = caller(cluster, &format!("host=localhost sslmode={mode}"), trust);
        let encrypted = caller.psql(cluster).expect("psql gets in");
        assert!(encrypted.protocol.is_some());
        match caller.pgslice(cluster) {
            Ok(login) => assert!(gets_in && login == encrypted, "{mode}: {login:?}"),
            Err(ran) => {
                assert!(!gets_in, "{mode}\n{ran}");
                assert!(ran.stderr.contains("version 1"), "{ran}");
            }
        }
    }
}

#[test]
fn a_connection_is_encrypted_where_the_mode_says_so() {
    let protocol = |options: &str| Caller::of(alice(server(), options)).gets_in_as("alice", "alice", server()).protocol;
    for mode in ["prefer", "require"] {
        assert_eq!(protocol(&format!("host=localhost sslmode={mode}")).as_deref(), Some("TLSv1.3"));
    }
    assert_eq!(protocol("host=localhost").as_deref(), Some("TLSv1.3"), "prefer is the default");
    for mode in ["disable", "allow"] {
        assert_eq!(protocol(&format!("host=localhost sslmode={mode}")), None);
    }
    // The socket is never encrypted, and no mode minds.
    for mode in MODES {
        let root = certificates().path("authority.pem");
        let options = format!("host={} sslmode={mode} sslrootcert={}", server().socket_dir().display(), root.display());
        assert_eq!(protocol(&options), None, "{mode}");
    }
}

#[test]
fn a_mode_that_leaves_the_choice_takes_what_the_servers_rules_allow() {
    for (user, with_tls, in_plain_text) in [("only_tls", true, false), ("only_plain", false, true)] {
        for mode in MODES {
            let url = |password: &str| {
                format!(
                    "host=localhost port={} user={user} password={password} dbname=postgres sslmode={mode} sslrootcert={}",
                    server().port(),
                    certificates().path("authority.pem").display()
                )
            };
            let allowed = match mode {
                "disable" => in_plain_text,
                "allow" | "prefer" => true,
                _ => with_tls,
            };
            if allowed {
                let login = Caller::of(url("secret")).gets_in_as(user, "postgres", server());
                assert_eq!(login.protocol.is_some(), with_tls, "{user} {mode}");
            } else {
                Caller::of(url("secret")).stays_out(6, server());
            }
            Caller::of(url("wrong")).stays_out(6, server());
        }
    }
}

#[test]
fn a_server_without_tls_is_taken_by_the_modes_that_allow_it() {
    let cluster = crate::cluster::source();
    for mode in MODES {
        let url = format!(
            "host=localhost port={} user=postgres password={} dbname=postgres sslmode={mode} sslrootcert={}",
            cluster.port(),
            cluster.password(),
            certificates().path("authority.pem").display()
        );
        // Its log does not tell who came, so only the outcomes are compared.
        let mut caller = Caller::of(url);
        let ran = caller.try_pgslice();
        assert_eq!(ran.code == 0, caller.try_psql(cluster).is_ok(), "{mode}\n{ran}");
        assert_eq!(ran.code == 0, ["disable", "allow", "prefer"].contains(&mode), "{mode}\n{ran}");
    }
}

#[test]
fn a_revoked_certificate_is_refused_by_whoever_has_the_list() {
    let cluster = server::start("revoked", "");
    let root = certificates().path("authority.pem");
    let list = certificates().path("revoked.crl");
    let url = |mode: &str| alice(cluster, &format!("host=localhost sslmode={mode} sslrootcert={}", root.display()));
    for mode in ["require", "verify-ca", "verify-full"] {
        Caller::of(url(mode)).gets_in_as("alice", "alice", cluster);
        Caller::of(format!("{} sslcrl={}", url(mode), list.display())).stays_out(6, cluster);
        Caller::of(url(mode))
            .holding(".postgresql/root.crl", 0o644, certificates().read("revoked.crl"))
            .stays_out(6, cluster);
    }
    // A list is looked at only where the chain is.
    let unverified = alice(cluster, &format!("host=localhost sslmode=require sslcrl={}", list.display()));
    Caller::of(unverified).gets_in_as("alice", "alice", cluster);
    // Another server of the same authority is not on the list.
    let url = alice(server(), &format!("host=localhost sslmode=verify-full sslrootcert={}", root.display()));
    Caller::of(format!("{url} sslcrl={}", list.display())).gets_in_as("alice", "alice", server());
}

/// A connection string of that user's with TLS and without a password.
fn by_certificate(user: &str, options: &str) -> String {
    format!("host=localhost port={} user={user} dbname=postgres {options}", server().port())
}

fn files(name: &str) -> String {
    let path = |suffix: &str| certificates().path(&format!("{name}.{suffix}"));
    format!("sslcert={} sslkey={}", path("pem").display(), path("key").display())
}

#[test]
fn a_client_certificate_gets_its_owner_in_and_nobody_else() {
    for mode in ["prefer", "require"] {
        for name in ["client", "client_rsa"] {
            let url = by_certificate("with_certificate", &format!("sslmode={mode} {}", files(name)));
            Caller::of(url).gets_in_as("with_certificate", "postgres", server());
        }
        for name in ["other_client", "unknown_client"] {
            let url = by_certificate("with_certificate", &format!("sslmode={mode} {}", files(name)));
            assert_refused(Caller::of(url));
        }
        assert_refused(Caller::of(by_certificate("with_certificate", &format!("sslmode={mode}"))));
    }
    // A certificate is shown to whoever asks for one, and a password is needed all the same.
    let both = |options: &str| Caller::of(by_certificate("certificate_and_password", options));
    let password = format!("password=secret {}", files("client"));
    both(&password).gets_in_as("certificate_and_password", "postgres", server());
    assert_refused(both("password=secret"));
    assert_refused(both(&files("client")));
}

/// Panics unless neither gets in; which code pgslice ends with depends on who noticed first.
#[track_caller]
fn assert_refused(caller: Caller) {
    let refusal = caller.agrees(server()).expect_err("nobody is to get in");
    assert!([2, 5, 6].contains(&refusal.pgslice.code), "{}", refusal.pgslice);
}

#[test]
fn a_client_certificate_is_found_in_the_home() {
    let url = by_certificate("with_certificate", "sslmode=require");
    let (certificate, key) = (certificates().read("client.pem"), certificates().read("client.key"));
    let home = |mode: u32| {
        Caller::of(&*url).holding(".postgresql/postgresql.crt", 0o644, &certificate).holding(
            ".postgresql/postgresql.key",
            mode,
            &key,
        )
    };
    home(0o600).gets_in_as("with_certificate", "postgres", server());
    // What others can read is no secret.
    for mode in [0o644, 0o660, 0o602] {
        assert_refused(home(mode));
    }
    // A key of root's may be readable for a group; a key of one's own may not.
    let _ = home(0o640).agrees(server());
    // A certificate without its key.
    assert_refused(Caller::of(&*url).holding(".postgresql/postgresql.crt", 0o644, &certificate));
    // A key that is another certificate's.
    assert_refused(Caller::of(&*url).holding(".postgresql/postgresql.crt", 0o644, &certificate).holding(
        ".postgresql/postgresql.key",
        0o600,
        certificates().read("other_client.key"),
    ));
    // By the environment.
    Caller::of(&*url)
        .with("PGSSLCERT", certificates().path("client.pem").display().to_string())
        .with("PGSSLKEY", certificates().path("client.key").display().to_string())
        .gets_in_as("with_certificate", "postgres", server());
    // No home holds what is named.
    assert_refused(Caller::of(format!("{url} sslcert=/nonexistent/client.pem")));
}

#[test]
fn versions_of_tls_are_kept_to() {
    let old = server::start("right", "ssl_max_protocol_version = 'TLSv1.2'");
    let protocol = |cluster: &Cluster, options: &str| {
        Caller::of(alice(cluster, &format!("host=localhost sslmode=require {options}")))
            .agrees(cluster)
            .map(|login| login.protocol.expect("an encrypted connection"))
            .map_err(|refusal| refusal.pgslice.code)
    };
    assert_eq!(protocol(old, "").as_deref(), Ok("TLSv1.2"));
    assert_eq!(protocol(old, "ssl_min_protocol_version=TLSv1.2").as_deref(), Ok("TLSv1.2"));
    assert!(protocol(old, "ssl_min_protocol_version=TLSv1.3").is_err());
    assert_eq!(protocol(server(), "ssl_max_protocol_version=TLSv1.2").as_deref(), Ok("TLSv1.2"));
    assert_eq!(protocol(server(), "ssl_min_protocol_version=TLSv1").as_deref(), Ok("TLSv1.3"));
    assert_eq!(protocol(server(), "ssl_min_protocol_version=tlsv1.2").as_deref(), Ok("TLSv1.3"));
    for wrong in ["ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "ssl_min_protocol_version=TLSv9"]
    {
        assert_eq!(protocol(server(), wrong), Err(2), "{wrong}");
    }
}
