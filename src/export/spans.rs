//! Large tables are cut into spans of time, so that several connections read one of them together.
//!
//! Spans are of equal length and many more than connections, each of which takes the next one when it is through with
//! its last: where a day's rows crowd into a few hours, the connections are busy until the end nevertheless. A table is
//! cut only if the server's planner expects the spans to cost clearly less than twice the whole; without an index on the
//! time column each of them would read the whole table.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::facts::Detector;
use crate::feed::Feed;
use crate::manifest::TimeBounds;
use crate::pg::PgError;
use crate::pg::catalog::RelKind;
use crate::table::SourceTable;

/// No span is expected to be smaller: connecting hands to it costs more than it spares.
const SPAN_BYTES: u64 = 16 << 20;
/// As many spans as a connection reads of a table that it shares with the others, if they all go on alike.
const SPANS_A_CONNECTION: u64 = 8;
/// How much more than the whole table's the cost of all spans may be, as a factor. The planner has scans by an index cost
/// more the less they read at once, a third more in what was measured; two spans that read the whole table cost twice.
const MOST_COST: f64 = 1.75;

/// What the server's planner expects of a statement.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    /// In the planner's unit.
    cost: f64,
    rows: u64,
    row_bytes: u64,
}

/// The spans of `bounds` that a slice is read in by at most `connections` together; one where it is read whole.
///
/// # Errors
/// The server's.
pub async fn cut(
    client: &Client,
    (table, detector): (&SourceTable, &Detector),
    bounds: &TimeBounds,
    feed: &Feed,
    connections: usize,
) -> Result<Vec<TimeBounds>, PgError> {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    let whole = vec![bounds.clone()];
    // Each connection would see other rows of a foreign table: no snapshot spans servers. A materialized view takes no
    // lock with the others, and to plan it would be to lock it.
    if connections < 2 || !detector.in_heaps || table.relation.kind == RelKind::MaterializedView {
        return Ok(whole);
    }
    let select = |span: &TimeBounds| table.select_span(span, detector.members.as_deref());
    let Some(expected) = estimate(client, &select(bounds)).await? else { return Ok(whole) };
    let spans = bounds.cut(most_spans(expected_bytes(expected, table, detector, feed), connections));
    if spans.len() < 2 {
        return Ok(whole);
    }
    let mut estimates = Vec::new();
    for span in &spans {
        let Some(estimate) = estimate(client, &select(span)).await? else { return Ok(whole) };
        estimates.push(estimate);
    }
    Ok(if is_worth_it(expected, &estimates) { spans } else { whole })
}

/// The planner knows little of a day that was filled since the last ANALYZE; the last published day tells more then.
fn expected_bytes(whole: Estimate, table: &SourceTable, detector: &Detector, feed: &Feed) -> u64 {
    let published = feed.days.last().and_then(|entry| entry.tables.get(&table.relation.qualified_name()));
    let rows = whole.rows.max(published.map_or(0, |slice| slice.rows));
    let row_bytes = whole.row_bytes.max(detector.row_bytes.unwrap_or(0));
    rows.saturating_mul(row_bytes).max(published.map_or(0, |slice| slice.bytes))
}

fn most_spans(bytes: u64, connections: u64) -> u32 {
    let spans = (bytes / SPAN_BYTES).min(connections.saturating_mul(SPANS_A_CONNECTION));
    u32::try_from(spans).unwrap_or(u32::MAX)
}

fn is_worth_it(whole: Estimate, spans: &[Estimate]) -> bool {
    spans.iter().map(|span| span.cost).sum::<f64>() <= whole.cost * MOST_COST
}

/// `None` where the server's plan says nothing that can be read.
async fn estimate(client: &Client, select: &str) -> Result<Option<Estimate>, PgError> {
    let messages = client.simple_query(&format!("explain (format json) {select}")).await?;
    let lines = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let json: String = lines.collect();
    Ok(parse(&json))
}

fn parse(json: &str) -> Option<Estimate> {
    let explained: serde_json::Value = serde_json::from_str(json).ok()?;
    let plan = explained.get(0)?.get("Plan")?;
    Some(Estimate {
        cost: plan.get("Total Cost")?.as_f64()?,
        rows: plan.get("Plan Rows")?.as_u64()?,
        row_bytes: plan.get("Plan Width")?.as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_cost(cost: f64) -> Estimate {
        Estimate { cost, rows: 1, row_bytes: 1 }
    }

    #[test]
    fn small_tables_stay_whole_and_large_ones_have_several_spans_a_connection() {
        let spans = |mebibytes: u64| most_spans(mebibytes << 20, 2);
        assert_eq!([0, 15, 16, 32, 100].map(spans), [0, 0, 1, 2, 6]);
        assert_eq!([256, 10_000, 1 << 40].map(spans), [16; 3]);
        assert_eq!(most_spans(u64::MAX, u64::MAX), u32::MAX);
    }

    #[test]
    fn spans_that_each_read_the_whole_table_are_not_worth_it() {
        assert!(is_worth_it(of_cost(100.0), &[of_cost(70.0), of_cost(70.0)]));
        assert!(!is_worth_it(of_cost(100.0), &[of_cost(100.0), of_cost(100.0)]));
    }

    #[test]
    fn what_explain_says_is_read() {
        let json = r#"[{"Plan": {"Node Type": "Index Scan", "Startup Cost": 0.42, "Total Cost": 36746.98,
            "Plan Rows": 200265, "Plan Width": 1268}}]"#;
        assert_eq!(parse(json), Some(Estimate { cost: 36746.98, rows: 200_265, row_bytes: 1_268 }));
        assert_eq!(parse("[]"), None);
    }
}
