//! The staging directory as a way station, and moves of which nobody heard whether they happened.

use crate::tree::{BaseEntry, Kind, Name, NodeId, Place};

use super::super::decide::Fate;
use super::super::forest::{Forest, Tree};
use super::super::{Action, Keep, Step, Why};
use super::Pass;

const STAGED: &str = "move-";

/// What a node is called while it waits in the staging directory.
pub(super) fn staged_name(node: NodeId) -> Option<Name> {
    Name::new(format!("{STAGED}{node}").as_bytes()).ok()
}

/// The node that waits in the staging directory under the name of `place`, if a move gave it.
pub fn staged_node(place: &Place) -> Option<NodeId> {
    if place.parent != NodeId::STAGING {
        return None;
    }
    let text = std::str::from_utf8(place.name.as_bytes()).ok()?;
    text.strip_prefix(STAGED)?.parse().ok().map(NodeId)
}

/// The staging directory is shown nowhere, so what is to be adopted from there, since somebody changed it on
/// its way and it was removed here, comes back under the root.
pub(in crate::sync) fn out_of_staging(
    place: Place,
    action: Action,
    forest: &Forest,
) -> (Place, Action) {
    let Action::Adopt { version, .. } = &action else {
        return (place, action);
    };
    let base = forest.at(&place).and_then(|triple| triple.base.as_ref());
    let Some(node) = base.map(|base| base.node) else {
        return (place, action);
    };
    match Name::new(format!("recovered-{node}").as_bytes()) {
        Ok(name) if place.parent == NodeId::STAGING => {
            let back = Action::Move {
                node,
                expected: version.clone(),
                from: place,
                replaces: None,
                alike: false,
            };
            (Place::new(NodeId::ROOT, name), back)
        }
        _ => (place, action),
    }
}

impl Pass<'_> {
    /// What a move took to the staging directory without our hearing of it is still on its way: only we give
    /// such names. What nobody knows any more is kept as a backup.
    pub(super) fn recover_the_staged(&mut self) {
        let staged = self.forest.inside(NodeId::STAGING);
        let unknown = staged.filter(|(_, triple)| triple.base.is_none());
        let found = unknown.filter_map(|(place, triple)| {
            Some((place.clone(), staged_node(place)?, triple.remote.clone()?))
        });
        for (place, node, version) in found.collect::<Vec<_>>() {
            self.found.held.insert(place.clone(), Fate::Undecided);
            let base_kind = |place: &Place| {
                let base = self.forest.at(place)?.base.as_ref()?;
                Some(base.version.kind)
            };
            let from = self.forest.only_place(Tree::Base, node).cloned();
            let from = from.filter(|from| base_kind(from) == Some(version.kind));
            let to = self.forest.only_place(Tree::Local, node).cloned();
            let is_new = self.forest.places(Tree::Base, node).next().is_none();
            if let Some(from) = from {
                self.moved.remove(&node);
                self.take_note(node, &from, &place);
                to.iter().for_each(|to| self.hold(&from, to));
            } else if is_new && (version.kind == Kind::Dir || to.is_some()) {
                to.iter().for_each(|to| self.hold(&place, to));
                let entry = Some(BaseEntry { node, version });
                self.found.happened.push(Step {
                    place,
                    action: Action::Agree { entry },
                    why: Why::BothAgree,
                });
            } else if version.kind != Kind::Dir {
                self.found.held_steps.push(Step {
                    place,
                    action: Action::Remove {
                        expected: version,
                        keep: Keep::Backup,
                    },
                    why: Why::LocalChange,
                });
            }
        }
    }

    /// Whether what the base tree has at `from` is gone there and stands at `to`.
    pub(super) fn has_moved(&self, from: &Place, to: &Place) -> bool {
        let (Some(source), Some(target)) = (self.forest.at(from), self.forest.at(to)) else {
            return false;
        };
        // What looks the same there as ever did not come from elsewhere.
        let replaceable = target.base.as_ref().is_none_or(|base| {
            base.version.kind != Kind::Dir && target.remote.as_ref() != Some(&base.version)
        });
        let (Some(base), None, Some(remote)) = (&source.base, &source.remote, &target.remote)
        else {
            return false;
        };
        base.version.same_entry(remote) && replaceable && self.forest.server_has(to.parent)
    }

    pub(super) fn take_note(&mut self, node: NodeId, from: &Place, to: &Place) {
        let shown = |place| {
            self.forest
                .at(place)
                .and_then(|triple| triple.remote.clone())
        };
        let (left, Some(version)) = (shown(from), shown(to)) else {
            return;
        };
        self.hold(from, to);
        self.found.happened.push(Step {
            place: to.clone(),
            action: Action::Moved {
                node,
                from: from.clone(),
                left,
                version,
            },
            why: Why::BothAgree,
        });
    }
}
