//! The strict S3 server: conditional requests, and the dialects that break them.

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use tokio::task::JoinSet;

use crate::s3_server::StrictS3;
use crate::s3_server_rules::refusal;

fn put(client: &Client, key: &str, content: &str) -> PutObjectFluentBuilder {
    let body = ByteStream::from(content.as_bytes().to_vec());
    client.put_object().bucket("pgslice-tests").key(key).body(body)
}

/// Uploads one part; returns the upload's id and the list to complete it with.
async fn uploaded(client: &Client, key: &str, content: &'static str) -> (String, CompletedMultipartUpload) {
    let create = client.create_multipart_upload().bucket("pgslice-tests").key(key).send().await;
    let id = create.expect("create an upload").upload_id().expect("an id").to_owned();
    let part = client.upload_part().bucket("pgslice-tests").key(key).upload_id(&id).part_number(1);
    let part = part.body(ByteStream::from_static(content.as_bytes())).send().await.expect("upload a part");
    let part = CompletedPart::builder().part_number(1).e_tag(part.e_tag().expect("an ETag")).build();
    (id, CompletedMultipartUpload::builder().parts(part).build())
}

/// How many of 16 writers, each with the same condition and its own content, say that they have written.
async fn winners(
    client: &Client,
    key: &str,
    condition: impl Fn(PutObjectFluentBuilder) -> PutObjectFluentBuilder,
) -> Vec<usize> {
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let put = condition(put(client, key, &format!("writer {writer}")));
        writers.spawn(async move { (writer, put.send().await) });
    }
    let mut winners = Vec::new();
    for (writer, answer) in writers.join_all().await {
        match answer {
            Ok(_) => winners.push(writer),
            refused => assert_eq!(refusal(refused), "412 PreconditionFailed"),
        }
    }
    winners
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_create_one_wins() {
    let server = StrictS3::shared();
    let (client, key) = (server.client(), format!("{}/created", server.new_prefix()));
    let winners = winners(&client, &key, |put| put.if_none_match("*")).await;
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(server.read(&key).expect("it is there"), format!("writer {}", winners[0]).into_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_replace_one_wins() {
    let server = StrictS3::shared();
    let (client, key) = (server.client(), format!("{}/replaced", server.new_prefix()));
    server.write(&key, "before");
    let e_tag = server.head(&key).expect("it is there").e_tag;
    let winners = winners(&client, &key, |put| put.if_match(&e_tag)).await;
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(server.read(&key).expect("it is there"), format!("writer {}", winners[0]).into_bytes());
}

#[tokio::test]
async fn a_put_with_a_condition_that_does_not_hold_changes_nothing() {
    let server = StrictS3::shared();
    let (client, prefix) = (server.client(), server.new_prefix());
    let key = format!("{prefix}/a");
    put(&client, &key, "first").if_none_match("*").send().await.expect("there was none");
    assert_eq!(refusal(put(&client, &key, "x").if_none_match("*").send().await), "412 PreconditionFailed");
    let e_tag = server.head(&key).expect("it is there").e_tag;
    assert_eq!(refusal(put(&client, &key, "x").if_match("\"0123\"").send().await), "412 PreconditionFailed");
    let absent = format!("{prefix}/absent");
    assert_eq!(refusal(put(&client, &absent, "x").if_match(&e_tag).send().await), "404 NoSuchKey");
    assert_eq!(refusal(put(&client, &key, "x").if_none_match(&e_tag).send().await), "501 NotImplemented");
    assert_eq!(refusal(put(&client, &key, "x").if_match("*").send().await), "501 NotImplemented");
    let both = put(&client, &key, "x").if_match(&e_tag).if_none_match("*").send().await;
    assert_eq!(refusal(both), "501 NotImplemented");
    assert_eq!(server.read(&key).expect("it is there"), b"first");
    assert!(server.read(&absent).is_none());
    let delete = |tag: &str| client.delete_object().bucket(server.bucket()).key(&key).if_match(tag).send();
    assert_eq!(refusal(delete("\"0123\"").await), "412 PreconditionFailed");
    put(&client, &key, "second").if_match(&e_tag).send().await.expect("nobody had replaced it");
    assert_eq!(server.read(&key).expect("it is there"), b"second");
    delete(&server.head(&key).expect("it is there").e_tag).await.expect("it is that one");
    assert!(server.read(&key).is_none());
}

#[tokio::test]
async fn a_completion_that_lost_leaves_its_upload_open() {
    let server = StrictS3::shared();
    let (client, prefix) = (server.client(), server.new_prefix());
    let key = format!("{prefix}/a");
    let (id, parts) = uploaded(&client, &key, "uploaded").await;
    let complete = || {
        let complete = client.complete_multipart_upload().bucket(server.bucket()).key(&key).upload_id(&id);
        complete.multipart_upload(parts.clone())
    };
    assert_eq!(refusal(complete().if_match("\"0123\"").send().await), "404 NoSuchKey");
    server.write(&key, "first");
    assert_eq!(refusal(complete().if_none_match("*").send().await), "412 PreconditionFailed");
    assert_eq!(refusal(complete().if_match("\"0123\"").send().await), "412 PreconditionFailed");
    assert_eq!(server.read(&key).expect("it is there"), b"first");
    assert_eq!(server.open_uploads(&prefix), 1);
    let e_tag = server.head(&key).expect("it is there").e_tag;
    complete().if_match(e_tag).send().await.expect("nobody had replaced it");
    assert_eq!(server.read(&key).expect("it is there"), b"uploaded");
    assert_eq!(server.open_uploads(&prefix), 0);
}

#[tokio::test]
async fn a_read_with_a_condition_says_if_the_object_changed() {
    let server = StrictS3::shared();
    let (client, key) = (server.client(), format!("{}/a", server.new_prefix()));
    server.write(&key, "content");
    let e_tag = server.head(&key).expect("it is there").e_tag;
    let get = || client.get_object().bucket(server.bucket()).key(&key);
    let unchanged = get().if_none_match(&e_tag).send().await.expect_err("it has not changed");
    assert_eq!(unchanged.raw_response().map(|answer| answer.status().as_u16()), Some(304));
    get().if_none_match("\"0123\"").send().await.expect("it is another one");
    get().if_match(&e_tag).send().await.expect("it is this one");
    assert_eq!(refusal(get().if_match("\"0123\"").send().await), "412 PreconditionFailed");
    let head = client.head_object().bucket(server.bucket()).key(&key).if_match("\"0123\"").send().await;
    assert_eq!(head.expect_err("it is another one").raw_response().map(|answer| answer.status().as_u16()), Some(412));
    // Connections survive answers without content.
    assert_eq!(server.read(&key).expect("it is there"), b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_racy_server_lets_several_writers_win() {
    let server = StrictS3::start(&["--racy-conditions"]);
    let client = server.client();
    let creators = winners(&client, "a", |put| put.if_none_match("*")).await;
    assert!(creators.len() > 1, "{creators:?}");
    let e_tag = server.head("a").expect("it is there").e_tag;
    let replacers = winners(&client, "a", |put| put.if_match(&e_tag)).await;
    assert!(replacers.len() > 1, "{replacers:?}");
    assert_eq!(refusal(put(&client, "a", "x").if_none_match("*").send().await), "412 PreconditionFailed");
}

#[tokio::test]
async fn conditions_can_be_ignored_or_refused() {
    let ignoring = StrictS3::start(&["--ignore-if-none-match"]);
    let client = ignoring.client();
    ignoring.write("a", "first");
    put(&client, "a", "second").if_none_match("*").send().await.expect("it is ignored");
    assert_eq!(ignoring.read("a").expect("it is there"), b"second");
    assert_eq!(refusal(put(&client, "a", "x").if_match("\"0123\"").send().await), "412 PreconditionFailed");

    let ignoring = StrictS3::start(&["--ignore-if-match"]);
    let client = ignoring.client();
    put(&client, "a", "first").if_match("\"0123\"").send().await.expect("it is ignored");
    assert_eq!(refusal(put(&client, "a", "x").if_none_match("*").send().await), "412 PreconditionFailed");

    let ignoring = StrictS3::start(&["--ignore-conditions-on-complete"]);
    let client = ignoring.client();
    ignoring.write("a", "first");
    assert_eq!(refusal(put(&client, "a", "x").if_none_match("*").send().await), "412 PreconditionFailed");
    let (id, parts) = uploaded(&client, "a", "uploaded").await;
    let complete = client.complete_multipart_upload().bucket(ignoring.bucket()).key("a").upload_id(id);
    complete.multipart_upload(parts).if_none_match("*").send().await.expect("it is ignored");
    assert_eq!(ignoring.read("a").expect("it is there"), b"uploaded");

    let refusing = StrictS3::start(&["--refuse-conditions"]);
    let client = refusing.client();
    assert_eq!(refusal(put(&client, "a", "x").if_none_match("*").send().await), "501 NotImplemented");
    assert_eq!(refusal(put(&client, "a", "x").if_match("\"0123\"").send().await), "501 NotImplemented");
    put(&client, "a", "x").send().await.expect("without a condition it writes");
}
