//! A server that lies, stops, or is none.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use pgslice::error::Class;
use pgslice::pg::{PgError, Session};
use tokio_util::sync::CancellationToken;

use super::{copy, endpoint};

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// What a server sends for a COPY of five rows, up to its end.
fn five_rows() -> Vec<u8> {
    let mut stream = message(b'H', &[0, 0, 1, 0, 0]);
    (1..=5).for_each(|i| stream.extend(message(b'd', format!("{i}\n").as_bytes())));
    stream
}

fn read_message(stream: &mut TcpStream, header_bytes: usize) -> Vec<u8> {
    let mut header = vec![0; header_bytes];
    stream.read_exact(&mut header).expect("a header");
    let length = header[header_bytes - 4..].try_into().map(u32::from_be_bytes).expect("four bytes");
    let mut body = vec![0; usize::try_from(length).expect("short") - 4];
    stream.read_exact(&mut body).expect("a body");
    body
}

/// What the server does after its last word.
#[derive(Clone, Copy)]
enum Then {
    HangsUp,
    /// Until somebody asks to cancel.
    Waits,
}

/// Starts a server that lets anyone in and answers the first statement after the session's settings with `answer`.
fn server(answer: Vec<u8>, then: Then) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        read_message(&mut stream, 4);
        let welcome = [message(b'R', &[0; 4]), message(b'K', &[0, 0, 0, 7, 0, 0, 0, 9]), ready()].concat();
        stream.write_all(&welcome).expect("sent");
        read_message(&mut stream, 5);
        stream.write_all(&[message(b'C', b"SET\0"), ready()].concat()).expect("sent");
        read_message(&mut stream, 5);
        stream.write_all(&answer).expect("sent");
        if let Then::Waits = then {
            let (mut canceller, _) = listener.accept().expect("a request to cancel");
            let mut request = [0; 16];
            canceller.read_exact(&mut request).expect("a request to cancel");
            // Its length, the code 1234 5678, and the key that this server gave.
            assert_eq!(request, [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 7, 0, 0, 0, 9]);
        }
    });
    format!("postgres://bob@127.0.0.1:{port}/m?sslmode=disable")
}

fn session(answer: Vec<u8>, then: Then) -> Session {
    endpoint(&server(answer, then)).session(&CancellationToken::new()).expect("a session")
}

#[test]
fn the_count_is_the_servers_own_and_not_ours() {
    for (tag, count) in [("COPY 5\0", 5), ("COPY 6\0", 6)] {
        let answer = [five_rows(), message(b'c', b""), message(b'C', tag.as_bytes()), ready()].concat();
        let (rows, counted) = copy(&mut session(answer, Then::Waits), "COPY t TO STDOUT").expect("an end");
        assert_eq!((rows.len(), counted), (5, count), "{tag}");
    }
}

#[test]
fn a_copy_without_a_proper_end_is_an_error() {
    let done = message(b'c', b"");
    let tag = message(b'C', b"COPY 5\0");
    let ends = [
        ("a count that is none", [done.clone(), message(b'C', b"COPY x\0"), ready()].concat()),
        ("the tag of something else", [done.clone(), message(b'C', b"SELECT 5\0"), ready()].concat()),
        ("no tag", [done.clone(), ready()].concat()),
        ("two tags", [done.clone(), tag.clone(), tag.clone(), ready()].concat()),
        ("a tag before the data's end", [tag.clone(), ready()].concat()),
        ("rows after their end", [done.clone(), message(b'd', b"6\n"), tag, ready()].concat()),
        ("the server is ready at once", ready()),
    ];
    for (what, end) in ends {
        let mut session = session([five_rows(), end].concat(), Then::Waits);
        let error = copy(&mut session, "COPY t TO STDOUT").expect_err(what);
        assert!(matches!(error, PgError::Protocol(_)), "{what}: {error}");
        assert!(matches!(session.run("SELECT 1"), Err(PgError::Broken)), "{what}");
    }
}

#[test]
fn a_stream_that_closes_before_its_end_is_an_error_wherever_it_does() {
    let whole = [five_rows(), message(b'c', b""), message(b'C', b"COPY 5\0"), ready()].concat();
    for end in 0..whole.len() {
        let mut session = session(whole[..end].to_vec(), Then::HangsUp);
        let error = copy(&mut session, "COPY t TO STDOUT").expect_err("cut short");
        assert_eq!(error.class(), Class::Transient, "{end} of {} bytes: {error}", whole.len());
    }
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let mut session = session(five_rows(), Then::Waits);
    session.set_no_progress(Duration::from_millis(300));
    let begun = Instant::now();
    assert!(matches!(copy(&mut session, "COPY t TO STDOUT"), Err(PgError::NoProgress(_))));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(matches!(session.run("SELECT 1"), Err(PgError::Broken)));
}

/// What becomes of a login at a server that first says `greeting`.
fn login(greeting: Vec<u8>) -> PgError {
    login_at(move |stream| stream.write_all(&greeting).expect("sent"))
}

/// What becomes of a login at a server that goes on with `serve` after the start-up message.
fn login_at(serve: impl FnOnce(&mut TcpStream) + Send + 'static) -> PgError {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        read_message(&mut stream, 4);
        serve(&mut stream);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let url = format!("postgres://bob:hunter2@127.0.0.1:{port}/m?sslmode=disable&connect_timeout=2");
    endpoint(&url).session(&CancellationToken::new()).err().expect("no login")
}

#[test]
fn a_method_that_is_not_known_is_refused_by_its_name() {
    for (method, name) in [(2_u8, "Kerberos"), (7, "GSSAPI"), (9, "SSPI"), (99, "99")] {
        let error = login(message(b'R', &[0, 0, 0, method]));
        assert_eq!(error.class(), Class::Permission, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let only_plus = login(message(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0"));
    assert_eq!(only_plus.class(), Class::Permission, "{only_plus}");
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    let begun = Instant::now();
    let error = login(Vec::new());
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_is_no_postgresql_server_is_told_apart() {
    let error = login(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    assert!(matches!(error, PgError::Protocol(_)), "{error}");
}

#[test]
fn a_server_that_skips_its_own_proof_is_not_believed() {
    // It asks for SCRAM, and then claims that all is well.
    let error = login([message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"), message(b'R', &[0; 4])].concat());
    assert!(matches!(error, PgError::Protocol(_)), "{error}");
}

#[test]
fn a_server_that_does_not_know_the_password_is_not_believed() {
    let error = login_at(|stream| {
        let offer = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        stream.write_all(&offer).expect("sent");
        let first = String::from_utf8(read_message(stream, 5)).expect("text");
        let nonce = first.rsplit("r=").next().expect("a nonce");
        let challenge = format!("\0\0\0\x0br={nonce}more,s=c2FsdA==,i=4096");
        stream.write_all(&message(b'R', challenge.as_bytes())).expect("sent");
        read_message(stream, 5);
        let proof = message(b'R', b"\0\0\0\x0cv=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let welcome = [message(b'R', &[0; 4]), message(b'K', &[0; 8]), ready()].concat();
        stream.write_all(&[proof, welcome].concat()).expect("sent");
    });
    assert!(matches!(error, PgError::Login(_)), "{error}");
}
