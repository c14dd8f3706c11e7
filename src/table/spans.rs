//! A day's bounds cut into shorter ones.

use chrono::{NaiveDateTime, TimeDelta};

use super::BOUND_FORMAT;
use crate::manifest::{TimeBounds, TimeKind};

/// What follows the wall clock in a bound of a `timestamptz`.
const UTC_OFFSET: &str = "+00";

impl TimeBounds {
    /// These bounds as `count` ones, one after the other and of about the same length: a value that lies within these
    /// lies within exactly one of them. Fewer, and at least one, where there are not as many seconds, or for a kind that
    /// has one value a day.
    pub fn cut(&self, count: u32) -> Vec<TimeBounds> {
        let Some(inner) = self.inner_bounds(i64::from(count)) else { return vec![self.clone()] };
        let froms = std::iter::once(self.from.clone()).chain(inner.iter().cloned());
        let tos = inner.iter().cloned().chain(std::iter::once(self.to.clone()));
        froms.zip(tos).map(|(from, to)| TimeBounds { from, to, ..self.clone() }).collect()
    }

    /// Bounds strictly between the two, ascending; `None` where they cannot be told.
    fn inner_bounds(&self, count: i64) -> Option<Vec<String>> {
        match self.kind {
            TimeKind::Date => None,
            TimeKind::Timestamp | TimeKind::Timestamptz => {
                let suffix = if self.kind == TimeKind::Timestamptz { UTC_OFFSET } else { "" };
                let parsed =
                    |bound: &str| NaiveDateTime::parse_from_str(bound.strip_suffix(suffix)?, BOUND_FORMAT).ok();
                let (from, to) = (parsed(&self.from)?, parsed(&self.to)?);
                let bound = |seconds| Some((from + TimeDelta::try_seconds(seconds)?).format(BOUND_FORMAT).to_string());
                steps((to - from).num_seconds(), count).map(|step| Some(bound(step)? + suffix)).collect()
            }
            TimeKind::EpochSeconds | TimeKind::EpochMilliseconds | TimeKind::EpochMicroseconds => {
                let (from, to): (i64, i64) = (self.from.parse().ok()?, self.to.parse().ok()?);
                Some(steps(to.checked_sub(from)?, count).map(|step| (from + step).to_string()).collect())
            }
        }
    }
}

/// What `length` is cut at to make `count` pieces, or fewer: ascending, above 0 and below `length`.
fn steps(length: i64, count: i64) -> impl Iterator<Item = i64> {
    let count = count.min(length).max(1);
    // No longer than a day, in microseconds, times a number of pieces: far from the end of 64 bits.
    (1..count).map(move |step| length * step / count)
}
