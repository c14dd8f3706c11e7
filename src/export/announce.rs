//! What the source's columns are now and were not on the newest published day: replicas will hear of it, so the publisher
//! does first.

use serde::Serialize;

use super::run::{DayReport, Outcome};
use super::snapshot;
use crate::config::TableConfig;
use crate::day::Day;
use crate::feed::Feed;
use crate::head;
use crate::manifest::{Column, Manifest, Slice};
use crate::pg::Endpoint;
use crate::store::Store;
use crate::table::{self, SourceTable};

/// A column that is not what it was on the newest published day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnNews {
    /// `schema.table`
    pub table: String,
    /// The column.
    pub column: String,
    /// What became of it.
    pub news: News,
    /// The first day of this run that was published with it as it is now; absent where none was.
    pub from: Option<Day>,
}

/// What became of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// It is new, and published.
    New,
    /// It is new, and not published, as the table's `columns` do not name it.
    NotPublished,
    /// It is published no more.
    Gone,
    /// It has another type.
    Retyped,
}

impl ColumnNews {
    /// In one line, for people.
    pub fn line(&self) -> String {
        let ColumnNews { table, column, news, from } = self;
        let from = from.map_or_else(|| "the next published day on".to_owned(), |day| format!("{day} on"));
        match news {
            News::New => format!("{table} has a new column {column:?} (published from {from})"),
            News::NotPublished => {
                format!("{table} has a new column {column:?}, which is not in `columns`, so it is not published")
            }
            News::Gone => {
                format!("{table} no longer publishes column {column:?} (from {from}); replicas will ask about it")
            }
            News::Retyped => {
                format!("{table} publishes column {column:?} with another type (from {from}); replicas must take it")
            }
        }
    }
}

/// Holds the tables of the source against the newest published day.
pub fn compare(tables: &[SourceTable], newest: &Manifest) -> Vec<ColumnNews> {
    let mut all = Vec::new();
    for table in tables {
        let name = table.relation.qualified_name();
        let Some(slice) = newest.slices.iter().find(|slice| slice.qualified_name() == name) else { continue };
        all.extend(news_of(table, slice).into_iter().map(|(column, news)| ColumnNews {
            table: name.clone(),
            column: column.to_owned(),
            news,
            from: None,
        }));
    }
    all
}

fn news_of<'a>(table: &'a SourceTable, slice: &'a Slice) -> Vec<(&'a str, News)> {
    let published = |name: &str| slice.columns.iter().find(|column| column.name == name);
    let omitted = |name: &str| slice.omitted_columns.iter().any(|omitted| omitted == name);
    let generated = |name: &String| table.relation.column(name).is_some_and(|column| column.generated);
    let is_new = |name: &str| published(name).is_none() && !omitted(name);
    let carried = table.columns.iter().filter_map(|column: &Column| match published(&column.name) {
        Some(before) if before.type_of() != column.type_of() => Some((column.name.as_str(), News::Retyped)),
        Some(_) => None,
        // What `columns` names from now on is new as well.
        None => Some((column.name.as_str(), News::New)),
    });
    let left = table.omitted.iter().filter(|name| is_new(name) && !generated(name));
    let left = left.map(|name| (name.as_str(), News::NotPublished));
    let gone = slice.columns.iter().filter(|column| table.columns.iter().all(|now| now.name != column.name));
    carried.chain(left).chain(gone.map(|column| (column.name.as_str(), News::Gone))).collect()
}

/// The newest published day that has one of the tables, read by one request; `None` without one.
///
/// # Errors
/// The store's.
pub async fn newest(store: &dyn Store, feed: &Feed, tables: &[TableConfig]) -> anyhow::Result<Option<Manifest>> {
    let is_named = |name: &String| tables.iter().any(|table| format!("{}.{}", table.schema, table.name) == *name);
    match feed.days.iter().rev().find(|entry| entry.tables.keys().any(is_named)) {
        None => Ok(None),
        Some(entry) => Ok(Some(head::day_manifest(store, feed, entry).await?)),
    }
}

/// What is to be announced by an export that is about to begin. It is only told, so what keeps it from being found out is
/// left to the days to fail by.
pub(super) async fn read(
    source: &Endpoint,
    store: &dyn Store,
    feed: &Feed,
    tables: &[TableConfig],
) -> anyhow::Result<Vec<ColumnNews>> {
    let Some(newest) = newest(store, feed, tables).await? else { return Ok(Vec::new()) };
    let client = source.client().await?;
    let relations = snapshot::relations(&client, tables).await?;
    let resolved = table::resolve(tables, &relations).unwrap_or_default();
    Ok(compare(&resolved, &newest))
}

/// The same once the days are published.
pub(super) fn since(news: Vec<ColumnNews>, days: &[DayReport]) -> Vec<ColumnNews> {
    let first = days.iter().filter(|day| day.outcome == Outcome::Published).map(|day| day.day).min();
    news.into_iter().map(|news| ColumnNews { from: first, ..news }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::fixtures;

    #[test]
    fn each_kind_of_news_is_a_sentence() {
        let day = Some(fixtures::day("2024-05-02"));
        let line = |news: News, from: Option<Day>| {
            ColumnNews { table: "public.messages".into(), column: "x".into(), news, from }.line()
        };
        assert_eq!(line(News::New, day), "public.messages has a new column \"x\" (published from 2024-05-02 on)");
        assert!(line(News::New, None).ends_with("(published from the next published day on)"));
        assert!(line(News::NotPublished, day).ends_with("is not in `columns`, so it is not published"));
        assert!(line(News::Gone, day).contains("no longer publishes column \"x\""));
        assert!(line(News::Retyped, day).contains("with another type"));
    }
}
