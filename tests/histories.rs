//! Promise 5 over random histories: whatever happened to source, feed and replica, and in whatever order, once all days
//! are published and applied the replica has the source's rows, and another catchup changes nothing.
//!
//! `HISTORIES` says how many (300), `SEED` with which number the first one starts; a failure prints its own seed and
//! everything that was done. Everything runs in this process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use pgslice::catchup::CatchupReport;
use pgslice::catchup::apply::Extra;
use pgslice::catchup::plan::{Gaps, Request as Wanted};
use pgslice::catchup::run::{MissingTables, Mode};
use pgslice::config::{Config, RetentionConfig};
use pgslice::day::{Day, DayRange};
use pgslice::error::{Class, class_of};
use pgslice::export::day::NewSource;
use pgslice::export::plan::{Force, Request, Rules, Shrink};
use pgslice::pg::Endpoint;
use pgslice::progress::Progress;
use pgslice::store::SharedStore;
use pgslice::{catchup, export, retention};

use crate::cluster::{self, Database};
use crate::in_process;
use crate::scene::Scene;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE users (id int PRIMARY KEY, name text);
    CREATE TABLE messages (id int PRIMARY KEY, ts timestamptz NOT NULL, payload text, ref text UNIQUE,
        author int REFERENCES users);
    CREATE TABLE tags (message_id int, ts timestamptz, tag text, author int NOT NULL REFERENCES users,
        PRIMARY KEY (message_id, ts, tag));
    CREATE INDEX ON messages (ts); CREATE INDEX ON tags (ts);";
pub(crate) const TABLES: &str = r#"
[[table]]
name = "tags"
time-column = "ts"

[[table]]
name = "messages"
time-column = "ts"

[[table]]
name = "users"
rows = "referenced"
referenced-by = ["messages.author", "tags.author"]
key = ["id"]
"#;
/// Days of a history, from 2024-05-01 on.
pub(crate) const DAYS: u64 = 5;
pub(crate) const USERS: u64 = 4;
/// Histories that run at the same time, each on two databases of its own.
pub(crate) const LANES: usize = 3;

/// SplitMix64: a seed stands for the same history on every machine.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    pub(crate) fn day(&mut self) -> Day {
        nth_day(self.roll(DAYS))
    }
}

pub(crate) fn nth_day(index: u64) -> Day {
    "2024-05-01".parse::<Day>().expect("a day").plus(index)
}

/// What was done how often, over all histories.
type Mix = BTreeMap<&'static str, u64>;

/// Two databases that one history after the other runs on.
struct Stage {
    source: Database,
    replica: Database,
    at_source: tokio_postgres::Client,
    at_replica: tokio_postgres::Client,
}

impl Stage {
    async fn set_up() -> Stage {
        let source = cluster::source().create_database("history");
        let replica = cluster::replica().create_database("history");
        source.psql(SCHEMA);
        replica.psql(SCHEMA);
        let at_source = connect(&source).await;
        let at_replica = connect(&replica).await;
        Stage { source, replica, at_source, at_replica }
    }

    async fn clear(&self) -> anyhow::Result<()> {
        self.at_source.batch_execute("TRUNCATE users, messages, tags").await?;
        self.at_replica.batch_execute("TRUNCATE users, messages, tags; DROP SCHEMA IF EXISTS pgslice CASCADE").await?;
        let users = format!("INSERT INTO users SELECT i, 'user ' || i FROM generate_series(0, {}) i", USERS - 1);
        Ok(self.at_source.batch_execute(&users).await?)
    }
}

async fn connect(database: &Database) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await.expect("connect");
    tokio::spawn(connection);
    client.batch_execute("SET synchronous_commit = off").await.expect("set up the session");
    client
}

/// One history while it runs.
struct History<'a> {
    stage: &'a Stage,
    dice: Dice,
    config: Arc<Config>,
    store: SharedStore,
    next_id: u64,
    told: String,
    mix: Mix,
}

impl History<'_> {
    fn tell(&mut self, kind: &'static str, details: &str) {
        *self.mix.entry(kind).or_default() += 1;
        writeln!(self.told, "  {kind}: {details}").expect("write to a string");
    }

    /// Runs SQL on the source.
    async fn write(&mut self, kind: &'static str, sql: &str) -> anyhow::Result<()> {
        self.tell(kind, sql);
        self.stage.at_source.batch_execute(sql).await.context(kind)
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        let (day, author, some) = (self.dice.day(), self.dice.roll(USERS), self.dice.roll(7));
        let at = format!("'{day} 00:00+00'::timestamptz + interval '{} minutes'", self.dice.roll(24 * 60));
        match self.dice.roll(100) {
            0..20 => {
                let id = self.next_id;
                self.next_id += 1;
                let sql = format!(
                    "INSERT INTO messages VALUES ({id}, {at}, 'payload {some}', 'ref {id}', {author});
                     INSERT INTO tags SELECT {id}, {at}, 'tag ' || i, {} FROM generate_series(1, {}) i",
                    self.dice.roll(USERS),
                    some % 3
                );
                // Most rows are of a day that nobody has published yet, or has.
                let published =
                    pgslice::head::read(&*self.store).await?.is_some_and(|(feed, _)| feed.day(day).is_some());
                self.write(if published { "back-dated insert" } else { "insert" }, &sql).await
            }
            20..28 => {
                let sql =
                    format!("UPDATE messages SET payload = 'changed {}' WHERE id % 7 = {some}", self.dice.roll(1000));
                self.write("update", &sql).await
            }
            28..38 => self.write("move", &format!("UPDATE messages SET ts = {at} WHERE id % 7 = {some}")).await,
            38..43 => {
                self.write(
                    "move of tags",
                    &format!("UPDATE tags SET ts = {at} WHERE message_id % 7 = {some} AND tag = 'tag 1'"),
                )
                .await
            }
            43..48 => {
                let sql = format!("UPDATE users SET name = 'renamed {}' WHERE id = {author}", self.dice.roll(1000));
                self.write("update of a reference row", &sql).await
            }
            48..52 => {
                let sql = format!("UPDATE messages SET author = {author} WHERE id % 7 = {some}");
                self.write("change of a reference", &sql).await
            }
            52..58 => {
                let sql = format!(
                    "DELETE FROM messages WHERE id % 7 = {some}; DELETE FROM tags WHERE message_id % 7 = {some}"
                );
                self.write("delete", &sql).await
            }
            58..78 => {
                let to = day.plus(self.dice.roll(3)).min(nth_day(DAYS - 1));
                self.export(DayRange { from: day, to }).await
            }
            78..82 => self.prune().await,
            82..94 => {
                let to = (self.dice.roll(3) == 0).then_some(day);
                self.catchup("catchup", to, None).await
            }
            _ => {
                let patience = Duration::from_millis(self.dice.roll(40));
                self.catchup("killed catchup", None, Some(patience)).await
            }
        }
    }

    async fn export(&mut self, range: DayRange) -> anyhow::Result<()> {
        self.tell("export", &format!("{} to {}", range.from, range.to));
        let options = export::Options {
            request: Request::Range(range),
            rules: Rules { force: Force::No, shrink: Shrink::Accepted, max_shrink: 1.0 },
            new_source: NewSource::Refused,
            wait: None,
        };
        let report = export::run(
            Arc::clone(&self.config),
            Endpoint::parse(&self.stage.source.url)?,
            Arc::clone(&self.store),
            options,
            CancellationToken::new(),
            Progress::hidden(),
        )
        .await
        .context("export")?;
        ensure!(report.failure(options.request).is_none(), "an export failed: {report:?}");
        let lines: Vec<String> = report.days.iter().map(export::DayReport::line).collect();
        writeln!(self.told, "    {}", lines.join("; "))?;
        Ok(())
    }

    async fn prune(&mut self) -> anyhow::Result<()> {
        let keep_days = 1 + self.dice.roll(DAYS);
        self.tell("prune", &format!("keep {keep_days}d"));
        if pgslice::head::read(&*self.store).await?.is_none() {
            return Ok(());
        }
        let rules = RetentionConfig { keep_days, min_complete: 1, grace: TimeDelta::zero() };
        let report =
            retention::prune(&self.store, &rules, Utc::now(), retention::Mode::Apply).await.context("prune")?;
        ensure!(report.problems.is_empty(), "a prune found problems: {report:?}");
        Ok(())
    }

    async fn catchup(&mut self, kind: &'static str, to: Option<Day>, patience: Option<Duration>) -> anyhow::Result<()> {
        self.tell(kind, &format!("to {to:?}, killed after {patience:?}"));
        if pgslice::head::read(&*self.store).await?.is_none() {
            return Ok(());
        }
        let cancel = CancellationToken::new();
        if let Some(patience) = patience {
            let cancel = cancel.clone();
            tokio::spawn(async move {
                tokio::time::sleep(patience).await;
                cancel.cancel();
            });
        }
        let refusal = match self.run_catchup(to, Gaps::Stop, cancel).await {
            Ok(report) => {
                let lines: Vec<String> = report.days.iter().map(catchup::report::DayReport::line).collect();
                writeln!(self.told, "    {}", lines.join("; "))?;
                report.failure().map(|failure| failure.class)
            }
            Err(error) => match class_of(&error) {
                Class::Interrupted if patience.is_some() => Some(Class::Interrupted),
                Class::BehindRetention => Some(Class::BehindRetention),
                _ => return Err(error.context(kind)),
            },
        };
        // The design's own refusals: a hole, days that were pruned, a day that is not there yet, the kill.
        let counted = match refusal {
            None => return Ok(()),
            Some(Class::Gap) => "refused: gap",
            Some(Class::BehindRetention) => "refused: behind retention",
            Some(Class::NotSettled) => "refused: not published yet",
            Some(Class::Interrupted) => "interrupted in the middle",
            Some(other) => anyhow::bail!("a refusal of class {other:?}"),
        };
        self.tell(counted, "");
        Ok(())
    }

    async fn run_catchup(
        &self,
        to: Option<Day>,
        gaps: Gaps,
        cancel: CancellationToken,
    ) -> anyhow::Result<CatchupReport> {
        let options = catchup::Options {
            request: Wanted { from: None, to, gaps },
            restored_from: None,
            missing_tables: MissingTables::Refuse,
            extra: Extra::Keep,
            mode: Mode::Apply,
        };
        let replica = Endpoint::parse(&self.stage.replica.url)?;
        catchup::run(&self.config, replica, Arc::clone(&self.store), options, Utc::now(), cancel, Progress::hidden())
            .await
    }

    /// Publishes every day, catches up, and compares.
    async fn end(&mut self) -> anyhow::Result<()> {
        self.export(DayRange { from: nth_day(0), to: nth_day(DAYS - 1) }).await?;
        self.tell("last catchup", "");
        let report = self.run_catchup(None, Gaps::Allow, CancellationToken::new()).await.context("last catchup")?;
        ensure!(report.failure().is_none(), "the last catchup did not end well: {report:?}");
        for table in ["messages", "tags"] {
            self.compare(table, &format!("SELECT t::text FROM {table} t ORDER BY 1")).await?;
        }
        let pointed_to = "SELECT u::text FROM users u WHERE id IN (SELECT author
                 FROM messages UNION SELECT author FROM tags) ORDER BY 1";
        self.compare("users that are pointed to", pointed_to).await?;
        let flagged = self.stage.at_replica.query("SELECT FROM pgslice.ledger WHERE keeps_extra_rows", &[]).await?;
        ensure!(flagged.is_empty(), "rows that the feed does not know, on a replica that only the feed filled");

        let state = "SELECT coalesce(string_agg(s, ',' ORDER BY s), '') FROM (
                SELECT tableoid::text || ctid || xmin AS s FROM messages UNION ALL SELECT tableoid::text || ctid ||
                         xmin FROM tags
                UNION ALL SELECT tableoid::text || ctid || xmin
                         FROM users UNION ALL SELECT tableoid::text || ctid || xmin FROM pgslice.ledger
            ) AS every_row";
        let before: String = self.stage.at_replica.query_one(state, &[]).await?.get(0);
        let again = self.run_catchup(None, Gaps::Stop, CancellationToken::new()).await.context("catchup once more")?;
        ensure!(again.days.is_empty() && again.failure().is_none(), "something was left to do: {again:?}");
        let after: String = self.stage.at_replica.query_one(state, &[]).await?.get(0);
        ensure!(before == after, "a catchup with nothing to do wrote something");
        Ok(())
    }

    async fn compare(&self, what: &str, query: &str) -> anyhow::Result<()> {
        let (source, replica) =
            (self.stage.at_source.query(query, &[]).await?, self.stage.at_replica.query(query, &[]).await?);
        let lines = |rows: Vec<tokio_postgres::Row>| -> Vec<String> { rows.iter().map(|row| row.get(0)).collect() };
        let (source, replica) = (lines(source), lines(replica));
        let lost: Vec<&String> = source.iter().filter(|row| !replica.contains(row)).collect();
        let surplus: Vec<&String> = replica.iter().filter(|row| !source.contains(row)).collect();
        ensure!(source == replica, "{what} differ\n  only at the source: {lost:?}\n  only on the replica: {surplus:?}");
        Ok(())
    }
}

async fn run(stage: &Stage, seed: u64) -> Result<Mix, String> {
    let scene = Scene::new(TABLES).source(&stage.source).replica(&stage.replica);
    let mut history = History {
        stage,
        dice: Dice(seed),
        config: in_process::config(&scene),
        store: in_process::open(&scene).await,
        next_id: 1,
        told: String::new(),
        mix: Mix::new(),
    };
    let outcome = async {
        stage.clear().await?;
        let steps = 12 + history.dice.roll(24);
        for _ in 0..steps {
            history.step().await?;
        }
        history.end().await
    }
    .await;
    let History { told, mix, .. } = history;
    outcome
        .map(|()| mix)
        .map_err(|error| format!("history {seed} (SEED={seed} HISTORIES=1 runs it alone)\n{told}{error:#}"))
}

pub(crate) fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
#[expect(clippy::print_stdout, reason = "what the histories were made of belongs to the result")]
fn after_any_history_the_replica_is_the_source_and_another_catchup_changes_nothing() {
    let (histories, seed) = (from_environment("HISTORIES", 300), from_environment("SEED", 1));
    let next = AtomicU64::new(0);
    let (mix, failures) = (Mutex::new(Mix::new()), Mutex::new(Vec::new()));
    let lane = || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let stage = runtime.block_on(Stage::set_up());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= histories || failures.lock().expect("not poisoned").len() >= 3 {
                return;
            }
            match runtime.block_on(run(&stage, seed + index)) {
                Ok(done) => {
                    let mut mix = mix.lock().expect("not poisoned");
                    done.into_iter().for_each(|(kind, count)| *mix.entry(kind).or_default() += count);
                }
                Err(failure) => failures.lock().expect("not poisoned").push(failure),
            }
        }
    };
    std::thread::scope(|scope| {
        (0..LANES.min(usize::try_from(histories).unwrap_or(LANES))).for_each(|_| {
            scope.spawn(lane);
        });
    });
    println!("{histories} histories from seed {seed}: {:#?}", mix.into_inner().expect("not poisoned"));
    let failures = failures.into_inner().expect("not poisoned");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
