//! Copies within the home, where the state directory's disk can share blocks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::crash::disk::{Disk, kernel_has, run};
use crate::support::machine::needs_root;
use crate::support::mounted::TestMount;

const SIZE: usize = 4 << 20;

/// All files in `dir` of a size.
fn of_size(dir: &Path, size: u64) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                todo.push(path);
            } else if meta.len() == size {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_copy_within_the_home_shares_its_blocks_where_the_disk_can() {
    needs_root("it mounts disks");
    for kind in ["xfs", "btrfs"] {
        if !kernel_has(kind) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("disk");
        let _disk = Disk::new(kind, &at);
        let mount = TestMount::at(&at);
        let data: Vec<u8> = (0..SIZE).map(|n| (n / 1000) as u8).collect();
        fs::write(mount.join("f"), &data).unwrap();
        File::open(mount.join("f")).unwrap().sync_all().unwrap();
        let mut copy = Command::new("cp");
        let copy = copy.args(["f", "copy"]).current_dir(mount.path());
        assert!(copy.status().unwrap().success());
        File::open(mount.join("copy")).unwrap().sync_all().unwrap();
        assert!(fs::read(mount.join("copy")).unwrap() == data);
        let contents = of_size(&mount.outside("state"), SIZE as u64);
        assert_eq!(contents.len(), 2, "{contents:?}");
        for content in contents {
            let extents = run("filefrag", &["-v".as_ref(), content.as_os_str()]);
            assert!(extents.contains("shared"), "{kind}: {extents}");
        }
        // What is written to one of them is not in the other.
        fs::write(mount.join("f"), "less").unwrap();
        assert!(fs::read(mount.join("copy")).unwrap() == data);
    }
}
