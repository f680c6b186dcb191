//! Verifies a whole replica, and repairs what can be repaired without losing what was never sent.
//!
//! Steps run in an order that lets later ones build on what earlier ones repaired: the file of the database,
//! the tree, the content, then what is counted. Each step asks SQLite itself, so everything pending is
//! committed before it. Repairs only ever add names, or remove what the server has too.

mod content;
mod rebuild;
mod salvage;
mod tree;

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use super::error::ReplicaError;
use super::index::Replica;
use super::open::{self, Lock, Opening};
use super::rows::Counter;
use super::schema;
use super::table;
use super::tx::Tx;
use crate::tree::{NodeId, Time};

type Result<T> = std::result::Result<T, ReplicaError>;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Nodes looked at.
    pub nodes: u64,
    /// Content files looked at.
    pub content_files: u64,
    /// All that is wrong, or was.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What, for people.
    pub what: String,
    /// Whether it is right now.
    pub repaired: bool,
}

impl CheckReport {
    /// Whether all is well now.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.repaired)
    }
}

/// Checks the replica in `state_dir`, which no daemon may be using; with `repair`, sets right what it can. An index
/// that is damaged is made anew then.
pub fn check(state_dir: &Path, repair: bool, now: Time) -> Result<CheckReport> {
    run(state_dir, repair, false, now)
}

/// The same, and reads all content that the server has, too: where it is not what was agreed on, the disk rots.
pub fn check_content(state_dir: &Path, repair: bool, now: Time) -> Result<CheckReport> {
    run(state_dir, repair, true, now)
}

fn run(state_dir: &Path, repair: bool, read_content: bool, now: Time) -> Result<CheckReport> {
    let lock = Arc::new(open::take_directory(state_dir)?);
    let look = || look(Arc::clone(&lock), state_dir, repair, read_content, now);
    match look() {
        Err(ReplicaError::Damaged { .. }) if repair => {}
        looked => return looked,
    }
    let what = rebuild::rebuild(state_dir, now)?;
    let mut report = look()?;
    let repaired = true;
    report.findings.insert(0, Finding { what, repaired });
    Ok(report)
}

fn look(
    lock: Arc<Lock>,
    state_dir: &Path,
    repair: bool,
    read_content: bool,
    now: Time,
) -> Result<CheckReport> {
    let replica = Replica::open_locked(lock, state_dir, Opening::new(now))?;
    let mut checker = Checker {
        db: schema::open_reader(&open::index_path(state_dir))?,
        replica,
        repair,
        read_content,
        now,
        report: CheckReport::default(),
    };
    if checker.database()? {
        checker.tree()?;
        checker.content()?;
        checker.dirty()?;
        checker.counters()?;
    }
    checker.replica.close()?;
    Ok(checker.report)
}

struct Checker {
    replica: Replica,
    db: Connection,
    repair: bool,
    /// Whether content is read, too.
    read_content: bool,
    now: Time,
    report: CheckReport,
}

impl Checker {
    /// Reports a finding; repairs it if that is wanted and possible.
    fn found(
        &mut self,
        what: impl Into<String>,
        repair: impl FnOnce(&mut Tx<'_>) -> Result<()>,
    ) -> Result<()> {
        if self.repair {
            self.replica.update(repair)?;
        }
        self.report.findings.push(Finding {
            what: what.into(),
            repaired: self.repair,
        });
        Ok(())
    }

    /// Reports a finding that nothing here can repair.
    fn found_for_good(&mut self, what: String) {
        self.report.findings.push(Finding {
            what,
            repaired: false,
        });
    }

    /// All rows of a query, after everything is committed.
    fn rows<T>(
        &self,
        query: &str,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.replica.sync()?;
        let rows = || {
            let mut statement = self.db.prepare(query)?;
            let rows = statement.query_map([], read)?;
            rows.collect::<rusqlite::Result<Vec<T>>>()
        };
        rows().map_err(|e| self.sql_error(e))
    }

    /// The nodes that a query names.
    fn ids(&self, query: &str) -> Result<Vec<NodeId>> {
        self.rows(query, |row| {
            Ok(NodeId(row.get::<_, i64>(0)?.cast_unsigned()))
        })
    }

    fn sql_error(&self, error: rusqlite::Error) -> ReplicaError {
        ReplicaError::sql(&open::index_path(self.replica.state_dir()), error)
    }

    /// A node's path for people.
    fn path(&self, node: NodeId) -> String {
        let path = self.replica.view(|view| view.local_path(node));
        match path {
            Ok(Some(path)) => path.to_string(),
            Ok(None) | Err(_) => format!("node {node}"),
        }
    }

    /// SQLite's own check; `false` if there is no use in looking further.
    fn database(&mut self) -> Result<bool> {
        let found = self.rows("PRAGMA integrity_check(20)", |row| row.get::<_, String>(0))?;
        let mut bad: Vec<String> = found.into_iter().filter(|line| line != "ok").collect();
        if bad.is_empty()
            && let Err(error) = table::read_all(&self.db)
        {
            bad.push(error.to_string());
        }
        if let Some(first) = bad.first().filter(|_| self.repair) {
            return Err(ReplicaError::Damaged {
                what: open::index_path(self.replica.state_dir()),
                detail: first.clone(),
            });
        }
        for line in &bad {
            self.found_for_good(format!("the index is damaged: {line}"));
        }
        Ok(bad.is_empty())
    }

    /// What has to be sent must be in the table that the work is found by.
    fn dirty(&mut self) -> Result<()> {
        let forgotten = self.ids(
            "SELECT id FROM node WHERE kind = 0 AND data_changed AND NOT scoped AND nlink > 0
             AND NOT EXISTS (SELECT 1 FROM link JOIN dirty USING (parent, name) WHERE link.node = node.id)",
        )?;
        let now = self.now;
        for node in forgotten {
            let what = format!(
                "{}: changed, but not on the list of what to send",
                self.path(node)
            );
            self.found(what, |tx| {
                for place in tx.places(node)? {
                    tx.mark_dirty(place, now)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What is counted along must be what counting gives.
    fn counters(&mut self) -> Result<()> {
        const FILES: &str = "FROM node WHERE kind = 0";
        const UNSENT: &str = "AND data_changed AND NOT scoped AND nlink > 0";
        let queries = [
            (
                Counter::Nodes,
                "SELECT count(*) FROM node WHERE nlink > 0".to_owned(),
            ),
            (
                Counter::Files,
                format!("SELECT count(*) {FILES} AND nlink > 0"),
            ),
            (
                Counter::Dirs,
                "SELECT count(*) FROM node WHERE kind = 1 AND nlink > 0".to_owned(),
            ),
            (
                Counter::UnsentFiles,
                format!("SELECT count(*) {FILES} {UNSENT}"),
            ),
            (
                Counter::UnsentBytes,
                format!("SELECT coalesce(sum(size), 0) {FILES} {UNSENT}"),
            ),
            (
                Counter::ContentBytes,
                format!("SELECT coalesce(sum(size), 0) {FILES} AND content = 2"),
            ),
            (
                Counter::DirtyPlaces,
                "SELECT count(*) FROM dirty".to_owned(),
            ),
        ];
        self.replica.sync()?;
        for (counter, query) in queries {
            let counted: Option<i64> = (self.db.query_row(&query, [], |row| row.get(0)))
                .optional()
                .map_err(|e| self.sql_error(e))?;
            let counted = counted.unwrap_or_default().cast_unsigned();
            let kept = self.replica.view(|view| view.counter(counter))?;
            if counter == Counter::Nodes {
                self.report.nodes = counted;
            }
            if counted != kept {
                let what = format!("counter {}: {kept} instead of {counted}", counter.name());
                self.found(what, |tx| {
                    tx.set_counter(counter, counted);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
