//! Files that the kernel reads and writes itself in the place of ours: telling it of one, which only root may, and
//! that it is no longer needed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use rustix::ioctl::{Setter, ioctl, opcode};

use crate::fs::Passage;

/// `FUSE_DEV_IOC_BACKING_CLOSE` of linux/fuse.h.
const BACKING_CLOSE: rustix::ioctl::Opcode = opcode::write::<u32>(229, 2);

/// Tells the kernel that asks at `fuse` of `file`; the answer is by which number it knows it. It takes the rights of
/// this thread along, with which it will write.
pub(super) fn open(fuse: impl AsFd, file: impl AsFd) -> io::Result<u32> {
    BackingId::create_raw(fuse, file)
}

/// Lets the kernel forget a file. Who has it open keeps it.
#[allow(unsafe_code)] // `fuser` can close only where this process may.
pub(super) fn close(fuse: impl AsFd, id: u32) -> io::Result<()> {
    // SAFETY: the kernel reads one number of 32 bits, which the setter holds.
    let closed = unsafe { ioctl(fuse, Setter::<BACKING_CLOSE, u32>::new(id)) };
    Ok(closed?)
}

/// An open file that the kernel reads and writes by itself. It forgets what it had in its own cache, and nothing comes to
/// be there, so whoever opens the file to ask for it finds no old pages.
#[allow(unsafe_code)] // The number may come from a broker.
pub(super) fn opened(reply: ReplyOpen, handle: FileHandle, id: u32) {
    // SAFETY: nobody but the home closes the number, and not while the file is open.
    let backing = unsafe { reply.wrap_backing(id) };
    reply.opened_passthrough(handle, FopenFlags::empty(), &backing);
    // Not to be closed with this.
    let _id = backing.into_raw();
}

/// The way to the kernel of who is root.
pub(super) struct Direct(pub(super) OwnedFd);

impl Passage for Direct {
    fn open(&self, file: &std::fs::File) -> io::Result<u32> {
        open(&self.0, file)
    }

    fn close(&self, id: u32) -> io::Result<()> {
        close(&self.0, id)
    }
}
