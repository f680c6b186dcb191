//! How often tests do what they do at random, and with what content.

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
