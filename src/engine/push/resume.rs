//! Uploads that go on where they were cut off.
//!
//! A note on this machine says which file in the server's staging holds how many bytes of what, by their hash, that
//! the server has on its disk. Whoever goes on compares: the bytes that were noted with what is here, by the hash,
//! and all that is staged behind them by reading it back; from the first difference on, all is sent again. Only the same
//! content, by its `data_seq`, goes on: requests of a session that broke may still reach the server, and write the very
//! bytes that are there.

use std::fs::File;

use super::super::keep;
use super::super::scan::ScanError;
use super::super::shared::{Claim, Shared, blocking};
use super::checked::Checked;
use super::discard;
use crate::remote::{self, RemoteError, Session, SetStat, TransferError};
use crate::replica::{Digested, Intent, Node, ReplicaError, UploadNote};
use crate::tree::{Hash, Kind, NodeId, RelPath};

/// An upload's name in staging, and what an earlier attempt left there.
pub(super) struct Ticket {
    pub(super) number: u64,
    node: NodeId,
    claim: Option<Claim>,
    found: Option<UploadNote>,
    stale: Option<u64>,
}

impl Ticket {
    /// For a node that is about to be sent as it was when its `data_seq` was `seq`.
    pub(super) fn take(shared: &Shared, node: &Node, seq: u64) -> Result<Self, ReplicaError> {
        let mut ticket = Self {
            number: keep::upload_number(shared),
            node: node.id,
            claim: None,
            found: None,
            stale: None,
        };
        if node.kind != Kind::File || node.size < shared.options.large.resume_from {
            return Ok(ticket);
        }
        // Another name of the same file goes its own way.
        ticket.claim = shared.claims.take(&format!("up-{}", node.id));
        if ticket.claim.is_none() {
            return Ok(ticket);
        }
        match shared.replica.content().upload_note(node.id)? {
            Some(note) if note.seq == seq => {
                ticket.number = note.number;
                ticket.found = Some(note);
            }
            Some(note) => ticket.stale = Some(note.number),
            None => {}
        }
        Ok(ticket)
    }

    /// What is known of an earlier attempt to send this very content.
    pub(super) fn note_for(&self, node: &Node) -> Option<&UploadNote> {
        let found = self.found.as_ref();
        found.filter(|note| note.seq == node.data_seq && note.at <= node.size)
    }

    /// Begins anew: what was there before goes.
    pub(super) async fn begin(
        &self,
        shared: &Shared,
        session: &dyn Session,
        node: &Node,
    ) -> Result<(), ScanError> {
        if self.claim.is_none() {
            return Ok(());
        }
        if let Some(number) = self.stale {
            discard(session, &keep::staging_path(shared, self.node, number)).await?;
        }
        if self.found.is_some() {
            discard(session, &keep::staging_path(shared, self.node, self.number)).await?;
        }
        self.note(shared, node, 0, nothing());
        Ok(())
    }

    /// The server has the first `at` bytes of the node on its disk.
    pub(super) fn note(&self, shared: &Shared, node: &Node, at: u64, hash: Hash) {
        if self.claim.is_none() {
            return;
        }
        let note = UploadNote {
            number: self.number,
            seq: node.data_seq,
            at,
            hash,
            noted: shared.now(),
        };
        let noted = blocking(|| shared.replica.content().note_upload(self.node, &note));
        if let Err(error) = noted {
            tracing::info!(%error, "an upload that is cut off will begin anew");
        }
    }

    /// It is published, or there is nothing in staging to go on with.
    pub(super) fn done(&self, shared: &Shared) {
        if self.claim.is_some() {
            forget(shared, self.node);
        }
    }
}

fn forget(shared: &Shared, node: NodeId) {
    if let Err(error) = shared.replica.content().forget_upload(node) {
        tracing::info!(%error, "forgetting an upload");
    }
}

fn nothing() -> Hash {
    Hash(*blake3::hash(b"").as_bytes())
}

/// How many bytes of `staged` are what is to be sent; 0 if there is any doubt.
pub(super) async fn verified(
    session: &dyn Session,
    staged: &RelPath,
    note: &UploadNote,
    (file, size): (&File, u64),
    known: &Digested,
) -> Result<u64, ScanError> {
    // A server that knows no fsync may empty, or refuse, a file that is opened again.
    if !session.features().fsync {
        return Ok(0);
    }
    let noted = match note.at {
        0 => Some(nothing()),
        at if at == size => Some(known.hash),
        at => known.mark(at),
    };
    if noted != Some(note.hash) {
        return Ok(0);
    }
    match compared(session, staged, note.at, (file, size), known).await {
        Err(TransferError::Remote(error)) if error.is_link_loss() => Err(error.into()),
        Err(error) => {
            tracing::info!(%error, "an upload begins anew");
            Ok(0)
        }
        Ok(at) => Ok(at),
    }
}

async fn compared(
    session: &dyn Session,
    staged: &RelPath,
    at: u64,
    (file, size): (&File, u64),
    known: &Digested,
) -> Result<u64, TransferError> {
    let stat = session.lstat(staged).await?;
    if stat.kind != Kind::File || stat.size < at || stat.size > size || stat.size == 0 {
        return Ok(0);
    }
    // It may have its final mode already.
    let open = SetStat {
        mode: Some(0o600),
        ..SetStat::default()
    };
    session.setstat(staged, open).await?;
    let mut local = Checked::new(file);
    let mut expected = |offset: u64, there: &[u8]| {
        let here = local.get(known.pieces(), offset, there.len() as u32)?;
        Ok(here == there)
    };
    let range = (at, stat.size);
    let same = remote::matching(session, staged, range, &mut expected).await?;
    // What was under way over several channels leaves holes: from the first on all is written again.
    Ok(same)
}

/// Where a whole upload goes that may have been about to get its name when the link broke; `None` if it is not worth
/// it. Under another name, nothing that the server has not come to yet can publish it any more.
pub(in crate::engine) fn rescue(
    shared: &Shared,
    session: &dyn Session,
    intent: &Intent,
) -> Result<Option<RelPath>, ReplicaError> {
    let node = shared
        .replica
        .view::<_, ReplicaError>(|view| view.node(intent.node))?;
    let same = node.filter(|node| node.data_seq == intent.data_seq && node.data_changed);
    let (Some(node), Some(hash)) = (same, intent.version.hash) else {
        return Ok(None);
    };
    let features = session.features();
    if node.size != intent.version.size || !features.posix_rename {
        return Ok(None);
    }
    let ticket = Ticket::take(shared, &node, node.data_seq)?;
    if ticket.claim.is_none() {
        return Ok(None);
    }
    let ticket = Ticket {
        number: keep::upload_number(shared),
        ..ticket
    };
    // Before the rename, or a crash would leave a file that nobody knows.
    match features.fsync && shared.options.server_fsync {
        true => ticket.note(shared, &node, node.size, hash),
        false => ticket.note(shared, &node, 0, nothing()),
    }
    Ok(Some(keep::staging_path(shared, node.id, ticket.number)))
}

/// Moves the upload of an intent to where `rescue` says, or removes it. An error says that it was not there.
pub(in crate::engine) async fn unstage(
    session: &dyn Session,
    staged: &RelPath,
    to: Option<&RelPath>,
) -> Result<(), RemoteError> {
    match to {
        Some(to) => session.posix_rename(staged, to).await,
        None => session.remove(staged).await,
    }
}

/// Whether somebody may go on with what is in staging under this number. If not, its note goes, too.
pub(in crate::engine) fn is_wanted(
    shared: &Shared,
    node: NodeId,
    number: u64,
) -> Result<bool, ReplicaError> {
    let store = shared.replica.content();
    let Some(note) = store
        .upload_note(node)?
        .filter(|note| note.number == number)
    else {
        return Ok(false);
    };
    let row = shared
        .replica
        .view::<_, ReplicaError>(|view| view.node(node))?;
    let wanted = row.is_some_and(|row| row.data_changed && row.data_seq == note.seq);
    if !wanted {
        store.forget_upload(node)?;
    }
    Ok(wanted)
}
