//! A slice into a table where there is nothing to merge it with.

use anyhow::Context;

use super::{Absent, Applier, Doubts, PendingDay, Way, Work};
use crate::catchup::binary::{self, Form, Unusual};
use crate::catchup::conflict::{is_unique_violation, not_as_published};
use crate::catchup::matching::{OtherColumns, Target};
use crate::catchup::merge::{self, Stage};
use crate::codec::RowFormat;
use crate::manifest::{Slice, SliceFormat};
use crate::pg::CopyIn;

/// Rows that are larger than that, on the average of a frame, are sent as text. A server gathers up to 1,000 rows before
/// it inserts them, but 64 KiB of text at most; of binary rows it does not count the bytes (`CopyMultiInsertInfoStore`).
const ROW_BYTES: u64 = 16 << 10;

impl Work<'_> {
    /// PostgreSQL looks up how to receive every column of the table that binary rows are copied into, also of those that
    /// the rows do not have, and refuses when a type cannot be received. A stage has no other columns, and takes those
    /// that the table does not have.
    fn needs_a_stage(&self) -> bool {
        let is_partial = self.slice.format == SliceFormat::Binary && self.target.other_columns != OtherColumns::None;
        is_partial || !self.target.left_out.is_empty()
    }

    /// How rows of text are written in binary, where that can be done.
    fn forms(&self) -> Option<&[Form]> {
        let is_text = self.slice.format == SliceFormat::Text && self.target.other_columns == OtherColumns::None;
        let mut frames = self.slice.parts.iter().flat_map(|part| &part.frames);
        let is_small = frames.all(|frame| frame.raw_bytes <= frame.rows.saturating_mul(ROW_BYTES));
        self.target.forms.as_deref().filter(|_| is_text && is_small)
    }
}

impl Applier {
    /// Loads the rows of a slice as they are.
    pub(super) fn load_whole(&mut self, item: &Work<'_>, number: usize) -> anyhow::Result<()> {
        if !item.needs_a_stage() {
            return match item.forms() {
                Some(forms) => self.copy_in_binary(forms, item),
                None => self.copy(&merge::copy_into(item.target, item.slice.format), item),
            };
        }
        let named = || format!("{} {}", item.day.entry.day, item.target.name);
        let stage = self.staged(item, number)?;
        let inserted = self.session.execute(&stage.insert_all(), &[]).with_context(named)?;
        if inserted != item.slice.rows {
            let problem = format!("took {inserted} rows, the feed has {}", item.slice.rows);
            return Err(not_as_published(&named(), &problem));
        }
        Ok(self.session.run(&stage.drop())?)
    }

    /// Loads a slice into an empty window. A row whose key exists in another window moved there or came from there: then
    /// the slice is merged instead.
    pub(super) fn load_directly(
        &mut self,
        item: &mut Work<'_>,
        number: usize,
        doubts: &mut Doubts,
    ) -> anyhow::Result<()> {
        self.session.run("savepoint direct")?;
        let Err(error) = self.load_whole(item, number) else {
            return Ok(self.session.run("release savepoint direct")?);
        };
        if !is_unique_violation(&error) {
            return Err(error);
        }
        self.session.run("rollback to savepoint direct")?;
        let stage = self.staged(item, number)?;
        self.session.run(&stage.settle())?;
        item.way = Way::Merge { absent: Absent::Kept };
        let name = item.target.name.clone();
        let table = std::slice::from_mut(item);
        self.merge(table, &stage, doubts)
            .and_then(|()| self.check_windows(table, &stage, doubts))
            .with_context(|| format!("cannot merge into {name}"))
    }

    /// A trigger could have kept rows that were to be deleted.
    pub(super) fn check_replaced(&mut self, item: &Work<'_>) -> anyhow::Result<()> {
        let Some(window) = item.window() else { return Ok(()) };
        let rows = self.count(&merge::count_window(item.target, &window))?;
        if rows == item.slice.rows {
            return Ok(());
        }
        let problem = format!("would hold {rows} rows, the feed has {}", item.slice.rows);
        Err(not_as_published(&format!("{} {}", item.day.entry.day, item.target.name), &problem))
    }

    /// A stage with the rows of a slice.
    fn staged<'a>(&mut self, item: &Work<'a>, number: usize) -> anyhow::Result<Stage<'a>> {
        let stage = Stage::new(vec![item.target], number);
        self.create_stage(&stage, item.target)?;
        self.copy(&stage.copy(0, item.slice.format), item)?;
        Ok(stage)
    }

    /// Notes in which order the slices of the transaction are loaded: what is staged comes first.
    pub(super) fn expect_loads<'w>(&mut self, items: impl Iterator<Item = &'w Work<'w>> + Clone) {
        let staged = items.clone().filter(|item| item.is_merged());
        let loaded = items.filter(|item| matches!(item.way, Way::Direct | Way::Replace));
        self.upcoming = staged.chain(loaded).map(|item| item.slice.clone()).collect();
    }

    /// The slice that is loaded after `slice`, in this transaction or the next one.
    pub(super) fn next_after(&mut self, slice: &Slice) -> Option<Slice> {
        if let Some(index) = self.upcoming.iter().position(|upcoming| upcoming == slice) {
            self.upcoming.drain(..=index);
        }
        self.upcoming.front().or(self.following.as_ref()).cloned()
    }

    /// The slice that a batch begins with, as far as the ledger tells it. A wrong guess costs what is fetched of it.
    pub fn first_of(&self, batch: &[PendingDay]) -> Option<Slice> {
        let mut oids = Vec::new();
        let targets =
            || batch.iter().flat_map(|day| day.targets.iter().map(move |(index, target)| (day, index, target)));
        for (_, _, target) in targets() {
            if !oids.contains(&target.oid) {
                oids.push(target.oid);
            }
        }
        let mut loaded = None;
        for oid in self.shape.parents_first(oids) {
            for (day, index, target) in targets().filter(|(_, _, target)| target.oid == oid) {
                let slice = &day.manifest.slices[*index];
                let held = self.ledger.get(&(day.entry.day, target.name.clone()));
                if slice.rows == 0 || held.is_some_and(|held| held.rows_digest == slice.rows_digest) {
                    continue;
                }
                if held.is_some() || target.time.is_none() {
                    return Some(slice.clone());
                }
                loaded = loaded.or(Some(slice));
            }
        }
        loaded.cloned()
    }

    /// Creates a stage. Values move from it into the table as they are compressed, so its columns have the compression
    /// that those of the table were given.
    pub(super) fn create_stage(&mut self, stage: &Stage<'_>, target: &Target) -> anyhow::Result<()> {
        self.session.run(&stage.create())?;
        let oid = target.oid.to_string();
        for row in self.session.query(include_str!("../../../sql/column_compression.sql"), &[Some(&oid)])? {
            if let Some(statement) = stage.compress(row.text(0)?, row.text(1)?) {
                self.session.run(&statement)?;
            }
        }
        Ok(())
    }

    /// Loads a slice of text in binary; in text, where it has a value that COPY would have written otherwise.
    fn copy_in_binary(&mut self, forms: &[Form], item: &Work<'_>) -> anyhow::Result<()> {
        let copy_into = |format| merge::copy_into(item.target, format);
        let format = RowFormat::new(SliceFormat::Binary, &item.slice.columns);
        let mut binary = Vec::new();
        tracing::debug!("{} {} is sent in binary", item.day.entry.day, item.target.name);
        self.session.run("savepoint as_binary")?;
        let copied = self.copy_rows(&copy_into(SliceFormat::Binary), item, &format, |block, copy| {
            let mut rest = block;
            while !rest.is_empty() {
                binary.clear();
                let written = binary::write_rows(forms, rest, &mut binary)?;
                copy.send(&binary)?;
                rest = &rest[written..];
            }
            Ok(())
        });
        match copied {
            Err(error) if error.downcast_ref::<Unusual>().is_some() => {
                tracing::debug!("{} {} is sent as text: {Unusual}", item.day.entry.day, item.target.name);
                self.session.run("rollback to savepoint as_binary")?;
                self.copy(&copy_into(SliceFormat::Text), item)
            }
            copied => copied.and_then(|()| Ok(self.session.run("release savepoint as_binary")?)),
        }
    }

    /// Sends a slice's rows to a COPY statement; the server must count as many as the manifest.
    pub(super) fn copy(&mut self, statement: &str, item: &Work<'_>) -> anyhow::Result<()> {
        let format = RowFormat::new(item.slice.format, &item.slice.columns);
        self.copy_rows(statement, item, &format, |block, copy| Ok(copy.send(block)?))
    }

    /// As [`Applier::copy`], rows being sent in `format` by `send`.
    fn copy_rows(
        &mut self,
        statement: &str,
        item: &Work<'_>,
        format: &RowFormat,
        mut send: impl FnMut(&[u8], &mut CopyIn<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let named = || format!("{} {}", item.day.entry.day, item.target.name);
        let next = self.next_after(item.slice);
        let mut rows = self.supply.take(item.slice);
        let mut copy = self.session.copy_in(statement).with_context(named)?;
        copy.send(format.copy_head()).with_context(named)?;
        while let Some(block) = rows.pull().with_context(named)? {
            if let Some(next) = &next {
                self.supply.begin(next);
            }
            send(&block, &mut copy).with_context(named)?;
            self.progress.add_bytes(block.len() as u64);
        }
        copy.send(format.copy_tail()).with_context(named)?;
        let counted = copy.finish().with_context(named)?;
        if counted == item.slice.rows {
            return Ok(());
        }
        Err(not_as_published(&named(), &format!("took {counted} rows, the feed has {}", item.slice.rows)))
    }
}
