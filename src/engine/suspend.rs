//! The machine sleeps: what waits for the network fails before, and comes back by itself afterwards.
//!
//! A program that waits for us cannot be frozen while we are, and then the whole machine does not go to sleep.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Engine;
use super::shared::lock;

impl Engine {
    /// The machine is about to sleep. From now on, until [`Self::resume`], nothing waits for the network: what is not
    /// here fails at once, transfers stop where they are, and the link stays down. Returns when all that was under way has
    /// ended and every acknowledged change survives a power loss, or when `patience` has.
    pub async fn suspend(&self, patience: Duration) {
        let shared = &self.shared;
        shared.hold.send_modify(|hold| hold.asleep = true);
        shared.set_link(shared.hold.borrow().state());
        if let Some(remote) = lock(&shared.remote).take() {
            remote.close();
        }
        let patience = patience / 2;
        if timeout(patience, shared.at_rest()).await.is_err() {
            tracing::warn!("the machine goes to sleep while something is under way");
        }
        let replica = Arc::clone(&shared.replica);
        let synced = shared.runtime.spawn_blocking(move || replica.sync());
        match timeout(patience, synced).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(%error, "before the machine sleeps"),
            Ok(Err(_panicked)) => tracing::error!("a fault before the machine sleeps"),
            Err(_late) => tracing::warn!("the machine goes to sleep while the disk is waited for"),
        }
    }

    /// The machine is awake: the link is made anew at once.
    pub fn resume(&self) {
        self.shared
            .hold
            .send_if_modified(|hold| std::mem::replace(&mut hold.asleep, false));
        self.try_again();
    }
}
