//! A real web server for tests: an nginx that shows a folder and vanishes with the test process, however that ends
//! (`scripts/throwaway-web` holds it). One that cannot start is a panic that shows its log.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::cluster::unused_port;

/// A server on 127.0.0.1, stopped when the value is dropped.
#[derive(Debug)]
pub(crate) struct Web {
    /// The address of the folder that it shows, without a trailing slash.
    pub(crate) url: String,
    folder: PathBuf,
    /// Its standard input is the server's lifeline.
    keeper: Child,
}

impl Web {
    /// Shows `root` over http.
    pub(crate) fn serving(root: &Path) -> Web {
        Web::start(root, None)
    }

    /// Shows `root` over https, with a certificate that `authority` signed.
    pub(crate) fn serving_securely(root: &Path, authority: &Authority) -> Web {
        Web::start(root, Some(authority))
    }

    fn start(root: &Path, authority: Option<&Authority>) -> Web {
        // Another process can take a port between our look and the server's start.
        let mut failures = String::new();
        for _ in 0..3 {
            match Web::try_start(root, authority) {
                Ok(web) => return web,
                Err(log) => failures.push_str(&log),
            }
        }
        panic!("nginx does not start:\n{failures}");
    }

    fn try_start(root: &Path, authority: Option<&Authority>) -> Result<Web, String> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(format!("/tmp/pgslice-web-{:x}-{number}", std::process::id()));
        let port = unused_port();
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/throwaway-web"));
        command.arg(&folder).arg(root).arg(port.to_string());
        if let Some(authority) = authority {
            command.args([authority.path("server.pem"), authority.path("server.key")]);
        }
        let mut keeper = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run scripts/throwaway-web");
        let mut answer = String::new();
        let stdout = keeper.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut answer).expect("read what it says");
        if answer != "ready\n" {
            let mut log = String::new();
            keeper.stderr.take().expect("its errors are piped").read_to_string(&mut log).expect("read its errors");
            keeper.wait().expect("wait for scripts/throwaway-web");
            return Err(log);
        }
        let scheme = if authority.is_some() { "https" } else { "http" };
        Ok(Web { url: format!("{scheme}://127.0.0.1:{port}"), folder, keeper })
    }

    /// The folder that nginx writes to.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The requests that it answered so far, such as `GET /feed.json HTTP/1.1 200`, in order. A request is written down
    /// after its answer was sent.
    pub(crate) fn answered(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("access.log")).expect("read the access log");
        let line = |line: &str| {
            let mut quoted = line.split('"').skip(1);
            let (request, rest) = (quoted.next().expect("a request"), quoted.next().expect("a status"));
            format!("{request} {}", rest.split_whitespace().next().expect("a status"))
        };
        log.lines().map(line).collect()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // What it cannot stop any more is not ours to stop.
        let _ = self.keeper.wait();
    }
}

/// An authority that no system trusts, with a certificate for 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Authority(TempDir);

impl Authority {
    pub(crate) fn new() -> Authority {
        let authority = Authority(TempDir::with_prefix("pgslice-authority-").expect("create a temporary folder"));
        fs::write(authority.path("names"), "subjectAltName = IP:127.0.0.1\n").expect("write a file");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        authority.openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
        authority.openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
        authority.openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -days 2 -out server.pem",
        );
        authority
    }

    /// Its own certificate: what a `ca-file` names.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .expect("run openssl, which scripts/install-debian installs");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

mod tests {
    use std::env;
    use std::net::TcpStream;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::harness::eventually;

    /// Set for a process that [`a_server_vanishes_when_its_process_is_killed`] starts: where to say what it started.
    const HOLD: &str = "PGSLICE_TEST_HOLD_WEB";

    fn is_listening(url: &str) -> bool {
        TcpStream::connect(url.rsplit('/').next().expect("an address")).is_ok()
    }

    #[test]
    fn a_server_goes_with_its_value() {
        let root = TempDir::new().expect("create a temporary folder");
        let web = Web::serving(root.path());
        let (url, folder) = (web.url.clone(), web.folder().to_owned());
        assert!(is_listening(&url) && folder.exists());
        drop(web);
        assert!(!is_listening(&url) && !folder.exists());
    }

    #[test]
    fn a_server_vanishes_when_its_process_is_killed() {
        if let Some(report) = env::var_os(HOLD) {
            let web = Web::serving(Path::new("/nowhere"));
            let told = format!("{}\n{}", web.url, web.folder().display());
            fs::write(Path::new(&report).with_extension("part"), told).expect("write the report");
            fs::rename(Path::new(&report).with_extension("part"), &report).expect("rename the report");
            thread::sleep(Duration::from_secs(60));
            return;
        }
        let folder = TempDir::new().expect("create a temporary folder");
        let report = folder.path().join("report");
        let mut holder = Command::new(env::current_exe().expect("this program has a path"))
            .args(["--exact", "web::tests::a_server_vanishes_when_its_process_is_killed"])
            .env(HOLD, &report)
            .stdout(Stdio::null())
            .spawn()
            .expect("start another test process");
        eventually("the other process started a server", || {
            let ended = holder.try_wait().expect("ask for a child's status");
            assert!(ended.is_none(), "the other process ended: {ended:?}");
            report.exists()
        });
        let told = fs::read_to_string(&report).expect("read the report");
        let (url, folder) = told.split_once('\n').expect("two lines");
        assert!(is_listening(url));
        holder.kill().expect("kill the other process");
        holder.wait().expect("wait for the other process");
        eventually("nobody listens", || !is_listening(url));
        eventually("its folder is gone", || !Path::new(folder).exists());
    }
}
