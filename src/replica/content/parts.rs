//! What is known of transfers that were cut off, so that they can go on: notes beside the files of `staging/`.
//!
//! A note says which bytes are known, by their number and hash: whoever goes on compares first. So one that is
//! missing, old or not what was written costs a transfer, never a content.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::disk::{open_rw, read_dir, remove_file};
use super::{ContentStore, Result, StagingFile};
use crate::replica::error::AtPath;
use crate::tree::{Hash, NodeId, RelPath, Time};

/// What was cut off longer ago than this does not go on, in nanoseconds: three days.
const MOST_AGE_NS: i64 = 3 * 86_400 * 1_000_000_000;
/// So many downloads that were cut off are kept, and so many bytes of them.
const MOST_PARTS: usize = 16;
const MOST_BYTES: u64 = 16 << 30;

/// How far an upload came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadNote {
    /// Names the file in the server's staging directory.
    pub number: u64,
    /// The `data_seq` of what is sent.
    pub seq: u64,
    /// So many bytes of it the server has on its disk.
    pub at: u64,
    /// The hash of those bytes.
    pub hash: Hash,
    /// When this was noted, local time.
    pub noted: Time,
}

/// How far a download came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadNote {
    /// Of what.
    pub path: RelPath,
    /// Its size on the server.
    pub size: u64,
    /// Its mtime there, in seconds.
    pub mtime: i64,
    /// Its mode there.
    pub mode: u32,
    /// So many bytes of it are here.
    pub at: u64,
    /// The hash of those bytes.
    pub hash: Hash,
    /// When this was noted, local time.
    pub noted: Time,
}

impl ContentStore {
    fn upload_path(&self, node: NodeId) -> PathBuf {
        self.staging.join(format!("up-{node}"))
    }

    fn download_path(&self, key: &str) -> PathBuf {
        self.staging.join(format!("down-{key}"))
    }

    fn download_note_path(&self, key: &str) -> PathBuf {
        self.staging.join(format!("down-{key}.note"))
    }

    /// How far the upload of a node came that was cut off.
    pub fn upload_note(&self, node: NodeId) -> Result<Option<UploadNote>> {
        read_note(&self.upload_path(node))
    }

    /// Notes it, so that a power loss does not forget.
    pub fn note_upload(&self, node: NodeId, note: &UploadNote) -> Result<()> {
        self.write_note(&self.upload_path(node), note, true)
    }

    /// There is nothing to go on with.
    pub fn forget_upload(&self, node: NodeId) -> Result<()> {
        remove_file(&self.upload_path(node))
    }

    /// What is here of a download that was cut off.
    pub fn download_so_far(&self, key: &str) -> Result<Option<(StagingFile, DownloadNote)>> {
        let Some(note) = read_note::<DownloadNote>(&self.download_note_path(key))? else {
            return Ok(None);
        };
        let path = self.download_path(key);
        match open_rw(&path, false) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            opened => Ok(Some((StagingFile::new(opened.at(&path)?, path), note))),
        }
    }

    /// An empty file for a download that may be cut off.
    pub fn begin_download(&self, key: &str) -> Result<StagingFile> {
        self.forget_download(key)?;
        let path = self.download_path(key);
        remove_file(&path)?;
        let file = open_rw(&path, true).at(&path)?;
        Ok(StagingFile::new(file, path))
    }

    /// Notes how far a download came. A power loss may forget it, or the bytes that it tells of.
    pub fn note_download(&self, key: &str, note: &DownloadNote) -> Result<()> {
        self.write_note(&self.download_note_path(key), note, false)
    }

    /// There is nothing to go on with.
    pub fn forget_download(&self, key: &str) -> Result<()> {
        remove_file(&self.download_note_path(key))
    }

    fn write_note(&self, path: &Path, note: &impl Serialize, durable: bool) -> Result<()> {
        let Ok(body) = postcard::to_stdvec(note) else {
            return Ok(());
        };
        let mut staged = self.new_staging()?;
        let sum = *blake3::hash(&body).as_bytes();
        staged.file.write_all(&sum).at(path)?;
        staged.file.write_all(&body).at(path)?;
        if durable {
            staged.file.sync_data().at(path)?;
        }
        fs::rename(&staged.path, path).at(path)
    }

    /// Removes what is in `staging/`, but for what can go on.
    pub(super) fn clear_staging(&self, now: Time) -> Result<()> {
        for path in read_dir(&self.staging)? {
            if !self.goes_on(&path, now) {
                remove_file(&path)?;
            }
        }
        self.bound_downloads(&|_| Some(()))
    }

    /// Removes what was cut off too long ago, or is too much. By `claim` the caller keeps others away from a transfer while
    /// the result lives; there is none if somebody is at work on it, and then it stays.
    pub fn expire_transfers<C>(&self, now: Time, claim: &dyn Fn(&str) -> Option<C>) -> Result<()> {
        for path in read_dir(&self.staging)? {
            let name = name(&path);
            let transfer = name.strip_suffix(".note").unwrap_or(&name);
            if !transfer.starts_with("up-") && !transfer.starts_with("down-") {
                continue;
            }
            if let Some(_claimed) = claim(transfer)
                && !self.goes_on(&path, now)
            {
                remove_file(&path)?;
            }
        }
        self.bound_downloads(claim)
    }

    fn goes_on(&self, path: &Path, now: Time) -> bool {
        let is_young = |noted: Time| {
            now.0.saturating_sub(noted.0).unsigned_abs() <= MOST_AGE_NS.unsigned_abs()
        };
        let name = name(path);
        if name.starts_with("up-") {
            let note = read_note::<UploadNote>(path).ok().flatten();
            return note.is_some_and(|note| is_young(note.noted));
        }
        let Some(key) = name.strip_prefix("down-") else {
            return false;
        };
        let key = key.strip_suffix(".note").unwrap_or(key);
        let note = read_note::<DownloadNote>(&self.download_note_path(key));
        let note = note.ok().flatten();
        note.is_some_and(|note| is_young(note.noted)) && self.download_path(key).exists()
    }

    /// The latest stay.
    fn bound_downloads<C>(&self, claim: &dyn Fn(&str) -> Option<C>) -> Result<()> {
        let mut parts = Vec::new();
        for path in read_dir(&self.staging)? {
            let name = name(&path);
            let key = name.strip_prefix("down-");
            let Some(key) = key.and_then(|key| key.strip_suffix(".note")) else {
                continue;
            };
            if let Some(note) = read_note::<DownloadNote>(&path)? {
                parts.push((note.noted, note.at, key.to_owned()));
            }
        }
        parts.sort_by(|a, b| b.cmp(a));
        let mut bytes = 0_u64;
        for (n, (_, at, key)) in parts.iter().enumerate() {
            bytes = bytes.saturating_add(*at);
            if (n >= MOST_PARTS || bytes > MOST_BYTES)
                && let Some(_claimed) = claim(&format!("down-{key}"))
            {
                self.forget_download(key)?;
                remove_file(&self.download_path(key))?;
            }
        }
        Ok(())
    }
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// `None` if there is none, or it is not what was written.
fn read_note<N: DeserializeOwned>(path: &Path) -> Result<Option<N>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.at(path)?,
    };
    let Some((sum, body)) = bytes.split_at_checked(blake3::OUT_LEN) else {
        return Ok(None);
    };
    let is_whole = blake3::hash(body).as_bytes() == sum;
    Ok(is_whole.then(|| postcard::from_bytes(body).ok()).flatten())
}
