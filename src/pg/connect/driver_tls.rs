//! The driver over TLS: the handshake is ours, so that it follows the same rules as our own connections; the driver
//! gets the stream that came of it.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::{TlsConnector, client};

use super::certificate;
use super::settings::Negotiation;
use super::tls::{self, Tls};
use crate::pg::PgError;

/// An encrypted stream to a server that proved who it is.
pub(super) struct Encrypted(client::TlsStream<TcpStream>);

impl Encrypted {
    /// Shakes hands with the server of that name.
    ///
    /// # Errors
    /// [`PgError::Tls`], and those of the connection.
    pub(super) async fn over(
        stream: TcpStream,
        tls: &Tls,
        name: ServerName<'static>,
        negotiation: Negotiation,
    ) -> Result<Encrypted, PgError> {
        let shaken = TlsConnector::from(tls.configuration()).connect(name, stream).await;
        let stream = shaken.map_err(|source| {
            PgError::of_tls(&source).unwrap_or(PgError::Connection { what: "connect".into(), source })
        })?;
        tls::check_protocol(stream.get_ref().1, negotiation)?;
        Ok(Encrypted(stream))
    }
}

/// Hands the driver a stream that needs no handshake any more.
pub(super) struct Shaken;

impl TlsConnect<Encrypted> for Shaken {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Ready<io::Result<Encrypted>>;

    fn connect(self, stream: Encrypted) -> Self::Future {
        ready(Ok(stream))
    }
}

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        let certificates = self.0.get_ref().1.peer_certificates();
        let end_point = certificates.and_then(<[_]>::first).and_then(certificate::end_point);
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
