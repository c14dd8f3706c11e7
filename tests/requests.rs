//! Cost follows the day, not the archive.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pgslice::export::plan::Force;
use pgslice::feed::Feed;
use pgslice::layout::{Key, sums_beside};
use pgslice::retention::{self, Mode};
use pgslice::store::{Access, SharedStore};

use crate::cluster;
use crate::in_process::{catchup, config, day, export, open};
use crate::long_history::{TABLES as OF_HISTORY, create_all, head, history, publish_head};
use crate::s3_server::StrictS3;
use crate::scene::Scene;
use crate::store::faulty::{FaultyStore, Operation};
use crate::store::s3::{opened, prefix_of};

const TABLES: &str = "[export]\nlookback = \"0d\"\n[[table]]\nname = \"event\"\ntime-column = \"at\"\n";
const SCHEMA: &str = "create table event (id int primary key, at timestamptz not null)";

type Requests = BTreeMap<Operation, u32>;

/// What an export of one day, its catchup, and one with nothing to do ask of a store that `open` opens and that has had
/// so many days published already.
async fn requests_with(published_days: u64, open: impl AsyncFn(&Scene) -> SharedStore) -> [Requests; 3] {
    let (source, replica) =
        (cluster::source().create_database("requests"), cluster::replica().create_database("requests"));
    source.psql(SCHEMA);
    source.psql("insert into event select n, timestamptz '2024-05-01 00:00Z' + n * interval '1 min' from generate_series(0, 999) n");
    replica.psql(SCHEMA);
    let scene = Scene::new(TABLES).source(&source).replica(&replica);
    // An empty feed, made by a day that has no rows and is forgotten again.
    let store = open(&scene).await;
    export(&scene, Arc::clone(&store), day("2024-04-30"), Force::No).await.expect("a feed");
    let (feed, _) = history(head(&store).await, day("2024-04-30"), published_days);
    publish_head(&store, &feed).await;

    let exporting = FaultyStore::new(open(&scene).await);
    let report =
        export(&scene, Arc::<FaultyStore>::clone(&exporting), day("2024-05-01"), Force::No).await.expect("published");
    assert_eq!(report.days[0].rows, Some(1_000));
    let catching_up = FaultyStore::new(open(&scene).await);
    catchup(&scene, Arc::<FaultyStore>::clone(&catching_up), Some(day("2024-05-01"))).await.expect("applied");
    assert_eq!(replica.psql("select count(*) from event"), "1000");
    // The history is of other tables: nothing is pending, and nothing new comes.
    let idle = FaultyStore::new(open(&scene).await);
    catchup(&scene, Arc::<FaultyStore>::clone(&idle), None).await.expect("nothing new");
    [exporting, catching_up, idle].map(|store| store.requests())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_and_a_catchup_ask_as_much_of_a_store_with_3650_days_as_of_an_empty_one() {
    let first = requests_with(0, open).await;
    let last = requests_with(3_650, open).await;
    // The figures in docs/performance.md.
    let exporting = [
        (Operation::Read, 3),
        (Operation::Create, 2),
        (Operation::Swap, 1),
        (Operation::Replace, 1),
        (Operation::Upload, 1),
        (Operation::Write, 1),
        (Operation::Finish, 1),
    ];
    let catching_up = [(Operation::Read, 2), (Operation::ReadRange, 1)];
    let idle = [(Operation::Read, 1)];
    assert_eq!(first, [BTreeMap::from(exporting), BTreeMap::from(catching_up), BTreeMap::from(idle)]);
    assert_eq!(first, last);
}

/// How often each operation is in the record of a server.
fn operations(lines: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line.split(' ').next().expect("an operation").to_owned()).or_default() += 1;
    }
    counts
}

/// What all of [`requests_with`] asks of a server of its own with so many objects of others.
async fn operations_with(published_days: u64, foreign_objects: &str) -> BTreeMap<String, usize> {
    let server = StrictS3::start(&["--foreign-objects", foreign_objects]);
    let config = prefix_of(&server);
    requests_with(published_days, async |_: &Scene| opened(&server, &config, Access::ReadWrite).await.expect("opened"))
        .await;
    operations(&server.recorded())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_asked_as_much_with_3650_days_and_100000_objects_of_others_as_when_it_was_new() {
    let of_new = operations_with(0, "0").await;
    assert_eq!(operations_with(3_650, "100000").await, of_new);
    assert!(of_new.keys().all(|operation| !operation.starts_with("List")), "{of_new:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_of_3650_days_down_to_15_reads_each_manifest_once_lists_nothing_and_deletes_a_thousand_at_a_time() {
    let server = StrictS3::start(&["--foreign-objects", "1000"]);
    let store = opened(&server, &prefix_of(&server), Access::ReadWrite).await.expect("opened");
    let scene = Scene::in_folder(&format!("[retention]\nkeep = \"15d\"\ngrace = \"0s\"\n{TABLES}"));
    let (rules, now) = (config(&scene).retention.clone(), chrono::Utc::now());
    let feed = Feed::empty("f".repeat(32), "scene".into(), "UTC".into(), "a".repeat(32), now);
    let (feed, records) = history(feed, day("2024-05-01"), 3_650);
    publish_head(&store, &feed).await;
    let (gone, kept) = records.split_at(3_635);
    // Objects that are there of every day, and all of the first and the last that go, and of one that stays.
    let manifests = gone.iter().map(|(reference, manifest)| (reference.key.clone(), manifest.to_bytes().into()));
    create_all(&store, manifests).await;
    for (reference, manifest) in [&gone[0], &gone[3_634], &kept[0]] {
        let others = manifest.part_keys().cloned().chain([sums_beside(&reference.key)]);
        create_all(&store, others.map(|key| (key, Bytes::from_static(b"rows")))).await;
    }
    let asked = |since: usize| operations(&server.recorded()[since..]);

    let begun = server.recorded().len();
    let released = retention::prune(&store, &rules, now, Mode::Apply).await.expect("let go");
    assert_eq!((released.released.len(), released.kept.len()), (3_635, 15));
    let counts = |counts: &[(&str, usize)]| -> BTreeMap<String, usize> {
        counts.iter().map(|(operation, count)| ((*operation).to_owned(), *count)).collect()
    };
    assert_eq!(asked(begun), counts(&[("GetObject", 2), ("PutObject", 2)]));

    let begun = server.recorded().len();
    let pruned = retention::prune(&store, &rules, now + chrono::TimeDelta::seconds(1), Mode::Apply).await;
    let pruned = pruned.expect("deleted");
    assert_eq!(pruned.deleted_objects, 3_635 * (OF_HISTORY.len() as u64 + 2));
    // 200 days have 1,000 parts; parts, checksums and manifests go one after the other.
    let deletions = 3 * 3_635_usize.div_ceil(200);
    assert_eq!(asked(begun), counts(&[("GetObject", 1 + 3_635 + 1), ("DeleteObjects", deletions), ("PutObject", 2)]));
    let left: Vec<Key> =
        store.list().await.expect("listed").into_iter().filter(|key| *key != Key::write_test()).collect();
    let mut expected = vec![Key::feed(), Key::index(), sums_beside(&kept[0].0.key)];
    expected.extend(kept[0].1.part_keys().cloned());
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(server.list("foreign/").len(), 1_000);
    assert_eq!(head(&store).await.days.len(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_deletes_one_object_at_a_time_is_asked_so() {
    let server = StrictS3::start(&["--delete-singly"]);
    let store = opened(&server, &prefix_of(&server), Access::ReadWrite).await.expect("opened");
    let keys: Vec<Key> =
        (0..20).map(|number| format!("2024-05-01/r1-aa/part{number}").parse().expect("a key")).collect();
    for _ in 0..2 {
        create_all(&store, keys.iter().map(|key| (key.clone(), Bytes::from_static(b"rows")))).await;
        store.delete(&keys).await.expect("deleted");
        assert!(store.read(&keys[19], 100).await.expect("an answer").is_none());
    }
    // It is remembered that there is no other way.
    let asked = operations(&server.recorded());
    assert_eq!((asked["DeleteObjects"], asked["DeleteObject"]), (1, 40));
}
