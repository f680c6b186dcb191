//! The hash of what arrives nearly in order.

use crate::replica::{Chunks, Digest};
use crate::tree::Hash;

/// Reads blocks that arrive in any order but nearly sorted; gives up rather than keep much in memory.
pub(super) struct InOrder {
    digest: Digest,
    pub(super) done: u64,
    early: std::collections::BTreeMap<u64, bytes::Bytes>,
    early_bytes: usize,
    given_up: bool,
}

/// The most that may wait for an earlier block, in bytes.
const EARLY_MAX: usize = 64 << 20;

impl InOrder {
    pub(super) fn new(digest: Digest, done: u64) -> Self {
        Self {
            digest,
            done,
            early: std::collections::BTreeMap::new(),
            early_bytes: 0,
            given_up: false,
        }
    }

    pub(super) fn add(&mut self, offset: u64, data: bytes::Bytes) {
        if self.given_up {
            return;
        }
        self.early_bytes += data.len();
        self.early.insert(offset, data);
        while let Some(data) = self.early.remove(&self.done) {
            self.early_bytes -= data.len();
            self.done += data.len() as u64;
            self.digest.add(&data);
        }
        if self.early_bytes > EARLY_MAX {
            self.given_up = true;
            self.early.clear();
        }
    }

    pub(super) fn so_far(&self) -> (u64, Hash) {
        self.digest.so_far()
    }

    pub(super) fn finish(self, size: u64) -> (Option<Hash>, Option<Chunks>) {
        if self.given_up || self.done != size {
            return (None, None);
        }
        let digested = self.digest.finish();
        (Some(digested.hash), digested.chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_any_order_give_the_hash_of_the_whole() {
        let content = || InOrder::new(Digest::new(None, 1 << 20), 0);
        let mut all = content();
        all.add(3, bytes::Bytes::from_static(b"defg"));
        all.add(0, bytes::Bytes::from_static(b"abc"));
        let hash = Hash(*blake3::hash(b"abcdefg").as_bytes());
        assert_eq!(all.finish(7), (Some(hash), None));
        let mut gap = content();
        gap.add(1, bytes::Bytes::from_static(b"x"));
        assert_eq!(gap.finish(2), (None, None));
    }
}
