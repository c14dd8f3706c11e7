//! People who write to the source around midnight, and each remember what they committed.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_postgres::{Client, NoTls};

use crate::cluster::Database;
use crate::shifted_clock::ShiftedClock;

/// What the writers agree on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// The end of the day that they write into.
    pub(super) midnight: DateTime<Utc>,
    /// How long after it the day cannot be final.
    pub(super) settle: TimeDelta,
    /// When they begin no more transactions.
    pub(super) end: DateTime<Utc>,
    /// How long a transaction takes at most, but for the one that each has open at midnight.
    pub(super) longest: TimeDelta,
}

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Message,
    /// Rows of a message, with its time.
    Association,
}

impl Relation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Relation::Message => "message",
            Relation::Association => "association",
        }
    }
}

/// A row as the server said it was written.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) relation: Relation,
    pub(super) ts: DateTime<Utc>,
    /// The whole row as PostgreSQL writes it.
    pub(super) text: String,
}

/// What writers remember.
#[derive(Default)]
pub(super) struct Journal {
    /// What they committed.
    pub(super) rows: Vec<Row>,
    commits: u64,
    /// Transactions, and rows of savepoints, that were rolled back.
    rolled_back: u64,
    /// Transactions that began before midnight and committed after it.
    straddling: u64,
    /// Those of them that were prepared.
    straddling_prepared: u64,
    /// Rows of the day before midnight that they brought after it had settled.
    late: u64,
    /// Rows with a time before midnight, of transactions that began after it, whose commit was known only when the day
    /// could be final: the machine was too busy for a sender's clock to be off by that little.
    pub(super) excuses: u64,
}

impl Journal {
    /// Both.
    pub(super) fn and(mut self, other: Journal) -> Journal {
        self.rows.extend(other.rows);
        self.commits += other.commits;
        self.rolled_back += other.rolled_back;
        self.straddling += other.straddling;
        self.straddling_prepared += other.straddling_prepared;
        self.late += other.late;
        self.excuses += other.excuses;
        self
    }

    /// Were there rows that a hasty exporter would have lost, also such as were prepared?
    pub(super) fn is_a_challenge(&self) -> bool {
        self.straddling >= 4 && self.straddling_prepared >= 1 && self.late >= 4 && self.rolled_back >= 1
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} commits of {} rows, {} transactions and savepoints rolled back; {} transactions straddled midnight, {} \
             of them prepared, and brought {} rows of the day after it could have settled; {} rows excused",
            self.commits,
            self.rows.len(),
            self.rolled_back,
            self.straddling,
            self.straddling_prepared,
            self.late,
            self.excuses,
        )
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a writer goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Begins, stays idle in the transaction, without a snapshot or an id of it, and writes at the end.
    Sleeper,
    /// Prepares, and decides much later.
    Preparer,
    /// One statement after the other, each its own transaction; some senders' clocks are a little slow.
    Hasty,
    /// Savepoints, some of them rolled back, and pauses between.
    Saver,
    /// Messages at once, their associations at the end.
    Associator,
}

const HABITS: [Habit; 5] = [Habit::Sleeper, Habit::Preparer, Habit::Hasty, Habit::Saver, Habit::Associator];

/// What a row has as its time.
#[derive(Debug, Clone, Copy)]
enum Time {
    /// When it is written.
    Now,
    /// When its transaction began.
    Began,
    /// A second and a half before it is written, but not before its transaction began.
    Earlier,
    /// A second and a half before it is written: a sender's clock that is slow.
    Slow,
}

impl Time {
    fn sql(self) -> &'static str {
        match self {
            Time::Now => "clock_timestamp()",
            Time::Began => "now()",
            Time::Earlier => "greatest(now(), clock_timestamp() - interval '1.5 s')",
            Time::Slow => "clock_timestamp() - interval '1.5 s'",
        }
    }
}

/// None that puts a row into a day which had ended when its transaction began.
const TIMES: [Time; 3] = [Time::Now, Time::Began, Time::Earlier];

/// A person.
pub(super) struct Writer {
    number: u32,
    habit: Habit,
    client: Client,
    clock: ShiftedClock,
    plan: Plan,
    dice: StdRng,
    /// The id of the next message.
    next: i64,
    /// A transaction that would end this close to midnight, or after it, is the one that straddles it.
    margin: TimeDelta,
    has_straddled: bool,
    journal: Journal,
}

/// A transaction that is open.
struct Open {
    /// Known to have begun by then.
    begun: DateTime<Utc>,
    rows: Vec<Row>,
}

impl Writer {
    pub(super) async fn connect(number: u32, source: &Database, clock: ShiftedClock, plan: Plan) -> Writer {
        let (client, connection) = tokio_postgres::connect(&source.url, NoTls).await.expect("connect to the source");
        tokio::spawn(connection);
        let name = format!("SET application_name = 'writer {number}'");
        client.batch_execute(&name).await.expect("set up the session");
        let before = clock.now();
        let there: DateTime<Utc> = client.query_one("SELECT clock_timestamp()", &[]).await.expect("ask").get(0);
        let (slack, after) = (TimeDelta::milliseconds(1), clock.now());
        assert!(before - slack <= there && there <= after + slack, "{there} is not of the clock that shows {after}");
        let habit = HABITS[usize::try_from(number).expect("small") % HABITS.len()];
        let mut dice = StdRng::seed_from_u64(u64::from(number));
        let margin = TimeDelta::seconds(2) + plan.longest * dice.random_range(0..100) / 100;
        Writer {
            number,
            habit,
            client,
            clock,
            plan,
            dice,
            next: i64::from(number + 1) * 1_000_000_000,
            margin,
            has_straddled: false,
            journal: Journal::default(),
        }
    }

    /// Writes until the plan's end.
    pub(super) async fn write(mut self) -> Journal {
        while self.clock.now() < self.plan.end {
            match self.habit {
                Habit::Sleeper => self.sleep_and_write().await,
                Habit::Preparer if self.may_prepare() => self.prepare().await,
                Habit::Preparer | Habit::Hasty => self.write_at_once().await,
                Habit::Saver => self.save().await,
                Habit::Associator => self.associate().await,
            }
            let pause = self.dice.random_range(20..200);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.journal
    }

    async fn sleep_and_write(&mut self) {
        let length = self.length();
        let mut open = self.begin().await;
        tokio::time::sleep(length).await;
        for time in TIMES {
            self.insert(&mut open, time).await;
        }
        self.commit(open).await;
    }

    async fn prepare(&mut self) {
        let length = self.length();
        let straddles = self.clock.now() < self.plan.midnight && self.clock.now() + length > self.plan.midnight;
        let share = self.dice.random_range(0.0..1.0);
        let gid = format!("writer {} {}", self.number, self.next);
        let mut open = self.begin().await;
        tokio::time::sleep(length.mul_f64(share)).await;
        self.insert(&mut open, Time::Began).await;
        let time = self.any_time();
        self.insert(&mut open, time).await;
        self.run(&format!("PREPARE TRANSACTION '{gid}'")).await;
        tokio::time::sleep(length.mul_f64(1.0 - share)).await;
        if !straddles && self.dice.random_bool(0.25) {
            self.run(&format!("ROLLBACK PREPARED '{gid}'")).await;
            self.journal.rolled_back += 1;
            return;
        }
        let decided = self.clock.now();
        self.run(&format!("COMMIT PREPARED '{gid}'")).await;
        if open.begun < self.plan.midnight && decided >= self.plan.midnight {
            self.journal.straddling_prepared += 1;
        }
        self.committed(open, decided);
    }

    async fn write_at_once(&mut self) {
        let begun = self.clock.now();
        let mut open = Open { begun, rows: Vec::new() };
        let time = if self.dice.random_bool(0.3) { Time::Slow } else { self.any_time() };
        // Without a BEGIN the statement is the transaction.
        self.insert_message(&mut open, time).await;
        let could_be_final = self.clock.now() >= self.plan.midnight + self.plan.settle;
        if could_be_final && matches!(time, Time::Slow) && open.rows[0].ts < self.plan.midnight {
            self.journal.excuses += 1;
        }
        self.committed(open, begun);
    }

    async fn save(&mut self) {
        let (length, steps) = (self.length(), self.dice.random_range(1..5));
        let mut open = self.begin().await;
        for step in 0..steps {
            tokio::time::sleep(length / steps).await;
            self.run("SAVEPOINT s").await;
            let before = open.rows.len();
            self.insert(&mut open, if step == 0 { Time::Now } else { Time::Began }).await;
            if step > 0 && self.dice.random_bool(0.3) {
                self.run("ROLLBACK TO SAVEPOINT s").await;
                open.rows.truncate(before);
                self.journal.rolled_back += 1;
            } else if self.dice.random_bool(0.5) {
                self.run("RELEASE SAVEPOINT s").await;
            }
        }
        self.insert(&mut open, Time::Began).await;
        if self.dice.random_bool(0.1) && self.clock.now() < self.plan.midnight {
            self.run("ROLLBACK").await;
            self.journal.rolled_back += 1;
        } else {
            self.commit(open).await;
        }
    }

    async fn associate(&mut self) {
        let (length, steps) = (self.length(), self.dice.random_range(1..5));
        let mut open = self.begin().await;
        let first = self.next;
        for _ in 0..steps {
            let time = self.any_time();
            self.insert_message(&mut open, time).await;
            tokio::time::sleep(length / steps).await;
        }
        for id in first..self.next {
            self.insert_association(&mut open, id).await;
        }
        self.commit(open).await;
    }

    /// Nothing tells when a prepared transaction began, so that each keeps the day provisional, also one of the next day.
    /// For most of the time after midnight no new ones are prepared: the day shall become final while people write.
    fn may_prepare(&self) -> bool {
        let now = self.clock.now();
        let again = self.plan.midnight + (self.plan.end - self.plan.midnight) * 3 / 4;
        now < self.plan.midnight || now >= again
    }

    /// How long the next transaction takes: mostly short, some long, and one that goes on after the day could have
    /// settled. The sleepers' goes on longest, so that nobody else keeps the day open for them.
    fn length(&mut self) -> Duration {
        let now = self.clock.now();
        let (left, longest) = ((self.plan.midnight - now).as_seconds_f64(), self.plan.longest.as_seconds_f64());
        let until_the_end = (self.plan.end - now).as_seconds_f64().max(0.0);
        let secs = (longest * self.share().powi(4)).min(until_the_end);
        let straddles = left > 0.0 && secs + self.margin.as_seconds_f64() > left;
        if !straddles || self.has_straddled {
            return Duration::from_secs_f64(secs);
        }
        self.has_straddled = true;
        let more = if self.habit == Habit::Sleeper { longest } else { longest / 2.0 * self.share() };
        Duration::from_secs_f64(left + self.plan.settle.as_seconds_f64() + 3.0 + more)
    }

    fn share(&mut self) -> f64 {
        self.dice.random_range(0.0..1.0)
    }

    fn any_time(&mut self) -> Time {
        TIMES[self.dice.random_range(0..TIMES.len())]
    }

    async fn run(&self, statement: &str) {
        self.client
            .batch_execute(statement)
            .await
            .unwrap_or_else(|error| panic!("writer {}: {statement}: {error}", self.number));
    }

    async fn begin(&self) -> Open {
        self.run("BEGIN").await;
        Open { begun: self.clock.now(), rows: Vec::new() }
    }

    async fn commit(&mut self, open: Open) {
        let decided = self.clock.now();
        self.run("COMMIT").await;
        self.committed(open, decided);
    }

    /// `decided`: a moment not after the commit.
    fn committed(&mut self, open: Open, decided: DateTime<Utc>) {
        let midnight = self.plan.midnight;
        self.journal.commits += 1;
        if open.begun < midnight && decided >= midnight {
            self.journal.straddling += 1;
        }
        if decided >= midnight + self.plan.settle {
            self.journal.late += u64::try_from(open.rows.iter().filter(|row| row.ts < midnight).count()).expect("fits");
        }
        self.journal.rows.extend(open.rows);
    }

    /// A message with its associations.
    async fn insert(&mut self, open: &mut Open, time: Time) {
        let id = self.next;
        self.insert_message(open, time).await;
        if self.dice.random_bool(0.6) {
            self.insert_association(open, id).await;
        }
    }

    async fn insert_message(&mut self, open: &mut Open, time: Time) {
        let id = self.next;
        self.next += 1;
        let sql =
            format!("INSERT INTO message VALUES ({id}, {}, 'message {id}') RETURNING ts, message::text", time.sql());
        self.keep(open, Relation::Message, &sql).await;
    }

    async fn insert_association(&self, open: &mut Open, message: i64) {
        let sql = format!(
            "INSERT INTO association SELECT id, ts, 'tag ' || n FROM message, generate_series(1, 2) n WHERE id = {message}
             RETURNING ts, association::text"
        );
        self.keep(open, Relation::Association, &sql).await;
    }

    async fn keep(&self, open: &mut Open, relation: Relation, sql: &str) {
        let rows = self.client.query(sql, &[]).await;
        let rows = rows.unwrap_or_else(|error| panic!("writer {}: {sql}: {error}", self.number));
        open.rows.extend(rows.iter().map(|row| Row { relation, ts: row.get(0), text: row.get(1) }));
    }
}
