//! Small files that are fetched before a program asks for them: who opens two files of a directory that are not here
//! mostly wants the others, too, and one after the other each would cost its round trips.
//!
//! It grows as a kernel's readahead does. Two cold files of a directory fetch its small files; two directories of one
//! directory, where that was so, fetch all small files below it. The root counts as any directory, but never is all
//! below it fetched: no program pulls the whole home in. Who goes through directories one after the other finds the next
//! one here but for its first file: who opens that gets the one after it, too.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use super::super::shared::{Shared, lock};
use super::{FILES_AT_ONCE, bring};
use crate::replica::{Content, Node, ReplicaError, View};
use crate::tree::{Kind, NodeId};

/// Files of up to so many bytes are small.
const SMALL: u64 = 256 * 1024;
/// So many cold files of a directory, or directories of one, are taken for all of them.
const TELLING: u32 = 2;
/// What was opened before that tells nothing.
const LATELY: Duration = Duration::from_secs(10);
/// No more than this is fetched ahead at once: the next cold files begin anew.
const MOST_FILES: usize = 8192;
const MOST_BYTES: u64 = 64 << 20;
/// Directories above a file that are looked at.
const DEEPEST: usize = 64;
/// Directories that are remembered.
const REMEMBERED: usize = 1024;

/// What programs opened lately that was not here.
#[derive(Debug, Default)]
pub(in crate::engine) struct Trail {
    counts: HashMap<NodeId, (u32, Instant)>,
    /// Where files are fetched ahead right now.
    active: BTreeSet<NodeId>,
    /// By directory: the one in it below which all was fetched last.
    below: HashMap<NodeId, NodeId>,
    /// Files that were left out, and the directories above that were fetched but for them.
    marks: HashMap<NodeId, NodeId>,
}

impl Trail {
    /// A cold file was opened in the first of `dirs`, each of which is in the next. Tells where to fetch ahead, and
    /// whether of all that is below.
    fn opened(&mut self, dirs: &[NodeId], now: Instant) -> Option<(NodeId, bool)> {
        if dirs.iter().any(|dir| self.active.contains(dir)) {
            return None;
        }
        if self.counts.len() >= REMEMBERED {
            self.counts.retain(|_, (_, at)| now - *at < LATELY);
        }
        let mut told = None;
        for (level, dir) in dirs.iter().enumerate() {
            let (count, at) = self.counts.entry(*dir).or_insert((0, now));
            *count = if now - *at < LATELY { *count + 1 } else { 1 };
            *at = now;
            if *count < TELLING {
                break;
            }
            *count = 0;
            if level == 0 || *dir != NodeId::ROOT {
                told = Some((*dir, level > 0));
            }
        }
        if let Some((dir, _)) = told {
            self.active.insert(dir);
        }
        told
    }

    /// All below `dir`, which is in `parent`, is fetched. Tells whether that goes on from `before`, the directory in front
    /// of it.
    fn goes_on(&mut self, parent: NodeId, dir: NodeId, before: Option<NodeId>) -> bool {
        if self.below.len() >= REMEMBERED {
            self.below.clear();
        }
        let last = self.below.insert(parent, dir);
        last.is_some() && last == before
    }

    /// Leaves `first` out of what is fetched of `dir`, so that it is told when a program comes to it.
    fn mark(&mut self, first: NodeId, dir: NodeId) {
        if self.marks.len() >= REMEMBERED {
            self.marks.clear();
        }
        self.marks.insert(first, dir);
    }
}

/// A program opens a file that is not here.
pub(super) fn opened(shared: &Arc<Shared>, id: NodeId) {
    let marked = lock(&shared.trail).marks.remove(&id);
    if let Some(dir) = marked {
        let shared = Arc::clone(shared);
        shared.runtime.clone().spawn(async move {
            next_of(&shared, dir).await;
        });
        return;
    }
    let dirs = match shared.replica.view(|view| directories(view, id)) {
        Ok(dirs) => dirs,
        Err(error) => return tracing::debug!(%error, "nothing is fetched ahead"),
    };
    let told = lock(&shared.trail).opened(&dirs, Instant::now());
    let Some((dir, below)) = told else {
        return;
    };
    let shared = Arc::clone(shared);
    shared.runtime.clone().spawn(async move {
        match files(&shared, dir, below) {
            Ok(files) => fetch(&shared, files).await,
            Err(error) => tracing::debug!(%error, "nothing is fetched ahead"),
        }
        lock(&shared.trail).active.remove(&dir);
        if below {
            next_of(&shared, dir).await;
        }
    });
}

/// Fetches all small files below the directory behind `dir`, but for its first one, if a program went through `dir` and the
/// directory before it.
async fn next_of(shared: &Arc<Shared>, dir: NodeId) {
    let Ok(Some(around)) = neighbours(shared, dir) else {
        return;
    };
    let (parent, before) = (around.parent, around.before);
    let Some(next) = around.next else {
        return;
    };
    if !lock(&shared.trail).goes_on(parent, dir, before) {
        return;
    }
    match files(shared, next, true) {
        Ok(mut files) if !files.is_empty() => {
            lock(&shared.trail).mark(files.remove(0).id, next);
            fetch(shared, files).await;
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "nothing is fetched ahead"),
    }
}

/// What is around a directory, in the order in which programs walk.
struct Neighbours {
    parent: NodeId,
    before: Option<NodeId>,
    next: Option<NodeId>,
}

fn neighbours(shared: &Shared, dir: NodeId) -> Result<Option<Neighbours>, ReplicaError> {
    shared.replica.view(|view| {
        let Some(place) = view.place(dir)? else {
            return Ok(None);
        };
        let mut dirs = Vec::new();
        for (_, id) in view.children(place.parent, None, usize::MAX)? {
            if view.node(id)?.is_some_and(|node| node.kind == Kind::Dir) {
                dirs.push(id);
            }
        }
        let at = dirs.iter().position(|id| *id == dir);
        Ok(at.map(|at| Neighbours {
            parent: place.parent,
            before: at.checked_sub(1).map(|before| dirs[before]),
            next: dirs.get(at + 1).copied(),
        }))
    })
}

/// The directories above a small file, the nearest first; of others none.
fn directories(view: &View<'_>, id: NodeId) -> Result<Vec<NodeId>, ReplicaError> {
    let mut dirs = Vec::new();
    if view.node(id)?.is_none_or(|node| node.size > SMALL) {
        return Ok(dirs);
    }
    let mut at = id;
    while let Some(place) = view.place(at)?
        && dirs.len() < DEEPEST
    {
        dirs.push(place.parent);
        at = place.parent;
    }
    Ok(dirs)
}

/// The small files in a directory that are not here, in the order in which programs walk, within the limits.
fn files(shared: &Shared, dir: NodeId, below: bool) -> Result<Vec<Node>, ReplicaError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let mut todo = vec![dir];
    while let Some(dir) = todo.pop() {
        // One look for each directory: programs are served in between.
        let nodes = shared.replica.view(|view| {
            let children = view.children(dir, None, usize::MAX)?.into_iter();
            let nodes = children.map(|(_, id)| view.node(id));
            nodes.collect::<Result<Vec<_>, ReplicaError>>()
        })?;
        for node in nodes.iter().flatten() {
            let is_small = node.kind == Kind::File && (1..=SMALL).contains(&node.size);
            if is_small && node.content == Content::Absent && !node.data_changed {
                bytes += node.size;
                if found.len() == MOST_FILES || bytes > MOST_BYTES {
                    return Ok(found);
                }
                found.push(node.clone());
            }
        }
        if below {
            let dirs = nodes.into_iter().flatten().rev();
            todo.extend(
                dirs.filter(|node| node.kind == Kind::Dir)
                    .map(|node| node.id),
            );
        }
    }
    Ok(found)
}

async fn fetch(shared: &Arc<Shared>, files: Vec<Node>) {
    let bytes = files.iter().map(|node| node.size).sum();
    // What nobody asked for takes no room from what somebody used.
    match super::super::cache::has_room(shared, bytes) {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return tracing::debug!(%error, "nothing is fetched ahead"),
    }
    tracing::debug!(files = files.len(), bytes, "fetching ahead");
    let one = async |node: Node| bring(shared, node.id).await.is_ok();
    let mut bringing = stream::iter(files).map(one).buffer_unordered(FILES_AT_ONCE);
    let mut failed = 0;
    while let Some(brought) = bringing.next().await {
        failed += u32::from(!brought);
        // Whoever needs one of them hears why.
        if failed > TELLING {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(20);
    const B: NodeId = NodeId(21);
    const TOP: NodeId = NodeId(30);

    #[test]
    fn two_files_tell_of_a_directory_and_two_directories_of_the_one_above() {
        let mut trail = Trail::default();
        let now = Instant::now();
        let mut opened = |dirs: &[NodeId]| {
            let told = trail.opened(dirs, now);
            trail.active.clear();
            told
        };
        assert_eq!(opened(&[A, TOP, NodeId::ROOT]), None);
        assert_eq!(opened(&[B, TOP, NodeId::ROOT]), None);
        assert_eq!(opened(&[A, TOP, NodeId::ROOT]), Some((A, false)));
        assert_eq!(opened(&[B, TOP, NodeId::ROOT]), Some((TOP, true)));
        // What is in the root itself, and never all below it.
        assert_eq!(opened(&[NodeId::ROOT]), Some((NodeId::ROOT, false)));
        for _ in 0..10 {
            let told = opened(&[A, NodeId::ROOT]);
            assert!(told.is_none_or(|told| told == (A, false)), "{told:?}");
        }
    }

    #[test]
    fn what_was_long_ago_tells_nothing_and_what_is_under_way_is_not_begun_again() {
        let mut trail = Trail::default();
        let now = Instant::now();
        assert_eq!(trail.opened(&[A], now), None);
        assert_eq!(trail.opened(&[A], now + LATELY), None);
        assert_eq!(trail.opened(&[A], now + LATELY), Some((A, false)));
        for _ in 0..5 {
            assert_eq!(trail.opened(&[A], now + LATELY), None);
            assert_eq!(trail.opened(&[B, A], now + LATELY), None);
        }
    }
}
