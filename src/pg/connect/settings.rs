//! What a connection is made with: a connection string and what stands around it, resolved by libpq's rules. The
//! string stands above the service file, that above the environment, and that above libpq's defaults; a passfile is
//! asked for a password last.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::options::{self, Options};
use super::surroundings::{self, Passfile, Surroundings};
use super::tls::{self, ClientCertificate, Trust, Versions};
use super::usage;
use crate::error::Failure;
use crate::pg::PgError;

/// Where Debian's and Fedora's servers have their socket, and where PostgreSQL's own build has it.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// For name, connection, handshake, login and settings together, per address; libpq has no limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent peer is found dead after a minute of silence and six unanswered probes.
const KEEPALIVE_IDLE_SECS: u64 = 60;
const KEEPALIVE_INTERVAL_SECS: u64 = 10;
const KEEPALIVE_PROBES: u64 = 6;
/// For what was sent and not acknowledged. Longer than a COPY may stand still: the kernel counts a server that is alive
/// and does not read.
const TCP_USER_TIMEOUT_MILLIS: u64 = 720_000;

/// Everything that a connection is made with.
#[derive(Clone)]
pub(super) struct Settings {
    /// The hosts, in the order of the string.
    pub(super) hosts: Vec<Host>,
    pub(super) order: Order,
    pub(super) user: String,
    pub(super) dbname: String,
    pub(super) application_name: String,
    /// Command-line options for the server's process.
    pub(super) options: Option<String>,
    /// Per address; `None` for no limit.
    pub(super) connect_timeout: Option<Duration>,
    pub(super) keepalives: Keepalives,
    pub(super) encryption: Encryption,
    pub(super) target: TargetSession,
    /// Whether the password stands in the string itself, where others may read it.
    pub(super) password_in_string: bool,
}

/// One server to try.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) place: Place,
    pub(super) port: u16,
    pub(super) password: Option<String>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A socket in that directory.
    Socket(PathBuf),
    /// A name or an address: `name` is what the server's certificate must be for, `address` is connected to if given.
    Tcp { name: String, address: Option<IpAddr> },
}

/// `load_balance_hosts`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    AsWritten,
    Random,
}

/// How a dead peer is noticed; `None` of a number leaves it to the system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keepalives {
    pub(super) enabled: bool,
    pub(super) idle: Option<Duration>,
    pub(super) interval: Option<Duration>,
    pub(super) probes: Option<u32>,
    pub(super) user_timeout_millis: Option<u32>,
}

/// How the connection is encrypted.
#[derive(Clone)]
pub(super) struct Encryption {
    pub(super) mode: SslMode,
    pub(super) negotiation: Negotiation,
    pub(super) channel_binding: ChannelBinding,
    /// `None` where no host is reached over TLS.
    pub(super) tls: Option<tls::Tls>,
}

/// `sslmode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// `sslnegotiation`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Negotiation {
    /// The client asks for TLS in PostgreSQL's protocol first.
    Postgres,
    /// TLS from the first byte on, from PostgreSQL 17.
    Direct,
}

/// `channel_binding`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// `target_session_attrs`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetSession {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl TargetSession {
    /// Is a server what is looked for? For `prefer-standby` in the first of two rounds.
    pub(super) fn fits(self, in_recovery: bool, read_only: bool) -> bool {
        match self {
            TargetSession::Any => true,
            TargetSession::ReadWrite => !read_only,
            TargetSession::ReadOnly => read_only,
            TargetSession::Primary => !in_recovery,
            TargetSession::Standby | TargetSession::PreferStandby => in_recovery,
        }
    }

    /// What is looked for in one round after the other.
    pub(super) fn rounds(self) -> Vec<TargetSession> {
        match self {
            TargetSession::PreferStandby => vec![self, TargetSession::Any],
            other => vec![other],
        }
    }
}

impl Host {
    /// `host:port` or `/directory:port`, for people.
    pub(super) fn display(&self) -> String {
        let port = self.port;
        match &self.place {
            Place::Socket(directory) => format!("{}:{port}", directory.display()),
            Place::Tcp { name, .. } if name.contains(':') => format!("[{name}]:{port}"),
            Place::Tcp { name, .. } => format!("{name}:{port}"),
        }
    }
}

impl Settings {
    /// Resolves a connection string.
    ///
    /// # Errors
    /// Class Usage, for all that is wrong with the string, the environment or a file that they name. Nothing that
    /// could be a part of a password is repeated.
    pub(super) fn resolve(
        url: &str,
        password_file: Option<&Path>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Settings, Failure> {
        let mut options = options::parse(url)?;
        let password_in_string = options.get("password").is_some();
        if let (false, Some(file)) = (password_in_string, password_file) {
            options.set("password", surroundings::password_of(file)?)?;
        }
        let environment = Options::of_environment(surroundings.variable);
        let named = |option| options.get(option).or_else(|| environment.get(option)).map(str::to_owned);
        if let Some(service) = named("service") {
            let file = named("servicefile");
            options.fill(surroundings.service(&service, file.as_deref())?);
        }
        options.fill(environment);
        let requires = (surroundings.variable)("PGREQUIRESSL").is_some_and(|value| value.starts_with('1'));
        if requires && options.get("sslmode").is_none() {
            options.set("sslmode", "require".to_owned())?;
        }
        options.check_supported()?;
        if options.get("gssencmode") == Some("require") {
            return Err(usage("the connection's option gssencmode asks for GSSAPI, which is not supported")
                .meaning("nothing was sent")
                .next("use sslmode=verify-full instead"));
        }

        let user = match options.get("user") {
            Some(user) => user.to_owned(),
            None => {
                whoami::username().map_err(|error| usage(format!("the connection string names no user ({error})")))?
            }
        };
        let dbname = options.get("dbname").unwrap_or(&user).to_owned();
        let mut hosts = hosts(&options)?;
        let passfile = match options.get("passfile") {
            Some(path) => Some(Passfile::Named(path.into())),
            None => surroundings.own_passfile().map(Passfile::Own),
        };
        for host in &mut hosts {
            host.password = match (options.get("password"), &passfile) {
                (Some(password), _) => Some(password.to_owned()),
                (None, Some(file)) => {
                    surroundings::password_from(file, &passfile_host(&host.place), host.port, &dbname, &user)?
                }
                (None, None) => None,
            };
        }
        let encryption = encryption(&options, &hosts, surroundings)?;
        let application_name = options.get("application_name").or_else(|| options.get("fallback_application_name"));
        let seconds = |name, default| -> Result<Option<Duration>, Failure> {
            Ok(not_zero(number(&options, name)?.unwrap_or(default)).map(Duration::from_secs))
        };
        Ok(Settings {
            hosts,
            order: choice(&options, "load_balance_hosts", &[("disable", Order::AsWritten), ("random", Order::Random)])?,
            application_name: application_name.unwrap_or("pgslice").to_owned(),
            options: options.get("options").map(str::to_owned),
            connect_timeout: connect_timeout(&options)?,
            keepalives: Keepalives {
                enabled: number(&options, "keepalives")? != Some(0),
                idle: seconds("keepalives_idle", KEEPALIVE_IDLE_SECS)?,
                interval: seconds("keepalives_interval", KEEPALIVE_INTERVAL_SECS)?,
                probes: small(number(&options, "keepalives_count")?, KEEPALIVE_PROBES),
                user_timeout_millis: small(number(&options, "tcp_user_timeout")?, TCP_USER_TIMEOUT_MILLIS),
            },
            encryption,
            target: choice(
                &options,
                "target_session_attrs",
                &[
                    ("any", TargetSession::Any),
                    ("read-write", TargetSession::ReadWrite),
                    ("read-only", TargetSession::ReadOnly),
                    ("primary", TargetSession::Primary),
                    ("standby", TargetSession::Standby),
                    ("prefer-standby", TargetSession::PreferStandby),
                ],
            )?,
            user,
            dbname,
            password_in_string,
        })
    }
}

fn wrong_value(name: &str, wanted: &str) -> Failure {
    usage(format!("the connection's option {name} must be {wanted}")).meaning("nothing was sent")
}

/// One of a few words; the first is the default.
fn choice<T: Copy>(options: &Options, name: &str, choices: &[(&str, T)]) -> Result<T, Failure> {
    let wanted = options.get(name).unwrap_or(choices[0].0);
    let found = choices.iter().find(|(word, _)| *word == wanted);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        wrong_value(name, &format!("one of {}", words.join(", ")))
    })
}

fn number<T: FromStr>(options: &Options, name: &str) -> Result<Option<T>, Failure> {
    let parsed = options.get(name).map(|text| text.trim().parse());
    parsed.transpose().map_err(|_| wrong_value(name, "a whole number"))
}

fn not_zero(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number > 0)
}

fn small(number: Option<u64>, default: u64) -> Option<u32> {
    not_zero(number.unwrap_or(default)).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// Zero and less is no limit; one second is too short for libpq, and taken as two.
fn connect_timeout(options: &Options) -> Result<Option<Duration>, Failure> {
    Ok(match number::<i64>(options, "connect_timeout")? {
        None => Some(CONNECT_TIMEOUT),
        Some(seconds) => u64::try_from(seconds).ok().and_then(not_zero).map(|secs| Duration::from_secs(secs.max(2))),
    })
}

/// The hosts in the order of the string, without passwords.
fn hosts(options: &Options) -> Result<Vec<Host>, Failure> {
    let list = |name| options.get(name).map(|text| text.split(',').collect::<Vec<&str>>());
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
    if names.as_ref().is_some_and(|names| names.len() != count) {
        return Err(usage("the connection has not as many hosts as addresses"));
    }
    let ports = ports.unwrap_or_else(|| vec![""]);
    if ports.len() != 1 && ports.len() != count {
        return Err(usage("the connection has not as many ports as hosts"));
    }
    let host = |index: usize| {
        let name = names.as_ref().map_or("", |names| names[index]);
        let address = addresses.as_ref().map_or("", |addresses| addresses[index]);
        let port = match ports.get(index).unwrap_or(&ports[0]).trim() {
            "" => 5432,
            port => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| wrong_value("port", "a whole number from 1 to 65535"))?,
        };
        Ok(Host { place: place(name, address)?, port, password: None })
    };
    (0..count).map(host).collect()
}

fn place(name: &str, address: &str) -> Result<Place, Failure> {
    if !address.is_empty() {
        let parsed = address.parse().map_err(|_| wrong_value("hostaddr", "an IP address"))?;
        let name = if name.is_empty() { address } else { name };
        return Ok(Place::Tcp { name: name.to_owned(), address: Some(parsed) });
    }
    Ok(match name {
        "" => Place::Socket(default_socket_directory()),
        directory if directory.starts_with('/') => Place::Socket(directory.into()),
        name if name.starts_with('@') => {
            return Err(usage("the connection names a socket in the abstract namespace, which is not supported"));
        }
        name => Place::Tcp { name: name.to_owned(), address: None },
    })
}

fn default_socket_directory() -> PathBuf {
    let there = SOCKET_DIRECTORIES.iter().find(|directory| Path::new(directory).exists());
    there.unwrap_or(&SOCKET_DIRECTORIES[0]).into()
}

/// What a passfile calls a host: the socket that is found without a name is `localhost` there.
fn passfile_host(place: &Place) -> String {
    match place {
        Place::Socket(directory) if *directory == default_socket_directory() => "localhost".to_owned(),
        Place::Socket(directory) => directory.display().to_string(),
        Place::Tcp { name, .. } => name.clone(),
    }
}

fn encryption(options: &Options, hosts: &[Host], surroundings: &Surroundings<'_>) -> Result<Encryption, Failure> {
    let system_roots = options.get("sslrootcert") == Some("system");
    let modes = [
        ("prefer", SslMode::Prefer),
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
    let mode = match options.get("sslmode") {
        None if system_roots => SslMode::VerifyFull,
        _ => choice(options, "sslmode", &modes)?,
    };
    if system_roots && mode < SslMode::VerifyFull {
        return Err(usage(
            "the connection's sslmode is too weak for sslrootcert=system: anybody can have a certificate",
        )
        .meaning("nothing was sent")
        .next("use sslmode=verify-full, or leave sslmode out"));
    }
    let negotiation =
        choice(options, "sslnegotiation", &[("postgres", Negotiation::Postgres), ("direct", Negotiation::Direct)])?;
    if negotiation == Negotiation::Direct && mode < SslMode::Require {
        return Err(usage("the connection's sslnegotiation=direct needs sslmode=require or stronger")
            .meaning("nothing was sent"));
    }
    let channel_binding = choice(
        options,
        "channel_binding",
        &[
            ("prefer", ChannelBinding::Prefer),
            ("disable", ChannelBinding::Disable),
            ("require", ChannelBinding::Require),
        ],
    )?;
    let tcp: Vec<&str> = hosts
        .iter()
        .filter_map(|host| match &host.place {
            Place::Tcp { name, .. } => Some(name.as_str()),
            Place::Socket(_) => None,
        })
        .collect();
    if tcp.is_empty() || mode == SslMode::Disable {
        return Ok(Encryption { mode, negotiation, channel_binding, tls: None });
    }
    let names = options.get("host").unwrap_or_default();
    if mode == SslMode::VerifyFull && options.get("hostaddr").is_some() && names.split(',').any(str::is_empty) {
        return Err(usage("the connection's sslmode=verify-full needs the server's name, as host beside hostaddr")
            .meaning("nothing was sent"));
    }
    for name in tcp.iter().filter(|_| mode >= SslMode::Require) {
        tls::server_name(name)?;
    }
    let certificate_mode = choice(options, "sslcertmode", &[("allow", Some(())), ("disable", None)])?;
    let certificate = match certificate_mode {
        Some(()) => client_certificate(options, surroundings),
        None => None,
    };
    let tls = tls::Tls::new(
        trust(options, mode, surroundings)?,
        certificate.as_ref(),
        &versions(options)?,
        options.get("sslsni") != Some("0"),
    )?;
    Ok(Encryption { mode, negotiation, channel_binding, tls: Some(tls) })
}

/// Which certificates of servers are accepted. A root certificate that is there is used even where `sslmode` does not
/// ask for it, as by libpq.
fn trust(options: &Options, mode: SslMode, surroundings: &Surroundings<'_>) -> Result<Trust, Failure> {
    let root = options.get("sslrootcert");
    let authorities = match root {
        Some("system") => tls::Authorities::System,
        Some(path) if Path::new(path).exists() => tls::Authorities::File(path.into()),
        None if surroundings.own_file("root.crt").is_some() => {
            tls::Authorities::File(surroundings.own_path("root.crt").unwrap_or_default())
        }
        missing if mode >= SslMode::VerifyCa => {
            let path = missing.map(PathBuf::from).or_else(|| surroundings.own_path("root.crt")).unwrap_or_default();
            return Err(usage(format!("the root certificate file {} does not exist", path.display()))
                .meaning("nothing was sent: the server could not be told from another")
                .next("name the file with sslrootcert, or trust the system's authorities with sslrootcert=system"));
        }
        _ => return Ok(Trust::Anyone),
    };
    let revoked = options.get("sslcrl").map(PathBuf::from).or_else(|| surroundings.own_file("root.crl"));
    let name = if mode == SslMode::VerifyFull { tls::Name::Checked } else { tls::Name::Ignored };
    Ok(Trust::Authorities { authorities, revoked, name })
}

fn client_certificate(options: &Options, surroundings: &Surroundings<'_>) -> Option<ClientCertificate> {
    let stated = options.get("sslcert").map(PathBuf::from);
    let certificate = stated.or_else(|| surroundings.own_file("postgresql.crt"))?;
    let key = options.get("sslkey").map(PathBuf::from).or_else(|| surroundings.own_path("postgresql.key"));
    Some(ClientCertificate { certificate, key: key.unwrap_or_default() })
}

fn versions(options: &Options) -> Result<Versions, Failure> {
    // TLS before 1.2 is not spoken: it is allowed to ask for more than that, not for less.
    let all = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    let version = |name, default| match options.get(name) {
        None => Ok(default),
        Some(text) => all
            .iter()
            .position(|word| word.eq_ignore_ascii_case(text))
            .ok_or_else(|| wrong_value(name, &format!("one of {}", all.join(", ")))),
    };
    let at_least = version("ssl_min_protocol_version", 2)?;
    let at_most = version("ssl_max_protocol_version", 3)?;
    if at_most < 2 || at_most < at_least {
        return Err(wrong_value(
            "ssl_max_protocol_version",
            "TLSv1.2 or TLSv1.3, and not below ssl_min_protocol_version",
        ));
    }
    Ok(Versions { tls12: at_least <= 2, tls13: at_most >= 3 })
}

impl Place {
    /// The name that a server's certificate is held against.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, PgError> {
        match self {
            Place::Tcp { name, .. } => tls::server_name(name).map_err(|failure| PgError::Tls(failure.what)),
            Place::Socket(_) => Err(PgError::Tls("a socket has no name to hold a certificate against".into())),
        }
    }
}

#[cfg(test)]
mod tests;
