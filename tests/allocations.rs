//! Hot loops allocate by the MiB, never by the row: counted, not timed. The counts are those of the thread that runs the
//! loop; a server of the test's own answers on another one.

use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use allocation_counter::{AllocationInfo, measure};
use pgslice::catchup::binary::{Form, write_rows};
use pgslice::codec::{Chunk, CodecError, Decoder, Encoder, Gatherer, Piece, RowFormat, Tally};
use pgslice::manifest::{Frame, SliceFormat};
use pgslice::pg::{Endpoint, PgError, Session};
use tokio_util::sync::CancellationToken;

const ROWS: usize = 100_000;
const MIB: u64 = 1 << 20;
/// What a loop may allocate for each MiB of rows, and
const PER_MIB: u64 = 8;
/// once.
const ONCE: u64 = 64;

/// Rows of COPY's text format, of 20 to 220 bytes.
fn rows() -> Vec<Vec<u8>> {
    (0..ROWS).map(|number| format!("{number:08}\t{}\n", "x".repeat(10 + number % 200)).into_bytes()).collect()
}

fn bytes_of(rows: &[Vec<u8>]) -> u64 {
    rows.iter().map(|row| row.len() as u64).sum()
}

/// Panics when more was allocated than the size of the rows allows, however many they are.
#[track_caller]
fn is_by_the_mebibyte(counted: &AllocationInfo, raw_bytes: u64) {
    let mebibytes = raw_bytes.div_ceil(MIB);
    assert!(mebibytes * PER_MIB + ONCE < ROWS as u64 / 100, "the bound is far below one for each row");
    assert!(
        counted.count_total <= mebibytes * PER_MIB + ONCE,
        "{} allocations for {ROWS} rows of {mebibytes} MiB in all",
        counted.count_total
    );
    assert!(
        counted.bytes_total <= 4 * raw_bytes + 32 * MIB,
        "{} bytes were allocated for {raw_bytes} bytes of rows",
        counted.bytes_total
    );
}

fn text() -> RowFormat {
    RowFormat::of(SliceFormat::Text, &["number", "filling"])
}

/// What an export does with rows: stored bytes and frames.
fn encoded(rows: &[Vec<u8>]) -> (Vec<u8>, Vec<Frame>, Tally) {
    let (mut stored, mut frames) = (Vec::new(), Vec::new());
    let mut emit = |piece: Piece| -> Result<(), CodecError> {
        match piece {
            Piece::Block(block) => stored.extend_from_slice(&block),
            Piece::End(end) => frames = end.frames,
        }
        Ok(())
    };
    let mut gatherer = Gatherer::new(text());
    let mut encoder = Encoder::new(text(), 3, u64::MAX).expect("an encoder");
    for row in rows {
        if let Some(chunk) = gatherer.message(row).expect("a row") {
            encoder.chunk(&chunk, &mut emit).expect("encoded");
        }
    }
    gatherer.end_copy().expect("an end");
    let (rest, tally) = gatherer.finish();
    let rest: Option<Chunk> = rest;
    rest.iter().for_each(|chunk| encoder.chunk(chunk, &mut emit).expect("encoded"));
    encoder.finish(&mut emit).expect("finished");
    (stored, frames, tally)
}

#[test]
fn gathering_digesting_and_encoding_rows() {
    let rows = rows();
    let mut tally = Tally::default();
    let counted = measure(|| tally = encoded(&rows).2);
    assert_eq!(tally.rows, ROWS as u64);
    is_by_the_mebibyte(&counted, bytes_of(&rows));
}

#[test]
fn decoding_and_digesting_rows() {
    let rows = rows();
    let (stored, frames, expected) = encoded(&rows);
    let mut tally = Tally::default();
    let counted = measure(|| {
        let mut decoder = Decoder::new(text()).expect("a decoder");
        let mut decoded = Vec::new();
        for frame in &frames {
            let place = |at: u64| usize::try_from(at).expect("small");
            let stored = &stored[place(frame.offset)..place(frame.offset + frame.stored_bytes)];
            tally = tally.union(decoder.frame(stored, frame, &mut decoded).expect("decoded"));
        }
    });
    assert_eq!(tally, expected);
    is_by_the_mebibyte(&counted, bytes_of(&rows));
}

#[test]
fn reading_the_rows_of_a_copy() {
    let rows = rows();
    let mut server = Server::that_sends(rows.clone());
    let mut session = server.session();
    let (mut seen, mut told) = (0, 0);
    let counted = measure(|| {
        let row = |row: &[u8]| -> Result<(), PgError> {
            seen += row.len() as u64;
            Ok(())
        };
        told = session.copy_out("copy (select) to stdout", row).expect("rows");
    });
    assert_eq!((seen, told), (bytes_of(&rows), ROWS as u64));
    is_by_the_mebibyte(&counted, seen);
    server.end(session);
}

#[test]
fn sending_the_rows_of_a_copy() {
    let rows = rows();
    let whole = rows.concat();
    let mut server = Server::that_sends(Vec::new());
    let mut session = server.session();
    let mut told = 0;
    let counted = measure(|| {
        let mut copy = session.copy_in("copy t from stdin").expect("begun");
        // As they come out of frames, which end anywhere in a message; and one by one.
        let (frames, single) = rows.split_at(ROWS / 2);
        let bytes = frames.iter().map(Vec::len).sum();
        whole[..bytes].chunks(3 << 20).for_each(|frame| copy.send(frame).expect("sent"));
        single.iter().for_each(|row| copy.send(row).expect("sent"));
        told = copy.finish().expect("finished");
    });
    // The server of this test counts bytes.
    assert_eq!(told, bytes_of(&rows));
    is_by_the_mebibyte(&counted, bytes_of(&rows));
    server.end(session);
}

#[test]
fn writing_rows_of_text_in_binary() {
    let row = |number| {
        let filling = "x\\n".repeat(10 + number % 70);
        format!("{number}\t{number}.{number:04}\t2024-05-01 10:00:00.25+00\t{filling}\t{}e-5\n", number + 1)
    };
    let text = (0..ROWS).map(row).collect::<String>().into_bytes();
    let forms = [Form::Int4, Form::Numeric, Form::TimestampWithZone, Form::Characters, Form::Float8];
    let mut written = 0;
    let counted = measure(|| {
        let (mut rest, mut binary) = (&text[..], Vec::new());
        while !rest.is_empty() {
            binary.clear();
            rest = &rest[write_rows(&forms, rest, &mut binary).expect("as COPY writes them")..];
            written += binary.len();
        }
    });
    assert!(written > text.len() / 2);
    is_by_the_mebibyte(&counted, text.len() as u64);
}

#[test]
fn a_loop_that_allocates_for_each_row_is_noticed() {
    let rows = rows();
    let counted = measure(|| {
        let copies: Vec<Vec<u8>> = rows.iter().map(|row| row.as_slice().to_vec()).collect();
        assert_eq!(copies.len(), ROWS);
    });
    assert!(counted.count_total >= ROWS as u64, "{}", counted.count_total);
}

/// A server that speaks as much of the protocol as a COPY needs, to one session.
struct Server {
    folder: tempfile::TempDir,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Sends these rows to whoever copies from it, and tells how many bytes came to whoever copies to it.
    fn that_sends(rows: Vec<Vec<u8>>) -> Server {
        let folder = tempfile::TempDir::with_prefix("pgslice-server-").expect("create a temporary folder");
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).expect("listen");
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accept a connection");
            serve(&stream, &rows).expect("a session that ends well");
        });
        Server { folder, thread: Some(thread) }
    }

    fn session(&self) -> Session {
        let url = format!("host={} user=u dbname=d", self.folder.path().display());
        let endpoint = Endpoint::parse(&url).expect("a connection string");
        endpoint.session(&CancellationToken::new()).expect("a session")
    }

    /// Ends the session, and looks whether the server is content.
    fn end(&mut self, session: Session) {
        drop(session);
        self.thread.take().expect("it ends once").join().expect("no panic");
    }
}

fn serve(stream: &UnixStream, rows: &[Vec<u8>]) -> std::io::Result<()> {
    let (mut input, mut output) = (BufReader::new(stream), BufWriter::new(stream));
    let length = |input: &mut BufReader<&UnixStream>| -> std::io::Result<usize> {
        let mut bytes = [0; 4];
        input.read_exact(&mut bytes)?;
        Ok(usize::try_from(u32::from_be_bytes(bytes)).expect("32 bits fit") - 4)
    };
    let startup = length(&mut input)?;
    std::io::copy(&mut input.by_ref().take(startup as u64), &mut std::io::sink())?;
    // AuthenticationOk, a key to cancel by, and readiness.
    message(&mut output, b'R', &[0; 4])?;
    message(&mut output, b'K', &[0; 8])?;
    message(&mut output, b'Z', b"I")?;
    output.flush()?;
    let mut copied_bytes = 0;
    loop {
        let mut kind = [0];
        input.read_exact(&mut kind)?;
        let mut body = vec![0; length(&mut input)?];
        input.read_exact(&mut body)?;
        match kind[0] {
            b'X' => return Ok(()),
            b'd' => copied_bytes += body.len(),
            b'c' => ended(&mut output, &format!("COPY {copied_bytes}"))?,
            b'Q' if body.ends_with(b"to stdout\0") => {
                message(&mut output, b'H', &[0, 0, 0])?;
                rows.iter().try_for_each(|row| message(&mut output, b'd', row))?;
                message(&mut output, b'c', &[])?;
                ended(&mut output, &format!("COPY {}", rows.len()))?;
            }
            b'Q' if body.ends_with(b"from stdin\0") => message(&mut output, b'G', &[0, 0, 0])?,
            b'Q' => ended(&mut output, "SET")?,
            other => panic!("a message of kind {:?}", char::from(other)),
        }
        output.flush()?;
    }
}

fn ended(output: &mut impl Write, tag: &str) -> std::io::Result<()> {
    message(output, b'C', format!("{tag}\0").as_bytes())?;
    message(output, b'Z', b"I")
}

fn message(output: &mut impl Write, kind: u8, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len() + 4).expect("a small message");
    output.write_all(&[kind])?;
    output.write_all(&length.to_be_bytes())?;
    output.write_all(body)
}
