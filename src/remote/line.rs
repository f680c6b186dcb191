//! What the sessions of one connection share: how much may be under way at once, how fast, and who goes first.
//!
//! Whatever is sent ahead of a request stands in front of it: in our queues, in the kernel's, in the network's and in
//! the server's. None of these can be overtaken. So nothing is handed to them before it has to be: content is admitted
//! only while what is under way, sent and not answered, stays within a window, and the window follows what a small
//! request has to wait (`window`). Requests that somebody waits for are counted, and never held back.

mod bucket;
mod facts;
#[cfg(test)]
mod tests;
mod window;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::bucket::Bucket;
use self::window::Window;
use super::wire::Request;

pub use self::bucket::Rate;
pub use self::facts::LineFacts;
use self::facts::Pace;

/// What the reply to a READDIR is taken to be long: a hundred entries of OpenSSH's.
const READDIR_BYTES: u64 = 12 * 1024;

/// Who asks: the order in which requests go. Requests of one class keep their order within a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// What a request has to wait is measured; nobody waits for the answer.
    Measured,
    /// Somebody waits.
    Waited,
    /// Somebody waits for something so large that others who wait must not stand behind it.
    Large,
    /// What has to be sent, and what that needs to know.
    Work,
    /// Looking around, and what may be of use later.
    Background,
}

impl Class {
    pub(super) const COUNT: usize = 5;
    /// The most urgent first.
    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::Measured,
        Self::Waited,
        Self::Large,
        Self::Work,
        Self::Background,
    ];
}

/// How fast content may go, each way; asked anew all the time, since it may follow the time of day.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// To the server.
    pub up: Rate,
    /// From it.
    pub down: Rate,
}

/// The bytes of content that a request moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    up: u64,
    down: u64,
}

impl Cost {
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Write { data, .. } => Self {
                up: data.len() as u64,
                down: 0,
            },
            Request::Read { len, .. } => Self {
                up: 0,
                down: u64::from(*len),
            },
            Request::Readdir(_) => Self {
                up: 0,
                down: READDIR_BYTES,
            },
            _ => Self::default(),
        }
    }

    fn bytes(self) -> u64 {
        self.up + self.down
    }
}

/// Whether a request may go.
pub(super) enum Admission {
    /// It goes, and counts until the ticket is dropped.
    Go(Ticket),
    /// Not before something is answered; [`Line::freed`] tells.
    Full,
    /// Not before then.
    Later(Instant),
}

/// A request under way.
pub(super) struct Ticket {
    line: Arc<Line>,
    class: Class,
    bytes: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.line.answered(self.class, self.bytes);
    }
}

/// Something that is held back.
pub(super) struct HeldBack(Arc<Line>, Class);

impl Drop for HeldBack {
    fn drop(&mut self) {
        // Nobody is woken: what was held back goes now, and its answer wakes all.
        self.0.held_back[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Shared by the sessions of one connection.
pub struct Line {
    state: Mutex<State>,
    /// Something was answered.
    freed: Notify,
    /// Content is under way after none was.
    busy: Notify,
    /// Sessions that hold something of this class back.
    held_back: [AtomicUsize; Class::COUNT],
    /// When anything last arrived, in milliseconds since `started`.
    heard_ms: AtomicU64,
    started: Instant,
}

struct State {
    window: Window,
    up: Bucket,
    down: Bucket,
    /// Content that is held back if need be, in bytes.
    under_way: u64,
    /// Requests that somebody waits for.
    waited: usize,
    /// Content that was answered so far, in bytes.
    answered: u64,
    pace: Pace,
    /// The cipher and whether it compresses, where that is known.
    secured: Option<(String, bool)>,
}

impl Line {
    /// An idle line.
    pub fn new(limits: &Limits) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            state: Mutex::new(State {
                window: Window::default(),
                up: Bucket::new(limits.up.clone(), now),
                down: Bucket::new(limits.down.clone(), now),
                under_way: 0,
                waited: 0,
                answered: 0,
                pace: Pace::default(),
                secured: None,
            }),
            freed: Notify::new(),
            busy: Notify::new(),
            held_back: Default::default(),
            heard_ms: AtomicU64::new(0),
            started: now,
        })
    }

    /// Asks for leave to send. The caller asks for what is most urgent first, and waits for its own order.
    pub(super) fn admit(self: &Arc<Self>, class: Class, cost: Cost) -> Admission {
        let bytes = cost.bytes();
        let mut state = self.lock();
        let now = Instant::now();
        if class >= Class::Large && bytes > 0 {
            // What others hold back goes first if it is more urgent.
            let urgent = &self.held_back[Class::Large as usize..class as usize];
            let outranked = urgent.iter().any(|held| held.load(Ordering::Relaxed) > 0);
            let somebody_waits = state.waited > 0;
            let window = state.window.bytes(somebody_waits);
            if outranked || state.under_way >= window {
                state.window.was_full();
                return Admission::Full;
            }
        }
        if class >= Class::Work && bytes > 0 {
            let up = state.up.free_at(now).filter(|_| cost.up > 0);
            let down = state.down.free_at(now).filter(|_| cost.down > 0);
            if let Some(later) = up.max(down) {
                return Admission::Later(later);
            }
        }
        state.up.take(cost.up, now);
        state.down.take(cost.down, now);
        match class {
            Class::Measured => {}
            Class::Waited => state.waited += 1,
            Class::Large | Class::Work | Class::Background => {
                if state.under_way == 0 && bytes > 0 {
                    self.busy.notify_one();
                }
                state.under_way += bytes;
            }
        }
        Admission::Go(Ticket {
            line: Arc::clone(self),
            class,
            bytes,
        })
    }

    fn answered(&self, class: Class, bytes: u64) {
        let mut state = self.lock();
        state.answered += bytes;
        match class {
            Class::Measured => return,
            Class::Waited => state.waited = state.waited.saturating_sub(1),
            Class::Large | Class::Work | Class::Background => {
                state.under_way = state.under_way.saturating_sub(bytes);
            }
        }
        drop(state);
        if bytes > 0 || class == Class::Waited {
            self.freed.notify_waiters();
        }
    }

    /// Resolves when something was answered since the returned future was enabled.
    pub(super) fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// A session holds something of `class` back, until what this returns is dropped.
    pub(super) fn hold_back(self: &Arc<Self>, class: Class) -> HeldBack {
        self.held_back[class as usize].fetch_add(1, Ordering::Relaxed);
        HeldBack(Arc::clone(self), class)
    }

    /// Resolves when content that is held back if need be is under way.
    pub(super) async fn busy(&self) {
        while self.lock().under_way == 0 {
            self.busy.notified().await;
        }
    }

    /// What a small request had to wait while content was under way.
    pub(super) fn measured(&self, waited: Duration) {
        let mut state = self.lock();
        let now = Instant::now();
        let full = state.window.is_full();
        let answered = state.answered;
        state.pace.seen(full, answered, now);
        state.window.measured(waited, answered, now);
        drop(state);
        self.freed.notify_waiters();
    }

    /// Something arrived on one of the sessions.
    pub(super) fn heard(&self) {
        let ms = self.started.elapsed().as_millis() as u64;
        self.heard_ms.store(ms, Ordering::Relaxed);
    }

    /// When something last arrived on any session.
    pub(super) fn last_heard(&self) -> Instant {
        self.started + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    /// The connection is secured, from now on or anew.
    pub(super) fn secured(&self, cipher: &str, compressed: bool) {
        self.lock().secured = Some((cipher.to_owned(), compressed));
    }

    /// What is known of it now.
    pub fn facts(&self) -> LineFacts {
        let state = self.lock();
        let (cipher, compressed) = state.secured.clone().unwrap_or_default();
        LineFacts {
            round_trip: state.window.shortest(),
            up: state.up.rate(),
            down: state.down.rate(),
            pace: state.pace.best(),
            cipher,
            compressed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
