//! Packets as a server that lies puts them together, byte by byte: none of them need make sense.

use crate::support::rng::Rng;

pub(super) const STATUS: u8 = 101;
pub(super) const HANDLE: u8 = 102;
pub(super) const DATA: u8 = 103;
pub(super) const NAME: u8 = 104;
pub(super) const ATTRS: u8 = 105;

const NAMES: [&[u8]; 18] = [
    b".",
    b"..",
    b"",
    b"a/b",
    b"../../outside",
    b"/",
    b"a\0b",
    b"one",
    b"two",
    b"dir",
    b"fresh",
    b".roamhome",
    b"home.toml",
    b"staging",
    b"\xff\xfe",
    b"x\ny",
    b"*.lock",
    b"local",
];

/// Types of files, those that are taken in more often than the others.
const KINDS: [u32; 12] = [
    0o100_000, 0o100_000, 0o100_000, 0o040_000, 0o040_000, 0o120_000, 0, 0o010_000, 0o020_000,
    0o060_000, 0o140_000, 0o170_000,
];

const SIZES: [u64; 7] = [0, 1, 4, 1 << 20, i64::MAX as u64, 1 << 63, u64::MAX];

const TIMES: [u32; 5] = [0, 1, 1_700_000_000, 0x7fff_ffff, u32::MAX];

pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// A whole packet of `kind` for request `id`.
pub(super) fn packet(kind: u8, id: u32, rest: &[u8]) -> Vec<u8> {
    let body = [&[kind][..], &id.to_be_bytes(), rest].concat();
    string(&body)
}

pub(super) fn status(rng: &mut Rng, id: u32) -> Vec<u8> {
    let code = rng.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, u32::MAX]);
    let words: &[u8] = rng.pick(&[&b""[..], b"\x1b[2Jgone", b"\xff\xff", &[b'w'; 5000]]);
    let rest = [&code.to_be_bytes()[..], &string(words), &string(b"")].concat();
    packet(STATUS, id, &rest)
}

pub(super) fn end(id: u32) -> Vec<u8> {
    packet(
        STATUS,
        id,
        &[&1_u32.to_be_bytes()[..], &string(b""), &string(b"")].concat(),
    )
}

/// Attributes that no file has, or some that a file may have.
pub(super) fn attrs(rng: &mut Rng) -> Vec<u8> {
    let mode = rng.pick(&KINDS) | (rng.next() as u32 & 0o7777);
    let (size, time) = (rng.pick(&SIZES), rng.pick(&TIMES));
    match rng.below(8) {
        0 => 0_u32.to_be_bytes().to_vec(),
        1 => [&1_u32.to_be_bytes()[..], &size.to_be_bytes()].concat(),
        _ => [
            &15_u32.to_be_bytes()[..],
            &size.to_be_bytes(),
            &rng.next().to_be_bytes(),
            &mode.to_be_bytes(),
            &time.to_be_bytes(),
            &time.to_be_bytes(),
        ]
        .concat(),
    }
}

fn entry(rng: &mut Rng, name: &[u8]) -> Vec<u8> {
    [string(name), string(b"-rw-r--r--"), attrs(rng)].concat()
}

/// A list of names, most of which are names.
pub(super) fn names(rng: &mut Rng, id: u32) -> Vec<u8> {
    let impossible = rng.one_in(3);
    let count = 1 + rng.below(4);
    let mut rest = (count as u32).to_be_bytes().to_vec();
    for _ in 0..count {
        let name = match impossible {
            true => rng.pick(&NAMES).to_vec(),
            false => rng.pick(&NAMES[7..]).to_vec(),
        };
        rest.extend(entry(rng, &name));
    }
    packet(NAME, id, &rest)
}

/// The next part of a listing that never ends.
pub(super) fn more_names(rng: &mut Rng, id: u32) -> Vec<u8> {
    let mut rest = 100_u32.to_be_bytes().to_vec();
    for _ in 0..100 {
        let name = format!("n{:x}", rng.next());
        rest.extend(entry(rng, name.as_bytes()));
    }
    packet(NAME, id, &rest)
}
