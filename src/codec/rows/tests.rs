use proptest::prelude::*;

use super::super::tests::{decode_rows, encode_messages};
use super::super::{Decoder, Tallier};
use super::*;
use crate::codec::CodecError;
use crate::manifest::Frame;

fn csv() -> RowFormat {
    RowFormat::of(SliceFormat::Csv, &["id", "text"])
}

fn binary() -> RowFormat {
    RowFormat::of(SliceFormat::Binary, &["id", "text"])
}

/// A row in binary format.
fn tuple(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = i16::try_from(fields.len()).expect("few").to_be_bytes().to_vec();
    for field in fields {
        match field {
            None => row.extend_from_slice(&(-1_i32).to_be_bytes()),
            Some(bytes) => {
                row.extend_from_slice(&i32::try_from(bytes.len()).expect("small").to_be_bytes());
                row.extend_from_slice(bytes);
            }
        }
    }
    row
}

/// The messages that a server sends for these rows.
fn binary_messages(rows: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = rows.to_vec();
    messages.push(BINARY_TAIL.to_vec());
    messages[0] = [&BINARY_HEAD[..], &messages[0]].concat();
    messages
}

fn digest_of(rows: &[&[u8]]) -> RowsDigest {
    let mut digest = RowsDigest::default();
    rows.iter().for_each(|row| digest.add(row));
    digest
}

fn outcome(format: RowFormat, messages: &[Vec<u8>]) -> Result<Tally, NotARow> {
    let mut tallier = Tallier::new(format);
    messages.iter().try_for_each(|message| tallier.message(message))?;
    tallier.finish()
}

/// How a decoder judges these bytes, said to be so many rows.
fn decoded(format: &RowFormat, raw: &[u8], rows: u64) -> Result<Tally, CodecError> {
    let stored = zstd::encode_all(raw, 3).expect("encodes");
    let frame = Frame { offset: 0, stored_bytes: stored.len() as u64, raw_bytes: raw.len() as u64, rows };
    Decoder::new(format.clone())?.frame(&stored, &frame, &mut Vec::new())
}

const CSV_ROWS: [&[u8]; 6] =
    [b"1,plain\n", b"2,\"two\nlines\"\n", b"3,\"a \"\"quote\"\"\n\"\n", b"4,\n", b"5,\"\"\n", b"6,\"\n\\.\n\"\n"];

#[test]
fn line_feeds_between_quotes_are_the_rows_own() {
    let messages = CSV_ROWS.map(<[u8]>::to_vec);
    let tally = outcome(csv(), &messages).expect("rows");
    assert_eq!((tally.rows, tally.raw_bytes), (6, messages.concat().len() as u64));
    assert_eq!(tally.digest, digest_of(&CSV_ROWS.map(|row| &row[..row.len() - 1])));
    assert_eq!(csv().tally(&messages.concat()).expect("rows"), tally);
}

#[test]
fn a_csv_part_begins_with_its_line_of_names_and_every_reader_sees_one_file() {
    let messages = CSV_ROWS.map(<[u8]>::to_vec);
    let (parts, tally) = encode_messages(&csv(), &messages, u64::MAX);
    let (stored, encoded) = &parts[0];
    assert_eq!(
        encoded.frames.iter().map(|frame| (frame.rows, frame.raw_bytes)).collect::<Vec<_>>(),
        [(0, 8), (6, tally.raw_bytes)]
    );
    assert_eq!(zstd::decode_all(&stored[..]).expect("decodes"), [b"id,text\n".to_vec(), messages.concat()].concat());
    assert_eq!(decode_rows(&csv(), stored, &encoded.frames).expect("rows"), (messages.concat(), tally));
}

#[test]
fn a_binary_part_is_what_the_server_sent() {
    let rows = [tuple(&[Some(b"1"), None]), tuple(&[Some(b""), Some(b"PGCOPY\n\xff\xff")])];
    let messages = binary_messages(&rows);
    let (parts, tally) = encode_messages(&binary(), &messages, u64::MAX);
    let (stored, encoded) = &parts[0];
    assert_eq!(encoded.frames.iter().map(|frame| frame.rows).collect::<Vec<_>>(), [0, 2, 0]);
    assert_eq!(zstd::decode_all(&stored[..]).expect("decodes"), messages.concat());
    assert_eq!(tally.digest, digest_of(&[&rows[0], &rows[1]]));
    assert_eq!(tally.raw_bytes, rows.concat().len() as u64);
    assert_eq!(decode_rows(&binary(), stored, &encoded.frames).expect("rows"), (rows.concat(), tally));
}

#[test]
fn no_rows_are_a_header_and_a_trailer() {
    for (format, messages, lengths) in
        [(csv(), Vec::new(), vec![8]), (binary(), vec![[&BINARY_HEAD[..], &BINARY_TAIL].concat()], vec![19, 2])]
    {
        let (parts, tally) = encode_messages(&format, &messages, u64::MAX);
        assert_eq!(tally, Tally::default());
        let (stored, encoded) = &parts[0];
        assert_eq!(encoded.frames.iter().map(|frame| frame.raw_bytes).collect::<Vec<_>>(), lengths);
        assert_eq!(decode_rows(&format, stored, &encoded.frames).expect("no rows"), (Vec::new(), tally));
    }
}

#[test]
fn every_part_of_a_slice_is_a_file_of_its_own_and_stays_below_the_limit() {
    let noise = |seed: u64| -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33).to_be_bytes()[7]
        };
        (0..40_000).map(|_| next()).collect()
    };
    let rows: Vec<Vec<u8>> = (0..1_200).map(|seed| tuple(&[None, Some(&noise(seed))])).collect();
    let limit = 20 << 20;
    let (parts, tally) = encode_messages(&binary(), &binary_messages(&rows), limit);
    assert!(parts.len() > 2, "{}", parts.len());
    let mut all = (Vec::new(), Tally::default());
    for (stored, encoded) in &parts {
        assert!(stored.len() as u64 <= limit, "{}", stored.len());
        let file = zstd::decode_all(&stored[..]).expect("decodes");
        assert!(file.starts_with(&BINARY_HEAD) && file.ends_with(&BINARY_TAIL));
        let (rows, tally) = decode_rows(&binary(), stored, &encoded.frames).expect("rows");
        all = ([all.0, rows].concat(), all.1.union(tally));
    }
    assert_eq!(all, (rows.concat(), tally));
}

#[test]
fn names_of_columns_are_quoted_where_they_must_be() {
    let head = |names: &[&str]| String::from_utf8(csv_head(names)).expect("UTF-8");
    assert_eq!(head(&["a", "B c", " d ", "ä"]), "a,B c, d ,ä\n");
    assert_eq!(head(&["a,b", "c\"d", "e\nf", "g\rh", "\\."]), "\"a,b\",\"c\"\"d\",\"e\nf\",\"g\rh\",\\.\n");
    assert_eq!(head(&["\\."]), "\"\\.\"\n");
}

#[test]
fn csv_that_is_not_one_row_a_message_is_refused() {
    for message in ["", "1,a", "1,\"a\n", "1,\"a\nb\n", "1,a\n2,b\n", "1,a\n2"] {
        assert!(outcome(csv(), &[message.as_bytes().to_vec()]).is_err(), "{message:?}");
    }
}

#[test]
fn binary_data_that_does_not_come_as_a_server_sends_it_is_refused() {
    let row = tuple(&[Some(b"1"), None]);
    let [first, tail] = [&[&BINARY_HEAD[..], &row].concat()[..], &BINARY_TAIL].map(<[u8]>::to_vec);
    outcome(binary(), &[first.clone(), row.clone(), tail.clone()]).expect("as it should be");
    let flags = [&BINARY_HEAD[..11], &[0, 1, 0, 0, 0, 0, 0, 0], &row].concat();
    let extension = [&BINARY_HEAD[..15], &[0, 0, 0, 1, 7], &row].concat();
    for (problem, messages) in [
        ("no header", vec![row.clone(), tail.clone()]),
        ("nothing", vec![]),
        ("an empty message", vec![Vec::new()]),
        ("no trailer", vec![first.clone(), row.clone()]),
        ("a header twice", vec![first.clone(), first.clone(), tail.clone()]),
        ("a row after the trailer", vec![first.clone(), tail.clone(), row.clone()]),
        ("a trailer twice", vec![first.clone(), tail.clone(), tail.clone()]),
        ("two rows in a message", vec![first.clone(), [&row[..], &row].concat(), tail.clone()]),
        ("a trailer behind a row", vec![[&first[..], &tail].concat()]),
        ("flags", vec![flags, tail.clone()]),
        ("an extension", vec![extension, tail.clone()]),
        ("a field too few", vec![first.clone(), tuple(&[None]), tail.clone()]),
        ("a field too many", vec![first.clone(), tuple(&[None, None, None]), tail.clone()]),
    ] {
        assert!(outcome(binary(), &messages).is_err(), "{problem}");
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let sound = tuple(&[Some(b"abc"), Some(b"de")]);
    decoded(&binary(), &sound, 1).expect("as it should be");
    for (place, value) in [(2, -2_i32), (2, i32::MIN), (2, i32::MAX), (2, 4), (9, 3), (9, 1), (9, -1)] {
        let mut harmed = sound.clone();
        harmed[place..place + 4].copy_from_slice(&value.to_be_bytes());
        assert!(decoded(&binary(), &harmed, 1).is_err(), "{value} at {place}");
    }
    for end in 0..sound.len() {
        assert!(decoded(&binary(), &sound[..end], 1).is_err(), "cut at {end}");
    }
    assert!(decoded(&binary(), &[&sound[..], &BINARY_TAIL].concat(), 1).is_err(), "a trailer among the rows");
}

#[test]
fn a_frame_without_rows_holds_nothing_but_the_formats_own_bytes() {
    for (format, right, wrong) in [
        (csv(), vec![&b"id,text\n"[..]], vec![&b"text,id\n"[..], b"id,text", b"1,2\n"]),
        (binary(), vec![&BINARY_HEAD[..], &BINARY_TAIL], vec![&BINARY_HEAD[..18], b"\xff", b"\0\0"]),
        (RowFormat::of(SliceFormat::Text, &["a"]), vec![&b""[..]], vec![&b"\n"[..]]),
    ] {
        for raw in right {
            assert_eq!(decoded(&format, raw, 0).expect("the format's own"), Tally::default());
        }
        for raw in wrong {
            assert!(decoded(&format, raw, 0).is_err(), "{raw:?}");
        }
    }
}

#[test]
fn lines_are_no_rows_of_another_format_by_accident() {
    assert!(decoded(&csv(), b"1,\"a\n", 1).is_err(), "a frame that ends between quotes");
    assert!(decoded(&csv(), b"1,a\n2,b\n", 1).is_err(), "more rows than the manifest says");
    assert!(decoded(&csv(), b"1,\"a\nb\"\n", 2).is_err(), "lines are not rows");
    assert!(decoded(&RowFormat::of(SliceFormat::Text, &["a"]), b"1\n2", 2).is_err(), "no end");
}

proptest! {
    #[test]
    fn whatever_comes_is_rows_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..200), which in 0..3_usize) {
        let format = [csv(), binary(), RowFormat::of(SliceFormat::Text, &["a"])][which].clone();
        if let Ok(tally) = format.tally(&raw) {
            prop_assert_eq!(tally.raw_bytes, raw.len() as u64);
        }
        let with_header = [&BINARY_HEAD[..], &raw].concat();
        let _ = (outcome(format.clone(), &[raw]), outcome(format, &[with_header]));
    }

    #[test]
    fn any_binary_rows_come_back(
        rows in proptest::collection::vec(
            proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)), 2),
            1..20,
        ),
    ) {
        let rows: Vec<Vec<u8>> = rows
            .iter()
            .map(|row| tuple(&row.iter().map(|field| field.as_deref()).collect::<Vec<_>>()))
            .collect();
        let (parts, tally) = encode_messages(&binary(), &binary_messages(&rows), u64::MAX);
        prop_assert_eq!(tally.rows, rows.len() as u64);
        let decoded = decode_rows(&binary(), &parts[0].0, &parts[0].1.frames).expect("rows");
        prop_assert_eq!(decoded, (rows.concat(), tally));
    }

    #[test]
    fn any_csv_rows_come_back(rows in proptest::collection::vec("[a,\"\n\r\\\\.]{0,12}", 1..20)) {
        let rows: Vec<Vec<u8>> =
            rows.iter().map(|text| format!("1,\"{}\"\n", text.replace('"', "\"\"")).into_bytes()).collect();
        let (parts, tally) = encode_messages(&csv(), &rows, u64::MAX);
        prop_assert_eq!(tally.rows, rows.len() as u64);
        let decoded = decode_rows(&csv(), &parts[0].0, &parts[0].1.frames).expect("rows");
        prop_assert_eq!(decoded, (rows.concat(), tally));
    }
}
