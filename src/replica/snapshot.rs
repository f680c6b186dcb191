//! Files as they were at one moment, although programs go on writing to them.
//!
//! Where the disk can share blocks, or there is little to copy, writers are held still meanwhile. What is large
//! and has to be copied is copied beside them, and counts only if none of them changed anything in that time. So does
//! what the kernel writes by itself, whom nobody can hold.

use super::content::StagingFile;
use super::direct::Rest;
use super::error::ReplicaError;
use super::index::Replica;
use super::rows::{Content, Node};
use crate::tree::{Kind, NodeId};

/// The most that is copied while writers are held still, in bytes: no program notices.
pub(super) const HELD_MAX: u64 = 16 * 1024 * 1024;

/// How often what is larger is copied in the hope that nobody writes to it meanwhile.
pub(super) const ATTEMPTS: u32 = 3;

/// A file at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Its row. The size is that of the content.
    pub node: Node,
    /// Its content; `None` if it was empty.
    pub file: Option<StagingFile>,
}

impl Replica {
    /// The file `id` as it is at one moment. `None` if it is gone, or not all of it is here, or it is large and
    /// is written to without pause on a disk that cannot share blocks.
    pub fn snapshot(&self, id: NodeId) -> Result<Option<Snapshot>, ReplicaError> {
        self.snapshot_holding(id, HELD_MAX)
    }

    fn snapshot_holding(&self, id: NodeId, most: u64) -> Result<Option<Snapshot>, ReplicaError> {
        for _ in 0..ATTEMPTS {
            let rest = self.rest(id)?;
            if rest == Rest::Restless {
                continue;
            }
            let still = self.opens().still(id);
            let Some(mut node) = self.whole_file(id)? else {
                return Ok(None);
            };
            if node.size == 0 {
                return Ok(Some(Snapshot { node, file: None }));
            }
            let shared = self.content().share(id)?;
            let was_shared = shared.is_some();
            let still = (was_shared || node.size <= most).then_some(still);
            let file = match shared {
                Some(file) => file,
                None => self.content().copy(id)?,
            };
            let ours = still.is_some() || self.is_unwritten_since(&node)?;
            if ours && self.rests_still(id, rest)? {
                // A write that failed half-way may have left more than the row knows.
                node.size = file.len()?;
                let file = Some(file);
                return Ok(Some(Snapshot { node, file }));
            }
        }
        Ok(None)
    }

    fn whole_file(&self, id: NodeId) -> Result<Option<Node>, ReplicaError> {
        let node = self.view::<_, ReplicaError>(|view| view.node(id))?;
        Ok(node.filter(|node| node.kind == Kind::File && node.content == Content::Whole))
    }

    fn is_unwritten_since(&self, before: &Node) -> Result<bool, ReplicaError> {
        let _still = self.opens().still(before.id);
        let now = self.view::<_, ReplicaError>(|view| view.node(before.id))?;
        Ok(now.is_some_and(|now| now.data_seq == before.data_seq))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::super::index::tests::{fill, make, open};
    use super::*;
    use crate::tree::RelPath;

    /// Spans several pieces of a copy.
    const SIZE: usize = 700_000;

    fn bytes_of(mut snapshot: Snapshot) -> Vec<u8> {
        let file = &mut snapshot.file.as_mut().unwrap().file;
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Ends the writer.
    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Looks while somebody writes without pause, and once more afterwards: what is seen is whole.
    fn beside_a_writer(look: impl Fn(&Replica, NodeId) -> Option<Snapshot>) {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let id = make(&replica, "f", |node| {
            node.data_changed = true;
            node.size = SIZE as u64;
            node.content = Content::Whole;
        });
        let hint = RelPath::parse(b"f").unwrap();
        let file = replica.content().open_unsent(id, &hint).unwrap();
        fill(&replica, id, &file, (0, SIZE));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // However this ends.
            let stop = Stop(&done);
            scope.spawn(|| {
                for byte in (1..=255).cycle() {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    fill(&replica, id, &file, (byte, SIZE));
                }
            });
            for _ in 0..20 {
                look(&replica, id).into_iter().for_each(assert_whole);
            }
            drop(stop);
        });
        assert_whole(look(&replica, id).unwrap());
    }

    fn assert_whole(snapshot: Snapshot) {
        assert_eq!(snapshot.node.size, SIZE as u64);
        let bytes = bytes_of(snapshot);
        assert_eq!(bytes, vec![bytes[0]; SIZE]);
    }

    #[test]
    fn a_file_that_is_never_left_alone_is_copied_as_it_was_at_one_moment() {
        beside_a_writer(|replica, id| Some(replica.snapshot(id).unwrap().unwrap()));
    }

    #[test]
    fn a_large_file_counts_only_if_nobody_wrote_while_it_was_copied() {
        beside_a_writer(|replica, id| replica.snapshot_holding(id, 0).unwrap());
    }
}
