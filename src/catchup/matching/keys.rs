//! By which columns rows of a slice are told apart on the replica.

use super::{Drift, LeftOut};
use crate::manifest::Slice;
use crate::pg::catalog::{IndexRole, KeyColumn, Relation, UniqueKey};
use crate::pg::{quote_identifier, quote_qualified};

/// The key to merge by: the feed's own if the replica has a unique index over it, else one of the replica's with more
/// columns, else one with fewer, as tables have that are partitioned on the source only. Where the feed states no key,
/// the replica's first one that it carries. Empty where the replica has none.
///
/// # Errors
/// [`Drift`] when every key of the replica could take two rows of the feed for one: it is over other columns, or over
/// fewer, and the feed's key was another one in the days that are held.
pub(super) fn key(
    slice: &Slice,
    relation: &Relation,
    left_out: &[LeftOut],
    held: &[String],
) -> Result<UniqueKey, Drift> {
    let is_left_out = |place: usize| left_out.iter().any(|left| left.place == place);
    let carries = |part: &KeyColumn| {
        let place = slice.columns.iter().position(|column| column.name == part.name);
        place.is_some_and(|place| !is_left_out(place))
    };
    let carried: Vec<&UniqueKey> = relation.keys.iter().filter(|key| key.iter().all(carries)).collect();
    let has = |key: &UniqueKey, name: &String| key.iter().any(|part| part.name == *name);
    let tells_apart = |key: &&&UniqueKey| slice.key.iter().all(|name| has(key, name));
    let is_part = |key: &&&UniqueKey| key.iter().all(|part| slice.key.contains(&part.name));
    let is_unchanged =
        held.is_empty() || (held.len() == slice.key.len() && held.iter().all(|name| slice.key.contains(name)));
    let stated = carried.iter().find(|key| key.len() == slice.key.len() && tells_apart(key));
    let finer = stated.or_else(|| carried.iter().find(tells_apart));
    match finer.or_else(|| carried.iter().find(is_part).filter(|_| is_unchanged)) {
        Some(key) => Ok((*key).clone()),
        None if carried.is_empty() => Ok(UniqueKey::new()),
        None => Err(changed(slice, relation, &carried)),
    }
}

/// The replica's keys take rows for one that the feed tells apart.
fn changed(slice: &Slice, relation: &Relation, carried: &[&UniqueKey]) -> Drift {
    let own: Vec<String> =
        carried.iter().map(|key| in_parentheses(key.iter().map(|part| part.name.as_str()))).collect();
    let feeds = in_parentheses(slice.key.iter().map(String::as_str));
    let primary = relation.unique_indexes.iter().find(|index| index.role == IndexRole::Primary);
    let dropped =
        primary.map(|index| format!("drop constraint {}, ", quote_identifier(&index.name))).unwrap_or_default();
    let table = quote_qualified(&relation.schema, &relation.name);
    let pointing = primary.map(|index| index.foreign_keys.as_slice()).unwrap_or_default();
    let goes = if pointing.is_empty() { "" } else { "; foreign keys that point at it have to go first" };
    let statement = format!("alter table {table} {dropped}add primary key {feeds}");
    Drift {
        table: relation.qualified_name(),
        problem: format!(
            "the feed's key is {feeds}, the replica's {}: rows that differ would be taken for one{goes}",
            own.join(" and ")
        ),
        mend: pointing.iter().map(|key| format!("alter table {key}")).chain([statement]).collect(),
    }
}

fn in_parentheses<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("({})", names.map(quote_identifier).collect::<Vec<_>>().join(", "))
}

/// The unique index over the columns of `natural-key`; empty where none is configured, or the slice does not carry all
/// of them.
///
/// # Errors
/// [`Drift`] when the replica has no such index.
pub(super) fn natural(columns: &[String], relation: &Relation, configured: &[String]) -> Result<UniqueKey, Drift> {
    if configured.is_empty() || !configured.iter().all(|name| columns.contains(name)) {
        return Ok(UniqueKey::new());
    }
    let is_over = |key: &UniqueKey| {
        key.len() == configured.len() && configured.iter().all(|name| key.iter().any(|part| part.name == *name))
    };
    let found = relation.unique_indexes.iter().find(|index| is_over(&index.columns));
    found.map(|index| index.columns.clone()).ok_or_else(|| Drift {
        table: relation.qualified_name(),
        problem: format!(
            "natural-key names {}, and the replica has no unique index over that",
            in_parentheses(configured.iter().map(String::as_str))
        ),
        mend: vec![format!(
            "create unique index on {} {}",
            quote_qualified(&relation.schema, &relation.name),
            in_parentheses(configured.iter().map(String::as_str))
        )],
    })
}
