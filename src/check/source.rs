//! Whether a source can be published.

use chrono::{TimeDelta, Utc};
use tokio_postgres::Client;

use super::{Findings, connect, judge_release};
use crate::config::Config;
use crate::error::Class;
use crate::export::{access, announce, plan, settle, snapshot};
use crate::feed::Feed;
use crate::figures::{counted, human_span};
use crate::pg::catalog::{self, RelKind};
use crate::pg::{PgError, quote_identifier, quote_qualified, version};
use crate::store::SharedStore;
use crate::table::{self, SourceRows, SourceTable};

const MEND_TABLES: &str = "mend the [[table]] sections of the configuration, or the source";

pub(super) async fn check(config: &Config, url: &str, feed: Option<(&SharedStore, &Feed)>, findings: &mut Findings) {
    let Some(client) = connect(url, config.source_password_file.as_deref(), findings).await else { return };
    if let Err(error) = examine(config, &client, feed, findings).await {
        findings.failed("cannot be asked", &error);
    }
}

async fn examine(
    config: &Config,
    client: &Client,
    feed: Option<(&SharedStore, &Feed)>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let server = client.query_one(include_str!("../../sql/check_server.sql"), &[]).await.map_err(PgError::from)?;
    let (release, number): (String, i32) = (server.get("server_version"), server.get("server_version_num"));
    if let Err(failure) = version::check("source", &release, number) {
        findings.refused(failure);
        return Ok(());
    }
    judge_server(&server, findings);
    let facts = settle::source_facts(client).await?;
    let ahead = facts.now - Utc::now();
    if ahead.abs() > TimeDelta::seconds(settle::CLOCK_TOLERANCE_SECS) {
        findings.warn(
            format!("its clock differs from this machine's by {}", human_span(ahead.abs())),
            "days end by the source's clock, and a feed's age is told by this one: set both by a time server",
        );
    }
    if facts.standby.is_some() {
        findings.warn(
            "is a standby: it does not see what is open on its primary, so days are provisional until they were counted again",
            "export from the primary, or accept that: docs/operating.md says what it proves",
        );
    }
    if let Some((_, feed)) = feed
        && let Err(failure) = plan::check_source(feed, &facts.identity)
    {
        findings.refused(failure);
    }
    let today = config.timezone.day_of(facts.now);
    let window = config.timezone.window(today);
    if let Err(error) = snapshot::check_zones(client, config.timezone, today, window, &config.tables).await {
        findings.failed("does not cut days as this machine does", &error);
    }
    let relations = snapshot::relations(client, &config.tables).await?;
    match table::resolve(&config.tables, &relations) {
        Err(problems) => {
            for problem in problems {
                findings.bad(problem.to_string(), MEND_TABLES, Class::Usage);
            }
        }
        Ok(tables) => {
            let oids: Vec<u32> = tables.iter().map(|table| table.relation.oid).collect();
            let types = catalog::column_types(client, &oids).await?;
            for exception in table::exceptions(&tables, &types) {
                findings.bad(exception.to_string(), MEND_TABLES, Class::Usage);
            }
            for condition in table::conditions(&tables, &types) {
                findings.warn(condition.to_string(), "make sure that it has, or leave the column out with columns");
            }
            for access in access::read(client, &tables).await? {
                if let Err(failure) = access.refuse() {
                    findings.refused(failure);
                }
            }
            judge_tables(config, client, &server, &tables, findings).await?;
            if let Some((store, feed)) = feed.filter(|(_, feed)| feed.dataset == config.dataset) {
                announce_columns(config, store, feed, &tables, findings).await;
            }
            if !findings.has_bad() {
                findings.good(format!("{} can be published", counted(tables.len(), "table")));
            }
        }
    }
    Ok(())
}

/// What the next export will announce. A feed whose newest day cannot be read is for others to judge.
async fn announce_columns(
    config: &Config,
    store: &SharedStore,
    feed: &Feed,
    tables: &[SourceTable],
    findings: &mut Findings,
) {
    if let Ok(Some(newest)) = announce::newest(&**store, feed, &config.tables).await {
        for news in announce::compare(tables, &newest) {
            findings.warn(news.line(), "tell those who run replicas, or name what is published with columns");
        }
    }
}

fn judge_server(server: &tokio_postgres::Row, findings: &mut Findings) {
    judge_release(server, findings);
    let user: String = server.get("username");
    if !server.get::<_, bool>("sees_sessions") {
        findings.warn(
            "does not show this user other sessions: any of them may have a transaction open, so days are provisional until they were counted again",
            format!("on the source: grant pg_read_all_stats to {}", quote_identifier(&user)),
        );
    }
    if !server.get::<_, bool>("tracks_activities") {
        findings.warn(
            "does not track what sessions do (track_activities = off), so days are provisional until they were counted again",
            "on the source: alter system set track_activities = on",
        );
    }
    if server.get::<_, String>("encoding") == "SQL_ASCII" {
        findings.warn(
            "has the encoding SQL_ASCII: nothing sees to it that its texts are UTF-8, and a replica refuses those that are not",
            "convert the database to UTF8 by a dump and a restore",
        );
    }
}

async fn judge_tables(
    config: &Config,
    client: &Client,
    server: &tokio_postgres::Row,
    tables: &[SourceTable],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let oids: Vec<u32> = tables.iter().map(|table| table.relation.oid).collect();
    let sql = include_str!("../../sql/check_source.sql");
    let mut locks = 0;
    for row in client.query(sql, &[&oids]).await.map_err(PgError::from)? {
        locks += row.get::<_, i64>("locks");
        let oid: u32 = row.get("relation");
        let Some(table) = tables.iter().find(|table| table.relation.oid == oid) else { continue };
        judge_table(table, row.get("unlogged"), &row.get::<_, Vec<String>>("indexed"), findings);
    }
    let slots: i64 = server.get("lock_slots");
    let sessions = i64::try_from(config.export.jobs).unwrap_or(i64::MAX).saturating_add(1);
    let needed = locks.saturating_mul(sessions);
    if needed > slots / 2 {
        findings.warn(
            format!(
                "has room for about {slots} locks, of which an export takes up to {needed}: its tables, their partitions \
                 and indexes, in {sessions} sessions"
            ),
            "on the source: raise max_locks_per_transaction and restart it; or set a smaller jobs in [export]",
        );
    }
    Ok(())
}

fn judge_table(table: &SourceTable, unlogged: bool, indexed: &[String], findings: &mut Findings) {
    let name = table.relation.qualified_name();
    let table_name = quote_qualified(&table.relation.schema, &table.relation.name);
    if unlogged {
        findings.warn(
            format!("{name} is unlogged: a crash empties it, and a standby cannot read it"),
            format!("on the source: alter table {table_name} set logged"),
        );
    }
    let is_table = matches!(table.relation.kind, RelKind::Table | RelKind::Partitioned);
    if let SourceRows::Time { column, .. } = &table.rows
        && !indexed.contains(column)
        && (is_table || table.relation.kind == RelKind::MaterializedView)
    {
        findings.warn(
            format!("{name} has no index that starts with {column:?}: each day reads the whole table"),
            format!("on the source: create index concurrently on {table_name} ({})", quote_identifier(column)),
        );
    }
    if table.key.is_empty() {
        findings.warn(
            format!("{name} has no key: a revised day of it is deleted and loaded as a whole on replicas"),
            format!("on the source and on replicas: alter table {table_name} add primary key (…), or set key"),
        );
    }
    let is_large_object = |kind: &str, schema: &str| kind == "lo" || (kind == "oid" && schema == "pg_catalog");
    for column in table.columns.iter().filter(|column| is_large_object(&column.type_name, &column.type_schema)) {
        findings.warn(
            format!(
                "{name} has {:?} of type {}: large objects that it names are not published",
                column.name, column.type_name
            ),
            "keep such contents in bytea columns, or leave the column out with columns = […]",
        );
    }
}
