//! Connections for questions, used again and again.
//!
//! Whoever takes one leaves the session as it was: no transaction, lock, setting or temporary table stays. What is not
//! sure of that takes an [`OwnClient`]. A session whose transaction was left open by a task that was dropped is not handed
//! out again.

use std::fmt;
use std::sync::Arc;

use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult};

use tokio_postgres::SimpleQueryMessage;

use super::Servers;
use crate::pg::PgError;

/// A connection that goes back when it is dropped.
pub type PooledClient = Object<Connector>;
/// A connection that ends when it is dropped.
pub type OwnClient = deadpool_postgres::ClientWrapper;
pub(super) type Pool = managed::Pool<Connector>;

/// More than a run asks questions at the same time.
const CONNECTIONS: usize = 4;

/// Makes connections for a pool.
pub struct Connector(Arc<Servers>);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({})", self.0.settings.display())
    }
}

impl managed::Manager for Connector {
    type Type = OwnClient;
    type Error = PgError;

    async fn create(&self) -> Result<OwnClient, PgError> {
        self.0.driver_client().await
    }

    async fn recycle(&self, client: &mut OwnClient, _: &Metrics) -> RecycleResult<PgError> {
        if client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        // In a transaction, now is when that began. Asked simply: otherwise a statement begins more than once.
        let idle = "select pg_catalog.now() = pg_catalog.statement_timestamp()";
        let rows = client.simple_query(idle).await.map_err(|error| RecycleError::Backend(error.into()))?;
        let is_idle = rows.iter().any(|row| matches!(row, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")));
        if is_idle { Ok(()) } else { Err(RecycleError::message("a transaction was left open")) }
    }
}

/// A pool that makes its connections when they are asked for.
pub(super) fn new(servers: &Arc<Servers>) -> Pool {
    let builder = Pool::builder(Connector(Arc::clone(servers))).max_size(CONNECTIONS);
    builder.build().expect("a pool without timeouts needs no runtime")
}

/// Why there is no connection.
pub(super) fn reason(error: PoolError<PgError>) -> PgError {
    match error {
        PoolError::Backend(error) => error,
        other => PgError::Protocol(format!("no connection from the pool: {other}")),
    }
}
