//! Carries a plan out: phase after phase, the steps of a phase side by side, each outcome folded as soon as
//! it is known. One bad path is a problem of that path; only the loss of the link ends a round.

use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::apply::{self, Applied};
use super::base;
use super::fetch;
use super::gather::{self, Gathered};
use super::push::{self, Outgoing, Pushed};
use super::scan::ScanError;
use super::shared::Shared;
use crate::remote::Remote;
use crate::replica::{Observation, Problem, ReplicaError, Tx, View};
use crate::sync::{self, Action, Fold, Outcome, Plan, Step, Why};
use crate::tree::{Kind, NodeId, Place, Version};

/// What one round of a pass did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoundStats {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) conflicts: u64,
    /// Directories that the server has and that were never looked at.
    pub(super) new_directories: u64,
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
        fetch::hydrate(shared, *node, false).await?;
        stats.done += 1;
    }
    for phase in &plan.phases {
        let mut steps = phase.steps.iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < shared.options.transfers_at_once.max(1) {
                let Some(step) = steps.next() else { break };
                running.push(async move {
                    match resolve(shared, remote, gathered, step).await {
                        Ok(step) => (step, run_step(shared, remote, gathered, step).await),
                        Err(error) => (step, Err(error)),
                    }
                });
            }
            let Some((step, ended)) = running.next().await else {
                break;
            };
            settle(shared, gathered, step, ended, &mut stats)?;
        }
    }
    Ok(stats)
}

/// Whether any step changes the server.
pub(super) fn changes_the_server(plan: &Plan) -> bool {
    plan.phases
        .iter()
        .flat_map(|phase| &phase.steps)
        .any(|step| {
            let action = match &step.action {
                Action::Compare { otherwise, .. } => &otherwise.action,
                action => action,
            };
            matches!(
                action,
                Action::Move { .. }
                    | Action::MakeDir { .. }
                    | Action::Publish { .. }
                    | Action::SetAttr { .. }
                    | Action::Remove { .. }
                    | Action::RemoveDir
            )
        })
}

/// What a comparison leads to: agreement is the step itself, a difference is the step for that case.
async fn resolve<'a>(
    shared: &Arc<Shared>,
    remote: &Remote,
    gathered: &Gathered,
    step: &'a Step,
) -> Result<&'a Step, ScanError> {
    let Action::Compare {
        node,
        version,
        otherwise,
    } = &step.action
    else {
        return Ok(step);
    };
    let seq = gathered.seqs.get(node).copied().unwrap_or(0);
    let equal = compare(shared, remote, &step.place, *node, seq, version).await?;
    Ok(if equal { step } else { otherwise })
}

async fn run_step(
    shared: &Arc<Shared>,
    remote: &Remote,
    gathered: &Gathered,
    step: &Step,
) -> Result<Ended, ScanError> {
    let place = &step.place;
    let seq = |node: &NodeId| gathered.seqs.get(node).copied().unwrap_or(0);
    Ok(match &step.action {
        Action::Move {
            node: _,
            from,
            expected,
            replaces,
        } => Ended::Server(
            push::move_node(shared, remote, from, place, expected, replaces.as_ref()).await?,
        ),
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
        Action::Split { node, from } => Ended::Replica(apply::split(shared, from, *node)?),
        Action::Adopt { version, revive } => {
            Ended::Replica(apply::adopt(shared, place, version, *revive)?)
        }
        Action::Refresh {
            node,
            version,
            keep,
        } => Ended::Replica(apply::refresh(
            shared,
            place,
            *node,
            seq(node),
            version,
            *keep,
        )?),
        Action::TakeAttrs { node, version } => {
            Ended::Replica(apply::take_attrs(shared, place, *node, seq(node), version)?)
        }
        Action::Drop { node, keep } => {
            Ended::Replica(apply::drop_file(shared, place, *node, seq(node), *keep)?)
        }
        Action::DropDir { node } => Ended::Replica(apply::drop_dir(shared, place, *node)?),
        Action::Agree { entry } => {
            let version = entry.as_ref().map(|entry| entry.version.clone());
            Ended::Server(Pushed::Done(version))
        }
        // Resolved before: both are equal.
        Action::Compare { version, .. } => Ended::Server(Pushed::Done(Some(version.clone()))),
        Action::Unite { from, node } => Ended::Replica(apply::unite(shared, place, *from, *node)?),
    })
}

/// Whether the server's content equals the node's. Changed under way counts as different: what is done
/// then checks for itself.
async fn compare(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
    id: NodeId,
    seq: u64,
    version: &Version,
) -> Result<bool, ScanError> {
    let Some(path) = push::server_path(shared, place)? else {
        return Ok(false);
    };
    let session = remote.bulk().as_ref();
    let Some(fetched) = fetch::fetch(shared, session, &path, version.size).await? else {
        return Ok(false);
    };
    if !fetched.version.same_content(version) {
        return Ok(false);
    }
    let equal = version.size == 0 || shared.replica.content().equals(id, &fetched.file)?;
    let node = shared.replica.view(|view| view.node(id))?;
    Ok(equal && node.is_some_and(|node| node.data_seq == seq))
}

/// Folds what happened. Errors of one path become problems of that path.
fn settle(
    shared: &Shared,
    gathered: &Gathered,
    step: &Step,
    ended: Result<Ended, ScanError>,
    stats: &mut RoundStats,
) -> Result<(), ScanError> {
    let outcome = match ended {
        Ok(Ended::Server(Pushed::Done(version))) => Outcome::Done {
            version,
            node: None,
        },
        Ok(Ended::Server(Pushed::Saw(seen))) => Outcome::Saw(seen),
        Ok(Ended::Server(Pushed::SawTarget(seen))) => Outcome::SawTarget(seen),
        Ok(Ended::Server(Pushed::Stale) | Ended::Replica(Applied::Stale)) => Outcome::Failed,
        Ok(Ended::Replica(Applied::Done(_))) => {
            // The replica's own steps fold in their transaction.
            tracing::debug!(?step, "applied");
            count(step, stats);
            return note(shared, step, None);
        }
        Err(ScanError::Remote(error)) if error.is_link_loss() => return Err(error.into()),
        Err(error) => {
            stats.failed += 1;
            tracing::warn!(%error, place = ?step.place, "step");
            return note(shared, step, Some(error.to_string()));
        }
    };
    let done = matches!(outcome, Outcome::Done { .. });
    if done {
        count(step, stats);
    } else {
        stats.failed += 1;
    }
    tracing::debug!(?step, ?outcome, "settled");
    let folds = sync::settle(step, &outcome);
    let (seen_at, now) = (shared.server_now(), shared.now());
    shared.replica.update(|tx| {
        if done {
            sent(tx, gathered, step, &outcome)?;
        }
        for fold in folds {
            apply_fold(tx, fold, seen_at, now)?;
        }
        Ok::<_, ReplicaError>(())
    })?;
    if done {
        note(shared, step, None)
    } else {
        Ok(())
    }
}

fn count(step: &Step, stats: &mut RoundStats) {
    stats.done += 1;
    if matches!(
        step.why,
        Why::ConflictLocalWins | Why::ConflictRemoteWins | Why::DirectoryStays
    ) {
        stats.conflicts += 1;
    }
    let directory = match &step.action {
        Action::Adopt { version, .. } => version.kind == Kind::Dir,
        Action::Agree { entry: Some(entry) } => entry.version.kind == Kind::Dir,
        Action::Unite { .. } => true,
        _ => false,
    };
    stats.new_directories += u64::from(directory);
}

/// Notes or clears the problem of a place.
fn note(shared: &Shared, step: &Step, message: Option<String>) -> Result<(), ScanError> {
    let since = shared.now();
    shared.replica.update(|tx| {
        let problem = match message {
            Some(message) => {
                let path = tx.local_path_of(&step.place)?;
                let path = path.or(tx.base_path_of(&step.place)?).unwrap_or_default();
                Some(Problem {
                    path,
                    message,
                    since,
                })
            }
            None => None,
        };
        if problem.is_some() || tx.problem(&step.place)?.is_some() {
            tx.set_problem(step.place.clone(), problem)?;
        }
        Ok::<_, ReplicaError>(())
    })?;
    Ok(())
}

/// The node's content is on the server now, if nothing was written since and all its places are.
fn sent(
    tx: &mut Tx<'_>,
    gathered: &Gathered,
    step: &Step,
    outcome: &Outcome,
) -> Result<(), ReplicaError> {
    let (id, version) = match (&step.action, outcome) {
        (
            Action::Publish { node, .. } | Action::Compare { node, .. },
            Outcome::Done {
                version: Some(version),
                ..
            },
        ) => (*node, version),
        (Action::Agree { entry: Some(entry) }, Outcome::Done { .. }) => {
            (entry.node, &entry.version)
        }
        _ => return Ok(()),
    };
    let Some(mut node) = tx.node(id)? else {
        return Ok(());
    };
    if !node.data_changed || gathered.seqs.get(&id) != Some(&node.data_seq) {
        return Ok(());
    }
    for place in tx.places(id)? {
        let on_server = place == step.place
            || tx
                .base(&place)?
                .is_some_and(|base| base.node == id && base.version.same_content(version));
        if !on_server {
            return Ok(());
        }
    }
    node.data_changed = false;
    node.hash = version.hash;
    tx.put_node(node)?;
    for place in tx.places(id)? {
        if gather::is_clean(tx, &place)? {
            tx.clear_dirty(&place)?;
        }
    }
    Ok(())
}

fn apply_fold(
    tx: &mut Tx<'_>,
    fold: Fold,
    seen_at: crate::tree::Time,
    now: crate::tree::Time,
) -> Result<(), ReplicaError> {
    match fold {
        Fold::SetBase { place, entry } => base::set(tx, &place, entry, now),
        Fold::MoveBase { from, to } => base::move_entry(tx, &from, &to, now),
        Fold::Rekey { place, from, to } => base::rekey(tx, &place, from, to, now),
        Fold::Observe { place, version } => {
            let as_base = match (tx.base(&place)?, &version) {
                (Some(base), Some(version)) => base.version.same(version),
                (None, None) => true,
                _ => false,
            };
            let seen = (!as_base).then_some(Observation { version, seen_at });
            tx.observe(place, seen)
        }
        Fold::Forget { place } => tx.observe(place, None),
        Fold::Clean { place } => {
            if gather::is_clean(tx, &place)? {
                tx.clear_dirty(&place)
            } else {
                tx.mark_dirty(place, now)
            }
        }
    }
}

/// A line about a step for people.
pub(super) fn describe(view: &View<'_>, step: &Step) -> Result<String, ReplicaError> {
    let path = match view.local_path_of(&step.place)? {
        Some(path) => path,
        None => view.base_path_of(&step.place)?.unwrap_or_default(),
    };
    let what = match &step.action {
        Action::Move { from, .. } => {
            let from = view.base_path_of(from)?.unwrap_or_default();
            return Ok(format!(
                "server   rename {from} to {path}{}",
                reason(step.why)
            ));
        }
        Action::Split { .. } => "replica  move the children one by one into",
        Action::Unite { .. } => "replica  merge the server's directory into",
        Action::MakeDir { .. } => "server   make directory",
        Action::Publish { replaces: None, .. } => "server   create",
        Action::Publish {
            replaces: Some(_), ..
        } => "server   replace",
        Action::SetAttr { .. } => "server   set attributes of",
        Action::Remove { .. } => "server   remove",
        Action::RemoveDir => "server   remove directory",
        Action::Adopt { .. } => "replica  take over",
        Action::Refresh { .. } => "replica  update",
        Action::TakeAttrs { .. } => "replica  set attributes of",
        Action::Drop { .. } => "replica  remove",
        Action::DropDir { .. } => "replica  remove directory",
        Action::Agree { .. } => "both     agree on",
        Action::Compare { .. } => "both     compare",
    };
    Ok(format!("{what} {path}{}", reason(step.why)))
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::LocalChange | Why::RemoteChange | Why::BothAgree => "",
        Why::ConflictLocalWins => {
            " (conflict: this machine's version is newer, the server's becomes a backup)"
        }
        Why::ConflictRemoteWins => {
            " (conflict: the server's version is newer, this machine's becomes a backup)"
        }
        Why::ChangeBeatsRemoval => " (removed on one side, changed on the other: the change stays)",
        Why::DirectoryStays => " (a directory and a file met: the directory stays)",
    }
}
