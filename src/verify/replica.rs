//! A published day against a replica that holds it.

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Judgement, judge};
use crate::catchup::ledger::{self, Entry, Ledger};
use crate::catchup::matching::{self, Absence, Target};
use crate::catchup::{merge, replica, run};
use crate::codec::{RowFormat, Tally};
use crate::config::Config;
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed};
use crate::manifest::{Manifest, Slice};
use crate::pg::catalog::Relation;
use crate::pg::{Endpoint, Session, pooler};
use crate::tally::tally;

/// A replica under comparison. No catchup can run meanwhile.
pub(super) struct Reader {
    /// Away while a slice is being compared, and for good if that failed.
    session: Option<Session>,
    ledger: Ledger,
    relations: Vec<Relation>,
    accepted: Vec<String>,
}

/// What is known of rows that the slice does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// There are none.
    None,
    /// There may be some: the slice is filtered, or the replica keeps rows of its own.
    Possible,
}

impl Reader {
    /// Takes the lock that catchups take, and reads the ledger.
    ///
    /// # Errors
    /// The server's; class Locked while a catchup runs; class Usage for a replica that never followed the feed.
    pub(super) async fn open(
        config: &Config,
        feed: &Feed,
        endpoint: &Endpoint,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Reader> {
        pooler::refuse_shared_sessions(endpoint, "replica").await?;
        let client = endpoint.client().await?;
        let never = || {
            Failure::new(Class::Usage, "the replica has no ledger of this feed: nothing of it was ever applied")
                .next("run `pgslice catchup` first, or check replica.url")
        };
        if !ledger::exists(&client).await? {
            return Err(never().into());
        }
        run::check_known_head(feed, ledger::known_head(&client, &feed.dataset).await?)?;
        let mut session = replica::session(endpoint, &client, cancel).await?;
        run::lock_replica(&mut session, feed).await?;
        let ledger = ledger::read(&client, &feed.feed_id).await?;
        if ledger.is_empty() && !feed.days.is_empty() {
            return Err(never().into());
        }
        let relations = run::relations(&client, config).await?;
        let accepted: Vec<String> =
            config.tables.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect();
        run::check_published(feed, &run::accepted(config, &relations))?;
        Ok(Reader { session: Some(session), ledger, relations, accepted })
    }

    /// Judges the slices of a day, in their order.
    ///
    /// # Errors
    /// The server's.
    pub(super) async fn compare(&mut self, entry: &DayEntry, manifest: &Manifest) -> anyhow::Result<Vec<Judgement>> {
        let mut judged = Vec::new();
        for slice in &manifest.slices {
            judged.push(match self.target(entry, slice, manifest) {
                Ok((target, others)) => self.compare_slice(slice, &target, others).await?,
                Err(judgement) => judgement,
            });
        }
        Ok(judged)
    }

    /// Where the slice went; otherwise why it cannot be compared, or that it is gone.
    fn target(&self, entry: &DayEntry, slice: &Slice, manifest: &Manifest) -> Result<(Target, Others), Judgement> {
        let not_compared = |why: &str| Err(Judgement::NotCompared(why.to_owned()));
        let name = slice.qualified_name();
        if !self.accepted.contains(&name) {
            return not_compared("the configuration does not take this table");
        }
        if slice.time.is_none() {
            return not_compared("a reference table: its rows belong to no one day");
        }
        let Some(held) = self.ledger.get(&(entry.day, name)) else { return not_compared("not applied") };
        let is_its = |relation: &&Relation| relation.schema == slice.schema && relation.name == slice.table;
        let Some(relation) = self.relations.iter().find(is_its) else {
            return Err(Judgement::Gone("the ledger says that the day is held, and there is no such table".into()));
        };
        if held.table_oid != relation.oid {
            return Err(Judgement::Gone(
                "the table was made anew since the day was applied; catchup applies it again".into(),
            ));
        }
        if held.is_in_doubt() {
            return not_compared("rows of it went elsewhere, and it waits for its turn");
        }
        if !holds_these_rows(held, slice) {
            let why = format!("revision {} is applied, {} is published", held.revision, entry.revision);
            return Err(Judgement::NotCompared(why));
        }
        let target = matching::target(slice, relation, manifest).map_err(|drift| {
            Judgement::Gone(format!("the table no longer fits what was applied: {}", drift.problem))
        })?;
        let others = match held.keeps_extra_rows || target.absence == Absence::Unknown {
            true => Others::Possible,
            false => Others::None,
        };
        Ok((target, others))
    }

    async fn compare_slice(&mut self, slice: &Slice, target: &Target, others: Others) -> anyhow::Result<Judgement> {
        let Some(window) = target.time.as_ref().map(|time| time.predicate_of("present")) else {
            return Ok(Judgement::NotCompared("a reference table: its rows belong to no one day".into()));
        };
        let copy = merge::copy_window(target, &window, slice.format);
        let format = RowFormat::new(slice.format, &slice.columns);
        let mut session = self.session.take().ok_or_else(|| anyhow::anyhow!("the replica's session is lost"))?;
        let (session, found) = spawn_blocking(move || {
            let found: anyhow::Result<Tally> = tally(&mut session, &copy, format);
            (session, found)
        })
        .await?;
        self.session = Some(session);
        Ok(match judge(slice, found?) {
            Judgement::Differs(found) if others == Others::Possible && found.rows > slice.rows => {
                Judgement::NotCompared("the window holds rows of the replica's own, or the slice is filtered".into())
            }
            judgement => judgement,
        })
    }
}

/// Was this revision applied, or another one with the same rows?
fn holds_these_rows(held: &Entry, slice: &Slice) -> bool {
    let same_rows = (held.rows, held.rows_digest) == (slice.rows, slice.rows_digest);
    same_rows && held.format == slice.format && held.columns == ledger::columns_of(slice)
}
