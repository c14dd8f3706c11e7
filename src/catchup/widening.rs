//! Which columns take the values of which types without losing anything. Pure.
//!
//! A column takes a type if what COPY writes of its values is read back as it was written, byte for byte: then the
//! rows keep their digest, and days from before and after a change of the type can be told from others alike.

use crate::manifest::{Column, SliceFormat};

/// What is added to a length to make the modifier of `varchar`.
const LENGTH_OFFSET: i32 = 4;

/// Does a column of the replica take what the feed writes of its own? It is of the same type, or of a wider one.
pub fn takes(replica: &Column, feed: &Column, format: SliceFormat) -> bool {
    let is_same_type = replica.type_schema == feed.type_schema && replica.type_name == feed.type_name;
    if is_same_type {
        let has_room = replica.typmod == feed.typmod || replica.typmod == -1 || is_wider_modifier(replica, feed);
        return has_room && same_ground(replica, feed);
    }
    // The values of a domain are those of what it is over.
    if feed.made_of.base.as_ref().is_some_and(|base| *base == replica.type_of()) {
        return true;
    }
    if replica.type_schema != "pg_catalog" || feed.type_schema != "pg_catalog" {
        return false;
    }
    match (feed.type_name.as_str(), replica.type_name.as_str()) {
        // Binary numbers of different size have different bytes.
        ("int2", "int4" | "int8") | ("int4", "int8") => format != SliceFormat::Binary,
        ("varchar", "text") => true,
        ("text", "varchar") => replica.typmod == -1,
        _ => false,
    }
}

/// Does a column of the replica take the text of any value?
pub fn takes_text(replica: &Column, format: SliceFormat) -> bool {
    replica.type_schema == "pg_catalog" && replica.type_name == "text" && format != SliceFormat::Binary
}

/// Two domains of one name may be over different types.
fn same_ground(replica: &Column, feed: &Column) -> bool {
    match (&replica.made_of.base, &feed.made_of.base) {
        (Some(own), Some(feeds)) => own == feeds,
        _ => true,
    }
}

fn is_wider_modifier(replica: &Column, feed: &Column) -> bool {
    let (own, feeds) = (replica.typmod, feed.typmod);
    if replica.type_schema != "pg_catalog" || own < 0 || feeds < 0 {
        return false;
    }
    match replica.type_name.as_str() {
        "varchar" | "varbit" | "timestamp" | "timestamptz" | "time" | "timetz" => own >= feeds,
        // Another scale writes other digits.
        "numeric" => {
            let (own, feeds) = (own - LENGTH_OFFSET, feeds - LENGTH_OFFSET);
            own & 0xffff == feeds & 0xffff && own >> 16 >= feeds >> 16
        }
        _ => false,
    }
}

/// Is a value of `from` assigned to a column of `to` without being told how? What PostgreSQL casts by itself when the
/// type of a column is altered.
pub fn is_cast_by_itself(from: &Column, to: &Column) -> bool {
    const NUMBERS: [&str; 6] = ["int2", "int4", "int8", "numeric", "float4", "float8"];
    const TEXTS: [&str; 3] = ["text", "varchar", "bpchar"];
    const TIMES: [&str; 3] = ["date", "timestamp", "timestamptz"];
    let built_in = |column: &Column| column.type_schema == "pg_catalog";
    let (from_name, to_name) = (from.type_name.as_str(), to.type_name.as_str());
    let both_among = |family: &[&str]| family.contains(&from_name) && family.contains(&to_name);
    (from.type_schema == to.type_schema && from_name == to_name)
        || (built_in(to) && TEXTS.contains(&to_name))
        || from.made_of.base.as_ref().is_some_and(|base| *base == to.type_of())
        || (built_in(from) && built_in(to) && (both_among(&NUMBERS) || both_among(&TIMES)))
}

#[cfg(test)]
mod tests;
