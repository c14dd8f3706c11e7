//! What is pending on a replica, and in which order it goes. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::idle::HeadInBrief;
use super::ledger::Ledger;
use crate::day::{Day, DayRange};
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed};
use crate::manifest::{self, Taken};

/// Which days a replica wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// `--from`
    pub from: Option<Day>,
    /// `--to`
    pub to: Option<Day>,
    /// `--allow-gap`
    pub gaps: Gaps,
}

/// `--allow-gap`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gaps {
    /// Catchup stops before a missing day.
    Stop,
    /// Catchup steps over missing days.
    Allow,
}

/// What a feed has for a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending<'a> {
    /// The days to apply, ascending.
    pub days: Vec<&'a DayEntry>,
    /// Pending days behind a hole, which must wait for it.
    pub waiting: usize,
    /// The hole that stops this catchup.
    pub hole: Option<Day>,
    /// `--to` names a day after the newest.
    pub beyond_newest: Option<Day>,
}

/// The tables of an entry that the replica accepts, with the oid that each has there now.
pub type Accepted = std::collections::BTreeMap<String, u32>;

/// Is every accepted table of this very revision in the ledger, written to the table that is there now?
pub fn is_held(entry: &DayEntry, ledger: &Ledger, accepted: &Accepted) -> bool {
    entry.tables.keys().filter_map(|name| accepted.get_key_value(name)).all(|(name, oid)| {
        ledger
            .get(&(entry.day, name.clone()))
            .is_some_and(|held| held.manifest_sha256 == entry.manifest.sha256 && held.table_oid == *oid)
    })
}

/// Finds what is pending.
///
/// # Errors
/// Class BehindRetention when the days that would come next were pruned, or `--from` is before the oldest day.
pub fn pending<'a>(
    feed: &'a Feed,
    ledger: &Ledger,
    accepted: &Accepted,
    request: Request,
) -> Result<Pending<'a>, Failure> {
    let (Some(oldest), Some(newest)) =
        (feed.days.first().map(|entry| entry.day), feed.days.last().map(|entry| entry.day))
    else {
        return Ok(Pending { days: Vec::new(), waiting: 0, hole: None, beyond_newest: request.to });
    };
    if let Some(from) = request.from
        && from < oldest
    {
        return Err(Failure::new(Class::BehindRetention, format!("{from} is before the feed's oldest day, {oldest}"))
            .meaning("nothing was applied")
            .next(match feed.load_advice() {
                Some(advice) => format!("start with --from {oldest}; or {advice}"),
                None => format!("start with --from {oldest}, or load the full dump first"),
            }));
    }
    // What was written to a table that is no longer there (restored, made anew) says nothing about the one that is.
    let newest_held = ledger
        .iter()
        .filter(|((_, table), held)| accepted.get(table) == Some(&held.table_oid))
        .map(|((day, _), _)| *day)
        .max();
    if let Some(held) = newest_held
        && request.from.is_none()
        && request.gaps == Gaps::Stop
        && held.next() < oldest
    {
        return Err(Failure::new(
            Class::BehindRetention,
            format!(
                "this replica holds days up to {held}, but the feed starts at {oldest}: the days between were pruned"
            ),
        )
        .meaning("nothing was applied: the days between would be missing for good")
        .next(format!(
            "{}; or accept the gap with --allow-gap",
            feed.load_advice().unwrap_or_else(|| "load a newer full dump".to_owned())
        )));
    }
    let range = DayRange { from: request.from.unwrap_or(oldest), to: request.to.unwrap_or(newest) };
    // A hole was accepted before if the ledger holds days on both sides of it.
    let held = |day: Day| ledger.keys().any(|(of, _)| *of == day);
    let was_accepted = |hole: Day| {
        let before = feed.days.iter().rev().find(|entry| entry.day < hole && entry.day >= range.from);
        newest_held.is_some_and(|newest| newest > hole) && before.is_none_or(|entry| held(entry.day))
    };
    let hole = (request.gaps == Gaps::Stop)
        .then(|| {
            feed.missing().into_iter().find(|hole| *hole >= range.from && *hole <= range.to && !was_accepted(*hole))
        })
        .flatten();
    let wanted = |entry: &&DayEntry| (range.from..=range.to).contains(&entry.day) && !is_held(entry, ledger, accepted);
    let (days, waiting): (Vec<&DayEntry>, Vec<&DayEntry>) =
        feed.days.iter().filter(wanted).partition(|entry| hole.is_none_or(|hole| entry.day < hole));
    Ok(Pending { days, waiting: waiting.len(), hole, beyond_newest: request.to.filter(|to| *to > newest) })
}

/// Has the feed not been published to for too long? `max_age` of the replica's config, else the feed's own word.
pub fn is_stale(feed: &HeadInBrief, max_age: Option<TimeDelta>, now: DateTime<Utc>) -> bool {
    match max_age {
        Some(max_age) => now - feed.published_at > max_age,
        None => now > feed.valid_until,
    }
}

/// What orders pending days: when each was read, and whether it revises a day that the replica holds.
pub trait Dated {
    /// The moment the day was read.
    fn taken(&self) -> &Taken;
    /// Does the replica hold an earlier revision with other rows?
    fn is_revision(&self) -> bool;
    /// The day, to settle ties.
    fn day(&self) -> Day;
}

/// Orders pending days by their snapshots and groups them into transactions: one per day, except that revised days
/// go together, with whatever was read between the first and the last of them, so that a row that moved between days
/// finds its place.
pub fn batches<T: Dated>(mut pending: Vec<T>) -> Vec<Vec<T>> {
    pending.sort_by_key(Dated::day);
    let pending = manifest::in_order_read(pending, Dated::taken);
    let first = pending.iter().position(Dated::is_revision);
    let last = pending.iter().rposition(Dated::is_revision);
    let mut batches: Vec<Vec<T>> = Vec::new();
    for (index, day) in pending.into_iter().enumerate() {
        let joins = matches!((first, last), (Some(first), Some(last)) if index > first && index <= last);
        match batches.last_mut() {
            Some(batch) if joins => batch.push(day),
            _ => batches.push(vec![day]),
        }
    }
    batches
}

#[cfg(test)]
mod tests;
