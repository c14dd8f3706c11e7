//! A command whose output is streamed, and the thread that reads it.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::error::{Class, Failure};

/// What a command's arguments say where the name of the snapshot goes.
pub const SNAPSHOT: &str = "{snapshot}";

/// Long options of pg_dump that leave rows out, beside those that begin with `exclude-`.
const LEAVES_OUT: [&str; 7] =
    ["table", "table-and-children", "schema", "schema-only", "statistics-only", "no-data", "filter"];
/// How much is read at a time, unless the input ends before.
const PIECE_BYTES: u64 = 1 << 20;
/// Pieces between the reader and the store.
const PIECES_QUEUED: usize = 2;
/// How long a command has to end after SIGTERM.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What comes of an input.
#[derive(Debug)]
pub enum Event {
    /// The next bytes of it.
    Piece(Bytes),
    /// It has ended. That alone does not say that it is whole.
    End {
        /// Its size.
        bytes: u64,
        /// SHA-256 of it in hex.
        sha256: String,
    },
    /// It cannot be read on.
    Failed(io::Error),
}

/// Reads `input` on a thread of its own, which ends with the input or soon after the result is dropped: as soon as
/// the read returns that it is in. Memory: four pieces of 1 MiB, one being read, two queued, one in the caller's hand.
pub fn read(mut input: impl Read + Send + 'static) -> mpsc::Receiver<Event> {
    let (events_in, events_out) = mpsc::channel(PIECES_QUEUED);
    std::thread::spawn(move || {
        let mut sha256 = Sha256::new();
        let mut bytes = 0_u64;
        loop {
            let mut piece = Vec::new();
            let last = match (&mut input).take(PIECE_BYTES).read_to_end(&mut piece) {
                Ok(_) if !piece.is_empty() => {
                    sha256.update(&piece);
                    bytes += piece.len() as u64;
                    if events_in.blocking_send(Event::Piece(piece.into())).is_err() {
                        return;
                    }
                    continue;
                }
                Ok(_) => Event::End { bytes, sha256: hex::encode(sha256.finalize()) },
                Err(error) => Event::Failed(error),
            };
            // Who does not wait for it has given up.
            let _ = events_in.blocking_send(last);
            return;
        }
    });
    events_out
}

/// Does any argument after the program's name ask for the snapshot?
pub fn wants_snapshot(command: &[OsString]) -> bool {
    command
        .iter()
        .skip(1)
        .any(|argument| argument.as_bytes().windows(SNAPSHOT.len()).any(|at| at == SNAPSHOT.as_bytes()))
}

/// The first option by which a pg_dump leaves rows out, as it is written; `None` for any other program. What a script
/// does is not known.
pub fn partial_option(command: &[OsString]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    if Path::new(program).file_name() != Some(OsStr::new("pg_dump")) {
        return None;
    }
    arguments.iter().map(|argument| argument.to_string_lossy()).find_map(|argument| match argument.strip_prefix("--") {
        Some(long) => {
            let name = long.split('=').next().unwrap_or_default();
            (LEAVES_OUT.contains(&name) || name.starts_with("exclude-")).then(|| format!("--{name}"))
        }
        None => {
            // Behind an option with a value stands the value.
            let flags = argument.strip_prefix('-')?.chars();
            let last = |flag: &char| !"dEefFhjpSUZ".contains(*flag);
            flags.take_while(last).find(|flag| "tnTNs".contains(*flag)).map(|flag| format!("-{flag}"))
        }
    })
}

/// The command with the snapshot's name in place of every `{snapshot}` of its arguments.
pub fn with_snapshot(command: &[OsString], snapshot: &str) -> Vec<OsString> {
    let filled = |argument: &OsString| {
        let mut rest = argument.as_bytes();
        let mut filled = Vec::with_capacity(rest.len());
        while let Some(at) = rest.windows(SNAPSHOT.len()).position(|window| window == SNAPSHOT.as_bytes()) {
            filled.extend_from_slice(&rest[..at]);
            filled.extend_from_slice(snapshot.as_bytes());
            rest = &rest[at + SNAPSHOT.len()..];
        }
        filled.extend_from_slice(rest);
        OsString::from_vec(filled)
    };
    command.iter().enumerate().map(|(index, word)| if index == 0 { word.clone() } else { filled(word) }).collect()
}

/// Which processes are meant when the command is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// It leads a process group: whatever it has started is meant too.
    Group,
    /// It shares the group of a terminal, so that it may ask for a password there, and gets the terminal's interrupts.
    Process,
}

/// A command that runs. When it is dropped, the command is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    reach: Reach,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts `command`, a program and its arguments. It shares standard input and standard error with this program;
    /// its standard output is the result's second half.
    ///
    /// # Errors
    /// Class Usage when there is no such program, or it cannot be executed.
    pub fn start(command: &[OsString]) -> anyhow::Result<(Running, ChildStdout)> {
        let (program, arguments) = command.split_first().ok_or_else(|| Failure::new(Class::Usage, "no command"))?;
        let name = program.to_string_lossy().into_owned();
        let reach = if io::stdin().is_terminal() { Reach::Process } else { Reach::Group };
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::piped());
        if reach == Reach::Group {
            command.process_group(0);
        }
        let mut child = command.spawn().map_err(|error| not_started(program, &error))?;
        let output = child.stdout.take().expect("its output is piped");
        Ok((Running { child, name, reach, ended: None }, output))
    }

    /// How it ended, if it has. What a command that failed has left behind is killed: it may hold the output open.
    ///
    /// # Errors
    /// The system's.
    pub fn look(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let look_only = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let pid = Pid::from_child(&self.child);
            let Some(end) = waitid(WaitId::Pid(pid), look_only)? else { return Ok(None) };
            if end.exit_status() != Some(0) && self.reach == Reach::Group {
                // Until it is waited for, its group's number is nobody else's. The group may be empty.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            self.ended = Some(self.child.wait()?);
        }
        Ok(self.ended)
    }

    /// Waits for its end; may be dropped at any point.
    ///
    /// # Errors
    /// The system's.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.look()? {
                return Ok(status);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells it to end, with all that it has started, and waits for that; kills it when it takes too long.
    pub async fn end(&mut self) {
        self.send(Signal::TERM);
        // Dropping kills.
        if tokio::time::timeout(LAST_WORDS, self.wait()).await.is_err() {
            tracing::debug!("{} did not end after SIGTERM", self.name);
        }
    }

    /// The failure that `status` stands for, unless it stands for none.
    pub fn verdict(&self, status: ExitStatus) -> Result<(), Failure> {
        let how = match (status.code(), status.signal()) {
            (Some(0), _) => return Ok(()),
            (Some(code), _) => format!("ended with exit status {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        };
        Err(Failure::new(Class::Other, format!("{} {how}", self.name))
            .meaning("nothing was published: its output may not be whole")
            .next("see above what it wrote to standard error; run again when it is mended"))
    }

    fn send(&mut self, signal: Signal) {
        // Asked first: the number of a process that was waited for may be another one's.
        if matches!(self.look(), Ok(None)) {
            let pid = Pid::from_child(&self.child);
            let sent = match self.reach {
                Reach::Group => kill_process_group(pid, signal),
                Reach::Process => kill_process(pid, signal),
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "{} cannot be told to end", self.name);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.look(), Ok(None)) {
            self.send(Signal::KILL);
            // It cannot refuse.
            let _ = self.child.wait();
        }
    }
}

fn not_started(program: &OsStr, error: &io::Error) -> Failure {
    Failure::new(Class::Usage, format!("cannot start {}: {error}", program.to_string_lossy()))
        .meaning("nothing was published")
        .next("name a program that the PATH has, or its whole path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_snapshot_goes_where_arguments_ask_for_it() {
        let command = words(&["pg_dump", "-Fc", "--snapshot={snapshot}", "x{snapshot}{snapshot}y", "db"]);
        assert!(wants_snapshot(&command));
        let filled = with_snapshot(&command, "00000003-1B");
        assert_eq!(filled, words(&["pg_dump", "-Fc", "--snapshot=00000003-1B", "x00000003-1B00000003-1By", "db"]));
    }

    #[test]
    fn a_program_is_never_named_by_a_snapshot() {
        let command = words(&["{snapshot}", "db", "{snap", "shot}"]);
        assert!(!wants_snapshot(&command));
        assert_eq!(with_snapshot(&command, "a"), command);
    }

    #[tokio::test]
    async fn bytes_arrive_whole_with_their_size_and_digest() {
        let content: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0] ^ 0x5a).collect();
        let mut events = read(io::Cursor::new(content.clone()));
        let mut seen = Vec::new();
        loop {
            match events.recv().await.expect("an end") {
                Event::Piece(piece) => seen.extend_from_slice(&piece),
                Event::End { bytes, sha256 } => {
                    assert_eq!((bytes, sha256), (3_000_000, hex::encode(Sha256::digest(&content))));
                    break;
                }
                Event::Failed(error) => panic!("{error}"),
            }
        }
        assert!(seen == content);
    }

    #[tokio::test]
    async fn a_command_that_is_dropped_is_killed_with_what_it_started() {
        // The inner shell holds the pipe open as long as it lives.
        let (running, output) =
            Running::start(&words(&["sh", "-c", "sh -c 'echo $$; sleep 1000' & wait"])).expect("a shell");
        let mut events = read(output);
        drop(running);
        loop {
            match events.recv().await.expect("an end") {
                Event::Piece(_) => {}
                Event::End { .. } => return,
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn how_a_command_ended_is_told() {
        for (script, told) in
            [("exit 3", Some("sh ended with exit status 3")), ("kill -9 $$", Some("signal 9")), ("true", None)]
        {
            let (mut running, _output) = Running::start(&words(&["sh", "-c", script])).expect("a shell");
            let status = running.wait().await.expect("its status");
            match (running.verdict(status), told) {
                (Ok(()), None) => {}
                (Err(failure), Some(told)) => assert!(failure.what.contains(told), "{failure}"),
                (verdict, _) => panic!("{script}: {verdict:?}"),
            }
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_a_mistake_of_the_caller() {
        let error = Running::start(&words(&["/nowhere/pg_dump"])).expect_err("not there");
        assert_eq!(crate::error::class_of(&error), Class::Usage);
    }
}
