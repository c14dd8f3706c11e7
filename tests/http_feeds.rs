//! Replicas of strangers: feeds read through web servers, good ones and bad ones.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::crooked::{Crooked, Reply};
use crate::harness::eventually;
use crate::pair::{NOTES_TABLE, Pair};
use crate::place::Kind;
use crate::scene::{Ran, pgslice};
use crate::web::{Authority, Web};

/// A folder of somebody who has the pair's replica and knows the address of its feed; `more` belongs to `[store]`.
fn stranger(pair: &Pair, url: &str, more: &str) -> TempDir {
    let folder = TempDir::with_prefix("pgslice-stranger-").expect("create a temporary folder");
    let config = format!(
        "dataset = \"scene\"\n[source]\nurl = {:?}\n[store]\nurl = {url:?}\n{more}\n[replica]\nurl = {:?}\n{NOTES_TABLE}",
        pair.source.url, pair.replica.url
    );
    fs::write(folder.path().join("pgslice.toml"), config).expect("write pgslice.toml");
    folder
}

const ALLOW_HTTP: &str = "allow-http = true";

/// The folder that it publishes to.
fn folder_of(pair: &Pair) -> PathBuf {
    pair.scene.folder().join("store")
}

/// Three days of which two are published, and a replica that holds none.
fn published() -> Pair {
    let pair = Pair::of_notes_on(Kind::Folder, 3);
    pair.export_range("2024-05-01", "2024-05-02");
    pair
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).expect("one JSON document")
}

#[test]
fn a_stranger_follows_a_feed_that_a_web_server_shows() {
    let pair = published();
    let web = Web::serving(pair.scene.folder());
    let url = format!("{}/store/", web.url);
    let stranger = stranger(&pair, &url, ALLOW_HTTP);
    let run = |arguments: &[&str]| pgslice(stranger.path(), arguments).exits(0);

    let report = json_of(&run(&["catchup", "--json"]));
    assert_eq!(report["days"].as_array().map(Vec::len), Some(2), "{report}");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes"), "10");
    // As docs/performance.md counts: the head, and per day a manifest and a range for its one small slice.
    eventually("all requests are in the log", || web.answered().len() == 5);
    let answered = web.answered();
    assert_eq!(answered[0], "GET /store/feed.json HTTP/1.1 200");
    let ending = |end: &str| answered.iter().filter(|line| line.ends_with(end)).count();
    assert_eq!((ending("/manifest.json HTTP/1.1 200"), ending(".copy.zst HTTP/1.1 206")), (2, 2), "{answered:?}");

    assert!(run(&["catchup"]).stdout.contains("nothing new"));
    pair.source.psql("UPDATE notes SET body = 'other' WHERE id = 101");
    pair.export("2024-05-01");
    pair.export("2024-05-03");
    run(&["catchup"]);
    pair.assert_equal("notes");

    assert_eq!(json_of(&run(&["status", "--json"]))["newest"], "2024-05-03");
    let keys =
        |ran: &Ran| ran.stdout.lines().map(|line| line.rsplit(' ').next().map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(keys(&run(&["ls"])), keys(&pair.scene.pgslice(&["ls"]).exits(0)));
    let urls = run(&["ls", "--urls"]).stdout;
    assert_eq!(urls.lines().next(), Some(format!("{url}feed.json").as_str()));
    for address in urls.lines() {
        let path = address.strip_prefix(&web.url).expect("an address of this server");
        assert!(pair.scene.folder().join(path.trim_start_matches('/')).exists(), "{address}");
    }
}

#[test]
fn a_feed_over_http_is_for_reading() {
    let pair = published();
    let web = Web::serving(&folder_of(&pair));
    let before = pair.head();
    let stranger = stranger(&pair, &web.url, ALLOW_HTTP);
    for arguments in [&["export", "--date", "2024-05-02"][..], &["prune", "--keep", "1d"]] {
        let refused = pgslice(stranger.path(), arguments).exits(2);
        assert!(refused.stderr.contains("read only"), "{refused}");
    }
    assert_eq!(pair.head(), before);
    pgslice(stranger.path(), &["export", "--date", "2024-05-02", "--dry-run"]).exits(0);
}

#[test]
fn plain_http_needs_leave() {
    let pair = published();
    let web = Web::serving(&folder_of(&pair));
    let stranger = stranger(&pair, &web.url, "");
    let refused = pgslice(stranger.path(), &["catchup"]).exits(2);
    for words in ["could read and change the feed", "https://", "allow-http = true"] {
        assert!(refused.stderr.contains(words), "{words} in\n{refused}");
    }
    assert!(web.answered().is_empty());
}

#[test]
fn a_feed_behind_an_error_page_leaves_the_replica_untouched() {
    let pair = published();
    pair.catchup(&["--to", "2024-05-01"]).exits(0);
    let before = pair.replica_state();
    let page = || Reply::new(200, "<html>Please log in</html>").header("Content-Type", "text/html; charset=utf-8");
    for hidden in ["feed.json", "manifest.json", ".copy.zst", ""] {
        let root = folder_of(&pair);
        let server = Crooked::new(
            move |asked, _| {
                if asked.target.ends_with(hidden) { page() } else { Reply::file(&root, asked) }
            },
        );
        let stranger = stranger(&pair, &server.url, ALLOW_HTTP);
        let failed = pgslice(stranger.path(), &["catchup"]).exits(1);
        assert!(failed.stderr.contains("answered with a web page, not with the object"), "{failed}");
        assert!(failed.stderr.contains(&format!("{}/", server.url)) && !failed.stderr.contains("log in"), "{failed}");
        assert_eq!(pair.replica_state(), before, "{hidden}");
    }
    pair.catchup(&[]).exits(0);
    assert_ne!(pair.replica_state(), before, "behind no page it goes on");
}

#[test]
fn answers_that_break_off_and_servers_without_ranges_cost_time_and_nothing_else() {
    let pair = Pair::of_notes_on(Kind::Folder, 1);
    // Some 5 MB that do not compress: more than one range.
    pair.source.psql(
        "INSERT INTO notes SELECT 1000 + n, '2024-05-01 00:00+00'::timestamptz + n * interval '0.1 s',
             md5(random()::text) || md5(random()::text) FROM generate_series(1, 170000) n",
    );
    pair.export("2024-05-01");

    let root = folder_of(&pair);
    let cutting = Crooked::new(move |asked, number| match asked.header("range") {
        Some(_) => Reply::file(&root, asked).cut_after(1_000_000),
        None if number == 1 => Reply::new(503, "").header("Retry-After", "0"),
        None => Reply::file(&root, asked),
    });
    let cut_off = stranger(&pair, &cutting.url, ALLOW_HTTP);
    let ran = pgslice(cut_off.path(), &["catchup"]).exits(0);
    pair.assert_equal("notes");
    assert!(!ran.stderr.contains("ignores Range"), "{ran}");
    let resumed = cutting.ranges().iter().filter(|range| range.starts_with("bytes=1000000-")).count();
    assert_eq!(resumed, 1, "{:?}", cutting.ranges());

    pair.replica.psql("DROP SCHEMA pgslice CASCADE; TRUNCATE notes");
    let root = folder_of(&pair);
    let rangeless = Crooked::new(move |asked, _| Reply::file(&root, &asked.without_range()));
    let unserved = stranger(&pair, &rangeless.url, ALLOW_HTTP);
    let ran = pgslice(unserved.path(), &["catchup"]).exits(0);
    pair.assert_equal("notes");
    assert!(rangeless.ranges().len() > 3, "{:?}", rangeless.ranges());
    assert_eq!(ran.stderr.matches("ignores Range").count(), 1, "told once\n{ran}");
}

#[test]
fn a_server_with_a_certificate_of_its_own_is_believed_only_by_those_who_know_the_authority() {
    let pair = published();
    let authority = Authority::new();
    let web = Web::serving_securely(&folder_of(&pair), &authority);
    let before = pair.replica_state();
    let unknowing = stranger(&pair, &web.url, "");
    let refused = pgslice(unknowing.path(), &["catchup"]).exits(1);
    assert!(refused.stderr.contains("certificate is not accepted"), "{refused}");
    assert!(refused.stderr.contains("store.ca-file"), "{refused}");
    assert_eq!(refused.stderr.matches("UnknownIssuer").count(), 1, "told once\n{refused}");
    assert_eq!(pair.replica_state(), before);

    let ca_file = format!("ca-file = {:?}", authority.certificate().display().to_string());
    let knowing = stranger(&pair, &web.url, &ca_file);
    pgslice(knowing.path(), &["catchup"]).exits(0);
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes"), "10");
}

#[test]
fn proxies_of_the_environment_are_used_and_left_out_as_it_says() {
    let pair = published();
    let root = folder_of(&pair);
    let proxy = Crooked::new(move |asked, _| {
        let path = asked.target.strip_prefix("http://feed.invalid/dumps/").expect("a whole address");
        Reply::file(&root, &asked.at(path))
    });
    let stranger = stranger(&pair, "http://feed.invalid/dumps", ALLOW_HTTP);
    let run = |variables: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pgslice"))
            .args(["catchup"])
            .current_dir(stranger.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", stranger.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("run pgslice");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, told) = run(&[("HTTP_PROXY", &proxy.url), ("NO_PROXY", "invalid")]);
    assert_eq!(code, Some(5), "{told}");
    assert!(told.contains("http://feed.invalid/dumps/feed.json: cannot connect"), "{told}");
    assert!(proxy.asked().is_empty());

    let (code, told) = run(&[("http_proxy", &proxy.url), ("NO_PROXY", "elsewhere.invalid")]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes"), "10");

    // This machine needs no proxy to find itself.
    let asked = proxy.asked().len();
    let web = Web::serving(&folder_of(&pair));
    let here = self::stranger(&pair, &web.url, ALLOW_HTTP);
    fs::copy(here.path().join("pgslice.toml"), stranger.path().join("pgslice.toml"))
        .expect("replace the configuration");
    let (code, told) = run(&[("ALL_PROXY", &proxy.url)]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(proxy.asked().len(), asked);
}
