//! How long an answer takes, and how much content goes through in a second.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::remote::{Remote, RemoteError};
use crate::tree::RelPath;

/// Questions that are asked one after the other.
const ASKED: usize = 21;
/// The first piece of content that is tried, and the largest.
const FIRST_BYTES: u64 = 256 * 1024;
const LAST_BYTES: u64 = 32 * 1024 * 1024;
/// What took so long is measured well enough.
const ENOUGH: Duration = Duration::from_millis(700);
/// Bytes under way.
const WINDOW: u64 = 4 * 1024 * 1024;

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
            Err(error) if error.is_link_loss() => return Err(error),
            Err(_) => return Ok(None),
        }
    }
}

async fn once(
    remote: &Remote,
    path: &RelPath,
    bytes: u64,
) -> Result<(Throughput, Duration), RemoteError> {
    let features = remote.features();
    let session = remote.bulk();
    let content = noise(u64::from(features.max_write.min(64 * 1024)));
    let piece = content.len() as u64;
    let offsets = |piece: u64| (0..bytes.div_ceil(piece)).map(move |i| i * piece);
    let handle = session.open_write(path, 0o600, true).await?;
    let start = Instant::now();
    let writes = offsets(piece).map(|at| {
        let data = content.slice(..piece.min(bytes - at) as usize);
        session.write(&handle, at, data)
    });
    let in_flight = (WINDOW / piece).max(1) as usize;
    let sent: Result<Vec<()>, _> = stream::iter(writes).buffered(in_flight).try_collect().await;
    let up = start.elapsed();
    let mut fsync_ms = None;
    if sent.is_ok() && features.fsync {
        let start = Instant::now();
        session.fsync(&handle).await?;
        fsync_ms = Some(millis(start.elapsed()));
    }
    session.close(handle).await?;
    sent?;
    let handle = session.open_read(path).await?;
    let piece = u64::from(features.max_read.min(64 * 1024));
    let start = Instant::now();
    let reads = offsets(piece).map(|at| session.read(&handle, at, piece as u32));
    let in_flight = (WINDOW / piece).max(1) as usize;
    let got: Result<Vec<Bytes>, _> = stream::iter(reads).buffered(in_flight).try_collect().await;
    let down = start.elapsed();
    session.close(handle).await?;
    let got: u64 = got?.iter().map(|data| data.len() as u64).sum();
    let rate = |bytes: u64, time: Duration| bytes as f64 / time.as_secs_f64().max(1e-6);
    let measured = Throughput {
        bytes,
        up_per_second: rate(bytes, up).round(),
        down_per_second: rate(got, down).round(),
        fsync_ms,
    };
    Ok((measured, up.max(down)))
}

/// Bytes that no compression makes fewer.
fn noise(len: u64) -> Bytes {
    let mut data = vec![0; len as usize];
    // Without randomness there are zeros, and the figure is too good.
    let _filled = getrandom::fill(&mut data);
    data.into()
}
