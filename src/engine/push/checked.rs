//! A content that was read before, read again: it is the same, or an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};

use crate::replica::Chunk;

/// Gives bytes of a file in the order of their offsets, as far as they are what was read then.
pub(super) struct Checked<'a> {
    file: &'a File,
    /// So many pieces were passed.
    passed: usize,
    /// Where the next one begins.
    start: u64,
    /// The bytes of the next one, once they were looked at.
    piece: Option<Bytes>,
}

impl<'a> Checked<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self {
            file,
            passed: 0,
            start: 0,
            piece: None,
        }
    }

    /// The bytes from `offset` on, in what has these pieces.
    pub(super) fn get(&mut self, pieces: &[Chunk], offset: u64, len: u32) -> io::Result<Bytes> {
        let (mut at, end) = (offset, offset + u64::from(len));
        let mut got = BytesMut::new();
        while at < end {
            let (start, piece) = self.piece_at(pieces, at)?;
            let from = (at - start) as usize;
            let to = (end - start).min(piece.len() as u64) as usize;
            let part = piece.slice(from..to);
            at += part.len() as u64;
            if at == end && got.is_empty() {
                return Ok(part);
            }
            got.extend_from_slice(&part);
        }
        Ok(got.freeze())
    }

    /// The piece with the byte at an offset, and where it begins.
    fn piece_at(&mut self, pieces: &[Chunk], at: u64) -> io::Result<(u64, Bytes)> {
        let chunk = loop {
            let next = pieces.get(self.passed);
            let chunk = next.ok_or(io::ErrorKind::UnexpectedEof)?;
            if at < self.start + u64::from(chunk.len) {
                break chunk;
            }
            self.start += u64::from(chunk.len);
            self.passed += 1;
            self.piece = None;
        };
        if let Some(piece) = &self.piece {
            return Ok((self.start, piece.clone()));
        }
        let mut bytes = vec![0; chunk.len as usize];
        self.file.read_exact_at(&mut bytes, self.start)?;
        if *blake3::hash(&bytes).as_bytes() != chunk.hash.0 {
            return Err(io::Error::other("it was written to meanwhile"));
        }
        let piece = Bytes::from(bytes);
        self.piece = Some(piece.clone());
        Ok((self.start, piece))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::replica::Digest;

    #[test]
    fn what_was_written_to_meanwhile_is_not_given() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut digest = Digest::new(Some(4096), 1);
        digest.add(&bytes);
        digest.end();
        let pieces = digest.pieces();
        let mut whole = Checked::new(&file);
        for (n, part) in bytes.chunks(10_000).enumerate() {
            assert_eq!(whole.get(pieces, n as u64 * 10_000, 10_000).unwrap(), part);
        }
        assert!(whole.get(pieces, 400_000, 1).is_err());
        file.write_all_at(b"x", 200_000).unwrap();
        let mut changed = Checked::new(&file);
        assert!(changed.get(pieces, 0, 1000).is_ok());
        assert!(changed.get(pieces, 200_000, 1).is_err());
    }
}
