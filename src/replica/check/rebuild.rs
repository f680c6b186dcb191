//! Makes a new index where the old one is damaged: from what can be read of it, and from the content files.
//!
//! The old one is moved aside and kept. What was agreed on with the server is forgotten, for it could name what was
//! never agreed on: both sides are united then, and nothing is deleted on either. Content in `unsent/` is unsent,
//! whatever a row says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::super::content::{ContentStore, Which, disk};
use super::super::error::{AtPath, ReplicaError};
use super::super::rows::{Content, Counter, Node};
use super::super::table::{
    Backups, Changes, Counters, Dirty, Links, Meta, Nodes, Pins, Table, Xattrs,
};
use super::super::view::CLIENT_ID;
use super::super::{journal, open, recover, schema, writer};
use super::Result;
use super::salvage::{Salvage, salvage};
use crate::tree::{Kind, NodeId, Place, Time};

/// What the engine remembers of the home, and what of it stays.
const REMEMBERED: [&str; 3] = [CLIENT_ID, "home.identity", "home.published"];

/// More numbers than a crash leaves unused.
const SLACK: u64 = 4096;

/// Replaces the index in `state_dir`, which the caller has locked; tells what came of it, for people.
pub(super) fn rebuild(state_dir: &Path, now: Time) -> Result<String> {
    let aside = move_aside(state_dir)?;
    let Salvage { rows, last_journal } = salvage(&aside)?;
    let store = ContentStore::open(state_dir, now)?;
    let files = files(&store, Which::Unsent)?;
    let tree = Tree::new(&rows, &store, &files, now)?;
    put_strays_aside(&store, &tree, &aside)?;
    let (nodes, links) = (tree.nodes.len(), tree.links.len());
    let changes = tree.into_changes(rows, &store, now)?;
    let index = open::index_path(state_dir);
    let sql = |error| ReplicaError::sql(&index, error);
    // Under another name until it is whole, so that a crash leaves none rather than half of one.
    let unfinished = aside.join("new.db");
    for name in ["new.db", "new.db-wal", "new.db-shm"] {
        disk::remove_file(&aside.join(name))?;
    }
    {
        let (mut db, format) = schema::open_writer(&unfinished)?;
        schema::migrate(&mut db, format).map_err(sql)?;
        writer::write(&mut db, &changes, last_journal, true).map_err(sql)?;
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(sql)?;
    }
    fs::rename(&unfinished, &index).at(&index)?;
    disk::sync_dir(state_dir)?;
    let kept = aside.with_extension("");
    fs::rename(&aside, &kept).at(&kept)?;
    Ok(format!(
        "the index was damaged and is new: {nodes} nodes and {links} names came over, and all is compared with the \
         server again; the old one is kept in {}",
        kept.display()
    ))
}

/// Moves the files of the index into a directory of their own, or finds the one where a repair was cut off.
fn move_aside(state_dir: &Path) -> Result<PathBuf> {
    let numbered = |number: u32| state_dir.join(format!("damaged-{number}"));
    let index = open::index_path(state_dir);
    // Where a repair was cut off, what it moved waits for the next. Where it got to its end, that is another damage.
    let is_free = |path: &PathBuf| {
        let moved = open::index_path(&path.with_extension("part"));
        !(path.exists() || moved.exists() && index.exists())
    };
    // There are fewer directories than numbers.
    let aside = (1..).map(numbered).find(is_free);
    let aside = aside.unwrap_or_else(|| numbered(0)).with_extension("part");
    disk::make_dir(&aside)?;
    let mut names: Vec<PathBuf> = ["index.db-wal", "index.db-shm", "index.db"]
        .iter()
        .map(PathBuf::from)
        .collect();
    let journals = journal::numbers(state_dir)?;
    names.extend(journals.iter().map(|n| format!("journal.{n}").into()));
    for name in names {
        let from = state_dir.join(&name);
        match fs::rename(&from, aside.join(&name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            moved => moved.at(&from)?,
        }
    }
    disk::sync_dir(state_dir)?;
    Ok(aside)
}

type Files = HashMap<NodeId, PathBuf>;

fn files(store: &ContentStore, which: Which) -> Result<Files> {
    Ok(store.list(which)?.into_iter().collect())
}

/// Content of the server's that no node stands for any more; it is fetched again, and kept in case it was not the
/// server's.
fn put_strays_aside(store: &ContentStore, tree: &Tree, aside: &Path) -> Result<()> {
    let dir = aside.join("content");
    for (id, path) in files(store, Which::Clean)? {
        if !tree.nodes.contains_key(&id) {
            disk::make_dir(&dir)?;
            fs::rename(&path, dir.join(id.to_string())).at(&path)?;
        }
    }
    Ok(())
}

/// The local tree, as far as it is known.
struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<Place, NodeId>,
}

impl Tree {
    fn new(rows: &Changes, store: &ContentStore, unsent: &Files, now: Time) -> Result<Self> {
        let nodes = Nodes::rows(rows).values().flatten();
        let links = Links::rows(rows).iter();
        let mut tree = Self {
            nodes: nodes
                .filter(|node| node.nlink > 0)
                .map(|node| (node.id, node.clone()))
                .collect(),
            links: links
                .filter_map(|(place, node)| Some((place.clone(), (*node)?)))
                .collect(),
        };
        tree.fill_in(unsent, now);
        tree.leave_out_nameless(unsent);
        for id in unsent.keys() {
            if let Some(node) = tree.nodes.get_mut(id)
                && let Some((size, mtime)) = store.stat(*id)?
            {
                if !node.data_changed || node.size != size {
                    node.mtime = mtime;
                }
                node.size = size;
                node.content = Content::Whole;
                node.data_changed = true;
                node.data_seq += 1;
                node.hash = None;
            }
        }
        tree.count_links();
        Ok(tree)
    }

    /// Nodes that only a name or a content file tells of.
    fn fill_in(&mut self, unsent: &Files, now: Time) {
        let parents: BTreeSet<NodeId> = self.links.keys().map(|place| place.parent).collect();
        for id in parents.iter().chain([&NodeId::ROOT]) {
            let dir = self.nodes.entry(*id);
            let dir = dir.or_insert_with(|| recover::new_node(*id, Kind::Dir, now));
            // It holds something, or is to hold it: it must not be filled as if it were new.
            dir.listed = true;
        }
        for id in self.links.values().copied().collect::<BTreeSet<_>>() {
            if unsent.contains_key(&id) {
                let file = self.nodes.entry(id);
                file.or_insert_with(|| recover::new_node(id, Kind::File, now));
            }
        }
        let nodes = &self.nodes;
        self.links.retain(|_, id| nodes.contains_key(id));
    }

    /// What no way from the root leads to any more is left out where the server has it, or where it is nothing: under a
    /// name of the rescue it would be another file. What only this machine has stays, with the directories above it.
    fn leave_out_nameless(&mut self, unsent: &Files) {
        let reached = self.reached();
        self.nodes.retain(|id, node| {
            reached.contains(id)
                || node.kind != Kind::File
                || node.scoped
                || unsent.contains_key(id)
        });
        loop {
            let nodes = &self.nodes;
            self.links.retain(|_, id| nodes.contains_key(id));
            let parents: BTreeSet<NodeId> = self.links.keys().map(|place| place.parent).collect();
            let before = self.nodes.len();
            self.nodes.retain(|id, node| {
                reached.contains(id) || node.kind != Kind::Dir || parents.contains(id)
            });
            if self.nodes.len() == before {
                return;
            }
        }
    }

    fn reached(&self) -> BTreeSet<NodeId> {
        let mut children: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
        for (place, id) in &self.links {
            children.entry(place.parent).or_default().push(*id);
        }
        let mut reached = BTreeSet::new();
        let mut todo = vec![NodeId::ROOT];
        while let Some(id) = todo.pop() {
            if reached.insert(id) {
                todo.extend(children.remove(&id).unwrap_or_default());
            }
        }
        reached
    }

    fn count_links(&mut self) {
        let mut counts: HashMap<NodeId, u32> = HashMap::new();
        for (place, id) in &self.links {
            match self.nodes.get(id).map(|node| node.kind) {
                Some(Kind::Dir) => *counts.entry(place.parent).or_default() += 1,
                _ => *counts.entry(*id).or_default() += 1,
            }
        }
        for (id, node) in &mut self.nodes {
            let count = counts.get(id).copied().unwrap_or_default();
            node.nlink = match node.kind {
                Kind::Dir => 2 + count,
                _ => count,
            };
        }
    }

    /// The rows of the new index.
    fn into_changes(self, old: Changes, store: &ContentStore, now: Time) -> Result<Changes> {
        let mut new = Changes::default();
        self.count(&old, store, &mut new)?;
        for (place, id) in self.links {
            if self.nodes.get(&id).is_some_and(|node| !node.scoped) {
                Dirty::rows_mut(&mut new).insert(place.clone(), Some(now));
            }
            Links::rows_mut(&mut new).insert(place, Some(id));
        }
        for (key, value) in Xattrs::rows(&old) {
            if self.nodes.contains_key(&key.0) {
                Xattrs::rows_mut(&mut new).insert(key.clone(), value.clone());
            }
        }
        for (id, pinned) in Pins::rows(&old) {
            if self.nodes.contains_key(id) {
                Pins::rows_mut(&mut new).insert(*id, *pinned);
            }
        }
        for (id, node) in self.nodes {
            Nodes::rows_mut(&mut new).insert(id, Some(node));
        }
        Backups::rows_mut(&mut new).clone_from(Backups::rows(&old));
        for (key, value) in Meta::rows(&old) {
            if REMEMBERED.contains(&key.as_str()) {
                Meta::rows_mut(&mut new).insert(key.clone(), value.clone());
            }
        }
        Ok(new)
    }

    /// Counts what is there, and sees to it that no number is given twice.
    fn count(&self, old: &Changes, store: &ContentStore, new: &mut Changes) -> Result<()> {
        let counters = Counters::rows_mut(new);
        for node in self.nodes.values() {
            for (counter, share) in Counter::shares(Some(node)) {
                let sum = counters.entry(counter).or_insert(Some(0));
                *sum = sum.map(|sum| sum.saturating_add(share));
            }
        }
        let travels = |id: &&NodeId| self.nodes.get(id).is_some_and(|node| !node.scoped);
        let dirty = self.links.values().filter(travels).count();
        counters.insert(Counter::DirtyPlaces, Some(dirty as u64));
        let passes = old.counter_put(Counter::Passes);
        counters.insert(Counter::Passes, passes);
        let mut ids: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        ids.extend(files(store, Which::Clean)?.keys());
        ids.extend(files(store, Which::Unsent)?.keys());
        let greatest = ids.last().map_or(0, |id| id.0);
        // A number that is out of all reason was spoiled, and would leave none to give.
        let reserved = old.counter_put(Counter::ReservedNodes).unwrap_or_default();
        let reserved = reserved.min(greatest.saturating_add(1 << 32));
        let next = greatest.saturating_add(SLACK).max(reserved);
        counters.insert(Counter::ReservedNodes, Some(next));
        let rows = Backups::rows(old).keys().copied();
        let kept = rows.chain(store.list_backups()?.into_iter().map(|(id, _)| id));
        let next = kept.max().map_or(0, |id| id.saturating_add(1));
        counters.insert(Counter::Backups, Some(next));
        Ok(())
    }
}
