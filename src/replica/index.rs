//! The index as one thing: who may read and write it, and when it is durable.
//!
//! One mutex guards the state. An update changes memory and appends to the journal; the writer thread
//! (`writer`) takes what is pending into SQLite without holding the mutex while it does.

use std::cell::Cell;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::content::{ContentStore, Which};
use super::direct::Directs;
use super::error::ReplicaError;
use super::journal::Journal;
use super::open::Lock;
use super::opens::Opens;
use super::recover;
use super::rows::{Counter, Counts, LocalBackup};
use super::stored::Stored;
use super::table::Changes;
use super::tx::{Move, Tx};
use super::view::View;
use super::writer::Writer;
use crate::tree::NodeId;

/// With more rows than this pending, updates wait for the writer.
const MOST_PENDING: usize = 50_000;

/// With more rows than this pending, the writer does not wait for more.
pub(super) const MANY_PENDING: usize = 4_096;

/// This machine's copy of a home.
pub struct Replica {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Mutex<Seat>,
    /// Locked as long as it is open.
    pub(super) _lock: Arc<Lock>,
}

/// Where the writer works.
pub(super) enum Seat {
    /// On a thread of its own.
    Behind(JoinHandle<()>),
    /// Where somebody asks it to.
    Here(Box<Writer>),
    /// It has ended.
    Left,
}

/// What the writer and everybody else share.
pub(super) struct Shared {
    pub(super) state_dir: PathBuf,
    pub(super) content: ContentStore,
    pub(super) opens: Opens,
    pub(super) directs: Directs,
    pub(super) state: Mutex<State>,
    /// There is work for the writer.
    pub(super) work: Condvar,
    /// The writer tried a commit.
    pub(super) tried: Condvar,
}

/// What the mutex guards.
pub(super) struct State {
    /// In the journal, not yet taken by the writer.
    pub(super) pending: Changes,
    /// Being written to SQLite; empty if nothing is.
    pub(super) committing: Arc<Changes>,
    pub(super) journal: Journal,
    pub(super) stored: Stored,
    pub(super) index: PathBuf,
    /// The next node id to give.
    pub(super) next_node: Cell<u64>,
    /// Updates acknowledged so far; what a commit covers is told in these.
    pub(super) updates: u64,
    /// Updates that survive power loss.
    pub(super) durable: u64,
    /// Updates that somebody wants to survive power loss.
    pub(super) wanted: u64,
    /// Counts those who asked for durability: each ends the pause between attempts of a failing commit.
    pub(super) requests: u64,
    /// Why the last commit failed, until one succeeds.
    pub(super) failure: Option<ReplicaError>,
    /// Commits that failed so far.
    pub(super) failures: u64,
    pub(super) phase: Phase,
}

/// Where in its life a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes updates.
    Running,
    /// The writer is asked to finish.
    Closing,
    /// The writer has ended.
    Closed,
}

impl State {
    pub(super) fn sql_error(&self, error: rusqlite::Error) -> ReplicaError {
        ReplicaError::sql(&self.index, error)
    }

    /// What the last failed commit failed with.
    fn fail(&self) -> Result<(), ReplicaError> {
        match &self.failure {
            Some(failure) => Err(failure.again()),
            None => Ok(()),
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left nothing half-done: updates gather their changes elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for another update.
    fn lock_for_update(&self) -> Result<MutexGuard<'_, State>, ReplicaError> {
        let mut state = self.lock();
        loop {
            if state.phase == Phase::Closed {
                let dir = self.state_dir.clone();
                return Err(ReplicaError::Closed { dir });
            }
            if state.pending.len() < MOST_PENDING {
                return Ok(state);
            }
            state.fail()?;
            state = self
                .tried
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn update_locked<T, E: From<ReplicaError>>(
        &self,
        state: &mut State,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tx = Tx::new(state);
        let value = f(&mut tx)?;
        let (changes, moves) = tx.finish();
        self.apply(state, changes, moves)?;
        Ok(value)
    }

    fn apply(
        &self,
        state: &mut State,
        changes: Changes,
        moves: Vec<Move>,
    ) -> Result<(), ReplicaError> {
        if changes.len() == 0 {
            return Ok(());
        }
        state.journal.append(&changes)?;
        let was_idle = state.pending.len() == 0;
        state.pending.absorb(changes);
        state.updates += 1;
        for Move { node, unsent } in moves {
            let path = || View::new(state).local_path(node).ok().flatten();
            self.content.follow(node, unsent, path);
        }
        if was_idle || state.pending.len() >= MANY_PENDING {
            self.work.notify_one();
        }
        Ok(())
    }
}

impl Replica {
    /// Where it lies.
    pub fn state_dir(&self) -> &Path {
        &self.shared.state_dir
    }

    /// The content files.
    pub fn content(&self) -> &ContentStore {
        &self.shared.content
    }

    /// Which nodes are open.
    pub fn opens(&self) -> &Opens {
        &self.shared.opens
    }

    /// Changes the index: all that `f` does if it returns `Ok`, else nothing. When this returns, the change
    /// survives the death of this process; `sync` makes it survive power loss. `f` must not block.
    pub fn update<T, E: From<ReplicaError>>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = self.shared.lock_for_update()?;
        self.shared.update_locked(&mut state, f)
    }

    /// Reads the index; nothing changes meanwhile. `f` must not block.
    pub fn view<T, E: From<ReplicaError>>(
        &self,
        f: impl FnOnce(&View<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        f(&View::new(&self.shared.lock()))
    }

    /// Makes all acknowledged updates survive power loss. Those who wait at the same time share a commit.
    pub fn sync(&self) -> Result<(), ReplicaError> {
        if let Seat::Here(writer) = &mut *self.seat() {
            return writer.turn(true);
        }
        let mut state = self.shared.lock();
        let target = state.updates;
        let failures = state.failures;
        state.requests += 1;
        while state.durable < target {
            if state.failures > failures {
                state.fail()?;
            }
            if state.phase == Phase::Closed {
                let dir = self.shared.state_dir.clone();
                return Err(ReplicaError::Closed { dir });
            }
            state.wanted = state.wanted.max(target);
            self.shared.work.notify_one();
            let waited = self.shared.tried.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Takes what is pending into the database, unless a thread does so by itself.
    pub fn commit(&self) -> Result<(), ReplicaError> {
        match &mut *self.seat() {
            Seat::Here(writer) => writer.turn(false),
            Seat::Behind(_) | Seat::Left => Ok(()),
        }
    }

    /// Syncs the content that the server has, too, unless a thread does so by itself.
    pub fn settle(&self) -> Result<(), ReplicaError> {
        if let Seat::Here(writer) = &mut *self.seat() {
            writer.turn(false)?;
            writer.settling.settle_now(&self.shared);
        }
        Ok(())
    }

    /// Makes the content of `node` and its name survive power loss.
    pub fn sync_content(&self, node: NodeId) -> Result<(), ReplicaError> {
        let since = self.view(|view| view.unsynced_since(node))?;
        self.content().sync_file(node)?;
        match since {
            Some(since) => self.update(|tx| tx.settle(node, since)),
            None => Ok(()),
        }
    }

    /// The same, unless it is so already.
    pub fn settle_content(&self, node: NodeId) -> Result<(), ReplicaError> {
        match self.view(|view| view.unsynced_since(node))? {
            Some(_) => self.sync_content(node),
            None => Ok(()),
        }
    }

    /// Makes all updates and all content survive power loss. It takes whatever else waits for the same disk along.
    pub fn sync_all(&self) -> Result<(), ReplicaError> {
        self.content().sync_all()?;
        self.sync()
    }

    /// Removes unsent content without a row: what was copied in when the process died that was about to put it there. Not
    /// for a replica that ever held anything else.
    pub fn drop_strays(&self) -> Result<(), ReplicaError> {
        for (node, _) in self.content().list(Which::Unsent)? {
            if self.view(|view| view.node(node))?.is_none() {
                self.content().remove_unsent(node)?;
            }
        }
        Ok(())
    }

    /// Takes what `from` keeps as backups over, one after the other: each is in one of both at every moment, or in both.
    pub fn take_backups(&self, from: &Self) -> Result<(), ReplicaError> {
        for theirs in from.view(|view| view.backups())? {
            let id = self.update(|tx| tx.alloc_backup())?;
            self.content().copy_backup(from.content(), theirs.id, id)?;
            let number = theirs.id;
            self.update(|tx| tx.add_backup(LocalBackup { id, ..theirs }))?;
            self.sync()?;
            from.update(|tx| tx.remove_backup(number))?;
            from.sync()?;
            from.content().remove_backup(number)?;
        }
        Ok(())
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing gets into the index, while that is so. All that was acknowledged is in the journal meanwhile.
    pub fn trouble(&self) -> Option<ReplicaError> {
        self.shared.lock().fail().err()
    }

    /// How much there is.
    pub fn counts(&self) -> Result<Counts, ReplicaError> {
        let part_bytes = self.shared.content.part_bytes();
        self.view(|view| {
            Ok(Counts {
                nodes: view.counter(Counter::Nodes)?,
                files: view.counter(Counter::Files)?,
                dirs: view.counter(Counter::Dirs)?,
                unsent_files: view.counter(Counter::UnsentFiles)?,
                unsent_bytes: view.counter(Counter::UnsentBytes)?,
                content_bytes: view.counter(Counter::ContentBytes)? + part_bytes,
                dirty_places: view.counter(Counter::DirtyPlaces)?,
            })
        })
    }

    /// Commits everything and ends the writer. Reads go on working. If this fails, nothing is lost: the
    /// journal has what the database lacks.
    pub fn close(&self) -> Result<(), ReplicaError> {
        let seat = mem::replace(&mut *self.seat(), Seat::Left);
        if !matches!(seat, Seat::Left) {
            // Failing costs the next start a look at the unsent files, no more.
            if let Err(error) = recover::note_closing(&self.shared) {
                tracing::warn!(%error, "cannot note that the index was closed");
            }
            let mut state = self.shared.lock();
            if state.phase == Phase::Running {
                state.phase = Phase::Closing;
            }
        }
        self.shared.work.notify_one();
        match seat {
            Seat::Behind(thread) => {
                if thread.join().is_err() {
                    tracing::error!(
                        "the index's writer panicked; the journal keeps what it had to do"
                    );
                }
            }
            Seat::Here(writer) => writer.run(),
            Seat::Left => {}
        }
        self.shared.lock().fail()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the index was closed with changes in the journal only");
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
pub(super) mod tests;
