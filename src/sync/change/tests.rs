use super::*;
use crate::tree::{Hash, NodeId};

fn base(version: Version) -> BaseEntry {
    BaseEntry {
        node: NodeId(20),
        version,
    }
}

fn local(node: u64, version: Version, data_changed: bool) -> LocalEntry {
    LocalEntry {
        node: NodeId(node),
        version,
        data_changed,
        whole: true,
        busy: false,
        holds_scoped: false,
    }
}

fn hashed(version: Version, hash: u8) -> Version {
    Version {
        hash: Some(Hash([hash; 32])),
        ..version
    }
}

#[test]
fn a_remote_change_shows_in_what_a_listing_tells() {
    let file = || Version::file(3, 10, 0o644);
    for (label, base_version, remote, change) in [
        ("nothing", None, None, Change::Same),
        ("new", None, Some(file()), Change::Created),
        ("gone", Some(file()), None, Change::Removed),
        ("same", Some(file()), Some(file()), Change::Same),
        (
            "mode",
            Some(file()),
            Some(Version::file(3, 10, 0o600)),
            Change::Attributes,
        ),
        (
            "mtime",
            Some(file()),
            Some(Version::file(3, 11, 0o644)),
            Change::Modified,
        ),
        (
            "kind",
            Some(file()),
            Some(Version::dir(0o755)),
            Change::KindChanged,
        ),
        (
            "mtime, hash known",
            Some(hashed(file(), 1)),
            Some(hashed(Version::file(3, 11, 0o644), 1)),
            Change::Attributes,
        ),
        (
            "directory's mode",
            Some(Version::dir(0o755)),
            Some(Version::dir(0o700)),
            Change::Attributes,
        ),
        (
            "target",
            Some(Version::symlink(b"a".to_vec())),
            Some(Version::symlink(b"b".to_vec())),
            Change::Modified,
        ),
    ] {
        let base = base_version.map(base);
        assert_eq!(
            remote_change(base.as_ref(), remote.as_ref()),
            change,
            "{label}"
        );
    }
}

#[test]
fn a_local_change_shows_in_node_mark_size_and_hash() {
    let file = || Version::file(3, 10, 0o644);
    for (label, base_version, entry, change) in [
        ("same", file(), local(20, file(), false), Change::Same),
        ("written", file(), local(20, file(), true), Change::Modified),
        (
            "another node",
            file(),
            local(21, file(), false),
            Change::Modified,
        ),
        (
            "size",
            file(),
            local(20, Version::file(4, 10, 0o644), false),
            Change::Modified,
        ),
        (
            "touched",
            file(),
            local(20, Version::file(3, 11, 0o644), false),
            Change::Attributes,
        ),
        (
            "hash",
            hashed(file(), 1),
            local(20, hashed(file(), 2), false),
            Change::Modified,
        ),
        (
            "kind",
            file(),
            local(21, Version::dir(0o755), false),
            Change::KindChanged,
        ),
        (
            "another directory",
            Version::dir(0o755),
            local(21, Version::dir(0o755), false),
            Change::Same,
        ),
        (
            "directory's mode",
            Version::dir(0o755),
            local(20, Version::dir(0o700), false),
            Change::Attributes,
        ),
    ] {
        assert_eq!(
            local_change(Some(&base(base_version)), Some(&entry)),
            change,
            "{label}"
        );
    }
    assert_eq!(local_change(Some(&base(file())), None), Change::Removed);
    assert_eq!(
        local_change(None, Some(&local(20, file(), true))),
        Change::Created
    );
    assert_eq!(local_change(None, None), Change::Same);
}
