//! The home's identity on the server, the rolled-back check, and the clock against the server's.
//!
//! Replica and server recognise each other by a random identity in `.roamhome/home.toml`. Each client also
//! keeps a counter of its own under `.roamhome/feed/`, raised *before* each pass that publishes: a server
//! whose counter is behind ours was rolled back to an older copy.

use std::sync::Arc;

use bytes::Bytes;

use super::shared::Shared;
use crate::remote::layout::{self, HomeToml};
use crate::remote::{ErrorKind, Remote, RemoteError};
use crate::replica::{Replica, ReplicaError};
use crate::sync::{ClockOffset, Guard, HomeIdentity};
use crate::tree::RelPath;

/// Keys of what the replica remembers about the home.
const META_IDENTITY: &str = "home.identity";
const META_PUBLISHED: &str = "home.published";

/// More than this is no `home.toml` or counter of ours.
const SMALL_FILE_MAX: u32 = 64 * 1024;

/// SFTP shows whole seconds, so a probe's time is known to within one.
const MTIME_GRAIN_NS: i64 = 1_000_000_000;

/// Whether the directory on the server is the home that this replica belongs to; asked before each pass,
/// since a server may lose or exchange its directory under a living connection. Returns the questions that
/// a person has to answer first; none if all is well.
pub(super) async fn recheck(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<Vec<String>, RemoteError> {
    prepare(shared, remote).await.map(|suspicions| suspicions.iter().map(Guard::to_string).collect())
}

/// Makes `.roamhome/` where it is missing, compares identities and counters. A replica that never met a
/// home takes over the identity that it finds, or founds one.
pub(super) async fn prepare(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<Vec<Guard>, RemoteError> {
    let found = read_small(remote, &layout::home_toml()).await?;
    let found = found.map(|bytes| HomeToml::parse(&String::from_utf8_lossy(&bytes)));
    let known = meta(&shared.replica, META_IDENTITY);
    match (known, found) {
        (None, None) => {
            let identity = found_home(remote).await?;
            remember(&shared.replica, META_IDENTITY, &identity);
            Ok(Vec::new())
        }
        (None, Some(Ok(home))) => {
            make_directories(remote).await?;
            remember(&shared.replica, META_IDENTITY, &home.identity);
            Ok(Vec::new())
        }
        (Some(known), Some(Ok(home))) if home.identity == known => {
            make_directories(remote).await?;
            check_counter(shared, remote).await
        }
        (_, Some(Err(detail))) => {
            Ok(vec![Guard::Identity(HomeIdentity::Unreadable(detail))])
        }
        (Some(_), None) => {
            Ok(vec![Guard::Identity(HomeIdentity::Missing)])
        }
        (Some(_), Some(Ok(_))) => {
            Ok(vec![Guard::Identity(HomeIdentity::Other)])
        }
    }
}

/// A person said that the directory on the server is to be this replica's home after all: takes its
/// identity, or founds one. The caller forgets base, so that both sides are united and nothing is deleted.
pub(super) async fn accept(shared: &Arc<Shared>, remote: &Remote) -> Result<(), RemoteError> {
    let found = read_small(remote, &layout::home_toml()).await?;
    let identity = match found.map(|bytes| HomeToml::parse(&String::from_utf8_lossy(&bytes))) {
        Some(Ok(home)) => {
            make_directories(remote).await?;
            home.identity
        }
        Some(Err(_)) | None => {
            remove_if_there(remote, &layout::home_toml()).await?;
            found_home(remote).await?
        }
    };
    remember(&shared.replica, META_IDENTITY, &identity);
    forget(&shared.replica, META_PUBLISHED);
    Ok(())
}

/// Raises this client's counter on the server; called before a pass publishes its first change.
pub(super) async fn announce(shared: &Arc<Shared>, remote: &Remote) -> Result<(), RemoteError> {
    let next = published(&shared.replica) + 1;
    let path = layout::feed_counter(&shared.options.client);
    let staged = layout::staging(&format!("{}.counter", shared.options.client));
    let session = remote.interactive();
    remove_if_there(remote, &staged).await?;
    write_small(remote, &staged, next.to_string().as_bytes()).await?;
    if remote.features().posix_rename {
        session.posix_rename(&staged, &path).await?;
    } else {
        remove_if_there(remote, &path).await?;
        session.rename(&staged, &path).await?;
    }
    remember(&shared.replica, META_PUBLISHED, &next.to_string());
    Ok(())
}

/// The server's clock against ours: the offset's interval is what the probe's duration and the whole
/// seconds of SFTP leave open.
pub(super) async fn measure_clock(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<ClockOffset, RemoteError> {
    let probe = layout::staging(&format!("{}.clock", shared.options.client));
    remove_if_there(remote, &probe).await?;
    let before = shared.now().0;
    let server = remote.interactive().probe_time(&probe).await?.0;
    let after = shared.now().0;
    // The server's true time at the probe lies in [server, server + 1 s), ours in [before, after].
    let lowest = server.saturating_sub(after);
    let highest = server.saturating_add(MTIME_GRAIN_NS).saturating_sub(before);
    let offset_ns = lowest / 2 + highest / 2;
    Ok(ClockOffset { offset_ns, error_ns: highest.saturating_sub(offset_ns) })
}

async fn check_counter(shared: &Arc<Shared>, remote: &Remote) -> Result<Vec<Guard>, RemoteError> {
    let found = read_small(remote, &layout::feed_counter(&shared.options.client)).await?;
    let found = found
        .and_then(|bytes| String::from_utf8_lossy(&bytes).trim().parse::<u64>().ok())
        .unwrap_or(0);
    if found < published(&shared.replica) {
        return Ok(vec![Guard::RolledBack]);
    }
    Ok(Vec::new())
}

async fn found_home(remote: &Remote) -> Result<String, RemoteError> {
    make_directories(remote).await?;
    let home = HomeToml::found();
    match write_small(remote, &layout::home_toml(), home.format().as_bytes()).await {
        Ok(()) => Ok(home.identity),
        // Another client founded it in the same moment.
        Err(error) if error.kind == ErrorKind::Failure => {
            let found = read_small(remote, &layout::home_toml()).await?;
            found
                .and_then(|bytes| HomeToml::parse(&String::from_utf8_lossy(&bytes)).ok())
                .map(|home| home.identity)
                .ok_or(error)
        }
        Err(error) => Err(error),
    }
}

async fn make_directories(remote: &Remote) -> Result<(), RemoteError> {
    let session = remote.interactive();
    for path in layout::directories() {
        match session.mkdir(&path, 0o700).await {
            Ok(()) => {}
            Err(error) if error.is_link_loss() => return Err(error),
            // Servers do not say EEXIST; a look tells.
            Err(error) => {
                session.lstat(&path).await.map_err(|_absent| error)?;
            }
        }
    }
    Ok(())
}

/// Reads a small file whole; `None` if it is not there.
pub(super) async fn read_small(
    remote: &Remote,
    path: &RelPath,
) -> Result<Option<Bytes>, RemoteError> {
    let session = remote.interactive();
    let handle = match session.open_read(path).await {
        Ok(handle) => handle,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let data = session.read(&handle, 0, SMALL_FILE_MAX).await;
    session.close(handle).await?;
    data.map(Some)
}

/// Writes a new small file; fails if it exists.
pub(super) async fn write_small(
    remote: &Remote,
    path: &RelPath,
    data: &[u8],
) -> Result<(), RemoteError> {
    let session = remote.interactive();
    let handle = session.open_write(path, 0o600, true).await?;
    let written = session.write(&handle, 0, Bytes::copy_from_slice(data)).await;
    let synced = match written {
        Ok(()) if remote.features().fsync => session.fsync(&handle).await,
        other => other,
    };
    session.close(handle).await?;
    synced
}

/// Removes a file of ours that may be left from before.
pub(super) async fn remove_if_there(remote: &Remote, path: &RelPath) -> Result<(), RemoteError> {
    match remote.interactive().remove(path).await {
        Err(error) if error.kind != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn published(replica: &Replica) -> u64 {
    meta(replica, META_PUBLISHED).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn meta(replica: &Replica, key: &str) -> Option<String> {
    let bytes = replica.view(|view| view.meta(key));
    let bytes: Option<Vec<u8>> = bytes.unwrap_or_else(|error: ReplicaError| {
        tracing::error!(%error, key, "reading what is known of the home");
        None
    });
    bytes.and_then(|bytes| String::from_utf8(bytes).ok())
}

fn remember(replica: &Replica, key: &str, value: &str) {
    store(replica, key, Some(value.as_bytes().to_vec()));
}

fn forget(replica: &Replica, key: &str) {
    store(replica, key, None);
}

fn store(replica: &Replica, key: &str, value: Option<Vec<u8>>) {
    if let Err(error) = replica.update::<_, ReplicaError>(|tx| tx.set_meta(key, value)) {
        tracing::error!(%error, key, "remembering the home");
    }
}
