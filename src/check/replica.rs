//! Whether a replica can be brought up to its feed.

use tokio_postgres::Client;

use super::{Findings, connect, judge_release};
use crate::catchup::guards;
use crate::catchup::judge::{self, Bench, Verdict};
use crate::catchup::ledger::{self, Ledger};
use crate::catchup::matching::Addition;
use crate::catchup::printable::is_printable;
use crate::catchup::{partitions, replica, run, shape};
use crate::config::{Config, CreatePartitions};
use crate::error::Class;
use crate::feed::Feed;
use crate::figures::counted;
use crate::pg::catalog::Relation;
use crate::pg::{PgError, quote_identifier, quote_qualified};
use crate::store::SharedStore;

pub(super) async fn check(config: &Config, url: &str, feed: Option<(&SharedStore, &Feed)>, findings: &mut Findings) {
    let Some(client) = connect(url, config.replica.password_file.as_deref(), findings).await else { return };
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
    if let Err(error) = replica::refuse_standby(client).await {
        findings.failed("cannot be written to", &error);
        return Ok(());
    }
    judge_server(&server, findings);
    let user = quote_identifier(server.get("username"));
    judge_ledger(client, &server, &user, findings).await?;

    let relations = run::relations(client, config).await?;
    for guards in guards::read(client, &relations).await? {
        match guards.refuse() {
            Err(failure) => findings.refused(failure),
            Ok(()) if guards.triggers.is_empty() => {}
            Ok(()) => findings.warn(
                format!("triggers of {}.{} will fire: {}", guards.schema, guards.name, guards.triggers.join(", ")),
                "see to it that they change nothing that the feed carries, and that they are fast; or disable them",
            ),
        }
    }
    judge_privileges(config, client, &relations, &user, findings).await?;
    match feed {
        Some((store, feed)) => judge_fit(config, client, store, feed, &relations, findings).await?,
        None => findings.warn(
            "its tables were not held against the feed, which there is none of yet",
            "run pgslice check again when the first day is published",
        ),
    }
    Ok(())
}

fn judge_server(server: &tokio_postgres::Row, findings: &mut Findings) {
    judge_release(server, findings);
    let database = quote_identifier(server.get("database"));
    if server.get::<_, bool>("read_only") {
        findings.bad(
            "its transactions are read-only by default",
            format!("on the replica: alter database {database} reset default_transaction_read_only, or the same for the role"),
            Class::Permission,
        );
    }
    if !server.get::<_, bool>("temporary") {
        let user = quote_identifier(server.get("username"));
        findings.bad(
            "this user may not make temporary tables, which revised days pass through",
            format!("on the replica: grant temporary on database {database} to {user}"),
            Class::Permission,
        );
    }
    let encoding: String = server.get("encoding");
    if encoding != "UTF8" {
        findings.warn(
            format!("has the encoding {encoding}: a day with a character that it lacks is refused"),
            "make the database anew with encoding UTF8",
        );
    }
}

async fn judge_ledger(
    client: &Client,
    server: &tokio_postgres::Row,
    user: &str,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    if ledger::exists(client).await? {
        let sql = "select pg_catalog.has_schema_privilege('pgslice', 'usage')
                and pg_catalog.bool_and(pg_catalog.has_table_privilege(ledger, privilege))
            from unnest(array['pgslice.ledger', 'pgslice.feed']) as ledger, unnest(array['select', 'insert', 'update']) as privilege";
        if client.query_one(sql, &[]).await.map_err(PgError::from)?.get(0) {
            findings.good("its ledger, schema pgslice, can be written");
        } else {
            findings.bad(
                "this user may not write its ledger, schema pgslice",
                format!(
                    "on the replica: grant usage on schema pgslice to {user}; \
                     grant select, insert, update on all tables in schema pgslice to {user}"
                ),
                Class::Permission,
            );
        }
        return Ok(());
    }
    let (create, has_schema): (bool, bool) = (server.get("create"), server.get("has_schema"));
    if create || (has_schema && server.get("uses_schema")) {
        findings.good("has no ledger yet: the first catchup makes schema pgslice");
    } else {
        let database = quote_identifier(server.get("database"));
        findings.bad(
            "this user may not make its ledger, schema pgslice",
            format!("on the replica: grant create on database {database} to {user}; or: create schema pgslice authorization {user}"),
            Class::Permission,
        );
    }
    Ok(())
}

async fn judge_privileges(
    config: &Config,
    client: &Client,
    relations: &[Relation],
    user: &str,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let oids: Vec<u32> = relations.iter().map(|relation| relation.oid).collect();
    let sql = include_str!("../../sql/check_replica.sql");
    for row in client.query(sql, &[&oids]).await.map_err(PgError::from)? {
        let (schema, name): (String, String) = (row.get("schema"), row.get("name"));
        let (told, table) = (format!("{schema}.{name}"), quote_qualified(&schema, &name));
        if !row.get::<_, bool>("schema_usage") {
            findings.bad(
                format!("this user may not use schema {schema} of {told}"),
                format!("on the replica: grant usage on schema {} to {user}", quote_identifier(&schema)),
                Class::Permission,
            );
        }
        let missing: Vec<String> = row.get("missing");
        if !missing.is_empty() {
            let missing = missing.join(", ");
            findings.bad(
                format!("this user lacks {missing} on {told}"),
                format!("on the replica: grant {missing} on {table} to {user}"),
                Class::Permission,
            );
        }
        let makes_partitions = config.replica.create_partitions == CreatePartitions::Yes && row.get("partitioned");
        if makes_partitions && !row.get::<_, bool>("owned") {
            findings.bad(
                format!("this user does not own {told}, of which it is to make partitions"),
                format!("on the replica: alter table {table} owner to {user}; or make partitions by other means"),
                Class::Permission,
            );
        }
        if makes_partitions && !row.get::<_, bool>("schema_create") {
            findings.bad(
                format!("this user may not make partitions of {told} in its schema"),
                format!("on the replica: grant create on schema {} to {user}", quote_identifier(&schema)),
                Class::Permission,
            );
        }
        if row.get("unlogged") {
            findings.warn(
                format!("{told} is unlogged: a crash empties it, and the ledger will still say that it is held"),
                format!("on the replica: alter table {table} set logged"),
            );
        }
    }
    for sequence in shape::read(client, relations).await?.sequences {
        let name = quote_qualified(&sequence.schema, &sequence.name);
        let sql = "select pg_catalog.has_sequence_privilege($1::text, 'select') and pg_catalog.has_sequence_privilege($1::text, 'update')";
        if !client.query_one(sql, &[&name]).await.map_err(PgError::from)?.get::<_, bool>(0) {
            findings.bad(
                format!("this user may not move sequence {name} past what was loaded"),
                format!("on the replica: grant select, update on sequence {name} to {user}"),
                Class::Permission,
            );
        }
    }
    Ok(())
}

/// Holds the replica against the newest published day, as a catchup does.
async fn judge_fit(
    config: &Config,
    client: &Client,
    store: &SharedStore,
    feed: &Feed,
    relations: &[Relation],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    if let Err(failure) = run::check_dataset(feed, config) {
        findings.refused(failure);
    }
    if let Err(failure) = run::check_published(feed, &run::accepted(config, relations)) {
        findings.refused(failure);
    }
    let knows = ledger::exists(client).await?;
    if knows && let Err(failure) = run::check_known_head(feed, ledger::known_head(client, &feed.dataset).await?) {
        findings.refused(failure);
    }
    let bench = Bench { client, store: &**store, feed, config };
    let missing = run::missing_tables(config, relations);
    if !missing.is_empty() {
        // What --create would find: a type that is not there, for instance.
        if let Err(error) = run::create_statements(bench, &missing, run::MissingTables::Create, &[]).await {
            findings.failed("its missing tables cannot be made", &error);
        }
        let names: Vec<String> = missing.iter().map(|(schema, name)| format!("{schema}.{name}")).collect();
        findings.bad(
            format!("has no table {}", names.join(", ")),
            "restore a full dump first, or let pgslice catchup --create make the tables",
            Class::Drift,
        );
    }
    let Some(newest) = feed.days.last() else { return Ok(()) };
    let held = if knows { ledger::read(client, &feed.feed_id).await? } else { Ledger::new() };
    let verdict = async {
        let read = judge::read(&**store, feed, vec![newest]).await?;
        judge::judge(read, bench, relations, &held).await
    };
    let mut day = match verdict.await {
        Ok(Verdict::Fits(day)) => day,
        Ok(Verdict::Lacks(additions, _)) => {
            for Addition { table, column, statement, .. } in &additions {
                let statement = if is_printable(statement) { format!(", or: {statement}") } else { String::new() };
                findings.warn(
                    format!("{table} has no column {:?}, which the next catchup adds", column.name),
                    format!("see to it that this user owns the table{statement}"),
                );
            }
            return Ok(());
        }
        Err(error) => {
            findings.failed("does not take the feed", &error);
            return Ok(());
        }
    };
    let drifts = partitions::prepare(client, &mut day, relations, &held, config.replica.create_partitions).await?;
    for drift in &drifts {
        findings.bad(drift.to_string(), "make the partition, or let catchup make it", Class::Drift);
    }
    if drifts.is_empty() && missing.is_empty() {
        let tables = counted(relations.len(), "table");
        findings.good(format!("{tables} fit the feed's newest day, {}", newest.day));
    }
    Ok(())
}
