//! Doing what a person decided about a conflict: through the mount, so that it is a change like any other. Whatever
//! is decided, both versions stay kept until their retention ends.

use std::sync::Arc;

use super::answers::THE_SERVER;
use super::lifecycle::Daemon;
use super::{failure, restore};
use crate::clock;
use crate::control::protocol::Keep;
use crate::control::{Code, Failure};
use crate::engine::{Conflict, Side};
use crate::tree::{Name, RelPath};

/// The longest name of a file, in bytes.
const NAME_MAX: usize = 255;

/// A suffix longer than this, with its dot, is no suffix.
const SUFFIX_MAX: usize = 16;

/// So many copies of one file and day are looked for.
const COPIES_MAX: u32 = 1000;

/// What all copies have in their names.
const MARK: &str = "conflicting copy";

/// This machine's name.
pub(super) fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// Lets a version stand, and takes the conflict off the list.
pub(super) async fn resolve(daemon: &Arc<Daemon>, id: &str, keep: Keep) -> Result<String, Failure> {
    let found = daemon.engine.conflicts().await;
    let found = found.map_err(|error| failure::pass(&error))?.conflicts;
    let conflict = found.into_iter().find(|conflict| conflict.id == id);
    let conflict = conflict.ok_or_else(|| {
        Failure::new(Code::General, format!("{id} is no conflict to be resolved"))
            .remedy("`roamhome conflicts list` shows them, with the ids")
    })?;
    let path = &conflict.path;
    let said = match (keep, conflict.lost) {
        (Keep::Mine, Side::Theirs) | (Keep::Theirs, Side::Mine) => {
            format!("{path} stays as it is")
        }
        (Keep::Mine, Side::Mine) | (Keep::Theirs, Side::Theirs) => {
            whole(&conflict)?;
            restore::put(daemon, id, conflict.kept.mtime.secs(), path).await?;
            format!("{path} is the version that had lost; what stood there is among the backups")
        }
        (Keep::Both, _) => {
            let copy = beside(daemon, &conflict).await?;
            format!("{path} stays as it is, what had lost is {copy}")
        }
    };
    let resolved = daemon.engine.resolve_conflict(id);
    resolved.map_err(failure::replica)?;
    Ok(said)
}

/// A path that was too long to be kept with the file is known by its end alone.
fn whole(conflict: &Conflict) -> Result<(), Failure> {
    if !conflict.cut {
        return Ok(());
    }
    let (id, path) = (&conflict.id, &conflict.path);
    let message = format!("the path that ends in {path} was too long to be kept");
    Err(Failure::new(Code::General, message).remedy(format!(
        "restore it with `roamhome backups restore {id} --to PATH`"
    )))
}

/// Puts what loses in this machine's passes beside what won, for as long as the engine lives. Who puts it aside shows
/// it, so that not every machine does; and of a copy that loses in its turn there is none, so that they have an end.
pub(super) async fn show_copies(daemon: Arc<Daemon>) {
    loop {
        daemon.engine.conflicted().await;
        if daemon.request.read_only {
            continue;
        }
        let known = daemon.engine.known_conflicts().unwrap_or_else(|error| {
            tracing::warn!(%error, "conflicts");
            Vec::new()
        });
        for conflict in known.iter().filter(|conflict| is_to_be_shown(conflict)) {
            let shown = async {
                beside(&daemon, conflict).await?;
                let resolved = daemon.engine.resolve_conflict(&conflict.id);
                resolved.map_err(failure::replica)
            };
            // It stays on the list, and the next pass brings it here again.
            if let Err(error) = shown.await {
                tracing::warn!(error = %error.message, path = %conflict.path, "showing what lost");
            }
        }
    }
}

fn is_to_be_shown(conflict: &Conflict) -> bool {
    let name = conflict.path.names().last().map(Name::as_bytes);
    let is_copy = |name: &[u8]| name.windows(MARK.len()).any(|part| part == MARK.as_bytes());
    conflict.found_here && !conflict.cut && !name.is_none_or(is_copy)
}

/// Puts what lost beside what won, under a name that is free, unless it is there already.
async fn beside(daemon: &Arc<Daemon>, conflict: &Conflict) -> Result<RelPath, Failure> {
    whole(conflict)?;
    let whose = match conflict.lost {
        Side::Mine => host(),
        Side::Theirs => conflict.kept.host.clone().unwrap_or(THE_SERVER.to_owned()),
    };
    let mtime = conflict.kept.mtime.secs();
    for number in 1..COPIES_MAX {
        let Some(copy) = copy_path(&conflict.path, &whose, mtime, number) else {
            break;
        };
        let stands = daemon.engine.stands_at(&copy);
        match stands.map_err(failure::replica)? {
            None => {}
            Some(there) if there.size == conflict.kept.size && there.mtime == mtime => {
                return Ok(copy);
            }
            Some(_) => continue,
        }
        restore::put_new(daemon, &conflict.id, mtime, &copy).await?;
        return Ok(copy);
    }
    let message = format!("{}: no name is left for a copy", conflict.path);
    Err(Failure::new(Code::General, message))
}

/// `NAME (WHOSE's conflicting copy YYYY-MM-DD).SUFFIX`, from the second on with its number. The same for the same
/// version, so that two machines that do it at once do the same.
fn copy_path(path: &RelPath, whose: &str, mtime: i64, number: u32) -> Option<RelPath> {
    let (name, parent) = path.names().split_last()?;
    let parent: RelPath = parent.iter().cloned().collect();
    let name = name.as_bytes();
    let dot = name.iter().rposition(|b| *b == b'.');
    let dot = dot.filter(|dot| *dot > 0 && name.len() - dot <= SUFFIX_MAX);
    let (stem, suffix) = name.split_at(dot.unwrap_or(name.len()));
    let whose: String = whose.chars().filter(|c| *c != '/').take(64).collect();
    let counted = match number {
        1 => String::new(),
        n => format!(" {n}"),
    };
    let middle = format!(" ({whose}'s {MARK} {}{counted})", clock::date(mtime));
    let mut room = NAME_MAX.saturating_sub(middle.len() + suffix.len());
    // No letter is cut in two, where these are letters.
    while room > 0 && stem.get(room).is_some_and(|byte| byte & 0xc0 == 0x80) {
        room -= 1;
    }
    let stem = &stem[..stem.len().min(room)];
    let name = Name::new(&[stem, middle.as_bytes(), suffix].concat()).ok()?;
    Some(parent.join(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ConflictVersion;
    use crate::tree::Time;

    #[test]
    fn a_copy_stands_beside_and_says_whose_it_is() {
        let copy = |path: &str, number| {
            let path = RelPath::parse(path.as_bytes()).unwrap();
            copy_path(&path, "lap/top", 1_700_000_000, number).map(|path| path.to_string())
        };
        for (path, number, expected) in [
            (
                "d/a.txt",
                1,
                "d/a (laptop's conflicting copy 2023-11-14).txt",
            ),
            (
                "d/a.txt",
                2,
                "d/a (laptop's conflicting copy 2023-11-14 2).txt",
            ),
            (
                ".profile",
                1,
                ".profile (laptop's conflicting copy 2023-11-14)",
            ),
            (
                "a. long tail that is none",
                1,
                "a. long tail that is none (laptop's conflicting copy 2023-11-14)",
            ),
        ] {
            assert_eq!(copy(path, number).as_deref(), Some(expected));
        }
        assert_eq!(copy("", 1), None);
        let long = copy(&"ä".repeat(127), 1).unwrap();
        let stem = long.trim_end_matches(" (laptop's conflicting copy 2023-11-14)");
        assert!(
            long.len() <= NAME_MAX && stem.chars().all(|c| c == 'ä'),
            "{long}"
        );
    }

    #[test]
    fn only_what_this_machine_found_is_shown_and_no_copy_of_a_copy() {
        let conflict = |path: &str, found_here, cut| Conflict {
            id: "1-1".into(),
            path: RelPath::parse(path.as_bytes()).unwrap(),
            cut,
            at: Time(0),
            lost: Side::Theirs,
            found_here,
            on_server: true,
            kept: ConflictVersion {
                size: 1,
                mtime: Time(0),
                host: None,
            },
            current: None,
        };
        for (path, found_here, cut, shown) in [
            ("d/f", true, false, true),
            ("d/f", false, false, false),
            ("d/f", true, true, false),
            ("d/f (x's conflicting copy 2023-11-14)", true, false, false),
            ("d (x's conflicting copy 2023-11-14)/f", true, false, true),
        ] {
            let conflict = conflict(path, found_here, cut);
            assert_eq!(is_to_be_shown(&conflict), shown, "{conflict:?}");
        }
    }
}
