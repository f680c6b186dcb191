//! Content that the server has too is not synced when it gets its row: that would cost every fetch and every
//! upload a wait for the disk. Until the disk is known to keep it, a row of `unsynced` says so, which comes in the
//! same transaction and so is never lost without it. After a power loss such content is fetched again.
//!
//! Some time later the kernel has written it back by itself, so that syncing it takes hardly anything.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::error::ReplicaError;
use super::index::Shared;
use super::table::Unsynced;
use super::view::View;
use crate::tree::NodeId;

/// How long content is left to the kernel: as long as it leaves written pages in memory, and some.
const SETTLE_AFTER: Duration = Duration::from_secs(40);
/// Files that are synced before somebody else may want to commit.
const SETTLE_AT_ONCE: usize = 32;

impl View<'_> {
    /// Nodes whose content may not be on the disk yet, each with the update that says so.
    pub(super) fn unsynced(&self) -> Result<Vec<(NodeId, u64)>, ReplicaError> {
        self.by_node::<Unsynced>(usize::MAX)
    }

    pub(super) fn unsynced_since(&self, node: NodeId) -> Result<Option<u64>, ReplicaError> {
        self.get::<Unsynced>(&node)
    }
}

/// Nodes whose content is not known to be on the disk, oldest first.
pub(super) struct Settling {
    waiting: VecDeque<(NodeId, u64, Instant)>,
}

impl Settling {
    /// Starts with what the last run left.
    pub(super) fn new(unsynced: Vec<(NodeId, u64)>) -> Self {
        let mut settling = Self {
            waiting: VecDeque::new(),
        };
        settling.add(unsynced.into_iter());
        settling
    }

    pub(super) fn add(&mut self, unsynced: impl Iterator<Item = (NodeId, u64)>) {
        let now = Instant::now();
        self.waiting
            .extend(unsynced.map(|(node, since)| (node, since, now)));
    }

    /// How long until there is something to do; `None` if nothing waits.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let (_, _, added) = self.waiting.front()?;
        Some(SETTLE_AFTER.saturating_sub(added.elapsed()))
    }

    /// Syncs all that waits.
    pub(super) fn settle_now(&mut self, shared: &Shared) {
        let waiting = self.waiting.drain(..);
        let waiting: Vec<_> = waiting.map(|(node, since, _)| (node, since)).collect();
        sync(shared, waiting);
    }

    /// Syncs some of what has waited long enough.
    pub(super) fn settle(&mut self, shared: &Shared) {
        let mut ripe = Vec::new();
        while ripe.len() < SETTLE_AT_ONCE && self.due_in() == Some(Duration::ZERO) {
            let Some((node, since, _)) = self.waiting.pop_front() else {
                break;
            };
            ripe.push((node, since));
        }
        sync(shared, ripe);
    }
}

/// Syncs the content of nodes, and takes note of it.
fn sync(shared: &Shared, mut nodes: Vec<(NodeId, u64)>) {
    nodes.retain(|(node, _)| match shared.content.sync_file(*node) {
        Ok(()) => true,
        // The row stays: after a power loss it is fetched again, and the next start tries again.
        Err(error) => {
            tracing::warn!(%error, "cannot sync content");
            false
        }
    });
    if nodes.is_empty() {
        return;
    }
    let done = shared.update_locked::<_, ReplicaError>(&mut shared.lock(), |tx| {
        let mut nodes = nodes.into_iter();
        nodes.try_for_each(|(node, since)| tx.settle(node, since))
    });
    if let Err(error) = done {
        tracing::warn!(%error, "cannot note that content is on the disk");
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::tests::{make, open, update, view};
    use super::super::rows::Content;
    use super::*;

    #[test]
    fn content_is_synced_some_time_after_it_came_unless_it_came_again() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let [one, other] = ["one", "other"].map(|name| {
            make(&replica, name, |node| {
                node.size = 1;
                node.content = Content::Whole;
            })
        });
        let unsynced = view(&replica, |view| view.unsynced());
        assert_eq!(unsynced.len(), 2);
        let mut settling = Settling::new(unsynced);
        settling.settle(&replica.shared);
        assert_eq!(view(&replica, |view| view.unsynced()).len(), 2, "too early");
        update(&replica, |tx| {
            let mut node = tx.node(other)?.unwrap();
            node.data_seq += 1;
            tx.put_node(node)
        });
        for (_, _, added) in &mut settling.waiting {
            *added -= SETTLE_AFTER;
        }
        settling.settle(&replica.shared);
        let left = view(&replica, |view| view.unsynced());
        let left: Vec<_> = left.into_iter().map(|(id, _)| id).collect();
        assert_eq!((one < other, left), (true, vec![other]));
    }
}
