//! Ranges of a file, each with the proof that it is of one version: between two looks at it that show the same.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::{join, try_join_all};
use futures_util::stream::{FuturesOrdered, StreamExt};

use super::{TRANSFER_WINDOW, TransferError, read_fully};
use crate::remote::guard::Guard;
use crate::remote::{FileHandle, RemoteError, Session, Stat};
use crate::tree::{Kind, RelPath};

/// So much is looked at together.
pub const BATCH: u64 = 1024 * 1024;

/// Bytes of a file, in order, each piece with its offset.
pub type Pieces = Vec<(u64, Bytes)>;

/// Who takes ranges of a file.
pub trait Ranges: Send {
    /// The next range to read, of at most [`BATCH`] bytes; `None` if there are no more.
    fn next(&mut self) -> Option<Range<u64>>;
    /// This range was read, and is of the version that was expected. Called in the order of `next`.
    fn take(&mut self, range: Range<u64>, pieces: Pieces) -> io::Result<()>;
}

/// Reads ranges of `path` as long as it is what it is expected to be, by size and mtime in seconds. Two round trips for
/// a single one. An answer that is shorter than what was asked for ends it as a change does.
pub async fn read_ranges(
    session: &dyn Session,
    path: &RelPath,
    expected: (u64, i64),
    ranges: &mut dyn Ranges,
) -> Result<(), TransferError> {
    let Some(first) = ranges.next() else {
        return Ok(());
    };
    let file = Guard::new(session, session.open_read(path).await?);
    let mut reading = FuturesOrdered::new();
    let mut under_way = first.end - first.start;
    reading.push_back(batch(session, file.get(), first, true));
    loop {
        while under_way < TRANSFER_WINDOW
            && let Some(range) = ranges.next()
        {
            under_way += range.end - range.start;
            reading.push_back(batch(session, file.get(), range, false));
        }
        let Some(read) = reading.next().await else {
            return Ok(());
        };
        let Batch {
            range,
            pieces,
            seen,
        } = read?;
        under_way -= range.end - range.start;
        let is_other = |now: &&Stat| now.kind != Kind::File || (now.size, now.mtime) != expected;
        if let Some(now) = seen.iter().find(is_other) {
            return Err(TransferError::Changed {
                path: path.clone(),
                now: *now,
            });
        }
        let Some(pieces) = pieces else {
            // It ends before its own end.
            let why = "less than all of it can be read";
            let kind = crate::remote::ErrorKind::Failure;
            return Err(RemoteError::new(kind, "read", path, why).into());
        };
        let taken = ranges.take(range, pieces);
        taken.map_err(|source| TransferError::Local {
            path: path.clone(),
            source,
        })?;
    }
}

struct Batch {
    range: Range<u64>,
    /// `None` if there was less.
    pieces: Option<Pieces>,
    /// What the file looked like around the reads.
    seen: Vec<Stat>,
}

/// Reads a range in one burst, with a look behind it, and one before if it is the `first`: what is behind one is before
/// the next.
async fn batch(
    session: &dyn Session,
    file: &FileHandle,
    range: Range<u64>,
    first: bool,
) -> Result<Batch, RemoteError> {
    let chunk = session.features().max_read;
    let before = async {
        match first {
            true => session.fstat(file).await.map(Some),
            false => Ok(None),
        }
    };
    let starts = range.clone().step_by(chunk.max(1) as usize);
    let reads = starts.map(|at| {
        let len = (range.end - at).min(chunk.into()) as u32;
        read_fully(session, file, at, len)
    });
    let (before, (read, after)) =
        join(before, join(try_join_all(reads), session.fstat(file))).await;
    let mut seen: Vec<Stat> = before?.into_iter().collect();
    let read = read?;
    seen.push(after?);
    let is_whole = |(_, data, wanted, _): &(u64, Bytes, u32, bool)| data.len() == *wanted as usize;
    // The rest of what was answered short came behind the look.
    if read.iter().any(|(.., asked_again)| *asked_again) {
        seen.push(session.fstat(file).await?);
    }
    let pieces = read.iter().all(is_whole).then(|| {
        let pieces = read.into_iter().map(|(at, data, ..)| (at, data));
        pieces.collect()
    });
    Ok(Batch {
        range,
        pieces,
        seen,
    })
}
