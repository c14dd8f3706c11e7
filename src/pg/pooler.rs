//! Is there a pool between us and the server, and does it share the server's sessions among its clients?
//!
//! A pool in session mode (PgBouncer's word; others have the same under other names) gives each connection a session
//! of the server for as long as it lasts: nothing is different. In transaction or statement mode every transaction or
//! statement may run in another session: an exported snapshot, an advisory lock and a `SET` then belong to whoever
//! comes next, and to no one who asked. Such a pool is refused before anything was set in any of its sessions.
//!
//! What gives a pool away:
//! 1. At the login it names a process id that is not that of the server's session, since it makes up the keys by
//!    which queries are cancelled. Where both are the same there is nothing in between that speaks the protocol.
//! 2. Two connections that are open at the same time report the same session, or one connection reports another one
//!    than before. Neither can happen where each has its own.

use anyhow::Context;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::connect::Endpoint;
use super::error::PgError;
use super::session::Session;
use crate::error::{Class, Failure};

/// How often two connections behind a pool are asked, in turns. Pools lend what was given back last, or one after the
/// other, so the first or second time tells; other clients may come in between.
const ROUNDS: u32 = 4;

/// What stands between pgslice and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// Nothing that speaks PostgreSQL's protocol.
    Nothing,
    /// A pool; each connection has a session of the server to itself.
    OwnSessions,
    /// A pool; connections share the server's sessions, by transaction or statement.
    SharedSessions,
}

/// Finds out what is between us and the server, with connections of its own in which nothing is set: a login and a
/// query where there is nothing, one login and eight queries more behind a pool. Blocks.
///
/// # Errors
/// Those of [`Endpoint::session`]. A pool in session mode that has only one session left makes the second connection
/// wait until the time for a login is over.
pub fn between(endpoint: &Endpoint, cancel: &CancellationToken) -> Result<Between, PgError> {
    look(endpoint, cancel).map(|(between, _)| between)
}

/// As [`between`], with the first of those connections.
fn look(endpoint: &Endpoint, cancel: &CancellationToken) -> Result<(Between, Session), PgError> {
    let mut one = endpoint.unpinned_session(cancel)?;
    let first = process_id(&mut one)?;
    if first == one.backend_pid() {
        return Ok((Between::Nothing, one));
    }
    let mut other = endpoint.unpinned_session(cancel)?;
    let second = process_id(&mut other)?;
    for _ in 0..ROUNDS {
        if first == second || process_id(&mut one)? != first || process_id(&mut other)? != second {
            return Ok((Between::SharedSessions, one));
        }
    }
    Ok((Between::OwnSessions, one))
}

/// One message, and so one transaction, to which the setting is bound: a hostile default of a millisecond is too short
/// for a session's first look into the catalogs.
const PROCESS_ID_SQL: &str = "set local statement_timeout = 0; select pg_catalog.pg_backend_pid()";

/// The process id of the server's session that answers.
fn process_id(session: &mut Session) -> Result<i32, PgError> {
    let rows = session.rows(PROCESS_ID_SQL)?;
    let row = rows.first().ok_or_else(|| PgError::Protocol("no row where there is always one".into()))?;
    row.text(0)?.parse().map_err(|_| PgError::Protocol("a process id that is no number".into()))
}

/// Refuses a pool that shares sessions. To be called before anything else is done with the `side`, `source` or
/// `replica`; when it is dropped, what it waits for ends.
///
/// # Errors
/// Class Usage for such a pool; otherwise those of [`between`].
pub async fn refuse_shared_sessions(endpoint: &Endpoint, side: &'static str) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let end_with_this = cancel.clone().drop_guard();
    let asked = endpoint.clone();
    let found = spawn_blocking(move || between(&asked, &cancel)).await?;
    end_with_this.disarm();
    refuse_shared(found.with_context(|| format!("cannot connect to the {side}"))?, endpoint, side)
}

/// A session as of [`Endpoint::session`], when it is sure that nobody shares it: as [`refuse_shared_sessions`], but the
/// connection that this was found out with goes on. Two messages where nothing is in between.
///
/// # Errors
/// As [`refuse_shared_sessions`].
pub async fn own_session(
    endpoint: &Endpoint,
    side: &'static str,
    cancel: &CancellationToken,
) -> anyhow::Result<Session> {
    let cancel = cancel.child_token();
    let end_with_this = cancel.clone().drop_guard();
    let asked = endpoint.clone();
    let found = spawn_blocking(move || -> Result<(Between, Session), PgError> {
        let (between, mut session) = look(&asked, &cancel)?;
        if between != Between::SharedSessions {
            session.pin()?;
        }
        Ok((between, session))
    });
    let (between, session) = found.await?.with_context(|| format!("cannot connect to the {side}"))?;
    end_with_this.disarm();
    refuse_shared(between, endpoint, side)?;
    Ok(session)
}

fn refuse_shared(between: Between, endpoint: &Endpoint, side: &'static str) -> anyhow::Result<()> {
    match between {
        Between::Nothing => {}
        Between::OwnSessions => tracing::debug!("the {side} is reached through a pool in session mode"),
        Between::SharedSessions => {
            return Err(Failure::new(
                Class::Usage,
                format!("the {side}, {endpoint}, is reached through a pool in transaction or statement mode"),
            )
            .meaning("nothing was read or written; the snapshot, locks and settings of a run would reach other clients")
            .next(format!("let {side}.url name the server itself, or a pool in session mode"))
            .into());
        }
    }
    Ok(())
}
