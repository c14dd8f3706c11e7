//! First contact: what a window holds before anything of the feed was written to it.

use super::matching::Target;
use super::merge;
use crate::codec::{RowFormat, RowsDigest};
use crate::manifest::{Slice, SliceFormat};
use crate::pg::Session;
use crate::tally::tally;

/// What a window of the replica holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No rows.
    Nothing,
    /// Exactly the slice's rows: it can be adopted unread.
    Equal,
    /// Other rows.
    Other,
}

/// What a window is held against.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// So many rows,
    pub rows: u64,
    /// with this digest,
    pub digest: RowsDigest,
    /// which is one of rows in this format.
    pub format: SliceFormat,
}

impl Expected {
    /// The rows of a slice.
    pub fn of(slice: &Slice) -> Expected {
        Expected { rows: slice.rows, digest: slice.rows_digest, format: slice.format }
    }
}

/// Counts the replica's own rows of a window, and digests them if there are as many as expected. The newest row's date
/// decides nothing: one row dated years ahead would hide every gap.
///
/// # Errors
/// The server's.
pub fn look(session: &mut Session, target: &Target, expected: Expected) -> anyhow::Result<Found> {
    let Expected { rows, digest, format } = expected;
    let Some(time) = &target.time else {
        let sql = format!("select exists (select from {} as present)::text", target.table);
        let some = session.query(&sql, &[])?.first().is_some_and(|row| row.get(0) == Some("true"));
        return Ok(if some { Found::Other } else { Found::Nothing });
    };
    let window = time.predicate_of("present");
    let present: u64 = match session.query(&merge::count_window(target, &window), &[])?.first() {
        Some(row) => row.text(0)?.parse()?,
        None => 0,
    };
    if present == 0 {
        return Ok(if rows == 0 { Found::Equal } else { Found::Nothing });
    }
    // Without all columns of the feed its digest cannot be told.
    if present != rows || !target.left_out.is_empty() {
        return Ok(Found::Other);
    }
    let copy = merge::copy_window(target, &window, format);
    let found = tally(session, &copy, RowFormat::of(format, &target.columns))?;
    Ok(if found.digest == digest { Found::Equal } else { Found::Other })
}
