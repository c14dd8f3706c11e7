//! One connection's share of a table's rows, from the server's COPY into objects that are not visible yet.
//!
//! Three hands, each with its own bounded queue to the next:
//!
//! | hand | thread | hands on |
//! |---|---|---|
//! | reader | blocking | rows parsed in place, digested and gathered into chunks of 4 MiB; queue of 1 |
//! | encoder | blocking | frames, a chunk each; queue of 1 |
//! | uploader | task | bytes into the store's own write |
//!
//! Memory per share under way: 1 MiB read buffer, 3 chunks (one being filled, one queued, one being encoded) that are used
//! again and again, zstd's context and 4 MiB to compress a chunk into, 3 frames as they are stored; a row longer than a
//! chunk is held up to three times while it passes. The queues end when
//! their sender is gone, whether it was done or failed, so the end of a queue proves nothing: only the reader's own
//! result, with the server's `COPY n`, says that the slice is complete. Failures travel both ways: a hand whose
//! neighbour is gone stops, and the reader cancels the server's query.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use anyhow::Context;
use tokio::sync::mpsc as tasks;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::codec::{Chunk, CodecError, Encoded, Encoder, Gatherer, NotARow, Piece, RowFormat, Tally};
use crate::error::{Class, Failure};
use crate::layout::{Key, PartNames};
use crate::manifest::Part;
use crate::pg::{PgError, Session};
use crate::progress::Progress;
use crate::store::{Store, StoreError, Upload};

/// Chunks waiting between reader and encoder.
const CHUNKS_QUEUED: usize = 1;
/// Blocks waiting between encoder and uploader.
const BLOCKS_QUEUED: usize = 1;

/// A slice, or a share of it, whose every row has arrived, encoded and staged: to be made visible, or not.
pub struct Staged {
    /// Its rows; the server counted as many.
    pub tally: Tally,
    /// Its parts by their names, at least one; more where connections shared the table, or where a store limits the
    /// size of an object.
    pub parts: Vec<StagedPart>,
}

/// A part that is written whole.
pub struct StagedPart {
    /// Where it will be.
    pub key: Key,
    /// Its stored bytes.
    pub encoded: Encoded,
    /// The object, not visible yet.
    pub upload: Box<dyn Upload>,
}

impl StagedPart {
    /// The part as a manifest names it.
    pub fn describe(&self) -> Part {
        let Encoded { stored_bytes, sha256, frames } = self.encoded.clone();
        Part { key: self.key.clone(), stored_bytes, sha256, frames }
    }
}

impl Staged {
    /// The shares of one slice together.
    pub fn union(self, other: Staged) -> Staged {
        let mut parts = self.parts;
        parts.extend(other.parts);
        parts.sort_by(|one, other| one.key.as_str().len().cmp(&other.key.as_str().len()).then(one.key.cmp(&other.key)));
        Staged { tally: self.tally.union(other.tally), parts }
    }

    /// Gives up: nothing becomes visible.
    ///
    /// # Errors
    /// The store's first; the other parts were given up nevertheless.
    pub async fn abort(self) -> Result<(), StoreError> {
        abort_all(self.parts.into_iter().map(|part| part.upload).collect()).await
    }
}

/// `error`, and beside it that staged bytes stay: they only cost room.
pub fn not_removed(error: anyhow::Error, removed: Result<(), StoreError>) -> anyhow::Error {
    match removed {
        Ok(()) => error,
        Err(abort) => error.context(format!("(what was written could not be removed: {abort})")),
    }
}

/// Aborts every upload; the first error is returned when all were tried.
pub async fn abort_all(uploads: Vec<Box<dyn Upload>>) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    for upload in uploads {
        let aborted = upload.abort().await;
        outcome = outcome.and(aborted);
    }
    outcome
}

/// What all hands share with the run.
#[derive(Clone, Copy)]
pub struct Hands<'r> {
    /// Counts rows as they arrive.
    pub progress: &'r Progress,
    /// Ends them.
    pub cancel: &'r CancellationToken,
}

/// Why a hand stopped.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Server(#[from] PgError),
    #[error(transparent)]
    Row(#[from] NotARow),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the next hand is gone")]
    NeighbourGone,
}

/// What is read, and how it is written.
pub struct Reading {
    /// `COPY (…) TO STDOUT` statements, each of which is asked for when the one before it is through: others may take
    /// from the same.
    pub copies: Box<dyn Iterator<Item = String> + Send>,
    /// The format that they write.
    pub format: RowFormat,
    /// The names of the parts.
    pub names: Numbered,
    /// zstd's level.
    pub level: i32,
}

/// The names of a slice's parts, each of which is given out once.
#[derive(Debug, Clone)]
pub struct Numbered {
    names: PartNames,
    given: Arc<AtomicU32>,
}

impl Numbered {
    /// All of `names`.
    pub fn of(names: PartNames) -> Numbered {
        Numbered { names, given: Arc::default() }
    }

    fn next(&self) -> Key {
        self.names.key(self.given.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Reads rows through `session` into uploads: several where the store limits the size of an object. The session comes
/// back unless its thread panicked; after a failure it may be unusable.
///
/// # Errors
/// The server's, the store's; class Integrity when the rows that arrived are not as many as the server says it sent.
/// The uploads are aborted then.
pub async fn stage(
    mut session: Session,
    reading: Reading,
    store: &dyn Store,
    hands: Hands<'_>,
) -> (Option<Session>, anyhow::Result<Staged>) {
    let Reading { mut copies, format, names, level } = reading;
    let mut uploader = Uploader { store, names, open: None, parts: Vec::new() };
    // A store that refuses is noticed before the source is made to work.
    if let Err(error) = uploader.begin().await {
        return (Some(session), Err(error));
    }
    let (chunks_in, chunks_out) = sync_channel(CHUNKS_QUEUED);
    let (spare_in, spare_out) = channel();
    let (pieces_in, mut pieces_out) = tasks::channel(BLOCKS_QUEUED);
    let counter = hands.progress.clone();
    let gatherer = Gatherer::new(format.clone());
    let reader = spawn_blocking(move || {
        let outcome = read(&mut session, &mut copies, gatherer, (&chunks_in, &spare_out), &counter);
        (session, outcome)
    });
    let part_limit = store.max_object_bytes();
    let encoder = spawn_blocking(move || {
        let mut encoder = Encoder::new(format, level, part_limit)?;
        encode(&mut encoder, (&chunks_out, &spare_in), &pieces_in)?;
        encoder.finish(&mut |piece| hand_on(&pieces_in, piece))
    });

    let mut uploaded = Ok(());
    while let Some(piece) = pieces_out.recv().await {
        // A store may take its time; the end of the run does not wait for it.
        uploaded =
            hands.cancel.run_until_cancelled(uploader.take(piece)).await.unwrap_or(Err(PgError::Cancelled.into()));
        if uploaded.is_err() {
            break;
        }
    }
    drop(pieces_out);
    let encoded = encoder.await;
    let (session, read) = match reader.await {
        Ok((session, read)) => (Some(session), read),
        Err(panic) => return (None, uploader.give_up(anyhow::Error::new(panic)).await),
    };
    let outcome = match (uploaded, encoded, read) {
        (Err(error), _, _) => Err(error),
        (Ok(()), Err(panic), _) => Err(anyhow::Error::new(panic)),
        (Ok(()), Ok(Err(Stopped::Codec(error))), _) => {
            Err(anyhow::Error::new(error).context(format!("cannot encode {}", uploader.names.names.key(1))))
        }
        (Ok(()), Ok(_), Err(Stopped::Server(error))) if is_too_long(&error) => {
            Err(Failure::new(Class::Other, format!("a row is too long for the server to send in this format: {error}"))
                .meaning("nothing of the day was published")
                .next("state format = \"binary\" for this table: bytea takes twice its size as text; or leave the column out with columns")
                .into())
        }
        (Ok(()), Ok(_), Err(Stopped::Server(error))) => Err(error.into()),
        (Ok(()), Ok(_), Err(error)) | (Ok(()), Ok(Err(error)), Ok(_)) => Err(error.into()),
        (Ok(()), Ok(Ok(())), Ok((tally, counted))) => check_count(tally, counted).map(|()| tally),
    };
    match outcome {
        Ok(tally) => (session, Ok(Staged { tally, parts: uploader.parts })),
        Err(error) => (session, uploader.give_up(error).await),
    }
}

/// Does the server refuse to build what it should send? It builds a field, and a row, in 1 GiB of memory at most.
fn is_too_long(error: &PgError) -> bool {
    let PgError::Server(error) = error else { return false };
    // The second is one of the server's internal messages, which are not translated.
    error.code == "54000" || error.message.starts_with("invalid memory alloc request size")
}

/// Blocks into one upload per part.
struct Uploader<'s> {
    store: &'s dyn Store,
    names: Numbered,
    open: Option<(Key, Box<dyn Upload>)>,
    parts: Vec<StagedPart>,
}

impl Uploader<'_> {
    /// The upload of the part that is being written.
    async fn begin(&mut self) -> anyhow::Result<&mut (Key, Box<dyn Upload>)> {
        if self.open.is_none() {
            let key = self.names.next();
            let upload = self.store.upload(&key).await?;
            self.open = Some((key, upload));
        }
        self.open.as_mut().context("an upload is open")
    }

    async fn take(&mut self, piece: Piece) -> anyhow::Result<()> {
        let (key, upload) = self.begin().await?;
        let named = || format!("cannot write {key}");
        match piece {
            Piece::Block(block) => upload.write(block.into()).await.with_context(named)?,
            Piece::End(encoded) => {
                upload.seal().await.with_context(named)?;
                self.parts.extend(self.open.take().map(|(key, upload)| StagedPart { key, encoded, upload }));
            }
        }
        Ok(())
    }

    async fn give_up<T>(self, error: anyhow::Error) -> anyhow::Result<T> {
        let open = self.open.into_iter().map(|(_, upload)| upload);
        let uploads = open.chain(self.parts.into_iter().map(|part| part.upload)).collect();
        let removed = abort_all(uploads).await;
        Err(not_removed(error, removed))
    }
}

/// The rows that arrived against the server's own count.
fn check_count(tally: Tally, counted: u64) -> anyhow::Result<()> {
    if tally.rows == counted {
        return Ok(());
    }
    Err(Failure::new(Class::Integrity, format!("{} rows arrived, the server says it sent {counted}", tally.rows))
        .meaning("the slice was discarded; nothing of the day is visible")
        .next("run again; if it repeats, something between here and the server changes the stream")
        .into())
}

fn read(
    session: &mut Session,
    copies: &mut dyn Iterator<Item = String>,
    mut gatherer: Gatherer,
    (chunks, spare): (&SyncSender<Chunk>, &Receiver<Chunk>),
    progress: &Progress,
) -> Result<(Tally, u64), Stopped> {
    let hand_on = |chunk: Chunk| {
        progress.add_bytes(chunk.bytes.len() as u64);
        chunks.send(chunk).map_err(|_| Stopped::NeighbourGone)
    };
    let mut counted = 0;
    for copy in copies {
        counted += session.copy_out(&copy, |message| match gatherer.message(message)? {
            Some(full) => {
                spare.try_iter().for_each(|encoded| gatherer.reuse(encoded));
                hand_on(full)
            }
            None => Ok::<_, Stopped>(()),
        })?;
        gatherer.end_copy()?;
    }
    let (rest, tally) = gatherer.finish();
    rest.map_or(Ok(()), hand_on)?;
    Ok((tally, counted))
}

fn encode(
    encoder: &mut Encoder,
    (chunks, spare): (&Receiver<Chunk>, &Sender<Chunk>),
    pieces: &tasks::Sender<Piece>,
) -> Result<(), Stopped> {
    while let Ok(chunk) = chunks.recv() {
        encoder.chunk(&chunk, &mut |piece| hand_on(pieces, piece))?;
        // Nobody takes it back when all rows are read.
        let _ = spare.send(chunk);
    }
    Ok(())
}

fn hand_on(pieces: &tasks::Sender<Piece>, piece: Piece) -> Result<(), Stopped> {
    pieces.blocking_send(piece).map_err(|_| Stopped::NeighbourGone)
}
