//! The home's identity on the server, the rolled-back check, and the clock against the server's.
//!
//! Replica and server recognise each other by a random identity in `.roamhome/home.toml`. Each client also
//! keeps a counter of its own under `.roamhome/feed/`, raised *before* each pass that publishes: a server
//! whose counter is behind ours was rolled back to an older copy.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::shared::{Shared, blocking};
use super::{EngineOptions, feed};
use crate::remote::layout::{self, ClientId, HomeToml};
use crate::remote::{ErrorKind, Remote, RemoteError};
use crate::replica::{CLIENT_ID, Replica, ReplicaError, View};
use crate::sync::{ClockOffset, Guard, HomeIdentity, Plan};
use crate::tree::RelPath;

/// Keys of what the replica remembers about the home.
const META_IDENTITY: &str = "home.identity";
const META_PUBLISHED: &str = "home.published";

/// More than this is no `home.toml` or counter of ours.
pub(super) const SMALL_FILE_MAX: u32 = 64 * 1024;

/// SFTP shows whole seconds, so a probe's time is known to within one.
const MTIME_GRAIN_NS: i64 = 1_000_000_000;

/// Whether the directory on the server is the home that this replica belongs to; asked before each pass,
/// since a server may lose or exchange its directory under a living connection. Returns the questions that
/// a person has to answer first; none if all is well. Makes `.roamhome/` where it is missing; a replica that
/// never met a home takes over the identity that it finds, or founds one.
pub(super) async fn recheck(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<Vec<Guard>, RemoteError> {
    let home_toml = layout::home_toml();
    let (found, counted) =
        futures_util::try_join!(read_small(remote, &home_toml), is_counted(shared, remote))?;
    let found = found.map(|bytes| HomeToml::parse(&bytes));
    let known = meta(&shared.replica, META_IDENTITY);
    let identity = |identity| Ok(vec![Guard::Identity(identity)]);
    match (known, found) {
        (None, None | Some(Ok(_))) if shared.options.only_look => Ok(Vec::new()),
        (None, None) => {
            let identity = found_home(shared, remote).await?;
            remember_identity(&shared.replica, &identity);
            Ok(Vec::new())
        }
        (None, Some(Ok(home))) => {
            make_directories(remote).await?;
            remember_identity(&shared.replica, &home.identity);
            Ok(Vec::new())
        }
        (Some(known), Some(Ok(home))) if home.identity == known => Ok(if counted {
            Vec::new()
        } else {
            vec![Guard::RolledBack]
        }),
        (_, Some(Err(error))) => identity(HomeIdentity::Unreadable(error.to_string())),
        (Some(_), None) => identity(HomeIdentity::Missing),
        (Some(_), Some(Ok(_))) => identity(HomeIdentity::Other),
    }
}

/// A person said that the directory on the server is to be this replica's home after all: takes its
/// identity, or founds one. The caller forgets base, so that both sides are united and nothing is deleted.
pub(super) async fn accept(shared: &Arc<Shared>, remote: &Remote) -> Result<(), RemoteError> {
    let found = read_small(remote, &layout::home_toml()).await?;
    let identity = match found.map(|bytes| HomeToml::parse(&bytes)) {
        Some(Ok(home)) => {
            make_directories(remote).await?;
            home.identity
        }
        Some(Err(_)) | None => {
            remove_if_there(remote, &layout::home_toml()).await?;
            found_home(shared, remote).await?
        }
    };
    remember_identity(&shared.replica, &identity);
    forget(&shared.replica, META_PUBLISHED);
    Ok(())
}

/// Raises this client's counter on the server; called before a pass publishes its first change, with what it is going
/// to do. The counter is the name of a file, so that looking at it costs one request.
pub(super) async fn announce(
    shared: &Arc<Shared>,
    remote: &Remote,
    plan: &Plan,
) -> Result<(), RemoteError> {
    let last = published(&shared.replica);
    let session = remote.interactive();
    let record = feed::next_record(shared, remote, &counter(shared, last), plan).await?;
    let mut next = last + 1;
    loop {
        let opened = session
            .open_write(&counter(shared, next), 0o600, true)
            .await;
        match opened {
            Ok(handle) => {
                let (told, closed) = futures_util::join!(
                    session.write(&handle, 0, record.into()),
                    session.close(handle.clone())
                );
                // The name is what counts; a full disk is no reason to count no more.
                told.or_else(|error| {
                    if error.is_link_loss() {
                        Err(error)
                    } else {
                        Ok(())
                    }
                })?;
                closed?;
                break;
            }
            // Left by a pass that ended before the replica took note.
            Err(error) if error.kind == ErrorKind::Failure && next < last + 16 => next += 1,
            Err(error) => return Err(error),
        }
    }
    remember(&shared.replica, META_PUBLISHED, &next.to_string());
    // After a power loss here the server has to show what this disk remembers, or it would look rolled back.
    if let Err(error) = blocking(|| shared.replica.sync()) {
        tracing::warn!(%error, "the last counter stays on the server");
    } else if last > 0 {
        remove_if_there(remote, &counter(shared, last)).await?;
    }
    Ok(())
}

/// Removes this client's counters that a pass left when it ended between raising the counter and taking note.
pub(super) async fn clear_counters(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<(), RemoteError> {
    let last = published(&shared.replica);
    for entry in remote.interactive().list(&layout::feed()).await? {
        match layout::parse_feed_name(&entry.name) {
            Some((client, number)) if client == shared.client && number != last => {
                remove_if_there(remote, &counter(shared, number)).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn counter(shared: &Shared, number: u64) -> RelPath {
    layout::feed_path(shared.client, number)
}

/// The server's clock against ours: the offset's interval is what the probe's duration and the whole
/// seconds of SFTP leave open.
pub(super) async fn measure_clock(
    shared: &Arc<Shared>,
    remote: &Remote,
) -> Result<ClockOffset, RemoteError> {
    let probe = layout::staging_path(&format!("{}-clock", shared.client));
    remove_if_there(remote, &probe).await?;
    let before = shared.now().0;
    let server = remote.interactive().probe_time(&probe).await?.0;
    let after = shared.now().0;
    // The server's true time at the probe lies in [server, server + 1 s), ours in [before, after].
    let lowest = server.saturating_sub(after);
    let highest = server.saturating_add(MTIME_GRAIN_NS).saturating_sub(before);
    let offset_ns = lowest / 2 + highest / 2;
    Ok(ClockOffset {
        offset_ns,
        error_ns: highest.saturating_sub(offset_ns),
    })
}

/// Whether the server still shows what this client counted last.
async fn is_counted(shared: &Arc<Shared>, remote: &Remote) -> Result<bool, RemoteError> {
    let last = published(&shared.replica);
    if last == 0 {
        return Ok(true);
    }
    match remote.interactive().lstat(&counter(shared, last)).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn found_home(shared: &Shared, remote: &Remote) -> Result<String, RemoteError> {
    make_directories(remote).await?;
    let random = || {
        (shared.options.random)().map(u128::from).map_err(|error| {
            let path = layout::home_toml();
            RemoteError::new(ErrorKind::Failure, "found", &path, error.to_string())
        })
    };
    let home = HomeToml::new(random()? << 64 | random()?);
    match write_small(remote, &layout::home_toml(), home.format().as_bytes()).await {
        Ok(()) => Ok(home.identity),
        // Another client founded it in the same moment.
        Err(error) if error.kind == ErrorKind::Failure => {
            let found = read_small(remote, &layout::home_toml()).await?;
            found
                .and_then(|bytes| HomeToml::parse(&bytes).ok())
                .map(|home| home.identity)
                .ok_or(error)
        }
        Err(error) => Err(error),
    }
}

async fn make_directories(remote: &Remote) -> Result<(), RemoteError> {
    let session = remote.interactive();
    let directories = layout::directories();
    // One burst: the server works in order, so parents come first.
    let made = join_all(directories.iter().map(|path| session.mkdir(path, 0o700))).await;
    for (path, made) in directories.iter().zip(made) {
        match made {
            Ok(()) => {}
            Err(error) if error.is_link_loss() => return Err(error),
            // Servers do not say EEXIST; a look tells.
            Err(error) => {
                session.lstat(path).await.map_err(|_absent| error)?;
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
    let written = session
        .write(&handle, 0, Bytes::copy_from_slice(data))
        .await;
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

/// The number that names this machine on the server, made when the replica is.
pub(super) fn client_id(
    replica: &Replica,
    options: &EngineOptions,
) -> Result<ClientId, ReplicaError> {
    let known = |view: &View<'_>| view.meta(CLIENT_ID);
    if let Some(known) = replica.view(known)?.and_then(|id| id.try_into().ok()) {
        return Ok(ClientId(u64::from_be_bytes(known)));
    }
    let id = (options.random)().map_err(|error| ReplicaError::io(replica.state_dir(), error))?;
    replica.update(|tx| tx.set_meta(CLIENT_ID, Some(id.to_be_bytes().to_vec())))?;
    // What is left on the server under this name must not become nobody's.
    replica.sync()?;
    Ok(ClientId(id))
}

fn published(replica: &Replica) -> u64 {
    meta(replica, META_PUBLISHED)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn meta(replica: &Replica, key: &str) -> Option<String> {
    let bytes = replica.view(|view| view.meta(key));
    let bytes: Option<Vec<u8>> = bytes.unwrap_or_else(|error: ReplicaError| {
        tracing::error!(%error, key, "reading what is known of the home");
        None
    });
    bytes.and_then(|bytes| String::from_utf8(bytes).ok())
}

/// Which home this is survives a loss of power: a replica that knows none would take any.
fn remember_identity(replica: &Replica, identity: &str) {
    remember(replica, META_IDENTITY, identity);
    if let Err(error) = replica.sync() {
        tracing::error!(%error, "remembering the home");
    }
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
