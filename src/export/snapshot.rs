//! The one snapshot that every reader of a day shares.

use chrono::{DateTime, NaiveDateTime, Utc};
use tokio_postgres::Client;

use crate::config::{Detect, TableConfig};
use crate::day::{Day, Window, Zone};
use crate::error::{Class, Failure};
use crate::manifest::Taken;
use crate::pg::catalog::{self, Relation};
use crate::pg::{PgError, ServerRun, Session, quote_literal};
use crate::table::{self, SourceTable, TableProblem};

use super::access;
use super::facts::{self, Detector};
use super::settle::SourceFacts;

/// A transaction that holds the tables' locks and an exported snapshot for as long as it lives. It holds vacuum back
/// on the source meanwhile.
pub struct Snapshot<'a> {
    client: &'a Client,
    id: String,
    server: ServerRun,
    /// The moment it was taken.
    pub taken: Taken,
    /// The tables as they are under the lock.
    pub tables: Vec<SourceTable>,
    /// How each of them can be looked at.
    pub detectors: Vec<Detector>,
}

impl<'a> Snapshot<'a> {
    /// Locks the tables ACCESS SHARE, then exports a REPEATABLE READ snapshot, then reads the catalogs: a TRUNCATE,
    /// DROP PARTITION or rewrite either came before and is seen, or has to wait.
    ///
    /// # Errors
    /// The server's; class Transient when a lock is not to be had soon; class Usage when a table is missing or does
    /// not fit its configuration.
    pub async fn take(
        client: &'a Client,
        tables: &[TableConfig],
        detect: Detect,
        facts: &SourceFacts,
    ) -> anyhow::Result<Snapshot<'a>> {
        let present = resolve(client, tables).await?;
        for access in access::read(client, &present).await? {
            access.refuse()?;
        }
        client.batch_execute("begin isolation level repeatable read read only").await.map_err(PgError::from)?;
        let lockable: Vec<String> = present.iter().filter_map(SourceTable::lockable).collect();
        if !lockable.is_empty() {
            let lock = format!("lock table {} in access share mode", lockable.join(", "));
            client.batch_execute(&lock).await.map_err(|error| locked_out(PgError::from(error)))?;
        }
        let row = client.query_one(include_str!("../../sql/snapshot.sql"), &[]).await.map_err(PgError::from)?;
        let taken = Taken {
            exported_at: row.get::<_, DateTime<Utc>>("exported_at"),
            snapshot: row.get("snapshot"),
            lsn: row.get("lsn"),
            system_identifier: facts.identity.system_identifier.clone(),
            timeline: facts.identity.timeline,
        };
        let id = row.get("id");
        let tables = resolve(client, tables).await?;
        let detectors = facts::detectors(client, &tables, detect).await?;
        let server = ServerRun::of(client).await?;
        Ok(Snapshot { client, id, server, taken, tables, detectors })
    }

    /// What makes a session read this very snapshot, under locks of its own that are had at once or not at all.
    pub fn invitation(&self) -> Invitation {
        let mut statements = format!(
            "begin isolation level repeatable read read only; set transaction snapshot {};",
            quote_literal(&self.id)
        );
        let lockable: Vec<String> = self.tables.iter().filter_map(SourceTable::lockable).collect();
        if !lockable.is_empty() {
            statements.push_str(&format!(" lock table {} in access share mode nowait;", lockable.join(", ")));
        }
        Invitation { server: self.server.clone(), statements }
    }

    /// The name by which other sessions of the same database import it: what `pg_dump --snapshot` takes.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sees to it that the transaction still lives: then its locks and its snapshot were held without a break.
    ///
    /// # Errors
    /// The server's; class Transient when the transaction has ended.
    pub async fn check_alive(&self) -> anyhow::Result<()> {
        let lost = || {
            Failure::new(Class::Transient, "the transaction that held the tables' locks and the snapshot was ended")
                .meaning("rows may be missing from what was read meanwhile: nothing was published")
                .next("see the source's log for who ended it (a timeout, an operator, a restart), then run again")
        };
        let snapshot = "select pg_catalog.pg_current_snapshot()::text, \
                        pg_catalog.current_setting('transaction_isolation') = 'repeatable read'";
        let row = self.client.query_one(snapshot, &[]).await.map_err(|error| match PgError::from(error) {
            error if error.code().is_none() || self.client.is_closed() => anyhow::Error::from(lost()),
            error => error.into(),
        })?;
        if row.get::<_, String>(0) == self.taken.snapshot && row.get::<_, bool>(1) {
            Ok(())
        } else {
            Err(lost().into())
        }
    }

    /// Asks questions under it.
    pub fn client(&self) -> &Client {
        self.client
    }

    /// Lets go of the snapshot and the locks.
    ///
    /// # Errors
    /// The server's; the snapshot is gone with the connection in any case.
    pub async fn release(self) -> Result<(), PgError> {
        Ok(self.client.batch_execute("rollback").await?)
    }
}

/// Lets a session read a snapshot of the same server.
#[derive(Debug, Clone)]
pub struct Invitation {
    server: ServerRun,
    statements: String,
}

impl Invitation {
    /// Makes `session` read the snapshot.
    ///
    /// # Errors
    /// The server's, explained where it ran out of locks; class Transient for a session of another server, where the
    /// snapshot's name could be another one's.
    pub fn accept(&self, session: &mut Session) -> anyhow::Result<()> {
        self.server.check(session)?;
        session.run(&self.statements).map_err(|error| match error.code() {
            Some("53200") => out_of_locks(&error).into(),
            _ => error.into(),
        })
    }
}

/// The source's relations of the configured names.
///
/// # Errors
/// The server's.
pub async fn relations(client: &Client, tables: &[TableConfig]) -> Result<Vec<Relation>, PgError> {
    let names: Vec<(&str, &str)> = tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).collect();
    catalog::relations(client, &names).await
}

async fn resolve(client: &Client, tables: &[TableConfig]) -> anyhow::Result<Vec<SourceTable>> {
    let relations = relations(client, tables).await?;
    let resolved = table::resolve(tables, &relations).map_err(|problems| unfit(&problems))?;
    let oids: Vec<u32> = resolved.iter().map(|table| table.relation.oid).collect();
    let exceptions = table::exceptions(&resolved, &catalog::column_types(client, &oids).await?);
    if exceptions.is_empty() { Ok(resolved) } else { Err(unfit(&exceptions).into()) }
}

fn unfit(problems: &[TableProblem]) -> Failure {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Failure::new(Class::Usage, lines.join("\n"))
        .meaning("nothing was exported")
        .next("mend the [[table]] sections of the configuration, or the source")
}

fn locked_out(error: PgError) -> anyhow::Error {
    match error.code() {
        Some("53200") => return out_of_locks(&error).into(),
        Some("55P03") => {}
        _ => return error.into(),
    }
    Failure::new(Class::Transient, "a table is locked on the source (schema change in progress?)")
        .meaning("the day was not exported; the source was not kept waiting")
        .next("run again when the change is done")
        .into()
}

/// Every table, partition and index that is read takes a lock, in each of the sessions that share the snapshot.
fn out_of_locks(error: &PgError) -> Failure {
    Failure::new(Class::Transient, format!("the source ran out of room for locks: {error}"))
        .meaning("the day was not exported")
        .next("raise max_locks_per_transaction on the source and restart it, or set a smaller jobs in [export]")
}

/// Holds the windows that were computed here against the source's own time zone data.
///
/// # Errors
/// Class Integrity when they disagree; class Usage when the source does not know the zone.
pub async fn check_zones(
    client: &Client,
    zone: Zone,
    day: Day,
    window: Window,
    tables: &[TableConfig],
) -> anyhow::Result<()> {
    let row = client
        .query_one(include_str!("../../sql/window.sql"), &[&day.to_string(), &day.next().to_string(), &zone.name()])
        .await
        .map_err(|error| unknown_zone(PgError::from(error), zone))?;
    let theirs = Window { start: row.get("start"), end: row.get("end") };
    if theirs != window {
        return Err(disagreement(
            zone,
            day,
            &format!("{} to {}", theirs.start, theirs.end),
            &format!("{} to {}", window.start, window.end),
        ));
    }
    let column_zones = tables.iter().filter_map(|table| match &table.rows {
        Some(crate::config::RowsRule::Time { zone: Some(column_zone), .. }) if *column_zone != zone => {
            Some(*column_zone)
        }
        _ => None,
    });
    for column_zone in column_zones {
        for instant in [window.start, window.end] {
            let row = client
                .query_one(include_str!("../../sql/wall_clock.sql"), &[&instant, &column_zone.name()])
                .await
                .map_err(|error| unknown_zone(PgError::from(error), column_zone))?;
            let theirs: NaiveDateTime = row.get("local");
            let ours = column_zone.local(instant);
            if theirs != ours {
                return Err(disagreement(column_zone, day, &theirs.to_string(), &ours.to_string()));
            }
        }
    }
    Ok(())
}

fn unknown_zone(error: PgError, zone: Zone) -> anyhow::Error {
    if error.code() != Some("22023") {
        return error.into();
    }
    Failure::new(Class::Usage, format!("the source does not know the time zone {:?}", zone.name()))
        .next("update the time zone data of the source, or choose another name for the zone")
        .into()
}

fn disagreement(zone: Zone, day: Day, theirs: &str, ours: &str) -> anyhow::Error {
    Failure::new(
        Class::Integrity,
        format!(
            "the source's time zone data for {} differ on {day}: it says {theirs}, pgslice says {ours}",
            zone.name()
        ),
    )
    .meaning("the day was not exported: its rows would be cut at the wrong instant")
    .next("update the time zone data of the source, or pgslice, to the same release")
    .into()
}
