//! How the values of the index lie in the columns of a row.
//!
//! `bind` and `read` of one type use the same columns in the same order. Numbers that tell kinds apart are
//! part of the format: never renumber them.

use rusqlite::types::{FromSql, ToSql, Type};
use rusqlite::{Error, Result, Row, Statement};

use super::rows::{
    Content, Counter, Deed, DeedKind, Intent, LocalBackup, Node, Observation, Problem,
};
use crate::tree::{BaseEntry, Hash, Kind, Name, NodeId, Place, RelPath, Time, Version};

/// A value that takes a fixed number of columns.
pub(super) trait Columns: Sized {
    /// Binds its columns to the next parameters.
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()>;
    /// Reads its columns from the next ones of a row.
    fn read(from: &mut Reader<'_>) -> Result<Self>;
}

/// Fills the parameters of a statement from left to right.
pub(super) struct Binder<'a, 's> {
    statement: &'a mut Statement<'s>,
    next: usize,
}

impl<'a, 's> Binder<'a, 's> {
    /// Starts at the first parameter.
    pub(super) fn new(statement: &'a mut Statement<'s>) -> Self {
        Self { statement, next: 1 }
    }

    /// Binds one parameter.
    pub(super) fn put(&mut self, value: impl ToSql) -> Result<()> {
        self.statement.raw_bind_parameter(self.next, value)?;
        self.next += 1;
        Ok(())
    }

    /// Binds a number that SQLite has to hold in 63 bits. A greater one becomes the greatest: it is acknowledged, so a
    /// row that never gets in would hold up all that come after it.
    pub(super) fn put_u64(&mut self, value: u64) -> Result<()> {
        self.put(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

/// Takes the columns of a row from left to right.
pub(super) struct Reader<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first column.
    pub(super) fn new(row: &'a Row<'a>) -> Self {
        Self { row, next: 0 }
    }

    /// Takes one column.
    pub(super) fn take<T: FromSql>(&mut self) -> Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    /// Takes a number that is never negative.
    fn take_u64(&mut self) -> Result<u64> {
        let value: i64 = self.take()?;
        u64::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(self.next - 1, value))
    }

    /// The error for a value that no program of this format wrote.
    fn bad<T>(&self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Result<T> {
        Err(Error::FromSqlConversionFailure(
            self.next - 1,
            Type::Blob,
            why.into(),
        ))
    }
}

impl Columns for () {
    fn bind(&self, _: &mut Binder<'_, '_>) -> Result<()> {
        Ok(())
    }

    fn read(_: &mut Reader<'_>) -> Result<Self> {
        Ok(())
    }
}

impl<A: Columns, B: Columns> Columns for (A, B) {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        self.0.bind(to)?;
        self.1.bind(to)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

impl Columns for u64 {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        to.put_u64(*self)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        from.take_u64()
    }
}

/// Types that SQLite holds as they are.
macro_rules! plain_columns {
    ($($plain:ty),*) => { $(
        impl Columns for $plain {
            fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
                to.put(self)
            }

            fn read(from: &mut Reader<'_>) -> Result<Self> {
                from.take()
            }
        }
    )* };
}

plain_columns!(i64, u32, bool, String, Vec<u8>);

impl Columns for NodeId {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        to.put_u64(self.0)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Self(from.take_u64()?))
    }
}

impl Columns for Time {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        to.put(self.0)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Self(from.take()?))
    }
}

impl Columns for Name {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        to.put(self.as_bytes())
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let bytes: Vec<u8> = from.take()?;
        Self::new(&bytes).or_else(|e| from.bad(e))
    }
}

impl Columns for RelPath {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        to.put(self.to_bytes())
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let bytes: Vec<u8> = from.take()?;
        Self::parse(&bytes).or_else(|e| from.bad(e))
    }
}

impl Columns for Place {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        self.parent.bind(to)?;
        self.name.bind(to)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Self::new(NodeId::read(from)?, Name::read(from)?))
    }
}

/// No place is a row whose parent is NULL.
impl Columns for Option<Place> {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        match self {
            Some(place) => place.bind(to),
            None => (0..2).try_for_each(|_| to.put(None::<i64>)),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let start = from.next;
        let parent: Option<i64> = from.take()?;
        from.next = start;
        match parent {
            Some(_) => Place::read(from).map(Some),
            None => {
                from.next += 2;
                Ok(None)
            }
        }
    }
}

impl Columns for Option<Hash> {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        to.put(self.map(|hash| hash.0))
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(from.take::<Option<[u8; 32]>>()?.map(Hash))
    }
}

impl Columns for Kind {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        to.put(match self {
            Self::File => 0,
            Self::Dir => 1,
            Self::Symlink => 2,
            Self::Fifo => 3,
            Self::Socket => 4,
            Self::Other => 5,
        })
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        match from.take::<i64>()? {
            0 => Ok(Self::File),
            1 => Ok(Self::Dir),
            2 => Ok(Self::Symlink),
            3 => Ok(Self::Fifo),
            4 => Ok(Self::Socket),
            5 => Ok(Self::Other),
            number => from.bad(format!("unknown kind {number}")),
        }
    }
}

impl Columns for Content {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        to.put(match self {
            Self::Absent => 0,
            Self::Partial => 1,
            Self::Whole => 2,
        })
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        match from.take::<i64>()? {
            0 => Ok(Self::Absent),
            1 => Ok(Self::Partial),
            2 => Ok(Self::Whole),
            number => from.bad(format!("unknown content state {number}")),
        }
    }
}

impl Columns for DeedKind {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        to.put(match self {
            Self::Created => 0,
            Self::Replaced => 1,
            Self::Removed => 2,
            Self::Moved => 3,
            Self::Attributes => 4,
            Self::More => 5,
        })
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        match from.take::<i64>()? {
            0 => Ok(Self::Created),
            1 => Ok(Self::Replaced),
            2 => Ok(Self::Removed),
            3 => Ok(Self::Moved),
            4 => Ok(Self::Attributes),
            5 => Ok(Self::More),
            number => from.bad(format!("unknown deed {number}")),
        }
    }
}

impl Columns for Counter {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        to.put(self.name())
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let name: String = from.take()?;
        match Self::ALL.into_iter().find(|counter| counter.name() == name) {
            Some(counter) => Ok(counter),
            None => from.bad(format!("unknown counter {name}")),
        }
    }
}

/// How many columns a version takes.
const VERSION_COLUMNS: usize = 6;

/// An absent version is a row whose kind is NULL.
impl Columns for Option<Version> {
    fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
        match self {
            Some(version) => version.bind(to),
            None => (0..VERSION_COLUMNS).try_for_each(|_| to.put(None::<i64>)),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let start = from.next;
        let kind: Option<i64> = from.take()?;
        from.next = start;
        match kind {
            Some(_) => Version::read(from).map(Some),
            None => {
                from.next += VERSION_COLUMNS;
                Ok(None)
            }
        }
    }
}

/// The columns of a [`Deed`].
pub(super) const DEED_COLUMNS: [&str; 18] = [
    "at",
    "on_server",
    "kind",
    "path",
    "from_path",
    "before_kind",
    "before_size",
    "before_mtime",
    "before_mode",
    "before_target",
    "before_hash",
    "after_kind",
    "after_size",
    "after_mtime",
    "after_mode",
    "after_target",
    "after_hash",
    "kept",
];

/// Structs whose fields are columns one after the other.
macro_rules! struct_columns {
    ($($name:ident { $($field:ident),* })*) => { $(
        impl Columns for $name {
            fn bind(&self, to: &mut Binder<'_, '_>) -> Result<()> {
                $( self.$field.bind(to)?; )*
                Ok(())
            }

            fn read(from: &mut Reader<'_>) -> Result<Self> {
                Ok(Self { $( $field: Columns::read(from)? ),* })
            }
        }
    )* };
}

struct_columns! {
    Node {
        id, kind, mode, uid, gid, size, atime, mtime, ctime, nlink, target, content, data_changed,
        data_seq, hash, listed, scoped
    }
    Version { kind, size, mtime, mode, target, hash }
    BaseEntry { node, version }
    Observation { seen_at, version }
    Intent { node, data_seq, number, version, from }
    LocalBackup { id, path, version, at, why, unsent }
    Problem { path, message, since }
    Deed { at, on_server, kind, path, from, before, after, kept }
}
