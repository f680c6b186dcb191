//! The keys that let their user into this machine before the home is mounted: a copy of the home's `authorized_keys`, kept
//! in the state directory for `roamhome authorized-keys`.
//!
//! sshd asks when nobody has a session, so there is no mount, and no password that could bring one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::lifecycle::Daemon;
use crate::engine::Fetching;
use crate::fs::{Caller, OpenOptions, Stop};
use crate::remote::without_machines;
use crate::replica::{Content, Node};
use crate::tree::{Kind, RelPath, Time};

/// The copy.
const COPY: &str = "authorized_keys";
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Longer than any such file.
const MAX_BYTES: u64 = 1 << 20;

/// What is known of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing, since what it is in was not listed.
    Unknown,
    /// There is none that sshd would take.
    Absent,
    /// The file, as of this change.
    File { ctime: Time, size: u64 },
}

/// The copy; empty if there is none.
pub(super) fn read(state_dir: &Path) -> io::Result<Vec<u8>> {
    match fs::read(state_dir.join(COPY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// Keeps the copy equal for as long as the daemon lives.
pub(super) async fn keep(daemon: Arc<Daemon>) {
    let mut last = Seen::Unknown;
    loop {
        match look(&daemon) {
            Ok((seen, node)) if seen != last => {
                if take_over(&daemon, seen, node).await {
                    last = seen;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "authorized_keys cannot be looked at"),
        }
        sleep(LOOK).await;
    }
}

/// What is there now. As sshd does, takes no file that others may change (sshd_config(5), StrictModes).
fn look(daemon: &Daemon) -> Result<(Seen, Option<Node>), crate::replica::ReplicaError> {
    let mut node = None;
    for (path, kind) in [
        (&b""[..], Kind::Dir),
        (b".ssh", Kind::Dir),
        (b".ssh/authorized_keys", Kind::File),
    ] {
        let Ok(path) = RelPath::parse(path) else {
            return Ok((Seen::Unknown, None));
        };
        let found = match daemon.engine.node_at(&path)? {
            None if node.is_some_and(|parent: Node| !parent.listed) => {
                return Ok((Seen::Unknown, None));
            }
            None => return Ok((Seen::Absent, None)),
            Some(found) if found.kind != kind || found.mode & 0o022 != 0 => {
                return Ok((Seen::Absent, None));
            }
            Some(found) => found,
        };
        node = Some(found);
    }
    let seen = node.as_ref().map_or(Seen::Absent, |node| Seen::File {
        ctime: node.ctime,
        size: node.size,
    });
    Ok((seen, node))
}

/// Whether the copy is as it was seen.
async fn take_over(daemon: &Arc<Daemon>, seen: Seen, node: Option<Node>) -> bool {
    let done = match (seen, node) {
        (Seen::Unknown, _) => return true,
        (_, None) => write(&daemon.request.state_dir, b""),
        (_, Some(node)) => {
            if node.content != Content::Whole && node.size > 0 {
                let progress = Fetching::default();
                let fetched = daemon.engine.prefetch(&[node.id], &progress).await;
                if !fetched.is_ok_and(|fetched| fetched.failed == 0) {
                    return false;
                }
            }
            let (at, reader) = (daemon.request.state_dir.clone(), Arc::clone(daemon));
            let copied = tokio::task::spawn_blocking(move || {
                let text = content(&reader, &node)?;
                write(&at, &without_machines(&text))
            });
            copied.await.unwrap_or_else(|error| Err(error.into()))
        }
    };
    done.inspect_err(|error| tracing::warn!(%error, "authorized_keys cannot be copied"))
        .is_ok()
}

fn content(daemon: &Daemon, node: &Node) -> io::Result<Vec<u8>> {
    if node.size > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let caller = Caller {
        uid: node.uid,
        gid: node.gid,
        umask: 0,
        pid: 0,
    };
    let opened = daemon.home.open(node.id, OpenOptions::default(), caller);
    let not_here = |_| io::Error::from(io::ErrorKind::WouldBlock);
    let opened = opened.map_err(not_here)?;
    let text = daemon.home.read(opened.handle, 0, MAX_BYTES as usize);
    let released = daemon.home.release(opened.handle);
    let text = text.map_err(|stop| match stop {
        Stop::Failed(error) => io::Error::other(error),
        needs @ Stop::Needs(_) => not_here(needs),
    })?;
    released.map_err(io::Error::other)?;
    Ok(text)
}

fn write(state_dir: &Path, text: &[u8]) -> io::Result<()> {
    if read(state_dir)? == text {
        return Ok(());
    }
    let (copy, next) = (state_dir.join(COPY), state_dir.join("authorized_keys.next"));
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(next, copy)
}
