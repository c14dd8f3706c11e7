//! A feed behind a web server, to read only: https://, or http:// where the operator allows it. Any server of static
//! files will do.
//!
//! What is relied on, and what is not:
//!
//! * A GET per object or range. Nothing is listed, no HEAD, no cookie, no login.
//! * The bytes are verified above, by digests that the manifests name. Here it is only seen to that no answer is taken
//!   for another one: neither an error page for an object, nor one range for another, nor half of it for the whole.
//! * A version is the SHA-256 of the content, which is read whole in any case. An `ETag` would not do: nginx makes it
//!   of a file's size and the second it was written in, so two heads published within a second can share one. It is
//!   shown again, as `If-None-Match`, only where that second was over long ago: `answer::validator`.
//! * A range that was cut goes on where it was cut, by a new range without `If-Range`: objects but for the head are
//!   written once, servers of one address may disagree about their tags, and the digests find a mixture out.
//! * What may pass is tried again here, [`Patience`] says how long; callers need not.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::Utc;
use rand::RngExt;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, RANGE};
use reqwest::{Certificate, Client, Response, StatusCode, Url, redirect, retry};
use sha2::{Digest, Sha256};

use self::answer::{Answer, ByteRange, Refusal};
use super::{Reading, Store, StoreError, Swap, Upload, Validator, Version};
use crate::config::StoreConfig;
use crate::error::{Class, Failure};
use crate::layout::Key;

mod address;
mod answer;

/// How many redirects are followed for one request.
const REDIRECTS: u32 = 5;
/// What is allocated on a caller's word for a range; more only as it arrives.
const BUFFER_BYTES: u64 = 4 << 20;
const USER_AGENT: &str = concat!("pgslice/", env!("CARGO_PKG_VERSION"));

/// How long a server is waited for.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the next byte of an answer.
    pub idle: Duration,
    /// Before the second attempt; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest `Retry-After` that is waited for.
    pub longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            first_pause: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// A [`Store`] that every write is denied on.
pub struct HttpStore {
    client: Client,
    /// Without trailing slashes.
    url: String,
    patience: Patience,
    requests: AtomicU64,
    told_of_ignored_ranges: AtomicBool,
}

impl HttpStore {
    /// A store that reads below `url`. Nothing is asked of the server yet.
    ///
    /// Proxies are those of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`; this very machine is reached
    /// without one.
    ///
    /// # Errors
    /// Class Usage for an address that is none, that holds credentials, or that is http:// without leave; and for a
    /// `ca_file` that holds no certificates. No text of a URL that may hold credentials is repeated.
    pub fn open(url: &str, config: &StoreConfig) -> Result<HttpStore, Failure> {
        HttpStore::patient(url, config, Patience::default())
    }

    /// [`HttpStore::open`] with a patience of the caller's own.
    ///
    /// # Errors
    /// As [`HttpStore::open`].
    pub fn patient(url: &str, config: &StoreConfig, patience: Patience) -> Result<HttpStore, Failure> {
        let address = address::parse(url, config.allow_http)?;
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]))
            .connect_timeout(patience.connect)
            .read_timeout(patience.idle)
            // Both are done here: judged by our own rules, and counted.
            .redirect(redirect::Policy::none())
            .retry(retry::never());
        if address::is_loopback(&address) {
            builder = builder.no_proxy();
        }
        if let Some(path) = &config.ca_file {
            builder = builder.tls_certs_merge(certificates(path)?);
        }
        let client = builder.build().map_err(|error| match &config.ca_file {
            Some(path) => unusable(path, &root_cause(&error)),
            None => Failure::new(Class::Other, format!("TLS cannot be prepared: {}", root_cause(&error)))
                .next("install the system's certificates (ca-certificates), or name your own in store.ca-file"),
        })?;
        let url = address.as_str().trim_end_matches('/').to_owned();
        let (requests, told_of_ignored_ranges) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(HttpStore { client, url, patience, requests, told_of_ignored_ranges })
    }

    async fn read_once(&self, key: &Key, max_bytes: u64, seen: Option<&Validator>) -> Result<Reading, Setback> {
        let condition = seen.map(|Validator(e_tag)| (IF_NONE_MATCH, e_tag.clone()));
        let mut response = self.ask(key, condition).await?;
        if seen.is_some() && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Reading::Unchanged);
        }
        if self.judge(key, &response, None)? == Answer::Absent {
            return Ok(Reading::Absent);
        }
        let validator = answer::validator(response.headers());
        let above = || {
            let problem = format!("is larger than the {max_bytes} bytes that are read");
            Err(Setback::Settled(StoreError::Size { key: key.clone(), problem }))
        };
        if response.content_length().is_some_and(|announced| announced > max_bytes) {
            return above();
        }
        let mut content = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(key, &error))? {
            content.extend_from_slice(&chunk);
            if content.len() as u64 > max_bytes {
                return above();
            }
        }
        Ok(Reading::Content(content.freeze(), validator))
    }

    /// By the range of its first byte, which tells the size of the whole.
    async fn size_once(&self, key: &Key) -> Result<Option<u64>, Setback> {
        let (mut response, answer) = self.get(key, Some(ByteRange { first: 0, last: 0 })).await?;
        let told = match answer {
            Answer::Absent => return Ok(None),
            // An object without a first byte.
            Answer::TooShort(_) => Some(0),
            Answer::Part => answer::size_of_part(response.headers()),
            Answer::Whole => response.content_length(),
        };
        if answer == Answer::Whole && told.is_none() {
            let mut size = 0;
            while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(key, &error))? {
                size += chunk.len() as u64;
            }
            return Ok(Some(size));
        }
        let untold = || Failure::new(Class::Other, "the server does not tell the size of the object");
        told.map(Some).ok_or_else(|| {
            self.setback(key, Refusal::Final(untold().next("what answers there does not understand Range")))
        })
    }

    /// Goes on with the range of `length` bytes from `offset` on, of which `taken` is there: adds what comes, all of
    /// it or as much as came before the setback.
    async fn go_on(&self, key: &Key, offset: u64, length: u64, taken: &mut BytesMut) -> Result<(), Setback> {
        let Some(wanted) = ByteRange::left(offset, length, taken.len() as u64) else { return Ok(()) };
        let too_short = |size| Setback::Settled(too_short(key, offset, length, size));
        let (mut response, answer) = self.get(key, Some(wanted)).await?;
        let size = response.content_length();
        let mut skip = match answer {
            Answer::Part => 0,
            Answer::Whole if size.is_some_and(|size| size <= wanted.last) => return Err(too_short(size)),
            Answer::Whole => {
                self.tell_of_ignored_range(wanted, size);
                wanted.first
            }
            Answer::Absent => return Err(Setback::Settled(StoreError::NotFound(key.clone()))),
            Answer::TooShort(size) => return Err(too_short(size)),
        };
        let mut missing = length - taken.len() as u64;
        while missing > 0 {
            let Some(chunk) = response.chunk().await.map_err(|error| self.broken(key, &error))? else {
                // Without a length an object that ends and one that is cut look the same.
                return Err(match answer {
                    Answer::Whole => too_short(None),
                    _ => self.setback(key, Refusal::Later { failure: ended_early(), wait: None }),
                });
            };
            let dropped = usize::try_from(skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
            skip -= dropped as u64;
            let mut kept = chunk.slice(dropped..);
            kept.truncate(usize::try_from(missing).unwrap_or(usize::MAX));
            missing -= kept.len() as u64;
            taken.extend_from_slice(&kept);
        }
        Ok(())
    }

    /// Asks for `key`, or for a range of it, once, and judges the answer.
    async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<(Response, Answer), Setback> {
        let response = self.ask(key, range.map(|range| (RANGE, range.header()))).await?;
        let answer = self.judge(key, &response, range)?;
        Ok((response, answer))
    }

    fn judge(&self, key: &Key, response: &Response, range: Option<ByteRange>) -> Result<Answer, Setback> {
        answer::judge(response.status(), response.headers(), range, key, Utc::now())
            .map_err(|refusal| self.setback(key, refusal))
    }

    /// Asks for `key` once, with one header more, and follows redirects: the first answer that is none.
    async fn ask(&self, key: &Key, header: Option<(HeaderName, String)>) -> Result<Response, Setback> {
        let mut address: Url = self.object_url(key).parse().expect("an address and a key make an address");
        for _ in 0..=REDIRECTS {
            let mut request = self.client.get(address.clone());
            if let Some((name, value)) = &header {
                request = request.header(name, value);
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            let response = request.send().await.map_err(|error| self.broken(key, &error))?;
            let Some(location) = answer::elsewhere(response.status(), response.headers()) else {
                return Ok(response);
            };
            address =
                address::follow(&address, location).map_err(|failure| self.setback(key, Refusal::Final(failure)))?;
        }
        let what = format!("the server redirects more than {REDIRECTS} times");
        Err(self.setback(key, Refusal::Final(Failure::new(Class::Other, what).next("check store.url"))))
    }

    fn broken(&self, key: &Key, error: &reqwest::Error) -> Setback {
        self.setback(key, transport(error, &self.patience))
    }

    fn setback(&self, key: &Key, refusal: Refusal) -> Setback {
        let what = self.cannot("read", key);
        match refusal {
            Refusal::Later { failure, wait } => Setback::Passing { failure, wait },
            Refusal::Denied(failure) => Setback::Settled(StoreError::Denied { what, source: failure.into() }),
            Refusal::Final(failure) => Setback::Settled(StoreError::Other { what, source: failure.into() }),
        }
    }

    /// Returns when the request should be sent again; `failed` counts those that failed without progress.
    ///
    /// # Errors
    /// When it should not.
    async fn pause(&self, key: &Key, failed: u32, setback: Setback) -> Result<(), StoreError> {
        let (mut failure, wait) = match setback {
            Setback::Settled(error) => return Err(error),
            Setback::Passing { failure, wait } => (failure, wait),
        };
        let jitter = rand::rng().random_range(0.0..=1.0);
        let Some(pause) = answer::pause(&self.patience, failed, wait, jitter) else {
            let tried = if failed == 1 { String::new() } else { format!(" ({failed} attempts)") };
            let asked = wait.map(|wait| format!(", and asks to come back in {} s", wait.as_secs())).unwrap_or_default();
            failure.what = format!("{}{asked}{tried}", failure.what);
            return Err(StoreError::Transient { what: self.cannot("read", key), source: failure.into() });
        };
        tracing::debug!(url = self.object_url(key), failed, ?pause, "{}; trying again", failure.what);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn tell_of_ignored_range(&self, wanted: ByteRange, size: Option<u64>) {
        let whole = wanted.first == 0 && size == Some(wanted.last + 1);
        if !whole && !self.told_of_ignored_ranges.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the server at {} ignores Range: each range is downloaded from the start of its object",
                self.url
            );
        }
    }

    fn cannot(&self, action: &str, key: &Key) -> String {
        format!("cannot {action} {}", self.object_url(key))
    }

    fn denied(&self, action: &str, key: &Key) -> StoreError {
        read_only(self.cannot(action, key))
    }
}

#[async_trait]
impl Store for HttpStore {
    fn requests(&self) -> Option<u64> {
        Some(self.requests.load(Ordering::Relaxed))
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    async fn read(&self, key: &Key, max_bytes: u64) -> Result<Option<(Bytes, Version)>, StoreError> {
        Ok(match self.read_if_changed(key, max_bytes, None).await? {
            Reading::Content(content, _) => {
                let version = Version(hex::encode(Sha256::digest(&content)));
                Some((content, version))
            }
            Reading::Absent | Reading::Unchanged => None,
        })
    }

    async fn read_if_changed(
        &self,
        key: &Key,
        max_bytes: u64,
        seen: Option<&Validator>,
    ) -> Result<Reading, StoreError> {
        let mut failed = 0;
        loop {
            match self.read_once(key, max_bytes, seen).await {
                Ok(reading) => return Ok(reading),
                Err(setback) => {
                    failed += 1;
                    self.pause(key, failed, setback).await?;
                }
            }
        }
    }

    async fn read_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        if length == 0 {
            // HTTP has no empty range. That the object reaches as far as `offset` shows by the byte before it.
            return match self.read_range(key, offset.saturating_sub(1), 1).await {
                Ok(_) => Ok(Bytes::new()),
                Err(StoreError::Size { .. }) if offset == 0 => Ok(Bytes::new()),
                Err(error) => Err(error),
            };
        }
        if offset.checked_add(length).is_none() {
            return Err(too_short(key, offset, length, None));
        }
        let mut taken = BytesMut::with_capacity(usize::try_from(length.min(BUFFER_BYTES)).unwrap_or_default());
        let mut failed = 0;
        loop {
            let before = taken.len();
            match self.go_on(key, offset, length, &mut taken).await {
                Ok(()) => return Ok(taken.freeze()),
                Err(setback) => {
                    failed = if taken.len() > before { 1 } else { failed + 1 };
                    self.pause(key, failed, setback).await?;
                }
            }
        }
    }

    async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        let mut failed = 0;
        loop {
            match self.size_once(key).await {
                Ok(size) => return Ok(size),
                Err(setback) => {
                    failed += 1;
                    self.pause(key, failed, setback).await?;
                }
            }
        }
    }

    async fn create(&self, key: &Key, _content: Bytes) -> Result<(), StoreError> {
        Err(self.denied("create", key))
    }

    async fn swap(&self, key: &Key, _seen: Option<&Version>, _content: Bytes) -> Result<Swap, StoreError> {
        Err(self.denied("change", key))
    }

    async fn replace(&self, key: &Key, _content: Bytes) -> Result<(), StoreError> {
        Err(self.denied("replace", key))
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, StoreError> {
        Err(self.denied("write", key))
    }

    async fn delete(&self, _keys: &[Key]) -> Result<(), StoreError> {
        Err(read_only(format!("cannot delete objects of {}", self.url)))
    }
}

/// Why a request did not bring what it should have.
enum Setback {
    /// It never will.
    Settled(StoreError),
    /// It may yet.
    Passing { failure: Failure, wait: Option<Duration> },
}

fn read_only(what: String) -> StoreError {
    StoreError::Denied { what, source: anyhow!("an http(s) feed is read only") }
}

fn too_short(key: &Key, offset: u64, length: u64, size: Option<u64>) -> StoreError {
    let has = size.map_or("has".to_owned(), |size| format!("has {size} bytes,"));
    let problem = format!("{has} too few to read {length} from {offset} on");
    StoreError::Size { key: key.clone(), problem }
}

fn ended_early() -> Failure {
    Failure::new(Class::Transient, "the answer ended early")
}

/// What it means that no answer came, or that it broke off.
fn transport(error: &reqwest::Error, patience: &Patience) -> Refusal {
    let root = root_cause(error);
    // The words of rustls for a certificate that it does not accept; its types are not ours to name.
    if root.starts_with("invalid peer certificate") {
        return Refusal::Final(
            Failure::new(Class::Other, format!("the server's certificate is not accepted: {root}"))
                .meaning("nothing was read: whoever answers does not prove to be the one who was asked")
                .next("if an authority of your own signed it, name that one's certificate in store.ca-file; else check the address, and this machine's clock"),
        );
    }
    let invalid = |cause: &Cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData)
    };
    if error.is_connect() && causes(error).any(invalid) {
        return Refusal::Final(
            Failure::new(Class::Other, format!("the server does not speak TLS as it should: {root}"))
                .next("check the port of store.url, and whether it is one for https"),
        );
    }
    let what = match (error.is_connect(), error.is_timeout()) {
        (true, true) => format!("no connection within {} s", patience.connect.as_secs_f32()),
        (true, false) => format!("cannot connect: {root}"),
        (false, true) => format!("nothing came for {} s", patience.idle.as_secs_f32()),
        (false, false) => format!("the connection broke: {root}"),
    };
    Refusal::Later { failure: Failure::new(Class::Transient, what).next("run the same command again"), wait: None }
}

type Cause = dyn std::error::Error + 'static;

/// What caused the error, outermost first. The client's own words are left out, as they repeat the address.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &Cause> {
    std::iter::successors(std::error::Error::source(error), |cause| match cause.downcast_ref::<std::io::Error>() {
        // Its source is that of the error it wraps, not the latter itself.
        Some(error) => error.get_ref().map(|wrapped| wrapped as &Cause),
        None => cause.source(),
    })
}

fn root_cause(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| "the request could not be made".to_owned(), ToString::to_string)
}

/// The certificates in a PEM file.
fn certificates(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let pem = std::fs::read(path).map_err(|error| unusable(path, &error.to_string()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(unusable(path, "it holds no certificates")),
    }
}

fn unusable(path: &Path, problem: &str) -> Failure {
    Failure::new(Class::Usage, format!("store.ca-file {} cannot be used: {problem}", path.display()))
        .meaning("nothing was asked of the server")
        .next("it must be a file of certificates in PEM form (-----BEGIN CERTIFICATE-----)")
}
