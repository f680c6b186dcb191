//! Which files the kernel may read and write for a daemon: regular files of its account that are content of its
//! replica at this moment, and so many at a time.
//!
//! The kernel writes to them without asking who may, so nothing but the descriptor itself is believed. Where it says that
//! it lies is where it is looked for, below the state directory, without links and on the same mount; it has to be the
//! very file. Whoever changes names meanwhile only gets another refusal: what is told to the kernel is the descriptor.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::super::backing;

/// So many files at a time; each is held open by the kernel.
const MOST: usize = 1024;

/// Where content lies in a state directory.
const CONTENT: [&[u8]; 2] = [b"content", b"unsent"];

/// What the kernel was told of, for one mount.
pub(super) struct Backings {
    fuse: OwnedFd,
    state_dir: PathBuf,
    uid: u32,
    gid: u32,
    open: BTreeSet<u32>,
}

impl Backings {
    /// None yet, for the kernel that asks at `fuse`, and content in `state_dir` of one account.
    pub(super) fn new(fuse: OwnedFd, state_dir: &Path, (uid, gid): (u32, u32)) -> Self {
        Self {
            fuse,
            state_dir: state_dir.to_owned(),
            uid,
            gid,
            open: BTreeSet::new(),
        }
    }

    /// Tells the kernel of a file.
    pub(super) fn open(&mut self, file: &OwnedFd) -> io::Result<u32> {
        if self.open.len() >= MOST {
            return Err(Errno::MFILE.into());
        }
        check(file, &self.state_dir, self.uid)?;
        let id = as_account(self.uid, self.gid, || backing::open(&self.fuse, file))?;
        self.open.insert(id);
        Ok(id)
    }

    /// Lets the kernel forget one that it was told of.
    pub(super) fn close(&mut self, id: u32) -> io::Result<()> {
        match self.open.remove(&id) {
            true => backing::close(&self.fuse, id),
            false => Err(Errno::NOENT.into()),
        }
    }

    /// Lets the kernel forget all of them.
    pub(super) fn close_all(&mut self) {
        for id in std::mem::take(&mut self.open) {
            if let Err(error) = backing::close(&self.fuse, id) {
                tracing::debug!(%error, "the kernel does not forget a content file");
            }
        }
    }
}

/// Whether it is content in `state_dir` of the account `uid`.
fn check(file: &OwnedFd, state_dir: &Path, uid: u32) -> io::Result<()> {
    let refused = || io::Error::from(Errno::ACCESS);
    if rustix::fs::fcntl_getfl(file)?.contains(OFlags::PATH) {
        return Err(Errno::BADF.into());
    }
    let found = fstat(file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || found.st_uid != uid {
        return Err(refused());
    }
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let said = readlinkat(CWD, link, Vec::new())?;
    let place = place_of(said.as_bytes()).ok_or_else(refused)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(CWD, state_dir, flags | OFlags::DIRECTORY, Mode::empty())?;
    if fstat(&dir)?.st_uid != uid {
        return Err(refused());
    }
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let stands = openat2(dir.as_fd(), place, flags, Mode::empty(), resolve)?;
    let stands = fstat(&stands)?;
    match (stands.st_dev, stands.st_ino) == (found.st_dev, found.st_ino) {
        true => Ok(()),
        false => Err(refused()),
    }
}

/// The last three names of a path, if they look like those of content: which of both, two digits, and a number.
fn place_of(path: &[u8]) -> Option<&OsStr> {
    let mut ends = path
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'/');
    let start = ends.nth(2)?.0 + 1;
    let place = &path[start..];
    let mut names = place.split(|byte| *byte == b'/');
    let (which, fan, number) = (names.next()?, names.next()?, names.next()?);
    let fits = CONTENT.contains(&which)
        && fan.len() == 2
        && fan.iter().all(u8::is_ascii_hexdigit)
        && !number.is_empty()
        && number.iter().all(u8::is_ascii_digit);
    fits.then(|| OsStr::from_bytes(place))
}

/// Does `f` as the account would, were it allowed to: the kernel keeps these rights and writes with them, so what holds
/// for the account, such as its quota and the room that is left to root alone, holds for what is written.
fn as_account<T>(uid: u32, gid: u32, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    /// All of this is the thread's own and ends with this.
    struct Before(CapabilitySets, Uid, Gid);

    impl Drop for Before {
        fn drop(&mut self) {
            setfsuid(self.1);
            setfsgid(self.2);
            if let Err(error) = set_capabilities(None, self.0) {
                // It has fewer than before, and says so when it needs them.
                tracing::error!(%error, "the broker lost its rights");
            }
        }
    }

    let all = capabilities(None)?;
    let _before = Before(
        all,
        setfsuid(Uid::from_raw(uid)),
        setfsgid(Gid::from_raw(gid)),
    );
    set_capabilities(
        None,
        CapabilitySets {
            effective: all.effective & CapabilitySet::SYS_ADMIN,
            ..all
        },
    )?;
    f()
}

#[cfg(test)]
mod tests;
