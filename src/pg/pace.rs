//! How a stream of rows is waited for: by the clock, while the socket fills.
//!
//! PostgreSQL sends 8 KiB at a time. A reader that waits for its socket is woken for each of them, and it is the server
//! that spends the time: with both on one machine, a COPY of rows of 2 kB took a quarter more. So a reader that has read
//! all sleeps for a moment; how long it learns from how full it finds the socket afterwards. A socket that is full holds
//! the server up, therefore it is never meant to be.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::io::ioctl_fionread;
use rustix::net::{AddressFamily, getsockname, sockopt};

/// Where sockets are smaller, there is nothing to gain.
const LEAST_BYTES: u64 = 64 << 10;
/// More at once saves nothing.
const MOST_BYTES: u64 = 208 << 10;
const FIRST_NAP: Duration = Duration::from_micros(100);
const SHORTEST_NAP: Duration = Duration::from_micros(25);
/// A server that is slower is not worth more patience.
const LONGEST_NAP: Duration = Duration::from_micros(400);

/// The pace of one connection's stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// What the socket holds at most; `None` where naps do not pay.
    room: Option<u64>,
    nap: Duration,
}

impl Pace {
    /// For a stream that comes through `socket`.
    pub(super) fn of(socket: &OwnedFd) -> Pace {
        let held = match getsockname(socket).map(|name| name.address_family()) {
            // What the sender may have under way counts there; both ends begin with the system's default.
            Ok(AddressFamily::UNIX) => sockopt::socket_send_buffer_size(socket),
            // As it begins: it may grow. Half of it is for what surrounds the bytes.
            _ => sockopt::socket_recv_buffer_size(socket).map(|bytes| bytes / 2),
        };
        Pace::with_room(held.map_or(0, |bytes| bytes as u64))
    }

    fn with_room(bytes: u64) -> Pace {
        Pace { room: (bytes >= LEAST_BYTES).then_some(bytes.min(MOST_BYTES)), nap: FIRST_NAP }
    }

    /// Returns at once if the socket holds something, or does not tell; else after a moment, whether something came or not.
    pub(super) fn gather(&mut self, socket: &OwnedFd) {
        if self.room.is_some() && ioctl_fionread(socket) == Ok(0) {
            thread::sleep(self.nap);
            if let Ok(came) = ioctl_fionread(socket) {
                self.learn(came);
            }
        }
    }

    /// Adapts to what came during a nap: between a half and three quarters of the room are wanted.
    fn learn(&mut self, came: u64) {
        let Some(room) = self.room else { return };
        if came > room / 4 * 3 {
            self.nap = (self.nap * 3 / 4).max(SHORTEST_NAP);
        } else if came < room / 2 {
            self.nap = (self.nap * 5 / 4).min(LONGEST_NAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What naps come to when so many bytes arrive in a microsecond.
    fn learned(room: u64, bytes_a_microsecond: u64) -> Duration {
        let mut pace = Pace::with_room(room);
        for _ in 0..100 {
            let came = u64::try_from(pace.nap.as_micros()).expect("short") * bytes_a_microsecond;
            pace.learn(came.min(room));
        }
        pace.nap
    }

    #[test]
    fn a_socket_is_found_half_full_and_never_full() {
        for bytes_a_microsecond in [400, 500, 1_000, 2_000] {
            let came = learned(212_992, bytes_a_microsecond).as_micros() * u128::from(bytes_a_microsecond);
            assert!((212_992 / 2..=212_992 / 4 * 3).contains(&came), "{bytes_a_microsecond}: {came}");
        }
    }

    #[test]
    fn naps_have_bounds() {
        assert_eq!(learned(212_992, 10), LONGEST_NAP);
        assert_eq!(learned(212_992, 100_000), SHORTEST_NAP);
    }

    #[test]
    fn only_an_empty_socket_is_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        let ours = ours.into();
        let mut pace = Pace::of(&ours);
        assert!(pace.room.is_some_and(|room| room >= LEAST_BYTES), "Linux has 208 KiB");
        pace.gather(&ours);
        assert!(pace.nap > FIRST_NAP, "nothing came");
        theirs.write_all(b"something").expect("sent");
        let before = pace.nap;
        pace.gather(&ours);
        assert_eq!(pace.nap, before);
    }

    #[test]
    fn small_sockets_are_not_waited_for() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut pace = Pace::with_room(LEAST_BYTES - 1);
        pace.gather(&ours.into());
        assert_eq!(pace.nap, FIRST_NAP);
    }
}
