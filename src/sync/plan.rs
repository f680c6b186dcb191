//! The whole of a plan: moves, then what every place needs, in an order in which nothing is in the way.
//!
//! Directories are made before and removed after what is in them. What cannot be done yet is left out: the
//! plan that follows, when this one was carried out, has it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Kind, NodeId, Place};

use super::database::{Verdict, judge};
use super::decide::{Context, Decision, Fate, decide};
use super::forest::{Forest, Tree};
use super::moves::{Moves, moves, out_of_staging};
use super::order::{Order, directory_to_make};
use super::{Action, Input, Plan, Policy, Step, Triple, Why};

/// Plans what makes both sides equal. A settled input plans nothing.
pub fn plan(input: &Input, policy: &Policy) -> Plan {
    let mut forest = Forest::new(input);
    let moves = moves(&mut forest);
    Planner {
        forest: &forest,
        moves: &moves,
        databases: &input.databases,
        policy,
        fates: RefCell::new(BTreeMap::new()),
    }
    .plan()
}

struct Planner<'a> {
    forest: &'a Forest,
    moves: &'a Moves,
    databases: &'a BTreeMap<Place, Place>,
    policy: &'a Policy,
    fates: RefCell<BTreeMap<NodeId, Fate>>,
}

/// What came of looking at all places.
#[derive(Default)]
struct Found {
    acts: BTreeMap<Place, (Action, Why)>,
    waiting: BTreeSet<Place>,
    needs_content: BTreeSet<NodeId>,
    obstructed: Vec<Place>,
}

impl Planner<'_> {
    fn plan(&self) -> Plan {
        let mut found = self.look();
        let mut splits = self.splits();
        let frozen = self.rekeyed(&found, &splits);
        // What is rekeyed changes the places right below it, so that those are rekeyed by later plans.
        splits
            .retain(|_, from| !frozen.contains(&from.parent) && !self.moves.touched.contains(from));
        found.acts.retain(|place, (action, _)| match action {
            Action::Unite { .. } => !frozen.contains(&place.parent),
            _ => !self.depends_on(place, &frozen),
        });
        one_change_of_each_node(&mut found.acts);
        let happened = self.moves.happened.iter();
        let undisturbed = happened.filter(|step| !self.is_rekeyed(step, &splits, &found));
        let made = self.made(&found);
        let mut order = Order::new(self.forest, self.moves.steps.clone());
        undisturbed.cloned().for_each(|step| order.push(step));
        for (node, from) in splits {
            if let Some(place) = self.forest.only_place(Tree::Local, node) {
                order.push(Step {
                    place: place.clone(),
                    action: Action::Split { node, from },
                    why: Why::LocalChange,
                });
            }
        }
        for (place, (action, why)) in found.acts {
            let (place, action) = out_of_staging(place, action, self.forest);
            if self.is_possible(&place, &action, &made) {
                order.push(Step { place, action, why });
            }
        }
        let held = self.moves.held_steps.iter();
        let unfrozen = held.filter(|step| !self.is_inside(&step.place, &frozen));
        unfrozen.cloned().for_each(|step| order.push(step));
        found.needs_content.extend(&self.moves.needs_content);
        found.waiting.extend(self.moves.waiting.iter().cloned());
        Plan {
            phases: order.phases(),
            waiting: found.waiting.into_iter().collect(),
            needs_content: found.needs_content.into_iter().collect(),
            obstructed: found.obstructed,
        }
    }

    /// Decides about every place that no move holds.
    fn look(&self) -> Found {
        let mut found = Found::default();
        for (place, triple) in self.forest.triples() {
            if self.moves.held.contains_key(place) {
                continue;
            }
            match self.decide(place, triple) {
                Decision::Settled | Decision::Later => {}
                Decision::Act(action, _)
                    if self.moves.touched.contains(place)
                        && !matches!(action, Action::Publish { .. }) => {}
                Decision::Act(action, why) => {
                    found.acts.insert(place.clone(), (action, why));
                }
                Decision::Busy => {
                    found.waiting.insert(place.clone());
                }
                Decision::NeedsContent(node) => {
                    found.needs_content.insert(node);
                }
                Decision::Obstructed => found.obstructed.push(place.clone()),
            }
        }
        self.unite_databases(&mut found);
        for (node, dir) in &self.moves.behind {
            if self.fate(*dir) == Fate::Gone
                && let Some(place) = self.forest.only_place(Tree::Local, *node)
            {
                let remove = (Action::RemoveDir, Why::LocalChange);
                found.acts.insert(place.clone(), remove);
            }
        }
        found
    }

    /// Decides about each database and its companions together. What moves is left alone.
    fn unite_databases(&self, found: &mut Found) {
        let mains = self.databases.values().collect::<BTreeSet<_>>();
        for main in mains {
            let places = [main.clone()].into_iter().chain(main.companions());
            let places: Vec<_> = places
                .filter(|place| self.databases.get(place) == Some(main))
                .collect();
            let moves = |place: &Place| {
                self.moves.held.contains_key(place) || self.moves.touched.contains(place)
            };
            let members = places.iter();
            let members: Vec<_> = members
                .filter_map(|place| Some((place, self.forest.at(place)?)))
                .collect();
            if members.len() < places.len() || places.iter().any(moves) {
                continue;
            }
            let verdict = judge(&members, &found.acts, self.policy);
            if verdict != Verdict::Separate {
                found.acts.retain(|place, _| !places.contains(place));
                found.waiting.retain(|place| !places.contains(place));
            }
            match verdict {
                Verdict::Separate => {}
                Verdict::Waits => {
                    found.waiting.insert(main.clone());
                }
                Verdict::Together(acts) => found.acts.extend(acts),
            }
        }
    }

    fn decide(&self, place: &Place, triple: &Triple) -> Decision {
        let local = triple.local.as_ref();
        let context = Context {
            inside: self
                .removed_dir(triple)
                .map_or(Fate::Gone, |dir| self.fate(dir)),
            shared: local.is_some_and(|local| self.forest.is_shared(local.node)),
            fetchable: local.is_some_and(|local| self.forest.is_fetchable(local)),
            lent: self.forest.is_lent(place),
        };
        decide(place, triple, &context, self.policy)
    }

    /// The directory of the base tree that is gone on one of the sides, if that is so here.
    fn removed_dir(&self, triple: &Triple) -> Option<NodeId> {
        let base = triple
            .base
            .as_ref()
            .filter(|base| base.version.kind == Kind::Dir)?;
        let here = triple
            .local
            .as_ref()
            .is_some_and(|local| local.node == base.node);
        let remote = triple.remote.as_ref();
        let there = remote.is_some_and(|remote| remote.kind == Kind::Dir);
        (here != there).then_some(base.node)
    }

    /// What will be left inside a directory that is gone on one side.
    fn fate(&self, dir: NodeId) -> Fate {
        if let Some(fate) = self.fates.borrow().get(&dir) {
            return *fate;
        }
        // Should the input ever hold a cycle, nothing is removed for it.
        self.fates.borrow_mut().insert(dir, Fate::Undecided);
        let inside = self.forest.inside(dir);
        let fate = inside
            .map(|(place, triple)| self.fate_of(place, triple))
            .max()
            .unwrap_or(Fate::Gone);
        self.fates.borrow_mut().insert(dir, fate);
        fate
    }

    fn fate_of(&self, place: &Place, triple: &Triple) -> Fate {
        if let Some(fate) = self.moves.held.get(place) {
            return *fate;
        }
        let empty_here = triple.local.is_none();
        let empty_there = triple.remote.is_none();
        match self.decide(place, triple) {
            Decision::Settled if empty_here && empty_there => Fate::Gone,
            Decision::Later | Decision::Busy | Decision::NeedsContent(_) => Fate::Undecided,
            Decision::Settled | Decision::Obstructed => Fate::Stays,
            Decision::Act(action, _) => match action {
                Action::Remove { .. } | Action::RemoveDir if empty_here => Fate::Gone,
                Action::Drop { .. } | Action::DropDir { .. } if empty_there => Fate::Gone,
                Action::Agree { entry: None } => Fate::Gone,
                _ => Fate::Stays,
            },
        }
    }

    /// All directories whose move is given up.
    fn splits(&self) -> BTreeMap<NodeId, Place> {
        let mut splits = self.moves.splits.clone();
        for (node, dir) in &self.moves.behind {
            if self.fate(*dir) == Fate::Stays
                && let Some(from) = self.forest.only_place(Tree::Base, *node)
            {
                splits.insert(*node, from.clone());
            }
        }
        splits
    }

    /// The directories whose places inside this plan renames, or knows nothing about.
    fn rekeyed(&self, found: &Found, splits: &BTreeMap<NodeId, Place>) -> BTreeSet<NodeId> {
        let united = found.acts.values().flat_map(|(action, _)| match action {
            Action::Unite { from, node } => vec![*from, *node],
            _ => Vec::new(),
        });
        let moved = self
            .moves
            .happened
            .iter()
            .filter_map(|step| match &step.action {
                Action::Moved { node, .. } => Some(*node),
                Action::Agree { entry } => entry.as_ref().map(|entry| entry.node),
                _ => None,
            });
        splits.keys().copied().chain(united).chain(moved).collect()
    }

    /// Whether this plan changes how one of the ends of a move that has happened is called.
    fn is_rekeyed(&self, step: &Step, splits: &BTreeMap<NodeId, Place>, found: &Found) -> bool {
        let ends = match &step.action {
            Action::Moved { from, .. } => [from.parent, step.place.parent],
            _ => [step.place.parent; 2],
        };
        let united = |dir: NodeId| {
            found.acts.values().any(|(action, _)| match action {
                Action::Unite { from, node } => *from == dir || *node == dir,
                _ => false,
            })
        };
        ends.into_iter()
            .any(|dir| splits.contains_key(&dir) || united(dir))
    }

    /// Whether the place, or the place that its local node has in the base tree, is inside one of `dirs`.
    fn depends_on(&self, place: &Place, dirs: &BTreeSet<NodeId>) -> bool {
        let local = self
            .forest
            .at(place)
            .and_then(|triple| triple.local.as_ref());
        let origins = local.map(|local| self.forest.places(Tree::Base, local.node));
        let mut places = origins.into_iter().flatten().chain([place]);
        !dirs.is_empty() && places.any(|place| self.is_inside(place, dirs))
    }

    fn is_inside(&self, place: &Place, dirs: &BTreeSet<NodeId>) -> bool {
        [Tree::Base, Tree::Local].into_iter().any(|tree| {
            let mut ancestors = self.forest.ancestors(tree, place.parent);
            ancestors.any(|dir| dirs.contains(&dir))
        })
    }

    /// The directories that this plan makes on the server.
    fn made(&self, found: &Found) -> BTreeSet<NodeId> {
        let wanted = found.acts.iter().filter_map(|(place, (action, _))| {
            let node = directory_to_make(self.forest, place, action)?;
            Some((self.forest.depth(Tree::Local, node), place, node))
        });
        let mut made = BTreeSet::new();
        for (_, place, node) in wanted.collect::<BTreeSet<_>>() {
            if self.is_there(place.parent, &made) {
                made.insert(node);
            }
        }
        made
    }

    fn is_there(&self, dir: NodeId, made: &BTreeSet<NodeId>) -> bool {
        made.contains(&dir) || self.forest.server_has(dir)
    }

    /// Whether the directory that the action works in is there, or is made before.
    fn is_possible(&self, place: &Place, action: &Action, made: &BTreeSet<NodeId>) -> bool {
        match action {
            Action::MakeDir { .. } | Action::Publish { .. } => self.is_there(place.parent, made),
            Action::SetAttr { .. } | Action::Remove { .. } | Action::RemoveDir => {
                self.forest.server_has(place.parent)
            }
            Action::Adopt { .. } => self.forest.local_has(place.parent),
            _ => true,
        }
    }
}

/// Where a step changes a node of the replica, what its other places (hard links) need is seen by the next
/// plan: it would act on a state that is no more.
fn one_change_of_each_node(acts: &mut BTreeMap<Place, (Action, Why)>) {
    let mut changed = BTreeMap::new();
    for (place, (action, _)) in acts.iter() {
        if let Action::Refresh { node, .. }
        | Action::TakeAttrs { node, .. }
        | Action::Compare { node, .. } = action
        {
            changed.entry(*node).or_insert_with(|| place.clone());
        }
    }
    acts.retain(|place, (action, _)| {
        let only = node_of(action).and_then(|node| changed.get(&node));
        only.is_none_or(|only| only == place)
    });
}

/// The node whose state the action sends, replaces or takes as agreed.
fn node_of(action: &Action) -> Option<NodeId> {
    match action {
        Action::Publish { node, .. }
        | Action::SetAttr { node, .. }
        | Action::Refresh { node, .. }
        | Action::TakeAttrs { node, .. }
        | Action::Drop { node, .. }
        | Action::Compare { node, .. } => Some(*node),
        Action::Agree { entry } => entry.as_ref().map(|entry| entry.node),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
