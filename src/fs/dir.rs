//! Making, removing and reading directories.
//!
//! Offsets of entries come from hashes of their names, as in ext4: they mean the same in every handle and
//! after any change, which the kernel's cache of listings and `seekdir` rely on. A handle lists what was
//! there when it was last at the beginning, without what is gone since.

use std::sync::{Arc, Mutex};

use super::change::NewNode;
use super::handle::lock;
use super::{Attr, Caller, FsError, Handle, Home, Need, Stop, is_reserved};
use crate::replica::View;
use crate::tree::{Kind, Name, NodeId};

/// How many entries are read from the index at once.
const BATCH: usize = 1024;

/// Offsets behind `.` and `..`.
const BEHIND_DOTS: u64 = 2;

/// One `opendir`.
pub(super) struct OpenDir {
    node: NodeId,
    /// Taken by the first read: the kernel may know the entries already.
    listing: Mutex<Option<Arc<Vec<Listed>>>>,
}

/// An entry of a snapshot.
struct Listed {
    /// The offset behind it; ascending.
    offset: u64,
    name: Name,
    node: NodeId,
}

/// An entry of a directory as it is told to a program.
#[derive(Debug)]
pub struct DirEntry {
    /// The offset behind it.
    pub offset: u64,
    /// Its name, `.` and `..` included.
    pub name: Vec<u8>,
    /// What it is.
    pub attr: Attr,
}

/// The entries behind an offset, one after the other.
pub struct Listing<'a> {
    home: &'a Home,
    dir: NodeId,
    entries: Arc<Vec<Listed>>,
    /// The offset behind the last entry told.
    offset: u64,
    index: usize,
}

impl Home {
    /// Makes a directory.
    pub fn mkdir(
        &self,
        parent: NodeId,
        name: &Name,
        mode: u32,
        caller: Caller,
    ) -> Result<Attr, Stop> {
        self.change(|change| {
            let dir = change.listed_dir(parent)?;
            let place = change.vacant(parent, name)?;
            let new = NewNode {
                kind: Kind::Dir,
                mode,
                target: Vec::new(),
            };
            let node = change.create(dir, place, new, caller)?;
            Ok(Attr::from(&node))
        })
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: NodeId, name: &Name) -> Result<(), Stop> {
        self.change(|change| {
            let (mut dir, place) = change.removable(parent, name)?;
            let child = change.entry(&place)?.ok_or(FsError::NotFound)?;
            change.expect_empty(child.id)?;
            change.remove_name(&place, child)?;
            dir.nlink = dir.nlink.saturating_sub(1);
            change.touch(dir)
        })
    }

    /// Opens a directory whose entries are known.
    pub fn open_dir(&self, id: NodeId) -> Result<Handle, Stop> {
        self.replica.view(|view| expect_listed(view, id))?;
        let listing = Mutex::default();
        Ok(self.handles.insert_dir(OpenDir { node: id, listing }))
    }

    /// The entries behind `offset`; 0 is the beginning, and starts anew.
    pub fn read_dir(&self, handle: Handle, offset: u64) -> Result<Listing<'_>, Stop> {
        let dir = self.handles.dir(handle)?;
        let old = lock(&dir.listing).clone().filter(|_| offset != 0);
        let entries = match old {
            Some(entries) => entries,
            None => {
                let fresh = Arc::new(self.snapshot(dir.node)?);
                lock(&dir.listing).insert(fresh).clone()
            }
        };
        Ok(Listing {
            home: self,
            dir: dir.node,
            index: entries.partition_point(|entry| entry.offset <= offset),
            entries,
            offset,
        })
    }

    /// Closes a directory.
    pub fn release_dir(&self, handle: Handle) {
        self.handles.remove_dir(handle);
    }

    fn snapshot(&self, id: NodeId) -> Result<Vec<Listed>, Stop> {
        let mut entries = self.replica.view(|view| names_in(view, id))?;
        entries.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
        let mut last = 0;
        for entry in &mut entries {
            // Equal hashes are as good as impossible; even then no entry is lost within one listing.
            entry.offset = entry.offset.max(last + 1);
            last = entry.offset;
        }
        Ok(entries)
    }

    fn dots(&self, dir: NodeId, offset: u64) -> Option<DirEntry> {
        let (name, id) = match offset {
            0 => (b".".to_vec(), dir),
            _ => {
                let places = self.replica.view(|view| view.places(dir)).ok()?;
                let parent = places.first().map_or(NodeId::ROOT, |place| place.parent);
                (b"..".to_vec(), parent)
            }
        };
        let attr = self.attr(id).or_else(|_| self.attr(NodeId::ROOT)).ok()?;
        Some(DirEntry {
            offset: offset + 1,
            name,
            attr,
        })
    }
}

/// Fails unless `id` is a directory whose entries are known, or one that is gone while somebody stands in it.
fn expect_listed(view: &View<'_>, id: NodeId) -> Result<(), Stop> {
    match view.node(id)? {
        Some(dir) if dir.kind != Kind::Dir => Err(FsError::NotADirectory.into()),
        Some(dir) if !dir.listed => Err(Stop::Needs(Need::Listing(id))),
        _ => Ok(()),
    }
}

fn names_in(view: &View<'_>, id: NodeId) -> Result<Vec<Listed>, Stop> {
    expect_listed(view, id)?;
    let entries = children(view, id)?.into_iter().map(|(name, node)| Listed {
        offset: hash(&name),
        name,
        node,
    });
    Ok(entries.collect())
}

/// All entries of a directory.
pub(super) fn children(view: &View<'_>, dir: NodeId) -> Result<Vec<(Name, NodeId)>, Stop> {
    let mut all: Vec<(Name, NodeId)> = Vec::new();
    loop {
        let mut batch = view.children(dir, all.last().map(|(name, _)| name), BATCH)?;
        let is_last = batch.len() < BATCH;
        all.append(&mut batch);
        if is_last {
            return Ok(all);
        }
    }
}

/// A positive offset for `name`, greater than those of `.` and `..`, the same for ever.
fn hash(name: &Name) -> u64 {
    let digest = blake3::hash(name.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 2) + BEHIND_DOTS + 1
}

impl Iterator for Listing<'_> {
    type Item = DirEntry;

    fn next(&mut self) -> Option<DirEntry> {
        if self.offset < BEHIND_DOTS {
            let entry = self.home.dots(self.dir, self.offset)?;
            self.offset = entry.offset;
            return Some(entry);
        }
        loop {
            let entry = self.entries.get(self.index)?;
            self.index += 1;
            if is_reserved(self.dir, &entry.name) {
                continue;
            }
            // The snapshot may be old: what it names must still be there, for the kernel remembers it.
            let node = self.home.replica.view(|view| {
                match view.child(self.dir, &entry.name)? == Some(entry.node) {
                    true => view.node(entry.node),
                    false => Ok(None),
                }
            });
            if let Ok(Some(node)) = node
                && node.kind != Kind::Other
            {
                self.offset = entry.offset;
                return Some(DirEntry {
                    offset: entry.offset,
                    name: entry.name.as_bytes().to_vec(),
                    attr: Attr::from(&node),
                });
            }
        }
    }
}
