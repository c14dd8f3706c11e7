//! Why a replica does not take rows of the feed: its constraints, partitions, types, triggers.

use super::matching::Target;
use crate::error::{Class, Failure};
use crate::pg::PgError;

/// Does a row of the batch point to a row that is not there?
pub(super) fn is_foreign_key_violation(error: &anyhow::Error) -> bool {
    // ON DELETE RESTRICT has a code of its own from release 18 on.
    let refused = |error: &PgError| matches!(error.code(), Some("23503" | "23001"));
    error.chain().any(|cause| cause.downcast_ref::<PgError>().is_some_and(refused))
}

/// Would the replica's table hold two values where a unique index or an exclusion constraint allows one?
pub(super) fn is_unique_violation(error: &anyhow::Error) -> bool {
    let excluded = |error: &PgError| error.is_unique_violation() || error.code() == Some("23P01");
    error.chain().any(|cause| cause.downcast_ref::<PgError>().is_some_and(excluded))
}

/// What is said of a COMMIT that fails.
pub(super) const CANNOT_COMMIT: &str = "cannot commit";

/// Was it noticed by COMMIT only, as constraints are that can be deferred?
pub(super) fn is_late(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.to_string() == CANNOT_COMMIT)
}

/// The replica holds something else than what was written to it.
pub(super) fn not_as_published(what: &str, problem: &str) -> anyhow::Error {
    Failure::new(Class::Integrity, format!("{what}: the replica {problem}"))
        .meaning("nothing of the day was kept on the replica")
        .next("look for triggers, rules or partitions on the replica that change what is written")
        .into()
}

/// The stage of several slices has a column more than their table.
pub(super) fn no_room_for_ranks(target: &Target) -> Failure {
    Failure::new(
        Class::Drift,
        format!("{} has 1,600 columns: several revised days cannot be merged at once", target.name),
    )
    .meaning("nothing of these days was applied")
    .next("catch up day by day: --to the first of them, then to the next")
}

/// Constraints, partitions and types of the replica that refuse rows of the feed. A unique index that is no key of the
/// merge is checked row by row, unless its constraint can be deferred.
pub(super) fn explain(error: anyhow::Error) -> anyhow::Error {
    let code = error.chain().find_map(|cause| cause.downcast_ref::<PgError>()?.code()).unwrap_or_default();
    let (meaning, next) = match code {
        _ if is_unique_violation(&error) => (
            "a row of the replica's own holds the value, or rows exchanged theirs",
            "remove the replica's own row; for exchanged values add the constraint again as DEFERRABLE",
        ),
        _ if is_foreign_key_violation(&error) => (
            "a foreign key of the replica refuses rows of the feed",
            "for tables or rows that point at each other: alter table … alter constraint … deferrable; otherwise load the \
             rows that are pointed to, or drop the foreign key",
        ),
        _ if code.starts_with("23") => (
            "a constraint or partition of the replica refuses rows of the feed",
            "change the constraint on the replica to what the source allows, or make the partition, then run again",
        ),
        // Labels of an enumeration, lengths, ranges, encodings.
        _ if code.starts_with("22") => (
            "a type of the replica does not take a value of the feed",
            "change the type on the replica to what it is on the source, then run again",
        ),
        "53200" => (
            "the replica ran out of room for locks",
            "raise max_locks_per_transaction on the replica and restart it, then run again",
        ),
        _ => return error,
    };
    let class = if code == "53200" { Class::Transient } else { Class::Drift };
    Failure::new(class, format!("{error:#}")).meaning(format!("nothing of it was applied: {meaning}")).next(next).into()
}
