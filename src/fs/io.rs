//! Reading and writing what is open.
//!
//! The content file changes first, its row after: a crash in between is found by the in-flight mark, which
//! is set before the first byte changes and cleared at the last writer's close. A change costs one record in
//! the journal, the first one of an open file two; reading costs none. Whoever wants both as of one moment
//! holds them still (`Opens::write`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::attr::drop_privileges;
use super::blocks::{Source, read_fully};
use super::change::Change;
use super::file::Whole;
use super::handle::OpenContent;
use super::{FsError, Handle, Home, Stop};
use crate::replica::{Content, Node, ReplicaError};
use crate::tree::{NodeId, RelPath};

/// The most that one `copy_file_range` copies, so that it can be interrupted.
pub const MOST_COPIED: u64 = 64 * 1024 * 1024;

impl Home {
    /// Up to `size` bytes from `offset`; fewer only at the end of the file.
    pub fn read(&self, handle: Handle, offset: u64, size: usize) -> Result<Vec<u8>, Stop> {
        let file = self.handles.file(handle)?;
        let mut bytes = offset..offset.saturating_add(size as u64);
        if file.content.is_partial() && file.content.file().is_none() {
            bytes.end = bytes.end.min(self.size_of(file.content.node)?);
        }
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        let size = (bytes.end - bytes.start) as usize;
        Ok(match self.source(&file, &bytes)? {
            Source::File(file) => read_fully(&file, offset, size)?,
            Source::Part(part) => read_fully(part.file(), offset, size)?,
            Source::Empty => Vec::new(),
        })
    }

    /// Writes at `offset`; returns how much fitted on the disk.
    pub fn write(
        &self,
        handle: Handle,
        offset: u64,
        data: &[u8],
        drops_privileges: bool,
    ) -> Result<usize, FsError> {
        let content = self.writable(handle)?;
        self.alter(&content, drops_privileges, |file| {
            let mut written = 0;
            while written < data.len() {
                match file.write_at(&data[written..], offset + written as u64) {
                    Ok(n) => written += n,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) if written == 0 => return Err(error.into()),
                    Err(_) => break,
                }
            }
            Ok((written, offset + written as u64))
        })
    }

    /// Allocates, punches or zeroes a range; `mode` is that of fallocate(2).
    pub fn fallocate(
        &self,
        handle: Handle,
        offset: u64,
        len: u64,
        mode: u32,
    ) -> Result<(), FsError> {
        let flags = FallocateFlags::from_bits(mode).ok_or(FsError::NotSupported)?;
        let known =
            FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(flags) {
            return Err(FsError::NotSupported);
        }
        let end = match flags.contains(FallocateFlags::KEEP_SIZE) {
            true => 0,
            false => offset.checked_add(len).ok_or(FsError::Invalid)?,
        };
        let content = self.writable(handle)?;
        self.alter(&content, true, |file| {
            rustix::fs::fallocate(file, flags, offset, len)
                .map_err(|e| FsError::Content(e.into()))?;
            Ok(((), end))
        })
    }

    /// Where the next data (`hole` false) or hole at or behind `offset` begins.
    pub fn seek(&self, handle: Handle, offset: u64, hole: bool) -> Result<u64, FsError> {
        let open = self.handles.file(handle)?;
        if let Some(found) = self.seek_partial(&open.content, offset, hole)? {
            return Ok(found);
        }
        let file = open.content.file().ok_or(FsError::NoData)?;
        // The descriptor's own position means nothing here: all reads and writes name theirs.
        let to = match hole {
            true => SeekFrom::Hole(offset),
            false => SeekFrom::Data(offset),
        };
        rustix::fs::seek(&*file, to).map_err(|error| match error {
            Errno::NXIO => FsError::NoData,
            error => FsError::Content(error.into()),
        })
    }

    /// Copies a range between two files, or within one, on this machine's disk, and returns how much.
    pub fn copy_range(
        &self,
        (from, mut from_offset): (Handle, u64),
        (to, mut to_offset): (Handle, u64),
        len: u64,
    ) -> Result<usize, FsError> {
        let source = &self.handles.file(from)?.content;
        let Some(source) = source.file() else {
            return match source.is_partial() {
                // The kernel then reads and writes by itself.
                true => Err(FsError::NotSupported),
                false => Ok(0),
            };
        };
        let len = usize::try_from(len.min(MOST_COPIED)).map_err(|_| FsError::Invalid)?;
        let content = self.writable(to)?;
        self.alter(&content, true, |file| {
            let (from, to) = (Some(&mut from_offset), Some(&mut to_offset));
            match rustix::fs::copy_file_range(&*source, from, file, to, len) {
                Ok(copied) => Ok((copied, to_offset)),
                // The kernel then reads and writes by itself.
                Err(Errno::XDEV | Errno::NOSYS) => Err(FsError::NotSupported),
                Err(error) => Err(FsError::Content(error.into())),
            }
        })
    }

    /// Sets the size of a file that may not be open.
    pub(super) fn set_size(
        &self,
        id: NodeId,
        handle: Option<Handle>,
        size: u64,
        drops_privileges: bool,
    ) -> Result<(), Stop> {
        if let Some(handle) = handle {
            let content = self.writable(handle)?;
            return Ok(self.resize(&content, size, drops_privileges)?);
        }
        let whole = match size {
            0 => Whole::NotNeeded,
            _ => Whole::Needed,
        };
        let (_, content) = self.hold(id, true, whole)?;
        let resized = self.resize(&content, size, drops_privileges);
        let closed = self.let_go(content, true);
        resized?;
        Ok(closed?)
    }

    /// Cuts or extends a file's content. Emptying needs no content to be there.
    pub(super) fn resize(
        &self,
        content: &OpenContent,
        size: u64,
        drops_privileges: bool,
    ) -> Result<(), FsError> {
        let mut writing = content.lock_writing();
        if size == 0 {
            return self.empty(content, &mut writing, drops_privileges);
        }
        let _both = self.replica.opens().write(content.node);
        self.begin(content, &mut writing)?.set_len(size)?;
        self.put(content, drops_privileges, |node, _| {
            node.size = size;
            Ok(())
        })
    }

    /// Empties a file that is being opened. The kernel guards running programs against who writes, but asks only
    /// after it had the file opened, and emptied.
    pub(super) fn empty_unless_run(
        &self,
        content: &OpenContent,
        drops_privileges: bool,
    ) -> Result<(), FsError> {
        let mut writing = content.lock_writing();
        match content.runs() {
            true => Err(FsError::Running),
            false => self.empty(content, &mut writing, drops_privileges),
        }
    }

    fn empty(
        &self,
        content: &OpenContent,
        writing: &mut bool,
        drops_privileges: bool,
    ) -> Result<(), FsError> {
        let _both = self.replica.opens().write(content.node);
        let node = self.replica.view(|view| view.node(content.node))?;
        if !*writing && node.as_ref().is_some_and(Node::is_the_servers) {
            match content.is_kernels() {
                false => return self.empty_anew(content, writing, drops_privileges),
                // Those who have it open see this file and no other.
                true => drop(self.begin(content, writing)?),
            }
        }
        let mut was_empty = false;
        // The row goes first: it must not say that the old content was changed and is not here.
        self.put(content, drops_privileges, |node, change| {
            was_empty = node.size == 0 && node.content == Content::Whole && !*writing;
            match was_empty {
                true => Ok(()),
                false => become_empty(node, change),
            }
        })?;
        match was_empty {
            true => Ok(()),
            false => Ok(self.open_for_change(content, writing)?.set_len(0)?),
        }
    }

    /// Empties a file that the server has, too, into a content file of its own: until the row is on the disk, the old
    /// one is what the old row says. A power loss must not leave half of that, or what was before it, under a row that
    /// calls it changed.
    fn empty_anew(
        &self,
        content: &OpenContent,
        writing: &mut bool,
        drops_privileges: bool,
    ) -> Result<(), FsError> {
        let (id, hint) = (content.node, self.hint(content)?);
        let store = self.replica.content();
        self.replica.settle_content(id)?;
        self.replica
            .update::<_, ReplicaError>(|tx| tx.mark_in_flight(id))?;
        let file = store.open_anew(id, &hint)?;
        if let Err(error) = self.put(content, drops_privileges, become_empty) {
            // The old content is the only one again.
            store.remove_unsent(id)?;
            return Err(error);
        }
        *writing = true;
        content.set_file(Some(file));
        Ok(())
    }

    fn writable(&self, handle: Handle) -> Result<Arc<OpenContent>, FsError> {
        let file = self.handles.file(handle)?;
        match file.write {
            true => Ok(Arc::clone(&file.content)),
            false => Err(FsError::BadHandle),
        }
    }

    /// Changes the content by `f`, which returns the offset behind the last changed byte, and then its row.
    fn alter<T>(
        &self,
        content: &OpenContent,
        drops_privileges: bool,
        f: impl FnOnce(&File) -> Result<(T, u64), FsError>,
    ) -> Result<T, FsError> {
        self.expect_writable()?;
        let mut writing = content.lock_writing();
        let _both = self.replica.opens().write(content.node);
        let file = self.begin(content, &mut writing)?;
        let (value, end) = f(&file)?;
        self.put(content, drops_privileges, |node, _| {
            node.size = node.size.max(end);
            Ok(())
        })?;
        Ok(value)
    }

    /// The content file, ready to be changed.
    fn begin(&self, content: &OpenContent, writing: &mut bool) -> Result<Arc<File>, FsError> {
        if *writing {
            return self.open_for_change(content, writing);
        }
        // A power loss must leave neither changed bytes under a row that calls them the server's, nor less than
        // the server has under one that calls them changed.
        let node = self.replica.view(|view| view.node(content.node))?;
        let was_the_servers = node.is_some_and(|node| node.is_the_servers());
        if was_the_servers {
            self.replica.settle_content(content.node)?;
        }
        self.put(content, false, |node, change| {
            Ok(change.tx.mark_in_flight(node.id)?)
        })?;
        if was_the_servers {
            self.replica.sync()?;
        }
        self.open_for_change(content, writing)
    }

    pub(super) fn open_for_change(
        &self,
        content: &OpenContent,
        writing: &mut bool,
    ) -> Result<Arc<File>, FsError> {
        if *writing && let Some(file) = content.file() {
            return Ok(file);
        }
        let (id, hint) = (content.node, self.hint(content)?);
        let store = self.replica.content();
        if content.is_kernels()
            && let Some(file) = content.file()
        {
            // The one that the kernel knows, and no other.
            store.keep_unsent(id, &file, &hint)?;
            *writing = true;
            return Ok(file);
        }
        let file = match *writing {
            true => store.create_unsent(id, &hint)?,
            false => store.open_unsent(id, &hint)?,
        };
        *writing = true;
        content.set_file(Some(file)).ok_or(FsError::BadHandle)
    }

    /// Where `rescue` is to put the content.
    fn hint(&self, content: &OpenContent) -> Result<RelPath, FsError> {
        let path = self.replica.view(|view| view.local_path(content.node))?;
        Ok(path.unwrap_or_else(RelPath::root))
    }

    /// Stores the row of a file whose content changes.
    fn put(
        &self,
        content: &OpenContent,
        drops_privileges: bool,
        set: impl FnOnce(&mut Node, &mut Change<'_, '_>) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let stored = self.change(|change| {
            let mut node = change.node(content.node)?;
            set(&mut node, change)?;
            change.content_changed(&mut node);
            if drops_privileges {
                drop_privileges(&mut node);
            }
            change.mark_all(&node)?;
            Ok(change.tx.put_node(node)?)
        });
        stored.map_err(|stop| match stop {
            Stop::Failed(error) => error,
            // Nothing in there looks at entries of directories.
            Stop::Needs(_) => FsError::NotFound,
        })?;
        // The kernel may have written more than the row knows.
        self.look_at(content.node);
        Ok(())
    }
}

fn become_empty(node: &mut Node, change: &mut Change<'_, '_>) -> Result<(), FsError> {
    node.size = 0;
    node.content = Content::Whole;
    Ok(change.tx.mark_in_flight(node.id)?)
}
