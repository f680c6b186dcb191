//! What is kept: names in the server's trash and backups, the list of both with what this machine keeps,
//! restoring, and the end of the retention.

use std::fs::Permissions;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::home;
use super::reconcile::PassError;
use super::scan::ScanError;
use super::shared::{Shared, lock};
use crate::remote::layout::{self, Aside, Origin, Reason};
use crate::remote::{self, ErrorKind, Remote, RemoteError, Session, TransferError};
use crate::replica::{Content, LocalBackup, Observation, ReplicaError};
use crate::sync::Keep;
use crate::tree::{Kind, NodeId, RelPath, Time};

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
    /// When its content was last changed.
    pub mtime: Time,
    /// Bytes.
    pub size: u64,
    /// On the server, or on this machine.
    pub on_server: bool,
    /// Why it is kept, for people.
    pub why: String,
}

/// A path in trash or backups for a version that makes room.
pub(super) fn kept_path(shared: &Shared, keep: Keep, target: &RelPath) -> RelPath {
    let reason = match keep {
        Keep::Trash => Reason::Removed,
        Keep::Backup => Reason::Conflict,
        Keep::Replaced => Reason::Replaced,
    };
    let aside = Aside::new(shared.server_now(), random() as u32, reason, target);
    if keep == Keep::Trash {
        layout::trash_path(&aside)
    } else {
        layout::backup_path(&aside)
    }
}

/// A path in staging for an upload. Its number is even; a second name's is odd.
pub(super) fn staging_path(shared: &Shared, node: NodeId) -> RelPath {
    layout::staging_path(&layout::staging_name(shared.client, node, random() & !1))
}

/// A path in staging for the second name of an upload.
pub(super) fn second_path(shared: &Shared, node: NodeId) -> RelPath {
    layout::staging_path(&layout::staging_name(shared.client, node, random() | 1))
}

/// Numbers need not be secret: names are created exclusively, so a repeated one fails, it does not overwrite.
fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|error| {
        tracing::warn!(%error, "no randomness");
        std::process::id().into()
    })
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
                mtime: Time::new(backup.version.mtime, 0),
                size: backup.version.size,
                on_server: false,
                why: backup.why,
            });
        }
    }
    if let Some(remote) = shared.online() {
        items.extend(
            list_server(&remote, shelf(which))
                .await
                .map_err(ScanError::from)?,
        );
    }
    items.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
    Ok(items)
}

fn shelf(which: KeptWhere) -> RelPath {
    match which {
        KeptWhere::Backups => layout::backups(),
        KeptWhere::Trash => layout::trash(),
    }
}

fn id_of(aside: &Aside) -> String {
    format!("{}-{:08x}", aside.at.secs(), aside.number)
}

async fn list_server(remote: &Remote, shelf: RelPath) -> Result<Vec<KeptItem>, RemoteError> {
    let entries = remote.interactive().list(&shelf).await?;
    let item = |entry: remote::DirEntry| {
        let aside = Aside::parse(&entry.name)?;
        let id = id_of(&aside);
        let path = match aside.origin {
            Origin::Path(path) => path,
            // Cut at its front: what is left still tells people which file it was.
            Origin::Long { end, .. } => RelPath::parse(&end).unwrap_or_default(),
        };
        Some(KeptItem {
            id,
            path,
            at: aside.at,
            mtime: Time::new(entry.stat.mtime, 0),
            size: entry.stat.size,
            on_server: true,
            why: match aside.reason {
                Reason::Removed => "deleted",
                Reason::Replaced => "replaced by a newer version",
                Reason::Conflict => "lost a conflict",
                Reason::Race => "changed while it was being replaced",
            }
            .into(),
        })
    };
    Ok(entries.into_iter().filter_map(item).collect())
}

/// What an id names.
enum Found {
    Local(LocalBackup),
    Server(Remote, RelPath, remote::Stat),
}

async fn find(shared: &Shared, id: &str) -> Result<Found, PassError> {
    if let Some(number) = id
        .strip_prefix("local-")
        .and_then(|n| n.parse::<u64>().ok())
    {
        let known = shared.replica.view(|view| view.backups())?;
        let backup = known.into_iter().find(|backup| backup.id == number);
        return backup.map(Found::Local).ok_or_else(|| unknown(id));
    }
    let remote = shared
        .online()
        .ok_or_else(|| PassError::Offline("what is kept on the server needs the link".into()))?;
    for shelf in [layout::trash(), layout::backups()] {
        let entries = remote
            .interactive()
            .list(&shelf)
            .await
            .map_err(ScanError::from)?;
        for entry in entries {
            if Aside::parse(&entry.name).is_some_and(|aside| id_of(&aside) == id) {
                let path = shelf.join(&entry.name);
                return Ok(Found::Server(remote, path, entry.stat));
            }
        }
    }
    Err(unknown(id))
}

fn unknown(id: &str) -> PassError {
    PassError::Failed(format!(
        "nothing is kept under the id {id}; `list` shows the ids"
    ))
}

/// Writes a kept file's content to a new file of this machine, of the same mode: what was private stays private.
/// The kept file stays.
pub(super) async fn restore(shared: &Arc<Shared>, id: &str, to: &Path) -> Result<(), PassError> {
    let failed = |error: std::io::Error| PassError::Failed(format!("{}: {error}", to.display()));
    let found = find(shared, id).await?;
    let mut file = std::fs::OpenOptions::new();
    let mut file = file
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(failed)?;
    let mode = match found {
        Found::Local(backup) => {
            let mut content = shared.replica.content().open_backup(backup.id)?;
            std::io::copy(&mut content, &mut file).map_err(failed)?;
            backup.version.mode
        }
        Found::Server(remote, path, stat) => {
            let mut sink = |offset: u64, data: bytes::Bytes| file.write_all_at(&data, offset);
            let session = remote.bulk().as_ref();
            match remote::download(session, &path, stat.size, 0, &mut sink).await {
                Ok(_) => {}
                Err(TransferError::Remote(error)) => return Err(ScanError::from(error).into()),
                Err(error) => return Err(PassError::Failed(error.to_string())),
            }
            stat.mode
        }
    };
    // Whoever asked has to read it.
    let mode = Permissions::from_mode(mode & 0o777 | 0o400);
    file.set_permissions(mode).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// Where a kept file was.
pub(super) async fn origin(shared: &Arc<Shared>, id: &str) -> Result<RelPath, PassError> {
    for which in [KeptWhere::Backups, KeptWhere::Trash] {
        if let Some(item) = list(shared, which)
            .await?
            .into_iter()
            .find(|item| item.id == id)
        {
            return Ok(item.path);
        }
    }
    Err(unknown(id))
}

/// Keeps a copy of what is at `path` now as a backup, before something is put in its place.
pub(super) fn keep_current(shared: &Shared, path: &RelPath) -> Result<(), ReplicaError> {
    let at = shared.now();
    let found = shared.replica.update(|tx| {
        let mut id = NodeId::ROOT;
        for name in path.names() {
            match tx.child(id, name)? {
                Some(child) => id = child,
                None => return Ok(None),
            }
        }
        let node = tx.node(id)?.filter(|node| {
            node.kind == Kind::File && node.content == Content::Whole && node.size > 0
        });
        match node {
            Some(node) => Ok::<_, ReplicaError>(Some((node, tx.alloc_backup()?))),
            None => Ok(None),
        }
    })?;
    let Some((node, id)) = found else {
        return Ok(());
    };
    shared.replica.content().copy_to_backup(node.id, id)?;
    let backup = LocalBackup {
        path: path.clone(),
        version: node.version(),
        at,
        why: "replaced by a restored version".into(),
        id,
        unsent: node.data_changed,
    };
    shared.replica.update(|tx| tx.add_backup(backup))
}

/// Removes what is in the server's trash, or only what is there for longer than `older_than`.
pub(super) async fn empty_trash(
    shared: &Arc<Shared>,
    older_than: Option<Duration>,
) -> Result<u64, PassError> {
    let before = match older_than {
        Some(age) => {
            let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            shared.server_now().secs().saturating_sub(age)
        }
        None => i64::MAX,
    };
    let remote = shared
        .online()
        .ok_or_else(|| PassError::Offline("the trash is on the server".into()))?;
    let removed = expire(&remote, layout::trash(), before)
        .await
        .map_err(ScanError::from)?;
    Ok(removed)
}

/// After a full pass: what is older than the retention goes, second names are no longer needed where our
/// version was seen in place, and what a dead upload left is removed.
pub(super) async fn tidy(shared: &Arc<Shared>, remote: &Remote) -> Result<(), RemoteError> {
    release_second_names(shared, remote).await?;
    clear_staging(shared, remote).await?;
    home::clear_counters(shared, remote).await?;
    let now = shared.server_now().secs();
    let before = now - i64::try_from(shared.options.retention.as_secs()).unwrap_or(i64::MAX / 2);
    expire(remote, layout::trash(), before).await?;
    expire(remote, layout::backups(), before).await?;
    if let Err(error) = expire_local(shared) {
        tracing::warn!(%error, "removing local backups whose retention ended");
    }
    Ok(())
}

async fn expire(remote: &Remote, shelf: RelPath, before: i64) -> Result<u64, RemoteError> {
    let mut removed = 0;
    for entry in remote.bulk().list(&shelf).await? {
        let Some(aside) = Aside::parse(&entry.name) else {
            continue;
        };
        if aside.at.secs() < before {
            home::remove_if_there(remote, &shelf.join(&entry.name)).await?;
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
    let names: Vec<_> = std::mem::take(&mut *lock(&shared.second_names))
        .into_iter()
        .collect();
    let session = remote.bulk().as_ref();
    for (place, second) in names {
        let seen = shared.replica.view(|view| {
            let base = view.base(&place)?.map(|base| base.version);
            let seen: Option<Observation> = view.observation(&place)?;
            let path = view.base_path_of(&place)?;
            Ok::<_, ReplicaError>((seen.map_or(base, |seen| seen.version), path))
        });
        let Ok((seen, Some(path))) = seen else {
            continue;
        };
        if seen.is_some_and(|seen| seen.same_content(&second.version)) {
            home::remove_if_there(remote, &second.path).await?;
        } else {
            keep_second_name(shared, session, &second.path, &path).await?;
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
    match session.rename(second, &kept).await {
        Err(error) if error.kind != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What this client left in staging when it died or lost its link: a second name becomes a backup, an upload
/// goes, whatever its times say. Passes do not overlap, so nothing of this moment is there.
async fn clear_staging(shared: &Arc<Shared>, remote: &Remote) -> Result<(), RemoteError> {
    let session = remote.bulk().as_ref();
    for entry in session.list(&layout::staging()).await? {
        let Some((client, node, number)) = layout::parse_staging_name(&entry.name) else {
            continue;
        };
        if client != shared.client {
            continue;
        }
        let path = layout::staging().join(&entry.name);
        if number & 1 == 1 {
            let origin = shared
                .replica
                .view::<_, ReplicaError>(|view| view.local_path(node));
            let origin = origin
                .ok()
                .flatten()
                .unwrap_or_else(|| std::iter::once(entry.name).collect());
            keep_second_name(shared, session, &path, &origin).await?;
        } else {
            home::remove_if_there(remote, &path).await?;
        }
    }
    Ok(())
}
