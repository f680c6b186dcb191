//! Servers that lie, in every answer or in one of many: no panic, no hang in virtual time, nothing touched outside of
//! the replica, nothing lost that was written here, and a replica that is sound afterwards.
//!
//! `ROAMHOME_SEED=n` runs one again (`ROAMHOME_LOG=debug` shows its passes), `ROAMHOME_SEEDS=a..b` all of a range.

mod home;
mod packet;
mod peer;
mod verbs;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::support::rng::Rng;
use peer::Lying;

/// How long the suite tries each kind of session.
const BUDGET: Duration = Duration::from_secs(8);

/// A peer that lies as often as its seed says.
fn peer(seed: u64, rng: &mut Rng) -> Lying {
    Lying::new(&home::server(), seed, rng.pick(&[2, 4, 10, 40, 200]))
}

async fn session(seed: u64) {
    let mut rng = Rng::new(seed);
    let peer = peer(seed, &mut rng);
    verbs::run(&peer, &mut rng).await;
}

async fn home(seed: u64) {
    let mut rng = Rng::new(seed);
    let dir = crate::support::scratch();
    home::run(peer(seed, &mut rng), &mut rng, dir.path()).await;
}

/// Runs one seed in virtual time, where everything that waits for time ends.
fn run<F: Future<Output = ()>>(test: &str, seed: u64, story: impl Fn(u64) -> F) -> bool {
    let live = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(story(seed));
    };
    let lived = catch_unwind(AssertUnwindSafe(live));
    if lived.is_err() {
        eprintln!("ROAMHOME_SEED={seed} cargo test --test suite hostile::{test}");
    }
    lived.is_ok()
}

/// The seeds that were asked for, or as many as there is time for.
pub(crate) fn seeds(budget: Duration) -> Box<dyn Iterator<Item = u64>> {
    let number = |text: &str| text.parse::<u64>().unwrap();
    if let Ok(seed) = std::env::var("ROAMHOME_SEED") {
        return Box::new(std::iter::once(number(&seed)));
    }
    if let Ok(range) = std::env::var("ROAMHOME_SEEDS") {
        let (from, to) = range.split_once("..").expect("a range such as 0..1000");
        let range: Range<u64> = number(from)..number(to);
        return Box::new(range);
    }
    let start = Instant::now();
    Box::new((0..).take_while(move |_| start.elapsed() < budget))
}

fn all<F: Future<Output = ()>>(test: &str, story: impl Fn(u64) -> F) {
    crate::support::client::log();
    let (mut lived, mut failed) = (0, Vec::new());
    for seed in seeds(BUDGET) {
        match run(test, seed, &story) {
            true => lived += 1,
            false => failed.push(seed),
        }
    }
    eprintln!("hostile::{test}: {lived} lives");
    assert!(failed.is_empty(), "seeds {failed:?} fail");
}

#[test]
fn whatever_a_server_answers_a_session_ends_or_goes_on() {
    all("whatever_a_server_answers", session);
}

#[test]
fn whatever_a_server_answers_nothing_that_was_written_here_is_lost() {
    all("whatever_a_server_answers_nothing", home);
}
