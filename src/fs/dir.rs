//! Making, removing and reading directories.
//!
//! Offsets of entries come from hashes of their names, as in ext4: they mean the same to whoever lists and
//! after any change, which the kernel's cache of listings and `seekdir` rely on. So nobody has to open a directory:
//! what was there when somebody last began to list it is remembered for those who are in the midst of it, and is as
//! good as what is there now: entries that came since may be missing, those that are gone are left out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::change::NewNode;
use super::handle::lock;
use super::{Attr, Caller, FsError, Home, Need, Stop, is_reserved};
use crate::replica::View;
use crate::tree::{Kind, Name, NodeId};

/// How many entries are read from the index at once.
const BATCH: usize = 1024;

/// Offsets behind `.` and `..`.
const BEHIND_DOTS: u64 = 2;

/// The most entries that are remembered for those who are in the midst of a directory: 100 bytes each.
const REMEMBERED_MAX: usize = 200_000;

/// What was in the directories that were listed last, the oldest first.
#[derive(Default)]
pub(super) struct Begun {
    listings: Mutex<VecDeque<(NodeId, Arc<Vec<Listed>>)>>,
}

impl Begun {
    fn of(&self, dir: NodeId) -> Option<Arc<Vec<Listed>>> {
        let listings = lock(&self.listings);
        let mut begun = listings.iter().filter(|(begun, _)| *begun == dir);
        begun.next().map(|(_, entries)| Arc::clone(entries))
    }

    /// Remembers the latest listing, whatever its size, and as many of those before it as there is room for.
    fn put(&self, dir: NodeId, entries: &Arc<Vec<Listed>>) {
        let mut listings = lock(&self.listings);
        listings.retain(|(begun, _)| *begun != dir);
        listings.push_back((dir, Arc::clone(entries)));
        let mut entries: usize = listings.iter().map(|(_, entries)| entries.len() + 1).sum();
        while entries > REMEMBERED_MAX && listings.len() > 1 {
            entries -= listings.pop_front().map_or(0, |(_, gone)| gone.len() + 1);
        }
    }
}

/// An entry of a snapshot.
pub(super) struct Listed {
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

/// The entries behind an offset.
pub struct Listing {
    dir: NodeId,
    entries: Arc<Vec<Listed>>,
    /// The offset behind the last entry told.
    offset: u64,
    index: usize,
}

/// They, one after the other, as they are in a home.
pub struct Entries<'a> {
    home: &'a Home,
    listing: Listing,
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

    /// The entries of a directory behind `offset`; 0 is the beginning, and starts anew.
    pub fn read_dir(&self, id: NodeId, offset: u64) -> Result<Listing, Stop> {
        let begun = (offset != 0).then(|| self.begun.of(id)).flatten();
        let entries = match begun {
            Some(entries) => entries,
            None => {
                let fresh = Arc::new(self.snapshot(id)?);
                self.begun.put(id, &fresh);
                fresh
            }
        };
        Ok(Listing {
            dir: id,
            index: entries.partition_point(|entry| entry.offset <= offset),
            entries,
            offset,
        })
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

impl Listing {
    /// The entries, as they are in `home`.
    pub fn entries(self, home: &Home) -> Entries<'_> {
        Entries {
            home,
            listing: self,
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = DirEntry;

    fn next(&mut self) -> Option<DirEntry> {
        let Self { home, listing } = self;
        if listing.offset < BEHIND_DOTS {
            let entry = home.dots(listing.dir, listing.offset)?;
            listing.offset = entry.offset;
            return Some(entry);
        }
        loop {
            let entry = listing.entries.get(listing.index)?;
            listing.index += 1;
            if is_reserved(listing.dir, &entry.name) {
                continue;
            }
            // The snapshot may be old: what it names must still be there, for the kernel remembers it.
            let node = home.replica.view(|view| {
                match view.child(listing.dir, &entry.name)? == Some(entry.node) {
                    true => view.node(entry.node),
                    false => Ok(None),
                }
            });
            if let Ok(Some(node)) = node
                && node.kind != Kind::Other
            {
                listing.offset = entry.offset;
                return Some(DirEntry {
                    offset: entry.offset,
                    name: entry.name.as_bytes().to_vec(),
                    attr: home.shown(&node),
                });
            }
        }
    }
}
