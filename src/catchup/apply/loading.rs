//! A slice into a table where there is nothing to merge it with.

use anyhow::Context;

use super::{Absent, Applier, Doubts, Way, Work};
use crate::catchup::conflict::{is_unique_violation, not_as_published};
use crate::catchup::matching::OtherColumns;
use crate::catchup::merge::{self, Stage};
use crate::manifest::SliceFormat;

impl Work<'_> {
    /// PostgreSQL looks up how to receive every column of the table that binary rows are copied into, also of those that
    /// the rows do not have, and refuses when a type cannot be received. A stage has no other columns, and takes those
    /// that the table does not have.
    fn needs_a_stage(&self) -> bool {
        let is_partial = self.slice.format == SliceFormat::Binary && self.target.other_columns != OtherColumns::None;
        is_partial || !self.target.left_out.is_empty()
    }
}

impl Applier {
    /// Loads the rows of a slice as they are.
    pub(super) fn load_whole(&mut self, item: &Work<'_>, number: usize) -> anyhow::Result<()> {
        if !item.needs_a_stage() {
            return self.copy(&merge::copy_into(item.target, item.slice.format), item);
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
        self.session.run(&stage.create())?;
        self.copy(&stage.copy(0, item.slice.format), item)?;
        Ok(stage)
    }
}
