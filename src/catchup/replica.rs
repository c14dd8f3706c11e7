//! The replica as such: a session to write by, and whether it takes writes.

use anyhow::Context;
use tokio::task::spawn_blocking;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::error::{Class, Failure};
use crate::pg::{Endpoint, PgError, ServerRun, Session, version};

/// A session of our own, for the transactions that apply days, on the server of `client`, which the ledger is read from.
///
/// # Errors
/// Those of [`Endpoint::session`] and [`ServerRun::check`].
pub async fn session(replica: &Endpoint, client: &Client, cancel: &CancellationToken) -> anyhow::Result<Session> {
    let server = ServerRun::of(client).await?;
    let (replica, cancel) = (replica.clone(), cancel.clone());
    spawn_blocking(move || -> anyhow::Result<Session> {
        let mut session = replica.session(&cancel)?;
        server.check(&mut session)?;
        Ok(session)
    })
    .await?
    .context("cannot connect to the replica")
}

/// Hands `session` back when it is connected to the server of `client`. What it writes from then on is compressed as
/// `sql/toast_compression.sql` says.
///
/// # Errors
/// Those of [`ServerRun::check`].
pub async fn of_one_server(mut session: Session, client: &Client) -> anyhow::Result<Session> {
    let server = ServerRun::of(client).await?;
    spawn_blocking(move || -> anyhow::Result<Session> {
        server.check(&mut session)?;
        session.run(include_str!("../../sql/toast_compression.sql"))?;
        Ok(session)
    })
    .await?
    .context("cannot connect to the replica")
}

/// Refuses a physical standby, and a release that is too old.
///
/// # Errors
/// Class Usage for such a one; otherwise the server's.
pub async fn refuse_standby(client: &Client) -> anyhow::Result<()> {
    let sql = "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version'),
            pg_catalog.current_setting('server_version_num')::integer";
    let row = client.query_one(sql, &[]).await.map_err(PgError::from)?;
    version::check("replica", row.get(1), row.get(2))?;
    if !row.get::<_, bool>(0) {
        return Ok(());
    }
    Err(Failure::new(Class::Usage, "the replica is a physical standby: it takes no writes")
        .meaning("nothing was applied")
        .next("name a database of its own in replica.url")
        .into())
}

/// Refuses a role or database that only reads by default: that is somebody's wish, and is not overruled.
///
/// # Errors
/// Class Permission for such a one; otherwise the server's.
pub async fn refuse_read_only(client: &Client) -> anyhow::Result<()> {
    let sql = "select pg_catalog.current_setting('default_transaction_read_only')";
    let row = client.query_one(sql, &[]).await.map_err(PgError::from)?;
    if row.get::<_, &str>(0) == "off" {
        return Ok(());
    }
    Err(Failure::new(Class::Permission, "the replica takes no writes: default_transaction_read_only is on")
        .meaning("nothing was applied")
        .next("alter role … set default_transaction_read_only = off, for the role that catches up")
        .into())
}
