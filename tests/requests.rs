//! Cost follows the day, not the archive.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pgslice::day::Zone;
use pgslice::export::plan::Force;
use pgslice::feed::{DayEntry, Feed, ManifestRef};
use pgslice::layout::Key;
use pgslice::manifest::State;
use pgslice::store::Swap;

use crate::cluster;
use crate::in_process::{catchup, day, export, open};
use crate::scene::Scene;
use crate::store::faulty::{FaultyStore, Operation};

const TABLES: &str = "[export]\nlookback = \"0d\"\n[[table]]\nname = \"event\"\ntime-column = \"at\"\n";
const SCHEMA: &str = "create table event (id int primary key, at timestamptz not null)";

/// A feed that has had `count` days up to the end of April 2024 published already.
async fn publish_history(scene: &Scene, count: u64) {
    let store = open(scene).await;
    let (bytes, version) = store.read(&Key::feed(), 1 << 20).await.expect("read").expect("a feed");
    let mut feed = Feed::parse(&bytes).expect("a head");
    feed.days = (1..=count)
        .rev()
        .map(|back| {
            let past = day("2024-05-01").minus(back);
            let key = format!("{past}/r1-00000000/manifest.json").parse().expect("a key");
            DayEntry {
                day: past,
                revision: 1,
                state: State::Final,
                window: Zone::UTC.window(past),
                rows: 0,
                bytes: 0,
                tables: BTreeMap::new(),
                digest: String::new(),
                manifest: ManifestRef { key, sha256: "0".repeat(64) },
                taken: None,
            }
        })
        .collect();
    let swap = store.swap(&Key::feed(), Some(&version), Bytes::from(feed.to_bytes())).await.expect("swap");
    assert_eq!(swap, Swap::Done);
}

async fn requests_with(published_days: u64) -> (BTreeMap<Operation, u32>, BTreeMap<Operation, u32>) {
    let (source, replica) =
        (cluster::source().create_database("requests"), cluster::replica().create_database("requests"));
    source.psql(SCHEMA);
    source.psql("insert into event select n, timestamptz '2024-05-01 00:00Z' + n * interval '1 min' from generate_series(0, 999) n");
    replica.psql(SCHEMA);
    let scene = Scene::new(TABLES).source(&source).replica(&replica);
    // An empty feed, made by a day that has no rows and is forgotten again.
    export(&scene, open(&scene).await, day("2024-04-30"), Force::No).await.expect("a feed");
    publish_history(&scene, published_days).await;

    let exporting = FaultyStore::new(open(&scene).await);
    let report =
        export(&scene, Arc::<FaultyStore>::clone(&exporting), day("2024-05-01"), Force::No).await.expect("published");
    assert_eq!(report.days[0].rows, Some(1_000));
    let catching_up = FaultyStore::new(open(&scene).await);
    catchup(&scene, Arc::<FaultyStore>::clone(&catching_up), Some(day("2024-05-01"))).await.expect("applied");
    assert_eq!(replica.psql("select count(*) from event"), "1000");
    (exporting.requests(), catching_up.requests())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_and_a_catchup_ask_as_much_of_a_store_with_3650_days_as_of_an_empty_one() {
    let (export_of_first, catchup_of_first) = requests_with(0).await;
    let (export_of_last, catchup_of_last) = requests_with(3_650).await;
    // The figures in docs/performance.md.
    let exporting = [
        (Operation::Read, 4),
        (Operation::Create, 2),
        (Operation::Swap, 1),
        (Operation::Replace, 1),
        (Operation::Upload, 1),
        (Operation::Write, 1),
        (Operation::Finish, 1),
    ];
    assert_eq!(export_of_first, BTreeMap::from(exporting));
    assert_eq!(catchup_of_first, BTreeMap::from([(Operation::Read, 2), (Operation::ReadRange, 1)]));
    assert_eq!(export_of_first, export_of_last);
    assert_eq!(catchup_of_first, catchup_of_last);
}
