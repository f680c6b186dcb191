//! Local moves, before everything else: a node whose place in the local tree is not its place on the server.
//!
//! A move is planned when the server still has at the old place what was agreed on, and nothing of value
//! stands in the way. Moves free places for other moves, so this goes on until nothing more can move; a
//! cycle is broken by way of the staging directory. What remains is either put off, because the rest of
//! this plan makes its way free, or is no move at all: a file is then removed and created, a directory is
//! split, so that what is inside moves one by one.

use std::collections::{BTreeMap, BTreeSet};

mod staging;
mod way;

use crate::tree::{Kind, NodeId, Place, Version};

use super::decide::Fate;
use super::forest::{Forest, Tree};
use super::{Action, Keep, Step, Why};
use staging::staged_name;
use way::Way;

pub(super) use staging::out_of_staging;
pub use staging::staged_node;

/// What the pass over the moves found.
pub(super) struct Moves {
    /// To be done one after the other.
    pub(super) steps: Vec<Step>,
    /// Where moves start and end. Only a `Publish` may follow there, since it finds out by itself if the move
    /// failed; anything else waits until the base tree shows that it did not.
    pub(super) touched: BTreeSet<Place>,
    /// Places that this plan does not touch otherwise, and what that means for the directory they are in.
    pub(super) held: BTreeMap<Place, Fate>,
    /// Steps for held places.
    pub(super) held_steps: Vec<Step>,
    /// Moves that have happened on the server already: the base tree takes note.
    pub(super) happened: Vec<Step>,
    /// Directories that cannot move as a whole, with their places in the base tree.
    pub(super) splits: BTreeMap<NodeId, Place>,
    /// Directories that wait until the directory in their way (in the base tree) is gone.
    pub(super) behind: BTreeMap<NodeId, NodeId>,
    /// Nodes whose content has to be fetched first.
    pub(super) needs_content: BTreeSet<NodeId>,
    /// Places that wait for a program.
    pub(super) waiting: BTreeSet<Place>,
}

/// Plans the moves and applies them to `forest`.
pub(super) fn moves(forest: &mut Forest) -> Moves {
    let moved: BTreeSet<_> = forest
        .local_nodes()
        .filter(|node| is_moved(forest, *node))
        .collect();
    let mut pass = Pass {
        stood: stood(forest, &moved),
        moved,
        forest,
        found: Moves {
            steps: Vec::new(),
            touched: BTreeSet::new(),
            held: BTreeMap::new(),
            held_steps: Vec::new(),
            happened: Vec::new(),
            splits: BTreeMap::new(),
            behind: BTreeMap::new(),
            needs_content: BTreeSet::new(),
            waiting: BTreeSet::new(),
        },
    };
    pass.recover_the_staged();
    pass.note_what_has_moved();
    while pass.move_what_is_free() || pass.break_a_cycle() || pass.give_up_the_blocked() {}
    pass.put_off_the_rest();
    pass.found
}

/// Whether the node has one place in each tree, and not the same.
fn is_moved(forest: &Forest, node: NodeId) -> bool {
    match ends(forest, node) {
        Some((from, to)) => from != to,
        None => false,
    }
}

fn ends(forest: &Forest, node: NodeId) -> Option<(&Place, &Place)> {
    let from = forest.only_place(Tree::Base, node)?;
    let to = forest.only_place(Tree::Local, node)?;
    Some((from, to))
}

/// What stands in the base tree where these nodes go.
fn stood(forest: &Forest, moved: &BTreeSet<NodeId>) -> BTreeMap<Place, Version> {
    let targets = moved.iter().filter_map(|node| ends(forest, *node));
    let stood = targets.filter_map(|(_, to)| {
        let base = forest.at(to)?.base.as_ref()?;
        Some((to.clone(), base.version.clone()))
    });
    stood.collect()
}

struct Pass<'a> {
    /// What stood where moves go, before any of them.
    stood: BTreeMap<Place, Version>,
    /// Nodes whose move is neither planned nor given up.
    moved: BTreeSet<NodeId>,
    forest: &'a mut Forest,
    found: Moves,
}

impl Pass<'_> {
    /// Before any move is planned: another could take the place that a node has left.
    fn note_what_has_moved(&mut self) {
        for node in self.moved.clone() {
            if let Some((from, to)) = self.ends(node)
                && self.has_moved(&from, &to)
            {
                self.moved.remove(&node);
                self.take_note(node, &from, &to);
            }
        }
    }

    fn move_what_is_free(&mut self) -> bool {
        let mut progress = false;
        for node in self.moved.clone() {
            if let Way::Free { replaces } = self.way(node)
                && let Some((from, to)) = self.ends(node)
            {
                self.moved.remove(&node);
                self.plan_move(node, &from, &to, replaces);
                progress = true;
            }
        }
        progress
    }

    /// Moves one node of a cycle to the staging directory.
    fn break_a_cycle(&mut self) -> bool {
        let Some(node) = self.find_cycle() else {
            return false;
        };
        let (Some((from, _)), Some(name)) = (self.ends(node), staged_name(node)) else {
            return false;
        };
        self.plan_move(node, &from, &Place::new(NodeId::STAGING, name), None);
        true
    }

    /// A node on a cycle of moves that wait for each other, and not yet in the staging directory.
    fn find_cycle(&self) -> Option<NodeId> {
        let mut seen = BTreeSet::new();
        for start in &self.moved {
            let mut path = Vec::new();
            let mut next = Some(*start);
            while let Some(node) = next.filter(|node| seen.insert(*node)) {
                path.push(node);
                next = self.waits_for(node);
            }
            let closed = next.and_then(|node| path.iter().position(|other| *other == node));
            let cycle = closed.map_or(&[][..], |start| &path[start..]);
            let on_cycle = cycle.iter().copied().find(|node| !self.is_staged(*node));
            if on_cycle.is_some() {
                return on_cycle;
            }
        }
        None
    }

    fn waits_for(&self, node: NodeId) -> Option<NodeId> {
        match self.way(node) {
            Way::After(other) => Some(other),
            _ => None,
        }
    }

    fn is_staged(&self, node: NodeId) -> bool {
        let from = self.forest.only_place(Tree::Base, node);
        from.is_none_or(|from| from.parent == NodeId::STAGING)
    }

    /// What cannot move at all is no move any more: others may find their way free then.
    fn give_up_the_blocked(&mut self) -> bool {
        let mut progress = false;
        for node in self.moved.clone() {
            if !matches!(self.way(node), Way::Blocked) {
                continue;
            }
            let Some((from, to)) = self.ends(node) else {
                continue;
            };
            self.moved.remove(&node);
            progress = true;
            if self.has_moved(&from, &to) {
                self.take_note(node, &from, &to);
            } else if self.is_dir(&to) {
                self.hold(&from, &to);
                self.found.splits.insert(node, from);
            } else if let Some(step) = self.update_in_place(&from, &to) {
                self.hold(&from, &to);
                self.found.held_steps.extend(step);
            }
        }
        progress
    }

    fn put_off_the_rest(&mut self) {
        for node in std::mem::take(&mut self.moved) {
            let Some((from, to)) = self.ends(node) else {
                continue;
            };
            match self.way(node) {
                Way::BehindLeaf => self.hold_from(&from),
                Way::BehindDir(dir) if self.is_dir(&to) => {
                    self.hold(&from, &to);
                    self.found.behind.insert(node, dir);
                }
                Way::BehindDir(_) => self.hold_from(&from),
                Way::Needs(other) => {
                    self.hold(&from, &to);
                    self.found.needs_content.insert(other);
                }
                _ => self.hold(&from, &to),
            }
        }
    }

    fn ends(&self, node: NodeId) -> Option<(Place, Place)> {
        ends(self.forest, node).map(|(from, to)| (from.clone(), to.clone()))
    }

    fn is_dir(&self, to: &Place) -> bool {
        let local = self.forest.at(to).and_then(|triple| triple.local.as_ref());
        local.is_some_and(|local| local.version.kind == Kind::Dir)
    }

    fn hold_from(&mut self, from: &Place) {
        let fate = self.found.held.entry(from.clone());
        fate.or_insert(Fate::Undecided);
    }

    fn hold(&mut self, from: &Place, to: &Place) {
        self.hold_from(from);
        self.found.held.insert(to.clone(), Fate::Stays);
    }

    fn plan_move(&mut self, node: NodeId, from: &Place, to: &Place, replaces: Option<Version>) {
        let Some(expected) = self
            .forest
            .at(from)
            .and_then(|triple| triple.remote.clone())
        else {
            return;
        };
        let mut alike = self.stood.get(to).into_iter().chain(&replaces);
        let alike = alike.any(|other| expected.looks_like(other));
        let target = self.forest.at(to);
        if replaces.is_none() && target.is_some_and(|target| target.base.is_some()) {
            self.found.steps.push(Step {
                place: to.clone(),
                action: Action::Agree { entry: None },
                why: Why::BothAgree,
            });
        }
        self.found.steps.push(Step {
            place: to.clone(),
            action: Action::Move {
                node,
                from: from.clone(),
                expected,
                replaces,
                alike,
            },
            why: Why::LocalChange,
        });
        self.found.touched.extend([from.clone(), to.clone()]);
        self.forest.move_base(from, to);
    }

    /// The server's file changed at the old place and the node's content here did not: the node takes the
    /// change over, and moves in a later plan. `None` if that is not the case, or if something else stands at
    /// the old place here, which the server's change then concerns.
    fn update_in_place(&mut self, from: &Place, to: &Place) -> Option<Option<Step>> {
        let local = self.forest.at(to)?.local.as_ref()?;
        let source = self.forest.at(from)?;
        let (base, remote) = (source.base.as_ref()?, source.remote.as_ref()?);
        if source.local.is_some()
            || remote.kind != local.version.kind
            || base.version.same(remote)
            || !self.forest.server_has(from.parent)
            || self.forest.is_content_changed(from, local)
        {
            return None;
        }
        if local.busy {
            self.found.waiting.insert(to.clone());
            return Some(None);
        }
        let (node, version) = (local.node, remote.clone());
        let action = if base.version.same_content(remote) {
            Action::TakeAttrs { node, version }
        } else {
            Action::Refresh {
                node,
                version,
                // It may be we who replaced it there, by another file that stood at the old place.
                keep: Keep::Backup,
            }
        };
        Some(Some(Step {
            place: from.clone(),
            action,
            why: Why::RemoteChange,
        }))
    }
}
