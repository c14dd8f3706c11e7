//! A real pool for tests: a pgbouncer before one of the clusters that vanishes with the test process, however that ends
//! (`scripts/throwaway-pool` holds it). One that cannot start is a panic that shows its log.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cluster::{Cluster, Database, unused_port};

/// How long a client of a pool keeps a session of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lending {
    /// Until it goes.
    Session,
    /// To the end of its transaction.
    Transaction,
    /// For one statement.
    Statement,
}

impl Lending {
    fn pool_mode(self) -> &'static str {
        match self {
            Lending::Session => "session",
            Lending::Transaction => "transaction",
            Lending::Statement => "statement",
        }
    }
}

/// A pool on 127.0.0.1, stopped when the value is dropped.
#[derive(Debug)]
pub(crate) struct Pool {
    port: u16,
    cluster: &'static Cluster,
    /// Its standard input is the pool's lifeline.
    keeper: Child,
}

impl Pool {
    /// A pool before `cluster`; `settings` are further lines of its configuration.
    pub(crate) fn start(cluster: &'static Cluster, lending: Lending, settings: &[&str]) -> Pool {
        // Another process can take a port between our look and the pool's start.
        let mut failures = String::new();
        for _ in 0..3 {
            match Pool::try_start(cluster, lending, settings) {
                Ok(pool) => return pool,
                Err(log) => failures.push_str(&log),
            }
        }
        panic!("pgbouncer does not start:\n{failures}");
    }

    fn try_start(cluster: &'static Cluster, lending: Lending, settings: &[&str]) -> Result<Pool, String> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(format!("/tmp/pgslice-pool-{:x}-{number}", std::process::id()));
        let port = unused_port();
        let mut keeper = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/throwaway-pool"))
            .arg(folder)
            .args([port.to_string(), cluster.port().to_string()])
            .arg(cluster.socket_dir().join("password"))
            .arg(lending.pool_mode())
            .args(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run scripts/throwaway-pool");
        let mut answer = String::new();
        let stdout = keeper.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut answer).expect("read what it says");
        if answer != "ready\n" {
            let mut log = String::new();
            keeper.stderr.take().expect("its errors are piped").read_to_string(&mut log).expect("read its errors");
            keeper.wait().expect("wait for scripts/throwaway-pool");
            return Err(log);
        }
        Ok(Pool { port, cluster, keeper })
    }

    /// The URL of a database of its cluster, through the pool.
    pub(crate) fn url(&self, database: &Database) -> String {
        database.tcp_url().replace(&format!(":{}/", self.cluster.port()), &format!(":{}/", self.port))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // What it cannot stop any more is not ours to stop.
        let _ = self.keeper.wait();
    }
}
