//! Bringing content here: for a program that waits, for a plan that needs it, for a comparison.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::apply;
use super::link::LinkState;
use super::scan::{self, ScanError};
use super::shared::{Shared, Waiting, contained, lock};
use super::{Done, FetchError};
use crate::remote::{self, ErrorKind, Remote, RemoteError, Session, TransferError};
use crate::replica::{Content, Observation, ReplicaError, StagingFile};
use crate::sync::Guard;
use crate::tree::{BaseEntry, Hash, Kind, NodeId, Place, RelPath, Time, Version};

/// How often a file that changes while it is fetched is tried again.
const CHANGED_RETRIES: u32 = 3;

/// Who waits for a file of this size or more lets others who wait go first.
const LARGE_BYTES: u64 = 1024 * 1024;

/// Does what a program waits for. A link that is down is not waited for at all, one that is coming up at most for
/// `fetch_timeout`, and then the server as long as it is never silent for that time: what is large may take long.
async fn waited_for(
    shared: &Shared,
    work: impl Future<Output = Result<(), ScanError>>,
) -> Result<(), FetchError> {
    let remote = reachable(shared).await?;
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done.map_err(|error| {
                tracing::warn!(%error, "a program waited for it");
                scan::fetch_error(&error)
            }),
            () = remote.interactive().heard() => {}
            () = tokio::time::sleep(shared.options.fetch_timeout) => {
                tracing::warn!("the server says nothing, and a program waits");
                return Err(FetchError::Unreachable);
            }
        }
    }
}

/// The connection: not waited for when the link is down, and at most for `fetch_timeout` while it is coming.
async fn reachable(shared: &Shared) -> Result<Remote, FetchError> {
    let mut link = shared.link.subscribe();
    let settled = link.wait_for(|view| view.state != LinkState::Connecting);
    match tokio::time::timeout(shared.options.fetch_timeout, settled).await {
        Ok(Ok(view)) if view.state == LinkState::Online => {}
        _ => return Err(FetchError::Unreachable),
    }
    // What stands in the home's place has nothing of the home.
    let another = |guard: &Guard| matches!(guard, Guard::Identity(_));
    if lock(&shared.guards).iter().any(another) {
        return Err(FetchError::Unreachable);
    }
    shared.online().ok_or(FetchError::Unreachable)
}

/// The mount waits for a file's content.
pub(super) fn hydrate_for_mount(shared: &Arc<Shared>, node: NodeId, done: Done) {
    let hydrate = async move |shared: Arc<Shared>| hydrate(&shared, node, true).await;
    for_mount(shared, |shared| &shared.hydrating, node, done, hydrate);
}

/// Lets the mount wait for what `work` brings, which is done once for all who wait for the same.
pub(super) fn for_mount<F>(
    shared: &Arc<Shared>,
    waiting: fn(&Shared) -> &Waiting,
    node: NodeId,
    done: Done,
    work: impl FnOnce(Arc<Shared>) -> F,
) where
    F: Future<Output = Result<(), ScanError>> + Send + 'static,
{
    let first = {
        let mut waiting = lock(waiting(shared));
        let waiters = waiting.entry(node).or_default();
        waiters.push(done);
        waiters.len() == 1
    };
    if !first {
        return;
    }
    let work = work(Arc::clone(shared));
    let shared = Arc::clone(shared);
    shared.runtime.clone().spawn(async move {
        // Even after a panic nobody waits for ever.
        let outcome = contained(waited_for(&shared, work), || FetchError::Failed).await;
        let waiters = lock(waiting(&shared)).remove(&node).unwrap_or_default();
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
    let mut retries = 0;
    let mut others = Vec::new();
    while retries < CHANGED_RETRIES {
        let Some((place, path, size)) = source(shared, id, &others)? else {
            return Ok(());
        };
        if others.contains(&place) {
            let gone = "all its names have other contents on the server";
            return Err(RemoteError::new(ErrorKind::NotFound, "read", &path, gone).into());
        }
        let remote = connection(shared, &path)?;
        let session = match (waited_for, size >= LARGE_BYTES) {
            (true, true) => remote.interactive_large(),
            (true, false) => remote.interactive(),
            (false, _) => remote.bulk(),
        };
        let Some(fetched) = fetch(shared, session.as_ref(), &path, size).await? else {
            retries += 1;
            continue;
        };
        if install(shared, id, &place, fetched)? {
            return Ok(());
        }
        others.push(place);
    }
    let path = RelPath::root();
    Err(RemoteError::new(
        ErrorKind::Failure,
        "read",
        &path,
        "it changes faster than it can be read",
    )
    .into())
}

/// The connection, or the error that says that there is none.
fn connection(shared: &Shared, path: &RelPath) -> Result<Remote, RemoteError> {
    shared
        .online()
        .ok_or_else(|| RemoteError::new(ErrorKind::Disconnected, "read", path, "offline"))
}

/// Where the content of a file that is not whole lies on the server: not at those `others`, if anywhere else.
fn source(
    shared: &Shared,
    id: NodeId,
    others: &[Place],
) -> Result<Option<(Place, RelPath, u64)>, ReplicaError> {
    shared.replica.view(|view| {
        let Some(node) = view.node(id)? else {
            return Ok(None);
        };
        if node.kind != Kind::File || node.content == Content::Whole {
            return Ok(None);
        }
        let mut places = view.base_places(id)?;
        places.sort_by_key(|place| others.contains(place));
        for place in places {
            if let (Some(path), Some(base)) = (view.base_path_of(&place)?, view.base(&place)?) {
                return Ok(Some((place, path, base.version.size)));
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

/// Downloads a file, which is expected to have `size` bytes. `None` if it changed under way.
pub(super) async fn fetch(
    shared: &Arc<Shared>,
    session: &dyn Session,
    path: &RelPath,
    size: u64,
) -> Result<Option<Fetched>, ScanError> {
    let mut size = size;
    for _ in 0..CHANGED_RETRIES {
        match fetch_once(shared, session, path, size).await {
            Ok(fetched) => return Ok(Some(fetched)),
            Err(TransferError::Changed { now, .. }) if now.kind == Kind::File => size = now.size,
            Err(TransferError::Changed { .. }) => {
                let gone = "it is no longer a file on the server";
                return Err(RemoteError::new(ErrorKind::NotFound, "read", path, gone).into());
            }
            Err(TransferError::Remote(error)) => return Err(error.into()),
            Err(TransferError::Local { source, .. }) => {
                return Err(ReplicaError::io(shared.replica.state_dir(), source).into());
            }
        }
    }
    Ok(None)
}

async fn fetch_once(
    shared: &Arc<Shared>,
    session: &dyn Session,
    path: &RelPath,
    size: u64,
) -> Result<Fetched, TransferError> {
    let local = |source| TransferError::Local {
        path: path.clone(),
        source,
    };
    let staging = shared.replica.content().new_staging();
    let staging = staging.map_err(|error| local(std::io::Error::other(error)))?;
    let progress = shared.transfers.start(path.clone(), false, size);
    let mut hasher = OrderedHash::default();
    let mut sink = |offset: u64, data: bytes::Bytes| {
        staging.file.write_all_at(&data, offset)?;
        progress.advance(data.len() as u64);
        hasher.add(offset, data);
        Ok(())
    };
    let stat = remote::download(session, path, size, 0, &mut sink).await?;
    let hash = hasher.finish(size);
    let version = Version {
        hash,
        ..Version::file(size, stat.mtime, stat.mode)
    };
    Ok(Fetched {
        file: staging,
        version,
    })
}

/// Puts fetched content in place, if the node still waits for it; base follows what was really read. Where that is
/// not what the kernel was told to expect, another node takes the places: whoever waits looks the path up again.
/// `false` if it is not the file's: somebody gave one of its names another content, and the others stay what they are.
fn install(
    shared: &Shared,
    id: NodeId,
    place: &Place,
    fetched: Fetched,
) -> Result<bool, ReplicaError> {
    let Fetched { file, version } = fetched;
    let now = shared.now();
    let replica = &shared.replica;
    let seen_at = shared.server_now();
    let changed = replica.update(|tx| {
        let Some(mut node) = tx.node(id)? else {
            return Ok(Some(Vec::new()));
        };
        let Some(base) = tx.base(place)?.filter(|base| base.node == id) else {
            return Ok(Some(Vec::new()));
        };
        if node.content == Content::Whole || node.data_changed {
            return Ok(Some(Vec::new()));
        }
        let mut changed = Vec::new();
        let as_agreed = base.version.mtime == version.mtime;
        let is_another = !as_agreed || !base.version.same_content(&version);
        if is_another && tx.base_places(id)?.len() > 1 {
            let version = Some(version);
            tx.observe(place.clone(), Some(Observation { version, seen_at }))?;
            return Ok(None);
        }
        let as_told = as_agreed && node.size == version.size;
        if is_another || !as_told {
            node = apply::succeed(tx, replica.opens(), node, now)?;
            changed = tx.places(node.id)?;
        }
        scan::note_racy(tx, place, &version, seen_at)?;
        // Inside the transaction, so that no other content can come in between; before its row, so that
        // the row never promises what is not there.
        replica.content().install(file, node.id)?;
        node.content = Content::Whole;
        node.hash = version.hash;
        node.size = version.size;
        // Unless a program set another one in the meantime.
        if !as_agreed && node.server_mtime() == base.version.mtime {
            node.mtime = Time::new(version.mtime, 0);
        }
        let entry = BaseEntry {
            node: node.id,
            version: Version {
                mode: base.version.mode,
                ..version
            },
        };
        tx.put_node(node)?;
        tx.set_base(place.clone(), Some(entry))?;
        Ok::<_, ReplicaError>(Some(changed))
    })?;
    let Some(changed) = changed else {
        // The next pass gives the name its content.
        shared.dirty.notify_one();
        return Ok(false);
    };
    for place in &changed {
        shared.entry_left(place, id, true);
    }
    Ok(true)
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
        assert_eq!(
            hash.finish(7),
            Some(Hash(*blake3::hash(b"abcdefg").as_bytes()))
        );
        let mut gap = OrderedHash::default();
        gap.add(1, bytes::Bytes::from_static(b"x"));
        assert_eq!(gap.finish(2), None);
    }
}
