//! What becomes of a file that is read by block when the server turns out to have another version of it.

use super::super::apply;
use super::super::scan;
use super::super::shared::Shared;
use crate::replica::{Content, Ended, Observation, ReplicaError};
use crate::tree::{BaseEntry, NodeId, Place, Time, Version};

/// The server has another version of a file than the one of which a part may be here: another node takes its place, as
/// if a program had renamed one over it. Who reads the old one reads nothing of the new one.
pub(super) fn take_over(
    shared: &Shared,
    id: NodeId,
    place: &Place,
    version: &Version,
) -> Result<(), ReplicaError> {
    shared.replica.end_part(id, Ended::Changed)?;
    let (now, seen_at) = (shared.now(), shared.server_now());
    let replica = &shared.replica;
    let changed = replica.update(|tx| {
        let base = tx.base(place)?.filter(|base| base.node == id);
        let (Some(node), Some(base)) = (tx.node(id)?, base) else {
            return Ok(Vec::new());
        };
        if node.content == Content::Whole || node.data_changed {
            return Ok(Vec::new());
        }
        if tx.base_places(id)?.len() > 1 {
            let version = Some(version.clone());
            tx.observe(place.clone(), Some(Observation { version, seen_at }))?;
            return Ok(Vec::new());
        }
        let mut node = apply::succeed(tx, replica.opens(), node, now)?;
        let changed = tx.places(node.id)?;
        scan::note_racy(tx, place, version, seen_at)?;
        // Unless a program set another one in the meantime.
        if node.server_mtime() == base.version.mtime {
            node.mtime = Time::new(version.mtime, 0);
        }
        node.size = version.size;
        node.content = match version.size {
            0 => Content::Whole,
            _ => Content::Absent,
        };
        node.data_seq += 1;
        node.hash = None;
        let entry = BaseEntry {
            node: node.id,
            version: Version {
                mode: base.version.mode,
                hash: None,
                ..version.clone()
            },
        };
        tx.put_node(node)?;
        tx.set_base(place.clone(), Some(entry))?;
        Ok::<_, ReplicaError>(changed)
    })?;
    if changed.is_empty() {
        // A pass sees to it.
        shared.dirty.notify_one();
    }
    for place in &changed {
        shared.entry_left(place, id, true);
    }
    Ok(())
}
