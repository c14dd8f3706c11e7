//! Messages over one socket: read in place, written without ever waiting for a server that waits for us.
//!
//! The socket does not block; every wait looks at the cancellation token four times a second. After any error but the
//! server's own the position in the stream is unknown, and the connection is of no use.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustls::ClientConnection;
use tokio_util::sync::CancellationToken;

use super::connect::TLS_REQUEST;
use super::error::{PgError, ServerError};
use super::transport::{Arrival, Transport};

/// Bytes read at a time, and the usual size of the read buffer.
const READ_BYTES: usize = 1 << 20;
/// A read buffer that grew beyond this for a long message is let go after it.
const KEPT_BYTES: usize = 8 << 20;
/// PostgreSQL allocates at most 1 GiB at once, so no message is longer.
const MAX_MESSAGE_BYTES: usize = 1 << 30;
/// The kind of a message, and its length, which counts itself but not the kind.
const HEADER_BYTES: usize = 5;
/// How long a wait goes without looking at the cancellation token.
const TICK: Duration = Duration::from_millis(250);

/// How long to wait for the server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// As long as its work takes.
    Endless,
    /// Until nothing moved for that long: [`PgError::NoProgress`].
    Silence(Duration),
    /// Until that instant: [`PgError::Connection`].
    Until(Instant),
}

/// One message of the server.
pub(super) struct Message<'a> {
    /// The byte that names its kind.
    pub(super) kind: u8,
    /// What follows the length.
    pub(super) body: &'a [u8],
}

/// The kinds of messages that are told apart here.
pub(super) mod kind {
    pub(in crate::pg) const AUTHENTICATION: u8 = b'R';
    pub(in crate::pg) const BACKEND_KEY_DATA: u8 = b'K';
    pub(in crate::pg) const COMMAND_COMPLETE: u8 = b'C';
    pub(in crate::pg) const COPY_DATA: u8 = b'd';
    pub(in crate::pg) const COPY_DONE: u8 = b'c';
    pub(in crate::pg) const COPY_IN_RESPONSE: u8 = b'G';
    pub(in crate::pg) const COPY_OUT_RESPONSE: u8 = b'H';
    pub(in crate::pg) const DATA_ROW: u8 = b'D';
    pub(in crate::pg) const ERROR_RESPONSE: u8 = b'E';
    pub(in crate::pg) const NOTICE_RESPONSE: u8 = b'N';
    pub(in crate::pg) const NOTIFICATION_RESPONSE: u8 = b'A';
    pub(in crate::pg) const PARAMETER_STATUS: u8 = b'S';
    pub(in crate::pg) const READY_FOR_QUERY: u8 = b'Z';
}

/// Where a login stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The server has not let us in yet: another cover, or another host, may do better.
    Before,
    /// It has.
    LoggedIn,
}

/// A connected socket and what was read from it ahead.
pub(super) struct Wire {
    transport: Transport,
    /// Whether the server let us in.
    stage: Stage,
    cancel: CancellationToken,
    input: Input,
}

impl Wire {
    /// Takes over a connected socket that does not block.
    pub(super) fn new(socket: OwnedFd, cancel: CancellationToken) -> Wire {
        Wire { transport: Transport::new(socket), stage: Stage::Before, cancel, input: Input::default() }
    }

    /// Asks the server for TLS. `true` when it is willing, and then TLS is all it understands.
    pub(super) fn request_tls(&mut self, limit: Limit) -> Result<bool, PgError> {
        self.send(&TLS_REQUEST, limit)?;
        // No byte more than the answer: what follows it in clear could be anybody's.
        let mut answer = [0];
        loop {
            self.check_cancelled()?;
            match self.transport.read(&mut answer, Arrival::Answer) {
                Ok(0) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => break,
                Err(error) => self.wait_out(error, PollFlags::IN, limit)?,
            }
        }
        match answer {
            [b'S'] => Ok(true),
            [b'N'] => Ok(false),
            [other] => Err(PgError::Protocol(format!("{:?} in answer to a request for TLS", char::from(other)))),
        }
    }

    /// Where the login stands.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Notes that the server let us in.
    pub(super) fn logged_in(&mut self) {
        self.stage = Stage::LoggedIn;
    }

    /// Encrypts the connection from here on.
    pub(super) fn start_tls(&mut self, connection: ClientConnection, limit: Limit) -> Result<(), PgError> {
        // Bytes in clear must not be taken for what comes out of TLS.
        if self.input.start != self.input.end {
            return Err(PgError::Protocol("bytes in clear before the answer to a request for TLS".into()));
        }
        self.transport.encrypt(connection);
        loop {
            self.check_cancelled()?;
            match self.transport.shake_hands() {
                Ok(()) => return Ok(()),
                Err(error) => self.wait_out(error, PollFlags::empty(), limit)?,
            }
        }
    }

    /// What encrypts the connection; `None` in clear.
    pub(super) fn tls(&self) -> Option<&ClientConnection> {
        self.transport.tls()
    }

    /// The next message that answers something. Notices, notifications and changed settings, which may come at any
    /// time, are passed over.
    pub(super) fn message(&mut self, limit: Limit) -> Result<Message<'_>, PgError> {
        self.arrived(Arrival::Answer, limit)
    }

    /// As [`Wire::message`], one of very many.
    #[inline]
    pub(super) fn one_of_many(&mut self, limit: Limit) -> Result<Message<'_>, PgError> {
        self.arrived(Arrival::Stream, limit)
    }

    #[inline]
    fn arrived(&mut self, arrival: Arrival, limit: Limit) -> Result<Message<'_>, PgError> {
        loop {
            match self.input.take()? {
                Some((kind::COPY_DATA, body)) => return Ok(self.input.message(kind::COPY_DATA, body)),
                Some((kind, body)) if is_asynchronous(kind) => trace_notice(kind, &self.input.bytes[body]),
                Some((kind, body)) => return Ok(self.input.message(kind, body)),
                None => self.read(arrival, limit)?,
            }
        }
    }

    /// A message that the server sent without being waited for, if one is there. `None` also while it is incomplete.
    pub(super) fn unasked(&mut self) -> Result<Option<Message<'_>>, PgError> {
        // What is held comes first: after it there may be nothing but the end of the connection.
        self.skip_asynchronous()?;
        if self.input.peek()?.is_none() {
            self.take_in()?;
            self.skip_asynchronous()?;
        }
        Ok(self.input.take()?.map(|(kind, body)| self.input.message(kind, body)))
    }

    /// Sends all of `bytes`. What the server sends meanwhile is taken in, so that the two never wait for each other:
    /// a server that floods notices stops reading until they are read.
    pub(super) fn send(&mut self, bytes: &[u8], limit: Limit) -> Result<(), PgError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.check_cancelled()?;
            match self.transport.write(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) => self.make_room(error, limit)?,
            }
        }
        while let Err(error) = self.transport.flush() {
            self.check_cancelled()?;
            self.make_room(error, limit)?;
        }
        Ok(())
    }

    /// Waits until more can be sent after `error`, and takes in what comes meanwhile.
    fn make_room(&mut self, error: io::Error, limit: Limit) -> Result<(), PgError> {
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            io::ErrorKind::WouldBlock => {
                let ready = self.wait(PollFlags::IN | PollFlags::OUT, limit)?;
                if !ready.contains(PollFlags::OUT) {
                    self.take_in().map_err(|error| self.last_words(error))?;
                    self.skip_asynchronous()?;
                }
                Ok(())
            }
            _ => {
                let error = self.broken(error);
                Err(self.last_words(error))
            }
        }
    }

    /// Sends what fits at once and ignores what becomes of it: for a goodbye.
    pub(super) fn send_if_possible(&mut self, bytes: &[u8]) {
        let _ = self.transport.write(bytes);
    }

    /// Ends the connection for both sides. A server that is blocked in sending to us does not look at requests to
    /// cancel, but it does see this.
    pub(super) fn hang_up(&self) {
        let _ = rustix::net::shutdown(self.transport.socket(), rustix::net::Shutdown::Both);
    }

    /// Waits for bytes and reads them.
    fn read(&mut self, arrival: Arrival, limit: Limit) -> Result<(), PgError> {
        loop {
            self.check_cancelled()?;
            match self.transport.read(self.input.room(), arrival) {
                Ok(0) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    self.input.end += count;
                    return Ok(());
                }
                Err(error) => self.wait_out(error, PollFlags::IN, limit)?,
            }
        }
    }

    /// Reads what is there without waiting.
    fn take_in(&mut self) -> Result<(), PgError> {
        match self.transport.read(self.input.room(), Arrival::Answer) {
            Ok(0) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => self.input.end += count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(self.broken(error)),
        }
        Ok(())
    }

    fn skip_asynchronous(&mut self) -> Result<(), PgError> {
        while let Some((kind, body)) = self.input.peek()?.filter(|(kind, _)| is_asynchronous(*kind)) {
            self.input.start = body.end;
            trace_notice(kind, &self.input.bytes[body]);
        }
        Ok(())
    }

    /// Why the connection ended with `error`: the server may have said so before it closed it.
    fn last_words(&mut self, error: PgError) -> PgError {
        match self.unasked() {
            Ok(Some(message)) if message.kind == kind::ERROR_RESPONSE => ServerError::parse(message.body).into(),
            Err(refusal @ PgError::Tls(_)) => refusal,
            _ => error,
        }
    }

    /// What an error of the transport means: before the login, that TLS was refused; afterwards, that the connection
    /// is lost.
    fn broken(&self, error: io::Error) -> PgError {
        match (self.stage, PgError::of_tls(&error)) {
            (Stage::Before, Some(refused)) => refused,
            _ => lost(error),
        }
    }

    fn check_cancelled(&self) -> Result<(), PgError> {
        if self.cancel.is_cancelled() { Err(PgError::Cancelled) } else { Ok(()) }
    }

    /// Waits for the socket after `error`: to be ready for `wanted`, and for what TLS holds back; for reading if that is
    /// nothing.
    fn wait_out(&self, error: io::Error, wanted: PollFlags, limit: Limit) -> Result<(), PgError> {
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            io::ErrorKind::WouldBlock => {
                let held_back = if self.transport.holds_back() { PollFlags::OUT } else { PollFlags::empty() };
                let wanted = if (wanted | held_back).is_empty() { PollFlags::IN } else { wanted | held_back };
                self.wait(wanted, limit).map(drop)
            }
            _ => Err(self.broken(error)),
        }
    }

    /// Waits until the socket is ready for one of `wanted`.
    fn wait(&self, wanted: PollFlags, limit: Limit) -> Result<PollFlags, PgError> {
        let begun = Instant::now();
        loop {
            self.check_cancelled()?;
            let left = match limit {
                Limit::Endless => TICK,
                Limit::Silence(longest) => longest.saturating_sub(begun.elapsed()),
                Limit::Until(instant) => instant.saturating_duration_since(Instant::now()),
            };
            if left.is_zero() {
                return Err(match limit {
                    Limit::Silence(longest) => PgError::NoProgress(longest),
                    Limit::Until(_) | Limit::Endless => lost(io::ErrorKind::TimedOut.into()),
                });
            }
            let tick = Timespec::try_from(left.min(TICK)).unwrap_or_default();
            let mut sockets = [PollFd::new(self.transport.socket(), wanted)];
            match poll(&mut sockets, Some(&tick)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(sockets[0].revents()),
                Err(error) => return Err(lost(error.into())),
            }
        }
    }
}

fn lost(source: io::Error) -> PgError {
    let what = match source.kind() {
        io::ErrorKind::UnexpectedEof => "the server closed the connection",
        io::ErrorKind::TimedOut => "the server did not answer in time",
        _ => "the connection to the server was lost",
    };
    PgError::Connection { what: what.to_owned(), source }
}

fn is_asynchronous(kind: u8) -> bool {
    matches!(kind, kind::NOTICE_RESPONSE | kind::PARAMETER_STATUS | kind::NOTIFICATION_RESPONSE)
}

fn trace_notice(kind: u8, body: &[u8]) {
    if kind == kind::NOTICE_RESPONSE && tracing::enabled!(tracing::Level::DEBUG) {
        // Its text is for whoever wrote the trigger, and may hold row values.
        let notice = ServerError::parse(body);
        tracing::debug!(severity = notice.severity, code = notice.code, "notice of the server");
    }
}

/// What was read ahead: `bytes[start..end]`.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// The whole length of the message at the front, once its header is there.
    #[inline]
    fn front_bytes(&self) -> Result<Option<usize>, PgError> {
        let Some(&[kind, a, b, c, d]) = self.bytes[self.start..self.end].first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..=MAX_MESSAGE_BYTES).contains(&length) {
            return Err(PgError::Protocol(format!("a message of kind {kind:#04x} that is {length} bytes long")));
        }
        Ok(Some(1 + length))
    }

    /// The message at the front if it is complete: its kind and where its body is.
    #[inline]
    fn peek(&self) -> Result<Option<(u8, Range<usize>)>, PgError> {
        Ok(self.front_bytes()?.filter(|length| self.end - self.start >= *length).map(|length| {
            let body = self.start + HEADER_BYTES..self.start + length;
            (self.bytes[self.start], body)
        }))
    }

    /// As [`Input::peek`], and goes on to the next. The body stays where it is until [`Input::room`].
    #[inline]
    fn take(&mut self) -> Result<Option<(u8, Range<usize>)>, PgError> {
        let front = self.peek()?;
        if let Some((_, body)) = &front {
            self.start = body.end;
        }
        Ok(front)
    }

    #[inline]
    fn message(&self, kind: u8, body: Range<usize>) -> Message<'_> {
        Message { kind, body: &self.bytes[body] }
    }

    /// Room for more after what is held, which moves to the front. Grows only when it is full of one message, and
    /// only by as much as has arrived: a length alone costs nothing.
    fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() > KEPT_BYTES && self.end < READ_BYTES {
            self.bytes.truncate(READ_BYTES);
            self.bytes.shrink_to_fit();
        }
        if self.end == self.bytes.len() {
            self.bytes.resize((2 * self.bytes.len()).max(READ_BYTES), 0);
        }
        &mut self.bytes[self.end..]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        ours.set_nonblocking(true).expect("a socket that does not block");
        (Wire::new(ours.into(), CancellationToken::new()), theirs)
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    #[test]
    fn messages_come_out_whole_however_they_arrive() {
        let bodies: Vec<Vec<u8>> = (0_u8..50).map(|i| vec![i; usize::from(i) * 7]).collect();
        let stream: Vec<u8> = bodies.iter().flat_map(|body| message(b'd', body)).collect();
        for step in [1, 2, 3, 5, 64, 1000] {
            let (mut wire, mut server) = pair();
            std::thread::scope(|scope| {
                scope.spawn(|| stream.chunks(step).for_each(|chunk| server.write_all(chunk).expect("sent")));
                for body in &bodies {
                    assert_eq!(wire.message(Limit::Endless).expect("a message").body, &body[..], "step {step}");
                }
            });
        }
    }

    #[test]
    fn a_long_message_is_read_whole_and_its_memory_let_go_after_it() {
        let long = vec![b'x'; KEPT_BYTES * 2];
        let stream = [message(b'd', &long), message(b'd', b"short"), message(b'd', b"last")];
        let (mut wire, mut server) = pair();
        std::thread::scope(|scope| {
            let (go, gone) = std::sync::mpsc::channel();
            scope.spawn(move || {
                for part in stream {
                    server.write_all(&part).expect("sent");
                    gone.recv().expect("the reader goes on");
                }
            });
            assert!(wire.message(Limit::Endless).expect("a message").body == long);
            assert!(wire.input.bytes.len() > KEPT_BYTES);
            for body in [&b"short"[..], b"last"] {
                go.send(()).expect("the writer waits");
                assert_eq!(wire.message(Limit::Endless).expect("a message").body, body);
            }
            assert!(wire.input.bytes.capacity() <= READ_BYTES);
            go.send(()).expect("the writer waits");
        });
    }

    #[test]
    fn what_is_not_this_protocol_is_refused_at_once() {
        for nonsense in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"d\0\0\0\x03", b"d\xff\xff\xff\xff"] {
            let (mut wire, mut server) = pair();
            server.write_all(nonsense).expect("sent");
            assert!(matches!(wire.message(Limit::Endless), Err(PgError::Protocol(_))));
        }
    }

    #[test]
    fn the_end_of_the_stream_inside_a_message_is_an_error() {
        let (mut wire, mut server) = pair();
        server.write_all(b"d\0\0\0\x10half").expect("sent");
        drop(server);
        assert!(matches!(wire.message(Limit::Endless), Err(PgError::Connection { .. })));
    }

    #[test]
    fn silence_ends_a_read_and_a_write() {
        let silence = Duration::from_millis(300);
        let (mut wire, _server) = pair();
        assert!(matches!(wire.message(Limit::Silence(silence)), Err(PgError::NoProgress(_))));
        let (mut wire, _server) = pair();
        assert!(matches!(wire.send(&vec![0; 16 << 20], Limit::Silence(silence)), Err(PgError::NoProgress(_))));
    }

    #[test]
    fn a_cancelled_token_ends_a_wait() {
        let (mut wire, _server) = pair();
        let cancel = wire.cancel.clone();
        let begun = Instant::now();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            cancel.cancel();
        });
        assert!(matches!(wire.message(Limit::Endless), Err(PgError::Cancelled)));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}
