//! `pgslice export`: which days are published, as what, and what a run leaves alone.

use std::collections::BTreeSet;

use chrono::{NaiveDate, TimeDelta, Timelike, Utc};
use pgslice::feed::DayEntry;
use pgslice::manifest::State;
use serde_json::Value;

use crate::cluster::{self, Database};
use crate::published::Published;
use crate::scene::Scene;

const EVENT: &str = "[[table]]\nname = \"event\"\ntime-column = \"at\"\n";

/// A database with an empty table `event (id, at, note)`.
fn events(hint: &str) -> Database {
    let database = cluster::source().create_database(hint);
    database.psql(
        "CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL, note text); CREATE INDEX ON event (at)",
    );
    database
}

/// Adds rows with these ids to a day in UTC, a minute apart.
fn add(database: &Database, day: &str, first: u32, last: u32) {
    database.psql(&format!(
        "INSERT INTO event SELECT n, '{day}'::timestamptz + n * interval '1 minute', 'note ' || n
         FROM generate_series({first}, {last}) n"
    ));
}

/// A zone where it is about noon now, and the dates around: no test of today and yesterday runs across a midnight.
struct Noon {
    zone: String,
    offset: TimeDelta,
}

impl Noon {
    fn now() -> Noon {
        let hours = 12 - i64::from(Utc::now().hour());
        // The signs of these names are those of POSIX: west is positive.
        let zone = match hours {
            0 => "Etc/GMT".to_owned(),
            east @ 1.. => format!("Etc/GMT-{east}"),
            west => format!("Etc/GMT+{}", -west),
        };
        Noon { zone, offset: TimeDelta::hours(hours) }
    }

    /// That many days before today.
    fn days_ago(&self, days: i64) -> NaiveDate {
        (Utc::now() + self.offset).date_naive() - TimeDelta::days(days)
    }

    /// Adds a row at noon of that day.
    fn add(&self, database: &Database, id: u32, days_ago: i64) {
        let noon = self.days_ago(days_ago).and_hms_opt(12, 0, 0).expect("noon exists").and_utc() - self.offset;
        database.psql(&format!("INSERT INTO event VALUES ({id}, '{}', 'noon')", noon.to_rfc3339()));
    }

    fn line(&self, days_ago: i64, rest: &str) -> String {
        format!("{} {rest}", self.days_ago(days_ago))
    }
}

#[test]
fn a_named_day_is_published_from_its_first_instant_to_the_one_before_the_next() {
    let database = events("named_day");
    database.psql(
        "INSERT INTO event VALUES
            (1, '2024-04-30 23:59:59.999999Z'), (2, '2024-05-01 00:00:00Z'), (3, '2024-05-01 12:00:00Z'),
            (4, '2024-05-01 23:59:59.999999Z'), (5, '2024-05-02 00:00:00Z')",
    );
    let scene = Scene::new(EVENT).source(&database);
    let ran = scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    assert_eq!(ran.summary(), "scene: 1 published");
    assert!(ran.stderr.contains("2024-05-01 published: r1 final, 3 rows"), "{ran}");
    let published = Published::by(&scene);
    assert_eq!(published.days(), ["2024-05-01 r1 final 3"]);
    assert_eq!(published.ids("2024-05-01", "public.event"), ["2", "3", "4"]);
    let slice = published.slice("2024-05-01", "public.event");
    assert_eq!(slice.min_time.as_deref(), Some("2024-05-01 00:00:00+00"));
    assert_eq!(slice.max_time.as_deref(), Some("2024-05-01 23:59:59.999999+00"));
    published.is_whole();
    assert_eq!(published.staged(), 0);
}

#[test]
fn a_range_is_published_day_by_day_its_last_one_included() {
    let database = events("range");
    add(&database, "2024-05-01", 1, 2);
    add(&database, "2024-05-03", 11, 13);
    let scene = Scene::new(EVENT).source(&database);
    scene.pgslice(&["export", "--from", "2024-05-01", "--to", "2024-05-03"]).exits(0);
    let published = Published::by(&scene);
    assert_eq!(published.days(), ["2024-05-01 r1 final 2", "2024-05-02 r1 final 0", "2024-05-03 r1 final 3"]);
    let feed = published.feed();
    assert_eq!(feed.oldest.expect("an oldest day").to_string(), "2024-05-01");
    assert_eq!(feed.newest.expect("a newest day").to_string(), "2024-05-03");
    published.is_whole();
}

#[test]
fn a_day_without_rows_is_published_as_such() {
    let database = events("no_rows");
    let scene = Scene::new(EVENT).source(&database);
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    let published = Published::by(&scene);
    assert_eq!(published.days(), ["2024-05-01 r1 final 0"]);
    assert!(published.rows("2024-05-01", "public.event").is_empty());
    let slice = published.slice("2024-05-01", "public.event");
    assert_eq!((slice.rows, slice.raw_bytes, slice.parts.len()), (0, 0, 1));
    assert_eq!(slice.rows_digest.to_string(), "0".repeat(32));
    assert_eq!((slice.min_time, slice.max_time), (None, None));
    published.is_whole();
}

#[test]
fn an_empty_feed_begins_with_yesterday() {
    let (noon, database) = (Noon::now(), events("yesterday"));
    for days_ago in 0..4 {
        noon.add(&database, u32::try_from(days_ago).expect("small"), days_ago);
    }
    let scene = Scene::new(EVENT).source(&database).timezone(&noon.zone);
    scene.pgslice(&["export"]).exits(0);
    let published = Published::by(&scene);
    assert_eq!(published.days(), [noon.line(1, "r1 final 1")]);
    assert_eq!(published.ids(&noon.days_ago(1).to_string(), "public.event"), ["1"]);
}

#[test]
fn yesterday_can_be_named() {
    let (noon, database) = (Noon::now(), events("named_yesterday"));
    noon.add(&database, 1, 1);
    let scene = Scene::new(EVENT).source(&database).timezone(&noon.zone);
    scene.pgslice(&["export", "--date", "yesterday"]).exits(0);
    assert_eq!(Published::by(&scene).days(), [noon.line(1, "r1 final 1")]);
}

#[test]
fn missing_days_are_published_from_the_oldest_on_and_no_earlier_ones() {
    let (noon, database) = (Noon::now(), events("missing"));
    (1..=7).for_each(|days_ago| noon.add(&database, u32::try_from(days_ago).expect("small"), days_ago));
    let scene = Scene::new(EVENT).source(&database).timezone(&noon.zone);
    for days_ago in [6, 4] {
        scene.pgslice(&["export", "--date", &noon.days_ago(days_ago).to_string()]).exits(0);
    }
    let ran = scene.pgslice(&["export"]).exits(0);
    assert_eq!(ran.summary(), "scene: 4 published", "{ran}");
    let all: Vec<String> = (1..=6).rev().map(|days_ago| noon.line(days_ago, "r1 final 1")).collect();
    assert_eq!(Published::by(&scene).days(), all);
}

#[test]
fn recent_days_are_examined_again_and_published_again_when_their_rows_changed() {
    let (noon, database) = (Noon::now(), events("lookback"));
    (1..=5).for_each(|days_ago| noon.add(&database, u32::try_from(days_ago).expect("small"), days_ago));
    let scene = Scene::new(&format!("[export]\nlookback = \"2d\"\n{EVENT}")).source(&database).timezone(&noon.zone);
    scene.pgslice(&["export", "--date", &noon.days_ago(5).to_string()]).exits(0);
    scene.pgslice(&["export"]).exits(0);
    // Within the lookback a row changes; beyond it another one does, which nobody looks for.
    database.psql("UPDATE event SET note = 'changed' WHERE id IN (2, 4)");
    let ran = scene.pgslice(&["export"]).exits(0);
    assert_eq!(ran.summary(), "scene: 1 published, 1 unchanged", "{ran}");
    let published = Published::by(&scene);
    let lines = [(5, 1), (4, 1), (3, 1), (2, 2), (1, 1)];
    assert_eq!(
        published.days(),
        lines.map(|(days_ago, revision)| noon.line(days_ago, &format!("r{revision} final 1")))
    );
    assert!(published.rows(&noon.days_ago(2).to_string(), "public.event")[0].ends_with("\tchanged"));
    published.is_whole();
}

#[test]
fn a_whole_table_that_changed_makes_no_revision_of_the_days_before() {
    let (noon, database) = (Noon::now(), events("passive"));
    noon.add(&database, 1, 1);
    database.psql("CREATE TABLE country (code text PRIMARY KEY); INSERT INTO country VALUES ('de')");
    let sections = format!("{EVENT}[[table]]\nname = \"country\"\nrows = \"all\"\n");
    let scene = Scene::new(&sections).source(&database).timezone(&noon.zone);
    scene.pgslice(&["export"]).exits(0);
    database.psql("INSERT INTO country VALUES ('fr')");
    let ran = scene.pgslice(&["export"]).exits(0);
    assert_eq!(ran.summary(), "scene: 1 unchanged");
    noon.add(&database, 2, 1);
    scene.pgslice(&["export"]).exits(0);
    let published = Published::by(&scene);
    assert_eq!(published.days(), [noon.line(1, "r2 final 4")]);
    assert_eq!(published.rows(&noon.days_ago(1).to_string(), "public.country"), ["de", "fr"]);
}

#[test]
fn a_run_with_nothing_to_do_moves_the_heartbeat() {
    let (noon, database) = (Noon::now(), events("heartbeat"));
    noon.add(&database, 1, 1);
    let sections = format!("[export]\nlookback = \"0d\"\n{EVENT}");
    let scene = Scene::new(&sections).source(&database).timezone(&noon.zone);
    scene.pgslice(&["export"]).exits(0);
    let published = Published::by(&scene);
    let (before, objects) = (published.feed(), published.objects());
    let ran = scene.pgslice(&["export"]).exits(0);
    assert_eq!(ran.summary(), "scene: nothing is due");
    let after = published.feed();
    assert_eq!(after.sequence, before.sequence + 1);
    assert!(after.published_at > before.published_at);
    assert_eq!(after.valid_until - after.published_at, TimeDelta::hours(36));
    assert_ne!(after.attempt_id, before.attempt_id);
    assert_eq!((after.days, after.feed_id), (before.days, before.feed_id));
    assert_eq!(published.objects(), objects);
}

#[test]
fn an_equal_day_is_unchanged_and_leaves_nothing_new() {
    let database = events("equal");
    add(&database, "2024-05-01", 1, 500);
    let scene = Scene::new(EVENT).source(&database);
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    let published = Published::by(&scene);
    let (entry, objects) = (published.entry("2024-05-01"), published.objects());
    // The same set of rows, but in another order on disk.
    database.psql("UPDATE event SET note = note WHERE id % 2 = 0; VACUUM FULL event");
    let ran = scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    assert_eq!(ran.summary(), "scene: 1 unchanged");
    assert!(ran.stderr.contains("2024-05-01 unchanged: r1 final, 500 rows"), "{ran}");
    let seen = published.entry("2024-05-01");
    assert_ne!(seen.taken, entry.taken, "the head says when that was found");
    assert_eq!(DayEntry { taken: entry.taken.clone(), ..seen }, entry);
    assert_eq!(published.objects(), objects);
    assert_eq!(published.staged(), 0);
}

#[test]
fn force_publishes_equal_rows_as_a_new_revision_with_parts_of_its_own() {
    let database = events("force");
    add(&database, "2024-05-01", 1, 5);
    let scene = Scene::new(EVENT).source(&database);
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    let published = Published::by(&scene);
    let first = published.slice("2024-05-01", "public.event");
    scene.pgslice(&["export", "--date", "2024-05-01", "--force"]).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r2 final 5"]);
    let second = published.slice("2024-05-01", "public.event");
    assert_eq!(second.rows_digest, first.rows_digest);
    assert_ne!(second.parts[0].key, first.parts[0].key);
    assert_eq!(second.taken, None);
    let retired = &published.feed().retired;
    assert_eq!(retired.iter().map(|retired| retired.revision).collect::<Vec<_>>(), [1]);
    published.is_whole();
}

#[test]
fn only_a_changed_table_gets_a_new_part_and_the_checksums_reach_the_old_ones() {
    let database = events("carried");
    database.psql("CREATE TABLE quiet (id int PRIMARY KEY, at timestamptz NOT NULL)");
    database.psql("INSERT INTO quiet VALUES (1, '2024-05-01 08:00Z'), (2, '2024-05-01 09:00Z')");
    add(&database, "2024-05-01", 1, 5);
    let scene = Scene::new(&format!("{EVENT}[[table]]\nname = \"quiet\"\ntime-column = \"at\"\n")).source(&database);
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    let published = Published::by(&scene);
    let (first, before) = (published.manifest("2024-05-01"), published.objects());
    let own = "public.event-2024-05-01.copy.zst".to_owned();
    assert_eq!(published.checked_sums("2024-05-01"), [own.clone(), "public.quiet-2024-05-01.copy.zst".to_owned()]);

    add(&database, "2024-05-01", 6, 6);
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r2 final 8"]);
    let second = published.manifest("2024-05-01");
    let (old, carried) = (&first.slices[1], &second.slices[1]);
    assert_eq!(carried.parts, old.parts);
    assert_eq!(carried.taken.as_ref(), Some(&first.taken));
    assert_ne!(second.slices[0].parts, first.slices[0].parts);
    assert_eq!(second.slices[0].taken, None);
    assert_eq!(published.rows("2024-05-01", "public.quiet").len(), 2);

    let new: Vec<String> = published.objects().difference(&before).cloned().collect();
    assert_eq!(new.len(), 3, "a part, its checksums and the manifest: {new:?}");
    let quiet = old.parts[0].key.as_str().strip_prefix("2024-05-01/").expect("in the day's directory");
    assert_eq!(published.checked_sums("2024-05-01"), [own, format!("../{quiet}")]);
    published.is_whole();

    // Twice carried, it is still the first read's.
    add(&database, "2024-05-01", 7, 7);
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    let third = published.manifest("2024-05-01");
    assert_eq!(third.slices[1].parts, old.parts);
    assert_eq!(third.slices[1].taken.as_ref(), Some(&first.taken));
}

#[test]
fn a_provisional_day_becomes_final_under_its_revision_over_the_same_parts() {
    let (noon, database) = (Noon::now(), events("settles"));
    (1..=6).for_each(|days_ago| noon.add(&database, u32::try_from(days_ago).expect("small"), days_ago));
    let sections = |settle: &str| format!("[export]\nlookback = \"1d\"\nsettle = \"{settle}\"\n{EVENT}");
    let mut scene = Scene::new(&sections("30d")).source(&database).timezone(&noon.zone);
    let (day, early) = (noon.days_ago(1).to_string(), noon.days_ago(5).to_string());
    let ran = scene.pgslice(&["export", "--date", &early]).exits(0);
    assert!(ran.stderr.contains("is provisional: less than 30 d 0 h have passed since its end"), "{ran}");
    scene.pgslice(&["export"]).exits(0);
    let published = Published::by(&scene);
    let lines = |rest: &str| (1..=5).rev().map(|days_ago| noon.line(days_ago, rest)).collect::<Vec<_>>();
    assert_eq!(published.days(), lines("r1 provisional 1"));
    let (before, directory) = (published.manifest(&day), published.directory(&day));

    scene.configure(&sections("0s"));
    let ran = scene.pgslice(&["export"]).exits(0);
    assert_eq!(ran.summary(), "scene: 5 published", "also what the lookback does not reach: {ran}");
    assert_eq!(published.days(), lines("r1 final 1"));
    let after = published.manifest(&day);
    assert_eq!(after.slices[0].parts, before.slices[0].parts);
    assert_ne!(published.directory(&day), directory);
    assert_eq!(published.checked_sums(&day).len(), 1);
    published.is_whole();

    scene.configure(&sections("30d"));
    scene.pgslice(&["export", "--date", &day]).exits(0);
    assert_eq!(published.entry(&day).state, State::Final, "what was final stays final");
}

#[test]
fn a_prepared_transaction_keeps_a_day_provisional_until_it_is_decided() {
    let database = events("prepared");
    add(&database, "2024-05-01", 1, 3);
    add(&database, "2024-05-02", 11, 13);
    let prepare = |id: u32, day: &str| {
        database.psql(&format!(
            "BEGIN; INSERT INTO event VALUES ({id}, '{day} 09:00Z'); PREPARE TRANSACTION '{}_{id}'",
            database.name
        ));
    };
    prepare(4, "2024-05-01");
    let scene = Scene::new(EVENT).source(&database);
    let ran = scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    assert!(ran.stderr.contains(&format!("{}_4", database.name)), "{ran}");
    let published = Published::by(&scene);
    assert_eq!(published.days(), ["2024-05-01 r1 provisional 3"]);

    database.psql(&format!("COMMIT PREPARED '{}_4'", database.name));
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r2 final 4"]);

    prepare(14, "2024-05-02");
    scene.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
    database.psql(&format!("ROLLBACK PREPARED '{}_14'", database.name));
    let ran = scene.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
    assert!(ran.stderr.contains("2024-05-02 published as final: r1 final, 3 rows"), "{ran}");
    assert_eq!(published.days()[1], "2024-05-02 r1 final 3");
}

/// Makes every transaction of `database` look a thousand days older than it is: the days of a test are over when it
/// begins, so that no real transaction can have begun before the end of one.
fn age_transactions(database: &Database) {
    database.psql(
        r"SET allow_system_table_mods = on;
          SELECT 'CREATE OR REPLACE VIEW pg_catalog.pg_stat_activity AS '
              || replace(pg_get_viewdef('pg_catalog.pg_stat_activity'),
                         's.xact_start', 's.xact_start - interval ''1000 days'' AS xact_start')
          \gexec",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_from_before_the_end_keeps_a_day_from_being_final() {
    let (noon, database) = (Noon::now(), events("open"));
    noon.add(&database, 1, 1);
    age_transactions(&database);
    let (client, connection) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await.expect("connect");
    tokio::spawn(connection);
    client.batch_execute("SET application_name = 'slowpoke'; BEGIN; SELECT 1").await.expect("begin");

    let sections = |unsettled: &str| format!("[export]\nsettle = \"0s\"\nunsettled = \"{unsettled}\"\n{EVENT}");
    let mut scene = Scene::new(&sections("refuse")).source(&database).timezone(&noon.zone);
    let ran = scene.pgslice(&["export", "--date", "yesterday"]).exits(8);
    assert!(ran.stderr.contains("(slowpoke) has had a transaction open for"), "{ran}");
    let published = Published::by(&scene);
    assert!(published.days().is_empty());
    assert!(published.objects().is_empty());

    scene.configure(&sections("provisional"));
    scene.pgslice(&["export", "--date", "yesterday"]).exits(0);
    assert_eq!(published.days(), [noon.line(1, "r1 provisional 1")]);

    // It has not written a thing before: the row comes now, long after the end.
    noon.add(&database, 2, 1);
    client.batch_execute("UPDATE event SET note = 'late' WHERE id = 1; COMMIT").await.expect("commit");
    scene.pgslice(&["export"]).exits(0);
    assert_eq!(published.days(), [noon.line(1, "r2 final 2")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_transaction_is_hidden_counts_as_open() {
    let database = events("hidden");
    add(&database, "2024-05-01", 1, 3);
    let reader = format!("reader_of_{}", database.name);
    database.psql(&format!("CREATE ROLE {reader} LOGIN; GRANT SELECT ON event TO {reader}"));
    let url = database.url.replace("user=postgres", &format!("user={reader}"));
    let scene = Scene::new(&format!("[source]\nurl = \"{url}\"\n{EVENT}"));
    let (client, connection) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await.expect("connect");
    tokio::spawn(connection);

    let ran = scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    assert!(ran.stderr.contains(&format!("GRANT pg_read_all_stats TO \"{reader}\"")), "{ran}");
    let published = Published::by(&scene);
    assert_eq!(published.days(), ["2024-05-01 r1 provisional 3"]);

    client.batch_execute(&format!("GRANT pg_read_all_stats TO {reader}")).await.expect("grant");
    scene.pgslice(&["export", "--date", "2024-05-01"]).exits(0);
    assert_eq!(published.days(), ["2024-05-01 r1 final 3"]);

    // Not even a superuser sees what a session does that does not track it.
    client.batch_execute("SET track_activities = off").await.expect("hide");
    scene.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
    assert_eq!(published.days()[1], "2024-05-02 r1 provisional 0");
}

#[test]
fn a_dry_run_says_what_is_due_and_writes_nothing() {
    let (noon, database) = (Noon::now(), events("dry"));
    noon.add(&database, 1, 1);
    let scene = Scene::new(EVENT).source(&database).timezone(&noon.zone);
    scene.place().make();
    let ran = scene.pgslice(&["export", "--dry-run"]).exits(0);
    assert_eq!(ran.stdout, noon.line(1, "would be exported: not published yet\n"));
    assert!(scene.place().is_untouched(), "not even an empty feed");

    scene.pgslice(&["export", "--date", &noon.days_ago(3).to_string()]).exits(0);
    let published = Published::by(&scene);
    let (feed, objects) = (published.feed(), published.objects());
    let ran = scene.pgslice(&["export", "--dry-run"]).exits(0);
    let expected = [
        noon.line(3, "would be exported: recent: examined again"),
        noon.line(2, "would be exported: not published yet"),
        noon.line(1, "would be exported: not published yet"),
    ];
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), expected);
    assert_eq!(published.feed(), feed);
    assert_eq!(published.objects(), objects);
}

#[test]
fn a_dry_run_of_an_unfinished_day_fails_as_the_real_run_would() {
    let (noon, database) = (Noon::now(), events("dry_today"));
    let scene = Scene::new(EVENT).source(&database).timezone(&noon.zone);
    scene.place().make();
    scene.pgslice(&["export", "--dry-run", "--date", &noon.days_ago(0).to_string()]).exits(8);
}

#[test]
fn json_tells_what_became_of_each_day() {
    let database = events("json");
    add(&database, "2024-05-01", 1, 3);
    let scene = Scene::new(EVENT).source(&database);
    let ran = scene.pgslice(&["export", "--from", "2024-05-01", "--to", "2024-05-02", "--json"]).exits(0);
    let report: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    let feed = Published::by(&scene).feed();
    assert_eq!(report["format"], 1);
    assert_eq!(report["dataset"], "scene");
    assert_eq!(report["feed_id"], feed.feed_id);
    assert_eq!(report["sequence"], feed.sequence);
    assert_eq!(report["dry_run"], false);
    let day = &report["days"][0];
    assert_eq!(day["day"], "2024-05-01");
    assert_eq!(day["window"]["start"], "2024-05-01T00:00:00Z");
    assert_eq!(day["window"]["end"], "2024-05-02T00:00:00Z");
    assert_eq!(day["outcome"], "published");
    assert_eq!(day["revision"], 1);
    assert_eq!(day["state"], "final");
    assert_eq!(day["rows"], 3);
    assert!(day["bytes"].as_u64().expect("a number") > 0);
    assert_eq!(day["error"], Value::Null);
    assert_eq!(report["days"][1]["rows"], 0);

    database.psql("ALTER TABLE event RENAME TO gone");
    let ran = scene.pgslice(&["export", "--date", "2024-05-03", "--json"]).exits(2);
    let report: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    assert_eq!(report["days"][0]["outcome"], "failed");
    assert_eq!(report["days"][0]["error"]["exit_code"], 2);
    let message = report["days"][0]["error"]["message"].as_str().expect("a text");
    assert!(message.contains("public.event"), "{message}");
}

#[test]
fn quiet_says_nothing_when_all_went_well() {
    let database = events("quiet");
    add(&database, "2024-05-01", 1, 3);
    let scene = Scene::new(EVENT).source(&database);
    let ran = scene.pgslice(&["-q", "export", "--date", "2024-05-01"]).exits(0);
    assert_eq!(ran.stderr, "");
    let ran = scene.pgslice(&["-q", "export", "--date", "2999-01-01"]).exits(8);
    assert!(ran.stderr.contains("2999-01-01"), "{ran}");
}

#[test]
fn no_day_of_a_busy_source_has_a_child_without_its_parent() {
    let database = cluster::source().create_database("busy");
    database.psql(
        "CREATE TABLE parent (id int PRIMARY KEY, at timestamptz NOT NULL, pad text);
         CREATE TABLE child (parent_id int PRIMARY KEY, at timestamptz NOT NULL, pad text);
         CREATE TABLE stop (now bool);
         INSERT INTO parent SELECT n, '2024-05-01 10:00Z', repeat('p', 200) FROM generate_series(1, 20000) n;
         INSERT INTO child SELECT id, at, pad FROM parent",
    );
    let table = |name: &str| format!("[[table]]\nname = {name:?}\ntime-column = \"at\"\n");
    let scene = Scene::new(&[table("parent"), table("child")].concat()).source(&database);
    let published = Published::by(&scene);
    let ids = |table: &str| published.ids("2024-05-01", table).into_iter().collect::<BTreeSet<String>>();
    // Judged when the writer has stopped, for it would never end after a panic.
    let mut runs = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            database.psql(
                "DO $$ DECLARE n int := 100000; BEGIN
                     WHILE NOT EXISTS (SELECT FROM stop) LOOP
                         INSERT INTO parent VALUES (n, '2024-05-01 10:00Z', '');
                         INSERT INTO child VALUES (n, '2024-05-01 10:00Z', '');
                         COMMIT;
                         n := n + 1;
                     END LOOP;
                 END $$",
            );
        });
        for _ in 1..=6 {
            let ran = scene.pgslice(&["export", "--date", "2024-05-01", "--force"]);
            let read = (ran.code == 0).then(|| (ids("public.parent"), ids("public.child")));
            runs.push((ran, read));
        }
        database.psql("INSERT INTO stop VALUES (true)");
    });
    let mut counts = Vec::new();
    for (ran, read) in runs {
        let ran = ran.exits(0);
        let (parents, children) = read.expect("it was published");
        let orphans: Vec<&String> = children.difference(&parents).collect();
        let childless: Vec<&String> = parents.difference(&children).collect();
        assert!(orphans.is_empty() && childless.is_empty(), "{} and {}\n{ran}", orphans.len(), childless.len());
        counts.push(parents.len());
    }
    assert!(counts.windows(2).all(|pair| pair[0] < pair[1]), "the writer did write meanwhile: {counts:?}");
}
