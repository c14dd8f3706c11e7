//! What is asked about a slice beside its rows, in the same snapshot.

use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::config::{Detect, NullTime};
use crate::day::{Day, Window, Zone};
use crate::error::{Class, Failure};
use crate::manifest::{Detected, Slice};
use crate::pg::catalog::RelKind;
use crate::pg::{PgError, Session, quote_qualified};
use crate::table::{HYPERTABLE_CHUNKS, SourceRows, SourceTable};

/// The number of rows.
const ROWS: &str = "count(*)::text";

/// The number of rows, and the sum of what tells the versions of rows apart: a row that is written anew has another
/// `xmin`, and mostly another place. One pass, no sort.
const ROWS_AND_VERSIONS: &str = "count(*)::text, coalesce(sum(pg_catalog.hashtidextended(ctid, \
    pg_catalog.hashoidextended(tableoid, xmin::text::pg_catalog.int8))), 0)::text";

/// How a table of the source can be looked at without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detector {
    /// As configured, or [`Detect::Digest`] where [`Detect::Rows`] cannot be had.
    pub way: Detect,
    /// What the catalog says of it that tells it from another table of that name and shape: its number, and the names
    /// and numbers of its columns.
    pub identity: String,
    /// Do all of its rows lie in heaps of this server?
    pub in_heaps: bool,
    /// The size of a row on disk, if the server knows.
    pub row_bytes: Option<u64>,
    /// Where the snapshot has its rows, as a condition; `None` where it is the table itself, or a hypertable. The server
    /// plans each statement with the partitions of its own moment: without that, connections that share the table would
    /// not read the same one when a partition is attached meanwhile.
    pub members: Option<String>,
}

fn condition_of(members: &[u32]) -> String {
    let oids: Vec<String> = members.iter().map(u32::to_string).collect();
    format!("tableoid = any ('{{{}}}'::pg_catalog.oid[])", oids.join(","))
}

/// One [`Detector`] for each of `tables`, in their order. `default` is `[export]`'s way.
///
/// # Errors
/// The server's.
pub async fn detectors(client: &Client, tables: &[SourceTable], default: Detect) -> Result<Vec<Detector>, PgError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.relation.oid).collect();
    let rows = client.query(include_str!("../../sql/row_versions.sql"), &[&oids]).await?;
    let detector = |table: &SourceTable| {
        let row = rows.iter().find(|row| row.get::<_, u32>("relation") == table.relation.oid);
        let in_heaps = row.is_some_and(|row| row.get("in_heaps"));
        // Compressed chunks show rows that lie elsewhere.
        let has_chunks = table.relation.child_schemas.iter().any(|schema| schema == HYPERTABLE_CHUNKS);
        let has_versions = in_heaps && !has_chunks;
        let way = match table.config.detect.unwrap_or(default) {
            Detect::Rows if !has_versions => Detect::Digest,
            way => way,
        };
        let attributes = row.and_then(|row| row.get::<_, Option<String>>("attributes")).unwrap_or_default();
        let row_bytes = row.and_then(|row| row.get::<_, Option<i64>>("row_bytes"));
        let members: Vec<u32> = row.map(|row| row.get("members")).unwrap_or_default();
        let is_alone = members.len() < 2 && table.relation.kind != RelKind::Partitioned;
        Detector {
            way,
            identity: format!("{} {attributes}", table.relation.oid),
            in_heaps,
            row_bytes: row_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            members: (!is_alone && !has_chunks).then(|| condition_of(&members)),
        }
    };
    Ok(tables.iter().map(detector).collect())
}

/// A slice of a day, to be asked about.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// Its table.
    pub table: &'q SourceTable,
    /// All tables of the dataset.
    pub all: &'q [SourceTable],
    /// How it can be looked at.
    pub detector: &'q Detector,
    /// The dataset's zone.
    pub zone: Zone,
    /// The day.
    pub day: Day,
    /// Its window.
    pub window: Window,
}

/// The counts and extents that go with a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SliceFacts {
    /// The smallest time.
    pub min_time: Option<String>,
    /// The largest time.
    pub max_time: Option<String>,
    /// Rows of the whole table that lie in no day.
    pub outside_time: u64,
    /// What a later export compares.
    pub detected: Option<Detected>,
}

/// What a later look at a slice that is read now will be after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// The versions of its rows, which are asked now: it will be looked at again for certain, perhaps while transactions
    /// are open that wrote much of it.
    Versions,
    /// What was written since, where that tells all: nothing is asked now.
    WrittenSince,
}

/// What looking at a slice without reading it showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Rows of the whole table that lie in no day.
    pub outside_time: u64,
    /// What is compared with the published slice; absent where only reading tells.
    pub detected: Option<Detected>,
    /// The rows that may have been written since the published slice was read; absent where that was not asked.
    pub written_since: Option<u64>,
}

/// What tells a published slice's rows from those of today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The sum of their versions, which was asked when they were read.
    Versions,
    /// That this transaction or a later one wrote a row: all before it had ended when the slice was read.
    WrittenSince(u64),
}

impl Question<'_> {
    /// Looks at the slice, for that evidence.
    ///
    /// # Errors
    /// The server's; class Integrity when rows lie in no day and `null-time` refuses them.
    pub fn look(&self, session: &mut Session, evidence: Evidence) -> anyhow::Result<Look> {
        let outside_time = self.outside_time(session)?;
        let expressions = match (self.detector.way, evidence) {
            (Detect::Rows, Evidence::Versions) => ROWS_AND_VERSIONS.to_owned(),
            (Detect::Rows, Evidence::WrittenSince(oldest)) => self.rows_and_written_since(oldest),
            (Detect::Count, _) => ROWS.to_owned(),
            (Detect::Digest | Detect::Off, _) => return Ok(Look { outside_time, ..Look::default() }),
        };
        let mut select = self.select(&expressions);
        if let (Evidence::WrittenSince(_), Some(members)) = (evidence, &self.detector.members) {
            // Such a slice has bounds, and so a condition already.
            select = format!("{select} and {members}");
        }
        let rows = session.query(&select, &[])?;
        let Some(row) = rows.first() else { return Ok(Look { outside_time, ..Look::default() }) };
        let (versions, written_since) = match evidence {
            Evidence::Versions => (row.get(1).map(str::to_owned), None),
            Evidence::WrittenSince(_) => (None, row.get(1).map(str::parse).transpose()?),
        };
        let detected = Detected { rows: row.text(0)?.parse()?, statement: self.statement(), versions };
        Ok(Look { outside_time, detected: Some(detected), written_since })
    }

    /// The number of rows, and of those that the transaction `oldest` or a later one wrote, or that lie in partitions
    /// that were attached by such a one. `age` counts from now on back, and is without end for what was written before
    /// transactions were counted.
    fn rows_and_written_since(&self, oldest: u64) -> String {
        // Transactions are told apart by the lower half of their number; those below 3 are the server's own.
        let oldest = (oldest & u64::from(u32::MAX)).max(3);
        let is_later =
            |xmin: &str| format!("pg_catalog.age({xmin}) <= (select pg_catalog.age('{oldest}'::pg_catalog.xid))");
        let mut written = is_later("xmin");
        if !self.table.relation.children.is_empty() || self.table.relation.kind == RelKind::Partitioned {
            written = format!(
                "{written} or tableoid = any (array(with recursive attached (oid) as (select inhrelid from \
                 pg_catalog.pg_inherits where {} union select i.inhrelid from attached a join pg_catalog.pg_inherits i \
                 on i.inhparent = a.oid) select oid from attached))",
                is_later("xmin")
            );
        }
        format!("{ROWS}, count(*) filter (where {written})::text")
    }

    /// What goes with a slice that is read, given what a look at it showed, and what a later look will be after.
    ///
    /// # Errors
    /// As [`Question::look`].
    pub fn facts(&self, session: &mut Session, look: Option<Look>, later: Later) -> anyhow::Result<SliceFacts> {
        let looked_at = look.is_some();
        let Look { outside_time, mut detected, .. } = match look {
            Some(look) => look,
            None => Look { outside_time: self.outside_time(session)?, ..Look::default() },
        };
        // One statement for both: without an index each of them reads the whole table.
        let (mut expressions, mut extent_columns) = (Vec::new(), 0);
        if let Some(extent) = self.table.extent_expressions() {
            expressions.push(extent);
            extent_columns = 2;
        }
        let needs_versions = later == Later::Versions || !self.table.rows_decide_alone();
        let asks_versions = self.detector.way == Detect::Rows && needs_versions && !looked_at;
        if asks_versions {
            expressions.push(ROWS_AND_VERSIONS.to_owned());
        }
        let (mut min_time, mut max_time) = (None, None);
        if !expressions.is_empty()
            && let Some(row) = session.query(&self.select(&expressions.join(", ")), &[])?.first()
        {
            if extent_columns > 0 {
                (min_time, max_time) = (row.get(0).map(str::to_owned), row.get(1).map(str::to_owned));
            }
            if asks_versions {
                detected = Some(Detected {
                    rows: row.text(extent_columns)?.parse()?,
                    statement: self.statement(),
                    versions: row.get(extent_columns + 1).map(str::to_owned),
                });
            }
        }
        Ok(SliceFacts { min_time, max_time, outside_time, detected })
    }

    /// What a slice that was read is compared by later. A count needs no question: the rows were counted as they came.
    pub fn keep(&self, detected: Option<Detected>, rows: u64) -> Option<Detected> {
        match self.detector.way {
            Detect::Rows if detected.is_some() => detected.filter(|detected| detected.rows == rows),
            Detect::Rows | Detect::Count => Some(Detected { rows, statement: self.statement(), versions: None }),
            Detect::Digest | Detect::Off => None,
        }
    }

    /// The slice as its table describes it, without rows.
    pub fn described(&self) -> Slice {
        let table = self.table;
        Slice {
            schema: table.relation.schema.clone(),
            table: table.relation.name.clone(),
            kind: table.kind(),
            columns: table.columns.clone(),
            omitted_columns: table.omitted.clone(),
            key: table.key.clone(),
            time: table.bounds(self.zone, self.day, self.window),
            filtered: table.is_filtered(),
            excluded_rows: 0,
            format: table.config.format,
            rows: 0,
            raw_bytes: 0,
            stored_bytes: 0,
            min_time: None,
            max_time: None,
            rows_digest: crate::codec::RowsDigest::default(),
            detect: None,
            taken: None,
            parts: Vec::new(),
        }
    }

    fn select(&self, expressions: &str) -> String {
        self.table.select_expressions(expressions, self.all, self.zone, self.day, self.window)
    }

    /// What stands for the statement that gives the rows, and for the table and the columns that it names.
    fn statement(&self) -> String {
        let select = self.table.select(self.all, self.zone, self.day, self.window);
        hex::encode(Sha256::digest(format!("{select}\n{}", self.detector.identity)))
    }

    /// How many rows lie in no day.
    fn outside_time(&self, session: &mut Session) -> anyhow::Result<u64> {
        let Some(sql) = self.table.select_outside_time() else { return Ok(0) };
        let rows = session.query(&sql, &[])?;
        let outside_time = rows.first().map_or(Ok("0"), |row| row.text(0))?.parse().unwrap_or_default();
        let refuses = matches!(self.table.rows, SourceRows::Time { null_time: NullTime::Refuse, .. });
        if outside_time == 0 || !refuses {
            return Ok(outside_time);
        }
        Err(Failure::new(
            Class::Integrity,
            format!(
                "{} has {outside_time} rows whose time is NULL or infinite: they belong to no day",
                quote_qualified(&self.table.relation.schema, &self.table.relation.name),
            ),
        )
        .meaning("the day was not exported: a replica would never get those rows")
        .next("give them a time, or set null-time = \"exclude\" to leave them out")
        .into())
    }
}
