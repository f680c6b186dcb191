//! The server's side of a step: changes that cannot destroy a racing writer's data.
//!
//! Every function names what it expects to find and checks it in the same burst as the change, or by what
//! the change left in a place of ours. Anything else that is found is a new observation.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::intents;
use super::keep;
use super::scan::{self, ScanError};
use super::shared::Shared;
use crate::remote::{self, Remote, RemoteError, Session, SetStat, TransferError, Upload};
use crate::replica::{Content, Intent, Node, ReplicaError};
use crate::sync::Keep;
use crate::tree::{Hash, Kind, NodeId, Place, RelPath, Version};

mod replace;

use replace::{Names, create, create_link, replace, set_aside};
pub(super) use replace::{discard, look};

/// How a step on the server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It stands: what a look shows there now.
    Done(Option<Version>),
    /// Something else than expected is there; nothing of it was lost.
    Saw(Option<Version>),
    /// Something is in the way where a move goes.
    SawTarget(Option<Version>),
    /// The replica changed since the plan was made, or the place has no parent on the server yet.
    Stale,
}

/// A file or symlink on its way.
pub(super) struct Outgoing<'a> {
    pub(super) place: &'a Place,
    pub(super) node: NodeId,
    pub(super) seq: u64,
    pub(super) replaces: Option<&'a Version>,
    pub(super) keep: Keep,
}

/// The base path of a place, if its parent is on the server.
pub(super) fn server_path(shared: &Shared, place: &Place) -> Result<Option<RelPath>, ReplicaError> {
    shared.replica.view(|view| view.base_path_of(place))
}

/// Sends a file or symlink and publishes it.
pub(super) async fn publish(
    shared: &Arc<Shared>,
    remote: &Remote,
    out: &Outgoing<'_>,
) -> Result<Pushed, ScanError> {
    let Some(target) = server_path(shared, out.place)? else {
        return Ok(Pushed::Stale);
    };
    let node = shared.replica.view(|view| view.node(out.node))?;
    let Some(node) = node.filter(|node| node.data_seq == out.seq) else {
        return Ok(Pushed::Stale);
    };
    let session = remote.bulk().as_ref();
    let number = keep::upload_number();
    let staged = keep::staging_path(shared, out.node, number);
    let intent = |hash| Intent {
        node: node.id,
        data_seq: node.data_seq,
        number,
        version: Version {
            hash,
            ..node.version()
        },
        from: None,
    };
    if node.kind == Kind::Symlink && out.replaces.is_none() {
        intents::declare(shared, out.place, intent(None))?;
        // Made in place: a rename onto a dangling symlink would replace it.
        return Ok(create_link(session, &node.target, &target).await?);
    }
    let sent = match node.kind {
        Kind::Symlink => {
            session.symlink(&staged, &node.target).await?;
            Some(None)
        }
        _ => send(shared, session, &node, &target, &staged).await?,
    };
    let Some(hash) = sent else {
        discard(session, &staged).await?;
        return Ok(Pushed::Stale);
    };
    intents::declare(shared, out.place, intent(hash))?;
    let published = match out.replaces {
        None => create(session, &staged, &target).await,
        Some(expected) => {
            let second = keep::second_path(shared, out.node, number);
            let names = Names {
                staged: &staged,
                second: &second,
                target: &target,
            };
            replace(shared, remote, session, out, expected, names).await
        }
    };
    let pushed = match published {
        Ok(pushed) => pushed,
        Err(error) => {
            if !error.is_link_loss() {
                discard(session, &staged).await?;
            }
            return Err(error.into());
        }
    };
    Ok(match pushed {
        Pushed::Done(Some(version)) => Pushed::Done(Some(Version { hash, ..version })),
        other => other,
    })
}

/// Uploads a file's content into staging. `None` if it changed under way; else its hash.
async fn send(
    shared: &Arc<Shared>,
    session: &dyn Session,
    node: &Node,
    target: &RelPath,
    staged: &RelPath,
) -> Result<Option<Option<Hash>>, ScanError> {
    if node.content != Content::Whole {
        return Ok(None);
    }
    let content = shared.replica.content();
    // A writer at work: what is sent is a copy of one moment, or it would be torn.
    let snapshot = (shared.replica.opens().writers(node.id) > 0 && node.size > 0)
        .then(|| content.snapshot(node.id))
        .transpose()?;
    let opened;
    let file = match &snapshot {
        Some(snapshot) => Some(&snapshot.file),
        None if node.size == 0 => None,
        None => {
            opened = content.open_read(node.id)?;
            Some(&opened)
        }
    };
    let size = match &snapshot {
        Some(snapshot) => snapshot.len()?,
        None => node.size,
    };
    // The semaphore is never closed, and a single transfer never asks for more than there is.
    let held = size.min(remote::TRANSFER_WINDOW) as u32;
    let _held = shared.upload_bytes.acquire_many(held).await;
    let progress = shared.transfers.start(target.clone(), true, size);
    let mut hasher = blake3::Hasher::new();
    let upload = Upload {
        size,
        resume_at: 0,
        mode: node.mode,
        mtime: node.mtime.secs(),
        fsync: shared.options.server_fsync,
    };
    let mut source = |offset: u64, len: u32| {
        let mut buffer = vec![0; len as usize];
        if let Some(file) = &file {
            file.read_exact_at(&mut buffer, offset)?;
        }
        hasher.update(&buffer);
        progress.advance(u64::from(len));
        Ok(Bytes::from(buffer))
    };
    let uploaded = remote::upload(session, staged, upload, &mut source, &mut |_acked| {}).await;
    match uploaded {
        Ok(()) => {}
        Err(TransferError::Remote(error)) => return Err(error.into()),
        // A file that shrank while it was read is a change like any other.
        Err(TransferError::Local { .. } | TransferError::Changed { .. }) => return Ok(None),
    }
    // A copy is of one moment only where the disk shares blocks, so it is checked like the rest.
    let now = shared.replica.view(|view| view.node(node.id))?;
    let unchanged = now.is_some_and(|now| now.data_seq == node.data_seq);
    Ok(unchanged.then(|| Some(Hash(*hasher.finalize().as_bytes()))))
}

/// Moves a file or symlink into trash or backups.
pub(super) async fn remove(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
    expected: &Version,
    keep: Keep,
) -> Result<Pushed, ScanError> {
    let Some(target) = server_path(shared, place)? else {
        return Ok(Pushed::Stale);
    };
    let session = remote.bulk().as_ref();
    let seen = look(session, &target).await?;
    if !seen.as_ref().is_some_and(|seen| expected.same(seen)) {
        return Ok(Pushed::Saw(seen));
    }
    let kept = keep::kept_path(shared, keep, &target);
    Ok(set_aside(session, expected, &target, &kept).await?)
}

/// Renames on the server what a program renamed here.
pub(super) async fn move_node(
    shared: &Arc<Shared>,
    remote: &Remote,
    node: NodeId,
    from: &Place,
    to: &Place,
    expected: &Version,
    replaces: Option<&Version>,
) -> Result<Pushed, ScanError> {
    let (Some(source), Some(target)) = (server_path(shared, from)?, server_path(shared, to)?)
    else {
        return Ok(Pushed::Stale);
    };
    // An earlier move may have failed, so that something else stands there.
    let stands = shared.replica.view(|view| view.base(from))?;
    if stands.is_none_or(|entry| entry.node != node) {
        return Ok(Pushed::Stale);
    }
    let session = remote.bulk().as_ref();
    let seen = look(session, &source).await?;
    if !seen.as_ref().is_some_and(|seen| unmoved(expected, seen)) {
        return Ok(Pushed::Saw(seen));
    }
    if to.parent == NodeId::STAGING {
        make_way_station(session, &target).await?;
    }
    // Looked at first: a rename onto a dangling symlink would replace it.
    let there = look(session, &target).await?;
    if replaces.is_none() && there.is_some() {
        return Ok(Pushed::SawTarget(there));
    }
    if let Some(replaced) = replaces {
        let seen = there;
        if !seen.as_ref().is_some_and(|seen| replaced.same(seen)) {
            return Ok(Pushed::SawTarget(seen));
        }
        let kept = keep::kept_path(shared, Keep::Replaced, &target);
        match set_aside(session, replaced, &target, &kept).await? {
            Pushed::Done(_) => {}
            Pushed::Saw(seen) => return Ok(Pushed::SawTarget(seen)),
            other => return Ok(other),
        }
    }
    let intent = Intent {
        node,
        data_seq: 0,
        number: keep::upload_number(),
        version: expected.clone(),
        from: Some(from.clone()),
    };
    intents::declare(shared, to, intent)?;
    let (renamed, found) =
        futures_util::join!(session.rename(&source, &target), look(session, &target));
    match (renamed, found?) {
        (Ok(()), found) => Ok(Pushed::Done(found)),
        (Err(error), _) if error.is_link_loss() => Err(error.into()),
        (Err(_), seen @ Some(_)) => Ok(Pushed::SawTarget(seen)),
        (Err(error), None) => Err(error.into()),
    }
}

/// Makes this machine's own directory for moves in the staging area, if it is not there yet.
async fn make_way_station(session: &dyn Session, inside: &RelPath) -> Result<(), RemoteError> {
    let names = inside.names();
    let station = names[..names.len().saturating_sub(1)]
        .iter()
        .cloned()
        .collect();
    match session.mkdir(&station, 0o700).await {
        Err(error) if error.is_link_loss() => Err(error),
        // There already; if not, the move itself fails.
        _ => Ok(()),
    }
}

/// Whether what is to be moved is what base knows; a directory may have got another mode.
fn unmoved(expected: &Version, seen: &Version) -> bool {
    if expected.kind == Kind::Dir {
        seen.kind == Kind::Dir
    } else {
        expected.same(seen)
    }
}

/// An intent without a file in staging: none bears this number.
fn unstaged(node: &Node) -> Intent {
    Intent {
        node: node.id,
        data_seq: node.data_seq,
        number: keep::upload_number(),
        version: node.version(),
        from: None,
    }
}

/// Makes a directory; one that is there already serves as well.
pub(super) async fn make_dir(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
    node: NodeId,
) -> Result<Pushed, ScanError> {
    let Some(target) = server_path(shared, place)? else {
        return Ok(Pushed::Stale);
    };
    let Some(node) = shared.replica.view(|view| view.node(node))? else {
        return Ok(Pushed::Stale);
    };
    let session = remote.bulk().as_ref();
    intents::declare(shared, place, unstaged(&node))?;
    // Writable for us until it is filled; the next plan sets the mode if it is to be another.
    let (made, seen) = futures_util::join!(
        session.mkdir(&target, node.mode | 0o700),
        look(session, &target)
    );
    match (made, seen?) {
        (Ok(()), Some(version)) => Ok(Pushed::Done(Some(version))),
        (Err(error), _) if error.is_link_loss() => Err(error.into()),
        (Err(error), None) => Err(error.into()),
        (_, seen) => Ok(Pushed::Saw(seen)),
    }
}

/// Removes a directory; one that is not empty stays, and is looked into.
pub(super) async fn remove_dir(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
) -> Result<Pushed, ScanError> {
    let Some(target) = server_path(shared, place)? else {
        return Ok(Pushed::Stale);
    };
    let session = remote.bulk().as_ref();
    match session.rmdir(&target).await {
        Ok(()) => Ok(Pushed::Done(None)),
        Err(error) if error.is_link_loss() => Err(error.into()),
        Err(_) => {
            let Some(seen) = look(session, &target).await? else {
                return Ok(Pushed::Done(None));
            };
            if let Some(base) = shared.replica.view(|view| view.base(place))? {
                scan::observe(shared, base.node, false).await?;
            }
            Ok(Pushed::Saw(Some(seen)))
        }
    }
}

/// Sets mode and mtime on the server.
pub(super) async fn set_attr(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
    node: NodeId,
    expected: &Version,
) -> Result<Pushed, ScanError> {
    let Some(target) = server_path(shared, place)? else {
        return Ok(Pushed::Stale);
    };
    let Some(node) = shared.replica.view(|view| view.node(node))? else {
        return Ok(Pushed::Stale);
    };
    let session = remote.bulk().as_ref();
    let seen = look(session, &target).await?;
    if !seen.as_ref().is_some_and(|seen| expected.same(seen)) {
        return Ok(Pushed::Saw(seen));
    }
    intents::declare(shared, place, unstaged(&node))?;
    let mtime = (node.kind == Kind::File).then(|| node.mtime.secs());
    let set = SetStat {
        mode: Some(node.mode),
        mtime,
        ..SetStat::default()
    };
    // Never through a link: `lsetstat` where there is one, and the kind was looked at just before.
    let done = if remote.features().lsetstat {
        session.lsetstat(&target, set).await
    } else {
        session.setstat(&target, set).await
    };
    done?;
    Ok(Pushed::Done(Some(node.version())))
}
