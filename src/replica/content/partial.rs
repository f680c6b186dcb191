//! Content of which only a part is here: a sparse file, and beside it the map of the blocks that are here. The server
//! has all of it, so it is no more than a cache: it goes whenever it does not fit, and nothing rests on it.
//!
//! A block is in its file before its bit is in the map, so what a killed daemon left holds. What a power loss left does
//! not, since nothing of it is synced before the end: then all of it goes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::disk::{open_rw, read_dir, remove_file};
use super::{ContentStore, Result, StagingFile};
use crate::replica::blocks::{BlockMap, block_for};
use crate::replica::error::{AtPath, ReplicaError};
use crate::replica::rows::{Content, Node};
use crate::tree::{Kind, NodeId};

mod form;
mod keep;

use form::{HEADER, decode, encode};

/// Which content it is a part of: all of it is of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartOf {
    /// The `data_seq` of its node.
    pub seq: u64,
    /// Bytes of all of it.
    pub size: u64,
    /// Its mtime on the server, in seconds.
    pub mtime: i64,
}

impl PartOf {
    /// Whether this is what the row stands for.
    pub(in crate::replica) fn is_of(&self, node: &Node) -> bool {
        node.kind == Kind::File
            && node.content != Content::Whole
            && !node.data_changed
            && (node.data_seq, node.size) == (self.seq, self.size)
    }
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is the content whole, the content is another by a program's hand, or it made room.
    Over,
    /// What the server has is something else. Who read of it must not read on in that.
    Changed,
}

/// A content of which a part is here.
#[derive(Debug)]
pub struct Partial {
    of: PartOf,
    file: File,
    map_file: File,
    path: PathBuf,
    map: Mutex<BlockMap>,
    known: Arc<Known>,
    /// 0 while it is used, then 1 for `Over` and 2 for `Changed`.
    ended: AtomicU8,
    /// Some of it was compared with the server since it was opened, and since the link broke.
    compared: AtomicBool,
}

/// What is known of a part while nobody uses it.
#[derive(Debug, Default)]
struct Known {
    bytes: AtomicU64,
    /// It was written to since the start.
    touched: AtomicBool,
}

/// What is known of each, and the part itself while somebody uses it.
type ByNode = HashMap<NodeId, (Arc<Known>, Weak<Partial>)>;

/// All parts.
#[derive(Debug)]
pub(super) struct Partials {
    dir: PathBuf,
    /// Held while files are made, opened or removed, so that nobody removes what another just made.
    moving: Mutex<()>,
    known: Mutex<ByNode>,
}

impl Partial {
    fn new(
        of: PartOf,
        map: BlockMap,
        [file, map_file]: [File; 2],
        path: PathBuf,
        known: &Arc<Known>,
    ) -> Arc<Self> {
        Arc::new(Self {
            of,
            file,
            map_file,
            path,
            map: Mutex::new(map),
            known: Arc::clone(known),
            ended: AtomicU8::new(0),
            compared: AtomicBool::new(false),
        })
    }

    /// What it is a part of.
    pub fn of(&self) -> PartOf {
        self.of
    }

    /// The sparse file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether these bytes are here, as far as the content goes.
    pub fn has(&self, bytes: &Range<u64>) -> bool {
        self.map().has(bytes)
    }

    /// What is missing of these bytes, in whole blocks.
    pub fn missing(&self, bytes: &Range<u64>) -> Vec<Range<u64>> {
        self.map().missing(bytes)
    }

    /// The next that is missing of these bytes, about `most` at once.
    pub fn next_missing(&self, bytes: &Range<u64>, most: u64) -> Option<Range<u64>> {
        self.map().next_missing(bytes, most)
    }

    /// The first and the last block that are here.
    pub fn ends(&self) -> Vec<Range<u64>> {
        self.map().ends()
    }

    /// How many bytes are here.
    pub fn present(&self) -> u64 {
        self.map().present()
    }

    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.map().is_whole()
    }

    /// Puts bytes into the file; they count when they are [noted](Self::note).
    pub fn put(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.known.touched.store(true, Ordering::Relaxed);
        self.file.write_all_at(data, offset)
    }

    /// Notes that these bytes are here, and are of the content that this is a part of.
    pub fn note(&self, bytes: &Range<u64>) -> io::Result<()> {
        let mut map = self.map();
        let Some(changed) = map.set(bytes) else {
            return Ok(());
        };
        self.known.bytes.store(map.present(), Ordering::Relaxed);
        let at = HEADER as u64 + changed.start as u64;
        self.map_file.write_all_at(&map.bits()[changed], at)
    }

    /// What became of it; `None` while it is what it was.
    pub fn ended(&self) -> Option<Ended> {
        match self.ended.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Ended::Over),
            _ => Some(Ended::Changed),
        }
    }

    /// Whether it was compared with the server since it was opened, and since the link broke.
    pub fn is_compared(&self) -> bool {
        self.compared.load(Ordering::Relaxed)
    }

    /// Says so, or that it has to be compared again.
    pub fn set_compared(&self, compared: bool) {
        self.compared.store(compared, Ordering::Relaxed);
    }

    /// The file, to be installed as the whole content.
    pub fn to_install(&self) -> Result<StagingFile> {
        let file = self.file.try_clone().at(&self.path)?;
        Ok(StagingFile::new(file, self.path.clone()))
    }

    fn end(&self, ended: Ended) {
        let ended = match ended {
            Ended::Over => 1,
            Ended::Changed => 2,
        };
        self.ended.store(ended, Ordering::Release);
    }

    fn map(&self) -> MutexGuard<'_, BlockMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partials {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            moving: Mutex::default(),
            known: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ByNode> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, node: NodeId) -> PathBuf {
        self.dir.join(node.to_string())
    }

    fn map_path(&self, node: NodeId) -> PathBuf {
        self.dir.join(format!("{node}.map"))
    }

    /// Takes note of what the last run left, and removes what makes no sense.
    pub(super) fn load(&self) -> Result<()> {
        for path in read_dir(&self.dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let number = name.strip_suffix(".map").unwrap_or(&name).parse();
            let Ok(node) = number.map(NodeId) else {
                remove_file(&path)?;
                continue;
            };
            if self.lock().contains_key(&node) {
                continue;
            }
            match self.read_map(node)? {
                Some((_, map)) if map.present() > 0 => {
                    let known = Known::default();
                    known.bytes.store(map.present(), Ordering::Relaxed);
                    self.lock().insert(node, (Arc::new(known), Weak::new()));
                }
                _ => self.remove_files(node)?,
            }
        }
        Ok(())
    }

    fn read_map(&self, node: NodeId) -> Result<Option<(PartOf, BlockMap)>> {
        let path = self.map_path(node);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.at(&path)?,
        };
        let there = fs::metadata(self.path(node)).map(|meta| meta.len());
        let found = decode(&bytes).filter(|(of, _)| there.is_ok_and(|len| len == of.size));
        Ok(found)
    }

    fn remove_files(&self, node: NodeId) -> Result<()> {
        // The map first: bytes without it are nothing.
        remove_file(&self.map_path(node))?;
        remove_file(&self.path(node))
    }

    fn hold(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a part; whether there was one.
    pub(super) fn end(&self, node: NodeId, ended: Ended) -> Result<bool> {
        self.end_held(&self.hold(), node, ended)
    }

    fn end_held(&self, _held: &MutexGuard<'_, ()>, node: NodeId, ended: Ended) -> Result<bool> {
        let Some((_, live)) = self.lock().remove(&node) else {
            return Ok(false);
        };
        if let Some(live) = live.upgrade() {
            live.end(ended);
        }
        self.remove_files(node)?;
        Ok(true)
    }
}

impl ContentStore {
    /// What is here of the content of `node`, if a part is.
    pub fn partial(&self, node: NodeId) -> Result<Option<Arc<Partial>>> {
        self.partial_held(&self.partials.hold(), node)
    }

    fn partial_held(
        &self,
        _held: &MutexGuard<'_, ()>,
        node: NodeId,
    ) -> Result<Option<Arc<Partial>>> {
        let mut all = self.partials.lock();
        let Some((known, live)) = all.get_mut(&node) else {
            return Ok(None);
        };
        if let Some(live) = live.upgrade() {
            return Ok(Some(live));
        }
        let (path, map_path) = (self.partials.path(node), self.partials.map_path(node));
        let opened = self.partials.read_map(node)?;
        let Some((of, map)) = opened else {
            all.remove(&node);
            drop(all);
            self.partials.remove_files(node)?;
            return Ok(None);
        };
        let files = [
            open_rw(&path, false).at(&path)?,
            open_rw(&map_path, false).at(&map_path)?,
        ];
        let partial = Partial::new(of, map, files, path, known);
        *live = Arc::downgrade(&partial);
        Ok(Some(partial))
    }

    /// A part of the content of `node`, of which nothing is here yet; one of the same content that is there already. To
    /// be called while the row cannot change, and says that the content is not here.
    pub(in crate::replica) fn begin_partial(
        &self,
        node: NodeId,
        of: PartOf,
        least_block: u32,
    ) -> Result<Arc<Partial>> {
        let block = block_for(of.size, least_block);
        let held = self.partials.hold();
        if let Some(partial) = self.partial_held(&held, node)? {
            if partial.of == of {
                return Ok(partial);
            }
            self.partials.end_held(&held, node, Ended::Changed)?;
        }
        let (path, map_path) = (self.partials.path(node), self.partials.map_path(node));
        self.partials.remove_files(node)?;
        let file = open_rw(&path, true).at(&path)?;
        let map = BlockMap::new(of.size, block);
        let made = (|| {
            file.set_len(of.size).at(&path)?;
            let map_file = open_rw(&map_path, true).at(&map_path)?;
            let header = encode(&of, block, &map);
            map_file.write_all_at(&header, 0).at(&map_path)?;
            Ok::<_, ReplicaError>(map_file)
        })();
        let map_file = match made {
            Ok(map_file) => map_file,
            Err(error) => {
                self.partials.remove_files(node)?;
                return Err(error);
            }
        };
        let known = Arc::new(Known::default());
        let partial = Partial::new(of, map, [file, map_file], path, &known);
        // There is nothing yet to compare.
        partial.set_compared(true);
        let entry = (known, Arc::downgrade(&partial));
        self.partials.lock().insert(node, entry);
        Ok(partial)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // One range is what is meant.
mod tests;
