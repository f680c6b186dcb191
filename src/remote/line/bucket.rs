//! How fast content goes: a token bucket that may run into debt, so that a long request needs no special case and what
//! somebody waits for passes at once; what comes after pays for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How much may go at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_millis(100);
/// How long a rate is taken for granted.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// The bytes in a second that may go now; `None` for as many as there are.
#[derive(Clone)]
pub struct Rate(Arc<dyn Fn() -> Option<u64> + Send + Sync>);

impl Rate {
    /// The rate that `now` tells whenever it is asked.
    pub fn new(now: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self::new(|| None)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rate").field(&(self.0)()).finish()
    }
}

pub(super) struct Bucket {
    rate: Rate,
    now: Option<u64>,
    asked: Instant,
    /// Bytes that may go, below 0 when too many went.
    level: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self {
            now: (rate.0)(),
            rate,
            asked: now,
            level: 0.0,
            filled: now,
        }
    }

    /// The rate now.
    pub(super) fn rate(&self) -> Option<u64> {
        (self.rate.0)()
    }

    /// When something may go, unless that is now.
    pub(super) fn free_at(&mut self, now: Instant) -> Option<Instant> {
        let rate = self.fill(now)?;
        if self.level >= 0.0 {
            return None;
        }
        let wait = Duration::from_secs_f64((-self.level / rate).min(ASKED_AGAIN.as_secs_f64()));
        // Never at once again: a timer may be coarser than that.
        Some(now + wait.max(Duration::from_millis(1)))
    }

    /// `bytes` go, whether they may or not.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) {
        if bytes > 0 && self.fill(now).is_some() {
            self.level -= bytes as f64;
        }
    }

    fn fill(&mut self, now: Instant) -> Option<f64> {
        if now.duration_since(self.asked) >= ASKED_AGAIN {
            self.asked = now;
            self.now = (self.rate.0)();
        }
        let Some(rate) = self.now.map(|rate| rate.max(1) as f64) else {
            self.level = 0.0;
            self.filled = now;
            return None;
        };
        let passed = now.duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.level = (self.level + passed * rate).min(rate * BURST.as_secs_f64());
        Some(rate)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Sends pieces as fast as they may go for `secs`, and tells how many bytes that were.
    fn pass(bucket: &mut Bucket, start: Instant, secs: u64, piece: u64) -> u64 {
        let (mut now, mut passed) = (start, 0);
        while now < start + Duration::from_secs(secs) {
            match bucket.free_at(now) {
                Some(later) => now = later,
                None => {
                    bucket.take(piece, now);
                    passed += piece;
                }
            }
        }
        passed
    }

    #[test]
    fn content_goes_at_the_rate_whatever_its_pieces_are() {
        for piece in [100, 32_768, 261_120] {
            let start = Instant::now();
            let mut bucket = Bucket::new(Rate::new(|| Some(1_000_000)), start);
            let passed = pass(&mut bucket, start, 60, piece);
            let off = passed.abs_diff(60_000_000);
            assert!(off <= 2 * piece + 100_000, "{piece}: {passed}");
        }
    }

    #[test]
    fn what_overtakes_is_paid_for_by_what_follows() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate::new(|| Some(1_000_000)), start);
        bucket.take(5_000_000, start);
        let passed = pass(&mut bucket, start, 10, 10_000);
        assert!(passed.abs_diff(5_000_000) <= 120_000, "{passed}");
    }

    #[test]
    fn a_new_rate_holds_within_a_second_and_none_holds_nothing_back() {
        let rate = Arc::new(AtomicU64::new(1000));
        let shared = Arc::clone(&rate);
        let asked = move || Some(shared.load(Ordering::Relaxed)).filter(|rate| *rate > 0);
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate::new(asked), start);
        bucket.take(1_000_000, start);
        assert!(bucket.free_at(start).is_some());
        rate.store(0, Ordering::Relaxed);
        let later = start + ASKED_AGAIN;
        assert_eq!(bucket.free_at(later), None);
    }
}
