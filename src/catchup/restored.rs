//! What a replica was restored from: kept beside the ledger, as long as the restored tables are there.
//!
//! Rows of a restored table are the source's own, as of the dump. So the run that is told adopts days that the dump
//! contains unread ([`Restored::is_adopted_unread`]); every later one looks, as rows may be gone since. And a window that is met for the first time, and that the dump reaches into, is revised instead of flagged: see
//! [`Restored::standing`] and [`Restored::reaches_into`]. A day that was adopted so is read once when the source was read
//! again and the day is still the same: the dump may hold what was changed and changed back. A table that was made anew since (another oid) was not restored.

use std::collections::BTreeMap;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Client;

use super::ledger::Ledger;
use super::plan::Accepted;
use crate::day::Window;
use crate::error::{Class, Failure};
use crate::feed::{DayEntry, DumpMoment, Feed, Standing};
use crate::figures::human_instant;
use crate::layout::Key;
use crate::manifest::Taken;
use crate::pg::catalog::Relation;
use crate::pg::{PgError, quote_qualified};

/// How far a time that the caller states may be ahead of this machine's clock.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(60);

/// What the caller says that the replica was restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoredFrom {
    /// `--restored-from`: a full dump of the feed.
    Recorded(Key),
    /// `--taken-at`: a dump that the feed does not know, which was begun then.
    BegunAt(DateTime<Utc>),
}

/// The dump that a table was restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its name in the feed; `None` for one that the feed did not know.
    pub key: Option<Key>,
    /// What it contains.
    pub moment: DumpMoment,
    /// Who was told.
    pub told: ToldTo,
}

/// Which run was told that a table was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldTo {
    /// This one: the caller vouches for the rows that are there now.
    ThisRun,
    /// An earlier one: rows may be gone since.
    EarlierRun,
}

/// The restored tables of a replica, as `schema.table`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored(BTreeMap<String, Origin>);

impl Restored {
    /// What `table` was restored from.
    pub fn origin(&self, table: &str) -> Option<&Origin> {
        self.0.get(table)
    }

    /// How a day that was read at `taken` stands to what `table` was restored from; `None` for a table that was not.
    pub fn standing(&self, table: &str, taken: &Taken) -> Option<Standing> {
        self.origin(table).map(|origin| origin.moment.standing_of(taken))
    }

    /// May `table` be taken to hold what its dump contains, without a look?
    pub fn is_adopted_unread(&self, table: &str) -> bool {
        self.origin(table).is_some_and(|origin| origin.told == ToldTo::ThisRun)
    }

    /// Is a window that was taken over from a dump, when its day had been read at `held`, to be read now that the day was
    /// read again at `taken`? The dump may hold what came after `held` and was gone before `taken`.
    pub fn is_to_be_read(&self, table: &str, held: &Taken, taken: &Taken) -> bool {
        let standing = |taken: &Taken| self.standing(table, taken);
        standing(taken) == Some(Standing::After) && standing(held) != Some(Standing::After)
    }

    /// Can rows of `window` in `table` have come from a dump?
    pub fn reaches_into(&self, table: &str, window: Window) -> bool {
        self.origin(table).is_some_and(|origin| window.start <= origin.moment.taken_at)
    }
}

/// What is known of a replica: what earlier runs kept, and what this one is told.
#[derive(Debug, Default)]
pub struct Told {
    /// All of it.
    pub restored: Restored,
    /// The tables that this run is told of, with their oids: to be kept.
    pub new: Vec<(String, u32)>,
}

/// Reads what earlier runs kept of the tables that are there now.
///
/// # Errors
/// The server's; rows that are not of this table's making.
pub async fn read(client: &Client, feed_id: &str, accepted: &Accepted) -> anyhow::Result<Restored> {
    let exists = "select pg_catalog.to_regclass('pgslice.restored') is not null";
    if !client.query_one(exists, &[]).await.map_err(PgError::from)?.get::<_, bool>(0) {
        return Ok(Restored::default());
    }
    let rows = client.query(include_str!("../../sql/restored_rows.sql"), &[&feed_id]).await.map_err(PgError::from)?;
    let mut restored = BTreeMap::new();
    for row in rows {
        let table: String = row.get("table_name");
        if accepted.get(&table) != Some(&row.get::<_, u32>("table_oid")) {
            continue;
        }
        let taken_at: DateTime<Utc> = row.get("taken_at");
        let taken = match row.get::<_, Option<String>>("snapshot") {
            None => None,
            Some(snapshot) => Some(Taken {
                exported_at: taken_at,
                snapshot,
                lsn: row.get("lsn"),
                system_identifier: row.get("system_identifier"),
                timeline: u32::try_from(row.get::<_, i64>("timeline"))?,
            }),
        };
        let key = row.get::<_, Option<String>>("dump_key").map(|key| Key::stream(&key)).transpose()?;
        let moment = DumpMoment { taken_at, taken, from_standby: row.get("from_standby") };
        restored.insert(table, Origin { key, moment, told: ToldTo::EarlierRun });
    }
    Ok(Restored(restored))
}

/// Adds what this run is told to what is known. Nothing is written.
///
/// # Errors
/// Class Usage for a dump that the feed does not know, a time that has not come, tables that follow the feed already,
/// and tables that nothing was restored into.
pub async fn tell(
    client: &Client,
    feed: &Feed,
    ledger: &Ledger,
    relations: &[Relation],
    known: Restored,
    from: Option<&RestoredFrom>,
    now: DateTime<Utc>,
) -> anyhow::Result<Told> {
    let Some(from) = from else { return Ok(Told { restored: known, new: Vec::new() }) };
    let (origin, covers) = origin(feed, from, now)?;
    let follows = |relation: &Relation| {
        let name = relation.qualified_name();
        ledger.iter().any(|((_, table), held)| *table == name && held.table_oid == relation.oid)
    };
    let new: Vec<&Relation> = relations.iter().filter(|relation| !follows(relation)).collect();
    if new.is_empty() {
        return Err(follow_already(feed, relations).into());
    }
    let mut told = Told { restored: known, new: Vec::new() };
    for relation in new {
        let name = relation.qualified_name();
        if !covers.is_empty() && !covers.contains(&name) {
            tracing::warn!("{name} was not locked for the dump: its days are looked at as those of any other table");
            continue;
        }
        refuse_empty(client, feed, relation, &origin).await?;
        told.restored.0.insert(name.clone(), origin.clone());
        told.new.push((name, relation.oid));
    }
    Ok(told)
}

/// Windows that were taken over from a dump, and whose days were read again since then, match no manifest until they
/// are read: see [`Restored::is_to_be_read`].
pub fn find_read_since(feed: &Feed, restored: &Restored, ledger: &mut Ledger) {
    for ((day, table), held) in ledger {
        let Some(entry) = feed.day(*day) else { continue };
        if entry.taken.as_ref().is_some_and(|taken| restored.is_to_be_read(table, &held.taken, taken)) {
            held.manifest_sha256.clear();
        }
    }
}

/// Keeps what this run was told, before anything of it is used.
///
/// # Errors
/// The server's: the first time the role needs CREATE on the schema pgslice.
pub async fn keep(client: &mut Client, feed_id: &str, told: &Told) -> anyhow::Result<()> {
    if told.new.is_empty() {
        return Ok(());
    }
    let transaction = client.transaction().await.map_err(PgError::from)?;
    transaction.batch_execute(include_str!("../../sql/restored.sql")).await.map_err(PgError::from)?;
    for (table, oid) in &told.new {
        let Some(Origin { key, moment, .. }) = told.restored.origin(table) else { continue };
        let key = key.as_ref().map(Key::as_str);
        let taken = moment.taken.as_ref();
        let snapshot = taken.map(|taken| taken.snapshot.as_str());
        let lsn = taken.map(|taken| taken.lsn.as_str());
        let system_identifier = taken.map(|taken| taken.system_identifier.as_str());
        let timeline = taken.map(|taken| i64::from(taken.timeline));
        transaction
            .execute(
                include_str!("../../sql/restored_write.sql"),
                &[
                    &feed_id,
                    table,
                    oid,
                    &key,
                    &moment.taken_at,
                    &snapshot,
                    &lsn,
                    &system_identifier,
                    &timeline,
                    &moment.from_standby,
                ],
            )
            .await
            .map_err(PgError::from)?;
    }
    Ok(transaction.commit().await.map_err(PgError::from)?)
}

/// The dump that is meant, and the tables that it was locked for (none: not known, so all).
fn origin<'a>(feed: &'a Feed, from: &RestoredFrom, now: DateTime<Utc>) -> Result<(Origin, &'a [String]), Failure> {
    match from {
        RestoredFrom::Recorded(key) => match feed.full_dump(key) {
            Some(dump) => {
                let (key, moment) = (Some(key.clone()), dump.moment.clone());
                Ok((Origin { key, moment, told: ToldTo::ThisRun }, &dump.tables))
            }
            None => Err(unknown_dump(feed, key)),
        },
        RestoredFrom::BegunAt(taken_at) if *taken_at > now + CLOCK_SKEW => {
            Err(Failure::new(Class::Usage, format!("--taken-at {} has not come yet", human_instant(*taken_at)))
                .meaning("nothing was applied")
                .next("say when the dump was begun: days that it lacks would count as contained"))
        }
        RestoredFrom::BegunAt(taken_at) => {
            let moment = DumpMoment::at(*taken_at);
            Ok((Origin { key: None, moment, told: ToldTo::ThisRun }, &[]))
        }
    }
}

fn unknown_dump(feed: &Feed, key: &Key) -> Failure {
    let known: Vec<&str> = feed.full_dumps.iter().map(|dump| dump.key.as_str()).collect();
    let next = match known.as_slice() {
        [] => "the feed records none; for a dump from elsewhere say with --taken-at when it was begun".to_owned(),
        known => format!("the feed records {}", known.join(", ")),
    };
    Failure::new(Class::Usage, format!("{key} is not among the feed's full dumps"))
        .meaning("nothing was applied")
        .next(next)
}

fn follow_already(feed: &Feed, relations: &[Relation]) -> Failure {
    let names: Vec<String> = relations.iter().map(Relation::qualified_name).collect();
    Failure::new(Class::Usage, format!("these tables already follow the feed: {}", names.join(", ")))
        .meaning("nothing was applied: what they were restored from is said once, by the first catchup after it")
        .next(format!(
            "run `pgslice catchup` without it; if they were emptied and restored in place, first run: delete from \
             pgslice.ledger where feed_id = {}",
            crate::pg::quote_literal(&feed.feed_id)
        ))
}

/// Days would be adopted unread into a table that nobody filled.
async fn refuse_empty(client: &Client, feed: &Feed, relation: &Relation, origin: &Origin) -> anyhow::Result<()> {
    let name = relation.qualified_name();
    let has_rows = |entry: &&DayEntry| {
        origin.moment.standing_of_entry(entry) == Standing::Contained
            && entry.tables.get(&name).is_some_and(|table| table.rows > 0)
    };
    let Some(day) = feed.days.iter().find(has_rows) else { return Ok(()) };
    let sql = format!("select exists (select from {})", quote_qualified(&relation.schema, &relation.name));
    let row = client.query_one(&sql, &[]).await.map_err(PgError::from);
    if row.with_context(|| format!("cannot read {name}"))?.get(0) {
        return Ok(());
    }
    Err(Failure::new(
        Class::Usage,
        format!("{name} is empty on the replica, but {} has rows of it, and the dump contains that day", day.day),
    )
    .meaning("nothing was applied: days would have been taken for present that are not")
    .next("restore the dump first; if it truly holds no row of the table, run catchup without saying what it was restored from")
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::FullDump;
    use crate::retention::fixtures::{empty_feed, full_dump, instant};

    const NOW: &str = "2024-05-03T00:20:00Z";

    fn feed() -> Feed {
        let dump = FullDump { tables: vec!["public.messages".into()], ..full_dump("full/a.dump", NOW) };
        Feed { full_dumps: vec![dump], ..empty_feed() }
    }

    #[test]
    fn a_dump_that_the_feed_does_not_record_is_refused_with_those_that_it_does() {
        let key = Key::stream("full/b.dump").expect("a stream");
        let failure = origin(&feed(), &RestoredFrom::Recorded(key.clone()), instant(NOW)).expect_err("unknown");
        assert_eq!(failure.class, Class::Usage);
        assert_eq!(failure.next.as_deref(), Some("the feed records full/a.dump"));
        let failure = origin(&empty_feed(), &RestoredFrom::Recorded(key), instant(NOW)).expect_err("unknown");
        assert!(failure.next.expect("advice").contains("--taken-at"));
    }

    #[test]
    fn a_recorded_dump_stands_for_the_tables_that_were_locked_for_it() {
        let feed = feed();
        let key = Key::stream("full/a.dump").expect("a stream");
        let (known, covers) = origin(&feed, &RestoredFrom::Recorded(key), instant(NOW)).expect("recorded");
        assert_eq!((known.moment, covers), (DumpMoment::at(instant(NOW)), &["public.messages".to_owned()][..]));
    }

    #[test]
    fn a_dump_that_was_begun_in_the_future_is_refused() {
        let begun = |at: &str| origin(&feed(), &RestoredFrom::BegunAt(instant(at)), instant(NOW)).map(|_| ());
        assert!(begun("2024-05-03T00:20:30Z").is_ok());
        assert_eq!(begun("2024-05-04T00:00:00Z").expect_err("later").class, Class::Usage);
    }

    #[test]
    fn only_windows_that_begin_before_the_dump_can_hold_rows_of_it() {
        let origin = Origin { key: None, moment: DumpMoment::at(instant(NOW)), told: ToldTo::EarlierRun };
        let restored = Restored(BTreeMap::from([("public.messages".to_owned(), origin)]));
        let window = |day: &str| crate::day::Zone::UTC.window(day.parse().expect("a day"));
        assert!(restored.reaches_into("public.messages", window("2024-05-03")));
        assert!(!restored.reaches_into("public.messages", window("2024-05-04")));
        assert!(!restored.reaches_into("public.users", window("2024-05-01")));
    }
}
