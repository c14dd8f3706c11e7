//! Connecting as libpq does: the same strings, variables and files lead to the same server, login and encryption.
//!
//! | file | holds |
//! |---|---|
//! | `options` | connection strings into libpq's options |
//! | `surroundings` | environment, service files, passfiles |
//! | `settings` | which of them stands above which, and what they mean |
//! | `tls`, `certificate` | whom to trust, who we are |
//! | `driver_tls` | the driver over TLS of ours |
//! | `pool` | connections for questions |
//! | `socket` | addresses, keep-alives, requests to cancel |

mod certificate;
mod driver_tls;
mod options;
mod pool;
mod settings;
mod socket;
mod surroundings;
mod tls;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::seq::SliceRandom;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_blocking;
use tokio_postgres::NoTls;
use tokio_postgres::config::{self as driver};
use tokio_postgres::tls::TlsConnect;
use tokio_util::sync::CancellationToken;

use self::driver_tls::{Encrypted, Shaken};
use self::settings::{ChannelBinding, Encryption, Host, Negotiation, Order, Settings, SslMode, TargetSession};
use self::socket::Address;
use self::surroundings::Surroundings;
use super::error::PgError;
use super::session::Session;
use super::startup::{self, Binding, Login};
use super::wire::{Limit, Stage, Wire};
use crate::error::{Class, Failure};

pub use self::pool::{OwnClient, PooledClient};
pub(super) use self::socket::{Route, TLS_REQUEST};
pub(super) use self::tls::words as tls_words;

/// The settings that every session starts with.
const SESSION_SQL: &str = include_str!("../../../sql/session.sql");
/// What `target_session_attrs` asks a server.
const ATTRIBUTES_SQL: &str =
    "SELECT pg_catalog.pg_is_in_recovery()::pg_catalog.text, pg_catalog.current_setting('transaction_read_only')";
/// How often a name server that does not answer is looked away from.
const TICK: Duration = Duration::from_millis(250);

fn usage(what: impl Into<String>) -> Failure {
    Failure::new(Class::Usage, what)
}

/// A database and a user: what connections are made from. Never shows its password.
///
/// Its first connection chooses the server; all others go to the same one, whatever the string, a name server or
/// `load_balance_hosts` would allow: snapshots, locks and object ids mean nothing on another.
#[derive(Clone)]
pub struct Endpoint {
    servers: Arc<Servers>,
    pool: pool::Pool,
}

/// Where connections go.
struct Servers {
    settings: Settings,
    chosen: OnceLock<Server>,
}

/// One server of those that the settings name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    /// Its host's place in the settings.
    host: usize,
    address: Address,
}

/// Whether a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    Clear,
    Tls,
    /// TLS if the server is willing.
    TlsIfOffered,
}

/// Whether a session begins with the pinned settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pins {
    Set,
    Left,
}

/// One way to connect to one server.
#[derive(Clone)]
struct Attempt {
    target: TargetSession,
    server: Server,
    cover: Cover,
    /// For the address, under whatever cover.
    deadline: Option<Instant>,
}

impl Endpoint {
    /// Reads a connection string, and what it leaves out from where libpq looks for it.
    ///
    /// # Errors
    /// As [`Endpoint::with_password_file`].
    pub fn parse(url: &str) -> Result<Endpoint, Failure> {
        Endpoint::with_password_file(url, None)
    }

    /// The same; the password is that of `password_file`, unless the string has one.
    ///
    /// # Errors
    /// A [`Failure`] of class Usage; its text repeats nothing that could be a part of a password.
    pub fn with_password_file(url: &str, password_file: Option<&Path>) -> Result<Endpoint, Failure> {
        let variable = |name: &str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
            Some(value.to_string_lossy().into_owned())
        };
        let settings = Settings::resolve(url, password_file, &Surroundings { variable: &variable })?;
        let servers = Arc::new(Servers { settings, chosen: OnceLock::new() });
        Ok(Endpoint { pool: pool::new(&servers), servers })
    }

    /// Does the connection string itself hold a password, for everyone to read who can read the string?
    pub fn tells_password(&self) -> bool {
        self.servers.settings.password_in_string
    }

    /// `user@host:port/dbname`, or `user@/directory:port/dbname`; several hosts with commas.
    pub fn display(&self) -> String {
        self.servers.settings.display()
    }

    /// A connection of the driver's, with the pinned settings, for questions that leave no trace in the session. It
    /// goes back to be used again when it is dropped.
    ///
    /// # Errors
    /// A [`PgError`] is in the chain.
    pub async fn client(&self) -> anyhow::Result<PooledClient> {
        let refused = || format!("cannot connect to {}", self.display());
        self.pool.get().await.map_err(pool::reason).with_context(refused)
    }

    /// The same, but nobody's after: for what belongs to a session, such as locks and transactions, and ends with it.
    ///
    /// # Errors
    /// A [`PgError`] is in the chain.
    pub async fn own_client(&self) -> anyhow::Result<OwnClient> {
        let refused = || format!("cannot connect to {}", self.display());
        self.servers.driver_client().await.with_context(refused)
    }

    /// A blocking connection of our own, with the pinned settings. `cancel` ends whatever it waits for within a
    /// second, the opening of a TCP connection aside.
    ///
    /// # Errors
    /// Those of the last host that was tried; a server that refuses the login ends the search.
    pub fn session(&self, cancel: &CancellationToken) -> Result<Session, PgError> {
        let mut session = self.found(Pins::Set, cancel)?;
        session.limit = Limit::Endless;
        Ok(session)
    }

    /// As [`Endpoint::session`], but nothing was set in it, and the limit of the login stands.
    pub(super) fn unpinned_session(&self, cancel: &CancellationToken) -> Result<Session, PgError> {
        self.found(Pins::Left, cancel)
    }

    fn found(&self, pins: Pins, cancel: &CancellationToken) -> Result<Session, PgError> {
        let servers = &*self.servers;
        let mut search = Search::new(servers);
        for (target, host) in search.places() {
            let addresses = match servers.addresses(host, cancel) {
                Ok(addresses) => addresses,
                Err(source) => {
                    search.unreachable(host, source);
                    continue;
                }
            };
            for address in addresses {
                for attempt in servers.attempts(target, Server { host, address }) {
                    match servers.session_at(&attempt, pins, cancel) {
                        Ok(session) if servers.is_chosen(&attempt.server) => return Ok(session),
                        // Another connection has chosen meanwhile.
                        Ok(_) => return self.found(pins, cancel),
                        Err(failed) => {
                            if !search.goes_on(&attempt, failed)? {
                                break;
                            }
                        }
                    }
                }
            }
        }
        Err(search.last)
    }
}

impl Session {
    /// Makes a session of [`Endpoint::unpinned_session`] one of [`Endpoint::session`].
    pub(super) fn pin(&mut self) -> Result<(), PgError> {
        self.run(SESSION_SQL)?;
        self.limit = Limit::Endless;
        Ok(())
    }
}

/// Why an attempt failed, and whether the server had let us in by then.
struct Failed {
    error: PgError,
    stage: Stage,
}

/// Everything before the login.
impl From<PgError> for Failed {
    fn from(error: PgError) -> Failed {
        Failed { error, stage: Stage::Before }
    }
}

/// Which errors end the search for a server, and what is told when none is found.
struct Search<'s> {
    servers: &'s Servers,
    last: PgError,
}

impl<'s> Search<'s> {
    fn new(servers: &'s Servers) -> Search<'s> {
        let what = servers.settings.display();
        Search { servers, last: PgError::Connection { what, source: io::ErrorKind::NotFound.into() } }
    }

    /// The hosts, by their places in the settings, in the order in which they are tried, round by round.
    fn places(&self) -> Vec<(TargetSession, usize)> {
        let settings = &self.servers.settings;
        let mut hosts: Vec<usize> = match self.servers.chosen.get() {
            Some(server) => vec![server.host],
            None => (0..settings.hosts.len()).collect(),
        };
        if settings.order == Order::Random {
            hosts.shuffle(&mut rand::rng());
        }
        let rounds = settings.target.rounds();
        rounds.iter().flat_map(|target| hosts.iter().map(|host| (*target, *host))).collect()
    }

    fn unreachable(&mut self, host: usize, source: io::Error) {
        let Settings { user, dbname, hosts, .. } = &self.servers.settings;
        let what = format!("cannot connect to {user}@{}/{dbname}", hosts[host].display());
        self.note(PgError::Connection { what, source });
    }

    fn note(&mut self, error: PgError) {
        if self.servers.settings.hosts.len() > 1 {
            tracing::info!("{}; the next host is tried, if there is one", error.line());
        }
        self.last = error;
    }

    /// Notes why an attempt failed. `Ok(true)` when the same address may be tried under another cover.
    ///
    /// # Errors
    /// The same error, when nothing else is worth trying.
    fn goes_on(&mut self, attempt: &Attempt, failed: Failed) -> Result<bool, PgError> {
        let Failed { error, stage } = failed;
        let may_fall_back = match (self.servers.settings.encryption.mode, attempt.cover, stage) {
            (SslMode::Allow, Cover::Clear, Stage::Before) => falls_back(&error),
            (SslMode::Prefer, Cover::TlsIfOffered, Stage::Before) => {
                let falls = falls_back(&error);
                if falls {
                    tracing::warn!("{}: with sslmode=prefer it is tried without TLS", error.line());
                }
                falls
            }
            _ => false,
        };
        match error {
            PgError::Connection { source, .. } => self.unreachable(attempt.server.host, source),
            PgError::Tls(_) | PgError::Protocol(_) => self.note(error),
            // It starts or stops: the only refusal after which libpq goes on.
            PgError::Server(_) if error.code() == Some("57P03") => self.note(error),
            error if may_fall_back => self.note(error),
            error => return Err(error),
        }
        Ok(may_fall_back)
    }
}

/// Could the other of TLS and clear text do better? A wrong password gets no better, and is not sent again.
fn falls_back(error: &PgError) -> bool {
    match error {
        PgError::Tls(_) | PgError::Protocol(_) => true,
        // The server ended the handshake without a word.
        PgError::Connection { source, .. } => {
            matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
        }
        PgError::Server(server) => server.is_fatal() && server.code != "28P01" && error.class() != Class::Transient,
        _ => false,
    }
}

impl Encryption {
    /// How an address is tried, in order.
    fn covers(&self, address: &Address) -> &'static [Cover] {
        match (address, self.mode) {
            (Address::Unix(_), _) | (_, SslMode::Disable) => &[Cover::Clear],
            (_, SslMode::Allow) => &[Cover::Clear, Cover::Tls],
            (_, SslMode::Prefer) => &[Cover::TlsIfOffered, Cover::Clear],
            (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => &[Cover::Tls],
        }
    }
}

fn no_tls() -> PgError {
    PgError::Tls("the server does not do TLS, and sslmode asks for it".into())
}

fn unfit() -> PgError {
    let source = io::Error::other("the server has not the session attributes that are asked for");
    PgError::Connection { what: "connect".into(), source }
}

impl Settings {
    fn display(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(Host::display).collect();
        format!("{}@{}/{}", self.user, hosts.join(","), self.dbname)
    }
}

impl Servers {
    fn is_chosen(&self, server: &Server) -> bool {
        self.chosen.get_or_init(|| server.clone()) == server
    }

    fn attempts(&self, target: TargetSession, server: Server) -> Vec<Attempt> {
        let deadline = self.settings.connect_timeout.map(|longest| Instant::now() + longest);
        let covers = self.settings.encryption.covers(&server.address);
        covers.iter().map(|cover| Attempt { target, server: server.clone(), cover: *cover, deadline }).collect()
    }

    /// The addresses of a host in the order in which they are tried; the one that was chosen if one was. A name server
    /// that does not answer is given up in time.
    fn addresses(&self, host: usize, cancel: &CancellationToken) -> io::Result<Vec<Address>> {
        if let Some(server) = self.chosen.get() {
            return Ok(vec![server.address.clone()]);
        }
        let place = self.settings.hosts[host].clone();
        let (answer, answered) = mpsc::channel();
        std::thread::spawn(move || answer.send(socket::resolve(&place)));
        let begun = Instant::now();
        let mut addresses = loop {
            match answered.recv_timeout(TICK) {
                Ok(addresses) => break addresses?,
                Err(_) if cancel.is_cancelled() => return Err(io::ErrorKind::Interrupted.into()),
                Err(mpsc::RecvTimeoutError::Timeout)
                    if self.settings.connect_timeout.is_none_or(|longest| begun.elapsed() < longest) => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        };
        if self.settings.order == Order::Random {
            addresses.shuffle(&mut rand::rng());
        }
        Ok(addresses)
    }

    fn session_at(&self, attempt: &Attempt, pins: Pins, cancel: &CancellationToken) -> Result<Session, Failed> {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled.into());
        }
        let Attempt { target, server, cover, deadline } = attempt;
        let limit = deadline.map_or(Limit::Endless, Limit::Until);
        let host = &self.settings.hosts[server.host];
        let encryption = &self.settings.encryption;
        let mut wire = Wire::new(self.open(attempt)?, cancel.clone());
        let mut route = Route { address: server.address.clone(), tls: None };
        if let (Cover::Tls | Cover::TlsIfOffered, Some(tls)) = (cover, &encryption.tls) {
            let offered = encryption.negotiation == Negotiation::Direct || wire.request_tls(limit)?;
            if offered {
                let name = host.place.server_name()?;
                wire.start_tls(tls.connection(name.clone())?, limit)?;
                route.tls = Some((tls.clone(), name, encryption.negotiation));
            } else if *cover == Cover::Tls {
                return Err(no_tls().into());
            }
        }
        let mut end_point = None;
        if let Some(connection) = wire.tls() {
            tls::check_protocol(connection, encryption.negotiation)?;
            let certificates = connection.peer_certificates();
            end_point = certificates.and_then(<[_]>::first).and_then(certificate::end_point);
        }
        let login = Login {
            user: &self.settings.user,
            password: host.password.as_deref().map(str::as_bytes),
            dbname: &self.settings.dbname,
            application_name: &self.settings.application_name,
            options: self.settings.options.as_deref(),
            binding: match (encryption.channel_binding, end_point) {
                (ChannelBinding::Require, end_point) => Binding::Required(end_point),
                (ChannelBinding::Prefer, Some(end_point)) => Binding::Offered(end_point),
                (ChannelBinding::Disable, _) | (ChannelBinding::Prefer, None) => Binding::None,
            },
        };
        let key = match startup::start(&mut wire, &login, limit) {
            Ok(key) => key,
            Err(error) => return Err(Failed { error, stage: wire.stage() }),
        };
        let mut session = Session::new(wire, route, key, limit);
        match prepare(&mut session, *target, pins) {
            Ok(()) => Ok(session),
            Err(error) => Err(Failed { error, stage: Stage::LoggedIn }),
        }
    }

    fn open(&self, attempt: &Attempt) -> Result<OwnedFd, PgError> {
        let left = attempt.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let lost = |source| PgError::Connection { what: "connect".into(), source };
        if left.is_some_and(|left| left.is_zero()) {
            return Err(lost(io::ErrorKind::TimedOut.into()));
        }
        attempt.server.address.open(left, &self.settings.keepalives).map_err(lost)
    }

    /// A connection of the driver's, with the pinned settings, made in the same order and under the same cover as
    /// [`Endpoint::session`].
    async fn driver_client(self: &Arc<Self>) -> Result<OwnClient, PgError> {
        let mut search = Search::new(self);
        for (target, host) in search.places() {
            let this = Arc::clone(self);
            let resolved = spawn_blocking(move || this.addresses(host, &CancellationToken::new())).await;
            let addresses = match resolved.unwrap_or_else(|error| Err(error.into())) {
                Ok(addresses) => addresses,
                Err(source) => {
                    search.unreachable(host, source);
                    continue;
                }
            };
            for address in addresses {
                for attempt in self.attempts(target, Server { host, address }) {
                    let connecting = Box::pin(self.driver_client_at(&attempt));
                    let until = attempt.deadline.map_or_else(far_future, Into::into);
                    let failed = match tokio::time::timeout_at(until, connecting).await {
                        Ok(Ok(client)) if self.is_chosen(&attempt.server) => return Ok(client),
                        // Another connection has chosen meanwhile.
                        Ok(Ok(_)) => return Box::pin(self.driver_client()).await,
                        Ok(Err(failed)) => failed,
                        Err(_) => {
                            PgError::Connection { what: "connect".into(), source: io::ErrorKind::TimedOut.into() }
                                .into()
                        }
                    };
                    if !search.goes_on(&attempt, failed)? {
                        break;
                    }
                }
            }
        }
        Err(search.last)
    }

    async fn driver_client_at(self: &Arc<Self>, attempt: &Attempt) -> Result<OwnClient, Failed> {
        let Attempt { target, server, cover, .. } = attempt;
        let host = &self.settings.hosts[server.host];
        let encryption = &self.settings.encryption;
        let lost = |source| PgError::Connection { what: "connect".into(), source };
        let (this, trying) = (Arc::clone(self), attempt.clone());
        let socket = spawn_blocking(move || this.open(&trying)).await.map_err(|error| lost(error.into()))??;
        let client = match server.address {
            Address::Unix(_) => {
                let stream = UnixStream::from_std(socket.into()).map_err(lost)?;
                self.settings.start_driver(host, stream, NoTls, driver::SslMode::Disable).await?
            }
            Address::Tcp(_) => {
                let mut stream = TcpStream::from_std(socket.into()).map_err(lost)?;
                let tls = encryption.tls.as_ref().filter(|_| *cover != Cover::Clear);
                let offered = match (tls, encryption.negotiation) {
                    (None, _) => false,
                    (Some(_), Negotiation::Direct) => true,
                    (Some(_), Negotiation::Postgres) => request_tls(&mut stream).await?,
                };
                match tls.filter(|_| offered) {
                    Some(tls) => {
                        let name = host.place.server_name()?;
                        let stream = Encrypted::over(stream, tls, name, encryption.negotiation).await?;
                        self.settings.start_driver(host, stream, Shaken, driver::SslMode::Require).await?
                    }
                    None if *cover == Cover::Tls => return Err(no_tls().into()),
                    None => self.settings.start_driver(host, stream, NoTls, driver::SslMode::Disable).await?,
                }
            }
        };
        prepare_driver(&client, *target).await.map_err(|error| Failed { error, stage: Stage::LoggedIn })?;
        Ok(client)
    }
}

/// The pinned settings, and whether the server is what is looked for.
fn prepare(session: &mut Session, target: TargetSession, pins: Pins) -> Result<(), PgError> {
    if pins == Pins::Set {
        session.run(SESSION_SQL)?;
    }
    if target == TargetSession::Any {
        return Ok(());
    }
    let rows = session.query(ATTRIBUTES_SQL, &[])?;
    let row = rows.first().ok_or_else(unfit)?;
    if target.fits(row.text(0)? == "true", row.text(1)? == "on") { Ok(()) } else { Err(unfit()) }
}

/// As [`prepare`].
async fn prepare_driver(client: &OwnClient, target: TargetSession) -> Result<(), PgError> {
    client.batch_execute(SESSION_SQL).await?;
    if target == TargetSession::Any {
        return Ok(());
    }
    let row = client.query_one(ATTRIBUTES_SQL, &[]).await?;
    if target.fits(row.get::<_, String>(0) == "true", row.get::<_, String>(1) == "on") { Ok(()) } else { Err(unfit()) }
}

fn far_future() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(365 * 24 * 3600)
}

impl Settings {
    /// Logs in over `stream`; TLS, if `mode` asks for it, was done before.
    async fn start_driver<S, T>(
        &self,
        host: &Host,
        stream: S,
        tls: T,
        mode: driver::SslMode,
    ) -> Result<OwnClient, PgError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: TlsConnect<S>,
        T::Stream: Send + 'static,
    {
        let mut config = driver::Config::new();
        config.user(&self.user).dbname(&self.dbname).application_name(&self.application_name);
        config.ssl_mode(mode).ssl_negotiation(driver::SslNegotiation::Direct);
        config.channel_binding(match self.encryption.channel_binding {
            ChannelBinding::Disable => driver::ChannelBinding::Disable,
            ChannelBinding::Prefer => driver::ChannelBinding::Prefer,
            ChannelBinding::Require => driver::ChannelBinding::Require,
        });
        if let Some(options) = &self.options {
            config.options(options);
        }
        if let Some(password) = &host.password {
            config.password(password);
        }
        let (client, connection) =
            config.connect_raw(stream, tls).await.map_err(|error| match PgError::from(error) {
                PgError::Login(what) if what.contains("password missing") => {
                    PgError::Login(startup::no_password(&self.user))
                }
                error => error,
            })?;
        tokio::spawn(async move {
            // Whoever uses the client gets an error of their own.
            if let Err(error) = connection.await {
                tracing::debug!(error = %PgError::from(error), "a connection ended");
            }
        });
        // What is aborted with the client is this, not the connection: that one says goodbye to the server first.
        Ok(OwnClient::new(client, tokio::spawn(std::future::ready(()))))
    }
}

/// Asks a server for TLS: see [`Wire::request_tls`].
async fn request_tls(stream: &mut TcpStream) -> Result<bool, PgError> {
    let lost = |source| PgError::Connection { what: "connect".into(), source };
    stream.write_all(&TLS_REQUEST).await.map_err(lost)?;
    match stream.read_u8().await.map_err(lost)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        other => Err(PgError::Protocol(format!("{:?} in answer to a request for TLS", char::from(other)))),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.display())
    }
}
