//! A home mounted by the kernel, with a fake server behind it; unmounted whatever happens.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roamhome::fs::Worth;
use roamhome::fuse::{MountOptions, Mounted, Notices, Unmount, mount};
use roamhome::replica::Replica;
use roamhome::tree::Time;
use tempfile::TempDir;

use super::fake::{self, FakeServer};
use super::machine::eventually;

/// A mounted home.
pub(crate) struct TestMount {
    mounted: Option<Mounted>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) server: Arc<FakeServer>,
    pub(crate) notices: Arc<Notices>,
    worth: Worth,
    dir: TempDir,
}

/// Files of any size are read and written by the kernel.
pub(crate) const ALL_BY_KERNEL: Worth = Worth {
    to_read: 0,
    to_write: 0,
};

/// The real time.
pub(crate) fn now() -> Time {
    roamhome::clock::now()
}

impl TestMount {
    /// Mounts a new, empty home.
    pub(crate) fn new() -> Self {
        Self::with(Worth::default())
    }

    /// The same, in a directory of its own below `dir`.
    pub(crate) fn at(dir: &Path) -> Self {
        Self::in_dir(tempfile::tempdir_in(dir).unwrap(), Worth::default())
    }

    /// The same, with files that are `worth` it read and written by the kernel.
    pub(crate) fn with(worth: Worth) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), worth)
    }

    fn in_dir(dir: TempDir, worth: Worth) -> Self {
        let at = dir.path().join("home");
        std::fs::create_dir_all(&at).unwrap();
        let (home, replica, server) =
            fake::home(&dir.path().join("state"), &["*.scoped"], now).unwrap();
        let notices = Arc::new(Notices::default());
        let options = MountOptions {
            source: "user@server:/it's a test".to_owned(),
            allow_other: true,
            broker: None,
            by_kernel: worth,
        };
        let mounted = mount(home, &notices, &at, &options, || {}).unwrap();
        // Other users may look in: some tests become one.
        for dir in [dir.path(), &at] {
            std::fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
        }
        Self {
            mounted: Some(mounted),
            replica,
            server,
            notices,
            worth,
            dir,
        }
    }

    /// Unmounts, closes everything and mounts the same home again.
    pub(crate) fn remount(mut self) -> Self {
        let mounted = self.mounted.take().unwrap();
        // A program that another test starts has our files open until it runs.
        eventually("the home is not used", || {
            mounted.unmount(Unmount::IfUnused).is_ok()
        });
        mounted.wait().unwrap();
        self.replica.close().unwrap();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        let worth = self.worth;
        drop(self);
        Self::in_dir(dir, worth)
    }

    /// Where the home is.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A path in the home.
    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    /// A directory beside the home, on the disk.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount(Unmount::Lazily).unwrap();
            mounted.wait().unwrap();
        }
        assert!(!is_mounted(&self.path()));
    }
}

/// Whether something is mounted at `path`, as the kernel tells.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|at| Path::new(at) == path)
}
