//! `roamhome conflicts`: what changed on two sides, until somebody has decided.

use std::path::Path;

use clap::{Subcommand, ValueEnum};

use super::{
    Which, find, link,
    output::{ago, emit, emit_json, print_note, printable, size, table},
};
use crate::{
    clock,
    control::{
        Code, Failure,
        protocol::{
            self, Conflict, ConflictVersion, Conflicts, ConflictsAction, Location, Reply, Request,
            Side,
        },
    },
};

/// What can be done with conflicts.
#[derive(Debug, Subcommand)]
pub(super) enum ConflictsCommand {
    /// List the conflicts that nobody has decided about, newest first
    List {
        #[command(flatten)]
        at: Which,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show both versions of a conflict, and how to see their contents
    Show {
        /// The conflict, as `list` names it
        id: String,
    },
    /// Decide which version is to stand; both stay among the backups until their retention ends
    Resolve {
        /// The conflict, as `list` names it
        id: String,
        /// Whose version: this machine's, the other one, or both side by side
        #[arg(long, value_enum)]
        keep: Keep,
    },
}

/// Which version is to stand.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Keep {
    /// This machine's
    Mine,
    /// The other one, from the server
    Theirs,
    /// What won stays, what lost gets a name beside it
    Both,
}

/// Does it.
pub(super) fn run(command: ConflictsCommand, mount: Option<&Path>) -> Result<(), Failure> {
    match command {
        ConflictsCommand::List { at, json } => {
            let found = ask(at.or(mount))?;
            if json {
                return emit_json(&found);
            }
            emit(&listing(&found.conflicts, clock::now().secs()))?;
            found.missing.iter().for_each(|missing| print_note(missing));
            Ok(())
        }
        ConflictsCommand::Show { id } => {
            let found = ask(mount)?.conflicts;
            let conflict = found.iter().find(|conflict| conflict.id == id);
            let conflict = conflict.ok_or_else(|| {
                Failure::new(Code::General, format!("{id} is no conflict to be resolved"))
                    .remedy("`roamhome conflicts list` shows them, with the ids")
            })?;
            emit(&both(conflict, clock::now().secs()))
        }
        ConflictsCommand::Resolve { id, keep } => {
            let keep = match keep {
                Keep::Mine => protocol::Keep::Mine,
                Keep::Theirs => protocol::Keep::Theirs,
                Keep::Both => protocol::Keep::Both,
            };
            let action = ConflictsAction::Resolve { id, keep };
            link::run(mount, Request::Conflicts { action })
        }
    }
}

fn ask(mount: Option<&Path>) -> Result<Conflicts, Failure> {
    let action = ConflictsAction::List;
    match find::ask(mount, Request::Conflicts { action })? {
        Reply::Conflicts(found) => Ok(found),
        reply => Err(find::unexpected(&reply)),
    }
}

fn loser(conflict: &Conflict) -> &'static str {
    match conflict.lost {
        Side::Mine => "mine",
        Side::Theirs => "theirs",
    }
}

fn winner(conflict: &Conflict) -> &'static str {
    match conflict.lost {
        Side::Mine => "theirs",
        Side::Theirs => "mine",
    }
}

fn short(name: &str, version: Option<&ConflictVersion>, now: i64) -> String {
    match version {
        Some(version) => format!(
            "{name}: {}, {}",
            size(version.bytes),
            ago(now, version.mtime)
        ),
        None => format!("{name}: gone"),
    }
}

fn listing(conflicts: &[Conflict], now: i64) -> String {
    if conflicts.is_empty() {
        return "no conflicts\n".to_owned();
    }
    let row = |conflict: &Conflict| {
        vec![
            printable(&conflict.id),
            ago(now, conflict.at),
            format!("{} lost", loser(conflict)),
            short("now", conflict.current.as_ref(), now),
            short("kept", Some(&conflict.kept), now),
            printable(&conflict.path),
        ]
    };
    table(&conflicts.iter().map(row).collect::<Vec<_>>())
}

fn both(conflict: &Conflict, now: i64) -> String {
    let id = printable(&conflict.id);
    let line = |side: &str, version: Option<&ConflictVersion>, what: &str| match version {
        Some(version) => vec![
            side.to_owned(),
            printable(&version.host),
            size(version.bytes),
            format!("changed {}", ago(now, version.mtime)),
            what.to_owned(),
        ],
        None => vec![side.to_owned(), "gone".to_owned()],
    };
    let kept = match conflict.location {
        Location::Here => "lost, kept here",
        Location::Server => "lost, kept on the server",
    };
    let rows = [
        line(
            winner(conflict),
            conflict.current.as_ref(),
            "stands there now",
        ),
        line(loser(conflict), Some(&conflict.kept), kept),
    ];
    format!(
        "{}\n{}\n\
         what lost:  roamhome backups show {id}\n\
         decide:     roamhome conflicts resolve {id} --keep mine|theirs|both\n",
        printable(&conflict.path),
        table(&rows),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_a_conflict_are_told() {
        let version = |bytes, mtime, host: &str| ConflictVersion {
            bytes,
            mtime,
            host: host.into(),
        };
        let conflict = Conflict {
            id: "local-7".into(),
            path: "d/a\u{1b}".into(),
            at: 90,
            lost: Side::Mine,
            current: Some(version(2048, 80, "the server")),
            kept: version(10, 70, "laptop"),
            location: Location::Here,
        };
        let gone = Conflict {
            id: "9-1".into(),
            lost: Side::Theirs,
            current: None,
            ..conflict.clone()
        };
        let expected = "\
local-7  10 s ago  mine lost    now: 2.0 KiB, 20 s ago  kept: 10 B, 30 s ago  d/a\\x1b
9-1      10 s ago  theirs lost  now: gone               kept: 10 B, 30 s ago  d/a\\x1b
";
        assert_eq!(listing(&[conflict.clone(), gone], 100), expected);
        assert_eq!(listing(&[], 100), "no conflicts\n");
        let expected = "\
d/a\\x1b
theirs  the server  2.0 KiB  changed 20 s ago  stands there now
mine    laptop      10 B     changed 30 s ago  lost, kept here

what lost:  roamhome backups show local-7
decide:     roamhome conflicts resolve local-7 --keep mine|theirs|both
";
        assert_eq!(both(&conflict, 100), expected);
    }
}
