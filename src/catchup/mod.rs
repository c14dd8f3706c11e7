//! Catchup: the feed's missing and revised days into a replica, exactly once.
//!
//! [`run`] is the story; [`plan`] decides what is pending and in which order it goes (pure); [`judge`] says whether it
//! fits: by [`matching`], which holds slices against the replica's tables (pure), [`widening`], which tells what types
//! take (pure), and [`spelling`] of types; [`ledger`] is the replica's record; [`adopt`] looks at windows met for the
//! first time, [`guards`] at what could get in the way, [`partitions`] at where rows will go, [`shape`] at the order of
//! tables, [`continuity`] at replicas that were filled some other way; [`restored`] knows the dump that they were restored from; [`replica`] refuses one that takes no writes;
//! [`fetch`] brings verified rows; [`merge`] words the statements (pure); [`binary`] writes text rows
//! in binary (pure); [`apply`] runs one transaction; [`conflict`]
//! explains what it is refused for; [`idle`] knows when there is nothing to do; [`printable`] shows text of a feed; [`create`] makes missing tables; [`report`] tells.

pub mod adopt;
pub mod apply;
pub mod binary;
mod conflict;
mod continuity;
pub mod create;
pub mod fetch;
pub mod guards;
pub mod idle;
pub(crate) mod judge;
pub mod ledger;
pub mod matching;
pub mod merge;
pub mod partitions;
pub mod plan;
pub(crate) mod printable;
pub mod replica;
pub mod report;
pub mod restored;
pub mod run;
pub mod shape;
pub mod spelling;
pub mod widening;

pub use report::CatchupReport;
pub use run::{Options, run};
