//! What a plain copy of a home keeps of an entry.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{fs::XattrFlags, io::Errno};

/// The largest that Linux has of an attribute, and of a list of their names.
const XATTR_MAX: usize = 64 << 10;

/// Attributes that a home can have: those of users, and access control lists.
const KEPT_XATTRS: [&[u8]; 2] = [b"user.", b"system.posix_acl_"];

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Link,
    Pipe,
    /// Without the program that listens there it is of no use.
    Socket,
    Other,
}

/// What is compared of an entry, content aside.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) mtime: (i64, i64),
    target: OsString,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(super) fn kind_of(meta: &Metadata) -> Kind {
    let kind = meta.file_type();
    match kind {
        _ if kind.is_file() => Kind::File,
        _ if kind.is_dir() => Kind::Dir,
        _ if kind.is_symlink() => Kind::Link,
        _ if kind.is_fifo() => Kind::Pipe,
        _ if kind.is_socket() => Kind::Socket,
        _ => Kind::Other,
    }
}

impl Entry {
    pub(super) fn look(path: &Path) -> io::Result<Self> {
        let meta = path.symlink_metadata()?;
        let kind = kind_of(&meta);
        let link = kind == Kind::Link;
        Ok(Self {
            kind,
            mode: if link { 0 } else { meta.mode() & 0o7777 },
            size: if kind == Kind::File { meta.len() } else { 0 },
            // That of a link can be set nowhere but here, and means nothing.
            mtime: if link {
                (0, 0)
            } else {
                (meta.mtime(), meta.mtime_nsec())
            },
            target: match link {
                true => fs::read_link(path)?.into_os_string(),
                false => OsString::new(),
            },
            xattrs: match kind {
                Kind::File | Kind::Dir => xattrs(path)?,
                _ => Vec::new(),
            },
        })
    }
}

fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; XATTR_MAX];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        len => len?,
    };
    let mut all = Vec::new();
    let names = names[..len].split(|byte| *byte == 0);
    for name in names.filter(|name| KEPT_XATTRS.iter().any(|kept| name.starts_with(kept))) {
        let mut value = vec![0; XATTR_MAX];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        all.push((name.to_vec(), value));
    }
    all.sort();
    Ok(all)
}

/// Gives `path` the attributes that `wanted` has, and no others.
pub(super) fn set_xattrs(path: &Path, wanted: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
    for (name, _) in xattrs(path)? {
        if !wanted.iter().any(|(kept, _)| *kept == name) {
            rustix::fs::lremovexattr(path, &name[..])?;
        }
    }
    for (name, value) in wanted {
        rustix::fs::lsetxattr(path, &name[..], value, XattrFlags::empty())?;
    }
    Ok(())
}

/// The names in a directory, in order.
pub(super) fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name());
    }
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

/// The hash of a file's content.
pub(super) fn hash(path: &Path) -> io::Result<blake3::Hash> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            read => hasher.update(&buffer[..read]),
        };
    }
}

/// A path beside `path`, whose name is longer by `more`.
pub(super) fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.extend(more.as_bytes());
    OsString::from_vec(name).into()
}
