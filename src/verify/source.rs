//! A published day against the source, which is read as an export would read it.

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Judgement, judge};
use crate::codec::RowFormat;
use crate::config::Config;
use crate::day::Zone;
use crate::export::settle;
use crate::export::snapshot::Snapshot;
use crate::manifest::{Manifest, Slice, SliceKind};
use crate::pg::{Endpoint, PgError, Session};
use crate::table::SourceTable;
use crate::tally::tally;

/// Judges the slices of a day, in their order, by one snapshot of the source.
///
/// # Errors
/// The server's; those of [`Snapshot::take`].
pub(super) async fn compare(
    config: &Config,
    source: &Endpoint,
    manifest: &Manifest,
    cancel: &CancellationToken,
) -> anyhow::Result<Vec<Judgement>> {
    let work = Box::pin(async {
        let client = source.own_client().await?;
        let facts = settle::source_facts(&client).await?;
        let snapshot = Snapshot::take(&client, &config.tables, &facts).await?;
        let (invitation, tables) = (snapshot.invitation(), snapshot.tables.clone());
        let (source, cancel, manifest, zone) = (source.clone(), cancel.clone(), manifest.clone(), config.timezone);
        let judged = spawn_blocking(move || {
            let mut session = source.session(&cancel)?;
            invitation.accept(&mut session)?;
            manifest.slices.iter().map(|slice| compare_slice(&mut session, slice, &manifest, &tables, zone)).collect()
        })
        .await?;
        // It only read: whether the transaction could be ended in order changes nothing.
        if let Err(error) = snapshot.release().await {
            tracing::debug!(%error, "the snapshot's transaction had ended before it was released");
        }
        judged
    });
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
    Ok(match judgement {
        // Its rows are those of the moment that the day was read.
        Judgement::Differs(_) if slice.kind != SliceKind::Time => {
            Judgement::NotCompared("rows of this reference table have changed since the day was read".into())
        }
        judgement => judgement,
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

fn is_of_type(found: &crate::manifest::Column, published: &crate::manifest::Column) -> bool {
    (&found.type_schema, &found.type_name, found.typmod)
        == (&published.type_schema, &published.type_name, published.typmod)
}
