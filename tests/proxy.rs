//! A TCP proxy between pgslice and a server: it reads the server's messages one by one, and does to each what a test
//! says.

use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::cluster::Database;

/// Longer than anything takes that a test waits for.
const LIMIT: Duration = Duration::from_secs(60);

/// A message of the server: the byte that names its kind, and what follows its length.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// `b'd'` for CopyData, `b'C'` for CommandComplete, …
    pub(crate) kind: u8,
    /// What follows the length.
    pub(crate) body: &'a [u8],
}

impl Message<'_> {
    /// Is it a row of a COPY?
    pub(crate) fn is_row(&self) -> bool {
        self.kind == b'd'
    }

    /// The count of `COPY n`, if it is a COPY's CommandComplete.
    pub(crate) fn copied(&self) -> Option<u64> {
        let tag = self.body.strip_suffix(&[0]).and_then(|tag| str::from_utf8(tag).ok())?;
        if self.kind == b'C' { tag.strip_prefix("COPY ")?.parse().ok() } else { None }
    }
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It arrives.
    Pass,
    /// Another body arrives in its place.
    Replace(Vec<u8>),
    /// That many of its bytes arrive, header included, then the connection is lost at both ends.
    Cut(usize),
    /// It arrives when [`Proxy::release`] lets it.
    Hold,
    /// It never arrives; what follows does.
    Swallow,
}

/// A proxy before one database.
#[derive(Debug)]
pub(crate) struct Proxy {
    url: String,
    gate: Arc<Gate>,
}

impl Proxy {
    /// Starts a proxy that asks `fate` about every message, of whatever connection.
    pub(crate) fn start(database: &Database, fate: impl FnMut(&Message<'_>) -> Fate + Send + 'static) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let server = format!("127.0.0.1:{}", database.cluster().port());
        let url = database.tcp_url().replace(&server, &format!("127.0.0.1:{port}")) + "?sslmode=disable";
        let (gate, fate) = (Arc::new(Gate::default()), Arc::new(Mutex::new(fate)));
        let proxy = Proxy { url, gate: Arc::clone(&gate) };
        // It ends with the test process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("accept a connection");
                let server = TcpStream::connect(&server).expect("reach the cluster");
                let (from, to) = (clone(&client), clone(&server));
                thread::spawn(move || requests(from, to));
                let (gate, fate) = (Arc::clone(&gate), Arc::clone(&fate));
                thread::spawn(move || {
                    let decide = |message: &Message<'_>| (fate.lock().expect("no decision panicked"))(message);
                    // A connection that either end lost is what many tests are about.
                    let _ = answers(&server, &client, decide, &gate);
                    let _ = client.shutdown(Shutdown::Both);
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        proxy
    }

    /// The database's URL through this proxy, with its password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until a message is held.
    pub(crate) fn holds(&self) {
        self.holds_so_many(1);
    }

    /// Waits until that many messages are held, each on a connection of its own.
    pub(crate) fn holds_so_many(&self, messages: usize) {
        let state = self.gate.state.lock().expect("not poisoned");
        let (state, waited) =
            self.gate.changed.wait_timeout_while(state, LIMIT, |state| state.held < messages).expect("not poisoned");
        let held = state.held;
        drop(state);
        assert!(!waited.timed_out(), "only {held} messages have come that are to be held");
    }

    /// Lets go of what is held; nothing is held any more.
    pub(crate) fn release(&self) {
        self.gate.state.lock().expect("not poisoned").open = true;
        self.gate.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.release();
    }
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    held: usize,
    open: bool,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().expect("not poisoned");
        state.held += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.open).expect("not poisoned"));
    }
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("set an option");
    stream.try_clone().expect("clone a socket")
}

/// What the client says passes as it is.
fn requests(mut client: TcpStream, mut server: TcpStream) {
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
}

fn answers(
    server: &TcpStream,
    client: &TcpStream,
    mut fate: impl FnMut(&Message<'_>) -> Fate,
    gate: &Gate,
) -> std::io::Result<()> {
    let (mut server, mut client) = (BufReader::with_capacity(256 << 10, server), BufWriter::new(client));
    loop {
        if server.buffer().is_empty() {
            client.flush()?;
        }
        let mut header = [0; 5];
        server.fill_buf()?;
        server.read_exact(&mut header)?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let Some(length) = length.checked_sub(4) else { return Err(ErrorKind::InvalidData.into()) };
        let mut body = vec![0; usize::try_from(length).expect("32 bits fit")];
        server.read_exact(&mut body)?;
        let message = Message { kind: header[0], body: &body };
        match fate(&message) {
            Fate::Pass => {}
            Fate::Replace(other) => {
                let length = u32::try_from(other.len() + 4).expect("a small message");
                header[1..].copy_from_slice(&length.to_be_bytes());
                body = other;
            }
            Fate::Cut(bytes) => {
                let whole = [&header[..], &body].concat();
                client.write_all(&whole[..bytes.min(whole.len())])?;
                return client.flush();
            }
            Fate::Hold => {
                client.flush()?;
                gate.pass();
            }
            Fate::Swallow => continue,
        }
        client.write_all(&header)?;
        client.write_all(&body)?;
    }
}
