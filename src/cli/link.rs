//! `roamhome offline` and `roamhome online`.

use std::path::Path;

use super::{find, output};
use crate::control::{
    Failure,
    protocol::{Reply, Request},
};

/// Sends `request`, and prints what the daemon did.
pub(super) fn run(mountpoint: Option<&Path>, request: Request) -> Result<(), Failure> {
    match find::ask(mountpoint, request)? {
        Reply::Done { message } => output::emit(&format!("{}\n", output::printable(&message))),
        reply => Err(find::unexpected(&reply)),
    }
}
