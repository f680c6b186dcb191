//! The home's values in FUSE's terms, and back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Generation, INodeNo, OpenAccMode, OpenFlags,
    RenameFlags, Request, TimeOrNow,
};

use crate::fs::{
    Attr, Caller, FsError, Handle, OpenOptions, RenameMode, SetTime, SpecialKind, XattrMode,
};
use crate::tree::{Kind, Name, NodeId, Time};

/// How long the kernel may remember what it was told: until we say otherwise, for nobody else changes it.
/// (Ten years, as far as the kernel's clock is concerned.)
pub(super) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Inode numbers are never given twice.
pub(super) const GENERATION: Generation = Generation(0);

/// What `stat` calls a block.
const BLOCK: u64 = 512;

/// The size of reads and writes that programs are told to prefer.
const BLOCK_SIZE: u32 = 4096;

/// With this the kernel opens a program to run it (include/linux/fs.h: FMODE_EXEC); no open(2) can say it.
const FMODE_EXEC: i32 = 0x20;

pub(super) fn errno(error: &FsError) -> Errno {
    if error.is_fault() {
        tracing::warn!(%error, "an operation failed");
    }
    Errno::from_i32(error.to_errno())
}

pub(super) fn caller(request: &Request) -> Caller {
    maker(request, 0)
}

/// Who asks for something to be made.
pub(super) fn maker(request: &Request, umask: u32) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        umask,
        pid: request.pid(),
    }
}

pub(super) fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

pub(super) fn handle(fh: FileHandle) -> Handle {
    Handle(fh.0)
}

pub(super) fn name(bytes: &OsStr) -> Result<Name, FsError> {
    Ok(Name::new(bytes.as_bytes())?)
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.id.0),
        size: attr.size,
        // Whether or not it is here: a file of no blocks would pass for one great hole.
        blocks: attr.size.div_ceil(BLOCK),
        atime: to_system(attr.atime),
        mtime: to_system(attr.mtime),
        ctime: to_system(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Attributes that tell the kernel that there is nothing, and that it may remember that.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        // Never shown.
        Kind::Other => FileType::CharDevice,
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(from_request(time)),
    }
}

pub(super) fn open_options(flags: i32) -> OpenOptions {
    OpenOptions {
        write: OpenFlags(flags).acc_mode() != OpenAccMode::O_RDONLY,
        truncate: flags & libc::O_TRUNC != 0,
        exclusive: flags & libc::O_EXCL != 0,
        run: flags & FMODE_EXEC != 0,
        asks: flags & (libc::O_DIRECT | libc::O_DSYNC) != 0,
        creates: false,
    }
}

/// What `mknod` may make; devices it may not.
pub(super) fn special_kind(mode: u32) -> Option<SpecialKind> {
    match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Some(SpecialKind::File),
        libc::S_IFIFO => Some(SpecialKind::Fifo),
        libc::S_IFSOCK => Some(SpecialKind::Socket),
        _ => None,
    }
}

pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    match flags {
        RenameFlags::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        flags if flags.is_empty() => Some(RenameMode::Replace),
        _ => None,
    }
}

pub(super) fn xattr_mode(flags: i32) -> Option<XattrMode> {
    match flags {
        0 => Some(XattrMode::Any),
        libc::XATTR_CREATE => Some(XattrMode::Create),
        libc::XATTR_REPLACE => Some(XattrMode::Replace),
        _ => None,
    }
}

fn to_system(time: Time) -> SystemTime {
    let (secs, nanos) = (
        time.secs(),
        Duration::from_nanos(time.subsec_nanos().into()),
    );
    let whole = Duration::from_secs(secs.unsigned_abs());
    match secs < 0 {
        true => UNIX_EPOCH - whole + nanos,
        false => UNIX_EPOCH + whole + nanos,
    }
}

/// A time in a request. fuser 0.18 takes the nanoseconds of a time before the epoch away from it instead of
/// adding them; this takes them back.
fn from_request(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time::new(to_secs(after), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            Time::new(-to_secs(before), before.subsec_nanos())
        }
    }
}

fn to_secs(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_survive_the_way_through_fuser() {
        let minus_half = Time::new(-1, 500_000_000);
        assert_eq!(
            to_system(minus_half),
            UNIX_EPOCH - Duration::from_millis(500)
        );
        // As fuser parses (-1 s, 500,000,000 ns).
        let parsed = UNIX_EPOCH - Duration::new(1, 500_000_000);
        assert_eq!(from_request(parsed), minus_half);
        assert_eq!(from_request(UNIX_EPOCH), Time::default());
    }
}
