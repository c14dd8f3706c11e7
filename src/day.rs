//! Days, their windows and the zones that define them. Pure: no clock, no I/O.
//!
//! A day starts at PostgreSQL's `D 00:00 AT TIME ZONE zone`. Where that local time does not exist
//! (clocks sprang forward over it) PostgreSQL reads it with the offset in force before the change;
//! where it exists twice (clocks fell back over it) it takes the later one. Source of the rule:
//! `DetermineTimeZoneOffset` in PostgreSQL's `src/backend/utils/adt/datetime.c`.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, MappedLocalTime, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A calendar date in the dataset's zone, written `YYYY-MM-DD`, from year 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = r"^\d{4}-\d{2}-\d{2}$"))]
pub struct Day(NaiveDate);

/// A text that is not a day.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a date of the form 2024-05-01")]
pub struct NotADay(String);

impl Day {
    /// 1970-01-01: what days are counted from.
    pub const EPOCH: Day = match NaiveDate::from_ymd_opt(1970, 1, 1) {
        Some(date) => Day(date),
        None => panic!("a valid constant"),
    };

    /// The day of a calendar date.
    ///
    /// # Errors
    /// When the year is not between 1 and 9999.
    pub fn new(date: NaiveDate) -> Result<Self, NotADay> {
        if (1..=9999).contains(&date.year()) { Ok(Day(date)) } else { Err(NotADay(date.to_string())) }
    }

    /// The calendar date.
    pub fn date(self) -> NaiveDate {
        self.0
    }

    /// The day after this one; saturates at the last representable day.
    #[must_use]
    pub fn next(self) -> Day {
        self.plus(1)
    }

    /// The day before this one; saturates at the first representable day.
    #[must_use]
    pub fn previous(self) -> Day {
        self.minus(1)
    }

    /// `days` later, saturating.
    #[must_use]
    pub fn plus(self, days: u64) -> Day {
        self.0.checked_add_days(Days::new(days)).and_then(|date| Day::new(date).ok()).unwrap_or(Day(LAST))
    }

    /// `days` earlier, saturating.
    #[must_use]
    pub fn minus(self, days: u64) -> Day {
        self.0.checked_sub_days(Days::new(days)).and_then(|date| Day::new(date).ok()).unwrap_or(Day(FIRST))
    }

    /// Whole days from `earlier` to this day; negative when `earlier` is later.
    pub fn days_since(self, earlier: Day) -> i64 {
        self.0.signed_duration_since(earlier.0).num_days()
    }
}

const FIRST: NaiveDate = match NaiveDate::from_ymd_opt(1, 1, 1) {
    Some(date) => date,
    None => panic!("a valid constant"),
};
const LAST: NaiveDate = match NaiveDate::from_ymd_opt(9999, 12, 31) {
    Some(date) => date,
    None => panic!("a valid constant"),
};

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By hand: heads of many years are full of days.
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), self.0.month(), self.0.day())
    }
}

impl FromStr for Day {
    type Err = NotADay;

    fn from_str(text: &str) -> Result<Self, NotADay> {
        let refused = || NotADay(text.chars().take(40).collect());
        let shape = text.len() == 10
            && text.bytes().enumerate().all(|(i, byte)| match i {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        if !shape {
            return Err(refused());
        }
        let (Ok(year), Ok(month), Ok(day)) = (text[..4].parse(), text[5..7].parse(), text[8..].parse()) else {
            return Err(refused());
        };
        NaiveDate::from_ymd_opt(year, month, day).ok_or_else(refused).and_then(Day::new)
    }
}

impl TryFrom<String> for Day {
    type Error = NotADay;

    fn try_from(text: String) -> Result<Self, NotADay> {
        text.parse()
    }
}

impl From<Day> for String {
    fn from(day: Day) -> String {
        day.to_string()
    }
}

/// The half-open interval `[start, end)` of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Window {
    /// The first instant of the day.
    pub start: DateTime<Utc>,
    /// The first instant that no longer belongs to the day: the start of the next one.
    pub end: DateTime<Utc>,
}

/// An inclusive run of days, ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayRange {
    /// The first day.
    pub from: Day,
    /// The last day, itself included.
    pub to: Day,
}

impl DayRange {
    /// The days of the range; none when `to` is before `from`.
    pub fn days(self) -> impl Iterator<Item = Day> {
        let count = usize::try_from(self.to.days_since(self.from) + 1).unwrap_or(0);
        self.from.0.iter_days().take(count).map(Day)
    }
}

/// An IANA time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone(Tz);

impl Zone {
    /// Universal time.
    pub const UTC: Zone = Zone(Tz::UTC);

    /// The zone's IANA name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The window of `day` in this zone.
    pub fn window(self, day: Day) -> Window {
        Window { start: self.instant(midnight(day)), end: self.instant(midnight(day.next())) }
    }

    /// The day that `instant` falls on in this zone.
    pub fn day_of(self, instant: DateTime<Utc>) -> Day {
        let local = Day::new(instant.with_timezone(&self.0).date_naive()).unwrap_or(Day(FIRST));
        // Where midnight exists twice the day starts at the later one: until then it is still yesterday.
        if instant < self.window(local).start { local.previous() } else { local }
    }

    /// What a clock on the wall of this zone shows at `instant`.
    pub fn local(self, instant: DateTime<Utc>) -> NaiveDateTime {
        instant.with_timezone(&self.0).naive_local()
    }

    /// PostgreSQL's `local AT TIME ZONE zone`.
    fn instant(self, local: NaiveDateTime) -> DateTime<Utc> {
        match self.0.from_local_datetime(&local) {
            MappedLocalTime::Single(instant) => instant.to_utc(),
            MappedLocalTime::Ambiguous(_, later) => later.to_utc(),
            MappedLocalTime::None => {
                let before = (1..=4 * 26)
                    .filter_map(|quarter| {
                        self.0.from_local_datetime(&(local - TimeDelta::minutes(15 * quarter))).latest()
                    })
                    .next()
                    .map_or(0, |instant| instant.offset().fix().local_minus_utc());
                (local - TimeDelta::seconds(i64::from(before))).and_utc()
            }
        }
    }
}

/// A day's `00:00` without a zone.
pub fn midnight(day: Day) -> NaiveDateTime {
    day.0.and_time(chrono::NaiveTime::MIN)
}

/// Can some zone's clocks show `local` at `instant`? The furthest that any was from UTC was Manila, 15:56 behind.
pub fn is_wall_clock(local: NaiveDateTime, instant: DateTime<Utc>) -> bool {
    (local.and_utc() - instant).abs() <= TimeDelta::hours(16)
}

impl Window {
    /// Can it be the window of `day` in some zone? That of a date which a zone skipped altogether is empty.
    pub fn is_of(self, day: Day) -> bool {
        self.start <= self.end
            && is_wall_clock(midnight(day), self.start)
            && is_wall_clock(midnight(day.next()), self.end)
    }
}

/// Names of zones with summer time that PostgreSQL's `AT TIME ZONE` reads as abbreviations without: it looks among its
/// abbreviations first. Source: `timestamp_zone` in `src/backend/utils/adt/timestamp.c`, `src/timezone/tznames/Default`.
const ABBREVIATIONS: [(&str, &str); 4] =
    [("CET", "Europe/Brussels"), ("EET", "Europe/Athens"), ("MET", "Europe/Brussels"), ("WET", "Europe/Lisbon")];

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, place)) = ABBREVIATIONS.iter().find(|(name, _)| *name == text) {
            return Err(format!(
                "{text:?} is an abbreviation without summer time to PostgreSQL: name a place, {place:?}"
            ));
        }
        text.parse::<Tz>()
            .map(Zone)
            .map_err(|_| format!("{text:?} is not an IANA time zone such as \"UTC\" or \"Europe/Paris\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(zone: &str, day: &str) -> (String, String, i64) {
        let window = zone.parse::<Zone>().expect("a zone").window(day.parse().expect("a day"));
        let hours = (window.end - window.start).num_hours();
        (window.start.to_rfc3339(), window.end.to_rfc3339(), hours)
    }

    #[test]
    fn a_day_in_utc_has_24_hours() {
        assert_eq!(
            window("UTC", "2024-05-01"),
            ("2024-05-01T00:00:00+00:00".into(), "2024-05-02T00:00:00+00:00".into(), 24)
        );
    }

    #[test]
    fn clock_changes_make_days_of_23_and_25_hours() {
        assert_eq!(window("Europe/Paris", "2024-03-31").2, 23);
        assert_eq!(window("Europe/Paris", "2024-10-27").2, 25);
    }

    #[test]
    fn a_midnight_that_does_not_exist_is_read_with_the_offset_before_it() {
        // Cairo sprang forward at 00:00 on 2024-04-26: the day starts where the clock jumped.
        assert_eq!(window("Africa/Cairo", "2024-04-26").0, "2024-04-25T22:00:00+00:00");
        assert_eq!(window("Africa/Cairo", "2024-04-26").2, 23);
    }

    #[test]
    fn a_midnight_that_exists_twice_starts_the_day_the_second_time() {
        // Havana fell back from 01:00 to 00:00 on 2024-11-03.
        assert_eq!(window("America/Havana", "2024-11-03").0, "2024-11-03T05:00:00+00:00");
        assert_eq!(window("America/Havana", "2024-11-02").2, 25);
    }

    #[test]
    fn a_date_that_was_skipped_altogether_is_empty_of_local_time_but_still_abuts() {
        let zone: Zone = "Pacific/Apia".parse().expect("a zone");
        let skipped: Day = "2011-12-30".parse().expect("a day");
        assert_eq!(zone.window(skipped.previous()).end, zone.window(skipped).start);
        assert_eq!(zone.window(skipped).end, zone.window(skipped.next()).start);
    }

    #[test]
    fn the_windows_of_neighbours_abut_and_contain_their_own_instants() {
        for name in ["UTC", "Africa/Cairo", "America/Havana", "America/Santiago", "Asia/Beirut", "Pacific/Chatham"] {
            let zone: Zone = name.parse().expect("a zone");
            let range =
                DayRange { from: "2024-01-01".parse().expect("a day"), to: "2025-01-01".parse().expect("a day") };
            for day in range.days() {
                let window = zone.window(day);
                assert_eq!(window.end, zone.window(day.next()).start, "{name} {day}");
                assert_eq!(zone.day_of(window.start), day, "{name} {day}");
                assert_eq!(zone.day_of(window.end - TimeDelta::seconds(1)), day, "{name} {day}");
            }
        }
    }

    #[test]
    fn dates_that_are_not_dates_are_refused() {
        for text in ["", "2024-5-1", "2024-02-30", "20240501", "2024-05-01 ", "0000-01-01", "+2024-05-1", "yesterday"] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }
}
