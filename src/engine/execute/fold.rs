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
use crate::tree::{Kind, Time};

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

fn apply_fold(tx: &mut Tx<'_>, fold: Fold, seen_at: Time, now: Time) -> Result<(), ReplicaError> {
    match fold {
        Fold::SetBase { place, entry } => base::set(tx, &place, entry),
        Fold::MoveBase { from, to } => base::move_entry(tx, &from, &to),
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
