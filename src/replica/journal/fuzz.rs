//! Journals and notes that a disk or another program spoiled, their checksums often made right again, so that what is
//! behind them is reached: nothing panics, and nothing allocates much more than there is.

use super::super::hint;
use super::super::index::tests::file;
use super::super::rows::{Content, Deed, DeedKind, LocalBackup, Observation};
use super::super::table::{Backups, Deeds, Links, Meta, Nodes, Remote, Table, Xattrs};
use super::*;
use crate::fuzz::{Rng, garbage, peak_of, repeat, spoil};
use crate::tree::{Hash, Name, NodeId, Place, RelPath, Time, Version};

const JOURNALS: u64 = 50_000;
const NOTES: u64 = 100_000;

/// Rows of a kilobyte may come from a few bytes, and a list is begun with room for a megabyte.
const MOST_PER_BYTE: usize = 2048;
const MOST_ANYWAY: usize = 2 << 20;

fn name(rng: &mut Rng) -> Name {
    let bytes: Vec<u8> = garbage(rng, 12).into_iter().map(|b| b.max(b'0')).collect();
    Name::new(&bytes).unwrap_or_else(|_| Name::least())
}

fn changes(rng: &mut Rng) -> Changes {
    let mut changes = Changes::default();
    for _ in 0..rng.below(4) {
        let id = NodeId(rng.next() >> rng.below(64));
        let place = Place::new(id, name(rng));
        let mut version = Version::file(rng.next(), 5, 0o644);
        version.hash = rng.one_in(2).then_some(Hash([7; 32]));
        match rng.below(7) {
            0 => {
                let mut node = file(id);
                node.content = rng.pick(&[Content::Absent, Content::Partial, Content::Whole]);
                node.target = garbage(rng, 20);
                Nodes::rows_mut(&mut changes).insert(id, Some(node));
            }
            1 => drop(Links::rows_mut(&mut changes).insert(place, Some(id))),
            2 => {
                let seen = Observation {
                    version: Some(version),
                    seen_at: Time(9),
                };
                drop(Remote::rows_mut(&mut changes).insert(place, Some(seen)));
            }
            3 => {
                let (key, value) = ((id, garbage(rng, 9)), garbage(rng, 30));
                drop(Xattrs::rows_mut(&mut changes).insert(key, Some(value)));
            }
            4 => {
                let backup = LocalBackup {
                    path: [name(rng), name(rng)].into_iter().collect(),
                    version,
                    at: Time(-5),
                    why: "lost".into(),
                    id: id.0,
                    unsent: true,
                };
                drop(Backups::rows_mut(&mut changes).insert(id.0, Some(backup)));
            }
            5 => {
                let deed = Deed {
                    at: Time(-5),
                    on_server: true,
                    kind: DeedKind::Replaced,
                    path: [name(rng)].into_iter().collect(),
                    from: RelPath::root(),
                    before: None,
                    after: Some(version),
                    kept: "local-1".into(),
                };
                drop(Deeds::rows_mut(&mut changes).insert((id.0, 1), Some(deed)));
            }
            _ => drop(Meta::rows_mut(&mut changes).insert("key".into(), None)),
        }
    }
    changes
}

/// A record with a checksum that is right, whatever its body is.
fn record(body: &[u8]) -> Vec<u8> {
    let (len, crc) = (body.len() as u32, crc32fast::hash(body));
    [&len.to_le_bytes()[..], &crc.to_le_bytes(), body].concat()
}

fn journal(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &[FORM]].concat();
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(rng.below(3).to_le_bytes());
    for _ in 0..rng.below(4) {
        let mut body = postcard::to_allocvec(&changes(rng)).unwrap();
        if rng.one_in(2) {
            spoil(rng, &mut body);
        }
        bytes.extend(record(&body));
    }
    if rng.one_in(2) {
        spoil(rng, &mut bytes);
    }
    bytes
}

#[test]
fn spoiled_journals_are_cut_or_refused_at_a_bounded_cost() {
    repeat("spoiled_journals_are_cut", JOURNALS, |rng| {
        let bytes = journal(rng);
        let most = bytes.len() * MOST_PER_BYTE + MOST_ANYWAY;
        let path = Path::new("journal.1");
        let (peak, parsed) = peak_of(|| parse(path, &bytes, 1));
        assert!(peak <= most, "{peak} bytes for {}", bytes.len());
        match parsed {
            Ok(Some(mut parsed)) => {
                assert!(parsed.valid_len() <= bytes.len() as u64);
                let half = parsed.valid_len() / 2;
                parsed.keep(half);
                parsed.absorb_into(&mut Changes::default());
            }
            Ok(None) => {}
            Err(error) => assert!(error.to_string().contains("journal.1"), "{error}"),
        }
    });
}

#[test]
fn spoiled_notes_of_paths_name_no_file_outside() {
    repeat("spoiled_notes_of_paths", NOTES, |rng| {
        let path = [b"dir/", name(rng).as_bytes()].concat();
        let mut line = [rng.next().to_string().as_bytes(), b" ", &path].concat();
        spoil(rng, &mut line);
        if let Some((_, path)) = hint::parse_line(&line) {
            assert!(!path.is_root());
            assert_eq!(RelPath::parse(&path.to_bytes()), Ok(path));
        }
    });
}
