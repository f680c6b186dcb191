//! How long an answer takes, and how much content goes through in a second.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use crate::remote::{Remote, RemoteError, TransferError, Upload, download, upload};
use crate::tree::RelPath;

/// Questions that are asked one after the other.
const ASKED: usize = 21;
/// The first piece of content that is tried, and the largest.
const FIRST_BYTES: u64 = 256 * 1024;
const LAST_BYTES: u64 = 32 * 1024 * 1024;
/// What took so long is measured well enough.
const ENOUGH: Duration = Duration::from_millis(700);
/// As long as any piece that is sent at once.
const PIECE: usize = 64 * 1024;

/// The time from a question to its answer, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct RoundTrips {
    /// Half took no longer.
    pub median_ms: f64,
    /// The fastest.
    pub min_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// How many were measured.
    pub count: usize,
}

/// What one file took over one session.
#[derive(Debug, Clone, Serialize)]
pub struct Throughput {
    /// Its size.
    pub bytes: u64,
    /// To the server, in bytes per second.
    pub up_per_second: f64,
    /// From the server.
    pub down_per_second: f64,
    /// How long the server took to bring it to its disk, in milliseconds, if it can.
    pub fsync_ms: Option<f64>,
}

pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Asks about the home's root again and again.
pub(super) async fn round_trips(remote: &Remote) -> Result<RoundTrips, RemoteError> {
    let mut times = Vec::new();
    for _ in 0..ASKED {
        let start = Instant::now();
        remote.interactive().lstat(&RelPath::root()).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().map_or(0.0, millis);
    Ok(RoundTrips {
        median_ms: at(ASKED / 2),
        min_ms: at(0),
        max_ms: at(ASKED - 1),
        count: ASKED,
    })
}

/// Sends and fetches a file of a size that takes a while, and removes it. Nothing if there is no room for it.
pub(super) async fn throughput(
    remote: &Remote,
    path: &RelPath,
    free: u64,
) -> Result<Option<Throughput>, RemoteError> {
    let mut bytes = FIRST_BYTES;
    loop {
        if bytes > free / 4 {
            return Ok(None);
        }
        let tried = once(remote, path, bytes).await;
        // Whatever came of it, nothing is to stay.
        drop(remote.bulk().remove(path).await);
        match tried {
            Ok((measured, time)) => {
                if time >= ENOUGH || bytes >= LAST_BYTES {
                    return Ok(Some(measured));
                }
                bytes = (bytes * 4).min(LAST_BYTES);
            }
            Err(TransferError::Remote(error)) if error.is_link_loss() => return Err(error),
            Err(_) => return Ok(None),
        }
    }
}

async fn once(
    remote: &Remote,
    path: &RelPath,
    bytes: u64,
) -> Result<(Throughput, Duration), TransferError> {
    let session = &**remote.bulk();
    let noise = noise();
    let mut source = |_, len: u32| Ok(noise.slice(..len as usize));
    let whole = Upload {
        size: bytes,
        resume_at: 0,
        mode: 0o600,
        mtime: 0,
        fsync: false,
    };
    let start = Instant::now();
    upload(session, path, whole, &mut source, &mut |_| {}).await?;
    let up = start.elapsed();
    let mut fsync_ms = None;
    if remote.features().fsync {
        let handle = session.open_write(path, 0o600, false).await?;
        let start = Instant::now();
        let synced = session.fsync(&handle).await;
        fsync_ms = Some(millis(start.elapsed()));
        session.close(handle).await?;
        synced?;
    }
    let start = Instant::now();
    download(session, path, bytes, 0, &mut |_, _| Ok(())).await?;
    let down = start.elapsed();
    let rate = |bytes: u64, time: Duration| bytes as f64 / time.as_secs_f64().max(1e-6);
    let measured = Throughput {
        bytes,
        up_per_second: rate(bytes, up).round(),
        down_per_second: rate(bytes, down).round(),
        fsync_ms,
    };
    Ok((measured, up.max(down)))
}

/// Bytes that no compression makes fewer.
fn noise() -> Bytes {
    let mut data = vec![0; PIECE];
    // Without randomness there are zeros, and the figure is too good.
    let _filled = getrandom::fill(&mut data);
    data.into()
}
