//! Merging what was read with the server: the same passes as those of any mount, until they have nothing to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{interval, sleep};

use super::super::lifecycle::engine_options;
use super::super::link::Connector;
use super::{AdoptRequest, Adopted, Watcher, failure};
use crate::control::protocol::Progress;
use crate::control::{Code, Failure};
use crate::engine::{Connect, Engine, LinkState, PassError, PassReport, Scope};
use crate::replica::Replica;

/// How often it is told how far the sending is.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// How long to wait before the server is tried again, and how often without anything having got on.
const RETRY_AFTER: Duration = Duration::from_secs(3);
const TRIES_MAX: u32 = 10;

/// Merges. Whatever goes wrong, the same can be done again.
pub(super) fn merge(
    runtime: &Runtime,
    replica: &Arc<Replica>,
    connector: Arc<Connector>,
    request: &AdoptRequest,
    watcher: Watcher<'_>,
) -> Result<Adopted, Failure> {
    let options = engine_options(&request.access.config);
    let connector: Arc<dyn Connect> = connector;
    let engine = Engine::start(runtime.handle(), Arc::clone(replica), connector, options)
        .map_err(failure::replica)?;
    let merged = runtime.block_on(passes(&engine, replica, request, watcher));
    let outcome = merged.and_then(|()| outcome(&engine));
    engine.stop();
    outcome
}

/// Runs passes until one has nothing to do, or they get nowhere.
async fn passes(
    engine: &Engine,
    replica: &Replica,
    request: &AdoptRequest,
    watcher: Watcher<'_>,
) -> Result<(), Failure> {
    let mut tries = 0;
    let mut before = u64::MAX;
    loop {
        let ended = watched(engine, replica, watcher).await;
        let left = replica.counts().map_err(failure::replica)?.dirty_places;
        tries = if left < before { 0 } else { tries + 1 };
        before = left;
        match ended {
            Ok(report) => {
                if let Some(question) = report.guards.first() {
                    return Err(failure::guard(question).remedy(
                        "look at the server's directory. What was read is kept: `roamhome mount`, then `roamhome reconcile`, \
                         shows more and takes an answer",
                    ));
                }
                // What fails for the path's own sake, such as a name that the server refuses, is told.
                let stuck = tries >= TRIES_MAX;
                if stuck || report.done == 0 && (report.failed == 0 || tries >= 2) {
                    return Ok(());
                }
            }
            Err(PassError::Offline(_)) if tries < TRIES_MAX => {
                if let LinkState::Refused { message, remedy } = engine.link().state {
                    return Err(Failure::new(Code::ServerPath, message).remedy(remedy));
                }
                sleep(RETRY_AFTER).await;
                engine.try_again();
            }
            Err(error) => {
                let failure = failure::pass(&error);
                let target = &request.access.target;
                let message = format!(
                    "{target}: {}; {left} changes are left to send",
                    failure.message
                );
                return Err(Failure::new(failure.code, message)
                    .remedy("run the same command again: it goes on"));
            }
        }
    }
}

/// One pass, with news of it.
async fn watched(
    engine: &Engine,
    replica: &Replica,
    watcher: &mut dyn FnMut(&Progress),
) -> Result<PassReport, PassError> {
    let mut pass = std::pin::pin!(engine.pass(Scope::Full {
        now: true,
        force_guard: false,
    }));
    let mut ticks = interval(REPORT_INTERVAL);
    loop {
        tokio::select! {
            ended = &mut pass => return ended,
            _ = ticks.tick() => {
                // Only news: where it fails, the pass fails, too.
                if let Ok(counts) = replica.counts() {
                    watcher(&Progress {
                        message: "merging with the server".into(),
                        left_files: counts.unsent_files,
                        left_bytes: counts.unsent_bytes,
                    });
                }
            }
        }
    }
}

fn outcome(engine: &Engine) -> Result<Adopted, Failure> {
    let left = engine.unsent().map_err(failure::replica)?;
    let status = engine.status().map_err(failure::replica)?;
    let conflicts = engine.known_conflicts().map_err(failure::replica)?;
    let tally = engine.tally();
    let told: Vec<_> = status
        .problems
        .iter()
        .map(|problem| format!("{}: {}", problem.path, problem.message))
        .collect();
    let untold = left.places.iter().filter(|(path, _)| {
        let mut problems = status.problems.iter();
        !problems.any(|problem| problem.path == *path)
    });
    let untold = untold.map(|(path, _)| format!("{path}: not on the server yet"));
    Ok(Adopted {
        sent: tally.sent,
        sent_bytes: tally.sent_bytes,
        equal: tally.equal,
        conflicts: conflicts.iter().filter(|found| found.found_here).count() as u64,
        problems: told.iter().cloned().chain(untold).collect(),
        ..Adopted::default()
    })
}
