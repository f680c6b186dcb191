//! Which blocks of a content are here. Pure.

use std::ops::Range;

/// A content has no more blocks than this, as long as they are not the largest: no map takes much memory.
const MOST_BLOCKS: u64 = 1 << 20;
/// The longest that a block gets.
const LARGEST: u32 = 1 << 20;
/// What is larger than this is not read by block.
pub const LARGEST_BY_BLOCK: u64 = 1 << 44;

/// How long the blocks of a content are: `least`, a power of two, or a multiple of it.
pub(super) fn block_for(size: u64, least: u32) -> u32 {
    let mut block = least.max(1);
    while size / u64::from(block) >= MOST_BLOCKS && block < LARGEST {
        block *= 2;
    }
    block
}

/// The bytes of the blocks that have any of `bytes`, in a content of which nothing is here.
pub fn whole_blocks(size: u64, least: u32, bytes: &Range<u64>) -> Range<u64> {
    let block = u64::from(block_for(size, least));
    let end = bytes.end.min(size).div_ceil(block) * block;
    (bytes.start / block * block).min(size)..end.min(size)
}

/// The blocks of a content that are here: one bit for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockMap {
    /// Bytes of the content.
    size: u64,
    /// Bytes of a block; the last one may be shorter.
    block: u32,
    bits: Vec<u8>,
    /// Bytes that are here.
    present: u64,
}

impl BlockMap {
    /// Of a content of which nothing is here.
    pub(super) fn new(size: u64, block: u32) -> Self {
        let block = block.max(1);
        let bits = size.div_ceil(block.into()).div_ceil(8);
        Self {
            size,
            block,
            bits: vec![0; usize::try_from(bits).unwrap_or(usize::MAX)],
            present: 0,
        }
    }

    /// With these bits; `None` if they are not those of such a content.
    pub(super) fn of_bits(size: u64, block: u32, bits: &[u8]) -> Option<Self> {
        let mut map = Self::new(size, block);
        if block == 0 || bits.len() != map.bits.len() {
            return None;
        }
        map.bits.copy_from_slice(bits);
        let behind = map.count()..map.bits.len() as u64 * 8;
        if behind.into_iter().any(|nth| map.bit(nth)) {
            return None;
        }
        let here = (0..map.count()).filter(|nth| map.bit(*nth));
        map.present = here.map(|nth| map.bytes_of(nth)).sum();
        Some(map)
    }

    /// The bits.
    pub(super) fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// How many bytes are here.
    pub(super) fn present(&self) -> u64 {
        self.present
    }

    /// Whether all of it is here.
    pub(super) fn is_whole(&self) -> bool {
        self.present == self.size
    }

    /// Whether all of these bytes are here, as far as the content goes.
    pub(super) fn has(&self, bytes: &Range<u64>) -> bool {
        self.blocks(bytes).all(|nth| self.bit(nth))
    }

    /// What is missing of these bytes: whole blocks.
    pub(super) fn missing(&self, bytes: &Range<u64>) -> Vec<Range<u64>> {
        let mut missing: Vec<Range<u64>> = Vec::new();
        for nth in self.blocks(bytes).filter(|nth| !self.bit(*nth)) {
            let (start, end) = self.span(nth);
            match missing.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => missing.push(start..end),
            }
        }
        missing
    }

    /// The next that is missing of these bytes, no more than `most` of it, but one block at least.
    pub(super) fn next_missing(&self, bytes: &Range<u64>, most: u64) -> Option<Range<u64>> {
        let mut blocks = self.blocks(bytes);
        let first = loop {
            let nth = blocks.next()?;
            // Eight at a time where all are here.
            if nth % 8 == 0 && self.bits.get(byte_of(nth)) == Some(&u8::MAX) {
                let skipped = (nth + 8).min(blocks.end);
                blocks.start = skipped;
            } else if !self.bit(nth) {
                break nth;
            }
        };
        let (start, mut end) = self.span(first);
        for nth in blocks {
            let (_, next) = self.span(nth);
            if self.bit(nth) || next - start > most {
                break;
            }
            end = next;
        }
        Some(start..end)
    }

    /// The first and the last block that are here.
    pub(super) fn ends(&self) -> Vec<Range<u64>> {
        let mut all = 0..self.count();
        let is_here = |nth: &u64| self.bit(*nth);
        let first = all.clone().find(is_here);
        let ends = [first, all.rfind(is_here)].into_iter().flatten();
        ends.map(|nth| {
            let (start, end) = self.span(nth);
            start..end
        })
        .collect()
    }

    /// Notes that these bytes are here: the blocks that they cover. Tells which bytes of the bits changed.
    pub(super) fn set(&mut self, bytes: &Range<u64>) -> Option<Range<usize>> {
        let first = bytes.start.div_ceil(self.block.into());
        let end = match bytes.end >= self.size {
            true => self.count(),
            false => bytes.end / u64::from(self.block),
        };
        let mut changed: Option<Range<usize>> = None;
        for nth in first..end {
            if self.bit(nth) {
                continue;
            }
            self.bits[byte_of(nth)] |= 1 << (nth % 8);
            self.present += self.bytes_of(nth);
            let at = byte_of(nth);
            let changed = changed.get_or_insert(at..at + 1);
            changed.end = at + 1;
        }
        changed
    }

    fn count(&self) -> u64 {
        self.size.div_ceil(self.block.into())
    }

    fn bit(&self, nth: u64) -> bool {
        let byte = self.bits.get(byte_of(nth)).copied().unwrap_or(0);
        byte & (1 << (nth % 8)) != 0
    }

    /// From where to where a block goes.
    fn span(&self, nth: u64) -> (u64, u64) {
        let start = nth * u64::from(self.block);
        (start, (start + u64::from(self.block)).min(self.size))
    }

    fn bytes_of(&self, nth: u64) -> u64 {
        let (start, end) = self.span(nth);
        end - start
    }

    /// The blocks that have any of these bytes.
    fn blocks(&self, bytes: &Range<u64>) -> Range<u64> {
        let end = bytes.end.min(self.size);
        match bytes.start < end {
            true => bytes.start / u64::from(self.block)..end.div_ceil(self.block.into()),
            false => 0..0,
        }
    }
}

fn byte_of(nth: u64) -> usize {
    usize::try_from(nth / 8).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // One range is what is meant.
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_set_is_here_and_the_rest_is_missing() {
        let mut map = BlockMap::new(1050, 100);
        assert_eq!(map.missing(&(150..320)), [100..400]);
        assert_eq!(map.set(&(200..300)), Some(0..1));
        assert_eq!(map.set(&(200..300)), None);
        assert_eq!(map.missing(&(150..320)), [100..200, 300..400]);
        assert!(map.has(&(200..300)) && map.has(&(250..260)) && !map.has(&(299..301)));
        // Half a block is none, and the last one is short.
        assert_eq!(map.set(&(350..1000)), Some(0..2));
        assert_eq!(map.missing(&(0..u64::MAX)), [0..200, 300..400, 1000..1050]);
        assert_eq!(map.ends(), [200..300, 900..1000]);
        map.set(&(1000..1050));
        assert_eq!((map.present(), map.is_whole()), (750, false));
        assert!(map.has(&(1000..9999)) && map.has(&(2000..3000)));
        map.set(&(0..1050));
        assert!(map.is_whole());
    }

    #[test]
    fn the_next_that_is_missing_is_no_longer_than_asked_for() {
        let mut map = BlockMap::new(10_000, 100);
        map.set(&(0..3200));
        map.set(&(4000..5000));
        assert_eq!(map.next_missing(&(0..10_000), 350), Some(3200..3500));
        assert_eq!(map.next_missing(&(3900..10_000), 350), Some(3900..4000));
        assert_eq!(map.next_missing(&(4000..10_000), 1), Some(5000..5100));
        assert_eq!(map.next_missing(&(0..3200), 350), None);
    }

    #[test]
    fn bits_of_another_content_are_refused() {
        let mut map = BlockMap::new(1050, 100);
        map.set(&(0..500));
        assert_eq!(BlockMap::of_bits(1050, 100, map.bits()), Some(map.clone()));
        for (size, block) in [(1050, 0), (1050, 10), (90_000, 100)] {
            assert_eq!(BlockMap::of_bits(size, block, map.bits()), None);
        }
        // One block more than there are.
        assert_eq!(BlockMap::of_bits(1050, 100, &[0, 0b1000]), None);
    }

    #[test]
    fn no_map_is_large() {
        const KIB: u64 = 1024;
        for (size, block, most) in [
            (10 << 30, 128 * KIB, 10 * KIB),
            (1 << 37, 256 * KIB, 128 * KIB),
            (LARGEST_BY_BLOCK, KIB * KIB, 2 * KIB * KIB),
        ] {
            let found = block_for(size, 128 << 10);
            assert_eq!(u64::from(found), block, "{size}");
            assert!(BlockMap::new(size, found).bits().len() as u64 <= most);
        }
    }

    proptest! {
        #[test]
        fn it_is_as_a_list_of_bytes(
            size in 1_u64..3000,
            block in 1_u32..400,
            sets in proptest::collection::vec((0_u64..3000, 0_u64..900), 0..12),
            look in (0_u64..3200, 0_u64..1200),
        ) {
            let mut map = BlockMap::new(size, block);
            let mut here = vec![false; size as usize];
            for (start, len) in sets {
                let bytes = start..(start + len);
                map.set(&bytes);
                for nth in 0..size.div_ceil(block.into()) {
                    let (first, end) = (nth * u64::from(block), ((nth + 1) * u64::from(block)).min(size));
                    if bytes.start <= first && end <= bytes.end {
                        here[first as usize..end as usize].fill(true);
                    }
                }
            }
            let count = |bytes: Range<u64>| bytes.filter(|at| !here[*at as usize]).count() as u64;
            prop_assert_eq!(map.present(), size - count(0..size));
            let bytes = look.0..(look.0 + look.1);
            let within = bytes.start.min(size)..bytes.end.min(size);
            prop_assert_eq!(map.has(&bytes), count(within.clone()) == 0);
            let missing = map.missing(&bytes);
            let all: u64 = missing.iter().map(|part| count(part.clone())).sum();
            prop_assert_eq!(all, missing.iter().map(|part| part.end - part.start).sum::<u64>());
            prop_assert_eq!(map.next_missing(&bytes, u64::MAX), missing.first().cloned());
            prop_assert_eq!(BlockMap::of_bits(size, block, map.bits()), Some(map));
        }
    }
}
