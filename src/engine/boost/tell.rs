//! What was read is noted here, and put into the home for the other machines.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::super::home;
use super::super::scan::ScanError;
use super::super::shared::{Shared, lock};
use super::super::{fetch, home::remove_if_there};
use crate::remote::layout::{self, BoostList};
use crate::remote::{ErrorKind, Remote, RemoteError};
use crate::replica::{ReplicaError, View};
use crate::tree::{Kind, NodeId, RelPath};

/// What was read after the last mounts, as this machine remembers it, and as it told the others.
const META_LIST: &str = "boost.list";
const META_TOLD: &str = "boost.told";

/// One at a time is at work on the list's next version.
const CLAIM: &str = "boost";

/// So many files are looked at in one go: programs are served in between.
const FILES_AT_ONCE: usize = 64;

/// Takes what was read since the mount into this machine's list.
pub(super) fn note(shared: &Shared) {
    let read = shared.reads.take();
    if read.is_empty() {
        return;
    }
    let noted = paths(shared, &read).and_then(|paths| {
        let list = known(shared, META_LIST)?.after(paths);
        remember(shared, META_LIST, list.format())
    });
    if let Err(error) = noted {
        tracing::warn!(%error, "what was read since the mount is forgotten");
    }
}

/// Where the files are that others may fetch.
fn paths(shared: &Shared, files: &[NodeId]) -> Result<Vec<RelPath>, ReplicaError> {
    let mut paths = Vec::new();
    for some in files.chunks(FILES_AT_ONCE) {
        let path = |view: &View<'_>, id: NodeId| match view.node(id)? {
            Some(node) if node.kind == Kind::File && !node.scoped && node.size > 0 => {
                view.local_path(id)
            }
            _ => Ok(None),
        };
        let found = shared.replica.view(|view| {
            let found = some.iter().map(|id| path(view, *id));
            found.collect::<Result<Vec<_>, ReplicaError>>()
        })?;
        paths.extend(found.into_iter().flatten());
    }
    Ok(paths)
}

/// Puts the list into the home, if it says something new. What was told before counts only if it `is_there`.
pub(super) async fn tell(shared: &Arc<Shared>, is_there: bool) -> Result<(), ScanError> {
    let list = known(shared, META_LIST)?;
    let told = match is_there {
        true => known(shared, META_TOLD)?,
        false => BoostList::default(),
    };
    if !list.is_news_to(&told) {
        return Ok(());
    }
    let offline = || {
        let path = layout::boost_path(shared.client);
        RemoteError::new(
            ErrorKind::Disconnected,
            "write",
            &path,
            "no link to the home",
        )
    };
    // A directory that may not be the home is told nothing.
    let remote = fetch::the_home(shared).filter(|_| lock(&shared.guards).is_empty());
    let text = list.format();
    put(shared, &remote.ok_or_else(offline)?, &text).await?;
    Ok(remember(shared, META_TOLD, text)?)
}

/// Others see the old list or the new one.
async fn put(shared: &Shared, remote: &Remote, text: &str) -> Result<(), RemoteError> {
    let target = layout::boost_path(shared.client);
    let staged = layout::boost_staged(shared.client);
    let Some(_claim) = shared.claims.take(CLAIM) else {
        let why = "what was left of the last one is being removed";
        return Err(RemoteError::new(ErrorKind::Failure, "write", &staged, why));
    };
    remove_if_there(remote, &staged).await?;
    let session = remote.bulk();
    let features = remote.features();
    let handle = session.open_write(&staged, 0o600, true).await?;
    let piece = features.max_write.clamp(1, home::SMALL_FILE_MAX) as usize;
    let pieces = text.as_bytes().chunks(piece).enumerate().map(|(i, bytes)| {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        session.write(&handle, (i * piece) as u64, bytes)
    });
    let written = try_join_all(pieces).await;
    session.close(handle.clone()).await?;
    written?;
    match session.mkdir(&layout::boost(), 0o700).await {
        Err(error) if error.is_link_loss() => return Err(error),
        // It is there already, or the next step fails.
        _ => {}
    }
    if features.posix_rename {
        return session.posix_rename(&staged, &target).await;
    }
    remove_if_there(remote, &target).await?;
    session.rename(&staged, &target).await
}

/// Removes what a list left that was cut off on its way.
pub(in crate::engine) async fn clear(shared: &Shared, remote: &Remote) -> Result<(), RemoteError> {
    match shared.claims.take(CLAIM) {
        Some(_claim) => remove_if_there(remote, &layout::boost_staged(shared.client)).await,
        None => Ok(()),
    }
}

fn known(shared: &Shared, key: &str) -> Result<BoostList, ReplicaError> {
    let text = shared.replica.view(|view| view.meta(key))?;
    Ok(BoostList::parse(&text.unwrap_or_default()))
}

fn remember(shared: &Shared, key: &str, text: String) -> Result<(), ReplicaError> {
    shared
        .replica
        .update(|tx| tx.set_meta(key, Some(text.into_bytes())))
}
