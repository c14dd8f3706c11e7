//! The columns of a slice against those of the replica's table.

use super::{Addition, Drift, LeftOut, Misfit, Terms, ground};
use crate::catchup::printable::is_printable;
use crate::catchup::widening;
use crate::config::NewColumns;
use crate::manifest::{Column, Slice};
use crate::pg::catalog::{CatalogColumn, Relation};
use crate::pg::{quote_identifier, quote_qualified};

/// The longest identifier that PostgreSQL keeps whole, in bytes.
const MAX_IDENTIFIER_BYTES: usize = 63;

/// What became of a slice's columns.
pub(super) struct Fit {
    /// Those that are written.
    pub(super) columns: Vec<String>,
    /// Those that are not.
    pub(super) left_out: Vec<LeftOut>,
    /// Those that no UPDATE can change.
    pub(super) fixed: Vec<String>,
    /// Those that do not fit.
    pub(super) misfit: Misfit,
}

/// Judges the columns of a slice, which is under the replica's names.
pub(super) fn fit(slice: &Slice, relation: &Relation, terms: &Terms<'_>) -> Fit {
    let mut fit = Fit { columns: Vec::new(), left_out: Vec::new(), fixed: Vec::new(), misfit: Misfit::default() };
    for (place, column) in slice.columns.iter().enumerate() {
        let Some(own) = relation.column(&column.name) else {
            let is_time = slice.time.as_ref().is_some_and(|time| time.column == column.name);
            if !is_time && !terms.span.latest.contains(&column.name) {
                fit.left_out.push(LeftOut { place, name: column.name.clone() });
                continue;
            }
            match missing(slice, column, relation, terms) {
                Ok(addition) => fit.misfit.additions.push(addition),
                Err(drift) => fit.misfit.drifts.push(drift),
            }
            continue;
        };
        fit.columns.push(column.name.clone());
        if own.identity_always {
            fit.fixed.push(column.name.clone());
        }
        fit.misfit.drifts.extend(problem(own, column, slice, relation, terms));
    }
    fit
}

/// What is wrong with a column that both sides have.
fn problem(own: &CatalogColumn, feed: &Column, slice: &Slice, relation: &Relation, terms: &Terms<'_>) -> Option<Drift> {
    let drift = |problem: String, mend: Vec<String>| Drift { table: relation.qualified_name(), problem, mend };
    let name = &own.column.name;
    if own.generated {
        return Some(drift(
            format!("column {name:?} is generated on the replica, but published by the feed"),
            vec![format!("{} drop expression", alter_column(relation, name))],
        ));
    }
    // Where days carry it in types of which none takes the other, only text takes all of them.
    // A time column cannot be text.
    let is_time = slice.time.as_ref().is_some_and(|time| time.column == *name);
    let widest = match terms.span.widest.get(name) {
        Some(None) if is_time => Some(Some(feed.clone())),
        widest => widest.cloned(),
    };
    let only_text = matches!(widest, Some(None));
    // What the replica has no type for is not taken for anything else.
    let is_known = terms.spelling.of(&feed.type_of()).is_some();
    let takes_text = only_text && is_known && widening::takes_text(&own.column, slice.format);
    if takes_text || widening::takes(&own.column, feed, slice.format) {
        // Values of the same type, and not of a wider one.
        let is_same = own.column.type_schema == feed.type_schema && own.column.type_name == feed.type_name;
        let (problem, mend) = ground::problem(own, feed, terms.spelling).filter(|_| is_same)?;
        return Some(drift(format!("column {name:?}: {problem}"), mend));
    }
    let words = |column: &Column| match &column.made_of.base {
        Some(base) => {
            let base = terms.spelling.of(base).unwrap_or(&base.type_name);
            format!("{} over {base}", terms.spelling.words(column))
        }
        None => terms.spelling.words(column),
    };
    let is_same_name = own.type_text == terms.spelling.words(feed);
    let own_words = if is_same_name { words(&own.column) } else { own.type_text.clone() };
    let feed_words = if is_same_name { words(feed) } else { terms.spelling.words(feed) };
    let wanted = match &widest {
        Some(None) => Some(("text".to_owned(), true)),
        Some(Some(widest)) => {
            // A domain of that name is over another type here: its values go into a column of what it is over.
            let differs = is_same_name && widest.made_of.base != own.column.made_of.base;
            let name = widest.made_of.base.clone().filter(|_| differs).unwrap_or_else(|| widest.type_of());
            let by_itself = differs || widening::is_cast_by_itself(&own.column, widest);
            terms.spelling.of(&name).map(|text| (text.to_owned(), by_itself))
        }
        None => None,
    };
    // A default is cast by itself, or it is in the way: what is told of the values does not hold for it.
    let goes = wanted.as_ref().is_some_and(|(_, by_itself)| !by_itself) && own.has_default && !own.identity_always;
    let statement = wanted.map(|(text, by_itself)| {
        let column = quote_identifier(name);
        let using = if by_itself { String::new() } else { format!(" using {column}::text::{text}") };
        let default = if goes { format!(" drop default, alter column {column}") } else { String::new() };
        format!("{}{default} type {text}{using}", alter_column(relation, name))
    });
    let default = if goes { "; its default goes with the old type, so set it again if it is needed" } else { "" };
    let lacks = if statement.is_none() { ", a type that the replica does not have" } else { "" };
    let only_text =
        if only_text { "; other days carry it in yet another type, and only text takes them all" } else { "" };
    Some(drift(
        format!(
            "column {name:?} is {own_words} on the replica and {feed_words} in the feed{lacks}{only_text}{default}"
        ),
        statement.into_iter().collect(),
    ))
}

/// A column that the replica's table lacks: what adds it.
fn missing(slice: &Slice, column: &Column, relation: &Relation, terms: &Terms<'_>) -> Result<Addition, Drift> {
    let Column { name, nullable, .. } = column;
    // The type that takes what all days carry.
    let widest = match terms.span.widest.get(name) {
        Some(Some(widest)) => widest,
        _ => column,
    };
    let known = terms.spelling.of(&widest.type_of()).filter(|_| can_be_a_name(name));
    let statement = known.map(|type_text| {
        let table = quote_qualified(&relation.schema, &relation.name);
        format!("alter table {table} add column {} {type_text}", quote_identifier(name))
    });
    match (known, statement) {
        (Some(type_text), Some(statement)) if terms.new_columns == NewColumns::Add => Ok(Addition {
            oid: relation.oid,
            table: relation.qualified_name(),
            column: Column { nullable: *nullable, ..widest.clone() },
            type_text: type_text.to_owned(),
            statement,
        }),
        (_, statement) => {
            let unknown = if statement.is_none() { ", a type that the replica does not have" } else { "" };
            let not_null =
                if *nullable { "" } else { " (NOT NULL on the source: it may be NULL here, as older rows lack it)" };
            Err(Drift {
                table: relation.qualified_name(),
                problem: format!(
                    "the replica has no column {name:?} ({}){unknown}{not_null}{}",
                    terms.spelling.words(column),
                    renamed_hint(slice, column, relation, terms)
                ),
                mend: statement.into_iter().collect(),
            })
        }
    }
}

/// Could a column of the replica be this one under its earlier name? It takes its values and is not carried, and was
/// until now; or nothing is known of what was, as at first contact.
fn renamed_hint(slice: &Slice, column: &Column, relation: &Relation, terms: &Terms<'_>) -> String {
    let is_like_it = |own: &&CatalogColumn| {
        let is_carried = slice.columns.iter().any(|other| other.name == own.column.name);
        !is_carried && !own.generated && widening::takes(&own.column, column, slice.format)
    };
    let like_it: Vec<&CatalogColumn> = relation.columns.iter().filter(is_like_it).collect();
    let was_carried = |own: &&&CatalogColumn| terms.held.columns.contains(&own.column.name);
    let carried: Vec<&CatalogColumn> = like_it.iter().filter(was_carried).copied().collect();
    match if carried.is_empty() { &like_it[..] } else { &carried[..] } {
        [own] if is_printable(&column.name) => {
            let (old, new) = (&own.column.name, &column.name);
            let table = quote_qualified(&relation.schema, &relation.name);
            format!(
                "; if it is {old:?} under a new name: alter table {table} rename column {} to {}, and in its [[table]] \
                 rename = {{ {old:?} = {new:?} }}",
                quote_identifier(old),
                quote_identifier(new)
            )
        }
        _ => String::new(),
    }
}

/// A column that the feed carried until now.
pub(super) fn dropped(own: &CatalogColumn, relation: &Relation) -> Drift {
    let name = &own.column.name;
    let table = quote_qualified(&relation.schema, &relation.name);
    let column = quote_identifier(name);
    // What is left of the name makes the new one fit.
    let end = (0..=name.len().min(MAX_IDENTIFIER_BYTES - "old_".len())).rev().find(|end| name.is_char_boundary(*end));
    let kept = quote_identifier(&format!("old_{}", &name[..end.unwrap_or(0)]));
    let not_null = if own.column.nullable || own.has_default {
        String::new()
    } else {
        format!("; alter table {table} alter column {kept} drop not null")
    };
    Drift::new(
        relation.qualified_name(),
        format!(
            "the feed no longer carries column {name:?}, whose values older days brought; drop it as the source did: \
             alter table {table} drop column {column}; or keep its values under another name: \
             alter table {table} rename column {column} to {kept}{not_null}"
        ),
    )
}

/// Can it be the name of a column?
pub(in crate::catchup) fn can_be_a_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_IDENTIFIER_BYTES && !name.contains('\0')
}

fn alter_column(relation: &Relation, name: &str) -> String {
    let table = quote_qualified(&relation.schema, &relation.name);
    format!("alter table {table} alter column {}", quote_identifier(name))
}
