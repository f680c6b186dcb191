//! Files that the kernel reads and writes by itself, in the content file, without asking us.
//!
//! The kernel wants one way for all that have a file open: either all ask here, and it caches, or all have the same
//! content file behind them. So the first open decides, and it stays so until the last one is closed, and nobody has the
//! content mapped any more either: a mapping outlives its file descriptor, and a program can outlive this process.
//!
//! What is written so never passes here. So whoever may write is taken for somebody who does, before the open is
//! answered: the node is in flight and its content in `unsent/`, on the disk. The row changes when the content file shows
//! that somebody wrote (`Replica::account`).

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use rustix::io::Errno;

use super::handle::{OpenContent, lock};
use super::{Attr, FsError, Home, OpenOptions};
use crate::replica::{Content, Node, is_used_by_others};
use crate::tree::{NodeId, Time};

mod look;

use look::Left;

/// Tells the kernel of content files.
pub trait Passage: Send + Sync {
    /// The number by which the kernel knows the file from now on.
    fn open(&self, file: &File) -> io::Result<u32>;
    /// The kernel may forget it.
    fn close(&self, id: u32) -> io::Result<()>;
}

/// Which files are worth telling the kernel, by their size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// From so much on, if they are opened to be read.
    pub to_read: u64,
    /// From so much on, if they are opened to be written.
    pub to_write: u64,
}

impl Default for Worth {
    fn default() -> Self {
        Self {
            to_read: 1 << 20,
            to_write: 16 << 20,
        }
    }
}

/// How those who have a file open read and write it.
#[derive(Debug, Default)]
pub(super) struct Way {
    opened: u32,
    /// The kernel does by itself; else it asks, or nobody has it open.
    kernel: Option<Kernel>,
}

#[derive(Debug)]
struct Kernel {
    /// By which the kernel knows the content file; nothing if it is used by somebody whom another daemon served.
    id: Option<u32>,
    writes: bool,
}

/// The home's side of all of them.
#[derive(Default)]
pub(super) struct Through {
    passage: OnceLock<(Arc<dyn Passage>, Worth)>,
    /// It turned out not to be possible on this machine.
    impossible: AtomicBool,
    /// Closed, and still used by somebody.
    left: Mutex<Left>,
    wake: Condvar,
}

impl Home {
    /// Lets the kernel read and write by itself what is worth it. Once, before the first request.
    pub fn pass_through(&self, passage: Arc<dyn Passage>, worth: Worth) {
        // A home is mounted once.
        drop(self.through.passage.set((passage, worth)));
    }

    /// What programs that outlived an earlier daemon may still write to is looked at until they have ended.
    pub(super) fn adopt_used(&self) -> Result<(), FsError> {
        for id in self.replica.in_flight()? {
            let Some(node) = self.replica.view(|view| view.node(id))? else {
                continue;
            };
            tracing::info!(?id, "somebody from before uses its content");
            let content = self.handles.content(id);
            self.replica.opens().inc(id, false);
            self.begin_writes(&content, &node, true)?;
            content.set_kernels(true);
            lock(&content.way).kernel = Some(Kernel {
                id: None,
                writes: true,
            });
            self.through.leave(&content);
        }
        Ok(())
    }

    /// A file that is held is opened: the answer is by which number the kernel knows its content, if it reads and writes
    /// by itself.
    pub(super) fn enter(
        &self,
        content: &Arc<OpenContent>,
        node: &Node,
        options: OpenOptions,
    ) -> Result<Option<u32>, FsError> {
        let mut way = lock(&content.way);
        if options.creates && way.kernel.is_some() {
            // The answer has no room for a content file. The kernel looks again, and opens what is there.
            return Err(FsError::Stale);
        }
        let write = options.write || options.truncate;
        if way.opened == 0 && way.kernel.is_none() && !options.asks && !options.creates {
            way.kernel = self.choose(content, node, write);
        }
        if let Some(kernel) = &mut way.kernel {
            let entered = self.enter_kernel(content, node, kernel, write);
            if entered.is_err() && way.opened == 0 {
                self.through.leave(content);
            }
            entered?;
        }
        way.opened += 1;
        Ok(way.kernel.as_ref().and_then(|kernel| kernel.id))
    }

    /// Whether the kernel is to do it, and by which number.
    fn choose(&self, content: &OpenContent, node: &Node, write: bool) -> Option<Kernel> {
        let (passage, worth) = self.through.passage.get()?;
        let from = if write { worth.to_write } else { worth.to_read };
        let whole = node.content == Content::Whole && node.size >= from && !content.is_partial();
        if !whole || self.through.impossible.load(Ordering::Relaxed) {
            return None;
        }
        content.file()?;
        // A database asks for its size all the time, and its writers have to be held still while it is sent.
        if self.replica.is_database(node) {
            return None;
        }
        let _the_same = content.lock_writing();
        match self.tell(content, passage.as_ref()) {
            Ok(id) => {
                self.replica.opens().inc(node.id, false);
                content.set_kernels(true);
                Some(Kernel {
                    id: Some(id),
                    writes: false,
                })
            }
            Err(error) => {
                let for_now = matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::BUSY | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR)
                );
                if !for_now {
                    tracing::info!(%error, "the kernel does not read content by itself here");
                    self.through.impossible.store(true, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// Tells the kernel of the content file, which is open here only once from now on: whoever else has it open is
    /// somebody else. Without leases nobody could tell when that is over.
    fn tell(&self, content: &OpenContent, passage: &dyn Passage) -> io::Result<u32> {
        let file = self.replica.content().open_in_place(content.node);
        let file = content.set_file(Some(file.map_err(io::Error::other)?));
        let file = file.ok_or(Errno::NOENT)?;
        match is_used_by_others(&file)? {
            true => Err(Errno::BUSY.into()),
            false => passage.open(&file),
        }
    }

    fn enter_kernel(
        &self,
        content: &Arc<OpenContent>,
        node: &Node,
        kernel: &mut Kernel,
        write: bool,
    ) -> Result<(), FsError> {
        if kernel.id.is_none()
            && let Some((passage, _)) = self.through.passage.get()
            && let Some(file) = content.file()
        {
            kernel.id = passage.open(&file).ok();
        }
        if write && !kernel.writes {
            self.begin_writes(content, node, false)?;
            kernel.writes = true;
        }
        Ok(())
    }

    /// Whoever may write from now on is never seen doing it.
    fn begin_writes(
        &self,
        content: &OpenContent,
        node: &Node,
        changed: bool,
    ) -> Result<(), FsError> {
        self.expect_writable()?;
        let id = content.node;
        let mut writing = content.lock_writing();
        let was_writing = *writing || changed;
        if !*writing {
            // As before the first write of others: a power loss must leave neither changed bytes that nobody looks at,
            // nor less than the server has under a row that calls them changed.
            if node.is_the_servers() {
                self.replica.settle_content(id)?;
            }
            self.replica
                .update::<_, FsError>(|tx| Ok(tx.mark_in_flight(id)?))?;
            if node.is_the_servers() {
                self.replica.sync()?;
            }
        }
        let file = self.open_for_change(content, &mut writing)?;
        let node = self.replica.view(|view| view.node(id))?;
        let mtime = node.map_or(Time(0), |node| node.mtime);
        self.replica.begin_direct(id, file, mtime, was_writing)?;
        self.replica.opens().inc(id, true);
        self.through.wake_up();
        Ok(())
    }

    /// A file is closed; `let_go` follows.
    pub(super) fn leave(&self, content: &Arc<OpenContent>) {
        let mut way = lock(&content.way);
        way.opened = way.opened.saturating_sub(1);
        if !self.end_if_unused(content, &mut way) {
            self.through.leave(content);
        }
    }

    /// Ends what the kernel does by itself, unless somebody uses it; false if it has to be looked at again.
    fn end_if_unused(&self, content: &Arc<OpenContent>, way: &mut Way) -> bool {
        if way.opened > 0 {
            return true;
        }
        let Some(kernel) = &way.kernel else {
            return true;
        };
        let used = content
            .file()
            .map_or(Ok(false), |file| is_used_by_others(&file));
        if kernel.writes {
            self.look_at(content.node);
        }
        // What cannot be told now can be later.
        if used.unwrap_or(true) {
            return false;
        }
        if kernel.writes {
            match self.replica.end_direct(content.node) {
                Ok(true) => self.fetch.changed(),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, id = ?content.node, "what was written is looked at again");
                    return false;
                }
            }
        }
        if let Some(kernel) = way.kernel.take() {
            self.end(content, &kernel);
        }
        true
    }

    /// What the kernel held is let go. As with a file that is closed, what cannot be written down stays in flight.
    fn end(&self, content: &Arc<OpenContent>, kernel: &Kernel) {
        let let_go = |write| {
            if let Err(error) = self.let_go(Arc::clone(content), write) {
                tracing::warn!(%error, id = ?content.node, "a file could not be closed");
            }
        };
        if kernel.writes {
            let_go(true);
        }
        {
            let _no_change = content.lock_writing();
            content.set_kernels(false);
        }
        if let (Some(id), Some((passage, _))) = (kernel.id, self.through.passage.get())
            && let Err(error) = passage.close(id)
        {
            tracing::debug!(%error, "the kernel does not forget a content file");
        }
        let_go(false);
    }

    /// Takes into the row what the kernel wrote.
    pub(super) fn look_at(&self, id: NodeId) {
        match self.replica.account(id) {
            Ok(true) => self.fetch.changed(),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, ?id, "it is not known whether it was written to"),
        }
    }

    /// What `stat` shows of a node: of what the kernel writes by itself, only the content file knows.
    pub(super) fn shown(&self, node: &Node) -> Attr {
        let mut attr = Attr::from(node);
        if let Ok(Some(stamp)) = self.replica.direct_stamp(node.id)
            && (attr.size, attr.mtime) != (stamp.size, stamp.mtime)
        {
            attr.size = stamp.size;
            attr.mtime = stamp.mtime;
            attr.ctime = attr.ctime.max(stamp.ctime);
        }
        attr
    }
}
