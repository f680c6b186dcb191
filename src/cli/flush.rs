//! `roamhome flush`.

use std::{path::Path, time::Duration};

use super::{find, output};
use crate::control::{
    Failure,
    protocol::{Reply, Request, millis},
};

/// Sends what is dirty; status 3 if something is left.
pub(super) fn run(mountpoint: Option<&Path>, timeout: Option<Duration>) -> Result<(), Failure> {
    let request = Request::Flush {
        timeout_ms: timeout.map(millis),
    };
    match find::ask(mountpoint, request)? {
        Reply::Flushed(left) => output::report_left(
            &left,
            "it is safe on this machine and goes as soon as the server takes it; see `roamhome status`",
        ),
        reply => Err(find::unexpected(&reply)),
    }
}
