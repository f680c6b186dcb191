//! Simulations of whole histories: machines, a server, a foreign writer, faults and deaths, in virtual time and
//! in an order that a seed decides. After each, promise 1 is checked for every content.
//!
//! `ROAMHOME_SEED=n` runs one again (`ROAMHOME_LOG=debug` shows its passes), `ROAMHOME_SEEDS=a..b` all of a
//! range, `ROAMHOME_MINUTES=n` as many as there is time for. A failure is first made as short as it gets.

mod acts;
pub(crate) mod disk;
pub(crate) mod history;
pub(crate) mod machine;
mod meddle;
mod op;
mod oracle;
pub(crate) mod plug;
pub(crate) mod programs;
mod stories;
mod syscalls;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::rng::Rng;
use op::{Mix, Op};
use world::{Tally, World};

/// So many schedules are a part of the suite.
const SEEDS: u64 = 500;

/// What a schedule came to.
struct Ended {
    verdict: Result<(), String>,
    tally: Tally,
}

fn run(seed: u64, mix: Mix, ops: &[Op]) -> Ended {
    let mut tally = Tally::default();
    let verdict = run_into(seed, mix, ops, &mut tally, None);
    Ended { verdict, tally }
}

/// Runs a schedule; `trace` gets what was seen after each step.
fn run_into(
    seed: u64,
    mix: Mix,
    ops: &[Op],
    tally: &mut Tally,
    mut trace: Option<&mut Vec<String>>,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
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
                if let Some(trace) = &mut trace {
                    trace.push(world.trace(op));
                }
            }
            let verdict = oracle::judge(&world).await;
            *tally = world.tally();
            verdict
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
    let fails = |ops: &[Op]| run(seed, mix, ops).verdict.is_err();
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

/// What goes wrong with a seed, if anything, and what it took.
fn check(seed: u64) -> (Option<String>, Tally) {
    let mix = Mix::of(seed);
    let ops = op::ops(&mut Rng::new(seed), mix);
    let ended = run(seed, mix, &ops);
    let Err(first) = ended.verdict else {
        return (None, ended.tally);
    };
    let ops = shrink(seed, mix, ops);
    let steps: String = ops.iter().map(|op| format!("\n  {op:?}")).collect();
    tracing::info!(seed, "the shortest run that fails");
    let why = run(seed, mix, &ops).verdict.err().unwrap_or(first);
    let again = "cargo test --test suite simulation::";
    let failure = format!("ROAMHOME_SEED={seed} {again}\n{mix:?}{steps}\n{why}");
    (Some(failure), ended.tally)
}

fn seeds(text: &str) -> Range<u64> {
    let (from, to) = text.split_once("..").expect("a range such as 0..1000");
    from.parse().unwrap()..to.parse().unwrap()
}

/// Runs the seeds one after the other, on so many threads, until `go_on` says no.
fn run_seeds(seeds: Range<u64>, threads: usize, go_on: impl Fn() -> bool + Sync) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while go_on() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let (failure, tally) = check(seed);
                    sum.lock().unwrap().add(failure, tally);
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

/// What many schedules came to.
#[derive(Default)]
struct Sum {
    schedules: u64,
    tally: Tally,
    failures: Vec<String>,
}

impl Sum {
    fn add(&mut self, failure: Option<String>, tally: Tally) {
        self.schedules += 1;
        self.tally.operations += tally.operations;
        self.tally.crashes += tally.crashes;
        self.tally.faults += tally.faults;
        if let Some(failure) = failure {
            eprintln!("{failure}\n");
            self.failures.push(failure);
        }
    }

    /// One line.
    fn line(&self) -> String {
        let is_loss = |failure: &&String| failure.ends_with("is lost");
        let losses = self.failures.iter().filter(is_loss).count();
        let Tally {
            operations,
            crashes,
            faults,
        } = self.tally;
        format!(
            "{} schedules, {operations} operations, {crashes} crashes, {faults} faults, {losses} losses, {} divergences",
            self.schedules,
            self.failures.len() - losses,
        )
    }
}

#[test]
fn nothing_is_lost_and_everybody_agrees_whatever_happens() {
    crate::support::client::log();
    let seed: Option<u64> = setting("ROAMHOME_SEED").map(|seed| seed.parse().unwrap());
    let minutes: Option<u64> = setting("ROAMHOME_MINUTES").map(|minutes| minutes.parse().unwrap());
    let range = match (setting("ROAMHOME_SEEDS"), seed) {
        (Some(range), _) => seeds(&range),
        (None, Some(seed)) => seed..seed + 1,
        (None, None) if minutes.is_some() => 0..u64::MAX,
        (None, None) => 0..SEEDS,
    };
    let threads = match minutes {
        Some(_) => std::thread::available_parallelism().map_or(1, usize::from),
        None => 1,
    };
    let start = Instant::now();
    let within = minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let sum = run_seeds(range, threads, || {
        within.is_none_or(|within| start.elapsed() < within)
    });
    println!("{}", sum.line());
    assert!(sum.failures.is_empty(), "{}", sum.failures.join("\n\n"));
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in seeds(&setting("ROAMHOME_SEEDS").unwrap_or("1000..1012".into())) {
        let mix = Mix::of(seed);
        let ops = op::ops(&mut Rng::new(seed), mix);
        let [one, other] = [(); 2].map(|()| {
            let mut trace = Vec::new();
            // What comes of it is told elsewhere.
            drop(run_into(
                seed,
                mix,
                &ops,
                &mut Tally::default(),
                Some(&mut trace),
            ));
            trace
        });
        assert_eq!(one.len(), ops.len(), "seed {seed}");
        let differ = one.iter().zip(&other).find(|(one, other)| one != other);
        assert_eq!(differ, None, "seed {seed}");
    }
}
