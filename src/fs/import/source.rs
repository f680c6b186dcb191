//! One entry of a directory of the disk, read without changing it: not even when it was last looked at, where that can
//! be helped.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

use super::{AclKind, Home, Stop};
use crate::replica::{ReplicaError, StagingFile};
use crate::tree::{Acl, Kind};

/// How often a file is read again that changes while it is read.
const MOST_READS: u32 = 4;

/// Names of attributes that are ours: where content stood, and where it is.
const OWN_XATTRS: &[u8] = b"user.roamhome.";

/// An entry.
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) meta: Metadata,
    /// Where a symlink points.
    pub(super) target: Vec<u8>,
    /// Those that a home can have, by name.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) has_acl: bool,
}

impl Source {
    /// The entry at `path`, whatever it is.
    pub(super) fn look(path: &Path) -> io::Result<Self> {
        let meta = path.symlink_metadata()?;
        let kind = meta.file_type();
        let kind = match kind {
            _ if kind.is_file() => Kind::File,
            _ if kind.is_dir() => Kind::Dir,
            _ if kind.is_symlink() => Kind::Symlink,
            _ if kind.is_fifo() => Kind::Fifo,
            _ if kind.is_socket() => Kind::Socket,
            _ => Kind::Other,
        };
        let target = match kind {
            Kind::Symlink => path.read_link()?.into_os_string().into_vec(),
            _ => Vec::new(),
        };
        let mut source = Self {
            kind,
            meta,
            target,
            xattrs: Vec::new(),
            has_acl: false,
        };
        // Others have none that are a user's.
        if matches!(kind, Kind::File | Kind::Dir) {
            source.read_xattrs(path)?;
        }
        Ok(source)
    }

    fn read_xattrs(&mut self, path: &Path) -> io::Result<()> {
        let names = match sized(|buffer| rustix::fs::llistxattr(path, buffer)) {
            // A disk without attributes.
            Err(Errno::OPNOTSUPP) => return Ok(()),
            names => names?,
        };
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let is_acl = AclKind::of(name).is_some();
            let is_users = name.starts_with(b"user.") && !name.starts_with(OWN_XATTRS);
            if !is_acl && !is_users {
                continue;
            }
            match sized(|buffer| rustix::fs::lgetxattr(path, name, buffer)) {
                Ok(value) => {
                    if is_acl && Acl::parse(&value).map_err(io::Error::other)?.is_none() {
                        continue;
                    }
                    self.has_acl |= is_acl;
                    self.xattrs.push((name.to_vec(), value));
                }
                // It went meanwhile.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.xattrs.sort();
        Ok(())
    }

    /// Whether the entry is still what was read.
    fn is_like(&self, meta: &Metadata) -> bool {
        let told = |meta: &Metadata| {
            let times = (meta.mtime(), meta.mtime_nsec());
            (
                meta.ino(),
                meta.len(),
                times,
                meta.ctime(),
                meta.ctime_nsec(),
            )
        };
        told(&self.meta) == told(meta)
    }
}

/// Room for most attributes and their names, and for the largest that Linux has.
const ROOM: [usize; 2] = [256, 64 << 10];

/// What a call answers that needs to be told how much there is room for.
fn sized(
    mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    for room in ROOM {
        let mut buffer = vec![0; room];
        match call(&mut buffer) {
            Err(Errno::RANGE) => {}
            read => {
                buffer.truncate(read?);
                return Ok(buffer);
            }
        }
    }
    Err(Errno::RANGE)
}

/// Opens what is no link and waits for nobody.
fn open(path: &Path, more: OFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
    match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        // It is somebody else's.
        Err(Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    }
}

/// The names in a directory, in order.
pub(super) fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let dir = open(path, OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

/// Why a file could not be read.
pub(super) enum Unread {
    /// For people.
    Problem(String),
    /// Nothing else can be read either.
    Stop(Stop),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Problem(error.to_string())
    }
}

impl From<ReplicaError> for Unread {
    fn from(error: ReplicaError) -> Self {
        match error {
            // Of the copy that was being made of this file.
            ReplicaError::Io { source, .. } => source.into(),
            error => Self::Stop(error.into()),
        }
    }
}

impl Home {
    /// The file at `path` with a copy of its content; again if it changed meanwhile.
    pub(super) fn copy_in(&self, path: &Path) -> Result<(Source, Option<StagingFile>), Unread> {
        for _ in 0..MOST_READS {
            let source = Source::look(path)?;
            if source.kind != Kind::File {
                break;
            }
            let file = File::from(open(path, OFlags::empty()).map_err(io::Error::from)?);
            if !source.is_like(&file.metadata()?) {
                continue;
            }
            let copy = match source.meta.len() {
                0 => None,
                _ => Some(self.replica.content().copy_in(&file)?),
            };
            if source.is_like(&file.metadata()?) {
                return Ok((source, copy));
            }
        }
        let why = "a program changes it all the time: end the program, then do this again";
        Err(Unread::Problem(why.to_owned()))
    }
}
