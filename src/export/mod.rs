//! Export: days of the source into the feed.
//!
//! [`run`] is the story; [`plan`] decides which days, and what a day that was read amounts to (pure); [`day`]
//! publishes one day; [`announce`] tells of columns that changed; [`lock`] keeps writers apart; [`settle`] tells whether
//! anything could still add rows to a day, and [`wait`] waits for that; [`access`] whether its user sees every row;
//! [`snapshot`] locks the tables and takes the snapshot that every reader shares; [`facts`] is what is asked there beside
//! the rows; [`detect`] says which slices of a published day must be read again (pure), and [`guard`] whether they are
//! enough (pure); [`spans`] cuts large tables by time, [`reading`] has the connections that read, [`shares`] says which of
//! them reads what (pure), and [`slice`] moves one connection's share of a table into its objects; [`standby`] knows what is different on a hot standby.

pub mod access;
pub mod announce;
pub mod day;
pub mod detect;
pub mod facts;
pub mod guard;
pub mod lock;
pub mod plan;
pub mod reading;
pub mod run;
pub mod settle;
pub mod shares;
pub mod slice;
pub mod snapshot;
pub mod spans;
pub mod standby;
pub mod wait;

pub use run::{DayReport, ExportReport, Options, Outcome, run};
