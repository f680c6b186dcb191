//! What is tried on the server: each operation that roamhome uses, and whether it means what it has to mean.

use bytes::Bytes;
use serde::Serialize;

use super::own_path;
use crate::remote::{ErrorKind, Remote, RemoteError, Session, SetStat};
use crate::tree::{Kind, RelPath};

/// A time that no server makes up: odd, and of this century.
const MTIME: i64 = 1_234_567_891;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it has to.
    Works,
    /// The server does not offer it.
    Missing,
    /// It offers it, and refuses or does something else.
    Fails,
    /// It was not tried.
    Skipped,
}

/// One thing that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What; stable.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen where it does not work.
    pub detail: String,
}

/// The check that stands for all where nothing could be written.
pub(super) fn not_writable(error: &RemoteError) -> Check {
    Check {
        name: "write",
        outcome: Outcome::Fails,
        detail: error.to_string(),
    }
}

/// The same where nothing was to be written.
pub(super) fn skipped() -> Check {
    Check {
        name: "write",
        outcome: Outcome::Skipped,
        detail: "there is no home yet, and nothing was made".to_owned(),
    }
}

/// What a check says: nothing if all is well, or what is wrong.
type Found = Result<Option<String>, RemoteError>;

/// Tries all; nothing stays behind. Only the loss of the link ends it early.
pub(super) async fn all(remote: &Remote, own: &str) -> Result<Vec<Check>, RemoteError> {
    let bench = Bench {
        session: remote.interactive().as_ref(),
        own,
    };
    let features = remote.features();
    let b = &bench;
    let tried: Vec<(&'static str, bool, Found)> = vec![
        ("write", true, b.write().await),
        ("exclusive-create", true, b.exclusive().await),
        ("rename-keeps", true, b.rename_keeps().await),
        (
            "posix-rename",
            features.posix_rename,
            b.posix_rename().await,
        ),
        ("hardlink", features.hardlink, b.hardlink().await),
        ("fsync", features.fsync, b.fsync().await),
        ("times", true, b.times().await),
        ("modes", true, b.modes().await),
        ("symlink", true, b.symlink().await),
        ("lsetstat", features.lsetstat, b.lsetstat().await),
        ("copy-data", features.copy_data, b.copy_data().await),
        ("statvfs", features.statvfs, b.statvfs().await),
        ("byte-names", true, b.byte_names().await),
        ("case-sensitive", true, b.case_sensitive().await),
        ("order", true, b.order().await),
        ("many-handles", true, b.many_handles().await),
    ];
    bench.clean().await?;
    let mut checks = Vec::new();
    for (name, offered, found) in tried {
        let (outcome, detail) = match found {
            _ if !offered => (Outcome::Missing, String::new()),
            Ok(None) => (Outcome::Works, String::new()),
            Ok(Some(wrong)) => (Outcome::Fails, wrong),
            Err(error) if error.is_link_loss() => return Err(error),
            Err(error) => (Outcome::Fails, format!("{}: {}", error.op, error.message)),
        };
        checks.push(Check {
            name,
            outcome,
            detail,
        });
    }
    Ok(checks)
}

/// Where the checks are made.
struct Bench<'a> {
    session: &'a dyn Session,
    own: &'a str,
}

/// The last parts of all names that are made.
const NAMES: [&[u8]; 5] = [b"a", b"b", b"link", b"\xff\xe9", b"CASE"];

/// As many files are opened at once.
const HANDLES: usize = 64;

fn unless(well: bool, wrong: &str) -> Found {
    Ok((!well).then(|| wrong.to_owned()))
}

impl Bench<'_> {
    fn at(&self, what: &[u8]) -> RelPath {
        own_path(self.own, what)
    }

    /// Removes all that may be there.
    async fn clean(&self) -> Result<(), RemoteError> {
        for name in NAMES {
            match self.session.remove(&self.at(name)).await {
                Err(error) if error.is_link_loss() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// A new file, in place of whatever is there.
    async fn make(&self, name: &[u8], content: &'static [u8]) -> Result<RelPath, RemoteError> {
        let path = self.at(name);
        match self.session.remove(&path).await {
            Err(error) if error.is_link_loss() => return Err(error),
            _ => {}
        }
        let handle = self.session.open_write(&path, 0o600, true).await?;
        let data = Bytes::from_static(content);
        let written = self.session.write(&handle, 0, data).await;
        self.session.close(handle).await?;
        written.map(|()| path)
    }

    async fn content(&self, path: &RelPath) -> Result<Bytes, RemoteError> {
        let handle = self.session.open_read(path).await?;
        let data = self.session.read(&handle, 0, 1024).await;
        self.session.close(handle).await?;
        data
    }

    async fn write(&self) -> Found {
        let path = self.make(b"a", b"content").await?;
        let same = self.content(&path).await? == b"content"[..];
        unless(same, "what was written is not what is read")
    }

    async fn exclusive(&self) -> Found {
        let path = self.make(b"a", b"first").await?;
        match self.session.open_write(&path, 0o600, true).await {
            Ok(handle) => {
                self.session.close(handle).await?;
                unless(
                    false,
                    "a file that is to be new is opened although it exists",
                )
            }
            Err(error) if error.is_link_loss() => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn rename_keeps(&self) -> Found {
        let (from, to) = (
            self.make(b"a", b"new").await?,
            self.make(b"b", b"old").await?,
        );
        let renamed = self.session.rename(&from, &to).await;
        let kept = self.content(&to).await? == b"old"[..];
        let refused = match renamed {
            Err(error) if error.is_link_loss() => return Err(error),
            renamed => renamed.is_err(),
        };
        if !kept || !refused {
            return unless(false, "a rename replaces what is in its way");
        }
        self.session.remove(&to).await?;
        self.session.rename(&from, &to).await?;
        unless(
            self.content(&to).await? == b"new"[..],
            "a renamed file is another one",
        )
    }

    async fn posix_rename(&self) -> Found {
        let (from, to) = (
            self.make(b"a", b"new").await?,
            self.make(b"b", b"old").await?,
        );
        self.session.posix_rename(&from, &to).await?;
        unless(
            self.content(&to).await? == b"new"[..],
            "it does not replace",
        )
    }

    async fn hardlink(&self) -> Found {
        let from = self.make(b"a", b"kept").await?;
        self.make(b"b", b"").await?;
        self.session.remove(&self.at(b"b")).await?;
        self.session.hardlink(&from, &self.at(b"b")).await?;
        self.session.remove(&from).await?;
        unless(
            self.content(&self.at(b"b")).await? == b"kept"[..],
            "it does not keep the file",
        )
    }

    async fn fsync(&self) -> Found {
        let path = self.make(b"a", b"content").await?;
        let handle = self.session.open_write(&path, 0o600, false).await?;
        let synced = self.session.fsync(&handle).await;
        self.session.close(handle).await?;
        synced.map(|()| None)
    }

    async fn times(&self) -> Found {
        let path = self.make(b"a", b"content").await?;
        let set = SetStat {
            mtime: Some(MTIME),
            ..SetStat::default()
        };
        self.session.setstat(&path, set).await?;
        let seen = self.session.lstat(&path).await?.mtime;
        unless(
            seen == MTIME,
            &format!("a time comes back {} s off", seen - MTIME),
        )
    }

    async fn modes(&self) -> Found {
        let path = self.make(b"a", b"content").await?;
        for mode in [0o640, 0o755, 0o600] {
            let set = SetStat {
                mode: Some(mode),
                ..SetStat::default()
            };
            self.session.setstat(&path, set).await?;
            let seen = self.session.lstat(&path).await?.mode;
            if seen != mode {
                return unless(false, &format!("mode {mode:04o} comes back as {seen:04o}"));
            }
        }
        Ok(None)
    }

    async fn symlink(&self) -> Found {
        let link = self.at(b"link");
        drop(self.session.remove(&link).await);
        self.session.symlink(&link, b"../no/link").await?;
        let kind = self.session.lstat(&link).await?.kind;
        let target = self.session.readlink(&link).await?;
        match kind == Kind::Symlink {
            true => unless(
                target == b"../no/link",
                "a link's target comes back as another",
            ),
            false => unless(false, "a link is followed when it is looked at"),
        }
    }

    async fn lsetstat(&self) -> Found {
        let link = self.at(b"link");
        let set = SetStat {
            mtime: Some(MTIME),
            ..SetStat::default()
        };
        self.session.lsetstat(&link, set).await?;
        let seen = self.session.lstat(&link).await?.mtime;
        unless(seen == MTIME, "a link's time is not set")
    }

    async fn copy_data(&self) -> Found {
        let from = self.make(b"a", b"0123456789").await?;
        let to = self.make(b"b", b"").await?;
        let source = self.session.open_read(&from).await?;
        let sink = self.session.open_write(&to, 0o600, false).await?;
        let copied = self.session.copy_data(&source, 2, 3, &sink, 0).await;
        self.session.close(source).await?;
        self.session.close(sink).await?;
        copied?;
        unless(
            self.content(&to).await? == b"234"[..],
            "it copies something else",
        )
    }

    async fn statvfs(&self) -> Found {
        let vfs = self.session.statvfs().await?;
        unless(vfs.total_bytes > 0, "it tells of no disk")
    }

    async fn byte_names(&self) -> Found {
        let path = self.make(b"\xff\xe9", b"").await?;
        let listed = self.session.list(&crate::remote::layout::staging()).await?;
        let name = path.names().last();
        let found = listed.iter().any(|entry| Some(&entry.name) == name);
        unless(found, "a name that is not UTF-8 comes back as another")
    }

    async fn case_sensitive(&self) -> Found {
        self.make(b"CASE", b"").await?;
        match self.session.lstat(&self.at(b"case")).await {
            Ok(_) => unless(false, "names that differ in case alone are one name"),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A burst has to be worked on in its order.
    async fn order(&self) -> Found {
        let from = self.make(b"a", b"content").await?;
        let to = self.at(b"b");
        drop(self.session.remove(&to).await);
        for _ in 0..8 {
            let (renamed, gone, there, back) = futures_util::join!(
                self.session.rename(&from, &to),
                self.session.lstat(&from),
                self.session.lstat(&to),
                self.session.rename(&to, &from),
            );
            renamed?;
            if gone.is_ok() || there.is_err() || back.is_err() {
                return unless(
                    false,
                    "requests of one burst are not worked on in their order",
                );
            }
        }
        Ok(None)
    }

    async fn many_handles(&self) -> Found {
        let path = self.make(b"a", b"content").await?;
        let opens = (0..HANDLES).map(|_| self.session.open_read(&path));
        let opened = futures_util::future::join_all(opens).await;
        let mut first_error = None;
        let mut count = 0;
        for handle in opened {
            match handle {
                Ok(handle) => {
                    count += 1;
                    self.session.close(handle).await?;
                }
                Err(error) => first_error = Some(error),
            }
        }
        match first_error {
            Some(error) if error.is_link_loss() => Err(error),
            Some(error) => unless(
                false,
                &format!("only {count} files open at once: {}", error.message),
            ),
            None => Ok(None),
        }
    }
}
