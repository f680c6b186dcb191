//! The wall clock. The only place that reads it: everything below is told what time it is, so that tests and
//! the simulation decide.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::tree::Time;

/// What this machine's clock shows now. It may be wrong, and it may jump.
pub fn now() -> Time {
    #[allow(clippy::disallowed_methods)] // The one allowed call.
    let now = SystemTime::now();
    match now.duration_since(UNIX_EPOCH) {
        Ok(after) => Time::new(clamp_secs(after.as_secs()), after.subsec_nanos()),
        Err(before) => Time::new(-clamp_secs(before.duration().as_secs()), 0),
    }
}

/// The minute of the local day, 0 to 1439.
pub fn minute_of_day() -> u16 {
    let now = now();
    // Out of the range of calendars there is no day either.
    let time = jiff::Timestamp::from_second(now.secs()).unwrap_or_default();
    let local = time.to_zoned(jiff::tz::TimeZone::system());
    u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs())
}

/// The day of a time in UTC, such as `2026-11-27`.
pub fn date(secs: i64) -> String {
    let time = jiff::Timestamp::from_second(secs).unwrap_or_default();
    time.strftime("%Y-%m-%d").to_string()
}

fn clamp_secs(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_shows_a_time_of_this_century() {
        assert!((1_600_000_000..4_100_000_000).contains(&now().secs()));
    }

    #[test]
    fn the_minute_is_one_of_a_day() {
        assert!(minute_of_day() < 24 * 60);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (secs, day) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (1_735_689_599, "2024-12-31"),
            (-1, "1969-12-31"),
        ] {
            assert_eq!(date(secs), day);
        }
    }
}
