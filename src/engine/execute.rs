//! Carries a plan out: phase after phase, the steps of a phase side by side, each outcome folded as soon as
//! it is known. One bad path is a problem of that path; only the loss of the link ends a round.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::apply::{self, Applied};
use super::fetch;
use super::gather::Gathered;
use super::intents::Undecided;
use super::push::{self, Going, Outgoing, Pushed};
use super::scan::{self, ScanError};
use super::shared::Shared;
use crate::remote::{Remote, RemoteError};
use crate::replica::{ReplicaError, View};
use crate::sync::{Action, Plan, Removals, Step};
use crate::tree::{Hash, NodeId, Place, Version};

mod describe;
mod fold;
mod racy;
mod set;

pub(super) use describe::describe;
pub(super) use fold::apply_fold;
use fold::settle;
pub(super) use racy::recheck_racy;
use set::{Job, ends_of, jobs, run_set};

/// Steps whose outcomes are folded in one transaction at most: the mount waits for it.
const SETTLED_AT_ONCE: usize = 32;

/// What one round of a pass did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoundStats {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) conflicts: u64,
    /// Directories that the server has and that were never looked at.
    pub(super) new_directories: u64,
    /// What is gone, renames included.
    pub(super) removals: Removals,
}

/// How one step ended.
enum Ended {
    Server(Pushed),
    Replica(Applied),
}

/// Carries out `plan`.
pub(super) async fn run(
    shared: &Arc<Shared>,
    remote: &Remote,
    gathered: &Gathered,
    plan: &Plan,
) -> Result<RoundStats, ScanError> {
    let mut stats = RoundStats::default();
    for node in &plan.needs_content {
        match fetch::hydrate(shared, *node, false).await {
            Ok(()) => stats.done += 1,
            Err(ScanError::Remote(error)) if !error.is_link_loss() => {
                stats.failed += 1;
                look_again(shared, *node, &error).await?;
            }
            Err(error) => return Err(error),
        }
    }
    for phase in &plan.phases {
        // What earlier phases left.
        let undecided = shared.replica.view(Undecided::now)?;
        let mut jobs = jobs(&gathered.input, &phase.steps).into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < shared.options.transfers_at_once.max(1) {
                let Some(job) = jobs.next() else { break };
                running.push(run_job(shared, remote, gathered, &undecided, job));
            }
            let Some(first) = running.next().await else {
                break;
            };
            let mut ended = first;
            while ended.len() < SETTLED_AT_ONCE
                && let Some(Some(more)) = running.next().now_or_never()
            {
                ended.extend(more);
            }
            settle(shared, gathered, ended, &mut stats)?;
        }
    }
    Ok(stats)
}

async fn run_job<'a>(
    shared: &Arc<Shared>,
    remote: &Remote,
    gathered: &Gathered,
    undecided: &Undecided,
    job: Job<'a>,
) -> Vec<(Cow<'a, Step>, Result<Ended, ScanError>)> {
    let concerned = |view: &View<'_>| undecided.concern(view, job.steps());
    let put_off = match shared.replica.view(concerned) {
        Ok(false) => None,
        Ok(true) => Some(Ok(Applied::Stale)),
        Err(error) => Some(Err(error)),
    };
    if let Some(end) = put_off {
        return ends_of(job.steps().iter().copied().map(Cow::Borrowed), end);
    }
    match job {
        Job::Step(step) => vec![match resolve(shared, remote, gathered, step).await {
            Ok(step) => {
                let ended = run_step(shared, remote, gathered, &step).await;
                (step, ended)
            }
            Err(error) => (Cow::Borrowed(step), Err(error)),
        }],
        Job::Set(main, steps) => run_set(shared, remote, gathered, main, steps).await,
    }
}

/// Content that a plan needs cannot be had: what stands there now decides the next plan.
async fn look_again(
    shared: &Arc<Shared>,
    node: NodeId,
    error: &RemoteError,
) -> Result<(), ScanError> {
    apply::note_problem(shared, node, &error.to_string());
    let places = shared
        .replica
        .view::<_, ReplicaError>(|view| view.base_places(node))?;
    for place in places {
        match scan::observe(shared, place.parent, false).await {
            Err(ScanError::Remote(error)) if !error.is_link_loss() => {
                apply::note_problem(shared, place.parent, &error.to_string());
            }
            observed => observed?,
        }
    }
    Ok(())
}

/// Whether any step changes the server.
pub(super) fn changes_the_server(plan: &Plan) -> bool {
    plan.steps().any(|step| {
        let action = match &step.action {
            Action::Compare { otherwise, .. } => &otherwise.action,
            action => action,
        };
        action.is_on_server()
    })
}

/// What a comparison leads to: agreement is the step itself, a difference is the step for that case.
async fn resolve<'a>(
    shared: &Arc<Shared>,
    remote: &Remote,
    gathered: &Gathered,
    step: &'a Step,
) -> Result<Cow<'a, Step>, ScanError> {
    let Action::Compare {
        node,
        version,
        otherwise,
    } = &step.action
    else {
        return Ok(Cow::Borrowed(step));
    };
    let seq = gathered.seqs.get(node).copied().unwrap_or(0);
    let Some(hash) = compare(shared, remote, &step.place, *node, seq, version).await? else {
        return Ok(Cow::Borrowed(otherwise));
    };
    // What was read tells more of it than the listing did.
    let version = Version {
        hash,
        ..version.clone()
    };
    Ok(Cow::Owned(Step {
        action: Action::Compare {
            node: *node,
            version,
            otherwise: otherwise.clone(),
        },
        ..step.clone()
    }))
}

/// Whether the step makes sense only while its directory is in the base tree: an earlier step may have
/// failed to bring it there.
fn needs_base_directory(action: &Action) -> bool {
    !matches!(
        action,
        Action::Drop { .. }
            | Action::DropDir { .. }
            | Action::Split { .. }
            | Action::Unite { .. }
            | Action::Agree { entry: None }
    )
}

async fn run_step(
    shared: &Arc<Shared>,
    remote: &Remote,
    gathered: &Gathered,
    step: &Step,
) -> Result<Ended, ScanError> {
    let place = &step.place;
    let homeless =
        needs_base_directory(&step.action) && push::server_path(shared, place)?.is_none();
    if homeless {
        return Ok(Ended::Server(Pushed::Stale));
    }
    let seq = |node: &NodeId| gathered.seqs.get(node).copied().unwrap_or(0);
    Ok(match &step.action {
        Action::Moved { node, from, .. } => Ended::Server(
            match shared.replica.view(|view| view.is_in_base(from, *node))? {
                true => Pushed::Done(None),
                false => Pushed::Stale,
            },
        ),
        Action::Move {
            node,
            from,
            expected,
            replaces,
            alike,
        } => {
            let going = Going {
                node: *node,
                from,
                to: place,
                expected,
                replaces: replaces.as_ref(),
                alike: *alike,
            };
            Ended::Server(push::move_node(shared, remote, &going).await?)
        }
        Action::MakeDir { node } => {
            Ended::Server(push::make_dir(shared, remote, place, *node).await?)
        }
        Action::Publish {
            node,
            replaces,
            keep,
        } => {
            let out = Outgoing {
                place,
                node: *node,
                seq: seq(node),
                replaces: replaces.as_ref(),
                keep: *keep,
            };
            Ended::Server(push::publish(shared, remote, &out).await?)
        }
        Action::SetAttr { node, expected } => {
            Ended::Server(push::set_attr(shared, remote, place, *node, expected).await?)
        }
        Action::Remove { expected, keep } => {
            Ended::Server(push::remove(shared, remote, place, expected, *keep).await?)
        }
        Action::RemoveDir => Ended::Server(push::remove_dir(shared, remote, place).await?),
        Action::Agree { entry } => {
            let version = entry.as_ref().map(|entry| entry.version.clone());
            Ended::Server(Pushed::Done(version))
        }
        // Resolved before: both are equal.
        Action::Compare { version, .. } => Ended::Server(Pushed::Done(Some(version.clone()))),
        Action::Split { .. }
        | Action::Adopt { .. }
        | Action::Refresh { .. }
        | Action::TakeAttrs { .. }
        | Action::Drop { .. }
        | Action::DropDir { .. }
        | Action::Unite { .. } => Ended::Replica(apply_step(shared, gathered, step)?),
    })
}

/// The steps that change the replica alone.
fn apply_step(shared: &Shared, gathered: &Gathered, step: &Step) -> Result<Applied, ReplicaError> {
    let place = &step.place;
    let seq = |node: &NodeId| gathered.seqs.get(node).copied().unwrap_or(0);
    match &step.action {
        Action::Split { node, from } => apply::split(shared, from, *node),
        Action::Adopt { version, revive } => apply::adopt(shared, place, version, *revive),
        Action::Refresh {
            node,
            version,
            keep,
        } => apply::refresh(shared, place, *node, seq(node), version, *keep),
        Action::TakeAttrs { node, version } => {
            apply::take_attrs(shared, place, *node, seq(node), version)
        }
        Action::Drop { node, keep } => apply::drop_file(shared, place, *node, seq(node), *keep),
        Action::DropDir { node } => apply::drop_dir(shared, place, *node),
        Action::Unite { from, node } => apply::unite(shared, place, *from, *node),
        // Every other action is the server's.
        _ => Ok(Applied::Stale),
    }
}

/// The hash of the server's content if it equals the node's, as far as it is known. Changed under way counts as
/// different: what is done then checks for itself.
async fn compare(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
    id: NodeId,
    seq: u64,
    version: &Version,
) -> Result<Option<Option<Hash>>, ScanError> {
    let Some(path) = push::server_path(shared, place)? else {
        return Ok(None);
    };
    let session = remote.bulk().as_ref();
    let Some(mut fetched) = fetch::fetch(shared, session, &path, version).await? else {
        return Ok(None);
    };
    if !fetched.version.same_content(version) {
        return Ok(None);
    }
    let equal = version.size == 0 || shared.replica.content().equals(id, &fetched.file)?;
    let node = shared.replica.view(|view| view.node(id))?;
    let node = node.filter(|node| node.data_seq == seq);
    let equal = match node {
        // Whom the kernel lets write may do so in between.
        Some(node) => equal && shared.replica.is_as_read(&node)?,
        None => false,
    };
    if equal {
        fetch::remember(shared, fetched.take_chunks());
    }
    Ok(equal.then_some(fetched.version.hash))
}
