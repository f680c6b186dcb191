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

/// Looks at all that was on its way to the disk; what is settled there is not looked at.
pub(super) fn look(
    tx: &mut Tx<'_>,
    content: &ContentStore,
    being_sent: &BeingSent,
    now: Time,
) -> Result<()> {
    let unsynced: BTreeSet<NodeId> = tx.unsynced()?.into_iter().map(|(id, _)| id).collect();
    for id in unsent(tx, content)? {
        let Some(node) = tx.node(id)? else {
            continue; // It stays for `check` and `rescue`.
        };
        match node.data_changed || node.scoped {
            true => changed(tx, content, being_sent, node, now)?,
            false => unchanged(tx, content, &node, now)?,
        }
    }
    for id in unsynced {
        distrust(tx, content, id)?;
    }
    let kept = kept(content)?;
    for backup in tx.backups()? {
        if !kept.contains(&backup.id) {
            tracing::warn!(path = %backup.path, "a kept version did not reach the disk");
            tx.remove_backup(backup.id)?;
        }
    }
    Ok(())
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

/// The nodes with content that the server does not have, by their rows or by their files.
fn unsent(tx: &Tx<'_>, content: &ContentStore) -> Result<BTreeSet<NodeId>> {
    let files = content.list(Which::Unsent)?.into_iter();
    let mut nodes: BTreeSet<NodeId> = files.map(|(id, _)| id).collect();
    for (place, _) in tx.dirty(usize::MAX)? {
        nodes.extend(tx.child(place.parent, &place.name)?);
    }
    Ok(nodes)
}

/// A program had it open for writing. What it synced since the content was sent, the row knows.
pub(super) fn in_flight(
    tx: &mut Tx<'_>,
    content: &ContentStore,
    being_sent: &BeingSent,
    id: NodeId,
    now: Time,
) -> Result<()> {
    tx.clear_in_flight(id)?;
    let Some(node) = tx.node(id)? else {
        return Ok(());
    };
    if node.nlink == 0 {
        return tx.remove_node(id);
    }
    if node.data_changed || node.scoped {
        return changed(tx, content, being_sent, node, now);
    }
    let Some((size, mtime)) = content.stat(id)? else {
        return Ok(());
    };
    let sent = tx.agreed_hash(&node)?;
    let begins_with_sent = sent.is_some() && content.hash_of_start(id, true, node.size)? == sent;
    match (begins_with_sent, size == node.size) {
        (true, true) => Ok(()),
        // Added to what was sent, or too little is known of that.
        (true, false) => renew(tx, id, (size, mtime), now),
        (false, _) if sent.is_none() => renew(tx, id, (size, mtime), now),
        (false, _) => put_aside(tx, content, node, now),
    }
}

/// What is here is not what the server has, and nobody synced it: it is kept, and the server's counts.
fn put_aside(tx: &mut Tx<'_>, content: &ContentStore, node: Node, now: Time) -> Result<()> {
    let (id, path) = (tx.alloc_backup()?, tx.local_path(node.id)?);
    content.link_to_backup(node.id, id)?;
    content.sync_backup(id)?;
    tx.add_backup(LocalBackup {
        path: path.unwrap_or_default(),
        version: node.version(),
        at: now,
        why: "what a power loss left of it".into(),
        id,
        unsent: true,
    })?;
    absent(tx, content, node)
}

fn absent(tx: &mut Tx<'_>, content: &ContentStore, node: Node) -> Result<()> {
    content.remove(node.id)?;
    tx.forget_unsynced(node.id);
    tx.put_node(Node {
        content: Content::Absent,
        ..node
    })
}

/// The row says that a program changed the content.
fn changed(
    tx: &mut Tx<'_>,
    content: &ContentStore,
    being_sent: &BeingSent,
    node: Node,
    now: Time,
) -> Result<()> {
    if node.kind != Kind::File {
        return Ok(());
    }
    let found = content.stat(node.id)?;
    if found.is_some() {
        let hint = tx.local_path(node.id)?;
        content.follow(node.id, true, || hint);
    }
    match found {
        Some(state) if state.0 == node.size => as_long(tx, content, being_sent, node, state, now),
        None if node.size == 0 => Ok(()),
        Some(state) if state.0 > 0 => cut_short(tx, being_sent, node, state, now),
        _ => lost(tx, being_sent, node, now),
    }
}

/// As much is left of a change as its row says.
fn as_long(
    tx: &mut Tx<'_>,
    content: &ContentStore,
    being_sent: &BeingSent,
    node: Node,
    state: (u64, Time),
    now: Time,
) -> Result<()> {
    let sent = being_sent.of(&node).and_then(|sent| sent.version.hash);
    let base = tx.base_version(node.id)?;
    let base = base.filter(|base| base.kind == Kind::File && base.size == node.size);
    let agreed = base.and_then(|base| base.hash);
    // What base says of what is on its way may be old.
    let Some(known) = sent.or(agreed.filter(|_| !being_sent.has(node.id))) else {
        return Ok(());
    };
    let is_known = content.hash(node.id, true, node.size)? == Some(known);
    match (sent.is_some(), is_known) {
        (true, false) => cut_short(tx, being_sent, node, state, now),
        (false, true) => {
            // Nothing was written yet: whoever writes next says so on the disk first.
            content.follow(node.id, false, || None);
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
fn lost(tx: &mut Tx<'_>, being_sent: &BeingSent, node: Node, now: Time) -> Result<()> {
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
        let jump = being_sent.jump(&node).unwrap_or(0);
        return tx.put_node(Node {
            data_seq: node.data_seq + jump,
            size: version.size,
            mtime: Time::new(version.mtime, 0),
            ctime: now,
            content: Content::Absent,
            data_changed: false,
            hash: version.hash,
            ..node
        });
    }
    let mtime = node.mtime;
    cut_short(tx, being_sent, node, (0, mtime), now)
}

/// The row says what is left, and that it is not what was being sent.
fn cut_short(
    tx: &mut Tx<'_>,
    being_sent: &BeingSent,
    node: Node,
    state: (u64, Time),
    now: Time,
) -> Result<()> {
    let jump = being_sent.jump(&node).unwrap_or(1);
    renew(tx, node.id, state, now)?;
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
fn unchanged(tx: &mut Tx<'_>, content: &ContentStore, node: &Node, now: Time) -> Result<()> {
    let Some(state) = content
        .stat(node.id)?
        .filter(|_| content.has_unsent(node.id))
    else {
        return Ok(());
    };
    if !node.is_the_servers() {
        // A program wrote to an empty file, without a word of it in the row.
        return match state.0 {
            0 => content.remove_unsent(node.id),
            _ => renew(tx, node.id, state, now),
        };
    }
    let agreed = tx.agreed_hash(node)?;
    let is_agreed = agreed.is_some() && content.hash(node.id, true, node.size)? == agreed;
    match content.has_clean(node.id) && !is_agreed {
        true => content.remove_unsent(node.id)?,
        false => content.follow(node.id, false, || None),
    }
    distrust(tx, content, node.id)
}

/// Content that the server has is fetched again, unless it is known to be whole.
fn distrust(tx: &mut Tx<'_>, content: &ContentStore, id: NodeId) -> Result<()> {
    let Some(node) = tx.node(id)? else {
        return Ok(());
    };
    if node.data_changed || node.scoped || node.content != Content::Whole {
        return Ok(());
    }
    let hash = tx.agreed_hash(&node)?;
    if hash.is_some() && content.hash(id, false, node.size)? == hash {
        return Ok(());
    }
    absent(tx, content, node)
}
