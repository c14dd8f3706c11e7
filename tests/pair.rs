//! A source and a replica with one feed between them.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cluster::{self, Database};
use crate::place::{Kind, Place};
use crate::scene::{Ran, Scene};

/// The table that most tests are content with, for [`Pair::of_notes`].
pub(crate) const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, body text)";
/// Its section of the configuration.
pub(crate) const NOTES_TABLE: &str = "[[table]]\nname = \"notes\"\ntime-column = \"at\"\n";

/// What lets a test take rows away without being asked.
const ANY_SHRINK: &str = "[export]\nmax-shrink = \"100%\"\n";

/// Two databases on two clusters, and one scene that publishes from the first and tops off the second.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) source: Database,
    pub(crate) replica: Database,
    pub(crate) scene: Scene,
}

impl Pair {
    /// Both databases are made by `schema`; `tables` is TOML.
    pub(crate) fn new(schema: &str, tables: &str) -> Pair {
        Pair::on(Kind::of_this_run(), schema, tables).with_the_same_tables(schema)
    }

    /// Only the source is made by `schema`.
    pub(crate) fn with_empty_replica(schema: &str, tables: &str) -> Pair {
        Pair::on(Kind::of_this_run(), schema, tables)
    }

    /// [`NOTES`] on both sides; on the source `days` days from 2024-05-01 on, each with five notes.
    pub(crate) fn of_notes(days: u32) -> Pair {
        Pair::of_notes_on(Kind::of_this_run(), days)
    }

    /// The same with a store of that kind, whatever this run of the tests is about.
    pub(crate) fn of_notes_on(kind: Kind, days: u32) -> Pair {
        let pair = Pair::on(kind, NOTES, NOTES_TABLE).with_the_same_tables(NOTES);
        pair.source.psql(&notes(days));
        pair
    }

    /// Only the source is made by `schema`; the store is of that kind.
    pub(crate) fn on(kind: Kind, schema: &str, tables: &str) -> Pair {
        let source = cluster::source().create_database("published");
        source.psql(schema);
        let replica = cluster::replica().create_database("topped_off");
        let scene = Scene::on(kind, &format!("{ANY_SHRINK}{tables}")).source(&source).replica(&replica);
        Pair { source, replica, scene }
    }

    fn with_the_same_tables(self, schema: &str) -> Pair {
        self.replica.psql(schema);
        self
    }

    /// Replaces the tables of the configuration, and whatever else differs from the defaults.
    pub(crate) fn configure(&mut self, sections: &str) {
        self.scene.configure(sections);
    }

    /// Publishes one day.
    #[track_caller]
    pub(crate) fn export(&self, day: &str) {
        self.scene.pgslice(&["export", "--date", day, "--accept-shrink"]).exits(0);
    }

    /// Publishes the days from `from` to `to`.
    #[track_caller]
    pub(crate) fn export_range(&self, from: &str, to: &str) {
        self.scene.pgslice(&["export", "--from", from, "--to", to, "--accept-shrink"]).exits(0);
    }

    /// Runs `pgslice catchup` with further arguments.
    pub(crate) fn catchup(&self, arguments: &[&str]) -> Ran {
        self.scene.pgslice(&[&["catchup"], arguments].concat())
    }

    /// What `pgslice catchup --json` says, which must exit with `code`.
    #[track_caller]
    pub(crate) fn report(&self, arguments: &[&str], code: i32) -> Value {
        let ran = self.catchup(&[&["--json"], arguments].concat()).exits(code);
        serde_json::from_str(&ran.stdout).expect("one JSON document")
    }

    /// Panics unless both sides hold the same rows of `table`.
    #[track_caller]
    pub(crate) fn assert_equal(&self, table: &str) {
        assert_eq!(rows(&self.replica, table), rows(&self.source, table), "{table} differs (left: replica)");
    }

    /// Everything that the replica holds, its ledger included, with the place and the writer of every row: equal only
    /// when nothing was written in between.
    pub(crate) fn replica_state(&self) -> String {
        let tables = self.replica.psql(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
        );
        let queries: Vec<String> = tables
            .lines()
            .filter(|table| *table != "pgslice.feed")
            .map(|table| {
                format!(
                    "SELECT '{table} ' || coalesce(md5(string_agg(t.xmin::text || t.ctid::text || t::text,
                         ',' ORDER BY t.ctid)), 'empty')
                     FROM {table} t;"
                )
            })
            .collect();
        self.replica.psql(&queries.concat())
    }

    /// The rows of the replica's tables in `public`, and of the ledger if it has one.
    pub(crate) fn replica_rows(&self) -> String {
        let ledger = self.ledger("day, table_name, revision, rows_digest, origin, applied_at");
        self.replica.psql("SELECT md5(schema_to_xml('public', true, true, '')::text)") + "\n" + &ledger
    }

    /// Columns of the replica's ledger by day and table; empty without a ledger.
    pub(crate) fn ledger(&self, columns: &str) -> String {
        match self.replica.psql("SELECT to_regclass('pgslice.ledger') IS NOT NULL").as_str() {
            "t" => self.replica.psql(&format!("SELECT {columns} FROM pgslice.ledger ORDER BY day, table_name")),
            _ => String::new(),
        }
    }

    /// Where the feed is.
    pub(crate) fn place(&self) -> &dyn Place {
        &**self.scene.place()
    }

    /// feed.json.
    pub(crate) fn head(&self) -> Value {
        serde_json::from_slice(&self.place().content("feed.json")).expect("feed.json is JSON")
    }

    /// Changes feed.json by hand, as a hostile or broken publisher would.
    pub(crate) fn edit_head(&self, edit: impl FnOnce(&mut Value)) {
        let mut head = self.head();
        edit(&mut head);
        self.place().write("feed.json", head.to_string().as_bytes());
    }

    fn entry(&self, day: &str) -> Value {
        let head = self.head();
        let days = head["days"].as_array().expect("days are a list");
        days.iter().find(|entry| entry["day"] == day).unwrap_or_else(|| panic!("{day} is not published")).clone()
    }

    /// The key of a day's manifest.
    pub(crate) fn manifest_key(&self, day: &str) -> String {
        self.entry(day)["manifest"]["key"].as_str().expect("a key").to_owned()
    }

    /// A day's manifest.
    pub(crate) fn manifest(&self, day: &str) -> Value {
        serde_json::from_slice(&self.place().content(&self.manifest_key(day))).expect("the manifest is JSON")
    }

    /// The key of the rows of a table's slice.
    pub(crate) fn part_key(&self, day: &str, table: &str) -> String {
        let manifest = self.manifest(day);
        let slices = manifest["slices"].as_array().expect("slices are a list");
        let slice = slices.iter().find(|slice| slice["table"] == table).expect("the table has a slice");
        slice["parts"][0]["key"].as_str().expect("a key").to_owned()
    }

    /// Rewrites a day's manifest, and its hash in feed.json: what a publisher can do who means harm.
    pub(crate) fn forge(&self, day: &str, edit: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest(day);
        edit(&mut manifest);
        let bytes = manifest.to_string();
        self.place().write(&self.manifest_key(day), bytes.as_bytes());
        let sha256 = hex::encode(Sha256::digest(bytes.as_bytes()));
        self.edit_head(|head| entry_of(head, day)["manifest"]["sha256"] = sha256.into());
    }
}

/// The entry of `day` in a head.
pub(crate) fn entry_of<'a>(head: &'a mut Value, day: &str) -> &'a mut Value {
    let days = head["days"].as_array_mut().expect("days are a list");
    days.iter_mut().find(|entry| entry["day"] == day).expect("the day is published")
}

/// All rows of a table (or whatever else stands in a FROM clause), in the order of their text.
pub(crate) fn rows(database: &Database, table: &str) -> String {
    database.psql(&format!("SELECT t::text FROM {table} t ORDER BY 1"))
}

/// Statements that write five notes on each of so many days from 2024-05-01 on: ids 101 to 105, 201 to 205, …
pub(crate) fn notes(days: u32) -> String {
    format!(
        "INSERT INTO notes SELECT day * 100 + i, '2024-05-01 00:00+00'::timestamptz + (day - 1) * interval '1 day'
             + i * interval '3 hours', 'note ' || i FROM generate_series(1, {days}) day, generate_series(1, 5) i;"
    )
}
