//! Taking a directory of the disk over into the home: as if everything in it had been made here, with its times,
//! owners, attributes and links. The directory itself is only read.
//!
//! What an earlier import brought, and is still the same there by kind, size and time, is not read again; what is gone
//! there goes here, too. So it is done before anything else is done with the home, and can be done again and again.

use std::collections::{BTreeSet, HashMap};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::change::Change;
use super::dir::children;
use super::{AclKind, FsError, Home, Stop, is_reserved};
use crate::replica::{Content, Node, Replica, StagingFile};
use crate::tree::{Kind, Name, NodeId, Place, Time};

mod source;
mod survey;
mod walk;

pub use survey::{Survey, survey};

use source::Source;

/// How a directory is taken over.
#[derive(Clone, Copy, Default)]
pub struct Importing<'a> {
    /// Where something is mounted: left out, with all that is in it.
    pub mounts: Option<&'a BTreeSet<PathBuf>>,
    /// What stays on this machine anyway is left out.
    pub without_scoped: bool,
    /// What this replica shows with the same size and time, and has on the server, is left out.
    pub without: Option<&'a Replica>,
    /// Contents are not copied: only to find out what would be done.
    pub without_content: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Imported {
    /// Files that stand here now, by name.
    pub files: u64,
    /// Their sizes.
    pub bytes: u64,
    /// Entries of any kind that were read anew.
    pub read: u64,
    /// Entries that [`Importing::without`] has.
    pub known: u64,
    /// Entries that stay on this machine and were left out.
    pub scoped: u64,
    /// Files and directories with access control lists, which stay on this machine.
    pub with_acl: u64,
    /// Where something is mounted.
    pub mounts: Vec<PathBuf>,
    /// What could not be taken over, and why.
    pub problems: Vec<(PathBuf, String)>,
}

/// What an import knows on its way.
struct Import<'a, 'h> {
    home: &'h Home,
    how: Importing<'a>,
    /// File system of the directory.
    device: u64,
    /// Files with several names by what they are there, and the node that is theirs here.
    linked: HashMap<(u64, u64), NodeId>,
    /// Nodes that stand for a file already.
    taken: BTreeSet<NodeId>,
    done: Imported,
    progress: &'h mut dyn FnMut(u64, u64),
}

impl Home {
    /// Takes over what is in `source`, and tells `progress` files and bytes that it is through with.
    pub fn import(
        &self,
        source: &Path,
        how: Importing<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Imported, FsError> {
        let root = source.symlink_metadata()?;
        let import = Import {
            home: self,
            how,
            device: root.dev(),
            linked: HashMap::new(),
            taken: BTreeSet::new(),
            done: Imported::default(),
            progress,
        };
        import.tree(source, &root).map_err(|stop| match stop {
            Stop::Failed(error) => error,
            // Nothing that is taken over has to be fetched.
            Stop::Needs(_) => FsError::Invalid,
        })
    }
}

fn time(secs: i64, nanos: i64) -> Time {
    Time::new(secs, u32::try_from(nanos).unwrap_or_default())
}

fn mtime(meta: &Metadata) -> Time {
    time(meta.mtime(), meta.mtime_nsec())
}

impl Import<'_, '_> {
    /// What an earlier import left at `place`.
    fn earlier(&self, place: &Place) -> Result<Option<Node>, Stop> {
        let view = |view: &crate::replica::View<'_>| match view.child(place.parent, &place.name)? {
            Some(id) => view.node(id),
            None => Ok(None),
        };
        Ok(self.home.replica.view(view)?)
    }

    /// Whether `node` is what stands there, so that its content is here.
    fn is_same(&self, node: &Node, source: &Source) -> bool {
        node.kind == source.kind
            && match node.kind {
                Kind::File => {
                    (node.size, node.mtime) == (source.meta.len(), mtime(&source.meta))
                        && !self.taken.contains(&node.id)
                }
                Kind::Symlink => node.target == source.target,
                _ => true,
            }
    }

    /// Puts a new node at `place`.
    fn put(
        &self,
        place: Place,
        source: &Source,
        content: Option<StagingFile>,
    ) -> Result<NodeId, Stop> {
        let replica = &self.home.replica;
        let id = replica.update(|tx| tx.alloc_node())?;
        if let Some(content) = content {
            let hint = replica.view(|view| view.local_path_of(&place))?;
            let hint = hint.unwrap_or_default();
            replica.content().install_unsent(content, id, &hint)?;
        }
        self.home.change(|change| {
            let parent = change.node(place.parent)?;
            let scoped = change.is_scoped(&place, source.kind)?;
            let is_dir = source.kind == Kind::Dir;
            let node = Node {
                id,
                kind: source.kind,
                mode: 0,
                uid: 0,
                gid: 0,
                size: match source.kind {
                    Kind::File => source.meta.len(),
                    _ => source.target.len() as u64,
                },
                atime: change.now,
                mtime: change.now,
                ctime: change.now,
                nlink: if is_dir { 2 } else { 1 },
                target: source.target.clone(),
                content: Content::Whole,
                data_changed: source.kind == Kind::File,
                data_seq: 1,
                hash: None,
                listed: is_dir,
                scoped,
            };
            change.insert(parent, place, dressed(node, source))?;
            set_xattrs(change, id, source)?;
            Ok(id)
        })
    }

    /// Gives a node that is here already the attributes that it has there.
    fn dress(&self, id: NodeId, source: &Source) -> Result<(), Stop> {
        self.home.change(|change| {
            let before = change.node(id)?;
            let node = dressed(before.clone(), source);
            set_xattrs(change, id, source)?;
            if node != before {
                change.mark_all(&node)?;
                change.tx.put_node(node)?;
            }
            Ok(())
        })
    }

    /// Takes away what stands at `place`, with all that is in it.
    fn clear(&self, place: &Place) -> Result<(), Stop> {
        // Directories, and then again when they are empty.
        let mut todo = vec![(place.clone(), false)];
        while let Some((place, emptied)) = todo.pop() {
            let Some(node) = self.earlier(&place)? else {
                continue;
            };
            if node.kind == Kind::Dir && !emptied {
                todo.push((place, true));
                let inside = self.home.replica.view(|view| children(view, node.id))?;
                let inside = inside.into_iter();
                todo.extend(inside.map(|(name, _)| (Place::new(node.id, name), false)));
                continue;
            }
            self.home.change(|change| {
                let mut parent = change.node(place.parent)?;
                parent.nlink = parent
                    .nlink
                    .saturating_sub(u32::from(node.kind == Kind::Dir));
                change.remove_name(&place, node.clone())?;
                change.touch(parent)
            })?;
        }
        Ok(())
    }

    /// Whether `name` is one of ours that nobody's file may have.
    fn is_ours(&self, dir: NodeId, name: &Name) -> bool {
        is_reserved(dir, name)
    }

    /// Whether what is to stand at `place` stays on this machine.
    fn is_scoped(&self, place: &Place, kind: Kind) -> Result<bool, Stop> {
        self.home.change(|change| change.is_scoped(place, kind))
    }
}

/// The node with the attributes of `source`.
fn dressed(node: Node, source: &Source) -> Node {
    let meta = &source.meta;
    Node {
        mode: match source.kind {
            Kind::Symlink => 0o777,
            _ => meta.mode() & 0o7777,
        },
        uid: meta.uid(),
        gid: meta.gid(),
        atime: time(meta.atime(), meta.atime_nsec()),
        mtime: mtime(meta),
        ctime: time(meta.ctime(), meta.ctime_nsec()),
        ..node
    }
}

fn set_xattrs(change: &mut Change<'_, '_>, id: NodeId, source: &Source) -> Result<(), Stop> {
    let before = change.tx.xattrs(id)?;
    if before == source.xattrs {
        return Ok(());
    }
    for (name, _) in before {
        change.tx.set_xattr(id, &name, None)?;
    }
    for (name, value) in &source.xattrs {
        change.tx.set_xattr(id, name, Some(value.clone()))?;
    }
    Ok(())
}
