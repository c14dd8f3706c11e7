//! The operations of the S3 API: requests into rules, and what came of them into answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use hyper::{HeaderMap, StatusCode};
use rand::RngExt;
use s3s::dto::*;
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::arguments::{Arguments, Dialect, Limits, Rejection};
use crate::attributes::Attributes;
use crate::checksums::{self, Algorithm, Claims, Kind, set_checksum};
use crate::conditions::{Write, WriteCondition, check_read};
use crate::listing::{Entry, Position, page};
use crate::objects::{Buckets, StoredObject, UploadName};
use crate::service::{ARCHIVED, WholeBody};
use crate::uploads::{Upload, UploadedPart};
use crate::urls;

/// How long a racy server thinks between judging a condition and writing.
const RACE: Duration = Duration::from_millis(100);

/// The buckets and the rules for them.
#[derive(Debug)]
pub(crate) struct Backend {
    buckets: Buckets,
    kms_keys: Vec<String>,
    limits: Limits,
    dialect: Dialect,
    region: String,
}

impl Backend {
    pub(crate) fn new(arguments: &Arguments) -> Backend {
        Backend {
            buckets: Buckets::new(&arguments.buckets, arguments.foreign_objects),
            kms_keys: arguments.kms_keys.clone(),
            limits: arguments.limits.clone(),
            dialect: arguments.dialect.clone(),
            region: arguments.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
        }
    }

    fn check_algorithm(&self, algorithm: Option<Algorithm>) -> S3Result<()> {
        let Some(algorithm) = algorithm.filter(|asked| self.dialect.rejected_checksums.contains(asked)) else {
            return Ok(());
        };
        let code = match self.dialect.reject_with {
            Rejection::NotImplemented => S3ErrorCode::NotImplemented,
            Rejection::InvalidRequest => S3ErrorCode::InvalidRequest,
        };
        Err(S3Error::with_message(code, format!("The checksum {} is not implemented", algorithm.name())))
    }

    fn claims(&self, headers: &HeaderMap) -> S3Result<Claims> {
        let claims = Claims::read(headers)?;
        self.check_algorithm(claims.algorithm())?;
        Ok(claims)
    }

    /// Judges the condition and writes, at once; `upload` is the one that is used up by that. When it fails, nothing
    /// has changed, and the upload is still open.
    async fn commit(
        &self,
        bucket: &str,
        key: &str,
        condition: WriteCondition,
        object: StoredObject,
        upload: Option<&UploadName>,
    ) -> S3Result<()> {
        let condition = if self.dialect.racy_conditions && condition != WriteCondition::None {
            condition.check(self.buckets.lock(bucket)?.objects.get(key).map(Arc::as_ref))?;
            tokio::time::sleep(RACE).await;
            WriteCondition::None
        } else {
            condition
        };
        let mut bucket = self.buckets.lock(bucket)?;
        if let Some(name) = upload {
            bucket.upload(name)?;
        }
        condition.check(bucket.objects.get(key).map(Arc::as_ref))?;
        if let Some(name) = upload {
            bucket.uploads.remove(name);
        }
        bucket.objects.insert(key.to_owned(), Arc::new(object));
        Ok(())
    }

    /// The object of a GET or HEAD whose conditions hold, and the range to answer with.
    fn wanted(&self, read: &Read<'_>) -> S3Result<(Arc<StoredObject>, Option<std::ops::Range<u64>>)> {
        if read.is_unsupported {
            return Err(s3_error!(
                NotImplemented,
                "Part numbers, versions, dates and customer keys are not implemented"
            ));
        }
        let object = Arc::clone(self.buckets.lock(read.bucket)?.object(read.key)?);
        check_read(read.if_none_match, read.if_match, &object)?;
        let Some(range) = read.range else { return Ok((object, None)) };
        let invalid = || s3_error!(InvalidRange, "The requested range is not satisfiable");
        let range = range.check(object.bytes()).ok().filter(|range| !range.is_empty()).ok_or_else(invalid)?;
        Ok((object, Some(range)))
    }
}

/// What GET and HEAD have in common.
struct Read<'a> {
    bucket: &'a str,
    key: &'a str,
    if_match: Option<&'a ETagCondition>,
    if_none_match: Option<&'a ETagCondition>,
    range: Option<&'a Range>,
    is_unsupported: bool,
}

macro_rules! read_of {
    ($input:expr) => {
        Read {
            bucket: &$input.bucket,
            key: &$input.key,
            if_match: $input.if_match.as_ref(),
            if_none_match: $input.if_none_match.as_ref(),
            range: $input.range.as_ref(),
            is_unsupported: $input.part_number.is_some()
                || $input.version_id.is_some()
                || $input.if_modified_since.is_some()
                || $input.if_unmodified_since.is_some()
                || $input.sse_customer_key.is_some(),
        }
    };
}

/// What GET and HEAD say of an object. Source: S3 API, GetObject and HeadObject; the checksum only when asked for and
/// for the whole.
macro_rules! described {
    ($output:ident, $input:expr, $object:expr, $range:expr) => {{
        let (object, range): (&StoredObject, Option<&std::ops::Range<u64>>) = ($object, $range);
        let attributes = &object.attributes;
        let mut output = $output {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: attributes.cache_control.clone(),
            content_disposition: attributes.content_disposition.clone(),
            content_encoding: attributes.content_encoding.clone(),
            content_language: attributes.content_language.clone(),
            content_length: Some(length(range.map_or(object.bytes(), |range| range.end - range.start))),
            content_range: range.map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, object.bytes())),
            content_type: attributes.content_type.clone(),
            e_tag: Some(object.tag()),
            last_modified: Some(object.last_modified()),
            metadata: attributes.metadata.clone(),
            restore: object
                .restored
                .then(|| "ongoing-request=\"false\", expiry-date=\"Fri, 31 Dec 2049 00:00:00 GMT\"".to_owned()),
            server_side_encryption: Some(attributes.encryption.algorithm.clone()),
            ssekms_key_id: attributes.encryption.kms_key_id.clone(),
            storage_class: attributes.told_storage_class(),
            ..Default::default()
        };
        let asks_for_checksum = $input.checksum_mode.as_ref().is_some_and(|mode| mode.as_str() == "ENABLED");
        if asks_for_checksum && range.is_none() {
            set_checksum!(output, Some(&object.checksum));
            output.checksum_type = Some(object.kind.name().to_owned().into());
        }
        output
    }};
}

fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("memory is smaller")
}

/// The entries a page may hold. Source: S3 API, ListObjectsV2, max-keys.
fn page_entries(asked: Option<i32>, limit: usize) -> S3Result<usize> {
    let invalid = |_| s3_error!(InvalidArgument, "Argument maxKeys must be an integer between 0 and 2147483647");
    asked.map_or(Ok(limit), |asked| usize::try_from(asked).map_err(invalid)).map(|asked| asked.min(limit))
}

#[async_trait]
impl S3 for Backend {
    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        drop(self.buckets.lock(&request.input.bucket)?);
        let bucket_region = Some(self.region.clone());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..Default::default() }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let S3Request { input, headers, trailing_headers, .. } = request;
        drop(self.buckets.lock(&input.bucket)?);
        let claims = self.claims(&headers)?;
        let (if_none_match, if_match) = (input.if_none_match.as_ref(), input.if_match.as_ref());
        let condition = WriteCondition::read(if_none_match, if_match, Write::Put, &self.dialect)?;
        let attributes = Attributes::read(&headers, input.metadata, &self.kms_keys)?;
        // S3 guide, "Checking object integrity": without a checksum of the client's, the server computes this one.
        let otherwise = Some(Algorithm::Crc64nvme);
        let received = checksums::receive(input.body, &claims, trailing_headers.as_ref(), otherwise).await?;
        let object = StoredObject::whole(received, attributes);
        let mut output = PutObjectOutput {
            e_tag: Some(object.tag()),
            checksum_type: Some(object.kind.name().to_owned().into()),
            server_side_encryption: Some(object.attributes.encryption.algorithm.clone()),
            ssekms_key_id: object.attributes.encryption.kms_key_id.clone(),
            ..Default::default()
        };
        set_checksum!(output, Some(&object.checksum));
        self.commit(&input.bucket, &input.key, condition, object, None).await?;
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let (object, range) = self.wanted(&read_of!(input))?;
        let output = described!(HeadObjectOutput, input, &object, range.as_ref());
        let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        Ok(S3Response::with_status(output, status))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let (object, range) = self.wanted(&read_of!(input))?;
        if object.attributes.is_archived() && !object.restored {
            let mut error = s3_error!(InvalidObjectState);
            let class = object.attributes.storage_class.parse().expect("one of the known classes");
            error.set_headers([(ARCHIVED, class)].into_iter().collect());
            return Err(error);
        }
        let mut output = described!(GetObjectOutput, input, &object, range.as_ref());
        let tags = object.attributes.tags.len();
        output.tag_count = i32::try_from(tags).ok().filter(|count| *count > 0);
        let body = object.slice(range.unwrap_or(0..object.bytes()));
        output.body = Some(Body::http_body(body).into());
        Ok(S3Response::new(output))
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let input = request.input;
        let bucket = self.buckets.lock(&input.bucket)?;
        let tags = &bucket.object(&input.key)?.attributes.tags;
        let tag_set = tags.iter().map(|(key, value)| Tag { key: Some(key.clone()), value: Some(value.clone()) });
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set: tag_set.collect(), version_id: None }))
    }

    /// Source: S3 API, RestoreObject: 202, or 200 for an object that was restored before. It takes no time here.
    async fn restore_object(
        &self,
        request: S3Request<RestoreObjectInput>,
    ) -> S3Result<S3Response<RestoreObjectOutput>> {
        let input = request.input;
        let mut bucket = self.buckets.lock(&input.bucket)?;
        let mut object = StoredObject::clone(bucket.object(&input.key)?);
        if !object.attributes.is_archived() {
            let message = "Restore is not allowed for the object's current storage class";
            return Err(s3_error!(InvalidObjectState, "{message}"));
        }
        let status = if object.restored { StatusCode::OK } else { StatusCode::ACCEPTED };
        object.restored = true;
        bucket.objects.insert(input.key, Arc::new(object));
        Ok(S3Response::with_status(RestoreObjectOutput::default(), status))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        if input.version_id.is_some() {
            return Err(s3_error!(NotImplemented, "Versions are not implemented"));
        }
        let condition = WriteCondition::read(None, input.if_match.as_ref(), Write::Put, &self.dialect)?;
        let mut bucket = self.buckets.lock(&input.bucket)?;
        condition.check(bucket.objects.get(&input.key).map(Arc::as_ref))?;
        bucket.objects.remove(&input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    /// Source: S3 API, DeleteObjects: at most 1000 keys; Content-MD5 or a checksum is required.
    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        if self.dialect.delete_singly {
            return Err(s3_error!(NotImplemented, "Several objects are not deleted at once"));
        }
        let input = request.input;
        let claims = self.claims(&request.headers)?;
        if claims.is_empty() {
            return Err(s3_error!(InvalidRequest, "Missing required header for this request: Content-MD5"));
        }
        let body = request.extensions.get::<WholeBody>().expect("the service puts it there");
        claims.check(&body.0)?;
        if input.delete.objects.is_empty() || input.delete.objects.len() > 1000 {
            return Err(s3_error!(MalformedXML, "One request deletes 1 to 1000 objects"));
        }
        if input.delete.objects.iter().any(|object| object.e_tag.is_some() || object.version_id.is_some()) {
            return Err(s3_error!(NotImplemented, "Versions and ETags of deleted objects are not implemented"));
        }
        let mut bucket = self.buckets.lock(&input.bucket)?;
        let mut deleted = Vec::new();
        for object in input.delete.objects {
            bucket.objects.remove(&object.key);
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        let deleted = (!input.delete.quiet.unwrap_or_default()).then_some(deleted);
        Ok(S3Response::new(DeleteObjectsOutput { deleted, ..Default::default() }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let most = page_entries(input.max_keys, self.limits.page_entries)?;
        let position = match &input.continuation_token {
            Some(token) => Position::from_token(token)?,
            None => Position::after(input.start_after.as_deref()),
        };
        let encodes = input.encoding_type.is_some();
        let told = |name: String| if encodes { urls::encoded(&name) } else { name };
        let bucket = self.buckets.lock(&input.bucket)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let page = page(bucket.objects.keys(), prefix, input.delimiter.as_deref(), &position, most);
        let key_count = i32::try_from(page.entries.len()).ok();
        let (mut contents, mut common_prefixes) = (Vec::new(), Vec::new());
        for entry in page.entries {
            match entry {
                Entry::CommonPrefix(prefix) => common_prefixes.push(CommonPrefix { prefix: Some(told(prefix)) }),
                Entry::Key(key) => {
                    let object = bucket.object(&key)?;
                    contents.push(Object {
                        size: Some(length(object.bytes())),
                        e_tag: Some(object.tag()),
                        last_modified: Some(object.last_modified()),
                        storage_class: Some(object.attributes.storage_class.clone().into()),
                        key: Some(told(key)),
                        ..Default::default()
                    });
                }
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix.map(told),
            delimiter: input.delimiter.map(told),
            start_after: input.start_after.map(told),
            max_keys: i32::try_from(most).ok(),
            key_count,
            is_truncated: Some(page.next.is_some()),
            continuation_token: input.continuation_token,
            next_continuation_token: page.next,
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let asked = input.checksum_algorithm.map(|algorithm| Algorithm::named(algorithm.as_str())).transpose()?;
        self.check_algorithm(asked)?;
        let kind = input.checksum_type.as_ref().map(|kind| kind.as_str());
        let checksums = match asked {
            Some(algorithm) => Some((algorithm, Kind::of_upload(algorithm, kind)?)),
            None if kind.is_some() => {
                let message =
                    "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.";
                return Err(s3_error!(InvalidRequest, "{message}"));
            }
            None => None,
        };
        let attributes = Attributes::read(&request.headers, input.metadata, &self.kms_keys)?;
        let mut bucket = self.buckets.lock(&input.bucket)?;
        let encryption = attributes.encryption.clone();
        let initiated = SystemTime::now();
        let age = initiated.duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_nanos();
        let upload_id = format!("{age:024x}{:016x}", rand::rng().random::<u64>());
        let upload = Upload { attributes, checksums, parts: Default::default(), initiated };
        bucket.uploads.insert((input.key.clone(), upload_id.clone()), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id),
            checksum_algorithm: checksums.map(|(algorithm, _)| algorithm.name().to_owned().into()),
            checksum_type: checksums.map(|(_, kind)| kind.name().to_owned().into()),
            server_side_encryption: Some(encryption.algorithm),
            ssekms_key_id: encryption.kms_key_id,
            ..Default::default()
        }))
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let S3Request { input, headers, trailing_headers, .. } = request;
        let name = (input.key, input.upload_id);
        let claims = self.claims(&headers)?;
        let most = self.limits.max_parts;
        if !(1..=most).contains(&input.part_number) {
            return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and {most}, inclusive"));
        }
        self.buckets.lock(&input.bucket)?.upload(&name)?.check_claims(&claims)?;
        let received = checksums::receive(input.body, &claims, trailing_headers.as_ref(), None).await?;
        let part = UploadedPart { received, modified: SystemTime::now() };
        let mut bucket = self.buckets.lock(&input.bucket)?;
        let upload = bucket.upload(&name)?;
        let encryption = upload.attributes.encryption.clone();
        let mut output = UploadPartOutput {
            e_tag: Some(ETag::Strong(part.e_tag())),
            server_side_encryption: Some(encryption.algorithm),
            ssekms_key_id: encryption.kms_key_id,
            ..Default::default()
        };
        set_checksum!(output, part.received.checksum.as_ref());
        upload.parts.insert(input.part_number, part);
        Ok(S3Response::new(output))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let name = (input.key.clone(), input.upload_id.clone());
        let (if_none_match, if_match) = (input.if_none_match.as_ref(), input.if_match.as_ref());
        let condition = WriteCondition::read(if_none_match, if_match, Write::Complete, &self.dialect)?;
        let claims = self.claims(&request.headers)?;
        // A copy: parts share their bytes, and summing them takes too long for a lock.
        let upload = self.buckets.lock(&input.bucket)?.upload(&name)?.clone();
        let object = upload.assembled(&input, &claims, &self.limits)?;
        let mut output = CompleteMultipartUploadOutput {
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            location: Some(format!("/{}/{}", input.bucket, urls::encoded(&input.key))),
            e_tag: Some(object.tag()),
            checksum_type: Some(object.kind.name().to_owned().into()),
            server_side_encryption: Some(object.attributes.encryption.algorithm.clone()),
            ssekms_key_id: object.attributes.encryption.kms_key_id.clone(),
            ..Default::default()
        };
        set_checksum!(output, Some(&object.checksum));
        self.commit(&input.bucket, &input.key, condition, object, Some(&name)).await?;
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        let name = (input.key, input.upload_id);
        let mut bucket = self.buckets.lock(&input.bucket)?;
        bucket.upload(&name)?;
        bucket.uploads.remove(&name);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        if input.delimiter.is_some() || input.encoding_type.is_some() {
            return Err(s3_error!(NotImplemented, "Delimiters and encodings are not implemented for uploads"));
        }
        let most = page_entries(input.max_uploads, self.limits.page_entries)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let key_marker = input.key_marker.as_deref().unwrap_or_default();
        let is_after = |(key, id): &UploadName| match &input.upload_id_marker {
            Some(marker) => (key.as_str(), id) > (key_marker, marker),
            None => key.as_str() > key_marker,
        };
        let bucket = self.buckets.lock(&input.bucket)?;
        let mut matching = bucket.uploads.iter().filter(|(name, _)| name.0.starts_with(prefix) && is_after(name));
        let uploads: Vec<MultipartUpload> = matching
            .by_ref()
            .take(most)
            .map(|((key, id), upload)| MultipartUpload {
                key: Some(key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(upload.initiated.into()),
                storage_class: Some(upload.attributes.storage_class.clone().into()),
                checksum_algorithm: upload.checksums.map(|(algorithm, _)| algorithm.name().to_owned().into()),
                checksum_type: upload.checksums.map(|(_, kind)| kind.name().to_owned().into()),
                ..Default::default()
            })
            .collect();
        let last = matching.next().and(uploads.last());
        Ok(S3Response::new(ListMultipartUploadsOutput {
            is_truncated: Some(last.is_some()),
            next_key_marker: last.and_then(|upload| upload.key.clone()),
            next_upload_id_marker: last.and_then(|upload| upload.upload_id.clone()),
            max_uploads: i32::try_from(most).ok(),
            uploads: Some(uploads),
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            ..Default::default()
        }))
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let most = page_entries(input.max_parts, self.limits.page_entries)?;
        let marker = input.part_number_marker.unwrap_or_default();
        let mut bucket = self.buckets.lock(&input.bucket)?;
        let upload = bucket.upload(&(input.key.clone(), input.upload_id.clone()))?;
        let mut matching = upload.parts.iter().filter(|(number, _)| **number > marker);
        let parts: Vec<Part> = matching
            .by_ref()
            .take(most)
            .map(|(number, part)| {
                let mut listed = Part {
                    part_number: Some(*number),
                    e_tag: Some(ETag::Strong(part.e_tag())),
                    size: Some(length(part.received.bytes.len() as u64)),
                    last_modified: Some(part.modified.into()),
                    ..Default::default()
                };
                set_checksum!(listed, part.received.checksum.as_ref());
                listed
            })
            .collect();
        let last = matching.next().and(parts.last());
        Ok(S3Response::new(ListPartsOutput {
            is_truncated: Some(last.is_some()),
            next_part_number_marker: last.and_then(|part| part.part_number),
            max_parts: i32::try_from(most).ok(),
            parts: Some(parts),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            storage_class: Some(upload.attributes.storage_class.clone().into()),
            checksum_algorithm: upload.checksums.map(|(algorithm, _)| algorithm.name().to_owned().into()),
            checksum_type: upload.checksums.map(|(_, kind)| kind.name().to_owned().into()),
            ..Default::default()
        }))
    }
}
