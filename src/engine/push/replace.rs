//! Giving what was sent its name, and moving aside what had it, so that no version that somebody else wrote
//! is lost: each is looked at where nobody else touches it before anything rests on it.

use std::sync::Arc;

use super::super::keep;
use super::super::options::Publish;
use super::super::shared::{SecondName, Shared, lock};
use super::{Outgoing, Pushed};
use crate::remote::{ErrorKind, Remote, RemoteError, Session, Stat};
use crate::sync::Keep;
use crate::tree::{Kind, RelPath, Version};

/// Looks at a path: `None` if nothing is there. Symlinks are read, so that versions compare.
pub(in crate::engine) async fn look(
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

/// Removes a file of ours that may be gone already.
pub(in crate::engine) async fn discard(
    session: &dyn Session,
    staged: &RelPath,
) -> Result<(), RemoteError> {
    match session.remove(staged).await {
        Err(error) if error.is_link_loss() => Err(error),
        _ => Ok(()),
    }
}

/// Makes a symlink, if the name is free.
pub(super) async fn create_link(
    session: &dyn Session,
    points_to: &[u8],
    target: &RelPath,
) -> Result<Pushed, RemoteError> {
    let (made, seen) =
        futures_util::join!(session.symlink(target, points_to), look(session, target));
    match (made, seen?) {
        (Ok(()), seen @ Some(_)) => Ok(Pushed::Done(seen)),
        (Err(error), _) if error.is_link_loss() => Err(error),
        (Err(error), None) => Err(error),
        (_, seen) => Ok(Pushed::Saw(seen)),
    }
}

/// Gives a staged file its name, if the name is free.
pub(super) async fn create(
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

/// What a replacement is called on the server: first in staging, last in the home.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) staged: &'a RelPath,
    pub(super) second: &'a RelPath,
    pub(super) target: &'a RelPath,
}

/// Puts a staged file in the place of `expected`, which stays reachable at every moment.
pub(super) async fn replace(
    shared: &Arc<Shared>,
    remote: &Remote,
    session: &dyn Session,
    out: &Outgoing<'_>,
    expected: &Version,
    Names {
        staged,
        second,
        target,
    }: Names<'_>,
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
    let (linked, doubled) = futures_util::join!(
        session.hardlink(target, &kept),
        session.hardlink(staged, second)
    );
    match linked {
        Ok(()) => doubled?,
        Err(error) if error.is_link_loss() => return Err(error),
        // A file system without hard links: the longer way keeps the same promise.
        Err(_) => {
            discard(session, second).await?;
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
            futures_util::try_join!(discard(session, second), discard(session, &kept))?;
        }
        return Err(error);
    }
    let raced = !backup?.as_ref().is_some_and(|backup| expected.same(backup));
    if raced {
        let theirs = keep::raced_path(shared, target);
        tracing::warn!(path = %target, backup = %theirs, "somebody changed it while it was replaced; their version is a backup");
        if let Err(error) = session.rename(&kept, &theirs).await {
            tracing::info!(%error, backup = %kept, "it is kept as one that was replaced");
        }
    } else if out.keep == Keep::Replaced && !shared.options.keep_replaced {
        discard(session, &kept).await?;
    }
    let Some(version) = seen? else {
        return Ok(Pushed::Saw(None));
    };
    let name = SecondName {
        path: second.clone(),
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
pub(super) async fn set_aside(
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
