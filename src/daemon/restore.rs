//! Putting kept versions back into the home: through the mount, as a program would, so that a restored file
//! is a change like any other and travels on.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::failure;
use super::lifecycle::Daemon;
use crate::control::protocol::KeptItem;
use crate::control::{Code, Failure};
use crate::tree::{Kind, RelPath};

pub(super) fn unknown(id: &str) -> Failure {
    Failure::new(Code::General, format!("nothing is kept under {id}"))
        .remedy("`list` shows what is kept, with the ids")
}

/// A kept version's content, or a link's target, in a file of the state directory's staging, which the next start
/// empties.
pub(super) async fn to_scratch(daemon: &Daemon, id: &str) -> Result<(PathBuf, Kind), Failure> {
    let name: String = id
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    let file = daemon
        .request
        .state_dir
        .join("staging")
        .join(format!("kept-{name}"));
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::new(
                Code::StateDir,
                format!("{}: {error}", file.display()),
            ));
        }
        _ => {}
    }
    let restored = daemon.engine.restore_kept(id, &file).await;
    let kind = restored.map_err(|error| failure::pass(&error))?;
    Ok((file, kind))
}

/// Puts a kept version back to `to`, or to where it was. What stands there becomes a backup.
pub(super) async fn restore(
    daemon: &std::sync::Arc<Daemon>,
    items: &[KeptItem],
    id: &str,
    to: Option<String>,
) -> Result<String, Failure> {
    let item = items
        .iter()
        .find(|item| item.id == id)
        .ok_or_else(|| unknown(id))?;
    let target = match &to {
        Some(to) => in_home(daemon, to)?,
        None => daemon
            .engine
            .kept_origin(id)
            .await
            .map_err(|error| failure::pass(&error))?,
    };
    put(daemon, id, item.mtime, &target).await?;
    Ok(format!("restored {target}"))
}

/// Puts a kept version to `target`. What stands there becomes a backup.
pub(super) async fn put(
    daemon: &std::sync::Arc<Daemon>,
    id: &str,
    mtime: i64,
    target: &RelPath,
) -> Result<(), Failure> {
    let (scratch, kind) = to_scratch(daemon, id).await?;
    let kept = daemon.engine.keep_current(target).await;
    kept.map_err(|error| failure::pass(&error))?;
    place(daemon, target, scratch, kind, mtime, RenameFlags::empty()).await
}

/// Puts a kept version to `target` if nothing stands there, and fails otherwise.
pub(super) async fn put_new(
    daemon: &std::sync::Arc<Daemon>,
    id: &str,
    mtime: i64,
    target: &RelPath,
) -> Result<(), Failure> {
    let (scratch, kind) = to_scratch(daemon, id).await?;
    place(daemon, target, scratch, kind, mtime, RenameFlags::NOREPLACE).await
}

pub(super) async fn place(
    daemon: &std::sync::Arc<Daemon>,
    target: &RelPath,
    scratch: PathBuf,
    kind: Kind,
    mtime: i64,
    flags: RenameFlags,
) -> Result<(), Failure> {
    let daemon = std::sync::Arc::clone(daemon);
    let place = target.clone();
    let put = tokio::task::spawn_blocking(move || {
        let put = put_back(
            &daemon.request.mountpoint,
            &place,
            &scratch,
            kind,
            mtime,
            flags,
        );
        put.map_err(|error| Failure::new(Code::General, format!("{place}: {error}")))
    });
    put.await
        .map_err(|error| Failure::new(Code::General, error.to_string()))?
}

/// A path of the command line in the home: absolute below the mount point, or relative to the home.
fn in_home(daemon: &Daemon, to: &str) -> Result<RelPath, Failure> {
    let path = Path::new(to);
    let path = path
        .strip_prefix(&daemon.request.mountpoint)
        .unwrap_or(path);
    RelPath::parse(path.as_os_str().as_bytes())
        .ok()
        .filter(|path| !path.is_root())
        .ok_or_else(|| {
            Failure::new(Code::Usage, format!("{to} is no path in the home"))
                .remedy("give a path relative to the home, without . and ..")
        })
}

/// Makes a temporary file or link beside the target and renames it there, so that the name always has a whole one.
fn put_back(
    mountpoint: &Path,
    target: &RelPath,
    scratch: &Path,
    kind: Kind,
    mtime: i64,
    flags: RenameFlags,
) -> io::Result<()> {
    let path = mountpoint.join(OsStr::from_bytes(&target.to_bytes()));
    let parent = path.parent().unwrap_or(mountpoint);
    fs::create_dir_all(parent)?;
    let temporary = parent.join(format!(".roamhome-restore-{}", std::process::id()));
    let written: io::Result<()> = (|| {
        if kind == Kind::Symlink {
            let points_to = fs::read(scratch)?;
            symlink(OsStr::from_bytes(&points_to), &temporary)?;
            return Ok(renameat_with(CWD, &temporary, CWD, &path, flags)?);
        }
        let mode = fs::metadata(scratch)?.permissions();
        let mut kept = fs::File::open(scratch)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&temporary)?;
        io::copy(&mut kept, &mut file)?;
        file.set_permissions(mode)?;
        let seconds = u64::try_from(mtime).unwrap_or(0);
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))?;
        drop(file);
        Ok(renameat_with(CWD, &temporary, CWD, &path, flags)?)
    })();
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    drop(fs::remove_file(scratch));
    written
}
