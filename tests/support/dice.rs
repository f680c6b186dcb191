//! Random numbers for tests that say which seed they had.

/// Random numbers, the same for the same seed (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// One of `0..sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// How often a test does what it does at random: as the environment says, else `default`.
pub(crate) fn rounds(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(number) => number
            .parse()
            .unwrap_or_else(|error| panic!("{variable}={number}: {error}")),
        Err(_) => default,
    }
}

/// Content that no compression and no luck makes the same for two numbers.
pub(crate) fn content(number: u64, len: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new()
        .update(&number.to_le_bytes())
        .finalize_xof();
    let mut data = vec![0; len];
    reader.fill(&mut data);
    data
}
