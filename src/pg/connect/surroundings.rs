//! What stands around a connection string: the environment, a home folder, and the files that libpq looks for there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::options::Options;
use super::usage;
use crate::error::Failure;

/// Where libpq's system-wide folder is: `PGSYSCONFDIR`, else Debian's, else Fedora's.
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"];
/// The system-wide service file.
const SERVICE_FILE: &str = "pg_service.conf";

/// Where values come from that a connection string leaves out.
pub(super) struct Surroundings<'a> {
    /// An environment variable that is set to something.
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Surroundings<'_> {
    /// The user's own folder.
    fn home(&self) -> Option<PathBuf> {
        (self.variable)("HOME").map(PathBuf::from).or_else(std::env::home_dir)
    }

    /// A file of `~/.postgresql`, if it is there.
    pub(super) fn own_file(&self, name: &str) -> Option<PathBuf> {
        self.own_path(name).filter(|path| path.exists())
    }

    /// Where a file of `~/.postgresql` would be.
    pub(super) fn own_path(&self, name: &str) -> Option<PathBuf> {
        Some(self.home()?.join(".postgresql").join(name))
    }

    /// The passfile when none is named.
    pub(super) fn own_passfile(&self) -> Option<PathBuf> {
        Some(self.home()?.join(".pgpass"))
    }

    /// The definition of a service: in `named`, else in `~/.pg_service.conf`; and then in the system's file.
    ///
    /// # Errors
    /// When none of them has it, or one cannot be read.
    pub(super) fn service(&self, name: &str, named: Option<&str>) -> Result<Options, Failure> {
        let own = match named {
            Some(path) => Some(PathBuf::from(path)),
            None => self.home().map(|home| home.join(".pg_service.conf")).filter(|path| path.exists()),
        };
        let system = match (self.variable)("PGSYSCONFDIR") {
            Some(folder) => vec![PathBuf::from(folder).join(SERVICE_FILE)],
            None => SYSTEM_FOLDERS.iter().map(|folder| Path::new(folder).join(SERVICE_FILE)).collect(),
        };
        let system = system.into_iter().filter(|path| path.exists());
        let mut looked_for = Vec::new();
        for path in own.into_iter().chain(system) {
            let text = fs::read_to_string(&path)
                .map_err(|error| usage(format!("the service file {} cannot be read: {error}", path.display())))?;
            if let Some(options) = service_of(&text, name, &path)? {
                return Ok(options);
            }
            looked_for.push(path.display().to_string());
        }
        let places = if looked_for.is_empty() { "no service file is there".to_owned() } else { looked_for.join(", ") };
        Err(usage(format!("the service {name:?} is not defined: {places}"))
            .next("define it in ~/.pg_service.conf, or name the file with PGSERVICEFILE"))
    }
}

/// The section `[name]` of a service file. `None` when there is no such section.
fn service_of(text: &str, name: &str, path: &Path) -> Result<Option<Options>, Failure> {
    let mut found: Option<Options> = None;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        let wrong = |what: &str| usage(format!("line {number} of the service file {} {what}", path.display()));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if section.strip_prefix(name).is_some_and(|rest| rest.starts_with(']')) {
                found = Some(Options::default());
            }
            continue;
        }
        let Some(options) = &mut found else { continue };
        if line.starts_with("ldap") {
            return Err(wrong("looks the service up by LDAP, which is not supported"));
        }
        let (option, value) = line.split_once('=').ok_or_else(|| wrong("is not option=value"))?;
        if matches!(option, "service" | "servicefile") {
            return Err(wrong("names another service"));
        }
        // The first of two stands, as with libpq.
        if options.get(option).is_none() {
            options.set(option, value.to_owned()).map_err(|_| wrong("has an option that libpq does not know"))?;
        }
    }
    Ok(found)
}

/// A file of passwords for many servers.
pub(super) enum Passfile {
    /// The one that was named.
    Named(PathBuf),
    /// `~/.pgpass`, which need not be there, nor be ours to look at.
    Own(PathBuf),
}

/// The password that a passfile has for a connection. A file that is not there has none, and so has one that others
/// may read, which is said.
///
/// # Errors
/// When a file that was named is there and cannot be read.
pub(super) fn password_from(
    passfile: &Passfile,
    host: &str,
    port: u16,
    dbname: &str,
    user: &str,
) -> Result<Option<String>, Failure> {
    let (passfile, needed) = match passfile {
        Passfile::Named(path) => (path, true),
        Passfile::Own(path) => (path, false),
    };
    let left_unread = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
        _ if needed => Err(usage(format!("the passfile {} cannot be read: {error}", passfile.display()))),
        _ => {
            tracing::debug!("the passfile {} cannot be read: {error}", passfile.display());
            Ok(None)
        }
    };
    let metadata = match fs::metadata(passfile) {
        Ok(metadata) => metadata,
        Err(error) => return left_unread(error),
    };
    if !metadata.is_file() {
        tracing::warn!("the passfile {} is not a plain file: it is left unread", passfile.display());
        return Ok(None);
    }
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(
            "the passfile {} can be read by others: it is left unread until chmod 0600 is done",
            passfile.display()
        );
        return Ok(None);
    }
    let text = match fs::read(passfile) {
        Ok(text) => text,
        Err(error) => return left_unread(error),
    };
    let port = port.to_string();
    let wanted = [host, &port, dbname, user];
    Ok(String::from_utf8_lossy(&text).lines().find_map(|line| password_in(line, wanted)))
}

/// The password of a line `host:port:database:user:password`, if it is for `wanted`. In each field `*` stands for
/// everything, and a backslash takes the next character as it is.
fn password_in(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for value in wanted {
        let (field, after) = field(rest);
        rest = after?;
        if field.written != "*" && field.meant != value {
            return None;
        }
    }
    Some(field(rest).0.meant).filter(|password| !password.is_empty())
}

/// A field of a passfile's line.
struct Field<'a> {
    written: &'a str,
    meant: String,
}

/// The field at the front of `text`, and what follows its colon, if one does.
fn field(text: &str) -> (Field<'_>, Option<&str>) {
    let mut meant = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => meant.extend(characters.next().map(|(_, escaped)| escaped)),
            ':' => return (Field { written: &text[..at], meant }, Some(&text[at + 1..])),
            other => meant.push(other),
        }
    }
    (Field { written: text, meant }, None)
}

/// The content of a password-file: the password and nothing else, with or without a line's end. That everybody may
/// read it is said: whether it lies where nobody else comes, such as in a container, is not known here.
///
/// # Errors
/// When the file cannot be read, is empty, or has more than one line.
pub(super) fn password_of(file: &Path) -> Result<String, Failure> {
    let named = || format!("the password-file {}", file.display());
    let unreadable = |error: io::Error| usage(format!("{} cannot be read: {error}", named()));
    if fs::metadata(file).map_err(unreadable)?.mode() & 0o004 != 0 {
        tracing::warn!("{} can be read by everybody: chmod 0600 keeps it to its owner", named());
    }
    let text = fs::read_to_string(file).map_err(unreadable)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.contains(['\n', '\0']) {
        return Err(usage(format!("{} does not hold one line", named())).next("write the password into it, alone"));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_line_of_a_passfile_is_for_what_it_names() {
        let wanted = ["db01", "5432", "m", "bob"];
        for (line, password) in [
            ("db01:5432:m:bob:secret", Some("secret")),
            ("*:*:*:*:secret", Some("secret")),
            ("db01:*:m:bob:se\\:cr\\\\et", Some("se:cr\\et")),
            ("db01:5432:m:bob:secret:more", Some("secret")),
            ("db\\01:5432:m:bob:secret", Some("secret")),
            ("#db01:5432:m:bob:secret", None),
            ("db02:5432:m:bob:secret", None),
            ("\\*:5432:m:bob:secret", None),
            ("db01:5433:m:bob:secret", None),
            ("db01:5432:n:bob:secret", None),
            ("db01:5432:m:eve:secret", None),
            ("db01:5432:m:bob:", None),
            ("db01:5432:m:bob", None),
            ("", None),
        ] {
            assert_eq!(password_in(line, wanted).as_deref(), password, "{line}");
        }
    }

    #[test]
    fn a_passfile_that_others_may_read_is_left_unread() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pgpass");
        fs::write(&path, "# ours\n*:*:*:*:first\n*:*:*:*:second\n").expect("written");
        for (mode, password) in [(0o600, Some("first")), (0o400, Some("first")), (0o640, None), (0o604, None)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            let found = password_from(&Passfile::Named(path.clone()), "h", 1, "d", "u").expect("readable");
            assert_eq!(found.as_deref(), password, "{mode:o}");
        }
        for path in [folder.path().join("none"), folder.path().to_owned(), path.join("below a file")] {
            assert_eq!(password_from(&Passfile::Named(path), "h", 1, "d", "u").expect("no passfile"), None);
        }
    }

    #[test]
    fn a_service_is_looked_for_in_the_named_file_then_in_the_systems() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("own.conf");
        fs::write(&own, "# services\n[other]\nhost=b\n\n[mine]\nhost=a\nport=1\nhost=c\n[mine]\nuser=eve\n")
            .expect("ok");
        fs::write(folder.path().join(SERVICE_FILE), "[systems]\ndbname=with space \n").expect("written");
        let system = folder.path().display().to_string();
        let variable = |name: &str| (name == "PGSYSCONFDIR").then(|| system.clone());
        let surroundings = Surroundings { variable: &variable };
        let own = own.to_str().expect("UTF-8");
        let mine = surroundings.service("mine", Some(own)).expect("defined");
        assert_eq!((mine.get("host"), mine.get("port"), mine.get("user")), (Some("a"), Some("1"), None));
        let systems = surroundings.service("systems", Some(own)).expect("defined");
        assert_eq!(systems.get("dbname"), Some("with space"));
        let missing = surroundings.service("none", Some(own)).err().expect("not defined");
        assert!(missing.what.contains(own), "{}", missing.what);
    }

    #[test]
    fn a_service_file_that_is_wrong_is_refused_with_its_line_and_without_its_words() {
        for text in ["[mine]\nhunter2", "[mine]\nhunter2=x", "[mine]\nservice=x", "[mine]\nldap://hunter2"] {
            let refused = service_of(text, "mine", Path::new("/etc/services")).err().expect(text);
            assert!(refused.what.contains("line 2 of the service file /etc/services"), "{}", refused.what);
            assert!(!refused.what.contains("hunter2"));
        }
        assert!(service_of("[mine", "other", Path::new("/")).expect("no such service").is_none());
    }

    #[test]
    fn a_password_file_holds_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        for (content, password) in [
            ("hunter2", Some("hunter2")),
            (" hunter2 \n", Some(" hunter2 ")),
            ("", None),
            ("\n", None),
            ("a\nb\n", None),
        ] {
            fs::write(&path, content).expect("written");
            assert_eq!(password_of(&path).ok().as_deref(), password, "{content:?}");
        }
        assert!(password_of(&folder.path().join("none")).is_err());
    }
}
