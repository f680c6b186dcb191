//! Filling a staging file: with bytes that are sent, and with ranges of another file that the server copies by itself.
//!
//! All of it goes in the order of the file, so what was acknowledged is a beginning of it, whatever cuts it off.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::future::{FutureExt, try_join};
use futures_util::stream::{FuturesOrdered, StreamExt};

use super::super::guard::Guard;
use super::super::{FileHandle, RemoteError, Session, SetStat, Stat};
use super::{TRANSFER_WINDOW, TransferError};
use crate::tree::RelPath;

/// Bytes of one write. Small enough for slow uplinks to show progress before a dead link is assumed.
const WRITE_CHUNK: u32 = 64 * 1024;
/// Requests under way at once, for servers that take small pieces and hold all that they are asked in memory.
const REQUESTS_MAX: usize = 128;
/// Bytes of one copy on the server: it answers nothing else in the meantime.
const COPY_CHUNK: u64 = 16 * 1024 * 1024;
/// The mode of a file that is put together.
const PRIVATE: u32 = 0o600;

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

/// A range of a file that is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
    /// Where it begins in the old file that it is copied from; `None` if it is sent.
    pub from: Option<u64>,
}

impl Part {
    /// All of a file of this size, sent.
    pub fn whole(size: u64) -> Self {
        Self {
            offset: 0,
            len: size,
            from: None,
        }
    }
}

/// The parts as they become known, one after the other, without gaps, up to the size.
pub type NextPart<'a> = dyn FnMut() -> io::Result<Option<Part>> + Send + 'a;

/// What a file is put together from.
pub struct Parts<'a> {
    /// May have to read for it: what is known goes out first.
    pub next: &'a mut NextPart<'a>,
    /// The old file, open for reading in the same session, and what it has to look like before and after.
    pub old: Option<(&'a FileHandle, Stat)>,
    /// The server is asked to make durable what it has at multiples of so many bytes, if much was sent since.
    pub sync_every: u64,
}

/// What the server says about a file that is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// All bytes before this one are there.
    Acked(u64),
    /// All bytes before this one are on the server's disk, and none was copied from what had changed.
    Synced(u64),
}

/// What a request was about.
enum Done {
    /// One like any other.
    Step,
    Heard(Heard),
    /// When the server says that it was last written to.
    WrittenAt(i64),
}

type Step<'a> = Pin<Box<dyn Future<Output = Result<Done, TransferError>> + Send + 'a>>;
type Source<'a> = dyn FnMut(u64, u32) -> io::Result<Bytes> + Send + 'a;

/// Writes a file: new at `path`, or on from `resume_at`. `source` gives the bytes at an offset; `acked` hears how
/// many bytes from the start the server has acknowledged. Attributes, fsync and close follow the last write
/// without waiting for it, so a small file takes two round trips.
pub async fn upload(
    session: &dyn Session,
    path: &RelPath,
    upload: Upload,
    source: &mut Source<'_>,
    acked: &mut (dyn FnMut(u64) + Send),
) -> Result<(), TransferError> {
    let mut all = Some(Part::whole(upload.size));
    let parts = Parts {
        next: &mut || Ok(all.take()),
        old: None,
        sync_every: u64::MAX,
    };
    let mut heard = |done: Done| {
        if let Done::Heard(Heard::Acked(end)) = done {
            acked(end);
        }
    };
    fill(session, path, upload, parts, false, source, &mut heard).await
}

/// The same for a file that may take long, and of which parts may be copied on the server. Nobody else can read it
/// before it gets its mode. Tells the server's second of the last write, before it got its mtime.
pub async fn assemble(
    session: &dyn Session,
    path: &RelPath,
    upload: Upload,
    parts: Parts<'_>,
    source: &mut Source<'_>,
    heard: &mut (dyn FnMut(Heard) + Send),
) -> Result<i64, TransferError> {
    let mut written_at = i64::MAX;
    let mut heard = |done: Done| match done {
        Done::Heard(what) => heard(what),
        Done::WrittenAt(secs) => written_at = secs,
        Done::Step => {}
    };
    fill(session, path, upload, parts, true, source, &mut heard).await?;
    Ok(written_at)
}

async fn fill(
    session: &dyn Session,
    path: &RelPath,
    upload: Upload,
    parts: Parts<'_>,
    tell_time: bool,
    source: &mut Source<'_>,
    heard: &mut (dyn FnMut(Done) + Send),
) -> Result<(), TransferError> {
    let resumed = upload.resume_at > 0;
    // What goes on later must be open to us then.
    let mode = if tell_time { PRIVATE } else { upload.mode };
    let opened = session.open_write(path, mode, !resumed).await?;
    let mut file = Some(Guard::new(session, opened.clone()));
    let handle = &opened;
    let chunk = session.features().max_write.min(WRITE_CHUNK);
    let Parts {
        next,
        old,
        sync_every,
    } = parts;
    let mut cursor = Cursor::new(next, upload.resume_at, (chunk, sync_every));
    let mut steps: FuturesOrdered<Step<'_>> = FuturesOrdered::new();
    let syncs = upload.fsync && session.features().fsync;
    let mut sent = 0;
    let mut failed = None;
    loop {
        let has_room =
            steps.len() < REQUESTS_MAX && steps.len() as u64 * u64::from(chunk) < TRANSFER_WINDOW;
        let next = match has_room {
            true => cursor.next().map_err(|error| local(path, error))?,
            false => None,
        };
        if let Some(part) = next {
            steps.push_back(match (part.from, old) {
                (Some(from), Some((old, _))) => copy(session, handle, old, from, part),
                _ => {
                    let data = read_source(path, source, part.offset, part.len as u32)?;
                    write(session, handle, part, data)
                }
            });
            let end = part.offset + part.len;
            sent += if part.from.is_none() { part.len } else { 0 };
            // What was copied costs nothing to copy again.
            let is_mark = end % sync_every.max(1) == 0 && end < upload.size;
            if syncs && is_mark && sent >= sync_every / 4 {
                sent = 0;
                steps.push_back(sync(session, handle, old, end));
            }
        }
        if cursor.is_at_end()
            && let Some(file) = file.take()
        {
            if let Some((old, before)) = old {
                steps.push_back(Box::pin(async move {
                    unchanged(session, old, before).await?;
                    Ok(Done::Step)
                }));
            }
            push_finish(&mut steps, session, handle, file, (upload, tell_time));
        }
        // What is asked goes out before more is read.
        let step = match next {
            Some(_) => steps.next().now_or_never().flatten(),
            None => steps.next().await,
        };
        let Some(step) = step else {
            match next {
                Some(_) => continue,
                None => break,
            }
        };
        match step {
            Ok(done) if failed.is_none() => heard(done),
            Ok(_) => {}
            // The close may be under way already, so hear all steps out.
            Err(error) if file.is_none() => failed = failed.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Goes through the parts from an offset on, a request at a time.
struct Cursor<'a> {
    parts: &'a mut NextPart<'a>,
    start: u64,
    /// The rest of the part that is under way.
    rest: Option<Part>,
    ended: bool,
    chunk: u32,
    /// No request goes beyond a multiple of this.
    bound: u64,
}

impl<'a> Cursor<'a> {
    fn new(parts: &'a mut NextPart<'a>, start: u64, (chunk, bound): (u32, u64)) -> Self {
        Self {
            parts,
            start,
            rest: None,
            ended: false,
            chunk,
            bound: bound.max(1),
        }
    }

    fn is_at_end(&self) -> bool {
        self.ended
    }

    fn next(&mut self) -> io::Result<Option<Part>> {
        while self.rest.is_none() && !self.ended {
            match (self.parts)()? {
                Some(part) => self.rest = rest(part, self.start.saturating_sub(part.offset)),
                None => self.ended = true,
            }
        }
        let Some(part) = self.rest.take() else {
            return Ok(None);
        };
        let most = match part.from {
            Some(_) => COPY_CHUNK,
            None => u64::from(self.chunk),
        };
        let most = most.min(self.bound - part.offset % self.bound);
        let len = part.len.min(most);
        self.rest = rest(part, len);
        Ok(Some(Part { len, ..part }))
    }
}

/// What is left of a part behind its first `done` bytes.
fn rest(part: Part, done: u64) -> Option<Part> {
    (done < part.len).then(|| Part {
        offset: part.offset + done,
        len: part.len - done,
        from: part.from.map(|from| from + done),
    })
}

fn acked(end: u64) -> Done {
    Done::Heard(Heard::Acked(end))
}

fn write<'a>(
    session: &'a dyn Session,
    handle: &'a FileHandle,
    part: Part,
    data: Bytes,
) -> Step<'a> {
    Box::pin(async move {
        session.write(handle, part.offset, data).await?;
        Ok(acked(part.offset + part.len))
    })
}

fn copy<'a>(
    session: &'a dyn Session,
    handle: &'a FileHandle,
    old: &'a FileHandle,
    from: u64,
    part: Part,
) -> Step<'a> {
    Box::pin(async move {
        session
            .copy_data(old, from, part.len, handle, part.offset)
            .await?;
        Ok(acked(part.offset + part.len))
    })
}

/// Makes durable what is there, and looks whether what was copied was what it had to be.
fn sync<'a>(
    session: &'a dyn Session,
    handle: &'a FileHandle,
    old: Option<(&'a FileHandle, Stat)>,
    end: u64,
) -> Step<'a> {
    Box::pin(async move {
        let look = async {
            match old {
                Some((old, before)) => unchanged(session, old, before).await,
                None => Ok(()),
            }
        };
        let durable = async { Ok(session.fsync(handle).await?) };
        try_join(look, durable).await?;
        Ok(Done::Heard(Heard::Synced(end)))
    })
}

async fn unchanged(
    session: &dyn Session,
    old: &FileHandle,
    before: Stat,
) -> Result<(), TransferError> {
    let now = session.fstat(old).await?;
    let key = |stat: &Stat| (stat.kind, stat.size, stat.mtime, stat.mode);
    match key(&now) == key(&before) {
        true => Ok(()),
        false => Err(TransferError::Changed {
            path: old.path.clone(),
            now,
        }),
    }
}

/// What follows the last write: the time of it if that is to be told, attributes, durability, close.
fn push_finish<'a>(
    steps: &mut FuturesOrdered<Step<'a>>,
    session: &'a dyn Session,
    handle: &'a FileHandle,
    file: Guard<'a, dyn Session + 'a>,
    (upload, tell_time): (Upload, bool),
) {
    if tell_time {
        steps.push_back(Box::pin(async move {
            Ok(Done::WrittenAt(session.fstat(handle).await?.mtime))
        }));
    }
    let size = upload.size;
    let set = SetStat {
        // An earlier attempt may have written beyond.
        size: (upload.resume_at > 0).then_some(size),
        mode: Some(upload.mode),
        mtime: Some(upload.mtime),
    };
    let done = move |result: Result<(), RemoteError>| Ok(result.map(|()| acked(size))?);
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
    source: &mut Source<'_>,
    offset: u64,
    len: u32,
) -> Result<Bytes, TransferError> {
    let read = source(offset, len).and_then(|data| match data.len() == len as usize {
        true => Ok(data),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    });
    read.map_err(|error| local(path, error))
}

fn local(path: &RelPath, source: io::Error) -> TransferError {
    TransferError::Local {
        path: path.clone(),
        source,
    }
}
