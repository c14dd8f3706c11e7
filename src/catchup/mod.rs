//! Catchup: the feed's missing and revised days into a replica, exactly once.
//!
//! [`run`] is the story; [`plan`] decides what is pending and in which order it goes (pure); [`matching`] holds slices
//! against the replica's tables (pure); [`ledger`] is the replica's record; [`adopt`] looks at windows met for the
//! first time; [`fetch`] brings verified rows; [`merge`] words the statements (pure); [`apply`] runs one transaction;
//! [`create`] makes missing tables.

pub mod adopt;
pub mod apply;
pub mod create;
pub mod fetch;
pub mod ledger;
pub mod matching;
pub mod merge;
pub mod plan;
pub mod run;

pub use run::{CatchupReport, Options, run};
