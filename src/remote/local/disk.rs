//! A home on a disk that may be taken away: how it is served, and how its absence is told from its emptiness.
//!
//! Where a disk is not mounted, its mount point is an empty directory, which must never pass for a home whose files were
//! all deleted. So a directory is not served where `fstab` wants a disk that is not there, nor where there was a home
//! and there is no `.roamhome/` now; and a session ends as soon as the path leads to another directory than at its start.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use tokio::net::unix::pipe;

use super::LocalSession;
use crate::remote::{ErrorKind, RemoteError, layout, serve};
use crate::tree::RelPath;

/// Which directory a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Presence {
    device: u64,
    inode: u64,
}

impl Presence {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
        })
    }

    /// Whether `path` leads there still. A disk that is gone is `ENODEV`.
    pub(super) fn check(&self, path: &Path) -> io::Result<()> {
        match Self::of(path) {
            Ok(now) if now == *self => Ok(()),
            Ok(_) | Err(_) => Err(Errno::NODEV.into()),
        }
    }
}

/// Whether only a disk, or a network's file system, that went away says so.
pub(super) fn is_gone(error: Errno) -> bool {
    matches!(
        error,
        Errno::NODEV | Errno::NXIO | Errno::STALE | Errno::NOTCONN | Errno::SHUTDOWN
    )
}

/// Serves the directory `root` on standard input and output, over which both have to be pipes, until the other end
/// hangs up or the directory goes away. `known` is whether there was a home in it before.
///
/// An error of the kind `Disconnected` means that it is not there, and may come back.
pub fn serve_directory(root: &Path, known: bool) -> Result<(), RemoteError> {
    let failed = |error: io::Error| {
        let text = format!("{}: {error}", root.display());
        RemoteError::new(ErrorKind::Failure, "serve", &RelPath::root(), text)
    };
    check(root, known)?;
    let session = LocalSession {
        presence: Some(Presence::of(root).map_err(failed)?),
        ..LocalSession::new(root)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
    let served = runtime.block_on(async {
        let reader = pipe::Receiver::from_owned_fd(stdin)?;
        let writer = pipe::Sender::from_owned_fd(stdout)?;
        serve(reader, writer, Arc::new(session)).await
    });
    match served {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
        _ => Ok(()),
    }
}

fn check(root: &Path, known: bool) -> Result<(), RemoteError> {
    let away =
        |why: String| RemoteError::new(ErrorKind::Disconnected, "look at", &RelPath::root(), why);
    let fstab = fs::read("/etc/fstab").unwrap_or_default();
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    if let Some(point) = unmounted(root, &fstab, &mounts) {
        let point = point.display();
        return Err(away(format!(
            "nothing is mounted at {point}, although /etc/fstab says so"
        )));
    }
    match fs::metadata(root) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            let text = "it is not a directory".to_owned();
            let root = RelPath::root();
            return Err(RemoteError::new(ErrorKind::Failure, "look at", &root, text));
        }
        Err(error) => {
            return Err(away(format!(
                "it is not there ({error}); is its disk mounted?"
            )));
        }
    }
    if known && !root.join(layout::DIRECTORY).is_dir() {
        return Err(away(format!(
            "there is no home in it; is its disk mounted? If it is to be this home all the same, make {} in it",
            layout::DIRECTORY
        )));
    }
    Ok(())
}

/// The directory at or above `root` where fstab mounts something, and nothing is mounted.
fn unmounted(root: &Path, fstab: &[u8], mountinfo: &[u8]) -> Option<PathBuf> {
    let field = |line: &[u8], number: usize| {
        let text = String::from_utf8_lossy(line);
        let field = text.split_ascii_whitespace().nth(number)?;
        // The escapes that both files use.
        let plain = field.replace("\\040", " ").replace("\\011", "\t");
        Some(PathBuf::from(plain.replace("\\134", "\\")))
    };
    let lines = |text: &'_ [u8], number: usize| -> Vec<PathBuf> {
        let lines = text.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.trim_ascii_start().starts_with(b"#"));
        lines.filter_map(|line| field(line, number)).collect()
    };
    let wanted = lines(fstab, 1);
    let mounted = lines(mountinfo, 4);
    let mut above = root.ancestors();
    above
        .find(|dir| wanted.iter().any(|point| point == dir) && !mounted.iter().any(|m| m == dir))
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Session;
    use crate::tree::Name;

    #[test]
    fn a_disk_that_fstab_wants_and_nobody_mounted_is_told() {
        let fstab = b"# /dev/sdx /media/no ext4\n/dev/sda / ext4 x 0 0\nUUID=1 /media/my\\040usb auto noauto 0 0\n\
            UUID=2 none swap sw\n";
        let mounts = b"22 1 8:1 / / rw - ext4 /dev/sda rw\n";
        let all = b"22 1 8:1 / / rw - ext4 /dev/sda rw\n23 22 8:2 / /media/my\\040usb rw - vfat /dev/sdb rw\n";
        let missing = |root: &str, mounts: &[u8]| unmounted(Path::new(root), fstab, mounts);
        let usb = Some(PathBuf::from("/media/my usb"));
        assert_eq!(missing("/media/my usb", mounts), usb);
        assert_eq!(missing("/media/my usb/home", mounts), usb);
        assert_eq!(missing("/media/my usb/home", all), None);
        assert_eq!(missing("/media/no/home", mounts), None);
    }

    #[tokio::test]
    async fn a_directory_that_is_exchanged_ends_the_session_and_shows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (root, disk) = (dir.path().join("mnt"), dir.path().join("disk"));
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        let session = LocalSession {
            presence: Some(Presence::of(&root).unwrap()),
            ..LocalSession::new(&root)
        };
        assert_eq!(session.list(&RelPath::root()).await.unwrap().len(), 1);
        fs::rename(&root, &disk).unwrap();
        fs::create_dir(&root).unwrap();
        let lost = session.list(&RelPath::root()).await.unwrap_err();
        assert_eq!(lost.kind, ErrorKind::Disconnected);
        assert!(session.is_closed());
        let made = [Name::new(b"d").unwrap()].into_iter().collect();
        assert!(session.mkdir(&made, 0o700).await.is_err());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_there_may_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let kind = |path: &Path, known| check(path, known).map_err(|error| error.kind);
        assert_eq!(kind(dir.path(), false), Ok(()));
        assert_eq!(kind(dir.path(), true), Err(ErrorKind::Disconnected));
        let none = dir.path().join("none");
        assert_eq!(kind(&none, false), Err(ErrorKind::Disconnected));
        fs::write(&none, "").unwrap();
        assert_eq!(kind(&none, false), Err(ErrorKind::Failure));
        fs::create_dir(dir.path().join(layout::DIRECTORY)).unwrap();
        assert_eq!(kind(dir.path(), true), Ok(()));
    }
}
