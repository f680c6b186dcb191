//! Changes of the tree: one transaction of the index with the rules that every operation shares.
//!
//! Whatever changes a travelling node marks its places dirty in the same transaction; a parent's times and
//! link count change with its entries; a node without a name goes at once, or at its last close.

use super::{FsError, Home, Need, Stop, is_reserved};
use crate::replica::{Content, Node, Tx};
use crate::tree::{Kind, Name, NodeId, Place, Time};

/// A transaction under way.
pub(super) struct Change<'a, 't> {
    pub(super) tx: &'a mut Tx<'t>,
    pub(super) home: &'a Home,
    pub(super) now: Time,
    /// The engine has something to look at.
    dirtied: bool,
}

/// A node that is being made.
pub(super) struct NewNode {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) target: Vec<u8>,
}

impl Home {
    /// Does `f` in one transaction and tells the engine if something became dirty.
    pub(super) fn change<T>(
        &self,
        f: impl FnOnce(&mut Change<'_, '_>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.expect_writable()?;
        let now = self.now();
        let (value, dirtied) = self.replica.update(|tx| {
            let mut change = Change {
                tx,
                home: self,
                now,
                dirtied: false,
            };
            let value = f(&mut change)?;
            Ok::<_, Stop>((value, change.dirtied))
        })?;
        if dirtied {
            self.fetch.changed();
        }
        Ok(value)
    }
}

impl Change<'_, '_> {
    /// The node `id`.
    pub(super) fn node(&self, id: NodeId) -> Result<Node, Stop> {
        Ok(self.tx.node(id)?.ok_or_else(|| self.home.gone(id))?)
    }

    /// The directory `id`, all of whose entries are known.
    pub(super) fn listed_dir(&self, id: NodeId) -> Result<Node, Stop> {
        let dir = self.node(id)?;
        match dir.kind {
            Kind::Dir if dir.listed => Ok(dir),
            Kind::Dir => Err(Stop::Needs(Need::Listing(id))),
            _ => Err(FsError::NotADirectory.into()),
        }
    }

    /// The node at `place`, in a directory whose entries are known.
    pub(super) fn entry(&self, place: &Place) -> Result<Option<Node>, Stop> {
        match self.tx.child(place.parent, &place.name)? {
            Some(id) => Ok(Some(self.node(id)?)),
            None => Ok(None),
        }
    }

    /// A new node's place, or why it cannot be there.
    pub(super) fn vacant(&self, parent: NodeId, name: &Name) -> Result<Place, Stop> {
        if is_reserved(parent, name) {
            return Err(FsError::NotPermitted.into());
        }
        let place = Place::new(parent, name.clone());
        match self.tx.child(parent, name)? {
            Some(_) => Err(FsError::Exists.into()),
            None => Ok(place),
        }
    }

    /// Makes a node at `place` in `parent`, with the owner and the mode that the parent makes it have.
    pub(super) fn create(
        &mut self,
        parent: Node,
        place: Place,
        new: NewNode,
        caller: super::Caller,
    ) -> Result<Node, Stop> {
        let is_dir = new.kind == Kind::Dir;
        let inherits = parent.mode & libc::S_ISGID != 0;
        let scoped = self.is_scoped(&place, new.kind)?;
        let id = self.tx.alloc_node()?;
        let mode = self.inherit_acl(parent.id, id, &new, caller.umask)?;
        let node = Node {
            id,
            kind: new.kind,
            mode: mode | if inherits && is_dir { libc::S_ISGID } else { 0 },
            uid: caller.uid,
            gid: if inherits { parent.gid } else { caller.gid },
            size: new.target.len() as u64,
            atime: self.now,
            mtime: self.now,
            ctime: self.now,
            nlink: if is_dir { 2 } else { 1 },
            target: new.target,
            content: Content::Whole,
            data_changed: new.kind == Kind::File,
            data_seq: 1,
            hash: None,
            listed: is_dir,
            scoped,
        };
        self.insert(parent, place, node.clone())?;
        Ok(node)
    }

    /// Puts a new node at `place` in `parent`.
    pub(super) fn insert(
        &mut self,
        mut parent: Node,
        place: Place,
        node: Node,
    ) -> Result<(), Stop> {
        parent.nlink += u32::from(node.kind == Kind::Dir);
        let scoped = node.scoped;
        self.tx.link(place.clone(), node.id)?;
        self.tx.put_node(node)?;
        self.touch(parent)?;
        self.mark(place, scoped)
    }

    /// Whether what stands at `place` stays on this machine.
    pub(super) fn is_scoped(&self, place: &Place, kind: Kind) -> Result<bool, Stop> {
        if !kind.travels() || self.node(place.parent)?.scoped {
            return Ok(true);
        }
        if kind == Kind::File && self.is_databases_memory(place)? {
            return Ok(true);
        }
        if self.home.scope.is_empty() {
            return Ok(false);
        }
        let path = self.tx.local_path_of(place)?;
        Ok(path.is_some_and(|path| self.home.scope.names(&path, kind == Kind::Dir)))
    }

    /// Whether the shared memory of a database is at `place`: an index for the processes of this machine.
    fn is_databases_memory(&self, place: &Place) -> Result<bool, Stop> {
        let Some(main) = place.database_of_memory() else {
            return Ok(false);
        };
        let Some(id) = self.tx.child(main.parent, &main.name)? else {
            return Ok(false);
        };
        let node = self.tx.node(id)?;
        Ok(node.is_some_and(|node| self.home.replica.is_database(&node)))
    }

    /// Stores a directory whose entries changed.
    pub(super) fn touch(&mut self, mut dir: Node) -> Result<(), Stop> {
        dir.mtime = self.now;
        dir.ctime = self.now;
        Ok(self.tx.put_node(dir)?)
    }

    /// Marks `place` dirty, unless what changed there is host-scoped.
    pub(super) fn mark(&mut self, place: Place, scoped: bool) -> Result<(), Stop> {
        if !scoped {
            self.dirtied = true;
            self.tx.mark_dirty(place, self.now)?;
        }
        Ok(())
    }

    /// Marks all places of `node` dirty.
    pub(super) fn mark_all(&mut self, node: &Node) -> Result<(), Stop> {
        if !node.scoped {
            let places = if node.kind == Kind::Dir || node.nlink < 2 {
                self.tx.place(node.id)?.into_iter().collect()
            } else {
                self.tx.places(node.id)?
            };
            for place in places {
                self.mark(place, false)?;
            }
        }
        Ok(())
    }

    /// Notes that the content of `node` is no longer what was agreed on.
    pub(super) fn content_changed(&mut self, node: &mut Node) {
        node.data_changed = true;
        node.data_seq += 1;
        node.hash = None;
        node.mtime = self.now;
        node.ctime = self.now;
    }

    /// Takes the name `place` from `node`, which goes with its last name and its last close.
    pub(super) fn remove_name(&mut self, place: &Place, mut node: Node) -> Result<(), Stop> {
        self.tx.unlink(place)?;
        self.mark(place.clone(), node.scoped)?;
        node.ctime = self.now;
        node.nlink = match node.kind {
            Kind::Dir => 0,
            _ => node.nlink.saturating_sub(1),
        };
        if node.nlink > 0 {
            return Ok(self.tx.put_node(node)?);
        }
        if self.home.replica.opens().is_open(node.id) {
            if let Some(content) = self.home.handles.open_content(node.id) {
                content.set_unlinked();
            }
            self.tx.mark_in_flight(node.id)?;
            return Ok(self.tx.put_node(node)?);
        }
        self.tx.remove_node(node.id)?;
        self.home.handles.remember_ghost(node);
        Ok(())
    }
}
