//! `roamhome leave`: the way back. A mounted home becomes plain local files: fetched, copied, compared, and only then
//! unmounted and put where the mount was.

use std::{
    cell::RefCell,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    find,
    output::{self, ProgressLine, count, emit, print_note, size},
    process::Process,
    settings,
};
use crate::{
    control::{
        Code, Failure, client,
        protocol::{ContentAction, Left, Progress, Reply, Request, Status},
    },
    login,
};

mod copy;
mod entry;
mod work;

use copy::{Count, Trouble, differing, measure};
use work::Work;

/// What can be said to `leave`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
All contents are fetched, and all that is unsent is sent. The home is copied beside the mount point, or to --to DIR, with
everything that it holds but sockets; for the end of that it takes no writes. Copy and home are compared,
contents included. Then the home is unmounted, and the copy takes its place.

Server and state directory stay as they are. Cut off at any point, the same command goes on; what it has copied so far is in
MOUNT.leaving.")]
pub(super) struct LeaveArgs {
    /// The mount; may be left out inside of it, or when there is exactly one
    mountpoint: Option<PathBuf>,
    /// Leave the plain files there, instead of where the mount was
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Go on although something cannot be sent: it is in the copy, and stays in the state directory
    #[arg(long)]
    unsent: bool,
}

/// How long the home takes no writes unless it is asked again, and when it is.
const STILL_SECONDS: u64 = 120;
const ASK_AGAIN: Duration = Duration::from_secs(20);

/// Leaves.
pub(super) fn run(args: &LeaveArgs) -> Result<(), Failure> {
    let mount = match &args.mountpoint {
        Some(mountpoint) => find::resolve(mountpoint),
        None => {
            let pong = client::ping(&find::socket_of(None)?);
            let gone = || Failure::new(Code::NotRunning, "no home is mounted");
            PathBuf::from(pong.ok_or_else(gone)?.mountpoint)
        }
    };
    let to = args.to.as_deref().map(find::resolve);
    let work = Work::at(&mount, to.as_deref().unwrap_or(&mount));
    match find::socket_of(Some(&mount)) {
        Ok(_) => Leaving { args, mount, work }.leave(),
        // It may have been killed when it had just unmounted.
        Err(unserved) => match work.finish()? {
            true => emit(&work.done()),
            false => Err(unserved.remedy("mount the home first: what it lacks has to be fetched")),
        },
    }
}

/// Whom a copy tells how far it is.
type Watcher<'a> = &'a mut dyn FnMut(Count);

struct Leaving<'a> {
    args: &'a LeaveArgs,
    mount: PathBuf,
    work: Work,
}

impl Leaving<'_> {
    fn leave(&self) -> Result<(), Failure> {
        self.check_nobody_is_logged_in()?;
        let status = self.status()?;
        self.work.begin(&status)?;
        self.fetch()?;
        self.send()?;
        let all = measure(&self.mount).map_err(|trouble| self.failed(&trouble))?;
        self.work.check_room(all.bytes)?;
        // While programs go on working.
        self.copy(false)?;
        let copied = self.hold_still().and_then(|copied| {
            self.work.sync()?;
            let left = self.unmount()?;
            self.work.unmounted(&status)?;
            Ok((copied, left))
        });
        let (copied, left) = copied.inspect_err(|_| {
            // It ends by itself otherwise.
            drop(self.ask(freeze(0, false)));
        })?;
        if !self.work.finish()? {
            let message = format!("{} is not what was unmounted", self.mount.display());
            return Err(Failure::new(Code::Mountpoint, message));
        }
        emit(&format!(
            "{} ({}) copied and compared\n",
            count(copied.files, "file"),
            size(copied.bytes)
        ))?;
        if left.files > 0 {
            print_note(&format!(
                "{} {} never sent: to send them, mount the home again",
                count(left.files, "change"),
                if left.files == 1 { "was" } else { "were" }
            ));
        }
        emit(&self.work.done())
    }

    fn check_nobody_is_logged_in(&self) -> Result<(), Failure> {
        let owner = self.mount.metadata().map_or(0, |found| found.uid());
        if settings::env()?.uid != 0 || !login::is_kept(owner) {
            return Ok(());
        }
        let message = format!("{}: whose home it is, is logged in", self.mount.display());
        Err(Failure::new(Code::Mountpoint, message).remedy(
            "when they have logged out, mount it: roamhome mount -o setuid=ACCOUNT HOST:PATH MOUNTPOINT; then leave",
        ))
    }

    fn ask(&self, request: Request) -> Result<Reply, Failure> {
        find::ask(Some(&self.mount), request)
    }

    fn status(&self) -> Result<Status, Failure> {
        match self.ask(Request::Status)? {
            Reply::Status(status) => Ok(*status),
            reply => Err(find::unexpected(&reply)),
        }
    }

    /// Brings everything here.
    fn fetch(&self) -> Result<(), Failure> {
        let root = self.mount.metadata().map_err(|error| {
            let message = format!("{}: {error}", self.mount.display());
            Failure::new(Code::Mountpoint, message)
        })?;
        let action = ContentAction::Prefetch {
            nodes: vec![root.ino()],
        };
        let brought = match self.ask(Request::Content { action })? {
            Reply::Brought(brought) => brought,
            reply => return Err(find::unexpected(&reply)),
        };
        if brought.failed == 0 {
            return Ok(());
        }
        let message = format!(
            "{}: {} not here, and cannot be fetched: {}",
            self.mount.display(),
            match brought.failed {
                1 => "1 file or directory is".to_owned(),
                more => format!("{more} files and directories are"),
            },
            brought.why.unwrap_or_default()
        );
        Err(Failure::new(Code::Unreachable, message)
            .remedy("connect to the server (`roamhome online`), and run the same command again"))
    }

    /// Sends what is unsent.
    fn send(&self) -> Result<(), Failure> {
        if self.args.unsent {
            return Ok(());
        }
        match self.ask(Request::Flush { timeout_ms: None })? {
            Reply::Flushed(left) => output::report_left(
                &left,
                "run the same command again when it can be sent; or with --unsent: it is in the copy in any case",
            ),
            reply => Err(find::unexpected(&reply)),
        }
    }

    /// Copies the home as it is at one moment, and compares.
    fn hold_still(&self) -> Result<Count, Failure> {
        self.ask(freeze(STILL_SECONDS, false))?;
        self.send()?;
        self.fetch()?;
        self.ask(freeze(STILL_SECONDS, true))?;
        // What the server brought in the meantime.
        self.fetch()?;
        let copied = self.copy(true)?;
        let home = self.work.home();
        let compared = self.watched("comparing", true, |progress| {
            differing(&self.mount, &home, progress)
        })?;
        match compared {
            None => Ok(copied),
            Some(path) => {
                let message = format!("{}: the copy differs", path.display());
                Err(Failure::new(Code::General, message).remedy(
                    "nothing was changed; look at this disk, and run the same command again",
                ))
            }
        }
    }

    fn copy(&self, still: bool) -> Result<Count, Failure> {
        let home = self.work.home();
        self.watched("copying", still, |progress| {
            copy::copy(&self.mount, &home, progress)
        })
    }

    /// Does what takes long, tells how far it is, and keeps the home still if it is to be.
    fn watched<T>(
        &self,
        what: &str,
        still: bool,
        act: impl FnOnce(Watcher<'_>) -> Result<T, Trouble>,
    ) -> Result<T, Failure> {
        let line = RefCell::new(ProgressLine::new());
        let mut asked = Instant::now();
        let mut moved = Ok(());
        let done = act(&mut |count| {
            line.borrow_mut().show(&Progress {
                message: format!(
                    "{what}: {} ({})",
                    output::count(count.files, "file"),
                    size(count.bytes)
                ),
                left_files: 0,
                left_bytes: 0,
            });
            if still && moved.is_ok() && asked.elapsed() > ASK_AGAIN {
                asked = Instant::now();
                moved = self.ask(freeze(STILL_SECONDS, true)).map(drop);
            }
        });
        drop(line);
        moved?;
        done.map_err(|trouble| self.failed(&trouble))
    }

    fn failed(&self, trouble: &Trouble) -> Failure {
        let message = format!("{}: {}", trouble.path.display(), trouble.error);
        Failure::new(Code::General, message)
            .remedy("the home is as it was; mend that, and run the same command again: it goes on")
    }

    /// Unmounts; answers what was never sent.
    fn unmount(&self) -> Result<Left, Failure> {
        let daemon = Process::serving(Some(&self.mount));
        let request = Request::Unmount {
            flush: false,
            timeout_ms: None,
        };
        let left = match self.ask(request)? {
            Reply::Flushed(left) => left,
            reply => return Err(find::unexpected(&reply)),
        };
        let _in_time = daemon.is_some_and(|daemon| daemon.has_ended());
        Ok(left)
    }
}

fn freeze(seconds: u64, hold: bool) -> Request {
    Request::Freeze { seconds, hold }
}

/// The path as it is shown.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
