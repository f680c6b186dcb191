//! The handle on a server that everything else uses: a few sessions over one connection.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::select_all;

use super::record::{Calls, Counters, Recorded};
use super::{Features, Session};

/// A connection to a server. Clones are the same connection; it ends with the last of them.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

/// What is known of a connection besides what can be asked over it; empty where it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// What carries it, as the settings call it.
    pub transport: &'static str,
    /// The cipher, as SSH calls it.
    pub cipher: String,
    /// What agreed on the keys.
    pub key_exchange: String,
    /// The kind of key, or certificate, by which the server is known.
    pub host_key: String,
    /// Why there are fewer sessions than were asked for.
    pub fewer_sessions: String,
}

struct Inner {
    /// Never empty. The first is for those who wait.
    sessions: Vec<Arc<dyn Session>>,
    next_bulk: AtomicUsize,
    counters: Counters,
    about: About,
    /// What the sessions run over, kept until all are gone.
    _transport: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = self.0.sessions.len();
        f.debug_struct("Remote")
            .field("sessions", &sessions)
            .finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sessions.iter().for_each(|s| s.close_session());
    }
}

impl Remote {
    /// A connection of `first`, for those who wait, and `rest`, for bulk; `transport` is kept as long.
    pub fn new(
        first: Arc<dyn Session>,
        rest: Vec<Arc<dyn Session>>,
        transport: impl Any + Send + Sync,
    ) -> Self {
        let counters = Counters::default();
        let recorded = std::iter::once(first).chain(rest).map(|session| {
            let counters = counters.clone();
            Arc::new(Recorded { session, counters }) as Arc<dyn Session>
        });
        Self(Arc::new(Inner {
            sessions: recorded.collect(),
            next_bulk: AtomicUsize::new(0),
            counters,
            about: About::default(),
            _transport: Box::new(transport),
        }))
    }

    /// The same connection, which tells this of itself; for who just made it.
    #[must_use]
    pub fn with_about(mut self, about: About) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.about = about;
        }
        self
    }

    /// What is known of the connection.
    pub fn about(&self) -> &About {
        &self.0.about
    }

    /// The session for metadata and reads that somebody waits for.
    pub fn interactive(&self) -> &Arc<dyn Session> {
        &self.0.sessions[0]
    }

    /// A session for bulk work, each in turn; the interactive one if there is no other.
    pub fn bulk(&self) -> &Arc<dyn Session> {
        let bulk = &self.0.sessions[1..];
        let turn = self.0.next_bulk.fetch_add(1, Ordering::Relaxed);
        match bulk.len() {
            0 => self.interactive(),
            n => &bulk[turn % n],
        }
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.0.sessions.len()
    }

    /// What the server can do.
    pub fn features(&self) -> Features {
        self.interactive().features()
    }

    /// What was asked so far.
    pub fn calls(&self) -> Calls {
        self.0.counters.snapshot()
    }

    /// Whether any session has ended; the connection is of no use then.
    pub fn is_closed(&self) -> bool {
        self.0.sessions.iter().any(|s| s.is_closed())
    }

    /// Resolves when any session has ended.
    pub async fn closed(&self) {
        select_all(self.0.sessions.iter().map(|s| s.closed())).await;
    }

    /// Ends all sessions.
    pub fn close(&self) {
        self.0.sessions.iter().for_each(|s| s.close_session());
    }
}
