//! Checksums of bodies: what a request claims, and whether it is so. Source: S3 guide, "Checking object integrity in
//! Amazon S3".

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{CompletedPart, StreamingBlob};
use s3s::stream::ByteStream;
use s3s::{Body, S3Error, S3ErrorCode, S3Result, TrailingHeaders, s3_error};

use crate::service::bad_request;

/// Source: S3 API, PutObject: up to 5 GB in one request.
const MAX_BODY_BYTES: usize = 5 << 30;

/// An algorithm of the S3 API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    const ALL: [Algorithm; 5] =
        [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64nvme, Algorithm::Sha1, Algorithm::Sha256];

    /// Its name in the S3 API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// The algorithm of that name; InvalidRequest for any other.
    pub(crate) fn named(name: &str) -> S3Result<Algorithm> {
        let unknown = || s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported: {name}");
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name)).ok_or_else(unknown)
    }

    fn header(self) -> String {
        format!("x-amz-checksum-{}", self.name().to_ascii_lowercase())
    }

    fn bytes(self) -> usize {
        match self {
            Algorithm::Crc32 | Algorithm::Crc32c => 4,
            Algorithm::Crc64nvme => 8,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
        }
    }
}

/// How the checksum of a multipart object comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The checksum of the parts' checksums.
    Composite,
    /// The checksum of the content.
    FullObject,
}

impl Kind {
    /// Its name in the S3 API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Composite => "COMPOSITE",
            Kind::FullObject => "FULL_OBJECT",
        }
    }

    /// The kind for an upload; `asked` is the header's. Source: S3 guide, "Checking object integrity", the table of
    /// full object and composite checksum types.
    pub(crate) fn of_upload(algorithm: Algorithm, asked: Option<&str>) -> S3Result<Kind> {
        let kind = match (asked, algorithm) {
            (None | Some("FULL_OBJECT"), Algorithm::Crc64nvme) => Kind::FullObject,
            (Some("FULL_OBJECT"), Algorithm::Crc32 | Algorithm::Crc32c) => Kind::FullObject,
            (None | Some("COMPOSITE"), Algorithm::Crc32 | Algorithm::Crc32c | Algorithm::Sha1 | Algorithm::Sha256) => {
                Kind::Composite
            }
            (Some(asked), algorithm) => {
                let name = algorithm.name();
                return Err(s3_error!(InvalidRequest, "The {asked} checksum type cannot be used with {name}."));
            }
        };
        Ok(kind)
    }
}

/// A checksum, in base64 as it travels. A composite one ends with `-` and the number of parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub(crate) algorithm: Algorithm,
    pub(crate) value: String,
}

impl Checksum {
    /// The checksum of content in pieces.
    pub(crate) fn of(algorithm: Algorithm, pieces: &[Bytes]) -> Checksum {
        let mut hasher = hasher(algorithm);
        pieces.iter().for_each(|piece| hasher.update(piece));
        finished(algorithm, hasher)
    }

    /// The composite checksum of parts with these checksums.
    pub(crate) fn composite(algorithm: Algorithm, parts: &[Checksum]) -> Checksum {
        let decoded = |part: &Checksum| BASE64_STANDARD.decode(&part.value).expect("a part's checksum was computed");
        let all: Vec<u8> = parts.iter().flat_map(decoded).collect();
        let whole = Checksum::of(algorithm, &[Bytes::from(all)]);
        Checksum { algorithm, value: format!("{}-{}", whole.value, parts.len()) }
    }

    /// What a CompleteMultipartUpload says of a part.
    pub(crate) fn claimed_of_part(part: &CompletedPart) -> Option<Checksum> {
        let values = [
            (Algorithm::Crc32, &part.checksum_crc32),
            (Algorithm::Crc32c, &part.checksum_crc32c),
            (Algorithm::Crc64nvme, &part.checksum_crc64nvme),
            (Algorithm::Sha1, &part.checksum_sha1),
            (Algorithm::Sha256, &part.checksum_sha256),
        ];
        values.into_iter().find_map(|(algorithm, value)| Some(Checksum { algorithm, value: value.clone()? }))
    }
}

/// Writes a checksum into the field of an answer that is its own.
macro_rules! set_checksum {
    ($answer:expr, $checksum:expr) => {
        if let Some($crate::checksums::Checksum { algorithm, value }) = $checksum.cloned() {
            let field = match algorithm {
                $crate::checksums::Algorithm::Crc32 => &mut $answer.checksum_crc32,
                $crate::checksums::Algorithm::Crc32c => &mut $answer.checksum_crc32c,
                $crate::checksums::Algorithm::Crc64nvme => &mut $answer.checksum_crc64nvme,
                $crate::checksums::Algorithm::Sha1 => &mut $answer.checksum_sha1,
                $crate::checksums::Algorithm::Sha256 => &mut $answer.checksum_sha256,
            };
            *field = Some(value);
        }
    };
}
pub(crate) use set_checksum;

fn hasher(algorithm: Algorithm) -> ChecksumHasher {
    let mut hasher = ChecksumHasher::default();
    match algorithm {
        Algorithm::Crc32 => hasher.crc32 = Some(Crc32::new()),
        Algorithm::Crc32c => hasher.crc32c = Some(Crc32c::new()),
        Algorithm::Crc64nvme => hasher.crc64nvme = Some(Crc64Nvme::new()),
        Algorithm::Sha1 => hasher.sha1 = Some(Sha1::new()),
        Algorithm::Sha256 => hasher.sha256 = Some(Sha256::new()),
    }
    hasher
}

fn finished(algorithm: Algorithm, hasher: ChecksumHasher) -> Checksum {
    let sums = hasher.finalize();
    let value = match algorithm {
        Algorithm::Crc32 => sums.checksum_crc32,
        Algorithm::Crc32c => sums.checksum_crc32c,
        Algorithm::Crc64nvme => sums.checksum_crc64nvme,
        Algorithm::Sha1 => sums.checksum_sha1,
        Algorithm::Sha256 => sums.checksum_sha256,
    };
    Checksum { algorithm, value: value.expect("the hasher was made for this algorithm") }
}

/// What a request says of its body.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// The checksum in a header.
    pub(crate) checksum: Option<Checksum>,
    /// The algorithm of a checksum that is to follow the body.
    pub(crate) trailer: Option<Algorithm>,
    md5: Option<Vec<u8>>,
}

impl Claims {
    /// Reads the headers. Source: S3 API, PutObject, UploadPart, DeleteObjects; the messages are AWS's.
    pub(crate) fn read(headers: &HeaderMap) -> S3Result<Claims> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let sent = |algorithm: Algorithm| Some((algorithm, text(&algorithm.header())?.to_owned()));
        let mut sent: Vec<_> = Algorithm::ALL.into_iter().filter_map(sent).collect();
        if sent.len() > 1 {
            let message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
            return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
        }
        let checksum = sent.pop().map(|(algorithm, value)| Checksum { algorithm, value });
        let trailer = text("x-amz-trailer")
            .and_then(|name| name.strip_prefix("x-amz-checksum-"))
            .map(Algorithm::named)
            .transpose()?;
        if let Some(announced) = text("x-amz-sdk-checksum-algorithm").map(Algorithm::named).transpose()? {
            match checksum.as_ref().map(|checksum| checksum.algorithm).or(trailer) {
                Some(sent) if sent == announced => {}
                Some(_) => {
                    return Err(s3_error!(InvalidRequest, "Value for x-amz-sdk-checksum-algorithm header is invalid."));
                }
                None => {
                    return Err(s3_error!(
                        InvalidRequest,
                        "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or \
                         x-amz-trailer headers were found."
                    ));
                }
            }
        }
        if let Some(checksum) = &checksum {
            let digits = checksum.value.split_once('-').map_or(checksum.value.as_str(), |(digits, _parts)| digits);
            if BASE64_STANDARD.decode(digits).map(|bytes| bytes.len()).ok() != Some(checksum.algorithm.bytes()) {
                let name = checksum.algorithm.header();
                return Err(s3_error!(InvalidRequest, "Value for {name} header is invalid."));
            }
        }
        let md5 = match text("content-md5").map(|value| BASE64_STANDARD.decode(value)) {
            None => None,
            Some(Ok(md5)) if md5.len() == 16 => Some(md5),
            Some(_) => return Err(s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid.")),
        };
        Ok(Claims { checksum, trailer, md5 })
    }

    /// Does the request say nothing?
    pub(crate) fn is_empty(&self) -> bool {
        self.checksum.is_none() && self.trailer.is_none() && self.md5.is_none()
    }

    /// The algorithm of the checksum that comes with the body.
    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        self.checksum.as_ref().map(|checksum| checksum.algorithm).or(self.trailer)
    }

    /// BadDigest unless `body` is what was claimed.
    pub(crate) fn check(&self, body: &Bytes) -> S3Result<()> {
        let checksum = self.algorithm().map(|algorithm| Checksum::of(algorithm, std::slice::from_ref(body)));
        self.compare(&Md5::checksum(body), self.checksum.as_ref(), checksum.as_ref())
    }

    fn compare(&self, md5: &[u8], claimed: Option<&Checksum>, computed: Option<&Checksum>) -> S3Result<()> {
        if self.md5.as_ref().is_some_and(|claimed| claimed != md5) {
            return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
        if let Some(claimed) = claimed
            && computed.is_some_and(|computed| computed.value != claimed.value)
        {
            let name = claimed.algorithm.name();
            return Err(s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum."));
        }
        Ok(())
    }
}

/// A body that arrived whole and is what was claimed.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    pub(crate) md5: [u8; 16],
    /// The one claimed, otherwise the one that the caller asked for.
    pub(crate) checksum: Option<Checksum>,
}

/// Reads a body into one allocation of its size. IncompleteBody when it ends early, BadDigest and
/// XAmzContentSHA256Mismatch when it is not what was claimed or signed; `otherwise` is the algorithm for a body without
/// a checksum.
pub(crate) async fn receive(
    body: Option<StreamingBlob>,
    claims: &Claims,
    trailers: Option<&TrailingHeaders>,
    otherwise: Option<Algorithm>,
) -> S3Result<Received> {
    let mut body = body.map_or_else(Body::empty, Body::from);
    let algorithm = claims.algorithm().or(otherwise);
    let mut checksum = algorithm.map(hasher);
    let mut md5 = Md5::new();
    let mut bytes = Vec::with_capacity(body.remaining_length().exact().unwrap_or(0).min(MAX_BODY_BYTES));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error.to_string()))?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY_BYTES {
            return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"));
        }
        md5.update(&data);
        if let Some(checksum) = &mut checksum {
            checksum.update(&data);
        }
        bytes.extend_from_slice(&data);
    }
    let md5 = md5.finalize();
    let checksum = algorithm.zip(checksum).map(|(algorithm, hasher)| finished(algorithm, hasher));
    let trailer = claims.trailer.map(|algorithm| {
        let value = trailers.and_then(|trailers| {
            trailers.read(|headers| Some(headers.get(algorithm.header())?.to_str().ok()?.to_owned())).flatten()
        });
        let missing = || s3_error!(InvalidRequest, "The trailer that was announced is missing");
        value.map(|value| Checksum { algorithm, value }).ok_or_else(missing)
    });
    let trailer = trailer.transpose()?;
    claims.compare(&md5, claims.checksum.as_ref().or(trailer.as_ref()), checksum.as_ref())?;
    bytes.shrink_to_fit();
    Ok(Received { bytes: bytes.into(), md5, checksum })
}

/// `s3s` keeps the kinds of these errors to itself.
fn broken(error: &str) -> S3Error {
    if error.contains("Sha256Mismatch") {
        let message = "The provided 'x-amz-content-sha256' header does not match what was computed.";
        bad_request("XAmzContentSHA256Mismatch", message)
    } else if error.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "A chunk's signature does not match")
    } else {
        s3_error!(IncompleteBody, "You did not provide the number of bytes specified: {error}")
    }
}
