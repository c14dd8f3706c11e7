//! Which connection reads what of a day. A table is begun by one connection; others that have nothing else to do take
//! part, span by span.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::slice::Numbered;

/// What is to be read of one table.
#[derive(Debug)]
pub struct Table {
    /// Its place in the configuration.
    pub index: usize,
    /// The statements that read it, at least one; together they give every row once.
    pub copies: VecDeque<String>,
    /// The names of its parts.
    pub names: Numbered,
}

/// What waits to be read.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Mutex<Waiting>>);

#[derive(Debug)]
struct Waiting {
    untouched: VecDeque<Table>,
    begun: Vec<Table>,
}

/// What a connection reads of a table: the first statement, and what [`Shares::next`] gives after it.
#[derive(Debug)]
pub struct Share {
    /// The table's place in the configuration.
    pub index: usize,
    /// Whether other connections read the same table.
    pub turn: Turn,
    /// Its first statement.
    pub first: String,
    /// The names of the table's parts.
    pub names: Numbered,
}

/// Who else reads the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nobody has begun it before.
    First,
    /// Another connection has.
    Later,
}

impl Shares {
    /// Those of tables, which are begun in this order.
    pub fn of(tables: Vec<Table>) -> Shares {
        Shares(Arc::new(Mutex::new(Waiting { untouched: tables.into(), begun: Vec::new() })))
    }

    /// How many statements wait.
    pub fn waiting(&self) -> usize {
        self.with(|waiting| waiting.untouched.iter().chain(&waiting.begun).map(|table| table.copies.len()).sum())
    }

    /// A share for a connection that has nothing to do: of a table that nobody reads, or else of the one of which most
    /// is left. `None` when nothing waits.
    pub fn begin(&self) -> Option<Share> {
        self.with(|waiting| {
            let (turn, table) = match waiting.untouched.pop_front() {
                Some(table) => {
                    waiting.begun.push(table);
                    (Turn::First, waiting.begun.last_mut())
                }
                None => (Turn::Later, waiting.begun.iter_mut().max_by_key(|table| table.copies.len())),
            };
            let table = table?;
            let first = table.copies.pop_front()?;
            Some(Share { index: table.index, turn, first, names: table.names.clone() })
        })
    }

    /// The next statement of a table that was begun.
    pub fn next(&self, index: usize) -> Option<String> {
        self.with(|waiting| waiting.begun.iter_mut().find(|table| table.index == index)?.copies.pop_front())
    }

    fn with<T>(&self, look: impl FnOnce(&mut Waiting) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{AttemptDirectory, Layout};
    use crate::manifest::SliceFormat;
    use crate::retention::fixtures::day;

    fn table(index: usize, copies: &[&str]) -> Table {
        let directory = AttemptDirectory::new(Layout::default(), day("2024-05-01"), 1, "00000001");
        let names = Numbered::of(directory.parts("public", &format!("t{index}"), SliceFormat::Text));
        Table { index, copies: copies.iter().map(|copy| (*copy).to_owned()).collect(), names }
    }

    fn begun(shares: &Shares) -> Option<(usize, Turn, String)> {
        shares.begin().map(|share| (share.index, share.turn, share.first))
    }

    #[test]
    fn tables_are_begun_in_their_order_and_then_shared_where_most_is_left() {
        let shares =
            Shares::of(vec![table(0, &["a1", "a2", "a3"]), table(1, &["b"]), table(2, &["c1", "c2", "c3", "c4"])]);
        assert_eq!(shares.waiting(), 8);
        assert_eq!(begun(&shares), Some((0, Turn::First, "a1".into())));
        assert_eq!(begun(&shares), Some((1, Turn::First, "b".into())));
        assert_eq!(shares.next(1), None);
        assert_eq!(begun(&shares), Some((2, Turn::First, "c1".into())));
        assert_eq!(shares.next(0), Some("a2".into()));
        assert_eq!(begun(&shares), Some((2, Turn::Later, "c2".into())));
        assert_eq!(shares.waiting(), 3);
        assert_eq!([shares.next(0), shares.next(2), shares.next(2)], ["a3", "c3", "c4"].map(|copy| Some(copy.into())));
        assert_eq!((begun(&shares), shares.next(0), shares.waiting()), (None, None, 0));
    }
}
