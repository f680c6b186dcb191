//! Every content that there ever was, and what became of it.

use crate::support::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// The bytes of a file. No two contents of a simulation have the same length, so the length names a content.
pub(crate) type Content = Vec<u8>;

const LONGEST: usize = 4000;

/// Every content that was ever closed or written on the server.
#[derive(Default)]
pub(crate) struct History {
    /// By length. A content that was begun counts from its close.
    pub(crate) contents: BTreeMap<usize, Content>,
    pub(crate) closed: BTreeSet<usize>,
    /// Replaced or removed by somebody who saw it and had no other copy of it in sight, or not synced by a program
    /// when the only disk that had it lost its power.
    pub(crate) given_up: BTreeSet<usize>,
    /// Those of which a loss of power may have left half.
    torn: BTreeSet<usize>,
    lengths: Vec<usize>,
}

impl History {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut lengths: Vec<usize> = (1..LONGEST).collect();
        for i in (1..lengths.len()).rev() {
            lengths.swap(i, rng.below(i as u64 + 1) as usize);
        }
        Self {
            lengths,
            ..Self::default()
        }
    }

    /// A length of which there is no content yet.
    fn take(&mut self, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let at = self.lengths.iter().rposition(|length| fits(*length))?;
        Some(self.lengths.swap_remove(at))
    }

    fn add(&mut self, content: Content) -> Content {
        let known = self.contents.insert(content.len(), content.clone());
        assert!(known.is_none());
        content
    }

    /// A content that begins like `old` and is not equal to it.
    pub(crate) fn begin_with(
        &mut self,
        old: &[u8],
        fits: impl Fn(usize) -> bool,
    ) -> Option<Content> {
        let length = self.take(fits)?;
        let mut content = old[..old.len().min(length)].to_vec();
        content.resize(length, (length % 250 + 1) as u8);
        Some(self.add(content))
    }

    /// The contents that must be somewhere.
    pub(crate) fn must_be(&self) -> impl Iterator<Item = &Content> {
        let lengths = self.closed.difference(&self.given_up);
        lengths.filter_map(|length| self.contents.get(length))
    }

    /// A loss of power may have left half of it.
    pub(crate) fn tear(&mut self, length: usize) {
        self.torn.insert(length);
    }

    /// Whether this is all of what somebody wrote.
    pub(crate) fn is_whole(&self, content: &[u8]) -> bool {
        content.is_empty() || self.contents.get(&content.len()).map(Vec::as_slice) == Some(content)
    }

    /// Whether somebody wrote this.
    pub(crate) fn knows(&self, content: &[u8]) -> bool {
        let torn = |known: &Content| {
            let mut bytes = content.iter().zip(known);
            self.torn.contains(&content.len()) && bytes.all(|(is, was)| is == was || *is == 0)
        };
        self.is_whole(content) || self.contents.get(&content.len()).is_some_and(torn)
    }
}
