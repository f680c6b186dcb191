//! Which running daemon a command means, by the names of the control sockets.

use std::path::{Path, PathBuf};

use super::{output::ProgressLine, settings};
pub(super) use crate::control::client::unexpected;
use crate::{
    config::control_socket_name,
    control::{
        Code, Failure, client,
        protocol::{Reply, Request},
    },
};

/// Symbolic links followed before giving up, as the kernel does.
const LINKS_MAX: usize = 40;

/// Asks the daemon that `mountpoint` means, and shows its progress.
pub(super) fn ask(mountpoint: Option<&Path>, request: Request) -> Result<Reply, Failure> {
    let socket = socket_of(mountpoint)?;
    let mut line = ProgressLine::new();
    client::ask(&socket, request, &mut |progress| line.show(&progress))
}

/// The socket of the daemon that `mountpoint` means.
pub(super) fn socket_of(mountpoint: Option<&Path>) -> Result<PathBuf, Failure> {
    socket(&socket_dirs()?, mountpoint)
}

/// Where sockets may be: for root, which may ask every daemon, also those of mounts that root made for others.
pub(super) fn socket_dirs() -> Result<Vec<PathBuf>, Failure> {
    let env = settings::env()?;
    let mut dirs = env.runtime_dirs();
    if env.uid == 0 {
        let others = std::fs::read_dir("/run/roamhome").into_iter().flatten();
        let others = others.flatten().filter(|dir| {
            let name = dir.file_name();
            name.to_str()
                .is_some_and(|name| name.parse::<u32>().is_ok())
        });
        let others: Vec<_> = others.map(|dir| dir.path()).collect();
        dirs.extend(
            others
                .into_iter()
                .filter(|dir| *dir != env.system_runtime_dir()),
        );
    }
    Ok(dirs)
}

/// The socket of the daemon that serves `mountpoint`; without one, the mount that the current directory lies
/// in, or the only one that runs.
fn socket(dirs: &[PathBuf], mountpoint: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(mountpoint) = mountpoint {
        let path = resolve(mountpoint);
        return served_at(dirs, &path).ok_or_else(|| {
            Failure::new(
                Code::NotRunning,
                format!("no roamhome serves {}", path.display()),
            )
            .remedy(others(dirs))
        });
    }
    let here = std::env::current_dir().unwrap_or_default();
    if let Some(socket) = here.ancestors().find_map(|path| served_at(dirs, path)) {
        return Ok(socket);
    }
    let mut running = all(dirs);
    match running.len() {
        1 => Ok(running.remove(0)),
        0 => Err(Failure::new(Code::NotRunning, "no home is mounted").remedy(others(dirs))),
        number => Err(Failure::new(
            Code::Usage,
            format!("{number} homes are mounted: say which"),
        )
        .remedy(others(dirs))),
    }
}

/// The socket of the daemon that serves `mountpoint`, as [`resolve`] spells it.
fn served_at(dirs: &[PathBuf], mountpoint: &Path) -> Option<PathBuf> {
    let name = control_socket_name(mountpoint);
    let sockets = dirs.iter().map(|dir| dir.join(&name));
    sockets.into_iter().find(|socket| client::is_served(socket))
}

/// Every socket that somebody listens on, in order.
pub(super) fn all(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let entries = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok());
    let mut sockets: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "sock"))
        .filter(|path| client::is_served(path))
        .collect();
    sockets.sort();
    sockets
}

/// Which mounts could have been meant.
fn others(dirs: &[PathBuf]) -> String {
    let mut names = Vec::new();
    for socket in all(dirs) {
        names.extend(client::ping(&socket).map(|pong| pong.mountpoint));
    }
    if names.is_empty() {
        "mount one: roamhome mount [USER@]HOST:PATH MOUNTPOINT".to_owned()
    } else {
        format!("mounted: {}", names.join(", "))
    }
}

/// The absolute path without links, found without a look into the mount itself: its daemon may be stuck.
pub(super) fn resolve(mountpoint: &Path) -> PathBuf {
    let mut path = std::path::absolute(mountpoint).unwrap_or_else(|_| mountpoint.to_owned());
    for _ in 0..LINKS_MAX {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            // It ends in `..`, or it is the root.
            return path.canonicalize().unwrap_or(path);
        };
        let Ok(parent) = parent.canonicalize() else {
            return path;
        };
        let plain = parent.join(name);
        match std::fs::read_link(&plain) {
            Ok(target) => path = parent.join(target),
            Err(_) => return plain,
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    fn listen(dir: &Path, mountpoint: &str) -> (PathBuf, UnixListener) {
        let path = dir.join(control_socket_name(Path::new(mountpoint)));
        let listener = UnixListener::bind(&path).unwrap();
        (path, listener)
    }

    #[test]
    fn the_only_mount_is_meant_when_none_is_named_and_dead_sockets_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().join("none"), dir.path().to_owned()];
        let failure = socket(&dirs, None).unwrap_err();
        assert_eq!(failure.code, Code::NotRunning);
        assert!(failure.remedy.unwrap().contains("roamhome mount"));

        drop(listen(dir.path(), "/dead"));
        assert!(socket(&dirs, Some(Path::new("/dead"))).is_err());
        let (one, _listener) = listen(dir.path(), "/one");
        assert_eq!(socket(&dirs, None), Ok(one.clone()));
        assert_eq!(socket(&dirs, Some(Path::new("/one"))), Ok(one));
    }

    #[test]
    fn the_mount_around_the_current_directory_is_meant_before_all_others() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        let here = std::env::current_dir().unwrap();
        let (_, _other) = listen(dir.path(), "/other");
        let (around, _listener) = listen(dir.path(), here.parent().unwrap().to_str().unwrap());
        assert_eq!(socket(&dirs, None), Ok(around));
    }

    #[test]
    fn mount_points_are_resolved_through_links_and_dots() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("m")).unwrap();
        symlink("m", root.join("link")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for path in ["m", "link", "./m/", "m/../m", "link/."] {
            assert_eq!(resolve(&root.join(path)), root.join("m"), "{path}");
        }
        assert_eq!(resolve(&root.join("none")), root.join("none"));
        assert_eq!(resolve(&root.join("loop")), root.join("loop"));
        assert_eq!(resolve(Path::new("/")), Path::new("/"));
    }
}
