//! Names of tables and columns as the configuration writes them: taken as written, never folded. A name with a dot or
//! a double quote in it stands between double quotes, its own doubled: `"we.ird"."Ta""ble"`.

use super::Reference;

/// The longest identifier of a PostgreSQL server as it is usually built (NAMEDATALEN − 1).
const MAX_NAME_BYTES: usize = 63;
/// The schema of a table that is named without one.
const DEFAULT_SCHEMA: &str = "public";

/// The schema and name of `table` or `schema.table`.
pub(super) fn table(text: &str) -> Result<(String, String), String> {
    let mut cursor = Cursor(text);
    let first = cursor.name(&['.'])?;
    if !cursor.take('.') {
        cursor.end()?;
        return Ok((DEFAULT_SCHEMA.to_owned(), first));
    }
    let second = cursor.name(&['.'])?;
    if cursor.take('.') {
        return Err("has too many parts: a table is named \"table\" or \"schema.table\"".to_owned());
    }
    cursor.end()?;
    Ok((first, second))
}

/// The name of one column.
pub(super) fn column(text: &str) -> Result<String, String> {
    let mut cursor = Cursor(text);
    let name = cursor.name(&['.'])?;
    if cursor.take('.') {
        return Err("must be one column's name; if it contains a dot, write it between double quotes".to_owned());
    }
    cursor.end()?;
    Ok(name)
}

/// The columns of `table.column`, `schema.table.column`, `table.(a, b)` or `schema.table.(a, b)`.
pub(super) fn reference(text: &str) -> Result<Reference, String> {
    const SHAPE: &str = "must name a table and its column, such as \"messages.user_id\", or \"messages.(a, b)\" for a \
                         key of several columns";
    let mut cursor = Cursor(text);
    let mut names = vec![cursor.name(&['.'])?];
    let columns = loop {
        if !cursor.take('.') {
            cursor.end()?;
            break names.pop().into_iter().collect();
        }
        if cursor.take('(') {
            break cursor.list()?;
        }
        names.push(cursor.name(&['.'])?);
    };
    let mut names = names.into_iter();
    match (names.next(), names.next(), names.next()) {
        (Some(table), None, None) => Ok(Reference { schema: DEFAULT_SCHEMA.to_owned(), table, columns }),
        (Some(schema), Some(table), None) => Ok(Reference { schema, table, columns }),
        _ => Err(SHAPE.to_owned()),
    }
}

/// What is left to read.
struct Cursor<'t>(&'t str);

impl Cursor<'_> {
    fn take(&mut self, mark: char) -> bool {
        self.0.strip_prefix(mark).map(|rest| self.0 = rest).is_some()
    }

    fn end(&self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("has text that belongs to no name: {:?}", self.0)) }
    }

    /// One name: between double quotes, or up to one of `ends`.
    fn name(&mut self, ends: &[char]) -> Result<String, String> {
        if self.take('"') {
            return self.quoted();
        }
        let (bare, rest) = self.0.split_at(self.0.find(ends).unwrap_or(self.0.len()));
        self.0 = rest;
        if bare.contains('"') {
            return Err("a name that contains a double quote is written between double quotes, its own doubled".into());
        }
        if bare.trim() != bare {
            return Err(format!("a name that begins or ends with a space needs double quotes: {bare:?}"));
        }
        checked(bare.to_owned())
    }

    /// The rest of a name whose opening quote was taken.
    fn quoted(&mut self) -> Result<String, String> {
        let mut name = String::new();
        while let Some((piece, rest)) = self.0.split_once('"') {
            name.push_str(piece);
            self.0 = rest;
            if !self.take('"') {
                return checked(name);
            }
            name.push('"');
        }
        Err("has a double quote that is not closed".to_owned())
    }

    /// The rest of `(a, b)`, whose opening parenthesis was taken; nothing may follow it.
    fn list(&mut self) -> Result<Vec<String>, String> {
        let mut columns = Vec::new();
        loop {
            self.0 = self.0.trim_start();
            // A name without quotes may be followed by spaces, which are not part of it.
            let end = self.0.find([',', ')']).filter(|_| !self.0.starts_with('"'));
            let name = match end.map(|end| self.0.split_at(end)) {
                Some((bare, rest)) => {
                    self.0 = rest;
                    column(bare.trim_end())?
                }
                None => self.name(&[])?,
            };
            if columns.contains(&name) {
                return Err(format!("names the column {name:?} twice"));
            }
            columns.push(name);
            self.0 = self.0.trim_start();
            if self.take(')') {
                self.end()?;
                return Ok(columns);
            }
            if !self.take(',') {
                return Err("has a parenthesis that is not closed".to_owned());
            }
        }
    }
}

fn checked(name: String) -> Result<String, String> {
    if name.is_empty() {
        return Err("has an empty name in it".to_owned());
    }
    if name.contains('\0') {
        return Err("has a NUL character in a name, which PostgreSQL does not allow".to_owned());
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("has a name of {} bytes; PostgreSQL allows {MAX_NAME_BYTES}", name.len()));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(schema: &str, table: &str) -> (String, String) {
        (schema.to_owned(), table.to_owned())
    }

    #[test]
    fn tables_are_taken_as_written() {
        for (text, name) in [
            ("messages", pair("public", "messages")),
            ("Messages", pair("public", "Messages")),
            ("app.Users", pair("app", "Users")),
            ("my table", pair("public", "my table")),
            (r#""we.ird"."Ta""ble""#, pair("we.ird", "Ta\"ble")),
            (r#""a.b""#, pair("public", "a.b")),
            (r#"app."x""#, pair("app", "x")),
            (r#"" padded ""#, pair("public", " padded ")),
        ] {
            assert_eq!(table(text), Ok(name), "{text}");
        }
    }

    #[test]
    fn names_that_are_not_names_are_refused() {
        let long = "ü".repeat(32);
        for text in [
            "", ".", "a.", ".a", "a..b", "a.b.c", "\"a", "\"a\"b", "a\"b", "\"\"", "a. b", "a ", "a\0b", "\"a\"\"",
            &long,
        ] {
            assert!(table(text).is_err(), "{text:?}");
        }
        assert!(table(&"a".repeat(63)).is_ok());
        assert!(column("a.b").is_err());
        assert_eq!(column("\"a.b\""), Ok("a.b".to_owned()));
    }

    #[test]
    fn references_name_one_column_or_several() {
        let reference_of = |schema: &str, table: &str, columns: &[&str]| Reference {
            schema: schema.to_owned(),
            table: table.to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        };
        for (text, expected) in [
            ("messages.user_id", reference_of("public", "messages", &["user_id"])),
            ("app.messages.user_id", reference_of("app", "messages", &["user_id"])),
            ("messages.(a)", reference_of("public", "messages", &["a"])),
            ("messages.(a, b)", reference_of("public", "messages", &["a", "b"])),
            ("app.messages.( a ,b )", reference_of("app", "messages", &["a", "b"])),
            (r#"m.("a, b" , ")", "c.d")"#, reference_of("public", "m", &["a, b", ")", "c.d"])),
            (r#""x.y"."m"."c""d""#, reference_of("x.y", "m", &["c\"d"])),
        ] {
            assert_eq!(reference(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn references_that_are_not_references_are_refused() {
        for text in [
            "",
            "user_id",
            "(a)",
            "a.b.c.d",
            "a.b.c.(d)",
            "m.()",
            "m.(a",
            "m.(a,)",
            "m.(a)b",
            "m.(a).b",
            "m.(a, a)",
            "m.(a b.c)",
            "m.(\"a",
            "m.(\"a\" b)",
            "m.",
        ] {
            assert!(reference(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_identifier_can_be_written(schema in "[^\0]{1,15}", name in "[^\0]{1,15}", columns in prop::collection::hash_set("[^\0]{1,15}", 1..4)) {
            let quote = crate::pg::quote_identifier;
            let columns: Vec<String> = columns.into_iter().collect();
            let list: Vec<String> = columns.iter().map(|column| quote(column)).collect();
            let text = format!("{}.{}.({})", quote(&schema), quote(&name), list.join(", "));
            prop_assert_eq!(reference(&text), Ok(Reference { schema, table: name, columns }));
        }

        #[test]
        fn no_text_is_too_odd_to_be_judged(text in "[a(),.\" é]{0,12}") {
            let _ = table(&text);
            let _ = reference(&text);
        }
    }
}
