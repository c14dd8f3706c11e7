//! The statements that let rows of the table give way to staged rows with the same natural key.
//!
//! A row is in the way when a staged row has its natural key and another key: on the source it is gone, or has another
//! natural key by now. Such rows are deleted, and those of them that are staged too are inserted anew, in one statement:
//! foreign keys without an action are checked at its end, and find the rows that are back.

use super::{RANK, Stage, equal};
use crate::catchup::matching::Target;
use crate::catchup::shape::Cascade;
use crate::pg::catalog::UniqueKey;
use crate::pg::quote_identifier;

impl Stage<'_> {
    /// The natural key, which all slices carry; empty for none.
    pub fn natural(&self) -> UniqueKey {
        let first = &self.target().natural;
        if self.targets.iter().all(|target| target.natural == *first) { first.clone() } else { UniqueKey::new() }
    }

    /// One row is called `one`, the other `other`: they are of one natural key and not the same.
    fn rivals(&self, one: &str, other: &str) -> String {
        format!("{} and not ({})", equal(&self.natural(), one, other), equal(&self.target().key, one, other))
    }

    /// Of staged rows with one natural key that several slices hold, keeps those that were read last.
    pub(super) fn settle_rivals(&self) -> Option<String> {
        if !self.is_ranked() || self.natural().is_empty() {
            return None;
        }
        let (name, rank) = (&self.name, quote_identifier(RANK));
        let rivals = self.rivals("older", "newer");
        Some(format!(
            "delete from {name} as older using {name} as newer where {rivals} and older.{rank} < newer.{rank}"
        ))
    }

    /// Forgets staged rows of slices before `rank` whose natural key a row of the table has, unless a newer slice gives
    /// that one another: what the table holds is newer than they are.
    pub fn drop_superseded(&self, rank: usize) -> String {
        let (is_older, is_newer) = (format!("not ({})", self.is_of_newest(rank)), self.is_of_newest(rank));
        format!(
            "delete from {name} as superseded using {table} as present where {rivals} \
             and exists (select from {name} as staged where {same} and {is_older}) \
             and not exists (select from {name} as staged where {of_present} and {is_newer})",
            name = self.name,
            table = self.target().table,
            rivals = self.rivals("present", "superseded"),
            same = equal(&self.target().key, "superseded", "staged"),
            of_present = equal(&self.target().key, "present", "staged"),
        )
    }

    /// Notes the rows of the table that are in the way, as they are.
    pub fn create_leaving(&self) -> String {
        format!(
            "create temporary table {} on commit drop as select present.* from {} as present \
             where exists (select from {} as staged where {})",
            quote_identifier(&self.leaving_name()),
            self.target().table,
            self.name,
            self.rivals("present", "staged"),
        )
    }

    /// Counts them.
    pub fn count_leaving(&self) -> String {
        format!("select pg_catalog.count(*)::text from {}", self.leaving())
    }

    /// Counts those of a window that do not come back.
    pub fn count_leaving_for_good(&self, window: &str) -> String {
        format!(
            "select pg_catalog.count(*)::text from {} as leaving where {window} and {}",
            self.leaving(),
            self.is_gone(),
        )
    }

    /// Whether a row that is in the way does not come back.
    pub fn is_gone(&self) -> String {
        let of_leaving = equal(&self.target().key, "leaving", "back");
        format!("not exists (select from {} as back where {of_leaving})", self.name)
    }

    /// The keys of some of those.
    pub fn gone_keys(&self, limit: usize) -> String {
        format!(
            "select {} from {} as leaving where {} order by 1 limit {limit}",
            self.key_of("leaving"),
            self.leaving(),
            self.is_gone()
        )
    }

    fn key_of(&self, side: &str) -> String {
        let columns: Vec<String> =
            self.target().key.iter().map(|part| format!("{side}.{}", quote_identifier(&part.name))).collect();
        format!("row({})::text", columns.join(", "))
    }

    /// The keys of some rows that are in the way and of which `condition` holds, each with that of the row that it gives
    /// way to.
    pub fn rival_keys(&self, condition: &str, limit: usize) -> String {
        format!(
            "select {}, {} from {} as leaving, {} as staged where {} and {condition} order by 1, 2 limit {limit}",
            self.key_of("leaving"),
            self.key_of("staged"),
            self.leaving(),
            self.name,
            self.rivals("leaving", "staged"),
        )
    }

    /// Whether rows that are in the way have child rows that would go or change with them.
    pub fn would_cascade(&self, cascade: &Cascade) -> String {
        let pairs: Vec<String> = cascade
            .columns
            .iter()
            .map(|pair| {
                let (parent, child) = (quote_identifier(&pair.parent), quote_identifier(&pair.child));
                format!("leaving.{parent} {} child.{child}", pair.equals)
            })
            .collect();
        format!(
            "select exists (select from {} as leaving, {} as child where {})::text",
            self.leaving(),
            cascade.child,
            pairs.join(" and ")
        )
    }

    /// Deletes what is in the way, and inserts anew what of it is staged; columns that the slices do not carry keep
    /// their values. Answers with the count of rows that were deleted.
    pub fn replace_leaving(&self) -> String {
        let Target { table, key, .. } = self.target();
        let leaving = self.leaving();
        let returning = |(number, group): (usize, &super::Group<'_>)| {
            let written = &group.target.columns;
            let kept: Vec<&String> = group.target.stored.iter().filter(|name| !written.contains(name)).collect();
            let names = |side: &str, names: &[&String]| -> Vec<String> {
                names.iter().map(|name| format!("{side}{}", quote_identifier(name))).collect()
            };
            let written: Vec<&String> = written.iter().collect();
            let columns = [names("", &written), names("", &kept)].concat().join(", ");
            let values = [names("staged.", &written), names("leaving.", &kept)].concat().join(", ");
            // The count is had when all rows are deleted, and before the first one is inserted.
            format!(
                "back_{number} as (insert into {table} ({columns}) overriding system value select {values} \
                 from {} as staged join {leaving} as leaving on {} \
                 where (select pg_catalog.count(*) from gone) >= 0{} returning 1)",
                self.name,
                equal(key, "staged", "leaving"),
                self.of_group(group),
            )
        };
        let groups = self.groups();
        let returning: Vec<String> = groups.iter().enumerate().map(returning).collect();
        format!(
            "with gone as (delete from {table} as present using {leaving} as leaving where {} returning 1), {} \
             select (select pg_catalog.count(*) from gone)::text",
            equal(key, "present", "leaving"),
            returning.join(", "),
        )
    }

    /// Forgets them.
    pub fn drop_leaving(&self) -> String {
        format!("drop table {}", self.leaving())
    }

    fn leaving(&self) -> String {
        format!("pg_temp.{}", quote_identifier(&self.leaving_name()))
    }

    fn leaving_name(&self) -> String {
        format!("pgslice_leaving_{}", self.number)
    }
}
