//! The keys of machines in `.ssh/authorized_keys` of an account on the server.
//!
//! The file is its user's, and others write to it as well: it is replaced as a whole, never shortened in place, and what
//! somebody added in the same moment is put back. One machine at a time changes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::{ErrorKind, FileHandle, Remote, RemoteError, Session, SetStat};
use crate::tree::{Kind, RelPath};

/// What a key of a machine is good for: SFTP, and nothing else (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
const RESTRICTION: &str = "restrict,command=\"internal-sftp\"";
/// How the comments of such lines begin.
const MARK: &str = "roamhome:";
/// Longer than any such file.
const MAX_BYTES: u64 = 1 << 20;
/// Between two looks at a file that another machine is changing, and how many.
const BUSY_WAIT: Duration = Duration::from_millis(500);
const BUSY_LOOKS: usize = 20;
/// How often it is begun anew since somebody else changed the file.
const ATTEMPTS: usize = 5;

/// A key by which a machine logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineKey {
    /// The machine's name.
    pub machine: String,
    /// Tells machines of one name apart.
    pub id: String,
    /// The day it was made, such as `2026-11-27`.
    pub since: String,
    /// Algorithm and key, as in a file of public keys.
    pub key: String,
}

impl MachineKey {
    /// The comment of a new key. What does not fit into a word is left out of the machine's name.
    pub fn comment(machine: &str, id: &str, since: &str) -> String {
        let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let machine: String = machine.chars().filter(fits).collect();
        format!("{MARK}{machine}:{id}:{since}")
    }

    /// Reads a line of `authorized_keys` or of a file of public keys; none if it is not a machine's.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        // Options come first and may hold spaces.
        let mut words = line.rsplit(char::is_whitespace);
        let mut comment = words.next()?.strip_prefix(MARK)?.split(':');
        let (machine, id, since) = (comment.next()?, comment.next()?, comment.next()?);
        let (key, algorithm) = (words.next()?, words.next()?);
        Some(Self {
            machine: machine.to_owned(),
            id: id.to_owned(),
            since: since.to_owned(),
            key: format!("{algorithm} {key}"),
        })
    }

    /// Its line in `authorized_keys`.
    pub fn line(&self) -> String {
        let comment = Self::comment(&self.machine, &self.id, &self.since);
        format!("{RESTRICTION} {} {comment}", self.key)
    }
}

/// The lines of an `authorized_keys` file that are for people: those of machines let nobody in but roamhome, to the server.
pub fn without_machines(text: &[u8]) -> Vec<u8> {
    keep_lines(text, |key| key.is_none())
}

/// The lines for which `keep` holds; each with what it says of a machine.
fn keep_lines(text: &[u8], keep: impl Fn(Option<&MachineKey>) -> bool) -> Vec<u8> {
    let lines = text.split_inclusive(|b| *b == b'\n');
    let kept = lines.filter(|line| keep(parse_bytes(line).as_ref()));
    kept.collect::<Vec<_>>().concat()
}

fn parse_bytes(line: &[u8]) -> Option<MachineKey> {
    MachineKey::parse(str::from_utf8(line).ok()?)
}

fn with_line(text: &[u8], line: &[u8]) -> Vec<u8> {
    let mut text = text.to_owned();
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(line);
    text.push(b'\n');
    text
}

/// The lines of `now` that `before` lacks, put behind `text`.
fn with_news(text: Vec<u8>, before: &[u8], now: &[u8]) -> Vec<u8> {
    let lines = |text: &'_ [u8]| -> Vec<Vec<u8>> {
        let lines = text.split(|b| *b == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    };
    let known = lines(before);
    let news = lines(now).into_iter().filter(|line| !known.contains(line));
    news.fold(text, |text, line| with_line(&text, &line))
}

/// The file, over a connection whose root is where the server lets the account in.
pub struct AuthorizedKeys {
    session: Arc<dyn Session>,
    /// Its sessions end with it.
    _remote: Remote,
    file: RelPath,
    /// The next version, and the lock: who could make it may change the file.
    next: RelPath,
    old: RelPath,
}

type Result<T> = std::result::Result<T, RemoteError>;

impl AuthorizedKeys {
    /// The file of the account that `remote` is logged in as.
    pub fn new(remote: Remote) -> Self {
        Self {
            session: Arc::clone(remote.interactive()),
            _remote: remote,
            file: path(b".ssh/authorized_keys"),
            next: path(b".ssh/authorized_keys.roamhome"),
            old: path(b".ssh/authorized_keys.roamhome-old"),
        }
    }

    /// The machines that may log in.
    pub async fn machines(&self) -> Result<Vec<MachineKey>> {
        let text = self.read(&self.file).await?.unwrap_or_default();
        let lines = text.split(|b| *b == b'\n');
        Ok(lines.filter_map(parse_bytes).collect())
    }

    /// Lets the machine in by this key.
    pub async fn add(&self, key: &MachineKey) -> Result<()> {
        self.change(|text| {
            let is_there = |line: &[u8]| parse_bytes(line).is_some_and(|line| line.key == key.key);
            match text.split(|b| *b == b'\n').any(is_there) {
                true => text.to_owned(),
                false => with_line(text, key.line().as_bytes()),
            }
        })
        .await
    }

    /// Lets machines in no more, by the keys for which `which` holds.
    pub async fn remove(&self, which: impl Fn(&MachineKey) -> bool) -> Result<()> {
        self.change(|text| keep_lines(text, |key| !key.is_some_and(&which)))
            .await
    }

    /// Replaces the file by what `edit` makes of it, if that is something else.
    async fn change(&self, edit: impl Fn(&[u8]) -> Vec<u8>) -> Result<()> {
        self.make_directory().await?;
        self.take_turn().await?;
        let changed = self.change_in_turn(edit).await;
        if changed.is_err() {
            // It may be gone, and the link, too.
            drop(self.session.remove(&self.next).await);
        }
        changed
    }

    async fn make_directory(&self) -> Result<()> {
        let dir = path(b".ssh");
        match self.session.lstat(&dir).await {
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.session.mkdir(&dir, 0o700).await
            }
            found => found.map(drop),
        }
    }

    /// Makes the next version's file, which only one machine at a time can. One that is not gone after a while was left by
    /// a machine that lost its power.
    async fn take_turn(&self) -> Result<()> {
        for look in 0..=BUSY_LOOKS {
            match self.session.open_write(&self.next, 0o600, true).await {
                Ok(handle) => return self.session.close(handle).await,
                Err(error) if error.is_link_loss() => return Err(error),
                Err(error) => match self.session.lstat(&self.next).await {
                    Ok(_) if look < BUSY_LOOKS => sleep(BUSY_WAIT).await,
                    Ok(_) => self.session.remove(&self.next).await?,
                    Err(_) => return Err(error),
                },
            }
        }
        let handle = self.session.open_write(&self.next, 0o600, true).await?;
        self.session.close(handle).await
    }

    async fn change_in_turn(&self, edit: impl Fn(&[u8]) -> Vec<u8>) -> Result<()> {
        self.finish_what_was_begun().await?;
        let mut news: Option<(Vec<u8>, Vec<u8>)> = None;
        for _ in 0..ATTEMPTS {
            let before = self.read(&self.file).await?;
            let text = before.clone().unwrap_or_default();
            let mut edited = edit(&text);
            if let Some((known, now)) = &news {
                edited = with_news(edited, known, now);
            }
            if edited == text {
                return self.session.remove(&self.next).await;
            }
            self.write_next(&edited, before.is_some()).await?;
            let Some(before) = before else {
                // Fails if somebody made one meanwhile.
                match self.session.rename(&self.next, &self.file).await {
                    Ok(()) => return Ok(()),
                    Err(error) if error.is_link_loss() => return Err(error),
                    Err(_) => continue,
                }
            };
            self.replace().await?;
            let now = self.read(&self.old).await?.unwrap_or_default();
            self.session.remove(&self.old).await?;
            if now == before {
                return Ok(());
            }
            // Somebody added lines between our reading and our renaming.
            news = Some((before, now));
            self.take_turn().await?;
        }
        Err(self.refusal("others change it all the time"))
    }

    /// A machine that lost its link may have moved the file aside, and not come to its new version.
    async fn finish_what_was_begun(&self) -> Result<()> {
        match self.session.lstat(&self.old).await {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            found => found.map(drop)?,
        }
        match self.session.lstat(&self.file).await {
            Err(error) if error.kind == ErrorKind::NotFound => {
                self.session.rename(&self.old, &self.file).await
            }
            found => {
                found?;
                self.session.remove(&self.old).await
            }
        }
    }

    /// Puts the next version into place; what was there is in `old` for a moment more.
    async fn replace(&self) -> Result<()> {
        let features = self.session.features();
        if features.hardlink && features.posix_rename {
            // In one burst, since what somebody puts in its place in between would be lost.
            let (linked, renamed) = tokio::join!(
                self.session.hardlink(&self.file, &self.old),
                self.session.posix_rename(&self.next, &self.file)
            );
            return linked.and(renamed);
        }
        self.session.rename(&self.file, &self.old).await?;
        let moved = self.session.rename(&self.next, &self.file).await;
        if moved.is_err() {
            self.session.rename(&self.old, &self.file).await?;
        }
        moved
    }

    /// Writes the next version, which nobody but us may change then.
    async fn write_next(&self, text: &[u8], replaces: bool) -> Result<()> {
        let mode = match replaces {
            true => self.session.lstat(&self.file).await?.mode & 0o777,
            false => 0o600,
        };
        let handle = self.session.open_write(&self.next, mode, false).await?;
        let features = self.session.features();
        let written = async {
            let set = SetStat {
                size: Some(0),
                mode: Some(mode),
                mtime: None,
            };
            self.session.fsetstat(&handle, set).await?;
            let mut offset = 0;
            for part in text.chunks(features.max_write.max(1) as usize) {
                let data = Bytes::copy_from_slice(part);
                self.session.write(&handle, offset, data).await?;
                offset += part.len() as u64;
            }
            match features.fsync {
                true => self.session.fsync(&handle).await,
                false => Ok(()),
            }
        };
        let written = written.await;
        let closed = self.session.close(handle).await;
        written.and(closed)
    }

    /// All of a file; none if it is not there.
    async fn read(&self, path: &RelPath) -> Result<Option<Vec<u8>>> {
        let found = match self.session.lstat(path).await {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        if found.kind != Kind::File {
            return Err(self.refusal("it is no file of its own, and its user has to change it"));
        }
        let handle = self.session.open_read(path).await?;
        let text = self.read_all(&handle).await;
        self.session.abandon(handle);
        text.map(Some)
    }

    async fn read_all(&self, handle: &FileHandle) -> Result<Vec<u8>> {
        let len = self.session.features().max_read;
        let mut text = Vec::new();
        loop {
            let part = self.session.read(handle, text.len() as u64, len).await?;
            if part.is_empty() {
                return Ok(text);
            }
            text.extend_from_slice(&part);
            if text.len() as u64 > MAX_BYTES {
                return Err(self.refusal("it is too long"));
            }
        }
    }

    fn refusal(&self, why: &str) -> RemoteError {
        RemoteError::new(ErrorKind::Failure, "change", &self.file, why)
    }
}

fn path(bytes: &[u8]) -> RelPath {
    // Of names that are all fit.
    RelPath::parse(bytes).unwrap_or_else(|_| RelPath::root())
}

#[cfg(test)]
mod tests;
