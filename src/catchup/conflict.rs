//! Why a replica does not take rows of the feed: its constraints, partitions, types, triggers.

use super::matching::Target;
use crate::error::{Class, Failure};
use crate::pg::PgError;
use crate::pg::catalog::{IndexRole, Relation, UniqueIndex};

/// Does a row of the batch point to a row that is not there?
pub(super) fn is_foreign_key_violation(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<PgError>().is_some_and(is_kept_by_foreign_key))
}

/// The same of what the server said.
pub(super) fn is_kept_by_foreign_key(error: &PgError) -> bool {
    // ON DELETE RESTRICT has a code of its own from release 18 on.
    matches!(error.code(), Some("23503" | "23001"))
}

/// Rows that must give way to others of their natural key, and do not.
#[derive(Debug, thiserror::Error)]
#[error("{told}")]
pub(super) struct KeptRows {
    /// Their keys, and why.
    pub(super) told: String,
    /// What the server said.
    pub(super) source: PgError,
}

/// Rows that must give way to others of their natural key, and that the feed is not known to have written.
#[derive(Debug, thiserror::Error)]
#[error("{told}")]
pub(super) struct UnknownRows {
    /// The table, and their keys with those of the others.
    pub(super) told: String,
}

/// Does a row of the replica's own hold a natural key?
pub(super) fn is_of_unknown_rows(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<UnknownRows>())
}

/// The failure of rows that cannot give way.
pub(super) fn cannot_give_way(told: impl Into<String>) -> Failure {
    Failure::new(Class::Drift, told).meaning("nothing of it was applied").next(
        "delete the rows that point at them on the replica, or let them point elsewhere; or wait for (ask for) a day that \
         carries that row; or load a newer full dump",
    )
}

/// Would the replica's table hold two values where a unique index or an exclusion constraint allows one?
pub(super) fn is_unique_violation(error: &anyhow::Error) -> bool {
    let excluded = |error: &PgError| error.is_unique_violation() || error.code() == Some("23P01");
    error.chain().any(|cause| cause.downcast_ref::<PgError>().is_some_and(excluded))
}

/// Did the server refuse something for the sake of its rows, or does the replica not hold what it should? What is wrong
/// with a part counts, too: it will be found again. What would pass by waiting, and what somebody ended, does not.
pub(super) fn is_of_the_replica(error: &anyhow::Error) -> bool {
    let refused = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(PgError::Server(error)) if error.code == SERIALIZATION_FAILURE => true,
        Some(error @ PgError::Server(server)) => error.class() != Class::Transient && server.code != QUERY_CANCELED,
        _ => false,
    };
    let differs = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<Failure>().is_some_and(|failure| failure.class == Class::Integrity)
    };
    error.chain().any(|cause| refused(cause) || differs(cause))
}

/// Another transaction wrote a row that this one was to write.
const SERIALIZATION_FAILURE: &str = "40001";
/// Somebody cancelled the statement, or it took longer than they allow.
const QUERY_CANCELED: &str = "57014";

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

/// Slices of several days would be merged by different keys.
pub(super) fn no_common_key(target: &Target) -> Failure {
    Failure::new(Class::Drift, format!("{}: several revised days carry different keys of the replica", target.name))
        .meaning("nothing of these days was applied")
        .next("catch up day by day: --to the first of them, then to the next")
}

/// What lets rows exchange the values of a unique index of the replica, where the error names one that is no key.
fn natural_key(error: &anyhow::Error, relations: &[Relation]) -> Option<String> {
    let told = format!("{error:#}");
    relations.iter().find_map(|relation| {
        let is_named =
            |index: &&UniqueIndex| index.role == IndexRole::Other && told.contains(&format!("\"{}\"", index.name));
        let index = relation.unique_indexes.iter().find(is_named)?;
        let columns: Vec<String> = index.columns.iter().map(|part| format!("{:?}", part.name)).collect();
        Some(format!("natural-key = [{}] in the [[table]] of {}", columns.join(", "), relation.qualified_name()))
    })
}

/// Constraints, partitions and types of the replica that refuse rows of the feed. A unique index that is no key of the
/// merge is checked row by row, unless its constraint can be deferred.
pub(super) fn explain(error: anyhow::Error, relations: &[Relation]) -> anyhow::Error {
    if error.chain().any(|cause| cause.is::<KeptRows>()) {
        return cannot_give_way(format!("{error:#}")).into();
    }
    if is_of_unknown_rows(&error) {
        let told =
            format!("{error:#}: rows that the feed is not known to have written hold the natural key of its own");
        return Failure::new(Class::Drift, told)
            .meaning("nothing of it was applied: such rows stay unless --force says otherwise")
            .next("delete or change them on the replica, or let --force delete them")
            .into();
    }
    let code = error.chain().find_map(|cause| cause.downcast_ref::<PgError>()?.code()).unwrap_or_default();
    let (meaning, next) = match code {
        _ if is_unique_violation(&error) => (
            "a row of the replica's own holds the value, or rows exchanged theirs, or one was deleted and created again",
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
    let next = match natural_key(&error, relations).filter(|_| is_unique_violation(&error)) {
        Some(setting) => format!("{setting} lets the newer row have it; otherwise {next}"),
        None => next.to_owned(),
    };
    let class = if code == "53200" { Class::Transient } else { Class::Drift };
    Failure::new(class, format!("{error:#}")).meaning(format!("nothing of it was applied: {meaning}")).next(next).into()
}
