use super::*;
use crate::sync::{DirState, Input, plan};
use crate::tree::{Name, NodeId};

/// What a side has at a place: nothing, what was agreed on, or something of its own, written at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    None,
    Old,
    New(i64),
}

use Has::{New, None as Gone, Old};

/// What was agreed on was written at this time.
const OLD: i64 = 100;

fn version(has: Has, ours: bool) -> Option<Version> {
    match has {
        Gone => None,
        Old => Some(Version::file(512, OLD, 0o644)),
        New(mtime) => Some(Version::file(1024 + u64::from(ours), mtime, 0o644)),
    }
}

/// The plan for a database and its log, of which one was agreed on where it is so: base, here and there. With a
/// word for each place: who wins it.
fn outcome(database: (bool, Has, Has), log: (bool, Has, Has), busy: bool) -> String {
    let main = Place::new(NodeId::ROOT, Name::new(b"db").unwrap());
    let places = [main.clone(), main.companions().next().unwrap()];
    let mut input = Input::default();
    input.dirs.insert(NodeId::ROOT, DirState::default());
    for (n, (place, (base, here, there))) in places.iter().zip([database, log]).enumerate() {
        let node = NodeId(20 + n as u64);
        let local = version(here, true).map(|version| LocalEntry {
            node,
            version,
            data_changed: matches!(here, New(_)),
            whole: true,
            busy: busy && n == 0,
            holds_scoped: false,
        });
        let base = base.then(|| BaseEntry {
            node,
            version: version(Old, true).unwrap(),
        });
        let remote = version(there, false);
        let triple = Triple {
            base,
            local,
            remote,
        };
        input.triples.insert(place.clone(), triple);
        input.databases.insert(place.clone(), main.clone());
    }
    let plan = plan(&input, &Policy::default());
    let words = places.map(|place| {
        let steps = plan.steps().filter(|step| step.place == place);
        let words = steps.map(|step| match &step.action {
            Action::Publish { keep, .. } => format!("send {keep:?}"),
            Action::Remove { keep, .. } => format!("remove {keep:?}"),
            Action::Refresh { keep, .. } => format!("take {keep:?}"),
            Action::Drop { keep, .. } => format!("drop {keep:?}"),
            Action::Adopt { .. } => "adopt".to_owned(),
            Action::Agree { .. } => "agree".to_owned(),
            other => format!("{other:?}"),
        });
        words.collect::<Vec<_>>().join(", ")
    });
    words.join(" | ")
}

#[test]
fn the_side_that_wins_the_database_wins_all_and_all_of_the_other_is_kept() {
    let (here, there) = (New(300), New(400));
    let late = New(500);
    for (database, log, expected) in [
        // Both sides changed both.
        (
            (true, here, there),
            (true, here, there),
            "take Backup | take Backup",
        ),
        (
            (true, late, there),
            (true, late, there),
            "send Backup | send Backup",
        ),
        // The database decides, whatever the log's time.
        (
            (true, here, there),
            (true, late, there),
            "take Backup | take Backup",
        ),
        (
            (true, late, there),
            (true, here, there),
            "send Backup | send Backup",
        ),
        // The loser's log goes where the winner has none, and comes where only the winner has one.
        (
            (true, here, there),
            (true, here, Gone),
            "take Backup | drop Backup",
        ),
        (
            (true, late, there),
            (true, Gone, there),
            "send Backup | remove Backup",
        ),
        (
            (true, here, there),
            (false, Gone, there),
            "take Backup | adopt",
        ),
        (
            (true, late, there),
            (false, late, Gone),
            "send Backup | send Backup",
        ),
        (
            (true, here, there),
            (true, Gone, Gone),
            "take Backup | agree",
        ),
    ] {
        let found = outcome(database, log, false);
        assert_eq!(found, expected, "{database:?} {log:?}");
    }
}

#[test]
fn where_not_both_changed_the_database_itself_the_last_change_of_any_decides() {
    let (here, there) = (New(300), New(400));
    let late = New(500);
    for (database, log, expected) in [
        // One side wrote to the log alone, the other moved its log into the database.
        (
            (true, Old, there),
            (true, here, Gone),
            "take Backup | drop Backup",
        ),
        (
            (true, Old, there),
            (true, late, Gone),
            "send Backup | send Backup",
        ),
        (
            (true, late, Old),
            (true, Gone, there),
            "send Backup | remove Backup",
        ),
        (
            (true, here, Old),
            (true, Gone, there),
            "take Backup | adopt",
        ),
        // Both wrote to the log alone.
        (
            (true, Old, Old),
            (true, here, there),
            "take Backup | take Backup",
        ),
        (
            (true, Old, Old),
            (true, late, there),
            "send Backup | send Backup",
        ),
        // A database of both that nobody agreed on.
        (
            (false, here, there),
            (false, late, Gone),
            "take Backup | drop Backup",
        ),
    ] {
        let found = outcome(database, log, false);
        assert_eq!(found, expected, "{database:?} {log:?}");
    }
}

#[test]
fn what_one_side_changed_is_taken_over_as_it_is() {
    let new = New(300);
    for (database, log, expected) in [
        (
            (true, Old, new),
            (true, Old, new),
            "take Replaced | take Replaced",
        ),
        (
            (true, Old, new),
            (true, Old, Gone),
            "take Replaced | drop Trash",
        ),
        (
            (true, new, Old),
            (true, new, Old),
            "send Replaced | send Replaced",
        ),
        (
            (true, new, Old),
            (true, Gone, Old),
            "send Replaced | remove Trash",
        ),
        ((true, Old, Old), (true, new, Old), " | send Replaced"),
        // What is gone is no other content to decide between.
        ((true, Old, Old), (true, new, Gone), " | send Replaced"),
        // A change of any of them beats the removal of the database.
        (
            (true, Old, Gone),
            (true, new, Gone),
            "send Backup | send Backup",
        ),
        (
            (true, Old, Gone),
            (true, Old, Gone),
            "drop Trash | drop Trash",
        ),
    ] {
        let found = outcome(database, log, false);
        assert_eq!(found, expected, "{database:?} {log:?}");
    }
}

#[test]
fn nothing_of_a_database_changes_here_while_a_program_has_it_open() {
    for (database, log) in [
        ((true, Old, New(300)), (true, Old, New(300))),
        ((true, Old, Old), (true, Old, New(300))),
        ((true, New(200), New(300)), (true, New(400), Gone)),
        ((true, Old, Gone), (true, New(300), Gone)),
    ] {
        let found = outcome(database, log, true);
        assert_eq!(found, " | ", "{database:?} {log:?}");
    }
    let sent = outcome((true, New(300), Old), (true, New(300), Old), true);
    assert_eq!(sent, "send Replaced | send Replaced");
}
