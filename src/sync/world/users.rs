//! What users do on either side.

use super::*;

/// One thing that a user does. Numbers choose among what is there, so that any of them makes sense.
#[derive(Debug, Clone)]
pub(in crate::sync) enum Op {
    LocalWrite(u8, u8),
    LocalReplace(u8, u8),
    LocalMkdir(u8, u8),
    LocalSymlink(u8, u8, u8),
    LocalRemove(u8),
    LocalRename(u8, u8, u8),
    LocalLink(u8, u8, u8),
    LocalChmod(u8, u8),
    LocalTouch(u8),
    LocalEvict(u8),
    LocalBusy(u8),
    ServerWrite(u8, u8),
    ServerMkdir(u8, u8),
    ServerSymlink(u8, u8, u8),
    ServerRemove(u8),
    ServerRename(u8, u8, u8),
    ServerChmod(u8, u8),
    /// A file of the server gets the bytes of a file of the replica.
    ServerCopy(u8, u8),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn pick<T: Clone>(from: &[T], choice: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(choice) % from.len()].clone())
}

fn name_of(choice: u8) -> &'static str {
    NAMES[usize::from(choice) % NAMES.len()]
}

impl World {
    /// What a user leaves at an empty or occupied place of the replica.
    pub(in crate::sync) fn set_local(&mut self, place: &Place, thing: Option<Thing>) {
        self.unlink(place);
        if let Some(thing) = thing {
            let is_file = thing.version.kind == Kind::File;
            let data = is_file.then_some(thing.data);
            self.add(place.clone(), thing.version, data);
        }
    }

    /// What a user leaves in the server's root.
    pub(in crate::sync) fn set_server(&mut self, name: &str, thing: Option<Thing>) {
        let path = vec![name.to_owned()];
        self.remove_on_server(&path);
        self.server.extend(thing.map(|thing| (path, thing)));
    }

    pub(in crate::sync) fn apply(&mut self, op: &Op) -> Option<()> {
        match *op {
            Op::LocalWrite(dir, at) => {
                let place = self.local_place(dir, at);
                match self.links.get(&place).copied() {
                    None => self.create(place),
                    Some(node) if self.nodes[&node].version.kind == Kind::File => self.write(node),
                    Some(_) => {}
                }
            }
            Op::LocalReplace(dir, at) => {
                let place = self.local_place(dir, at);
                if self.local_kind(&place) != Some(Kind::Dir) {
                    self.unlink(&place);
                    self.create(place);
                }
            }
            Op::LocalMkdir(dir, at) => {
                let place = self.local_place(dir, at);
                if !self.links.contains_key(&place) {
                    self.add(place, Version::dir(0o755), None);
                }
            }
            Op::LocalSymlink(dir, at, target) => {
                let place = self.local_place(dir, at);
                if !self.links.contains_key(&place) {
                    self.add(place, Version::symlink(vec![b'0' + target % 2]), None);
                }
            }
            Op::LocalRemove(which) => {
                let (place, node) = self.local_choice(which)?;
                if !self.links.keys().any(|place| place.parent == node) {
                    self.unlink(&place);
                }
            }
            Op::LocalRename(which, dir, at) => {
                let (from, node) = self.local_choice(which)?;
                let to = self.local_place(dir, at);
                self.rename(&from, node, to);
            }
            Op::LocalLink(which, dir, at) => {
                let (from, node) = self.local_choice(which)?;
                let to = self.local_place(dir, at);
                if self.local_kind(&from) == Some(Kind::File) && !self.links.contains_key(&to) {
                    self.links.insert(to, node);
                }
            }
            Op::LocalChmod(which, mode) => {
                let (_, node) = self.local_choice(which)?;
                let version = &mut self.nodes.get_mut(&node)?.version;
                if version.kind != Kind::Symlink {
                    version.mode = 0o700 + u32::from(mode % 4);
                }
            }
            Op::LocalTouch(which) => {
                let (_, node) = self.local_choice(which)?;
                let tick = self.next_tick();
                let version = &mut self.nodes.get_mut(&node)?.version;
                if version.kind == Kind::File {
                    version.mtime = tick;
                }
            }
            Op::LocalEvict(which) => self.evict(which)?,
            Op::LocalBusy(which) => {
                let (_, node) = self.local_choice(which)?;
                let node = self.nodes.get_mut(&node)?;
                node.busy = node.version.kind == Kind::File;
            }
            _ => self.apply_on_server(op)?,
        }
        Some(())
    }

    fn apply_on_server(&mut self, op: &Op) -> Option<()> {
        let tick = self.next_tick();
        match *op {
            Op::ServerWrite(dir, at) => {
                let data = tick as Data;
                let path = self.server_place(dir, at);
                if self.put_on_server(path, file_version(data, tick, 0o644), data) {
                    self.written.insert(data);
                }
            }
            Op::ServerCopy(dir, which) => {
                let (place, node) = self.local_choice(which)?;
                let data = self.nodes[&node].data?;
                let mut path = self.server_choice_of_dir(dir);
                path.push(place.name.to_string());
                let mtime = if dir % 2 == 0 {
                    tick
                } else {
                    self.nodes[&node].version.mtime
                };
                self.put_on_server(path, file_version(data, mtime, 0o644), data);
            }
            Op::ServerMkdir(dir, at) => {
                let path = self.server_place(dir, at);
                self.put_on_server(path, Version::dir(0o755), 0);
            }
            Op::ServerSymlink(dir, at, target) => {
                let path = self.server_place(dir, at);
                self.put_on_server(path, Version::symlink(vec![b'0' + target % 2]), 0);
            }
            Op::ServerRemove(which) => {
                let path = self.server_choice(which)?;
                self.remove_on_server(&path);
            }
            Op::ServerRename(which, dir, at) => {
                let from = self.server_choice(which)?;
                let to = self.server_place(dir, at);
                if from != to && !to.starts_with(&from) && !self.server.contains_key(&to) {
                    self.rename_on_server(&from, &to);
                }
            }
            Op::ServerChmod(which, mode) => {
                let path = self.server_choice(which)?;
                let version = &mut self.server.get_mut(&path)?.version;
                if version.kind != Kind::Symlink {
                    version.mode = 0o700 + u32::from(mode % 4);
                }
            }
            _ => {}
        }
        Some(())
    }

    fn local_place(&self, dir: u8, at: u8) -> Place {
        let mut dirs = vec![NodeId::ROOT];
        let nodes = self.links.values();
        dirs.extend(nodes.filter(|node| self.nodes[node].version.kind == Kind::Dir));
        Place::new(pick(&dirs, dir).unwrap(), name(name_of(at)))
    }

    fn local_choice(&self, which: u8) -> Option<(Place, NodeId)> {
        let all: Vec<_> = self
            .links
            .iter()
            .map(|(place, node)| (place.clone(), *node))
            .collect();
        pick(&all, which)
    }

    fn local_kind(&self, place: &Place) -> Option<Kind> {
        Some(self.nodes[self.links.get(place)?].version.kind)
    }

    fn add(&mut self, place: Place, version: Version, data: Option<Data>) {
        let node = self.alloc();
        let data_changed = data.is_some();
        self.nodes.insert(
            node,
            Node {
                version,
                data,
                origin: None,
                data_changed,
                busy: false,
            },
        );
        self.links.insert(place, node);
    }

    fn create(&mut self, place: Place) {
        let tick = self.next_tick();
        self.written.insert(tick as Data);
        self.add(
            place,
            file_version(tick as Data, tick, 0o644),
            Some(tick as Data),
        );
    }

    fn write(&mut self, node: NodeId) {
        let tick = self.next_tick();
        let data = tick as Data;
        let mode = self.nodes[&node].version.mode;
        self.give_up(node);
        let node = self.nodes.get_mut(&node).unwrap();
        node.version = file_version(data, tick, mode);
        node.data = Some(data);
        node.data_changed = true;
        self.written.insert(data);
    }

    /// A user gives up the content of a node, wherever it is.
    fn give_up(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        self.discarded.extend(node.data.or(node.origin));
    }

    fn unlink(&mut self, place: &Place) {
        let Some(node) = self.links.remove(place) else {
            return;
        };
        if self.places_of(node).is_empty() {
            self.give_up(node);
            self.nodes.remove(&node);
        }
    }

    fn rename(&mut self, from: &Place, node: NodeId, to: Place) {
        let is_dir = self.nodes[&node].version.kind == Kind::Dir;
        let mut above = Some(to.parent);
        while let Some(dir) = above {
            if dir == node {
                return;
            }
            above = self.places_of(dir).first().map(|place| place.parent);
        }
        if let Some(target) = self.links.get(&to).copied() {
            let target_is_dir = self.nodes[&target].version.kind == Kind::Dir;
            let full = self.links.keys().any(|place| place.parent == target);
            if target == node || target_is_dir != is_dir || full {
                return;
            }
            self.unlink(&to);
        }
        self.links.remove(from);
        self.links.insert(to, node);
    }

    /// Content may leave this machine only while the server has it.
    fn evict(&mut self, which: u8) -> Option<()> {
        let (_, id) = self.local_choice(which)?;
        let node = &self.nodes[&id];
        let data = node.data?;
        let published = self.places_of(id).iter().any(|place| {
            let base = self.base.get(place).filter(|base| base.node == id);
            let thing = self
                .server_path(place)
                .and_then(|path| self.server.get(&path));
            base.zip(thing).is_some_and(|(base, thing)| {
                base.version.same(&thing.version)
                    && node.version.same_content(&base.version)
                    && thing.data == data
            })
        });
        if published && !node.data_changed && !node.busy {
            let node = self.nodes.get_mut(&id)?;
            node.data = None;
            node.origin = Some(data);
        }
        Some(())
    }

    fn server_choice(&self, which: u8) -> Option<Path> {
        let all: Vec<_> = self
            .server
            .keys()
            .filter(|path| path[0] != STAGING)
            .cloned()
            .collect();
        pick(&all, which)
    }

    fn server_choice_of_dir(&self, dir: u8) -> Path {
        let mut dirs = vec![Vec::new()];
        let things = self.server.iter();
        dirs.extend(
            things
                .filter(|(path, thing)| thing.version.kind == Kind::Dir && path[0] != STAGING)
                .map(|(path, _)| path.clone()),
        );
        pick(&dirs, dir).unwrap()
    }

    fn server_place(&self, dir: u8, at: u8) -> Path {
        let mut path = self.server_choice_of_dir(dir);
        path.push(name_of(at).to_owned());
        path
    }

    /// A server's user overwrites files and symlinks, but no directory.
    fn put_on_server(&mut self, path: Path, version: Version, data: Data) -> bool {
        let old = self.server.get(&path);
        let is_kept = version.kind == Kind::Dir || !data.is_multiple_of(4);
        if old.is_some_and(|old| old.version.kind == Kind::Dir) && is_kept {
            return false;
        }
        self.remove_on_server(&path);
        self.server.insert(path, Thing { version, data });
        true
    }

    fn remove_on_server(&mut self, path: &Path) {
        let gone = self
            .server
            .extract_if(.., |other, _| other.starts_with(path));
        self.discarded.extend(gone.map(|(_, thing)| thing.data));
    }

    pub(in crate::sync) fn rename_on_server(&mut self, from: &Path, to: &Path) {
        let moved: Vec<_> = self
            .server
            .extract_if(.., |path, _| path.starts_with(from))
            .collect();
        for (path, thing) in moved {
            let mut target = to.clone();
            target.extend_from_slice(&path[from.len()..]);
            self.server.insert(target, thing);
        }
    }
}
