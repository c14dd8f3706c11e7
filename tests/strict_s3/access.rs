//! Who may do what.

use std::collections::BTreeMap;

use async_trait::async_trait;
use hyper::HeaderMap;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use crate::arguments::{Arguments, Keys};
use crate::urls;

/// The secrets, by access key.
pub(crate) struct Secrets(BTreeMap<String, SecretKey>);

impl Secrets {
    pub(crate) fn new(keys: &Keys) -> Secrets {
        let reader = keys.reader_access_key.clone().zip(keys.reader_secret_key.clone());
        let writer = (keys.access_key.clone(), keys.secret_key.clone());
        Secrets([writer].into_iter().chain(reader).map(|(key, secret)| (key, secret.into())).collect())
    }
}

#[async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        // S3 API, "Error responses": InvalidAccessKeyId.
        let unknown = || s3_error!(InvalidAccessKeyId, "The AWS access key ID you provided does not exist.");
        self.0.get(access_key).cloned().ok_or_else(unknown)
    }
}

/// What a request must be, whatever it asks for.
pub(crate) struct Rules {
    reader: Option<String>,
    region: Option<String>,
    accept_trailers: bool,
}

impl Rules {
    pub(crate) fn new(arguments: &Arguments) -> Rules {
        Rules {
            reader: arguments.keys.reader_access_key.clone(),
            region: arguments.region.clone(),
            accept_trailers: arguments.dialect.accept_trailers,
        }
    }

    /// Signature Version 4 in the Authorization header: for the right region, over the headers that count.
    fn check_authorization(&self, authorization: &str, headers: &HeaderMap) -> S3Result<()> {
        let Some(fields) = authorization.strip_prefix("AWS4-HMAC-SHA256") else {
            return Err(s3_error!(InvalidRequest, "Please use AWS4-HMAC-SHA256."));
        };
        let field =
            |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name)).unwrap_or_default();
        if let Some(region) = &self.region
            && field("Credential=").rsplit('/').nth(2) != Some(region)
        {
            return Err(s3_error!(AuthorizationHeaderMalformed, "The region is wrong; expecting '{region}'"));
        }
        check_signed(field("SignedHeaders="), headers)
    }
}

/// Source: IAM guide, "Create a signed AWS API request": host and every x-amz-* header must be signed.
fn check_signed(signed: &str, headers: &HeaderMap) -> S3Result<()> {
    let signed: Vec<&str> = signed.split(';').collect();
    let unsigned = |name: &str| (name == "host" || name.starts_with("x-amz-")) && !signed.contains(&name);
    match headers.keys().find(|name| unsigned(name.as_str())) {
        Some(name) => {
            Err(s3_error!(AccessDenied, "There were headers present in the request which were not signed: {name}"))
        }
        None => Ok(()),
    }
}

#[async_trait]
impl S3Access for Rules {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let Some(credentials) = context.credentials() else { return Err(s3_error!(AccessDenied, "Access Denied")) };
        // S3 guide: Signature Version 2 is not for new buckets.
        let header = context.headers().get("authorization").map(|value| value.to_str().unwrap_or_default());
        let query = urls::pairs(context.uri().query().unwrap_or_default());
        let signed_in_query = query.iter().find(|pair| pair.0 == "X-Amz-SignedHeaders");
        match (header, signed_in_query) {
            (Some(authorization), _) => self.check_authorization(authorization, context.headers())?,
            (None, Some((_, signed))) => check_signed(signed, context.headers())?,
            (None, None) => return Err(s3_error!(InvalidRequest, "Please use AWS4-HMAC-SHA256.")),
        }
        let operation = context.s3_op().name();
        let reads = ["Get", "Head", "List"].iter().any(|verb| operation.starts_with(verb));
        if !reads && self.reader.as_ref() == Some(&credentials.access_key) {
            return Err(s3_error!(AccessDenied, "This access key is not authorized to perform s3:{operation}"));
        }
        // As Ceph, Garage and OpenStack Swift answer.
        if context.headers().contains_key("x-amz-trailer") && !self.accept_trailers {
            return Err(s3_error!(NotImplemented, "A trailer with a checksum is not taken; send it as a header"));
        }
        Ok(())
    }
}
