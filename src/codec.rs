//! Frames, digests and counts: rows as COPY delivers them into zstd frames, and back. Synchronous, no I/O.
//!
//! A part is a sequence of independent zstd frames, each ending on a row boundary and made of one [`Chunk`] of rows; a
//! longer row is a frame of its own, and so is what a format puts before and after the rows ([`RowFormat`]). A chunk is
//! compressed in one go: fed bit by bit, zstd copies the rows into a window of its own, and finds matches across its
//! seam at half the speed. Every frame carries zstd's content checksum (off by default in the library: without it most
//! single bit flips decode to wrong bytes unnoticed).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_128;
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

use crate::manifest::{FRAME_RAW_BYTES, Frame};

/// Readers take frames of that size.
const _: () = assert!(Chunk::BYTES as u64 <= FRAME_RAW_BYTES);

mod rows;

use rows::Messages;
pub use rows::{NotARow, RowFormat};

/// The largest window a frame may ask a reader to hold: 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;
/// Memory is taken in steps of this size: the rows of a frame in one, a huge row as far as it really goes.
const FRAME_ROOM: usize = (8 << 20) + 1;
/// Compressed bytes of a longer row are handed on in blocks of this size.
pub const BLOCK_BYTES: usize = 1 << 20;

/// An order-free digest of a set of rows: the sum, modulo 2^128, of XXH3-128 (seed 0) of each row as COPY delivers
/// it, without its line end. Written as 32 lower-case hex digits. Comparable only between equal columns and format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = r"^[0-9a-f]{32}$"))]
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

/// Rows on their way to the encoder, which makes a frame of them: whole rows, at most [`Chunk::BYTES`] of them unless it
/// is one row.
#[derive(Debug)]
pub struct Chunk {
    /// The rows as COPY delivered them, line ends included.
    pub bytes: Vec<u8>,
    /// How many rows.
    pub rows: u64,
}

impl Chunk {
    /// The size at which a chunk is handed on. Larger frames pack hardly better (datanommer's rows at level 3: 0.8 % from
    /// 1 MiB to 8), smaller ones make longer manifests.
    pub const BYTES: usize = 4 << 20;

    /// An empty chunk with its buffer.
    fn new() -> Chunk {
        Chunk { bytes: Vec::with_capacity(Self::BYTES), rows: 0 }
    }
}

/// Gathers the rows of `COPY … TO STDOUT` statements into chunks and digests them on the way.
#[derive(Debug)]
pub struct Gatherer {
    format: RowFormat,
    messages: Messages,
    chunk: Chunk,
    spare: Vec<Chunk>,
    tally: Tally,
}

/// What a set of rows amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Rows.
    pub rows: u64,
    /// Their bytes, line ends included; nothing that lies around them.
    pub raw_bytes: u64,
    /// Their order-free digest.
    pub digest: RowsDigest,
}

impl Gatherer {
    /// Expects rows of that format.
    pub fn new(format: RowFormat) -> Gatherer {
        Gatherer {
            messages: Messages::new(format.clone()),
            format,
            chunk: Chunk::new(),
            spare: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Takes one message of the server. Returns a full chunk that must be handed on before this row's.
    ///
    /// # Errors
    /// When the message is not one row: what follows would run into it.
    #[inline]
    pub fn message(&mut self, message: &[u8]) -> Result<Option<Chunk>, NotARow> {
        let Some(row) = self.messages.row(message)? else { return Ok(None) };
        self.tally.add(row, self.messages.content(row));
        let full = (!self.chunk.bytes.is_empty() && self.chunk.bytes.len() + row.len() > Chunk::BYTES)
            .then(|| std::mem::replace(&mut self.chunk, self.spare.pop().unwrap_or_else(Chunk::new)));
        self.chunk.bytes.extend_from_slice(row);
        self.chunk.rows += 1;
        Ok(full)
    }

    /// Takes back the buffer of a chunk that is encoded. One that grew for a long row is let go.
    pub fn reuse(&mut self, mut encoded: Chunk) {
        if encoded.bytes.capacity() <= Chunk::BYTES {
            encoded.bytes.clear();
            encoded.rows = 0;
            self.spare.push(encoded);
        }
    }

    /// Ends one COPY; the rows of another one may follow.
    ///
    /// # Errors
    /// When the messages did not end as the format does.
    pub fn end_copy(&mut self) -> Result<(), NotARow> {
        self.messages.end()?;
        self.messages = Messages::new(self.format.clone());
        Ok(())
    }

    /// The last chunk, if any rows are left in it, and the tally of all rows.
    pub fn finish(self) -> (Option<Chunk>, Tally) {
        ((self.chunk.rows > 0).then_some(self.chunk), self.tally)
    }
}

/// Counts and digests rows that nothing needs to keep.
#[derive(Debug)]
pub struct Tallier {
    messages: Messages,
    tally: Tally,
}

impl Tallier {
    /// Expects rows of that format.
    pub fn new(format: RowFormat) -> Tallier {
        Tallier { messages: Messages::new(format), tally: Tally::default() }
    }

    /// Takes one message of the server.
    ///
    /// # Errors
    /// When it is not one row.
    #[inline]
    pub fn message(&mut self, message: &[u8]) -> Result<(), NotARow> {
        if let Some(row) = self.messages.row(message)? {
            self.tally.add(row, self.messages.content(row));
        }
        Ok(())
    }

    /// What the rows amount to.
    ///
    /// # Errors
    /// When the messages did not end as the format does.
    pub fn finish(self) -> Result<Tally, NotARow> {
        self.messages.end()?;
        Ok(self.tally)
    }
}

/// Why bytes could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The library refused.
    #[error("zstd: {0}")]
    Zstd(&'static str),
    /// The stored bytes are not what the manifest says.
    #[error("the frame at byte {offset} {problem}")]
    Frame {
        /// Where the frame starts in its part.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
}

fn zstd_error(code: usize) -> CodecError {
    CodecError::Zstd(zstd_safe::get_error_name(code))
}

/// Chunks of rows into the stored bytes of parts.
pub struct Encoder {
    context: CCtx<'static>,
    format: RowFormat,
    part_limit: u64,
    /// Where a chunk is compressed to; as large as it could become.
    compressed: Vec<u8>,
    hasher: Sha256,
    /// Of the part under way.
    stored_bytes: u64,
    frames: Vec<Frame>,
}

/// What a part came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Its size.
    pub stored_bytes: u64,
    /// SHA-256 of its bytes in hex.
    pub sha256: String,
    /// Its frames.
    pub frames: Vec<Frame>,
}

/// What an encoder hands on: the blocks of a part, then its end; a next part's blocks may follow.
#[derive(Debug)]
pub enum Piece {
    /// Stored bytes.
    Block(Vec<u8>),
    /// The part is complete.
    End(Encoded),
}

impl Encoder {
    /// An encoder at zstd's `level`. A part ends before a frame that could make it larger than `part_limit` bytes; a
    /// part with a single frame of rows may be larger.
    ///
    /// # Errors
    /// When the library has no memory for a context.
    pub fn new(format: RowFormat, level: i32, part_limit: u64) -> Result<Encoder, CodecError> {
        let mut context = CCtx::try_create().ok_or(CodecError::Zstd("no memory for a compression context"))?;
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(zstd_error)?;
        context.set_parameter(CParameter::ChecksumFlag(true)).map_err(zstd_error)?;
        Ok(Encoder {
            context,
            format,
            part_limit,
            compressed: Vec::with_capacity(zstd_safe::compress_bound(Chunk::BYTES)),
            hasher: Sha256::new(),
            stored_bytes: 0,
            frames: Vec::new(),
        })
    }

    /// Takes a chunk, which becomes a frame; what is complete goes to `emit`.
    ///
    /// # Errors
    /// Those of the library and of `emit`.
    pub fn chunk<E: From<CodecError>>(
        &mut self,
        chunk: &Chunk,
        emit: &mut impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.holds_rows() {
            let bound = |raw_bytes: usize| zstd_safe::compress_bound(raw_bytes) as u64;
            let most = bound(chunk.bytes.len()) + bound(self.format.part_tail().len());
            if self.stored_bytes + most > self.part_limit {
                self.end_part(emit)?;
            }
        }
        if self.frames.is_empty() {
            self.begin_part(emit)?;
        }
        self.frame(&chunk.bytes, chunk.rows, emit)
    }

    /// Does the part under way have frames of rows?
    fn holds_rows(&self) -> bool {
        self.frames.len() > usize::from(!self.format.part_head().is_empty())
    }

    fn begin_part<E: From<CodecError>>(&mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        let head = self.format.part_head().to_vec();
        if head.is_empty() { Ok(()) } else { self.frame(&head, 0, emit) }
    }

    /// Ends the last part. Even a slice without rows has a part with a frame, so that its object is a valid file.
    ///
    /// # Errors
    /// Those of the library and of `emit`.
    pub fn finish<E: From<CodecError>>(mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        if self.frames.is_empty() {
            self.begin_part(emit)?;
        }
        if self.frames.is_empty() {
            self.frame(&[], 0, emit)?;
        }
        self.end_part(emit)
    }

    fn end_part<E: From<CodecError>>(&mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        let tail = self.format.part_tail().to_vec();
        if !tail.is_empty() {
            self.frame(&tail, 0, emit)?;
        }
        emit(Piece::End(Encoded {
            stored_bytes: std::mem::take(&mut self.stored_bytes),
            sha256: hex::encode(self.hasher.finalize_reset()),
            frames: std::mem::take(&mut self.frames),
        }))
    }

    fn frame<E: From<CodecError>>(
        &mut self,
        raw: &[u8],
        rows: u64,
        emit: &mut impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let offset = self.stored_bytes;
        if raw.len() > Chunk::BYTES {
            self.compress_long(raw, emit)?;
        } else {
            self.context.compress2(&mut self.compressed, raw).map_err(zstd_error)?;
            let block = self.compressed.as_slice().to_vec();
            self.hand_on(block, emit)?;
        }
        self.frames.push(Frame { offset, stored_bytes: self.stored_bytes - offset, raw_bytes: raw.len() as u64, rows });
        Ok(())
    }

    /// Compresses block by block, without room for the whole.
    fn compress_long<E: From<CodecError>>(
        &mut self,
        raw: &[u8],
        emit: &mut impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut input = InBuffer::around(raw);
        loop {
            let mut block = Vec::with_capacity(BLOCK_BYTES);
            let mut output = OutBuffer::around(&mut block);
            let left = if input.pos() < raw.len() {
                self.context.compress_stream(&mut output, &mut input).map_err(zstd_error)?;
                1
            } else {
                self.context.end_stream(&mut output).map_err(zstd_error)?
            };
            if !block.is_empty() {
                self.hand_on(block, emit)?;
            }
            if left == 0 {
                return Ok(());
            }
        }
    }

    fn hand_on<E>(&mut self, block: Vec<u8>, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        self.hasher.update(&block);
        self.stored_bytes += block.len() as u64;
        emit(Piece::Block(block))
    }
}

/// Stored frames back into rows, each held against its record.
pub struct Decoder {
    context: DCtx<'static>,
    format: RowFormat,
}

impl Decoder {
    /// A decoder of parts of that format, which refuses windows above 128 MiB.
    ///
    /// # Errors
    /// When the library has no memory for a context.
    pub fn new(format: RowFormat) -> Result<Decoder, CodecError> {
        let mut context = DCtx::try_create().ok_or(CodecError::Zstd("no memory for a decompression context"))?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(zstd_error)?;
        Ok(Decoder { context, format })
    }

    /// Decodes one stored frame into `rows`, which is emptied first, and returns its tally. Never produces more than
    /// `frame.raw_bytes`, so a small frame cannot fill the memory. A frame without rows leaves `rows` empty.
    ///
    /// # Errors
    /// When the bytes are damaged, or their size, row count or end differ from `frame`; when a frame without rows holds
    /// anything but what the format puts around rows.
    pub fn frame(&mut self, stored: &[u8], frame: &Frame, rows: &mut Vec<u8>) -> Result<Tally, CodecError> {
        let wrong = |problem: String| CodecError::Frame { offset: frame.offset, problem };
        rows.clear();
        self.context.reset(zstd_safe::ResetDirective::SessionOnly).map_err(zstd_error)?;
        let expected =
            usize::try_from(frame.raw_bytes).map_err(|_| wrong("is larger than this machine's memory".into()))?;
        let mut input = InBuffer::around(stored);
        let mut ended = false;
        while !ended {
            // One byte of room past the end tells a frame that has more from one that is done.
            let room = (expected + 1 - rows.len()).min(FRAME_ROOM);
            rows.reserve_exact(room);
            let filled = rows.len();
            let before = (input.pos(), filled);
            let left = self
                .context
                .decompress_stream(&mut OutBuffer::around_pos(rows, filled), &mut input)
                .map_err(|code| wrong(format!("is damaged ({})", zstd_safe::get_error_name(code))))?;
            ended = left == 0;
            if rows.len() > expected {
                return Err(wrong(format!("holds more than the {expected} bytes of rows in the manifest")));
            }
            if !ended && (input.pos(), rows.len()) == before {
                return Err(wrong("ends too early".into()));
            }
        }
        if input.pos() != stored.len() || rows.len() != expected {
            return Err(wrong(format!("holds {} bytes of rows instead of {expected}", rows.len())));
        }
        if frame.rows == 0 {
            if !rows.is_empty() && rows != self.format.part_head() && rows != self.format.part_tail() {
                return Err(wrong("is not the header or trailer of its format".into()));
            }
            rows.clear();
            return Ok(Tally::default());
        }
        let tally = self.format.tally(rows).map_err(|problem| wrong(format!("is not made of rows: {problem}")))?;
        if tally.rows != frame.rows {
            return Err(wrong(format!("holds {} rows instead of {}", tally.rows, frame.rows)));
        }
        Ok(tally)
    }
}

impl Tally {
    /// Adds one row, `content` being what of it is digested.
    #[inline]
    fn add(&mut self, row: &[u8], content: &[u8]) {
        self.digest.add(content);
        self.rows += 1;
        self.raw_bytes += row.len() as u64;
    }

    /// Both sets together.
    #[must_use]
    pub fn union(self, other: Tally) -> Tally {
        Tally {
            rows: self.rows + other.rows,
            raw_bytes: self.raw_bytes + other.raw_bytes,
            digest: self.digest.union(other.digest),
        }
    }
}

#[cfg(test)]
mod tests;
