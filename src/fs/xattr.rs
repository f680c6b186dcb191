//! Extended attributes: those of the `user.` namespace. ACLs, capabilities and security labels are refused
//! as a disk without them does, which programs cope with.

use super::{FsError, Home, Stop};
use crate::tree::NodeId;

/// The longest name of an attribute that Linux takes.
const LONGEST_NAME: usize = 255;

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
        check_name(name)?;
        let value = self
            .replica
            .view(|view| Ok::<_, FsError>(view.xattr(id, name)?))?;
        value.ok_or(FsError::NoAttribute)
    }

    /// The names of all attributes.
    pub fn xattrs(&self, id: NodeId) -> Result<Vec<Vec<u8>>, FsError> {
        let all = self
            .replica
            .view(|view| Ok::<_, FsError>(view.xattrs(id)?))?;
        Ok(all.into_iter().map(|(name, _)| name).collect())
    }

    /// Sets an attribute.
    pub fn set_xattr(
        &self,
        id: NodeId,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), Stop> {
        check_name(name)?;
        self.put_xattr(id, name, |is_there| match (mode, is_there) {
            (XattrMode::Create, true) => Err(FsError::Exists),
            (XattrMode::Replace, false) => Err(FsError::NoAttribute),
            _ => Ok(Some(value.to_vec())),
        })
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, id: NodeId, name: &[u8]) -> Result<(), Stop> {
        check_name(name)?;
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

fn check_name(name: &[u8]) -> Result<(), FsError> {
    match name.strip_prefix(b"user.") {
        Some([]) => Err(FsError::Invalid),
        Some(_) if name.len() > LONGEST_NAME => Err(FsError::Invalid),
        Some(_) => Ok(()),
        None => Err(FsError::NotSupported),
    }
}
