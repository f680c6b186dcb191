//! What a client tells the others of its home, in the file that counts its passes: its machine's name and what it
//! published lately. A hint: each line is bound to a version, so what somebody else changed since speaks for itself.
//!
//! ```text
//! roamhome-feed 1
//! host lab-07
//! 512 1700000000 notes/to%20do.txt       bytes, mtime in seconds, path
//! ```

use super::{decode, encode};
use crate::tree::RelPath;

/// The first line, with the version of the form.
const HEAD: &str = "roamhome-feed 1";
/// So many files are told of at most, the latest.
pub const PUBLISHED_MAX: usize = 200;
/// The longest name of a machine that counts, in bytes.
const HOST_MAX: usize = 255;

/// A file that a client published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Published {
    /// Where.
    pub path: RelPath,
    /// In bytes.
    pub size: u64,
    /// Seconds since the epoch.
    pub mtime: i64,
}

/// What one client tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedRecord {
    /// The machine's name.
    pub host: String,
    /// The latest last.
    pub published: Vec<Published>,
}

impl FeedRecord {
    /// Adds what is published now; the oldest make room.
    pub fn add(&mut self, published: Vec<Published>) {
        self.published
            .retain(|old| !published.iter().any(|new| new.path == old.path));
        self.published.extend(published);
        let surplus = self.published.len().saturating_sub(PUBLISHED_MAX);
        self.published.drain(..surplus);
    }

    /// The file's content, at most `max` bytes: the oldest are left out.
    pub fn format(&self, max: usize) -> String {
        let mut lines = Vec::new();
        let mut text = format!("{HEAD}\nhost ");
        encode(self.host.as_bytes(), &mut text);
        text.push('\n');
        let mut room = max.saturating_sub(text.len());
        for file in self.published.iter().rev() {
            let mut line = format!("{} {} ", file.size, file.mtime);
            encode(&file.path.to_bytes(), &mut line);
            line.push('\n');
            let Some(left) = room.checked_sub(line.len()) else {
                break;
            };
            room = left;
            lines.push(line);
        }
        lines.reverse();
        text + &lines.concat()
    }

    /// Reads a record. `None` if it is none: an older client leaves the file empty. Lines that make no sense are
    /// passed over, such as one that was cut off.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let rest = text.strip_prefix(HEAD)?.strip_prefix("\nhost ")?;
        let (host, rest) = rest.split_once('\n')?;
        let host = String::from_utf8(decode(host)?).ok()?;
        let host = Some(host).filter(|host| !host.is_empty() && host.len() <= HOST_MAX)?;
        let line = |line: &str| {
            let mut parts = line.splitn(3, ' ');
            Some(Published {
                size: parts.next()?.parse().ok()?,
                mtime: parts.next()?.parse().ok()?,
                path: RelPath::parse(&decode(parts.next()?)?).ok()?,
            })
        };
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _cut)| whole);
        let mut record = Self {
            host,
            published: Vec::new(),
        };
        record.add(whole.lines().filter_map(line).collect());
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &[u8], size: u64) -> Published {
        Published {
            path: RelPath::parse(path).unwrap(),
            size,
            mtime: -5,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut record = FeedRecord {
            host: "lab 07\n".into(),
            ..FeedRecord::default()
        };
        record.add(vec![file(b"d/a b\n\xff~%", 1), file(b"e", u64::MAX)]);
        let text = record.format(usize::MAX);
        assert_eq!(FeedRecord::parse(text.as_bytes()).as_ref(), Some(&record));
        assert!(text.is_ascii());
    }

    #[test]
    fn only_the_latest_are_told_and_each_path_once() {
        let mut record = FeedRecord::default();
        for round in 0..3 {
            let files = (0..PUBLISHED_MAX / 2 + 10)
                .map(|i| file(format!("{}", i + round).as_bytes(), round as u64));
            record.add(files.collect());
        }
        assert_eq!(record.published.len(), PUBLISHED_MAX / 2 + 12);
        record.add(
            (0..1000)
                .map(|i| file(format!("n{i}").as_bytes(), 0))
                .collect(),
        );
        assert_eq!(record.published.len(), PUBLISHED_MAX);
        assert_eq!(record.published.last(), Some(&file(b"n999", 0)));
        record.host = "h".into();
        let short = record.format(100);
        assert!(short.len() <= 100);
        let read = FeedRecord::parse(short.as_bytes()).unwrap();
        assert_eq!(read.published.last(), Some(&file(b"n999", 0)));
    }

    #[test]
    fn what_is_no_record_or_cut_off_misleads_nobody() {
        for none in [
            &b""[..],
            b"\xff",
            b"roamhome-feed 1",
            b"roamhome-feed 1\nhost ",
            b"roamhome-feed 1\nhost \n",
            b"roamhome-feed 2\nhost a\n",
        ] {
            assert_eq!(FeedRecord::parse(none), None, "{none:?}");
        }
        let odd = b"roamhome-feed 1\nhost a\nx 1 b\n1 2 %ZZ\n1 2 ../up\n3 4 good\n5 6 cut";
        let read = FeedRecord::parse(odd).unwrap();
        let expected = Published {
            path: RelPath::parse(b"good").unwrap(),
            size: 3,
            mtime: 4,
        };
        assert_eq!(read.published, [expected]);
    }
}
