//! Looking again and again at what the kernel may write to, and at what was closed and is used by somebody all the same.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::super::Home;
use super::super::handle::{OpenContent, lock};
use super::Through;

/// When what was closed is looked at first.
const SOON: Duration = Duration::from_millis(20);

/// How often what the kernel may write to is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Left {
    /// Since the last look.
    contents: Vec<Arc<OpenContent>>,
    /// At the last look.
    used: Vec<Arc<OpenContent>>,
    /// What the kernel may write to has become more.
    more: bool,
    over: bool,
}

impl Through {
    pub(super) fn leave(&self, content: &Arc<OpenContent>) {
        lock(&self.left).contents.push(Arc::clone(content));
        self.wake.notify_all();
    }

    pub(super) fn wake_up(&self) {
        lock(&self.left).more = true;
        self.wake.notify_all();
    }

    /// Waits until there is something to look at: what was just closed and is used soon, for the kernel takes a moment;
    /// everything else less and less often. `None` when it is over.
    fn next(&self, pause: &mut Duration) -> Option<Vec<Arc<OpenContent>>> {
        let mut left = lock(&self.left);
        loop {
            if left.over {
                return None;
            }
            if !left.contents.is_empty() {
                *pause = SOON;
            }
            let idle = left.contents.is_empty() && left.used.is_empty() && !left.more;
            if idle {
                let woken = self.wake.wait(left);
                left = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.wake.wait_timeout(left, *pause);
            let timed_out;
            (left, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
            if timed_out.timed_out() {
                *pause = (*pause * 2).min(LOOK_EVERY);
                let mut all = std::mem::take(&mut left.contents);
                all.append(&mut left.used);
                return Some(all);
            }
        }
    }
}

impl Home {
    /// Looks again and again at what the kernel may write to, until [`Home::look_no_more`].
    pub fn keep_looking(&self) {
        let mut pause = SOON;
        while let Some(contents) = self.through.next(&mut pause) {
            for id in self.replica.directs() {
                self.look_at(id);
            }
            let mut used = Vec::new();
            for content in contents {
                let over = self.end_if_unused(&content, &mut lock(&content.way));
                match over {
                    true => self.handles.drop_content(content),
                    false => used.push(content),
                }
            }
            let mut left = lock(&self.through.left);
            left.used.extend(used);
            left.more = !self.replica.directs().is_empty();
        }
    }

    /// Nothing is mounted any more. What somebody uses all the same, the next daemon looks at.
    pub fn look_no_more(&self) {
        for id in self.replica.directs() {
            self.look_at(id);
        }
        lock(&self.through.left).over = true;
        self.through.wake.notify_all();
    }
}
