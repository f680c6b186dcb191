//! Where unsent files stood, told beside their content, so that `rescue` needs no index.
//!
//! An extended attribute of the content file, or, where the disk has none, lines of `paths.log`: number,
//! space, path, NUL; the last line of a number holds.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::error::{AtPath, ReplicaError};
use crate::tree::{NodeId, RelPath};

const ATTRIBUTE: &str = "user.roamhome.path";
/// The most that an attribute holds.
const LONGEST: usize = 64 * 1024;

/// The log is rewritten at a start when it is longer.
const LONG_LOG: u64 = 1 << 20;

/// Writes and finds path hints.
#[derive(Debug)]
pub(super) struct Hints {
    /// The log's path.
    path: PathBuf,
}

impl Hints {
    /// Hints for the files in the directory `unsent`.
    pub(super) fn new(unsent: &Path) -> Self {
        Self {
            path: unsent.join("paths.log"),
        }
    }

    /// Notes that `file`, the content of `node`, stands at `path`.
    pub(super) fn set(
        &self,
        file: &File,
        node: NodeId,
        path: &RelPath,
    ) -> Result<(), ReplicaError> {
        let bytes = path.to_bytes();
        if rustix::fs::fsetxattr(file, ATTRIBUTE, &bytes, XattrFlags::empty()).is_ok() {
            return Ok(());
        }
        // Whatever the reason, too long a path for this disk or no attributes at all: the log takes it.
        self.log(node, &bytes)
    }

    /// Adds a line to the log.
    pub(super) fn log(&self, node: NodeId, path: &[u8]) -> Result<(), ReplicaError> {
        let line = [node.to_string().as_bytes(), b" ", path, b"\0"].concat();
        let mut options = OpenOptions::new();
        let log = options
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path);
        log.and_then(|mut log| log.write_all(&line)).at(&self.path)
    }

    /// Makes a log that has grown short again: only the last lines of nodes that `has_file` stay.
    pub(super) fn compact(&self, has_file: impl Fn(NodeId) -> bool) -> Result<(), ReplicaError> {
        if !fs::metadata(&self.path).is_ok_and(|log| log.len() > LONG_LOG) {
            return Ok(());
        }
        let shorter = Self {
            path: self.path.with_extension("new"),
        };
        File::create(&shorter.path).at(&shorter.path)?;
        for (node, path) in self.logged()? {
            if has_file(node) {
                shorter.log(node, &path.to_bytes())?;
            }
        }
        fs::rename(&shorter.path, &self.path).at(&self.path)
    }

    /// The hint in the attribute of `file`.
    pub(super) fn of_file(file: &File) -> Option<RelPath> {
        let mut bytes = vec![0; LONGEST];
        let len = match rustix::fs::fgetxattr(file, ATTRIBUTE, &mut bytes[..]) {
            Ok(len) => len,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return None,
            Err(error) => {
                tracing::warn!(%error, "cannot read a path hint");
                return None;
            }
        };
        RelPath::parse(&bytes[..len])
            .ok()
            .filter(|path| !path.is_root())
    }

    /// All hints in the log.
    pub(super) fn logged(&self) -> Result<HashMap<NodeId, RelPath>, ReplicaError> {
        let bytes = match fs::read(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.at(&self.path)?,
        };
        // What follows the last NUL is torn.
        let lines = bytes
            .split_inclusive(|b| *b == 0)
            .filter_map(|line| line.strip_suffix(&[0]));
        Ok(lines.filter_map(parse_line).collect())
    }
}

pub(super) fn parse_line(line: &[u8]) -> Option<(NodeId, RelPath)> {
    let space = line.iter().position(|b| *b == b' ')?;
    let node = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    let path = RelPath::parse(&line[space + 1..]).ok()?;
    (!path.is_root()).then_some((NodeId(node), path))
}
