use super::*;

fn key() -> Key {
    "2024-05-01/r1-aa/part".parse().expect("a key")
}

fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
}

fn now() -> DateTime<Utc> {
    "2024-05-01T12:00:00Z".parse().expect("an instant")
}

fn judged(status: u16, lines: &[(HeaderName, &str)], range: Option<ByteRange>) -> Result<Answer, Refusal> {
    judge(StatusCode::from_u16(status).expect("a status"), &headers(lines), range, &key(), now())
}

fn final_words(answer: Result<Answer, Refusal>) -> String {
    match answer {
        Err(Refusal::Final(failure)) => failure.what,
        other => panic!("{other:?}"),
    }
}

const ASKED: ByteRange = ByteRange { first: 10, last: 19 };

#[test]
fn a_range_names_its_first_and_last_byte_and_goes_on_where_it_was_cut() {
    let left = |offset, length, taken| ByteRange::left(offset, length, taken).map(ByteRange::header);
    assert_eq!(left(0, 1, 0).as_deref(), Some("bytes=0-0"));
    assert_eq!(left(10, 10, 0).as_deref(), Some("bytes=10-19"));
    assert_eq!(left(10, 10, 9).as_deref(), Some("bytes=19-19"));
    assert_eq!(left(10, 10, 10), None);
    assert_eq!(left(10, 10, 11), None);
    assert_eq!(left(10, 0, 0), None);
    assert_eq!(left(0, u64::MAX, 0).as_deref(), Some("bytes=0-18446744073709551614"));
    assert_eq!(left(1, u64::MAX, 0), None);
    assert_eq!(left(u64::MAX, 1, 0), None);
}

#[test]
fn a_part_is_taken_only_if_it_is_exactly_what_was_asked_for() {
    for right in ["bytes 10-19/1000", "bytes 10-19/20", "bytes 10-19/*", "BYTES  10-19/20"] {
        let answer = judged(206, &[(CONTENT_RANGE, right)], Some(ASKED)).expect(right);
        assert_eq!(answer, Answer::Part, "{right}");
    }
    for wrong in [
        "",
        "bytes 0-9/1000",
        "bytes 11-19/1000",
        "bytes 9-19/1000",
        "bytes 10-20/1000",
        "bytes 10-18/1000",
        "bytes 10-18/*",
        "bytes 10-19/19",
        "bytes 10-19/10",
        "bytes 10-19",
        "bytes 19-10/1000",
        "bytes +10-19/1000",
        "bytes -19/1000",
        "bytes */1000",
        "items 10-19/1000",
        "10-19/1000",
        "bytes 10-99999999999999999999/99999999999999999999",
        "bytes 10-18446744073709551615/18446744073709551615",
    ] {
        let words = final_words(judged(206, &[(CONTENT_RANGE, wrong)], Some(ASKED)));
        assert!(words.contains("other bytes than those asked for (10-19)"), "{wrong}: {words}");
    }
    assert!(final_words(judged(206, &[], Some(ASKED))).contains("other bytes"));
    assert!(final_words(judged(206, &[(CONTENT_RANGE, "bytes 0-9/10")], None)).contains("206 Partial Content"));
}

#[test]
fn an_object_that_ends_before_the_range_is_too_short() {
    for (status, value, size) in [
        (206, "bytes 10-17/18", Some(18)),
        (416, "bytes */18", Some(18)),
        (416, "bytes */*", None),
        (416, "nonsense", None),
    ] {
        let answer = judged(status, &[(CONTENT_RANGE, value)], Some(ASKED)).expect(value);
        assert_eq!(answer, Answer::TooShort(size), "{value}");
    }
    assert_eq!(judged(416, &[], Some(ASKED)).expect("too short"), Answer::TooShort(None));
    assert!(final_words(judged(416, &[], None)).contains("416"), "no range was asked for");
}

#[test]
fn a_server_without_ranges_sends_the_whole_object() {
    assert_eq!(judged(200, &[], Some(ASKED)).expect("whole"), Answer::Whole);
    assert_eq!(judged(200, &[(CONTENT_TYPE, "text/plain")], None).expect("whole"), Answer::Whole);
}

#[test]
fn what_is_not_there_is_absent() {
    for status in [404, 410] {
        assert_eq!(judged(status, &[(CONTENT_TYPE, "text/html")], None).expect("absent"), Answer::Absent);
    }
}

#[test]
fn a_web_page_is_no_object_unless_it_is_the_feeds_own() {
    for page in ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"] {
        for (status, range) in [(200, None), (200, Some(ASKED)), (206, Some(ASKED))] {
            let lines = [(CONTENT_TYPE, page), (CONTENT_RANGE, "bytes 10-19/20")];
            assert!(final_words(judged(status, &lines, range)).contains("a web page, not with the object"), "{page}");
        }
    }
    let html = headers(&[(CONTENT_TYPE, "text/html")]);
    assert_eq!(judge(StatusCode::OK, &html, None, &Key::index(), now()).expect("a page"), Answer::Whole);
}

#[test]
fn only_what_may_pass_is_tried_again() {
    for status in [408, 425, 429, 500, 502, 503, 504, 599] {
        match judged(status, &[(RETRY_AFTER, "7")], Some(ASKED)) {
            Err(Refusal::Later { failure, wait }) => {
                assert!(failure.what.contains(&status.to_string()), "{}", failure.what);
                assert_eq!(wait, Some(Duration::from_secs(7)));
            }
            other => panic!("{status}: {other:?}"),
        }
    }
    for status in [401, 403, 407] {
        assert!(matches!(judged(status, &[], None), Err(Refusal::Denied(_))), "{status}");
    }
    for status in [100, 201, 203, 204, 300, 304, 400, 405, 412, 451, 511, 600] {
        assert!(final_words(judged(status, &[], Some(ASKED))).contains(&status.to_string()), "{status}");
    }
}

#[test]
fn a_redirect_says_where_to_or_is_an_error() {
    for status in [301, 302, 303, 307, 308] {
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(elsewhere(status, &headers(&[(LOCATION, "/other")])), Some("/other"));
        assert_eq!(elsewhere(status, &headers(&[])), None);
        let status = status.as_u16();
        assert!(final_words(judged(status, &[], None)).contains("where to"), "{status}");
    }
    for status in [StatusCode::OK, StatusCode::NOT_MODIFIED, StatusCode::NOT_FOUND] {
        assert_eq!(elsewhere(status, &headers(&[(LOCATION, "/other")])), None, "{status}");
    }
}

#[test]
fn a_time_to_come_back_is_seconds_or_a_date() {
    for (value, seconds) in [
        ("0", Some(0)),
        (" 120 ", Some(120)),
        ("Wed, 01 May 2024 12:00:20 GMT", Some(20)),
        ("Wed, 01 May 2024 11:00:00 GMT", Some(0)),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("99999999999999999999", None),
    ] {
        assert_eq!(retry_after(value, now()), seconds.map(Duration::from_secs), "{value}");
    }
}

#[test]
fn pauses_double_are_never_shorter_than_asked_for_and_end() {
    let patience = Patience { first_pause: Duration::from_millis(500), ..Patience::default() };
    let millis = |failed, asked: Option<u64>, jitter| {
        pause(&patience, failed, asked.map(Duration::from_secs), jitter).map(|pause| pause.as_millis())
    };
    assert_eq!([1, 2, 3].map(|failed| millis(failed, None, 1.0)), [Some(500), Some(1_000), Some(2_000)]);
    assert_eq!([1, 2, 3].map(|failed| millis(failed, None, 0.0)), [Some(250), Some(500), Some(1_000)]);
    assert_eq!(millis(4, None, 0.0), None);
    assert_eq!(millis(1, Some(0), 0.0), Some(250));
    assert_eq!(millis(1, Some(30), 0.0), Some(30_000));
    assert_eq!(millis(1, Some(31), 0.0), None, "longer than a run should take");
}

#[test]
fn a_tag_is_shown_again_only_if_no_other_content_can_share_it() {
    let shown = |lines: &[(HeaderName, &str)]| validator(&headers(lines)).map(|Validator(tag)| tag);
    let answered = (DATE, "Wed, 01 May 2024 12:00:00 GMT");
    let changed = |at| [(ETAG, "\"66322f80-4d2\""), (LAST_MODIFIED, at), answered.clone()];
    let tag = Some("\"66322f80-4d2\"".to_owned());
    assert_eq!(shown(&changed("Wed, 01 May 2024 11:59:00 GMT")), tag);
    for too_late in ["Wed, 01 May 2024 11:59:01 GMT", "Wed, 01 May 2024 12:00:00 GMT", "Wed, 01 May 2024 13:00:00 GMT"]
    {
        assert_eq!(shown(&changed(too_late)), None, "{too_late}");
    }
    assert_eq!(shown(&changed("yesterday")), None);
    assert_eq!(shown(&[(ETAG, "\"a\""), (LAST_MODIFIED, "Wed, 01 May 2024 11:00:00 GMT")]), None, "no Date");
    assert_eq!(shown(&[(ETAG, "\"a\"")]).as_deref(), Some("\"a\""), "made of the content, not of a time");
    for no_tag in ["W/\"66322f80-4d2\"", "66322f80", "\"", "\"\"", ""] {
        assert_eq!(shown(&[(ETAG, no_tag)]), None, "{no_tag}");
    }
    assert_eq!(shown(&[(ETAG, &format!("\"{}\"", "a".repeat(300)))]), None);
    assert_eq!(shown(&[answered]), None);
}
