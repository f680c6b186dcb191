//! What the keeper has done by other threads: each tells it how it went.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::{Event, Job, Reply, Request, Started, Unmounted, client};
use crate::control::protocol::{self, ContentAction};
use crate::control::{Failure, Secret};

/// How often content is looked at that could not go at once.
const LOOKS: usize = 3;
/// After so long a change within the same second shows.
const SECOND_PAST: Duration = Duration::from_secs(2);

/// The node of a home's root.
const ROOT: u64 = 1;

/// Tells when the service is stopped: SIGTERM, or SIGINT at a terminal.
pub(super) fn on_stop(events: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // For this thread and all that it starts; programs that are started get none of it.
    signals.thread_block()?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while signals.wait().is_ok() {
                if events.send(Event::Stop).is_err() {
                    return;
                }
            }
        })?;
    Ok(())
}

/// Starts the daemon, tells when it serves, and then when it ended.
pub(super) fn start(
    job: &Job,
    number: u64,
    password: Option<Secret>,
    events: &mpsc::Sender<Event>,
) {
    let started = job.daemon.start(password);
    let told = match &started {
        Ok(_) => Ok(unsent(&job.daemon.control_socket())),
        Err(failure) => Err(failure.clone()),
    };
    if events.send(Event::Started(told)).is_err() {
        return;
    }
    match started {
        Ok(Started::Child(mut child)) => drop(child.wait()),
        Ok(Started::Other(pid)) => {
            if let Ok(holder) = super::Holder::of(pid.cast_signed()) {
                holder.wait();
            }
        }
        Err(_) => return,
    }
    drop(events.send(Event::DaemonEnded(number)));
}

/// How many changes the server does not have yet, as far as that can be asked.
fn unsent(socket: &Path) -> u64 {
    match client::ask(socket, Request::Status, &mut |_| {}) {
        Ok(Reply::Status(status)) => status.unsent.files,
        _ => 0,
    }
}

/// Has the daemon send what is left.
pub(super) fn flush(job: &Job, events: &mpsc::Sender<Event>) {
    let request = Request::Flush {
        timeout_ms: Some(protocol::millis(job.logout_timeout)),
    };
    let mut progress = |progress| drop(events.send(Event::Progress(progress)));
    let flushed = match client::ask(&job.daemon.control_socket(), request, &mut progress) {
        Ok(Reply::Flushed(left)) => Ok(left),
        other => Err(unexpected(other)),
    };
    drop(events.send(Event::Flushed(flushed)));
}

/// Unmounts if nobody uses the home; what was written in the last moment is what is left. With `purge`, content that the
/// server has is let go before.
pub(super) fn unmount(job: &Job, purge: bool, events: &mpsc::Sender<Event>) {
    let socket = job.daemon.control_socket();
    if purge && let Err(failure) = let_go(&socket) {
        tracing::warn!(%failure, "content stays on this machine");
    }
    let request = Request::Unmount {
        flush: false,
        timeout_ms: None,
    };
    let unmounted = match client::ask(&socket, request, &mut |_| {}) {
        Ok(Reply::Flushed(left)) if left.files == 0 => Ok(Unmounted::Clean),
        Ok(Reply::Flushed(_)) => Ok(Unmounted::Unknown),
        // The daemon's broker may have gone with the keeper before this one.
        other => match job.daemon.unmount(false) {
            Ok(()) => Ok(Unmounted::Unknown),
            Err(_) => Err(unexpected(other)),
        },
    };
    drop(events.send(Event::Unmounted(unmounted)));
}

/// Lets all content go that the server has. What was changed a moment ago is looked at once more first: a later change
/// within its second would not show.
fn let_go(socket: &Path) -> Result<(), Failure> {
    for _ in 0..LOOKS {
        let action = ContentAction::Evict { nodes: vec![ROOT] };
        match client::ask(socket, Request::Content { action }, &mut |_| {})? {
            Reply::LetGo(gone) if gone.kept == 0 => break,
            _ => {}
        }
        thread::sleep(SECOND_PAST);
        let request = Request::Reconcile {
            dry_run: false,
            force_guard: false,
        };
        client::ask(socket, request, &mut |_| {})?;
    }
    Ok(())
}

/// Takes the mount from the tree of files, and lets the daemon end: what is unsent is durable.
pub(super) fn end_lazily(job: &Job, patience: Duration) {
    if let Err(error) = job.daemon.unmount(true) {
        tracing::warn!(%error, "the home stays mounted");
    }
    let until = Instant::now() + patience;
    let socket = job.daemon.control_socket();
    while client::is_served(&socket) && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
}

/// Whoever logged in once more brought what the daemon may get in by.
pub(super) fn hand(job: &Job, request: Request, events: &mpsc::Sender<Event>) {
    if let Err(failure) = client::ask(&job.daemon.control_socket(), request, &mut |_| {}) {
        tracing::warn!(%failure, "the daemon was not told of a password or a ticket");
    }
    drop(events.send(Event::Handed));
}

fn unexpected(answer: Result<Reply, Failure>) -> Failure {
    answer.map_or_else(|failure| failure, |reply| client::unexpected(&reply))
}
