//! The file system behind the memory server: inodes, links and Linux's rules for them, without any I/O.

mod look;
mod power;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::errno::Errno;
use crate::remote::{SetStat, Stat, StatVfs};
use crate::tree::{Kind, Name, RelPath};

/// How many links a path may lead over, as in Linux.
const MAX_LINKS: usize = 40;
const UMASK: u32 = 0o022;
const ROOT: u64 = 1;

#[derive(Debug, Clone)]
struct Inode {
    kind: Kind,
    data: Arc<Vec<u8>>,
    /// The content that survives a loss of power.
    synced: Arc<Vec<u8>>,
    target: Vec<u8>,
    children: BTreeMap<Name, u64>,
    mode: u32,
    mtime: i64,
    links: u32,
    opens: u32,
}

/// A file system. Cloning one is cheap: contents are shared.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    inodes: HashMap<u64, Inode>,
    next: u64,
    used: u64,
    pub(super) capacity: u64,
    pub(super) read_only: bool,
}

type Result<T> = std::result::Result<T, Errno>;

impl Disk {
    pub(super) fn new(now: i64) -> Self {
        let mut disk = Self {
            inodes: HashMap::new(),
            next: ROOT,
            used: 0,
            capacity: 1 << 40,
            read_only: false,
        };
        disk.add(Kind::Dir, 0o755, now);
        disk
    }

    /// Drops all open files, as a restart does.
    pub(super) fn forget_opens(&mut self) {
        self.inodes.values_mut().for_each(|inode| inode.opens = 0);
        self.inodes.retain(|_, inode| inode.links > 0);
    }

    fn add(&mut self, kind: Kind, mode: u32, now: i64) -> u64 {
        let id = self.next;
        self.next += 1;
        let inode = Inode {
            kind,
            data: Arc::default(),
            synced: Arc::default(),
            target: Vec::new(),
            children: BTreeMap::new(),
            mode: mode & 0o7777 & !UMASK,
            mtime: now,
            links: 1,
            opens: 0,
        };
        self.inodes.insert(id, inode);
        id
    }

    fn inode(&self, id: u64) -> Result<&Inode> {
        self.inodes.get(&id).ok_or(Errno::BadHandle)
    }

    fn inode_mut(&mut self, id: u64) -> Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or(Errno::BadHandle)
    }

    fn dir_mut(&mut self, id: u64, now: i64) -> Result<&mut BTreeMap<Name, u64>> {
        if self.read_only {
            return Err(Errno::ReadOnly);
        }
        let inode = self.inode_mut(id)?;
        inode.mtime = now;
        Ok(&mut inode.children)
    }

    /// Where `path` leads. Links on the way are followed, one at the end only if `follow`.
    pub(super) fn lookup(&self, path: &RelPath, follow: bool) -> Result<u64> {
        let mut ahead: Vec<Vec<u8>> = Vec::new();
        ahead.extend(path.names().iter().rev().map(|n| n.as_bytes().to_vec()));
        let mut trail = vec![ROOT];
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            let here = trail.last().copied().unwrap_or(ROOT);
            let dir = self.inode(here)?;
            match (dir.kind, &part[..]) {
                (Kind::Dir, b"" | b".") => continue,
                (Kind::Dir, b"..") => {
                    trail.truncate((trail.len() - 1).max(1));
                    continue;
                }
                (Kind::Dir, _) => {}
                _ => return Err(Errno::NotDir),
            }
            let name = Name::new(&part).map_err(|_| Errno::Inval)?;
            let child = *dir.children.get(&name).ok_or(Errno::NoEnt)?;
            let inode = self.inode(child)?;
            if inode.kind != Kind::Symlink || (ahead.is_empty() && !follow) {
                trail.push(child);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::Loop);
            }
            if inode.target.starts_with(b"/") {
                return Err(Errno::NoEnt); // outside of what is imitated
            }
            ahead.extend(inode.target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
        }
        trail.last().copied().ok_or(Errno::NoEnt)
    }

    /// The directory that holds `path`, and its last name.
    fn parent(&self, path: &RelPath) -> Result<(u64, Name)> {
        let (name, above) = path.names().split_last().ok_or(Errno::Exist)?;
        let dir = self.lookup(&above.iter().cloned().collect(), true)?;
        match self.inode(dir)?.kind {
            Kind::Dir => Ok((dir, name.clone())),
            _ => Err(Errno::NotDir),
        }
    }

    /// What is linked at `path` itself.
    fn entry(&self, path: &RelPath) -> Result<(u64, Name, u64)> {
        let (dir, name) = self.parent(path)?;
        let id = *self.inode(dir)?.children.get(&name).ok_or(Errno::NoEnt)?;
        Ok((dir, name, id))
    }

    fn create(&mut self, path: &RelPath, kind: Kind, mode: u32, now: i64) -> Result<u64> {
        let (dir, name) = self.parent(path)?;
        if self.inode(dir)?.children.contains_key(&name) {
            return Err(Errno::Exist);
        }
        if self.read_only {
            return Err(Errno::ReadOnly);
        }
        let id = self.add(kind, mode, now);
        self.dir_mut(dir, now)?.insert(name, id);
        Ok(id)
    }

    pub(super) fn open(&mut self, id: u64, write: bool) -> Result<()> {
        if write && self.read_only {
            return Err(Errno::ReadOnly);
        }
        let inode = self.inode_mut(id)?;
        if write && inode.kind == Kind::Dir {
            return Err(Errno::IsDir);
        }
        inode.opens += 1;
        Ok(())
    }

    pub(super) fn release(&mut self, id: u64) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.opens = inode.opens.saturating_sub(1);
        }
        self.collect(id);
    }

    /// Frees an inode that has neither a name nor a user.
    fn collect(&mut self, id: u64) {
        if let Some(inode) = self.inodes.get(&id)
            && inode.links == 0
            && inode.opens == 0
        {
            self.used -= inode.data.len() as u64;
            self.inodes.remove(&id);
        }
    }

    pub(super) fn create_file(&mut self, path: &RelPath, mode: u32, now: i64) -> Result<u64> {
        self.create(path, Kind::File, mode, now)
    }

    pub(super) fn mkdir(&mut self, path: &RelPath, mode: u32, now: i64) -> Result<()> {
        self.create(path, Kind::Dir, mode, now).map(drop)
    }

    pub(super) fn symlink(&mut self, path: &RelPath, target: &[u8], now: i64) -> Result<()> {
        if target.is_empty() {
            return Err(Errno::NoEnt);
        }
        let id = self.create(path, Kind::Symlink, 0o777, now)?;
        let inode = self.inode_mut(id)?;
        inode.target = target.to_vec();
        inode.mode = 0o777;
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &RelPath, now: i64) -> Result<()> {
        let (dir, name, id) = self.entry(path)?;
        if self.inode(id)?.kind == Kind::Dir {
            return Err(Errno::IsDir);
        }
        self.dir_mut(dir, now)?.remove(&name);
        self.inode_mut(id)?.links -= 1;
        self.collect(id);
        Ok(())
    }

    pub(super) fn rmdir(&mut self, path: &RelPath, now: i64) -> Result<()> {
        let (dir, name, id) = self.entry(path)?;
        let inode = self.inode(id)?;
        if inode.kind != Kind::Dir {
            return Err(Errno::NotDir);
        }
        if !inode.children.is_empty() {
            return Err(Errno::NotEmpty);
        }
        self.dir_mut(dir, now)?.remove(&name);
        self.inode_mut(id)?.links -= 1;
        self.collect(id);
        Ok(())
    }

    pub(super) fn link(&mut self, from: &RelPath, to: &RelPath, now: i64) -> Result<()> {
        let id = self.lookup(from, false)?;
        let (dir, name) = self.parent(to)?;
        if self.inode(dir)?.children.contains_key(&name) {
            return Err(Errno::Exist);
        }
        if self.inode(id)?.kind == Kind::Dir {
            return Err(Errno::Perm);
        }
        self.dir_mut(dir, now)?.insert(name, id);
        self.inode_mut(id)?.links += 1;
        Ok(())
    }

    /// `rename(2)`.
    pub(super) fn rename(&mut self, from: &RelPath, to: &RelPath, now: i64) -> Result<()> {
        let (old_dir, old_name, id) = self.entry(from)?;
        let (new_dir, new_name) = self.parent(to)?;
        let moved_dir = self.inode(id)?.kind == Kind::Dir;
        if moved_dir && to != from && to.names().starts_with(from.names()) {
            return Err(Errno::Inval);
        }
        let replaced = self.inode(new_dir)?.children.get(&new_name).copied();
        if let Some(replaced) = replaced {
            if replaced == id {
                return Ok(()); // two names of one file: nothing happens, both stay
            }
            let target = self.inode(replaced)?;
            match (moved_dir, target.kind == Kind::Dir) {
                (true, false) => return Err(Errno::NotDir),
                (false, true) => return Err(Errno::IsDir),
                (true, true) if !target.children.is_empty() => return Err(Errno::NotEmpty),
                _ => {}
            }
        }
        self.dir_mut(old_dir, now)?.remove(&old_name);
        self.dir_mut(new_dir, now)?.insert(new_name, id);
        if let Some(replaced) = replaced {
            self.inode_mut(replaced)?.links -= 1;
            self.collect(replaced);
        }
        Ok(())
    }

    /// OpenSSH's `SSH_FXP_RENAME`: link and unlink for files, a check and a rename for the rest.
    pub(super) fn sftp_rename(&mut self, from: &RelPath, to: &RelPath, now: i64) -> Result<()> {
        let id = self.lookup(from, false)?;
        if self.inode(id)?.kind == Kind::File {
            self.link(from, to, now)?;
            self.unlink(from, now)
        } else if self.lookup(to, true).is_ok() {
            Err(Errno::Exist)
        } else {
            self.rename(from, to, now)
        }
    }

    pub(super) fn read(&self, id: u64, offset: u64, len: usize) -> Result<Bytes> {
        let inode = self.inode(id)?;
        if inode.kind == Kind::Dir {
            return Err(Errno::IsDir);
        }
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(inode.data.len());
        let end = start.saturating_add(len).min(inode.data.len());
        Ok(Bytes::copy_from_slice(&inode.data[start..end]))
    }

    pub(super) fn write(&mut self, id: u64, offset: u64, data: &[u8], now: i64) -> Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        if end > self.inode(id)?.data.len() as u64 {
            self.resize(id, end, now)?;
        }
        let inode = self.inode_mut(id)?;
        Arc::make_mut(&mut inode.data)[offset as usize..end as usize].copy_from_slice(data);
        inode.mtime = now;
        Ok(())
    }

    fn resize(&mut self, id: u64, size: u64, now: i64) -> Result<()> {
        let old = self.inode(id)?.data.len() as u64;
        let used = self.used - old;
        if size > old && used.saturating_add(size) > self.capacity {
            return Err(Errno::NoSpace);
        }
        let inode = self.inode_mut(id)?;
        Arc::make_mut(&mut inode.data).resize(size as usize, 0);
        inode.mtime = now;
        self.used = used + size;
        Ok(())
    }

    pub(super) fn set(&mut self, id: u64, set: SetStat, now: i64) -> Result<()> {
        if self.read_only {
            return Err(Errno::ReadOnly);
        }
        if let Some(size) = set.size {
            match self.inode(id)?.kind {
                Kind::File => self.resize(id, size, now)?,
                _ => return Err(Errno::IsDir),
            }
        }
        let inode = self.inode_mut(id)?;
        let mtime = set.mtime.unwrap_or(inode.mtime);
        inode.mtime = mtime.clamp(0, i64::from(u32::MAX));
        // Linux knows no mode of a link; OpenSSH sets the time all the same.
        if set.mode.is_some() && inode.kind == Kind::Symlink {
            return Err(Errno::NotSupported);
        }
        inode.mode = set.mode.map_or(inode.mode, |mode| mode & 0o7777);
        Ok(())
    }

    pub(super) fn stat(&self, id: u64) -> Result<Stat> {
        let inode = self.inode(id)?;
        Ok(Stat {
            kind: inode.kind,
            size: match inode.kind {
                Kind::Dir => 4096,
                Kind::Symlink => inode.target.len() as u64,
                _ => inode.data.len() as u64,
            },
            mtime: inode.mtime,
            mode: inode.mode,
            uid: 1000,
            gid: 1000,
        })
    }

    pub(super) fn list(&self, id: u64) -> Result<Vec<(Name, u32, Stat)>> {
        let inode = self.inode(id)?;
        if inode.kind != Kind::Dir {
            return Err(Errno::NotDir);
        }
        let entry =
            |(name, id): (&Name, &u64)| Ok((name.clone(), self.inode(*id)?.links, self.stat(*id)?));
        inode.children.iter().map(entry).collect()
    }

    pub(super) fn readlink(&self, path: &RelPath) -> Result<Vec<u8>> {
        let inode = self.inode(self.lookup(path, false)?)?;
        match inode.kind {
            Kind::Symlink => Ok(inode.target.clone()),
            _ => Err(Errno::Inval),
        }
    }

    pub(super) fn statvfs(&self) -> StatVfs {
        StatVfs {
            total_bytes: self.capacity,
            available_bytes: self.capacity.saturating_sub(self.used),
            files: 1 << 20,
            files_free: (1 << 20) - self.inodes.len() as u64,
        }
    }
}
