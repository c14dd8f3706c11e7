//! What the feed lets go of, and what is deleted once that is past its grace.
//!
//! Two steps that never meet in one run: the head lets days go (`retired`), and a later run deletes the objects of
//! retired revisions whose grace has passed. Decisions are pure ([`plan`](mod@plan)); [`prune`](fn@prune) reads,
//! swaps and deletes.

pub mod plan;
mod prune;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod histories;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod runs;

pub use prune::{DeletedRevision, Mode, Problem, PruneReport, ReleasedDay, WaitingRevision, prune};
