//! Which nodes are open right now, and for what, and which are being written to at this moment. In memory: an
//! open file does not outlive the mount.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::tree::NodeId;

/// Counts of open handles by node.
#[derive(Debug, Default)]
pub struct Opens {
    counts: Mutex<HashMap<NodeId, Handles>>,
    moments: Mutex<HashMap<NodeId, Moment>>,
    /// A moment is over.
    over: Condvar,
}

/// What happens to a content at this moment; forgotten when nothing does.
#[derive(Debug, Default)]
struct Moment {
    writes: u32,
    held_still: bool,
}

#[derive(Debug, Default)]
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

    /// Content is about to be changed, and its row after it: both agree again when this is dropped. Waits while
    /// the content is held [still](Self::still).
    pub fn write(&self, node: NodeId) -> Writing<'_> {
        let mut moments = self.when(node, |moment| !moment.held_still);
        moments.entry(node).or_default().writes += 1;
        Writing { opens: self, node }
    }

    /// Waits for writes under way, and keeps others from beginning until this is dropped.
    pub fn still(&self, node: NodeId) -> Still<'_> {
        let mut moments = self.when(node, |moment| !moment.held_still);
        moments.entry(node).or_default().held_still = true;
        drop(moments);
        // Nobody but us ends it, and nobody begins to write.
        drop(self.when(node, |moment| moment.writes == 0));
        Still { opens: self, node }
    }

    /// Waits until `is` holds for what happens to `node`.
    fn when(
        &self,
        node: NodeId,
        is: impl Fn(&Moment) -> bool,
    ) -> MutexGuard<'_, HashMap<NodeId, Moment>> {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let not_yet = |moments: &mut HashMap<NodeId, Moment>| {
            moments.get(&node).is_some_and(|moment| !is(moment))
        };
        let waited = self.over.wait_while(moments, not_yet);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, node: NodeId, change: impl FnOnce(&mut Moment)) {
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(moment) = moments.get_mut(&node) {
            change(moment);
            if moment.writes == 0 && !moment.held_still {
                moments.remove(&node);
            }
        }
        drop(moments);
        self.over.notify_all();
    }

    /// How many handles may write.
    pub fn writers(&self, node: NodeId) -> u32 {
        self.lock().get(&node).map_or(0, |handles| handles.writers)
    }

    /// Whether there is any handle.
    pub fn is_open(&self, node: NodeId) -> bool {
        self.lock().contains_key(&node)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Handles>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of content under way.
#[derive(Debug)]
pub struct Writing<'a> {
    opens: &'a Opens,
    node: NodeId,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.opens.end(self.node, |moment| moment.writes -= 1);
    }
}

/// A content that nobody changes.
#[derive(Debug)]
pub struct Still<'a> {
    opens: &'a Opens,
    node: NodeId,
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.opens
            .end(self.node, |moment| moment.held_still = false);
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
        assert_eq!(opens.writers(node), 1);
        assert!(opens.is_open(node));
        opens.dec(node, true);
        opens.dec(node, true);
        assert!(!opens.is_open(node));
        assert_eq!(opens.writers(node), 0);
    }
}
