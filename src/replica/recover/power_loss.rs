//! What a power loss leaves: rows that may be older or newer than the content they tell of.
//!
//! Rows come to the disk in order, content as the disk pleases. What a program synced is there, row and content.
//! Of the rest, what is here may be half of what was written: it is sent if it is more than nothing, for nobody
//! else has it, but it never counts as what the server has, and never is an emptied file preferred to that.

use std::collections::{BTreeMap, BTreeSet};

use super::super::content::{ContentStore, Which};
use super::super::rows::{Content, Intent, LocalBackup, Node, TORN};
use super::super::tx::Tx;
use super::super::view::View;
use super::{Result, renew};
use crate::tree::{BaseEntry, Kind, NodeId, Time};

/// What was about to be sent, by node and `data_seq`: its place may have another name by now.
pub(super) struct BeingSent(BTreeMap<(NodeId, u64), Intent>);

impl BeingSent {
    pub(super) fn read(view: &View<'_>) -> Result<Self> {
        let intents = view.intents()?.into_iter();
        let by_node = intents.map(|(_, intent)| ((intent.node, intent.data_seq), intent));
        Ok(Self(by_node.collect()))
    }

    /// What was to be sent of the content as its row has it.
    fn of(&self, node: &Node) -> Option<&Intent> {
        self.0.get(&(node.id, node.data_seq))
    }

    /// Whether anything of it was to be sent.
    fn has(&self, node: NodeId) -> bool {
        self.0.range((node, 0)..=(node, u64::MAX)).next().is_some()
    }

    /// By how much its `data_seq` jumps when some of the content is lost, so that it says so, however often that
    /// happens and whatever was written to the rest in between. `None` if it was written to since it was to be sent.
    fn jump(&self, node: &Node) -> Option<u64> {
        let mut before = self.0.range((node.id, 0)..=(node.id, node.data_seq));
        let (&(_, sent), _) = before.next_back()?;
        match node.data_seq - sent {
            0 => Some(TORN),
            since if since >= TORN => Some(since.next_multiple_of(TORN) - since),
            _ => None,
        }
    }
}

/// What was kept has its number, although the row that gave it may be lost. Before anything else is kept.
pub(super) fn skip_kept(tx: &mut Tx<'_>, content: &ContentStore) -> Result<()> {
    tx.skip_backups(kept(content)?.last().map_or(0, |last| last + 1))
}

/// The numbers of the kept content that is on the disk.
fn kept(content: &ContentStore) -> Result<BTreeSet<u64>> {
    let files = content.list_backups()?.into_iter();
    Ok(files.map(|(id, _)| id).collect())
}

/// A look at all that was on its way to the disk; what is settled there is not looked at.
pub(super) struct Look<'a> {
    content: &'a ContentStore,
    being_sent: BeingSent,
    now: Time,
    /// Whose content was worth nothing.
    removed: BTreeSet<NodeId>,
}

impl<'a> Look<'a> {
    pub(super) fn new(content: &'a ContentStore, being_sent: BeingSent, now: Time) -> Self {
        Self {
            content,
            being_sent,
            now,
            removed: BTreeSet::new(),
        }
    }

    /// Makes sure that what was removed stays so: if the next power loss brought it back, it would stand under a row
    /// that tells of what was written since.
    pub(super) fn end(self) -> Result<()> {
        self.content.sync_removals(self.removed)
    }

    /// Looks at all but what was open.
    pub(super) fn all(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let unsynced: BTreeSet<NodeId> = tx.unsynced()?.into_iter().map(|(id, _)| id).collect();
        for id in self.unsent(tx)? {
            let Some(node) = tx.node(id)? else {
                continue; // It stays for `check` and `rescue`.
            };
            match node.data_changed || node.scoped {
                true => self.changed(tx, node)?,
                false => self.unchanged(tx, &node)?,
            }
        }
        for id in unsynced {
            self.distrust(tx, id)?;
        }
        let kept = kept(self.content)?;
        for backup in tx.backups()? {
            if !kept.contains(&backup.id) {
                tracing::warn!(path = %backup.path, "a kept version did not reach the disk");
                tx.remove_backup(backup.id)?;
            }
        }
        Ok(())
    }

    /// The nodes with content that the server does not have, by their rows or by their files.
    fn unsent(&self, tx: &Tx<'_>) -> Result<BTreeSet<NodeId>> {
        let files = self.content.list(Which::Unsent)?.into_iter();
        let mut nodes: BTreeSet<NodeId> = files.map(|(id, _)| id).collect();
        for (place, _) in tx.dirty(usize::MAX)? {
            nodes.extend(tx.child(place.parent, &place.name)?);
        }
        Ok(nodes)
    }

    /// A program had it open for writing. What it synced since the content was sent, the row knows.
    pub(super) fn in_flight(&mut self, tx: &mut Tx<'_>, id: NodeId) -> Result<()> {
        tx.clear_in_flight(id)?;
        let Some(node) = tx.node(id)? else {
            return Ok(());
        };
        if node.nlink == 0 {
            return tx.remove_node(id);
        }
        if node.data_changed || node.scoped {
            return self.changed(tx, node);
        }
        let Some((size, mtime)) = self.content.stat(id)? else {
            return Ok(());
        };
        let sent = tx.agreed_hash(&node)?;
        let begins_with_sent =
            sent.is_some() && self.content.hash_of_start(id, true, node.size)? == sent;
        match (begins_with_sent, size == node.size) {
            (true, true) => Ok(()),
            // Added to what was sent, or too little is known of that.
            (true, false) => renew(tx, id, (size, mtime), self.now),
            (false, _) if sent.is_none() => renew(tx, id, (size, mtime), self.now),
            (false, _) => self.put_aside(tx, node),
        }
    }

    /// What is here is not what the server has, and nobody synced it: it is kept, and the server's counts.
    fn put_aside(&mut self, tx: &mut Tx<'_>, node: Node) -> Result<()> {
        let (id, path) = (tx.alloc_backup()?, tx.local_path(node.id)?);
        self.content.link_to_backup(node.id, id)?;
        self.content.sync_backup(id)?;
        tx.add_backup(LocalBackup {
            path: path.unwrap_or_default(),
            version: node.version(),
            at: self.now,
            why: "what a power loss left of it".into(),
            id,
            unsent: true,
        })?;
        self.absent(tx, node)
    }

    fn absent(&mut self, tx: &mut Tx<'_>, node: Node) -> Result<()> {
        self.content.remove(node.id)?;
        self.removed.insert(node.id);
        tx.forget_unsynced(node.id);
        tx.put_node(Node {
            content: Content::Absent,
            ..node
        })
    }

    /// The row says that a program changed the content.
    fn changed(&mut self, tx: &mut Tx<'_>, node: Node) -> Result<()> {
        if node.kind != Kind::File {
            return Ok(());
        }
        let found = self.content.stat(node.id)?;
        if found.is_some() {
            let hint = tx.local_path(node.id)?;
            self.content.follow(node.id, true, || hint);
        }
        match found {
            Some(state) if state.0 == node.size => self.as_long(tx, node, state),
            None if node.size == 0 => Ok(()),
            Some(state) if state.0 > 0 => self.cut_short(tx, node, state),
            _ => self.lost(tx, node),
        }
    }

    /// As much is left of a change as its row says.
    fn as_long(&mut self, tx: &mut Tx<'_>, node: Node, state: (u64, Time)) -> Result<()> {
        let sent = self.being_sent.of(&node).and_then(|sent| sent.version.hash);
        let base = tx.base_version(node.id)?;
        let base = base.filter(|base| base.kind == Kind::File && base.size == node.size);
        let agreed = base.and_then(|base| base.hash);
        // What base says of what is on its way may be old.
        let Some(known) = sent.or(agreed.filter(|_| !self.being_sent.has(node.id))) else {
            return Ok(());
        };
        let is_known = self.content.hash(node.id, true, node.size)? == Some(known);
        match (sent.is_some(), is_known) {
            (true, false) => self.cut_short(tx, node, state),
            (false, true) => {
                // Nothing was written yet: whoever writes next says so on the disk first.
                self.content.follow(node.id, false, || None);
                tx.put_node(Node {
                    data_changed: false,
                    hash: Some(known),
                    ..node
                })
            }
            _ => Ok(()),
        }
    }

    /// Nothing of a change is left. What the server has is more.
    fn lost(&mut self, tx: &mut Tx<'_>, node: Node) -> Result<()> {
        // What it was itself before what stood in its place: it may have been renamed over something.
        let own = tx.base_places(node.id)?.into_iter();
        for place in own.chain(tx.places(node.id)?) {
            let Some(BaseEntry { version, node: had }) = tx.base(&place)? else {
                continue;
            };
            // What was renamed away from there has it already.
            let is_elsewhere = had != node.id && !tx.places(had)?.is_empty();
            if version.kind != Kind::File || is_elsewhere {
                continue;
            }
            tracing::warn!(
                ?place,
                "what was written did not reach the disk; the server's version takes its place"
            );
            let jump = self.being_sent.jump(&node).unwrap_or(0);
            return tx.put_node(Node {
                data_seq: node.data_seq + jump,
                size: version.size,
                mtime: Time::new(version.mtime, 0),
                ctime: self.now,
                content: Content::Absent,
                data_changed: false,
                hash: version.hash,
                ..node
            });
        }
        let mtime = node.mtime;
        self.cut_short(tx, node, (0, mtime))
    }

    /// The row says what is left, and that it is not what was being sent.
    fn cut_short(&mut self, tx: &mut Tx<'_>, node: Node, state: (u64, Time)) -> Result<()> {
        let jump = self.being_sent.jump(&node).unwrap_or(1);
        renew(tx, node.id, state, self.now)?;
        match tx.node(node.id)? {
            Some(renewed) => tx.put_node(Node {
                data_seq: node.data_seq + jump,
                ..renewed
            }),
            None => Ok(()),
        }
    }

    /// The row says that the content is the server's, and there is a file that is to be sent. Who writes to what the
    /// server has says so on the disk first ([`Tx::mark_in_flight`]): so the file was sent, and its way to where sent
    /// files are did not reach the disk. Or it is one before it: then it counts for nothing.
    fn unchanged(&mut self, tx: &mut Tx<'_>, node: &Node) -> Result<()> {
        let found = self.content.stat(node.id)?;
        let Some(state) = found.filter(|_| self.content.has_unsent(node.id)) else {
            return Ok(());
        };
        if !node.is_the_servers() {
            // A program wrote to an empty file, without a word of it in the row.
            return match state.0 {
                0 => self.remove_unsent(node.id),
                _ => renew(tx, node.id, state, self.now),
            };
        }
        let agreed = tx.agreed_hash(node)?;
        let is_agreed = agreed.is_some() && self.content.hash(node.id, true, node.size)? == agreed;
        match self.content.has_clean(node.id) && !is_agreed {
            true => self.remove_unsent(node.id)?,
            false => self.content.follow(node.id, false, || None),
        }
        self.distrust(tx, node.id)
    }

    fn remove_unsent(&mut self, id: NodeId) -> Result<()> {
        self.removed.insert(id);
        self.content.remove_unsent(id)
    }

    /// Content that the server has is fetched again, unless it is known to be whole.
    fn distrust(&mut self, tx: &mut Tx<'_>, id: NodeId) -> Result<()> {
        let Some(node) = tx.node(id)? else {
            return Ok(());
        };
        if node.data_changed || node.scoped || node.content != Content::Whole {
            return Ok(());
        }
        let hash = tx.agreed_hash(&node)?;
        if hash.is_some() && self.content.hash(id, false, node.size)? == hash {
            return Ok(());
        }
        self.absent(tx, node)
    }
}
