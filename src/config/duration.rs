//! Durations as people write them: `30s`, `5min`, `1h 30min`, `30d`; a bare number means seconds.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write for example \"30s\", \"5min\", \"12h\" or \"30d\"")]
pub struct DurationError(String);

/// Reads a duration: one or more numbers, each with a unit (`ms`, `s`, `min`, `h`, `d`, `w`).
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError(text.to_owned());
    if let Ok(secs) = text.trim().parse::<u64>() {
        return Ok(Duration::from_secs(secs));
    }
    let mut rest = text.trim_start();
    let mut total = None;
    while !rest.is_empty() {
        let (number, after) = split_at_first(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_at_first(after.trim_start(), |c| !c.is_ascii_alphabetic());
        let number: u64 = number.parse().map_err(|_| error())?;
        let part = unit_millis(unit)
            .and_then(|millis| number.checked_mul(millis))
            .map(Duration::from_millis)
            .ok_or_else(error)?;
        total = Some(total.unwrap_or(Duration::ZERO) + part);
        rest = after.trim_start();
    }
    total.ok_or_else(error)
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

fn unit_millis(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1,
        "s" | "sec" | "second" | "seconds" => 1_000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        "w" | "week" | "weeks" => 604_800_000,
        _ => return None,
    })
}

/// For `#[serde(deserialize_with = "…")]`: a string as above, or whole seconds.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a duration such as \"30s\"")]
    enum Raw {
        Secs(u64),
        Text(String),
    }
    match Raw::deserialize(input)? {
        Raw::Secs(secs) => Ok(Duration::from_secs(secs)),
        Raw::Text(text) => parse(&text).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("0", 0),
            ("90", 90_000),
            ("30s", 30_000),
            ("250ms", 250),
            ("5min", 300_000),
            ("5 m", 300_000),
            ("1h 30min", 5_400_000),
            ("1h30min", 5_400_000),
            ("30d", 2_592_000_000),
            (" 2 weeks ", 1_209_600_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            " ",
            "s",
            "-5s",
            "1.5h",
            "5 parsecs",
            "30s!",
            "5min 3",
            "99999999999999999w",
        ] {
            assert_eq!(parse(text), Err(DurationError(text.to_owned())), "{text}");
        }
    }
}
