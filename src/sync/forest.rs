//! Both trees as a plan sees them: the triples with all moves planned so far applied to base and server.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Kind, NodeId, Place};

use super::change::{Change, local_change};
use super::decide::holds_content_of;
use super::{DirState, Input, LocalEntry, Triple};

/// The triples and the directories, indexed by node. Base and server change as moves are planned; the local
/// tree never does.
pub(super) struct Forest {
    triples: BTreeMap<Place, Triple>,
    inside: BTreeMap<NodeId, BTreeSet<Place>>,
    dirs: BTreeMap<NodeId, DirState>,
    base_places: BTreeMap<NodeId, BTreeSet<Place>>,
    local_places: BTreeMap<NodeId, BTreeSet<Place>>,
}

/// The two trees in which a directory has ancestors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    Base,
    Local,
}

impl Forest {
    pub(super) fn new(input: &Input) -> Self {
        let mut inside = BTreeMap::<_, BTreeSet<_>>::new();
        let mut base_places = BTreeMap::<_, BTreeSet<_>>::new();
        let mut local_places = BTreeMap::<_, BTreeSet<_>>::new();
        for (place, triple) in &input.triples {
            inside
                .entry(place.parent)
                .or_default()
                .insert(place.clone());
            if let Some(base) = &triple.base {
                base_places
                    .entry(base.node)
                    .or_default()
                    .insert(place.clone());
            }
            if let Some(local) = &triple.local {
                local_places
                    .entry(local.node)
                    .or_default()
                    .insert(place.clone());
            }
        }
        Self {
            triples: input.triples.clone(),
            inside,
            dirs: input.dirs.clone(),
            base_places,
            local_places,
        }
    }

    pub(super) fn triples(&self) -> impl Iterator<Item = (&Place, &Triple)> {
        self.triples.iter()
    }

    pub(super) fn at(&self, place: &Place) -> Option<&Triple> {
        self.triples.get(place)
    }

    /// The triples inside a directory.
    pub(super) fn inside(&self, dir: NodeId) -> impl Iterator<Item = (&Place, &Triple)> {
        let places = self.inside.get(&dir).into_iter().flatten();
        places.filter_map(|place| self.triples.get_key_value(place))
    }

    /// All nodes that stand somewhere locally.
    pub(super) fn local_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.local_places.keys().copied()
    }

    pub(super) fn places(&self, tree: Tree, node: NodeId) -> impl Iterator<Item = &Place> {
        let places = match tree {
            Tree::Base => &self.base_places,
            Tree::Local => &self.local_places,
        };
        places.get(&node).into_iter().flatten()
    }

    /// The one place of a node in a tree; `None` if there is none, or more.
    pub(super) fn only_place(&self, tree: Tree, node: NodeId) -> Option<&Place> {
        let mut places = self.places(tree, node);
        places.next().filter(|_| places.next().is_none())
    }

    pub(super) fn is_shared(&self, node: NodeId) -> bool {
        self.places(Tree::Local, node).nth(1).is_some()
            || self.places(Tree::Base, node).nth(1).is_some()
    }

    /// Where a directory stands.
    pub(super) fn dir_place(&self, tree: Tree, dir: NodeId) -> Option<&Place> {
        let state = self.dirs.get(&dir)?;
        match tree {
            Tree::Base => state.base.as_ref(),
            Tree::Local => state.local.as_ref(),
        }
    }

    /// The directories from `dir` up to the root.
    pub(super) fn ancestors(&self, tree: Tree, dir: NodeId) -> impl Iterator<Item = NodeId> {
        let up = move |dir: &NodeId| self.dir_place(tree, *dir).map(|place| place.parent);
        // Trees have no cycles; the bound only keeps damaged input from hanging the planner.
        std::iter::successors(Some(dir), up).take(self.dirs.len() + 2)
    }

    pub(super) fn is_within(&self, tree: Tree, dir: NodeId, ancestor: NodeId) -> bool {
        self.ancestors(tree, dir).any(|dir| dir == ancestor)
    }

    pub(super) fn depth(&self, tree: Tree, dir: NodeId) -> usize {
        self.ancestors(tree, dir).count()
    }

    /// Whether the server has the directory, by way of its place in the base tree.
    pub(super) fn server_has(&self, dir: NodeId) -> bool {
        let mut top = dir;
        for dir in self.ancestors(Tree::Base, dir) {
            top = dir;
            let place = self.dir_place(Tree::Base, dir);
            let gone = place
                .and_then(|place| self.at(place))
                .is_some_and(|triple| {
                    triple
                        .remote
                        .as_ref()
                        .is_none_or(|remote| remote.kind != Kind::Dir)
                });
            if gone {
                return false;
            }
        }
        top == NodeId::ROOT || top == NodeId::STAGING
    }

    pub(super) fn local_has(&self, dir: NodeId) -> bool {
        self.ancestors(Tree::Local, dir).last() == Some(NodeId::ROOT)
    }

    /// Whether the server's file at `place` is what `local` shows, so that its content can be fetched there.
    fn is_source(&self, place: &Place, local: &LocalEntry) -> bool {
        self.at(place)
            .is_some_and(|triple| match (&triple.base, &triple.remote) {
                (Some(base), Some(remote)) => {
                    base.version.same_content(remote)
                        && holds_content_of(base, local)
                        && self.server_has(place.parent)
                }
                _ => false,
            })
    }

    /// Whether the local node's content can be fetched from the server.
    pub(super) fn is_fetchable(&self, local: &LocalEntry) -> bool {
        self.places(Tree::Base, local.node)
            .any(|place| self.is_source(place, local))
    }

    /// Whether the server's file at `place` is all there is of the content of a node that stands elsewhere.
    pub(super) fn is_lent(&self, place: &Place) -> bool {
        let Some(base) = self.at(place).and_then(|triple| triple.base.as_ref()) else {
            return false;
        };
        if base.version.kind != Kind::File {
            return false;
        }
        let local_at = |place: &Place| {
            let local = self.at(place).and_then(|triple| triple.local.as_ref());
            local.filter(|local| local.node == base.node)
        };
        let Some(borrower) = self
            .places(Tree::Local, base.node)
            .filter(|other| *other != place)
            .find_map(local_at)
        else {
            return false;
        };
        let stays_elsewhere = || {
            self.places(Tree::Base, base.node)
                .filter(|other| *other != place)
                .any(|other| local_at(other).is_some() && self.is_source(other, borrower))
        };
        !borrower.whole && self.is_source(place, borrower) && !stays_elsewhere()
    }

    /// Whether this machine changed the content of what stands at both places.
    pub(super) fn is_content_changed(&self, from: &Place, local: &LocalEntry) -> bool {
        let base = self.at(from).and_then(|triple| triple.base.as_ref());
        local_change(base, Some(local)) == Change::Modified
    }

    /// Base tree and server: what stands at `from` goes to `to` and replaces what is there.
    pub(super) fn move_base(&mut self, from: &Place, to: &Place) {
        self.clear_base(to);
        let Some(source) = self.triples.get_mut(from) else {
            return;
        };
        let (base, remote) = (source.base.take(), source.remote.take());
        if let Some(base) = &base {
            let places = self.base_places.entry(base.node).or_default();
            places.remove(from);
            places.insert(to.clone());
            if let Some(state) = self.dirs.get_mut(&base.node) {
                state.base = Some(to.clone());
            }
        }
        self.inside.entry(to.parent).or_default().insert(to.clone());
        let target = self.triples.entry(to.clone()).or_default();
        target.base = base;
        target.remote = remote;
    }

    /// Base tree and server: nothing stands at `place`.
    pub(super) fn clear_base(&mut self, place: &Place) {
        let Some(triple) = self.triples.get_mut(place) else {
            return;
        };
        triple.remote = None;
        if let Some(base) = triple.base.take() {
            if let Some(places) = self.base_places.get_mut(&base.node) {
                places.remove(place);
            }
            if let Some(state) = self.dirs.get_mut(&base.node) {
                state.base = None;
            }
        }
    }
}
