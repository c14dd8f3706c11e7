use proptest::prelude::*;

use super::super::ledger::Entry;
use super::*;
use crate::codec::RowsDigest;
use crate::manifest::SliceFormat;
use crate::manifest::State::Final;
use crate::retention::fixtures::{day, feed_of, instant};

/// The oid of each table on the replica.
const OID: u32 = 5;

fn accepted() -> Accepted {
    ["messages", "users", "packages"].map(|name| (format!("public.{name}"), OID)).into()
}

fn taken(system: &str, number: u64, minute: u32) -> Taken {
    Taken {
        exported_at: instant("2024-05-02T00:00:00Z") + TimeDelta::minutes(i64::from(minute)),
        snapshot: format!("{number}:{number}:"),
        lsn: "0/1".into(),
        system_identifier: system.into(),
        timeline: 1,
    }
}

fn hold(ledger: &mut Ledger, entry: &DayEntry) {
    for table in entry.tables.keys() {
        let held = Entry {
            revision: entry.revision,
            manifest_sha256: entry.manifest.sha256.clone(),
            rows_digest: RowsDigest::default(),
            format: SliceFormat::Text,
            columns: String::new(),
            time_column: String::new(),
            rows: 10,
            taken: taken("7", 1, 0),
            table_oid: OID,
            keeps_extra_rows: false,
        };
        ledger.insert((entry.day, table.clone()), held);
    }
}

fn feed(days: &[&str]) -> Feed {
    feed_of(&days.iter().map(|day| (*day, Final)).collect::<Vec<_>>())
}

fn holding(feed: &Feed, days: &[&str]) -> Ledger {
    let mut ledger = Ledger::new();
    for text in days {
        hold(&mut ledger, feed.day(day(text)).expect("a published day"));
    }
    ledger
}

const ALL: Request = Request { from: None, to: None, gaps: Gaps::Stop };
const FIVE: [&str; 5] = ["2024-05-01", "2024-05-02", "2024-05-03", "2024-05-04", "2024-05-05"];
/// Five days of which the third is missing.
const FOUR: [&str; 4] = ["2024-05-01", "2024-05-02", "2024-05-04", "2024-05-05"];

fn found<'a>(feed: &'a Feed, ledger: &Ledger, request: Request) -> Pending<'a> {
    pending(feed, ledger, &accepted(), request).unwrap_or_else(|failure| panic!("{failure}"))
}

fn days(pending: &Pending<'_>) -> Vec<String> {
    pending.days.iter().map(|entry| entry.day.to_string()).collect()
}

mod which_days {
    use super::*;

    #[test]
    fn days_that_are_held_are_not_pending_and_all_others_are() {
        let feed = feed(&FIVE);
        assert_eq!(days(&found(&feed, &Ledger::new(), ALL)), FIVE);
        let rest = found(&feed, &holding(&feed, &["2024-05-02", "2024-05-05"]), ALL);
        assert_eq!(days(&rest), ["2024-05-01", "2024-05-03", "2024-05-04"]);
        assert_eq!((rest.waiting, rest.hole, rest.beyond_newest), (0, None, None));
        assert!(days(&found(&feed, &holding(&feed, &FIVE), ALL)).is_empty());
    }

    #[test]
    fn a_table_that_was_restored_or_made_anew_is_pending_again() {
        let feed = feed(&FIVE);
        let mut ledger = holding(&feed, &FIVE);
        ledger.get_mut(&(day("2024-05-03"), "public.users".into())).expect("held").table_oid = OID + 1;
        assert_eq!(days(&found(&feed, &ledger, ALL)), ["2024-05-03"]);
    }

    #[test]
    fn another_revision_and_a_table_that_was_added_are_pending() {
        let feed = feed(&FIVE);
        let mut ledger = holding(&feed, &FIVE);
        ledger.get_mut(&(day("2024-05-02"), "public.users".into())).expect("held").manifest_sha256 = "older".into();
        ledger.remove(&(day("2024-05-04"), "public.packages".into()));
        assert_eq!(days(&found(&feed, &ledger, ALL)), ["2024-05-02", "2024-05-04"]);
    }

    #[test]
    fn tables_that_the_replica_does_not_accept_make_nothing_pending() {
        let feed = feed(&FIVE);
        let mut ledger = holding(&feed, &FIVE);
        ledger.retain(|(_, table), _| table == "public.users");
        let only_users: Accepted = [("public.users".to_owned(), OID)].into();
        assert!(pending(&feed, &ledger, &only_users, ALL).expect("pending").days.is_empty());
    }

    #[test]
    fn from_and_to_are_both_included() {
        let feed = feed(&FIVE);
        let request = Request { from: Some(day("2024-05-02")), to: Some(day("2024-05-04")), gaps: Gaps::Stop };
        assert_eq!(days(&found(&feed, &Ledger::new(), request)), ["2024-05-02", "2024-05-03", "2024-05-04"]);
    }

    #[test]
    fn a_day_after_the_newest_is_named_only_if_it_was_asked_for() {
        let feed = feed(&FIVE);
        let to = |text: &str| Request { to: Some(day(text)), ..ALL };
        assert_eq!(found(&feed, &Ledger::new(), to("2024-05-05")).beyond_newest, None);
        let beyond = found(&feed, &Ledger::new(), to("2024-05-06"));
        assert_eq!((days(&beyond).len(), beyond.beyond_newest), (5, Some(day("2024-05-06"))));
        let from = Request { from: Some(day("2024-05-06")), ..ALL };
        let none = found(&feed, &Ledger::new(), from);
        assert_eq!((days(&none).len(), none.beyond_newest), (0, None));
    }

    #[test]
    fn an_empty_feed_has_nothing_and_says_so_if_a_day_was_asked_for() {
        let empty = feed(&[]);
        assert_eq!(found(&empty, &Ledger::new(), ALL).beyond_newest, None);
        let asked = Request { to: Some(day("2024-05-01")), ..ALL };
        assert_eq!(found(&empty, &Ledger::new(), asked).beyond_newest, Some(day("2024-05-01")));
    }

    #[test]
    fn from_before_the_oldest_day_is_refused_even_if_gaps_are_allowed() {
        let feed = feed(&FIVE);
        for gaps in [Gaps::Stop, Gaps::Allow] {
            let request = Request { from: Some(day("2024-04-30")), to: None, gaps };
            let refusal = pending(&feed, &Ledger::new(), &accepted(), request).expect_err("before the oldest");
            assert_eq!(refusal.class, Class::BehindRetention);
        }
    }
}

mod holes {
    use super::*;

    #[test]
    fn what_precedes_a_hole_is_pending_and_what_follows_waits() {
        let feed = feed(&FOUR);
        let pending = found(&feed, &Ledger::new(), ALL);
        assert_eq!(days(&pending), ["2024-05-01", "2024-05-02"]);
        assert_eq!((pending.waiting, pending.hole), (2, Some(day("2024-05-03"))));
    }

    #[test]
    fn a_hole_is_stepped_over_when_gaps_are_allowed() {
        let feed = feed(&FOUR);
        let pending = found(&feed, &Ledger::new(), Request { gaps: Gaps::Allow, ..ALL });
        assert_eq!((days(&pending).len(), pending.waiting, pending.hole), (4, 0, None));
    }

    #[test]
    fn a_hole_between_held_days_was_accepted_before() {
        let feed = feed(&FOUR);
        let accepted = found(&feed, &holding(&feed, &["2024-05-02", "2024-05-04"]), ALL);
        assert_eq!((days(&accepted), accepted.hole), (vec!["2024-05-01".to_owned(), "2024-05-05".to_owned()], None));
        // Whoever began behind the hole has not said that it may stay.
        let begun = found(&feed, &holding(&feed, &["2024-05-01", "2024-05-04"]), ALL);
        assert_eq!((days(&begun), begun.hole), (vec!["2024-05-02".to_owned()], Some(day("2024-05-03"))));
        let before = found(&feed, &holding(&feed, &["2024-05-02"]), ALL);
        assert_eq!((days(&before), before.hole), (vec!["2024-05-01".to_owned()], Some(day("2024-05-03"))));
    }

    #[test]
    fn what_was_held_in_a_table_that_is_gone_accepts_no_hole() {
        let feed = feed(&FOUR);
        let ledger = holding(&feed, &["2024-05-04"]);
        let anew: Accepted = accepted().into_keys().map(|name| (name, OID + 1)).collect();
        let pending = pending(&feed, &ledger, &anew, ALL).expect("pending");
        assert_eq!(
            (days(&pending), pending.hole),
            (vec!["2024-05-01".into(), "2024-05-02".into()], Some(day("2024-05-03")))
        );
    }

    #[test]
    fn holes_outside_what_was_asked_for_stop_nothing() {
        let feed = feed(&FOUR);
        let range = |from: Option<&str>, to: Option<&str>| Request { from: from.map(day), to: to.map(day), ..ALL };
        assert_eq!(found(&feed, &Ledger::new(), range(None, Some("2024-05-02"))).hole, None);
        assert_eq!(found(&feed, &Ledger::new(), range(Some("2024-05-04"), None)).hole, None);
        let into = found(&feed, &Ledger::new(), range(Some("2024-05-03"), None));
        assert_eq!((days(&into).len(), into.waiting, into.hole), (0, 2, Some(day("2024-05-03"))));
        let up_to = found(&feed, &Ledger::new(), range(None, Some("2024-05-03")));
        assert_eq!((days(&up_to).len(), up_to.waiting, up_to.hole), (2, 0, Some(day("2024-05-03"))));
    }
}

mod behind_retention {
    use super::*;

    /// A ledger of the days up to `text`, which the feed pruned since.
    fn held_up_to(text: &str) -> Ledger {
        let before = feed(&[text]);
        holding(&before, &[text])
    }

    #[test]
    fn days_pruned_between_what_is_held_and_the_oldest_are_refused() {
        let feed = feed(&FIVE);
        let refusal = pending(&feed, &held_up_to("2024-04-29"), &accepted(), ALL).expect_err("2024-04-30 is gone");
        assert_eq!(refusal.class, Class::BehindRetention);
        assert!(refusal.what.contains("holds days up to 2024-04-29"), "{refusal}");
        assert_eq!(days(&found(&feed, &held_up_to("2024-04-30"), ALL)), FIVE, "nothing lies between");
    }

    #[test]
    fn from_and_allow_gap_say_that_it_is_meant() {
        let feed = feed(&FIVE);
        let ledger = held_up_to("2024-04-01");
        let from = Request { from: Some(day("2024-05-01")), ..ALL };
        assert_eq!(days(&found(&feed, &ledger, from)), FIVE);
        assert_eq!(days(&found(&feed, &ledger, Request { gaps: Gaps::Allow, ..ALL })), FIVE);
    }

    #[test]
    fn a_replica_restored_from_a_newer_dump_is_not_behind_for_what_its_old_tables_held() {
        let feed = feed(&FIVE);
        let restored: Accepted = accepted().into_keys().map(|name| (name, OID + 1)).collect();
        let pending = pending(&feed, &held_up_to("2024-04-01"), &restored, ALL).expect("first contact again");
        assert_eq!(days(&pending), FIVE);
    }
}

#[test]
fn a_feed_is_stale_past_max_age_else_past_its_own_word() {
    let feed = feed(&FIVE);
    let head = HeadInBrief::of(&feed);
    let at = |hours| feed.published_at + TimeDelta::hours(hours);
    assert!(!is_stale(&head, Some(TimeDelta::hours(10)), at(10)));
    assert!(is_stale(&head, Some(TimeDelta::hours(10)), at(10) + TimeDelta::seconds(1)));
    assert!(!is_stale(&head, Some(TimeDelta::hours(100)), at(40)), "max-age takes the place of valid_until");
    assert!(!is_stale(&head, None, at(36)));
    assert!(is_stale(&head, None, at(36) + TimeDelta::seconds(1)));
    assert!(!is_stale(&head, Some(TimeDelta::zero()), at(-1)), "a clock behind the publisher's");
}

mod batching {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Read {
        number: usize,
        day: Day,
        taken: Taken,
        revises: bool,
    }

    impl Dated for Read {
        fn taken(&self) -> &Taken {
            &self.taken
        }

        fn is_revision(&self) -> bool {
            self.revises
        }

        fn day(&self) -> Day {
            self.day
        }
    }

    fn read(number: usize, day_of_may: u64, snapshot: u64, revises: bool) -> Read {
        let minute = u32::try_from(snapshot).expect("small");
        Read { number, day: day("2024-04-30").plus(day_of_may), taken: taken("7", snapshot, minute), revises }
    }

    fn numbers(batches: &[Vec<Read>]) -> Vec<Vec<usize>> {
        batches.iter().map(|batch| batch.iter().map(|read| read.number).collect()).collect()
    }

    #[test]
    fn new_days_are_a_transaction_each_in_the_order_of_their_snapshots() {
        let reads = vec![read(1, 1, 30, false), read(2, 2, 10, false), read(3, 3, 20, false)];
        assert_eq!(numbers(&batches(reads)), [[2], [3], [1]]);
    }

    #[test]
    fn equal_moments_are_ordered_by_day() {
        let reads = vec![read(1, 3, 10, false), read(2, 1, 10, false), read(3, 2, 10, false)];
        assert_eq!(numbers(&batches(reads)), [[2], [3], [1]]);
    }

    #[test]
    fn revised_days_go_together_with_what_was_read_between_them() {
        let reads = vec![
            read(1, 9, 10, false),
            read(2, 2, 20, true),
            read(3, 8, 30, false),
            read(4, 1, 40, true),
            read(5, 7, 50, false),
        ];
        assert_eq!(numbers(&batches(reads)), [vec![1], vec![2, 3, 4], vec![5]]);
    }

    #[test]
    fn a_single_revision_is_a_transaction_of_its_own() {
        let reads = vec![read(1, 1, 10, false), read(2, 2, 20, true), read(3, 3, 30, false)];
        assert_eq!(numbers(&batches(reads)), [[1], [2], [3]]);
        assert!(batches(Vec::<Read>::new()).is_empty());
    }

    #[test]
    fn clocks_that_contradict_the_snapshots_across_two_sources_do_not_end_in_a_panic() {
        let reads: Vec<Read> = (0..60_u32)
            .map(|index| {
                let minute = (index * 37) % 60;
                let number = u64::from(60 - minute);
                let taken = if index % 2 == 0 { taken("7", number, minute) } else { taken("8", 1, minute) };
                Read { number: 0, day: day("2024-05-01"), taken, revises: false }
            })
            .collect();
        assert_eq!(batches(reads).len(), 60);
    }

    prop_compose! {
        fn reads()(reads in proptest::collection::vec((1..30_u64, 0..12_u64, 0..3_u8, 0..12_u32, any::<bool>()), 0..40))
            -> Vec<Read>
        {
            reads
                .into_iter()
                .enumerate()
                .map(|(number, (day_of_may, snapshot, system, minute, revises))| Read {
                    taken: taken(&system.to_string(), snapshot, minute),
                    ..read(number, day_of_may, 0, revises)
                })
                .collect()
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_snapshots_keep_their_order_and_revisions_share_one_batch(reads in reads()) {
            let batches = batches(reads.clone());
            let flat: Vec<&Read> = batches.iter().flatten().collect();

            let mut numbers: Vec<usize> = flat.iter().map(|read| read.number).collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..reads.len()).collect::<Vec<_>>());

            for (index, earlier) in flat.iter().enumerate() {
                for later in &flat[index + 1..] {
                    let one_source = earlier.taken.system_identifier == later.taken.system_identifier;
                    prop_assert!(!one_source || earlier.taken.order(&later.taken).is_le());
                }
            }

            let with_revisions = batches.iter().filter(|batch| batch.iter().any(|read| read.revises)).count();
            prop_assert!(with_revisions <= 1);
            for batch in &batches {
                prop_assert!(!batch.is_empty());
                if batch.len() > 1 {
                    let ends = [batch.first(), batch.last()];
                    prop_assert!(ends.iter().flatten().all(|read| read.revises), "a batch ends in revisions");
                }
            }
        }
    }
}
