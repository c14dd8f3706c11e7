//! What a person sees while a command runs: a bar on a terminal, nothing otherwise (a line per day is the log's).

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A line that moves on a terminal. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// On standard error if that is a terminal.
    pub fn on_terminal() -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress::hidden();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {bytes}  {bytes_per_sec}  {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(bar)
    }

    /// Nowhere.
    pub fn hidden() -> Progress {
        Progress(ProgressBar::hidden())
    }

    /// Says what is being done now, and counts from zero.
    pub fn begin(&self, what: &str) {
        self.0.set_message(what.to_owned());
        self.0.reset();
    }

    /// So many more bytes of rows have passed.
    pub fn add_bytes(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Prints a line above the bar.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Takes the line away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}
