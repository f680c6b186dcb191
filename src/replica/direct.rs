//! Content that the kernel writes for programs without asking us. Nothing tells of such a write but the file itself: its
//! size and its times. What is known of it is a *stamp*, and what came after it shows as another stamp.
//!
//! That holds only for a stamp that was taken with care ([`Direct::rest`]): the clock of file times stands still for a
//! tick, a write that is under way changed them when it began, and what is stored to a mapped page changes them only when
//! that page was on the disk before. A stamp without that care tells that something was written, never that nothing was.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, fdatasync, futimens};

use super::error::{AtPath, ReplicaError};
use super::index::Replica;
use super::recover::renew;
use super::rows::Node;
use crate::tree::{NodeId, Time};

/// Longer than the clock of file times ever stands still.
const TICK_NS: i64 = 50_000_000;

/// What a content file shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its length in bytes.
    pub size: u64,
    /// When it was written to.
    pub mtime: Time,
    /// When anything of it changed; nobody can set it.
    pub ctime: Time,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let time = |secs, nanos: i64| Time::new(secs, u32::try_from(nanos).unwrap_or_default());
        Ok(Self {
            size: meta.len(),
            mtime: time(meta.mtime(), meta.mtime_nsec()),
            ctime: time(meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// The content files that the kernel may write to.
#[derive(Debug, Default)]
pub(super) struct Directs(Mutex<HashMap<NodeId, Arc<Direct>>>);

/// One of them.
#[derive(Debug)]
struct Direct {
    file: Arc<File>,
    /// Locked before the index is.
    seen: Mutex<Seen>,
}

/// What was seen of it.
#[derive(Debug)]
struct Seen {
    /// All that shows this stamp is in the row; taken with care.
    known: Option<Stamp>,
    /// What was in the row when it was looked at last.
    looked: Stamp,
}

impl Directs {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Direct>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: NodeId) -> Option<Arc<Direct>> {
        self.lock().get(&id).cloned()
    }
}

impl Direct {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    /// From now on the kernel may write to `file`, the content of `id`, which is in flight. Until it does, the file
    /// shows the `mtime` of the row, also after the death of this process. With `changed`, the row says already that the
    /// content is not what was agreed on.
    pub fn begin_direct(
        &self,
        id: NodeId,
        file: Arc<File>,
        mtime: Time,
        changed: bool,
    ) -> Result<(), ReplicaError> {
        let looked = self.dated(&file, mtime)?;
        // Whatever is written in this very tick has to show.
        let known = (!changed && apart(looked.mtime, looked.ctime)).then_some(looked);
        let seen = Mutex::new(Seen { known, looked });
        let direct = Arc::new(Direct { file, seen });
        self.shared.directs.lock().insert(id, direct);
        Ok(())
    }

    /// What the content file of `id` shows, if the kernel may write to it.
    pub fn direct_stamp(&self, id: NodeId) -> Result<Option<Stamp>, ReplicaError> {
        let direct = self.shared.directs.get(id);
        direct.map(|direct| self.stamp(&direct.file)).transpose()
    }

    /// Takes into the row what programs wrote to `id` since the last time. Tells whether there was anything.
    pub fn account(&self, id: NodeId) -> Result<bool, ReplicaError> {
        match self.shared.directs.get(id) {
            Some(direct) => self.take_into_row(id, &direct, false),
            None => Ok(false),
        }
    }

    /// The kernel cannot write to `id` any more. Tells whether anything was written since the last time.
    pub fn end_direct(&self, id: NodeId) -> Result<bool, ReplicaError> {
        let Some(direct) = self.shared.directs.get(id) else {
            return Ok(false);
        };
        let changed = self.take_into_row(id, &direct, true)?;
        self.shared.directs.lock().remove(&id);
        Ok(changed)
    }

    /// What somebody from before the start goes on writing to.
    pub fn in_flight(&self) -> Result<Vec<NodeId>, ReplicaError> {
        self.view(|view| view.in_flight())
    }

    /// All that the kernel may write to.
    pub fn directs(&self) -> Vec<NodeId> {
        self.shared.directs.lock().keys().copied().collect()
    }

    fn take_into_row(&self, id: NodeId, direct: &Direct, last: bool) -> Result<bool, ReplicaError> {
        let mut seen = direct.seen();
        let now = self.stamp(&direct.file)?;
        if seen.known == Some(now) {
            return Ok(false);
        }
        let node = self.view::<_, ReplicaError>(|view| view.node(id))?;
        let told = seen.looked == now && node.is_none_or(|node| node.data_changed);
        // A page that is mapped may have been stored to without a sign.
        if told && !last {
            return Ok(false);
        }
        self.renew(id, now)?;
        *seen = Seen {
            known: None,
            looked: now,
        };
        Ok(true)
    }

    fn stamp(&self, file: &File) -> Result<Stamp, ReplicaError> {
        Stamp::of(file).at(&self.shared.state_dir)
    }

    fn dated(&self, file: &File, mtime: Time) -> Result<Stamp, ReplicaError> {
        set_mtime(file, mtime).at(&self.shared.state_dir)?;
        self.stamp(file)
    }

    fn renew(&self, id: NodeId, now: Stamp) -> Result<(), ReplicaError> {
        self.update(|tx| renew(tx, id, (now.size, now.mtime), now.ctime))
    }

    /// The time of change of `id` was set by a program: the file shows it, and counts as written to, for what was written
    /// in this moment shows nothing else.
    pub fn set_direct_mtime(&self, id: NodeId, mtime: Time) -> Result<(), ReplicaError> {
        let Some(direct) = self.shared.directs.get(id) else {
            return Ok(());
        };
        let mut seen = direct.seen();
        let now = self.dated(&direct.file, mtime)?;
        self.renew(id, now)?;
        *seen = Seen {
            known: None,
            looked: now,
        };
        Ok(())
    }

    /// Whether the content is still the one that `node` tells of.
    pub fn is_as_read(&self, node: &Node) -> Result<bool, ReplicaError> {
        self.account(node.id)?;
        let now = self.view::<_, ReplicaError>(|view| view.node(node.id))?;
        Ok(now.is_some_and(|now| now.data_seq == node.data_seq))
    }

    /// Waits for the writes under way to `id` if the kernel does them, takes them into the row, and gives the stamp
    /// that the file shows as long as nobody writes anything else.
    pub(super) fn rest(&self, id: NodeId) -> Result<Rest, ReplicaError> {
        let Some(direct) = self.shared.directs.get(id) else {
            return Ok(Rest::Ours);
        };
        let Some(stamp) = rest(&direct.file).at(&self.shared.state_dir)? else {
            thread::sleep(Duration::from_nanos(TICK_NS.unsigned_abs()));
            return Ok(Rest::Restless);
        };
        let mut seen = direct.seen();
        // The only thing that this changed is the time of change.
        let known = seen.known.map(|known| (known.size, known.mtime));
        if known != Some((stamp.size, stamp.mtime)) {
            self.renew(id, stamp)?;
        }
        *seen = Seen {
            known: Some(stamp),
            looked: stamp,
        };
        Ok(Rest::Shows(stamp))
    }

    /// Whether what [`Replica::rest`] told of `id` is still so.
    pub(super) fn rests_still(&self, id: NodeId, rest: Rest) -> Result<bool, ReplicaError> {
        let now = self.direct_stamp(id)?;
        Ok(match rest {
            Rest::Ours => now.is_none(),
            Rest::Restless => false,
            Rest::Shows(stamp) => now == Some(stamp),
        })
    }
}

/// What keeps a content as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Every write passes here.
    Ours,
    /// Somebody writes to it by the kernel.
    Restless,
    /// It is as it was for as long as it shows this.
    Shows(Stamp),
}

/// A stamp with care: whatever is written from the end of this on makes the file show another one. `None` if somebody
/// is writing.
fn rest(file: &File) -> io::Result<Option<Stamp>> {
    let before = Stamp::of(file)?;
    // Waits until a write that is under way has ended: both hold the file's lock. What it was, it stays.
    let mode = file.metadata()?.permissions().mode();
    file.set_permissions(Permissions::from_mode(mode))?;
    let stamp = Stamp::of(file)?;
    let unwritten = (before.size, before.mtime) == (stamp.size, stamp.mtime);
    if !unwritten || !apart(stamp.mtime, stamp.ctime) {
        return Ok(None);
    }
    // Whoever stores to a mapped page after this touches it as if for the first time.
    fdatasync(file)?;
    Ok(Some(stamp))
}

/// Whether one time can be told from the other by the clock of file times.
fn apart(one: Time, other: Time) -> bool {
    one.0.abs_diff(other.0) > TICK_NS.unsigned_abs()
}

fn set_mtime(file: &File, mtime: Time) -> io::Result<()> {
    let stamps = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.secs(),
            tv_nsec: mtime.subsec_nanos().into(),
        },
    };
    Ok(futimens(file, &stamps)?)
}
