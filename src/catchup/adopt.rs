//! First contact: what a window holds before anything of the feed was written to it.

use super::matching::Target;
use super::merge;
use crate::codec::{NotALine, RowsDigest, Tallier};
use crate::pg::{PgError, Session};

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

/// Counts the replica's own rows of a window, and digests them if there are as many as the slice's `rows`. The newest
/// row's date decides nothing: one row dated years ahead would hide every gap.
///
/// # Errors
/// The server's.
pub fn look(session: &mut Session, target: &Target, rows: u64, digest: RowsDigest) -> anyhow::Result<Found> {
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
    if present != rows {
        return Ok(Found::Other);
    }
    let mut tallier = Tallier::default();
    session.copy_out(&merge::copy_window(target, &window), |row| tallier.row(row).map_err(Unread::from))?;
    Ok(if tallier.tally().digest == digest { Found::Equal } else { Found::Other })
}

#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Server(#[from] PgError),
    #[error(transparent)]
    Row(#[from] NotALine),
}
