//! What is kept with an object beside its content: headers, user metadata, storage class, tags, encryption.

use hyper::HeaderMap;
use s3s::dto::{Metadata, ServerSideEncryption, StorageClass};
use s3s::{S3Result, s3_error};

use crate::service::bad_request;
use crate::urls;

/// Source: S3 API, PutObject, x-amz-storage-class; without the classes of directory buckets, Outposts and Snow.
const STORAGE_CLASSES: [&str; 8] = [
    StorageClass::STANDARD,
    StorageClass::REDUCED_REDUNDANCY,
    StorageClass::STANDARD_IA,
    StorageClass::ONEZONE_IA,
    StorageClass::INTELLIGENT_TIERING,
    StorageClass::GLACIER,
    StorageClass::GLACIER_IR,
    StorageClass::DEEP_ARCHIVE,
];
/// Source: S3 guide, "Restoring an archived object".
const ARCHIVES: [&str; 2] = [StorageClass::GLACIER, StorageClass::DEEP_ARCHIVE];

/// Headers of a write that this server does not know what to do with.
const UNSUPPORTED: [&str; 9] = [
    "x-amz-acl",
    "x-amz-copy-source",
    "x-amz-grant-",
    "x-amz-object-lock-",
    "x-amz-server-side-encryption-bucket-key-enabled",
    "x-amz-server-side-encryption-context",
    "x-amz-server-side-encryption-customer-",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
];

/// How an object is encrypted at rest.
#[derive(Clone, Debug)]
pub(crate) struct Encryption {
    pub(crate) algorithm: ServerSideEncryption,
    pub(crate) kms_key_id: Option<String>,
}

/// Everything that PutObject and CreateMultipartUpload say of an object.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) content_type: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) storage_class: String,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) encryption: Encryption,
}

impl Attributes {
    /// Reads the headers of a write; `metadata` is what they say in `x-amz-meta-*`.
    pub(crate) fn read(headers: &HeaderMap, metadata: Option<Metadata>, kms_keys: &[String]) -> S3Result<Attributes> {
        let unsupported = |name: &str| UNSUPPORTED.iter().any(|start| name.starts_with(start));
        if let Some(name) = headers.keys().find(|name| unsupported(name.as_str())) {
            return Err(s3_error!(NotImplemented, "A header implies functionality that is not implemented: {name}"));
        }
        // S3 guide, "Working with object metadata": 2 KB of keys and values.
        let metadata_bytes: usize = metadata.iter().flatten().map(|(name, value)| name.len() + value.len()).sum();
        if metadata_bytes > 2048 {
            return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size"));
        }
        let text = |name: &str| headers.get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let storage_class = text("x-amz-storage-class").unwrap_or_else(|| StorageClass::STANDARD.to_owned());
        if !STORAGE_CLASSES.contains(&storage_class.as_str()) {
            return Err(s3_error!(InvalidStorageClass, "The storage class you specified is not valid"));
        }
        // `aws-chunked` says how the body travels, not what it is.
        let content_encoding = text("content-encoding").map(|encodings| {
            let kept = |encoding: &&str| *encoding != "aws-chunked";
            encodings.split(',').map(str::trim).filter(kept).collect::<Vec<_>>().join(",")
        });
        Ok(Attributes {
            // Source: S3 API, PutObject, Content-Type.
            content_type: text("content-type").or_else(|| Some("binary/octet-stream".to_owned())),
            cache_control: text("cache-control"),
            content_encoding: content_encoding.filter(|encodings| !encodings.is_empty()),
            content_disposition: text("content-disposition"),
            content_language: text("content-language"),
            metadata,
            storage_class,
            tags: tags(&text("x-amz-tagging").unwrap_or_default())?,
            encryption: encryption(
                text("x-amz-server-side-encryption").as_deref(),
                text("x-amz-server-side-encryption-aws-kms-key-id"),
                kms_keys,
            )?,
        })
    }

    /// Must the object be restored before it can be read?
    pub(crate) fn is_archived(&self) -> bool {
        ARCHIVES.contains(&self.storage_class.as_str())
    }

    /// The class as GET and HEAD tell it: not at all for STANDARD. Source: S3 API, HeadObject.
    pub(crate) fn told_storage_class(&self) -> Option<StorageClass> {
        let told = self.storage_class != StorageClass::STANDARD;
        told.then(|| self.storage_class.clone().into())
    }
}

/// Source: S3 guide, "Categorizing your objects using tags": ten tags of 128 and 256 characters, keys unique.
fn tags(header: &str) -> S3Result<Vec<(String, String)>> {
    let tags = urls::pairs(header);
    if tags.len() > 10 {
        return Err(bad_request("BadRequest", "Object tags cannot be greater than 10"));
    }
    for (index, (key, value)) in tags.iter().enumerate() {
        if key.is_empty() || key.chars().count() > 128 {
            return Err(s3_error!(InvalidTag, "The TagKey you have provided is invalid"));
        }
        if value.chars().count() > 256 {
            return Err(s3_error!(InvalidTag, "The TagValue you have provided is invalid"));
        }
        if tags[..index].iter().any(|other| other.0 == *key) {
            return Err(s3_error!(InvalidTag, "Cannot provide multiple Tags with the same key"));
        }
    }
    Ok(tags)
}

/// Source: S3 guide, "Protecting data with server-side encryption": SSE-S3 unless something else is asked for.
fn encryption(algorithm: Option<&str>, key_id: Option<String>, kms_keys: &[String]) -> S3Result<Encryption> {
    let uses_kms = match algorithm.unwrap_or(ServerSideEncryption::AES256) {
        ServerSideEncryption::AES256 => false,
        ServerSideEncryption::AWS_KMS | ServerSideEncryption::AWS_KMS_DSSE => true,
        other => return Err(s3_error!(InvalidArgument, "The encryption method specified is not supported: {other}")),
    };
    match key_id {
        Some(_) if !uses_kms => {
            Err(s3_error!(InvalidArgument, "A KMS key id needs aws:kms as the server side encryption"))
        }
        Some(key_id) if !kms_keys.contains(&key_id) => {
            Err(bad_request("KMS.NotFoundException", format!("Key '{key_id}' does not exist")))
        }
        key_id => {
            let algorithm = algorithm.unwrap_or(ServerSideEncryption::AES256).to_owned();
            // Without a key it is the one that AWS manages.
            let kms_key_id = uses_kms.then(|| key_id.unwrap_or_else(|| "alias/aws/s3".to_owned()));
            Ok(Encryption { algorithm: algorithm.into(), kms_key_id })
        }
    }
}
