//! What is kept: names in the server's trash and backups, the list of both with what this machine keeps, and
//! restoring.

use std::fs::Permissions;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::deeds;
use super::fetch;
use super::reconcile::PassError;
use super::scan::ScanError;
use super::shared::Shared;
use crate::remote::layout::{self, Aside, ClientId, Origin, Reason};
use crate::remote::{self, Remote, RemoteError, TransferError};
use crate::replica::{Content, LocalBackup, Node, ReplicaError, View};
use crate::sync::Keep;
use crate::tree::{Kind, NodeId, RelPath, Time};

pub(super) mod conflicts;
mod retention;
mod tidy;

use tidy::expire;
pub(super) use tidy::tidy;

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

/// What a shelf holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shelf {
    /// Newest first.
    pub items: Vec<KeptItem>,
    /// Without a link, only what is kept on this machine.
    pub only_here: bool,
}

/// A path in trash or backups for a version that makes room.
pub(super) fn kept_path(shared: &Shared, keep: Keep, target: &RelPath) -> RelPath {
    let aside = match keep {
        Keep::Trash => aside(shared, Reason::Removed, target),
        Keep::Backup => aside(shared, Reason::Conflict, target),
        Keep::Replaced => aside(shared, Reason::Replaced, target),
    };
    deeds::put_aside(shared, target, &aside);
    match keep {
        Keep::Trash => layout::trash_path(&aside),
        Keep::Backup | Keep::Replaced => layout::backup_path(&aside),
    }
}

/// A path in the backups for a version that somebody put at `target` in the moment of its replacement.
pub(super) fn raced_path(shared: &Shared, target: &RelPath) -> RelPath {
    layout::backup_path(&aside(shared, Reason::Race, target))
}

fn aside(shared: &Shared, reason: Reason, target: &RelPath) -> Aside {
    // Half of the number is random; the other half lets this machine know its own work again.
    let number = u32::from(tag(shared)) << 16 | shared.random() as u32 >> 16;
    Aside::new(shared.server_now(), number, reason, target)
}

/// What this machine's numbers of kept files begin with.
fn tag(shared: &Shared) -> u16 {
    let ClientId(id) = shared.client;
    (id >> 48) as u16
}

/// A number for an upload's file in staging. It is even; that of its second name is the odd one after it.
pub(super) fn upload_number(shared: &Shared) -> u64 {
    (shared.random() >> 1) & !1
}

/// The path of an upload in staging.
pub(super) fn staging_path(shared: &Shared, node: NodeId, number: u64) -> RelPath {
    layout::staging_path(&layout::staging_name(shared.client, node, number))
}

/// The path in staging of the second name of what was uploaded under `number`.
pub(super) fn second_path(shared: &Shared, node: NodeId, number: u64) -> RelPath {
    staging_path(shared, node, number | 1)
}

/// Lists a shelf: the server's part and this machine's. Without a link what is here will do, if there is anything.
pub(super) async fn list(shared: &Arc<Shared>, which: KeptWhere) -> Result<Shelf, PassError> {
    let mut items = Vec::new();
    if which == KeptWhere::Backups {
        for backup in shared.replica.view(|view| view.backups())? {
            items.push(KeptItem {
                id: format!("local-{}", backup.id),
                path: backup.path,
                at: backup.at,
                mtime: Time::new(backup.version.mtime, 0),
                size: match backup.version.kind {
                    Kind::Symlink => backup.version.target.len() as u64,
                    _ => backup.version.size,
                },
                on_server: false,
                why: backup.why,
            });
        }
    }
    let remote = shared.online();
    match &remote {
        Some(remote) => {
            let there = list_server(remote, shelf(which)).await;
            items.extend(there.map_err(ScanError::from)?);
        }
        None if items.is_empty() => return Err(offline(shared, which)),
        None => {}
    }
    items.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
    let only_here = remote.is_none();
    Ok(Shelf { items, only_here })
}

/// Nothing can be said of a shelf without the server.
fn offline(shared: &Shared, which: KeptWhere) -> PassError {
    let what = match which {
        KeptWhere::Backups => "nothing is kept here, and the other backups are there",
        KeptWhere::Trash => "the trash is there",
    };
    let why = shared.link.borrow().state.why_not();
    PassError::Offline(format!("{why}. {what}"))
}

fn shelf(which: KeptWhere) -> RelPath {
    match which {
        KeptWhere::Backups => layout::backups(),
        KeptWhere::Trash => layout::trash(),
    }
}

pub(super) fn id_of(aside: &Aside) -> String {
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
        .ok_or_else(|| PassError::Offline(shared.link.borrow().state.why_not()))?;
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

/// Writes a kept file's content, or a symlink's target, to a new file of this machine, and tells which it is. The
/// file has the same mode: what was private stays private. What is kept stays.
pub(super) async fn restore(shared: &Arc<Shared>, id: &str, to: &Path) -> Result<Kind, PassError> {
    let failed = |error: std::io::Error| PassError::Failed(format!("{}: {error}", to.display()));
    let found = find(shared, id).await?;
    let mut file = std::fs::OpenOptions::new();
    let mut file = file
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(failed)?;
    let (kind, mode) = match found {
        Found::Local(backup) => {
            let mut content = shared.replica.content().open_backup(backup.id)?;
            std::io::copy(&mut content, &mut file).map_err(failed)?;
            (backup.version.kind, backup.version.mode)
        }
        Found::Server(remote, path, stat) if stat.kind == Kind::Symlink => {
            let target = remote.interactive().readlink(&path).await;
            let target = target.map_err(ScanError::from)?;
            file.write_all_at(&target, 0).map_err(failed)?;
            (Kind::Symlink, 0o600)
        }
        Found::Server(remote, path, stat) => {
            let mut sink = |offset: u64, data: bytes::Bytes| file.write_all_at(&data, offset);
            let session = remote.bulk().as_ref();
            match remote::download(session, &path, stat.size, 0, &mut sink).await {
                Ok(_) => {}
                Err(TransferError::Remote(error)) => return Err(ScanError::from(error).into()),
                Err(error) => return Err(PassError::Failed(error.to_string())),
            }
            (Kind::File, stat.mode)
        }
    };
    // Whoever asked has to read it.
    let mode = Permissions::from_mode(mode & 0o777 | 0o400);
    file.set_permissions(mode).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(kind)
}

/// Where a kept file was.
pub(super) async fn origin(shared: &Arc<Shared>, id: &str) -> Result<RelPath, PassError> {
    for which in [KeptWhere::Backups, KeptWhere::Trash] {
        let items = list(shared, which).await?.items;
        if let Some(item) = items.into_iter().find(|item| item.id == id) {
            return Ok(item.path);
        }
    }
    Err(unknown(id))
}

/// Keeps a copy of what is at `path` now as a backup, before something is put in its place. Only what is here
/// can be kept, so it is fetched first.
pub(super) async fn keep_current(shared: &Arc<Shared>, path: &RelPath) -> Result<(), PassError> {
    if let Some(node) = shared.replica.view(|view| node_at(view, path))? {
        fetch::hydrate(shared, node.id, true).await?;
    }
    let at = shared.now();
    let found = shared.replica.update(|tx| {
        let node = node_at(tx, path)?.filter(|node| match node.kind {
            Kind::File => node.content == Content::Whole && node.size > 0,
            kind => kind == Kind::Symlink,
        });
        match node {
            Some(node) => Ok::<_, ReplicaError>(Some((node, tx.alloc_backup()?))),
            None => Ok(None),
        }
    })?;
    let Some((node, id)) = found else {
        return Ok(());
    };
    let content = shared.replica.content();
    match node.kind {
        Kind::Symlink => content.write_to_backup(&node.target, id)?,
        _ => content.copy_to_backup(node.id, id)?,
    }
    content.sync_backup(id)?;
    let backup = LocalBackup {
        path: path.clone(),
        version: node.version(),
        at,
        why: "replaced by a restored version".into(),
        id,
        unsent: node.data_changed,
    };
    shared.replica.update(|tx| tx.add_backup(backup))?;
    Ok(())
}

/// What stands at `path` here.
pub(super) fn stands_at(shared: &Shared, path: &RelPath) -> Result<Option<Node>, ReplicaError> {
    shared.replica.view(|view| node_at(view, path))
}

/// What is at `path`, if there is anything.
fn node_at(view: &View<'_>, path: &RelPath) -> Result<Option<Node>, ReplicaError> {
    let mut id = NodeId::ROOT;
    for name in path.names() {
        match view.child(id, name)? {
            Some(child) => id = child,
            None => return Ok(None),
        }
    }
    view.node(id)
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
        .ok_or_else(|| offline(shared, KeptWhere::Trash))?;
    let removed = expire(&remote, layout::trash(), before)
        .await
        .map_err(ScanError::from)?;
    Ok(removed)
}
