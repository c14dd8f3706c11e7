//! Exports into a bucket and catchups from it, while answers are lost, refused, cut or wrong, and runs are ended.

use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::cluster::Database;
use crate::harness::eventually;
use crate::http_faults::{Fault, HttpFaults, Rule, When};
use crate::pair::Pair;
use crate::place::Kind;
use crate::proxy::{Fate, Proxy};
use crate::published::Published;
use crate::s3_server::StrictS3;
use crate::scene::{Ran, Running};

const DAY: [&str; 3] = ["export", "--date", "2024-05-01"];
const TABLE: &str = "[[table]]\nname = \"blobs\"\ntime-column = \"at\"\n";
const SCHEMA: &str = "create table blobs (id int primary key, at timestamptz not null, body text)";

/// A day of about 13 MB when it is compressed: three parts of the size that tests use.
fn fill(database: &Database) {
    database.psql(
        "insert into blobs
         select n, timestamptz '2024-05-01 00:00Z' + n * interval '10 s',
                (select string_agg(md5(n::text || '/' || k::text), '') from generate_series(1, 250) k)
         from generate_series(0, 2999) n",
    );
}

/// A pair with that day, whose bucket is reached through a proxy.
pub(crate) struct Crossing {
    pub(crate) pair: Pair,
    pub(crate) proxy: HttpFaults,
}

impl Crossing {
    pub(crate) fn new() -> Crossing {
        let pair = Pair::on(Kind::Bucket, SCHEMA, TABLE);
        pair.replica.psql(SCHEMA);
        fill(&pair.source);
        let server = StrictS3::shared();
        let proxy = HttpFaults::before(server.address());
        pair.scene.edit_configuration(server.endpoint(), &proxy.endpoint());
        Crossing { pair, proxy }
    }

    fn published(&self) -> Published {
        Published::by(&self.pair.scene)
    }

    /// Exports the day, with a fault on the way that must not matter.
    #[track_caller]
    fn exports_in_spite_of(&self, method: &str, part: &str, nth: usize, fault: Fault) {
        let rule = self.proxy.rule(method, part, When::Nth(nth), fault.clone());
        let before = self.published().feed_if_any().map_or(0, |feed| feed.days.first().map_or(0, |day| day.revision));
        let ran = self.pair.scene.pgslice(&[&DAY[..], &["--force"]].concat()).exits(0);
        assert_eq!(rule.struck(), 1, "{method} {part} {nth} {fault:?} was not met\n{ran}");
        let published = self.published();
        assert_eq!(published.entry("2024-05-01").revision, before + 1, "{method} {part} {nth} {fault:?}\n{ran}");
        published.is_whole();
        assert_eq!(published.staged(), 0, "{method} {part} {nth} {fault:?}");
        self.proxy.clear();
    }
}

/// Every kind of request that an export sends, as the proxy sees it.
const REQUESTS: [(&str, &str, usize); 9] = [
    ("PUT", "write-test.txt", 1),
    ("GET", "feed.json", 1),
    ("POST", "uploads", 1),
    ("PUT", "partNumber=1", 1),
    ("PUT", "partNumber=3", 1),
    ("POST", "uploadId=", 1),
    ("PUT", "manifest.json", 1),
    ("PUT", "feed.json", 1),
    ("PUT", "index.html", 1),
];

#[test]
fn an_answer_that_is_lost_costs_nothing_whatever_was_asked() {
    let crossing = Crossing::new();
    // The feed, so that all that follows are revisions of it.
    crossing.pair.scene.pgslice(&DAY).exits(0);
    for (method, part, nth) in REQUESTS {
        crossing.exports_in_spite_of(method, part, nth, Fault::LoseAnswer);
    }
    let feed = crossing.published().feed();
    let revisions = u32::try_from(REQUESTS.len()).expect("few") + 1;
    assert_eq!((feed.days.len(), feed.days[0].revision), (1, revisions), "each export published once");
}

#[test]
fn an_answer_that_is_lost_when_the_feed_is_made_leaves_one_feed() {
    let crossing = Crossing::new();
    let rule = crossing.proxy.rule("PUT", "feed.json", When::Nth(1), Fault::LoseAnswer);
    crossing.pair.scene.pgslice(&DAY).exits(0);
    assert_eq!(rule.struck(), 1);
    assert_eq!(crossing.published().feed().sequence, 2);
}

#[test]
fn a_server_that_wants_fewer_requests_or_drops_one_is_asked_again() {
    let crossing = Crossing::new();
    crossing.pair.scene.pgslice(&DAY).exits(0);
    for (method, part, nth) in REQUESTS {
        let fault = if part.contains("json") { Fault::slow_down() } else { Fault::Drop };
        crossing.exports_in_spite_of(method, part, nth, fault);
    }
}

#[test]
fn a_server_that_does_not_come_back_leaves_nothing_of_the_day() {
    for (method, part) in
        [("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId="), ("PUT", "manifest.json")]
    {
        let crossing = Crossing::new();
        let rule = crossing.proxy.rule(method, part, When::Every, Fault::s3_error(500, "InternalError"));
        let ran = crossing.pair.scene.pgslice(&DAY).exits(5);
        assert!(rule.struck() > 1, "it was asked again\n{ran}");
        let published = crossing.published();
        assert_eq!((published.days(), published.staged()), (Vec::<String>::new(), 0), "{method} {part}\n{ran}");
        assert!(published.objects().is_empty(), "{:?}\n{ran}", published.objects());
    }
}

#[test]
fn a_download_goes_on_where_it_was_cut() {
    let crossing = Crossing::new();
    crossing.pair.scene.pgslice(&DAY).exits(0);
    let cut = crossing.proxy.rule("GET", ".copy.zst", When::Nth(1), Fault::Truncate(1_000_000));
    let again = crossing.proxy.rule("GET", ".copy.zst", When::Nth(3), Fault::Truncate(7));
    crossing.pair.scene.pgslice(&["catchup"]).exits(0);
    assert_eq!((cut.struck(), again.struck()), (1, 1));
    crossing.pair.assert_equal("blobs");
}

#[test]
fn a_wrong_byte_on_the_way_is_noticed_and_the_next_run_goes_on() {
    let crossing = Crossing::new();
    crossing.pair.scene.pgslice(&DAY).exits(0);
    let rule = crossing.proxy.rule("GET", ".copy.zst", When::Nth(2), Fault::Flip(12_345));
    crossing.pair.scene.pgslice(&["catchup"]).exits(4);
    assert_eq!(rule.struck(), 1);
    assert_eq!(crossing.pair.replica.psql("select count(*) from blobs"), "0");
    crossing.pair.scene.pgslice(&["catchup"]).exits(0);
    crossing.pair.assert_equal("blobs");
}

#[test]
fn an_interrupt_is_heard_while_the_server_is_silent() {
    let crossing = Crossing::new();
    crossing.pair.scene.pgslice(&DAY).exits(0);
    for (arguments, method, part) in [
        (&["status"][..], "GET", "feed.json"),
        (&["ls"], "GET", "manifest.json"),
        (&["catchup"], "GET", "manifest.json"),
        (&["catchup"], "GET", ".copy.zst"),
        (&["export", "--date", "2024-05-02"], "PUT", "write-test.txt"),
    ] {
        let held = crossing.proxy.rule(method, part, When::Every, Fault::Hold);
        let running = crossing.pair.scene.spawn(arguments);
        held.wait_until_held();
        end(&running, "INT");
        running.wait().exits(130);
        crossing.proxy.clear();
    }
    crossing.pair.scene.pgslice(&["catchup"]).exits(0);
    crossing.pair.assert_equal("blobs");
}

fn end(running: &Running, signal: &str) {
    let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &running.id().to_string()]).status();
    assert!(status.expect("run kill").success());
}

/// Ends a run while the server has not seen its `nth` request of that kind. If it is `released` it sees it afterwards.
fn ended_at(crossing: &Crossing, (method, part, nth): (&str, &str, usize), released: bool, signal: &str) -> Ran {
    let held: Rule = crossing.proxy.rule(method, part, When::Nth(nth), Fault::Hold);
    let mut running = crossing.pair.scene.spawn(&DAY);
    eventually("the request is being sent", || held.struck() > 0 || !running.is_running());
    if running.is_running() {
        end(&running, signal);
    }
    if released {
        held.release();
    }
    let ran = running.wait();
    crossing.proxy.clear();
    ran
}

#[test]
fn of_a_hundred_exports_that_are_given_up_no_upload_is_left_open() {
    let crossing = Crossing::new();
    let mut given_up = 0;
    for round in 0..25 {
        let part = 1 + round % 3;
        // The server begins an upload that nobody waits for any more.
        ended_at(&crossing, ("POST", "uploads", 1), true, "INT").exits(130);
        ended_at(&crossing, ("PUT", "partNumber=", part), part == 1, "TERM").exits(143);
        let denied = crossing.proxy.rule(
            "PUT",
            &format!("partNumber={part}"),
            When::Every,
            Fault::s3_error(403, "AccessDenied"),
        );
        crossing.pair.scene.pgslice(&DAY).exits(6);
        assert!(denied.struck() > 0);
        crossing.proxy.clear();
        given_up += 3;
    }
    // The source is lost when all rows are read and only their count is missing.
    let source = &crossing.pair.source;
    let lost = Proxy::start(source, |message| if message.copied().is_some() { Fate::Cut(0) } else { Fate::Pass });
    crossing.pair.scene.edit_configuration(&source.url, lost.url());
    for _ in 0..25 {
        let parts = crossing.proxy.rule("PUT", "partNumber=", When::Every, Fault::Pass);
        let ran = crossing.pair.scene.pgslice(&DAY).exits(5);
        assert!(parts.struck() > 0, "{ran}");
        crossing.proxy.clear();
        given_up += 1;
    }
    assert_eq!(given_up, 100);
    let published = crossing.published();
    assert_eq!(published.staged(), 0, "uploads were left open");
    assert!(published.days().is_empty() && published.objects().is_empty());
    // A part that was on its way when its upload was aborted does not bring it back.
    thread::sleep(Duration::from_millis(100));
    assert_eq!(published.staged(), 0, "uploads were left open");
}
