//! Records of what large contents consist of, one file for each, named by the hash of the content. They are nobody's
//! only copy of anything: one that is missing, or not what was written, costs a transfer.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::disk::{read_dir, remove_file};
use super::{ContentStore, Result};
use crate::replica::chunks::Chunks;
use crate::replica::error::AtPath;
use crate::tree::Hash;

impl ContentStore {
    fn chunks_path(&self, hash: Hash) -> PathBuf {
        let name = blake3::Hash::from_bytes(hash.0).to_hex();
        self.chunks.join(name.as_str())
    }

    /// What is known of the content with this hash.
    pub fn chunks_of(&self, hash: Hash) -> Result<Option<Chunks>> {
        let path = self.chunks_path(hash);
        let found = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            read => Chunks::decode(&read.at(&path)?),
        };
        Ok(found.filter(|chunks| chunks.hash == hash))
    }

    /// Remembers what a content consists of, beside what is known of it already.
    pub fn save_chunks(&self, mut chunks: Chunks) -> Result<()> {
        if let Some(known) = self.chunks_of(chunks.hash)? {
            chunks.note_all(&known);
        }
        let Some(bytes) = chunks.encode() else {
            return Ok(());
        };
        let staged = self.new_staging()?;
        fs::write(&staged.path, bytes).at(&staged.path)?;
        let path = self.chunks_path(chunks.hash);
        fs::rename(&staged.path, &path).at(&path)
    }

    /// Forgets what is known of a content.
    pub fn forget_chunks(&self, hash: Hash) -> Result<()> {
        remove_file(&self.chunks_path(hash))
    }

    /// Forgets all contents but these.
    pub fn retain_chunks(&self, kept: &BTreeSet<Hash>) -> Result<()> {
        let kept: BTreeSet<PathBuf> = kept.iter().map(|hash| self.chunks_path(*hash)).collect();
        for path in read_dir(&self.chunks)? {
            if !kept.contains(&path) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}
