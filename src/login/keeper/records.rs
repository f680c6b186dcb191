//! What a keeper writes down: leases, for the one that comes after it was killed, and which homes may hold unsent files,
//! for after a reboot. Whatever goes wrong with that matters to nobody but them, so it is logged and no more.

use std::fs;
use std::io;
use std::path::Path;

use super::super::places::{keeper_leases, unsent_mark};
use super::{Holder, Kind, Leases};

/// The leases that were written down last; none if none were, or if they make no sense.
pub(super) fn leases(uid: u32) -> Vec<(Holder, Kind)> {
    let text = fs::read(keeper_leases(uid)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Writes the leases down.
pub(super) fn set_leases(uid: u32, leases: &Leases) {
    let path = keeper_leases(uid);
    log(
        &path,
        match leases.is_empty() {
            true => remove(&path),
            false => serde_json::to_vec(&leases.list())
                .map_err(io::Error::from)
                .and_then(|text| {
                    let new = path.with_extension("new");
                    fs::write(&new, text)?;
                    fs::rename(&new, &path)
                }),
        },
    );
}

/// Whether the home may hold what is not on the server.
pub(super) fn may_be_unsent(uid: u32) -> bool {
    unsent_mark(uid).exists()
}

/// Takes note of it. Before the home is mounted, and until it is known to hold nothing.
pub(super) fn set_unsent(uid: u32, unsent: bool) {
    let path = unsent_mark(uid);
    log(
        &path,
        match unsent {
            true => path
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::write(&path, b"")),
            false => remove(&path),
        },
    );
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn log(path: &Path, written: io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "not written down");
    }
}
