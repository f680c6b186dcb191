//! Mounting and unmounting.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::adapter::Adapter;
use super::notify::{Notices, Teller};
use crate::fs::Home;

/// The file system's type is `fuse.` and this.
const SUBTYPE: &str = "roamhome";

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

/// A mounted home. Dropping it unmounts if nobody uses it.
pub struct Mounted {
    session: BackgroundSession,
    // After the session: it must be able to tell until the end.
    _teller: Teller,
    at: PathBuf,
}

/// Mounts `home` at the directory `at`; `notices` tell the kernel what the engine changes.
pub fn mount(
    home: Arc<Home>,
    notices: &Notices,
    at: &Path,
    options: &MountOptions,
) -> io::Result<Mounted> {
    let at = at.canonicalize()?;
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(format!("roamhome:{}", options.source)),
        // fuser's own option is lost where no fusermount is needed.
        MountOption::CUSTOM(format!("subtype={SUBTYPE}")),
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
    let session = Session::new(Adapter::new(Arc::clone(&home)), &at, &config)?;
    let teller = notices.connect(home, session.notifier())?;
    Ok(Mounted {
        session: session.spawn()?,
        _teller: teller,
        at,
    })
}

impl Mounted {
    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Unmounts; `wait` tells when the last request was served.
    pub fn unmount(&self, how: Unmount) -> io::Result<()> {
        let flags = match how {
            Unmount::IfUnused => UnmountFlags::empty(),
            Unmount::Lazily => UnmountFlags::DETACH,
        };
        match rustix::mount::unmount(&self.at, flags) {
            Err(Errno::PERM) => fusermount(&self.at, how),
            unmounted => Ok(unmounted?),
        }
    }

    /// Waits until it is unmounted, by us or by somebody else, and nobody uses it any more.
    pub fn wait(self) -> io::Result<()> {
        let Self { session, .. } = self;
        session.join()
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
