//! Which content goes when there is too much of it. Pure.

use crate::tree::{NodeId, Time};

/// Content that the server has too goes down to this share of what there may be, so that there is some room before the
/// next time.
const LOW_PERCENT: u64 = 90;

/// No more than this part of a disk is kept free: a small one would hold nothing else.
const MOST_FREE: u64 = 10;

/// How much room content may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomLimits {
    /// Bytes on this disk of all content; `None`: as many as there are.
    pub size: Option<u64>,
    /// Bytes that stay free on it.
    pub min_free: u64,
}

/// Content on this disk that the server has too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// Whose.
    pub node: NodeId,
    /// What it takes on the disk.
    pub bytes: u64,
    /// When it was last opened, as far as is known: to the hour.
    pub used: Time,
}

impl RoomLimits {
    /// How many bytes have to go when content takes `used` bytes and `free` ones are free on the `disk`, which is so large;
    /// 0 if none have to.
    pub fn excess(&self, used: u64, free: u64, disk: u64) -> u64 {
        let over = self.size.filter(|size| used > *size);
        let over = over.map_or(0, |size| used - size / 100 * LOW_PERCENT);
        let missing = self.keeps_free(disk).saturating_sub(free);
        // The same share more than what is missing.
        let missing = missing.saturating_add(missing / 100 * (100 - LOW_PERCENT));
        over.max(missing)
    }

    /// What stays free on a disk that is so large.
    pub fn keeps_free(&self, disk: u64) -> u64 {
        self.min_free.min(disk / MOST_FREE)
    }
}

/// What goes, one after the other: what was not used for longest first.
pub fn oldest_first(mut cached: Vec<Cached>) -> Vec<Cached> {
    cached.sort_by_key(|cached| (cached.used, cached.node));
    cached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_within_the_limits_and_enough_beyond_them() {
        let limits = |size, min_free| RoomLimits { size, min_free };
        for (limits, used, free, excess) in [
            (limits(None, 0), u64::MAX, 0, 0),
            (limits(Some(1000), 0), 1000, 0, 0),
            (limits(Some(1000), 0), 1001, 0, 101),
            (limits(Some(0), 0), 5, 0, 5),
            (limits(None, 500), 9, 500, 0),
            (limits(None, 500), 9, 300, 220),
            (limits(Some(1000), 500), 1001, 300, 220),
            (limits(Some(1000), 500), 2000, 499, 1100),
        ] {
            assert_eq!(
                limits.excess(used, free, 100_000),
                excess,
                "{limits:?} {used} {free}"
            );
        }
    }

    #[test]
    fn no_more_than_a_part_of_a_small_disk_is_kept_free() {
        let limits = RoomLimits {
            size: None,
            min_free: 500,
        };
        let excess = [1_000, 5_000, 50_000].map(|disk| limits.excess(9, 99, disk));
        assert_eq!(excess, [1, 441, 441]);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let cached = |node, used| Cached {
            node: NodeId(node),
            bytes: 1,
            used: Time(used),
        };
        let sorted = oldest_first(vec![cached(1, 5), cached(3, 2), cached(2, 2)]);
        assert_eq!(sorted, [cached(2, 2), cached(3, 2), cached(1, 5)]);
    }
}
