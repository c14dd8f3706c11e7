//! pgslice publishes a growing PostgreSQL database day by day, so that others can keep up with it.
//!
//! # Words
//! A *dataset* is a named set of tables published together to a *feed*. A *day* is a calendar date in the
//! dataset's zone, its *window* the half-open interval between two instants. A *slice* is one table's rows of one
//! day; it is made of *parts* (objects), each made of *frames* (independent zstd frames ending on a row boundary).
//! A *manifest* is the immutable record of one *revision* of one day. The replica's *ledger* is its own record of
//! what it holds, written in the same transaction as the rows.
//!
//! # Module map
//! Commands ([`export`], [`catchup`], [`retention`], [`stream`], [`status`], [`verify`], [`repair`]) stand on [`codec`],
//! [`table`], [`pg`] and
//! [`store`]; those on [`feed`], [`manifest`], [`layout`]; those on [`day`]. `pg` and `store` know nothing of each
//! other. The pure modules get `now` passed in: no I/O, no clock, no async.

mod ahead;
pub mod catchup;
pub mod check;
pub mod cli;
pub mod codec;
pub mod config;
pub mod day;
pub mod error;
pub mod export;
pub mod feed;
pub mod figures;
pub mod head;
pub mod layout;
pub mod manifest;
pub mod page;
pub mod pg;
pub mod progress;
pub mod repair;
pub mod report;
pub mod retention;
pub mod status;
pub mod store;
pub mod stream;
pub mod table;
mod tally;
pub mod verify;
