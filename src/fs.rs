//! The home as an API: every operation that a program can do on it, carried out on the replica.
//!
//! It knows nothing of FUSE and never touches the network. POSIX truth comes from the index: what the server
//! would say to an operation plays no part in it. Permission checks are the kernel's. What needs something
//! that is not cached says so with a [`Need`] instead of waiting ([`Home::run`] comes back when it is there).

mod acl;
mod attr;
mod blocks;
mod change;
mod dir;
mod error;
mod file;
mod handle;
mod import;
mod io;
mod link;
mod restraint;
mod scope;
mod special;
mod statfs;
mod step;
mod through;
mod xattr;

pub use acl::{AclKind, Groups};
pub use attr::{Attr, SetAttr, SetTime};
pub use dir::{DirEntry, Entries, Listing};
pub use error::FsError;
pub use file::{OpenOptions, Opened};
pub use handle::Handle;
pub use import::{Imported, Importing, Survey, survey};
pub use io::MOST_COPIED;
pub use link::RenameMode;
pub use restraint::{Restraint, RestraintError};
pub use scope::{HostScope, ScopeError};
pub use special::SpecialKind;
pub use statfs::Room;
pub use step::{Need, Stop, contain};
pub use through::{Passage, Worth};
pub use xattr::XattrMode;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::engine::Fetch;
use crate::replica::Replica;
use crate::tree::{Name, NodeId, Time};

use dir::Begun;
use handle::Handles;
use through::Through;

/// Our own directory at the root of the server's home; never shown.
const RESERVED: &[u8] = b".roamhome";

/// Who asks for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Their user.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
    /// What they leave out of the modes of what they make, unless a directory's ACL says who may.
    pub umask: u32,
    /// Their thread; 0 if it cannot be named here, or if it is none of a program's.
    pub pid: u32,
}

/// How a home behaves.
pub struct HomeOptions {
    /// Who owns the home.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// What never leaves this machine.
    pub host_scoped: HostScope,
    /// For which programs nothing large is fetched.
    pub restraint: Restraint,
    /// The clock.
    pub now: Box<dyn Fn() -> Time + Send + Sync>,
}

/// A home, as the mount shows it.
pub struct Home {
    replica: Arc<Replica>,
    fetch: Arc<dyn Fetch>,
    scope: HostScope,
    restraint: Restraint,
    now: Box<dyn Fn() -> Time + Send + Sync>,
    handles: Handles,
    begun: Begun,
    read_only: AtomicBool,
    through: Through,
    /// Bytes written since it was last looked whether there is room.
    unlooked: AtomicU64,
}

impl Home {
    /// The home kept in `replica`; `fetch` gets what is not there.
    pub fn new(
        replica: Arc<Replica>,
        fetch: Arc<dyn Fetch>,
        options: HomeOptions,
    ) -> Result<Self, FsError> {
        let HomeOptions {
            uid,
            gid,
            host_scoped: scope,
            restraint,
            now,
        } = options;
        let home = Self {
            replica,
            fetch,
            scope,
            restraint,
            now,
            handles: Handles::default(),
            begun: Begun::default(),
            read_only: AtomicBool::new(false),
            through: Through::default(),
            unlooked: AtomicU64::new(0),
        };
        home.own_root(uid, gid)?;
        home.adopt_used()?;
        Ok(home)
    }

    fn own_root(&self, uid: u32, gid: u32) -> Result<(), FsError> {
        self.replica.update(|tx| {
            let mut root = tx.node(NodeId::ROOT)?.ok_or(FsError::NotFound)?;
            if (root.uid, root.gid) != (uid, gid) {
                (root.uid, root.gid) = (uid, gid);
                tx.put_node(root)?;
            }
            Ok(())
        })
    }

    /// Takes no writes any more, or takes them again.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::SeqCst);
    }

    fn expect_writable(&self) -> Result<(), FsError> {
        match self.read_only.load(Ordering::SeqCst) {
            true => Err(FsError::ReadOnly),
            false => Ok(()),
        }
    }

    /// Why there is no such node. Of those that went by a program's hand the kernel knows; what the engine took
    /// away the kernel may still remember under a name that means something else by now.
    fn gone(&self, id: NodeId) -> FsError {
        match self.handles.ghost(id) {
            Some(_) => FsError::NotFound,
            None => FsError::Stale,
        }
    }

    fn now(&self) -> Time {
        (self.now)()
    }
}

/// Whether the entry `name` of `parent` is ours and not the user's.
fn is_reserved(parent: NodeId, name: &Name) -> bool {
    parent == NodeId::ROOT && name.as_bytes() == RESERVED
}

#[cfg(test)]
mod tests;
