//! What only a bucket can do to a run: refuse its key, not be there, not answer.

use std::net::TcpListener;

use crate::pair::{NOTES_TABLE, Pair};
use crate::place::Kind;
use crate::s3_server::StrictS3;
use crate::scene::{Ran, Scene};

/// Two days of notes in a bucket, the first of them published.
fn published() -> Pair {
    let pair = Pair::of_notes_on(Kind::Bucket, 2);
    pair.export("2024-05-01");
    pair
}

/// Another machine's scene of the same feed.
fn another(pair: &Pair) -> Scene {
    Scene::on(Kind::Bucket, NOTES_TABLE).source(&pair.source).replica(&pair.replica).reading(&pair.scene)
}

/// Runs `export` and `prune`, which are refused and change nothing.
#[track_caller]
fn may_not_write(pair: &Pair, scene: &Scene, code: i32) -> Vec<Ran> {
    let before = pair.place().contents();
    let refused = [
        scene.pgslice(&["export", "--date", "2024-05-02"]).exits(code),
        scene.pgslice(&["prune", "--keep", "1d"]).exits(code),
    ];
    assert_eq!(pair.place().contents(), before, "{}{}", refused[0], refused[1]);
    assert_eq!(pair.place().staged(), 0);
    refused.into()
}

#[test]
fn a_key_that_may_only_read_publishes_nothing_and_is_enough_for_a_replica() {
    let pair = published();
    let reader = another(&pair).with_environment(StrictS3::shared().reader_environment());
    for refused in may_not_write(&pair, &reader, 6) {
        assert!(refused.stderr.contains("permission denied"), "{refused}");
        assert!(refused.stderr.contains(&pair.place().url()), "{refused}");
    }
    reader.pgslice(&["status"]).exits(0);
    reader.pgslice(&["ls"]).exits(0);
    reader.pgslice(&["export", "--dry-run", "--date", "2024-05-02"]).exits(0);
    reader.pgslice(&["catchup"]).exits(0);
    assert_eq!(pair.ledger("day"), "2024-05-01");
}

#[test]
fn a_wrong_secret_is_refused_and_shown_by_nobody() {
    let pair = published();
    let secrets = [StrictS3::shared().secret_key().to_owned(), "not-the-Secret".to_owned()];
    let wrong = StrictS3::shared().environment().map(|(name, value)| match name {
        "AWS_SECRET_ACCESS_KEY" => (name, secrets[1].clone()),
        _ => (name, value),
    });
    let stranger = another(&pair).with_environment(wrong);
    let mut runs = may_not_write(&pair, &stranger, 6);
    runs.push(stranger.pgslice(&["-vv", "catchup"]).exits(6));
    runs.push(pair.scene.pgslice(&["-vv", "catchup"]).exits(0));
    for ran in &runs {
        for secret in &secrets {
            assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{ran}");
        }
    }
}

#[test]
fn a_run_without_a_key_says_what_it_lacks() {
    let pair = published();
    let without = StrictS3::shared().environment().into_iter().filter(|(name, _)| !name.contains("KEY"));
    let nobody = another(&pair).with_environment(without);
    for refused in may_not_write(&pair, &nobody, 6) {
        assert!(refused.stderr.contains("AWS_ACCESS_KEY_ID"), "{refused}");
    }
}

#[test]
fn a_bucket_that_is_not_there_is_a_mistake_in_the_configuration() {
    let pair = published();
    let scene = another(&pair);
    scene.edit_configuration(StrictS3::shared().bucket(), "there-is-none");
    let mut refused = may_not_write(&pair, &scene, 2);
    refused.push(scene.pgslice(&["catchup"]).exits(2));
    for refused in refused {
        assert!(refused.stderr.contains("there-is-none") && refused.stderr.contains("store.url"), "{refused}");
    }
}

#[test]
fn a_server_that_is_down_is_worth_another_try() {
    let pair = published();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a port");
    let address = listener.local_addr().expect("a bound listener has an address").to_string();
    drop(listener);
    let scene = another(&pair);
    scene.edit_configuration(StrictS3::shared().address(), &address);
    // Side by side, since each of them tries for a while.
    let runs = [&["export", "--date", "2024-05-02"][..], &["prune"], &["catchup"]].map(|run| scene.spawn(run));
    for run in runs {
        let ran = run.wait().exits(5);
        assert!(ran.stderr.contains(&pair.place().url()), "{ran}");
    }
}

#[test]
fn requests_are_told_behind_what_was_done() {
    let pair = published();
    let ran = pair.scene.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
    assert_eq!(ran.summary(), "scene: 1 published");
    assert!(ran.stdout.ends_with(" requests)\n"), "{ran}");
    let in_a_folder = Scene::in_folder(NOTES_TABLE).source(&pair.source);
    assert_eq!(in_a_folder.pgslice(&["export", "--date", "2024-05-02"]).exits(0).stdout, "scene: 1 published\n");
}
