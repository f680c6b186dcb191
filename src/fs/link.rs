//! Giving names to nodes and taking them away: symlinks, hard links, unlink and rename.

use super::change::{Change, NewNode};
use super::dir::children;
use super::{Attr, Caller, FsError, Home, Need, Stop, is_reserved};
use crate::replica::{Content, Node};
use crate::tree::{Kind, Name, NodeId, Place};

/// As many as ext4 allows.
const MOST_LINKS: u32 = 65_000;

/// What a rename does with a node that has the new name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// It goes.
    Replace,
    /// It stays, and the rename fails.
    NoReplace,
    /// It gets the old name.
    Exchange,
}

impl Home {
    /// Makes a symlink.
    pub fn symlink(
        &self,
        parent: NodeId,
        name: &Name,
        target: &[u8],
        caller: Caller,
    ) -> Result<Attr, Stop> {
        self.change(|change| {
            let dir = change.listed_dir(parent)?;
            let place = change.vacant(parent, name)?;
            let new = NewNode {
                kind: Kind::Symlink,
                mode: 0o777,
                target: target.to_vec(),
            };
            let node = change.create(dir, place, new, caller)?;
            Ok(Attr::from(&node))
        })
    }

    /// Gives a node one more name.
    pub fn link(&self, id: NodeId, parent: NodeId, name: &Name) -> Result<Attr, Stop> {
        self.change(|change| {
            let dir = change.listed_dir(parent)?;
            let place = change.vacant(parent, name)?;
            let node = change.node(id)?;
            change.add_name(dir, place, node)
        })
    }

    /// Takes a name from anything but a directory.
    pub fn unlink(&self, parent: NodeId, name: &Name) -> Result<(), Stop> {
        self.change(|change| {
            let (dir, place) = change.removable(parent, name)?;
            let node = change.entry(&place)?.ok_or(FsError::NotFound)?;
            if node.kind == Kind::Dir {
                return Err(FsError::IsADirectory.into());
            }
            change.remove_name(&place, node)?;
            change.touch(dir)
        })
    }

    /// Moves what is called `from` to `to`.
    pub fn rename(
        &self,
        (from_dir, from): (NodeId, &Name),
        (to_dir, to): (NodeId, &Name),
        mode: RenameMode,
    ) -> Result<(), Stop> {
        let moved = self.change(|change| {
            let (_, from) = change.removable(from_dir, from)?;
            change.listed_dir(to_dir)?;
            if is_reserved(to_dir, to) {
                return Err(FsError::NotPermitted.into());
            }
            let to = Place::new(to_dir, to.clone());
            change.rename(from, to, mode)
        })?;
        for id in moved {
            self.update_hint(id);
        }
        Ok(())
    }

    /// Tells the content file of an unsent file where it stands now. A hint serves to rescue files without
    /// the index only, so failing here costs nothing else.
    fn update_hint(&self, id: NodeId) {
        let path = self.replica.view(|view| {
            let unsent = view.node(id)?.is_some_and(|node| node.data_changed);
            match unsent {
                true => view.local_path(id),
                false => Ok(None),
            }
        });
        if let Ok(Some(path)) = path
            && let Err(error) = self.replica.content().set_hint(id, &path)
        {
            tracing::debug!(%error, "no path hint");
        }
    }
}

impl Change<'_, '_> {
    /// Gives a node one more name in `dir`.
    pub(super) fn add_name(
        &mut self,
        dir: Node,
        place: Place,
        mut node: Node,
    ) -> Result<Attr, Stop> {
        match node.nlink {
            _ if node.kind == Kind::Dir => return Err(FsError::NotPermitted.into()),
            0 => return Err(FsError::NotFound.into()),
            MOST_LINKS.. => return Err(FsError::TooManyLinks.into()),
            _ => {}
        }
        // With one name outside, all of it travels.
        node.scoped = node.scoped && self.is_scoped(&place, node.kind)?;
        node.nlink += 1;
        node.ctime = self.now;
        let attr = self.home.shown(&node);
        self.tx.link(place.clone(), node.id)?;
        self.mark(place, node.scoped)?;
        self.tx.put_node(node)?;
        self.touch(dir)?;
        Ok(attr)
    }

    /// The place of an entry that is to lose its name, and its directory.
    pub(super) fn removable(&self, parent: NodeId, name: &Name) -> Result<(Node, Place), Stop> {
        if is_reserved(parent, name) {
            return Err(FsError::NotFound.into());
        }
        Ok((self.listed_dir(parent)?, Place::new(parent, name.clone())))
    }

    /// Fails unless `dir` is a directory without entries.
    pub(super) fn expect_empty(&self, dir: NodeId) -> Result<(), Stop> {
        self.listed_dir(dir)?;
        match self.tx.children(dir, None, 1)?.is_empty() {
            true => Ok(()),
            false => Err(FsError::NotEmpty.into()),
        }
    }

    /// Returns the files that were moved.
    fn rename(&mut self, from: Place, to: Place, mode: RenameMode) -> Result<Vec<NodeId>, Stop> {
        let source = self.entry(&from)?.ok_or(FsError::NotFound)?;
        let target = self.entry(&to)?;
        match (&target, mode) {
            (Some(_), RenameMode::NoReplace) => return Err(FsError::Exists.into()),
            (None, RenameMode::Exchange) => return Err(FsError::NotFound.into()),
            (Some(target), _) if target.id == source.id => return Ok(Vec::new()),
            _ => {}
        }
        self.expect_outside(&source, to.parent)?;
        match target {
            Some(target) if mode == RenameMode::Exchange => {
                self.expect_outside(&target, from.parent)?;
                self.tx.unlink(&from)?;
                self.tx.unlink(&to)?;
                let moved = vec![source.id, target.id];
                self.arrive(source, &from, &to)?;
                self.arrive(target, &to, &from)?;
                Ok(moved)
            }
            target => {
                if let Some(target) = target {
                    self.make_way(&source, target, &to)?;
                }
                self.tx.unlink(&from)?;
                let moved = vec![source.id];
                self.arrive(source, &from, &to)?;
                Ok(moved)
            }
        }
    }

    /// Fails if `dir` is `node` or inside of it.
    fn expect_outside(&self, node: &Node, dir: NodeId) -> Result<(), Stop> {
        let mut dir = Some(dir).filter(|_| node.kind == Kind::Dir);
        while let Some(ancestor) = dir {
            if ancestor == node.id {
                return Err(FsError::Invalid.into());
            }
            dir = self.tx.places(ancestor)?.first().map(|place| place.parent);
        }
        Ok(())
    }

    /// Removes what `source` is about to replace.
    fn make_way(&mut self, source: &Node, target: Node, to: &Place) -> Result<(), Stop> {
        match (source.kind == Kind::Dir, target.kind == Kind::Dir) {
            (true, false) => return Err(FsError::NotADirectory.into()),
            (false, true) => return Err(FsError::IsADirectory.into()),
            (true, true) => {
                self.expect_empty(target.id)?;
                self.lose_subdir(to.parent)?;
            }
            (false, false) => {}
        }
        self.remove_name(to, target)
    }

    /// Puts a node, whose old name is gone, to its new place.
    fn arrive(&mut self, mut node: Node, from: &Place, to: &Place) -> Result<(), Stop> {
        if node.kind == Kind::Dir {
            self.lose_subdir(from.parent)?;
            let mut parent = self.node(to.parent)?;
            parent.nlink += 1;
            self.tx.put_node(parent)?;
        }
        for dir in [from.parent, to.parent] {
            let dir = self.node(dir)?;
            self.touch(dir)?;
        }
        // An exchanged directory's own row may have changed with its entries.
        if node.kind == Kind::Dir {
            node = self.node(node.id)?;
        }
        self.tx.link(to.clone(), node.id)?;
        self.mark(from.clone(), node.scoped)?;
        node.ctime = self.now;
        let id = node.id;
        let scoped = self.stays_here(&node, to)?;
        self.tx.put_node(node)?;
        self.rescope(id, to, scoped)?;
        self.mark(to.clone(), scoped)
    }

    fn lose_subdir(&mut self, dir: NodeId) -> Result<(), Stop> {
        let mut dir = self.node(dir)?;
        dir.nlink = dir.nlink.saturating_sub(1);
        Ok(self.tx.put_node(dir)?)
    }

    /// Whether `node`, which has just got the name `place`, is host-scoped: with one name outside, it travels.
    fn stays_here(&self, node: &Node, place: &Place) -> Result<bool, Stop> {
        if !self.is_scoped(place, node.kind)? {
            return Ok(false);
        }
        let other_names = match node.nlink {
            2.. if node.kind != Kind::Dir => self.tx.places(node.id)?,
            _ => Vec::new(),
        };
        for place in other_names {
            if !self.is_scoped(&place, node.kind)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sets whether what stands at `place` is host-scoped, and decides anew for what is inside if that
    /// changed. What begins to travel is dirty; what ceases to is gone for the server, which the dirty
    /// place it was moved away from tells.
    fn rescope(&mut self, id: NodeId, place: &Place, scoped: bool) -> Result<(), Stop> {
        let mut work = vec![(id, place.clone(), scoped)];
        while let Some((id, place, scoped)) = work.pop() {
            let mut node = self.node(id)?;
            if node.scoped == scoped {
                continue;
            }
            let is_dir = node.kind == Kind::Dir;
            node.scoped = scoped;
            if scoped {
                self.expect_all_here(&node)?;
                if node.kind == Kind::File {
                    // The server's copy goes, so this is the only one from now on.
                    node.data_changed = true;
                    node.hash = None;
                }
            }
            self.tx.put_node(node)?;
            self.mark(place, scoped)?;
            if !is_dir {
                continue;
            }
            for (name, child) in children(self.tx, id)? {
                let place = Place::new(id, name);
                let scoped = self.stays_here(&self.node(child)?, &place)?;
                work.push((child, place, scoped));
            }
        }
        Ok(())
    }

    /// What becomes host-scoped loses its copy on the server: it must be here, whole. A directory with
    /// something in it has to be copied, as between two disks.
    fn expect_all_here(&self, node: &Node) -> Result<(), Stop> {
        match node.kind {
            Kind::File if node.content != Content::Whole => {
                Err(Stop::Needs(Need::Content(node.id)))
            }
            Kind::Dir if !node.listed => Err(Stop::Needs(Need::Listing(node.id))),
            Kind::Dir if !self.tx.children(node.id, None, 1)?.is_empty() => {
                Err(FsError::CrossesScope.into())
            }
            _ => Ok(()),
        }
    }
}
