//! The handle on a server that everything else uses: a few sessions over one connection.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::select_all;

use super::line::{Class, Line, LineFacts};
use super::record::{Calls, Counters, Recorded};
use super::{Features, Session, SftpSession};

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
    /// Whether no more than one was asked for, since the server cannot have more; then that is why.
    pub one_session: bool,
}

struct Inner {
    /// For those who wait.
    waited: Arc<dyn Session>,
    /// For those who wait for much.
    large: Arc<dyn Session>,
    /// Never empty.
    bulk: Vec<Arc<dyn Session>>,
    /// The first of them, which writes large files over the others as well.
    wide: Arc<dyn Session>,
    /// As many, for what is less urgent than anything else.
    background: Vec<Arc<dyn Session>>,
    next_bulk: AtomicUsize,
    channels: usize,
    /// What the sessions share, if they do.
    line: Option<Arc<Line>>,
    counters: Counters,
    about: About,
    /// What the sessions run over, kept until all are gone.
    _transport: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("bulk", &self.0.bulk.len())
            .finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sessions().for_each(|s| s.close_session());
    }
}

impl Inner {
    /// The others ask over the same conversations.
    fn sessions(&self) -> impl Iterator<Item = &Arc<dyn Session>> {
        std::iter::once(&self.waited).chain(&self.bulk)
    }

    fn next<'a>(&self, sessions: &'a [Arc<dyn Session>]) -> &'a Arc<dyn Session> {
        let turn = self.next_bulk.fetch_add(1, Ordering::Relaxed);
        &sessions[turn % sessions.len()]
    }
}

impl Remote {
    /// A connection of `first`, for those who wait, and `rest`, for bulk; `transport` is kept as long.
    pub fn new(
        first: Arc<dyn Session>,
        rest: Vec<Arc<dyn Session>>,
        transport: impl Any + Send + Sync,
    ) -> Self {
        let channels = 1 + rest.len();
        let bulk = match rest.len() {
            0 => vec![Arc::clone(&first)],
            _ => rest,
        };
        let wide = Arc::clone(&bulk[0]);
        Self::of(
            [Arc::clone(&first), first, wide],
            bulk.clone(),
            bulk,
            (channels, None),
            transport,
        )
    }

    /// A connection of `first`, for those who wait, and `rest`, for bulk, which share a line; `transport` is kept as
    /// long. Who waits goes first on each of them, and over whatever is under way on the others. To be called within
    /// a tokio runtime.
    pub fn over(
        first: SftpSession,
        rest: Vec<SftpSession>,
        transport: impl Any + Send + Sync,
    ) -> Self {
        first.measure();
        let channels = 1 + rest.len();
        let line = first.line();
        let bulk = match rest.len() {
            0 => vec![first.asking(Class::Work)],
            _ => rest,
        };
        let views = |class| {
            let views = bulk.iter().map(move |session| session.asking(class));
            views
                .map(|view| Arc::new(view) as Arc<dyn Session>)
                .collect()
        };
        let waited: Arc<dyn Session> = Arc::new(first.asking(Class::Waited));
        let others = bulk[1..].iter();
        let others = others.map(|other| other.asking(Class::Work)).collect();
        let wide = Arc::new(bulk[0].asking(Class::Work).wide(others));
        Self::of(
            [waited, Arc::new(first.asking(Class::Large)), wide],
            views(Class::Work),
            views(Class::Background),
            (channels, Some(line)),
            transport,
        )
    }

    fn of(
        [waited, large, wide]: [Arc<dyn Session>; 3],
        bulk: Vec<Arc<dyn Session>>,
        background: Vec<Arc<dyn Session>>,
        (channels, line): (usize, Option<Arc<Line>>),
        transport: impl Any + Send + Sync,
    ) -> Self {
        let counters = Counters::default();
        let recorded = |session| {
            let counters = counters.clone();
            Arc::new(Recorded { session, counters }) as Arc<dyn Session>
        };
        Self(Arc::new(Inner {
            waited: recorded(waited),
            large: recorded(large),
            wide: recorded(wide),
            bulk: bulk.into_iter().map(recorded).collect(),
            background: background.into_iter().map(recorded).collect(),
            next_bulk: AtomicUsize::new(0),
            channels,
            line,
            counters: counters.clone(),
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
        &self.0.waited
    }

    /// The same, for reads of large files that somebody waits for: others who wait overtake them.
    pub fn interactive_large(&self) -> &Arc<dyn Session> {
        &self.0.large
    }

    /// A session for bulk work, each in turn.
    pub fn bulk(&self) -> &Arc<dyn Session> {
        self.0.next(&self.0.bulk)
    }

    /// A session for a large file, which it sends over several channels at once.
    pub fn wide(&self) -> &Arc<dyn Session> {
        &self.0.wide
    }

    /// A session for what gives way to all else: looking around.
    pub fn background(&self) -> &Arc<dyn Session> {
        self.0.next(&self.0.background)
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.0.channels
    }

    /// What the server can do.
    pub fn features(&self) -> Features {
        self.interactive().features()
    }

    /// What is known of the line to it.
    pub fn line(&self) -> Option<LineFacts> {
        self.0.line.as_ref().map(|line| line.facts())
    }

    /// The line itself, which outlives the connection.
    pub fn shared_line(&self) -> Option<Arc<Line>> {
        self.0.line.clone()
    }

    /// What was asked so far.
    pub fn calls(&self) -> Calls {
        self.0.counters.snapshot()
    }

    /// Whether any session has ended; the connection is of no use then.
    pub fn is_closed(&self) -> bool {
        self.0.sessions().any(|s| s.is_closed())
    }

    /// Resolves when any session has ended.
    pub async fn closed(&self) {
        select_all(self.0.sessions().map(|s| s.closed())).await;
    }

    /// Ends all sessions.
    pub fn close(&self) {
        self.0.sessions().for_each(|s| s.close_session());
    }
}
