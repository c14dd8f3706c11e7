//! Sockets to a server, and what is done on one before it is logged in.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, sockopt};
use rustls::pki_types::ServerName;

use super::settings::{Host, Keepalives, Negotiation, Place};
use super::tls::{self, Tls};

/// A request to cancel that is not taken within this time is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);
/// Asks a server for TLS: its length, and the code of SSLRequest.
pub(in crate::pg) const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pg) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The addresses of a host, which may ask a name server.
pub(super) fn resolve(host: &Host) -> io::Result<Vec<Address>> {
    match &host.place {
        Place::Tcp { address: Some(address), .. } => Ok(vec![Address::Tcp((*address, host.port).into())]),
        Place::Tcp { name, .. } => Ok((name.as_str(), host.port).to_socket_addrs()?.map(Address::Tcp).collect()),
        Place::Socket(directory) => Ok(vec![Address::Unix(directory.join(format!(".s.PGSQL.{}", host.port)))]),
    }
}

impl Address {
    fn connect(&self, timeout: Option<Duration>) -> io::Result<OwnedFd> {
        Ok(match (self, timeout) {
            (Address::Tcp(address), Some(timeout)) => TcpStream::connect_timeout(address, timeout)?.into(),
            (Address::Tcp(address), None) => TcpStream::connect(address)?.into(),
            (Address::Unix(path), timeout) => {
                // A server that is stopped takes nobody from its queue, and a full queue makes callers wait.
                let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
                sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, timeout)?;
                let connected = rustix::net::connect(&socket, &SocketAddrUnix::new(path)?);
                connected.map_err(|error| match error {
                    Errno::AGAIN => io::ErrorKind::TimedOut.into(),
                    error => io::Error::from(error),
                })?;
                socket
            }
        })
    }

    /// A connected socket that does not block, and notices a dead peer.
    pub(super) fn open(&self, timeout: Option<Duration>, keepalives: &Keepalives) -> io::Result<OwnedFd> {
        let socket = self.connect(timeout)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        if let Address::Unix(_) = self {
            return Ok(socket);
        }
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_socket_keepalive(&socket, keepalives.enabled)?;
        if keepalives.enabled {
            if let Some(idle) = keepalives.idle {
                sockopt::set_tcp_keepidle(&socket, idle)?;
            }
            if let Some(interval) = keepalives.interval {
                sockopt::set_tcp_keepintvl(&socket, interval)?;
            }
            if let Some(probes) = keepalives.probes {
                sockopt::set_tcp_keepcnt(&socket, probes)?;
            }
        }
        #[cfg(target_os = "linux")]
        if let Some(millis) = keepalives.user_timeout_millis {
            sockopt::set_tcp_user_timeout(&socket, millis)?;
        }
        Ok(socket)
    }
}

/// The way to a server that answered: what a request to cancel goes by.
#[derive(Clone)]
pub(in crate::pg) struct Route {
    pub(super) address: Address,
    /// As the session's own connection.
    pub(super) tls: Option<(Tls, ServerName<'static>, Negotiation)>,
}

impl Route {
    /// Delivers a CancelRequest on a connection of its own, encrypted if the session is. `Ok` once the server has read
    /// it, which closes the connection; whether it found anything to cancel is not told.
    pub(in crate::pg) fn cancel(&self, request: &[u8]) -> io::Result<()> {
        let socket = self.address.connect(Some(CANCEL_TIMEOUT))?;
        for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&socket, direction, Some(CANCEL_TIMEOUT))?;
        }
        // A File only lends its Read and Write to the descriptor.
        let mut socket = File::from(socket);
        let Some((tls, name, negotiation)) = &self.tls else {
            socket.write_all(request)?;
            socket.read_to_end(&mut Vec::new())?;
            return Ok(());
        };
        if *negotiation == Negotiation::Postgres {
            socket.write_all(&TLS_REQUEST)?;
            let mut answer = [0];
            socket.read_exact(&mut answer)?;
            if answer != *b"S" {
                return Err(io::Error::other("the server does not do TLS any more"));
            }
        }
        let mut connection = tls.connection(name.clone()).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        tls::check_protocol(&connection, *negotiation).map_err(io::Error::other)?;
        let mut stream = rustls::Stream::new(&mut connection, &mut socket);
        stream.write_all(request)?;
        stream.flush()?;
        // The server closes without a goodbye of TLS.
        match stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(()),
        }
    }
}
