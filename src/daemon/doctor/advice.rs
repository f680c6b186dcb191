//! What the doctor's findings mean, and what to do about them. Values in, sentences out.

use serde::Serialize;

use super::{Check, Outcome, Report};
use crate::remote::Features;

/// How much a piece of advice weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// It works without; some speed or a nicety is lacking.
    Note,
    /// Something that users notice is lacking.
    Warning,
    /// A home should not be here as it is.
    Error,
}

/// A piece of advice.
#[derive(Debug, Clone, Serialize)]
pub struct Advice {
    /// How much it weighs.
    pub weight: Weight,
    /// What is lacking, what that means, and what to do.
    pub text: String,
}

/// Longer round trips are felt where content is not cached.
const SLOW_MS: f64 = 100.0;
/// A clock that is further off is wrong.
const CLOCK_SECS: f64 = 5.0;
/// A disk with less room is nearly full.
const ROOM_BYTES: u64 = 1 << 30;

/// What each check means where it does not end well.
const MEANINGS: [(&str, Weight, &str); 16] = [
    (
        "write",
        Weight::Error,
        "nothing can be written: make the directory, and .roamhome in it, writable for this user",
    ),
    (
        "exclusive-create",
        Weight::Error,
        "two machines that make one file could write into each other's: use another SFTP server",
    ),
    (
        "rename-keeps",
        Weight::Error,
        "a file that another machine makes in the same moment could be replaced unseen: use another SFTP server",
    ),
    (
        "posix-rename",
        Weight::Note,
        "a file is replaced by moving the old version aside first: for a moment its name is gone for others",
    ),
    (
        "hardlink",
        Weight::Note,
        "the old version of a file is moved aside before the new one comes: for a moment its name is gone for others",
    ),
    (
        "fsync",
        Weight::Warning,
        "if the server loses power, files that were just sent may be lost there: keep backups of it. And whether it \
         refuses to replace what a rename finds in its way is not known, so each new name costs a look, and what \
         another machine puts there within that round trip may be replaced",
    ),
    (
        "times",
        Weight::Warning,
        "the server does not keep the times of files as they are set: who is newest in a conflict may be told wrong",
    ),
    (
        "modes",
        Weight::Warning,
        "the server does not keep permissions: they are as the server likes on other machines",
    ),
    (
        "symlink",
        Weight::Warning,
        "symlinks cannot be sent: they stay on this machine, as problems in `roamhome status`",
    ),
    (
        "lsetstat",
        Weight::Note,
        "permissions are set after a look that nothing is a link, with a moment between",
    ),
    (
        "copy-data",
        Weight::Note,
        "a large file of which a part changed cannot be put together on the server. OpenSSH 9.0 can",
    ),
    (
        "statvfs",
        Weight::Note,
        "nobody knows how full the server is before it is: `df` shows this machine's disk",
    ),
    (
        "byte-names",
        Weight::Warning,
        "names that are not UTF-8 cannot be sent; keep names in UTF-8",
    ),
    (
        "case-sensitive",
        Weight::Warning,
        "of two names that differ in case alone, only one can be there: do not use such names",
    ),
    (
        "order",
        Weight::Error,
        "what is asked at once is not done in order, on which the safety of replacing rests: use another SFTP server",
    ),
    (
        "many-handles",
        Weight::Warning,
        "the server opens few files at once: set uploads_in_flight to a fourth of what it opens",
    ),
];

/// All advice that follows, the weightiest first.
pub(super) fn advice(report: &Report, features: &Features) -> Vec<Advice> {
    let mut all: Vec<Advice> = report.checks.iter().filter_map(of_check).collect();
    let mut say = |weight, text: String| all.push(Advice { weight, text });
    if report.home.state == "damaged" {
        let identity = &report.home.identity;
        say(
            Weight::Error,
            format!(
                "which home this is cannot be told ({identity}): put home.toml back from a backup"
            ),
        );
    }
    if report.sessions < report.sessions_wanted {
        let (got, wanted) = (report.sessions, report.sessions_wanted);
        say(
            Weight::Note,
            format!(
                "{got} of {wanted} sessions: files are sent with less at once. Raise MaxSessions in the server's \
                 sshd_config to {wanted} or more, or lower `channels`"
            ),
        );
    }
    if let Some(ssh) = &report.ssh
        && !ssh.cipher.contains("gcm")
    {
        let cipher = &ssh.cipher;
        say(
            Weight::Note,
            format!(
                "the cipher is {cipher}: aes128-gcm@openssh.com in the server's Ciphers would be up to three times as \
                 fast where the CPUs have AES"
            ),
        );
    }
    if features.max_write < 64 * 1024 {
        let (write, read) = (features.max_write / 1024, features.max_read / 1024);
        say(
            Weight::Note,
            format!(
                "content goes in pieces of {write} KiB, and comes in pieces of {read} KiB: large files cost more"
            ),
        );
    }
    if report.round_trip.median_ms > SLOW_MS {
        let median = report.round_trip.median_ms.round();
        say(
            Weight::Note,
            format!(
                "an answer takes {median} ms: what is not cached here is felt when it is opened"
            ),
        );
    }
    if let Some(text) = of_clock(report) {
        say(Weight::Warning, text);
    }
    if let Some(free) = report.home.free_bytes
        && free < ROOM_BYTES
    {
        let free = free >> 20;
        say(
            Weight::Warning,
            format!("only {free} MiB are free on the server: make room before it is full"),
        );
    }
    all.sort_by_key(|advice| std::cmp::Reverse(advice.weight));
    all
}

fn of_clock(report: &Report) -> Option<String> {
    let (offset, error) = (report.clock_offset?, report.clock_error?);
    if offset.abs() <= CLOCK_SECS + error {
        return None;
    }
    let way = if offset > 0.0 { "fast" } else { "slow" };
    let by = offset.abs().round();
    Some(format!(
        "the server's clock is {by} s {way} of this one. roamhome corrects for it; others do not: set both by NTP"
    ))
}

fn of_check(check: &Check) -> Option<Advice> {
    let (weight, means) = match check.outcome {
        Outcome::Works => return None,
        Outcome::Skipped => (
            Weight::Note,
            "what has to be written to be known was not tried: --create makes .roamhome for as long as it takes",
        ),
        Outcome::Missing | Outcome::Fails => {
            let found = MEANINGS.iter().find(|(name, ..)| *name == check.name);
            found.map(|(_, weight, means)| (*weight, *means))?
        }
    };
    let name = check.name;
    let seen = match (check.outcome, check.detail.as_str()) {
        (Outcome::Fails, detail) if !detail.is_empty() => format!("{name} fails ({detail})"),
        (Outcome::Fails, _) => format!("{name} fails"),
        (Outcome::Skipped, _) => check.detail.clone(),
        _ => format!("no {name}"),
    };
    Some(Advice {
        weight,
        text: format!("{seen}: {means}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_that_does_not_end_well_says_what_that_means() {
        for (name, weight, means) in MEANINGS {
            let check = |outcome| Check {
                name,
                outcome,
                detail: "seen".to_owned(),
            };
            assert!(of_check(&check(Outcome::Works)).is_none());
            let missing = of_check(&check(Outcome::Missing)).unwrap();
            assert_eq!(missing.weight, weight);
            assert_eq!(missing.text, format!("no {name}: {means}"));
            let failed = of_check(&check(Outcome::Fails)).unwrap();
            assert_eq!(failed.text, format!("{name} fails (seen): {means}"));
        }
    }
}
