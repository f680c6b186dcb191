//! Millions of packets from a server that lies, and of names that it may show: nothing panics, nothing allocates much
//! more than it was sent, and what is understood means one thing.

use bytes::Bytes;

use super::convert::{attrs, data_limit, extended, features, names};
use crate::fuzz::{Rng, garbage, peak_of, repeat, spoil};
use crate::remote::layout::{self, Aside, HomeToml, Reason};
use crate::remote::wire::{
    Attrs, Extended, Limits, MAX_PACKET, NameEntry, Reply, Request, Status, Version, Vfs,
    decode_init, extension, init,
};
use crate::remote::{ErrorKind, status};
use crate::tree::{Name, RelPath, Time};

/// In `make test`; takes some seconds without optimisation.
const PACKETS: u64 = 1_000_000;
const NAMES: u64 = 100_000;

/// An entry of 12 bytes becomes one of 96 in a list that grows by doubling, while the old half is still there.
const MOST_PER_BYTE: usize = 32;
/// For what is small: a message of an error.
const MOST_ANYWAY: usize = 4096;

fn some(rng: &mut Rng) -> Bytes {
    let names: [&[u8]; 12] = [
        b"",
        b".",
        b"..",
        b"a",
        b"a/b",
        b"../../etc/passwd",
        b"/",
        b"\0",
        b"file.txt",
        b"\xff\xfe",
        b".roamhome",
        b"\x1b[31m",
    ];
    match rng.below(8) {
        0 => garbage(rng, 40).into(),
        1 => vec![b'x'; 250 + rng.below(10) as usize].into(),
        _ => Bytes::from_static(names[rng.below(12) as usize]),
    }
}

fn number(rng: &mut Rng) -> u64 {
    rng.next() >> rng.below(64)
}

fn some_attrs(rng: &mut Rng) -> Attrs {
    let words = (rng.next() as u32, rng.next() as u32);
    Attrs {
        size: rng.one_in(2).then(|| number(rng)),
        owner: rng.one_in(2).then_some(words),
        permissions: rng.one_in(2).then_some(words.1),
        times: rng.one_in(2).then_some(words),
    }
}

fn entries(rng: &mut Rng) -> Vec<NameEntry> {
    let count = match rng.one_in(50) {
        true => rng.below(200),
        false => rng.below(5),
    };
    let entry = |_| NameEntry {
        name: some(rng),
        links: rng.one_in(2).then(|| rng.below(3) as u32),
        attrs: some_attrs(rng),
    };
    (0..count).map(entry).collect()
}

fn reply(rng: &mut Rng) -> Vec<u8> {
    let reply = match rng.below(7) {
        0 => Reply::Status(Status::NoSuchFile, some(rng)),
        1 => Reply::Handle(some(rng)),
        2 => Reply::Data(some(rng)),
        3 => Reply::Names(entries(rng)),
        4 => Reply::Attrs(some_attrs(rng)),
        5 => Reply::Extended((0..8).flat_map(|_| number(rng).to_be_bytes()).collect()),
        _ => Reply::status(Status::Ok),
    };
    reply.encode(rng.next() as u32).packet().to_vec()
}

fn request(rng: &mut Rng) -> Vec<u8> {
    let (path, to) = (some(rng), some(rng));
    let request = match rng.below(9) {
        0 => Request::Open {
            path,
            flags: rng.next() as u32,
            attrs: some_attrs(rng),
        },
        1 => Request::Read {
            handle: path,
            offset: number(rng),
            len: rng.next() as u32,
        },
        2 => Request::Write {
            handle: path,
            offset: number(rng),
            data: to,
        },
        3 => Request::Setstat(path, some_attrs(rng)),
        4 => Request::Rename { from: path, to },
        5 => Request::Extended(Extended::PosixRename { from: path, to }),
        6 => Request::Extended(Extended::Lsetstat(path, some_attrs(rng))),
        7 => Request::Extended(Extended::Statvfs(path)),
        _ => Request::Lstat(path),
    };
    request.encode(rng.next() as u32).packet().to_vec()
}

fn version(rng: &mut Rng) -> Vec<u8> {
    let (name, number) = rng.pick(&[extension::FSYNC, extension::STATVFS, (b"x", b"")]);
    let pair = (Bytes::from_static(name), Bytes::from_static(number));
    let version = Version {
        version: rng.below(5) as u32,
        extensions: vec![pair; rng.below(4) as usize],
    };
    version.encode().packet().to_vec()
}

fn packet(rng: &mut Rng) -> Bytes {
    let mut packet = match rng.below(8) {
        0..=3 => reply(rng),
        4 => request(rng),
        5 => version(rng),
        6 => init().packet().to_vec(),
        _ => garbage(rng, 200),
    };
    if rng.one_in(1000) {
        // The longest there are, full of the shortest entries.
        packet = vec![0; MAX_PACKET as usize];
        packet[0] = 104;
        packet[5..9].copy_from_slice(&((MAX_PACKET - 9) / 12).to_be_bytes());
    }
    if !rng.one_in(16) {
        spoil(rng, &mut packet);
    }
    packet.into()
}

/// All that is done with what a peer sends before anybody is asked whether it makes sense.
fn take(packet: &Bytes) {
    if let Ok((id, reply)) = Reply::decode(packet.clone()) {
        let again = Reply::decode(reply.encode(id).packet());
        assert_eq!(again, Ok((id, reply.clone())), "it means something else");
        understand(reply);
    }
    if let Ok((id, request)) = Request::decode(packet.clone()) {
        let again = Request::decode(request.encode(id).packet());
        assert_eq!(again, Ok((id, request)), "it means something else");
    }
    if let Ok(version) = Version::decode(packet.clone()) {
        let again = Version::decode(version.encode().packet());
        assert_eq!(again.as_ref(), Ok(&version), "it means something else");
        assert!(features(&version).max_read > 0);
    }
    let _init = decode_init(packet.clone());
}

fn understand(reply: Reply) {
    if let Reply::Status(status, message) = &reply {
        let error = status::error(*status, message, "op", &RelPath::root());
        assert!(error.kind != ErrorKind::Protocol && error.message.chars().count() <= 200);
        assert!(!error.message.chars().any(char::is_control));
    }
    if let Ok(stat) = attrs(reply.clone()) {
        assert!(i64::try_from(stat.size).is_ok());
        assert!(stat.mode <= 0o7777 && (0..=i64::from(u32::MAX)).contains(&stat.mtime));
    }
    for entry in names(reply.clone()).unwrap_or_default() {
        if let Ok(name) = Name::new(&entry.name) {
            assert_eq!(RelPath::parse(name.as_bytes()).unwrap().names(), [name]);
        }
    }
    if let Ok(data) = extended(reply) {
        let _vfs = Vfs::decode(data.clone());
        if let Ok(limits) = Limits::decode(data) {
            assert!((1024..=255 * 1024).contains(&data_limit(limits.read)));
        }
    }
}

#[test]
fn whatever_a_peer_sends_costs_no_more_than_its_length_and_means_one_thing() {
    repeat("whatever_a_peer_sends", PACKETS, |rng| {
        let packet = packet(rng);
        let most = packet.len() * MOST_PER_BYTE + MOST_ANYWAY;
        let (peak, decoded) = peak_of(|| {
            (
                Reply::decode(packet.clone()).is_ok(),
                Request::decode(packet.clone()).is_ok(),
                Version::decode(packet.clone()).is_ok(),
            )
        });
        assert!(
            peak <= most,
            "{peak} bytes for {}: {decoded:?}",
            packet.len()
        );
        if packet.len() < 2000 {
            take(&packet);
        }
    });
}

/// A name as it may stand in a directory of ours, or nearly.
fn our_name(rng: &mut Rng) -> Vec<u8> {
    let path: RelPath = (0..1 + rng.below(3))
        .filter_map(|_| Name::new(&some(rng)).ok())
        .collect();
    let client = layout::ClientId(rng.next());
    let last = |path: RelPath| {
        path.names()
            .last()
            .map_or(Vec::new(), |n| n.as_bytes().to_vec())
    };
    match rng.below(4) {
        0 => layout::staging_name(client, crate::tree::NodeId(number(rng)), number(rng)).into(),
        1 => last(layout::feed_path(client, number(rng))),
        2 => {
            let reason = rng.pick(&[Reason::Removed, Reason::Race]);
            let at = Time::new((number(rng) >> 1).cast_signed(), 0);
            let aside = Aside::new(at, rng.next() as u32, reason, &path);
            last(layout::trash_path(&aside))
        }
        _ => garbage(rng, 60),
    }
}

#[test]
fn names_and_files_in_our_directory_are_ours_or_left_alone() {
    repeat("names_and_files_in_our_directory", NAMES, |rng| {
        let mut bytes = our_name(rng);
        if !rng.one_in(4) {
            spoil(rng, &mut bytes);
        }
        if let Ok(name) = Name::new(&bytes) {
            if let Some((client, node, number)) = layout::parse_staging_name(&name) {
                // Not always the same text, but always the same file of the same client.
                let again = layout::staging_name(client, node, number);
                let again = Name::new(again.as_bytes()).unwrap();
                assert_eq!(
                    layout::parse_staging_name(&again),
                    Some((client, node, number))
                );
            }
            let _feed = layout::parse_feed_name(&name);
            if let Some(aside) = Aside::parse(&name) {
                assert_eq!(aside.name().as_bytes(), name.as_bytes());
            }
        }
        let mut home = HomeToml::new(u128::from(rng.next())).format().into_bytes();
        spoil(rng, &mut home);
        drop(HomeToml::parse(&home));
    });
    // The longest file that is read as one, as deep as it can be.
    for open in ["[", "{a=", "a.", "[["] {
        let deep = ["identity = ", &open.repeat(64 * 1024 / open.len())].concat();
        assert!(HomeToml::parse(deep.as_bytes()).is_err());
        assert!(HomeToml::parse(&deep.as_bytes()[11..]).is_err());
    }
}
