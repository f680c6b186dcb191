//! Files that belong together as they were at one moment: a database, its log and its journal.
//!
//! The writers of all of them are held still while the names are looked up and the contents shared or copied;
//! what is large and has to be copied is copied beside them, and counts if nothing changed in that time. One
//! task takes moments, one after the other, so that no two ever wait for each other.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use super::content::{ContentStore, StagingFile};
use super::direct::Rest;
use super::error::ReplicaError;
use super::index::Replica;
use super::opens::Still;
use super::rows::{Content, Node};
use super::snapshot::{ATTEMPTS, HELD_MAX};
use crate::tree::{BaseEntry, DATABASE_MAGIC, Kind, NodeId, Place, Time, may_be_database};

/// How often names are looked up again that change while others are held still.
const LOOKS: u32 = 20;

/// A database that was written to for the last time so long ago, in nanoseconds, is in no checkpoint.
const CHECKPOINT_NS: i64 = 100_000_000;

/// One of the files, at that moment.
#[derive(Debug)]
pub struct Member {
    /// Where it stands.
    pub place: Place,
    /// The file there, if any that travels; of one that was copied with the size of its content.
    pub node: Option<Node>,
    /// What was agreed on there.
    pub base: Option<BaseEntry>,
    /// Its content, if it was asked for; `None` if it was empty.
    pub file: Option<StagingFile>,
}

/// What came of the attempt.
#[derive(Debug)]
pub enum Moment {
    /// The files as they were.
    Taken(Vec<Member>),
    /// The database is in the midst of a transaction or of a checkpoint: without its companions it would be
    /// damaged.
    Restless,
    /// They cannot be had as of one moment now, or not all of what was asked for is here.
    Missed,
}

/// All of them, and what holds their writers.
type Held<'a> = (Vec<Member>, Vec<Still<'a>>);

/// The node at a place, and its `data_seq`.
type Row = Option<(NodeId, u64)>;

impl Member {
    fn row(&self) -> Row {
        self.node.as_ref().map(|node| (node.id, node.data_seq))
    }
}

impl Replica {
    /// Whether a file, as its row says, is an SQLite database. One whose content is not here is none.
    pub fn is_database(&self, node: &Node) -> bool {
        let file = node.kind == Kind::File && node.content == Content::Whole;
        file && may_be_database(node.size)
            && first_bytes(self.content(), node).is_some_and(|bytes| bytes == *DATABASE_MAGIC)
    }

    /// The files at `places` as they are at one moment: a database and its companions, in this order. With the
    /// contents of those of which `wanted` holds. Where a moment of rest is `preferred`, another one is not taken.
    pub fn moment(
        &self,
        places: &[Place],
        preferred: Option<Time>,
        wanted: impl Fn(&Member) -> bool,
    ) -> Result<Moment, ReplicaError> {
        self.moment_holding(places, preferred, wanted, HELD_MAX)
    }

    fn moment_holding(
        &self,
        places: &[Place],
        preferred: Option<Time>,
        wanted: impl Fn(&Member) -> bool,
        most: u64,
    ) -> Result<Moment, ReplicaError> {
        for _ in 0..ATTEMPTS {
            let Some(rests) = self.rests_of(places)? else {
                continue;
            };
            let Some((mut members, still)) = self.hold(places)? else {
                continue;
            };
            if preferred.is_some_and(|now| !self.rests(&members, now)) {
                return Ok(Moment::Restless);
            }
            let rows: Vec<_> = members.iter().map(Member::row).collect();
            let mut asked: Vec<_> = members.iter_mut().filter(|one| wanted(one)).collect();
            let nodes = || asked.iter().filter_map(|one| one.node.as_ref());
            if nodes().any(|node| node.content != Content::Whole) {
                return Ok(Moment::Missed);
            }
            let size: u64 = nodes().map(|node| node.size).sum();
            let shared = self.take(&mut asked, ContentStore::share)?;
            let still = (shared || size <= most).then_some(still);
            if !shared && !self.take(&mut asked, |store, id| store.copy(id).map(Some))? {
                continue;
            }
            let ours = still.is_some() || self.are_still(places, &rows)?;
            if ours && self.rest_all(&members, &rests)? {
                return Ok(Moment::Taken(members));
            }
        }
        Ok(Moment::Missed)
    }

    /// Looks all of them up while none of them is written to. `None` if they never stay who they are.
    fn hold(&self, places: &[Place]) -> Result<Option<Held<'_>>, ReplicaError> {
        let (mut held, mut still) = (Vec::new(), Vec::new());
        for _ in 0..LOOKS {
            let members = self.members(places)?;
            let nodes = members.iter().filter_map(|one| one.node.as_ref());
            let fresh: Vec<_> = nodes
                .map(|n| n.id)
                .filter(|id| !held.contains(id))
                .collect();
            if fresh.is_empty() {
                return Ok(Some((members, still)));
            }
            for id in fresh {
                // Two names of one file.
                if !held.contains(&id) {
                    held.push(id);
                    still.push(self.opens().still(id));
                }
            }
        }
        Ok(None)
    }

    /// What the kernel writes by itself among them, at rest; `None` if one of them is written to.
    fn rests_of(&self, places: &[Place]) -> Result<Option<BTreeMap<NodeId, Rest>>, ReplicaError> {
        let mut rests = BTreeMap::new();
        for node in self
            .members(places)?
            .iter()
            .filter_map(|one| one.node.as_ref())
        {
            match self.rest(node.id)? {
                Rest::Restless => return Ok(None),
                rest => rests.insert(node.id, rest),
            };
        }
        Ok(Some(rests))
    }

    /// Whether all of them were at rest until now.
    fn rest_all(
        &self,
        members: &[Member],
        rests: &BTreeMap<NodeId, Rest>,
    ) -> Result<bool, ReplicaError> {
        for node in members.iter().filter_map(|one| one.node.as_ref()) {
            let rest = rests.get(&node.id).copied().unwrap_or(Rest::Ours);
            if !self.rests_still(node.id, rest)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn members(&self, places: &[Place]) -> Result<Vec<Member>, ReplicaError> {
        self.view(|view| {
            let member = |place: &Place| {
                let id = view.child(place.parent, &place.name)?;
                let node = id.map(|id| view.node(id)).transpose()?.flatten();
                Ok(Member {
                    place: place.clone(),
                    node: node.filter(|node| node.kind == Kind::File && !node.scoped),
                    base: view.base(place)?,
                    file: None,
                })
            };
            places.iter().map(member).collect()
        })
    }

    /// Whether the same files stand there as then, and nobody wrote to them.
    fn are_still(&self, places: &[Place], rows: &[Row]) -> Result<bool, ReplicaError> {
        let held = self.hold(places)?;
        Ok(held.is_some_and(|(now, _still)| now.iter().map(Member::row).eq(rows.iter().copied())))
    }

    /// Takes the contents by `how`; `false` if it cannot take one of them.
    fn take(
        &self,
        asked: &mut [&mut Member],
        how: impl Fn(&ContentStore, NodeId) -> Result<Option<StagingFile>, ReplicaError>,
    ) -> Result<bool, ReplicaError> {
        for Member { node, file, .. } in asked {
            let Some(node) = node.as_mut().filter(|node| node.size > 0) else {
                continue;
            };
            let taken = match how(self.content(), node.id) {
                // A journal goes when its transaction ends, and nobody holds names.
                Err(ReplicaError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    None
                }
                taken => taken?,
            };
            let Some(taken) = taken else {
                return Ok(false);
            };
            // A write that failed half-way may have left more than the row knows.
            node.size = taken.len()?;
            *file = Some(taken);
        }
        Ok(true)
    }

    /// Whether the database could do without its companions.
    fn rests(&self, members: &[Member], now: Time) -> bool {
        let Some((main, companions)) = members.split_first() else {
            return true;
        };
        let is_young = |node: &Node| {
            let age = now.0.saturating_sub(node.mtime.0);
            node.data_changed && (0..CHECKPOINT_NS).contains(&age)
        };
        let just_written = main.node.as_ref().is_some_and(is_young);
        companions.iter().all(|one| {
            let used = one.node.as_ref().filter(|node| node.size > 0);
            // A journal of which the beginning is zero is over.
            let is_over =
                |node| first_bytes(self.content(), node).is_none_or(|bytes| bytes[0] == 0);
            match one.place.is_journal() {
                true => used.is_none_or(is_over),
                false => used.is_none() || !just_written,
            }
        })
    }
}

fn first_bytes(content: &ContentStore, node: &Node) -> Option<[u8; DATABASE_MAGIC.len()]> {
    let file = content.open_read(node.id, node.data_changed).ok()?;
    let mut bytes = [0; DATABASE_MAGIC.len()];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::super::index::tests::{fill, make, open};
    use super::*;
    use crate::tree::{Name, RelPath};

    /// Spans several pieces of a copy.
    const SIZE: usize = 300_000;
    const NAMES: [&str; 3] = ["d", "d-wal", "d-journal"];

    fn byte_of(member: &Member) -> u8 {
        let mut bytes = Vec::new();
        let staged = member.file.as_ref().unwrap();
        let mut file = std::fs::File::open(&staged.path).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, vec![bytes[0]; SIZE]);
        bytes[0]
    }

    /// One after the other gets the next byte, again and again: at any moment, those behind are one byte late.
    fn beside_a_writer(most: u64, at_least: usize) {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let files = NAMES.map(|name| {
            let id = make(&replica, name, |node| {
                node.data_changed = true;
                node.size = SIZE as u64;
                node.content = Content::Whole;
            });
            let hint = RelPath::parse(name.as_bytes()).unwrap();
            let file = replica.content().open_unsent(id, &hint).unwrap();
            fill(&replica, id, &file, (0, SIZE));
            (id, file)
        });
        let places =
            NAMES.map(|name| Place::new(NodeId::ROOT, Name::new(name.as_bytes()).unwrap()));
        let done = AtomicBool::new(false);
        let mut taken = 0;
        let look = || match replica
            .moment_holding(&places, None, |_| true, most)
            .unwrap()
        {
            Moment::Taken(members) => {
                let bytes: Vec<_> = members.iter().map(byte_of).collect();
                let late = |n: usize| bytes[0].wrapping_sub(bytes[n]);
                assert!(late(1) <= late(2) && late(2) <= 1, "{bytes:?}");
                1
            }
            _ => 0,
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut bytes = (0..=255).cycle().skip(1);
                while !done.load(Ordering::Relaxed) {
                    let byte = bytes.next().unwrap();
                    files
                        .iter()
                        .for_each(|(id, file)| fill(&replica, *id, file, (byte, SIZE)));
                }
            });
            let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                (0..20).map(|_| look()).sum::<usize>()
            }));
            done.store(true, Ordering::Relaxed);
            taken = looked.unwrap();
        });
        assert!(taken >= at_least, "{taken}");
        assert_eq!(look(), 1);
    }

    #[test]
    fn files_that_belong_together_are_taken_at_one_moment_beside_a_writer() {
        beside_a_writer(HELD_MAX, 20);
    }

    #[test]
    fn large_files_that_belong_together_count_only_if_none_was_written_to() {
        beside_a_writer(0, 0);
    }
}
