//! What is asked about a slice beside its rows, in the same snapshot.

use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::config::{Detect, NullTime};
use crate::day::{Day, Window, Zone};
use crate::error::{Class, Failure};
use crate::manifest::{Detected, Slice};
use crate::pg::{PgError, Row, Session, quote_qualified};
use crate::table::{HYPERTABLE_CHUNKS, SourceRows, SourceTable};

/// The number of rows, and the sum of what tells the versions of rows apart: a row that is written anew has another
/// `xmin`, and mostly another place. One pass, no sort.
const ROWS_AND_VERSIONS: &str = "count(*)::text, coalesce(sum(pg_catalog.hashtidextended(ctid, \
    pg_catalog.hashoidextended(tableoid, xmin::text::pg_catalog.int8))), 0)::text";

/// How a table of the source can be looked at without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detector {
    /// As configured, or [`Detect::Digest`] where [`Detect::Rows`] cannot be had.
    pub way: Detect,
    /// The names and numbers of its columns, by the catalog.
    pub attributes: String,
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
        let in_heaps = row.is_some_and(|row| row.get("has_versions"));
        // Compressed chunks show rows that lie elsewhere.
        let has_versions = in_heaps && !table.relation.child_schemas.iter().any(|schema| schema == HYPERTABLE_CHUNKS);
        let way = match table.config.detect.unwrap_or(default) {
            Detect::Rows if !has_versions => Detect::Digest,
            way => way,
        };
        let attributes = row.and_then(|row| row.get::<_, Option<String>>("attributes")).unwrap_or_default();
        Detector { way, attributes }
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

/// What looking at a slice without reading it showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Rows of the whole table that lie in no day.
    pub outside_time: u64,
    /// What is compared with the published slice; absent where only reading tells.
    pub detected: Option<Detected>,
}

impl Question<'_> {
    /// Looks at the slice.
    ///
    /// # Errors
    /// The server's; class Integrity when rows lie in no day and `null-time` refuses them.
    pub fn look(&self, session: &mut Session) -> anyhow::Result<Look> {
        let outside_time = self.outside_time(session)?;
        let detected = match self.detector.way {
            Detect::Rows => self.asked(session, ROWS_AND_VERSIONS, 0)?,
            Detect::Count => self.asked(session, "count(*)::text", 0)?,
            Detect::Digest | Detect::Off => None,
        };
        Ok(Look { outside_time, detected })
    }

    /// What goes with a slice that is read, given what a look at it showed.
    ///
    /// # Errors
    /// As [`Question::look`].
    pub fn facts(&self, session: &mut Session, look: Option<Look>) -> anyhow::Result<SliceFacts> {
        let looked_at = look.is_some();
        let Look { outside_time, mut detected } = match look {
            Some(look) => look,
            None => Look { outside_time: self.outside_time(session)?, detected: None },
        };
        // One statement for both: without an index each of them reads the whole table.
        let (mut expressions, mut extent_columns) = (Vec::new(), 0);
        if let Some(extent) = self.table.extent_expressions() {
            expressions.push(extent);
            extent_columns = 2;
        }
        let asks_versions = self.detector.way == Detect::Rows && !looked_at;
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
                detected = Some(self.detected(row, extent_columns)?);
            }
        }
        Ok(SliceFacts { min_time, max_time, outside_time, detected })
    }

    /// What a slice that was read is compared by later. A count needs no question: the rows were counted as they came.
    pub fn keep(&self, detected: Option<Detected>, rows: u64) -> Option<Detected> {
        match self.detector.way {
            Detect::Rows => detected.filter(|detected| detected.rows == rows),
            Detect::Count => Some(Detected { rows, statement: self.statement(), versions: None }),
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

    fn asked(&self, session: &mut Session, expressions: &str, column: usize) -> anyhow::Result<Option<Detected>> {
        let rows = session.query(&self.select(expressions), &[])?;
        rows.first().map(|row| self.detected(row, column)).transpose()
    }

    /// Rows and, if there are any, versions, from `column` of a row on.
    fn detected(&self, row: &Row, column: usize) -> anyhow::Result<Detected> {
        Ok(Detected {
            rows: row.text(column)?.parse()?,
            statement: self.statement(),
            versions: row.get(column + 1).map(str::to_owned),
        })
    }

    /// What stands for the statement that gives the rows, and for the columns that it names.
    fn statement(&self) -> String {
        let select = self.table.select(self.all, self.zone, self.day, self.window);
        hex::encode(Sha256::digest(format!("{select}\n{}", self.detector.attributes)))
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
