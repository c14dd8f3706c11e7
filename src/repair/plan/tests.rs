use super::*;
use crate::retention::fixtures::{self, day, instant};

const NOW: &str = "2024-06-01T00:00:00Z";

fn found(date: &str, revision: u32, state: State, attempt: &str) -> Found {
    let (reference, manifest) = fixtures::manifest(day(date), revision, state, attempt, [None; 3]);
    Found::of(&manifest, reference)
}

fn left_out(date: &str, revision: u32) -> LeftOut {
    let manifest: Key = format!("{date}/r{revision}-0badbad0/manifest.json").parse().expect("a key");
    LeftOut { day: day(date), revision, manifest, why: "is damaged".into() }
}

fn attempts(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.key().as_str().split('/').nth(1).expect("an attempt")).collect()
}

fn chosen(found: Vec<Found>, unreadable: Vec<LeftOut>) -> Chosen {
    choose(found, unreadable, "datanommer", Wanted::Hinted(None)).expect("one feed")
}

#[test]
fn of_a_day_the_highest_revision_counts_then_the_final_one_then_the_later_reading() {
    let mut later = found("2024-05-03", 1, State::Final, "00000006");
    later.taken.snapshot = "9:9:".into();
    let chosen = chosen(
        vec![
            found("2024-05-02", 2, State::Provisional, "00000004"),
            found("2024-05-01", 1, State::Final, "00000001"),
            found("2024-05-02", 1, State::Final, "00000003"),
            found("2024-05-02", 2, State::Final, "00000002"),
            found("2024-05-03", 1, State::Final, "00000005"),
            later,
        ],
        Vec::new(),
    );
    assert_eq!(attempts(&chosen.newest), ["r1-00000001", "r2-00000002", "r1-00000006"]);
    assert_eq!(attempts(&chosen.older), ["r2-00000004", "r1-00000003", "r1-00000005"]);
}

#[test]
fn a_revision_that_cannot_be_read_hides_those_before_it_and_not_those_after() {
    let revisions =
        vec![found("2024-05-01", 1, State::Final, "00000001"), found("2024-05-02", 2, State::Final, "00000002")];
    let unreadable = vec![left_out("2024-05-01", 2), left_out("2024-05-02", 1), left_out("2024-05-03", 1)];
    let chosen = chosen(revisions, unreadable);
    assert_eq!(attempts(&chosen.newest), ["r2-00000002"]);
    assert_eq!(chosen.left_out, [left_out("2024-05-01", 2), left_out("2024-05-03", 1)]);
}

#[test]
fn of_several_feeds_the_one_is_taken_that_is_named_or_hinted_at() {
    let own = found("2024-05-01", 1, State::Final, "00000001");
    let foreign = Found { feed_id: "0ther".into(), ..found("2024-05-02", 1, State::Final, "00000002") };
    let both = || vec![own.clone(), foreign.clone()];
    let taken = |found, wanted| choose(found, Vec::new(), "datanommer", wanted).map(|chosen| chosen.feed_id);
    let refusal = taken(both(), Wanted::Hinted(None)).expect_err("two feeds");
    assert!(refusal.what.contains("0ther (1 days, 2024-05-02 to 2024-05-02), f00d"), "{refusal}");
    assert_eq!(taken(both(), Wanted::Hinted(Some("f00d"))).as_deref().ok(), Some("f00d"));
    assert_eq!(taken(both(), Wanted::Named("0ther")).as_deref().ok(), Some("0ther"));
    assert!(taken(both(), Wanted::Hinted(Some("damaged"))).is_err());
    assert_eq!(taken(vec![own], Wanted::Hinted(Some("damaged"))).as_deref().ok(), Some("f00d"), "there is only one");
    assert_eq!(taken(vec![foreign], Wanted::Named("f00d")).expect_err("named, and not there").class, Class::Usage);
    assert_eq!(taken(Vec::new(), Wanted::Hinted(None)).expect_err("none").class, Class::Integrity);
}

#[test]
fn a_revision_that_the_remains_do_not_name_is_doubted_when_they_name_another() {
    let (newest, older) = (
        vec![found("2024-05-01", 2, State::Final, "00000002"), found("2024-05-02", 2, State::Final, "00000004")],
        vec![found("2024-05-01", 1, State::Final, "00000001"), found("2024-05-02", 1, State::Final, "00000003")],
    );
    let remains = "… 2024-05-01/r1-00000001/manifest.json … 2024-05-02/r2-00000004/manifest.json …";
    assert_eq!(doubtful(&newest, &older, remains), [day("2024-05-01")]);
    assert_eq!(doubtful(&newest, &older, ""), [], "nothing is left to doubt by");
}

#[test]
fn older_revisions_are_retired_only_where_a_newer_one_is_published() {
    let days = vec![found("2024-05-01", 2, State::Final, "00000002")];
    let older =
        vec![found("2024-05-01", 1, State::Final, "00000001"), found("2024-05-02", 1, State::Final, "00000003")];
    let base = Feed { sequence: 9, ..fixtures::empty_feed() };
    let feed = rebuild(base, days, &older, &[left_out("2024-05-02", 4)], instant(NOW));
    let retired: Vec<(Day, u32, bool)> =
        feed.retired.iter().map(|retired| (retired.day, retired.revision, retired.deleted_at.is_some())).collect();
    assert_eq!(retired, [(day("2024-05-01"), 1, false), (day("2024-05-02"), 4, true)]);
    assert_eq!(feed.last_revision(day("2024-05-02")), 4, "the next revision does not repeat a number");
    assert_eq!((feed.sequence, feed.oldest, feed.newest), (9, Some(day("2024-05-01")), Some(day("2024-05-01"))));
    Feed::parse(&feed.to_bytes()).expect("a head that readers take");
}

#[test]
fn what_a_sound_head_let_go_of_stays_retired_and_a_day_that_is_back_has_no_tombstone() {
    let one = found("2024-05-01", 1, State::Final, "00000001");
    let two = found("2024-05-02", 1, State::Final, "00000002");
    let mut base = fixtures::empty_feed();
    base.retired.push(one.entry.clone().retire(RetiredReason::Pruned, instant(NOW)));
    let mut tombstone = two.entry.clone().retire(RetiredReason::Superseded, instant(NOW));
    tombstone.deleted_at = Some(instant(NOW));
    base.retired.push(tombstone);
    let feed = rebuild(base, vec![two], &[], &[], instant(NOW));
    let retired: Vec<Day> = feed.retired.iter().map(|retired| retired.day).collect();
    assert_eq!(retired, [day("2024-05-01")]);
}

#[test]
fn the_sequence_is_above_whatever_came_before() {
    let now = instant(NOW);
    let seconds = u64::try_from(now.timestamp()).expect("after 1970");
    assert_eq!(next_sequence(None, now), seconds);
    assert_eq!(next_sequence(Some(41), now), seconds);
    assert_eq!(next_sequence(Some(seconds + 7), now), seconds + 8, "repaired twice within a second");
    assert_eq!(next_sequence(Some(u64::MAX), now), seconds, "damage is no number");
}

#[test]
fn a_damaged_head_still_shows_who_it_was() {
    let id = "0123456789abcdef0123456789abcdef";
    let head = format!("{{\"format\": 1,\n  \"feed_id\": \"{id}\",\n  \"sequence\" : 41, \"da");
    let told = Fragments { feed_id: Some(id.into()), sequence: Some(41) };
    assert_eq!(Fragments::of(head.as_bytes()), told);
    for damage in ["", "{\"format\": 1,", "\"sequence\": x \"feed_id\": \"short\"", "\u{0}\u{0}"] {
        assert_eq!(Fragments::of(damage.as_bytes()), Fragments::default(), "{damage}");
    }
}
