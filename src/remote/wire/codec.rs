//! The primitive values of the protocol: big-endian integers and length-prefixed strings.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why some bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// A value extends beyond the packet's end.
    #[error("a packet ends in the middle of a value")]
    Truncated,
    /// A list claims more entries than its packet can hold.
    #[error("a list claims more entries than its packet can hold")]
    Count,
    /// A packet of a type that does not belong here.
    #[error("a packet of unexpected type {0}")]
    Type(u8),
}

/// Takes values off the front of a packet. Strings are slices of the packet, not copies.
pub(super) struct Decoder(pub(super) Bytes);

impl Decoder {
    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.0.try_get_u8().map_err(|_| WireError::Truncated)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.0.try_get_u32().map_err(|_| WireError::Truncated)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.0.try_get_u64().map_err(|_| WireError::Truncated)
    }

    pub(super) fn string(&mut self) -> Result<Bytes, WireError> {
        let len = self.u32()? as usize;
        if len > self.0.len() {
            return Err(WireError::Truncated);
        }
        Ok(self.0.split_to(len))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn remaining(&self) -> usize {
        self.0.len()
    }
}

/// An encoded packet with its length in front. `body` is the data of a read or write, kept apart so that
/// it is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Length, type, id and all fields.
    pub(crate) head: Bytes,
    /// The rest of the packet, often empty.
    pub(crate) body: Bytes,
}

impl Frame {
    /// The packet without its length, in one piece.
    #[cfg(test)]
    pub(crate) fn packet(&self) -> Bytes {
        let mut packet = BytesMut::from(&self.head[4..]);
        packet.extend_from_slice(&self.body);
        packet.freeze()
    }
}

/// Builds a packet.
pub(super) struct Encoder(BytesMut);

impl Encoder {
    /// Starts a packet of type `kind`.
    pub(super) fn new(kind: u8) -> Self {
        let mut buf = BytesMut::with_capacity(128);
        buf.put_u32(0);
        buf.put_u8(kind);
        Self(buf)
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.put_u32(value);
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.put_u64(value);
        self
    }

    pub(super) fn string(mut self, bytes: &[u8]) -> Self {
        self.0.put_u32(bytes.len() as u32);
        self.0.put_slice(bytes);
        self
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.put_slice(bytes);
        self
    }

    pub(super) fn finish(self) -> Frame {
        self.finish_with(Bytes::new())
    }

    /// Ends the packet with `body`, whose length the caller has written where it belongs.
    pub(super) fn finish_with(mut self, body: Bytes) -> Frame {
        let len = (self.0.len() - 4 + body.len()) as u32;
        self.0[..4].copy_from_slice(&len.to_be_bytes());
        Frame {
            head: self.0.freeze(),
            body,
        }
    }
}
