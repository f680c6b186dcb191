//! A disk whose power can be cut between any two of its blocks.
//!
//! It is a loop device over a file in memory. To cut the power, that file is sealed against writing: what the
//! kernel wrote before is on the disk, every write after that moment fails, and so does every `fsync` that would
//! need one. The same for all file systems. Those that have it also get their own shutdown, as xfstests uses it:
//! nothing more is written, not even the log.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, memfd_create, seek};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::support::machine::eventually;

/// The least that XFS wants, and some.
const SIZE: u64 = 512 << 20;

/// How the power goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    /// No block is written any more.
    Seal,
    /// The file system itself stops, and forgets what it had not written.
    Shutdown,
}

/// A mounted file system on a disk of its own; gone when dropped.
pub(crate) struct Disk {
    kind: &'static str,
    at: PathBuf,
    image: File,
    /// The loop device, while there is one.
    device: Option<String>,
}

/// Whether this kernel knows the file system, after it was asked to load it. It is said aloud if not: the test
/// would show nothing.
pub(crate) fn kernel_has(kind: &str) -> bool {
    let knows = || {
        let text = fs::read_to_string("/proc/filesystems").unwrap();
        text.lines().any(|line| line.trim() == kind)
    };
    if !knows() {
        // It may be built in, missing, or there is no modprobe.
        drop(Command::new("modprobe").arg(kind).output());
    }
    let known = knows();
    if !known {
        // Past the test harness, which keeps what a test prints that passes.
        let line = format!("\nNOT TESTED: what needs {kind}, which this kernel lacks\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    known
}

/// Runs a command of the system, which has to succeed; answers what it printed.
#[track_caller]
pub(crate) fn run(program: &str, args: &[&OsStr]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.args(args).env("PATH", path + ":/usr/sbin:/sbin");
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {error}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn new_image() -> File {
    // `mkfs.btrfs` takes loop devices whose files have one name for one, and refuses what is mounted.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("disk-{}-{number}", std::process::id());
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let image: OwnedFd = memfd_create(name, flags).unwrap();
    let image = File::from(image);
    image.set_len(SIZE).unwrap();
    image
}

impl Disk {
    /// A new file system, mounted at `at`.
    pub(crate) fn new(kind: &'static str, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut disk = Self {
            kind,
            at: at.to_owned(),
            image: new_image(),
            device: None,
        };
        disk.attach();
        let device = disk.device.clone().unwrap();
        run(&format!("mkfs.{kind}"), &["-q".as_ref(), device.as_ref()]);
        disk.mount();
        disk
    }

    fn attach(&mut self) {
        let file = format!("/proc/{}/fd/{}", std::process::id(), self.image.as_raw_fd());
        let args = ["--find", "--show", &file].map(OsStr::new);
        self.device = Some(run("losetup", &args));
    }

    fn detach(&mut self) {
        if let Some(device) = self.device.take() {
            run("losetup", &["-d".as_ref(), device.as_ref()]);
        }
    }

    fn mount(&self) {
        let device = self.device.as_deref().unwrap();
        let args = ["-t", self.kind, device].map(OsStr::new);
        run("mount", &[&args[..], &[self.at.as_os_str()]].concat());
    }

    /// Cuts the power. Whoever uses the disk sees errors from now on.
    pub(super) fn cut(&self, how: Cut) {
        match how {
            Cut::Seal => fcntl_add_seals(&self.image, SealFlags::WRITE).unwrap(),
            Cut::Shutdown => drop(run(
                "xfs_io",
                &[
                    "-x".as_ref(),
                    "-c".as_ref(),
                    "shutdown".as_ref(),
                    self.at.as_ref(),
                ],
            )),
        }
    }

    /// The ways to cut it.
    pub(super) fn cuts(&self) -> &'static [Cut] {
        match self.kind {
            "ext4" | "xfs" => &[Cut::Seal, Cut::Shutdown],
            _ => &[Cut::Seal],
        }
    }

    /// Switches the power on again: what had reached the disk is there, and the file system's log is replayed.
    pub(super) fn power_on(&mut self) {
        eventually("nobody uses the disk any more", || {
            match unmount(&self.at, UnmountFlags::empty()) {
                Err(Errno::BUSY) => false,
                unmounted => {
                    unmounted.unwrap();
                    true
                }
            }
        });
        self.detach();
        let image = new_image();
        copy(&self.image, &image);
        self.image = image;
        self.attach();
        self.mount();
    }
}

/// Copies what is not a hole.
fn copy(from: &File, to: &File) {
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    // Past the last data there is no more of it.
    while let Ok(start) = seek(from, SeekFrom::Data(at)) {
        let end = seek(from, SeekFrom::Hole(start)).unwrap();
        at = start;
        while at < end {
            let part = (end - at).min(buffer.len() as u64) as usize;
            from.read_exact_at(&mut buffer[..part], at).unwrap();
            to.write_all_at(&buffer[..part], at).unwrap();
            at += part as u64;
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever state a failed test left it in; the device goes with its last user.
        let _unmounted = unmount(&self.at, UnmountFlags::DETACH);
        if let Some(device) = self.device.take() {
            drop(Command::new("losetup").args(["-d", &device]).output());
        }
    }
}
