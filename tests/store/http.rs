//! What only a store over HTTP can get wrong: answers that are none, that are others', that are cut or never end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pgslice::config::{AllowHttp, StoreConfig};
use pgslice::error::Class;
use pgslice::layout::Key;
use pgslice::store::http::{HttpStore, Patience};
use pgslice::store::{SharedStore, Store, StoreError};

use super::folder::Folders;
use super::{CAP, ends, key, noise, reads_conform};
use crate::crooked::{Asked, Crooked, Framing, Reply};
use crate::web::{Authority, Web};

/// Nobody waits for a pause in a test.
fn patience() -> Patience {
    Patience { first_pause: Duration::ZERO, ..Patience::default() }
}

fn opened(url: &str) -> HttpStore {
    let options = StoreConfig { allow_http: AllowHttp::Yes, ..StoreConfig::default() };
    HttpStore::patient(url, &options, patience()).expect("an address")
}

fn over(server: &Crooked) -> HttpStore {
    opened(&server.url)
}

/// A server whose every object is `object`, but for what `spoil` makes of its answers; the latter is told their number.
fn spoiling(object: &[u8], spoil: impl Fn(Reply, usize) -> Reply + Send + Sync + 'static) -> Crooked {
    let object = object.to_vec();
    Crooked::new(move |asked, number| spoil(Reply::serving(&object, asked), number))
}

/// The error as a person reads it.
fn told(error: StoreError) -> String {
    pgslice::error::describe(&error.into())
}

/// Both kinds of reading, for what must be the same for both.
async fn both_errors(store: &HttpStore) -> [StoreError; 2] {
    [
        store.read(&part(), CAP).await.expect_err("a read fails"),
        store.read_range(&part(), 10, 20).await.expect_err("a range fails"),
    ]
}

fn part() -> Key {
    key("2024-05-01/r1-aa/part")
}

#[tokio::test(flavor = "multi_thread")]
async fn over_nginx_the_reads_conform() {
    let folders = Folders::new();
    let web = Web::serving(folders.root());
    reads_conform(async || {
        let path = folders.path();
        let url = format!("{}/{}/", web.url, path.file_name().expect("a name").to_str().expect("ASCII"));
        (folders.store_at(&path), Arc::new(opened(&url)) as SharedStore)
    })
    .await;
}

/// The checks against a server of the test's own that changes each answer by `bend`.
async fn bent_reads_conform(bend: fn(&Asked, Reply) -> Reply) {
    let folders = Folders::new();
    let root = folders.root().to_owned();
    let server = Crooked::new(move |asked, _| bend(asked, Reply::file(&root, asked)));
    reads_conform(async || {
        let path = folders.path();
        let url = format!("{}/{}", server.url, path.file_name().expect("a name").to_str().expect("ASCII"));
        (folders.store_at(&path), Arc::new(opened(&url)) as SharedStore)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_server_that_tells_no_lengths_the_reads_conform() {
    bent_reads_conform(|_, reply| reply.framed(Framing::Chunked)).await;
    bent_reads_conform(|_, reply| reply.framed(Framing::Close)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_server_that_cuts_each_range_after_a_while_the_reads_conform() {
    bent_reads_conform(|asked, reply| match asked.header("range") {
        Some(_) => reply.cut_after(700_000),
        None => reply,
    })
    .await;
}

/// As Python's `http.server` does.
fn without_ranges(folders: &Folders, framing: Framing) -> Crooked {
    let root = folders.root().to_owned();
    Crooked::new(move |asked, _| Reply::file(&root, &asked.without_range()).framed(framing))
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_server_without_ranges_the_reads_conform() {
    for framing in [Framing::Length, Framing::Chunked, Framing::Close] {
        let folders = Folders::new();
        let server = without_ranges(&folders, framing);
        reads_conform(async || {
            let path = folders.path();
            let url = format!("{}/{}", server.url, path.file_name().expect("a name").to_str().expect("ASCII"));
            (folders.store_at(&path), Arc::new(opened(&url)) as SharedStore)
        })
        .await;
    }
}

#[tokio::test]
async fn a_range_that_is_cut_anywhere_goes_on_where_it_was_cut() {
    let object = noise(100, 1);
    for framing in [Framing::Length, Framing::Chunked] {
        for cut in 0..60 {
            let server = spoiling(&object, move |reply, number| match number {
                1 => reply.framed(framing).cut_after(cut),
                _ => reply,
            });
            let store = over(&server);
            let bytes = store.read_range(&part(), 10, 60).await.expect("readable");
            assert!(bytes == object[10..70], "cut after {cut}");
            assert_eq!(server.ranges(), ["bytes=10-69".to_owned(), format!("bytes={}-69", 10 + cut)]);
            assert_eq!(store.requests(), Some(2));
        }
    }
}

#[tokio::test]
async fn as_long_as_something_comes_a_range_goes_on() {
    let object = noise(100, 2);
    let server = spoiling(&object, |reply, _| reply.cut_after(1));
    assert_eq!(over(&server).read_range(&part(), 10, 60).await.expect("readable"), object[10..70]);
    assert_eq!(server.asked().len(), 60);

    // Two failures, one byte, and so on.
    let server = spoiling(&object, |reply, number| if number % 3 == 0 { reply.cut_after(1) } else { Reply::none() });
    let store = over(&server);
    assert_eq!(store.read_range(&part(), 0, 5).await.expect("readable"), object[..5]);
    assert_eq!(store.requests(), Some(15));
}

#[tokio::test]
async fn a_server_without_ranges_that_cuts_is_asked_for_the_rest() {
    let object = noise(100, 3);
    for cut in 0..70 {
        let whole = object.clone();
        let server = Crooked::new(move |_, number| {
            let reply = Reply::new(200, whole.clone());
            if number == 1 { reply.cut_after(cut) } else { reply }
        });
        let bytes = over(&server).read_range(&part(), 10, 60).await.expect("readable");
        assert!(bytes == object[10..70], "cut after {cut}");
        assert_eq!(server.asked().len(), 2);
    }
}

#[tokio::test]
async fn an_object_that_is_cut_is_read_again_from_its_start() {
    let object = noise(60, 4);
    for cut in 0..60 {
        let server = spoiling(&object, move |reply, number| if number == 1 { reply.cut_after(cut) } else { reply });
        let (bytes, _) = over(&server).read(&part(), CAP).await.expect("readable").expect("there");
        assert!(bytes == object, "cut after {cut}");
        assert_eq!(server.ranges(), ["-", "-"]);
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_four_times() {
    for reply in [
        Reply::none(),
        Reply::new(500, "secret body"),
        Reply::new(503, "secret body").header("Retry-After", "0"),
        Reply::new(429, "secret body").header("Content-Type", "text/html"),
        Reply::new(408, ""),
        Reply::new(425, ""),
        Reply::new(200, noise(100, 5)).cut_after(5),
    ] {
        let status = format!("{reply:?}");
        let server = Crooked::new(move |_, _| reply.clone());
        let store = over(&server);
        for error in both_errors(&store).await {
            assert!(error.is_transient(), "{status}: {error:?}");
            let text = told(error);
            assert!(text.contains(&format!("{}/2024-05-01/r1-aa/part", server.url)), "{text}");
            assert!(text.contains("(4 attempts)") && !text.contains("secret"), "{text}");
        }
        assert_eq!((server.asked().len(), store.requests()), (8, Some(8)), "{status}");
    }
    // And no more often than that.
    for failures in 1..=3 {
        let server =
            spoiling(b"content", move |reply, number| if number <= failures { Reply::new(502, "") } else { reply });
        assert_eq!(over(&server).read(&part(), CAP).await.expect("readable").expect("there").0, "content");
        assert_eq!(server.asked().len(), failures + 1);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_much_time_is_left_alone() {
    let server = Crooked::new(|_, _| Reply::new(503, "").header("Retry-After", "86400"));
    let store = over(&server);
    let error = ends("a day is too long", store.read(&part(), CAP)).await.expect_err("not now");
    assert!(error.is_transient());
    let text = told(error);
    assert!(text.contains("503 Service Unavailable, and asks to come back in 86400 s"), "{text}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_on() {
    let hasty = Patience { idle: Duration::from_millis(50), ..patience() };
    let options = StoreConfig { allow_http: AllowHttp::Yes, ..StoreConfig::default() };
    for silent_after in [0, 5] {
        let server = Crooked::new(move |_, _| Reply::new(200, noise(100, 6)).stall_after(silent_after));
        let store = HttpStore::patient(&server.url, &options, hasty.clone()).expect("an address");
        for error in both_errors(&store).await {
            assert!(error.is_transient(), "{error:?}");
            assert!(told(error).contains("nothing came for 0.05 s"));
        }
    }
    // A range that stalls goes on like one that was cut.
    let object = noise(100, 7);
    let server = spoiling(&object, |reply, number| if number == 1 { reply.stall_after(7) } else { reply });
    let store = HttpStore::patient(&server.url, &options, hasty).expect("an address");
    assert_eq!(store.read_range(&part(), 10, 60).await.expect("readable"), object[10..70]);
    assert_eq!(server.ranges(), ["bytes=10-69", "bytes=17-69"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_one_that_refuses() {
    let gone = Crooked::new(|_, _| Reply::none());
    let url = gone.url.clone();
    drop(gone);
    for error in both_errors(&opened(&url)).await {
        assert!(error.is_transient(), "{error:?}");
        assert!(told(error).contains("cannot connect: Connection refused"));
    }
    for (status, words) in [(401, "401 Unauthorized"), (403, "403 Forbidden")] {
        let server = Crooked::new(move |_, _| Reply::new(status, "secret body").header("Content-Type", "text/html"));
        let store = over(&server);
        for error in both_errors(&store).await {
            assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
            let text = told(error);
            assert!(text.contains(words) && text.contains(&server.url) && !text.contains("secret"), "{text}");
        }
        assert_eq!(store.requests(), Some(2), "asking again does not help");
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors_and_not_asked_for_again() {
    for status in [201, 204, 206, 300, 304, 400, 405, 511] {
        let server = Crooked::new(move |_, _| {
            Reply::new(status, if status == 204 || status == 304 { "" } else { "secret body" })
        });
        let store = over(&server);
        for error in both_errors(&store).await {
            assert!(matches!(error, StoreError::Other { .. }), "{error:?}");
            let text = told(error);
            assert!(text.contains(&server.url) && !text.contains("secret"), "{text}");
        }
        assert_eq!(store.requests(), Some(2), "{status}");
    }
}

#[tokio::test]
async fn a_page_for_people_is_no_object() {
    let server = Crooked::new(|_, _| {
        Reply::new(200, "<html>secret login</html>").header("Content-Type", "text/html; charset=utf-8")
    });
    let store = over(&server);
    for error in both_errors(&store).await {
        assert!(matches!(error, StoreError::Other { .. }), "{error:?}");
        let text = told(error);
        assert!(text.contains("a login page, a captive portal or a wrong url"), "{text}");
        assert!(text.contains(&server.url) && !text.contains("secret"), "{text}");
    }
    assert_eq!(store.requests(), Some(2));
    assert!(store.read(&Key::index(), CAP).await.expect("readable").is_some(), "but the feed's own page is a page");
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_only() {
    let portal = Crooked::new(|_, _| Reply::new(200, "{}"));
    let elsewhere = portal.url.clone();
    let server = Crooked::new(move |_, _| Reply::new(302, "").header("Location", format!("{elsewhere}/login?secret")));
    let store = over(&server);
    for error in both_errors(&store).await {
        assert!(matches!(error, StoreError::Other { .. }), "{error:?}");
        let text = told(error);
        assert!(text.contains(&format!("redirects to {}, which is not followed", portal.url)), "{text}");
        assert!(text.contains("captive portal") && !text.contains("secret"), "{text}");
    }
    assert_eq!((store.requests(), portal.asked().len()), (Some(2), 0));

    let object = noise(100, 8);
    for (hops, followed) in [(1, true), (5, true), (6, false), (1_000, false)] {
        let whole = object.clone();
        let server = Crooked::new(move |asked, number| {
            if number > hops {
                return Reply::serving(&whole, asked);
            }
            Reply::new(307, "").header("Location", format!("/hop/{number}?token"))
        });
        let store = over(&server);
        match store.read_range(&part(), 10, 20).await {
            Ok(bytes) => assert!(followed && bytes == object[10..30], "{hops}"),
            Err(error) => {
                assert!(!followed && matches!(error, StoreError::Other { .. }), "{hops}: {error:?}");
                assert!(told(error).contains("more than 5 times"));
            }
        }
        assert_eq!(store.requests(), Some(hops.min(5) as u64 + 1));
        assert!(server.ranges().iter().all(|range| range == "bytes=10-29"), "{:?}", server.ranges());
    }
}

#[tokio::test]
async fn other_bytes_than_those_asked_for_are_never_taken() {
    let object = noise(100, 9);
    for wrong in ["bytes 11-30/100", "bytes 0-19/100", "bytes 10-29/29", "bytes 10-19/100", "pages 10-29/100", ""] {
        let server = spoiling(&object, move |reply, _| reply.header("Content-Range", wrong));
        let store = over(&server);
        let error = store.read_range(&part(), 10, 20).await.expect_err(wrong);
        assert!(matches!(error, StoreError::Other { .. }), "{wrong}: {error:?}");
        assert!(told(error).contains("other bytes than those asked for (10-29)"));
        assert_eq!(store.requests(), Some(1));
    }
}

#[tokio::test]
async fn bytes_are_taken_as_they_come_whatever_their_label() {
    let object = b"\x28\xb5\x2f\xfd as it is stored".to_vec();
    for label in ["gzip", "zstd", "br"] {
        let server = spoiling(&object, move |reply, _| reply.header("Content-Encoding", label));
        let store = over(&server);
        assert_eq!(store.read(&part(), CAP).await.expect("readable").expect("there").0, object);
        assert_eq!(store.read_range(&part(), 1, 5).await.expect("readable"), object[1..6]);
    }
}

#[tokio::test]
async fn a_request_says_who_asks_and_nothing_more() {
    let server = spoiling(b"content", |reply, _| reply.header("Set-Cookie", "id=1"));
    let store = opened(&format!("{}/a/feed//", server.url));
    assert_eq!(store.url(), format!("{}/a/feed", server.url));
    assert_eq!(store.object_url(&part()), format!("{}/a/feed/2024-05-01/r1-aa/part", server.url));
    store.read(&part(), CAP).await.expect("readable");
    store.read_range(&part(), 0, 1).await.expect("readable");
    for asked in server.asked() {
        assert_eq!(asked.target, "/a/feed/2024-05-01/r1-aa/part");
        assert_eq!(asked.header("accept-encoding"), Some("identity"));
        assert_eq!(asked.header("user-agent"), Some(concat!("pgslice/", env!("CARGO_PKG_VERSION"))));
        let mut names = asked.header_names();
        names.retain(|name| *name != "range");
        names.sort_unstable();
        assert_eq!(names, ["accept", "accept-encoding", "host", "user-agent"]);
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = spoiling(&noise(100_000, 10), |reply, _| reply);
    let store = over(&server);
    for _ in 0..10 {
        store.read(&part(), CAP).await.expect("readable");
        store.read_range(&part(), 500, 90_000).await.expect("readable");
    }
    assert_eq!((store.requests(), server.connections()), (Some(20), 1));
}

#[tokio::test]
async fn what_is_too_large_is_not_read() {
    let server = spoiling(&noise(1_000, 11), |reply, _| reply.stall_after(0));
    let read = over(&server).read(&part(), 999).await;
    assert!(matches!(read, Err(StoreError::Size { .. })), "by its length alone: {read:?}");

    let server = spoiling(&noise(1_000, 12), |reply, _| reply.framed(Framing::Chunked).stall_after(1_000));
    let read = over(&server).read(&part(), 900).await;
    assert!(matches!(read, Err(StoreError::Size { .. })), "as soon as it shows: {read:?}");

    let server = Crooked::new(|_, _| Reply::new(200, noise(1_000, 13)).stall_after(0));
    let read = over(&server).read_range(&part(), 990, 11).await;
    assert!(matches!(read, Err(StoreError::Size { .. })), "an object that ends before: {read:?}");
}

#[tokio::test]
async fn versions_follow_the_content_and_not_the_tag() {
    let server = Crooked::new(|_, number| {
        let (tag, content) = match number {
            1 => ("\"same\"", "one"),
            2 => ("\"same\"", "two"),
            _ => ("W/\"other\"", "two"),
        };
        Reply::new(200, content).header("ETag", tag)
    });
    let store = over(&server);
    let mut versions = Vec::new();
    for _ in 0..3 {
        versions.push(store.read(&Key::feed(), CAP).await.expect("readable").expect("there").1);
    }
    assert_ne!(versions[0], versions[1], "a tag can be made of a size and a second, as nginx makes it");
    assert_eq!(versions[1], versions[2]);
}

#[tokio::test]
async fn an_empty_range_is_where_the_object_is() {
    let server = spoiling(&noise(3, 14), |reply, _| reply);
    let store = over(&server);
    for offset in 0..=3 {
        assert_eq!(store.read_range(&part(), offset, 0).await.expect("within"), "");
    }
    for offset in [4, 100, u64::MAX] {
        assert!(matches!(store.read_range(&part(), offset, 0).await, Err(StoreError::Size { .. })), "{offset}");
    }
    let empty = spoiling(b"", |reply, _| reply);
    assert_eq!(over(&empty).read_range(&part(), 0, 0).await.expect("an empty object"), "");
    assert!(matches!(over(&empty).read_range(&part(), 1, 0).await, Err(StoreError::Size { .. })));
    let nothing = Crooked::new(|_, _| Reply::new(404, ""));
    assert!(matches!(over(&nothing).read_range(&part(), 0, 0).await, Err(StoreError::NotFound(_))));
}

#[tokio::test]
async fn every_write_is_denied_and_nothing_is_sent() {
    let server = Crooked::new(|_, _| Reply::new(200, ""));
    let store = over(&server);
    let denied = [
        store.create(&part(), Bytes::new()).await.err(),
        store.swap(&Key::feed(), None, Bytes::new()).await.err(),
        store.replace(&Key::index(), Bytes::new()).await.err(),
        store.upload(&part()).await.err(),
        store.delete(&[part()]).await.err(),
    ];
    for error in denied.into_iter().map(|error| error.expect("denied")) {
        assert_eq!(error.class(), Class::Permission);
        assert!(told(error).contains("an http(s) feed is read only"));
    }
    assert_eq!((store.requests(), server.asked().len()), (Some(0), 0));
}

#[tokio::test]
async fn only_a_certificate_of_a_trusted_authority_is_accepted() {
    let folders = Folders::new();
    let path = folders.path();
    folders.store_at(&path).create(&part(), "content".into()).await.expect("created");
    let (authority, another) = (Authority::new(), Authority::new());
    let web = Web::serving_securely(&path, &authority);
    let open = |ca_file: Option<PathBuf>| {
        let options = StoreConfig { ca_file, ..StoreConfig::default() };
        HttpStore::patient(&web.url, &options, patience()).expect("an address")
    };
    let trusting = open(Some(authority.certificate()));
    assert_eq!(trusting.read(&part(), CAP).await.expect("readable").expect("there").0, "content");
    assert_eq!(trusting.read_range(&part(), 3, 4).await.expect("readable"), "tent");
    for store in [open(None), open(Some(another.certificate()))] {
        for error in both_errors(&store).await {
            assert!(matches!(error, StoreError::Other { .. }), "{error:?}");
            let text = told(error);
            assert!(text.contains("certificate is not accepted") && text.contains("store.ca-file"), "{text}");
        }
        assert_eq!(store.requests(), Some(2), "asking again does not help");
    }
    let by_name = opened(&web.url.replace("127.0.0.1", "localhost"));
    assert!(matches!(by_name.read(&part(), CAP).await, Err(StoreError::Other { .. })));
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_told_at_once() {
    let web = Web::serving(std::path::Path::new("/nowhere"));
    let store = opened(&web.url.replace("http:", "https:"));
    let error = store.read(&part(), CAP).await.expect_err("no TLS");
    assert!(matches!(error, StoreError::Other { .. }), "{error:?}");
    assert!(told(error).contains("does not speak TLS"));
    assert_eq!(store.requests(), Some(1));
}

#[test]
fn a_ca_file_must_hold_certificates() {
    let folders = Folders::new();
    let open = |ca_file: PathBuf| {
        let options = StoreConfig { ca_file: Some(ca_file), ..StoreConfig::default() };
        match HttpStore::open("https://127.0.0.1/", &options) {
            Ok(_) => panic!("it was taken"),
            Err(refusal) => refusal,
        }
    };
    let file = folders.path();
    for content in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, content).expect("written");
        let refusal = open(file.clone());
        assert_eq!(refusal.class, Class::Usage, "{refusal:?}");
        assert!(refusal.what.contains(file.to_str().expect("ASCII")), "{refusal:?}");
    }
    assert!(open("/nowhere/ca.pem".into()).what.contains("/nowhere/ca.pem cannot be used: No such file"));
}
