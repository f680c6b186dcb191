//! Files up and down through one handle, pipelined, with bounded memory.
//!
//! A download is consistent because the handle stays with the file it opened, whatever happens to the path, and
//! because the attributes at the end are those at the beginning. An upload is not a publication: it fills
//! a staging file, which somebody renames into place later.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::future::join4;
use futures_util::stream::{FuturesOrdered, StreamExt};

use super::guard::Guard;
use super::{FileHandle, RemoteError, Session, Stat};
use crate::tree::RelPath;

mod ranges;
mod up;

pub use ranges::{BATCH, Pieces, Ranges, read_ranges};
pub use up::{Heard, NextPart, Part, Parts, Upload, assemble, upload};

/// Bytes under way at once in one transfer.
pub const TRANSFER_WINDOW: u64 = 8 * 1024 * 1024;

/// How a transfer can fail.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The server's side failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The file is not what was expected, or changed while it was read; what the sink got is worthless.
    #[error("{path}: changed on the server while it was read")]
    Changed {
        /// The file.
        path: RelPath,
        /// What it is now.
        now: Stat,
    },
    /// The sink or the source failed.
    #[error("{path}: {source}")]
    Local {
        /// The file.
        path: RelPath,
        /// What it said.
        source: io::Error,
    },
}

/// What a file that is to be read was seen to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Its length in bytes.
    pub size: u64,
    /// Its mtime in seconds, if that was long enough ago: whatever is written to the file from now on shows another.
    /// Then it need not be looked at before it is read.
    pub settled: Option<i64>,
}

impl From<u64> for Expected {
    /// Nothing is known but the size.
    fn from(size: u64) -> Self {
        Self {
            size,
            settled: None,
        }
    }
}

/// Reads `path`, which is expected to be so, from `from` on, and gives the pieces to `sink` with their offsets, in any
/// order. Two round trips for a small file. Returns the attributes of what was read.
pub async fn download(
    session: &dyn Session,
    path: &RelPath,
    expected: impl Into<Expected>,
    from: u64,
    sink: &mut (dyn FnMut(u64, Bytes) -> io::Result<()> + Send),
) -> Result<Stat, TransferError> {
    let mut sink = |offset, data: Bytes| {
        let done = if data.is_empty() {
            Ok(())
        } else {
            sink(offset, data)
        };
        done.map_err(|source| TransferError::Local {
            path: path.clone(),
            source,
        })
    };
    let expected = expected.into();
    let size = expected.size;
    let len = size.saturating_sub(from);
    let chunk = session.features().max_read;
    if len <= u64::from(chunk) {
        let (data, stat) = read_small(session, path, expected, from, len as u32).await?;
        if data.len() as u64 == len {
            sink(from, data)?;
            return Ok(stat);
        }
        // Servers may answer a read with less, so ask again for the rest below.
    }
    let file = Guard::new(session, session.open_read(path).await?);
    let before = session.fstat(file.get()).await?;
    check(path, size, before, before)?;
    let mut reads = FuturesOrdered::new();
    let mut next = from;
    loop {
        while next < size && reads.len() as u64 * u64::from(chunk) < TRANSFER_WINDOW {
            let len = (size - next).min(u64::from(chunk)) as u32;
            reads.push_back(read_fully(session, file.get(), next, len));
            next += u64::from(len);
        }
        let Some(read) = reads.next().await else {
            break;
        };
        let (offset, data, wanted, _) = read?;
        if data.len() < wanted as usize {
            let now = session.fstat(file.get()).await?;
            let path = path.clone();
            return Err(TransferError::Changed { path, now });
        }
        sink(offset, data)?;
    }
    let after = session.fstat(file.get()).await?;
    check(path, size, before, after)
}

/// One burst after the open: attributes if they are not known, data, attributes, close.
async fn read_small(
    session: &dyn Session,
    path: &RelPath,
    expected: Expected,
    from: u64,
    len: u32,
) -> Result<(Bytes, Stat), TransferError> {
    let file = Guard::new(session, session.open_read(path).await?);
    let handle = file.get().clone();
    let read = async {
        match len {
            0 => Ok(Bytes::new()),
            len => session.read(&handle, from, len).await,
        }
    };
    let before = async {
        match expected.settled {
            Some(_) => Ok(None),
            None => session.fstat(&handle).await.map(Some),
        }
    };
    let (before, data, after, closed) =
        join4(before, read, session.fstat(&handle), file.close()).await;
    let after = after?;
    let mut known = before?.unwrap_or(after);
    if let Some(mtime) = expected.settled {
        known.mtime = mtime;
    }
    let stat = check(path, expected.size, known, after)?;
    closed?;
    Ok((data?, stat))
}

/// Whether it is one file with the expected size from beginning to end.
fn check(path: &RelPath, size: u64, before: Stat, after: Stat) -> Result<Stat, TransferError> {
    let key = |stat: Stat| (stat.kind, stat.size, stat.mtime);
    if key(before) == key(after) && after.size == size {
        return Ok(after);
    }
    Err(TransferError::Changed {
        path: path.clone(),
        now: after,
    })
}

/// Reads `path` from `from` up to `to` and tells up to where it has what `expected` says, which is told the offset and
/// the bytes: the rest of a piece that differs does not count, nor what is behind it.
pub async fn matching(
    session: &dyn Session,
    path: &RelPath,
    (from, to): (u64, u64),
    expected: &mut (dyn FnMut(u64, &[u8]) -> io::Result<bool> + Send),
) -> Result<u64, TransferError> {
    let chunk = session.features().max_read;
    let file = Guard::new(session, session.open_read(path).await?);
    let mut reads = FuturesOrdered::new();
    let (mut next, mut known) = (from, from);
    loop {
        while next < to && reads.len() as u64 * u64::from(chunk) < TRANSFER_WINDOW {
            let len = (to - next).min(u64::from(chunk)) as u32;
            reads.push_back(read_fully(session, file.get(), next, len));
            next += u64::from(len);
        }
        let Some(read) = reads.next().await else {
            break;
        };
        let (offset, data, wanted, _) = read?;
        let equal = expected(offset, &data).map_err(|source| TransferError::Local {
            path: path.clone(),
            source,
        })?;
        if !equal || data.len() < wanted as usize {
            break;
        }
        known = offset + u64::from(wanted);
    }
    Ok(known)
}

/// Reads until `len` bytes or the end of the file: offset, data, how much was wanted, and whether it took more than one
/// request.
async fn read_fully(
    session: &dyn Session,
    handle: &FileHandle,
    offset: u64,
    len: u32,
) -> Result<(u64, Bytes, u32, bool), RemoteError> {
    let first = session.read(handle, offset, len).await?;
    if first.is_empty() || first.len() == len as usize {
        return Ok((offset, first, len, false));
    }
    let mut data = BytesMut::from(&first[..]);
    while data.len() < len as usize {
        let rest = len - data.len() as u32;
        let more = session
            .read(handle, offset + data.len() as u64, rest)
            .await?;
        if more.is_empty() {
            break;
        }
        data.extend_from_slice(&more);
    }
    Ok((offset, data.freeze(), len, true))
}

#[cfg(test)]
mod tests;
