//! Files that nobody waited for when their fetch began: who comes to wait for one joins it, for a while. To fetch it once more
//! would take as long, and from the line what the others need; but what stands in line behind much else is better asked for
//! anew, by who goes first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::super::scan::ScanError;
use super::super::shared::{Shared, lock};
use super::hydrate;
use crate::tree::NodeId;

/// So long it is waited for: a few times what a small file takes on a long line.
const PATIENCE: Duration = Duration::from_millis(100);

/// What is under way.
#[derive(Debug, Default)]
pub(in crate::engine) struct Coming(Mutex<HashMap<NodeId, watch::Receiver<()>>>);

/// One of them, until it is dropped.
struct Begun<'a> {
    coming: &'a Coming,
    id: NodeId,
    /// Who waits hears that it is gone.
    _end: watch::Sender<()>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        lock(&self.coming.0).remove(&self.id);
    }
}

/// Brings all of a file's content here, for nobody who waits.
pub(in crate::engine) async fn bring(shared: &Arc<Shared>, id: NodeId) -> Result<(), ScanError> {
    let (end, ended) = watch::channel(());
    let coming = &shared.coming;
    lock(&coming.0).insert(id, ended);
    let _begun = Begun {
        coming,
        id,
        _end: end,
    };
    hydrate(shared, id, false).await
}

/// Waits for a file that is under way, if it is, and not for long.
pub(super) async fn join(shared: &Shared, id: NodeId) {
    let coming = lock(&shared.coming.0).get(&id).cloned();
    if let Some(mut coming) = coming {
        // An error says that it ended.
        let ended = tokio::time::timeout(PATIENCE, coming.changed()).await;
        tracing::trace!(?id, joined = ended.is_ok(), "it was under way");
    }
}
