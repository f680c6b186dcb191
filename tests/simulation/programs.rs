//! What programs do on a machine, by path, and what they see.

use std::collections::BTreeMap;
use std::time::Duration;

use roamhome::fs::{FsError, Handle, OpenOptions, RenameMode, SetAttr, Stop};
use roamhome::replica::{self, ReplicaError, View};
use roamhome::tree::{Kind, Name, NodeId, RelPath};

use super::history::Content;
use super::machine::Machine;
use crate::support::client::ME;

/// What a place shows, to be compared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    /// Of files alone, as a look tells before the content is asked for.
    pub(crate) size_and_secs: Option<(u64, i64)>,
    /// The content or target.
    pub(crate) data: Vec<u8>,
}

/// What a look at a file tells, without fetching it.
pub(crate) type Looks = BTreeMap<String, (Kind, u64)>;

/// The most that a file of a simulation holds.
const ALL: usize = 1 << 20;

/// A file that a program has open for writing.
pub(crate) struct OpenFile {
    handle: Handle,
    /// Where it was opened.
    pub(crate) path: String,
}

impl Machine {
    pub(crate) async fn find(&self, path: &[Name]) -> Result<NodeId, FsError> {
        let mut id = NodeId::ROOT;
        for name in path {
            let name = name.clone();
            let found = self.run(move |home| home.lookup(id, &name)).await?;
            id = found.ok_or(FsError::NotFound)?.id;
        }
        Ok(id)
    }

    async fn place(&self, path: &str) -> Result<(NodeId, Name), FsError> {
        let path = path_of(path);
        let (name, dirs) = path.names().split_last().unwrap();
        Ok((self.find(dirs).await?, name.clone()))
    }

    /// Empties or creates a file, writes after `pause`, and closes it after another.
    pub(crate) async fn write(
        &self,
        path: &str,
        content: impl FnOnce() -> Content,
        pause: Duration,
    ) -> Result<Option<Content>, FsError> {
        let (dir, name) = self.place(path).await?;
        let options = OpenOptions {
            write: true,
            truncate: true,
            ..OpenOptions::default()
        };
        let opened = self
            .run(move |home| home.create(dir, &name, 0o644, options, ME))
            .await?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let content = content();
        let written = self.home.write(opened.handle, 0, &content, false)?;
        assert_eq!(written, content.len());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.home.release(opened.handle)?;
        Ok(self.is_alive().then_some(content))
    }

    /// Changes a file's content in place: `change` gets what is there and tells the offset and bytes to write,
    /// or the length to cut to.
    pub(crate) async fn alter(
        &self,
        path: &str,
        change: impl FnOnce(&[u8]) -> Option<Content>,
    ) -> Result<Option<(Content, Content)>, FsError> {
        let id = self.find(path_of(path).names()).await?;
        let options = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        let opened = self.run(move |home| home.open(id, options, ME)).await?;
        let old = self.read_here(opened.handle)?;
        let new = change(&old);
        if let Some(new) = &new {
            if new.len() < old.len() {
                let set = SetAttr {
                    size: Some(new.len() as u64),
                    handle: Some(opened.handle),
                    ..SetAttr::default()
                };
                let set = self.run(move |home| home.set_attr(id, set, ME));
                set.await?;
            } else {
                // Written over in place, or added to.
                let at = if new.len() == old.len() { 0 } else { old.len() };
                let more = &new[at..];
                assert_eq!(
                    self.home.write(opened.handle, at as u64, more, false)?,
                    more.len()
                );
            }
        }
        self.home.release(opened.handle)?;
        Ok(new.filter(|_| self.is_alive()).map(|new| (old, new)))
    }

    /// Looks the path up again if another file took its place, as the kernel does.
    pub(crate) async fn read(&self, path: &str) -> Result<Content, FsError> {
        let id = self.find(path_of(path).names()).await?;
        match self.read_node(id).await {
            Err(FsError::Stale) => {
                self.read_node(self.find(path_of(path).names()).await?)
                    .await
            }
            read => read,
        }
    }

    async fn read_node(&self, id: NodeId) -> Result<Content, FsError> {
        let opened = self
            .run(move |home| home.open(id, OpenOptions::default(), ME))
            .await?;
        let data = self.read_open(opened.handle).await;
        self.home.release(opened.handle)?;
        data
    }

    /// Reads parts of a file, one after the other with a pause between them; tells how long it was when it was opened.
    /// `None` if somebody wrote to it here meanwhile.
    pub(crate) async fn read_parts(
        &self,
        path: &str,
        parts: &[(u64, u64)],
        pause: Duration,
    ) -> Result<Option<(usize, Vec<(usize, Content)>)>, FsError> {
        let id = self.find(path_of(path).names()).await?;
        let seq = || {
            let node = self.replica.view::<_, ReplicaError>(|view| view.node(id));
            node.ok().flatten().map(|node| node.data_seq)
        };
        let opened = self
            .run(move |home| home.open(id, OpenOptions::default(), ME))
            .await?;
        let (before, size) = (seq(), opened.attr.size);
        let mut read = Vec::new();
        for (thousandths, len) in parts {
            let at = size * thousandths / 1000;
            let (handle, len) = (opened.handle, *len as usize);
            let part = self.run(move |home| home.read(handle, at, len)).await;
            match part {
                Ok(part) => read.push((at as usize, part)),
                // It was cut off, or is another by now.
                Err(_) => break,
            }
            tokio::time::sleep(pause).await;
        }
        let after = seq();
        self.home.release(opened.handle)?;
        let is_same = before == after && self.is_alive();
        Ok(is_same.then_some((size as usize, read)))
    }

    /// What an open file holds.
    async fn read_open(&self, handle: Handle) -> Result<Content, FsError> {
        self.run(move |home| home.read(handle, 0, ALL)).await
    }

    /// The same of one whose content is here.
    fn read_here(&self, handle: Handle) -> Result<Content, FsError> {
        self.home.read(handle, 0, ALL).map_err(|stop| match stop {
            Stop::Failed(error) => error,
            Stop::Needs(need) => panic!("{need:?} of what is here"),
        })
    }

    pub(crate) async fn mkdir(&self, path: &str) -> Result<(), FsError> {
        let (dir, name) = self.place(path).await?;
        let made = self.run(move |home| home.mkdir(dir, &name, 0o755, ME));
        made.await.map(drop)
    }

    pub(crate) async fn rmdir(&self, path: &str) -> Result<(), FsError> {
        let (dir, name) = self.place(path).await?;
        self.run(move |home| home.rmdir(dir, &name)).await
    }

    pub(crate) async fn unlink(&self, path: &str) -> Result<(), FsError> {
        let (dir, name) = self.place(path).await?;
        self.run(move |home| home.unlink(dir, &name)).await
    }

    pub(crate) async fn link(&self, from: &str, to: &str) -> Result<(), FsError> {
        let id = self.find(path_of(from).names()).await?;
        let (dir, name) = self.place(to).await?;
        let linked = self.run(move |home| home.link(id, dir, &name));
        linked.await.map(drop)
    }

    pub(crate) async fn symlink(&self, target: &str, path: &str) -> Result<(), FsError> {
        let (dir, name) = self.place(path).await?;
        let target = target.as_bytes().to_vec();
        let made = self.run(move |home| home.symlink(dir, &name, &target, ME));
        made.await.map(drop)
    }

    pub(crate) async fn rename(
        &self,
        from: &str,
        to: &str,
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let (from, to) = (self.place(from).await?, self.place(to).await?);
        self.run(move |home| home.rename((from.0, &from.1), (to.0, &to.1), mode))
            .await
    }

    pub(crate) async fn set_attr(&self, path: &str, set: SetAttr) -> Result<(), FsError> {
        let id = self.find(path_of(path).names()).await?;
        let done = self.run(move |home| home.set_attr(id, set, ME));
        done.await.map(drop)
    }

    /// Lets everything be known that an operation on `path` will need to know; whether it could be had.
    pub(crate) async fn warm(&self, path: &str) -> bool {
        match self.place(path).await {
            Ok((dir, name)) => self.run(move |home| home.lookup(dir, &name)).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Opens a file for writing, and leaves it open.
    pub(crate) async fn open(&self, path: &str) -> Result<(), FsError> {
        let id = self.find(path_of(path).names()).await?;
        let options = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        let opened = self.run(move |home| home.open(id, options, ME)).await?;
        self.open.borrow_mut().push(OpenFile {
            handle: opened.handle,
            path: path.to_owned(),
        });
        Ok(())
    }

    /// Adds to the file that is open for longest, as a mapped page that is written late.
    pub(crate) fn write_late(
        &self,
        more: impl FnOnce(&[u8]) -> Option<Content>,
    ) -> Result<(), FsError> {
        let open = self.open.borrow();
        let Some(file) = open.first().filter(|_| self.is_alive()) else {
            return Ok(());
        };
        let old = self.read_here(file.handle)?;
        if let Some(new) = more(&old) {
            let at = old.len();
            self.home.write(file.handle, at as u64, &new[at..], false)?;
        }
        Ok(())
    }

    /// Closes the file that is open for longest; tells what it held.
    pub(crate) fn close(&self) -> Result<Option<(String, Content)>, FsError> {
        if self.open.borrow().is_empty() || !self.is_alive() {
            return Ok(None);
        }
        let file = self.open.borrow_mut().remove(0);
        let content = self.read_here(file.handle)?;
        self.home.release(file.handle)?;
        Ok(self.is_alive().then_some((file.path, content)))
    }

    /// Makes a file and its name survive a loss of power; tells what it holds.
    pub(crate) async fn fsync(&self, path: &str) -> Result<Option<Content>, FsError> {
        let id = self.find(path_of(path).names()).await?;
        let opened = self
            .run(move |home| home.open(id, OpenOptions::default(), ME))
            .await?;
        let content = self.read_open(opened.handle).await;
        let synced = self.home.fsync(opened.handle);
        let alive = self.is_alive();
        self.home.release(opened.handle)?;
        synced?;
        Ok(Some(content?).filter(|_| alive))
    }

    /// What the mount shows of what it knows, without asking the server for anything.
    pub(crate) fn looks(&self) -> Looks {
        let walk = |view: &View<'_>| {
            let mut found = Looks::new();
            let mut todo = vec![(NodeId::ROOT, String::new())];
            while let Some((dir, prefix)) = todo.pop() {
                for (name, id) in view.children(dir, None, 100_000)? {
                    let path = format!("{prefix}{name}");
                    let node = view.node(id)?.expect("a name without a node");
                    if node.kind == Kind::Dir {
                        todo.push((id, format!("{path}/")));
                    }
                    found.insert(path, (node.kind, node.size));
                }
            }
            Ok::<_, ReplicaError>(found)
        };
        self.replica.view(walk).unwrap()
    }

    /// Everything that the mount shows, fetched.
    pub(crate) async fn tree(&self) -> Result<BTreeMap<String, Shown>, FsError> {
        let mut all = BTreeMap::new();
        let mut todo = vec![(NodeId::ROOT, String::new())];
        while let Some((dir, prefix)) = todo.pop() {
            drop(self.run(move |home| home.read_dir(dir, 0)).await?);
            let children = |view: &View<'_>| view.children(dir, None, 100_000);
            let children = self.replica.view::<_, ReplicaError>(children)?;
            for (name, id) in children {
                let path = format!("{prefix}{name}");
                let attr = self.home.attr(id)?;
                let data = match attr.kind {
                    Kind::File => self.read_node(id).await?,
                    Kind::Symlink => self.home.read_link(id)?,
                    _ => Vec::new(),
                };
                if attr.kind == Kind::Dir {
                    todo.push((id, format!("{path}/")));
                }
                let mode = match attr.kind {
                    Kind::Symlink => 0o777,
                    _ => attr.mode,
                };
                let is_file = attr.kind == Kind::File;
                let shown = Shown {
                    kind: attr.kind,
                    mode,
                    size_and_secs: is_file.then(|| (attr.size, attr.mtime.secs())),
                    data,
                };
                all.insert(path, shown);
            }
        }
        Ok(all)
    }

    /// The contents that are on this machine's disk, in place or kept.
    pub(crate) fn held(&self) -> Vec<Content> {
        let here = |view: &View<'_>| {
            let mut files = Vec::new();
            let mut todo = vec![NodeId::ROOT];
            while let Some(dir) = todo.pop() {
                for (_, id) in view.children(dir, None, 100_000)? {
                    let node = view.node(id)?.expect("a name without a node");
                    match node.kind {
                        Kind::Dir => todo.push(id),
                        Kind::File if node.content == replica::Content::Whole => files.push(node),
                        _ => {}
                    }
                }
            }
            Ok::<_, ReplicaError>(files)
        };
        let mut held = self.backups();
        for node in self.replica.view(here).unwrap() {
            // A loss of power may have taken it.
            if let Ok(mut file) = self.replica.content().open_read(node.id, node.data_changed) {
                let mut data = Vec::new();
                std::io::Read::read_to_end(&mut file, &mut data).unwrap();
                held.push(data);
            }
        }
        held
    }

    /// The contents that this machine keeps by itself.
    pub(crate) fn backups(&self) -> Vec<Content> {
        let known = |view: &View<'_>| view.backups();
        let known = self.replica.view::<_, ReplicaError>(known).unwrap();
        let read = |id| {
            let mut file = self.replica.content().open_backup(id).unwrap();
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut data).unwrap();
            data
        };
        known.into_iter().map(|backup| read(backup.id)).collect()
    }
}

pub(crate) fn path_of(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}
