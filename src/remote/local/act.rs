//! What is done in a directory of this machine, as OpenSSH's server does it.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use bytes::Bytes;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps, renameat_with, utimensat};
use rustix::io::Errno;

use crate::remote::wire::MAX_DATA;
use crate::remote::{DirEntry, SetStat, Stat};
use crate::tree::{Kind, Name};

pub(super) fn stat(meta: &Metadata) -> Stat {
    let kind = meta.file_type();
    Stat {
        kind: if kind.is_file() {
            Kind::File
        } else if kind.is_dir() {
            Kind::Dir
        } else if kind.is_symlink() {
            Kind::Symlink
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_socket() {
            Kind::Socket
        } else {
            Kind::Other
        },
        size: meta.size(),
        mtime: meta.mtime(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    }
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

pub(super) fn set_file(file: &File, set: SetStat) -> io::Result<()> {
    if let Some(size) = set.size {
        file.set_len(size)?;
    }
    if let Some(mode) = set.mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    if let Some(mtime) = set.mtime {
        rustix::fs::futimens(file, &times(mtime))?;
    }
    Ok(())
}

pub(super) fn set_path(path: &Path, set: SetStat, flags: AtFlags) -> io::Result<()> {
    if let Some(size) = set.size {
        OpenOptions::new().write(true).open(path)?.set_len(size)?;
    }
    if let Some(mode) = set.mode {
        let follow = match flags.contains(AtFlags::SYMLINK_NOFOLLOW) {
            true => FchmodatFlags::NoFollowSymlink,
            false => FchmodatFlags::FollowSymlink,
        };
        // The C library's: the system call alone cannot leave links alone, and rustix refuses then.
        fchmodat(CWD, path, Mode::from_bits_truncate(mode), follow)?;
    }
    if let Some(mtime) = set.mtime {
        utimensat(CWD, path, &times(mtime), flags)?;
    }
    Ok(())
}

pub(super) fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // What vanishes while we look is not there.
        let (Ok(meta), Ok(name)) = (entry.metadata(), Name::new(entry.file_name().as_bytes()))
        else {
            continue;
        };
        entries.push(DirEntry {
            name,
            links: u32::try_from(meta.nlink()).ok(),
            stat: stat(&meta),
        });
    }
    Ok(entries)
}

/// `SSH_FXP_RENAME`: nothing is replaced.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot do it at once.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename_by_link(from, to),
        done => Ok(done?),
    }
}

/// The same as OpenSSH does it: link and unlink for files; for what cannot be linked, a look first.
fn rename_by_link(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_file() {
        let linked = fs::hard_link(from, to);
        let refusal = linked.as_ref().err().and_then(Errno::from_io_error);
        match refusal {
            Some(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK) => {}
            _ => return linked.and_then(|()| fs::remove_file(from)),
        }
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(Errno::EXIST.into()),
        Err(_) => fs::rename(from, to),
    }
}

pub(super) fn read(file: &File, offset: u64, len: u32) -> io::Result<Bytes> {
    let mut data = vec![0; len.min(MAX_DATA) as usize];
    let read = file.read_at(&mut data, offset)?;
    data.truncate(read);
    Ok(data.into())
}

pub(super) fn copy(
    from: &File,
    mut at: u64,
    len: u64,
    to: &File,
    mut to_at: u64,
) -> io::Result<()> {
    // As in OpenSSH, 0 means up to the end.
    let mut left = if len == 0 { u64::MAX } else { len };
    while left > 0 {
        let data = read(from, at, left.min(u64::from(MAX_DATA)) as u32)?;
        if data.is_empty() {
            break;
        }
        to.write_all_at(&data, to_at)?;
        let copied = data.len() as u64;
        at += copied;
        to_at += copied;
        left -= copied;
    }
    Ok(())
}
