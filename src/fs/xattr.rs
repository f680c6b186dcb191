//! Extended attributes: those of the `user.` namespace, and ACLs (`acl`). Capabilities and security labels are
//! refused as a disk without them does, which programs cope with.

use super::acl::AclKind;
use super::{FsError, Home, Stop};
use crate::tree::NodeId;

/// The longest name of an attribute that Linux takes.
const LONGEST_NAME: usize = 255;

/// Tells where a file is. It is not stored, and nobody sets it.
const STATE: &[u8] = b"user.roamhome.state";

/// What setting an attribute expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    /// Nothing.
    Any,
    /// That it is not there.
    Create,
    /// That it is there.
    Replace,
}

impl Home {
    /// The value of an attribute.
    pub fn xattr(&self, id: NodeId, name: &[u8]) -> Result<Vec<u8>, FsError> {
        if let Some(kind) = AclKind::of(name) {
            return self.acl(id, kind);
        }
        check_name(name)?;
        if name == STATE {
            return self.state(id);
        }
        let value = self
            .replica
            .view(|view| Ok::<_, FsError>(view.xattr(id, name)?))?;
        value.ok_or(FsError::NoAttribute)
    }

    /// The words for where a file is, with commas between them.
    fn state(&self, id: NodeId) -> Result<Vec<u8>, FsError> {
        self.replica.view(|view| {
            let node = view.node(id)?.ok_or_else(|| self.gone(id))?;
            let residence = view.residence(&node, self.replica.content())?;
            let mut words = residence.word().to_owned();
            if view.is_pinned(id)? {
                words.push_str(",pinned");
            }
            Ok(words.into_bytes())
        })
    }

    /// The names of all attributes but that which is not stored: programs that copy attributes leave it alone.
    pub fn xattrs(&self, id: NodeId) -> Result<Vec<Vec<u8>>, FsError> {
        let all = self
            .replica
            .view(|view| Ok::<_, FsError>(view.xattrs(id)?))?;
        Ok(all.into_iter().map(|(name, _)| name).collect())
    }

    /// Sets an attribute; an ACL is set by [`Home::set_acl`].
    pub fn set_xattr(
        &self,
        id: NodeId,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), Stop> {
        check_stored(name)?;
        self.put_xattr(id, name, |is_there| match (mode, is_there) {
            (XattrMode::Create, true) => Err(FsError::Exists),
            (XattrMode::Replace, false) => Err(FsError::NoAttribute),
            _ => Ok(Some(value.to_vec())),
        })
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, id: NodeId, name: &[u8]) -> Result<(), Stop> {
        if let Some(kind) = AclKind::of(name) {
            return self.remove_acl(id, kind);
        }
        check_stored(name)?;
        self.put_xattr(id, name, |is_there| match is_there {
            true => Ok(None),
            false => Err(FsError::NoAttribute),
        })
    }

    fn put_xattr(
        &self,
        id: NodeId,
        name: &[u8],
        value: impl FnOnce(bool) -> Result<Option<Vec<u8>>, FsError>,
    ) -> Result<(), Stop> {
        self.change(|change| {
            let mut node = change.node(id)?;
            let is_there = change.tx.xattr(id, name)?.is_some();
            change.tx.set_xattr(id, name, value(is_there)?)?;
            node.ctime = change.now;
            change.mark_all(&node)?;
            Ok(change.tx.put_node(node)?)
        })
    }
}

fn check_stored(name: &[u8]) -> Result<(), FsError> {
    match name == STATE {
        true => Err(FsError::NotPermitted),
        false => check_name(name),
    }
}

fn check_name(name: &[u8]) -> Result<(), FsError> {
    match name.strip_prefix(b"user.") {
        Some([]) => Err(FsError::Invalid),
        Some(_) if name.len() > LONGEST_NAME => Err(FsError::Invalid),
        Some(_) => Ok(()),
        None => Err(FsError::NotSupported),
    }
}
