//! Access control lists: kept as attributes of their nodes, handed out with what the modes say by now. The kernel
//! enforces them, and looks who may set them.

use super::change::{Change, NewNode};
use super::{FsError, Home, Stop};
use crate::tree::{ACL_ACCESS, ACL_DEFAULT, Acl, Kind, NodeId};

/// The bits of a mode that a list says, too.
const PERMISSIONS: u32 = 0o777;

/// Which list of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclKind {
    /// Who may do what with it.
    Access,
    /// What is made in a directory begins with this one.
    Default,
}

impl AclKind {
    /// The list that the attribute `name` is.
    pub fn of(name: &[u8]) -> Option<Self> {
        match name {
            ACL_ACCESS => Some(Self::Access),
            ACL_DEFAULT => Some(Self::Default),
            _ => None,
        }
    }

    fn name(self) -> &'static [u8] {
        match self {
            Self::Access => ACL_ACCESS,
            Self::Default => ACL_DEFAULT,
        }
    }
}

/// The groups that somebody is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// All of them, as root is.
    All,
    /// These.
    Only(Vec<u32>),
}

impl Groups {
    /// Whether `gid` is one of them.
    fn contain(&self, gid: u32) -> bool {
        match self {
            Self::All => true,
            Self::Only(groups) => groups.contains(&gid),
        }
    }
}

impl Home {
    /// A list of a node.
    pub(super) fn acl(&self, id: NodeId, kind: AclKind) -> Result<Vec<u8>, FsError> {
        self.replica.view(|view| {
            let stored = view.xattr(id, kind.name())?;
            let stored = stored.ok_or(FsError::NoAttribute)?;
            if kind == AclKind::Default {
                return Ok(stored);
            }
            let node = view.node(id)?.ok_or_else(|| self.gone(id))?;
            let list = parse(&stored)?.ok_or(FsError::NoAttribute)?;
            Ok(list.with_mode(node.mode).to_bytes())
        })
    }

    /// Gives a node a list, for somebody in `groups` of whom the kernel knows that they may. Where permission bits say
    /// all of it, they are all that is kept.
    pub fn set_acl(
        &self,
        id: NodeId,
        kind: AclKind,
        value: &[u8],
        groups: &Groups,
    ) -> Result<(), Stop> {
        let list = parse(value)?;
        self.change(|change| {
            let mut node = change.node(id)?;
            let before = node.mode;
            let has_it = match kind {
                AclKind::Access => node.kind != Kind::Symlink,
                AclKind::Default => node.kind == Kind::Dir,
            };
            if !has_it {
                return Err(FsError::NotSupported.into());
            }
            let kept = match (&list, kind) {
                (Some(list), AclKind::Access) => {
                    node.mode = node.mode & !PERMISSIONS | list.mode();
                    if !groups.contain(node.gid) {
                        node.mode &= !libc::S_ISGID;
                    }
                    Some(list).filter(|list| !list.is_all_in_mode())
                }
                (list, _) => list.as_ref(),
            };
            let kept = kept.map(Acl::to_bytes);
            if change.tx.xattr(id, kind.name())? != kept {
                change.tx.set_xattr(id, kind.name(), kept)?;
            }
            node.ctime = change.now;
            // Lists stay here, as other attributes do; the mode travels.
            if node.mode != before {
                change.mark_all(&node)?;
            }
            Ok(change.tx.put_node(node)?)
        })
    }

    /// Takes a list from a node. The mode stays, and says who may. Fine if there is none, as on disks.
    pub(super) fn remove_acl(&self, id: NodeId, kind: AclKind) -> Result<(), Stop> {
        self.change(|change| {
            let mut node = change.node(id)?;
            if change.tx.xattr(id, kind.name())?.is_some() {
                change.tx.set_xattr(id, kind.name(), None)?;
                node.ctime = change.now;
                change.tx.put_node(node)?;
            }
            Ok(())
        })
    }
}

impl Change<'_, '_> {
    /// Gives the node that is being made as `id` what it has from the default list of its directory, and answers its
    /// mode. With such a list, that takes the place of the umask.
    pub(super) fn inherit_acl(
        &mut self,
        parent: NodeId,
        id: NodeId,
        new: &NewNode,
        umask: u32,
    ) -> Result<u32, Stop> {
        let mode = new.mode & 0o7777;
        if new.kind == Kind::Symlink {
            return Ok(mode);
        }
        let Some(stored) = self.tx.xattr(parent, ACL_DEFAULT)? else {
            return Ok(mode & !(umask & PERMISSIONS));
        };
        let Some(list) = parse(&stored)? else {
            return Ok(mode & !(umask & PERMISSIONS));
        };
        if new.kind == Kind::Dir {
            self.tx.set_xattr(id, ACL_DEFAULT, Some(stored.clone()))?;
        }
        let mode = mode & (list.mode() | !PERMISSIONS);
        if !list.is_all_in_mode() {
            self.tx.set_xattr(id, ACL_ACCESS, Some(stored))?;
        }
        Ok(mode)
    }
}

/// The list that is kept, or shall be.
fn parse(bytes: &[u8]) -> Result<Option<Acl>, FsError> {
    Acl::parse(bytes).map_err(|_| FsError::Invalid)
}
