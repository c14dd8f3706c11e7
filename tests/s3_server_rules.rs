//! The strict S3 server: who may ask, what an object is, and how it is listed, deleted and restored.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, Delete, ObjectCannedAcl, ObjectIdentifier, ServerSideEncryption,
    StorageClass,
};
use bytes::Bytes;

use crate::s3_server::{self, StrictS3};

/// The status and code of an answer that must be an error; HEAD has no code of its own.
pub(crate) fn refusal<T, E: ProvideErrorMetadata>(answer: Result<T, SdkError<E>>) -> String {
    let Err(error) = answer else { panic!("it was not refused") };
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    format!("{status} {}", error.code().unwrap_or_default())
}

fn put(client: &Client, key: &str, content: &'static [u8]) -> PutObjectFluentBuilder {
    client.put_object().bucket("pgslice-tests").key(key).body(ByteStream::from_static(content))
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("it is text")
}

#[tokio::test]
async fn unknown_keys_wrong_secrets_and_anonymous_requests_are_refused() {
    let server = StrictS3::shared();
    let key = format!("{}/a", server.new_prefix());
    let unknown = server.client_with(server.endpoint(), "nobody", server.secret_key());
    assert_eq!(refusal(put(&unknown, &key, b"x").send().await), "403 InvalidAccessKeyId");
    let wrong = server.client_with(server.endpoint(), server.access_key(), "wrong");
    assert_eq!(refusal(put(&wrong, &key, b"x").send().await), "403 SignatureDoesNotMatch");
    let anonymous = reqwest::get(format!("{}/{}/{key}", server.endpoint(), server.bucket())).await.expect("an answer");
    assert_eq!(anonymous.status(), 403);
    assert!(anonymous.text().await.expect("a body").contains("<Code>AccessDenied</Code>"));
}

#[tokio::test]
async fn a_signature_for_another_region_is_refused() {
    let server = StrictS3::shared();
    let client = server.client();
    let region = aws_sdk_s3::config::Region::new("us-west-2");
    let elsewhere = Client::from_conf(client.config().to_builder().region(region).build());
    assert_eq!(refusal(put(&elsewhere, "elsewhere", b"x").send().await), "400 AuthorizationHeaderMalformed");
    let head = client.head_bucket().bucket(server.bucket()).send().await.expect("the bucket is there");
    assert_eq!(head.bucket_region(), Some(server.region()));
}

#[tokio::test]
async fn a_signature_counts_for_what_was_signed_and_nothing_more() {
    let server = StrictS3::shared();
    let client = server.client();
    let key = format!("{}/presigned", server.new_prefix());
    server.write(&key, "content");
    let minute = PresigningConfig::expires_in(Duration::from_secs(60)).expect("a minute");
    let request = client.get_object().bucket(server.bucket()).key(&key).presigned(minute).await.expect("sign a URL");
    let get = |url: &str| reqwest::Client::new().get(url);
    let answer = get(request.uri()).send().await.expect("an answer");
    assert_eq!(answer.text().await.expect("a body"), "content");
    let another_key = get(&request.uri().replace("/presigned", "/presigneD")).send().await.expect("an answer");
    assert_eq!(another_key.status(), 403);
    let another_header = get(request.uri()).header("x-amz-checksum-mode", "ENABLED").send().await.expect("an answer");
    assert_eq!(another_header.status(), 403);
}

#[tokio::test]
async fn the_reader_reads_and_writes_nothing() {
    let server = StrictS3::shared();
    let prefix = server.new_prefix();
    let key = format!("{prefix}/a");
    server.write(&key, "content");
    let reader = server.client_with(server.endpoint(), server.reader_access_key(), &server.reader_secret_key());
    let bucket = server.bucket();
    let object = reader.get_object().bucket(bucket).key(&key).send().await.expect("the reader may read");
    assert_eq!(text(&object.body.collect().await.expect("a body").into_bytes()), "content");
    reader.head_object().bucket(bucket).key(&key).send().await.expect("the reader may look");
    reader.list_objects_v2().bucket(bucket).prefix(&prefix).send().await.expect("the reader may list");
    // Larger than what sockets hold, so that it is still being sent when it is refused.
    let large = ByteStream::from(vec![7; 24 << 20]);
    let put = reader.put_object().bucket(bucket).key(&key).body(large).send().await;
    assert_eq!(refusal(put), "403 AccessDenied");
    assert_eq!(refusal(reader.delete_object().bucket(bucket).key(&key).send().await), "403 AccessDenied");
    let create = reader.create_multipart_upload().bucket(bucket).key(&key).send().await;
    assert_eq!(refusal(create), "403 AccessDenied");
    let delete = Delete::builder().objects(ObjectIdentifier::builder().key(&key).build().expect("a key"));
    let delete = reader.delete_objects().bucket(bucket).delete(delete.build().expect("a key")).send().await;
    assert_eq!(refusal(delete), "403 AccessDenied");
    assert_eq!(refusal(reader.restore_object().bucket(bucket).key(&key).send().await), "403 AccessDenied");
    assert_eq!(server.read(&key).as_deref(), Some(&b"content"[..]));
}

#[tokio::test]
async fn other_buckets_do_not_exist() {
    let client = StrictS3::shared().client();
    let get = client.get_object().bucket("elsewhere").key("a").send().await;
    assert_eq!(refusal(get), "404 NoSuchBucket");
    let put = client.put_object().bucket("elsewhere").key("a").body(ByteStream::from_static(b"x")).send().await;
    assert_eq!(refusal(put), "404 NoSuchBucket");
    assert_eq!(refusal(client.list_objects_v2().bucket("elsewhere").send().await), "404 NoSuchBucket");
    assert_eq!(refusal(client.create_bucket().bucket("elsewhere").send().await), "501 NotImplemented");
    let second = StrictS3::start(&["--bucket", "second"]);
    second.client().head_bucket().bucket("second").send().await.expect("it has two buckets");
}

#[tokio::test]
async fn what_is_said_of_an_object_is_kept_with_it() {
    let server = StrictS3::start(&["--kms-key", "key-1"]);
    let client = server.client();
    let key = "dataset/day=2024-05-01/a b+c%2F~é.zst";
    let answer = put(&client, key, b"content")
        .content_type("application/zstd")
        .cache_control("max-age=31536000, immutable")
        .content_encoding("zstd")
        .metadata("pgslice", "1")
        .storage_class(StorageClass::StandardIa)
        .tagging("kind=part&who=a%20b+c")
        .server_side_encryption(ServerSideEncryption::AwsKms)
        .ssekms_key_id("key-1")
        .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
        .send()
        .await
        .expect("put an object");
    assert_eq!(answer.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    let head = server.head(key).expect("it is there");
    assert_eq!(
        head,
        s3_server::Head {
            bytes: 7,
            e_tag: answer.e_tag().expect("an ETag").to_owned(),
            content_type: "application/zstd".to_owned(),
            cache_control: "max-age=31536000, immutable".to_owned(),
            content_encoding: "zstd".to_owned(),
            storage_class: "STANDARD_IA".to_owned(),
            encryption: "aws:kms".to_owned(),
            kms_key_id: "key-1".to_owned(),
            metadata: BTreeMap::from([("pgslice".to_owned(), "1".to_owned())]),
            tags: BTreeMap::from([("kind".to_owned(), "part".to_owned()), ("who".to_owned(), "a b c".to_owned())]),
            checksum: format!("CRC64NVME:{}", answer.checksum_crc64_nvme().expect("a checksum")),
        }
    );
    let object = client.get_object().bucket(server.bucket()).key(key).send().await.expect("get an object");
    assert_eq!(object.content_type(), Some("application/zstd"));
    assert_eq!(object.cache_control(), Some("max-age=31536000, immutable"));
    assert_eq!(object.content_encoding(), Some("zstd"));
    assert_eq!(object.storage_class(), Some(&StorageClass::StandardIa));
    assert_eq!(object.tag_count(), Some(2));
    assert_eq!(object.ssekms_key_id(), Some("key-1"));
    assert_eq!(object.accept_ranges(), Some("bytes"));
    assert!(object.last_modified().is_some());
    assert_eq!(server.list("dataset/"), [key]);

    server.write("plain", "content");
    let plain = server.head("plain").expect("it is there");
    assert_eq!(plain.e_tag, format!("\"{}\"", hex::encode(<md5::Md5 as md5::Digest>::digest(b"content"))));
    assert_eq!((plain.content_type.as_str(), plain.encryption.as_str()), ("application/octet-stream", "AES256"));
    assert_eq!((plain.storage_class.as_str(), plain.tags.len(), plain.metadata.len()), ("STANDARD", 0, 0));
    assert!(server.head("absent").is_none() && server.read("absent").is_none());
}

#[tokio::test]
async fn attributes_that_aws_does_not_take_are_refused() {
    let server = StrictS3::start(&["--kms-key", "key-1"]);
    let client = server.client();
    let put = || put(&client, "refused", b"x");
    let class = put().storage_class(StorageClass::from("COLD")).send().await;
    assert_eq!(refusal(class), "400 InvalidStorageClass");
    let kms = || put().server_side_encryption(ServerSideEncryption::AwsKms);
    assert_eq!(refusal(kms().ssekms_key_id("key-2").send().await), "400 KMS.NotFoundException");
    assert_eq!(refusal(put().ssekms_key_id("key-1").send().await), "400 InvalidArgument");
    let encryption = put().server_side_encryption(ServerSideEncryption::from("rot13")).send().await;
    assert_eq!(refusal(encryption), "400 InvalidArgument");
    assert_eq!(refusal(put().tagging("a=1&a=2").send().await), "400 InvalidTag");
    let many: Vec<String> = (0..11).map(|number| format!("t{number}=x")).collect();
    assert_eq!(refusal(put().tagging(many.join("&")).send().await), "400 BadRequest");
    assert_eq!(refusal(put().metadata("m", "x".repeat(2100)).send().await), "400 MetadataTooLarge");
    assert_eq!(refusal(put().acl(ObjectCannedAcl::PublicRead).send().await), "501 NotImplemented");
    let create = client.create_multipart_upload().bucket(server.bucket()).key("refused");
    let create = create.storage_class(StorageClass::from("COLD")).send().await;
    assert_eq!(refusal(create), "400 InvalidStorageClass");
    assert_eq!(server.list(""), [""; 0]);
    assert_eq!(server.open_uploads(""), 0);
    kms().send().await.expect("without a key id AWS uses its own");
    assert_eq!(server.head("refused").expect("it is there").kms_key_id, "alias/aws/s3");
}

#[tokio::test]
async fn ranges_are_exact_or_refused() {
    let server = StrictS3::shared();
    let client = server.client();
    let prefix = server.new_prefix();
    let (key, empty) = (format!("{prefix}/a"), format!("{prefix}/empty"));
    server.write(&key, "0123456789");
    server.write(&empty, "");
    let get = |key: &str, range: &str| client.get_object().bucket(server.bucket()).key(key).range(range).send();
    for (range, content, told) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=3-5", "345", "bytes 3-5/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-4", "6789", "bytes 6-9/10"),
    ] {
        let object = get(&key, range).await.expect("the range is there");
        assert_eq!((object.content_range(), object.content_length()), (Some(told), i64::try_from(content.len()).ok()));
        assert_eq!(text(&object.body.collect().await.expect("a body").into_bytes()), content);
    }
    assert_eq!(refusal(get(&key, "bytes=10-").await), "416 InvalidRange");
    assert_eq!(refusal(get(&empty, "bytes=0-").await), "416 InvalidRange");
    assert_eq!(refusal(get(&empty, "bytes=-1").await), "416 InvalidRange");
    assert_eq!(server.read(&empty).expect("it is there"), b"");
    let head = client.head_object().bucket(server.bucket()).key(&key).range("bytes=2-3").send().await.expect("a head");
    assert_eq!(head.content_length(), Some(2));
}

#[tokio::test]
async fn every_checksum_is_verified_and_told() {
    let server = StrictS3::shared();
    let client = server.client();
    let key = format!("{}/summed", server.new_prefix());
    // Of `123456789`, the check value of every catalogue of CRCs.
    let put = || put(&client, &key, b"123456789");
    let right = [
        (put().checksum_crc32("y/Q5Jg=="), "CRC32:y/Q5Jg=="),
        (put().checksum_crc32_c("4waSgw=="), "CRC32C:4waSgw=="),
        (put().checksum_crc64_nvme("rosUhgp5mIg="), "CRC64NVME:rosUhgp5mIg="),
        (put().checksum_sha1("98O8HYCOBHMq32eZZczDTKeuNEE="), "SHA1:98O8HYCOBHMq32eZZczDTKeuNEE="),
        (
            put().checksum_sha256("FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
            "SHA256:FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
        ),
        (put().content_md5("JfnnlDI7RTiF9RgfG2JNCw==").checksum_crc32("y/Q5Jg=="), "CRC32:y/Q5Jg=="),
    ];
    for (put, checksum) in right {
        server.remove(&key);
        put.send().await.expect("the checksum is right");
        assert_eq!(server.head(&key).expect("it is there").checksum, checksum);
        let head = || client.head_object().bucket(server.bucket()).key(&key);
        let asking = head().checksum_mode(ChecksumMode::Enabled).send().await.expect("it is there");
        assert_eq!(asking.checksum_type(), Some(&ChecksumType::FullObject));
        let quiet = head().send().await.expect("it is there");
        assert_eq!(quiet.checksum_type(), None);
    }
    server.remove(&key);
    let wrong = [
        put().checksum_crc32("y/Q5Jw=="),
        put().checksum_crc32_c("4waSgg=="),
        put().checksum_crc64_nvme("rosUhgp5mIk="),
        put().checksum_sha1("98O8HYCOBHMq32eZZczDTKeuNEA="),
        put().checksum_sha256("FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiQ="),
        put().content_md5("JfnnlDI7RTiF9RgfG2JNDA=="),
    ];
    for put in wrong {
        assert_eq!(refusal(put.send().await), "400 BadDigest");
    }
    assert_eq!(refusal(put().checksum_crc32("nonsense").send().await), "400 InvalidRequest");
    assert_eq!(refusal(put().content_md5("nonsense").send().await), "400 InvalidDigest");
    let two = put().checksum_crc32("y/Q5Jg==").checksum_crc32_c("4waSgw==").send().await;
    assert_eq!(refusal(two), "400 InvalidRequest");
    assert!(server.head(&key).is_none());
}

#[tokio::test]
async fn a_checksum_that_follows_the_body_is_taken_only_when_told_to() {
    let streamed = |client: &Client| {
        let body = http_body_util::Full::new(Bytes::from_static(b"123456789"));
        let body = ByteStream::new(SdkBody::from_body_1_x(body));
        put(client, "streamed", b"").body(body).content_length(9).checksum_algorithm(ChecksumAlgorithm::Crc32).send()
    };
    let strict = StrictS3::shared();
    assert_eq!(refusal(streamed(&strict.client()).await), "501 NotImplemented");
    let lenient = StrictS3::start(&["--accept-trailers"]);
    streamed(&lenient.client()).await.expect("trailers are taken");
    assert_eq!(lenient.read("streamed").expect("it is there"), b"123456789");
    assert_eq!(lenient.head("streamed").expect("it is there").checksum, "CRC32:y/Q5Jg==");
}

#[tokio::test]
async fn a_listing_comes_in_pages_with_common_prefixes() {
    let server = StrictS3::start(&["--page-entries", "2"]);
    for key in ["a/1", "a/2", "a/3", "b", "c/1", "c/d/2", "e", "é"] {
        server.write(key, key);
    }
    assert_eq!(server.list(""), ["a/1", "a/2", "a/3", "b", "c/1", "c/d/2", "e", "é"]);
    assert_eq!(server.list("c/"), ["c/1", "c/d/2"]);
    assert_eq!(server.list("zz"), [""; 0]);
    let client = server.client();
    let list = || client.list_objects_v2().bucket(server.bucket());
    let mut pages = list().delimiter("/").into_paginator().send();
    let mut seen = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.expect("a page");
        assert!(page.key_count().is_some_and(|count| count <= 2));
        seen.extend(page.common_prefixes().iter().filter_map(|common| common.prefix().map(str::to_owned)));
        seen.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
    }
    assert_eq!(seen, ["a/", "b", "c/", "e", "é"]);
    let after = list().start_after("c/1").max_keys(1).send().await.expect("a page");
    assert_eq!((after.contents()[0].key(), after.is_truncated()), (Some("c/d/2"), Some(true)));
    assert_eq!(after.contents()[0].size(), Some(5));
    assert_eq!(refusal(list().continuation_token("?").send().await), "400 InvalidArgument");
}

#[tokio::test]
async fn deletions_take_exact_keys_and_need_a_checksum() {
    let server = StrictS3::shared();
    let (client, prefix) = (server.client(), server.new_prefix());
    let keys: Vec<String> = ["a", "a2", "b", "c"].iter().map(|name| format!("{prefix}/{name}")).collect();
    keys.iter().for_each(|key| server.write(key, "x"));
    server.remove(&keys[0]);
    server.remove(&keys[0]);
    assert_eq!(server.list(&prefix), keys[1..]);
    let identifier = |key: &String| ObjectIdentifier::builder().key(key).build().expect("a key");
    let delete = || {
        let delete = Delete::builder().objects(identifier(&keys[2])).objects(identifier(&keys[0]));
        client.delete_objects().bucket(server.bucket()).delete(delete.build().expect("keys"))
    };
    let unchecked = delete().customize().mutate_request(|request| {
        request.headers_mut().remove("x-amz-checksum-crc32");
        request.headers_mut().remove("x-amz-sdk-checksum-algorithm");
    });
    assert_eq!(refusal(unchecked.send().await), "400 InvalidRequest");
    let wrong = delete().customize().mutate_request(|request| {
        request.headers_mut().insert("x-amz-checksum-crc32", "AAAAAA==");
    });
    assert_eq!(refusal(wrong.send().await), "400 BadDigest");
    assert_eq!(server.list(&prefix), keys[1..]);
    let answer = delete().send().await.expect("delete objects");
    assert_eq!((answer.deleted().len(), answer.errors().len()), (2, 0));
    assert_eq!(server.list(&prefix), [keys[1].as_str(), keys[3].as_str()]);
}

#[tokio::test]
async fn an_archived_object_must_be_restored_before_it_is_read() {
    let server = StrictS3::shared();
    let (client, key) = (server.client(), format!("{}/archived", server.new_prefix()));
    server.write(&key, "content");
    let get = || client.get_object().bucket(server.bucket()).key(&key).send();
    let head = || client.head_object().bucket(server.bucket()).key(&key).send();
    let restore = client.restore_object().bucket(server.bucket()).key(&key).send().await;
    assert_eq!(refusal(restore), "403 InvalidObjectState");
    server.archive(&key);
    let error = get().await.expect_err("it is archived").into_service_error();
    let GetObjectError::InvalidObjectState(state) = error else { panic!("{error:?}") };
    assert_eq!(state.storage_class(), Some(&StorageClass::Glacier));
    let archived = head().await.expect("its head can be read");
    assert_eq!((archived.storage_class(), archived.restore()), (Some(&StorageClass::Glacier), None));
    server.restore(&key);
    assert_eq!(server.read(&key).expect("it is there"), b"content");
    let restored = head().await.expect("its head can be read");
    assert_eq!(restored.storage_class(), Some(&StorageClass::Glacier));
    assert!(restored.restore().is_some_and(|state| state.contains("ongoing-request=\"false\"")));
    put(&client, &key, b"x").storage_class(StorageClass::GlacierIr).send().await.expect("put an object");
    assert_eq!(server.read(&key).expect("this class is read at once"), b"x");
}

#[tokio::test]
async fn every_request_is_recorded_before_it_is_answered() {
    let server = StrictS3::shared();
    let prefix = server.new_prefix();
    let key = format!("{prefix}/a b=c~1");
    server.write(&key, "x");
    server.read(&key);
    server.read(&format!("{prefix}/absent"));
    server.list(&format!("{prefix}/"));
    server.remove(&key);
    let expected = [
        format!("PutObject {prefix}/a%20b=c~1 200"),
        format!("GetObject {prefix}/a%20b=c~1 200"),
        format!("GetObject {prefix}/absent 404"),
        format!("ListObjectsV2 {prefix}/ 200"),
        format!("DeleteObject {prefix}/a%20b=c~1 204"),
    ];
    assert_eq!(server.recorded_of(&prefix), expected);
    assert!(server.recorded().len() >= expected.len());
    assert_eq!(server.url(&prefix), format!("s3://{}/{prefix}", server.bucket()));
}

#[test]
fn a_program_gets_its_keys_from_the_environment() {
    let server = StrictS3::shared();
    for (variables, access_key, secret_key) in [
        (server.environment(), server.access_key(), server.secret_key().to_owned()),
        (server.reader_environment(), server.reader_access_key(), server.reader_secret_key()),
    ] {
        assert!(variables.contains(&("AWS_ACCESS_KEY_ID", access_key.to_owned())));
        assert!(variables.contains(&("AWS_SECRET_ACCESS_KEY", secret_key)));
        assert!(variables.contains(&("AWS_REGION", server.region().to_owned())));
    }
}

#[test]
fn the_server_ends_with_its_input_and_listens_on_the_loopback_interface_only() {
    let server = StrictS3::start(&[]);
    assert!(server.address().starts_with("127.0.0.1:"));
    let process = format!("/proc/{}", server.process_id());
    assert!(fs::exists(&process).expect("look at /proc"));
    assert!(server.ends_with_its_input());
    let arguments = ["--bucket", "b", "--access-key", "k", "--secret-key", "s", "--listen", "0.0.0.0:0"];
    let elsewhere = Command::new(s3_server::program()).args(arguments).output().expect("run strict-s3");
    assert!(!elsewhere.status.success());
    assert!(text(&elsewhere.stderr).contains("not on the loopback interface"), "{}", text(&elsewhere.stderr));
}
