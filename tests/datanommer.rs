//! Datanommer's tables, filled with made-up days: the same files that `make demo` uses.

use crate::cluster::{Cluster, Database};

const SCHEMA: &str = include_str!("../demo/datanommer.sql");
const FILL: &str = include_str!("../demo/fill.sql");
const CONFIG: &str = include_str!("../demo/producer.toml");

/// A database with the tables, all empty.
pub(crate) fn create(cluster: &'static Cluster, hint: &str) -> Database {
    let database = cluster.create_database(hint);
    database.psql(SCHEMA);
    database
}

/// Adds a day (`2024-05-01`) of `messages`, with about half as many rows in `users_messages` and two thirds in
/// `packages_messages`. The same day and number make the same rows, but for their ids.
pub(crate) fn fill(database: &Database, day: &str, messages: u32) {
    database.psql(&format!("\\set day {day}\n\\set rows {messages}\n{FILL}"));
}

/// The `[[table]]` sections of a configuration for these tables.
pub(crate) fn tables() -> &'static str {
    &CONFIG[CONFIG.find("[[table]]").expect("the demo publishes tables")..]
}
