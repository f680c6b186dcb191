//! Access control lists beside a server that knows of modes alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::support::machine::{Machine, Site};

fn list(path: &Path) -> String {
    let output = Command::new("getfacl").arg("-cpn").arg(path).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

fn set(machine: &Machine, path: &str, entries: &str) {
    let status = Command::new("setfacl")
        .args(["-m", entries])
        .arg(machine.at(path))
        .status();
    assert!(status.unwrap().success());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_list_stays_here_and_its_mask_is_the_mode_on_both_sides() {
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    a.mount();
    fs::create_dir(a.at("d")).unwrap();
    fs::write(a.at("d/f"), "one").unwrap();
    fs::set_permissions(a.at("d/f"), Permissions::from_mode(0o640)).unwrap();
    set(&a, "d/f", "u:54001:rw");
    set(&a, "d", "d:u:54001:rwx");
    fs::write(a.at("d/inherits"), "x").unwrap();
    a.flush();
    let there = site.home().join("d/f");
    assert_eq!((mode(&there), mode(&a.at("d/f"))), (0o660, 0o660));
    assert!(!list(&there).contains("54001"));
    b.mount();
    assert!(!list(&b.at("d/f")).contains("54001"));

    // Another mode there is another mask here.
    fs::set_permissions(b.at("d/f"), Permissions::from_mode(0o644)).unwrap();
    b.flush();
    a.reconcile();
    assert_eq!(mode(&a.at("d/f")), 0o644);
    let now = list(&a.at("d/f"));
    assert!(
        now.contains("user:54001:rw-\t") && now.contains("mask::r--\n"),
        "{now}"
    );

    // Other content does not take the list away, and what comes from there has none.
    fs::write(b.at("d/f"), "another").unwrap();
    fs::write(b.at("d/from-there"), "x").unwrap();
    b.flush();
    a.reconcile();
    assert_eq!(fs::read(a.at("d/f")).unwrap(), b"another");
    assert_eq!(list(&a.at("d/f")), now);
    assert!(!list(&a.at("d/from-there")).contains("54001"));
    let before = [list(&a.at("d")), list(&a.at("d/inherits")), now];
    assert!(
        before.iter().all(|list| list.contains("54001")),
        "{before:?}"
    );

    // A new mount, after a death, shows what was there; and nobody takes the lists for changes.
    a.kill9();
    rustix::mount::unmount(a.home(), rustix::mount::UnmountFlags::DETACH).unwrap();
    a.mount();
    assert_eq!(
        [
            list(&a.at("d")),
            list(&a.at("d/inherits")),
            list(&a.at("d/f"))
        ],
        before
    );
    a.reconcile();
    assert_eq!(a.status()["unsent"]["files"], 0);
    a.umount();
    a.check();
}
