//! The config's tables against the source's catalogs: which columns are read, and the SELECT of each slice. Pure.
//!
//! Every identifier in a SELECT comes from the catalogs, quoted; the only free text is the operator's own `where`.

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::config::{EpochUnit, Inheritance, NullTime, Reference, RelationKind, RowsRule, TableConfig};
use crate::day::{Day, Window, Zone, is_wall_clock, midnight};
use crate::manifest::{Column, SliceKind, TimeBounds, TimeKind};
use crate::pg::catalog::{self, CatalogColumn, RelKind, Relation};
use crate::pg::{quote_identifier, quote_literal, quote_qualified};

mod exceptions;
mod spans;

pub use exceptions::{conditions, exceptions};

/// Where TimescaleDB keeps the chunks of its hypertables: they inherit, and are the table's own rows.
pub(crate) const HYPERTABLE_CHUNKS: &str = "_timescaledb_internal";

/// A table of the dataset as the source has it.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// What the operator wrote.
    pub config: TableConfig,
    /// What the catalogs say.
    pub relation: Relation,
    /// The columns that are published, in order.
    pub columns: Vec<Column>,
    /// The columns that are not.
    pub omitted: Vec<String>,
    /// The columns of its key, empty if it has none.
    pub key: Vec<String>,
    /// Which rows belong to a day.
    pub rows: SourceRows,
}

/// Which rows belong to a day.
#[derive(Debug, Clone)]
pub enum SourceRows {
    /// Those whose time lies in the window.
    Time {
        /// The time column.
        column: String,
        /// Its kind.
        kind: TimeKind,
        /// The zone that a `timestamp` column is read in.
        zone: Option<Zone>,
        /// What to do with rows that have no place in time.
        null_time: NullTime,
        /// Whether such rows can exist at all.
        outside_time: OutsideTime,
    },
    /// All of them.
    All,
    /// Those that other slices of the day point to.
    Referenced(Vec<Reference>),
}

/// Which values of a time column lie in no day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutsideTime {
    /// None: an integer that is never NULL.
    None,
    /// NULL.
    Null,
    /// The infinities.
    Infinite,
    /// NULL and the infinities.
    NullOrInfinite,
}

/// Why a table of the config cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table}: {problem}")]
pub struct TableProblem {
    /// `schema.name`
    pub table: String,
    /// What is wrong, and what would mend it.
    pub problem: String,
}

/// Matches the configured tables with the source's relations; all problems at once.
///
/// # Errors
/// One problem per table that is missing, not of the stated kind, or whose configured columns do not fit.
pub fn resolve(tables: &[TableConfig], relations: &[Relation]) -> Result<Vec<SourceTable>, Vec<TableProblem>> {
    let mut problems = Vec::new();
    let mut resolved = Vec::new();
    for config in tables {
        let found = relations.iter().find(|relation| relation.schema == config.schema && relation.name == config.name);
        let outcome = match found {
            Some(relation) => resolve_one(config, relation),
            None => Err("is not in the source database, or its schema is not visible to this user".into()),
        };
        match outcome {
            Ok(table) => resolved.push(table),
            Err(problem) => {
                problems.push(TableProblem { table: format!("{}.{}", config.schema, config.name), problem });
            }
        }
    }
    for table in &resolved {
        if let SourceRows::Referenced(references) = &table.rows {
            problems.extend(references.iter().filter_map(|reference| check_reference(table, reference, &resolved)));
        }
    }
    if problems.is_empty() { Ok(resolved) } else { Err(problems) }
}

fn resolve_one(config: &TableConfig, relation: &Relation) -> Result<SourceTable, String> {
    check_kind(config, relation)?;
    let (columns, omitted) = published_columns(config, relation)?;
    let key = if config.key.is_empty() {
        let published = |key: &Vec<String>| key.iter().all(|name| columns.iter().any(|column| column.name == *name));
        relation.keys.iter().map(|key| catalog::names(key)).find(published).unwrap_or_default()
    } else {
        if let Some(stray) = config.key.iter().find(|name| !columns.iter().any(|column| column.name == **name)) {
            return Err(format!("key column {stray:?} is not among its published columns"));
        }
        config.key.clone()
    };
    let rows = match &config.rows {
        None => return Err("needs time-column, or rows = \"all\" or \"referenced\"".into()),
        Some(RowsRule::All) => SourceRows::All,
        Some(RowsRule::Referenced(references)) => SourceRows::Referenced(references.clone()),
        Some(RowsRule::Time { column, zone, epoch_unit, null_time }) => {
            let found = relation.column(column).ok_or_else(|| format!("has no column {column:?}"))?;
            let kind = time_kind(found, *zone, *epoch_unit)?;
            SourceRows::Time {
                column: column.clone(),
                kind,
                zone: *zone,
                null_time: *null_time,
                outside_time: match (may_be_null(found, relation.kind), kind.is_epoch()) {
                    (true, true) => OutsideTime::Null,
                    (false, true) => OutsideTime::None,
                    (true, false) => OutsideTime::NullOrInfinite,
                    (false, false) => OutsideTime::Infinite,
                },
            }
        }
    };
    Ok(SourceTable { config: config.clone(), relation: relation.clone(), columns, omitted, key, rows })
}

/// Only a table's own NOT NULL is enforced: a view has none, and a foreign table's is a mere declaration.
fn may_be_null(column: &CatalogColumn, kind: RelKind) -> bool {
    column.column.nullable || !matches!(kind, RelKind::Table | RelKind::Partitioned)
}

fn check_kind(config: &TableConfig, relation: &Relation) -> Result<(), String> {
    let (found, word) = match relation.kind {
        RelKind::Table | RelKind::Partitioned => (RelationKind::Table, "table"),
        RelKind::View => (RelationKind::View, "view"),
        RelKind::MaterializedView => (RelationKind::MaterializedView, "materialized-view"),
        RelKind::ForeignTable => (RelationKind::ForeignTable, "foreign-table"),
    };
    if found != config.relation {
        return Err(format!(
            "is a {}: state relation = \"{word}\" if that is what you mean to publish",
            word.replace('-', " ")
        ));
    }
    let chunks_only = relation.child_schemas.iter().all(|schema| schema == HYPERTABLE_CHUNKS);
    if config.inheritance == Inheritance::Unstated && !relation.children.is_empty() && !chunks_only {
        return Err(format!(
            "has tables that inherit from it ({}): state inheritance = \"only\" for its own rows, or \"include\" for theirs too",
            relation.children.join(", ")
        ));
    }
    Ok(())
}

fn published_columns(config: &TableConfig, relation: &Relation) -> Result<(Vec<Column>, Vec<String>), String> {
    if let Some(wanted) = &config.columns {
        for name in wanted {
            match relation.column(name) {
                None => return Err(format!("has no column {name:?}")),
                Some(column) if column.generated => {
                    return Err(format!(
                        "column {name:?} is generated: the replica computes it, so it is not published"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    let published = |column: &&CatalogColumn| {
        !column.generated && config.columns.as_ref().is_none_or(|wanted| wanted.contains(&column.column.name))
    };
    let (kept, left): (Vec<&CatalogColumn>, Vec<&CatalogColumn>) = relation.columns.iter().partition(published);
    if kept.is_empty() {
        return Err("has no column that could be published".into());
    }
    Ok((
        kept.into_iter().map(|column| column.column.clone()).collect(),
        left.into_iter().map(|column| column.column.name.clone()).collect(),
    ))
}

fn time_kind(column: &CatalogColumn, zone: Option<Zone>, unit: Option<EpochUnit>) -> Result<TimeKind, String> {
    let Column { name, type_schema, type_name, .. } = &column.column;
    if column.generated {
        return Err(format!("time column {name:?} is generated: the replica could not tell its rows' days apart"));
    }
    let base = if type_schema == "pg_catalog" { type_name.as_str() } else { "" };
    match (base, zone, unit) {
        ("timestamptz", None, None) => Ok(TimeKind::Timestamptz),
        ("timestamptz", Some(_), _) => Err(format!("time column {name:?} is timestamptz: it needs no column-timezone")),
        ("timestamp", Some(_), None) => Ok(TimeKind::Timestamp),
        ("timestamp", None, None) => {
            Err(format!("time column {name:?} is timestamp without time zone: state column-timezone"))
        }
        ("date", None, None) => Ok(TimeKind::Date),
        ("int2" | "int4" | "int8", None, Some(EpochUnit::Seconds)) => Ok(TimeKind::EpochSeconds),
        ("int2" | "int4" | "int8", None, Some(EpochUnit::Milliseconds)) => Ok(TimeKind::EpochMilliseconds),
        ("int2" | "int4" | "int8", None, Some(EpochUnit::Microseconds)) => Ok(TimeKind::EpochMicroseconds),
        ("int2" | "int4" | "int8", None, None) => Err(format!("time column {name:?} is an integer: state epoch-unit")),
        ("timestamp" | "timestamptz" | "date", _, Some(_)) => {
            Err(format!("time column {name:?} is no integer: it has no epoch-unit"))
        }
        ("date", Some(_), None) => Err(format!("time column {name:?} is a date: it needs no column-timezone")),
        _ => Err(format!(
            "time column {name:?} is of type {type_schema}.{type_name}: it must be timestamptz, timestamp, date or an integer"
        )),
    }
}

fn check_reference(table: &SourceTable, reference: &Reference, all: &[SourceTable]) -> Option<TableProblem> {
    let problem = |problem: String| Some(TableProblem { table: table.relation.qualified_name(), problem });
    let Some(from) = all.iter().find(|from| from.is(&reference.schema, &reference.table)) else {
        return None; // Its own problem was reported, or the config refused it.
    };
    let missing = reference.columns.iter().find(|name| from.relation.column(name).is_none());
    match missing {
        Some(name) => problem(format!("referenced-by: {} has no column {name:?}", from.relation.qualified_name())),
        None if reference.columns.len() != table.key.len() => {
            problem(format!("referenced-by names {} columns for a key of {}", reference.columns.len(), table.key.len()))
        }
        None => None,
    }
}

impl TimeKind {
    /// Its name in the published format.
    pub fn word(self) -> &'static str {
        match self {
            TimeKind::Timestamptz => "timestamptz",
            TimeKind::Timestamp => "timestamp",
            TimeKind::Date => "date",
            TimeKind::EpochSeconds => "epoch_seconds",
            TimeKind::EpochMilliseconds => "epoch_milliseconds",
            TimeKind::EpochMicroseconds => "epoch_microseconds",
        }
    }

    /// Is it the kind of a column of that type?
    pub fn is_of(self, column: &Column) -> bool {
        let own = if self.is_epoch() { &["int2", "int4", "int8"][..] } else { &[self.word()][..] };
        column.type_schema == "pg_catalog" && own.contains(&column.type_name.as_str())
    }

    fn is_epoch(self) -> bool {
        matches!(self, TimeKind::EpochSeconds | TimeKind::EpochMilliseconds | TimeKind::EpochMicroseconds)
    }

    /// A bound of this kind as a SQL value.
    fn literal(self, bound: &str) -> String {
        let quoted = quote_literal(bound);
        match self {
            TimeKind::Timestamptz => format!("{quoted}::pg_catalog.timestamptz"),
            TimeKind::Timestamp => format!("{quoted}::pg_catalog.timestamp"),
            TimeKind::Date => format!("{quoted}::pg_catalog.date"),
            TimeKind::EpochSeconds | TimeKind::EpochMilliseconds | TimeKind::EpochMicroseconds => {
                format!("{quoted}::pg_catalog.int8")
            }
        }
    }
}

const BOUND_FORMAT: &str = "%Y-%m-%d %H:%M:%S";

impl TimeBounds {
    /// The bounds of `day` for a column. A `timestamp` column in the dataset's own zone is bounded by its midnights;
    /// one in another zone by what that zone's clocks show at the window's ends.
    pub fn of(column: &str, kind: TimeKind, zone: Option<Zone>, dataset: Zone, day: Day, window: Window) -> TimeBounds {
        let bound = |instant: DateTime<Utc>, day: Day| match kind {
            TimeKind::Timestamptz => format!("{}+00", instant.format(BOUND_FORMAT)),
            TimeKind::Timestamp => {
                let zone = zone.unwrap_or(dataset);
                let local = if zone == dataset { midnight(day) } else { zone.local(instant) };
                local.format(BOUND_FORMAT).to_string()
            }
            TimeKind::Date => day.to_string(),
            TimeKind::EpochSeconds => instant.timestamp().to_string(),
            TimeKind::EpochMilliseconds => instant.timestamp_millis().to_string(),
            TimeKind::EpochMicroseconds => instant.timestamp_micros().to_string(),
        };
        TimeBounds {
            column: column.to_owned(),
            kind,
            zone: zone.map(|zone| zone.name().to_owned()),
            from: bound(window.start, day),
            to: bound(window.end, day.next()),
        }
    }

    /// `column >= from and column < to`, so that an index on the column serves it.
    pub fn predicate(&self) -> String {
        self.predicate_of("")
    }

    /// The same in a statement that calls the table `alias`.
    pub fn predicate_of(&self, alias: &str) -> String {
        let column = self.column_of(alias);
        format!("{column} >= {} and {column} < {}", self.kind.literal(&self.from), self.kind.literal(&self.to))
    }

    /// `column < from`: rows of earlier days.
    pub fn before(&self, alias: &str) -> String {
        format!("{} < {}", self.column_of(alias), self.kind.literal(&self.from))
    }

    fn column_of(&self, alias: &str) -> String {
        let dot = if alias.is_empty() { "" } else { "." };
        format!("{alias}{dot}{}", quote_identifier(&self.column))
    }

    /// Do the bounds belong to `day` and its `window`? A feed that says otherwise could make a replica delete other
    /// days. They are as [`TimeBounds::of`] writes them, so that PostgreSQL reads in them what is read here; only of
    /// wall clocks it is not asked which zone's they are.
    pub fn fit(&self, day: Day, window: Window) -> bool {
        if self.kind != TimeKind::Timestamp {
            return *self == TimeBounds::of(&self.column, self.kind, None, Zone::UTC, day, window);
        }
        let near = |bound: &str, instant: DateTime<Utc>| {
            NaiveDateTime::parse_from_str(bound, BOUND_FORMAT)
                .is_ok_and(|local| local.format(BOUND_FORMAT).to_string() == bound && is_wall_clock(local, instant))
        };
        near(&self.from, window.start) && near(&self.to, window.end)
    }
}

impl SourceTable {
    /// Is it the table of that name?
    pub fn is(&self, schema: &str, name: &str) -> bool {
        self.relation.schema == schema && self.relation.name == name
    }

    /// How its rows are chosen.
    pub fn kind(&self) -> SliceKind {
        match self.rows {
            SourceRows::Time { .. } => SliceKind::Time,
            SourceRows::All => SliceKind::All,
            SourceRows::Referenced(_) => SliceKind::Referenced,
        }
    }

    /// The bounds of its time column for a day; `None` for a reference table.
    pub fn bounds(&self, dataset: Zone, day: Day, window: Window) -> Option<TimeBounds> {
        match &self.rows {
            SourceRows::Time { column, kind, zone, .. } => {
                Some(TimeBounds::of(column, *kind, *zone, dataset, day, window))
            }
            SourceRows::All | SourceRows::Referenced(_) => None,
        }
    }

    /// Are rows of the window left out on purpose?
    pub fn is_filtered(&self) -> bool {
        // Rows without a time lie in no window: leaving them out leaves every window complete.
        self.config.filter.is_some()
    }

    /// Is a row in its slice because of its own values alone, so that it stays there until it is written again?
    pub fn rows_decide_alone(&self) -> bool {
        self.kind() == SliceKind::Time && !self.is_filtered()
    }

    /// The name in a FROM clause.
    fn relation_item(&self) -> String {
        let name = quote_qualified(&self.relation.schema, &self.relation.name);
        let chunks = !self.relation.children.is_empty() && self.config.inheritance == Inheritance::Unstated;
        let own_rows_only =
            self.relation.kind == RelKind::Table && self.config.inheritance != Inheritance::Include && !chunks;
        if own_rows_only { format!("only {name}") } else { name }
    }

    /// The lock that keeps the slice's rows in place while it is read; `None` where PostgreSQL has none.
    pub fn lockable(&self) -> Option<String> {
        match self.relation.kind {
            RelKind::Table | RelKind::Partitioned | RelKind::View => {
                Some(quote_qualified(&self.relation.schema, &self.relation.name))
            }
            RelKind::MaterializedView | RelKind::ForeignTable => None,
        }
    }

    /// The SELECT of its slice.
    pub fn select(&self, all: &[SourceTable], dataset: Zone, day: Day, window: Window) -> String {
        self.select_expressions(&self.column_list(), all, dataset, day, window)
    }

    /// The SELECT of those rows of its slice that lie within `span` and fulfil `condition`.
    pub fn select_span(&self, span: &TimeBounds, condition: Option<&str>) -> String {
        let conditions = [Some(span.predicate()), condition.map(str::to_owned)];
        self.select_where(&self.column_list(), conditions.into_iter().flatten().collect())
    }

    fn column_list(&self) -> String {
        self.columns.iter().map(|column| quote_identifier(&column.name)).collect::<Vec<_>>().join(", ")
    }

    /// The smallest and the largest time of a slice, as text; `None` for a reference table.
    pub fn extent_expressions(&self) -> Option<String> {
        let SourceRows::Time { column, .. } = &self.rows else { return None };
        let column = quote_identifier(column);
        Some(format!("min({column})::text, max({column})::text"))
    }

    /// The SELECT that counts the table's rows that lie in no day; `None` when there can be none.
    pub fn select_outside_time(&self) -> Option<String> {
        let SourceRows::Time { column, outside_time, .. } = &self.rows else { return None };
        let column = quote_identifier(column);
        let infinite = format!("{column} in ('infinity', '-infinity')");
        let condition = match outside_time {
            OutsideTime::None => return None,
            OutsideTime::Null => format!("{column} is null"),
            OutsideTime::Infinite => infinite,
            OutsideTime::NullOrInfinite => format!("({column} is null or {infinite})"),
        };
        Some(format!("select count(*)::text from {}{}", self.relation_item(), self.where_clause(vec![condition])))
    }

    /// The SELECT of `expressions` over the rows of its slice.
    pub fn select_expressions(
        &self,
        expressions: &str,
        all: &[SourceTable],
        dataset: Zone,
        day: Day,
        window: Window,
    ) -> String {
        let conditions = match &self.rows {
            SourceRows::All => Vec::new(),
            SourceRows::Time { .. } => {
                self.bounds(dataset, day, window).map(|bounds| bounds.predicate()).into_iter().collect()
            }
            SourceRows::Referenced(references) => {
                vec![self.referenced(references, all, dataset, day, window)]
            }
        };
        self.select_where(expressions, conditions)
    }

    fn select_where(&self, expressions: &str, conditions: Vec<String>) -> String {
        format!("select {expressions} from {}{}", self.relation_item(), self.where_clause(conditions))
    }

    /// `(key) in (select columns from the slices that point here)`; with `exists` where the key's type has an equality
    /// of its own, which `in` would not find.
    fn referenced(
        &self,
        references: &[Reference],
        all: &[SourceTable],
        dataset: Zone,
        day: Day,
        window: Window,
    ) -> String {
        let subqueries: Vec<String> = references
            .iter()
            .filter_map(|reference| {
                let from = all.iter().find(|table| table.is(&reference.schema, &reference.table))?;
                let columns: Vec<String> = reference.columns.iter().map(|name| quote_identifier(name)).collect();
                Some(from.select_expressions(&columns.join(", "), all, dataset, day, window))
            })
            .collect();
        let subqueries = subqueries.join(" union all ");
        let key: Vec<String> = self.key.iter().map(|name| quote_identifier(name)).collect();
        if !self.key.iter().any(|name| self.relation.own_equality.contains_key(name)) {
            return format!("({}) in ({subqueries})", key.join(", "));
        }
        let pointing: Vec<String> = (1..=key.len()).map(|place| format!("\"pgslice~{place}\"")).collect();
        let equal = |(name, (key, pointing)): (&String, (&String, &String))| match (
            self.relation.own_equality.get(name),
            self.relation.column(name),
        ) {
            (Some(equals), Some(CatalogColumn { column, .. })) => {
                format!("{pointing}::{} {equals} {key}", quote_qualified(&column.type_schema, &column.type_name))
            }
            _ => format!("{pointing} = {key}"),
        };
        let conditions: Vec<String> = self.key.iter().zip(key.iter().zip(&pointing)).map(equal).collect();
        format!(
            "exists (select from ({subqueries}) as pointing ({}) where {})",
            pointing.join(", "),
            conditions.join(" and ")
        )
    }

    fn where_clause(&self, mut conditions: Vec<String>) -> String {
        if let Some(filter) = &self.config.filter {
            // The line feed keeps a comment at the end of the operator's text from swallowing the parenthesis.
            conditions.push(format!("({filter}\n)"));
        }
        if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) }
    }
}

#[cfg(test)]
mod tests;
