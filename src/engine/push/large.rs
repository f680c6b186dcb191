//! Sending what is large: an upload that was cut off goes on, and the server copies what it has already.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::super::keep;
use super::super::scan::ScanError;
use super::super::shared::{Shared, lock};
use super::super::status::Progress;
use super::checked::Checked;
use super::delta::{self, Old, OpenError};
use super::discard;
use super::resume;
use super::send::Way;
use crate::remote::{self, Heard, Part, Parts, Session, TransferError, Upload};
use crate::replica::{Digest, Digested, Node, average_for, average_like};
use crate::tree::{Hash, RelPath};

/// Read at once where nothing is sent.
const READ_CHUNK: usize = 256 * 1024;
/// A file that is dated by so many seconds ahead of the server's clock is waited for.
const MOST_AHEAD_SECS: i64 = 1;

/// Whether it is worth what it takes.
pub(super) fn is_large(shared: &Shared, node: &Node) -> bool {
    let large = shared.options.large;
    node.size >= large.resume_from.min(large.delta_from)
}

/// How an attempt ended.
enum Attempt {
    /// All is in staging, and was last written to in this second of the server.
    Sent(Digested, i64),
    /// What is here was written to meanwhile.
    Cut,
    /// What the server copied may not be what it has to be.
    Doubtful(String),
}

/// One upload.
struct Transfer<'a> {
    shared: &'a Arc<Shared>,
    way: &'a Way<'a>,
    session: &'a dyn Session,
    node: &'a Node,
    file: &'a File,
    progress: &'a Progress,
}

/// Uploads `file` as the content of `node`; `None` if it was cut under way.
pub(super) async fn upload(
    shared: &Arc<Shared>,
    way: &Way<'_>,
    node: &Node,
    file: &File,
    progress: &Progress,
) -> Result<Option<Hash>, ScanError> {
    let session = Arc::clone(way.session_for(node.size));
    let large = shared.options.large;
    let sources = delta::sources(shared, way, node)?;
    let note = way.ticket.note_for(node);
    let mut known = None;
    if note.is_some() || sources.are_there() {
        let average = match &sources.old {
            Some((_, old)) => average_like(old, large.chunk, node.size),
            None => average_for(large.chunk, node.size),
        };
        let digest = Digest::new(Some(average), large.sync_every);
        let Some(read) = read_through(file, node.size, digest).await else {
            return Ok(None);
        };
        known = Some(read);
    }
    let transfer = Transfer {
        shared,
        way,
        session: session.as_ref(),
        node,
        file,
        progress,
    };
    let mut start = 0;
    let mut old = None;
    if let Some(known) = &known {
        if let Some(note) = note {
            let content = (file, node.size);
            start = resume::verified(session.as_ref(), way.staged, note, content, known).await?;
        }
        old = match delta::open(shared, &session, way, &sources, known).await {
            Err(OpenError::Remote(error)) => return Err(error.into()),
            Err(OpenError::Replica(error)) => return Err(error.into()),
            Ok(old) => old,
        };
    }
    if start == 0 {
        way.ticket.begin(shared, session.as_ref(), node).await?;
    }
    tracing::debug!(
        path = %way.target, size = node.size, noted = note.is_some(), start,
        replaces = way.replaces.is_some(), known = sources.old.is_some(), copies = old.is_some(), "sending"
    );
    loop {
        let attempt = transfer.attempt(start, old.as_ref(), known.as_ref());
        match attempt.await? {
            Attempt::Cut => return Ok(None),
            Attempt::Sent(digested, written_at) => {
                let hash = digested.hash;
                let seen_at = transfer.past_its_second(written_at).await?;
                transfer.remember(digested, seen_at);
                return Ok(Some(hash));
            }
            Attempt::Doubtful(why) => {
                tracing::warn!(path = %way.target, %why, "all of it is sent");
                old.take().inspect(|old| old.distrust(shared));
                start = 0;
                discard(session.as_ref(), way.staged).await?;
                way.ticket.begin(shared, session.as_ref(), node).await?;
            }
        }
    }
}

/// Reads a content once; `None` if there is less of it.
async fn read_through(file: &File, size: u64, mut digest: Digest) -> Option<Digested> {
    let mut buffer = vec![0; READ_CHUNK];
    let mut at = 0;
    while at < size {
        let len = usize::try_from(size - at).map_or(READ_CHUNK, |left| left.min(READ_CHUNK));
        file.read_exact_at(&mut buffer[..len], at).ok()?;
        digest.add(&buffer[..len]);
        at += len as u64;
        // Other uploads of the same pass go on meanwhile.
        tokio::task::yield_now().await;
    }
    Some(digest.finish())
}

impl Transfer<'_> {
    async fn attempt(
        &self,
        start: u64,
        old: Option<&Old>,
        known: Option<&Digested>,
    ) -> Result<Attempt, ScanError> {
        self.progress.advance(start);
        let sent = match known {
            Some(known) => self.send_known(start, old, known).await,
            None => self.send_unread().await,
        };
        let (digested, written_at) = match sent {
            Ok(sent) => sent,
            Err(TransferError::Remote(error)) if error.is_link_loss() => return Err(error.into()),
            Err(TransferError::Local { .. }) => return Ok(Attempt::Cut),
            Err(error) if old.is_some() => return Ok(Attempt::Doubtful(error.to_string())),
            Err(TransferError::Remote(error)) => return Err(error.into()),
            Err(TransferError::Changed { .. }) => return Ok(Attempt::Cut),
        };
        let Some(old) = old else {
            return Ok(Attempt::Sent(digested, written_at));
        };
        let staged = self.way.staged;
        match delta::is_as_here(self.shared, self.session, staged, &old.parts, self.file).await {
            Err(error) if error.is_link_loss() => Err(error.into()),
            Err(error) => Ok(Attempt::Doubtful(error.to_string())),
            Ok(false) => Ok(Attempt::Doubtful(
                "a copy is not what it was made of".into(),
            )),
            Ok(true) => Ok(Attempt::Sent(digested, written_at)),
        }
    }

    fn what(&self, resume_at: u64) -> Upload {
        Upload {
            size: self.node.size,
            resume_at,
            mode: self.node.mode,
            mtime: self.node.server_mtime(),
            fsync: self.shared.options.server_fsync,
        }
    }

    /// Sends what was read before, from `start` on.
    async fn send_known(
        &self,
        start: u64,
        old: Option<&Old>,
        known: &Digested,
    ) -> Result<(Digested, i64), TransferError> {
        let whole = self.whole();
        let parts = Parts {
            list: old.map_or(&whole, |old| &old.parts),
            old: old.map(|old| (&old.handle, old.stat)),
            sync_every: self.shared.options.large.sync_every,
        };
        let mut content = Checked::new(self.file, known);
        let mut source = |offset: u64, len: u32| content.get(offset, len);
        let mut acked = start;
        let mut heard = |heard| match heard {
            Heard::Acked(end) => self.advance(&mut acked, end),
            Heard::Synced(end) => self.note(end, known.mark(end)),
        };
        let (path, what) = (self.way.staged, self.what(start));
        let written_at =
            remote::assemble(self.session, path, what, parts, &mut source, &mut heard).await?;
        Ok((known.clone(), written_at))
    }

    /// Sends all of it, and reads it on the way.
    async fn send_unread(&self) -> Result<(Digested, i64), TransferError> {
        let large = self.shared.options.large;
        let size = self.node.size;
        let cuts = size >= large.delta_from && self.session.features().copy_data;
        let average = cuts.then(|| average_for(large.chunk, size));
        let digest = Mutex::new(Digest::new(average, large.sync_every));
        let mut source = |offset: u64, len: u32| {
            let mut buffer = vec![0; len as usize];
            self.file.read_exact_at(&mut buffer, offset)?;
            lock(&digest).add(&buffer);
            Ok(Bytes::from(buffer))
        };
        let mut acked = 0;
        let mut heard = |heard| match heard {
            Heard::Acked(end) => self.advance(&mut acked, end),
            Heard::Synced(end) => {
                let hash = lock(&digest).mark(end);
                self.note(end, hash);
            }
        };
        let whole = self.whole();
        let parts = Parts {
            list: &whole,
            old: None,
            sync_every: large.sync_every,
        };
        let (path, what): (&RelPath, _) = (self.way.staged, self.what(0));
        let written_at =
            remote::assemble(self.session, path, what, parts, &mut source, &mut heard).await?;
        let digest = digest.into_inner();
        let digest = digest.unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok((digest.finish(), written_at))
    }

    fn whole(&self) -> [Part; 1] {
        [Part {
            offset: 0,
            len: self.node.size,
            from: None,
        }]
    }

    fn advance(&self, acked: &mut u64, end: u64) {
        self.progress.advance(end.saturating_sub(*acked));
        *acked = end.max(*acked);
    }

    fn note(&self, at: u64, hash: Option<Hash>) {
        if let Some(hash) = hash {
            self.way.ticket.note(self.shared, self.node, at, hash);
        }
    }

    /// What was written in this second, or just now for the server, waits for the next one where all of it would have
    /// to be sent next time otherwise. Tells the server's second.
    async fn past_its_second(&self, written_at: i64) -> Result<i64, ScanError> {
        let ahead = self.node.server_mtime().saturating_sub(written_at);
        let is_worth_it = self.node.size >= self.shared.options.large.resume_from
            && self.session.features().copy_data;
        if !is_worth_it || !(0..=MOST_AHEAD_SECS).contains(&ahead) {
            return Ok(written_at);
        }
        tokio::time::sleep(Duration::from_secs(1 + ahead.unsigned_abs())).await;
        let probe = keep::staging_path(self.shared, self.node.id, keep::upload_number(self.shared));
        match self.session.probe_time(&probe).await {
            Err(error) if error.is_link_loss() => Err(error.into()),
            Err(_) => Ok(written_at),
            Ok(now) => Ok(now.secs()),
        }
    }

    /// Remembers what the server has now: if its clock is beyond the mtime before the file has its name, whatever is
    /// written to it later shows. It must not lose it either.
    fn remember(&self, digested: Digested, written_at: i64) {
        let (options, mtime) = (&self.shared.options, self.node.server_mtime());
        let is_durable = options.server_fsync && self.session.features().fsync;
        let is_large = self.node.size >= options.large.delta_from;
        let Some(mut chunks) = digested.chunks else {
            return;
        };
        if !is_large || !is_durable || written_at <= mtime {
            tracing::debug!(path = %self.way.target, written_at, mtime, "a later write might not show");
            return;
        }
        chunks.note_stood(mtime);
        if let Err(error) = self.shared.replica.content().save_chunks(chunks) {
            tracing::info!(%error, "the next version will be sent whole");
        }
    }
}
