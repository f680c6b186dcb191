//! Which nodes are open right now, and for what. In memory: an open file does not outlive the mount.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tree::NodeId;

/// Counts of open handles by node.
#[derive(Debug, Default)]
pub struct Opens {
    counts: Mutex<HashMap<NodeId, Handles>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Handles {
    readers: u32,
    writers: u32,
}

impl Handles {
    fn count(&mut self, write: bool) -> &mut u32 {
        if write {
            &mut self.writers
        } else {
            &mut self.readers
        }
    }
}

impl Opens {
    /// A handle was opened; `write` if it may write.
    pub fn inc(&self, node: NodeId, write: bool) {
        *self.lock().entry(node).or_default().count(write) += 1;
    }

    /// A handle opened with the same `write` was closed.
    pub fn dec(&self, node: NodeId, write: bool) {
        let mut counts = self.lock();
        let Some(handles) = counts.get_mut(&node) else {
            return;
        };
        let count = handles.count(write);
        *count = count.saturating_sub(1);
        if handles.readers == 0 && handles.writers == 0 {
            counts.remove(&node);
        }
    }

    /// How many handles only read.
    pub fn readers(&self, node: NodeId) -> u32 {
        self.handles(node).readers
    }

    /// How many handles may write.
    pub fn writers(&self, node: NodeId) -> u32 {
        self.handles(node).writers
    }

    /// Whether there is any handle.
    pub fn is_open(&self, node: NodeId) -> bool {
        self.lock().contains_key(&node)
    }

    fn handles(&self, node: NodeId) -> Handles {
        self.lock().get(&node).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Handles>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_open_until_its_last_handle_closes() {
        let opens = Opens::default();
        let node = NodeId(20);
        opens.inc(node, false);
        opens.inc(node, true);
        opens.dec(node, false);
        assert_eq!((opens.readers(node), opens.writers(node)), (0, 1));
        assert!(opens.is_open(node));
        opens.dec(node, true);
        opens.dec(node, true);
        assert!(!opens.is_open(node));
        assert_eq!(opens.writers(node), 0);
    }
}
