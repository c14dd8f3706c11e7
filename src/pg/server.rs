//! Which server answers: what is read or written through two connections must be one server's.

use tokio_postgres::Client;

use super::error::PgError;
use super::session::Session;
use crate::error::{Class, Failure};

/// What a [`Failure`] of [`ServerRun::check`] says.
const APART: &str = "two connections reached two servers, or one that was restarted in between";
const STARTED_SQL: &str = "select pg_catalog.pg_postmaster_start_time()::text";

/// A run of a server, told from every other by the microsecond of its start. Behind one address there may be several,
/// if something shares out connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRun(String);

impl ServerRun {
    /// The one that `client` is connected to.
    ///
    /// # Errors
    /// The server's.
    pub async fn of(client: &Client) -> Result<ServerRun, PgError> {
        Ok(ServerRun(client.query_one(STARTED_SQL, &[]).await?.get(0)))
    }

    /// Is `session` connected to the same?
    ///
    /// # Errors
    /// Class Transient when it is not; the server's.
    pub fn check(&self, session: &mut Session) -> anyhow::Result<()> {
        let rows = session.query(STARTED_SQL, &[])?;
        if rows.first().and_then(|row| row.get(0)) == Some(self.0.as_str()) {
            return Ok(());
        }
        Err(apart().into())
    }

    /// Does the failure say that a session is connected to another?
    pub fn tells_apart(failure: &Failure) -> bool {
        failure.class == Class::Transient && failure.what == APART
    }
}

fn apart() -> Failure {
    Failure::new(Class::Transient, APART)
        .meaning("a snapshot, a lock or a ledger of one server says nothing about another: nothing was done")
        .next("run again; if it repeats, let the url name one server instead of a load balancer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_failure_tells_two_servers_apart() {
        assert!(ServerRun::tells_apart(&apart()));
        assert!(!ServerRun::tells_apart(&Failure::new(Class::Transient, "a table is locked on the source")));
    }
}
