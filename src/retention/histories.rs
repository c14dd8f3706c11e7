//! Promise 8 over generated histories: publications with carried slices, prunes, prunes cut short, and time passing.
//! The histories run on the pure functions and a set of names, judged by rules written down a second time here.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use crate::config::RetentionConfig;
use crate::day::Day;
use crate::feed::{DayEntry, Feed, ManifestRef, Retired};
use crate::layout::{Key, sums_beside};
use crate::manifest::{Manifest, State};
use crate::retention::fixtures::{TABLES, day, empty_feed, instant, manifest, source};
use crate::retention::plan::{deletable, forget, let_go, objects_of, plan};

#[derive(Debug, Clone)]
enum Event {
    /// A revision of the day so many days after the first; `carried` slices keep their parts.
    Publish { offset: u64, state: State, carried: [bool; TABLES.len()] },
    /// A prune that gets as far as deleting so many objects; `None`: to its end.
    Prune { deletions: Option<usize> },
    /// Time passes.
    Wait { hours: i64 },
}

fn event() -> impl Strategy<Value = Event> {
    let state = prop_oneof![3 => Just(State::Final), 1 => Just(State::Provisional)];
    prop_oneof![
        4 => (0..12_u64, state, any::<[bool; TABLES.len()]>())
            .prop_map(|(offset, state, carried)| Event::Publish { offset, state, carried }),
        2 => proptest::option::weighted(0.3, 0..8_usize).prop_map(|deletions| Event::Prune { deletions }),
        2 => (1..72_i64).prop_map(|hours| Event::Wait { hours }),
    ]
}

fn any_rules() -> impl Strategy<Value = RetentionConfig> {
    (1..8_u64, 0..5_usize, 0..60_i64).prop_map(|(keep_days, min_complete, hours)| RetentionConfig {
        keep_days,
        min_complete,
        grace: TimeDelta::hours(hours),
    })
}

/// A feed, the names in its store, and every manifest that was ever published.
struct World {
    rules: RetentionConfig,
    now: DateTime<Utc>,
    feed: Feed,
    store: BTreeSet<Key>,
    manifests: BTreeMap<Key, Manifest>,
    days_ever: BTreeSet<Day>,
    attempts: u32,
}

impl World {
    fn new(rules: RetentionConfig) -> World {
        // Names that no manifest knows: they must outlive everything.
        let strangers = ["feed.json", "index.html", "2024-05-01/notes.txt", "2024-05-010/r1-0/manifest.json"];
        World {
            rules,
            now: instant("2024-05-09T06:00:00Z"),
            feed: empty_feed(),
            store: strangers.iter().map(|name| name.parse().expect("a key")).collect(),
            manifests: BTreeMap::new(),
            days_ever: BTreeSet::new(),
            attempts: 0,
        }
    }

    fn publish(&mut self, day: Day, state: State, carried: [bool; TABLES.len()]) {
        self.attempts += 1;
        self.days_ever.insert(day);
        let base = self.feed.day(day).map(|entry| self.manifests[&entry.manifest.key].clone());
        let carried = carried.map(|is_carried| base.as_ref().filter(|_| is_carried));
        let last = self.feed.last_revision(day);
        let settles = base.as_ref().is_some_and(|base| base.state == State::Provisional) && state == State::Final;
        let revision = if settles && carried.iter().all(Option::is_some) { last } else { last + 1 };
        let (reference, manifest) = manifest(day, revision, state, &format!("{:08x}", self.attempts), carried);
        self.store.extend(named(&reference, &manifest));
        self.feed = self.feed.with_day(DayEntry::of(&manifest, reference.clone()), source(), self.now);
        self.manifests.insert(reference.key, manifest);
    }

    fn named_by<'a>(&'a self, references: impl Iterator<Item = &'a ManifestRef>) -> BTreeSet<Key> {
        references.flat_map(|reference| named(reference, &self.manifests[&reference.key])).collect()
    }

    /// Everything that the promise protects: named by a published revision, or by a retired one within its grace.
    fn protected(&self) -> BTreeSet<Key> {
        let unexpired =
            self.feed.retired.iter().filter(|retired| retired.deleted_at.is_none() && !self.expired(retired));
        self.named_by(
            self.feed.days.iter().map(|entry| &entry.manifest).chain(unexpired.map(|retired| &retired.manifest)),
        )
    }

    fn expired(&self, retired: &Retired) -> bool {
        retired.deleted_at.is_none() && self.now - retired.retired_at > self.rules.grace
    }

    /// A prune as `pgslice prune` does it, with everything asserted that must hold on the way.
    fn prune(&mut self, mut deletions_left: Option<usize>) {
        self.release();
        let may_go: BTreeSet<Key> = self
            .named_by(self.feed.retired.iter().filter(|retired| self.expired(retired)).map(|retired| &retired.manifest))
            .difference(&self.protected())
            .cloned()
            .collect();
        let mut planned = BTreeSet::new();
        let mut by_day: BTreeMap<Day, Vec<Retired>> = BTreeMap::new();
        let after = plan(&self.feed, &self.rules, self.now);
        assert!(after.released.is_empty(), "a second look at the same head lets nothing go");
        for retired in after.expired {
            assert!(self.expired(&retired));
            by_day.entry(retired.day).or_default().push(retired);
        }
        let mut forgotten = BTreeSet::new();
        for (day, expired) in by_day {
            forgotten.extend(expired.iter().map(|retired| retired.manifest.key.clone()));
            let still_named = self.still_named(day, &expired);
            let there: Vec<(Retired, Manifest)> = expired
                .into_iter()
                .filter(|retired| self.store.contains(&retired.manifest.key))
                .map(|retired| (retired.clone(), self.manifests[&retired.manifest.key].clone()))
                .collect();
            for deletion in deletable(&there, &still_named).expect("our own manifests are not strange") {
                assert!(may_go.contains(&deletion.object.key), "{} is deleted against the rules", deletion.object.key);
                assert!(planned.insert(deletion.object.key.clone()), "{} is deleted twice", deletion.object.key);
                if deletions_left == Some(0) {
                    return;
                }
                deletions_left = deletions_left.map(|left| left - 1);
                self.store.remove(&deletion.object.key);
            }
        }
        self.feed = forget(&self.feed, &forgotten, self.now);
        let left: Vec<&Key> = may_go.intersection(&self.store).collect();
        assert!(left.is_empty(), "nothing that may go is left by a prune that came to its end: {left:?}");
    }

    fn release(&mut self) {
        let planned = plan(&self.feed, &self.rules, self.now);
        let before = self.feed.clone();
        self.feed = let_go(&before, &planned.released, self.now);

        let finals = |feed: &Feed| feed.days.iter().filter(|entry| entry.state == State::Final).count();
        assert!(finals(&self.feed) >= finals(&before).min(self.rules.min_complete), "below the floor");
        assert_eq!(self.feed.newest_final(), before.newest_final());
        let keep_days = i64::try_from(self.rules.keep_days).expect("small");
        for released in &planned.released {
            let newest = before.newest_final().expect("nothing goes without a final day");
            assert!(newest.days_since(released.entry.day) >= keep_days, "{} is within keep", released.entry.day);
            assert!(
                self.feed.days.iter().all(|kept| kept.day > released.entry.day),
                "a hole at {}",
                released.entry.day
            );
        }
        let judged = planned.released.len() + planned.kept.len();
        assert_eq!(judged, before.days.len(), "every day has its verdict");
        assert!(self.feed.days.iter().map(|entry| entry.day).eq(planned.kept.iter().map(|kept| kept.day)));
    }

    fn still_named(&self, day: Day, expired: &[Retired]) -> BTreeSet<Key> {
        let published = self.feed.day(day).map(|entry| (entry.revision, &entry.manifest));
        let retired = self
            .feed
            .retired
            .iter()
            .filter(|retired| retired.day == day && retired.deleted_at.is_none() && !expired.contains(retired))
            .map(|retired| (retired.revision, &retired.manifest));
        published
            .into_iter()
            .chain(retired)
            .flat_map(|(revision, reference)| {
                objects_of(day, revision, reference, &self.manifests[&reference.key]).expect("our own manifest")
            })
            .map(|object| object.key)
            .collect()
    }
}

/// What a revision names, without asking the code under test.
fn named(reference: &ManifestRef, manifest: &Manifest) -> BTreeSet<Key> {
    let documents = [reference.key.clone(), sums_beside(&reference.key)];
    manifest.part_keys().cloned().chain(documents).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_unplanned_is_ever_deleted_and_everything_let_go_of_is_gone_in_the_end(
        rules in any_rules(),
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let mut world = World::new(rules);
        let strangers = world.store.clone();
        for event in events {
            match event {
                Event::Publish { offset, state, carried } => {
                    world.publish(day("2024-05-01").plus(offset), state, carried);
                }
                Event::Prune { deletions } => world.prune(deletions),
                Event::Wait { hours } => world.now += TimeDelta::hours(hours),
            }
            let protected = world.protected();
            let lost: Vec<&Key> = protected.difference(&world.store).collect();
            prop_assert!(lost.is_empty(), "lost: {lost:?}");
            prop_assert!(strangers.is_subset(&world.store));
        }

        world.prune(None);
        let (feed, store) = (world.feed.clone(), world.store.clone());
        world.prune(None);
        prop_assert_eq!(&world.feed, &feed, "pruned twice, the feed changed");
        prop_assert_eq!(&world.store, &store, "pruned twice, the store changed");

        // Every window has ended: one prune lets go of all that ever goes, and one after the grace deletes it.
        world.now = world.now.max(instant("2024-06-01T00:00:00Z"));
        world.prune(None);
        world.now += world.rules.grace + TimeDelta::seconds(1);
        world.prune(None);
        let published = world.named_by(world.feed.days.iter().map(|entry| &entry.manifest));
        prop_assert_eq!(&world.store, &published.union(&strangers).cloned().collect());
        let mut tombstones = BTreeSet::new();
        for retired in &world.feed.retired {
            prop_assert!(retired.deleted_at.is_some());
            prop_assert!(world.feed.day(retired.day).is_none(), "a tombstone of a published day");
            prop_assert!(tombstones.insert(retired.day), "two tombstones of {}", retired.day);
        }
        let remembered = tombstones.len() + world.feed.days.len();
        prop_assert_eq!(remembered, world.days_ever.len(), "no day is ever forgotten");
    }
}
