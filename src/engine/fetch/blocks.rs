//! Files that are read by block: only what somebody reads is fetched, and all of it once somebody reads on and on.
//!
//! All blocks of one part are of one version: the one that base has, which was not young when the part began, so that
//! whatever is written to the file shows another mtime. It is looked at around each fetch.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::super::link::{LinkState, LinkView};
use super::super::scan::ScanError;
use super::super::shared::{Shared, contained};
use super::super::{Done, FetchError, Wanted, cache};
use super::download::{COMPARED, is_settled};
use super::feed::Flight;
use super::replaced::take_over;
use super::{connection, fill, hydrate, source, waited_for};
use crate::remote::{
    self, BATCH, ErrorKind, Pieces, Ranges, RemoteError, Session, TransferError, read_ranges,
};
use crate::replica::{
    Content, Ended, LARGEST_BY_BLOCK, PartOf, Partial, ReplicaError, whole_blocks,
};
use crate::tree::{Kind, NodeId, Place, RelPath, Version};

/// How often a fetch whose link broke is tried again, while there is a link or one is coming.
const RETRIES: u32 = 2;
/// It takes no longer than this until a link that broke is known to be broken, and is tried again.
const NOTICED: Duration = Duration::from_secs(1);

/// What a fetch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brought {
    /// It is here.
    Here,
    /// Whoever waits for it has to look again: all of it is here, or something else is in its place.
    LookAgain,
    /// The server has another version.
    Changed,
}

/// Whether a file of such a size and age is read by block. What is young could change without showing it.
pub(in crate::engine) fn is_by_block(shared: &Shared, size: u64, mtime: i64) -> bool {
    (shared.options.large.by_block_from..=LARGEST_BY_BLOCK).contains(&size)
        && is_settled(mtime, shared.server_now())
}

/// The mount waits for some bytes of a file.
pub(in crate::engine) fn read_for_mount(
    shared: &Arc<Shared>,
    id: NodeId,
    wanted: Wanted,
    done: Done,
) {
    let node = shared.replica.view::<_, ReplicaError>(|view| view.node(id));
    let Ok(Some(node)) = node else {
        return done(Err(FetchError::Changed));
    };
    if node.content == Content::Whole {
        return done(Ok(()));
    }
    let Wanted { bytes, ahead, rest } = wanted;
    let wider = bytes.start..bytes.end.saturating_add(ahead).min(node.size);
    let feed = shared.feeds.of(id);
    let missing = || match shared.replica.content().partial(id) {
        Ok(Some(partial)) => partial.missing(&wider),
        // An error shows when it is begun.
        _ => vec![whole_blocks(node.size, shared.options.large.block, &wider)],
    };
    if let Some(flight) = feed.wait(bytes, missing, done) {
        let shared = Arc::clone(shared);
        shared.runtime.clone().spawn(fly(shared, id, flight));
    }
    if rest {
        fill::let_come(shared, id, wider.end, feed);
    }
}

/// Brings what is on its way, and tells who waits for it.
async fn fly(shared: Arc<Shared>, id: NodeId, mut flight: Flight) {
    let under_way = shared.under_way();
    let mut retries = 0;
    let mut link = shared.link.subscribe();
    let outcome = loop {
        link.mark_unchanged();
        let mut is_lost = false;
        let work = async {
            let brought = bring(&shared, id, &mut flight).await;
            is_lost = matches!(&brought, Err(ScanError::Remote(error)) if error.is_link_loss());
            brought
        };
        let outcome = contained(waited_for(&shared, work), || FetchError::Failed).await;
        if !is_lost || retries == RETRIES || !is_coming_back(&shared, &mut link).await {
            break outcome;
        }
        retries += 1;
    };
    match outcome {
        Ok(Brought::Here | Brought::LookAgain) => {
            flight.let_go();
            let part = shared.replica.content().partial(id);
            if part.is_ok_and(|part| part.is_some_and(|part| part.is_whole())) {
                fill::let_come(&shared, id, 0, shared.feeds.of(id));
            }
        }
        Ok(Brought::Changed) => flight.fail(FetchError::Changed),
        Err(error) => flight.fail(error),
    }
    drop(under_way);
}

/// Whether the link broke since `link` was looked at, and is back or coming.
async fn is_coming_back(shared: &Shared, link: &mut watch::Receiver<LinkView>) -> bool {
    let is_up = shared.online().is_some_and(|remote| !remote.is_closed());
    if is_up && !link.has_changed().unwrap_or(false) {
        return false;
    }
    let comes = link.wait_for(|view| match view.state {
        LinkState::Connecting => true,
        // Not the one that broke.
        LinkState::Online => shared.online().is_some_and(|remote| !remote.is_closed()),
        LinkState::Offline { .. } | LinkState::Refused { .. } => false,
    });
    tokio::time::timeout(NOTICED, comes).await.is_ok()
}

async fn bring(
    shared: &Arc<Shared>,
    id: NodeId,
    flight: &mut Flight,
) -> Result<Brought, ScanError> {
    let Some((place, path, base)) = source(shared, id, &[])? else {
        return gone(shared, id);
    };
    let remote = connection(shared, &path)?;
    if !is_by_block(shared, base.size, base.mtime) {
        return Box::pin(hydrate(shared, id, true))
            .await
            .map(|()| Brought::LookAgain);
    }
    let session = remote.interactive().as_ref();
    let mut part = Part::find(shared, id, &base)?;
    if let Some(partial) = &part.partial
        && !is_as_it_was(session, &path, partial).await?
    {
        take_over(shared, id, &place, &base)?;
        return Ok(Brought::Changed);
    }
    let bytes = flight.left().iter().map(|part| part.end - part.start).sum();
    if let Err(error) = cache::make_room(shared, bytes).await {
        tracing::warn!(%error, %path, "no room is made for it");
    }
    let mut landing = Landing {
        batches: Batches::new(flight.left()),
        part: &mut part,
        flight,
    };
    let read = read_ranges(session, &path, (base.size, base.mtime), &mut landing).await;
    part.end(&place, read)
}

/// There is no place on the server for its content.
fn gone(shared: &Shared, id: NodeId) -> Result<Brought, ScanError> {
    let node = shared
        .replica
        .view::<_, ReplicaError>(|view| view.node(id))?;
    Ok(match node {
        Some(node) if node.content == Content::Whole => Brought::LookAgain,
        _ => Brought::Changed,
    })
}

/// Ranges in pieces that are looked at together.
struct Batches(VecDeque<Range<u64>>);

impl Batches {
    fn new(ranges: &[Range<u64>]) -> Self {
        let batches = ranges.iter().flat_map(|range| {
            let starts = range.clone().step_by(BATCH as usize);
            starts.map(|at| at..range.end.min(at + BATCH))
        });
        Self(batches.collect())
    }
}

/// A part, found or still to be begun.
pub(super) struct Part<'a> {
    shared: &'a Shared,
    id: NodeId,
    of: PartOf,
    pub(super) partial: Option<Arc<Partial>>,
}

impl<'a> Part<'a> {
    /// What is here of the content that `base` tells of.
    pub(super) fn find(
        shared: &'a Shared,
        id: NodeId,
        base: &Version,
    ) -> Result<Self, ReplicaError> {
        let node = shared
            .replica
            .view::<_, ReplicaError>(|view| view.node(id))?;
        let of = PartOf {
            seq: node.map_or(0, |node| node.data_seq),
            size: base.size,
            mtime: base.mtime,
        };
        let mut partial = shared.replica.content().partial(id)?;
        if let Some(other) = partial.as_ref().map(|partial| partial.of())
            && other != of
        {
            // Where only its date is another, nobody wrote to it: else another node stood here.
            let is_same = (other.seq, other.size) == (of.seq, of.size);
            let ended = match is_same {
                true => Ended::Over,
                false => Ended::Changed,
            };
            shared.replica.end_part(id, ended)?;
            partial = None;
        }
        Ok(Self {
            shared,
            id,
            of,
            partial,
        })
    }

    /// Begun, if it was not. `None` if the row stands for something else by now.
    pub(super) fn begin(&mut self) -> Result<Option<&Arc<Partial>>, ReplicaError> {
        if self.partial.is_none() {
            let block = self.shared.options.large.block;
            self.partial = self.shared.replica.begin_partial(self.id, self.of, block)?;
        }
        Ok(self.partial.as_ref())
    }

    /// Puts bytes in their place, and says that they are there.
    pub(super) fn put(&mut self, range: &Range<u64>, pieces: &Pieces) -> io::Result<()> {
        let Some(partial) = self.begin().map_err(io_error)? else {
            return Ok(());
        };
        for (offset, data) in pieces {
            partial.put(*offset, data)?;
        }
        partial.note(range)
    }

    /// What a read came to.
    pub(super) fn end(
        &self,
        place: &Place,
        read: Result<(), TransferError>,
    ) -> Result<Brought, ScanError> {
        match read {
            Ok(()) if self.partial.is_none() => Ok(Brought::LookAgain),
            Ok(()) => Ok(Brought::Here),
            Err(TransferError::Changed { now, .. }) if now.kind == Kind::File => {
                let version = Version::file(now.size, now.mtime, now.mode);
                take_over(self.shared, self.id, place, &version)?;
                Ok(Brought::Changed)
            }
            Err(TransferError::Changed { path, .. }) => {
                let gone = "it is no longer a file on the server";
                Err(RemoteError::new(ErrorKind::NotFound, "read", &path, gone).into())
            }
            Err(TransferError::Remote(error)) => {
                if let Some(partial) = self.partial.as_ref().filter(|_| error.is_link_loss()) {
                    partial.set_compared(false);
                }
                Err(error.into())
            }
            Err(TransferError::Local { source, .. }) => {
                Err(ReplicaError::io(self.shared.replica.state_dir(), source).into())
            }
        }
    }
}

/// The same for who may tell of nothing else.
fn io_error(error: ReplicaError) -> io::Error {
    match error {
        ReplicaError::NoSpace { .. } => io::ErrorKind::StorageFull.into(),
        ReplicaError::Io { source, .. } => source,
        error => io::Error::other(error),
    }
}

/// Takes what comes for those who wait.
struct Landing<'a, 'b> {
    batches: Batches,
    part: &'a mut Part<'b>,
    flight: &'a mut Flight,
}

impl Ranges for Landing<'_, '_> {
    fn next(&mut self) -> Option<Range<u64>> {
        self.batches.0.pop_front()
    }

    fn take(&mut self, range: Range<u64>, pieces: Pieces) -> io::Result<()> {
        self.part.put(&range, &pieces)?;
        if let Some(partial) = &self.part.partial {
            self.flight.came(&range, partial);
        }
        Ok(())
    }
}

/// Whether the server still has what is here, as far as two looks at it tell: once after it was opened, and after the
/// link broke.
pub(super) async fn is_as_it_was(
    session: &dyn Session,
    path: &RelPath,
    partial: &Partial,
) -> Result<bool, ScanError> {
    if partial.is_compared() || partial.present() == 0 {
        return Ok(true);
    }
    let mut expected = |offset: u64, there: &[u8]| {
        let mut here = vec![0; there.len()];
        partial.file().read_exact_at(&mut here, offset)?;
        Ok(here == there)
    };
    for block in partial.ends() {
        let end = block.end.min(block.start + COMPARED);
        match remote::matching(session, path, (block.start, end), &mut expected).await {
            Ok(known) if known == end => {}
            Ok(_) => return Ok(false),
            Err(TransferError::Remote(error)) => return Err(error.into()),
            Err(_) => return Ok(false),
        }
    }
    partial.set_compared(true);
    Ok(true)
}
