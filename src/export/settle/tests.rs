use super::*;
use crate::day::Zone;
use crate::retention::fixtures::{self, day, instant};
use Standing::{FinalIfEqual, FirstCount, Provisional};

const SETTLE: TimeDelta = TimeDelta::minutes(15);

fn window() -> Window {
    Zone::UTC.window(day("2024-05-01"))
}

/// What a source says at an instant, of the system that the fixtures' manifests were read from.
fn said(now: &str, reasons: Vec<Reason>) -> Settlement {
    let facts = SourceFacts {
        now: instant(now),
        identity: fixtures::source(),
        standby: None,
        user: "re\"ader".into(),
        server_version: "17".into(),
        server_version_num: 170_000,
    };
    Settlement { facts, reasons }
}

fn hidden(pid: i32) -> Reason {
    Reason::Hidden { pid, application: "app".into(), hiding: Hiding::Privilege }
}

fn open() -> Reason {
    Reason::Open { pid: 7, application: "slow".into(), since: instant("2024-05-01T21:00:00Z") }
}

fn prepared() -> Reason {
    Reason::Prepared { gid: "two".into(), since: instant("2024-05-01T21:00:00Z") }
}

fn too_early() -> Reason {
    Reason::TooEarly { until: instant("2024-05-02T00:15:00Z"), settle: SETTLE }
}

fn standby(replay: Replay) -> Reason {
    Reason::Standby { words: "a standby".into(), replay }
}

/// The published day, read at an instant.
fn read_at(state: State, at: &str) -> Manifest {
    let mut manifest = fixtures::manifest(day("2024-05-01"), 1, state, "00000001", [None; 3]).1;
    manifest.taken.exported_at = instant(at);
    manifest
}

fn stands(now: &str, reasons: Vec<Reason>, published: &Manifest) -> Standing {
    standing(&said(now, reasons), Some(published), window(), SETTLE)
}

#[test]
fn a_day_that_nothing_can_add_to_is_final_and_any_reason_makes_it_provisional() {
    let now = "2024-05-02T02:00:00Z";
    assert_eq!(standing(&said(now, Vec::new()), None, window(), SETTLE), Standing::Final);
    for reason in [hidden(1), open(), prepared(), too_early(), standby(Replay::Beyond), standby(Replay::Behind)] {
        assert_eq!(standing(&said(now, vec![reason.clone()]), None, window(), SETTLE), Provisional, "{reason:?}");
    }
}

#[test]
fn two_readings_after_the_end_that_are_settle_apart_make_what_nobody_can_see_final() {
    let published = read_at(State::Provisional, "2024-05-02T00:15:00Z");
    for reason in [hidden(1), standby(Replay::Beyond)] {
        let at = |now| stands(now, vec![reason.clone()], &published);
        assert_eq!(at("2024-05-02T00:29:59Z"), Provisional, "too soon after the first");
        assert_eq!(at("2024-05-02T00:30:00Z"), FinalIfEqual);
    }
    let both = vec![hidden(1), hidden(2)];
    assert_eq!(stands("2024-05-02T00:30:00Z", both, &published), FinalIfEqual);
}

#[test]
fn a_standby_whose_replay_stood_still_between_two_readings_proves_nothing() {
    let published = read_at(State::Provisional, "2024-05-02T01:00:00Z");
    let replayed = |until: &str| {
        let mut said = said("2024-05-03T01:00:00Z", vec![standby(Replay::Beyond)]);
        said.facts.standby = Some(Standby {
            received: None,
            replayed: None,
            unreplayed: false,
            last_commit: Some(instant(until)),
            replayed_all_of: None,
        });
        standing(&said, Some(&published), window(), SETTLE)
    };
    assert_eq!(replayed("2024-05-02T00:59:00Z"), Provisional, "paused since before the first reading");
    assert_eq!(replayed("2024-05-02T01:14:59Z"), Provisional);
    assert_eq!(replayed("2024-05-02T01:15:00Z"), FinalIfEqual);
}

#[test]
fn a_minute_lies_between_two_readings_whatever_settle_is() {
    let published = read_at(State::Provisional, "2024-05-02T00:00:00Z");
    let at = |now| standing(&said(now, vec![hidden(1)]), Some(&published), window(), TimeDelta::zero());
    assert_eq!(at("2024-05-02T00:00:59Z"), Provisional);
    assert_eq!(at("2024-05-02T00:01:00Z"), FinalIfEqual);
}

#[test]
fn a_reading_from_before_the_settled_end_counts_for_nothing_and_the_next_one_is_the_first() {
    let published = read_at(State::Provisional, "2024-05-02T00:14:59Z");
    assert_eq!(stands("2024-05-03T00:00:00Z", vec![hidden(1)], &published), FirstCount);
    let mut elsewhere = read_at(State::Provisional, "2024-05-02T01:00:00Z");
    elsewhere.taken.system_identifier = "8".into();
    assert_eq!(stands("2024-05-03T00:00:00Z", vec![hidden(1)], &elsewhere), FirstCount, "another system's clock");
}

#[test]
fn what_can_be_seen_to_be_open_is_never_counted_away() {
    let published = read_at(State::Provisional, "2024-05-02T01:00:00Z");
    for reason in [open(), prepared(), standby(Replay::Behind)] {
        let with_hidden = vec![hidden(1), reason.clone()];
        assert_eq!(stands("2024-05-04T00:00:00Z", with_hidden, &published), Provisional, "{reason:?}");
    }
    let published = read_at(State::Final, "2024-05-02T01:00:00Z");
    assert_eq!(stands("2024-05-04T00:00:00Z", vec![hidden(1)], &published), Provisional, "it is final already");
}

#[test]
fn a_recount_makes_final_only_what_has_equal_rows_and_whole_tables_do_not_matter() {
    let mut published = read_at(State::Provisional, "2024-05-02T01:00:00Z");
    published.slices[0].kind = SliceKind::Referenced;
    let same = published.slices.clone();
    let judged = |slices: &[Slice]| state(FinalIfEqual, Some(&published), slices);
    assert_eq!(judged(&same), State::Final);
    let changed = |index: usize| {
        let mut slices = same.clone();
        slices[index].rows_digest.add(b"a row");
        slices
    };
    assert_eq!(judged(&changed(0)), State::Provisional);
    assert_eq!(judged(&changed(1)), State::Final, "a whole table");
    assert_eq!(judged(&same[1..]), State::Provisional, "a table that left");
    let mut joined = published.clone();
    joined.slices.remove(0);
    assert_eq!(state(FinalIfEqual, Some(&joined), &same), State::Provisional, "a table that joined");
    for standing in [Provisional, FirstCount] {
        assert_eq!(state(standing, Some(&published), &same), State::Provisional);
    }
    assert_eq!(state(Standing::Final, Some(&published), &changed(0)), State::Final);
}

#[test]
fn what_cannot_be_over_in_time_is_not_waited_for() {
    let now = "2024-05-02T00:05:00Z";
    let within = |minutes: u64, reasons| said(now, reasons).may_pass_within(Duration::from_secs(60 * minutes));
    assert!(within(10, vec![too_early(), open(), prepared(), hidden(1)]));
    assert!(!within(9, vec![too_early()]), "ten minutes are missing");
    assert!(!within(60, vec![open(), standby(Replay::Beyond)]), "a standby never sees them");
}

#[test]
fn sessions_that_stay_hidden_are_not_waited_for_once_nothing_else_is_left() {
    let passes = |reasons| said("2024-05-02T00:05:00Z", reasons).may_pass_within(Duration::from_secs(1_800));
    assert!(!passes(vec![hidden(1), hidden(2)]));
    assert!(passes(vec![hidden(1), open()]));
}

#[test]
fn reasons_name_process_application_and_age() {
    let words = said("2024-05-02T00:12:00Z", vec![too_early(), open(), prepared(), standby(Replay::Behind)]).words();
    assert_eq!(
        words,
        [
            "less than 15 min have passed since its end (until 2024-05-02 00:15:00 UTC)",
            "process 7 (slow) has had a transaction open for 3 h 12 min, since 2024-05-01 21:00:00 UTC",
            "transaction \"two\" has been prepared and not committed for 3 h 12 min, since 2024-05-01 21:00:00 UTC",
            "a standby",
        ]
    );
}

#[test]
fn hidden_sessions_are_told_together_with_the_statement_that_shows_them() {
    let words = |count| said("2024-05-02T00:12:00Z", (1..=count).map(hidden).collect()).words();
    let grant =
        "hidden from \"re\"\"ader\", and may have a transaction open: GRANT pg_read_all_stats TO \"re\"\"ader\"";
    assert_eq!(words(1), [format!("process 1 (app) is {grant}")]);
    assert_eq!(words(2), [format!("processes 1 (app), 2 (app) are {grant}")]);
    assert_eq!(words(9), [format!("processes 1 (app), 2 (app), 3 (app) and 6 more are {grant}")]);
    let untracked = Reason::Hidden { pid: 4, application: String::new(), hiding: Hiding::Untracked };
    let words = said("2024-05-02T00:12:00Z", vec![untracked]).words();
    assert_eq!(
        words,
        ["process 4 () is hidden from everybody by track_activities = off, and may have a transaction open"]
    );
}

#[test]
fn clocks_that_may_be_equal_are_not_told_apart() {
    let at = |secs: i64| instant("2024-05-02T00:00:00Z") + TimeDelta::seconds(secs);
    for (theirs, before, after, skew) in [(5, 0, 9, 0), (0, 0, 0, 0), (-70, 0, 9, -70), (100, 0, 9, 91)] {
        assert_eq!(clock_skew_secs(at(theirs), at(before), at(after)), skew);
    }
}
