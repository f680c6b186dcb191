use super::super::Prefer;
use super::super::world::{Thing, World, file_version, name};
use super::super::{ClockOffset, Keep};
use super::*;
use crate::tree::Name;
use crate::tree::NodeId;

const CONTEXT: Context = Context {
    inside: Fate::Gone,
    shared: false,
    fetchable: false,
    lent: false,
};

fn place() -> Place {
    Place::new(NodeId::ROOT, Name::new(b"x").unwrap())
}

fn base(version: Version) -> Option<BaseEntry> {
    Some(BaseEntry {
        node: NodeId(20),
        version,
    })
}

fn local(version: Version) -> LocalEntry {
    LocalEntry {
        node: NodeId(20),
        version,
        data_changed: false,
        whole: true,
        busy: false,
        holds_scoped: false,
    }
}

fn decided(triple: &Triple, context: &Context) -> Decision {
    decide(&place(), triple, context, &Policy::default())
}

/// What may stand at a place in the test of all meetings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Old,
    New,
    Dir,
    Symlink,
}

use State::{Absent, Dir, New, Old, Symlink};

impl State {
    const ALL: [Self; 5] = [Absent, Old, New, Dir, Symlink];

    fn thing(self) -> Option<Thing> {
        let (version, data) = match self {
            Absent => return None,
            Old => (file_version(1001, 10, 0o644), 1001),
            New => (file_version(1002, 20, 0o644), 1002),
            Dir => (Version::dir(0o755), 0),
            Symlink => (Version::symlink(b"to".to_vec()), 0),
        };
        Some(Thing { version, data })
    }
}

/// What both sides must come to, told apart from how `decide` finds it.
fn expected(base: State, local: State, remote: State) -> State {
    match (local, remote) {
        _ if local == base => remote,
        _ if remote == base || local == remote => local,
        (Absent, changed) | (changed, Absent) => changed,
        (Dir, _) | (_, Dir) => Dir,
        (Old, New) | (New, Old) => New,
        _ => local,
    }
}

#[test]
fn every_meeting_of_states_ends_as_the_rules_say() {
    let policy = Policy::default();
    for base in State::ALL {
        for local in State::ALL {
            for remote in State::ALL {
                let label = format!("base {base:?}, local {local:?}, remote {remote:?}");
                let mut world = World::new();
                let place = Place::new(NodeId::ROOT, name("x"));
                world.set_local(&place, base.thing());
                world.settle_down(9, &policy);
                if local != base {
                    world.set_local(&place, local.thing());
                }
                if remote != base {
                    world.set_server("x", remote.thing());
                }
                world.settle_down(9, &policy);
                world.assert_equal();
                let end = expected(base, local, remote);
                let path = vec!["x".to_owned()];
                assert_eq!(world.server.get(&path).cloned(), end.thing(), "{label}");
                for loser in [local, remote] {
                    let is_file = matches!(loser, Old | New);
                    if is_file && loser != base && loser != end {
                        let data = loser.thing().unwrap().data;
                        assert!(world.kept.contains(&data), "{label}: not kept");
                    }
                }
            }
        }
    }
}

#[test]
fn clocks_decide_only_where_their_errors_do_not_overlap() {
    let policy = |offset: i64, error: i64, prefer| Policy {
        prefer,
        clock: ClockOffset {
            offset_ns: offset * 1_000_000_000,
            error_ns: error * 1_000_000_000,
        },
    };
    for (label, local, remote, offset, error, sure) in [
        ("later here", 11, 10, 0, 0, Some(Prefer::Local)),
        ("later there", 10, 11, 0, 0, Some(Prefer::Remote)),
        ("the same second", 10, 10, 0, 0, None),
        ("this clock is slow", 10, 12, 5, 0, Some(Prefer::Local)),
        ("this clock is fast", 12, 10, -5, 0, Some(Prefer::Remote)),
        ("within the error", 12, 10, 0, 3, None),
        ("beyond the error", 14, 10, 0, 3, Some(Prefer::Local)),
    ] {
        let (local, remote) = (Version::file(1, local, 0), Version::file(1, remote, 0));
        for prefer in [Prefer::Local, Prefer::Remote] {
            let winner = newest(&local, &remote, &policy(offset, error, prefer));
            assert_eq!(winner, sure.unwrap_or(prefer), "{label}");
        }
    }
}

#[test]
fn what_a_program_writes_to_waits_for_changes_of_the_server() {
    let version = Version::file(1, 10, 0o644);
    let busy = LocalEntry {
        busy: true,
        ..local(version.clone())
    };
    for remote in [
        None,
        Some(Version::file(2, 20, 0o644)),
        Some(Version::file(1, 10, 0o600)),
        Some(Version::dir(0o755)),
    ] {
        let triple = Triple {
            base: base(version.clone()),
            local: Some(busy.clone()),
            remote,
        };
        assert_eq!(decided(&triple, &CONTEXT), Decision::Busy, "{triple:?}");
    }
}

#[test]
fn content_that_is_not_here_is_fetched_before_it_is_needed() {
    let elsewhere = LocalEntry {
        whole: false,
        ..local(Version::file(1, 10, 0o644))
    };
    let triple = Triple {
        local: Some(elsewhere),
        ..Triple::default()
    };
    let fetchable = Context {
        fetchable: true,
        ..CONTEXT
    };
    assert_eq!(
        decided(&triple, &fetchable),
        Decision::NeedsContent(NodeId(20))
    );
    let Decision::Act(Action::Drop { keep, .. }, _) = decided(&triple, &CONTEXT) else {
        panic!("a file whose content is nowhere stays");
    };
    assert_eq!(keep, Keep::Trash);
}

#[test]
fn the_last_copy_on_the_server_is_not_removed() {
    let version = Version::file(1, 10, 0o644);
    let triple = Triple {
        base: base(version.clone()),
        local: None,
        remote: Some(version),
    };
    let lent = Context {
        lent: true,
        ..CONTEXT
    };
    assert_eq!(decided(&triple, &lent), Decision::NeedsContent(NodeId(20)));
}

#[test]
fn a_directory_with_host_scoped_files_stays() {
    let dir = Version::dir(0o755);
    let triple = Triple {
        base: base(dir.clone()),
        local: Some(LocalEntry {
            holds_scoped: true,
            ..local(dir)
        }),
        remote: None,
    };
    let make = Action::MakeDir { node: NodeId(20) };
    assert_eq!(
        decided(&triple, &CONTEXT),
        Act(make, Why::ChangeBeatsRemoval)
    );
}

#[test]
fn a_device_on_the_server_is_never_touched() {
    let device = Version {
        kind: Kind::Other,
        ..Version::dir(0o600)
    };
    let file = Version::file(1, 10, 0o644);
    for (base, local) in [
        (None, Some(local(file.clone()))),
        (base(file.clone()), Some(local(file.clone()))),
        (base(file), None),
    ] {
        let remote = Some(device.clone());
        let triple = Triple {
            base,
            local,
            remote,
        };
        assert_eq!(decided(&triple, &CONTEXT), Decision::Obstructed);
    }
    let alone = Triple {
        remote: Some(device),
        ..Triple::default()
    };
    assert_eq!(decided(&alone, &CONTEXT), Settled);
}

#[test]
fn equal_sizes_are_compared_before_one_side_loses() {
    let triple = Triple {
        base: None,
        local: Some(local(Version::file(5, 10, 0o644))),
        remote: Some(Version::file(5, 20, 0o644)),
    };
    let Act(Action::Compare { otherwise, .. }, _) = decided(&triple, &CONTEXT) else {
        panic!("not compared");
    };
    let Action::Refresh { keep, .. } = otherwise.action else {
        panic!("the newer one does not win");
    };
    assert_eq!(keep, Keep::Backup);
}
