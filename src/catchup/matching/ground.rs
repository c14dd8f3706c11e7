//! What the values of a column are made of: labels of enumerations, attributes of composite types.

use crate::catchup::printable::is_printable;
use crate::catchup::spelling::Spelling;
use crate::manifest::{Attribute, Column};
use crate::pg::catalog::CatalogColumn;
use crate::pg::{quote_identifier, quote_literal};

/// So many labels are told at once.
const MAX_LABELS: usize = 50;

/// What the type of the replica's column lacks of the feed's, and the statements that mend it. Nothing where the feed
/// does not say, as feeds of older versions do not.
pub(super) fn problem(own: &CatalogColumn, feed: &Column, spelling: &Spelling) -> Option<(String, Vec<String>)> {
    let ground = own.ground.as_ref()?;
    let (own_made, feeds) = (&own.column.made_of, &feed.made_of);
    if !feeds.labels.is_empty() && !own_made.labels.is_empty() {
        let missing = missing_labels(ground, &own_made.labels, &feeds.labels);
        let (labels, statements): (Vec<&String>, Vec<String>) = missing.into_iter().take(MAX_LABELS).unzip();
        let labels: Vec<String> = labels.iter().map(|label| format!("{label:?}")).collect();
        let noun = if labels.len() == 1 { "label" } else { "labels" };
        let renamed = renamed_hint(ground, &own_made.labels, &feeds.labels);
        let problem = format!("{ground} lacks the {noun} {} on the replica{renamed}", labels.join(", "));
        return (!labels.is_empty()).then_some((problem, statements));
    }
    if feeds.attributes.is_empty() || own_made.attributes.is_empty() || feeds.attributes == own_made.attributes {
        return None;
    }
    let list = |attributes: &[Attribute]| {
        let words = |attribute: &Attribute| {
            let known = spelling.of(&attribute.of).unwrap_or(&attribute.of.type_name);
            format!("{:?} {known}", attribute.name)
        };
        attributes.iter().map(words).collect::<Vec<_>>().join(", ")
    };
    let is_retyped = |own: &Attribute| feeds.attributes.iter().any(|new| new.name == own.name && new.of != own.of);
    let retyped = own_made.attributes.iter().any(is_retyped);
    // No type changes an attribute's type while a column is of it.
    let by_hand = if retyped {
        "; rename the type on the replica, create it anew as the source has it, and alter the columns that are of the old \
         one: alter column … type … using …"
    } else {
        ""
    };
    let problem = format!(
        "{ground} is ({}) on the replica and ({}) in the feed{by_hand}",
        list(&own_made.attributes),
        list(&feeds.attributes)
    );
    let statements = || attribute_statements(ground, &own_made.attributes, &feeds.attributes, spelling);
    Some((problem, if retyped { Vec::new() } else { statements() }))
}

/// Could a label that the feed lacks be one that the replica lacks, under its earlier name?
fn renamed_hint(ground: &str, own: &[String], feeds: &[String]) -> String {
    let lacking = |all: &[String], others: &[String]| -> Vec<String> {
        all.iter().filter(|label| !others.contains(label)).cloned().collect()
    };
    match (&lacking(own, feeds)[..], &lacking(feeds, own)[..]) {
        ([], _) | (_, []) => String::new(),
        ([old], [new]) if is_printable(new) => format!(
            "; if the source renamed {old:?}, run instead: alter type {ground} rename value {} to {}",
            quote_literal(old),
            quote_literal(new)
        ),
        (old, _) => {
            let old: Vec<String> = old.iter().take(MAX_LABELS).map(|label| format!("{label:?}")).collect();
            let old = old.join(", ");
            format!("; if the source renamed any of {old}: alter type {ground} rename value '…' to '…' instead")
        }
    }
}

/// Labels of the feed that the replica lacks, each with the statement that puts it behind the label before it.
fn missing_labels<'a>(ground: &str, own: &[String], feeds: &'a [String]) -> Vec<(&'a String, String)> {
    let place = |index: usize| match (index.checked_sub(1).and_then(|before| feeds.get(before)), own.first()) {
        (Some(before), _) => format!(" after {}", quote_literal(before)),
        (None, Some(first)) => format!(" before {}", quote_literal(first)),
        (None, None) => String::new(),
    };
    let missing = feeds.iter().enumerate().filter(|(_, label)| !own.contains(label));
    missing
        .map(|(index, label)| {
            (label, format!("alter type {ground} add value {}{}", quote_literal(label), place(index)))
        })
        .collect()
}

/// The statements that make one list of attributes of another: their order counts, and can be changed at its end only.
fn attribute_statements(ground: &str, own: &[Attribute], feeds: &[Attribute], spelling: &Spelling) -> Vec<String> {
    let shared = own.iter().zip(feeds).take_while(|(own, feeds)| own.name == feeds.name).count();
    let (gone, new) = (&own[shared..], &feeds[shared..]);
    if new.iter().any(|attribute| gone.iter().any(|old| old.name == attribute.name)) {
        return Vec::new();
    }
    let typed: Option<Vec<String>> = new
        .iter()
        .map(|feeds| {
            let name = quote_identifier(&feeds.name);
            Some(format!("alter type {ground} add attribute {name} {}", spelling.of(&feeds.of)?))
        })
        .collect();
    let dropped = gone.iter().map(|old| format!("alter type {ground} drop attribute {}", quote_identifier(&old.name)));
    // A type that the replica does not have is told of where a column is of it.
    typed.map(|typed| dropped.chain(typed).collect()).unwrap_or_default()
}
