//! A machine with its state directory on a disk that can lose its power. Each time the power comes back is another
//! boot, which the daemon has to notice: it runs where the boot has a number of its own.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use rustix::fs::statvfs;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

use super::disk::{Cut, Disk};
use crate::support::machine::{Machine, Site, eventually};

/// Runs a command in a mount namespace where the boot id is that of a file.
const BOOTED: &str = "mount --make-private /proc && \
    mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";

/// A machine, its disk, and its boots. What is first here goes first.
pub(super) struct Computer {
    pub(super) machine: Machine,
    disk: Disk,
    boot: u64,
    boot_id: PathBuf,
    _shared: Shared,
}

/// A directory whose mounts are seen in all namespaces.
struct Shared(PathBuf);

impl Shared {
    fn new(dir: PathBuf) -> Self {
        mount_bind(&dir, &dir).unwrap();
        let shared = Self(dir);
        mount_change(&shared.0, MountPropagationFlags::SHARED).unwrap();
        shared
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _unmounted = unmount(&self.0, UnmountFlags::DETACH);
    }
}

impl Computer {
    /// A new one with a disk of a kind, which has nothing mounted yet.
    pub(super) fn new(site: &Site, kind: &'static str) -> Self {
        let mut machine = site.machine(kind);
        let shared = Shared::new(machine.disk(""));
        let disk = Disk::new(kind, &machine.state());
        let boot_id = machine.disk("boot_id");
        let unshare = ["unshare", "--mount", "--propagation", "unchanged"];
        machine.via = unshare.map(OsString::from).to_vec();
        machine.via.extend(["sh", "-c", BOOTED].map(OsString::from));
        machine.via.push(boot_id.clone().into());
        let mut computer = Self {
            machine,
            disk,
            boot: 0,
            boot_id,
            _shared: shared,
        };
        computer.next_boot();
        computer
    }

    fn next_boot(&mut self) {
        self.boot += 1;
        fs::write(&self.boot_id, format!("boot {}\n", self.boot)).unwrap();
    }

    /// The ways in which its disk can lose its power.
    pub(super) fn cuts(&self) -> &'static [Cut] {
        self.disk.cuts()
    }

    /// Its disk has no power any more, and the daemon does not know yet.
    pub(super) fn cut(&self, how: Cut) {
        self.disk.cut(how);
    }

    /// The power comes back, once the daemon is dead. Nothing is mounted then.
    pub(super) fn power_on(&mut self) {
        let home = self.machine.home();
        eventually("the daemon is dead", || {
            statvfs(&home).is_err_and(|error| error == Errno::NOTCONN)
        });
        unmount(&home, UnmountFlags::DETACH).unwrap();
        self.disk.power_on();
        self.next_boot();
    }
}
