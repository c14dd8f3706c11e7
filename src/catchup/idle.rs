//! Catchup with nothing to do: one conditional request of the store, and four messages to the replica.
//!
//! A run after which nothing is pending keeps, beside the ledger, how to ask for the head's next version, and a
//! fingerprint of all else that its outcome rests on. The next plain run asks the replica once and the store once: where
//! the head and the fingerprint are the same, so is the outcome, but for the head's age, which is judged anew. Any doubt
//! leads the long way: another option, another fact, a store that tells nothing to rely on, a head that was replaced.
//!
//! What is kept is proved: the facts are asked for before what the run decides by is read, and its decision is made once
//! more on a ledger that was read after them. Whatever changes in between, or later, differs from what was kept.

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use tokio_postgres::Client;

use super::apply::{Applier, Extra};
use super::plan::{self, Accepted, Gaps, Request};
use super::restored::{self, Restored};
use super::run::{MissingTables, Mode, Options};
use super::{judge, ledger};
use crate::config::{Config, ReplicaConfig};
use crate::day::Day;
use crate::error::{Class, Failure};
use crate::feed::Feed;
use crate::head;
use crate::pg::catalog::Relation;
use crate::pg::{PgError, Row, Session};
use crate::store::{Store, Validator};

/// Which facts the fingerprint is made of; to be raised when that changes without a new version of the program.
const FACTS_VERSION: u32 = 1;
/// What is asked of a run without options.
const PLAIN: Request = Request { from: None, to: None, gaps: Gaps::Stop };
const CAUGHT_UP_AGAIN_SQL: &str = "update pgslice.feed set caught_up_at = pg_catalog.now() where dataset = $1";

/// What a report tells of a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadInBrief {
    /// The feed's identity.
    pub feed_id: String,
    /// The dataset.
    pub dataset: String,
    /// Its sequence.
    pub sequence: u64,
    /// When it was published.
    pub published_at: DateTime<Utc>,
    /// After this instant it is stale.
    pub valid_until: DateTime<Utc>,
    /// Its newest day.
    pub newest: Option<Day>,
}

impl HeadInBrief {
    /// Of a whole head.
    pub fn of(feed: &Feed) -> HeadInBrief {
        HeadInBrief {
            feed_id: feed.feed_id.clone(),
            dataset: feed.dataset.clone(),
            sequence: feed.sequence,
            published_at: feed.published_at,
            valid_until: feed.valid_until,
            newest: feed.newest,
        }
    }
}

/// What a run that left nothing pending keeps in `pgslice.feed.settled`, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settled {
    head: HeadInBrief,
    validator: Validator,
    fingerprint: String,
}

/// What `sql/settled.sql` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    settled: Option<Settled>,
    condition: Condition,
    facts: Facts,
}

/// May a run go on with the session that asked?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// The replica takes writes, and its lock is held by this session now.
    Ready,
    /// Something is to be told: by the long way.
    Unclear,
}

/// What the outcome of a run rests on, on the replica's side; texts that are equal where the facts are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    /// The tables, their columns and what guards them.
    tables: String,
    /// The ledger's rows.
    ledger: String,
    /// The server, the database and the user.
    server: String,
}

/// What is to be done.
pub(super) enum Look {
    /// Nothing: the replica has all of this head, which may be old.
    UpToDate(HeadInBrief),
    /// What this head asks for, and how to ask for its next version.
    Head(Box<Feed>, Option<Validator>),
}

/// Asks the replica, then the store. The session comes back, and may hold the replica's lock.
///
/// # Errors
/// The server's; those of [`head::read_if_changed`].
pub(super) async fn look(
    session: Session,
    config: &Config,
    store: &dyn Store,
    options: &Options,
) -> anyhow::Result<(Session, Look)> {
    let (session, state) = ask(session, config).await?;
    let settled = state.filter(|_| is_plain(options)).and_then(|state| state.still_settled(config, &store.url()));
    match (head::read_if_changed(store, settled.as_ref().map(|settled| &settled.validator)).await?, settled) {
        (Some((feed, validator)), _) => Ok((session, Look::Head(Box::new(feed), validator))),
        (None, Some(settled)) => {
            let session = caught_up_again(session, settled.head.dataset.clone()).await?;
            Ok((session, Look::UpToDate(settled.head)))
        }
        (None, None) => {
            let what = "the store says that feed.json has not changed, though nothing was said of it";
            Err(Failure::new(Class::Other, what).meaning("nothing was applied").into())
        }
    }
}

/// Is nothing asked for but what is missing?
fn is_plain(options: &Options) -> bool {
    let Options { request, restored_from, missing_tables, extra, mode } = options;
    *request == PLAIN
        && restored_from.is_none()
        && *missing_tables == MissingTables::Refuse
        && *extra == Extra::Keep
        && *mode == Mode::Apply
}

async fn caught_up_again(mut session: Session, dataset: String) -> anyhow::Result<Session> {
    spawn_blocking(move || session.execute(CAUGHT_UP_AGAIN_SQL, &[Some(&dataset)]).map(|_| session))
        .await?
        .context("cannot write to the ledger on the replica")
}

/// What the replica says of itself, in one message; `None` where there is no ledger yet, or an older version's.
///
/// # Errors
/// The server's.
pub(super) async fn ask(mut session: Session, config: &Config) -> anyhow::Result<(Session, Option<State>)> {
    let dataset = config.dataset.clone();
    let tables: Vec<_> =
        config.tables.iter().map(|table| serde_json::json!({"schema": table.schema, "name": table.name})).collect();
    let tables = serde_json::Value::from(tables).to_string();
    let (session, answer) = spawn_blocking(move || {
        let answer = session.query(include_str!("../../sql/settled.sql"), &[Some(&dataset), Some(&tables)]);
        (session, answer)
    })
    .await?;
    match answer {
        Ok(rows) => Ok((session, rows.first().map(State::of).transpose()?)),
        // Something of it is missing, or may not be read: what that means is told by the long way.
        Err(error) if error.code().is_some_and(|code| code.starts_with("42") || code.starts_with("3F")) => {
            Ok((session, None))
        }
        Err(error) => Err(anyhow::Error::new(error).context("cannot read the ledger on the replica")),
    }
}

impl State {
    fn of(row: &Row) -> Result<State, PgError> {
        // What another version wrote is none.
        let settled = row.get(0).and_then(|settled| serde_json::from_str(settled).ok());
        let is_ready = row.get(1) == Some("false") && row.get(2) == Some("off") && row.get(3) == Some("true");
        let condition = if is_ready { Condition::Ready } else { Condition::Unclear };
        let text = |index| row.text(index).map(str::to_owned);
        Ok(State { settled, condition, facts: Facts { tables: text(4)?, ledger: text(5)?, server: text(6)? } })
    }

    /// What was kept, if everything is as it was then.
    fn still_settled(self, config: &Config, store_url: &str) -> Option<Settled> {
        let State { settled, condition, facts } = self;
        settled.filter(|settled| {
            condition == Condition::Ready
                && settled.head.dataset == config.dataset
                && settled.fingerprint == facts.fingerprint(config, store_url)
        })
    }
}

impl Facts {
    /// SHA-256 in hex of these facts, and of those on this side: the program, and what the configuration says of the
    /// feed and the replica's tables. Not of how the replica is reached, nor of how old a head may be.
    fn fingerprint(&self, config: &Config, store_url: &str) -> String {
        let Facts { tables, ledger, server } = self;
        let replica = ReplicaConfig { url: None, password_file: None, max_age: None, ..config.replica.clone() };
        let parts = [
            FACTS_VERSION.to_string(),
            env!("CARGO_PKG_VERSION").to_owned(),
            config.dataset.clone(),
            format!("{:?}", config.timezone),
            format!("{:?}", config.tables),
            format!("{replica:?}"),
            store_url.to_owned(),
            tables.clone(),
            ledger.clone(),
            server.clone(),
        ];
        let mut hash = Sha256::new();
        for part in parts {
            // With its length: two parts are never one.
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hex::encode(hash.finalize())
    }
}

/// What a run that left nothing pending decided by.
pub(super) struct Decided<'a> {
    pub(super) client: &'a Client,
    pub(super) config: &'a Config,
    pub(super) store: &'a dyn Store,
    pub(super) feed: &'a Feed,
    /// How to ask for the head's next version.
    pub(super) validator: Option<Validator>,
    /// What the replica said before its tables were read.
    pub(super) before: Option<State>,
    pub(super) relations: &'a [Relation],
    pub(super) accepted: &'a Accepted,
    pub(super) restored: &'a Restored,
}

/// Remembers the head, and what a later run can be spared by, if it can be.
///
/// # Errors
/// The server's.
pub(super) async fn caught_up(applier: Applier, decided: Decided<'_>) -> anyhow::Result<()> {
    let Decided { client, config, store, feed, validator, before, relations, accepted, restored } = decided;
    let (mut session, after) = ask(applier.session, config).await?;
    let facts = match (before, after) {
        (Some(before), Some(after)) if before.facts.tables == after.facts.tables => Some(after.facts),
        _ => None,
    };
    let mut settled = None;
    if let (Some(validator), Some(facts)) = (validator, facts) {
        let mut ledger = ledger::read(client, &feed.feed_id).await?;
        ledger.retain(|(_, table), held| accepted.get(table) == Some(&held.table_oid));
        judge::miss_left_out(&mut ledger, relations, &config.tables);
        restored::find_read_since(feed, restored, &mut ledger);
        let left = plan::pending(feed, &ledger, accepted, PLAIN);
        if left.is_ok_and(|left| left.days.is_empty() && left.hole.is_none()) {
            let fingerprint = facts.fingerprint(config, &store.url());
            settled = Some(Settled { head: HeadInBrief::of(feed), validator, fingerprint });
        }
    }
    let settled = settled.map(|settled| serde_json::to_string(&settled)).transpose()?;
    let feed = feed.clone();
    spawn_blocking(move || ledger::caught_up(&mut session, &feed, settled.as_deref())).await??;
    Ok(())
}

#[cfg(test)]
mod tests;
