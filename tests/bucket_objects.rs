//! What is in a bucket after an export, and which buckets are refused.

use serde_json::Value;

use crate::bucket_faults::Crossing;
use crate::http_faults::{Fault, When};
use crate::pair::{NOTES_TABLE, Pair};
use crate::place::Kind;
use crate::published::Published;
use crate::s3_server::StrictS3;
use crate::scene::{Ran, Scene};

const DAY: [&str; 3] = ["export", "--date", "2024-05-01"];

/// Adds lines to `[store]`.
fn configure_store(scene: &Scene, lines: &str) {
    scene.edit_configuration("path-style = true", &format!("path-style = true\n{lines}"));
}

/// The whole key of an object in the shared server's bucket.
fn whole_key(scene: &Scene, key: &str) -> String {
    let url = scene.place().url();
    let prefix = url.strip_prefix(&StrictS3::shared().url("")).expect("it is in the shared server's bucket").to_owned();
    format!("{prefix}/{key}")
}

#[test]
fn a_slice_that_outgrows_an_object_goes_on_in_the_next() {
    let crossing = Crossing::new();
    configure_store(&crossing.pair.scene, "max-parts = 2");
    crossing.pair.scene.pgslice(&DAY).exits(0);
    let published = Published::by(&crossing.pair.scene);
    let slice = published.slice("2024-05-01", "public.blobs");
    let names: Vec<&str> = slice.parts.iter().map(|part| part.key.file_name()).collect();
    assert_eq!(names, ["public.blobs-2024-05-01.copy.zst", "public.blobs-2024-05-01-p0002.copy.zst"]);
    assert!(slice.parts.iter().all(|part| part.stored_bytes <= 10 << 20));
    published.is_whole();
    assert_eq!(published.checked_sums("2024-05-01").len(), 2);
    assert_eq!(published.rows("2024-05-01", "public.blobs").len(), 3_000);
    crossing.pair.scene.pgslice(&["catchup"]).exits(0);
    crossing.pair.assert_equal("blobs");
}

#[test]
fn objects_tell_caches_browsers_and_bills_what_they_are() {
    let pair = Pair::of_notes_on(Kind::Bucket, 1);
    configure_store(
        &pair.scene,
        "storage-class = \"STANDARD_IA\"\nsse = \"AES256\"\ntags = { team = \"data\", \"cost center\" = \"a+b/c\" }",
    );
    pair.export("2024-05-01");
    let manifest = pair.manifest_key("2024-05-01");
    let sums = manifest.replace("manifest.json", "SHA256SUMS");
    let part = pair.part_key("2024-05-01", "notes");
    let immutable = "public, max-age=31536000, immutable";
    for (key, content_type, cache_control, storage_class) in [
        ("feed.json", "application/json", "public, max-age=60", "STANDARD"),
        ("index.html", "text/html; charset=utf-8", "public, max-age=60", "STANDARD"),
        (&manifest, "application/json", immutable, "STANDARD"),
        (&sums, "text/plain; charset=utf-8", immutable, "STANDARD"),
        (&part, "application/zstd", immutable, "STANDARD_IA"),
    ] {
        let head = StrictS3::shared().head(&whole_key(&pair.scene, key)).expect("it is there");
        assert_eq!(head.content_type, content_type, "{key}");
        assert_eq!(head.cache_control, cache_control, "{key}");
        assert_eq!(head.storage_class, storage_class, "{key}");
        assert_eq!(head.encryption, "AES256", "{key}");
        let tags: Vec<(&str, &str)> = head.tags.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(tags, [("cost center", "a+b/c"), ("team", "data")], "{key}");
        assert!(head.checksum.starts_with("CRC32:"), "{key}: {}", head.checksum);
    }
}

#[test]
fn an_archived_part_is_told_with_the_way_out_and_the_next_run_goes_on() {
    let pair = Pair::of_notes_on(Kind::Bucket, 3);
    pair.export_range("2024-05-01", "2024-05-03");
    let part = pair.part_key("2024-05-02", "notes");
    let whole = whole_key(&pair.scene, &part);
    StrictS3::shared().archive(&whole);
    let ran = pair.catchup(&["--from", "2024-05-01"]).exits(5);
    for words in ["archived in GLACIER", "aws s3api restore-object", &whole, "the next run goes on"] {
        assert!(ran.stderr.contains(words), "{words:?}\n{ran}");
    }
    assert_eq!(pair.ledger("day"), "2024-05-01");
    StrictS3::shared().restore(&whole);
    pair.catchup(&[]).exits(0);
    pair.assert_equal("notes");
}

/// A scene whose bucket is on a server of its own.
struct Abroad {
    server: StrictS3,
    pair: Pair,
}

impl Abroad {
    fn with(flags: &[&str]) -> Abroad {
        let server = StrictS3::start(flags);
        let mut pair = Pair::of_notes_on(Kind::Bucket, 2);
        pair.scene = pair.scene.with_environment(server.environment());
        pair.scene.edit_configuration(StrictS3::shared().endpoint(), server.endpoint());
        Abroad { server, pair }
    }

    fn check(&self, code: i32) -> Ran {
        self.pair.scene.pgslice(&["check"]).exits(code)
    }
}

#[test]
fn check_finds_out_what_a_server_can_do() {
    for (flags, code, words) in [
        (&[][..], 0, &["of 6 writers that create one object", "of 6 writers that replace one object"][..]),
        (&["--ignore-if-none-match"], 2, &["it ignores If-None-Match", "single-writer = true"]),
        (&["--ignore-if-match"], 2, &["it ignores If-Match", "single-writer = true"]),
        (&["--never-match"], 2, &["it refuses If-Match with an object's own ETag", "single-writer = true"]),
        (&["--refuse-conditions"], 2, &["it refuses conditions", "single-writer = true"]),
        (&["--racy-conditions"], 2, &["conditional writes do not hold", "single-writer = true"]),
        (
            &["--ignore-conditions-on-complete", "--equal-parts"],
            0,
            &["takes objects in parts with checksum = \"crc32\""],
        ),
        (&["--reject-checksum", "crc64nvme"], 0, &["does not take checksum = \"crc64nvme\", which is not configured"]),
        (&["--reject-checksum", "crc32"], 2, &["does not take checksum = \"crc32\"", "say checksum = \"crc64nvme\""]),
        (
            &["--reject-checksum", "crc32", "--reject-checksum", "crc64nvme", "--reject-with", "invalid-request"],
            2,
            &["say checksum = \"when-required\""],
        ),
    ] {
        let abroad = Abroad::with(flags);
        let ran = abroad.check(code);
        for words in words {
            assert!(ran.stdout.contains(words), "{flags:?}: {words:?}\n{ran}");
        }
        let left = abroad.server.list("");
        assert!(left.iter().all(|key| key.ends_with("write-test.txt")), "{left:?}");
        assert_eq!(abroad.server.open_uploads(""), 0);
    }
}

#[test]
fn check_warns_of_what_a_storage_class_costs() {
    let pair = Pair::of_notes_on(Kind::Bucket, 1);
    configure_store(&pair.scene, "storage-class = \"DEEP_ARCHIVE\"");
    let ran = pair.scene.pgslice(&["check", "--json"]).exits(0);
    let report: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    let warnings: Vec<&str> = report["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter(|finding| finding["about"] == "store" && finding["verdict"] == "warning")
        .map(|finding| finding["what"].as_str().expect("words"))
        .collect();
    assert_eq!(warnings.len(), 2, "{ran}");
    assert!(warnings[0].contains("at least 180 days") && warnings[1].contains("archive"), "{ran}");
}

#[test]
fn check_reads_as_a_replica_does_where_there_is_no_source() {
    let pair = Pair::of_notes_on(Kind::Bucket, 1);
    let replica = Scene::on(Kind::Bucket, NOTES_TABLE)
        .replica(&pair.replica)
        .reading(&pair.scene)
        .with_environment(StrictS3::shared().reader_environment());
    let ran = replica.pgslice(&["check"]).exits(2);
    assert!(ran.stdout.contains("holds no feed.json"), "{ran}");
    pair.export("2024-05-01");
    let ran = replica.pgslice(&["check"]).exits(0);
    assert!(ran.stdout.contains("with 1 day") && ran.stdout.contains("gives out ranges"), "{ran}");
}

#[test]
fn a_bucket_without_conditional_writes_is_refused_unless_writers_are_kept_apart() {
    let abroad = Abroad::with(&["--ignore-if-match", "--ignore-if-none-match", "--ignore-conditions-on-complete"]);
    let scene = &abroad.pair.scene;
    for arguments in [&DAY[..], &["prune"]] {
        let ran = scene.pgslice(arguments).exits(2);
        assert!(ran.stderr.contains("has no conditional writes"), "{ran}");
    }
    assert!(abroad.server.list("").iter().all(|key| key.ends_with("write-test.txt")), "nothing was published");
    configure_store(scene, "single-writer = true");
    scene.pgslice(&DAY).exits(0);
    scene.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
    scene.pgslice(&["prune"]).exits(0);
    scene.pgslice(&["catchup", "--from", "2024-05-01"]).exits(0);
    abroad.pair.assert_equal("notes");
}

#[test]
fn a_single_writer_keeps_every_other_one_out_and_readers_in() {
    let crossing = Crossing::new();
    let scene = &crossing.pair.scene;
    configure_store(scene, "single-writer = true");
    let held = crossing.proxy.rule("PUT", "partNumber=2", When::Nth(1), Fault::Hold);
    let first = scene.spawn(&DAY);
    held.wait_until_held();
    for arguments in [&["export", "--date", "2024-05-02"][..], &["prune"]] {
        let ran = scene.pgslice(arguments).exits(7);
        assert!(ran.stderr.contains("single-writer"), "{ran}");
    }
    scene.pgslice(&["status"]).exits(0);
    held.release();
    first.wait().exits(0);
    scene.pgslice(&["export", "--date", "2024-05-02"]).exits(0);
}

/// How many requests a run reports.
fn requests(scene: &Scene, arguments: &[&str]) -> u64 {
    let ran = scene.pgslice(&[arguments, &["--json"]].concat()).exits(0);
    let report: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    report["requests"].as_u64().unwrap_or_else(|| panic!("no requests are told\n{ran}"))
}

#[test]
fn requests_are_as_many_for_the_tenth_day_as_for_the_second() {
    let mut pair = Pair::of_notes_on(Kind::Bucket, 10);
    pair.configure(&format!("{NOTES_TABLE}[export]\nlookback = \"0d\"\n"));
    pair.export("2024-05-01");
    pair.catchup(&["--from", "2024-05-01"]).exits(0);
    let mut counts = Vec::new();
    for day in 2..=10 {
        let exporting = requests(&pair.scene, &["export", "--date", &format!("2024-05-{day:02}")]);
        counts.push((exporting, requests(&pair.scene, &["catchup"])));
    }
    // The figures in docs/performance.md: a day of one small table.
    assert_eq!(counts, vec![(13, 3); 9]);
    pair.assert_equal("notes");
}

#[test]
fn keys_may_come_from_a_profile_or_from_a_process() {
    let pair = Pair::of_notes_on(Kind::Bucket, 1);
    let environment: std::collections::BTreeMap<_, _> = StrictS3::shared().environment().into();
    let (access, secret) = (&environment["AWS_ACCESS_KEY_ID"], &environment["AWS_SECRET_ACCESS_KEY"]);
    let folder = pair.scene.folder().join(".aws");
    std::fs::create_dir(&folder).expect("make a folder");
    let answer = format!("{{\"Version\": 1, \"AccessKeyId\": \"{access}\", \"SecretAccessKey\": \"{secret}\"}}");
    std::fs::write(folder.join("answer.json"), answer).expect("write");
    let config = format!(
        "[profile written]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n\
         [profile asked]\ncredential_process = cat {}\n",
        folder.join("answer.json").display()
    );
    std::fs::write(folder.join("config"), config).expect("write");
    let scene = pair.scene.with_environment([("AWS_EC2_METADATA_DISABLED", "true".to_owned())]);
    scene.pgslice(&DAY).exits(6);
    for profile in ["written", "asked"] {
        scene.edit_configuration("path-style = true", &format!("path-style = true\nprofile = \"{profile}\""));
        scene.pgslice(&[&DAY[..], &["--force"]].concat()).exits(0);
        scene.edit_configuration(&format!("\nprofile = \"{profile}\""), "");
    }
}
