//! What programs read in the first minutes after a mount is remembered in the home, and fetched at once when a machine
//! comes up that lacks it: who logs in there does not wait for one file after the other.
//!
//! One task, which ends when both are done. It holds nobody up: it fetches over the sessions for bulk, where what
//! somebody waits for goes first, and tells what was read when the first minutes are over. When the link is down then, or
//! the mount ends before, the next link or the next mount tells it.

mod bring;
mod tell;

pub(super) use tell::clear;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::link::LinkState;
use super::shared::{FAULT, Shared, contained, lock};
use crate::remote::layout::BOOST_FILES_MAX;
use crate::tree::NodeId;

/// When it is tried again: as soon as there is a link again, or later if that is not what was wrong.
const AFTER_LOSS: Duration = Duration::from_secs(1);
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Such failures are not tried again for ever.
const TRIES: u32 = 3;

/// What programs read since the mount.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// When what they read tells nothing of the next login any more; `None`: it never does.
    until: Option<Instant>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    files: HashSet<NodeId>,
    in_order: Vec<NodeId>,
}

impl Reads {
    /// Remembers from now on, for a while.
    pub(super) fn new(window: Option<Duration>) -> Self {
        Self {
            until: window.map(|window| Instant::now() + window),
            seen: Mutex::default(),
        }
    }

    /// Whether it would be new that a program reads the file.
    pub(super) fn lacks(&self, file: NodeId) -> bool {
        if self.until.is_none_or(|until| Instant::now() >= until) {
            return false;
        }
        let seen = lock(&self.seen);
        seen.in_order.len() < BOOST_FILES_MAX && !seen.files.contains(&file)
    }

    /// A program reads the file.
    pub(super) fn add(&self, file: NodeId) {
        if self.lacks(file) {
            let mut seen = lock(&self.seen);
            if seen.files.insert(file) {
                seen.in_order.push(file);
            }
        }
    }

    /// What they read, in order; the next time nothing.
    fn take(&self) -> Vec<NodeId> {
        std::mem::take(&mut *lock(&self.seen)).in_order
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Bring,
    /// Tell what earlier mounts left, or what this one did.
    Tell,
}

/// Fetches and tells, until both are done or the engine stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let Some(until) = shared.reads.until else {
        return;
    };
    let mut stopping = shared.stopping.subscribe();
    let over = tokio::time::sleep_until(until);
    tokio::pin!(over);
    let mut is_over = false;
    // Whether this machine's list is on the server.
    let mut is_there = true;
    let mut steps = vec![Step::Tell, Step::Tell, Step::Bring];
    let (mut tries, mut not_before) = (0, Instant::now());
    while let Some(step) = steps.last().copied() {
        let online = async {
            tokio::time::sleep_until(not_before).await;
            let mut link = shared.link.subscribe();
            drop(link.wait_for(|view| view.state == LinkState::Online).await);
        };
        tokio::select! {
            biased;
            _ = stopping.changed() => return,
            () = &mut over, if !is_over => {
                is_over = true;
                tell::note(&shared);
                continue;
            }
            () = online, if is_over || steps.len() > 1 => {}
        }
        let work = async {
            let done = match step {
                Step::Bring => bring::bring(&shared).await,
                Step::Tell => tell::tell(&shared, is_there).await.map(|()| true),
            };
            done.map_err(|error| error.to_string())
        };
        match contained(work, || FAULT.to_owned()).await {
            Ok(there) => {
                (is_there, tries) = (there, 0);
                steps.pop();
            }
            Err(error) => {
                tracing::debug!(%error, ?step, "what logins read");
                let lost = shared.online().is_none();
                tries += u32::from(!lost);
                if tries == TRIES {
                    tries = 0;
                    steps.pop();
                }
                let wait = if lost { AFTER_LOSS } else { AFTER_FAILURE };
                not_before = Instant::now() + wait;
            }
        }
    }
}

/// The mount ends: what was read in a short one counts as well.
pub(super) fn end(shared: &Shared) {
    tell::note(shared);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_noted_once_in_the_order_of_reading_and_only_in_the_first_minutes() {
        let reads = Reads::new(Some(Duration::from_secs(60)));
        for file in [30, 20, 30, 40] {
            reads.add(NodeId(file));
        }
        assert!(!reads.lacks(NodeId(20)) && reads.lacks(NodeId(50)));
        assert_eq!(reads.take(), [30, 20, 40].map(NodeId));
        for window in [None, Some(Duration::ZERO)] {
            let reads = Reads::new(window);
            assert!(!reads.lacks(NodeId(20)));
            reads.add(NodeId(20));
            assert_eq!(reads.take(), []);
        }
    }

    #[test]
    fn who_reads_everything_fills_no_more_than_a_list() {
        let reads = Reads::new(Some(Duration::from_secs(60)));
        (0..20_000).for_each(|file| reads.add(NodeId(file)));
        assert_eq!(reads.take().len(), BOOST_FILES_MAX);
    }
}
