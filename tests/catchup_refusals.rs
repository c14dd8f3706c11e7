//! What `pgslice catchup` refuses, with which exit code, and that it left the replica alone.

use crate::cluster;
use crate::pair::{NOTES, NOTES_TABLE, Pair, entry_of, notes, rows};
use crate::scene::{Ran, Scene};

/// Three published days, nothing applied.
fn published() -> Pair {
    let pair = Pair::of_notes(3);
    pair.export_range("2024-05-01", "2024-05-03");
    pair
}

/// Runs a catchup that must exit with `code`, say all of `words`, and change no row.
#[track_caller]
fn refuses(pair: &Pair, arguments: &[&str], code: i32, words: &[&str]) -> Ran {
    let before = pair.replica_rows();
    let refused = pair.catchup(arguments).exits(code);
    for word in words {
        assert!(refused.stderr.contains(word), "{word} in\n{refused}");
    }
    assert_eq!(pair.replica_rows(), before, "{refused}");
    refused
}

/// The same for a replica whose table does not fit: then nothing at all was applied either.
#[track_caller]
fn drifts(change: &str, words: &[&str]) {
    let pair = published();
    pair.replica.psql(change);
    refuses(&pair, &[], 9, words);
    assert_eq!(pair.ledger("*"), "");
}

#[test]
fn a_missing_table_is_named_with_what_to_do() {
    drifts("DROP TABLE notes", &["the replica has no table public.notes", "--create"]);
}

#[test]
fn a_missing_column_is_named_with_the_statement_that_adds_it() {
    drifts(
        "ALTER TABLE notes DROP COLUMN body",
        &["no column \"body\" (text)", "alter table \"public\".\"notes\" add column \"body\"", "no row was moved"],
    );
}

#[test]
fn a_retyped_column_is_named_with_both_types() {
    drifts(
        "ALTER TABLE notes ALTER body TYPE varchar(20)",
        &["\"body\" is character varying(20) on the replica and text in the feed", "alter column \"body\" type text"],
    );
    drifts("ALTER TABLE notes ALTER id TYPE smallint", &["\"id\" is smallint on the replica and integer in the feed"]);
}

#[test]
fn a_column_of_the_replicas_own_that_needs_a_value_is_named() {
    drifts("ALTER TABLE notes ADD own int NOT NULL", &["\"own\" is NOT NULL", "drop not null"]);
}

#[test]
fn a_view_in_the_tables_place_is_refused() {
    drifts(
        "ALTER TABLE notes RENAME TO real_notes; CREATE VIEW notes AS TABLE real_notes",
        &["is not a table on the replica"],
    );
}

#[test]
fn drift_of_a_later_day_is_judged_before_the_first_is_applied() {
    let pair = published();
    pair.source.psql("ALTER TABLE notes ADD topic text");
    pair.export("2024-05-03");
    refuses(&pair, &[], 9, &["2024-05-03 does not fit the replica", "\"topic\""]);
    assert_eq!(pair.ledger("*"), "");
    pair.replica.psql("ALTER TABLE notes ADD topic text");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn several_differences_of_a_day_are_told_at_once() {
    let schema = format!("{NOTES}; CREATE TABLE marks (id int PRIMARY KEY, at timestamptz NOT NULL)");
    let pair = Pair::new(&schema, &format!("{NOTES_TABLE}[[table]]\nname = \"marks\"\ntime-column = \"at\"\n"));
    pair.export("2024-05-01");
    pair.replica.psql("ALTER TABLE notes DROP body; ALTER TABLE marks ALTER id TYPE smallint");
    refuses(
        &pair,
        &[],
        9,
        &["public.notes: the replica has no column \"body\"", "public.marks: column \"id\" is smallint"],
    );
}

#[test]
fn what_precedes_a_gap_is_applied_and_what_follows_waits() {
    let pair = Pair::of_notes(5);
    pair.export_range("2024-05-01", "2024-05-02");
    pair.export_range("2024-05-04", "2024-05-05");
    let stopped = pair.catchup(&[]).exits(10);
    for word in ["2024-05-03 is missing in the feed", "2 later days wait", "--allow-gap"] {
        assert!(stopped.stderr.contains(word), "{word} in\n{stopped}");
    }
    assert_eq!(pair.ledger("day"), "2024-05-01\n2024-05-02");
    refuses(&pair, &[], 10, &["2024-05-03"]);
    let report = pair.report(&[], 10);
    assert_eq!((&report["waiting"], &report["stopped"]["exit_code"]), (&2.into(), &10.into()));

    pair.catchup(&["--allow-gap"]).exits(0);
    assert_eq!(rows(&pair.replica, "notes"), rows(&pair.source, "(SELECT * FROM notes WHERE id / 100 <> 3)"));
    let settled = pair.catchup(&[]).exits(0);
    assert!(settled.stdout.contains("nothing new"), "a gap is accepted once: {settled}");
    pair.export("2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_gap_beyond_to_stops_nothing() {
    let pair = Pair::of_notes(4);
    pair.export_range("2024-05-01", "2024-05-02");
    pair.export("2024-05-04");
    pair.catchup(&["--to", "2024-05-02"]).exits(0);
    assert_eq!(pair.ledger("day"), "2024-05-01\n2024-05-02");
    pair.catchup(&["--from", "2024-05-04"]).exits(0);
    assert_eq!(pair.ledger("day"), "2024-05-01\n2024-05-02\n2024-05-04");
}

/// Three days, of which the replica holds the first; then the feed keeps the 5th to 7th only.
fn behind() -> Pair {
    let pair = Pair::of_notes(7);
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    pair.export_range("2024-05-04", "2024-05-07");
    pair.scene.pgslice(&["prune", "--keep", "3d"]).exits(0);
    assert_eq!(pair.head()["oldest"], "2024-05-05");
    pair
}

#[test]
fn a_replica_whose_next_days_were_pruned_is_told_so() {
    let pair = behind();
    refuses(&pair, &[], 11, &["holds days up to 2024-05-01", "starts at 2024-05-05", "pruned", "--allow-gap"]);
    pair.catchup(&["--allow-gap"]).exits(0);
    assert_eq!(rows(&pair.replica, "notes"), rows(&pair.source, "(SELECT * FROM notes WHERE id < 200 OR id > 500)"));
    pair.catchup(&[]).exits(0);
}

#[test]
fn from_says_what_is_meant_when_days_were_pruned() {
    let pair = behind();
    pair.catchup(&["--from", "2024-05-06"]).exits(0);
    assert_eq!(pair.ledger("day"), "2024-05-01\n2024-05-06\n2024-05-07");
}

#[test]
fn a_replica_with_rows_from_before_the_oldest_day_must_hold_that_day() {
    let pair = Pair::of_notes(4);
    pair.export_range("2024-05-03", "2024-05-04");
    // Restored in the middle of the 2nd: the rest of that day is in no published one.
    pair.replica.psql(&format!("{} DELETE FROM notes WHERE id > 202", notes(2)));
    refuses(&pair, &[], 11, &["public.notes has rows from before 2024-05-03", "--from 2024-05-03", "--allow-gap"]);
    assert_eq!(pair.ledger("*"), "");
    // Restored after the end of the 3rd: nothing is missing.
    pair.replica.psql(&format!("DELETE FROM notes; {}", notes(3)));
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn from_before_the_oldest_day_applies_nothing() {
    let pair = published();
    refuses(&pair, &["--from", "2024-04-30"], 11, &["2024-04-30 is before the feed's oldest day, 2024-05-01"]);
    refuses(&pair, &["--from", "2024-04-30", "--allow-gap"], 11, &["2024-05-01"]);
}

#[test]
fn a_day_that_is_not_published_yet_is_8_after_what_is_there_was_applied() {
    let pair = published();
    let stopped = pair.catchup(&["--to", "2024-05-09"]).exits(8);
    assert!(stopped.stderr.contains("2024-05-09 is not published yet (the newest is 2024-05-03)"), "{stopped}");
    pair.assert_equal("notes");
    pair.catchup(&["--to", "2024-05-03"]).exits(0);
}

#[test]
fn a_range_that_ends_before_it_begins_is_a_mistake() {
    let pair = published();
    refuses(&pair, &["--from", "2024-05-03", "--to", "2024-05-01"], 2, &["2024-05-03", "2024-05-01"]);
}

#[test]
fn a_stale_feed_is_applied_and_then_reported() {
    let pair = published();
    pair.edit_head(|head| head["valid_until"] = "2024-06-01T00:00:00Z".into());
    let stopped = pair.catchup(&[]).exits(12);
    assert!(stopped.stderr.contains("the feed was last published to at"), "{stopped}");
    pair.assert_equal("notes");
    let again = pair.catchup(&[]).exits(12);
    assert!(again.stdout.contains("nothing new"), "{again}");
}

#[test]
fn max_age_of_the_replica_stands_above_the_feeds_own_word() {
    let pair = published();
    let replica = |max_age: &str| {
        let scene = Scene::new(NOTES_TABLE).replica(&pair.replica).reading(&pair.scene);
        scene.edit_configuration("[replica]\n", &format!("[replica]\nmax-age = \"{max_age}\"\n"));
        scene
    };
    pair.edit_head(|head| head["published_at"] = "2024-05-04T00:20:00Z".into());
    replica("36h").pgslice(&["catchup"]).exits(12);
    pair.assert_equal("notes");
    pair.edit_head(|head| head["valid_until"] = "2024-05-05T00:20:00Z".into());
    replica("520w").pgslice(&["catchup"]).exits(0);
}

#[test]
fn a_feed_that_was_made_anew_is_refused_with_the_statement_that_accepts_it() {
    let pair = published();
    pair.catchup(&[]).exits(0);
    pair.place().clear();
    pair.export("2024-05-01");
    let refused =
        refuses(&pair, &[], 4, &["this replica follows feed", "delete from pgslice.feed where dataset = 'scene'"]);
    let statement = refused.stderr.lines().find_map(|line| line.split_once("run: ")).expect("a statement").1;
    pair.replica.psql(statement);
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.ledger("origin").lines().filter(|origin| *origin == "adopted").count(), 1);
}

#[test]
fn a_feed_that_was_made_anew_is_noticed_by_a_replica_that_took_a_part_of_it_only() {
    let pair = published();
    pair.catchup(&["--from", "2024-05-03"]).exits(0);
    pair.place().clear();
    pair.export_range("2024-05-01", "2024-05-03");
    refuses(&pair, &["--from", "2024-05-03"], 4, &["this replica follows feed"]);
}

#[test]
fn an_older_version_of_the_feed_is_stale() {
    let pair = published();
    pair.catchup(&[]).exits(0);
    let old = pair.head();
    pair.source.psql("UPDATE notes SET body = 'x'");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.edit_head(|head| *head = old);
    refuses(&pair, &[], 12, &["version", "this replica has seen", "a cache in between"]);
}

#[test]
fn two_catchups_exclude_each_other() {
    let pair = published();
    // A trigger that waits holds the first one inside its transaction.
    pair.replica.psql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(42);
         RETURN NULL; END $$;
         CREATE TRIGGER wait AFTER INSERT ON notes FOR EACH STATEMENT EXECUTE FUNCTION wait()",
    );
    std::thread::scope(|scope| {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let holder = scope.spawn({
            let url = pair.replica.url.clone();
            move || {
                let mut client = hold_lock_42(&url);
                released.recv().expect("a word from the test");
                client();
            }
        });
        crate::interruptions::eventually("the lock is held", || {
            pair.replica.psql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND granted")
                == "1"
        });
        let first = pair.scene.spawn(&["catchup"]);
        crate::interruptions::eventually("the first catchup waits", || {
            pair.replica
                .psql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted")
                == "1"
        });
        let second = pair.catchup(&[]).exits(7);
        assert!(second.stderr.contains("another catchup is running on this replica"), "{second}");
        pair.scene.pgslice(&["verify", "--replica"]).exits(7);
        release.send(()).expect("the holder listens");
        holder.join().expect("the holder ends");
        first.wait().exits(0);
    });
    pair.assert_equal("notes");
}

/// Takes advisory lock 42 on a connection of its own; the result gives it back.
fn hold_lock_42(url: &str) -> impl FnMut() + use<> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut client = Some(runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("connect");
        tokio::spawn(connection);
        client.batch_execute("SELECT pg_advisory_lock(42)").await.expect("lock");
        client
    }));
    move || {
        if let Some(client) = client.take() {
            runtime.block_on(client.batch_execute("SELECT pg_advisory_unlock(42)")).expect("unlock");
        }
    }
}

#[test]
fn the_feed_of_another_dataset_is_refused() {
    let pair = published();
    pair.edit_head(|head| head["dataset"] = "other".into());
    refuses(&pair, &[], 2, &["dataset \"other\"", "\"scene\""]);
}

#[test]
fn a_store_without_a_feed_is_a_mistake_in_the_configuration() {
    let pair = Pair::of_notes(1);
    pair.place().make();
    refuses(&pair, &[], 2, &["holds no feed.json"]);
}

#[test]
fn a_configuration_without_a_replica_is_a_mistake() {
    let pair = published();
    let scene = Scene::new(NOTES_TABLE).reading(&pair.scene);
    let refused = scene.pgslice(&["catchup"]).exits(2);
    assert!(refused.stderr.contains("replica.url"), "{refused}");
    scene.pgslice(&["catchup", &format!("--replica={}", pair.replica.url)]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_role_that_may_only_read_is_refused() {
    let pair = published();
    let name = format!("reader_{}", pair.replica.name);
    pair.replica.psql(&format!("CREATE ROLE {name} LOGIN; GRANT SELECT ON notes TO {name}"));
    let url = pair.replica.url.replace("user=postgres", &format!("user={name}"));
    let refused = refuses(&pair, &[&format!("--replica={url}")], 6, &["permission denied"]);
    assert!(!refused.stderr.contains("note 1"), "{refused}");
    // With the ledger in place it is the table that it may not write to.
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    pair.replica.psql(&format!(
        "GRANT USAGE ON SCHEMA pgslice TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA pgslice TO {name}"
    ));
    refuses(&pair, &[&format!("--replica={url}")], 6, &["permission denied"]);
    pair.replica.psql(&format!("DROP OWNED BY {name}; DROP ROLE {name}"));
}

#[test]
fn a_role_with_the_rights_it_needs_and_no_more_can_catch_up() {
    let pair = published();
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    let name = format!("writer_{}", pair.replica.name);
    pair.replica.psql(&format!(
        "CREATE ROLE {name} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO {name};
         GRANT USAGE ON SCHEMA pgslice TO {name};
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA pgslice TO {name};
         GRANT TEMPORARY ON DATABASE \"{}\" TO {name}",
        pair.replica.name
    ));
    let url = pair.replica.url.replace("user=postgres", &format!("user={name}"));
    let ran = pair.catchup(&[&format!("--replica={url}")]);
    pair.replica.psql(&format!("DROP OWNED BY {name}; DROP ROLE {name}"));
    ran.exits(0);
    pair.assert_equal("notes");
}

#[test]
fn who_does_not_own_the_ledger_of_an_older_version_is_told_what_its_owner_has_to_run() {
    let pair = published();
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    let name = format!("writer_{}", pair.replica.name);
    pair.replica.psql(&format!(
        "ALTER TABLE pgslice.ledger DROP COLUMN time_column;
         CREATE ROLE {name} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO {name};
         GRANT USAGE ON SCHEMA pgslice TO {name};
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA pgslice TO {name}"
    ));
    let url = pair.replica.url.replace("user=postgres", &format!("user={name}"));
    let ran = pair.catchup(&[&format!("--replica={url}")]);
    pair.replica.psql(&format!("DROP OWNED BY {name}; DROP ROLE {name}"));
    let step = "as the owner of pgslice.ledger: alter table pgslice.ledger add column if not exists format text";
    let ran = ran.exits(6);
    assert!(ran.stderr.contains(step), "{ran}");
    let (_, statement) = ran.stderr.split_once("as the owner of pgslice.ledger: ").expect("the statement");
    pair.replica.psql(statement.lines().next().expect("a line"));
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_database_that_is_set_read_only_is_refused() {
    let pair = published();
    pair.replica.psql(&format!("ALTER DATABASE \"{}\" SET default_transaction_read_only = on", pair.replica.name));
    let refused = pair.catchup(&[]).exits(6);
    assert!(refused.stderr.contains("default_transaction_read_only"), "{refused}");
}

#[test]
fn a_replica_that_cannot_be_reached_is_tried_again_later() {
    let pair = published();
    let refused = pair.catchup(&["--replica=postgres://postgres@127.0.0.1:1/none"]).exits(5);
    assert!(refused.stderr.contains("127.0.0.1:1"), "{refused}");
}

#[test]
fn a_database_that_does_not_exist_is_named() {
    let pair = published();
    let url = cluster::replica().create_database("gone").url.clone();
    let refused = pair.catchup(&[&format!("--replica={url}")]);
    assert!(refused.code != 0 && refused.stderr.contains("does not exist"), "{refused}");
}

#[test]
fn a_day_whose_entry_was_swapped_for_another_is_refused() {
    let pair = published();
    pair.edit_head(|head| {
        let manifest = entry_of(head, "2024-05-01")["manifest"].clone();
        entry_of(head, "2024-05-02")["manifest"] = manifest;
    });
    refuses(&pair, &[], 4, &["is not the manifest of 2024-05-02 r1"]);
}
