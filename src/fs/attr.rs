//! Looking up names, and reading and changing attributes.

use super::{Caller, FsError, Handle, Home, Need, Stop, is_reserved};
use crate::replica::Node;
use crate::tree::{Kind, Name, NodeId, Time};

/// What `stat` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// The inode number.
    pub id: NodeId,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Last access. Reading does not change it: that would be a write for every read.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Number of names.
    pub nlink: u32,
}

impl From<&Node> for Attr {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id,
            kind: node.kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            size: node.size,
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
            nlink: node.nlink,
        }
    }
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The current time.
    Now,
    /// This one.
    At(Time),
}

/// Attributes to change; `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size of a file.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
    /// An open handle of the file.
    pub handle: Option<Handle>,
}

impl Home {
    /// What `name` in `parent` stands for; `None` if it is known that there is nothing.
    pub fn lookup(&self, parent: NodeId, name: &Name) -> Result<Option<Attr>, Stop> {
        if is_reserved(parent, name) {
            return Ok(None);
        }
        self.replica.view(|view| {
            if let Some(id) = view.child(parent, name)? {
                let node = view.node(id)?.filter(|node| node.kind != Kind::Other);
                return Ok(node.map(|node| self.shown(&node)));
            }
            match view.node(parent)?.ok_or_else(|| self.gone(parent))? {
                dir if dir.kind != Kind::Dir => Err(FsError::NotADirectory.into()),
                dir if dir.listed => Ok(None),
                _ => Err(Stop::Needs(Need::Listing(parent))),
            }
        })
    }

    /// The attributes of a node, also of one that lost its last name while somebody looks at it.
    pub fn attr(&self, id: NodeId) -> Result<Attr, FsError> {
        let node = self.replica.view(|view| Ok::<_, FsError>(view.node(id)?))?;
        let node = node.or_else(|| self.handles.ghost(id));
        node.map(|node| self.shown(&node)).ok_or(FsError::Stale)
    }

    /// The kernel forgot a node.
    pub fn forget(&self, id: NodeId) {
        self.handles.forget_ghost(id);
    }

    /// Where a symlink points.
    pub fn read_link(&self, id: NodeId) -> Result<Vec<u8>, FsError> {
        let node = self.replica.view(|view| Ok::<_, FsError>(view.node(id)?))?;
        match node.ok_or_else(|| self.gone(id))? {
            node if node.kind == Kind::Symlink => Ok(node.target),
            _ => Err(FsError::Invalid),
        }
    }

    /// Changes attributes.
    pub fn set_attr(&self, id: NodeId, set: SetAttr, caller: Caller) -> Result<Attr, Stop> {
        if let Some(size) = set.size {
            // Truncating takes away the privileges that a program had by its mode (root's stay).
            self.set_size(id, set.handle, size, caller.uid != 0)?;
        }
        let node = self.change(|change| {
            let mut node = change.node(id)?;
            let before = (node.mode, node.mtime);
            let now = change.now;
            let time = |set: SetTime| match set {
                SetTime::Now => now,
                SetTime::At(time) => time,
            };
            if set.uid.is_some() || set.gid.is_some() {
                node.uid = set.uid.unwrap_or(node.uid);
                node.gid = set.gid.unwrap_or(node.gid);
                drop_privileges(&mut node);
            }
            if let Some(mode) = set.mode {
                node.mode = mode & 0o7777;
            }
            node.atime = set.atime.map_or(node.atime, time);
            node.mtime = set.mtime.map_or(node.mtime, time);
            node.ctime = now;
            // Owners and access times stay here, as the times of directories do.
            if node.mode != before.0 || node.mtime != before.1 && node.kind != Kind::Dir {
                change.mark_all(&node)?;
            }
            change.tx.put_node(node.clone())?;
            Ok(node)
        })?;
        if set.mtime.is_some() {
            self.replica.set_direct_mtime(id, node.mtime)?;
        }
        Ok(self.shown(&node))
    }
}

/// Clears the bits that would let others act as the owner: when a file gets a new owner or new content.
pub(super) fn drop_privileges(node: &mut Node) {
    if node.kind == Kind::Dir {
        return;
    }
    node.mode &= !libc::S_ISUID;
    if node.mode & libc::S_IXGRP != 0 {
        node.mode &= !libc::S_ISGID;
    }
}
