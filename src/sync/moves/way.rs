//! What stands between a node and its move.

use crate::tree::{Kind, NodeId, Place, Version};

use super::super::Action;
use super::super::forest::Tree;
use super::{Pass, ends};

/// What stands between a node and its move.
pub(super) enum Way {
    /// Nothing, or a version that may be replaced.
    Free { replaces: Option<Version> },
    /// Another move, which comes first.
    After(NodeId),
    /// Something that this plan takes away, or makes.
    Later,
    /// A leaf that this plan removes: the place is not held.
    BehindLeaf,
    /// A directory that this plan removes if nothing stays in it.
    BehindDir(NodeId),
    /// Nothing, but it would replace what another node needs.
    Needs(NodeId),
    /// Something that stays, or the node is no longer there.
    Blocked,
}

impl Pass<'_> {
    pub(super) fn way(&self, node: NodeId) -> Way {
        let Some((from, to)) = ends(self.forest, node) else {
            return Way::Blocked;
        };
        if !self.stands_at(from) {
            return Way::Blocked;
        }
        if self.forest.is_within(Tree::Base, to.parent, node) {
            return self.out_of_itself(node, to.parent);
        }
        if !self.forest.server_has(to.parent) {
            return self.until_parent_is_there(to.parent);
        }
        self.past_the_occupant(node, to)
    }

    /// Whether the server has at `from` what was agreed on.
    pub(super) fn stands_at(&self, from: &Place) -> bool {
        let Some(triple) = self.forest.at(from) else {
            return false;
        };
        let (Some(base), Some(remote)) = (&triple.base, &triple.remote) else {
            return false;
        };
        base.version.same_entry(remote) && self.forest.server_has(from.parent)
    }

    /// `parent` is inside `node` on the server and is not here: something between them moves out first.
    fn out_of_itself(&self, node: NodeId, parent: NodeId) -> Way {
        let between = self.forest.ancestors(Tree::Base, parent);
        let mut moving = between
            .take_while(|dir| *dir != node)
            .filter(|dir| self.moved.contains(dir));
        moving.next().map_or(Way::Later, Way::After)
    }

    /// The server does not have `parent`. Where that is because a moving node stands in its place, or in
    /// that of a directory above it, the other move comes first.
    fn until_parent_is_there(&self, parent: NodeId) -> Way {
        let missing = self
            .forest
            .ancestors(Tree::Local, parent)
            .take_while(|dir| !self.forest.server_has(*dir))
            .last();
        let place = missing.and_then(|dir| self.forest.dir_place(Tree::Local, dir));
        let occupant = place
            .and_then(|place| self.forest.at(place))
            .filter(|triple| triple.remote.is_some())
            .and_then(|triple| triple.base.as_ref());
        match occupant {
            Some(occupant) if self.moved.contains(&occupant.node) => Way::After(occupant.node),
            _ => Way::Later,
        }
    }

    fn past_the_occupant(&self, node: NodeId, to: &Place) -> Way {
        let Some(target) = self.forest.at(to) else {
            return Way::Blocked;
        };
        if self.was_left(to) {
            return Way::Later;
        }
        let Some(remote) = &target.remote else {
            return Way::Free { replaces: None };
        };
        let Some(base) = target.base.as_ref().filter(|_| self.stands_at(to)) else {
            return Way::Blocked;
        };
        let occupant = base.node;
        if occupant != node && self.moved.contains(&occupant) {
            return Way::After(occupant);
        }
        if self.found.splits.contains_key(&occupant) || self.found.held.contains_key(to) {
            return Way::Later;
        }
        if remote.kind == Kind::Dir {
            return self.once_all_moved_out(occupant);
        }
        if self.forest.is_lent(to) {
            return Way::Needs(occupant);
        }
        if self.is_dir(to) {
            return Way::BehindLeaf;
        }
        Way::Free {
            replaces: Some(remote.clone()),
        }
    }

    /// Whether the base tree still has something here that has moved on: it takes note of that first.
    fn was_left(&self, place: &Place) -> bool {
        self.found
            .happened
            .iter()
            .any(|step| matches!(&step.action, Action::Moved { from, .. } if from == place))
    }

    /// `dir` was removed here, and its place is wanted. What has yet to move out of it comes first, be it the
    /// very node that wants its place.
    fn once_all_moved_out(&self, dir: NodeId) -> Way {
        let inside = |node: &NodeId| {
            let from = self.forest.only_place(Tree::Base, *node);
            from.is_some_and(|from| self.forest.is_within(Tree::Base, from.parent, dir))
        };
        match self.moved.iter().copied().find(inside) {
            Some(node) => Way::After(node),
            None => Way::BehindDir(dir),
        }
    }
}
