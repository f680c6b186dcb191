//! How much room there is on this disk, for people and for programs that write.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::super::shared::{Shared, blocking, lock};
use super::super::{Done, FetchError, fetch};
use super::{LOOK_EVERY, free, make_room};
use crate::replica::{Counts, ReplicaError, RoomLimits};
use crate::tree::NodeId;

/// What could go is looked through so often, if somebody asks; what changes in between is counted along.
const SURVEY_EVERY: Duration = Duration::from_secs(3600);

/// The room on this machine's disk, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomView {
    /// What content may take.
    pub limits: RoomLimits,
    /// What is free.
    pub free: u64,
    /// All there is.
    pub disk: u64,
}

/// What of the content could go, as of a look at all of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Survey {
    at: Instant,
    cached: u64,
    counts: Counts,
}

/// The room as it is.
pub(in crate::engine) fn view(shared: &Shared) -> Result<RoomView, ReplicaError> {
    let (free, disk) = free(shared)?;
    let mut limits = shared.options.room;
    limits.min_free = limits.keeps_free(disk);
    Ok(RoomView { limits, free, disk })
}

/// About how many bytes of content would make room for what is written: the server has it, and can be asked.
pub(in crate::engine) fn evictable(shared: &Shared) -> u64 {
    if !may_go(shared) {
        return 0;
    }
    let survey = *lock(&shared.survey);
    if survey.is_none_or(|survey| survey.at.elapsed() > SURVEY_EVERY) {
        shared.survey_wanted.notify_one();
    }
    let (Some(then), Ok(now)) = (survey, shared.replica.counts()) else {
        return 0;
    };
    let sent = |counts: &Counts| counts.content_bytes.saturating_sub(counts.unsent_bytes);
    let pinned = shared.pinned_bytes.load(Ordering::Relaxed);
    (then.cached.saturating_add(sent(&now)))
        .saturating_sub(sent(&then.counts).saturating_add(pinned))
}

/// Whether content may go for what is written: something is to stay free, the server is there to be asked, and it was not in
/// vain a moment ago.
fn may_go(shared: &Shared) -> bool {
    let in_vain = *lock(&shared.no_room_at);
    shared.options.room.min_free > 0
        && in_vain.is_none_or(|at| at.elapsed() > LOOK_EVERY)
        && fetch::the_home(shared).is_some()
}

/// Whether content should go before `bytes` are written: half of what is to stay free is gone then. The other half is what
/// the index needs to let it go.
pub(in crate::engine) fn is_short(shared: &Shared, bytes: u64) -> bool {
    let limits = &shared.options.room;
    let short = |(free, disk): (u64, u64)| free < bytes.saturating_add(limits.keeps_free(disk) / 2);
    may_go(shared) && free(shared).is_ok_and(short)
}

/// Looks through all content.
pub(super) fn survey(shared: &Shared) -> Result<(), ReplicaError> {
    let counts = shared.replica.counts()?;
    let cached = blocking(|| shared.replica.cached())?;
    *lock(&shared.survey) = Some(Survey {
        at: Instant::now(),
        cached: cached.iter().map(|cached| cached.bytes).sum(),
        counts,
    });
    Ok(())
}

/// A program writes, and there is too little room. Nobody waits for a link that may come: then there is as much as there is.
pub(in crate::engine) fn for_mount(shared: &Arc<Shared>, bytes: u64, done: Done) {
    if !may_go(shared) {
        return done(Err(FetchError::NoSpace));
    }
    let work = async move |shared: Arc<Shared>| {
        let survey_at = (*lock(&shared.survey)).map(|survey| survey.at);
        if survey_at.is_none_or(|at| at.elapsed() > LOOK_EVERY) {
            survey(&shared)?;
        }
        let (free, _) = free(&shared)?;
        if free.saturating_add(evictable(&shared)) < bytes {
            let path = shared.replica.state_dir().to_owned();
            return Err(ReplicaError::NoSpace { path }.into());
        }
        make_room(&shared, bytes).await
    };
    fetch::for_mount(
        shared,
        |shared| &shared.making_room,
        NodeId::ROOT,
        done,
        work,
    );
}
