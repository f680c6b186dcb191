//! What a line turned out to be, for people and for the next connection.

use std::time::Duration;

use tokio::time::Instant;

/// How long a line has to be full before its pace is known.
const LONG_ENOUGH: Duration = Duration::from_secs(2);

/// What is known of a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LineFacts {
    /// What a small request takes when nothing is in front of it.
    pub round_trip: Option<Duration>,
    /// The limit to the server that holds now, in bytes in a second.
    pub up: Option<u64>,
    /// The same from the server.
    pub down: Option<u64>,
    /// How much content went in a second while the line was full, if it was.
    pub pace: Option<u64>,
    /// The cipher; empty if somebody else takes care of that.
    pub cipher: String,
    /// Whether it compresses.
    pub compressed: bool,
}

/// How much goes while the line is full: bytes in a second, the most that was seen.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since when it is full, and what was answered then.
    since: Option<(Instant, u64)>,
    best: Option<u64>,
}

impl Pace {
    /// At a measurement: whether the line was full since the last one, and the bytes that were answered so far.
    pub(super) fn seen(&mut self, full: bool, answered: u64, now: Instant) {
        let Some((since, before)) = self.since.filter(|_| full) else {
            self.since = full.then_some((now, answered));
            return;
        };
        let took = now.duration_since(since);
        if took >= LONG_ENOUGH {
            let pace = ((answered - before) as f64 / took.as_secs_f64()) as u64;
            self.best = self.best.max(Some(pace));
            self.since = Some((now, answered));
        }
    }

    pub(super) fn best(&self) -> Option<u64> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_line_tells_its_pace() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let at = |ms| start + Duration::from_millis(ms);
        for step in 0..100 {
            pace.seen(step % 10 != 0, step * 100_000, at(step * 100));
        }
        assert_eq!(pace.best(), None);
        for step in 100..200 {
            pace.seen(true, step * 100_000, at(step * 100));
        }
        assert!(pace.best().unwrap().abs_diff(1_000_000) < 60_000);
    }
}
