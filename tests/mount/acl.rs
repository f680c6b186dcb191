//! Access control lists: the same commands in the home and in a directory of the disk have to say the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use roamhome::engine::Events;
use roamhome::replica::ReplicaError;
use roamhome::tree::NodeId;
use rustix::fs::XattrFlags;

use crate::support::mounted::TestMount;
use crate::support::user::{ANN, BOB, as_user};

/// What each script begins with: `ann` and `bob` run a command as a user, who is in group 50, too, if `bob`. All that is
/// said goes to one place.
const BEGIN: &str = "
    exec 2>&1
    ann() { setpriv --reuid 54001 --regid 54001 --clear-groups -- \"$@\"; }
    bob() { setpriv --reuid 54002 --regid 54002 --groups 50 -- \"$@\"; }
    lists() {
        (cd $1; find . | sort | while read f; do stat -c '%n %A %u:%g' $f; [ -h $f ] || getfacl -cn $f; done)
    }
    umask 022
";

/// What a script says that is run in `dir`.
fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("{BEGIN}{script}")])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What a script says, which is the same in the home and on the disk.
#[track_caller]
fn same(script: &str) -> String {
    let mount = TestMount::new();
    let disk = mount.outside("disk");
    for dir in [&disk, &mount.path()] {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    }
    let expected = sh(&disk, script);
    assert_eq!(sh(&mount.path(), script), expected);
    expected
}

#[test]
fn a_list_says_who_may_and_the_mode_is_its_mask() {
    let said = same(
        "echo hello > f; chmod 600 f; ann cat f
         setfacl -m u:54001:r f; ann cat f; getfacl -cn f
         chmod 600 f; ann cat f; getfacl -cn f; chmod 640 f; ann cat f; bob cat f
         setfacl -m g:50:rw f; bob sh -c 'cat f; echo more >> f'; ann sh -c 'echo less >> f'; cat f
         ann setfacl -m u:54001:rwx f; ann chmod 777 f
         ln f g; chmod 620 g; getfacl -cn f; ls -ln f | cut -c1-11
         setfacl -x u:54001 f; getfacl -cn f; setfacl -b f; getfacl -cn f; getfattr -m - f
         mkdir -p d/e; chmod 700 d; ann ls d/e; setfacl -m u:54001:x d; ann ls d/e; ann ls d
         setfacl -d -m u:54001:r f; setfacl -m u::x,g::r f; setfacl -m m::r g; getfacl -cn f; getfattr -m - g
         : > s; chown 54002:50 s
         for who in 'bob' 'ann' ''; do chmod 2770 s; $who setfacl -m u:54001:rx s; stat -c %a s; done
         chown 54002:54001 s; chmod 2770 s; bob setfacl -m u:54001:rwx s; stat -c %a s",
    );
    for part in [
        "user:54001:r--",
        "Permission denied",
        "mask::-w-",
        "more",
        "2770\n",
        "\n770\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn what_is_made_in_a_directory_inherits_its_list() {
    let said = same(
        "make() { echo $1 > d/f$1; mkdir d/d$1; mkfifo d/p$1; ln -s x d/l$1; install -m 711 d/f$1 d/i$1; }
         mkdir d; umask 027; make 4; umask 0; make 5; umask 022; lists d; rm -r d/*
         setfacl -d -m u:54001:rwx,g:50:rx d; getfacl -cn d
         make 1; umask 077; make 2; umask 0; make 3; umask 022
         echo deep > d/d1/f; lists d
         ann sh -c 'cat d/f1; echo more >> d/f2; cat d/f2 d/d1/f; : > d/new'
         chmod 2775 d; setfacl -m u:54001:rwx d; ann sh -c 'umask 077; : > d/ann; mkdir d/anns'; lists d
         setfacl -k d; : > d/plain; mkdir d/plain-dir; lists d; setfacl -d -m u::rx d; : > d/less; lists d
         mv d/f1 .; mv d/d1 .; lists .; for f in f1 d1 d; do getfattr -m - $f; done",
    );
    for part in [
        "default:user:54001:rwx",
        "system.posix_acl_default",
        "mask::rw-",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn programs_that_copy_lists_find_and_keep_them() {
    let said = same(
        "mkdir d; setfacl -d -m u:54001:rwx d; setfacl -m g:50:wx d; echo x > d/f; mkdir d/e; echo y > d/e/g
         chmod 640 d/f; setfattr -n user.a -v b d/f; lists d > before
         cp -a d cp; lists cp | cmp - before && echo same by cp
         tar --acls --xattrs -cf t.tar d; mkdir tar; tar --acls --xattrs -xpf t.tar -C tar
         lists tar/d | cmp - before && echo same by tar
         rsync -aAX d/ rsync/; lists rsync | cmp - before && echo same by rsync
         rsync -aAXi --dry-run d/ rsync/
         cp -r d plain; lists plain; cp --preserve=mode d/f alone; getfacl -cn alone
         sed -i s/x/z/ d/f; getfacl -cn d/f",
    );
    for by in ["cp", "tar", "rsync"] {
        assert!(said.contains(&format!("same by {by}\n")), "{said}");
    }
}

#[test]
fn what_is_no_list_is_refused_by_its_errno() {
    let mount = TestMount::new();
    let disk = mount.outside("disk");
    let entry = |tag: u16, permissions: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &permissions.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let list = |entries: &[Vec<u8>]| [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
    let (owner, group, other) = (entry(1, 6, 0), entry(4, 6, 0), entry(32, 0, 0));
    let user = entry(2, 6, 5);
    let mask = entry(16, 7, 0);
    let values = [
        Vec::new(),
        list(&[]),
        vec![2, 0, 0, 0, 1],
        3_u32.to_le_bytes().to_vec(),
        list(&[owner.clone(), group.clone()]),
        list(&[owner.clone(), user.clone(), group.clone(), other.clone()]),
        list(&[owner.clone(), user, group.clone(), mask, other.clone()]),
        list(&[group.clone(), owner.clone(), other.clone()]),
        list(&[entry(1, 9, 0), group.clone(), other.clone()]),
        list(&[owner, group, other]),
    ];
    for dir in [&disk, &mount.path()] {
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("f"), "x").unwrap();
        std::os::unix::fs::symlink("f", dir.join("l")).unwrap();
    }
    let outcome = |dir: &Path, path: &str, kind: &str, value: &[u8]| {
        let name = format!("system.posix_acl_{kind}");
        let path = dir.join(path);
        let set = rustix::fs::lsetxattr(&path, &name, value, XattrFlags::empty());
        let mut got = [0; 256];
        let got = rustix::fs::lgetxattr(&path, &name, &mut got[..]).map(|len| got[..len].to_vec());
        let removed = rustix::fs::lremovexattr(&path, &name);
        let mode = fs::symlink_metadata(&path).unwrap().mode();
        // A disk finds nothing to remove, or says nothing, as it likes.
        let removed = removed.or_else(|error| match error {
            rustix::io::Errno::NODATA => Ok(()),
            error => Err(error),
        });
        (set, got, removed, mode)
    };
    for value in values {
        for path in ["d", "f", "l"] {
            for kind in ["access", "default", "other"] {
                let expected = outcome(&disk, path, kind, &value);
                let found = outcome(&mount.path(), path, kind, &value);
                assert_eq!(found, expected, "{path} {kind} {value:?}");
            }
        }
    }
}

#[test]
fn a_list_outlives_the_mount_and_follows_a_mode_that_comes_from_the_server() {
    let mount = TestMount::new();
    let path = mount.join("f");
    fs::write(&path, "x").unwrap();
    chown(&path, Some(BOB), Some(BOB)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let set = Command::new("setfacl")
        .args(["-m", "u:54001:rw"])
        .arg(&path)
        .status();
    assert!(set.unwrap().success());
    let mount = mount.remount();
    let path = mount.join("f");
    let may_write = || {
        as_user(ANN, &[], || {
            fs::OpenOptions::new().write(true).open(&path).is_ok()
        })
    };
    assert!(may_write());

    let id = NodeId(fs::metadata(&path).unwrap().ino());
    for (mode, may) in [(0o640, false), (0o660, true), (0o600, false)] {
        let taken = mount.replica.update(|tx| {
            let mut node = tx.node(id)?.unwrap();
            node.mode = mode;
            tx.put_node(node)
        });
        taken.unwrap_or_else(|error: ReplicaError| panic!("{error}"));
        mount.notices.node_changed(id);
        super::cold::wait_for(|| may_write() == may);
        let list = sh(&mount.path(), "getfacl -cn f");
        let mask = if may { "mask::rw-" } else { "mask::" };
        assert!(
            list.contains("user:54001:rw-") && list.contains(mask),
            "{list}"
        );
    }
}
