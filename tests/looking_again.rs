//! Days that are published already and looked at again: what has changed is found, and what has not is not read.

use crate::clock::Clock;
use crate::cluster::{self, Database};
use crate::published::Published;
use crate::scene::{Ran, Scene};

const DAYS: [&str; 3] = ["2024-05-01", "2024-05-02", "2024-05-03"];
const BY_TIME: &str = "time-column = \"at\"\n";

/// Ids 11 to 13 on the first day, 21 to 23 on the second, 31 to 33 on the third.
const ROWS: &str = "SELECT day * 10 + n AS id, '2024-05-01 10:00Z'::timestamptz + (day - 1) * interval '1 day'
    + n * interval '1 minute' AS at, 'note ' || day AS note FROM generate_series(1, 3) day, generate_series(1, 3) n";

/// A database whose tables are published for three days, and looked at on the morning after. They lie in a schema called
/// as the database, by which the server's log tells them from those of other tests.
struct Story {
    database: Database,
    scene: Scene,
    published: Published,
}

impl Story {
    /// `tables` are names with the rest of their section; `export` the lines of `[export]`.
    fn of(schema: &str, export: &str, tables: &[(&str, &str)]) -> Story {
        let database = cluster::source().create_database("looked");
        database.psql(&format!("ALTER DATABASE {} SET log_statement = 'all'", database.name));
        let _clock = Clock::showing(&database, "2024-05-04 08:00Z");
        let scene = Scene::new(&sections(&database, export, tables)).source(&database);
        let story = Story { published: Published::by(&scene), database, scene };
        story.psql(&format!("CREATE SCHEMA {}; {}", story.database.name, schema.replace("$ROWS", ROWS)));
        story.scene.pgslice(&["export", "--from", DAYS[0], "--to", DAYS[2]]).exits(0);
        story
    }

    /// One table `event (id, at, note)`.
    fn of_events(export: &str, section: &str) -> Story {
        let schema = "CREATE TABLE event AS $ROWS; ALTER TABLE event ADD PRIMARY KEY (id)";
        Story::of(schema, export, &[("event", &format!("{BY_TIME}{section}"))])
    }

    fn configure(&mut self, export: &str, tables: &[(&str, &str)]) {
        self.scene.configure(&sections(&self.database, export, tables));
    }

    fn psql(&self, script: &str) -> String {
        self.database.psql(&format!("SET search_path = {}, public; {script}", self.database.name))
    }

    /// Runs the export of the morning, and says which tables it read, once for each day of which it did.
    fn look(&self) -> (Ran, Vec<String>) {
        let before = self.copies().len();
        let ran = self.scene.pgslice(&["export"]).exits(0);
        let mut read = self.copies().split_off(before);
        read.sort();
        (ran, read)
    }

    /// The tables that COPY statements of this database named, in the order of the server's log.
    fn copies(&self) -> Vec<String> {
        let schema = format!("\"{}\".\"", self.database.name);
        let log = cluster::source().log();
        let copies = log.lines().filter(|line| line.contains("statement: copy (select "));
        let table =
            |line: &str| Some(line.split(" from ").nth(1)?.split(&schema).nth(1)?.split('"').next()?.to_owned());
        copies.filter_map(table).collect()
    }

    /// Looks, and panics unless it read these tables and came to that summary.
    #[track_caller]
    fn looks(&self, summary: &str, read: &[&str]) {
        let (ran, tables) = self.look();
        assert_eq!((ran.summary(), tables.as_slice()), (summary, read.map_owned().as_slice()), "{ran}");
        self.published.is_whole();
        assert_eq!(self.published.staged(), 0);
    }

    fn revisions(&self) -> Vec<u32> {
        self.published.feed().days.iter().map(|entry| entry.revision).collect()
    }

    fn rows(&self, day: &str, table: &str) -> Vec<String> {
        self.published.rows(day, &format!("{}.{table}", self.database.name))
    }
}

fn sections(database: &Database, export: &str, tables: &[(&str, &str)]) -> String {
    let schema = &database.name;
    let table = |(name, section): &(&str, &str)| {
        format!("[[table]]\nname = \"{schema}.{name}\"\n{}", section.replace("$SCHEMA", schema))
    };
    format!("[export]\nmax-shrink = \"100%\"\n{export}\n{}", tables.iter().map(table).collect::<String>())
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}

impl MapOwned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

#[test]
fn where_nothing_changed_nothing_is_read_or_written() {
    let story = Story::of_events("", "");
    // When a day was last found as it is may change.
    let entries = || {
        let mut days = story.published.feed().days;
        days.iter_mut().for_each(|entry| entry.taken = None);
        days
    };
    let before = (story.published.objects(), entries());
    story.looks("scene: 3 unchanged", &[]);
    story.psql("VACUUM FREEZE event; ANALYZE event; BEGIN; UPDATE event SET note = 'x'; ROLLBACK; SELECT FROM event FOR UPDATE");
    story.looks("scene: 3 unchanged", &[]);
    assert_eq!((story.published.objects(), entries()), before);
}

#[test]
fn inserts_updates_deletes_and_moves_are_found_in_their_days_and_nowhere_else() {
    let story = Story::of_events("", "");
    story.psql("UPDATE event SET note = 'changed' WHERE id = 12");
    story.looks("scene: 1 published, 2 unchanged", &["event"]);
    assert_eq!(story.revisions(), [2, 1, 1]);
    assert!(story.rows(DAYS[0], "event")[1].ends_with("\tchanged"));
    story.psql("INSERT INTO event VALUES (24, '2024-05-02 23:00Z', 'late')");
    story.looks("scene: 1 published, 2 unchanged", &["event"]);
    assert_eq!(story.revisions(), [2, 2, 1]);
    story.psql("DELETE FROM event WHERE id = 31");
    story.looks("scene: 1 published, 2 unchanged", &["event"]);
    assert_eq!(story.revisions(), [2, 2, 2]);
    story.psql("UPDATE event SET at = '2024-05-01 01:00Z' WHERE id = 33");
    story.looks("scene: 2 published, 1 unchanged", &["event", "event"]);
    assert_eq!(story.revisions(), [3, 2, 3]);
    // One comes, another one goes: as many rows as before.
    story.psql("DELETE FROM event WHERE id = 21; INSERT INTO event VALUES (25, '2024-05-02 20:00Z', 'new')");
    story.looks("scene: 1 published, 2 unchanged", &["event"]);
    let rows = DAYS.map(|day| story.rows(day, "event").len());
    assert_eq!((story.revisions(), rows), (vec![3, 3, 3], [4, 4, 1]));
    story.looks("scene: 3 unchanged", &[]);
}

#[test]
fn rows_that_were_written_again_are_read_again_and_rows_that_were_moved_about_on_disk_are_not() {
    let story = Story::of_events("", "");
    story.psql("DELETE FROM event WHERE id = 11; INSERT INTO event VALUES (11, '2024-05-01 10:01Z', 'note 1')");
    story.looks("scene: 3 unchanged", &["event"]);
    story.psql("VACUUM FULL event");
    story.looks("scene: 3 unchanged", &["event"]);
    assert_eq!(story.revisions(), [1, 1, 1]);
}

#[test]
fn old_rows_that_take_the_place_of_others_are_found_though_none_was_written() {
    let shape = "(id int, at timestamptz NOT NULL, note text)";
    let schema = format!(
        "CREATE TABLE parted {shape} PARTITION BY RANGE (at);
         CREATE TABLE first PARTITION OF parted FOR VALUES FROM ('2024-05-01 00:00Z') TO ('2024-05-02 00:00Z');
         CREATE TABLE rest PARTITION OF parted DEFAULT; INSERT INTO parted SELECT * FROM ($ROWS) rows;
         CREATE TABLE other AS SELECT id, at, 'other' AS note FROM first; ALTER TABLE other ALTER at SET NOT NULL;
         CREATE TABLE plain AS $ROWS; CREATE TABLE twin AS SELECT id, at, 'twin' AS note FROM plain"
    );
    let story = Story::of(&schema, "", &[("parted", BY_TIME), ("plain", BY_TIME)]);
    story.looks("scene: 3 unchanged", &[]);
    story.psql(
        "ALTER TABLE parted DETACH PARTITION first;
         ALTER TABLE parted ATTACH PARTITION other FOR VALUES FROM ('2024-05-01 00:00Z') TO ('2024-05-02 00:00Z')",
    );
    story.looks("scene: 1 published, 2 unchanged", &["parted"]);
    assert!(story.rows(DAYS[0], "parted")[0].ends_with("\tother"));
    story.psql("ALTER TABLE plain RENAME TO away; ALTER TABLE twin RENAME TO plain");
    story.looks("scene: 3 published", &["plain"; 3]);
    assert!(story.rows(DAYS[2], "plain")[0].ends_with("\ttwin"));
}

#[test]
fn a_column_that_is_dropped_and_added_again_is_noticed_though_no_row_was_written() {
    let story = Story::of_events("", "");
    story.psql("ALTER TABLE event DROP COLUMN note; ALTER TABLE event ADD COLUMN note text DEFAULT 'none'");
    story.looks("scene: 3 published", &["event"; 3]);
    assert!(story.rows(DAYS[2], "event")[0].ends_with("\tnone"));
}

#[test]
fn only_tables_that_changed_are_read_such_as_one_that_is_filled_up_with_old_times() {
    let story = Story::of(
        "CREATE TABLE event AS $ROWS; CREATE TABLE person (id int PRIMARY KEY, name text);
         INSERT INTO person SELECT n, 'person ' || n FROM generate_series(1, 4) n;
         CREATE TABLE country (code text PRIMARY KEY); INSERT INTO country VALUES ('de');
         CREATE TABLE link (event_id int, person_id int, at timestamptz NOT NULL);
         INSERT INTO link SELECT id, id / 10, at FROM event",
        "",
        &[
            ("event", BY_TIME),
            ("link", BY_TIME),
            ("person", "rows = \"referenced\"\nreferenced-by = [\"$SCHEMA.link.person_id\"]\nkey = [\"id\"]\n"),
            ("country", "rows = \"all\"\n"),
        ],
    );
    let parts = |table: &str| story.published.slice(DAYS[0], &format!("{}.{table}", story.database.name)).parts;
    let of_events = parts("event");
    story.psql("INSERT INTO link VALUES (11, 4, '2024-05-01 10:01Z')");
    story.looks("scene: 1 published, 2 unchanged", &["link", "person"]);
    assert_eq!(story.revisions(), [2, 1, 1]);
    assert_eq!(parts("event"), of_events, "it is carried");
    assert_eq!(story.rows(DAYS[0], "person"), ["1\tperson 1", "4\tperson 4"]);

    story.psql("UPDATE person SET name = 'renamed' WHERE id = 2");
    story.looks("scene: 1 published, 2 unchanged", &["person"]);
    assert_eq!(story.revisions(), [2, 2, 1]);

    // A whole table makes no revision by itself, and goes along with the next one.
    story.psql("INSERT INTO country VALUES ('fr')");
    story.looks("scene: 3 unchanged", &[]);
    story.psql("INSERT INTO event VALUES (34, '2024-05-03 20:00Z', 'late')");
    story.looks("scene: 1 published, 2 unchanged", &["country", "event"]);
    assert_eq!(story.rows(DAYS[2], "country"), ["de", "fr"]);
}

#[test]
fn a_provisional_day_that_has_not_changed_settles_unread() {
    let story = Story::of_events("settle = \"12h\"", "");
    let day = story.published.manifest(DAYS[2]);
    assert_eq!(story.published.days()[2], "2024-05-03 r1 provisional 3");
    story.looks("scene: 3 unchanged", &[]);
    Clock::of(&story.database).show("2024-05-04 12:01Z");
    story.looks("scene: 1 published, 2 unchanged", &[]);
    assert_eq!(story.published.days()[2], "2024-05-03 r1 final 3");
    let settled = story.published.manifest(DAYS[2]);
    assert_eq!(settled.slices[0].parts, day.slices[0].parts);
    assert_eq!(settled.slices[0].taken.as_ref(), Some(&day.taken));
    story.looks("scene: 3 unchanged", &[]);
    story.psql("UPDATE event SET note = 'late' WHERE id = 33");
    story.looks("scene: 1 published, 2 unchanged", &["event"]);
}

#[test]
fn a_day_that_is_named_is_read_in_any_case() {
    let story = Story::of_events("", "");
    let before = story.copies().len();
    assert_eq!(story.scene.pgslice(&["export", "--date", DAYS[1]]).exits(0).summary(), "scene: 1 unchanged");
    assert_eq!(story.copies().len(), before + 1);
}

#[test]
fn each_way_to_look_sees_what_it_says() {
    let mut story = Story::of_events("detect = \"count\"", "");
    let event = |section: &str| format!("{BY_TIME}{section}");
    story.psql("UPDATE event SET note = 'unseen' WHERE id = 12");
    story.looks("scene: 3 unchanged", &[]);
    story.psql("INSERT INTO event VALUES (14, '2024-05-01 20:00Z', 'counted')");
    story.looks("scene: 1 published, 2 unchanged", &["event"]);
    assert!(story.rows(DAYS[0], "event")[1].ends_with("\tunseen"));

    // What was only counted has its snapshot, which tells what was written since.
    story.psql("UPDATE event SET note = 'seen late' WHERE id = 22");
    story.looks("scene: 3 unchanged", &[]);
    story.configure("", &[("event", BY_TIME)]);
    story.looks("scene: 1 published, 2 unchanged", &["event"]);
    assert!(story.rows(DAYS[1], "event")[1].ends_with("\tseen late"));
    story.configure("detect = \"digest\"", &[("event", BY_TIME)]);
    story.looks("scene: 3 unchanged", &["event"; 3]);
    story.configure("detect = \"digest\"", &[("event", &event("detect = \"count\"\n"))]);
    story.looks("scene: 3 unchanged", &[]);

    story.psql("INSERT INTO event VALUES (15, '2024-05-01 21:00Z', 'not looked for')");
    story.configure("detect = \"off\"", &[("event", BY_TIME)]);
    story.looks("scene: nothing is due", &[]);
    story.psql("CREATE TABLE quiet AS $ROWS".replace("$ROWS", ROWS).as_str());
    let tables = [("event", &*event("detect = \"off\"\n")), ("quiet", BY_TIME)];
    story.configure("", &tables);
    story.looks("scene: 3 published", &["quiet"; 3]);
    assert_eq!(story.rows(DAYS[0], "event").len(), 4, "left alone, though the day was published again");
}

#[test]
fn relations_that_do_not_show_versions_of_their_rows_are_read() {
    let far = cluster::source().create_database("far");
    far.psql(&format!("CREATE TABLE event AS {ROWS}"));
    let server = format!(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
             OPTIONS (host '{}', port '{}', dbname '{}');
         CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'postgres');",
        cluster::source().socket_dir().display(),
        cluster::source().port(),
        far.name
    );
    let shape = "(id int, at timestamptz NOT NULL, note text)";
    let schema = format!(
        "{server}
         CREATE TABLE base AS $ROWS;
         CREATE TABLE partitioned {shape} PARTITION BY RANGE (at);
         CREATE TABLE one PARTITION OF partitioned DEFAULT; INSERT INTO partitioned SELECT * FROM base;
         CREATE TABLE parent {shape}; CREATE TABLE heir () INHERITS (parent); INSERT INTO heir SELECT * FROM base;
         CREATE MATERIALIZED VIEW kept AS SELECT * FROM base;
         CREATE VIEW shown AS SELECT * FROM base;
         CREATE FOREIGN TABLE distant {shape} SERVER far OPTIONS (schema_name 'public', table_name 'event');
         CREATE TABLE mixed {shape} PARTITION BY RANGE (at);
         CREATE FOREIGN TABLE other PARTITION OF mixed DEFAULT SERVER far
             OPTIONS (schema_name 'public', table_name 'event')"
    );
    let story = Story::of(
        &schema,
        "",
        &[
            ("partitioned", BY_TIME),
            ("parent", &format!("{BY_TIME}inheritance = \"include\"\n")),
            ("kept", &format!("{BY_TIME}relation = \"materialized-view\"\n")),
            ("shown", &format!("{BY_TIME}relation = \"view\"\n")),
            ("distant", &format!("{BY_TIME}relation = \"foreign-table\"\n")),
            ("mixed", BY_TIME),
        ],
    );
    let days_of =
        |tables: &[&'static str]| -> Vec<&'static str> { tables.iter().flat_map(|table| [*table; 3]).collect() };
    story.looks("scene: 3 unchanged", &days_of(&["distant", "mixed", "shown"]));
    // Rows of all of them are updated where they lie; a foreign table shows the same xmin for whatever there is.
    far.psql("UPDATE event SET note = 'far' WHERE id = 13");
    story.psql(
        "UPDATE base SET note = 'new' WHERE id = 13; UPDATE partitioned SET note = 'new' WHERE id = 13;
         UPDATE heir SET note = 'new' WHERE id = 13; REFRESH MATERIALIZED VIEW kept",
    );
    let (ran, _) = story.look();
    assert_eq!(ran.summary(), "scene: 1 published, 2 unchanged", "{ran}");
    for table in ["partitioned", "parent", "kept", "shown"] {
        assert!(story.rows(DAYS[0], table)[2].ends_with("\tnew"), "{table}");
    }
    for table in ["distant", "mixed"] {
        assert!(story.rows(DAYS[0], table)[2].ends_with("\tfar"), "{table}");
    }
    assert_eq!(story.revisions(), [2, 1, 1]);
}
