//! Whether a day has as many rows as it should: a producer that fell behind publishes no half a day as a whole. Pure.

use std::fmt;

use super::plan::Decision;
use crate::config::{Expect, TableConfig};
use crate::day::Day;
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed};
use crate::figures::human_count;
use crate::manifest::{Manifest, Slice, State};

/// The median is taken over so many final days before the day.
const DAYS: usize = 7;
/// It says nothing over fewer.
const LEAST_DAYS: usize = 3;

/// A table with fewer rows than expected.
#[derive(Debug, Clone, PartialEq)]
pub struct TooFew {
    /// `schema.table`
    table: String,
    /// Its rows.
    rows: u64,
    /// What was expected.
    missed: Missed,
}

/// An expectation that was not met.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Missed {
    MinRows(u64),
    MinFraction { fraction: f64, median: f64, days: usize },
}

/// The tables of a day that have too few rows, by their own expectations and by the days of `feed` that precede it.
pub fn too_few(tables: &[TableConfig], slices: &[Slice], feed: &Feed, day: Day) -> Vec<TooFew> {
    let mut found = Vec::new();
    for table in tables {
        let Some(slice) = slices.iter().find(|slice| slice.schema == table.schema && slice.table == table.name) else {
            continue;
        };
        let (name, rows) = (slice.qualified_name(), slice.rows);
        let expected = table.expectation;
        if let Some(least) = expected.min_rows.filter(|least| rows < *least) {
            found.push(TooFew { table: name.clone(), rows, missed: Missed::MinRows(least) });
        }
        if let (Some(fraction), Some((median, days))) = (expected.min_fraction, median_before(feed, day, &name))
            && is_below(rows, fraction, median)
        {
            found.push(TooFew { table: name, rows, missed: Missed::MinFraction { fraction, median, days } });
        }
    }
    found
}

/// The median of a table's rows over the last final days before `day`, and how many of them have the table. Provisional
/// ones may be such as had too few.
fn median_before(feed: &Feed, day: Day, table: &str) -> Option<(f64, usize)> {
    let is_before = |entry: &&DayEntry| entry.day < day && entry.state == State::Final;
    let before = feed.days.iter().rev().filter(is_before).take(DAYS);
    let mut rows: Vec<u64> = before.filter_map(|entry| entry.tables.get(table)).map(|entry| entry.rows).collect();
    if rows.len() < LEAST_DAYS {
        return None;
    }
    rows.sort_unstable();
    let (lower, upper) = (rows[(rows.len() - 1) / 2], rows[rows.len() / 2]);
    #[expect(clippy::cast_precision_loss, reason = "a share of rows needs no more than 52 bits")]
    let median = lower as f64 / 2.0 + upper as f64 / 2.0;
    Some((median, rows.len()))
}

fn is_below(rows: u64, fraction: f64, median: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "a share of rows needs no more than 52 bits")]
    // Divided, not multiplied: exactly the share is rounded as the share itself was.
    let share = rows as f64 / median;
    median > 0.0 && share < fraction
}

/// Whether a day with too few rows may be published as what was decided.
///
/// # Errors
/// Class DaysFailed where that is not meant to be published at all. A final day that stays as it is, is no failure.
pub fn judge(
    too_few: &[TooFew],
    expect: Expect,
    day: Day,
    decision: Decision,
    published: Option<&Manifest>,
) -> Result<(), Failure> {
    let stays_final = decision == Decision::Unchanged && published.is_some_and(|old| old.state == State::Final);
    if too_few.is_empty() || expect == Expect::Lenient || stays_final {
        return Ok(());
    }
    let told: Vec<String> = too_few.iter().map(TooFew::to_string).collect();
    Err(Failure::new(Class::DaysFailed, format!("{day} has too few rows: {}", told.join("; ")))
        .meaning("nothing of the day was published; what was published before still stands")
        .next("find out whether what fills the tables fell behind; if so few are meant, run `pgslice export --date … --accept-shrink`"))
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, rows) = (&self.table, human_count(self.rows));
        match self.missed {
            Missed::MinRows(least) => {
                write!(f, "{table} has {rows} rows, and min-rows expects {}", human_count(least))
            }
            Missed::MinFraction { fraction, median, days } => write!(
                f,
                "{table} has {rows} rows, and min-fraction expects {fraction} of {median}, the median of its last {days} \
                 final days"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Expectation;
    use crate::feed::TableEntry;
    use crate::retention::fixtures::{self, day};

    const TABLE: &str = "public.messages";

    /// A feed with a day from 2024-05-01 on for each number of rows; `None` for a day without the table.
    fn feed(rows: &[Option<u64>]) -> Feed {
        let days: Vec<String> = (0..rows.len()).map(|index| day("2024-05-01").plus(index as u64).to_string()).collect();
        let plain: Vec<(&str, State)> = days.iter().map(|day| (day.as_str(), State::Final)).collect();
        let mut feed = fixtures::feed_of(&plain);
        for (entry, rows) in feed.days.iter_mut().zip(rows) {
            entry.tables.clear();
            entry.tables.extend(rows.map(|rows| (TABLE.to_owned(), TableEntry { rows, bytes: 1 })));
        }
        feed
    }

    /// What is said about 2024-05-20 with so many rows.
    fn said(expectation: Expectation, rows: u64, feed: &Feed) -> Vec<String> {
        let path = std::path::Path::new("test.toml");
        let config = "dataset = \"d\"\n[[table]]\nname = \"messages\"\n[[table]]\nname = \"not_published_yet\"\n";
        let mut tables = crate::config::parse(config, path).expect("a configuration").tables;
        tables.iter_mut().for_each(|table| table.expectation = expectation);
        let mut slices = fixtures::manifest(day("2024-05-20"), 1, State::Final, "00000001", [None; 3]).1.slices;
        slices[0].rows = rows;
        too_few(&tables, &slices, feed, day("2024-05-20")).iter().map(ToString::to_string).collect()
    }

    fn by_fraction(fraction: f64, rows: u64, history: &[Option<u64>]) -> usize {
        said(Expectation { min_rows: None, min_fraction: Some(fraction) }, rows, &feed(history)).len()
    }

    #[test]
    fn nothing_is_expected_unless_it_is_stated() {
        assert!(said(Expectation::default(), 0, &feed(&[Some(100); 7])).is_empty());
    }

    #[test]
    fn fewer_rows_than_stated_are_too_few() {
        let at_least = Expectation { min_rows: Some(1_000), min_fraction: None };
        assert_eq!(said(at_least, 999, &feed(&[])), ["public.messages has 999 rows, and min-rows expects 1,000"]);
        assert!(said(at_least, 1_000, &feed(&[])).is_empty());
    }

    #[test]
    fn exactly_the_share_of_the_median_is_enough_and_one_row_less_is_not() {
        for (fraction, median, least) in [(0.3, 10, 3), (0.1, 30, 3), (0.7, 1_000, 700), (1.0, 7, 7), (0.3, 1, 1)] {
            assert_eq!(by_fraction(fraction, least, &[Some(median); 7]), 0, "{fraction} of {median}");
            assert_eq!(by_fraction(fraction, least - 1, &[Some(median); 7]), 1, "{fraction} of {median}");
        }
    }

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two_in_the_middle_and_no_mean() {
        let expected = Expectation { min_rows: None, min_fraction: Some(0.5) };
        let says = |history: &[Option<u64>]| said(expected, 0, &feed(history)).concat();
        assert!(says(&[Some(1), Some(1_000_000), Some(3)]).contains("expects 0.5 of 3, the median of its last 3 "));
        assert!(says(&[Some(4), Some(1), Some(9), Some(7)]).contains("of 5.5, the median of its last 4 "));
        assert!(says(&[Some(2), Some(2), Some(2), Some(9)]).contains("of 2, "), "ties");
    }

    #[test]
    fn only_the_last_seven_final_days_before_the_day_count() {
        let mut history = vec![Some(1_000_000); 5];
        history.extend([Some(10); 7]);
        assert_eq!(by_fraction(0.5, 5, &history), 0);
        assert_eq!(by_fraction(0.5, 4, &history), 1);
        // The day itself, and what follows it.
        let mut later = feed(&[Some(10); 25]);
        later.days.iter_mut().filter(|entry| entry.day >= day("2024-05-20")).for_each(|entry| {
            entry.tables.insert(TABLE.to_owned(), TableEntry { rows: 1_000_000, bytes: 1 });
        });
        assert!(said(Expectation { min_rows: None, min_fraction: Some(0.5) }, 5, &later).is_empty());
    }

    #[test]
    fn days_that_had_too_few_themselves_do_not_lower_what_is_expected() {
        let mut history = vec![Some(100); 7];
        history.extend([Some(0); 10]);
        let mut outage = feed(&history);
        outage.days[7..].iter_mut().for_each(|entry| entry.state = State::Provisional);
        let expected = Expectation { min_rows: None, min_fraction: Some(0.5) };
        assert!(
            said(expected, 0, &outage).concat().contains("expects 0.5 of 100, the median of its last 7 final days")
        );
    }

    #[test]
    fn a_new_table_and_a_young_feed_are_not_judged_by_their_past() {
        assert_eq!(by_fraction(1.0, 0, &[Some(10); 2]), 0);
        assert_eq!(by_fraction(1.0, 0, &[None, None, None, None, None, Some(10), Some(10)]), 0);
        assert_eq!(by_fraction(1.0, 0, &[None, None, None, None, Some(10), Some(10), Some(10)]), 1);
        // What is older than seven published days is not looked at in place of those that lack the table.
        let mut left = vec![Some(10); 7];
        left.extend([None; 5]);
        assert_eq!(by_fraction(1.0, 0, &left), 0);
        assert_eq!(by_fraction(1.0, 0, &[Some(0); 7]), 0, "a table that is always empty");
    }

    #[test]
    fn strict_fails_what_would_be_published_and_leaves_alone_what_is_final_already() {
        let few = [TooFew { table: TABLE.into(), rows: 3, missed: Missed::MinRows(1_000) }];
        let [provisional, settled] = [State::Provisional, State::Final]
            .map(|state| fixtures::manifest(day("2024-05-01"), 1, state, "00000001", [None; 3]).1);
        let judged = |few: &[TooFew], expect, decision, published| {
            judge(few, expect, day("2024-05-01"), decision, published).map_err(|failure| failure.class)
        };
        let publish = Decision::Publish { revision: 2 };
        let failed = Err(Class::DaysFailed);
        assert_eq!(judged(&few, Expect::Strict, publish, None), failed);
        assert_eq!(judged(&few, Expect::Strict, Decision::Unchanged, Some(&provisional)), failed);
        assert_eq!(judged(&few, Expect::Strict, Decision::Unchanged, Some(&settled)), Ok(()));
        assert_eq!(judged(&few, Expect::Strict, publish, Some(&settled)), failed);
        assert_eq!(judged(&few, Expect::Lenient, publish, None), Ok(()));
        assert_eq!(judged(&[], Expect::Strict, publish, None), Ok(()));
    }
}
