//! Opening, creating, closing and syncing files.
//!
//! A file that is open is held: it is counted in `Opens` before its row is looked at, so that whoever else
//! changes the replica in a transaction sees either that it is open, or that nobody has seen it yet.

use std::io::ErrorKind;
use std::sync::Arc;

use super::blocks::Reader;
use super::change::NewNode;
use super::handle::{OpenContent, OpenFile};
use super::{Attr, Caller, FsError, Handle, Home, Need, Stop};
use crate::replica::{Content, ContentStore, Node, ReplicaError};
use crate::tree::{Kind, Name, NodeId};

/// How to open a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// For writing.
    pub write: bool,
    /// Emptying it.
    pub truncate: bool,
    /// Only if it has to be created.
    pub exclusive: bool,
    /// To run it as a program.
    pub run: bool,
    /// Each read and write is to be asked for here: what is written has to be on the disk, or goes by no cache.
    pub asks: bool,
    /// As the answer to a creation.
    pub creates: bool,
}

/// Whether the content of a file that is opened has to be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    /// All of it.
    Needed,
    /// All of it, unless it is read by block.
    OrByBlock,
    /// Nothing of it.
    NotNeeded,
}

/// A file that was opened.
#[derive(Debug)]
pub struct Opened {
    /// To be given to `release` exactly once.
    pub handle: Handle,
    /// Its attributes.
    pub attr: Attr,
    /// By which the kernel knows the content file, if it reads and writes there by itself.
    pub content: Option<u32>,
}

impl Home {
    /// Opens a file.
    pub fn open(&self, id: NodeId, options: OpenOptions, caller: Caller) -> Result<Opened, Stop> {
        let OpenOptions { truncate, run, .. } = options;
        let write = options.write || truncate;
        let whole = match (write, run) {
            (true, _) if truncate => Whole::NotNeeded,
            // What runs is read long after it was started, and a page that cannot be had would kill it.
            (true, _) | (_, true) => Whole::Needed,
            (false, false) => Whole::OrByBlock,
        };
        let (mut node, content) = self
            .hold(id, write, whole)
            .map_err(|stop| self.restrain(stop, caller))?;
        let by_block = whole == Whole::OrByBlock && node.content != Content::Whole;
        if by_block && let stop @ Stop::Failed(_) = self.restrain(Need::Content(id).into(), caller)
        {
            self.let_go(content, write)?;
            return Err(stop);
        }
        if by_block && !self.fetch.is_current(id) {
            self.let_go(content, write)?;
            return Err(Need::Look(id).into());
        }
        if truncate {
            if let Err(error) = self.empty_unless_run(&content, caller.uid != 0) {
                self.let_go(content, write)?;
                return Err(error.into());
            }
            node = self
                .replica
                .view(|view| Ok::<_, FsError>(view.node(id)?))?
                .ok_or_else(|| self.gone(id))?;
        }
        let by_kernel = match self.enter(&content, &node, options) {
            Ok(by_kernel) => by_kernel,
            Err(error) => {
                self.let_go(content, write)?;
                return Err(error.into());
            }
        };
        if run {
            content.start();
        }
        // Of what is read by block, all would be fetched for the next login.
        if !truncate && !by_block {
            self.note_reading(&node, caller);
        }
        let handle = self.handles.insert_file(OpenFile {
            content,
            write,
            run,
            reader: Reader::default(),
        });
        let attr = self.shown(&node);
        Ok(Opened {
            handle,
            attr,
            content: by_kernel,
        })
    }

    /// Creates and opens a file; one that is there already is opened, unless `exclusive`.
    pub fn create(
        &self,
        parent: NodeId,
        name: &Name,
        mode: u32,
        options: OpenOptions,
        caller: Caller,
    ) -> Result<Opened, Stop> {
        let mut counted = None;
        let created = self.change(|change| {
            let dir = change.listed_dir(parent)?;
            let place = change.vacant(parent, name)?;
            let new = NewNode {
                kind: Kind::File,
                mode,
                target: Vec::new(),
            };
            let node = change.create(dir, place, new, caller)?;
            // Before anybody else can see it.
            change.home.replica.opens().inc(node.id, options.write);
            counted = Some(node.id);
            if options.write {
                change.tx.mark_in_flight(node.id)?;
            }
            Ok(node)
        });
        if let (Err(_), Some(id)) = (&created, counted) {
            self.replica.opens().dec(id, options.write);
        }
        match created {
            Ok(node) => {
                let content = self.handles.content(node.id);
                let creates = OpenOptions {
                    creates: true,
                    ..options
                };
                self.enter(&content, &node, creates)?;
                *content.lock_writing() |= options.write;
                let write = options.write;
                Ok(Opened {
                    attr: Attr::from(&node),
                    handle: self.handles.insert_file(OpenFile {
                        content,
                        write,
                        run: false,
                        reader: Reader::default(),
                    }),
                    content: None,
                })
            }
            Err(Stop::Failed(FsError::Exists)) if !options.exclusive => {
                let there = self.lookup(parent, name)?.ok_or(FsError::NotFound)?;
                let options = OpenOptions {
                    creates: true,
                    ..options
                };
                self.open(there.id, options, caller)
            }
            Err(stop) => Err(stop),
        }
    }

    /// Closes a file.
    pub fn release(&self, handle: Handle) -> Result<(), FsError> {
        let file = self.handles.remove_file(handle)?;
        let (content, write) = (Arc::clone(&file.content), file.write);
        if file.run {
            content.end();
        }
        drop(file);
        self.leave(&content);
        self.let_go(content, write)
    }

    /// Makes a file's content and all that was done before survive power loss.
    pub fn fsync(&self, handle: Handle) -> Result<(), FsError> {
        let content = &self.handles.file(handle)?.content;
        self.look_at(content.node);
        if content.file().is_some() {
            self.replica.sync_content(content.node)?;
        }
        self.fsync_dir()
    }

    /// Makes all that was done before survive power loss, as far as names and attributes go.
    pub fn fsync_dir(&self) -> Result<(), FsError> {
        Ok(self.replica.sync()?)
    }

    /// Counts a file as open and gives its content, which has to be as `whole` says or is a [`Need`].
    pub(super) fn hold(
        &self,
        id: NodeId,
        write: bool,
        whole: Whole,
    ) -> Result<(Node, Arc<OpenContent>), Stop> {
        self.replica.opens().inc(id, write);
        let content = self.handles.content(id);
        let was_partial = content.is_partial();
        let held = self.replica.view(|view| {
            let node = view.node(id)?.ok_or_else(|| self.gone(id))?;
            let reads = !write && node.content == Content::Whole;
            if node.nlink == 0 && !content.is_unlinked() && !reads {
                // The engine took its name away, and the kernel may not know yet: what is written to it would
                // be lost.
                return Err(FsError::Stale.into());
            }
            match node.kind {
                Kind::File if content.file().is_none() && self.is_for_blocks(&node, whole) => {
                    content.set_partial();
                    Ok(node)
                }
                Kind::File if whole != Whole::NotNeeded && node.content != Content::Whole => {
                    Err(Stop::Needs(Need::Content(id)))
                }
                Kind::File => Ok(node),
                Kind::Dir => Err(FsError::IsADirectory.into()),
                _ => Err(FsError::Invalid.into()),
            }
        });
        let held = held.and_then(|node| {
            let is_whole = node.content == Content::Whole;
            if is_whole && whole != Whole::NotNeeded && !self.load(&content, &node)? {
                self.give_up_content(id)?;
                return Err(Stop::Needs(Need::Content(id)));
            }
            Ok(node)
        });
        if content.is_partial() && !was_partial {
            self.distrust_part(id);
        }
        match held {
            Ok(node) => Ok((node, content)),
            Err(stop) => {
                self.let_go(content, write)?;
                Err(stop)
            }
        }
    }

    /// Whether a file that is being opened is read by block.
    fn is_for_blocks(&self, node: &Node, whole: Whole) -> bool {
        whole == Whole::OrByBlock
            && node.content != Content::Whole
            && node.is_the_servers()
            && self.fetch.is_by_block(node)
    }

    /// Opens the content file, unless a writer has. False if it is not what the row promises although the
    /// server has it: fetched content is not synced, so a power loss may have cut it.
    pub(super) fn load(&self, content: &OpenContent, node: &Node) -> Result<bool, FsError> {
        let writing = content.lock_writing();
        if *writing || content.is_kernels() {
            return Ok(true);
        }
        let on_server = !node.data_changed && !node.scoped;
        let file = match self.replica.content().open_read(node.id, node.data_changed) {
            Ok(file) => Some(file),
            Err(ReplicaError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                match node.size {
                    0 => None,
                    _ if on_server => return Ok(false),
                    _ => return Err(source.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(file) = &file
            && on_server
            && file.metadata()?.len() != node.size
        {
            return Ok(false);
        }
        if let Some(file) = &file
            && on_server
        {
            ContentStore::note_use(file, self.now());
        }
        content.set_file(file);
        Ok(true)
    }

    /// The content of a file that the server has is damaged here: it is to be fetched again.
    pub(super) fn give_up_content(&self, id: NodeId) -> Result<(), FsError> {
        tracing::warn!(?id, "the content is not what it was; it is fetched again");
        self.replica.update(|tx| {
            let node = tx.node(id)?;
            if let Some(mut node) = node.filter(|node| !node.data_changed && !node.scoped) {
                node.content = Content::Absent;
                node.hash = None;
                tx.put_node(node)?;
            }
            Ok(())
        })
    }

    /// Ends what `hold` began. After the last writer the row tells the file's size and holds by itself;
    /// after the last of all, a file without a name goes.
    pub(super) fn let_go(&self, content: Arc<OpenContent>, write: bool) -> Result<(), FsError> {
        let id = content.node;
        let opens = self.replica.opens();
        let mut writing = content.lock_writing();
        opens.dec(id, write);
        let written = *writing && opens.writers(id) == 0;
        let mut settled = Ok(());
        if written || !opens.is_open(id) {
            settled = self.settle(&content, written);
            *writing = *writing && !(written && settled.is_ok());
        }
        drop(writing);
        self.handles.drop_content(content);
        if write {
            self.fetch.changed();
        }
        settled
    }

    fn settle(&self, content: &OpenContent, written: bool) -> Result<(), FsError> {
        let id = content.node;
        let node = self.replica.view(|view| Ok::<_, FsError>(view.node(id)?))?;
        let gone = |nlink: u32| nlink == 0 && !self.replica.opens().is_open(id);
        if !node.is_some_and(|node| written || gone(node.nlink)) {
            return Ok(());
        }
        let size = match content.file() {
            Some(file) if written => Some(file.metadata()?.len()),
            _ => None,
        };
        self.replica.update(|tx| {
            let Some(mut node) = tx.node(id)? else {
                return Ok(());
            };
            if gone(node.nlink) {
                tx.remove_node(id)?;
                node.nlink = 0;
                if content.is_unlinked() {
                    self.handles.remember_ghost(node);
                }
                return Ok(());
            }
            // Else a write that failed half-way would leave the row wrong.
            if let Some(size) = size.filter(|size| *size != node.size) {
                node.size = size;
                node.data_seq += 1;
                tx.put_node(node.clone())?;
            }
            if written && node.nlink > 0 {
                tx.clear_in_flight(id)?;
            }
            Ok::<_, FsError>(())
        })?;
        // The kernel was to write to it, and did not.
        let unsent = |node: Node| node.data_changed || node.scoped || node.nlink == 0;
        let node = self.replica.view(|view| Ok::<_, FsError>(view.node(id)?))?;
        if written && !node.is_none_or(unsent) {
            self.replica.content().mark_sent(id)?;
        }
        Ok(())
    }
}
