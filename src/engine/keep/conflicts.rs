//! Conflicts: versions that are kept because another one won, until a person has decided.
//!
//! What lost here is a backup of this machine, what lost on the server is on its shelf and tells so in its name. What
//! was decided is remembered on this machine as the ids of what lost; deciding removes nothing that is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{id_of, node_at, tag};
use crate::engine::feed;
use crate::engine::reconcile::PassError;
use crate::engine::scan::ScanError;
use crate::engine::shared::{Shared, lock};
use crate::remote::layout::{self, Aside, Origin, Reason};
use crate::remote::{ErrorKind, Remote};
use crate::replica::{LocalBackup, ReplicaError, Tx, View};
use crate::tree::{Kind, RelPath, Time, Version};

/// Why a backup of this machine is kept that lost: the row has no other mark of it.
pub(in crate::engine) const LOST_HERE: &str = "lost a conflict against the server's version";

/// The key of the ids that were decided about, one a line.
const META_RESOLVED: &str = "conflicts.resolved";

/// Whose version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This machine's.
    Mine,
    /// Somebody else's, by way of the server.
    Theirs,
}

/// One of two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictVersion {
    /// Bytes; of a symlink those of its target, where they are known.
    pub size: u64,
    /// When its content was last changed.
    pub mtime: Time,
    /// The other machine that it came from, where that is known.
    pub host: Option<String>,
}

/// A version that lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Names it among the backups, too.
    pub id: String,
    /// Where it stood; only the end of it, if `cut`.
    pub path: RelPath,
    /// The path was too long for the name that it is kept under.
    pub cut: bool,
    /// When it was put aside.
    pub at: Time,
    /// Whose it was.
    pub lost: Side,
    /// This machine put it aside.
    pub found_here: bool,
    /// It is kept on the server.
    pub on_server: bool,
    /// What lost.
    pub kept: ConflictVersion,
    /// What stands there now.
    pub current: Option<ConflictVersion>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conflicts {
    /// Newest first.
    pub conflicts: Vec<Conflict>,
    /// There is no link: what lost on the server is as it was last seen, if it was.
    pub only_here: bool,
}

/// What lost on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Loser {
    aside: Aside,
    size: u64,
    mtime: i64,
}

/// Looks what lost on the server.
pub(in crate::engine) async fn look(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<(), ScanError> {
    let entries = match remote.interactive().list(&layout::backups()).await {
        // A home that is not ours yet, or no longer.
        Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
        entries => entries?,
    };
    let lost = |aside: &Aside| matches!(aside.reason, Reason::Conflict | Reason::Race);
    let losers = entries.into_iter().filter_map(|entry| {
        Some(Loser {
            aside: Aside::parse(&entry.name).filter(lost)?,
            size: entry.stat.size,
            mtime: entry.stat.mtime,
        })
    });
    let losers: Vec<Loser> = losers.collect();
    let before = std::mem::replace(&mut *lock(&shared.losers), losers.clone());
    let mut heard = losers.iter().filter(|loser| !before.contains(loser));
    shared
        .replica
        .update(|tx| heard.try_for_each(|loser| doubt_raced(tx, loser)))?;
    if !known(shared).is_ok_and(|known| known.is_empty()) {
        *lock(&shared.publishers) = feed::publishers(shared, remote).await?;
    }
    shared.conflicted.notify_one();
    Ok(())
}

/// What lost while it was being replaced may be what this machine sent, by somebody who saved as much in the same
/// second: then what is in place only looks like ours, and is compared.
fn doubt_raced(tx: &mut Tx<'_>, loser: &Loser) -> Result<(), ReplicaError> {
    let Aside {
        at, number, reason, ..
    } = loser.aside;
    if reason != Reason::Race {
        return Ok(());
    }
    for (place, _) in tx.base_files_like(&Version::file(loser.size, loser.mtime, 0))? {
        let path = tx.base_path_of(&place)?;
        if path.is_some_and(|path| Aside::new(at, number, reason, &path) == loser.aside) {
            tx.mark_racy(place)?;
        }
    }
    Ok(())
}

/// What nobody has decided about, after a look at the server if there is a link.
pub(in crate::engine) async fn list(shared: &Arc<Shared>) -> Result<Conflicts, PassError> {
    let remote = shared.online();
    if let Some(remote) = &remote {
        look(shared, remote).await?;
    }
    Ok(Conflicts {
        conflicts: known(shared)?,
        only_here: remote.is_none(),
    })
}

/// The same, as far as it is known here.
pub(in crate::engine) fn known(shared: &Shared) -> Result<Vec<Conflict>, ReplicaError> {
    let losers = lock(&shared.losers).clone();
    let publishers = lock(&shared.publishers);
    shared.replica.view(|view| {
        let resolved = resolved(view)?;
        let backups = view.backups()?;
        let mut found: Vec<_> = backups.iter().filter_map(lost_here).collect();
        // What this machine showed before is the same version, put aside by whoever replaced it there.
        let had: BTreeSet<_> = backups
            .iter()
            .map(|backup| key(&backup.path, &backup.version))
            .collect();
        let ours = tag(shared);
        found.extend(losers.iter().map(|loser| lost_there(loser, ours, &had)));
        found.retain(|conflict| !resolved.contains(&conflict.id));
        for conflict in found.iter_mut().filter(|conflict| !conflict.cut) {
            conflict.current = node_at(view, &conflict.path)?.map(|node| ConflictVersion {
                size: node.size,
                mtime: node.mtime,
                host: None,
            });
            let theirs = match conflict.lost {
                Side::Mine => conflict.current.as_mut(),
                Side::Theirs => Some(&mut conflict.kept),
            };
            if let Some(theirs) = theirs {
                let host = publishers.of(&conflict.path, theirs.size, theirs.mtime);
                theirs.host = host.map(str::to_owned);
            }
        }
        found.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
        Ok(found)
    })
}

fn key<'a>(path: &'a RelPath, version: &Version) -> (&'a RelPath, u64, i64) {
    (path, version.size, version.mtime)
}

fn lost_here(backup: &LocalBackup) -> Option<Conflict> {
    (backup.why == LOST_HERE).then(|| Conflict {
        id: format!("local-{}", backup.id),
        path: backup.path.clone(),
        cut: false,
        at: backup.at,
        lost: Side::Mine,
        found_here: true,
        on_server: false,
        kept: ConflictVersion {
            size: match backup.version.kind {
                Kind::Symlink => backup.version.target.len() as u64,
                _ => backup.version.size,
            },
            mtime: Time::new(backup.version.mtime, 0),
            host: None,
        },
        current: None,
    })
}

/// `ours` begins the numbers that this machine gives, `had` is what it showed once.
fn lost_there(loser: &Loser, ours: u16, had: &BTreeSet<(&RelPath, u64, i64)>) -> Conflict {
    let aside = &loser.aside;
    let (path, cut) = match &aside.origin {
        Origin::Path(path) => (path.clone(), false),
        Origin::Long { end, .. } => (RelPath::parse(end).unwrap_or_default(), true),
    };
    let mine = !cut && had.contains(&(&path, loser.size, loser.mtime));
    Conflict {
        id: id_of(aside),
        cut,
        at: aside.at,
        lost: if mine { Side::Mine } else { Side::Theirs },
        found_here: (aside.number >> 16) as u16 == ours,
        on_server: true,
        kept: ConflictVersion {
            size: loser.size,
            mtime: Time::new(loser.mtime, 0),
            host: None,
        },
        current: None,
        path,
    }
}

fn resolved(view: &View<'_>) -> Result<BTreeSet<String>, ReplicaError> {
    let ids = view.meta(META_RESOLVED)?.unwrap_or_default();
    let ids = String::from_utf8_lossy(&ids);
    Ok(ids.lines().map(str::to_owned).collect())
}

/// Remembers that somebody has decided, and forgets so of what is no longer kept.
pub(in crate::engine) fn resolve(shared: &Shared, id: &str) -> Result<(), ReplicaError> {
    let losers = lock(&shared.losers).clone();
    shared.replica.update(|tx| {
        let backups = tx.backups()?;
        let local = backups.iter().map(|backup| format!("local-{}", backup.id));
        let there = losers.iter().map(|loser| id_of(&loser.aside));
        let kept: BTreeSet<_> = local.chain(there).collect();
        let mut ids = resolved(tx)?;
        // Without a look at the server nothing tells what is still kept there.
        ids.retain(|id| kept.contains(id) || losers.is_empty());
        ids.insert(id.to_owned());
        let ids: Vec<_> = ids.into_iter().collect();
        tx.set_meta(META_RESOLVED, Some(ids.join("\n").into_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lost_is_told_by_what_was_shown_here_and_who_found_it_by_the_number() {
        let path = RelPath::parse(b"d/f").unwrap();
        let loser = |number, mtime| Loser {
            aside: Aside::new(Time::new(9, 0), number, Reason::Conflict, &path),
            size: 5,
            mtime,
        };
        let had = BTreeSet::from([(&path, 5, 7)]);
        for (number, mtime, lost, found_here) in [
            (0x00ab_0001, 7, Side::Mine, true),
            (0x00ab_0001, 8, Side::Theirs, true),
            (0x00ac_0001, 7, Side::Mine, false),
            (0x00ac_0001, 8, Side::Theirs, false),
        ] {
            let conflict = lost_there(&loser(number, mtime), 0xab, &had);
            assert_eq!((conflict.lost, conflict.found_here), (lost, found_here));
            assert_eq!((&conflict.path, conflict.cut), (&path, false));
        }
        let long: RelPath =
            RelPath::parse("x/".repeat(200).trim_end_matches('/').as_bytes()).unwrap();
        let aside = Aside::new(Time::new(9, 0), 1, Reason::Race, &long);
        let conflict = lost_there(
            &Loser {
                aside,
                size: 0,
                mtime: 0,
            },
            0,
            &had,
        );
        assert!(conflict.cut);
    }
}
