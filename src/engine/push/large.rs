//! Sending what is large: an upload that was cut off goes on, and the server copies what it has already.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::super::keep;
use super::super::scan::ScanError;
use super::super::shared::{Shared, lock};
use super::super::status::Progress;
use super::checked::Checked;
use super::delta::{self, Old, OpenError, Sources};
use super::discard;
use super::reading::Reading;
use super::resume;
use super::send::Way;
use crate::remote::{self, Heard, NextPart, Part, Parts, Session, TransferError, Upload};
use crate::replica::{Digest, Digested, Node, average_for, average_like};
use crate::tree::Hash;

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

/// What is to be sent.
enum Content<'a> {
    /// It is read while all of it is sent.
    Unread,
    /// It was read.
    Known(Digested),
    /// It is read while the server copies what it has of it.
    Reading(Box<Reading<'a>>),
}

/// How it is sent.
struct Plan<'a> {
    content: Content<'a>,
    /// So much is in staging already.
    start: u64,
    /// What the server copies from.
    old: Option<Old>,
}

/// What is in staging.
struct Sent {
    digested: Digested,
    written_at: i64,
    parts: Vec<Part>,
}

/// One upload.
struct Transfer<'a> {
    shared: &'a Arc<Shared>,
    way: &'a Way<'a>,
    session: &'a Arc<dyn Session>,
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
    let sources = delta::sources(shared, way, node)?;
    let transfer = Transfer {
        shared,
        way,
        session: &session,
        node,
        file,
        progress,
    };
    let Some(mut plan) = transfer.plan(&sources).await? else {
        return Ok(None);
    };
    if plan.start == 0 {
        way.ticket.begin(shared, session.as_ref(), node).await?;
    }
    tracing::debug!(
        path = %way.target, size = node.size, start = plan.start, replaces = way.replaces.is_some(),
        known = sources.old.is_some(), copies = plan.old.is_some(), "sending"
    );
    loop {
        match transfer.attempt(&mut plan).await? {
            Attempt::Cut => return Ok(None),
            Attempt::Sent(digested, written_at) => {
                let hash = digested.hash;
                let seen_at = transfer.past_its_second(written_at).await?;
                transfer.remember(digested, seen_at);
                return Ok(Some(hash));
            }
            Attempt::Doubtful(why) => {
                tracing::warn!(path = %way.target, %why, "all of it is sent");
                plan.old.take().inspect(|old| old.distrust(shared));
                plan.start = 0;
                discard(session.as_ref(), way.staged).await?;
                way.ticket.begin(shared, session.as_ref(), node).await?;
            }
        }
    }
}

impl Transfer<'_> {
    /// How it goes; `None` if there is less of it than there was.
    async fn plan<'s>(&'s self, sources: &'s Sources) -> Result<Option<Plan<'s>>, ScanError> {
        let mut plan = Plan {
            content: Content::Unread,
            start: 0,
            old: None,
        };
        let note = self.way.ticket.note_for(self.node);
        if note.is_none() && !sources.are_there() {
            return Ok(Some(plan));
        }
        let mut reading = self.reading(sources);
        // What goes on, or may be the same as another, has to be known first.
        if let (Some((version, _)), None) = (&sources.old, note)
            && (!sources.are_alike || reading.begins_alike().unwrap_or(false))
        {
            plan.old = delta::open_replaced(self.session, self.way, version).await?;
            if plan.old.is_some() {
                plan.content = Content::Reading(Box::new(reading));
            }
            return Ok(Some(plan));
        }
        let Ok(known) = reading.all().await else {
            return Ok(None);
        };
        if let Some(note) = note {
            let (session, content) = (self.session.as_ref(), (self.file, self.node.size));
            plan.start = resume::verified(session, self.way.staged, note, content, &known).await?;
        }
        plan.old = match delta::open(self.shared, self.session, self.way, sources, &known).await {
            Err(OpenError::Remote(error)) => return Err(error.into()),
            Err(OpenError::Replica(error)) => return Err(error.into()),
            Ok(old) => old,
        };
        plan.content = Content::Known(known);
        Ok(Some(plan))
    }

    fn reading<'s>(&'s self, sources: &'s Sources) -> Reading<'s> {
        let large = self.shared.options.large;
        let (size, old) = (self.node.size, sources.old.as_ref().map(|(_, old)| old));
        let average = match old {
            Some(old) => average_like(old, large.chunk, size),
            None => average_for(large.chunk, size),
        };
        Reading::new(
            self.file,
            size,
            Digest::new(Some(average), large.sync_every),
            old,
        )
    }

    async fn attempt(&self, plan: &mut Plan<'_>) -> Result<Attempt, ScanError> {
        let (start, old) = (plan.start, plan.old.as_ref());
        self.progress.advance(start);
        // What was half read is read anew.
        let content = std::mem::replace(&mut plan.content, Content::Unread);
        let sent = match content {
            Content::Unread => self.send_unread().await,
            Content::Reading(reading) => self.send_reading(old, *reading).await,
            Content::Known(known) => {
                let sent = self.send_known(start, old, &known).await;
                plan.content = Content::Known(known);
                sent
            }
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(TransferError::Remote(error)) if error.is_link_loss() => return Err(error.into()),
            Err(TransferError::Local { .. }) => return Ok(Attempt::Cut),
            Err(error) if old.is_some() => return Ok(Attempt::Doubtful(error.to_string())),
            Err(TransferError::Remote(error)) => return Err(error.into()),
            Err(TransferError::Changed { .. }) => return Ok(Attempt::Cut),
        };
        let Sent {
            digested,
            written_at,
            parts,
        } = sent;
        if old.is_none() {
            return Ok(Attempt::Sent(digested, written_at));
        }
        let (session, staged) = (self.session.as_ref(), self.way.staged);
        match delta::is_as_here(self.shared, session, staged, &parts, self.file).await {
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
    ) -> Result<Sent, TransferError> {
        let whole = vec![Part::whole(self.node.size)];
        let all = old.map_or(whole, |old| old.parts.clone());
        let mut list = all.iter().copied();
        let mut content = Checked::new(self.file);
        let mut source = |offset: u64, len: u32| content.get(known.pieces(), offset, len);
        let mark = |end| known.mark(end);
        let mut next = || Ok(list.next());
        let written_at = self
            .assemble(start, old, &mut next, &mut source, &mark)
            .await?;
        Ok(Sent {
            digested: known.clone(),
            written_at,
            parts: all,
        })
    }

    /// Sends what is read meanwhile, and has the server copy what the old one has of it.
    async fn send_reading(
        &self,
        old: Option<&Old>,
        reading: Reading<'_>,
    ) -> Result<Sent, TransferError> {
        let reading = Mutex::new(reading);
        let mut next = || lock(&reading).next_part();
        let mut source = |offset: u64, len: u32| lock(&reading).bytes(offset, len);
        let mark = |end| lock(&reading).mark(end);
        let written_at = self.assemble(0, old, &mut next, &mut source, &mark).await?;
        let reading = reading.into_inner();
        let (digested, parts) = reading.unwrap_or_else(PoisonError::into_inner).finish();
        Ok(Sent {
            digested,
            written_at,
            parts,
        })
    }

    /// Sends all of it, and reads it on the way.
    async fn send_unread(&self) -> Result<Sent, TransferError> {
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
        let mark = |end| lock(&digest).mark(end);
        let mut whole = Some(Part::whole(size));
        let mut next = || Ok(whole.take());
        let written_at = self
            .assemble(0, None, &mut next, &mut source, &mark)
            .await?;
        let digest = digest.into_inner();
        Ok(Sent {
            digested: digest.unwrap_or_else(PoisonError::into_inner).finish(),
            written_at,
            parts: Vec::new(),
        })
    }

    /// Has it put together in staging, and takes note of how far that came; `mark` tells the hash of its beginnings.
    async fn assemble(
        &self,
        start: u64,
        old: Option<&Old>,
        next: &mut NextPart<'_>,
        source: &mut (dyn FnMut(u64, u32) -> io::Result<Bytes> + Send),
        mark: &(dyn Fn(u64) -> Option<Hash> + Sync),
    ) -> Result<i64, TransferError> {
        let parts = Parts {
            next,
            old: old.map(|old| (&old.handle, old.stat)),
            sync_every: self.shared.options.large.sync_every,
        };
        let mut acked = start;
        let mut heard = |heard| match heard {
            Heard::Acked(end) => self.advance(&mut acked, end),
            Heard::Synced(end) => self.note(end, mark(end)),
        };
        let (path, what) = (self.way.staged, self.what(start));
        remote::assemble(self.session.as_ref(), path, what, parts, source, &mut heard).await
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
