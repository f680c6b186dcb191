//! The server's side of a step: changes that cannot destroy a racing writer's data.
//!
//! Every function names what it expects to find and checks it in the same burst as the change, or by what
//! the change left in a place of ours. Anything else that is found is a new observation.

use std::sync::Arc;

use super::intents;
use super::keep;
use super::scan::{self, ScanError};
use super::shared::Shared;
use crate::remote::{ErrorKind, Remote, RemoteError, Session, SetStat};
use crate::replica::{Intent, Node, ReplicaError};
use crate::sync::Keep;
use crate::tree::{Kind, NodeId, Place, RelPath, Version};

mod apart;
mod burst;
mod checked;
mod delta;
mod large;
mod matcher;
mod name;
mod reading;
mod replace;
mod resume;
mod send;
mod set;

pub(super) use apart::{Gone, forget_gone};
use apart::{lookalikes, note_gone, set_apart};
pub(super) use delta::PutAside;
use name::{Uploaded, give_name};
use replace::set_aside;
pub(super) use replace::{discard, look};
use resume::Ticket;
pub(super) use resume::{is_wanted, rescue, unstage};
use send::{Sent, Way, send};
pub(super) use set::publish_set;

/// How a step on the server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It stands: what a look shows there now.
    Done(Option<Version>),
    /// What a node was when its `data_seq` was `seq` stands there; programs may have gone on writing to it.
    Sent {
        node: NodeId,
        seq: u64,
        version: Version,
    },
    /// Something else than expected is there; nothing of it was lost.
    Saw(Option<Version>),
    /// Something is in the way where a move goes.
    SawTarget(Option<Version>),
    /// The replica changed since the plan was made, or the place has no parent on the server yet.
    Stale,
}

/// A file or symlink on its way.
pub(super) struct Outgoing<'a> {
    pub(super) place: &'a Place,
    pub(super) node: NodeId,
    /// Its `data_seq` when the plan was made.
    pub(super) seq: u64,
    pub(super) replaces: Option<&'a Version>,
    pub(super) keep: Keep,
}

/// What is renamed.
pub(super) struct Going<'a> {
    pub(super) node: NodeId,
    pub(super) from: &'a Place,
    pub(super) to: &'a Place,
    pub(super) expected: &'a Version,
    pub(super) replaces: Option<&'a Version>,
    /// Whether others would take it for what stood where it goes.
    pub(super) alike: bool,
}

/// The base path of a place, if its parent is on the server.
pub(super) fn server_path(shared: &Shared, place: &Place) -> Result<Option<RelPath>, ReplicaError> {
    shared.replica.view(|view| view.base_path_of(place))
}

/// Sends a file or symlink and publishes it.
pub(super) async fn publish(
    shared: &Arc<Shared>,
    remote: &Remote,
    out: &Outgoing<'_>,
) -> Result<Pushed, ScanError> {
    let Some(target) = server_path(shared, out.place)? else {
        return Ok(Pushed::Stale);
    };
    let Some(node) = shared.replica.view(|view| view.node(out.node))? else {
        return Ok(Pushed::Stale);
    };
    let ticket = Ticket::take(shared, &node, out.seq)?;
    let number = ticket.number;
    let staged = keep::staging_path(shared, out.node, number);
    let way = Way {
        remote,
        place: out.place,
        target: &target,
        replaces: out.replaces,
        staged: &staged,
        ticket: &ticket,
        lookalikes: &lookalikes(shared, out.place, out.replaces)?,
    };
    let sent = match node.kind {
        Kind::File => match send(shared, &way, node, out.seq).await {
            Ok(sent) => sent,
            Err(error) => return Err(not_sent(shared, &way, error).await),
        },
        _ if node.data_seq != out.seq => None,
        _ => Some(Sent { node, hash: None }),
    };
    let Some(sent) = sent else {
        way.discard().await?;
        ticket.done(shared);
        return Ok(Pushed::Stale);
    };
    let upload = Uploaded {
        sent,
        number,
        staged,
        target,
    };
    let named = give_name(shared, remote, out, &upload).await;
    if !matches!(&named, Err(ScanError::Remote(error)) if error.is_link_loss()) {
        ticket.done(shared);
    }
    named
}

/// Cleans up after an upload that failed: what is half there would take the room that lacks.
async fn not_sent(shared: &Shared, way: &Way<'_>, error: ScanError) -> ScanError {
    match error {
        ScanError::Remote(error) if !error.is_link_loss() => match way.discard().await {
            Ok(()) => {
                way.ticket.done(shared);
                explained(way.remote, way.target, error).await.into()
            }
            Err(lost) => lost.into(),
        },
        error => error,
    }
}

/// An upload's failure in words that help. Servers say FAILURE for a full disk and for a quota that is reached.
async fn explained(remote: &Remote, target: &RelPath, error: RemoteError) -> RemoteError {
    if error.kind != ErrorKind::Failure {
        return error;
    }
    let free = match remote.features().statvfs {
        true => remote.bulk().statvfs().await.ok(),
        false => None,
    };
    let free = free.map_or_else(String::new, |vfs| {
        format!(" ({} KiB are free there)", vfs.available_bytes / 1024)
    });
    let message = format!(
        "the server cannot take it: its disk may be full{free}, or a quota reached. It is safe here, and goes as \
         soon as there is room"
    );
    RemoteError::new(ErrorKind::Failure, "send", target, message)
}

/// Moves a file or symlink into trash or backups.
pub(super) async fn remove(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
    expected: &Version,
    keep: Keep,
) -> Result<Pushed, ScanError> {
    let Some(target) = server_path(shared, place)? else {
        return Ok(Pushed::Stale);
    };
    let session = remote.bulk().as_ref();
    let seen = look(session, &target).await?;
    if !seen.as_ref().is_some_and(|seen| expected.same(seen)) {
        return Ok(Pushed::Saw(seen));
    }
    let kept = keep::kept_path(shared, keep, &target);
    let removed = set_aside(session, expected, &target, &kept).await?;
    if let Pushed::Done(None) = removed {
        note_gone(shared, place, expected)?;
        delta::note_put_aside(shared, place, expected, &kept)?;
    }
    Ok(removed)
}

/// Renames on the server what a program renamed here.
pub(super) async fn move_node(
    shared: &Arc<Shared>,
    remote: &Remote,
    going: &Going<'_>,
) -> Result<Pushed, ScanError> {
    let Going {
        node,
        from,
        to,
        expected,
        replaces,
        alike,
    } = *going;
    let (Some(source), Some(target)) = (server_path(shared, from)?, server_path(shared, to)?)
    else {
        return Ok(Pushed::Stale);
    };
    // An earlier move may have failed, so that something else stands there.
    if !shared.replica.view(|view| view.is_in_base(from, node))? {
        return Ok(Pushed::Stale);
    }
    let session = remote.bulk().as_ref();
    let seen = look(session, &source).await?;
    if !seen.as_ref().is_some_and(|seen| expected.same_entry(seen)) {
        return Ok(Pushed::Saw(seen));
    }
    if alike && let Some(row) = shared.replica.view(|view| view.node(node))? {
        // The server gets to know its new date once it stands there.
        set_apart(shared, row, std::slice::from_ref(expected))?;
    }
    if to.parent == NodeId::STAGING {
        make_way_station(session, &target).await?;
    }
    // Looked at first: a rename onto a dangling symlink would replace it.
    let there = look(session, &target).await?;
    if replaces.is_none() && there.is_some() {
        return Ok(Pushed::SawTarget(there));
    }
    if let Some(replaced) = replaces {
        let seen = there;
        if !seen.as_ref().is_some_and(|seen| replaced.same(seen)) {
            return Ok(Pushed::SawTarget(seen));
        }
        let kept = keep::kept_path(shared, Keep::Replaced, &target);
        match set_aside(session, replaced, &target, &kept).await? {
            Pushed::Done(_) => {}
            Pushed::Saw(seen) => return Ok(Pushed::SawTarget(seen)),
            other => return Ok(other),
        }
    }
    let intent = Intent {
        node,
        data_seq: 0,
        number: keep::upload_number(shared),
        version: expected.clone(),
        from: Some(from.clone()),
    };
    intents::declare(shared, to, intent).await?;
    let (renamed, found) =
        futures_util::join!(session.rename(&source, &target), look(session, &target));
    match (renamed, found?) {
        (Ok(()), found) => {
            note_gone(shared, from, expected)?;
            Ok(Pushed::Done(found))
        }
        (Err(error), _) if error.is_link_loss() => Err(error.into()),
        (Err(_), seen @ Some(_)) => Ok(Pushed::SawTarget(seen)),
        (Err(error), None) => Err(error.into()),
    }
}

/// Makes this machine's own directory for moves in the staging area, if it is not there yet.
async fn make_way_station(session: &dyn Session, inside: &RelPath) -> Result<(), RemoteError> {
    let names = inside.names();
    let station = names[..names.len().saturating_sub(1)]
        .iter()
        .cloned()
        .collect();
    match session.mkdir(&station, 0o700).await {
        Err(error) if error.is_link_loss() => Err(error),
        // There already; if not, the move itself fails.
        _ => Ok(()),
    }
}

/// An intent without a file in staging: none bears this number.
fn unstaged(shared: &Shared, node: &Node) -> Intent {
    Intent {
        node: node.id,
        data_seq: node.data_seq,
        number: keep::upload_number(shared),
        version: node.version(),
        from: None,
    }
}

/// Makes a directory; one that is there already serves as well.
pub(super) async fn make_dir(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
    node: NodeId,
) -> Result<Pushed, ScanError> {
    let Some(target) = server_path(shared, place)? else {
        return Ok(Pushed::Stale);
    };
    let Some(node) = shared.replica.view(|view| view.node(node))? else {
        return Ok(Pushed::Stale);
    };
    let session = remote.bulk().as_ref();
    intents::declare(shared, place, unstaged(shared, &node)).await?;
    // Writable for us until it is filled; the next plan sets the mode if it is to be another.
    let (made, seen) = futures_util::join!(
        session.mkdir(&target, node.mode | 0o700),
        look(session, &target)
    );
    match (made, seen?) {
        (Ok(()), Some(version)) => Ok(Pushed::Done(Some(version))),
        (Err(error), _) if error.is_link_loss() => Err(error.into()),
        (Err(error), None) => Err(error.into()),
        (_, seen) => Ok(Pushed::Saw(seen)),
    }
}

/// Removes a directory; one that is not empty stays, and is looked into.
pub(super) async fn remove_dir(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
) -> Result<Pushed, ScanError> {
    let Some(target) = server_path(shared, place)? else {
        return Ok(Pushed::Stale);
    };
    let session = remote.bulk().as_ref();
    match session.rmdir(&target).await {
        Ok(()) => Ok(Pushed::Done(None)),
        Err(error) if error.is_link_loss() => Err(error.into()),
        Err(_) => {
            let Some(seen) = look(session, &target).await? else {
                return Ok(Pushed::Done(None));
            };
            if let Some(base) = shared.replica.view(|view| view.base(place))? {
                scan::observe(shared, base.node, false).await?;
            }
            Ok(Pushed::Saw(Some(seen)))
        }
    }
}

/// Sets mode and mtime on the server.
pub(super) async fn set_attr(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
    node: NodeId,
    expected: &Version,
) -> Result<Pushed, ScanError> {
    let Some(target) = server_path(shared, place)? else {
        return Ok(Pushed::Stale);
    };
    let Some(node) = shared.replica.view(|view| view.node(node))? else {
        return Ok(Pushed::Stale);
    };
    let session = remote.bulk().as_ref();
    let seen = look(session, &target).await?;
    if !seen.as_ref().is_some_and(|seen| expected.same(seen)) {
        return Ok(Pushed::Saw(seen));
    }
    intents::declare(shared, place, unstaged(shared, &node)).await?;
    let mtime = (node.kind == Kind::File).then(|| node.server_mtime());
    let set = SetStat {
        mode: Some(node.mode),
        mtime,
        ..SetStat::default()
    };
    // Never through a link: `lsetstat` where there is one, and the kind was looked at just before.
    let done = if remote.features().lsetstat {
        session.lsetstat(&target, set).await
    } else {
        session.setstat(&target, set).await
    };
    done?;
    Ok(Pushed::Done(Some(node.version())))
}
