//! Parts as what takes room on the disk, and what is left of them after an end of the daemon or of the machine.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;

use super::super::cached::BLOCK;
use super::super::disk::{exists, make_dir, sync_dir};
use super::super::{ContentStore, Result};
use super::Ended;
use crate::replica::error::AtPath;
use crate::replica::evict::Cached;
use crate::replica::view::View;
use crate::tree::NodeId;

impl ContentStore {
    /// Whether a part of the content of `node` is here.
    pub fn has_part(&self, node: NodeId) -> bool {
        let all = self.partials.lock();
        all.get(&node)
            .is_some_and(|(known, _)| known.bytes.load(Ordering::Relaxed) > 0)
    }

    /// Bytes of all parts.
    pub(in crate::replica) fn part_bytes(&self) -> u64 {
        let all = self.partials.lock();
        let bytes = all.values().map(|(known, _)| &known.bytes);
        bytes.map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// All parts, as they lie on the disk.
    pub(in crate::replica) fn list_parts(&self) -> Result<Vec<Cached>> {
        let nodes: Vec<NodeId> = self.partials.lock().keys().copied().collect();
        let mut found = Vec::new();
        for node in nodes {
            found.extend(Cached::at(node, &self.partials.path(node))?);
        }
        Ok(found)
    }

    /// Ends a part, if there is one.
    pub(in crate::replica) fn end_part(&self, node: NodeId, ended: Ended) -> Result<()> {
        self.partials.end(node, ended).map(drop)
    }

    /// Removes what is here of the content of `node`, if it is a part and nobody uses it. Tells how many bytes of the disk
    /// that freed.
    pub(in crate::replica) fn drop_unused_part(&self, node: NodeId) -> Result<u64> {
        let held = self.partials.hold();
        let all = self.partials.lock();
        let is_used = all
            .get(&node)
            .is_none_or(|(_, live)| live.strong_count() > 0);
        drop(all);
        if is_used {
            return Ok(0);
        }
        let taken = fs::symlink_metadata(self.partials.path(node));
        self.partials.end_held(&held, node, Ended::Over)?;
        Ok(taken.map_or(0, |meta| meta.blocks() * BLOCK))
    }

    /// Removes all parts: a power loss may have left bits without their blocks.
    pub(in crate::replica) fn drop_all_parts(&self) -> Result<()> {
        let nodes: Vec<NodeId> = self.partials.lock().keys().copied().collect();
        for node in nodes {
            self.partials.end(node, Ended::Over)?;
        }
        match exists(&self.partials.dir)? {
            true => sync_dir(&self.partials.dir),
            false => Ok(()),
        }
    }

    /// Removes the parts that no row stands for.
    pub(in crate::replica) fn drop_unfit_parts(&self, view: &View<'_>) -> Result<()> {
        let nodes: Vec<NodeId> = self.partials.lock().keys().copied().collect();
        for id in nodes {
            let of = self.partial(id)?.map(|partial| partial.of());
            let node = view.node(id)?.filter(|node| node.nlink > 0);
            let mut fits = false;
            if let (Some(of), Some(node)) = (of, node)
                && of.is_of(&node)
            {
                for place in view.base_places(id)? {
                    let base = view.base(&place)?.map(|base| base.version);
                    fits |= base.is_some_and(|base| (base.size, base.mtime) == (of.size, of.mtime));
                }
            }
            if !fits {
                self.partials.end(id, Ended::Over)?;
            }
        }
        Ok(())
    }

    /// Brings to the disk what came since the start, so that it is there after the machine was switched off.
    pub(in crate::replica) fn sync_parts(&self) -> Result<()> {
        let touched: Vec<NodeId> = {
            let all = self.partials.lock();
            let touched = all
                .iter()
                .filter(|(_, (known, _))| known.touched.load(Ordering::Relaxed));
            touched.map(|(node, _)| *node).collect()
        };
        for node in &touched {
            for path in [self.partials.path(*node), self.partials.map_path(*node)] {
                match File::open(&path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    opened => opened.at(&path)?.sync_data().at(&path)?,
                }
            }
        }
        match touched.is_empty() {
            true => Ok(()),
            false => sync_dir(&self.partials.dir),
        }
    }

    pub(in crate::replica::content) fn make_parts_dir(&self) -> Result<()> {
        make_dir(&self.partials.dir)
    }
}
