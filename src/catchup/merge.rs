//! The statements of a merge by key. Pure.
//!
//! A stage is a temporary table with the columns of its slices and, when several pass through it, a rank: the place of
//! the slice in the order of the snapshots. Deletes of all tables run before loads of any, children before parents;
//! loads run parents first.

mod natural;

use super::matching::Target;
use crate::manifest::SliceFormat;
use crate::pg::catalog::{Equality, KeyColumn};
use crate::pg::{quote_identifier, quote_literal};

/// The stage's own columns; no identifier of PostgreSQL's users is likely to hold a tilde.
const RANK: &str = "pgslice~rank";
const LEFT_OUT: &str = "pgslice~left_out";

/// A temporary table that the rows of slices of one table pass through. It has the columns of all of them, and takes
/// those that the table does not have as they come.
#[derive(Debug, Clone)]
pub struct Stage<'a> {
    /// What the slices write to, in the order of their ranks: one table and key, perhaps other columns.
    targets: Vec<&'a Target>,
    name: String,
    number: usize,
    /// Rows of the only slice that its window holds as they are, and that are not staged; `None` where all are.
    unstaged: Option<u64>,
}

/// Slices of one stage that write the same columns.
struct Group<'a> {
    target: &'a Target,
    ranks: Vec<String>,
}

impl<'a> Stage<'a> {
    /// The stage of what slices write to, of which there is at least one; `number` tells the stages of a transaction
    /// apart.
    pub fn new(targets: Vec<&'a Target>, number: usize) -> Stage<'a> {
        let name = format!("pg_temp.{}", quote_identifier(&format!("pgslice_stage_{number}")));
        Stage { targets, name, number, unstaged: None }
    }

    /// The table and the key, which all slices have in common.
    fn target(&self) -> &'a Target {
        self.targets[0]
    }

    /// Do several slices pass through it? A table of 1,600 columns leaves no room for a rank.
    fn is_ranked(&self) -> bool {
        self.targets.len() > 1
    }

    /// How many columns it has.
    pub fn width(&self) -> usize {
        self.columns().len() + self.most_left_out() * 2 + usize::from(self.is_ranked())
    }

    /// The columns that any of the slices writes.
    fn columns(&self) -> Vec<&'a String> {
        let mut columns: Vec<&String> = Vec::new();
        for name in self.targets.iter().flat_map(|target| &target.columns) {
            if !columns.contains(&name) {
                columns.push(name);
            }
        }
        columns
    }

    fn most_left_out(&self) -> usize {
        self.targets.iter().map(|target| target.left_out.len()).max().unwrap_or(0)
    }

    /// The slices by the columns that they write.
    fn groups(&self) -> Vec<Group<'a>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        for (rank, target) in self.targets.iter().enumerate() {
            match groups.iter_mut().find(|group| group.target.columns == target.columns) {
                Some(group) => group.ranks.push(rank.to_string()),
                None => groups.push(Group { target, ranks: vec![rank.to_string()] }),
            }
        }
        groups
    }

    /// The rows of a group, as a further condition; empty where there is one group only.
    fn of_group(&self, group: &Group<'_>) -> String {
        if group.ranks.len() == self.targets.len() {
            return String::new();
        }
        format!(" and staged.{} in ({})", quote_identifier(RANK), group.ranks.join(", "))
    }

    /// Creates it, gone with the transaction.
    pub fn create(&self) -> String {
        let rank = if self.is_ranked() { format!(", 0::integer as {}", quote_identifier(RANK)) } else { String::new() };
        // What is received as text takes any text, and what is received as bytea any bytes.
        let left_out = |place: usize| {
            format!(
                ", null::pg_catalog.text as {}, null::pg_catalog.bytea as {}",
                quote_identifier(&left_out_name(SliceFormat::Text, place)),
                quote_identifier(&left_out_name(SliceFormat::Binary, place))
            )
        };
        format!(
            "create temporary table {} on commit drop as select {}{}{rank} from {} with no data",
            self.name.trim_start_matches("pg_temp."),
            list(&self.columns()),
            (0..self.most_left_out()).map(left_out).collect::<String>(),
            self.target().table
        )
    }

    /// Gives one of its columns a compression; `None` where it has no such column.
    pub fn compress(&self, column: &str, method: &str) -> Option<String> {
        let has = self.columns().iter().any(|own| *own == column);
        has.then(|| {
            format!("alter table {} alter column {} set compression {method}", self.name, quote_identifier(column))
        })
    }

    /// Makes the rows that are loaded next rank as `rank`; `None` where there is one rank only.
    pub fn rank(&self, rank: usize) -> Option<String> {
        self.is_ranked()
            .then(|| format!("alter table {} alter column {} set default {rank}", self.name, quote_identifier(RANK)))
    }

    /// Loads it with the rows of the slice of `rank`, which are in `format`.
    pub fn copy(&self, rank: usize, format: SliceFormat) -> String {
        let target = self.targets[rank];
        let mut kept = target.columns.iter();
        let places = 0..target.columns.len() + target.left_out.len();
        let names: Vec<String> = places
            .filter_map(|place| match target.left_out.iter().position(|left| left.place == place) {
                Some(number) => Some(left_out_name(format, number)),
                None => kept.next().cloned(),
            })
            .collect();
        format!("copy {} ({}) from stdin{}", self.name, list(&names), format.copy_options())
    }

    /// Notes that so many rows of the only slice were left out, as its window holds them.
    pub fn leave_out(&mut self, rows: u64) {
        self.unstaged = Some(rows);
    }

    /// How many were left out; `None` where the whole slice is staged.
    pub fn left_out(&self) -> Option<u64> {
        self.unstaged
    }

    /// Creates the table of the rows of the window that the slice does not have as they are, gone with the transaction.
    pub fn create_unmatched(&self) -> String {
        format!(
            "create temporary table {} (relation pg_catalog.oid, place pg_catalog.tid) on commit drop",
            quote_identifier(&self.unmatched_name())
        )
    }

    /// Loads it.
    pub fn copy_unmatched(&self) -> String {
        format!("copy {} (relation, place) from stdin", self.unmatched())
    }

    fn unmatched(&self) -> String {
        format!("pg_temp.{}", quote_identifier(&self.unmatched_name()))
    }

    fn unmatched_name(&self) -> String {
        format!("pgslice_unmatched_{}", self.number)
    }

    /// Of rows with one key that several slices hold, keeps the one that was read last; then looks at what is there.
    pub fn settle(&self) -> String {
        let (name, rank) = (&self.name, quote_identifier(RANK));
        if self.unstaged.is_some() {
            return format!("analyze {name}, {}", self.unmatched());
        }
        if !self.is_ranked() {
            return format!("analyze {name}");
        }
        let rivals = self.settle_rivals().map(|settle| format!("{settle}; ")).unwrap_or_default();
        format!(
            "delete from {name} as older using {name} as newer where {} and older.{rank} < newer.{rank}; {rivals}analyze {name}",
            equal(&self.target().key, "older", "newer")
        )
    }

    /// Counts the rows that were loaded as `rank` and are still there.
    pub fn count(&self, rank: usize) -> String {
        let all = format!("select pg_catalog.count(*)::text from {}", self.name);
        if self.is_ranked() { format!("{all} where {} = {rank}", quote_identifier(RANK)) } else { all }
    }

    /// Deletes the rows of `windows` (predicates on the table's time column) that the slices do not have.
    pub fn delete_absent(&self, windows: &[String]) -> String {
        let unmatched = self.unstaged.map(|_| {
            format!(
                "using {} as unmatched where present.ctid = unmatched.place and present.tableoid = unmatched.relation and",
                self.unmatched()
            )
        });
        format!(
            "delete from {} as present {} {} and not exists (select from {} as staged where {})",
            self.target().table,
            unmatched.as_deref().unwrap_or("where"),
            any(windows),
            self.name,
            equal(&self.target().key, "present", "staged")
        )
    }

    /// Writes the staged values over rows of the same key that differ, wherever they are now; where `limit` holds only
    /// if given. A statement for each set of columns that slices write; none where the key, and what an UPDATE cannot
    /// change, is all there is. Each answers with two counts: the rows that were changed, and those that were to be.
    ///
    /// Rows are compared by their images (`*<>`): every type has one, and equal numbers of different scale differ. Of
    /// the key's columns those are compared and written that can be equal without being the same. Columns that no
    /// UPDATE can change are left as they are.
    pub fn update_changed(&self, limit: Option<&str>) -> Vec<String> {
        self.groups().iter().filter_map(|group| self.update_group(group, limit)).collect()
    }

    fn update_group(&self, group: &Group<'_>, limit: Option<&str>) -> Option<String> {
        let Target { columns, key, fixed, .. } = group.target;
        let is_same = |name: &String| key.iter().any(|part| part.name == *name && part.equality == Equality::Strict);
        let values: Vec<&String> = columns.iter().filter(|name| !is_same(name) && !fixed.contains(name)).collect();
        if values.is_empty() {
            return None;
        }
        let assignments: Vec<String> =
            values.iter().map(|name| format!("{0} = staged.{0}", quote_identifier(name))).collect();
        let row = |side: &str| -> String {
            let columns: Vec<String> = values.iter().map(|name| format!("{side}.{}", quote_identifier(name))).collect();
            format!("row({})::pg_catalog.record", columns.join(", "))
        };
        let limit = limit.map(|limit| format!(" and ({limit})")).unwrap_or_default();
        let (table, name) = (&self.target().table, &self.name);
        let differ = format!(
            "{} and {} operator(pg_catalog.*<>) {}{limit}{}",
            equal(&self.target().key, "present", "staged"),
            row("present"),
            row("staged"),
            self.of_group(group),
        );
        // Both see the table as it was before.
        Some(format!(
            "with changed as (update {table} as present set {} from {name} as staged where {differ} returning 1) \
             select (select pg_catalog.count(*) from changed)::text, \
             (select pg_catalog.count(*) from {table} as present, {name} as staged where {differ})::text",
            assignments.join(", "),
        ))
    }

    /// The limit of an update by slices of which only those from `rank` on may change rows of other windows.
    pub fn within_or_from(&self, windows: &[String], rank: usize) -> String {
        let newest = self.is_of_newest(rank);
        if windows.is_empty() { newest } else { format!("{newest} or {}", any(windows)) }
    }

    /// Whether a staged row is of the slice of `rank` or a newer one.
    fn is_of_newest(&self, rank: usize) -> String {
        if self.is_ranked() { format!("staged.{} >= {rank}", quote_identifier(RANK)) } else { (rank == 0).to_string() }
    }

    /// Counts staged rows whose key is not in the table: after the merge there must be none.
    pub fn count_absent(&self) -> String {
        format!(
            "select pg_catalog.count(*)::text from {} as staged where not exists (select from {} as present where {})",
            self.name,
            self.target().table,
            equal(&self.target().key, "present", "staged")
        )
    }

    /// Notes the times of rows outside `windows` that have the key of a staged row.
    pub fn create_moved(&self, time_column: &str, windows: &[String]) -> String {
        let column = quote_identifier(time_column);
        format!(
            "create temporary table {} on commit drop as select present.{column} from {} as present \
             where exists (select from {} as staged where {}) and ({}) is not true",
            quote_identifier(&self.moved_name()),
            self.target().table,
            self.name,
            equal(&self.target().key, "present", "staged"),
            any(windows),
        )
    }

    /// Counts them.
    pub fn count_moved(&self) -> String {
        self.count_moved_in("true")
    }

    /// Counts those within a window of `moved`.
    pub fn count_moved_in(&self, window: &str) -> String {
        let moved = quote_identifier(&self.moved_name());
        format!("select pg_catalog.count(*)::text from pg_temp.{moved} as moved where {window}")
    }

    /// Forgets them.
    pub fn drop_moved(&self) -> String {
        format!("drop table pg_temp.{}", quote_identifier(&self.moved_name()))
    }

    fn moved_name(&self) -> String {
        format!("pgslice_moved_{}", self.number)
    }

    /// Inserts staged rows whose key is not there: a statement for each set of columns that slices write.
    pub fn insert_new(&self) -> Vec<String> {
        let absent = |group: &Group<'_>| {
            format!(
                "{} where not exists (select from {} as present where {}){}",
                self.insert(group.target),
                self.target().table,
                equal(&self.target().key, "present", "staged"),
                self.of_group(group),
            )
        };
        self.groups().iter().map(absent).collect()
    }

    /// Inserts all rows of the only slice.
    pub fn insert_all(&self) -> String {
        self.insert(self.target())
    }

    fn insert(&self, target: &Target) -> String {
        let columns: Vec<String> =
            target.columns.iter().map(|name| format!("staged.{}", quote_identifier(name))).collect();
        format!(
            "insert into {} ({}) overriding system value select {} from {} as staged",
            target.table,
            list(&target.columns),
            columns.join(", "),
            self.name
        )
    }

    /// Drops it before the transaction ends.
    pub fn drop(&self) -> String {
        match self.unstaged {
            Some(_) => format!("drop table {}, {}", self.name, self.unmatched()),
            None => format!("drop table {}", self.name),
        }
    }
}

/// Loads a target directly with rows in `format`.
pub fn copy_into(target: &Target, format: SliceFormat) -> String {
    format!("copy {} ({}) from stdin{}", target.table, list(&target.columns), format.copy_options())
}

/// Reads back what a target's window holds, as a slice in `format` does.
pub fn copy_window(target: &Target, window: &str, format: SliceFormat) -> String {
    format!(
        "copy (select {} from {} as present where {window}) to stdout{}",
        list(&target.columns),
        target.table,
        format.copy_options()
    )
}

/// Reads the same as text, each row after its table's oid and its place there.
pub fn copy_places(target: &Target, window: &str) -> String {
    format!(
        "copy (select present.tableoid, present.ctid, {} from {} as present where {window}) to stdout",
        list(&target.columns),
        target.table
    )
}

/// Counts what a target's window holds.
pub fn count_window(target: &Target, window: &str) -> String {
    format!("select pg_catalog.count(*)::text from {} as present where {window}", target.table)
}

/// Empties a target's window.
pub fn delete_window(target: &Target, window: &str) -> String {
    format!("delete from {} as present where {window}", target.table)
}

/// Moves a sequence past the values of its column, never back. `window` limits where the values are looked for.
pub fn advance_sequence(
    target: &Target,
    column: &str,
    sequence: &str,
    descending: bool,
    window: Option<&str>,
) -> String {
    let (farthest, beyond) = if descending { ("min", "<") } else { ("max", ">") };
    let condition = window.map(|window| format!(" where {window}")).unwrap_or_default();
    format!(
        "select pg_catalog.setval({regclass}::pg_catalog.regclass, loaded.farthest) \
         from (select pg_catalog.{farthest}({column})::pg_catalog.int8 as farthest from {table} as present{condition}) as loaded, \
         {sequence} as sequence \
         where loaded.farthest {beyond} sequence.last_value or (loaded.farthest = sequence.last_value and not sequence.is_called)",
        regclass = quote_literal(sequence),
        column = quote_identifier(column),
        table = target.table,
    )
}

/// The stage's own column for a column of the data that the table does not have.
fn left_out_name(format: SliceFormat, number: usize) -> String {
    let kind = if format == SliceFormat::Binary { "bytes" } else { "text" };
    format!("{LEFT_OUT}_{kind}_{number}")
}

fn list(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|name| quote_identifier(name.as_ref())).collect::<Vec<_>>().join(", ")
}

fn equal(key: &[KeyColumn], left: &str, right: &str) -> String {
    key.iter().map(|column| column.equal(left, right)).collect::<Vec<_>>().join(" and ")
}

fn any(conditions: &[String]) -> String {
    let alternatives: Vec<String> = conditions.iter().map(|condition| format!("({condition})")).collect();
    format!("({})", alternatives.join(" or "))
}

#[cfg(test)]
mod tests;
