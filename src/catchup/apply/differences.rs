//! A revised slice by its differences: rows that their window holds already, to the byte, are not staged.
//!
//! The window is read as COPY writes it, and the hash and the place of each row are kept, 24 bytes of memory each. Rows
//! of the slice that have one of these hashes are left out of the stage; rows of the window whose hash no row of the
//! slice has are the only ones that the slice can prove to be gone. What is done with the stage then is what is done
//! with a whole one, and the window is held against the slice in the same way. Where anything comes in between, the
//! transaction is undone and the slices are staged whole: see [`Staging`].

use anyhow::Context;
use memchr::{memchr, memchr_iter};
use xxhash_rust::xxh3::xxh3_128;

use super::{Absent, Applier, Staging, Triggers, Way, Work};
use crate::catchup::adopt::{self, Expected, Found};
use crate::catchup::conflict::not_as_published;
use crate::catchup::merge::{self, Stage};
use crate::manifest::SliceFormat;

/// The most rows of a window whose hashes are kept: 17 MiB of them.
const MOST_ROWS: usize = 750_000;

/// The rows of a window by their hashes.
pub(super) struct Held {
    rows: Vec<HeldRow>,
    /// The tables that they are in: partitions, of a partitioned table.
    relations: Vec<u32>,
    seen: u64,
    condition: Condition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct HeldRow {
    /// The halves of the hash.
    hash: [u64; 2],
    /// The number of its relation, then block and line; [`MATCHED`] when a row of the slice has the hash.
    place: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Usable,
    /// Too many rows, or some whose place cannot be told, or equal ones.
    Unusable,
}

/// No place: no page has a line of this number.
const MATCHED: u64 = u64::MAX;

impl Held {
    fn with_room_for(rows: usize) -> Held {
        Held { rows: Vec::with_capacity(rows), relations: Vec::new(), seen: 0, condition: Condition::Usable }
    }

    /// Takes one row of [`merge::copy_places`].
    fn add(&mut self, message: &[u8]) {
        self.seen += 1;
        if self.condition == Condition::Unusable {
            return;
        }
        match self.placed(message) {
            Some(row) if self.rows.len() < MOST_ROWS => self.rows.push(row),
            _ => *self = Held { seen: self.seen, condition: Condition::Unusable, ..Held::with_room_for(0) },
        }
    }

    fn placed(&mut self, message: &[u8]) -> Option<HeldRow> {
        let (relation, rest) = message.split_at_checked(memchr(b'\t', message)?)?;
        let (place, row) = rest[1..].split_at_checked(memchr(b'\t', &rest[1..])?)?;
        let relation: u32 = str::from_utf8(relation).ok()?.parse().ok()?;
        let (block, line) = str::from_utf8(place).ok()?.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        let (block, line): (u32, u16) = (block.parse().ok()?, line.parse().ok()?);
        let known = self.relations.iter().rposition(|known| *known == relation);
        let number = u16::try_from(known.unwrap_or_else(|| {
            self.relations.push(relation);
            self.relations.len() - 1
        }));
        let place = (u64::from(number.ok()?) << 48) | (u64::from(block) << 16) | u64::from(line);
        Some(HeldRow { hash: hash(row[1..].strip_suffix(b"\n")?), place })
    }

    /// Makes it ready to be asked; `None` if there is nothing to ask.
    fn sorted(mut self) -> Option<Held> {
        self.rows.sort_unstable();
        let equal = self.rows.windows(2).any(|rows| rows[0].hash == rows[1].hash);
        (self.condition == Condition::Usable && !self.rows.is_empty() && !equal).then_some(self)
    }

    /// Does it have the row? Each only once.
    fn matches(&mut self, row: &[u8]) -> bool {
        let hash = hash(row);
        let found = self.rows.binary_search_by(|held| held.hash.cmp(&hash));
        let Some(held) = found.ok().map(|index| &mut self.rows[index]) else { return false };
        std::mem::replace(&mut held.place, MATCHED) != MATCHED
    }

    /// The rows that nothing matched, as COPY reads them: the oid of the table and the place there.
    fn unmatched(&self) -> impl Iterator<Item = String> + '_ {
        self.rows.iter().filter(|row| row.place != MATCHED).map(|row| {
            let (number, block, line) = (row.place >> 48, (row.place >> 16) & 0xffff_ffff, row.place & 0xffff);
            let relation = usize::try_from(number).ok().and_then(|number| self.relations.get(number));
            format!("{}\t({block},{line})\n", relation.copied().unwrap_or_default())
        })
    }
}

fn hash(row: &[u8]) -> [u64; 2] {
    let hash = xxh3_128(row).to_be_bytes();
    let half = |from: usize| hash[from..].first_chunk().map_or(0, |half| u64::from_be_bytes(*half));
    [half(0), half(8)]
}

impl Applier {
    /// Reads the window of a slice that is the only one of its table; `None` where all of it has to be staged.
    pub(super) fn read_window(&mut self, item: &Work<'_>) -> anyhow::Result<Option<Held>> {
        let rows = usize::try_from(item.slice.rows).unwrap_or(usize::MAX);
        let is_comparable = self.staged == Staging::Differences
            && item.way == Way::Merge { absent: Absent::Deleted }
            && item.slice.format == SliceFormat::Text
            && item.target.left_out.is_empty()
            && (1..=MOST_ROWS).contains(&rows);
        let Some(window) = item.window().filter(|_| is_comparable) else { return Ok(None) };
        self.supply.begin(item.slice);
        let mut held = Held::with_room_for(rows);
        let told = self.session.copy_out(&merge::copy_places(item.target, &window), |message| {
            held.add(message);
            anyhow::Ok(())
        })?;
        if told != held.seen {
            let problem = format!("sent {} rows of its window, and says that it sent {told}", held.seen);
            return Err(not_as_published(&item.target.name, &problem));
        }
        Ok(held.sorted())
    }

    /// Brings the rows of the slice that its window does not hold into the stage, and beside it the places of the rows
    /// that the slice does not have.
    pub(super) fn stage_differences(
        &mut self,
        item: &Work<'_>,
        stage: &mut Stage<'_>,
        mut held: Held,
    ) -> anyhow::Result<()> {
        let named = || format!("{} {}", item.day.entry.day, item.target.name);
        let next = self.next_after(item.slice);
        let mut rows = self.supply.take(item.slice);
        let mut copy = self.session.copy_in(&stage.copy(0, SliceFormat::Text)).with_context(named)?;
        let (mut staged, mut left_out) = (0, 0);
        while let Some(block) = rows.pull().with_context(named)? {
            if let Some(next) = &next {
                self.supply.begin(next);
            }
            // Rows from `unsent` to `start` differ.
            let (mut unsent, mut start) = (0, 0);
            for end in memchr_iter(b'\n', &block) {
                if held.matches(&block[start..end]) {
                    copy.send(&block[unsent..start]).with_context(named)?;
                    unsent = end + 1;
                    left_out += 1;
                } else {
                    staged += 1;
                }
                start = end + 1;
            }
            copy.send(&block[unsent..]).with_context(named)?;
            self.progress.add_bytes(block.len() as u64);
        }
        let counted = copy.finish().with_context(named)?;
        if counted != staged {
            return Err(not_as_published(&named(), &format!("took {counted} rows, {staged} were sent")));
        }
        stage.leave_out(left_out);
        self.session.run(&stage.create_unmatched())?;
        let mut copy = self.session.copy_in(&stage.copy_unmatched())?;
        for place in held.unmatched() {
            copy.send(place.as_bytes())?;
        }
        copy.finish()?;
        Ok(self.session.run(&stage.settle())?)
    }

    /// Reads a window again that was written to by differences, where rows that were left out may have changed since
    /// they were read: by a trigger, or along with rows that they point to.
    pub(super) fn prove(&mut self, item: &Work<'_>) -> anyhow::Result<()> {
        let is_child = self.shape.foreign_keys.iter().any(|(child, _)| *child == item.target.oid);
        if !is_child && self.triggers == Triggers::None {
            return Ok(());
        }
        match adopt::look(&mut self.session, item.target, Expected::of(item.slice))? {
            Found::Equal => Ok(()),
            Found::Nothing | Found::Other => {
                let what = format!("{} {}", item.day.entry.day, item.target.name);
                Err(not_as_published(&what, "would hold other rows than the feed has"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
