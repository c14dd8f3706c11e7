use super::*;
use crate::day::Zone;
use crate::manifest::{Column, TimeBounds, TimeKind};
use crate::retention::fixtures::{self, day, feed_of};
use State::{Final, Provisional};

mod which_days {
    use super::*;

    /// What is due by a clock that shows `today`, with 15 days kept and 3 looked back on.
    fn due(feed: &Feed, today: &str) -> Vec<(String, Why)> {
        plain(candidates(Some(feed), Request::Due, day(today), 15, 3))
    }

    fn plain(candidates: Vec<Candidate>) -> Vec<(String, Why)> {
        candidates.into_iter().map(|candidate| (candidate.day.to_string(), candidate.why)).collect()
    }

    fn expected(days: &[(&str, Why)]) -> Vec<(String, Why)> {
        days.iter().map(|(day, why)| ((*day).to_owned(), *why)).collect()
    }

    #[test]
    fn an_empty_feed_and_none_at_all_want_yesterday() {
        let yesterday = expected(&[("2024-04-30", Why::Missing)]);
        assert_eq!(due(&fixtures::empty_feed(), "2024-05-01"), yesterday);
        assert_eq!(plain(candidates(None, Request::Due, day("2024-05-01"), 15, 3)), yesterday);
    }

    #[test]
    fn holes_provisional_days_and_the_lookback_are_due_and_older_final_days_are_not() {
        let feed = feed_of(&[
            ("2024-05-01", Final),
            ("2024-05-02", Provisional),
            ("2024-05-04", Final),
            ("2024-05-05", Final),
            ("2024-05-06", Final),
            ("2024-05-07", Provisional),
        ]);
        assert_eq!(
            due(&feed, "2024-05-08"),
            expected(&[
                ("2024-05-02", Why::Provisional),
                ("2024-05-03", Why::Missing),
                ("2024-05-05", Why::Lookback),
                ("2024-05-06", Why::Lookback),
                ("2024-05-07", Why::Provisional),
            ])
        );
    }

    #[test]
    fn a_lookback_of_zero_examines_nothing_again() {
        let feed = feed_of(&[("2024-05-01", Final), ("2024-05-02", Final)]);
        assert!(candidates(Some(&feed), Request::Due, day("2024-05-03"), 15, 0).is_empty());
        let endless = candidates(Some(&feed), Request::Due, day("2024-05-03"), 15, u64::MAX);
        assert_eq!(plain(endless), expected(&[("2024-05-01", Why::Lookback), ("2024-05-02", Why::Lookback)]));
    }

    #[test]
    fn today_and_what_is_before_the_oldest_day_are_not_due() {
        let feed = feed_of(&[("2024-05-02", Provisional)]);
        assert_eq!(due(&feed, "2024-05-03"), expected(&[("2024-05-02", Why::Provisional)]));
        assert!(due(&feed, "2024-05-02").is_empty(), "the source's clock was set back");
        assert!(due(&feed, "2024-04-01").is_empty());
    }

    #[test]
    fn holes_behind_the_retention_are_not_due() {
        // Kept are 15 days up to the newest final one, itself included: from 2024-05-06 on.
        let feed = feed_of(&[("2024-05-01", Provisional), ("2024-05-20", Final)]);
        let days: Vec<String> = due(&feed, "2024-05-21").into_iter().map(|(day, _)| day).collect();
        assert_eq!(days.first().map(String::as_str), Some("2024-05-06"));
        assert_eq!(days.len(), 15, "{days:?}");
    }

    #[test]
    fn retention_counts_from_the_newest_final_day_not_from_a_provisional_one() {
        let feed = feed_of(&[("2024-05-01", Final), ("2024-05-20", Provisional)]);
        assert_eq!(candidates(Some(&feed), Request::Due, day("2024-05-21"), 1, 0).len(), 19);
        let none_final = feed_of(&[("2024-05-01", Provisional), ("2024-05-03", Provisional)]);
        assert_eq!(candidates(Some(&none_final), Request::Due, day("2024-05-04"), 1, 0).len(), 3);
    }

    #[test]
    fn after_a_long_outage_every_day_since_the_newest_is_due() {
        let feed = feed_of(&[("2024-05-01", Final)]);
        let due = due(&feed, "2024-07-01");
        assert_eq!(due.len(), 60);
        assert_eq!(due.first(), Some(&("2024-05-02".to_owned(), Why::Missing)));
        assert_eq!(due.last(), Some(&("2024-06-30".to_owned(), Why::Missing)));
    }

    #[test]
    fn named_days_are_looked_at_whatever_the_feed_says() {
        let feed = feed_of(&[("2024-05-01", Final), ("2024-05-20", Final)]);
        let named = |request| plain(candidates(Some(&feed), request, day("2024-05-21"), 1, 0));
        assert_eq!(named(Request::Day(day("2024-05-01"))), expected(&[("2024-05-01", Why::Named)]));
        assert_eq!(named(Request::Day(day("2030-01-01"))), expected(&[("2030-01-01", Why::Named)]));
        let range = |from, to| Request::Range(DayRange { from: day(from), to: day(to) });
        assert_eq!(
            named(range("2024-04-30", "2024-05-02")),
            expected(&[("2024-04-30", Why::Named), ("2024-05-01", Why::Named), ("2024-05-02", Why::Named)])
        );
        assert!(named(range("2024-05-02", "2024-05-01")).is_empty());
    }
}

mod neighbours {
    use super::*;

    fn judged(feed: &Feed, zone: &str, text: &str) -> Result<(), Failure> {
        let parsed: Zone = zone.parse().expect("a zone");
        check_neighbours(feed, zone, day(text), parsed.window(day(text)))
    }

    fn in_zone(zone: &str, days: &[&str]) -> Feed {
        let parsed: Zone = zone.parse().expect("a zone");
        let mut feed = feed_of(&days.iter().map(|day| (*day, Final)).collect::<Vec<_>>());
        zone.clone_into(&mut feed.timezone);
        for entry in &mut feed.days {
            entry.window = parsed.window(entry.day);
        }
        feed
    }

    #[test]
    fn days_of_one_zone_fit_wherever_they_fall() {
        for zone in ["UTC", "Europe/Paris", "Africa/Cairo", "America/Havana", "Pacific/Apia"] {
            let feed = in_zone(zone, &["2024-03-30", "2024-04-01", "2024-10-26", "2024-10-28"]);
            for text in ["2024-03-29", "2024-03-30", "2024-03-31", "2024-06-01", "2024-10-27", "2024-10-29"] {
                judged(&feed, zone, text).unwrap_or_else(|failure| panic!("{zone} {text}: {failure}"));
            }
        }
    }

    #[test]
    fn another_zone_is_refused_unless_nothing_was_ever_published() {
        let feed = feed_of(&[("2024-05-01", Final)]);
        let refusal = judged(&feed, "Europe/Paris", "2024-05-02").expect_err("another zone");
        assert_eq!(refusal.class, Class::Usage);
        assert!(refusal.what.contains("days of UTC, not of Europe/Paris"), "{refusal}");
        judged(&fixtures::empty_feed(), "Europe/Paris", "2024-05-02").expect("nothing contradicts it");
    }

    #[test]
    fn other_rules_for_the_same_zone_are_refused_on_every_side() {
        // The published days were cut an hour earlier than the zone's rules say today.
        let mut feed = in_zone("Europe/Paris", &["2024-05-01", "2024-05-10"]);
        for entry in &mut feed.days {
            entry.window.start -= chrono::TimeDelta::hours(1);
            entry.window.end -= chrono::TimeDelta::hours(1);
        }
        for text in ["2024-04-30", "2024-05-01", "2024-05-02", "2024-05-09", "2024-05-10", "2024-05-11"] {
            let refusal = judged(&feed, "Europe/Paris", text).expect_err(text);
            assert_eq!(refusal.class, Class::Integrity, "{text}");
            assert!(refusal.what.contains("does not fit the published one"), "{refusal}");
        }
        judged(&feed, "Europe/Paris", "2024-05-05").expect("no neighbour, no overlap");
    }

    #[test]
    fn a_window_that_reaches_into_a_day_further_off_is_refused() {
        let feed = in_zone("UTC", &["2024-05-01", "2024-05-10"]);
        let wide = |start: &str, end: &str| Window { start: fixtures::instant(start), end: fixtures::instant(end) };
        for window in
            [wide("2024-05-01T23:59:59Z", "2024-05-06T00:00:00Z"), wide("2024-05-05T00:00:00Z", "2024-05-10T00:00:01Z")]
        {
            let refusal = check_neighbours(&feed, "UTC", day("2024-05-05"), window).expect_err("too wide");
            assert_eq!(refusal.class, Class::Integrity);
        }
        let just = wide("2024-05-02T00:00:00Z", "2024-05-10T00:00:00Z");
        check_neighbours(&feed, "UTC", day("2024-05-05"), just).expect("touches, but does not overlap");
    }

    fn source(system_identifier: &str, timeline: u32) -> SourceIdentity {
        SourceIdentity { system_identifier: system_identifier.into(), timeline }
    }

    #[test]
    fn another_source_is_refused_and_the_first_one_is_not() {
        let feed = feed_of(&[("2024-05-01", Final)]);
        check_source(&feed, &source("7", 1)).expect("the same");
        check_source(&fixtures::empty_feed(), &source("8", 1)).expect("the first");
        assert_eq!(check_source(&feed, &source("8", 1)).expect_err("another").class, Class::Integrity);
        assert_eq!(check_source(&feed, &source("8", 2)).expect_err("another").class, Class::Integrity);
    }

    #[test]
    fn a_promoted_server_is_followed_and_the_one_it_left_behind_is_refused() {
        let mut feed = feed_of(&[("2024-05-01", Final)]);
        check_source(&feed, &source("7", 2)).expect("promoted");
        feed.source = Some(source("7", 2));
        check_source(&feed, &source("7", 3)).expect("promoted again");
        let refusal = check_source(&feed, &source("7", 1)).expect_err("left behind");
        assert_eq!(refusal.class, Class::Integrity);
        assert!(refusal.what.contains("timeline 1") && refusal.what.contains("timeline 2"), "{refusal}");
        assert!(refusal.next.is_some_and(|next| next.contains("--new-source")));
    }
}

mod decisions {
    use super::*;

    /// What is done to a slice that is read again.
    type Harm<'a> = &'a dyn Fn(&mut Slice);

    const STRICT: Rules = Rules { force: Force::No, shrink: Shrink::Guarded, max_shrink: 0.01 };

    fn published(state: State) -> Manifest {
        let mut manifest = fixtures::manifest(day("2024-05-01"), 2, state, "00000001", [None; 3]).1;
        for slice in &mut manifest.slices {
            slice.kind = SliceKind::Time;
            slice.time = Some(TimeBounds {
                column: "at".into(),
                kind: TimeKind::Date,
                zone: None,
                from: "2024-05-01".into(),
                to: "2024-05-02".into(),
            });
        }
        manifest
    }

    /// A published day whose first slice is of `kind` and has `rows`, and that slice read again with other rows.
    fn reread(kind: SliceKind, before: u64, after: u64) -> (Manifest, Vec<Slice>) {
        let mut old = published(Final);
        old.slices[0].kind = kind;
        old.slices[0].rows = before;
        let mut slices = old.slices.clone();
        slices[0].rows = after;
        slices[0].rows_digest.add(b"another row");
        (old, slices)
    }

    fn decided(old: &Manifest, slices: &[Slice], rules: Rules) -> Result<Decision, Failure> {
        decide(Some(old), 2, slices, old.state, Why::Lookback, rules)
    }

    #[test]
    fn a_new_day_is_published_as_the_revision_after_the_last_one() {
        let slices = published(Final).slices;
        for (last, revision) in [(0, 1), (4, 5)] {
            let decision = decide(None, last, &slices, Final, Why::Missing, STRICT).expect("a decision");
            assert_eq!(decision, Decision::Publish { revision });
        }
    }

    #[test]
    fn an_equal_day_is_unchanged_however_it_was_asked_for() {
        let old = published(Final);
        for why in [Why::Lookback, Why::Named, Why::Provisional] {
            for state in [Final, Provisional] {
                let decision = decide(Some(&old), 2, &old.slices, state, why, STRICT);
                assert_eq!(decision.expect("a decision"), Decision::Unchanged, "{why:?} {state:?}");
            }
        }
    }

    #[test]
    fn the_order_of_tables_and_when_they_were_read_make_no_difference() {
        let old = published(Final);
        let mut slices = old.slices.clone();
        slices.reverse();
        slices[0].taken = Some(old.taken.clone());
        slices[0].min_time = Some("another spelling".into());
        assert_eq!(decided(&old, &slices, STRICT).expect("a decision"), Decision::Unchanged);
    }

    #[test]
    fn an_equal_provisional_day_is_settled_once_and_keeps_its_revision() {
        let old = published(Provisional);
        let decision = |state| decide(Some(&old), 2, &old.slices, state, Why::Provisional, STRICT).expect("a decision");
        assert_eq!(decision(Final), Decision::Settle { revision: 2 });
        assert_eq!(decision(Provisional), Decision::Unchanged);
    }

    #[test]
    fn a_changed_provisional_day_is_published_and_not_settled() {
        let (old, slices) = reread(SliceKind::Time, 100, 101);
        let old = Manifest { state: Provisional, ..old };
        let decision = decide(Some(&old), 2, &slices, Final, Why::Provisional, STRICT).expect("a decision");
        assert_eq!(decision, Decision::Publish { revision: 3 });
    }

    #[test]
    fn whatever_differs_in_the_rows_or_their_description_makes_a_revision() {
        let column = Column {
            name: "new".into(),
            type_schema: "pg_catalog".into(),
            type_name: "text".into(),
            typmod: -1,
            nullable: true,
            made_of: crate::manifest::MadeOf::default(),
        };
        let harms: [(&str, Comparison, Harm<'_>); 8] = [
            ("digest", Comparison::Different, &|slice| slice.rows_digest.add(b"x")),
            ("rows", Comparison::Different, &|slice| slice.rows += 1),
            ("raw bytes", Comparison::Different, &|slice| slice.raw_bytes += 1),
            ("columns", Comparison::Different, &|slice| slice.columns.push(column.clone())),
            ("kind", Comparison::SameRows, &|slice| slice.kind = SliceKind::Referenced),
            ("key", Comparison::SameRows, &|slice| slice.key.clear()),
            ("filter", Comparison::SameRows, &|slice| slice.filtered = true),
            ("omitted columns", Comparison::SameRows, &|slice| slice.omitted_columns.push("x".into())),
        ];
        let old = published(Final);
        for (name, expected, harm) in harms {
            let mut slices = old.slices.clone();
            harm(&mut slices[1]);
            assert_eq!(compare(&slices[1], &old.slices[1]), expected, "{name}");
            let decision = decided(&old, &slices, STRICT).expect(name);
            assert_eq!(decision, Decision::Publish { revision: 3 }, "{name}");
        }
        let mut slices = old.slices.clone();
        slices[1].time = None;
        assert_eq!(compare(&slices[1], &old.slices[1]), Comparison::SameRows);
    }

    #[test]
    fn force_publishes_an_equal_day_after_the_highest_revision_known() {
        let old = published(Final);
        let forced = Rules { force: Force::Yes, ..STRICT };
        for (last, revision) in [(2, 3), (1, 3), (7, 8)] {
            let decision = decide(Some(&old), last, &old.slices, Final, Why::Named, forced).expect("a decision");
            assert_eq!(decision, Decision::Publish { revision });
        }
    }

    #[test]
    fn force_does_not_overrule_the_guard_against_shrinking() {
        let (old, slices) = reread(SliceKind::Time, 100, 50);
        let forced = Rules { force: Force::Yes, ..STRICT };
        assert_eq!(decided(&old, &slices, forced).expect_err("half is gone").class, Class::Integrity);
    }

    #[test]
    fn a_loss_of_exactly_the_limit_is_published_and_one_row_more_is_refused() {
        for percent in 0..=99_u64 {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let rules = Rules { max_shrink: percent as f64 / 100.0, ..STRICT };
            for hundreds in [1, 7, 10_000] {
                let (before, lost) = (hundreds * 100, hundreds * percent);
                let (old, slices) = reread(SliceKind::Time, before, before - lost);
                let decision = decided(&old, &slices, rules).unwrap_or_else(|failure| panic!("{percent}%: {failure}"));
                assert_eq!(decision, Decision::Publish { revision: 3 });
                let (old, slices) = reread(SliceKind::Time, before, before - lost - 1);
                let refusal = decided(&old, &slices, rules).expect_err("one row more");
                assert_eq!(refusal.class, Class::Integrity, "{percent}% of {before}");
            }
        }
    }

    #[test]
    fn a_refused_loss_says_what_would_be_lost() {
        let (old, slices) = reread(SliceKind::Time, 100, 98);
        let refusal = decided(&old, &slices, STRICT).expect_err("2 of 100");
        assert_eq!(refusal.what, "2024-05-01 public.messages would shrink from 100 to 98 rows (revision 2)");
        assert!(refusal.next.is_some_and(|next| next.contains("--accept-shrink")));
    }

    #[test]
    fn a_slice_that_had_rows_and_has_none_is_refused_whatever_the_limit_and_the_kind() {
        for kind in [SliceKind::Time, SliceKind::Referenced, SliceKind::All] {
            let (old, slices) = reread(kind, 1, 0);
            let all = Rules { max_shrink: 1.0, ..STRICT };
            let refusal = decide(Some(&old), 2, &slices, Final, Why::Named, all).expect_err("nothing is left");
            assert_eq!(refusal.class, Class::Integrity, "{kind:?}");
            let accepted = Rules { shrink: Shrink::Accepted, ..all };
            let decision = decide(Some(&old), 2, &slices, Final, Why::Named, accepted).expect("accepted");
            assert_eq!(decision, Decision::Publish { revision: 3 });
        }
    }

    #[test]
    fn referenced_rows_may_shrink_and_an_empty_slice_cannot() {
        let (old, slices) = reread(SliceKind::Referenced, 100, 1);
        assert_eq!(decided(&old, &slices, STRICT).expect("exempt"), Decision::Publish { revision: 3 });
        let (old, slices) = reread(SliceKind::Time, 0, 0);
        assert_eq!(decided(&old, &slices, STRICT).expect("no loss"), Decision::Publish { revision: 3 });
    }

    #[test]
    fn growth_in_one_table_does_not_make_up_for_a_loss_in_another() {
        let (old, mut slices) = reread(SliceKind::Time, 100, 90);
        slices[1].rows += 1_000;
        assert_eq!(decided(&old, &slices, STRICT).expect_err("per slice").class, Class::Integrity);
    }

    #[test]
    fn a_table_that_left_the_dataset_needs_consent_if_it_had_rows() {
        let mut old = published(Final);
        let slices = old.slices[..2].to_vec();
        assert_eq!(decided(&old, &slices, STRICT).expect_err("dropped").class, Class::Integrity);
        let accepted = Rules { shrink: Shrink::Accepted, ..STRICT };
        assert_eq!(decided(&old, &slices, accepted).expect("accepted"), Decision::Publish { revision: 3 });
        old.slices[2].rows = 0;
        assert_eq!(decided(&old, &slices, STRICT).expect("it was empty"), Decision::Publish { revision: 3 });
    }

    #[test]
    fn a_table_that_joined_the_dataset_makes_a_revision() {
        let mut old = published(Final);
        let slices = old.slices.clone();
        old.slices.pop();
        assert_eq!(decided(&old, &slices, STRICT).expect("joined"), Decision::Publish { revision: 3 });
    }

    #[test]
    fn whole_reference_tables_make_no_revision_by_themselves_unless_the_day_was_named() {
        let (old, slices) = reread(SliceKind::All, 100, 101);
        for (why, expected) in [
            (Why::Lookback, Decision::Unchanged),
            (Why::Provisional, Decision::Unchanged),
            (Why::Named, Decision::Publish { revision: 3 }),
        ] {
            let decision = decide(Some(&old), 2, &slices, Final, why, STRICT).expect("a decision");
            assert_eq!(decision, expected, "{why:?}");
        }
        let old = Manifest { state: Provisional, ..old };
        // What becomes final under its revision must say what is there: else older rows would seem to be newer ones.
        let decision = decide(Some(&old), 2, &slices, Final, Why::Provisional, STRICT).expect("a decision");
        assert_eq!(decision, Decision::Publish { revision: 3 });
    }

    #[test]
    fn a_whole_reference_table_with_other_columns_makes_a_revision() {
        let (old, mut slices) = reread(SliceKind::All, 100, 100);
        slices[0].columns[0].type_name = "int8".into();
        assert_eq!(decided(&old, &slices, STRICT).expect("other columns"), Decision::Publish { revision: 3 });
    }
}
