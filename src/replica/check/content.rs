//! Rows and content files must fit: whole files are there with their size, in the directory that their row
//! says, and no file is there without a row.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Checker, Result};
use crate::replica::columns::{Columns, Reader};
use crate::replica::content::Which;
use crate::replica::error::AtPath;
use crate::replica::hint::Hints;
use crate::replica::recover;
use crate::replica::rows::{Content, Counter, LocalBackup, Node};
use crate::replica::tx::Tx;
use crate::tree::{Kind, NodeId, Place, RelPath, Version};

/// Content files by node.
type Files = HashMap<NodeId, (Which, PathBuf)>;

impl Checker {
    pub(super) fn content(&mut self) -> Result<()> {
        // Before the list of files: what is removed meanwhile was doomed then.
        let doomed: HashSet<NodeId> = self
            .replica
            .view(|view| view.doomed())?
            .into_iter()
            .collect();
        let mut files = Files::new();
        for which in [Which::Clean, Which::Unsent] {
            let list = self.replica.content().list(which)?;
            files.extend(list.into_iter().map(|(node, path)| (node, (which, path))));
        }
        files.retain(|node, _| !doomed.contains(node));
        self.report.content_files = files.len() as u64;
        let nodes = self.rows(
            "SELECT id, kind, mode, uid, gid, size, atime, mtime, ctime, nlink, target, content,
             data_changed, data_seq, hash, listed, scoped FROM node WHERE kind = 0",
            |row| Node::read(&mut Reader::new(row)),
        )?;
        for node in nodes {
            match files.remove(&node.id) {
                Some((which, _)) => self.file(&node, which)?,
                None => self.missing(&node)?,
            }
        }
        let strays: BTreeMap<_, _> = files.into_iter().collect();
        for (node, (which, path)) in strays {
            self.stray(node, which, &path)?;
        }
        self.backups()
    }

    fn file(&mut self, node: &Node, which: Which) -> Result<()> {
        let id = node.id;
        let Some((len, mtime)) = self.replica.content().stat(id)? else {
            return self.missing(node);
        };
        let shown = self.path(id);
        let fits = node.content != Content::Whole || node.size == len;
        match (which, node.data_changed) {
            (Which::Clean, false) if !fits => {
                let what = format!("{shown}: {} bytes in the index, {len} here", node.size);
                self.found(what, |tx| forget_content(tx, id))?;
                if self.repair {
                    self.replica.content().evict(id)?;
                }
            }
            (Which::Clean, false) => {
                if self.read_content && !self.is_as_agreed(node)? {
                    self.rotten(node)?;
                }
            }
            // What was agreed on before it was changed.
            (Which::Clean, true) if self.is_base(node, len)? => self.missing(node)?,
            (_, true) if !fits => {
                self.renew(
                    format!("{shown}: {} bytes in the index, {len} unsent", node.size),
                    id,
                )?;
                self.put(id, true)?;
            }
            (Which::Unsent, true) => {}
            (Which::Clean, true) => {
                self.follow(
                    format!("{shown}: unsent, but among what the server has"),
                    id,
                    true,
                )?;
            }
            // Which of the two is wrong, the file's place or its row, only what was agreed on can tell.
            (Which::Unsent, false)
                if !fits
                    || mtime > node.mtime
                    || node.hash.is_none()
                    || !self.replica.content().is_as_agreed(node)? =>
            {
                self.renew(format!("{shown}: changed, and the index does not know"), id)?;
            }
            (Which::Unsent, false) => {
                self.follow(format!("{shown}: sent, but among the unsent"), id, false)?;
            }
        }
        Ok(())
    }

    /// Whether the content here may be what was last agreed on, by the hash of the row or else of base.
    fn is_as_agreed(&self, node: &Node) -> Result<bool> {
        let hash = self.replica.view(|view| view.agreed_hash(node))?;
        let node = Node {
            hash,
            ..node.clone()
        };
        self.replica.content().is_as_agreed(&node)
    }

    /// Whether the content here is what was last agreed on with the server.
    fn is_base(&self, node: &Node, len: u64) -> Result<bool> {
        let agreed = self.replica.view(|view| view.agreed_hash(node))?;
        let found = self.replica.content().hash(node.id, false, len)?;
        Ok(agreed.is_some() && agreed == found)
    }

    /// Content that is not what was agreed on, although nobody wrote to it.
    fn rotten(&mut self, node: &Node) -> Result<()> {
        let mut what = format!("{}: its content has rotted on the disk", self.path(node.id));
        if self.repair {
            let aside = self.replica.content().quarantine(node)?;
            what += &format!("; it is in {}, and will be fetched again", aside.display());
        }
        let id = node.id;
        self.found(what, |tx| forget_content(tx, id))
    }

    /// Lets the row say what the file is, and that it has to be sent.
    fn renew(&mut self, what: String, id: NodeId) -> Result<()> {
        let state = self.replica.content().stat(id)?;
        let now = self.now;
        self.found(what, |tx| match state {
            Some(state) => recover::renew(tx, id, state, now),
            None => Ok(()),
        })
    }

    /// Moves the file to where its row says.
    fn follow(&mut self, what: String, id: NodeId, unsent: bool) -> Result<()> {
        self.put(id, unsent)?;
        self.found(what, |_| Ok(()))
    }

    /// Moves the file to `unsent/`, or to `content/`.
    fn put(&self, id: NodeId, unsent: bool) -> Result<()> {
        let hint = self.replica.view(|view| view.local_path(id))?;
        if self.repair {
            self.replica.content().follow(id, unsent, || hint);
        }
        Ok(())
    }

    /// A file's row without content.
    fn missing(&mut self, node: &Node) -> Result<()> {
        if node.content == Content::Absent || node.size == 0 {
            return Ok(());
        }
        let (id, shown) = (node.id, self.path(node.id));
        if node.data_changed {
            self.found_for_good(format!("{shown}: its unsent content is missing"));
            return Ok(());
        }
        let what = format!("{shown}: its content is missing; it will be fetched again");
        self.found(what, |tx| forget_content(tx, id))
    }

    /// Content without a row.
    fn stray(&mut self, id: NodeId, which: Which, path: &Path) -> Result<()> {
        if which == Which::Clean {
            if self.repair {
                self.replica.content().evict(id)?;
            }
            return self.found(
                format!("content of node {id}: nothing needs it"),
                |_| Ok(()),
            );
        }
        let Some((size, mtime)) = self.replica.content().stat(id)? else {
            return Ok(());
        };
        let logged = self.replica.content().hints().logged()?.remove(&id);
        let hint = Hints::of_file(&File::open(path).at(path)?).or(logged);
        let node = Node {
            size,
            mtime,
            content: Content::Whole,
            data_changed: true,
            ..recover::new_node(id, Kind::File, self.now)
        };
        let what = match &hint {
            Some(hint) => format!("{hint}: unsent content that the index does not know"),
            None => format!("unsent content of node {id}: the index does not know it"),
        };
        let now = self.now;
        self.found(what, |tx| {
            let place = free_place(tx, hint.as_ref(), id)?;
            tx.take_number(id)?;
            tx.put_node(node)?;
            tx.link(place.clone(), id)?;
            tx.mark_dirty(place, now)
        })
    }

    /// Backups and their files.
    fn backups(&mut self) -> Result<()> {
        let rows = self.replica.view(|view| view.backups())?;
        let files = self.replica.content().list_backups()?;
        let known: BTreeSet<u64> = rows.iter().map(|row| row.id).collect();
        let there: BTreeSet<u64> = files.into_iter().map(|(id, _)| id).collect();
        for row in rows.iter().filter(|row| !there.contains(&row.id)) {
            let what = format!("{}: the content of backup {} is missing", row.path, row.id);
            self.found(what, |tx| tx.remove_backup(row.id))?;
        }
        for id in there.difference(&known) {
            self.unknown_backup(*id)?;
        }
        Ok(())
    }

    /// A backup's file without a row: nobody knows what it is, so it is kept as if it were the only copy.
    fn unknown_backup(&mut self, id: u64) -> Result<()> {
        let file = self.replica.content().open_backup(id)?;
        let metadata = file.metadata().at(self.replica.state_dir())?;
        let path = Hints::of_file(&file).unwrap_or_else(|| {
            let name = format!("recovered-backup-{id}");
            RelPath::parse(name.as_bytes()).unwrap_or_default()
        });
        let (now, mtime) = (self.now, metadata.mtime());
        self.found(
            format!("backup {id}: the index does not know this file; kept"),
            |tx| {
                let next = tx.counter(Counter::Backups)?.max(id.saturating_add(1));
                tx.set_counter(Counter::Backups, next);
                tx.add_backup(LocalBackup {
                    path,
                    version: Version::file(metadata.len(), mtime, 0o600),
                    at: now,
                    why: "found without a note".into(),
                    id,
                    unsent: true,
                })
            },
        )
    }
}

fn forget_content(tx: &mut Tx<'_>, id: NodeId) -> Result<()> {
    if let Some(node) = tx.node(id)? {
        tx.put_node(Node {
            content: Content::Absent,
            ..node
        })?;
    }
    Ok(())
}

/// Where the hint says, if the directory is there and the name is free; else a name in the root.
fn free_place(tx: &Tx<'_>, hint: Option<&RelPath>, id: NodeId) -> Result<Place> {
    let recovered = super::tree::recovered_place(id);
    let Some((name, dirs)) = hint.and_then(|hint| hint.names().split_last()) else {
        return Ok(recovered);
    };
    let mut dir = NodeId::ROOT;
    for name in dirs {
        match tx.child(dir, name)? {
            Some(child) => dir = child,
            None => return Ok(recovered),
        }
    }
    let is_dir = tx.node(dir)?.is_some_and(|node| node.kind == Kind::Dir);
    let is_free = tx.child(dir, name)?.is_none();
    Ok(match is_dir && is_free {
        true => Place::new(dir, name.clone()),
        false => recovered,
    })
}
