//! `roamhome ls`, `pin`, `unpin`, `prefetch` and `evict`: what of the home is on this machine.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{
    find,
    output::{count, emit, emit_json, printable, size, table},
};
use crate::control::{
    Code, Failure,
    protocol::{Brought, ContentAction, Entry, LetGo, NODES_MAX, Pin, Reply, Request},
};

/// Files and directories of a home.
#[derive(Debug, Args)]
pub(super) struct Paths {
    /// Files and directories in a mounted home
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Directories, with all that is in them
    #[arg(short, long)]
    recursive: bool,
}

/// The same, or a list of what was named before.
#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// Files and directories in a mounted home
    #[arg(required_unless_present = "list", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Directories, with all that is in them, also what comes later
    #[arg(short, long)]
    recursive: bool,
    /// Show what is pinned, and how much of it is here
    #[arg(long, conflicts_with = "recursive")]
    list: bool,
}

/// What to list.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// A directory or file in a mounted home
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Pins and fetches, or shows what is pinned.
pub(super) fn pin(args: &PinArgs) -> Result<(), Failure> {
    if args.list {
        let mount = args.paths.first().map(PathBuf::as_path);
        return match ask(mount, ContentAction::Pins)? {
            Reply::Pins(pins) => emit(&pins_listing(&pins.pins)),
            reply => Err(find::unexpected(&reply)),
        };
    }
    let named = Named::new(&args.paths, args.recursive)?;
    named.each(
        |nodes| ContentAction::Pin {
            nodes,
            pinned: true,
        },
        told_done,
    )?;
    named.each(
        |nodes| ContentAction::Prefetch { nodes },
        |reply| told_brought(reply, "it is pinned, and comes once it can be had"),
    )
}

/// Takes pins away.
pub(super) fn unpin(paths: &Paths) -> Result<(), Failure> {
    let named = Named::new(&paths.paths, paths.recursive)?;
    named.each(
        |nodes| ContentAction::Pin {
            nodes,
            pinned: false,
        },
        told_done,
    )
}

/// Fetches.
pub(super) fn prefetch(paths: &Paths) -> Result<(), Failure> {
    let named = Named::new(&paths.paths, paths.recursive)?;
    named.each(
        |nodes| ContentAction::Prefetch { nodes },
        |reply| told_brought(reply, "try again; `roamhome pin` does so by itself"),
    )
}

/// Lets go.
pub(super) fn evict(paths: &Paths) -> Result<(), Failure> {
    let named = Named::new(&paths.paths, paths.recursive)?;
    named.each(|nodes| ContentAction::Evict { nodes }, told_let_go)
}

/// Lists a directory.
pub(super) fn list(args: &ListArgs) -> Result<(), Failure> {
    let (mount, node) = locate(&args.path, true)?;
    match ask(Some(&mount), ContentAction::List { node })? {
        Reply::Entries(entries) if args.json => emit_json(&entries),
        Reply::Entries(entries) => emit(&listing(&entries.entries)),
        reply => Err(find::unexpected(&reply)),
    }
}

fn ask(mount: Option<&Path>, action: ContentAction) -> Result<Reply, Failure> {
    find::ask(mount, Request::Content { action })
}

/// What was named, by mount.
struct Named(BTreeMap<PathBuf, Vec<u64>>);

impl Named {
    fn new(paths: &[PathBuf], recursive: bool) -> Result<Self, Failure> {
        let mut by_mount: BTreeMap<PathBuf, Vec<u64>> = BTreeMap::new();
        for path in paths {
            let (mount, node) = locate(path, recursive)?;
            by_mount.entry(mount).or_default().push(node);
        }
        Ok(Self(by_mount))
    }

    fn each(
        &self,
        action: impl Fn(Vec<u64>) -> ContentAction,
        tell: impl Fn(Reply) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for (mount, nodes) in &self.0 {
            for some in nodes.chunks(NODES_MAX) {
                tell(ask(Some(mount), action(some.to_vec()))?)?;
            }
        }
        Ok(())
    }
}

/// The mount that a path is in, and the number of what stands there. Links are followed.
fn locate(path: &Path, recursive: bool) -> Result<(PathBuf, u64), Failure> {
    let failed =
        |error: std::io::Error| Failure::new(Code::Usage, format!("{}: {error}", path.display()));
    let plain = path.canonicalize().map_err(failed)?;
    let found = plain.metadata().map_err(failed)?;
    if found.is_dir() && !recursive {
        let message = format!("{} is a directory", path.display());
        return Err(
            Failure::new(Code::Usage, message).remedy("say --recursive to mean all that is in it")
        );
    }
    let is_there = |above: &&Path| {
        above
            .metadata()
            .is_ok_and(|above| above.dev() == found.dev())
    };
    let mount = plain.ancestors().take_while(is_there).last();
    let mount = mount.unwrap_or(&plain).to_owned();
    // The numbers of another file system mean something else.
    find::socket_of(Some(&mount)).map_err(|_not_there| {
        let message = format!("{} is in no home that is mounted", path.display());
        Failure::new(Code::NotRunning, message)
    })?;
    Ok((mount, found.ino()))
}

fn told_done(reply: Reply) -> Result<(), Failure> {
    match reply {
        Reply::Done { message } => emit(&format!("{}\n", printable(&message))),
        reply => Err(find::unexpected(&reply)),
    }
}

fn told_brought(reply: Reply, remedy: &str) -> Result<(), Failure> {
    let Reply::Brought(brought) = reply else {
        return Err(find::unexpected(&reply));
    };
    let Brought {
        files,
        bytes,
        failed,
        why,
    } = brought;
    emit(&format!(
        "{} fetched, {}\n",
        count(files, "file"),
        size(bytes)
    ))?;
    if failed == 0 {
        return Ok(());
    }
    let why = why.unwrap_or_default();
    let message = format!("{failed} could not be fetched: {}", printable(&why));
    Err(Failure::new(Code::Unreachable, message).remedy(remedy))
}

fn told_let_go(reply: Reply) -> Result<(), Failure> {
    let Reply::LetGo(LetGo { files, bytes, kept }) = reply else {
        return Err(find::unexpected(&reply));
    };
    let mut text = format!("{} let go, {} freed", count(files, "file"), size(bytes));
    if kept > 0 {
        text.push_str(&format!(
            "; {kept} stay: open, pinned, or not on the server"
        ));
    }
    emit(&(text + "\n"))
}

fn pins_listing(pins: &[Pin]) -> String {
    if pins.is_empty() {
        return "nothing is pinned\n".to_owned();
    }
    let row = |pin: &Pin| {
        let missing = match pin.missing_files {
            0 => "all here".to_owned(),
            n => format!("{n} to come, {}", size(pin.missing_bytes)),
        };
        vec![
            count(pin.files, "file"),
            size(pin.bytes),
            missing,
            printable(&pin.path),
        ]
    };
    table(&pins.iter().map(row).collect::<Vec<_>>())
}

fn listing(entries: &[Entry]) -> String {
    let row = |entry: &Entry| {
        let pinned = if entry.pinned { "pinned" } else { "" };
        let bytes = match entry.kind.as_str() {
            "file" => size(entry.bytes),
            _ => String::new(),
        };
        let slash = if entry.kind == "dir" { "/" } else { "" };
        vec![
            entry.state.clone(),
            pinned.to_owned(),
            bytes,
            printable(&entry.name) + slash,
        ]
    };
    table(&entries.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_pins_are_listed_in_aligned_columns() {
        let entry = |name: &str, kind: &str, state: &str, pinned| Entry {
            name: name.into(),
            kind: kind.into(),
            bytes: 2048,
            state: state.into(),
            pinned,
        };
        let entries = [
            entry("d", "dir", "local", true),
            entry("a b", "file", "remote", false),
        ];
        assert_eq!(
            listing(&entries),
            "local   pinned           d/\nremote          2.0 KiB  a b\n"
        );
        let pin = Pin {
            path: "music".into(),
            files: 2,
            bytes: 4096,
            missing_files: 1,
            missing_bytes: 2048,
        };
        let here = Pin {
            missing_files: 0,
            path: "x".into(),
            ..pin.clone()
        };
        let text = pins_listing(&[pin, here]);
        assert!(
            text.contains("1 to come, 2.0 KiB") && text.contains("all here"),
            "{text}"
        );
    }
}
