//! A web server of the test's own, which answers as a test scripts it: wrongly, partly, slowly, or not at all.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The path, or the whole address when a proxy is asked.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    /// The value of a header, whose name is given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The names of all headers, in lower case.
    pub(crate) fn header_names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The same request for the whole object.
    pub(crate) fn without_range(&self) -> Asked {
        let mut whole = self.clone();
        whole.headers.retain(|(name, _)| name != "range");
        whole
    }

    /// The same request for another target.
    pub(crate) fn at(&self, target: &str) -> Asked {
        Asked { target: target.to_owned(), ..self.clone() }
    }

    /// First and last byte of its range.
    fn range(&self) -> Option<(u64, u64)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

/// How the length of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `Content-Length`.
    Length,
    /// Chunks.
    Chunked,
    /// By the end of the connection, as servers did in 1995.
    Close,
}

/// What happens in the middle of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Nothing comes any more after so many bytes of the body.
    Stall(usize),
    /// The connection ends before the first byte of the answer.
    Hang,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    framing: Framing,
    trouble: Trouble,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: Vec::new(), body: body.into(), framing: Framing::Length, trouble: Trouble::None }
    }

    /// No answer at all.
    pub(crate) fn none() -> Reply {
        Reply { trouble: Trouble::Hang, ..Reply::new(200, "") }
    }

    /// The object, or the range of it that was asked for, as a well-behaved server sends it.
    pub(crate) fn serving(object: &[u8], asked: &Asked) -> Reply {
        let size = object.len() as u64;
        let Some((first, last)) = asked.range() else { return Reply::new(200, object) };
        if first >= size {
            return Reply::new(416, "").header("Content-Range", format!("bytes */{size}"));
        }
        let last = last.min(size - 1);
        let position = |byte: u64| usize::try_from(byte).expect("within the object");
        Reply::new(206, &object[position(first)..=position(last)])
            .header("Content-Range", format!("bytes {first}-{last}/{size}"))
    }

    /// A file of `folder`, whole or in part; 404 when there is none.
    pub(crate) fn file(folder: &Path, asked: &Asked) -> Reply {
        match std::fs::read(folder.join(asked.target.trim_start_matches('/'))) {
            Ok(content) => Reply::serving(&content, asked),
            Err(_) => Reply::new(404, "<h1>Not found</h1>").header("Content-Type", "text/html"),
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.retain(|(own, _)| *own != name);
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn framed(self, framing: Framing) -> Reply {
        Reply { framing, ..self }
    }

    /// Cuts the connection after so many bytes of the body; a body that is no longer comes whole.
    pub(crate) fn cut_after(self, bytes: usize) -> Reply {
        Reply { trouble: Trouble::Cut(bytes), ..self }
    }

    pub(crate) fn stall_after(self, bytes: usize) -> Reply {
        Reply { trouble: Trouble::Stall(bytes), ..self }
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.framing {
            Framing::Length => head.push_str(&format!("Content-Length: {}\r\n", self.body.len())),
            Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::Close => head.push_str("Connection: close\r\n"),
        }
        head + "\r\n"
    }

    /// The body as it goes over the wire, up to `bytes` of it.
    fn framed_body(&self, bytes: usize) -> Vec<u8> {
        let body = &self.body[..bytes.min(self.body.len())];
        if self.framing != Framing::Chunked {
            return body.to_vec();
        }
        let mut framed = Vec::new();
        for chunk in body.chunks(1_000) {
            framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
        }
        if body.len() == self.body.len() {
            framed.extend_from_slice(b"0\r\n\r\n");
        }
        framed
    }

    /// Sends it; whether the connection is good for another request.
    fn send(&self, stream: &mut TcpStream) -> std::io::Result<bool> {
        let bytes = match self.trouble {
            Trouble::Hang => return Ok(false),
            Trouble::None => usize::MAX,
            Trouble::Cut(bytes) | Trouble::Stall(bytes) => bytes,
        };
        let mut answer = self.head().into_bytes();
        answer.extend_from_slice(&self.framed_body(bytes));
        stream.write_all(&answer)?;
        if matches!(self.trouble, Trouble::Stall(_)) {
            // Until the other side goes.
            stream.read_to_end(&mut Vec::new())?;
        }
        Ok(self.trouble == Trouble::None && self.framing != Framing::Close)
    }
}

/// The server. It ends with the value.
pub(crate) struct Crooked {
    /// Its address, without a trailing slash.
    pub(crate) url: String,
    address: SocketAddr,
    state: Arc<State>,
}

/// What is answered to a request, which is counted from 1.
type Script = dyn Fn(&Asked, usize) -> Reply + Send + Sync;

struct State {
    answer: Box<Script>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicU32,
    ended: AtomicBool,
}

impl Crooked {
    /// Answers each request as `answer` says, which is told its number too, counted from 1.
    pub(crate) fn new(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Crooked {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State {
            answer: Box::new(answer),
            asked: Mutex::default(),
            connections: AtomicU32::new(0),
            ended: AtomicBool::new(false),
        });
        let own = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if own.ended.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                own.connections.fetch_add(1, Ordering::Relaxed);
                let own = Arc::clone(&own);
                thread::spawn(move || match own.serve(stream) {
                    Err(error) if !is_the_clients_end(error.kind()) => panic!("the crooked server: {error}"),
                    _ => {}
                });
            }
        });
        Crooked { url: format!("http://{address}"), address, state }
    }

    /// Every request so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().expect("no holder panics").clone()
    }

    /// The `Range` of every request so far; `-` for those without.
    pub(crate) fn ranges(&self) -> Vec<String> {
        self.asked().iter().map(|asked| asked.header("range").unwrap_or("-").to_owned()).collect()
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> u32 {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Crooked {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn is_the_clients_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted)
}

impl State {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?);
        while let Some(asked) = read_request(&mut lines)? {
            let number = {
                let mut all = self.asked.lock().expect("no holder panics");
                all.push(asked.clone());
                all.len()
            };
            if !(self.answer)(&asked, number).send(&mut stream)? {
                break;
            }
        }
        stream.shutdown(Shutdown::Both)
    }
}

/// The next request; `None` when the client is done, or does not speak HTTP.
fn read_request(lines: &mut impl BufRead) -> std::io::Result<Option<Asked>> {
    let mut first = Vec::new();
    lines.read_until(b'\n', &mut first)?;
    let first = String::from_utf8_lossy(&first).into_owned();
    let Some(target) = first.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) else { return Ok(None) };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    Ok(Some(Asked { target: target.to_owned(), headers }))
}
