//! Waiting for days to end and to settle, up to a moment that counts for the whole run.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Client;

use super::day::Exporter;
use super::plan::{Candidate, Why};
use super::settle::{self, Reason, Settlement, SourceFacts, Standing};
use crate::config::Unsettled;
use crate::day::Window;
use crate::figures::human_span;
use crate::manifest::{Manifest, State};

/// How long a run that is configured to wait does so, unless it is told.
const DEFAULT_WAIT: Duration = Duration::from_secs(30 * 60);
/// How often the source is asked.
const POLL: Duration = Duration::from_secs(2);
/// What is waited for is told again when it changed, but not more often.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Until when a run waits, by this machine's steady clock.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    until: Instant,
}

impl Patience {
    /// That of a run that begins now: as long as it was told, else as it is configured.
    pub fn of(told: Option<Duration>, unsettled: Unsettled) -> Patience {
        let configured = if unsettled == Unsettled::Wait { DEFAULT_WAIT } else { Duration::ZERO };
        let now = Instant::now();
        // Nothing is waited for for longer than a year.
        let longest = Duration::from_secs(365 * 24 * 3_600);
        Patience { until: now + told.unwrap_or(configured).min(longest) }
    }

    /// How much of it is left.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Whether something was waited for: what was known before may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// Nothing.
    No,
    /// Something.
    Yes,
}

/// Tells what is waited for: at once, and again when that changed.
#[derive(Default)]
struct Teller {
    told: Option<(Vec<Reason>, Instant)>,
}

impl Teller {
    /// Is it worth telling of `reasons` at `now`?
    fn is_news(&mut self, reasons: &[Reason], now: Instant) -> bool {
        let news = match &self.told {
            None => true,
            Some((told, at)) => told != reasons && now.saturating_duration_since(*at) >= TELL_AGAIN,
        };
        if news {
            self.told = Some((reasons.to_vec(), now));
        }
        news
    }
}

impl Exporter {
    /// What the source says about itself when the day's window has ended. A day that was asked for by name is waited
    /// for if it ends in time; of any other the answer may come before its end.
    pub(super) async fn after_the_end(
        &self,
        client: &Client,
        candidate: Candidate,
        window: Window,
    ) -> anyhow::Result<SourceFacts> {
        let mut told = false;
        loop {
            let facts = settle::source_facts(client).await?;
            let left = self.patience.left();
            let Some(rest) = not_yet(facts.now, window.end) else { return Ok(facts) };
            if candidate.why != Why::Named || rest > left {
                return Ok(facts);
            }
            if !told {
                let day = candidate.day;
                self.tell(&format!("{day}: waiting for its end, which is {} away", human_span(window.end - facts.now)));
                told = true;
            }
            tokio::time::sleep(rest.min(POLL)).await;
        }
    }

    /// What could still add rows to a day, and what that makes of it, when it is settled or waiting for it is over: in
    /// autocommit, outside of any transaction.
    pub(super) async fn settled(
        &self,
        client: &Client,
        candidate: Candidate,
        window: Window,
        published: Option<&Manifest>,
    ) -> anyhow::Result<(Settlement, Standing, Waited)> {
        let export = &self.config.export;
        let (mut teller, mut waited) = (Teller::default(), Waited::No);
        loop {
            let settlement = settle::settlement(client, window, export.settle, &export.ignore_applications).await?;
            let standing = settle::standing(&settlement, published, window, export.settle);
            let left = self.patience.left();
            // Only what is published provisionally can be counted again.
            let good_enough = standing == Standing::Final
                || (standing == Standing::FinalIfEqual && export.unsettled == Unsettled::Provisional);
            let is_final_already = is_final_already(candidate, published);
            if good_enough || is_final_already || left.is_zero() || !settlement.may_pass_within(left) {
                return Ok((settlement, standing, waited));
            }
            if teller.is_news(&settlement.reasons, Instant::now()) {
                let span = human_span(TimeDelta::from_std(left).unwrap_or(TimeDelta::MAX));
                let reasons = settlement.words().join("; ");
                self.tell(&format!("{}: waiting up to {span} for it to settle: {reasons}", candidate.day));
            }
            waited = Waited::Yes;
            tokio::time::sleep(left.min(POLL)).await;
        }
    }

    fn tell(&self, line: &str) {
        self.progress.begin(line.split_once(" for it").map_or(line, |(beginning, _)| beginning));
        self.progress.suspend(|| tracing::info!("{line}"));
    }
}

/// Is it a final day that is looked at again? It is not waited for: what is unchanged stays final, and a revision
/// is found again by the next run.
pub fn is_final_already(candidate: Candidate, published: Option<&Manifest>) -> bool {
    matches!(candidate.why, Why::Lookback | Why::Named)
        && published.is_some_and(|published| published.state == State::Final)
}

/// How long it is from `now` to `end`; `None` when that has come.
fn not_yet(now: DateTime<Utc>, end: DateTime<Utc>) -> Option<Duration> {
    (end - now).to_std().ok().filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_waits_as_long_as_it_is_told_and_by_default_only_if_it_is_configured_to() {
        let minutes = |told: Option<u64>, unsettled| {
            let left = Patience::of(told.map(|minutes| Duration::from_secs(minutes * 60)), unsettled).left();
            left.as_secs().div_ceil(60)
        };
        assert_eq!(minutes(None, Unsettled::Provisional), 0);
        assert_eq!(minutes(None, Unsettled::Refuse), 0);
        assert_eq!(minutes(None, Unsettled::Wait), 30);
        assert_eq!(minutes(Some(5), Unsettled::Wait), 5);
        assert_eq!(minutes(Some(5), Unsettled::Provisional), 5);
        assert_eq!(minutes(Some(0), Unsettled::Wait), 0);
        let endless = Patience::of(Some(Duration::from_secs(u64::MAX)), Unsettled::Wait);
        assert!(endless.left() > Duration::from_secs(86_400));
    }

    #[test]
    fn what_is_waited_for_is_told_once_and_again_when_it_changed_but_not_every_moment() {
        let reason = |pid| Reason::Hidden { pid, application: String::new(), hiding: settle::Hiding::Privilege };
        let (mut teller, start) = (Teller::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        assert!(teller.is_news(&[reason(1)], start));
        assert!(!teller.is_news(&[reason(1)], at(600)), "nothing changed");
        assert!(teller.is_news(&[reason(2)], at(601)));
        assert!(!teller.is_news(&[reason(3)], at(602)), "sessions come and go");
        assert!(teller.is_news(&[reason(3)], at(661)));
    }

    #[test]
    fn a_window_has_ended_at_its_end() {
        let at = |secs: i64| DateTime::UNIX_EPOCH + TimeDelta::seconds(secs);
        assert_eq!(not_yet(at(5), at(7)), Some(Duration::from_secs(2)));
        assert_eq!(not_yet(at(7), at(7)), None);
        assert_eq!(not_yet(at(8), at(7)), None);
    }
}
