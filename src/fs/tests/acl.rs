//! Access control lists: what is kept of them, what modes do to them, and who inherits them.

use super::*;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The bytes of a list such as `u::7 u:5:6 g::4 m::7 o::0`.
fn list(text: &str) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for entry in text.split(' ') {
        let parts: Vec<&str> = entry.split(':').collect();
        let tag: u16 = match (parts[0], parts[1].is_empty()) {
            ("u", true) => 0x01,
            ("u", false) => 0x02,
            ("g", true) => 0x04,
            ("g", false) => 0x08,
            ("m", _) => 0x10,
            _ => 0x20,
        };
        let permissions: u16 = parts[2].parse().unwrap();
        let id: u32 = parts[1].parse().unwrap_or(u32::MAX);
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn set(fix: &Fixture, path: &str, kind: AclKind, text: &str) -> Result<(), FsError> {
    let list = match text {
        "" => 2_u32.to_le_bytes().to_vec(),
        text => list(text),
    };
    done(fix.home.set_acl(fix.id(path), kind, &list, &Groups::All))
}

fn get(fix: &Fixture, path: &str, name: &[u8]) -> Option<Vec<u8>> {
    match fix.home.xattr(fix.id(path), name) {
        Ok(value) => Some(value),
        Err(FsError::NoAttribute) => None,
        Err(error) => panic!("{path}: {error}"),
    }
}

fn mode(fix: &Fixture, path: &str) -> u32 {
    fix.attr(path).unwrap().mode
}

fn chmod(fix: &Fixture, path: &str, mode: u32) {
    let set = SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    done(fix.home.set_attr(fix.id(path), set, ME)).unwrap();
}

fn make(fix: &Fixture, path: &str, mode: u32, umask: u32) {
    let Place { parent, name } = fix.place(path);
    let caller = Caller { umask, ..ME };
    let made = match path.ends_with('d') {
        true => fix.home.mkdir(parent, &name, mode, caller),
        false => fix
            .home
            .mknod(parent, &name, SpecialKind::File, mode, caller),
    };
    done(made).unwrap();
}

#[test]
fn a_list_and_the_mode_are_one() {
    let fix = fixture();
    fix.write("f", b"x");
    assert_eq!(get(&fix, "f", ACCESS), None);
    set(&fix, "f", AclKind::Access, "u::7 u:5:6 g::4 m::6 o::1").unwrap();
    assert_eq!(mode(&fix, "f"), 0o761);
    chmod(&fix, "f", 0o640);
    let after = list("u::6 u:5:6 g::4 m::4 o::0");
    assert_eq!(get(&fix, "f", ACCESS), Some(after.clone()));
    // As the engine does when the server has another mode.
    let id = fix.id("f");
    let taken = fix.replica.update(|tx| {
        let mut node = tx.node(id)?.unwrap();
        node.mode = 0o4673;
        tx.put_node(node)
    });
    taken.unwrap_or_else(|error: ReplicaError| panic!("{error}"));
    let after = list("u::6 u:5:6 g::4 m::7 o::3");
    assert_eq!(get(&fix, "f", ACCESS), Some(after.clone()));
    let fix = fix.restart();
    assert_eq!(get(&fix, "f", ACCESS), Some(after));
    assert_eq!(fix.home.xattrs(fix.id("f")).unwrap(), [ACCESS.to_vec()]);

    // What three entries say, the mode says.
    set(&fix, "f", AclKind::Access, "u::6 g::5 o::4").unwrap();
    assert_eq!(mode(&fix, "f"), 0o4654);
    assert_eq!(fix.home.xattrs(fix.id("f")).unwrap(), [] as [Vec<u8>; 0]);

    // Without its list a file has what the mode says.
    set(&fix, "f", AclKind::Access, "u::6 u:5:7 g::0 m::5 o::4").unwrap();
    for _ in 0..2 {
        done(fix.home.remove_xattr(fix.id("f"), ACCESS)).unwrap();
        assert_eq!((mode(&fix, "f"), get(&fix, "f", ACCESS)), (0o4654, None));
    }
}

#[test]
fn only_a_mode_that_a_list_changed_travels() {
    let fix = fixture();
    fix.write("f", b"x");
    fix.replica
        .update(|tx| tx.clear_dirty(&fix.place("f")))
        .unwrap();
    chmod(&fix, "f", 0o664);
    fix.replica
        .update(|tx| tx.clear_dirty(&fix.place("f")))
        .unwrap();
    set(&fix, "f", AclKind::Access, "u::6 u:5:6 g::4 m::6 o::4").unwrap();
    assert_eq!(fix.dirty(), BTreeSet::new());
    set(&fix, "f", AclKind::Access, "u::6 u:5:6 g::4 m::4 o::4").unwrap();
    assert_eq!(fix.dirty(), BTreeSet::from(["f".to_owned()]));
}

#[test]
fn what_is_no_list_is_refused_and_changes_nothing() {
    let fix = fixture();
    fix.write("f", b"x");
    fix.mkdir("d");
    for wrong in ["u::7 g::4", "u::7 u:5:6 g::4 o::0", "g::4 u::7 o::0"] {
        for (path, kind) in [("f", AclKind::Access), ("d", AclKind::Default)] {
            let refused = errno(set(&fix, path, kind, wrong));
            assert_eq!(refused, libc::EINVAL, "{wrong}");
            assert_eq!(fix.home.xattrs(fix.id(path)).unwrap().len(), 0);
        }
    }
    assert_eq!(mode(&fix, "f"), 0o644);
    let on_a_file = set(&fix, "f", AclKind::Default, "u::7 g::4 o::0");
    assert_eq!(errno(on_a_file), libc::EOPNOTSUPP);
    let for_nobody = done(fix.home.set_xattr(fix.id("f"), ACCESS, b"", XattrMode::Any));
    assert_eq!(errno(for_nobody), libc::EOPNOTSUPP);
}

#[test]
fn what_is_made_in_a_directory_begins_with_its_default_list_instead_of_the_umask() {
    let fix = fixture();
    fix.mkdir("d");
    make(&fix, "d/before", 0o666, 0o027);
    assert_eq!(mode(&fix, "d/before"), 0o640);
    let inherited = "u::7 u:5:7 g::5 m::7 o::4";
    set(&fix, "d", AclKind::Default, inherited).unwrap();
    assert_eq!(mode(&fix, "d"), 0o755);

    make(&fix, "d/f", 0o666, 0o077);
    assert_eq!(mode(&fix, "d/f"), 0o664);
    let of_file = list("u::6 u:5:7 g::5 m::6 o::4");
    assert_eq!(get(&fix, "d/f", ACCESS), Some(of_file));
    make(&fix, "d/e-d", 0o2770, 0o077);
    assert_eq!(mode(&fix, "d/e-d"), 0o2770);
    let of_dir = list("u::7 u:5:7 g::5 m::7 o::0");
    assert_eq!(get(&fix, "d/e-d", ACCESS), Some(of_dir));
    assert_eq!(get(&fix, "d/e-d", DEFAULT), Some(list(inherited)));
    let opened = fix.create("d/e-d/deep");
    assert_eq!(opened.attr.mode, 0o644);
    let of_deep = list("u::6 u:5:7 g::5 m::4 o::4");
    assert_eq!(get(&fix, "d/e-d/deep", ACCESS), Some(of_deep));
    fix.home.release(opened.handle).unwrap();
    let target = done(fix.home.symlink(fix.id("d"), &name("link"), b"to", ME)).unwrap();
    assert_eq!(
        (target.mode, fix.home.xattrs(target.id).unwrap().len()),
        (0o777, 0)
    );

    // A default list that says what a mode says is inherited by directories, and leaves no other trace.
    set(&fix, "d", AclKind::Default, "u::7 g::5 o::0").unwrap();
    make(&fix, "d/plain", 0o666, 0);
    assert_eq!(mode(&fix, "d/plain"), 0o640);
    assert_eq!(get(&fix, "d/plain", ACCESS), None);
    set(&fix, "d", AclKind::Default, "").unwrap();
    assert_eq!(get(&fix, "d", DEFAULT), None);
    make(&fix, "d/after", 0o666, 0o077);
    assert_eq!(mode(&fix, "d/after"), 0o600);
}

#[test]
fn a_list_by_somebody_outside_of_the_group_ends_acting_as_that_group() {
    let fix = fixture();
    fix.write("f", b"x");
    for (groups, expected) in [
        (Groups::Only(vec![7, ME.gid]), 0o2750),
        (Groups::All, 0o2750),
        (Groups::Only(vec![7]), 0o750),
    ] {
        chmod(&fix, "f", 0o2700);
        let list = list("u::7 g::5 o::0");
        done(
            fix.home
                .set_acl(fix.id("f"), AclKind::Access, &list, &groups),
        )
        .unwrap();
        assert_eq!(mode(&fix, "f"), expected, "{groups:?}");
    }
}
