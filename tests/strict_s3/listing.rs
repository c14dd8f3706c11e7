//! Pages of a listing. Source: S3 API, ListObjectsV2.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use s3s::{S3Result, s3_error};

/// One entry of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Key(String),
    /// A prefix that several keys have in common, up to and with the delimiter.
    CommonPrefix(String),
}

/// Where a page begins: behind an entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position(Option<Entry>);

impl Position {
    /// Behind a key.
    pub(crate) fn after(key: Option<&str>) -> Position {
        Position(key.map(|key| Entry::Key(key.to_owned())))
    }

    /// Where the page before ended. InvalidArgument for a token that was never given.
    pub(crate) fn from_token(token: &str) -> S3Result<Position> {
        let invalid = || s3_error!(InvalidArgument, "The continuation token provided is incorrect");
        let text = BASE64_URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(invalid)?;
        match text.split_at_checked(1) {
            Some(("k", key)) => Ok(Position(Some(Entry::Key(key.to_owned())))),
            Some(("p", prefix)) => Ok(Position(Some(Entry::CommonPrefix(prefix.to_owned())))),
            _ => Err(invalid()),
        }
    }

    fn is_before(&self, key: &str) -> bool {
        match &self.0 {
            None => true,
            Some(Entry::Key(last)) => key > last.as_str(),
            Some(Entry::CommonPrefix(last)) => key > last.as_str() && !key.starts_with(last),
        }
    }
}

/// A page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// The token for the next one, if there is more.
    pub(crate) next: Option<String>,
}

/// The page of at most `most` entries from `position` on; `keys` ascend.
pub(crate) fn page<'a>(
    keys: impl Iterator<Item = &'a String>,
    prefix: &str,
    delimiter: Option<&str>,
    position: &Position,
    most: usize,
) -> Page {
    let mut page = Page::default();
    for key in keys.filter(|key| key.starts_with(prefix) && position.is_before(key)) {
        let group = delimiter
            .filter(|delimiter| !delimiter.is_empty())
            .and_then(|delimiter| key[prefix.len()..].find(delimiter).map(|at| at + delimiter.len()))
            .map(|length| Entry::CommonPrefix(key[..prefix.len() + length].to_owned()));
        let entry = group.unwrap_or_else(|| Entry::Key(key.clone()));
        if page.entries.last() == Some(&entry) {
            continue;
        }
        if page.entries.len() >= most {
            page.next = page.entries.last().map(|last| {
                let text = match last {
                    Entry::Key(key) => format!("k{key}"),
                    Entry::CommonPrefix(prefix) => format!("p{prefix}"),
                };
                BASE64_URL_SAFE_NO_PAD.encode(text)
            });
            break;
        }
        page.entries.push(entry);
    }
    page
}
