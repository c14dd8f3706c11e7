//! What an export makes of a connection that lies, breaks or falls silent: a slice is complete only when the server
//! ended its COPY and counted as many rows as arrived.

use crate::cluster::{self, Database};
use crate::proxy::{Fate, Message, Proxy};
use crate::published::Published;
use crate::scene::{Ran, Scene};

const TABLES: &str =
    "[[table]]\nname = \"event\"\ntime-column = \"at\"\n[[table]]\nname = \"other\"\ntime-column = \"at\"\n";
const DAY: [&str; 3] = ["export", "--date", "2024-05-01"];

/// A database with 1,000 rows in `event` and 10 in `other`, all on 2024-05-01.
fn events() -> Database {
    cluster::source().create_from("wire", |database| {
        database.psql(
            "CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL, note text);
             CREATE TABLE other (LIKE event);
             INSERT INTO event SELECT n, '2024-05-01 12:00Z', 'note ' || n FROM generate_series(1, 1000) n;
             INSERT INTO other SELECT * FROM event WHERE id <= 10",
        );
    })
}

/// An export of a day that is published already, of which a row changed, through a proxy that spoils one message. Its
/// failure must leave everything that is visible as it was, and the next run without the fault must publish the change.
#[track_caller]
fn spoiled(code: i32, fate: impl FnMut(&Message<'_>) -> Fate + Send + 'static) -> Ran {
    let database = events();
    let scene = Scene::new(TABLES).source(&database);
    scene.pgslice(&DAY).exits(0);
    database.psql("UPDATE event SET note = 'new' WHERE id = 500; UPDATE other SET note = 'new' WHERE id = 5");
    let published = Published::by(&scene);
    let (days, objects) = (published.days(), published.objects());

    let proxy = Proxy::start(&database, fate);
    let through = Scene::new(&format!("[source]\nurl = \"{}\"\n{TABLES}", proxy.url())).reading(&scene);
    let ran = through.pgslice(&DAY).exits(code);
    assert_eq!(published.days(), days, "{ran}");
    assert_eq!(published.objects(), objects, "{ran}");
    assert_eq!(published.staged(), 0, "{ran}");
    published.is_whole();

    scene.pgslice(&DAY).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r2 final 1010"]);
    assert_eq!(published.rows("2024-05-01", "public.event").iter().filter(|row| row.ends_with("\tnew")).count(), 1);
    published.is_whole();
    ran
}

/// A fate for the COPY of 1,000 rows; whatever else the server says passes.
fn at_count(fate: impl Fn() -> Fate) -> impl FnMut(&Message<'_>) -> Fate {
    move |message| if message.copied() == Some(1000) { fate() } else { Fate::Pass }
}

/// A fate for the row with the id 600, which only `event` has.
fn at_row_600(fate: impl Fn(&Message<'_>) -> Fate) -> impl FnMut(&Message<'_>) -> Fate {
    move |message| if message.is_row() && message.body.starts_with(b"600\t") { fate(message) } else { Fate::Pass }
}

#[test]
fn an_export_through_an_honest_proxy_is_as_good_as_any() {
    let database = events();
    let proxy = Proxy::start(&database, |_| Fate::Pass);
    let scene = Scene::new(&format!("[source]\nurl = \"{}\"\n{TABLES}", proxy.url()));
    scene.pgslice(&DAY).exits(0);
    assert_eq!(Published::by(&scene).days(), ["2024-05-01 r1 final 1010"]);
}

#[test]
fn a_count_that_is_not_that_of_the_rows_is_refused() {
    for tag in ["COPY 1001", "COPY 999", "COPY 0"] {
        let ran = spoiled(4, at_count(move || Fate::Replace([tag.as_bytes(), &[0]].concat())));
        let said = tag.strip_prefix("COPY ").expect("a count");
        assert!(ran.stderr.contains(&format!("1000 rows arrived, the server says it sent {said}")), "{ran}");
        assert!(ran.stderr.contains("public.event"), "{ran}");
    }
}

#[test]
fn an_end_of_a_copy_without_a_count_is_refused() {
    for tag in ["COPY", "SELECT 1000", "COPY all of them"] {
        let ran = spoiled(1, at_count(move || Fate::Replace([tag.as_bytes(), &[0]].concat())));
        assert!(ran.stderr.contains("unexpected answer of the server"), "{ran}");
    }
    spoiled(1, at_count(|| Fate::Swallow));
}

#[test]
fn a_row_that_got_lost_on_the_way_is_missed() {
    let ran = spoiled(4, at_row_600(|_| Fate::Swallow));
    assert!(ran.stderr.contains("999 rows arrived, the server says it sent 1000"), "{ran}");
}

#[test]
fn a_row_without_its_line_end_is_refused() {
    let ran = spoiled(1, at_row_600(|message| Fate::Replace(message.body[..8].to_owned())));
    assert!(ran.stderr.contains("is not one line of COPY's text format"), "{ran}");
}

#[test]
fn a_connection_lost_between_two_rows_publishes_nothing() {
    spoiled(5, at_row_600(|_| Fate::Cut(0)));
}

#[test]
fn a_connection_lost_within_a_row_publishes_nothing() {
    spoiled(5, at_row_600(|_| Fate::Cut(9)));
    spoiled(5, at_row_600(|_| Fate::Cut(3)));
}

#[test]
fn a_connection_lost_after_the_last_row_publishes_nothing() {
    // All rows are there, and CopyDone too: only the count is missing.
    spoiled(5, at_count(|| Fate::Cut(0)));
    spoiled(5, at_count(|| Fate::Cut(8)));
}

#[test]
fn an_error_of_the_server_within_a_copy_publishes_nothing() {
    let database = events();
    let scene = Scene::new(&format!("{TABLES}where = \"10 / (id - 7) < 100\"\n")).source(&database);
    let ran = scene.pgslice(&DAY).exits(1);
    assert!(ran.stderr.contains("division by zero"), "{ran}");
    let published = Published::by(&scene);
    assert!(published.days().is_empty() && published.objects().is_empty());
    assert_eq!(published.staged(), 0);
}
