//! How fast content may go at which time of the day: `2MB/s`, or `08:00-18:00 2MB/s, else off`. Pure.

use serde::{Deserialize, Deserializer};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Less than this would make one write take longer than a server may be silent.
const LEAST: u64 = 10_000;

const UNITS: [(&str, u64); 7] = [
    ("B/S", 1),
    ("KB/S", 1_000),
    ("MB/S", 1_000_000),
    ("GB/S", 1_000_000_000),
    ("KIB/S", 1 << 10),
    ("MIB/S", 1 << 20),
    ("GIB/S", 1 << 30),
];

/// Limits by the time of the day, in bytes in a second; `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timetable {
    spans: Vec<Span>,
    otherwise: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// Minutes of the day. One that ends before it begins goes past midnight.
    from: u16,
    to: u16,
    rate: Option<u64>,
}

impl Span {
    fn holds(&self, minute: u16) -> bool {
        match self.from < self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }
}

impl Timetable {
    /// Reads a timetable: spans and their limits, separated by commas, and what holds `else` at the end; or one limit.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        for (number, part) in parts.iter().enumerate() {
            let is_last = number + 1 == parts.len();
            let (when, limit) = part.split_once(char::is_whitespace).unwrap_or(("", part));
            // `2 MB/s` is a limit, not a time.
            match when {
                "else" if is_last => table.otherwise = rate(limit)?,
                "else" => return Err("\"else\" comes last".to_owned()),
                _ if when.contains(':') || when.contains('-') => {
                    let (from, to) = span(when)?;
                    let rate = rate(limit)?;
                    table.add(Span { from, to, rate }, part)?;
                }
                _ if parts.len() == 1 => table.otherwise = rate(part)?,
                _ => {
                    return Err(format!(
                        "{part:?} says no time; write such as \"08:00-18:00 2MB/s, else off\""
                    ));
                }
            }
        }
        Ok(table)
    }

    fn add(&mut self, span: Span, text: &str) -> Result<(), String> {
        let overlaps = |old: &Span| old.holds(span.from) || span.holds(old.from);
        if self.spans.iter().any(overlaps) {
            return Err(format!("{text:?} overlaps a time before it"));
        }
        self.spans.push(span);
        Ok(())
    }

    /// What holds at a minute of the day.
    pub fn at(&self, minute: u16) -> Option<u64> {
        let span = self.spans.iter().find(|span| span.holds(minute));
        span.map_or(self.otherwise, |span| span.rate)
    }
}

fn span(text: &str) -> Result<(u16, u16), String> {
    let invalid = || format!("{text:?} is no time of the day; write such as \"08:00-18:00\"");
    let (from, to) = text.split_once('-').ok_or_else(invalid)?;
    let (from, to) = (
        minute(from).ok_or_else(invalid)?,
        minute(to).ok_or_else(invalid)?,
    );
    if from == to || from == DAY {
        return Err(format!("{text:?} has no length"));
    }
    Ok((from, to))
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60 && hours * 60 + minutes <= DAY).then_some(hours * 60 + minutes)
}

fn rate(text: &str) -> Result<Option<u64>, String> {
    let invalid = || {
        format!(
            "{text:?} is no limit; write such as \"500KB/s\" or \"2MiB/s\", or \"off\" for none"
        )
    };
    let text = text.trim();
    if text == "off" {
        return Ok(None);
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(invalid)?;
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_uppercase();
    let (_, factor) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(invalid)?;
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let rate = (number * *factor as f64) as u64;
    if rate < LEAST {
        return Err(format!(
            "{text:?} is too little to keep a connection; 10KB/s is the least, and `roamhome offline` stops all"
        ));
    }
    Ok(Some(rate))
}

/// For `#[serde(deserialize_with = "…")]`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timetable, D::Error> {
    let text = String::deserialize(input)?;
    Timetable::parse(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, hour: u16) -> Option<u64> {
        Timetable::parse(text).unwrap().at(hour * 60)
    }

    #[test]
    fn timetables_are_read_as_people_write_them() {
        for (text, hour, rate) in [
            ("off", 0, None),
            ("2MB/s", 3, Some(2_000_000)),
            ("2 MB/s", 3, Some(2_000_000)),
            ("1.5MiB/s", 3, Some(3 << 19)),
            ("08:00-18:00 2MB/s, else off", 8, Some(2_000_000)),
            ("08:00-18:00 2MB/s, else off", 17, Some(2_000_000)),
            ("08:00-18:00 2MB/s, else off", 18, None),
            ("08:00-18:00 2MB/s", 7, None),
            ("22:00-6:00 off, else 100KB/s", 23, None),
            ("22:00-6:00 off, else 100KB/s", 5, None),
            ("22:00-6:00 off, else 100KB/s", 6, Some(100_000)),
            ("0:00-8:00 1GB/s, 8:00-24:00 1MB/s", 23, Some(1_000_000)),
        ] {
            assert_eq!(at(text, hour), rate, "{text} at {hour}");
        }
    }

    #[test]
    fn what_is_no_timetable_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "is no limit"),
            ("fast", "is no limit"),
            ("2", "is no limit"),
            ("2 apples", "is no limit"),
            ("5B/s", "too little"),
            ("0MB/s", "too little"),
            ("8-18 2MB/s", "is no time of the day"),
            ("08:00-25:00 2MB/s", "is no time of the day"),
            ("08:61-09:00 2MB/s", "is no time of the day"),
            ("08:00-08:00 2MB/s", "has no length"),
            ("08:00-18:00 quick", "is no limit"),
            ("else off, 08:00-18:00 2MB/s", "comes last"),
            ("08:00-18:00 2MB/s, 2MB/s", "says no time"),
            ("08:00-18:00 2MB/s, 17:00-20:00 1MB/s", "overlaps"),
            ("22:00-06:00 2MB/s, 05:00-07:00 1MB/s", "overlaps"),
        ] {
            let error = Timetable::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
