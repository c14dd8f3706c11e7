//! What `pgslice export` refuses, with which exit code, and that nothing of it becomes visible.

use std::time::{Duration, Instant};

use crate::cluster::{self, Database};
use crate::published::Published;
use crate::scene::{Ran, Scene};

const EVENT: &str = "[[table]]\nname = \"event\"\ntime-column = \"at\"\n";
const DAY: [&str; 3] = ["export", "--date", "2024-05-01"];

fn events(hint: &str) -> Database {
    let database = cluster::source().create_database(hint);
    database.psql("CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL, note text)");
    add(&database, "2024-05-01", 1, 200);
    database
}

fn add(database: &Database, day: &str, first: u32, last: u32) {
    database.psql(&format!(
        "INSERT INTO event SELECT n, '{day}'::timestamptz + n * interval '1 minute', 'note ' || n
         FROM generate_series({first}, {last}) n"
    ));
}

/// A scene whose source is `url`.
fn reading_from(url: &str) -> Scene {
    Scene::new(&format!("[source]\nurl = \"{url}\"\n{EVENT}"))
}

/// `database` for another user, over the socket, without a password.
fn as_user(database: &Database, user: &str) -> String {
    database.url.replace("user=postgres", &format!("user={user}"))
}

/// Runs an export that is refused, and sees to it that it changed nothing that is published.
#[track_caller]
fn refused(scene: &Scene, arguments: &[&str], code: i32) -> Ran {
    let published = Published::by(scene);
    let (days, objects) = (published.days(), published.objects());
    let ran = scene.pgslice(arguments).exits(code);
    assert_eq!(published.days(), days, "{ran}");
    assert_eq!(published.objects(), objects, "{ran}");
    assert_eq!(published.staged(), 0, "{ran}");
    published.is_whole();
    ran
}

#[test]
fn a_loss_above_max_shrink_is_refused_until_it_is_accepted() {
    let database = events("shrink");
    let scene = Scene::new(EVENT).source(&database);
    scene.pgslice(&DAY).exits(0);
    // One in a hundred may go.
    database.psql("DELETE FROM event WHERE id <= 2");
    scene.pgslice(&DAY).exits(0);
    let published = Published::by(&scene);
    assert_eq!(published.days(), ["2024-05-01 r2 final 198"]);

    database.psql("DELETE FROM event WHERE id <= 4");
    let ran = refused(&scene, &DAY, 4);
    assert!(ran.stderr.contains("public.event would shrink from 198 to 196 rows (revision 2)"), "{ran}");
    assert!(ran.stderr.contains("--accept-shrink"), "{ran}");
    refused(&scene, &["export", "--date", "2024-05-01", "--force"], 4);
    scene.pgslice(&["export", "--date", "2024-05-01", "--accept-shrink"]).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r3 final 196"]);
}

#[test]
fn max_shrink_can_be_set_but_a_slice_that_loses_all_its_rows_is_always_refused() {
    let database = events("all_gone");
    let scene = Scene::new(&format!("[export]\nmax-shrink = \"100%\"\n{EVENT}")).source(&database);
    scene.pgslice(&DAY).exits(0);
    database.psql("DELETE FROM event WHERE id > 1");
    scene.pgslice(&DAY).exits(0);
    database.psql("DELETE FROM event");
    let ran = refused(&scene, &DAY, 4);
    assert!(ran.stderr.contains("would shrink from 1 to 0 rows"), "{ran}");
    scene.pgslice(&["export", "--date", "2024-05-01", "--accept-shrink"]).exits(0);
    assert_eq!(Published::by(&scene).days(), ["2024-05-01 r3 final 0"]);
}

#[test]
fn a_table_that_vanished_from_the_configuration_counts_as_lost_rows() {
    let database = events("table_dropped");
    database.psql("CREATE TABLE other AS SELECT * FROM event");
    let both = format!("{EVENT}[[table]]\nname = \"other\"\ntime-column = \"at\"\n");
    let mut scene = Scene::new(&both).source(&database);
    scene.pgslice(&DAY).exits(0);
    scene.configure(EVENT);
    let ran = refused(&scene, &DAY, 4);
    assert!(ran.stderr.contains("public.other would shrink from 200 to 0 rows"), "{ran}");
    scene.pgslice(&["export", "--date", "2024-05-01", "--accept-shrink"]).exits(0);
    assert_eq!(Published::by(&scene).days(), ["2024-05-01 r2 final 200"]);
}

#[test]
fn a_day_that_has_not_ended_is_refused() {
    let database = events("future");
    let scene = Scene::new(EVENT).source(&database);
    let today = database.psql("SELECT now()::date");
    let ran = refused(&scene, &["export", "--date", &today], 8);
    assert!(ran.stderr.contains("by the source's clock"), "{ran}");
    refused(&scene, &["export", "--date", "2999-12-31"], 8);
    refused(&scene, &["export", "--date", "9999-12-31"], 8);
}

#[test]
fn one_failing_day_does_not_stop_the_others() {
    let database = events("one_fails");
    add(&database, "2024-05-02", 301, 310);
    add(&database, "2024-05-03", 401, 410);
    let scene = Scene::new(EVENT).source(&database);
    let days = ["export", "--from", "2024-05-01", "--to", "2024-05-03"];
    scene.pgslice(&days).exits(0);
    database.psql("DELETE FROM event WHERE id = 305; UPDATE event SET note = 'new' WHERE id IN (1, 401)");
    let ran = scene.pgslice(&days).exits(3);
    assert_eq!(ran.summary(), "scene: 2 published, 1 failed");
    assert!(ran.stderr.contains("2024-05-02 failed: 2024-05-02 public.event would shrink from 10 to 9 rows"), "{ran}");
    let published = Published::by(&scene);
    assert_eq!(published.days(), ["2024-05-01 r2 final 200", "2024-05-02 r1 final 10", "2024-05-03 r2 final 10"]);
    published.is_whole();
    // The same day by its name: its own class.
    refused(&scene, &["export", "--date", "2024-05-02"], 4);
}

#[test]
fn a_run_that_failed_is_no_sign_of_life() {
    let database = events("failing");
    let scene = Scene::new(EVENT).source(&database);
    scene.pgslice(&DAY).exits(0);
    let feed = Published::by(&scene).feed();
    database.psql("DELETE FROM event WHERE id > 100");
    refused(&scene, &DAY, 4);
    assert_eq!(Published::by(&scene).feed(), feed, "readers would take it for a quiet feed");
}

#[test]
fn a_range_that_reaches_into_the_future_publishes_what_is_over() {
    let database = events("into_future");
    let scene = Scene::new(EVENT).source(&database);
    let (yesterday, tomorrow) = (database.psql("SELECT now()::date - 1"), database.psql("SELECT now()::date + 1"));
    scene.pgslice(&["export", "--from", &yesterday, "--to", &tomorrow]).exits(3);
    assert_eq!(Published::by(&scene).feed().oldest.map(|day| day.to_string()), Some(yesterday));
}

#[test]
fn a_range_that_ends_before_it_begins_is_refused() {
    let database = events("backwards");
    let scene = Scene::new(EVENT).source(&database);
    let ran = refused(&scene, &["export", "--from", "2024-05-02", "--to", "2024-05-01"], 2);
    assert!(ran.stderr.contains("--from 2024-05-02 is after --to 2024-05-01"), "{ran}");
}

#[test]
fn the_store_of_another_dataset_is_refused() {
    let database = events("dataset");
    let scene = Scene::new(EVENT).source(&database);
    scene.pgslice(&DAY).exits(0);
    scene.edit_configuration("dataset = \"scene\"", "dataset = \"other\"");
    let before = Published::by(&scene).feed();
    let ran = refused(&scene, &DAY, 2);
    assert!(ran.stderr.contains("holds the feed of dataset \"scene\", not of \"other\""), "{ran}");
    assert_eq!(Published::by(&scene).feed(), before, "not even its heartbeat");
}

#[test]
fn another_time_zone_than_the_feeds_is_refused() {
    let database = events("changed_zone");
    let scene = Scene::new(EVENT).source(&database);
    scene.pgslice(&DAY).exits(0);
    let scene = scene.timezone("Europe/Paris");
    let ran = refused(&scene, &["export", "--date", "2024-05-02"], 2);
    assert!(ran.stderr.contains("the feed's days are days of UTC, not of Europe/Paris"), "{ran}");
    refused(&scene, &DAY, 2);
}

#[test]
fn published_windows_that_no_longer_abut_are_refused() {
    let database = events("tzdata");
    let scene = Scene::new(EVENT).source(&database);
    scene.pgslice(&DAY).exits(0);
    // As if the zone's rules had been others when the day was published.
    let feed = String::from_utf8(scene.place().content("feed.json")).expect("UTF-8");
    scene.place().write("feed.json", feed.replace("2024-05-02T00:00:00Z", "2024-05-01T23:00:00Z").as_bytes());
    let ran = scene.pgslice(&["export", "--date", "2024-05-02"]).exits(4);
    assert!(ran.stderr.contains("does not fit the published one of 2024-05-01"), "{ran}");
    scene.pgslice(&DAY).exits(4);
    assert_eq!(Published::by(&scene).days(), ["2024-05-01 r1 final 200"]);
}

#[test]
fn another_source_is_refused_until_it_is_accepted() {
    let (database, other) = (events("known"), cluster::replica().create_database("stranger"));
    other.psql("CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL, note text)");
    let scene = Scene::new(EVENT).source(&database);
    scene.pgslice(&DAY).exits(0);
    let published = Published::by(&scene);
    let known = published.feed().source;
    let scene = scene.source(&other);
    let ran = refused(&scene, &["export", "--date", "2024-05-02"], 4);
    assert!(ran.stderr.contains("--new-source"), "{ran}");
    assert_eq!(published.feed().source, known);
    scene.pgslice(&["export", "--date", "2024-05-02", "--new-source"]).exits(0);
    assert_ne!(published.feed().source, known);
    // Once is enough, and now the old one is the stranger.
    scene.pgslice(&["export", "--date", "2024-05-03"]).exits(0);
    refused(&scene.source(&database), &["export", "--date", "2024-05-04"], 4);
}

#[test]
fn a_missing_table_and_a_missing_column_are_refused_together() {
    let database = events("missing_table");
    let tables =
        "[[table]]\nname = \"absent\"\ntime-column = \"at\"\n[[table]]\nname = \"event\"\ntime-column = \"when\"\n";
    let scene = Scene::new(tables).source(&database);
    let ran = refused(&scene, &DAY, 2);
    assert!(ran.stderr.contains("table public.absent: is not in the source database"), "{ran}");
    assert!(ran.stderr.contains("table public.event: has no column \"when\""), "{ran}");
}

#[test]
fn a_role_that_may_not_read_a_table_is_told_so() {
    let database = events("no_select");
    let role = format!("nobody_of_{}", database.name);
    database.psql(&format!("CREATE ROLE {role} LOGIN"));
    let scene = reading_from(&as_user(&database, &role));
    let ran = refused(&scene, &DAY, 6);
    assert!(ran.stderr.contains("permission denied for table public.event"), "{ran}");
    assert!(ran.stderr.contains(&format!("grant select on \"public\".\"event\" to \"{role}\"")), "{ran}");
}

#[test]
fn a_role_limited_by_row_security_gets_an_error_and_not_a_part() {
    let database = events("row_security");
    let role = format!("limited_of_{}", database.name);
    database.psql(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON event TO {role}; ALTER TABLE event ENABLE ROW LEVEL SECURITY;
         CREATE POLICY few ON event FOR SELECT USING (id <= 10)"
    ));
    let ran = refused(&reading_from(&as_user(&database, &role)), &DAY, 6);
    assert!(ran.stderr.contains("row-level security of public.event"), "{ran}");
    assert!(ran.stderr.contains(&format!("alter role \"{role}\" bypassrls")), "{ran}");
    database.psql(&format!("ALTER ROLE {role} BYPASSRLS"));
    reading_from(&as_user(&database, &role)).pgslice(&DAY).exits(0);
}

#[test]
fn a_wrong_password_is_refused_and_no_password_is_ever_shown() {
    let database = events("password");
    let url = database.tcp_url();
    let password = url.split(['@', ':']).nth(2).expect("user:password@").to_owned();
    let right = reading_from(&url);
    let wrong = reading_from(&url.replace(&password, "not-the-Password"));
    let role = reading_from(&url.replace("//postgres:", "//nobody_there:"));
    let runs = [
        right.pgslice(&["-vv", "export", "--date", "2024-05-01"]).exits(0),
        right.pgslice(&["-vv", "--log-format", "json", "export", "--date", "2024-05-01", "--json"]).exits(0),
        wrong.pgslice(&["-vv", "export", "--date", "2024-05-01"]).exits(6),
        role.pgslice(&["-vv", "export", "--date", "2024-05-01"]).exits(6),
    ];
    let of_the_store = right.place().environment().into_iter().filter(|(name, _)| name.contains("SECRET"));
    let secrets = of_the_store.map(|(_, secret)| secret).chain([password, "not-the-Password".to_owned()]);
    for secret in secrets {
        for ran in &runs {
            assert!(!ran.stdout.contains(&secret) && !ran.stderr.contains(&secret), "{ran}");
        }
    }
    assert!(runs[2].stderr.contains("password authentication failed"), "{}", runs[2]);
    assert!(Published::by(&wrong).feed_if_any().is_none());
}

#[test]
fn a_source_that_is_down_is_worth_another_try() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind a port");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    drop(listener);
    let scene = reading_from(&format!("postgres://postgres:secret@127.0.0.1:{port}/nowhere"));
    let ran = refused(&scene, &DAY, 5);
    assert!(ran.stderr.contains(&format!("cannot connect to postgres@127.0.0.1:{port}/nowhere")), "{ran}");
    assert!(!ran.stderr.contains("secret"), "{ran}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_not_waited_for_in_vain() {
    let database = events("locked");
    let (client, connection) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await.expect("connect");
    tokio::spawn(connection);
    client.batch_execute("BEGIN; LOCK TABLE event").await.expect("lock");
    let scene = Scene::new(EVENT).source(&database);
    let started = Instant::now();
    let ran = refused(&scene, &DAY, 5);
    assert!(started.elapsed() < Duration::from_secs(60), "{ran}");
    assert!(ran.stderr.contains("a table is locked on the source"), "{ran}");
    client.batch_execute("ROLLBACK").await.expect("unlock");
    scene.pgslice(&DAY).exits(0);
}

#[test]
fn a_folder_in_a_folder_that_is_missing_is_refused() {
    let database = events("no_parent");
    let scene = Scene::in_folder(EVENT).source(&database);
    // Its parent is not made: that would hide a file system that is not mounted.
    scene.edit_configuration("/store\"", "/absent/store\"");
    let ran = scene.pgslice(&DAY).exits(2);
    assert!(ran.stderr.contains("absent"), "{ran}");
    assert!(!scene.folder().join("absent").exists());
}

#[test]
fn rows_without_a_place_in_time_are_refused_or_left_out_and_counted() {
    let database = cluster::source().create_database("no_time");
    database.psql(
        "CREATE TABLE event (id int PRIMARY KEY, at timestamptz);
         INSERT INTO event VALUES (1, '2024-05-01 10:00Z'), (2, NULL), (3, 'infinity'), (4, '-infinity')",
    );
    let mut scene = Scene::new(EVENT).source(&database);
    let ran = refused(&scene, &DAY, 4);
    assert!(ran.stderr.contains("has 3 rows whose time is NULL or infinite"), "{ran}");
    assert!(ran.stderr.contains("null-time = \"exclude\""), "{ran}");
    scene.configure(&format!("{EVENT}null-time = \"exclude\"\n"));
    scene.pgslice(&DAY).exits(0);
    let published = Published::by(&scene);
    assert_eq!(published.ids("2024-05-01", "public.event"), ["1"]);
    let slice = published.slice("2024-05-01", "public.event");
    assert_eq!((slice.excluded_rows, slice.filtered), (3, false), "no window lacks a row");
}
