//! Which days an export looks at, and what a day that was read amounts to. Pure.

use crate::day::{Day, DayRange, Window};
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed, SourceIdentity};
use crate::manifest::{Manifest, Slice, SliceKind, State};

/// Which days were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Whatever is due.
    Due,
    /// One day.
    Day(Day),
    /// A range of days.
    Range(DayRange),
}

/// Why a day is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is not in the feed.
    Missing,
    /// It was published before it was settled.
    Provisional,
    /// It is recent: late rows may have come.
    Lookback,
    /// It was asked for by name.
    Named,
}

impl Why {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Why::Missing => "not published yet",
            Why::Provisional => "published provisionally",
            Why::Lookback => "recent: examined again",
            Why::Named => "asked for",
        }
    }
}

/// A day to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The day.
    pub day: Day,
    /// Why.
    pub why: Why,
}

/// The days to look at, ascending. `today` is the day that has not ended by the source's clock.
///
/// What is due: every closed day that is missing or provisional from the feed's oldest day on, within `keep_days` of
/// the newest final day, and the newest `lookback_days` closed days; for an empty feed yesterday. Days after the
/// newest are always due, so that a source that was away for long leaves no hole behind.
pub fn candidates(
    feed: Option<&Feed>,
    request: Request,
    today: Day,
    keep_days: u64,
    lookback_days: u64,
) -> Vec<Candidate> {
    let yesterday = today.previous();
    let range = match request {
        Request::Day(day) => return vec![Candidate { day, why: Why::Named }],
        Request::Range(range) => {
            return range.days().map(|day| Candidate { day, why: Why::Named }).collect();
        }
        Request::Due => {
            let Some((feed, oldest)) = feed.and_then(|feed| Some((feed, feed.days.first()?.day))) else {
                return vec![Candidate { day: yesterday, why: Why::Missing }];
            };
            let floor = feed.newest_final().map_or(oldest, |newest| newest.minus(keep_days.saturating_sub(1)));
            DayRange { from: oldest.max(floor), to: yesterday }
        }
    };
    let why = |day: Day| match feed.and_then(|feed| feed.day(day)) {
        None => Some(Why::Missing),
        Some(entry) if entry.state == State::Provisional => Some(Why::Provisional),
        Some(_) if day.plus(lookback_days) > yesterday => Some(Why::Lookback),
        Some(_) => None,
    };
    range.days().filter_map(|day| why(day).map(|why| Candidate { day, why })).collect()
}

/// Holds a day's window against its published neighbours: windows of one feed abut and never overlap.
///
/// # Errors
/// When they would not: the zone, or the time zone data, changed since.
pub fn check_neighbours(feed: &Feed, timezone: &str, day: Day, window: Window) -> Result<(), Failure> {
    if feed.days.is_empty() && feed.retired.is_empty() {
        return Ok(()); // Nothing was published yet that another zone could contradict.
    }
    if feed.timezone != timezone {
        return Err(Failure::new(
            Class::Usage,
            format!("the feed's days are days of {}, not of {timezone}", feed.timezone),
        )
        .meaning("nothing was exported: days of two zones would overlap or leave holes")
        .next(format!("set timezone = \"{}\", or publish to a new store url", feed.timezone)));
    }
    let misfit = |other: &DayEntry| {
        Failure::new(
            Class::Integrity,
            format!(
                "the window of {day} ({} to {}) does not fit the published one of {} ({} to {})",
                window.start, window.end, other.day, other.window.start, other.window.end
            ),
        )
        .meaning("nothing was exported: rows would be published twice, or never")
        .next("the time zone data changed since; publish to a new store url")
    };
    for other in &feed.days {
        let fits = match other.day.days_since(day) {
            0 => other.window == window,
            -1 => other.window.end == window.start,
            1 => other.window.start == window.end,
            ..-1 => other.window.end <= window.start,
            2.. => other.window.start >= window.end,
        };
        if !fits {
            return Err(misfit(other));
        }
    }
    Ok(())
}

/// Holds the source's identity against the one that the feed was read from.
///
/// # Errors
/// When the feed was read from another system, or from a later timeline of this one: then a standby was promoted, and
/// what the source wrote since is a fork.
pub fn check_source(feed: &Feed, source: &SourceIdentity) -> Result<(), Failure> {
    let Some(known) = &feed.source else { return Ok(()) };
    if known.system_identifier != source.system_identifier {
        return Err(Failure::new(
            Class::Integrity,
            format!(
                "the source is another system ({}) than the feed was read from ({})",
                source.system_identifier, known.system_identifier
            ),
        )
        .meaning("nothing was exported: rows of two databases would be mixed")
        .next("check source.url; if the database was moved by dump and restore, run once with --new-source"));
    }
    if source.timeline < known.timeline {
        return Err(Failure::new(
            Class::Integrity,
            format!(
                "the source is on timeline {}, the feed was read from timeline {} of the same system: a standby was \
                 promoted, and this server is not it and does not follow it",
                source.timeline, known.timeline
            ),
        )
        .meaning("nothing was exported: what was written here since then is not in the promoted server")
        .next("let source.url lead to the server that was promoted; run once with --new-source to follow this one"));
    }
    Ok(())
}

/// How a slice that was read compares with the published one of the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Same rows, same description: nothing to publish.
    Same,
    /// Same rows under another description: the published parts serve.
    SameRows,
    /// Other rows.
    Different,
}

/// Compares a slice that was read with the published one.
///
/// Digests of two formats are not comparable, so rows that were read in another format than they were published in
/// count as other rows. Changing a table's `format` makes no day be read again; a day that is read again for another
/// reason (its age, its name, its state) becomes a new revision in the new format, and a replica that holds the same
/// rows finds them equal.
pub fn compare(read: &Slice, published: &Slice) -> Comparison {
    let same_rows = read.has_columns_of(published)
        && read.format == published.format
        && read.rows == published.rows
        && read.raw_bytes == published.raw_bytes
        && read.rows_digest == published.rows_digest;
    match (same_rows, same_description(read, published)) {
        (true, true) => Comparison::Same,
        (true, false) => Comparison::SameRows,
        (false, _) => Comparison::Different,
    }
}

/// Do two slices say the same about which rows they are?
pub fn same_description(slice: &Slice, other: &Slice) -> bool {
    slice.kind == other.kind
        && slice.key == other.key
        && slice.time == other.time
        && slice.filtered == other.filtered
        && slice.omitted_columns == other.omitted_columns
}

/// Is it a whole reference table, which makes no new revision by itself? It does where a day becomes final: that keeps
/// its revision only if it says what is there now.
pub fn is_passive(slice: &Slice, published: &Slice, why: Why) -> bool {
    let whole = slice.kind == SliceKind::All && published.kind == SliceKind::All;
    whole && why != Why::Named && slice.has_columns_of(published)
}

/// What becomes of a day that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The published revision says the same.
    Unchanged,
    /// The published revision says the same, and is final now: its manifest is replaced over the same parts.
    Settle {
        /// The revision that stays.
        revision: u32,
    },
    /// The published revision says the same, and stays provisional: its manifest is replaced over the same parts by one
    /// that later readings can be compared with. Never by [`decide`], which is not told of them.
    Recount {
        /// The revision that stays.
        revision: u32,
    },
    /// A new revision.
    Publish {
        /// Its number.
        revision: u32,
    },
}

/// How a decision may be overruled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Publish even if equal.
    pub force: Force,
    /// Publish even if rows were lost.
    pub shrink: Shrink,
    /// The share of its rows that a slice may lose without being asked.
    pub max_shrink: f64,
}

/// `--force`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Equal days are left alone.
    No,
    /// Equal days are published as new revisions.
    Yes,
}

/// `--accept-shrink`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shrink {
    /// A loss above the limit is refused.
    Guarded,
    /// Any loss is accepted.
    Accepted,
}

/// Decides on a day that was read as `slices` in `state`, given the published revision of the day.
///
/// A whole reference table that changed makes no new revision by itself, unless the day was asked for by name.
///
/// # Errors
/// A loss of rows above the limit (class Integrity).
pub fn decide(
    published: Option<&Manifest>,
    last_revision: u32,
    slices: &[Slice],
    state: State,
    why: Why,
    rules: Rules,
) -> Result<Decision, Failure> {
    let Some(published) = published else {
        return Ok(Decision::Publish { revision: last_revision + 1 });
    };
    let settles = published.state == State::Provisional && state == State::Final;
    let counterpart = |slice: &Slice, among: &[Slice]| -> Option<Slice> {
        among.iter().find(|other| other.schema == slice.schema && other.table == slice.table).cloned()
    };
    let changed = |slice: &Slice| match counterpart(slice, &published.slices) {
        None => true,
        Some(old) => compare(slice, &old) != Comparison::Same && (settles || !is_passive(slice, &old, why)),
    };
    let dropped = published.slices.iter().any(|old| counterpart(old, slices).is_none());
    if rules.force == Force::No && !dropped && !slices.iter().any(changed) {
        return Ok(match (published.state, state) {
            (State::Provisional, State::Final) => Decision::Settle { revision: published.revision },
            _ => Decision::Unchanged,
        });
    }
    if rules.shrink == Shrink::Guarded {
        for old in &published.slices {
            let rows = counterpart(old, slices).map_or(0, |slice| slice.rows);
            check_shrink(published, old, rows, rules.max_shrink)?;
        }
    }
    Ok(Decision::Publish { revision: last_revision.max(published.revision) + 1 })
}

fn check_shrink(published: &Manifest, old: &Slice, rows: u64, max_shrink: f64) -> Result<(), Failure> {
    let lost = old.rows.saturating_sub(rows);
    #[expect(clippy::cast_precision_loss, reason = "a share of rows needs no more than 52 bits")]
    // Divided, not multiplied: a loss of exactly the share is rounded as the share itself was.
    let too_many = old.rows > 0 && lost as f64 / old.rows as f64 > max_shrink;
    let vanished = old.rows > 0 && rows == 0;
    if !vanished && (old.kind == SliceKind::Referenced || !too_many) {
        return Ok(());
    }
    Err(Failure::new(
        Class::Integrity,
        format!(
            "{} {} would shrink from {} to {rows} rows (revision {})",
            published.day,
            old.qualified_name(),
            old.rows,
            published.revision
        ),
    )
    .meaning("the published revision stays as it is")
    .next("find out where the rows went; if they are meant to be gone, name the day: --date … --accept-shrink"))
}

#[cfg(test)]
mod tests;
