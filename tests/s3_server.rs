//! The strict S3 server of `tests/strict_s3`, started by tests, and what they look at in it.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, OnceLock, mpsc};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::StorageClass;
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

/// The bucket of every server that tests start.
const BUCKET: &str = "pgslice-tests";
const REGION: &str = "eu-test-1";

/// Where the synchronous methods run; their connections live as long as it does.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("start a runtime")
});

/// The example program, beside the program under test.
pub(crate) fn program() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_pgslice")).with_file_name("examples").join("strict-s3");
    assert!(path.exists(), "{} is missing: cargo build --example strict-s3", path.display());
    path
}

/// Runs `future` to its end, inside of asynchronous tests and outside.
fn wait<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    RUNTIME.spawn(async move { sender.send(future.await) });
    receiver.recv().expect("the request did not panic")
}

/// A server process. It ends with the value, and with the test process however that ends.
///
/// The synchronous methods take whole keys, panic on anything unexpected, and may be called from asynchronous tests.
pub(crate) struct StrictS3 {
    process: Child,
    endpoint: String,
    secret_key: String,
    record: File,
    client: Client,
}

/// An object without its content. An attribute that it does not have is empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) bytes: i64,
    /// With quotes.
    pub(crate) e_tag: String,
    pub(crate) content_type: String,
    pub(crate) cache_control: String,
    pub(crate) content_encoding: String,
    /// `STANDARD` too.
    pub(crate) storage_class: String,
    pub(crate) encryption: String,
    pub(crate) kms_key_id: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tags: BTreeMap<String, String>,
    /// The algorithm's name, `:`, the value in base64.
    pub(crate) checksum: String,
}

impl fmt::Debug for StrictS3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoint)
    }
}

impl StrictS3 {
    /// Starts a server of its own; `flags` are those of `strict-s3 --help`.
    pub(crate) fn start(flags: &[&str]) -> StrictS3 {
        let secret_key = format!("{:032x}", rand::random::<u128>());
        let record = NamedTempFile::with_prefix("pgslice-strict-s3-").expect("create a file");
        let mut process = Command::new(program())
            .args(["--bucket", BUCKET, "--region", REGION, "--until-stdin-closes", "--record"])
            .arg(record.path())
            .args(flags)
            .env("STRICT_S3_ACCESS_KEY", "writer")
            .env("STRICT_S3_SECRET_KEY", &secret_key)
            .env("STRICT_S3_READER_ACCESS_KEY", "reader")
            .env("STRICT_S3_READER_SECRET_KEY", secret_of_reader(&secret_key))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start strict-s3");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("read from strict-s3");
        let endpoint = line.strip_prefix("listening on ").expect("strict-s3 started; if not, it said why").trim_end();
        let client = client(endpoint, "writer", &secret_key);
        // Both have it open; without a name there is nothing to clean up.
        let record = record.into_file();
        StrictS3 { process, endpoint: endpoint.to_owned(), secret_key, record, client }
    }

    /// One server for all tests that have no flags of their own. Each takes its own [`StrictS3::new_prefix`].
    pub(crate) fn shared() -> &'static StrictS3 {
        static SHARED: OnceLock<StrictS3> = OnceLock::new();
        SHARED.get_or_init(|| StrictS3::start(&[]))
    }

    /// `http://127.0.0.1:PORT`; path-style addresses only.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `127.0.0.1:PORT`, for a proxy.
    pub(crate) fn address(&self) -> &str {
        self.endpoint.strip_prefix("http://").expect("it is plain HTTP")
    }

    /// The only bucket.
    pub(crate) fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The only region; signatures for another one are refused.
    pub(crate) fn region(&self) -> &'static str {
        REGION
    }

    /// The access key that may do everything.
    pub(crate) fn access_key(&self) -> &'static str {
        "writer"
    }

    /// Its secret.
    pub(crate) fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The access key that may only read.
    pub(crate) fn reader_access_key(&self) -> &'static str {
        "reader"
    }

    /// Its secret.
    pub(crate) fn reader_secret_key(&self) -> String {
        secret_of_reader(&self.secret_key)
    }

    /// What makes a program use the writer's key: variables of the SDK's credential chain.
    pub(crate) fn environment(&self) -> [(&'static str, String); 4] {
        variables(self.access_key(), self.secret_key.clone())
    }

    /// What makes a program use the reader's key.
    pub(crate) fn reader_environment(&self) -> [(&'static str, String); 4] {
        variables(self.reader_access_key(), self.reader_secret_key())
    }

    /// A prefix that no other test of this process uses, without slashes.
    pub(crate) fn new_prefix(&self) -> String {
        static PREFIXES: AtomicU32 = AtomicU32::new(0);
        format!("t{:04}", PREFIXES.fetch_add(1, Ordering::Relaxed))
    }

    /// `s3://BUCKET/prefix`.
    pub(crate) fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// The process, for its memory in `/proc`.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// A new client with the writer's key. It belongs to the runtime that first uses it.
    pub(crate) fn client(&self) -> Client {
        client(&self.endpoint, self.access_key(), &self.secret_key)
    }

    /// A new client with any key, by way of any address.
    pub(crate) fn client_with(&self, endpoint: &str, access_key: &str, secret_key: &str) -> Client {
        client(endpoint, access_key, secret_key)
    }

    /// All keys that begin with `prefix`, ascending.
    pub(crate) fn list(&self, prefix: &str) -> Vec<String> {
        let request = self.client.list_objects_v2().bucket(BUCKET).prefix(prefix);
        wait(async move {
            let mut pages = request.into_paginator().send();
            let mut keys = Vec::new();
            while let Some(page) = pages.next().await {
                let page = page.expect("list objects");
                keys.extend(page.contents().iter().filter_map(|object| Some(object.key()?.to_owned())));
            }
            keys
        })
    }

    /// The content, if the object is there.
    pub(crate) fn read(&self, key: &str) -> Option<Vec<u8>> {
        let request = self.client.get_object().bucket(BUCKET).key(key);
        wait(async move {
            match request.send().await {
                Ok(object) => Some(object.body.collect().await.expect("read an object").to_vec()),
                Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => None,
                Err(error) => panic!("get an object: {error:?}"),
            }
        })
    }

    /// Writes without conditions, in place of what is there.
    pub(crate) fn write(&self, key: &str, content: impl Into<Vec<u8>>) {
        self.write_as(key, content.into(), StorageClass::Standard);
    }

    fn write_as(&self, key: &str, content: Vec<u8>, storage_class: StorageClass) {
        let body = ByteStream::from(content);
        let request = self.client.put_object().bucket(BUCKET).key(key).storage_class(storage_class).body(body);
        wait(async move { request.send().await.expect("put an object") });
    }

    /// Removes an object; no matter if it was there.
    pub(crate) fn remove(&self, key: &str) {
        let request = self.client.delete_object().bucket(BUCKET).key(key);
        wait(async move { request.send().await.expect("delete an object") });
    }

    /// The object in class GLACIER with the same content and no attributes, as a lifecycle rule would leave it: until
    /// it is restored it cannot be read.
    pub(crate) fn archive(&self, key: &str) {
        let content = self.read(key).expect("it is there");
        self.write_as(key, content, StorageClass::Glacier);
    }

    /// Makes an archived object readable.
    pub(crate) fn restore(&self, key: &str) {
        let request = self.client.restore_object().bucket(BUCKET).key(key);
        wait(async move { request.send().await.expect("restore an object") });
    }

    /// Everything but the content, if the object is there.
    pub(crate) fn head(&self, key: &str) -> Option<Head> {
        use aws_sdk_s3::types::ChecksumMode::Enabled;
        let request = self.client.head_object().bucket(BUCKET).key(key).checksum_mode(Enabled);
        let tagging = self.client.get_object_tagging().bucket(BUCKET).key(key);
        wait(async move {
            let head = match request.send().await {
                Ok(head) => head,
                Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => return None,
                Err(error) => panic!("head an object: {error:?}"),
            };
            let tags = tagging.send().await.expect("get an object's tags");
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            let checksums = [
                ("CRC32", head.checksum_crc32()),
                ("CRC32C", head.checksum_crc32_c()),
                ("CRC64NVME", head.checksum_crc64_nvme()),
                ("SHA1", head.checksum_sha1()),
                ("SHA256", head.checksum_sha256()),
            ];
            let checksums = checksums.iter().filter_map(|(name, value)| Some(format!("{name}:{}", (*value)?)));
            Some(Head {
                bytes: head.content_length().expect("a length"),
                e_tag: text(head.e_tag()),
                content_type: text(head.content_type()),
                cache_control: text(head.cache_control()),
                content_encoding: text(head.content_encoding()),
                storage_class: head.storage_class().map_or("STANDARD", StorageClass::as_str).to_owned(),
                encryption: text(head.server_side_encryption().map(|algorithm| algorithm.as_str())),
                kms_key_id: text(head.ssekms_key_id()),
                metadata: head.metadata().cloned().unwrap_or_default().into_iter().collect(),
                tags: tags.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect(),
                checksum: checksums.collect(),
            })
        })
    }

    /// How many multipart uploads of keys that begin with `prefix` are neither completed nor aborted.
    pub(crate) fn open_uploads(&self, prefix: &str) -> usize {
        let request = self.client.list_multipart_uploads().bucket(BUCKET).prefix(prefix);
        wait(async move {
            let answer = request.send().await.expect("list uploads");
            assert_eq!(answer.is_truncated(), Some(false), "tests leave fewer than a page");
            answer.uploads().len()
        })
    }

    /// A line `OPERATION key status` for every request so far, in the order of their answers, this handle's own
    /// requests too. The key of a listing is its prefix; without a key `-`.
    pub(crate) fn recorded(&self) -> Vec<String> {
        let length = self.record.metadata().expect("ask for a file's length").len();
        let mut content = vec![0; usize::try_from(length).expect("a file that fits")];
        self.record.read_exact_at(&mut content, 0).expect("read the record");
        let content = String::from_utf8(content).expect("the record is UTF-8");
        content.lines().map(str::to_owned).collect()
    }

    /// The lines of [`StrictS3::recorded`] whose key begins with `prefix`: on the shared server those of one test.
    pub(crate) fn recorded_of(&self, prefix: &str) -> Vec<String> {
        let key_matches = |line: &String| line.split(' ').nth(1).is_some_and(|key| key.starts_with(prefix));
        self.recorded().into_iter().filter(key_matches).collect()
    }

    /// Closes the server's input and waits for its end: true if it ended well.
    pub(crate) fn ends_with_its_input(mut self) -> bool {
        drop(self.process.stdin.take());
        self.process.wait().expect("wait for strict-s3").success()
    }
}

impl Drop for StrictS3 {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn secret_of_reader(secret_of_writer: &str) -> String {
    secret_of_writer.chars().rev().collect()
}

fn variables(access_key: &str, secret_key: String) -> [(&'static str, String); 4] {
    [
        ("AWS_ACCESS_KEY_ID", access_key.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret_key),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}

fn client(endpoint: &str, access_key: &str, secret_key: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "tests"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}
