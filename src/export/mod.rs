//! Export: days of the source into the feed.
//!
//! [`run`] is the story; [`plan`] decides which days, and what a day that was read amounts to (pure); [`day`]
//! publishes one day; [`lock`] keeps writers apart; [`settle`] tells whether anything could still add rows to it;
//! [`access`] whether its user sees every row; [`snapshot`] locks the tables and takes the snapshot that every reader
//! shares; [`slice`] moves one table's rows into its object; [`standby`] knows what is different on a hot standby.

pub mod access;
pub mod day;
pub mod lock;
pub mod plan;
pub mod run;
pub mod settle;
pub mod slice;
pub mod snapshot;
pub mod standby;

pub use run::{DayReport, ExportReport, Options, Outcome, run};
