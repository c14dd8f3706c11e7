//! Whether a replica that was filled some other way may go on with the feed: of one that was restored from a known dump
//! that is known, of any other it is looked at.

use std::collections::BTreeMap;

use tokio::task::spawn_blocking;

use super::adopt::{self, Expected, Found};
use super::apply::{Applier, PendingDay};
use super::matching::Target;
use super::plan::{Gaps, Request};
use crate::day::Day;
use crate::error::{Class, Failure};
use crate::figures::human_instant;
use crate::pg::Session;

/// Rows from before the feed's oldest day speak of a replica that was filled some other way. If its oldest day is not
/// the feed's, days between may be missing for good.
///
/// # Errors
/// Class BehindRetention, unless `--from` or `--allow-gap` says what is meant.
pub(super) async fn check(
    mut applier: Applier,
    pending: &[PendingDay],
    request: Request,
    created: &[String],
) -> anyhow::Result<Applier> {
    if request.from.is_some() || request.gaps == Gaps::Allow {
        return Ok(applier);
    }
    // The first day of each table that has rows: a day without rows proves nothing.
    let mut firsts: BTreeMap<String, (Day, Expected, Target)> = BTreeMap::new();
    for day in pending {
        for (index, target) in &day.targets {
            let slice = &day.manifest.slices[*index];
            let met_before = applier.ledger.keys().any(|(_, table)| *table == target.name);
            if let Some(origin) = applier.restored.origin(&target.name).filter(|_| !met_before) {
                if applier.feed.leaves_hole_behind(&origin.moment) {
                    return Err(too_old(&applier, &target.name, origin).into());
                }
                continue;
            }
            if target.time.is_some() && slice.rows > 0 && !met_before && !created.contains(&target.name) {
                let first = (day.entry.day, Expected::of(slice), target.clone());
                firsts.entry(target.name.clone()).or_insert(first);
            }
        }
    }
    let advice = load_advice(&applier);
    let (applier, outcome) = spawn_blocking(move || {
        let mut all = firsts.into_values();
        let outcome = all
            .try_for_each(|(day, expected, target)| holds_first(&mut applier.session, &target, expected, day, &advice));
        (applier, outcome)
    })
    .await?;
    outcome.map(|()| applier)
}

fn load_advice(applier: &Applier) -> String {
    applier.feed.load_advice().unwrap_or_else(|| "load a newer full dump".to_owned())
}

/// Days between a dump and the feed's oldest one were let go of, or never published.
fn too_old(applier: &Applier, table: &str, origin: &super::restored::Origin) -> Failure {
    let oldest = applier.feed.days.first().map(|entry| entry.day.to_string()).unwrap_or_default();
    let dump = origin.key.as_ref().map_or_else(|| "a dump".to_owned(), ToString::to_string);
    let taken_at = human_instant(origin.moment.taken_at);
    Failure::new(
        Class::BehindRetention,
        format!("{table} was restored from {dump} of {taken_at}, but the feed starts at {oldest}"),
    )
    .meaning("nothing was applied: days between may be missing on this replica for good")
    .next(format!("{}; or say what is meant with --from {oldest} or --allow-gap", load_advice(applier)))
}

fn holds_first(
    session: &mut Session,
    target: &Target,
    expected: Expected,
    day: Day,
    advice: &str,
) -> anyhow::Result<()> {
    let Some(time) = &target.time else { return Ok(()) };
    let sql = format!("select exists (select from {} as present where {})::text", target.table, time.before("present"));
    let has_earlier = session.query(&sql, &[])?.first().is_some_and(|row| row.get(0) == Some("true"));
    if !has_earlier || adopt::look(session, target, expected)? == Found::Equal {
        return Ok(());
    }
    Err(Failure::new(
        Class::BehindRetention,
        format!("{} has rows from before {day}, the first day of it in the feed, but not that day's rows", target.name),
    )
    .meaning("nothing was applied: days between may be missing on this replica for good")
    .next(format!("{advice}; or say what is meant with --from {day} or --allow-gap"))
    .into())
}
