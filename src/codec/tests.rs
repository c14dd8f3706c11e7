use super::*;
use crate::manifest::SliceFormat;

fn text() -> RowFormat {
    RowFormat::of(SliceFormat::Text, &["line"])
}

/// One part, and the tally of all rows.
fn encode(rows: &[Vec<u8>]) -> (Vec<u8>, Encoded, Tally) {
    let (mut parts, tally) = encode_parts(rows, u64::MAX);
    assert_eq!(parts.len(), 1);
    let (stored, encoded) = parts.remove(0);
    (stored, encoded, tally)
}

fn encode_parts(rows: &[Vec<u8>], part_limit: u64) -> (Vec<(Vec<u8>, Encoded)>, Tally) {
    encode_messages(&text(), rows, part_limit)
}

/// What a server's messages become.
pub(super) fn encode_messages(
    format: &RowFormat,
    messages: &[Vec<u8>],
    part_limit: u64,
) -> (Vec<(Vec<u8>, Encoded)>, Tally) {
    let (mut parts, mut stored) = (Vec::new(), Vec::new());
    let mut emit = |piece: Piece| -> Result<(), CodecError> {
        match piece {
            Piece::Block(block) => stored.extend_from_slice(&block),
            Piece::End(encoded) => parts.push((std::mem::take(&mut stored), encoded)),
        }
        Ok(())
    };
    let mut gatherer = Gatherer::new(format.clone());
    let mut encoder = Encoder::new(format.clone(), 3, part_limit).expect("an encoder");
    for message in messages {
        if let Some(chunk) = gatherer.message(message).expect("a row") {
            encoder.chunk(&chunk, &mut emit).expect("encoded");
        }
    }
    gatherer.end_copy().expect("an end");
    let (rest, tally) = gatherer.finish();
    if let Some(chunk) = rest {
        encoder.chunk(&chunk, &mut emit).expect("encoded");
    }
    encoder.finish(&mut emit).expect("finished");
    (parts, tally)
}

fn decode(stored: &[u8], frames: &[Frame]) -> Result<(Vec<u8>, Tally), CodecError> {
    decode_rows(&text(), stored, frames)
}

/// The rows of a part, and their tally.
pub(super) fn decode_rows(format: &RowFormat, stored: &[u8], frames: &[Frame]) -> Result<(Vec<u8>, Tally), CodecError> {
    let mut decoder = Decoder::new(format.clone())?;
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
    let mut decoder = Decoder::new(text()).expect("a decoder");
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
    assert!(Decoder::new(text()).expect("a decoder").frame(&bomb, &frame, &mut rows).is_err());
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
    assert!(Gatherer::new(text()).message(b"no end").is_err());
    assert!(Gatherer::new(text()).message(b"").is_err());
}
