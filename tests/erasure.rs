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
