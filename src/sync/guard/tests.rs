use super::super::{Keep, Phase, Step, Why};
use super::*;
use crate::tree::{Name, NodeId, Place, Version};

fn plan_of(action: &Action, count: usize) -> Plan {
    let steps = (0..count).map(|number| Step {
        place: Place::new(
            NodeId::ROOT,
            Name::new(number.to_string().as_bytes()).unwrap(),
        ),
        action: action.clone(),
        why: Why::LocalChange,
    });
    Plan {
        phases: vec![Phase {
            steps: steps.collect(),
        }],
        ..Plan::default()
    }
}

#[test]
fn a_mass_removal_needs_both_count_and_share() {
    let limits = GuardLimits::default();
    let drop = Action::Drop {
        node: NodeId(20),
        keep: Keep::Trash,
    };
    for (label, action, count, known, side) in [
        ("all of a small home", &drop, 100, 100, None),
        ("one more", &drop, 101, 101, Some(Side::Replica)),
        ("a quarter", &drop, 250, 1000, None),
        ("little of a large home", &drop, 300, 100_000, None),
        ("much", &drop, 300, 1000, Some(Side::Replica)),
        (
            "much there",
            &Action::RemoveDir,
            300,
            1000,
            Some(Side::Server),
        ),
    ] {
        let plan = plan_of(action, count);
        let removals = Removals::of(&plan, &BTreeSet::new());
        let found = guard(&plan, known, &limits, removals);
        let expected = side.map(|side| Guard::MassRemoval {
            side,
            removed: count as u64,
            known,
        });
        assert_eq!(found, Vec::from_iter(expected), "{label}");
    }
}

#[test]
fn what_a_pass_removed_before_counts() {
    let limits = GuardLimits::default();
    let drop = Action::Drop {
        node: NodeId(20),
        keep: Keep::Trash,
    };
    let plan = plan_of(&drop, 60);
    let more = Removals::of(&plan, &BTreeSet::new());
    assert!(guard(&plan, 200, &limits, more).is_empty());
    let found = guard(&plan, 200, &limits, more + more);
    let expected = Guard::MassRemoval {
        side: Side::Replica,
        removed: 120,
        known: 200,
    };
    assert_eq!(found, [expected]);
}

#[test]
fn storms_of_attributes_and_of_epoch_times_ask() {
    let limits = GuardLimits::default();
    let node = NodeId(20);
    let version = Version::file(1, 0, 0o644);
    for action in [
        Action::TakeAttrs {
            node,
            version: version.clone(),
        },
        Action::Refresh {
            node,
            version,
            keep: Keep::Replaced,
        },
    ] {
        let none = Removals::default();
        let found = guard(&plan_of(&action, 900), 1000, &limits, none);
        assert!(
            matches!(found[..], [Guard::AttributeStorm { .. }]),
            "{action:?}"
        );
        assert!(guard(&plan_of(&action, 400), 1000, &limits, none).is_empty());
    }
}

#[test]
fn every_question_names_its_remedy() {
    for reason in [
        Guard::Identity(HomeIdentity::Missing),
        Guard::Identity(HomeIdentity::Other),
        Guard::Identity(HomeIdentity::Unreadable("no permission".into())),
        Guard::RolledBack,
        Guard::MassRemoval {
            side: Side::Server,
            removed: 5,
            known: 6,
        },
    ] {
        let text = reason.to_string();
        assert!(
            text.contains('?') && text.contains("--force-guard"),
            "{text}"
        );
    }
}
