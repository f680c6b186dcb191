//! Properties of plans in the model world, and the cases that once broke them.

use proptest::prelude::*;

use super::super::world::{Luck, Op, Thing, World, file_version, name};
use super::*;
use crate::sync::{ClockOffset, Prefer};

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 0..14)
}

fn op() -> impl Strategy<Value = Op> {
    let n = || any::<u8>();
    prop_oneof![
        4 => (n(), n()).prop_map(|(a, b)| Op::LocalWrite(a, b)),
        1 => (n(), n()).prop_map(|(a, b)| Op::LocalReplace(a, b)),
        3 => (n(), n()).prop_map(|(a, b)| Op::LocalMkdir(a, b)),
        1 => (n(), n(), n()).prop_map(|(a, b, c)| Op::LocalSymlink(a, b, c)),
        2 => n().prop_map(Op::LocalRemove),
        8 => (n(), n(), n()).prop_map(|(a, b, c)| Op::LocalRename(a, b, c)),
        1 => (n(), n(), n()).prop_map(|(a, b, c)| Op::LocalLink(a, b, c)),
        1 => (n(), n()).prop_map(|(a, b)| Op::LocalChmod(a, b)),
        1 => n().prop_map(Op::LocalTouch),
        3 => n().prop_map(Op::LocalEvict),
        1 => n().prop_map(Op::LocalBusy),
        3 => (n(), n()).prop_map(|(a, b)| Op::ServerWrite(a, b)),
        2 => (n(), n()).prop_map(|(a, b)| Op::ServerMkdir(a, b)),
        1 => (n(), n(), n()).prop_map(|(a, b, c)| Op::ServerSymlink(a, b, c)),
        2 => n().prop_map(Op::ServerRemove),
        2 => (n(), n(), n()).prop_map(|(a, b, c)| Op::ServerRename(a, b, c)),
        1 => (n(), n()).prop_map(|(a, b)| Op::ServerChmod(a, b)),
        1 => (n(), n()).prop_map(|(a, b)| Op::ServerCopy(a, b)),
    ]
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![6 => Just(Luck::Good), 1 => Just(Luck::Fails), 1 => Just(Luck::AnswerLost)]
}

fn policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), -3i64..3, 0i64..3).prop_map(|(local, offset, error)| Policy {
        prefer: if local { Prefer::Local } else { Prefer::Remote },
        clock: ClockOffset {
            offset_ns: offset * 1_000_000_000,
            error_ns: error * 1_000_000_000,
        },
    })
}

/// A start, then passes during which steps fail and the users go on.
#[derive(Debug, Clone)]
struct Story {
    start: Vec<Op>,
    passes: Vec<Pass>,
    policy: Policy,
}

#[derive(Debug, Clone)]
struct Pass {
    ops: Vec<Op>,
    scans: bool,
    order: Vec<u8>,
    luck: Vec<Luck>,
    /// The server's users act between the phases.
    racing: Vec<Op>,
}

fn pass() -> impl Strategy<Value = Pass> {
    (
        ops(),
        prop::bool::weighted(0.7),
        prop::collection::vec(any::<u8>(), 1..8),
        prop::collection::vec(luck(), 1..8),
        prop::collection::vec(op(), 0..3),
    )
        .prop_map(|(ops, scans, order, luck, racing)| Pass {
            ops,
            scans,
            order,
            luck,
            racing,
        })
}

fn story() -> impl Strategy<Value = Story> {
    (ops(), prop::collection::vec(pass(), 1..4), policy()).prop_map(|(start, passes, policy)| {
        Story {
            start,
            passes,
            policy,
        }
    })
}

fn is_server_op(op: &Op) -> bool {
    format!("{op:?}").starts_with("Server")
}

fn play(story: &Story) {
    let mut world = World::new();
    for op in &story.start {
        world.apply(op);
    }
    world.settle_down(30, &story.policy);
    world.assert_equal();
    for pass in &story.passes {
        play_pass(&mut world, pass, &story.policy);
    }
    world.settle_down(60, &story.policy);
    world.assert_nothing_lost();
    world.assert_equal();
}

fn play_pass(world: &mut World, pass: &Pass, policy: &Policy) {
    for op in &pass.ops {
        world.apply(op);
    }
    if pass.scans {
        world.scan();
    }
    let planned = plan(&world.input(), policy);
    assert_eq!(planned, plan(&world.input(), policy), "not deterministic");
    world.hydrate(&planned);
    let mut racing = pass.racing.iter().filter(|op| is_server_op(op));
    let mut luck = pass.luck.iter().cycle();
    for phase in &planned.phases {
        let mut steps: Vec<_> = phase.steps.iter().enumerate().collect();
        steps.sort_by_key(|(index, _)| pass.order[index % pass.order.len()]);
        for (_, step) in steps {
            world.run(step, *luck.next().unwrap());
            world.assert_nothing_lost();
        }
        if let Some(op) = racing.next() {
            world.apply(op);
        }
    }
}

/// Enough to find a fresh mistake; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(1500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, max_shrink_iters: 40_000, ..ProptestConfig::default() })]

    #[test]
    fn plans_make_both_sides_equal_and_lose_nothing(story in story()) {
        play(&story);
    }
}

fn pass_of(ops: Vec<Op>, luck: Vec<Luck>) -> Pass {
    Pass {
        ops,
        scans: true,
        order: vec![0],
        luck,
        racing: Vec::new(),
    }
}

fn story_of(start: Vec<Op>, passes: Vec<Pass>) -> Story {
    let policy = Policy {
        prefer: Prefer::Remote,
        ..Policy::default()
    };
    Story {
        start,
        passes,
        policy,
    }
}

#[test]
fn a_file_that_moves_out_of_a_lost_move_is_not_dropped() {
    use Op::*;
    let first = vec![
        LocalRemove(19),
        LocalRename(0, 44, 9),
        ServerWrite(181, 220),
    ];
    let second = vec![
        LocalRename(0, 90, 17),
        LocalRename(187, 152, 0),
        LocalRename(84, 126, 91),
        LocalWrite(71, 136),
    ];
    play(&story_of(
        vec![
            ServerMkdir(0, 0),
            ServerRename(0, 14, 137),
            LocalMkdir(0, 64),
        ],
        vec![
            pass_of(first, vec![Luck::Good]),
            Pass {
                scans: false,
                ..pass_of(second, vec![Luck::AnswerLost])
            },
        ],
    ));
}

#[test]
fn a_directory_whose_way_to_staging_failed_is_not_split_there() {
    use Op::*;
    let ops = vec![
        ServerWrite(82, 7),
        LocalRename(187, 24, 165),
        LocalRename(8, 15, 28),
    ];
    play(&story_of(
        vec![LocalMkdir(0, 1), LocalMkdir(13, 0), LocalRemove(14)],
        vec![pass_of(ops, vec![Luck::Fails, Luck::Good])],
    ));
}

#[test]
fn content_that_moved_survives_a_lost_answer_at_its_old_place() {
    use Op::*;
    let ops = vec![
        ServerMkdir(0, 17),
        LocalRename(31, 0, 164),
        LocalWrite(0, 55),
    ];
    play(&story_of(
        vec![LocalWrite(0, 0), LocalWrite(0, 235), LocalWrite(0, 0)],
        vec![pass_of(ops, vec![Luck::AnswerLost, Luck::Fails])],
    ));
}

#[test]
fn what_a_server_adds_to_a_staged_directory_comes_back_when_it_is_removed_here() {
    use Op::*;
    let ops = vec![
        LocalMkdir(20, 1),
        ServerWrite(19, 0),
        LocalRename(84, 233, 0),
        LocalRename(162, 114, 114),
    ];
    let passes = vec![ops, vec![LocalRemove(5)]].into_iter().map(|ops| Pass {
        scans: false,
        ..pass_of(ops, vec![Luck::Good])
    });
    play(&story_of(vec![LocalMkdir(0, 24)], passes.collect()));
}

#[test]
fn nested_directories_that_both_cannot_move_are_split_one_after_the_other() {
    use Op::*;
    let ops = vec![
        ServerRemove(0),
        LocalRename(80, 199, 107),
        LocalMkdir(13, 27),
        LocalRename(0, 233, 8),
        LocalWrite(38, 0),
        LocalRename(31, 236, 24),
        ServerRemove(84),
    ];
    play(&story_of(
        vec![ServerWrite(0, 64), ServerMkdir(0, 29), LocalMkdir(151, 111)],
        vec![pass_of(ops, vec![Luck::Good])],
    ));
}

#[test]
fn a_hard_link_is_not_sent_in_the_plan_that_replaces_its_content() {
    use Op::*;
    let start = vec![LocalWrite(0, 1), LocalLink(0, 0, 3), ServerWrite(0, 3)];
    play(&story_of(start, Vec::new()));
}

/// A settled world of files at the places named, all in the root, each with its own content.
fn settled(names: &[&str]) -> (World, Vec<Place>) {
    let mut world = World::new();
    let places: Vec<_> = names
        .iter()
        .map(|text| Place::new(NodeId::ROOT, name(text)))
        .collect();
    for (place, data) in places.iter().zip(1..) {
        let version = file_version(data, 10, 0o644);
        world.set_local(place, Some(Thing { version, data }));
    }
    world.settle_down(9, &Policy::default());
    (world, places)
}

fn actions(world: &World) -> Vec<(String, Place)> {
    let planned = plan(&world.input(), &Policy::default());
    let told = planned.steps().map(|step| {
        let action = format!("{:?}", step.action);
        let word = action.split([' ', '{']).next().unwrap().to_owned();
        (word, step.place.clone())
    });
    told.collect()
}

#[test]
fn a_settled_world_plans_nothing() {
    let (world, _) = settled(&["a", "b"]);
    assert_eq!(actions(&world), []);
}

#[test]
fn a_new_file_renamed_over_an_old_one_is_one_publish() {
    let (mut world, places) = settled(&["a"]);
    let version = file_version(9, 20, 0o644);
    world.set_local(&places[0], Some(Thing { version, data: 9 }));
    assert_eq!(actions(&world), [("Publish".to_owned(), places[0].clone())]);
}

#[test]
fn a_file_renamed_over_another_is_one_move() {
    let (mut world, places) = settled(&["a", "b"]);
    let node = world.links.remove(&places[0]).unwrap();
    world.links.insert(places[1].clone(), node);
    assert_eq!(actions(&world), [("Move".to_owned(), places[1].clone())]);
}

#[test]
fn a_swap_goes_by_way_of_the_staging_directory() {
    let (mut world, places) = settled(&["a", "b"]);
    let nodes: Vec<_> = places.iter().map(|place| world.links[place]).collect();
    world.links.insert(places[0].clone(), nodes[1]);
    world.links.insert(places[1].clone(), nodes[0]);
    let moves = actions(&world);
    assert!(moves.iter().all(|(word, _)| word == "Move"), "{moves:?}");
    assert_eq!(moves[0].1.parent, NodeId::STAGING);
    assert_eq!(moves.len(), 3);
}
