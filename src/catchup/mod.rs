//! Catchup: the feed's missing and revised days into a replica, exactly once.
//!
//! [`run`] is the story; [`plan`] decides what is pending and in which order it goes (pure); [`matching`] holds slices
//! against the replica's tables (pure); [`ledger`] is the replica's record; [`adopt`] looks at windows met for the
//! first time, [`guards`] at what could get in the way, [`partitions`] at where rows will go, [`shape`] at the order of
//! tables, [`continuity`] at replicas that were filled some other way; [`replica`] refuses one that takes no writes;
//! [`fetch`] brings verified rows; [`merge`] words the statements (pure); [`apply`] runs one transaction; [`conflict`]
//! explains what it is refused for; [`create`] makes missing tables; [`report`] tells.

pub mod adopt;
pub mod apply;
mod conflict;
mod continuity;
pub mod create;
pub mod fetch;
pub mod guards;
pub mod ledger;
pub mod matching;
pub mod merge;
pub mod partitions;
pub mod plan;
pub mod replica;
pub mod report;
pub mod run;
pub mod shape;

pub use report::CatchupReport;
pub use run::{Options, run};
