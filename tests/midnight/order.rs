//! The order in which a day is judged and read: open transactions, prepared ones, then the snapshot. Whatever ends
//! between two of these steps was seen by the earlier one, or its rows are in the later one.

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::NoTls;

use crate::cluster::{self, Database};
use crate::proxy::{Fate, Message, Proxy};
use crate::published::Published;
use crate::scene::Scene;

use super::{DAY, before_midnight, midnight};

fn table(settle: &str, url: &str) -> String {
    format!(
        "[source]\nurl = \"{url}\"\n[export]\nsettle = \"{settle}\"\n[[table]]\nname = \"event\"\ntime-column = \"at\"\n"
    )
}

fn events(database: &Database) {
    database
        .psql(&format!("CREATE TABLE event (id int, at timestamptz); INSERT INTO event VALUES (1, '{DAY} 12:00Z')"));
}

/// Is it the answer to the statement that exports the snapshot? Its first value is like `00000004-0000002A-1`.
fn is_snapshot(message: &Message<'_>) -> bool {
    let id = message.body.get(6..25).unwrap_or_default();
    message.kind == b'D' && id.len() == 19 && id[8] == b'-' && id.ends_with(b"-1")
}

fn describes(message: &Message<'_>, column: &str) -> bool {
    let name = [column.as_bytes(), &[0]].concat();
    message.kind == b'T' && message.body.windows(name.len()).any(|bytes| bytes == name)
}

#[test]
fn what_commits_after_the_snapshot_was_taken_keeps_the_day_provisional() {
    let database = cluster::source().create_database("after_snapshot");
    events(&database);
    database
        .psql(&format!("BEGIN; INSERT INTO event VALUES (2, '{DAY} 13:00Z'); PREPARE TRANSACTION '{}'", database.name));
    let held = AtomicBool::new(false);
    let proxy = Proxy::start(&database, move |message| {
        if is_snapshot(message) && !held.swap(true, Ordering::Relaxed) { Fate::Hold } else { Fate::Pass }
    });
    let scene = Scene::in_folder(&table("15m", proxy.url()));
    let export = scene.spawn(&["export", "--date", DAY]);
    proxy.holds();
    database.psql(&format!("COMMIT PREPARED '{}'", database.name));
    proxy.release();
    export.wait().exits(0);
    let published = Published::by(&scene);
    assert_eq!(published.days(), [format!("{DAY} r1 provisional 1")]);
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    assert_eq!(published.days(), [format!("{DAY} r2 final 2")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_prepared_between_the_two_questions_keeps_the_day_provisional() {
    let (clock, cluster) = before_midnight(TimeDelta::seconds(3));
    let database = cluster.create_database("between");
    events(&database);
    let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.expect("connect");
    tokio::spawn(connection);
    client.batch_execute(&format!("BEGIN; INSERT INTO event VALUES (2, '{DAY} 13:00Z')")).await.expect("begin");
    let began: DateTime<Utc> = client.query_one("SELECT now()", &[]).await.expect("ask").get(0);
    assert!(began < midnight(), "too late for this test: {began}");
    clock.shows(midnight()).await;

    // Held is the end of the first answer, whichever question that is.
    let (mut asked, mut held) = (false, false);
    let proxy = Proxy::start(&database, move |message| {
        asked |= describes(message, "xact_start") || describes(message, "gid");
        let first = asked && message.kind == b'C' && !held;
        held |= first;
        if first { Fate::Hold } else { Fate::Pass }
    });
    let scene = Scene::in_folder(&table("0s", proxy.url())).under(clock);
    let export = scene.spawn(&["export", "--date", DAY]);
    let (proxy, client) = tokio::task::spawn_blocking(move || {
        proxy.holds();
        (proxy, client)
    })
    .await
    .expect("it is held");
    client.batch_execute("PREPARE TRANSACTION 'between'").await.expect("prepare");
    proxy.release();
    export.wait().exits(0);
    let published = Published::by(&scene);
    assert_eq!(published.days(), [format!("{DAY} r1 provisional 1")]);
    client.batch_execute("COMMIT PREPARED 'between'").await.expect("commit");
    scene.pgslice(&["export", "--date", DAY]).exits(0);
    assert_eq!(published.days(), [format!("{DAY} r2 final 2")]);
}
