//! The attributes of a file as version 3 has them.

use super::WireError;
use super::codec::{Decoder, Encoder};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// What is told or set; absent fields are not on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Attrs {
    /// In bytes.
    pub(crate) size: Option<u64>,
    /// User and group.
    pub(crate) owner: Option<(u32, u32)>,
    /// `st_mode`: type and permission bits.
    pub(crate) permissions: Option<u32>,
    /// Access and modification time in seconds.
    pub(crate) times: Option<(u32, u32)>,
}

impl Attrs {
    pub(super) fn encode(&self, to: Encoder) -> Encoder {
        let flag = |present: bool, bit| if present { bit } else { 0 };
        let mut to = to.u32(
            flag(self.size.is_some(), SIZE)
                | flag(self.owner.is_some(), OWNER)
                | flag(self.permissions.is_some(), PERMISSIONS)
                | flag(self.times.is_some(), TIMES),
        );
        if let Some(size) = self.size {
            to = to.u64(size);
        }
        if let Some((uid, gid)) = self.owner {
            to = to.u32(uid).u32(gid);
        }
        if let Some(permissions) = self.permissions {
            to = to.u32(permissions);
        }
        if let Some((atime, mtime)) = self.times {
            to = to.u32(atime).u32(mtime);
        }
        to
    }

    pub(super) fn decode(from: &mut Decoder) -> Result<Self, WireError> {
        let flags = from.u32()?;
        let mut attrs = Self::default();
        if flags & SIZE != 0 {
            attrs.size = Some(from.u64()?);
        }
        if flags & OWNER != 0 {
            attrs.owner = Some((from.u32()?, from.u32()?));
        }
        if flags & PERMISSIONS != 0 {
            attrs.permissions = Some(from.u32()?);
        }
        if flags & TIMES != 0 {
            attrs.times = Some((from.u32()?, from.u32()?));
        }
        if flags & EXTENDED != 0 {
            // Each pair takes at least its two lengths, so a lying count ends with the packet.
            for _ in 0..from.u32()? {
                from.string()?;
                from.string()?;
            }
        }
        Ok(attrs)
    }
}
