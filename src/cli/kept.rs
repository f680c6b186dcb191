//! `roamhome backups` and `roamhome trash`: versions that are kept.

use std::{fs::File, path::Path, time::Duration};

use clap::Subcommand;

use super::{
    Which, find, link,
    output::{ago, emit, emit_bytes, print_note, printable, size, table},
};
use crate::{
    clock,
    config::duration,
    control::{
        Code, Failure,
        protocol::{BackupsAction, Items, KeptItem, Location, Reply, Request, TrashAction, millis},
    },
};

/// What can be done with backups.
#[derive(Debug, Subcommand)]
pub(super) enum BackupsCommand {
    /// List all backups, newest first
    List {
        #[command(flatten)]
        at: Which,
    },
    /// Put a backup back; what stands there is kept as a backup in its turn
    Restore {
        /// The backup, as `list` names it
        id: String,
        /// Where in the home it goes; without it, where it was
        #[arg(long, value_name = "PATH")]
        to: Option<String>,
    },
    /// Write a backup's content to standard output
    Show {
        /// The backup, as `list` names it
        id: String,
    },
}

/// What can be done with the trash.
#[derive(Debug, Subcommand)]
pub(super) enum TrashCommand {
    /// List what was deleted, newest first
    List {
        #[command(flatten)]
        at: Which,
    },
    /// Put something back
    Restore {
        /// Which, as `list` names it
        id: String,
        /// Where in the home it goes; without it, where it was
        #[arg(long, value_name = "PATH")]
        to: Option<String>,
    },
    /// Remove for good
    Empty {
        /// Only what was deleted longer ago than this, such as 7d
        #[arg(long, value_name = "T", value_parser = duration::parse)]
        older_than: Option<Duration>,
    },
}

/// Does it.
pub(super) fn backups(command: BackupsCommand, mount: Option<&Path>) -> Result<(), Failure> {
    let request = |action| Request::Backups { action };
    match command {
        BackupsCommand::List { at } => list(at.or(mount), request(BackupsAction::List)),
        BackupsCommand::Restore { id, to } => {
            link::run(mount, request(BackupsAction::Restore { id, to }))
        }
        BackupsCommand::Show { id } => show(mount, request(BackupsAction::Show { id })),
    }
}

/// Does it.
pub(super) fn trash(command: TrashCommand, mount: Option<&Path>) -> Result<(), Failure> {
    let request = |action| Request::Trash { action };
    match command {
        TrashCommand::List { at } => list(at.or(mount), request(TrashAction::List)),
        TrashCommand::Restore { id, to } => {
            link::run(mount, request(TrashAction::Restore { id, to }))
        }
        TrashCommand::Empty { older_than } => {
            let older_than_ms = older_than.map(millis);
            link::run(mount, request(TrashAction::Empty { older_than_ms }))
        }
    }
}

fn list(mount: Option<&Path>, request: Request) -> Result<(), Failure> {
    match find::ask(mount, request)? {
        Reply::Items(Items { items, missing }) => {
            emit(&listing(&items, clock::now().secs()))?;
            missing.iter().for_each(|missing| print_note(missing));
            Ok(())
        }
        reply => Err(find::unexpected(&reply)),
    }
}

fn show(mount: Option<&Path>, request: Request) -> Result<(), Failure> {
    match find::ask(mount, request)? {
        Reply::Shown(shown) => {
            let mut file = File::open(&shown.file)
                .map_err(|error| Failure::new(Code::General, format!("{}: {error}", shown.file)))?;
            emit_bytes(&mut file)
        }
        reply => Err(find::unexpected(&reply)),
    }
}

fn listing(items: &[KeptItem], now: i64) -> String {
    if items.is_empty() {
        return "nothing is kept\n".to_owned();
    }
    let row = |item: &KeptItem| {
        let location = match item.location {
            Location::Here => "here",
            Location::Server => "server",
        };
        vec![
            printable(&item.id),
            ago(now, item.at),
            size(item.bytes),
            location.to_owned(),
            printable(&item.path),
            printable(&item.why),
        ]
    };
    table(&items.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_versions_are_listed_in_aligned_columns() {
        let item = |id: &str, path: &str, location| KeptItem {
            id: id.into(),
            path: path.into(),
            bytes: 10,
            mtime: 0,
            at: 0,
            why: "lost a conflict".into(),
            location,
        };
        let items = [
            item("7", "a", Location::Here),
            item("s-8", "b/c", Location::Server),
        ];
        let expected = "\
7    10 s ago  10 B  here    a    lost a conflict
s-8  10 s ago  10 B  server  b/c  lost a conflict
";
        assert_eq!(listing(&items, 10), expected);
        assert_eq!(listing(&[], 10), "nothing is kept\n");
    }
}
