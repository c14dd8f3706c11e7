use super::*;
use crate::retention::fixtures::{day, empty_feed, feed_of, instant, manifest, source};
use crate::retention::plan::{forget, let_go, plan};

mod published_format;

const NOW: &str = "2024-06-01T00:00:00Z";

fn entry(text: &str, revision: u32, state: State) -> DayEntry {
    let (reference, manifest) = manifest(day(text), revision, state, &format!("{revision:08x}"), [None; 3]);
    DayEntry::of(&manifest, reference)
}

fn with(feed: &Feed, text: &str, revision: u32) -> Feed {
    feed.with_day(entry(text, revision, State::Final), source(), instant(NOW))
}

fn days(feed: &Feed) -> Vec<(String, u32)> {
    feed.days.iter().map(|entry| (entry.day.to_string(), entry.revision)).collect()
}

#[test]
fn a_new_feed_is_empty_and_speaks_for_36_hours() {
    let feed = empty_feed();
    assert_eq!((feed.sequence, feed.oldest, feed.newest), (1, None, None));
    assert_eq!(feed.valid_until - feed.published_at, TimeDelta::hours(36));
    assert_eq!(Feed::parse(&feed.to_bytes()).expect("sound"), feed);
}

#[test]
fn days_are_kept_ascending_whatever_the_order_of_publication() {
    let feed = ["2024-05-02", "2024-05-04", "2024-05-01"].iter().fold(empty_feed(), |feed, text| with(&feed, text, 1));
    assert_eq!(days(&feed), [("2024-05-01".into(), 1), ("2024-05-02".into(), 1), ("2024-05-04".into(), 1)]);
    assert_eq!(feed.missing(), [day("2024-05-03")]);
    assert!(feed.retired.is_empty());
    let feed = feed.next_version("b".into(), Pulse::Beat(instant(NOW)));
    assert_eq!((feed.oldest, feed.newest), (Some(day("2024-05-01")), Some(day("2024-05-04"))));
}

#[test]
fn a_revision_retires_the_one_before_it() {
    let feed = with(&with(&empty_feed(), "2024-05-01", 1), "2024-05-01", 2);
    assert_eq!(days(&feed), [("2024-05-01".into(), 2)]);
    let [retired] = feed.retired.as_slice() else { panic!("{:?}", feed.retired) };
    assert_eq!((retired.revision, retired.reason), (1, RetiredReason::Superseded));
    assert_eq!((retired.retired_at, retired.deleted_at), (instant(NOW), None));
    assert_eq!(retired.manifest, entry("2024-05-01", 1, State::Final).manifest);
    assert_eq!(feed.last_revision(day("2024-05-01")), 2);
}

#[test]
fn every_change_has_a_sequence_and_a_writer_and_only_a_sign_of_life_moves_the_time() {
    let feed = empty_feed();
    let beat = feed.clone().next_version("b".into(), Pulse::Beat(instant(NOW)));
    assert_eq!((beat.sequence, beat.attempt_id.as_str(), beat.published_at), (2, "b", instant(NOW)));
    assert_eq!(beat.valid_until, instant(NOW) + TimeDelta::hours(36));
    let pruned = feed.clone().next_version("c".into(), Pulse::None);
    assert_eq!((pruned.sequence, pruned.attempt_id.as_str()), (2, "c"));
    assert_eq!((pruned.published_at, pruned.valid_until), (feed.published_at, feed.valid_until));
}

#[test]
fn the_newest_final_day_is_not_a_provisional_one() {
    let feed = feed_of(&[("2024-05-01", State::Final), ("2024-05-02", State::Provisional)]);
    assert_eq!(feed.newest_final(), Some(day("2024-05-01")));
    assert_eq!(feed_of(&[("2024-05-02", State::Provisional)]).newest_final(), None);
}

#[test]
fn revision_numbers_are_not_used_again_after_a_prune_not_even_after_the_deletion() {
    let first = day("2024-05-01");
    let feed = with(&with(&with(&empty_feed(), "2024-05-01", 1), "2024-05-01", 3), "2024-05-20", 1);
    let rules = crate::retention::fixtures::rules(1, 0, 0);
    let released = plan(&feed, &rules, instant(NOW)).released;
    let pruned = let_go(&feed, &released, instant(NOW));
    assert_eq!((pruned.day(first), pruned.last_revision(first)), (None, 3));
    let gone = pruned.retired.iter().map(|retired| retired.manifest.key.clone()).collect();
    let forgotten = forget(&pruned, &gone, instant(NOW));
    assert_eq!(forgotten.retired.len(), 1, "the tombstone: {:?}", forgotten.retired);
    assert_eq!(forgotten.last_revision(first), 3);

    let back = with(&forgotten, "2024-05-01", forgotten.last_revision(first) + 1);
    assert_eq!((back.last_revision(first), back.retired.len()), (4, 0), "the day itself remembers");
    let early = with(&pruned, "2024-05-01", 4);
    assert_eq!(early.retired.len(), 2, "objects that are still there stay named: {:?}", early.retired);
}

#[test]
fn holes_are_the_days_between_the_oldest_and_the_newest() {
    assert!(empty_feed().missing().is_empty());
    assert!(feed_of(&[("2024-05-01", State::Final)]).missing().is_empty());
    let feed = feed_of(&[("2024-02-27", State::Final), ("2024-03-01", State::Provisional)]);
    assert_eq!(feed.missing(), [day("2024-02-28"), day("2024-02-29")]);
}

mod checks {
    use super::*;

    #[track_caller]
    fn refused(words: &str, harm: impl FnOnce(&mut Feed)) {
        let mut feed = feed_of(&[("2024-05-01", State::Final), ("2024-05-02", State::Final)]);
        harm(&mut feed);
        match Feed::parse(&feed.to_bytes()) {
            Err(DocumentError::Contradiction(problem)) => assert!(problem.contains(words), "{problem}"),
            other => panic!("not refused as a contradiction: {other:?}"),
        }
    }

    #[test]
    fn days_out_of_order_or_twice_are_refused() {
        refused("2024-05-02 and 2024-05-01 are out of order", |feed| feed.days.reverse());
        refused("2024-05-01 and 2024-05-01 are out of order", |feed| feed.days[1] = feed.days[0].clone());
    }

    #[test]
    fn windows_that_overlap_are_refused_and_such_that_abut_or_leave_a_space_are_not() {
        refused("the windows of 2024-05-01 and 2024-05-02 overlap", |feed| {
            feed.days[0].window.end += TimeDelta::seconds(1);
        });
        let mut feed = feed_of(&[("2024-05-01", State::Final), ("2024-05-02", State::Final)]);
        feed.days[0].window.end -= TimeDelta::seconds(1);
        Feed::parse(&feed.to_bytes()).expect("sound");
    }

    #[test]
    fn a_window_of_another_day_and_a_revision_0_are_refused() {
        refused("the entry of 2024-05-02 is not a published day", |feed| feed.days[1].window.end += TimeDelta::days(9));
        refused("the entry of 2024-05-01 is not a published day", |feed| {
            feed.days[0].window.start = feed.days[0].window.end + TimeDelta::seconds(-1);
        });
        refused("the entry of 2024-05-02 is not a published day", |feed| feed.days[1].revision = 0);
    }

    #[test]
    fn a_date_that_its_zone_skipped_can_be_published() {
        let zone: crate::day::Zone = "Pacific/Apia".parse().expect("a zone");
        let texts = ["2011-12-29", "2011-12-30", "2011-12-31"];
        let feed = texts.iter().fold(empty_feed(), |feed, text| {
            let skipped = DayEntry { window: zone.window(day(text)), ..entry(text, 1, State::Final) };
            feed.with_day(skipped, source(), instant(NOW))
        });
        let read = Feed::parse(&feed.to_bytes()).expect("a feed of Samoa");
        assert_eq!(read.days[1].window.start, read.days[1].window.end);
    }

    #[test]
    fn a_newer_format_is_refused_before_anything_else_is_judged() {
        let error = Feed::parse(br#"{"days": "none", "format": 9}"#).expect_err("newer");
        assert!(matches!(error, DocumentError::Newer { found: 9, known: FORMAT }), "{error:?}");
    }

    #[test]
    fn unknown_fields_are_ignored_at_every_level() {
        let feed = with(&with(&empty_feed(), "2024-05-01", 1), "2024-05-01", 2);
        let mut document = serde_json::to_value(&feed).expect("a document");
        for place in ["", "/source", "/days/0", "/days/0/window", "/days/0/manifest", "/days/0/tables/public.users"] {
            document.pointer_mut(place).expect("a place")["from_the_future"] = true.into();
        }
        document["retired"][0]["from_the_future"] = 1.into();
        assert_eq!(Feed::parse(document.to_string().as_bytes()).expect("a future document"), feed);
    }
}

#[test]
fn a_day_that_was_read_again_and_is_the_same_is_as_fresh_as_its_last_reading() {
    let feed = with(&with(&empty_feed(), "2024-05-01", 1), "2024-05-02", 1);
    let read_at = |text: &str, revision, at: &str| {
        let mut entry = entry(text, revision, State::Final);
        entry.taken.as_mut().expect("a reading").exported_at = instant(at);
        entry
    };
    let readings = |feed: &Feed| {
        let reading = |entry: &DayEntry| entry.taken.as_ref().expect("a reading").exported_at;
        feed.days.iter().map(reading).collect::<Vec<_>>()
    };
    let seen = feed.with_days_seen(&[read_at("2024-05-01", 1, NOW)]);
    assert_eq!(readings(&seen), [instant(NOW), instant("2024-05-03T00:00:00Z")]);
    assert_eq!(Feed { days: feed.days.clone(), ..seen.clone() }, feed, "nothing else is touched");
    let earlier = seen.with_days_seen(&[read_at("2024-05-01", 1, "2024-05-02T12:00:00Z")]);
    assert_eq!(earlier, seen, "a reading never goes back");
    assert_eq!(seen.with_days_seen(&[read_at("2024-05-02", 2, NOW), read_at("2024-05-09", 1, NOW)]), seen);
}
