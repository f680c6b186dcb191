//! The index's tables as SQLite holds them, their version, and the connections.
//!
//! Rows are kept small: a file takes a row in `node`, `link` and `base`, under 400 bytes together. Reverse
//! look-ups are SQLite indexes. Times are nanoseconds since the epoch except in versions, which have the
//! server's whole seconds; names, paths and link targets are blobs; kinds are file 0, directory 1, symlink 2,
//! FIFO 3, socket 4, other 5; content is absent 0, partial 1, whole 2.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{AtPath, ReplicaError};

/// The format written here, SQLite's `user_version`.
pub(super) const FORMAT: u32 = 5;

/// A number beyond this was written by no version.
const PLAUSIBLE: u32 = 1000;

/// The steps to each format from the one before; never edited once released, only added to.
const MIGRATIONS: [&str; FORMAT as usize] = [
    "
    CREATE TABLE node (
        id INTEGER PRIMARY KEY,
        kind INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
        size INTEGER NOT NULL, atime INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
        nlink INTEGER NOT NULL, target BLOB NOT NULL, content INTEGER NOT NULL,
        data_changed INTEGER NOT NULL, data_seq INTEGER NOT NULL, hash BLOB,
        listed INTEGER NOT NULL, scoped INTEGER NOT NULL
    );
    CREATE TABLE link (
        parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL,
        PRIMARY KEY (parent, name)
    ) WITHOUT ROWID;
    CREATE INDEX link_node ON link (node, parent, name);
    CREATE TABLE base (
        parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL,
        kind INTEGER NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, mode INTEGER NOT NULL,
        target BLOB NOT NULL, hash BLOB,
        PRIMARY KEY (parent, name)
    ) WITHOUT ROWID;
    CREATE INDEX base_node ON base (node, parent, name);
    CREATE TABLE remote (
        parent INTEGER NOT NULL, name BLOB NOT NULL, seen_at INTEGER NOT NULL,
        kind INTEGER, size INTEGER, mtime INTEGER, mode INTEGER, target BLOB, hash BLOB,
        PRIMARY KEY (parent, name)
    ) WITHOUT ROWID;
    CREATE TABLE dirty (
        parent INTEGER NOT NULL, name BLOB NOT NULL, since INTEGER NOT NULL,
        PRIMARY KEY (parent, name)
    ) WITHOUT ROWID;
    CREATE TABLE xattr (
        node INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (node, name)
    ) WITHOUT ROWID;
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE intent (
        parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL, data_seq INTEGER NOT NULL,
        number INTEGER NOT NULL, kind INTEGER NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
        mode INTEGER NOT NULL, target BLOB NOT NULL, hash BLOB, from_parent INTEGER, from_name BLOB,
        PRIMARY KEY (parent, name)
    ) WITHOUT ROWID;
    CREATE TABLE backup (
        id INTEGER PRIMARY KEY, path BLOB NOT NULL,
        kind INTEGER NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, mode INTEGER NOT NULL,
        target BLOB NOT NULL, hash BLOB, at INTEGER NOT NULL, why TEXT NOT NULL, unsent INTEGER NOT NULL
    );
    CREATE TABLE problem (
        parent INTEGER NOT NULL, name BLOB NOT NULL, path BLOB NOT NULL, message TEXT NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY (parent, name)
    ) WITHOUT ROWID;
    CREATE TABLE in_flight (node INTEGER PRIMARY KEY);
    CREATE TABLE doomed (node INTEGER PRIMARY KEY);
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
",
    "
    CREATE TABLE unsynced (node INTEGER PRIMARY KEY, since INTEGER NOT NULL);
",
    "
    CREATE TABLE deed (
        pass INTEGER NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, on_server INTEGER NOT NULL,
        kind INTEGER NOT NULL, path BLOB NOT NULL, from_path BLOB NOT NULL,
        before_kind INTEGER, before_size INTEGER, before_mtime INTEGER, before_mode INTEGER,
        before_target BLOB, before_hash BLOB,
        after_kind INTEGER, after_size INTEGER, after_mtime INTEGER, after_mode INTEGER,
        after_target BLOB, after_hash BLOB, kept TEXT NOT NULL,
        PRIMARY KEY (pass, number)
    ) WITHOUT ROWID;
",
    "
    CREATE INDEX base_looks ON base (size, mtime, parent, name);
    CREATE TABLE racy (parent INTEGER NOT NULL, name BLOB NOT NULL, PRIMARY KEY (parent, name)) WITHOUT ROWID;
",
    "
    CREATE TABLE pin (node INTEGER PRIMARY KEY);
",
];

/// Begins every database.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Memory for pages, in KiB, per connection.
const CACHE_KIB: i64 = 16 * 1024;

/// Opens the index at `path` to write, with the format that it has; 0: no tables yet. To be migrated.
pub(super) fn open_writer(path: &Path) -> Result<(Connection, u32), ReplicaError> {
    let sql = |e| ReplicaError::sql(path, e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let db = connect(path, flags).map_err(sql)?;
    let found = format(&db).map_err(sql)?;
    if found > PLAUSIBLE {
        return Err(ReplicaError::Damaged {
            what: path.to_owned(),
            detail: format!("format {found}"),
        });
    }
    if found > FORMAT {
        return Err(ReplicaError::TooNew {
            path: path.to_owned(),
            found,
            known: FORMAT,
        });
    }
    db.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
    db.pragma_update(None, "synchronous", "NORMAL")
        .map_err(sql)?;
    Ok((db, found))
}

fn format(db: &Connection) -> rusqlite::Result<u32> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Makes the tables, or takes them from the format `found` up to this one.
pub(super) fn migrate(db: &mut Connection, found: u32) -> rusqlite::Result<()> {
    for (version, step) in (1_u32..).zip(MIGRATIONS).skip(found as usize) {
        let tx = db.transaction()?;
        tx.execute_batch(step)?;
        tx.pragma_update(None, "user_version", version)?;
        tx.commit()?;
    }
    Ok(())
}

/// A connection that only reads an index that `open_writer` has seen.
pub(super) fn open_reader(path: &Path) -> Result<Connection, ReplicaError> {
    let open = || {
        let db = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.pragma_update(None, "query_only", true)?;
        Ok(db)
    };
    open().map_err(|e| ReplicaError::sql(path, e))
}

/// A connection to an index that may be damaged, whatever its version says. `path` is a copy, and its beginning is set
/// right: without it SQLite would not look at the rest.
pub(super) fn open_damaged(path: &Path) -> Result<Connection, ReplicaError> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .at(path)?;
    file.write_all_at(SQLITE, 0).at(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    connect(path, flags).map_err(|e| ReplicaError::sql(path, e))
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(Duration::from_millis(100))?;
    db.set_prepared_statement_cache_capacity(64);
    // Else SQLite plans each query over keys anew, since statistics could make one value's plan better.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(db)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_any_older_format_comes_to_have_the_same_tables() {
        let tables = |from: u32| {
            let mut db = Connection::open_in_memory().unwrap();
            for step in &MIGRATIONS[..from as usize] {
                db.execute_batch(step).unwrap();
            }
            migrate(&mut db, from).unwrap();
            assert_eq!(format(&db).unwrap(), FORMAT);
            let mut names = db
                .prepare("SELECT sql FROM sqlite_schema ORDER BY name")
                .unwrap();
            let rows = names
                .query_map([], |row| row.get::<_, Option<String>>(0))
                .unwrap();
            rows.map(Result::unwrap).collect::<Vec<_>>()
        };
        for from in 1..FORMAT {
            assert_eq!(tables(from), tables(0), "{from}");
        }
    }

    #[test]
    fn a_migration_that_is_killed_goes_on_where_it_was() {
        for step in 0..MIGRATIONS.len() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("index.db");
            let mut db = Connection::open(&path).unwrap();
            let mode: String = db
                .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
                .unwrap();
            assert_eq!(mode, "wal");
            for done in &MIGRATIONS[..step] {
                db.execute_batch(done).unwrap();
            }
            db.pragma_update(None, "user_version", step as u32).unwrap();
            let tx = db.transaction().unwrap();
            tx.execute_batch(MIGRATIONS[step]).unwrap();
            // What is on the disk at the death of the process.
            let copy = tempfile::tempdir().unwrap();
            for file in std::fs::read_dir(dir.path()).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
            let mut db = Connection::open(copy.path().join("index.db")).unwrap();
            let found = format(&db).unwrap();
            assert_eq!(found, step as u32);
            migrate(&mut db, found).unwrap();
            assert_eq!(format(&db).unwrap(), FORMAT);
        }
    }
}
