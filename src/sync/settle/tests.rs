use super::super::{Keep, Why};
use super::*;
use crate::tree::Name;

fn place(parent: u64, name: &str) -> Place {
    Place::new(NodeId(parent), Name::new(name.as_bytes()).unwrap())
}

fn step(action: Action) -> Step {
    Step {
        place: place(1, "x"),
        action,
        why: Why::LocalChange,
    }
}

fn publish() -> Step {
    step(Action::Publish {
        node: NodeId(20),
        replaces: None,
        keep: Keep::Replaced,
    })
}

fn done(version: Option<Version>, node: Option<NodeId>) -> Outcome {
    Outcome::Done { version, node }
}

#[test]
fn what_failed_folds_nothing() {
    assert_eq!(settle(&publish(), &Outcome::Failed), []);
    assert_eq!(settle(&publish(), &done(None, None)), []);
}

#[test]
fn a_failed_precondition_is_an_observation() {
    let seen = Some(Version::dir(0o700));
    let observed = |place| {
        vec![Fold::Observe {
            place,
            version: seen.clone(),
        }]
    };
    let saw = Outcome::Saw(seen.clone());
    assert_eq!(settle(&publish(), &saw), observed(place(1, "x")));
    let go = step(Action::Move {
        node: NodeId(20),
        from: place(1, "y"),
        expected: Version::file(1, 2, 3),
        replaces: None,
        alike: false,
    });
    assert_eq!(settle(&go, &saw), observed(place(1, "y")));
    let target = Outcome::SawTarget(seen.clone());
    assert_eq!(settle(&go, &target), observed(place(1, "x")));
}

#[test]
fn base_becomes_what_the_server_showed() {
    let shown = Version::file(7, 8, 0o600);
    let folds = settle(&publish(), &done(Some(shown.clone()), None));
    let entry = Some(BaseEntry {
        node: NodeId(20),
        version: shown,
    });
    let set = Fold::SetBase {
        place: place(1, "x"),
        entry,
    };
    assert_eq!(folds.first(), Some(&set));
}

#[test]
fn dropping_here_says_nothing_about_the_server() {
    let drop = step(Action::Drop {
        node: NodeId(20),
        keep: Keep::Trash,
    });
    assert_eq!(settle(&drop, &done(None, None)), [clean(&place(1, "x"))]);
}
