//! What happened is folded into base: never what was planned.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::apply::Applied;
use super::super::base;
use super::super::deeds;
use super::super::gather::{self, Gathered};
use super::super::push::Pushed;
use super::super::scan::ScanError;
use super::super::shared::{Shared, lock};
use super::super::status::Tally;
use super::{Ended, RoundStats};
use crate::replica::{Observation, ReplicaError, Tx};
use crate::sync::{self, Action, Fold, Outcome, Removals, Step, Why};
use crate::tree::{BaseEntry, Kind, NodeId, Place, Time, Version};

/// What the end of a step means to the index.
struct Settled<'a> {
    step: &'a Step,
    folds: Vec<Fold>,
    note: Note,
    /// The outcome is known, so what was intended is history.
    known: bool,
    /// The node that was sent, and its `data_seq` then.
    sent: Option<(NodeId, u64)>,
    /// The step was done; what stands at its place on the server since, if it is told.
    done: Option<Option<Version>>,
}

/// What becomes of the problem shown at a step's place.
enum Note {
    Stays,
    Solved,
    Failed(String),
}

/// Folds what happened, in one transaction. Errors of one path become problems of that path; the loss of
/// the link is reported after what was done before it is folded.
pub(super) fn settle(
    shared: &Shared,
    gathered: &Gathered,
    ended: Vec<(Cow<'_, Step>, Result<Ended, ScanError>)>,
    stats: &mut RoundStats,
) -> Result<(), ScanError> {
    let mut lost = Ok(());
    let mut all = Vec::new();
    let (steps, ended): (Vec<_>, Vec<_>) = ended.into_iter().unzip();
    for (step, ended) in steps.iter().zip(ended) {
        match judge(step, ended, stats) {
            Ok(settled) => all.push(settled),
            Err(error) => lost = Err(error),
        }
    }
    let (seen_at, now) = (shared.server_now(), shared.now());
    let mut overtaken = Vec::new();
    let mut tally = *lock(&shared.tally);
    shared.replica.update(|tx| {
        for settled in all {
            let Settled {
                step,
                folds,
                note,
                known,
                sent,
                done,
            } = settled;
            if let Some(version) = done {
                tally.add(step, version.as_ref());
                for deed in deeds::of_step(shared, tx, step, version.as_ref())? {
                    deeds::add(shared, tx, deed)?;
                }
            }
            let own = sent.map(|sent| BTreeMap::from([sent]));
            let seqs = own.as_ref().unwrap_or(&gathered.seqs);
            for fold in folds {
                apply_fold(tx, seqs, fold, seen_at, now)?;
            }
            if let Some(sent) = sent
                && is_overtaken(tx, sent)?
            {
                // What differs now was written since.
                tx.clear_dirty(&step.place)?;
                tx.mark_dirty(step.place.clone(), now)?;
                overtaken.push(step.place.clone());
            }
            if known {
                tx.intend(step.place.clone(), None)?;
            }
            take_note(tx, &step.place, note, now)?;
        }
        Ok::<_, ReplicaError>(())
    })?;
    lock(&shared.overtaken).extend(overtaken);
    *lock(&shared.tally) = tally;
    lost
}

impl Tally {
    /// A step was done; `version` is what stands there since.
    fn add(&mut self, step: &Step, version: Option<&Version>) {
        let Some(version) = version.filter(|version| version.kind == Kind::File) else {
            return;
        };
        match &step.action {
            Action::Publish { .. } => {
                self.sent += 1;
                self.sent_bytes += version.size;
            }
            Action::Compare { .. } | Action::Agree { .. } => self.equal += 1,
            _ => {}
        }
    }
}

/// Whether programs went on writing to the node after it was sent.
fn is_overtaken(tx: &Tx<'_>, (id, seq): (NodeId, u64)) -> Result<bool, ReplicaError> {
    let node = tx.node(id)?;
    Ok(node.is_some_and(|node| node.data_changed && node.data_seq != seq))
}

/// Counts a step and tells what its end means; an error is the loss of the link.
fn judge<'a>(
    step: &'a Step,
    ended: Result<Ended, ScanError>,
    stats: &mut RoundStats,
) -> Result<Settled<'a>, ScanError> {
    let unfolded = |note| {
        Ok(Settled {
            step,
            folds: Vec::new(),
            note,
            known: false,
            sent: None,
            done: None,
        })
    };
    let mut sent = None;
    let outcome = match ended {
        Ok(Ended::Server(Pushed::Done(version))) => Outcome::Done {
            version,
            node: None,
        },
        Ok(Ended::Server(Pushed::Sent { node, seq, version })) => {
            sent = Some((node, seq));
            Outcome::Done {
                version: Some(version),
                node: None,
            }
        }
        Ok(Ended::Server(Pushed::Saw(seen))) => Outcome::Saw(seen),
        Ok(Ended::Server(Pushed::SawTarget(seen))) => Outcome::SawTarget(seen),
        Ok(Ended::Server(Pushed::Stale) | Ended::Replica(Applied::Stale)) => Outcome::Failed,
        Ok(Ended::Replica(Applied::Done(_))) => {
            // The replica's own steps fold in their transaction.
            tracing::debug!(?step, "applied");
            count(step, stats);
            return unfolded(Note::Solved);
        }
        Err(ScanError::Remote(error)) if error.is_link_loss() => return Err(error.into()),
        Err(error) => {
            stats.failed += 1;
            tracing::warn!(%error, place = ?step.place, "step");
            return unfolded(Note::Failed(error.to_string()));
        }
    };
    tracing::debug!(?step, ?outcome, "settled");
    let note = if matches!(outcome, Outcome::Done { .. }) {
        count(step, stats);
        Note::Solved
    } else {
        stats.failed += 1;
        Note::Stays
    };
    Ok(Settled {
        step,
        folds: sync::settle(step, &outcome),
        note,
        known: outcome != Outcome::Failed && declares(&step.action),
        sent,
        done: match outcome {
            Outcome::Done { version, .. } => Some(version),
            _ => None,
        },
    })
}

/// Whether such a step writes down what it intends.
fn declares(action: &Action) -> bool {
    matches!(
        action,
        Action::Publish { .. }
            | Action::MakeDir { .. }
            | Action::SetAttr { .. }
            | Action::Move { .. }
    )
}

fn count(step: &Step, stats: &mut RoundStats) {
    stats.done += 1;
    stats.removals += Removals::by(&step.action);
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
fn take_note(tx: &mut Tx<'_>, place: &Place, note: Note, since: Time) -> Result<(), ReplicaError> {
    match note {
        Note::Stays => Ok(()),
        Note::Solved if tx.problem(place)?.is_none() => Ok(()),
        Note::Solved => tx.set_problem(place.clone(), None),
        Note::Failed(message) => tx.note_problem(place, message, since),
    }
}

/// The node's content is agreed on at `place`, unless it was written to since the plan was made. Its base
/// entries at other places that hold another content get no node: they are still to be published, which
/// the mark of changed content no longer tells.
fn disown(
    tx: &mut Tx<'_>,
    seqs: &BTreeMap<NodeId, u64>,
    id: NodeId,
    place: &Place,
    version: &Version,
) -> Result<(), ReplicaError> {
    let Some(mut node) = tx.node(id)? else {
        return Ok(());
    };
    if !node.data_changed || seqs.get(&id) != Some(&node.data_seq) {
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

/// Changes base and observations by one fold. `seqs` has the `data_seq` of each node whose content was sent.
pub(in crate::engine) fn apply_fold(
    tx: &mut Tx<'_>,
    seqs: &BTreeMap<NodeId, u64>,
    fold: Fold,
    seen_at: Time,
    now: Time,
) -> Result<(), ReplicaError> {
    match fold {
        Fold::Disown {
            node,
            place,
            version,
        } => disown(tx, seqs, node, &place, &version),
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
