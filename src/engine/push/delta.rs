//! Letting the server copy what it has of a content that is to be sent.
//!
//! A range is copied only from a file whose content is known by its hash, chunk for chunk, and that was put or seen
//! there in a way that a later write could not hide behind the same time ([`Chunks::has_stood`]). It is looked at
//! through the very handle that is copied from, before and after. And since no server tells hashes, some of what it
//! copied is read back: a disk that lost what it had said to keep would not show it otherwise.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use futures_util::future::try_join_all;

use super::super::shared::{Shared, lock};
use super::matcher::Matcher;
use super::send::Way;
use crate::remote::{FileHandle, Part, RemoteError, Session, Stat};
use crate::replica::{Chunks, Digested, Node, ReplicaError};
use crate::tree::{Hash, Kind, Place, RelPath, Version};

/// Files of the same size that are looked through for one of the same content.
const MOST_ALIKE: usize = 64;
/// So many files that were put aside are remembered.
const MOST_PUT_ASIDE: usize = 64;
/// So many places of what was copied are read back, and so many bytes at each.
const SAMPLES: u64 = 16;
const SAMPLE: u64 = 4096;

/// What was put aside on the server, and where it is since.
pub(in crate::engine) type PutAside = Mutex<Vec<(Version, RelPath)>>;

/// What the server may have of a content.
pub(super) struct Sources {
    /// What is replaced, if it is known well enough.
    pub(super) old: Option<(Version, Chunks)>,
    /// There are others of the same size.
    pub(super) are_alike: bool,
}

impl Sources {
    pub(super) fn are_there(&self) -> bool {
        self.old.is_some() || self.are_alike
    }
}

/// What may be copied when `node` is sent.
pub(super) fn sources(
    shared: &Shared,
    way: &Way<'_>,
    node: &Node,
) -> Result<Sources, ReplicaError> {
    let large = shared.options.large;
    let possible = large.delta && way.remote.features().copy_data;
    // Read back, it must be ours to read.
    if !possible || node.size < large.delta_from || node.mode & 0o400 == 0 {
        return Ok(Sources {
            old: None,
            are_alike: false,
        });
    }
    let old = match way.replaces {
        Some(old) if old.size >= large.delta_from => {
            trusted(shared, way.place, old)?.map(|chunks| (old.clone(), chunks))
        }
        _ => None,
    };
    let alike = shared
        .replica
        .view(|view| view.base_files((node.size, i64::MIN), (node.size, i64::MAX), MOST_ALIKE))?;
    let is_known = |version: &Version| version.hash.is_some() && version.size == node.size;
    let are_alike = alike.iter().any(|(_, base)| is_known(&base.version))
        || lock(&shared.put_aside).iter().any(|(v, _)| is_known(v));
    Ok(Sources { old, are_alike })
}

/// What the file at `place` on the server consists of, if nothing can have happened to it that it does not show.
fn trusted(
    shared: &Shared,
    place: &Place,
    version: &Version,
) -> Result<Option<Chunks>, ReplicaError> {
    let Some(hash) = version.hash else {
        return Ok(None);
    };
    if shared.replica.view(|view| view.is_racy(place))? {
        return Ok(None);
    }
    let chunks = shared.replica.content().chunks_of(hash)?;
    Ok(chunks.filter(|chunks| chunks.size == version.size && chunks.has_stood(version.mtime)))
}

/// Remembers where a file is that was put aside.
pub(super) fn note_put_aside(
    shared: &Shared,
    place: &Place,
    version: &Version,
    aside: &RelPath,
) -> Result<(), ReplicaError> {
    let is_large = version.size >= shared.options.large.delta_from;
    if is_large && trusted(shared, place, version)?.is_some() {
        let mut all = lock(&shared.put_aside);
        all.push((version.clone(), aside.clone()));
        if all.len() > MOST_PUT_ASIDE {
            all.remove(0);
        }
    }
    Ok(())
}

/// A file on the server that is copied from.
pub(super) struct Old {
    session: Arc<dyn Session>,
    pub(super) handle: FileHandle,
    pub(super) stat: Stat,
    /// How the new content is put together, if that is known.
    pub(super) parts: Vec<Part>,
    hash: Option<Hash>,
}

impl Drop for Old {
    fn drop(&mut self) {
        self.session.abandon(self.handle.clone());
    }
}

impl Old {
    /// It was not what it has to be: what is known of it does not count any more.
    pub(super) fn distrust(&self, shared: &Shared) {
        if let Some(hash) = self.hash
            && let Err(error) = shared.replica.content().forget_chunks(hash)
        {
            tracing::warn!(%error, "forgetting what a file consists of");
        }
    }
}

/// Opens what has most of the content that is `known`.
pub(super) async fn open(
    shared: &Shared,
    session: &Arc<dyn Session>,
    way: &Way<'_>,
    sources: &Sources,
    known: &Digested,
) -> Result<Option<Old>, OpenError> {
    let Some(new) = &known.chunks else {
        return Ok(None);
    };
    if sources.are_alike {
        // A file that is moved aside in this moment is found there the second time.
        for _ in 0..2 {
            for (path, version) in equal(shared, new)? {
                let all = Part {
                    offset: 0,
                    len: new.size,
                    from: Some(0),
                };
                if let Some(old) = open_one(session, &path, &version, vec![all]).await? {
                    return Ok(Some(old));
                }
            }
        }
    }
    let Some((version, chunks)) = &sources.old else {
        return Ok(None);
    };
    match parts(new, chunks) {
        Some(parts) => Ok(open_one(session, way.target, version, parts).await?),
        None => Ok(None),
    }
}

/// Opens what is replaced, before it is known what is copied from it.
pub(super) async fn open_replaced(
    session: &Arc<dyn Session>,
    way: &Way<'_>,
    version: &Version,
) -> Result<Option<Old>, RemoteError> {
    open_one(session, way.target, version, Vec::new()).await
}

/// Why nothing could be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The link is lost.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

/// Where the server has this content.
fn equal(shared: &Shared, new: &Chunks) -> Result<Vec<(RelPath, Version)>, ReplicaError> {
    let alike = shared
        .replica
        .view(|view| view.base_files((new.size, i64::MIN), (new.size, i64::MAX), MOST_ALIKE))?;
    let mut found = Vec::new();
    for (place, base) in alike {
        let is_equal = base.version.hash == Some(new.hash);
        if is_equal && trusted(shared, &place, &base.version)?.is_some() {
            let path = shared.replica.view(|view| view.base_path_of(&place))?;
            found.extend(path.map(|path| (path, base.version)));
        }
    }
    let aside = lock(&shared.put_aside);
    let aside = aside.iter().filter(|(v, _)| v.hash == Some(new.hash));
    found.extend(aside.map(|(version, path)| (path.clone(), version.clone())));
    Ok(found)
}

/// `None` if something else stands there.
async fn open_one(
    session: &Arc<dyn Session>,
    path: &RelPath,
    version: &Version,
    parts: Vec<Part>,
) -> Result<Option<Old>, RemoteError> {
    // Nothing is opened through a link.
    let kind = match session.lstat(path).await {
        Err(error) if error.is_link_loss() => return Err(error),
        Err(_) => return Ok(None),
        Ok(stat) => stat.kind,
    };
    if kind != Kind::File {
        return Ok(None);
    }
    let handle = match session.open_read(path).await {
        Err(error) if error.is_link_loss() => return Err(error),
        Err(_) => return Ok(None),
        Ok(handle) => handle,
    };
    let mut old = Old {
        session: Arc::clone(session),
        handle,
        stat: Stat {
            kind,
            size: version.size,
            mtime: version.mtime,
            mode: version.mode,
            uid: 0,
            gid: 0,
        },
        parts,
        hash: version.hash,
    };
    match session.fstat(&old.handle).await {
        Err(error) if error.is_link_loss() => Err(error),
        Err(_) => Ok(None),
        Ok(stat) => {
            let looks = Version::file(stat.size, stat.mtime, stat.mode);
            let is_expected = stat.kind == Kind::File && version.same(&looks);
            old.stat = stat;
            Ok(is_expected.then_some(old))
        }
    }
}

/// How `new` is put together from `old`; `None` if nothing of it is there.
fn parts(new: &Chunks, old: &Chunks) -> Option<Vec<Part>> {
    let mut matcher = Matcher::new(old, None);
    let mut all: Vec<Part> = new.list.iter().filter_map(|n| matcher.add(n)).collect();
    all.extend(matcher.end());
    let any = all.iter().any(|part| part.from.is_some());
    any.then_some(all)
}

/// Whether some of what was copied to `staged` is what `file` has there.
pub(super) async fn is_as_here(
    shared: &Shared,
    session: &dyn Session,
    staged: &RelPath,
    parts: &[Part],
    file: &File,
) -> Result<bool, RemoteError> {
    let ranges = samples(parts, |n| shared.random() % n.max(1));
    let handle = session.open_read(staged).await?;
    let reads = ranges
        .iter()
        .map(|(at, len)| session.read(&handle, *at, *len));
    let read = try_join_all(reads).await;
    session.abandon(handle);
    let same = ranges.iter().zip(read?).all(|((at, len), there)| {
        let mut here = vec![0; there.len()];
        let is_read = file.read_exact_at(&mut here, *at).is_ok();
        is_read && !there.is_empty() && there.len() <= *len as usize && there == here
    });
    Ok(same)
}

/// Ranges here and there in what is copied: no more than a part of it. `random` tells a number below another.
fn samples(parts: &[Part], random: impl Fn(u64) -> u64) -> Vec<(u64, u32)> {
    let copied = || parts.iter().filter(|part| part.from.is_some());
    let total: u64 = copied().map(|part| part.len).sum();
    let stride = total.div_ceil(SAMPLES).max(1);
    let len = (stride / 4).clamp(1, SAMPLE);
    let mut ranges = Vec::new();
    let mut before = 0;
    let mut next = random(stride);
    for part in copied() {
        while next < before + part.len {
            let within = next - before;
            let len = len.min(part.len - within);
            ranges.push((part.offset + within, len as u32));
            next = (next / stride + 1) * stride + random(stride);
        }
        before += part.len;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::noise;
    use crate::replica::Digest;

    fn chunks(bytes: &[u8]) -> Chunks {
        let mut digest = Digest::new(Some(1024), u64::MAX);
        digest.add(bytes);
        digest.finish().chunks.unwrap()
    }

    fn put_together(parts: &[Part], new: &[u8], old: &[u8]) -> (Vec<u8>, u64) {
        let (mut made, mut sent) = (Vec::new(), 0);
        for part in parts {
            assert_eq!(part.offset, made.len() as u64);
            let (source, from) = match part.from {
                Some(from) => (old, from),
                None => (new, part.offset),
            };
            sent += if part.from.is_none() { part.len } else { 0 };
            made.extend_from_slice(&source[from as usize..(from + part.len) as usize]);
        }
        (made, sent)
    }

    #[test]
    fn a_new_version_is_put_together_from_the_old_one_and_little_else() {
        let old = noise(200_000, 1);
        let middle = [&old[..90_000], &noise(500, 2)[..], &old[90_500..]].concat();
        let start = [&noise(10, 3)[..], &old[..]].concat();
        let moved = [&old[100_000..], &old[..100_000]].concat();
        let twice = [&old[..], &old[..]].concat();
        let zeros = [&old[..], &vec![0; 100_000][..]].concat();
        for (new, most) in [
            (middle, 15_000),
            (start, 8_000),
            (moved, 15_000),
            (twice, 15_000),
            (zeros, 105_000),
        ] {
            let parts = parts(&chunks(&new), &chunks(&old)).unwrap();
            let (made, sent) = put_together(&parts, &new, &old);
            assert!(made == new);
            assert!(sent <= most, "{sent} of {most}");
            assert!(parts.len() < 12, "{}", parts.len());
        }
        assert_eq!(parts(&chunks(&noise(50_000, 9)), &chunks(&old)), None);
    }

    #[test]
    fn what_is_read_back_lies_in_what_was_copied_and_all_over_it() {
        let part = |offset, len, from| Part { offset, len, from };
        let parts = [
            part(0, 1_000_000, Some(7)),
            part(1_000_000, 500_000, None),
            part(1_500_000, 100, Some(0)),
            part(1_500_100, 2_000_000, Some(9)),
        ];
        for random in [|_: u64| 0, |n: u64| n - 1, |n: u64| n / 2] {
            let ranges = samples(&parts, random);
            assert!((15..=17).contains(&ranges.len()), "{}", ranges.len());
            for (at, len) in &ranges {
                let holds = |part: &&Part| {
                    part.offset <= *at && at + u64::from(*len) <= part.offset + part.len
                };
                let of = parts.iter().find(holds).unwrap();
                assert!(of.from.is_some() && *len > 0);
            }
            let in_first = ranges.iter().filter(|(at, _)| *at < 1_000_000).count();
            assert!((5..=6).contains(&in_first), "{in_first}");
        }
        assert_eq!(samples(&parts[1..2], |_| 0), []);
        assert_eq!(samples(&[part(0, 3, Some(0))], |_| 0).len(), 3);
    }
}
