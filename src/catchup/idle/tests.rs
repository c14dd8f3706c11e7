use std::path::Path;

use super::*;

const CONFIG: &str = "dataset = \"d\"\n[replica]\nurl = \"postgres:///r\"\n[[table]]\nname = \"t\"\n";
const STORE: &str = "s3://bucket/prefix";

fn config(text: &str) -> Config {
    crate::config::parse(text, Path::new("test.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn facts() -> Facts {
    Facts { tables: "public t 17 901".into(), ledger: "3 12345".into(), server: "150018 r replica".into() }
}

fn state(fingerprint: String) -> State {
    let instant = |text: &str| text.parse().expect("an instant");
    let head = HeadInBrief {
        feed_id: "f".into(),
        dataset: "d".into(),
        sequence: 7,
        published_at: instant("2024-05-02T00:20:00.123456789Z"),
        valid_until: instant("2024-05-03T12:20:00Z"),
        newest: Some("2024-05-01".parse().expect("a day")),
    };
    let settled = Settled { head, validator: Validator("\"tag\"".into()), fingerprint };
    State { settled: Some(settled), condition: Condition::Ready, facts: facts() }
}

fn settled_state() -> State {
    state(facts().fingerprint(&config(CONFIG), STORE))
}

#[test]
fn what_was_kept_is_believed_while_nothing_has_changed() {
    let state = settled_state();
    assert_eq!(state.clone().still_settled(&config(CONFIG), STORE), state.settled);
}

#[test]
fn each_fact_of_the_replica_counts() {
    for change in [
        (|facts: &mut Facts| facts.tables.push('1')) as fn(&mut Facts),
        |facts| facts.ledger = "2 12345".into(),
        |facts| facts.server = "160000 r replica".into(),
        // The same letters in another place.
        |facts| {
            facts.tables = "public t 17 9013".into();
            facts.ledger = " 12345".into();
        },
    ] {
        let mut state = settled_state();
        change(&mut state.facts);
        assert_eq!(state.clone().still_settled(&config(CONFIG), STORE), None, "{:?}", state.facts);
    }
}

#[test]
fn whatever_the_configuration_says_of_the_tables_the_feed_and_the_store_counts() {
    for changed in [
        "dataset = \"d\"\n[replica]\nurl = \"postgres:///r\"\n[[table]]\nname = \"t\"\n[[table]]\nname = \"u\"\n",
        "dataset = \"d\"\n[replica]\nurl = \"postgres:///r\"\n[[table]]\nname = \"t\"\nrename = { a = \"b\" }\n",
        "dataset = \"d\"\n[replica]\nurl = \"postgres:///r\"\nnew-columns = \"add\"\n[[table]]\nname = \"t\"\n",
        "dataset = \"d\"\n[replica]\nurl = \"postgres:///r\"\n[[table]]\nname = \"s.t\"\n",
        "dataset = \"e\"\n[replica]\nurl = \"postgres:///r\"\n[[table]]\nname = \"t\"\n",
    ] {
        assert_eq!(settled_state().still_settled(&config(changed), STORE), None, "{changed}");
    }
    assert_eq!(settled_state().still_settled(&config(CONFIG), "s3://bucket/other"), None);
}

#[test]
fn how_the_replica_is_reached_and_how_old_a_head_may_be_do_not_count() {
    let changed =
        "dataset = \"d\"\n[replica]\nurl = \"postgres://u:secret@h/r\"\nmax-age = \"1h\"\n[[table]]\nname = \"t\"\n";
    assert!(settled_state().still_settled(&config(changed), STORE).is_some());
}

#[test]
fn a_replica_that_takes_no_writes_or_is_locked_is_nothing_to_go_on_with() {
    let state = State { condition: Condition::Unclear, ..settled_state() };
    assert_eq!(state.still_settled(&config(CONFIG), STORE), None);
}

#[test]
fn only_a_run_without_options_is_plain() {
    let plain = Options {
        request: PLAIN,
        restored_from: None,
        missing_tables: MissingTables::Refuse,
        extra: Extra::Keep,
        mode: Mode::Apply,
    };
    assert!(is_plain(&plain));
    let day = Some("2024-05-01".parse().expect("a day"));
    let begun_at = restored::RestoredFrom::BegunAt("2024-05-01T00:00:00Z".parse().expect("an instant"));
    for options in [
        Options { request: Request { from: day, ..PLAIN }, ..plain.clone() },
        Options { request: Request { to: day, ..PLAIN }, ..plain.clone() },
        Options { request: Request { gaps: Gaps::Allow, ..PLAIN }, ..plain.clone() },
        Options { restored_from: Some(begun_at), ..plain.clone() },
        Options { missing_tables: MissingTables::Create, ..plain.clone() },
        Options { extra: Extra::Delete, ..plain.clone() },
        Options { mode: Mode::DryRun, ..plain.clone() },
    ] {
        assert!(!is_plain(&options), "{options:?}");
    }
}

#[test]
fn what_is_kept_comes_back_to_the_nanosecond() {
    let kept = settled_state().settled.expect("settled");
    let text = serde_json::to_string(&kept).expect("JSON");
    assert_eq!(serde_json::from_str::<Settled>(&text).expect("the same"), kept);
}
