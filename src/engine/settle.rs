//! The task that now and then makes content survive a power loss that need not do so at once.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::shared::Shared;

/// Runs until the engine stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let stopped = |stopping: &bool| *stopping;
    while timeout(shared.options.settle_interval, stopping.wait_for(stopped))
        .await
        .is_err()
    {
        let replica = Arc::clone(&shared.replica);
        // The disk may have much to write.
        match spawn_blocking(move || replica.settle()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "content cannot be synced"),
            Err(error) => tracing::error!(%error, "syncing content"),
        }
    }
}
