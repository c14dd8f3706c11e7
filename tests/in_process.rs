//! Commands run in the test's own process, over a store that the test hands in.

use std::sync::Arc;

use chrono::Utc;
use pgslice::catchup::apply::Extra;
use pgslice::catchup::plan::{Gaps, Request as Wanted};
use pgslice::catchup::run::{MissingTables, Mode};
use pgslice::catchup::{self, CatchupReport};
use pgslice::config::{self, Config};
use pgslice::day::Day;
use pgslice::export::day::NewSource;
use pgslice::export::plan::{Force, Request, Rules, Shrink};
use pgslice::export::{self, ExportReport};
use pgslice::pg::Endpoint;
use pgslice::progress::Progress;
use pgslice::store::SharedStore;
use tokio_util::sync::CancellationToken;

use crate::scene::Scene;

/// The scene's configuration.
pub(crate) fn config(scene: &Scene) -> Arc<Config> {
    Arc::new(config::load(&scene.configuration()).expect("a valid configuration"))
}

/// The scene's store.
pub(crate) async fn open(scene: &Scene) -> SharedStore {
    scene.place().open().await
}

pub(crate) fn day(text: &str) -> Day {
    text.parse().expect("a day")
}

/// Exports one day by name.
pub(crate) async fn export(scene: &Scene, store: SharedStore, day: Day, force: Force) -> anyhow::Result<ExportReport> {
    let config = config(scene);
    let source = Endpoint::parse(config.source_url.as_ref().expect("a source"))?;
    let rules = Rules { force, shrink: Shrink::Guarded, max_shrink: config.export.max_shrink };
    let options = export::Options { request: Request::Day(day), rules, new_source: NewSource::Refused, wait: None };
    export::run(config, source, store, options, CancellationToken::new(), Progress::hidden()).await
}

/// Catches the replica up from `from` on.
pub(crate) async fn catchup(scene: &Scene, store: SharedStore, from: Option<Day>) -> anyhow::Result<CatchupReport> {
    let config = config(scene);
    let replica = Endpoint::parse(config.replica.url.as_ref().expect("a replica"))?;
    let options = catchup::Options {
        request: Wanted { from, to: None, gaps: Gaps::Stop },
        restored_from: None,
        missing_tables: MissingTables::Refuse,
        extra: Extra::Keep,
        mode: Mode::Apply,
    };
    catchup::run(&config, replica, store, options, Utc::now(), CancellationToken::new(), Progress::hidden()).await
}
