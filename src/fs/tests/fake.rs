//! A server that is a map in memory, behind the engine's door; shared with `tests/`.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use roamhome::engine::{Done, Fetch, FetchError, Space, Wanted};
use roamhome::fs::{FsError, Home, HomeOptions, HostScope, Restraint};
use roamhome::replica::{Content, Node, PartOf, Replica, ReplicaError};
use roamhome::tree::{Kind, Name, NodeId, Place, Time};

/// Of so many bytes nothing is fetched for `tumblerd`.
pub(crate) const RESTRAINED_FROM: u64 = 4096;

/// The blocks of what is read by block.
const BLOCK: u32 = 4096;

/// A request that is not answered yet: of some bytes, or of all there is.
pub(crate) type Waiting = (NodeId, Option<Wanted>, Done);

/// What the server has and how it behaves.
#[derive(Default)]
pub(crate) struct FakeServer {
    replica: Mutex<Option<Arc<Replica>>>,
    files: Mutex<HashMap<NodeId, Vec<u8>>>,
    dirs: Mutex<HashMap<NodeId, Vec<(Name, Node)>>>,
    /// What every request fails with.
    pub(crate) failure: Mutex<Option<FetchError>>,
    /// Whether every request panics.
    pub(crate) broken: AtomicBool,
    /// While there, requests wait in it instead of being answered.
    pub(crate) stalled: Mutex<Option<Vec<Waiting>>>,
    /// Files of at least so many bytes are read by block; 0 if none are.
    pub(crate) by_block_from: AtomicU64,
    /// What was asked for by block.
    pub(crate) wanted: Mutex<Vec<Wanted>>,
    /// How many requests there were.
    pub(crate) requests: AtomicU32,
    /// How many of them wanted a file and nothing beside it.
    pub(crate) alone: AtomicU32,
    /// How often the engine was told of changes.
    pub(crate) changes: AtomicU32,
}

impl FakeServer {
    /// Adds a file that is on the server only.
    pub(crate) fn put_file(&self, parent: NodeId, name: &str, content: &[u8]) -> NodeId {
        let node = self.place(parent, name, |id| Node {
            size: content.len() as u64,
            ..node(id, Kind::File, 0o644)
        });
        self.files.lock().unwrap().insert(node, content.to_vec());
        node
    }

    /// Adds a directory that was not listed yet, with files in it.
    pub(crate) fn put_dir(&self, parent: NodeId, name: &str, files: &[&str]) -> NodeId {
        let dir = self.place(parent, name, |id| Node {
            listed: false,
            ..node(id, Kind::Dir, 0o755)
        });
        let entry = |name: &&str| {
            let new = self.replica().update(|tx| tx.alloc_node()).unwrap();
            (
                Name::new(name.as_bytes()).unwrap(),
                node(new, Kind::File, 0o644),
            )
        };
        let entries = files.iter().map(entry).collect();
        self.dirs.lock().unwrap().insert(dir, entries);
        dir
    }

    /// Answers what waits.
    pub(crate) fn go_on(&self) {
        let waiting = self.stalled.lock().unwrap().take();
        for (node, wanted, done) in waiting.into_iter().flatten() {
            self.answer(node, wanted, done);
        }
    }

    fn replica(&self) -> Arc<Replica> {
        self.replica.lock().unwrap().clone().unwrap()
    }

    fn place(&self, parent: NodeId, name: &str, make: impl FnOnce(NodeId) -> Node) -> NodeId {
        self.replica()
            .update(|tx| {
                let node = make(tx.alloc_node()?);
                let id = node.id;
                tx.link(Place::new(parent, Name::new(name.as_bytes()).unwrap()), id)?;
                if node.kind == Kind::Dir {
                    let mut parent = tx.node(parent)?.unwrap();
                    parent.nlink += 1;
                    tx.put_node(parent)?;
                }
                tx.put_node(node)?;
                Ok::<_, ReplicaError>(id)
            })
            .unwrap()
    }

    fn request(&self, node: NodeId, done: Done) {
        self.request_of(node, None, done);
    }

    fn request_of(&self, node: NodeId, wanted: Option<Wanted>, done: Done) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        assert!(!self.broken.load(Ordering::Relaxed), "as told");
        let done = match self.stalled.lock().unwrap().as_mut() {
            Some(waiting) => return waiting.push((node, wanted, done)),
            None => done,
        };
        self.answer(node, wanted, done);
    }

    fn answer(&self, node: NodeId, wanted: Option<Wanted>, done: Done) {
        if let Some(failure) = *self.failure.lock().unwrap() {
            return done(Err(failure));
        }
        match wanted {
            Some(wanted) => self.deliver_bytes(node, &wanted),
            None => self.deliver(node).unwrap(),
        }
        done(Ok(()));
    }

    /// Brings the blocks that are asked for, and no more.
    fn deliver_bytes(&self, id: NodeId, wanted: &Wanted) {
        let files = self.files.lock().unwrap();
        let content = &files[&id];
        let of = PartOf {
            seq: 0,
            size: content.len() as u64,
            mtime: 1_000,
        };
        let partial = self
            .replica()
            .begin_partial(id, of, BLOCK)
            .unwrap()
            .unwrap();
        for part in partial.missing(&wanted.bytes) {
            let bytes = &content[part.start as usize..part.end as usize];
            partial.put(part.start, bytes).unwrap();
            partial.note(&part).unwrap();
        }
    }

    fn deliver(&self, id: NodeId) -> Result<(), ReplicaError> {
        let replica = self.replica();
        if let Some(content) = self.files.lock().unwrap().get(&id) {
            let mut staged = replica.content().new_staging()?;
            staged.file.write_all(content).unwrap();
            replica.content().install(staged, id)?;
        }
        let entries = self.dirs.lock().unwrap().remove(&id);
        replica.update(|tx| {
            let mut node = tx.node(id)?.unwrap();
            node.content = Content::Whole;
            node.listed = node.kind == Kind::Dir;
            tx.put_node(node)?;
            for (name, child) in entries.into_iter().flatten() {
                tx.link(Place::new(id, name), child.id)?;
                tx.put_node(child)?;
            }
            Ok(())
        })
    }
}

impl Fetch for FakeServer {
    fn hydrate(&self, node: NodeId, done: Done) {
        self.request(node, done);
    }

    fn hydrate_alone(&self, node: NodeId, done: Done) {
        self.alone.fetch_add(1, Ordering::Relaxed);
        self.request(node, done);
    }

    fn is_by_block(&self, node: &Node) -> bool {
        let from = self.by_block_from.load(Ordering::Relaxed);
        from > 0 && node.size >= from
    }

    fn is_current(&self, _node: NodeId) -> bool {
        true
    }

    fn look(&self, _node: NodeId, done: Done) {
        done(Ok(()));
    }

    fn read(&self, node: NodeId, wanted: Wanted, done: Done) {
        self.wanted.lock().unwrap().push(wanted.clone());
        self.request_of(node, Some(wanted), done);
    }

    fn list(&self, dir: NodeId, done: Done) {
        self.request(dir, done);
    }

    fn is_news(&self, _file: NodeId) -> bool {
        false
    }

    fn is_read(&self, _file: NodeId) {}

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    fn space(&self) -> Option<Space> {
        None
    }

    fn evictable(&self) -> u64 {
        0
    }

    fn is_short_of_room(&self, _bytes: u64) -> bool {
        false
    }

    fn make_room(&self, _bytes: u64, done: Done) {
        done(Err(FetchError::NoSpace));
    }
}

/// A node as the engine puts it when it has only seen it in a listing.
pub(crate) fn node(id: NodeId, kind: Kind, mode: u32) -> Node {
    Node {
        id,
        kind,
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        atime: Time::new(1_000, 0),
        mtime: Time::new(1_000, 0),
        ctime: Time::new(1_000, 0),
        nlink: if kind == Kind::Dir { 2 } else { 1 },
        target: Vec::new(),
        content: Content::Absent,
        data_changed: false,
        data_seq: 0,
        hash: None,
        listed: false,
        scoped: false,
    }
}

/// A home, the replica below and the server behind it.
pub(crate) type Parts = (Arc<Home>, Arc<Replica>, Arc<FakeServer>);

/// A home over a new or an old replica, whose root is listed.
pub(crate) fn home(
    state_dir: &std::path::Path,
    patterns: &[&str],
    now: impl Fn() -> Time + Send + Sync + 'static,
) -> Result<Parts, FsError> {
    let replica = Arc::new(Replica::open(state_dir, now())?);
    replica.update(|tx| {
        let mut root = tx.node(NodeId::ROOT)?.ok_or(FsError::NotFound)?;
        root.listed = true;
        Ok::<_, FsError>(tx.put_node(root)?)
    })?;
    let server = Arc::new(FakeServer::default());
    *server.replica.lock().unwrap() = Some(Arc::clone(&replica));
    let options = HomeOptions {
        uid: 0,
        gid: 0,
        host_scoped: HostScope::new(patterns).unwrap(),
        restraint: Restraint::new(&["tumblerd"], RESTRAINED_FROM).unwrap(),
        now: Box::new(now),
    };
    let fetch: Arc<dyn Fetch> = Arc::clone(&server) as _;
    let home = Home::new(Arc::clone(&replica), fetch, options)?;
    Ok((Arc::new(home), replica, server))
}
