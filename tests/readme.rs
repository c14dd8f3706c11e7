//! The README's five minutes, run as they are written.

use std::fs;

use tempfile::TempDir;

use crate::cluster::{self, Database};
use crate::scene::pgslice;

const README: &str = include_str!("../README.md");

/// The fenced block that follows a `<!-- tour: NAME -->` line.
fn block(name: &str) -> &'static str {
    let mark = format!("<!-- tour: {name} -->");
    let after = README.split_once(&mark).unwrap_or_else(|| panic!("{mark} is in the README")).1;
    let fenced = after.split_once("```").expect("a block").1;
    let (_language, content) = fenced.split_once('\n').expect("a block");
    content.split_once("```").expect("a block that ends").0
}

/// A folder with the configuration of a block, pointed at this test's own databases and store.
fn folder(name: &str, source: &Database, replica: &Database, store: &str) -> TempDir {
    let folder = TempDir::with_prefix("pgslice-readme-").expect("create a temporary folder");
    let mut config = block(name).to_owned();
    for (in_readme, here) in [
        ("postgres://reader@localhost/app\"", format!("{}\"", source.url)),
        ("postgres://localhost/app_copy\"", format!("{}\"", replica.url)),
        ("file:///srv/feeds/events\"", format!("file://{store}\"")),
    ] {
        config = config.replace(in_readme, &here);
    }
    assert!(!config.contains("localhost") && !config.contains("/srv/"), "everything was replaced:\n{config}");
    fs::write(folder.path().join("pgslice.toml"), config).expect("write pgslice.toml");
    folder
}

fn run(folder: &TempDir, name: &str) -> Vec<String> {
    let commands: Vec<&str> = block(name).lines().filter_map(|line| line.strip_prefix("$ pgslice ")).collect();
    assert!(!commands.is_empty());
    commands
        .iter()
        .map(|command| pgslice(folder.path(), &command.split_whitespace().collect::<Vec<_>>()).exits(0).stdout)
        .collect()
}

#[test]
fn the_five_minutes_work_as_they_are_written() {
    let (source, replica) = (cluster::source().create_database("tour"), cluster::replica().create_database("tour"));
    source.psql(
        "create table events (id bigint generated always as identity primary key, created_at timestamptz not null, body text);
         insert into events (created_at, body)
         select date_trunc('day', now(), 'UTC') - n * interval '1 minute', 'event ' || n from generate_series(1, 1000) n;",
    );
    let store = TempDir::with_prefix("pgslice-readme-").expect("create a temporary folder");
    let store = store.path().join("events").display().to_string();

    let producer = folder("config", &source, &replica, &store);
    let said = run(&producer, "producer");
    assert!(said[0].contains("1 published"), "{said:?}");
    assert!(said[1].contains("yesterday"), "{said:?}");
    assert!(said[2].contains("public.events-"), "{said:?}");

    let consumer = folder("replica", &source, &replica, &store);
    let said = run(&consumer, "consumer");
    assert!(said[0].contains("1 day would be applied"), "{said:?}");
    assert!(said[1].contains("1 day applied, 1,000 rows"), "{said:?}");
    assert!(said[2].contains("nothing new"), "{said:?}");
    let sum = "select count(*), md5(string_agg(e::text, '|' order by id)) from events e";
    assert_eq!(source.psql(sum), replica.psql(sum));
}
