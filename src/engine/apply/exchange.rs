//! A database and what belongs to it are taken over in one transaction, so that nobody opens the database of one
//! moment with the log of another.

use std::collections::BTreeMap;

use super::super::shared::Shared;
use super::keep_content::{finish, keep_content};
use super::leaf::{Left, drop_in, refresh_in, tell};
use super::{Applied, adopt_in, current};
use crate::replica::{LocalBackup, ReplicaError, Tx};
use crate::sync::{Action, Step};
use crate::tree::{NodeId, Time};

/// Does all of the steps, which take over, adopt or drop files, or none of them. `seqs` has the `data_seq` of each
/// node when the plan was made.
pub(in crate::engine) fn exchange(
    shared: &Shared,
    steps: &[&Step],
    seqs: &BTreeMap<NodeId, u64>,
) -> Result<Applied, ReplicaError> {
    let seq = |node: &NodeId| seqs.get(node).copied().unwrap_or(0);
    let mut backups = Vec::new();
    for step in steps {
        backups.push(match &step.action {
            Action::Refresh { node, keep, .. } | Action::Drop { node, keep } => {
                keep_content(shared, &step.place, *node, seq(node), *keep)?
            }
            _ => None,
        });
    }
    let now = shared.now();
    let mut left = Vec::new();
    let applied = shared.replica.update(|tx| {
        for step in steps {
            if !is_possible(shared, tx, step, seq)? {
                return Ok(Applied::Stale);
            }
        }
        for (step, backup) in steps.iter().zip(&backups) {
            take(shared, tx, step, seq, backup.as_ref(), now, &mut left)?;
        }
        Ok::<_, ReplicaError>(Applied::Done(None))
    })?;
    for backup in &backups {
        finish(shared, &applied, backup.as_ref())?;
    }
    tell(shared, &applied, &left);
    if applied != Applied::Stale {
        for step in steps {
            shared.entry_changed(&step.place);
            shared.node_changed(step.place.parent);
        }
    }
    Ok(applied)
}

/// Whether the replica is still as the plan saw it.
fn is_possible(
    shared: &Shared,
    tx: &Tx<'_>,
    step: &Step,
    seq: impl Fn(&NodeId) -> u64,
) -> Result<bool, ReplicaError> {
    let place = &step.place;
    Ok(match &step.action {
        Action::Refresh { node, .. } | Action::Drop { node, .. } => {
            current(shared, tx, place, *node, seq(node))?.is_some()
        }
        Action::Adopt { .. } => {
            tx.child(place.parent, &place.name)?.is_none() && tx.node(place.parent)?.is_some()
        }
        _ => false,
    })
}

fn take(
    shared: &Shared,
    tx: &mut Tx<'_>,
    step: &Step,
    seq: impl Fn(&NodeId) -> u64,
    backup: Option<&LocalBackup>,
    now: Time,
    left: &mut Vec<Left>,
) -> Result<Applied, ReplicaError> {
    let place = &step.place;
    match &step.action {
        Action::Refresh { node, version, .. } => {
            let what = (place, *node, seq(node));
            refresh_in(shared, tx, what, version, backup, now, left)
        }
        Action::Drop { node, .. } => {
            drop_in(shared, tx, (place, *node, seq(node)), backup, now, left)
        }
        Action::Adopt { version, revive } => adopt_in(shared, tx, place, version, *revive, now),
        _ => Ok(Applied::Stale),
    }
}
