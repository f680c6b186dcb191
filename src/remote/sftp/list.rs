//! Listings: pipelined READDIRs, and the checks on what they bring.

use futures_util::stream::{FuturesOrdered, StreamExt};

use super::SftpSession;
use super::convert::{names, stat};
use crate::remote::wire::{NameEntry, Reply, Request, Status};
use crate::remote::{DirEntry, FileHandle, RemoteError};
use crate::tree::{Name, NameError};

/// READDIRs outstanding at first: one for the entries and one for the end of a small directory.
const FIRST_READDIRS: usize = 2;
/// READDIRs outstanding in a large directory.
const MAX_READDIRS: usize = 16;

impl SftpSession {
    async fn readdir(&self, handle: &FileHandle) -> Result<Option<Vec<NameEntry>>, RemoteError> {
        let request = Request::Readdir(handle.id.clone());
        let pick = |reply| match reply {
            Reply::Status(Status::Eof, _) => Ok(None),
            other => names(other).map(Some),
        };
        self.ask("readdir", &handle.path, request, pick).await
    }

    pub(super) async fn read_entries(
        &self,
        handle: &FileHandle,
    ) -> Result<Vec<DirEntry>, RemoteError> {
        let mut entries = Vec::new();
        let mut seen = 0;
        let mut outstanding = FuturesOrdered::new();
        let mut depth = FIRST_READDIRS;
        loop {
            while outstanding.len() < depth {
                outstanding.push_back(self.readdir(handle));
            }
            let Some(Some(batch)) = outstanding.next().await.transpose()? else {
                return Ok(entries);
            };
            depth = (depth * 2).min(MAX_READDIRS);
            // An empty batch counts as one, so that a listing of them ends as well.
            seen += batch.len().max(1);
            if seen > self.entries_max {
                return Err(self.nonsense("readdir", &handle.path, "a listing without end"));
            }
            for entry in batch {
                match Name::new(&entry.name) {
                    Ok(name) => entries.push(DirEntry {
                        name,
                        links: entry.links,
                        stat: stat(&entry.attrs),
                    }),
                    Err(NameError::Dots) => {}
                    Err(error) => {
                        let what = format!("an impossible name in a listing: {error}");
                        return Err(self.nonsense("readdir", &handle.path, what));
                    }
                }
            }
        }
    }
}
