//! What keeps writers apart: advisory locks on the source, which end with the connection that holds them.

use std::time::Duration;

use anyhow::Context;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::day::Day;
use crate::error::{Class, Failure};
use crate::pg::{Endpoint, OwnClient, PgError, pooler};

/// How often a lock is tried, and how long to wait in between: two seconds in all. The server may take a moment to
/// notice that the connection of a run that has just ended is gone.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Stands for the dataset as a whole where a lock names a day.
const EVERY_DAY: i32 = i32::MIN;

/// Two exporters of one day exclude each other; different days never do. Held as long as `client` lives.
///
/// # Errors
/// Class Locked when another run holds it.
pub async fn day(client: &Client, dataset: &str, day: Day) -> anyhow::Result<()> {
    let day_key = i32::try_from(day.days_since(Day::EPOCH)).unwrap_or(i32::MAX);
    if take(client, dataset, day_key).await? {
        return Ok(());
    }
    Err(Failure::new(Class::Locked, format!("another run is exporting {day} of {dataset}"))
        .meaning("this run left the day alone")
        .next("wait for the other run; its lock ends with its connection to the source")
        .into())
}

/// For a store that cannot keep writers apart: the only writer of a dataset, as long as the connection that is
/// returned lives.
///
/// # Errors
/// Class Locked when another run holds it; the source's.
pub async fn dataset(source: &Endpoint, dataset: &str) -> anyhow::Result<OwnClient> {
    // Behind such a pool the lock would outlive this run.
    pooler::refuse_shared_sessions(source, "source").await?;
    let client = source.own_client().await.context("cannot connect to the source for the dataset's lock")?;
    if take(&client, dataset, EVERY_DAY).await? {
        return Ok(client);
    }
    Err(Failure::new(Class::Locked, format!("another run is writing to the store of {dataset}"))
        .meaning("this run changed nothing: with single-writer = true one run writes at a time")
        .next("wait for the other run; its lock ends with its connection to the source")
        .into())
}

async fn take(client: &Client, dataset: &str, day_key: i32) -> anyhow::Result<bool> {
    let name = Sha256::digest(format!("pgslice {dataset}").as_bytes());
    let dataset_key = i32::from_be_bytes([name[0], name[1], name[2], name[3]]);
    let sql = "select pg_catalog.pg_try_advisory_lock($1, $2)";
    for _ in 0..ATTEMPTS {
        let row = client.query_one(sql, &[&dataset_key, &day_key]).await.map_err(PgError::from)?;
        if row.get::<_, bool>(0) {
            return Ok(true);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(false)
}
