//! PAM's part of the set-up, where `pam-auth-update` manages its files; elsewhere an administrator does so.

use std::{fs, io, path::Path, process::Command};

use crate::control::{Code, Failure};

/// What changes PAM's files.
pub(super) const COMMAND: [&str; 3] = ["pam-auth-update", "--enable", "roamhome"];
/// The steps, as it takes them.
const PROFILE: &str = "/usr/share/pam-configs/roamhome";
/// Where sessions are described.
const FILES: [&str; 3] = [
    "/etc/pam.d/common-session",
    "/etc/pam.d/system-auth",
    "/etc/pam.d/password-auth",
];
const TOOL: &str = "/usr/sbin/pam-auth-update";

/// Whether logins take the steps already.
pub(super) fn is_enabled() -> bool {
    let has_steps = |path: &&str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.any(|line| line.contains("pam_exec") && line.contains("roamhome login"))
    };
    FILES.iter().any(has_steps)
}

/// The lines that come into PAM's files.
pub(super) fn lines() -> Result<String, Failure> {
    let by_hand = |message: String| {
        Failure::new(Code::Usage, message)
            .remedy("write the lines that pam/README.md shows into PAM's files by hand")
    };
    if !Path::new(TOOL).exists() {
        return Err(by_hand(
            "there is no pam-auth-update on this machine: PAM is not changed".into(),
        ));
    }
    let profile =
        fs::read_to_string(PROFILE).map_err(|error| by_hand(format!("{PROFILE}: {error}")))?;
    let steps = profile.lines().filter(|line| line.contains("pam_exec"));
    Ok(steps.map(|line| format!("  {}\n", line.trim())).collect())
}

/// Has logins take the steps, and what was left sent when the machine starts.
pub(super) fn enable() -> Result<(), Failure> {
    run(&COMMAND)?;
    match sd_notify::booted().unwrap_or(false) {
        true => run(&["systemctl", "enable", "roamhome-resume.service"]),
        false => Ok(()),
    }
}

fn run(words: &[&str]) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Code::General, format!("{}: {why}", words.join(" ")));
    let status = Command::new(words[0])
        .args(&words[1..])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .map_err(|error: io::Error| failed(error.to_string()))?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(status.to_string())),
    }
}
