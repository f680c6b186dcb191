//! What nobody has seen is not destroyed unasked, although a plan does not know of it.
//!
//! A file that was looked at within the second of its change may have changed again without showing it: what is
//! replaced there is kept.
//!
//! One content under two names: a file that somebody renamed on the server is seen at its new name before its old one
//! is known to be gone, as long as the old directory cannot be listed or was listed before. Whoever writes over the
//! one then may rely on the other, of which there is nothing here, and soon nothing there.
//!
//! So what is replaced while the other is still shown is kept, and the other is shown until then.

use super::super::shared::Shared;
use crate::replica::{Content, ReplicaError, View};
use crate::sync::{Action, Keep, Plan, Step};
use crate::tree::{BaseEntry, Kind, Place, Version};

/// The plan, so changed.
pub(super) fn spare(shared: &Shared, mut plan: Plan) -> Result<Plan, ReplicaError> {
    for phase in &mut plan.phases {
        let mut steps = Vec::with_capacity(phase.steps.len());
        for mut step in phase.steps.drain(..) {
            // One look at the index for each: the mount waits for no more.
            let needed = shared.replica.view(|view| {
                keep_replaced(view, &step.place, &mut step.action)?;
                is_needed(view, &step)
            })?;
            if !needed {
                steps.push(step);
            }
        }
        phase.steps = steps;
    }
    plan.phases.retain(|phase| !phase.steps.is_empty());
    Ok(plan)
}

/// What is replaced stays as a backup if it may be another content than was seen, or all that there is of a file
/// shown elsewhere.
fn keep_replaced(view: &View<'_>, place: &Place, action: &mut Action) -> Result<(), ReplicaError> {
    match action {
        Action::Compare { otherwise, .. } => keep_replaced(view, place, &mut otherwise.action),
        Action::Publish {
            replaces: Some(replaced),
            keep: keep @ Keep::Replaced,
            ..
        } => {
            let mut kept = view.is_racy(place)?;
            for (_, twin) in twins(view, place, replaced)? {
                kept |= is_empty_here(view, &twin)?;
            }
            if kept {
                *keep = Keep::Backup;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether the step takes away, or makes another of, a file of which there is nothing here, while what may be its
/// content is about to be replaced.
fn is_needed(view: &View<'_>, step: &Step) -> Result<bool, ReplicaError> {
    if !matches!(step.action, Action::Drop { .. } | Action::Refresh { .. }) {
        return Ok(false);
    }
    let Some(base) = view.base(&step.place)? else {
        return Ok(false);
    };
    if !is_empty_here(view, &base)? {
        return Ok(false);
    }
    for (twin, _) in twins(view, &step.place, &base.version)? {
        if view.is_dirty(&twin)? && may_be_replaced(view, &twin, &base)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether what is written over there may be what `base` tells of: nobody else has seen to it already, and it is not
/// this very file that goes there, which would wait for itself.
fn may_be_replaced(view: &View<'_>, twin: &Place, base: &BaseEntry) -> Result<bool, ReplicaError> {
    if view.child(twin.parent, &twin.name)? == Some(base.node) {
        return Ok(false);
    }
    Ok(view.observation(twin)?.is_none_or(|seen| {
        let version = seen.version;
        version.is_some_and(|version| version.looks_like(&base.version))
    }))
}

/// What else the server has, or had, that may be the same file.
fn twins(
    view: &View<'_>,
    place: &Place,
    version: &Version,
) -> Result<Vec<(Place, BaseEntry)>, ReplicaError> {
    if version.kind != Kind::File || version.size == 0 {
        return Ok(Vec::new());
    }
    let mut files = view.base_files_like(version)?;
    files.retain(|(other, _)| other != place);
    Ok(files)
}

/// Whether a file is shown whose content is not here.
fn is_empty_here(view: &View<'_>, base: &BaseEntry) -> Result<bool, ReplicaError> {
    let node = view.node(base.node)?;
    Ok(node.is_some_and(|node| node.kind == Kind::File && node.content != Content::Whole))
}
