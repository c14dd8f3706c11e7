//! Finding the configuration file, and reading its sections.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use toml::de::DeTable;

use super::reader::{Document, Field, Section, line_of, shortened};
use super::{
    Config, CreatePartitions, Detect, Expect, ExportConfig, NewColumns, ReplicaConfig, RetentionConfig, Unsettled,
    parse_days, parse_span, store, tables,
};
use crate::day::Zone;
use crate::error::{Class, Failure};

/// The environment variable that names the file.
const ENVIRONMENT: &str = "PGSLICE_CONFIG";
/// Where the file is looked for when nothing names it, in order.
const SEARCH_PATH: [&str; 2] = ["./pgslice.toml", "/etc/pgslice/pgslice.toml"];

/// One thing that is wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line it is on, from 1.
    pub line: usize,
    /// The key it is about, such as `export.jobs`; empty for the file as such.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Why there is no configuration. Nothing was attempted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file was named, and none lies where it is looked for.
    #[error("no configuration file: looked for {}", listed(.looked_for))]
    NotFound {
        /// The places, in order.
        looked_for: Vec<PathBuf>,
    },
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The file is wrong. One line per problem, `path:LINE: message`.
    #[error("{}", lines(.path, .problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it, in the order of lines; never empty.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The failure, of class [`Class::Usage`], with the next step.
    pub fn into_failure(self) -> Failure {
        let next = match &self {
            ConfigError::NotFound { .. } => {
                format!("write one (config/minimal.toml is a start), or name it with --config or {ENVIRONMENT}")
            }
            ConfigError::Unreadable { .. } => {
                format!("check the file's name, as given by --config or {ENVIRONMENT}, and who may read it")
            }
            ConfigError::Invalid { path, .. } => {
                format!("correct {}; config/full.toml explains every key", path.display())
            }
        };
        Failure::new(Class::Usage, self.to_string()).meaning("nothing was attempted").next(next)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        error.into_failure()
    }
}

fn listed(places: &[PathBuf]) -> String {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    places.join(", ")
}

fn lines(path: &Path, problems: &[Problem]) -> String {
    let line = |problem: &Problem| format!("{}:{}: {problem}", path.display(), problem.line);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The file to read: the one that `flag` names, else the one that `PGSLICE_CONFIG` names, else the first that exists
/// of `./pgslice.toml` and `/etc/pgslice/pgslice.toml`. A file that is named need not exist: [`load`] will say so.
///
/// # Errors
/// [`ConfigError::NotFound`] when none is named and none exists.
pub fn find(flag: Option<&Path>) -> Result<PathBuf, ConfigError> {
    search(flag, std::env::var_os(ENVIRONMENT), &SEARCH_PATH.map(PathBuf::from))
}

fn search(flag: Option<&Path>, variable: Option<OsString>, places: &[PathBuf]) -> Result<PathBuf, ConfigError> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    if let Some(path) = variable.filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    // A file that may not even be looked at is chosen, so that reading it tells of the permission.
    let chosen = places.iter().find(|path| path.try_exists().unwrap_or(true));
    chosen.cloned().ok_or_else(|| ConfigError::NotFound { looked_for: places.to_vec() })
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// [`ConfigError::Unreadable`], or what [`parse`] refuses.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse(&text, path)
}

/// Checks `text`, the content of the file at `path`. Nothing in it is expanded.
///
/// # Errors
/// [`ConfigError::Invalid`] with every problem at once. Where the text is not TOML only that is reported: what its
/// keys would have meant is anybody's guess.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let invalid = |problems| Err(ConfigError::Invalid { path: path.to_owned(), problems });
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return invalid(syntax_problems(text, &errors));
    }
    let document = Document::new(text, root.get_ref());
    let config = read(&document, path);
    let problems = document.finish();
    if problems.is_empty() { Ok(config) } else { invalid(problems) }
}

/// One problem per line: what follows a syntax error on the same line is mostly its echo. Messages repeat nothing of
/// the text, in which a password may stand.
fn syntax_problems(text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let problem = |error: &toml::de::Error| {
        let span = error.span().unwrap_or_default();
        let single_brackets = error.message() == "duplicate key" && text.get(span.clone()) == Some("table");
        let hint = if single_brackets { "; each table is a [[table]], in double brackets" } else { "" };
        Problem {
            line: line_of(text, span.start),
            key: String::new(),
            message: format!("is not TOML: {}{hint}", error.message()),
        }
    };
    let mut problems: Vec<Problem> = errors.iter().map(problem).collect();
    problems.sort_by_key(|problem| problem.line);
    problems.dedup_by_key(|problem| problem.line);
    problems
}

/// What `document` says. Where a value is missing or wrong the document has recorded a problem, and a default stands
/// in for it so that the rest can be read.
pub(super) fn read(document: &Document<'_>, path: &Path) -> Config {
    let top = document.top();
    let dataset = top.required("dataset", "dataset = \"name\" as the first line");
    let source = document.section("source");
    let dataset = dataset.and_then(|field| field.parsed("a name in quotes", dataset_name)).unwrap_or_default();
    let timezone =
        top.field("timezone").and_then(|field| field.parsed("a time zone such as \"UTC\"", str::parse::<Zone>));
    Config {
        path: path.to_owned(),
        dataset: dataset.to_owned(),
        timezone: timezone.unwrap_or(Zone::UTC),
        source_url: source.field("url").and_then(|field| field.text()).map(str::to_owned),
        source_password_file: password_file(&source, path),
        store: store::read(document, path),
        export: export(document),
        retention: retention(document),
        tables: tables::read(document),
        replica: replica(document, path),
    }
}

fn export(document: &Document<'_>) -> ExportConfig {
    let export = document.section("export");
    let jobs = export.field("jobs").and_then(|field| field.integer(1..=64));
    let compression_level = export.field("compression-level").and_then(|field| field.integer(1..=19));
    let lookback = export.field("lookback").and_then(|field| field.parsed("days such as \"3d\"", parse_days));
    let settle = export.field("settle").and_then(|field| field.parsed("a length of time such as \"15m\"", parse_span));
    let unsettled = export.field("unsettled").and_then(|field| {
        field.choice(&[
            ("provisional", Unsettled::Provisional),
            ("wait", Unsettled::Wait),
            ("refuse", Unsettled::Refuse),
        ])
    });
    let ignore_applications = export.field("ignore-applications").and_then(|field| field.items());
    let application = |field: Field<'_, '_>| field.parsed("an application_name in quotes", application_name);
    let expect = export
        .field("expect")
        .and_then(|field| field.choice(&[("lenient", Expect::Lenient), ("strict", Expect::Strict)]));
    let max_shrink = export.field("max-shrink").and_then(|field| field.parsed("a share such as \"1%\"", share));
    ExportConfig {
        jobs: jobs.unwrap_or(2),
        compression_level: compression_level.unwrap_or(3),
        lookback_days: lookback.unwrap_or(3),
        settle: settle.unwrap_or(TimeDelta::minutes(15)),
        unsettled: unsettled.unwrap_or(Unsettled::Provisional),
        ignore_applications: ignore_applications.unwrap_or_default().into_iter().filter_map(application).collect(),
        max_shrink: max_shrink.unwrap_or(0.01),
        detect: detect(&export).unwrap_or(Detect::Rows),
        expect: expect.unwrap_or(Expect::Lenient),
    }
}

/// `detect`, of `[export]` or of a table.
pub(super) fn detect(section: &Section<'_, '_>) -> Option<Detect> {
    section.field("detect")?.choice(&[
        ("rows", Detect::Rows),
        ("digest", Detect::Digest),
        ("count", Detect::Count),
        ("off", Detect::Off),
    ])
}

/// A name as PostgreSQL keeps it: a longer one is cut by the server, and would never be found.
fn application_name(text: &str) -> Result<String, String> {
    if (1..=63).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        Ok(text.to_owned())
    } else {
        Err(format!("must be 1 to 63 printable ASCII characters, as application_name is, not {:?}", shortened(text)))
    }
}

fn retention(document: &Document<'_>) -> RetentionConfig {
    let retention = document.section("retention");
    let keep = retention.field("keep").and_then(|field| {
        field.parsed("days such as \"15d\"", |text| match parse_days(text)? {
            0 => Err("must keep at least one day, such as \"15d\"".to_owned()),
            days => Ok(days),
        })
    });
    let min_complete = retention.field("min-complete").and_then(|field| field.integer(1..=100_000));
    let grace = retention.field("grace").and_then(|field| field.parsed("a length of time such as \"48h\"", parse_span));
    RetentionConfig {
        keep_days: keep.unwrap_or(15),
        min_complete: min_complete.unwrap_or(3),
        grace: grace.unwrap_or(TimeDelta::hours(48)),
    }
}

fn password_file(section: &Section<'_, '_>, path: &Path) -> Option<PathBuf> {
    let file = section.field("password-file").and_then(|field| field.text())?;
    Some(beside(path, file))
}

/// `file`, relative to the folder of the configuration at `path`.
pub(super) fn beside(path: &Path, file: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(file)
}

fn replica(document: &Document<'_>, path: &Path) -> ReplicaConfig {
    let replica = document.section("replica");
    let url = replica.field("url").and_then(|field| field.text());
    let max_age = replica.field("max-age").and_then(|field| {
        field.parsed("a length of time such as \"36h\"", |text| match parse_span(text)? {
            age if age.is_zero() => Err("must be more than zero, or every feed is stale: write \"36h\"".to_owned()),
            age => Ok(age),
        })
    });
    let create_partitions = match replica.field("create-partitions").and_then(|field| field.boolean()) {
        Some(true) => CreatePartitions::Yes,
        Some(false) | None => CreatePartitions::No,
    };
    let new_columns = replica
        .field("new-columns")
        .and_then(|field| field.choice(&[("refuse", NewColumns::Refuse), ("add", NewColumns::Add)]));
    ReplicaConfig {
        url: url.map(str::to_owned),
        password_file: password_file(&replica, path),
        max_age,
        create_partitions,
        new_columns: new_columns.unwrap_or(NewColumns::Refuse),
    }
}

fn dataset_name(text: &str) -> Result<&str, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text)
    } else {
        Err(format!("must be 1 to 63 letters, digits, \"_\", \".\" or \"-\", not {:?}", shortened(text)))
    }
}

/// A percentage as a share of 1.
fn share(text: &str) -> Result<f64, String> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.strip_suffix('%')
        .filter(|number| number.split_once('.').map_or(digits(number), |(whole, part)| digits(whole) && digits(part)))
        // The share nearest to what was written: dividing by 100 would round a second time.
        .and_then(|number| format!("{number}e-2").parse::<f64>().ok())
        .filter(|share| *share <= 1.0)
        .ok_or_else(|| format!("must be a share from \"0%\" to \"100%\", such as \"0.5%\", not {:?}", shortened(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_environment_and_both_over_the_search_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = [folder.path().join("absent.toml"), folder.path().join("present.toml")];
        std::fs::write(&places[1], "").expect("write");
        let found = |flag: Option<&str>, variable: Option<&str>| {
            search(flag.map(Path::new), variable.map(OsString::from), &places).expect("a file")
        };
        assert_eq!(found(Some("flag.toml"), Some("variable.toml")), Path::new("flag.toml"));
        assert_eq!(found(None, Some("variable.toml")), Path::new("variable.toml"));
        assert_eq!(found(None, Some("")), places[1], "an empty variable names nothing");
        assert_eq!(found(None, None), places[1]);
    }

    #[test]
    fn when_nothing_is_found_the_error_says_where_was_looked() {
        let places = [PathBuf::from("/nowhere/a.toml"), PathBuf::from("/nowhere/b.toml")];
        let failure = search(None, None, &places).expect_err("nothing is there").into_failure();
        assert_eq!(failure.what, "no configuration file: looked for /nowhere/a.toml, /nowhere/b.toml");
        assert_eq!(failure.class, Class::Usage);
        assert!(failure.next.expect("a next step").contains("PGSLICE_CONFIG"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let failure = load(Path::new("/nowhere/a.toml")).expect_err("it is not there").into_failure();
        assert!(failure.what.starts_with("/nowhere/a.toml: cannot be read: "), "{}", failure.what);
        assert_eq!(failure.class, Class::Usage);
    }

    #[test]
    fn shares_are_percentages() {
        for (text, expected) in [("1%", 0.01), ("0.5%", 0.005), ("0%", 0.0), ("100%", 1.0), ("100.0%", 1.0)] {
            assert_eq!(share(text), Ok(expected), "{text}");
        }
        for text in
            ["", "%", "1", "0.01", "-1%", "+1%", "101%", "1e1%", ".5%", "1.%", "1.2.3%", "inf%", "NaN%", "1 %", " 1%"]
        {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
