//! `roamhome demo`: the whole thing at work, on one machine and without any set-up. What is shown is what is run:
//! each command of the transcript goes to a shell as it stands there, and what it says is checked.
//!
//! The server lives in this process, so the two mounts end with it. However the demo ends (done, failed,
//! interrupted), no mount, daemon or file of it is left behind.

use std::{io, path::Path, pin::pin};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
};

use super::preflight;
use crate::control::{Code, Failure};

mod stage;
mod story;

use stage::Stage;

/// Shows it; `keep` leaves both machines mounted until a person has seen enough.
pub(super) fn run(keep: bool) -> Result<(), Failure> {
    preflight::check_fuse(Path::new("/dev/fuse"))?;
    let uid = rustix::process::geteuid().as_raw();
    preflight::check_helper(uid, &std::env::var_os("PATH").unwrap_or_default())?;
    let runtime = Runtime::new().map_err(|error| failed("its threads", &error))?;
    let outcome = runtime.block_on(perform(keep));
    // Somebody may still wait for a line of standard input.
    runtime.shutdown_background();
    outcome
}

async fn perform(keep: bool) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new().map_err(|error| failed("its signals", &error))?;
    let mut stage = Stage::new()
        .await
        .map_err(|error| failed("its server", &error))?;
    // Not to be interrupted: a mount that has begun is waited for, since only then can it be taken away.
    let opened = story::open(&mut stage).await;
    let outcome = match opened {
        Ok(()) => {
            let shown = async {
                story::tell(&stage).await?;
                if keep {
                    story::invite(&stage);
                    enter().await;
                    Ok(())
                } else {
                    story::close(&stage).await
                }
            };
            tokio::select! {
                biased;
                () = interrupts.next() => match keep {
                    true => Ok(()),
                    false => Err(Failure::new(Code::General, "the demo was interrupted")),
                },
                outcome = pin!(shown) => outcome,
            }
        }
        Err(failure) => Err(failure),
    };
    let cleared = stage.clear();
    outcome.and(cleared)
}

fn failed(what: &str, error: &io::Error) -> Failure {
    let message = format!("the demo cannot start {what}: {error}");
    Failure::new(Code::General, message)
}

/// Waits for a line from a person. Where nobody can say one, only a signal ends the demo.
async fn enter() {
    let line = spawn_blocking(|| io::stdin().read_line(&mut String::new()));
    if !matches!(line.await, Ok(Ok(1..))) {
        std::future::pending().await
    }
}

/// What ends the demo early. Heard from the beginning, so that none is lost.
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
