//! A TOML document as sections and fields. Each reports what is wrong with it at its own line, and the document
//! remembers which keys were asked for: every other key is unknown.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use toml::de::{DeTable, DeValue};

use super::Problem;

/// Names nearer to each other than this (Jaro-Winkler, 1 is equal) are taken for a slip of the pen.
const SIMILAR: f64 = 0.8;

/// The section of the keys that stand before the first `[section]`.
const TOP: &str = "";

/// How a section is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `[name]`, at most once.
    Single,
    /// `[[name]]`, any number of times.
    Repeated,
}

/// What was asked for in the sections of one name.
struct Known {
    shape: Shape,
    keys: BTreeSet<&'static str>,
}

/// One file, while it is read.
pub(super) struct Document<'t> {
    text: &'t str,
    root: &'t DeTable<'t>,
    known: RefCell<BTreeMap<&'static str, Known>>,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Document<'t> {
    /// The document that `text` was parsed to.
    pub(super) fn new(text: &'t str, root: &'t DeTable<'t>) -> Self {
        Document { text, root, known: RefCell::default(), problems: RefCell::default() }
    }

    /// The keys before the first section.
    pub(super) fn top(&self) -> Section<'_, 't> {
        self.declare(TOP, Shape::Single);
        Section { document: self, name: TOP, entries: Some(self.root), offset: 0 }
    }

    /// `[name]`; empty when the file has none.
    pub(super) fn section(&self, name: &'static str) -> Section<'_, 't> {
        self.declare(name, Shape::Single);
        let (offset, entries) = match self.root.get_key_value(name) {
            None => (0, None),
            Some((key, value)) => match value.get_ref() {
                DeValue::Table(entries) => (value.span().start, Some(entries)),
                other => {
                    self.refuse(key.span().start, name, format!("must be a section, [{name}], not {}", kind(other)));
                    (0, None)
                }
            },
        };
        Section { document: self, name, entries, offset }
    }

    /// Every `[[name]]`, in order; a problem if the file has none.
    pub(super) fn required_sections(&self, name: &'static str) -> Vec<Section<'_, 't>> {
        self.declare(name, Shape::Repeated);
        let Some((key, value)) = self.root.get_key_value(name) else {
            self.refuse(0, name, format!("is missing: write at least one [[{name}]]"));
            return Vec::new();
        };
        let shape = format!("must be a section in double brackets, [[{name}]]");
        let DeValue::Array(items) = value.get_ref() else {
            self.refuse(key.span().start, name, shape);
            return Vec::new();
        };
        if items.is_empty() {
            self.refuse(key.span().start, name, format!("is empty: write at least one [[{name}]]"));
        }
        let mut sections = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(entries) => {
                    let offset = item.span().start;
                    sections.push(Section { document: self, name, entries: Some(entries), offset });
                }
                _ => self.refuse(item.span().start, name, shape.clone()),
            }
        }
        sections
    }

    /// Records a problem with `key` at a byte of the text.
    pub(super) fn refuse(&self, offset: usize, key: impl Into<String>, message: impl Into<String>) {
        let problem = Problem { line: line_of(self.text, offset), key: key.into(), message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    /// The line, from 1, of a byte of the text.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        line_of(self.text, offset)
    }

    /// Every key that was asked for, with the section it belongs to.
    #[cfg(test)]
    pub(super) fn known_keys(&self) -> Vec<(&'static str, &'static str)> {
        let known = self.known.borrow();
        known.iter().flat_map(|(section, known)| known.keys.iter().map(|key| (*section, *key))).collect()
    }

    /// All problems in the order of their lines, those of unknown keys among them. Called when everything has been
    /// asked for.
    pub(super) fn finish(self) -> Vec<Problem> {
        self.refuse_unknown(TOP, self.root);
        for (key, value) in self.root {
            let Some((name, shape)) = self.known_section(key.get_ref()) else { continue };
            match (shape, value.get_ref()) {
                (Shape::Single, DeValue::Table(entries)) => self.refuse_unknown(name, entries),
                (Shape::Repeated, DeValue::Array(items)) => {
                    for entries in items.iter().filter_map(|item| item.get_ref().as_table()) {
                        self.refuse_unknown(name, entries);
                    }
                }
                // Of the wrong shape, and reported as such.
                _ => {}
            }
        }
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems
    }

    fn declare(&self, name: &'static str, shape: Shape) {
        self.known.borrow_mut().entry(name).or_insert_with(|| Known { shape, keys: BTreeSet::new() });
    }

    fn known_section(&self, name: &str) -> Option<(&'static str, Shape)> {
        let known = self.known.borrow();
        known.get_key_value(name).filter(|_| name != TOP).map(|(name, known)| (*name, known.shape))
    }

    fn refuse_unknown(&self, section: &'static str, entries: &DeTable<'_>) {
        for (key, value) in entries {
            let name: &str = key.get_ref();
            let taken = self.known.borrow().get(section).is_some_and(|known| known.keys.contains(name));
            if taken || (section == TOP && self.known_section(name).is_some()) {
                continue;
            }
            let what = if section == TOP && holds_keys(value.get_ref()) { "unknown section" } else { "unknown key" };
            let hint = self.suggestion(section, name).map(|hint| format!("; {hint}")).unwrap_or_default();
            self.refuse(key.span().start, key_path(section, name), format!("{what}{hint}"));
        }
    }

    /// What may have been meant by an unknown key: the same key of another section, else a similar one of this.
    fn suggestion(&self, section: &str, name: &str) -> Option<String> {
        let known = self.known.borrow();
        let written = name.to_lowercase().replace('_', "-");
        let homes: Vec<String> = known
            .iter()
            .filter(|(home, known)| **home != section && known.keys.contains(written.as_str()))
            .map(|(home, known)| match (*home, known.shape) {
                (TOP, _) => "the top of the file, before the first section".to_owned(),
                (home, Shape::Single) => format!("[{home}]"),
                (home, Shape::Repeated) => format!("[[{home}]]"),
            })
            .collect();
        let keys = known.get(section).into_iter().flat_map(|known| known.keys.iter().copied());
        let sections = known.keys().copied().filter(|home| section == TOP && *home != TOP);
        let similar = keys
            .chain(sections)
            .map(|candidate| (strsim::jaro_winkler(candidate, &written), candidate))
            .filter(|(similarity, _)| *similarity >= SIMILAR)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match similar {
            Some((similarity, candidate)) if homes.is_empty() || similarity >= 1.0 => {
                Some(format!("did you mean {candidate:?}?"))
            }
            _ if homes.is_empty() => None,
            _ => Some(format!("it belongs to {}", homes.join(" or "))),
        }
    }
}

/// The keys of one `[section]`, or of one of several `[[section]]`.
pub(super) struct Section<'d, 't> {
    document: &'d Document<'t>,
    name: &'static str,
    entries: Option<&'t DeTable<'t>>,
    offset: usize,
}

impl<'d, 't> Section<'d, 't> {
    /// The field of `key`, if the file has it. Asking makes the key known, so ask whatever the other fields say.
    pub(super) fn field(&self, key: &'static str) -> Option<Field<'d, 't>> {
        if let Some(known) = self.document.known.borrow_mut().get_mut(self.name) {
            known.keys.insert(key);
        }
        let (name, value) = self.entries?.get_key_value(key)?;
        let (path, offset) = (key_path(self.name, key), name.span().start);
        Some(Field { document: self.document, path, offset, value: value.get_ref() })
    }

    /// The field of `key`; a problem if the file has none.
    pub(super) fn required(&self, key: &'static str, example: &str) -> Option<Field<'d, 't>> {
        let field = self.field(key);
        if field.is_none() {
            self.document.refuse(self.offset, key_path(self.name, key), format!("is missing: write {example}"));
        }
        field
    }
}

/// One value, with the place it is written at.
#[derive(Clone)]
pub(super) struct Field<'d, 't> {
    document: &'d Document<'t>,
    path: String,
    offset: usize,
    value: &'t DeValue<'t>,
}

impl<'d, 't> Field<'d, 't> {
    /// Records a problem with this value.
    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.document.refuse(self.offset, self.path.clone(), message);
    }

    /// The line it is written at, from 1.
    pub(super) fn line(&self) -> usize {
        self.document.line_of(self.offset)
    }

    /// A text with something in it.
    pub(super) fn text(&self) -> Option<&'t str> {
        self.parsed("a text in quotes", |text| match text {
            _ if text.trim().is_empty() => Err("must not be empty"),
            _ if text.contains('\0') => Err("must not contain a NUL character"),
            _ => Ok(text),
        })
    }

    /// A text that `parse` understands. `wanted` says what is expected instead of a value of another type.
    pub(super) fn parsed<T, E: fmt::Display>(
        &self,
        wanted: &str,
        parse: impl FnOnce(&'t str) -> Result<T, E>,
    ) -> Option<T> {
        let DeValue::String(text) = self.value else {
            self.refuse_kind(wanted);
            return None;
        };
        parse(text).map_err(|refusal| self.refuse(refusal.to_string())).ok()
    }

    /// A whole number within `range`.
    pub(super) fn integer<T>(&self, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display,
    {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(written) = self.value else {
            self.refuse_kind(&wanted);
            return None;
        };
        let number =
            i64::from_str_radix(written.as_str(), written.radix()).ok().and_then(|number| number.try_into().ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.refuse(format!("must be {wanted}, not {}", shortened(&written.to_string())));
        }
        number
    }

    /// A number above 0 and up to 1.
    pub(super) fn fraction(&self) -> Option<f64> {
        const WANTED: &str = "a number above 0 and up to 1, such as 0.3";
        let written = match self.value {
            DeValue::Float(written) => written.as_str().to_owned(),
            DeValue::Integer(written) => written.to_string(),
            _ => {
                self.refuse_kind(WANTED);
                return None;
            }
        };
        let number = written.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= 1.0);
        if number.is_none() {
            self.refuse(format!("must be {WANTED}, not {}", shortened(&written)));
        }
        number
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let DeValue::Boolean(written) = self.value else {
            self.refuse_kind("true or false");
            return None;
        };
        Some(*written)
    }

    /// Names with a text each, in the order of the names.
    pub(super) fn pairs(&self, wanted: &str) -> Option<Vec<(&'t str, &'t str)>> {
        let DeValue::Table(entries) = self.value else {
            self.refuse_kind(wanted);
            return None;
        };
        let mut pairs = Vec::new();
        for (name, value) in entries {
            match value.get_ref() {
                DeValue::String(text) => pairs.push((name.get_ref().as_ref(), text.as_ref())),
                _ => self.refuse_kind(wanted),
            }
        }
        Some(pairs)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let wanted = words.join(" or ");
        self.parsed(&wanted, |text| {
            let choice = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
            choice.ok_or_else(|| format!("must be {wanted}, not {:?}", shortened(text)))
        })
    }

    /// The items of a list with something in it.
    pub(super) fn items(&self) -> Option<Vec<Field<'d, 't>>> {
        let DeValue::Array(items) = self.value else {
            self.refuse_kind("a list such as [\"id\"]");
            return None;
        };
        if items.is_empty() {
            self.refuse("must not be empty: name something or leave the key out");
            return None;
        }
        let item = |item: &'t toml::Spanned<DeValue<'t>>| Field {
            document: self.document,
            path: self.path.clone(),
            offset: item.span().start,
            value: item.get_ref(),
        };
        Some(items.iter().map(item).collect())
    }

    fn refuse_kind(&self, wanted: &str) {
        self.refuse(format!("must be {wanted}, not {}", kind(self.value)));
    }
}

/// The line, from 1, of the byte at `offset`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// A text of the file as a message repeats it.
pub(super) fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut short: String = text.chars().take(MAX_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn key_path(section: &str, key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let key = if key.bytes().all(bare) && !key.is_empty() { shortened(key) } else { format!("{:?}", shortened(key)) };
    if section == TOP { key } else { format!("{section}.{key}") }
}

fn holds_keys(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items.iter().any(|item| item.get_ref().is_table()),
        _ => false,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with decimals",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
