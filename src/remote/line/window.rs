//! How much content may be under way, by what a small request has to wait.
//!
//! A line that is filled takes no more per second when more is sent ahead, it only lets everybody wait longer. So the
//! window grows while small requests come back nearly as fast as they ever did, and shrinks when they do not. That finds
//! the line's own capacity, wherever its narrowest place is: the network, the server, or this machine.

use std::time::Duration;

use tokio::time::Instant;

/// What may be under way before anything was measured, in bytes.
const FIRST: u64 = 1024 * 1024;
/// The least: two large writes, or the line would stand still between one and the next.
const LEAST: u64 = 2 * PIECE;
/// The least while somebody waits, and the smallest step.
const PIECE: u64 = 64 * 1024;
/// The most: what is held in memory for it.
const MOST: u64 = 24 * 1024 * 1024;
/// What a small request may wait longer than on an empty line.
const PATIENCE: Duration = Duration::from_millis(10);
/// While somebody waits, the window is this many times smaller: what is under way already is in front of the next
/// request, too.
const WAITED_SHARE: u64 = 4;
/// How long what was delivered at best counts.
const DELIVERED_MEMORY: Duration = Duration::from_secs(10);
/// Deliveries are measured over as long as this, and over no less than a few times of the empty line.
const DELIVERED_OVER: Duration = Duration::from_millis(100);
/// How long the shortest wait counts as what the empty line takes: the way to the server may change. Then the line is
/// emptied for a moment and measured anew, or what is taken for empty would become fuller each time.
const MEMORY: Duration = Duration::from_secs(30);
/// Measurements of the emptied line: the first may have been under way before.
const ANEW: u8 = 2;

pub(super) struct Window {
    bytes: u64,
    /// Something was held back since the last measurement.
    full: bool,
    /// Less than all was let through since then, so that a short wait says nothing.
    reduced: bool,
    /// The measurement before: one alone may be a hiccup of a machine.
    before: Option<Duration>,
    /// The shortest wait, and since when it is remembered.
    shortest: Option<(Duration, Instant)>,
    /// So many measurements more before the emptied line is known again.
    anew: u8,
    delivered: Delivered,
}

/// What the line delivers: the most of the last while, in bytes a second.
#[derive(Default)]
struct Delivered {
    /// When it was looked at, and what was answered until then.
    since: Option<(Instant, u64)>,
    best: f64,
    best_at: Option<Instant>,
}

impl Delivered {
    /// So many bytes were answered until now.
    fn seen(&mut self, answered: u64, empty: Duration, now: Instant) {
        let Some((since, before)) = self.since else {
            self.since = Some((now, answered));
            return;
        };
        let took = now.duration_since(since);
        if took < DELIVERED_OVER.max(empty * 4) {
            return;
        }
        self.since = Some((now, answered));
        let rate = answered.saturating_sub(before) as f64 / took.as_secs_f64();
        let is_old = self
            .best_at
            .is_none_or(|at| now.duration_since(at) >= DELIVERED_MEMORY);
        if rate >= self.best || is_old {
            (self.best, self.best_at) = (rate, Some(now));
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self {
            bytes: FIRST,
            full: false,
            reduced: false,
            before: None,
            shortest: None,
            anew: 0,
            delivered: Delivered::default(),
        }
    }
}

impl Window {
    /// How much may be under way.
    pub(super) fn bytes(&mut self, somebody_waits: bool) -> u64 {
        self.reduced |= somebody_waits;
        match somebody_waits {
            _ if self.anew > 0 => PIECE,
            true => (self.bytes / WAITED_SHARE).max(PIECE),
            false => self.bytes,
        }
    }

    /// Something had to be held back.
    pub(super) fn was_full(&mut self) {
        self.full = true;
    }

    /// Whether something was held back since the last measurement.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// What a small request takes on the empty line.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.shortest.map(|(shortest, _)| shortest)
    }

    /// The least that is let through when nobody waits.
    fn least(&self, shortest: Duration) -> u64 {
        let known = self.delivered.best * shortest.as_secs_f64() * 1.5;
        (known as u64).clamp(LEAST, MOST)
    }

    /// A small request took this long, and so many bytes of content were answered so far.
    pub(super) fn measured(&mut self, wait: Duration, answered: u64, now: Instant) {
        let reduced = std::mem::take(&mut self.reduced);
        let full = std::mem::take(&mut self.full) && !reduced;
        let before = self.before.replace(wait).unwrap_or(wait);
        if self.anew > 0 {
            self.anew -= 1;
            self.shortest = Some((wait, now));
            return;
        }
        let (shortest, since) = self.shortest.unwrap_or((wait, now));
        let shortest = shortest.min(wait);
        self.shortest = Some((shortest, since));
        self.delivered.seen(answered, shortest, now);
        let least = self.least(shortest);
        if full && now.duration_since(since) >= MEMORY {
            self.anew = ANEW;
        }
        let least_excess = wait.min(before).saturating_sub(shortest);
        let excess = wait.max(before).saturating_sub(shortest);
        if least_excess > PATIENCE {
            // What stands in front is proportional to the wait, so that one step is nearly enough.
            let kept = PATIENCE.as_secs_f64() / least_excess.as_secs_f64();
            let kept = kept.clamp(0.5, 0.9);
            self.bytes = ((self.bytes as f64 * kept) as u64).max(least);
        } else if full && excess <= PATIENCE {
            let grown = match excess > PATIENCE / 4 {
                true => self.bytes + PIECE,
                false => self.bytes + self.bytes / 4,
            };
            self.bytes = grown.clamp(least, MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line that passes `rate` bytes in a second and is `empty` long.
    fn settle(rate: f64, empty: Duration, steps: u32) -> (Window, Vec<Duration>) {
        let mut window = Window::default();
        let start = Instant::now();
        let mut waits = Vec::new();
        // Before the first content the line is empty.
        window.measured(empty, 0, start);
        let mut answered = 0;
        for step in 0..steps {
            let in_front = window.bytes(false) as f64 / rate;
            // What is under way on the line itself stands in nobody's way.
            let queue = (in_front - empty.as_secs_f64()).max(0.0);
            let wait = empty + Duration::from_secs_f64(queue);
            waits.push(wait);
            window.was_full();
            answered += (rate.min(in_front / empty.as_secs_f64() * rate) * 0.05) as u64;
            let now = start + Duration::from_millis(u64::from(step) * 50);
            window.measured(wait, answered, now);
        }
        (window, waits)
    }

    #[test]
    fn a_long_fast_line_is_filled_and_no_more() {
        let (rate, empty) = (200e6, Duration::from_millis(20));
        let (mut window, waits) = settle(rate, empty, 200);
        let capacity = (rate * empty.as_secs_f64()) as u64;
        assert!(window.bytes(false) > capacity, "the line is not full");
        for wait in &waits[100..] {
            assert!(*wait <= empty + PATIENCE * 2, "{wait:?}");
        }
    }

    #[test]
    fn a_slow_line_has_little_in_front_of_who_waits() {
        let (mut window, waits) = settle(2e6, Duration::from_millis(20), 200);
        assert!(window.bytes(false) <= 2 * LEAST);
        assert!(*waits.last().unwrap() <= Duration::from_millis(120));
        assert_eq!(window.bytes(true), PIECE);
    }

    #[test]
    fn one_hiccup_changes_nothing() {
        let (mut window, _) = settle(200e6, Duration::from_millis(20), 200);
        window.measured(Duration::from_millis(20), 0, Instant::now());
        let before = window.bytes(false);
        window.measured(Duration::from_secs(2), 0, Instant::now());
        assert_eq!(window.bytes(false), before);
    }

    #[test]
    fn a_line_that_became_longer_is_learnt() {
        let mut window = Window::default();
        let start = Instant::now();
        window.measured(Duration::from_millis(1), 0, start);
        for step in 0..2000 {
            window.was_full();
            window.measured(
                Duration::from_millis(50),
                0,
                start + Duration::from_millis(step * 50),
            );
        }
        assert!(window.bytes(false) > FIRST);
    }

    /// The answers come late whatever is under way, as over a radio: what is sent is answered all the same.
    #[test]
    fn waits_that_are_not_ours_do_not_empty_the_line() {
        let (empty, noise) = (Duration::from_millis(100), Duration::from_millis(30));
        let mut window = Window::default();
        let start = Instant::now();
        window.measured(empty, 0, start);
        let (mut answered, capacity) = (0.0, 50e6_f64);
        for step in 1..400 {
            let late = empty + noise;
            let rate = capacity.min(window.bytes(false) as f64 / late.as_secs_f64());
            answered += rate * 0.05;
            window.was_full();
            let wait = if step % 40 == 0 { empty } else { late };
            window.measured(
                wait,
                answered as u64,
                start + Duration::from_millis(step * 50),
            );
        }
        let bytes = window.bytes(false) as f64;
        assert!(bytes >= capacity * empty.as_secs_f64(), "{bytes}");
    }
}
