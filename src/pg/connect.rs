//! Where a database is and who we are there: connection strings by libpq's rules, as far as they are supported.
//!
//! URLs and key/value strings; several hosts, tried in order; `host=/directory` for sockets, and
//! `/var/run/postgresql` where no host is named. From the environment: PGUSER and PGPASSWORD, where the string has
//! none. Connections are made without TLS: a string that asks for it is refused, never downgraded.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::net::sockopt;
use tokio_postgres::NoTls;
use tokio_postgres::config::{ChannelBinding, Config, Host, SslMode, SslNegotiation, TargetSessionAttrs};
use tokio_util::sync::CancellationToken;

use super::error::PgError;
use super::session::Session;
use super::startup::{self, Login};
use super::wire::{Limit, Wire};
use crate::error::{Class, Failure};

/// The settings that every session starts with.
const SESSION_SQL: &str = include_str!("../../sql/session.sql");
/// Debian's and Fedora's directory for sockets.
const SOCKET_DIRECTORY: &str = "/var/run/postgresql";
/// For the connection, the login and the settings together, per address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request to cancel that is not taken within this time is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent peer is found dead after a minute of silence and six unanswered probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

/// A database and a user: what a connection is made from. Never shows its password.
#[derive(Clone)]
pub struct Endpoint {
    config: Config,
    hosts: Vec<(Host, u16)>,
    user: String,
    dbname: String,
}

impl Endpoint {
    /// Reads a connection string.
    ///
    /// # Errors
    /// A [`Failure`] of class Usage; its text repeats nothing that could be a part of a password.
    pub fn parse(url: &str) -> Result<Endpoint, Failure> {
        Endpoint::parse_with(url, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn parse_with(url: &str, env: impl Fn(&str) -> Option<String>) -> Result<Endpoint, Failure> {
        let mut config = parse_config(url)?;
        refuse_tls(&config)?;
        if config.get_user().is_none_or(str::is_empty) {
            let user = match env("PGUSER") {
                Some(user) => user,
                None => whoami::username()
                    .map_err(|error| usage(format!("the connection string names no user ({error})")))?,
            };
            config.user(user);
        }
        let user = config.get_user().unwrap_or_default().to_owned();
        if config.get_dbname().is_none_or(str::is_empty) {
            config.dbname(&user);
        }
        let dbname = config.get_dbname().unwrap_or_default().to_owned();
        if config.get_password().is_none_or(<[u8]>::is_empty)
            && let Some(password) = env("PGPASSWORD")
        {
            config.password(password);
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host_path(SOCKET_DIRECTORY);
        }
        if config.get_application_name().is_none() {
            config.application_name("pgslice");
        }
        config.ssl_mode(SslMode::Disable);
        config.connect_timeout(config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT));
        config.keepalives_idle(config.get_keepalives_idle().min(KEEPALIVE_IDLE));
        config.keepalives_interval(config.get_keepalives_interval().unwrap_or(KEEPALIVE_INTERVAL));
        config.keepalives_retries(config.get_keepalives_retries().unwrap_or(KEEPALIVE_PROBES));
        let hosts = hosts(&config)?;
        Ok(Endpoint { config, hosts, user, dbname })
    }

    /// `user@host:port/dbname`, or `user@/directory:port/dbname`; several hosts with commas.
    pub fn display(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(host_and_port).collect();
        format!("{}@{}/{}", self.user, hosts.join(","), self.dbname)
    }

    /// A connection of the driver's, with the pinned settings.
    ///
    /// # Errors
    /// A [`PgError`] is in the chain.
    pub async fn client(&self) -> anyhow::Result<tokio_postgres::Client> {
        let refused = || format!("cannot connect to {}", self.display());
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let connected = tokio::time::timeout(self.connect_timeout() * hosts, self.config.connect(NoTls)).await;
        let (client, connection) = match connected {
            Ok(connected) => connected.map_err(PgError::from).with_context(refused)?,
            Err(_) => return Err(anyhow::Error::new(timed_out()).context(refused())),
        };
        tokio::spawn(async move {
            // Whoever uses the client gets an error of their own.
            if let Err(error) = connection.await {
                tracing::debug!(error = %PgError::from(error), "a connection ended");
            }
        });
        client.batch_execute(SESSION_SQL).await.map_err(PgError::from).context("cannot set up the session")?;
        Ok(client)
    }

    /// A blocking connection of our own, with the pinned settings. `cancel` ends whatever it waits for within a
    /// second, name resolution and the opening of a TCP connection aside.
    ///
    /// # Errors
    /// Those of the last host that was tried; a server that refuses the login ends the search.
    pub fn session(&self, cancel: &CancellationToken) -> Result<Session, PgError> {
        let mut last = PgError::Connection { what: self.display(), source: io::ErrorKind::NotFound.into() };
        for host in &self.hosts {
            let unreachable = |source| PgError::Connection {
                what: format!("cannot connect to {}@{}/{}", self.user, host_and_port(host), self.dbname),
                source,
            };
            let addresses = match resolve(host) {
                Ok(addresses) => addresses,
                Err(source) => {
                    last = unreachable(source);
                    continue;
                }
            };
            for address in addresses {
                last = match self.session_at(address, cancel) {
                    Ok(session) => return Ok(session),
                    Err(PgError::Connection { source, .. }) => unreachable(source),
                    Err(error @ PgError::Server(_)) if error.class() == Class::Transient => error,
                    Err(error @ PgError::Protocol(_)) => error,
                    Err(error) => return Err(error),
                };
            }
        }
        Err(last)
    }

    fn session_at(&self, address: Address, cancel: &CancellationToken) -> Result<Session, PgError> {
        if cancel.is_cancelled() {
            return Err(PgError::Cancelled);
        }
        let limit = Limit::Until(Instant::now() + self.connect_timeout());
        let socket =
            address.open(&self.config).map_err(|source| PgError::Connection { what: "connect".into(), source })?;
        let mut wire = Wire::new(socket, cancel.clone());
        let login = Login {
            user: &self.user,
            password: self.config.get_password(),
            dbname: &self.dbname,
            application_name: self.config.get_application_name().unwrap_or_default(),
            options: self.config.get_options(),
        };
        let key = startup::start(&mut wire, &login, limit)?;
        let mut session = Session::new(wire, address, key, limit);
        session.run(SESSION_SQL)?;
        self.check_attributes(&mut session)?;
        session.limit = Limit::Endless;
        Ok(session)
    }

    /// `target_session_attrs`: a host that has them not is passed over.
    fn check_attributes(&self, session: &mut Session) -> Result<(), PgError> {
        let wanted = match self.config.get_target_session_attrs() {
            TargetSessionAttrs::ReadWrite => "off",
            TargetSessionAttrs::ReadOnly => "on",
            _ => return Ok(()),
        };
        let rows = session.query("SHOW transaction_read_only", &[])?;
        match rows.first().and_then(|row| row.get(0)) {
            Some(found) if found == wanted => Ok(()),
            _ => Err(PgError::Connection {
                what: "connect".into(),
                source: io::Error::other("the server has not the session attributes that are asked for"),
            }),
        }
    }

    fn connect_timeout(&self) -> Duration {
        self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT)
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

fn usage(what: impl Into<String>) -> Failure {
    Failure::new(Class::Usage, what)
}

fn timed_out() -> PgError {
    PgError::Connection { what: "the server did not answer in time".into(), source: io::ErrorKind::TimedOut.into() }
}

fn parse_config(url: &str) -> Result<Config, Failure> {
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    // Such a URL parses, with a part of its password taken for the host.
    if is_url && url.split('?').next().unwrap_or_default().matches('@').count() > 1 {
        return Err(usage("the connection string has more than one @")
            .next("write an @ in a user, password or database as %40"));
    }
    url.parse::<Config>().map_err(|error| {
        let reason = PgError::from(error).to_string();
        let quoted = reason.split('`').nth(1);
        // Anything else that the parser quotes may be a part of a password.
        match quoted.and_then(|quoted| LIBPQ_OPTIONS.iter().find(|&&option| option == quoted)) {
            Some(&"sslmode") => without_tls(),
            Some(option) => usage(format!("the connection string's option {option} is not supported, or its value")),
            None => usage("the connection string cannot be read")
                .next("write postgres://user@host:port/dbname, with special characters percent-encoded"),
        }
    })
}

/// Options of libpq, supported or not, whose names may be repeated in an error.
const LIBPQ_OPTIONS: [&str; 34] = [
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "krbsrvname",
    "load_balance_hosts",
    "passfile",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "service",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "ssl_min_protocol_version",
    "target_session_attrs",
    "tcp_user_timeout",
];

fn without_tls() -> Failure {
    usage("the connection string asks for TLS, and this version connects without TLS")
        .meaning("nothing was sent")
        .next("use a socket, a tunnel or a private network with sslmode=disable")
}

fn refuse_tls(config: &Config) -> Result<(), Failure> {
    let wanted = config.get_ssl_mode() == SslMode::Require
        || config.get_ssl_negotiation() == SslNegotiation::Direct
        || config.get_channel_binding() == ChannelBinding::Require;
    if wanted { Err(without_tls()) } else { Ok(()) }
}

/// The hosts in the order of the string, each with its port; an address stands in for its host's name.
fn hosts(config: &Config) -> Result<Vec<(Host, u16)>, Failure> {
    let (names, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = names.len().max(addresses.len());
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(usage("the connection string has not as many hosts as addresses"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(usage("the connection string has not as many ports as hosts"));
    }
    if names.contains(&Host::Tcp(String::new())) {
        return Err(usage("the connection string has a host without a name"));
    }
    let host = |index: usize| match addresses.get(index) {
        Some(address) => Host::Tcp(address.to_string()),
        None => names[index].clone(),
    };
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    Ok((0..count).map(|index| (host(index), port(index))).collect())
}

fn host_and_port((host, port): &(Host, u16)) -> String {
    match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
        Host::Tcp(name) => format!("{name}:{port}"),
        Host::Unix(directory) => format!("{}:{port}", directory.display()),
    }
}

fn resolve((host, port): &(Host, u16)) -> io::Result<Vec<Address>> {
    match host {
        Host::Tcp(name) => Ok((name.as_str(), *port).to_socket_addrs()?.map(Address::Tcp).collect()),
        Host::Unix(directory) => Ok(vec![Address::Unix(directory.join(format!(".s.PGSQL.{port}")))]),
    }
}

/// Where one server listens.
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    fn connect(&self, timeout: Duration) -> io::Result<OwnedFd> {
        Ok(match self {
            Address::Tcp(address) => TcpStream::connect_timeout(address, timeout)?.into(),
            Address::Unix(path) => UnixStream::connect(path)?.into(),
        })
    }

    /// A connected socket that does not block, and notices a dead peer.
    fn open(&self, config: &Config) -> io::Result<OwnedFd> {
        let socket = self.connect(config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT))?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        if let Address::Unix(_) = self {
            return Ok(socket);
        }
        sockopt::set_tcp_nodelay(&socket, true)?;
        if config.get_keepalives() {
            sockopt::set_socket_keepalive(&socket, true)?;
            sockopt::set_tcp_keepidle(&socket, config.get_keepalives_idle())?;
            sockopt::set_tcp_keepintvl(&socket, config.get_keepalives_interval().unwrap_or(KEEPALIVE_INTERVAL))?;
            sockopt::set_tcp_keepcnt(&socket, config.get_keepalives_retries().unwrap_or(KEEPALIVE_PROBES))?;
        }
        #[cfg(target_os = "linux")]
        if let Some(timeout) = config.get_tcp_user_timeout() {
            sockopt::set_tcp_user_timeout(&socket, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?;
        }
        Ok(socket)
    }

    /// Delivers a CancelRequest on a connection of its own. `Ok` once the server has read it, which closes the
    /// connection; whether it found anything to cancel is not told.
    pub(super) fn cancel(&self, request: &[u8]) -> io::Result<()> {
        let socket = self.connect(CANCEL_TIMEOUT)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(CANCEL_TIMEOUT))?;
        // A File only lends its Read and Write to the descriptor.
        let mut socket = File::from(socket);
        socket.write_all(request)?;
        socket.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, Failure> {
        Endpoint::parse_with(url, |_| None)
    }

    fn shown(url: &str) -> String {
        parse(url).expect("a connection string").to_string()
    }

    #[test]
    fn urls_and_key_value_strings_say_the_same() {
        assert_eq!(shown("postgres://bob@db01:5433/messages"), "bob@db01:5433/messages");
        assert_eq!(shown("host=db01 port=5433 user=bob dbname=messages"), "bob@db01:5433/messages");
        assert_eq!(shown("postgresql://bob@[::1]/messages"), "bob@[::1]:5432/messages");
        assert_eq!(shown("postgres://bob@%2Frun%2Fpg/m"), "bob@/run/pg:5432/m");
        assert_eq!(shown("postgres://bob@/m?host=/run/pg&port=5433"), "bob@/run/pg:5433/m");
        assert_eq!(shown("postgres://bob@a:1,b:2/m"), "bob@a:1,b:2/m");
        assert_eq!(shown("host=a hostaddr=10.0.0.1 user=bob"), "bob@10.0.0.1:5432/bob");
    }

    #[test]
    fn what_the_string_leaves_out_comes_from_the_environment_or_by_rule() {
        let env = |name: &str| match name {
            "PGUSER" => Some("carol".to_owned()),
            "PGPASSWORD" => Some("from the environment".to_owned()),
            _ => None,
        };
        let endpoint = Endpoint::parse_with("postgres://db01", env).expect("a connection string");
        assert_eq!(endpoint.to_string(), "carol@db01:5432/carol");
        assert_eq!(endpoint.config.get_password(), Some(&b"from the environment"[..]));
        let endpoint = Endpoint::parse_with("postgres://bob:own@db01/m", env).expect("a connection string");
        assert_eq!(endpoint.to_string(), "bob@db01:5432/m");
        assert_eq!(endpoint.config.get_password(), Some(&b"own"[..]));
        assert_eq!(shown("postgres://bob@/m"), "bob@/var/run/postgresql:5432/m");
        let own = whoami::username().expect("a user");
        assert_eq!(shown("postgres://db01/m"), format!("{own}@db01:5432/m"));
    }

    #[test]
    fn tls_is_refused_and_not_left_out() {
        for option in [
            "sslmode=require",
            "sslmode=verify-ca",
            "sslmode=verify-full",
            "channel_binding=require",
            "sslnegotiation=direct",
        ] {
            let refused = parse(&format!("postgres://bob:hunter2@db01/m?{option}")).expect_err(option);
            assert_eq!(refused.class, Class::Usage);
            assert!(refused.what.contains("without TLS"), "{option}: {}", refused.what);
        }
        for option in ["sslmode=disable", "sslmode=prefer"] {
            assert!(parse(&format!("postgres://bob@db01/m?{option}")).is_ok(), "{option}");
        }
    }

    #[test]
    fn no_failure_repeats_a_part_of_a_password() {
        for url in [
            "postgres://bob:hunt@er2@db01/m",
            "postgres://bob:hunter2/m@x@db01/m",
            "user=bob password=hunter 2=er2 host=db01",
            "user=bob password='hunter2",
            "postgres://bob:hunter2@db01:port/m",
            "postgres://bob:hunter2@db01/m?hunter2=1",
            "postgres://bob@db01:hunter2/m",
            "postgres://bob:hunter2@a,b/m?port=1,2,3",
            "postgres://bob:hunter2@/m?host=",
        ] {
            let refused = parse(url).expect_err(url);
            assert_eq!(refused.class, Class::Usage);
            let told = format!("{refused:?} {refused}");
            assert!(!told.contains("hunt") && !told.contains("er2"), "{told}");
        }
        let endpoint = parse("postgres://bob:hunter2@db01/m").expect("a connection string");
        assert!(!format!("{endpoint:?} {endpoint}").contains("hunter2"));
    }

    #[test]
    fn an_option_that_is_not_supported_is_named() {
        let refused = parse("postgres://bob@db01/m?passfile=/x").expect_err("no passfile");
        assert!(refused.what.contains("passfile"), "{}", refused.what);
    }
}
