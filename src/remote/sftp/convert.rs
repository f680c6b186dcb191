//! Between the wire's values and the port's.

use bytes::Bytes;

use crate::remote::wire::{Attrs, DEFAULT_DATA, MAX_DATA, NameEntry, Reply, Version, extension};
use crate::remote::{Features, SetStat, Stat};
use crate::tree::Kind;

/// Type bits of `st_mode`.
const S_IFMT: u32 = 0o170_000;
/// The longest that a file can be, on Linux and in the index. A server may tell of longer ones.
const SIZE_MAX: u64 = i64::MAX.cast_unsigned();
/// Below this a server's limit is taken for nonsense.
const MIN_DATA: u64 = 1024;

pub(super) fn names(reply: Reply) -> Result<Vec<NameEntry>, Reply> {
    match reply {
        Reply::Names(names) => Ok(names),
        other => Err(other),
    }
}

pub(super) fn attrs(reply: Reply) -> Result<Stat, Reply> {
    match reply {
        Reply::Attrs(attrs) => Ok(stat(&attrs)),
        other => Err(other),
    }
}

pub(super) fn extended(reply: Reply) -> Result<Bytes, Reply> {
    match reply {
        Reply::Extended(data) => Ok(data),
        other => Err(other),
    }
}

/// What is told about a file, with defaults for what is not.
pub(super) fn stat(attrs: &Attrs) -> Stat {
    let permissions = attrs.permissions.unwrap_or(0);
    let (uid, gid) = attrs.owner.unwrap_or((0, 0));
    Stat {
        kind: match permissions & S_IFMT {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Dir,
            0o120_000 => Kind::Symlink,
            0o010_000 => Kind::Fifo,
            0o140_000 => Kind::Socket,
            _ => Kind::Other,
        },
        size: attrs.size.unwrap_or(0).min(SIZE_MAX),
        mtime: attrs.times.map_or(0, |(_, mtime)| i64::from(mtime)),
        mode: permissions & 0o7777,
        uid,
        gid,
    }
}

pub(super) fn mode_attrs(mode: u32) -> Attrs {
    Attrs {
        permissions: Some(mode & 0o7777),
        ..Attrs::default()
    }
}

/// Times beyond the wire's 32 bits become the nearest one it can carry.
pub(super) fn set_attrs(set: SetStat) -> Attrs {
    let seconds = |t: i64| t.clamp(0, i64::from(u32::MAX)) as u32;
    Attrs {
        size: set.size,
        owner: None,
        permissions: set.mode.map(|mode| mode & 0o7777),
        times: set.mtime.map(|t| (seconds(t), seconds(t))),
    }
}

pub(super) fn offers(version: &Version, (name, number): (&[u8], &[u8])) -> bool {
    version.offers(name, number)
}

/// Whether this is ProFTPD, whose name may be hidden in the greeting of SSH. No other speaks OpenSSH's extensions and
/// lets its client choose among the versions of the drafts.
pub(super) fn is_proftpd(version: &Version) -> bool {
    let chooses = version
        .extensions
        .iter()
        .any(|(name, _)| name == "versions");
    chooses && offers(version, extension::POSIX_RENAME)
}

/// So much is shown of what a server offers.
const SHOWN_MAX: usize = 64;

/// What a server says that it offers, safe to be shown.
pub(super) fn offered(version: &Version) -> Vec<String> {
    let shown = |(name, number): &(Bytes, Bytes)| {
        let text = format!("{} {}", name.escape_ascii(), number.escape_ascii());
        text.chars().take(SHOWN_MAX).collect()
    };
    version
        .extensions
        .iter()
        .take(SHOWN_MAX)
        .map(shown)
        .collect()
}

pub(super) fn features(version: &Version) -> Features {
    Features {
        posix_rename: offers(version, extension::POSIX_RENAME),
        // One server offers it and answers that it is done, and does nothing. It does not offer the other.
        hardlink: offers(version, extension::HARDLINK) && offers(version, extension::FSYNC),
        fsync: offers(version, extension::FSYNC),
        lsetstat: offers(version, extension::LSETSTAT),
        statvfs: offers(version, extension::STATVFS),
        copy_data: offers(version, extension::COPY_DATA),
        max_read: DEFAULT_DATA,
        max_write: DEFAULT_DATA,
    }
}

/// A length that both sides can live with; 0 is a server that does not tell.
pub(super) fn data_limit(told: u64) -> u32 {
    match told {
        0 => DEFAULT_DATA,
        told => told.clamp(MIN_DATA, u64::from(MAX_DATA)) as u32,
    }
}
