//! The options of a connection by libpq's names, and the strings that hold them: URLs and key/value strings, as
//! <https://www.postgresql.org/docs/current/libpq-connect.html> describes them. Pure.
//!
//! No error repeats anything that could be a part of a password: of a string's own words only the names of libpq's
//! options are ever shown.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::usage;
use crate::error::Failure;

/// What an option of libpq's is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Support {
    /// It is honoured.
    Honoured,
    /// It is taken and changes nothing: what it is about does not exist here, or is always so.
    Ignored,
    /// It asks for something that would silently not be done: refused. The text says what to do instead.
    Refused(&'static str),
}

use Support::{Honoured, Ignored, Refused};

/// Every option of libpq 18: its name, the environment variable that stands in for it, and what it is to us.
const OPTIONS: &[(&str, &str, Support)] = &[
    ("application_name", "PGAPPNAME", Honoured),
    ("channel_binding", "PGCHANNELBINDING", Honoured),
    // Sessions always speak UTF-8.
    ("client_encoding", "", Ignored),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Honoured),
    ("dbname", "PGDATABASE", Honoured),
    ("fallback_application_name", "", Honoured),
    ("gssdelegation", "", Ignored),
    ("gssencmode", "PGGSSENCMODE", Honoured),
    ("gsslib", "", Ignored),
    ("host", "PGHOST", Honoured),
    ("hostaddr", "PGHOSTADDR", Honoured),
    ("keepalives", "", Honoured),
    ("keepalives_count", "", Honoured),
    ("keepalives_idle", "", Honoured),
    ("keepalives_interval", "", Honoured),
    ("krbsrvname", "", Ignored),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Honoured),
    ("max_protocol_version", "", Ignored),
    ("min_protocol_version", "", Refused("leave it out: protocol 3.0 is spoken, which every server understands")),
    ("oauth_client_id", "", Refused("use a password or a client certificate")),
    ("oauth_client_secret", "", Refused("use a password or a client certificate")),
    ("oauth_issuer", "", Refused("use a password or a client certificate")),
    ("oauth_scope", "", Refused("use a password or a client certificate")),
    ("options", "PGOPTIONS", Honoured),
    ("passfile", "PGPASSFILE", Honoured),
    ("password", "PGPASSWORD", Honoured),
    ("port", "PGPORT", Honoured),
    ("replication", "", Refused("leave it out: pgslice reads tables")),
    ("require_auth", "PGREQUIREAUTH", Refused("use channel_binding=require, which allows SCRAM over TLS only")),
    ("requirepeer", "PGREQUIREPEER", Refused("use a socket in a directory that only the server's user can write to")),
    ("requiressl", "", Refused("use sslmode=require")),
    ("scram_client_key", "", Refused("use the password")),
    ("scram_server_key", "", Refused("use the password")),
    ("service", "PGSERVICE", Honoured),
    ("servicefile", "PGSERVICEFILE", Honoured),
    ("sslcert", "PGSSLCERT", Honoured),
    ("sslcertmode", "PGSSLCERTMODE", Honoured),
    ("sslcompression", "", Ignored),
    ("sslcrl", "PGSSLCRL", Honoured),
    ("sslcrldir", "PGSSLCRLDIR", Refused("join the lists in one file and name it with sslcrl")),
    ("sslkey", "PGSSLKEY", Honoured),
    ("sslkeylogfile", "", Refused("leave it out")),
    ("sslmode", "PGSSLMODE", Honoured),
    ("sslnegotiation", "PGSSLNEGOTIATION", Honoured),
    ("sslpassword", "", Refused("decrypt the key once, into a file that only you can read: openssl pkey -in KEY")),
    ("sslrootcert", "PGSSLROOTCERT", Honoured),
    ("sslsni", "PGSSLSNI", Honoured),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Honoured),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Honoured),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Honoured),
    ("tcp_user_timeout", "", Honoured),
    ("user", "PGUSER", Honoured),
];

/// Options by libpq's names. One that is set to nothing is not filled from elsewhere, and means its default.
#[derive(Clone, Default)]
pub(super) struct Options(BTreeMap<&'static str, String>);

impl Options {
    /// The value of an option.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Adds what `others` has and this has not.
    pub(super) fn fill(&mut self, others: Options) {
        for (name, value) in others.0 {
            self.0.entry(name).or_insert(value);
        }
    }

    /// Sets an option of that name.
    ///
    /// # Errors
    /// When libpq has no such option; the name is not repeated.
    pub(super) fn set(&mut self, name: &str, value: String) -> Result<(), Failure> {
        let known = OPTIONS.iter().find(|(known, ..)| *known == name);
        let (name, ..) = known.ok_or_else(|| {
            usage("the connection string has an option that libpq does not know")
                .next("check its spelling against PostgreSQL's documentation of connection strings")
        })?;
        if value.contains('\0') {
            return Err(usage(format!("the connection string's option {name} holds a NUL byte")));
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// What the environment says.
    pub(super) fn of_environment(variable: &dyn Fn(&str) -> Option<String>) -> Options {
        let named = OPTIONS.iter().filter(|(_, name, _)| !name.is_empty());
        Options(named.filter_map(|(option, name, _)| Some((*option, variable(name)?))).collect())
    }

    /// Refuses options that ask for something that is not done here.
    ///
    /// # Errors
    /// The first of them, with what to do instead.
    pub(super) fn check_supported(&self) -> Result<(), Failure> {
        for (name, variable, support) in OPTIONS {
            if let (Refused(instead), Some(_)) = (support, self.get(name)) {
                let variable = if variable.is_empty() { String::new() } else { format!(" ({variable})") };
                return Err(usage(format!("the connection's option {name}{variable} is not supported"))
                    .meaning("nothing was sent")
                    .next(*instead));
            }
        }
        Ok(())
    }
}

/// Reads a connection string.
///
/// # Errors
/// When it is none, or names an option that libpq does not know.
pub(super) fn parse(text: &str) -> Result<Options, Failure> {
    let url = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match url {
        Some(rest) => parse_url(rest),
        None => parse_pairs(text),
    }
}

fn unreadable() -> Failure {
    usage("the connection string cannot be read")
        .next("write postgres://user@host:port/dbname, with special characters percent-encoded")
}

/// `user:password@host:port,host:port/dbname?option=value&…`
fn parse_url(rest: &str) -> Result<Options, Failure> {
    let mut options = Options::default();
    let (address, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    // Taken as it stands, a part of the password would be the host's name, and shown.
    if address.matches('@').count() > 1 {
        return Err(usage("the connection string has more than one @")
            .next("write an @ in a user, password or database as %40"));
    }
    let (login, place) = address.split_once('@').unwrap_or(("", address));
    if login.contains('/') {
        return Err(usage("the connection string has a / before its @")
            .next("write a / in a user or password as %2F, and an @ in a database as %40"));
    }
    // What a URL leaves empty it leaves to others.
    let mut set = |name: &str, value: String| {
        if value.is_empty() { Ok(()) } else { options.set(name, value) }
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    set("user", decoded(user)?)?;
    set("password", decoded(password)?)?;
    let (hosts, dbname) = place.split_once('/').unwrap_or((place, ""));
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = host_and_port(host)?;
        names.push(decoded(name)?);
        ports.push(decoded(port)?);
    }
    set("host", names.join(","))?;
    if ports.iter().any(|port| !port.is_empty()) {
        set("port", ports.join(","))?;
    }
    set("dbname", decoded(dbname)?)?;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or_else(unreadable)?;
        let (name, value) = (decoded(name)?, decoded(value)?);
        // For URLs that were written for JDBC, as libpq does.
        match (name.as_str(), value.as_str()) {
            ("ssl", "true") => options.set("sslmode", "require".to_owned())?,
            _ => options.set(&name, value)?,
        }
    }
    Ok(options)
}

/// `host:port`, where an IPv6 address stands in brackets.
fn host_and_port(text: &str) -> Result<(&str, &str), Failure> {
    let (name, rest) = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or_else(unreadable)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    match rest.strip_prefix(':') {
        Some(port) => Ok((name, port)),
        None if rest.is_empty() => Ok((name, "")),
        None => Err(unreadable()),
    }
}

fn decoded(text: &str) -> Result<String, Failure> {
    let whole = text
        .split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    if !whole || text.contains("%00") {
        return Err(unreadable());
    }
    Ok(percent_decode_str(text).decode_utf8().map_err(|_| unreadable())?.into_owned())
}

/// `host=db01 dbname='with space' …`; a backslash takes the next character as it is.
fn parse_pairs(text: &str) -> Result<Options, Failure> {
    let mut options = Options::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=').ok_or_else(unreadable)?;
        let (value, after) = pair_value(value.trim_start())?;
        options.set(name.trim_end(), value)?;
        rest = after.trim_start();
    }
    Ok(options)
}

/// A value at the front of `text`, and what follows it.
fn pair_value(text: &str) -> Result<(String, &str), Failure> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            space if !quoted && space.is_whitespace() => return Ok((value, &body[at..])),
            other => value.push(other),
        }
    }
    if quoted { Err(unreadable()) } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> BTreeMap<&'static str, String> {
        let Options(options) = parse(text).expect(text);
        options.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    #[test]
    fn urls_and_key_value_strings_say_the_same() {
        let same = [
            ("postgres://bob:a%20b@db01:5433/m", "host=db01 port=5433 user=bob password='a b' dbname=m"),
            ("postgresql://bob@[::1]/m?sslmode=require", "host=::1 user=bob dbname=m sslmode = require"),
            ("postgres://%2Frun%2Fpg/m", "host=/run/pg dbname=m"),
            ("postgres:///m?host=/run/pg&port=5433", "host='/run/pg' port=5433 dbname=m"),
            ("postgres://a:1,b,[::2]:3/m", "host=a,b,::2 port=1,,3 dbname=m"),
            ("postgres://db01/m?ssl=true", "host=db01 dbname=m sslmode=require"),
            (r"postgres://bob:it%27s%5C@db01", r"user=bob password='it\'s\\' host=db01"),
            ("postgres://bob:@db01", "user = bob host=db01"),
            ("postgres://", ""),
        ];
        for (url, pairs) in same {
            assert_eq!(read(url), read(pairs), "{url}");
        }
    }

    #[test]
    fn no_failure_repeats_a_part_of_a_password() {
        for text in [
            "postgres://bob:hunt@er2@db01/m",
            "postgres://bob:hunter2/m@x@db01/m",
            "postgres://bob:hunt/er2@db01/m",
            "user=bob password=hunter 2=er2 host=db01",
            "user=bob password='hunter2",
            "postgres://bob:hunter2%zz@db01/m",
            "postgres://bob:hunter2%00@db01/m",
            "postgres://bob:hunter2%ff@db01/m",
            "postgres://bob:hunter2@db01/m?hunter2=1",
            "postgres://bob:hunter2@[::1/m",
            "postgres://bob:hunter2@[::1]x/m",
            "hunter2",
        ] {
            let refused = parse(text).err().expect(text);
            let told = format!("{refused:?} {refused}");
            assert!(!told.contains("hunt") && !told.contains("er2"), "{told}");
        }
    }

    #[test]
    fn what_is_not_done_is_refused_and_what_changes_nothing_is_taken() {
        let check = |text: &str| parse(text).expect(text).check_supported();
        for text in ["require_auth=scram-sha-256", "requirepeer=postgres", "replication=database", "sslpassword=x"] {
            let refused = check(text).expect_err(text);
            assert!(refused.what.contains(text.split('=').next().unwrap_or_default()), "{}", refused.what);
            assert!(refused.next.is_some());
        }
        for text in ["client_encoding=LATIN1", "krbsrvname=x", "sslcompression=1", "require_auth=''"] {
            assert!(check(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_a_string_has_stands_above_what_fills_it() {
        let mut options = parse("host=a user=''").expect("a string");
        options.fill(parse("host=b user=bob").expect("a string"));
        assert_eq!((options.get("host"), options.get("user"), options.get("port")), (Some("a"), None, None));
        let mut options = parse("postgres://a").expect("a string");
        options.fill(parse("user=bob").expect("a string"));
        assert_eq!(options.get("user"), Some("bob"));
    }
}
