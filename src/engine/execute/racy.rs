//! Files that were seen within the second of a change: their contents are compared once more.

use std::sync::Arc;

use super::super::scan::ScanError;
use super::super::shared::Shared;
use super::super::{apply, fetch, push};
use crate::remote::{ErrorKind, Remote};
use crate::replica::{Content, Node, ReplicaError};
use crate::sync::Keep;
use crate::tree::{Place, Version};

/// Compares the contents of files that were seen within the second of a change, when another change could
/// still hide: SFTP shows neither sub-seconds nor change times.
pub(in crate::engine) async fn recheck_racy(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<(), ScanError> {
    for place in shared.replica.view(|view| view.racy())? {
        let found = shared.replica.view(|view| {
            let base = view.base(&place)?;
            let node = base
                .as_ref()
                .map(|base| view.node(base.node))
                .transpose()?
                .flatten();
            Ok::<_, ReplicaError>(node.zip(base.map(|base| base.version)))
        })?;
        // What changed here goes on being racy: what it replaces is kept.
        if found.as_ref().is_some_and(|(node, _)| node.data_changed) {
            continue;
        }
        // What is not here will be fetched as it is then.
        let here = found.filter(|(node, _)| node.content == Content::Whole && node.size > 0);
        let Some((node, version)) = here else {
            shared.replica.update(|tx| tx.clear_racy(&place))?;
            continue;
        };
        match compare(shared, remote, &place, &node, &version).await {
            Ok(Compared::Other(changed)) => {
                apply::refresh(
                    shared,
                    &place,
                    node.id,
                    node.data_seq,
                    &changed,
                    Keep::Replaced,
                )?;
            }
            Ok(Compared::Same) => {}
            Ok(Compared::Changing) => continue,
            Err(ScanError::Remote(error)) if error.is_link_loss() => return Err(error.into()),
            // Gone by now: the listing tells.
            Err(ScanError::Remote(error)) if error.kind == ErrorKind::NotFound => {}
            // Closed to us: when it no longer is, it may look as it did.
            Err(_) => continue,
        }
        shared.replica.update(|tx| {
            // What was read since is another matter.
            match tx.base(&place)?.is_some_and(|base| base.version != version) {
                true => Ok(()),
                false => tx.clear_racy(&place),
            }
        })?;
    }
    Ok(())
}

/// What the server's content is to the node's.
enum Compared {
    /// The same, as far as listings do not tell the difference.
    Same,
    /// Another version.
    Other(Version),
    /// Somebody goes on changing it.
    Changing,
}

async fn compare(
    shared: &Arc<Shared>,
    remote: &Remote,
    place: &Place,
    node: &Node,
    version: &Version,
) -> Result<Compared, ScanError> {
    let Some(path) = push::server_path(shared, place)? else {
        return Ok(Compared::Same);
    };
    let session = remote.bulk().as_ref();
    let Some(fetched) = fetch::fetch(shared, session, &path, version).await? else {
        return Ok(Compared::Changing);
    };
    // Another size or time is a change that listings show.
    let shown = fetched.version.size == version.size && fetched.version.mtime == version.mtime;
    if !shown || shared.replica.content().equals(node.id, &fetched.file)? {
        return Ok(Compared::Same);
    }
    Ok(Compared::Other(Version {
        mode: version.mode,
        ..fetched.version
    }))
}
