//! What clients of one home tell each other under `.roamhome/feed/`, so that a person learns from which machine a
//! version came. A hint, asked for only where there is a conflict to tell about.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::home::{SMALL_FILE_MAX, read_small};
use super::shared::{Shared, lock};
use crate::remote::layout::{self, ClientId, FeedRecord, Published};
use crate::remote::{ErrorKind, Remote, RemoteError};
use crate::replica::{ReplicaError, View};
use crate::sync::{Action, Plan};
use crate::tree::{Kind, RelPath, Time};

/// Records of so many clients are read at once.
const READ_AT_ONCE: usize = 16;
/// And of so many at all, those that announced the most.
const CLIENTS_MAX: usize = 256;

/// Who published what lately, by path, bytes and mtime.
#[derive(Debug, Default)]
pub(super) struct Publishers(HashMap<Published, String>);

impl Publishers {
    /// The machine that published this version there, as far as it is known.
    pub(super) fn of(&self, path: &RelPath, size: u64, mtime: Time) -> Option<&str> {
        let version = Published {
            path: path.clone(),
            size,
            mtime: mtime.secs(),
        };
        self.0.get(&version).map(String::as_str)
    }
}

/// This client's next record: what the one at `last` told, and what `plan` is about to publish.
pub(super) async fn next_record(
    shared: &Arc<Shared>,
    remote: &Remote,
    last: &RelPath,
    plan: &Plan,
) -> Result<String, RemoteError> {
    let known = lock(&shared.feed).clone();
    let mut record = match known {
        Some(known) => known,
        // What was told before this start.
        None => {
            let bytes = read_small(remote, last).await?;
            bytes
                .and_then(|bytes| FeedRecord::parse(&bytes))
                .unwrap_or_default()
        }
    };
    record.host.clone_from(&shared.options.host);
    let planned = shared.replica.view(|view| planned(view, plan));
    record.add(planned.unwrap_or_else(|error| {
        tracing::warn!(%error, "the other machines are not told what is published");
        Vec::new()
    }));
    let text = record.format(SMALL_FILE_MAX as usize);
    *lock(&shared.feed) = Some(record);
    Ok(text)
}

fn planned(view: &View<'_>, plan: &Plan) -> Result<Vec<Published>, ReplicaError> {
    let mut published = Vec::new();
    for step in plan.steps() {
        let action = match &step.action {
            Action::Compare { otherwise, .. } => &otherwise.action,
            action => action,
        };
        let Action::Publish { node, .. } = action else {
            continue;
        };
        if published.len() == layout::PUBLISHED_MAX {
            break;
        }
        let (node, path) = (view.node(*node)?, view.base_path_of(&step.place)?);
        if let (Some(node), Some(path)) = (node, path)
            && node.kind == Kind::File
        {
            published.push(Published {
                path,
                size: node.size,
                mtime: node.server_mtime(),
            });
        }
    }
    Ok(published)
}

/// Reads what the other clients tell.
pub(super) async fn publishers(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<Publishers, RemoteError> {
    let entries = match remote.interactive().list(&layout::feed()).await {
        Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
        entries => entries?,
    };
    let mut latest: BTreeMap<ClientId, u64> = BTreeMap::new();
    for entry in entries {
        if let Some((client, number)) = layout::parse_feed_name(&entry.name)
            && client != shared.client
        {
            let known = latest.entry(client).or_default();
            *known = number.max(*known);
        }
    }
    let mut latest: Vec<_> = latest.into_iter().collect();
    latest.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    latest.truncate(CLIENTS_MAX);
    let reads = latest.into_iter().map(|(client, number)| async move {
        read_small(remote, &layout::feed_path(client, number)).await
    });
    let mut reads = stream::iter(reads).buffered(READ_AT_ONCE);
    let mut publishers = Publishers::default();
    while let Some(read) = reads.next().await {
        let bytes = match read {
            Err(error) if error.is_link_loss() => return Err(error),
            // Its owner has just written the next.
            read => read.ok().flatten(),
        };
        if let Some(record) = bytes.and_then(|bytes| FeedRecord::parse(&bytes)) {
            let FeedRecord { host, published } = record;
            let files = published.into_iter().map(|file| (file, host.clone()));
            publishers.0.extend(files);
        }
    }
    Ok(publishers)
}
