//! Points in time as nanoseconds since the epoch, the precision of `utimensat`.

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01 UTC; negative before. Covers the years 1677 to 2262.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub i64);

const NANOS_PER_SEC: i64 = 1_000_000_000;

impl Time {
    /// `secs` seconds and `nanos` nanoseconds since the epoch; saturates at the ends of the range.
    pub fn new(secs: i64, nanos: u32) -> Self {
        let exact = i128::from(secs) * i128::from(NANOS_PER_SEC) + i128::from(nanos);
        let end = if exact < 0 { i64::MIN } else { i64::MAX };
        Self(i64::try_from(exact).unwrap_or(end))
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn secs(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SEC)
    }

    /// Nanoseconds within the second, 0 to 999,999,999.
    pub fn subsec_nanos(self) -> u32 {
        self.0.rem_euclid(NANOS_PER_SEC) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_keep_their_parts() {
        let time = Time::new(-2, 500_000_000);
        assert_eq!((time.secs(), time.subsec_nanos()), (-2, 500_000_000));
        assert!(Time::new(-1, 0) < Time::new(0, 0));
        assert_eq!(Time::new(i64::MAX, 0).0, i64::MAX);
        assert_eq!(Time::new(i64::MIN, 999_999_999).0, i64::MIN);
        // The beginning of the range lies within a second.
        assert_eq!(Time::new(-9_223_372_037, 145_224_192).0, i64::MIN);
    }
}
