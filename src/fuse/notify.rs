//! Tells the kernel what the engine changed, so that it forgets what it remembers.
//!
//! Invalidating takes the kernel's locks, which a request that waits for us may hold. So a thread of its own
//! does it, which never waits for anything but the kernel; whoever has news only queues them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use fuser::{INodeNo, Notifier};

use crate::engine::Events;
use crate::fs::Home;
use crate::tree::{Name, NodeId};

/// What the kernel should know.
enum Notice {
    EntryChanged(NodeId, Name),
    EntryRemoved(NodeId, Name, NodeId),
    NodeChanged(NodeId, bool),
}

type Queue = Arc<Mutex<Option<Sender<Notice>>>>;

/// Takes the engine's news; while nothing is mounted, there is nobody to tell.
#[derive(Default)]
pub struct Notices {
    queue: Queue,
}

/// The thread that tells the kernel; it ends when this is dropped.
pub(super) struct Teller {
    queue: Queue,
    thread: Option<JoinHandle<()>>,
}

impl Notices {
    /// Lets the kernel behind `notifier` hear the news.
    pub(super) fn connect(&self, home: Arc<Home>, notifier: Notifier) -> io::Result<Teller> {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("notices".into())
            .spawn(move || tell(&home, &notifier, &receiver))?;
        *lock(&self.queue) = Some(sender);
        Ok(Teller {
            queue: Arc::clone(&self.queue),
            thread: Some(thread),
        })
    }

    fn push(&self, notice: Notice) {
        if let Some(queue) = lock(&self.queue).as_ref() {
            // Fails only if the mount is going.
            queue.send(notice).ok();
        }
    }
}

impl Events for Notices {
    fn entry_changed(&self, parent: NodeId, name: &Name) {
        self.push(Notice::EntryChanged(parent, name.clone()));
    }

    fn entry_removed(&self, parent: NodeId, name: &Name, node: NodeId) {
        self.push(Notice::EntryRemoved(parent, name.clone(), node));
    }

    fn node_changed(&self, node: NodeId, data: bool) {
        self.push(Notice::NodeChanged(node, data));
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        *lock(&self.queue) = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that tells the kernel of changes panicked");
        }
    }
}

/// Tells what there is, until nothing can come any more.
fn tell(home: &Home, notifier: &Notifier, queue: &Receiver<Notice>) {
    while let Ok(first) = queue.recv() {
        let mut changed_dirs = BTreeSet::new();
        for notice in std::iter::once(first).chain(queue.try_iter()) {
            if let Err(error) = tell_one(home, notifier, notice, &mut changed_dirs) {
                tracing::warn!(%error, "the kernel was not told of a change");
            }
        }
        // A cached listing stays if the entry itself was not cached: many entries of one directory, one call.
        for dir in changed_dirs {
            if let Err(error) = notifier.inval_inode(INodeNo(dir.0), 0, 0) {
                tracing::warn!(%error, "the kernel was not told of a changed directory");
            }
        }
    }
}

fn tell_one(
    home: &Home,
    notifier: &Notifier,
    notice: Notice,
    changed_dirs: &mut BTreeSet<NodeId>,
) -> io::Result<()> {
    match notice {
        Notice::EntryChanged(parent, name) => {
            changed_dirs.insert(parent);
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name.as_bytes()))
        }
        Notice::EntryRemoved(parent, name, node) => {
            changed_dirs.insert(parent);
            let (parent, name) = (INodeNo(parent.0), OsStr::from_bytes(name.as_bytes()));
            // As a removal: who watches the node itself hears of it (seen with Linux 6.18; who watches the directory
            // hears nothing). Not possible if the kernel knows another node there.
            notifier
                .delete(parent, INodeNo(node.0), name)
                .or_else(|_| notifier.inval_entry(parent, name))
        }
        Notice::NodeChanged(node, false) => notifier.inval_inode(INodeNo(node.0), -1, 0),
        Notice::NodeChanged(node, true) => {
            if let Err(error) = home.content_replaced(node) {
                tracing::warn!(%error, "who has the file open sees its old content");
            }
            notifier.inval_inode(INodeNo(node.0), 0, 0)
        }
    }
}

fn lock(queue: &Queue) -> std::sync::MutexGuard<'_, Option<Sender<Notice>>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
