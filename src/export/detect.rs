//! Which slices of a published day must be read to know whether they changed. Pure.

use super::facts::{Evidence, Look};
use super::plan::{self, Why};
use super::settle::Standing;
use crate::config::Detect;
use crate::manifest::{Manifest, Slice, SliceKind, State, Taken};

/// The server tells which of two transactions came first as long as fewer than twice as many lie between them.
const TRANSACTIONS_TOLD_APART: u64 = 1 << 30;

/// What a look at a table of a published day came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The published slice has its rows.
    Same,
    /// It may have other rows, and makes no new revision by itself.
    Passive,
    /// It may have other rows.
    Changed,
}

/// Is the day looked at before it is read? One that was asked for by name is always read.
pub fn is_looked_at(published: Option<&Manifest>, why: Why, force: plan::Force) -> bool {
    published.is_some() && why != Why::Named && force == plan::Force::No
}

/// What tells the rows of a published slice from those of today.
pub fn evidence(published: &Manifest, slice: &Slice) -> Evidence {
    let has_versions = slice.detect.as_ref().is_some_and(|detected| detected.versions.is_some());
    match published.taken_of(slice).oldest_running() {
        Some(oldest) if !has_versions && rows_decide_alone(slice) => Evidence::WrittenSince(oldest),
        _ => Evidence::Versions,
    }
}

/// Is a row in the slice because of its own values alone?
fn rows_decide_alone(slice: &Slice) -> bool {
    slice.kind == SliceKind::Time && !slice.filtered
}

/// Which of the tables are read, by their verdicts: none where nothing changed that makes a revision. `dropped` are
/// published slices of tables that left the dataset.
pub fn to_read(verdicts: &[Verdict], dropped: usize) -> Vec<usize> {
    if dropped == 0 && !verdicts.contains(&Verdict::Changed) {
        return Vec::new();
    }
    let other = |(index, verdict): (usize, &Verdict)| (*verdict != Verdict::Same).then_some(index);
    verdicts.iter().enumerate().filter_map(other).collect()
}

/// What `look`, at a slice that its table describes as `slice`, in the snapshot `taken`, says about the published day.
pub fn verdict(
    published: &Manifest,
    slice: &Slice,
    (way, look): (Detect, &Look),
    taken: &Taken,
    (why, standing): (Why, Standing),
) -> Verdict {
    let of_the_table = |old: &&Slice| old.schema == slice.schema && old.table == slice.table;
    let Some(old) = published.slices.iter().find(of_the_table) else { return Verdict::Changed };
    let described_alike =
        slice.still_writes_as(old) && slice.format == old.format && plan::same_description(slice, old);
    let unexamined = way == Detect::Off && why == Why::Lookback;
    let settles = published.state == State::Provisional && standing.may_be_final();
    // A count alone makes no day final.
    let way = if settles && way == Detect::Count { Detect::Digest } else { way };
    if described_alike && (unexamined || has_same_rows(way, look, taken, old, published.taken_of(old))) {
        // Other tables' rows may point to rows that were not looked at closely.
        let unsure = slice.kind == SliceKind::Referenced && way != Detect::Rows;
        return if unsure { Verdict::Passive } else { Verdict::Same };
    }
    if !settles && plan::is_passive(slice, old, why) { Verdict::Passive } else { Verdict::Changed }
}

/// Does the source show the rows that were published, by what can be told without reading them?
fn has_same_rows(way: Detect, look: &Look, taken: &Taken, old: &Slice, then: &Taken) -> bool {
    // A server that was promoted, or that lost its last commits in a crash, numbers other transactions alike.
    let comparable = taken.system_identifier == then.system_identifier
        && taken.timeline == then.timeline
        && !taken.saw_less_than(then);
    let (Some(now), Some(published)) = (&look.detected, &old.detect) else { return false };
    let counted = comparable && now.statement == published.statement && now.rows == published.rows;
    counted
        && match way {
            Detect::Rows if published.versions.is_some() => now.versions == published.versions,
            // What is there now and was written by then was there then; and it is as much.
            Detect::Rows => rows_decide_alone(old) && look.written_since == Some(0) && are_told_apart(taken, then),
            Detect::Count => true,
            Detect::Digest | Detect::Off => false,
        }
}

fn are_told_apart(now: &Taken, then: &Taken) -> bool {
    let (now, then) = (now.next_transaction(), then.oldest_running());
    now.zip(then).is_some_and(|(now, then)| now.saturating_sub(then) < TRANSACTIONS_TOLD_APART)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Detected;
    use crate::retention::fixtures::{self, day};

    /// What is changed between the published slice and the look at it.
    type Change<'a> = &'a dyn Fn(&mut Manifest, &mut Slice, &mut Look, &mut Taken);

    fn detected() -> Detected {
        Detected { rows: 10, statement: "s".into(), versions: Some("-17".into()) }
    }

    /// A published day whose first table is looked at, after a change, for a reason.
    fn judged(way: Detect, why: Why, change: Change<'_>) -> Verdict {
        let mut published = fixtures::manifest(day("2024-05-01"), 1, State::Final, "00000001", [None; 3]).1;
        for slice in &mut published.slices {
            slice.kind = SliceKind::Referenced;
            slice.detect = Some(detected());
        }
        let mut slice = published.slices[0].clone();
        let mut look = Look { detected: Some(detected()), ..Look::default() };
        let mut taken = published.taken.clone();
        change(&mut published, &mut slice, &mut look, &mut taken);
        verdict(&published, &slice, (way, &look), &taken, (why, Standing::Provisional))
    }

    /// Makes the first table one that nothing points to.
    fn of_time(published: &mut Manifest, slice: &mut Slice) {
        (published.slices[0].kind, slice.kind) = (SliceKind::Time, SliceKind::Time);
    }

    fn versions(look: &mut Look, versions: Option<&str>) {
        look.detected = look.detected.take().map(|seen| Detected { versions: versions.map(str::to_owned), ..seen });
    }

    #[test]
    fn equal_rows_and_versions_are_not_read_and_whatever_differs_is() {
        let unchanged: Change<'_> = &|_, _, _, _| {};
        assert_eq!(judged(Detect::Rows, Why::Lookback, unchanged), Verdict::Same);
        let changes: [(&str, Change<'_>); 13] = [
            ("rows", &|_, _, look, _| look.detected = Some(Detected { rows: 11, ..detected() })),
            ("versions", &|_, _, look, _| versions(look, Some("-18"))),
            ("no versions", &|_, _, look, _| versions(look, None)),
            ("neither", &|published, _, look, _| {
                versions(look, None);
                published.slices[0].detect = Some(Detected { versions: None, ..detected() });
            }),
            ("statement", &|_, _, look, _| look.detected = Some(Detected { statement: "t".into(), ..detected() })),
            ("not looked at", &|_, _, look, _| look.detected = None),
            ("an older manifest", &|published, _, _, _| published.slices[0].detect = None),
            ("another system", &|_, _, _, taken| taken.system_identifier = "8".into()),
            ("a promoted server", &|_, _, _, taken| taken.timeline = 2),
            ("a log that went back", &|published, _, _, _| published.taken.lsn = "0/2".into()),
            ("columns", &|_, slice, _, _| slice.columns[0].nullable = true),
            ("key", &|_, slice, _, _| slice.key.clear()),
            ("a new table", &|_, slice, _, _| slice.table = "joined".into()),
        ];
        for (name, change) in changes {
            assert_eq!(judged(Detect::Rows, Why::Lookback, change), Verdict::Changed, "{name}");
            assert_eq!(judged(Detect::Rows, Why::Provisional, change), Verdict::Changed, "{name}");
        }
    }

    #[test]
    fn where_no_versions_were_asked_a_row_that_was_written_since_is_found_and_else_the_count() {
        let unasked = Detected { versions: None, ..detected() };
        let seen = |change: Change<'_>| {
            judged(Detect::Rows, Why::Lookback, &|published, slice, look, taken| {
                of_time(published, slice);
                published.slices[0].detect = Some(unasked.clone());
                *look = Look { detected: Some(unasked.clone()), written_since: Some(0), ..Look::default() };
                change(published, slice, look, taken);
            })
        };
        assert_eq!(seen(&|_, _, _, _| {}), Verdict::Same);
        let changes: [(&str, Change<'_>); 8] = [
            ("a row was written", &|_, _, look, _| look.written_since = Some(1)),
            ("it was not asked", &|_, _, look, _| look.written_since = None),
            ("a row is gone", &|_, _, look, _| look.detected = Some(Detected { rows: 9, ..unasked.clone() })),
            ("another table", &|_, _, look, _| {
                look.detected = Some(Detected { statement: "t".into(), ..unasked.clone() })
            }),
            ("a promoted server", &|_, _, _, taken| taken.timeline = 2),
            ("transactions since without number", &|_, _, _, taken| taken.snapshot = "5:1073742900:5".into()),
            ("other rows decide", &|published, slice, _, _| {
                (published.slices[0].kind, slice.kind) = (SliceKind::Referenced, SliceKind::Referenced);
            }),
            ("a condition decides", &|published, slice, _, _| {
                (published.slices[0].filtered, slice.filtered) = (true, true);
            }),
        ];
        for (name, change) in changes {
            assert_eq!(seen(change), Verdict::Changed, "{name}");
        }
    }

    #[test]
    fn versions_are_compared_where_they_were_asked_or_where_other_rows_decide() {
        let mut published = fixtures::manifest(day("2024-05-01"), 1, State::Final, "00000001", [None; 3]).1;
        published.taken.snapshot = "700:710:701".into();
        let slice = |kind, versions: Option<&str>, filtered| Slice {
            kind,
            filtered,
            detect: Some(Detected { versions: versions.map(str::to_owned), ..detected() }),
            ..published.slices[0].clone()
        };
        let evidence_of = |slice: Slice| evidence(&published, &slice);
        assert_eq!(evidence_of(slice(SliceKind::Time, None, false)), Evidence::WrittenSince(700));
        assert_eq!(evidence_of(slice(SliceKind::Time, Some("-17"), false)), Evidence::Versions);
        assert_eq!(evidence_of(slice(SliceKind::Time, None, true)), Evidence::Versions);
        assert_eq!(evidence_of(slice(SliceKind::Referenced, None, false)), Evidence::Versions);
        let carried = Taken { snapshot: "600:600:".into(), ..published.taken.clone() };
        let carried = Slice { taken: Some(carried), ..slice(SliceKind::Time, None, false) };
        assert_eq!(evidence_of(carried), Evidence::WrittenSince(600));
    }

    #[test]
    fn a_carried_slice_is_compared_with_the_snapshot_that_it_was_read_in() {
        let carried_from_elsewhere: Change<'_> = &|published, _, _, _| {
            let elsewhere = Taken { system_identifier: "8".into(), ..published.taken.clone() };
            published.slices[0].taken = Some(elsewhere);
        };
        assert_eq!(judged(Detect::Rows, Why::Lookback, carried_from_elsewhere), Verdict::Changed);
    }

    #[test]
    fn a_count_sees_other_counts_only_and_digest_takes_nothing_for_equal() {
        let updated: Change<'_> = &|published, slice, look, _| {
            of_time(published, slice);
            versions(look, Some("-18"));
        };
        let inserted: Change<'_> = &|_, _, look, _| look.detected = Some(Detected { rows: 11, ..detected() });
        assert_eq!(judged(Detect::Count, Why::Lookback, updated), Verdict::Same);
        assert_eq!(judged(Detect::Count, Why::Lookback, inserted), Verdict::Changed);
        assert_eq!(judged(Detect::Digest, Why::Lookback, &|_, _, _, _| {}), Verdict::Changed);
    }

    #[test]
    fn what_is_pointed_to_is_read_with_others_unless_its_rows_were_looked_at() {
        let unchanged: Change<'_> = &|_, _, _, _| {};
        assert_eq!(judged(Detect::Rows, Why::Lookback, unchanged), Verdict::Same);
        assert_eq!(judged(Detect::Count, Why::Lookback, unchanged), Verdict::Passive);
        assert_eq!(judged(Detect::Off, Why::Lookback, unchanged), Verdict::Passive);
        assert_eq!(to_read(&[Verdict::Changed, Verdict::Passive, Verdict::Same], 0), [0, 1]);
        assert!(to_read(&[Verdict::Same, Verdict::Passive], 0).is_empty());
    }

    #[test]
    fn no_day_becomes_final_by_a_count() {
        let mut published = fixtures::manifest(day("2024-05-01"), 1, State::Provisional, "00000001", [None; 3]).1;
        published.slices.iter_mut().for_each(|slice| slice.detect = Some(detected()));
        let mut slice = published.slices[0].clone();
        of_time(&mut published, &mut slice);
        let look = Look { detected: Some(detected()), ..Look::default() };
        let says = |way, standing| {
            verdict(&published, &slice, (way, &look), &published.taken.clone(), (Why::Provisional, standing))
        };
        for standing in [Standing::Final, Standing::FinalIfEqual] {
            assert_eq!(says(Detect::Count, standing), Verdict::Changed);
            assert_eq!(says(Detect::Rows, standing), Verdict::Same);
        }
        assert_eq!(says(Detect::Count, Standing::Provisional), Verdict::Same);
    }

    #[test]
    fn what_is_off_is_not_examined_again_unless_the_day_is_provisional_or_the_table_is_described_otherwise() {
        let unseen: Change<'_> = &|published, slice, look, _| {
            of_time(published, slice);
            look.detected = None;
        };
        assert_eq!(judged(Detect::Off, Why::Lookback, unseen), Verdict::Same);
        assert_eq!(judged(Detect::Off, Why::Provisional, unseen), Verdict::Changed);
        assert_eq!(judged(Detect::Off, Why::Lookback, &|_, slice, _, _| slice.filtered = true), Verdict::Changed);
    }

    #[test]
    fn whole_tables_are_read_only_with_others_or_where_the_day_settles() {
        let whole = |state, standing| {
            let mut published = fixtures::manifest(day("2024-05-01"), 1, state, "00000001", [None; 3]).1;
            published.slices[0].detect = Some(detected());
            let slice = published.slices[0].clone();
            verdict(
                &published,
                &slice,
                (Detect::Rows, &Look::default()),
                &published.taken.clone(),
                (Why::Lookback, standing),
            )
        };
        assert_eq!(whole(State::Final, Standing::Final), Verdict::Passive);
        assert_eq!(whole(State::Provisional, Standing::Provisional), Verdict::Passive);
        assert_eq!(whole(State::Provisional, Standing::FirstCount), Verdict::Passive);
        assert_eq!(whole(State::Provisional, Standing::Final), Verdict::Changed);
        assert_eq!(whole(State::Provisional, Standing::FinalIfEqual), Verdict::Changed);

        use Verdict::{Changed, Passive, Same};
        assert!(to_read(&[Same, Passive, Same], 0).is_empty());
        assert_eq!(to_read(&[Same, Passive, Changed], 0), [1, 2]);
        assert_eq!(to_read(&[Same, Passive], 1), [1], "a table left the dataset");
    }

    #[test]
    fn a_named_day_and_a_new_one_are_read_at_once() {
        let published = fixtures::manifest(day("2024-05-01"), 1, State::Final, "00000001", [None; 3]).1;
        let looked_at = |published, why| is_looked_at(published, why, plan::Force::No);
        assert!(looked_at(Some(&published), Why::Lookback) && looked_at(Some(&published), Why::Provisional));
        assert!(!looked_at(Some(&published), Why::Named) && !looked_at(None, Why::Missing));
        assert!(!is_looked_at(Some(&published), Why::Lookback, plan::Force::Yes));
    }
}
