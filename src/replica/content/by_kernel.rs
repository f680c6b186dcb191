//! Content that the kernel reads and writes by itself: one descriptor of it is open here, and no other.

use std::fs::File;
use std::io::ErrorKind;

use super::disk::{open_rw, rename};
use super::{ContentStore, Result, make_fans, path_in};
use crate::replica::error::AtPath;
use crate::replica::lease::is_used_by_others;
use crate::tree::{NodeId, RelPath};

impl ContentStore {
    /// The content of `node` for reading and writing, where it is.
    pub fn open_in_place(&self, node: NodeId) -> Result<File> {
        let (unsent, clean) = (path_in(&self.unsent, node), path_in(&self.clean, node));
        let _guard = self.lock();
        match open_rw(&unsent, false) {
            Err(e) if e.kind() == ErrorKind::NotFound => open_rw(&clean, false).at(&clean),
            opened => opened.at(&unsent),
        }
    }

    /// Lets `file`, the content of `node`, be in `unsent/` from now on.
    pub fn keep_unsent(&self, node: NodeId, file: &File, hint: &RelPath) -> Result<()> {
        let _guard = self.lock();
        let (unsent, clean) = (path_in(&self.unsent, node), path_in(&self.clean, node));
        rename(&clean, &unsent, false, make_fans)?;
        self.hints.set(file, node, hint)
    }

    /// Whether somebody outside of this process has the content of `node` open, or mapped. Not where that cannot be
    /// told: there the kernel never writes to content by itself.
    pub(in crate::replica) fn is_used(&self, node: NodeId) -> Result<bool> {
        let file = self.open_read(node, true)?;
        Ok(is_used_by_others(&file).unwrap_or(false))
    }
}
