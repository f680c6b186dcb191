//! A machine's disk: a directory in memory of which it is known what was synced, and so what a power loss leaves.
//!
//! The model is harsher than ext4: of what was not synced, each file keeps its old or its new content, or zeros
//! or nothing in its place, and each name is as it was or as it is, independent of all others. Only a rename is
//! whole: a file is never without both its names.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::plug::{Death, SharedPlug};
use super::syscalls::{self, Watch};
use crate::support::client::Clock;
use crate::support::rng::Rng;

/// The names in a directory, and the inodes that they stand for.
type Names = BTreeMap<OsString, u64>;

/// A disk in use.
pub(crate) struct Disk {
    root: PathBuf,
    /// Where what a death leaves is to be.
    left: PathBuf,
    clock: Clock,
    plug: SharedPlug,
    state: RefCell<State>,
}

struct State {
    rng: Rng,
    full: bool,
    /// What was synced of each file, and when it was written at the latest.
    files: HashMap<u64, (Vec<u8>, i64)>,
    dirs: HashMap<u64, Names>,
}

/// What there is at one moment.
#[derive(Default)]
struct Tree {
    files: HashMap<u64, PathBuf>,
    dirs: HashMap<u64, Names>,
    root: u64,
}

impl Disk {
    /// The disk at `root`, a directory that is made if it is missing. All that is there is synced.
    pub(crate) fn new(
        root: PathBuf,
        left: PathBuf,
        clock: &Clock,
        plug: &SharedPlug,
        rng: Rng,
    ) -> Rc<Self> {
        fs::create_dir_all(&root).unwrap();
        let mut state = State {
            rng,
            full: false,
            files: HashMap::new(),
            dirs: HashMap::new(),
        };
        let mtime = |path: &Path| fs::metadata(path).unwrap().mtime();
        state.sync_all(&root, mtime);
        let disk = Rc::new(Self {
            root,
            left,
            clock: clock.clone(),
            plug: SharedPlug::clone(plug),
            state: RefCell::new(state),
        });
        syscalls::watch(Rc::clone(&disk) as _);
        disk
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Where what a death leaves is.
    pub(crate) fn left(&self) -> &Path {
        &self.left
    }

    pub(crate) fn is_full(&self) -> bool {
        self.state.borrow().full
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.state.borrow_mut().full = full;
    }

    /// Counts an event from which the machine may die.
    pub(crate) fn tick(&self) {
        if let Some(death) = self.plug.is_due() {
            self.die(death);
        }
    }

    /// Ends the machine now.
    pub(crate) fn die(&self, death: Death) {
        syscalls::unwatched(|| self.leave(&mut self.state.borrow_mut(), death, &self.left));
        self.plug.pulled(death);
    }

    /// Writes to `to` what is left.
    fn leave(&self, state: &mut State, death: Death, to: &Path) {
        let now = Tree::read(&self.root);
        let dirs = match death {
            Death::Kill => now.dirs,
            Death::PowerLoss => settle(&mut state.rng, now.root, &state.dirs, &now.dirs),
        };
        let mut todo = vec![(now.root, to.to_owned())];
        while let Some((ino, path)) = todo.pop() {
            // One of the many that are empty is made again when it is needed, and costs more than all the rest.
            if !dirs[&ino].is_empty() {
                fs::create_dir_all(&path).unwrap();
            }
            for (name, ino) in &dirs[&ino] {
                let path = path.join(name);
                if dirs.contains_key(ino) {
                    todo.push((*ino, path));
                } else if path.extension().is_none_or(|end| end != "db-shm") {
                    let known = now.files.get(ino).map(|path| fs::read(path).unwrap());
                    self.leave_file(state, death, *ino, known, &path);
                }
            }
        }
    }

    fn leave_file(
        &self,
        state: &mut State,
        death: Death,
        ino: u64,
        now: Option<Vec<u8>>,
        to: &Path,
    ) {
        let synced = state.files.get(&ino).cloned();
        let time = self.clock.secs();
        let (data, time) = match (now, synced) {
            (Some(now), Some((old, at))) if now == old => (now, at),
            (Some(now), _) if death == Death::Kill => (now, time),
            (Some(now), synced) => {
                let (old, at) = synced.unwrap_or_default();
                match state.rng.below(8) {
                    0..=2 => (old, at),
                    3..=5 => (now, time),
                    _ if is_of_index(to) => (mixed(&mut state.rng, &old, &now), time),
                    6 => (unfilled(&old, now), time),
                    _ => (Vec::new(), time),
                }
            }
            // Removed, but the removal is not on the disk.
            (None, Some(synced)) => synced,
            (None, None) => (Vec::new(), time),
        };
        tracing::trace!(path = %to.display(), len = data.len(), "left");
        let mut file = File::create(to).unwrap();
        file.write_all(&data).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time.unsigned_abs());
        file.set_modified(time).unwrap();
    }
}

impl State {
    /// All that is there is synced, with the times that `time` tells.
    fn sync_all(&mut self, root: &Path, time: impl Fn(&Path) -> i64) {
        let tree = Tree::read(root);
        for (ino, path) in tree.files {
            self.files
                .insert(ino, (fs::read(&path).unwrap(), time(&path)));
        }
        self.dirs = tree.dirs;
    }
}

impl Watch for Disk {
    fn root(&self) -> &Path {
        &self.root
    }

    fn before(&self, grows: bool) -> bool {
        self.tick();
        !(grows && self.state.borrow().full)
    }

    fn synced(&self, path: &Path) {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return; // It has no name any more.
        };
        tracing::trace!(path = %path.display(), len = meta.len(), "synced");
        let mut state = self.state.borrow_mut();
        if meta.is_dir() {
            state.dirs.insert(meta.ino(), names(path));
        } else {
            // The log of the index is long and synced often: it is read to where it was.
            let (content, at) = state.files.entry(meta.ino()).or_default();
            content.clear();
            File::open(path).unwrap().read_to_end(content).unwrap();
            *at = self.clock.secs();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It is no disk of anybody any more; what is there may go.
        drop(syscalls::unwatched(|| remove(&self.root)));
    }
}

impl Tree {
    fn read(root: &Path) -> Self {
        let root_ino = fs::metadata(root).unwrap().ino();
        let mut tree = Self {
            root: root_ino,
            ..Self::default()
        };
        let mut todo = vec![(root_ino, root.to_owned())];
        while let Some((dir, path)) = todo.pop() {
            let mut names = Names::new();
            for entry in fs::read_dir(&path).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => todo.push((entry.ino(), entry.path())),
                    false => drop(tree.files.insert(entry.ino(), entry.path())),
                }
                names.insert(entry.file_name(), entry.ino());
            }
            tree.dirs.insert(dir, names);
        }
        tree
    }
}

fn names(dir: &Path) -> Names {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name(), entry.ino()))
        .collect()
}

/// Removes a directory with all in it. Most are empty, and for those it is one call.
fn remove(dir: &Path) -> io::Result<()> {
    if fs::remove_dir(dir).is_ok() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => remove(&entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_dir(dir)
}

/// Whether a file is written in place, page by page or record after record.
fn is_of_index(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name.starts_with("index.db") || name.starts_with("journal.")
}

/// The length of a file is on the disk, and what was written to it is not.
fn unfilled(old: &[u8], mut now: Vec<u8>) -> Vec<u8> {
    let common = old
        .iter()
        .zip(&now)
        .take_while(|(old, now)| old == now)
        .count();
    now[common..].fill(0);
    now
}

/// Each sector as it was or as it is.
fn mixed(rng: &mut Rng, old: &[u8], now: &[u8]) -> Vec<u8> {
    const SECTOR: usize = 512;
    let mut data = vec![0; rng.pick(&[old.len(), now.len(), now.len()])];
    for at in (0..data.len()).step_by(SECTOR) {
        let from = if rng.one_in(2) { old } else { now };
        let end = data.len().min(at + SECTOR).min(from.len());
        if at < end {
            data[at..end].copy_from_slice(&from[at..end]);
        }
    }
    data
}

/// All that is below `root`, in an order that depends on names alone.
fn walk(root: u64, dirs: &HashMap<u64, Names>) -> Vec<u64> {
    let mut found = Vec::new();
    let mut todo = vec![root];
    while let Some(dir) = todo.pop() {
        for ino in dirs.get(&dir).into_iter().flat_map(Names::values) {
            found.push(*ino);
            todo.push(*ino);
        }
    }
    found
}

/// The names that a power loss leaves.
fn settle(
    rng: &mut Rng,
    root: u64,
    synced: &HashMap<u64, Names>,
    now: &HashMap<u64, Names>,
) -> HashMap<u64, Names> {
    let places = |dirs: &HashMap<u64, Names>| {
        let mut places: BTreeMap<u64, BTreeSet<(u64, OsString)>> = BTreeMap::new();
        // A directory that was synced and is gone by now is nobody's any more.
        for (dir, names) in dirs.iter().filter(|(dir, _)| now.contains_key(dir)) {
            for (name, ino) in names {
                places.entry(*ino).or_default().insert((*dir, name.clone()));
            }
        }
        places
    };
    let (old, new) = (places(synced), places(now));
    let nowhere = BTreeSet::new();
    // Where each file stands that is new, for all of them are decided one by one.
    let mut chosen: BTreeMap<u64, bool> = BTreeMap::new();
    for ino in walk(root, synced).into_iter().chain(walk(root, now)) {
        let same = old.get(&ino) == new.get(&ino);
        chosen.entry(ino).or_insert_with(|| same || rng.one_in(2));
    }
    loop {
        let mut taken: BTreeMap<&(u64, OsString), u64> = BTreeMap::new();
        let mut pushed = None;
        // Who came to a place pushes out who was there, and that one stands where it went.
        for (ino, _) in chosen.iter().filter(|(_, new)| **new) {
            taken.extend(new.get(ino).unwrap_or(&nowhere).iter().map(|at| (at, *ino)));
        }
        for (ino, _) in chosen.iter().filter(|(_, new)| !**new) {
            for at in old.get(ino).unwrap_or(&nowhere) {
                match taken.get(at) {
                    Some(other) if other != ino => pushed = Some(*ino),
                    _ => drop(taken.insert(at, *ino)),
                }
            }
        }
        let Some(pushed) = pushed else {
            let mut dirs: HashMap<u64, Names> =
                now.keys().map(|dir| (*dir, Names::new())).collect();
            for ((dir, name), ino) in taken {
                dirs.get_mut(dir).unwrap().insert(name.clone(), ino);
            }
            return dirs;
        };
        chosen.insert(pushed, true);
    }
}
