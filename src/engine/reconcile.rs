//! Passes: observe → plan → guard → execute → settle, again until nothing is left to do.
//!
//! One task runs them, so there is never more than one. Write-back is a pass that does not look at the
//! server first: what it assumes is checked by every change that it makes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::apply;
use super::deeds;
use super::execute::{self, RoundStats};
use super::gather::{self, Gathered};
use super::scan::{self, ScanError};
use super::shared::{FAULT, Shared, contained, lock};
use super::{home, intents, keep};
use crate::remote::Remote;
use crate::replica::ReplicaError;
use crate::sync::{self, Guard, Plan, Policy, Removals};
use crate::tree::{Kind, NodeId, Place};

mod ask;
mod foresee;
mod report;
mod ripe;
mod spare;

use ask::Asked;
pub use foresee::Foreseen;
pub use report::{DryRun, PassError, PassReport, Scope};
use ripe::{is_ripe, lull};

/// A pass plans again while it gets something done, but not for ever.
const ROUNDS_MAX: usize = 40;

/// The longest wait before what could not be written back is tried again.
const RETRY_LAST: Duration = Duration::from_secs(60);

/// To the task that runs passes.
pub(super) enum Request {
    /// The link came up.
    Reconnected,
    /// Run a pass and tell how it ended.
    Pass(Scope, oneshot::Sender<Result<PassReport, PassError>>),
    /// Look and plan, and change nothing.
    DryRun(oneshot::Sender<Result<DryRun, PassError>>),
}

/// Runs passes until the engine stops: when asked, when something is dirty and quiet, on reconnect, and on
/// the timer.
pub(super) async fn run(shared: Arc<Shared>, mut requests: mpsc::UnboundedReceiver<Request>) {
    let mut stopping = shared.stopping.subscribe();
    let mut next_full = Instant::now() + shared.options.reconcile_interval;
    let mut push_at: Option<Instant> = None;
    let mut dirty_since = Instant::now();
    let mut retry = shared.options.quiet_period;
    while !*stopping.borrow() {
        let push_due = async {
            match push_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let scope = tokio::select! {
            biased;
            _ = stopping.changed() => break,
            request = requests.recv() => match request {
                None => break,
                Some(Request::Reconnected) => Scope::Full { now: false, force_guard: false },
                Some(Request::DryRun(reply)) => {
                    // Who asked may be gone.
                    let _unheard = reply.send(dry_run(&shared).await);
                    continue;
                }
                Some(Request::Pass(scope, reply)) => {
                    let _unheard = reply.send(pass(&shared, scope).await);
                    continue;
                }
            },
            // Once is enough: while a push is due, the mount's operations wake nobody.
            () = shared.dirty.notified(), if push_at.is_none() => {
                dirty_since = Instant::now();
                push_at = Some(dirty_since + shared.options.quiet_period);
                continue;
            }
            () = push_due => match lull(&shared, dirty_since) {
                Some(at) => {
                    push_at = Some(at);
                    continue;
                }
                None => Scope::Push { now: false },
            },
            () = tokio::time::sleep_until(next_full) => Scope::Full { now: false, force_guard: false },
        };
        if matches!(scope, Scope::Full { .. }) {
            next_full = Instant::now() + shared.options.reconcile_interval;
        }
        push_at = None;
        if shared.online().is_none() || shared.options.only_look {
            continue;
        }
        let outcome = pass(&shared, scope).await;
        let clean = matches!(&outcome, Ok(report) if report.failed == 0);
        if let Err(error) = &outcome {
            tracing::warn!(%error, ?scope, "pass");
        }
        retry = if clean {
            shared.options.quiet_period
        } else {
            (retry * 2).min(RETRY_LAST)
        };
        let left = shared
            .replica
            .view(|view| view.dirty(1))
            .is_ok_and(|dirty| !dirty.is_empty());
        if left {
            push_at = Some(Instant::now() + retry);
        }
    }
}

/// One pass, whole. A fault of ours ends this pass, not all that would come after it.
async fn pass(shared: &Arc<Shared>, scope: Scope) -> Result<PassReport, PassError> {
    let _under_way = shared.under_way();
    let fault = || PassError::Failed(FAULT.into());
    contained(one_pass(shared, scope), fault).await
}

async fn one_pass(shared: &Arc<Shared>, scope: Scope) -> Result<PassReport, PassError> {
    let remote = connection(shared)?;
    let full = matches!(scope, Scope::Full { .. });
    let force = matches!(
        scope,
        Scope::Full {
            force_guard: true,
            ..
        }
    );
    let mut report = PassReport {
        id: shared.replica.update(|tx| tx.alloc_pass())?,
        full,
        ..PassReport::default()
    };
    deeds::begin(shared, report.id);
    let before = *lock(&shared.removed);
    lock(&shared.overtaken).clear();
    lock(&shared.sent_sets).clear();
    if force && !lock(&shared.guards).is_empty() {
        unite(shared, &remote).await?;
    }
    let home_guards = home::recheck(shared, &remote)
        .await
        .map_err(ScanError::from)?;
    if home_guards.is_empty() {
        // It is the home again: what this pass needs of it may be fetched.
        lock(&shared.guards).retain(|guard| !matches!(guard, Guard::Identity(_)));
        intents::resolve(shared, &remote).await?;
        run_rounds(shared, &remote, scope, force, &mut report).await?;
    } else {
        report.guards = home_guards;
    }
    lock(&shared.guards).clone_from(&report.guards);
    if report.guards.is_empty() {
        forget_removed(shared, before, full, force);
    }
    report.at = shared.now();
    report.overtaken = std::mem::take(&mut *lock(&shared.overtaken)).len() as u64;
    if full && report.guards.is_empty() {
        keep::tidy(shared, &remote).await.map_err(ScanError::from)?;
        super::linker::refresh_space(shared, &remote).await;
    }
    if report.guards.is_empty() && (full || report.conflicts > 0) {
        keep::conflicts::look(shared, &remote).await?;
    }
    *lock(&shared.last_pass) = Some(report.clone());
    shared.pins_wanted.notify_one();
    Ok(report)
}

/// Begins to count anew what is removed from a side, once a pass that could have found more did not, or somebody said
/// yes to it.
fn forget_removed(shared: &Shared, before: Removals, full: bool, force: bool) {
    let mut removed = lock(&shared.removed);
    if force || removed.server == before.server {
        removed.server = 0;
    }
    if force || (full && removed.replica == before.replica) {
        removed.replica = 0;
    }
}

async fn run_rounds(
    shared: &Arc<Shared>,
    remote: &Remote,
    scope: Scope,
    force: bool,
    report: &mut PassReport,
) -> Result<(), PassError> {
    let mut look = report.full;
    if look {
        execute::recheck_racy(shared, remote).await?;
    }
    let mut announced = false;
    for _ in 0..ROUNDS_MAX {
        if look {
            report.directories += scan::walk(shared).await?;
        }
        let (gathered, mut plan) = planned(shared, scope)?;
        report.waiting = plan.waiting.len() as u64;
        apply::note_obstructed(shared, &plan.obstructed)?;
        let Asked {
            mut questions,
            removals,
        } = ask::questions(shared, &plan)?;
        if force {
            questions.clear();
        }
        if !questions.is_empty() {
            // What is new is shown first: then it can be told whether what is gone was renamed.
            plan = sync::adoptions(&plan);
            let told = !report.full || !questions.iter().all(ask::is_removal_here);
            if told || plan.is_empty() {
                report.guards = questions;
                return Ok(());
            }
        }
        if plan.phases.is_empty() && plan.needs_content.is_empty() {
            // What failed before is settled, or it would be planned again.
            report.failed = 0;
            return Ok(());
        }
        if !announced && execute::changes_the_server(&plan) {
            home::announce(shared, remote, &plan)
                .await
                .map_err(ScanError::from)?;
            announced = true;
        }
        let stats = execute::run(shared, remote, &gathered, &plan).await?;
        add(report, &stats);
        *lock(&shared.removed) += removals.min(stats.removals);
        // New directories hold what was never looked at.
        look = report.full && stats.new_directories > 0;
        if stats.done == 0 {
            report.guards = questions;
            return Ok(());
        }
    }
    Ok(())
}

fn add(report: &mut PassReport, stats: &RoundStats) {
    report.done += stats.done;
    report.failed = stats.failed;
    report.conflicts += stats.conflicts;
}

/// Looks and plans, and changes nothing on either side.
async fn dry_run(shared: &Arc<Shared>) -> Result<DryRun, PassError> {
    let remote = connection(shared)?;
    lock(&shared.overtaken).clear();
    lock(&shared.sent_sets).clear();
    let mut guards = home::recheck(shared, &remote)
        .await
        .map_err(ScanError::from)?;
    if !guards.is_empty() {
        return Ok(DryRun {
            guards,
            ..DryRun::default()
        });
    }
    scan::walk(shared).await?;
    let (mut gathered, mut plan) = planned(shared, Scope::Push { now: true })?;
    // What is in directories that both sides have is seen only when they count as agreed on.
    while shared.options.only_look && foresee::unite(shared, &remote, &gathered).await? {
        scan::walk(shared).await?;
        (gathered, plan) = planned(shared, Scope::Push { now: true })?;
    }
    guards.extend(ask::questions(shared, &plan)?.questions);
    let lines = shared.replica.view(|view| {
        let mut lines = Vec::new();
        for step in plan.phases.iter().flat_map(|phase| &phase.steps) {
            lines.push(execute::describe(view, step)?);
        }
        Ok::<_, ReplicaError>(lines)
    })?;
    Ok(DryRun {
        lines,
        guards,
        foreseen: Foreseen::of(&gathered.input, &plan),
    })
}

fn connection(shared: &Shared) -> Result<Remote, PassError> {
    let remote = shared.online();
    remote.ok_or_else(|| PassError::Offline(shared.link.borrow().state.why_not()))
}

/// Gathers what differs and plans.
fn planned(shared: &Shared, scope: Scope) -> Result<(Gathered, Plan), ReplicaError> {
    let now = shared.now();
    let patient = matches!(
        scope,
        Scope::Push { now: false } | Scope::Full { now: false, .. }
    );
    clear_undone(shared)?;
    let gathered = shared.replica.view(|view| {
        let mut places = Vec::new();
        let overtaken = lock(&shared.overtaken);
        let sent = lock(&shared.sent_sets);
        for (place, since) in view.dirty(usize::MAX)? {
            let ripe = !patient || is_ripe(shared, view, &place, since, now)?;
            if ripe && !overtaken.contains(&place) && !sent.contains(&place) {
                places.push(place);
            }
        }
        places.extend(view.observations()?.into_iter().map(|(place, _)| place));
        gather::gather(view, &shared.replica, places)
    })?;
    let policy = Policy {
        prefer: shared.options.prefer,
        clock: *lock(&shared.clock),
    };
    let plan = spare::spare(shared, sync::plan(&gathered.input, &policy))?;
    Ok((gathered, plan))
}

/// Forgets the marks of places that agree with base again, made and removed, renamed back and forth, and the
/// problems of places where nothing is left to do. Those of a directory end with its next listing.
fn clear_undone(shared: &Shared) -> Result<(), ReplicaError> {
    shared.replica.update(|tx| {
        for (place, _) in tx.dirty(usize::MAX)? {
            if gather::is_clean(tx, &place)? {
                tx.clear_dirty(&place)?;
            }
        }
        for (place, _) in tx.problems()? {
            let is_dir = tx
                .base(&place)?
                .is_some_and(|base| base.version.kind == Kind::Dir);
            let settled = gather::is_clean(tx, &place)? && tx.observation(&place)?.is_none();
            if settled && !is_dir {
                tx.set_problem(place, None)?;
            }
        }
        Ok(())
    })
}

/// A person accepted the server's directory as it is: base is forgotten, so that both sides are united and
/// nothing is deleted on either; then the home counts as ours.
async fn unite(shared: &Arc<Shared>, remote: &Remote) -> Result<(), PassError> {
    if home::recheck(shared, remote)
        .await
        .map_err(ScanError::from)?
        .is_empty()
    {
        return Ok(());
    }
    let now = shared.now();
    let mut todo = vec![NodeId::ROOT];
    while let Some(dir) = todo.pop() {
        shared.replica.update(|tx| {
            for (name, base) in tx.base_children(dir)? {
                let place = Place::new(dir, name);
                if base.version.kind == Kind::Dir {
                    todo.push(base.node);
                }
                tx.set_base(place.clone(), None)?;
                tx.mark_dirty(place, now)?;
            }
            for (name, _) in tx.observations_in(dir)? {
                tx.observe(Place::new(dir, name), None)?;
            }
            for (name, _) in tx.intents_in(dir)? {
                tx.intend(Place::new(dir, name), None)?;
            }
            Ok::<_, ReplicaError>(())
        })?;
    }
    home::accept(shared, remote)
        .await
        .map_err(ScanError::from)?;
    // Nothing was written there before, not even the probe.
    let clock = home::measure_clock(shared, remote).await;
    *lock(&shared.clock) = clock.map_err(ScanError::from)?;
    Ok(())
}
