//! One transaction: the rows of a batch of days and their ledger rows, or nothing.
//!
//! Blocking: runs on a thread of its own over one [`Session`], and pulls verified rows from [`Rows`].

mod decision;
mod differences;
mod loading;
mod natural;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::Context;

use super::adopt::{self, Expected, Found};
use super::conflict::{CANNOT_COMMIT, is_foreign_key_violation, no_common_key, no_room_for_ranks, not_as_published};
use super::fetch::Supply;
use super::ledger::{self, Entry, Ledger, Origin, Record};
use super::matching::{Absence, Target};
use super::merge::{self, Stage};
use super::plan::Dated;
use super::restored::Restored;
use super::shape::Shape;
use crate::day::{Day, Zone};
use crate::feed::{DayEntry, Feed, Standing};
use crate::manifest::{self, Manifest, Slice, Taken, TimeBounds};
use crate::pg::{Session, quote_qualified};
use crate::progress::Progress;

/// PostgreSQL's limit for a table.
const MAX_COLUMNS: usize = 1_600;

/// A day to apply: its manifest, and the slices that the replica accepts with their targets.
pub struct PendingDay {
    /// The day's entry in the head.
    pub entry: DayEntry,
    /// Its record.
    pub manifest: Manifest,
    /// Slices (by index into the manifest) and where they go.
    pub targets: Vec<(usize, Target)>,
    /// The replica holds an earlier revision with other rows.
    pub revises: bool,
    /// The statements that make partitions for it.
    pub partitions: Vec<String>,
}

impl Dated for PendingDay {
    /// When the day was as it is: it may have been read again since it was published, and found unchanged.
    fn taken(&self) -> &Taken {
        self.entry.taken.as_ref().unwrap_or(&self.manifest.taken)
    }

    fn is_revision(&self) -> bool {
        self.revises
    }

    fn day(&self) -> Day {
        self.entry.day
    }
}

/// `--force`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// Rows that the feed does not know are kept when a window is first met, and after.
    Keep,
    /// They are deleted.
    Delete,
}

/// What became of a slice.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The day.
    pub day: Day,
    /// `schema.table`
    pub table: String,
    /// How.
    pub origin: Origin,
    /// The slice's rows.
    pub rows: u64,
    /// Rows that the feed does not know were kept.
    pub keeps_extra_rows: bool,
}

/// Applies batches over one session.
pub struct Applier {
    /// The session; its loss ends the transaction.
    pub session: Session,
    /// The head that is caught up with.
    pub feed: Feed,
    /// The zone that defines its days.
    pub timezone: Zone,
    /// Where rows come from.
    pub supply: Supply,
    /// The slices that the present transaction will load, in their order.
    pub upcoming: VecDeque<Slice>,
    /// The slice that the next transaction begins with, as far as that can be told.
    pub following: Option<Slice>,
    /// What the replica holds; kept up with every commit.
    pub ledger: Ledger,
    /// What the replica was restored from.
    pub restored: Restored,
    /// The order of tables.
    pub shape: Shape,
    /// What to do with rows that the feed does not know.
    pub extra: Extra,
    /// Whether rows may go straight into their table.
    pub direct: Direct,
    /// Whether slices may be staged by their differences.
    pub staging: Staging,
    /// Whether the present transaction may. Such a one sees no row that others write meanwhile: rows are told by their
    /// places, which change as they are written.
    pub staged: Staging,
    /// Whether writes to any of the tables run code of the replica's.
    pub triggers: Triggers,
    /// What a person sees meanwhile.
    pub progress: Progress,
    /// Rows of reference tables that the present transaction takes away.
    pub giving_way: Vec<GaveWay>,
}

/// Rows of a reference table that gave way to others of the same natural key, and did not come back.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GaveWay {
    /// `schema.table`
    pub table: String,
    /// How many they are.
    pub rows: u64,
    /// The keys of some.
    pub keys: Vec<String>,
}

/// May a day without a row on the replica be loaded by COPY?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direct {
    /// Yes; a key that exists in another window is noticed by the COPY.
    Allowed,
    /// No: it was noticed only by COMMIT, as by a key that is DEFERRABLE.
    Avoided,
}

/// What is staged of a slice that is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staging {
    /// All of its rows.
    Whole,
    /// Rows that its window does not hold as they are, where it can be told which these are.
    Differences,
}

/// Triggers on the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Triggers {
    /// There are none.
    None,
    /// Some table has one.
    Some,
}

/// How a slice gets into its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// An earlier revision held the same rows.
    Unchanged,
    /// The replica's own rows are the same.
    Adopt,
    /// COPY into an empty window.
    Direct,
    /// Stage and merge by key.
    Merge { absent: Absent },
    /// Delete the window and load it: there is no key to merge by.
    Replace,
}

/// What a merge does with rows of the window that the slice does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    Deleted,
    Kept,
    /// As `Kept`, and rows that are there stay as they are: they come from a dump that is newer than the slice, as far
    /// as the order of the two can be told. The window holds what the slice has, and what came after it.
    Spared,
}

/// Slices that the ledger must no longer call held: rows of them went elsewhere. They stay pending until they are true.
type Doubts = BTreeSet<(Day, String)>;

/// One slice of the batch and how it goes.
struct Work<'a> {
    day: &'a PendingDay,
    slice: &'a Slice,
    target: &'a Target,
    way: Way,
    keeps_extra_rows: bool,
}

impl Work<'_> {
    /// When the slice was as it is: a carried one was read again and found equal when its day was.
    fn taken(&self) -> &Taken {
        self.day.taken()
    }

    fn window(&self) -> Option<String> {
        self.target.time.as_ref().map(|time| time.predicate_of("present"))
    }

    fn is_merged(&self) -> bool {
        matches!(self.way, Way::Merge { .. })
    }

    fn is_spared(&self) -> bool {
        self.way == Way::Merge { absent: Absent::Spared }
    }

    fn origin(&self) -> Origin {
        match self.way {
            Way::Unchanged => Origin::Unchanged,
            Way::Adopt => Origin::Adopted,
            Way::Direct | Way::Replace => Origin::Loaded,
            Way::Merge { .. } => Origin::Merged,
        }
    }
}

impl Applier {
    /// Applies a batch in one transaction with its ledger rows. After an error nothing of it is there, except that an
    /// error of COMMIT itself leaves that open: the next run reads the ledger and knows.
    ///
    /// # Errors
    /// The server's, the store's; class Integrity when rows are not what the manifest says; class Drift when a slice
    /// cannot be applied to its table without losing something.
    pub fn apply(&mut self, batch: &[PendingDay]) -> anyhow::Result<Vec<Applied>> {
        self.giving_way.clear();
        self.upcoming.clear();
        // What was never held is not told by its differences.
        self.staged = if batch.iter().any(|day| day.revises) { self.staging } else { Staging::Whole };
        let isolation = match self.staged {
            Staging::Whole => "read committed",
            Staging::Differences => "repeatable read",
        };
        self.session.run(&format!("begin isolation level {isolation}; set constraints all deferred"))?;
        match self.apply_in_transaction(batch) {
            Ok((applied, entries)) => {
                self.session.run("commit").context(CANNOT_COMMIT)?;
                self.ledger.extend(entries);
                Ok(applied)
            }
            Err(error) => {
                // The connection may be gone, and the transaction with it.
                if let Err(rollback) = self.session.run("rollback") {
                    tracing::debug!(%rollback, "the transaction ended with its connection");
                }
                Err(error)
            }
        }
    }

    fn apply_in_transaction(&mut self, batch: &[PendingDay]) -> anyhow::Result<(Vec<Applied>, Ledger)> {
        let mut work = Vec::new();
        for day in batch {
            for statements in &day.partitions {
                self.session
                    .run(statements)
                    .with_context(|| format!("cannot make a partition for {}", day.entry.day))?;
            }
            for (index, target) in &day.targets {
                work.push(self.decide(day, &day.manifest.slices[*index], target, batch.len())?);
            }
        }
        let mut tables: BTreeMap<u32, Vec<Work<'_>>> = BTreeMap::new();
        let mut oids = Vec::new();
        for item in work {
            if !oids.contains(&item.target.oid) {
                oids.push(item.target.oid);
            }
            tables.entry(item.target.oid).or_default().push(item);
        }
        let order = self.shape.parents_first(oids);
        for oid in &order {
            let table = manifest::in_order_read(tables.remove(oid).unwrap_or_default(), Work::taken);
            tables.insert(*oid, table);
        }
        self.expect_loads(order.iter().flat_map(|oid| &tables[oid]));
        let mut stages = BTreeMap::new();
        for (number, oid) in order.iter().enumerate() {
            if let Some(stage) = self.stage(&tables[oid], number)? {
                stages.insert(*oid, stage);
            }
        }
        let (mut emptied, mut late) = (BTreeSet::new(), BTreeSet::new());
        for oid in order.iter().rev() {
            match self.delete_if_unneeded(*oid, &tables[oid], stages.get(oid))? {
                Some(0) => {}
                Some(_) => {
                    emptied.insert(*oid);
                }
                None => {
                    late.insert(*oid);
                }
            }
        }
        let mut doubts = Doubts::new();
        for (number, oid) in order.iter().enumerate() {
            let table = tables.get_mut(oid).map(Vec::as_mut_slice).unwrap_or_default();
            self.load(table, stages.get(oid), order.len() + number, &mut doubts)?;
        }
        for oid in order.iter().rev().filter(|oid| late.contains(oid)) {
            if self.delete(&tables[oid], stages.get(oid))? > 0 {
                emptied.insert(*oid);
            }
        }
        for oid in &order {
            if let (Some(table), Some(stage)) = (tables.get_mut(oid), stages.get(oid)) {
                self.check_windows(table, stage, &mut doubts)?;
            }
        }
        for oid in &order {
            self.advance_sequences(&tables[oid])?;
        }
        for oid in self.shape.swept_along(&emptied) {
            self.doubt_what_was_swept_along(tables.get(&oid).map(Vec::as_slice).unwrap_or_default(), &mut doubts)?;
        }
        let mut applied = Vec::new();
        let mut entries = Ledger::new();
        for item in order.iter().flat_map(|oid| &tables[oid]) {
            entries.extend([self.record(item)?]);
            applied.push(Applied {
                day: item.day.entry.day,
                table: item.target.name.clone(),
                origin: item.origin(),
                rows: item.slice.rows,
                keeps_extra_rows: item.keeps_extra_rows,
            });
        }
        for (day, table) in doubts {
            ledger::doubt(&mut self.session, &self.feed.feed_id, day, &table)?;
            let key = (day, table);
            if let Some(entry) = entries.get(&key).or_else(|| self.ledger.get(&key)).cloned() {
                entries.insert(key, entry.in_doubt());
            }
        }
        applied.sort_by(|a, b| (a.day, &a.table).cmp(&(b.day, &b.table)));
        Ok((applied, entries))
    }

    /// Is there nothing to do about a day but what the ledger doubts?
    pub fn is_only_in_doubt(&self, day: &PendingDay) -> bool {
        day.targets.iter().all(|(_, target)| {
            let held = self.ledger.get(&(day.entry.day, target.name.clone()));
            held.is_some_and(|held| held.is_in_doubt() || held.manifest_sha256 == day.entry.manifest.sha256)
        })
    }

    /// Brings the rows of a table's merged slices into its stage, the slice that was read last on top.
    fn stage<'a>(&mut self, table: &[Work<'a>], number: usize) -> anyhow::Result<Option<Stage<'a>>> {
        let merged: Vec<&Work<'a>> = table.iter().filter(|item| item.is_merged()).collect();
        let Some(first) = merged.first() else { return Ok(None) };
        if let Some(other) = merged.iter().find(|item| item.target.key != first.target.key) {
            return Err(no_common_key(other.target).into());
        }
        let mut stage = Stage::new(merged.iter().map(|item| item.target).collect(), number);
        if stage.width() > MAX_COLUMNS {
            return Err(no_room_for_ranks(first.target).into());
        }
        self.create_stage(&stage, first.target)?;
        if let [item] = merged[..]
            && let Some(held) = self.read_window(item)?
        {
            self.stage_differences(item, &mut stage, held)?;
            return Ok(Some(stage));
        }
        for (rank, item) in merged.iter().enumerate() {
            if let Some(rank) = stage.rank(rank) {
                self.session.run(&rank)?;
            }
            self.copy(&stage.copy(rank, item.slice.format), item)?;
        }
        self.session.run(&stage.settle())?;
        Ok(Some(stage))
    }

    /// Deletes as [`Applier::delete`] does; `None`, with nothing deleted, where rows that stay still point at rows that go,
    /// in this table or another: loads will change those first.
    fn delete_if_unneeded(
        &mut self,
        oid: u32,
        table: &[Work<'_>],
        stage: Option<&Stage<'_>>,
    ) -> anyhow::Result<Option<u64>> {
        if !self.shape.is_referenced(oid) {
            return self.delete(table, stage).map(Some);
        }
        self.session.run("savepoint deletes")?;
        match self.delete(table, stage) {
            Ok(deleted) => {
                self.session.run("release savepoint deletes")?;
                Ok(Some(deleted))
            }
            Err(error) if is_foreign_key_violation(&error) => {
                self.session.run("rollback to savepoint deletes")?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes what the slices of a table prove to be gone; says how many rows that were.
    fn delete(&mut self, table: &[Work<'_>], stage: Option<&Stage<'_>>) -> anyhow::Result<u64> {
        let mut deleted = 0;
        let windows: Vec<String> = table
            .iter()
            .filter(|item| item.way == Way::Merge { absent: Absent::Deleted })
            .filter_map(Work::window)
            .collect();
        if let Some(stage) = stage
            && !windows.is_empty()
        {
            deleted += self
                .session
                .execute(&stage.delete_absent(&windows), &[])
                .with_context(|| format!("cannot delete from {}", table[0].target.name))?;
        }
        for item in table.iter().filter(|item| item.way == Way::Replace) {
            if let Some(window) = item.window() {
                deleted += self.session.execute(&merge::delete_window(item.target, &window), &[])?;
            }
        }
        Ok(deleted)
    }

    fn load(
        &mut self,
        table: &mut [Work<'_>],
        stage: Option<&Stage<'_>>,
        number: usize,
        doubts: &mut Doubts,
    ) -> anyhow::Result<()> {
        if let Some(stage) = stage {
            let name = &table[0].target.name;
            self.merge(table, stage, doubts).with_context(|| format!("cannot merge into {name}"))?;
        }
        for item in table {
            match item.way {
                Way::Direct if item.target.key.is_empty() => self.load_whole(item, number)?,
                Way::Direct => self.load_directly(item, number, doubts)?,
                Way::Replace => {
                    self.load_whole(item, number)?;
                    self.check_replaced(item)?;
                }
                Way::Unchanged | Way::Adopt | Way::Merge { .. } => {}
            }
        }
        Ok(())
    }

    fn merge(&mut self, table: &[Work<'_>], stage: &Stage<'_>, doubts: &mut Doubts) -> anyhow::Result<()> {
        let merged: Vec<&Work<'_>> = table.iter().filter(|item| item.is_merged()).collect();
        // Never older over newer: slices that were read before the newest that this table holds change rows of their own
        // windows only, and of a reference table none. Those that were not are the last ones.
        let newest_from = self.newest_from(&merged);
        let windows: Vec<String> = merged.iter().filter_map(|item| item.window()).collect();
        let changed: Vec<String> =
            merged.iter().filter(|item| !item.is_spared()).filter_map(|item| item.window()).collect();
        let limit = (newest_from > 0).then(|| stage.within_or_from(&changed, newest_from));
        if newest_from < merged.len()
            && let Some(first) = merged.first()
        {
            self.doubt_what_moves(first.target, stage, &windows, doubts)?;
        }
        self.give_way(table, &merged, stage, newest_from, doubts)?;
        for update in stage.update_changed(limit.as_deref()) {
            let counts = self.session.query(&update, &[])?;
            let row = counts.first().context("an update is counted")?;
            if row.text(0)? != row.text(1)? {
                let problem = format!("took {} of {} changed rows", row.text(0)?, row.text(1)?);
                return Err(not_as_published(&merged[0].target.name, &problem));
            }
        }
        for insert in stage.insert_new() {
            self.session.run(&insert)?;
        }
        let swallowed = self.count(&stage.count_absent())?;
        if swallowed > 0
            && let Some(first) = merged.first()
        {
            return Err(not_as_published(&first.target.name, &format!("does not take {swallowed} of its rows")));
        }
        Ok(())
    }

    /// The place of the first slice that was not read before the newest that this table holds.
    fn newest_from(&self, merged: &[&Work<'_>]) -> usize {
        merged.iter().take_while(|item| !self.is_newest(item.target, item.taken())).count()
    }

    /// Holds the windows that were merged into against their slices, when everything is deleted that goes; then drops
    /// the stage.
    fn check_windows(&mut self, table: &mut [Work<'_>], stage: &Stage<'_>, doubts: &mut Doubts) -> anyhow::Result<()> {
        let newest_from = self.newest_from(&table.iter().filter(|item| item.is_merged()).collect::<Vec<_>>());
        for (rank, item) in table.iter_mut().filter(|item| item.is_merged()).enumerate() {
            let staged = if rank >= newest_from { Some(self.count(&stage.count(rank))?) } else { None };
            let expected = staged.map(|staged| staged + stage.left_out().unwrap_or(0));
            self.check_window(item, expected, doubts)?;
            if stage.left_out().is_some() {
                self.prove(item)?;
            }
        }
        Ok(self.session.run(&stage.drop())?)
    }

    /// Holds the window that was merged into against its slice. With the newest rows it must hold exactly those of the
    /// stage: a trigger or rule of the replica could have swallowed some. What it lacks otherwise is in another window,
    /// by a newer slice: the ledger must not say that it is held.
    fn check_window(&mut self, item: &mut Work<'_>, expected: Option<u64>, doubts: &mut Doubts) -> anyhow::Result<()> {
        let Some(window) = item.window().filter(|_| item.target.absence == Absence::Proven) else { return Ok(()) };
        if item.is_spared() {
            return Ok(());
        }
        let rows = self.count(&merge::count_window(item.target, &window))?;
        if item.keeps_extra_rows {
            // What was there already may have been the feed's own rows, and nothing else.
            item.keeps_extra_rows = rows != item.slice.rows;
            return Ok(());
        }
        match expected {
            Some(expected) if rows != expected => {
                let problem = format!("would hold {rows} rows, the feed has {expected}");
                Err(not_as_published(&format!("{} {}", item.day.entry.day, item.target.name), &problem))
            }
            _ => {
                if rows != item.slice.rows {
                    doubts.insert((item.day.entry.day, item.target.name.clone()));
                }
                Ok(())
            }
        }
    }

    /// Staged rows that are in windows of other days now will leave those: what the ledger says of these days is no
    /// longer true.
    fn doubt_what_moves(
        &mut self,
        target: &Target,
        stage: &Stage<'_>,
        windows: &[String],
        doubts: &mut Doubts,
    ) -> anyhow::Result<()> {
        let Some(time) = &target.time else { return Ok(()) };
        self.session.run(&stage.create_moved(&time.column, windows))?;
        if self.count(&stage.count_moved())? > 0 {
            for (day, bounds) in self.held_days(target, time) {
                if self.count(&stage.count_moved_in(&bounds.predicate_of("moved")))? > 0 {
                    doubts.insert((day, target.name.clone()));
                }
            }
        }
        Ok(self.session.run(&stage.drop_moved())?)
    }

    /// Rows of a table may have gone with rows that a foreign key makes them follow: every day that the ledger says is
    /// held is looked at.
    fn doubt_what_was_swept_along(&mut self, table: &[Work<'_>], doubts: &mut Doubts) -> anyhow::Result<()> {
        let Some(target) = table.first().map(|item| item.target) else { return Ok(()) };
        let Some(time) = &target.time else {
            let held = self.ledger.keys().filter(|(_, table)| *table == target.name);
            doubts.extend(held.max().cloned());
            return Ok(());
        };
        for (day, bounds) in self.held_days(target, time) {
            let key = (day, target.name.clone());
            let of_batch = table.iter().find(|item| item.day.entry.day == day);
            let of_ledger = self.ledger.get(&key);
            let expected = match (of_batch, of_ledger) {
                (Some(item), _) if !item.keeps_extra_rows => Expected::of(item.slice),
                (None, Some(held)) if !held.keeps_extra_rows => {
                    Expected { rows: held.rows, digest: held.rows_digest, format: held.format }
                }
                _ => continue,
            };
            let window = Target { time: Some(bounds), ..target.clone() };
            if adopt::look(&mut self.session, &window, expected)? != Found::Equal {
                doubts.insert(key);
            }
        }
        Ok(())
    }

    /// The days of the feed that the ledger holds for a table, with the bounds of its time column.
    fn held_days(&self, target: &Target, time: &TimeBounds) -> Vec<(Day, TimeBounds)> {
        let zone = time.zone.as_ref().and_then(|zone| zone.parse().ok());
        let held = |day: Day| self.ledger.contains_key(&(day, target.name.clone()));
        self.feed
            .days
            .iter()
            .filter(|entry| held(entry.day))
            .map(|entry| {
                let bounds = TimeBounds::of(&time.column, time.kind, zone, self.timezone, entry.day, entry.window);
                (entry.day, bounds)
            })
            .collect()
    }

    fn count(&mut self, sql: &str) -> anyhow::Result<u64> {
        match self.session.query(sql, &[])?.first() {
            Some(row) => Ok(row.text(0)?.parse()?),
            None => Ok(0),
        }
    }

    /// Is `taken` no earlier than anything that this table holds? With `--force` the rows of a dump do not count: it is
    /// the feed's rows that are wanted.
    fn is_newest(&self, target: &Target, taken: &Taken) -> bool {
        let after_dump = self.extra == Extra::Delete
            || matches!(self.restored.standing(&target.name, taken), None | Some(Standing::After));
        after_dump
            && self
                .ledger
                .iter()
                .filter(|((_, table), held)| *table == target.name && held.table_oid == target.oid)
                .all(|(_, held)| held.taken.order(taken).is_le())
    }

    fn advance_sequences(&mut self, table: &[Work<'_>]) -> anyhow::Result<()> {
        let loaded: Vec<&Work<'_>> =
            table.iter().filter(|item| !matches!(item.way, Way::Unchanged) && item.slice.rows > 0).collect();
        let Some(first) = loaded.first() else { return Ok(()) };
        let windows: Vec<String> = loaded.iter().filter_map(|item| item.window()).collect();
        let window = (!windows.is_empty()).then(|| format!("({})", windows.join(") or (")));
        for sequence in self.shape.sequences.iter().filter(|sequence| sequence.relation == first.target.oid) {
            if !first.target.columns.contains(&sequence.column) {
                continue;
            }
            let name = quote_qualified(&sequence.schema, &sequence.name);
            let sql =
                merge::advance_sequence(first.target, &sequence.column, &name, sequence.descending, window.as_deref());
            self.session.run(&sql).with_context(|| format!("cannot move sequence {name}"))?;
        }
        Ok(())
    }

    fn record(&mut self, item: &Work<'_>) -> anyhow::Result<((Day, String), Entry)> {
        let entry = &item.day.entry;
        let record = Record {
            day: entry.day,
            slice: item.slice,
            revision: entry.revision,
            columns: ledger::columns_of(item.slice, &item.target.left_out),
            state: entry.state.word(),
            manifest_sha256: &entry.manifest.sha256,
            taken: item.taken(),
            time_column: ledger::time_column_of(item.target.time.as_ref()),
            table_oid: item.target.oid,
            origin: item.origin(),
            keeps_extra_rows: item.keeps_extra_rows,
        };
        ledger::write(&mut self.session, &self.feed.feed_id, &record)?;
        let held = Entry {
            revision: entry.revision,
            manifest_sha256: entry.manifest.sha256.clone(),
            rows_digest: item.slice.rows_digest,
            format: item.slice.format,
            columns: record.columns,
            time_column: ledger::time_column_of(item.target.time.as_ref()),
            rows: item.slice.rows,
            taken: item.taken().clone(),
            table_oid: item.target.oid,
            keeps_extra_rows: item.keeps_extra_rows,
        };
        Ok(((entry.day, item.target.name.clone()), held))
    }
}
