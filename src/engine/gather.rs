//! Collects what the planner needs from the index: the places that may differ, closed as
//! [`Input`] demands.

use std::collections::{BTreeMap, BTreeSet};

use crate::replica::{Node, Replica, ReplicaError, View};
use crate::sync::{DirState, Input, LocalEntry, Triple, staged_node};
use crate::tree::{Kind, Name, NodeId, Place, Version};

mod database;

/// How many children of one directory are read at a time.
const CHILDREN_PAGE: usize = 1000;

/// The planner's input, and each node's `data_seq` at that moment: a step is valid only while it stands.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) input: Input,
    pub(super) seqs: BTreeMap<NodeId, u64>,
}

/// Gathers the triples at `places` and all that they need.
pub(super) fn gather(
    view: &View<'_>,
    replica: &Replica,
    places: impl IntoIterator<Item = Place>,
) -> Result<Gathered, ReplicaError> {
    let mut gatherer = Gatherer {
        view,
        replica,
        out: Gathered::default(),
        todo: Vec::new(),
        gone: BTreeMap::new(),
    };
    gatherer.todo.extend(places);
    while let Some(place) = gatherer.todo.pop() {
        if !gatherer.out.input.triples.contains_key(&place) {
            gatherer.visit(place)?;
        }
    }
    Ok(gatherer.out)
}

/// All children of a directory in the local tree.
pub(super) fn all_children(
    view: &View<'_>,
    dir: NodeId,
) -> Result<Vec<(Name, NodeId)>, ReplicaError> {
    let mut all: Vec<(Name, NodeId)> = Vec::new();
    loop {
        let after = all.last().map(|(name, _)| name.clone());
        let page = view.children(dir, after.as_ref(), CHILDREN_PAGE)?;
        let last = page.len() < CHILDREN_PAGE;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}

struct Gatherer<'a, 'v> {
    view: &'a View<'v>,
    replica: &'a Replica,
    out: Gathered,
    todo: Vec<Place>,
    gone: BTreeMap<NodeId, bool>,
}

impl Gatherer<'_, '_> {
    fn visit(&mut self, place: Place) -> Result<(), ReplicaError> {
        let base = self.view.base(&place)?;
        let remote = match self.view.observation(&place)? {
            // What was in a directory that is gone is gone, too, though nobody could look.
            _ if self.is_gone(place.parent)? => None,
            Some(observation) => observation.version,
            None => base.as_ref().map(|base| base.version.clone()),
        };
        let local = match self.view.child(place.parent, &place.name)? {
            Some(id) => self.local(id, remote.as_ref())?,
            None => None,
        };
        self.close_over_directories(place.parent)?;
        self.close_over_database(&place)?;
        for node in base
            .iter()
            .map(|base| base.node)
            .filter(|node| *node != NodeId::NONE)
            .chain(local.iter().map(|l| l.node))
            .chain(staged_node(&place))
        {
            self.todo.extend(self.view.base_places(node)?);
            self.todo.extend(self.view.places(node)?);
        }
        if let Some(base) = base.as_ref().filter(|base| base.version.kind == Kind::Dir) {
            let gone_remotely = remote.as_ref().is_none_or(|v| v.kind != Kind::Dir);
            let gone_locally = self.view.places(base.node)?.is_empty();
            if gone_remotely || gone_locally {
                self.add_children(base.node)?;
            }
            self.close_over_directories(base.node)?;
        }
        if let Some(local) = local
            .as_ref()
            .filter(|local| local.version.kind == Kind::Dir)
        {
            if remote.as_ref().is_some_and(|v| v.kind != Kind::Dir) {
                self.add_children(local.node)?;
            }
            self.close_over_directories(local.node)?;
        }
        self.out.input.triples.insert(
            place,
            Triple {
                base,
                local,
                remote,
            },
        );
        Ok(())
    }

    /// Whether the directory, or one above it in base, was seen to be none any more.
    fn is_gone(&mut self, dir: NodeId) -> Result<bool, ReplicaError> {
        // Upwards, until it is known; a tree may be deeper than a stack. A damaged one may lead back to itself.
        let (mut below, mut dir) = (Vec::new(), dir);
        let gone = loop {
            if let Some(gone) = self.gone.get(&dir) {
                break *gone;
            }
            self.gone.insert(dir, false);
            below.push(dir);
            let Some(place) = self.view.base_places(dir)?.into_iter().next() else {
                break false;
            };
            let seen = self.view.observation(&place)?;
            if seen.is_some_and(|seen| seen.version.is_none_or(|v| v.kind != Kind::Dir)) {
                break true;
            }
            dir = place.parent;
        };
        self.gone.extend(below.into_iter().map(|dir| (dir, gone)));
        Ok(gone)
    }

    fn add_children(&mut self, dir: NodeId) -> Result<(), ReplicaError> {
        let mut names: BTreeSet<Name> = BTreeSet::new();
        names.extend(
            self.view
                .base_children(dir)?
                .into_iter()
                .map(|(name, _)| name),
        );
        names.extend(
            all_children(self.view, dir)?
                .into_iter()
                .map(|(name, _)| name),
        );
        names.extend(
            self.view
                .observations_in(dir)?
                .into_iter()
                .map(|(name, _)| name),
        );
        self.todo
            .extend(names.into_iter().map(|name| Place::new(dir, name)));
        Ok(())
    }

    /// Takes `dir` and all above it, in both trees. A directory that the server does not have yet is a place
    /// to plan as well, or its children could not be planned.
    fn close_over_directories(&mut self, dir: NodeId) -> Result<(), ReplicaError> {
        let mut above = vec![dir];
        while let Some(dir) = above.pop() {
            if dir == NodeId::STAGING || self.out.input.dirs.contains_key(&dir) {
                continue;
            }
            let state = DirState {
                base: self.view.base_places(dir)?.into_iter().next(),
                local: self.view.places(dir)?.into_iter().next(),
            };
            if dir != NodeId::ROOT && state.base != state.local {
                self.todo.extend(state.local.clone());
                self.todo.extend(state.base.clone());
            }
            let places = [&state.local, &state.base].into_iter().flatten();
            above.extend(places.map(|place| place.parent));
            self.out.input.dirs.insert(dir, state);
        }
        Ok(())
    }

    fn local(
        &mut self,
        id: NodeId,
        remote: Option<&Version>,
    ) -> Result<Option<LocalEntry>, ReplicaError> {
        let Some(node) = self.view.node(id)? else {
            return Ok(None);
        };
        if node.scoped || !node.kind.travels() {
            return Ok(None);
        }
        self.out.seqs.insert(id, node.data_seq);
        Ok(Some(LocalEntry {
            node: id,
            version: node.version(),
            data_changed: node.data_changed,
            whole: is_whole(&node),
            busy: self.replica.opens().writers(id) > 0,
            // Asked only where the directory might have to go: it costs a look at every child.
            holds_scoped: node.kind == Kind::Dir
                && remote.is_none_or(|version| version.kind != Kind::Dir)
                && self.holds_scoped(id)?,
        }))
    }

    fn holds_scoped(&self, dir: NodeId) -> Result<bool, ReplicaError> {
        for (_, child) in all_children(self.view, dir)? {
            if self
                .view
                .node(child)?
                .is_some_and(|node| node.scoped || !node.kind.travels())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether the node could be sent as it is.
fn is_whole(node: &Node) -> bool {
    node.kind != Kind::File || node.content == crate::replica::Content::Whole
}

/// Whether local and base agree at a place, so that nothing is left to send.
pub(super) fn is_clean(view: &View<'_>, place: &Place) -> Result<bool, ReplicaError> {
    let base = view.base(place)?;
    let local = match view.child(place.parent, &place.name)? {
        Some(id) => view
            .node(id)?
            .filter(|node| !node.scoped && node.kind.travels()),
        None => None,
    };
    Ok(match (base, local) {
        (None, None) => true,
        (Some(base), Some(node)) => {
            base.node == node.id
                && !node.data_changed
                && same_to_the_server(&base.version, &node.version())
        }
        _ => false,
    })
}

/// Whether two versions of a clean node show no difference that a write-back would send.
fn same_to_the_server(base: &Version, local: &Version) -> bool {
    base.kind == local.kind
        && base.mode == local.mode
        && base.target == local.target
        && base.mtime == local.mtime
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Observation;
    use crate::tree::{BaseEntry, Time};

    #[test]
    fn what_waits_in_the_way_station_is_planned_with_its_places() {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), Time(0)).unwrap();
        let node = NodeId(20);
        let at = |dir, name: &str| Place::new(dir, Name::new(name.as_bytes()).unwrap());
        let (stands, waits) = (at(NodeId::ROOT, "a"), at(NodeId::STAGING, "move-20"));
        let version = Version::dir(0o755);
        let update = replica.update::<_, ReplicaError>(|tx| {
            let version = version.clone();
            tx.set_base(stands.clone(), Some(BaseEntry { node, version }))?;
            let seen = Observation {
                version: Some(Version::dir(0o755)),
                seen_at: Time(0),
            };
            tx.observe(waits.clone(), Some(seen))
        });
        update.unwrap();
        let gathered = replica.view(|view| gather(view, &replica, [waits.clone()]));
        let triples = gathered.unwrap().input.triples;
        assert_eq!(triples.into_keys().collect::<Vec<_>>(), [stands, waits]);
    }

    #[test]
    fn a_tree_may_be_deeper_than_a_stack() {
        const LEVELS: u64 = 5_000;
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path(), Time(0)).unwrap();
        let name = || Name::new(b"d").unwrap();
        let (first, version) = (100, Version::dir(0o755));
        let update = replica.update::<_, ReplicaError>(|tx| {
            let mut parent = NodeId::ROOT;
            for node in (first..first + LEVELS).map(NodeId) {
                let (place, version) = (Place::new(parent, name()), version.clone());
                tx.link(place.clone(), node)?;
                tx.set_base(place, Some(BaseEntry { node, version }))?;
                parent = node;
            }
            Ok(())
        });
        update.unwrap();
        let bottom = Place::new(NodeId(first + LEVELS - 1), name());
        let gathered = replica.view(|view| gather(view, &replica, [bottom.clone()]));
        let input = gathered.unwrap().input;
        assert_eq!(input.dirs.len() as u64, LEVELS + 1);
        assert_eq!(input.triples.into_keys().collect::<Vec<_>>(), [bottom]);
    }
}
