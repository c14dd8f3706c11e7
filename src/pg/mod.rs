//! PostgreSQL: connecting, session settings, catalog queries, and COPY.
//!
//! Two kinds of connection, made from one [`Endpoint`]: the driver's, from a pool, for everything that asks
//! questions, and [`Session`], a blocking connection of our own, for COPY and for the transaction that COPY is
//! part of. The driver hides the server's `COPY n`, pays per message, and notices an error of a COPY IN only at
//! its end.

pub mod catalog;
mod connect;
mod copy;
mod error;
mod pace;
pub mod pooler;
mod server;
mod session;
mod startup;
mod transport;
pub mod version;
mod wire;

pub use connect::{Endpoint, OwnClient, PooledClient};
pub use copy::CopyIn;
pub use error::{PgError, ServerError, class_of_driver};
pub use server::ServerRun;
pub use session::{Row, Session, TransactionState};
/// `name` as a quoted SQL identifier.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.table`, both quoted.
pub fn quote_qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(table))
}

/// `text` as a quoted SQL literal, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}
