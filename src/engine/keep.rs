//! What is kept: names in the server's trash and backups, the list of both with what this machine keeps,
//! restoring, and the end of the retention.

use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::reconcile::PassError;
use super::scan::ScanError;
use super::shared::{Shared, lock};
use super::home;
use crate::remote::layout::{self, KeptPath, Shelf};
use crate::remote::{DownloadError, ErrorKind, Remote, RemoteError, Session};
use crate::replica::{Observation, ReplicaError};
use crate::sync::Keep;
use crate::tree::{NodeId, RelPath, Time};

/// The end of a second name's file name in staging.
const SECOND_SUFFIX: &str = ".second";

/// A staged file of ours that is older than this belongs to an upload that died.
const STALE_STAGING_SECS: i64 = 86_400;

/// Which shelf to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptWhere {
    /// What lost a conflict or was replaced, here and on the server.
    Backups,
    /// What was deleted on purpose, on the server.
    Trash,
}

/// One kept file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptItem {
    /// Names it in `restore` and `show`.
    pub id: String,
    /// Where it was.
    pub path: RelPath,
    /// When it was put aside.
    pub at: Time,
    /// Bytes.
    pub size: u64,
    /// On the server, or on this machine.
    pub on_server: bool,
    /// Why it is kept, for people.
    pub why: String,
}

/// A name in trash or backups for a version that makes room.
pub(super) fn kept_path(shared: &Shared, keep: Keep, target: &RelPath) -> KeptPath {
    let shelf = match keep {
        Keep::Trash => Shelf::Trash,
        Keep::Backup | Keep::Replaced => Shelf::Backups,
    };
    layout::kept(shelf, shared.server_now().secs(), &random_tag(), target)
}

/// Writes what must lie beside the kept file.
pub(super) async fn make_room(remote: &Remote, kept: &KeptPath) -> Result<(), RemoteError> {
    match &kept.origin {
        Some((path, origin)) => home::write_small(remote, path, origin).await,
        None => Ok(()),
    }
}

/// A name in staging for an upload.
pub(super) fn staging_name(shared: &Shared, node: NodeId, seq: u64) -> String {
    format!("{}-{node}-{seq}-{}", shared.options.client, random_tag())
}

/// A name in staging for the second name of an upload.
pub(super) fn second_name(shared: &Shared, node: NodeId, seq: u64) -> String {
    staging_name(shared, node, seq) + SECOND_SUFFIX
}

fn random_tag() -> String {
    let mut bytes = [0; 6];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Names are created exclusively: a repeated tag fails, it does not overwrite.
        tracing::warn!(%error, "no randomness");
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Lists a shelf: the server's part, if there is a link, and this machine's.
pub(super) async fn list(
    shared: &Arc<Shared>,
    which: KeptWhere,
) -> Result<Vec<KeptItem>, PassError> {
    let mut items = Vec::new();
    if which == KeptWhere::Backups {
        for backup in shared.replica.view(|view| view.backups())? {
            items.push(KeptItem {
                id: format!("local-{}", backup.id),
                path: backup.path,
                at: backup.at,
                size: backup.version.size,
                on_server: false,
                why: backup.why,
            });
        }
    }
    if let Some(remote) = shared.online() {
        items.extend(list_server(&remote, shelf(which)).await.map_err(ScanError::from)?);
    }
    items.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
    Ok(items)
}

fn shelf(which: KeptWhere) -> Shelf {
    match which {
        KeptWhere::Backups => Shelf::Backups,
        KeptWhere::Trash => Shelf::Trash,
    }
}

async fn list_server(remote: &Remote, shelf: Shelf) -> Result<Vec<KeptItem>, RemoteError> {
    let mut items = Vec::new();
    for entry in remote.interactive().list(&shelf.dir()).await? {
        let Some(kept) = layout::parse_kept(&entry.name) else { continue };
        let path = match &kept.path {
            Some(path) => path.clone(),
            None => {
                let origin = home::read_small(remote, &layout::origin_of(shelf, &kept)).await?;
                let origin = origin.and_then(|bytes| RelPath::parse(&bytes).ok());
                origin.unwrap_or_else(|| std::iter::once(entry.name.clone()).collect())
            }
        };
        items.push(KeptItem {
            id: format!("{}-{}", kept.at, kept.tag),
            path,
            at: Time::new(kept.at, 0),
            size: entry.stat.size,
            on_server: true,
            why: match shelf {
                Shelf::Trash => "deleted".into(),
                Shelf::Backups => "lost a conflict or was replaced".into(),
            },
        });
    }
    Ok(items)
}

/// What an id names.
enum Found {
    Local(u64),
    Server(Remote, RelPath),
}

async fn find(shared: &Shared, id: &str) -> Result<Found, PassError> {
    if let Some(number) = id.strip_prefix("local-").and_then(|n| n.parse().ok()) {
        let known = shared.replica.view(|view| view.backups())?;
        if known.iter().any(|backup| backup.id == number) {
            return Ok(Found::Local(number));
        }
        return Err(unknown(id));
    }
    let remote = shared
        .online()
        .ok_or_else(|| PassError::Offline("what is kept on the server needs the link".into()))?;
    for shelf in [Shelf::Trash, Shelf::Backups] {
        let entries = remote.interactive().list(&shelf.dir()).await.map_err(ScanError::from)?;
        for entry in entries {
            let kept = layout::parse_kept(&entry.name);
            if kept.is_some_and(|kept| format!("{}-{}", kept.at, kept.tag) == id) {
                let path = shelf.dir().join(&entry.name);
                return Ok(Found::Server(remote, path));
            }
        }
    }
    Err(unknown(id))
}

fn unknown(id: &str) -> PassError {
    PassError::Failed(format!("nothing is kept under the id {id}; `list` shows the ids"))
}

/// The first bytes of a kept file.
pub(super) async fn show(
    shared: &Arc<Shared>,
    id: &str,
    limit: usize,
) -> Result<Vec<u8>, PassError> {
    match find(shared, id).await? {
        Found::Local(number) => {
            let file = shared.replica.content().open_backup(number)?;
            let mut bytes = vec![0; limit];
            let length = file.read_at(&mut bytes, 0).map_err(|e| PassError::Failed(e.to_string()))?;
            bytes.truncate(length);
            Ok(bytes)
        }
        Found::Server(remote, path) => {
            let bytes = home::read_small(&remote, &path).await.map_err(ScanError::from)?;
            let mut bytes = bytes.map(|bytes| bytes.to_vec()).unwrap_or_default();
            bytes.truncate(limit);
            Ok(bytes)
        }
    }
}

/// Writes a kept file's content to a new file of this machine. The kept file stays.
pub(super) async fn restore(shared: &Arc<Shared>, id: &str, to: &Path) -> Result<(), PassError> {
    let failed = |error: std::io::Error| PassError::Failed(format!("{}: {error}", to.display()));
    let found = find(shared, id).await?;
    let mut file = std::fs::OpenOptions::new();
    let mut file = file.write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    match found {
        Found::Local(number) => {
            let mut content = shared.replica.content().open_backup(number)?;
            std::io::copy(&mut content, &mut file).map_err(failed)?;
        }
        Found::Server(remote, path) => {
            let session = remote.bulk();
            let sink = |offset: u64, data: bytes::Bytes| file.write_all_at(&data, offset);
            match remote.download(&session, &path, sink).await {
                Ok(_) => {}
                Err(DownloadError::Remote(error)) => return Err(ScanError::from(error).into()),
                Err(DownloadError::Sink(error)) => return Err(failed(error)),
                Err(DownloadError::Changed) => {
                    return Err(PassError::Failed("it changed while it was read".into()));
                }
            }
        }
    }
    file.sync_all().map_err(failed)
}

/// Removes what is in the server's trash.
pub(super) async fn empty_trash(shared: &Arc<Shared>) -> Result<u64, PassError> {
    let remote =
        shared.online().ok_or_else(|| PassError::Offline("the trash is on the server".into()))?;
    let removed = expire(&remote, Shelf::Trash, i64::MAX).await.map_err(ScanError::from)?;
    Ok(removed)
}

/// After a full pass: what is older than the retention goes, second names are no longer needed where our
/// version was seen in place, and what a dead upload left is removed.
pub(super) async fn tidy(shared: &Arc<Shared>, remote: &Remote) -> Result<(), RemoteError> {
    release_second_names(shared, remote).await?;
    clear_staging(shared, remote).await?;
    let now = shared.server_now().secs();
    let before = now - i64::try_from(shared.options.retention.as_secs()).unwrap_or(i64::MAX / 2);
    expire(remote, Shelf::Trash, before).await?;
    expire(remote, Shelf::Backups, before).await?;
    if let Err(error) = expire_local(shared) {
        tracing::warn!(%error, "removing local backups whose retention ended");
    }
    Ok(())
}

async fn expire(remote: &Remote, shelf: Shelf, before: i64) -> Result<u64, RemoteError> {
    let session = remote.bulk();
    let mut removed = 0;
    for entry in session.list(&shelf.dir()).await? {
        let Some(kept) = layout::parse_kept(&entry.name) else { continue };
        if kept.at < before {
            home::remove_if_there(remote, &shelf.dir().join(&entry.name)).await?;
            if kept.path.is_none() {
                home::remove_if_there(remote, &layout::origin_of(shelf, &kept)).await?;
            }
            removed += 1;
        }
    }
    Ok(removed)
}

fn expire_local(shared: &Shared) -> Result<(), ReplicaError> {
    let retention = i64::try_from(shared.options.retention.as_nanos()).unwrap_or(i64::MAX);
    let before = Time(shared.now().0.saturating_sub(retention));
    for backup in shared.replica.view(|view| view.backups())? {
        if backup.at < before {
            shared.replica.update(|tx| tx.remove_backup(backup.id))?;
            shared.replica.content().remove_backup(backup.id)?;
        }
    }
    Ok(())
}

/// A second name whose version is the one that a later look found in place has done its duty. If something
/// else is in place, it holds what a racing client destroyed: it becomes a backup.
async fn release_second_names(shared: &Arc<Shared>, remote: &Remote) -> Result<(), RemoteError> {
    let names: Vec<_> = std::mem::take(&mut *lock(&shared.second_names)).into_iter().collect();
    let session = remote.bulk();
    for (place, second) in names {
        let seen = shared.replica.view(|view| {
            let base = view.base(&place)?.map(|base| base.version);
            let seen: Option<Observation> = view.observation(&place)?;
            let path = view.base_path_of(&place)?;
            Ok::<_, ReplicaError>((seen.map_or(base, |seen| seen.version), path))
        });
        let Ok((seen, Some(path))) = seen else { continue };
        if seen.is_some_and(|seen| seen.same_content(&second.version)) {
            home::remove_if_there(remote, &second.path).await?;
        } else {
            keep_second_name(shared, session.as_ref(), &second.path, &path).await?;
        }
    }
    Ok(())
}

async fn keep_second_name(
    shared: &Shared,
    session: &dyn Session,
    second: &RelPath,
    origin: &RelPath,
) -> Result<(), RemoteError> {
    let kept = kept_path(shared, Keep::Backup, origin);
    match session.rename(second, &kept.file).await {
        Err(error) if error.kind != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What this client left in staging before it was restarted: a second name becomes a backup, an old upload
/// goes.
async fn clear_staging(shared: &Arc<Shared>, remote: &Remote) -> Result<(), RemoteError> {
    let session = remote.bulk();
    let ours = format!("{}-", shared.options.client);
    let now = shared.server_now().secs();
    for entry in session.list(&layout::staging_dir()).await? {
        let Some(rest) = entry.name.as_bytes().strip_prefix(ours.as_bytes()) else { continue };
        let path = layout::staging_dir().join(&entry.name);
        let in_use = lock(&shared.second_names).values().any(|second| second.path == path)
            || now.saturating_sub(entry.stat.mtime) < 0;
        if entry.name.as_bytes().ends_with(SECOND_SUFFIX.as_bytes()) {
            if !in_use {
                let origin = origin_of_node(shared, rest);
                keep_second_name(shared, session.as_ref(), &path, &origin).await?;
            }
        } else if now.saturating_sub(entry.stat.mtime) > STALE_STAGING_SECS {
            home::remove_if_there(remote, &path).await?;
        }
    }
    Ok(())
}

/// Where the node of a staging name stands now; its number if it is gone.
fn origin_of_node(shared: &Shared, rest: &[u8]) -> RelPath {
    let number = rest.split(|b| *b == b'-').next().unwrap_or_default();
    let id = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()).map(NodeId);
    let path = id.and_then(|id| {
        shared.replica.view::<_, ReplicaError>(|view| view.local_path(id)).ok().flatten()
    });
    path.or_else(|| RelPath::parse(number).ok()).unwrap_or_default()
}
