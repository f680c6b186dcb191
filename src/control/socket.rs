//! Sockets by which a process can be asked, each for one user.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

/// Binds `path` for the user `uid`; makes its directory, for that user alone. A socket that nobody listens on is
/// replaced; none if somebody does.
pub fn bind(path: &Path, uid: u32) -> io::Result<Option<UnixListener>> {
    if let Some(dir) = path.parent() {
        make_private_dir(dir, uid)?;
    }
    match UnixStream::connect(path) {
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => fs::remove_file(path)?,
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(Some(listener))
}

/// Makes `dir` with mode 0700, or checks that it is `uid`'s and closed to others.
pub fn make_private_dir(dir: &Path, uid: u32) -> io::Result<()> {
    // Other users have theirs beside it, so only the last directory is private.
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() || metadata.uid() != uid {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{}: not a directory of user {uid}", dir.display()),
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    }
    Ok(())
}
