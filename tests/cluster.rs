//! Real PostgreSQL for tests: clusters that start when they are first asked for and vanish with the test process,
//! however it ends (`scripts/throwaway-cluster` holds them). A cluster that cannot start is a panic that shows the
//! server's log, never a test passed over.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::shifted_clock::{ShiftedClock, Threads};

/// The cluster that tests publish from. Its tests share it: nothing may restart it or change its settings. Its binaries
/// are those of `PGSLICE_TEST_SOURCE_BIN`, if that is set.
pub(crate) fn source() -> &'static Cluster {
    static SOURCE: OnceLock<&Cluster> = OnceLock::new();
    SOURCE.get_or_init(|| Cluster::start_of(&binaries_of_role("PGSLICE_TEST_SOURCE_BIN")))
}

/// The cluster that tests top off: another system than [`source`], shared in the same way; `PGSLICE_TEST_REPLICA_BIN`.
pub(crate) fn replica() -> &'static Cluster {
    static REPLICA: OnceLock<&Cluster> = OnceLock::new();
    REPLICA.get_or_init(|| Cluster::start_of(&binaries_of_role("PGSLICE_TEST_REPLICA_BIN")))
}

fn binaries_of_role(variable: &str) -> PathBuf {
    std::env::var_os(variable).filter(|path| !path.is_empty()).map_or_else(default_binaries, PathBuf::from)
}

fn default_binaries() -> PathBuf {
    PathBuf::from(run(&mut Command::new(script("find-postgresql"))).expect("find PostgreSQL's binaries").trim_end())
}

/// Where libfaketime lies, for programs with that many threads.
pub(crate) fn libfaketime(threads: Threads) -> String {
    let mut find = Command::new(script("find-libfaketime"));
    if threads == Threads::Many {
        find.arg("--threads");
    }
    run(&mut find).unwrap_or_else(|error| panic!("{error}")).trim_end().to_owned()
}

/// A running server with its data in a folder of its own below /tmp. It lives as long as the test process.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    port: u16,
    password: String,
    binaries: PathBuf,
    /// Its standard input is the cluster's lifeline.
    keeper: Mutex<Keeper>,
    templates: Mutex<HashMap<String, Arc<OnceLock<Database>>>>,
}

#[derive(Debug)]
struct Keeper {
    process: Child,
    answers: BufReader<ChildStdout>,
}

/// What a cluster begins with.
enum Beginning<'a> {
    Empty,
    /// The files of a folder.
    With(&'a Path),
    /// The data of another cluster, which it follows.
    StandbyOf(&'a Cluster),
    /// Its server has another clock.
    Under(ShiftedClock),
}

impl Cluster {
    /// Starts a cluster of the caller's own, for tests that restart or reconfigure it: about a second.
    pub(crate) fn start() -> &'static Cluster {
        Cluster::start_of(&default_binaries())
    }

    /// Starts one of a major release, which `scripts/find-postgresql` must find.
    pub(crate) fn start_major(major: &str) -> &'static Cluster {
        let found = run(Command::new(script("find-postgresql")).arg(major)).unwrap_or_else(|error| panic!("{error}"));
        Cluster::start_of(Path::new(found.trim_end()))
    }

    fn start_of(binaries: &Path) -> &'static Cluster {
        Cluster::start_after(binaries, || Beginning::Empty)
    }

    /// The same with what `scripts/throwaway-cluster` takes from a folder: further settings, other rules of who gets
    /// in, certificates and keys. The superuser must still get in by the socket.
    pub(crate) fn start_with(extra: &Path) -> &'static Cluster {
        Cluster::start_after(&default_binaries(), || Beginning::With(extra))
    }

    /// Starts one whose server goes by another clock, also after it was restarted.
    pub(crate) fn start_under(clock: ShiftedClock) -> &'static Cluster {
        Cluster::start_after(&default_binaries(), || Beginning::Under(clock))
    }

    /// Starts a hot standby of this cluster, which must be the caller's own: it is restarted for it.
    pub(crate) fn start_standby(&'static self) -> &'static Cluster {
        Cluster::start_after(&self.binaries, || {
            self.order("copy");
            Beginning::StandbyOf(self)
        })
    }

    fn start_after<'a>(binaries: &Path, prepare: impl Fn() -> Beginning<'a>) -> &'static Cluster {
        // Another process can take a port between our look and the server's start.
        let mut failures = String::new();
        for _ in 0..3 {
            match Self::try_start(binaries, prepare()) {
                Ok(cluster) => return Box::leak(Box::new(cluster)),
                Err(log) => failures.push_str(&log),
            }
        }
        panic!("PostgreSQL of {} does not start:\n{failures}", binaries.display());
    }

    fn try_start(binaries: &Path, beginning: Beginning<'_>) -> Result<Cluster, String> {
        let (primary, extra, clock) = match beginning {
            Beginning::Empty => (None, None, None),
            Beginning::With(extra) => (None, Some(extra), None),
            Beginning::StandbyOf(primary) => (Some(primary), None, None),
            Beginning::Under(clock) => (None, None, Some(clock)),
        };
        let folder = unused_folder();
        let port = unused_port();
        let standby = primary.map(|primary| [OsStr::new("--standby-of"), primary.folder.as_os_str()]);
        let variables = clock.iter().flat_map(|clock| clock.variables(Threads::One));
        let mut process = Command::new(script("throwaway-cluster"))
            .args(standby.into_iter().flatten())
            .args(variables.flat_map(|(name, value)| ["--variable".to_owned(), format!("{name}={value}")]))
            .arg(&folder)
            .arg(port.to_string())
            .args(extra)
            .env("PGSLICE_TEST_PG_BIN", binaries)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run scripts/throwaway-cluster");
        let answers = BufReader::new(process.stdout.take().expect("its output is piped"));
        let mut keeper = Keeper { process, answers };
        keeper.await_ready()?;
        let password = std::fs::read_to_string(folder.join("password")).expect("read the cluster's password");
        Ok(Cluster {
            folder,
            port,
            password,
            binaries: binaries.to_owned(),
            keeper: Mutex::new(keeper),
            templates: Mutex::default(),
        })
    }

    /// Stops the server in an orderly way, which ends its sessions, and starts it again with the same data and port.
    pub(crate) fn restart(&self) {
        self.order("restart");
    }

    /// Ends the server as a power cut would, and starts it again with the same data and port.
    pub(crate) fn crash(&self) {
        self.order("crash");
    }

    fn order(&self, order: &str) {
        let mut keeper = self.keeper.lock().expect("no order failed before");
        let stdin = keeper.process.stdin.as_mut().expect("never taken");
        writeln!(stdin, "{order}").expect("reach scripts/throwaway-cluster");
        keeper.await_ready().unwrap_or_else(|log| panic!("{order} failed:\n{log}"));
    }

    /// The database of this standby that its primary has as `database`. It is the primary's to drop.
    pub(crate) fn standby_of(&'static self, database: &Database) -> Database {
        Database { url: self.url(&database.name), name: database.name.clone(), cluster: self }
    }

    /// A new empty database, its name beginning with `hint`. It is dropped with the value.
    pub(crate) fn create_database(&'static self, hint: &str) -> Database {
        Database::create(self, hint, "template0")
    }

    /// A copy of a database that `build` filled the first time its `name` was asked for: faster than filling another.
    pub(crate) fn create_from(&'static self, name: &str, build: impl FnOnce(&Database)) -> Database {
        let template = Arc::clone(self.templates.lock().expect("not poisoned").entry(name.to_owned()).or_default());
        let template = template.get_or_init(|| {
            let database = self.create_database(name);
            build(&database);
            database
        });
        Database::create(self, name, &template.name)
    }

    /// The path of a PostgreSQL program, `psql`, `pg_dump`, …: of this cluster's release, or the PATH's where that
    /// came without clients.
    pub(crate) fn bin(&self, program: &str) -> PathBuf {
        let path = self.binaries.join(program);
        if path.exists() { path } else { PathBuf::from(program) }
    }

    /// The folder with the server's socket; everything else that is the cluster's is below it.
    pub(crate) fn socket_dir(&self) -> &Path {
        &self.folder
    }

    /// The port, of the socket's name and on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What the server wrote to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("server.log")).expect("read the server's log")
    }

    /// The superuser's password, which 127.0.0.1 asks for.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&port={}&user=postgres", self.folder.display(), self.port)
    }

    /// What psql prints for a script, run by the superuser in that database, or what it wrote to standard error.
    pub(crate) fn psql(&self, database: &str, script: &str) -> Result<String, String> {
        let mut psql = client(self.bin("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database), "-f", "-"]);
        let output = feed(psql, script.as_bytes());
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

impl Keeper {
    fn await_ready(&mut self) -> Result<(), String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("read from scripts/throwaway-cluster");
        if line == "ready\n" {
            return Ok(());
        }
        let mut log = String::new();
        let stderr = self.process.stderr.as_mut().expect("its errors are piped");
        stderr.read_to_string(&mut log).expect("read from scripts/throwaway-cluster");
        Err(log)
    }
}

/// A database of a cluster, dropped with the value, whoever is connected to it.
pub(crate) struct Database {
    /// For pgslice, tokio-postgres and libpq alike: over the socket, without a password.
    pub(crate) url: String,
    /// Its name.
    pub(crate) name: String,
    cluster: &'static Cluster,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Database {
    fn create(cluster: &'static Cluster, hint: &str, template: &str) -> Database {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let name = format!("{hint}_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        cluster
            .psql("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE \"{template}\""))
            .unwrap_or_else(|error| panic!("{error}"));
        Database { url: cluster.url(&name), name, cluster }
    }

    /// What `psql` prints for a script of any length: unaligned, fields separated by `|`, no headings, without the
    /// last line's end. Statements run one by one, each its own transaction. Panics on the first error.
    pub(crate) fn psql(&self, script: &str) -> String {
        self.try_psql(script).unwrap_or_else(|error| panic!("psql on {}: {error}", self.name))
    }

    /// Like [`Database::psql`], but an error is what psql wrote to standard error.
    pub(crate) fn try_psql(&self, script: &str) -> Result<String, String> {
        let printed = self.cluster.psql(&self.name, script)?;
        Ok(printed.strip_suffix('\n').unwrap_or(&printed).to_owned())
    }

    /// The cluster that it is in.
    pub(crate) fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// The same database over TCP, with a password (SCRAM).
    pub(crate) fn tcp_url(&self) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{}", self.cluster.password, self.cluster.port, self.name)
    }

    /// Writes an archive (`pg_dump --format=custom`) to `archive`, with further options.
    pub(crate) fn pg_dump(&self, archive: &Path, options: &[&str]) {
        let mut pg_dump = client(self.cluster.bin("pg_dump"));
        pg_dump.args(["--format=custom", "--compress=1", "--dbname", &self.url, "--file"]).arg(archive).args(options);
        run(&mut pg_dump).expect("dump the database");
    }

    /// Restores an archive into this database, all or nothing.
    pub(crate) fn pg_restore(&self, archive: &Path) {
        let mut pg_restore = client(self.cluster.bin("pg_restore"));
        pg_restore.args(["--single-transaction", "--no-owner", "--dbname", &self.url]).arg(archive);
        run(&mut pg_restore).expect("restore the archive");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A cluster that is gone took its databases along.
        let _ = self.cluster.psql("postgres", &format!("DROP DATABASE \"{}\" WITH (FORCE)", self.name));
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

fn unused_folder() -> PathBuf {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    PathBuf::from(format!("/tmp/pgslice-{:x}-{:x}", std::process::id(), since_epoch.as_nanos()))
}

/// A port of 127.0.0.1 that nothing listened on a moment ago.
pub(crate) fn unused_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// A PostgreSQL client that nothing of the caller's environment reaches.
pub(crate) fn client(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
    command
}

/// Standard output of a command that succeeds; otherwise what it wrote to standard error.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Runs a command on an input of any length.
fn feed(mut command: Command, input: &[u8]) -> Output {
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = process.stdin.take().expect("its input is piped");
    std::thread::scope(|scope| {
        // A program that stops early closes its end; its exit status tells.
        scope.spawn(move || stdin.write_all(input));
        process.wait_with_output().expect("wait for a child")
    })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("PostgreSQL's programs write UTF-8")
}
