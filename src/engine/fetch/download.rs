//! Downloads into staging. One that is cut off goes on where it was, if the server still shows the same version and
//! what is here is what came: the bytes by their hash, and once more their beginning and end by reading them again.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::cache;
use super::super::scan::{RACY_SECS, ScanError};
use super::super::shared::{Claim, Shared};
use super::CHANGED_RETRIES;
use super::in_order::InOrder;
use crate::remote::{self, ErrorKind, Expected, RemoteError, Session, TransferError};
use crate::replica::{
    Chunks, Digest, DownloadNote, Partial, ReplicaError, StagingFile, average_for,
};
use crate::tree::{Hash, Kind, RelPath, Time, Version};

/// Bytes that are read once more before a download goes on, at the beginning and at the end of what is here.
pub(super) const COMPARED: u64 = 16 * 1024;
/// Read at once from this machine's disk.
pub(super) const READ_CHUNK: usize = 256 * 1024;

/// A file's content in staging, with what it is.
pub(in crate::engine) struct Fetched {
    pub(in crate::engine) file: StagingFile,
    pub(in crate::engine) version: Version,
    /// What it consists of, if it is large and cannot change without showing it.
    chunks: Option<Chunks>,
    /// The part that it was; if it ended meanwhile, its file is not there any more.
    part: Option<Arc<Partial>>,
    /// It was put together from several attempts.
    went_on: bool,
    /// Nobody else begins a file of this name while this one is there.
    _claim: Option<Claim>,
}

impl Fetched {
    /// What came by block.
    pub(super) fn of_blocks(
        file: StagingFile,
        version: Version,
        chunks: Option<Chunks>,
        part: &Arc<Partial>,
    ) -> Self {
        Self {
            file,
            version,
            chunks,
            part: Some(Arc::clone(part)),
            went_on: false,
            _claim: None,
        }
    }

    /// Whether it shows what `agreed` does and is not that, and an earlier attempt may be to blame.
    pub(super) fn is_spoiled(&self, agreed: &Version) -> bool {
        self.went_on && agreed.looks_like(&self.version) && agreed.hash.is_some()
    }

    /// Whether its file is there no more.
    pub(super) fn is_gone(&self) -> bool {
        self.part
            .as_ref()
            .is_some_and(|part| part.ended().is_some())
    }

    /// Remembers what it consists of: the server has it.
    pub(in crate::engine) fn take_chunks(&mut self) -> Option<Chunks> {
        self.chunks.take()
    }
}

/// Downloads a file, which is expected to show this version. `None` if it changed under way.
pub(in crate::engine) async fn fetch(
    shared: &Arc<Shared>,
    session: &dyn Session,
    path: &RelPath,
    version: &Version,
) -> Result<Option<Fetched>, ScanError> {
    let settled = is_settled(version.mtime, shared.server_now());
    let mut expected = Expected {
        size: version.size,
        settled: settled.then_some(version.mtime),
    };
    if let Err(error) = cache::make_room(shared, version.size).await {
        tracing::warn!(%error, %path, "no room is made for it");
    }
    for _ in 0..CHANGED_RETRIES {
        match fetch_once(shared, session, path, expected).await {
            Ok(fetched) => return Ok(Some(fetched)),
            Err(TransferError::Changed { now, .. }) if now.kind == Kind::File => {
                expected = now.size.into();
            }
            Err(TransferError::Changed { .. }) => {
                let gone = "it is no longer a file on the server";
                return Err(RemoteError::new(ErrorKind::NotFound, "read", path, gone).into());
            }
            Err(TransferError::Remote(error)) => return Err(error.into()),
            Err(TransferError::Local { source, .. }) => {
                return Err(ReplicaError::io(shared.replica.state_dir(), source).into());
            }
        }
    }
    Ok(None)
}

async fn fetch_once(
    shared: &Arc<Shared>,
    session: &dyn Session,
    path: &RelPath,
    expected: Expected,
) -> Result<Fetched, TransferError> {
    let size = expected.size;
    let large = shared.options.large;
    let began = shared.server_now();
    let mut so_far = match size >= large.resume_from {
        true => Noted::begin(shared, session, path, size).await?,
        false => None,
    };
    // Outlives the file.
    let mut claim = None;
    let file = match so_far.as_mut().and_then(|noted| noted.file.take()) {
        Some(file) => file,
        None => new_staging(shared, path)?,
    };
    let average = (size >= large.delta_from && session.features().copy_data)
        .then(|| average_for(large.chunk, size));
    let mut digest = Digest::new(average, u64::MAX);
    let start = so_far.as_ref().map_or(0, |noted| noted.start);
    read_start(&file, start, &mut digest)
        .await
        .map_err(|source| local(path, source))?;
    let mut content = InOrder::new(digest, start);
    let progress = shared.transfers.start_at(path, false, size, start);
    let mut note_at = start + large.note_every;
    let mut sink = |offset: u64, data: bytes::Bytes| {
        file.file.write_all_at(&data, offset)?;
        progress.advance(data.len() as u64);
        content.add(offset, data);
        if content.done >= note_at {
            note_at = content.done + large.note_every;
            if let Some(noted) = &so_far {
                noted.note(shared, &content);
            }
        }
        Ok(())
    };
    let stat = match remote::download(session, path, expected, start, &mut sink).await {
        Ok(stat) => stat,
        Err(error) => {
            let is_cut = matches!(&error, TransferError::Remote(error) if error.is_link_loss());
            if let Some(noted) = so_far {
                noted.stop(shared, file, is_cut.then_some(&content));
            }
            return Err(error);
        }
    };
    if let Some(noted) = so_far {
        let is_same = noted.expect(stat);
        claim = Some(noted.end(shared));
        is_same?;
    }
    let (hash, chunks) = content.finish(size);
    let version = Version {
        hash,
        ..Version::file(size, stat.mtime, stat.mode)
    };
    let chunks = chunks
        .filter(|_| is_settled(stat.mtime, began))
        .map(|mut chunks| {
            chunks.note_stood(stat.mtime);
            chunks
        });
    Ok(Fetched {
        file,
        version,
        chunks,
        part: None,
        went_on: start > 0,
        _claim: claim,
    })
}

fn new_staging(shared: &Shared, path: &RelPath) -> Result<StagingFile, TransferError> {
    let staging = shared.replica.content().new_staging();
    staging.map_err(|error| local(path, io::Error::other(error)))
}

fn local(path: &RelPath, source: io::Error) -> TransferError {
    TransferError::Local {
        path: path.clone(),
        source,
    }
}

/// Whether what is written from now on shows another mtime.
pub(super) fn is_settled(mtime: i64, now: Time) -> bool {
    mtime < now.secs() - RACY_SECS
}

async fn read_start(file: &StagingFile, len: u64, digest: &mut Digest) -> io::Result<()> {
    let mut buffer = vec![0; READ_CHUNK];
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).map_or(READ_CHUNK, |left| left.min(READ_CHUNK));
        file.file.read_exact_at(&mut buffer[..part], at)?;
        digest.add(&buffer[..part]);
        at += part as u64;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// A download that goes on if it is cut off.
struct Noted {
    key: String,
    /// The version, as it is shown now.
    note: DownloadNote,
    file: Option<StagingFile>,
    /// So many bytes of it are here.
    start: u64,
    claim: Claim,
}

impl Noted {
    /// `None` if somebody else fetches it at this moment, or it is too young: what is written to it while it is away
    /// would not show.
    async fn begin(
        shared: &Shared,
        session: &dyn Session,
        path: &RelPath,
        size: u64,
    ) -> Result<Option<Self>, TransferError> {
        let key = blake3::hash(&path.to_bytes()).to_hex()[..16].to_owned();
        let Some(claim) = shared.claims.take(&format!("down-{key}")) else {
            return Ok(None);
        };
        let stat = session.lstat(path).await?;
        if stat.kind != Kind::File
            || stat.size != size
            || !is_settled(stat.mtime, shared.server_now())
        {
            return Ok(None);
        }
        let store = shared.replica.content();
        let opened = |error: ReplicaError| local(path, io::Error::other(error));
        let mut noted = Self {
            note: DownloadNote {
                path: path.clone(),
                size,
                mtime: stat.mtime,
                mode: stat.mode,
                at: 0,
                hash: Hash([0; 32]),
                noted: shared.now(),
            },
            key,
            file: None,
            start: 0,
            claim,
        };
        if let Some((file, before)) = store.download_so_far(&noted.key).map_err(opened)?
            && noted.goes_on(session, &file, &before).await?
        {
            noted.start = before.at;
            noted.file = Some(file);
            return Ok(Some(noted));
        }
        noted.file = Some(store.begin_download(&noted.key).map_err(opened)?);
        Ok(Some(noted))
    }

    /// Whether what is here is the beginning of what is there.
    async fn goes_on(
        &self,
        session: &dyn Session,
        file: &StagingFile,
        before: &DownloadNote,
    ) -> Result<bool, TransferError> {
        let now = &self.note;
        let shown = |note: &DownloadNote| (note.path.clone(), note.size, note.mtime, note.mode);
        if shown(now) != shown(before) || before.at > now.size || before.at == 0 {
            return Ok(false);
        }
        let mut digest = Digest::new(None, u64::MAX);
        if read_start(file, before.at, &mut digest).await.is_err()
            || digest.finish().hash != before.hash
        {
            return Ok(false);
        }
        let end = before.at;
        let ranges = [(0, end.min(COMPARED)), (end.saturating_sub(COMPARED), end)];
        let mut expected = |offset: u64, there: &[u8]| {
            let mut here = vec![0; there.len()];
            file.file.read_exact_at(&mut here, offset)?;
            Ok(here == there)
        };
        for range in ranges {
            if remote::matching(session, &now.path, range, &mut expected).await? != range.1 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// It has to be the version that was shown when it began.
    fn expect(&self, now: remote::Stat) -> Result<(), TransferError> {
        let path = self.note.path.clone();
        match now.mtime == self.note.mtime && now.size == self.note.size {
            true => Ok(()),
            false => Err(TransferError::Changed { path, now }),
        }
    }

    /// It came to its end; the claim is for as long as its file is in staging.
    fn end(self, shared: &Shared) -> Claim {
        self.forget(shared);
        self.claim
    }

    fn note(&self, shared: &Shared, content: &InOrder) {
        let (at, hash) = content.so_far();
        let note = DownloadNote {
            at,
            hash,
            noted: shared.now(),
            ..self.note.clone()
        };
        if let Err(error) = shared.replica.content().note_download(&self.key, &note) {
            tracing::info!(%error, "a download that is cut off will begin anew");
        }
    }

    /// It did not come to its end: what came stays if it `goes on`.
    fn stop(self, shared: &Shared, file: StagingFile, goes_on: Option<&InOrder>) {
        match goes_on {
            Some(content) => {
                self.note(shared, content);
                file.keep();
            }
            None => self.forget(shared),
        }
    }

    fn forget(&self, shared: &Shared) {
        if let Err(error) = shared.replica.content().forget_download(&self.key) {
            tracing::info!(%error, "forgetting a download");
        }
    }
}
