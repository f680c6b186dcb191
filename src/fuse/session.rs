//! Mounting and unmounting.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use fuser::{Config, MountOption, Session, SessionACL};
use rustix::io::Errno;

use super::adapter::Adapter;
use super::backing::Direct;
use super::broker::Broker;
use super::notify::{Notices, Teller};
use super::root::{self, Owner, SUBTYPE};
use crate::fs::{Home, Passage, Worth};

/// Threads that serve the kernel's requests: few, for none of them ever waits for the network.
const THREADS: std::ops::RangeInclusive<usize> = 2..=8;

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// What `mount` shows as the device, such as `user@server:/path`.
    pub source: String,
    /// Whether other users may look in, as far as the modes of files permit. sshd and sudo are such others.
    pub allow_other: bool,
    /// Who mounts and unmounts, if not this process.
    pub broker: Option<Arc<Broker>>,
    /// Which files the kernel shall read and write by itself, where it can be told to.
    pub by_kernel: Worth,
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
    broker: Option<Arc<Broker>>,
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
    let source = source_name(&options.source);
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
    // Each thread opens the device for itself, which some machines leave to root.
    config.clone_fd = root::open_device().is_ok();
    let adapter = |passage: Option<Arc<dyn Passage>>| {
        let passage = passage.map(|passage| (passage, options.by_kernel));
        Adapter::new(Arc::clone(&home), notices.board(), passage)
    };
    let session = match mount_directly(&source, &at, options)? {
        Some(fuse) => {
            let passage: Arc<dyn Passage> = match &options.broker {
                Some(broker) => Arc::clone(broker) as _,
                None => Arc::new(Direct(fuse.try_clone()?)),
            };
            Session::from_fd(adapter(Some(passage)), fuse, config.acl, config)?
        }
        // Only root may tell the kernel of files.
        None => Session::new(adapter(None), &at, &config)?,
    };
    let fuse = session.as_fd().try_clone_to_owned()?;
    let teller = notices.connect(session.notifier(), fuse)?;
    let session = session.spawn()?;
    let looking = Arc::clone(&home);
    let looker = thread::Builder::new()
        .name("by-kernel".into())
        .spawn(move || looking.keep_looking())?;
    let end = thread::Builder::new().name("mount".into()).spawn(move || {
        let ended = end_of(session.join());
        home.look_no_more();
        if looker.join().is_err() {
            tracing::error!("the thread that looks at what the kernel writes panicked");
        }
        over();
        ended
    })?;
    Ok(Mounted {
        end,
        _teller: teller,
        at,
        broker: options.broker.clone(),
    })
}

/// What `mount` shows as the device of the home `source`.
pub(super) fn source_name(source: &str) -> String {
    format!("roamhome:{source}")
}

/// How serving ended. A thread that took a request in the moment of the unmount is told that the connection was
/// aborted (`fuse_dev_do_read` of the kernel), all others that the device is gone: both are the end.
fn end_of(served: io::Result<()>) -> io::Result<()> {
    match served {
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
        served => served,
    }
}

/// Mounts with mount(2), which only root may, or has a broker do it; `None` for others, who need fusermount3.
fn mount_directly(source: &str, at: &Path, options: &MountOptions) -> io::Result<Option<OwnedFd>> {
    if let Some(broker) = &options.broker {
        return broker.mount().map(Some);
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owner = Owner {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
    };
    match root::mount(source, at, owner, options.allow_other) {
        // Root in a user namespace may lack the capability.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => Ok(None),
        mounted => mounted.map(Some),
    }
}

impl Mounted {
    /// Unmounts; `wait` tells when the last request was served. Fine if others have done so.
    pub fn unmount(&self, how: Unmount) -> io::Result<()> {
        if let Some(broker) = &self.broker {
            return broker.unmount(how);
        }
        match root::unmount(&self.at, how) {
            Err(Errno::PERM) => fusermount(&self.at, how),
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
