//! What happened is folded into base: never what was planned.

use super::super::apply::Applied;
use super::super::base;
use super::super::gather::{self, Gathered};
use super::super::push::Pushed;
use super::super::scan::ScanError;
use super::super::shared::Shared;
use super::{Ended, RoundStats};
use crate::replica::{Observation, Problem, ReplicaError, Tx};
use crate::sync::{self, Action, Fold, Outcome, Step, Why};
use crate::tree::{BaseEntry, Kind, NodeId, Place, Time, Version};

/// Folds what happened. Errors of one path become problems of that path.
pub(super) fn settle(
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
        for fold in folds {
            apply_fold(tx, gathered, fold, seen_at, now)?;
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

/// The node's content is agreed on at `place`, unless it was written to since the plan was made. Its base
/// entries at other places that hold another content get no node: they are still to be published, which
/// the mark of changed content no longer tells.
fn disown(
    tx: &mut Tx<'_>,
    gathered: &Gathered,
    id: NodeId,
    place: &Place,
    version: &Version,
) -> Result<(), ReplicaError> {
    let Some(mut node) = tx.node(id)? else {
        return Ok(());
    };
    if !node.data_changed || gathered.seqs.get(&id) != Some(&node.data_seq) {
        return Ok(());
    }
    node.data_changed = false;
    node.hash = version.hash;
    tx.put_node(node)?;
    for other in tx.base_places(id)? {
        let Some(base) = tx.base(&other)?.filter(|_| other != *place) else {
            continue;
        };
        if !sync::surely_same_data(&base.version, version) {
            tx.set_base(
                other,
                Some(BaseEntry {
                    node: NodeId::NONE,
                    ..base
                }),
            )?;
        }
    }
    Ok(())
}

fn apply_fold(
    tx: &mut Tx<'_>,
    gathered: &Gathered,
    fold: Fold,
    seen_at: Time,
    now: Time,
) -> Result<(), ReplicaError> {
    match fold {
        Fold::Disown {
            node,
            place,
            version,
        } => disown(tx, gathered, node, &place, &version),
        Fold::SetBase { place, entry } => base::set(tx, &place, entry, now),
        Fold::MoveBase { from, to } => base::move_entry(tx, &from, &to, now),
        Fold::ForgetInside { dir } => base::forget_observations(tx, dir),
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
