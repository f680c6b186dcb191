//! What a machine's life hangs on: it can die at any system call that changes its disk and at any request.

use std::sync::{Arc, Mutex, MutexGuard};

/// How a machine dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// The daemon is killed; the disk has all that it wrote.
    Kill,
    /// The power is cut; of what was not synced, the disk may have this and that.
    PowerLoss,
}

/// The plug of one machine.
#[derive(Default)]
pub(crate) struct Plug(Mutex<State>);

#[derive(Default)]
struct State {
    /// How and after how many more events it dies.
    due: Option<(Death, u64)>,
    /// How it died.
    dead: Option<Death>,
}

impl Plug {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.lock().dead.is_none()
    }

    /// Lets it die after so many more events.
    pub(crate) fn pull_after(&self, events: u64, death: Death) {
        self.lock().due = Some((death, events));
    }

    /// Nothing is due any more.
    pub(crate) fn spare(&self) {
        self.lock().due = None;
    }

    /// An event is about to happen: whether it is one before which the machine dies.
    pub(crate) fn is_due(&self) -> Option<Death> {
        let mut state = self.lock();
        let (death, left) = state.due.take()?;
        match left {
            0 => Some(death),
            _ => {
                state.due = Some((death, left - 1));
                None
            }
        }
    }

    /// It has died.
    pub(crate) fn pulled(&self, death: Death) {
        self.lock().dead = Some(death);
    }

    /// How it died.
    pub(crate) fn dead(&self) -> Option<Death> {
        self.lock().dead
    }
}

/// Shared by all that ends with it.
pub(crate) type SharedPlug = Arc<Plug>;
