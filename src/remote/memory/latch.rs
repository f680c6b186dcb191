//! Something that is shut or open, for many who wait in line: all go on in the order in which they came, where
//! `tokio::sync::watch` draws lots. The same schedule must have the same outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

#[derive(Clone, Default)]
pub(super) struct Latch {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    shut: AtomicBool,
    opened: Notify,
}

impl Latch {
    pub(super) fn shut() -> Self {
        let latch = Self::default();
        latch.set_shut(true);
        latch
    }

    pub(super) fn is_shut(&self) -> bool {
        self.inner.shut.load(Ordering::SeqCst)
    }

    pub(super) fn set_shut(&self, shut: bool) {
        self.inner.shut.store(shut, Ordering::SeqCst);
        if !shut {
            self.inner.opened.notify_waiters();
        }
    }

    /// Waits until it is open.
    pub(super) async fn passed(&self) {
        loop {
            // Hears of what happens from here on, before it is looked at.
            let opened = self.inner.opened.notified();
            if !self.is_shut() {
                return;
            }
            opened.await;
        }
    }
}
