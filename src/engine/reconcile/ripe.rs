//! When what was changed here is sent: once whoever changes it has come to rest, or not later than said.

use std::time::Duration;

use tokio::time::Instant;

use super::super::shared::Shared;
use crate::replica::{ReplicaError, View};
use crate::tree::{NodeId, Place, Time};

/// Write-back leaves the machine to who is at work, for so many quiet periods at most.
const LULL_LAST: u32 = 5;

/// When to look again whether whoever changes many files has come to rest; `None` if it is time to write back.
pub(super) fn lull(shared: &Shared, dirty_since: Instant) -> Option<Instant> {
    let quiet = shared.options.quiet_period;
    let at = (shared.last_change() + quiet).min(dirty_since + quiet * LULL_LAST);
    (at > Instant::now()).then_some(at)
}

/// Whether a dirty place was left alone long enough to be sent, or is dirty for too long to wait.
pub(super) fn is_ripe(
    shared: &Shared,
    view: &View<'_>,
    place: &Place,
    since: Time,
    now: Time,
) -> Result<bool, ReplicaError> {
    let elapsed = |from: Time| Duration::from_nanos(now.0.saturating_sub(from.0).max(0) as u64);
    // A clock that jumped back makes everything look young; it must not keep anything here.
    if since > now {
        return Ok(true);
    }
    let writes = |id: NodeId| shared.replica.opens().writers(id) > 0;
    // A journal comes and goes with each transaction: whoever works on its database goes on.
    let main = match place.database() {
        Some(main) => view.child(main.parent, &main.name)?,
        None => None,
    };
    let main_writes = main.is_some_and(writes);
    let Some(id) = view.child(place.parent, &place.name)? else {
        return Ok(elapsed(since)
            >= match main_writes {
                true => shared.options.max_dirty_age,
                false => shared.options.quiet_period,
            });
    };
    let last = view
        .node(id)?
        .map_or(since, |node| node.ctime.max(since).min(now));
    let writing = main_writes || writes(id);
    Ok(elapsed(since) >= shared.options.max_dirty_age
        || (!writing && elapsed(last) >= shared.options.quiet_period))
}
