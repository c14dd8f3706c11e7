//! Logins by password, by each method, in plain text and over TLS, bound to the channel or not.

use super::caller::Caller;
use super::certificates::{GOOD, certificates};
use super::server::{self, server};

const USERS: [&str; 4] = ["alice", "by_md5", "by_password", "by_trust"];

fn url(user: &str, password: &str, options: &str) -> String {
    format!(
        "host=localhost port={} user={user} password={password} dbname=postgres sslrootcert={} {options}",
        server().port(),
        certificates().path("authority.pem").display()
    )
}

fn password(user: &str) -> &'static str {
    if user == "alice" { "alice-secret" } else { "secret" }
}

#[test]
fn every_method_works_with_and_without_encryption() {
    for user in USERS {
        for mode in ["disable", "require", "verify-full"] {
            let options = format!("sslmode={mode}");
            Caller::of(url(user, password(user), &options)).gets_in_as(user, "postgres", server());
            if user != "by_trust" {
                let refusal = Caller::of(url(user, "hunter2", &options)).stays_out(6, server());
                assert!(!refusal.pgslice.to_string().contains("hunter2"), "{}", refusal.pgslice);
                let without = url(user, "", &options).replace("password= ", "");
                Caller::of(without).stays_out(6, server());
            }
        }
    }
}

#[test]
fn a_login_is_bound_to_the_channel_where_that_is_required_or_not_at_all() {
    for user in USERS {
        for mode in ["disable", "prefer", "require", "verify-full"] {
            for binding in ["disable", "prefer"] {
                let options = format!("sslmode={mode} channel_binding={binding}");
                Caller::of(url(user, password(user), &options)).gets_in_as(user, "postgres", server());
            }
            let caller = Caller::of(url(user, password(user), &format!("sslmode={mode} channel_binding=require")));
            match (user, mode) {
                ("alice", "prefer" | "require" | "verify-full") => {
                    caller.gets_in_as(user, "postgres", server());
                }
                _ => {
                    let refusal = caller.agrees(server()).expect_err("no channel binding");
                    assert!([2, 6].contains(&refusal.pgslice.code), "{user} {mode}\n{}", refusal.pgslice);
                }
            }
        }
    }
}

#[test]
fn a_login_is_bound_to_certificates_of_every_kind() {
    let cluster = server::start("right", "");
    for certificate in GOOD {
        server::show(cluster, certificate);
        for version in ["TLSv1.2", "TLSv1.3"] {
            let options = format!(
                "sslmode=verify-full channel_binding=require ssl_min_protocol_version={version} \
                 ssl_max_protocol_version={version}"
            );
            let url = url("alice", "alice-secret", &options);
            let url = url.replace(&server().port().to_string(), &cluster.port().to_string());
            let login = Caller::of(url).gets_in_as("alice", "postgres", cluster);
            assert_eq!(login.protocol.as_deref(), Some(version), "{certificate}");
        }
    }
}

#[test]
fn the_socket_asks_for_passwords_too() {
    let url = |password: &str| {
        format!("host={} port={} user=alice password={password}", server().socket_dir().display(), server().port())
    };
    Caller::of(url("alice-secret")).gets_in_as("alice", "alice", server());
    Caller::of(url("wrong")).stays_out(6, server());
}

#[test]
fn passwords_of_every_shape_are_carried() {
    let cluster = server::start("right", "");
    // SCRAM normalizes (SASLprep) where it can, and takes the bytes where it cannot.
    for (index, secret) in ["two words", "quo'te", "back\\slash", "ä\u{301}ö", "Ⅸ", "\u{a0}", "a@b:c/d?e#f%20", "\u{7}"]
        .into_iter()
        .enumerate()
    {
        let literal = secret.replace('\'', "''");
        let user = format!("shape_{index}");
        cluster
            .psql("postgres", &format!("SET standard_conforming_strings = on; CREATE USER {user} PASSWORD '{literal}'"))
            .expect("create a user");
        let value = secret.replace('\\', "\\\\").replace('\'', "\\'");
        let by_key = format!("host=localhost port={} user={user} dbname=postgres password='{value}'", cluster.port());
        Caller::of(by_key).gets_in_as(&user, "postgres", cluster);
        let encoded: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let by_url = format!("postgresql://{user}:{encoded}@localhost:{}/postgres", cluster.port());
        Caller::of(by_url).gets_in_as(&user, "postgres", cluster);
        let by_environment = format!("postgresql://{user}@localhost:{}/postgres", cluster.port());
        Caller::of(by_environment).with("PGPASSWORD", secret).gets_in_as(&user, "postgres", cluster);
    }
}
