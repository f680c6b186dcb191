//! The server's side of a step: changes that cannot destroy a racing writer's data.
//!
//! Every function names what it expects to find and checks it in the same burst as the change, or by what
//! the change left in a place of ours. Anything else that is found is a new observation.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::Publish;
use super::keep;
use super::scan::{self, ScanError};
use super::shared::{SecondName, Shared, lock};
use crate::remote::{
    self, ErrorKind, Remote, RemoteError, Session, SetStat, Stat, TransferError, Upload,
};
use crate::replica::{Content, Node, ReplicaError};
use crate::sync::Keep;
use crate::tree::{Hash, Kind, NodeId, Place, RelPath, Version};

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

/// Looks at a path: `None` if nothing is there. Symlinks are read, so that versions compare.
pub(super) async fn look(
    session: &dyn Session,
    path: &RelPath,
) -> Result<Option<Version>, RemoteError> {
    match session.lstat(path).await {
        Ok(stat) => Ok(Some(version_of(session, path, stat).await?)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn version_of(
    session: &dyn Session,
    path: &RelPath,
    stat: Stat,
) -> Result<Version, RemoteError> {
    Ok(match stat.kind {
        Kind::File => Version::file(stat.size, stat.mtime, stat.mode),
        Kind::Dir => Version::dir(stat.mode),
        Kind::Symlink => Version::symlink(session.readlink(path).await?),
        kind => Version {
            kind,
            ..Version::dir(stat.mode)
        },
    })
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
    let staged = keep::staging_path(shared, out.node);
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
    let published = match out.replaces {
        None => create(session, &staged, &target).await,
        Some(expected) => replace(shared, remote, session, out, expected, &staged, &target).await,
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
    let snapshot = (shared.replica.opens().writers(node.id) > 0)
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
    let unchanged = snapshot.is_some()
        || shared
            .replica
            .view(|view| view.node(node.id))?
            .is_some_and(|now| now.data_seq == node.data_seq);
    Ok(unchanged.then(|| Some(Hash(*hasher.finalize().as_bytes()))))
}

async fn discard(session: &dyn Session, staged: &RelPath) -> Result<(), RemoteError> {
    match session.remove(staged).await {
        Err(error) if error.is_link_loss() => Err(error),
        _ => Ok(()),
    }
}

/// Gives a staged file its name, if the name is free.
async fn create(
    session: &dyn Session,
    staged: &RelPath,
    target: &RelPath,
) -> Result<Pushed, RemoteError> {
    let (renamed, seen) =
        futures_util::join!(session.rename(staged, target), look(session, target));
    match (renamed, seen?) {
        (Ok(()), Some(version)) => Ok(Pushed::Done(Some(version))),
        // Published, and removed again by somebody in the same moment.
        (Ok(()), None) => Ok(Pushed::Saw(None)),
        (Err(error), _) if error.is_link_loss() => Err(error),
        (Err(_), Some(version)) => {
            discard(session, staged).await?;
            Ok(Pushed::Saw(Some(version)))
        }
        (Err(error), None) => Err(error),
    }
}

/// Puts a staged file in the place of `expected`, which stays reachable at every moment.
async fn replace(
    shared: &Arc<Shared>,
    remote: &Remote,
    session: &dyn Session,
    out: &Outgoing<'_>,
    expected: &Version,
    staged: &RelPath,
    target: &RelPath,
) -> Result<Pushed, RemoteError> {
    let seen = look(session, target).await?;
    if !seen.as_ref().is_some_and(|seen| expected.same(seen)) {
        discard(session, staged).await?;
        return Ok(Pushed::Saw(seen));
    }
    let features = remote.features();
    let kept = keep::kept_path(shared, out.keep, target);
    let by_link =
        shared.options.publish == Publish::Link && features.hardlink && features.posix_rename;
    if !by_link {
        return replace_aside(session, expected, staged, target, &kept).await;
    }
    let second = keep::second_path(shared, out.node);
    let (linked, doubled) = futures_util::join!(
        session.hardlink(target, &kept),
        session.hardlink(staged, &second)
    );
    match linked {
        Ok(()) => doubled?,
        Err(error) if error.is_link_loss() => return Err(error),
        // A file system without hard links: the longer way keeps the same promise.
        Err(_) => {
            discard(session, &second).await?;
            return replace_aside(session, expected, staged, target, &kept).await;
        }
    }
    let (renamed, seen, backup) = futures_util::join!(
        session.posix_rename(staged, target),
        look(session, target),
        look(session, &kept)
    );
    if let Err(error) = renamed {
        if !error.is_link_loss() {
            futures_util::try_join!(discard(session, &second), discard(session, &kept))?;
        }
        return Err(error);
    }
    let raced = !backup?.as_ref().is_some_and(|backup| expected.same(backup));
    if raced {
        tracing::warn!(path = %target, backup = %kept, "somebody changed it while it was replaced; their version is a backup");
    } else if out.keep == Keep::Replaced && !shared.options.keep_replaced {
        discard(session, &kept).await?;
    }
    let Some(version) = seen? else {
        return Ok(Pushed::Saw(None));
    };
    let name = SecondName {
        path: second,
        version: version.clone(),
    };
    let older = lock(&shared.second_names).insert(out.place.clone(), name);
    if let Some(older) = older.filter(|_| !raced) {
        // What it named stood in place until just now, when we replaced it knowingly.
        discard(session, &older.path).await?;
    }
    Ok(Pushed::Done(Some(version)))
}

/// Moves the target aside, looks what it was, and creates. The name is gone for a moment.
async fn replace_aside(
    session: &dyn Session,
    expected: &Version,
    staged: &RelPath,
    target: &RelPath,
    kept: &RelPath,
) -> Result<Pushed, RemoteError> {
    match set_aside(session, expected, target, kept).await? {
        Pushed::Done(_) => {}
        other => {
            discard(session, staged).await?;
            return Ok(other);
        }
    }
    create(session, staged, target).await
}

/// Moves what is at `target` to `aside`; anything but `expected` is moved back.
async fn set_aside(
    session: &dyn Session,
    expected: &Version,
    target: &RelPath,
    aside: &RelPath,
) -> Result<Pushed, RemoteError> {
    let (moved, found) = futures_util::join!(session.rename(target, aside), look(session, aside));
    match (moved, found?) {
        (Ok(()), Some(found)) if expected.same(&found) => Ok(Pushed::Done(None)),
        (Ok(()), found) => {
            // Somebody's newer version: back to its name, unless the name is taken again; then it stays
            // aside, where it is found as a kept version.
            if let Err(error) = session.rename(aside, target).await {
                tracing::warn!(path = %target, kept = %aside, %error, "a version that appeared while it was moved aside stays there");
            }
            Ok(Pushed::Saw(found))
        }
        (Err(error), _) if error.is_link_loss() => Err(error),
        (Err(error), _) => match look(session, target).await? {
            None => Ok(Pushed::Saw(None)),
            Some(seen) if expected.same(&seen) => Err(error),
            Some(seen) => Ok(Pushed::Saw(Some(seen))),
        },
    }
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
    from: &Place,
    to: &Place,
    expected: &Version,
    replaces: Option<&Version>,
) -> Result<Pushed, ScanError> {
    let (Some(source), Some(target)) = (server_path(shared, from)?, server_path(shared, to)?)
    else {
        return Ok(Pushed::Stale);
    };
    let session = remote.bulk().as_ref();
    let seen = look(session, &source).await?;
    if !seen.as_ref().is_some_and(|seen| unmoved(expected, seen)) {
        return Ok(Pushed::Saw(seen));
    }
    if let Some(replaced) = replaces {
        let seen = look(session, &target).await?;
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
    let (renamed, found) =
        futures_util::join!(session.rename(&source, &target), look(session, &target));
    match (renamed, found?) {
        (Ok(()), found) => Ok(Pushed::Done(found)),
        (Err(error), _) if error.is_link_loss() => Err(error.into()),
        (Err(_), seen @ Some(_)) => Ok(Pushed::SawTarget(seen)),
        (Err(error), None) => Err(error.into()),
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
