//! What `roamhome --help` and the manual pages both say at their end: exit statuses, files, environment. Pure.

use crate::control::Code;

/// Where things are.
pub(super) const FILES: [(&str, &str); 3] = [
    (
        "/etc/roamhome/config.toml, /etc/roamhome/users/USER.toml, $XDG_CONFIG_HOME/roamhome/config.toml",
        "settings, in this order; `roamhome config` lists them all",
    ),
    (
        "$XDG_STATE_HOME/roamhome/HOME/ (for root: /var/lib/roamhome/HOME/)",
        "the replica of one home, with all that is not on the server yet, and daemon.log",
    ),
    (
        "$XDG_RUNTIME_DIR/roamhome/ (for root: /run/roamhome/0/)",
        "control sockets of running mounts",
    ),
];

/// What it heeds.
pub(super) const ENVIRONMENT: [(&str, &str); 1] = [(
    "ROAMHOME_LOG",
    "log level or directives, such as debug or roamhome::engine=trace,info",
)];

/// Every exit status and what it means.
pub(super) fn exit_statuses() -> impl Iterator<Item = (u8, &'static str)> {
    let failures = Code::TABLE
        .into_iter()
        .map(|(code, meaning)| (code.status(), meaning));
    std::iter::once((0, "success")).chain(failures)
}

/// All of it, below `--help`.
pub(super) fn after_help() -> String {
    let mut help = String::from("Exit status:\n");
    for (status, meaning) in exit_statuses() {
        help.push_str(&format!("  {status:2}  {meaning}\n"));
    }
    help.push_str("\nFiles:\n");
    for (files, meaning) in FILES {
        help.push_str(&format!("  {files}\n      {meaning}\n"));
    }
    help.push_str("\nEnvironment:\n");
    for (name, meaning) in ENVIRONMENT {
        help.push_str(&format!("  {name}  {meaning}\n"));
    }
    help
}
