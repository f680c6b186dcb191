//! Content that is brought here, kept here, or let go because somebody said so.

use std::time::Duration;

use super::failure;
use super::lifecycle::Daemon;
use crate::control::Failure;
use crate::control::protocol::{Brought, Entries, Entry, LetGo, Pin, Pins, Progress};
use crate::control::server::Reporter;
use crate::engine::{self, Fetching};
use crate::tree::{Kind, NodeId};

/// How often a fetch tells how far it is.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

fn ids(nodes: &[u64]) -> Vec<NodeId> {
    nodes.iter().map(|node| NodeId(*node)).collect()
}

/// Pins, or no longer, and says so.
pub(super) fn pin(daemon: &Daemon, nodes: &[u64], pinned: bool) -> Result<String, Failure> {
    let set = daemon.engine.set_pins(&ids(nodes), pinned);
    set.map_err(failure::replica)?;
    let what = if pinned { "pinned" } else { "no longer pinned" };
    Ok(format!("{} {what}", nodes.len()))
}

/// Brings content here, and tells how far it is meanwhile.
pub(super) async fn prefetch(
    daemon: &Daemon,
    nodes: &[u64],
    progress: &Reporter,
) -> Result<Brought, Failure> {
    let (nodes, fetching) = (ids(nodes), Fetching::default());
    let mut fetch = std::pin::pin!(daemon.engine.prefetch(&nodes, &fetching));
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    let fetched = loop {
        tokio::select! {
            fetched = &mut fetch => break fetched.map_err(failure::replica)?,
            _ = ticks.tick() => {
                let (left_files, left_bytes) = fetching.left();
                let message = "fetching".into();
                progress.report(Progress { message, left_files, left_bytes });
            }
        }
    };
    Ok(Brought {
        files: fetched.files,
        bytes: fetched.bytes,
        failed: fetched.failed,
        why: fetched.why,
    })
}

/// Lets content go.
pub(super) async fn evict(daemon: &Daemon, nodes: &[u64]) -> Result<LetGo, Failure> {
    let evicted = daemon.engine.evict(&ids(nodes)).await;
    let evicted = evicted.map_err(|error| failure::pass(&error))?;
    Ok(LetGo {
        files: evicted.files,
        bytes: evicted.bytes,
        kept: evicted.kept,
    })
}

/// What is pinned.
pub(super) fn pins(daemon: &Daemon) -> Result<Pins, Failure> {
    let view = |pin: engine::Pin| Pin {
        path: pin.path.to_string(),
        files: pin.files,
        bytes: pin.bytes,
        missing_files: pin.missing_files,
        missing_bytes: pin.missing_bytes,
    };
    let pins = daemon.engine.pins().map_err(failure::replica)?;
    Ok(Pins {
        pins: pins.into_iter().map(view).collect(),
    })
}

/// What is in a directory.
pub(super) async fn entries(daemon: &Daemon, node: u64) -> Result<Entries, Failure> {
    let view = |entry: engine::Entry| Entry {
        name: entry.name.to_string(),
        kind: match entry.node.kind {
            Kind::File => "file",
            Kind::Dir => "dir",
            Kind::Symlink => "symlink",
            Kind::Fifo | Kind::Socket | Kind::Other => "special",
        }
        .to_owned(),
        bytes: entry.node.size,
        state: entry.residence.word().to_owned(),
        pinned: entry.is_pinned,
    };
    let entries = daemon.engine.entries(NodeId(node)).await;
    let entries = entries.map_err(|error| failure::pass(&error))?;
    Ok(Entries {
        entries: entries.into_iter().map(view).collect(),
    })
}
