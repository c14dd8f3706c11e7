//! `[[table]]`: each one for itself, then all of them together.

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use super::reader::{Document, Field, Section};
use super::{EpochUnit, Expectation, Inheritance, NullTime, Reference, RelationKind, RowsRule, TableConfig};
use crate::day::Zone;
use crate::manifest::SliceFormat;

/// A table as read, with the places that problems between tables are reported at.
struct Draft<'d, 't> {
    table: TableConfig,
    name: Field<'d, 't>,
    /// The references of [`RowsRule::Referenced`], each with its place.
    references: Vec<(Reference, Field<'d, 't>)>,
}

/// A column name in a list, with its place.
struct Column<'d, 't> {
    name: String,
    field: Field<'d, 't>,
}

/// What `rows` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    All,
    Referenced,
}

/// The tables of the dataset, in the order of the file. Every problem is recorded in `document`.
pub(super) fn read(document: &Document<'_>) -> Vec<TableConfig> {
    let sections = document.required_sections("table");
    let drafts: Vec<Draft<'_, '_>> = sections.iter().filter_map(read_table).collect();
    refuse_duplicates(&drafts);
    // A table whose name could not be read may be the one that a reference means.
    if drafts.len() == sections.len() {
        refuse_unknown_references(&drafts);
    }
    refuse_cycles(&drafts);
    drafts.into_iter().map(|draft| draft.table).collect()
}

/// One table; `None` when it has no usable name.
fn read_table<'d, 't>(section: &Section<'d, 't>) -> Option<Draft<'d, 't>> {
    let name = section.required("name", "name = \"messages\", or \"schema.table\"");
    let columns = section.field("columns").and_then(|field| column_list(&field));
    let key_field = section.field("key");
    let key = key_field.as_ref().and_then(column_list);
    if let (Some(columns), Some(key)) = (&columns, &key) {
        key.iter().for_each(|column| refuse_outside(columns, &column.name, &column.field));
    }
    let (rows, references) = rows_rule(section, columns.as_deref(), key_field.as_ref(), key.as_deref());
    let filter = section.field("where").and_then(|field| field.text());
    let compression_level = section.field("compression-level").and_then(|field| field.integer(1..=19));
    let format = section.field("format").and_then(|field| {
        field.choice(&[("text", SliceFormat::Text), ("csv", SliceFormat::Csv), ("binary", SliceFormat::Binary)])
    });
    let relation = section.field("relation").and_then(|field| {
        field.choice(&[
            ("table", RelationKind::Table),
            ("view", RelationKind::View),
            ("materialized-view", RelationKind::MaterializedView),
            ("foreign-table", RelationKind::ForeignTable),
        ])
    });
    let inheritance = section
        .field("inheritance")
        .and_then(|field| field.choice(&[("only", Inheritance::Only), ("include", Inheritance::Include)]));
    let detect = super::parse::detect(section);
    let expectation = Expectation {
        min_rows: section.field("min-rows").and_then(|field| field.integer(1..=1_000_000_000_000)),
        min_fraction: section.field("min-fraction").and_then(|field| field.fraction()),
    };

    let rename = section.field("rename").and_then(|field| renamed_columns(&field));
    let natural_key = section.field("natural-key").and_then(|field| column_list(&field));

    let name = name?;
    let (schema, table) = name.parsed("a table's name in quotes", names::table)?;
    let plain = |columns: Vec<Column<'_, '_>>| columns.into_iter().map(|column| column.name).collect::<Vec<_>>();
    let table = TableConfig {
        schema,
        name: table,
        rows,
        columns: columns.map(plain),
        filter: filter.map(str::to_owned),
        key: key.map(plain).unwrap_or_default(),
        compression_level,
        format: format.unwrap_or(SliceFormat::Text),
        relation: relation.unwrap_or(RelationKind::Table),
        inheritance: inheritance.unwrap_or(Inheritance::Unstated),
        detect,
        expectation,
        rename: rename.unwrap_or_default(),
        natural_key: natural_key.map(plain).unwrap_or_default(),
    };
    Some(Draft { table, name, references })
}

/// Which rows belong to a day, from `time-column` and what goes with it or `rows` and what goes with it. `key` is
/// `None` also where `key_field` could not be read.
fn rows_rule<'d, 't>(
    section: &Section<'d, 't>,
    columns: Option<&[Column<'_, '_>]>,
    key_field: Option<&Field<'_, '_>>,
    key: Option<&[Column<'_, '_>]>,
) -> (Option<RowsRule>, Vec<(Reference, Field<'d, 't>)>) {
    let time_column = section.field("time-column");
    let rows_field = section.field("rows");
    let referenced_by = section.field("referenced-by");
    let time = time_rule(section, time_column.as_ref(), columns);
    let rows =
        rows_field.as_ref().and_then(|field| field.choice(&[("all", Rows::All), ("referenced", Rows::Referenced)]));
    let references = referenced_by.as_ref().map(|field| reference_list(field, key)).unwrap_or_default();

    if let (Some(_), Some(field)) = (&time_column, &rows_field) {
        field.refuse("excludes time-column: a table's rows are chosen by their time or by rows, not by both");
    }
    match &rows_field {
        Some(field) if rows == Some(Rows::Referenced) => {
            if referenced_by.is_none() {
                field.refuse("needs referenced-by: the columns that point here, such as [\"messages.user_id\"]");
            }
            if key_field.is_none() {
                field.refuse("needs key: the columns that are pointed to, such as [\"id\"]");
            }
        }
        // A word that could not be read may have been meant as "referenced".
        Some(_) if rows.is_none() => {}
        _ => {
            if let Some(field) = &referenced_by {
                field.refuse("needs rows = \"referenced\" in the same table");
            }
        }
    }
    match rows {
        None => (time, Vec::new()),
        Some(Rows::All) => (Some(RowsRule::All), Vec::new()),
        Some(Rows::Referenced) => {
            let rule = references.iter().map(|(reference, _)| reference.clone()).collect();
            (Some(RowsRule::Referenced(rule)), references)
        }
    }
}

/// `time-column` and the keys that say how to read it.
fn time_rule(
    section: &Section<'_, '_>,
    time_column: Option<&Field<'_, '_>>,
    columns: Option<&[Column<'_, '_>]>,
) -> Option<RowsRule> {
    let zone_field = section.field("column-timezone");
    let unit_field = section.field("epoch-unit");
    let null_field = section.field("null-time");
    if time_column.is_none() {
        for field in [&zone_field, &unit_field, &null_field].into_iter().flatten() {
            field.refuse("needs time-column in the same table");
        }
    }
    if let (Some(zone), Some(unit)) = (&zone_field, &unit_field) {
        unit.refuse(format!(
            "excludes column-timezone (line {}): a number counts from 1970 in UTC, only a timestamp needs a zone",
            zone.line()
        ));
    }
    let zone = zone_field.and_then(|field| field.parsed("a time zone such as \"UTC\"", str::parse::<Zone>));
    let epoch_unit = unit_field.and_then(|field| {
        field.choice(&[("s", EpochUnit::Seconds), ("ms", EpochUnit::Milliseconds), ("us", EpochUnit::Microseconds)])
    });
    let null_time =
        null_field.and_then(|field| field.choice(&[("refuse", NullTime::Refuse), ("exclude", NullTime::Exclude)]));

    let time_column = time_column?;
    let column = time_column.parsed("a column's name in quotes", names::column)?;
    if let Some(columns) = columns {
        refuse_outside(columns, &column, time_column);
    }
    Some(RowsRule::Time { column, zone, epoch_unit, null_time: null_time.unwrap_or(NullTime::Refuse) })
}

/// The column names of a list; `None`, with the problems recorded, when any of them is wrong.
fn column_list<'d, 't>(list: &Field<'d, 't>) -> Option<Vec<Column<'d, 't>>> {
    let items = list.items()?;
    let count = items.len();
    let mut columns: Vec<Column<'d, 't>> = Vec::new();
    for field in items {
        let Some(name) = field.parsed("a column's name in quotes", names::column) else { continue };
        if columns.iter().any(|column| column.name == name) {
            field.refuse(format!("names the column {name:?} twice"));
        } else {
            columns.push(Column { name, field });
        }
    }
    (columns.len() == count).then_some(columns)
}

/// The names of the feed's columns with those of the replica's; `None`, with the problems recorded, when any is wrong.
fn renamed_columns(field: &Field<'_, '_>) -> Option<BTreeMap<String, String>> {
    let mut renamed = BTreeMap::new();
    let pairs = field.pairs("columns such as { username = \"agent_name\" }: the feed's, then the replica's")?;
    for (feeds, replicas) in pairs {
        // The name on the left is a key of the file, which is written as it is.
        let feeds =
            if feeds.is_empty() { Err("names a column without a name".to_owned()) } else { Ok(feeds.to_owned()) };
        match feeds.and_then(|feeds| Ok((feeds, names::column(replicas)?))) {
            Err(problem) => {
                field.refuse(problem);
                return None;
            }
            Ok((feeds, replicas)) if feeds == replicas => {
                field.refuse(format!("gives the column {feeds:?} its own name: leave it out"));
                return None;
            }
            Ok((_, replicas)) if renamed.values().any(|taken| *taken == replicas) => {
                field.refuse(format!("gives two columns the name {replicas:?}"));
                return None;
            }
            Ok((feeds, replicas)) => {
                renamed.insert(feeds, replicas);
            }
        }
    }
    Some(renamed)
}

/// The references of a list that can be read.
fn reference_list<'d, 't>(list: &Field<'d, 't>, key: Option<&[Column<'_, '_>]>) -> Vec<(Reference, Field<'d, 't>)> {
    let mut references: Vec<(Reference, Field<'d, 't>)> = Vec::new();
    for field in list.items().unwrap_or_default() {
        let Some(reference) = field.parsed("a reference in quotes, such as \"messages.user_id\"", names::reference)
        else {
            continue;
        };
        if let Some(key) = key.filter(|key| key.len() != reference.columns.len()) {
            field.refuse(format!(
                "names {} where key names {}: both must name the same columns in the same order",
                counted(reference.columns.len()),
                counted(key.len())
            ));
        }
        if references.iter().any(|(earlier, _)| *earlier == reference) {
            field.refuse("names the same columns twice");
        } else {
            references.push((reference, field));
        }
    }
    references
}

fn counted(columns: usize) -> String {
    if columns == 1 { "1 column".to_owned() } else { format!("{columns} columns") }
}

fn refuse_outside(columns: &[Column<'_, '_>], name: &str, field: &Field<'_, '_>) {
    if columns.iter().all(|column| column.name != name) {
        field.refuse(format!("names {name:?}, which is not among this table's columns: add it there"));
    }
}

/// A table as messages name it: as the file would, but for its quotes.
fn shown(schema: &str, table: &str) -> String {
    if schema == "public" {
        table.escape_debug().to_string()
    } else {
        format!("{schema}.{table}").escape_debug().to_string()
    }
}

fn refuse_duplicates(drafts: &[Draft<'_, '_>]) {
    let mut first_lines = BTreeMap::new();
    for Draft { table, name, .. } in drafts {
        match first_lines.get(&(&table.schema, &table.name)) {
            Some(line) => {
                name.refuse(format!("{} is configured already, at line {line}", shown(&table.schema, &table.name)))
            }
            None => {
                first_lines.insert((&table.schema, &table.name), name.line());
            }
        }
    }
}

fn refuse_unknown_references(drafts: &[Draft<'_, '_>]) {
    for (reference, field) in drafts.iter().flat_map(|draft| &draft.references) {
        if position(drafts, reference).is_none() {
            field.refuse(format!(
                "{} is not a table of this dataset: give it a [[table]] or remove it here",
                shown(&reference.schema, &reference.table)
            ));
        }
    }
}

fn position(drafts: &[Draft<'_, '_>], reference: &Reference) -> Option<usize> {
    drafts.iter().position(|draft| draft.table.schema == reference.schema && draft.table.name == reference.table)
}

/// Refuses tables that are carried by reference from each other in a circle: none of them could be read first.
fn refuse_cycles(drafts: &[Draft<'_, '_>]) {
    let sources: Vec<Vec<usize>> = drafts
        .iter()
        .map(|draft| draft.references.iter().filter_map(|(reference, _)| position(drafts, reference)).collect())
        .collect();
    let mut unresolved: BTreeSet<usize> = (0..drafts.len()).collect();
    loop {
        // A table is resolved when nothing that points to it is still unresolved; what then remains is circles, and
        // what hangs on them.
        let waits =
            |table: &usize, unresolved: &BTreeSet<usize>| sources[*table].iter().any(|s| unresolved.contains(s));
        let waiting: BTreeSet<usize> = unresolved.iter().copied().filter(|table| waits(table, &unresolved)).collect();
        if waiting.len() < unresolved.len() {
            unresolved = waiting;
            continue;
        }
        let Some(first) = unresolved.first().copied() else { return };
        let circle = circle_from(first, &sources, &unresolved);
        report_circle(drafts, &circle);
        unresolved.retain(|table| !circle.contains(table));
    }
}

/// A circle that is reached from `start`, in the order of the references, beginning with the table that comes first
/// in the file. Every table of `unresolved` has a source in it.
fn circle_from(start: usize, sources: &[Vec<usize>], unresolved: &BTreeSet<usize>) -> Vec<usize> {
    let mut path = vec![start];
    let mut table = start;
    while let Some(source) = sources[table].iter().copied().find(|source| unresolved.contains(source)) {
        if let Some(begin) = path.iter().position(|seen| *seen == source) {
            path.drain(..begin);
            break;
        }
        path.push(source);
        table = source;
    }
    let earliest = path.iter().enumerate().min_by_key(|(_, table)| **table).map_or(0, |(place, _)| place);
    path.rotate_left(earliest);
    path
}

fn report_circle(drafts: &[Draft<'_, '_>], circle: &[usize]) {
    let names: Vec<String> = circle
        .iter()
        .chain(circle.first())
        .map(|table| shown(&drafts[*table].table.schema, &drafts[*table].table.name))
        .collect();
    let next = circle.get(1).or(circle.first());
    let place = circle.first().and_then(|table| {
        drafts[*table].references.iter().find(|(reference, _)| position(drafts, reference) == next.copied())
    });
    if let Some((_, field)) = place {
        field.refuse(format!(
            "the tables refer to each other in a circle ({}): carry one of them whole, with rows = \"all\"",
            names.join(" ← ")
        ));
    }
}
