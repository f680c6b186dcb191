//! Lines that any program of the same user may send to a daemon: understood or refused, at a bounded cost.

use super::*;
use crate::fuzz::{garbage, peak_of, repeat, spoil};

const LINES: u64 = 100_000;

/// Refusals quote what was sent.
const MOST_PER_BYTE: usize = 16;
const MOST_ANYWAY: usize = 16 * 1024;

const REQUESTS: [&str; 7] = [
    r#"{"version":1,"request":{"op":"flush","timeout_ms":5000}}"#,
    r#"{"version":1,"request":{"op":"reconcile","dry_run":true,"force_guard":false}}"#,
    r#"{"version":1,"request":{"op":"backups","action":"restore","id":"local-1","to":null}}"#,
    r#"{"version":1,"request":{"op":"trash","action":"empty","older_than_ms":18446744073709551615}}"#,
    r#"{"version":1,"request":{"op":"conflicts","action":"resolve","id":"local-1","keep":"both"}}"#,
    r#"{"version":1,"request":{"op":"ping"}}"#,
    r#"{"version":1,"reply":{"kind":"flushed","files":1,"bytes":2,"items":[{"path":"\u0007","bytes":2,"why":""}]}}"#,
];

fn take(line: &[u8]) {
    let most = line.len() * MOST_PER_BYTE + MOST_ANYWAY;
    let (peak, (request, reply)) = peak_of(|| {
        (
            serde_json::from_slice::<RequestLine>(line),
            serde_json::from_slice::<ReplyLine>(line),
        )
    });
    assert!(peak <= most, "{peak} bytes for {}", line.len());
    if let Ok(request) = request {
        let again = serde_json::to_vec(&request).unwrap();
        assert_eq!(
            serde_json::from_slice::<RequestLine>(&again).unwrap(),
            request
        );
    }
    if let Ok(reply) = reply {
        let again = serde_json::to_vec(&reply).unwrap();
        assert_eq!(serde_json::from_slice::<ReplyLine>(&again).unwrap(), reply);
    }
}

#[test]
fn whatever_a_program_sends_is_understood_or_refused() {
    repeat("whatever_a_program_sends", LINES, |rng| {
        let mut line = match rng.one_in(8) {
            true => garbage(rng, 100),
            false => rng.pick(&REQUESTS).as_bytes().to_vec(),
        };
        if !rng.one_in(16) {
            spoil(rng, &mut line);
        }
        take(&line);
    });
    // As deep as the longest line can be.
    for open in ["[", "{\"a\":", "{\"version\":1,\"request\":"] {
        take(open.repeat(REQUEST_MAX_BYTES / open.len()).as_bytes());
    }
}
