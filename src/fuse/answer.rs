//! Answers to the kernel's requests, and what is agreed with it when it connects.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{
    Errno, FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig, OpenAccMode, OpenFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use super::reply::{FOREVER, GENERATION, errno, file_attr, file_type, nothing};
use crate::fs::{Attr, FsError, Handle, Listing, OpenOptions, Opened, Room, Stop};

type Outcome<T> = Result<T, FsError>;

/// The largest write that the kernel shall send.
const MAX_WRITE: u32 = 1 << 20;

/// Block size in `statfs`.
const STATFS_BLOCK: u32 = 4096;

/// The longest name, for `statfs`.
const NAME_MAX: u32 = 255;

/// What is asked of the kernel, if it has it.
const WANTED: [InitFlags; 8] = [
    // A truncating open needs no content, and is one operation.
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    // Pages go only when we say so: nobody else changes the home.
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Else the kernel asks for an attribute before each write.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_ASYNC_DIO,
];

/// Tells the kernel what we want of it.
pub(super) fn configure(config: &mut KernelConfig) {
    for flag in WANTED {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "the kernel does not offer this");
        }
    }
    if let Err(most) = config.set_max_write(MAX_WRITE) {
        tracing::debug!(most, "smaller writes");
    }
}

pub(super) fn open_options(flags: i32) -> OpenOptions {
    OpenOptions {
        write: OpenFlags(flags).acc_mode() != OpenAccMode::O_RDONLY,
        truncate: flags & libc::O_TRUNC != 0,
        exclusive: flags & libc::O_EXCL != 0,
    }
}

pub(super) fn empty(reply: ReplyEmpty, done: Outcome<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Answers with a value that programs ask for twice, first for its size.
pub(super) fn sized(reply: ReplyXattr, size: u32, value: Outcome<Vec<u8>>) {
    match value {
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn attr(reply: ReplyAttr, done: Outcome<Attr>) {
    match done {
        Ok(attr) => reply.attr(&FOREVER, &file_attr(&attr)),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn entry(reply: ReplyEntry, done: Outcome<Option<Attr>>) {
    match done {
        Ok(Some(attr)) => reply.entry(&FOREVER, &file_attr(&attr), GENERATION),
        Ok(None) => reply.entry(&FOREVER, &nothing(), GENERATION),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn opened(reply: ReplyOpen, done: Outcome<Opened>) {
    match done {
        Ok(opened) => reply.opened(FileHandle(opened.handle.0), FopenFlags::FOPEN_KEEP_CACHE),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn created(reply: ReplyCreate, done: Outcome<Opened>) {
    match done {
        Ok(Opened { handle, attr }) => reply.created(
            &FOREVER,
            &file_attr(&attr),
            GENERATION,
            FileHandle(handle.0),
            FopenFlags::FOPEN_KEEP_CACHE,
        ),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn opened_dir(reply: ReplyOpen, done: Outcome<Handle>) {
    match done {
        Ok(handle) => reply.opened(
            FileHandle(handle.0),
            FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR,
        ),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn data(reply: ReplyData, done: Outcome<Vec<u8>>) {
    match done {
        Ok(data) => reply.data(&data),
        Err(error) => reply.error(errno(&error)),
    }
}

/// No request is larger than the kernel's 32 bits for the answer.
pub(super) fn written(reply: ReplyWrite, done: Outcome<usize>) {
    match done {
        Ok(written) => reply.written(written as u32),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn sought(reply: ReplyLseek, found: Outcome<u64>) {
    match found.map(i64::try_from) {
        Ok(Ok(offset)) => reply.offset(offset),
        Ok(Err(_)) => reply.error(Errno::EOVERFLOW),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn listing(mut reply: ReplyDirectory, listing: Result<Listing<'_>, Stop>) {
    match listing {
        Ok(mut entries) => {
            while let Some(entry) = entries.next()
                && !reply.add(
                    INodeNo(entry.attr.id.0),
                    entry.offset,
                    file_type(entry.attr.kind),
                    OsStr::from_bytes(&entry.name),
                )
            {}
            reply.ok();
        }
        Err(stop) => reply.error(stopped(stop)),
    }
}

pub(super) fn listing_plus(mut reply: ReplyDirectoryPlus, listing: Result<Listing<'_>, Stop>) {
    match listing {
        Ok(mut entries) => {
            while let Some(entry) = entries.next()
                && !reply.add(
                    INodeNo(entry.attr.id.0),
                    entry.offset,
                    OsStr::from_bytes(&entry.name),
                    &FOREVER,
                    &file_attr(&entry.attr),
                    GENERATION,
                )
            {}
            reply.ok();
        }
        Err(stop) => reply.error(stopped(stop)),
    }
}

pub(super) fn room(reply: ReplyStatfs, room: Outcome<Room>) {
    match room {
        Ok(room) => {
            let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK);
            let free = blocks(room.available_bytes);
            reply.statfs(
                blocks(room.total_bytes),
                free,
                free,
                room.files,
                room.files_free,
                STATFS_BLOCK,
                NAME_MAX,
                STATFS_BLOCK,
            );
        }
        Err(error) => reply.error(errno(&error)),
    }
}

/// A directory that was listed when it was opened stays so; if not, there is nothing to wait for.
fn stopped(stop: Stop) -> Errno {
    match stop {
        Stop::Failed(error) => errno(&error),
        Stop::Needs(_) => Errno::EIO,
    }
}
