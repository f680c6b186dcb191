//! Reading the index.

use std::ops::Bound;

use super::error::ReplicaError;
use super::index::State;
use super::overlay::Layers;
use super::rows::{Counter, Deed, Intent, LocalBackup, Node, Observation, Problem};
use super::table::{
    Backups, Base, BaseLike, BaseOf, Changes, Counters, Deeds, Dirty, Doomed, InFlight, Intents,
    Links, LinksOf, Meta, Nodes, Problems, Racy, Remote, Table, Xattrs,
};
use crate::tree::{BaseEntry, Hash, Kind, Name, NodeId, Place, RelPath, Time, Version};

/// Directories deeper than this are taken for a cycle; Linux paths cannot name half as many.
const DEEPEST: usize = 4096;

/// Greater than every node.
const BEYOND: NodeId = NodeId(i64::MAX as u64);

/// A consistent look at the index: nothing changes while it is held.
pub struct View<'a> {
    pub(super) state: &'a State,
    /// What the transaction that reads has changed itself.
    pub(super) own: Changes,
}

/// The first place of a directory's range; that of the next directory ends it.
fn first_place(parent: NodeId) -> Place {
    Place::new(parent, Name::least())
}

/// What the reverse look-up of versions goes by.
pub(super) fn looks(version: &Version) -> (u64, i64) {
    (version.size, version.mtime)
}

fn next(node: NodeId) -> NodeId {
    NodeId(node.0 + 1)
}

/// The key under which the replica remembers the 8 bytes that name this machine on the server.
pub const CLIENT_ID: &str = "client.id";

type Result<T> = std::result::Result<T, ReplicaError>;

impl<'a> View<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        Self {
            state,
            own: Changes::default(),
        }
    }

    fn layers(&self) -> Layers<'_> {
        Layers {
            changes: [&self.own, &self.state.pending, &self.state.committing],
            stored: &self.state.stored,
        }
    }

    pub(super) fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>> {
        let found = self.layers().get::<T>(key);
        found.map_err(|e| self.state.sql_error(e))
    }

    fn range<T: Table>(
        &self,
        start: Bound<T::Key>,
        end: &T::Key,
        limit: usize,
    ) -> Result<Vec<(T::Key, T::Value)>> {
        let found = self.layers().range::<T>(start, end, limit);
        found.map_err(|e| self.state.sql_error(e))
    }

    /// All rows of a table keyed by place, or those in one directory.
    fn in_places<T: Table<Key = Place>>(
        &self,
        parent: Option<NodeId>,
        limit: usize,
    ) -> Result<Vec<(Place, T::Value)>> {
        let start = first_place(parent.unwrap_or(NodeId(0)));
        let end = first_place(parent.map_or(BEYOND, next));
        self.range::<T>(Bound::Included(start), &end, limit)
    }

    fn in_directory<T: Table<Key = Place>>(&self, dir: NodeId) -> Result<Vec<(Name, T::Value)>> {
        let rows = self.in_places::<T>(Some(dir), usize::MAX)?;
        Ok(rows.into_iter().map(|(p, value)| (p.name, value)).collect())
    }

    fn places_in<T: Table<Key = (NodeId, Place), Value = ()>>(
        &self,
        node: NodeId,
    ) -> Result<Vec<Place>> {
        let start = (node, first_place(NodeId(0)));
        let end = (next(node), first_place(NodeId(0)));
        let rows = self.range::<T>(Bound::Included(start), &end, usize::MAX)?;
        Ok(rows.into_iter().map(|((_, place), ())| place).collect())
    }

    pub(super) fn by_node<T: Table<Key = NodeId>>(
        &self,
        limit: usize,
    ) -> Result<Vec<(NodeId, T::Value)>> {
        self.range::<T>(Bound::Included(NodeId(0)), &BEYOND, limit)
    }

    /// A node of the local tree.
    pub fn node(&self, id: NodeId) -> Result<Option<Node>> {
        self.get::<Nodes>(&id)
    }

    /// What a directory of the local tree names so.
    pub fn child(&self, dir: NodeId, name: &Name) -> Result<Option<NodeId>> {
        self.get::<Links>(&Place::new(dir, name.clone()))
    }

    /// Up to `limit` entries of a directory of the local tree in the order of their names, those after
    /// `after`.
    pub fn children(
        &self,
        dir: NodeId,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<(Name, NodeId)>> {
        let start = match after {
            Some(name) => Bound::Excluded(Place::new(dir, name.clone())),
            None => Bound::Included(first_place(dir)),
        };
        let rows = self.range::<Links>(start, &first_place(next(dir)), limit)?;
        Ok(rows.into_iter().map(|(p, node)| (p.name, node)).collect())
    }

    /// The places that name a node of the local tree.
    pub fn places(&self, node: NodeId) -> Result<Vec<Place>> {
        self.places_in::<LinksOf>(node)
    }

    /// The place that names a node of the local tree; one of them if there are several.
    pub fn place(&self, node: NodeId) -> Result<Option<Place>> {
        let (start, end) = (
            (node, first_place(NodeId(0))),
            (next(node), first_place(NodeId(0))),
        );
        let layers = self.layers().changes.map(LinksOf::rows);
        let mut changed = layers.iter().map(|rows| rows.range(&start..&end).next());
        if changed.all(|row| row.is_none()) {
            let stored = || Ok(self.places(node)?.into_iter().next());
            return self.state.stored.place(node, stored);
        }
        // A fresh node has one row, in the topmost layer that knows of any.
        let mut topmost = layers.iter().flat_map(|rows| rows.range(&start..&end));
        match topmost.next() {
            Some(((_, place), Some(()))) => Ok(Some(place.clone())),
            _ => Ok(self.places(node)?.into_iter().next()),
        }
    }

    /// What was last agreed on at a place.
    pub fn base(&self, place: &Place) -> Result<Option<BaseEntry>> {
        self.get::<Base>(place)
    }

    /// The entries of a directory of the base tree.
    pub fn base_children(&self, dir: NodeId) -> Result<Vec<(Name, BaseEntry)>> {
        self.in_directory::<Base>(dir)
    }

    /// Where a node stands in the base tree.
    pub fn base_places(&self, node: NodeId) -> Result<Vec<Place>> {
        self.places_in::<BaseOf>(node)
    }

    /// The files of the base tree that no listing tells from `version`: of its size and its second.
    pub fn base_files_like(&self, version: &Version) -> Result<Vec<(Place, BaseEntry)>> {
        let looks = looks(version);
        self.base_files(looks, looks, usize::MAX)
    }

    /// The first `limit` files of the base tree from one size and second up to another, smaller ones first.
    pub fn base_files(
        &self,
        from: (u64, i64),
        to: (u64, i64),
        limit: usize,
    ) -> Result<Vec<(Place, BaseEntry)>> {
        let (mut files, start) = (Vec::new(), Bound::Included((from, first_place(NodeId(0)))));
        for ((_, place), ()) in self.range::<BaseLike>(start, &(to, first_place(BEYOND)), limit)? {
            let base = self.base(&place)?;
            let file = base.filter(|base| base.version.kind == Kind::File);
            files.extend(file.map(|base| (place, base)));
        }
        Ok(files)
    }

    /// What was seen on the server at a place, if it differs from base.
    pub fn observation(&self, place: &Place) -> Result<Option<Observation>> {
        self.get::<Remote>(place)
    }

    /// All that was seen on the server and differs from base.
    pub fn observations(&self) -> Result<Vec<(Place, Observation)>> {
        self.in_places::<Remote>(None, usize::MAX)
    }

    /// What was seen in one directory of the server and differs from base.
    pub fn observations_in(&self, dir: NodeId) -> Result<Vec<(Name, Observation)>> {
        self.in_directory::<Remote>(dir)
    }

    /// Up to `limit` places where local differs from base, and since when (local time).
    pub fn dirty(&self, limit: usize) -> Result<Vec<(Place, Time)>> {
        self.in_places::<Dirty>(None, limit)
    }

    /// Whether local differs from base there.
    pub fn is_dirty(&self, place: &Place) -> Result<bool> {
        Ok(self.get::<Dirty>(place)?.is_some())
    }

    /// The places where what was seen on the server may have changed since without showing it.
    pub fn racy(&self) -> Result<Vec<Place>> {
        let rows = self.in_places::<Racy>(None, usize::MAX)?;
        Ok(rows.into_iter().map(|(place, ())| place).collect())
    }

    /// Whether what was seen on the server at `place` may have changed since without showing it.
    pub fn is_racy(&self, place: &Place) -> Result<bool> {
        Ok(self.get::<Racy>(place)?.is_some())
    }

    /// An extended attribute.
    pub fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get::<Xattrs>(&(node, name.to_vec()))
    }

    /// All extended attributes of a node.
    pub fn xattrs(&self, node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let start = Bound::Included((node, Vec::new()));
        let rows = self.range::<Xattrs>(start, &(next(node), Vec::new()), usize::MAX)?;
        Ok(rows
            .into_iter()
            .map(|((_, name), value)| (name, value))
            .collect())
    }

    /// A remembered value.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.get::<Meta>(&name.to_owned())
    }

    /// What this machine is about to do in one directory of the server.
    pub fn intents_in(&self, dir: NodeId) -> Result<Vec<(Name, Intent)>> {
        self.in_directory::<Intents>(dir)
    }

    /// What this machine is, or died, about to make of `place` on the server.
    pub fn intent(&self, place: &Place) -> Result<Option<Intent>> {
        self.get::<Intents>(place)
    }

    /// All that this machine is, or died, about to do on the server.
    pub fn intents(&self) -> Result<Vec<(Place, Intent)>> {
        self.in_places::<Intents>(None, usize::MAX)
    }

    /// All content kept on this machine.
    pub fn backups(&self) -> Result<Vec<LocalBackup>> {
        let rows = self.range::<Backups>(Bound::Included(0), &BEYOND.0, usize::MAX)?;
        Ok(rows.into_iter().map(|(_, backup)| backup).collect())
    }

    /// What passes from `first` to `last` did: pass, number and deed, in order.
    pub fn deeds(&self, first: u64, last: u64) -> Result<Vec<((u64, u64), Deed)>> {
        let end = last.saturating_add(1).min(BEYOND.0);
        self.range::<Deeds>(Bound::Included((first, 0)), &(end, 0), usize::MAX)
    }

    /// What a person should know about `place`.
    pub fn problem(&self, place: &Place) -> Result<Option<Problem>> {
        self.get::<Problems>(place)
    }

    /// All that a person should know.
    pub fn problems(&self) -> Result<Vec<(Place, Problem)>> {
        self.in_places::<Problems>(None, usize::MAX)
    }

    pub(super) fn in_flight(&self) -> Result<Vec<NodeId>> {
        let rows = self.by_node::<InFlight>(usize::MAX)?;
        Ok(rows.into_iter().map(|(node, ())| node).collect())
    }

    /// The nodes that are gone and whose content is not. One that has a row is not gone, whatever is said of it: then the
    /// index is damaged, and its content stays.
    pub(super) fn doomed(&self) -> Result<Vec<NodeId>> {
        let mut doomed = Vec::new();
        for (node, ()) in self.by_node::<Doomed>(usize::MAX)? {
            if self.node(node)?.is_none() {
                doomed.push(node);
            }
        }
        Ok(doomed)
    }

    pub(super) fn counter(&self, counter: Counter) -> Result<u64> {
        Ok(self.get::<Counters>(&counter)?.unwrap_or_default())
    }

    /// A path of a node in the local tree; one of them if it has several, `None` if it has none.
    pub fn local_path(&self, node: NodeId) -> Result<Option<RelPath>> {
        self.path(node, |node| self.place(node))
    }

    /// The path of a place in the local tree.
    pub fn local_path_of(&self, place: &Place) -> Result<Option<RelPath>> {
        let parent = self.local_path(place.parent)?;
        Ok(parent.map(|path| path.join(&place.name)))
    }

    /// The path of a directory in the base tree. `NodeId::STAGING` is the server's staging directory.
    pub fn base_path(&self, dir: NodeId) -> Result<Option<RelPath>> {
        self.path(dir, |node| Ok(self.base_places(node)?.into_iter().next()))
    }

    /// The path of a place in the base tree.
    pub fn base_path_of(&self, place: &Place) -> Result<Option<RelPath>> {
        let parent = self.base_path(place.parent)?;
        Ok(parent.map(|path| path.join(&place.name)))
    }

    /// The path of a place for people: in the local tree, else in the base tree; else the root.
    pub fn shown_path(&self, place: &Place) -> Result<RelPath> {
        Ok(match self.local_path_of(place)? {
            Some(path) => path,
            None => self.base_path_of(place)?.unwrap_or_default(),
        })
    }

    /// Whether the base tree has the node at `place`.
    pub fn is_in_base(&self, place: &Place, node: NodeId) -> Result<bool> {
        Ok(self.base(place)?.is_some_and(|entry| entry.node == node))
    }

    /// The hash of what was last agreed on of a file's content, if it is known.
    pub(super) fn agreed_hash(&self, node: &Node) -> Result<Option<Hash>> {
        if node.hash.is_some() {
            return Ok(node.hash);
        }
        Ok(self.base_version(node.id)?.and_then(|version| version.hash))
    }

    /// What base has of the node, at the first of its places.
    pub(super) fn base_version(&self, node: NodeId) -> Result<Option<Version>> {
        let place = self.base_places(node)?.into_iter().next();
        let base = place.map(|place| self.base(&place)).transpose()?.flatten();
        Ok(base.map(|base| base.version))
    }

    /// This replica's own directory in the server's staging area, for moves that need a way station.
    fn staging(&self) -> Result<RelPath> {
        let client = self.meta(CLIENT_ID)?.unwrap_or_default();
        let client: String = client.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!(".roamhome/staging/{client}-moves");
        Ok(RelPath::parse(path.as_bytes()).unwrap_or_default())
    }

    /// Walks from `node` up to the root.
    fn path(
        &self,
        mut node: NodeId,
        place: impl Fn(NodeId) -> Result<Option<Place>>,
    ) -> Result<Option<RelPath>> {
        let mut names = Vec::new();
        while node != NodeId::ROOT {
            if node == NodeId::STAGING {
                names.extend(self.staging()?.names().iter().rev().cloned());
                break;
            }
            let Some(place) = place(node)? else {
                return Ok(None);
            };
            if names.len() == DEEPEST {
                return Ok(None);
            }
            names.push(place.name);
            node = place.parent;
        }
        Ok(Some(names.into_iter().rev().collect()))
    }
}
