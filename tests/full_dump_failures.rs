//! Streams that break off: what is visible is whole, or not there.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cluster;
use crate::full_dumps::{get, pg_dump, published, put, put_full};
use crate::harness::eventually;
use crate::pair::{NOTES, NOTES_TABLE, Pair, notes};
use crate::place::Kind;
use crate::scene::{Ran, Scene};

fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

/// Panics unless nothing of a stream is visible, staged or recorded.
#[track_caller]
fn nothing_of_it(scene: &Scene) {
    let place = scene.place();
    let keys: Vec<String> = place.list().into_iter().filter(|key| key.starts_with("full/")).collect();
    assert!(keys.is_empty(), "{keys:?}");
    assert_eq!(place.staged(), 0, "something is staged");
    if let Some(head) = place.read("feed.json") {
        let head: serde_json::Value = serde_json::from_slice(&head).expect("JSON");
        assert!(head.get("full_dumps").is_none(), "{head}");
    }
}

#[track_caller]
fn refuses(ran: Ran, code: i32, texts: &[&str]) {
    let ran = ran.exits(code);
    for text in texts {
        assert!(ran.stderr.contains(text), "{text} is not told\n{ran}");
    }
}

#[test]
fn a_command_that_fails_publishes_nothing() {
    for kind in [Kind::Folder, Kind::Bucket] {
        let pair = Pair::on(kind, NOTES, NOTES_TABLE);
        let full =
            |script: &str| put(&pair.scene, "full/a.dump", &["--full"], &sh(&format!("{script} # {{snapshot}}")));
        let failed = "head -c 20000000 /dev/urandom; echo 'pg_dump: error: no more' >&2; exit 3";
        refuses(full(failed), 1, &["sh ended with exit status 3", "pg_dump: error: no more", "nothing was published"]);
        nothing_of_it(&pair.scene);
        refuses(full("echo some; kill -9 $$"), 1, &["sh was killed by signal 9"]);
        refuses(full("echo some; exec >&-; sleep 0.3; exit 4"), 1, &["sh ended with exit status 4"]);
        refuses(full("echo some; sleep 1000 & exit 5"), 1, &["sh ended with exit status 5"]);
        refuses(full("true"), 1, &["full/a.dump would be empty"]);
        refuses(put(&pair.scene, "full/a.tar", &[], &sh("echo some; exit 6")), 1, &["exit status 6"]);
        nothing_of_it(&pair.scene);
        put_full(&pair, "full/a.dump");
    }
}

#[test]
fn what_a_command_that_failed_left_running_is_ended() {
    let scene = Scene::in_folder(NOTES_TABLE);
    let told = scene.folder().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; exit 5", told.display());
    refuses(put(&scene, "full/a.tar", &[], &sh(&script)), 1, &["sh ended with exit status 5"]);
    let left = fs::read_to_string(&told).expect("its number");
    eventually("what it left has ended", || !Path::new(&format!("/proc/{}", left.trim())).exists());
}

#[test]
fn mistakes_of_the_caller_are_told_before_anything_is_started() {
    let pair = Pair::with_empty_replica(NOTES, NOTES_TABLE);
    let told = pair.scene.folder().join("started");
    let started = sh(&format!("touch {} # {{snapshot}}", told.display()));
    let example = "pg_dump -Fc --snapshot={snapshot}";
    refuses(put(&pair.scene, "full/a.dump", &["--full"], &sh("echo x")), 2, &["{snapshot}", example]);
    refuses(pair.scene.pgslice(&["put", "full/a.dump", "--full"]), 2, &["{snapshot}", example]);
    refuses(put(&pair.scene, "full/a.dump", &[], &started), 2, &["add --full"]);
    refuses(put(&pair.scene, "full/a.dump", &["--taken-at", "2024-05-01T00:00:00Z"], &sh("echo")), 2, &["--full"]);
    let full_at = |at| ["--full", "--taken-at", at];
    refuses(put(&pair.scene, "full/a.dump", &full_at("2024-05-01T00:00:00Z"), &started), 2, &["--taken-at"]);
    refuses(put(&pair.scene, "full/a.dump", &full_at("2124-05-01T00:00:00Z"), &sh("echo")), 2, &["has not come yet"]);
    refuses(put(&pair.scene, "full/a.dump", &full_at("yesterday"), &sh("echo")), 2, &["2024-05-01T00:30:00Z"]);
    refuses(put(&pair.scene, "full/a", &[], &["/nowhere/x".to_owned()]), 2, &["cannot start /nowhere/x"]);
    assert!(!told.exists());
    nothing_of_it(&pair.scene);
}

#[test]
fn a_name_is_never_used_again() {
    for kind in [Kind::Folder, Kind::Bucket] {
        let pair = Pair::on(kind, NOTES, NOTES_TABLE);
        put_full(&pair, "full/a.dump");
        put(&pair.scene, "full/empty", &[], &sh("true")).exits(0);
        let before = pair.place().contents();
        let told = pair.scene.folder().join("started");
        let command = sh(&format!("touch {}; echo other # {{snapshot}}", told.display()));
        for key in ["full/a.dump", "full/empty"] {
            refuses(put(&pair.scene, key, &["--full"], &command), 2, &["exists already and is never replaced"]);
        }
        assert!(!told.exists(), "refused before the command starts");
        assert_eq!(pair.place().contents(), before);
        // Recorded, and taken away by somebody.
        pair.place().remove("full/a.dump");
        refuses(put(&pair.scene, "full/a.dump", &["--full"], &command), 2, &["exists already"]);
    }
}

#[test]
fn of_two_that_write_one_name_the_second_publishes_nothing() {
    for kind in [Kind::Folder, Kind::Bucket] {
        let pair = Pair::on(kind, NOTES, NOTES_TABLE);
        let go = pair.scene.folder().join("go");
        let wait = format!("echo slow; while ! test -e {}; do sleep 0.05; done", go.display());
        let slow =
            pair.scene.spawn(&["put", "full/a", "--", "sh", "-c", &format!("touch {}.on; {wait}", go.display())]);
        let started = format!("{}.on", go.display());
        eventually("the slow one has begun", || Path::new(&started).exists());
        put(&pair.scene, "full/a", &[], &sh("echo fast")).exits(0);
        fs::write(&go, "").expect("let it go");
        refuses(slow.wait(), 2, &["full/a exists already"]);
        assert_eq!(pair.place().content("full/a"), b"fast\n");
        assert_eq!(pair.place().staged(), 0);
    }
}

#[test]
fn a_kill_in_the_middle_leaves_nothing_visible() {
    let pair = published(1);
    let told = pair.scene.folder().join("started");
    // It ends when nobody reads it any more.
    let script = format!(
        "head -c 12000000 /dev/zero; touch {}; while echo more; do sleep 0.05; done # {{snapshot}}",
        told.display()
    );
    let running = pair.scene.spawn(&["put", "full/a.dump", "--full", "--", "sh", "-c", &script]);
    eventually("the command is in the middle", || told.exists());
    running.kill().exits(137);
    assert!(pair.place().list().iter().all(|key| !key.starts_with("full/")));
    assert!(pair.head().get("full_dumps").is_none());
    put_full(&pair, "full/a.dump");
}

#[test]
fn an_interrupt_ends_the_command_and_what_it_started() {
    let pair = published(1);
    let told = pair.scene.folder().join("pid");
    let script =
        format!("sh -c 'echo $$ > {0}.new; mv {0}.new {0}; sleep 1000; true' ; true # {{snapshot}}", told.display());
    let running = pair.scene.spawn(&["put", "full/a.dump", "--full", "--", "sh", "-c", &script]);
    eventually("the command runs", || told.exists());
    let status = Command::new("sh").args(["-c", "kill -s TERM $0", &running.id().to_string()]).status();
    assert!(status.expect("run kill").success());
    running.wait().exits(143);
    let inner = fs::read_to_string(&told).expect("its number");
    eventually("what the command started has ended", || !Path::new(&format!("/proc/{}", inner.trim())).exists());
    nothing_of_it(&pair.scene);
}

#[test]
fn a_truncate_beside_the_dump_has_to_wait() {
    let pair = published(2);
    let psql = pair.source.cluster().bin("psql");
    let truncate = format!(
        "{} -Xq -d '{}' -c \"SET lock_timeout = '300ms'; TRUNCATE notes\" >&2 && exit 9; ",
        psql.display(),
        pair.source.url
    );
    let dump = pg_dump(&pair.source).iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let ran = put(&pair.scene, "full/a.dump", &["--full"], &sh(&format!("{truncate}{dump}"))).exits(0);
    assert!(ran.stderr.contains("canceling statement due to lock timeout"), "{ran}");
    crate::full_dumps::restore(&pair, "full/a.dump");
    pair.catchup(&["--restored-from", "full/a.dump"]).exits(0);
    pair.assert_equal("notes");
}

#[test]
fn a_dump_whose_snapshot_was_ended_is_not_published() {
    let pair = published(1);
    let psql = pair.source.cluster().bin("psql");
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND state = 'idle in transaction'";
    for after in ["true", "sleep 1"] {
        let script = format!(
            "{} -Xq -d '{}' -c \"{terminate}\" >&2; echo some; {after} # {{snapshot}}",
            psql.display(),
            pair.source.url
        );
        refuses(put(&pair.scene, "full/a.dump", &["--full"], &sh(&script)), 5, &["nothing was published"]);
        nothing_of_it(&pair.scene);
    }
}

#[test]
fn a_dump_of_another_system_is_refused() {
    let pair = published(1);
    let other = cluster::replica().create_database("other");
    other.psql(&format!("{NOTES};{}", notes(1)));
    let scene = Scene::new(NOTES_TABLE).reading(&pair.scene).source(&other);
    refuses(put(&scene, "full/a.dump", &["--full"], &pg_dump(&other)), 4, &["another system"]);
    nothing_of_it(&pair.scene);
}

#[test]
fn a_stream_that_outgrows_an_object_fails_with_the_setting_that_helps() {
    let scene = Scene::on(Kind::Bucket, NOTES_TABLE);
    scene.edit_configuration("path-style = true", "path-style = true\nmax-parts = 2");
    let ran = put(&scene, "full/a.tar", &[], &sh("head -c 10485760 /dev/zero")).exits(0);
    assert!(ran.stdout.contains("full/a.tar: 10.4 MB"), "{ran}");
    let endless = put(&scene, "full/b.tar", &[], &sh("cat /dev/zero"));
    refuses(endless, 1, &["full/b.tar is larger than an object of this store can be (10.4 MB)", "part-size"]);
    assert!(!scene.place().is_there("full/b.tar"));
    assert_eq!(scene.place().staged(), 0);
}

#[test]
fn an_object_that_is_not_what_was_put_is_told_by_get() {
    for kind in [Kind::Folder, Kind::Bucket] {
        let pair = Pair::on(kind, NOTES, NOTES_TABLE);
        pair.source.psql(&notes(3));
        put_full(&pair, "full/a.dump");
        let content = pair.place().content("full/a.dump");
        let mut flipped = content.clone();
        flipped[content.len() / 2] ^= 1;
        let longer = [&content[..], b"x"].concat();
        for damaged in [&content[..content.len() - 1], &flipped, &longer, b""] {
            pair.place().write("full/a.dump", damaged);
            let (_, ran) = get(&pair.scene, "full/a.dump");
            refuses(ran, 4, &["full/a.dump", "WHAT WAS WRITTEN IS NOT THE DUMP"]);
        }
        pair.place().remove("full/a.dump");
        refuses(get(&pair.scene, "full/a.dump").1, 4, &["is not in the store"]);
        refuses(get(&pair.scene, "full/b.dump").1, 2, &["full/b.dump is not in the store", "records full/a.dump"]);
        pair.place().write("full/a.dump", &content);
        let (got, ran) = get(&pair.scene, "full/a.dump");
        assert!(ran.exits(0).stderr.contains("as feed.json records it"));
        assert!(fs::read(got).expect("what was got") == content);
    }
}

#[test]
fn a_reader_that_goes_away_is_a_failure() {
    let scene = Scene::in_folder(NOTES_TABLE);
    put(&scene, "full/a.tar", &[], &sh("head -c 30000000 /dev/zero")).exits(0);
    let program = env!("CARGO_BIN_EXE_pgslice");
    let script = format!("{{ {program} get full/a.tar; echo $? > code; }} 2> errors | head -c 10 > /dev/null");
    let status = Command::new("sh").args(["-c", &script]).current_dir(scene.folder()).status();
    assert!(status.expect("run a shell").success());
    let told = |name: &str| fs::read_to_string(scene.folder().join(name)).expect("written");
    assert_eq!(told("code").trim(), "1");
    assert!(told("errors").contains("whoever read the output has closed it before the end"), "{}", told("errors"));
}
