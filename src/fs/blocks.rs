//! Reading files by block: a large file that is not here is opened at once, and what is read of it is fetched then.

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::handle::{OpenContent, OpenFile, lock};
use super::{FsError, Home, Need, Stop};
use crate::engine::Wanted;
use crate::replica::{Content, ContentStore, Ended, Partial};
use crate::tree::NodeId;

/// The most that is fetched ahead of a reader, in bytes.
const MOST_AHEAD: u64 = 4 << 20;
/// Who read so much in a row is likely to read all of it.
const READS_ALL: u64 = 8 << 20;
/// The kernel asks for what comes next before what came before it: what is so near is in a row.
const NEAR: u64 = 2 << 20;

/// How one reader goes through a file.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Where the next read would go on.
    next: u64,
    /// Bytes read in a row up to there.
    in_a_row: u64,
}

impl Progress {
    /// A read of these bytes. Tells how much more to fetch, and whether all of it: nothing for who jumps about, ever
    /// more for who reads in a row.
    fn read(&mut self, bytes: &Range<u64>) -> (u64, bool) {
        let is_near =
            self.in_a_row > 0 && bytes.start.abs_diff(self.next) <= NEAR.min(self.in_a_row);
        if !is_near {
            self.in_a_row = bytes.end - bytes.start;
            self.next = bytes.end;
            return (0, false);
        }
        self.in_a_row += bytes.end.saturating_sub(self.next);
        self.next = self.next.max(bytes.end);
        (self.in_a_row.min(MOST_AHEAD), self.in_a_row >= READS_ALL)
    }
}

/// What a handle has of a file that is read by block.
#[derive(Debug, Default)]
pub(super) struct Reader {
    progress: Mutex<Progress>,
    /// What it has read from, since it must not read on in another version.
    part: Mutex<Option<Arc<Partial>>>,
}

/// Where bytes are to be read.
pub(super) enum Source {
    /// In this file.
    File(Arc<File>),
    /// In this part, where they are.
    Part(Arc<Partial>),
    /// There are none.
    Empty,
}

impl Home {
    /// Where some bytes of an open file are, or what has to come first.
    pub(super) fn source(&self, file: &OpenFile, bytes: &Range<u64>) -> Result<Source, Stop> {
        let content = &file.content;
        if !content.is_partial() {
            return Ok(content.file().map_or(Source::Empty, Source::File));
        }
        let held = lock(&file.reader.part).clone();
        let has_read = held.is_some();
        if held.is_some_and(|part| part.ended() == Some(Ended::Changed)) {
            return Err(FsError::Stale.into());
        }
        if let Some(file) = content.file() {
            return Ok(Source::File(file));
        }
        let (ahead, rest) = lock(&file.reader.progress).read(bytes);
        let node = content.node;
        if let Some(part) = self.replica.content().partial(node)? {
            let is_here = part.has(bytes);
            if !has_read {
                ContentStore::note_use(part.file(), self.now());
            }
            *lock(&file.reader.part) = Some(Arc::clone(&part));
            if is_here {
                return Ok(Source::Part(part));
            }
        } else if let Some(source) = self.whole_by_now(content)? {
            return Ok(source);
        }
        let bytes = bytes.clone();
        let wanted = Wanted { bytes, ahead, rest };
        Err(Stop::Needs(Need::Bytes(node, wanted)))
    }

    /// Nobody had the file open: what is here of it is compared with the server's before anything is added.
    pub(super) fn distrust_part(&self, id: NodeId) {
        match self.replica.content().partial(id) {
            Ok(part) => part.into_iter().for_each(|part| part.set_compared(false)),
            Err(error) => tracing::debug!(%error, "it will show when it is read"),
        }
    }

    /// The content of a file that was opened when a part of it was here, if all of it is by now.
    fn whole_by_now(&self, content: &OpenContent) -> Result<Option<Source>, Stop> {
        let node = self.replica.view(|view| view.node(content.node))?;
        let node = node.ok_or_else(|| self.gone(content.node))?;
        if node.content != Content::Whole {
            return Ok(None);
        }
        match self.load(content, &node)? {
            true => Ok(Some(content.file().map_or(Source::Empty, Source::File))),
            false => {
                self.give_up_content(node.id)?;
                Ok(None)
            }
        }
    }

    /// Where data or a hole begins in a file of which only a part is here: what is missing may be anything, so all is
    /// data. `None` for other files.
    pub(super) fn seek_partial(
        &self,
        content: &OpenContent,
        offset: u64,
        hole: bool,
    ) -> Result<Option<u64>, FsError> {
        if !content.is_partial() || content.file().is_some() {
            return Ok(None);
        }
        let size = self.size_of(content.node)?;
        match (offset < size, hole) {
            (false, _) => Err(FsError::NoData),
            (true, true) => Ok(Some(size)),
            (true, false) => Ok(Some(offset)),
        }
    }

    /// The size of an open file as its row has it.
    pub(super) fn size_of(&self, id: NodeId) -> Result<u64, FsError> {
        let node = self.replica.view(|view| view.node(id))?;
        Ok(node.ok_or_else(|| self.gone(id))?.size)
    }
}

/// Reads from `file` up to `size` bytes; fewer only at its end.
pub(super) fn read_fully(file: &File, offset: u64, size: usize) -> Result<Vec<u8>, FsError> {
    let mut data = Vec::with_capacity(size);
    while data.len() < size {
        let at = offset + data.len() as u64;
        let spare = rustix::buffer::spare_capacity(&mut data);
        match rustix::io::pread(file, spare, at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(FsError::Content(error.into())),
        }
    }
    data.truncate(size);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn who_jumps_about_gets_nothing_ahead() {
        let mut progress = Progress::default();
        for at in [0, 900, 30, 700, 31, 5] {
            let at = at * KIB * KIB;
            assert_eq!(progress.read(&(at..at + 4 * KIB)), (0, false), "{at}");
        }
    }

    #[test]
    fn who_reads_in_a_row_gets_ever_more_and_then_all() {
        let mut progress = Progress::default();
        let mut told = Vec::new();
        let mut at = 0;
        while !told.last().is_some_and(|(_, all)| *all) {
            told.push(progress.read(&(at..at + 128 * KIB)));
            at += 128 * KIB;
        }
        let ahead: Vec<_> = told.iter().map(|(ahead, _)| ahead / KIB).collect();
        assert_eq!(ahead[..4], [0, 256, 384, 512]);
        assert!(ahead.iter().all(|ahead| *ahead <= MOST_AHEAD / KIB));
        assert_eq!(at, READS_ALL);
    }

    #[test]
    fn the_order_of_neighbours_does_not_matter_and_reading_again_counts_once() {
        let mut progress = Progress::default();
        let chunk = |nth: u64| nth * 128 * KIB..(nth + 1) * 128 * KIB;
        progress.read(&chunk(0));
        for nth in [1, 3, 2, 2, 3, 5, 4, 6, 6] {
            let (ahead, _) = progress.read(&chunk(nth));
            assert!(ahead > 0, "{nth}");
        }
        assert_eq!(progress.in_a_row, 7 * 128 * KIB);
        // And elsewhere it begins anew.
        assert_eq!(progress.read(&chunk(1000)), (0, false));
    }

    #[test]
    fn a_read_that_is_done_again_is_no_jump() {
        let mut progress = Progress::default();
        assert_eq!(progress.read(&(0..4 * KIB)), (0, false));
        assert!(!progress.read(&(0..4 * KIB)).1);
        assert_eq!(progress.in_a_row, 4 * KIB);
    }
}
