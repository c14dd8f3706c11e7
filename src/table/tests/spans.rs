//! Bounds cut into shorter ones.

use crate::day::Zone;
use crate::manifest::{TimeBounds, TimeKind};

fn bounds(kind: TimeKind, zone: &str, day: &str) -> TimeBounds {
    let dataset: Zone = zone.parse().expect("a zone");
    let day = day.parse().expect("a day");
    TimeBounds::of("at", kind, (kind == TimeKind::Timestamp).then_some(dataset), dataset, day, dataset.window(day))
}

const KINDS: [TimeKind; 5] = [
    TimeKind::Timestamptz,
    TimeKind::Timestamp,
    TimeKind::EpochSeconds,
    TimeKind::EpochMilliseconds,
    TimeKind::EpochMicroseconds,
];

#[test]
fn spans_follow_each_other_from_end_to_end_and_differ_by_their_bounds_only() {
    for kind in KINDS {
        // 24, 23 and 25 hours.
        for day in ["2024-05-01", "2024-03-31", "2024-10-27"] {
            let whole = bounds(kind, "Europe/Berlin", day);
            for count in [1, 2, 3, 7, 16, 1_000] {
                let spans = whole.cut(count);
                assert_eq!(spans.len(), usize::try_from(count).expect("small"), "{kind:?} {day}");
                assert_eq!((&spans[0].from, &spans[spans.len() - 1].to), (&whole.from, &whole.to));
                assert!(spans.windows(2).all(|pair| pair[0].to == pair[1].from));
                let is_ascending = |span: &TimeBounds| match kind {
                    TimeKind::Timestamptz | TimeKind::Timestamp => span.from < span.to,
                    _ => span.from.parse::<i64>().expect("a number") < span.to.parse().expect("a number"),
                };
                assert!(spans.iter().all(is_ascending), "{kind:?} {day} {count}");
                let described =
                    |span: &TimeBounds| TimeBounds { from: String::new(), to: String::new(), ..span.clone() };
                assert!(spans.iter().all(|span| described(span) == described(&whole)));
            }
        }
    }
}

#[test]
fn spans_are_of_the_same_length() {
    let spans = bounds(TimeKind::Timestamptz, "UTC", "2024-05-01").cut(4);
    let froms: Vec<&str> = spans.iter().map(|span| span.from.as_str()).collect();
    assert_eq!(
        froms,
        ["2024-05-01 00:00:00+00", "2024-05-01 06:00:00+00", "2024-05-01 12:00:00+00", "2024-05-01 18:00:00+00"]
    );
}

#[test]
fn what_has_no_inner_bounds_stays_whole() {
    let date = bounds(TimeKind::Date, "UTC", "2024-05-01");
    assert_eq!(date.cut(4), std::slice::from_ref(&date));
    let strange = TimeBounds { from: "yesterday".into(), ..bounds(TimeKind::Timestamptz, "UTC", "2024-05-01") };
    assert_eq!(strange.cut(4), std::slice::from_ref(&strange));
    let short = TimeBounds { from: "0".into(), to: "3".into(), ..bounds(TimeKind::EpochSeconds, "UTC", "2024-05-01") };
    assert_eq!(short.cut(8).len(), 3);
}
