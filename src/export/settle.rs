//! Whether anything open could still add rows to a day.

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Client;

use super::standby::Standby;
use crate::day::Window;
use crate::feed::SourceIdentity;
use crate::manifest::State;
use crate::pg::PgError;

/// What the source said about a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Final when nothing was found.
    pub state: State,
    /// What was found, in words.
    pub reasons: Vec<String>,
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
        }),
        server_version: row.get("server_version"),
        server_version_num: row.get("server_version_num"),
    })
}

/// Asks the source, in autocommit and before the snapshot is taken, whether the window is settled: `settle` has
/// passed since its end by the server's clock, no transaction that began before its end is open (one that is hidden
/// counts as open), and none that was prepared after its start still is. A standby does not see its primary's
/// transactions, so its days are never final.
///
/// # Errors
/// The server's.
pub async fn settlement(client: &Client, window: Window, settle: TimeDelta) -> Result<Settlement, PgError> {
    let mut reasons = Vec::new();
    let facts = source_facts(client).await?;
    if let Some(standby) = &facts.standby {
        reasons.push(standby.reason(window.end));
    }
    if facts.now < window.end + settle {
        reasons.push(format!("less than {} minutes have passed since its end", settle.num_minutes()));
    }
    for row in client.query(include_str!("../../sql/open_transactions.sql"), &[&window.end]).await? {
        let (pid, application): (i32, String) = (row.get("pid"), row.get("application"));
        reasons.push(match row.get::<_, Option<DateTime<Utc>>>("xact_start") {
            Some(since) => format!("process {pid} ({application}) has had a transaction open since {since}"),
            None => format!(
                "process {pid} ({application}) is hidden from this user and may have one open: grant pg_read_all_stats"
            ),
        });
    }
    for row in client.query(include_str!("../../sql/prepared_transactions.sql"), &[&window.start]).await? {
        let (gid, prepared): (String, DateTime<Utc>) = (row.get("gid"), row.get("prepared"));
        reasons.push(format!("transaction {gid:?}, prepared at {prepared}, is not committed"));
    }
    let state = if reasons.is_empty() { State::Final } else { State::Provisional };
    Ok(Settlement { state, reasons })
}
