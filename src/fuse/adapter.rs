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
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::answer;
use super::negotiate::{ByKernel, negotiate};
use super::notify::Board;
use super::translate::{
    caller, errno, handle, maker, name, node, open_options, rename_mode, set_time, special_kind,
};
use crate::fs::{FsError, Home, SetAttr, contain};

mod operation;

/// The home as the kernel's requests see it.
pub(super) struct Adapter {
    home: Arc<Home>,
    board: Arc<Board>,
    by_kernel: Option<ByKernel>,
    /// What was agreed on with the kernel.
    agreed: InitFlags,
}

impl Adapter {
    pub(super) fn new(home: Arc<Home>, board: Arc<Board>, by_kernel: Option<ByKernel>) -> Self {
        Self {
            home,
            board,
            by_kernel,
            agreed: InitFlags::empty(),
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.agreed = negotiate(config, &self.home, self.by_kernel.take());
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(name, reply, move |home, name| {
            home.lookup(node(parent), name)
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, _lookups: u64) {
        contain(|| self.home.forget(node(ino)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        contain(|| answer::attr(reply, self.home.attr(node(ino))));
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
            |done| answer::attr(reply, done),
        );
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        contain(|| answer::data(reply, self.home.read_link(node(ino))));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = special_kind(mode) else {
            return reply.error(Errno::EPERM);
        };
        let caller = maker(request, umask);
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
        umask: u32,
        reply: ReplyEntry,
    ) {
        let caller = maker(request, umask);
        self.entry(name, reply, move |home, name| {
            home.mkdir(node(parent), name, mode, caller).map(Some)
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, bytes: &OsStr, reply: ReplyEmpty) {
        self.named(bytes, reply, move |home, name| {
            home.unlink(node(parent), name)
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, bytes: &OsStr, reply: ReplyEmpty) {
        self.named(bytes, reply, move |home, name| {
            home.rmdir(node(parent), name)
        });
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
        let Some(mode) = rename_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let place = |dir, bytes| Ok((node(dir), name(bytes)?));
        let places = place(from_dir, from).and_then(|from| Ok((from, place(to_dir, to)?)));
        match places {
            Ok((from, to)) => self.renamed(from, to, mode, reply),
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
            |done| answer::opened(reply, done),
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        bytes: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let caller = maker(request, umask);
        let name = match name(bytes) {
            Ok(name) => name,
            Err(error) => return reply.error(errno(&error)),
        };
        self.home.run(
            move |home| home.create(node(parent), &name, mode, open_options(flags), caller),
            |done| answer::created(reply, done),
        );
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.home.run(
            move |home| home.read(handle(fh), offset, size as usize),
            |done| answer::data(reply, done),
        );
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let drops = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        self.written(data, reply, move |home, data| {
            home.write(handle(fh), offset, data, drops)
        });
    }

    /// Not needed, and the kernel asks only once: there is nothing that only a close would tell us.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        contain(|| answer::done(reply, self.home.release(handle(fh))));
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        contain(|| answer::done(reply, self.home.fsync(handle(fh))));
    }

    /// A directory is read without being opened, and the kernel that knows how asks only once.
    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer::opened_dir(reply, self.agreed);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.listing(ino, offset, |done| answer::entries(reply, done));
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.listing(ino, offset, |done| answer::entries_plus(reply, done));
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        contain(|| answer::done(reply, self.home.fsync_dir()));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        contain(|| answer::space(reply, self.home.room()));
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.set_xattr(request, node(ino), name, (value, flags), reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = || self.home.xattr(node(ino), name.as_bytes());
        contain(|| answer::sized(reply, size, value()));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        contain(|| answer::names(reply, size, self.home.xattrs(node(ino))));
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.action(reply, move |home| home.remove_xattr(node(ino), &name));
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.allocating(length, reply, move |home| {
            home.fallocate(handle(fh), offset, length, mode.cast_unsigned())
        });
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Ok(from) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let find = || match whence {
            libc::SEEK_DATA => self.home.seek(handle(fh), from, false),
            libc::SEEK_HOLE => self.home.seek(handle(fh), from, true),
            _ => Err(FsError::Invalid),
        };
        contain(|| answer::offset(reply, find()));
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let from = (handle(fh_in), offset_in);
        let to = (handle(fh_out), offset_out);
        self.copying(len, reply, move |home| home.copy_range(from, to, len));
    }
}
