//! What the server holds.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use s3s::dto::{ETag, Timestamp};
use s3s::{S3Result, s3_error};

use crate::attributes::Attributes;
use crate::checksums::{Algorithm, Checksum, Kind, Received};
use crate::uploads::Upload;

/// An object: never changed, only replaced.
#[derive(Clone, Debug)]
pub(crate) struct StoredObject {
    /// The content, as the parts in which it came.
    pub(crate) pieces: Vec<Bytes>,
    /// Without quotes.
    pub(crate) e_tag: String,
    pub(crate) checksum: Checksum,
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    pub(crate) modified: SystemTime,
    /// An archived object that can be read.
    pub(crate) restored: bool,
}

impl StoredObject {
    /// The object of one PutObject. Source: S3 API, Object: its ETag is the MD5 of its content.
    pub(crate) fn whole(received: Received, attributes: Attributes) -> StoredObject {
        StoredObject {
            e_tag: hex::encode(received.md5),
            checksum: received.checksum.expect("asked for, when the request had none"),
            pieces: vec![received.bytes],
            kind: Kind::FullObject,
            attributes,
            modified: SystemTime::now(),
            restored: false,
        }
    }

    /// An object without content that nobody put there.
    fn foreign() -> StoredObject {
        let checksum = Some(Checksum::of(Algorithm::Crc64nvme, &[]));
        let received = Received { bytes: Bytes::new(), md5: [0; 16], checksum };
        let attributes = Attributes::read(&HeaderMap::new(), None, &[]).expect("nothing is asked for");
        StoredObject::whole(received, attributes)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    pub(crate) fn tag(&self) -> ETag {
        ETag::Strong(self.e_tag.clone())
    }

    pub(crate) fn last_modified(&self) -> Timestamp {
        self.modified.into()
    }

    /// A part of the content, without copying it; the range lies within it.
    pub(crate) fn slice(&self, range: Range<u64>) -> Pieces {
        let mut position = 0;
        let mut taken = VecDeque::new();
        for piece in &self.pieces {
            let end = position + piece.len() as u64;
            let within = |at: u64| usize::try_from(at.clamp(position, end) - position).expect("within a piece");
            let part = piece.slice(within(range.start)..within(range.end));
            if !part.is_empty() {
                taken.push_back(part);
            }
            position = end;
        }
        Pieces(taken)
    }
}

/// A body in pieces.
#[derive(Debug)]
pub(crate) struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// An upload's key and id. Ids grow, so that uploads of a key are in the order of their creation.
pub(crate) type UploadName = (String, String);

/// A bucket. Keys are flat, and in the order of their UTF-8 bytes. Source: S3 guide, "Naming Amazon S3 objects".
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    pub(crate) objects: BTreeMap<String, Arc<StoredObject>>,
    pub(crate) uploads: BTreeMap<UploadName, Upload>,
}

impl Bucket {
    /// NoSuchKey when there is none.
    pub(crate) fn object(&self, key: &str) -> S3Result<&Arc<StoredObject>> {
        self.objects.get(key).ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    /// NoSuchUpload when there is none, under another key too. Source: S3 API, CompleteMultipartUpload.
    pub(crate) fn upload(&mut self, name: &UploadName) -> S3Result<&mut Upload> {
        let message = "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may \
                       have been aborted or completed.";
        self.uploads.get_mut(name).ok_or_else(|| s3_error!(NoSuchUpload, "{message}"))
    }
}

/// All buckets. What happens under one lock happens at once.
#[derive(Debug)]
pub(crate) struct Buckets(BTreeMap<String, Mutex<Bucket>>);

impl Buckets {
    /// `foreign_objects` are copies of one without content: `foreign/0000000`, …
    pub(crate) fn new(names: &[String], foreign_objects: usize) -> Buckets {
        let foreign = Arc::new(StoredObject::foreign());
        let bucket = || {
            let object = |number| (format!("foreign/{number:07}"), Arc::clone(&foreign));
            let objects = (0..foreign_objects).map(object).collect();
            Mutex::new(Bucket { objects, ..Bucket::default() })
        };
        Buckets(names.iter().map(|name| (name.clone(), bucket())).collect())
    }

    /// NoSuchBucket for a name that was not given at the start.
    pub(crate) fn lock(&self, name: &str) -> S3Result<MutexGuard<'_, Bucket>> {
        let bucket = self.0.get(name).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))?;
        Ok(bucket.lock().expect("nothing panics under this lock"))
    }
}
