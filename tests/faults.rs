//! What a run does when the store refuses, forgets to answer, or answers wrongly, at every call that it makes.

use std::sync::Arc;

use pgslice::error::{Class, class_of};
use pgslice::export::Outcome;
use pgslice::export::plan::Force;
use pgslice::feed::Feed;
use pgslice::manifest::Manifest;
use sha2::{Digest, Sha256};

use crate::cluster::{self, Database};
use crate::in_process::{catchup, day, export, open};
use crate::place::Place;
use crate::scene::Scene;
use crate::store::faulty::{Calls, Fault, FaultyStore, Operation};

const TABLES: &str = r#"
[[table]]
name = "event"
time-column = "at"

[[table]]
name = "author"
rows = "referenced"
referenced-by = ["event.author_id"]
key = ["id"]
"#;

const SCHEMA: &str = "
create table author (id int primary key, name text not null);
create table event (id int primary key, at timestamptz not null, author_id int not null references author, body text);
create index on event (at);
";

const ROWS: &str = "
insert into author select n, 'author ' || n from generate_series(1, 5) n;
insert into event
select n, timestamptz '2024-05-01 00:00Z' + n * interval '40 min', 1 + n % 5, repeat('body ', n % 7) || n
from generate_series(0, 71) n;
";

fn source_and_replica() -> (Database, Database) {
    let (source, replica) = (cluster::source().create_database("faults"), cluster::replica().create_database("faults"));
    source.psql(SCHEMA);
    source.psql(ROWS);
    replica.psql(SCHEMA);
    (source, replica)
}

fn rows(database: &Database) -> String {
    database
        .psql("select (select md5(string_agg(e::text, '|' order by id)) from event e), (select count(*) from author)")
}

/// Follows feed.json: every manifest and part that it names is there and is what it should be. Returns the head.
pub(crate) fn consistent(place: &dyn Place) -> Feed {
    let sha256 = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    let feed = Feed::parse(&place.content("feed.json")).expect("a readable head");
    let retired = feed.retired.iter().filter(|entry| entry.deleted_at.is_none()).map(|entry| &entry.manifest);
    for reference in feed.days.iter().map(|entry| &entry.manifest).chain(retired) {
        let bytes = place.content(reference.key.as_str());
        assert_eq!(sha256(&bytes), reference.sha256, "{}", reference.key);
        let manifest = Manifest::parse(&bytes).expect("a readable manifest");
        for part in manifest.slices.iter().flat_map(|slice| &slice.parts) {
            let bytes = place.content(part.key.as_str());
            assert_eq!(bytes.len() as u64, part.stored_bytes, "{}", part.key);
            assert_eq!(sha256(&bytes), part.sha256, "{}", part.key);
        }
    }
    feed
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_the_store_fails_at_any_call_leaves_a_whole_feed() {
    let (source, _replica) = source_and_replica();
    let scene = Scene::new(TABLES).source(&source);
    let may_day = day("2024-05-01");
    export(&scene, open(&scene).await, may_day, Force::No).await.expect("a first revision");
    let mut struck = 0;
    for operation in [
        Operation::Read,
        Operation::Create,
        Operation::Swap,
        Operation::Replace,
        Operation::Upload,
        Operation::Write,
        Operation::Finish,
    ] {
        for fault in [Fault::FailBefore, Fault::LostAnswer, Fault::DeniedBefore] {
            for nth in 1.. {
                let before = consistent(&**scene.place());
                let store = FaultyStore::with(open(&scene).await, operation, Calls::Nth(nth), fault);
                let outcome = export(&scene, Arc::<FaultyStore>::clone(&store), may_day, Force::Yes).await;
                let after = consistent(&**scene.place());
                let named = || format!("{operation:?} {nth} {fault:?}");
                let (old, new) = (before.days[0].revision, after.days[0].revision);
                let published = outcome
                    .as_ref()
                    .is_ok_and(|report| report.days.iter().any(|day| day.outcome == Outcome::Published));
                if published {
                    assert_eq!(new, old + 1, "{}", named());
                } else if operation != Operation::Read {
                    // A read that fails after the swap leaves the run without a report, but the day stands.
                    assert_eq!(new, old, "{}: failed, but visible", named());
                }
                // One lost answer is never the end of a day.
                if fault == Fault::LostAnswer
                    && matches!(operation, Operation::Create | Operation::Swap | Operation::Finish)
                {
                    assert!(published, "{}: {outcome:?}", named());
                }
                if store.struck().is_empty() {
                    assert!(published, "{}", named());
                    break;
                }
                struck += 1;
            }
        }
    }
    assert!(struck > 20, "only {struck} faults struck");
    let healed = export(&scene, open(&scene).await, may_day, Force::No).await.expect("a healthy store");
    assert_eq!(healed.days[0].outcome, Outcome::Unchanged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stays_away_after_the_parts_publishes_nothing() {
    let (source, _replica) = source_and_replica();
    let scene = Scene::new(TABLES).source(&source);
    let store = FaultyStore::new(open(&scene).await);
    store.fault(Operation::Swap, Calls::From(2), Fault::DeniedBefore);
    let report = export(&scene, store, day("2024-05-01"), Force::No).await;
    assert!(report.is_err() || report.is_ok_and(|report| report.days[0].outcome == Outcome::Failed));
    assert!(consistent(&**scene.place()).days.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catchup_that_reads_wrong_bytes_at_any_call_changes_nothing_and_the_next_one_does() {
    let (source, replica) = source_and_replica();
    let scene = Scene::new(TABLES).source(&source).replica(&replica);
    export(&scene, open(&scene).await, day("2024-05-01"), Force::No).await.expect("published");
    let empty = rows(&replica);
    let mut struck = 0;
    for operation in [Operation::Read, Operation::ReadRange] {
        for fault in [Fault::TruncateRead, Fault::FlipRead, Fault::DeniedBefore] {
            // The head is the one object that nothing vouches for: its last byte is a line end.
            let first = if operation == Operation::Read && fault != Fault::DeniedBefore { 2 } else { 1 };
            for nth in first.. {
                let store = FaultyStore::with(open(&scene).await, operation, Calls::Nth(nth), fault);
                let outcome = catchup(&scene, Arc::<FaultyStore>::clone(&store), None).await;
                if store.struck().is_empty() {
                    break;
                }
                struck += 1;
                assert!(outcome.is_err(), "{operation:?} {nth} {fault:?} went unnoticed");
                assert_eq!(rows(&replica), empty, "{operation:?} {nth} {fault:?}");
                let ledger = replica.try_psql("select count(*) from pgslice.ledger");
                assert!(ledger.is_err() || ledger == Ok("0".to_owned()), "{ledger:?}");
            }
            if rows(&replica) != empty {
                // The run in which nothing struck loaded the day: begin anew.
                replica.psql("truncate author, event; drop schema pgslice cascade");
            }
        }
    }
    assert!(struck >= 10, "only {struck} faults struck");
    let transient = FaultyStore::with(open(&scene).await, Operation::ReadRange, Calls::Nth(1), Fault::FailBefore);
    let failed = catchup(&scene, transient, None).await.expect_err("a store repeats by itself what is worth it");
    assert_eq!(class_of(&failed), Class::Transient);
    catchup(&scene, open(&scene).await, None).await.expect("the next run goes on");
    assert_eq!(replica.psql("select count(*) from event"), "36");
}
