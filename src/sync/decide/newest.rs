//! Newest wins, in server time: clocks decide only where they surely can.

use super::super::{Policy, Prefer};
use crate::tree::{Kind, Version};

/// Which of two versions wins: the newer in server time, or the preferred where the clocks cannot tell.
pub fn newest(local: &Version, remote: &Version, policy: &Policy) -> Prefer {
    const SECOND: i128 = 1_000_000_000;
    if local.kind != Kind::File || remote.kind != Kind::File {
        return policy.prefer;
    }
    let local_start = i128::from(local.mtime) * SECOND + i128::from(policy.clock.offset_ns);
    let remote_start = i128::from(remote.mtime) * SECOND;
    let error = i128::from(policy.clock.error_ns);
    if local_start - error >= remote_start + SECOND {
        Prefer::Local
    } else if remote_start >= local_start + SECOND + error {
        Prefer::Remote
    } else {
        policy.prefer
    }
}
