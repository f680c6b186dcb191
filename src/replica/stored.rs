//! What SQLite holds, as the index reads it: one snapshot from commit to commit, and the rows that were asked
//! for lately.
//!
//! A read transaction of its own for each query would cost two locks of a file; one that stays open costs
//! none. The writer renews it with each commit, and then replaces what changed in the cache.

use std::cell::RefCell;

use hashlink::LruCache;
use rusqlite::{Connection, Result};

use super::table::{self, Caches, Changes, Table};
use crate::tree::{NodeId, Place};

/// Rows of each table that are kept in memory.
pub(super) const CACHED_ROWS: usize = 16 * 1024;

/// The stored rows. Guarded by the index's mutex.
pub(super) struct Stored {
    db: Connection,
    rows: Caches,
    /// One place of each node that was asked for, as stored.
    places: RefCell<LruCache<NodeId, Option<Place>>>,
}

impl Stored {
    /// Reads through `db`, which nobody else uses.
    pub(super) fn new(db: Connection) -> Self {
        Self {
            db,
            rows: Caches::default(),
            places: RefCell::new(LruCache::new(CACHED_ROWS)),
        }
    }

    /// One row.
    pub(super) fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>> {
        let mut cache = T::cache(&self.rows).borrow_mut();
        if let Some(known) = cache.get(key) {
            return Ok(known.clone());
        }
        self.begin()?;
        let found = table::get::<T>(&self.db, key)?;
        cache.insert(key.clone(), found.clone());
        Ok(found)
    }

    /// Up to `limit` rows with keys from `start` (inclusive) to `end` (exclusive), in order.
    pub(super) fn range<T: Table>(
        &self,
        start: &T::Key,
        end: &T::Key,
        limit: usize,
    ) -> Result<Vec<(T::Key, T::Value)>> {
        self.begin()?;
        table::range::<T>(&self.db, start, end, limit)
    }

    /// One place of `node`: what is remembered, or what `find` finds.
    pub(super) fn place<E>(
        &self,
        node: NodeId,
        find: impl FnOnce() -> std::result::Result<Option<Place>, E>,
    ) -> std::result::Result<Option<Place>, E> {
        if let Some(known) = self.places.borrow_mut().get(&node) {
            return Ok(known.clone());
        }
        let found = find()?;
        self.places.borrow_mut().insert(node, found.clone());
        Ok(found)
    }

    /// Sees what was committed from now on.
    pub(super) fn renew(&mut self, committed: &Changes) {
        self.end();
        self.rows.replace(committed);
        let places = self.places.get_mut();
        for node in committed.linked() {
            places.remove(&node);
        }
    }

    /// Ends the snapshot, so that the log can begin anew. The next read takes another.
    pub(super) fn end(&self) {
        if self.db.is_autocommit() {
            return;
        }
        let ended = self.db.prepare_cached("COMMIT");
        if let Err(error) = ended.and_then(|mut commit| commit.execute([])) {
            tracing::error!(%error, "a snapshot of the index does not end");
        }
    }

    fn begin(&self) -> Result<()> {
        if self.db.is_autocommit() {
            self.db.prepare_cached("BEGIN")?.execute([])?;
        }
        Ok(())
    }
}
