//! How each kind of reply is given: a value, or the number of an error.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{
    Errno, FileHandle, FopenFlags, INodeNo, InitFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr,
};

use super::backing;
use super::translate::{FOREVER, GENERATION, errno, file_attr, file_type, nothing};
use crate::fs::{Attr, Entries, FsError, Opened, Room};

/// Block size in `statfs`.
const STATFS_BLOCK: u32 = 4096;

/// The longest name, for `statfs`.
const NAME_MAX: u32 = 255;

type Result<T> = std::result::Result<T, FsError>;

/// Without a value.
pub(super) fn done(reply: ReplyEmpty, done: Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn attr(reply: ReplyAttr, attr: Result<Attr>) {
    match attr {
        Ok(attr) => reply.attr(&FOREVER, &file_attr(&attr)),
        Err(error) => reply.error(errno(&error)),
    }
}

/// An entry; that there is none is remembered as well.
pub(super) fn entry(reply: ReplyEntry, attr: Result<Option<Attr>>) {
    match attr {
        Ok(Some(attr)) => reply.entry(&FOREVER, &file_attr(&attr), GENERATION),
        Ok(None) => reply.entry(&FOREVER, &nothing(), GENERATION),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn data(reply: ReplyData, data: Result<Vec<u8>>) {
    match data {
        Ok(data) => reply.data(&data),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn written(reply: ReplyWrite, written: Result<usize>) {
    match written {
        Ok(written) => reply.written(written as u32),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn offset(reply: ReplyLseek, offset: Result<u64>) {
    match offset.map(i64::try_from) {
        Ok(Ok(offset)) => reply.offset(offset),
        Ok(Err(_)) => reply.error(Errno::EOVERFLOW),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn opened(reply: ReplyOpen, opened: Result<Opened>) {
    match opened {
        Ok(Opened {
            handle,
            content: Some(id),
            ..
        }) => backing::opened(reply, FileHandle(handle.0), id),
        Ok(opened) => reply.opened(FileHandle(opened.handle.0), FopenFlags::FOPEN_KEEP_CACHE),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn created(reply: ReplyCreate, opened: Result<Opened>) {
    match opened {
        Ok(Opened { handle, attr, .. }) => reply.created(
            &FOREVER,
            &file_attr(&attr),
            GENERATION,
            FileHandle(handle.0),
            FopenFlags::FOPEN_KEEP_CACHE,
        ),
        Err(error) => reply.error(errno(&error)),
    }
}

/// That a directory need not be opened, to a kernel that knows what this means.
pub(super) fn opened_dir(reply: ReplyOpen, agreed: InitFlags) {
    match agreed.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT) {
        true => reply.error(Errno::ENOSYS),
        false => reply.opened(
            FileHandle(0),
            FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR,
        ),
    }
}

/// As many entries as the reply has room for.
pub(super) fn entries(mut reply: ReplyDirectory, entries: Result<Entries<'_>>) {
    match entries {
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
        Err(error) => reply.error(unlisted(&error)),
    }
}

/// The same with attributes.
pub(super) fn entries_plus(mut reply: ReplyDirectoryPlus, entries: Result<Entries<'_>>) {
    match entries {
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
        Err(error) => reply.error(unlisted(&error)),
    }
}

/// Why a directory cannot be listed. The C library takes ENOENT for its end: it would look empty.
fn unlisted(error: &FsError) -> Errno {
    match errno(error) {
        gone if gone.code() == libc::ENOENT => Errno::ESTALE,
        errno => errno,
    }
}

pub(super) fn space(reply: ReplyStatfs, room: Result<Room>) {
    match room {
        Ok(room) => {
            let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK);
            reply.statfs(
                blocks(room.total_bytes),
                blocks(room.free_bytes),
                blocks(room.available_bytes),
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

/// A value that programs ask for twice, first for its size.
pub(super) fn sized(reply: ReplyXattr, size: u32, value: Result<Vec<u8>>) {
    match value {
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
        // An ACL or a capability that is asked for: not worth a word in the log.
        Err(error) => reply.error(errno(&error)),
    }
}

/// Names, each ended by a zero byte.
pub(super) fn names(reply: ReplyXattr, size: u32, names: Result<Vec<Vec<u8>>>) {
    let terminated = names.map(|names| {
        let terminated = names.into_iter().flat_map(|mut name| {
            name.push(0);
            name
        });
        terminated.collect()
    });
    sized(reply, size, terminated);
}
