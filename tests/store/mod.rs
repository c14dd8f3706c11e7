//! What every store must do: one list of checks, run against each of them.

pub(crate) mod faulty;
pub(crate) mod folder;
mod http;
pub(crate) mod s3;

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use pgslice::layout::Key;
use pgslice::store::{Reading, SharedStore, Store, StoreError, Swap, Upload, Validator, Version};
use tokio::task::JoinSet;

/// No check takes anywhere near that long; one that does hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the checks read at most when size is not their subject.
const CAP: u64 = 64 << 20;

/// Holds a store that can be written against the contract in `pgslice::store`. Each check gets an empty store from
/// `make`.
pub(crate) async fn conforms(make: impl AsyncFn() -> SharedStore) {
    macro_rules! checks {
        ($($check:ident)*) => {$(
            ends(stringify!($check), $check(make().await)).await;
        )*};
    }
    checks! {
        nothing_is_visible_before_an_upload_is_finished
        a_reader_beside_a_writer_sees_nothing_or_all
        an_upload_never_replaces
        of_racing_uploads_one_wins_and_the_object_is_its_own
        creating_never_replaces
        of_racing_creations_one_wins
        of_racing_swaps_from_one_version_one_wins
        of_racing_first_swaps_one_wins
        of_a_racing_creation_and_first_swap_one_wins
        a_swap_of_what_is_not_there_needs_no_version_seen
        a_swap_from_an_old_version_writes_nothing
        swapped_content_is_readable_at_once
        a_version_tells_contents_apart
        a_page_is_replaced_whatever_is_there
        an_aborted_upload_leaves_nothing
        a_dropped_upload_leaves_nothing
        deletion_takes_exact_names_only
        deleting_what_is_not_there_is_no_error
        a_name_is_free_again_after_its_deletion
        uploads_and_deletions_side_by_side_do_not_disturb_each_other
        every_legal_key_is_a_name_of_its_own
        the_url_names_the_object_below_the_store
        a_list_names_what_is_there_and_nothing_unfinished
    }
    reads_conform(async || {
        let store = make().await;
        (store.clone(), store)
    })
    .await;
}

/// Holds the reading half of a store against the contract: `make` returns one to write with and the one under test,
/// which reads what the first wrote.
pub(crate) async fn reads_conform(make: impl AsyncFn() -> (SharedStore, SharedStore)) {
    macro_rules! checks {
        ($($check:ident)*) => {$({
            let (writer, reader) = make().await;
            ends(stringify!($check), $check(writer, reader)).await;
        })*};
    }
    checks! {
        what_is_not_there_reads_as_absent
        content_comes_back_as_it_was_written
        only_the_very_content_that_was_seen_is_not_sent_again
        an_object_above_the_cap_is_refused_and_one_at_the_cap_is_read
        a_range_is_exact_or_an_error
        an_empty_object_is_an_object
        the_size_is_told_without_reading
        a_large_object_in_odd_sized_writes_comes_back_whole
    }
}

async fn ends<T>(name: &str, check: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, check).await.unwrap_or_else(|_| panic!("{name}: did not end within {PATIENCE:?}"))
}

fn key(text: &str) -> Key {
    text.parse().expect("a legal key")
}

/// The content of an object, which must be there.
async fn content(store: &dyn Store, key: &Key) -> Bytes {
    store.read(key, CAP).await.expect("readable").unwrap_or_else(|| panic!("{key} is there")).0
}

async fn is_there(store: &dyn Store, key: &Key) -> bool {
    store.read(key, CAP).await.expect("an answer").is_some()
}

async fn version(store: &dyn Store, key: &Key) -> Version {
    store.read(key, CAP).await.expect("readable").expect("there").1
}

async fn upload(store: &dyn Store, key: &Key, content: &[u8]) -> Result<(), StoreError> {
    let mut upload = store.upload(key).await?;
    upload.write(Bytes::copy_from_slice(content)).await?;
    upload.finish().await
}

/// Bytes that tell their own position, so that no mixture of two pieces passes for a third.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

async fn nothing_is_visible_before_an_upload_is_finished(store: SharedStore) {
    let object = key("2024-05-01/r1-aa/part");
    let mut upload = store.upload(&object).await.expect("started");
    assert!(!is_there(&*store, &object).await);
    for _ in 0..3 {
        upload.write(noise(1 << 20, 1).into()).await.expect("written");
        assert!(!is_there(&*store, &object).await);
        assert!(matches!(store.read_range(&object, 0, 1).await, Err(StoreError::NotFound(_))));
    }
    upload.finish().await.expect("finished");
    assert_eq!(content(&*store, &object).await.len(), 3 << 20);
}

async fn a_list_names_what_is_there_and_nothing_unfinished(store: SharedStore) {
    // What a store itself keeps there to try conditional writes on is no matter.
    let list = async || {
        let mut names = store.list().await.expect("listed");
        names.retain(|name| *name != Key::write_test());
        names
    };
    assert!(list().await.is_empty());
    let mut names: Vec<Key> = (0..20).map(|number| key(&format!("2024-05-{number:02}/r1-aa/part"))).collect();
    names.push(key("feed.json"));
    for name in &names {
        store.create(name, "content".into()).await.expect("created");
    }
    let mut unfinished = store.upload(&key("2024-05-30/r1-aa/part")).await.expect("started");
    unfinished.write("content".into()).await.expect("written");
    store.delete(&names[..3]).await.expect("deleted");
    let mut left = names.split_off(3);
    left.sort_unstable();
    assert_eq!(list().await, left);
    unfinished.abort().await.expect("given up");
}

async fn the_size_is_told_without_reading(writer: SharedStore, reader: SharedStore) {
    for (name, bytes) in [("none", 0), ("one", 1), ("many", 3 << 20)] {
        upload(&*writer, &key(name), &noise(bytes, 5)).await.expect("written");
        assert_eq!(reader.size(&key(name)).await.expect("an answer"), Some(bytes as u64), "{name}");
    }
    assert_eq!(reader.size(&key("missing")).await.expect("an answer"), None);
}

async fn a_reader_beside_a_writer_sees_nothing_or_all(store: SharedStore) {
    let whole = noise(3 << 20, 2);
    let objects: Vec<Key> = (0..8).map(|round| key(&format!("day/part-{round}"))).collect();
    let writer = {
        let (store, objects, whole) = (store.clone(), objects.clone(), whole.clone());
        tokio::spawn(async move {
            for object in &objects {
                upload(&*store, object, &whole).await.expect("uploaded");
            }
        })
    };
    for object in &objects {
        let seen = loop {
            if let Some((bytes, _)) = store.read(object, CAP).await.expect("an answer") {
                break bytes;
            }
        };
        assert!(seen == whole, "{object} was seen with {} of {} bytes", seen.len(), whole.len());
    }
    writer.await.expect("all were uploaded");
}

async fn an_upload_never_replaces(store: SharedStore) {
    let object = key("day/part");
    upload(&*store, &object, b"first").await.expect("uploaded");
    let second = upload(&*store, &object, b"second").await;
    assert!(matches!(second, Err(StoreError::Exists(named)) if named == object));
    assert_eq!(content(&*store, &object).await, "first");
}

/// Of writers that raced for one name: the number of the one that made the object. All others were told that it exists.
async fn the_only_winner(racers: JoinSet<(Result<(), StoreError>, u64)>) -> u64 {
    let mut winners = Vec::new();
    for (outcome, racer) in racers.join_all().await {
        match outcome {
            Ok(()) => winners.push(racer),
            Err(error) => assert!(matches!(error, StoreError::Exists(_)), "{error}"),
        }
    }
    let [winner] = winners[..] else { panic!("{winners:?} won") };
    winner
}

async fn of_racing_uploads_one_wins_and_the_object_is_its_own(store: SharedStore) {
    let object = key("day/part");
    let mut racers = JoinSet::new();
    for racer in 0..8 {
        let (store, object) = (store.clone(), object.clone());
        racers.spawn(async move { (upload(&*store, &object, &noise(300_000, racer)).await, racer) });
    }
    let winner = the_only_winner(racers).await;
    assert!(content(&*store, &object).await == noise(300_000, winner));
}

async fn creating_never_replaces(store: SharedStore) {
    let object = key("day/manifest.json");
    store.create(&object, "first".into()).await.expect("created");
    let second = store.create(&object, "second".into()).await;
    assert!(matches!(second, Err(StoreError::Exists(named)) if named == object));
    assert_eq!(content(&*store, &object).await, "first");
}

async fn of_racing_creations_one_wins(store: SharedStore) {
    let object = key("day/manifest.json");
    let mut racers = JoinSet::new();
    for racer in 0..16 {
        let (store, object) = (store.clone(), object.clone());
        racers.spawn(async move { (store.create(&object, format!("{racer}").into()).await, racer) });
    }
    let winner = the_only_winner(racers).await;
    assert_eq!(content(&*store, &object).await, winner.to_string());
}

/// Sixteen swaps from `seen` at once; the content of the only one that was done.
async fn race_swaps(store: &SharedStore, seen: Option<Version>) -> String {
    let mut racers = JoinSet::new();
    for racer in 0..16 {
        let (store, seen) = (store.clone(), seen.clone());
        racers.spawn(async move {
            let own = format!("racer {racer}");
            let swap = store.swap(&Key::feed(), seen.as_ref(), own.clone().into()).await.expect("an answer");
            (swap, own)
        });
    }
    let outcomes = racers.join_all().await;
    let won: Vec<&String> = outcomes.iter().filter(|(swap, _)| *swap == Swap::Done).map(|(_, own)| own).collect();
    let [winner] = won[..] else { panic!("{won:?} won") };
    winner.clone()
}

async fn of_racing_swaps_from_one_version_one_wins(store: SharedStore) {
    store.create(&Key::feed(), "start".into()).await.expect("created");
    for _ in 0..4 {
        let seen = version(&*store, &Key::feed()).await;
        let winner = race_swaps(&store, Some(seen)).await;
        assert_eq!(content(&*store, &Key::feed()).await, winner);
        store.delete(&[Key::feed()]).await.expect("deleted");
        store.create(&Key::feed(), "start again".into()).await.expect("created");
    }
}

async fn of_racing_first_swaps_one_wins(store: SharedStore) {
    for _ in 0..4 {
        let winner = race_swaps(&store, None).await;
        assert_eq!(content(&*store, &Key::feed()).await, winner);
        store.delete(&[Key::feed()]).await.expect("deleted");
    }
}

async fn of_a_racing_creation_and_first_swap_one_wins(store: SharedStore) {
    for round in 0..40 {
        let object = key(&format!("feed-{round}"));
        let (swap, created) = tokio::join!(
            async {
                let (store, object) = (store.clone(), object.clone());
                tokio::spawn(async move { store.swap(&object, None, "swapped".into()).await }).await.expect("no panic")
            },
            async {
                let (store, object) = (store.clone(), object.clone());
                tokio::spawn(async move { store.create(&object, "created".into()).await }).await.expect("no panic")
            },
        );
        let expected = match (swap.expect("an answer"), created) {
            (Swap::Done, Err(StoreError::Exists(_))) => "swapped",
            (Swap::Conflict, Ok(())) => "created",
            (swap, created) => panic!("{swap:?} and {created:?}"),
        };
        assert_eq!(content(&*store, &object).await, expected);
    }
}

async fn a_swap_of_what_is_not_there_needs_no_version_seen(store: SharedStore) {
    let feed = Key::feed();
    store.create(&key("other"), "content".into()).await.expect("created");
    let seen = version(&*store, &key("other")).await;
    let swap = store.swap(&feed, Some(&seen), "content".into()).await.expect("an answer");
    assert_eq!(swap, Swap::Conflict);
    assert!(!is_there(&*store, &feed).await);
    assert_eq!(store.swap(&feed, None, "content".into()).await.expect("an answer"), Swap::Done);
    assert_eq!(store.swap(&feed, None, "other".into()).await.expect("an answer"), Swap::Conflict);
    assert_eq!(content(&*store, &feed).await, "content");
}

async fn a_swap_from_an_old_version_writes_nothing(store: SharedStore) {
    let feed = Key::feed();
    store.create(&feed, "one".into()).await.expect("created");
    let old = version(&*store, &feed).await;
    assert_eq!(store.swap(&feed, Some(&old), "two".into()).await.expect("an answer"), Swap::Done);
    assert_eq!(store.swap(&feed, Some(&old), "three".into()).await.expect("an answer"), Swap::Conflict);
    assert_eq!(content(&*store, &feed).await, "two");
}

async fn swapped_content_is_readable_at_once(store: SharedStore) {
    let feed = Key::feed();
    let mut seen = None;
    for round in 0..20 {
        let next = format!("{{\"sequence\":{round}}}");
        let swap = store.swap(&feed, seen.as_ref(), next.clone().into()).await.expect("an answer");
        assert_eq!(swap, Swap::Done, "round {round}");
        let (bytes, version) = store.read(&feed, CAP).await.expect("readable").expect("there");
        assert_eq!(bytes, next);
        seen = Some(version);
    }
}

async fn a_version_tells_contents_apart(store: SharedStore) {
    let feed = Key::feed();
    store.create(&feed, "one".into()).await.expect("created");
    let one = version(&*store, &feed).await;
    assert_eq!(version(&*store, &feed).await, one, "nothing changed");
    assert_eq!(store.swap(&feed, Some(&one), "two".into()).await.expect("an answer"), Swap::Done);
    assert_ne!(version(&*store, &feed).await, one, "the same length, another content");
}

async fn a_page_is_replaced_whatever_is_there(store: SharedStore) {
    for page in ["a first page", "a page", ""] {
        store.replace(&Key::index(), page.into()).await.expect("replaced");
        assert_eq!(content(&*store, &Key::index()).await, page);
    }
}

async fn an_aborted_upload_leaves_nothing(store: SharedStore) {
    let object = key("day/part");
    let mut given_up = store.upload(&object).await.expect("started");
    given_up.write(noise(1 << 20, 3).into()).await.expect("written");
    given_up.abort().await.expect("aborted");
    assert!(!is_there(&*store, &object).await);
    upload(&*store, &object, b"later").await.expect("the name is still free");
}

async fn a_dropped_upload_leaves_nothing(store: SharedStore) {
    let object = key("day/part");
    let mut dropped = store.upload(&object).await.expect("started");
    dropped.write(noise(1 << 20, 4).into()).await.expect("written");
    drop(dropped);
    assert!(!is_there(&*store, &object).await);
    upload(&*store, &object, b"later").await.expect("the name is still free");
}

async fn deletion_takes_exact_names_only(store: SharedStore) {
    let spared = ["foo2", "foo.bak", "fo", "foo-/x", "bar/foo", "bar/foo2/x"].map(key);
    for object in &spared {
        store.create(object, "spared".into()).await.expect("created");
    }
    store.create(&key("foo"), "gone".into()).await.expect("created");
    store.delete(&[key("foo")]).await.expect("deleted");
    assert!(!is_there(&*store, &key("foo")).await);
    store.create(&key("foo/below"), "spared".into()).await.expect("created");
    store.delete(&[key("foo"), key("bar"), key("bar/fo")]).await.expect("no such objects");
    for object in spared.iter().chain([&key("foo/below")]) {
        assert_eq!(content(&*store, object).await, "spared", "{object}");
    }
}

async fn deleting_what_is_not_there_is_no_error(store: SharedStore) {
    store.create(&key("day/there"), "gone".into()).await.expect("created");
    let keys = ["not-there", "nowhere/at/all", "day/there", "day/not-there"].map(key);
    store.delete(&keys).await.expect("deleted");
    store.delete(&keys).await.expect("deleted again");
    store.delete(&[]).await.expect("nothing to delete");
    assert!(!is_there(&*store, &key("day/there")).await);
}

async fn a_name_is_free_again_after_its_deletion(store: SharedStore) {
    let object = key("day/r1-aa/part");
    for round in ["one", "two"] {
        upload(&*store, &object, round.as_bytes()).await.expect("uploaded");
        assert_eq!(content(&*store, &object).await, round);
        store.delete(std::slice::from_ref(&object)).await.expect("deleted");
    }
}

async fn uploads_and_deletions_side_by_side_do_not_disturb_each_other(store: SharedStore) {
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let store = store.clone();
        writers.spawn(async move {
            for round in 0..20 {
                let object = key(&format!("2024-05-01/r1-{writer}/part"));
                let own = format!("{writer} {round}");
                upload(&*store, &object, own.as_bytes()).await.expect("uploaded");
                assert_eq!(content(&*store, &object).await, own);
                store.delete(&[object]).await.expect("deleted");
            }
        });
    }
    writers.join_all().await;
}

async fn every_legal_key_is_a_name_of_its_own(store: SharedStore) {
    let long_name = "n".repeat(250);
    let long_key = ["d".repeat(240), "e".repeat(240), "f".repeat(240), "g".repeat(170)].join("/");
    let keys = [
        "a",
        "A/b",
        "~",
        "=",
        "-",
        "--help",
        "_",
        "a..b",
        "a.",
        "~2e~2e/x",
        "day=2024-05-01/r1-7f3a9c00/M~c3~b6bel.x-2024-05-01-p0001.copy.zst",
        "full/2024/dump",
        &long_name,
        &long_key,
    ]
    .map(key);
    for key in &keys {
        store.create(key, key.as_str().to_owned().into()).await.unwrap_or_else(|error| panic!("{key}: {error}"));
    }
    for key in &keys {
        assert_eq!(content(&*store, key).await, key.as_str());
    }
    store.delete(&keys).await.expect("deleted");
    for key in &keys {
        assert!(!is_there(&*store, key).await, "{key}");
    }
}

async fn the_url_names_the_object_below_the_store(store: SharedStore) {
    let url = store.object_url(&key("day/part"));
    assert!(url.starts_with(store.url().trim_end_matches('/')) && url.ends_with("/day/part"), "{url}");
    let urls = BTreeSet::from(["day/part", "day", "part"].map(|object| store.object_url(&key(object))));
    assert_eq!(urls.len(), 3);
}

async fn what_is_not_there_reads_as_absent(writer: SharedStore, reader: SharedStore) {
    writer.create(&key("day/there"), "there".into()).await.expect("created");
    for absent in ["absent", "absent/too", "day/absent", "day/there2"].map(key) {
        assert!(!is_there(&*reader, &absent).await, "{absent}");
        let range = reader.read_range(&absent, 0, 1).await;
        assert!(matches!(range, Err(StoreError::NotFound(named)) if named == absent));
    }
}

async fn content_comes_back_as_it_was_written(writer: SharedStore, reader: SharedStore) {
    let every_byte: Vec<u8> = (0..=255).collect();
    for (object, bytes) in [("bytes", every_byte), ("day/text", b"{\"a\": \"\xc3\xa9\"}\r\n".to_vec())] {
        writer.create(&key(object), bytes.clone().into()).await.expect("created");
        assert_eq!(content(&*reader, &key(object)).await, bytes);
    }
}

async fn only_the_very_content_that_was_seen_is_not_sent_again(writer: SharedStore, reader: SharedStore) {
    let object = Key::feed();
    let read = async |seen: Option<&Validator>| reader.read_if_changed(&object, CAP, seen).await.expect("an answer");
    let foreign = Validator("\"00000000000000000000000000000000\"".to_owned());
    for seen in [None, Some(&foreign)] {
        assert_eq!(read(seen).await, Reading::Absent);
    }
    assert_eq!(writer.swap(&object, None, "one".into()).await.expect("an answer"), Swap::Done);
    let Reading::Content(content, one) = read(Some(&foreign)).await else { panic!("it was not seen") };
    assert_eq!(content, "one");
    // A store that is not sure tells none.
    if one.is_some() {
        assert_eq!(read(one.as_ref()).await, Reading::Unchanged);
    }
    let version = version(&*writer, &object).await;
    assert_eq!(writer.swap(&object, Some(&version), "two".into()).await.expect("an answer"), Swap::Done);
    let Reading::Content(content, two) = read(one.as_ref()).await else { panic!("it has changed") };
    assert_eq!(content, "two");
    assert!(two.is_none() || two != one);
    let capped = reader.read_if_changed(&object, 2, None).await;
    assert!(matches!(capped, Err(StoreError::Size { .. })), "{capped:?}");
}

async fn an_object_above_the_cap_is_refused_and_one_at_the_cap_is_read(writer: SharedStore, reader: SharedStore) {
    let object = key("day/manifest.json");
    writer.create(&object, noise(1_000, 5).into()).await.expect("created");
    for max_bytes in [0, 1, 999] {
        let read = reader.read(&object, max_bytes).await;
        assert!(matches!(read, Err(StoreError::Size { .. })), "{max_bytes}");
    }
    for max_bytes in [1_000, 1_001, u64::MAX] {
        let (bytes, _) = reader.read(&object, max_bytes).await.expect("readable").expect("there");
        assert_eq!(bytes, noise(1_000, 5));
    }
}

async fn a_range_is_exact_or_an_error(writer: SharedStore, reader: SharedStore) {
    let object = key("day/part");
    let whole = noise(1_000, 6);
    upload(&*writer, &object, &whole).await.expect("uploaded");
    for (offset, length) in [(0, 1_000), (0, 1), (999, 1), (13, 700)] {
        let range = usize::try_from(offset).expect("small")..usize::try_from(offset + length).expect("small");
        assert_eq!(reader.read_range(&object, offset, length).await.expect("readable"), whole[range]);
    }
    for (offset, length) in [(0, 1_001), (999, 2), (1_000, 1), (5_000, 1), (0, u64::MAX), (u64::MAX, 1), (1, u64::MAX)]
    {
        let short = reader.read_range(&object, offset, length).await;
        assert!(matches!(short, Err(StoreError::Size { .. })), "{length} from {offset}");
    }
}

async fn an_empty_object_is_an_object(writer: SharedStore, reader: SharedStore) {
    writer.create(&key("created"), Bytes::new()).await.expect("created");
    writer.upload(&key("uploaded")).await.expect("started").finish().await.expect("finished");
    let mut upload = writer.upload(&key("written")).await.expect("started");
    upload.write(Bytes::new()).await.expect("written");
    upload.finish().await.expect("finished");
    for object in ["created", "uploaded", "written"].map(key) {
        assert_eq!(content(&*reader, &object).await, "", "{object}");
        assert!(reader.read(&object, 0).await.expect("nothing is not above a cap").is_some());
        assert!(matches!(reader.read_range(&object, 0, 1).await, Err(StoreError::Size { .. })));
        assert!(matches!(writer.create(&object, "more".into()).await, Err(StoreError::Exists(_))));
    }
}

async fn a_large_object_in_odd_sized_writes_comes_back_whole(writer: SharedStore, reader: SharedStore) {
    let whole = noise(20 << 20, 7);
    let object = key("2024-05-01/r1-aa/part");
    let mut upload: Box<dyn Upload> = writer.upload(&object).await.expect("started");
    let mut rest = &whole[..];
    for size in [1, 1 << 20, 0, 4_097, 999_983, 65_536].iter().cycle() {
        let (piece, later) = rest.split_at(rest.len().min(*size));
        upload.write(Bytes::copy_from_slice(piece)).await.expect("written");
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    upload.finish().await.expect("finished");
    let mut offset = 0;
    for piece in whole.chunks(3_000_001) {
        let length = piece.len() as u64;
        assert!(reader.read_range(&object, offset, length).await.expect("readable") == piece, "from {offset}");
        offset += length;
    }
    let beyond = reader.read_range(&object, offset, 1).await;
    assert!(matches!(beyond, Err(StoreError::Size { .. })));
}
