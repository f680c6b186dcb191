//! What a large content consists of: pieces that end where the content itself says so, each with its hash. What is
//! inserted or moved in a file changes the pieces around it alone, and so tells which of a new version the server
//! has in an old one.
//!
//! Chunks are a fact about a content, whoever has it. `stood` is a fact about the server: with which times the
//! content was seen, or put, there in a way that nothing written to it since could hide behind the same time.

use fastcdc::v2020::FastCDC;
use serde::{Deserialize, Serialize};

use crate::tree::Hash;

/// Begins every record; the last byte is the form of what follows.
const MAGIC: [u8; 4] = *b"RHC1";
/// No content has many more pieces than this: of a larger one they are longer.
const MOST: u64 = 65_536;
/// The longest mean length, in bytes.
const LONGEST: u32 = 4 * 1024 * 1024;
/// A content that is so many times as long as the one whose pieces it is cut like, or the other way round, is cut anew.
const ALIKE: u64 = 8;
/// So many times are remembered.
const MOST_STOOD: usize = 8;

/// A piece of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// In bytes.
    pub len: u32,
    /// Of its bytes.
    pub hash: Hash,
}

/// The pieces of a content, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunks {
    /// Of the whole.
    pub hash: Hash,
    /// Of the whole, in bytes.
    pub size: u64,
    /// The mean length that it was cut for.
    pub average: u32,
    /// One after the other.
    pub list: Vec<Chunk>,
    stood: Vec<i64>,
}

impl Chunks {
    /// Whether a file with this content and this mtime stood on the server, and could not have been written to since
    /// without showing it.
    pub fn has_stood(&self, mtime: i64) -> bool {
        self.stood.contains(&mtime)
    }

    /// Says so.
    pub fn note_stood(&mut self, mtime: i64) {
        self.stood.retain(|known| *known != mtime);
        self.stood.push(mtime);
        if self.stood.len() > MOST_STOOD {
            self.stood.remove(0);
        }
    }

    /// What is known about the same content, too.
    pub(super) fn note_all(&mut self, other: &Self) {
        let own = std::mem::take(&mut self.stood);
        for mtime in other.stood.iter().chain(&own) {
            self.note_stood(*mtime);
        }
    }

    /// As it lies on the disk: a length that rotted would name the wrong bytes on the server.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let body = postcard::to_stdvec(self).ok()?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(blake3::hash(&body).as_bytes());
        bytes.extend_from_slice(&body);
        Some(bytes)
    }

    /// `None` for anything but what `encode` made.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (sum, body) = rest.split_at_checked(blake3::OUT_LEN)?;
        if blake3::hash(body).as_bytes() != sum {
            return None;
        }
        let chunks: Self = postcard::from_bytes(body).ok()?;
        let size: u64 = chunks.list.iter().map(|chunk| u64::from(chunk.len)).sum();
        (size == chunks.size).then_some(chunks)
    }
}

/// The mean length of pieces for a content of `size` bytes, at least `least`.
pub fn average_for(least: u32, size: u64) -> u32 {
    let mut average = least;
    while size / u64::from(average.max(1)) > MOST && average < LONGEST {
        average *= 2;
    }
    average
}

/// The mean length for a content of `size` bytes of which much may be in `old`.
pub fn average_like(old: &Chunks, least: u32, size: u64) -> u32 {
    let is_alike = size / ALIKE <= old.size && old.size / ALIKE <= size;
    match is_alike {
        true => old.average,
        false => average_for(least, size),
    }
}

/// Reads a content once: its hash, and its pieces if they are asked for.
pub struct Digest {
    whole: Whole,
    cutter: Option<Cutter>,
}

struct Whole {
    hasher: blake3::Hasher,
    mark_every: u64,
    marks: Vec<(u64, Hash)>,
}

/// What a content is.
#[derive(Debug, Clone)]
pub struct Digested {
    /// Of all of it.
    pub hash: Hash,
    /// If they were asked for.
    pub chunks: Option<Chunks>,
    /// The hashes of its beginnings, by their lengths.
    pub marks: Vec<(u64, Hash)>,
}

struct Cutter {
    average: u32,
    /// What was not cut yet, behind `start`.
    buffer: Vec<u8>,
    start: usize,
    list: Vec<Chunk>,
    /// What is likely to be the next piece.
    guess: Option<Chunk>,
}

/// Cut bytes are dropped when there are so many.
const DROPPED_AT_ONCE: usize = 1024 * 1024;

impl Digest {
    /// With pieces of this mean length, a power of two, 256 at least. The hash of each beginning whose length is a
    /// multiple of `mark_every` is told, too.
    pub fn new(average: Option<u32>, mark_every: u64) -> Self {
        Self {
            whole: Whole {
                hasher: blake3::Hasher::new(),
                mark_every: mark_every.max(1),
                marks: Vec::new(),
            },
            cutter: average.map(|average| Cutter {
                average,
                buffer: Vec::new(),
                start: 0,
                list: Vec::new(),
                guess: None,
            }),
        }
    }

    /// The next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.whole.add(bytes);
        if let Some(cutter) = &mut self.cutter {
            cutter.add(bytes, &mut |_| None);
        }
    }

    /// The next bytes, so many that it is worth a thread: one hashes, the other cuts. `cut` hears each piece, and may tell
    /// one of the same mean length that is likely to follow: where it does, no place to cut has to be sought.
    pub fn add_in_two(&mut self, bytes: &[u8], cut: &mut dyn FnMut(&Chunk) -> Option<Chunk>) {
        let Some(cutter) = &mut self.cutter else {
            return self.whole.add(bytes);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| self.whole.add(bytes));
            cutter.add(bytes, cut);
        });
    }

    /// The mean length of pieces, if they are cut.
    pub fn average(&self) -> Option<u32> {
        self.cutter.as_ref().map(|cutter| cutter.average)
    }

    /// What is likely to be the first piece.
    pub fn guess(&mut self, first: Option<Chunk>) {
        if let Some(cutter) = &mut self.cutter {
            cutter.guess = first;
        }
    }

    /// There are no more bytes: all pieces are known.
    pub fn end(&mut self) {
        if let Some(cutter) = &mut self.cutter {
            while cutter.left() > 0 {
                cutter.guess = None;
                cutter.cut();
            }
        }
    }

    /// The pieces that are known so far.
    pub fn pieces(&self) -> &[Chunk] {
        self.cutter.as_ref().map_or(&[], |cutter| &cutter.list)
    }

    /// How many bytes there were so far, and their hash.
    pub fn so_far(&self) -> (u64, Hash) {
        self.whole.so_far()
    }

    /// The hash of the first `len` bytes, if it was marked.
    pub fn mark(&self, len: u64) -> Option<Hash> {
        mark(&self.whole.marks, len)
    }

    /// All that was read.
    pub fn finish(mut self) -> Digested {
        self.end();
        let (size, hash) = self.so_far();
        let chunks = self.cutter.map(|cutter| Chunks {
            hash,
            size,
            average: cutter.average,
            list: cutter.list,
            stood: Vec::new(),
        });
        Digested {
            hash,
            chunks,
            marks: self.whole.marks,
        }
    }
}

impl Whole {
    fn add(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = self.mark_every - self.hasher.count() % self.mark_every;
            let (now, later) = rest
                .split_at(usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len())));
            self.hasher.update(now);
            if now.len() as u64 == left {
                self.marks.push(self.so_far());
            }
            rest = later;
        }
    }

    fn so_far(&self) -> (u64, Hash) {
        let hash = self.hasher.finalize();
        (self.hasher.count(), Hash(*hash.as_bytes()))
    }
}

impl Digested {
    /// The pieces, if they were asked for.
    pub fn pieces(&self) -> &[Chunk] {
        self.chunks.as_ref().map_or(&[], |chunks| &chunks.list)
    }

    /// The hash of the first `len` bytes, if it was marked.
    pub fn mark(&self, len: u64) -> Option<Hash> {
        mark(&self.marks, len)
    }
}

fn mark(marks: &[(u64, Hash)], len: u64) -> Option<Hash> {
    let at = marks.binary_search_by_key(&len, |(len, _)| *len).ok()?;
    Some(marks[at].1)
}

impl Cutter {
    fn add(&mut self, bytes: &[u8], cut: &mut dyn FnMut(&Chunk) -> Option<Chunk>) {
        self.buffer.extend_from_slice(bytes);
        while self.left() >= self.longest() {
            let piece = self.cut();
            self.guess = cut(&piece);
        }
        if self.start >= DROPPED_AT_ONCE {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }

    fn left(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn longest(&self) -> usize {
        self.average as usize * 4
    }

    fn cut(&mut self) -> Chunk {
        let len = self.left().min(self.longest());
        let source = &self.buffer[self.start..self.start + len];
        let piece = self.guessed(source).unwrap_or_else(|| {
            let average = self.average as usize;
            let cutter = FastCDC::new(source, average / 4, average, self.longest());
            // Never nothing, or this would not end.
            let (_, end) = cutter.cut(0, len);
            piece(&source[..end.clamp(1, len)])
        });
        self.list.push(piece);
        self.start += piece.len as usize;
        piece
    }

    /// The next piece, if it is as guessed: where a piece ends depends on its own bytes alone.
    fn guessed(&self, source: &[u8]) -> Option<Chunk> {
        let guess = self.guess?;
        let bytes = source.get(..guess.len as usize)?;
        let here = piece(bytes);
        (here == guess).then_some(here)
    }
}

fn piece(bytes: &[u8]) -> Chunk {
    Chunk {
        len: bytes.len() as u32,
        hash: Hash(*blake3::hash(bytes).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut reader = blake3::Hasher::new()
            .update(&seed.to_le_bytes())
            .finalize_xof();
        let mut bytes = vec![0; len];
        reader.fill(&mut bytes);
        bytes
    }

    fn cut(bytes: &[u8], step: usize) -> Chunks {
        let mut digest = Digest::new(Some(4096), 100_000);
        for (n, part) in bytes.chunks(step).enumerate() {
            match n % 2 {
                0 => digest.add(part),
                // Right or wrong, a guess changes nothing.
                _ => digest.add_in_two(part, &mut |before| Some(*before)),
            }
        }
        let digested = digest.finish();
        let marks = bytes.len() / 100_000;
        assert_eq!(digested.marks.len(), marks);
        let start = blake3::hash(&bytes[..marks * 100_000]);
        assert_eq!(
            digested
                .mark(marks as u64 * 100_000)
                .map_or([0; 32], |hash| hash.0),
            *start.as_bytes()
        );
        digested.chunks.unwrap()
    }

    #[test]
    fn pieces_do_not_depend_on_how_a_content_was_read() {
        let bytes = noise(3_000_000, 1);
        let whole = cut(&bytes, bytes.len());
        assert_eq!(cut(&bytes, 1000), whole);
        let lens: Vec<_> = whole.list.iter().map(|chunk| chunk.len).collect();
        assert_eq!(lens.iter().sum::<u32>(), 3_000_000);
        assert!(lens.len() > 300 && lens.len() < 1500, "{}", lens.len());
        let mut at = 0;
        for chunk in &whole.list {
            let piece = &bytes[at..at + chunk.len as usize];
            assert_eq!(chunk.hash.0, *blake3::hash(piece).as_bytes());
            at += piece.len();
        }
        assert_eq!(whole.hash.0, *blake3::hash(&bytes).as_bytes());
    }

    #[test]
    fn what_is_inserted_changes_few_pieces() {
        let old = noise(1_000_000, 1);
        let new = [
            &noise(100, 2)[..],
            &old[..500_000],
            b"more",
            &old[500_000..],
        ]
        .concat();
        let known: HashSet<_> = cut(&old, 9999)
            .list
            .iter()
            .map(|chunk| chunk.hash)
            .collect();
        let new = cut(&new, 9999).list;
        let changed = new.iter().filter(|chunk| !known.contains(&chunk.hash));
        assert!(changed.count() < 8, "of {}", new.len());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_or_not_at_all() {
        let mut chunks = cut(&noise(100_000, 1), 9999);
        (0..20).for_each(|mtime| chunks.note_stood(mtime));
        let bytes = chunks.encode().unwrap();
        assert_eq!(Chunks::decode(&bytes), Some(chunks.clone()));
        assert!(chunks.has_stood(19) && !chunks.has_stood(0));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Chunks::decode(&bad), None);
        }
        assert_eq!(Chunks::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Chunks::decode(b""), None);
    }

    #[test]
    fn large_contents_have_longer_pieces_and_not_many_more() {
        assert_eq!(average_for(1 << 15, 1 << 30), 1 << 15);
        assert_eq!(average_for(1 << 15, 1 << 36), 1 << 20);
        assert_eq!(average_for(1 << 15, u64::MAX), LONGEST);
        let old = cut(&noise(100_000, 1), 9999);
        assert_eq!(average_like(&old, 1 << 15, 800_000), 4096);
        assert_eq!(average_like(&old, 1 << 15, 12_500), 4096);
        assert_eq!(average_like(&old, 1 << 15, 900_000), 1 << 15);
    }
}
