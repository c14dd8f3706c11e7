//! Multipart uploads. Source: S3 API, UploadPart and CompleteMultipartUpload; S3 guide, "Uploading and copying objects
//! using multipart upload".

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{CompleteMultipartUploadInput, CompletedPart};
use s3s::{S3Result, s3_error};

use crate::arguments::Limits;
use crate::attributes::Attributes;
use crate::checksums::{Algorithm, Checksum, Claims, Kind, Received};
use crate::objects::StoredObject;

/// A part that was uploaded; a later one of the same number replaces it.
#[derive(Clone, Debug)]
pub(crate) struct UploadedPart {
    pub(crate) received: Received,
    pub(crate) modified: SystemTime,
}

impl UploadedPart {
    /// The MD5 of its content, without quotes.
    pub(crate) fn e_tag(&self) -> String {
        hex::encode(self.received.md5)
    }
}

/// An upload that is neither completed nor aborted.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) attributes: Attributes,
    /// What CreateMultipartUpload said of checksums, if anything.
    pub(crate) checksums: Option<(Algorithm, Kind)>,
    pub(crate) parts: BTreeMap<i32, UploadedPart>,
    pub(crate) initiated: SystemTime,
}

impl Upload {
    /// InvalidRequest unless a part comes with the checksum that the upload was created for. An upload without
    /// algorithm takes parts with any.
    pub(crate) fn check_claims(&self, claims: &Claims) -> S3Result<()> {
        let Some((expected, _kind)) = self.checksums else { return Ok(()) };
        if claims.algorithm() == Some(expected) {
            return Ok(());
        }
        let (expected, actual) = (expected.name(), claims.algorithm().map_or("null", Algorithm::name));
        Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {actual}"
        ))
    }

    /// The object that `input` asks for; `claims` are its headers. The upload stays as it is.
    pub(crate) fn assembled(
        &self,
        input: &CompleteMultipartUploadInput,
        claims: &Claims,
        limits: &Limits,
    ) -> S3Result<StoredObject> {
        let asked = input.multipart_upload.as_ref().and_then(|upload| upload.parts.as_deref()).unwrap_or_default();
        if asked.is_empty() {
            return Err(s3_error!(MalformedXML, "You must specify at least one part"));
        }
        if asked.windows(2).any(|pair| pair[0].part_number >= pair[1].part_number) {
            return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
        }
        let parts: Vec<&UploadedPart> = asked.iter().map(|part| self.part(part)).collect::<S3Result<_>>()?;
        let sizes: Vec<usize> = parts.iter().map(|part| part.received.bytes.len()).collect();
        check_sizes(&sizes, limits)?;
        let total: usize = sizes.iter().sum();
        if input.mpu_object_size.is_some_and(|stated| usize::try_from(stated) != Ok(total)) {
            return Err(s3_error!(InvalidRequest, "The provided 'x-amz-mp-object-size' header does not match."));
        }
        let pieces: Vec<Bytes> = parts.iter().map(|part| part.received.bytes.clone()).collect();
        let (checksum, kind) = self.checksum(asked, &parts, &pieces)?;
        if input.checksum_type.as_ref().is_some_and(|stated| stated.as_str() != kind.name()) {
            return Err(s3_error!(InvalidRequest, "The upload was created with another checksum type."));
        }
        if let Some(claimed) = &claims.checksum {
            let actual = match kind {
                Kind::FullObject => Checksum::of(claimed.algorithm, &pieces),
                Kind::Composite => checksum.clone(),
            };
            if actual != *claimed {
                let name = claimed.algorithm.name();
                return Err(s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum."));
            }
        }
        let digests: Vec<u8> = parts.iter().flat_map(|part| part.received.md5).collect();
        Ok(StoredObject {
            e_tag: format!("{}-{}", hex::encode(Md5::checksum(&digests)), parts.len()),
            pieces,
            checksum,
            kind,
            attributes: self.attributes.clone(),
            modified: SystemTime::now(),
            restored: false,
        })
    }

    /// The part that was meant: InvalidPart when there is none of that number, ETag and checksum.
    fn part(&self, asked: &CompletedPart) -> S3Result<&UploadedPart> {
        let part = asked.part_number.and_then(|number| self.parts.get(&number));
        let tag = asked.e_tag.as_ref().map(|tag| tag.value());
        let same_checksum = |part: &UploadedPart| match Checksum::claimed_of_part(asked) {
            Some(claimed) => {
                let pieces = std::slice::from_ref(&part.received.bytes);
                Checksum::of(claimed.algorithm, pieces) == claimed
            }
            None => true,
        };
        part.filter(|part| tag == Some(part.e_tag().as_str()) && same_checksum(part)).ok_or_else(|| {
            s3_error!(
                InvalidPart,
                "One or more of the specified parts could not be found. The part may not have been uploaded, or the \
                 specified entity tag may not match the part's entity tag."
            )
        })
    }

    /// The whole's checksum. Source: S3 guide, "Checking object integrity": without an algorithm it is CRC64NVME of
    /// the whole; a composite one needs the checksum of every part in the request.
    fn checksum(
        &self,
        asked: &[CompletedPart],
        parts: &[&UploadedPart],
        pieces: &[Bytes],
    ) -> S3Result<(Checksum, Kind)> {
        let (algorithm, kind) = self.checksums.unwrap_or((Algorithm::Crc64nvme, Kind::FullObject));
        if kind == Kind::FullObject {
            return Ok((Checksum::of(algorithm, pieces), kind));
        }
        let stated = |part: &CompletedPart| Checksum::claimed_of_part(part).map(|checksum| checksum.algorithm);
        if let Some(part) = asked.iter().find(|part| stated(part) != Some(algorithm)) {
            let (name, number) = (algorithm.name().to_ascii_lowercase(), part.part_number.unwrap_or_default());
            return Err(s3_error!(
                InvalidRequest,
                "The upload was created using a {name} checksum. The complete request must include the checksum for \
                 each part. It was missing for part {number} in the request."
            ));
        }
        let parts: Option<Vec<Checksum>> = parts.iter().map(|part| part.received.checksum.clone()).collect();
        Ok((Checksum::composite(algorithm, &parts.expect("every part came with this checksum")), kind))
    }
}

fn check_sizes(sizes: &[usize], limits: &Limits) -> S3Result<()> {
    let Some((last, others)) = sizes.split_last() else { return Ok(()) };
    if others.iter().any(|size| *size < limits.min_part_bytes) {
        return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"));
    }
    // Source: Cloudflare R2, "Upload objects": all parts but the last must be of one size, and the last not larger.
    let differ = others.windows(2).any(|pair| pair[0] != pair[1]) || others.first().is_some_and(|size| last > size);
    if limits.equal_parts && differ {
        return Err(s3_error!(InvalidPart, "All non-trailing parts must have the same length."));
    }
    Ok(())
}
