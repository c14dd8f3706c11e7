//! A published day against a replica that holds it.

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Judgement, judge};
use crate::catchup::judge::read_last;
use crate::catchup::ledger::{self, Entry, Ledger};
use crate::catchup::{matching, replica, run};
use crate::codec::{RowFormat, Tally};
use crate::config::{Config, TableConfig};
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, Feed};
use crate::head;
use crate::manifest::{Column, Manifest, Slice, SliceFormat};
use crate::pg::catalog::Relation;
use crate::pg::{Endpoint, Session, pooler, quote_identifier, quote_qualified};
use crate::store::Store;
use crate::tally::tally;

/// A replica under comparison. No catchup can run meanwhile.
pub(super) struct Reader {
    /// Away while a slice is being compared, and for good if that failed.
    session: Option<Session>,
    ledger: Ledger,
    relations: Vec<Relation>,
    tables: Vec<TableConfig>,
    /// The newest published days, under the replica's names of columns.
    newest: Vec<Manifest>,
}

/// The rows of a slice on the replica.
struct Window {
    /// Copies them out.
    copy: String,
    others: Others,
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
        (store, feed): (&dyn Store, &Feed),
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
        run::check_published(feed, &run::accepted(config, &relations))?;
        let newest = newest_days(store, feed, &config.tables).await?;
        Ok(Reader { session: Some(session), ledger, relations, tables: config.tables.clone(), newest })
    }

    /// Judges the slices of a day, in their order.
    ///
    /// # Errors
    /// The server's.
    pub(super) async fn compare(&mut self, entry: &DayEntry, manifest: &Manifest) -> anyhow::Result<Vec<Judgement>> {
        let mut judged = Vec::new();
        for slice in &manifest.slices {
            judged.push(match self.window(entry, slice, manifest) {
                Ok(window) => self.compare_slice(slice, window).await?,
                Err(judgement) => judgement,
            });
        }
        Ok(judged)
    }

    /// Where the rows of the slice are; otherwise why it cannot be compared, or that it is gone.
    fn window(&self, entry: &DayEntry, slice: &Slice, manifest: &Manifest) -> Result<Window, Judgement> {
        let not_compared = |why: &str| Err(Judgement::NotCompared(why.to_owned()));
        let name = slice.qualified_name();
        let Some(table) = self.tables.iter().find(|table| table.schema == slice.schema && table.name == slice.table)
        else {
            return not_compared("the configuration does not take this table");
        };
        if slice.time.is_none() {
            return not_compared("a reference table: its rows belong to no one day");
        }
        let Some(held) = self.ledger.get(&(entry.day, name.clone())) else { return not_compared("not applied") };
        let Some(relation) = self.relations.iter().find(|relation| relation.qualified_name() == name) else {
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
        let here = matching::renamed(slice, &table.rename).map_err(|drift| Judgement::NotCompared(drift.problem))?;
        for column in &here.columns {
            let Some(own) = relation.column(&column.name) else { return Err(self.without(column, &here)) };
            let same_type = own.column.type_of() == column.type_of();
            if !same_type && slice.format == SliceFormat::Binary {
                return Err(Judgement::NotCompared(format!("its column {:?} has another type here", column.name)));
            }
        }
        let Some(time) = here.time.as_ref().filter(|time| time.fit(manifest.day, manifest.window)) else {
            return not_compared("its bounds are not those of the day");
        };
        let columns: Vec<String> = here.columns.iter().map(|column| quote_identifier(&column.name)).collect();
        let from = quote_qualified(&relation.schema, &relation.name);
        let copy = format!(
            "copy (select {} from {from} as present where {}) to stdout{}",
            columns.join(", "),
            time.predicate_of("present"),
            slice.format.copy_options()
        );
        let others = if held.keeps_extra_rows || slice.filtered { Others::Possible } else { Others::None };
        Ok(Window { copy, others })
    }

    /// A column that the replica lacks may have been dropped on the source, too: then newer days do not carry it.
    fn without(&self, column: &Column, slice: &Slice) -> Judgement {
        let is_its = |newest: &&Slice| newest.qualified_name() == slice.qualified_name();
        let newest = self.newest.iter().flat_map(|manifest| &manifest.slices).find(is_its);
        let name = &column.name;
        match newest.is_some_and(|newest| newest.columns.iter().any(|carried| carried.name == *name)) {
            true => Judgement::Gone(format!("the replica no longer has the column {name:?}")),
            false => Judgement::NotCompared(format!("neither the replica nor newer days have its column {name:?}")),
        }
    }

    async fn compare_slice(&mut self, slice: &Slice, window: Window) -> anyhow::Result<Judgement> {
        let format = RowFormat::new(slice.format, &slice.columns);
        let mut session = self.session.take().ok_or_else(|| anyhow::anyhow!("the replica's session is lost"))?;
        let (session, found) = spawn_blocking(move || {
            let found: anyhow::Result<Tally> = tally(&mut session, &window.copy, format);
            (session, found)
        })
        .await?;
        self.session = Some(session);
        Ok(match judge(slice, found?) {
            Judgement::Differs(found) if window.others == Others::Possible && found.rows > slice.rows => {
                Judgement::NotCompared("the window holds rows of the replica's own, or the slice is filtered".into())
            }
            judgement => judgement,
        })
    }
}

/// The published day of each table of the config that was read last, each day once, under the replica's names of columns.
async fn newest_days(store: &dyn Store, feed: &Feed, tables: &[TableConfig]) -> anyhow::Result<Vec<Manifest>> {
    let mut newest: Vec<Manifest> = Vec::new();
    for table in tables {
        let name = format!("{}.{}", table.schema, table.name);
        let Some(entry) = read_last(feed, &name) else { continue };
        if newest.iter().any(|manifest| manifest.day == entry.day) {
            continue;
        }
        // A damaged one is found where its own day is looked at.
        let Ok(mut manifest) = head::day_manifest(store, feed, entry).await else { continue };
        for slice in &mut manifest.slices {
            let of_slice = |table: &&TableConfig| table.schema == slice.schema && table.name == slice.table;
            if let Some(Ok(renamed)) = tables.iter().find(of_slice).map(|table| matching::renamed(slice, &table.rename))
            {
                *slice = renamed;
            }
        }
        newest.push(manifest);
    }
    Ok(newest)
}

/// Was this revision applied, or another one with the same rows?
fn holds_these_rows(held: &Entry, slice: &Slice) -> bool {
    let same_rows = (held.rows, held.rows_digest) == (slice.rows, slice.rows_digest);
    let (of_held, of_slice) = (ledger::names_of(&held.columns), ledger::names_of(&ledger::columns_of(slice, &[])));
    let same_columns = (of_held.columns, of_held.key) == (of_slice.columns, of_slice.key);
    same_rows && held.format == slice.format && same_columns
}
