//! What can be known before mounting without asking the server: is there FUSE, can the mount point be used,
//! is the state directory fit. Each refusal says what to do.

use std::{
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use crate::control::{Code, Failure};

/// What the kernel calls our mounts.
pub(super) const FS_TYPE: &str = "fuse.roamhome";

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where.
    pub(super) point: PathBuf,
    /// What.
    pub(super) fs_type: String,
}

/// All mounts that this process sees; later ones cover earlier ones.
pub(super) fn read_mounts() -> Result<Vec<Mount>, Failure> {
    const PATH: &str = "/proc/self/mountinfo";
    let text = fs::read(PATH)
        .map_err(|error| Failure::new(Code::Mountpoint, format!("{PATH}: {error}")))?;
    Ok(parse_mountinfo(&text))
}

/// Reads the form of proc_pid_mountinfo(5).
fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    let parse = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b' ');
        let point = unescape(fields.nth(4)?);
        let fs_type = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Mount {
            point: PathBuf::from(std::ffi::OsString::from_vec(point)),
            fs_type: String::from_utf8_lossy(fs_type).into_owned(),
        })
    };
    text.split(|b| *b == b'\n').filter_map(parse).collect()
}

/// Blanks and backslashes stand there as `\040` and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

/// Whether `device` (/dev/fuse) is there and may be opened.
pub(super) fn check_fuse(device: &Path) -> Result<(), Failure> {
    let opened = fs::OpenOptions::new().read(true).write(true).open(device);
    let Err(error) = opened else {
        return Ok(());
    };
    let failure = Failure::new(Code::NoFuse, format!("{}: {error}", device.display()));
    Err(match error.kind() {
        io::ErrorKind::PermissionDenied => {
            failure.remedy("your user may not use FUSE: ask the administrator about this device")
        }
        _ => failure.remedy(
            "load the module (modprobe fuse); in a container, start it with \
             --device /dev/fuse --cap-add SYS_ADMIN",
        ),
    })
}

/// Whether a user without privileges finds the helper that mounts for them.
pub(super) fn check_helper(uid: u32, path_var: &std::ffi::OsStr) -> Result<(), Failure> {
    let found = std::env::split_paths(path_var).any(|dir| {
        ["fusermount3", "fusermount"]
            .iter()
            .any(|name| dir.join(name).is_file())
    });
    if uid == 0 || found {
        return Ok(());
    }
    Err(Failure::new(Code::NoFuse, "fusermount3 is not installed")
        .remedy("install the package fuse3"))
}

/// Whether a home can be mounted there; answers the absolute path without links.
pub(super) fn check_mountpoint(
    path: &Path,
    mounts: &[Mount],
    nonempty: bool,
) -> Result<PathBuf, Failure> {
    let refuse = |why: &str| {
        let message = format!("{}: {why}", path.display());
        Failure::new(Code::Mountpoint, message)
    };
    let make = format!("make it first: mkdir -p {}", path.display());
    let metadata = fs::metadata(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => refuse("there is no such directory").remedy(make),
        Some(libc::ENOTCONN) => refuse("a mount there has lost its daemon")
            .remedy(format!("take it away: roamhome umount {}", path.display())),
        _ => refuse(&error.to_string()),
    })?;
    if !metadata.is_dir() {
        return Err(refuse("not a directory"));
    }
    let absolute = path
        .canonicalize()
        .map_err(|error| refuse(&error.to_string()))?;
    if let Some(mount) = mounts.iter().rfind(|mount| mount.point == absolute) {
        return Err(match mount.fs_type.as_str() {
            FS_TYPE => refuse("a home is mounted there already")
                .remedy(format!("see: roamhome status {}", path.display())),
            other => refuse(&format!("something else ({other}) is mounted there"))
                .remedy("choose another mount point"),
        });
    }
    let mut entries = fs::read_dir(&absolute).map_err(|error| refuse(&error.to_string()))?;
    if !nonempty && entries.next().is_some() {
        return Err(
            refuse("the directory is not empty, and a mount would hide what is in it")
                .remedy(format!(
                    "take it over into the home first: roamhome adopt {} --move-aside; or choose an empty one, or hide it all \
                     the same: -o nonempty",
                    path.display()
                )),
        );
    }
    Ok(absolute)
}

/// Whether the replica can be kept in `dir`; makes it, for this user alone. Answers the absolute path.
pub(super) fn prepare_state_dir(
    dir: &Path,
    mountpoint: &Path,
    uid: u32,
) -> Result<PathBuf, Failure> {
    let refuse = |why: String| Failure::new(Code::StateDir, format!("{}: {why}", dir.display()));
    let elsewhere = "name another: --state DIR";
    // Before anything is made: the part of the path that exists decides where it would be.
    let absolute = canonical_prefix(dir).map_err(|error| refuse(error.to_string()))?;
    let inside = |a: &Path, b: &Path| a.as_os_str().as_bytes() != b"/" && b.starts_with(a);
    if inside(mountpoint, &absolute) {
        let why = format!(
            "the state directory lies inside the mount point {}",
            mountpoint.display()
        );
        return Err(Failure::new(Code::Mountpoint, why).remedy(elsewhere));
    }
    if inside(&absolute, mountpoint) {
        let why = format!(
            "the mount point lies inside the state directory {}",
            dir.display()
        );
        return Err(Failure::new(Code::Mountpoint, why).remedy("choose another mount point"));
    }
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&absolute);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            refuse("the disk is full".to_owned()).remedy("make room, or name another: --state DIR")
        }
        _ => refuse(error.to_string()).remedy(elsewhere),
    })?;
    let metadata = fs::metadata(&absolute).map_err(|error| refuse(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(refuse("not a directory".to_owned()).remedy(elsewhere));
    }
    if metadata.uid() != uid {
        let why = format!("it belongs to user {}, and you are {uid}", metadata.uid());
        return Err(refuse(why).remedy(elsewhere));
    }
    if metadata.mode() & 0o077 != 0 {
        // It holds content that was private in the home.
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&absolute, private).map_err(|error| refuse(error.to_string()))?;
    }
    Ok(absolute)
}

/// Whether a home in a directory of this machine lies apart from where it is mounted and where its replica is: what is
/// mounted inside of itself waits for itself.
pub(super) fn check_apart(home: &Path, mountpoint: &Path, state_dir: &Path) -> Result<(), Failure> {
    let refuse = |why: String| Failure::new(Code::Mountpoint, format!("{}: {why}", home.display()));
    let canonical = |path: &Path| canonical_prefix(path).map_err(|e| refuse(e.to_string()));
    let home = canonical(home)?;
    for (what, other) in [("mount point", mountpoint), ("state directory", state_dir)] {
        let other = canonical(other)?;
        if other.starts_with(&home) || home.starts_with(&other) {
            let why = format!("the {what} {} lies in it, or it in that", other.display());
            return Err(refuse(why).remedy(format!("choose another {what}")));
        }
    }
    Ok(())
}

/// The path without links, as far as it exists, and the rest as it is.
pub(super) fn canonical_prefix(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for ancestor in path.ancestors() {
        match ancestor.canonicalize() {
            Ok(real) => {
                let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
                // Joining an empty path would add a slash.
                let parts = rest.components();
                return Ok(parts.fold(real, |path, part| path.join(part)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
