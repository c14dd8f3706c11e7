//! `pgslice check`: proves that a store, a source and a replica will work. Each finding comes with its fix.
//!
//! The store is tried by doing to it what the commands do; the databases are only asked, by the same functions that
//! export and catchup ask with. Which of them are looked at is what the configuration names.

mod replica;
mod source;
mod store;

use std::path::Path;

use serde::Serialize;

use crate::config::Config;
use crate::error::{Class, Failure, class_of, describe};
use crate::pg::{Endpoint, PooledClient, version};

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// The version of this report.
    pub format: u32,
    /// In the order they were made.
    pub findings: Vec<Finding>,
}

/// One thing that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What it is about: `store`, `source` or `replica`.
    pub about: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub next: Option<String>,
    #[serde(skip)]
    class: Option<Class>,
}

/// How a trial went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, at a price.
    Warning,
    /// It will not work.
    Bad,
}

/// Looks at the store of `config`, then at its source, then at its replica. What is written to the store lies under
/// names of its own and is removed again, but for the object that conditional writes are tried on; the feed and the
/// databases are only read.
pub async fn run(config: &Config) -> CheckReport {
    let mut findings = Findings::about("store");
    let store = store::check(config, &mut findings).await;
    let mut all = findings.list;
    let feed = store.as_ref().and_then(|(store, feed)| Some((store, feed.as_ref()?)));
    if let Some(url) = &config.source_url {
        let mut findings = Findings::about("source");
        Box::pin(source::check(config, url, feed, &mut findings)).await;
        all.extend(findings.list);
    }
    if let Some(url) = &config.replica.url {
        let mut findings = Findings::about("replica");
        Box::pin(replica::check(config, url, feed, &mut findings)).await;
        all.extend(findings.list);
    }
    CheckReport { format: 1, findings: all }
}

impl CheckReport {
    /// The class of the first thing that will not work.
    pub fn failure(&self) -> Option<Class> {
        self.findings.iter().find_map(|finding| finding.class)
    }

    /// The findings for people.
    pub fn lines(&self) -> Vec<String> {
        let line = |finding: &Finding| {
            let verdict = match finding.verdict {
                Verdict::Good => "good",
                Verdict::Warning => "WARN",
                Verdict::Bad => "FAIL",
            };
            let next = finding.next.as_ref().map(|next| format!("\n      next: {next}")).unwrap_or_default();
            format!("{verdict}  {}: {}{next}", finding.about, finding.what)
        };
        self.findings.iter().map(line).collect()
    }
}

/// A connection to a database; `None` when there is none, which is found then.
async fn connect(url: &str, password_file: Option<&Path>, findings: &mut Findings) -> Option<PooledClient> {
    let endpoint = match Endpoint::with_password_file(url, password_file) {
        Ok(endpoint) => endpoint,
        Err(failure) => {
            findings.refused(failure);
            return None;
        }
    };
    match endpoint.client().await {
        Ok(client) => {
            findings.good(format!("{endpoint} can be connected to"));
            if endpoint.tells_password() {
                findings.warn(
                    "its url in the configuration holds a password",
                    "move it to a passfile, a password-file, PGPASSWORD or a service file",
                );
            }
            Some(client)
        }
        Err(error) => {
            findings.failed("cannot be connected to", &error);
            None
        }
    }
}

/// Whether the release of a server, as `check_server.sql` tells it, is one that was tried.
fn judge_release(server: &tokio_postgres::Row, findings: &mut Findings) {
    let (release, number): (String, i32) = (server.get("server_version"), server.get("server_version_num"));
    if number >= version::UNTRIED {
        findings.warn(
            format!("is PostgreSQL {release}, which this version of pgslice was not tried with"),
            "use the newest pgslice",
        );
    } else {
        findings.good(format!("is PostgreSQL {release}"));
    }
}

/// The findings about one thing, while they are made.
struct Findings {
    about: &'static str,
    list: Vec<Finding>,
}

impl Findings {
    fn about(about: &'static str) -> Findings {
        Findings { about, list: Vec::new() }
    }

    fn good(&mut self, what: impl Into<String>) {
        self.add(Verdict::Good, what.into(), None, None);
    }

    fn warn(&mut self, what: impl Into<String>, next: impl Into<String>) {
        self.add(Verdict::Warning, what.into(), Some(next.into()), None);
    }

    fn bad(&mut self, what: impl Into<String>, next: impl Into<String>, class: Class) {
        self.add(Verdict::Bad, what.into(), Some(next.into()), Some(class));
    }

    /// Something that a command would end with.
    fn refused(&mut self, failure: Failure) {
        self.add(Verdict::Bad, failure.what, failure.next, Some(failure.class));
    }

    /// An error of trying. What it means for the data of a run is left out: there was none.
    fn failed(&mut self, attempted: &str, error: &anyhow::Error) {
        let next = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()?.next.clone());
        let told = describe(error);
        let told: Vec<&str> = told.lines().take_while(|line| !line.starts_with("  ")).collect();
        self.add(Verdict::Bad, format!("{attempted}: {}", told.join("; ")), next, Some(class_of(error)));
    }

    /// Whether something was found that will not work.
    fn has_bad(&self) -> bool {
        self.list.iter().any(|finding| finding.verdict == Verdict::Bad)
    }

    fn add(&mut self, verdict: Verdict, what: String, next: Option<String>, class: Option<Class>) {
        self.list.push(Finding { about: self.about, verdict, what, next, class });
    }
}
