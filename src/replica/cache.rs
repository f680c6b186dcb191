//! What of the content is here only to be at hand: it goes when there is no room for it, unless it is pinned.
//!
//! Eviction takes nothing but content that the server was seen to hold, of files that nobody has open. The row goes
//! first and is on the disk before the content goes: the other way round, a power loss would leave a row that promises
//! what is not here.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::content::{ContentStore, Ended, PartOf, Partial};
use super::error::ReplicaError;
use super::evict::Cached;
use super::index::Replica;
use super::rows::{Content, Node};
use super::table::Pins;
use super::tx::Tx;
use super::view::View;
use crate::tree::{Kind, NodeId, Place};

type Result<T> = std::result::Result<T, ReplicaError>;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residence {
    /// Here and on the server.
    Local,
    /// Part of its content is here, all of it on the server.
    Partial,
    /// On the server; here is a placeholder.
    Remote,
    /// What is here is not on the server yet.
    Dirty,
    /// Here, and never sent.
    HostScoped,
}

impl Residence {
    /// The word for it, the same for people, for scripts and in the attribute of a file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Partial => "partial",
            Self::Remote => "remote",
            Self::Dirty => "dirty",
            Self::HostScoped => "host-scoped",
        }
    }
}

impl View<'_> {
    /// Where the entry is, whose content would be in `store`.
    pub fn residence(&self, node: &Node, store: &ContentStore) -> Result<Residence> {
        if node.scoped {
            return Ok(Residence::HostScoped);
        }
        let mut is_dirty = node.kind == Kind::File && node.data_changed;
        for place in self.places(node.id)? {
            is_dirty |= self.is_dirty(&place)?;
        }
        let is_remote = match node.kind {
            Kind::File => node.size > 0 && node.content != Content::Whole,
            Kind::Dir => !node.listed,
            _ => false,
        };
        Ok(match (is_dirty, is_remote) {
            (true, _) => Residence::Dirty,
            (false, true) if store.has_part(node.id) => Residence::Partial,
            (false, true) => Residence::Remote,
            (false, false) => Residence::Local,
        })
    }

    /// What somebody pinned. Of a directory, all that is in it is meant.
    pub fn pins(&self) -> Result<Vec<NodeId>> {
        let rows = self.by_node::<Pins>(usize::MAX)?;
        Ok(rows.into_iter().map(|(node, ())| node).collect())
    }

    /// Whether it is pinned itself.
    pub fn has_pin(&self, node: NodeId) -> Result<bool> {
        Ok(self.get::<Pins>(&node)?.is_some())
    }

    /// Whether it is pinned, or a directory above it.
    pub fn is_pinned(&self, node: NodeId) -> Result<bool> {
        // A file with several names is in several directories. What is damaged may be in itself.
        let mut seen = BTreeSet::new();
        let mut todo = vec![node];
        while let Some(node) = todo.pop() {
            if !seen.insert(node) {
                continue;
            }
            if self.has_pin(node)? {
                return Ok(true);
            }
            todo.extend(self.places(node)?.into_iter().map(|place| place.parent));
        }
        Ok(false)
    }

    /// The node, and where its content is on the server, if it may go from here: the server was seen to hold it, and nothing says that it does not any more.
    pub fn evictable(&self, id: NodeId) -> Result<Option<(Node, Place)>> {
        let node = self
            .node(id)?
            .filter(|node| node.has_sent_content() && !node.scoped);
        let Some(node) = node else {
            return Ok(None);
        };
        for place in self.base_places(id)? {
            let base = self.base(&place)?.map(|base| base.version);
            let is_there = base.is_some_and(|base| base.same_content(&node.version()))
                && self.observation(&place)?.is_none()
                && self.intent(&place)?.is_none()
                && !self.is_racy(&place)?;
            if is_there {
                return Ok(Some((node, place)));
            }
        }
        Ok(None)
    }
}

impl Tx<'_> {
    /// Keeps the content of `node` here from now on, and of all that is in it; or no longer.
    pub fn set_pin(&mut self, node: NodeId, pinned: bool) -> Result<()> {
        if self.has_pin(node)? != pinned {
            self.set::<Pins>(node, pinned.then_some(()));
        }
        Ok(())
    }

    /// What takes a pinned file's place is pinned: many programs save by renaming a new file over the old one.
    pub(super) fn inherit_pin(&mut self, place: &Place, node: NodeId) -> Result<()> {
        let Some(old) = self.child(place.parent, &place.name)? else {
            return Ok(());
        };
        if old == node || !self.has_pin(old)? {
            return Ok(());
        }
        let mut are_files = true;
        for id in [old, node] {
            are_files &= self.node(id)?.is_some_and(|node| node.kind == Kind::File);
        }
        match are_files {
            true => self.set_pin(node, true),
            false => Ok(()),
        }
    }
}

impl Replica {
    /// All content on the disk that the server has too, whole or in part, in no order. Looks at each file.
    pub fn cached(&self) -> Result<Vec<Cached>> {
        let mut cached = self.content().list_cached()?;
        cached.extend(self.content().list_parts()?);
        Ok(cached)
    }

    /// A part of the content of `node` to be filled, if that is not here yet, and is this one.
    pub fn begin_partial(
        &self,
        node: NodeId,
        of: PartOf,
        least_block: u32,
    ) -> Result<Option<Arc<Partial>>> {
        // Nobody says meanwhile that it is here, or is another.
        self.view(|view| match view.node(node)? {
            Some(row) if of.is_of(&row) => {
                let partial = self.content().begin_partial(node, of, least_block);
                partial.map(Some)
            }
            _ => Ok(None),
        })
    }

    /// Removes what is here of those nodes' contents where it is a part, unless somebody uses them or pinned them.
    /// Tells how many bytes that freed.
    pub fn evict_parts(&self, nodes: &[NodeId]) -> Result<u64> {
        let mut freed = 0;
        for node in nodes {
            freed += self.view(|view| {
                // Who opens it counts it first, then looks at its row.
                match self.opens().is_open(*node) || view.is_pinned(*node)? {
                    true => Ok(0),
                    false => self.content().drop_unused_part(*node),
                }
            })?;
        }
        Ok(freed)
    }

    /// What is here of the content of `node` is of no use any more, if it is a part.
    pub fn end_part(&self, node: NodeId, ended: Ended) -> Result<()> {
        self.content().end_part(node, ended)
    }

    /// Removes the content of those nodes that have it on the server, are not pinned and not open. Tells how many bytes
    /// that freed.
    pub fn evict(&self, nodes: &[NodeId]) -> Result<u64> {
        let mut files = Vec::new();
        for node in nodes {
            files.extend(self.content().clean_file(*node)?);
        }
        let gone = self.update(|tx| {
            let mut gone = Vec::new();
            for file in files {
                // Who opens it counts it first, then looks at its row.
                if self.opens().is_open(file.node) || tx.is_pinned(file.node)? {
                    continue;
                }
                if let Some((node, _)) = tx.evictable(file.node)? {
                    tx.forget_unsynced(node.id);
                    tx.put_node(Node {
                        content: Content::Absent,
                        ..node
                    })?;
                    gone.push(file);
                }
            }
            Ok::<_, ReplicaError>(gone)
        })?;
        if gone.is_empty() {
            return Ok(0);
        }
        self.sync()?;
        let remove = |store: &ContentStore| -> Result<u64> {
            let mut freed = 0;
            for file in &gone {
                freed += store.remove_clean(file)?;
            }
            Ok(freed)
        };
        remove(self.content())
    }
}

#[cfg(test)]
mod tests;
