//! The story: parse, load, run, report, exit code.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use clap::Parser;
use tokio_util::sync::CancellationToken;

use pgslice::catchup::restored::RestoredFrom;
use pgslice::cli::{
    CatchupArgs, Cli, Command, ExportArgs, GetArgs, Global, LsArgs, PruneArgs, PutArgs, RepairArgs, VerifyArgs,
};
use pgslice::config::{self, Config, SingleWriter};
use pgslice::day::{Day, DayRange};
use pgslice::error::{Class, Failure, class_of};
use pgslice::export::day::NewSource;
use pgslice::export::plan::{Force, Request, Rules, Shrink};
use pgslice::pg::{Endpoint, pooler};
use pgslice::progress::Progress;
use pgslice::store::{self, Access, SharedStore};
use pgslice::{catchup, check, export, repair, report, retention, status, stream, verify};

/// How often it is asked whether the dataset's lock is still held.
const LOCK_WATCH: Duration = Duration::from_secs(1);

/// How long connections have to say goodbye.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    report::init_log(&cli.global);
    let interrupt = Interrupt::default();
    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime").and_then(
            |runtime| {
                let outcome = runtime.block_on(Box::pin(run(cli.command, &cli.global, &interrupt)));
                // What was given up may still be waiting for a server.
                runtime.shutdown_timeout(LAST_WORDS);
                outcome
            },
        );
    let class = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        // What failed because the run was being ended is not worth telling.
        Err(error) if interrupt.token.is_cancelled() => {
            tracing::debug!("{error:#}");
            interrupt.class()
        }
        Err(error) => {
            if error.downcast_ref::<Told>().is_none() {
                report::print_error(&cli.global, &error);
            }
            error.downcast_ref::<Told>().map_or_else(|| class_of(&error), |told| told.0)
        }
    };
    ExitCode::from(class.exit_code())
}

/// A failure that the report on standard output has told already.
#[derive(Debug, thiserror::Error)]
#[error("the run did not do all that was asked")]
struct Told(Class);

async fn run(command: Command, global: &Global, interrupt: &Interrupt) -> anyhow::Result<()> {
    interrupt.watch()?;
    let path = config::find(global.config.as_deref()).map_err(Failure::from)?;
    let config = Arc::new(config::load(&path).map_err(Failure::from)?);
    match command {
        Command::Export(args) => run_export(config, args, global, interrupt).await,
        Command::Prune(args) => run_prune(&config, &args, global, interrupt).await,
        Command::Catchup(args) => run_catchup(&config, args, global, interrupt).await,
        Command::Check => run_check(&config, global).await,
        Command::Status => run_status(&config, global, interrupt).await,
        Command::Ls(args) => run_ls(&config, &args, global, interrupt).await,
        Command::Verify(args) => run_verify(&config, args, global, interrupt).await,
        Command::Repair(args) => run_repair(&config, args, global, interrupt).await,
        Command::Put(args) => run_put(&config, args, global, interrupt).await,
        Command::Get(args) => run_get(&config, &args, global, interrupt).await,
    }
}

async fn run_export(
    config: Arc<Config>,
    args: ExportArgs,
    global: &Global,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let source = source_endpoint(&config)?;
    let today = config.timezone.day_of(Utc::now());
    let request = match (args.date, args.from, args.to) {
        (Some(date), _, _) => Request::Day(date.on(today)),
        (None, Some(from), Some(to)) => Request::Range(DayRange { from: from.on(today), to: to.on(today) }),
        _ => Request::Due,
    };
    if let Request::Range(range) = request {
        check_order(range.from, range.to)?;
    }
    let rules = Rules {
        force: if args.force { Force::Yes } else { Force::No },
        shrink: if args.accept_shrink { Shrink::Accepted } else { Shrink::Guarded },
        max_shrink: config.export.max_shrink,
    };
    let url = configured(config.store.url.as_ref(), "store.url", &config)?;
    if args.dry_run && !store::is_there(url) {
        let outcome = export::run::plan(&config, &source, None, request).await?;
        return report::print(global, &outcome, &outcome.lines());
    }
    let store = open_store(&config, if args.dry_run { Access::ReadOnly } else { Access::ReadWrite }, interrupt).await?;
    if !args.dry_run {
        only_writer(&config, &source, interrupt).await?;
    }
    let mut outcome = if args.dry_run {
        export::run::plan(&config, &source, Some(&*store), request).await?
    } else {
        let new_source = if args.new_source { NewSource::Accepted } else { NewSource::Refused };
        let options = export::Options { request, rules, new_source, wait: args.wait };
        let progress = progress(global);
        export::run(Arc::clone(&config), source, Arc::clone(&store), options, interrupt.token.clone(), progress).await?
    };
    let failed = if interrupt.token.is_cancelled() { Some(interrupt.class()) } else { outcome.failure(request) };
    if args.prune && failed.is_none() {
        let mode = if args.dry_run { retention::Mode::DryRun } else { retention::Mode::Apply };
        outcome.pruned = Some(retention::prune(&store, &config.retention, Utc::now(), mode).await?);
        outcome.requests = store.requests();
    }
    report::print(global, &outcome, &outcome.lines())?;
    match (failed, outcome.pruned.as_ref().and_then(retention::PruneReport::failure)) {
        (Some(class), _) => Err(Told(class).into()),
        (None, Some(failure)) => Err(failure.into()),
        (None, None) => Ok(()),
    }
}

async fn run_prune(config: &Config, args: &PruneArgs, global: &Global, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut rules = config.retention.clone();
    rules.keep_days = args.keep.unwrap_or(rules.keep_days);
    let (mode, access) = match args.dry_run {
        true => (retention::Mode::DryRun, Access::ReadOnly),
        false => (retention::Mode::Apply, Access::ReadWrite),
    };
    let store = open_store(config, access, interrupt).await?;
    if !args.dry_run {
        lock_if_single_writer(config, interrupt).await?;
    }
    let outcome = retention::prune(&store, &rules, Utc::now(), mode).await?;
    report::print(global, &outcome, &outcome.lines())?;
    outcome.failure().map_or(Ok(()), |failure| Err(failure.into()))
}

async fn run_catchup(config: &Config, args: CatchupArgs, global: &Global, interrupt: &Interrupt) -> anyhow::Result<()> {
    let replica = replica_endpoint(config, args.replica.filter(|url| !url.is_empty()))?;
    let store = open_store(config, Access::ReadOnly, interrupt).await?;
    let now = Utc::now();
    let today = config.timezone.day_of(now);
    let options = catchup::Options {
        request: catchup::plan::Request {
            from: args.from.map(|day| day.on(today)),
            to: args.to.map(|day| day.on(today)),
            gaps: if args.allow_gap { catchup::plan::Gaps::Allow } else { catchup::plan::Gaps::Stop },
        },
        restored_from: args
            .restored_from
            .map(RestoredFrom::Recorded)
            .or_else(|| args.taken_at.map(RestoredFrom::BegunAt)),
        missing_tables: match args.create {
            true => catchup::run::MissingTables::Create,
            false => catchup::run::MissingTables::Refuse,
        },
        extra: if args.force { catchup::apply::Extra::Delete } else { catchup::apply::Extra::Keep },
        mode: if args.dry_run { catchup::run::Mode::DryRun } else { catchup::run::Mode::Apply },
    };
    if let (Some(from), Some(to)) = (options.request.from, options.request.to) {
        check_order(from, to)?;
    }
    let progress = progress(global);
    let outcome = catchup::run(config, replica, store, options, now, interrupt.token.clone(), progress).await?;
    report::print(global, &outcome, &outcome.lines())?;
    match outcome.failure() {
        Some(failure) => Err(failure.clone().into()),
        None => Ok(()),
    }
}

async fn run_check(config: &Config, global: &Global) -> anyhow::Result<()> {
    configured(config.store.url.as_ref(), "store.url", config)?;
    let outcome = check::run(config).await;
    report::print(global, &outcome, &outcome.lines())?;
    outcome.failure().map_or(Ok(()), |class| Err(Told(class).into()))
}

async fn run_status(config: &Config, global: &Global, interrupt: &Interrupt) -> anyhow::Result<()> {
    let store = open_store(config, Access::ReadOnly, interrupt).await?;
    let feed = pgslice::head::read_existing(&*store).await?;
    let applied = match &config.replica.url {
        Some(_) => {
            let replica = replica_endpoint(config, None)?;
            pooler::refuse_shared_sessions(&replica, "replica").await?;
            let client = replica.client().await.context("cannot connect to the replica")?;
            catchup::ledger::applied_revisions(&client, &feed.feed_id).await?
        }
        None => None,
    };
    let timezone = feed.timezone.parse().unwrap_or(config.timezone);
    let status = status::status(&feed, timezone, Utc::now(), applied.as_ref());
    report::print(global, &status, &status.lines())
}

async fn run_ls(config: &Config, args: &LsArgs, global: &Global, interrupt: &Interrupt) -> anyhow::Result<()> {
    let store = open_store(config, Access::ReadOnly, interrupt).await?;
    let listing = status::list(&store).await?;
    let lines = if args.urls { listing.urls() } else { listing.lines() };
    report::print(global, &listing, &lines)
}

async fn run_verify(config: &Config, args: VerifyArgs, global: &Global, interrupt: &Interrupt) -> anyhow::Result<()> {
    let store = open_store(config, Access::ReadOnly, interrupt).await?;
    let today = config.timezone.day_of(Utc::now());
    let options = verify::Options {
        from: args.from.map(|day| day.on(today)),
        to: args.to.map(|day| day.on(today)),
        data: args.read_data,
        source: if args.source { Some(source_endpoint(config)?) } else { None },
        replica: match args.replica {
            Some(url) => Some(replica_endpoint(config, Some(url).filter(|url| !url.is_empty()))?),
            None => None,
        },
    };
    if let (Some(from), Some(to)) = (options.from, options.to) {
        check_order(from, to)?;
    }
    let outcome = verify::run(config, &store, options, &interrupt.token, &progress(global)).await?;
    report::print(global, &outcome, &outcome.lines())?;
    outcome.failure().map_or(Ok(()), |class| Err(Told(class).into()))
}

async fn run_repair(config: &Config, args: RepairArgs, global: &Global, interrupt: &Interrupt) -> anyhow::Result<()> {
    let (mode, access) = match args.dry_run {
        true => (repair::Mode::DryRun, Access::ReadOnly),
        false => (repair::Mode::Apply, Access::ReadWrite),
    };
    let options = repair::Options {
        depth: if args.sizes_only { repair::Depth::Sizes } else { repair::Depth::Digests },
        sound_head: if args.force { repair::SoundHead::Replace } else { repair::SoundHead::Keep },
        incomplete: if args.leave_out { repair::Incomplete::LeaveOut } else { repair::Incomplete::Refuse },
        feed_id: args.feed_id,
        mode,
    };
    let store = open_store(config, access, interrupt).await?;
    if !args.dry_run {
        lock_if_single_writer(config, interrupt).await?;
    }
    let outcome = repair::run(config, &store, &options, Utc::now(), &interrupt.token, &progress(global)).await?;
    report::print(global, &outcome, &outcome.lines())?;
    outcome.failure().map_or(Ok(()), |class| Err(Told(class).into()))
}

async fn run_put(config: &Config, args: PutArgs, global: &Global, interrupt: &Interrupt) -> anyhow::Result<()> {
    let subject = match (args.full, args.taken_at) {
        (false, _) => stream::Subject::Stream,
        (true, None) => stream::Subject::FullDump,
        (true, Some(taken_at)) => stream::Subject::FullDumpBegunAt(taken_at),
    };
    let input = if args.command.is_empty() { stream::Input::Own } else { stream::Input::Command(args.command) };
    if input == stream::Input::Own && std::io::stdin().is_terminal() {
        let failure = Failure::new(Class::Usage, "standard input is a terminal, and no command is named");
        return Err(failure.next("name the command after --, or pipe something into standard input").into());
    }
    let request = stream::Request { key: args.key, input, subject };
    let needs_source = subject == stream::Subject::FullDump || config.store.single_writer == SingleWriter::Yes;
    let source = if needs_source { Some(source_endpoint(config)?) } else { None };
    let store = open_store(config, Access::ReadWrite, interrupt).await?;
    let progress = progress(global);
    let outcome = stream::put(config, source.as_ref(), &store, &request, &interrupt.token, &progress).await?;
    report::print(global, &outcome, &outcome.lines())
}

async fn run_get(config: &Config, args: &GetArgs, global: &Global, interrupt: &Interrupt) -> anyhow::Result<()> {
    let output = report::data_output()?;
    let store = open_store(config, Access::ReadOnly, interrupt).await?;
    let got = stream::get(&store, &args.key, output, &interrupt.token, &progress(global)).await?;
    match got.proof {
        stream::Proof::Recorded => tracing::info!("{}", got.line()),
        stream::Proof::None => tracing::warn!("{}", got.line()),
    }
    Ok(())
}

async fn open_store(config: &Config, access: Access, interrupt: &Interrupt) -> anyhow::Result<SharedStore> {
    configured(config.store.url.as_ref(), "store.url", config)?;
    let opening = interrupt.token.run_until_cancelled(Box::pin(store::open(&config.store, access)));
    let store = opening.await.context("the run was ended")??;
    Ok(store::for_run(store, config.store.max_rate, interrupt.token.clone()))
}

/// As [`only_writer`], for commands that need no source otherwise.
async fn lock_if_single_writer(config: &Config, interrupt: &Interrupt) -> anyhow::Result<()> {
    match config.store.single_writer {
        SingleWriter::No => Ok(()),
        SingleWriter::Yes => only_writer(config, &source_endpoint(config)?, interrupt).await,
    }
}

/// The dataset's lock, where the store cannot keep writers apart; it lasts as long as the connection.
/// When the connection is lost, so is the lock, and the run is ended.
async fn only_writer(config: &Config, source: &Endpoint, interrupt: &Interrupt) -> anyhow::Result<()> {
    if config.store.single_writer == SingleWriter::No {
        return Ok(());
    }
    let taking = interrupt.token.run_until_cancelled(Box::pin(export::lock::dataset(source, &config.dataset)));
    let held = taking.await.context("the run was ended")??;
    let interrupt = interrupt.clone();
    tokio::spawn(async move {
        while held.simple_query("select").await.is_ok() {
            tokio::time::sleep(LOCK_WATCH).await;
        }
        tracing::error!("the dataset's lock on the source is lost: another run could write, so this one ends");
        interrupt.lock_is_lost.store(true, Ordering::Relaxed);
        interrupt.token.cancel();
    });
    Ok(())
}

fn source_endpoint(config: &Config) -> anyhow::Result<Endpoint> {
    let url = configured(config.source_url.as_ref(), "source.url", config)?;
    let source = Endpoint::with_password_file(url, config.source_password_file.as_deref())?;
    warn_of_password(&source, &format!("source.url in {}", config.path.display()));
    Ok(source)
}

/// The database of `--replica URL` if that was `given`, else the configured one.
fn replica_endpoint(config: &Config, given: Option<String>) -> anyhow::Result<Endpoint> {
    if let Some(url) = given {
        let replica = Endpoint::parse(&url)?;
        warn_of_password(&replica, "--replica, where every user of this machine can read it,");
        return Ok(replica);
    }
    let url = configured(config.replica.url.as_ref(), "replica.url", config)?;
    let replica = Endpoint::with_password_file(url, config.replica.password_file.as_deref())?;
    warn_of_password(&replica, &format!("replica.url in {}", config.path.display()));
    Ok(replica)
}

fn warn_of_password(endpoint: &Endpoint, place: &str) {
    if endpoint.tells_password() {
        tracing::warn!(
            "{place} holds a password: move it to a passfile, a password-file, PGPASSWORD or a service file"
        );
    }
}

fn configured<'a>(value: Option<&'a String>, key: &str, config: &Config) -> anyhow::Result<&'a str> {
    value.map(String::as_str).ok_or_else(|| {
        Failure::new(Class::Usage, format!("{} does not set {key}", config.path.display()))
            .next("this command needs it (`--replica URL` stands for replica.url)")
            .into()
    })
}

fn check_order(from: Day, to: Day) -> Result<(), Failure> {
    if from <= to { Ok(()) } else { Err(Failure::new(Class::Usage, format!("--from {from} is after --to {to}"))) }
}

fn progress(global: &Global) -> Progress {
    if global.quiet { Progress::hidden() } else { Progress::on_terminal() }
}

/// SIGINT and SIGTERM: end what is under way, publish nothing more, and say so by the exit code.
#[derive(Debug, Default, Clone)]
struct Interrupt {
    token: CancellationToken,
    by_term: Arc<AtomicBool>,
    lock_is_lost: Arc<AtomicBool>,
}

impl Interrupt {
    fn watch(&self) -> anyhow::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => this.by_term.store(true, Ordering::Relaxed),
            }
            this.token.cancel();
            // Whoever asks twice does not want to wait for what is being put in order.
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(i32::from(this.class().exit_code()));
        });
        Ok(())
    }

    fn class(&self) -> Class {
        match (self.lock_is_lost.load(Ordering::Relaxed), self.by_term.load(Ordering::Relaxed)) {
            (true, _) => Class::Locked,
            (false, true) => Class::Terminated,
            (false, false) => Class::Interrupted,
        }
    }
}
