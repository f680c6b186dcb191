//! The tables of the index: what their rows are, and how one is read and written.
//!
//! Tables marked `index_of` are not stored: SQLite's indexes of another table hold the same. Their rows
//! exist in `Changes` only, so that ranges over them see what SQLite does not have yet.

mod sql;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::LazyLock;

use hashlink::LruCache;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Result};
use serde::{Deserialize, Serialize};

use super::columns::{Binder, Columns, DEED_COLUMNS, Reader};
use super::rows::{Counter, Deed, Intent, LocalBackup, Node, Observation, Problem};
use super::stored::CACHED_ROWS;
use crate::tree::{BaseEntry, NodeId, Place, Time};
pub(super) use sql::Sql;

/// Changed rows of one table by key; `None` removes.
pub(super) type Rows<T> = BTreeMap<<T as Table>::Key, Option<<T as Table>::Value>>;

/// Rows of one table as SQLite holds them, those asked for lately; `None` is one that is not there.
pub(super) type Cache<T> = RefCell<LruCache<<T as Table>::Key, Option<<T as Table>::Value>>>;

/// One table of the index.
pub(super) trait Table {
    /// What finds a row. Ordered as SQLite orders its columns.
    type Key: Columns + Ord + Hash + Clone;
    /// The rest of the row.
    type Value: Columns + Clone;

    /// Its SQL.
    fn sql() -> &'static Sql;
    /// Its part of a set of changes.
    fn rows(changes: &Changes) -> &Rows<Self>;
    /// Its rows in memory.
    fn cache(caches: &Caches) -> &Cache<Self>;
    /// Its part of a set of changes, to add to.
    fn rows_mut(changes: &mut Changes) -> &mut Rows<Self>;
}

/// Declares the tables and a set of changes to all of them.
macro_rules! tables {
    ($( $(#[$doc:meta])* $field:ident: $Table:ident($Key:ty => $Value:ty) = $sql:expr; )*) => {
        $(
            $(#[$doc])*
            pub(super) struct $Table;

            impl Table for $Table {
                type Key = $Key;
                type Value = $Value;

                fn sql() -> &'static Sql {
                    static SQL: LazyLock<Sql> = LazyLock::new(|| $sql);
                    &SQL
                }

                fn rows(changes: &Changes) -> &Rows<Self> {
                    &changes.$field
                }

                fn cache(caches: &Caches) -> &Cache<Self> {
                    &caches.$field
                }

                fn rows_mut(changes: &mut Changes) -> &mut Rows<Self> {
                    &mut changes.$field
                }
            }
        )*

        /// Changes to rows of all tables. Applying the same changes twice does no harm.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub(super) struct Changes {
            $( $field: BTreeMap<$Key, Option<$Value>>, )*
        }

        impl Changes {
            /// How many rows change.
            pub(super) fn len(&self) -> usize {
                0 $( + self.$field.len() )*
            }

            /// Adds `newer` changes; they win.
            pub(super) fn absorb(&mut self, newer: Self) {
                $( self.$field.extend(newer.$field); )*
            }

            /// Writes them to the database.
            pub(super) fn apply(&self, db: &Connection) -> Result<()> {
                $( write_rows::<$Table>(db, &self.$field)?; )*
                Ok(())
            }
        }

        /// Rows of all tables as SQLite holds them, those asked for lately.
        pub(super) struct Caches {
            $( $field: Cache<$Table>, )*
        }

        impl Default for Caches {
            fn default() -> Self {
                Self { $( $field: RefCell::new(LruCache::new(CACHED_ROWS)), )* }
            }
        }

        impl Caches {
            /// Brings the rows up to what was committed.
            pub(super) fn replace(&mut self, committed: &Changes) {
                $(
                    let cache = self.$field.get_mut();
                    for (key, value) in &committed.$field {
                        if let Some(known) = cache.get_mut(key) {
                            known.clone_from(value);
                        }
                    }
                )*
            }
        }

        /// Reads all rows of all tables: what they mean, SQLite itself does not check.
        pub(super) fn read_all(db: &Connection) -> Result<()> {
            $( each_row::<$Table>(db, &$Table::sql().all[0], |row| row.map(drop))?; )*
            Ok(())
        }

        /// The SQL of every table, for a look at the query plans.
        #[cfg(test)]
        pub(super) fn all_sql() -> Vec<&'static Sql> {
            vec![$( $Table::sql() ),*]
        }
    };
}

tables! {
    /// The local tree's nodes.
    nodes: Nodes(NodeId => Node) = Sql::whole(
        "node",
        &["id"],
        &[
            "id", "kind", "mode", "uid", "gid", "size", "atime", "mtime", "ctime", "nlink", "target",
            "content", "data_changed", "data_seq", "hash", "listed", "scoped",
        ],
    );
    /// The local tree's directory entries.
    links: Links(Place => NodeId) = Sql::table("link", &["parent", "name"], &["node"]);
    /// Where a node is linked.
    links_of: LinksOf((NodeId, Place) => ()) = Sql::index_of("link", &["node", "parent", "name"]);
    /// The base tree.
    base: Base(Place => BaseEntry) = Sql::table(
        "base",
        &["parent", "name"],
        &["node", "kind", "size", "mtime", "mode", "target", "hash"],
    );
    /// Where a node stands in the base tree.
    base_of: BaseOf((NodeId, Place) => ()) = Sql::index_of("base", &["node", "parent", "name"]);
    /// Where the base tree has something of a size and a time.
    base_like: BaseLike(((u64, i64), Place) => ()) =
        Sql::index_of("base", &["size", "mtime", "parent", "name"]);
    /// What was seen on the server and differs from base.
    remote: Remote(Place => Observation) = Sql::table(
        "remote",
        &["parent", "name"],
        &["seen_at", "kind", "size", "mtime", "mode", "target", "hash"],
    );
    /// Places where local differs from base, and since when.
    dirty: Dirty(Place => Time) = Sql::table("dirty", &["parent", "name"], &["since"]);
    /// Places where what was seen may have changed since without showing it.
    racy: Racy(Place => ()) = Sql::table("racy", &["parent", "name"], &[]);
    /// Extended attributes.
    xattrs: Xattrs((NodeId, Vec<u8>) => Vec<u8>) = Sql::table("xattr", &["node", "name"], &["value"]);
    /// Small things other layers remember.
    meta: Meta(String => Vec<u8>) = Sql::table("meta", &["name"], &["value"]);
    /// What is about to be on the server.
    intents: Intents(Place => Intent) = Sql::table(
        "intent",
        &["parent", "name"],
        &[
            "node", "data_seq", "number", "kind", "size", "mtime", "mode", "target", "hash",
            "from_parent", "from_name",
        ],
    );
    /// Content kept in `backups/`.
    backups: Backups(u64 => LocalBackup) = Sql::whole(
        "backup",
        &["id"],
        &["id", "path", "kind", "size", "mtime", "mode", "target", "hash", "at", "why", "unsent"],
    );
    /// What passes did, by pass and number.
    deeds: Deeds((u64, u64) => Deed) = Sql::table("deed", &["pass", "number"], &DEED_COLUMNS);
    /// What a person should know.
    problems: Problems(Place => Problem) =
        Sql::table("problem", &["parent", "name"], &["path", "message", "since"]);
    /// Nodes whose content may differ from their row.
    in_flight: InFlight(NodeId => ()) = Sql::table("in_flight", &["node"], &[]);
    /// Nodes that are gone and whose content goes once that is durable.
    doomed: Doomed(NodeId => ()) = Sql::table("doomed", &["node"], &[]);
    /// Nodes whose content stays here, and that of all that is in them.
    pins: Pins(NodeId => ()) = Sql::table("pin", &["node"], &[]);
    /// Nodes whose content the server has, while power loss may still take it from here.
    unsynced: Unsynced(NodeId => u64) = Sql::table("unsynced", &["node"], &["since"]);
    /// Numbers kept beside the rows.
    counters: Counters(Counter => u64) = Sql::table("counter", &["name"], &["value"]);
}

impl Changes {
    /// One counter's new value.
    pub(super) fn counter(counter: Counter, value: u64) -> Self {
        let mut changes = Self::default();
        changes.counters.insert(counter, Some(value));
        changes
    }

    /// The value these changes give a counter.
    pub(super) fn counter_put(&self, counter: Counter) -> Option<u64> {
        self.counters.get(&counter).copied().flatten()
    }

    /// The nodes doomed by these changes.
    pub(super) fn doomed(&self) -> impl Iterator<Item = NodeId> + '_ {
        let doomed = self.doomed.iter().filter(|(_, row)| row.is_some());
        doomed.map(|(node, _)| *node)
    }

    /// The nodes whose content these changes leave for the disk to keep.
    pub(super) fn unsynced(&self) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        self.unsynced
            .iter()
            .filter_map(|(id, since)| Some((*id, (*since)?)))
    }

    /// The nodes whose places these changes change.
    pub(super) fn linked(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.links_of.keys().map(|(node, _)| *node)
    }

    /// The nodes put by these changes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().flatten()
    }
}

/// One stored row.
pub(super) fn get<T: Table>(db: &Connection, key: &T::Key) -> Result<Option<T::Value>> {
    let mut statement = db.prepare_cached(&T::sql().get)?;
    key.bind(&mut Binder::new(&mut statement))?;
    first_row(&mut statement, T::Value::read).optional()
}

fn first_row<V>(
    statement: &mut CachedStatement<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<V>,
) -> Result<V> {
    let mut rows = statement.raw_query();
    match rows.next()? {
        Some(row) => read(&mut Reader::new(row)),
        None => Err(rusqlite::Error::QueryReturnedNoRows),
    }
}

/// Up to `limit` stored rows with keys from `start` (inclusive) to `end` (exclusive), in order.
pub(super) fn range<T: Table>(
    db: &Connection,
    start: &T::Key,
    end: &T::Key,
    limit: usize,
) -> Result<Vec<(T::Key, T::Value)>> {
    let mut statement = db.prepare_cached(&T::sql().range)?;
    let mut binder = Binder::new(&mut statement);
    start.bind(&mut binder)?;
    end.bind(&mut binder)?;
    binder.put(i64::try_from(limit).unwrap_or(i64::MAX))?;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let mut from = Reader::new(row);
        found.push((T::Key::read(&mut from)?, T::Value::read(&mut from)?));
    }
    Ok(found)
}

/// Shows `see` what the rows that `sql` finds mean, each if it means anything, until it fails.
pub(super) fn each_row<T: Table>(
    db: &Connection,
    sql: &str,
    mut see: impl FnMut(Result<(T::Key, T::Value)>) -> Result<()>,
) -> Result<()> {
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        see(<(T::Key, T::Value)>::read(&mut Reader::new(row)))?;
    }
    Ok(())
}

fn write_rows<T: Table>(db: &Connection, rows: &Rows<T>) -> Result<()> {
    let Some(write) = &T::sql().write else {
        return Ok(());
    };
    if rows.is_empty() {
        return Ok(());
    }
    let mut put = db.prepare_cached(&write.put)?;
    let mut delete = db.prepare_cached(&write.delete)?;
    for (key, value) in rows {
        let statement = if value.is_some() {
            &mut put
        } else {
            &mut delete
        };
        let mut binder = Binder::new(statement);
        if value.is_none() || !write.whole {
            key.bind(&mut binder)?;
        }
        if let Some(value) = value {
            value.bind(&mut binder)?;
        }
        statement.raw_execute()?;
    }
    Ok(())
}
