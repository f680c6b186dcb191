//! Sending all that is unsent when somebody asks, and knowing when to give up.
//!
//! Programs go on meanwhile, so there may never be a moment in which nothing is unsent. It is enough that every
//! change that was there at the beginning is on the server; and, since one that is renamed under way counts as
//! new, every change that was there when those were.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Engine;
use super::link::LinkState;
use super::reconcile::{PassError, PassReport, Scope};
use super::shared::Shared;
use crate::replica::ReplicaError;
use crate::sync::Guard;
use crate::tree::{Place, RelPath, Time, Version};

/// Without a limit, a flush gives up when nothing moves for so long: a link that is down may stay so.
const STANDSTILL_MAX: Duration = Duration::from_secs(60);

/// How long a flush waits before it tries again.
const RETRY: Duration = Duration::from_millis(200);

/// How often a link that is down is tried while somebody waits for it, whatever its back-off.
const CALL_AGAIN: Duration = Duration::from_secs(5);

/// How often it looks whether something moves.
const LOOK: Duration = Duration::from_secs(1);

/// How often all that is unsent at one moment has to be sent.
const ROUNDS: u32 = 2;

/// What is not on the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// Where, and what it is here; `None` if it was removed.
    pub places: Vec<(RelPath, Option<Version>)>,
    /// Why, if it is known.
    pub why: Option<String>,
}

impl Engine {
    /// Sends all that is unsent, for at most `limit`; without one, for as long as it gets on. Returns what is
    /// left of it, be it that time was up or that no time would do.
    pub async fn flush(&self, limit: Option<Duration>) -> Result<Left, ReplicaError> {
        let shared = &self.shared;
        let mut patience = Patience::new(limit);
        let mut why = None;
        let mut call_at = Instant::now();
        for _ in 0..ROUNDS {
            let mut due = unsent(shared)?;
            while !due.is_empty() {
                let before = due.len();
                let ended = self.pass_patiently(&mut patience).await;
                let still = unsent(shared)?;
                due.retain(|place, since| still.get(place) == Some(since));
                match ended {
                    _ if due.is_empty() => break,
                    // Not even one pass came to its end; otherwise that one's reason stands.
                    None => why = why.or_else(|| Some("the time was up".into())),
                    Some(Ok(report)) if !report.guards.is_empty() => {
                        return left(shared, Some(joined(&report.guards)));
                    }
                    Some(Ok(report)) => {
                        patience.got_through(due.len() < before);
                        why = waits_for_programs(&report);
                    }
                    Some(Err(error)) => {
                        patience.broke_off();
                        why = Some(error.to_string());
                    }
                }
                if patience.is_over() {
                    return left(shared, why);
                }
                // A held or refused link does not come up by waiting.
                let link = self.link().state;
                if matches!(
                    link,
                    LinkState::Offline { held: true, .. } | LinkState::Refused { .. }
                ) {
                    return left(shared, Some(link.detail()));
                }
                if link != LinkState::Online && call_at <= Instant::now() {
                    call_at = Instant::now() + CALL_AGAIN;
                    shared.connect_now.notify_one();
                }
                sleep_until(patience.end().min(Instant::now() + RETRY)).await;
            }
        }
        Ok(Left::default())
    }

    /// All that is not on the server now.
    pub fn unsent(&self) -> Result<Left, ReplicaError> {
        left(&self.shared, None)
    }

    /// Runs a pass; `None` if patience ends before it does.
    async fn pass_patiently(
        &self,
        patience: &mut Patience,
    ) -> Option<Result<PassReport, PassError>> {
        let mut pass = pin!(self.pass(Scope::Push { now: true }));
        loop {
            let look = patience.end().min(Instant::now() + LOOK);
            if let Ok(ended) = timeout_at(look, &mut pass).await {
                return Some(ended);
            }
            patience.look(&self.shared);
            if patience.is_over() {
                return None;
            }
        }
    }
}

/// How long a flush goes on.
struct Patience {
    limit: Option<Instant>,
    /// When something of what has to be sent was sent last.
    sent: Instant,
    /// When content moved last, and when anything did. That counts as long as its pass may still succeed.
    carried: Instant,
    moving: Instant,
    bytes: u64,
    requests: u64,
}

impl Patience {
    fn new(limit: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            limit: limit.map(|limit| now + limit),
            sent: now,
            carried: now,
            moving: now,
            bytes: 0,
            requests: 0,
        }
    }

    fn end(&self) -> Instant {
        self.limit.unwrap_or(self.moving + STANDSTILL_MAX)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end()
    }

    /// New requests follow the answers to others.
    fn look(&mut self, shared: &Shared) {
        let now = Instant::now();
        let bytes = shared.transfers.moved();
        if std::mem::replace(&mut self.bytes, bytes) != bytes {
            self.carried = now;
            self.moving = now;
        }
        let requests = shared.online().map_or(0, |remote| remote.calls().total());
        if std::mem::replace(&mut self.requests, requests) < requests {
            self.moving = now;
        }
    }

    /// A pass ended. What it moved in vain counts for nothing, or a server that is full would be tried for ever.
    fn got_through(&mut self, sent: bool) {
        if sent {
            self.sent = Instant::now();
        }
        self.moving = self.sent;
    }

    /// The link was lost. Content that moved until then is worth another attempt.
    fn broke_off(&mut self) {
        self.sent = self.sent.max(self.carried);
        self.moving = self.sent;
    }
}

/// What is unsent at one moment, and since when.
fn unsent(shared: &Shared) -> Result<BTreeMap<Place, Time>, ReplicaError> {
    let dirty = shared.replica.view(|view| view.dirty(usize::MAX))?;
    Ok(dirty.into_iter().collect())
}

/// The same for people.
fn left(shared: &Shared, why: Option<String>) -> Result<Left, ReplicaError> {
    let places = shared.replica.view(|view| {
        let mut left = Vec::new();
        for (place, _) in view.dirty(usize::MAX)? {
            let path = view.shown_path(&place)?;
            let node = view.child(place.parent, &place.name)?;
            let node = node.map(|id| view.node(id)).transpose()?.flatten();
            left.push((path, node.map(|node| node.version())));
        }
        Ok::<_, ReplicaError>(left)
    })?;
    Ok(Left { places, why })
}

fn waits_for_programs(report: &PassReport) -> Option<String> {
    (report.waiting > 0).then(|| "it waits for a program to close its file".into())
}

/// Questions in one line.
fn joined(guards: &[Guard]) -> String {
    let questions: Vec<_> = guards.iter().map(Guard::to_string).collect();
    questions.join("; ")
}
