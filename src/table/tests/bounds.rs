//! Where a day begins and ends in the values of a time column, and that no text of a manifest widens it.

use super::*;

const KINDS: [TimeKind; 6] = [
    TimeKind::Timestamptz,
    TimeKind::Timestamp,
    TimeKind::Date,
    TimeKind::EpochSeconds,
    TimeKind::EpochMilliseconds,
    TimeKind::EpochMicroseconds,
];

fn zone(name: &str) -> Zone {
    name.parse().expect("a zone")
}

fn of(kind: TimeKind, column_zone: Option<&str>, dataset: &str, text: &str) -> (String, String) {
    let (dataset, day) = (zone(dataset), day(text));
    let bounds = TimeBounds::of("at", kind, column_zone.map(zone), dataset, day, dataset.window(day));
    (bounds.from, bounds.to)
}

fn pair(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

#[test]
fn each_kind_is_bounded_by_its_own_values() {
    let paris = "Europe/Paris";
    for (kind, expected) in [
        (TimeKind::Timestamptz, pair("2024-03-30 23:00:00+00", "2024-03-31 22:00:00+00")),
        (TimeKind::Timestamp, pair("2024-03-31 00:00:00", "2024-04-01 00:00:00")),
        (TimeKind::Date, pair("2024-03-31", "2024-04-01")),
        (TimeKind::EpochSeconds, pair("1711839600", "1711922400")),
        (TimeKind::EpochMilliseconds, pair("1711839600000", "1711922400000")),
        (TimeKind::EpochMicroseconds, pair("1711839600000000", "1711922400000000")),
    ] {
        assert_eq!(of(kind, None, paris, "2024-03-31"), expected, "{kind:?}");
    }
    assert_eq!(of(TimeKind::EpochSeconds, None, "UTC", "1969-12-31"), pair("-86400", "0"));
}

#[test]
fn a_timestamp_in_another_zone_is_bounded_by_that_zones_clocks() {
    let of = |column: &str, text: &str| of(TimeKind::Timestamp, Some(column), "Europe/Paris", text);
    assert_eq!(of("UTC", "2024-03-31"), pair("2024-03-30 23:00:00", "2024-03-31 22:00:00"));
    assert_eq!(of("Asia/Kolkata", "2024-05-01"), pair("2024-05-01 03:30:00", "2024-05-02 03:30:00"));
}

#[test]
fn a_timestamp_in_the_datasets_zone_is_bounded_by_midnights_also_where_clocks_show_none_or_two() {
    let own = |name: &str, text: &str| of(TimeKind::Timestamp, Some(name), name, text);
    assert_eq!(own("Africa/Cairo", "2024-04-26"), pair("2024-04-26 00:00:00", "2024-04-27 00:00:00"));
    assert_eq!(own("America/Havana", "2024-11-03"), pair("2024-11-03 00:00:00", "2024-11-04 00:00:00"));
}

#[test]
fn a_predicate_compares_the_column_itself_so_that_an_index_serves_it() {
    let window = Zone::UTC.window(day("2024-05-01"));
    let bounds = TimeBounds::of("o\"clock", TimeKind::EpochSeconds, None, Zone::UTC, day("2024-05-01"), window);
    assert_eq!(
        bounds.predicate_of("present"),
        "present.\"o\"\"clock\" >= '1714521600'::pg_catalog.int8 \
         and present.\"o\"\"clock\" < '1714608000'::pg_catalog.int8"
    );
    assert_eq!(bounds.before(""), "\"o\"\"clock\" < '1714521600'::pg_catalog.int8");
    assert_eq!(bounds.predicate(), bounds.predicate_of("present").replace("present.", ""));
}

#[test]
fn a_bound_that_tries_to_end_its_literal_stays_a_literal() {
    let bounds = TimeBounds {
        column: "at".into(),
        kind: TimeKind::Timestamptz,
        zone: None,
        from: "'; drop table users; --".into(),
        to: "\\'; drop table users; --".into(),
    };
    assert_eq!(
        bounds.predicate(),
        "\"at\" >= '''; drop table users; --'::pg_catalog.timestamptz \
         and \"at\" < E'\\\\''; drop table users; --'::pg_catalog.timestamptz"
    );
}

#[test]
fn hostile_bounds_do_not_fit() {
    let (of_day, window) = (day("2024-05-01"), Zone::UTC.window(day("2024-05-01")));
    for kind in KINDS {
        let zone = (kind == TimeKind::Timestamp).then_some(Zone::UTC);
        let honest = TimeBounds::of("at", kind, zone, Zone::UTC, of_day, window);
        assert!(honest.fit(of_day, window), "{kind:?}");
        let earlier =
            TimeBounds::of("at", kind, zone, Zone::UTC, of_day.previous(), Zone::UTC.window(of_day.previous()));
        let later = TimeBounds::of("at", kind, zone, Zone::UTC, of_day.next(), Zone::UTC.window(of_day.next()));
        let texts = [
            "",
            "infinity",
            "-infinity",
            "now",
            "epoch",
            "today",
            "0",
            "-9223372036854775808",
            "9223372036854775807",
            "99999999999999999999",
            "2024-05-01 00:00:00 BC",
            "2024-05-01 00:00:00+24",
            "0001-01-01",
            "9999-12-31 00:00:00",
            "' or true --",
            "2024-05-01' or true --",
            &earlier.from,
            &later.to,
            &format!(" {}", honest.from),
            &format!("{} ", honest.to),
            &format!("+{}", honest.from),
        ];
        for text in texts {
            let from = TimeBounds { from: text.to_owned(), ..honest.clone() };
            assert!(!from.fit(of_day, window), "{kind:?} from {text:?}");
            let to = TimeBounds { to: text.to_owned(), ..honest.clone() };
            assert!(!to.fit(of_day, window), "{kind:?} to {text:?}");
        }
        assert!(!earlier.fit(of_day, window) && !later.fit(of_day, window), "{kind:?}");
        assert!(!honest.fit(of_day.next(), Zone::UTC.window(of_day.next())), "{kind:?}");
        let swapped = TimeBounds { from: honest.to.clone(), to: honest.from.clone(), ..honest.clone() };
        assert!(!swapped.fit(of_day, window), "{kind:?}");
    }
}

#[test]
fn texts_that_postgresql_and_a_lenient_reader_could_read_differently_do_not_fit() {
    let (of_day, window) = (day("2024-05-01"), Zone::UTC.window(day("2024-05-01")));
    for (kind, text) in [
        (TimeKind::Timestamp, "2024-5-1 0:0:0"),
        (TimeKind::Timestamp, "2024-05-0100:00:00"),
        (TimeKind::Timestamp, "2024-05-01\n00:00:00"),
        (TimeKind::Timestamptz, "2024-05-01 00:00:00"),
        (TimeKind::Timestamptz, "2024-05-01 02:00:00+02"),
        (TimeKind::Date, "2024-5-1"),
        (TimeKind::EpochSeconds, "01714521600"),
    ] {
        let honest = TimeBounds::of("at", kind, None, Zone::UTC, of_day, window);
        assert!(!TimeBounds { from: text.into(), ..honest }.fit(of_day, window), "{text:?}");
    }
}

fn any_zone() -> impl Strategy<Value = Zone> {
    proptest::sample::select(vec![
        "UTC",
        "Europe/Paris",
        "Africa/Cairo",
        "America/Havana",
        "America/Santiago",
        "Asia/Beirut",
        "Asia/Kolkata",
        "Pacific/Apia",
        "Pacific/Chatham",
        "Pacific/Kiritimati",
        "Etc/GMT+12",
    ])
    .prop_map(zone)
}

proptest! {
    #[test]
    fn bounds_of_neighbours_abut_and_fit_their_own_day_only(
        dataset in any_zone(),
        column_zone in proptest::option::of(any_zone()),
        kind in proptest::sample::select(KINDS.to_vec()),
        offset in 0..40_000_u64,
    ) {
        let column_zone = column_zone.filter(|_| kind == TimeKind::Timestamp);
        let day = Day::EPOCH.plus(offset);
        let of = |day: Day| TimeBounds::of("at", kind, column_zone, dataset, day, dataset.window(day));
        let (own, next) = (of(day), of(day.next()));
        prop_assert_eq!(&own.to, &next.from);
        prop_assert!(own.fit(day, dataset.window(day)), "{:?}", own);
        if kind != TimeKind::Timestamp {
            let far = day.plus(2);
            prop_assert!(!own.fit(far, dataset.window(far)), "{:?}", own);
        }
    }

    #[test]
    fn no_text_makes_a_predicate_with_more_than_one_literal_per_bound(from in ".*", to in ".*", column in ".*") {
        let bounds = TimeBounds { column, kind: TimeKind::Date, zone: None, from, to };
        let mut rest = bounds.predicate();
        for quoted in [quote_identifier(&bounds.column), quote_literal(&bounds.from), quote_literal(&bounds.to)] {
            let place = rest.find(&quoted);
            prop_assert!(place.is_some(), "{} in {}", quoted, rest);
            rest = rest[place.unwrap_or_default() + quoted.len()..].to_owned();
        }
        let window = Zone::UTC.window(day("2024-05-01"));
        let honest = bounds.from == "2024-05-01" && bounds.to == "2024-05-02";
        prop_assert_eq!(bounds.fit(day("2024-05-01"), window), honest);
    }
}

#[test]
fn the_window_of_a_hostile_manifest_far_from_any_clock_does_not_panic() {
    let far = Window { start: chrono::DateTime::<Utc>::MIN_UTC, end: chrono::DateTime::<Utc>::MAX_UTC };
    for kind in KINDS {
        let honest =
            TimeBounds::of("at", kind, None, Zone::UTC, day("2024-05-01"), Zone::UTC.window(day("2024-05-01")));
        assert!(kind == TimeKind::Date || !honest.fit(day("2024-05-01"), far), "{kind:?}");
    }
    assert!(!is_wall_clock(midnight(day("2024-05-01")), instant("2024-05-03T00:00:00Z")));
}
