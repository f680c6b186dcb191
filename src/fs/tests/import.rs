//! Taking over a directory of the disk, and doing it again.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;

use super::*;

/// A home that was never listed, and a directory on the disk.
struct Import {
    home: Fixture,
    disk: TempDir,
}

impl Import {
    fn new() -> Self {
        Self {
            home: fixture(),
            disk: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.disk.path().join(path)
    }

    fn import(&self) -> Imported {
        self.import_as(Importing::default())
    }

    fn import_as(&self, how: Importing<'_>) -> Imported {
        let home = &self.home.home;
        home.import(self.disk.path(), how, &mut |_, _| {}).unwrap()
    }

    fn find(&self, path: &str) -> Option<Node> {
        let mut id = ROOT;
        for name in path.split('/') {
            let name = Name::new(name.as_bytes()).unwrap();
            id = self.home.home.lookup(id, &name).unwrap()?.id;
        }
        self.home.node(id)
    }

    fn content(&self, node: &Node) -> Vec<u8> {
        let mut file = self
            .home
            .replica
            .content()
            .open_read(node.id, true)
            .unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut content).unwrap();
        content
    }
}

fn is_like(node: &Node, path: &Path) -> bool {
    let meta = path.symlink_metadata().unwrap();
    let mtime = Time::new(meta.mtime(), meta.mtime_nsec() as u32);
    (node.mode, node.uid, node.mtime) == (meta.mode() & 0o7777, meta.uid(), mtime)
}

#[test]
fn all_that_a_home_can_hold_is_taken_over() {
    let import = Import::new();
    fs::create_dir_all(import.at("dir/inner")).unwrap();
    fs::write(import.at("dir/file"), "content").unwrap();
    fs::write(import.at("dir/empty"), "").unwrap();
    fs::hard_link(import.at("dir/file"), import.at("other")).unwrap();
    symlink("dir/file", import.at("link")).unwrap();
    for (path, name) in [("dir/file", "user.a"), ("dir", "user.b")] {
        rustix::fs::setxattr(import.at(path), name, b"value", XattrFlags::empty()).unwrap();
    }
    fs::set_permissions(import.at("dir"), fs::Permissions::from_mode(0o2750)).unwrap();
    let done = import.import();
    assert_eq!((done.files, done.problems.len()), (3, 0));
    let file = import.find("dir/file").unwrap();
    assert_eq!(import.content(&file), b"content");
    assert_eq!((file.nlink, import.find("other").unwrap().id), (2, file.id));
    for path in ["dir", "dir/inner", "dir/file", "dir/empty"] {
        assert!(
            is_like(&import.find(path).unwrap(), &import.at(path)),
            "{path}"
        );
    }
    assert_eq!(import.find("link").unwrap().target, b"dir/file");
    let home = &import.home.home;
    assert_eq!(home.xattr(file.id, b"user.a").unwrap(), b"value");
    let dir = import.find("dir").unwrap();
    assert_eq!(home.xattr(dir.id, b"user.b").unwrap(), b"value");
    assert_eq!(dir.nlink, 3);
}

#[test]
fn access_control_lists_are_taken_over_and_taken_again_when_they_change() {
    let import = Import::new();
    fs::create_dir(import.at("d")).unwrap();
    fs::write(import.at("d/f"), "x").unwrap();
    let setfacl = |arguments: &[&str]| {
        let mut command = std::process::Command::new("setfacl");
        let done = command.args(arguments).current_dir(import.disk.path());
        assert!(done.status().unwrap().success());
    };
    setfacl(&["-m", "u:1:rwx,d:u:1:rx", "d"]);
    setfacl(&["-m", "u:2:rw,m::r", "d/f"]);
    let expect = || {
        for (path, name) in [
            ("d", "system.posix_acl_access"),
            ("d", "system.posix_acl_default"),
            ("d/f", "system.posix_acl_access"),
        ] {
            let mut there = [0; 512];
            let len = rustix::fs::lgetxattr(import.at(path), name, &mut there[..]).unwrap();
            let node = import.find(path).unwrap();
            let here = import.home.home.xattr(node.id, name.as_bytes()).unwrap();
            assert_eq!(here, there[..len], "{path} {name}");
            assert!(is_like(&node, &import.at(path)), "{path}");
        }
    };
    let done = import.import();
    assert_eq!((done.with_acl, done.problems.len()), (2, 0));
    expect();
    setfacl(&["-m", "u:2:r,u:3:rwx,m::rwx", "d/f"]);
    assert_eq!(import.import().read, 0);
    expect();
    setfacl(&["-b", "d/f"]);
    import.import();
    let file = import.find("d/f").unwrap().id;
    assert_eq!(import.home.home.xattrs(file).unwrap(), [] as [Vec<u8>; 0]);
}

#[test]
fn done_again_it_reads_what_changed_and_nothing_else() {
    let import = Import::new();
    for path in ["kept", "longer", "gone", "dir-now", "one", "split"] {
        fs::write(import.at(path), "content").unwrap();
    }
    fs::create_dir_all(import.at("removed/inner")).unwrap();
    fs::hard_link(import.at("split"), import.at("split-too")).unwrap();
    import.import();
    let before = ["kept", "one", "split"].map(|path| import.find(path).unwrap().id);
    assert_eq!(import.import().read, 0);

    fs::write(import.at("longer"), "longer content").unwrap();
    fs::remove_file(import.at("gone")).unwrap();
    fs::remove_file(import.at("dir-now")).unwrap();
    fs::create_dir(import.at("dir-now")).unwrap();
    fs::remove_dir_all(import.at("removed")).unwrap();
    fs::hard_link(import.at("one"), import.at("two")).unwrap();
    fs::remove_file(import.at("split-too")).unwrap();
    fs::write(import.at("split-too"), "content").unwrap();
    assert_eq!(import.import().read, 4);
    let after = ["kept", "one", "split"].map(|path| import.find(path).unwrap().id);
    assert_eq!(before, after);
    assert_eq!(
        import.content(&import.find("longer").unwrap()),
        b"longer content"
    );
    assert!(import.find("gone").is_none() && import.find("removed").is_none());
    assert_eq!(import.find("dir-now").unwrap().kind, Kind::Dir);
    assert_eq!(
        import.find("two").unwrap().id,
        import.find("one").unwrap().id
    );
    let (one, other) = (
        import.find("split").unwrap(),
        import.find("split-too").unwrap(),
    );
    assert_ne!(one.id, other.id);
    assert_eq!((one.nlink, other.nlink), (1, 1));
    assert_eq!(import.import().read, 0);
}

#[test]
fn what_stays_here_is_taken_over_or_left_out_and_what_cannot_be_is_told() {
    let import = Import::new();
    fs::create_dir(import.at(".roamhome")).unwrap();
    fs::create_dir(import.at("scoped")).unwrap();
    fs::write(import.at("scoped/file"), "x").unwrap();
    fs::write(import.at("a.lock"), "x").unwrap();
    let rest = Importing {
        without_scoped: true,
        ..Importing::default()
    };
    let done = import.import_as(rest);
    assert_eq!((done.scoped, done.problems.len()), (2, 1));
    assert!(done.problems[0].0.ends_with(".roamhome"));
    assert!(import.find("scoped").is_none());
    import.import();
    let scoped = ["scoped", "scoped/file", "a.lock"].map(|path| import.find(path).unwrap().scoped);
    assert_eq!(scoped, [true; 3]);
    let dirty = import.home.replica.view(|view| view.dirty(9)).unwrap();
    assert_eq!(dirty, []);
}
