//! What is open. All handles of one file share one open content file, so that they see one content even
//! when the engine puts another in its place, and go on seeing it when the file has no name any more.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

use super::FsError;
use super::blocks::Reader;
use super::through::Way;
use crate::replica::Node;
use crate::tree::NodeId;

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// One `open` of a file.
pub(super) struct OpenFile {
    pub(super) content: Arc<OpenContent>,
    pub(super) write: bool,
    /// Held by a program that runs.
    pub(super) run: bool,
    /// How it reads what is not here.
    pub(super) reader: Reader,
}

/// The content of a file that is open, or being truncated.
pub(super) struct OpenContent {
    pub(super) node: NodeId,
    /// `None` while the file is empty and has no content file.
    file: RwLock<Option<Arc<File>>>,
    /// Held by whoever changes the content. True from the first change or the creation on until the last
    /// writer closes: the node is marked in flight, and `file`, if there is one, can be written.
    pub(super) writing: Mutex<bool>,
    /// Who reads and writes it: the kernel, or we. Locked before `writing`.
    pub(super) way: Mutex<Way>,
    /// Whether the kernel does. Changes only while `writing` is held, so that the content file stays the one that the
    /// kernel knows.
    by_kernel: AtomicBool,
    /// Handles by which the file runs as a program. Grows only while `writing` is held.
    running: AtomicU32,
    /// Some handle was given out when its content was not here: it is served by block as long as anybody has it open.
    partial: AtomicBool,
    /// It lost its last name by a program's hand, so the kernel knows that no path leads to it.
    unlinked: AtomicBool,
}

impl OpenContent {
    /// The content file, if there is one.
    pub(super) fn file(&self) -> Option<Arc<File>> {
        read(&self.file).clone()
    }

    /// Lets all handles use `file` from now on.
    pub(super) fn set_file(&self, file: Option<File>) -> Option<Arc<File>> {
        let file = file.map(Arc::new);
        write(&self.file).clone_from(&file);
        file
    }

    /// The file is a program that starts. Whoever is emptying it has done so before.
    pub(super) fn start(&self) {
        let _no_change = self.lock_writing();
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// A program ended.
    pub(super) fn end(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the file runs; true to whoever holds `writing` for as long as they hold it.
    pub(super) fn runs(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    /// Whether the daemon serves it by block, and goes on doing so until it is closed by all, although all of it may be
    /// here by then.
    pub(super) fn is_partial(&self) -> bool {
        self.partial.load(Ordering::Acquire)
    }

    pub(super) fn set_partial(&self) {
        self.partial.store(true, Ordering::Release);
    }

    pub(super) fn set_unlinked(&self) {
        self.unlinked.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_unlinked(&self) -> bool {
        self.unlinked.load(Ordering::Relaxed)
    }

    /// Whether the kernel reads and writes it by itself; true to whoever holds `writing` for as long as they hold it.
    pub(super) fn is_kernels(&self) -> bool {
        self.by_kernel.load(Ordering::Relaxed)
    }

    /// Lets the kernel do it, or no more.
    pub(super) fn set_kernels(&self, by_kernel: bool) {
        self.by_kernel.store(by_kernel, Ordering::Relaxed);
    }

    /// Waits for the right to change the content.
    pub(super) fn lock_writing(&self) -> MutexGuard<'_, bool> {
        lock(&self.writing)
    }
}

/// All that is open.
#[derive(Default)]
pub(super) struct Handles {
    last: AtomicU64,
    files: RwLock<HashMap<Handle, Arc<OpenFile>>>,
    contents: Mutex<HashMap<NodeId, Weak<OpenContent>>>,
    /// Nodes that are gone from the replica, until the kernel forgets them: a pipe without a name, or the
    /// directory that a shell stands in, still has attributes.
    ghosts: Mutex<HashMap<NodeId, Node>>,
}

impl Handles {
    fn new_handle(&self) -> Handle {
        Handle(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The shared content of `node`; made if it is not open.
    pub(super) fn content(&self, node: NodeId) -> Arc<OpenContent> {
        let mut contents = lock(&self.contents);
        if let Some(content) = contents.get(&node).and_then(Weak::upgrade) {
            return content;
        }
        let content = Arc::new(OpenContent {
            node,
            file: RwLock::default(),
            writing: Mutex::default(),
            way: Mutex::default(),
            by_kernel: AtomicBool::default(),
            running: AtomicU32::default(),
            partial: AtomicBool::default(),
            unlinked: AtomicBool::default(),
        });
        contents.insert(node, Arc::downgrade(&content));
        content
    }

    /// The shared content of `node`, if it is open.
    pub(super) fn open_content(&self, node: NodeId) -> Option<Arc<OpenContent>> {
        lock(&self.contents).get(&node).and_then(Weak::upgrade)
    }

    /// Forgets the content if nobody else uses it.
    pub(super) fn drop_content(&self, content: Arc<OpenContent>) {
        let mut contents = lock(&self.contents);
        if Arc::strong_count(&content) == 1 {
            contents.remove(&content.node);
        }
    }

    pub(super) fn insert_file(&self, file: OpenFile) -> Handle {
        let handle = self.new_handle();
        write(&self.files).insert(handle, Arc::new(file));
        handle
    }

    pub(super) fn file(&self, handle: Handle) -> Result<Arc<OpenFile>, FsError> {
        read(&self.files)
            .get(&handle)
            .cloned()
            .ok_or(FsError::BadHandle)
    }

    pub(super) fn remove_file(&self, handle: Handle) -> Result<Arc<OpenFile>, FsError> {
        write(&self.files).remove(&handle).ok_or(FsError::BadHandle)
    }

    pub(super) fn remember_ghost(&self, node: Node) {
        lock(&self.ghosts).insert(node.id, node);
    }

    pub(super) fn ghost(&self, id: NodeId) -> Option<Node> {
        lock(&self.ghosts).get(&id).cloned()
    }

    pub(super) fn forget_ghost(&self, id: NodeId) {
        lock(&self.ghosts).remove(&id);
    }
}

// A panic while one of these was held left a table as it was before or after: each change is one call.

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
