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
/// Memory is taken in steps of this size: the rows of a frame in one, a huge row as far as it really goes.
const FRAME_ROOM: usize = (8 << 20) + 1;
/// Compressed bytes are handed on in blocks of this size.
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

/// Rows on their way to the encoder: whole rows, at most [`Chunk::BYTES`] of them unless one row is longer.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The rows as COPY delivered them, line ends included.
    pub bytes: Vec<u8>,
    /// How many rows.
    pub rows: u64,
}

impl Chunk {
    /// The size at which a chunk is handed on.
    pub const BYTES: usize = 1 << 20;

    /// An empty chunk with its buffer.
    pub fn new() -> Chunk {
        Chunk { bytes: Vec::with_capacity(Self::BYTES), rows: 0 }
    }
}

/// Gathers rows into chunks and digests them on the way.
#[derive(Debug)]
pub struct Gatherer {
    chunk: Chunk,
    digest: RowsDigest,
    rows: u64,
    raw_bytes: u64,
}

impl Default for Gatherer {
    fn default() -> Self {
        Gatherer { chunk: Chunk::new(), digest: RowsDigest::default(), rows: 0, raw_bytes: 0 }
    }
}

/// What a set of rows amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Rows.
    pub rows: u64,
    /// Their bytes, line ends included.
    pub raw_bytes: u64,
    /// Their order-free digest.
    pub digest: RowsDigest,
}

/// A row that is not one line.
#[derive(Debug, thiserror::Error)]
#[error("row {row} is not one line of COPY's text format")]
pub struct NotALine {
    row: u64,
}

impl Gatherer {
    /// Takes one row with its line end. Returns a full chunk that must be handed on before this row's.
    ///
    /// # Errors
    /// When `row` does not end in a line feed: what follows would run into it.
    #[inline]
    pub fn row(&mut self, row: &[u8]) -> Result<Option<Chunk>, NotALine> {
        let Some((b'\n', line)) = row.split_last() else {
            return Err(NotALine { row: self.rows + 1 });
        };
        self.digest.add(line);
        self.rows += 1;
        self.raw_bytes += row.len() as u64;
        let full = (!self.chunk.bytes.is_empty() && self.chunk.bytes.len() + row.len() > Chunk::BYTES)
            .then(|| std::mem::replace(&mut self.chunk, Chunk::new()));
        self.chunk.bytes.extend_from_slice(row);
        self.chunk.rows += 1;
        Ok(full)
    }

    /// The last chunk, if any rows are left in it, and the tally of all rows.
    pub fn finish(self) -> (Option<Chunk>, Tally) {
        let tally = Tally { rows: self.rows, raw_bytes: self.raw_bytes, digest: self.digest };
        ((self.chunk.rows > 0).then_some(self.chunk), tally)
    }
}

/// Counts and digests rows that nothing needs to keep.
#[derive(Debug, Default)]
pub struct Tallier(Tally);

impl Tallier {
    /// Takes one row with its line end.
    ///
    /// # Errors
    /// When it does not end in a line feed.
    #[inline]
    pub fn row(&mut self, row: &[u8]) -> Result<(), NotALine> {
        let Some((b'\n', line)) = row.split_last() else {
            return Err(NotALine { row: self.0.rows + 1 });
        };
        self.0.digest.add(line);
        self.0.rows += 1;
        self.0.raw_bytes += row.len() as u64;
        Ok(())
    }

    /// What the rows amount to.
    pub fn tally(self) -> Tally {
        self.0
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
    part_limit: u64,
    block: Vec<u8>,
    hasher: Sha256,
    stored_bytes: u64,
    frame: Frame,
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
    /// part of a single frame may be larger.
    ///
    /// # Errors
    /// When the library has no memory for a context.
    pub fn new(level: i32, part_limit: u64) -> Result<Encoder, CodecError> {
        let mut context = CCtx::try_create().ok_or(CodecError::Zstd("no memory for a compression context"))?;
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(zstd_error)?;
        context.set_parameter(CParameter::ChecksumFlag(true)).map_err(zstd_error)?;
        Ok(Encoder {
            context,
            part_limit,
            block: Vec::with_capacity(BLOCK_BYTES),
            hasher: Sha256::new(),
            stored_bytes: 0,
            frame: Frame { offset: 0, stored_bytes: 0, raw_bytes: 0, rows: 0 },
            frames: Vec::new(),
        })
    }

    /// Takes a chunk; what is complete goes to `emit`.
    ///
    /// # Errors
    /// Those of the library and of `emit`.
    pub fn chunk<E: From<CodecError>>(
        &mut self,
        chunk: &Chunk,
        emit: &mut impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let raw_bytes = chunk.bytes.len() as u64;
        if self.frame.rows > 0 && self.frame.raw_bytes + raw_bytes > FRAME_RAW_BYTES {
            self.end_frame(emit)?;
        }
        if self.frame.rows == 0 && self.frame.offset > 0 {
            let most = zstd_safe::compress_bound(chunk.bytes.len().max(FRAME_ROOM)) as u64;
            if self.frame.offset + most > self.part_limit {
                self.end_part(emit)?;
            }
        }
        self.frame.rows += chunk.rows;
        self.frame.raw_bytes += raw_bytes;
        let mut input = InBuffer::around(&chunk.bytes);
        while input.pos() < chunk.bytes.len() {
            let filled = self.block.len();
            self.context
                .compress_stream(&mut OutBuffer::around_pos(&mut self.block, filled), &mut input)
                .map_err(zstd_error)?;
            self.emit_if_full(emit)?;
        }
        Ok(())
    }

    /// Ends the last part. Even a slice without rows has a part with a frame, so that its object is a valid zstd file.
    ///
    /// # Errors
    /// Those of the library and of `emit`.
    pub fn finish<E: From<CodecError>>(mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        if self.frame.rows > 0 || self.frames.is_empty() {
            self.end_frame(emit)?;
        }
        self.end_part(emit)
    }

    fn end_part<E>(&mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        if !self.block.is_empty() {
            self.hand_on(emit)?;
        }
        self.frame.offset = 0;
        emit(Piece::End(Encoded {
            stored_bytes: std::mem::take(&mut self.stored_bytes),
            sha256: hex::encode(self.hasher.finalize_reset()),
            frames: std::mem::take(&mut self.frames),
        }))
    }

    fn end_frame<E: From<CodecError>>(&mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        loop {
            let filled = self.block.len();
            let left =
                self.context.end_stream(&mut OutBuffer::around_pos(&mut self.block, filled)).map_err(zstd_error)?;
            self.emit_if_full(emit)?;
            if left == 0 {
                break;
            }
        }
        let end = self.stored_bytes + self.block.len() as u64;
        self.frames.push(Frame { stored_bytes: end - self.frame.offset, ..self.frame });
        self.frame = Frame { offset: end, stored_bytes: 0, raw_bytes: 0, rows: 0 };
        Ok(())
    }

    fn emit_if_full<E>(&mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        if self.block.len() == self.block.capacity() { self.hand_on(emit) } else { Ok(()) }
    }

    fn hand_on<E>(&mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
        self.hasher.update(&block);
        self.stored_bytes += block.len() as u64;
        emit(Piece::Block(block))
    }
}

/// Stored frames back into rows, each held against its record.
pub struct Decoder {
    context: DCtx<'static>,
}

impl Decoder {
    /// A decoder that refuses windows above 128 MiB.
    ///
    /// # Errors
    /// When the library has no memory for a context.
    pub fn new() -> Result<Decoder, CodecError> {
        let mut context = DCtx::try_create().ok_or(CodecError::Zstd("no memory for a decompression context"))?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(zstd_error)?;
        Ok(Decoder { context })
    }

    /// Decodes one stored frame into `rows`, which is emptied first, and returns its tally. Never produces more than
    /// `frame.raw_bytes`, so a small frame cannot fill the memory.
    ///
    /// # Errors
    /// When the bytes are damaged, or their size, row count or end differ from `frame`.
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
        if rows.last().is_some_and(|&last| last != b'\n') {
            return Err(wrong("does not end on a row boundary".into()));
        }
        let tally = tally_lines(rows);
        if tally.rows != frame.rows {
            return Err(wrong(format!("holds {} rows instead of {}", tally.rows, frame.rows)));
        }
        Ok(tally)
    }
}

fn tally_lines(rows: &[u8]) -> Tally {
    let mut tally = Tally { rows: 0, raw_bytes: rows.len() as u64, digest: RowsDigest::default() };
    let mut start = 0;
    for end in memchr_iter(b'\n', rows) {
        tally.digest.add(&rows[start..end]);
        tally.rows += 1;
        start = end + 1;
    }
    tally
}

impl Tally {
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
mod tests {
    use super::*;

    /// One part, and the tally of all rows.
    fn encode(rows: &[Vec<u8>]) -> (Vec<u8>, Encoded, Tally) {
        let (mut parts, tally) = encode_parts(rows, u64::MAX);
        assert_eq!(parts.len(), 1);
        let (stored, encoded) = parts.remove(0);
        (stored, encoded, tally)
    }

    fn encode_parts(rows: &[Vec<u8>], part_limit: u64) -> (Vec<(Vec<u8>, Encoded)>, Tally) {
        let (mut parts, mut stored) = (Vec::new(), Vec::new());
        let mut emit = |piece: Piece| -> Result<(), CodecError> {
            match piece {
                Piece::Block(block) => stored.extend_from_slice(&block),
                Piece::End(encoded) => parts.push((std::mem::take(&mut stored), encoded)),
            }
            Ok(())
        };
        let mut gatherer = Gatherer::default();
        let mut encoder = Encoder::new(3, part_limit).expect("an encoder");
        for row in rows {
            if let Some(chunk) = gatherer.row(row).expect("a line") {
                encoder.chunk(&chunk, &mut emit).expect("encoded");
            }
        }
        let (rest, tally) = gatherer.finish();
        if let Some(chunk) = rest {
            encoder.chunk(&chunk, &mut emit).expect("encoded");
        }
        encoder.finish(&mut emit).expect("finished");
        (parts, tally)
    }

    fn decode(stored: &[u8], frames: &[Frame]) -> Result<(Vec<u8>, Tally), CodecError> {
        let mut decoder = Decoder::new()?;
        let (mut all, mut tally, mut rows) = (Vec::new(), Tally::default(), Vec::new());
        for frame in frames {
            let range = usize::try_from(frame.offset).expect("small")
                ..usize::try_from(frame.offset + frame.stored_bytes).expect("small");
            tally = tally.union(decoder.frame(&stored[range], frame, &mut rows)?);
            all.extend_from_slice(&rows);
        }
        Ok((all, tally))
    }

    /// Rows that compress badly enough for frames to be spread over several blocks.
    fn noisy_rows(count: u64, length: usize) -> Vec<Vec<u8>> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..count)
            .map(|_| {
                let mut row: Vec<u8> = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        b'!' + u8::try_from((state >> 33) % 90).expect("below 90")
                    })
                    .collect();
                row.push(b'\n');
                row
            })
            .collect()
    }

    #[test]
    fn rows_come_back_as_they_were_with_the_same_tally() {
        let rows = noisy_rows(30_000, 700);
        let (stored, encoded, tally) = encode(&rows);
        assert_eq!(encoded.stored_bytes, stored.len() as u64);
        assert_eq!(encoded.sha256, hex::encode(Sha256::digest(&stored)));
        let (back, decoded) = decode(&stored, &encoded.frames).expect("decodes");
        assert_eq!(back, rows.concat());
        assert_eq!(decoded, tally);
        assert!(encoded.frames.len() > 2);
        assert!(encoded.frames.iter().all(|frame| frame.raw_bytes <= FRAME_RAW_BYTES));
    }

    #[test]
    fn any_zstd_reader_reads_a_part_as_one_stream() {
        let rows = noisy_rows(20_000, 600);
        let (stored, _, _) = encode(&rows);
        assert_eq!(zstd::decode_all(&stored[..]).expect("decodes"), rows.concat());
    }

    #[test]
    fn a_row_longer_than_a_frame_is_a_frame_of_its_own() {
        let mut rows = noisy_rows(3, 50);
        rows.insert(1, [vec![b'x'; 9 << 20], vec![b'\n']].concat());
        let (stored, encoded, tally) = encode(&rows);
        assert_eq!(encoded.frames.iter().map(|frame| frame.rows).collect::<Vec<_>>(), [1, 1, 2]);
        assert_eq!(decode(&stored, &encoded.frames).expect("decodes").1, tally);
    }

    #[test]
    fn what_outgrows_a_part_goes_on_in_the_next_and_every_part_stands_alone() {
        let rows = noisy_rows(50_000, 1_000);
        let limit = 20 << 20;
        let (parts, tally) = encode_parts(&rows, limit);
        assert!(parts.len() > 2, "{}", parts.len());
        let (mut back, mut decoded) = (Vec::new(), Tally::default());
        for (stored, encoded) in &parts {
            assert!(stored.len() as u64 <= limit, "{}", stored.len());
            assert_eq!(encoded.stored_bytes, stored.len() as u64);
            assert_eq!(encoded.sha256, hex::encode(Sha256::digest(stored)));
            assert_eq!(encoded.frames[0].offset, 0);
            let (rows, tally) = decode(stored, &encoded.frames).expect("decodes");
            back.extend_from_slice(&rows);
            decoded = decoded.union(tally);
        }
        assert_eq!(back, rows.concat());
        assert_eq!(decoded, tally);
    }

    #[test]
    fn no_rows_are_one_empty_frame() {
        let (stored, encoded, tally) = encode(&[]);
        assert_eq!(tally, Tally::default());
        assert_eq!(encoded.frames.len(), 1);
        assert_eq!(zstd::decode_all(&stored[..]).expect("a valid file"), b"");
        assert_eq!(decode(&stored, &encoded.frames).expect("decodes").1, tally);
    }

    #[test]
    fn no_single_bit_flip_changes_a_row_unnoticed() {
        let (stored, encoded, tally) = encode(&noisy_rows(40, 30));
        for bit in 0..stored.len() * 8 {
            let mut damaged = stored.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A few bits of a frame's header (its window size) change no row; the part's sha256 covers them.
            assert!(decode(&damaged, &encoded.frames).map_or(true, |(_, read)| read == tally), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_cut_short_or_lying_about_its_size_is_refused() {
        let (stored, encoded, _) = encode(&noisy_rows(40, 30));
        let frame = encoded.frames[0];
        let mut decoder = Decoder::new().expect("a decoder");
        let mut rows = Vec::new();
        let mut refused = |stored: &[u8], frame: &Frame| decoder.frame(stored, frame, &mut rows).is_err();
        assert!(refused(&stored[..stored.len() - 1], &frame));
        assert!(refused(&stored, &Frame { raw_bytes: frame.raw_bytes - 1, ..frame }));
        assert!(refused(&stored, &Frame { raw_bytes: frame.raw_bytes + 1, ..frame }));
        assert!(refused(&stored, &Frame { rows: frame.rows + 1, ..frame }));
        assert!(!refused(&stored, &frame));
    }

    #[test]
    fn a_small_frame_of_many_zeros_is_stopped_at_the_size_in_the_manifest() {
        let bomb = zstd::encode_all(&vec![0_u8; 64 << 20][..], 3).expect("encodes");
        let frame = Frame { offset: 0, stored_bytes: bomb.len() as u64, raw_bytes: 1_000, rows: 1 };
        let mut rows = Vec::new();
        assert!(Decoder::new().expect("a decoder").frame(&bomb, &frame, &mut rows).is_err());
        assert!(rows.capacity() < 1 << 20, "the memory follows the manifest, not the frame");
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_and_does_on_every_row() {
        let mut rows = noisy_rows(100, 20);
        let (_, _, tally) = encode(&rows);
        rows.reverse();
        assert_eq!(encode(&rows).2, tally);
        rows.push(rows[0].clone());
        assert_ne!(encode(&rows).2.digest, tally.digest, "a row twice is not a row once");
    }

    #[test]
    fn the_digest_is_the_published_one() {
        // XXH3-128 of nothing, seed 0, from the reference implementation.
        let mut digest = RowsDigest::default();
        digest.add(b"");
        assert_eq!(digest.to_string(), "99aa06d3014798d86001c324468d497f");
        assert_eq!(digest.to_string().parse::<RowsDigest>(), Ok(digest));
        assert!("99AA06d3014798d86001c324468d497f".parse::<RowsDigest>().is_err());
    }

    #[test]
    fn a_message_that_is_not_a_line_is_refused() {
        assert!(Gatherer::default().row(b"no end").is_err());
        assert!(Gatherer::default().row(b"").is_err());
    }
}
