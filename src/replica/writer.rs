//! The thread that takes changes from memory into SQLite.
//!
//! Lost in order only: a commit contains whole journals, names the last of them, and these are removed only
//! afterwards. A failed commit is tried again for as long as it takes; meanwhile its rows stay readable in
//! memory and safe in the journal.

use std::mem;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::error::ReplicaError;
use super::index::{MANY_PENDING, Phase, Shared, State};
use super::journal;
use super::rows::Counter;
use super::settling::Settling;
use super::table::{self, Changes, Counters};
use crate::tree::NodeId;

/// How long changes are gathered before a commit.
const GATHER: Duration = Duration::from_millis(50);
/// How long content of removed nodes may outlive them, if nobody asks for durability earlier.
const BURY_WITHIN: Duration = Duration::from_secs(2);
/// The log begins anew after so many rows, a few MiB.
const RESTART_AFTER: usize = 10_000;
/// Waits between attempts of a failing commit.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// Attempts of a failing commit when closing.
const LAST_ATTEMPTS: u32 = 3;

/// The writer's own things.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) db: Connection,
    /// Nodes whose removal was committed and whose content is still there.
    pub(super) graves: Vec<NodeId>,
    pub(super) last_durable: Instant,
    /// Rows written since the log began anew.
    pub(super) rows: usize,
    pub(super) settling: Settling,
    /// What a turn could not commit, for the next one.
    pub(super) unfinished: Option<Batch>,
}

/// What one commit takes over.
pub(super) struct Batch {
    changes: Arc<Changes>,
    /// The last journal in it.
    journal: u64,
    /// The acknowledged updates in it.
    updates: u64,
}

impl Writer {
    /// Works until the replica closes.
    pub(super) fn run(mut self) {
        if let Some(batch) = self.unfinished.take()
            && !self.commit_until_done(&batch)
        {
            return;
        }
        while let Some(batch) = self.next_batch() {
            if !self.commit_until_done(&batch) {
                return;
            }
            self.settling.settle(&self.shared);
        }
        let state = self.shared.lock();
        state.stored.end();
        if let Err(error) = self
            .db
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        {
            tracing::warn!(%error, "cannot checkpoint the index");
        }
    }

    /// Commits what is pending, in one attempt; durably if `durable`, with all that is written meanwhile.
    pub(super) fn turn(&mut self, durable: bool) -> Result<(), ReplicaError> {
        // What has to be buried waits until somebody asks for durability.
        self.last_durable = Instant::now();
        loop {
            let mut state = self.shared.lock();
            if durable && state.durable == state.updates {
                return Ok(());
            }
            if durable {
                state.wanted = state.updates;
            }
            let unfinished = self.unfinished.take();
            let batch = match unfinished.map_or_else(|| take(&mut state), Ok) {
                Ok(batch) => batch,
                Err(error) => return Err(self.shared.tell(&mut state, error)),
            };
            drop(state);
            let done = self.commit(&batch);
            let mut state = self.shared.lock();
            if let Err(error) = done {
                self.unfinished = Some(batch);
                return Err(self.shared.tell(&mut state, error));
            }
            if !durable || batch.updates == state.updates {
                return Ok(());
            }
        }
    }

    /// Waits for work; `None` if there will be none.
    fn next_batch(&mut self) -> Option<Batch> {
        loop {
            match self.try_next() {
                Ok(batch) => return batch,
                // Without room for the next journal nothing is committed, and nothing would be removed for ever.
                Err(doomed) => {
                    self.graves.extend(doomed);
                    self.bury();
                }
            }
        }
    }

    /// The same, unless the disk is full: then it names the nodes whose removal is in the journal.
    fn try_next(&self) -> Result<Option<Batch>, Vec<NodeId>> {
        let mut state = self.wait_for_work();
        loop {
            let closing = state.phase == Phase::Closing;
            if closing && state.pending.len() == 0 && state.durable == state.updates {
                return Ok(None);
            }
            let error = match take(&mut state) {
                Ok(batch) => return Ok(Some(batch)),
                Err(error) => error,
            };
            let no_space = matches!(error, ReplicaError::NoSpace { .. });
            self.shared.failed(&mut state, error);
            if closing {
                return Ok(None);
            }
            state = self
                .shared
                .pause(state, FIRST_BACKOFF, |s| s.phase != Phase::Closing)
                .0;
            let doomed: Vec<_> = state.pending.doomed().collect();
            if no_space && (!doomed.is_empty() || !self.graves.is_empty()) {
                return Err(doomed);
            }
        }
    }

    fn wait_for_work(&self) -> MutexGuard<'_, State> {
        let asked = |state: &State| state.wanted > state.durable || state.phase != Phase::Running;
        let mut state = self.shared.lock();
        while state.pending.len() == 0 && !asked(&state) {
            let until_settled = self.settling.due_in();
            let within = match self.graves.is_empty() {
                true => until_settled,
                false => Some(BURY_WITHIN.min(until_settled.unwrap_or(BURY_WITHIN))),
            };
            let Some(within) = within else {
                let woken = self.shared.work.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let timed_out;
            (state, timed_out) = self.shared.pause(state, within, |state| {
                state.pending.len() == 0 && !asked(state)
            });
            if timed_out {
                return state;
            }
        }
        let gathering = |state: &State| state.pending.len() < MANY_PENDING && !asked(state);
        self.shared.pause(state, GATHER, gathering).0
    }

    /// Commits with back-off; `false` if it gave up since the replica closes.
    fn commit_until_done(&mut self, batch: &Batch) -> bool {
        let mut backoff = FIRST_BACKOFF;
        let mut attempts_left = LAST_ATTEMPTS;
        let mut told = false;
        loop {
            let result = self.commit(batch);
            let Err(error) = result else {
                return true;
            };
            let damaged = matches!(error, ReplicaError::Damaged { .. });
            match damaged {
                // It shows in the status; saying it every few seconds does not mend it.
                true if told => {}
                true => tracing::error!(%error, "cannot commit to the index"),
                false => tracing::warn!(%error, "cannot commit to the index; trying again"),
            }
            told = damaged;
            let no_space = matches!(error, ReplicaError::NoSpace { .. });
            let mut state = self.shared.lock();
            self.shared.failed(&mut state, error);
            if state.phase == Phase::Closing {
                attempts_left -= 1;
                if attempts_left == 0 {
                    return false;
                }
            }
            let (requests, phase) = (state.requests, state.phase);
            let unasked = |state: &State| (state.requests, state.phase) == (requests, phase);
            drop(self.shared.pause(state, backoff, unasked));
            backoff = (backoff * 2).min(LAST_BACKOFF);
            if no_space {
                // Their removal is in the journal: rather these a little early than a disk that stays full.
                self.graves.extend(batch.changes.doomed());
                self.bury();
            }
        }
    }

    /// One attempt.
    fn commit(&mut self, batch: &Batch) -> Result<(), ReplicaError> {
        let durable = {
            let state = self.shared.lock();
            state.wanted > state.durable
                || state.phase == Phase::Closing
                || !self.graves.is_empty() && self.last_durable.elapsed() >= BURY_WITHIN
        };
        write(&mut self.db, &batch.changes, batch.journal, durable)
            .map_err(|e| self.shared.lock().sql_error(e))?;
        {
            let mut state = self.shared.lock();
            let done = mem::take(&mut state.committing);
            state.stored.renew(&done);
            state.failure = None;
            if durable {
                state.durable = batch.updates;
            }
            drop(state);
            drop(done);
            self.shared.tried.notify_all();
        }
        if let Err(error) = journal::remove_up_to(&self.shared.state_dir, batch.journal) {
            tracing::warn!(%error, "cannot remove a journal that is committed");
        }
        self.rows += batch.changes.len();
        if self.rows >= RESTART_AFTER {
            self.restart_log();
        }
        self.graves.extend(batch.changes.doomed());
        self.settling.add(batch.changes.unsynced());
        if durable {
            self.last_durable = Instant::now();
            self.bury();
        }
        Ok(())
    }

    /// Lets SQLite's log begin anew, which it cannot while a snapshot reads in it. All that takes long is done
    /// before anybody waits.
    fn restart_log(&mut self) {
        self.rows = 0;
        let checkpoint = |mode: &str| {
            let pragma = format!("PRAGMA wal_checkpoint({mode})");
            if let Err(error) = self.db.query_row(&pragma, [], |_| Ok(())) {
                tracing::warn!(%error, "cannot checkpoint the index");
            }
        };
        checkpoint("PASSIVE");
        let state = self.shared.lock();
        state.stored.end();
        checkpoint("RESTART");
    }

    /// Removes the content of nodes whose removal is safe.
    fn bury(&mut self) {
        for node in mem::take(&mut self.graves) {
            let removed = self.shared.content.remove(node);
            let forgotten = removed.and_then(|()| {
                let mut state = self.shared.lock();
                self.shared.update_locked(&mut state, |tx| {
                    tx.bury(node);
                    Ok(())
                })
            });
            if let Err(error) = forgotten {
                tracing::warn!(%error, "content of a removed file is left until the next start");
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().phase = Phase::Closed;
        self.shared.tried.notify_all();
    }
}

/// Moves what is pending to where it is committed from.
fn take(state: &mut State) -> Result<Batch, ReplicaError> {
    let journal = if state.journal.is_empty() {
        state.journal.number - 1
    } else {
        state.journal.rotate()?
    };
    state.committing = Arc::new(mem::take(&mut state.pending));
    Ok(Batch {
        changes: Arc::clone(&state.committing),
        journal,
        updates: state.updates,
    })
}

/// Applies `changes` and notes that they end with `journal`. If `durable`, the commit and all before it
/// survive power loss.
pub(super) fn write(
    db: &mut Connection,
    changes: &Changes,
    journal: u64,
    durable: bool,
) -> rusqlite::Result<()> {
    let level = if durable { "FULL" } else { "NORMAL" };
    db.pragma_update(None, "synchronous", level)?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    changes.apply(&tx)?;
    Changes::counter(Counter::AppliedJournal, journal).apply(&tx)?;
    if durable {
        // SQLite syncs nothing if no byte changes, though the commits before it were not synced.
        let count = table::get::<Counters>(&tx, &Counter::DurableCommits)?.unwrap_or_default();
        Changes::counter(Counter::DurableCommits, count + 1).apply(&tx)?;
    }
    tx.commit()
}

impl Shared {
    /// Tells everybody who waits that a commit failed.
    fn failed(&self, state: &mut State, error: ReplicaError) {
        state.failure = Some(error);
        state.failures += 1;
        self.tried.notify_all();
    }

    /// The same, and tells the caller too.
    fn tell(&self, state: &mut State, error: ReplicaError) -> ReplicaError {
        let told = error.again();
        self.failed(state, error);
        told
    }

    /// Waits for work for at most `time`, as long as `hold` says so; also returns whether it took that long.
    fn pause<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        time: Duration,
        hold: impl Fn(&State) -> bool,
    ) -> (MutexGuard<'a, State>, bool) {
        let waited = self
            .work
            .wait_timeout_while(state, time, |state| hold(state));
        let (state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        (state, result.timed_out())
    }
}
