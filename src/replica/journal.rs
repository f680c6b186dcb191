//! The journal in front of SQLite: a record per update, one `write` each, so that an update which returned
//! survives the death of this process at once. SQLite gets the same rows a little later, many at a time.
//!
//! Each commit takes over one or more whole journals, `journal.N`, and remembers N. Their headers chain
//! them: number, and how much of the journal before was valid. Replay takes only an unbroken chain from the
//! last one committed: power loss may keep later writes and drop earlier ones, and changes on top of missing
//! ones would make no sense. A torn record at the end belongs to an update that never returned. A whole record
//! that cannot be read is another matter: something acknowledged would be lost, so nothing is opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::{AtPath, ReplicaError};
use super::table::Changes;

/// Begins every journal; then a byte for the form of its records, which changes with any field of any row.
const MAGIC: &[u8; 3] = b"RHJ";
const FORM: u8 = b'6';
/// Magic, number, valid length of the journal before.
const HEADER: usize = 4 + 8 + 8;
/// Length and checksum before each record.
const PREFIX: usize = 4 + 4;
/// Space taken in advance, so that removing files works on a full disk.
const RESERVED: u64 = 256 * 1024;

/// The journal being written.
pub(super) struct Journal {
    dir: PathBuf,
    path: PathBuf,
    pub(super) number: u64,
    pub(super) file: File,
    /// Bytes of it that hold whole records.
    len: u64,
    /// Bytes after `len` could not be cut off: no record may follow them.
    torn: bool,
}

impl Journal {
    /// Starts journal `number`, after one with `previous_len` valid bytes.
    pub(super) fn create(dir: &Path, number: u64, previous_len: u64) -> Result<Self, ReplicaError> {
        let path = path_of(dir, number);
        let mut header = MAGIC.to_vec();
        header.push(FORM);
        header.extend(number.to_le_bytes());
        header.extend(previous_len.to_le_bytes());
        let open = || {
            let mut options = OpenOptions::new();
            let file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            reserve(&file);
            (&file).write_all(&header)?;
            Ok::<_, io::Error>(file)
        };
        Ok(Self {
            file: open().at(&path)?,
            dir: dir.to_owned(),
            path,
            number,
            len: header.len() as u64,
            torn: false,
        })
    }

    /// Adds one record. If that fails, the journal is as before.
    pub(super) fn append(&mut self, changes: &Changes) -> Result<(), ReplicaError> {
        if self.torn {
            self.rotate()?;
        }
        let mut record = vec![0; PREFIX];
        record = postcard::to_extend(changes, record)
            .map_err(io::Error::other)
            .at(&self.path)?;
        let body = &record[PREFIX..];
        let len = u32::try_from(body.len())
            .map_err(io::Error::other)
            .at(&self.path)?;
        let crc = crc32fast::hash(body);
        record[..4].copy_from_slice(&len.to_le_bytes());
        record[4..PREFIX].copy_from_slice(&crc.to_le_bytes());
        if let Err(error) = self.file.write_all(&record) {
            self.torn = self.cut().is_err();
            return Err(ReplicaError::io(&self.path, error));
        }
        self.len += record.len() as u64;
        Ok(())
    }

    /// Removes what lies behind the last whole record.
    fn cut(&mut self) -> io::Result<()> {
        use io::Seek;
        self.file.set_len(self.len)?;
        self.file.seek(io::SeekFrom::Start(self.len))?;
        Ok(())
    }

    /// Goes on in a new file; returns the number of the one that is complete now.
    pub(super) fn rotate(&mut self) -> Result<u64, ReplicaError> {
        let complete = self.number;
        *self = Self::create(&self.dir, complete + 1, self.len)?;
        Ok(complete)
    }

    /// Whether anything was written to it.
    pub(super) fn is_empty(&self) -> bool {
        self.len == HEADER as u64
    }
}

/// Best effort: some file systems cannot reserve.
fn reserve(file: &File) {
    let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
    if let Err(error) = rustix::fs::fallocate(file, flags, 0, RESERVED) {
        tracing::debug!(%error, "cannot reserve space for the journal");
    }
}

fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal.{number}"))
}

/// The numbers of all journals in `dir`, in order.
pub(super) fn numbers(dir: &Path) -> Result<Vec<u64>, ReplicaError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).at(dir)? {
        let name = entry.at(dir)?.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("journal."));
        numbers.extend(number.and_then(|n| n.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What journals held that SQLite does not have yet.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// The changes, in one.
    pub(super) changes: Changes,
    /// The number of the last journal there is.
    pub(super) last: u64,
    /// Its valid length.
    pub(super) last_len: u64,
    /// The chain was not whole: some journals could not be used.
    pub(super) broken: bool,
}

/// Reads all journals after number `applied`.
pub(super) fn replay(dir: &Path, applied: u64) -> Result<Replayed, ReplicaError> {
    let mut replayed = Replayed::default();
    let mut chain: Option<Parsed> = None;
    let numbers = numbers(dir)?;
    replayed.last = numbers.last().map_or(applied, |last| applied.max(*last));
    let newer = numbers.into_iter().skip_while(|n| *n <= applied);
    for (expected, number) in (applied + 1..).zip(newer) {
        let path = path_of(dir, number);
        let bytes = fs::read(&path).at(&path)?;
        let parsed = parse(&path, &bytes, number)?;
        let previous_len = parsed.as_ref().map(|parsed| parsed.previous_len);
        let joined = match (&mut chain, previous_len) {
            (Some(before), Some(len)) => before.keep(len),
            _ => true,
        };
        let Some(parsed) = parsed.filter(|_| joined && number == expected) else {
            tracing::warn!(path = %path.display(), "a journal cannot be used: it or one before is torn");
            replayed.broken = true;
            break;
        };
        if let Some(before) = chain.replace(parsed) {
            before.absorb_into(&mut replayed.changes);
        }
    }
    if let Some(last) = chain {
        replayed.last_len = last.valid_len();
        last.absorb_into(&mut replayed.changes);
    }
    Ok(replayed)
}

/// One journal's whole records.
struct Parsed {
    previous_len: u64,
    /// The records, each with the offset after it.
    records: Vec<(u64, Changes)>,
}

impl Parsed {
    fn valid_len(&self) -> u64 {
        self.records.last().map_or(HEADER as u64, |(end, _)| *end)
    }

    /// Drops records after `len`; `false` if some before are missing.
    fn keep(&mut self, len: u64) -> bool {
        self.records.retain(|(end, _)| *end <= len);
        self.valid_len() == len
    }

    fn absorb_into(self, changes: &mut Changes) {
        for (_, record) in self.records {
            changes.absorb(record);
        }
    }
}

/// Reads whole records until the first that is not; `None` if there is not even a header.
fn parse(path: &Path, bytes: &[u8], number: u64) -> Result<Option<Parsed>, ReplicaError> {
    let Some((form, previous_len, mut rest)) = parse_header(bytes, number) else {
        return Ok(None);
    };
    // An orderly end leaves a journal without records: any version may go on from there.
    if form != FORM && !rest.is_empty() {
        return Err(ReplicaError::OtherVersion {
            journal: path.to_owned(),
        });
    }
    let mut parsed = Parsed {
        previous_len,
        records: Vec::new(),
    };
    let mut end = HEADER as u64;
    while let Some(body) = whole_record(rest) {
        let record = decode(body).map_err(|error| ReplicaError::Damaged {
            what: path.to_owned(),
            detail: format!("the record at byte {end} is whole and makes no sense: {error}"),
        })?;
        let size = PREFIX + body.len();
        rest = &rest[size..];
        end += size as u64;
        parsed.records.push((end, record));
    }
    Ok(Some(parsed))
}

/// The form of the records, how much of the journal before was valid, and what follows the header.
fn parse_header(bytes: &[u8], number: u64) -> Option<(u8, u64, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (form, rest) = rest.split_first()?;
    let rest = rest.strip_prefix(&number.to_le_bytes())?;
    let (previous_len, rest) = rest.split_first_chunk()?;
    Some((*form, u64::from_le_bytes(*previous_len), rest))
}

/// The body of the first record, if all of it is there.
fn whole_record(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let body = rest.get(..u32::from_le_bytes(*len) as usize)?;
    let whole = !body.is_empty() && crc32fast::hash(body) == u32::from_le_bytes(*crc);
    whole.then_some(body)
}

fn decode(body: &[u8]) -> postcard::Result<Changes> {
    match postcard::take_from_bytes(body)? {
        (changes, []) => Ok(changes),
        // Fewer tables or fields than were written.
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

/// Removes journals up to `number`, which are in SQLite now.
pub(super) fn remove_up_to(dir: &Path, number: u64) -> Result<(), ReplicaError> {
    for done in numbers(dir)?.into_iter().take_while(|n| *n <= number) {
        let path = path_of(dir, done);
        fs::remove_file(&path).at(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::super::rows::Counter;
    use super::*;

    fn change(value: u64) -> Changes {
        Changes::counter(Counter::Files, value)
    }

    fn replayed(dir: &Path, applied: u64) -> (Option<u64>, bool) {
        let replayed = replay(dir, applied).unwrap();
        (
            replayed.changes.counter_put(Counter::Files),
            replayed.broken,
        )
    }

    #[test]
    fn a_torn_record_ends_the_journal_and_spoils_nothing_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), 1, 0).unwrap();
        let mut ends = Vec::new();
        for value in 1..4 {
            journal.append(&change(value)).unwrap();
            ends.push(journal.len);
        }
        let bytes = fs::read(&journal.path).unwrap();
        for cut in HEADER..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
            let expected = (whole > 0).then_some(whole);
            fs::write(&journal.path, &bytes[..cut]).unwrap();
            assert_eq!(replayed(dir.path(), 0), (expected, false), "cut at {cut}");
            // As power loss leaves it: the length is there, the bytes are not.
            let zeros = vec![0; bytes.len() - cut];
            fs::write(&journal.path, [&bytes[..cut], &zeros].concat()).unwrap();
            assert_eq!(
                replayed(dir.path(), 0),
                (expected, false),
                "zeros from {cut}"
            );
        }
    }

    #[test]
    fn changes_on_top_of_missing_ones_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), 4, 0).unwrap();
        for value in 4..7 {
            journal.append(&change(value)).unwrap();
            journal.rotate().unwrap();
        }
        assert_eq!(replayed(dir.path(), 3), (Some(6), false));
        assert_eq!(replayed(dir.path(), 5), (Some(6), false));
        assert_eq!(replayed(dir.path(), 2), (None, true), "3 is missing");
        let second = path_of(dir.path(), 5);
        let len = fs::metadata(&second).unwrap().len();
        File::options()
            .write(true)
            .open(&second)
            .unwrap()
            .set_len(len - 1)
            .unwrap();
        assert_eq!(replayed(dir.path(), 3), (Some(4), true), "5 lacks a record");
        fs::remove_file(&second).unwrap();
        assert_eq!(replayed(dir.path(), 3), (Some(4), true), "5 is missing");
        fs::write(&second, b"RH").unwrap();
        assert_eq!(replayed(dir.path(), 3), (Some(4), true), "5 has no header");
    }

    #[test]
    fn what_another_version_left_is_refused_unless_it_left_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), 1, 0).unwrap();
        let of_form = |path: &Path, form: u8| {
            let mut bytes = fs::read(path).unwrap();
            bytes[MAGIC.len()] = form;
            fs::write(path, bytes).unwrap();
        };
        of_form(&journal.path, b'1');
        assert_eq!(replayed(dir.path(), 0), (None, false));
        journal.append(&change(1)).unwrap();
        let refused = replay(dir.path(), 0);
        assert!(
            matches!(&refused, Err(ReplicaError::OtherVersion { journal }) if *journal == path_of(dir.path(), 1)),
            "{refused:?}"
        );
        assert_eq!(replayed(dir.path(), 1), (None, false), "it is applied");
        of_form(&journal.path, FORM);
        assert_eq!(replayed(dir.path(), 0), (Some(1), false));
    }

    #[test]
    fn a_whole_record_that_makes_no_sense_is_damage_and_no_torn_end() {
        for body in [
            vec![0xff; 9],
            [postcard::to_allocvec(&change(2)).unwrap(), vec![0]].concat(),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut journal = Journal::create(dir.path(), 1, 0).unwrap();
            journal.append(&change(1)).unwrap();
            let len = (body.len() as u32).to_le_bytes();
            let crc = crc32fast::hash(&body).to_le_bytes();
            let record = [&len[..], &crc, &body].concat();
            journal.file.write_all(&record).unwrap();
            let refused = replay(dir.path(), 0);
            assert!(
                matches!(refused, Err(ReplicaError::Damaged { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_failed_append_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), 1, 0).unwrap();
        journal.append(&change(1)).unwrap();
        let file = std::mem::replace(
            &mut journal.file,
            File::options().write(true).open("/dev/full").unwrap(),
        );
        let full = journal.append(&change(2));
        assert!(
            matches!(full, Err(ReplicaError::NoSpace { .. })),
            "{full:?}"
        );
        drop(file);
        journal.append(&change(3)).unwrap();
        assert_eq!(replayed(dir.path(), 0), (Some(3), false));
    }
}
