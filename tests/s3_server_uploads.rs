//! The strict S3 server: multipart uploads.

use std::fs;

use aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::upload_part::builders::UploadPartFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, StorageClass,
};
use bytes::Bytes;
use md5::{Digest, Md5};

use crate::s3_server::StrictS3;
use crate::s3_server_rules::refusal;

/// One upload to a server, step by step.
struct Uploading<'a> {
    server: &'a StrictS3,
    client: aws_sdk_s3::Client,
    key: String,
    id: String,
    parts: Vec<CompletedPart>,
}

impl<'a> Uploading<'a> {
    async fn begin(server: &'a StrictS3, key: &str) -> Uploading<'a> {
        Uploading::begin_as(server, key, |create| create).await
    }

    async fn begin_as(
        server: &'a StrictS3,
        key: &str,
        options: impl FnOnce(CreateMultipartUploadFluentBuilder) -> CreateMultipartUploadFluentBuilder,
    ) -> Uploading<'a> {
        let client = server.client();
        let create = options(client.create_multipart_upload().bucket(server.bucket()).key(key));
        let id = create.send().await.expect("create an upload").upload_id().expect("an id").to_owned();
        Uploading { server, client, key: key.to_owned(), id, parts: Vec::new() }
    }

    fn part(&self, number: i32, content: impl Into<Bytes>) -> UploadPartFluentBuilder {
        let part = self.client.upload_part().bucket(self.server.bucket()).key(&self.key).upload_id(&self.id);
        part.part_number(number).body(ByteStream::from(content.into()))
    }

    /// Uploads the next part with the SDK's CRC32, and remembers it.
    async fn push(&mut self, content: impl Into<Bytes>) {
        let number = i32::try_from(self.parts.len() + 1).expect("few parts");
        let sent = self.part(number, content).send().await.expect("upload a part");
        self.parts.push(CompletedPart::builder().part_number(number).e_tag(sent.e_tag().expect("an ETag")).build());
    }

    fn complete_with(&self, parts: &[CompletedPart]) -> CompleteMultipartUploadFluentBuilder {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build();
        let complete = self.client.complete_multipart_upload().bucket(self.server.bucket()).key(&self.key);
        complete.upload_id(&self.id).multipart_upload(parts)
    }

    fn complete(&self) -> CompleteMultipartUploadFluentBuilder {
        self.complete_with(&self.parts)
    }
}

#[tokio::test]
async fn parts_become_one_object_when_they_are_completed_and_not_before() {
    let server = StrictS3::start(&["--min-part-bytes", "4"]);
    let mut upload = Uploading::begin_as(&server, "a", |create| {
        create.content_type("application/zstd").storage_class(StorageClass::StandardIa).tagging("kind=part")
    })
    .await;
    upload.push("0123").await;
    upload.push("45678").await;
    upload.push("9").await;
    assert_eq!((server.open_uploads("a"), server.list("")), (1, vec![]));
    let parts = server.client().list_parts().bucket(server.bucket()).key("a").upload_id(&upload.id);
    let parts = parts.send().await.expect("list parts");
    let listed: Vec<_> = parts.parts().iter().map(|part| (part.part_number(), part.size())).collect();
    assert_eq!(listed, [(Some(1), Some(4)), (Some(2), Some(5)), (Some(3), Some(1))]);
    let answer = upload.complete().send().await.expect("complete the upload");
    assert_eq!(server.open_uploads(""), 0);
    assert_eq!(server.read("a").expect("it is there"), b"0123456789");
    let digests: Vec<u8> = ["0123", "45678", "9"].iter().flat_map(Md5::digest).collect();
    let e_tag = format!("\"{}-3\"", hex::encode(Md5::digest(&digests)));
    assert_eq!(answer.e_tag(), Some(e_tag.as_str()));
    let head = server.head("a").expect("it is there");
    assert_eq!((head.bytes, head.e_tag, head.content_type.as_str()), (10, e_tag, "application/zstd"));
    assert_eq!((head.storage_class.as_str(), head.tags.len()), ("STANDARD_IA", 1));
    // The server's own checksum of the whole, as for an object put without one.
    server.write("b", "x");
    assert!(head.checksum.starts_with("CRC64NVME:"), "{}", head.checksum);
    let get = server.client().get_object().bucket(server.bucket()).key("a").range("bytes=3-8").send().await;
    let body = get.expect("get a range").body.collect().await.expect("a body").into_bytes();
    assert_eq!(&body[..], b"345678");
}

#[tokio::test]
async fn an_upload_is_gone_when_it_is_aborted_or_completed() {
    let server = StrictS3::shared();
    let prefix = server.new_prefix();
    let key = format!("{prefix}/a");
    let mut upload = Uploading::begin(server, &key).await;
    upload.push("x").await;
    let other_key = server.client().abort_multipart_upload().bucket(server.bucket()).key("b").upload_id(&upload.id);
    assert_eq!(refusal(other_key.send().await), "404 NoSuchUpload");
    let abort = || server.client().abort_multipart_upload().bucket(server.bucket()).key(&key).upload_id(&upload.id);
    assert_eq!(server.open_uploads(&prefix), 1);
    abort().send().await.expect("abort the upload");
    assert_eq!(server.open_uploads(&prefix), 0);
    assert_eq!(refusal(abort().send().await), "404 NoSuchUpload");
    assert_eq!(refusal(upload.part(2, "x").send().await), "404 NoSuchUpload");
    assert_eq!(refusal(upload.complete().send().await), "404 NoSuchUpload");
    assert!(server.read(&key).is_none());

    let mut upload = Uploading::begin(server, &key).await;
    upload.push("x").await;
    upload.complete().send().await.expect("complete the upload");
    assert_eq!(refusal(upload.complete().send().await), "404 NoSuchUpload");
    assert_eq!(server.read(&key).expect("it is there"), b"x");
}

#[tokio::test]
async fn every_part_but_the_last_must_be_large_enough() {
    let server = StrictS3::shared();
    let key = format!("{}/a", server.new_prefix());
    let least = 5 << 20;
    let mut upload = Uploading::begin(server, &key).await;
    upload.push(vec![1; least - 1]).await;
    upload.push("x").await;
    assert_eq!(refusal(upload.complete().send().await), "400 EntityTooSmall");
    upload.parts.clear();
    upload.push(vec![1; least]).await;
    upload.push("x").await;
    upload.complete().send().await.expect("a part of 5 MiB, and the last");
    assert_eq!(server.head(&key).expect("it is there").bytes, 5 * 1024 * 1024 + 1);
}

#[tokio::test]
async fn parts_are_named_in_order_and_by_their_e_tags() {
    let server = StrictS3::start(&["--min-part-bytes", "1", "--max-parts", "3"]);
    let mut upload = Uploading::begin(&server, "a").await;
    for content in ["one", "two", "three"] {
        upload.push(content).await;
    }
    for number in [0, 4, -1] {
        assert_eq!(refusal(upload.part(number, "x").send().await), "400 InvalidArgument");
    }
    let [one, two, three] = [&upload.parts[0], &upload.parts[1], &upload.parts[2]].map(Clone::clone);
    let order = upload.complete_with(&[two.clone(), one.clone()]).send().await;
    assert_eq!(refusal(order), "400 InvalidPartOrder");
    let twice = upload.complete_with(&[one.clone(), one.clone()]).send().await;
    assert_eq!(refusal(twice), "400 InvalidPartOrder");
    assert_eq!(refusal(upload.complete_with(&[]).send().await), "400 MalformedXML");
    let stranger = CompletedPart::builder().part_number(2).e_tag(one.e_tag().expect("an ETag")).build();
    assert_eq!(refusal(upload.complete_with(&[one.clone(), stranger]).send().await), "400 InvalidPart");
    let size = upload.complete().mpu_object_size(12).send().await;
    assert_eq!(refusal(size), "400 InvalidRequest");
    // A part uploaded again is another part.
    upload.part(2, "TWO").send().await.expect("upload a part again");
    assert_eq!(refusal(upload.complete().send().await), "400 InvalidPart");
    upload.complete_with(&[one, three]).send().await.expect("not every part must be used");
    assert_eq!(server.read("a").expect("it is there"), b"onethree");
}

#[tokio::test]
async fn a_part_that_is_not_what_was_claimed_is_not_taken() {
    let server = StrictS3::shared();
    let prefix = server.new_prefix();
    let upload = Uploading::begin(server, &format!("{prefix}/a")).await;
    let part = || upload.part(1, "123456789");
    assert_eq!(refusal(part().checksum_crc32("y/Q5Jw==").send().await), "400 BadDigest");
    assert_eq!(refusal(part().checksum_crc64_nvme("rosUhgp5mIk=").send().await), "400 BadDigest");
    assert_eq!(refusal(part().content_md5("JfnnlDI7RTiF9RgfG2JNDA==").send().await), "400 BadDigest");
    let sent = part().checksum_crc32_c("4waSgw==").send().await.expect("an upload without algorithm takes any");
    assert_eq!(sent.checksum_crc32_c(), Some("4waSgw=="));
    let completed = |checksum: &str| {
        let part = CompletedPart::builder().part_number(1).e_tag(sent.e_tag().expect("an ETag"));
        upload.complete_with(&[part.checksum_crc32_c(checksum).build()]).send()
    };
    assert_eq!(refusal(completed("4waSgg==").await), "400 InvalidPart");
    completed("4waSgw==").await.expect("the part's checksum is right");
}

#[tokio::test]
async fn an_upload_for_a_checksum_wants_it_with_every_part() {
    let server = StrictS3::start(&["--min-part-bytes", "1"]);
    for (algorithm, asked, kind, right, wrong) in [
        (ChecksumAlgorithm::Crc64Nvme, None, ChecksumType::FullObject, "rosUhgp5mIg=", "rosUhgp5mIk="),
        (ChecksumAlgorithm::Crc32, Some(ChecksumType::FullObject), ChecksumType::FullObject, "y/Q5Jg==", "y/Q5Jw=="),
    ] {
        let create = |create: CreateMultipartUploadFluentBuilder| {
            create.checksum_algorithm(algorithm.clone()).set_checksum_type(asked)
        };
        let mut upload = Uploading::begin_as(&server, "full", create).await;
        let other = upload.part(1, "1234").checksum_algorithm(ChecksumAlgorithm::Sha256).send().await;
        assert_eq!(refusal(other), "400 InvalidRequest");
        for (number, content) in [(1, "1234"), (2, "56789")] {
            let part = upload.part(number, content).checksum_algorithm(algorithm.clone()).send().await.expect("a part");
            let part = CompletedPart::builder().part_number(number).e_tag(part.e_tag().expect("an ETag"));
            upload.parts.push(part.build());
        }
        let complete = |value: &str| match algorithm {
            ChecksumAlgorithm::Crc32 => upload.complete().checksum_crc32(value),
            _ => upload.complete().checksum_crc64_nvme(value),
        };
        assert_eq!(refusal(complete(wrong).send().await), "400 BadDigest");
        let other_kind = complete(right).checksum_type(ChecksumType::Composite).send().await;
        assert_eq!(refusal(other_kind), "400 InvalidRequest");
        let answer = complete(right).send().await.expect("complete the upload");
        assert_eq!(answer.checksum_type(), Some(&kind));
        let head = server.head("full").expect("it is there");
        assert_eq!(head.checksum, format!("{}:{right}", algorithm.as_str()));
    }
}

#[tokio::test]
async fn a_composite_checksum_is_that_of_the_parts_checksums() {
    let server = StrictS3::start(&["--min-part-bytes", "1"]);
    let create = |create: CreateMultipartUploadFluentBuilder| create.checksum_algorithm(ChecksumAlgorithm::Sha256);
    let mut upload = Uploading::begin_as(&server, "composite", create).await;
    for (number, content) in [(1, "1234"), (2, "56789")] {
        let part = upload.part(number, content).checksum_algorithm(ChecksumAlgorithm::Sha256).send().await;
        let part = part.expect("upload a part");
        let completed = CompletedPart::builder().part_number(number).e_tag(part.e_tag().expect("an ETag"));
        upload.parts.push(completed.checksum_sha256(part.checksum_sha256().expect("a checksum")).build());
    }
    let mut silent = upload.parts.clone();
    silent[1] = CompletedPart::builder().part_number(2).e_tag(silent[1].e_tag().expect("an ETag")).build();
    assert_eq!(refusal(upload.complete_with(&silent).send().await), "400 InvalidRequest");
    let answer = upload.complete().send().await.expect("complete the upload");
    let digests: Vec<u8> = ["1234", "56789"].iter().flat_map(sha2::Sha256::digest).collect();
    let expected = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, sha2::Sha256::digest(&digests));
    assert_eq!(answer.checksum_sha256(), Some(format!("{expected}-2").as_str()));
    let get = server.client().get_object().bucket(server.bucket()).key("composite");
    let object = get.checksum_mode(ChecksumMode::Enabled).send().await.expect("get the object");
    assert_eq!(object.checksum_type(), Some(&ChecksumType::Composite));
    assert_eq!(object.body.collect().await.expect("a body").to_vec(), b"123456789");

    let create = || server.client().create_multipart_upload().bucket(server.bucket()).key("refused");
    let impossible = create().checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::Composite);
    assert_eq!(refusal(impossible.send().await), "400 InvalidRequest");
    let impossible = create().checksum_algorithm(ChecksumAlgorithm::Sha256).checksum_type(ChecksumType::FullObject);
    assert_eq!(refusal(impossible.send().await), "400 InvalidRequest");
}

#[tokio::test]
async fn parts_can_be_held_to_one_size() {
    let server = StrictS3::start(&["--min-part-bytes", "1", "--equal-parts"]);
    for (sizes, is_taken) in
        [(&[4, 4, 2][..], true), (&[4, 4, 4], true), (&[7], true), (&[4, 3, 2], false), (&[4, 4, 5], false)]
    {
        let mut upload = Uploading::begin(&server, "a").await;
        for size in sizes {
            upload.push(vec![1; *size]).await;
        }
        let answer = upload.complete().send().await;
        assert_eq!(answer.is_ok(), is_taken, "{sizes:?}");
        if !is_taken {
            assert_eq!(refusal(answer), "400 InvalidPart");
        }
    }
}

#[tokio::test]
async fn a_checksum_that_is_rejected_is_rejected_everywhere() {
    for (flags, refused) in [
        (&["--reject-checksum", "crc64nvme"][..], "501 NotImplemented"),
        (&["--reject-checksum", "crc64nvme", "--reject-with", "invalid-request"], "400 InvalidRequest"),
    ] {
        let server = StrictS3::start(flags);
        let client = server.client();
        let create = || client.create_multipart_upload().bucket(server.bucket()).key("a");
        assert_eq!(refusal(create().checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).send().await), refused);
        let upload = Uploading::begin(&server, "a").await;
        let part = upload.part(1, "x").checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).send().await;
        assert_eq!(refusal(part), refused);
        let put = client.put_object().bucket(server.bucket()).key("a").checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
        assert_eq!(refusal(put.body(ByteStream::from_static(b"x")).send().await), refused);
        upload.part(1, "x").checksum_algorithm(ChecksumAlgorithm::Crc32).send().await.expect("another is taken");
    }
}

#[tokio::test]
async fn uploads_are_listed_in_pages() {
    let server = StrictS3::start(&["--page-entries", "2"]);
    let mut begun = Vec::new();
    for key in ["a", "b", "a", "c", "a"] {
        begun.push((key.to_owned(), Uploading::begin(&server, key).await.id));
    }
    begun.sort_by(|one, other| one.0.cmp(&other.0));
    let (mut listed, mut markers) = (Vec::new(), (None, None));
    loop {
        let list = server.client().list_multipart_uploads().bucket(server.bucket());
        let page = list.set_key_marker(markers.0).set_upload_id_marker(markers.1).send().await.expect("list uploads");
        let name = |upload: &aws_sdk_s3::types::MultipartUpload| {
            (upload.key().expect("a key").to_owned(), upload.upload_id().expect("an id").to_owned())
        };
        listed.extend(page.uploads().iter().map(name));
        if page.is_truncated() != Some(true) {
            break;
        }
        markers = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
    }
    assert_eq!(listed, begun);
}

#[tokio::test]
async fn an_object_is_held_in_memory_once() {
    const PART_BYTES: usize = 16 << 20;
    let server = StrictS3::start(&[]);
    let mut upload = Uploading::begin(&server, "large").await;
    let part = Bytes::from(vec![9; PART_BYTES]);
    for _ in 0..8 {
        upload.push(part.clone()).await;
    }
    upload.complete().send().await.expect("complete the upload");
    assert_eq!(server.read("large").expect("it is there").len(), 8 * PART_BYTES);
    let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).expect("read /proc");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")).expect("a peak");
    let peak_bytes = peak.trim().parse::<usize>().expect("a number") * 1024;
    assert!(peak_bytes < 8 * PART_BYTES * 3 / 2, "{peak_bytes} bytes for an object of {} bytes", 8 * PART_BYTES);
}
