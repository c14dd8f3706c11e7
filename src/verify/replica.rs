//! A published day against a replica that holds it.

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Judgement, judge};
use crate::catchup::ledger::{self, Ledger};
use crate::catchup::matching::{self, Absence, Target};
use crate::catchup::{merge, replica, run};
use crate::codec::RowFormat;
use crate::config::Config;
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed};
use crate::manifest::{Manifest, Slice};
use crate::pg::catalog::Relation;
use crate::pg::{Endpoint, Session, pooler};
use crate::tally::tally;

/// A replica under comparison. No catchup can run meanwhile.
pub(super) struct Reader {
    /// Away while a day is being compared, and for good if that failed.
    session: Option<Session>,
    ledger: Ledger,
    relations: Vec<Relation>,
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
        if !ledger::exists(&client).await? {
            return Err(Failure::new(Class::Usage, "the replica has no ledger: nothing was ever applied to it")
                .next("run `pgslice catchup` first, or check replica.url")
                .into());
        }
        run::check_known_head(feed, ledger::known_head(&client, &feed.dataset).await?)?;
        let mut session = replica::session(endpoint, &client, cancel).await?;
        run::lock_replica(&mut session, feed).await?;
        let ledger = ledger::read(&client, &feed.feed_id).await?;
        let relations = run::relations(&client, config).await?;
        Ok(Reader { session: Some(session), ledger, relations })
    }

    /// Judges the slices of a day, in their order.
    ///
    /// # Errors
    /// The server's.
    pub(super) async fn compare(&mut self, entry: &DayEntry, manifest: &Manifest) -> anyhow::Result<Vec<Judgement>> {
        let mut judged = Vec::new();
        for slice in &manifest.slices {
            judged.push(match self.target(entry, slice, manifest) {
                Ok(target) => self.compare_slice(slice, target).await?,
                Err(why) => Judgement::NotCompared(why),
            });
        }
        Ok(judged)
    }

    /// Where the slice went; otherwise why it cannot be compared.
    fn target(&self, entry: &DayEntry, slice: &Slice, manifest: &Manifest) -> Result<Target, String> {
        let is_its = |relation: &&Relation| relation.schema == slice.schema && relation.name == slice.table;
        let relation = self.relations.iter().find(is_its).ok_or("the replica does not take this table")?;
        if slice.time.is_none() {
            return Err("a reference table: its rows belong to no one day".into());
        }
        let held = self.ledger.get(&(entry.day, slice.qualified_name()));
        match held.filter(|held| held.table_oid == relation.oid) {
            None => return Err("not applied".into()),
            Some(held) if held.is_in_doubt() => {
                return Err("rows of it went elsewhere, and it waits for its turn".into());
            }
            Some(held) if held.manifest_sha256 != entry.manifest.sha256 => {
                return Err(format!("revision {} is applied, {} is published", held.revision, entry.revision));
            }
            Some(held) if held.keeps_extra_rows => {
                return Err("the replica keeps rows of its own in this window".into());
            }
            Some(_) => {}
        }
        matching::target(slice, relation, manifest).map_err(|drift| drift.problem)
    }

    async fn compare_slice(&mut self, slice: &Slice, target: Target) -> anyhow::Result<Judgement> {
        let Some(window) = target.time.as_ref().map(|time| time.predicate_of("present")) else {
            return Ok(Judgement::NotCompared("a reference table: its rows belong to no one day".into()));
        };
        let copy = merge::copy_window(&target, &window, slice.format);
        let format = RowFormat::new(slice.format, &slice.columns);
        let mut session = self.session.take().ok_or_else(|| anyhow::anyhow!("the replica's session is lost"))?;
        let (session, found) = spawn_blocking(move || {
            let found = tally(&mut session, &copy, format);
            (session, found)
        })
        .await?;
        self.session = Some(session);
        let judgement = judge(slice, found?);
        Ok(match judgement {
            Judgement::Differs(_) if target.absence == Absence::Unknown => {
                Judgement::NotCompared("the slice is filtered: the replica may hold more".into())
            }
            judgement => judgement,
        })
    }
}
