//! The end of what is kept: retention, second names that have done their duty, and what a dead upload left.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::boost;
use super::super::deeds;
use super::super::home;
use super::super::push;
use super::super::shared::{Shared, lock};
use super::kept_path;
use super::retention::{self, Item, Limits};
use crate::remote::layout::{self, Aside, Reason};
use crate::remote::{ErrorKind, Remote, RemoteError, Session};
use crate::replica::{Observation, ReplicaError};
use crate::sync::Keep;
use crate::tree::{Name, NodeId, RelPath, Time};

/// What is kept is looked through for what may go so often: its lists can be long.
const EXPIRE_EVERY_SECS: i64 = 86_400;

/// What is kept for less than this does not go for want of room.
const YOUNG_SECS: i64 = 86_400;

/// What is in staging, each with the number of its names where the server tells.
type Staged = BTreeMap<Name, Option<u32>>;

/// After a full pass: second names are no longer needed where our version was seen in place, what a dead
/// upload left is removed, and once a day what is too old, too many
/// of one file or too much goes.
pub(in crate::engine) async fn tidy(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<(), RemoteError> {
    push::forget_gone(shared);
    let listed = remote.bulk().list(&layout::staging()).await?;
    let mut staged = listed
        .into_iter()
        .map(|entry| (entry.name, entry.links))
        .collect();
    release_second_names(shared, remote, &mut staged).await?;
    futures_util::try_join!(
        clear_staging(shared, remote, staged),
        home::clear_counters(shared, remote)
    )?;
    let now = shared.server_now().secs();
    let last = *lock(&shared.expired_at);
    // A clock that went back tells nothing.
    if last.is_some_and(|last| (last..last + EXPIRE_EVERY_SECS).contains(&now)) {
        return Ok(());
    }
    expire_there(shared, remote, now).await?;
    if let Err(error) = expire_here(shared) {
        tracing::warn!(%error, "removing local backups whose retention ended");
    }
    if let Err(error) = forget_large(shared) {
        tracing::warn!(%error, "forgetting what large files consisted of");
    }
    let retention = i64::try_from(shared.options.retention.as_nanos()).unwrap_or(i64::MAX);
    let before = Time(shared.now().0.saturating_sub(retention));
    if let Err(error) = deeds::expire(shared, before) {
        tracing::warn!(%error, "forgetting what passes did long ago");
    }
    *lock(&shared.expired_at) = Some(now);
    Ok(())
}

fn limits(shared: &Shared, now: i64) -> Limits {
    let retention = i64::try_from(shared.options.retention.as_secs()).unwrap_or(i64::MAX / 2);
    Limits {
        before: now.saturating_sub(retention),
        young: now.saturating_sub(YOUNG_SECS),
        bytes: shared.options.retention_size,
        of_one_file: shared.options.kept_per_file,
    }
}

/// What goes from both shelves of the server, which share the room.
async fn expire_there(shared: &Arc<Shared>, remote: &Remote, now: i64) -> Result<(), RemoteError> {
    let mut items = Vec::new();
    let mut paths = Vec::new();
    for shelf in [layout::trash(), layout::backups()] {
        for entry in remote.bulk().list(&shelf).await? {
            let Some(aside) = Aside::parse(&entry.name) else {
                continue;
            };
            paths.push(shelf.join(&entry.name));
            items.push(Item {
                at: aside.at.secs(),
                size: entry.stat.size,
                only_copy: matches!(aside.reason, Reason::Conflict | Reason::Race),
                origin: aside.origin,
            });
        }
    }
    for i in retention::expired(&items, &limits(shared, now)) {
        home::remove_if_there(remote, &paths[i]).await?;
    }
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

fn expire_here(shared: &Shared) -> Result<(), ReplicaError> {
    let backups = shared.replica.view(|view| view.backups())?;
    let items: Vec<_> = backups
        .iter()
        .map(|backup| Item {
            origin: &backup.path,
            at: backup.at.secs(),
            size: backup.version.size,
            only_copy: backup.unsent,
        })
        .collect();
    for i in retention::expired(&items, &limits(shared, shared.now().secs())) {
        let id = backups[i].id;
        shared.replica.update(|tx| tx.remove_backup(id))?;
        shared.replica.content().remove_backup(id)?;
    }
    Ok(())
}

/// A second name whose version is the one that a later look found in place has done its duty. If something
/// else is in place, it holds what a racing client destroyed: it becomes a backup. That may look the same, if somebody
/// else saved as much in the same second: then this is the only name left, and what is in place is compared.
async fn release_second_names(
    shared: &Arc<Shared>,
    remote: &Remote,
    staged: &mut Staged,
) -> Result<(), RemoteError> {
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
        let looks_right = seen.is_some_and(|seen| seen.same_content(&second.version));
        let links = second
            .path
            .names()
            .last()
            .and_then(|name| staged.remove(name));
        let is_last = links == Some(Some(1));
        if looks_right && !is_last {
            home::remove_if_there(remote, &second.path).await?;
            continue;
        }
        keep_second_name(shared, session, &second.path, &path).await?;
        if looks_right
            && let Err(error) = (shared.replica).update::<_, ReplicaError>(|tx| tx.mark_racy(place))
        {
            tracing::warn!(%error, %path, "it is not compared with what another machine sent");
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
/// goes, whatever its times say, unless it is to go on. Passes do not overlap, so nothing of this moment is there.
async fn clear_staging(
    shared: &Arc<Shared>,
    remote: &Remote,
    staged: Staged,
) -> Result<(), RemoteError> {
    let session = remote.bulk().as_ref();
    let moves = shared
        .replica
        .view::<_, ReplicaError>(|view| view.base_path(NodeId::STAGING));
    for name in staged.into_keys() {
        let path = layout::staging().join(&name);
        if path == layout::boost_staged(shared.client) {
            boost::clear(shared, remote).await?;
            continue;
        }
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
        let Some((client, node, number)) = layout::parse_staging_name(&name) else {
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
                .unwrap_or_else(|| std::iter::once(name).collect());
            keep_second_name(shared, session, &path, &origin).await?;
        } else if !push::is_wanted(shared, node, number).unwrap_or_default() {
            home::remove_if_there(remote, &path).await?;
        }
    }
    Ok(())
}

/// What is remembered of contents that the server does not have any more, and of transfers that were cut off long ago.
fn forget_large(shared: &Shared) -> Result<(), ReplicaError> {
    let least = shared.options.large.delta_from;
    let large = shared
        .replica
        .view(|view| view.base_files((least, i64::MIN), (u64::MAX, i64::MAX), usize::MAX))?;
    let kept = large.into_iter().filter_map(|(_, base)| base.version.hash);
    let store = shared.replica.content();
    store.retain_chunks(&kept.collect())?;
    store.expire_transfers(shared.now(), &|transfer| shared.claims.take(transfer))
}
