//! `roamhome doctor`: what a server can do, found out by doing it.
//!
//! What is written lies in `.roamhome/staging/`, under names of the doctor's own, and is removed again, also what an
//! earlier doctor left that was killed. Sizes are bounded. A directory that is no home stays as it is unless told
//! otherwise, and then `.roamhome/` goes again as well.

mod advice;
mod checks;
mod speed;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Access, link};
use crate::clock;
use crate::config::Way;
use crate::control::{Code, Failure};
use crate::remote::layout::{self, HomeToml};
use crate::remote::{ErrorKind, Remote, RemoteError};
use crate::replica::Replica;
use crate::tree::{Name, RelPath};

pub use self::advice::{Advice, Weight};
pub use self::checks::{Check, Outcome};
pub use self::speed::{RoundTrips, Throughput};

/// Names of the doctor's own in staging begin with this.
const PREFIX: &str = "doctor-";
/// What an earlier doctor left is removed when it is older than this, by the server's clock.
const LEFTOVER: i64 = 3600;
/// More than this is no `home.toml`.
const SMALL_FILE_MAX: u32 = 64 * 1024;
/// All of it may take no longer; a server that is slower is told what was found until then.
const PATIENCE: Duration = Duration::from_secs(300);

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which home.
    pub server: String,
    /// How it is reached, as the settings call it.
    pub transport: String,
    /// What SSH agreed on, where we can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh: Option<Ssh>,
    /// From nothing to the first answer about the home, in milliseconds.
    pub connect_ms: f64,
    /// How many sessions were wanted.
    pub sessions_wanted: usize,
    /// And how many the server gave.
    pub sessions: usize,
    /// Why it gave fewer; empty if it did not say.
    pub fewer_sessions: String,
    /// What it offers, with versions, as it says.
    pub extensions: Vec<String>,
    /// The longest read and write, in bytes.
    pub max_read: u32,
    /// The longest write, in bytes.
    pub max_write: u32,
    /// From a question to its answer.
    pub round_trip: RoundTrips,
    /// The directory.
    pub home: HomeReport,
    /// What was tried.
    pub checks: Vec<Check>,
    /// How much faster the server's clock is, in seconds, if it was tried.
    pub clock_offset: Option<f64>,
    /// How wrong that may be, in seconds.
    pub clock_error: Option<f64>,
    /// What content takes, if it was tried.
    pub throughput: Option<Throughput>,
    /// What to do about it.
    pub advice: Vec<Advice>,
}

/// What SSH agreed on.
#[derive(Debug, Clone, Serialize)]
pub struct Ssh {
    /// The cipher.
    pub cipher: String,
    /// What agreed on the keys.
    pub key_exchange: String,
    /// The kind of key or certificate that proved the server.
    pub host_key: String,
}

/// What is known of the home's directory.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HomeReport {
    /// Whose it is: `new` (no home yet), `home`, or `damaged`.
    pub state: &'static str,
    /// Its identity, or what is wrong with it.
    pub identity: String,
    /// Machines that have published in it.
    pub machines: usize,
    /// Whether a replica of it is kept on this machine.
    pub kept_here: bool,
    /// Its permissions, in octal.
    pub mode: String,
    /// Its owner on the server.
    pub uid: u32,
    /// Bytes free for this user; nothing if the server does not tell.
    pub free_bytes: Option<u64>,
    /// The size of its disk.
    pub total_bytes: Option<u64>,
}

/// Looks at a server; `state_dir` is where a replica would be. With `create`, `.roamhome/` is made where it is missing, for
/// as long as it takes.
pub fn doctor(access: &Access, state_dir: &Path, create: bool) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| {
        Failure::new(Code::General, format!("threads cannot be started: {error}"))
    })?;
    let outcome = runtime.block_on(async {
        let looked = tokio::time::timeout(PATIENCE, examine(access, state_dir, create)).await;
        looked.unwrap_or_else(|_| {
            let message = format!(
                "{} took longer than {} s",
                access.target,
                PATIENCE.as_secs()
            );
            Err(Failure::new(Code::Unreachable, message))
        })
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

async fn examine(access: &Access, state_dir: &Path, create: bool) -> Result<Report, Failure> {
    let kept_here = Replica::is_known(state_dir);
    let start = Instant::now();
    let remote = link::open(
        access,
        kept_here && matches!(access.way, Way::Local(_)),
        false,
    )
    .await;
    let remote = remote.map_err(|error| link::failure(&error))?;
    let connect_ms = speed::millis(start.elapsed());
    let lost =
        |error: RemoteError| Failure::new(Code::Unreachable, format!("{}: {error}", access.target));
    let (home, has_staging) = home(&remote, kept_here).await.map_err(lost)?;
    let about = remote.about().clone();
    let features = remote.features();
    let mut report = Report {
        server: access.target.to_string(),
        transport: about.transport.to_owned(),
        ssh: (!about.cipher.is_empty()).then(|| Ssh {
            cipher: about.cipher.clone(),
            key_exchange: about.key_exchange.clone(),
            host_key: about.host_key.clone(),
        }),
        connect_ms,
        sessions_wanted: match about.one_session {
            true => 1,
            false => usize::from(access.config.channels),
        },
        sessions: remote.session_count(),
        fewer_sessions: about.fewer_sessions.clone(),
        extensions: remote.interactive().extensions(),
        max_read: features.max_read,
        max_write: features.max_write,
        round_trip: speed::round_trips(&remote).await.map_err(lost)?,
        home,
        checks: Vec::new(),
        clock_offset: None,
        clock_error: None,
        throughput: None,
        advice: Vec::new(),
    };
    let mut made = Vec::new();
    if has_staging || (create && make_staging(&remote, &mut made, &mut report).await) {
        let outcome = try_out(&remote, &mut report).await;
        outcome.map_err(lost)?;
    } else if !create {
        report.checks.push(checks::skipped());
    }
    // Inner ones first; what is not empty is somebody's by now, and stays.
    for directory in made.iter().rev() {
        drop(remote.interactive().rmdir(directory).await);
    }
    report.advice = advice::advice(&report, &features);
    remote.close();
    Ok(report)
}

/// Makes what is missing of `.roamhome/staging/`, and notes what was made.
async fn make_staging(remote: &Remote, made: &mut Vec<RelPath>, report: &mut Report) -> bool {
    for directory in [layout::directory(), layout::staging()] {
        match remote.interactive().mkdir(&directory, 0o700).await {
            Ok(()) => made.push(directory),
            Err(error) if remote.interactive().lstat(&directory).await.is_err() => {
                report.checks.push(checks::not_writable(&error));
                return false;
            }
            Err(_) => {}
        }
    }
    true
}

async fn try_out(remote: &Remote, report: &mut Report) -> Result<(), RemoteError> {
    let random = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
    let own = format!("{PREFIX}{random:016x}");
    let probe = layout::staging_path(&format!("{own}-clock"));
    let before = clock::now().0;
    let server = match remote.interactive().probe_time(&probe).await {
        Ok(server) => server.0,
        Err(error) if error.is_link_loss() => return Err(error),
        Err(error) => {
            report.checks.push(checks::not_writable(&error));
            return Ok(());
        }
    };
    let after = clock::now().0;
    // The server shows whole seconds: its time was up to one second later.
    let (low, high) = (server - after, server + 1_000_000_000 - before);
    report.clock_offset = Some((low + high) as f64 / 2e9);
    report.clock_error = Some((high - low) as f64 / 2e9);
    sweep(remote, server / 1_000_000_000).await?;
    report.checks.extend(checks::all(remote, &own).await?);
    let free = report.home.free_bytes.unwrap_or(u64::MAX);
    let content = layout::staging_path(&format!("{own}-content"));
    report.throughput = speed::throughput(remote, &content, free).await?;
    Ok(())
}

/// Removes what doctors left that were killed.
async fn sweep(remote: &Remote, now: i64) -> Result<(), RemoteError> {
    let session = remote.interactive();
    for entry in session.list(&layout::staging()).await? {
        let is_ours = entry.name.as_bytes().starts_with(PREFIX.as_bytes());
        if is_ours && entry.stat.mtime < now - LEFTOVER {
            let path = layout::staging().join(&entry.name);
            let removed = match entry.stat.kind {
                crate::tree::Kind::Dir => session.rmdir(&path).await,
                _ => session.remove(&path).await,
            };
            if let Err(error) = removed.inspect_err(|error| tracing::debug!(%error, "sweeping"))
                && error.is_link_loss()
            {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// What the directory is, and whether there is a staging area in it.
async fn home(remote: &Remote, kept_here: bool) -> Result<(HomeReport, bool), RemoteError> {
    let session = remote.interactive();
    let root = session.lstat(&RelPath::root()).await?;
    let mut home = HomeReport {
        state: "new",
        kept_here,
        mode: format!("{:04o}", root.mode),
        uid: root.uid,
        ..HomeReport::default()
    };
    if remote.features().statvfs {
        match session.statvfs().await {
            Ok(vfs) => {
                home.free_bytes = Some(vfs.available_bytes);
                home.total_bytes = Some(vfs.total_bytes);
            }
            Err(error) if error.is_link_loss() => return Err(error),
            Err(_) => {}
        }
    }
    match read_small(remote, &layout::home_toml()).await? {
        None => {}
        Some(Ok(bytes)) => match HomeToml::parse(&bytes) {
            Ok(found) => (home.state, home.identity) = ("home", found.identity),
            Err(error) => (home.state, home.identity) = ("damaged", error.to_string()),
        },
        Some(Err(error)) => (home.state, home.identity) = ("damaged", error.to_string()),
    }
    if let Ok(feed) = session.list(&layout::feed()).await {
        let clients = feed
            .iter()
            .filter_map(|entry| layout::parse_feed_name(&entry.name));
        let clients: std::collections::BTreeSet<_> = clients.map(|(client, _)| client).collect();
        home.machines = clients.len();
    }
    let has_staging = session.lstat(&layout::staging()).await.is_ok();
    Ok((home, has_staging))
}

/// A small file; `None` if it is not there.
async fn read_small(
    remote: &Remote,
    path: &RelPath,
) -> Result<Option<Result<bytes::Bytes, RemoteError>>, RemoteError> {
    let session = remote.interactive();
    let handle = match session.open_read(path).await {
        Ok(handle) => handle,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.is_link_loss() => return Err(error),
        Err(error) => return Ok(Some(Err(error))),
    };
    let data = session.read(&handle, 0, SMALL_FILE_MAX).await;
    session.close(handle).await?;
    Ok(Some(data))
}

/// A name of the doctor's own.
fn own_path(own: &str, what: &[u8]) -> RelPath {
    let name = [own.as_bytes(), b"-", what].concat();
    match Name::new(&name) {
        Ok(name) => layout::staging().join(&name),
        // All are literals in `checks`.
        Err(_) => layout::staging(),
    }
}
