//! What can still be read of a damaged index: rows from both ends of each table up to the damage, the same from its
//! indexes, and the journals on top.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::super::error::AtPath;
use super::super::rows::Counter;
use super::super::table::{
    Backups, Changes, Counters, Links, LinksOf, Meta, Nodes, Pins, Table, Xattrs, each_row,
};
use super::super::{journal, open, schema};
use super::Result;

/// What was read; never more than what was there.
pub(super) struct Salvage {
    pub(super) rows: Changes,
    /// The number of the last journal there was.
    pub(super) last_journal: u64,
}

/// Reads the index in `aside`, by way of a copy: SQLite changes what it opens.
pub(super) fn salvage(aside: &Path) -> Result<Salvage> {
    let scratch = aside.join("reading");
    remove_tree(&scratch)?;
    fs::create_dir(&scratch).at(&scratch)?;
    for entry in fs::read_dir(aside).at(aside)? {
        let path = entry.at(aside)?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            // What the disk does not give is as good as lost.
            drop(fs::copy(&path, scratch.join(name)));
        }
    }
    let mut rows = Changes::default();
    let index = open::index_path(&scratch);
    if index.exists() {
        match schema::open_damaged(&index) {
            Ok(db) => read(&db, &mut rows),
            Err(error) => tracing::warn!(%error, "nothing can be read of the index"),
        }
    }
    let salvage = with_journals(&scratch, rows)?;
    remove_tree(&scratch)?;
    Ok(salvage)
}

fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.at(dir),
    }
}

fn read(db: &Connection, rows: &mut Changes) {
    table::<Nodes>(db, rows);
    table::<Links>(db, rows);
    let mut by_node = Changes::default();
    table::<LinksOf>(db, &mut by_node);
    for (node, place) in LinksOf::rows(&by_node).keys() {
        let links = Links::rows_mut(rows);
        links.entry(place.clone()).or_insert(Some(*node));
    }
    table::<Backups>(db, rows);
    table::<Xattrs>(db, rows);
    table::<Pins>(db, rows);
    table::<Meta>(db, rows);
    table::<Counters>(db, rows);
}

/// Reads from both ends, since nothing behind a damaged page can be reached by way of it.
fn table<T: Table>(db: &Connection, rows: &mut Changes) {
    for sql in &T::sql().all {
        if let Ok(()) = one_way::<T>(db, sql, rows) {
            return;
        }
    }
}

fn one_way<T: Table>(db: &Connection, sql: &str, rows: &mut Changes) -> rusqlite::Result<()> {
    each_row::<T>(db, sql, |row| {
        // A row that makes no sense is no reason to leave out those behind it.
        if let Ok((key, value)) = row {
            T::rows_mut(rows).insert(key, Some(value));
        }
        Ok(())
    })
}

/// Adds what the journals say. Where it is not known which of them the index has, all of them count: their rows are
/// whole, and those it has are gone soon.
fn with_journals(dir: &Path, mut rows: Changes) -> Result<Salvage> {
    let numbers = journal::numbers(dir)?;
    let first = numbers.first().map_or(0, |first| first.saturating_sub(1));
    let applied = rows.counter_put(Counter::AppliedJournal).unwrap_or(first);
    let last = numbers.last().copied().unwrap_or_default();
    match journal::replay(dir, applied) {
        Ok(replayed) => rows.absorb(replayed.changes),
        Err(error) => tracing::warn!(%error, "the journals cannot be read"),
    }
    Ok(Salvage {
        rows,
        last_journal: last.max(applied),
    })
}
