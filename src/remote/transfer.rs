//! Whole files up and down through one handle, pipelined, with bounded memory.
//!
//! A download is consistent because the handle stays with the file it opened, whatever happens to the path, and
//! because the attributes at the end are those at the beginning. An upload is not a publication: it fills
//! a staging file, which somebody renames into place later.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::future::join4;
use futures_util::stream::{FuturesOrdered, StreamExt};

use super::guard::Guard;
use super::{FileHandle, RemoteError, Session, SetStat, Stat};
use crate::tree::RelPath;

/// Bytes under way at once in one transfer.
pub const TRANSFER_WINDOW: u64 = 8 * 1024 * 1024;
/// Bytes of one write. Small enough for slow uplinks to show progress before a dead link is assumed.
const WRITE_CHUNK: u32 = 64 * 1024;

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

/// What to upload, beside the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// Length of the whole file.
    pub size: u64,
    /// Where to go on; bytes before that were acknowledged in an earlier attempt. Not 0: the file is there.
    pub resume_at: u64,
    /// Permission bits to set.
    pub mode: u32,
    /// Modification time to set, in seconds.
    pub mtime: i64,
    /// Whether the server shall make it durable, if it can.
    pub fsync: bool,
}

/// Reads `path`, which is expected to have `size` bytes, from `from` on, and gives the pieces to `sink` with
/// their offsets, in any order. Two round trips for a small file. Returns the attributes of what was read.
pub async fn download(
    session: &dyn Session,
    path: &RelPath,
    size: u64,
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
    let len = size.saturating_sub(from);
    let chunk = session.features().max_read;
    if len <= u64::from(chunk) {
        let (data, stat) = read_small(session, path, size, from, len as u32).await?;
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
        let (offset, data, wanted) = read?;
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

/// One burst after the open: attributes, data, attributes, close.
async fn read_small(
    session: &dyn Session,
    path: &RelPath,
    size: u64,
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
    let (before, data, after, closed) = join4(
        session.fstat(&handle),
        read,
        session.fstat(&handle),
        file.close(),
    )
    .await;
    let stat = check(path, size, before?, after?)?;
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

/// Reads until `len` bytes or the end of the file: offset, data, and how much was wanted.
async fn read_fully(
    session: &dyn Session,
    handle: &FileHandle,
    offset: u64,
    len: u32,
) -> Result<(u64, Bytes, u32), RemoteError> {
    let first = session.read(handle, offset, len).await?;
    if first.is_empty() || first.len() == len as usize {
        return Ok((offset, first, len));
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
    Ok((offset, data.freeze(), len))
}

type Step<'a> = Pin<Box<dyn Future<Output = Result<u64, RemoteError>> + Send + 'a>>;

/// Writes a file: new at `path`, or on from `resume_at`. `source` gives the bytes at an offset; `acked` hears how
/// many bytes from the start the server has acknowledged. Attributes, fsync and close follow the last write
/// without waiting for it, so a small file takes two round trips.
pub async fn upload(
    session: &dyn Session,
    path: &RelPath,
    upload: Upload,
    source: &mut (dyn FnMut(u64, u32) -> io::Result<Bytes> + Send),
    acked: &mut (dyn FnMut(u64) + Send),
) -> Result<(), TransferError> {
    let resumed = upload.resume_at > 0;
    let opened = session.open_write(path, upload.mode, !resumed).await?;
    let mut file = Some(Guard::new(session, opened.clone()));
    let handle = &opened;
    let chunk = session.features().max_write.min(WRITE_CHUNK);
    let mut steps: FuturesOrdered<Step<'_>> = FuturesOrdered::new();
    let mut next = upload.resume_at;
    let mut failed = None;
    loop {
        while next < upload.size && steps.len() as u64 * u64::from(chunk) < TRANSFER_WINDOW {
            let len = (upload.size - next).min(u64::from(chunk)) as u32;
            let data = read_source(path, source, next, len)?;
            let offset = next;
            next += u64::from(len);
            let end = next;
            steps.push_back(Box::pin(async move {
                session.write(handle, offset, data).await?;
                Ok(end)
            }));
        }
        if next >= upload.size
            && let Some(file) = file.take()
        {
            push_finish(&mut steps, session, handle, file, upload);
        }
        let Some(step) = steps.next().await else {
            break;
        };
        match step {
            Ok(end) if failed.is_none() => acked(end),
            Ok(_) => {}
            // The close may be under way already, so hear all steps out.
            Err(error) if file.is_none() => failed = failed.or(Some(error)),
            Err(error) => return Err(error.into()),
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// What follows the last write: attributes, durability, close.
fn push_finish<'a>(
    steps: &mut FuturesOrdered<Step<'a>>,
    session: &'a dyn Session,
    handle: &'a FileHandle,
    file: Guard<'a, dyn Session + 'a>,
    upload: Upload,
) {
    let size = upload.size;
    let set = SetStat {
        // An earlier attempt may have written beyond.
        size: (upload.resume_at > 0).then_some(size),
        mode: Some(upload.mode),
        mtime: Some(upload.mtime),
    };
    let done = move |result: Result<(), RemoteError>| result.map(|()| size);
    steps.push_back(Box::pin(async move {
        done(session.fsetstat(handle, set).await)
    }));
    if upload.fsync && session.features().fsync {
        steps.push_back(Box::pin(async move { done(session.fsync(handle).await) }));
    }
    steps.push_back(Box::pin(async move { done(file.close().await) }));
}

fn read_source(
    path: &RelPath,
    source: &mut (dyn FnMut(u64, u32) -> io::Result<Bytes> + Send),
    offset: u64,
    len: u32,
) -> Result<Bytes, TransferError> {
    let read = source(offset, len).and_then(|data| match data.len() == len as usize {
        true => Ok(data),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    });
    read.map_err(|source| TransferError::Local {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests;
