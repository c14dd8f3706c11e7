//! Percent-encoding, and what a request's line says.

use hyper::{Method, Uri};

/// `%xx` replaced by the byte it stands for; what is no such thing stays. Bytes that are not UTF-8 become U+FFFD.
pub(crate) fn decoded(text: &str) -> String {
    decoded_where(text, |_| true)
}

/// Everything but letters, digits, `-_.~/` as `%XX`. Source: S3 API, ListObjectsV2, encoding-type.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The pairs of a query or a tag set, decoded.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| decoded(&text.replace('+', " "));
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (decoded(name), decoded(value))
    };
    query.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

/// What a request asks for: the operation's name in the S3 API, and its key; for a listing its prefix. The key stays
/// one word: spaces, control characters and `%` are not decoded. `-` when there is none.
pub(crate) fn described(method: &Method, uri: &Uri) -> (&'static str, String) {
    let query = pairs(uri.query().unwrap_or_default());
    let value = |name: &str| query.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str());
    let asks = |name: &str| value(name).is_some();
    let path = uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let operation = match (method.as_str(), bucket.is_empty(), key.is_empty()) {
        ("GET", true, _) => "ListBuckets",
        ("GET", false, true) if asks("uploads") => "ListMultipartUploads",
        ("GET", false, true) if asks("location") => "GetBucketLocation",
        ("GET", false, true) if value("list-type") == Some("2") => "ListObjectsV2",
        ("GET", false, true) if query.iter().all(|pair| pair.0 != "x-id") => "ListObjects",
        ("HEAD", false, true) => "HeadBucket",
        ("POST", false, true) if asks("delete") => "DeleteObjects",
        ("PUT", false, true) => "CreateBucket",
        ("DELETE", false, true) => "DeleteBucket",
        ("GET", false, false) if asks("uploadId") => "ListParts",
        ("GET", false, false) if asks("tagging") => "GetObjectTagging",
        ("GET", false, false) => "GetObject",
        ("HEAD", false, false) => "HeadObject",
        ("PUT", false, false) if asks("partNumber") => "UploadPart",
        ("PUT", false, false) if asks("tagging") => "PutObjectTagging",
        ("PUT", false, false) => "PutObject",
        ("DELETE", false, false) if asks("uploadId") => "AbortMultipartUpload",
        ("DELETE", false, false) if asks("tagging") => "DeleteObjectTagging",
        ("DELETE", false, false) => "DeleteObject",
        ("POST", false, false) if asks("uploads") => "CreateMultipartUpload",
        ("POST", false, false) if asks("uploadId") => "CompleteMultipartUpload",
        ("POST", false, false) if asks("restore") => "RestoreObject",
        _ => "Other",
    };
    let name = if key.is_empty() { encoded(value("prefix").unwrap_or_default()) } else { key.to_owned() };
    let one_word = decoded_where(&name, |byte| byte > b' ' && byte != b'%' && byte != 0x7f);
    (operation, if one_word.is_empty() { "-".to_owned() } else { one_word })
}

fn decoded_where(text: &str, decodes: impl Fn(u8) -> bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, after) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        let byte = after.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|byte| decodes(*byte));
        let taken = if let Some(byte) = byte {
            bytes.push(byte);
            3
        } else {
            bytes.push(b'%');
            1
        };
        rest = &after[taken..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}
