//! The command line: clap structs, no logic beyond their meaning.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::{parse_days, parse_span};
use crate::day::Day;
use crate::layout::{Key, NotAStreamKey};
use crate::verify::Share;

const EXAMPLE: &str = "\
Example, every night:
  pgslice put full/DATE.dump --full -- pg_dump -Fc --snapshot={snapshot} DATABASE
  pgslice export --prune                   publish yesterday, let old days go
and on any replica, as often as you like:
  pgslice catchup --replica                apply exactly the missing days

Exit codes: 0 done, 1 other, 2 usage or config, 3 some days failed, 4 integrity, 5 try again,
6 permission, 7 locked, 8 not settled yet, 9 schema drift, 10 gap, 11 behind retention,
12 feed stale, 130/143 interrupted.";

/// Publish a growing PostgreSQL database day by day, and top replicas off from it.
#[derive(Debug, Parser)]
#[command(name = "pgslice", version, after_help = EXAMPLE, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration [default: $PGSLICE_CONFIG, ./pgslice.toml, /etc/pgslice/pgslice.toml].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the result as one JSON document.
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more (twice: everything).
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// How log lines are written to standard error: text or json.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, hide_possible_values = true)]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish days of the source to the store.
    Export(ExportArgs),
    /// Let old days go, and delete what has outlived its grace.
    Prune(PruneArgs),
    /// Apply the feed's missing and revised days to a replica.
    Catchup(CatchupArgs),
    /// Prove that store, source and replica will work; what is wrong comes with its fix.
    Check,
    /// Show how fresh the feed is, its gaps, and what each day costs.
    Status,
    /// List the objects of the feed.
    Ls(LsArgs),
    /// Hold what is published against itself, the source and a replica.
    Verify(VerifyArgs),
    /// Make a lost or damaged feed.json again from the manifests in the store.
    Repair(RepairArgs),
    /// Stream a command's output, such as a full dump, into one object of the store.
    Put(PutArgs),
    /// Write an object that was put to standard output.
    Get(GetArgs),
}

/// `pgslice export`
#[derive(Debug, Args)]
#[command(after_help = "\
Without a day: every closed day that is missing or provisional from the feed's oldest day on, and
the days of the lookback; for an empty feed, yesterday. Days are published whole or not at all.

Example: pgslice export --from 2024-05-01 --to 2024-05-07")]
pub struct ExportArgs {
    /// Export this day, even if it is published already; `yesterday` is understood.
    #[arg(long, value_name = "DAY", conflicts_with_all = ["from", "to"])]
    pub date: Option<NamedDay>,
    /// Export from this day on.
    #[arg(long, value_name = "DAY", requires = "to")]
    pub from: Option<NamedDay>,
    /// Export up to this day, itself included.
    #[arg(long, value_name = "DAY", requires = "from")]
    pub to: Option<NamedDay>,
    /// Wait up to so long for days to settle, in all; a day that is named may end meanwhile [default: 30m with
    /// unsettled = "wait", else not at all].
    #[arg(long, value_name = "SPAN", value_parser = wait)]
    pub wait: Option<Duration>,
    /// Publish a new revision even if no row changed.
    #[arg(long)]
    pub force: bool,
    /// Publish a day even if it lost rows, or has fewer than expected.
    #[arg(long)]
    pub accept_shrink: bool,
    /// Accept a source with another system identifier, or one that a promoted standby left behind.
    #[arg(long)]
    pub new_source: bool,
    /// Say which days would be looked at; write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Prune afterwards, if no day failed.
    #[arg(long)]
    pub prune: bool,
}

/// `pgslice prune`
#[derive(Debug, Args)]
#[command(after_help = "\
Days leave the feed first; their objects are deleted by a later run, when the grace has passed.

Example: pgslice prune --keep 15d --dry-run")]
pub struct PruneArgs {
    /// Keep that many days, counted back from the newest final one [default: retention.keep].
    #[arg(long, value_name = "SPAN", value_parser = keep_days)]
    pub keep: Option<u64>,
    /// Say what would be done; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `pgslice catchup`
#[derive(Debug, Args)]
#[command(after_help = "\
Every day is one transaction with its own record of it: safe to repeat, safe to kill.

Example: pgslice catchup --replica postgres://localhost/datanommer --create --from 2024-05-01")]
pub struct CatchupArgs {
    /// The database to top off [default: replica.url].
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub replica: Option<String>,
    /// Start with this day.
    #[arg(long, value_name = "DAY")]
    pub from: Option<NamedDay>,
    /// Stop after this day.
    #[arg(long, value_name = "DAY")]
    pub to: Option<NamedDay>,
    /// Say once that the tables were restored from this full dump of the feed: days in it are taken for present.
    #[arg(long, value_name = "KEY", value_parser = stream_key, conflicts_with = "taken_at")]
    pub restored_from: Option<Key>,
    /// The same for a dump that the feed does not know: when it was begun, by the source's clock.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub taken_at: Option<DateTime<Utc>>,
    /// Make tables that the configuration lists and the replica lacks.
    #[arg(long)]
    pub create: bool,
    /// Step over days that are missing in the feed.
    #[arg(long)]
    pub allow_gap: bool,
    /// Delete rows that the feed does not know, in the windows of its days.
    #[arg(long)]
    pub force: bool,
    /// Say which days would be applied; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `pgslice put`
#[derive(Debug, Args)]
#[command(after_help = "\
Without a command standard input is put. A command that fails publishes nothing.

A full dump is taken in a snapshot that pgslice makes, and is recorded in feed.json:
  pgslice put full/2024-05-01.dump --full -- pg_dump -Fc --snapshot={snapshot} datanommer")]
pub struct PutArgs {
    /// The object's name, below full/; it must not exist.
    #[arg(value_name = "KEY", value_parser = stream_key)]
    pub key: Key,
    /// Record it as a full dump; the command takes the name of its snapshot where it says {snapshot}.
    #[arg(long)]
    pub full: bool,
    /// When a dump that was taken elsewhere was begun, by the source's clock: 2024-05-01T00:30:00Z.
    #[arg(long, value_name = "TIME", requires = "full", value_parser = instant)]
    pub taken_at: Option<DateTime<Utc>>,
    /// The command whose standard output is put.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `pgslice get`
#[derive(Debug, Args)]
#[command(after_help = "\
Look at the exit code: what feed.json records is held against it when all of it has been written.

Example: pgslice get full/2024-05-01.dump > 2024-05-01.dump && pg_restore -d datanommer 2024-05-01.dump")]
pub struct GetArgs {
    /// The object's name, below full/.
    #[arg(value_name = "KEY", value_parser = stream_key)]
    pub key: Key,
}

/// `pgslice ls`
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print addresses only.
    #[arg(long)]
    pub urls: bool,
}

/// `pgslice verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Without a flag: feed.json, manifests, checksum files and the sizes of all objects. Each level says what it
does not check. Exits 4 when anything differs; nothing is changed.

Example: pgslice verify --read-data=5% --replica --from 2024-05-01")]
pub struct VerifyArgs {
    /// Start with this day.
    #[arg(long, value_name = "DAY")]
    pub from: Option<NamedDay>,
    /// Stop after this day.
    #[arg(long, value_name = "DAY")]
    pub to: Option<NamedDay>,
    /// Read the parts, or a share of their frames, and check what they hold.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = "100%")]
    pub read_data: Option<Share>,
    /// Compare the source's rows of each day.
    #[arg(long)]
    pub source: bool,
    /// Compare a replica's rows of each day [default: replica.url].
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub replica: Option<String>,
}

/// `pgslice repair`
#[derive(Debug, Args)]
#[command(after_help = "\
Of each day the newest revision is published again, if all of it is there. A feed.json that can be read
stays as it is. Nothing is deleted. Let no export or prune run meanwhile.

Example: pgslice repair --dry-run")]
pub struct RepairArgs {
    /// Compare the sizes of parts only, instead of reading and checking all of them.
    #[arg(long)]
    pub sizes_only: bool,
    /// Go without days whose newest revision is not whole.
    #[arg(long)]
    pub leave_out: bool,
    /// Make feed.json again even if it can be read: after it was set back, or made anew by an export.
    #[arg(long)]
    pub force: bool,
    /// Which feed, where the store holds days of several.
    #[arg(long, value_name = "ID")]
    pub feed_id: Option<String>,
    /// Say what feed.json would hold; write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// A day as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedDay {
    /// `2024-05-01`
    Day(Day),
    /// `yesterday`
    Yesterday,
}

impl NamedDay {
    /// The day, given the one that has not ended.
    pub fn on(self, today: Day) -> Day {
        match self {
            NamedDay::Day(day) => day,
            NamedDay::Yesterday => today.previous(),
        }
    }
}

impl std::str::FromStr for NamedDay {
    type Err = crate::day::NotADay;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "yesterday" { Ok(NamedDay::Yesterday) } else { text.parse().map(NamedDay::Day) }
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    parse_span(text)?.to_std().map_err(|error| error.to_string())
}

fn stream_key(text: &str) -> Result<Key, NotAStreamKey> {
    Key::stream(text)
}

fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc()).map_err(|_| "write it with its offset: 2024-05-01T00:30:00Z".to_owned())
}

fn keep_days(text: &str) -> Result<u64, String> {
    match parse_days(text)? {
        0 => Err("0d would let every day go; the least is 1d".to_owned()),
        days => Ok(days),
    }
}
