//! What can go wrong with PostgreSQL, as failure classes and as text that may be logged.
//!
//! A server's error texts carry row values, up to 1 MiB of them: in the message (`invalid input syntax for type
//! integer: "…"`), in DETAIL (`Key (name)=(…)`), in CONTEXT (`COPY t, line 1, column c: "…"`). They are removed when
//! the error is read, not when it is shown: a [`ServerError`] has nothing in it that may not be printed.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use memchr::memchr;
use tokio_postgres::error::SqlState;

use crate::error::Class;

/// The longest text of a server that is kept, in characters.
const MAX_TEXT_CHARS: usize = 300;

/// Why PostgreSQL did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The server refused. The connection can be used on unless it was a FATAL error.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// No connection, or none any more. What was being done may have happened.
    #[error("{what}")]
    Connection {
        /// What was attempted.
        what: String,
        /// The operating system's words.
        #[source]
        source: io::Error,
    },
    /// The server asks for a login that was not given or is not supported.
    #[error("{0}")]
    Login(String),
    /// The connection could not be encrypted, or the server did not prove who it is. Nothing was sent over it.
    #[error("{0}")]
    Tls(String),
    /// The server, or whatever answers in its place, did not keep to the protocol.
    #[error("unexpected answer of the server: {0}")]
    Protocol(String),
    /// The run was interrupted.
    #[error("interrupted")]
    Cancelled,
    /// A COPY stood still for too long.
    #[error("no byte moved for {} s: given up", .0.as_secs())]
    NoProgress(Duration),
    /// The connection failed before, in a way that left its state unknown.
    #[error("the connection is no longer usable after an earlier failure")]
    Broken,
}

impl PgError {
    /// The failure class, for the exit code.
    pub fn class(&self) -> Class {
        match self {
            PgError::Server(error) => class_of_code(&error.code),
            PgError::Connection { source, .. } => class_of_io(source),
            PgError::Login(_) | PgError::Tls(_) => Class::Permission,
            PgError::NoProgress(_) => Class::Transient,
            PgError::Cancelled => Class::Interrupted,
            PgError::Protocol(_) | PgError::Broken => Class::Other,
        }
    }

    /// In one line, its cause included.
    pub(super) fn line(&self) -> String {
        match self {
            PgError::Connection { what, source } => format!("{what}: {source}"),
            other => other.to_string(),
        }
    }

    /// The failure of TLS that an input or output error carries.
    pub(super) fn of_tls(error: &io::Error) -> Option<PgError> {
        let problem = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(PgError::Tls(super::connect::tls_words(problem)))
    }

    /// The server's SQLSTATE.
    pub fn code(&self) -> Option<&str> {
        match self {
            PgError::Server(error) => Some(&error.code),
            _ => None,
        }
    }

    /// Would a unique index hold two equal keys?
    pub fn is_unique_violation(&self) -> bool {
        self.code() == Some(SqlState::UNIQUE_VIOLATION.code())
    }
}

impl From<ServerError> for PgError {
    fn from(error: ServerError) -> Self {
        PgError::Server(Box::new(error))
    }
}

/// The driver's errors, with row values removed.
impl From<tokio_postgres::Error> for PgError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(server) = error.as_db_error() {
            return ServerError::of_driver(server).into();
        }
        let what = error.to_string();
        if error.is_closed() {
            return PgError::Connection { what, source: io::ErrorKind::ConnectionAborted.into() };
        }
        match error.into_source().map(|source| source.downcast::<io::Error>()) {
            Some(Ok(source)) => PgError::of_tls(&source).unwrap_or(PgError::Connection { what, source: *source }),
            // The driver's words for a method it does not know, and for a password that was asked for and not given.
            Some(Err(source)) if what == "authentication error" || source.to_string() == "password missing" => {
                PgError::Login(format!("{what}: {}", cut(&source.to_string())))
            }
            Some(Err(source)) => PgError::Protocol(format!("{what}: {}", cut(&source.to_string()))),
            None => PgError::Protocol(what),
        }
    }
}

/// The class of a driver's error.
pub fn class_of_driver(error: &tokio_postgres::Error) -> Class {
    if let Some(code) = error.code() {
        return class_of_code(code.code());
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(source) => class_of_io(source),
        None if error.is_closed() => Class::Transient,
        None => Class::Other,
    }
}

fn class_of_code(code: &str) -> Class {
    match code {
        // Not granted; a transaction that is read-only by default.
        "42501" | "25006" => Class::Permission,
        "42P01" | "42703" => Class::Drift,
        // Serialization failure (a standby's recovery conflict too), deadlock, lock_timeout.
        "40001" | "40P01" | "55P03" => Class::Transient,
        // What was sent is wrong, in binary format a value: no other try helps.
        "08P01" => Class::Other,
        _ if code.starts_with("28") => Class::Permission,
        // Connections, resources, a server that stops or starts.
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("57P0") => Class::Transient,
        _ => Class::Other,
    }
}

fn class_of_io(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Class::Permission,
        _ => Class::Transient,
    }
}

/// An error that the server sent, without row values; its texts are at most 300 characters long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// ERROR, FATAL or PANIC; in the server's language where it does not say it in English.
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The message, up to where a value begins.
    pub message: String,
    /// DETAIL; absent where it could hold values.
    pub detail: Option<String>,
    /// HINT; absent where it could hold values.
    pub hint: Option<String>,
    /// Where in a COPY: `COPY t, line 3, column c`.
    pub position: Option<String>,
    /// The schema that the error names.
    pub schema: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// The column.
    pub column: Option<String>,
    /// The constraint.
    pub constraint: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.severity, self.message, self.code)?;
        let named = |name: &Option<String>| name.clone().filter(|name| !self.message.contains(name.as_str()));
        if let Some(constraint) = named(&self.constraint) {
            write!(f, ", constraint {constraint}")?;
        }
        if let Some(table) = named(&self.table) {
            write!(f, ", table {table}")?;
        }
        if let Some(position) = &self.position {
            write!(f, ", at {position}")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

/// The fields of an error as they came, row values and all.
#[derive(Default)]
struct RawFields<'a> {
    severity: Option<&'a str>,
    code: Option<&'a str>,
    message: Option<&'a str>,
    detail: Option<&'a str>,
    hint: Option<&'a str>,
    context: Option<&'a str>,
    schema: Option<&'a str>,
    table: Option<&'a str>,
    column: Option<&'a str>,
    constraint: Option<&'a str>,
    routine: Option<&'a str>,
}

impl ServerError {
    /// The error in the body of an ErrorResponse (or NoticeResponse); what cannot be read of it is left out.
    pub(super) fn parse(body: &[u8]) -> ServerError {
        let mut raw = RawFields::default();
        let mut severity_in_english = None;
        let mut rest = body;
        while let Some((&kind, tail)) = rest.split_first()
            && let Some(end) = memchr(0, tail)
        {
            // A value that is no UTF-8 is dropped: nothing is worth showing of it.
            let value = std::str::from_utf8(&tail[..end]).ok();
            rest = &tail[end + 1..];
            match kind {
                b'S' => raw.severity = value,
                b'V' => severity_in_english = value,
                b'C' => raw.code = value,
                b'M' => raw.message = value,
                b'D' => raw.detail = value,
                b'H' => raw.hint = value,
                b'W' => raw.context = value,
                b's' => raw.schema = value,
                b't' => raw.table = value,
                b'c' => raw.column = value,
                b'n' => raw.constraint = value,
                b'R' => raw.routine = value,
                _ => {}
            }
        }
        raw.severity = severity_in_english.or(raw.severity);
        ServerError::without_values(&raw)
    }

    fn of_driver(error: &tokio_postgres::error::DbError) -> ServerError {
        ServerError::without_values(&RawFields {
            severity: Some(error.severity()),
            code: Some(error.code().code()),
            message: Some(error.message()),
            detail: error.detail(),
            hint: error.hint(),
            context: error.where_(),
            schema: error.schema(),
            table: error.table(),
            column: error.column(),
            constraint: error.constraint(),
            routine: error.routine(),
        })
    }

    fn without_values(raw: &RawFields<'_>) -> ServerError {
        let code = cut(raw.code.unwrap_or("?????"));
        let message = raw.message.unwrap_or("no message");
        let wording = Wording::of(&code, raw.routine);
        let plain = |text: Option<&str>| text.filter(|_| wording == Wording::Plain).map(cut);
        ServerError {
            severity: cut(raw.severity.unwrap_or("ERROR")),
            message: match wording {
                Wording::Plain => cut(message),
                Wording::Quoting => cut(&up_to_a_value(message)),
                Wording::Foreign => {
                    "a message of code in the database, which is not repeated here: see the server's log".to_owned()
                }
            },
            detail: plain(raw.detail),
            hint: plain(raw.hint),
            position: raw.context.and_then(copy_position),
            schema: raw.schema.map(cut),
            table: raw.table.map(cut),
            column: raw.column.map(cut),
            constraint: raw.constraint.map(cut),
            code,
        }
    }

    /// Does the server close the connection after it?
    pub(super) fn is_fatal(&self) -> bool {
        self.severity == "FATAL" || self.severity == "PANIC"
    }
}

/// Who worded an error, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wording {
    /// The server, about names and statements.
    Plain,
    /// The server, about values, which it quotes.
    Quoting,
    /// Code in the database: anything may be in it.
    Foreign,
}

impl Wording {
    /// The classes are those of PostgreSQL's `errcodes.txt`.
    fn of(code: &str, routine: Option<&str>) -> Wording {
        // RAISE can claim any SQLSTATE.
        if routine == Some("exec_stmt_raise") {
            return Wording::Foreign;
        }
        match code.get(..2).unwrap_or_default() {
            "21" | "22" | "23" | "44" => Wording::Quoting,
            "01" | "02" | "03" | "08" | "0A" | "0L" | "0P" | "20" | "24" | "25" | "26" | "28" | "2B" | "2D" | "34"
            | "3B" | "3D" | "3F" | "40" | "42" | "53" | "54" | "55" | "57" | "58" | "72" | "F0" | "XX" => {
                Wording::Plain
            }
            _ => Wording::Foreign,
        }
    }
}

/// The message up to the first quoted text that is not announced as a name. Messages in other languages than English
/// announce nothing that is known here, and end at their first quote.
fn up_to_a_value(message: &str) -> String {
    const QUOTES: [char; 12] = ['"', '«', '»', '“', '”', '„', '‘', '’', '「', '」', '『', '`'];
    const ANNOUNCES_A_NAME: [&str; 9] =
        ["column ", "relation ", "table ", "constraint ", "index ", "view ", "domain ", "encoding ", "COPY "];
    let mut shown = 0;
    while let Some(quote) = message[shown..].find(QUOTES).map(|at| shown + at) {
        let name = ANNOUNCES_A_NAME.iter().any(|word| message[..quote].ends_with(word));
        let close = message[quote..].strip_prefix('"').and_then(|rest| rest.find('"')).map(|at| quote + 1 + at + 1);
        match close {
            Some(close) if name => shown = close,
            _ => return with_ellipsis(&message[..quote]),
        }
    }
    match message.find("=(") {
        Some(value) => with_ellipsis(&message[..value]),
        None => message.to_owned(),
    }
}

fn with_ellipsis(shown: &str) -> String {
    format!("{}…", shown.trim_end_matches([' ', ':']))
}

/// `COPY t, line 3, column c` of a CONTEXT, without the value or the line that follows a colon.
fn copy_position(context: &str) -> Option<String> {
    let line = context.lines().find(|line| line.starts_with("COPY "))?;
    let (target, rest) = line.split_once(", line ")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let column = rest[digits..].strip_prefix(", column ").map(|rest| rest.split(':').next().unwrap_or_default());
    let position = match column {
        Some(column) => format!("{target}, line {}, column {column}", &rest[..digits]),
        None => format!("{target}, line {}", &rest[..digits]),
    };
    Some(cut(&position))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &[(u8, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in fields {
            body.push(*kind);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        body
    }

    fn shown(code: &str, message: &str) -> String {
        ServerError::parse(&response(&[(b'S', "ERROR"), (b'C', code), (b'M', message)])).to_string()
    }

    #[test]
    fn names_stay_and_values_go() {
        assert_eq!(
            shown("23502", "null value in column \"c\" of relation \"t\" violates not-null constraint"),
            "ERROR: null value in column \"c\" of relation \"t\" violates not-null constraint (SQLSTATE 23502)"
        );
        assert_eq!(
            shown("22P02", "invalid input syntax for type integer: \"secret\""),
            "ERROR: invalid input syntax for type integer… (SQLSTATE 22P02)"
        );
        assert_eq!(
            shown("22003", "value \"12\"secret\"34\" is out of range for type integer"),
            "ERROR: value… (SQLSTATE 22003)"
        );
        assert_eq!(
            shown("42703", "column \"c\" does not exist"),
            "ERROR: column \"c\" does not exist (SQLSTATE 42703)"
        );
    }

    #[test]
    fn a_quote_inside_a_name_or_a_name_cut_off_never_shows_a_value() {
        for message in [
            "column \"a\"b\": \"secret\"",
            "column \"secret",
            "new row for relation \"t\" Key (a)=(secret)",
            "ungültige Eingabesyntax für Typ integer: »secret«",
            "la sintaxis de entrada no es válida para tipo integer: «secret»",
        ] {
            assert!(!shown("22000", message).contains("secret"), "{message}");
        }
    }

    #[test]
    fn detail_and_hint_are_kept_only_where_they_cannot_hold_values() {
        let error = |code: &str| {
            ServerError::parse(&response(&[(b'C', code), (b'M', "m"), (b'D', "the detail"), (b'H', "the hint")]))
        };
        assert_eq!(error("40P01").to_string(), "ERROR: m (SQLSTATE 40P01); the detail; hint: the hint");
        assert_eq!(error("23505").to_string(), "ERROR: m (SQLSTATE 23505)");
    }

    #[test]
    fn what_code_in_the_database_says_is_not_repeated() {
        let raised = |code: &str| {
            let fields = [(b'C', code), (b'M', "secret"), (b'D', "secret"), (b'R', "exec_stmt_raise")];
            ServerError::parse(&response(&fields)).to_string()
        };
        assert!(!raised("P0001").contains("secret"));
        assert!(!raised("42501").contains("secret"), "RAISE can claim any code");
        assert!(!shown("UE001", "secret").contains("secret"));
    }

    #[test]
    fn the_place_in_a_copy_is_kept_without_its_value() {
        let at = |context: &str| ServerError::parse(&response(&[(b'C', "22P02"), (b'W', context)])).position;
        assert_eq!(at("COPY t, line 3, column c: \"secret\"").as_deref(), Some("COPY t, line 3, column c"));
        assert_eq!(at("COPY t, line 3: \"secret, column x: \"").as_deref(), Some("COPY t, line 3"));
        assert_eq!(
            at("JSON data, line 1: secret\nCOPY t, line 1, column j: \"secret\"").as_deref(),
            Some("COPY t, line 1, column j")
        );
        assert_eq!(at("COPY t, Zeile 3, Spalte c: »secret«"), None);
    }

    #[test]
    fn long_texts_are_cut() {
        assert!(shown("42601", &"ä".repeat(1 << 20)).chars().count() < 350);
    }

    #[test]
    fn a_response_cut_anywhere_is_read_as_far_as_it_goes() {
        let whole = response(&[(b'S', "FEHLER"), (b'V', "ERROR"), (b'C', "42P01"), (b'M', "gone")]);
        for end in 0..whole.len() {
            let _ = ServerError::parse(&whole[..end]);
        }
        assert_eq!(ServerError::parse(&whole).to_string(), "ERROR: gone (SQLSTATE 42P01)");
    }

    #[test]
    fn codes_have_the_class_that_a_script_branches_on() {
        for (code, class) in [
            ("28P01", Class::Permission),
            ("42501", Class::Permission),
            ("25006", Class::Permission),
            ("42P01", Class::Drift),
            ("42703", Class::Drift),
            ("40001", Class::Transient),
            ("55P03", Class::Transient),
            ("57P01", Class::Transient),
            ("53300", Class::Transient),
            ("08006", Class::Transient),
            ("23505", Class::Other),
            ("57014", Class::Other),
        ] {
            let error = PgError::from(ServerError::parse(&response(&[(b'C', code)])));
            assert_eq!(error.class(), class, "{code}");
        }
        let refused = PgError::Connection { what: "connect".into(), source: io::ErrorKind::ConnectionRefused.into() };
        assert_eq!(refused.class(), Class::Transient);
        assert_eq!(PgError::Cancelled.class(), Class::Interrupted);
    }
}
