//! A dataset set up for one test, a folder with its `pgslice.toml` and a store, and the built program run in it.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cluster::Database;
use crate::place::{Kind, Place};
use crate::shifted_clock::{ShiftedClock, Threads};

/// Longer than any run of a test takes; a run that lasts longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// A folder with a `pgslice.toml`, written again by each change, and a place to publish to.
#[derive(Debug)]
pub(crate) struct Scene {
    folder: TempDir,
    place: Arc<dyn Place>,
    environment: Vec<(&'static str, String)>,
    timezone: String,
    source: Option<String>,
    replica: Option<String>,
    sections: String,
}

impl Scene {
    /// A dataset called `scene` in UTC, without source or replica, with a store of the kind that this run of the tests
    /// is about. `sections` is TOML: the `[[table]]`s, and whatever else differs from the defaults.
    pub(crate) fn new(sections: &str) -> Scene {
        Scene::on(Kind::of_this_run(), sections)
    }

    /// The same on a folder store, whatever this run is about: for what only a folder can do.
    pub(crate) fn in_folder(sections: &str) -> Scene {
        Scene::on(Kind::Folder, sections)
    }

    /// The same on a store of that kind.
    pub(crate) fn on(kind: Kind, sections: &str) -> Scene {
        let folder = TempDir::with_prefix("pgslice-scene-").expect("create a temporary folder");
        let place = kind.place(folder.path());
        let environment = place.environment();
        let (timezone, sections) = ("UTC".to_owned(), sections.to_owned());
        Scene { folder, place, environment, timezone, source: None, replica: None, sections }.written()
    }

    /// Publishes from `database`.
    pub(crate) fn source(mut self, database: &Database) -> Scene {
        self.source = Some(database.url.clone());
        self.written()
    }

    /// Tops off `database`.
    pub(crate) fn replica(mut self, database: &Database) -> Scene {
        self.replica = Some(database.url.clone());
        self.written()
    }

    /// Publishes from wherever a connection string says.
    pub(crate) fn publish_from(&mut self, url: &str) {
        self.source = Some(url.to_owned());
        self.write();
    }

    /// Tops off wherever a connection string says.
    pub(crate) fn top_off(&mut self, url: &str) {
        self.replica = Some(url.to_owned());
        self.write();
    }

    /// Sets a variable of the program's environment.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.into()));
    }

    /// Runs pgslice with another clock.
    pub(crate) fn under(mut self, clock: ShiftedClock) -> Scene {
        clock.variables(Threads::Many).into_iter().for_each(|(name, value)| self.set(name, value));
        self
    }

    /// Cuts days in another zone.
    pub(crate) fn timezone(mut self, timezone: &str) -> Scene {
        timezone.clone_into(&mut self.timezone);
        self.written()
    }

    /// Uses another scene's store: a stranger's feed.
    pub(crate) fn reading(mut self, other: &Scene) -> Scene {
        self.place = Arc::clone(&other.place);
        self.environment = self.place.environment();
        self.written()
    }

    /// Runs pgslice with other variables than those that let it write to its place.
    pub(crate) fn with_environment(mut self, environment: impl IntoIterator<Item = (&'static str, String)>) -> Scene {
        self.environment = environment.into_iter().collect();
        self
    }

    /// Replaces all of the configuration that [`Scene::new`] was given.
    pub(crate) fn configure(&mut self, sections: &str) {
        sections.clone_into(&mut self.sections);
        self.write();
    }

    fn written(self) -> Scene {
        self.write();
        self
    }

    fn write(&self) {
        let mut toml = format!("dataset = \"scene\"\ntimezone = \"{}\"\n", self.timezone);
        let database = |section: &str, url: &Option<String>| {
            let url = url.as_ref().map(|url| toml::Value::from(url.as_str()));
            url.map(|url| format!("\n[{section}]\nurl = {url}\n")).unwrap_or_default()
        };
        toml.push_str(&database("source", &self.source));
        toml.push_str(&format!("\n{}", self.place.section()));
        toml.push_str(&database("replica", &self.replica));
        toml.push_str(&format!("\n{}", self.sections));
        fs::write(self.configuration(), toml).expect("write pgslice.toml");
    }

    /// The path of its `pgslice.toml`.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.folder.path().join("pgslice.toml")
    }

    /// Replaces a text of `pgslice.toml`, which must be there, until the next change writes it again.
    #[track_caller]
    pub(crate) fn edit_configuration(&self, from: &str, to: &str) {
        let toml = fs::read_to_string(self.configuration()).expect("read pgslice.toml");
        assert!(toml.contains(from), "{from} is not in\n{toml}");
        fs::write(self.configuration(), toml.replace(from, to)).expect("write pgslice.toml");
    }

    /// The folder that the program runs in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it publishes to; the first export makes it if need be.
    pub(crate) fn place(&self) -> &Arc<dyn Place> {
        &self.place
    }

    /// Runs pgslice to its end.
    pub(crate) fn pgslice(&self, arguments: &[&str]) -> Ran {
        self.spawn(arguments).wait()
    }

    /// Runs pgslice to its end with `input` as its standard input and its standard output into `output`.
    pub(crate) fn pgslice_between(&self, arguments: &[&str], input: Option<&Path>, output: Option<&Path>) -> Ran {
        let input = input.map_or_else(Stdio::null, |path| fs::File::open(path).expect("open the input").into());
        let output = output.map_or_else(Stdio::piped, |path| fs::File::create(path).expect("create the output").into());
        spawn_between(self.folder(), arguments, &self.environment, input, output).wait()
    }

    /// Starts pgslice, for tests that kill it.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        spawn(self.folder(), arguments, &self.environment)
    }
}

/// Runs the built pgslice in `folder` to its end, with nothing of the caller's environment but the PATH: no `PG*`, no
/// `PGSLICE_CONFIG`, and `folder` as its home.
pub(crate) fn pgslice(folder: &Path, arguments: &[&str]) -> Ran {
    spawn(folder, arguments, &[]).wait()
}

fn spawn(folder: &Path, arguments: &[&str], environment: &[(&str, String)]) -> Running {
    spawn_between(folder, arguments, environment, Stdio::null(), Stdio::piped())
}

fn spawn_between(
    folder: &Path,
    arguments: &[&str],
    environment: &[(&str, String)],
    input: Stdio,
    output: Stdio,
) -> Running {
    let mut process = Command::new(env!("CARGO_BIN_EXE_pgslice"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .expect("start pgslice");
    // What goes to a file is not collected.
    let stdout = process.stdout.take().map_or_else(|| collect(std::io::empty()), collect);
    let stderr = collect(process.stderr.take().expect("its errors are piped"));
    Running { command: format!("pgslice {}", arguments.join(" ")), process, stdout, stderr, started: Instant::now() }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("read what pgslice writes");
        String::from_utf8(bytes).expect("pgslice writes UTF-8")
    })
}

/// A pgslice that was started.
#[derive(Debug)]
pub(crate) struct Running {
    command: String,
    process: Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    started: Instant,
}

impl Running {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Has it not ended yet?
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("ask for a child's status").is_none()
    }

    /// Ends it by SIGKILL, wherever it is, and says how far it came. Its code is 137, unless it ended before.
    pub(crate) fn kill(mut self) -> Ran {
        self.process.kill().expect("kill pgslice");
        let status = self.process.wait().expect("wait for pgslice");
        self.ran(status)
    }

    /// Waits for its end; panics when it hangs.
    pub(crate) fn wait(mut self) -> Ran {
        loop {
            if let Some(status) = self.process.try_wait().expect("ask for a child's status") {
                return self.ran(status);
            }
            if self.started.elapsed() > LIMIT {
                let command = self.command.clone();
                let ran = self.kill();
                panic!("{command} has not ended within {LIMIT:?}\n{ran}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn ran(self, status: ExitStatus) -> Ran {
        use std::os::unix::process::ExitStatusExt;
        let killed = || 128 + status.signal().expect("ended by a signal, or with a code");
        Ran {
            code: status.code().unwrap_or_else(killed),
            command: self.command,
            stdout: self.stdout.join().expect("collect standard output"),
            stderr: self.stderr.join().expect("collect standard error"),
        }
    }
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code; 128 and the signal's number when a signal ended it.
    pub(crate) code: i32,
    /// Results.
    pub(crate) stdout: String,
    /// Progress and logs.
    pub(crate) stderr: String,
    command: String,
}

impl Ran {
    /// Panics, and shows what was written, unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Ran {
        assert!(self.code == code, "expected exit code {code}\n{self}");
        self
    }

    /// The only line of results, without the requests that are told behind it when the store is asked by requests.
    #[track_caller]
    pub(crate) fn summary(&self) -> &str {
        let line = self.stdout.strip_suffix('\n').filter(|line| !line.contains('\n'));
        let line = line.unwrap_or_else(|| panic!("expected one line\n{self}"));
        match line.rsplit_once(" (") {
            Some((summary, count)) if count.ends_with(" requests)") => summary,
            _ => line,
        }
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}\nexit code {}", self.command, self.code)?;
        writeln!(f, "--- standard output\n{}\n--- standard error\n{}", self.stdout.trim_end(), self.stderr.trim_end())
    }
}
