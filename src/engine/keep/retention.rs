//! Which kept files go: too old, too many of one file, or too much in all. Nothing here touches a disk.

use std::collections::BTreeMap;

/// What is kept of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item<O> {
    /// Of which file.
    pub(super) origin: O,
    /// Since when, in seconds.
    pub(super) at: i64,
    /// Bytes.
    pub(super) size: u64,
    /// Nobody chose that it goes: it lost a conflict, or was never sent.
    pub(super) only_copy: bool,
}

/// When they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// All from before this second.
    pub(super) before: i64,
    /// From this second on nothing goes for want of room or for its number: what was just deleted by mistake is still
    /// there.
    pub(super) young: i64,
    /// Bytes in all.
    pub(super) bytes: u64,
    /// Versions of one file.
    pub(super) of_one_file: usize,
}

/// The positions of those that go. Where a limit leaves a choice, only copies go after all others, and the oldest first.
pub(super) fn expired<O: Ord>(items: &[Item<O>], limits: &Limits) -> Vec<usize> {
    let mut left: Vec<usize> = (0..items.len())
        .filter(|i| items[*i].at >= limits.before)
        .collect();
    // The last ones are the ones to keep.
    left.sort_by_key(|i| (items[*i].only_copy, items[*i].at));
    let mut of_file: BTreeMap<&O, usize> = BTreeMap::new();
    let mut taken = 0_u64;
    let mut kept = vec![false; items.len()];
    for i in left.into_iter().rev() {
        let item = &items[i];
        let count = of_file.entry(&item.origin).or_default();
        let young = item.at >= limits.young;
        if *count >= limits.of_one_file && !young {
            continue;
        }
        // What has no room counts all the same: nothing that would go before it takes its place.
        taken = taken.saturating_add(item.size);
        if taken <= limits.bytes || young {
            *count += 1;
            kept[i] = true;
        }
    }
    (0..items.len()).filter(|i| !kept[*i]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(origin: &'static str, at: i64, size: u64, only_copy: bool) -> Item<&'static str> {
        Item {
            origin,
            at,
            size,
            only_copy,
        }
    }

    const LIMITS: Limits = Limits {
        before: 100,
        young: 1000,
        bytes: 50,
        of_one_file: 2,
    };

    #[test]
    fn age_number_and_size_each_end_what_is_kept() {
        for (case, items, expected) in [
            ("nothing", vec![], vec![]),
            (
                "too old, however small",
                vec![item("a", 99, 1, true), item("a", 100, 1, false)],
                vec![0],
            ),
            (
                "the oldest of one file, however small",
                vec![
                    item("a", 103, 1, false),
                    item("a", 101, 1, false),
                    item("a", 102, 1, false),
                    item("b", 101, 1, false),
                ],
                vec![1],
            ),
            (
                "of one file what others have goes before an only copy",
                vec![
                    item("a", 101, 1, true),
                    item("a", 102, 1, true),
                    item("a", 103, 1, false),
                ],
                vec![2],
            ),
            (
                "the oldest, until the rest has room",
                vec![item("a", 101, 30, false), item("b", 102, 50, false)],
                vec![0],
            ),
            (
                "all that others have before an only copy",
                vec![item("a", 101, 30, true), item("b", 102, 30, false)],
                vec![1],
            ),
            (
                "an only copy in the end",
                vec![item("a", 101, 30, true), item("b", 102, 30, true)],
                vec![0],
            ),
            (
                "nothing young for its number",
                vec![
                    item("a", 1000, 1, false),
                    item("a", 1001, 1, false),
                    item("a", 1002, 1, false),
                    item("a", 999, 1, false),
                ],
                vec![3],
            ),
            (
                "nothing young for want of room, and it takes the room of others",
                vec![item("a", 1000, 80, false), item("b", 999, 1, false)],
                vec![1],
            ),
        ] {
            assert_eq!(expired(&items, &LIMITS), expected, "{case}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_kept_the_limits_hold_and_the_later_stays(
            rows in prop::collection::vec((0..4_u8, 0..1500_i64, 0..40_u64, any::<bool>()), 0..30)
        ) {
            let items: Vec<_> = rows
                .into_iter()
                .map(|(origin, at, size, only_copy)| Item { origin, at, size, only_copy })
                .collect();
            let gone = expired(&items, &LIMITS);
            let kept: Vec<_> = (0..items.len()).filter(|i| !gone.contains(i)).map(|i| &items[i]).collect();
            let bytes: u64 = kept.iter().filter(|item| item.at < LIMITS.young).map(|item| item.size).sum();
            prop_assert!(bytes <= LIMITS.bytes);
            for item in &kept {
                let old = |other: &&&Item<u8>| other.at < LIMITS.young;
                let same = kept.iter().filter(old).filter(|other| other.origin == item.origin);
                prop_assert!(item.at >= LIMITS.before && same.count() <= LIMITS.of_one_file);
            }
            // No only copy goes while something of the same file that others have stays.
            for lost in gone.iter().map(|i| &items[*i]).filter(|lost| lost.only_copy && lost.at >= LIMITS.before) {
                let worse = |kept: &&&Item<u8>| !kept.only_copy && kept.origin == lost.origin && kept.at < LIMITS.young;
                prop_assert!(kept.iter().find(worse).is_none());
            }
            prop_assert!(expired(&kept.into_iter().cloned().collect::<Vec<_>>(), &LIMITS).is_empty());
        }
    }
}
