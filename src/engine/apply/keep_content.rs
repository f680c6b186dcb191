//! Content that makes room for the server's: linked into the backups before, removed after. Of a symlink it is
//! the target.

use super::super::keep::conflicts::LOST_HERE;
use super::super::shared::Shared;
use super::{Applied, current_or_renamed};
use crate::replica::{Content, LocalBackup, ReplicaError};
use crate::sync::Keep;
use crate::tree::{Kind, NodeId, Place};

/// Links the content into the backups, where there is any and it must be kept.
pub(super) fn keep_content(
    shared: &Shared,
    place: &Place,
    id: NodeId,
    seq: u64,
    keep: Keep,
) -> Result<Option<LocalBackup>, ReplicaError> {
    let at = shared.now();
    let found = shared.replica.update(|tx| {
        let Some((node, stands)) = current_or_renamed(shared, tx, place, id, seq)? else {
            return Ok(None);
        };
        let unsent = match node.kind {
            Kind::File if node.content == Content::Whole && node.size > 0 => node.data_changed,
            // It has no mark of its own; whoever lost a conflict was never sent.
            Kind::Symlink => keep == Keep::Backup,
            _ => return Ok(None),
        };
        let Some(path) = tx.local_path_of(&stands)? else {
            return Ok(None);
        };
        let why = match keep {
            Keep::Replaced => "replaced by a newer version from the server",
            Keep::Backup => LOST_HERE,
            Keep::Trash => "removed on the server",
        };
        Ok::<_, ReplicaError>(Some(LocalBackup {
            path,
            version: node.version(),
            at,
            why: why.into(),
            id: tx.alloc_backup()?,
            unsent,
        }))
    })?;
    if let Some(backup) = &found {
        let content = shared.replica.content();
        match backup.version.kind {
            Kind::Symlink => content.write_to_backup(&backup.version.target, backup.id)?,
            _ => content.link_to_backup(id, backup.id)?,
        }
        if backup.unsent {
            // Nobody else has it: the old name goes only when the new one is on the disk.
            content.sync_backup(backup.id)?;
        }
    }
    Ok(found)
}

/// Takes back the backup of a step that did not happen.
pub(super) fn finish(
    shared: &Shared,
    applied: &Applied,
    backup: Option<&LocalBackup>,
) -> Result<(), ReplicaError> {
    if let (Applied::Stale, Some(backup)) = (applied, backup) {
        shared.replica.content().remove_backup(backup.id)?;
    }
    Ok(())
}
