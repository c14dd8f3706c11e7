//! Bytes over one socket that does not block, in clear or over TLS.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::OwnedFd;

use rustls::ClientConnection;

use super::pace::Pace;

/// Encrypted bytes read at a time at most: the library itself asks for 4 KiB.
const INBOX_BYTES: usize = 256 << 10;

/// What is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// An answer, which is wanted as soon as it is there.
    Answer,
    /// A stream, which is wanted in large pieces: see [`Pace`].
    Stream,
}

/// A connected socket, and what encrypts it.
pub(super) struct Transport {
    source: Source,
    tls: Option<Box<Tls>>,
}

/// What bytes come from.
struct Source {
    socket: OwnedFd,
    pace: Pace,
}

impl Source {
    fn read(&mut self, buffer: &mut [u8], arrival: Arrival) -> io::Result<usize> {
        if arrival == Arrival::Stream {
            self.pace.gather(&self.socket);
        }
        Raw(&self.socket).read(buffer)
    }
}

/// One end of an encrypted connection.
struct Tls {
    connection: ClientConnection,
    /// What was read from the socket and is not understood yet: `inbox[understood..filled]`.
    inbox: Vec<u8>,
    understood: usize,
    filled: usize,
}

/// Lends `Read` and `Write` to a descriptor.
struct Raw<'s>(&'s OwnedFd);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(self.0, &mut *buffer))?)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::write(self.0, bytes))?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::writev(self.0, slices))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport {
    /// Takes over a socket that does not block.
    pub(super) fn new(socket: OwnedFd) -> Transport {
        let pace = Pace::of(&socket);
        Transport { source: Source { socket, pace }, tls: None }
    }

    /// To be waited on.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.source.socket
    }

    /// Encrypts what is sent from here on; [`Transport::shake_hands`] comes first.
    pub(super) fn encrypt(&mut self, connection: ClientConnection) {
        self.tls = Some(Box::new(Tls { connection, inbox: vec![0; INBOX_BYTES], understood: 0, filled: 0 }));
    }

    /// What encrypts it.
    pub(super) fn tls(&self) -> Option<&ClientConnection> {
        self.tls.as_ref().map(|tls| &tls.connection)
    }

    /// Goes on with the TLS handshake.
    ///
    /// # Errors
    /// `WouldBlock` when it waits for the socket: to be written to if [`Transport::holds_back`], else to be read from.
    /// A [`rustls::Error`] is inside the error of a handshake that failed.
    pub(super) fn shake_hands(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.connection.is_handshaking() {
            tls.flush(&self.source.socket)?;
            if tls.connection.is_handshaking() && tls.receive(&mut self.source, Arrival::Answer)? == Received::End {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        tls.flush(&self.source.socket)
    }

    /// Is something encrypted and not sent yet?
    pub(super) fn holds_back(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.connection.wants_write())
    }

    /// Sends what is held back.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes no more.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.flush(&self.source.socket),
            None => Ok(()),
        }
    }

    /// Reads what is there, or of a stream what is there in a moment; `Ok(0)` at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is.
    pub(super) fn read(&mut self, buffer: &mut [u8], arrival: Arrival) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.source.read(buffer, arrival) };
        loop {
            match tls.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Servers close without a goodbye of TLS.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            // A server that waits for an answer of TLS's own sends nothing else. Errors show in what is received.
            let _ = tls.flush(&self.source.socket);
            tls.receive(&mut self.source, arrival)?;
        }
    }

    /// Writes what fits, and says how much was taken. Over TLS some of that may be held back.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return Raw(&self.source.socket).write(bytes) };
        tls.flush(&self.source.socket)?;
        let taken = tls.connection.writer().write(bytes)?;
        // What was taken is taken; an error shows in the next call.
        let _ = tls.flush(&self.source.socket);
        Ok(taken)
    }
}

/// What came from the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Bytes,
    End,
}

impl Tls {
    fn flush(&mut self, socket: &OwnedFd) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut Raw(socket))?;
        }
        Ok(())
    }

    /// Understands some of what has come, and reads more when all is understood.
    fn receive(&mut self, source: &mut Source, arrival: Arrival) -> io::Result<Received> {
        if self.understood == self.filled {
            self.filled = source.read(&mut self.inbox, arrival)?;
            self.understood = 0;
        }
        let mut rest = &self.inbox[self.understood..self.filled];
        let received = if rest.is_empty() { Received::End } else { Received::Bytes };
        self.connection.read_tls(&mut rest)?;
        self.understood = self.filled - rest.len();
        match self.connection.process_new_packets() {
            Ok(_) => Ok(received),
            Err(error) => {
                // The alert that tells the server why.
                let _ = self.flush(&source.socket);
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }
}
