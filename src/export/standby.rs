//! A hot standby as the source: how far it has come, and reading that its replay cancels.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::day::Day;
use crate::error::{Class, Failure};
use crate::manifest::{Manifest, Taken};
use crate::pg::{PgError, ServerRun};
use crate::store::StoreError;

/// How long to wait before a day is tried again whose reading was cancelled; after the last one it fails.
pub const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// `serialization_failure`. Transactions that only read fail with it nowhere but on a standby.
const CANCELLED_FOR_REPLAY: &str = "40001";

/// How far a standby has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// The position in the log up to which it was received by streaming; absent where none is.
    pub received: Option<String>,
    /// The position up to which it was replayed.
    pub replayed: Option<String>,
    /// Something was received that is not replayed yet.
    pub unreplayed: bool,
    /// When the newest transaction was committed on the primary that was replayed here since the standby started. An
    /// idle primary stops moving it.
    pub last_commit: Option<DateTime<Utc>>,
    /// An instant of the primary's clock up to which its whole log was received and is replayed; absent where this is
    /// not so at the moment, or where the user may not see it.
    pub replayed_all_of: Option<DateTime<Utc>>,
}

impl Standby {
    /// Has it replayed everything that was committed on the primary before `instant`?
    pub fn has_replayed_up_to(&self, instant: DateTime<Utc>) -> bool {
        self.last_commit.into_iter().chain(self.replayed_all_of).any(|proved| proved >= instant)
    }

    /// Why a day that ends at `end` is provisional when it is read here, in words.
    pub fn reason(&self, end: DateTime<Utc>) -> String {
        let at = |position: &Option<String>| position.clone().unwrap_or_else(|| "an unknown position".to_owned());
        let beyond = self.last_commit.is_some_and(|commit| commit >= end);
        let newest = match self.last_commit {
            Some(commit) => format!("what it replayed last was committed at {commit}"),
            None => "it has replayed no transaction since it started".to_owned(),
        };
        let judgement = match (beyond, self.unreplayed) {
            (true, _) => "after the day's end",
            (false, true) => "and more has been received: it is behind, and rows of the day may be missing",
            (false, false) => "and nothing more has been received: its primary is idle, or no longer reaches it",
        };
        let comma = if beyond { "" } else { "," };
        format!(
            "the source is a standby, which does not see the open transactions of its primary; it received the log up \
             to {} and replayed it up to {}; {newest}{comma} {judgement}",
            at(&self.received),
            at(&self.replayed)
        )
    }
}

/// Holds a snapshot of a standby against the published revision of the day: rows that are older than those would take
/// their place. `standby` was asked before the snapshot was taken, whose own position may be one that was replayed just
/// after it.
///
/// # Errors
/// Class Transient when the standby has not come as far as the source had when the revision was read.
pub fn check_not_behind(published: &Manifest, taken: &Taken, standby: &Standby) -> Result<(), Failure> {
    let taken = Taken { lsn: standby.replayed.clone().unwrap_or_else(|| taken.lsn.clone()), ..taken.clone() };
    if !taken.saw_less_than(&published.taken) {
        return Ok(());
    }
    Err(Failure::new(
        Class::Transient,
        format!(
            "the standby has replayed the log up to {}; revision {} of {} was read at {}",
            taken.lsn, published.revision, published.day, published.taken.lsn
        ),
    )
    .meaning("the published revision stays as it is: older rows would take its place")
    .next("run again when the standby has caught up, or export from the primary"))
}

/// Did a standby cancel what was being read, so that its replay could go on? It ends sessions that hold a snapshot or
/// a lock and do nothing; `leader_is_gone` says so of the one that exported the snapshot, without which the others fail
/// in many ways. What the store or pgslice itself refuses has another cause, whatever became of the leader.
pub fn cancelled_for_replay(error: &anyhow::Error, leader_is_gone: bool) -> bool {
    let code = error.chain().filter_map(|cause| cause.downcast_ref::<PgError>()).find_map(PgError::code);
    match code {
        Some(CANCELLED_FOR_REPLAY) => true,
        // The server is stopping: it is gone for longer than a conflict lasts.
        Some(code) if code.starts_with("57P") => false,
        _ => leader_is_gone && may_come_of_the_leaders_end(error),
    }
}

/// Is it a failure of a server or of a connection to it, and of nothing else?
fn may_come_of_the_leaders_end(error: &anyhow::Error) -> bool {
    let mut of_a_server = false;
    for cause in error.chain() {
        if cause.is::<StoreError>() {
            return false;
        }
        of_a_server |= match (cause.downcast_ref::<Failure>(), cause.downcast_ref::<PgError>()) {
            (Some(failure), _) if !ServerRun::tells_apart(failure) => return false,
            (Some(_), _) => true,
            (None, problem) => problem.is_some_and(|problem| !matches!(problem, PgError::Cancelled)),
        };
    }
    of_a_server
}

/// Asks a source, and once more after each of [`PAUSES`] if a standby cancels that.
///
/// # Errors
/// Those of the last answer.
pub async fn patiently<T>(mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for pause in PAUSES {
        match ask().await {
            Err(error) if cancelled_for_replay(&error, false) => tokio::time::sleep(pause).await,
            answer => return answer,
        }
    }
    ask().await
}

/// The failure of a day whose reading was cancelled as often as it was tried.
pub fn given_up(day: Day, error: &anyhow::Error) -> Failure {
    Failure::new(
        Class::Transient,
        format!("the standby cancelled the reading of {day} {} times for its replay: {error:#}", PAUSES.len() + 1),
    )
    .meaning("the day was not exported")
    .next(
        "on the standby raise max_standby_streaming_delay (and max_standby_archive_delay) above the time that the day \
         takes, or set hot_standby_feedback = on; or export from the primary",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::fixtures;

    fn standby(last_commit: Option<&str>, unreplayed: bool) -> Standby {
        Standby {
            received: Some("0/3000148".into()),
            replayed: Some("0/3000060".into()),
            unreplayed,
            last_commit: last_commit.map(fixtures::instant),
            replayed_all_of: None,
        }
    }

    #[test]
    fn the_reason_names_what_was_replayed_and_says_when_the_standby_is_behind() {
        let end = fixtures::instant("2024-05-02T00:00:00Z");
        let reason = |last_commit, unreplayed| standby(last_commit, unreplayed).reason(end);
        let beyond = reason(Some("2024-05-02T00:00:00Z"), true);
        assert!(beyond.contains("received the log up to 0/3000148 and replayed it up to 0/3000060"), "{beyond}");
        assert!(beyond.ends_with("was committed at 2024-05-02 00:00:00 UTC after the day's end"), "{beyond}");
        let behind = reason(Some("2024-05-01T23:59:59Z"), true);
        assert!(behind.contains("2024-05-01 23:59:59 UTC, and more has been received: it is behind"), "{behind}");
        let idle = reason(Some("2024-05-01T23:59:59Z"), false);
        assert!(idle.ends_with("its primary is idle, or no longer reaches it"), "{idle}");
        let fresh = Standby { received: None, ..standby(None, false) }.reason(end);
        assert!(fresh.contains("received the log up to an unknown position"), "{fresh}");
        assert!(fresh.contains("it has replayed no transaction since it started, and nothing more"), "{fresh}");
    }

    #[test]
    fn a_standby_has_replayed_up_to_its_last_commit_or_what_its_primary_said_whichever_is_later() {
        let end = fixtures::instant("2024-05-02T00:00:00Z");
        let (before, after) = ("2024-05-01T23:59:59Z", "2024-05-02T00:00:00Z");
        for (last_commit, all_of, expected) in [
            (None, None, false),
            (Some(before), None, false),
            (Some(after), None, true),
            (None, Some(before), false),
            (Some(before), Some(after), true),
            (Some(after), Some(before), true),
        ] {
            let replayed_all_of = all_of.map(fixtures::instant);
            let standby = Standby { replayed_all_of, ..standby(last_commit, false) };
            assert_eq!(standby.has_replayed_up_to(end), expected, "{last_commit:?} {all_of:?}");
        }
    }

    #[test]
    fn a_revision_is_not_replaced_by_rows_that_a_standby_has_behind_it() {
        let (_, published) = fixtures::manifest(
            fixtures::day("2024-05-01"),
            1,
            crate::manifest::State::Provisional,
            "00000001",
            [None; 3],
        );
        let published =
            Manifest { taken: Taken { snapshot: "740:745:740,742".into(), ..published.taken }, ..published };
        let here = |snapshot: &str| Taken { snapshot: snapshot.into(), ..published.taken.clone() };
        let as_far = Standby { replayed: Some(published.taken.lsn.clone()), ..standby(None, false) };
        let check = |taken: &Taken| check_not_behind(&published, taken, &as_far);
        let refusal = check(&here("740:744:")).expect_err("one transaction behind");
        assert_eq!(refusal.class, Class::Transient);
        check(&here("745:745:")).expect("as far");
        check(&here("740:746:")).expect("further");
        let promoted = Taken { timeline: published.taken.timeline + 1, ..here("740:744:") };
        check(&promoted).expect("another timeline is not comparable");
        check(&here("?")).expect("nor is what cannot be read");
    }

    #[test]
    fn a_revision_is_not_replaced_from_before_an_older_transactions_late_commit() {
        let day = fixtures::day("2024-05-01");
        let (_, published) = fixtures::manifest(day, 1, crate::manifest::State::Final, "00000001", [None; 3]);
        let taken =
            |snapshot: &str, lsn: &str| Taken { snapshot: snapshot.into(), lsn: lsn.into(), ..published.taken.clone() };
        let published = Manifest { taken: taken("794:794:", "0/3000148"), ..published.clone() };
        let replayed = |lsn: &str| Standby { replayed: Some(lsn.into()), ..standby(None, false) };
        let refusal = check_not_behind(&published, &taken("792:794:", "0/3000060"), &replayed("0/3000060"))
            .expect_err("xmax is the same, and 792 has not ended here");
        assert_eq!(refusal.class, Class::Transient);
        assert!(refusal.what.contains("replayed the log up to 0/3000060"), "{refusal}");
        check_not_behind(&published, &taken("792:794:", "0/3000148"), &replayed("0/3000060"))
            .expect_err("the commit was replayed after the snapshot");
        check_not_behind(&published, &taken("794:794:", "0/3000148"), &replayed("0/3000148")).expect("as far");
    }

    #[test]
    fn only_a_cancelled_reading_is_worth_another_try() {
        let failed = anyhow::Error::new(PgError::Broken).context("slice");
        assert!(!cancelled_for_replay(&failed, false));
        assert!(cancelled_for_replay(&failed, true), "whatever its workers say when the leader is gone");
    }

    #[test]
    fn what_a_store_or_a_rule_refuses_is_not_tried_again_because_the_leader_is_gone() {
        let denied = StoreError::Denied { what: "write a part".into(), source: anyhow::anyhow!("403") };
        let shrinks = Failure::new(Class::Integrity, "the slice would lose rows");
        for refused in [
            anyhow::Error::new(denied).context("cannot write a part"),
            shrinks.into(),
            Failure::new(Class::Transient, "a table is locked on the source").into(),
            PgError::Cancelled.into(),
            anyhow::anyhow!("the session of a worker is lost"),
        ] {
            assert!(!cancelled_for_replay(&refused, true), "{refused:#}");
        }
    }
}
