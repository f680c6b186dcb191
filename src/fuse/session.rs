//! Mounting and unmounting.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use fuser::{Config, MountOption, Session, SessionACL};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::adapter::Adapter;
use super::notify::{Notices, Teller};
use crate::fs::Home;

/// The file system's type is `fuse.` and this.
const SUBTYPE: &str = "roamhome";

const DEV_FUSE: &str = "/dev/fuse";

/// Threads that serve the kernel's requests: few, for none of them ever waits for the network.
const THREADS: std::ops::RangeInclusive<usize> = 2..=8;

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// What `mount` shows as the device, such as `user@server:/path`.
    pub source: String,
    /// Whether other users may look in, as far as the modes of files permit. sshd and sudo are such others.
    pub allow_other: bool,
}

/// How to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nobody uses it.
    IfUnused,
    /// Take it from the tree of files now and go on serving those who have something open.
    Lazily,
}

/// A mounted home.
pub struct Mounted {
    end: JoinHandle<io::Result<()>>,
    // Until the end: it must be able to tell all the time.
    _teller: Teller,
    at: PathBuf,
}

/// Mounts `home` at the directory `at`; `notices` tell the kernel what the engine changes. Calls `over` when the
/// mount has ended, by our hands or others'.
pub fn mount(
    home: Arc<Home>,
    notices: &Notices,
    at: &Path,
    options: &MountOptions,
    over: impl FnOnce() + Send + 'static,
) -> io::Result<Mounted> {
    let at = at.canonicalize()?;
    let source = format!("roamhome:{}", options.source);
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source.clone()),
        MountOption::Subtype(SUBTYPE.to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    config.acl = match options.allow_other {
        true => SessionACL::All,
        false => SessionACL::Owner,
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    config.n_threads = Some(threads.clamp(*THREADS.start(), *THREADS.end()));
    config.clone_fd = true;
    let adapter = Adapter::new(home, notices.board());
    let session = match mount_as_root(&source, &at, options.allow_other)? {
        Some(fuse) => Session::from_fd(adapter, fuse, config.acl, config)?,
        None => Session::new(adapter, &at, &config)?,
    };
    let fuse = session.as_fd().try_clone_to_owned()?;
    let teller = notices.connect(session.notifier(), fuse)?;
    let session = session.spawn()?;
    let end = thread::Builder::new().name("mount".into()).spawn(move || {
        let ended = end_of(session.join());
        over();
        ended
    })?;
    Ok(Mounted {
        end,
        _teller: teller,
        at,
    })
}

/// How serving ended. A thread that took a request in the moment of the unmount is told that the connection was
/// aborted (`fuse_dev_do_read` of the kernel), all others that the device is gone: both are the end.
fn end_of(served: io::Result<()>) -> io::Result<()> {
    match served {
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
        served => served,
    }
}

/// Mounts with mount(2), which only root may; `None` for others, who need fusermount3. The kernel then shows
/// the full type, `fuse.roamhome`, by which others recognise the mount.
fn mount_as_root(source: &str, at: &Path, allow_other: bool) -> io::Result<Option<OwnedFd>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let fuse = OpenOptions::new().read(true).write(true).open(DEV_FUSE)?;
    let mode = at.metadata()?.mode();
    let mut data = format!(
        "fd={},rootmode={mode:o},user_id={},group_id={},default_permissions",
        fuse.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let kind = format!("fuse.{SUBTYPE}");
    match rustix::mount::mount(source, at, kind.as_str(), flags, data.as_c_str()) {
        Ok(()) => Ok(Some(fuse.into())),
        // Root in a user namespace may lack the capability.
        Err(Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Mounted {
    /// Unmounts; `wait` tells when the last request was served. Fine if others have done so.
    pub fn unmount(&self, how: Unmount) -> io::Result<()> {
        let flags = match how {
            Unmount::IfUnused => UnmountFlags::empty(),
            Unmount::Lazily => UnmountFlags::DETACH,
        };
        match rustix::mount::unmount(&self.at, flags) {
            Err(Errno::PERM) => fusermount(&self.at, how),
            Err(Errno::INVAL) => Ok(()),
            unmounted => Ok(unmounted?),
        }
    }

    /// Waits until it is unmounted, by us or by somebody else, and nobody uses it any more.
    pub fn wait(self) -> io::Result<()> {
        let ended = self.end.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the mount's thread panicked")))
    }
}

/// Who is not root needs help to unmount.
fn fusermount(at: &Path, how: Unmount) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if how == Unmount::Lazily {
        command.arg("-z");
    }
    let output = command.arg("--").arg(at).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unmount_amid_a_request_is_an_end_and_no_failure() {
        let told = |errno: Errno| end_of(Err(errno.into()));
        assert!(told(Errno::CONNABORTED).is_ok());
        assert!(told(Errno::IO).is_err());
        assert!(end_of(Ok(())).is_ok());
    }
}
