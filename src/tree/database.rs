//! What SQLite keeps beside a database, told by names and by the first bytes of the database.
//!
//! A database, its write-ahead log and its rollback journal mean something only as they were at one moment.
//! The shared memory beside them is an index of the log, for the processes of one machine.

use super::{Name, Place};

const LOG: &[u8] = b"-wal";
const JOURNAL: &[u8] = b"-journal";
const SHARED_MEMORY: &[u8] = b"-shm";

/// What every database begins with.
pub const DATABASE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Whether a file of so many bytes may be a database: it consists of pages, the smallest of which have 512.
pub fn may_be_database(size: u64) -> bool {
    size > 0 && size.is_multiple_of(512)
}

impl Place {
    /// The database's place, if this is where one's log or journal would be.
    pub fn database(&self) -> Option<Self> {
        [LOG, JOURNAL].into_iter().find_map(|end| self.without(end))
    }

    /// The database's place, if this is where one's shared memory would be.
    pub fn database_of_memory(&self) -> Option<Self> {
        self.without(SHARED_MEMORY)
    }

    /// Whether a rollback journal would be here, and no log.
    pub fn is_journal(&self) -> bool {
        self.without(JOURNAL).is_some()
    }

    /// Where the log and the journal of a database at this place are, in the order in which they are held.
    pub fn companions(&self) -> impl Iterator<Item = Self> {
        [LOG, JOURNAL].into_iter().filter_map(|end| self.with(end))
    }

    /// Where the shared memory of a database at this place is.
    pub fn shared_memory(&self) -> Option<Self> {
        self.with(SHARED_MEMORY)
    }

    fn without(&self, end: &[u8]) -> Option<Self> {
        let stem = self.name.as_bytes().strip_suffix(end)?;
        Some(Self::new(self.parent, Name::new(stem).ok()?))
    }

    fn with(&self, end: &[u8]) -> Option<Self> {
        let name = Name::new(&[self.name.as_bytes(), end].concat()).ok()?;
        Some(Self::new(self.parent, name))
    }
}
