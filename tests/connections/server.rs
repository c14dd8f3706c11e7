//! Servers with TLS, users who log in by every method, and who got in.

use std::collections::BTreeSet;
use std::fs;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::certificates::certificates;
use crate::cluster::Cluster;

/// Who gets in how. Users of no rule of their own have a password, for SCRAM, on the socket too.
const RULES: &str = "
local     all postgres trust
local     all all scram-sha-256
hostssl   all with_certificate 127.0.0.1/32 cert
hostssl   all certificate_and_password 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
hostssl   all only_tls 127.0.0.1/32 scram-sha-256
hostnossl all only_plain 127.0.0.1/32 scram-sha-256
host      all only_tls,only_plain,with_certificate,certificate_and_password 127.0.0.1/32 reject
host      all by_md5 127.0.0.1/32 md5
host      all by_password 127.0.0.1/32 password
host      all by_trust 127.0.0.1/32 trust
host      all all 127.0.0.1/32 scram-sha-256
";

const USERS: &str = "
SET default_transaction_read_only = off;
CREATE USER alice PASSWORD 'alice-secret';
CREATE USER bob PASSWORD 'bob-secret';
CREATE USER with_certificate;
CREATE USER certificate_and_password PASSWORD 'secret';
CREATE USER only_tls PASSWORD 'secret';
CREATE USER only_plain PASSWORD 'secret';
CREATE USER by_password PASSWORD 'secret';
CREATE USER by_trust;
SET password_encryption = 'md5';
CREATE USER by_md5 PASSWORD 'secret';
CREATE DATABASE alice;
CREATE DATABASE bob;
CREATE DATABASE \"two words\";
";

/// A server with the certificate `right` that tests share: nothing may change it.
pub(crate) fn server() -> &'static Cluster {
    static SERVER: OnceLock<&Cluster> = OnceLock::new();
    SERVER.get_or_init(|| start("right", ""))
}

/// A server of the caller's own with that certificate and further settings.
pub(crate) fn start(certificate: &str, settings: &str) -> &'static Cluster {
    let extra = TempDir::with_prefix("pgslice-tls-").expect("create a temporary folder");
    let conf = format!(
        "ssl = on\nssl_ca_file = 'authority.pem'\nlog_connections = on\nlog_line_prefix = ''\n{}\n{settings}\n",
        uses(certificate)
    );
    fs::write(extra.path().join("postgresql.conf"), conf).expect("write settings");
    fs::write(extra.path().join("pg_hba.conf"), RULES).expect("write rules");
    for entry in fs::read_dir(certificates().folder()).expect("list certificates") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "pem" || extension == "key") {
            fs::copy(&path, extra.path().join(path.file_name().expect("a name"))).expect("copy a file");
        }
    }
    let cluster = Cluster::start_with(extra.path());
    cluster.psql("postgres", USERS).expect("create users");
    cluster
}

fn uses(certificate: &str) -> String {
    format!("ssl_cert_file = '{certificate}.pem'\nssl_key_file = '{certificate}.key'")
}

/// Gives a server of the caller's own another certificate.
pub(crate) fn show(cluster: &Cluster, certificate: &str) {
    let settings: String = uses(certificate).lines().map(|line| format!("ALTER SYSTEM SET {line};\n")).collect();
    cluster.psql("postgres", &settings).expect("change the certificate");
    cluster.restart();
}

/// Somebody who got in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) database: String,
    /// `TLSv1.3`, …; `None` for a connection in plain text.
    pub(crate) protocol: Option<String>,
}

/// Everybody who got in under that `application_name`, by the server's log.
pub(crate) fn logins(cluster: &Cluster, application_name: &str) -> BTreeSet<Login> {
    let log = cluster.log();
    let wanted = format!("application_name={application_name}");
    let field = |line: &str, from: &str, to: &str| {
        let (_, rest) = line.split_once(from)?;
        Some(rest.split_once(to).map_or(rest, |(value, _)| value).to_owned())
    };
    log.lines()
        .filter_map(|line| line.split_once("connection authorized: "))
        .filter(|(_, line)| line.split(" SSL enabled").next().is_some_and(|line| line.ends_with(&wanted)))
        .map(|(_, line)| Login {
            user: field(line, "user=", " database=").expect("a user"),
            database: field(line, "database=", " application_name=").expect("a database"),
            protocol: field(line, "SSL enabled (protocol=", ","),
        })
        .collect()
}
