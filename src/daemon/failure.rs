//! Errors of the layers below as people and scripts get them: a message, a remedy, an exit status.

use std::io;
use std::path::Path;

use crate::control::{Code, Failure};
use crate::engine::PassError;
use crate::replica::ReplicaError;
use crate::sync::{Guard, Side};

/// Of the replica.
pub(super) fn replica(error: ReplicaError) -> Failure {
    // The replica's messages name the directory and the remedy themselves.
    Failure::new(Code::StateDir, error.to_string())
}

/// Of mount(2).
pub(super) fn mount(at: &Path, error: io::Error) -> Failure {
    let at = at.display();
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV) => {
            Failure::new(Code::NoFuse, format!("{at} cannot be mounted: {error}"))
                .remedy("load FUSE with `modprobe fuse`; in a container, pass /dev/fuse through")
        }
        Some(libc::EPERM | libc::EACCES) => {
            Failure::new(Code::NoFuse, format!("{at} cannot be mounted: {error}"))
                .remedy("install fuse3 for fusermount3, or mount as root")
        }
        _ => Failure::new(Code::Mountpoint, format!("{at} cannot be mounted: {error}"))
            .remedy(format!("see what is there with `findmnt {at}`")),
    }
}

/// Of a question that a person has to answer first.
pub(super) fn guard(guard: &Guard) -> Failure {
    let code = match guard {
        Guard::Identity(_) => Code::Identity,
        Guard::RolledBack | Guard::MassRemoval { .. } | Guard::AttributeStorm { .. } => Code::Guard,
    };
    Failure::new(code, guard.to_string())
}

/// So many paths show what a question is about.
const PATHS_SHOWN: usize = 5;

/// The same, with what going on would do; `lines` are the steps of the plan.
pub(super) fn guard_with(question: &Guard, lines: &[String]) -> Failure {
    let failure = guard(question);
    let (side, begins, what) = match question {
        Guard::Identity(_) | Guard::RolledBack => {
            return failure.remedy(
                "--force-guard forgets what was agreed on: both sides are united, the newest of two versions wins, the other \
                 is kept, and nothing is deleted",
            );
        }
        Guard::MassRemoval { side, .. } => (side, "remove", "remove"),
        Guard::AttributeStorm { side, .. } => (side, "", "change"),
    };
    let prefix = match side {
        Side::Replica => format!("replica  {begins}"),
        Side::Server => format!("server   {begins}"),
    };
    let steps: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with(&prefix))
        .collect();
    let mut text = format!(
        "--force-guard would take {} steps in all, and {what} {} files and directories on {side}:",
        lines.len(),
        steps.len(),
    );
    for step in steps.iter().take(PATHS_SHOWN) {
        text.push_str(&format!("\n    {step}"));
    }
    if steps.len() > PATHS_SHOWN {
        text.push_str(&format!("\n    and {} more", steps.len() - PATHS_SHOWN));
    }
    text.push_str("\n  `roamhome reconcile --dry-run` shows all of them");
    failure.remedy(text)
}

/// Of a pass.
pub(super) fn pass(error: &PassError) -> Failure {
    let code = match error {
        PassError::Offline(_) => Code::Unreachable,
        PassError::Failed(_) | PassError::Stopping => Code::General,
    };
    let failure = Failure::new(code, error.to_string());
    match error {
        PassError::Offline(_) => failure.remedy("`roamhome status` tells how the link stands"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_tells_what_a_yes_would_do() {
        let removal = Guard::MassRemoval {
            side: Side::Replica,
            removed: 7,
            known: 9,
        };
        let mut lines: Vec<_> = (0..7).map(|i| format!("replica  remove f{i}")).collect();
        lines.push("server   remove elsewhere".to_owned());
        let failure = guard_with(&removal, &lines);
        assert_eq!(failure.code, Code::Guard);
        assert!(failure.message.contains("7 of 9"), "{failure:?}");
        let remedy = failure.remedy.unwrap();
        let expected = "\
--force-guard would take 8 steps in all, and remove 7 files and directories on this machine:
    replica  remove f0
    replica  remove f1
    replica  remove f2
    replica  remove f3
    replica  remove f4
    and 2 more
  `roamhome reconcile --dry-run` shows all of them";
        assert_eq!(remedy, expected);
        let remedy = guard_with(&Guard::RolledBack, &[]).remedy.unwrap();
        assert!(remedy.contains("nothing is deleted"), "{remedy}");
    }
}
