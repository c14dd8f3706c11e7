//! Failure classes, their exit codes and hints.
//!
//! Orchestration returns `anyhow::Error`. Where a failure has a class that a script branches on, a
//! [`Failure`] sits somewhere in the error's chain; [`class_of`] finds it. Nothing else decides an
//! exit code.

use std::fmt;

use crate::pg::PgError;
use crate::store::StoreError;

/// Why a run did not do all that was asked. The exit codes are a published contract: unknown codes
/// mean failure to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Nothing more precise is known.
    Other,
    /// The command line or the configuration is wrong; nothing was attempted.
    Usage,
    /// Some days of a run over several days failed; none of those is visible.
    DaysFailed,
    /// What was read is not what was promised: digests, counts, identities.
    Integrity,
    /// A connection, a server or a store gave up for now; the same command may succeed later.
    Transient,
    /// A login or a privilege is missing.
    Permission,
    /// Another run holds the lock.
    Locked,
    /// The day has not ended, or an open transaction could still add rows to it.
    NotSettled,
    /// A table differs from what was configured or published.
    Drift,
    /// A day between published days is missing from the feed.
    Gap,
    /// The days that are needed were pruned from the feed.
    BehindRetention,
    /// The feed has not been published to for too long.
    Stale,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Class {
    /// The process exit code of the class.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Other => 1,
            Class::Usage => 2,
            Class::DaysFailed => 3,
            Class::Integrity => 4,
            Class::Transient => 5,
            Class::Permission => 6,
            Class::Locked => 7,
            Class::NotSettled => 8,
            Class::Drift => 9,
            Class::Gap => 10,
            Class::BehindRetention => 11,
            Class::Stale => 12,
            Class::Interrupted => 130,
            Class::Terminated => 143,
        }
    }
}

/// One classified failure: what happened and where, what it means for the data, and what to do next.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The class that decides the exit code.
    pub class: Class,
    /// What happened, and where.
    pub what: String,
    /// What it means for the data.
    pub meaning: Option<String>,
    /// The next step.
    pub next: Option<String>,
}

impl Failure {
    /// A failure of `class`; `what` names the thing and the place.
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        Failure { class, what: what.into(), meaning: None, next: None }
    }

    /// Adds what the failure means for the data.
    #[must_use]
    pub fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = Some(meaning.into());
        self
    }

    /// Adds the next step.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// The class of an error: that of the outermost [`Failure`] in its chain, else that of the store or
/// PostgreSQL error found in it, else [`Class::Other`].
pub fn class_of(error: &anyhow::Error) -> Class {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.class;
        }
        if let Some(store) = cause.downcast_ref::<StoreError>() {
            return store.class();
        }
        if let Some(pg) = cause.downcast_ref::<PgError>() {
            return pg.class();
        }
        if let Some(driver) = cause.downcast_ref::<tokio_postgres::Error>() {
            return crate::pg::class_of_driver(driver);
        }
    }
    Class::Other
}

/// The error as a person reads it: its chain on one line, then what it means for the data and the next
/// step, each on a line of its own.
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for (depth, cause) in error.chain().enumerate() {
        let line = cause.to_string();
        // Drivers repeat their source's text in their own.
        if depth > 0 && text.ends_with(&line) {
            continue;
        }
        if depth > 0 {
            text.push_str(": ");
        }
        text.push_str(&line);
    }
    if let Some(failure) = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) {
        if let Some(meaning) = &failure.meaning {
            text.push_str("\n  data: ");
            text.push_str(meaning);
        }
        if let Some(next) = &failure.next {
            text.push_str("\n  next: ");
            text.push_str(next);
        }
    }
    text
}
