//! Properties of plans in the model world, and the cases that once broke them.

use proptest::prelude::*;

use super::super::world::{Luck, Op, World};
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
    if std::env::var("SHOW").is_ok() {
        eprintln!("INPUT {:#?}\nPLAN {:#?}", world.input(), planned);
    }
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

#[test]
fn dbg1() {
    use Luck::*;
    use Op::*;
    play(&Story {
        start: vec![
            ServerMkdir(0, 0),
            ServerRename(0, 14, 137),
            LocalMkdir(0, 64),
        ],
        passes: vec![
            Pass {
                ops: vec![
                    LocalRemove(19),
                    LocalRename(0, 44, 9),
                    ServerWrite(181, 220),
                ],
                scans: true,
                order: vec![0],
                luck: vec![Good],
                racing: vec![],
            },
            Pass {
                ops: vec![
                    LocalRename(0, 90, 17),
                    LocalRename(187, 152, 0),
                    LocalRename(84, 126, 91),
                    LocalWrite(71, 136),
                ],
                scans: false,
                order: vec![0],
                luck: vec![AnswerLost],
                racing: vec![],
            },
        ],
        policy: Policy {
            prefer: Prefer::Remote,
            clock: ClockOffset {
                offset_ns: 0,
                error_ns: 0,
            },
        },
    });
}
