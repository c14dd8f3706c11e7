//! Frames, digests and counts: rows as COPY delivers them into zstd frames, and back. Synchronous, no I/O.
//!
//! A part is a sequence of independent zstd frames, each ending on a row boundary and holding at most
//! [`FRAME_RAW_BYTES`] of rows; a longer row is a frame of its own. Every frame carries zstd's content checksum
//! (off by default in the library: without it most single bit flips decode to wrong bytes unnoticed).

use std::fmt;
use std::str::FromStr;

use memchr::memchr_iter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_128;
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

use crate::manifest::{FRAME_RAW_BYTES, Frame};

/// The largest window a frame may ask a reader to hold: 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;
/// Compressed bytes are handed on in blocks of this size.
pub const BLOCK_BYTES: usize = 1 << 20;

/// An order-free digest of a set of rows: the sum, modulo 2^128, of XXH3-128 (seed 0) of each row as COPY delivers
/// it, without its line end. Written as 32 lower-case hex digits. Comparable only between equal columns and format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", regex(pattern = r"^[0-9a-f]{32}$"))]
pub struct RowsDigest(u128);

impl RowsDigest {
    /// Adds one row, given without its line end.
    #[inline]
    pub fn add(&mut self, row: &[u8]) {
        self.0 = self.0.wrapping_add(xxh3_128(row));
    }

    /// The digest of both sets together.
    #[must_use]
    pub fn union(self, other: RowsDigest) -> RowsDigest {
        RowsDigest(self.0.wrapping_add(other.0))
    }
}

impl fmt::Display for RowsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for RowsDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(text, 16) {
            Ok(sum) if shape => Ok(RowsDigest(sum)),
            _ => Err("a rows_digest is 32 lower-case hex digits".into()),
        }
    }
}

impl TryFrom<String> for RowsDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RowsDigest> for String {
    fn from(digest: RowsDigest) -> String {
        digest.to_string()
    }
}
