//! What of the home is here: for people who are about to go offline, or look for room.

use super::super::scan::{self, ScanError};
use super::super::shared::Shared;
use super::below;
use crate::replica::{Content, Node, ReplicaError, Residence, View};
use crate::tree::{Kind, Name, NodeId, RelPath};
use std::sync::Arc;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name there; of what was asked about itself, its path.
    pub name: RelPath,
    /// What it is.
    pub node: Node,
    /// Where it is.
    pub residence: Residence,
    /// It is pinned, or a directory above it.
    pub is_pinned: bool,
}

/// What somebody pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Where it is.
    pub path: RelPath,
    /// All files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are not here yet.
    pub missing_files: u64,
    /// Their bytes.
    pub missing_bytes: u64,
}

/// The entries of a directory, or the file itself. A directory that was never listed is listed first.
pub(in crate::engine) async fn entries(
    shared: &Arc<Shared>,
    id: NodeId,
) -> Result<Vec<Entry>, ScanError> {
    let node = shared.replica.view(|view| view.node(id))?;
    let Some(node) = node else {
        return Ok(Vec::new());
    };
    if node.kind != Kind::Dir {
        let entry = shared.replica.view(|view| {
            let path = view.local_path(id)?.unwrap_or_default();
            entry(shared, view, path, node)
        })?;
        return Ok(vec![entry]);
    }
    if !node.listed {
        scan::observe(shared, id, true).await?;
    }
    let children = shared
        .replica
        .view(|view| view.children(id, None, usize::MAX))?;
    let look = |(name, child): (Name, NodeId)| {
        shared.replica.view(|view| match view.node(child)? {
            Some(node) => {
                let name = std::iter::once(name).collect();
                Ok(Some(entry(shared, view, name, node)?))
            }
            None => Ok::<_, ReplicaError>(None),
        })
    };
    let found: Result<Vec<_>, _> = children.into_iter().map(look).collect();
    Ok(found?.into_iter().flatten().collect())
}

fn entry(
    shared: &Shared,
    view: &View<'_>,
    name: RelPath,
    node: Node,
) -> Result<Entry, ReplicaError> {
    Ok(Entry {
        name,
        residence: view.residence(&node, shared.replica.content())?,
        is_pinned: view.is_pinned(node.id)?,
        node,
    })
}

/// All that is pinned, by path.
pub(in crate::engine) fn pins(shared: &Shared) -> Result<Vec<Pin>, ReplicaError> {
    let mut pins = Vec::new();
    for id in shared.replica.view(|view| view.pins())? {
        let Some(path) = shared.replica.view(|view| view.local_path(id))? else {
            continue;
        };
        let mut pin = Pin {
            path,
            files: 0,
            bytes: 0,
            missing_files: 0,
            missing_bytes: 0,
        };
        for node in below(shared, &[id])? {
            if node.kind != Kind::File {
                continue;
            }
            pin.files += 1;
            pin.bytes += node.size;
            if node.content != Content::Whole && node.size > 0 {
                pin.missing_files += 1;
                pin.missing_bytes += node.size;
            }
        }
        pins.push(pin);
    }
    pins.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(pins)
}
