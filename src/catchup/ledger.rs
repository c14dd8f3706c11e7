//! The replica's own record of what it holds: read over the driver, written by the transaction that loads the rows.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use tokio_postgres::Client;

use super::matching::LeftOut;
use crate::codec::RowsDigest;
use crate::day::Day;
use crate::error::{Class, Failure};
use crate::feed::Feed;
use crate::manifest::{Slice, SliceFormat, Taken, TimeBounds};
use crate::pg::{PgError, Session, quote_identifier};

/// What the replica holds of a feed, by day and `schema.table`.
pub type Ledger = BTreeMap<(Day, String), Entry>;

/// One slice that the replica holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The revision it came from.
    pub revision: u32,
    /// The manifest it came from.
    pub manifest_sha256: String,
    /// Its rows' digest,
    pub rows_digest: RowsDigest,
    /// which is one of rows in this format,
    pub format: SliceFormat,
    /// of columns with these names: see [`columns_of`]. Empty where an older version wrote the entry.
    pub columns: String,
    /// By which column its window was told: see [`time_column_of`]. Empty for a reference table, and as above.
    pub time_column: String,
    /// Its rows.
    pub rows: u64,
    /// The moment it was read on the source.
    pub taken: Taken,
    /// The table that it was written to.
    pub table_oid: u32,
    /// The window held rows that the feed does not know.
    pub keeps_extra_rows: bool,
}

/// What stands in the place of a digest while it is not known what the window holds.
const DOUBT: &str = "ffffffffffffffffffffffffffffffff";

impl Entry {
    /// The same entry when rows of its window went elsewhere: it matches no manifest until it is applied again.
    #[must_use]
    pub fn in_doubt(self) -> Entry {
        let rows_digest = DOUBT.parse().expect("32 hex digits are a digest");
        Entry { manifest_sha256: String::new(), rows_digest, ..self }
    }

    /// Did rows of its window go elsewhere?
    pub fn is_in_doubt(&self) -> bool {
        self.rows_digest.to_string() == DOUBT
    }
}

/// The names of a slice's columns in their order, of its key, and of those columns that are not written, as one value, a
/// JSON object: rows of two slices are comparable only where they are equal.
pub fn columns_of(slice: &Slice, left_out: &[LeftOut]) -> String {
    let columns = slice.columns.iter().map(|column| column.name.clone()).collect();
    let left_out = left_out.iter().filter_map(|left| Some(slice.columns.get(left.place)?.name.clone())).collect();
    serde_json::to_string(&Names { columns, key: slice.key.clone(), left_out }).expect("lists of names are JSON")
}

/// What [`columns_of`] writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Names {
    /// The columns.
    pub columns: Vec<String>,
    /// The key; empty for none.
    pub key: Vec<String>,
    /// Those of the columns that the replica did not have, so that their values were not written.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub left_out: Vec<String>,
}

/// What [`columns_of`] wrote; nothing where an older version wrote the entry.
pub fn names_of(columns: &str) -> Names {
    serde_json::from_str(columns).unwrap_or_default()
}

/// By which column, of which kind, a window is told: `"at" timestamptz`. Empty for a reference table.
pub fn time_column_of(time: Option<&TimeBounds>) -> String {
    let of = |time: &TimeBounds| format!("{} {}", quote_identifier(&time.column), time.kind.word());
    time.map(of).unwrap_or_default()
}

/// How the replica came to hold a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// By COPY into an empty window.
    Loaded,
    /// By key into rows that were there.
    Merged,
    /// It was found equal.
    Adopted,
    /// An earlier revision with the same rows was held.
    Unchanged,
}

impl Origin {
    /// The word in the ledger and in reports.
    pub fn word(self) -> &'static str {
        match self {
            Origin::Loaded => "loaded",
            Origin::Merged => "merged",
            Origin::Adopted => "adopted",
            Origin::Unchanged => "unchanged",
        }
    }
}

/// The newest head that the replica has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHead {
    /// The feed's identity.
    pub feed_id: String,
    /// Its sequence.
    pub sequence: u64,
}

/// Does the replica have a ledger at all?
///
/// # Errors
/// The server's.
pub async fn exists(client: &Client) -> Result<bool, PgError> {
    let sql = "select pg_catalog.to_regclass('pgslice.ledger') is not null and pg_catalog.to_regclass('pgslice.feed') is not null";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// Makes the ledger's tables if they are missing, and what an older ledger lacks.
///
/// # Errors
/// The server's: the role needs CREATE on the database the first time. Class Permission with the statement to run, where
/// the ledger lacks something and is another role's.
pub async fn create(client: &Client) -> anyhow::Result<()> {
    if !exists(client).await? {
        return Ok(client.batch_execute(include_str!("../../sql/ledger.sql")).await.map_err(PgError::from)?);
    }
    let lacks = "select count(*) < 4 from pg_catalog.pg_attribute \
                 where not attisdropped and (attrelid = 'pgslice.ledger'::pg_catalog.regclass \
                 and attname in ('format', 'columns', 'time_column') \
                 or attrelid = 'pgslice.feed'::pg_catalog.regclass and attname = 'settled')";
    let add = include_str!("../../sql/ledger_columns.sql");
    if !client.query_one(lacks, &[]).await.map_err(PgError::from)?.get::<_, bool>(0) {
        return Ok(());
    }
    match client.batch_execute(add).await.map_err(PgError::from) {
        Ok(()) => Ok(()),
        Err(error) if error.code() == Some("42501") => Err(not_the_owner(add, &error).into()),
        Err(error) => Err(error.into()),
    }
}

/// Only a table's owner may add columns to it.
fn not_the_owner(statement: &str, error: &PgError) -> Failure {
    let lines = statement.lines().filter(|line| !line.starts_with("--")).map(str::trim);
    let statement = lines.collect::<Vec<_>>().join(" ");
    Failure::new(Class::Permission, format!("an older version made pgslice.ledger, and it lacks columns: {error}"))
        .meaning("nothing was applied")
        .next(format!("run on the replica, as the owner of pgslice.ledger: {statement}"))
}

/// The newest head of the dataset that the replica has seen.
///
/// # Errors
/// The server's.
pub async fn known_head(client: &Client, dataset: &str) -> Result<Option<KnownHead>, PgError> {
    let row = client.query_opt("select feed_id, sequence from pgslice.feed where dataset = $1", &[&dataset]).await?;
    Ok(row.map(|row| KnownHead {
        feed_id: row.get(0),
        sequence: u64::try_from(row.get::<_, i64>(1)).unwrap_or_default(),
    }))
}

/// Remembers a head before anything of it is applied.
///
/// # Errors
/// The server's.
pub async fn saw(client: &Client, feed: &Feed) -> anyhow::Result<()> {
    let sequence = i64::try_from(feed.sequence)?;
    let sql = include_str!("../../sql/head_seen.sql");
    client.execute(sql, &[&feed.dataset, &feed.feed_id, &sequence]).await.map_err(PgError::from)?;
    Ok(())
}

/// What the replica holds of a feed.
///
/// # Errors
/// The server's; rows that are not a ledger's.
pub async fn read(client: &Client, feed_id: &str) -> anyhow::Result<Ledger> {
    let mut ledger = Ledger::new();
    let rows = client.query(include_str!("../../sql/ledger_rows.sql"), &[&feed_id]).await.map_err(PgError::from)?;
    for row in rows {
        let day: Day = row.get::<_, String>("day").parse()?;
        let taken = Taken {
            exported_at: row.get::<_, DateTime<Utc>>("exported_at"),
            snapshot: row.get("snapshot"),
            lsn: row.get("lsn"),
            system_identifier: row.get("system_identifier"),
            timeline: u32::try_from(row.get::<_, i64>("timeline"))?,
        };
        let entry = Entry {
            revision: u32::try_from(row.get::<_, i32>("revision"))?,
            manifest_sha256: row.get("manifest_sha256"),
            rows_digest: row.get::<_, String>("rows_digest").parse().map_err(anyhow::Error::msg)?,
            format: serde_json::from_value(row.get::<_, String>("format").into())?,
            columns: row.get("columns"),
            time_column: row.get("time_column"),
            rows: u64::try_from(row.get::<_, i64>("rows"))?,
            taken,
            table_oid: row.get("table_oid"),
            keeps_extra_rows: row.get("keeps_extra_rows"),
        };
        ledger.insert((day, row.get("table_name")), entry);
    }
    Ok(ledger)
}

/// The revision of each day that the replica holds, the lowest of its tables; without days in doubt. `None` without a
/// ledger.
///
/// # Errors
/// The server's.
pub async fn applied_revisions(client: &Client, feed_id: &str) -> anyhow::Result<Option<BTreeMap<Day, u32>>> {
    if !exists(client).await? {
        return Ok(None);
    }
    let ledger = read(client, feed_id).await?;
    let in_doubt: BTreeSet<Day> =
        ledger.iter().filter(|(_, entry)| entry.is_in_doubt()).map(|((day, _), _)| *day).collect();
    let mut applied: BTreeMap<Day, u32> = BTreeMap::new();
    for ((day, _), entry) in ledger.into_iter().filter(|((day, _), _)| !in_doubt.contains(day)) {
        applied.entry(day).and_modify(|revision| *revision = entry.revision.min(*revision)).or_insert(entry.revision);
    }
    Ok(Some(applied))
}

/// A slice that the present transaction made true.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The day.
    pub day: Day,
    /// The slice.
    pub slice: &'a Slice,
    /// The revision of its day.
    pub revision: u32,
    /// Its columns and key: see [`columns_of`].
    pub columns: String,
    /// The state of its day.
    pub state: &'static str,
    /// The manifest.
    pub manifest_sha256: &'a str,
    /// The moment it was read on the source.
    pub taken: &'a Taken,
    /// By which column its window was told: see [`time_column_of`].
    pub time_column: String,
    /// The table.
    pub table_oid: u32,
    /// How.
    pub origin: Origin,
    /// Whether rows that the feed does not know were kept.
    pub keeps_extra_rows: bool,
}

/// Writes a record in the session's transaction.
///
/// # Errors
/// The server's.
pub fn write(session: &mut Session, feed_id: &str, record: &Record<'_>) -> Result<(), PgError> {
    let Record { day, slice, revision, state, manifest_sha256, taken, time_column, .. } = record;
    let Record { table_oid, origin, keeps_extra_rows, columns, .. } = record;
    let values: [String; 19] = [
        feed_id.to_owned(),
        day.to_string(),
        slice.qualified_name(),
        revision.to_string(),
        (*state).to_owned(),
        (*manifest_sha256).to_owned(),
        slice.rows_digest.to_string(),
        slice.rows.to_string(),
        taken.snapshot.clone(),
        taken.lsn.clone(),
        taken.system_identifier.clone(),
        taken.timeline.to_string(),
        taken.exported_at.to_rfc3339(),
        table_oid.to_string(),
        origin.word().to_owned(),
        keeps_extra_rows.to_string(),
        slice.format.word().to_owned(),
        columns.clone(),
        time_column.clone(),
    ];
    let values = values.each_ref().map(|value| Some(value.as_str()));
    session.execute(include_str!("../../sql/ledger_write.sql"), &values)?;
    Ok(())
}

/// Says in the session's transaction that a slice is no longer known to be held.
///
/// # Errors
/// The server's.
pub fn doubt(session: &mut Session, feed_id: &str, day: Day, table: &str) -> Result<(), PgError> {
    let day = day.to_string();
    let values = [Some(feed_id), Some(day.as_str()), Some(table), Some(DOUBT)];
    session.execute(include_str!("../../sql/ledger_doubt.sql"), &values)?;
    Ok(())
}

/// Remembers the head after a catchup that left nothing pending, and what spares the next one a look.
///
/// # Errors
/// The server's.
pub fn caught_up(session: &mut Session, feed: &Feed, settled: Option<&str>) -> Result<(), PgError> {
    let (sequence, published_at) = (feed.sequence.to_string(), feed.published_at.to_rfc3339());
    let [dataset, feed_id, sequence, published_at] =
        [&feed.dataset, &feed.feed_id, &sequence, &published_at].map(|value| Some(value.as_str()));
    let values = [dataset, feed_id, sequence, published_at, settled];
    session.execute(include_str!("../../sql/caught_up.sql"), &values)?;
    Ok(())
}
