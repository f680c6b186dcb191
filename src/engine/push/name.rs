//! Giving one file or symlink that was uploaded its name.

use std::sync::Arc;

use super::super::scan::ScanError;
use super::super::shared::Shared;
use super::super::{intents, keep};
use super::replace::{Names, create, create_link, discard, replace};
use super::send::Sent;
use super::{Outgoing, Pushed};
use crate::remote::Remote;
use crate::replica::Intent;
use crate::tree::{Kind, RelPath, Version};

/// What is in staging, and where it is to go.
pub(super) struct Uploaded {
    pub(super) sent: Sent,
    pub(super) number: u64,
    pub(super) staged: RelPath,
    pub(super) target: RelPath,
}

impl Uploaded {
    pub(super) fn intent(&self) -> Intent {
        Intent {
            node: self.sent.node.id,
            data_seq: self.sent.node.data_seq,
            number: self.number,
            version: self.sent.version(),
            from: None,
        }
    }

    /// It stands in its place, where a look shows `seen`.
    pub(super) fn published(&self, seen: Version) -> Pushed {
        Pushed::Sent {
            node: self.sent.node.id,
            seq: self.sent.node.data_seq,
            version: Version {
                hash: self.sent.hash,
                ..seen
            },
        }
    }
}

/// Publishes what was uploaded. A symlink is made only now.
pub(super) async fn give_name(
    shared: &Arc<Shared>,
    remote: &Remote,
    out: &Outgoing<'_>,
    upload: &Uploaded,
) -> Result<Pushed, ScanError> {
    let session = remote.bulk().as_ref();
    let Uploaded {
        sent,
        number,
        staged,
        target,
    } = upload;
    if sent.node.kind == Kind::Symlink {
        let points_to = &sent.node.target;
        if out.replaces.is_none() {
            intents::declare(shared, out.place, upload.intent()).await?;
            // Made in place: a rename onto a dangling symlink would replace it.
            return Ok(create_link(session, points_to, target).await?);
        }
        session.symlink(staged, points_to).await?;
    }
    intents::declare(shared, out.place, upload.intent()).await?;
    let published = match out.replaces {
        None => create(session, staged, target).await,
        Some(expected) => {
            let second = keep::second_path(shared, out.node, *number);
            let names = Names {
                staged,
                second: &second,
                target,
            };
            replace(shared, remote, session, out, expected, names).await
        }
    };
    match published {
        Ok(Pushed::Done(Some(version))) => Ok(upload.published(version)),
        Ok(other) => Ok(other),
        Err(error) => {
            if !error.is_link_loss() {
                discard(session, staged).await?;
            }
            Err(error.into())
        }
    }
}
