//! A published day against the source, which is read as an export would read it.

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Judgement, judge};
use crate::codec::RowFormat;
use crate::config::{Config, Detect, TableConfig};
use crate::day::Zone;
use crate::export::snapshot::Snapshot;
use crate::export::{plan, settle};
use crate::feed::Feed;
use crate::manifest::{Column, Manifest, Slice, SliceKind, State};
use crate::pg::{Endpoint, PgError, Session, pooler};
use crate::table::SourceTable;
use crate::tally::tally;

/// A source under comparison: each day by a snapshot of its own.
pub(super) struct Reader {
    endpoint: Endpoint,
    tables: Vec<TableConfig>,
    zone: Zone,
}

impl Reader {
    /// # Errors
    /// Class Integrity for another system than the feed was read from, or an older timeline of it; the server's.
    pub(super) async fn open(
        config: &Config,
        feed: &Feed,
        endpoint: Endpoint,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Reader> {
        let asking = async {
            pooler::refuse_shared_sessions(&endpoint, "source").await?;
            Ok(settle::source_facts(&*endpoint.client().await?).await?)
        };
        let facts = unless_ended(cancel, asking).await?;
        plan::check_source(feed, &facts.identity).map_err(|refusal| refusal.meaning("nothing was compared"))?;
        Ok(Reader { endpoint, tables: config.tables.clone(), zone: config.timezone })
    }

    /// Judges the slices of a day, in their order, by one snapshot of the source.
    ///
    /// # Errors
    /// The server's; those of [`Snapshot::take`].
    pub(super) async fn compare(
        &self,
        manifest: &Manifest,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Vec<Judgement>> {
        let work = Box::pin(async {
            let client = self.endpoint.own_client().await?;
            let facts = settle::source_facts(&client).await?;
            let snapshot = Snapshot::take(&client, &self.tables, Detect::Off, &facts).await?;
            if facts.standby.is_some() && snapshot.taken.saw_less_than(&manifest.taken) {
                let why = "the standby has not come as far as the source had when the day was read";
                return Ok(manifest.slices.iter().map(|_| Judgement::NotCompared(why.into())).collect());
            }
            let (invitation, tables, zone) = (snapshot.invitation(), snapshot.tables.clone(), self.zone);
            let (source, cancel, manifest) = (self.endpoint.clone(), cancel.clone(), manifest.clone());
            let judged = spawn_blocking(move || {
                let mut session = source.session(&cancel)?;
                invitation.accept(&mut session)?;
                let compare = |slice| compare_slice(&mut session, slice, &manifest, &tables, zone);
                manifest.slices.iter().map(compare).collect()
            })
            .await?;
            // It only read: whether the transaction could be ended in order changes nothing.
            if let Err(error) = snapshot.release().await {
                tracing::debug!(%error, "the snapshot's transaction had ended before it was released");
            }
            judged
        });
        unless_ended(cancel, work).await
    }
}

async fn unless_ended<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(PgError::Cancelled.into()))
}

fn compare_slice(
    session: &mut Session,
    slice: &Slice,
    manifest: &Manifest,
    tables: &[SourceTable],
    zone: Zone,
) -> anyhow::Result<Judgement> {
    let table = match as_published(slice, manifest, tables, zone) {
        Ok(table) => table,
        Err(why) => return Ok(Judgement::NotCompared(why)),
    };
    let select = table.select(tables, zone, manifest.day, manifest.window);
    let copy = format!("copy ({select}) to stdout{}", slice.format.copy_options());
    let judgement = judge(slice, tally(session, &copy, RowFormat::new(slice.format, &slice.columns))?);
    let is_carried = |column: &Column| slice.columns.iter().any(|carried| carried.name == column.name);
    let own = tables.iter().find(|table| table.is(&slice.schema, &slice.table));
    let newer = own.and_then(|table| table.columns.iter().find(|column| !is_carried(column)));
    Ok(match (judgement, newer) {
        (Judgement::Differs(_), _) if manifest.state == State::Provisional => Judgement::NotCompared(
            "the day is provisional, and the source has other rows by now: the next export looks at it again".into(),
        ),
        (Judgement::Differs(_), _) if slice.kind != SliceKind::Time => Judgement::ChangedSince,
        (Judgement::Equal, Some(column)) => {
            Judgement::EqualBut(format!("without its column {:?}, which the day does not carry", column.name))
        }
        (judgement, _) => judgement,
    })
}

/// The source's table with the columns that the slice has, in their order.
fn as_published(slice: &Slice, manifest: &Manifest, tables: &[SourceTable], zone: Zone) -> Result<SourceTable, String> {
    let table = tables.iter().find(|table| table.is(&slice.schema, &slice.table));
    let table = table.ok_or("the configuration no longer has the table")?;
    if table.kind() != slice.kind || table.bounds(zone, manifest.day, manifest.window) != slice.time {
        return Err("the configuration chooses its rows in another way now".into());
    }
    if table.is_filtered() != slice.filtered {
        return Err("the configuration has or had a `where`".into());
    }
    for column in &slice.columns {
        match table.relation.column(&column.name) {
            None => return Err(format!("the source no longer has its column {:?}", column.name)),
            Some(found) if !is_of_type(&found.column, column) => {
                return Err(format!("its column {:?} has another type on the source now", column.name));
            }
            Some(_) => {}
        }
    }
    Ok(SourceTable { columns: slice.columns.clone(), ..table.clone() })
}

fn is_of_type(found: &Column, published: &Column) -> bool {
    (&found.type_schema, &found.type_name, found.typmod)
        == (&published.type_schema, &published.type_name, published.typmod)
}
