//! Simulations of whole histories: machines, a server, a foreign writer, faults and deaths, in virtual time and
//! in an order that a seed decides. After each, promise 1 is checked for every content.
//!
//! `ROAMHOME_SEED=n` runs one again (`ROAMHOME_LOG=debug` shows its passes), `ROAMHOME_SEEDS=a..b` all of a
//! range. A failure is first made as short as it gets.

mod acts;
pub(crate) mod disk;
pub(crate) mod history;
pub(crate) mod machine;
mod meddle;
mod op;
mod oracle;
pub(crate) mod plug;
pub(crate) mod programs;
mod syscalls;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::support::rng::Rng;
use op::{Mix, Op};
use world::World;

/// How long the suite looks for what nobody thought of.
const BUDGET: Duration = Duration::from_secs(10);

fn run(seed: u64, mix: Mix, ops: &[Op]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let simulate = || {
        runtime.block_on(async {
            let world = World::new(&mut Rng::new(seed), mix);
            let machines = world.machines.borrow().clone();
            for machine in machines {
                machine.online().await;
            }
            for op in ops {
                world.apply(op).await;
            }
            oracle::judge(&world).await
        })
    };
    catch_unwind(AssertUnwindSafe(simulate)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Leaves out what the failure does not need.
fn shrink(seed: u64, mix: Mix, mut ops: Vec<Op>) -> Vec<Op> {
    let fails = |ops: &[Op]| run(seed, mix, ops).is_err();
    let mut size = ops.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + size).min(ops.len()));
            if fails(&fewer) {
                ops = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    for at in 0..ops.len() {
        let mut part = 0;
        while let Op::Together(parts) = &ops[at]
            && part < parts.len()
        {
            let mut fewer = parts.clone();
            fewer.remove(part);
            let mut tried = ops.clone();
            tried[at] = Op::Together(fewer);
            if fails(&tried) {
                ops = tried;
            } else {
                part += 1;
            }
        }
    }
    ops
}

fn check(seed: u64) {
    if let Some(failure) = failure(seed) {
        panic!("{failure}");
    }
}

/// What goes wrong with a seed.
fn failure(seed: u64) -> Option<String> {
    let mix = Mix::of(seed);
    let ops = op::ops(&mut Rng::new(seed), mix);
    let Err(first) = run(seed, mix, &ops) else {
        return None;
    };
    let ops = shrink(seed, mix, ops);
    let steps: String = ops.iter().map(|op| format!("\n  {op:?}")).collect();
    tracing::info!(seed, "the shortest run that fails");
    let why = run(seed, mix, &ops).err().unwrap_or(first);
    Some(format!("ROAMHOME_SEED={seed} {mix:?}{steps}\n{why}"))
}

fn seeds(text: &str) -> Range<u64> {
    let (from, to) = text.split_once("..").expect("a range such as 0..1000");
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn nothing_is_lost_and_everybody_agrees_whatever_happens() {
    crate::support::client::log();
    if let Ok(seed) = std::env::var("ROAMHOME_SEED") {
        return check(seed.parse().unwrap());
    }
    if let Ok(range) = std::env::var("ROAMHOME_SEEDS") {
        let failures: Vec<_> = seeds(&range).filter_map(failure).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n\n"));
        return;
    }
    let start = Instant::now();
    for seed in 0.. {
        if start.elapsed() > BUDGET {
            return;
        }
        check(seed);
    }
}
