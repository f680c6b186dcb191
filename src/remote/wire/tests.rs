use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn attrs() -> impl Strategy<Value = Attrs> {
    any::<(
        Option<u64>,
        Option<(u32, u32)>,
        Option<u32>,
        Option<(u32, u32)>,
    )>()
    .prop_map(|(size, owner, permissions, times)| Attrs {
        size,
        owner,
        permissions,
        times,
    })
}

fn request() -> impl Strategy<Value = Request> {
    let words = any::<(u64, u64, u64, u32)>();
    (0..24_u8, bytes(), bytes(), attrs(), words).prop_map(|(kind, a, b, attrs, (x, y, z, w))| {
        let offset = x;
        match kind {
            0 => Request::Open {
                path: a,
                flags: w,
                attrs,
            },
            1 => Request::Close(a),
            2 => Request::Read {
                handle: a,
                offset,
                len: w,
            },
            3 => Request::Write {
                handle: a,
                offset,
                data: b,
            },
            4 => Request::Lstat(a),
            5 => Request::Fstat(a),
            6 => Request::Setstat(a, attrs),
            7 => Request::Fsetstat(a, attrs),
            8 => Request::Opendir(a),
            9 => Request::Readdir(a),
            10 => Request::Remove(a),
            11 => Request::Mkdir(a, attrs),
            12 => Request::Rmdir(a),
            13 => Request::Realpath(a),
            14 => Request::Stat(a),
            15 => Request::Rename { from: a, to: b },
            16 => Request::Readlink(a),
            17 => Request::Symlink { target: a, link: b },
            18 => Request::Extended(Extended::PosixRename { from: a, to: b }),
            19 => Request::Extended(Extended::Hardlink { from: a, to: b }),
            20 => Request::Extended(Extended::Fsync(a)),
            21 => Request::Extended(Extended::Lsetstat(a, attrs)),
            22 => Request::Extended(Extended::Statvfs(a)),
            _ => Request::Extended(Extended::CopyData {
                from: a,
                from_offset: x,
                len: y,
                to: b,
                to_offset: z,
            }),
        }
    })
}

fn reply() -> impl Strategy<Value = Reply> {
    let links = proptest::option::of(any::<u32>());
    let entry =
        (bytes(), links, attrs()).prop_map(|(name, links, attrs)| NameEntry { name, links, attrs });
    prop_oneof![
        bytes().prop_map(|m| Reply::Status(Status::NoSuchFile, m)),
        bytes().prop_map(Reply::Handle),
        bytes().prop_map(Reply::Data),
        prop::collection::vec(entry, 0..8).prop_map(Reply::Names),
        attrs().prop_map(Reply::Attrs),
        bytes().prop_map(Reply::Extended),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn requests_survive_the_wire(id: u32, request in request()) {
        let frame = request.encode(id);
        prop_assert_eq!(Request::decode(frame.packet()), Ok((id, request)));
    }

    #[test]
    fn replies_survive_the_wire(id: u32, reply in reply()) {
        let frame = reply.encode(id);
        let len = u32::from_be_bytes(frame.head[..4].try_into().unwrap());
        prop_assert_eq!(len as usize, frame.packet().len());
        prop_assert_eq!(Reply::decode(frame.packet()), Ok((id, reply)));
    }

    #[test]
    fn cut_replies_are_refused_or_shorter_never_a_panic(reply in reply(), keep in 0..100_usize) {
        let packet = reply.encode(1).packet();
        drop(Reply::decode(packet.slice(..keep.min(packet.len()))));
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in 100..106_u8, tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let packet = |kind| Bytes::from([&[kind][..], &tail].concat());
        drop(Reply::decode(packet(kind)));
        drop(Request::decode(packet(kind % 21)));
        drop(Request::decode(packet(200)));
        drop(Version::decode(packet(2)));
        let _ = Limits::decode(packet(kind));
        let _ = Vfs::decode(packet(kind));
    }
}

#[test]
fn a_list_cannot_claim_more_entries_than_its_packet_holds() {
    let packet = [&[104, 0, 0, 0, 1][..], &u32::MAX.to_be_bytes(), &[0; 24]].concat();
    assert_eq!(Reply::decode(packet.into()), Err(WireError::Count));
}

#[test]
fn symlinks_are_asked_for_with_the_target_first() {
    let request = Request::Symlink {
        target: Bytes::from_static(b"to"),
        link: Bytes::from_static(b"l"),
    };
    assert_eq!(
        &request.encode(7).packet()[..],
        b"\x14\0\0\0\x07\0\0\0\x02to\0\0\0\x01l"
    );
}

#[test]
fn extensions_count_only_in_the_version_spoken_here() {
    let version = Version {
        version: 3,
        extensions: vec![(
            Bytes::from_static(b"fsync@openssh.com"),
            Bytes::from_static(b"9"),
        )],
    };
    let decoded = Version::decode(version.encode().packet()).unwrap();
    assert_eq!(decoded, version);
    let (name, number) = extension::FSYNC;
    assert!(!decoded.offers(name, number));
    assert!(decoded.offers(name, b"9"));
}
