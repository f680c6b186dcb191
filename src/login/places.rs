//! Where things are for a login, and making them as root without being led astray.
//!
//! Root makes nothing in a directory that somebody else can change: what stands there could be swapped for a link
//! between two steps. Inside of what it made, the user's daemon acts, as the user.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use super::account::Account;
use crate::control::socket::make_private_dir;
use crate::control::{Code, Failure};

/// Where a login's directories and sockets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where the home is mounted, without links.
    pub mountpoint: PathBuf,
    /// The replica.
    pub state_dir: PathBuf,
    /// The daemon's control socket is in there.
    pub runtime_dir: PathBuf,
}

/// The keepers' sockets and what they remember, in a directory of root's.
const KEEPERS: &str = "/run/roamhome/keepers";

/// Where the keeper of an account listens.
pub(super) fn keeper_socket(uid: u32) -> PathBuf {
    Path::new(KEEPERS).join(format!("{uid}.sock"))
}

/// Where the keeper of an account writes down who has leases.
pub(super) fn keeper_leases(uid: u32) -> PathBuf {
    Path::new(KEEPERS).join(format!("{uid}.leases"))
}

/// Whether a keeper had sessions of an account, and may have been killed.
pub fn is_kept(uid: u32) -> bool {
    keeper_leases(uid).exists()
}

/// Marks of homes that may hold what is not on the server: a file for each account, by number.
const UNSENT_MARKS: &str = "/var/lib/roamhome/.unsent";

/// The mark of an account.
pub(super) fn unsent_mark(uid: u32) -> PathBuf {
    Path::new(UNSENT_MARKS).join(uid.to_string())
}

/// The accounts whose homes may hold what is not on the server.
pub fn unsent_accounts() -> Vec<u32> {
    let marks = fs::read_dir(UNSENT_MARKS).into_iter().flatten().flatten();
    let number = |mark: fs::DirEntry| mark.file_name().to_str()?.parse().ok();
    let mut accounts: Vec<_> = marks.filter_map(number).collect();
    accounts.sort_unstable();
    accounts
}

/// The keepers' directory, made for root alone.
pub fn keepers_dir() -> io::Result<&'static Path> {
    let dir = Path::new(KEEPERS);
    make_private_dir(dir, 0)?;
    Ok(dir)
}

impl Places {
    /// Makes all of it for `account`, with the replica in `state_dir`. What is there already has to be right.
    pub fn prepare(account: &Account, state_dir: &Path) -> Result<Self, Failure> {
        let home = &account.home;
        let mountpoint = make(home, Code::Mountpoint, &|dir| {
            // Nobody writes here what a mount would hide: it is root's until then.
            DirBuilder::new().mode(0o755).create(dir)
        })?;
        let found = look(&mountpoint, Code::Mountpoint)?;
        if found.uid() != 0 && found.uid() != account.uid {
            return Err(foreign(&mountpoint, Code::Mountpoint, &found, account));
        }
        let own = |dir: &Path| -> io::Result<()> {
            DirBuilder::new().mode(0o700).create(dir)?;
            lchown(dir, Some(account.uid), Some(account.gid))
        };
        let runtime_dir = PathBuf::from(format!("/run/roamhome/{}", account.uid));
        let mut made = Vec::new();
        for (dir, code) in [(state_dir, Code::StateDir), (&runtime_dir, Code::General)] {
            let dir = make(dir, code, &own)?;
            let found = look(&dir, code)?;
            if found.uid() != account.uid {
                return Err(foreign(&dir, code, &found, account));
            }
            made.push(dir);
        }
        let runtime_dir = made.pop().unwrap_or_default();
        let state_dir = made.pop().unwrap_or_default();
        Ok(Self {
            mountpoint,
            state_dir,
            runtime_dir,
        })
    }

    /// Gives the mount point to the account, which works there without a home for once.
    pub fn hand_over(&self, account: &Account) -> io::Result<()> {
        lchown(&self.mountpoint, Some(account.uid), Some(account.gid))?;
        fs::set_permissions(&self.mountpoint, PermissionsExt::from_mode(0o700))
    }
}

/// Makes a directory with `with`, unless it is there; its parents are made for all to pass. The answer has no links.
fn make(
    dir: &Path,
    code: Code,
    with: &dyn Fn(&Path) -> io::Result<()>,
) -> Result<PathBuf, Failure> {
    let refuse = |why: String| Failure::new(code, format!("{}: {why}", dir.display()));
    let (Some(parent), Some(name)) = (dir.parent().filter(|_| dir.is_absolute()), dir.file_name())
    else {
        return Err(refuse("not the absolute path of a directory".to_owned()));
    };
    fs::create_dir_all(parent).map_err(|error| refuse(error.to_string()))?;
    let parent = parent
        .canonicalize()
        .map_err(|error| refuse(error.to_string()))?;
    for ancestor in parent.ancestors() {
        let found = look(ancestor, code)?;
        if !is_roots_alone(&found) {
            let why = format!("others than root may change {}", ancestor.display());
            return Err(refuse(why).remedy("it has to lie in directories of root's"));
        }
    }
    let dir = parent.join(name);
    match with(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(refuse(error.to_string()))
        }
        _ => Ok(dir),
    }
}

/// Whether nobody but root may change what is in a directory.
fn is_roots_alone(dir: &Metadata) -> bool {
    dir.uid() == 0 && (dir.mode() & 0o022 == 0 || dir.gid() == 0 && dir.mode() & 0o002 == 0)
}

/// What stands there, which has to be a directory and no link to one.
fn look(dir: &Path, code: Code) -> Result<Metadata, Failure> {
    let refuse = |why: &str| Failure::new(code, format!("{}: {why}", dir.display()));
    let found = fs::symlink_metadata(dir).map_err(|error| refuse(&error.to_string()))?;
    match found.is_dir() {
        true => Ok(found),
        false => Err(refuse("not a directory")),
    }
}

fn foreign(dir: &Path, code: Code, found: &Metadata, account: &Account) -> Failure {
    let message = format!(
        "{}: it belongs to user {}, and {} is {}",
        dir.display(),
        found.uid(),
        account.name,
        account.uid
    );
    Failure::new(code, message)
        .remedy("see whose it is, and move it away or give it to the right user")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn made(dir: &Path) -> Result<PathBuf, Failure> {
        make(dir, Code::StateDir, &|dir| {
            DirBuilder::new().mode(0o700).create(dir)
        })
    }

    /// In a directory of root's: what is below `/tmp` is everybody's.
    fn scratch() -> tempfile::TempDir {
        let root = rustix::process::geteuid().is_root();
        assert!(root, "this test makes directories as root does");
        tempfile::Builder::new()
            .prefix("rh-places")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/var")
            .unwrap()
    }

    #[test]
    fn nothing_is_made_where_others_could_swap_it() {
        let dir = scratch();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(made(&at("a/b")), Ok(at("a/b")));
        assert_eq!(made(&at("a/b")), Ok(at("a/b")));
        // Through a link of root's.
        symlink("a", at("link")).unwrap();
        assert_eq!(made(&at("link/c")), Ok(at("a/c")));

        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o1777)).unwrap();
        let refused = made(&at("a/d")).unwrap_err();
        assert!(refused.message.contains("others than root"), "{refused}");
        assert!(!at("a/d").exists());
        fs::set_permissions(at("a"), fs::Permissions::from_mode(0o755)).unwrap();
        lchown(at("a"), Some(1000), None).unwrap();
        assert!(made(&at("a/d")).is_err());
        assert!(made(Path::new("relative/a")).is_err());
        assert!(made(Path::new("/")).is_err());
    }

    #[test]
    fn what_is_somebody_elses_is_not_taken() {
        let dir = scratch();
        let account = Account {
            name: "ann".into(),
            uid: 54_321,
            gid: 54_321,
            home: dir.path().join("home/ann"),
        };
        let state = dir.path().join("state/ann");
        let places = Places::prepare(&account, &state).unwrap();
        assert_eq!(places.mountpoint, account.home);
        let of = |path: &Path| fs::symlink_metadata(path).unwrap();
        assert_eq!(of(&places.mountpoint).uid(), 0);
        assert_eq!(
            (of(&state).uid(), of(&state).mode() & 0o777),
            (54_321, 0o700)
        );
        assert_eq!(Places::prepare(&account, &state), Ok(places.clone()));

        lchown(&state, Some(54_322), None).unwrap();
        let refused = Places::prepare(&account, &state).unwrap_err();
        assert!(refused.message.contains("54322"), "{refused}");
        fs::remove_dir(&state).unwrap();
        symlink("/etc", &state).unwrap();
        let refused = Places::prepare(&account, &state).unwrap_err();
        assert!(refused.message.contains("not a directory"), "{refused}");
        fs::remove_dir(&places.runtime_dir).unwrap();
    }
}
