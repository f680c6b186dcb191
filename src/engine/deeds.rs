//! What passes did, step by step, so that a person can have it taken back. A deed is written in the transaction that
//! folds its step: the log never says what did not happen. What a crash cut off and a later start found done is not in it.

use std::collections::BTreeMap;

use super::shared::{Shared, lock};
use crate::remote::layout::Aside;
use crate::replica::{Deed, DeedKind, LocalBackup, Node, ReplicaError, Tx};
use crate::sync::{Action, Step};
use crate::tree::{Place, RelPath, Time, Version};

/// So many deeds of one pass are remembered: the first ones.
const OF_PASS_MAX: u64 = 20_000;

/// So many of all passes.
const MAX: usize = 100_000;

/// Expired in one transaction: the mount waits for it.
const EXPIRED_AT_ONCE: usize = 1000;

/// The log of the pass that runs.
#[derive(Debug, Default)]
pub(super) struct Log {
    pass: u64,
    next: u64,
    /// Ids of what was about to be put aside on the server, by where it stood there.
    aside: BTreeMap<RelPath, String>,
}

/// What a pass did, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassDeeds {
    /// Which pass.
    pub id: u64,
    /// When it did the first of it, local time.
    pub at: Time,
    /// How many places are new, here or on the server.
    pub created: u64,
    /// Show another version.
    pub replaced: u64,
    /// Are gone.
    pub removed: u64,
    /// Have another name.
    pub moved: u64,
    /// Have another mode or time.
    pub attributes: u64,
    /// It did more than is remembered.
    pub more: bool,
}

/// A pass begins.
pub(super) fn begin(shared: &Shared, pass: u64) {
    *lock(&shared.log) = Log {
        pass,
        ..Log::default()
    };
}

/// What stands at `path` on the server is about to be put aside.
pub(super) fn put_aside(shared: &Shared, path: &RelPath, aside: &Aside) {
    let id = super::keep::id_of(aside);
    lock(&shared.log).aside.insert(path.clone(), id);
}

/// What a step that is done on the server means to the log; asked before it is folded.
pub(super) fn of_step(
    shared: &Shared,
    tx: &Tx<'_>,
    step: &Step,
    sent: Option<&Version>,
) -> Result<Vec<Deed>, ReplicaError> {
    if !step.action.is_on_server() {
        return Ok(Vec::new());
    }
    let there = tx.base_path_of(&step.place)?.unwrap_or_default();
    let path = tx
        .local_path_of(&step.place)?
        .unwrap_or_else(|| there.clone());
    let kept = lock(&shared.log).aside.remove(&there).unwrap_or_default();
    let deed = |kind, before: Option<&Version>, after: Option<&Version>, kept: &str| Deed {
        at: shared.now(),
        on_server: true,
        kind,
        path: path.clone(),
        from: RelPath::root(),
        before: before.cloned(),
        after: after.cloned(),
        kept: kept.to_owned(),
    };
    Ok(match &step.action {
        Action::Publish { replaces: None, .. } | Action::MakeDir { .. } => {
            vec![deed(DeedKind::Created, None, sent, "")]
        }
        Action::Publish { replaces, .. } => {
            vec![deed(DeedKind::Replaced, replaces.as_ref(), sent, &kept)]
        }
        Action::SetAttr { expected, .. } => {
            vec![deed(DeedKind::Attributes, Some(expected), sent, "")]
        }
        Action::Remove { expected, .. } => {
            vec![deed(DeedKind::Removed, Some(expected), None, &kept)]
        }
        Action::RemoveDir => {
            let base = tx.base(&step.place)?.map(|base| base.version);
            let version = base.unwrap_or_else(|| Version::dir(0o755));
            vec![deed(DeedKind::Removed, Some(&version), None, "")]
        }
        Action::Move {
            from,
            expected,
            replaces,
            ..
        } => {
            let gone = replaces.as_ref();
            let gone = gone.map(|gone| deed(DeedKind::Removed, Some(gone), None, &kept));
            let moved = Deed {
                from: tx.base_path_of(from)?.unwrap_or_default(),
                ..deed(DeedKind::Moved, Some(expected), Some(expected), "")
            };
            gone.into_iter().chain([moved]).collect()
        }
        // The replica's own steps tell of themselves.
        _ => Vec::new(),
    })
}

/// Adds to the log of the pass that runs.
pub(super) fn add(shared: &Shared, tx: &mut Tx<'_>, deed: Deed) -> Result<(), ReplicaError> {
    let mut log = lock(&shared.log);
    if log.next > OF_PASS_MAX {
        return Ok(());
    }
    let deed = match log.next {
        OF_PASS_MAX => Deed {
            kind: DeedKind::More,
            kept: String::new(),
            ..deed
        },
        _ => deed,
    };
    tx.add_deed(log.pass, log.next, deed)?;
    log.next += 1;
    Ok(())
}

/// Adds what a step did here. What stood at `place` before is `before`, and is kept as `backup`, if it is.
pub(super) fn here(
    shared: &Shared,
    tx: &mut Tx<'_>,
    (kind, place): (DeedKind, &Place),
    (before, after): (Option<&Node>, Option<&Version>),
    backup: Option<&LocalBackup>,
) -> Result<(), ReplicaError> {
    let Some(path) = tx.local_path_of(place)? else {
        return Ok(());
    };
    let deed = Deed {
        at: shared.now(),
        on_server: false,
        kind,
        path,
        from: RelPath::root(),
        before: before.map(Node::version),
        after: after.cloned(),
        kept: backup.map_or_else(String::new, |backup| format!("local-{}", backup.id)),
    };
    add(shared, tx, deed)
}

/// The passes that did something, the latest first.
pub(super) fn passes(shared: &Shared) -> Result<Vec<PassDeeds>, ReplicaError> {
    let deeds = shared.replica.view(|view| view.deeds(0, u64::MAX))?;
    let mut passes: Vec<PassDeeds> = Vec::new();
    for ((id, _), deed) in deeds {
        if passes.last().is_none_or(|pass| pass.id != id) {
            passes.push(PassDeeds {
                id,
                at: deed.at,
                ..PassDeeds::default()
            });
        }
        let Some(pass) = passes.last_mut() else {
            continue;
        };
        match deed.kind {
            DeedKind::Created => pass.created += 1,
            DeedKind::Replaced => pass.replaced += 1,
            DeedKind::Removed => pass.removed += 1,
            DeedKind::Moved => pass.moved += 1,
            DeedKind::Attributes => pass.attributes += 1,
            DeedKind::More => pass.more = true,
        }
    }
    passes.reverse();
    Ok(passes)
}

/// What a pass did, the latest first.
pub(super) fn of_pass(shared: &Shared, pass: u64) -> Result<Vec<Deed>, ReplicaError> {
    let deeds = shared.replica.view(|view| view.deeds(pass, pass))?;
    Ok(deeds.into_iter().rev().map(|(_, deed)| deed).collect())
}

/// Forgets what is from before `before`, and the oldest of what is too much.
pub(super) fn expire(shared: &Shared, before: Time) -> Result<(), ReplicaError> {
    let deeds = shared.replica.view(|view| view.deeds(0, u64::MAX))?;
    let too_many = deeds.len().saturating_sub(MAX);
    let keys = deeds.into_iter().enumerate();
    let gone = keys.filter(|(i, (_, deed))| *i < too_many || deed.at < before);
    let gone: Vec<_> = gone.map(|(_, (key, _))| key).collect();
    for keys in gone.chunks(EXPIRED_AT_ONCE) {
        shared.replica.update(|tx| {
            keys.iter()
                .try_for_each(|(pass, number)| tx.remove_deed(*pass, *number))
        })?;
    }
    Ok(())
}
