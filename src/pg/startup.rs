//! Start-up of a connection: who we are, and the proof of it.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
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
        self.password.filter(|password| !password.is_empty()).ok_or_else(|| {
            PgError::Login(format!("the server asks for the password of {:?}: set PGPASSWORD", self.user))
        })
    }
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
    match Request::parse(answer(wire, limit)?)? {
        Request::Nothing => return Ok(()),
        Request::Cleartext => {
            frontend::password_message(login.password()?, &mut out).map_err(|_| Login::unusable())?;
        }
        Request::Md5(salt) => {
            let hash = md5_hash(login.user.as_bytes(), login.password()?, salt);
            frontend::password_message(hash.as_bytes(), &mut out).map_err(|_| Login::unusable())?;
        }
        Request::Sasl(mechanisms) => {
            if !mechanisms.split(|&byte| byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
                return Err(PgError::Login(
                    "the server offers no login by SCRAM-SHA-256 without channel binding".into(),
                ));
            }
            scram(wire, login.password()?, limit)?;
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
fn scram(wire: &mut Wire, password: &[u8], limit: Limit) -> Result<(), PgError> {
    let broken = |error: std::io::Error| PgError::Login(format!("SCRAM-SHA-256 failed: {error}"));
    let mut exchange = ScramSha256::new(password, ChannelBinding::unsupported());
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(SCRAM_SHA_256, exchange.message(), &mut out).map_err(broken)?;
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
