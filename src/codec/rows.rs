//! Where rows begin and end in each slice format, and what lies around them in a part.
//!
//! | format | a row | before the rows of a part | after them |
//! |---|---|---|---|
//! | text | a line | | |
//! | csv | a line; line feeds between quotes are the row's own | the line of column names | |
//! | binary | a field count, then each field's length and bytes | the signature, no flags, no extension | a field count of -1 |
//!
//! Rows may come from anyone: nothing here trusts a length, and nothing is held but what was handed in.

use memchr::{memchr, memchr_iter, memchr2_iter};

use super::{RowsDigest, Tally};
use crate::manifest::{Column, SliceFormat};

/// What begins binary COPY data: the signature, flags of 0, and an extension of no bytes.
const BINARY_HEAD: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What ends it.
const BINARY_TAIL: [u8; 2] = (-1_i16).to_be_bytes();

/// The format of a slice whose columns are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFormat {
    format: SliceFormat,
    columns: usize,
    head: Vec<u8>,
}

/// Bytes that are not a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("row {row} {problem}")]
pub struct NotARow {
    /// Which, from 1.
    pub row: u64,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl RowFormat {
    /// `format` with these columns, in the order of the data.
    pub fn new(format: SliceFormat, columns: &[Column]) -> RowFormat {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        RowFormat::of(format, &names)
    }

    /// The same with the columns' names.
    pub fn of(format: SliceFormat, columns: &[impl AsRef<str>]) -> RowFormat {
        let head = match format {
            SliceFormat::Text => Vec::new(),
            SliceFormat::Csv => csv_head(columns),
            SliceFormat::Binary => BINARY_HEAD.to_vec(),
        };
        RowFormat { format, columns: columns.len(), head }
    }

    /// What a part begins with, in a frame of its own; empty for none.
    pub fn part_head(&self) -> &[u8] {
        &self.head
    }

    /// What a part ends with, in a frame of its own; empty for none.
    pub fn part_tail(&self) -> &[u8] {
        match self.format {
            SliceFormat::Text | SliceFormat::Csv => &[],
            SliceFormat::Binary => &BINARY_TAIL,
        }
    }

    /// What a server must be sent before the rows of a `COPY … FROM STDIN`.
    pub fn copy_head(&self) -> &[u8] {
        match self.format {
            // Columns are named in the statement: servers before 15 would skip a header unread.
            SliceFormat::Text | SliceFormat::Csv => &[],
            SliceFormat::Binary => &BINARY_HEAD,
        }
    }

    /// What a server must be sent after them.
    pub fn copy_tail(&self) -> &[u8] {
        self.part_tail()
    }

    /// Counts and digests whole rows.
    ///
    /// # Errors
    /// When `rows` does not consist of rows.
    pub fn tally(&self, rows: &[u8]) -> Result<Tally, NotARow> {
        let mut tally = Tally { rows: 0, raw_bytes: rows.len() as u64, digest: RowsDigest::default() };
        if self.format == SliceFormat::Text {
            let mut start = 0;
            for end in memchr_iter(b'\n', rows) {
                tally.digest.add(&rows[start..end]);
                tally.rows += 1;
                start = end + 1;
            }
            return if start == rows.len() {
                Ok(tally)
            } else {
                Err(NotARow { row: tally.rows + 1, problem: NO_LINE })
            };
        }
        let mut rest = rows;
        while !rest.is_empty() {
            let end = self.row_end(rest).map_err(|problem| NotARow { row: tally.rows + 1, problem })?;
            let (row, later) = rest.split_at(end);
            tally.digest.add(self.content(row));
            tally.rows += 1;
            rest = later;
        }
        Ok(tally)
    }

    /// The length of the row that `bytes` begins with, its line end included.
    fn row_end(&self, bytes: &[u8]) -> Result<usize, &'static str> {
        match self.format {
            SliceFormat::Text => memchr(b'\n', bytes).map(|end| end + 1).ok_or(NO_LINE),
            SliceFormat::Csv => csv_row_end(bytes).ok_or(CUT),
            SliceFormat::Binary => binary_row_end(bytes, self.columns),
        }
    }

    /// What the digest is of: a row without its line end.
    fn content<'r>(&self, row: &'r [u8]) -> &'r [u8] {
        match self.format {
            SliceFormat::Text | SliceFormat::Csv => row.strip_suffix(b"\n").unwrap_or(row),
            SliceFormat::Binary => row,
        }
    }
}

const NO_LINE: &str = "is not one line of COPY's text format";
const CUT: &str = "does not end";
const SEVERAL: &str = "came together with another one";

/// A quote opens and closes, also within a field, as PostgreSQL reads it; a doubled one does both.
fn csv_row_end(bytes: &[u8]) -> Option<usize> {
    let mut quoted = false;
    for place in memchr2_iter(b'"', b'\n', bytes) {
        if bytes[place] == b'"' {
            quoted = !quoted;
        } else if !quoted {
            return Some(place + 1);
        }
    }
    None
}

fn binary_row_end(bytes: &[u8], columns: usize) -> Result<usize, &'static str> {
    let (fields, mut rest) = bytes.split_first_chunk().ok_or(CUT)?;
    if usize::try_from(i16::from_be_bytes(*fields)) != Ok(columns) {
        return Err("has another number of fields than the slice has columns");
    }
    for _ in 0..columns {
        let (length, later) = rest.split_first_chunk().ok_or(CUT)?;
        rest = match i32::from_be_bytes(*length) {
            -1 => later, // NULL
            length => {
                let length = usize::try_from(length).map_err(|_| "has a field of a negative length")?;
                later.get(length..).ok_or(CUT)?
            }
        };
    }
    Ok(bytes.len() - rest.len())
}

/// The line of column names as PostgreSQL's `COPY … (FORMAT csv, HEADER)` writes it.
fn csv_head(columns: &[impl AsRef<str>]) -> Vec<u8> {
    let quoted = |name: &str| {
        // A line that is only `\.` would end the data for servers before 18.
        let ends_data = columns.len() == 1 && name == "\\.";
        if name.is_empty() || ends_data || name.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", name.replace('"', "\"\""))
        } else {
            name.to_owned()
        }
    };
    let names: Vec<String> = columns.iter().map(|name| quoted(name.as_ref())).collect();
    format!("{}\n", names.join(",")).into_bytes()
}

/// Takes the messages of a `COPY … TO STDOUT` apart: PostgreSQL sends a row in each. The header of binary data comes in
/// one message with the first row, or with the trailer where there is none.
#[derive(Debug)]
pub(super) struct Messages {
    format: RowFormat,
    stage: Stage,
    rows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The header is still to come.
    Head,
    Rows,
    /// The trailer came.
    Over,
}

impl Messages {
    pub(super) fn new(format: RowFormat) -> Messages {
        let stage = if format.format == SliceFormat::Binary { Stage::Head } else { Stage::Rows };
        Messages { format, stage, rows: 0 }
    }

    /// The row of a message, with its line end; `None` when it is a trailer.
    #[inline]
    pub(super) fn row<'m>(&mut self, message: &'m [u8]) -> Result<Option<&'m [u8]>, NotARow> {
        if self.format.format == SliceFormat::Text {
            self.rows += 1;
            return if message.ends_with(b"\n") { Ok(Some(message)) } else { Err(self.wrong(NO_LINE)) };
        }
        self.other_row(message)
    }

    fn other_row<'m>(&mut self, message: &'m [u8]) -> Result<Option<&'m [u8]>, NotARow> {
        let mut row = message;
        if self.format.format == SliceFormat::Binary {
            if self.stage == Stage::Head {
                row = row.strip_prefix(&BINARY_HEAD[..]).ok_or(NotARow { row: 1, problem: "follows no header" })?;
                self.stage = Stage::Rows;
            }
            if self.stage == Stage::Over {
                return Err(NotARow { row: self.rows + 1, problem: "follows the trailer" });
            }
            if row == BINARY_TAIL {
                self.stage = Stage::Over;
                return Ok(None);
            }
        }
        self.rows += 1;
        match self.format.row_end(row) {
            Ok(end) if end == row.len() => Ok(Some(row)),
            Ok(_) => Err(self.wrong(SEVERAL)),
            Err(problem) => Err(self.wrong(problem)),
        }
    }

    fn wrong(&self, problem: &'static str) -> NotARow {
        NotARow { row: self.rows, problem }
    }

    /// What of a row is digested.
    #[inline]
    pub(super) fn content<'r>(&self, row: &'r [u8]) -> &'r [u8] {
        self.format.content(row)
    }

    /// Holds the end of the messages against the format.
    pub(super) fn end(&self) -> Result<(), NotARow> {
        if self.format.format == SliceFormat::Binary && self.stage != Stage::Over {
            return Err(NotARow { row: self.rows + 1, problem: "and the trailer did not come" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
