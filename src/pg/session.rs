//! One blocking connection of our own.

use std::time::Duration;

use bytes::BytesMut;
use memchr::memchr;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use super::connect::Route;
use super::error::{PgError, ServerError};
use super::wire::{Limit, Message, Wire, kind};

/// How long a COPY may stand still by default.
const NO_PROGRESS: Duration = Duration::from_secs(600);

/// A blocking connection with the pinned settings of `sql/session.sql`.
///
/// After an error of the server it is ready for the next statement. After any other error (a lost connection, a
/// cancelled token, a COPY that was given up) its state is unknown: every further call returns [`PgError::Broken`], and
/// the server rolls back what was open when the session is dropped. A statement that was running then is cancelled.
pub struct Session {
    pub(super) wire: Wire,
    pub(super) no_progress: Duration,
    /// For everything but the data of a COPY.
    pub(super) limit: Limit,
    route: Route,
    key: BackendKey,
    transaction: TransactionState,
    condition: Condition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Usable,
    Broken,
}

/// What a server wants to see from whoever cancels a query of this session.
#[derive(Clone, Copy)]
pub(super) struct BackendKey {
    pid: i32,
    secret: i32,
}

impl BackendKey {
    pub(super) fn parse(body: &[u8]) -> Result<BackendKey, PgError> {
        let [pid, secret] = body.as_chunks::<4>().0 else {
            return Err(PgError::Protocol(format!("a key to cancel queries that is {} bytes long", body.len())));
        };
        Ok(BackendKey { pid: i32::from_be_bytes(*pid), secret: i32::from_be_bytes(*secret) })
    }
}

/// Where a session is between two statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionState {
    /// In no transaction.
    Idle,
    /// In a transaction that can go on.
    Open,
    /// In a transaction that can only be rolled back.
    Failed,
}

impl TransactionState {
    pub(super) fn parse(body: &[u8]) -> Result<TransactionState, PgError> {
        match body {
            b"I" => Ok(TransactionState::Idle),
            b"T" => Ok(TransactionState::Open),
            b"E" => Ok(TransactionState::Failed),
            _ => Err(PgError::Protocol("an unknown state of the transaction".into())),
        }
    }
}

/// One row of a query; values are PostgreSQL's text.
#[derive(Clone, PartialEq, Eq)]
pub struct Row(Vec<Option<String>>);

impl Row {
    /// The value of the column at `index`; `None` for NULL, and where there is no such column.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index)?.as_deref()
    }

    /// The value of a column that is never NULL.
    ///
    /// # Errors
    /// [`PgError::Protocol`] when it is, or there is no such column.
    pub fn text(&self, index: usize) -> Result<&str, PgError> {
        self.get(index).ok_or_else(|| PgError::Protocol(format!("no value in column {index} of a row")))
    }

    fn parse(body: &[u8]) -> Result<Row, PgError> {
        let malformed = || PgError::Protocol("a malformed row".into());
        let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(malformed)?;
        let mut values = Vec::with_capacity(u16::from_be_bytes(*count).into());
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
            rest = tail;
            // -1 is NULL.
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                values.push(None);
                continue;
            };
            let (value, tail) = rest.split_at_checked(length).ok_or_else(malformed)?;
            rest = tail;
            let text = str::from_utf8(value).map_err(|_| PgError::Protocol("a value that is not UTF-8".into()))?;
            values.push(Some(text.to_owned()));
        }
        if rest.is_empty() { Ok(Row(values)) } else { Err(malformed()) }
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a row of {} values", self.0.len())
    }
}

impl Session {
    /// A session on a connection that is logged in. Its first statements are bound by `limit`, until that is changed.
    pub(super) fn new(wire: Wire, route: Route, key: BackendKey, limit: Limit) -> Session {
        Session {
            wire,
            no_progress: NO_PROGRESS,
            limit,
            route,
            key,
            transaction: TransactionState::Idle,
            condition: Condition::Usable,
        }
    }

    /// Runs one or several statements; rows are ignored. Several are one transaction unless they say otherwise.
    ///
    /// # Errors
    /// Those of the server, which does nothing of a string after its first error; and those of the connection.
    pub fn run(&mut self, sql: &str) -> Result<(), PgError> {
        self.send_query(sql)?;
        self.until_ready(|_| Ok(()))
    }

    /// As [`Session::run`], and returns the rows of all of them.
    pub(super) fn rows(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        let mut rows = Vec::new();
        self.send_query(sql)?;
        self.until_ready(|message| {
            if message.kind == kind::DATA_ROW {
                rows.push(Row::parse(message.body)?);
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// Runs one statement and returns its rows. `params` are the values of `$1`, `$2`, … as text (`None` is NULL); the
    /// server infers their types. For answers that fit in memory.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub fn query(&mut self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Row>, PgError> {
        let mut rows = Vec::new();
        self.send_extended(sql, params)?;
        self.until_ready(|message| {
            if message.kind == kind::DATA_ROW {
                rows.push(Row::parse(message.body)?);
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// Runs one statement and returns how many rows it affected, by the server's own count; 0 for statements that
    /// have none. `params` as in [`Session::query`].
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub fn execute(&mut self, sql: &str, params: &[Option<&str>]) -> Result<u64, PgError> {
        let mut affected = 0;
        self.send_extended(sql, params)?;
        self.until_ready(|message| {
            if message.kind == kind::COMMAND_COMPLETE {
                let count = command_tag(message.body)?.rsplit(' ').next().unwrap_or_default();
                affected = count.parse().unwrap_or(0);
            }
            Ok(())
        })?;
        Ok(affected)
    }

    /// The process id of the server's end of this session, as in `pg_stat_activity.pid`.
    pub fn backend_pid(&self) -> i32 {
        self.key.pid
    }

    /// Where the session was after its last statement.
    pub fn transaction_state(&self) -> TransactionState {
        self.transaction
    }

    /// Has a statement failed in the open transaction, so that it can only be rolled back?
    pub fn in_failed_transaction(&self) -> bool {
        self.transaction == TransactionState::Failed
    }

    /// Changes how long a COPY may go without moving a byte before it fails with [`PgError::NoProgress`]; by default
    /// ten minutes. It starts with the statement, so a COPY whose query takes long to give its first row counts.
    pub fn set_no_progress(&mut self, longest: Duration) {
        self.no_progress = longest;
    }

    /// Sends one or several statements by the simple protocol.
    pub(super) fn send_query(&mut self, sql: &str) -> Result<(), PgError> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(unsendable)?;
        self.send(&out)
    }

    /// Sends one statement by the extended protocol, everything as text.
    fn send_extended(&mut self, sql: &str, params: &[Option<&str>]) -> Result<(), PgError> {
        let mut out = BytesMut::new();
        frontend::parse("", sql, [], &mut out).map_err(unsendable)?;
        let write = |value: &Option<&str>, out: &mut BytesMut| {
            Ok(match value {
                Some(text) => {
                    out.extend_from_slice(text.as_bytes());
                    IsNull::No
                }
                None => IsNull::Yes,
            })
        };
        frontend::bind("", "", [], params, write, [], &mut out)
            .map_err(|_| PgError::Protocol("parameters that cannot be sent".into()))?;
        frontend::execute("", 0, &mut out).map_err(unsendable)?;
        frontend::sync(&mut out);
        self.send(&out)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        self.check_usable()?;
        self.wire.send(bytes, self.limit).map_err(|error| self.failed(error))
    }

    fn check_usable(&self) -> Result<(), PgError> {
        match self.condition {
            Condition::Usable => Ok(()),
            Condition::Broken => Err(PgError::Broken),
        }
    }

    /// Reads up to the server being ready for the next statement, and hands its answers to `take`. The server's first
    /// error, if there was one, is what is returned then.
    pub(super) fn until_ready(&mut self, take: impl FnMut(Message<'_>) -> Result<(), PgError>) -> Result<(), PgError> {
        self.answers(take).map_err(|error| self.failed(error))?.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    fn answers(
        &mut self,
        mut take: impl FnMut(Message<'_>) -> Result<(), PgError>,
    ) -> Result<Option<ServerError>, PgError> {
        let mut refusal = None;
        loop {
            let message = self.wire.message(self.limit)?;
            match message.kind {
                kind::READY_FOR_QUERY => {
                    self.transaction = TransactionState::parse(message.body)?;
                    return Ok(refusal);
                }
                kind::ERROR_RESPONSE => {
                    let error = ServerError::parse(message.body);
                    if error.is_fatal() {
                        return Err(error.into());
                    }
                    refusal.get_or_insert(error);
                }
                kind::COPY_IN_RESPONSE | kind::COPY_OUT_RESPONSE => {
                    return Err(PgError::Protocol("a COPY where none was expected".into()));
                }
                _ => take(message)?,
            }
        }
    }

    /// The server refused a statement that it had begun: reads on until it is ready, and returns its refusal.
    pub(super) fn refused(&mut self, refusal: ServerError) -> PgError {
        if refusal.is_fatal() {
            return self.failed(refusal.into());
        }
        // Whether it gets ready or not, the refusal is what happened.
        let _ = self.until_ready(|_| Ok(()));
        refusal.into()
    }

    /// Notes that nothing is known about the connection after `error`, which is handed back.
    pub(super) fn failed(&mut self, error: PgError) -> PgError {
        match error {
            PgError::Server(_) | PgError::Connection { .. } | PgError::Broken => self.condition = Condition::Broken,
            _ => self.abandon(),
        }
        error
    }

    /// Gives up whatever is running: asks the server to cancel it, and ends the connection.
    pub(super) fn abandon(&mut self) {
        if std::mem::replace(&mut self.condition, Condition::Broken) == Condition::Broken {
            return;
        }
        let mut request = BytesMut::new();
        frontend::cancel_request(self.key.pid, self.key.secret, &mut request);
        if let Err(error) = self.route.cancel(&request) {
            tracing::debug!(%error, "the server could not be asked to cancel a query");
        }
        self.wire.hang_up();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.condition == Condition::Usable {
            let mut goodbye = BytesMut::new();
            frontend::terminate(&mut goodbye);
            self.wire.send_if_possible(&goodbye);
        }
    }
}

fn unsendable(_: std::io::Error) -> PgError {
    PgError::Protocol("a statement that cannot be sent: a NUL byte in it, or too long".into())
}

/// The tag of a CommandComplete: `COPY 5`, `INSERT 0 5`, `BEGIN`.
pub(super) fn command_tag(body: &[u8]) -> Result<&str, PgError> {
    memchr(0, body)
        .and_then(|end| str::from_utf8(&body[..end]).ok())
        .ok_or_else(|| PgError::Protocol("a malformed command tag".into()))
}
