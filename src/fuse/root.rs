//! mount(2) and umount(2) for FUSE, which only root may call.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::session::Unmount;

/// The file system's type is `fuse.` and this.
pub(super) const SUBTYPE: &str = "roamhome";

const DEV_FUSE: &str = "/dev/fuse";

/// Who owns a mount: whose daemon serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Opens the device by which the kernel asks.
pub(super) fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEV_FUSE)
}

/// Mounts; the answer is where the kernel asks. The kernel then shows the full type, `fuse.roamhome`, by which others
/// recognise the mount.
pub(super) fn mount(
    source: &str,
    at: &Path,
    owner: Owner,
    allow_other: bool,
) -> Result<OwnedFd, io::Error> {
    let fuse = open_device()?;
    let mode = at.metadata()?.mode();
    let mut data = format!(
        "fd={},rootmode={mode:o},user_id={},group_id={},default_permissions",
        fuse.as_raw_fd(),
        owner.uid,
        owner.gid,
    );
    if allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let kind = format!("fuse.{SUBTYPE}");
    rustix::mount::mount(source, at, kind.as_str(), flags, data.as_c_str())?;
    Ok(fuse.into())
}

/// Unmounts; fine if others have done so.
pub(super) fn unmount(at: &Path, how: Unmount) -> Result<(), Errno> {
    let flags = match how {
        Unmount::IfUnused => UnmountFlags::empty(),
        Unmount::Lazily => UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(at, flags | UnmountFlags::NOFOLLOW) {
        Err(Errno::INVAL) => Ok(()),
        unmounted => unmounted,
    }
}
