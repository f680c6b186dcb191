//! The end of what is kept: retention, second names that have done their duty, and what a dead upload left.

use std::sync::Arc;

use super::super::home;
use super::super::shared::{Shared, lock};
use super::kept_path;
use crate::remote::layout::{self, Aside};
use crate::remote::{ErrorKind, Remote, RemoteError, Session};
use crate::replica::{Observation, ReplicaError};
use crate::sync::Keep;
use crate::tree::{NodeId, RelPath, Time};

/// What is kept is looked through for what may go so often: its lists can be long.
const EXPIRE_EVERY_SECS: i64 = 86_400;

/// After a full pass: second names are no longer needed where our version was seen in place, what a dead
/// upload left is removed, and once a day what is older than the retention goes.
pub(in crate::engine) async fn tidy(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<(), RemoteError> {
    release_second_names(shared, remote).await?;
    futures_util::try_join!(
        clear_staging(shared, remote),
        home::clear_counters(shared, remote)
    )?;
    let now = shared.server_now().secs();
    let last = *lock(&shared.expired_at);
    // A clock that went back tells nothing.
    if last.is_some_and(|last| (last..last + EXPIRE_EVERY_SECS).contains(&now)) {
        return Ok(());
    }
    let before = now - i64::try_from(shared.options.retention.as_secs()).unwrap_or(i64::MAX / 2);
    futures_util::try_join!(
        expire(remote, layout::trash(), before),
        expire(remote, layout::backups(), before)
    )?;
    if let Err(error) = expire_local(shared) {
        tracing::warn!(%error, "removing local backups whose retention ended");
    }
    *lock(&shared.expired_at) = Some(now);
    Ok(())
}

pub(super) async fn expire(
    remote: &Remote,
    shelf: RelPath,
    before: i64,
) -> Result<u64, RemoteError> {
    let mut removed = 0;
    for entry in remote.bulk().list(&shelf).await? {
        let Some(aside) = Aside::parse(&entry.name) else {
            continue;
        };
        if aside.at.secs() < before {
            home::remove_if_there(remote, &shelf.join(&entry.name)).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn expire_local(shared: &Shared) -> Result<(), ReplicaError> {
    let retention = i64::try_from(shared.options.retention.as_nanos()).unwrap_or(i64::MAX);
    let before = Time(shared.now().0.saturating_sub(retention));
    for backup in shared.replica.view(|view| view.backups())? {
        if backup.at < before {
            shared.replica.update(|tx| tx.remove_backup(backup.id))?;
            shared.replica.content().remove_backup(backup.id)?;
        }
    }
    Ok(())
}

/// A second name whose version is the one that a later look found in place has done its duty. If something
/// else is in place, it holds what a racing client destroyed: it becomes a backup.
async fn release_second_names(shared: &Arc<Shared>, remote: &Remote) -> Result<(), RemoteError> {
    let names: Vec<_> = std::mem::take(&mut *lock(&shared.second_names))
        .into_iter()
        .collect();
    let session = remote.bulk().as_ref();
    for (place, second) in names {
        let seen = shared.replica.view(|view| {
            let base = view.base(&place)?.map(|base| base.version);
            let seen: Option<Observation> = view.observation(&place)?;
            let path = view.base_path_of(&place)?;
            Ok::<_, ReplicaError>((seen.map_or(base, |seen| seen.version), path))
        });
        let Ok((seen, Some(path))) = seen else {
            continue;
        };
        if seen.is_some_and(|seen| seen.same_content(&second.version)) {
            home::remove_if_there(remote, &second.path).await?;
        } else {
            keep_second_name(shared, session, &second.path, &path).await?;
        }
    }
    Ok(())
}

async fn keep_second_name(
    shared: &Shared,
    session: &dyn Session,
    second: &RelPath,
    origin: &RelPath,
) -> Result<(), RemoteError> {
    // Nearly always by somebody who had seen it: no conflict that a person has to decide about.
    let kept = kept_path(shared, Keep::Replaced, origin);
    match session.rename(second, &kept).await {
        Err(error) if error.kind != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What this client left in staging when it died or lost its link: a second name becomes a backup, an upload
/// goes, whatever its times say. Passes do not overlap, so nothing of this moment is there.
async fn clear_staging(shared: &Arc<Shared>, remote: &Remote) -> Result<(), RemoteError> {
    let session = remote.bulk().as_ref();
    let moves = shared
        .replica
        .view::<_, ReplicaError>(|view| view.base_path(NodeId::STAGING));
    for entry in session.list(&layout::staging()).await? {
        let path = layout::staging().join(&entry.name);
        if moves
            .as_ref()
            .is_ok_and(|moves| moves.as_ref() == Some(&path))
        {
            // Stays if a move is still on its way.
            match session.rmdir(&path).await {
                Err(error) if error.is_link_loss() => return Err(error),
                _ => continue,
            }
        }
        let Some((client, node, number)) = layout::parse_staging_name(&entry.name) else {
            continue;
        };
        if client != shared.client {
            continue;
        }
        if number & 1 == 1 {
            let origin = shared
                .replica
                .view::<_, ReplicaError>(|view| view.local_path(node));
            let origin = origin
                .ok()
                .flatten()
                .unwrap_or_else(|| std::iter::once(entry.name).collect());
            keep_second_name(shared, session, &path, &origin).await?;
        } else {
            home::remove_if_there(remote, &path).await?;
        }
    }
    Ok(())
}
