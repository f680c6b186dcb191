//! Tells the kernel what the engine changed, so that it forgets what it remembers.
//!
//! Invalidating takes the kernel's locks, which a request that waits for us may hold. So a thread of its own
//! does it, which never waits for anything but the kernel; whoever has news only leaves them. While the thread
//! waits, news gather: each place and node is remembered once, and too many places become all places.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fuser::{INodeNo, Notifier};

use crate::engine::Events;
use crate::tree::{Name, NodeId};

/// So many changed entries wait, a few megabytes; of more, the kernel is told to ask again for every name.
const ENTRIES_MAX: usize = 16_384;

/// Takes the engine's news; while nothing is mounted, there is nobody to tell.
#[derive(Default)]
pub struct Notices {
    board: Arc<Board>,
}

/// The thread that tells the kernel; it ends when this is dropped.
pub(super) struct Teller {
    board: Arc<Board>,
    thread: Option<JoinHandle<()>>,
}

/// Where news wait for the thread.
#[derive(Default)]
pub(super) struct Board {
    /// Nothing while nobody listens.
    queue: Mutex<Option<Queue>>,
    left: Condvar,
    told: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: News,
    /// What the kernel is being told; it has heard some of it.
    telling: Arc<News>,
}

/// What the kernel should know.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// Entries that changed, and the node that was removed there if that came last.
    entries: BTreeMap<(NodeId, Name), Option<NodeId>>,
    /// Directories of entries that are not remembered one by one any more.
    dirs: BTreeSet<NodeId>,
    /// Nodes whose attributes changed.
    nodes: BTreeSet<NodeId>,
    /// As many entries as may wait.
    entries_max: usize,
}

impl News {
    fn add_entry(&mut self, dir: NodeId, name: &Name, removed: Option<NodeId>) {
        if self.dirs.contains(&dir) {
            return;
        }
        self.entries.insert((dir, name.clone()), removed);
        if self.entries.len() > self.entries_max {
            let all = std::mem::take(&mut self.entries);
            self.dirs.extend(all.into_keys().map(|(dir, _)| dir));
        }
    }

    /// What the kernel does not know of `from` yet, it does not know of `to` from now on.
    fn follow(&mut self, telling: &Self, from: &(NodeId, Name), to: &(NodeId, Name)) {
        if self.entries.contains_key(from) || telling.entries.contains_key(from) {
            self.add_entry(to.0, &to.1, None);
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dirs.is_empty() && self.nodes.is_empty()
    }

    /// Leaves nothing behind.
    fn take(&mut self) -> Self {
        let nothing = Self {
            entries_max: self.entries_max,
            ..Self::default()
        };
        std::mem::replace(self, nothing)
    }
}

impl Board {
    fn add(&self, change: impl FnOnce(&mut News)) {
        if let Some(queue) = lock(&self.queue).as_mut() {
            change(&mut queue.waiting);
            self.left.notify_one();
        }
    }

    /// A program renamed an entry, and the kernel what it knows by that name: if that is something old, it is so
    /// under the new name. To be called before the kernel is answered.
    pub(super) fn renamed(&self, from: &(NodeId, Name), to: &(NodeId, Name)) {
        if let Some(Queue { waiting, telling }) = lock(&self.queue).as_mut() {
            waiting.follow(telling, from, to);
            self.left.notify_one();
        }
    }

    /// Waits for news, when the last ones are told; `None` if none can come any more.
    fn wait(&self) -> Option<Arc<News>> {
        let mut queue = lock(&self.queue);
        if let Some(queue) = queue.as_mut() {
            queue.telling = Arc::default();
            self.told.notify_all();
        }
        let nothing = |queue: &mut Option<Queue>| {
            let waiting = queue.as_ref().map(|queue| &queue.waiting);
            waiting.is_some_and(News::is_empty)
        };
        let queue = self.left.wait_while(queue, nothing);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.as_mut().map(|queue| {
            queue.telling = Arc::new(queue.waiting.take());
            Arc::clone(&queue.telling)
        })
    }
}

impl Notices {
    /// Waits until the kernel knows all that was left so far, so that programs see it, but no longer than
    /// `patience`: a request that waits for the server may hold what the kernel needs.
    pub fn wait_until_told(&self, patience: Duration) {
        let untold = |queue: &mut Option<Queue>| {
            queue
                .as_ref()
                .is_some_and(|queue| !queue.waiting.is_empty() || !queue.telling.is_empty())
        };
        let queue = lock(&self.board.queue);
        // Whether it was in time is all the same.
        drop(self.board.told.wait_timeout_while(queue, patience, untold));
    }

    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Lets the kernel hear the news, through `notifier` and the descriptor of the same mount.
    pub(super) fn connect(&self, notifier: Notifier, fuse: OwnedFd) -> io::Result<Teller> {
        let kernel = Kernel { notifier, fuse };
        // An older kernel has to be told of each entry, however many there are.
        let entries_max = match kernel.forget_all_entries() {
            Ok(()) => ENTRIES_MAX,
            Err(_) => usize::MAX,
        };
        *lock(&self.board.queue) = Some(Queue {
            waiting: News {
                entries_max,
                ..News::default()
            },
            ..Queue::default()
        });
        let board = Arc::clone(&self.board);
        let thread = thread::Builder::new()
            .name("notices".into())
            .spawn(move || {
                while let Some(news) = board.wait() {
                    kernel.tell(&news);
                }
            })?;
        Ok(Teller {
            board: Arc::clone(&self.board),
            thread: Some(thread),
        })
    }
}

impl Events for Notices {
    fn entry_changed(&self, parent: NodeId, name: &Name) {
        self.board.add(|news| news.add_entry(parent, name, None));
    }

    fn entry_removed(&self, parent: NodeId, name: &Name, node: NodeId) {
        self.board
            .add(|news| news.add_entry(parent, name, Some(node)));
    }

    fn node_changed(&self, node: NodeId) {
        self.board.add(|news| {
            news.nodes.insert(node);
        });
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        *lock(&self.board.queue) = None;
        self.board.left.notify_one();
        self.board.told.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that tells the kernel of changes panicked");
        }
    }
}

/// The kernel's ear.
struct Kernel {
    notifier: Notifier,
    fuse: OwnedFd,
}

impl Kernel {
    fn tell(&self, news: &News) {
        let heard = |told: io::Result<()>| {
            if let Err(error) = told {
                tracing::warn!(%error, "the kernel was not told of a change");
            }
        };
        if !news.dirs.is_empty() {
            heard(self.forget_all_entries());
        }
        for ((dir, name), removed) in &news.entries {
            heard(self.forget_entry(*dir, name, *removed));
        }
        // A cached listing stays if the entry itself was not cached: many entries of one directory, one call.
        let mut dirs = news.dirs.clone();
        dirs.extend(news.entries.keys().map(|(dir, _)| *dir));
        for dir in dirs {
            heard(self.notifier.inval_inode(INodeNo(dir.0), 0, 0));
        }
        for node in &news.nodes {
            heard(self.notifier.inval_inode(INodeNo(node.0), -1, 0));
        }
    }

    fn forget_entry(&self, dir: NodeId, name: &Name, removed: Option<NodeId>) -> io::Result<()> {
        let (dir, name) = (INodeNo(dir.0), OsStr::from_bytes(name.as_bytes()));
        let told = removed.map(|node| self.notifier.delete(dir, INodeNo(node.0), name));
        match told {
            // Has raised events for those who watch.
            Some(Ok(())) => Ok(()),
            // Not possible if the kernel knows another node there.
            Some(Err(_)) | None => self.notifier.inval_entry(dir, name),
        }
    }

    /// Lets the kernel ask again for every name, in the directory that it is in (FUSE_NOTIFY_INC_EPOCH of Linux
    /// 6.16, which `fuser` does not have).
    fn forget_all_entries(&self) -> io::Result<()> {
        const INC_EPOCH: i32 = 8;
        // struct fuse_out_header: length, code, and 0 where a reply names its request.
        let mut message = [0; 16];
        message[..4].copy_from_slice(&16_u32.to_ne_bytes());
        message[4..8].copy_from_slice(&INC_EPOCH.to_ne_bytes());
        rustix::io::write(&self.fuse, &message)?;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn each_place_waits_once_with_what_happened_last() {
        let mut news = News {
            entries_max: 2,
            ..News::default()
        };
        let (dir, node) = (NodeId(1), NodeId(9));
        for _ in 0..10 {
            news.add_entry(dir, &name("a"), None);
            news.add_entry(dir, &name("a"), Some(node));
            news.add_entry(dir, &name("b"), Some(node));
            news.add_entry(dir, &name("b"), None);
        }
        let told: Vec<_> = news.take().entries.into_iter().collect();
        assert_eq!(
            told,
            [((dir, name("a")), Some(node)), ((dir, name("b")), None)]
        );
        assert!(news.is_empty());
    }

    #[test]
    fn who_asks_waits_until_all_is_told() {
        let notices = Notices::default();
        *lock(&notices.board.queue) = Some(Queue::default());
        let told = std::sync::atomic::AtomicBool::new(false);
        notices.node_changed(NodeId(9));
        thread::scope(|scope| {
            scope.spawn(|| {
                let news = notices.board.wait().expect("somebody listens");
                assert_eq!(news.nodes, [NodeId(9)].into());
                told.store(true, std::sync::atomic::Ordering::SeqCst);
                assert!(notices.board.wait().is_none());
            });
            notices.wait_until_told(Duration::from_secs(60));
            assert!(told.load(std::sync::atomic::Ordering::SeqCst));
            *lock(&notices.board.queue) = None;
            notices.board.left.notify_all();
        });
    }

    #[test]
    fn what_is_renamed_before_the_kernel_was_told_is_told_by_its_new_name() {
        let place = |text| (NodeId(1), name(text));
        let (mut waiting, mut telling) = (News::default(), News::default());
        waiting.entries_max = 9;
        waiting.entries.insert(place("a"), None);
        telling.entries.insert(place("b"), None);
        for (from, to) in [("a", "new a"), ("b", "new b"), ("c", "new c")] {
            waiting.follow(&telling, &place(from), &place(to));
        }
        let told: Vec<_> = waiting.entries.into_keys().collect();
        assert_eq!(told, ["a", "new a", "new b"].map(place));
    }

    #[test]
    fn too_many_places_become_all_of_their_directories() {
        let mut news = News {
            entries_max: 2,
            ..News::default()
        };
        for dir in [1, 2, 1, 3, 4] {
            for entry in ["a", "b"] {
                news.add_entry(NodeId(dir), &name(entry), None);
                assert!(news.entries.len() <= 2, "{news:?}");
            }
        }
        let taken = news.take();
        let mut dirs = taken.dirs.clone();
        dirs.extend(taken.entries.into_keys().map(|(dir, _)| dir));
        assert_eq!(dirs, [1, 2, 3, 4].map(NodeId).into());
        assert_eq!(news.entries_max, 2, "still as few");
    }
}
