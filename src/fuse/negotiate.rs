//! What is agreed on with the kernel when a mount begins.

use std::sync::Arc;

use fuser::{InitFlags, KernelConfig};

use crate::fs::{Home, Passage, Worth};

/// How the kernel is told of content files, and of which.
pub(super) type ByKernel = (Arc<dyn Passage>, Worth);

/// The largest write that the kernel shall send.
const MAX_WRITE: u32 = 1 << 20;

/// So many requests of the kernel's own readahead may wait for an answer. Those of a file that is read by block may wait
/// for the server, and must not keep the kernel from reading others ahead.
const MAX_BACKGROUND: u16 = 1024;

/// What is asked of the kernel, if it has it.
const WANTED: [InitFlags; 14] = [
    // A truncating open needs no content, and is one operation.
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    // Pages never go by themselves: only what the kernel lets programs do changes a file's content. What the
    // server has instead is another file.
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Listing a directory is one request less, and closing it, too.
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    // Else the kernel asks for an attribute before each write.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    // The kernel enforces ACLs. What is made in a directory that has one for that has no umask, so it is ours to heed.
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_SPLICE_READ,
    InitFlags::FUSE_SPLICE_WRITE,
    InitFlags::FUSE_SPLICE_MOVE,
];

/// Content lies on a disk, and not on one file system above another; so others may go above the mount.
const STACK_DEPTH: u32 = 1;

/// Asks for what is wanted, and takes what there is, which it returns. With `by_kernel`, the kernel may read and write
/// content by itself.
pub(super) fn negotiate(
    config: &mut KernelConfig,
    home: &Home,
    by_kernel: Option<ByKernel>,
) -> InitFlags {
    let mut agreed = InitFlags::empty();
    let passthrough = by_kernel.as_ref().map(|_| InitFlags::FUSE_PASSTHROUGH);
    for flag in WANTED.into_iter().chain(passthrough) {
        match config.add_capabilities(flag) {
            Ok(()) => agreed |= flag,
            Err(_) => tracing::debug!(?flag, "the kernel does not offer this"),
        }
    }
    // Each returns the nearest value that works, which is as good.
    config.set_max_write(MAX_WRITE).ok();
    config.set_max_readahead(MAX_WRITE).ok();
    config.set_max_background(MAX_BACKGROUND).ok();
    config.set_max_stack_depth(STACK_DEPTH).ok();
    if let Some((passage, worth)) = by_kernel
        && agreed.contains(InitFlags::FUSE_PASSTHROUGH)
    {
        home.pass_through(passage, worth);
    }
    agreed
}
