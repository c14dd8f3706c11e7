//! `full + days = source` over random histories: whatever was written, moved, erased, and changed in the schema, a
//! replica that was restored from any of the full dumps, taken while others wrote, has the source's rows once all days are
//! published and applied, and another catchup changes nothing. A replica that is refused because a schema changed runs
//! the statements that the refusal tells, and goes on.
//!
//! `DUMP_HISTORIES` says how many (12; `make test-histories` has 1,000), `SEED` with which number the first one starts; a
//! failure prints its own seed and everything that was done. What writes beside a dump is chosen by the seed too, but not
//! when.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, ensure};
use chrono::{TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use pgslice::catchup::apply::Extra;
use pgslice::catchup::plan::{Gaps, Request as Wanted};
use pgslice::catchup::restored::RestoredFrom;
use pgslice::catchup::run::{MissingTables, Mode};
use pgslice::catchup::{self, CatchupReport};
use pgslice::config::{Config, RetentionConfig};
use pgslice::day::DayRange;
use pgslice::error::{Class, class_of};
use pgslice::export::day::NewSource;
use pgslice::export::plan::{Force, Request, Rules, Shrink};
use pgslice::layout::Key;
use pgslice::pg::Endpoint;
use pgslice::progress::Progress;
use pgslice::store::SharedStore;
use pgslice::{export, retention, stream};

use crate::cluster::{self, Database};
use crate::full_dumps::pg_dump;
use crate::histories::{DAYS, Dice, LANES, SCHEMA, TABLES, USERS, from_environment, nth_day};
use crate::in_process;
use crate::scene::Scene;

type Mix = BTreeMap<&'static str, u64>;

struct History {
    source: Database,
    replica: Database,
    scene: Scene,
    config: Arc<Config>,
    store: SharedStore,
    dice: Dice,
    next_id: u64,
    dumps: Vec<Key>,
    /// Columns that messages got in the course of the history, as they are called now, with their types.
    added: Vec<(String, &'static str)>,
    next_column: u64,
    restored: bool,
    /// What the replica was restored from, until a catchup has taken it in.
    told: Option<Key>,
    log: String,
    mix: Mix,
}

/// One random change of the source.
fn write(dice: &mut Dice, next_id: &mut u64) -> (&'static str, String) {
    let (day, author, some) = (dice.day(), dice.roll(USERS), dice.roll(5));
    let at = format!("'{day} 00:00+00'::timestamptz + interval '{} minutes'", dice.roll(24 * 60));
    match dice.roll(12) {
        0..4 => {
            let id = *next_id;
            *next_id += 1;
            let sql = format!(
                "INSERT INTO messages VALUES ({id}, {at}, 'payload', 'ref {id}', {author});
                 INSERT INTO tags SELECT {id}, {at}, 'tag ' || i, {author} FROM generate_series(1, {}) i",
                some % 3
            );
            ("insert", sql)
        }
        4..6 => ("update", format!("UPDATE messages SET payload = 'changed' WHERE id % 5 = {some}")),
        6..8 => ("update back", format!("UPDATE messages SET payload = 'payload' WHERE id % 5 = {some}")),
        8..10 => ("move", format!("UPDATE messages SET ts = {at} WHERE id % 5 = {some}")),
        10 => ("rename", format!("UPDATE users SET name = 'renamed {some}' WHERE id = {author}")),
        _ => (
            "delete",
            format!(
                "DELETE FROM messages WHERE id > 0 AND id % 5 = {some} AND ts < {at};
                 DELETE FROM tags WHERE message_id > 0 AND message_id % 5 = {some}"
            ),
        ),
    }
}

impl History {
    async fn set_up(seed: u64) -> History {
        let source = cluster::source().create_database("dump_history");
        let replica = cluster::replica().create_database("dump_history");
        // One message is never deleted: an empty table says that nothing was restored into it.
        source.psql(&format!(
            "{SCHEMA} INSERT INTO users SELECT i, 'user ' || i FROM generate_series(0, {}) i;
             INSERT INTO messages VALUES (-1, '2024-05-02 12:00Z', 'payload', 'ref -1', 0);
             INSERT INTO tags VALUES (-1, '2024-05-02 12:00Z', 'tag', 0)",
            USERS - 1
        ));
        let mut scene = Scene::new(TABLES).source(&source);
        scene.configure(&format!("{TABLES}\n[replica]\nurl = \"{}\"\nnew-columns = \"add\"\n", replica.url));
        let (config, store) = (in_process::config(&scene), in_process::open(&scene).await);
        History {
            source,
            replica,
            scene,
            config,
            store,
            dice: Dice(seed),
            next_id: 1,
            dumps: Vec::new(),
            added: Vec::new(),
            next_column: 1,
            restored: false,
            told: None,
            log: String::new(),
            mix: Mix::new(),
        }
    }

    fn tell(&mut self, kind: &'static str, details: &str) {
        *self.mix.entry(kind).or_default() += 1;
        writeln!(self.log, "  {kind}: {details}").expect("write to a string");
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        match self.dice.roll(100) {
            0..42 => {
                let (kind, sql) = write(&mut self.dice, &mut self.next_id);
                self.tell(kind, &sql);
                self.source.psql(&sql);
                Ok(())
            }
            42..52 => {
                self.change_schema();
                Ok(())
            }
            52..55 => self.erase().await,
            55..68 => {
                let from = self.dice.day();
                let to = from.plus(self.dice.roll(3)).min(nth_day(DAYS - 1));
                self.export(DayRange { from, to }).await
            }
            68..73 => self.prune().await,
            73..83 => self.put().await,
            83..90 => self.restore().await,
            _ => self.catchup("catchup", Gaps::Stop).await,
        }
    }

    /// Adds a column to messages, or fills, renames, widens or drops one that was added.
    fn change_schema(&mut self) {
        let which = usize::try_from(self.dice.roll(self.added.len().max(1) as u64)).expect("small");
        let some = self.dice.roll(5);
        let (kind, sql) = match (self.dice.roll(10), self.added.get(which).cloned()) {
            (0..3, Some((name, of))) => {
                let value = if of == "text" { "'value'" } else { "id" };
                ("fill of a column", format!("UPDATE messages SET {name} = {value} WHERE id % 5 = {some}"))
            }
            (3, Some((name, _))) => {
                self.added[which].0 = self.new_name();
                ("rename of a column", format!("ALTER TABLE messages RENAME {name} TO {}", self.added[which].0))
            }
            (4, Some((name, "int"))) => {
                self.added[which].1 = "bigint";
                ("widening of a column", format!("ALTER TABLE messages ALTER {name} TYPE bigint"))
            }
            (5, Some((name, _))) => {
                self.added.remove(which);
                ("drop of a column", format!("ALTER TABLE messages DROP {name}"))
            }
            (roll, _) => {
                let (name, of) = (self.new_name(), if roll % 2 == 0 { "int" } else { "text" });
                let filled = if some < 2 { format!(" DEFAULT '{some}'") } else { String::new() };
                let sql = format!("ALTER TABLE messages ADD {name} {of}{filled}");
                self.added.push((name, of));
                ("new column", sql)
            }
        };
        self.tell(kind, &sql);
        self.source.psql(&sql);
    }

    fn new_name(&mut self) -> String {
        self.next_column += 1;
        format!("extra_{}", self.next_column)
    }

    /// As docs/operating.md has it: rows are deleted, all days published without them, and the old revisions deleted.
    async fn erase(&mut self) -> anyhow::Result<()> {
        let some = self.dice.roll(5);
        let sql = format!(
            "DELETE FROM tags WHERE message_id > 0 AND message_id % 5 = {some};
             DELETE FROM messages WHERE id > 0 AND id % 5 = {some}"
        );
        self.tell("erasure", &sql);
        self.source.psql(&sql);
        self.export(DayRange { from: nth_day(0), to: nth_day(DAYS - 1) }).await?;
        let rules = RetentionConfig { keep_days: DAYS, min_complete: 1, grace: TimeDelta::zero() };
        retention::prune(&self.store, &rules, Utc::now(), retention::Mode::Apply).await?;
        let left = retention::prune(&self.store, &rules, Utc::now(), retention::Mode::Apply).await?;
        ensure!(left.deleted.is_empty() && left.waiting.is_empty(), "old revisions are left: {left:?}");
        Ok(())
    }

    async fn export(&mut self, range: DayRange) -> anyhow::Result<()> {
        self.tell("export", &format!("{} to {}", range.from, range.to));
        let options = export::Options {
            request: Request::Range(range),
            rules: Rules { force: Force::No, shrink: Shrink::Accepted, max_shrink: 1.0 },
            new_source: NewSource::Refused,
            wait: None,
        };
        let source = Endpoint::parse(&self.source.url)?;
        let (config, store) = (Arc::clone(&self.config), Arc::clone(&self.store));
        let report = export::run(config, source, store, options, CancellationToken::new(), Progress::hidden()).await?;
        ensure!(report.failure(options.request).is_none(), "an export failed: {report:?}");
        let lines: Vec<String> = report.days.iter().map(export::DayReport::line).collect();
        writeln!(self.log, "    {}", lines.join("; "))?;
        Ok(())
    }

    async fn prune(&mut self) -> anyhow::Result<()> {
        if pgslice::head::read(&*self.store).await?.is_none() {
            return Ok(());
        }
        let keep_days = 1 + self.dice.roll(DAYS);
        self.tell("prune", &format!("keep {keep_days}d"));
        let rules = RetentionConfig { keep_days, min_complete: 1, grace: TimeDelta::zero() };
        let report = retention::prune(&self.store, &rules, Utc::now(), retention::Mode::Apply).await?;
        ensure!(report.problems.is_empty(), "a prune found problems: {report:?}");
        Ok(())
    }

    /// Puts a full dump while somebody writes.
    async fn put(&mut self) -> anyhow::Result<()> {
        let key = Key::stream(&format!("full/{}.dump", self.dumps.len()))?;
        let command: Vec<OsString> = pg_dump(&self.source).into_iter().map(OsString::from).collect();
        let request = stream::Request {
            key: key.clone(),
            input: stream::Input::Command(command),
            subject: stream::Subject::FullDump,
        };
        let writes: Vec<_> = (0..self.dice.roll(6)).map(|_| write(&mut self.dice, &mut self.next_id)).collect();
        let url = self.source.url.clone();
        let beside: Vec<String> =
            writes.iter().map(|(_, sql)| format!("BEGIN; {sql}; SELECT pg_sleep(0.03); COMMIT")).collect();
        let writer = tokio::spawn(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            for sql in beside {
                client.batch_execute(&sql).await?;
            }
            anyhow::Ok(())
        });
        let endpoint = Endpoint::parse(&self.source.url)?;
        let cancel = CancellationToken::new();
        let put =
            stream::put(&self.config, Some(&endpoint), &self.store, &request, &cancel, &Progress::hidden()).await?;
        writer.await??;
        self.tell("put", &format!("{key}, through {:?}, snapshot {:?}", put.contains_through, put.snapshot));
        for (kind, sql) in writes {
            self.tell("write beside a put", &format!("{kind}: {sql}"));
        }
        self.dumps.push(key);
        Ok(())
    }

    /// Restores any of the full dumps into new tables.
    async fn restore(&mut self) -> anyhow::Result<()> {
        if self.dumps.is_empty() {
            self.put().await?;
        }
        let index = usize::try_from(self.dice.roll(self.dumps.len() as u64))?;
        let key = self.dumps[index].clone();
        self.tell("restore", key.as_str());
        let archive = self.scene.folder().join("archive");
        let cancel = CancellationToken::new();
        stream::get(&self.store, &key, File::create(&archive)?, &cancel, &Progress::hidden()).await?;
        self.replica.psql("DROP TABLE IF EXISTS messages, tags, users");
        self.replica.pg_restore(&archive);
        (self.restored, self.told) = (true, Some(key));
        self.catchup("catchup of a restored replica", Gaps::Stop).await
    }

    async fn catchup(&mut self, kind: &'static str, gaps: Gaps) -> anyhow::Result<()> {
        if !self.restored || pgslice::head::read(&*self.store).await?.is_none_or(|(feed, _)| feed.days.is_empty()) {
            return Ok(());
        }
        self.tell(kind, &format!("restored from {:?}", self.told));
        match self.run_catchup(gaps).await {
            Ok(report) => {
                let lines: Vec<String> = report.days.iter().map(catchup::report::DayReport::line).collect();
                writeln!(self.log, "    {}", lines.join("; "))?;
                self.told = None;
                match report.failure().map(|failure| failure.class) {
                    None => {}
                    Some(Class::Gap) => self.tell("refused: gap", ""),
                    Some(other) => anyhow::bail!("a refusal of class {other:?}"),
                }
            }
            Err(error) if class_of(&error) == Class::BehindRetention => {
                self.tell("refused: behind retention", &format!("{error:#}"));
            }
            Err(error) if class_of(&error) == Class::Drift => self.mend(&format!("{error:#}")).context(kind)?,
            Err(error) => return Err(error.context(kind)),
        }
        Ok(())
    }

    /// Runs on the replica what a refusal tells.
    fn mend(&mut self, refusal: &str) -> anyhow::Result<()> {
        let mut statements = Vec::new();
        for line in refusal.lines() {
            let dropped = line.split_once("drop it as the source did: ").and_then(|(_, rest)| rest.split_once("; or "));
            let mended = line.split_once("; mend it: ").map(|(_, statements)| statements);
            statements.extend(dropped.map(|(statement, _)| statement).or(mended).map(str::to_owned));
        }
        ensure!(!statements.is_empty(), "a refusal that tells no way out: {refusal}");
        for statement in statements {
            self.tell("refused: schema, mended as told", &statement);
            self.replica.psql(&statement);
        }
        Ok(())
    }

    async fn run_catchup(&self, gaps: Gaps) -> anyhow::Result<CatchupReport> {
        let options = catchup::Options {
            request: Wanted { from: None, to: None, gaps },
            restored_from: self.told.clone().map(RestoredFrom::Recorded),
            missing_tables: MissingTables::Refuse,
            extra: Extra::Keep,
            mode: Mode::Apply,
        };
        let replica = Endpoint::parse(&self.replica.url)?;
        let (store, cancel) = (Arc::clone(&self.store), CancellationToken::new());
        catchup::run(&self.config, replica, store, options, Utc::now(), cancel, Progress::hidden()).await
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        for _ in 0..20 + self.dice.roll(15) {
            self.step().await?;
        }
        if !self.restored {
            self.restore().await?;
        }
        self.export(DayRange { from: nth_day(0), to: nth_day(DAYS - 1) }).await?;
        // Each refusal is mended, and none comes twice.
        for _ in 0..8 {
            self.catchup("last catchup", Gaps::Allow).await?;
            if self.told.is_none() && self.run_catchup(Gaps::Allow).await.is_ok() {
                break;
            }
        }
        let added = self.added.iter().map(|(name, _)| format!(", {name}")).collect::<String>();
        let messages = format!("SELECT row(id, ts, payload, ref, author{added})::text FROM messages ORDER BY 1");
        self.compare("messages", &messages)?;
        self.compare("tags", "SELECT t::text FROM tags t ORDER BY 1")?;
        let pointed_to = "SELECT u::text FROM users u WHERE id IN (SELECT author FROM messages UNION SELECT author
                          FROM tags) ORDER BY 1";
        self.compare("users that are pointed to", pointed_to)?;
        let flagged = self.replica.psql("SELECT count(*) FROM pgslice.ledger WHERE keeps_extra_rows");
        ensure!(flagged == "0", "rows that the feed does not know, on a replica that only the source filled");
        let again = self.run_catchup(Gaps::Stop).await.context("catchup once more")?;
        ensure!(again.days.is_empty() && again.failure().is_none(), "something was left to do: {again:?}");
        Ok(())
    }

    fn compare(&self, what: &str, query: &str) -> anyhow::Result<()> {
        let (source, replica) = (self.source.psql(query), self.replica.psql(query));
        let only_in = |one: &str, other: &str| -> Vec<String> {
            one.lines().filter(|row| !other.lines().any(|same| same == *row)).map(str::to_owned).collect()
        };
        ensure!(
            source == replica,
            "{what} differ\n  only at the source: {:?}\n  only on the replica: {:?}",
            only_in(&source, &replica),
            only_in(&replica, &source)
        );
        Ok(())
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "what the histories were made of belongs to the result")]
fn after_any_history_a_restored_replica_is_the_source() {
    let (histories, seed) = (from_environment("DUMP_HISTORIES", 12), from_environment("SEED", 1));
    let next = AtomicU64::new(0);
    let (mix, failures) = (Mutex::new(Mix::new()), Mutex::new(Vec::new()));
    let lane = || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= histories || failures.lock().expect("not poisoned").len() >= 3 {
                return;
            }
            let seed = seed + index;
            let mut history = runtime.block_on(History::set_up(seed));
            if let Err(error) = runtime.block_on(history.run()) {
                let told =
                    format!("history {seed} (SEED={seed} DUMP_HISTORIES=1 runs it alone)\n{}{error:#}", history.log);
                failures.lock().expect("not poisoned").push(told);
            }
            let mut mix = mix.lock().expect("not poisoned");
            history.mix.into_iter().for_each(|(kind, count)| *mix.entry(kind).or_default() += count);
        }
    };
    std::thread::scope(|scope| {
        (0..LANES.min(usize::try_from(histories).unwrap_or(LANES))).for_each(|_| {
            scope.spawn(lane);
        });
    });
    println!("{histories} histories with full dumps from seed {seed}: {:#?}", mix.into_inner().expect("not poisoned"));
    let failures = failures.into_inner().expect("not poisoned");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
