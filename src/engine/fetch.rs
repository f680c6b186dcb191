//! Bringing content here: for a program that waits, for a plan that needs it, for a comparison.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::link::LinkState;
use super::scan::{self, ScanError};
use super::shared::{Shared, lock};
use super::{Done, FetchError};
use crate::remote::{DownloadError, ErrorKind, Remote, RemoteError, Session, Stat};
use crate::replica::{Content, ReplicaError, StagingFile};
use crate::tree::{BaseEntry, Hash, Kind, NodeId, Place, RelPath, Time, Version};

/// How often a file that changes while it is fetched is tried again.
const CHANGED_RETRIES: u32 = 3;

/// Waits until the link is up: not at all when it is down, at most `fetch_timeout` while it is coming.
pub(super) async fn reachable(shared: &Shared) -> Result<(), FetchError> {
    let mut link = shared.link.subscribe();
    let settled = link.wait_for(|view| view.state != LinkState::Connecting);
    match tokio::time::timeout(shared.options.fetch_timeout, settled).await {
        Ok(Ok(view)) if view.state == LinkState::Online => Ok(()),
        _ => Err(FetchError::Unreachable),
    }
}

/// The mount waits for a file's content.
pub(super) fn hydrate_for_mount(shared: &Arc<Shared>, node: NodeId, done: Done) {
    let first = {
        let mut hydrating = lock(&shared.hydrating);
        let waiters = hydrating.entry(node).or_default();
        waiters.push(done);
        waiters.len() == 1
    };
    if !first {
        return;
    }
    let shared = Arc::clone(shared);
    shared.runtime.clone().spawn(async move {
        let outcome = match reachable(&shared).await {
            Ok(()) => hydrate(&shared, node, true).await.map_err(|error| {
                tracing::warn!(%error, ?node, "fetching");
                scan::fetch_error(&error)
            }),
            Err(error) => Err(error),
        };
        let waiters = lock(&shared.hydrating).remove(&node).unwrap_or_default();
        for done in waiters {
            done(outcome);
        }
    });
}

/// Brings all of a file's content here. Fine if it is here already, or if the file is gone locally.
pub(super) async fn hydrate(
    shared: &Arc<Shared>,
    id: NodeId,
    waited_for: bool,
) -> Result<(), ScanError> {
    for _ in 0..CHANGED_RETRIES {
        let Some((place, path)) = source(shared, id)? else { return Ok(()) };
        let remote = connection(shared, &path)?;
        let session = if waited_for { remote.interactive() } else { remote.bulk() };
        let fetched = fetch(shared, &remote, &session, &path).await?;
        if let Some(fetched) = fetched {
            install(shared, id, &place, fetched)?;
            return Ok(());
        }
    }
    let path = RelPath::root();
    Err(RemoteError::new(ErrorKind::Failure, "read", &path, "it changes faster than it can be read")
        .into())
}

/// The connection, or the error that says that there is none.
fn connection(shared: &Shared, path: &RelPath) -> Result<Remote, RemoteError> {
    shared
        .online()
        .ok_or_else(|| RemoteError::new(ErrorKind::Disconnected, "read", path, "offline"))
}

/// Where the content of a file that is not whole lies on the server.
fn source(shared: &Shared, id: NodeId) -> Result<Option<(Place, RelPath)>, ReplicaError> {
    shared.replica.view(|view| {
        let Some(node) = view.node(id)? else { return Ok(None) };
        if node.kind != Kind::File || node.content == Content::Whole {
            return Ok(None);
        }
        for place in view.base_places(id)? {
            if let Some(path) = view.base_path_of(&place)? {
                return Ok(Some((place, path)));
            }
        }
        Ok(None)
    })
}

/// A file's content in staging, with what it is.
pub(super) struct Fetched {
    pub(super) file: StagingFile,
    pub(super) version: Version,
}

/// Downloads a file. `None` if it changed under way.
pub(super) async fn fetch(
    shared: &Arc<Shared>,
    remote: &Remote,
    session: &Arc<dyn Session>,
    path: &RelPath,
) -> Result<Option<Fetched>, ScanError> {
    let staging = shared.replica.content().new_staging()?;
    let progress = shared.transfers.start(path.clone(), false, 0);
    let file = staging.try_clone_file()?;
    let mut hasher = OrderedHash::default();
    let sink = |offset: u64, data: bytes::Bytes| {
        file.write_all_at(&data, offset)?;
        progress.advance(data.len() as u64);
        hasher.add(offset, data);
        Ok(())
    };
    match remote.download(session, path, sink).await {
        Ok(Stat { kind: Kind::File, size, mtime, mode, .. }) => {
            let hash = hasher.finish(size);
            Ok(Some(Fetched {
                file: staging,
                version: Version { hash, ..Version::file(size, mtime, mode) },
            }))
        }
        Ok(_) => Err(RemoteError::new(
            ErrorKind::NotFound,
            "read",
            path,
            "it is no longer a file on the server",
        )
        .into()),
        Err(DownloadError::Changed) => Ok(None),
        Err(DownloadError::Remote(error)) => Err(error.into()),
        Err(DownloadError::Sink(error)) => {
            Err(ReplicaError::io(staging.path(), error).into())
        }
    }
}

/// Puts fetched content in place, if the node still waits for it; base follows what was really read.
fn install(
    shared: &Shared,
    id: NodeId,
    place: &Place,
    fetched: Fetched,
) -> Result<(), ReplicaError> {
    let Fetched { file, version } = fetched;
    let content = shared.replica.content();
    let changed = shared.replica.update(|tx| {
        let Some(mut node) = tx.node(id)? else { return Ok(false) };
        let Some(base) = tx.base(place)?.filter(|base| base.node == id) else { return Ok(false) };
        if node.content == Content::Whole || node.data_changed {
            return Ok(false);
        }
        // Inside the transaction, so that no other content can come in between; before its row, so that
        // the row never promises what is not there.
        content.install(file, id)?;
        let differs = !base.version.same_content(&version);
        node.content = Content::Whole;
        node.hash = version.hash;
        node.size = version.size;
        if node.mtime.secs() != version.mtime {
            node.mtime = Time::new(version.mtime, 0);
        }
        tx.put_node(node)?;
        let entry = BaseEntry { node: id, version: Version { mode: base.version.mode, ..version } };
        tx.set_base(place.clone(), Some(entry))?;
        Ok::<_, ReplicaError>(differs)
    })?;
    if changed {
        shared.node_changed(id, true);
    }
    Ok(())
}

/// Hashes blocks that arrive in any order but nearly sorted; gives up rather than keep much in memory.
#[derive(Default)]
struct OrderedHash {
    hasher: blake3::Hasher,
    done: u64,
    early: std::collections::BTreeMap<u64, bytes::Bytes>,
    early_bytes: usize,
    given_up: bool,
}

/// The most that may wait for an earlier block, in bytes.
const EARLY_MAX: usize = 64 << 20;

impl OrderedHash {
    fn add(&mut self, offset: u64, data: bytes::Bytes) {
        if self.given_up {
            return;
        }
        self.early_bytes += data.len();
        self.early.insert(offset, data);
        while let Some(data) = self.early.remove(&self.done) {
            self.early_bytes -= data.len();
            self.done += data.len() as u64;
            self.hasher.update(&data);
        }
        if self.early_bytes > EARLY_MAX {
            self.given_up = true;
            self.early.clear();
        }
    }

    fn finish(self, size: u64) -> Option<Hash> {
        (!self.given_up && self.done == size).then(|| Hash(*self.hasher.finalize().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_any_order_give_the_hash_of_the_whole() {
        let mut hash = OrderedHash::default();
        hash.add(3, bytes::Bytes::from_static(b"defg"));
        hash.add(0, bytes::Bytes::from_static(b"abc"));
        assert_eq!(hash.finish(7), Some(Hash(*blake3::hash(b"abcdefg").as_bytes())));
        let mut gap = OrderedHash::default();
        gap.add(1, bytes::Bytes::from_static(b"x"));
        assert_eq!(gap.finish(2), None);
    }
}
