//! Connections are made as libpq makes them: with the same connection string, environment and home, pgslice gets in
//! exactly where psql does, as the same user, to the same database, in plain text or over the same version of TLS.

mod caller;
mod certificates;
mod environment;
mod hosts;
mod middle;
mod passfile;
mod passwords;
mod secrets;
mod server;
mod service;
mod tls;
mod work;
