//! Files that sessions of the memory server hold open, and the count of what they ask.

use bytes::Bytes;

use super::errno::Errno;
use super::{Open, Shared};
use crate::remote::FileHandle;

impl Shared {
    pub(super) fn count(&mut self, verb: &'static str, times: u64) {
        *self.calls.entry(verb).or_default() += times;
    }

    pub(super) fn open(&mut self, session: u64, inode: u64, write: bool) -> Result<Bytes, Errno> {
        self.disk.open(inode, write)?;
        let id = self.take_id();
        let open = Open {
            session,
            inode,
            write,
        };
        self.handles.insert(id, open);
        Ok(Bytes::copy_from_slice(&id.to_be_bytes()))
    }

    pub(super) fn opened(&self, session: u64, handle: &FileHandle) -> Result<&Open, Errno> {
        let open = handle_id(handle).and_then(|id| self.handles.get(&id));
        open.filter(|open| open.session == session)
            .ok_or(Errno::BadHandle)
    }

    pub(super) fn writable(&self, session: u64, handle: &FileHandle) -> Result<u64, Errno> {
        let open = self.opened(session, handle)?;
        open.write.then_some(open.inode).ok_or(Errno::BadHandle)
    }

    pub(super) fn close(&mut self, session: u64, handle: &FileHandle) -> Result<(), Errno> {
        let inode = self.opened(session, handle)?.inode;
        if let Some(id) = handle_id(handle) {
            self.handles.remove(&id);
        }
        self.disk.release(inode);
        Ok(())
    }
}

fn handle_id(handle: &FileHandle) -> Option<u64> {
    Some(u64::from_be_bytes(handle.id[..].try_into().ok()?))
}
