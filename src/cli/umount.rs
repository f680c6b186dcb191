//! `roamhome umount`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{
    dead, find, output,
    preflight::{FS_TYPE, read_mounts},
    process::Process,
};
use crate::{
    config::duration,
    control::{
        Code, Failure,
        protocol::{Reply, Request, millis},
    },
};

/// What can be said to `umount`.
#[derive(Debug, Args)]
pub(super) struct UmountArgs {
    /// The mount; may be left out inside of it, or when there is exactly one
    mountpoint: Option<PathBuf>,
    /// Give up sending after this time, and unmount with what is left kept on this machine
    #[arg(long, value_name = "T", value_parser = duration::parse, default_value = "60s")]
    timeout: Duration,
    /// Unmount at once; what is not sent is kept on this machine, and goes at the next mount
    #[arg(long)]
    no_flush: bool,
}

const KEPT: &str = "it is kept on this machine, and goes when the home is mounted again";

/// Unmounts; status 3 if something is not on the server.
pub(super) fn run(args: &UmountArgs) -> Result<(), Failure> {
    let request = Request::Unmount {
        flush: !args.no_flush,
        timeout_ms: Some(millis(args.timeout)),
    };
    let daemon = Process::serving(args.mountpoint.as_deref());
    match find::ask(args.mountpoint.as_deref(), request) {
        Ok(Reply::Flushed(left)) => {
            // Whoever mounts again at once finds the state directory free. One that takes longer is
            // named by that mount.
            let _in_time = daemon.is_some_and(|daemon| daemon.has_ended());
            output::report_left(&left, KEPT)
        }
        Ok(reply) => Err(find::unexpected(&reply)),
        Err(failure) => match &args.mountpoint {
            Some(mountpoint) => unserved(&find::resolve(mountpoint), failure, daemon.as_ref()),
            None => Err(failure),
        },
    }
}

/// The daemon did not unmount. Takes away a mount whose daemon is gone: only then is nobody asked.
fn unserved(mountpoint: &Path, failure: Failure, daemon: Option<&Process>) -> Result<(), Failure> {
    let mounts = read_mounts()?;
    // The topmost mount is the last one listed.
    match mounts.iter().rfind(|mount| mount.point == mountpoint) {
        None => {
            // Somebody else was faster, and the daemon ends.
            let _in_time = daemon.is_some_and(Process::has_ended);
            let message = format!("{} is not mounted", mountpoint.display());
            Err(Failure::new(Code::Mountpoint, message))
        }
        Some(mount) if mount.fs_type != FS_TYPE || failure.code != Code::NotRunning => Err(failure),
        Some(_) => {
            dead::detach(mountpoint)?;
            // Whether something is left is in the state directory, which nobody has read.
            Err(Failure::new(
                Code::Unsent,
                format!(
                    "{} is unmounted, but its daemon was gone: perhaps not all is on the server",
                    mountpoint.display()
                ),
            )
            .remedy(KEPT))
        }
    }
}
