//! What happened, as changes of the base tree and of the observations.
//!
//! Only what happened is folded, never what was planned: a step that failed folds nothing, and one whose
//! precondition did not hold is a new observation, which the next plan takes into account.

use crate::tree::{BaseEntry, NodeId, Place, Version};

use super::{Action, Step};

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As planned.
    Done {
        /// What stands on the server now, where the step made or changed something there.
        version: Option<Version>,
        /// The node that the step made: by `Adopt`, or the stand-in directory of a `Split`.
        node: Option<NodeId>,
    },
    /// Not done: the server holds this instead of what was expected at the step's place (of a `Move`: at
    /// `from`; of a `RemoveDir` that is not empty: the directory, and the caller lists it).
    Saw(Option<Version>),
    /// Not done: the server holds this at the place where a `Move` goes.
    SawTarget(Option<Version>),
    /// Not done, and nothing was learned.
    Failed,
}

/// One change of what the replica knows about the server. To be applied in order, with the local change of
/// the same step in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fold {
    /// The base tree's entry at `place`. If a directory stood there in the base tree and another node or
    /// nothing takes its place, all base entries and observations inside it are forgotten.
    SetBase {
        /// Where.
        place: Place,
        /// What; `None`: nothing.
        entry: Option<BaseEntry>,
    },
    /// The node's content is that of `version`, and agreed on at `place`, so that its mark of changed content
    /// can be cleared. Its base entries elsewhere (hard links) of which [`surely_same_data`] does not hold
    /// get [`NodeId::NONE`]: they are still to be published, and the mark no longer tells.
    ///
    /// [`surely_same_data`]: super::surely_same_data
    Disown {
        /// The node.
        node: NodeId,
        /// The place where its content is agreed on.
        place: Place,
        /// The version there.
        version: Version,
    },
    /// The base tree's entry at `from`, and an observation there, go to `to` and replace what was there, as
    /// in `SetBase`.
    MoveBase {
        /// Where it stood.
        from: Place,
        /// Where it stands.
        to: Place,
    },
    /// All observations inside the directory, at any depth, are void: they were made at another path.
    ForgetInside {
        /// The directory.
        dir: NodeId,
    },
    /// The directory at `place` in the base tree is another node from now on: its base children and the
    /// observations in it follow, and win over what the new node had.
    Rekey {
        /// Where the directory stands in the base tree.
        place: Place,
        /// Its node until now.
        from: NodeId,
        /// Its node from now on.
        to: NodeId,
    },
    /// This is on the server. An observation equal to the base need not be kept.
    Observe {
        /// Where.
        place: Place,
        /// What; `None`: nothing.
        version: Option<Version>,
    },
    /// Drop the observation: the base entry tells what is on the server.
    Forget {
        /// Where.
        place: Place,
    },
    /// Compute again whether the place is dirty.
    Clean {
        /// Where.
        place: Place,
    },
}

/// What to fold after `step` ended with `outcome`. Of a `Compare`, `Done` means that both were equal; if
/// not, settle the step in `otherwise` with its own outcome.
pub fn settle(step: &Step, outcome: &Outcome) -> Vec<Fold> {
    match outcome {
        Outcome::Done { version, node } => done(step, version.as_ref(), *node),
        Outcome::Saw(version) => match &step.action {
            Action::Move { from, .. } => vec![observe(from, version)],
            _ => vec![observe(&step.place, version)],
        },
        Outcome::SawTarget(version) => vec![observe(&step.place, version)],
        Outcome::Failed => Vec::new(),
    }
}

fn observe(place: &Place, version: &Option<Version>) -> Fold {
    Fold::Observe {
        place: place.clone(),
        version: version.clone(),
    }
}

fn clean(place: &Place) -> Fold {
    Fold::Clean {
        place: place.clone(),
    }
}

/// Both sides have `entry` at `place`.
fn agreed(place: &Place, entry: Option<BaseEntry>) -> Vec<Fold> {
    let disown = entry.as_ref().map(|entry| Fold::Disown {
        node: entry.node,
        place: place.clone(),
        version: entry.version.clone(),
    });
    let set = Fold::SetBase {
        place: place.clone(),
        entry,
    };
    let forget = Fold::Forget {
        place: place.clone(),
    };
    [set, forget]
        .into_iter()
        .chain(disown)
        .chain([clean(place)])
        .collect()
}

/// The server shows `version` at `place`; without one nothing is known for sure, so the next plan looks.
fn agreed_if_known(place: &Place, node: Option<NodeId>, version: Option<&Version>) -> Vec<Fold> {
    match (node, version) {
        (Some(node), Some(version)) => agreed(
            place,
            Some(BaseEntry {
                node,
                version: version.clone(),
            }),
        ),
        _ => Vec::new(),
    }
}

fn moved(from: &Place, to: &Place) -> [Fold; 3] {
    let go = Fold::MoveBase {
        from: from.clone(),
        to: to.clone(),
    };
    [go, clean(from), clean(to)]
}

fn done(step: &Step, version: Option<&Version>, made: Option<NodeId>) -> Vec<Fold> {
    let place = &step.place;
    match &step.action {
        Action::Move { from, .. } => moved(from, place).to_vec(),
        Action::Moved {
            node,
            from,
            left,
            version,
        } => moved(from, place)
            .into_iter()
            .chain([
                observe(from, left),
                observe(place, &Some(version.clone())),
                Fold::ForgetInside { dir: *node },
            ])
            .collect(),
        Action::Split { node, from } => made.map_or_else(Vec::new, |made| {
            vec![
                Fold::Rekey {
                    place: from.clone(),
                    from: *node,
                    to: made,
                },
                clean(from),
                clean(place),
            ]
        }),
        Action::Unite { from, node } => vec![
            Fold::Rekey {
                place: place.clone(),
                from: *from,
                to: *node,
            },
            clean(place),
        ],
        Action::MakeDir { node } | Action::Publish { node, .. } | Action::SetAttr { node, .. } => {
            agreed_if_known(place, Some(*node), version)
        }
        Action::Remove { .. } | Action::RemoveDir => agreed(place, None),
        Action::Adopt { version, .. } => agreed_if_known(place, made, Some(version)),
        Action::Refresh { node, version, .. } | Action::TakeAttrs { node, version } => {
            agreed_if_known(place, Some(*node), Some(version))
        }
        // The server's state did not change, so neither does the base: the next plan sees a place that is
        // empty here, and agrees or adopts.
        Action::Drop { .. } | Action::DropDir { .. } => vec![clean(place)],
        Action::Agree { entry } => agreed(place, entry.clone()),
        Action::Compare { node, version, .. } => agreed_if_known(place, Some(*node), Some(version)),
    }
}

#[cfg(test)]
mod tests;
