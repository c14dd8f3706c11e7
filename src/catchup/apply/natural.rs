//! Rows that give way to newer ones with the same natural key.

use anyhow::Context;

use super::{Absent, Applier, Doubts, Extra, GaveWay, Way, Work};
use crate::catchup::conflict::{KeptRows, UnknownRows, cannot_give_way, is_kept_by_foreign_key, not_as_published};
use crate::catchup::merge::Stage;
use crate::catchup::printable::printable;
use crate::manifest::TimeBounds;

/// So many pairs of keys are told.
const TOLD_RIVALS: usize = 5;

/// So many keys of rows of a reference table that left are told.
const TOLD_GONE: usize = 20;

impl Applier {
    /// Lets rows of the table that have the natural key of a staged row, and another key, give way. What was read before
    /// what the table holds takes nothing away: it is left out of the stage instead.
    ///
    /// # Errors
    /// Class Drift with the keys of both rows where foreign keys keep a row, or would take child rows with it;
    /// [`UnknownRows`]; the server's.
    pub(super) fn give_way(
        &mut self,
        table: &[Work<'_>],
        merged: &[&Work<'_>],
        stage: &Stage<'_>,
        newest_from: usize,
        doubts: &mut Doubts,
    ) -> anyhow::Result<()> {
        let Some(target) = merged.first().map(|item| item.target).filter(|_| !stage.natural().is_empty()) else {
            return Ok(());
        };
        if newest_from > 0 {
            self.session.run(&stage.drop_superseded(newest_from))?;
        }
        self.session.run(&stage.create_leaving())?;
        let leaving = self.count(&stage.count_leaving())?;
        if leaving > 0 {
            self.refuse_unknown(table, stage)?;
            let rivals = self.rivals(stage, "true")?;
            let in_the_way =
                format!("{}: rows must give way to others of the same natural key ({rivals}), and", target.name);
            for cascade in self.shape.cascades_of(target.oid) {
                let answer = self.session.query(&stage.would_cascade(&cascade), &[])?;
                if answer.first().is_some_and(|row| row.get(0) == Some("true")) {
                    let told = format!("{in_the_way} rows of {} would go or change with them", cascade.child);
                    return Err(cannot_give_way(told).into());
                }
            }
            self.doubt_what_leaves(merged, stage, doubts)?;
            if target.time.is_none() {
                self.note_gone(&target.name, stage)?;
            }
            let replaced = self.session.query(&stage.replace_leaving(), &[]).map_err(|source| {
                let told = format!("{in_the_way} a foreign key keeps them");
                // Whoever joins batches looks for the server's own code.
                if is_kept_by_foreign_key(&source) {
                    KeptRows { told, source }.into()
                } else {
                    anyhow::Error::from(source)
                }
            })?;
            let gone: u64 = replaced.first().context("the rows that leave are counted")?.text(0)?.parse()?;
            if gone != leaving {
                return Err(not_as_published(&target.name, &format!("kept {} rows that were to go", leaving - gone)));
            }
        }
        Ok(self.session.run(&stage.drop_leaving())?)
    }

    /// Pairs of keys of rows that leave, where `condition` holds of `leaving`, for people.
    fn rivals(&mut self, stage: &Stage<'_>, condition: &str) -> anyhow::Result<String> {
        let mut pairs = Vec::new();
        for row in self.session.query(&stage.rival_keys(condition, TOLD_RIVALS), &[])? {
            pairs.push(printable(&format!("{} to {}", row.text(0)?, row.text(1)?)));
        }
        Ok(pairs.join(", "))
    }

    /// Notes the rows of a reference table that leave for good: the source may still have them.
    fn note_gone(&mut self, table: &str, stage: &Stage<'_>) -> anyhow::Result<()> {
        let rows = self.count(&stage.count_leaving_for_good("true"))?;
        if rows > 0 {
            let mut keys = Vec::new();
            for row in self.session.query(&stage.gone_keys(TOLD_GONE), &[])? {
                keys.push(row.text(0)?.to_owned());
            }
            self.giving_way.push(GaveWay { table: table.to_owned(), rows, keys });
        }
        Ok(())
    }

    /// Rows of a time table that the feed is not known to have written stay, unless `--force` says otherwise: those in
    /// windows that nothing of the feed was written to, or that hold rows of the replica's own.
    fn refuse_unknown(&mut self, table: &[Work<'_>], stage: &Stage<'_>) -> anyhow::Result<()> {
        let Some((target, time)) = table.first().and_then(|item| Some((item.target, item.target.time.as_ref()?)))
        else {
            return Ok(());
        };
        if self.extra == Extra::Delete {
            return Ok(());
        }
        let known = self.known_windows(table, time);
        let unknown =
            if known.is_empty() { "true".into() } else { format!("(({})) is not true", known.join(") or (")) };
        let unknown = format!("{unknown} and {}", stage.is_gone());
        let rivals = self.rivals(stage, &unknown)?;
        if rivals.is_empty() {
            return Ok(());
        }
        Err(UnknownRows { told: format!("{}: {rivals}", target.name) }.into())
    }

    /// The windows of a time table of which the feed is known to have written every row, as conditions on `leaving`.
    fn known_windows(&self, table: &[Work<'_>], time: &TimeBounds) -> Vec<String> {
        let held = |item: &Work<'_>| self.ledger.get(&(item.day.entry.day, item.target.name.clone()));
        let is_known = |item: &&Work<'_>| match item.way {
            Way::Merge { absent: Absent::Kept } => {
                !item.keeps_extra_rows && held(item).is_some_and(|held| !held.keeps_extra_rows)
            }
            _ => !item.keeps_extra_rows,
        };
        let of_batch = table.iter().filter(is_known).filter_map(|item| item.target.time.clone());
        let Some(name) = table.first().map(|item| &item.target.name) else { return Vec::new() };
        let zone = time.zone.as_ref().and_then(|zone| zone.parse().ok());
        // Days that left the feed are held as before.
        let window = |day| {
            let entry = self.feed.days.iter().find(|entry| entry.day == day);
            entry.map_or_else(|| self.timezone.window(day), |entry| entry.window)
        };
        let of_ledger = self
            .ledger
            .iter()
            .filter(|((day, of), held)| {
                of == name && !held.keeps_extra_rows && !table.iter().any(|item| item.day.entry.day == *day)
            })
            .map(|((day, _), _)| TimeBounds::of(&time.column, time.kind, zone, self.timezone, *day, window(*day)));
        of_batch.chain(of_ledger).map(|bounds| bounds.predicate_of("leaving")).collect()
    }

    /// Rows that leave windows of other days for good make untrue what the ledger says of those.
    fn doubt_what_leaves(
        &mut self,
        merged: &[&Work<'_>],
        stage: &Stage<'_>,
        doubts: &mut Doubts,
    ) -> anyhow::Result<()> {
        let Some((target, time)) = merged.first().and_then(|item| Some((item.target, item.target.time.as_ref()?)))
        else {
            return Ok(());
        };
        for (day, bounds) in self.held_days(target, time) {
            let is_of_batch = merged.iter().any(|item| item.day.entry.day == day);
            if !is_of_batch && self.count(&stage.count_leaving_for_good(&bounds.predicate_of("leaving")))? > 0 {
                doubts.insert((day, target.name.clone()));
            }
        }
        Ok(())
    }
}
