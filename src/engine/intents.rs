//! What this machine was about to do on the server when it lost the link or died.
//!
//! The answer to a request may be lost although the request was carried out. So each one that gives something
//! of ours its name is written down before; the next pass looks what came of it, before it plans anything.
//! Otherwise our own work would look like another machine's: what was removed here since would come back, and
//! an older version of ours could win over a newer one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use super::apply::{self, Applied};
use super::execute::apply_fold;
use super::keep;
use super::push::{discard, look, rescue, unstage};
use super::scan::ScanError;
use super::shared::{Shared, blocking};
use crate::remote::{Remote, Session};
use crate::replica::{Intent, Node, Problem, ReplicaError, Since, View};
use crate::sync::{self, Action, Keep, Outcome, Step, Why};
use crate::tree::{BaseEntry, Kind, NodeId, Place, RelPath, Version};

mod undecided;

pub(super) use undecided::Undecided;

/// Who declares something waits so long for others who do, too: a sync costs the disk far more than a row.
const GATHER: Duration = Duration::from_millis(10);

/// Brings declarations to the disk, many at a time.
#[derive(Default)]
pub(super) struct Declared {
    asked: AtomicU64,
    /// So many of those who asked had their declarations written before the last sync.
    synced: Mutex<u64>,
}

/// Writes down what is about to be made of `place`, so that not even a power loss forgets it.
pub(super) async fn declare(
    shared: &Shared,
    place: &Place,
    intent: Intent,
) -> Result<(), ReplicaError> {
    let Declared { asked, synced } = &shared.declared;
    shared
        .replica
        .update::<_, ReplicaError>(|tx| tx.intend(place.clone(), Some(intent)))?;
    let mine = asked.fetch_add(1, Ordering::SeqCst) + 1;
    let mut synced = synced.lock().await;
    if *synced < mine {
        tokio::time::sleep(GATHER).await;
        let all = asked.load(Ordering::SeqCst);
        blocking(|| shared.replica.sync())?;
        *synced = all;
    }
    Ok(())
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
    let came = match &intent.from {
        Some(from) => moved(shared, session, from, &target, &intent)
            .await
            .map(Some),
        None => published(shared, session, &place, &target, &intent).await,
    };
    let (action, outcome) = match came {
        Ok(Some(known)) => known,
        Ok(None) => return Ok(()),
        Err(ScanError::Remote(error)) if !error.is_link_loss() => {
            return Ok(note(shared, place, target, error.to_string())?);
        }
        Err(error) => return Err(error),
    };
    tracing::info!(path = %target, ?action, ?outcome, "the outcome of an earlier pass");
    let (seen_at, now) = (shared.server_now(), shared.now());
    let seqs = BTreeMap::from([(intent.node, intent.data_seq)]);
    let step = Step {
        place: place.clone(),
        action,
        why: Why::LocalChange,
    };
    Ok(shared.replica.update(|tx| {
        for fold in sync::settle(&step, &outcome) {
            apply_fold(tx, &seqs, fold, seen_at, now)?;
        }
        tx.intend(place, None)
    })?)
}

const DONE: Outcome = Outcome::Done {
    version: None,
    node: None,
};

/// What came of giving something of ours the name `target`; `None` if that has to wait for a program.
async fn published(
    shared: &Shared,
    session: &dyn Session,
    place: &Place,
    target: &RelPath,
    intent: &Intent,
) -> Result<Option<(Action, Outcome)>, ScanError> {
    let staged = keep::staging_path(shared, intent.node, intent.number);
    let aside = rescue(shared, session, intent)?;
    // In this order: a rename that the server has not carried out yet finds nothing to rename any more.
    let unstage = unstage(session, &staged, aside.as_ref());
    let (unstaged, seen) = futures_util::join!(unstage, look(session, target));
    let seen = seen?;
    // What is still staged was not renamed: what has its looks there is another version of the same second.
    let ours = unstaged.is_err()
        && seen
            .as_ref()
            .is_some_and(|seen| intent.version.same_entry(seen));
    if ours || unstaged.is_ok() {
        // In place, or never published: nobody needs another name of it.
        discard(
            session,
            &keep::second_path(shared, intent.node, intent.number),
        )
        .await?;
    }
    let entry = seen.clone().map(|seen| BaseEntry {
        node: intent.node,
        version: Version {
            hash: intent.version.hash,
            ..seen
        },
    });
    // A directory has one place. It was made elsewhere since: what is here is another.
    let ours = ours && !stands_elsewhere(shared, place, intent)?;
    let node = shared
        .replica
        .view::<_, ReplicaError>(|view| view.node(intent.node))?;
    let since = node
        .as_ref()
        .map_or(Since::Same, |node| node.since(intent.data_seq));
    let is_unsent = |node: &Node| node.kind == Kind::File && node.data_changed;
    // It got its name, whatever somebody did to its mode and time since. What did not get it may be less than a program
    // has synced here.
    let is_there = unstaged.is_err()
        && seen
            .as_ref()
            .is_some_and(|seen| seen.kind == Kind::File && seen.size == intent.version.size);
    let known = match (seen, since) {
        (Some(whole), Since::Torn) if is_there => {
            // Forgotten, it would be a change of what the whole was, and win over it.
            if shared.replica.opens().writers(intent.node) > 0 {
                return Ok(None);
            }
            let seq = node.map_or(intent.data_seq, |node| node.data_seq);
            take_back(shared, place, (intent.node, seq), whole)?
        }
        (_, Since::Same | Since::Written) if ours => (Action::Agree { entry }, DONE),
        // It has changes here that beat a removal, whoever removed it: to make room, we may have moved aside what
        // stood there. Nothing to wait for.
        (None, _) if node.as_ref().is_some_and(is_unsent) => (Action::Agree { entry: None }, DONE),
        // What was written to the rest of it must not count as a change of the whole.
        (seen, _) => (Action::Agree { entry }, Outcome::Saw(seen)),
    };
    Ok(Some(known))
}

/// Whether base knows the directory at another place.
fn stands_elsewhere(shared: &Shared, place: &Place, intent: &Intent) -> Result<bool, ReplicaError> {
    let places = |view: &View<'_>| view.base_places(intent.node);
    let is_dir = intent.version.kind == Kind::Dir;
    Ok(is_dir
        && shared
            .replica
            .view(places)?
            .iter()
            .any(|other| other != place))
}

/// A power loss took part of the content here after it was sent: what the server has is whole, and takes its place.
fn take_back(
    shared: &Shared,
    place: &Place,
    (id, seq): (NodeId, u64),
    whole: Version,
) -> Result<(Action, Outcome), ScanError> {
    let refreshed = apply::refresh(shared, place, id, seq, &whole, Keep::Backup)?;
    let (entry, outcome) = match refreshed {
        Applied::Done(Some(node)) => {
            let version = whole;
            (Some(BaseEntry { node, version }), DONE)
        }
        _ => (None, Outcome::Saw(Some(whole))),
    };
    Ok((Action::Agree { entry }, outcome))
}

/// What came of the rename from `from` to `target`.
async fn moved(
    shared: &Shared,
    session: &dyn Session,
    from: &Place,
    target: &RelPath,
    intent: &Intent,
) -> Result<(Action, Outcome), ScanError> {
    let (stands, source) = shared.replica.view::<_, ReplicaError>(|view| {
        let stands = view.is_in_base(from, intent.node)?;
        Ok((stands, view.base_path_of(from)?))
    })?;
    let version = look(session, target).await?;
    let unmoved = Action::Agree { entry: None };
    let (Some(source), Some(version)) = (source, &version) else {
        return Ok((unmoved, Outcome::Saw(version)));
    };
    let left = look(session, &source).await?;
    let gone = !left
        .as_ref()
        .is_some_and(|left| intent.version.same_entry(left));
    if !(stands && gone && intent.version.same_entry(version)) {
        return Ok((unmoved, Outcome::Saw(Some(version.clone()))));
    }
    let action = Action::Moved {
        node: intent.node,
        from: from.clone(),
        left,
        version: version.clone(),
    };
    Ok((action, DONE))
}

fn note(shared: &Shared, place: Place, path: RelPath, message: String) -> Result<(), ReplicaError> {
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
