//! How a content is put together from an old one, piece by piece.

use std::collections::HashMap;

use crate::remote::Part;
use crate::replica::{Chunk, Chunks};
use crate::tree::Hash;

/// Makes parts of pieces as they come.
pub(super) struct Matcher<'a> {
    old: &'a Chunks,
    by_hash: HashMap<(Hash, u32), usize>,
    starts: Vec<u64>,
    /// The piece of the old one behind the last that was found there.
    expected: usize,
    /// What goes on with the next piece, maybe.
    part: Part,
    has_found: bool,
    cuts_alike: bool,
}

impl<'a> Matcher<'a> {
    /// For a content that is cut into pieces of this mean length.
    pub(super) fn new(old: &'a Chunks, average: Option<u32>) -> Self {
        let mut by_hash = HashMap::new();
        let mut starts = Vec::with_capacity(old.list.len());
        let mut start = 0;
        for (n, chunk) in old.list.iter().enumerate() {
            by_hash.entry((chunk.hash, chunk.len)).or_insert(n);
            starts.push(start);
            start += u64::from(chunk.len);
        }
        Self {
            old,
            by_hash,
            starts,
            expected: 0,
            part: Part::whole(0),
            has_found: false,
            cuts_alike: average == Some(old.average),
        }
    }

    /// The next piece; tells the part that ended before it.
    pub(super) fn add(&mut self, chunk: &Chunk) -> Option<Part> {
        // Where the one before was goes on, if it does: few ranges are few requests.
        let goes_on = self.old.list.get(self.expected) == Some(chunk);
        let found = match goes_on {
            true => Some(self.expected),
            false => self.by_hash.get(&(chunk.hash, chunk.len)).copied(),
        };
        self.has_found |= found.is_some();
        self.expected = found.map_or(self.expected, |n| n + 1);
        let from = found.map(|n| self.starts[n]);
        if self.part.from.map(|from| from + self.part.len) == from {
            self.part.len += u64::from(chunk.len);
            return None;
        }
        let ended = self.end();
        self.part.len = chunk.len.into();
        self.part.from = from;
        ended
    }

    /// What has come together so far, if anything; what follows is another part.
    pub(super) fn end(&mut self) -> Option<Part> {
        let ended = self.part;
        self.part = Part {
            offset: ended.offset + ended.len,
            len: 0,
            from: ended.from.map(|from| from + ended.len),
        };
        (ended.len > 0).then_some(ended)
    }

    /// Whether any piece is in the old one.
    pub(super) fn has_found(&self) -> bool {
        self.has_found
    }

    /// What is likely to be the next piece. The last one of the old content ended with it, not where it says so.
    pub(super) fn likely(&self) -> Option<Chunk> {
        let is_last = self.expected + 1 >= self.old.list.len();
        let next = self.old.list.get(self.expected).copied();
        next.filter(|_| self.cuts_alike && !is_last)
    }

    /// How long the part is that goes on.
    pub(super) fn pending(&self) -> u64 {
        self.part.len
    }
}
