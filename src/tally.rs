//! What the rows of a server's COPY amount to, when nothing needs to keep them.

use crate::codec::{NotARow, RowFormat, Tallier, Tally};
use crate::error::{Class, Failure};
use crate::pg::{PgError, Session};

/// Runs one `COPY … TO STDOUT` in `format`, and counts and digests its rows.
///
/// # Errors
/// The server's; class Integrity when the rows are not as many as the server says, or no rows of that format.
pub(crate) fn tally(session: &mut Session, copy: &str, format: RowFormat) -> anyhow::Result<Tally> {
    let mut tallier = Tallier::new(format);
    let told = session.copy_out(copy, |message| tallier.message(message).map_err(Unread::from))?;
    let tally = tallier.finish()?;
    if tally.rows != told {
        let what = format!("{} rows came, the server says that it sent {told}", tally.rows);
        return Err(Failure::new(Class::Integrity, what).into());
    }
    Ok(tally)
}

#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Server(#[from] PgError),
    #[error(transparent)]
    Row(#[from] NotARow),
}
