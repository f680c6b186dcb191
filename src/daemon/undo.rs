//! Taking back what a pass did, the latest first, by ordinary changes through the mount. What changed since stays: each
//! step looks once more before it acts, and what it replaces is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::lifecycle::Daemon;
use super::{failure, restore};
use crate::control::protocol::{NotUndone, Undone};
use crate::control::{Code, Failure};
use crate::engine::KeptWhere;
use crate::replica::{Deed, DeedKind};
use crate::tree::{Kind, RelPath, Version};

/// What takes a deed back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// It is as it was.
    Nothing,
    Remove,
    RemoveDir,
    MakeDir,
    /// Make an empty file: of these no content is kept.
    MakeEmpty,
    /// Put back what is kept, over what stands there.
    PutOver,
    /// Put back what is kept, where nothing stands.
    PutBack,
    MoveBack,
    SetAttributes,
}

/// What there is to decide upon.
#[derive(Debug, Clone, Default)]
struct Now {
    /// What stands at the deed's path.
    here: Option<Version>,
    /// A program wrote to it since it was last sent.
    written: bool,
    /// What stands where it came from.
    at_from: Option<Version>,
    /// What the deed replaced is still kept.
    kept: bool,
}

/// What to do about a deed, or why it stays.
fn decide(deed: &Deed, now: &Now) -> Result<Act, &'static str> {
    let same = |one: &Option<Version>, other: &Option<Version>| match (one, other) {
        (Some(one), Some(other)) if one.kind == Kind::Dir => other.kind == Kind::Dir,
        (Some(one), Some(other)) => one.same(other),
        (one, other) => one.is_none() && other.is_none(),
    };
    let as_left = !now.written && same(&now.here, &deed.after);
    let as_before = !now.written && same(&now.here, &deed.before);
    let kind = deed.before.as_ref().map(|before| before.kind);
    let empty = kind == Some(Kind::File) && deed.before.as_ref().is_some_and(|v| v.size == 0);
    let is_dir = |version: &Option<Version>| version.as_ref().is_some_and(|v| v.kind == Kind::Dir);
    match deed.kind {
        DeedKind::More => Err("the pass did more than is remembered"),
        DeedKind::Moved if now.here.is_none() => Err("it is no longer there"),
        DeedKind::Moved if now.at_from.is_some() => Err("something stands where it was"),
        DeedKind::Moved if as_left => Ok(Act::MoveBack),
        // Directories are the same whatever their mode is.
        DeedKind::Attributes if as_left => Ok(Act::SetAttributes),
        _ if as_before => Ok(Act::Nothing),
        DeedKind::Created if as_left && is_dir(&now.here) => Ok(Act::RemoveDir),
        DeedKind::Created if as_left => Ok(Act::Remove),
        DeedKind::Removed if now.here.is_some() => Err("something else stands there now"),
        DeedKind::Removed if kind == Some(Kind::Dir) => Ok(Act::MakeDir),
        DeedKind::Removed if now.kept => Ok(Act::PutBack),
        DeedKind::Removed if empty => Ok(Act::MakeEmpty),
        DeedKind::Replaced if as_left && now.kept => Ok(Act::PutOver),
        DeedKind::Replaced | DeedKind::Removed if !now.kept => Err("what stood there is not kept"),
        _ => Err("it changed since"),
    }
}

fn line(deed: &Deed, act: Act) -> Option<String> {
    let (path, from) = (&deed.path, &deed.from);
    Some(match act {
        Act::Nothing => return None,
        Act::Remove => format!("remove {path}"),
        Act::RemoveDir => format!("remove directory {path}"),
        Act::MakeDir => format!("make directory {path}"),
        Act::MakeEmpty | Act::PutBack => format!("put back {path}"),
        Act::PutOver => format!("put back the version before of {path}"),
        Act::MoveBack => format!("move {path} back to {from}"),
        Act::SetAttributes => format!("set mode and time of {path} back"),
    })
}

/// What one undo knows of.
struct Undo<'a> {
    daemon: &'a Arc<Daemon>,
    dry_run: bool,
    /// Ids of what is kept.
    kept: BTreeSet<String>,
    /// What stands, or would stand, where this undo did something.
    done: BTreeMap<RelPath, Option<Version>>,
}

/// Takes back what `pass` did, or says what that would do.
pub(super) async fn undo(
    daemon: &Arc<Daemon>,
    pass: u64,
    dry_run: bool,
) -> Result<Undone, Failure> {
    let deeds = daemon.engine.deeds(pass).map_err(failure::replica)?;
    if deeds.is_empty() {
        let message = format!("nothing is remembered that pass {pass} did");
        return Err(Failure::new(Code::General, message)
            .remedy("`roamhome passes` lists the passes that can be taken back"));
    }
    let mut undo = Undo {
        daemon,
        dry_run,
        kept: kept(daemon, &deeds).await?,
        done: BTreeMap::new(),
    };
    let mut undone = Undone::default();
    for deed in &deeds {
        match undo.take_back(deed).await {
            Ok(line) => undone.lines.extend(line),
            Err(why) => undone.left.push(NotUndone {
                path: deed.path.to_string(),
                why,
            }),
        }
    }
    Ok(undone)
}

/// The ids of all that is kept, as far as the deeds need them. What is kept on the server needs the link.
async fn kept(daemon: &Daemon, deeds: &[Deed]) -> Result<BTreeSet<String>, Failure> {
    let mut shelves = Vec::new();
    let mut ids = deeds.iter().map(|deed| deed.kept.as_str());
    if ids.any(|id| !id.is_empty()) {
        shelves.push(KeptWhere::Backups);
    }
    let mut ids = deeds.iter().map(|deed| deed.kept.as_str());
    if ids.any(|id| !id.is_empty() && !id.starts_with("local-")) {
        shelves.push(KeptWhere::Trash);
    }
    let mut found = BTreeSet::new();
    for which in shelves {
        let shelf = daemon.engine.kept(which).await;
        let shelf = shelf.map_err(|error| failure::pass(&error))?;
        found.extend(shelf.items.into_iter().map(|item| item.id));
    }
    Ok(found)
}

impl Undo<'_> {
    /// What it did, or why the deed stays.
    async fn take_back(&mut self, deed: &Deed) -> Result<Option<String>, String> {
        let act = decide(deed, &self.now(deed)?)?;
        if !self.dry_run {
            self.act(deed, act).await?;
        }
        match act {
            Act::Nothing => {}
            Act::MoveBack => {
                self.done.insert(deed.from.clone(), deed.after.clone());
                self.done.insert(deed.path.clone(), None);
            }
            _ => {
                self.done.insert(deed.path.clone(), deed.before.clone());
            }
        }
        Ok(line(deed, act))
    }

    fn now(&self, deed: &Deed) -> Result<Now, String> {
        let (here, written) = self.stands(&deed.path)?;
        let at_from = match deed.kind {
            DeedKind::Moved => self.stands(&deed.from)?.0,
            _ => None,
        };
        Ok(Now {
            here,
            written,
            at_from,
            kept: self.kept.contains(&deed.kept),
        })
    }

    /// What stands at a path, and whether a program wrote to it that was not this undo.
    fn stands(&self, path: &RelPath) -> Result<(Option<Version>, bool), String> {
        if let Some(version) = self.done.get(path).filter(|_| self.dry_run) {
            return Ok((version.clone(), false));
        }
        let node = self.daemon.engine.node_at(path);
        let node = node.map_err(|error| error.to_string())?;
        // What this undo wrote is what it put there, as long as size and time say so.
        let ours = self.done.contains_key(path);
        let written = node.as_ref().is_some_and(|node| node.data_changed && !ours);
        Ok((node.map(|node| node.version()), written))
    }

    async fn act(&self, deed: &Deed, act: Act) -> Result<(), String> {
        let mtime = deed.before.as_ref().map_or(0, |before| before.mtime);
        if !matches!(act, Act::PutOver | Act::PutBack) {
            let mount = self.daemon.request.mountpoint.clone();
            let deed = deed.clone();
            let done = tokio::task::spawn_blocking(move || change(&mount, &deed, act));
            let done = done.await.map_err(|error| error.to_string())?;
            return done.map_err(|error| error.to_string());
        }
        let said = |failure: Failure| failure.message;
        let scratch = restore::to_scratch(self.daemon, &deed.kept).await;
        let (scratch, kind) = scratch.map_err(said)?;
        // Fetching takes a while, in which programs go on.
        if decide(deed, &self.now(deed)?) != Ok(act) {
            drop(fs::remove_file(&scratch));
            return Err("it changed since".to_owned());
        }
        let flags = match act {
            Act::PutOver => {
                let kept = self.daemon.engine.keep_current(&deed.path).await;
                kept.map_err(|error| error.to_string())?;
                RenameFlags::empty()
            }
            _ => RenameFlags::NOREPLACE,
        };
        let put = restore::place(self.daemon, &deed.path, scratch, kind, mtime, flags);
        put.await.map_err(said)
    }
}

fn in_mount(mount: &Path, path: &RelPath) -> PathBuf {
    mount.join(OsStr::from_bytes(&path.to_bytes()))
}

/// What needs no content.
fn change(mount: &Path, deed: &Deed, act: Act) -> io::Result<()> {
    let path = in_mount(mount, &deed.path);
    match act {
        Act::Nothing | Act::PutOver | Act::PutBack => Ok(()),
        Act::Remove => fs::remove_file(path),
        Act::RemoveDir => fs::remove_dir(path),
        Act::MakeDir => {
            fs::create_dir(&path)?;
            set_attributes(&path, deed)
        }
        Act::MakeEmpty => {
            fs::File::create_new(&path)?;
            set_attributes(&path, deed)
        }
        Act::MoveBack => {
            let from = in_mount(mount, &deed.from);
            Ok(renameat_with(
                CWD,
                &path,
                CWD,
                &from,
                RenameFlags::NOREPLACE,
            )?)
        }
        Act::SetAttributes => set_attributes(&path, deed),
    }
}

fn set_attributes(path: &Path, deed: &Deed) -> io::Result<()> {
    let Some(before) = &deed.before else {
        return Ok(());
    };
    if before.kind == Kind::File {
        let seconds = u64::try_from(before.mtime).unwrap_or(0);
        let mtime = UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::open(path)?.set_modified(mtime)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(before.mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Time;

    fn deed(kind: DeedKind, before: &Option<Version>, after: &Option<Version>) -> Deed {
        Deed {
            at: Time(0),
            on_server: false,
            kind,
            path: RelPath::root(),
            from: RelPath::root(),
            before: before.clone(),
            after: after.clone(),
            kept: String::new(),
        }
    }

    #[test]
    fn what_changed_since_a_pass_stays_and_what_is_kept_comes_back() {
        use DeedKind::{Attributes, Created, More, Moved, Removed, Replaced};
        let [old, new, other] = [1, 2, 3].map(|size| Some(Version::file(size, 9, 0o644)));
        let (dir, empty) = (Some(Version::dir(0o755)), Some(Version::file(0, 9, 0o644)));
        let none = None;
        let changed = Err("it changed since");
        let lost = Err("what stood there is not kept");
        let taken = Err("something else stands there now");
        for (kind, before, after, here, kept, expected) in [
            (Created, &none, &new, &new, false, Ok(Act::Remove)),
            (Created, &none, &new, &none, false, Ok(Act::Nothing)),
            (Created, &none, &new, &other, false, changed),
            (Created, &none, &dir, &dir, false, Ok(Act::RemoveDir)),
            (Created, &none, &dir, &new, false, changed),
            (Replaced, &old, &new, &new, true, Ok(Act::PutOver)),
            (Replaced, &old, &new, &new, false, lost),
            (Replaced, &old, &new, &old, true, Ok(Act::Nothing)),
            (Replaced, &old, &new, &other, true, changed),
            (Replaced, &old, &new, &none, true, changed),
            (Removed, &old, &none, &none, true, Ok(Act::PutBack)),
            (Removed, &old, &none, &none, false, lost),
            (Removed, &empty, &none, &none, false, Ok(Act::MakeEmpty)),
            (Removed, &dir, &none, &none, false, Ok(Act::MakeDir)),
            (Removed, &dir, &none, &dir, false, Ok(Act::Nothing)),
            (Removed, &old, &none, &other, true, taken),
            (Moved, &old, &old, &old, false, Ok(Act::MoveBack)),
            (Moved, &dir, &dir, &dir, false, Ok(Act::MoveBack)),
            (
                Moved,
                &old,
                &old,
                &none,
                false,
                Err("it is no longer there"),
            ),
            (Moved, &old, &old, &other, false, changed),
            (Attributes, &old, &new, &new, false, Ok(Act::SetAttributes)),
            (Attributes, &dir, &dir, &dir, false, Ok(Act::SetAttributes)),
            (Attributes, &old, &new, &other, false, changed),
        ] {
            let deed = deed(kind, before, after);
            let mut now = Now {
                here: here.clone(),
                kept,
                ..Now::default()
            };
            assert_eq!(decide(&deed, &now), expected, "{deed:?} {now:?}");
            // What is being written to stays, whatever it looks like.
            now.written = here.is_some();
            let acts = decide(&deed, &now).is_ok_and(|act| act != Act::Nothing);
            assert!(!acts || here.is_none(), "{deed:?} {now:?}");
        }
        assert!(decide(&deed(More, &none, &none), &Now::default()).is_err());
        let now = Now {
            here: old.clone(),
            at_from: new,
            ..Now::default()
        };
        let moved = deed(Moved, &old, &old);
        assert_eq!(decide(&moved, &now), Err("something stands where it was"));
    }
}
