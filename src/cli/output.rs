//! What people see: tables, sizes, ages, failures. Whatever comes from outside is made safe for a terminal.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::control::{
    Code, Failure,
    protocol::{Left, Progress},
};

/// Writes a whole answer to standard output. A reader that went away (`| head`) is no failure.
pub(super) fn emit(text: &str) -> Result<(), Failure> {
    emit_bytes(&mut text.as_bytes())
}

/// The same for scripts: one JSON object.
pub(super) fn emit_json(answer: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(answer)
        .map_err(|error| Failure::new(Code::General, error.to_string()))?;
    emit(&format!("{text}\n"))
}

/// The same for content.
pub(super) fn emit_bytes(from: &mut dyn io::Read) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match io::copy(from, &mut out).and_then(|_| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::General,
            format!("standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Says what went wrong, and in a second line what to do about it.
pub(super) fn print_failure(failure: &Failure) {
    drop(io::stderr().write_all(failure_text(failure).as_bytes()));
}

/// Says it where PAM listens: pam_exec passes on what comes on standard output, and that alone.
pub(super) fn tell_failure(failure: &Failure) {
    // Whoever logged in may be gone.
    drop(emit(&failure_text(failure)));
}

/// The same for what is no failure.
pub(super) fn tell(note: &str) {
    drop(emit(&format!("roamhome: {}\n", printable(note))));
}

fn failure_text(failure: &Failure) -> String {
    let mut text = format!("roamhome: {}\n", printable(&failure.message));
    if let Some(remedy) = &failure.remedy {
        text.push_str(&format!("  {}\n", printable(remedy)));
    }
    text
}

/// Says what an answer lacks, where it does not disturb who reads the answer.
pub(super) fn print_note(note: &str) {
    drop(writeln!(io::stderr(), "roamhome: {}", printable(note)));
}

/// Shows progress in one line that is written over, on terminals only.
#[derive(Debug)]
pub(super) struct ProgressLine {
    enabled: bool,
    width: usize,
}

impl ProgressLine {
    /// A line on standard error.
    pub(super) fn new() -> Self {
        Self {
            enabled: io::stderr().is_terminal(),
            width: 0,
        }
    }

    /// Writes over what was shown before.
    pub(super) fn show(&mut self, progress: &Progress) {
        if self.enabled {
            let mut text = printable(&progress.message);
            if progress.left_files > 0 {
                text.push_str(&format!(
                    " ({} left, {})",
                    count(progress.left_files, "file"),
                    size(progress.left_bytes)
                ));
            }
            self.put(&text);
        }
    }

    fn put(&mut self, text: &str) {
        let width = text.chars().count();
        drop(write!(io::stderr(), "\r{text:<old$}", old = self.width));
        self.width = width;
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.width > 0 {
            self.put("");
            drop(write!(io::stderr(), "\r"));
        }
    }
}

/// `text` with control characters shown as `\xNN`, so that no name or message can disturb a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            safe.push_str(&format!("\\x{:02x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Bytes as people say them: `0 B`, `999 B`, `1.5 KiB`, `20 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would round up to 1024 is one of the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 9.95 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// A span of seconds as people say it, in its largest unit.
pub(super) fn span(secs: i64) -> String {
    match secs.max(0) {
        secs @ 0..120 => format!("{secs} s"),
        secs @ 120..7_200 => format!("{} min", secs / 60),
        secs @ 7_200..172_800 => format!("{} h", secs / 3_600),
        secs => format!("{} days", secs / 86_400),
    }
}

/// How long ago `then` was, both in seconds since the epoch.
pub(super) fn ago(now: i64, then: i64) -> String {
    format!("{} ago", span(now.saturating_sub(then)))
}

/// `1 file`, `2 files`.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Rows with aligned columns, two spaces apart; nothing trails.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            let cells = rows.iter().filter_map(|row| row.get(i));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What is not on the server, as a list and as a failure; nothing if nothing is left.
pub(super) fn report_left(left: &Left, remedy: &str) -> Result<(), Failure> {
    if left.files == 0 {
        return Ok(());
    }
    emit(&left_list(left))?;
    let verb = if left.files == 1 { "is" } else { "are" };
    Err(Failure::new(
        Code::Unsent,
        format!(
            "{} ({}) {verb} not on the server yet",
            count(left.files, "change"),
            size(left.bytes)
        ),
    )
    .remedy(remedy))
}

fn left_list(left: &Left) -> String {
    let rows: Vec<_> = left
        .items
        .iter()
        .map(|item| {
            vec![
                printable(&item.path),
                size(item.bytes),
                printable(&item.why),
            ]
        })
        .collect();
    let mut text = table(&rows);
    let named = left.items.len() as u64;
    if left.files > named {
        text.push_str(&format!("and {} more\n", left.files - named));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::LeftItem;

    #[test]
    fn sizes_and_spans_are_said_in_their_unit() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (10 * 1024, "10 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (20 << 30, "20 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
        for (secs, expected) in [
            (-5, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_200, "2 h"),
            (864_000, "10 days"),
        ] {
            assert_eq!(span(secs), expected);
        }
    }

    #[test]
    fn nothing_from_outside_reaches_the_terminal_raw() {
        assert_eq!(
            printable("a\x1b[2Jb\u{9b}c\u{e9}"),
            "a\\x1b[2Jb\\x9bc\u{e9}"
        );
    }

    #[test]
    fn what_is_left_is_listed_and_is_status_3() {
        assert_eq!(report_left(&Left::default(), ""), Ok(()));
        let left = Left {
            files: 2,
            bytes: 2048,
            items: vec![LeftItem {
                path: "a b".into(),
                bytes: 1024,
                why: "offline".into(),
            }],
        };
        assert_eq!(left_list(&left), "a b  1.0 KiB  offline\nand 1 more\n");
        let failure = report_left(&left, "wait").unwrap_err();
        assert_eq!(failure.code.status(), 3);
        assert_eq!(
            failure.message,
            "2 changes (2.0 KiB) are not on the server yet"
        );
    }
}
