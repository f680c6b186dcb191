//! Who waits for which bytes of a file that is read by block, and which of them are on their way: nobody asks for what
//! somebody else is bringing.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::super::shared::lock;
use super::super::{Done, FetchError};
use crate::replica::Partial;
use crate::tree::NodeId;

/// The files that are read by block at this moment.
#[derive(Default)]
pub(in crate::engine) struct Feeds(Mutex<HashMap<NodeId, Weak<Feed>>>);

/// One of them.
#[derive(Default)]
pub(super) struct Feed {
    state: Mutex<State>,
    /// Held by who brings all of it.
    pub(super) filling: tokio::sync::Mutex<()>,
    /// A reader lets all of it come.
    pub(super) comes_whole: AtomicBool,
    /// So many wait for all of it.
    urgent: AtomicUsize,
}

#[derive(Default)]
struct State {
    waiters: Vec<(Range<u64>, Done)>,
    on_their_way: Vec<Range<u64>>,
}

impl Feeds {
    /// The one of this file.
    pub(super) fn of(&self, node: NodeId) -> Arc<Feed> {
        let mut feeds = lock(&self.0);
        if let Some(feed) = feeds.get(&node).and_then(Weak::upgrade) {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed = Arc::new(Feed::default());
        feeds.insert(node, Arc::downgrade(&feed));
        feed
    }
}

impl Feed {
    /// Calls `done` when `bytes` are here, or could not be had. What is `missing` and not on its way already is from now
    /// on: whoever calls has to bring it.
    pub(super) fn wait(
        self: &Arc<Self>,
        bytes: Range<u64>,
        missing: impl FnOnce() -> Vec<Range<u64>>,
        done: Done,
    ) -> Option<Flight> {
        let mut state = lock(&self.state);
        // What came until now has been noted.
        let mut parts = missing();
        let are_here = !parts.iter().any(|part| touch(part, &bytes));
        for other in &state.on_their_way {
            parts = parts.iter().flat_map(|part| without(part, other)).collect();
        }
        state.on_their_way.extend(parts.iter().cloned());
        if are_here {
            drop(state);
            done(Ok(()));
        } else {
            state.waiters.push((bytes, done));
            drop(state);
        }
        let flight = Flight {
            feed: Arc::clone(self),
            left: parts,
        };
        (!flight.left.is_empty()).then_some(flight)
    }

    /// Says that `bytes` are being brought.
    pub(super) fn send(self: &Arc<Self>, bytes: Range<u64>) -> Flight {
        lock(&self.state).on_their_way.push(bytes.clone());
        Flight {
            feed: Arc::clone(self),
            left: vec![bytes],
        }
    }

    /// Whether somebody is bringing some of `bytes`.
    pub(super) fn is_on_its_way(&self, bytes: &Range<u64>) -> bool {
        let state = lock(&self.state);
        state.on_their_way.iter().any(|other| touch(other, bytes))
    }

    /// Whether somebody waits for all of it, and has to wait for who brings it at his leisure.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed) > 0
    }

    /// Somebody waits for all of it while the result lives.
    pub(super) fn urge(&self) -> Urge<'_> {
        self.urgent.fetch_add(1, Ordering::Relaxed);
        Urge(self)
    }

    /// What became of `bytes`.
    fn land(&self, bytes: &Range<u64>, landing: &Landing<'_>) {
        let mut due = Vec::new();
        {
            let mut state = lock(&self.state);
            if let Some(nth) = state.on_their_way.iter().position(|other| other == bytes) {
                state.on_their_way.swap_remove(nth);
            }
            for (wanted, done) in std::mem::take(&mut state.waiters) {
                let is_due = touch(&wanted, bytes)
                    && match landing {
                        Landing::Came(partial) => partial.has(&wanted),
                        Landing::Failed(_) | Landing::Needless => true,
                    };
                match is_due {
                    true => due.push(done),
                    false => state.waiters.push((wanted, done)),
                }
            }
        }
        let outcome = match landing {
            Landing::Failed(error) => Err(*error),
            Landing::Came(_) | Landing::Needless => Ok(()),
        };
        due.into_iter().for_each(|done| done(outcome));
    }
}

/// What can become of bytes on their way.
enum Landing<'a> {
    /// They are here.
    Came(&'a Partial),
    /// They could not be had.
    Failed(FetchError),
    /// Whoever waits for them has to look again.
    Needless,
}

/// See [`Feed::urge`].
pub(super) struct Urge<'a>(&'a Feed);

impl Drop for Urge<'_> {
    fn drop(&mut self) {
        self.0.urgent.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that are being brought. Who waits for them hears what became of it, whatever does.
pub(super) struct Flight {
    feed: Arc<Feed>,
    left: Vec<Range<u64>>,
}

impl Flight {
    /// What is still to come.
    pub(super) fn left(&self) -> &[Range<u64>] {
        &self.left
    }

    /// `bytes`, with which one of what is left begins, are in `partial`.
    pub(super) fn came(&mut self, bytes: &Range<u64>, partial: &Partial) {
        let Some(nth) = self.left.iter().position(|part| part.start == bytes.start) else {
            return;
        };
        let part = self.left.swap_remove(nth);
        if bytes.end < part.end {
            let rest = bytes.end..part.end;
            lock(&self.feed.state).on_their_way.push(rest.clone());
            self.left.push(rest);
        }
        self.feed.land(&part, &Landing::Came(partial));
    }

    /// The rest could not be had.
    pub(super) fn fail(mut self, error: FetchError) {
        self.end(&Landing::Failed(error));
    }

    /// The rest is not needed.
    pub(super) fn let_go(mut self) {
        self.end(&Landing::Needless);
    }

    fn end(&mut self, landing: &Landing<'_>) {
        for part in std::mem::take(&mut self.left) {
            self.feed.land(&part, landing);
        }
    }
}

impl Drop for Flight {
    /// It was given up: the server says nothing, or nothing works any more.
    fn drop(&mut self) {
        self.end(&Landing::Failed(FetchError::Unreachable));
    }
}

fn touch(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// What is left of `part` without `other`.
fn without(part: &Range<u64>, other: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let before = part.start..part.end.min(other.start);
    let behind = part.start.max(other.end)..part.end;
    // Where they have nothing in common, one of both is all of it.
    [before, behind]
        .into_iter()
        .filter(|rest| rest.start < rest.end)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // One range is what is meant.
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    type Heard = Receiver<Result<(), FetchError>>;

    /// Waits for bytes of a file of which nothing is here.
    fn wait(feed: &Arc<Feed>, bytes: Range<u64>) -> (Option<Flight>, Heard) {
        let (sender, heard) = channel();
        let done: Done = Box::new(move |outcome| sender.send(outcome).unwrap());
        (feed.wait(bytes.clone(), || vec![bytes], done), heard)
    }

    #[test]
    fn nobody_asks_for_what_is_on_its_way_and_all_hear_what_became_of_it() {
        let feed = Feeds::default().of(NodeId(20));
        let (first, heard) = wait(&feed, 100..300);
        let first = first.unwrap();
        assert_eq!(first.left(), [100..300]);
        // Of this one part is on its way.
        let (second, also) = wait(&feed, 200..400);
        let second = second.unwrap();
        assert_eq!(second.left(), [300..400]);
        let (third, third_heard) = wait(&feed, 120..130);
        assert!(third.is_none());
        assert!(feed.is_on_its_way(&(399..500)) && !feed.is_on_its_way(&(400..500)));
        second.let_go();
        assert_eq!(also.try_recv(), Ok(Ok(())));
        first.fail(FetchError::Gone);
        for heard in [heard, third_heard] {
            assert_eq!(heard.try_recv(), Ok(Err(FetchError::Gone)));
        }
        assert!(!feed.is_on_its_way(&(0..500)));
    }

    #[test]
    fn what_is_given_up_leaves_nobody_waiting_and_what_is_here_is_told_at_once() {
        let feed = Feeds::default().of(NodeId(20));
        let (flight, heard) = wait(&feed, 0..10);
        drop(flight);
        assert_eq!(heard.try_recv(), Ok(Err(FetchError::Unreachable)));
        let (sender, heard) = channel();
        let done: Done = Box::new(move |outcome| sender.send(outcome).unwrap());
        // What is ahead is missing, and comes without anybody waiting for it.
        let flight = feed.wait(0..10, || vec![10..20], done).unwrap();
        assert_eq!(heard.try_recv(), Ok(Ok(())));
        assert_eq!(flight.left(), [10..20]);
    }
}
