//! Changing the index: row changes are gathered here and take effect together, or not at all.

use std::ops::Deref;

use super::content::ContentStore;
use super::error::ReplicaError;
use super::index::State;
use super::rows::{Counter, Deed, Intent, LocalBackup, Node, Observation, Problem};
use super::table::{
    Backups, Base, BaseLike, BaseOf, Changes, Counters, Deeds, Dirty, Doomed, InFlight, Intents,
    Links, LinksOf, Meta, Nodes, Problems, Racy, Remote, Table, Unsynced, Xattrs,
};
use super::view::{View, looks};
use crate::tree::{BaseEntry, Kind, NodeId, Place, Time};

/// Node ids are reserved this many at a time; after a crash the rest of them is not used.
const RESERVE: u64 = 1024;

type Result<T> = std::result::Result<T, ReplicaError>;

/// Changes to come, on top of what they change: reads see them.
pub struct Tx<'a> {
    view: View<'a>,
    moves: Vec<Move>,
}

/// Content that changes directories together with its row.
pub(super) struct Move {
    pub(super) node: NodeId,
    /// From `content/` to `unsent/`, or back.
    pub(super) unsent: bool,
}

impl<'a> Deref for Tx<'a> {
    type Target = View<'a>;

    fn deref(&self) -> &View<'a> {
        &self.view
    }
}

impl<'a> Tx<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        Self {
            view: View::new(state),
            moves: Vec::new(),
        }
    }

    /// What has to be written, and the content that has to follow it.
    pub(super) fn finish(self) -> (Changes, Vec<Move>) {
        (self.view.own, self.moves)
    }

    pub(super) fn set<T: Table>(&mut self, key: T::Key, value: Option<T::Value>) {
        T::rows_mut(&mut self.view.own).insert(key, value);
    }

    /// A new node's id: greater than all before, and never given again.
    pub fn alloc_node(&mut self) -> Result<NodeId> {
        let id = self.first_unborne(self.state.next_node.get())?;
        if id >= self.counter(Counter::ReservedNodes)? {
            self.set::<Counters>(Counter::ReservedNodes, Some(id + RESERVE));
        }
        // Advances even if the transaction fails: content may bear the number already.
        self.state.next_node.set(id + 1);
        Ok(NodeId(id))
    }

    /// Takes a number that came back from before: it is not given again.
    pub(super) fn take_number(&mut self, id: NodeId) -> Result<()> {
        let next = id.0.saturating_add(1);
        if next > self.state.next_node.get() {
            self.state.next_node.set(next);
        }
        if next > self.counter(Counter::ReservedNodes)? {
            self.set_counter(Counter::ReservedNodes, next);
        }
        Ok(())
    }

    /// The first number from `id` on that no content bears. A power loss, or a disk that rots, may have undone that it
    /// was given: who gets it again must not find another file's content there.
    fn first_unborne(&self, mut id: u64) -> Result<u64> {
        let store = ContentStore::at(self.state.index.parent().unwrap_or(&self.state.index));
        while store.is_borne(NodeId(id))? {
            id += 1;
        }
        Ok(id)
    }

    /// Adds or replaces a node. Its content file moves to `unsent/` or back with `data_changed`.
    pub fn put_node(&mut self, node: Node) -> Result<()> {
        let old = self.node(node.id)?;
        self.count(old.as_ref(), Some(&node))?;
        let was_changed = old.as_ref().is_some_and(|old| old.data_changed);
        // A new empty file has no content that could be in the wrong directory.
        let has_content = old.is_some() || node.size > 0;
        if node.kind == Kind::File && has_content && was_changed != node.data_changed {
            self.moves.push(Move {
                node: node.id,
                unsent: node.data_changed,
            });
        }
        if node.has_sent_content() && !old.is_some_and(|old| old.has_same_content(&node)) {
            self.set::<Unsynced>(node.id, Some(self.state.updates));
        }
        self.set::<Nodes>(node.id, Some(node));
        Ok(())
    }

    /// Says that the content of `node` as it was at the update `since` is on the disk.
    pub(super) fn settle(&mut self, node: NodeId, since: u64) -> Result<()> {
        if self.unsynced_since(node)? == Some(since) {
            self.set::<Unsynced>(node, None);
        }
        Ok(())
    }

    /// Says that power loss takes nothing of a node's content that the index does not know of.
    pub(super) fn forget_unsynced(&mut self, node: NodeId) {
        self.set::<Unsynced>(node, None);
    }

    /// Removes a node with all that belongs to it; its places are the caller's. Its content goes once that
    /// is durable.
    pub fn remove_node(&mut self, id: NodeId) -> Result<()> {
        let Some(old) = self.node(id)? else {
            return Ok(());
        };
        self.count(Some(&old), None)?;
        for (name, _) in self.xattrs(id)? {
            self.set::<Xattrs>((id, name), None);
        }
        self.set::<InFlight>(id, None);
        self.set::<Unsynced>(id, None);
        self.set_pin(id, false)?;
        self.set::<Nodes>(id, None);
        if old.kind == Kind::File {
            self.moves.retain(|to_move| to_move.node != id);
            self.set::<Doomed>(id, Some(()));
        }
        Ok(())
    }

    /// Lets `place` name `node`. Rows only: the caller keeps `nlink` and times.
    pub fn link(&mut self, place: Place, node: NodeId) -> Result<()> {
        self.inherit_pin(&place, node)?;
        self.unlink(&place)?;
        self.set::<LinksOf>((node, place.clone()), Some(()));
        self.set::<Links>(place, Some(node));
        Ok(())
    }

    /// Lets `place` name nothing. Rows only.
    pub fn unlink(&mut self, place: &Place) -> Result<()> {
        if let Some(node) = self.get::<Links>(place)? {
            self.set::<LinksOf>((node, place.clone()), None);
            self.set::<Links>(place.clone(), None);
        }
        Ok(())
    }

    /// Sets what is agreed on at `place`.
    pub fn set_base(&mut self, place: Place, entry: Option<BaseEntry>) -> Result<()> {
        if let Some(old) = self.base(&place)? {
            self.set::<BaseOf>((old.node, place.clone()), None);
            self.set::<BaseLike>((looks(&old.version), place.clone()), None);
        }
        if let Some(entry) = &entry {
            self.set::<BaseOf>((entry.node, place.clone()), Some(()));
            self.set::<BaseLike>((looks(&entry.version), place.clone()), Some(()));
        }
        self.set::<Base>(place, entry);
        Ok(())
    }

    /// Remembers what was seen on the server at `place`; `None` if it is as in base.
    pub fn observe(&mut self, place: Place, seen: Option<Observation>) -> Result<()> {
        self.set::<Remote>(place, seen);
        Ok(())
    }

    /// Says that what was seen on the server at `place` may change without showing it.
    pub fn mark_racy(&mut self, place: Place) -> Result<()> {
        self.set::<Racy>(place, Some(()));
        Ok(())
    }

    /// Says that what was seen at `place` is all that there is.
    pub fn clear_racy(&mut self, place: &Place) -> Result<()> {
        if self.is_racy(place)? {
            self.set::<Racy>(place.clone(), None);
        }
        Ok(())
    }

    /// Says that local differs from base at `place`. The earliest `since` stays until it is cleared.
    pub fn mark_dirty(&mut self, place: Place, since: Time) -> Result<()> {
        if !self.is_dirty(&place)? {
            self.add(Counter::DirtyPlaces, 0, 1)?;
            self.set::<Dirty>(place, Some(since));
        }
        Ok(())
    }

    /// Says that local and base agree at `place`.
    pub fn clear_dirty(&mut self, place: &Place) -> Result<()> {
        if self.is_dirty(place)? {
            self.add(Counter::DirtyPlaces, 1, 0)?;
            self.set::<Dirty>(place.clone(), None);
        }
        Ok(())
    }

    /// Sets or removes an extended attribute.
    pub fn set_xattr(&mut self, node: NodeId, name: &[u8], value: Option<Vec<u8>>) -> Result<()> {
        self.set::<Xattrs>((node, name.to_vec()), value);
        Ok(())
    }

    /// Remembers a value.
    pub fn set_meta(&mut self, name: &str, value: Option<Vec<u8>>) -> Result<()> {
        self.set::<Meta>(name.to_owned(), value);
        Ok(())
    }

    /// Says what this machine is about to make of `place` on the server; `None` once the outcome is known.
    pub fn intend(&mut self, place: Place, intent: Option<Intent>) -> Result<()> {
        self.set::<Intents>(place, intent);
        Ok(())
    }

    /// A new backup's id, never given again.
    pub fn alloc_backup(&mut self) -> Result<u64> {
        let id = self.counter(Counter::Backups)?;
        self.set::<Counters>(Counter::Backups, Some(id + 1));
        Ok(id)
    }

    /// Gives no id of a backup before `next` any more.
    pub(super) fn skip_backups(&mut self, next: u64) -> Result<()> {
        let id = self.counter(Counter::Backups)?.max(next);
        self.set::<Counters>(Counter::Backups, Some(id));
        Ok(())
    }

    /// A new pass's id, never given again.
    pub fn alloc_pass(&mut self) -> Result<u64> {
        let id = self.counter(Counter::Passes)? + 1;
        self.set_counter(Counter::Passes, id);
        Ok(id)
    }

    /// Remembers content kept in `backups/`.
    pub fn add_backup(&mut self, backup: LocalBackup) -> Result<()> {
        self.set::<Backups>(backup.id, Some(backup));
        Ok(())
    }

    /// Forgets content kept in `backups/`; its file is the caller's.
    pub fn remove_backup(&mut self, id: u64) -> Result<()> {
        self.set::<Backups>(id, None);
        Ok(())
    }

    /// Remembers what a pass did.
    pub fn add_deed(&mut self, pass: u64, number: u64, deed: Deed) -> Result<()> {
        self.set::<Deeds>((pass, number), Some(deed));
        Ok(())
    }

    /// Forgets what a pass did.
    pub fn remove_deed(&mut self, pass: u64, number: u64) -> Result<()> {
        self.set::<Deeds>((pass, number), None);
        Ok(())
    }

    /// Sets or removes what a person should know about `place`.
    pub fn set_problem(&mut self, place: Place, problem: Option<Problem>) -> Result<()> {
        self.set::<Problems>(place, problem);
        Ok(())
    }

    /// Shows a problem of `place`, under its path for people.
    pub fn note_problem(&mut self, place: &Place, message: String, since: Time) -> Result<()> {
        let problem = Problem {
            path: self.shown_path(place)?,
            message,
            since,
        };
        self.set_problem(place.clone(), Some(problem))
    }

    /// Says that a node's content may differ from its row, or that it is gone at its last close: start-up
    /// looks at both.
    pub fn mark_in_flight(&mut self, node: NodeId) -> Result<()> {
        self.set::<InFlight>(node, Some(()));
        Ok(())
    }

    /// Says that a node's row holds again.
    pub fn clear_in_flight(&mut self, node: NodeId) -> Result<()> {
        self.set::<InFlight>(node, None);
        Ok(())
    }

    pub(super) fn bury(&mut self, node: NodeId) {
        self.set::<Doomed>(node, None);
    }

    pub(super) fn set_counter(&mut self, counter: Counter, value: u64) {
        self.set::<Counters>(counter, Some(value));
    }

    /// Replaces what `old` adds to the counters by what `new` adds.
    fn count(&mut self, old: Option<&Node>, new: Option<&Node>) -> Result<()> {
        let shares = Counter::shares(old).into_iter().zip(Counter::shares(new));
        for ((counter, less), (_, more)) in shares {
            self.add(counter, less, more)?;
        }
        Ok(())
    }

    fn add(&mut self, counter: Counter, less: u64, more: u64) -> Result<()> {
        if less != more {
            let value = self.counter(counter)?;
            self.set_counter(counter, value.saturating_add(more).saturating_sub(less));
        }
        Ok(())
    }
}
