//! The way through the directory that is taken over: entry by entry, in order of their names.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::source::{self, Source, Unread};
use super::{Import, Imported, mtime};
use crate::fs::dir::children;
use crate::fs::{FsError, Stop};
use crate::replica::{Node, ReplicaError};
use crate::tree::{Kind, Name, NodeId, Place};

/// A directory on the way.
struct Visit {
    path: PathBuf,
    source: Source,
    node: NodeId,
    /// The same directory in the replica whose entries are left out.
    without: Option<NodeId>,
    names: std::vec::IntoIter<OsString>,
}

impl Import<'_, '_> {
    pub(super) fn tree(mut self, root: &Path, meta: &Metadata) -> Result<Imported, Stop> {
        let source = Source::look(root).map_err(FsError::Content)?;
        if source.kind != Kind::Dir || source.meta.ino() != meta.ino() {
            return Err(FsError::NotADirectory.into());
        }
        let names = source::names(root).map_err(FsError::Content)?;
        let mut visits = vec![Visit {
            path: root.to_owned(),
            source,
            node: NodeId::ROOT,
            without: self.how.without.map(|_| NodeId::ROOT),
            names: self.take_stock(NodeId::ROOT, names)?.into_iter(),
        }];
        while let Some(visit) = visits.last_mut() {
            let Some(name) = visit.names.next() else {
                // Its times, after all that was put into it.
                self.dress(visit.node, &visit.source)?;
                visits.pop();
                continue;
            };
            let path = visit.path.join(&name);
            let (dir, without) = (visit.node, visit.without);
            match self.entry(&path, dir, &name, without) {
                Ok(Some(inner)) => visits.push(inner),
                Ok(None) => {}
                Err(Unread::Problem(why)) => self.done.problems.push((path, why)),
                Err(Unread::Stop(stop)) => return Err(stop),
            }
            (self.progress)(self.done.files, self.done.bytes);
        }
        Ok(self.done)
    }

    /// Takes away what an earlier import brought and is gone there; answers `names`.
    fn take_stock(&self, dir: NodeId, names: Vec<OsString>) -> Result<Vec<OsString>, Stop> {
        let stand: BTreeSet<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        for (name, _) in self.home.replica.view(|view| children(view, dir))? {
            if !stand.contains(name.as_bytes()) {
                self.clear(&Place::new(dir, name))?;
            }
        }
        Ok(names)
    }

    /// Takes over one entry; answers what is to be visited next, if it is a directory.
    fn entry(
        &mut self,
        path: &Path,
        dir: NodeId,
        name: &OsString,
        without: Option<NodeId>,
    ) -> Result<Option<Visit>, Unread> {
        let name = Name::new(name.as_bytes()).map_err(|e| Unread::Problem(e.to_string()))?;
        if self.is_ours(dir, &name) {
            let why = "the name is roamhome's own: what is in it is no part of a home";
            return Err(Unread::Problem(why.to_owned()));
        }
        let source = match Source::look(path) {
            // It went a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            source => source?,
        };
        if source.kind == Kind::Other {
            return Err(Unread::Problem("a device cannot be in a home".to_owned()));
        }
        let place = Place::new(dir, name);
        let mounted = self.how.mounts.is_some_and(|mounts| mounts.contains(path));
        if mounted || source.meta.dev() != self.device {
            self.clear(&place).map_err(Unread::Stop)?;
            self.done.mounts.push(path.to_owned());
            return Ok(None);
        }
        let scoped = || self.is_scoped(&place, source.kind).map_err(Unread::Stop);
        if self.how.without_scoped && scoped()? {
            self.done.scoped += 1;
            return Ok(None);
        }
        let known = self.known(without, &place.name)?;
        if known.as_ref().is_some_and(|known| has(known, &source)) {
            self.done.known += 1;
            return Ok(None);
        }
        self.done.with_acl += u64::from(source.has_acl);
        if source.kind == Kind::Dir {
            let without = known.filter(|known| known.kind == Kind::Dir);
            return self.directory(path, place, source, without.map(|known| known.id));
        }
        let (files, bytes) = self.leaf(path, place, source)?;
        self.done.files += files;
        self.done.bytes += bytes;
        Ok(None)
    }

    /// What the replica whose entries are left out has there.
    fn known(&self, dir: Option<NodeId>, name: &Name) -> Result<Option<Node>, ReplicaError> {
        let (Some(replica), Some(dir)) = (self.how.without, dir) else {
            return Ok(None);
        };
        replica.view(|view| match view.child(dir, name)? {
            Some(id) => view.node(id),
            None => Ok(None),
        })
    }

    fn directory(
        &mut self,
        path: &Path,
        place: Place,
        source: Source,
        without: Option<NodeId>,
    ) -> Result<Option<Visit>, Unread> {
        // Before it is made: one that cannot be read is not to look as if it were empty.
        let names = source::names(path)?;
        let earlier = self.earlier(&place).map_err(Unread::Stop)?;
        let node = match earlier {
            Some(node) if node.kind == Kind::Dir => node.id,
            _ => {
                self.clear(&place).map_err(Unread::Stop)?;
                self.done.read += 1;
                self.put(place, &source, None).map_err(Unread::Stop)?
            }
        };
        let names = self.take_stock(node, names).map_err(Unread::Stop)?;
        Ok(Some(Visit {
            path: path.to_owned(),
            source,
            node,
            without,
            names: names.into_iter(),
        }))
    }

    /// Takes over what is no directory; answers files and bytes.
    fn leaf(&mut self, path: &Path, place: Place, source: Source) -> Result<(u64, u64), Unread> {
        let earlier = self.earlier(&place).map_err(Unread::Stop)?;
        let key = (source.meta.dev(), source.meta.ino());
        let several = source.meta.nlink() > 1;
        let counted = |source: &Source| match source.kind {
            Kind::File => (1, source.meta.len()),
            _ => (0, 0),
        };
        if let Some(id) = self.linked.get(&key).copied().filter(|_| several) {
            if earlier.is_none_or(|earlier| earlier.id != id) {
                self.clear(&place).map_err(Unread::Stop)?;
                self.link(&place, id).map_err(Unread::Stop)?;
                self.done.read += 1;
            }
            self.dress(id, &source).map_err(Unread::Stop)?;
            return Ok((counted(&source).0, 0));
        }
        let (id, source) = match earlier {
            Some(earlier) if self.is_same(&earlier, &source) => {
                self.dress(earlier.id, &source).map_err(Unread::Stop)?;
                (earlier.id, source)
            }
            _ => {
                self.clear(&place).map_err(Unread::Stop)?;
                let (source, content) = match source.kind {
                    Kind::File if !self.how.without_content => self.home.copy_in(path)?,
                    _ => (source, None),
                };
                self.done.read += 1;
                let put = self.put(place, &source, content);
                (put.map_err(Unread::Stop)?, source)
            }
        };
        self.taken.insert(id);
        if several {
            self.linked.insert(key, id);
        }
        Ok(counted(&source))
    }

    /// Gives a node that was taken over a further name.
    fn link(&self, place: &Place, id: NodeId) -> Result<(), Stop> {
        self.home.change(|change| {
            let dir = change.node(place.parent)?;
            let node = change.node(id)?;
            change.add_name(dir, place.clone(), node).map(drop)
        })
    }
}

/// Whether a replica has the entry, and the server has it from there.
fn has(known: &Node, source: &Source) -> bool {
    let same = match known.kind {
        Kind::File => (known.size, known.mtime) == (source.meta.len(), mtime(&source.meta)),
        Kind::Symlink => known.target == source.target,
        _ => false,
    };
    known.kind == source.kind && same && !known.data_changed && !known.scoped
}
