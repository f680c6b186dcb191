//! One method for each request of the kernel: translate, let the home do it, translate back.
//!
//! What may need the network goes through `Home::run`, which takes the reply along and gives the thread back
//! at once. Everything else is answered here.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::reply::{FOREVER, GENERATION, errno, file_attr, file_type, name, nothing, set_time};
use crate::fs::{
    Attr, Caller, FsError, Handle, Home, OpenOptions, Opened, RenameMode, SetAttr, SpecialKind,
    Stop, XattrMode,
};
use crate::tree::{Name, NodeId};

/// The largest write that the kernel shall send.
const MAX_WRITE: u32 = 1 << 20;

/// Block size in `statfs`.
const STATFS_BLOCK: u32 = 4096;

/// The longest name, for `statfs`.
const NAME_MAX: u32 = 255;

/// What is asked of the kernel, if it has it.
const WANTED: [InitFlags; 11] = [
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
    InitFlags::FUSE_SPLICE_READ,
    InitFlags::FUSE_SPLICE_WRITE,
    InitFlags::FUSE_SPLICE_MOVE,
];

/// The home as the kernel's requests see it.
pub(super) struct Adapter {
    home: Arc<Home>,
}

impl Adapter {
    pub(super) fn new(home: Arc<Home>) -> Self {
        Self { home }
    }

    /// Lets the home do something with a name, which may need the network, and answers with an entry.
    fn entry(
        &self,
        bytes: &OsStr,
        reply: ReplyEntry,
        operation: impl Fn(&Home, &Name) -> Result<Option<Attr>, Stop> + Send + 'static,
    ) {
        let name = match name(bytes) {
            Ok(name) => name,
            Err(error) => return reply.error(errno(&error)),
        };
        self.home.run(
            move |home| operation(home, &name),
            |done| match done {
                Ok(Some(attr)) => reply.entry(&FOREVER, &file_attr(&attr), GENERATION),
                Ok(None) => reply.entry(&FOREVER, &nothing(), GENERATION),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    /// The same for what is answered without a value.
    fn action(
        &self,
        reply: ReplyEmpty,
        operation: impl Fn(&Home) -> Result<(), Stop> + Send + 'static,
    ) {
        self.home.run(operation, |done| answer(reply, done));
    }
}

fn answer(reply: ReplyEmpty, done: Result<(), FsError>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Answers with a value that programs ask for twice, first for its size.
fn answer_sized(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, FsError>) {
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

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

fn handle(fh: FileHandle) -> Handle {
    Handle(fh.0)
}

fn open_options(flags: i32) -> OpenOptions {
    OpenOptions {
        write: OpenFlags(flags).acc_mode() != OpenAccMode::O_RDONLY,
        truncate: flags & libc::O_TRUNC != 0,
        exclusive: flags & libc::O_EXCL != 0,
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in WANTED {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "the kernel does not offer this");
            }
        }
        // Each returns the nearest value that works, which is as good.
        config.set_max_write(MAX_WRITE).ok();
        config.set_max_readahead(MAX_WRITE).ok();
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(name, reply, move |home, name| {
            home.lookup(node(parent), name)
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, _lookups: u64) {
        self.home.forget(node(ino));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.home.attr(node(ino)) {
            Ok(attr) => reply.attr(&FOREVER, &file_attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let caller = caller(request);
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            handle: fh.map(handle),
        };
        self.home.run(
            move |home| home.set_attr(node(ino), set, caller),
            |done| match done {
                Ok(attr) => reply.attr(&FOREVER, &file_attr(&attr)),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.home.read_link(node(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => SpecialKind::File,
            libc::S_IFIFO => SpecialKind::Fifo,
            libc::S_IFSOCK => SpecialKind::Socket,
            _ => return reply.error(Errno::EPERM),
        };
        let caller = caller(request);
        self.entry(name, reply, move |home, name| {
            home.mknod(node(parent), name, kind, mode, caller).map(Some)
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let caller = caller(request);
        self.entry(name, reply, move |home, name| {
            home.mkdir(node(parent), name, mode, caller).map(Some)
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, bytes: &OsStr, reply: ReplyEmpty) {
        match name(bytes) {
            Ok(name) => self.action(reply, move |home| home.unlink(node(parent), &name)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, bytes: &OsStr, reply: ReplyEmpty) {
        match name(bytes) {
            Ok(name) => self.action(reply, move |home| home.rmdir(node(parent), &name)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let caller = caller(request);
        let target = target.as_os_str().as_bytes().to_vec();
        self.entry(name, reply, move |home, name| {
            home.symlink(node(parent), name, &target, caller).map(Some)
        });
    }

    fn rename(
        &self,
        _: &Request,
        from_dir: INodeNo,
        from: &OsStr,
        to_dir: INodeNo,
        to: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            flags if flags.is_empty() => RenameMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        match name(from).and_then(|from| Ok((from, name(to)?))) {
            Ok((from, to)) => self.action(reply, move |home| {
                home.rename((node(from_dir), &from), (node(to_dir), &to), mode)
            }),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(name, reply, move |home, name| {
            home.link(node(ino), node(parent), name).map(Some)
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let caller = caller(request);
        self.home.run(
            move |home| home.open(node(ino), open_options(flags.0), caller),
            |done| match done {
                Ok(opened) => {
                    reply.opened(FileHandle(opened.handle.0), FopenFlags::FOPEN_KEEP_CACHE);
                }
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        bytes: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let caller = caller(request);
        let name = match name(bytes) {
            Ok(name) => name,
            Err(error) => return reply.error(errno(&error)),
        };
        self.home.run(
            move |home| home.create(node(parent), &name, mode, open_options(flags), caller),
            |done| match done {
                Ok(Opened { handle, attr }) => reply.created(
                    &FOREVER,
                    &file_attr(&attr),
                    GENERATION,
                    FileHandle(handle.0),
                    FopenFlags::FOPEN_KEEP_CACHE,
                ),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn read(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.home.read(handle(fh), offset, size as usize) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let drops = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        match self.home.write(handle(fh), offset, data, drops) {
            Ok(written) => reply.written(written as u32),
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Not needed, and the kernel asks only once: there is nothing that only a close would tell us.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.home.release(handle(fh)));
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer(reply, self.home.fsync(handle(fh)));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.home.run(
            move |home| home.open_dir(node(ino)),
            |done| match done {
                Ok(opened) => reply.opened(
                    FileHandle(opened.0),
                    FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR,
                ),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn readdir(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.home.read_dir(handle(fh), offset) {
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

    fn readdirplus(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.home.read_dir(handle(fh), offset) {
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

    fn releasedir(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.home.release_dir(handle(fh));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.home.fsync_dir());
    }

    fn statfs(&self, _: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.home.room() {
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

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            0 => XattrMode::Any,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        self.action(reply, move |home| {
            home.set_xattr(node(ino), &name, &value, mode)
        });
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.home.xattr(node(ino), name.as_bytes());
        answer_sized(reply, size, value);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.home.xattrs(node(ino)).map(|names| {
            let terminated = names.into_iter().flat_map(|mut name| {
                name.push(0);
                name
            });
            terminated.collect()
        });
        answer_sized(reply, size, names);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.action(reply, move |home| home.remove_xattr(node(ino), &name));
    }

    fn fallocate(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = mode.cast_unsigned();
        answer(reply, self.home.fallocate(handle(fh), offset, length, mode));
    }

    fn lseek(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Ok(from) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let found = match whence {
            libc::SEEK_DATA => self.home.seek(handle(fh), from, false),
            libc::SEEK_HOLE => self.home.seek(handle(fh), from, true),
            _ => Err(FsError::Invalid),
        };
        match found.map(i64::try_from) {
            Ok(Ok(offset)) => reply.offset(offset),
            Ok(Err(_)) => reply.error(Errno::EOVERFLOW),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let from = (handle(fh_in), offset_in);
        let to = (handle(fh_out), offset_out);
        match self.home.copy_range(from, to, len) {
            Ok(copied) => reply.written(copied as u32),
            Err(error) => reply.error(errno(&error)),
        }
    }
}

/// A directory that was listed when it was opened stays so; if not, there is nothing to wait for.
fn stopped(stop: Stop) -> Errno {
    match stop {
        Stop::Failed(error) => errno(&error),
        Stop::Needs(_) => Errno::EIO,
    }
}
