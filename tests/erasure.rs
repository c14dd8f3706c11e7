//! The procedure of docs/operating.md for taking rows out of everything that is published.

use crate::pair::{NOTES_TABLE, Pair};

/// Does any object of the store hold `text`, compressed or not?
fn is_published(pair: &Pair, text: &str) -> bool {
    pair.place().contents().iter().any(|(key, content)| {
        let plain = if key.ends_with(".zst") {
            let mut plain = Vec::new();
            zstd::stream::copy_decode(&content[..], &mut plain).expect("a whole part");
            plain
        } else {
            content.clone()
        };
        plain.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[test]
fn an_erased_row_leaves_the_feed_the_replica_and_after_the_grace_the_store() {
    let mut pair = Pair::of_notes(3);
    pair.configure(&format!("[retention]\ngrace = \"0s\"\n{NOTES_TABLE}"));
    pair.source.psql("UPDATE notes SET body = 'her telephone number' WHERE id = 202");
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    assert!(is_published(&pair, "her telephone number"));

    pair.source.psql("DELETE FROM notes WHERE id = 202");
    let guarded = pair.scene.pgslice(&["export", "--date", "2024-05-02"]).exits(4);
    assert!(guarded.stderr.contains("--accept-shrink"), "{guarded}");
    pair.export("2024-05-02");
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    assert!(is_published(&pair, "her telephone number"), "the old revision is within its grace");
    pair.scene.pgslice(&["prune"]).exits(0);
    assert!(!is_published(&pair, "her telephone number"), "prune deletes superseded revisions");
    pair.scene.pgslice(&["verify", "--read-data", "--source", "--replica"]).exits(0);
}

#[test]
fn an_erased_reference_row_leaves_every_day_that_carried_it() {
    let schema = "CREATE TABLE people (id int PRIMARY KEY, name text);
        CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, person int REFERENCES people ON DELETE SET NULL)";
    let tables = format!(
        "{NOTES_TABLE}[[table]]\nname = \"people\"\nrows = \"referenced\"\nreferenced-by = [\"notes.person\"]\nkey = [\"id\"]\n"
    );
    let mut pair = Pair::new(schema, &tables);
    pair.configure(&format!("[retention]\ngrace = \"0s\"\n{tables}"));
    pair.source.psql(
        "INSERT INTO people VALUES (1, 'Jane Doe'), (2, 'b');
         INSERT INTO notes SELECT i, '2024-05-01 05:00+00'::timestamptz + i * interval '8 hours', 1 + i % 2
             FROM generate_series(1, 6) i",
    );
    pair.export_range("2024-05-01", "2024-05-03");
    pair.catchup(&[]).exits(0);
    pair.source.psql("DELETE FROM people WHERE id = 1");
    let compared = pair.scene.pgslice(&["verify", "--source"]).exits(4);
    assert!(compared.stdout.contains("public.people have changed since"), "{compared}");
    pair.export_range("2024-05-01", "2024-05-03");
    pair.scene.pgslice(&["prune"]).exits(0);
    assert!(!is_published(&pair, "Jane Doe"));
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
    // What no time slice deletes: its owner does, as docs/operating.md says.
    assert_eq!(pair.replica.psql("DELETE FROM people WHERE id = 1 RETURNING name"), "Jane Doe");
    pair.scene.pgslice(&["verify", "--read-data", "--source", "--replica"]).exits(0);
}
