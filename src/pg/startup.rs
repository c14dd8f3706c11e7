//! Start-up of a connection: who we are, and the proof of it.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;

use super::error::{PgError, ServerError};
use super::session::{BackendKey, TransactionState};
use super::wire::{Limit, Message, Wire, kind};

/// What a server is told about its client.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<&'a [u8]>,
    pub(super) dbname: &'a str,
    pub(super) application_name: &'a str,
    pub(super) options: Option<&'a str>,
    pub(super) binding: Binding,
}

/// What a login by SCRAM is bound to, so that a server in the middle cannot pass it on.
pub(super) enum Binding {
    /// Nothing: the connection is in clear, or it is not wished for.
    None,
    /// The server's certificate, by its hash, if the server can do it.
    Offered(Vec<u8>),
    /// The same, and without it there is no login; `None` where there is no hash.
    Required(Option<Vec<u8>>),
}

impl Binding {
    fn is_required(&self) -> bool {
        matches!(self, Binding::Required(_))
    }

    fn end_point(&self) -> Option<&[u8]> {
        match self {
            Binding::None => None,
            Binding::Offered(hash) => Some(hash),
            Binding::Required(hash) => hash.as_deref(),
        }
    }
}

/// Logs in. Afterwards the server is ready for a statement.
pub(super) fn start(wire: &mut Wire, login: &Login<'_>, limit: Limit) -> Result<BackendKey, PgError> {
    let mut out = BytesMut::new();
    let mut parameters = vec![
        ("user", login.user),
        ("database", login.dbname),
        ("application_name", login.application_name),
        ("client_encoding", "UTF8"),
    ];
    parameters.extend(login.options.map(|options| ("options", options)));
    frontend::startup_message(parameters, &mut out).map_err(|_| Login::unusable())?;
    wire.send(&out, limit)?;
    authenticate(wire, login, limit)?;
    wire.logged_in();

    let mut key = None;
    loop {
        let Message { kind, body } = answer(wire, limit)?;
        match kind {
            kind::BACKEND_KEY_DATA => key = Some(BackendKey::parse(body)?),
            kind::READY_FOR_QUERY => {
                TransactionState::parse(body)?;
                return key.ok_or_else(|| PgError::Protocol("a login without a key to cancel queries".into()));
            }
            other => return Err(out_of_place(other)),
        }
    }
}

impl Login<'_> {
    fn unusable() -> PgError {
        PgError::Login("user, password, database and options must not hold a NUL byte".into())
    }

    fn password(&self) -> Result<&[u8], PgError> {
        self.password.filter(|password| !password.is_empty()).ok_or_else(|| PgError::Login(no_password(self.user)))
    }

    /// Refuses a login that is bound to nothing where it must be.
    fn check_unbound(&self) -> Result<(), PgError> {
        if self.binding.is_required() { Err(PgError::Login(UNBOUND.into())) } else { Ok(()) }
    }
}

/// For `channel_binding=require`.
const UNBOUND: &str = "channel_binding=require, but the server's login is not bound to the connection: it needs TLS, \
                       a server of PostgreSQL 11 or later with scram-sha-256 in pg_hba.conf, and a certificate whose \
                       signature has a hash";

/// What is told when a password is asked for and there is none.
pub(super) fn no_password(user: &str) -> String {
    format!("the server asks for the password of {user:?}: set PGPASSWORD, or use a passfile or password-file")
}

/// What the server wants for a login; the codes of AuthenticationRequest.
enum Request<'a> {
    Nothing,
    Cleartext,
    Md5([u8; 4]),
    Sasl(&'a [u8]),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
}

impl Request<'_> {
    fn parse(message: Message<'_>) -> Result<Request<'_>, PgError> {
        let Some((code, rest)) = message.body.split_first_chunk::<4>().filter(|_| message.kind == kind::AUTHENTICATION)
        else {
            return Err(out_of_place(message.kind));
        };
        let method = match u32::from_be_bytes(*code) {
            0 => return Ok(Request::Nothing),
            3 => return Ok(Request::Cleartext),
            5 => {
                let salt = rest.first_chunk().ok_or_else(|| PgError::Protocol("an md5 login without salt".into()))?;
                return Ok(Request::Md5(*salt));
            }
            10 => return Ok(Request::Sasl(rest)),
            11 => return Ok(Request::SaslContinue(rest)),
            12 => return Ok(Request::SaslFinal(rest)),
            2 => "Kerberos V5".to_owned(),
            7 | 8 => "GSSAPI".to_owned(),
            9 => "SSPI".to_owned(),
            other => format!("a method numbered {other}"),
        };
        Err(PgError::Login(format!(
            "the server asks for a login by {method}, which pgslice cannot give: allow scram-sha-256 in pg_hba.conf"
        )))
    }
}

fn authenticate(wire: &mut Wire, login: &Login<'_>, limit: Limit) -> Result<(), PgError> {
    let mut out = BytesMut::new();
    let request = Request::parse(answer(wire, limit)?)?;
    if !matches!(request, Request::Sasl(_)) {
        login.check_unbound()?;
    }
    match request {
        Request::Nothing => return Ok(()),
        Request::Cleartext => {
            frontend::password_message(login.password()?, &mut out).map_err(|_| Login::unusable())?;
        }
        Request::Md5(salt) => {
            let hash = md5_hash(login.user.as_bytes(), login.password()?, salt);
            frontend::password_message(hash.as_bytes(), &mut out).map_err(|_| Login::unusable())?;
        }
        Request::Sasl(mechanisms) => {
            let offers = |mechanism: &str| mechanisms.split(|&byte| byte == 0).any(|name| name == mechanism.as_bytes());
            let (mechanism, binding) = match login.binding.end_point() {
                Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                    (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash.to_vec()))
                }
                // The server is told that it could have been: one that did offer it knows that somebody meddled.
                Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
                None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            };
            if mechanism == SCRAM_SHA_256 {
                login.check_unbound()?;
            }
            if !offers(mechanism) {
                return Err(PgError::Login("the server offers no login by SCRAM-SHA-256 that can be given".into()));
            }
            let exchange = ScramSha256::new(login.password()?, binding);
            scram(wire, mechanism, exchange, limit)?;
        }
        Request::SaslContinue(_) | Request::SaslFinal(_) => return Err(out_of_place(kind::AUTHENTICATION)),
    }
    wire.send(&out, limit)?;
    match Request::parse(answer(wire, limit)?)? {
        Request::Nothing => Ok(()),
        _ => Err(out_of_place(kind::AUTHENTICATION)),
    }
}

/// SCRAM up to the server's own proof that it knows the password.
fn scram(wire: &mut Wire, mechanism: &str, mut exchange: ScramSha256, limit: Limit) -> Result<(), PgError> {
    let broken = |error: std::io::Error| PgError::Login(format!("SCRAM-SHA-256 failed: {error}"));
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(mechanism, exchange.message(), &mut out).map_err(broken)?;
    wire.send(&out, limit)?;

    let Request::SaslContinue(challenge) = Request::parse(answer(wire, limit)?)? else {
        return Err(out_of_place(kind::AUTHENTICATION));
    };
    exchange.update(challenge).map_err(broken)?;
    out.clear();
    frontend::sasl_response(exchange.message(), &mut out).map_err(broken)?;
    wire.send(&out, limit)?;

    let Request::SaslFinal(proof) = Request::parse(answer(wire, limit)?)? else {
        return Err(out_of_place(kind::AUTHENTICATION));
    };
    exchange.finish(proof).map_err(broken)
}

fn answer(wire: &mut Wire, limit: Limit) -> Result<Message<'_>, PgError> {
    let message = wire.message(limit)?;
    match message.kind {
        kind::ERROR_RESPONSE => Err(ServerError::parse(message.body).into()),
        _ => Ok(message),
    }
}

fn out_of_place(kind: u8) -> PgError {
    PgError::Protocol(format!("a message of kind {:?} during the login", char::from(kind)))
}
