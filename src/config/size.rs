//! Numbers of bytes as people write them: `500MiB`, `1.5 GiB`, or plain bytes. Pure.

use serde::{Deserialize, Deserializer};

const UNITS: [(&str, u64); 6] = [
    ("", 1),
    ("B", 1),
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
];

fn parse(text: &str) -> Result<u64, String> {
    let invalid = || format!("{text:?} is no size; write bytes, or such as 500MiB or 10GiB");
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_uppercase();
    let (_, factor) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(invalid)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(*factor).ok_or_else(invalid);
    }
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let bytes = number * *factor as f64;
    (bytes < u64::MAX as f64)
        .then_some(bytes as u64)
        .ok_or_else(invalid)
}

/// For `#[serde(deserialize_with = "…")]`: a text as above, or bytes.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a size such as \"10GiB\"")]
    enum Raw {
        Bytes(u64),
        Text(String),
    }
    match Raw::deserialize(input)? {
        Raw::Bytes(bytes) => Ok(bytes),
        Raw::Text(text) => parse(&text).map_err(serde::de::Error::custom),
    }
}

/// The same, or `off` for none.
pub(super) fn deserialize_limit<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<u64>, D::Error> {
    match String::deserialize(input)?.trim() {
        "off" => Ok(None),
        text => parse(text).map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17 B", 17),
            ("2KiB", 2048),
            ("1.5 gib", 3 << 29),
            ("10GiB", 10 << 30),
            ("3T", 0),
            ("", 0),
            ("-1", 0),
            ("1.2.3MiB", 0),
            ("99999999999TiB", 0),
            ("10GB", 0),
        ] {
            assert_eq!(parse(text).unwrap_or(0), bytes, "{text}");
            assert_eq!(parse(text).is_err(), bytes == 0 && text != "0", "{text}");
        }
    }
}
