//! Uploading a file into staging, as it was at one moment. What programs write to it afterwards is another
//! version, and no reason to throw this one away.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::super::scan::ScanError;
use super::super::shared::Shared;
use super::apart::set_apart;
use super::resume::Ticket;
use super::{discard, large};
use crate::remote::{self, Remote, RemoteError, Session, TransferError, Upload};
use crate::replica::{Content, Node, ReplicaError};
use crate::tree::{Hash, NodeId, Place, RelPath, Version};

/// Files of this size and more go over several channels.
const WIDE_BYTES: u64 = 8 * 1024 * 1024;

/// What is in staging now.
pub(super) struct Sent {
    /// The node as it was then.
    pub(super) node: Node,
    /// The hash of what was sent of a file.
    pub(super) hash: Option<Hash>,
}

impl Sent {
    /// What the server will show.
    pub(super) fn version(&self) -> Version {
        Version {
            hash: self.hash,
            ..self.node.version()
        }
    }
}

/// How a file goes to the server.
pub(super) struct Way<'a> {
    pub(super) remote: &'a Remote,
    pub(super) place: &'a Place,
    /// Where it is going to stand, and what stands there.
    pub(super) target: &'a RelPath,
    pub(super) replaces: Option<&'a Version>,
    pub(super) staged: &'a RelPath,
    pub(super) ticket: &'a Ticket,
    /// What it must not look like there.
    pub(super) lookalikes: &'a [Version],
}

impl Way<'_> {
    fn session(&self) -> &dyn Session {
        self.remote.bulk().as_ref()
    }

    /// For a file of so many bytes.
    pub(super) fn session_for(&self, size: u64) -> &Arc<dyn Session> {
        match size >= WIDE_BYTES {
            true => self.remote.wide(),
            false => self.remote.bulk(),
        }
    }

    /// Removes what was uploaded.
    pub(super) async fn discard(&self) -> Result<(), RemoteError> {
        discard(self.session(), self.staged).await
    }
}

/// Uploads a file, which had `seq` when the plan was made. `None` if it cannot be had whole now, or is not what a
/// program wrote.
pub(super) async fn send(
    shared: &Arc<Shared>,
    way: &Way<'_>,
    node: Node,
    seq: u64,
) -> Result<Option<Sent>, ScanError> {
    let id = node.id;
    if node.data_seq == seq && shared.replica.opens().writers(id) == 0 {
        if node.content != Content::Whole {
            return Ok(None);
        }
        let file = match node.size {
            0 => None,
            _ => Some(shared.replica.content().open_read(id, node.data_changed)?),
        };
        let (node, hash) = upload(shared, way, node, file.as_ref()).await?;
        let unchanged = shared.replica.is_as_read(&node)?;
        if let Some(rotten) = shared
            .replica
            .content()
            .convict(&node, hash)
            .filter(|_| unchanged)
        {
            way.discard().await?;
            return Err(rotten.into());
        }
        if hash.is_some() && unchanged {
            return Ok(Some(Sent { node, hash }));
        }
        way.discard().await?;
    }
    // Somebody is at work on it. A database is taken with all that belongs to it.
    if is_database(shared, id)? {
        return Ok(None);
    }
    let Some(snapshot) = shared.replica.snapshot(id)? else {
        return Ok(None);
    };
    let node = snapshot.node;
    if node.data_seq != seq && !node.data_changed {
        return Ok(None);
    }
    let file = snapshot.file.as_ref().map(|file| &file.file);
    let (node, hash) = upload(shared, way, node, file).await?;
    Ok(hash.is_some().then_some(Sent { node, hash }))
}

fn is_database(shared: &Shared, id: NodeId) -> Result<bool, ReplicaError> {
    let node = shared.replica.view(|view| view.node(id))?;
    Ok(node.is_some_and(|node| shared.replica.is_database(&node)))
}

/// Uploads a file that was taken at one moment. `None` if it was cut under way.
pub(super) async fn send_as_taken(
    shared: &Arc<Shared>,
    way: &Way<'_>,
    node: Node,
    file: Option<&File>,
) -> Result<Option<Sent>, ScanError> {
    let (node, hash) = upload(shared, way, node, file).await?;
    if let Some(rotten) = shared.replica.content().convict(&node, hash) {
        return Err(rotten.into());
    }
    Ok(hash.is_some().then_some(Sent { node, hash }))
}

/// Uploads `file` as the content of `node`. Tells the node as it was sent, dated so that nothing looks like it, and
/// the hash; `None` if it was cut under way.
async fn upload(
    shared: &Arc<Shared>,
    way: &Way<'_>,
    node: Node,
    file: Option<&File>,
) -> Result<(Node, Option<Hash>), ScanError> {
    let node = set_apart(shared, node, way.lookalikes)?;
    // The semaphore is never closed, and a single transfer never asks for more than there is.
    let held = node.size.min(remote::TRANSFER_WINDOW) as u32;
    let _held = shared.upload_bytes.acquire_many(held).await;
    let progress = shared.transfers.start(way.target.clone(), true, node.size);
    if let Some(file) = file.filter(|_| large::is_large(shared, &node)) {
        let hash = large::upload(shared, way, &node, file, &progress).await?;
        return Ok((node, hash));
    }
    let mut hasher = blake3::Hasher::new();
    let upload = Upload {
        size: node.size,
        resume_at: 0,
        mode: node.mode,
        mtime: node.server_mtime(),
        fsync: shared.options.server_fsync,
    };
    let mut source = |offset: u64, len: u32| {
        let mut buffer = vec![0; len as usize];
        if let Some(file) = file {
            file.read_exact_at(&mut buffer, offset)?;
        }
        hasher.update(&buffer);
        progress.advance(u64::from(len));
        Ok(Bytes::from(buffer))
    };
    let session = way.session_for(node.size).as_ref();
    match remote::upload(session, way.staged, upload, &mut source, &mut |_acked| {}).await {
        Ok(()) => Ok((node, Some(Hash(*hasher.finalize().as_bytes())))),
        Err(TransferError::Remote(error)) => Err(error.into()),
        Err(TransferError::Local { .. } | TransferError::Changed { .. }) => Ok((node, None)),
    }
}
