//! Holding the home still for a while, so that it can be copied as it is at one moment. It ends by itself: whoever asked for
//! it may have been killed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lifecycle::Daemon;
use crate::engine::LinkState;

/// The longest time at once.
const LONGEST: Duration = Duration::from_secs(600);

/// The longest wait for a connection to be closed.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// Whether the home is held still.
#[derive(Default)]
pub(super) struct Freezing(Mutex<Frozen>);

#[derive(Default)]
struct Frozen {
    /// Counts who asked: what was asked before is over.
    turn: u64,
    /// The link is down because of this, and not since somebody said `offline`.
    holds: bool,
}

impl Freezing {
    fn lock(&self) -> MutexGuard<'_, Frozen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds it still for so many seconds from now on, or no longer.
    pub(super) async fn freeze(
        self: &Arc<Self>,
        daemon: &Arc<Daemon>,
        seconds: u64,
        hold: bool,
    ) -> String {
        let turn = {
            let mut frozen = self.lock();
            frozen.turn += 1;
            frozen.turn
        };
        if seconds == 0 {
            self.end(daemon);
            return "writes are taken again".into();
        }
        daemon.home.set_read_only(true);
        if hold && !self.lock().holds {
            let held = matches!(
                daemon.engine.link().state,
                LinkState::Offline { held: true, .. }
            );
            self.lock().holds = !held;
            daemon.engine.hold(true);
            daemon.engine.settled_link(HOLD_MAX).await;
        }
        let (freezing, daemon) = (Arc::clone(self), Arc::clone(daemon));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds).min(LONGEST)).await;
            if freezing.lock().turn == turn {
                freezing.end(&daemon);
            }
        });
        "no writes are taken for a while".into()
    }

    fn end(&self, daemon: &Daemon) {
        daemon.home.set_read_only(daemon.request.read_only);
        if std::mem::take(&mut self.lock().holds) {
            daemon.engine.hold(false);
        }
    }
}
