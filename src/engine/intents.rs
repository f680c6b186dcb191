//! What this machine was about to do on the server when it lost the link or died.
//!
//! The answer to a request may be lost although the request was carried out. So each one that gives something
//! of ours its name is written down before; the next pass looks what came of it, before it plans anything.
//! Otherwise our own work would look like another machine's: what was removed here since would come back, and
//! an older version of ours could win over a newer one.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::execute::apply_fold;
use super::keep;
use super::push::{discard, look};
use super::scan::ScanError;
use super::shared::Shared;
use crate::remote::Remote;
use crate::replica::{Intent, Problem, ReplicaError};
use crate::sync::{self, Action, Fold, Outcome, Step, Why};
use crate::tree::{BaseEntry, Kind, Place, RelPath, Version};

/// Writes down what is about to be made of `place`.
pub(super) fn declare(shared: &Shared, place: &Place, intent: Intent) -> Result<(), ReplicaError> {
    shared
        .replica
        .update(|tx| tx.intend(place.clone(), Some(intent)))
}

/// Looks what came of everything that was under way when the last pass ended too early, and folds it. A
/// place that cannot be looked at is a problem of that place; only the loss of the link is an error.
pub(super) async fn resolve(shared: &Arc<Shared>, remote: &Remote) -> Result<(), ScanError> {
    let intents = shared
        .replica
        .view::<_, ReplicaError>(|view| view.intents())?;
    stream::iter(intents)
        .map(|(place, intent)| resolve_one(shared, remote, place, intent))
        .buffer_unordered(shared.options.transfers_at_once.max(1))
        .try_collect()
        .await
}

async fn resolve_one(
    shared: &Shared,
    remote: &Remote,
    place: Place,
    intent: Intent,
) -> Result<(), ScanError> {
    let Some(target) = shared.replica.view(|view| view.base_path_of(&place))? else {
        // Its directory is gone from the server, and it with it.
        shared
            .replica
            .update::<_, ReplicaError>(|tx| tx.intend(place, None))?;
        return Ok(());
    };
    let session = remote.bulk().as_ref();
    let staged = keep::staging_path(shared, intent.node, intent.number);
    // In this order: a rename that the server has not carried out yet finds nothing to rename any more.
    let (unstaged, seen) = futures_util::join!(session.remove(&staged), look(session, &target));
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) if error.is_link_loss() => return Err(error.into()),
        Err(error) => return Ok(note(shared, place, target, error.to_string())?),
    };
    let ours = seen.as_ref().filter(|seen| is_ours(&intent, seen));
    let published = ours.is_some();
    if published || unstaged.is_ok() {
        // In place, or never published: nobody needs another name of it.
        discard(session, &keep::second_path(shared, intent.node, intent.number)).await?;
    }
    let folds = match ours {
        Some(version) => agreed(&place, &intent, version),
        None => vec![Fold::Observe {
            place: place.clone(),
            version: seen,
        }],
    };
    tracing::info!(path = %target, published, "the outcome of an earlier pass");
    let (seen_at, now) = (shared.server_now(), shared.now());
    let seqs = BTreeMap::from([(intent.node, intent.data_seq)]);
    Ok(shared.replica.update(|tx| {
        for fold in folds {
            apply_fold(tx, &seqs, fold, seen_at, now)?;
        }
        tx.intend(place, None)
    })?)
}

/// Whether the server shows what was meant. A server may mask a directory's mode.
fn is_ours(intent: &Intent, seen: &Version) -> bool {
    match intent.version.kind {
        Kind::Dir => seen.kind == Kind::Dir,
        _ => intent.version.same(seen),
    }
}

fn agreed(place: &Place, intent: &Intent, seen: &Version) -> Vec<Fold> {
    let entry = BaseEntry {
        node: intent.node,
        version: Version {
            hash: intent.version.hash,
            ..seen.clone()
        },
    };
    let step = Step {
        place: place.clone(),
        action: Action::Agree { entry: Some(entry) },
        why: Why::LocalChange,
    };
    let done = Outcome::Done {
        version: None,
        node: None,
    };
    sync::settle(&step, &done)
}

fn note(
    shared: &Shared,
    place: Place,
    path: RelPath,
    message: String,
) -> Result<(), ReplicaError> {
    let since = shared.now();
    let problem = Problem {
        path,
        message,
        since,
    };
    shared
        .replica
        .update(|tx| tx.set_problem(place, Some(problem)))
}
