//! What a client asks.

use bytes::Bytes;

use super::codec::{Decoder, Encoder};
use super::{Attrs, Frame, PROTOCOL_VERSION, WireError};

const INIT: u8 = 1;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const RENAME: u8 = 18;
const READLINK: u8 = 19;
const SYMLINK: u8 = 20;
const EXTENDED: u8 = 200;

/// A request. Paths and handles are the server's, as they go over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Open {
        path: Bytes,
        flags: u32,
        attrs: Attrs,
    },
    Close(Bytes),
    Read {
        handle: Bytes,
        offset: u64,
        len: u32,
    },
    Write {
        handle: Bytes,
        offset: u64,
        data: Bytes,
    },
    Lstat(Bytes),
    Fstat(Bytes),
    Setstat(Bytes, Attrs),
    Fsetstat(Bytes, Attrs),
    Opendir(Bytes),
    Readdir(Bytes),
    Remove(Bytes),
    Mkdir(Bytes, Attrs),
    Rmdir(Bytes),
    Realpath(Bytes),
    Stat(Bytes),
    Rename {
        from: Bytes,
        to: Bytes,
    },
    Readlink(Bytes),
    /// OpenSSH sends and expects the target first, against the standard, and everybody follows it.
    Symlink {
        target: Bytes,
        link: Bytes,
    },
    Extended(Extended),
}

/// A request by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extended {
    PosixRename {
        from: Bytes,
        to: Bytes,
    },
    Hardlink {
        from: Bytes,
        to: Bytes,
    },
    Fsync(Bytes),
    Lsetstat(Bytes, Attrs),
    Statvfs(Bytes),
    Limits,
    CopyData {
        from: Bytes,
        from_offset: u64,
        len: u64,
        to: Bytes,
        to_offset: u64,
    },
    /// One that is not spoken here.
    Other(Bytes),
}

/// Open for reading.
pub(crate) const OPEN_READ: u32 = 0x01;
/// Open for writing.
pub(crate) const OPEN_WRITE: u32 = 0x02;
/// Create the file if it is not there.
pub(crate) const OPEN_CREATE: u32 = 0x08;
/// Empty the file.
pub(crate) const OPEN_TRUNCATE: u32 = 0x10;
/// Fail if the file is there.
pub(crate) const OPEN_EXCLUSIVE: u32 = 0x20;

/// The client's first packet.
pub(crate) fn init() -> Frame {
    Encoder::new(INIT).u32(PROTOCOL_VERSION).finish()
}

/// Reads a client's first packet: the version it speaks.
pub(crate) fn decode_init(packet: Bytes) -> Result<u32, WireError> {
    let mut from = Decoder(packet);
    match from.u8()? {
        INIT => from.u32(),
        other => Err(WireError::Type(other)),
    }
}

impl Request {
    /// The packet that asks this under the number `id`.
    pub(crate) fn encode(&self, id: u32) -> Frame {
        let start = |kind| Encoder::new(kind).u32(id);
        let named = |kind, name: &Bytes| start(kind).string(name);
        match self {
            Self::Open { path, flags, attrs } => attrs.encode(named(OPEN, path).u32(*flags)),
            Self::Close(handle) => named(CLOSE, handle),
            Self::Read {
                handle,
                offset,
                len,
            } => named(READ, handle).u64(*offset).u32(*len),
            Self::Write {
                handle,
                offset,
                data,
            } => {
                let to = named(WRITE, handle).u64(*offset).u32(data.len() as u32);
                return to.finish_with(data.clone());
            }
            Self::Lstat(path) => named(LSTAT, path),
            Self::Fstat(handle) => named(FSTAT, handle),
            Self::Setstat(path, attrs) => attrs.encode(named(SETSTAT, path)),
            Self::Fsetstat(handle, attrs) => attrs.encode(named(FSETSTAT, handle)),
            Self::Opendir(path) => named(OPENDIR, path),
            Self::Readdir(handle) => named(READDIR, handle),
            Self::Remove(path) => named(REMOVE, path),
            Self::Mkdir(path, attrs) => attrs.encode(named(MKDIR, path)),
            Self::Rmdir(path) => named(RMDIR, path),
            Self::Realpath(path) => named(REALPATH, path),
            Self::Stat(path) => named(STAT, path),
            Self::Rename { from, to } => named(RENAME, from).string(to),
            Self::Readlink(path) => named(READLINK, path),
            Self::Symlink { target, link } => named(SYMLINK, target).string(link),
            Self::Extended(extended) => extended.encode(start(EXTENDED)),
        }
        .finish()
    }

    /// Reads a packet without its length: the request's id and the request.
    pub(crate) fn decode(packet: Bytes) -> Result<(u32, Self), WireError> {
        let mut from = Decoder(packet);
        let kind = from.u8()?;
        let id = from.u32()?;
        let first = from.string()?;
        let request = match kind {
            OPEN => Self::Open {
                path: first,
                flags: from.u32()?,
                attrs: Attrs::decode(&mut from)?,
            },
            CLOSE => Self::Close(first),
            READ => Self::Read {
                handle: first,
                offset: from.u64()?,
                len: from.u32()?,
            },
            WRITE => Self::Write {
                handle: first,
                offset: from.u64()?,
                data: from.string()?,
            },
            LSTAT => Self::Lstat(first),
            FSTAT => Self::Fstat(first),
            SETSTAT => Self::Setstat(first, Attrs::decode(&mut from)?),
            FSETSTAT => Self::Fsetstat(first, Attrs::decode(&mut from)?),
            OPENDIR => Self::Opendir(first),
            READDIR => Self::Readdir(first),
            REMOVE => Self::Remove(first),
            MKDIR => Self::Mkdir(first, Attrs::decode(&mut from)?),
            RMDIR => Self::Rmdir(first),
            REALPATH => Self::Realpath(first),
            STAT => Self::Stat(first),
            RENAME => Self::Rename {
                from: first,
                to: from.string()?,
            },
            READLINK => Self::Readlink(first),
            SYMLINK => Self::Symlink {
                target: first,
                link: from.string()?,
            },
            EXTENDED => Self::Extended(Extended::decode(first, &mut from)?),
            other => return Err(WireError::Type(other)),
        };
        Ok((id, request))
    }
}

/// The names that servers announce these requests by, and the versions spoken here.
pub(crate) mod extension {
    pub(crate) const POSIX_RENAME: (&[u8], &[u8]) = (b"posix-rename@openssh.com", b"1");
    pub(crate) const HARDLINK: (&[u8], &[u8]) = (b"hardlink@openssh.com", b"1");
    pub(crate) const FSYNC: (&[u8], &[u8]) = (b"fsync@openssh.com", b"1");
    pub(crate) const LSETSTAT: (&[u8], &[u8]) = (b"lsetstat@openssh.com", b"1");
    pub(crate) const STATVFS: (&[u8], &[u8]) = (b"statvfs@openssh.com", b"2");
    pub(crate) const LIMITS: (&[u8], &[u8]) = (b"limits@openssh.com", b"1");
    pub(crate) const COPY_DATA: (&[u8], &[u8]) = (b"copy-data", b"1");
}

use extension::{COPY_DATA, FSYNC, HARDLINK, LIMITS, LSETSTAT, POSIX_RENAME, STATVFS};

impl Extended {
    fn encode(&self, to: Encoder) -> Encoder {
        match self {
            Self::PosixRename { from, to: new } => {
                to.string(POSIX_RENAME.0).string(from).string(new)
            }
            Self::Hardlink { from, to: new } => to.string(HARDLINK.0).string(from).string(new),
            Self::Fsync(handle) => to.string(FSYNC.0).string(handle),
            Self::Lsetstat(path, attrs) => attrs.encode(to.string(LSETSTAT.0).string(path)),
            Self::Statvfs(path) => to.string(STATVFS.0).string(path),
            Self::Limits => to.string(LIMITS.0),
            Self::CopyData {
                from,
                from_offset,
                len,
                to: into,
                to_offset,
            } => to
                .string(COPY_DATA.0)
                .string(from)
                .u64(*from_offset)
                .u64(*len)
                .string(into)
                .u64(*to_offset),
            Self::Other(name) => to.string(name),
        }
    }

    fn decode(name: Bytes, from: &mut Decoder) -> Result<Self, WireError> {
        let known = |extension: (&[u8], &[u8])| name == extension.0;
        Ok(if known(POSIX_RENAME) {
            Self::PosixRename {
                from: from.string()?,
                to: from.string()?,
            }
        } else if known(HARDLINK) {
            Self::Hardlink {
                from: from.string()?,
                to: from.string()?,
            }
        } else if known(FSYNC) {
            Self::Fsync(from.string()?)
        } else if known(LSETSTAT) {
            Self::Lsetstat(from.string()?, Attrs::decode(from)?)
        } else if known(STATVFS) {
            Self::Statvfs(from.string()?)
        } else if known(LIMITS) {
            Self::Limits
        } else if known(COPY_DATA) {
            Self::CopyData {
                from: from.string()?,
                from_offset: from.u64()?,
                len: from.u64()?,
                to: from.string()?,
                to_offset: from.u64()?,
            }
        } else {
            Self::Other(name)
        })
    }
}
