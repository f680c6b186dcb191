//! Versions that SFTP cannot tell apart: of one size, and written within one second. Another machine that knows
//! the one would take the other for it, for ever, and in the end write over it. So of two that follow each other
//! in one place, the later one is dated a second later, here and there.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::super::shared::{Shared, lock};
use crate::replica::{Node, ReplicaError};
use crate::tree::{Kind, Place, Time, Version};

/// How much later than its successor a version may be dated that had to be set apart itself, in seconds: a
/// program that writes on within the same second brings the true time back.
const AHEAD_SECS: i64 = 60;

/// How long ago a file may have been written, in seconds, for a new one of its name to be of the same second.
const RECENT_SECS: i64 = 60;

/// How old a file that has gone may be, in seconds, until it is forgotten: what took its place is sent by then.
const FORGET_AFTER_SECS: i64 = 3600;

/// Files that have gone from their places on the server: what is new there may look like them.
pub(in crate::engine) type Gone = Mutex<BTreeMap<Place, Version>>;

/// Forgets what nothing new can look like any more.
pub(in crate::engine) fn forget_gone(shared: &Shared) {
    let earliest = shared.now().secs() - FORGET_AFTER_SECS;
    lock(&shared.gone).retain(|_, version| version.mtime >= earliest);
}

/// Notes that `version` does not stand at `place` any more, as far as that may matter.
pub(super) fn note_gone(
    shared: &Shared,
    place: &Place,
    version: &Version,
) -> Result<(), ReplicaError> {
    if version.kind != Kind::File {
        return Ok(());
    }
    let is_recent = version.mtime >= shared.now().secs() - RECENT_SECS;
    let successor = shared
        .replica
        .view(|view| view.child(place.parent, &place.name))?;
    if is_recent || successor.is_some() {
        lock(&shared.gone).insert(place.clone(), version.clone());
    }
    Ok(())
}

/// What others may take for the version that goes to `place` next.
pub(super) fn lookalikes(
    shared: &Shared,
    place: &Place,
    replaces: Option<&Version>,
) -> Result<Vec<Version>, ReplicaError> {
    let base = shared.replica.view(|view| view.base(place))?;
    let base = base.map(|base| base.version);
    let known = [
        base,
        replaces.cloned(),
        lock(&shared.gone).get(place).cloned(),
    ];
    Ok(known.into_iter().flatten().collect())
}

/// The node, dated so that none of `others` looks like it. Its row follows, unless it was written to since.
pub(super) fn set_apart(
    shared: &Shared,
    mut node: Node,
    others: &[Version],
) -> Result<Node, ReplicaError> {
    let secs = date_apart(&node.version(), others);
    if secs == node.server_mtime() {
        return Ok(node);
    }
    let seen = node.mtime;
    node.mtime = Time::new(secs, 0);
    let now = shared.now();
    shared.replica.update(|tx| {
        let row = tx.node(node.id)?;
        if let Some(mut row) = row.filter(|row| row.mtime == seen) {
            row.mtime = node.mtime;
            row.ctime = now;
            tx.put_node(row)?;
            // Its other names are to get the date, too.
            for name in tx.places(node.id)? {
                tx.mark_dirty(name, now)?;
            }
        }
        Ok::<_, ReplicaError>(())
    })?;
    shared.node_changed(node.id);
    Ok(node)
}

/// The first second from the version's own on at which it looks like none of `others`.
fn date_apart(version: &Version, others: &[Version]) -> i64 {
    let confusable = others.iter().filter(|other| {
        let both = version.kind == Kind::File && other.kind == Kind::File;
        let ahead = other.mtime.saturating_sub(version.mtime);
        both && version.size == other.size && (0..=AHEAD_SECS).contains(&ahead)
    });
    let latest = confusable.map(|other| other.mtime).max();
    latest.map_or(version.mtime, |latest| {
        (latest + 1).min(i64::from(u32::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dated(size: u64, mtime: i64, others: &[(u64, i64)]) -> i64 {
        let others: Vec<_> = others
            .iter()
            .map(|(size, mtime)| Version::file(*size, *mtime, 0o600))
            .collect();
        date_apart(&Version::file(size, mtime, 0o644), &others)
    }

    #[test]
    fn a_version_is_dated_apart_from_those_that_look_like_it() {
        assert_eq!(dated(5, 100, &[]), 100);
        assert_eq!(dated(5, 100, &[(5, 99)]), 100);
        assert_eq!(dated(5, 100, &[(6, 100)]), 100);
        assert_eq!(dated(5, 100, &[(5, 100)]), 101);
        // The one before it was set apart, too.
        assert_eq!(dated(5, 100, &[(5, 101)]), 102);
        assert_eq!(dated(5, 100, &[(5, 101), (5, 100)]), 102);
        assert_eq!(dated(5, 100, &[(5, 102), (5, 100)]), 103);
        // Somebody dated it back on purpose.
        assert_eq!(dated(5, 100, &[(5, 1000)]), 100);
        let last = i64::from(u32::MAX);
        assert_eq!(dated(5, last, &[(5, last)]), last);
    }

    #[test]
    fn what_is_no_file_has_no_date() {
        let link = Version::symlink(b"there".to_vec());
        assert_eq!(date_apart(&link, std::slice::from_ref(&link)), link.mtime);
    }
}
