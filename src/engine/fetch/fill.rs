//! All of a file that is read by block: for a reader who reads on and on, and for whoever needs it whole. What is here
//! already is not fetched again, and who reads meanwhile is served as it comes.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::FetchError;
use super::super::cache;
use super::super::scan::{self, ScanError};
use super::super::shared::{Shared, contained};
use super::super::status::Progress;
use super::blocks::{Brought, Part, is_as_it_was, is_by_block};
use super::download::{Fetched, READ_CHUNK};
use super::feed::{Feed, Flight};
use super::replaced::take_over;
use super::{connection, install, source, waited_for};
use crate::remote::{BATCH, Pieces, Ranges, Remote, read_ranges};
use crate::replica::{Digest, Ended, Partial, ReplicaError, average_for};
use crate::tree::{NodeId, Place, Version};

/// What is here already is hashed along with what comes if it is no more than this, in bytes; else at the end.
const CATCH_UP: u64 = 16 << 20;

/// For whom all of it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Somebody who reads it, as long as it is open.
    Reader,
    /// Somebody who waits until it is here.
    Waiter,
    /// Nobody who waits.
    Later,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// It is whole, or gone.
    Done,
    /// It cannot be had in this way.
    Unfit,
    /// Others go first, or nobody reads any more.
    Stopped,
}

/// A reader reads on and on: all comes as long as somebody has it open, what is from `from` on first.
pub(super) fn let_come(shared: &Arc<Shared>, id: NodeId, from: u64, feed: Arc<Feed>) {
    if feed.comes_whole.swap(true, Ordering::AcqRel) {
        return;
    }
    let shared = Arc::clone(shared);
    shared.runtime.clone().spawn(async move {
        let under_way = shared.under_way();
        let work = waited_for(&shared, fill(&shared, id, &feed, from, For::Reader));
        if let Err(error) = contained(work, || FetchError::Failed).await {
            tracing::debug!(%error, "a file does not come whole yet");
        }
        feed.comes_whole.store(false, Ordering::Release);
        drop(under_way);
    });
}

/// Brings all of a file that is read by block, going on with what is here. `false` if it cannot be had in this way.
pub(super) async fn complete(
    shared: &Arc<Shared>,
    id: NodeId,
    waited_for: bool,
) -> Result<bool, ScanError> {
    let feed = shared.feeds.of(id);
    let _urge = waited_for.then(|| feed.urge());
    let whom = match waited_for {
        true => For::Waiter,
        false => For::Later,
    };
    loop {
        match fill(shared, id, &feed, 0, whom).await? {
            Filled::Done => return Ok(true),
            Filled::Unfit => return Ok(false),
            // Who goes first waits for its turn already.
            Filled::Stopped => {}
        }
    }
}

async fn fill(
    shared: &Arc<Shared>,
    id: NodeId,
    feed: &Arc<Feed>,
    from: u64,
    whom: For,
) -> Result<Filled, ScanError> {
    let _turn = feed.filling.lock().await;
    let Some((place, path, base)) = source(shared, id, &[])? else {
        return Ok(Filled::Done);
    };
    if !is_by_block(shared, base.size, base.mtime) {
        return Ok(Filled::Unfit);
    }
    let mut part = Part::find(shared, id, &base)?;
    if let Some(partial) = part.partial.clone().filter(|partial| partial.is_whole()) {
        let along = Along::new(shared, Arc::clone(&partial));
        return finish(shared, id, (&place, &base), &partial, along).await;
    }
    let remote = connection(shared, &path)?;
    let session = match whom {
        For::Reader | For::Waiter => remote.interactive_large(),
        For::Later => remote.bulk(),
    };
    if let Some(partial) = &part.partial
        && !is_as_it_was(session.as_ref(), &path, partial).await?
    {
        take_over(shared, id, &place, &base)?;
        return Ok(Filled::Unfit);
    }
    let Some(partial) = part.begin()?.map(Arc::clone) else {
        return Ok(Filled::Done);
    };
    let here = partial.present();
    if let Err(error) = cache::make_room(shared, base.size - here).await {
        tracing::warn!(%error, %path, "no room is made for it");
    }
    let mut filling = Filling {
        shared,
        id,
        feed,
        whom,
        todo: [(from..base.size, true), (0..from.min(base.size), true)].into(),
        along: Along::new(shared, Arc::clone(&partial)),
        part: &mut part,
        flights: VecDeque::new(),
        progress: shared.transfers.start_at(&path, false, base.size, here),
    };
    let read = read_ranges(
        session.as_ref(),
        &path,
        (base.size, base.mtime),
        &mut filling,
    )
    .await;
    let Filling { along, flights, .. } = filling;
    let brought = part.end(&place, read);
    tell(flights, &brought);
    match brought? {
        Brought::Changed => return Ok(Filled::Unfit),
        _ if !partial.is_whole() => return Ok(Filled::Stopped),
        _ => {}
    }
    finish(shared, id, (&place, &base), &partial, along).await
}

/// Tells those who wait for what did not come why not.
fn tell(flights: VecDeque<Flight>, brought: &Result<Brought, ScanError>) {
    let outcome = match brought {
        Ok(Brought::Here | Brought::LookAgain) => None,
        Ok(Brought::Changed) => Some(FetchError::Changed),
        // Who waits for a part of it tries for themselves, if a new link is coming.
        Err(ScanError::Remote(error)) if error.is_link_loss() => None,
        Err(error) => Some(scan::fetch_error(error)),
    };
    for flight in flights {
        match outcome {
            Some(error) => flight.fail(error),
            None => flight.let_go(),
        }
    }
}

/// It is all here: it is what it should be, as far as that is known, and counts as whole from now on.
async fn finish(
    shared: &Arc<Shared>,
    id: NodeId,
    (place, base): (&Place, &Version),
    partial: &Arc<Partial>,
    along: Along,
) -> Result<Filled, ScanError> {
    let local = |error| ReplicaError::io(shared.replica.state_dir(), error);
    let digested = along.finish().await.map_err(local)?;
    if base.hash.is_some_and(|agreed| agreed != digested.hash) {
        tracing::warn!(
            ?place,
            "what came of it is not what was agreed on; it is fetched again"
        );
        let unknown = Version {
            hash: None,
            ..base.clone()
        };
        take_over(shared, id, place, &unknown)?;
        return Ok(Filled::Unfit);
    }
    let version = Version {
        hash: Some(digested.hash),
        ..Version::file(base.size, base.mtime, base.mode)
    };
    // What is written from now on shows another mtime, and so did what was written since it began.
    let chunks = digested.chunks.map(|mut chunks| {
        chunks.note_stood(base.mtime);
        chunks
    });
    let fetched = Fetched::of_blocks(partial.to_install()?, version, chunks, partial);
    let installed = install(shared, id, place, fetched);
    if partial.ended().is_none() {
        // Its file went with the attempt.
        shared.replica.end_part(id, Ended::Over)?;
    }
    match installed? {
        true => Ok(Filled::Done),
        false => Ok(Filled::Unfit),
    }
}

/// Takes all that is missing.
struct Filling<'a, 'b> {
    shared: &'a Arc<Shared>,
    id: NodeId,
    feed: &'a Arc<Feed>,
    whom: For,
    /// What is looked through for what is missing; and whether what others are bringing is left to them, until the
    /// end.
    todo: VecDeque<(Range<u64>, bool)>,
    along: Along,
    part: &'a mut Part<'b>,
    /// What is asked for, in order: others wait for it instead of asking. Not for what comes when there is time.
    flights: VecDeque<Flight>,
    progress: Progress,
}

impl Filling<'_, '_> {
    fn has_to_stop(&self) -> bool {
        match self.whom {
            For::Reader => !self.shared.replica.opens().is_open(self.id),
            For::Waiter => false,
            For::Later => self.feed.is_urgent(),
        }
    }
}

impl Ranges for Filling<'_, '_> {
    fn next(&mut self) -> Option<Range<u64>> {
        if self.has_to_stop() {
            return None;
        }
        loop {
            let (part, may_leave) = self.todo.front_mut()?;
            let Some(range) = self.along.partial.next_missing(part, BATCH) else {
                self.todo.pop_front();
                continue;
            };
            part.start = range.end;
            if *may_leave && self.feed.is_on_its_way(&range) {
                self.todo.push_back((range, false));
                continue;
            }
            if self.whom != For::Later {
                self.flights.push_back(self.feed.send(range.clone()));
            }
            return Some(range);
        }
    }

    fn take(&mut self, range: Range<u64>, pieces: Pieces) -> io::Result<()> {
        self.part.put(&range, &pieces)?;
        self.progress.advance(range.end - range.start);
        self.along.add(&range, &pieces)?;
        if let Some(mut flight) = self.flights.pop_front() {
            flight.came(&range, &self.along.partial);
        }
        Ok(())
    }
}

/// The hash, and what it consists of, computed along with what comes as far as that comes in order.
struct Along {
    partial: Arc<Partial>,
    digest: Digest,
    done: u64,
}

impl Along {
    fn new(shared: &Shared, partial: Arc<Partial>) -> Self {
        let (large, size) = (shared.options.large, partial.of().size);
        let copies = |remote: Remote| remote.features().copy_data;
        let delta = size >= large.delta_from && shared.online().is_some_and(copies);
        let average = delta.then(|| average_for(large.chunk, size));
        Self {
            partial,
            digest: Digest::new(average, u64::MAX),
            done: 0,
        }
    }

    fn add(&mut self, range: &Range<u64>, pieces: &Pieces) -> io::Result<()> {
        let before = self.done..range.start;
        if before.end.saturating_sub(before.start) <= CATCH_UP && self.partial.has(&before) {
            while self.done < before.end {
                self.read_on(before.end)?;
            }
        }
        if self.done == range.start {
            for (_, data) in pieces {
                self.digest.add(data);
            }
            self.done = range.end;
        }
        Ok(())
    }

    fn read_on(&mut self, end: u64) -> io::Result<()> {
        let left = usize::try_from(end - self.done).unwrap_or(READ_CHUNK);
        let mut buffer = vec![0; left.min(READ_CHUNK)];
        self.partial.file().read_exact_at(&mut buffer, self.done)?;
        self.digest.add(&buffer);
        self.done += buffer.len() as u64;
        Ok(())
    }

    async fn finish(mut self) -> io::Result<crate::replica::Digested> {
        let end = self.partial.of().size;
        while self.done < end {
            self.read_on(end)?;
            tokio::task::yield_now().await;
        }
        Ok(self.digest.finish())
    }
}
