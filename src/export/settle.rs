//! Whether anything open could still add rows to a day, and what that makes of it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Client;

use super::plan::{self, Comparison};
use super::standby::Standby;
use crate::day::Window;
use crate::feed::SourceIdentity;
use crate::figures::human_span;
use crate::manifest::{Manifest, Slice, SliceKind, State};
use crate::pg::{PgError, quote_identifier};

/// A larger difference between this machine's clock and the source's is told, in seconds.
pub const CLOCK_TOLERANCE_SECS: i64 = 60;

/// The least time between two readings of a day that are compared to make it final.
const LEAST_BETWEEN_COUNTS: TimeDelta = TimeDelta::minutes(1);

/// So many hidden sessions are named one by one.
const NAMED_SESSIONS: usize = 3;

/// What the source said about a window.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// What it said about itself.
    pub facts: SourceFacts,
    /// What could still add rows.
    pub reasons: Vec<Reason>,
}

/// Something that keeps a day from being final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Not enough time has passed since the window's end.
    TooEarly {
        /// When it will have.
        until: DateTime<Utc>,
        /// How much is enough.
        settle: TimeDelta,
    },
    /// A transaction that began before the window's end.
    Open {
        /// The session's process.
        pid: i32,
        /// Its application_name.
        application: String,
        /// When the transaction began.
        since: DateTime<Utc>,
    },
    /// A transaction that was prepared after the window's start.
    Prepared {
        /// Its name.
        gid: String,
        /// When it was prepared.
        since: DateTime<Utc>,
    },
    /// A session that may have a transaction open.
    Hidden {
        /// Its process.
        pid: i32,
        /// Its application_name.
        application: String,
        /// Why it cannot be seen.
        hiding: Hiding,
    },
    /// The source is a standby, which does not see its primary's transactions.
    Standby {
        /// How far it has come, in words.
        words: String,
        /// Whether it has replayed all that was committed before the window's end and `settle`.
        replay: Replay,
    },
}

/// Why a session's transaction cannot be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hiding {
    /// The user lacks a privilege.
    Privilege,
    /// The session does not track what it does.
    Untracked,
}

/// How far a standby has come with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Beyond its end and `settle`.
    Beyond,
    /// Not as far, or that cannot be told.
    Behind,
}

/// What a day can become by what could still add rows to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Final: nothing was found.
    Final,
    /// Final if its rows are those of the published reading, else provisional.
    FinalIfEqual,
    /// Provisional; this reading is the first that a later one can be compared with, so it is worth a manifest.
    FirstCount,
    /// Provisional.
    Provisional,
}

/// What the source says about itself, in autocommit.
#[derive(Debug, Clone)]
pub struct SourceFacts {
    /// The server's clock.
    pub now: DateTime<Utc>,
    /// The cluster, and the timeline that it is on.
    pub identity: SourceIdentity,
    /// How far it has come, if it is a standby.
    pub standby: Option<Standby>,
    /// The role that asks.
    pub user: String,
    /// Its version.
    pub server_version: String,
    /// The same as a number, such as 150018.
    pub server_version_num: i32,
}

/// Asks the source who it is and what time it has.
///
/// # Errors
/// The server's.
pub async fn source_facts(client: &Client) -> Result<SourceFacts, PgError> {
    let row = client.query_one(include_str!("../../sql/source.sql"), &[]).await?;
    Ok(SourceFacts {
        now: row.get("now"),
        identity: SourceIdentity {
            system_identifier: row.get("system_identifier"),
            timeline: u32::try_from(row.get::<_, i32>("timeline")).unwrap_or_default(),
        },
        standby: row.get::<_, bool>("in_recovery").then(|| Standby {
            received: row.get("received"),
            replayed: row.get("replayed"),
            unreplayed: row.get("unreplayed"),
            last_commit: row.get("last_commit"),
            replayed_all_of: row.get("replayed_all_of"),
        }),
        user: row.get("username"),
        server_version: row.get("server_version"),
        server_version_num: row.get("server_version_num"),
    })
}

/// Asks the source, in autocommit and before the snapshot is taken, whether the window is settled: `settle` has
/// passed since its end by the server's clock, no transaction that began before its end is open (one that is hidden
/// counts as open) but those of the `ignored` applications, and none that was prepared after its start still is. A
/// standby does not see its primary's transactions; those of its own sessions only read.
///
/// # Errors
/// The server's.
pub async fn settlement(
    client: &Client,
    window: Window,
    settle: TimeDelta,
    ignored: &[String],
) -> Result<Settlement, PgError> {
    let mut reasons = Vec::new();
    let facts = source_facts(client).await?;
    let until = window.end + settle;
    if facts.now < until {
        reasons.push(Reason::TooEarly { until, settle });
    }
    if let Some(standby) = &facts.standby {
        let replay = if standby.has_replayed_up_to(until) { Replay::Beyond } else { Replay::Behind };
        reasons.push(Reason::Standby { words: standby.reason(window.end), replay });
        return Ok(Settlement { facts, reasons });
    }
    for row in client.query(include_str!("../../sql/open_transactions.sql"), &[&window.end, &ignored]).await? {
        let (pid, application): (i32, String) = (row.get("pid"), row.get("application"));
        reasons.push(match (row.get::<_, Option<DateTime<Utc>>>("xact_start"), row.get::<_, Option<&str>>("hidden")) {
            (Some(since), _) => Reason::Open { pid, application, since },
            (None, Some("privilege")) => Reason::Hidden { pid, application, hiding: Hiding::Privilege },
            (None, _) => Reason::Hidden { pid, application, hiding: Hiding::Untracked },
        });
    }
    for row in client.query(include_str!("../../sql/prepared_transactions.sql"), &[&window.start]).await? {
        reasons.push(Reason::Prepared { gid: row.get("gid"), since: row.get("prepared") });
    }
    Ok(Settlement { facts, reasons })
}

/// What the day of `window` can become, given the revision of it that is published.
///
/// What nobody can see can never be proved to be over: a hidden session, the transactions of a standby's primary. Where
/// nothing else stands in the way, two readings of the same rows make the day final, both made after the window's end and
/// `settle`, and as long apart as `settle`, or a minute where that is less. A standby must have replayed that long. That
/// proves that no row became visible between the two, not that none will.
pub fn standing(settlement: &Settlement, published: Option<&Manifest>, window: Window, settle: TimeDelta) -> Standing {
    if settlement.reasons.is_empty() {
        return Standing::Final;
    }
    let Some(published) = published.filter(|published| published.state == State::Provisional) else {
        return Standing::Provisional;
    };
    if !settlement.reasons.iter().all(Reason::can_never_be_disproved) {
        return Standing::Provisional;
    }
    let counted_at = published.taken.exported_at;
    let of_this_system = published.taken.system_identifier == settlement.facts.identity.system_identifier;
    if counted_at < window.end + settle || !of_this_system {
        return Standing::FirstCount;
    }
    let count_again_at = counted_at + settle.max(LEAST_BETWEEN_COUNTS);
    // A standby whose replay stood still shows the first reading once more.
    let has_gone_on =
        settlement.facts.standby.as_ref().is_none_or(|standby| standby.has_replayed_up_to(count_again_at));
    if settlement.facts.now >= count_again_at && has_gone_on { Standing::FinalIfEqual } else { Standing::Provisional }
}

/// What a day of that standing is, of which `slices` were read. Whole reference tables say nothing about its rows.
pub fn state(standing: Standing, published: Option<&Manifest>, slices: &[Slice]) -> State {
    let of_the_day = |slice: &&Slice| slice.kind != SliceKind::All;
    let equal = |slice: &Slice, old: &Slice| plan::compare(slice, old) == Comparison::Same;
    let has = |slices: &[Slice], wanted: &Slice| {
        slices.iter().any(|slice| is_same_table(slice, wanted) && equal(slice, wanted))
    };
    match (standing, published) {
        (Standing::Final, _) => State::Final,
        (Standing::FinalIfEqual, Some(published))
            if published.slices.iter().filter(of_the_day).all(|old| has(slices, old))
                && slices.iter().filter(of_the_day).all(|slice| has(&published.slices, slice)) =>
        {
            State::Final
        }
        _ => State::Provisional,
    }
}

fn is_same_table(one: &Slice, other: &Slice) -> bool {
    one.schema == other.schema && one.table == other.table
}

impl Standing {
    /// Can it become final?
    pub fn may_be_final(self) -> bool {
        matches!(self, Standing::Final | Standing::FinalIfEqual)
    }
}

impl Reason {
    /// Is it something that nobody can ever see to be over?
    fn can_never_be_disproved(&self) -> bool {
        matches!(self, Reason::Hidden { .. } | Reason::Standby { replay: Replay::Beyond, .. })
    }
}

impl Settlement {
    /// Can all of it be over within `left`?
    pub fn may_pass_within(&self, left: Duration) -> bool {
        let left = TimeDelta::from_std(left).unwrap_or(TimeDelta::MAX);
        let is_never_shown = |reason: &Reason| matches!(reason, Reason::Hidden { hiding: Hiding::Privilege, .. });
        // Pooled sessions never end, and what they do stays hidden.
        if self.reasons.iter().all(is_never_shown) {
            return false;
        }
        self.reasons.iter().all(|reason| match reason {
            Reason::TooEarly { until, .. } => *until - self.facts.now <= left,
            Reason::Standby { .. } => false,
            Reason::Open { .. } | Reason::Prepared { .. } | Reason::Hidden { .. } => true,
        })
    }

    /// The reasons in words, each with the next step if there is one. Hidden sessions are one reason together.
    pub fn words(&self) -> Vec<String> {
        let ago = |since: &DateTime<Utc>| {
            format!("{}, since {}", human_span(self.facts.now - *since), since.format("%Y-%m-%d %H:%M:%S UTC"))
        };
        let plain = |reason: &Reason| match reason {
            Reason::TooEarly { until, settle } => Some(format!(
                "less than {} have passed since its end (until {})",
                human_span(*settle),
                until.format("%Y-%m-%d %H:%M:%S UTC")
            )),
            Reason::Open { pid, application, since } => {
                Some(format!("process {pid} ({application}) has had a transaction open for {}", ago(since)))
            }
            Reason::Prepared { gid, since } => {
                Some(format!("transaction {gid:?} has been prepared and not committed for {}", ago(since)))
            }
            Reason::Standby { words, .. } => Some(words.clone()),
            Reason::Hidden { .. } => None,
        };
        let mut words: Vec<String> = self.reasons.iter().filter_map(plain).collect();
        let role = quote_identifier(&self.facts.user);
        words.extend(self.hidden(Hiding::Privilege).map(|sessions| {
            format!("{sessions} hidden from {role}, and may have a transaction open: GRANT pg_read_all_stats TO {role}")
        }));
        words.extend(self.hidden(Hiding::Untracked).map(|sessions| {
            format!("{sessions} hidden from everybody by track_activities = off, and may have a transaction open")
        }));
        words
    }

    /// `process 12 (app) is`, `process 12 (app), 13 (psql) and 7 more are`.
    fn hidden(&self, wanted: Hiding) -> Option<String> {
        let session = |reason: &Reason| match reason {
            Reason::Hidden { pid, application, hiding } if *hiding == wanted => Some(format!("{pid} ({application})")),
            _ => None,
        };
        let sessions: Vec<String> = self.reasons.iter().filter_map(session).collect();
        let more = sessions.len().saturating_sub(NAMED_SESSIONS);
        let named = sessions[..sessions.len() - more].join(", ");
        match (sessions.len(), more) {
            (0, _) => None,
            (1, _) => Some(format!("process {named} is")),
            (_, 0) => Some(format!("processes {named} are")),
            _ => Some(format!("processes {named} and {more} more are")),
        }
    }
}

/// How far the source's clock, which showed `theirs` between `before` and `after` of this machine's, is ahead of this
/// one, in whole seconds; negative where it is behind.
pub fn clock_skew_secs(theirs: DateTime<Utc>, before: DateTime<Utc>, after: DateTime<Utc>) -> i64 {
    let off = if theirs < before { theirs - before } else { (theirs - after).max(TimeDelta::zero()) };
    off.num_seconds()
}

#[cfg(test)]
mod tests;
