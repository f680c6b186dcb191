//! A replica and a server in memory, with users on both sides, and an engine that carries plans out in any
//! order within a phase and fails now and then: what the planner is tested against.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{BaseEntry, Hash, Kind, Name, NodeId, Place, Version};

use super::change::{Change, local_change};
use super::{
    Action, DirState, Fold, Input, Keep, LocalEntry, Outcome, Plan, Policy, Step, Triple, plan,
    settle, surely_same_data,
};

mod engine;
mod users;

pub(super) use engine::Luck;
pub(super) use users::Op;

/// Stands for a file's bytes. Two files hold the same bytes if and only if the numbers are equal.
pub(super) type Data = u64;

/// A path on the server, the staging directory's under a name no user gives.
pub(super) type Path = Vec<String>;

const STAGING: &str = ".staging";

pub(super) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// A version of a file that holds `data`: some sizes are equal, so that contents must be compared.
pub(super) fn file_version(data: Data, mtime: i64, mode: u32) -> Version {
    Version::file(1 + data % 3, mtime, mode)
}

fn hash_of(data: Data) -> Hash {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&data.to_le_bytes());
    Hash(hash)
}

/// A file, directory or symlink on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thing {
    pub(super) version: Version,
    pub(super) data: Data,
}

/// A node of the replica.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) version: Version,
    /// `None`: the content is not here.
    pub(super) data: Option<Data>,
    /// What the server was seen to hold for it, where the content is not here.
    pub(super) origin: Option<Data>,
    pub(super) data_changed: bool,
    pub(super) busy: bool,
}

#[derive(Debug, Default, Clone)]
pub(super) struct World {
    pub(super) server: BTreeMap<Path, Thing>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) links: BTreeMap<Place, NodeId>,
    pub(super) base: BTreeMap<Place, BaseEntry>,
    pub(super) seen: BTreeMap<Place, Option<Version>>,
    /// Contents that trash or backups keep, on either side.
    pub(super) kept: BTreeSet<Data>,
    /// All contents that a user ever wrote.
    pub(super) written: BTreeSet<Data>,
    /// Contents that a user removed or replaced.
    pub(super) discarded: BTreeSet<Data>,
    pub(super) tick: i64,
    pub(super) next_node: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            next_node: NodeId::FIRST_FREE.0,
            ..Self::default()
        }
    }

    pub(super) fn next_tick(&mut self) -> i64 {
        self.tick += 1;
        self.tick
    }

    pub(super) fn alloc(&mut self) -> NodeId {
        self.next_node += 1;
        NodeId(self.next_node)
    }

    /// The server's path of a directory of the base tree.
    pub(super) fn server_dir(&self, dir: NodeId) -> Option<Path> {
        match dir {
            NodeId::ROOT => return Some(Vec::new()),
            NodeId::STAGING => return Some(vec![STAGING.to_owned()]),
            _ => {}
        }
        let (place, _) = self
            .base
            .iter()
            .find(|(_, base)| base.node == dir && base.version.kind == Kind::Dir)?;
        self.server_path(place)
    }

    pub(super) fn server_path(&self, place: &Place) -> Option<Path> {
        let mut path = self.server_dir(place.parent)?;
        path.push(place.name.to_string());
        Some(path)
    }

    pub(super) fn on_server(&self, path: &Path) -> Option<Version> {
        self.server.get(path).map(|thing| thing.version.clone())
    }

    pub(super) fn server_is_dir(&self, path: &[String]) -> bool {
        path.is_empty()
            || path == [STAGING]
            || self
                .server
                .get(path)
                .is_some_and(|thing| thing.version.kind == Kind::Dir)
    }

    pub(super) fn server_children(&self, dir: &[String]) -> Vec<String> {
        let inside = |path: &&Path| path.len() == dir.len() + 1 && path.starts_with(dir);
        let children = self.server.keys().filter(inside);
        children
            .map(|path| path[dir.len()].clone())
            .filter(|name| name != STAGING)
            .collect()
    }

    pub(super) fn places_of(&self, node: NodeId) -> Vec<Place> {
        let links = self.links.iter().filter(|(_, other)| **other == node);
        links.map(|(place, _)| place.clone()).collect()
    }

    /// Everything that is on this machine and nowhere else must be found here.
    fn lost(&self) -> Vec<Data> {
        let mut there: BTreeSet<Data> = self.kept.union(&self.discarded).copied().collect();
        there.extend(self.nodes.values().filter_map(|node| node.data));
        let files = self
            .server
            .values()
            .filter(|thing| thing.version.kind == Kind::File);
        there.extend(files.map(|thing| thing.data));
        self.written.difference(&there).copied().collect()
    }

    /// Panics if a content that no user gave up is nowhere.
    pub(super) fn assert_nothing_lost(&self) {
        let lost = self.lost();
        assert!(lost.is_empty(), "lost {lost:?} in {self:#?}");
    }

    /// Panics if a base row hangs in the air.
    pub(super) fn assert_base_is_a_tree(&self) {
        for place in self.base.keys() {
            assert!(
                self.server_dir(place.parent).is_some(),
                "no parent: {place:?} {self:#?}"
            );
        }
    }

    /// Panics unless replica, base and server show the same.
    pub(super) fn assert_equal(&self) {
        let mut paths = BTreeSet::new();
        for (place, node) in &self.links {
            let node = &self.nodes[node];
            let path = self.server_path(place);
            let thing = path.as_ref().and_then(|path| self.server.get(path));
            let Some(thing) = thing else {
                panic!("{place:?} is not on the server: {self:#?}");
            };
            paths.extend(path);
            assert!(
                node.version.same(&thing.version),
                "{place:?} differs: {self:#?}"
            );
            if node.version.kind == Kind::File {
                assert!(
                    node.data.is_none_or(|data| data == thing.data),
                    "{place:?} {self:#?}"
                );
            }
            assert!(!node.data_changed, "{place:?} is still dirty");
        }
        let base: BTreeMap<_, _> = self
            .base
            .iter()
            .map(|(place, base)| (place, &base.node))
            .collect();
        assert_eq!(base, self.links.iter().collect(), "base differs: {self:#?}");
        let server: BTreeSet<_> = self.server.keys().cloned().collect();
        assert_eq!(server, paths, "the server has more: {self:#?}");
    }
}
