//! Clocks that show another time than the machine's: `libfaketime`, preloaded, answers the programs under test.

use chrono::{DateTime, TimeDelta, Utc};

use crate::cluster;

/// A clock that runs as the machine's does, a number of seconds ahead of it or behind. All processes under one such
/// clock see the same time, whenever they were started: it is an offset, not a time to start from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShiftedClock {
    offset_secs: i64,
}

/// How many threads a program has: libfaketime has a library for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// One, and children that it forks.
    One,
    /// Any number.
    Many,
}

impl ShiftedClock {
    /// The clock that shows `time` now, or up to a second more.
    pub(crate) fn showing(time: DateTime<Utc>) -> ShiftedClock {
        ShiftedClock { offset_secs: time.timestamp() - Utc::now().timestamp() }
    }

    /// What it shows.
    pub(crate) fn now(self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::seconds(self.offset_secs)
    }

    /// The environment of programs that go by it. Intervals are measured, and files are dated, as always.
    pub(crate) fn variables(self, threads: Threads) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", cluster::libfaketime(threads)),
            ("FAKETIME", format!("{:+}", self.offset_secs)),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }

    /// Waits until it shows `time`.
    pub(crate) async fn shows(self, time: DateTime<Utc>) {
        // What has passed already is no duration.
        if let Ok(left) = (time - self.now()).to_std() {
            tokio::time::sleep(left).await;
        }
    }
}
