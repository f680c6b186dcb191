//! A large content that is read once: what it consists of, and, while it is read, how it is put together from what the server
//! has. So the server copies the beginning while the rest is read.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::super::shared::blocking;
use super::checked::Checked;
use super::matcher::Matcher;
use crate::remote::Part;
use crate::replica::{Chunk, Chunks, Digest, Digested};
use crate::tree::Hash;

/// Read at once: long enough for two threads, short enough for others who wait for this one.
const STEP: usize = 4 * 1024 * 1024;
/// What is copied goes out in ranges of so many bytes, though more of the same may follow.
const RANGE: u64 = 16 * 1024 * 1024;

/// Reads a file from beginning to end.
pub(super) struct Reading<'a> {
    file: &'a File,
    size: u64,
    at: u64,
    buffer: Vec<u8>,
    digest: Digest,
    matching: Option<Matching<'a>>,
    checked: Checked<'a>,
}

/// What is known of how it is put together.
struct Matching<'a> {
    matcher: Matcher<'a>,
    /// So many were added.
    pieces: usize,
    ready: VecDeque<Part>,
    /// Those that were told.
    told: Vec<Part>,
}

impl<'a> Reading<'a> {
    /// Of a file of so many bytes, which may be put together from `old`.
    pub(super) fn new(file: &'a File, size: u64, digest: Digest, old: Option<&'a Chunks>) -> Self {
        let mut digest = digest;
        let matcher = old.map(|old| Matcher::new(old, digest.average()));
        digest.guess(matcher.as_ref().and_then(Matcher::likely));
        Self {
            file,
            size,
            at: 0,
            buffer: Vec::new(),
            digest,
            matching: matcher.map(|matcher| Matching {
                matcher,
                pieces: 0,
                ready: VecDeque::new(),
                told: Vec::new(),
            }),
            checked: Checked::new(file),
        }
    }

    /// Whether anything in its beginning is in the old one.
    pub(super) fn begins_alike(&mut self) -> io::Result<bool> {
        self.step()?;
        let matching = self.matching.as_ref();
        Ok(matching.is_some_and(|all| all.matcher.has_found()))
    }

    /// Reads all of it; an error if there is less.
    pub(super) async fn all(mut self) -> io::Result<Digested> {
        self.matching = None;
        while self.at < self.size {
            self.step()?;
            // Other uploads of the same pass go on meanwhile.
            tokio::task::yield_now().await;
        }
        Ok(self.digest.finish())
    }

    /// The next part, for which as much is read as it takes.
    pub(super) fn next_part(&mut self) -> io::Result<Option<Part>> {
        loop {
            let Some(matching) = &mut self.matching else {
                return Ok(None);
            };
            if let Some(part) = matching.ready.pop_front() {
                matching.told.push(part);
                return Ok(Some(part));
            }
            if self.at == self.size {
                return Ok(None);
            }
            self.step()?;
        }
    }

    /// Bytes of what was read, read again: the same, or an error.
    pub(super) fn bytes(&mut self, offset: u64, len: u32) -> io::Result<Bytes> {
        self.checked.get(self.digest.pieces(), offset, len)
    }

    /// The hash of the first `len` bytes, if it was marked.
    pub(super) fn mark(&self, len: u64) -> Option<Hash> {
        self.digest.mark(len)
    }

    /// What was read, and what it was put together from.
    pub(super) fn finish(self) -> (Digested, Vec<Part>) {
        let parts = self.matching.map(|matching| matching.told);
        (self.digest.finish(), parts.unwrap_or_default())
    }

    fn step(&mut self) -> io::Result<()> {
        let left = self.size - self.at;
        let len = usize::try_from(left).map_or(STEP, |left| left.min(STEP));
        self.buffer.resize(len, 0);
        blocking(|| {
            self.file.read_exact_at(&mut self.buffer, self.at)?;
            let mut cut = |piece: &Chunk| self.matching.as_mut()?.add(piece);
            self.digest.add_in_two(&self.buffer, &mut cut);
            io::Result::Ok(())
        })?;
        self.at += len as u64;
        let is_last = self.at == self.size;
        if is_last {
            self.digest.end();
        }
        if let Some(matching) = self.matching.as_mut().filter(|_| is_last) {
            matching.end(&self.digest);
        }
        Ok(())
    }
}

impl Matching<'_> {
    /// The next piece; tells what is likely to follow.
    fn add(&mut self, piece: &Chunk) -> Option<Chunk> {
        self.ready.extend(self.matcher.add(piece));
        if self.matcher.pending() >= RANGE {
            self.ready.extend(self.matcher.end());
        }
        self.pieces += 1;
        self.matcher.likely()
    }

    /// There are no more but those that were cut at the end.
    fn end(&mut self, digest: &Digest) {
        for piece in &digest.pieces()[self.pieces..] {
            self.ready.extend(self.matcher.add(piece));
        }
        self.ready.extend(self.matcher.end());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::fuzz::noise;

    fn digest() -> Digest {
        Digest::new(Some(1 << 15), 1 << 22)
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[tokio::test]
    async fn the_beginning_is_told_before_the_end_is_read_and_all_of_it_is_right() {
        let old = noise(40 << 20, 1);
        let before = file(&old);
        let known = Reading::new(&before, old.len() as u64, digest(), None);
        let known = known.all().await.unwrap().chunks.unwrap();
        let mut new = [&noise(10, 2)[..], &old[..]].concat();
        new[30 << 20..(30 << 20) + 1000].copy_from_slice(&noise(1000, 3));
        let after = file(&new);
        let mut reading = Reading::new(&after, new.len() as u64, digest(), Some(&known));
        assert!(reading.begins_alike().unwrap());
        let (mut made, mut sent) = (Vec::new(), 0);
        let mut early = false;
        while let Some(part) = reading.next_part().unwrap() {
            assert_eq!(part.offset, made.len() as u64);
            early |= part.from.is_some() && reading.at < reading.size;
            match part.from {
                Some(from) => made.extend_from_slice(&old[from as usize..][..part.len as usize]),
                None => {
                    made.extend(reading.bytes(part.offset, part.len as u32).unwrap());
                    sent += part.len;
                }
            }
        }
        assert!(made == new && sent < 1 << 20 && early, "{sent}, {early}");
        let (digested, parts) = reading.finish();
        assert_eq!(digested.hash.0, *blake3::hash(&new).as_bytes());
        let plain = Reading::new(&after, new.len() as u64, digest(), None);
        assert_eq!(digested.chunks, plain.all().await.unwrap().chunks);
        assert_eq!(
            parts.iter().map(|part| part.len).sum::<u64>(),
            new.len() as u64
        );
    }

    #[tokio::test]
    async fn another_content_does_not_begin_alike_and_a_shorter_file_is_an_error() {
        let old = file(&noise(1 << 20, 1));
        let known = Reading::new(&old, 1 << 20, digest(), None).all().await;
        let known = known.unwrap().chunks.unwrap();
        let other = file(&noise(1 << 20, 2));
        let mut reading = Reading::new(&other, 1 << 20, digest(), Some(&known));
        assert!(!reading.begins_alike().unwrap());
        let longer = Reading::new(&other, (1 << 20) + 1, digest(), None);
        assert!(longer.all().await.is_err());
    }
}
