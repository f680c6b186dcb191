//! What the fuzz tests share: bytes that went wrong in the ways in which a peer or a disk gets them wrong, how many
//! of them to try, and what some code allocates for them.

#[path = "../tests/support/rng.rs"]
mod rng;

#[allow(unsafe_code)] // An allocator that counts; the program itself keeps the system's.
mod meter;

use std::time::Instant;

pub(crate) use meter::peak_of;
pub(crate) use rng::{Rng, noise};

/// Numbers that code trips over where they are lengths, counts or ids.
const BAD_NUMBERS: [u32; 10] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0xffff,
    256 * 1024,
    0x7fff_ffff,
    0x8000_0000,
    u32::MAX,
];

/// Does to `bytes` what bit rot, a cut and a liar would do.
pub(crate) fn spoil(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(3) {
        let len = bytes.len() as u64;
        if len == 0 {
            return bytes.extend(garbage(rng, 16));
        }
        let at = rng.below(len) as usize;
        match rng.below(8) {
            0 | 1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes[at] = rng.next() as u8,
            3 => put_number(rng, bytes, at),
            4 => bytes.truncate(at),
            5 => {
                let more = garbage(rng, 24);
                drop(bytes.splice(at..at, more));
            }
            6 => {
                let to = at + rng.below(len - at as u64) as usize;
                let copy = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            _ => {
                let to = at + rng.below(len - at as u64) as usize;
                bytes.drain(at..to);
            }
        }
    }
}

/// Overwrites four bytes: a length that lies, a count that is huge, an id of somebody else.
fn put_number(rng: &mut Rng, bytes: &mut [u8], at: usize) {
    let near = (bytes.len() as u32)
        .wrapping_add(rng.below(9) as u32)
        .wrapping_sub(4);
    let number = match rng.one_in(3) {
        true => near,
        false => rng.pick(&BAD_NUMBERS),
    };
    let number = match rng.one_in(2) {
        true => number.to_be_bytes(),
        false => number.to_le_bytes(),
    };
    for (to, from) in bytes[at..].iter_mut().zip(number) {
        *to = from;
    }
}

/// Fewer than `limit` bytes of no meaning.
pub(crate) fn garbage(rng: &mut Rng, limit: u64) -> Vec<u8> {
    (0..rng.below(limit)).map(|_| rng.next() as u8).collect()
}

/// Tries `one` with numbers of its own as often as `ROAMHOME_PACKETS` says, or else `usual` times. A failure is
/// repeated by the seed it names.
pub(crate) fn repeat(what: &str, usual: u64, mut one: impl FnMut(&mut Rng)) {
    let wanted = std::env::var("ROAMHOME_PACKETS").ok();
    let count = wanted.map_or(usual, |n| n.parse().unwrap());
    let first = std::env::var("ROAMHOME_SEED").map_or(0, |n| n.parse().unwrap());
    let start = Instant::now();
    for seed in first..first + count {
        let reached = Reached { what, seed };
        one(&mut Rng::new(seed));
        std::mem::forget(reached);
    }
    let secs = start.elapsed().as_secs_f64();
    eprintln!(
        "{what}: {count} executions, {:.0} a second",
        count as f64 / secs
    );
}

/// Names the seed of a panic that passes by.
struct Reached<'a> {
    what: &'a str,
    seed: u64,
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        let Self { what, seed } = self;
        eprintln!("{what} fails: ROAMHOME_SEED={seed} ROAMHOME_PACKETS=1 cargo test --lib {what}");
    }
}
