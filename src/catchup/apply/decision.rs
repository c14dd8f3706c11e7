//! How a slice gets into its table.

use super::{Absent, Applier, Direct, Extra, PendingDay, Way, Work};
use crate::catchup::adopt::{self, Expected, Found};
use crate::catchup::ledger::{self, Entry};
use crate::catchup::matching::{Absence, OtherColumns, Target};
use crate::catchup::plan::Dated;
use crate::error::{Class, Failure};
use crate::feed::Standing;
use crate::manifest::{Slice, TimeBounds};

impl Applier {
    /// Decides how a slice goes, looking at its window where the ledger does not know it.
    pub(super) fn decide<'a>(
        &mut self,
        day: &'a PendingDay,
        slice: &'a Slice,
        target: &'a Target,
        days_in_batch: usize,
    ) -> anyhow::Result<Work<'a>> {
        self.check_time_column(target)?;
        let work = |way, keeps_extra_rows| Work { day, slice, target, way, keeps_extra_rows };
        let standing = self.restored.standing(&target.name, day.taken());
        let held = self.ledger.get(&(day.entry.day, target.name.clone())).filter(|held| held.table_oid == target.oid);
        // What was taken over from a dump unread was never looked at.
        let held = held.filter(|held| !self.restored.is_to_be_read(&target.name, &held.taken, day.taken()));
        if let Some(held) = held {
            let keeps = held.keeps_extra_rows && self.extra == Extra::Keep;
            let comparable = held.format == slice.format && held.columns == ledger::columns_of(slice, &target.left_out);
            let equal = comparable && held.rows_digest == slice.rows_digest && held.rows == slice.rows;
            // Rows of a reference table may have been overwritten by another day's slice since.
            let untouched = target.time.is_some() || self.is_newest(target, &held.taken);
            if equal && untouched && keeps == held.keeps_extra_rows {
                return Ok(work(Way::Unchanged, keeps));
            }
            // Nothing of the window is newer than the dump that the table was restored from.
            let as_restored = self.restored.standing(&target.name, &held.taken) != Some(Standing::After);
            let spares = as_restored && self.extra == Extra::Keep;
            let is_contained = spares && standing == Some(Standing::Contained) && !held.is_in_doubt();
            if is_contained {
                // The dump holds what this revision has, unless the window was made to be an earlier one since. Rows of
                // a reference table never are.
                let is_reference = target.time.is_none();
                if is_reference || adopt::look(&mut self.session, target, Expected::of(slice))? == Found::Equal {
                    return Ok(work(Way::Adopt, keeps));
                }
            } else if spares && standing.is_some_and(|standing| standing != Standing::After) && !target.key.is_empty() {
                return Ok(work(Way::Merge { absent: Absent::Spared }, keeps));
            }
            // The same rows in another format, or of renamed columns that are here already, are found by looking.
            if !comparable
                && !held.keeps_extra_rows
                && adopt::look(&mut self.session, target, Expected::of(slice))? == Found::Equal
            {
                return Ok(work(Way::Unchanged, false));
            }
            if target.key.is_empty() {
                self.check_replaceable(day, target)?;
                return Ok(work(Way::Replace, false));
            }
            let absent = if target.absence == Absence::Proven && !keeps { Absent::Deleted } else { Absent::Kept };
            return Ok(work(Way::Merge { absent }, keeps));
        }
        let is_told_now = self.extra == Extra::Keep && self.restored.is_adopted_unread(&target.name);
        if standing == Some(Standing::Contained) && is_told_now {
            return Ok(work(Way::Adopt, false));
        }
        let from_dump = self.restored.reaches_into(&target.name, day.entry.window);
        Ok(match adopt::look(&mut self.session, target, Expected::of(slice))? {
            Found::Equal => work(Way::Adopt, false),
            Found::Nothing if target.key.is_empty() => work(Way::Direct, false),
            Found::Nothing if days_in_batch == 1 && self.direct == Direct::Allowed => work(Way::Direct, false),
            Found::Nothing => work(Way::Merge { absent: Absent::Kept }, false),
            Found::Other if target.key.is_empty() => {
                let revises = from_dump && standing != Some(Standing::Before);
                if self.extra == Extra::Keep && !revises {
                    return Err(Failure::new(
                        Class::Drift,
                        format!(
                            "{} {}: the replica holds other rows than the feed, and no key to merge by",
                            day.entry.day, target.name
                        ),
                    )
                    .meaning("nothing of the day was applied")
                    .next("add a primary key on the replica, or let --force replace the replica's rows of that day")
                    .into());
                }
                self.check_replaceable(day, target)?;
                work(Way::Replace, false)
            }
            Found::Other if standing == Some(Standing::Before) && self.extra == Extra::Keep => {
                work(Way::Merge { absent: Absent::Spared }, false)
            }
            Found::Other => {
                let deletes = target.absence == Absence::Proven && (self.extra == Extra::Delete || from_dump);
                let keeps = target.absence == Absence::Proven && !deletes;
                work(Way::Merge { absent: if deletes { Absent::Deleted } else { Absent::Kept } }, keeps)
            }
        })
    }

    /// Windows of a table are told by one column, and it is not for a feed to choose another: rows of days that it never
    /// spoke of could be deleted by it.
    fn check_time_column(&self, target: &Target) -> anyhow::Result<()> {
        let column = ledger::time_column_of(target.time.as_ref());
        let other_name = |name: &String| {
            let time = target.time.clone().map(|time| TimeBounds { column: name.clone(), ..time });
            ledger::time_column_of(time.as_ref())
        };
        let other_names: Vec<String> = target.other_names_of_time.iter().map(other_name).collect();
        let differs = |held: &Entry| {
            !held.time_column.is_empty() && held.time_column != column && !other_names.contains(&held.time_column)
        };
        let mut of_table = self.ledger.iter().filter(|((_, table), _)| *table == target.name);
        match of_table.find(|(_, held)| differs(held)).filter(|_| self.extra == Extra::Keep) {
            None => Ok(()),
            Some(((day, _), held)) => Err(Failure::new(
                Class::Drift,
                format!(
                    "{}: the feed tells its days by {column} now, and {day} was applied by {}",
                    target.name, held.time_column
                ),
            )
            .meaning("nothing of the day was applied: other rows than the feed's own could be deleted")
            .next("ask the publisher whether that is meant; if it is, run once with --force")
            .into()),
        }
    }

    /// May the window of a table without a key be deleted and loaded?
    fn check_replaceable(&self, day: &PendingDay, target: &Target) -> anyhow::Result<()> {
        let problem = if self.shape.is_referenced(target.oid) {
            "a foreign key points at it, so its rows cannot be deleted and loaded again"
        } else if target.absence == Absence::Unknown {
            "its slice is filtered, so rows that it does not have must stay"
        } else if target.other_columns == OtherColumns::Some {
            "it has columns that the feed does not carry, whose values would be lost"
        } else {
            return Ok(());
        };
        Err(Failure::new(
            Class::Drift,
            format!("{} {}: has no key to merge by, and {problem}", day.entry.day, target.name),
        )
        .meaning("nothing of the day was applied")
        .next(format!("add a primary key: alter table {} add primary key (…)", target.table))
        .into())
    }
}
