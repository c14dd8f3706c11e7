//! Getting in, being refused, and never telling the password.

use std::sync::OnceLock;

use pgslice::error::Class;
use tokio_util::sync::CancellationToken;

use super::{endpoint, session};
use crate::cluster::{Cluster, source};

/// A cluster that asks each of its users for a password in another way.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<&Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start();
        let database = cluster.create_database("logins");
        let hba = database.psql("SHOW hba_file");
        let lines: String = ["scram-sha-256", "md5", "password", "trust", "reject"]
            .map(|method| format!("host all u_{} 127.0.0.1/32 {method}\n", method.replace('-', "_")))
            .concat();
        let rules = std::fs::read_to_string(&hba).expect("read pg_hba.conf");
        std::fs::write(&hba, lines + &rules).expect("write pg_hba.conf");
        database.psql(
            "CREATE USER u_scram_sha_256 PASSWORD 'hunter2 ä';
             CREATE USER u_password PASSWORD 'hunter2 ä';
             CREATE USER u_trust;
             CREATE USER u_reject;
             SET password_encryption = 'md5';
             CREATE USER u_md5 PASSWORD 'hunter2 ä';
             SELECT pg_reload_conf();",
        );
        cluster
    })
}

fn url(user: &str, password: &str) -> String {
    format!("postgres://{user}:{password}@127.0.0.1:{}/postgres", cluster().port())
}

#[tokio::test]
async fn every_kind_of_password_login_works() {
    for user in ["u_scram_sha_256", "u_md5", "u_password", "u_trust"] {
        let url = url(user, "hunter2%20%C3%A4");
        let rows = session(&url).query("SELECT current_user", &[]).expect(user);
        assert_eq!(rows[0].get(0), Some(user));
        drop(endpoint(&url).client().await.expect(user));
    }
}

#[test]
fn a_wrong_password_is_a_matter_of_permission_and_not_told() {
    for user in ["u_scram_sha_256", "u_md5", "u_password", "u_reject"] {
        let refused = endpoint(&url(user, "wrong-hunter2")).session(&CancellationToken::new()).err().expect(user);
        assert_eq!(refused.class(), Class::Permission, "{user}: {refused}");
        let told = format!("{refused} {refused:?}");
        assert!(!told.contains("hunter2") && told.contains(user), "{told}");
    }
}

#[tokio::test]
async fn a_password_that_is_not_given_is_asked_for() {
    let url = format!("postgres://u_scram_sha_256@127.0.0.1:{}/postgres", cluster().port());
    let error = endpoint(&url).session(&CancellationToken::new()).err().expect("no password");
    assert_eq!(error.class(), Class::Permission, "{error}");
    assert!(error.to_string().contains("PGPASSWORD"), "{error}");
    let error = endpoint(&url).client().await.expect_err("no password");
    assert_eq!(pgslice::error::class_of(&error), Class::Permission, "{error:#}");
}

#[test]
fn the_session_says_that_it_is_pgslice() {
    let database = source().create_database("name");
    let rows = session(&database.url).query("SHOW application_name", &[]).expect("one row");
    assert_eq!(rows[0].get(0), Some("pgslice"));
}

#[test]
fn the_first_host_that_answers_is_taken() {
    let database = source().create_database("hosts");
    let cluster = source();
    let url = format!(
        "host=127.0.0.1,/nonexistent,{} port=1,1,{} user=postgres dbname={}",
        cluster.socket_dir().display(),
        cluster.port(),
        database.name
    );
    assert_eq!(session(&url).query("SELECT 1", &[]).expect("one row").len(), 1);
    let dead = endpoint("host=/nonexistent,127.0.0.1 port=1 user=bob").session(&CancellationToken::new());
    let error = dead.err().expect("nobody answers");
    assert_eq!(error.class(), Class::Transient);
    assert!(error.to_string().contains("bob@127.0.0.1:1/bob"), "{error}");
}

#[test]
fn session_attributes_pass_over_a_host() {
    let database = source().create_database("attributes");
    let url = format!("{}&target_session_attrs=read-write", database.url);
    session(&url);
    let read_only = format!("{}&target_session_attrs=read-only", database.url);
    assert!(endpoint(&read_only).session(&CancellationToken::new()).is_err());
}

#[test]
fn a_database_that_does_not_exist_is_the_servers_error() {
    let database = source().create_database("gone");
    let url = database.url.replace(&database.name, "no_such_database");
    let error = endpoint(&url).session(&CancellationToken::new()).err().expect("no such database");
    assert_eq!(error.code(), Some("3D000"));
}
