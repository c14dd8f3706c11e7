//! Several hosts: which of them is taken, and which failures let the next one have its turn.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pgslice::pg::Endpoint;
use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use super::certificates::certificates;
use super::server::{self, server};
use crate::cluster::{Cluster, unused_port};

/// A connection string of alice's to hosts of 127.0.0.1 with those ports.
fn at(ports: &[u16], options: &str) -> String {
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    format!("host={hosts} port={} user=alice password=alice-secret dbname=alice {options}", ports.join(","))
}

/// Something that listens, and does that with whoever comes; how many came so far.
fn listener(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let came: Arc<AtomicUsize> = Arc::default();
    let (counted, serve) = (Arc::clone(&came), Arc::new(serve));
    // It ends with the test process.
    thread::spawn(move || {
        for client in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let (client, serve) = (client.expect("a client"), Arc::clone(&serve));
            thread::spawn(move || serve(client));
        }
    });
    (port, came)
}

/// A server that answers every login with an error of that code.
fn refusing(code: &'static str) -> (u16, Arc<AtomicUsize>) {
    listener(move |mut client| {
        let mut request = [0; 8];
        let mut step = || -> std::io::Result<()> {
            client.read_exact(&mut request)?;
            if request[4..] == [4, 210, 22, 47] {
                client.write_all(b"N")?;
                client.read_exact(&mut request)?;
            }
            let rest = u32::from_be_bytes([request[0], request[1], request[2], request[3]]) - 8;
            let mut startup = vec![0; usize::try_from(rest).expect("short")];
            client.read_exact(&mut startup)?;
            let fields = format!("SFATAL\0VFATAL\0C{code}\0Mnot now\0\0");
            let length = u32::try_from(fields.len() + 4).expect("short").to_be_bytes();
            client.write_all(&[b"E", &length[..], fields.as_bytes()].concat())
        };
        // A client that is gone does not matter.
        let _ = step();
    })
}

#[test]
fn a_host_that_is_dead_is_passed_over() {
    let (dead, alive) = (unused_port(), server().port());
    for ports in [[dead, alive], [alive, dead]] {
        Caller::of(at(&ports, "")).gets_in_as("alice", "alice", server());
    }
    Caller::of(at(&[dead, dead], "")).stays_out(5, server());
    let url = format!("postgres://alice:alice-secret@no-such-host.invalid,localhost:{alive}/alice");
    Caller::of(url.replace("invalid", &format!("invalid:{alive}"))).gets_in_as("alice", "alice", server());
    let socket =
        format!("host=/nonexistent,{} port={alive} user=alice password=alice-secret", server().socket_dir().display());
    Caller::of(socket).gets_in_as("alice", "alice", server());
    // One port for all of them.
    let one_port = format!("host=/nonexistent,localhost port={alive} user=alice password=alice-secret");
    Caller::of(one_port).gets_in_as("alice", "alice", server());
}

#[test]
fn a_host_that_never_answers_is_given_up_after_its_time() {
    // It takes the connection, and says nothing.
    let (silent, _) = listener(|client| {
        let _ = (&client).read_to_end(&mut Vec::new());
    });
    for options in ["connect_timeout=2", "connect_timeout=2 sslmode=disable", "connect_timeout=1 sslmode=require"] {
        Caller::of(at(&[silent, server().port()], options)).gets_in_as("alice", "alice", server());
        Caller::of(at(&[silent], options)).stays_out(5, server());
    }
    // It goes silent in the midst of a handshake, and in the midst of a login.
    let (half_a_handshake, _) = listener(|mut client| {
        let mut request = [0; 8];
        let _ = client.read_exact(&mut request).and_then(|()| client.write_all(b"S"));
        let _ = client.read_to_end(&mut Vec::new());
    });
    let ports = [half_a_handshake, server().port()];
    Caller::of(at(&ports, "connect_timeout=2 sslmode=require")).gets_in_as("alice", "alice", server());
    let (half_a_login, _) = listener(|mut client| {
        let mut request = [0; 8];
        let _ = client.read_exact(&mut request).and_then(|()| client.write_all(b"N"));
        let _ = client.write_all(b"R\0\0\0\x08\0\0\0\x03");
        let _ = client.read_to_end(&mut Vec::new());
    });
    Caller::of(at(&[half_a_login, server().port()], "connect_timeout=2")).gets_in_as("alice", "alice", server());
}

#[test]
fn a_server_that_starts_is_passed_over_and_one_that_refuses_ends_the_search() {
    for code in ["57P03", "57P01", "53300", "28P01", "28000", "3D000", "08P01", "XX000"] {
        let (port, came) = refusing(code);
        let outcome = Caller::of(at(&[port, server().port()], "")).agrees(server());
        assert_eq!(outcome.is_ok(), code == "57P03", "{code}");
        assert!(came.load(Ordering::Relaxed) >= 2, "both tried it first");
    }
}

#[test]
fn a_wrong_password_is_not_tried_on_the_next_host() {
    let (port, came) = refusing("57P03");
    let url = at(&[server().port(), port], "").replace("alice-secret", "wrong");
    Caller::of(url).stays_out(6, server());
    assert_eq!(came.load(Ordering::Relaxed), 0);
}

#[test]
fn a_host_whose_certificate_is_wrong_ends_the_search_or_not_as_with_psql() {
    let stranger = server::start("unknown", "");
    let root = certificates().path("authority.pem");
    for mode in ["require", "verify-ca", "verify-full"] {
        let ports = [stranger.port(), server().port()];
        let url = at(&ports, &format!("sslmode={mode} sslrootcert={}", root.display()));
        // libpq gives up; with either outcome nobody is believed who should not be.
        let mut caller = Caller::of(url);
        let ran = caller.try_pgslice();
        if caller.try_psql(server()).is_ok() {
            assert_eq!(ran.code, 0, "{mode}\n{ran}");
        }
        assert!(server::logins(stranger, "pgslice").is_empty(), "{mode}");
    }
}

/// A primary, a standby, and a primary that only reads by default.
fn kinds() -> [&'static Cluster; 3] {
    let standby = server::start("right", "");
    std::fs::write(standby.socket_dir().join("data/standby.signal"), "").expect("write a file");
    standby.restart();
    let read_only = server::start("right", "default_transaction_read_only = on");
    [server(), standby, read_only]
}

/// The port that a session ends up at; `None` where there is none.
fn port_of_session(url: &str) -> Option<String> {
    let endpoint = Endpoint::parse(url).expect("a connection string");
    let mut session = endpoint.session(&CancellationToken::new()).ok()?;
    Some(session.query("SHOW port", &[]).expect("one row")[0].get(0).expect("a port").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_attributes_of_a_session_choose_among_hosts() {
    let [primary, standby, read_only] = kinds();
    assert_eq!(standby.psql("postgres", "SELECT pg_is_in_recovery()").as_deref(), Ok("t\n"));
    let orders: [&[&Cluster]; 9] = [
        &[primary],
        &[standby],
        &[read_only],
        &[primary, standby],
        &[standby, primary],
        &[read_only, primary],
        &[primary, read_only],
        &[standby, read_only],
        &[read_only, standby, primary],
    ];
    for attributes in ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"] {
        for order in orders {
            let ports: Vec<u16> = order.iter().map(|cluster| cluster.port()).collect();
            let url = at(&ports, &format!("target_session_attrs={attributes} sslmode=disable"));
            let psql = Caller::of(&*url).ask_psql(server(), "SHOW port").ok();
            let session = tokio::task::block_in_place(|| port_of_session(&url));
            assert_eq!(session, psql, "a session: {attributes} of {ports:?}");
            let client = match Endpoint::parse(&url).expect("a connection string").client().await {
                Ok(client) => Some(client.query_one("SHOW port", &[]).await.expect("one row").get::<_, String>(0)),
                Err(_) => None,
            };
            assert_eq!(client, psql, "a client: {attributes} of {ports:?}");
        }
    }
}

#[test]
fn the_first_host_is_taken_unless_any_will_do() {
    let (one, came_to_one) = refusing("28000");
    let (other, came_to_other) = refusing("28000");
    // Newer than the psql of some systems that these tests run on, so it is not asked.
    let run = |balance: &str| {
        let mut caller = Caller::of(at(&[one, other], &format!("load_balance_hosts={balance} sslmode=disable")));
        let ran = caller.try_pgslice();
        assert_eq!(ran.code, if balance == "nonsense" { 2 } else { 6 }, "{ran}");
    };
    for _ in 0..3 {
        run("disable");
    }
    assert_eq!((came_to_one.load(Ordering::Relaxed), came_to_other.load(Ordering::Relaxed)), (3, 0));
    for _ in 0..16 {
        run("random");
    }
    assert!(came_to_one.load(Ordering::Relaxed) > 3 && came_to_other.load(Ordering::Relaxed) > 0);
    run("nonsense");
}
