//! The order of steps: in which phase each is due, so that nothing is in its way.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Kind, NodeId, Place};

use super::forest::{Forest, Tree};
use super::{Action, Phase, Step};

/// The steps of a plan, by when they are due.
pub(super) struct Order<'a> {
    forest: &'a Forest,
    /// One after the other.
    moves: Vec<Step>,
    /// Base rows change their directories.
    rekey: Vec<Step>,
    /// Files that stand where a directory is to be.
    make_room: Vec<Step>,
    /// New directories, by depth.
    make: BTreeMap<usize, Vec<Step>>,
    /// Files and symlinks, and all that depends on nothing.
    leaves: Vec<Step>,
    /// Removed directories, by depth.
    remove: BTreeMap<usize, Vec<Step>>,
    /// Directories' permission bits, last since they could forbid the rest.
    attributes: Vec<Step>,
}

/// The directory that stands at `place` on the server once the action is done, and did not before.
pub(super) fn directory_to_make(forest: &Forest, place: &Place, action: &Action) -> Option<NodeId> {
    match action {
        Action::MakeDir { node } => Some(*node),
        Action::Remove { .. } => {
            let local = forest.at(place)?.local.as_ref()?;
            let mut base_places = forest.places(Tree::Base, local.node);
            let elsewhere = base_places.any(|other| other != place);
            (local.version.kind == Kind::Dir && !elsewhere).then_some(local.node)
        }
        _ => None,
    }
}

impl<'a> Order<'a> {
    /// Begins with moves, which are done in this order.
    pub(super) fn new(forest: &'a Forest, moves: Vec<Step>) -> Self {
        Self {
            forest,
            moves,
            rekey: Vec::new(),
            make_room: Vec::new(),
            make: BTreeMap::new(),
            leaves: Vec::new(),
            remove: BTreeMap::new(),
            attributes: Vec::new(),
        }
    }

    /// Adds a step where it belongs.
    pub(super) fn push(&mut self, step: Step) {
        let forest = self.forest;
        let parent = step.place.parent;
        let is_dir = |node: &NodeId| forest.dir_place(Tree::Local, *node).is_some();
        match &step.action {
            Action::Unite { .. } | Action::Split { .. } | Action::Moved { .. } => {
                self.rekey.push(step);
            }
            Action::MakeDir { .. } => {
                let depth = forest.depth(Tree::Local, parent);
                self.make.entry(depth).or_default().push(step);
            }
            Action::Remove { .. } => match directory_to_make(forest, &step.place, &step.action) {
                Some(node) => {
                    let action = Action::MakeDir { node };
                    let make = Step {
                        action,
                        ..step.clone()
                    };
                    self.push(make);
                    self.make_room.push(step);
                }
                None => self.leaves.push(step),
            },
            Action::RemoveDir => {
                let depth = forest.depth(Tree::Base, parent);
                self.remove.entry(depth).or_default().push(step);
            }
            Action::DropDir { .. } => {
                let depth = forest.depth(Tree::Local, parent);
                self.remove.entry(depth).or_default().push(step);
            }
            Action::SetAttr { node, .. } | Action::TakeAttrs { node, .. } if is_dir(node) => {
                self.attributes.push(step);
            }
            _ => self.leaves.push(step),
        }
    }

    /// All phases, none of them empty.
    pub(super) fn phases(self) -> Vec<Phase> {
        let is_dir = |node: NodeId| self.forest.dir_place(Tree::Local, node).is_some();
        group_moves(self.moves, is_dir)
            .into_iter()
            .chain([self.rekey, self.make_room])
            .chain(self.make.into_values())
            .chain([self.leaves])
            .chain(self.remove.into_values().rev())
            .chain([self.attributes])
            .filter(|steps| !steps.is_empty())
            .map(|mut steps| {
                steps.sort_by(|a, b| a.place.cmp(&b.place));
                Phase { steps }
            })
            .collect()
    }
}

/// Joins neighbouring moves of files that have no place in common: they do not depend on each other. A
/// directory's move changes paths, so it stays alone.
fn group_moves(moves: Vec<Step>, is_dir: impl Fn(NodeId) -> bool) -> Vec<Vec<Step>> {
    let mut groups: Vec<Vec<Step>> = Vec::new();
    let mut taken = BTreeSet::new();
    let mut open = false;
    for step in moves {
        let (from, joins) = match &step.action {
            Action::Move { node, from, .. } => (from.clone(), !is_dir(*node)),
            _ => (step.place.clone(), false),
        };
        let free = !taken.contains(&from) && !taken.contains(&step.place);
        if !(open && joins && free) {
            groups.push(Vec::new());
            taken.clear();
        }
        open = joins;
        taken.extend([from, step.place.clone()]);
        if let Some(group) = groups.last_mut() {
            group.push(step);
        }
    }
    groups
}
