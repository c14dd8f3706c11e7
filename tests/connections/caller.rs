//! Somebody with a connection string, an environment and a home, who tries psql and pgslice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use super::server::{Login, logins};
use crate::cluster::{self, Cluster};
use crate::pair::NOTES_TABLE;
use crate::scene::{Ran, Scene};

/// Who tries.
#[derive(Debug)]
pub(crate) struct Caller {
    scene: Scene,
    url: String,
    environment: Vec<(&'static str, String)>,
    name: u32,
}

/// How psql and pgslice were refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) psql: String,
    pub(crate) pgslice: Ran,
}

impl Caller {
    /// Somebody with that connection string, an empty environment and an empty home.
    pub(crate) fn of(url: impl Into<String>) -> Caller {
        static CALLERS: AtomicU32 = AtomicU32::new(0);
        let (mut scene, url) = (Scene::in_folder(NOTES_TABLE), url.into());
        scene.publish_from(&url);
        Caller { scene, url, environment: Vec::new(), name: CALLERS.fetch_add(1, Ordering::Relaxed) }
    }

    /// Sets a variable of the environment.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Caller {
        let value = value.into();
        self.scene.set(name, &*value);
        self.environment.push((name, value));
        self
    }

    /// Writes a file into the home.
    pub(crate) fn holding(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Caller {
        let path = self.home().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("create a folder");
        fs::write(&path, content).expect("write a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set permissions");
        self
    }

    /// The home.
    pub(crate) fn home(&self) -> &Path {
        self.scene.folder()
    }

    /// What psql has to say about it: the login, or its words.
    pub(crate) fn psql(&self, cluster: &Cluster) -> Result<Login, String> {
        self.try_psql(cluster).map(|name| only_login(cluster, &name))
    }

    /// Tries psql: the name that it came under, or its words.
    pub(crate) fn try_psql(&self, cluster: &Cluster) -> Result<String, String> {
        self.ask_psql(cluster, "SELECT").map(|_| format!("psql-{}", self.name))
    }

    /// What psql, of that cluster's release, prints for a statement; or its words.
    pub(crate) fn ask_psql(&self, cluster: &Cluster, sql: &str) -> Result<String, String> {
        let name = format!("psql-{}", self.name);
        let output = cluster::client(cluster.bin("psql"))
            .args(["-XAtqw", "-d", &self.url, "-c", sql])
            .current_dir(self.home())
            .env("HOME", self.home())
            .env("PGAPPNAME", &name)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .expect("run psql");
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(words(&output.stdout)) } else { Err(words(&output.stderr)) }
    }

    /// What pgslice has to say: the login that all of its connections have in common, or how it ended.
    pub(crate) fn pgslice(&mut self, cluster: &Cluster) -> Result<Login, Ran> {
        let ran = self.try_pgslice();
        if ran.code == 0 { Ok(only_login(cluster, &self.own_name())) } else { Err(ran) }
    }

    /// Tries pgslice.
    pub(crate) fn try_pgslice(&mut self) -> Ran {
        let name = self.own_name();
        self.scene.set("PGAPPNAME", name);
        self.scene.pgslice(&["export", "--dry-run", "--date", "2024-05-01"])
    }

    fn own_name(&self) -> String {
        format!("pgslice-{}", self.name)
    }

    /// Tries both. An error says how they disagree.
    pub(crate) fn compared(mut self, cluster: &Cluster) -> Result<Result<Login, Refusal>, String> {
        let Caller { url, environment, .. } = &self;
        let how = format!("by {url:?} {environment:?}");
        match (self.psql(cluster), self.pgslice(cluster)) {
            (Ok(psql), Ok(pgslice)) if psql == pgslice => Ok(Ok(psql)),
            (Ok(psql), Ok(pgslice)) => Err(format!("psql gets in as {psql:?}, pgslice as {pgslice:?}, {how}")),
            (Err(psql), Err(pgslice)) => Ok(Err(Refusal { psql, pgslice })),
            (Ok(_), Err(pgslice)) => Err(format!("only psql gets in, {how}\n{pgslice}")),
            (Err(psql), Ok(login)) => Err(format!("only pgslice gets in, as {login:?}, {how}\npsql says: {psql}")),
        }
    }

    /// Panics unless psql and pgslice come to the same end: which one that is.
    #[track_caller]
    pub(crate) fn agrees(self, cluster: &Cluster) -> Result<Login, Refusal> {
        self.compared(cluster).unwrap_or_else(|difference| panic!("{difference}"))
    }

    /// Panics unless both get in as that user to that database.
    #[track_caller]
    pub(crate) fn gets_in_as(self, user: &str, database: &str, cluster: &Cluster) -> Login {
        let login = self.agrees(cluster).unwrap_or_else(|refusal| panic!("nobody gets in\n{refusal:?}"));
        assert_eq!((&*login.user, &*login.database), (user, database));
        login
    }

    /// Panics unless neither gets in, and pgslice ends with that exit code.
    #[track_caller]
    pub(crate) fn stays_out(self, code: i32, cluster: &Cluster) -> Refusal {
        match self.agrees(cluster) {
            Ok(login) => panic!("both get in: {login:?}"),
            Err(refusal) => {
                assert_eq!(refusal.pgslice.code, code, "{}\npsql says: {}", refusal.pgslice, refusal.psql);
                refusal
            }
        }
    }
}

fn only_login(cluster: &Cluster, name: &str) -> Login {
    let logins = logins(cluster, name);
    let mut logins = logins.into_iter();
    match (logins.next(), logins.next()) {
        (Some(login), None) => login,
        other => panic!("{name} got in as {other:?}"),
    }
}
