use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use anyhow::anyhow;
use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::error::class_of;
use crate::manifest::State::{Final, Provisional};
use crate::retention::fixtures::{self, day, feed_of, instant, source};
use crate::store::Upload;

const NOW: &str = "2024-06-01T00:00:00Z";

/// What happens to one swap.
enum Fate {
    /// It fails, and nothing was done.
    FailsBefore,
    /// It is done, but there is no answer.
    AnswerLost,
    /// It is done, and repeated by the store's own client, which then conflicts with itself.
    ConflictsWithItself,
    /// It is done without an answer, and then another writer changes the head.
    AnswerLostThen(fn(&Feed) -> Feed),
    /// Another writer changes the head just before.
    AfterAnother(fn(&Feed) -> Feed),
    /// The store refuses.
    Denied,
}

/// A store in memory whose swaps and reads follow a script; past its end everything succeeds.
#[derive(Default)]
struct ScriptedStore(Mutex<Script>);

#[derive(Default)]
struct Script {
    objects: BTreeMap<Key, Bytes>,
    swaps: VecDeque<Fate>,
    /// How many of the next reads fail.
    failing_reads: u32,
    no_pages: bool,
    swaps_asked: u32,
}

impl ScriptedStore {
    fn holding(feed: &Feed, swaps: impl IntoIterator<Item = Fate>) -> ScriptedStore {
        let store = ScriptedStore::default();
        store.script().objects.insert(Key::feed(), feed.to_bytes().into());
        store.script().swaps.extend(swaps);
        store
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    fn swaps_asked(&self) -> u32 {
        self.script().swaps_asked
    }

    fn feed(&self) -> Feed {
        Feed::parse(&self.script().objects[&Key::feed()]).expect("a sound head")
    }
}

impl Script {
    fn meanwhile(&mut self, key: &Key, change: fn(&Feed) -> Feed) {
        let present = self.objects.get(key).map(|bytes| Feed::parse(bytes).expect("a sound head"));
        let next = change(&present.unwrap_or_else(fixtures::empty_feed));
        let next = next.next_version("another".into(), Pulse::Beat(instant(NOW)));
        self.objects.insert(key.clone(), next.to_bytes().into());
    }
}

fn no_answer() -> StoreError {
    StoreError::Transient { what: "scripted".into(), source: anyhow!("scripted") }
}

fn version(content: &Bytes) -> Version {
    Version(hex::encode(Sha256::digest(content)))
}

#[async_trait]
impl Store for ScriptedStore {
    fn url(&self) -> String {
        "memory:".into()
    }

    async fn read(&self, key: &Key, _max_bytes: u64) -> Result<Option<(Bytes, Version)>, StoreError> {
        let mut script = self.script();
        if script.failing_reads > 0 {
            script.failing_reads -= 1;
            return Err(no_answer());
        }
        Ok(script.objects.get(key).map(|content| (content.clone(), version(content))))
    }

    async fn read_range(&self, key: &Key, _offset: u64, _length: u64) -> Result<Bytes, StoreError> {
        Err(StoreError::NotFound(key.clone()))
    }

    async fn create(&self, key: &Key, _content: Bytes) -> Result<(), StoreError> {
        Err(StoreError::Exists(key.clone()))
    }

    async fn swap(&self, key: &Key, seen: Option<&Version>, content: Bytes) -> Result<Swap, StoreError> {
        let mut script = self.script();
        script.swaps_asked += 1;
        let fate = script.swaps.pop_front();
        match &fate {
            Some(Fate::FailsBefore) => return Err(no_answer()),
            Some(Fate::Denied) => {
                return Err(StoreError::Denied { what: "scripted".into(), source: anyhow!("scripted") });
            }
            Some(Fate::AfterAnother(change)) => script.meanwhile(key, *change),
            _ => {}
        }
        if script.objects.get(key).map(version).as_ref() != seen {
            return Ok(Swap::Conflict);
        }
        script.objects.insert(key.clone(), content);
        match fate {
            Some(Fate::AnswerLost) => Err(no_answer()),
            Some(Fate::ConflictsWithItself) => Ok(Swap::Conflict),
            Some(Fate::AnswerLostThen(change)) => {
                script.meanwhile(key, change);
                Err(no_answer())
            }
            _ => Ok(Swap::Done),
        }
    }

    async fn replace(&self, key: &Key, content: Bytes) -> Result<(), StoreError> {
        let mut script = self.script();
        if script.no_pages {
            return Err(no_answer());
        }
        script.objects.insert(key.clone(), content);
        Ok(())
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, StoreError> {
        Err(StoreError::Exists(key.clone()))
    }

    async fn delete(&self, _keys: &[Key]) -> Result<(), StoreError> {
        Ok(())
    }
}

fn one_day() -> Feed {
    feed_of(&[("2024-05-01", Final)])
}

fn publish(feed: &Feed, text: &str, attempt: &str) -> Feed {
    let (reference, manifest) = fixtures::manifest(day(text), 1, Final, attempt, [None; 3]);
    feed.with_day(DayEntry::of(&manifest, reference), source(), instant(NOW))
}

/// Another writer publishes the day after ours.
fn another_day(feed: &Feed) -> Feed {
    publish(feed, "2024-05-03", "0000000b")
}

/// Another writer says only that it is alive.
fn heartbeat(feed: &Feed) -> Feed {
    feed.clone()
}

/// Publishes 2024-05-02, as an export does.
async fn publish_second(store: &ScriptedStore) -> anyhow::Result<Feed> {
    let ours = publish(&fixtures::empty_feed(), "2024-05-02", "0000000a").days.remove(0);
    change(
        store,
        Pulse::Beat(instant(NOW)),
        |feed| match feed.day(ours.day) {
            Some(_) => Err(Failure::new(Class::Locked, "published by another run meanwhile").into()),
            None => Ok(publish(feed, "2024-05-02", "0000000a")),
        },
        |feed| feed.day(ours.day).is_some_and(|present| present.manifest == ours.manifest),
    )
    .await
}

fn days(feed: &Feed) -> Vec<String> {
    feed.days.iter().map(|entry| entry.day.to_string()).collect()
}

mod changing {
    use super::*;

    #[tokio::test]
    async fn a_change_stands_with_the_next_sequence_and_its_page() {
        let store = ScriptedStore::holding(&one_day(), []);
        let stands = publish_second(&store).await.expect("published");
        assert_eq!(days(&stands), ["2024-05-01", "2024-05-02"]);
        assert_eq!((stands.sequence, stands.published_at), (one_day().sequence + 1, instant(NOW)));
        assert_eq!(store.feed(), stands);
        let page = store.script().objects[&Key::index()].clone();
        assert!(String::from_utf8_lossy(&page).contains("2024-05-02"));
    }

    #[tokio::test]
    async fn a_lost_answer_is_resolved_by_reading_back_and_nothing_is_written_twice() {
        for fate in [Fate::AnswerLost, Fate::ConflictsWithItself] {
            let store = ScriptedStore::holding(&one_day(), [fate]);
            let stands = publish_second(&store).await.expect("published");
            assert_eq!(store.feed(), stands);
            assert_eq!((stands.sequence, store.swaps_asked()), (one_day().sequence + 1, 1));
            assert!(store.script().objects.contains_key(&Key::index()), "the page follows here too");
        }
    }

    #[tokio::test]
    async fn a_lost_answer_is_resolved_even_if_somebody_else_has_published_since() {
        for (change, expected) in [
            (another_day as fn(&Feed) -> Feed, vec!["2024-05-01", "2024-05-02", "2024-05-03"]),
            (heartbeat, vec!["2024-05-01", "2024-05-02"]),
        ] {
            let store = ScriptedStore::holding(&one_day(), [Fate::AnswerLostThen(change)]);
            let stands = publish_second(&store).await.expect("published");
            assert_eq!(days(&stands), expected);
            assert_eq!((stands.attempt_id.as_str(), store.swaps_asked()), ("another", 1));
        }
    }

    #[tokio::test]
    async fn a_write_that_never_arrived_is_repeated() {
        let store = ScriptedStore::holding(&one_day(), [Fate::FailsBefore, Fate::FailsBefore]);
        let stands = publish_second(&store).await.expect("published");
        assert_eq!((stands.sequence, store.swaps_asked()), (one_day().sequence + 1, 3));
        assert_eq!(days(&store.feed()), ["2024-05-01", "2024-05-02"]);
    }

    #[tokio::test]
    async fn two_days_published_at_once_both_stand() {
        let store = ScriptedStore::holding(&one_day(), [Fate::AfterAnother(another_day)]);
        let stands = publish_second(&store).await.expect("published");
        assert_eq!(days(&stands), ["2024-05-01", "2024-05-02", "2024-05-03"]);
        assert_eq!(stands.sequence, one_day().sequence + 2);
    }

    #[tokio::test]
    async fn the_same_day_published_at_once_conflicts_and_the_others_revision_stands() {
        let theirs = |feed: &Feed| publish(feed, "2024-05-02", "0000000b");
        let store = ScriptedStore::holding(&one_day(), [Fate::AfterAnother(theirs)]);
        let error = publish_second(&store).await.expect_err("another run was faster");
        assert_eq!(class_of(&error), Class::Locked);
        let key = store.feed().day(day("2024-05-02")).map(|entry| entry.manifest.key.to_string());
        assert_eq!(key.as_deref(), Some("2024-05-02/r1-0000000b/manifest.json"));
        assert_eq!(store.swaps_asked(), 1);
    }

    #[tokio::test]
    async fn a_change_that_others_always_outrun_gives_up_as_transient() {
        let store = ScriptedStore::holding(&one_day(), (0..100).map(|_| Fate::AfterAnother(heartbeat)));
        let error = publish_second(&store).await.expect_err("outrun");
        assert_eq!(class_of(&error), Class::Transient);
        assert_eq!(store.swaps_asked(), ATTEMPTS);
        assert_eq!(days(&store.feed()), ["2024-05-01"]);
    }

    #[tokio::test]
    async fn a_refusal_of_the_store_is_not_repeated() {
        let store = ScriptedStore::holding(&one_day(), [Fate::Denied]);
        let error = publish_second(&store).await.expect_err("denied");
        assert_eq!(class_of(&error), Class::Permission);
        assert_eq!((store.swaps_asked(), store.feed()), (1, one_day()));
    }

    #[tokio::test]
    async fn an_edit_that_fails_writes_nothing() {
        let store = ScriptedStore::holding(&one_day(), []);
        let edit = |_: &Feed| Err(Failure::new(Class::Integrity, "no").into());
        let error = change(&store, Pulse::None, edit, |_| true).await.expect_err("refused");
        assert_eq!(class_of(&error), Class::Integrity);
        assert_eq!((store.swaps_asked(), store.feed()), (0, one_day()));
    }

    #[tokio::test]
    async fn what_has_landed_before_the_first_attempt_is_edited_all_the_same() {
        let store = ScriptedStore::holding(&one_day(), []);
        let stands = change(&store, Pulse::None, |feed| Ok(feed.clone()), |_| true).await.expect("changed");
        assert_eq!(stands.sequence, one_day().sequence + 1);
        assert_eq!(stands.published_at, one_day().published_at);
    }

    #[tokio::test]
    async fn reads_that_fail_for_a_moment_are_repeated_also_after_a_lost_answer() {
        let store = ScriptedStore::holding(&one_day(), [Fate::AnswerLost]);
        store.script().failing_reads = 2;
        let stands = publish_second(&store).await.expect("published");
        assert_eq!((stands.sequence, store.swaps_asked()), (one_day().sequence + 1, 1));
    }

    #[tokio::test]
    async fn a_head_that_is_gone_is_not_made_anew() {
        let store = ScriptedStore::default();
        let error = publish_second(&store).await.expect_err("gone");
        assert_eq!(class_of(&error), Class::Integrity);
        assert!(store.script().objects.is_empty());
    }

    #[tokio::test]
    async fn a_page_that_cannot_be_written_fails_nothing() {
        let store = ScriptedStore::holding(&one_day(), []);
        store.script().no_pages = true;
        publish_second(&store).await.expect("published");
        assert_eq!(days(&store.feed()), ["2024-05-01", "2024-05-02"]);
    }
}

mod creating {
    use super::*;

    fn store(swaps: impl IntoIterator<Item = Fate>) -> ScriptedStore {
        let store = ScriptedStore::default();
        store.script().swaps.extend(swaps);
        store
    }

    #[tokio::test]
    async fn a_feed_is_created_once_and_then_found() {
        let store = store([]);
        let new = fixtures::empty_feed();
        assert_eq!(create(&store, &new).await.expect("created"), new);
        let other = Feed { feed_id: "beef".into(), ..new.clone() };
        assert_eq!(create(&store, &other).await.expect("found"), new);
        assert_eq!((store.feed(), store.swaps_asked()), (new, 1));
    }

    #[tokio::test]
    async fn of_two_that_create_a_feed_at_once_the_first_ones_stands_for_both() {
        let store = store([Fate::AfterAnother(one_day_of_another)]);
        let ours = Feed { feed_id: "beef".into(), ..fixtures::empty_feed() };
        let stands = create(&store, &ours).await.expect("found");
        assert_eq!((stands.feed_id.as_str(), days(&stands)), ("f00d", vec!["2024-05-03".to_owned()]));
        assert_eq!(store.feed(), stands);
    }

    fn one_day_of_another(feed: &Feed) -> Feed {
        another_day(feed)
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_one_feed() {
        for fate in [Fate::AnswerLost, Fate::ConflictsWithItself, Fate::FailsBefore] {
            let store = store([fate]);
            let new = fixtures::empty_feed();
            assert_eq!(create(&store, &new).await.expect("created"), new);
            assert_eq!(store.feed(), new);
        }
    }

    #[tokio::test]
    async fn a_refusal_of_the_store_is_not_repeated() {
        let store = store([Fate::Denied]);
        let error = create(&store, &fixtures::empty_feed()).await.expect_err("denied");
        assert_eq!((class_of(&error), store.swaps_asked()), (Class::Permission, 1));
    }
}

mod reading {
    use super::*;

    #[tokio::test]
    async fn no_feed_is_no_error_until_one_is_needed() {
        let store = ScriptedStore::default();
        assert!(read(&store).await.expect("readable").is_none());
        assert_eq!(class_of(&read_existing(&store).await.expect_err("none")), Class::Usage);
    }

    #[tokio::test]
    async fn a_head_that_cannot_be_read_is_never_taken_for_none() {
        for (content, words) in [
            (Bytes::new(), "not a readable document"),
            (Bytes::from_static(b"{\"format\": 1}"), "not a readable document"),
            (Bytes::from_static(b"{\"format\": 2}"), "format 2 is newer than this pgslice reads (1)"),
        ] {
            let store = ScriptedStore::default();
            store.script().objects.insert(Key::feed(), content.clone());
            for error in [
                read(&store).await.map(|_| ()).expect_err("unreadable"),
                create(&store, &fixtures::empty_feed()).await.map(|_| ()).expect_err("unreadable"),
                publish_second(&store).await.map(|_| ()).expect_err("unreadable"),
            ] {
                assert_eq!(class_of(&error), Class::Integrity);
                assert!(error.to_string().contains(words), "{error}");
            }
            assert_eq!(store.script().objects[&Key::feed()], content);
        }
    }

    /// A feed with one day, in a store that holds its manifest.
    fn with_manifest() -> (ScriptedStore, Feed) {
        let (reference, manifest) = fixtures::manifest(day("2024-05-01"), 1, Final, "00000001", [None; 3]);
        let feed = one_day();
        let store = ScriptedStore::holding(&feed, []);
        store.script().objects.insert(reference.key, manifest.to_bytes().into());
        (store, feed)
    }

    #[tokio::test]
    async fn the_manifest_that_the_head_names_is_read() {
        let (store, feed) = with_manifest();
        let read = day_manifest(&store, &feed, &feed.days[0]).await.expect("sound");
        assert_eq!((read.day, read.revision), (day("2024-05-01"), 1));
    }

    #[tokio::test]
    async fn a_missing_or_damaged_manifest_and_one_of_another_feed_are_refused() {
        let (store, feed) = with_manifest();
        let entry = &feed.days[0];
        let key = &entry.manifest.key;
        let sound = store.script().objects[key].clone();

        let foreign = Feed { feed_id: "beef".into(), ..feed.clone() };
        let error = manifest(&store, &foreign, &entry.manifest).await.expect_err("of another feed");
        assert_eq!(class_of(&error), Class::Integrity);
        assert!(error.to_string().contains("belongs to another feed"), "{error}");
        let foreign = Feed { dataset: "other".into(), ..feed.clone() };
        manifest(&store, &foreign, &entry.manifest).await.expect_err("of another dataset");

        let mut damaged = sound.to_vec();
        damaged.push(b' ');
        store.script().objects.insert(key.clone(), damaged.into());
        let error = manifest(&store, &feed, &entry.manifest).await.expect_err("one byte more");
        assert_eq!(class_of(&error), Class::Integrity);
        assert!(error.to_string().contains("is not the manifest that feed.json names"), "{error}");

        store.script().objects.remove(key);
        let error = manifest(&store, &feed, &entry.manifest).await.expect_err("missing");
        assert_eq!(class_of(&error), Class::Integrity);
    }

    #[tokio::test]
    async fn a_manifest_that_contradicts_its_entry_is_refused() {
        let (store, feed) = with_manifest();
        let harms: [fn(&mut DayEntry); 5] = [
            |entry| entry.day = entry.day.next(),
            |entry| entry.window.end += chrono::TimeDelta::hours(1),
            |entry| entry.revision = 2,
            |entry| entry.state = Provisional,
            |entry| entry.digest = "0".repeat(64),
        ];
        for harm in harms {
            let mut entry = feed.days[0].clone();
            harm(&mut entry);
            let error = day_manifest(&store, &feed, &entry).await.expect_err("another day or revision");
            assert_eq!(class_of(&error), Class::Integrity, "{entry:?}");
        }
    }
}

#[test]
fn attempts_and_feeds_are_named_in_lower_case_hex_of_a_fixed_length() {
    for (name, length) in [(random_attempt(), 8), (random_feed_id(), 32)] {
        assert_eq!(name.len(), length);
        assert!(name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{name}");
    }
    assert_ne!(random_feed_id(), random_feed_id());
}
