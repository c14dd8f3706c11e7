//! Slices from a publisher who means harm, or whose COPY is not PostgreSQL's: all hashes and sums are right, the rows are not.

use pgslice::codec::RowsDigest;
use pgslice::feed::DayEntry;
use pgslice::manifest::Manifest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::pair::{NOTES, Pair, entry_of, notes};
use crate::scene::Ran;

const DAY: &str = "2024-05-01";

/// A day of five notes in `format`, published and not applied.
fn pending(format: &str) -> Pair {
    let tables = format!("[[table]]\nname = \"notes\"\ntime-column = \"at\"\nformat = \"{format}\"\n");
    let pair = Pair::new(NOTES, &tables);
    pair.source.psql(&notes(1));
    pair.export(DAY);
    pair
}

/// A part made of these frames, each with the rows that its record claims.
struct Forgery<'a> {
    frames: &'a [(&'a [u8], u64)],
    /// What the digest is made of.
    digested: &'a [&'a [u8]],
}

impl Forgery<'_> {
    /// Puts it in the place of the published part, with everything that names it made to fit.
    fn place(&self, pair: &Pair) {
        let (mut stored, mut frames) = (Vec::new(), Vec::new());
        for (raw, rows) in self.frames {
            let frame = zstd::encode_all(*raw, 3).expect("encodes");
            frames.push(json!({
                "offset": stored.len(), "stored_bytes": frame.len(), "raw_bytes": raw.len(), "rows": rows
            }));
            stored.extend(frame);
        }
        let mut digest = RowsDigest::default();
        self.digested.iter().for_each(|row| digest.add(row));
        let rows: u64 = self.frames.iter().map(|(_, rows)| rows).sum();
        let row_bytes: usize = self.frames.iter().filter(|(_, rows)| *rows > 0).map(|(raw, _)| raw.len()).sum();
        pair.place().write(&pair.part_key(DAY, "notes"), &stored);
        forge(pair, |slice| {
            slice["rows"] = rows.into();
            slice["raw_bytes"] = row_bytes.into();
            slice["stored_bytes"] = stored.len().into();
            slice["rows_digest"] = digest.to_string().into();
            let part = &mut slice["parts"][0];
            part["stored_bytes"] = stored.len().into();
            part["sha256"] = hex::encode(Sha256::digest(&stored)).into();
            part["frames"] = frames.into();
        });
    }
}

/// Changes the slice, and what feed.json says of its day.
fn forge(pair: &Pair, edit: impl FnOnce(&mut Value)) {
    pair.forge(DAY, |manifest| edit(&mut manifest["slices"][0]));
    let manifest: Manifest = serde_json::from_value(pair.manifest(DAY)).expect("a manifest");
    pair.edit_head(|head| {
        let entry = entry_of(head, DAY);
        let reference = serde_json::from_value(entry["manifest"].clone()).expect("a reference");
        *entry = serde_json::to_value(DayEntry::of(&manifest, reference)).expect("an entry");
    });
}

/// Nothing of the day is on the replica.
#[track_caller]
fn refuses(pair: &Pair, codes: &[i32], words: &str) -> Ran {
    let refused = pair.catchup(&[]);
    assert!(codes.contains(&refused.code), "{words}\n{refused}");
    assert!(refused.stderr.contains(words), "{words}\n{refused}");
    assert!(!refused.stderr.contains("panicked"), "{refused}");
    assert_eq!(pair.replica.psql("SELECT count(*) FROM notes"), "0", "{refused}");
    assert_eq!(pair.ledger("day"), "", "{refused}");
    refused
}

const NAMES: &[u8] = b"id,at,body\n";
const ONE: &[u8] = b"1,2024-05-01 10:00:00+00,one\n";
const TWO: &[u8] = b"2,2024-05-01 10:00:00+00,\"t\nwo\"\n";

fn content(row: &[u8]) -> &[u8] {
    row.strip_suffix(b"\n").unwrap_or(row)
}

#[test]
fn a_forgery_with_nothing_wrong_in_it_is_applied() {
    let pair = pending("csv");
    let rows = [ONE, TWO].concat();
    Forgery { frames: &[(NAMES, 0), (&rows, 2)], digested: &[content(ONE), content(TWO)] }.place(&pair);
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT id, body FROM notes ORDER BY id"), "1|one\n2|t\nwo");

    let pair = pending("binary");
    let row = tuple(&[Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 0, 0, 0]), None]);
    Forgery { frames: &[(HEADER, 0), (&row, 1), (TRAILER, 0)], digested: &[&row] }.place(&pair);
    pair.catchup(&[]).exits(0);
    assert_eq!(pair.replica.psql("SELECT id, at AT TIME ZONE 'UTC' FROM notes"), "1|2000-01-01 00:00:00");
}

#[test]
fn csv_that_is_not_what_its_manifest_says() {
    let pair = pending("csv");
    let open: &[u8] = b"1,2024-05-01 10:00:00+00,\"one\n";
    let two_lines = [ONE, ONE].concat();
    for (frames, digested, words) in [
        (&[(&b"at,id,body\n"[..], 0), (ONE, 1)][..], ONE, "is not the header or trailer of its format"),
        (&[(NAMES, 0), (open, 1)], open, "is not made of rows: row 1 does not end"),
        (&[(NAMES, 0), (&two_lines, 1)], ONE, "holds 2 rows instead of 1"),
        (&[(NAMES, 0), (TWO, 2)], TWO, "holds 1 rows instead of 2"),
        (&[(NAMES, 0), (content(ONE), 1)], content(ONE), "is not made of rows: row 1 does not end"),
    ] {
        Forgery { frames, digested: &[content(digested)] }.place(&pair);
        refuses(&pair, &[4], words);
    }
}

#[test]
fn a_line_that_ends_the_data_for_some_servers_hides_no_rows() {
    let pair = pending("csv");
    let end: &[u8] = b"\\.\n";
    let rows = [ONE, end, TWO].concat();
    Forgery { frames: &[(NAMES, 0), (&rows, 3)], digested: &[content(ONE), content(end), content(TWO)] }.place(&pair);
    // Before PostgreSQL 18 the server stops there and counts one row; from then on it is a row with a field too few.
    refuses(&pair, &[1, 4], "2024-05-01 public.notes");
}

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: &[u8] = b"\xff\xff";

/// A row in binary format.
fn tuple(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = i16::try_from(fields.len()).expect("few").to_be_bytes().to_vec();
    for field in fields {
        let length = field.map_or(-1, |bytes| i32::try_from(bytes.len()).expect("short"));
        row.extend(length.to_be_bytes());
        row.extend(field.unwrap_or_default());
    }
    row
}

#[test]
fn binary_data_that_is_not_what_its_manifest_says() {
    let pair = pending("binary");
    let (id, at): (&[u8], &[u8]) = (&[0, 0, 0, 1], &[0, 2, 0xbb, 0xa8, 0, 0, 0, 0]);
    let sound = tuple(&[Some(id), Some(at), None]);
    let narrow = tuple(&[Some(id), Some(at)]);
    let wide = tuple(&[Some(id), Some(at), None, None]);
    let ended = [&sound[..], TRAILER].concat();
    let mut endless = sound.clone();
    endless[2..6].copy_from_slice(&i32::MAX.to_be_bytes());
    let mut negative = sound.clone();
    negative[2..6].copy_from_slice(&i32::MIN.to_be_bytes());
    let mut flags = HEADER.to_vec();
    flags[12] = 1;
    for (header, rows, words) in [
        (&flags[..], &sound, "is not the header or trailer of its format"),
        (HEADER, &narrow, "row 1 has another number of fields than the slice has columns"),
        (HEADER, &wide, "row 1 has another number of fields than the slice has columns"),
        (HEADER, &ended, "row 2 has another number of fields than the slice has columns"),
        (HEADER, &endless, "row 1 does not end"),
        (HEADER, &negative, "row 1 has a field of a negative length"),
    ] {
        Forgery { frames: &[(header, 0), (rows, 1), (TRAILER, 0)], digested: &[&sound] }.place(&pair);
        refuses(&pair, &[4], words);
    }
    Forgery { frames: &[(HEADER, 0), (&sound, 1)], digested: &[&sound] }.place(&pair);
    refuses(&pair, &[4], "does not end with the trailer of its format");
    Forgery { frames: &[(HEADER, 0), (&sound, 1), (b"\0\0", 0)], digested: &[&sound] }.place(&pair);
    refuses(&pair, &[4], "is not the header or trailer of its format");
}

#[test]
fn binary_values_that_their_types_do_not_have() {
    let pair = pending("binary");
    let at: &[u8] = &[0, 2, 0xbb, 0xa8, 0, 0, 0, 0];
    for row in [
        tuple(&[Some(&[0, 0, 1]), Some(at), None]),
        tuple(&[Some(&[0, 0, 0, 0, 1]), Some(at), None]),
        tuple(&[None, Some(at), None]),
        tuple(&[Some(&[0, 0, 0, 1]), Some(at), Some(b"\xff")]),
        tuple(&[Some(&[0, 0, 0, 1]), Some(at), Some(b"a\0b")]),
    ] {
        Forgery { frames: &[(HEADER, 0), (&row, 1), (TRAILER, 0)], digested: &[&row] }.place(&pair);
        // A NULL key is for the replica's constraint to refuse.
        refuses(&pair, &[1, 9], "2024-05-01 public.notes");
    }
}

#[test]
fn a_format_that_the_names_of_the_parts_do_not_say_or_that_does_not_exist() {
    let pair = pending("csv");
    let key = pair.manifest_key(DAY);
    let (manifest, head) = (pair.place().content(&key), pair.place().content("feed.json"));
    for (format, words) in
        [("text", "is not named as a part in text format is"), ("binary", "is not named as a part in binary format is")]
    {
        forge(&pair, |slice| slice["format"] = format.into());
        refuses(&pair, &[4], words);
        pair.place().write(&key, &manifest);
        pair.place().write("feed.json", &head);
    }
    pair.forge(DAY, |manifest| manifest["slices"][0]["format"] = "parquet".into());
    refuses(&pair, &[4], "unknown variant `parquet`");
}

#[test]
fn text_that_copy_would_have_written_otherwise_is_read_by_the_server() {
    let pair = pending("text");
    let usual: &[u8] = b"1\t2024-05-01 10:00:00+00\tone\n";
    for (row, id, body) in [
        (&b"+7\t2024-05-01 10:00:00+00\ttwo\n"[..], "7", "two"),
        (b" 8\tMay 1 2024 12:00 +02\ttwo\n", "8", "two"),
        (b"9\t2024-05-01 10:00:00+00\t\\164\\x77\\o\n", "9", "two"),
    ] {
        let rows = [usual, row].concat();
        Forgery { frames: &[(&rows, 2)], digested: &[content(usual), content(row)] }.place(&pair);
        let ran = pair.catchup(&["-vv"]).exits(0);
        assert!(ran.stderr.contains("is sent as text"), "{ran}");
        let found = pair.replica.psql("SELECT id, at AT TIME ZONE 'UTC', body FROM notes ORDER BY id");
        assert_eq!(found, format!("1|2024-05-01 10:00:00|one\n{id}|2024-05-01 10:00:00|{body}"));
        pair.replica.psql("TRUNCATE notes; DROP SCHEMA pgslice CASCADE");
    }
}

#[test]
fn rows_that_were_sent_before_such_a_text_are_there_once() {
    let pair = pending("text");
    let usual: Vec<Vec<u8>> =
        (0..500).map(|id| format!("{id}\t2024-05-01 10:00:00+00\t{}\n", "x".repeat(1_000)).into_bytes()).collect();
    let last: &[u8] = b"+500\t2024-05-01 10:00:00+00\tlast\n";
    let digested: Vec<&[u8]> = usual.iter().map(|row| content(row)).chain([content(last)]).collect();
    Forgery { frames: &[(&usual.concat(), 500), (last, 1)], digested: &digested }.place(&pair);
    let ran = pair.catchup(&["-vv"]).exits(0);
    assert!(ran.stderr.contains("is sent as text"), "{ran}");
    assert_eq!(pair.replica.psql("SELECT count(*), sum(id) FROM notes"), "501|125250");
}

#[test]
fn text_that_is_no_value_is_refused_by_the_server() {
    let pair = pending("text");
    let usual: &[u8] = b"1\t2024-05-01 10:00:00+00\tone\n";
    let end: &[u8] = b"\\.\n";
    for (row, code, words) in [
        (&b"x\t2024-05-01 10:00:00+00\ttwo\n"[..], 9, "invalid input syntax for type integer"),
        (b"2\t2024-05-32 10:00:00+00\ttwo\n", 9, "date/time field value out of range"),
        (b"2\t294277-01-09 04:00:54.775807+00\ttwo\n", 9, "timestamp out of range"),
        (b"2\t2024-05-01 10:00:00+00\tt\rwo\n", 9, "literal carriage return"),
        (b"2\t2024-05-01 10:00:00+00\n", 9, "missing data for column"),
        (end, 4, "the feed has 3"),
    ] {
        let rows = [usual, row, usual].concat();
        Forgery { frames: &[(&rows, 3)], digested: &[content(usual), content(row), content(usual)] }.place(&pair);
        let refused = pair.catchup(&[]).exits(code);
        assert!(refused.stderr.contains(words), "{words}\n{refused}");
        assert_eq!(pair.replica.psql("SELECT count(*) FROM notes"), "0", "{refused}");
    }
}
