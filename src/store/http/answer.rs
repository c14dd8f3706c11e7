//! What an answer means, judged by its status and headers before a byte of its body is read. Pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED, LOCATION, RETRY_AFTER,
};

use super::Patience;
use crate::error::{Class, Failure};
use crate::layout::{INDEX, Key};
use crate::store::Validator;

/// How often a request is sent, without progress in between, before its failure is believed.
const ATTEMPTS: u32 = 4;
/// How long an object must have been there unchanged before its `ETag` is relied on. Tags that are made of a file's
/// size and the second of its last change are shared by two contents of that second; and a file can be given its name
/// well after it was written.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(60);
/// The longest `ETag` that is kept, in bytes.
const MAX_E_TAG_BYTES: usize = 256;
/// The answers that send somewhere else.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Bytes of an object by the positions of the first and the last of them, as HTTP counts: never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteRange {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl ByteRange {
    /// What is left of `length` bytes from `offset` on after the first `taken` of them. `None` when nothing is, and
    /// when it ends beyond what can be counted.
    pub(super) fn left(offset: u64, length: u64, taken: u64) -> Option<ByteRange> {
        let end = offset.checked_add(length)?;
        let first = offset.checked_add(taken)?;
        (first < end).then(|| ByteRange { first, last: end - 1 })
    }

    /// The value of a `Range` header.
    pub(super) fn header(self) -> String {
        format!("bytes={}-{}", self.first, self.last)
    }
}

/// An answer that is of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The body is the object from its first byte on.
    Whole,
    /// The body is the range that was asked for.
    Part,
    /// There is no such object.
    Absent,
    /// The object ends before the range does; its size, if the server says it.
    TooShort(Option<u64>),
}

/// An answer that is of none.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The server does not show the object to us.
    Denied(Failure),
    /// The same request may succeed later; not before `wait` has passed, if the server names a time.
    Later {
        /// What the server said.
        failure: Failure,
        /// What it asks for.
        wait: Option<Duration>,
    },
    /// The same request will fail again.
    Final(Failure),
}

/// Where a redirect points: the `Location` as the server wrote it. `None` for every other answer.
pub(super) fn elsewhere(status: StatusCode, headers: &HeaderMap) -> Option<&str> {
    REDIRECTS.contains(&status.as_u16()).then(|| text(headers, &LOCATION))?
}

/// Judges an answer, no redirect, to a GET of `key`, of a range of it if `range` is given.
///
/// The encoding is not looked at: servers label stored `.zst` files `Content-Encoding: zstd`, though the body is the
/// file as it is stored. We ask for `identity` and decode nothing; a server that encodes all the same is found out by
/// the digests.
pub(super) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    range: Option<ByteRange>,
    key: &Key,
    now: DateTime<Utc>,
) -> Result<Answer, Refusal> {
    match (status.as_u16(), range) {
        (200 | 206, _) if is_web_page(headers) && key.file_name() != INDEX => Err(Refusal::Final(web_page())),
        (200, _) => Ok(Answer::Whole),
        (206, Some(range)) => judge_part(headers, range),
        (404 | 410, _) => Ok(Answer::Absent),
        (416, Some(_)) => Ok(Answer::TooShort(size_of_unsatisfied(headers))),
        (code, _) if REDIRECTS.contains(&code) => Err(Refusal::Final(answered(status, "and does not say where to"))),
        (401 | 403, _) => Err(Refusal::Denied(
            answered(status, "").next("check store.url; pgslice sends no login, the feed must be readable without one"),
        )),
        (407, _) => Err(Refusal::Denied(
            answered(status, "").next("the proxy wants a login: HTTPS_PROXY=http://user:password@host:port carries it"),
        )),
        // Network authentication required: the captive portal that says so.
        (511, _) => Err(Refusal::Final(
            answered(status, "").next("log in to the network you are in, then run the same command again"),
        )),
        (408 | 425 | 429 | 500..=599, _) => {
            let wait = text(headers, &RETRY_AFTER).and_then(|value| retry_after(value, now));
            let failure = answered(status, "").next("run the same command again later");
            Err(Refusal::Later { failure, wait })
        }
        _ => Err(Refusal::Final(
            answered(status, "which is no answer to the question for an object").next("check store.url"),
        )),
    }
}

fn judge_part(headers: &HeaderMap, asked: ByteRange) -> Result<Answer, Refusal> {
    match text(headers, &CONTENT_RANGE).and_then(content_range) {
        Some((first, last, size))
            if (first, last) == (asked.first, asked.last) && size.is_none_or(|size| size > last) =>
        {
            Ok(Answer::Part)
        }
        Some((first, last, Some(size)))
            if first == asked.first && last < asked.last && last.checked_add(1) == Some(size) =>
        {
            Ok(Answer::TooShort(Some(size)))
        }
        _ => {
            let what = format!("the server sent other bytes than those asked for ({}-{})", asked.first, asked.last);
            Err(Refusal::Final(
                Failure::new(Class::Other, what)
                    .meaning("they were not read")
                    .next("what answers there does not understand Range: check the proxies on the way"),
            ))
        }
    }
}

fn answered(status: StatusCode, remark: &str) -> Failure {
    let comma = if remark.is_empty() { "" } else { ", " };
    Failure::new(Class::Other, format!("the server answered {status}{comma}{remark}"))
}

fn web_page() -> Failure {
    let what = "answered with a web page, not with the object: a login page, a captive portal or a wrong url";
    Failure::new(Class::Other, what)
        .meaning("nothing of it was read")
        .next("open store.url in a browser, and look whether feed.json lies below it")
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_web_page(headers: &HeaderMap) -> bool {
    let media_type = text(headers, &CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    ["text/html", "application/xhtml+xml"].iter().any(|page| media_type.eq_ignore_ascii_case(page))
}

/// What to show the server the next time, from the headers of an answer with the whole object: its strong `ETag`, if
/// the server does not say itself that the object was changed shortly before it answered.
pub(super) fn validator(headers: &HeaderMap) -> Option<Validator> {
    let e_tag = text(headers, &ETAG)?.trim();
    if e_tag.len() > MAX_E_TAG_BYTES || e_tag.len() < 3 || !e_tag.starts_with('"') || !e_tag.ends_with('"') {
        return None;
    }
    if headers.contains_key(LAST_MODIFIED) {
        let instant = |name| text(headers, name).and_then(|value| DateTime::parse_from_rfc2822(value.trim()).ok());
        let (changed, answered) = (instant(&LAST_MODIFIED)?, instant(&DATE)?);
        if answered - changed < SETTLED_AFTER {
            return None;
        }
    }
    Some(Validator(e_tag.to_owned()))
}

/// First byte, last byte and size of `bytes 0-99/1000` or `bytes 0-99/*`.
fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, size) = in_bytes(value)?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let size = if size == "*" { None } else { Some(number(size)?) };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last, size))
}

/// The size that an answer with a part tells of the whole.
pub(super) fn size_of_part(headers: &HeaderMap) -> Option<u64> {
    content_range(text(headers, &CONTENT_RANGE)?)?.2
}

/// The size of `bytes */1000`.
fn size_of_unsatisfied(headers: &HeaderMap) -> Option<u64> {
    number(in_bytes(text(headers, &CONTENT_RANGE)?)?.strip_prefix("*/")?)
}

fn in_bytes(value: &str) -> Option<&str> {
    let (unit, rest) = value.trim().split_once(' ')?;
    unit.eq_ignore_ascii_case("bytes").then(|| rest.trim_start())
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The time that a `Retry-After` asks for: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Some(seconds) = number(value.trim()) {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(value.trim()).ok()?;
    // A date that has passed asks for nothing.
    Some((date.with_timezone(&Utc) - now).to_std().unwrap_or_default())
}

/// How long to wait after `failed` attempts without progress (1 or more): the pause doubles, and `jitter` (0 to 1) is
/// the share of its second half that is waited too, so that a thousand replicas do not come back at once. `None`: give
/// up, as often enough was tried, or the server asks for more time than a run should take.
pub(super) fn pause(patience: &Patience, failed: u32, asked: Option<Duration>, jitter: f64) -> Option<Duration> {
    if failed >= ATTEMPTS || asked.is_some_and(|asked| asked > patience.longest_wait) {
        return None;
    }
    let own = patience.first_pause * (1 << (failed - 1).min(16));
    Some(own.mul_f64(0.5 + jitter / 2.0).max(asked.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
