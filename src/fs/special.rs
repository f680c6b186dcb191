//! Pipes and sockets, which stay on this machine, and files made without opening them.

use super::change::NewNode;
use super::{Attr, Caller, Home, Stop};
use crate::tree::{Kind, Name, NodeId};

/// What `mknod` can make. Devices are refused: the mount would not let anybody open them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialKind {
    /// An empty regular file.
    File,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Home {
    /// Makes a node without opening it.
    pub fn mknod(
        &self,
        parent: NodeId,
        name: &Name,
        kind: SpecialKind,
        mode: u32,
        caller: Caller,
    ) -> Result<Attr, Stop> {
        self.change(|change| {
            let dir = change.listed_dir(parent)?;
            let place = change.vacant(parent, name)?;
            let new = NewNode {
                kind: match kind {
                    SpecialKind::File => Kind::File,
                    SpecialKind::Fifo => Kind::Fifo,
                    SpecialKind::Socket => Kind::Socket,
                },
                mode,
                target: Vec::new(),
            };
            let node = change.create(dir, place, new, caller)?;
            Ok(Attr::from(&node))
        })
    }
}
