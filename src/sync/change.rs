//! One side against the base: what happened there since both sides agreed.

use crate::tree::{BaseEntry, Kind, Version};

use super::LocalEntry;

/// What one side did to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing.
    Same,
    /// There was nothing, now there is something.
    Created,
    /// Other content of the same kind.
    Modified,
    /// Other permission bits or, with the same content, another mtime.
    Attributes,
    /// Nothing is left.
    Removed,
    /// Something of another kind stands there.
    KindChanged,
}

impl Change {
    /// Whether content is new: something could be lost if the other side won.
    pub fn brings_content(self) -> bool {
        matches!(self, Self::Created | Self::Modified | Self::KindChanged)
    }
}

/// What the server did.
pub fn remote_change(base: Option<&BaseEntry>, remote: Option<&Version>) -> Change {
    match (base.map(|base| &base.version), remote) {
        (None, None) => Change::Same,
        (None, Some(_)) => Change::Created,
        (Some(_), None) => Change::Removed,
        (Some(base), Some(remote)) if base.kind != remote.kind => Change::KindChanged,
        (Some(base), Some(remote)) if base.same(remote) => Change::Same,
        (Some(base), Some(remote)) if base.same_content(remote) => Change::Attributes,
        // A directory differs in its permission bits only.
        (Some(_), Some(remote)) if remote.kind == Kind::Dir => Change::Attributes,
        (Some(_), Some(_)) => Change::Modified,
    }
}

/// What this machine did.
pub fn local_change(base: Option<&BaseEntry>, local: Option<&LocalEntry>) -> Change {
    match (base, local) {
        (None, None) => Change::Same,
        (None, Some(_)) => Change::Created,
        (Some(_), None) => Change::Removed,
        (Some(base), Some(local)) => match (base.version.kind, local.version.kind) {
            (a, b) if a != b => Change::KindChanged,
            (Kind::File, _) => file_change(base, local),
            (Kind::Symlink, _) if base.node != local.node => Change::Modified,
            (Kind::Symlink, _) if base.version.target != local.version.target => Change::Modified,
            _ if base.version.mode != local.version.mode => Change::Attributes,
            _ => Change::Same,
        },
    }
}

fn file_change(base: &BaseEntry, local: &LocalEntry) -> Change {
    let (old, new) = (&base.version, &local.version);
    if local.data_changed || base.node != local.node || !may_hold_same_data(old, new) {
        Change::Modified
    } else if old.mode != new.mode || old.mtime != new.mtime {
        Change::Attributes
    } else {
        Change::Same
    }
}

/// Whether nothing shows that the two differ in content, mtime aside.
pub(super) fn may_hold_same_data(a: &Version, b: &Version) -> bool {
    a.kind == b.kind
        && a.size == b.size
        && a.target == b.target
        && match (a.hash, b.hash) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        }
}

/// Whether hashes or, where neither is known, mtimes say that the two have the same content.
pub fn surely_same_data(a: &Version, b: &Version) -> bool {
    may_hold_same_data(a, b)
        && match (a.hash, b.hash) {
            (Some(a), Some(b)) => a == b,
            (None, None) => a.mtime == b.mtime,
            _ => false,
        }
}

#[cfg(test)]
mod tests;
