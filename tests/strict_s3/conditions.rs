//! Conditional requests. Source: S3 guide, "Add preconditions to S3 operations with conditional requests".

use s3s::dto::ETagCondition;
use s3s::{S3Error, S3Result, s3_error};

use crate::arguments::Dialect;
use crate::objects::StoredObject;

fn failed(condition: &str) -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold: {condition}")
}

/// What a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put,
    Complete,
}

/// What must be so at the moment of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteCondition {
    None,
    /// If-None-Match: *
    Absent,
    /// If-Match with the ETag, without quotes.
    Unchanged(String),
}

impl WriteCondition {
    /// Reads the headers. NotImplemented for what AWS does not take: another If-None-Match than `*`, If-Match with
    /// `*`, or both headers.
    pub(crate) fn read(
        if_none_match: Option<&ETagCondition>,
        if_match: Option<&ETagCondition>,
        write: Write,
        dialect: &Dialect,
    ) -> S3Result<WriteCondition> {
        let unsupported =
            || s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented");
        if dialect.refuse_conditions && (if_none_match.is_some() || if_match.is_some()) {
            return Err(unsupported());
        }
        let ignored = dialect.ignore_conditions_on_complete && write == Write::Complete;
        match (if_none_match, if_match) {
            (None, None) => Ok(WriteCondition::None),
            (Some(ETagCondition::Any), None) if ignored || dialect.ignore_if_none_match => Ok(WriteCondition::None),
            (Some(ETagCondition::Any), None) => Ok(WriteCondition::Absent),
            (None, Some(ETagCondition::ETag(_))) if ignored || dialect.ignore_if_match => Ok(WriteCondition::None),
            (None, Some(ETagCondition::ETag(_))) if dialect.never_match => Ok(WriteCondition::Unchanged(String::new())),
            (None, Some(ETagCondition::ETag(tag))) => Ok(WriteCondition::Unchanged(tag.value().to_owned())),
            _ => Err(unsupported()),
        }
    }

    /// PreconditionFailed, or NoSuchKey for If-Match on a key that is not there.
    pub(crate) fn check(&self, current: Option<&StoredObject>) -> S3Result<()> {
        match (self, current) {
            (WriteCondition::Absent, Some(_)) => Err(failed("If-None-Match")),
            (WriteCondition::Unchanged(_), None) => Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            (WriteCondition::Unchanged(tag), Some(object)) if object.e_tag != *tag => Err(failed("If-Match")),
            _ => Ok(()),
        }
    }
}

/// If-Match and If-None-Match of GET and HEAD: PreconditionFailed, or NotModified with the ETag. Source: S3 API,
/// GetObject.
pub(crate) fn check_read(
    if_none_match: Option<&ETagCondition>,
    if_match: Option<&ETagCondition>,
    object: &StoredObject,
) -> S3Result<()> {
    let holds = |condition: &ETagCondition| condition.as_etag().is_none_or(|tag| tag.value() == object.e_tag);
    if if_match.is_some_and(|condition| !holds(condition)) {
        return Err(failed("If-Match"));
    }
    if if_none_match.is_some_and(holds) {
        let mut error = s3_error!(NotModified);
        let tag = object.tag().to_http_header().expect("an ETag is hexadecimal");
        error.set_headers([(hyper::header::ETAG, tag)].into_iter().collect());
        return Err(error);
    }
    Ok(())
}
