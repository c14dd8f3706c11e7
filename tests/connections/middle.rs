//! Somebody in the middle: who speaks for the server, and what of it a client believes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::caller::Caller;
use super::certificates::certificates;
use super::server::server;

/// How long one direction is listened to before the other one.
const TURN: Duration = Duration::from_millis(2);
/// The request for TLS, which comes before anything else.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What the middle does with a client that asks for TLS.
#[derive(Debug, Clone)]
enum Part {
    /// Says that the server has none, and goes on in plain text.
    Strip,
    /// Shows a certificate of its own, and speaks TLS to the server itself.
    Terminate(&'static str),
    /// The same with a client that begins with TLS at once.
    TerminateDirect(&'static str),
    /// Says yes and more than that, in plain text, before the encryption begins.
    Inject(Vec<u8>),
    /// Says an error of its own.
    Fail(&'static str),
}

/// Somebody before [`server`].
struct Middle {
    port: u16,
    /// What clients named as the server they want, where they did.
    names: Arc<Mutex<Vec<Option<String>>>>,
}

impl Middle {
    fn start(part: Part) -> Middle {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let names: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
        let seen = Arc::clone(&names);
        // It ends with the test process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, part, seen) = (client.expect("a client"), part.clone(), Arc::clone(&seen));
                // A connection that either end gives up is what these tests are about.
                thread::spawn(move || play(&part, client, &seen));
            }
        });
        Middle { port, names }
    }

    /// A connection string through it, to the database of a user who has a password.
    fn url(&self, options: &str) -> String {
        format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=alice password=alice-secret dbname=alice sslrootcert={} {options}",
            self.port,
            certificates().path("authority.pem").display()
        )
    }

    fn names(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.names.lock().expect("not poisoned"))
    }
}

fn play(part: &Part, mut client: TcpStream, names: &Mutex<Vec<Option<String>>>) -> io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server().port()))?;
    if !matches!(part, Part::TerminateDirect(_)) {
        let mut request = [0; 8];
        client.read_exact(&mut request)?;
        if request != SSL_REQUEST {
            server.write_all(&request)?;
            return pass(&mut client, &mut server);
        }
    }
    match part {
        Part::Strip => {
            client.write_all(b"N")?;
            pass(&mut client, &mut server)
        }
        Part::Inject(extra) => {
            server.write_all(&SSL_REQUEST)?;
            server.read_exact(&mut [0])?;
            client.write_all(&[b"S", &extra[..]].concat())?;
            pass(&mut client, &mut server)
        }
        Part::Fail(text) => {
            let fields = [b"SFATAL\0VFATAL\0C58000\0M", text.as_bytes(), b"\0\0"].concat();
            let length = u32::try_from(fields.len() + 4).expect("short").to_be_bytes();
            client.write_all(&[b"E", &length[..], &fields].concat())
        }
        Part::Terminate(certificate) | Part::TerminateDirect(certificate) => {
            if matches!(part, Part::Terminate(_)) {
                client.write_all(b"S")?;
            }
            let mut client = StreamOwned::new(speaker(certificate), client);
            while client.conn.is_handshaking() {
                client.conn.complete_io(&mut client.sock)?;
            }
            names.lock().expect("not poisoned").push(client.conn.server_name().map(str::to_owned));
            server.write_all(&SSL_REQUEST)?;
            server.read_exact(&mut [0])?;
            let mut server = StreamOwned::new(listener(), server);
            while server.conn.is_handshaking() {
                server.conn.complete_io(&mut server.sock)?;
            }
            client.sock.set_read_timeout(Some(TURN))?;
            server.sock.set_read_timeout(Some(TURN))?;
            take_turns(&mut client, &mut server)
        }
    }
}

/// The end that a client speaks to.
fn speaker(certificate: &str) -> ServerConnection {
    let chain = CertificateDer::pem_file_iter(certificates().path(&format!("{certificate}.pem"))).expect("a file");
    let chain = chain.map(|certificate| certificate.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(certificates().path(&format!("{certificate}.key"))).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    ServerConnection::new(Arc::new(config)).expect("a configuration")
}

/// The end that the server speaks to.
fn listener() -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates().path("authority.pem")).expect("a file")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").expect("a name"))
        .expect("a configuration")
}

/// Passes on everything between two plain ends.
fn pass(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(TURN))?;
    server.set_read_timeout(Some(TURN))?;
    let outcome = take_turns(client, server);
    let _ = client.shutdown(Shutdown::Both);
    outcome
}

fn take_turns(client: &mut (impl Read + Write), server: &mut (impl Read + Write)) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        if let Some(count) = read(client, &mut bytes)? {
            server.write_all(&bytes[..count])?;
            server.flush()?;
        }
        if let Some(count) = read(server, &mut bytes)? {
            client.write_all(&bytes[..count])?;
            client.flush()?;
        }
    }
}

fn read(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    match from.read(bytes) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error),
    }
}

#[test]
fn whoever_strips_the_encryption_gets_nothing_out_of_a_client_that_requires_it() {
    let middle = Middle::start(Part::Strip);
    for mode in ["require", "verify-ca", "verify-full"] {
        let refusal = Caller::of(middle.url(&format!("sslmode={mode}"))).agrees(server()).expect_err("no TLS");
        assert!(refusal.pgslice.stderr.contains("TLS"), "{}", refusal.pgslice);
    }
    for mode in ["allow", "prefer"] {
        let login = Caller::of(middle.url(&format!("sslmode={mode}"))).gets_in_as("alice", "alice", server());
        assert_eq!(login.protocol, None);
        // Without encryption there is nothing to bind to.
        let bound = middle.url(&format!("sslmode={mode} channel_binding=require"));
        Caller::of(bound).agrees(server()).expect_err("no channel binding");
    }
}

#[test]
fn a_certificate_of_the_trusted_authority_does_not_let_anyone_into_the_middle() {
    // Both chain and name are right, so only the channel binding tells.
    let middle = Middle::start(Part::Terminate("rsa"));
    for mode in ["require", "verify-ca", "verify-full"] {
        for binding in ["", "channel_binding=prefer", "channel_binding=require"] {
            let url = middle.url(&format!("sslmode={mode} {binding}"));
            Caller::of(url).stays_out(6, server());
        }
        let unbound = middle.url(&format!("sslmode={mode} channel_binding=disable"));
        Caller::of(unbound).gets_in_as("alice", "alice", server());
    }
}

#[test]
fn a_certificate_of_anybody_else_is_not_believed_in_the_first_place() {
    for certificate in ["unknown", "expired", "self_signed", "wrong_name"] {
        let middle = Middle::start(Part::Terminate(certificate));
        let url = middle.url("sslmode=verify-full channel_binding=disable");
        Caller::of(url).agrees(server()).expect_err(certificate);
    }
}

#[test]
fn what_was_said_before_the_encryption_is_not_taken_for_what_the_server_says_in_it() {
    let welcome = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I".to_vec();
    for extra in [welcome, b"R".to_vec(), b"\x16\x03\x03".to_vec()] {
        let middle = Middle::start(Part::Inject(extra));
        for mode in ["require", "verify-full"] {
            Caller::of(middle.url(&format!("sslmode={mode}"))).agrees(server()).expect_err("bytes too many");
        }
    }
}

#[test]
fn an_error_in_place_of_an_answer_is_not_repeated() {
    // CVE-2024-10977: anybody on the way can write it.
    let middle = Middle::start(Part::Fail("send your password to evil.example"));
    for mode in ["require", "verify-full"] {
        let refusal = Caller::of(middle.url(&format!("sslmode={mode}"))).agrees(server()).expect_err("an error");
        assert!(!refusal.pgslice.to_string().contains("evil.example"), "{}", refusal.pgslice);
    }
}

#[test]
fn the_host_is_named_in_the_handshake_unless_that_is_switched_off() {
    let middle = Middle::start(Part::Terminate("right"));
    let named = |url: &str| {
        Caller::of(url).agrees(server()).expect("a login");
        let names = middle.names();
        assert!(names.windows(2).all(|pair| pair[0] == pair[1]), "psql and pgslice differ: {names:?}");
        names.first().cloned().flatten()
    };
    let url = |options: &str| middle.url(&format!("sslmode=require channel_binding=disable {options}"));
    assert_eq!(named(&url("")).as_deref(), Some("localhost"));
    assert_eq!(named(&url("sslsni=0")), None);
    let by_address = url("").replace("host=localhost hostaddr=127.0.0.1", "host=127.0.0.1");
    assert_eq!(named(&by_address), None);
}

#[test]
fn encryption_can_begin_without_being_asked_for() {
    // Newer than the psql of some systems that these tests run on, so it is not asked.
    let middle = Middle::start(Part::TerminateDirect("right"));
    let direct = "sslnegotiation=direct channel_binding=disable";
    for mode in ["require", "verify-full"] {
        let ran = Caller::of(middle.url(&format!("sslmode={mode} {direct}"))).try_pgslice();
        assert_eq!(ran.code, 0, "{mode}\n{ran}");
    }
    // Whoever may go on in plain text has to ask first.
    for mode in ["disable", "allow", "prefer"] {
        let ran = Caller::of(middle.url(&format!("sslmode={mode} {direct}"))).try_pgslice();
        assert_eq!(ran.code, 2, "{mode}\n{ran}");
    }
}
