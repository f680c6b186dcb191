//! Every content that there ever was, and what became of it.

use crate::support::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// The bytes of a file.
pub(crate) type Content = Vec<u8>;

/// What names a content: its length and, among the few that share one since a program wrote over the one with the
/// other, its number. What is only looked at shows its length alone.
pub(crate) type Id = (usize, usize);

/// How many files of each length somebody sees.
pub(crate) type Sight = BTreeMap<usize, usize>;

const LONGEST: usize = 4000;

/// The most contents of one length.
const MOST_ALIKE: usize = 6;

/// Every content that was ever closed or written on the server.
#[derive(Default)]
pub(crate) struct History {
    /// Those of a length in the order in which they were begun. A content counts from its close.
    contents: BTreeMap<usize, Vec<Content>>,
    closed: BTreeSet<Id>,
    /// Replaced or removed by somebody who saw it and had no other copy of it in sight, or not synced by a program
    /// when the only disk that had it lost its power.
    given_up: BTreeSet<Id>,
    /// Those of which a loss of power may have left half.
    torn: BTreeSet<Id>,
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

    /// A content that begins like `old` and is not equal to it, and has a length of its own.
    pub(crate) fn begin_with(
        &mut self,
        old: &[u8],
        fits: impl Fn(usize) -> bool,
    ) -> Option<Content> {
        let length = self.take(fits)?;
        let mut content = old[..old.len().min(length)].to_vec();
        content.resize(length, (length % 250 + 1) as u8);
        let known = self.contents.insert(length, vec![content.clone()]);
        assert!(known.is_none());
        Some(content)
    }

    /// A content of the same length as `old`, and like no other.
    pub(crate) fn begin_alike(&mut self, old: &[u8]) -> Option<Content> {
        let alike = self.contents.get_mut(&old.len())?;
        if alike.len() == MOST_ALIKE {
            return None;
        }
        // Contents of lengths of their own do not go on with such bytes.
        let content = vec![(250 + alike.len()) as u8; old.len()];
        alike.push(content.clone());
        Some(content)
    }

    /// Which content this is, if somebody wrote all of it.
    pub(crate) fn id(&self, content: &[u8]) -> Option<Id> {
        let alike = self.contents.get(&content.len())?;
        let number = alike.iter().position(|known| known == content)?;
        Some((content.len(), number))
    }

    /// All contents of a length.
    fn of_length(&self, length: usize) -> impl Iterator<Item = Id> + use<> {
        let count = self.contents.get(&length).map_or(0, Vec::len);
        (0..count).map(move |number| (length, number))
    }

    /// All contents that there ever were.
    pub(crate) fn all(&self) -> Vec<Id> {
        let lengths = self.contents.keys();
        lengths.flat_map(|length| self.of_length(*length)).collect()
    }

    /// It was closed: from now on it must be somewhere. Half of one stands for the whole.
    pub(crate) fn close(&mut self, content: &[u8]) {
        match self.id(content) {
            Some(id) => {
                self.closed.insert(id);
            }
            None => self.closed.extend(self.of_length(content.len())),
        }
    }

    /// Nobody needs it any more.
    pub(crate) fn give_up(&mut self, id: Id) {
        self.given_up.insert(id);
    }

    /// What was closed and is nowhere now is nobody's.
    pub(crate) fn give_up_if_closed(&mut self, id: Id) {
        if self.closed.contains(&id) {
            self.given_up.insert(id);
        }
    }

    /// Nobody needs any of those lengths any more.
    pub(crate) fn give_up_lengths(&mut self, lengths: impl IntoIterator<Item = usize>) {
        for length in lengths {
            self.given_up.extend(self.of_length(length));
        }
    }

    /// Whether there are several contents of that length, so that it does not tell which of them is seen.
    pub(crate) fn are_alike(&self, length: usize) -> bool {
        self.contents
            .get(&length)
            .is_some_and(|alike| alike.len() > 1)
    }

    /// What somebody saw and sees no longer was given up knowingly.
    pub(crate) fn out_of_sight(&mut self, before: &Sight, after: &Sight) {
        for (length, count) in before {
            let left = after.get(length).copied().unwrap_or_default();
            if left == 0 || (left < *count && self.are_alike(*length)) {
                self.give_up_lengths([*length]);
            }
        }
    }

    /// The contents that must be somewhere.
    pub(crate) fn must_be(&self) -> impl Iterator<Item = (Id, &Content)> {
        let ids = self.closed.difference(&self.given_up);
        ids.filter_map(|id| Some((*id, self.contents.get(&id.0)?.get(id.1)?)))
    }

    /// A loss of power may have left half of it.
    pub(crate) fn tear(&mut self, id: Id) {
        self.torn.insert(id);
    }

    /// Whether this is all of what somebody wrote.
    pub(crate) fn is_whole(&self, content: &[u8]) -> bool {
        content.is_empty() || self.id(content).is_some()
    }

    /// Whether these are parts of one content of this length that somebody wrote.
    pub(crate) fn knows_parts(&self, length: usize, parts: &[(usize, Content)]) -> bool {
        let is_of = |content: &Content| {
            let mut parts = parts.iter();
            parts.all(|(at, part)| content.get(*at..*at + part.len()) == Some(&part[..]))
        };
        let alike = self.contents.get(&length);
        let is_torn = self.of_length(length).any(|id| self.torn.contains(&id));
        length == 0 || is_torn || alike.is_some_and(|alike| alike.iter().any(is_of))
    }

    /// Whether somebody wrote this.
    pub(crate) fn knows(&self, content: &[u8]) -> bool {
        let Some(alike) = self.contents.get(&content.len()) else {
            return content.is_empty();
        };
        let mut ids = self.of_length(content.len());
        // What was written over in place may be part of the one and part of the other.
        let is_part =
            |(at, byte): (usize, &u8)| *byte == 0 || alike.iter().any(|known| known[at] == *byte);
        self.is_whole(content)
            || (ids.any(|id| self.torn.contains(&id)) && content.iter().enumerate().all(is_part))
    }
}
