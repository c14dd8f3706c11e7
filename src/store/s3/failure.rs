//! What a server's refusals and silences mean.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::error::{Class, Failure};
use crate::store::StoreError;

/// Words of a server that are repeated, at most.
const MAX_WORDS: usize = 300;

/// What is known of a request that failed.
#[derive(Debug)]
pub(super) struct Refusal {
    /// HTTP's status, if there was an answer.
    pub(super) status: Option<u16>,
    /// The server's name for the error; empty without one.
    pub(super) code: String,
    words: String,
    silence: Option<Silence>,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// The line or the server failed.
    Line,
    /// A certificate was not accepted.
    Certificate,
    /// Nothing was found to sign the request with.
    Credentials,
}

impl Refusal {
    pub(super) fn of<E>(error: &SdkError<E>) -> Refusal
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let metadata = error.as_service_error().map(ProvideErrorMetadata::meta);
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = metadata.and_then(|metadata| metadata.code()).unwrap_or_default().to_owned();
        let told = metadata.and_then(|metadata| metadata.message()).unwrap_or_default();
        let words = match (status, error) {
            (Some(_), SdkError::ServiceError(_)) => told.to_owned(),
            _ => causes(error),
        };
        let silence = match error {
            SdkError::ServiceError(_) | SdkError::ResponseError(_) => None,
            _ if words.contains("certificate") || words.contains("Certificate") => Some(Silence::Certificate),
            _ if words.to_lowercase().contains("credential") => Some(Silence::Credentials),
            _ => Some(Silence::Line),
        };
        Refusal { status, code, words: one_line(&words), silence }
    }

    /// An answer without what it is for.
    pub(super) fn of_answer(words: &str) -> Refusal {
        Refusal { status: Some(200), code: String::new(), words: words.to_owned(), silence: None }
    }

    /// The write was conditional, and its condition does not hold: the object is not what the caller saw.
    pub(super) fn is_unmet_condition(&self) -> bool {
        self.status == Some(412) || self.code == "PreconditionFailed"
    }

    /// Another conditional write of the object was under way: nothing was written, and the same may succeed now.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == Some(409)
    }

    pub(super) fn is_missing(&self) -> bool {
        self.status == Some(404) && self.code != "NoSuchBucket"
    }

    /// The object is not there, and it is the store that says so: a proxy on the way has no word for it.
    pub(super) fn names_missing_key(&self) -> bool {
        self.status == Some(404) && matches!(&*self.code, "NoSuchKey" | "NoSuchVersion")
    }

    /// The server refused: nothing was done.
    pub(super) fn is_definite(&self) -> bool {
        self.status.is_some_and(|status| (400..500).contains(&status) && status != 408)
    }

    /// The server does not know what the request asks for.
    pub(super) fn is_not_implemented(&self) -> bool {
        self.status == Some(501) || self.code == "NotImplemented"
    }

    /// The server does not take requests of that kind, or not from us, or found something wrong with this one; nothing was
    /// done. Gateways and policies may allow what does the same by another kind.
    pub(super) fn is_of_request(&self) -> bool {
        self.is_not_implemented()
            || matches!(self.status, Some(400 | 403 | 404 | 405 | 411 | 415))
                && !self.is_transient()
                && !self.is_misconfigured()
    }

    fn is_transient(&self) -> bool {
        const CODES: [&str; 6] = [
            "RequestTimeout",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "RequestLimitExceeded",
            "InternalError",
        ];
        match self.status {
            // An answer that cannot be read says no more than none. A 404 that names no key is not the store's.
            Some(200..300) => true,
            Some(404) => self.code.is_empty(),
            Some(status) => {
                (status >= 500 && status != 501) || [408, 409, 429].contains(&status) || CODES.contains(&&*self.code)
            }
            None => self.silence == Some(Silence::Line),
        }
    }

    fn is_denied(&self) -> bool {
        matches!(self.status, Some(401 | 403))
            || matches!(&*self.code, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired")
            || self.silence == Some(Silence::Credentials)
    }

    fn is_misconfigured(&self) -> bool {
        const CODES: [&str; 5] = [
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "InvalidBucketName",
            "NoSuchBucket",
            "PermanentRedirect",
        ];
        CODES.contains(&&*self.code) || self.silence == Some(Silence::Certificate)
    }

    /// The error of the store; `what` was attempted, and where.
    pub(super) fn into_error(self, what: String) -> StoreError {
        let (denied, transient) = (self.is_denied(), self.is_transient());
        let class = match (denied, transient) {
            (true, _) => Class::Permission,
            (false, true) => Class::Transient,
            (false, false) if self.is_misconfigured() => Class::Usage,
            (false, false) => Class::Other,
        };
        let mut failure = Failure::new(class, self.to_string());
        failure.next = self.next().map(str::to_owned);
        let source = failure.into();
        match (denied, transient) {
            (true, _) => StoreError::Denied { what, source },
            (false, true) => StoreError::Transient { what, source },
            (false, false) => StoreError::Other { what, source },
        }
    }

    fn next(&self) -> Option<&'static str> {
        Some(match (&*self.code, self.silence) {
            (_, Some(Silence::Credentials)) => {
                "give credentials as for the AWS command line: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, \
                 or the machine's role; a public feed is read by its https:// address without any"
            }
            (_, Some(Silence::Certificate)) => "name the certificates that are to be trusted in store.ca-file",
            ("InvalidAccessKeyId" | "SignatureDoesNotMatch", _) => {
                "check the access key, the secret key and the endpoint"
            }
            ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired", _) => {
                "the credentials have expired: get new ones"
            }
            ("RequestTimeTooSkewed", _) => "the clock of this machine is wrong: set it",
            ("NoSuchBucket" | "InvalidBucketName", _) => "create the bucket, or correct store.url and store.endpoint",
            ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _) => {
                "the bucket is in another region: correct store.region"
            }
            _ if self.is_denied() => {
                "a publisher needs s3:GetObject, s3:PutObject, s3:AbortMultipartUpload and (to \
                 prune) s3:DeleteObject on the prefix, a replica s3:GetObject; both s3:ListBucket on the bucket, without \
                 which what is missing is denied"
            }
            _ => return None,
        })
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = if self.code.is_empty() { "refused" } else { &self.code };
        match (self.status, self.words.is_empty()) {
            (Some(status), true) => write!(f, "{code} ({status})"),
            (Some(status), false) => write!(f, "{code} ({status}): {}", self.words),
            (None, _) => f.write_str(&self.words),
        }
    }
}

/// The causes of a silence, outermost first, each once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        if words.last().is_none_or(|before| !before.ends_with(&line)) {
            words.push(line);
        }
        next = cause.source();
    }
    if words.is_empty() { error.to_string() } else { words.join(": ") }
}

/// Words of a stranger, cut and without control characters.
fn one_line(words: &str) -> String {
    let printable = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = printable.take(MAX_WORDS).collect();
    if line.len() < words.len() && line.chars().count() == MAX_WORDS {
        line.push('…');
    }
    line
}
