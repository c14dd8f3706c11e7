//! Figures for people: counts, sizes, spans and instants as the reports and the page show them. Scripts read the
//! JSON, where all of these are plain numbers and timestamps.

use chrono::{DateTime, TimeDelta, Utc};

use crate::day::Day;

/// A count with its thousands apart: `1,234,567`.
pub fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and what is counted: `1 day`, `3 days`. Only for words whose plural is made with an `s`.
pub fn counted(count: usize, word: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {word}{plural}", human_count(count as u64))
}

/// What a run cost a store that is asked by requests, behind its summary; nothing for a folder.
pub fn after_requests(requests: Option<u64>) -> String {
    requests
        .map(|count| format!(" ({})", counted(usize::try_from(count).unwrap_or(usize::MAX), "request")))
        .unwrap_or_default()
}

/// A size in decimal units, rounded down to one digit behind the point: `48.1 MB`; bytes are exact.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let (mut unit_bytes, mut unit) = (1_000_u64, 0);
    while bytes / unit_bytes >= 1_000 {
        unit_bytes *= 1_000;
        unit += 1;
    }
    let (whole, rest) = (bytes / unit_bytes, bytes % unit_bytes);
    format!("{whole}.{} {}", rest / (unit_bytes / 10), UNITS[unit])
}

/// A span in its two largest units, rounded down: `2 d 3 h`, `3 h 12 min`, `59 s`. A negative one is `0 s`.
pub fn human_span(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// An instant to the minute: `2024-05-02 00:20 UTC`.
pub fn human_instant(instant: DateTime<Utc>) -> String {
    instant.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// On which side the cells of a column meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Figures.
    Right,
}

/// Rows of cells as lines, each column as wide as its widest cell, two spaces between columns, none at the end.
pub fn aligned<const COLUMNS: usize>(columns: [Align; COLUMNS], rows: &[[String; COLUMNS]]) -> Vec<String> {
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(columns).zip(widths).map(|((cell, align), width)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Days in order as runs: `2024-05-03, 2024-05-07 to 2024-05-09`.
pub fn human_days(days: &[Day]) -> String {
    let runs = days.chunk_by(|earlier, later| earlier.next() == *later);
    let texts = runs.map(|run| match run {
        [first, .., last] => format!("{first} to {last}"),
        [only] => only.to_string(),
        [] => String::new(),
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_thousands_apart() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (70_123, "70,123"), (1_234_567, "1,234,567")];
        for (count, text) in cases {
            assert_eq!(human_count(count), text);
        }
    }

    #[test]
    fn one_is_not_plural() {
        assert_eq!([counted(0, "day"), counted(1, "day"), counted(2, "day")], ["0 days", "1 day", "2 days"]);
    }

    #[test]
    fn sizes_are_never_rounded_up() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (48_190_000, "48.1 MB"),
            (1_500_000_000_000, "1.5 TB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        let cases = [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (11_520, "3 h 12 min"), (183_600, "2 d 3 h")];
        for (seconds, text) in cases {
            assert_eq!(human_span(TimeDelta::seconds(seconds)), text);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |word: &str, figure: &str| [word.to_owned(), figure.to_owned(), String::new()];
        let lines = aligned([Align::Left, Align::Right, Align::Left], &[row("größer", "1"), row("a", "1,000")]);
        assert_eq!(lines, ["größer      1", "a       1,000"]);
    }

    #[test]
    fn days_are_told_as_runs() {
        let days = ["2024-02-28", "2024-02-29", "2024-03-01", "2024-03-03", "2024-03-05", "2024-03-06"];
        let days = days.map(|day| day.parse().expect("a day"));
        assert_eq!(human_days(&days), "2024-02-28 to 2024-03-01, 2024-03-03, 2024-03-05 to 2024-03-06");
        assert_eq!(human_days(&[]), "");
    }
}
