//! One table's rows, from the server's COPY into an object that is not visible yet.
//!
//! Three hands, each with its own bounded queue to the next:
//!
//! | hand | thread | hands on |
//! |---|---|---|
//! | reader | blocking | rows parsed in place, digested and gathered into chunks of 1 MiB; queue of 2 |
//! | encoder | blocking | frames, as blocks of 1 MiB of stored bytes; queue of 2 |
//! | uploader | task | bytes into the store's own write |
//!
//! Memory per slice under way: 1 MiB read buffer, 4 chunks (one being filled, two queued, one being encoded), zstd's
//! context, 4 blocks likewise; a row longer than a chunk is held up to three times while it passes. The queues end when
//! their sender is gone, whether it was done or failed, so the end of a queue proves nothing: only the reader's own
//! result, with the server's `COPY n`, says that the slice is complete. Failures travel both ways: a hand whose
//! neighbour is gone stops, and the reader cancels the server's query.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::mpsc as tasks;
use tokio::task::spawn_blocking;

use crate::codec::{Chunk, CodecError, Encoded, Encoder, Gatherer, NotALine, Tally};
use crate::error::{Class, Failure};
use crate::layout::Key;
use crate::pg::{PgError, Session};
use crate::progress::Progress;
use crate::store::{Store, Upload};

/// Chunks waiting between reader and encoder.
const CHUNKS_QUEUED: usize = 2;
/// Blocks waiting between encoder and uploader.
const BLOCKS_QUEUED: usize = 2;

/// A slice whose every row has arrived, encoded and staged: to be made visible, or not.
pub struct Staged {
    /// Its rows; the server counted as many.
    pub tally: Tally,
    /// Its stored bytes.
    pub encoded: Encoded,
    /// Where it will be.
    pub key: Key,
    /// The object, not visible yet.
    pub upload: Box<dyn Upload>,
}

/// Why a hand stopped.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Server(#[from] PgError),
    #[error(transparent)]
    Row(#[from] NotALine),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the next hand is gone")]
    NeighbourGone,
}

/// Reads `copy` (a `COPY (…) TO STDOUT` statement) through `session` into an upload to `key`. The session comes back
/// unless its thread panicked; after a failure it may be unusable.
///
/// # Errors
/// The server's, the store's; class Integrity when the rows that arrived are not as many as the server says it sent.
/// The upload is aborted then.
pub async fn stage(
    mut session: Session,
    copy: String,
    store: &dyn Store,
    key: Key,
    level: i32,
    progress: &Progress,
) -> (Option<Session>, anyhow::Result<Staged>) {
    let mut upload = match store.upload(&key).await {
        Ok(upload) => upload,
        Err(error) => return (Some(session), Err(error.into())),
    };
    let (chunks_in, chunks_out) = sync_channel(CHUNKS_QUEUED);
    let (blocks_in, mut blocks_out) = tasks::channel(BLOCKS_QUEUED);
    let counter = progress.clone();
    let reader = spawn_blocking(move || {
        let outcome = read(&mut session, &copy, &chunks_in, &counter);
        (session, outcome)
    });
    let encoder = spawn_blocking(move || encode(level, &chunks_out, &blocks_in));

    let mut uploaded = Ok(());
    while let Some(block) = blocks_out.recv().await {
        if let Err(error) = upload.write(block).await {
            uploaded = Err(error);
            break;
        }
    }
    drop(blocks_out);
    let encoded = encoder.await;
    let (session, read) = match reader.await {
        Ok((session, read)) => (Some(session), read),
        Err(panic) => return (None, give_up(upload, anyhow::Error::new(panic)).await),
    };
    let outcome = match (uploaded, encoded, read) {
        (Err(store), _, _) => Err(anyhow::Error::new(store).context(format!("cannot write {key}"))),
        (Ok(()), Err(panic), _) => Err(anyhow::Error::new(panic)),
        (Ok(()), Ok(Err(Stopped::Codec(error))), _) => {
            Err(anyhow::Error::new(error).context(format!("cannot encode {key}")))
        }
        (Ok(()), Ok(_), Err(Stopped::Server(error))) => Err(error.into()),
        (Ok(()), Ok(_), Err(error)) | (Ok(()), Ok(Err(error)), Ok(_)) => Err(error.into()),
        (Ok(()), Ok(Ok(encoded)), Ok((tally, counted))) => check_count(tally, counted).map(|()| (tally, encoded)),
    };
    match outcome {
        Ok((tally, encoded)) => (session, Ok(Staged { tally, encoded, key, upload })),
        Err(error) => (session, give_up(upload, error).await),
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

async fn give_up<T>(upload: Box<dyn Upload>, error: anyhow::Error) -> anyhow::Result<T> {
    match upload.abort().await {
        Ok(()) => Err(error),
        Err(abort) => Err(error).with_context(|| format!("(what was written could not be removed: {abort})")),
    }
}

fn read(
    session: &mut Session,
    copy: &str,
    chunks: &SyncSender<Chunk>,
    progress: &Progress,
) -> Result<(Tally, u64), Stopped> {
    let hand_on = |chunk: Chunk| {
        progress.add_bytes(chunk.bytes.len() as u64);
        chunks.send(chunk).map_err(|_| Stopped::NeighbourGone)
    };
    let mut gatherer = Gatherer::default();
    let counted = session.copy_out(copy, |row| match gatherer.row(row)? {
        Some(full) => hand_on(full),
        None => Ok(()),
    })?;
    let (rest, tally) = gatherer.finish();
    rest.map_or(Ok(()), hand_on)?;
    Ok((tally, counted))
}

fn encode(level: i32, chunks: &Receiver<Chunk>, blocks: &tasks::Sender<Bytes>) -> Result<Encoded, Stopped> {
    let mut hand_on = |block: Vec<u8>| blocks.blocking_send(block.into()).map_err(|_| Stopped::NeighbourGone);
    let mut encoder = Encoder::new(level)?;
    while let Ok(chunk) = chunks.recv() {
        encoder.chunk(&chunk, &mut hand_on)?;
    }
    encoder.finish(&mut hand_on)
}
