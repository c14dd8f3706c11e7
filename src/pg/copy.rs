//! COPY: rows out of the server, and rows into it.
//!
//! The server's own count, in the tag `COPY n` at its end, is what tells a complete COPY from one that stopped: both
//! directions return it and nothing else, for the caller to hold against its own.

use super::error::{PgError, ServerError};
use super::session::{Session, command_tag};
use super::wire::{Limit, Message, kind};

/// Rows to be sent are gathered into messages of this size; after each one the server's objections are listened to. The
/// server takes in a whole message before it looks at it: one that does not fit into a socket (208 KiB) makes it wait for us.
const MESSAGE_BYTES: usize = 64 << 10;
const HEADER_BYTES: usize = 5;

impl Session {
    /// Runs one `COPY … TO STDOUT`, calls `row` with each row as the server sent it (in text format: one line with its
    /// end), and returns the server's count.
    ///
    /// The count is the server's claim; that `row` was called as often is for the caller to check. An error of the
    /// server leaves the session usable. When `row` fails, the token is cancelled, nothing comes for too long, or the
    /// stream does not end as a COPY ends, the server is asked to cancel the query and the session is broken.
    ///
    /// # Errors
    /// Those of `row`, of the server and of the connection.
    pub fn copy_out<E: From<PgError>>(
        &mut self,
        sql: &str,
        mut row: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        self.begin_copy(sql, kind::COPY_OUT_RESPONSE)?;
        let limit = Limit::Silence(self.no_progress);
        loop {
            let message = match self.wire.one_of_many(limit) {
                Ok(message) => message,
                Err(error) => return Err(self.failed(error).into()),
            };
            match message.kind {
                kind::COPY_DATA => {
                    if let Err(error) = row(message.body) {
                        self.abandon();
                        return Err(error);
                    }
                }
                kind::COPY_DONE => return Ok(self.end_copy()?),
                kind::ERROR_RESPONSE => {
                    let refusal = ServerError::parse(message.body);
                    return Err(self.refused(refusal).into());
                }
                other => return Err(self.failed(out_of_place(other)).into()),
            }
        }
    }

    /// Starts one `COPY … FROM STDIN`. Nothing is loaded unless [`CopyIn::finish`] returns.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, PgError> {
        self.begin_copy(sql, kind::COPY_IN_RESPONSE)?;
        let mut message = Vec::with_capacity(HEADER_BYTES + MESSAGE_BYTES);
        message.extend_from_slice(&[0; HEADER_BYTES]);
        Ok(CopyIn { session: self, message, stage: Stage::Open })
    }

    fn begin_copy(&mut self, sql: &str, expected: u8) -> Result<(), PgError> {
        self.send_query(sql)?;
        let message = match self.wire.message(Limit::Silence(self.no_progress)) {
            Ok(message) => message,
            Err(error) => return Err(self.failed(error)),
        };
        match message.kind {
            kind if kind == expected => Ok(()),
            kind::ERROR_RESPONSE => {
                let refusal = ServerError::parse(message.body);
                Err(self.refused(refusal))
            }
            other => Err(self.failed(out_of_place(other))),
        }
    }

    /// Reads the end of a COPY whose data is through: the tag with the count, and the server being ready again.
    fn end_copy(&mut self) -> Result<u64, PgError> {
        let mut count = None;
        self.until_ready(|message| match (message.kind, count) {
            (kind::COMMAND_COMPLETE, None) => {
                count = Some(copied_rows(message.body)?);
                Ok(())
            }
            (other, _) => Err(out_of_place(other)),
        })?;
        count.ok_or_else(|| self.failed(PgError::Protocol("the COPY ended without the server's count".into())))
    }
}

/// The count of `COPY n`.
fn copied_rows(body: &[u8]) -> Result<u64, PgError> {
    let tag = command_tag(body)?;
    tag.strip_prefix("COPY ")
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| PgError::Protocol(format!("a COPY that ended with the tag {:?}", cut_tag(tag))))
}

fn cut_tag(tag: &str) -> String {
    tag.chars().take(40).collect()
}

fn out_of_place(kind: u8) -> PgError {
    PgError::Protocol(format!("a message of kind {:?} in a COPY", char::from(kind)))
}

/// A `COPY … FROM STDIN` that is running. Dropped before [`CopyIn::finish`] it is called off: none of its rows stay, and
/// in a transaction only a rollback is left.
#[must_use = "nothing is loaded before finish"]
pub struct CopyIn<'s> {
    session: &'s mut Session,
    /// A message being filled: the room for its header, then rows.
    message: Vec<u8>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The server takes rows.
    Open,
    /// It was finished, or failed.
    Over,
}

impl CopyIn<'_> {
    /// Sends rows; `data` may begin and end anywhere in them. An error of the server is returned as soon as it is seen,
    /// at most a few messages after the row that caused it.
    ///
    /// # Errors
    /// Those of the server, after which only dropping is left, and those of the connection.
    pub fn send(&mut self, data: &[u8]) -> Result<(), PgError> {
        self.check_open()?;
        let mut rest = data;
        while !rest.is_empty() {
            let room = HEADER_BYTES + MESSAGE_BYTES - self.message.len();
            let (fits, later) = rest.split_at(room.min(rest.len()));
            self.message.extend_from_slice(fits);
            rest = later;
            if self.message.len() == HEADER_BYTES + MESSAGE_BYTES {
                self.send_message()?;
            }
        }
        Ok(())
    }

    /// Ends the COPY and returns how many rows the server loaded. They stay if its transaction commits.
    ///
    /// # Errors
    /// Those of the server, which loaded nothing then, and those of the connection.
    pub fn finish(mut self) -> Result<u64, PgError> {
        self.check_open()?;
        if self.message.len() > HEADER_BYTES {
            self.send_message()?;
        }
        self.stage = Stage::Over;
        self.session.send_in_copy(&[b'c', 0, 0, 0, 4])?;
        self.session.end_copy()
    }

    fn check_open(&self) -> Result<(), PgError> {
        match self.stage {
            Stage::Open => Ok(()),
            Stage::Over => Err(PgError::Broken),
        }
    }

    fn send_message(&mut self) -> Result<(), PgError> {
        let length = u32::try_from(self.message.len() - 1).expect("messages are a few hundred KiB");
        self.message[0] = kind::COPY_DATA;
        self.message[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        let sent = self.session.send_in_copy(&self.message).and_then(|()| self.session.check_objection());
        self.message.truncate(HEADER_BYTES);
        if sent.is_err() {
            self.stage = Stage::Over;
        }
        sent
    }
}

impl Session {
    fn send_in_copy(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        self.wire.send(bytes, Limit::Silence(self.no_progress)).map_err(|error| self.failed(error))
    }

    /// Has the server ended the COPY that is being sent to it?
    fn check_objection(&mut self) -> Result<(), PgError> {
        let message = match self.wire.unasked() {
            Ok(None) => return Ok(()),
            Ok(Some(message)) => message,
            Err(error) => return Err(self.failed(error)),
        };
        match message {
            Message { kind: kind::ERROR_RESPONSE, body } => {
                let refusal = ServerError::parse(body);
                Err(self.refused(refusal))
            }
            Message { kind, .. } => Err(self.failed(out_of_place(kind))),
        }
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        if self.stage == Stage::Over {
            return;
        }
        // CopyFail; the server answers it with an error, which is what was asked for.
        let called_off = b"f\0\0\0\x0fcalled off\0";
        if self.session.send_in_copy(called_off).is_ok() {
            let _ = self.session.until_ready(|_| Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_copy_with_a_number_is_a_count() {
        assert_eq!(copied_rows(b"COPY 18446744073709551615\0").expect("a count"), u64::MAX);
        for tag in
            ["COPY", "COPY ", "COPY x", "COPY +5", "COPY 5 6", "COPY -1", "SELECT 5", "COPY 18446744073709551616"]
        {
            assert!(copied_rows(format!("{tag}\0").as_bytes()).is_err(), "{tag}");
        }
        assert!(copied_rows(b"COPY 5").is_err());
    }
}
