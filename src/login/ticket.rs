//! The Kerberos ticket of whoever logs in, in a file of the home's own: theirs may go with their session, and what is left is
//! sent after that.
//!
//! Where the ticket is, the login's environment says, and that is the account's to choose. So all of this is done by a process
//! of the account: root opens no path that it names.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use zeroize::Zeroizing;

mod expiry;

/// The ticket, in the state directory: a credential cache as MIT's and Heimdal's libraries write it.
pub const TICKET: &str = "krb5cc";
/// The next one, for a moment.
pub const TICKET_NEXT: &str = "krb5cc.next";

/// No cache of tickets is larger.
const MAX_BYTES: u64 = 1024 * 1024;
/// A file of tickets begins with 5 and the version of its format.
const FORMAT: u8 = 5;
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=4;
/// Which file of a directory of caches counts, and what counts without it.
const PRIMARY: &str = "primary";
const FIRST: &str = "tkt";

/// Where `KRB5CCNAME` says that tickets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ccache {
    /// In a file.
    File(PathBuf),
    /// In a file of this directory, which one of its files names.
    Dir(PathBuf),
    /// In the kernel or with a service, for as long as the account's processes may need it.
    Lasting,
}

impl Ccache {
    /// What a name means; none if nobody but its session can use it, or if it makes no sense.
    pub fn parse(name: &OsStr) -> Option<Self> {
        let name = name.as_bytes();
        let path = |path: &[u8]| PathBuf::from(OsString::from_vec(path.to_vec()));
        let absolute = |at: &[u8]| at.starts_with(b"/").then(|| path(at));
        if name.starts_with(b"KCM:") || name.starts_with(b"KEYRING:persistent:") {
            return Some(Self::Lasting);
        }
        if let Some(at) = name.strip_prefix(b"DIR::") {
            return absolute(at).map(Self::File);
        }
        if let Some(at) = name.strip_prefix(b"DIR:") {
            return absolute(at).map(Self::Dir);
        }
        absolute(name.strip_prefix(b"FILE:").unwrap_or(name)).map(Self::File)
    }

    /// Takes the ticket into `state_dir`, as the account. One that lasts stays where it is, and the one here goes. Whether
    /// there was one: a cache that is not there has none.
    pub fn take(&self, state_dir: &Path) -> io::Result<bool> {
        let content = match self {
            Self::File(path) => read(path)?,
            Self::Dir(dir) => read(&dir.join(primary(dir)?))?,
            Self::Lasting => {
                return match fs::remove_file(state_dir.join(TICKET)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(true),
                };
            }
        };
        let Some(content) = content else {
            return Ok(false);
        };
        match content.as_slice() {
            [FORMAT, version, ..] if VERSIONS.contains(version) => write(state_dir, &content)?,
            _ => return Err(io::Error::other("it holds no Kerberos ticket")),
        }
        Ok(true)
    }
}

/// When the ticket in `state_dir` expires, in seconds since 1970; `None` if there is none, or it cannot be told.
pub fn ticket_until(state_dir: &Path) -> Option<i64> {
    expiry::of(&read(&state_dir.join(TICKET)).ok()??)
}

/// The name of the file in a directory of caches that counts.
fn primary(dir: &Path) -> io::Result<OsString> {
    let Some(text) = read(&dir.join(PRIMARY))? else {
        return Ok(FIRST.into());
    };
    let name = text.trim_ascii_end();
    match name.starts_with(FIRST.as_bytes()) && !name.contains(&b'/') {
        true => Ok(OsString::from_vec(name.to_vec())),
        false => Err(io::Error::other("it names no file of tickets")),
    }
}

/// What is in a file of the account's own, if it is there. Nothing that stands there can be waited for, and no link leads on.
fn read(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = File::options()
        .read(true)
        .custom_flags(careful.bits().cast_signed())
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("not a file"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it is somebody else's"));
    }
    // In a buffer that never moves, and is wiped.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize + 1));
    file.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    match content.len() as u64 > MAX_BYTES {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(Some(content)),
    }
}

fn write(state_dir: &Path, content: &[u8]) -> io::Result<()> {
    // Two who log in at once take turns.
    let turn = File::open(state_dir)?;
    flock(&turn, FlockOperation::LockExclusive)?;
    let next = state_dir.join(TICKET_NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(content)?;
    fs::rename(next, state_dir.join(TICKET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    #[test]
    fn names_mean_what_kerberos_takes_them_for() {
        let file = |path: &str| Some(Ccache::File(path.into()));
        for (name, expected) in [
            ("FILE:/tmp/krb5cc_1000", file("/tmp/krb5cc_1000")),
            ("/tmp/krb5cc_1000", file("/tmp/krb5cc_1000")),
            ("DIR::/run/user/1000/cc/tkt", file("/run/user/1000/cc/tkt")),
            (
                "DIR:/run/user/1000/cc",
                Some(Ccache::Dir("/run/user/1000/cc".into())),
            ),
            ("KCM:", Some(Ccache::Lasting)),
            ("KCM:1000:7", Some(Ccache::Lasting)),
            ("KEYRING:persistent:1000", Some(Ccache::Lasting)),
            ("KEYRING:session:1000", None),
            ("MEMORY:7", None),
            ("FILE:relative", None),
            ("DIR:relative", None),
            ("FILE:", None),
            ("", None),
        ] {
            assert_eq!(Ccache::parse(OsStr::new(name)), expected, "{name}");
        }
    }

    const SOME: &[u8] = b"\x05\x04ticket";

    #[test]
    fn a_ticket_is_taken_for_its_owner_alone_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let (state, source) = (dir.path().join("state"), dir.path().join("cc"));
        fs::create_dir(&state).unwrap();
        let take = |ccache: &Ccache| ccache.take(&state).unwrap();
        let taken = || fs::read(state.join(TICKET)).ok();
        assert!(!take(&Ccache::File(source.clone())));
        assert_eq!(taken(), None);
        // What a link there leads to is not written to.
        let other = dir.path().join("other");
        fs::write(&other, "other").unwrap();
        for name in [TICKET, TICKET_NEXT] {
            symlink(&other, state.join(name)).unwrap();
        }
        fs::write(&source, SOME).unwrap();
        assert!(take(&Ccache::File(source)));
        assert_eq!(taken().as_deref(), Some(SOME));
        assert_eq!(fs::read(other).unwrap(), b"other");
        let mode = fs::symlink_metadata(state.join(TICKET)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!state.join(TICKET_NEXT).exists());

        assert!(take(&Ccache::Lasting));
        assert_eq!(taken(), None);
        assert!(take(&Ccache::Lasting));

        let caches = dir.path().join("caches");
        fs::create_dir(&caches).unwrap();
        fs::write(caches.join("tkt"), SOME).unwrap();
        fs::write(caches.join("tktX"), b"\x05\x04other").unwrap();
        assert!(take(&Ccache::Dir(caches.clone())));
        assert_eq!(taken().as_deref(), Some(SOME));
        fs::write(caches.join(PRIMARY), "tktX\n").unwrap();
        assert!(take(&Ccache::Dir(caches.clone())));
        assert_eq!(taken().as_deref(), Some(&b"\x05\x04other"[..]));
        fs::write(caches.join(PRIMARY), "tkt/../../cc\n").unwrap();
        assert!(Ccache::Dir(caches).take(&state).is_err());
    }

    #[test]
    fn what_is_no_ticket_of_the_accounts_own_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("state")).unwrap();
        fs::write(at("good"), SOME).unwrap();
        symlink(at("good"), at("link")).unwrap();
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("text"), "root:x:0:0").unwrap();
        fs::write(at("empty"), "").unwrap();
        let large = File::create(at("large")).unwrap();
        (&large).write_all(SOME).unwrap();
        large.set_len(MAX_BYTES + 1).unwrap();
        fs::write(at("foreign"), SOME).unwrap();
        fs::set_permissions(at("foreign"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            rustix::process::geteuid().is_root(),
            "this test gives a file to somebody else"
        );
        lchown(at("foreign"), Some(54_321), None).unwrap();
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        );
        made.unwrap();
        for name in ["link", "dir", "text", "empty", "large", "foreign", "fifo"] {
            let taken = Ccache::File(at(name)).take(&at("state"));
            assert!(taken.is_err(), "{name}: {taken:?}");
        }
        assert_eq!(fs::read_dir(at("state")).unwrap().count(), 0);
        assert_eq!(Ccache::File(at("good")).take(&at("state")).ok(), Some(true));
    }
}
