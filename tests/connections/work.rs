//! Whole exports and catchups over TLS.

use std::process::Command;
use std::sync::OnceLock;

use super::certificates::certificates;
use super::server::{self, logins, server};
use crate::cluster::{Cluster, Database};
use crate::harness::eventually;
use crate::pair::{NOTES, NOTES_TABLE, notes, rows};
use crate::scene::Scene;

/// The server that is topped off: another system than [`server`].
fn other_server() -> &'static Cluster {
    static OTHER: OnceLock<&Cluster> = OnceLock::new();
    OTHER.get_or_init(|| server::start("sha384", ""))
}

/// A database on each, and a scene between them, for a user who gets in with `options`.
fn between(user: &str, options: &str, schema: &str, tables: &str) -> (Database, Database, Scene) {
    let (source, replica) = (server().create_database("over_tls"), other_server().create_database("over_tls"));
    for database in [&source, &replica] {
        database.psql(schema);
        database
            .psql(&format!("ALTER TABLE notes OWNER TO {user}; ALTER DATABASE \"{}\" OWNER TO {user}", database.name));
    }
    source.psql(&format!("GRANT pg_read_all_stats TO {user}"));
    let url = |cluster: &Cluster, database: &Database| {
        format!(
            "host=localhost port={} user={user} dbname={} sslmode=verify-full sslrootcert={} {options}",
            cluster.port(),
            database.name,
            certificates().path("authority.pem").display()
        )
    };
    let mut scene = Scene::in_folder(tables);
    scene.publish_from(&url(server(), &source));
    scene.top_off(&url(other_server(), &replica));
    (source, replica, scene)
}

/// Every connection that pgslice made to that database was encrypted.
fn assert_encrypted(cluster: &Cluster, database: &Database, user: &str) {
    let all = logins(cluster, "pgslice");
    let of_this: Vec<_> = all.iter().filter(|login| login.database == database.name).collect();
    assert!(!of_this.is_empty(), "nobody came to {database:?}");
    for login in of_this {
        assert_eq!((login.protocol.as_deref(), &*login.user), (Some("TLSv1.3"), user));
    }
}

#[test]
fn days_go_from_server_to_server_over_tls_bound_to_its_channel() {
    let options = "password=alice-secret channel_binding=require";
    let (source, replica, scene) = between("alice", options, NOTES, NOTES_TABLE);
    source.psql(&notes(3));
    scene.pgslice(&["export", "--from", "2024-05-01", "--to", "2024-05-03"]).exits(0);
    scene.pgslice(&["catchup"]).exits(0);
    assert_eq!(rows(&replica, "notes"), rows(&source, "notes"));
    source.psql("UPDATE notes SET body = 'other' WHERE id = 203");
    scene.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
    scene.pgslice(&["catchup"]).exits(0);
    assert_eq!(rows(&replica, "notes"), rows(&source, "notes"));
    assert_encrypted(server(), &source, "alice");
    assert_encrypted(other_server(), &replica, "alice");
}

#[test]
fn days_go_from_server_to_server_with_client_certificates() {
    let path = |name: &str| certificates().path(name).display().to_string();
    let options = format!("sslcert={} sslkey={}", path("client.pem"), path("client.key"));
    let (source, replica, scene) = between("with_certificate", &options, NOTES, NOTES_TABLE);
    source.psql(&notes(2));
    scene.pgslice(&["export", "--from", "2024-05-01", "--to", "2024-05-02"]).exits(0);
    scene.pgslice(&["catchup"]).exits(0);
    assert_eq!(rows(&replica, "notes"), rows(&source, "notes"));
    assert_encrypted(server(), &source, "with_certificate");
    assert_encrypted(other_server(), &replica, "with_certificate");
}

#[test]
fn two_hundred_megabytes_are_the_same_over_tls_and_over_the_socket() {
    let (source, replica, scene) = between("alice", "password=alice-secret", NOTES, NOTES_TABLE);
    source.psql(
        "INSERT INTO notes SELECT i, '2024-05-01 00:00+00'::timestamptz + i * interval '400 ms',
             repeat(md5(i::text), 31) FROM generate_series(1, 200000) i",
    );
    let digest = |scene: &Scene| {
        scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
        let head: serde_json::Value =
            serde_json::from_slice(&scene.place().content("feed.json")).expect("feed.json is JSON");
        let key = head["days"][0]["manifest"]["key"].as_str().expect("a key").to_owned();
        let manifest: serde_json::Value =
            serde_json::from_slice(&scene.place().content(&key)).expect("the manifest is JSON");
        let slice = &manifest["slices"][0];
        (slice["rows"].clone(), slice["raw_bytes"].clone(), slice["rows_digest"].clone())
    };
    let over_tls = digest(&scene);
    assert_encrypted(server(), &source, "alice");
    assert_eq!(over_tls, digest(&Scene::in_folder(NOTES_TABLE).source(&source)));
    assert_eq!(over_tls.0, 200_000);
    assert!(over_tls.1.as_u64() > Some(190 << 20), "{over_tls:?}");
    scene.pgslice(&["catchup"]).exits(0);
    let sums = "SELECT count(*), sum(hashtextextended(n::text, 0)) FROM notes n";
    assert_eq!(replica.psql(sums), source.psql(sums));
    assert_encrypted(other_server(), &replica, "alice");
}

#[test]
fn an_interrupted_export_over_tls_ends_its_query_on_the_server() {
    let tables = format!("{NOTES_TABLE}relation = \"view\"\n");
    let schema =
        "CREATE TABLE rows AS SELECT i AS id, '2024-05-01 00:00+00'::timestamptz + i * interval '1 second' AS at
                      FROM generate_series(1, 80000) i;
                  CREATE FUNCTION slowly() RETURNS text STABLE LANGUAGE plpgsql
                      AS $$ BEGIN PERFORM pg_sleep(0.001); RETURN repeat('x', 1000); END $$;
                  CREATE VIEW notes AS SELECT id, at, slowly() AS body FROM rows;
                  GRANT SELECT ON rows TO alice;";
    let (source, _replica, scene) = between("alice", "password=alice-secret channel_binding=require", schema, &tables);
    let copies = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = '{}' AND application_name = 'pgslice' AND state = 'active' AND query ILIKE 'COPY%'",
        source.name
    );
    let running = scene.spawn(&["export", "--date", "2024-05-01"]);
    eventually("rows are copied", || source.psql(&copies) == "1");
    let interrupted = Command::new("kill").args(["-INT", &running.id().to_string()]).status().expect("run kill");
    assert!(interrupted.success());
    running.wait().exits(130);
    // The query itself goes on for more than a minute.
    eventually("the query has ended", || source.psql(&copies) == "0");
    let requests =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgslice' AND datname = current_database()";
    eventually("nobody is left", || source.psql(requests) == "0");
}
